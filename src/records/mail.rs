//! Where a domain's mail goes, and who sends it.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::{Index, record};
use crate::dns::{Record, RecordData};
use crate::names::DomainName;
use crate::policy::rollout::InForce;
use crate::site::{Domain, Host, SpfPolicy, SpfTerm};

/// Returns the domain's MX records, the preferred hosts first; of a domain without mail the one that says so.
pub(super) fn receiving(domain: &Domain, policy: &InForce<'_>) -> Vec<Record> {
    if !domain.mail {
        return vec![null_mx(&domain.name, "The domain takes no mail: senders need not try.")];
    }
    let mut hosts = policy.mx.clone();
    hosts.sort_by_key(|host| host.mx_preference);
    let best = hosts.first().map_or(0, |host| host.mx_preference);
    let reason = |host: &Host| match host.mx_preference {
        preference if preference == best => "This host takes the domain's mail.",
        _ => "This host takes the domain's mail while those with a lower number do not answer.",
    };
    let mx = |host: &&Host| {
        let data = RecordData::Mx { preference: host.mx_preference, exchange: host.name.clone() };
        record(&domain.name, data, reason(host), "RFC 5321 §5.1")
    };
    hosts.iter().map(mx).collect()
}

fn null_mx(name: &DomainName, reason: &'static str) -> Record {
    record(name, RecordData::NullMx, reason, "RFC 7505 §3")
}

/// Receivers look up the addresses of so many MX hosts, and find the record broken if there are more (RFC 7208 §4.6.4).
const MX_LIMIT: usize = 10;

/// Returns the domain's SPF record.
pub(super) fn spf(index: &Index<'_>, domain: &Domain, policy: &InForce<'_>) -> Record {
    if !domain.mail {
        return spf_without_mail(index, &domain.name);
    }
    let (mut text, mut look_ups) = (String::from("v=spf1"), 0);
    let lists_mx = policy.mx.len() <= MX_LIMIT;
    if lists_mx && !policy.mx.is_empty() {
        text.push_str(" mx");
        look_ups += 1;
    }
    // Every host sends, also one that takes no mail yet or any more.
    let is_in_mx = |host: &Host| lists_mx && policy.mx.iter().any(|mx| mx.name == host.name);
    for host in index.site.hosts.iter().filter(|host| !is_in_mx(host)) {
        for address in &host.addresses {
            // Writing to a String cannot fail.
            let _ = write!(text, " {}:{address}", if address.is_ipv4() { "ip4" } else { "ip6" });
        }
        if host.addresses.is_empty() {
            let _ = write!(text, " a:{}", host.name);
            look_ups += 1;
        }
    }
    for term in &domain.spf_also {
        let _ = write!(text, " {term}");
        look_ups += usize::from(!matches!(term, SpfTerm::Ip(..)));
    }
    let is_plain = text == "v=spf1 mx";
    let (all, rest) = match policy.spf {
        SpfPolicy::Fail => (" -all", " and from nowhere else."),
        SpfPolicy::SoftFail => (" ~all", "; `~all` lets DMARC still see the signature of what others forward."),
    };
    text.push_str(all);
    if is_plain {
        let reason = format!("Mail comes from the MX hosts{rest}");
        return record(&domain.name, RecordData::Txt(text), reason, "RFC 7208 §5.1");
    }
    let includes = domain.spf_also.iter().any(|term| matches!(term, SpfTerm::Include(_)));
    let hidden = if includes { ", without those inside of what it includes" } else { "" };
    let reason = format!(
        "Mail comes from those that are listed{rest} It takes {look_ups} of the 10 look-ups that receivers make at \
         most{hidden}."
    );
    record(&domain.name, RecordData::Txt(text), reason, "RFC 7208 §4.6.4")
}

fn spf_without_mail(index: &Index<'_>, name: &DomainName) -> Record {
    // A name has one SPF record (RFC 7208 §3.2): a host that is named like the domain still sends bounces.
    if index.site.host(name.as_str()).is_some() {
        return record(
            name,
            host_alone(),
            "The domain sends no mail; only the host of this name does.",
            "RFC 7208 §2.3",
        );
    }
    let reason = "The domain sends no mail: what claims to come from it is forged.";
    record(name, nobody(), reason, "RFC 7208 §5.1")
}

fn nobody() -> RecordData {
    RecordData::Txt("v=spf1 -all".to_owned())
}

fn host_alone() -> RecordData {
    RecordData::Txt("v=spf1 a -all".to_owned())
}

/// Returns the addresses of a host and what its name may send, for the zone of the domain.
pub(super) fn host(host: &Host, domain: &DomainName) -> impl Iterator<Item = Record> {
    let addresses = host.addresses.iter().map(|address| {
        let data = match address {
            IpAddr::V4(address) => RecordData::A(*address),
            IpAddr::V6(address) => RecordData::Aaaa(*address),
        };
        record(&host.name, data, "Where the host is.", "RFC 5321 §5.1")
    });
    // A name has one SPF record (RFC 7208 §3.2): a host that is named like the domain has the domain's.
    let helo = (host.name.as_domain() != *domain).then(|| {
        let reason = "Bounces have no sender address: receivers look up the name in HELO instead.";
        record(&host.name, host_alone(), reason, "RFC 7208 §2.3")
    });
    addresses.chain(helo)
}

/// Returns what a name says that neither sends nor receives mail.
pub(super) fn silent(name: &DomainName) -> [Record; 2] {
    let reason = "This name sends no mail: what claims to come from it is forged.";
    let spf = record(name, nobody(), reason, "RFC 7208 §5.1");
    [null_mx(name, "This name takes no mail, though it has an address."), spf]
}
