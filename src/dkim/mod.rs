//! What DKIM says about a key: its record, its selector, its life. Keys come from elsewhere; nothing here signs.

pub mod private;
pub mod rotation;
pub mod seeing;

use time::{Date, OffsetDateTime};

use crate::inventory::{DkimAlgorithm, DkimKey, DkimState};
use crate::names::{DomainName, Selector};
use crate::platform::Layout;

/// Returns the key's record: `h=sha256` because rsa-sha1 must not be used (RFC 6376 §3.6.1, RFC 8301 §3.1, RFC 8463 §4); with an
/// empty `p=` once it is revoked.
pub fn record_text(key: &DkimKey) -> String {
    let public = if key.state < DkimState::Revoked { key.public.as_str() } else { "" };
    format!("v=DKIM1; k={}; h=sha256; p={public}", key.algorithm.as_str())
}

/// Reads algorithm and public half from a record of exactly that form.
pub fn read_record(text: &str) -> Option<(DkimAlgorithm, &str)> {
    let (algorithm, public) = text.strip_prefix("v=DKIM1; k=")?.split_once("; h=sha256; p=")?;
    let algorithm = DkimAlgorithm::ALL.into_iter().find(|known| known.as_str() == algorithm)?;
    Some((algorithm, public))
}

/// Returns the name that the key's record stands at (RFC 6376 §3.6.2.1).
pub fn record_name(selector: &Selector, domain: &DomainName) -> String {
    format!("{selector}._domainkey.{domain}")
}

/// Returns the name of the private key's file: a selector is never used again, so a path never changes its content, which
/// Rspamd would not notice within a second.
pub fn key_file_name(key: &DkimKey) -> String {
    format!("{}.{}.key", key.domain, key.selector)
}

/// Returns the directory of the keys on a host.
pub fn key_directory(layout: &Layout) -> String {
    format!("{}/dkim", layout.rspamd_state)
}

/// Returns the path of the private key's file on a host.
pub fn key_path(layout: &Layout, key: &DkimKey) -> String {
    format!("{}/{}", key_directory(layout), key_file_name(key))
}

/// Returns [`key_path`] of every key as Rspamd fills it in for a message: `$domain` and `$selector` are its names.
pub fn key_pattern(layout: &Layout) -> String {
    format!("{}/$domain.$selector.key", key_directory(layout))
}

/// Returns the path of the map of selectors on a host: beside the keys, where no package puts or removes anything. No key's
/// file has its name.
pub fn selector_map(layout: &Layout) -> String {
    format!("{}/selectors.map", key_directory(layout))
}

/// Returns a selector that the domain has never used: `202611r`, then `202611r2` and so on.
///
/// `used` are all selectors of the domain that ever were, not only those that still sign: a receiver may have kept an old
/// record. `restored` is when they came back with a backup, if they did: others of the same month may have been used and
/// forgotten, so that from then on until its end selectors say that time as well, `202611r-24120000`.
pub fn fresh_selector(
    date: Date,
    algorithm: DkimAlgorithm,
    used: &[Selector],
    restored: Option<OffsetDateTime>,
) -> Option<Selector> {
    let mut stem = format!("{:04}{:02}{}", date.year(), u8::from(date.month()), algorithm.letter());
    if let Some(at) = restored.filter(|at| (at.year(), at.month()) == (date.year(), date.month())) {
        stem.push_str(&format!("-{:02}{:02}{:02}{:02}", at.day(), at.hour(), at.minute(), at.second()));
    }
    let dash = if stem.contains('-') { "-" } else { "" };
    let numbered = (2..=used.len() + 1).map(|number| format!("{stem}{dash}{number}"));
    let mut candidates = std::iter::once(stem.clone()).chain(numbered);
    let fresh = candidates.find(|candidate| !used.iter().any(|selector| selector.as_str() == candidate));
    // A year before 0 gives no selector; every other date does.
    fresh.and_then(|text| text.parse().ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use time::macros::{date, datetime};

    use super::*;

    #[test]
    fn a_selector_is_never_used_again() {
        let mut used = Vec::new();
        for expected in ["202611r", "202611r2", "202611r3", "202611r4"] {
            let fresh = fresh_selector(date!(2026 - 11 - 30), DkimAlgorithm::Rsa, &used, None).unwrap();
            assert_eq!(fresh.as_str(), expected);
            used.push(fresh);
        }
        used.remove(1);
        let again = fresh_selector(date!(2026 - 11 - 01), DkimAlgorithm::Rsa, &used, None).unwrap();
        assert_eq!(again.as_str(), "202611r2", "only what is told to be used is avoided");
        let other = fresh_selector(date!(2026 - 11 - 30), DkimAlgorithm::Ed25519, &used, None).unwrap();
        assert_eq!(other.as_str(), "202611e");
    }

    #[test]
    fn a_selector_that_a_backup_forgot_is_not_used_again_in_its_month() {
        let fresh = |date, used: &[Selector]| {
            fresh_selector(date, DkimAlgorithm::Rsa, used, Some(datetime!(2026-11-24 12:00:05 UTC))).unwrap()
        };
        let first = fresh(date!(2026 - 11 - 30), &[]);
        assert_eq!(first.as_str(), "202611r-24120005");
        assert_eq!(fresh(date!(2026 - 11 - 30), &[first]).as_str(), "202611r-24120005-2");
        assert_eq!(fresh(date!(2026 - 12 - 01), &[]).as_str(), "202612r");
    }
}
