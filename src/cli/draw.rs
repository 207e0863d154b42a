//! Diagnostics as text for people, as one line each, and as JSON: three drawings of the same fields.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde_json::{Value, json};

use crate::diag::{Diagnostic, Place, Severity};
use crate::names::shown;

/// Draws each diagnostic with the line that it is about, and counts them in the last line.
pub fn draw(diagnostics: &[Diagnostic], color: bool) -> String {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    let drawn = diagnostics.iter().map(|diagnostic| {
        let line = diagnostic.place.as_ref().map(ShownLine::of);
        format!("{}\n\n", renderer.render(&[group(diagnostic, line.as_ref())]))
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
        format!("{place}{}[{}]: {}\n", severity(diagnostic.severity), diagnostic.code, diagnostic.message)
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
            "message": diagnostic.message,
            "file": place.map(|place| place.source.path.as_str()),
            "line": line,
            "column": column,
            "label": diagnostic.label,
            "notes": diagnostic.notes,
            "help": diagnostic.help,
        })
    };
    diagnostics.iter().map(object).collect()
}

fn group<'a>(diagnostic: &'a Diagnostic, line: Option<&'a ShownLine>) -> Group<'a> {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let mut group = Group::with_title(level.primary_title(diagnostic.message.as_str()).id(diagnostic.code));
    if let Some(line) = line {
        let label = (!diagnostic.label.is_empty()).then_some(diagnostic.label.as_str());
        let annotation = AnnotationKind::Primary.span(line.span.clone()).label(label);
        let snippet = Snippet::source(line.text.as_str()).line_start(line.number).path(line.path.as_str());
        group = group.element(snippet.annotation(annotation));
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
    span: std::ops::Range<usize>,
}

impl ShownLine {
    fn of(place: &Place) -> Self {
        let (number, column) = place.line_column();
        let line = place.source.text.split('\n').nth(number - 1).unwrap_or_default();
        let line = line.strip_suffix('\r').unwrap_or(line);
        let marked = place.source.text.get(place.span.clone()).unwrap_or_default();
        let marked = marked.split('\n').next().unwrap_or_default().chars().count();
        // One character stands for one, so that the column stays true.
        let text: String = line.chars().map(visible).collect();
        let offset = |count: usize| text.char_indices().nth(count).map_or(text.len(), |(offset, _)| offset);
        let span = offset(column - 1)..offset(column - 1 + marked);
        Self { path: shown(place.source.path.as_str()), number, span, text }
    }
}

/// Returns the character, or a replacement for one that would act on the terminal or hide.
fn visible(c: char) -> char {
    match c {
        '\t' => c,
        '\u{7f}'..='\u{9f}'
        | '\u{61c}'
        | '\u{e0000}'..='\u{e007f}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}' => char::REPLACEMENT_CHARACTER,
        '\0'..='\u{1f}' => char::from_u32(0x2400 + u32::from(c)).unwrap_or(char::REPLACEMENT_CHARACTER),
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
