//! Makes certificates from names, keys, serials and a time that are all given.
//!
//! rcgen has traps (a serial that repeats, names that it drops from an imported CA, leaves without key identifiers), so every
//! certificate is read back and compared with what was asked before anyone sees it.

use std::cell::OnceCell;

use rcgen::string::{Ia5String, PrintableString};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, IsCa, Issuer, KeyIdMethod, SanType,
    SerialNumber,
};
use time::{Duration, OffsetDateTime};

use super::crl;
use super::der::{bits, null, object_identifier, sequence};
use super::inspect::Role;
use super::profile::{
    BACKDATED, CLIENT, ISSUING_CA, MAXIMUM_DOMAINS, Profile, SERVER, SITE_CA, Scope, issuing_constraints,
    site_constraints,
};
use super::{Certificate, PkiError};
use crate::inventory::Crl;
use crate::keys::{KeyError, KeyKind, PrivateKey, PublicKey, Signing};
use crate::names::{DeviceName, Digest, HostName, MailAddress, Serial, shown};

/// The object identifier of the attribute serialNumber (X.520).
const SERIAL_NUMBER: &[u64] = &[2, 5, 4, 5];

/// The upper bound of a common name, in characters (RFC 5280 §A.1, ub-common-name).
const COMMON_NAME_MAXIMUM: usize = 64;

/// A CA certificate together with its key.
#[derive(Clone, Copy, Debug)]
pub struct Authority<'a> {
    certificate: &'a Certificate,
    key: Signing<'a>,
    /// What the certificate was made from, if that was just now; else it is read from the certificate.
    params: Option<&'a CertificateParams>,
}

impl<'a> Authority<'a> {
    /// Pairs a CA's certificate with its key.
    ///
    /// # Errors
    /// [`PkiError::ForeignKey`] if they are no pair, [`PkiError::Name`] if the certificate is no CA's.
    pub fn new(certificate: &'a Certificate, key: impl Into<Signing<'a>>) -> Result<Self, PkiError> {
        let (key, subject) = (key.into(), &certificate.facts().subject);
        if !certificate.belongs_to(key) {
            return Err(PkiError::ForeignKey(subject.clone()));
        }
        match certificate.facts().role {
            Some(Role::Authority(_)) => Ok(Self { certificate, key, params: None }),
            Some(Role::Leaf) | None => Err(PkiError::Name(format!("`{subject}` is no CA"))),
        }
    }

    /// Returns the certificate.
    pub fn certificate(&self) -> &'a Certificate {
        self.certificate
    }

    /// Returns the key.
    pub(super) fn key(&self) -> Signing<'a> {
        self.key
    }
}

/// The two certificates of one issuing CA; they have one key and one subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuingPair {
    /// Signed by the site CA: what a client sends behind its own certificate.
    pub issuing: Certificate,
    /// Signed by itself: what daemons trust.
    pub twin: Certificate,
}

/// The serials of what one client certificate needs.
#[derive(Clone, Copy, Debug)]
pub struct ClientSerials {
    /// Of the client certificate.
    pub leaf: Serial,
    /// Of the issuing CA's certificate.
    pub issuing: Serial,
    /// Of the twin.
    pub twin: Serial,
}

/// Whom a client certificate is for.
#[derive(Clone, Copy, Debug)]
pub struct ClientRequest<'a> {
    /// The mailbox.
    pub address: &'a MailAddress,
    /// The device that will hold the key.
    pub device: &'a DeviceName,
    /// The public half of the client's key.
    pub key: &'a PublicKey,
    /// The lifetime in days, if not the profile's.
    pub days: Option<u16>,
}

/// A client certificate, pinned: with an issuing CA of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinnedClient {
    /// The client certificate.
    pub leaf: Certificate,
    /// Its issuing CA, signed by the site CA.
    pub issuing: Certificate,
    /// The twin of the issuing CA: off the trust list, and the client is revoked.
    pub twin: Certificate,
    /// The empty CRL of the issuing CA, with its PEM form, if it was asked for.
    pub crl: Option<(Crl, String)>,
}

