//! Certificates read back: what a certificate says of itself, as facts and as a text to compare.

use std::fmt;

use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{ExtendedKeyUsage, GeneralName, GeneralSubtree, ParsedExtension};
use x509_parser::public_key::PublicKey;
use x509_parser::x509::{SubjectPublicKeyInfo, X509Name};

use super::PkiError;
use crate::keys::{PemItem, Signing, encode_pem, pem_items};
use crate::names::{Digest, HostName, MailAddress, hex};

/// A certificate (RFC 5280) that could be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    der: Vec<u8>,
    facts: Facts,
}

impl Certificate {
    /// Takes over a certificate in DER.
    ///
    /// # Errors
    /// [`PkiError::Certificate`] if it does not parse as a whole, or has octets behind its end.
    pub fn from_der(der: Vec<u8>) -> Result<Self, PkiError> {
        let facts = Facts::read(&der)?;
        Ok(Self { der, facts })
    }

    /// Reads every certificate of a PEM text, in its order.
    ///
    /// # Errors
    /// [`PkiError::Key`] if the text is no PEM, [`PkiError::Certificate`] if a certificate does not parse.
    pub fn all_from_pem(text: &str) -> Result<Vec<Self>, PkiError> {
        let certificates = pem_items(text.as_bytes())?.into_iter().filter_map(|item| match item {
            PemItem::Certificate(der) => Some(Self::from_der(der)),
            _ => None,
        });
        certificates.collect()
    }

    /// Reads the first certificate of a PEM text.
    ///
    /// # Errors
    /// As [`Self::all_from_pem`]; [`PkiError::Certificate`] if there is none.
    pub fn from_pem(text: &str) -> Result<Self, PkiError> {
        let first = Self::all_from_pem(text)?.into_iter().next();
        first.ok_or_else(|| PkiError::Certificate("the PEM text has none".to_owned()))
    }

    /// Returns the DER form.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Returns the PEM form, with nothing around it.
    pub fn pem(&self) -> String {
        encode_pem("CERTIFICATE", &self.der)
    }

    /// Returns what the certificate says.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Returns SHA-256 of the DER form, as OpenSMTPD logs it.
    pub fn fingerprint(&self) -> Digest {
        Digest::of(&self.der)
    }

    /// Tells whether the private key belongs to the certificate.
    pub fn belongs_to<'k>(&self, key: impl Into<Signing<'k>>) -> bool {
        key.into().public().spki_der() == self.facts.spki
    }

    /// Checks the signature under the issuer's key; no name, no time, no constraint.
    pub fn is_signed_by(&self, issuer: &Self) -> bool {
        let parse = |der| x509_parser::parse_x509_certificate(der).map(|(_, parsed)| parsed);
        let (Ok(own), Ok(issuer)) = (parse(&self.der), parse(&issuer.der)) else { return false };
        own.verify_signature(Some(issuer.public_key())).is_ok()
    }

    /// Returns the certificate's profile: everything but keys, names of signers and dates, a line for each. Equal profiles let
    /// CI compare certificates that are made anew in each run.
    pub fn profile(&self) -> String {
        self.facts.to_string()
    }
}

/// Whether a certificate may sign others (RFC 5280 §4.2.1.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A CA, with the number of CAs that may stand below it, if limited.
    Authority(Option<u32>),
    /// No CA.
    Leaf,
}

/// What a certificate says. Names are written `email:`, `dns:`, `ip:` (with its mask in constraints).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The subject, as RFC 4514 writes it but in the order of the certificate.
    pub subject: String,
    /// The subject's DER form.
    pub subject_raw: Vec<u8>,
    /// The issuer's DER form.
    pub issuer_raw: Vec<u8>,
    /// The serial's octets in hexadecimal.
    pub serial: String,
    /// When it begins, in whole seconds.
    pub not_before: OffsetDateTime,
    /// When it ends, in whole seconds.
    pub not_after: OffsetDateTime,
    /// The algorithm and size of its key.
    pub key: String,
    /// The SubjectPublicKeyInfo as DER.
    pub spki: Vec<u8>,
    /// Leaf or CA; none if it has no basicConstraints.
    pub role: Option<Role>,
    /// The subjectAltName.
    pub names: Vec<String>,
    /// The key usage.
    pub key_usage: String,
    /// The extended key usage.
    pub extended_key_usage: Vec<&'static str>,
    /// Name constraints: permitted.
    pub permitted: Vec<String>,
    /// Name constraints: excluded.
    pub excluded: Vec<String>,
    /// The subject key identifier.
    pub subject_key_id: Option<Vec<u8>>,
    /// The authority key identifier.
    pub authority_key_id: Option<Vec<u8>>,
    /// The extensions that are critical, by their object identifiers.
    pub critical: Vec<String>,
}

