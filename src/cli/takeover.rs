//! What `apply` does on the running system so that Rspamd signs with what was installed, and is proved to: a reload, a message
//! that is sent to nobody, its signatures verified as receivers do. If that fails, Rspamd has its old files back.

use std::collections::BTreeSet;
use std::time::Duration;

use camino::Utf8Path;
use serde_json::{Value, json};

use crate::cli::dkim::record_in_force;
use crate::cli::failure::Failure;
use crate::cli::session::Wanted;
use crate::diag::Diagnostic;
use crate::dkim;
use crate::env::{Env, Program};
use crate::host::{Checked, HostError, Machine, Rspamd, SignatureVerdict, Verifier, probe};
use crate::install::{Effect, Found, Installation};
use crate::inventory::{DkimAlgorithm, DkimKey, DkimState, Inventory};
use crate::names::{DomainName, HostName, visible};
use crate::site::Host;
use crate::store::Writer;

/// An Rspamd that is to take over what was installed.
pub(super) struct Takeover<'a> {
    pub(super) env: &'a dyn Env,
    pub(super) wanted: &'a Wanted,
    pub(super) inventory: &'a Inventory,
    pub(super) host: &'a Host,
    pub(super) machine: &'a Machine<'a>,
    pub(super) installation: &'a Installation,
    /// Whether a template of the administrator's says how Rspamd signs: it may do so by other means.
    pub(super) own_signing: bool,
    /// Whether Rspamd must be told, be it because of an earlier run.
    pub(super) is_due: bool,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) text: String,
    pub(super) json: Value,
    pub(super) warnings: Vec<Diagnostic>,
}

/// Why Rspamd cannot be left with what was installed.
#[derive(Debug)]
struct Problem {
    code: &'static str,
    message: String,
    reasons: Vec<String>,
    help: String,
}

/// What was proved.
#[derive(Debug, Default)]
struct Proved {
    /// The command that told Rspamd.
    told: Option<&'static str>,
    domains: usize,
    signatures: usize,
    /// Names of records that DNS has, and verifies by.
    in_dns: usize,
    /// Names of records that are not there, and were never seen either.
    unconfirmed: Vec<String>,
    /// What DNS did not answer.
    silent: Vec<String>,
    /// Records that were there once.
    lost: Vec<String>,
}

/// So many domains are tried at most: each takes some hundredths of a second, and what goes wrong goes wrong for many.
const SAMPLE: usize = 36;

/// A reload takes effect after 0.6 s; before, the old configuration answers.
const SETTLES: Duration = Duration::from_secs(1);

/// How often, and with which pauses, Rspamd is tried until it signs as it should.
const ATTEMPTS: u32 = 25;
const PAUSE: Duration = Duration::from_millis(200);

/// After so many unanswered questions DNS is not asked any more.
const SILENCE: usize = 3;

/// So many reasons are shown at most.
const SHOWN: usize = 10;

