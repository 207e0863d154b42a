//! Certificate requests (PKCS#10, RFC 2986) of people who made their key themselves. Of a request only the public key is taken:
//! whom a certificate is for is the administrator's to say. What asks for more is refused all the same, for whoever sent it
//! meant something else, or means ill.

use x509_parser::asn1_rs::Any;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::{ParsedCriAttribute, X509CriAttribute};
use x509_parser::error::X509Error;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use super::Refusal;
use crate::keys::{KeyError, PublicKey, requests_of_pem};
use crate::names::{MailAddress, hex, shown};

/// No request is longer, in octets: one of an RSA-3072 key has about 1,500.
pub const MAXIMUM_REQUEST: usize = 1 << 16;

/// The attribute emailAddress (RFC 5280 §A.1), as encoded.
const EMAIL_ADDRESS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x01];

/// id-RSASSA-PSS (RFC 8017 §A.2.3), as encoded.
const RSASSA_PSS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a];

/// How a request is made that is taken; the address is not needed in it.
const MAKE: &str = "make a key and a request for it: openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj / \
                    -keyout client.key -out client.csr";

/// Returns the public key of the one request in a file, PEM or DER, for a certificate of the address. Its signature proves that
/// whoever made the request holds the private key. Extensions that ask for nothing harmful are passed over.
///
/// # Errors
/// A [`Refusal`] for what is no request, more than one, signed by another key, for a kind of key that is not used, or for
/// something else than a certificate of the address.
pub fn public_key(file: &[u8], address: &MailAddress) -> Result<PublicKey, Refusal> {
    let der = der(file)?;
    let (_, request) = X509CertificationRequest::from_der(&der).map_err(|_| unreadable("it does not parse"))?;
    let info = &request.certification_request_info;
    // The parser passes over what follows within; nobody's signature would count for it.
    if !is_whole(&der, info.raw) {
        return Err(unreadable("octets follow its end"));
    }
    let key = PublicKey::from_spki(info.subject_pki.raw).map_err(|error| of_key(&error))?;
    // With PSS, ring takes one length of the salt, and OpenSSL uses another: that a signature is bad cannot be told then.
    let is_pss = request.signature_algorithm.algorithm.as_bytes() == RSASSA_PSS;
    request.verify_signature().map_err(|error| of_signature(&error, is_pss))?;
    check_subject(&info.subject, address)?;
    info.iter_attributes().try_for_each(|attribute| check_attribute(attribute, address))?;
    Ok(key)
}

fn der(file: &[u8]) -> Result<Vec<u8>, Refusal> {
    if file.len() > MAXIMUM_REQUEST {
        return Err(unreadable("it is too long for one"));
    }
    let begins = file.windows(BEGIN.len()).filter(|part| *part == BEGIN).count();
    if begins == 0 {
        return Ok(file.to_vec());
    }
    let mut found = requests_of_pem(file).map_err(|_| unreadable("its PEM is damaged"))?;
    match (found.pop(), begins) {
        (Some(request), 1) => Ok(request),
        (None, 1) => Err(unreadable("it holds something else")),
        _ => Err(Refusal::new(
            "the file holds more than one request, or something beside it",
            "put the one request into a file of its own; a private key stays where it was made",
        )),
    }
}

/// What every section of a PEM text begins with.
const BEGIN: &[u8] = b"-----BEGIN ";

/// Tells whether the octets are a SEQUENCE of a SEQUENCE, which is what was signed, a SEQUENCE and a BIT STRING (RFC 2986 §4.2).
fn is_whole(der: &[u8], signed: &[u8]) -> bool {
    let Ok((&[], outer)) = Any::from_der(der) else { return false };
    let mut left = outer.data;
    let mut parts = Vec::new();
    while !left.is_empty() {
        let Ok((rest, _)) = Any::from_der(left) else { return false };
        parts.push(left.split_at(left.len() - rest.len()).0);
        left = rest;
    }
    let tags: Vec<_> = std::iter::once(der).chain(parts.iter().copied()).map(|part| part.first().copied()).collect();
    tags == [Some(0x30), Some(0x30), Some(0x30), Some(0x03)] && parts.first() == Some(&signed)
}

