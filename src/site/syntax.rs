//! What is wrong with a file as TOML, in the user's words.

use std::sync::Arc;

use super::MOST;
use crate::diag::{Diagnostic, Place, Source};
use crate::names::shown;

/// Returns the syntax errors of a file in order, the first of each line: the others of a line mostly follow from it.
pub(super) fn errors(source: &Arc<Source>, mut errors: Vec<toml::de::Error>) -> Vec<Diagnostic> {
    errors.sort_by_key(|error| error.span().map_or(0, |span| span.start));
    let mut findings: Vec<Diagnostic> = Vec::new();
    let mut lines_end = None;
    for error in errors {
        let span = error.span().unwrap_or_default();
        if lines_end.is_some_and(|end| span.start <= end) || findings.len() == MOST {
            continue;
        }
        let rest = source.text.get(span.start..).unwrap_or_default();
        lines_end = Some(span.start + rest.find('\n').unwrap_or(rest.len()));
        let word = source.text.get(span.clone()).unwrap_or_default();
        let (message, label, help) = worded(error.message(), word);
        let place = Place { source: Arc::clone(source), span };
        findings.push(Diagnostic::error("syntax", message, help).at(place, label));
    }
    findings
}

/// Returns message, label and help for an error of the TOML parser.
fn worded(message: &str, word: &str) -> (String, String, String) {
    let word = shown(word);
    let problem = message.split(", expected ").next().unwrap_or_default();
    match problem {
        "duplicate key" => (
            format!("`{word}` is written twice in the same table"),
            "the second one".to_owned(),
            "remove one of the two; what may occur several times is written [[host]] or [[domain]]".to_owned(),
        ),
        "string values must be quoted" => {
            (format!("`{word}` is not in quotes"), problem.to_owned(), format!("write \"{word}\""))
        }
        _ => {
            let wanted = message.strip_prefix(problem).and_then(|rest| rest.strip_prefix(", expected "));
            let label = wanted
                .filter(|wanted| *wanted != "nothing")
                .map_or_else(|| problem.to_owned(), |wanted| format!("expected {wanted}"));
            let help = if problem == "invalid unquoted key" {
                "put a name that has other characters in quotes: \"postmaster@example.com\" = \"alice@example.com\""
            } else {
                "a line is a [table], name = \"text\" or name = [\"list\", \"of texts\"]; a comment begins with #"
            };
            (format!("this is not TOML: {problem}"), label, help.to_owned())
        }
    }
}
