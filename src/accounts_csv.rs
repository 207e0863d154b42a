//! A list of users as CSV (RFC 4180): a header that names the columns, then a line for each device of a user.
//!
//! The list may hold mail passwords, so that it is read here and not by a library, whose buffers nobody wipes: a field is a span
//! of the text, a password is copied once, and what is told of a line shows neither it nor, where columns may have been
//! shifted, anything that could be one.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;

use camino::Utf8PathBuf;

use crate::diag::{Diagnostic, Place, Source, did_you_mean};
use crate::names::{DeviceName, MailAddress, NameError, shown};
use crate::password;
use crate::secret::Secret;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// The mailbox; the one column that must be there.
    Address,
    /// What the person is called, for whoever writes the letters.
    Name,
    /// The device; without one, the device of a user who has only one.
    Device,
    /// The mail password; without one, a new user gets one that is made.
    Password,
}

impl Column {
    /// Every column.
    pub const ALL: [Self; 4] = [Self::Address, Self::Name, Self::Device, Self::Password];

    /// Returns the column's name in the header.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Name => "name",
            Self::Device => "device",
            Self::Password => "password",
        }
    }
}

/// A line whose fields are each of their kind.
#[derive(Debug)]
pub struct Line {
    /// Whose account it is.
    pub address: MailAddress,
    /// For which device a certificate is wanted.
    pub device: DeviceName,
    /// The mail password that was chosen for them.
    pub password: Option<Secret>,
    /// Its number, counted from 1.
    pub number: usize,
    name: Option<Field>,
    /// Where it begins in the text.
    start: usize,
    spans: [Range<usize>; 3],
}

/// Why a line is bad.
#[derive(Debug)]
struct Finding {
    /// Where the line begins.
    line: usize,
    span: Range<usize>,
    label: String,
    diagnostic: Diagnostic,
}

/// A list that was read, with what is wrong in it.
#[derive(Debug)]
pub struct List<'t> {
    path: Utf8PathBuf,
    text: &'t str,
    columns: Vec<Column>,
    comma: u8,
    lines: Vec<Line>,
    findings: Vec<Finding>,
    /// What no message may show.
    hidden: Vec<Range<usize>>,
}

/// How many findings are told; whoever has more mends these first.
pub const MOST_TOLD: usize = 50;

/// In octets; a quote that is never closed ends here.
const LONGEST_FIELD: usize = 4096;

impl<'t> List<'t> {
    /// Reads a list.
    ///
    /// # Errors
    /// What is wrong with the whole: it is not in UTF-8, or its first line does not name the columns.
    pub fn read(path: Utf8PathBuf, text: &'t Secret) -> Result<Self, Vec<Diagnostic>> {
        let text = std::str::from_utf8(text.expose()).map_err(|wrong| vec![not_utf8(&path, text, wrong)])?;
        // What a spreadsheet writes first.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let (lines, findings, hidden) = (Vec::new(), Vec::new(), Vec::new());
        let mut list = Self { path, text, columns: Vec::new(), comma: b',', lines, findings, hidden };
        let body = list.header();
        if !list.findings.is_empty() {
            return Err(list.told());
        }
        list.body(body);
        Ok(list)
    }

    /// Takes the lines whose fields are each of their kind out of the list.
    pub fn take_lines(&mut self) -> Vec<Line> {
        std::mem::take(&mut self.lines)
    }