impl Facts {
    fn read(der: &[u8]) -> Result<Self, PkiError> {
        let unreadable = |error: &dyn fmt::Display| PkiError::Certificate(error.to_string());
        let (rest, parsed) = x509_parser::parse_x509_certificate(der).map_err(|error| unreadable(&error))?;
        if !rest.is_empty() {
            return Err(unreadable(&"octets follow its end"));
        }
        // RFC 5280 §4.1.1.2.
        if parsed.signature_algorithm != parsed.tbs_certificate.signature {
            return Err(unreadable(&"it names two signature algorithms"));
        }
        let mut facts = Self {
            subject: name(parsed.subject()),
            subject_raw: parsed.subject().as_raw().to_vec(),
            issuer_raw: parsed.issuer().as_raw().to_vec(),
            serial: hex(parsed.raw_serial()),
            not_before: parsed.validity().not_before.to_datetime(),
            not_after: parsed.validity().not_after.to_datetime(),
            key: key(parsed.public_key()),
            spki: parsed.public_key().raw.to_vec(),
            role: None,
            names: Vec::new(),
            key_usage: String::new(),
            extended_key_usage: Vec::new(),
            permitted: Vec::new(),
            excluded: Vec::new(),
            subject_key_id: None,
            authority_key_id: None,
            critical: Vec::new(),
        };
        facts.read_extensions(&parsed)?;
        Ok(facts)
    }

