//! Diagnostics as text for people, as one line each, and as JSON: three drawings of the same fields.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use serde_json::{Value, json};

use crate::diag::{Diagnostic, Place, Severity};
use crate::names::{is_hidden, shown, visible_within};

/// Draws each diagnostic with the line that it is about, and counts them in the last line.
pub fn draw(diagnostics: &[Diagnostic], color: bool) -> String {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    let drawn = diagnostics.iter().map(|diagnostic| {
        let line = diagnostic.place.as_ref().map(ShownLine::of);
        let diagnostic = Diagnostic {
            message: said(&diagnostic.message),
            label: said(&diagnostic.label),
            notes: diagnostic.notes.iter().map(|note| said(note)).collect(),
            help: said(&diagnostic.help),
            ..diagnostic.clone()
        };
        format!("{}\n\n", renderer.render(&[group(&diagnostic, line.as_ref())]))
    });
    let text: String = drawn.collect();
    if diagnostics.is_empty() { text } else { text + &count(diagnostics) + "\n" }
}

/// Writes each diagnostic as one line, `file:line:column: error[code]: message`.
pub fn short(diagnostics: &[Diagnostic]) -> String {
    let line = |diagnostic: &Diagnostic| {
        let place = diagnostic.place.as_ref().map_or_else(String::new, |place| {
            let (line, column) = place.line_column();
            format!("{}:{line}:{column}: ", shown(place.source.path.as_str()))
        });
        format!("{place}{}[{}]: {}\n", severity(diagnostic.severity), diagnostic.code, said(&diagnostic.message))
    };
    diagnostics.iter().map(line).collect()
}

/// Returns the diagnostics as a JSON array of objects; without a place, `file`, `line` and `column` are null.
pub fn to_json(diagnostics: &[Diagnostic]) -> Value {
    let object = |diagnostic: &Diagnostic| {
        let place = diagnostic.place.as_ref();
        let (line, column) = place.map(Place::line_column).unzip();
        json!({
            "severity": severity(diagnostic.severity),
            "code": diagnostic.code,
            "message": cut(&diagnostic.message),
            "file": place.map(|place| place.source.path.as_str()),
            "line": line,
            "column": column,
            "label": cut(&diagnostic.label),
            "notes": diagnostic.notes.iter().map(|note| cut(note)).collect::<Vec<_>>(),
            "help": cut(&diagnostic.help),
        })
    };
    diagnostics.iter().map(object).collect()
}

/// Writes JSON so that it is safe on a terminal too: in JSON, control and hidden characters stand within strings only.
pub fn json_text(value: &Value) -> String {
    let mut text = String::new();
    for c in format!("{value:#}\n").chars() {
        if c == '\n' || !(c.is_control() || is_hidden(c)) {
            text.push(c);
        } else {
            let mut units = [0; 2];
            text.extend(c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    text
}

/// Returns what a diagnostic says, fit for a terminal: whoever made it may have left a file's name or a program's words as they
/// are.
fn said(text: &str) -> String {
    visible_within(text, LONGEST, |_| false)
}

/// Returns what a diagnostic says, but no more than anybody reads.
fn cut(text: &str) -> String {
    visible_within(text, LONGEST, |_| true)
}

/// In characters; the help that lists the domains of a large site has some hundreds.
const LONGEST: usize = 4000;

fn group<'a>(diagnostic: &'a Diagnostic, line: Option<&'a ShownLine>) -> Group<'a> {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let mut group = Group::with_title(level.primary_title(diagnostic.message.as_str()).id(diagnostic.code));
    if let Some(line) = line {
        let label = (!diagnostic.label.is_empty()).then_some(diagnostic.label.as_str());
        let annotation = AnnotationKind::Primary.span(line.span.clone()).label(label);
        let snippet = Snippet::source(line.text.as_str()).line_start(line.number).annotation(annotation);
        group = match line.cut {
            None => group.element(snippet.path(line.path.as_str())),
            Some(column) => {
                let origin = Origin::path(line.path.as_str()).line(line.number).char_column(column);
                group.element(origin).element(snippet)
            }
        };
    }
    for note in &diagnostic.notes {
        group = group.element(Level::NOTE.message(note.as_str()));
    }
    if diagnostic.help.is_empty() { group } else { group.element(Level::HELP.message(diagnostic.help.as_str())) }
}

/// The one line of a source that a place begins in, fit for a terminal.
struct ShownLine {
    path: String,
    number: usize,
    text: String,
    span: Range<usize>,
    /// The true column, if the line is cut at its beginning.
    cut: Option<usize>,
}

/// How many characters are shown around the beginning of a place; more than a terminal is wide.
const BEFORE: usize = 200;
const BEHIND: usize = 400;

impl ShownLine {
    fn of(place: &Place) -> Self {
        let (number, column) = place.line_column();
        let (before, behind) = place.split_line();
        let behind = behind.strip_suffix('\r').unwrap_or(behind);
        let marked = place.span.len().min(behind.len());
        let marked = behind.char_indices().take_while(|(offset, _)| *offset < marked).take(BEHIND).count();
        // One character stands for one, so that the column stays true.
        let mut text: Vec<char> = before.chars().rev().take(BEFORE).map(stand_in).collect();
        text.reverse();
        let cut = (column - 1 > text.len()).then_some(column);
        let start = text.iter().map(|c| c.len_utf8()).sum();
        text.extend(behind.chars().take(BEHIND).map(stand_in));
        let text: String = text.into_iter().collect();
        let end = text.get(start..).and_then(|rest| rest.char_indices().nth(marked)).map(|(offset, _)| start + offset);
        Self { path: shown(place.source.path.as_str()), number, span: start..end.unwrap_or(text.len()), text, cut }
    }
}

/// Returns the character, or one that stands in for what would act on the terminal or hide.
fn stand_in(c: char) -> char {
    match c {
        '\t' => c,
        '\0'..='\u{1f}' => char::from_u32(0x2400 + u32::from(c)).unwrap_or(char::REPLACEMENT_CHARACTER),
        _ if c.is_control() || is_hidden(c) => char::REPLACEMENT_CHARACTER,
        _ => c,
    }
}

/// Returns the word for it.
pub(super) fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

fn count(diagnostics: &[Diagnostic]) -> String {
    let errors = diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count();
    let parts = [(errors, "error"), (diagnostics.len() - errors, "warning")];
    let parts = parts.iter().filter(|(number, _)| *number > 0);
    let parts: Vec<_> =
        parts.map(|(number, noun)| format!("{number} {noun}{}", if *number == 1 { "" } else { "s" })).collect();
    parts.join(", ")
}