    /// Returns what the person of a line is called; empty if the list does not say.
    pub fn name(&self, line: &Line) -> Cow<'t, str> {
        line.name.as_ref().map_or(Cow::Borrowed(""), |name| name.value(self.text))
    }

    /// Tells whether the list has a column.
    pub fn has(&self, column: Column) -> bool {
        self.columns.contains(&column)
    }

    /// Adds what is wrong with a field of a line, in a diagnostic that points nowhere yet.
    pub fn refuse(&mut self, line: &Line, column: Column, label: impl Into<String>, diagnostic: Diagnostic) {
        let [address, device, password] = &line.spans;
        let span = match column {
            Column::Address | Column::Name => address,
            Column::Device => device,
            Column::Password => password,
        };
        self.findings.push(Finding { line: line.start, span: span.clone(), label: label.into(), diagnostic });
    }

    /// Returns how many lines are bad.
    pub fn bad_lines(&self) -> usize {
        self.findings.iter().map(|finding| finding.line).collect::<BTreeSet<_>>().len()
    }

    /// Returns what is wrong, in the order of the lines; at most [`MOST_TOLD`], of which the last says how many more there are.
    pub fn told(&self) -> Vec<Diagnostic> {
        if self.findings.is_empty() {
            return Vec::new();
        }
        let source = Arc::new(Source { path: self.path.clone(), text: self.shown_text() });
        let mut findings: Vec<&Finding> = self.findings.iter().collect();
        findings.sort_by_key(|finding| (finding.line, finding.span.start));
        let place = |finding: &Finding| Place { source: source.clone(), span: finding.span.clone() };
        let told = findings.iter().take(MOST_TOLD);
        let mut told: Vec<_> = told.map(|f| f.diagnostic.clone().at(place(f), f.label.clone())).collect();
        if let (Some(last), more @ 1..) = (told.last_mut(), findings.len().saturating_sub(MOST_TOLD)) {
            last.notes.push(format!("{more} more like it are not shown; {} lines are bad in all", self.bad_lines()));
        }
        told
    }

    /// Returns the text with asterisks for what no message may show. Each stands for one octet or character of as many octets, so
    /// that all places stay true.
    fn shown_text(&self) -> String {
        let mut text = String::with_capacity(self.text.len());
        let mut hidden: Vec<&Range<usize>> = self.hidden.iter().collect();
        hidden.sort_by_key(|range| (range.start, range.end));
        for range in hidden {
            // Ranges may lie within one another.
            let begin = range.start.max(text.len());
            text.push_str(self.text.get(text.len()..begin).unwrap_or_default());
            text.extend(self.text.get(begin..range.end).unwrap_or_default().chars().map(covered));
        }
        let rest = self.text.get(text.len()..).unwrap_or_default();
        text + rest
    }

    /// Reads the first line that is not blank; returns where the next one begins.
    fn header(&mut self) -> usize {
        let start = self.text.len() - self.text.trim_start().len();
        let line = self.text.get(start..line_end(self.text, start)).unwrap_or_default();
        // Spreadsheets write what the country parts numbers with.
        self.comma =
            [b';', b'\t'].into_iter().find(|c| !line.contains(',') && line.contains(char::from(*c))).unwrap_or(b',');
        let names = COLUMNS_HELP;
        let whole = start..start + line.len();
        if line.is_empty() || line.contains('@') {
            // That it is a line of a user, who may have a password in it.
            self.hidden.push(whole.clone());
            self.header_finding(whole, "the first line names no columns".to_owned(), names.to_owned());
            return self.text.len();
        }
        let (fields, next) = match record(self.text, start, self.comma) {
            Ok(read) => read,
            Err(wrong) => {
                self.header_finding(wrong.span, wrong.problem.to_owned(), names.to_owned());
                return self.text.len();
            }
        };
        for field in fields {
            let name = field.value(self.text).trim().to_ascii_lowercase();
            match Column::ALL.into_iter().find(|column| column.as_str() == name) {
                Some(column) if self.columns.contains(&column) => {
                    let message = format!("the column `{name}` is there twice");
                    self.header_finding(field.span, message, "leave one of them out".to_owned());
                }
                Some(column) => self.columns.push(column),
                None => {
                    let near = did_you_mean(&name, Column::ALL.map(Column::as_str));
                    let help = near.map_or_else(|| names.to_owned(), |near| format!("did you mean `{near}`?"));
                    self.header_finding(
                        field.span,
                        format!("`{}` is no column of a list of users", shown(&name)),
                        help,
                    );
                }
            }
        }
        if self.findings.is_empty() && !self.has(Column::Address) {
            self.header_finding(whole, "the list has no column `address`".to_owned(), names.to_owned());
        }
        next
    }

    fn header_finding(&mut self, span: Range<usize>, message: String, help: String) {
        let diagnostic = Diagnostic::error("csv-columns", message, help);
        self.findings.push(Finding { line: 0, span, label: String::new(), diagnostic });
    }

    fn body(&mut self, mut start: usize) {
        let (mut number, mut counted) = (1, 0);
        while start < self.text.len() {
            number += self.text.get(counted..start).unwrap_or_default().matches('\n').count();
            counted = start;
            match record(self.text, start, self.comma) {
                Ok((fields, next)) => {
                    if !fields.iter().all(|field| field.value(self.text).trim().is_empty()) {
                        self.line((start, next, number), &fields);
                    }
                    start = next;
                }
                Err(wrong) => {
                    // The quote may have been meant for this line only: the next one is read on its own.
                    let end = line_end(self.text, start);
                    let help = "write a field that holds a comma, a quote or a line end within quotes, and each quote in it twice";
                    let shown = start..line_end(self.text, wrong.span.end);
                    self.bad_line(start, shown, wrong.span, Diagnostic::error("csv-line", wrong.problem, help));
                    start = behind_line_end(self.text, end);
                }
            }
        }
    }

    /// Adds what is wrong with a line as a whole. If it may hold a password, nothing of it is shown.
    fn bad_line(&mut self, line: usize, whole: Range<usize>, span: Range<usize>, diagnostic: Diagnostic) {
        if self.has(Column::Password) {
            self.hidden.push(whole);
        }
        self.findings.push(Finding { line, span, label: String::new(), diagnostic });
    }

    fn line(&mut self, (start, next, number): (usize, usize, usize), fields: &[Field]) {
        if fields.len() != self.columns.len() {
            let message = format!("{}, and the header names {}", count(fields.len()), self.columns.len());
            let help = "part the fields by commas, as many as in the header; leave empty what is to be left out";
            let end = line_end(self.text, start);
            return self.bad_line(start, start..next, start..end, Diagnostic::error("csv-line", message, help));
        }
        let field =
            |column| self.columns.iter().zip(fields).find(|(known, _)| **known == column).map(|(_, field)| field);
        let given = |column| field(column).filter(|field| !field.span.is_empty());
        let span = |column| field(column).map_or(start..start, |field| field.span.clone());
        let secretive = self.has(Column::Password);
        let address = name(self.text, field(Column::Address), "mail address", secretive);
        let device = given(Column::Device).map(|field| name(self.text, Some(field), "device name", secretive));
        let device = device.unwrap_or_else(|| Ok(DeviceName::default()));
        let password =
            given(Column::Password).map(|field| field.secret(self.text)).map(|given| password::judge(&given));
        let (label, spans) =
            (given(Column::Name).cloned(), [Column::Address, Column::Device, Column::Password].map(span));
        let [address_span, device_span, password_span] = spans.clone();
        if secretive {
            self.hidden.push(password_span.clone());
        }
        let mut findings = Vec::new();
        let mut wrong = |diagnostic, span: &Range<usize>| {
            findings.push(Finding { line: start, span: span.clone(), label: String::new(), diagnostic });
        };
        let no_name = |error: NameError| Diagnostic::error("csv-name", error.problem, error.mend);
        let no_password = |error: NameError| Diagnostic::error("password", error.problem, error.mend);
        let address = address.map_err(|error| wrong(no_name(error), &address_span)).ok();
        let device = device.map_err(|error| wrong(no_name(error), &device_span)).ok();
        let password = password.transpose().map_err(|error| wrong(no_password(error), &password_span)).ok();
        if secretive && (address.is_none() || device.is_none()) {
            self.hidden.push(start..next);
        }
        if let (Some(address), Some(device), Some(password)) = (address, device, password) {
            self.lines.push(Line { address, device, password, number, name: label, start, spans });
        }
        self.findings.append(&mut findings);
    }
}