impl Takeover<'_> {
    /// Has Rspamd take over, proves it and records it.
    ///
    /// # Errors
    /// A failure that says what is in force now. Its old files are back, unless they name what is revoked.
    pub(super) fn run(&self, store: &mut Writer, rspamd: &Rspamd, verifier: &Verifier) -> Result<Taken, Failure> {
        let proved = match self.told_and_proved(rspamd, verifier) {
            Ok(proved) => proved,
            Err(problem) if self.own_signing && problem.code == "probe-failed" => return Ok(own_way(&problem)),
            Err(problem) => return Err(self.failed(store, rspamd, verifier, problem)),
        };
        if !proved.lost.is_empty() {
            let problem = Problem {
                code: "record-lost",
                message: "records that every name server had are not in DNS: what is signed with their keys fails"
                    .to_owned(),
                reasons: proved.lost.clone(),
                help: "publish them again, see out/dns/; then: postseal apply".to_owned(),
            };
            return Err(self.failed(store, rspamd, verifier, problem));
        }
        let hosts: Vec<HostName> = self.wanted.site.hosts.iter().map(|host| host.name.clone()).collect();
        let unused = record_in_force(self.env, store, &self.host.name, &hosts, "apply")?;
        Ok(proved.report(&unused))
    }

    fn told_and_proved(&self, rspamd: &Rspamd, verifier: &Verifier) -> Result<Proved, Problem> {
        let domains = self.domains();
        let mut told = None;
        // What a map names, Rspamd finds by itself.
        if self.is_due {
            told = Some(self.tell()?);
        }
        let mut tried = self.signs(rspamd, verifier, &domains);
        if tried.is_err() && told.is_none() {
            // It watches its maps, but not on every file system; or nobody told it what an earlier run installed.
            told = Some(self.tell()?);
            tried = self.signs(rspamd, verifier, &domains);
        }
        let signed = tried.map_err(|reasons| Problem {
            code: "probe-failed",
            message: "Rspamd does not sign as it should with what was installed".to_owned(),
            reasons,
            help: "look at Rspamd's log, mend what it names, then: postseal apply".to_owned(),
        })?;
        let mut proved = Proved { told, domains: domains.len(), ..Proved::default() };
        for (domain, message) in domains.iter().zip(&signed) {
            self.ask_dns(verifier, domain, message, &mut proved);
        }
        Ok(proved)
    }

    fn state(&self) -> &'static str {
        self.host.platform.layout().rspamd_state
    }

    /// Tells Rspamd to read its configuration anew. What a worker listens at is settled at its start.
    fn tell(&self) -> Result<&'static str, Problem> {
        let layout = self.host.platform.layout();
        let of_worker = |path: &Utf8Path| path.file_name().is_some_and(|name| name.starts_with("worker-"));
        let restarts = self.machine.changes_for_rspamd(self.installation).any(|step| of_worker(&step.path));
        let order = if restarts { layout.restart_rspamd } else { layout.reload_rspamd };
        let words: Vec<&str> = order.split_ascii_whitespace().collect();
        let (name, arguments) = words.split_first().unwrap_or((&"", &[]));
        let said = match self.env.run(&Program { name, arguments, user: None, input: &[] }) {
            Ok(finished) if finished.success => {
                self.env.wait(SETTLES);
                return Ok(order);
            }
            Ok(finished) => finished.errors,
            Err(error) => error.to_string(),
        };
        let lines = said.lines().map(str::trim).filter(|line| !line.is_empty()).take(SHOWN);
        Err(Problem {
            code: "rspamd-reload",
            message: format!("`{order}` failed"),
            reasons: lines.map(visible).collect(),
            help: "mend what hinders it, then: postseal apply".to_owned(),
        })
    }

    /// Returns the domains to try: those of which a key was just installed, or else all; of many a sample.
    fn domains(&self) -> Vec<&DomainName> {
        let signing = |domain: &&DomainName| !self.expected(domain).is_empty();
        let all: Vec<&DomainName> =
            self.wanted.site.domains.iter().map(|domain| &domain.name).filter(signing).collect();
        let written: BTreeSet<&str> = self
            .machine
            .changes_for_rspamd(self.installation)
            .filter(|step| step.action.writes())
            .filter_map(|step| step.path.file_name())
            .collect();
        let is_new = |domain: &&&DomainName| {
            self.expected(domain).iter().any(|key| written.contains(dkim::key_file_name(key).as_str()))
        };
        let changed: Vec<&DomainName> = all.iter().filter(is_new).copied().collect();
        sample(if changed.is_empty() { all } else { changed })
    }

    /// Returns the keys that a domain's mail is to be signed with.
    fn expected(&self, domain: &DomainName) -> Vec<&DkimKey> {
        let keys = self.inventory.dkim_keys_of(domain).iter();
        keys.filter(|key| key.state == DkimState::Active && self.wanted.site.signs(key)).collect()
    }

    /// Waits until Rspamd signs for every one of the domains as it should, and returns the signed messages; or what it does
    /// instead.
    fn signs(
        &self,
        rspamd: &Rspamd,
        verifier: &Verifier,
        domains: &[&DomainName],
    ) -> Result<Vec<Vec<u8>>, Vec<String>> {
        let mut patience = ATTEMPTS;
        let mut messages = Vec::new();
        let mut reasons = Vec::new();
        for domain in domains {
            loop {
                match self.sign_one(rspamd, verifier, domain) {
                    Ok(message) => {
                        messages.push(message);
                        break;
                    }
                    Err(reason) if patience == 0 => {
                        reasons.push(reason);
                        break;
                    }
                    Err(_) => {
                        patience -= 1;
                        self.env.wait(PAUSE);
                    }
                }
            }
        }
        if reasons.is_empty() { Ok(messages) } else { Err(reasons) }
    }

    fn sign_one(&self, rspamd: &Rspamd, verifier: &Verifier, domain: &DomainName) -> Result<Vec<u8>, String> {
        let message = sign(self.env, rspamd, domain)?;
        let keys = self.inventory.dkim_keys_of(domain);
        let found = verifier.by_keys(&message, keys);
        judge(domain, &self.expected(domain), &found)?;
        Ok(message)
    }

    /// Verifies a message by what DNS has now.
    fn ask_dns(&self, verifier: &Verifier, domain: &DomainName, message: &[u8], proved: &mut Proved) {
        let keys = self.expected(domain);
        proved.signatures += keys.len();
        if proved.silent.len() >= SILENCE {
            return;
        }
        for checked in verifier.by_dns(message) {
            let Some(key) = keys.iter().find(|key| key.selector.as_str() == checked.selector) else { continue };
            let name = dkim::record_name(&key.selector, domain);
            match checked.verdict {
                SignatureVerdict::Good => proved.in_dns += 1,
                SignatureVerdict::Unknown(why) => proved.silent.push(format!("{name}: {why}")),
                // An administrator's word is taken for what cannot be seen from here.
                SignatureVerdict::Bad(_) if key.seen.is_none() || key.confirmed => proved.unconfirmed.push(name),
                SignatureVerdict::Bad(why) => proved.lost.push(format!("{name}: {why}")),
            }
        }
    }

    /// Gives Rspamd its old files back where that is better than the new ones, and says what is in force now.
    fn failed(&self, store: &mut Writer, rspamd: &Rspamd, verifier: &Verifier, problem: Problem) -> Failure {
        let mut finding = Diagnostic::error(problem.code, problem.message, problem.help);
        for reason in problem.reasons.iter().take(SHOWN) {
            finding = finding.note(reason.clone());
        }
        let changes = self.machine.changes_for_rspamd(self.installation).count();
        let now = match self.no_longer_published(store) {
            _ if changes == 0 => Ok("this run changed no file of Rspamd's, so there is none to put back".to_owned()),
            Ok(_) if problem.code == "record-lost" && !self.changes_signing() => {
                Ok("the new files stay: they sign as the old ones did".to_owned())
            }
            Ok(gone) if !gone.is_empty() => Ok(format!(
                "the new files stay: the old ones sign with {}, which is no longer published",
                gone.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ")
            )),
            Ok(_) => self.back(store, rspamd, verifier),
            Err(failure) => Err(failure),
        };
        finding = match now {
            Ok(now) => finding.note(now),
            Err(failure) => failure.diagnostics().iter().fold(
                finding.note("the old files could not be put back; the new ones are in their places".to_owned()),
                |finding, other| finding.note(other.message.clone()),
            ),
        };
        Failure::Work(Box::new(finding))
    }

    /// Tells whether an installation changed what is signed with, and not only how mail is judged.
    fn changes_signing(&self) -> bool {
        self.machine.changes_for_rspamd(self.installation).any(|step| {
            step.path.starts_with(self.state())
                || step.path.file_name().is_some_and(|name| ["arc.conf", "dkim_signing.conf"].contains(&name))
        })
    }

    /// Returns the record names of the keys that the old files sign with and that are revoked or destroyed.
    fn no_longer_published(&self, store: &Writer) -> Result<Vec<String>, Failure> {
        let named: BTreeSet<String> = self
            .machine
            .changes_for_rspamd(self.installation)
            .filter_map(|step| match &step.found {
                Found::File(_, _, content) if step.path.extension() != Some("key") => content.expose_str(),
                _ => None,
            })
            .flat_map(named_keys)
            .collect();
        if named.is_empty() {
            return Ok(Vec::new());
        }
        let mut gone = Vec::new();
        for domain in &self.wanted.site.domains {
            let domain = &domain.name;
            let prefix = format!("{domain}.");
            if !named.range(prefix.clone()..).next().is_some_and(|name| name.starts_with(&prefix)) {
                continue;
            }
            let published: BTreeSet<&str> = self
                .inventory
                .dkim_keys_of(domain)
                .iter()
                .filter(|key| key.state < DkimState::Revoked)
                .map(|key| key.selector.as_str())
                .collect();
            for selector in store.ledger().dkim_selectors(domain)? {
                if !published.contains(selector.as_str()) && named.contains(&format!("{domain}.{selector}")) {
                    gone.push(dkim::record_name(&selector, domain));
                }
            }
        }
        Ok(gone)
    }

    /// Puts the old files back, has Rspamd read them, and says what it signs with.
    fn back(&self, store: &mut Writer, rspamd: &Rspamd, verifier: &Verifier) -> Result<String, Failure> {
        self.machine.put_back(self.installation).map_err(|error: HostError| Failure::from(error))?;
        let (now, host) = (self.env.now(), &self.host.name);
        // The files are back, whatever becomes of the ledger.
        let _ = store.transact(|ledger| ledger.record_event(now, "rspamd-put-back", host.as_str(), &json!({})));
        let mut text = "the old files are back".to_owned();
        if let Err(problem) = self.tell() {
            text.push_str(&format!(", but {}: Rspamd may go on with what it has in memory", problem.message));
        }
        let mut signed = BTreeSet::new();
        let mut unsigned = Vec::new();
        for domain in self.domains() {
            match self.signs_at_all(rspamd, verifier, domain) {
                Ok(selectors) => signed.extend(selectors),
                Err(reason) => unsigned.push(reason),
            }
        }
        if !signed.is_empty() {
            let selectors: Vec<String> = signed.into_iter().take(SHOWN).collect();
            text.push_str(&format!("; Rspamd signs with {}, which verify", selectors.join(", ")));
        }
        for reason in unsigned.iter().take(SHOWN) {
            text.push_str(&format!("; {reason}"));
        }
        Ok(text)
    }

    /// Tries whether Rspamd signs a domain's mail with anything that is published, and returns the selectors.
    fn signs_at_all(&self, rspamd: &Rspamd, verifier: &Verifier, domain: &DomainName) -> Result<Vec<String>, String> {
        let found = verifier.by_keys(&sign(self.env, rspamd, domain)?, self.inventory.dkim_keys_of(domain));
        if found.is_empty() {
            return Err(format!("mail of {domain} is not signed"));
        }
        match found.iter().find(|one| one.verdict != SignatureVerdict::Good) {
            None => Ok(found.into_iter().map(|one| one.selector).collect()),
            Some(bad) => {
                Err(format!("mail of {domain} is signed with {}, which does not verify", visible(&bad.selector)))
            }
        }
    }
}

