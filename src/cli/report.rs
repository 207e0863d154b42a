//! The only printer: data to standard output, talk to standard error.

use crate::cli::args::Format;
use crate::cli::draw;
use crate::cli::failure::Failure;
use crate::diag::Diagnostic;
use crate::env::Env;

/// What a command found, in the two forms that it can be shown in.
#[derive(Debug)]
pub(super) struct Report {
    /// For people: whole lines.
    pub(super) text: String,
    /// For programs.
    pub(super) json: serde_json::Value,
    /// The exit code.
    pub(super) exit_code: u8,
    /// Findings about the settings that did not hinder the work.
    pub(super) warnings: Vec<Diagnostic>,
}

impl Report {
    /// Makes a report of success.
    pub(super) fn fine(text: String, json: serde_json::Value) -> Self {
        Self { text, json, exit_code: 0, warnings: Vec::new() }
    }

    /// Adds findings about the settings.
    pub(super) fn warn(mut self, warnings: &[Diagnostic]) -> Self {
        self.warnings.extend_from_slice(warnings);
        self
    }
}

/// Shows a report, or why there is none, and returns the exit code.
pub(super) fn show(env: &dyn Env, format: Format, outcome: Result<Report, Failure>) -> u8 {
    let shown = outcome.and_then(|report| {
        let text = match format {
            Format::Human => report.text,
            Format::Json => format!("{:#}\n", report.json),
        };
        talk(env, format, &report.warnings);
        env.print(&text)?;
        Ok(report.exit_code)
    });
    shown.unwrap_or_else(|failure| {
        talk(env, format, failure.diagnostics());
        failure.exit_code()
    })
}

/// Shows diagnostics on standard error.
pub(super) fn talk(env: &dyn Env, format: Format, diagnostics: &[Diagnostic]) {
    if diagnostics.is_empty() {
        return;
    }
    let text = match format {
        Format::Human => draw::draw(diagnostics, env.person_is_there() && env.variable("NO_COLOR").is_none()),
        Format::Json => format!("{:#}\n", draw::to_json(diagnostics)),
    };
    // Where standard error is closed, the exit code still tells.
    let _ = env.talk(&text);
}

/// Lays rows out in columns, two blanks apart; the last column is not padded.
pub(super) fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..count).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}
