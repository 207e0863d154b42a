//! `ca show`, and what commands share that show what there is.

use camino::Utf8Path;
use serde_json::json;
use time::{Date, OffsetDateTime};

use crate::cli::failure::Failure;
use crate::cli::report::{Report, columns};
use crate::cli::session;
use crate::diag::did_you_mean;
use crate::inventory::Inventory;
use crate::names::{Digest, DomainName};
use crate::pki::Certificate;
use crate::site::Site;

/// `ca show`
pub(super) fn ca(site: Option<&Utf8Path>, pem: bool) -> Result<Report, Failure> {
    let directory = session::directory(site);
    let inventory = if directory.has_state()? {
        session::read(site)?.1.inventory()?
    } else {
        directory.locked_inventory()?.unwrap_or_default()
    };
    let Some(ca) = inventory.site_ca else {
        return Err(Failure::input("no-ca", "this site has no CA", "make a site with one: postseal init DOMAIN"));
    };
    let seen = Certificate::from_pem(&ca.certificate)?;
    let fingerprint = seen.fingerprint();
    let seen = seen.facts();
    let text = if pem {
        ca.certificate.clone()
    } else {
        let names: Vec<&str> = seen.permitted.iter().map(|name| name.strip_prefix("dns:").unwrap_or(name)).collect();
        columns(&[
            vec!["subject".to_owned(), seen.subject.clone()],
            vec!["valid".to_owned(), format!("{} until {}", day(seen.not_before), day(seen.not_after))],
            vec!["servers".to_owned(), names.join(", ")],
            vec!["sha-256".to_owned(), colons(&fingerprint)],
        ])
    };
    let json = json!({
        "subject": seen.subject,
        "not_before": day(seen.not_before).to_string(),
        "not_after": day(seen.not_after).to_string(),
        "host_names": seen.permitted,
        "fingerprint": fingerprint.to_string(),
        "pem": ca.certificate,
    });
    Ok(Report::fine(text, json))
}

/// Writes a fingerprint as other programs show it, so that a person can compare.
pub(super) fn colons(digest: &Digest) -> String {
    let pairs: Vec<String> = digest.octets().iter().map(|octet| format!("{octet:02X}")).collect();
    pairs.join(":")
}

/// Returns the day of a moment, in UTC.
pub(super) fn day(moment: OffsetDateTime) -> Date {
    moment.date()
}

/// Returns what exists: from the ledger, or without one from `postseal.lock`.
pub(super) fn inventory(site: Option<&Utf8Path>) -> Result<Inventory, Failure> {
    let directory = session::directory(site);
    if directory.has_state()? {
        Ok(crate::store::Store::open(directory)?.inventory()?)
    } else {
        Ok(directory.locked_inventory()?.unwrap_or_default())
    }
}

pub(super) fn known(site: &Site, domain: &DomainName) -> Result<(), Failure> {
    if site.has_domain(domain) {
        return Ok(());
    }
    let names = || site.domains.iter().map(|domain| domain.name.as_str());
    let mend = did_you_mean(domain.as_str(), names()).map_or_else(
        || format!("the site has: {}", names().collect::<Vec<_>>().join(", ")),
        |name| format!("did you mean `{name}`?"),
    );
    Err(Failure::input("domain-unknown", format!("`{domain}` is no domain of this site"), mend))
}
