//! `reports import`: what others report, into the ledger.
//!
//! Some hundred reports are recorded in one transaction; a run that is killed anywhere is resumed by the same command, for a
//! report is counted once.

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::cli::failure::{DIFFERS, Failure};
use crate::cli::progress;
use crate::cli::report::Report;
use crate::cli::session;
use crate::diag::Diagnostic;
use crate::env::Env;
use crate::names::{DomainName, shown};
use crate::reports::{self, MAIL_LIMIT, ReportError};
use crate::site::Site;
use crate::store::ledger::{LedgerError, Recorded};
use crate::store::{Writer, mails};

/// `reports import`
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Import {
    /// Mails, Maildirs with their folders, reports, or directories of such files; - is standard input
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<Utf8PathBuf>,
}

/// How many reports are recorded at once, and how many rows: what a killed run reads again.
const BATCH: (usize, usize) = (512, 50_000);

/// How many findings are told.
const MOST_TOLD: usize = 50;

const STANDARD_INPUT: &str = "-";

/// What a run found so far.
#[derive(Default)]
struct Run {
    files: usize,
    /// Files without a report.
    without: usize,
    new: usize,
    known: usize,
    /// Reports of domains that are not the site's.
    foreign: usize,
    refused: usize,
    conflicts: usize,
    /// Named files without a report.
    missing: usize,
    forgotten: usize,
    results: Vec<Value>,
    findings: Vec<Diagnostic>,
    waiting: Vec<Waiting>,
    rows: usize,
}

/// A report that is to be recorded.
struct Waiting {
    file: usize,
    report: reports::Report,
    domain: DomainName,
}