fn check_subject(subject: &X509Name<'_>, address: &MailAddress) -> Result<(), Refusal> {
    subject.iter_attributes().try_for_each(|attribute| check_name(attribute, address))
}

/// Refuses another mailbox in the subject, be it as emailAddress, as common name or as anything else.
fn check_name(attribute: &AttributeTypeAndValue<'_>, address: &MailAddress) -> Result<(), Refusal> {
    let is_mailbox = attribute.attr_type().as_bytes() == EMAIL_ADDRESS;
    match attribute.as_str() {
        Ok(text) if (is_mailbox || text.contains('@')) && !is(text, address) => Err(foreign("subject", text, address)),
        Err(_) if is_mailbox || attribute.attr_value().data.contains(&b'@') => {
            Err(foreign("subject", &hex(attribute.attr_value().data), address))
        }
        _ => Ok(()),
    }
}

fn check_attribute(attribute: &X509CriAttribute<'_>, address: &MailAddress) -> Result<(), Refusal> {
    let ParsedCriAttribute::ExtensionRequest(requested) = attribute.parsed_attribute() else { return Ok(()) };
    // The parser reads the first value of the set, and passes over others.
    if Any::from_der(attribute.value).is_err() {
        return Err(unreadable("it asks for extensions twice"));
    }
    requested.extensions.iter().try_for_each(|extension| match extension.parsed_extension() {
        ParsedExtension::BasicConstraints(basic) if basic.ca => Err(authority("basicConstraints CA:TRUE")),
        ParsedExtension::KeyUsage(usage) if usage.key_cert_sign() => Err(authority("keyCertSign")),
        ParsedExtension::KeyUsage(usage) if usage.crl_sign() => Err(authority("cRLSign")),
        ParsedExtension::ParseError { .. } => Err(unreadable("an extension that it asks for does not parse")),
        ParsedExtension::SubjectAlternativeName(names) => {
            names.general_names.iter().try_for_each(|name| check_general_name(name, address))
        }
        _ => Ok(()),
    })
}

fn check_general_name(name: &GeneralName<'_>, address: &MailAddress) -> Result<(), Refusal> {
    match name {
        GeneralName::RFC822Name(text) if is(text, address) => Ok(()),
        GeneralName::RFC822Name(text) => Err(foreign("subjectAltName", text, address)),
        other => Err(foreign("subjectAltName", &other.to_string(), address)),
    }
}

fn is(text: &str, address: &MailAddress) -> bool {
    text.parse().is_ok_and(|named: MailAddress| named == *address)
}

fn foreign(place: &str, name: &str, address: &MailAddress) -> Refusal {
    Refusal::new(
        format!("the request asks for `{}` in its {place}, and not for `{address}` alone", shown(name)),
        "have it made anew without names: postseal writes the address that you name",
    )
}

fn authority(what: &str) -> Refusal {
    Refusal::new(
        format!("the request asks for {what}, with which its owner could issue certificates"),
        "have it made anew without that",
    )
}

fn unreadable(why: &str) -> Refusal {
    Refusal::new(format!("the file holds no certificate request (PKCS#10, PEM or DER): {why}"), MAKE)
}

fn of_key(error: &KeyError) -> Refusal {
    match error {
        KeyError::UnusableKind(what) => Refusal::new(
            format!("the key of the request is {what}, and postseal certifies P-256, RSA-2048 and RSA-3072"),
            MAKE,
        ),
        other => Refusal::new(format!("the key of the request cannot be used: {other}"), MAKE),
    }
}

fn of_signature(error: &X509Error, is_pss: bool) -> Refusal {
    if is_pss || matches!(error, X509Error::SignatureUnsupportedAlgorithm) {
        return Refusal::new(
            "the request is signed in a way that postseal does not verify",
            "have it signed with SHA-256, as openssl req -sha256 does",
        );
    }
    Refusal::new("the request was not signed by the key that it is for, or was changed", MAKE)
}
