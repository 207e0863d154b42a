//! The mail to users before their certificates end: whom to tell when, and the message (RFC 5322, RFC 2045).
//!
//! Header fields are made here, of types that hold neither line ends nor anything but ASCII; a template writes the body alone.

use std::collections::BTreeSet;

use time::OffsetDateTime;

use crate::inventory::{ClientCertificate, Inventory};
use crate::names::Serial;
use crate::render::{ExpiryMail, Letters, RenderError};
use crate::site::{Notify, Site};

/// A mail that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice<'a> {
    /// Of which certificate it tells.
    pub certificate: &'a ClientCertificate,
    /// The steps, in days before the end, that are done once it is sent; the nearest is the last.
    pub steps: Vec<u16>,
}

/// Returns the mails that are due and were not sent: one for each certificate, however many steps were missed. Who has a newer
/// certificate for the device gets none, and neither does one whose certificate lasted no longer than the step.
pub fn due<'a>(
    site: &Site,
    inventory: &'a Inventory,
    sent: &BTreeSet<(Serial, u16)>,
    now: OffsetDateTime,
) -> Vec<Notice<'a>> {
    let Some(notify) = &site.notify else { return Vec::new() };
    let running = inventory.client_certificates.iter().filter(|one| {
        one.is_live() && one.is_current() && one.not_after > now && site.has_domain(&one.address.domain())
    });
    let notice = |certificate: &'a ClientCertificate| {
        let steps: Vec<u16> = notify.before.iter().copied().filter(|days| has_come(certificate, *days, now)).collect();
        let nearest = *steps.last()?;
        (!sent.contains(&(certificate.serial, nearest))).then_some(Notice { certificate, steps })
    };
    running.filter_map(notice).collect()
}

fn has_come(certificate: &ClientCertificate, days: u16, now: OffsetDateTime) -> bool {
    let before = time::Duration::days(days.into());
    certificate.not_after - now <= before && certificate.not_after - certificate.not_before > before
}

/// Writes the message, with the line ends of this system as sendmail(8) takes them.
pub fn message(
    notify: &Notify,
    certificate: &ClientCertificate,
    letters: &Letters,
    now: OffsetDateTime,
) -> Result<String, RenderError> {
    let ClientCertificate { address, device, serial, not_after, .. } = certificate;
    let body = letters.expiry(&ExpiryMail {
        address: address.to_string(),
        device: device.to_string(),
        day: not_after.date().to_string(),
        left: left(*not_after, now),
        from: notify.from.to_string(),
    })?;
    let fields = [
        ("Date", date(now)),
        ("From", notify.from.to_string()),
        ("To", address.to_string()),
        ("Subject", format!("Your certificate for {device} ends on {}", not_after.date())),
        ("Message-ID", format!("<{serial}.{}@{}>", now.unix_timestamp(), notify.from.domain())),
        // RFC 3834: no vacation program answers.
        ("Auto-Submitted", "auto-generated".to_owned()),
        ("MIME-Version", "1.0".to_owned()),
        ("Content-Type", "text/plain; charset=utf-8".to_owned()),
        ("Content-Transfer-Encoding", "quoted-printable".to_owned()),
    ];
    let mut message = String::new();
    for (name, value) in &fields {
        message.push_str(&format!("{name}: {value}\n"));
    }
    message.push('\n');
    message.push_str(&quoted_printable(&body));
    Ok(message)
}

/// Returns how long it is until then, in the words of the mail.
fn left(at: OffsetDateTime, now: OffsetDateTime) -> String {
    match (at - now).whole_days() {
        0 => "less than a day".to_owned(),
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    }
}

/// RFC 5322 §3.3.
fn date(at: OffsetDateTime) -> String {
    let at = at.to_offset(time::UtcOffset::UTC);
    let (weekday, month) = (at.weekday().to_string(), at.month().to_string());
    let short = |name: &str| name.get(..3).unwrap_or_default().to_owned();
    format!(
        "{}, {:02} {} {:04} {:02}:{:02}:{:02} +0000",
        short(&weekday),
        at.day(),
        short(&month),
        at.year(),
        at.hour(),
        at.minute(),
        at.second()
    )
}

