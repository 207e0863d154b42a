//! What mail programs find: servers, settings, the logo.

use super::{Index, dmarc, record};
use crate::dns::{Record, RecordData};
use crate::names::HostName;
use crate::policy::rollout::InForce;
use crate::policy::web::{self, Purpose};
use crate::site::{Bimi, DmarcPolicy, Domain};

/// Where services are that the hosts offer, and that those which they do not offer are nowhere.
pub(super) fn offers(index: &Index<'_>, domain: &Domain, policy: &InForce<'_>) -> Vec<Record> {
    if !domain.mail {
        return Vec::new();
    }
    let services = index.site.services;
    let offers = [
        ("_submissions", Some(465), "RFC 8314 §5.1"),
        ("_submission", Some(587), "RFC 6186 §3.1"),
        ("_imaps", services.imaps.then_some(993), "RFC 6186 §3.2"),
        ("_imap", None, "RFC 6186 §3.2"),
        ("_pop3s", services.pop3s.then_some(995), "RFC 6186 §3.3"),
        ("_pop3", None, "RFC 6186 §3.3"),
        ("_sieve", services.managesieve.then_some(4190), "RFC 5804 §1.8"),
    ];
    let targets = targets(policy);
    let mut records = Vec::new();
    for (service, port, rfc) in offers {
        let name = format!("{service}._tcp.{}", domain.name);
        let Some(port) = port.filter(|_| !targets.is_empty()) else {
            let data = RecordData::Srv { priority: 0, weight: 0, port: 0, target: None };
            records.push(record(&name, data, not_offered(service), "RFC 2782, RFC 6186 §3.4"));
            continue;
        };
        let found = targets.iter().map(|(priority, host)| {
            let data = RecordData::Srv { priority: *priority, weight: 1, port, target: Some((*host).clone()) };
            record(&name, data, offered(service), rfc)
        });
        records.extend(found);
    }
    records
}

/// Returns the hosts in the order in which mail goes to them, each with a priority that counts from 0.
fn targets<'a>(policy: &InForce<'a>) -> Vec<(u16, &'a HostName)> {
    let mut hosts = policy.mx.clone();
    hosts.sort_by_key(|host| host.mx_preference);
    let (mut priority, mut preference) = (0, hosts.first().map(|host| host.mx_preference));
    let mut targets = Vec::new();
    for host in hosts {
        if preference != Some(host.mx_preference) {
            (priority, preference) = (priority + 1, Some(host.mx_preference));
        }
        targets.push((priority, &host.name));
    }
    targets
}

fn offered(service: &str) -> &'static str {
    match service {
        "_submissions" => "Mail programs send here, over TLS from the first octet.",
        "_submission" => "Mail programs that know no port 465 send here, and begin TLS with STARTTLS.",
        "_imaps" => "Mail programs read mail here, over TLS from the first octet.",
        "_pop3s" => "Mail programs fetch mail here, over TLS from the first octet.",
        _ => "Mail programs keep filters of incoming mail here.",
    }
}

fn not_offered(service: &str) -> &'static str {
    match service {
        "_imap" | "_pop3" => "Nothing is read without TLS: mail programs need not try.",
        _ => "This service is not offered: mail programs need not try.",
    }
}

/// Returns the names of the web server in the domain's zone that are free to be other names of it.
pub(super) fn web_names(index: &Index<'_>, domain: &Domain, policy: &InForce<'_>) -> Vec<(Purpose, String)> {
    let purposes = web::purposes(index.site, domain, policy).into_iter();
    let names = purposes.map(|purpose| (purpose, format!("{}.{}", purpose.label(), domain.name)));
    names.filter(|(_, name)| !index.is_taken(name)).collect()
}

/// Returns the record of one of them.
pub(super) fn web_name(index: &Index<'_>, purpose: Purpose, name: &String) -> Option<Record> {
    let (reason, rfc) = match purpose {
        Purpose::Autoconfig => {
            ("Mail programs fetch their settings from this name.", "draft-ietf-mailmaint-autoconfig")
        }
        Purpose::Bimi => ("Receivers fetch the domain's logo from this name.", BIMI),
        Purpose::MtaSts => ("Senders fetch the domain's MTA-STS policy from this name.", "RFC 8461 §3.3"),
    };
    let host = index.site.web_host()?;
    Some(record(name, RecordData::Cname(host.name.clone()), reason, rfc))
}

/// BIMI is no RFC.
const BIMI: &str = "draft-brand-indicators-for-message-identification";

/// Returns the record of a domain's logo, or of its wish to have none.
pub(super) fn bimi(index: &Index<'_>, domain: &Domain, policy: &InForce<'_>) -> Option<Record> {
    let name = format!("default._bimi.{}", domain.name);
    let (file, certificate) = match &domain.bimi {
        Bimi::Unset => return None,
        Bimi::Declined => {
            let data = RecordData::Txt("v=BIMI1; l=; a=;".to_owned());
            return Some(record(&name, data, "The domain wants no logo shown beside its mail.", BIMI));
        }
        Bimi::Logo { file, certificate, .. } => (file, certificate),
    };
    let uri = |file| web::bimi_uri(index.site, domain, file);
    let mut text = format!("v=BIMI1; l={};", uri(file)?);
    if let Some(certificate) = certificate.as_ref().and_then(|file| uri(file)) {
        text.push_str(" a=");
        text.push_str(&certificate);
        text.push(';');
    }
    let reason = match why_not_shown(index, domain, policy) {
        Some(why) => format!("The domain's logo; no receiver shows it yet, for {why}."),
        None if certificate.is_some() => "The domain's logo, and the certificate that it is theirs.".to_owned(),
        None => "The domain's logo; Gmail and Apple show it only with a certificate, others without.".to_owned(),
    };
    Some(record(&name, RecordData::Txt(text), reason, BIMI))
}

/// Tells why no receiver shows a logo: the policy of the domain or of its organization is too mild.
fn why_not_shown(index: &Index<'_>, domain: &Domain, policy: &InForce<'_>) -> Option<String> {
    let of = |domain: &Domain, policy: &InForce<'_>| {
        let name = &domain.name;
        match (policy.dmarc, domain.dmarc.sp) {
            _ if domain.dmarc.testing => Some(format!("DMARC of {name} is a test (t=y)")),
            (DmarcPolicy::None, _) => Some(format!("DMARC of {name} has p=none")),
            (_, Some(DmarcPolicy::None)) => Some(format!("DMARC of {name} has sp=none")),
            _ => None,
        }
    };
    let above = || {
        let top = dmarc::organization(index.site, domain.name.as_str())?;
        of(top, index.policy(&top.name)?)
    };
    of(domain, policy).or_else(above)
}
