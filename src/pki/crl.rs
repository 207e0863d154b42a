//! What an issuing CA for all clients has revoked (RFC 5280 §5), for servers that read it: Dovecot and nginx do, OpenSMTPD
//! does not. As a certificate, a CRL is read back and compared before anyone sees it.

use std::collections::HashSet;

use rcgen::{CertificateRevocationListParams, Issuer, KeyIdMethod, RevocationReason, RevokedCertParams, SerialNumber};
use time::{Duration, OffsetDateTime};
use x509_parser::extensions::ParsedExtension;
use x509_parser::revocation_list::RevokedCertificate;
use x509_parser::x509::ReasonCode;

use super::issue::{Authority, Witness};
use super::profile::BACKDATED;
use super::{Certificate, PkiError};
use crate::inventory::{CertificateStatus, ClientCertificate, Crl, Inventory, IssuingCa, Reason};
use crate::keys::{PemItem, encode_pem, pem_items};
use crate::names::{Serial, hex};

/// How long a CRL counts. Who heeds CRLs refuses everybody with an older one.
pub const LIFETIME: Duration = Duration::days(30);

/// A certificate that is admitted no longer, though it has not run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its serial.
    pub serial: Serial,
    /// Since when.
    pub at: OffsetDateTime,
    /// Why.
    pub why: Why,
}

/// Why a certificate is on a CRL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It came back with a restored ledger and waits for an administrator. It may leave the list again.
    Held,
    /// It was revoked, or a newer one took its place and the overlap is over.
    Revoked(Reason),
}

impl Why {
    /// Reads a reason code (RFC 5280 §5.3.1); of one that postseal does not use, that it says something is kept.
    fn of_code(code: ReasonCode) -> Self {
        match code {
            ReasonCode::CertificateHold => Self::Held,
            ReasonCode::KeyCompromise => Self::Revoked(Reason::KeyCompromise),
            ReasonCode::CessationOfOperation => Self::Revoked(Reason::CessationOfOperation),
            ReasonCode::Superseded => Self::Revoked(Reason::Superseded),
            _ => Self::Revoked(Reason::Unspecified),
        }
    }

    /// Returns the reason code. The one that says nothing is left out (RFC 5280 §5.3.1).
    fn code(self) -> Option<RevocationReason> {
        match self {
            Self::Held => Some(RevocationReason::CertificateHold),
            Self::Revoked(Reason::CessationOfOperation) => Some(RevocationReason::CessationOfOperation),
            Self::Revoked(Reason::KeyCompromise) => Some(RevocationReason::KeyCompromise),
            Self::Revoked(Reason::Superseded) => Some(RevocationReason::Superseded),
            Self::Revoked(Reason::Unspecified) => None,
        }
    }
}

/// Returns what belongs on an issuing CA's next CRL, sorted by serial; `before` is its newest one. An entry stays until a CRL
/// that was made well after the certificate's own end has had it (RFC 5280 §5).
pub fn entries(inventory: &Inventory, issuer: &Serial, before: Option<&Crl>) -> Vec<Entry> {
    let of = inventory.client_certificates.iter().filter(|certificate| certificate.issuer == Some(*issuer));
    let over =
        |certificate: &&ClientCertificate| before.is_none_or(|crl| certificate.not_after + LIFETIME >= crl.this_update);
    let mut entries: Vec<Entry> = of.filter(over).filter_map(entry).collect();
    entries.sort_by_key(|entry| entry.serial);
    entries
}

fn entry(certificate: &ClientCertificate) -> Option<Entry> {
    let serial = certificate.serial;
    match (certificate.status, certificate.revocation, certificate.successor) {
        (CertificateStatus::Held, ..) => Some(Entry { serial, at: certificate.not_before, why: Why::Held }),
        (CertificateStatus::Revoked, Some(revocation), _) => {
            Some(Entry { serial, at: revocation.at, why: Why::Revoked(revocation.reason) })
        }
        // Its own end is later: without an entry it would be admitted until then.
        (CertificateStatus::Expired, _, Some(successor)) if successor.retires_at < certificate.not_after => {
            Some(Entry { serial, at: successor.retires_at, why: Why::Revoked(Reason::Superseded) })
        }
        _ => None,
    }
}

