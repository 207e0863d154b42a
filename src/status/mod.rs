//! How a site stands: what expires, what is due, what does not fit together. Facts go in, the clock is an argument, findings
//! come out; `nagios`, `prometheus` and `ics` write them for other programs.

pub mod ics;
pub mod nagios;
pub mod prometheus;

use std::collections::{BTreeSet, HashSet};

use camino::{Utf8Path, Utf8PathBuf};
use time::{Duration, OffsetDateTime};

use crate::dkim::rotation;
use crate::inventory::{
    CertificateStatus, ClientCertificate, DkimKey, DkimState, Inventory, IssuingCa, ServerCertificate,
};
use crate::names::{Digest, DomainName, HostName, MailAddress, Serial, shell_word};
use crate::pki::Certificate;
use crate::pki::profile::BACKDATED;
use crate::pki::trust::MAXIMUM_TWINS;
use crate::plan;
use crate::policy::rollout::{self, Next, Way};
use crate::policy::words;
use crate::site::{Domain, Site};
use crate::stages::Track;

/// How urgent something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Good to know.
    Ok,
    /// To be looked at, but not today.
    Warning,
    /// Somebody is locked out, or soon will be.
    Critical,
}

impl Severity {
    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// Everything that can be found, the most urgent first, each with its meaning.
pub const FINDINGS: &[(&str, &str)] = &[
    ("cannot-render", "the files cannot be rendered, so no change reaches a host"),
    ("crl-ended", "servers that heed the CRL refuse everybody"),
    ("host-without-certificate", "a host has no server certificate"),
    ("site-ca-expires", "the site CA ends"),
    ("issuing-ca-expires", "the issuing CA for all clients ends"),
    ("server-certificate-expires", "a server certificate ends, or less than a third of its life is left"),
    ("watched-certificate-expires", "a certificate that an ACME client keeps ends, as it was seen last"),
    ("crl-due", "half of a CRL's life is over, it does not say what was revoked since, or there is none yet"),
    ("client-certificate-expires", "a user's certificate ends"),
    ("end-not-recorded", "a certificate has ended, and the ledger does not say so yet"),
    ("lock-stale", "postseal.lock says something else than the ledger"),
    ("out-stale", "out/ is not what would be rendered now"),
    ("dkim-revoked-in-use", "a host may still sign with a DKIM key that is revoked"),
    ("dkim-key-missing", "a domain has no key of an algorithm that the settings name"),
    ("dkim-unconfirmed", "a DKIM key signs, and its record was not seen on every name server"),
    (
        "dkim-revocation-unseen",
        "the record of a revoked DKIM key does not say so on every name server, as far as is known",
    ),
    ("dkim-not-in-force", "a host may still sign with a DKIM key whose turn is over"),
    ("dkim-unpublished", "a DKIM key is to sign, and its record was not seen on every name server"),
    ("dkim-due", "a DKIM key is due for its next step"),
    ("rollout-abandoned", "senders remember the MTA-STS policy of a domain that left the settings"),
    ("rollout-due", "a policy is due for a step that needs no report"),
    ("rollout-waits", "a policy may be tightened once reports say that nothing is lost by it"),
    ("rollout-unpublished", "the record of a policy was not seen on every name server, and its wait has not begun"),
    ("held", "a certificate that came back with a restore waits for confirmation"),
    ("user-without-certificate", "nobody can log in as this user"),
    ("user-domain-gone", "a user's domain is no longer in the settings"),
    ("alias-to-nobody", "an alias leads to an address of the site that is none"),
    ("trust-list-long", "more certificates are live than a server can name to its clients"),
    ("handout-waits", "what a user is to be given still lies here"),
    ("golden-differs", "golden/ is not what would be rendered now"),
    ("notice-due", "users are to be told by mail that a certificate ends"),
    ("admitted-until", "a certificate that was replaced is admitted for a while"),
    ("rollout-next", "a policy is to be tightened"),
    ("golden-absent", "nothing was blessed yet"),
    ("no-ledger", "what only the ledger knows is not known here"),
];

/// Something worth telling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// One of [`FINDINGS`].
    pub id: &'static str,
    /// How urgent it is.
    pub severity: Severity,
    /// Whether `tick` does something about it.
    pub due: bool,
    /// What it is about: an address, a host, a file.
    pub subject: String,
    /// When it happens or happened.
    pub moment: Option<OffsetDateTime>,
    /// What is so, to be read behind the subject: lower case, no full stop.
    pub text: String,
    /// The command that mends it.
    pub mend: Option<String>,
}

