//! The rules between settings, and the step from a draft that obeys them to a site.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use super::file::{AliasDraft, DomainDraft, Draft, HostDraft, NotifyDraft};
use super::{
    Alias, Bimi, Ca, CertificateSource, Domain, MOST, Notify, Signing, Site, SpfTerm, StsStage, TlsReports, Web,
    WebServer,
};
use crate::diag::{Diagnostic, Place, Severity, did_you_mean};
use crate::inventory::DkimAlgorithm;
use crate::names::{DomainName, MailAddress, shown};

/// Returns the site, and what is wrong with it.
pub(super) fn check(mut draft: Draft) -> (Site, Vec<Diagnostic>) {
    if draft.dkim.signing == Signing::SelectorMap {
        let unsaid = draft.domains.iter_mut().filter(|domain| domain.dkim.is_none() && domain.domain.mail);
        unsaid.for_each(|domain| domain.domain.dkim = vec![DkimAlgorithm::Rsa]);
    }
    let names: BTreeSet<DomainName> = draft.domains.iter().map(|domain| domain.domain.name.clone()).collect();
    let mut findings = declared(&draft);
    findings.extend(doubled(&draft));
    findings.extend(draft.aliases.iter().filter_map(|alias| outside(alias, &names)).take(MOST));
    findings.extend(draft.aliases.iter().flat_map(selves).take(MOST));
    findings.extend(circles(&draft.aliases));
    let silent: BTreeSet<&DomainName> =
        draft.domains.iter().filter(|domain| !domain.domain.mail).map(|domain| &domain.domain.name).collect();
    findings.extend(draft.aliases.iter().filter_map(|alias| without_mail(alias, &silent)).take(MOST));
    findings.extend(draft.domains.iter().flat_map(|domain| lost_reports(domain, &silent)).take(MOST));
    findings.extend(draft.domains.iter().flat_map(|domain| long_reports(domain, &names)).take(MOST));
    findings.extend(draft.domains.iter().flat_map(|domain| foreign_reports(domain, &names)).take(MOST));
    findings.extend(draft.domains.iter().flat_map(|domain| silent_names(domain, &draft, &names)).take(MOST));
    findings.extend(draft.domains.iter().filter_map(many_lookups).take(MOST));
    findings.extend(draft.domains.iter().filter_map(|domain| unchecked_mx(domain, &draft)).take(MOST));
    findings.extend(draft.domains.iter().filter_map(|domain| unserved(domain, &draft)).take(MOST));
    findings.extend(draft.hosts.iter().filter_map(|host| unknown_key(host, &draft)).take(MOST));
    findings.extend(many_hosts(&draft));
    findings.extend(without_postmaster(&draft));
    findings.extend(two_keys_of_a_map(&draft).take(MOST));
    findings.extend(web_servers(&draft));
    (site(draft), findings)
}

fn declared(draft: &Draft) -> Vec<Diagnostic> {
    let mut findings = Vec::new();
    if draft.hosts.is_empty() {
        let help = "add a table [[host]] with name = \"mail.example.com\" and platform = \"debian\"";
        let finding = Diagnostic::error("no-host", "the site has no host", help);
        findings.push(finding.at(draft.start.clone(), "no [[host]] in this file"));
    }
    if draft.domains.is_empty() {
        let help = "add a table [[domain]] with name = \"example.com\", or a file domains/example.com.toml";
        let finding = Diagnostic::error("no-domain", "the site has no domain", help);
        findings.push(finding.at(draft.start.clone(), "no [[domain]] in this file"));
    }
    findings
}