/// Returns what belongs on the next CRL of an issuing CA whose newest one says `listed`: the entries of what is recorded, and
/// those of certificates that nothing is known of. These were issued and revoked after the backup from which the ledger came back.
pub fn next_entries(inventory: &Inventory, ca: &IssuingCa, listed: &[Entry]) -> Vec<Entry> {
    let known: HashSet<Serial> = inventory.client_certificates.iter().map(|certificate| certificate.serial).collect();
    let mut all = entries(inventory, &ca.serial, ca.crl.as_ref());
    all.extend(listed.iter().filter(|entry| entry.why != Why::Held && !known.contains(&entry.serial)));
    all.sort_by_key(|entry| entry.serial);
    all
}

/// Tells whether a CRL is to be made for a live issuing CA: there is none, half of the newest one's life is over, or it lacks or
/// holds what it should not; `listed` is what it says.
pub fn is_due(ca: &IssuingCa, inventory: &Inventory, listed: &[Entry], now: OffsetDateTime) -> bool {
    let Some(crl) = &ca.crl else { return true };
    let half = crl.this_update + (crl.next_update - crl.this_update) / 2;
    let wanted = next_entries(inventory, ca, listed);
    now >= half || !wanted.iter().map(|entry| entry.serial).eq(listed.iter().map(|entry| entry.serial))
}

/// Makes a CRL with the number, for [`LIFETIME`] or as long as the CA lives, whichever is less; returns it with its PEM form.
///
/// # Errors
/// [`PkiError::AuthorityEnded`]; [`PkiError::Unexpected`] if it was not written as asked.
pub fn sign(
    entries: &[Entry],
    number: u32,
    issuing: &Authority<'_>,
    now: OffsetDateTime,
) -> Result<(Crl, String), PkiError> {
    let now = now - Duration::nanoseconds(i64::from(now.nanosecond()));
    sign_until(entries, number, issuing, now, now + LIFETIME)
}

/// Makes the one CRL that the issuing CA of a single certificate ever has, for its key is about to be wiped: nothing is on it, and
/// it lasts as long as the CA. Servers that heed CRLs want one of each CA.
///
/// # Errors
/// As [`sign`].
pub fn sign_empty(issuing: &Authority<'_>, now: OffsetDateTime) -> Result<(Crl, String), PkiError> {
    let now = now - Duration::nanoseconds(i64::from(now.nanosecond()));
    sign_until(&[], 1, issuing, now, issuing.certificate().facts().not_after)
}

fn sign_until(
    entries: &[Entry],
    number: u32,
    issuing: &Authority<'_>,
    now: OffsetDateTime,
    until: OffsetDateTime,
) -> Result<(Crl, String), PkiError> {
    let facts = issuing.certificate().facts();
    if facts.not_after <= now {
        return Err(PkiError::AuthorityEnded(facts.not_after));
    }
    // For servers whose clock is slow; the CA itself begins no later.
    let this_update = (now - BACKDATED).max(facts.not_before);
    let crl = Crl { number, this_update, next_update: until.min(facts.not_after) };
    let params = CertificateRevocationListParams {
        this_update,
        next_update: crl.next_update,
        crl_number: SerialNumber::from_slice(&number_octets(number)),
        issuing_distribution_point: None,
        revoked_certs: entries.iter().map(revoked).collect(),
        // As the CA's certificate has it, however it was drawn from the key: with another one OpenSSL finds no CRL at all.
        key_identifier_method: KeyIdMethod::PreSpecified(facts.subject_key_id.clone().unwrap_or_default()),
    };
    let witness = Witness::new(issuing.key());
    let issuer = Issuer::from_ca_cert_der(&issuing.certificate().der().into(), &witness)?;
    let der = params.signed_by(&issuer).map_err(|error| witness.why(error))?.der().to_vec();
    compare(&der, entries, &crl, issuing.certificate(), &witness)?;
    Ok((crl, encode_pem("X509 CRL", &der)))
}

fn revoked(entry: &Entry) -> RevokedCertParams {
    RevokedCertParams {
        serial_number: SerialNumber::from_slice(entry.serial.octets()),
        revocation_time: entry.at,
        reason_code: entry.why.code(),
        invalidity_date: None,
    }
}

