//! Diagnostics as plain data: what is wrong, where, how to mend it. Nothing here prints or reads a file.

use std::ops::Range;
use std::sync::Arc;

use camino::Utf8PathBuf;

/// A text that a diagnostic can point into: a settings file, a template.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    /// The path as the user would write it.
    pub path: Utf8PathBuf,
    /// The whole text.
    pub text: String,
}

/// A span of bytes in a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The text that is pointed into.
    pub source: Arc<Source>,
    /// The bytes meant; empty for a point.
    pub span: Range<usize>,
}

impl Place {
    /// Returns line and column, both counted in characters from 1.
    pub fn line_column(&self) -> (usize, usize) {
        let (line, _) = self.split_line();
        let above = self.source.text.get(..self.start() - line.len()).unwrap_or_default();
        (above.matches('\n').count() + 1, line.chars().count() + 1)
    }

    /// Returns the line that the place begins in: what stands before the place, and the rest.
    pub fn split_line(&self) -> (&str, &str) {
        let (before, behind) = self.source.text.split_at(self.start());
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = behind.find('\n').unwrap_or(behind.len());
        (before.get(line_start..).unwrap_or_default(), behind.get(..line_end).unwrap_or_default())
    }

    /// Returns where the place begins, at the beginning of a character.
    fn start(&self) -> usize {
        let mut start = self.span.start.min(self.source.text.len());
        while !self.source.text.is_char_boundary(start) {
            start -= 1;
        }
        start
    }
}

/// How much a diagnostic matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing can be done until it is mended.
    Error,
    /// Worth a look; the work goes on.
    Warning,
}

/// One finding about what the user wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// The rule's name in kebab case, unique in the program.
    pub code: &'static str,
    /// What is wrong: lower case, no full stop, the user's own words in backticks.
    pub message: String,
    /// Where it is wrong.
    pub place: Option<Place>,
    /// A few words under the marked place.
    pub label: String,
    /// Facts needed to believe the message.
    pub notes: Vec<String>,
    /// How to mend it.
    pub help: String,
}

impl Diagnostic {
    /// Makes an error without place, notes and label.
    pub fn error(code: &'static str, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            message: message.into(),
            place: None,
            label: String::new(),
            notes: Vec::new(),
            help: help.into(),
        }
    }

    /// Makes a warning without place, notes and label.
    pub fn warning(code: &'static str, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, message, help) }
    }

    /// Points at a place, with a few words for it.
    #[must_use]
    pub fn at(mut self, place: Place, label: impl Into<String>) -> Self {
        self.place = Some(place);
        self.label = label.into();
        self
    }

    /// Adds a fact.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }
}

/// Returns the candidate that the word most likely was meant to be, if one is near enough. A word longer than any name has
/// none: the distance takes time and memory by its length.
pub fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > 254 {
        return None;
    }
    let scored = candidates.into_iter().map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate));
    let (distance, best) = scored.min_by_key(|(distance, _)| *distance)?;
    (distance <= (word.chars().count() / 3).max(1)).then_some(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_not_bytes() {
        let source = Arc::new(Source { path: "a.toml".into(), text: "x = 1\nä = \"b\"\n".into() });
        assert_eq!(Place { source, span: 11..14 }.line_column(), (2, 5));
    }

    #[test]
    fn a_near_word_is_suggested_and_a_far_one_is_not() {
        assert_eq!(did_you_mean("adresses", ["name", "addresses"]), Some("addresses"));
        assert_eq!(did_you_mean("colour", ["name", "addresses"]), None);
    }
}