/// Whether the issuing CA of a single certificate gets a CRL: servers that heed those of an issuing CA for all want one of every
/// CA that they trust.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmptyCrl {
    /// It gets none.
    Omitted,
    /// It gets one.
    Signed,
}

/// Makes the site CA's certificate: for ten years, for servers of the hosts only, with one level of CAs below it.
///
/// # Errors
/// [`PkiError::Name`] if the name is empty, too long or has control characters, or if there is no host.
pub fn site_ca<'k>(
    name: &str,
    hosts: &[HostName],
    key: impl Into<Signing<'k>>,
    serial: Serial,
    now: OffsetDateTime,
) -> Result<Certificate, PkiError> {
    let (key, length) = (key.into(), name.chars().count());
    if !(1..=COMMON_NAME_MAXIMUM).contains(&length) || name.trim() != name || name.chars().any(char::is_control) {
        return Err(PkiError::Name(format!(
            "`{}` is no name of a CA; write 1 to {COMMON_NAME_MAXIMUM} characters on one line",
            shown(name)
        )));
    }
    if hosts.is_empty() {
        return Err(PkiError::Name("a site CA needs the name of at least one host".to_owned()));
    }
    let mut params = params(&SITE_CA, key.public(), serial, Validity::from_now(now, SITE_CA.lifetime(None)?));
    params.distinguished_name.push(DnType::CommonName, name);
    params.name_constraints = Some(site_constraints(hosts));
    self_signed(&params, key, serial)
}

/// Makes the site CA's next certificate, for ten years from now and for the hosts of today. Key, subject and subject key
/// identifier stay, so that whatever was issued before has a chain through either certificate.
///
/// # Errors
/// [`PkiError::ForeignKey`], [`PkiError::Name`] for a subject that cannot be written again, or if there is no host.
pub fn renewed_site_ca<'k>(
    present: &Certificate,
    hosts: &[HostName],
    key: impl Into<Signing<'k>>,
    serial: Serial,
    now: OffsetDateTime,
) -> Result<Certificate, PkiError> {
    let key = key.into();
    Authority::new(present, key)?;
    let facts = present.facts();
    let Some(key_id) = facts.subject_key_id.clone() else {
        return Err(PkiError::Name(format!("`{}` has no subject key identifier", facts.subject)));
    };
    if hosts.is_empty() {
        return Err(PkiError::Name("a site CA needs the name of at least one host".to_owned()));
    }
    let mut params = params(&SITE_CA, key.public(), serial, Validity::from_now(now, SITE_CA.lifetime(None)?));
    params.distinguished_name = subject_of(present)?;
    params.name_constraints = Some(site_constraints(hosts));
    // That of a CA that was made elsewhere is often of SHA-1.
    params.key_identifier_method = KeyIdMethod::PreSpecified(key_id);
    let renewed = self_signed(&params, key, serial)?;
    let what = match renewed.facts() {
        new if new.subject_raw != facts.subject_raw => "another subject",
        new if new.subject_key_id != facts.subject_key_id => "another subject key identifier",
        _ => return Ok(renewed),
    };
    Err(PkiError::Unexpected { subject: facts.subject.clone(), what })
}

/// Returns a certificate's subject as rcgen writes it.
///
/// # Errors
/// [`PkiError::Name`] for parts of several attributes or none, and for kinds of text that are not written.
pub(super) fn subject_of(certificate: &Certificate) -> Result<DistinguishedName, PkiError> {
    use x509_parser::asn1_rs::Tag;

    let unwritable =
        || PkiError::Name(format!("the subject `{}` cannot be written again", certificate.facts().subject));
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate.der()).map_err(|_| unwritable())?;
    let mut name = DistinguishedName::new();
    for part in parsed.subject().iter() {
        let attributes: Vec<_> = part.iter().collect();
        // rcgen panics at a part of no attribute.
        let [attribute] = attributes.as_slice() else { return Err(unwritable()) };
        let kind: Vec<u64> = attribute.attr_type().iter().ok_or_else(unwritable)?.collect();
        let value = attribute.attr_value();
        let text = std::str::from_utf8(value.data).map_err(|_| unwritable())?;
        let value = match value.tag() {
            Tag::Ia5String => DnValue::Ia5String(ia5(text)?),
            Tag::PrintableString => DnValue::PrintableString(PrintableString::try_from(text)?),
            Tag::Utf8String => DnValue::Utf8String(text.to_owned()),
            _ => return Err(unwritable()),
        };
        name.push(DnType::from_oid(&kind), value);
    }
    if parsed.subject().iter().next().is_none() { Err(unwritable()) } else { Ok(name) }
}