impl Proved {
    fn report(self, unused: &[String]) -> Taken {
        let mut text = String::new();
        if let Some(order) = self.told {
            text.push_str(&format!("done: {order}\n"));
        }
        let domains = if self.domains == 1 { "1 domain".to_owned() } else { format!("{} domains", self.domains) };
        text.push_str(&format!(
            "proved: Rspamd signs for {domains} as it should; of {} signatures all verify, {} by DNS\n",
            self.signatures, self.in_dns
        ));
        for name in unused {
            text.push_str(&format!("{name} is used no more; its record stays for a while\n"));
        }
        let json = json!({
            "told": self.told, "domains": self.domains, "signatures": self.signatures, "in_dns": self.in_dns,
            "unconfirmed": self.unconfirmed, "unanswered": self.silent, "unused": unused,
        });
        let few = |names: &[String]| names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
        let mut warnings = Vec::new();
        if !self.unconfirmed.is_empty() {
            let message = format!("nobody can verify yet what is signed by {}", few(&self.unconfirmed));
            let help = "publish the records, see out/dns/; whether they are seen, says: postseal dkim advance";
            warnings.push(Diagnostic::warning("dkim-unconfirmed", message, help));
        }
        if !self.silent.is_empty() {
            let message =
                format!("DNS did not answer, so signatures were verified by the ledger alone: {}", few(&self.silent));
            let help = "look at the host's resolver, or name another: --resolver ADDRESS";
            warnings.push(Diagnostic::warning("dns-silent", message, help));
        }
        Taken { text, json, warnings }
    }
}