/// What ends some day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The site CA.
    SiteCa,
    /// The issuing CA for all clients.
    IssuingCa,
    /// A server certificate of the site CA.
    Server,
    /// A certificate that an ACME client keeps.
    Watched,
    /// A CRL.
    Crl,
    /// A user's certificate.
    Client,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 6] = [Self::SiteCa, Self::IssuingCa, Self::Server, Self::Watched, Self::Crl, Self::Client];

    /// Returns the word for it, as labels have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SiteCa => "site_ca",
            Self::IssuingCa => "issuing_ca",
            Self::Server => "server",
            Self::Watched => "acme",
            Self::Crl => "crl",
            Self::Client => "client",
        }
    }

    /// Returns what people call it.
    pub fn noun(self) -> &'static str {
        match self {
            Self::SiteCa => "site CA",
            Self::IssuingCa => "issuing CA",
            Self::Server => "server certificate",
            Self::Watched => "ACME certificate",
            Self::Crl => "CRL",
            Self::Client => "client certificate",
        }
    }
}

/// Something that is in use and ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// What it is.
    pub kind: Kind,
    /// Whose it is.
    pub subject: String,
    /// What tells it from every other, for good: a serial or a digest.
    pub id: String,
    /// Since when it is as it is.
    pub since: OffsetDateTime,
    /// When it ends.
    pub at: OffsetDateTime,
    /// What it is called in a sentence.
    pub what: String,
    /// The command that renews it.
    pub mend: Option<String>,
}

/// When an expiry is worth a warning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// So long before.
    pub warn: Duration,
    /// It is urgent so long before.
    pub critical: Duration,
}

impl Limits {
    /// Returns how urgent something is that ends then.
    pub fn grade(&self, at: OffsetDateTime, now: OffsetDateTime) -> Severity {
        match at - now {
            left if left <= self.critical => Severity::Critical,
            left if left <= self.warn => Severity::Warning,
            _ => Severity::Ok,
        }
    }
}

/// How `golden/` compares with what is rendered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Golden {
    /// There is none.
    Absent,
    /// It is something else.
    Differs,
    /// It is the same.
    Same,
    /// Nothing can be rendered to compare it with.
    Unknown,
}

/// What is known beside settings and inventory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Whether the inventory is the ledger's; `postseal.lock` knows less.
    pub has_ledger: bool,
    /// Whether `postseal.lock` says something else than the ledger.
    pub lock_is_stale: bool,
    /// Whether `out/` is something else than what would be rendered.
    pub out_is_stale: bool,
    /// Why nothing can be rendered.
    pub cannot_render: Option<String>,
    /// How `golden/` stands.
    pub golden: Golden,
    /// The client certificates of which the handout still lies here.
    pub handouts: BTreeSet<Serial>,
    /// Certificates that an ACME client keeps, as they were seen last: host, path, end.
    pub watched: Vec<(HostName, Utf8PathBuf, OffsetDateTime)>,
    /// How many users are to be told that a certificate ends.
    pub notices: usize,
    /// The issuing CAs that need a new CRL, by what their newest one says.
    pub crls_due: BTreeSet<Serial>,
}

/// How many there are of what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Accounts.
    pub users: usize,
    /// Client certificates of each status, in the order of [`CertificateStatus::ALL`].
    pub clients: [usize; 4],
    /// Twins on the trust list.
    pub twins: usize,
}

/// How a site stands at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// The moment.
    pub now: OffsetDateTime,
    /// What is worth telling, the most urgent first.
    pub findings: Vec<Finding>,
    /// What is in use and ends, by kind and subject.
    pub expiries: Vec<Expiry>,
    /// How many there are of what.
    pub counts: Counts,
    /// When an expiry is worth a warning.
    pub limits: Limits,
}

