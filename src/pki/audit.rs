//! Judges what was issued, as an auditor would: from what lies there, not from what was meant.

use x509_parser::extensions::ParsedExtension;
use x509_parser::pem::parse_x509_pem;
use x509_parser::revocation_list::{CertificateRevocationList, RevokedCertificate};

use super::Certificate;
use super::crl::Why;
use super::inspect::Role;
use crate::inventory::Reason;

/// A CRL that could be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocations {
    /// Its number, if it has one that fits.
    pub number: Option<u32>,
    /// When it was made, in seconds since 1970.
    pub this_update: i64,
    /// When it ends; the same as `this_update` if that is not said.
    pub next_update: i64,
    /// The serials that it revokes, as hexadecimal digits, and why.
    pub serials: Vec<(String, Why)>,
}

/// Reads a CRL in PEM that the key of an issuing CA signed, whose certificate or twin is given. None for any other.
#[must_use]
pub fn read_crl(pem: &str, issuer: &Certificate) -> Option<Revocations> {
    let (_, pem) = parse_x509_pem(pem.as_bytes()).ok().filter(|(_, pem)| pem.label == "X509 CRL")?;
    let (_, crl) = x509_parser::parse_x509_crl(&pem.contents).ok()?;
    let (_, by) = x509_parser::parse_x509_certificate(issuer.der()).ok()?;
    if crl.issuer().as_raw() != issuer.facts().subject_raw || crl.verify_signature(by.public_key()).is_err() {
        return None;
    }
    let this_update = crl.last_update().timestamp();
    Some(Revocations {
        number: number(&crl),
        this_update,
        next_update: crl.next_update().map_or(this_update, |time| time.timestamp()),
        serials: crl.iter_revoked_certificates().map(entry).collect(),
    })
}

fn entry(one: &RevokedCertificate<'_>) -> (String, Why) {
    let why = one.reason_code().map_or(Why::Revoked(Reason::Unspecified), |(_, code)| Why::of_code(code));
    (crate::names::hex(one.raw_serial()), why)
}

fn number(crl: &CertificateRevocationList<'_>) -> Option<u32> {
    crl.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::CRLNumber(number) => u32::try_from(number.clone()).ok(),
        _ => None,
    })
}

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