const COLUMNS_HELP: &str =
    "write the names of the columns into the first line: address, and as wanted name, device, password";

fn count(fields: usize) -> String {
    if fields == 1 { "the line has 1 field".to_owned() } else { format!("the line has {fields} fields") }
}

/// Reads a field as a name. Where there are passwords, what is no name is not quoted: it may be one in the wrong column.
fn name<T: FromStr<Err = NameError>>(
    text: &str,
    field: Option<&Field>,
    kind: &str,
    secretive: bool,
) -> Result<T, NameError> {
    let value = field.map_or(Cow::Borrowed(""), |field| field.value(text));
    let unquoted = |error: NameError| NameError { problem: format!("this is no {kind}"), ..error };
    value.trim().parse().map_err(|error| if secretive { unquoted(error) } else { error })
}

/// A field of a line: what stands between commas, without the quotes around it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Field {
    span: Range<usize>,
    /// Whether it holds quotes, each written twice.
    doubled: bool,
}

impl Field {
    fn value<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let written = text.get(self.span.clone()).unwrap_or_default();
        if self.doubled { written.replace("\"\"", "\"").into() } else { written.into() }
    }

    /// Returns the value where it is wiped; what grows leaves copies behind.
    fn secret(&self, text: &str) -> Secret {
        let written = text.get(self.span.clone()).unwrap_or_default();
        let mut octets = Vec::with_capacity(written.len());
        // Without doubled quotes there is one part.
        for (number, part) in written.split("\"\"").enumerate() {
            if number > 0 {
                octets.push(b'"');
            }
            octets.extend_from_slice(part.as_bytes());
        }
        Secret::new(octets)
    }
}

/// What is wrong with a line before its fields are known.
struct Wrong {
    span: Range<usize>,
    problem: &'static str,
}

