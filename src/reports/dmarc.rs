//! DMARC aggregate reports (RFC 7489 appendix C, RFC 9990). The text is cut at its records first, so that mail-auth's parser is
//! given balanced elements, a megabyte at a time, and what it makes of them becomes sums at once.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;

use mail_auth::report::{DkimResult, DmarcResult, Record, SpfResult};

use super::{MOST_COUNTED, Report, ReportError, Rows, broken, domain, identifier, label, moment, too_large};
use crate::names::{DomainName, shown};
use crate::policy::evidence::DmarcSource;

/// How deep elements may lie in each other; of those that are read, four or five do.
const DEPTH_LIMIT: usize = 16;

/// The most records of a report.
const RECORDS_LIMIT: usize = 100_000;

/// The largest record, and the largest element beside the records, in octets.
const ELEMENT_LIMIT: usize = 128 << 10;

/// How much the parser is given at once, in octets.
const BATCH: usize = 1 << 20;

/// Address and domain in From:, with messages, aligned DKIM, aligned SPF, passed.
type Sums = BTreeMap<(IpAddr, DomainName), [u64; 4]>;

/// Reads a report; none if the text is another kind of XML, or HTML.
pub(super) fn read(text: impl AsRef<str>) -> Result<Option<Report>, ReportError> {
    let text = text.as_ref();
    let Some(outline) = outline(text)? else { return Ok(None) };
    if outline.records.is_empty() && outline.others.is_empty() {
        return Ok(None);
    }
    let head =
        parse(&format!("{}{}", outline.part(text, "report_metadata")?, outline.part(text, "policy_published")?))?;
    let name = &head.policy_published.domain;
    let about = domain(name).ok_or_else(|| broken(format!("`{}`, which it is about, is no domain", shown(name))))?;
    let sums = sums(text, &outline.records, &about)?;
    let metadata = head.report_metadata;
    let second = |second: u64| moment(i64::try_from(second).unwrap_or(i64::MAX));
    let sources = sums.into_iter().map(|((address, from), [messages, dkim, spf, passed])| DmarcSource {
        address,
        from,
        messages,
        dkim,
        spf,
        passed,
    });
    let mut report = Report {
        reporter: label([metadata.org_name.as_str(), &metadata.email])
            .ok_or_else(|| broken("it does not say who it is from"))?,
        id: String::new(),
        domain: about,
        begins: second(metadata.date_range.begin)?,
        ends: second(metadata.date_range.end)?,
        rows: Rows::Dmarc(sources.collect()),
    };
    report.id = identifier(&metadata.report_id, || report.digest())?;
    Ok(Some(report))
}

fn sums(text: &str, records: &[Range<usize>], about: &DomainName) -> Result<Sums, ReportError> {
    let mut sums = Sums::new();
    let (mut batch, mut all) = (String::new(), 0_u64);
    for (number, record) in records.iter().enumerate() {
        batch.push_str(text.get(record.clone()).unwrap_or_default());
        if batch.len() < BATCH && number + 1 < records.len() {
            continue;
        }
        let head = "<report_metadata></report_metadata><policy_published></policy_published>";
        for record in parse(&format!("{head}{batch}"))?.record {
            all = all.saturating_add(record.row.count.into());
            add(&mut sums, &record, about)?;
        }
        batch.clear();
    }
    if all > MOST_COUNTED { Err(broken("it counts more messages than there are")) } else { Ok(sums) }
}

fn add(sums: &mut Sums, record: &Record, about: &DomainName) -> Result<(), ReportError> {
    let count = u64::from(record.row.count);
    // What is no number, or too large a one, is read as none.
    if count == 0 {
        return Err(broken("a record of it does not say how many messages it counts"));
    }
    // Who it is from matters more than that the address is not told.
    let address = record.row.source_ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into()).to_canonical();
    // A From: that is no domain, or none of this policy's, is somebody's all the same.
    let from = domain(&record.identifiers.header_from).filter(|from| from.is_within(about));
    let [messages, dkim, spf, passed] = sums.entry((address, from.unwrap_or_else(|| about.clone()))).or_default();
    let (dkim_passes, spf_passes) = (dkim_passes(record), spf_passes(record));
    let add = |sum: &mut u64, counts: bool| *sum = sum.saturating_add(if counts { count } else { 0 });
    add(messages, true);
    add(dkim, dkim_passes);
    add(spf, spf_passes);
    add(passed, dkim_passes || spf_passes);
    Ok(())
}

/// Tells whether an aligned signature verified; results in which none did make the verdict a lie.
fn dkim_passes(record: &Record) -> bool {
    let results = &record.auth_results.dkim;
    record.row.policy_evaluated.dkim == DmarcResult::Pass
        && (results.is_empty() || results.iter().any(|result| result.result == DkimResult::Pass))
}

/// Tells whether SPF passed for an aligned domain.
fn spf_passes(record: &Record) -> bool {
    let results = &record.auth_results.spf;
    record.row.policy_evaluated.spf == DmarcResult::Pass
        && (results.is_empty() || results.iter().any(|result| result.result == SpfResult::Pass))
}

fn parse(content: &str) -> Result<mail_auth::report::Report, ReportError> {
    let parsed = mail_auth::report::Report::parse_xml(format!("<feedback>{content}</feedback>").as_bytes());
    parsed.map_err(|_| broken("it is no DMARC report of RFC 7489 or RFC 9990"))
}