impl Survey {
    /// Returns how urgent the most urgent is; what is due is never fine.
    pub fn worst(&self) -> Severity {
        let worst = self.findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Ok);
        if self.is_anything_due() { worst.max(Severity::Warning) } else { worst }
    }

    /// Tells whether `tick` would do something.
    pub fn is_anything_due(&self) -> bool {
        self.findings.iter().any(|finding| finding.due)
    }

    /// Returns the first of a kind that ends.
    pub fn soonest(&self, kind: Kind) -> Option<&Expiry> {
        self.expiries.iter().filter(|expiry| expiry.kind == kind).min_by_key(|expiry| expiry.at)
    }
}

/// How long a handout may wait for its user.
pub const HANDOUT_LIMIT: Duration = Duration::days(14);

/// Tells whether less than a third of a server certificate's life is left, so that `tick` renews it.
pub fn server_is_due(certificate: &ServerCertificate, now: OffsetDateTime) -> bool {
    let life = begin(&certificate.chain).map_or(Duration::ZERO, |begin| certificate.not_after - begin);
    certificate.not_after - now < life / 3 || certificate.not_after <= now
}

/// Tells whether a client certificate has ended, though the ledger does not say so yet.
pub fn has_ended(certificate: &ClientCertificate, now: OffsetDateTime) -> bool {
    is_admissible(certificate.status) && certificate.ends_at() <= now
}

/// Tells whether an issuing CA has ended, though the ledger does not say so yet.
pub fn issuing_ca_has_ended(ca: &IssuingCa, now: OffsetDateTime) -> bool {
    is_admissible(ca.status) && end_of(ca) <= now
}

fn end_of(ca: &IssuingCa) -> OffsetDateTime {
    ca.successor.map_or(ca.not_after, |successor| successor.retires_at.min(ca.not_after))
}

fn is_admissible(status: CertificateStatus) -> bool {
    matches!(status, CertificateStatus::Live | CertificateStatus::Held)
}

fn begin(pem: &str) -> Option<OffsetDateTime> {
    Certificate::from_pem(pem).ok().map(|certificate| certificate.facts().not_before)
}

/// Looks at a site.
pub fn survey(site: &Site, inventory: &Inventory, facts: &Facts, limits: Limits, now: OffsetDateTime) -> Survey {
    let look = Look { site, inventory, facts, limits, now };
    let mut findings = look.expiring();
    findings.extend(look.crls());
    findings.extend(look.hosts());
    findings.extend(look.files());
    findings.extend(look.dkim());
    if facts.has_ledger {
        findings.extend(look.dkim_ways());
        findings.extend(look.rollouts());
        findings.extend(look.ends());
        findings.extend(look.replaced());
        findings.extend(look.held());
        findings.extend(look.users());
        findings.extend(look.aliases());
        findings.extend(look.handouts());
        findings.extend(look.length());
    }
    let rank = |finding: &Finding| FINDINGS.iter().position(|(id, _)| *id == finding.id);
    findings.sort_by_cached_key(|finding| {
        (std::cmp::Reverse(finding.severity), rank(finding), finding.moment, finding.subject.clone())
    });
    Survey { now, findings, expiries: look.expiries(), counts: counts(inventory), limits }
}

fn counts(inventory: &Inventory) -> Counts {
    let of = |status| inventory.client_certificates.iter().filter(|one| one.status == status).count();
    let own = inventory.client_certificates.iter().filter(|one| one.is_live() && one.issuer.is_none()).count();
    let shared = inventory.issuing_cas.iter().filter(|ca| ca.status == CertificateStatus::Live).count();
    Counts { users: inventory.users.len(), clients: CertificateStatus::ALL.map(of), twins: own + shared }
}

/// Says how far away a moment is, and which day it is.
pub fn when(at: OffsetDateTime, now: OffsetDateTime, (past, future): (&str, &str)) -> String {
    let day = at.date();
    if at <= now {
        return format!("{past} on {day}");
    }
    let left = at - now;
    let amount = |count: i64, noun| if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") };
    let left = match (left.whole_days(), left.whole_hours()) {
        (0, 0) => "less than an hour".to_owned(),
        (0, hours) => amount(hours, "hour"),
        (days, _) => amount(days, "day"),
    };
    format!("{future} in {left}, on {day}")
}

const ENDS: (&str, &str) = ("ended", "ends");

/// The mend of what `tick` does.
const TICK: &str = "postseal tick";