/// RFC 2045 §6.7. What could be taken for the end of a message or the begin of another is encoded too.
fn quoted_printable(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let (mut length, mut octets) = (0, line.bytes().enumerate().peekable());
        while let Some((at, octet)) = octets.next() {
            let is_last = octets.peek().is_none();
            let is_plain = (octet == b' ' && !is_last) || (octet.is_ascii_graphic() && octet != b'=');
            let encoded = || format!("={octet:02X}");
            let mut written = if is_plain { char::from(octet).to_string() } else { encoded() };
            // 76 with the sign of a soft line end.
            if length + written.len() > if is_last { 76 } else { 75 } {
                out.push_str("=\n");
                length = 0;
            }
            if length == 0 && (octet == b'.' || line.as_bytes().get(at..).unwrap_or_default().starts_with(b"From ")) {
                written = encoded();
            }
            length += written.len();
            out.push_str(&written);
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::{CertificateStatus, Successor};
    use crate::names::Digest;
    use proptest::prelude::*;
    use time::Duration;
    use time::macros::datetime;

    const NONE: [u16; 0] = [];
    const END: OffsetDateTime = datetime!(2027-11-24 12:00 UTC);

    fn certificate(n: u8) -> ClientCertificate {
        ClientCertificate {
            address: "alice@example.com".parse().unwrap(),
            device: "phone".parse().unwrap(),
            serial: Serial::from_random([n; 16]),
            fingerprint: Digest::of(&[n]),
            status: CertificateStatus::Live,
            not_before: END - Duration::days(365),
            not_after: END,
            successor: None,
            issuer: None,
            revocation: None,
            handed_over: None,
            theirs: false,
        }
    }

    fn site(before: &str) -> Site {
        let text = format!(
            "notify.before = {before}\n[[host]]\nname = \"mail.example.com\"\nplatform = \"debian\"\n[[domain]]\nname = \"example.com\"\n"
        );
        let source = crate::diag::Source { path: "postseal.toml".into(), text };
        crate::site::load(&[std::sync::Arc::new(source)]).unwrap().0
    }

    fn steps(certificate: ClientCertificate, sent: &[u16], now: OffsetDateTime) -> Vec<u16> {
        let sent = sent.iter().map(|days| (certificate.serial, *days)).collect();
        let inventory = Inventory { client_certificates: vec![certificate], ..Inventory::default() };
        due(&site("[7, 30]"), &inventory, &sent, now).into_iter().flat_map(|notice| notice.steps).collect()
    }

    #[test]
    fn each_step_is_due_once_and_missed_ones_are_one_mail() {
        let second = Duration::seconds(1);
        let at = |days: i64| END - Duration::days(days);
        assert_eq!(steps(certificate(1), &[], at(30) - second), NONE);
        assert_eq!(steps(certificate(1), &[], at(30)), [30]);
        assert_eq!(steps(certificate(1), &[30], at(30)), NONE);
        assert_eq!(steps(certificate(1), &[30], at(7) - second), NONE);
        assert_eq!(steps(certificate(1), &[30], at(7)), [30, 7]);
        assert_eq!(steps(certificate(1), &[], at(1)), [30, 7]);
        assert_eq!(steps(certificate(1), &[30, 7], at(1)), NONE);
        assert_eq!(steps(certificate(1), &[], END), NONE);
    }

    #[test]
    fn nobody_is_told_of_what_was_renewed_revoked_held_or_short_from_the_beginning() {
        let now = END - Duration::days(3);
        let successor = Some(Successor { serial: Serial::from_random([9; 16]), retires_at: END });
        assert_eq!(steps(ClientCertificate { successor, ..certificate(1) }, &[], now), NONE);
        for status in [CertificateStatus::Revoked, CertificateStatus::Held, CertificateStatus::Expired] {
            assert_eq!(steps(ClientCertificate { status, ..certificate(1) }, &[], now), NONE);
        }
        let short = ClientCertificate { not_before: END - Duration::days(20), ..certificate(1) };
        assert_eq!(steps(short, &[], now), [7]);
        let foreign = ClientCertificate { address: "alice@example.net".parse().unwrap(), ..certificate(1) };
        assert_eq!(steps(foreign, &[], now), NONE);
    }

    #[test]
    fn without_a_setting_nobody_is_told() {
        let inventory = Inventory { client_certificates: vec![certificate(1)], ..Inventory::default() };
        assert!(due(&site("[]"), &inventory, &BTreeSet::new(), END - Duration::days(3)).is_empty());
    }

    #[test]
    fn the_date_is_as_rfc_5322_has_it() {
        assert_eq!(date(datetime!(2026-11-04 09:05:07 UTC)), "Wed, 04 Nov 2026 09:05:07 +0000");
    }

    /// Reads quoted-printable as RFC 2045 says, and nothing else.
    fn read(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        for line in text.lines() {
            assert!(line.len() <= 76 && line.bytes().all(|octet| (b' '..=b'~').contains(&octet)), "{line:?}");
            assert!(!line.ends_with(' ') && !line.starts_with('.') && !line.starts_with("From "), "{line:?}");
            let mut rest = line;
            let mut soft = false;
            while let Some((before, behind)) = rest.split_once('=') {
                out.extend_from_slice(before.as_bytes());
                soft = behind.is_empty();
                if !soft {
                    out.push(u8::from_str_radix(&behind[..2], 16).unwrap());
                }
                rest = behind.get(2..).unwrap_or_default();
            }
            out.extend_from_slice(rest.as_bytes());
            if !soft {
                out.push(b'\n');
            }
        }
        out
    }

    proptest! {
        #[test]
        fn quoted_printable_reads_back_in_lines_of_76(
            lines in prop::collection::vec("[a-z.=ä€😀 ]{0,200}|From [a-z]*|\\.", 0..5)
        ) {
            let text = lines.iter().fold(String::new(), |text, line| text + line + "\n");
            prop_assert_eq!(read(&quoted_printable(&text)), text.into_bytes());
        }
    }
}