/// Says that Rspamd signs in its own way.
fn own_way(problem: &Problem) -> Taken {
    let help = "if it signs as you want: postseal dkim confirm --in-force";
    let finding = Diagnostic::warning("probe-failed", "Rspamd signs otherwise, as your own template has it", help);
    let finding = problem.reasons.iter().take(SHOWN).cloned().fold(finding, Diagnostic::note);
    Taken { warnings: vec![finding], json: json!({ "reasons": problem.reasons }), ..Taken::default() }
}

fn sign(env: &dyn Env, rspamd: &Rspamd, domain: &DomainName) -> Result<Vec<u8>, String> {
    let message = probe(domain, env.now());
    rspamd.sign(domain, &message).map_err(|error| format!("{}: {error}", rspamd.socket()))
}

/// Compares signatures with what should be there.
fn judge(domain: &DomainName, expected: &[&DkimKey], found: &[Checked]) -> Result<(), String> {
    let wanted: BTreeSet<_> = expected.iter().map(|key| (key.selector.as_str(), Some(key.algorithm))).collect();
    let there: BTreeSet<_> = found.iter().map(|one| (one.selector.as_str(), one.algorithm)).collect();
    let words = |set: &BTreeSet<(&str, Option<DkimAlgorithm>)>| match set.len() {
        0 => "nothing".to_owned(),
        _ => set.iter().map(|(selector, _)| visible(selector)).collect::<Vec<_>>().join(" and "),
    };
    let of_others = found.iter().any(|one| !one.domain.eq_ignore_ascii_case(domain.as_str()));
    if wanted != there || found.len() != expected.len() || of_others {
        return Err(format!("mail of {domain} is signed with {} instead of {}", words(&there), words(&wanted)));
    }
    let bad = found.iter().find_map(|one| match &one.verdict {
        SignatureVerdict::Good => None,
        SignatureVerdict::Bad(why) | SignatureVerdict::Unknown(why) => Some((&one.selector, why)),
    });
    bad.map_or(Ok(()), |(selector, why)| {
        Err(format!("mail of {domain} has a signature of {selector} that does not verify by its own key: {why}"))
    })
}

