//! The DNS records of a site, each with its reason.

use std::borrow::Cow;
use std::net::IpAddr;

use crate::dkim;
use crate::dns::{Record, RecordData, Zone};
use crate::inventory::{DkimState, Inventory};
use crate::names::{DomainName, HostName, MailAddress};
use crate::policy::rollout::{self, InForce};
use crate::site::{Domain, Host, Site, SpfPolicy};

/// How long others may keep a record: an hour, so that a mistake is mended within one.
const TTL: u32 = 3600;

/// Returns what each of the site's domains needs in DNS, sorted by domain; of a domain that left the settings, the keys that mail
/// on its way was signed with.
pub fn zones(site: &Site, inventory: &Inventory) -> Vec<Zone> {
    let mut zones: Vec<Zone> = site.domains.iter().map(|domain| zone(site, inventory, domain)).collect();
    let mut left: Vec<&DomainName> = inventory.dkim_keys.iter().map(|key| &key.domain).collect();
    left.dedup();
    zones.extend(left.into_iter().filter(|domain| !site.has_domain(domain)).map(|domain| Zone {
        domain: domain.clone(),
        records: dkim_keys(inventory, domain).collect(),
        unaddressed: Vec::new(),
    }));
    zones.sort_by(|one, other| one.domain.cmp(&other.domain));
    zones
}

fn zone(site: &Site, inventory: &Inventory, domain: &Domain) -> Zone {
    let policy = rollout::in_force(site, inventory, domain);
    let hosts = || site.hosts.iter().filter(|host| site.domain_of(&host.name).is_some_and(|d| d.name == domain.name));
    let mut records: Vec<Record> = policy.mx.iter().map(|host| mx(&domain.name, host)).collect();
    records.push(spf(domain, &policy));
    records.push(dmarc(domain, &policy));
    records.extend(dkim_keys(inventory, &domain.name));
    records.extend(report_permissions(site, &domain.name));
    records.extend(hosts().flat_map(addresses));
    // A name has one SPF record (RFC 7208 §3.2): a host that is named like the domain has the domain's.
    records.extend(hosts().filter(|host| host.name.as_domain() != domain.name).map(|host| helo(&host.name)));
    let unaddressed = hosts().filter(|host| host.addresses.is_empty()).map(|host| host.name.clone()).collect();
    Zone { domain: domain.name.clone(), records, unaddressed }
}

fn record(name: &impl ToString, data: RecordData, reason: impl Into<Cow<'static, str>>, rfc: &'static str) -> Record {
    Record { name: name.to_string(), ttl: TTL, data, reason: reason.into(), rfc }
}

fn mx(domain: &DomainName, host: &Host) -> Record {
    let data = RecordData::Mx { preference: host.mx_preference, exchange: host.name.clone() };
    record(domain, data, "This host takes the domain's mail.", "RFC 5321 §5.1")
}

fn spf(domain: &Domain, policy: &InForce) -> Record {
    let (text, reason) = match policy.spf {
        SpfPolicy::Fail => ("v=spf1 mx -all", "Mail comes from the MX hosts and from nowhere else."),
        SpfPolicy::SoftFail => (
            "v=spf1 mx ~all",
            "Mail comes from the MX hosts; `~all` lets DMARC still see the signature of what others forward.",
        ),
    };
    record(&domain.name, RecordData::Txt(text.to_owned()), reason, "RFC 7208 §5.1")
}

fn helo(host: &HostName) -> Record {
    let data = RecordData::Txt("v=spf1 a -all".to_owned());
    let reason = "Bounces have no sender address: receivers look up the name in HELO instead.";
    record(host, data, reason, "RFC 7208 §2.3")
}

fn dmarc(domain: &Domain, policy: &InForce) -> Record {
    let mut text = format!("v=DMARC1; p={}", policy.dmarc.as_str());
    if let Some(address) = &domain.dmarc.reports {
        text.push_str("; rua=");
        text.push_str(&mailto(address));
    }
    let reason = "What receivers should do with mail that only claims to come from the domain.";
    record(&format!("_dmarc.{}", domain.name), RecordData::Txt(text), reason, "RFC 9989 §4.7")
}

/// Writes an address as a URI: of a local part's characters, `/` and `=` do not stand for themselves (RFC 6068 §2).
fn mailto(address: &MailAddress) -> String {
    let local = address.local_part().replace('/', "%2F").replace('=', "%3D");
    format!("mailto:{local}@{}", address.domain())
}

fn dkim_keys(inventory: &Inventory, domain: &DomainName) -> impl Iterator<Item = Record> {
    inventory.dkim_keys_of(domain).iter().map(|key| {
        let data = RecordData::Txt(dkim::record_text(key));
        record(&dkim::record_name(&key.selector, &key.domain), data, dkim_reason(key.state), "RFC 6376 §3.6.1")
    })
}

/// Returns why there is a record of a key in that state.
pub fn dkim_reason(state: DkimState) -> &'static str {
    match state {
        DkimState::Generated | DkimState::Published => "This key will sign; receivers must know it before it does.",
        DkimState::Active => "Receivers verify the domain's signatures with this key.",
        DkimState::Retiring => "This key signs no more, but mail that it signed may still be on its way.",
        DkimState::Revoked | DkimState::Destroyed => "This key is revoked: what it signed is worth nothing.",
    }
}

/// Other domains of the site that send their DMARC reports into this one need this one's consent.
fn report_permissions(site: &Site, domain: &DomainName) -> impl Iterator<Item = Record> {
    let reporting = site.domains.iter().filter(move |other| {
        let target = other.dmarc.reports.as_ref().map(MailAddress::domain);
        target.as_ref() == Some(domain) && !other.name.is_within(domain) && !domain.is_within(&other.name)
    });
    reporting.map(move |other| {
        let data = RecordData::Txt("v=DMARC1".to_owned());
        let reason = "Lets another domain of the site have its DMARC reports sent here.";
        record(&format!("{}._report._dmarc.{domain}", other.name), data, reason, "RFC 9990 §4")
    })
}

fn addresses(host: &Host) -> impl Iterator<Item = Record> {
    host.addresses.iter().map(|address| {
        let data = match address {
            IpAddr::V4(address) => RecordData::A(*address),
            IpAddr::V6(address) => RecordData::Aaaa(*address),
        };
        record(&host.name, data, "Where the host is.", "RFC 5321 §5.1")
    })
}
