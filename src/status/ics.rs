//! What ends, as a calendar (RFC 5545): one event for the whole day, with a reminder before. Equal ledgers give equal bytes, so
//! that a calendar that is fetched again shows nothing new.

use time::{Date, OffsetDateTime};

use super::{Expiry, Kind, Survey};

/// Returns the calendar, sorted by day. It names users: it is for the administrator alone.
pub fn write(survey: &Survey) -> String {
    let mut calendar = Calendar(String::new());
    calendar.line("BEGIN:VCALENDAR");
    calendar.line("VERSION:2.0");
    calendar.line("PRODID:-//postseal//status//EN");
    calendar.line("CALSCALE:GREGORIAN");
    // `tick` makes a CRL anew long before it ends.
    let mut expiries: Vec<&Expiry> = survey.expiries.iter().filter(|expiry| expiry.kind != Kind::Crl).collect();
    expiries.sort_by_key(|expiry| (expiry.at, expiry.kind, &expiry.id));
    for expiry in expiries {
        calendar.event(expiry, survey.limits.warn.whole_days());
    }
    calendar.line("END:VCALENDAR");
    calendar.0
}

struct Calendar(String);

impl Calendar {
    fn event(&mut self, expiry: &Expiry, days_before: i64) {
        let summary = text(&format!("{}: {} ends", expiry.subject, expiry.what));
        self.line("BEGIN:VEVENT");
        self.line(&format!("UID:{}.{}@postseal.invalid", expiry.id, expiry.kind.as_str().replace('_', "-")));
        self.line(&format!("DTSTAMP:{}", stamp(expiry.since)));
        self.line(&format!("DTSTART;VALUE=DATE:{}", day(expiry.at.date())));
        self.line(&format!("SUMMARY:{summary}"));
        if let Some(mend) = &expiry.mend {
            self.line(&format!("DESCRIPTION:{}", text(mend)));
        }
        self.line("TRANSP:TRANSPARENT");
        self.line("BEGIN:VALARM");
        self.line("ACTION:DISPLAY");
        self.line(&format!("DESCRIPTION:{summary}"));
        self.line(&format!("TRIGGER:-P{days_before}D"));
        self.line("END:VALARM");
        self.line("END:VEVENT");
    }

    /// Writes a content line, folded so that none has more than 75 octets and no character is split (RFC 5545 §3.1).
    fn line(&mut self, line: &str) {
        let mut length = 0;
        for c in line.chars() {
            if length + c.len_utf8() > 75 {
                self.0.push_str("\r\n ");
                length = 1;
            }
            self.0.push(c);
            length += c.len_utf8();
        }
        self.0.push_str("\r\n");
    }
}

/// Escapes a value of the type TEXT (RFC 5545 §3.3.11), which holds no control character.
fn text(value: &str) -> String {
    let mut escaped = String::new();
    for c in value.chars() {
        match c {
            '\\' | ';' | ',' => escaped.extend(['\\', c]),
            '\n' => escaped.push_str("\\n"),
            _ if c.is_control() => {}
            _ => escaped.push(c),
        }
    }
    escaped
}

fn day(date: Date) -> String {
    format!("{:04}{:02}{:02}", date.year(), u8::from(date.month()), date.day())
}

fn stamp(at: OffsetDateTime) -> String {
    format!("{}T{:02}{:02}{:02}Z", day(at.date()), at.hour(), at.minute(), at.second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_something_in_a_calendar_is_escaped() {
        assert_eq!(text("a;b,c\\d\ne\r\u{1b}"), "a\\;b\\,c\\\\d\\ne");
    }

    #[test]
    fn a_long_line_is_folded_between_characters_at_75_octets() {
        let mut calendar = Calendar(String::new());
        let long = format!("SUMMARY:{}", "ä€😀x".repeat(40));
        calendar.line(&long);
        assert!(calendar.0.split("\r\n").all(|line| line.len() <= 75), "{}", calendar.0);
        assert_eq!(calendar.0.replace("\r\n ", ""), format!("{long}\r\n"));
        assert!(calendar.0.split("\r\n").filter(|line| line.len() >= 72).count() > 4, "{}", calendar.0);
    }
}
