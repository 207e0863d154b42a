//! Whom the daemons admit: the list of twins that stands in their `ca` file.

use super::{Certificate, PkiError};

/// The most twins that fit a list that a server sends to its clients.
///
/// Dovecot sends the subjects of the whole list to whoever connects, and TLS 1.3 gives them 65,535 octets together with the
/// signature algorithms (RFC 8446 §4.3.2), which OpenSSL 3 names in 52. A twin's subject takes 31. Beyond that Dovecot 2.3 lets
/// nobody in: its handshake fails (`tests/lab/measure_twins.py`). The list itself is made at any length, for a revocation must never be refused; whoever
/// *adds* has to look at this bound.
pub const MAXIMUM_TWINS: usize = 2_112;

/// Returns the daemons' trust list as PEM: the twins in the order of their fingerprints, each once, or the placeholder if there
/// is none, since an empty list kills smtpd at its start, port 25 included.
///
/// # Errors
/// [`PkiError::NoTwin`] if anything else is among them: the site CA on this list would admit all that was ever revoked.
pub fn trust_list<'a>(
    twins: impl IntoIterator<Item = &'a Certificate>,
    placeholder: &'a Certificate,
) -> Result<String, PkiError> {
    let mut twins: Vec<&Certificate> = twins.into_iter().collect();
    if twins.is_empty() {
        twins.push(placeholder);
    }
    if let Some(stranger) = twins.iter().find(|twin| !twin.facts().is_twin()) {
        return Err(PkiError::NoTwin(stranger.facts().subject.clone()));
    }
    twins.sort_by_cached_key(|twin| twin.fingerprint());
    twins.dedup();
    Ok(twins.iter().map(|twin| twin.pem()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{KeyKind, generate};
    use crate::names::Serial;
    use crate::pki::issue::{placeholder_twin, site_ca};
    use time::macros::datetime;

    fn twin(n: u8) -> Certificate {
        let key = generate(KeyKind::P256).unwrap();
        placeholder_twin(key, Serial::from_random([n; 16]), datetime!(2026-11-24 10:00 UTC)).unwrap()
    }

    #[test]
    fn an_empty_list_holds_the_placeholder() {
        let placeholder = twin(1);
        assert_eq!(trust_list([], &placeholder).unwrap(), placeholder.pem());
    }

    #[test]
    fn the_list_does_not_depend_on_the_order_and_reads_back() {
        let (a, b, placeholder) = (twin(1), twin(2), twin(3));
        let list = trust_list([&a, &b, &a], &placeholder).unwrap();
        assert_eq!(list, trust_list([&b, &a], &placeholder).unwrap());
        assert_eq!(Certificate::all_from_pem(&list).unwrap().len(), 2);
        assert!(!list.contains(&placeholder.pem()));
    }

    #[test]
    fn a_site_ca_never_gets_on_the_list() {
        let key = generate(KeyKind::P256).unwrap();
        let hosts = ["mail.example.com".parse().unwrap()];
        let ca = site_ca("CA", &hosts, &key, Serial::from_random([9; 16]), datetime!(2026-11-24 10:00 UTC)).unwrap();
        assert!(matches!(trust_list([&ca], &twin(1)), Err(PkiError::NoTwin(_))));
    }

    #[test]
    fn the_bound_is_what_tls_gives_to_the_subjects() {
        // Each name has two octets of length; so has their list, and an extension four octets of type and length.
        let each = twin(1).facts().subject_raw.len() + 2;
        assert_eq!((65_535 - 52 - 4 - 2) / each, MAXIMUM_TWINS);
    }
}