const NOT_ENDED: &str = "a quote begins a field, and none ends it";

/// Reads the fields of the line that begins at an offset; returns them and where the next line begins.
fn record(text: &str, start: usize, comma: u8) -> Result<(Vec<Field>, usize), Wrong> {
    let octets = text.as_bytes();
    let ends = |octet: u8| octet == comma || octet == b'\n' || octet == b'\r';
    let (mut fields, mut at) = (Vec::new(), start);
    loop {
        let end = if octets.get(at) == Some(&b'"') {
            let (field, behind) = quoted(octets, at)?;
            if octets.get(behind).is_some_and(|octet| !ends(*octet)) {
                // A quote in a later line, which begins a field there.
                if line_end(text, at) < behind {
                    return Err(Wrong { span: at..at + 1, problem: NOT_ENDED });
                }
                return Err(Wrong {
                    span: behind..behind,
                    problem: "something stands behind the quote that ends a field",
                });
            }
            fields.push(field);
            behind
        } else {
            let rest = octets.get(at..).unwrap_or_default();
            let end = at + rest.iter().position(|octet| ends(*octet)).unwrap_or(rest.len());
            if let Some(quote) = octets.get(at..end).unwrap_or_default().iter().position(|octet| *octet == b'"') {
                let quote = at + quote;
                return Err(Wrong {
                    span: quote..quote + 1,
                    problem: "a quote stands within a field that has none around it",
                });
            }
            fields.push(Field { span: at..end, doubled: false });
            end
        };
        if octets.get(end) != Some(&comma) {
            return Ok((fields, behind_line_end(text, end)));
        }
        at = end + 1;
    }
}

/// Reads a field within quotes; returns it and what is behind the second one.
fn quoted(octets: &[u8], at: usize) -> Result<(Field, usize), Wrong> {
    let (begin, mut from, mut doubled) = (at + 1, at + 1, false);
    loop {
        let end = octets.len().min(begin + LONGEST_FIELD);
        let Some(quote) = octets.get(from..end).unwrap_or_default().iter().position(|octet| *octet == b'"') else {
            return Err(Wrong { span: at..at + 1, problem: NOT_ENDED });
        };
        let quote = from + quote;
        if octets.get(quote + 1) != Some(&b'"') {
            return Ok((Field { span: begin..quote, doubled }, quote + 1));
        }
        (from, doubled) = (quote + 2, true);
    }
}

fn line_end(text: &str, start: usize) -> usize {
    let rest = text.get(start..).unwrap_or_default();
    start + rest.find(['\n', '\r']).unwrap_or(rest.len())
}

fn behind_line_end(text: &str, end: usize) -> usize {
    let rest = text.get(end..).unwrap_or_default();
    end + if rest.starts_with("\r\n") { 2 } else { usize::from(!rest.is_empty()) }
}

/// Returns what stands for a character that is not shown: one that has as many octets.
fn covered(c: char) -> char {
    match c.len_utf8() {
        _ if c == '\n' => c,
        1 => '*',
        2 => '\u{d7}',
        3 => '\u{2217}',
        _ => '\u{1f7b0}',
    }
}