/// The octets of a positive number, in the fewest.
fn number_octets(number: u32) -> Vec<u8> {
    let octets = number.to_be_bytes().into_iter().skip_while(|octet| *octet == 0);
    // A first bit that is set would make it negative.
    let octets: Vec<u8> = octets.collect();
    if octets.first().is_some_and(|first| *first >= 0x80) { [&[0], octets.as_slice()].concat() } else { octets }
}

/// Compares a new CRL with what was asked for and with what the CA's key signed.
fn compare(der: &[u8], entries: &[Entry], crl: &Crl, ca: &Certificate, witness: &Witness<'_>) -> Result<(), PkiError> {
    let seen = Seen::read(der)?;
    // A CRL holds whole seconds.
    let written: Vec<Entry> =
        entries.iter().map(|entry| Entry { at: entry.at.truncate_to_second(), ..*entry }).collect();
    let differs = [
        (seen.issuer_raw != ca.facts().subject_raw, "the CRL's issuer is not the CA's subject, octet for octet"),
        (seen.authority_key_id != ca.facts().subject_key_id, "the CRL has the key identifier of another authority"),
        (seen.authority_key_id.is_none(), "the CRL has no authority key identifier"),
        (seen.number != Some(crl.number), "the CRL has another number"),
        (seen.next_update != Some(crl.next_update), "the CRL ends at another time"),
        (!seen.entries.iter().eq(written.iter()), "other entries are on the CRL"),
        (!witness.signed(der), "the CRL has other octets than were signed"),
    ];
    match differs.into_iter().find(|(differs, _)| *differs) {
        Some((_, what)) => Err(PkiError::Unexpected { subject: ca.facts().subject.clone(), what }),
        None => Ok(()),
    }
}

fn read_entry(revoked: &RevokedCertificate<'_>) -> Result<Entry, PkiError> {
    let serial = hex(revoked.raw_serial()).parse();
    Ok(Entry {
        serial: serial.map_err(|error: crate::names::NameError| PkiError::Certificate(error.to_string()))?,
        at: revoked.revocation_date.to_datetime(),
        why: revoked.reason_code().map_or(Why::Revoked(Reason::Unspecified), |(_, code)| Why::of_code(code)),
    })
}

fn first_crl(text: &str) -> Result<Vec<u8>, PkiError> {
    let crl = pem_items(text.as_bytes())?.into_iter().find_map(|item| match item {
        PemItem::Crl(der) => Some(der),
        _ => None,
    });
    crl.ok_or_else(|| PkiError::Certificate("the PEM text has no CRL".to_owned()))
}

/// What a CRL says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The issuer's DER form.
    pub issuer_raw: Vec<u8>,
    /// Which key signed it.
    pub authority_key_id: Option<Vec<u8>>,
    /// Its number, if that is one of postseal's.
    pub number: Option<u32>,
    /// When it was made.
    pub this_update: Option<OffsetDateTime>,
    /// When those who heed it refuse everybody.
    pub next_update: Option<OffsetDateTime>,
    /// What is on it, in its order.
    pub entries: Vec<Entry>,
}

impl Seen {
    /// Returns what the ledger records of it; none if it lacks a number or an end.
    pub fn recorded(&self) -> Option<Crl> {
        Some(Crl { number: self.number?, this_update: self.this_update?, next_update: self.next_update? })
    }

    /// Reads the first CRL of a PEM text, if the key of an issuing CA signed it, whose certificate or twin is given.
    pub fn signed_by(text: &str, issuer: &Certificate) -> Option<Self> {
        let der = first_crl(text).ok()?;
        let seen = Self::read(&der).ok()?;
        let (_, crl) = x509_parser::parse_x509_crl(&der).ok()?;
        let (_, by) = x509_parser::parse_x509_certificate(issuer.der()).ok()?;
        let is_of = seen.issuer_raw == issuer.facts().subject_raw && crl.verify_signature(by.public_key()).is_ok();
        is_of.then_some(seen)
    }

    /// Reads the first CRL of a PEM text.
    ///
    /// # Errors
    /// [`PkiError::Key`] if the text is no PEM, [`PkiError::Certificate`] if it has no CRL that can be read.
    pub fn from_pem(text: &str) -> Result<Self, PkiError> {
        Self::read(&first_crl(text)?)
    }