/// Makes a server certificate, signed by the site CA; it ends when the CA does, if that is earlier.
///
/// # Errors
/// [`PkiError::Lifetime`], [`PkiError::AuthorityEnded`].
pub fn server(
    host: &HostName,
    key: &PublicKey,
    site: &Authority<'_>,
    serial: Serial,
    days: Option<u16>,
    now: OffsetDateTime,
) -> Result<Certificate, PkiError> {
    let validity = Validity::from_now(now, SERVER.lifetime(days)?).within(site.certificate, now)?;
    let mut params = params(&SERVER, key, serial, validity);
    push_common_name(&mut params.distinguished_name, host.as_str());
    params.subject_alt_names = vec![SanType::DnsName(ia5(host.as_str())?)];
    signed(&params, key, site, serial)
}

/// Makes a client certificate with an issuing CA of its own, whose key signs leaf and twin and is wiped here.
///
/// # Errors
/// [`PkiError::SameSerial`], [`PkiError::Lifetime`], [`PkiError::AuthorityEnded`].
#[expect(clippy::needless_pass_by_value, reason = "taken by value so that the key ends here")]
pub fn client(
    request: &ClientRequest<'_>,
    issuing_key: PrivateKey,
    serials: ClientSerials,
    site: &Authority<'_>,
    now: OffsetDateTime,
    empty_crl: EmptyCrl,
) -> Result<PinnedClient, PkiError> {
    // Leaf and twin have one issuer name: the twin's own.
    if serials.leaf == serials.twin {
        return Err(PkiError::SameSerial(serials.leaf));
    }
    let validity = Validity::from_now(now, CLIENT.lifetime(request.days)?).within(site.certificate, now)?;
    let scope = Scope::Mailbox(request.address);
    let (pair, params) = pair(scope, &issuing_key, (serials.issuing, serials.twin), site, validity)?;
    let issuing = Authority { params: Some(&params), ..Authority::new(&pair.issuing, &issuing_key)? };
    let leaf = leaf(request, &issuing, serials.leaf, validity)?;
    let crl = match empty_crl {
        EmptyCrl::Omitted => None,
        EmptyCrl::Signed => Some(crl::sign_empty(&issuing, now)?),
    };
    Ok(PinnedClient { leaf, issuing: pair.issuing, twin: pair.twin, crl })
}

/// Makes the one issuing CA of `trust = "ca"`, for the mailboxes of the domains; it lives as long as the site CA. `serials` are
/// the issuing CA's and the twin's.
///
/// # Errors
/// [`PkiError::Name`] for no domain or more than [`MAXIMUM_DOMAINS`]; [`PkiError::AuthorityEnded`].
pub fn issuing_ca(
    scope: Scope<'_>,
    key: &PrivateKey,
    serials: (Serial, Serial),
    site: &Authority<'_>,
    now: OffsetDateTime,
) -> Result<IssuingPair, PkiError> {
    if let Scope::Domains(domains) = scope
        && !(1..=MAXIMUM_DOMAINS).contains(&domains.len())
    {
        return Err(PkiError::Name(format!(
            "an issuing CA is for 1 to {MAXIMUM_DOMAINS} domains, not {}; use trust = \"pinned\" for more",
            domains.len()
        )));
    }
    let validity = Validity::from_now(now, ISSUING_CA.lifetime(None)?).within(site.certificate, now)?;
    pair(scope, key, serials, site, validity).map(|(pair, _)| pair)
}