fn finding(id: &'static str, severity: Severity, subject: impl Into<String>, text: impl Into<String>) -> Finding {
    Finding { id, severity, due: false, subject: subject.into(), moment: None, text: text.into(), mend: None }
}

impl Finding {
    fn at(self, moment: OffsetDateTime) -> Self {
        Self { moment: Some(moment), ..self }
    }

    fn mend(self, command: impl Into<String>) -> Self {
        Self { mend: Some(command.into()), ..self }
    }

    fn due(self) -> Self {
        Self { due: true, ..self }
    }
}

struct Look<'a> {
    site: &'a Site,
    inventory: &'a Inventory,
    facts: &'a Facts,
    limits: Limits,
    now: OffsetDateTime,
}

impl Look<'_> {
    /// Lists what is in use and ends. A certificate that was replaced is not: nobody needs it any more.
    fn expiries(&self) -> Vec<Expiry> {
        let mut all = Vec::new();
        all.extend(self.site_ca());
        all.extend(self.inventory.issuing_cas.iter().filter_map(issuing_ca));
        all.extend(self.servers().map(server));
        all.extend(self.facts.watched.iter().map(|(host, path, at)| watched(host, path, *at)));
        all.extend(self.inventory.issuing_cas.iter().filter_map(crl));
        let current = self.inventory.client_certificates.iter().filter(|one| one.is_live() && one.is_current());
        all.extend(current.map(client));
        all
    }

    fn site_ca(&self) -> Option<Expiry> {
        let ca = self.inventory.site_ca.as_ref()?;
        Some(Expiry {
            kind: Kind::SiteCa,
            subject: self.site.ca.name.clone(),
            id: Digest::of(ca.certificate.as_bytes()).short(),
            since: begin(&ca.certificate).unwrap_or(ca.not_after),
            at: ca.not_after,
            what: "the site CA".to_owned(),
            mend: Some("postseal ca renew".to_owned()),
        })
    }

    /// The certificates of hosts that need one; of others nobody asks.
    fn servers(&self) -> impl Iterator<Item = &ServerCertificate> {
        let needed = |host: &HostName| {
            self.site.hosts.iter().any(|wanted| wanted.name == *host && wanted.needs_issued_certificate())
        };
        self.inventory.server_certificates.iter().filter(move |server| needed(&server.host))
    }

    fn expiring(&self) -> Vec<Finding> {
        let of = |expiry: Expiry| {
            let id = match expiry.kind {
                Kind::SiteCa => "site-ca-expires",
                Kind::IssuingCa => "issuing-ca-expires",
                Kind::Server => "server-certificate-expires",
                Kind::Watched => "watched-certificate-expires",
                Kind::Client => "client-certificate-expires",
                Kind::Crl => return None,
            };
            let third =
                |server: &ServerCertificate| server.host.as_str() == expiry.subject && server_is_due(server, self.now);
            let due = expiry.kind == Kind::Server && self.servers().any(third);
            let grade = self.limits.grade(expiry.at, self.now).max(if due { Severity::Warning } else { Severity::Ok });
            // That a user's certificate has ended is told by what is to be recorded.
            let told = expiry.kind == Kind::Client && expiry.at <= self.now;
            let text = format!("{} {}", expiry.what, when(expiry.at, self.now, ENDS));
            let found = Finding { due, mend: expiry.mend, ..finding(id, grade, expiry.subject, text).at(expiry.at) };
            (grade > Severity::Ok && !told).then_some(found)
        };
        self.expiries().into_iter().filter_map(of).collect()
    }

    fn crls(&self) -> Vec<Finding> {
        let of = |ca: &IssuingCa| {
            let subject = "CRL";
            let Some(crl) = &ca.crl else {
                let text = format!("there is none of the issuing CA {} yet", ca.serial);
                return Some(finding("crl-due", Severity::Warning, subject, text).due().mend(TICK));
            };
            let text = format!("number {} {}", crl.number, when(crl.next_update, self.now, ENDS));
            if crl.next_update <= self.now {
                let text = format!("{text}: servers that heed it refuse everybody");
                return Some(
                    finding("crl-ended", Severity::Critical, subject, text).at(crl.next_update).due().mend(TICK),
                );
            }
            let found = finding("crl-due", Severity::Warning, subject, text).at(crl.next_update).due().mend(TICK);
            let half = crl.this_update + (crl.next_update - crl.this_update) / 2;
            let due = self.facts.crls_due.contains(&ca.serial);
            let behind = "does not say what was revoked since";
            let found = if due && self.now < half {
                Finding { text: format!("number {} {behind}", crl.number), ..found }
            } else {
                found
            };
            (due || self.now >= half).then_some(found)
        };
        let live = self.inventory.issuing_cas.iter().filter(|ca| ca.status == CertificateStatus::Live);
        live.filter_map(of).collect()
    }

    fn hosts(&self) -> Vec<Finding> {
        let hosts = self.site.hosts.iter().filter(|host| host.needs_issued_certificate());
        let without = hosts.filter(|host| self.servers().all(|server| server.host != host.name));
        without
            .map(|host| {
                let text = "the host has no server certificate, so nothing can be rendered";
                let command = format!("postseal server issue {}", shell_word(host.name.as_str()));
                finding("host-without-certificate", Severity::Critical, host.name.as_str(), text).mend(command)
            })
            .collect()
    }

    fn files(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        let Facts { has_ledger, lock_is_stale, out_is_stale, cannot_render, golden, notices, .. } = self.facts;
        if let Some(problem) = cannot_render {
            found.push(finding("cannot-render", Severity::Critical, "out/", problem.as_str()).mend("postseal render"));
        }
        if *has_ledger && *lock_is_stale {
            let text = "says something else than the ledger";
            found.push(finding("lock-stale", Severity::Warning, "postseal.lock", text).due().mend(TICK));
        }
        if *has_ledger && *out_is_stale {
            let text = "is not what would be rendered now";
            found.push(finding("out-stale", Severity::Warning, "out/", text).due().mend(TICK));
        }
        match golden {
            Golden::Absent => {
                let text = "nothing was blessed yet, so `diff` has nothing to compare with";
                found.push(finding("golden-absent", Severity::Ok, "golden/", text).mend("postseal bless"));
            }
            Golden::Differs => {
                let text = "is not what would be rendered now";
                found.push(finding("golden-differs", Severity::Warning, "golden/", text).mend("postseal diff"));
            }
            Golden::Same | Golden::Unknown => {}
        }
        if *notices > 0 {
            let noun = if *notices == 1 { "1 user is".to_owned() } else { format!("{notices} users are") };
            let text = format!("{noun} to be told that a certificate ends");
            found.push(finding("notice-due", Severity::Ok, "mail", text).due().mend(TICK));
        }
        if !*has_ledger {
            let text = "users, client certificates, CRLs, aliases and handouts are known only where state/ is";
            found.push(finding("no-ledger", Severity::Ok, "state/", text));
        }
        found
    }

    fn dkim(&self) -> Vec<Finding> {
        let missing = plan::missing_keys(self.site, self.inventory).into_iter();
        missing
            .map(|(domain, algorithm)| {
                let text = format!("the domain has no {} key for DKIM yet", algorithm.as_str());
                finding("dkim-key-missing", Severity::Warning, domain.as_str(), text).mend("postseal render")
            })
            .collect()
    }

    /// Tells of the keys that are on their way, of a domain in one line each.
    fn dkim_ways(&self) -> Vec<Finding> {
        let mut domains: Vec<&DomainName> = self.inventory.dkim_keys.iter().map(|key| &key.domain).collect();
        domains.dedup();
        domains.into_iter().flat_map(|domain| self.dkim_way(domain)).collect()
    }

    fn dkim_way(&self, domain: &DomainName) -> Vec<Finding> {
        use DkimState::{Generated, Published, Retiring, Revoked};

        let keys = self.inventory.dkim_keys_of(domain);
        let mut found = Vec::new();
        let mut tell =
            |id, severity, is: &dyn Fn(&DkimKey) -> bool, text: &dyn Fn(&str) -> String, mend: Option<&str>| {
                let selectors: Vec<&str> = keys.iter().filter(|key| is(key)).map(|key| key.selector.as_str()).collect();
                if !selectors.is_empty() {
                    let found_one = finding(id, severity, domain.as_str(), text(&selectors.join(", ")));
                    found.push(match mend {
                        Some(mend) => found_one.mend(mend),
                        None => found_one.due().mend(TICK),
                    });
                }
            };
        let apply = Some("postseal apply");
        let publish = format!("postseal dns {domain}");
        let publish = Some(publish.as_str());
        tell(
            "dkim-revoked-in-use",
            Severity::Critical,
            &|key| key.state == Revoked && key.unused.is_none(),
            &|keys| format!("a host may still sign with {keys}, which is revoked"),
            apply,
        );
        tell(
            "dkim-unconfirmed",
            Severity::Warning,
            &DkimKey::is_unconfirmed,
            &|keys| format!("signs with {keys}, which every name server must know: not seen yet"),
            publish,
        );
        tell(
            "dkim-revocation-unseen",
            Severity::Warning,
            &|key| key.state == Revoked && key.seen.is_none(),
            &|keys| format!("the record of {keys} is to say on every name server that it is revoked"),
            publish,
        );
        tell(
            "dkim-not-in-force",
            Severity::Warning,
            &|key| key.state == Retiring && key.unused.is_none(),
            &|keys| format!("a host may still sign with {keys}, whose turn is over"),
            apply,
        );
        tell(
            "dkim-unpublished",
            Severity::Ok,
            &|key| matches!(key.state, Generated | Published) && key.seen.is_none(),
            &|keys| format!("{keys} waits for its record to be on every name server"),
            publish,
        );
        let is_due = |key: &DkimKey| self.dkim_is_due(key, keys);
        tell("dkim-due", Severity::Ok, &is_due, &|keys| format!("{keys} is due for the next step"), None);
        found
    }

    /// Tells whether a key is due for a step that waits for nothing more, or to be rotated.
    fn dkim_is_due(&self, key: &DkimKey, keys: &[DkimKey]) -> bool {
        let waits = |other: &DkimKey| other.state < DkimState::Active && !other.standby;
        let has_successor = || keys.iter().any(|other| other.algorithm == key.algorithm && waits(other));
        let is_old = |days: u16| rotation::rotation_due(key, Duration::days(days.into())) <= self.now;
        let to_rotate = key.state == DkimState::Active && self.site.dkim.rotate_every.is_some_and(is_old);
        let waited = key.seen.is_some() || key.state == DkimState::Retiring;
        (to_rotate && !has_successor()) || (waited && rotation::look_at(key).is_some_and(|at| at <= self.now))
    }

    /// Tells of the policies that are on their way, of a domain in one line for each thing that it waits for.
    fn rollouts(&self) -> Vec<Finding> {
        let hosts = rollout::hosts_of(self.site);
        let remembered = self.inventory.rollouts.iter().filter(|rollout| rollout.max_age.is_some());
        let abandoned = remembered.filter(|rollout| !self.site.has_domain(&rollout.domain)).map(|rollout| {
            let text = "left the settings, and senders remember its MTA-STS policy: put it back with mta_sts = \"off\"";
            let word = shell_word(rollout.domain.as_str());
            finding("rollout-abandoned", Severity::Warning, rollout.domain.as_str(), text)
                .mend(format!("postseal rollout list {word}"))
        });
        let under_way = self.site.domains.iter().flat_map(|domain| self.rollouts_of(domain, &hosts));
        abandoned.chain(under_way).collect()
    }

    fn rollouts_of(&self, domain: &Domain, hosts: &[HostName]) -> Vec<Finding> {
        let name = domain.name.as_str();
        let (mut due, mut waiting, mut unpublished, mut found) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for track in Track::ALL {
            let recorded = self.inventory.rollout(&domain.name, track);
            let way = Way::new(recorded, domain, track, hosts, self.now).filter(Way::is_under_way);
            match way.as_ref().map(Way::next) {
                Some(Next::Step { step, at, needs: None }) if at <= self.now => due.push(words::step(&step)),
                Some(Next::Step { step, at, .. }) if at <= self.now => waiting.push(words::step(&step)),
                Some(Next::Step { step, at, .. }) => {
                    let text = format!("{}, from {} on at the earliest", words::step(&step), at.date());
                    found.push(finding("rollout-next", Severity::Ok, name, text).at(at));
                }
                // Before the first run nothing of it is anybody's concern.
                Some(Next::Unpublished) => unpublished
                    .extend(recorded.map(|one| format!("{} {}", words::called(track), words::stage(one.stage)))),
                Some(Next::Reached) | None => {}
            }
        }
        if !due.is_empty() {
            found.push(finding("rollout-due", Severity::Ok, name, due.join(", ")).due().mend(TICK));
        }
        if !waiting.is_empty() {
            let text = format!("{}, once reports say that nothing is lost by it", waiting.join(", "));
            found
                .push(finding("rollout-waits", Severity::Ok, name, text).mend(format!("postseal rollout list {name}")));
        }
        if !unpublished.is_empty() {
            let text = format!("{} is to be on every name server: not seen yet", unpublished.join(", "));
            found.push(finding("rollout-unpublished", Severity::Ok, name, text).mend(format!("postseal dns {name}")));
        }
        found
    }

    fn ends(&self) -> Vec<Finding> {
        let record = |subject: String, what: String, at| {
            let text = format!("{what} {}, which is not recorded yet", when(at, self.now, ENDS));
            finding("end-not-recorded", Severity::Warning, subject, text).at(at).due().mend(TICK)
        };
        let clients = self.inventory.client_certificates.iter().filter(|one| has_ended(one, self.now));
        let clients = clients.map(|one| record(one.address.to_string(), called(one), one.ends_at()));
        let cas = self.inventory.issuing_cas.iter().filter(|ca| issuing_ca_has_ended(ca, self.now));
        let cas = cas.map(|ca| record(ca.serial.to_string(), "the issuing CA".to_owned(), end_of(ca)));
        clients.chain(cas).collect()
    }

    fn replaced(&self) -> Vec<Finding> {
        let tell = |subject: String, what: String, at: OffsetDateTime| {
            let text = format!("{what} was replaced, and is admitted until {}", at.date());
            finding("admitted-until", Severity::Ok, subject, text).at(at)
        };
        let clients = self.inventory.client_certificates.iter();
        let clients = clients.filter(|one| one.is_live() && one.successor.is_some() && one.ends_at() > self.now);
        let clients = clients.map(|one| tell(one.address.to_string(), called(one), one.ends_at()));
        let cas = self.inventory.issuing_cas.iter().filter(|ca| ca.status == CertificateStatus::Live);
        let cas = cas.filter(|ca| ca.successor.is_some() && end_of(ca) > self.now);
        let cas = cas.map(|ca| tell(ca.serial.to_string(), "the issuing CA".to_owned(), end_of(ca)));
        clients.chain(cas).collect()
    }

    fn held(&self) -> Vec<Finding> {
        let held = self.inventory.client_certificates.iter().filter(|one| one.status == CertificateStatus::Held);
        held.map(|one| {
            let text = format!("{} came back with a restore: it is not admitted until it is confirmed", called(one));
            let command = format!("postseal user confirm {}", shell_word(one.address.as_str()));
            finding("held", Severity::Warning, one.address.as_str(), text).mend(command)
        })
        .collect()
    }

    fn users(&self) -> Vec<Finding> {
        let clients = self.inventory.client_certificates.iter();
        let current = clients.filter(|one| one.is_current() && one.not_after > self.now);
        let current: HashSet<&MailAddress> = current.map(|one| &one.address).collect();
        let mut found = Vec::new();
        for user in &self.inventory.users {
            let (subject, word) = (user.address.as_str(), shell_word(user.address.as_str()));
            if !self.site.has_domain(&user.address.domain()) {
                let text = format!("the domain {} is no longer in the settings", user.address.domain());
                let command = format!("postseal user remove {word}");
                found.push(finding("user-domain-gone", Severity::Warning, subject, text).mend(command));
            } else if !current.contains(&user.address) {
                let text = "the user has no certificate that is admitted";
                let command = format!("postseal user add {word}");
                found.push(finding("user-without-certificate", Severity::Warning, subject, text).mend(command));
            }
        }
        found
    }

    fn aliases(&self) -> Vec<Finding> {
        let aliases: HashSet<&str> = self.site.aliases.iter().map(|alias| alias.address.as_str()).collect();
        let users: HashSet<&str> = self.inventory.users.iter().map(|user| user.address.as_str()).collect();
        let is_somebody = |target: &MailAddress| {
            let target = self.site.mailbox_of(target);
            // What follows a + is a tag.
            let local = target.local_part().split('+').next().unwrap_or_default();
            let plain = format!("{local}@{}", target.domain());
            [target.as_str(), plain.as_str()].iter().any(|name| aliases.contains(name) || users.contains(name))
        };
        let targets =
            self.site.aliases.iter().flat_map(|alias| alias.targets.iter().map(move |target| (alias, target)));
        let nobody = targets.filter(|(_, target)| self.site.has_domain(&target.domain()) && !is_somebody(target));
        nobody
            .map(|(alias, target)| {
                let text = format!("the alias leads to {target}, which is no user and no alias");
                let command = format!("postseal user add {}", shell_word(target.as_str()));
                finding("alias-to-nobody", Severity::Warning, alias.address.as_str(), text).mend(command)
            })
            .collect()
    }

    fn handouts(&self) -> Vec<Finding> {
        let issued = |one: &ClientCertificate| one.not_before + BACKDATED;
        let waiting = self.inventory.client_certificates.iter().filter(|one| {
            let is_here = one.is_current() && one.handed_over.is_none() && self.facts.handouts.contains(&one.serial);
            is_here && self.now - issued(one) > HANDOUT_LIMIT
        });
        waiting
            .map(|one| {
                let days = (self.now - issued(one)).whole_days();
                let text = format!("what they are to be given for `{}` lies here since {days} days", one.device);
                let command = format!("postseal user handout {} --done", shell_word(one.address.as_str()));
                finding("handout-waits", Severity::Warning, one.address.as_str(), text).at(issued(one)).mend(command)
            })
            .collect()
    }

    fn length(&self) -> Option<Finding> {
        let twins = counts(self.inventory).twins;
        let text = format!("holds {twins} certificates, and TLS can name {MAXIMUM_TWINS} issuers to a client");
        (twins > MAXIMUM_TWINS)
            .then(|| finding("trust-list-long", Severity::Warning, "trust list", text).mend("postseal user list"))
    }
}

