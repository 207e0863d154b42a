//! Lines of an `index.txt`, as `openssl ca` and easy-rsa keep one for each CA: six fields with tabs between them.

use time::OffsetDateTime;
use x509_parser::oid_registry::Oid;

use super::Certificate;

/// What a certificate is worth, as such a file has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing<'a> {
    /// `V`.
    Valid,
    /// `E`.
    Expired,
    /// `R`, with the time and a reason of RFC 5280 §5.3.1.
    Revoked(OffsetDateTime, &'a str),
}

/// Returns the line of a certificate, its end included.
#[must_use]
pub fn line(certificate: &Certificate, standing: Standing<'_>) -> String {
    let facts = certificate.facts();
    let (letter, revoked) = match standing {
        Standing::Valid => ('V', String::new()),
        Standing::Expired => ('E', String::new()),
        Standing::Revoked(at, reason) => ('R', format!("{},{reason}", time_text(at))),
    };
    let until = time_text(facts.not_after);
    format!("{letter}\t{until}\t{revoked}\t{}\tunknown\t{}\n", facts.serial.to_uppercase(), subject(certificate))
}

/// Writes a time as a certificate does: with two digits of the year up to 2049 (RFC 5280 §4.1.2.5).
fn time_text(at: OffsetDateTime) -> String {
    let year =
        if (1950..2050).contains(&at.year()) { format!("{:02}", at.year() % 100) } else { format!("{:04}", at.year()) };
    format!("{year}{:02}{:02}{:02}{:02}{:02}Z", u8::from(at.month()), at.day(), at.hour(), at.minute(), at.second())
}

/// Writes the subject as OpenSSL's `X509_NAME_oneline` does: what is no printable ASCII as `\xC3`.
fn subject(certificate: &Certificate) -> String {
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate.der()) else { return "/".to_owned() };
    let mut text = String::new();
    for attribute in parsed.subject().iter_attributes() {
        text.push('/');
        text.push_str(&short_name(attribute.attr_type()));
        text.push('=');
        for octet in attribute.attr_value().data {
            match octet {
                b' '..=b'~' => text.push(char::from(*octet)),
                _ => text.push_str(&format!("\\x{octet:02X}")),
            }
        }
    }
    if text.is_empty() { "/".to_owned() } else { text }
}

fn short_name(kind: &Oid<'_>) -> String {
    let text = kind.to_id_string();
    let known = [
        ("2.5.4.3", "CN"),
        ("2.5.4.4", "SN"),
        ("2.5.4.5", "serialNumber"),
        ("2.5.4.6", "C"),
        ("2.5.4.7", "L"),
        ("2.5.4.8", "ST"),
        ("2.5.4.9", "street"),
        ("2.5.4.10", "O"),
        ("2.5.4.11", "OU"),
        ("2.5.4.12", "title"),
        ("2.5.4.42", "GN"),
        ("0.9.2342.19200300.100.1.1", "UID"),
        ("0.9.2342.19200300.100.1.25", "DC"),
        ("1.2.840.113549.1.9.1", "emailAddress"),
    ];
    known.iter().find(|(oid, _)| *oid == text).map_or(text.clone(), |(_, name)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{KeyKind, generate};
    use crate::names::Serial;
    use crate::pki::issue::site_ca;
    use time::macros::datetime;

    #[test]
    fn a_line_is_as_openssl_writes_it() {
        let key = generate(KeyKind::P256).unwrap();
        let hosts = ["mail.example.com".parse().unwrap()];
        let now = datetime!(2045-01-02 03:04:05 UTC);
        let ca = site_ca("Bücher / CA", &hosts, &key, Serial::from_random([0x4a; 16]), now).unwrap();
        let serial = "4A".repeat(16);
        let subject = r"/CN=B\xC3\xBCcher / CA";
        assert_eq!(line(&ca, Standing::Valid), format!("V\t20550102030405Z\t\t{serial}\tunknown\t{subject}\n"));
        let revoked = line(&ca, Standing::Revoked(now, "keyCompromise"));
        assert!(revoked.starts_with("R\t20550102030405Z\t450102030405Z,keyCompromise\t4A"), "{revoked}");
        assert!(line(&ca, Standing::Expired).starts_with("E\t"));
    }
}