/// Makes a client certificate under an issuing CA that already is (`trust = "ca"`).
///
/// # Errors
/// [`PkiError::Lifetime`], [`PkiError::AuthorityEnded`].
pub fn client_of(
    request: &ClientRequest<'_>,
    issuing: &Authority<'_>,
    serial: Serial,
    now: OffsetDateTime,
) -> Result<Certificate, PkiError> {
    let validity = Validity::from_now(now, CLIENT.lifetime(request.days)?).within(issuing.certificate, now)?;
    leaf(request, issuing, serial, validity)
}

/// Makes a twin that nobody can ever use, for its key is wiped here: it keeps the trust list from being empty, which kills
/// smtpd at its start.
///
/// # Errors
/// [`PkiError::Writing`] if it cannot be signed.
#[expect(clippy::needless_pass_by_value, reason = "taken by value so that the key ends here")]
pub fn placeholder_twin(key: PrivateKey, serial: Serial, now: OffsetDateTime) -> Result<Certificate, PkiError> {
    let nobody: MailAddress = "nobody@postseal.invalid"
        .parse()
        .map_err(|error: crate::names::NameError| PkiError::Name(error.to_string()))?;
    let validity = Validity::from_now(now, ISSUING_CA.lifetime(None)?);
    self_signed(&issuing_params(Scope::Mailbox(&nobody), key.public(), serial, validity), &key, serial)
}

/// When a certificate is valid, in whole seconds, which is all that its form can hold.
#[derive(Clone, Copy)]
struct Validity {
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
}

impl Validity {
    fn from_now(now: OffsetDateTime, lifetime: Duration) -> Self {
        let now = now - Duration::nanoseconds(i64::from(now.nanosecond()));
        Self { not_before: now - BACKDATED, not_after: now + lifetime }
    }

    /// Shortens the validity to the CA's: a certificate that outlives its CA fails at a moment that nobody looks for.
    fn within(self, authority: &Certificate, now: OffsetDateTime) -> Result<Self, PkiError> {
        let ca = authority.facts();
        if ca.not_after <= now {
            return Err(PkiError::AuthorityEnded(ca.not_after));
        }
        Ok(Self { not_before: self.not_before.max(ca.not_before), not_after: self.not_after.min(ca.not_after) })
    }
}

/// Makes an issuing CA's two certificates, which differ in serial and signer; also returns the twin's parameters.
fn pair(
    scope: Scope<'_>,
    key: &PrivateKey,
    (issuing, twin): (Serial, Serial),
    site: &Authority<'_>,
    validity: Validity,
) -> Result<(IssuingPair, CertificateParams), PkiError> {
    let mut params = issuing_params(scope, key.public(), issuing, validity);
    let issuing = signed(&params, key.public(), site, issuing)?;
    params.serial_number = Some(SerialNumber::from_slice(twin.octets()));
    let twin = self_signed(&params, key, twin)?;
    Ok((IssuingPair { issuing, twin }, params))
}

fn leaf(
    request: &ClientRequest<'_>,
    issuing: &Authority<'_>,
    serial: Serial,
    validity: Validity,
) -> Result<Certificate, PkiError> {
    let mut params = params(&CLIENT, request.key, serial, validity);
    // Device and serial make each subject unique: NSS gives equal subjects one nickname, whatever the .p12 says.
    push_common_name(&mut params.distinguished_name, request.address.as_str());
    params.distinguished_name.push(DnType::OrganizationalUnitName, request.device.as_str());
    let number = PrintableString::try_from(serial.to_string())?;
    params.distinguished_name.push(DnType::CustomDnType(SERIAL_NUMBER.to_vec()), DnValue::PrintableString(number));
    params.subject_alt_names = vec![SanType::Rfc822Name(ia5(request.address.as_str())?)];
    signed(&params, request.key, issuing, serial)
}