fn server(server: &ServerCertificate) -> Expiry {
    Expiry {
        kind: Kind::Server,
        subject: server.host.to_string(),
        id: server.serial.to_string(),
        since: begin(&server.chain).unwrap_or(server.not_after),
        at: server.not_after,
        what: "the server certificate".to_owned(),
        mend: Some(format!("postseal server renew {}", shell_word(server.host.as_str()))),
    }
}

fn watched(host: &HostName, path: &Utf8Path, at: OffsetDateTime) -> Expiry {
    Expiry {
        kind: Kind::Watched,
        subject: host.to_string(),
        id: Digest::of(format!("{host} {path} {}", at.unix_timestamp()).as_bytes()).short(),
        since: at,
        at,
        what: format!("the certificate in {path}"),
        mend: None,
    }
}

fn crl(ca: &IssuingCa) -> Option<Expiry> {
    let crl = ca.crl.filter(|_| ca.status == CertificateStatus::Live)?;
    Some(Expiry {
        kind: Kind::Crl,
        subject: format!("CRL {}", crl.number),
        id: format!("{}-{}", ca.serial, crl.number),
        since: crl.this_update,
        at: crl.next_update,
        what: "the CRL".to_owned(),
        mend: Some(TICK.to_owned()),
    })
}

fn issuing_ca(ca: &IssuingCa) -> Option<Expiry> {
    let current = ca.status == CertificateStatus::Live && ca.successor.is_none();
    current.then(|| Expiry {
        kind: Kind::IssuingCa,
        subject: ca.serial.to_string(),
        id: ca.serial.to_string(),
        since: ca.not_after,
        at: ca.not_after,
        what: "the issuing CA for all clients".to_owned(),
        mend: Some("postseal ca renew --clients".to_owned()),
    })
}

fn client(one: &ClientCertificate) -> Expiry {
    let device = one.device.as_str();
    let device = if device == "default" { String::new() } else { format!(" --device {}", shell_word(device)) };
    Expiry {
        kind: Kind::Client,
        subject: one.address.to_string(),
        id: one.serial.to_string(),
        since: one.not_before,
        at: one.not_after,
        what: called(one),
        mend: Some(format!("postseal user renew {}{device}", shell_word(one.address.as_str()))),
    }
}

fn called(one: &ClientCertificate) -> String {
    format!("the certificate for `{}`", one.device)
}

#[cfg(test)]
mod tests;