/// A map of Rspamd's names one selector for a domain.
fn two_keys_of_a_map(draft: &Draft) -> impl Iterator<Item = Diagnostic> {
    let is_map = draft.dkim.signing == Signing::SelectorMap;
    let domains = draft.domains.iter().filter(move |_| is_map);
    domains.filter(|domain| domain.domain.dkim.contains(&DkimAlgorithm::Ed25519)).filter_map(|domain| {
        let message =
            format!("`{}` cannot sign with Ed25519 while dkim.signing is \"selector_map\"", domain.domain.name);
        let help = "take `ed25519` out; or write signing = \"domains\", which gives each message both signatures";
        let place = domain.dkim.clone()?;
        Some(Diagnostic::error("dkim-map-one-key", message, help).at(place, "a map has one selector for each domain"))
    })
}

/// DNS leads every name of the web server to one host, which has what is served.
fn web_servers(draft: &Draft) -> impl Iterator<Item = Diagnostic> {
    let with_web = || draft.hosts.iter().filter_map(|host| Some((host, host.host.web.as_ref()?)));
    let second = with_web().skip(1).take(MOST).map(|(host, _)| {
        let message = format!("`{}` has a web server too, and a site has one", host.host.name);
        let help = "take `web` out of all hosts but one";
        Diagnostic::error("two-web-hosts", message, help).at(host.name.clone(), "another host has one")
    });
    let missing = |(_, web): &(&HostDraft, &Web)| web.server == WebServer::Httpd;
    let not_there = with_web().filter(missing).filter(|(host, _)| host.host.platform.layout().web.httpd.is_none());
    let not_there = not_there.take(MOST).map(|(host, _)| {
        let message = format!("`{}` runs {}, which has no httpd", host.host.name, host.host.platform);
        let finding = Diagnostic::error("httpd-platform", message, "write web = \"nginx\" or web = \"caddy\"");
        finding.at(host.name.clone(), "httpd is OpenBSD's")
    });
    second.chain(not_there)
}

fn doubled(draft: &Draft) -> Vec<Diagnostic> {
    let hosts = draft.hosts.iter().map(|host| (&host.host.name, &host.name));
    let domains = draft.domains.iter().map(|domain| (&domain.domain.name, &domain.name));
    let addresses = draft.hosts.iter().flat_map(|host| host.host.addresses.iter().zip(&host.addresses));
    let aliases = draft.aliases.iter().map(|alias| (&alias.address, &alias.place));
    let mut findings = repeated("duplicate-host", "host", hosts, "remove one of the two [[host]] tables");
    findings.extend(repeated("duplicate-domain", "domain", domains, "keep it in one place only"));
    let help = "give the address to the host that has it";
    findings.extend(repeated("duplicate-address", "address", addresses, help));
    let help = "write it once, with all its targets: [\"alice@example.com\", \"bob@example.com\"]";
    findings.extend(repeated("duplicate-alias", "alias", aliases, help));
    findings
}

fn repeated<'d, T: Display + Ord + 'd>(
    code: &'static str,
    noun: &str,
    items: impl Iterator<Item = (&'d T, &'d Place)>,
    help: &str,
) -> Vec<Diagnostic> {
    let mut first: BTreeMap<&T, &Place> = BTreeMap::new();
    let mut findings = Vec::new();
    for (item, place) in items {
        if findings.len() == MOST {
            break;
        }
        if let Some(earlier) = first.get(item) {
            let (line, column) = earlier.line_column();
            let note = format!("the first one is at {}:{line}:{column}", shown(earlier.source.path.as_str()));
            let finding = Diagnostic::error(code, format!("the {noun} `{item}` is declared twice"), help);
            findings.push(finding.at(place.clone(), "the second one").note(note));
        } else {
            first.insert(item, place);
        }
    }
    findings
}

fn outside(alias: &AliasDraft, names: &BTreeSet<DomainName>) -> Option<Diagnostic> {
    let domain = alias.address.domain();
    if names.contains(&domain) {
        return None;
    }
    let guess = did_you_mean(domain.as_str(), names.iter().map(DomainName::as_str));
    let mend = format!("add a [[domain]] with name = \"{domain}\"");
    let help = match guess {
        Some(guess) => format!("did you mean `{}@{guess}`? Or {mend}", alias.address.local_part()),
        None => mend,
    };
    let message = format!("the alias `{}` belongs to no domain of the site", alias.address);
    let label = format!("no [[domain]] has the name `{domain}`");
    Some(Diagnostic::error("alias-domain-unknown", message, help).at(alias.place.clone(), label))
}