/// Where the elements below the root lie in a text.
#[derive(Debug, Default)]
struct Outline<'t> {
    records: Vec<Range<usize>>,
    others: BTreeMap<&'t str, Range<usize>>,
}

impl Outline<'_> {
    fn part<'a>(&self, text: &'a str, name: &str) -> Result<&'a str, ReportError> {
        let part = self.others.get(name).and_then(|range| text.get(range.clone()));
        part.ok_or_else(|| broken(format!("it has no `{name}`")))
    }
}

/// Finds the elements below the root, and proves that all elements are balanced; none if the root is not `feedback`.
fn outline(text: &str) -> Result<Option<Outline<'_>>, ReportError> {
    let mut outline = Outline::default();
    let mut open: Vec<&str> = Vec::new();
    let (mut at, mut child, mut is_over) = (0, 0, false);
    while let Some(found) = text.get(at..).and_then(|rest| rest.find('<')) {
        let begin = at + found;
        let (tag, behind) = Tag::read(text, begin)?;
        at = behind;
        match tag {
            // Entities can grow without end, and name files.
            Tag::Document("feedback") => return Err(broken("it declares a document type, which no report does")),
            Tag::Document(_) => return Ok(None),
            Tag::Open(_) | Tag::Empty(_) if is_over => return Err(broken("something follows its end")),
            Tag::Open(name) | Tag::Empty(name) if open.is_empty() && name != "feedback" => {
                return if name.ends_with(":feedback") {
                    Err(broken("its elements have a prefix, which is not read"))
                } else {
                    Ok(None)
                };
            }
            Tag::Nothing | Tag::Empty(_) => {}
            Tag::Open(_) if open.len() == DEPTH_LIMIT => {
                return Err(broken(format!("its elements lie more than {DEPTH_LIMIT} deep in each other")));
            }
            Tag::Open(name) => {
                if open.len() == 1 {
                    child = begin;
                }
                open.push(name);
            }
            Tag::Close(name) => {
                if open.pop() != Some(name) {
                    return Err(broken("its elements are not balanced"));
                }
                match open.len() {
                    0 => is_over = true,
                    1 => outline.note(name, child..at)?,
                    _ => {}
                }
            }
        }
    }
    if open.is_empty() { Ok(is_over.then_some(outline)) } else { Err(broken("it ends too soon")) }
}

impl<'t> Outline<'t> {
    fn note(&mut self, name: &'t str, range: Range<usize>) -> Result<(), ReportError> {
        let is_record = name == "record";
        if is_record || matches!(name, "report_metadata" | "policy_published") {
            if range.len() > ELEMENT_LIMIT {
                return Err(too_large(&format!("an element `{name}` of it"), ELEMENT_LIMIT));
            }
            if !is_record {
                self.others.entry(name).or_insert(range);
            } else if self.records.len() == RECORDS_LIMIT {
                return Err(broken(format!("it has more than {RECORDS_LIMIT} records")));
            } else {
                self.records.push(range);
            }
        }
        Ok(())
    }
}

/// What stands between angle brackets.
enum Tag<'t> {
    Open(&'t str),
    Empty(&'t str),
    Close(&'t str),
    /// Of a document type declaration, the root that it names.
    Document(&'t str),
    /// A comment, an instruction, or text that is marked as such.
    Nothing,
}

impl<'t> Tag<'t> {
    /// Reads the tag that begins there; returns where what follows it begins.
    fn read(text: &'t str, begin: usize) -> Result<(Self, usize), ReportError> {
        let rest = text.get(begin..).unwrap_or_default();
        for (first, last) in [("<!--", "-->"), ("<![CDATA[", "]]>"), ("<?", "?>")] {
            if let Some(inner) = rest.strip_prefix(first) {
                let end = inner.find(last).ok_or_else(|| broken("it ends too soon"))?;
                return Ok((Self::Nothing, begin + first.len() + end + last.len()));
            }
        }
        let word = |text: &'t str| {
            let is_end = |c: char| c.is_ascii_whitespace() || matches!(c, '/' | '>' | '[');
            text.split(is_end).next().unwrap_or_default()
        };
        if let Some(declared) = rest.strip_prefix("<!") {
            let (kind, root) = declared.split_at_checked("DOCTYPE".len()).unwrap_or_default();
            let is_type = kind.eq_ignore_ascii_case("DOCTYPE");
            return if is_type {
                Ok((Self::Document(word(root.trim_ascii_start())), text.len()))
            } else {
                Err(broken("it is no XML"))
            };
        }
        let mut quote = None;
        let is_end = |c: char| {
            match (quote, c) {
                (None, '>') => return true,
                (None, '"' | '\'') => quote = Some(c),
                (Some(open), c) if open == c => quote = None,
                _ => {}
            }
            false
        };
        let end = rest.find(is_end).ok_or_else(|| broken("it ends too soon"))?;
        let inner = rest.get(1..end).unwrap_or_default();
        let behind = begin + end + 1;
        Ok(match inner.strip_prefix('/') {
            Some(inner) => (Self::Close(inner.trim_ascii_end()), behind),
            None if inner.ends_with('/') => (Self::Empty(word(inner)), behind),
            None => (Self::Open(word(inner)), behind),
        })
    }
}