/// The parameters of an issuing CA and of its twin. The subject is drawn from the key and says nothing of anyone: Dovecot sends
/// every subject of its trust list to whoever connects.
fn issuing_params(scope: Scope<'_>, key: &PublicKey, serial: Serial, validity: Validity) -> CertificateParams {
    let mut params = params(&ISSUING_CA, key, serial, validity);
    params.distinguished_name.push(DnType::CommonName, Digest::of(key.spki_der()).short());
    params.name_constraints = Some(issuing_constraints(scope));
    params
}

/// A name that is longer than a common name may be is left out: the subjectAltName holds it whole, and that is what counts.
fn push_common_name(subject: &mut DistinguishedName, name: &str) {
    if name.len() <= COMMON_NAME_MAXIMUM {
        subject.push(DnType::CommonName, name);
    }
}

fn params(profile: &Profile, key: &PublicKey, serial: Serial, validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.serial_number = Some(SerialNumber::from_slice(serial.octets()));
    params.not_before = validity.not_before;
    params.not_after = validity.not_after;
    // `NoCa` would write neither basicConstraints nor a subject key identifier.
    params.is_ca =
        profile.path_length.map_or(IsCa::ExplicitNoCa, |length| IsCa::Ca(BasicConstraints::Constrained(length)));
    params.key_usages = profile.key_usage_for(key.kind()).to_vec();
    params.extended_key_usages = profile.extended_key_usage.to_vec();
    params.use_authority_key_identifier_extension = true;
    params
}

fn ia5(text: &str) -> Result<Ia5String, PkiError> {
    Ok(Ia5String::try_from(text)?)
}

// What a signature is said to be made with (RFC 5758 §3.2, RFC 4055 §5), as encoded.
const ECDSA_WITH_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const SHA256_WITH_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b];

/// A key that remembers what it signed. A certificate that consists of exactly that is signed by the key: to verify each
/// signature would say no more, and take longer than all that `issue` does besides.
pub(super) struct Witness<'k> {
    key: Signing<'k>,
    /// The octets that were signed first, and their signature.
    signed: OnceCell<(Vec<u8>, Vec<u8>)>,
    /// Why the key did not sign; rcgen has no words for it.
    failed: OnceCell<KeyError>,
}

impl<'k> Witness<'k> {
    pub(super) fn new(key: Signing<'k>) -> Self {
        Self { key, signed: OnceCell::new(), failed: OnceCell::new() }
    }

    /// Returns why rcgen failed.
    pub(super) fn why(&self, error: rcgen::Error) -> PkiError {
        self.failed.get().map_or_else(|| error.into(), |failed| failed.clone().into())
    }

    /// Tells whether a certificate or CRL is what was signed, the name of the algorithm, and the signature, and nothing else.
    pub(super) fn signed(&self, der: &[u8]) -> bool {
        let algorithm = match self.key.public().kind() {
            KeyKind::P256 => sequence(&[&object_identifier(ECDSA_WITH_SHA256)]),
            KeyKind::Rsa2048 | KeyKind::Rsa3072 => sequence(&[&object_identifier(SHA256_WITH_RSA), &null()]),
        };
        let whole = |(octets, signature): &(Vec<u8>, Vec<u8>)| sequence(&[octets, &algorithm, &bits(signature)]);
        self.signed.get().is_some_and(|signed| der == whole(signed))
    }
}

impl rcgen::PublicKeyData for Witness<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.key.public().bits()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        Subject(self.key.public()).algorithm()
    }

    fn subject_public_key_info(&self) -> Vec<u8> {
        self.key.public().spki_der().to_vec()
    }
}

/// The key of a certificate's subject, as rcgen wants it.
struct Subject<'k>(&'k PublicKey);

impl rcgen::PublicKeyData for Subject<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0.bits()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        match self.0.kind() {
            KeyKind::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            KeyKind::Rsa2048 | KeyKind::Rsa3072 => &rcgen::PKCS_RSA_SHA256,
        }
    }

    fn subject_public_key_info(&self) -> Vec<u8> {
        self.0.spki_der().to_vec()
    }
}