fn selves(alias: &AliasDraft) -> impl Iterator<Item = Diagnostic> {
    alias.targets.iter().filter(|(target, _)| *target == alias.address).map(|(target, place)| {
        let help = "remove this target: an address with an alias has no mailbox of its own";
        let message = format!("the alias `{target}` leads to itself");
        Diagnostic::error("alias-self", message, help).at(place.clone(), "the alias itself")
    })
}

/// Reports each target that closes a circle of aliases. The walk keeps its own stack: a chain may be long.
fn circles(aliases: &[AliasDraft]) -> Vec<Diagnostic> {
    let by_address: BTreeMap<&MailAddress, &AliasDraft> =
        aliases.iter().rev().map(|alias| (&alias.address, alias)).collect();
    let mut done: BTreeSet<&MailAddress> = BTreeSet::new();
    let mut findings = Vec::new();
    for start in aliases {
        let mut open: BTreeSet<&MailAddress> = BTreeSet::new();
        let mut path = Vec::new();
        if !done.contains(&start.address) {
            open.insert(&start.address);
            path.push((start, start.targets.iter()));
        }
        while let Some((alias, targets)) = path.last_mut() {
            if findings.len() == MOST {
                return findings;
            }
            let alias = *alias;
            let Some((target, place)) = targets.next() else {
                path.pop();
                open.remove(&alias.address);
                done.insert(&alias.address);
                continue;
            };
            if open.contains(target) && *target != alias.address {
                let addresses = path.iter().map(|(alias, _)| &alias.address).skip_while(|address| *address != target);
                findings.push(circle(&addresses.collect::<Vec<_>>(), target, place));
            } else if let Some(next) =
                by_address.get(target).filter(|_| !done.contains(target) && !open.contains(target))
            {
                open.insert(target);
                path.push((next, next.targets.iter()));
            }
        }
    }
    findings
}

fn circle(addresses: &[&MailAddress], target: &MailAddress, place: &Place) -> Diagnostic {
    let shown: Vec<String> = addresses.iter().take(8).map(|address| format!("`{address}`")).collect();
    let dots = if addresses.len() > 8 { " -> ..." } else { "" };
    let note = format!("the circle is {}{dots} -> `{target}`", shown.join(" -> "));
    let help = "let one of them lead to a mailbox instead";
    let message = format!("the alias `{target}` leads back to itself");
    Diagnostic::error("alias-loop", message, help).at(place.clone(), "closes the circle").note(note)
}

/// Returns the domain and those above it.
fn around(domain: &DomainName) -> impl Iterator<Item = DomainName> {
    let name = domain.as_str();
    let starts = std::iter::once(0).chain(name.match_indices('.').map(|(dot, _)| dot + 1));
    starts.filter_map(|start| name.get(start..)?.parse().ok())
}

/// Returns the addresses that reports of DMARC go to, each with where it stands.
fn report_addresses(draft: &DomainDraft) -> impl Iterator<Item = (&MailAddress, &Place)> {
    let dmarc = &draft.domain.dmarc;
    let both = [(&dmarc.reports, &draft.reports), (&dmarc.failure_reports, &draft.failure_reports)];
    both.into_iter().filter_map(|(address, place)| Some((address.as_ref()?, place.as_ref()?)))
}