    fn read_extensions(&mut self, parsed: &X509Certificate<'_>) -> Result<(), PkiError> {
        for (count, extension) in parsed.extensions().iter().enumerate() {
            // RFC 5280 §4.2.
            if parsed.extensions().iter().take(count).any(|before| before.oid == extension.oid) {
                return Err(PkiError::Certificate(format!("it has the extension {} twice", extension.oid)));
            }
            if extension.critical {
                self.critical.push(extension.oid.to_id_string());
            }
            match extension.parsed_extension() {
                ParsedExtension::ParseError { error } => return Err(PkiError::Certificate(error.to_string())),
                ParsedExtension::BasicConstraints(basic) if basic.ca => {
                    self.role = Some(Role::Authority(basic.path_len_constraint));
                }
                ParsedExtension::BasicConstraints(_) => self.role = Some(Role::Leaf),
                ParsedExtension::SubjectAlternativeName(san) => {
                    self.names = san.general_names.iter().map(general_name).collect();
                }
                ParsedExtension::KeyUsage(usage) => self.key_usage = usage.to_string(),
                ParsedExtension::ExtendedKeyUsage(usage) => self.extended_key_usage = purposes(usage),
                ParsedExtension::NameConstraints(constraints) => {
                    self.permitted = subtrees(constraints.permitted_subtrees.as_deref());
                    self.excluded = subtrees(constraints.excluded_subtrees.as_deref());
                }
                ParsedExtension::SubjectKeyIdentifier(id) => self.subject_key_id = Some(id.0.to_vec()),
                ParsedExtension::AuthorityKeyIdentifier(id) => {
                    self.authority_key_id = id.key_identifier.as_ref().map(|id| id.0.to_vec());
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Tells whether subject and issuer are the same.
    pub fn is_self_issued(&self) -> bool {
        self.subject_raw == self.issuer_raw
    }

    /// Tells whether the name constraints let it, as a CA, certify a server of the name (RFC 5280 §4.2.1.10).
    pub fn permits_host(&self, host: &HostName) -> bool {
        let host = host.as_str();
        self.permits("dns:", |base| match base.strip_prefix('.') {
            Some(below) => is_below(host, below),
            None => base.is_empty() || base.eq_ignore_ascii_case(host) || is_below(host, base),
        })
    }

    /// Tells whether the name constraints let it, as a CA, certify the mailbox, and other CAs below it do so.
    pub fn permits_mailbox(&self, address: &MailAddress) -> bool {
        let domain = address.domain();
        self.permits("email:", |base| match (base.contains('@'), base.strip_prefix('.')) {
            (true, _) => base.eq_ignore_ascii_case(address.as_str()),
            (false, Some(below)) => is_below(domain.as_str(), below),
            (false, None) => base.is_empty() || base.eq_ignore_ascii_case(domain.as_str()),
        })
    }

    /// A kind of name that no permitted subtree names is free.
    fn permits(&self, kind: &str, covers: impl Fn(&str) -> bool) -> bool {
        let bases = |subtrees: &[String]| -> Vec<bool> {
            subtrees.iter().filter_map(|name| name.strip_prefix(kind)).map(&covers).collect()
        };
        let permitted = bases(&self.permitted);
        (permitted.is_empty() || permitted.contains(&true)) && !bases(&self.excluded).contains(&true)
    }

    /// Tells whether this is how postseal writes a twin: self-issued, a CA for leaves only, mailboxes only, no server.
    pub fn is_twin(&self) -> bool {
        self.is_self_issued()
            && self.role == Some(Role::Authority(Some(0)))
            && !self.permitted.is_empty()
            && self.permitted.iter().all(|name| name.starts_with("email:"))
            && self.excluded.iter().any(|name| name == "dns:")
    }
}

/// The text profile, see [`Certificate::profile`].
impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lifetime = self.not_after - self.not_before;
        let role = match self.role {
            None => "not stated".to_owned(),
            Some(Role::Leaf) => "leaf".to_owned(),
            Some(Role::Authority(None)) => "CA".to_owned(),
            Some(Role::Authority(Some(length))) => format!("CA, path length {length}"),
        };
        writeln!(f, "subject: {}", self.subject)?;
        writeln!(f, "key: {}", self.key)?;
        writeln!(f, "lifetime: {} days {} hours", lifetime.whole_days(), lifetime.whole_hours() % 24)?;
        writeln!(f, "role: {role}")?;
        for (what, list) in [
            ("names", self.names.join(", ")),
            ("key usage", self.key_usage.clone()),
            ("extended key usage", self.extended_key_usage.join(", ")),
            ("permitted", self.permitted.join(", ")),
            ("excluded", self.excluded.join(", ")),
            ("critical", self.critical.join(", ")),
        ] {
            if !list.is_empty() {
                writeln!(f, "{what}: {list}")?;
            }
        }
        Ok(())
    }
}

/// Tells whether a name lies below a domain.
fn is_below(name: &str, domain: &str) -> bool {
    let split = name.len().checked_sub(domain.len() + 1).and_then(|at| name.split_at_checked(at));
    split.is_some_and(|(_, end)| end.strip_prefix('.').is_some_and(|end| end.eq_ignore_ascii_case(domain)))
}

fn name(name: &X509Name<'_>) -> String {
    crate::names::shown(&name.to_string())
}

fn key(info: &SubjectPublicKeyInfo<'_>) -> String {
    match info.parsed() {
        Ok(PublicKey::EC(point)) => format!("EC {}", point.key_size()),
        Ok(PublicKey::RSA(key)) => format!("RSA {}", key.key_size()),
        Ok(_) | Err(_) => info.algorithm.algorithm.to_id_string(),
    }
}

fn subtrees(subtrees: Option<&[GeneralSubtree<'_>]>) -> Vec<String> {
    subtrees.unwrap_or_default().iter().map(|subtree| general_name(&subtree.base)).collect()
}

fn general_name(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::RFC822Name(name) => format!("email:{name}"),
        GeneralName::DNSName(name) => format!("dns:{name}"),
        GeneralName::IPAddress(octets) => format!("ip:{}", hex(octets)),
        other => format!("other:{other}"),
    }
}

fn purposes(usage: &ExtendedKeyUsage<'_>) -> Vec<&'static str> {
    let known = [
        (usage.any, "any"),
        (usage.server_auth, "serverAuth"),
        (usage.client_auth, "clientAuth"),
        (usage.code_signing, "codeSigning"),
        (usage.email_protection, "emailProtection"),
        (usage.time_stamping, "timeStamping"),
        (usage.ocsp_signing, "OCSPSigning"),
        (!usage.other.is_empty(), "other"),
    ];
    known.into_iter().filter(|(set, _)| *set).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbage_is_no_certificate() {
        assert!(matches!(Certificate::from_der(vec![0x30, 0x03, 1, 2, 3]), Err(PkiError::Certificate(_))));
        assert!(matches!(Certificate::from_pem("hello"), Err(PkiError::Certificate(_))));
    }

    #[test]
    fn a_certificate_with_an_extension_twice_is_refused() {
        let key = rcgen::KeyPair::generate().unwrap();
        let with = |count| {
            let mut params = rcgen::CertificateParams::default();
            let extension = || rcgen::CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999], vec![5, 0]);
            params.custom_extensions = (0..count).map(|_| extension()).collect();
            Certificate::from_der(params.self_signed(&key).unwrap().der().to_vec()).err()
        };
        let refused = PkiError::Certificate("it has the extension 1.3.6.1.4.1.99999 twice".to_owned());
        assert_eq!((with(1), with(2)), (None, Some(refused)));
    }

    #[test]
    fn a_certificate_that_names_two_signature_algorithms_is_refused() {
        let key = crate::keys::generate(crate::keys::KeyKind::P256).unwrap();
        let serial = crate::names::Serial::from_random([1; 16]);
        let now = time::macros::datetime!(2026-11-24 10:00 UTC);
        let twin = crate::pki::issue::placeholder_twin(key, serial, now).unwrap();
        // ecdsa-with-SHA256, first in what is signed and then beside the signature.
        let sha256 = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
        let at = twin.der().windows(8).rposition(|part| part == sha256).unwrap();
        let mut der = twin.der().to_vec();
        der[at + 7] = 0x03;
        let refused = Certificate::from_der(der).err();
        assert_eq!(refused, Some(PkiError::Certificate("it names two signature algorithms".to_owned())));
    }

    proptest::proptest! {
        #[test]
        fn a_damaged_certificate_is_refused_or_read_without_panic(at in 0..400_usize, with: u8, length in 0..600_usize) {
            let key = crate::keys::generate(crate::keys::KeyKind::P256).unwrap();
            let serial = crate::names::Serial::from_random([1; 16]);
            let now = time::macros::datetime!(2026-11-24 10:00 UTC);
            let twin = crate::pki::issue::placeholder_twin(key, serial, now).unwrap();
            let mut der = twin.der().to_vec();
            der[at] = with;
            der.truncate(length);
            if let Ok(read) = Certificate::from_der(der) {
                let _ = (read.profile(), read.is_signed_by(&twin), read.facts().is_twin());
            }
        }
    }
}
