//! The DNS records of a site, each with its reason: `mail` says where mail goes and who sends it, `dmarc` what becomes of what
//! others send, `tls` how it travels, `services` what mail programs find.

mod dmarc;
mod mail;
mod services;
mod tls;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use crate::dkim;
use crate::dns::{Record, RecordData, Zone};
use crate::inventory::{DkimState, Inventory};
use crate::names::DomainName;
use crate::policy::rollout::{self, InForce};
use crate::site::{Domain, Host, Site};

/// How long others may keep a record: an hour, so that a mistake is mended within one.
const TTL: u32 = 3600;

/// Returns what each of the site's domains needs in DNS, sorted by domain; of a domain that left the settings, the keys that mail
/// on its way was signed with.
pub fn zones(site: &Site, inventory: &Inventory) -> Vec<Zone> {
    let index = Index::new(site, inventory);
    let mut zones: Vec<Zone> = site.domains.iter().zip(&index.policies).map(|both| zone(&index, both)).collect();
    let mut left: Vec<&DomainName> = inventory.dkim_keys.iter().map(|key| &key.domain).collect();
    left.dedup();
    zones.extend(
        left.into_iter().filter(|domain| !site.has_domain(domain)).map(|domain| left_behind(inventory, domain)),
    );
    zones.sort_by(|one, other| one.domain.cmp(&other.domain));
    zones
}

/// Returns what one domain needs in DNS, as [`zones`] does; nothing if it is none of the site's and has no keys either.
pub fn zone_of(site: &Site, inventory: &Inventory, name: &DomainName) -> Option<Zone> {
    let Some(domain) = site.domain(name) else {
        return Some(left_behind(inventory, name)).filter(|zone| !zone.records.is_empty());
    };
    let index = Index::new(site, inventory);
    index.policy(name).map(|policy| zone(&index, (domain, policy)))
}

/// Returns what remains of a domain that left the settings.
fn left_behind(inventory: &Inventory, domain: &DomainName) -> Zone {
    Zone { domain: domain.clone(), records: dkim_keys(inventory, domain).collect(), unaddressed: Vec::new() }
}

/// What belongs into which zone, found once: a zone looks at no other.
struct Index<'a> {
    site: &'a Site,
    inventory: &'a Inventory,
    /// What is in force for each of the site's domains, in their order.
    policies: Vec<InForce<'a>>,
    /// The hosts by the domain whose zone has their names.
    hosts: BTreeMap<&'a DomainName, Vec<&'a Host>>,
    /// The names that neither send nor receive mail, by the domain whose zone has them.
    silent: BTreeMap<&'a DomainName, BTreeSet<&'a DomainName>>,
    /// The names by which a zone agrees to reports about other organizations, by its domain.
    permissions: BTreeMap<&'a DomainName, BTreeSet<String>>,
    /// Whose reports of TLS those about a host are.
    tls_reports: BTreeMap<&'a str, &'a Domain>,
}

impl<'a> Index<'a> {
    fn new(site: &'a Site, inventory: &'a Inventory) -> Self {
        let policies: Vec<_> = site.domains.iter().map(|domain| rollout::in_force(site, inventory, domain)).collect();
        let mut hosts: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for host in &site.hosts {
            if let Some(domain) = site.domain_of(&host.name) {
                hosts.entry(&domain.name).or_default().push(host);
            }
        }
        let mut silent: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for name in site.domains.iter().flat_map(|domain| &domain.silent_names) {
            if let Some(domain) = site.domain_around(name.as_str()) {
                silent.entry(&domain.name).or_default().insert(name);
            }
        }
        let permissions = dmarc::permissions(site);
        let tls_reports = tls::reporters(site, &policies);
        Self { site, inventory, policies, hosts, silent, permissions, tls_reports }
    }

    fn hosts_of(&self, domain: &DomainName) -> impl Iterator<Item = &'a Host> {
        self.hosts.get(domain).into_iter().flatten().copied()
    }

    /// Returns what is in force for one of the site's domains.
    fn policy(&self, domain: &DomainName) -> Option<&InForce<'a>> {
        let at = self.site.domains.binary_search_by(|one| one.name.cmp(domain)).ok()?;
        self.policies.get(at)
    }

    /// Tells whether a name has records of its own, as a domain or a host, so that it can be no other name of a host.
    fn is_taken(&self, name: &str) -> bool {
        self.site.host(name).is_some() || self.site.domain_around(name).is_some_and(|one| one.name.as_str() == name)
    }
}

fn zone(index: &Index<'_>, (domain, policy): (&Domain, &InForce<'_>)) -> Zone {
    let name = &domain.name;
    let web_names = services::web_names(index, domain, policy);
    let mut records = mail::receiving(domain, policy);
    records.push(mail::spf(index, domain, policy));
    records.push(dmarc::dmarc(index, domain, policy));
    records.extend(dkim_keys(index.inventory, name));
    records.extend((!domain.mail).then(|| no_key(name)));
    records.extend(dmarc::consents(index, name));
    records.extend(tls::reports(domain));
    records.extend(tls::mta_sts(domain, policy));
    records.extend(services::bimi(index, domain, policy));
    records.extend(tls::authorities(domain));
    records.extend(services::offers(index, domain, policy));
    records.extend(web_names.iter().filter_map(|(purpose, name)| services::web_name(index, *purpose, name)));
    records.extend(index.hosts_of(name).flat_map(|host| mail::host(host, name)));
    records.extend(index.hosts_of(name).flat_map(|host| tls::host(index, host, domain)));
    let silent = index.silent.get(name).into_iter().flatten();
    let silent = silent.filter(|name| !index.is_taken(name.as_str()));
    let silent = silent.filter(|name| !web_names.iter().any(|(_, web)| web == name.as_str()));
    records.extend(silent.flat_map(|name| mail::silent(name)));
    let unaddressed = index.hosts_of(name).filter(|host| host.addresses.is_empty()).map(|host| host.name.clone());
    Zone { domain: name.clone(), records, unaddressed: unaddressed.collect() }
}

fn record(name: &impl ToString, data: RecordData, reason: impl Into<Cow<'static, str>>, rfc: &'static str) -> Record {
    Record { name: name.to_string(), ttl: TTL, data, reason: reason.into(), rfc }
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

fn no_key(domain: &DomainName) -> Record {
    let data = RecordData::Txt("v=DKIM1; p=".to_owned());
    let reason = "The domain signs no mail: whatever selector a signature names, its key is revoked.";
    record(&format!("*._domainkey.{domain}"), data, reason, "RFC 6376 §3.6.1")
}