/// RFC 9990 §4: that the reports are wanted is published under a name of both domains' names, which DNS must be able to hold.
fn long_reports(draft: &DomainDraft, names: &BTreeSet<DomainName>) -> impl Iterator<Item = Diagnostic> {
    report_addresses(draft).filter_map(|(address, place)| {
        let (ours, theirs) = (&draft.domain.name, address.domain());
        let needs_consent = names.contains(&theirs) && !ours.is_within(&theirs) && !theirs.is_within(ours);
        if !needs_consent || format!("{ours}._report._dmarc.{theirs}").len() <= 253 {
            return None;
        }
        let message = format!("DNS has no room for the consent of `{theirs}` to reports about `{ours}`");
        let help = format!("name an address in `{ours}` itself");
        let finding = Diagnostic::error("dmarc-reports-long", message, help).at(place.clone(), "too long together");
        Some(finding.note("a name in DNS has 253 characters at most, and this one joins both (RFC 9990 section 4)"))
    })
}

/// RFC 9990 §4: a receiver reports to a foreign domain only if that domain says that it wants the reports.
fn foreign_reports(draft: &DomainDraft, names: &BTreeSet<DomainName>) -> impl Iterator<Item = Diagnostic> {
    report_addresses(draft).filter_map(|(address, place)| {
        let (ours, theirs) = (&draft.domain.name, address.domain());
        if around(&theirs).any(|name| names.contains(&name)) {
            return None;
        }
        let message = format!("DMARC reports about `{ours}` go to `{theirs}`, which is no domain of the site");
        let help = format!(
            "ask those who keep `{theirs}` to publish: {ours}._report._dmarc.{theirs}. TXT \"v=DMARC1\"; or name an address of yours"
        );
        let finding =
            Diagnostic::error("dmarc-reports-foreign", message, help).at(place.clone(), "outside of the site");
        let note = "receivers send reports there only if that domain agrees in DNS (RFC 9990 section 4)";
        Some(Diagnostic { severity: Severity::Warning, ..finding.note(note) })
    })
}

/// What goes to a domain without mail bounces.
fn lost_reports(draft: &DomainDraft, silent: &BTreeSet<&DomainName>) -> impl Iterator<Item = Diagnostic> {
    let of_tls = match &draft.domain.tls_reports {
        Some(TlsReports::Mail(address)) => draft.tls_reports.as_ref().map(|place| (address, place)),
        _ => None,
    };
    let lost = report_addresses(draft).chain(of_tls).filter(|(address, _)| silent.contains(&address.domain()));
    lost.map(|(address, place)| {
        let message = format!("reports go to `{address}`, whose domain takes no mail");
        let help = "name an address in a domain that takes mail";
        Diagnostic::error("reports-lost", message, help).at(place.clone(), "nobody gets it")
    })
}

fn without_mail(alias: &AliasDraft, silent: &BTreeSet<&DomainName>) -> Option<Diagnostic> {
    let domain = alias.address.domain();
    silent.contains(&domain).then(|| {
        let message = format!("the alias `{}` is in a domain without mail", alias.address);
        let help = format!("remove the alias, or `mail = false` of `{domain}`");
        Diagnostic::error("alias-without-mail", message, help).at(alias.place.clone(), "takes no mail")
    })
}

/// A name that sends and takes no mail lies below its domain, and is none that does.
fn silent_names(draft: &DomainDraft, all: &Draft, names: &BTreeSet<DomainName>) -> impl Iterator<Item = Diagnostic> {
    let ours = &draft.domain.name;
    draft.silent_names.iter().filter_map(move |(name, place)| {
        let is_host = all.hosts.iter().any(|host| host.host.name.as_domain() == *name);
        let (label, help) = match () {
            () if is_host => ("a host of the site", "take it out: the hosts send and take mail"),
            () if names.contains(name) => ("a domain of the site", "write `mail = false` for the domain instead"),
            () if !name.is_within(ours) => ("not below the domain", "name it in the domain that it lies below"),
            () => return None,
        };
        let message = format!("`{name}` cannot be a silent name of `{ours}`");
        Some(Diagnostic::error("silent-name", message, help).at(place.clone(), label))
    })
}

