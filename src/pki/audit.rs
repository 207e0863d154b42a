//! Judges what was issued, as an auditor would: from what lies there, not from what was meant.

use super::Certificate;
use super::inspect::Role;

/// Says what is wrong with an issuing CA and its twin: they have one key and one name, the twin signed itself, and a site CA
/// signed the other.
#[must_use]
pub fn judge_pair(issuing: &Certificate, twin: &Certificate, site_cas: &[Certificate]) -> Option<&'static str> {
    let (one, other) = (issuing.facts(), twin.facts());
    if !other.is_twin() || !twin.is_signed_by(twin) {
        return Some("its twin is none");
    }
    if one.spki != other.spki || one.subject_raw != other.subject_raw {
        return Some("its issuing CA and its twin are no pair");
    }
    (!is_of_one(issuing, site_cas)).then_some("its issuing CA is signed by no CA of this site")
}

/// Says what is wrong with a client's certificate, given the twin of the issuing CA that signed it.
#[must_use]
pub fn judge_client(leaf: &Certificate, address: &str, twin: &Certificate) -> Option<&'static str> {
    if leaf.facts().role != Some(Role::Leaf) || leaf.facts().names != [format!("email:{address}")] {
        return Some("it is made out to somebody else");
    }
    if leaf.facts().issuer_raw != twin.facts().subject_raw || !leaf.is_signed_by(twin) {
        return Some("its issuing CA did not sign it");
    }
    None
}

/// Says what is wrong with a server's certificate.
#[must_use]
pub fn judge_server(leaf: &Certificate, host: &str, site_cas: &[Certificate]) -> Option<&'static str> {
    if !leaf.facts().names.contains(&format!("dns:{host}")) {
        return Some("it is made out to another host");
    }
    (!is_of_one(leaf, site_cas)).then_some("no CA of this site signed it")
}

/// Says what is wrong with a site CA: it signed itself, or, imported, somebody else did.
#[must_use]
pub fn judge_site_ca(ca: &Certificate) -> Option<&'static str> {
    if !matches!(ca.facts().role, Some(Role::Authority(_))) {
        return Some("it is no CA");
    }
    (ca.facts().is_self_issued() && !ca.is_signed_by(ca)).then_some("its signature is wrong")
}

fn is_of_one(certificate: &Certificate, site_cas: &[Certificate]) -> bool {
    let named = |ca: &&Certificate| ca.facts().subject_raw == certificate.facts().issuer_raw;
    site_cas.iter().filter(named).any(|ca| certificate.is_signed_by(ca))
}
