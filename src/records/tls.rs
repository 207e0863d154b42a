//! How mail travels: reports of TLS, MTA-STS, keys of servers, and who may certify names.

use std::collections::{BTreeMap, BTreeSet};

use super::{Index, record};
use crate::dns::{Record, RecordData};
use crate::names::Digest;
use crate::pki::Certificate;
use crate::policy::mta_sts;
use crate::policy::rollout::InForce;
use crate::site::{CertificateSource, Domain, Host, Site, TlsReports};
use crate::stages::StsStage;

fn report_record(name: &str, to: &TlsReports, reason: impl Into<std::borrow::Cow<'static, str>>) -> Record {
    let uri = match to {
        TlsReports::Mail(address) => address.to_uri(),
        TlsReports::Https(uri) => uri.clone(),
    };
    let data = RecordData::Txt(format!("v=TLSRPTv1; rua={uri}"));
    record(&format!("_smtp._tls.{name}"), data, reason, "RFC 8460 §3")
}

/// Where reports about a domain go; nobody connects for one without mail.
fn reports_to(domain: &Domain) -> Option<&TlsReports> {
    domain.tls_reports.as_ref().filter(|_| domain.mail)
}

/// Returns the record that asks for reports about a domain.
pub(super) fn reports(domain: &Domain) -> Option<Record> {
    let reason = "Other servers report each day how TLS went when they sent mail to the domain.";
    reports_to(domain).map(|to| report_record(domain.name.as_str(), to, reason))
}

/// Returns of each host to which domain's address the reports about it go: to that of the domain whose zone has the name, else
/// to that of the first domain whose mail the host takes and that asks for reports.
pub(super) fn reporters<'a>(site: &'a Site, policies: &[InForce<'a>]) -> BTreeMap<&'a str, &'a Domain> {
    let mut reporters = BTreeMap::new();
    for (domain, policy) in site.domains.iter().zip(policies).filter(|(domain, _)| reports_to(domain).is_some()) {
        for host in &policy.mx {
            reporters.entry(host.name.as_str()).or_insert(domain);
        }
    }
    for (name, reporter) in &mut reporters {
        if let Some(own) = site.domain_around(name).filter(|own| reports_to(own).is_some()) {
            *reporter = own;
        }
    }
    reporters
}

/// Returns what says that the domain has an MTA-STS policy.
pub(super) fn mta_sts(domain: &Domain, policy: &InForce<'_>) -> Option<Record> {
    let file = mta_sts::policy(policy)?;
    let reason = match policy.mta_sts {
        StsStage::Off => return None,
        StsStage::Testing => {
            "Tells senders of a policy to try: they report what they would refuse, and deliver all the same."
        }
        StsStage::Enforce | StsStage::EnforceLong => {
            "Tells senders of a new policy: they deliver only to a host that it names and that proves its name."
        }
        StsStage::Withdrawn => "Tells senders that the policy is over, until none remembers the old one.",
    };
    let data = RecordData::Txt(format!("v=STSv1; id={};", mta_sts::id(&file)));
    Some(record(&format!("_mta-sts.{}", domain.name), data, reason, "RFC 8461 §3.1"))
}

/// Returns who may issue certificates for a domain.
pub(super) fn authorities(domain: &Domain) -> Vec<Record> {
    let caa = &domain.caa;
    let issuing = [
        ("issue", &caa.issue, "CAs", "RFC 8659 §4.2"),
        ("issuewild", &caa.issuewild, "wildcards", "RFC 8659 §4.3"),
        ("issuemail", &caa.issuemail, "mailboxes", "RFC 9495 §3"),
    ];
    let mut seen = BTreeSet::new();
    let mut records = Vec::new();
    for (tag, issuers, of, rfc) in issuing {
        for issuer in issuers.iter().filter(|issuer| seen.insert((tag, issuer.as_str()))) {
            let reason = match (issuer.as_str(), tag) {
                (";", "issue") => "No CA may issue certificates for names of the domain.".to_owned(),
                (";", _) => format!("No CA may issue certificates for {of} of the domain."),
                (_, "issue") => {
                    "This CA may issue certificates for names of the domain; a CA looks before it does.".to_owned()
                }
                _ => format!("This CA may issue certificates for {of} of the domain."),
            };
            records.push(record(&domain.name, RecordData::Caa { tag, value: issuer.to_string() }, reason, rfc));
        }
    }
    if let Some(uri) = &caa.iodef {
        let data = RecordData::Caa { tag: "iodef", value: uri.clone() };
        let reason = "A CA that refused a request for the domain may tell it here.";
        records.push(record(&domain.name, data, reason, "RFC 8659 §4.4"));
    }
    records
}

/// Returns what a host needs for TLS, in the zone of the domain.
pub(super) fn host(index: &Index<'_>, host: &Host, domain: &Domain) -> Vec<Record> {
    let reporter = index.tls_reports.get(host.name.as_str());
    // A host that is named like a domain has the domain's record.
    let reporter = reporter.filter(|_| host.name.as_domain() != domain.name || reports_to(domain).is_none());
    let report = reporter.and_then(|reporter| {
        let whose = &reporter.name;
        let reason = format!(
            "Servers that know the host by DANE report about it by its own name; it goes where those of {whose} go."
        );
        Some(report_record(host.name.as_str(), reports_to(reporter)?, reason))
    });
    let mut records: Vec<Record> = report.into_iter().collect();
    // Nobody trusts a key that an unsigned zone names (RFC 7672 §2.1).
    if domain.dnssec {
        let tlsa = |(key, reason): (Digest, &'static str)| {
            record(&format!("_25._tcp.{}", host.name), RecordData::Tlsa(key), reason, "RFC 7672 §3.1, RFC 7671 §8.1")
        };
        records.extend(keys(index, host).into_iter().map(tlsa));
    }
    records
}

/// Returns the keys that port 25 of a host shows or will show, each once.
fn keys(index: &Index<'_>, host: &Host) -> Vec<(Digest, &'static str)> {
    let mut keys: Vec<(Digest, &'static str)> = Vec::new();
    if host.mx_certificate == CertificateSource::Issued {
        let (certificates, waiting) = (&index.inventory.server_certificates, &index.inventory.next_keys);
        let live = certificates.binary_search_by(|one| one.host.cmp(&host.name)).ok();
        let live = live.and_then(|at| certificates.get(at));
        let reason = "The key of the newest certificate: servers that check DANE send mail to no other one.";
        let before = live.and_then(|one| one.former);
        let live = live.and_then(|one| Certificate::from_pem(&one.chain).ok());
        keys.extend(live.map(|live| (Digest::of(&live.facts().spki), reason)));
        let reason = "The key of the certificate before: a host shows it until the new one is installed there.";
        keys.extend(before.map(|former| (former, reason)));
        let next = waiting.binary_search_by(|one| one.host.cmp(&host.name)).ok().and_then(|at| waiting.get(at));
        let reason = "The key of the next certificate: everybody must know it before port 25 shows it.";
        keys.extend(next.map(|next| (next.spki, reason)));
    } else {
        let reason = "A key that port 25 shows or will show: servers that check DANE send mail to no other one.";
        keys.extend(host.mx_spki.iter().map(|key| (*key, reason)));
    }
    let mut seen = BTreeSet::new();
    keys.retain(|(key, _)| seen.insert(*key.octets()));
    keys
}