/// RFC 7208 §4.6.4: whoever needs more than ten queries gets no answer at all.
fn many_lookups(draft: &DomainDraft) -> Option<Diagnostic> {
    let queries = |term: &&SpfTerm| !matches!(term, SpfTerm::Ip(..));
    let count = 1 + draft.domain.spf_also.iter().filter(queries).count();
    if count <= MOST_LOOKUPS {
        return None;
    }
    let message = format!("the SPF record of `{}` asks for {count} look-ups", draft.domain.name);
    let help = "name networks (ip4:, ip6:) in place of names, or give a sender a sub-domain of its own";
    let place = draft.spf_also.clone().unwrap_or_else(|| draft.name.clone());
    let finding = Diagnostic::error("spf-lookups", message, help).at(place, "too many names");
    Some(finding.note("receivers stop at ten, those of included records included (RFC 7208 section 4.6.4)"))
}

const MOST_LOOKUPS: usize = 10;

/// RFC 8461 §4.1: senders check the certificate of each MX host by the CAs that everybody knows.
fn unchecked_mx(draft: &DomainDraft, all: &Draft) -> Option<Diagnostic> {
    let place = draft.mta_sts.as_ref().filter(|_| draft.domain.rollout.mta_sts != StsStage::Off)?;
    let host = all.hosts.iter().find(|host| host.host.mx_certificate == CertificateSource::Issued)?;
    let name = &host.host.name;
    let message = format!("MTA-STS would lose mail: the certificate of `{name}` is the site CA's own");
    let help = "name the files of a public certificate as mx_certificate of every host, or leave mta_sts off";
    let finding = Diagnostic::error("mta-sts-private", message, help).at(place.clone(), "senders will not trust it");
    Some(
        finding.note(
            "senders that heed the policy deliver only where they can check the certificate (RFC 8461 section 4)",
        ),
    )
}

/// What others fetch needs somebody who serves it.
fn unserved(draft: &DomainDraft, all: &Draft) -> Option<Diagnostic> {
    if all.hosts.iter().any(|host| host.host.web.is_some()) {
        return None;
    }
    let (what, place) = match &draft.domain.bimi {
        Bimi::Logo { base: None, .. } => ("the logo", draft.bimi.as_ref()),
        _ if draft.domain.rollout.mta_sts != StsStage::Off => ("the MTA-STS policy", draft.mta_sts.as_ref()),
        _ => return None,
    };
    let message = format!("no host of the site serves {what} of `{}`", draft.domain.name);
    let help = "write web = \"nginx\", \"caddy\" or \"httpd\" in the [[host]] that has the web server";
    Some(Diagnostic::error("nothing-serves", message, help).at(place?.clone(), "fetched by HTTPS"))
}

/// A TLSA record names a key (RFC 7672 §3.1), and of one that an ACME client keeps nothing is known here.
fn unknown_key(draft: &HostDraft, all: &Draft) -> Option<Diagnostic> {
    let host = &draft.host;
    let is_signed = |name: &DomainName| all.domains.iter().any(|one| one.domain.dnssec && one.domain.name == *name);
    let needs_key = host.mx_certificate != CertificateSource::Issued && host.mx_spki.is_empty();
    if !needs_key || !around(&host.name.as_domain()).any(|name| is_signed(&name)) {
        return None;
    }
    let message = format!("`{}` gets no TLSA record: its key is not known", host.name);
    let help =
        "write the line mx_spki = [...] that `postseal tlsa CERTIFICATE` prints, or take `dnssec` out of the domain";
    let finding = Diagnostic::error("tlsa-missing", message, help).at(draft.name.clone(), "no mx_spki");
    Some(Diagnostic { severity: Severity::Warning, ..finding })
}