impl rcgen::SigningKey for Witness<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature = self.key.sign(message).map_err(|error| {
            let _ = self.failed.set(error);
            rcgen::Error::RemoteKeyError
        })?;
        // A second signature would stand in a certificate that then is found to be another.
        let _ = self.signed.set((message.to_vec(), signature.clone()));
        Ok(signature)
    }
}

fn self_signed<'k>(
    params: &CertificateParams,
    key: impl Into<Signing<'k>>,
    serial: Serial,
) -> Result<Certificate, PkiError> {
    let key = key.into();
    let witness = Witness::new(key);
    let signed = params.self_signed(&witness).map_err(|error| witness.why(error))?;
    let certificate = Certificate::from_der(signed.der().to_vec())?;
    compare(&certificate, &certificate, &witness, params, key.public(), serial)?;
    Ok(certificate)
}

fn signed(
    params: &CertificateParams,
    key: &PublicKey,
    authority: &Authority<'_>,
    serial: Serial,
) -> Result<Certificate, PkiError> {
    let witness = Witness::new(authority.key);
    let issuer = match authority.params {
        Some(params) => Issuer::from_params(params, &witness),
        None => Issuer::from_ca_cert_der(&authority.certificate.der().into(), &witness)?,
    };
    let signed = params.signed_by(&Subject(key), &issuer).map_err(|error| witness.why(error))?;
    let certificate = Certificate::from_der(signed.der().to_vec())?;
    compare(&certificate, authority.certificate, &witness, params, key, serial)?;
    Ok(certificate)
}

