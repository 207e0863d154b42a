//! The command line: arguments in, one short function for each command, one printer.

mod args;
mod backup;
mod bimi;
mod ca;
mod codes;
mod confirm;
mod csr;
mod dkim;
mod dns;
pub mod draw;
mod ds;
mod export;
mod failure;
mod fsck;
mod github;
mod golden;
mod handout;
mod host;
mod import;
mod init;
mod issuing;
mod make;
mod people;
mod progress;
mod renew;
mod report;
mod reports;
mod restore;
mod revoke;
mod rollout;
mod server;
mod session;
mod show;
mod status;
mod svg;
mod takeover;
mod tick;
mod tlsa;
mod user;

use std::ffi::OsString;

use camino::Utf8Path;
use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory as _, Parser as _};
use serde_json::Value;

use self::args::{Arguments, CaCommand, Command, Format, UserCommand};
pub use self::codes::CODES;
use self::failure::Failure;
use self::report::Report;
use crate::env::Env;

/// Runs the program in its surroundings and returns the exit code.
pub fn run(env: &dyn Env, arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let typed: Vec<OsString> = arguments.into_iter().collect();
    let arguments = match Arguments::try_parse_from(&typed) {
        Ok(arguments) => arguments,
        Err(error) => return status::usage(env, &typed, &error).unwrap_or_else(|| show_usage(env, error)),
    };
    let here = if github::is_here(env) { Format::Github } else { Format::Human };
    let format = arguments.format.unwrap_or(here);
    let outcome = status::refuse_foreign_format(format, &arguments.command)
        .and_then(|()| obey(env, arguments.site.as_deref(), &arguments.command, format));
    report::show(env, format, outcome)
}

/// Shows help on standard output, a wrong command line on standard error, with what was typed made fit for a terminal.
fn show_usage(env: &dyn Env, mut error: clap::Error) -> u8 {
    for kind in [ContextKind::InvalidArg, ContextKind::InvalidSubcommand, ContextKind::InvalidValue] {
        if let Some(ContextValue::String(typed)) = error.get(kind) {
            let typed = crate::names::shown(typed);
            error.insert(kind, ContextValue::String(typed));
        }
    }
    let text = error.render();
    let shown = if error.use_stderr() { env.talk(&text.to_string()) } else { env.print(&text.to_string()) };
    match (shown, error.use_stderr()) {
        (Ok(()), false) => 0,
        _ => 2,
    }
}

fn obey(env: &dyn Env, site: Option<&Utf8Path>, command: &Command, format: Format) -> Result<Report, Failure> {
    match command {
        Command::Apply(install) => host::apply(env, site, install),
        Command::Backup(backup) => self::backup::backup(env, site, backup),
        Command::Bless(bless) => golden::bless(env, site, bless.force),
        Command::Ca(CaCommand::Crl(crl)) => issuing::crl(env, site, crl),
        Command::Ca(CaCommand::Export(export)) => ca::export(site, export),
        Command::Ca(CaCommand::Import(import)) => ca::import(env, site, import),
        Command::Ca(CaCommand::Renew(renew)) if renew.clients => issuing::renew(env, site, renew),
        Command::Ca(CaCommand::Renew(renew)) => ca::renew(env, site, renew.ca_passphrase_file.as_deref()),
        Command::Ca(CaCommand::Retire(retire)) => issuing::retire(env, site, retire),
        Command::Ca(CaCommand::Show { pem }) => show::ca(site, *pem),
        Command::Completions { shell } => Ok(completions(*shell)),
        Command::Diff(diff) => golden::diff(site, diff.exit_zero),
        Command::Dkim(dkim) => self::dkim::obey(env, site, dkim),
        Command::Dns(dns) => self::dns::dns(site, dns, format),
        Command::Ds(ds) => self::ds::ds(ds),
        Command::Export(export) => self::export::export(env, site, export),
        Command::Fsck => fsck::fsck(env, site),
        Command::Init(init) => self::init::init(env, site, init),
        Command::Man => man(),
        Command::Plan(install) => host::plan(env, site, install),
        Command::Render => golden::render(env, site),
        Command::Reports(reports) => self::reports::obey(env, site, reports),
        Command::Restore(restore) => self::restore::restore(env, site, restore),
        Command::Rollout(rollouts) => rollout::obey(env, site, rollouts),
        Command::Server(server) => server::obey(env, site, server),
        Command::Status(status) => self::status::status(env, site, status, format),
        Command::Svg(svg) => self::svg::obey(env, svg),
        Command::Tick(tick) => self::tick::tick(env, site, tick),
        Command::Tlsa(tlsa) => self::tlsa::tlsa(tlsa),
        Command::User(UserCommand::Add(add)) => user::add(env, site, add),
        Command::User(UserCommand::Confirm(confirm)) => self::confirm::confirm(env, site, confirm),
        Command::User(UserCommand::Handout(handout)) => self::handout::handout(env, site, handout),
        Command::User(UserCommand::Import(import)) => import::import(env, site, import),
        Command::User(UserCommand::List(list)) => people::list(env, site, list),
        Command::User(UserCommand::Passwd(passwd)) => user::passwd(env, site, passwd),
        Command::User(UserCommand::Remove(remove)) => user::remove(env, site, remove),
        Command::User(UserCommand::Renew(args)) => renew::renew(env, site, args),
        Command::User(UserCommand::Revoke(args)) => revoke::revoke(env, site, args),
        Command::User(UserCommand::Show { address }) => people::show(env, site, address),
    }
}

fn completions(shell: clap_complete::Shell) -> Report {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "postseal", &mut script);
    Report::fine(String::from_utf8_lossy(&script).into_owned(), Value::Null)
}

fn man() -> Result<Report, Failure> {
    let mut page = Vec::new();
    clap_mangen::Man::new(Arguments::command()).render(&mut page)?;
    Ok(Report::fine(String::from_utf8_lossy(&page).into_owned(), Value::Null))
}
