//! Reports of other mail servers about a domain: DMARC aggregate reports (RFC 7489 appendix C, RFC 9990) and TLS reports
//! (RFC 8460), out of a mail or as they are, plain, gzip or zip.
//!
//! Anybody can send one, so that each step is bounded before it begins: a mail's size, parts and depth, what is unpacked, and
//! what a parser is given. What is read is checked into the types of [`crate::names`]; texts of the sender's that stay are made
//! visible.

mod dmarc;
mod mail;
mod tls;
mod unpack;

use time::{Duration, OffsetDateTime};

use crate::names::{Digest, DomainName, visible_within};
use crate::policy::evidence::DmarcSource;

/// The most octets of a file or mail that are read.
pub const MAIL_LIMIT: usize = 32 << 20;

/// The most octets that are unpacked of a file or mail, all its parts together.
pub const UNPACKED_LIMIT: usize = 64 << 20;

/// How long after its end a report still counts, in days; then it is forgotten.
pub const KEPT_DAYS: u16 = 400;

/// The longest span that a report may be about. One day is usual (RFC 9990, RFC 8460 §4.1), a week has been seen.
const LONGEST_SPAN: Duration = Duration::days(32);

/// How far the clock of a reporter may be ahead.
const CLOCK_SKEW: Duration = Duration::DAY;

/// More messages or sessions than any domain has: a bound so that sums of sums stay within 64 bits.
const MOST_COUNTED: u64 = 1_000_000_000_000;

/// The longest identifier that a report may have, in octets.
const LONGEST_ID: usize = 255;

/// Why nothing was read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// It is something else, as the mail of a person.
    #[error("there is no report in it")]
    NoReport,
    /// It is, or grows, larger than what is read.
    #[error("{0}")]
    TooLarge(String),
    /// What should be a report is none that can be believed.
    #[error("{0}")]
    Broken(String),
}

/// What one reporter tells of one domain, for one span of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Who it is from, by their own word, made visible.
    pub reporter: String,
    /// The number that the reporter gave it, made visible.
    pub id: String,
    /// The domain whose policy it is about: one of the site's, or a name below it.
    pub domain: DomainName,
    /// The begin of the span.
    pub begins: OffsetDateTime,
    /// The end of the span.
    pub ends: OffsetDateTime,
    /// What it tells.
    pub rows: Rows,
}

/// What a report tells, sorted, each thing once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rows {
    /// Who sent mail under the domain's name.
    Dmarc(Vec<DmarcSource>),
    /// How connections to the domain's mail servers went.
    Tls(Vec<TlsSessions>),
}

/// Sessions with one result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSessions {
    /// Why they failed (RFC 8460 §4.3); none if they succeeded.
    pub result: Option<&'static str>,
    /// The mail server, if it is told.
    pub mx: Option<DomainName>,
    /// How many.
    pub sessions: u64,
}

impl Report {
    /// Returns the word for what kind it is.
    pub fn kind(&self) -> &'static str {
        match self.rows {
            Rows::Dmarc(_) => "dmarc",
            Rows::Tls(_) => "tls",
        }
    }

    /// Returns how many rows it has.
    pub fn len(&self) -> usize {
        match &self.rows {
            Rows::Dmarc(sources) => sources.len(),
            Rows::Tls(sessions) => sessions.len(),
        }
    }

    /// Tells whether it has no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns a digest of all that it tells, by which a second reading is known from another report of the same number.
    pub fn digest(&self) -> Digest {
        let mut text = format!("{} {} {}", self.domain, self.begins.unix_timestamp(), self.ends.unix_timestamp());
        match &self.rows {
            Rows::Dmarc(sources) => sources.iter().for_each(|source| {
                let DmarcSource { address, from, messages, dkim, spf, passed } = source;
                text.push_str(&format!("\n{address} {from} {messages} {dkim} {spf} {passed}"));
            }),
            Rows::Tls(sessions) => sessions.iter().for_each(|TlsSessions { result, mx, sessions }| {
                let mx = mx.as_ref().map_or("-", DomainName::as_str);
                text.push_str(&format!("\n{} {mx} {sessions}", result.unwrap_or("-")));
            }),
        }
        Digest::of(text.as_bytes())
    }

    /// Judges whether its span can be true. A forged report must not count for longer than others do.
    ///
    /// # Errors
    /// The span ends before it begins, in the future, too long ago to count, or lasts longer than 32 days.
    pub fn check_span(&self, now: OffsetDateTime) -> Result<(), ReportError> {
        let broken = |what: &str| Err(ReportError::Broken(format!("its span {what}")));
        if self.ends < self.begins {
            broken("ends before it begins")
        } else if self.ends > now + CLOCK_SKEW {
            broken("ends in the future")
        } else if self.ends - self.begins > LONGEST_SPAN {
            broken(&format!("is longer than {} days", LONGEST_SPAN.whole_days()))
        } else if self.ends <= oldest(now) {
            broken(&format!("ended more than {KEPT_DAYS} days ago"))
        } else {
            Ok(())
        }
    }
}

