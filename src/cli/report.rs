//! The only printer: data to standard output, talk to standard error.

use crate::cli::args::Format;
use crate::cli::draw;
use crate::cli::failure::Failure;
use crate::cli::github::{self, Annotation, Remarks};
use crate::diag::Diagnostic;
use crate::env::Env;
use crate::names::visible_within;
use crate::store::files;

/// What a command found, in the forms that it can be shown in.
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
    /// For GitHub, beside the text.
    pub(super) remarks: Remarks,
    /// Whether the text holds what strangers wrote, so that on GitHub it must not be taken for commands.
    pub(super) foreign: bool,
    /// What counts though the report cannot be shown, in words such as `alice@example.com is removed`.
    pub(super) done: Option<String>,
}

impl Report {
    /// Makes a report of success.
    pub(super) fn fine(text: String, json: serde_json::Value) -> Self {
        Self { text, json, exit_code: 0, warnings: Vec::new(), remarks: Remarks::default(), foreign: false, done: None }
    }

    /// Adds findings about the settings.
    pub(super) fn warn(mut self, warnings: &[Diagnostic]) -> Self {
        self.warnings.extend_from_slice(warnings);
        self
    }

    /// Adds what is done by now, for the case that the report cannot be shown.
    pub(super) fn done(mut self, what: impl Into<String>) -> Self {
        self.done = Some(what.into());
        self
    }
}

/// Shows a report, or why there is none, and returns the exit code.
pub(super) fn show(env: &dyn Env, format: Format, outcome: Result<Report, Failure>) -> u8 {
    let shown = outcome.and_then(|report| {
        talk(env, format, &report.warnings);
        if format == Format::Github {
            write_summary(env, &report.remarks.summary);
        }
        match env.print(&text(env, format, &report)).map_err(Failure::from) {
            Ok(()) => Ok(report.exit_code),
            Err(failure) => Err(match report.done {
                Some(done) => failure.unshown(&done),
                None => failure,
            }),
        }
    });
    shown.unwrap_or_else(|failure| {
        talk(env, format, failure.diagnostics());
        failure.exit_code()
    })
}

/// Returns what goes to standard output.
fn text(env: &dyn Env, format: Format, report: &Report) -> String {
    let commands = report.remarks.annotations.iter().map(|annotation| annotation.command(env));
    let seen = || {
        // A path or a committed file may hold what moves the cursor or turns the text.
        let text = visible_within(&report.text, usize::MAX, |c| matches!(c, '\n' | '\t'));
        if report.foreign && on_github(env, format) { github::harmless(&text) } else { text }
    };
    match format {
        Format::Github => commands.chain([seen()]).collect(),
        Format::Human => seen(),
        Format::Json => github::harmless_json(&draw::json_text(&report.json)),
        // Every octet counts, and what is in it was made fit for it.
        _ => report.text.clone(),
    }
}

fn on_github(env: &dyn Env, format: Format) -> bool {
    format == Format::Github || github::is_here(env)
}

/// Adds to the page of the job. It is no part of the command's work: if it cannot be written, the exit code still tells.
fn write_summary(env: &dyn Env, summary: &str) {
    let Some(path) = env.variable("GITHUB_STEP_SUMMARY").filter(|path| !path.is_empty() && !summary.is_empty()) else {
        return;
    };
    let problem = match files::append(path.as_str().into(), summary.as_bytes(), SUMMARY_LIMIT) {
        Ok(true) => return,
        Ok(false) => "the job summary is full, so this is not in it".to_owned(),
        Err(error) => format!("the job summary could not be written: {error}"),
    };
    // As above.
    let _ = env.talk(&format!("postseal: {problem}\n"));
}

/// GitHub drops the summary of a step that is longer.
const SUMMARY_LIMIT: u64 = 1024 * 1024;

/// Shows diagnostics on standard error.
pub(super) fn talk(env: &dyn Env, format: Format, diagnostics: &[Diagnostic]) {
    if diagnostics.is_empty() {
        return;
    }
    let drawn = || draw::draw(diagnostics, env.person_is_there() && env.variable("NO_COLOR").is_none());
    let text = match format {
        Format::Human if github::is_here(env) => github::harmless(&drawn()),
        Format::Json => github::harmless_json(&draw::json_text(&draw::to_json(diagnostics))),
        Format::Github => {
            let commands = diagnostics.iter().map(|diagnostic| Annotation::of(diagnostic).command(env));
            commands.chain([github::harmless(&drawn())]).collect()
        }
        _ => drawn(),
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