/// `reports import`
pub(super) fn import(env: &dyn Env, site: Option<&Utf8Path>, args: &Import) -> Result<Report, Failure> {
    let mut files = Vec::new();
    for path in &args.paths {
        if path == STANDARD_INPUT {
            files.push((path.clone(), true));
            continue;
        }
        let found = mails::files_of(path)?.ok_or_else(|| {
            let help = "name a mail, a Maildir, a report, or a directory that holds such";
            Failure::input("no-such-file", format!("`{}` does not exist", shown(path.as_str())), help)
        })?;
        let is_named = found.as_slice() == [path.clone()];
        files.extend(found.into_iter().map(|file| (file, is_named)));
    }
    let (wanted, mut store) = session::write(env, site)?;
    let now = env.now();
    let bar = progress::bar(env, files.len(), "files");
    let mut run = Run::default();
    for (path, is_named) in &files {
        run.take(env, path, *is_named, (&wanted.site, now));
        if run.waiting.len() >= BATCH.0 || run.rows >= BATCH.1 {
            run.record(&mut store, now)?;
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    run.record(&mut store, now)?;
    Ok(run.report(&wanted.warnings))
}

impl Run {
    /// Reads a file; what is wrong with it is a finding, and the run goes on.
    fn take(&mut self, env: &dyn Env, path: &Utf8Path, is_named: bool, (site, now): (&Site, OffsetDateTime)) {
        self.files += 1;
        let read = if path == STANDARD_INPUT {
            env.input(MAIL_LIMIT + 1).map(Some).map_err(|error| format!("could not read standard input: {error}"))
        } else {
            mails::read(path, MAIL_LIMIT + 1).map_err(|error| error.to_string())
        };
        let reports = match read {
            // It was moved since it was found, and is read the next time.
            Ok(None) => return self.note_none(path, false),
            Ok(Some(bytes)) => reports::read(&bytes),
            Err(problem) => Err(ReportError::Broken(problem)),
        };
        let judged = reports.and_then(|reports| {
            reports.iter().try_for_each(|report| report.check_span(now))?;
            Ok(reports)
        });
        match judged {
            Ok(reports) => self.wait(path, reports, site),
            Err(ReportError::NoReport) => self.note_none(path, is_named),
            Err(error) => {
                self.refused += 1;
                self.results.push(json!({ "path": path.as_str(), "problem": error.to_string(), "reports": [] }));
                let message = format!("`{}`: {error}", shown(path.as_str()));
                let help = "nothing of it counts; delete it, or ask who sent it";
                self.findings.push(Diagnostic::warning("report-refused", message, help));
            }
        }
    }

    fn note_none(&mut self, path: &Utf8Path, is_named: bool) {
        self.without += 1;
        self.results.push(json!({ "path": path.as_str(), "problem": null, "reports": [] }));
        if is_named {
            self.missing += 1;
            let message = format!("`{}`: {}", shown(path.as_str()), ReportError::NoReport);
            let help = "name a mail with a DMARC aggregate report or a TLS report, or such a report itself";
            self.findings.push(Diagnostic::warning("report-missing", message, help));
        }
    }

    fn wait(&mut self, path: &Utf8Path, reports: Vec<reports::Report>, site: &Site) {
        let file = self.results.len();
        self.results.push(json!({ "path": path.as_str(), "problem": null, "reports": [] }));
        for report in reports {
            if let Some(domain) = site.domain_around(report.domain.as_str()) {
                let domain = domain.name.clone();
                self.rows += report.len();
                self.waiting.push(Waiting { file, report, domain });
            } else {
                self.foreign += 1;
                self.tell(file, &report, "other domain");
            }
        }
    }

    /// Adds what became of a report to the result of its file.
    fn tell(&mut self, file: usize, report: &reports::Report, outcome: &str) {
        let list = self.results.get_mut(file).and_then(|result| result.get_mut("reports"));
        if let Some(Value::Array(list)) = list {
            list.push(json!({
                "kind": report.kind(),
                "reporter": report.reporter,
                "id": report.id,
                "domain": report.domain,
                "begins": report.begins.unix_timestamp(),
                "ends": report.ends.unix_timestamp(),
                "outcome": outcome,
            }));
        }
    }

    /// Records the reports that wait, and forgets those that no longer count.
    fn record(&mut self, store: &mut Writer, now: OffsetDateTime) -> Result<(), Failure> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let waiting = std::mem::take(&mut self.waiting);
        self.rows = 0;
        let recorded = store.transact(|ledger| {
            let outcomes = waiting.iter().map(|one| ledger.record_report(&one.report, &one.domain, now));
            let outcomes = outcomes.collect::<Result<Vec<Recorded>, LedgerError>>()?;
            let new = outcomes.iter().filter(|outcome| **outcome == Recorded::New).count();
            let mut forgotten = 0;
            if new > 0 {
                forgotten = ledger.forget_reports(reports::oldest(now))?;
                let detail = json!({ "recorded": new, "forgotten": forgotten });
                ledger.record_event(now, "reports-imported", "reports", &detail)?;
            }
            Ok::<_, LedgerError>((outcomes, forgotten))
        });
        let (outcomes, forgotten) = recorded.map_err(|error| {
            let failure = Failure::from(error);
            if self.new > 0 { failure.stopped(&format!("{} are", count(self.new, "report"))) } else { failure }
        })?;
        self.forgotten += forgotten;
        for (one, outcome) in waiting.iter().zip(outcomes) {
            let word = match outcome {
                Recorded::New => {
                    self.new += 1;
                    "recorded"
                }
                Recorded::Known => {
                    self.known += 1;
                    "known"
                }
                Recorded::Conflict => {
                    self.conflicts += 1;
                    self.findings.push(conflict(&one.report));
                    "conflict"
                }
            };
            self.tell(one.file, &one.report, word);
        }
        Ok(())
    }

    fn report(mut self, warnings: &[Diagnostic]) -> Report {
        let Self { files, without, new, known, foreign, refused, conflicts, forgotten, .. } = self;
        let mut text = format!("files: {files}\nrecorded: {}\nknown before: {known}\n", count(new, "report"));
        let rest = [
            ("of domains that are not the site's", foreign),
            ("files without a report", without),
            ("refused", refused),
            ("refused, for another report has the same number", conflicts),
            ("forgotten, for they are too old", forgotten),
        ];
        let rest = rest.into_iter().filter(|(_, count)| *count > 0);
        text.extend(rest.map(|(what, count)| format!("{what}: {count}\n")));
        let json = json!({
            "files": files,
            "without_report": without,
            "recorded": new,
            "known": known,
            "other_domains": foreign,
            "refused": refused,
            "conflicts": conflicts,
            "forgotten": forgotten,
            "results": self.results,
        });
        let more = self.findings.len().saturating_sub(MOST_TOLD);
        self.findings.truncate(MOST_TOLD);
        if let (Some(last), 1..) = (self.findings.last_mut(), more) {
            last.notes.push(format!("{more} more findings are not shown; --format json tells of each file"));
        }
        let exit_code = if refused + conflicts + self.missing > 0 { DIFFERS } else { 0 };
        let report =
            Report { exit_code, foreign: true, ..Report::fine(text, json) }.warn(warnings).warn(&self.findings);
        if new > 0 { report.done(format!("{} recorded", are(new))) } else { report }
    }
}

fn conflict(report: &reports::Report) -> Diagnostic {
    let (reporter, id) = (shown(&report.reporter), shown(&report.id));
    let message = format!("`{reporter}` has two reports of {} with the number `{id}`", report.domain);
    let help = "the first one counts; if it may have been forged, ask who sent it";
    Diagnostic::warning("report-conflict", message, help)
}

fn count(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

fn are(reports: usize) -> String {
    format!("{} {}", count(reports, "report"), if reports == 1 { "is" } else { "are" })
}