/// Compares a new certificate with what was asked for, with the CA that signed it, and with what the CA's key signed.
fn compare(
    certificate: &Certificate,
    authority: &Certificate,
    witness: &Witness<'_>,
    params: &CertificateParams,
    key: &PublicKey,
    serial: Serial,
) -> Result<(), PkiError> {
    let (facts, ca) = (certificate.facts(), authority.facts());
    let role = match params.is_ca {
        IsCa::Ca(BasicConstraints::Constrained(length)) => Role::Authority(Some(u32::from(length))),
        IsCa::Ca(BasicConstraints::Unconstrained) => Role::Authority(None),
        IsCa::ExplicitNoCa | IsCa::NoCa => Role::Leaf,
    };
    let differs = [
        (facts.issuer_raw != ca.subject_raw, "its issuer is not the CA's subject, octet for octet"),
        (facts.serial != serial.to_string(), "another serial"),
        ((facts.not_before, facts.not_after) != (params.not_before, params.not_after), "another validity"),
        (facts.spki != key.spki_der(), "another public key"),
        (facts.role != Some(role), "other basic constraints"),
        (facts.subject_key_id.is_none(), "no subject key identifier"),
        (facts.authority_key_id.is_none(), "no authority key identifier"),
        (facts.authority_key_id != ca.subject_key_id, "the key identifier of another authority"),
        (facts.permitted.is_empty() != params.name_constraints.is_none(), "other name constraints"),
        (!authority.belongs_to(witness.key), "the key of another authority"),
        (!witness.signed(certificate.der()), "other octets than were signed"),
    ];
    match differs.into_iter().find(|(differs, _)| *differs) {
        Some((_, what)) => Err(PkiError::Unexpected { subject: facts.subject.clone(), what }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{KeyKind, generate};
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-11-24 10:00:00.123 UTC);

    fn serial(n: u8) -> Serial {
        Serial::from_random([n; 16])
    }

    fn key() -> PrivateKey {
        generate(KeyKind::P256).unwrap()
    }

    fn site(key: &PrivateKey) -> Certificate {
        site_ca("Example Mail CA", &["mail.example.com".parse().unwrap()], key, serial(1), NOW).unwrap()
    }

    fn pinned(address: &str, key: &PublicKey, ca: &Authority<'_>, days: Option<u16>) -> Result<PinnedClient, PkiError> {
        let (address, device) = (address.parse().unwrap(), "laptop".parse().unwrap());
        let request = ClientRequest { address: &address, device: &device, key, days };
        let serials = ClientSerials { leaf: serial(2), issuing: serial(3), twin: serial(4) };
        client(&request, self::key(), serials, ca, NOW, EmptyCrl::Omitted)
    }

    #[test]
    fn site_ca_signs_servers_of_its_hosts_and_one_level_of_cas() {
        let key = key();
        assert_eq!(
            site(&key).profile(),
            "subject: CN=Example Mail CA\nkey: EC 256\nlifetime: 3652 days 1 hours\nrole: CA, path length 1\n\
             key usage: Key Cert Sign, CRL Sign\npermitted: dns:mail.example.com\n\
             excluded: ip:0000000000000000, \
             ip:0000000000000000000000000000000000000000000000000000000000000000\n\
             critical: 2.5.29.15, 2.5.29.30, 2.5.29.19\n"
        );
    }

    #[test]
    fn pinned_client_has_an_issuing_ca_and_a_twin_for_its_mailbox_only() {
        let (key, leaf_key) = (key(), key());
        let (ca, leaf) = (site(&key), leaf_key.public());
        let made = pinned("alice@example.com", leaf, &Authority::new(&ca, &key).unwrap(), None).unwrap();
        let number = serial(2);
        assert_eq!(
            made.leaf.profile(),
            format!(
                "subject: CN=alice@example.com, OU=laptop, serialNumber={number}\nkey: EC 256\n\
                 lifetime: 365 days 0 hours\nrole: leaf\nnames: email:alice@example.com\n\
                 key usage: Digital Signature\nextended key usage: clientAuth, emailProtection\n\
                 critical: 2.5.29.15, 2.5.29.19\n"
            )
            .replace("365 days 0", "365 days 1")
        );
        for half in [&made.issuing, &made.twin] {
            let facts = half.facts();
            assert_eq!(facts.permitted, ["email:alice@example.com"]);
            assert_eq!(facts.excluded.first().map(String::as_str), Some("dns:"));
            assert_eq!(facts.role, Some(Role::Authority(Some(0))));
            assert_eq!(facts.subject.len(), "CN=0123456789abcdef".len());
            assert_eq!((facts.not_before, facts.not_after), {
                let leaf = made.leaf.facts();
                (leaf.not_before, leaf.not_after)
            });
            assert!(made.leaf.is_signed_by(half));
        }
        assert!(made.twin.facts().is_twin() && !made.issuing.facts().is_twin() && !ca.facts().is_twin());
        assert_eq!(made.issuing.facts().issuer_raw, ca.facts().subject_raw);
    }

    #[test]
    fn nothing_outlives_its_ca() {
        let key = key();
        let ca = site(&key);
        let ca = Authority::new(&ca, &key).unwrap();
        let late = NOW + Duration::days(3600);
        let host = "mail.example.com".parse().unwrap();
        let server_key = self::key();
        let made = server(&host, server_key.public(), &ca, serial(5), None, late).unwrap();
        assert_eq!(made.facts().not_after, ca.certificate().facts().not_after);
        let too_late = server(&host, server_key.public(), &ca, serial(5), None, NOW + Duration::days(3653));
        assert!(matches!(too_late, Err(PkiError::AuthorityEnded(_))));
    }

    #[test]
    fn a_mailbox_longer_than_a_common_name_stands_in_the_san_alone() {
        let (key, leaf_key) = (key(), key());
        let ca = site(&key);
        let long = format!("{}@example.com", "a".repeat(60));
        let made = pinned(&long, leaf_key.public(), &Authority::new(&ca, &key).unwrap(), Some(30)).unwrap();
        assert!(made.leaf.facts().subject.starts_with("OU=laptop"));
        assert_eq!(made.leaf.facts().names, [format!("email:{long}")]);
    }

    #[test]
    fn rsa_keys_may_encipher_and_chains_may_mix_kinds() {
        let key = key();
        let ca = site(&key);
        let rsa = generate(KeyKind::Rsa2048).unwrap();
        let made = pinned("bob@example.com", rsa.public(), &Authority::new(&ca, &key).unwrap(), None).unwrap();
        assert_eq!(made.leaf.facts().key_usage, "Digital Signature, Key Encipherment");
        assert_eq!(made.leaf.facts().key, "RSA 2048");
        assert!(made.leaf.belongs_to(&rsa));
    }

    #[test]
    fn a_certificate_is_what_its_authority_signed_and_nothing_else() {
        for key in [key(), generate(KeyKind::Rsa2048).unwrap()] {
            let ca = site(&key);
            let leaf_key = self::key();
            let made = pinned("a@example.com", leaf_key.public(), &Authority::new(&ca, &key).unwrap(), None).unwrap();
            assert!(ca.is_signed_by(&ca) && made.issuing.is_signed_by(&ca), "{}", key.kind());
            assert!(made.twin.is_signed_by(&made.twin) && made.leaf.is_signed_by(&made.issuing), "{}", key.kind());
        }
        let key = key();
        let params = issuing_params(
            Scope::Mailbox(&"a@example.com".parse().unwrap()),
            key.public(),
            serial(1),
            Validity::from_now(NOW, Duration::days(1)),
        );
        let witness = Witness::new((&key).into());
        let made = Certificate::from_der(params.self_signed(&witness).unwrap().der().to_vec()).unwrap();
        assert!(witness.signed(made.der()));
        // The same octets signed again, and nothing signed.
        let other = Witness::new((&key).into());
        assert!(!other.signed(made.der()));
        let again = Certificate::from_der(params.self_signed(&other).unwrap().der().to_vec()).unwrap();
        assert!(!witness.signed(again.der()) && other.signed(again.der()));
    }

    #[test]
    fn what_cannot_be_right_is_refused() {
        let (one, other) = (key(), key());
        let ca = site(&one);
        assert!(matches!(Authority::new(&ca, &other), Err(PkiError::ForeignKey(_))));
        let hosts = ["mail.example.com".parse().unwrap()];
        for name in ["", " padded", "two\nlines", &"x".repeat(65)] {
            assert!(matches!(site_ca(name, &hosts, &one, serial(1), NOW), Err(PkiError::Name(_))), "{name:?}");
        }
        assert!(site_ca("Example", &[], &one, serial(1), NOW).is_err());
        let authority = Authority::new(&ca, &one).unwrap();
        assert!(matches!(
            pinned("a@example.com", other.public(), &authority, Some(826)),
            Err(PkiError::Lifetime { maximum: 825, .. })
        ));
        let (address, device) = ("a@example.com".parse().unwrap(), "phone".parse().unwrap());
        let request = ClientRequest { address: &address, device: &device, key: other.public(), days: None };
        let same = ClientSerials { leaf: serial(2), issuing: serial(3), twin: serial(2) };
        assert_eq!(
            client(&request, key(), same, &authority, NOW, EmptyCrl::Omitted).err(),
            Some(PkiError::SameSerial(serial(2)))
        );
    }

    #[test]
    fn one_issuing_ca_serves_the_mailboxes_of_its_domains() {
        let (key, own, leaf_key) = (key(), key(), key());
        let ca = site(&key);
        let site = Authority::new(&ca, &key).unwrap();
        let domains = ["example.com".parse().unwrap(), "example.org".parse().unwrap()];
        let made = issuing_ca(Scope::Domains(&domains), &own, (serial(6), serial(7)), &site, NOW).unwrap();
        assert_eq!(made.twin.facts().permitted, ["email:example.com", "email:example.org"]);
        let (address, device) = ("a@example.org".parse().unwrap(), "phone".parse().unwrap());
        let request = ClientRequest { address: &address, device: &device, key: leaf_key.public(), days: None };
        let leaf = client_of(&request, &Authority::new(&made.issuing, &own).unwrap(), serial(8), NOW).unwrap();
        assert!(leaf.is_signed_by(&made.twin));
        assert!(issuing_ca(Scope::Domains(&[]), &own, (serial(6), serial(7)), &site, NOW).is_err());
    }
}