/// Returns the time before which no report counts.
pub fn oldest(now: OffsetDateTime) -> OffsetDateTime {
    now - Duration::days(KEPT_DAYS.into())
}

/// Reads the reports of a file or mail.
///
/// # Errors
/// There is none in it, or one of those in it is broken; then none of them counts.
pub fn read(bytes: &[u8]) -> Result<Vec<Report>, ReportError> {
    if bytes.len() > MAIL_LIMIT {
        return Err(too_large("it", MAIL_LIMIT));
    }
    let mut found = Found { room: UNPACKED_LIMIT, reports: Vec::new() };
    if unpack::is_packed_or_plain(bytes) {
        found.take(bytes)?;
    } else {
        mail::read(bytes, &mut found)?;
    }
    if found.reports.is_empty() { Err(ReportError::NoReport) } else { Ok(found.reports) }
}

/// What was found so far, and how much more may be unpacked.
struct Found {
    room: usize,
    reports: Vec<Report>,
}

impl Found {
    /// Reads a file, or what is attached to a mail; what is no report is left alone.
    fn take(&mut self, bytes: &[u8]) -> Result<(), ReportError> {
        unpack::unpack(bytes, &mut self.room, &mut |content| {
            match unpack::Plain::of(content) {
                Some(unpack::Plain::Xml(text)) => self.reports.extend(dmarc::read(text)?),
                Some(unpack::Plain::Json(text)) => self.reports.extend(tls::read(text)?),
                None => {}
            }
            Ok(())
        })
    }
}

fn too_large(what: &str, most: usize) -> ReportError {
    ReportError::TooLarge(if most >= 1 << 20 {
        format!("{what} is larger than {} MiB", most >> 20)
    } else if most >= 1 << 10 {
        format!("{what} is larger than {} KiB", most >> 10)
    } else {
        format!("{what} is larger than {most} octets")
    })
}

fn broken(what: impl Into<String>) -> ReportError {
    ReportError::Broken(what.into())
}

/// Returns the first of the texts that says something, fit to be kept and shown.
fn label<'t>(texts: impl IntoIterator<Item = &'t str>) -> Option<String> {
    let text = texts.into_iter().map(str::trim).find(|text| !text.is_empty())?;
    Some(visible_within(text, 200, |_| false))
}

/// Returns the number of a report; one without it is known by what it tells.
fn identifier(id: &str, digest: impl FnOnce() -> Digest) -> Result<String, ReportError> {
    if id.len() > LONGEST_ID {
        return Err(too_large("its identifier", LONGEST_ID));
    }
    Ok(label([id]).unwrap_or_else(|| format!("none-{}", digest().short())))
}

/// Reads a domain as reports write it.
fn domain(text: &str) -> Option<DomainName> {
    let text = text.trim();
    text.strip_suffix('.').unwrap_or(text).parse().ok()
}

fn moment(seconds: i64) -> Result<OffsetDateTime, ReportError> {
    let moment = OffsetDateTime::from_unix_timestamp(seconds).ok().filter(|_| seconds > 0);
    moment.ok_or_else(|| broken("it does not say which span of time it is about"))
}
