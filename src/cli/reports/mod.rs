//! `reports ...`: what other mail servers report of the site's domains.

mod import;
mod show;

use camino::Utf8Path;

use crate::cli::failure::Failure;
use crate::cli::report::Report;
use crate::env::Env;

/// `reports ...`
#[derive(Debug, clap::Subcommand)]
pub(super) enum ReportsCommand {
    /// Read reports out of mails, Maildirs or files into the ledger (exit code 1 if one was broken)
    ///
    /// DMARC aggregate reports and TLS reports, plain, gzip or zip, by themselves or attached to a mail. A report is counted once,
    /// however often it is read, so that a timer may read the same Maildir again and again. Nothing is moved, marked or deleted.
    Import(import::Import),
    /// Show who sends mail under the domains' names, what of it passes, and how TLS fares
    Show(show::Show),
}

/// `reports ...`
pub(super) fn obey(env: &dyn Env, site: Option<&Utf8Path>, command: &ReportsCommand) -> Result<Report, Failure> {
    match command {
        ReportsCommand::Import(args) => import::import(env, site, args),
        ReportsCommand::Show(args) => show::show(env, site, args),
    }
}
