//! What receivers are asked to do with mail that only claims to come from a domain, and where they report.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::{Index, record};
use crate::dns::{Record, RecordData};
use crate::names::{DomainName, MailAddress};
use crate::policy::rollout::InForce;
use crate::site::{Alignment, DmarcPolicy, Domain, Site};

/// Returns the domain's DMARC record. `p` comes second, for readers of RFC 7489; `pct`, `rf` and `ri` are historic.
pub(super) fn dmarc(index: &Index<'_>, domain: &Domain, policy: &InForce<'_>) -> Record {
    let wanted = &domain.dmarc;
    let mut text = format!("v=DMARC1; p={}", policy.dmarc.as_str());
    let mut tag = |name: &str, value: &str| {
        // Writing to a String cannot fail.
        let _ = write!(text, "; {name}={value}");
    };
    if let Some(sp) = wanted.sp {
        tag("sp", sp.as_str());
    }
    // What does not exist sends nothing. Of a record below the organization's own nobody reads it (RFC 9989 §4.10.1).
    let is_top = organization(index.site, domain.name.as_str()).is_none_or(|top| top.name == domain.name);
    let default = (is_top && policy.dmarc != DmarcPolicy::None).then_some(DmarcPolicy::Reject);
    if let Some(np) = wanted.np.or(default) {
        tag("np", np.as_str());
    }
    for (name, nearness) in [("adkim", wanted.adkim), ("aspf", wanted.aspf)] {
        if nearness == Alignment::Strict {
            tag(name, "s");
        }
    }
    if let Some(psd) = wanted.psd {
        tag("psd", if psd { "y" } else { "n" });
    }
    if wanted.testing {
        tag("t", "y");
    }
    if let Some(address) = &wanted.reports {
        tag("rua", &address.to_uri());
    }
    if let Some(address) = &wanted.failure_reports {
        tag("ruf", &address.to_uri());
        tag("fo", "1");
    }
    let reason = match (policy.dmarc, wanted.testing) {
        _ if !domain.mail => "The domain sends no mail: receivers should refuse what claims to come from it.",
        (DmarcPolicy::None, _) => {
            "Receivers should only report mail that claims to come from the domain and is neither signed nor sent by it."
        }
        (DmarcPolicy::Quarantine, true) => "Receivers should only report what they would have treated as suspicious.",
        (DmarcPolicy::Quarantine, false) => {
            "Receivers should treat as suspicious what only claims to come from the domain."
        }
        (DmarcPolicy::Reject, true) => {
            "Receivers should treat as suspicious, for a test, what they would otherwise refuse as forged."
        }
        (DmarcPolicy::Reject, false) => "Receivers should refuse what only claims to come from the domain.",
    };
    record(&format!("_dmarc.{}", domain.name), RecordData::Txt(text), reason, "RFC 9989 §4.7")
}

/// Returns the domain that stands for the organization of a name, as far as the site's own records tell (RFC 9989 §4.10.2):
/// the one that says so, or the one just below a public suffix, or the shortest.
pub(super) fn organization<'a>(site: &'a Site, name: &str) -> Option<&'a Domain> {
    let mut top = None;
    for domain in site.domains_around(name) {
        if domain.dmarc.psd == Some(true) && domain.name.as_str() != name {
            break;
        }
        top = Some(domain);
        if domain.dmarc.psd == Some(false) {
            break;
        }
    }
    top
}

/// Returns for each zone of the site by which names it agrees to reports about other organizations (RFC 9990 §4).
pub(super) fn permissions(site: &Site) -> BTreeMap<&DomainName, BTreeSet<String>> {
    let mut permissions: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for domain in &site.domains {
        let addresses = [&domain.dmarc.reports, &domain.dmarc.failure_reports];
        for target in addresses.into_iter().flatten().map(MailAddress::domain) {
            let Some(zone) = site.domain_around(target.as_str()) else { continue };
            let organizations = [domain.name.as_str(), target.as_str()].map(|name| organization(site, name));
            let [Some(ours), Some(theirs)] = organizations.map(|found| found.map(|domain| &domain.name)) else {
                continue;
            };
            let name = format!("{}._report._dmarc.{target}", domain.name);
            // DNS could hold no longer name; `site::rules` refuses such settings.
            if ours != theirs && name.len() <= 253 {
                permissions.entry(&zone.name).or_default().insert(name);
            }
        }
    }
    permissions
}

/// Returns the records by which the zone of a domain agrees to reports about other domains of the site.
pub(super) fn consents(index: &Index<'_>, domain: &DomainName) -> impl Iterator<Item = Record> {
    index.permissions.get(domain).into_iter().flatten().map(|name| {
        let data = RecordData::Txt("v=DMARC1".to_owned());
        record(name, data, "Lets another domain of the site have its DMARC reports sent here.", "RFC 9990 §4")
    })
}