/// Returns at most [`SAMPLE`] of a list, spread over it.
fn sample<T: Copy>(all: Vec<T>) -> Vec<T> {
    if all.len() <= SAMPLE {
        return all;
    }
    (0..SAMPLE).filter_map(|at| all.get(at * all.len() / SAMPLE).copied()).collect()
}

/// Returns `domain.selector` of each key that a configuration or a map of Rspamd's names.
fn named_keys(text: &str) -> Vec<String> {
    let mut named = Vec::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
        let paths = line.split(|c: char| c.is_whitespace() || "\"';".contains(c));
        let files = paths.filter_map(|path| path.rsplit('/').next()?.strip_suffix(".key"));
        named.extend(files.map(str::to_owned));
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        if let [domain, selector] = words.as_slice() {
            named.push(format!("{domain}.{selector}"));
        }
    }
    named
}

/// Tells whether something of an installation must be taken over by Rspamd.
pub(super) fn is_due(due: &BTreeSet<Effect>) -> bool {
    due.contains(&Effect::RestartRspamd)
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::names::Digest;

    fn key(algorithm: DkimAlgorithm, selector: &str) -> DkimKey {
        let line = ("example.com".parse().unwrap(), algorithm);
        let half = (String::new(), Digest::of(b""));
        DkimKey::new(line, selector.parse().unwrap(), half, datetime!(2026-11-24 12:00 UTC))
    }

    fn found(selector: &str, algorithm: DkimAlgorithm, verdict: SignatureVerdict) -> Checked {
        Checked { domain: "example.com".into(), selector: selector.into(), algorithm: Some(algorithm), verdict }
    }

    #[test]
    fn a_mail_must_carry_exactly_the_signatures_of_the_active_keys() {
        use DkimAlgorithm::{Ed25519, Rsa};
        use SignatureVerdict::{Bad, Good};
        let domain: DomainName = "example.com".parse().unwrap();
        let keys = [key(Rsa, "202611r"), key(Ed25519, "202611e")];
        let expected: Vec<&DkimKey> = keys.iter().collect();
        let judge = |found: &[Checked]| judge(&domain, &expected, found);
        let (r, e) = (found("202611r", Rsa, Good), found("202611e", Ed25519, Good));
        assert_eq!(judge(&[e.clone(), r.clone()]), Ok(()));
        assert!(judge(&[]).unwrap_err().contains("signed with nothing instead of 202611e and 202611r"));
        assert!(judge(std::slice::from_ref(&r)).is_err());
        assert!(judge(&[r.clone(), r.clone()]).is_err());
        assert!(judge(&[r.clone(), e.clone(), e.clone()]).is_err());
        assert!(judge(&[r.clone(), found("202610e", Ed25519, Good)]).is_err());
        assert!(judge(&[r.clone(), Checked { domain: "example.org".into(), ..e.clone() }]).is_err());
        assert!(judge(&[e, found("202611r", Rsa, Bad("forged".into()))]).unwrap_err().contains("forged"));
    }

    #[test]
    fn of_many_domains_a_sample_is_spread_over_all() {
        assert_eq!(sample(vec![1, 2, 3]), [1, 2, 3]);
        let few = sample((0..10_000).collect());
        assert_eq!((few.len(), few[0]), (SAMPLE, 0));
        assert!(few.windows(2).all(|pair| pair[0] < pair[1]) && few[SAMPLE - 1] > 9_000);
    }

    #[test]
    fn the_keys_that_old_files_name_are_found_in_either_shape() {
        let blocks = "# of example.com.202601r.key\ndomain {\n  \"example.com\" {\n    selectors [\n      { selector = \"202610r\"; path = \"/var/lib/rspamd/dkim/example.com.202610r.key\"; },\n    ]\n  }\n}\n";
        assert_eq!(named_keys(blocks).iter().filter(|name| name.starts_with("example.com.")).count(), 1);
        assert!(named_keys(blocks).contains(&"example.com.202610r".to_owned()));
        assert_eq!(named_keys("# selectors\nexample.com 202610r\n"), ["example.com.202610r"]);
    }
}