fn not_utf8(path: &Utf8PathBuf, text: &Secret, wrong: std::str::Utf8Error) -> Diagnostic {
    let before = text.expose().get(..wrong.valid_up_to()).unwrap_or_default();
    let text: String = String::from_utf8_lossy(before).chars().map(covered).collect();
    let (message, end) = (format!("`{path}` is not in UTF-8"), text.len());
    let source = Arc::new(Source { path: path.clone(), text });
    Diagnostic::error("not-utf8", message, "save the list in UTF-8").at(Place { source, span: end..end }, "here")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        text.to_owned().into()
    }

    /// The good lines as `address device password name`, and the findings as `line:column code`.
    fn read(text: &str) -> (Vec<String>, Vec<String>) {
        let text = secret(text);
        let mut list = match List::read("users.csv".into(), &text) {
            Ok(list) => list,
            Err(found) => return (Vec::new(), places(&found)),
        };
        let found = places(&list.told());
        let lines = list.take_lines();
        let show = |line: &Line| {
            let password = line.password.as_ref().and_then(Secret::expose_str).unwrap_or("-");
            format!("{} {} {password} {}", line.address, line.device, list.name(line)).trim_end().to_owned()
        };
        (lines.iter().map(show).collect(), found)
    }

    fn places(found: &[Diagnostic]) -> Vec<String> {
        let place = |found: &Diagnostic| {
            let (line, column) = found.place.as_ref().unwrap().line_column();
            format!("{line}:{column} {}", found.code)
        };
        found.iter().map(place).collect()
    }

    #[test]
    fn a_list_is_read_with_its_mark_line_ends_quotes_and_blank_lines() {
        let text = "\u{feff}Name , ADDRESS,device,password\r\n\r\n\"Smith, \"\"Al\"\"\r\nJr\",Alice@Example.com,,\"a \"\"b\"\", c12\"\r\n\
                    ,,,\n  \n,bob@example.com, phone ,\r,carol@example.com,,";
        let (lines, found) = read(text);
        assert_eq!(found, [""; 0]);
        assert_eq!(
            lines,
            [
                "alice@example.com default a \"b\", c12 Smith, \"Al\"\r\nJr",
                "bob@example.com phone -",
                "carol@example.com default -"
            ]
        );
    }

    #[test]
    fn fields_may_be_parted_by_what_a_spreadsheet_parts_them_with() {
        for comma in [";", "\t"] {
            let (lines, found) = read(&"address,device\nalice@example.com,phone\n".replace(',', comma));
            assert_eq!((lines, found), (vec!["alice@example.com phone -".to_owned()], vec![]));
        }
    }

    #[test]
    fn a_bad_line_is_told_at_its_place_and_the_others_are_read() {
        let (lines, found) = read(
            "address,device\nalice,phone\nbob@example.com,My Phone\n\"carol@example.com,phone\ndave@example.com,phone\n\
             e\"ve@example.com,x\n\"f@example.com\"x,y\ngrace@example.com\nheidi@example.com,phone\n",
        );
        assert_eq!(lines, ["dave@example.com phone -", "heidi@example.com phone -"]);
        assert_eq!(
            found,
            ["2:1 csv-name", "3:17 csv-name", "4:1 csv-line", "6:2 csv-line", "7:16 csv-line", "8:1 csv-line"]
        );
    }

    #[test]
    fn the_first_line_names_the_columns() {
        for (text, place) in [
            ("", "1:1 csv-columns"),
            ("\n\n", "3:1 csv-columns"),
            ("alice@example.com,phone\n", "1:1 csv-columns"),
            ("address,e-mail\n", "1:9 csv-columns"),
            ("address,device,Address\n", "1:16 csv-columns"),
            ("\n\nname,device\n", "3:1 csv-columns"),
            ("address,\"device\n", "1:9 csv-columns"),
        ] {
            assert_eq!(read(text).1, [place], "{text:?}");
        }
        let text = secret("adress\n");
        let found = List::read("users.csv".into(), &text).unwrap_err();
        assert_eq!(found[0].help, "did you mean `address`?");
    }

    #[test]
    fn no_message_shows_a_password() {
        for text in [
            "address,password\nalice@example.com,hunter2\n",
            "address,device,password\nalice@example.com,hunter2\n",
            "address,device,password\nalice@example.com,Hunter2-Hunter2,phone\n",
            "address,password\nhunter2-hunter2,alice@example.com\n",
            "address,password\nalice@example.com,\"hunter2-hunter2\n",
            "address,password\nalice@example.com,h\u{fc}nter2\"hunter2\n",
            "alice@example.com,hunter2-hunter2\n",
        ] {
            let text = secret(text);
            let told = match List::read("users.csv".into(), &text) {
                Ok(list) => list.told(),
                Err(told) => told,
            };
            assert!(!told.is_empty(), "{:?}", text.expose_str());
            assert!(!format!("{told:?}").to_lowercase().contains("nter2"), "{told:?}");
        }
        let octets = Secret::new(b"address,password\nalice@example.com,hunter2\xff\n".to_vec());
        let told = List::read("users.csv".into(), &octets).unwrap_err();
        assert_eq!(places(&told), ["2:26 not-utf8"]);
        assert!(!format!("{told:?}").contains("hunter2"));
    }

    #[test]
    fn places_stay_true_behind_what_is_hidden() {
        let text = secret("password,address\np\u{e4}ssword \u{1f600} word,alice\n");
        let list = List::read("users.csv".into(), &text).unwrap();
        assert_eq!(places(&list.told()), ["2:17 csv-name"]);
    }

    #[test]
    fn fifty_findings_are_told_and_the_rest_counted() {
        let text = secret(&format!("address\n{}", "x\n".repeat(70)));
        let list = List::read("users.csv".into(), &text).unwrap();
        let told = list.told();
        assert_eq!((told.len(), list.bad_lines()), (50, 70));
        assert_eq!(told[49].notes, ["20 more like it are not shown; 70 lines are bad in all"]);
    }
}