    fn read(der: &[u8]) -> Result<Self, PkiError> {
        let (_, parsed) = x509_parser::parse_x509_crl(der).map_err(|error| PkiError::Certificate(error.to_string()))?;
        let key_id = parsed.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0.to_vec()),
            _ => None,
        });
        let entries: Result<Vec<Entry>, _> = parsed.iter_revoked_certificates().map(read_entry).collect();
        Ok(Self {
            issuer_raw: parsed.issuer().as_raw().to_vec(),
            authority_key_id: key_id,
            number: parsed.crl_number().and_then(|number| u32::try_from(number).ok()),
            this_update: Some(parsed.last_update().to_datetime()),
            next_update: parsed.next_update().map(|time| time.to_datetime()),
            entries: entries?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::{Revocation, Successor};
    use crate::keys::{KeyKind, PrivateKey, generate};
    use crate::names::Digest;
    use crate::pki::issue::{self, site_ca};
    use crate::pki::profile::Scope;
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-11-24 10:00:00.5 UTC);

    fn serial(n: u8) -> Serial {
        Serial::from_random([n; 16])
    }

    fn certificate(n: u8, status: CertificateStatus) -> ClientCertificate {
        ClientCertificate {
            address: "alice@example.com".parse().unwrap(),
            device: "phone".parse().unwrap(),
            serial: serial(n),
            fingerprint: Digest::of(&[n]),
            status,
            not_before: NOW - Duration::days(1),
            not_after: NOW + Duration::days(100),
            successor: None,
            issuer: Some(serial(1)),
            revocation: None,
            handed_over: None,
            theirs: false,
        }
    }

    fn revoked(n: u8, reason: Reason) -> ClientCertificate {
        let revocation = Some(Revocation { at: NOW, reason });
        ClientCertificate { revocation, ..certificate(n, CertificateStatus::Revoked) }
    }

    fn inventory(client_certificates: Vec<ClientCertificate>) -> Inventory {
        Inventory { client_certificates, ..Inventory::default() }
    }

    fn issuing(key: &PrivateKey) -> Certificate {
        let site_key = generate(KeyKind::P256).unwrap();
        let ca = site_ca("CA", &["mail.example.com".parse().unwrap()], &site_key, serial(9), NOW).unwrap();
        let site = Authority::new(&ca, &site_key).unwrap();
        let domains = ["example.com".parse().unwrap()];
        issue::issuing_ca(Scope::Domains(&domains), key, (serial(1), serial(2)), &site, NOW).unwrap().issuing
    }

    #[test]
    fn whatever_is_admitted_no_longer_and_has_not_run_out_is_listed() {
        let superseded = |retires_at| ClientCertificate {
            successor: Some(Successor { serial: serial(99), retires_at }),
            ..certificate(15, CertificateStatus::Expired)
        };
        let late = NOW + Duration::days(200);
        let elsewhere = ClientCertificate { issuer: Some(serial(2)), ..revoked(20, Reason::KeyCompromise) };
        let pinned = ClientCertificate { issuer: None, ..revoked(21, Reason::KeyCompromise) };
        let all = inventory(vec![
            revoked(14, Reason::KeyCompromise),
            certificate(11, CertificateStatus::Live),
            certificate(12, CertificateStatus::Held),
            certificate(13, CertificateStatus::Expired),
            superseded(NOW),
            ClientCertificate { serial: serial(16), ..superseded(late) },
            elsewhere,
            pinned,
        ]);
        let found: Vec<_> = entries(&all, &serial(1), None).iter().map(|entry| (entry.serial, entry.why)).collect();
        let expected = [
            (serial(12), Why::Held),
            (serial(14), Why::Revoked(Reason::KeyCompromise)),
            (serial(15), Why::Revoked(Reason::Superseded)),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn an_entry_stays_until_a_crl_made_after_the_certificate_s_end_has_had_it() {
        let all = inventory(vec![revoked(14, Reason::Unspecified)]);
        let end = NOW + Duration::days(100);
        let before = |made| Crl { number: 7, this_update: made, next_update: made + LIFETIME };
        let listed = |made| entries(&all, &serial(1), Some(&before(made))).len();
        assert_eq!((listed(NOW), listed(end), listed(end + Duration::days(30))), (1, 1, 1));
        assert_eq!(listed(end + Duration::days(31)), 0);
    }

    #[test]
    fn a_crl_is_due_when_half_of_its_life_is_over_or_when_it_says_something_else() {
        let all = inventory(vec![revoked(14, Reason::Unspecified)]);
        let crl = Some(Crl { number: 7, this_update: NOW, next_update: NOW + LIFETIME });
        let ca = IssuingCa {
            serial: serial(1),
            status: CertificateStatus::Live,
            not_after: NOW + Duration::days(3000),
            successor: None,
            crl,
        };
        let entry = |n: u8, why| Entry { serial: serial(n), at: NOW, why };
        let (listed, foreign) = (entry(14, Why::Revoked(Reason::Unspecified)), entry(77, Why::Held));
        let due = |listed: &[Entry], days| is_due(&ca, &all, listed, NOW + Duration::days(days));
        assert!(!due(&[listed], 14) && due(&[listed], 15));
        assert!(due(&[], 0) && due(&[listed, foreign], 0));
        assert!(is_due(&IssuingCa { crl: None, ..ca.clone() }, &all, &[listed], NOW));
    }

    #[test]
    fn what_nothing_is_known_of_stays_on_the_list() {
        let all = inventory(vec![revoked(14, Reason::Unspecified)]);
        let crl = Some(Crl { number: 7, this_update: NOW, next_update: NOW + LIFETIME });
        let (status, not_after) = (CertificateStatus::Live, NOW + Duration::days(3000));
        let ca = IssuingCa { serial: serial(1), status, not_after, successor: None, crl };
        let foreign = Entry { serial: serial(3), at: NOW, why: Why::Revoked(Reason::KeyCompromise) };
        let next = next_entries(&all, &ca, &[foreign]);
        assert_eq!(next.first(), Some(&foreign));
        assert!(!is_due(&ca, &all, &next, NOW));
    }

    #[test]
    fn a_crl_reads_back_as_it_was_asked_for() {
        for kind in [KeyKind::P256, KeyKind::Rsa2048] {
            let key = generate(kind).unwrap();
            let ca = issuing(&key);
            let authority = Authority::new(&ca, &key).unwrap();
            let all = inventory(vec![revoked(0x7f, Reason::KeyCompromise), revoked(0x40, Reason::Unspecified)]);
            for number in [1, 127, 128, 255, 256, 0x8000_0000, u32::MAX] {
                let (crl, pem) = sign(&entries(&all, &serial(1), None), number, &authority, NOW).unwrap();
                let seen = Seen::from_pem(&pem).unwrap();
                assert_eq!((seen.number, seen.next_update), (Some(number), Some(crl.next_update)));
                let serials: Vec<Serial> = seen.entries.iter().map(|entry| entry.serial).collect();
                assert_eq!(serials, [serial(0x40), serial(0x7f)]);
                assert_eq!(seen.entries[1].why, Why::Revoked(Reason::KeyCompromise));
                assert_eq!(seen.authority_key_id, ca.facts().subject_key_id);
                assert_eq!(crl.next_update - crl.this_update, BACKDATED + LIFETIME);
            }
        }
    }

    #[test]
    fn an_empty_crl_lasts_as_long_as_its_ca_and_none_lasts_longer() {
        let key = generate(KeyKind::P256).unwrap();
        let ca = issuing(&key);
        let authority = Authority::new(&ca, &key).unwrap();
        let end = ca.facts().not_after;
        assert_eq!(sign_empty(&authority, NOW).unwrap().0.next_update, end);
        assert_eq!(sign(&[], 1, &authority, end - Duration::days(3)).unwrap().0.next_update, end);
        assert_eq!(sign(&[], 1, &authority, end).err(), Some(PkiError::AuthorityEnded(end)));
    }

    #[test]
    fn garbage_is_no_crl() {
        let key = generate(KeyKind::P256).unwrap();
        for text in ["", "hello", &issuing(&key).pem(), &encode_pem("X509 CRL", &[0x30, 0])] {
            assert!(Seen::from_pem(text).is_err(), "{text}");
        }
    }
}