/// RFC 7208 §4.6.4: `mx` looks at ten hosts.
fn many_hosts(draft: &Draft) -> Option<Diagnostic> {
    let eleventh = draft.hosts.get(MOST_LOOKUPS)?;
    let message = format!("the site has {} hosts, and SPF looks at ten MX hosts", draft.hosts.len());
    let help = "have fewer hosts in one site";
    let finding = Diagnostic::error("too-many-hosts", message, help).at(eleventh.name.clone(), "the eleventh");
    Some(finding.note("a record whose `mx` leads to more is an error for receivers (RFC 7208 section 4.6.4)"))
}

/// RFC 5321 §4.5.1: each domain that takes mail has a postmaster.
fn without_postmaster(draft: &Draft) -> Vec<Diagnostic> {
    let aliases: BTreeSet<&str> = draft.aliases.iter().map(|alias| alias.address.as_str()).collect();
    // The further names of a domain have its mailboxes.
    let has_own = |domain: &&DomainDraft| domain.domain.mail && domain.domain.alias_of.is_none();
    let missing = |domain: &&DomainDraft| {
        has_own(domain) && !aliases.contains(format!("postmaster@{}", domain.domain.name).as_str())
    };
    let domains = draft.domains.iter().filter(missing).take(MOST);
    domains
        .map(|domain| {
            let name = &domain.domain.name;
            let help = format!(
                "add to [aliases]: \"postmaster@{name}\" = \"alice@{name}\"; if `postmaster` is a user, all is well"
            );
            let message = format!("the domain `{name}` has no alias for its postmaster");
            let finding = Diagnostic::error("postmaster-missing", message, help);
            let finding = finding.at(domain.name.clone(), "mail to its postmaster may bounce");
            let note = "every domain that takes mail has a postmaster (RFC 5321 section 4.5.1)";
            Diagnostic { severity: Severity::Warning, ..finding.note(note) }
        })
        .collect()
}

fn site(draft: Draft) -> Site {
    let first = draft.domains.first().map(|domain| format!("{} mail CA", domain.domain.name)).unwrap_or_default();
    // X.509 bounds a common name at 64 characters (RFC 5280, ub-common-name).
    let default_name = if first.len() <= 64 { first } else { "mail CA".to_owned() };
    let notify = notify(draft.notify, draft.domains.first());
    let mut hosts: Vec<_> = draft.hosts.into_iter().map(|host| host.host).collect();
    hosts.sort_by(|one, other| one.name.cmp(&other.name));
    let mut domains: Vec<_> = draft.domains.into_iter().map(domain).collect();
    domains.sort_by(|one, other| one.name.cmp(&other.name));
    let mut aliases: Vec<_> = draft.aliases.into_iter().map(alias).collect();
    aliases.sort();
    Site {
        hosts,
        domains,
        accounts: draft.accounts,
        aliases,
        delivery: draft.delivery,
        dkim: draft.dkim,
        trust: draft.trust,
        ca: Ca { name: draft.ca_name.unwrap_or(default_name), key: draft.ca_key },
        notify,
        services: draft.services,
        files: BTreeMap::new(),
    }
}

fn domain(draft: DomainDraft) -> Domain {
    let mut silent_names: Vec<DomainName> = draft.silent_names.into_iter().map(|(name, _)| name).collect();
    silent_names.sort();
    Domain { silent_names, ..draft.domain }
}

/// The mail is off unless it is said how many days before it goes out.
fn notify(draft: NotifyDraft, first: Option<&DomainDraft>) -> Option<Notify> {
    let postmaster = || format!("postmaster@{}", first?.domain.name).parse().ok();
    let from = draft.from.or_else(postmaster)?;
    let sendmail = draft.sendmail.or_else(|| "/usr/sbin/sendmail".parse().ok())?;
    (!draft.before.is_empty()).then_some(Notify { before: draft.before, from, sendmail })
}

fn alias(draft: AliasDraft) -> Alias {
    let mut targets: Vec<MailAddress> = draft.targets.into_iter().map(|(target, _)| target).collect();
    targets.sort();
    Alias { address: draft.address, targets }
}
