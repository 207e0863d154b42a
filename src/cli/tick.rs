//! `tick`: the one timer. It does all that is due; what fails stops nothing else, and is tried again by the next.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::{Value, json};

use crate::cli::failure::{DIFFERS, Failure};
use crate::cli::issuing::Due;
use crate::cli::make::{self, ServerKey, ServerOrder, SiteCa};
use crate::cli::report::Report;
use crate::cli::session::{self, RENDERED, Wanted, refuse_secrets};
use crate::cli::{dkim, host, issuing, rollout, server, status};
use crate::diag::Diagnostic;
use crate::env::{Env, Program};
use crate::install::{Effect, commands};
use crate::inventory::ClientCertificate;
use crate::names::{HostName, Serial, visible_within};
use crate::notify::{self, Notice};
use crate::plan::Files;
use crate::render::{ExpiryMail, Letters};
use crate::site::{Notify, Site};
use crate::store::ledger::LedgerError;
use crate::store::{Writer, files};
use crate::tree::{Part, Tree};

/// `tick`
#[derive(Debug, clap::Args)]
pub(super) struct Tick {
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Say nothing if nothing is due, so that cron sends no mail
    #[arg(long)]
    quiet: bool,
    /// The file that holds the CA's passphrase [default: state/ca.passphrase, or ask]
    #[arg(long, value_name = "FILE")]
    ca_passphrase_file: Option<Utf8PathBuf>,
    #[command(flatten)]
    ways: dkim::Ways,
}

/// What a run did, and what it could not do.
#[derive(Default)]
struct Outcome {
    lines: Vec<String>,
    json: serde_json::Map<String, Value>,
    undone: Vec<Diagnostic>,
    is_secret: bool,
}

impl Outcome {
    fn did(&mut self, line: impl Into<String>, name: &str, value: Value) {
        self.lines.push(line.into());
        self.json.insert(name.to_owned(), value);
    }

    /// Keeps why a part failed, with what that means.
    fn undone(&mut self, what: &str, help: &str, failure: Option<&Failure>) {
        self.is_secret |= matches!(failure, Some(Failure::Secret(_)));
        self.undone.extend_from_slice(failure.map_or(&[], Failure::diagnostics));
        self.undone.push(Diagnostic::error("not-done", what, help));
    }

    fn report(self, quiet: bool) -> Report {
        let nothing = self.lines.is_empty() && self.undone.is_empty();
        let mut text = lines(&self.lines);
        if nothing && !quiet {
            text.push_str("nothing is due\n");
        }
        let exit_code = match (self.undone.is_empty(), self.is_secret) {
            (true, _) => 0,
            (false, false) => DIFFERS,
            (false, true) => 4,
        };
        let mut json = self.json;
        json.insert("undone".to_owned(), self.undone.iter().map(|one| json!(one.message)).collect());
        Report { exit_code, ..Report::fine(text, Value::Object(json)) }.warn(&self.undone).done("what was due is done")
    }
}

const NEXT: &str = "mend what is named above; the next `postseal tick` does it";

/// `tick`
pub(super) fn tick(env: &dyn Env, site: Option<&Utf8Path>, args: &Tick) -> Result<Report, Failure> {
    if args.dry_run {
        return dry_run(env, site, args.quiet);
    }
    let mut store = session::writer(env, session::directory(site))?;
    let mut outcome = Outcome::default();
    let wanted = Wanted::read(store.site());
    if let Ok(wanted) = &wanted
        && let Err(failure) = renew_servers(env, args, wanted, &mut store, &mut outcome)
    {
        outcome.undone("server certificates that are due are not renewed", NEXT, Some(&failure));
    }
    // What was just replaced has ended too.
    if let Err(failure) = record_ends(env, &mut store, &mut outcome) {
        outcome.undone("certificates that have ended are not recorded as such", NEXT, Some(&failure));
    }
    match wanted {
        Ok(wanted) => follow_settings(env, site, args, &wanted, &mut store, &mut outcome),
        Err(failure) => outcome.undone("nothing that needs the settings is done", NEXT, Some(&failure)),
    }
    Ok(outcome.report(args.quiet))
}

/// Does what the settings decide; each part by itself.
fn follow_settings(
    env: &dyn Env,
    site: Option<&Utf8Path>,
    args: &Tick,
    wanted: &Wanted,
    store: &mut Writer,
    outcome: &mut Outcome,
) {
    if let Err(failure) = watch_acme(env, wanted, store, outcome) {
        outcome.undone("the certificates of ACME clients were not looked at", NEXT, Some(&failure));
    }
    if let Err(failure) = renew_crls(env, args, store, outcome) {
        outcome.undone("CRLs that are due are not made", NEXT, Some(&failure));
    }
    if let Err(failure) = advance_dkim(env, args, wanted, store, outcome) {
        outcome.undone("DKIM keys that are due are not moved on", NEXT, Some(&failure));
    }
    if let Err(failure) = advance_rollouts(env, args, wanted, store, outcome) {
        outcome.undone("policies that are due are not moved on", NEXT, Some(&failure));
    }
    // Before the mail: who is off the trust list does not wait for a mail server.
    if let Err(failure) = refresh(wanted, store, outcome) {
        outcome.undone("out/ and postseal.lock may not show what is recorded", NEXT, Some(&failure));
    }
    if let Some(notify) = &wanted.site.notify
        && let Err(failure) = send_notices(env, site, notify, wanted, store, outcome)
    {
        outcome.undone("users are not told that their certificates end", NEXT, Some(&failure));
    }
}

/// Records the end of what has ended, so that the trust list loses it.
fn record_ends(env: &dyn Env, store: &mut Writer, outcome: &mut Outcome) -> Result<(), Failure> {
    let now = env.now();
    let inventory = store.inventory()?;
    let clients: HashMap<Serial, &ClientCertificate> =
        inventory.client_certificates.iter().map(|one| (one.serial, one)).collect();
    let ended = store.transact(|ledger| {
        let ended = ledger.expire_certificates(now)?;
        for serial in &ended {
            let (what, subject, detail) = match clients.get(serial) {
                Some(one) => ("client-certificate-ended", one.address.to_string(), json!({ "device": one.device })),
                None => ("certificate-ended", serial.to_string(), json!({})),
            };
            let mut detail = detail;
            if let Some(detail) = detail.as_object_mut() {
                detail.insert("serial".to_owned(), json!(serial.to_string()));
            }
            ledger.record_event(now, what, &subject, &detail)?;
        }
        Ok::<_, LedgerError>(ended)
    })?;
    // What was handed out for it opens nothing any more. A newer certificate of the device has its own handout in that place.
    for one in ended.iter().filter_map(|serial| clients.get(serial)).filter(|one| one.successor.is_none()) {
        store.forget_device(&one.address, &one.device)?;
    }
    if !ended.is_empty() {
        let line = format!("recorded the end of {}", amount(ended.len(), "certificate"));
        outcome.did(line, "ended", ended.iter().map(|serial| json!(serial.to_string())).collect());
    }
    Ok(())
}

/// Renews the server certificates of which less than a third of the life is left.
fn renew_servers(
    env: &dyn Env,
    args: &Tick,
    wanted: &Wanted,
    store: &mut Writer,
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    let inventory = store.inventory()?;
    let due: Vec<HostName> =
        status::due_servers(&wanted.site, &inventory, env.now()).map(|server| server.host.clone()).collect();
    if due.is_empty() {
        return Ok(());
    }
    let ca = make::open_site_ca(env, store, args.ca_passphrase_file.as_deref())?;
    let mut renewed = serde_json::Map::new();
    for host in &due {
        match renew_server(env, &ca, host, store) {
            Ok(until) => {
                let line = format!("renewed the server certificate of {host} until {until}");
                renewed.insert(host.to_string(), json!(until.to_string()));
                outcome.lines.push(line);
            }
            Err(failure) => {
                outcome.undone(&format!("the server certificate of {host} is not renewed"), NEXT, Some(&failure));
            }
        }
    }
    outcome.json.insert("renewed".to_owned(), Value::Object(renewed));
    Ok(())
}

fn renew_server(env: &dyn Env, ca: &SiteCa, host: &HostName, store: &mut Writer) -> Result<time::Date, Failure> {
    make::refuse_unpermitted(ca, host)?;
    let order = ServerOrder { host, days: None, key: ServerKey::Next };
    Ok(make::server_certificate(env, ca, &order, store)?.not_after.date())
}

/// Looks at the certificates that ACME clients keep, of hosts that this machine is: whose files are here, or were before.
fn watch_acme(env: &dyn Env, wanted: &Wanted, store: &mut Writer, outcome: &mut Outcome) -> Result<(), Failure> {
    let root = Utf8Path::new("/");
    for host in &wanted.site.hosts {
        let mut kept = status::kept_by_others(&wanted.site).into_iter().filter(|(of, _)| **of == host.name).peekable();
        let is_watched = kept.peek().is_some() && !store.ledger().watched(&host.name, root)?.is_empty();
        if !is_watched && !kept.any(|(_, path)| files::exists(path).unwrap_or(false)) {
            continue;
        }
        let look = server::watch(env, wanted, store, root, host)?;
        if look.needs_restart() {
            let restart = host.platform.layout().restart_smtpd;
            let line = format!("{} has another certificate from its ACME client, now: {restart}", host.name);
            outcome.did(line, "watched", json!({ host.name.as_str(): restart }));
        }
        if look.is_wrong() {
            outcome.undone.extend_from_slice(&look.findings);
            outcome.undone(&format!("a certificate that {} is to show is of no use", host.name), NEXT, None);
        }
    }
    Ok(())
}

/// Makes the CRLs anew of which half of the life is over, or that do not say what was revoked since.
fn renew_crls(env: &dyn Env, args: &Tick, store: &mut Writer, outcome: &mut Outcome) -> Result<(), Failure> {
    if issuing::refresh_crl(env, store, args.ca_passphrase_file.as_deref(), Due::IfHalfGone)? {
        outcome.did("made a new CRL", "crl", json!(true));
    }
    Ok(())
}

/// Moves DKIM keys on. What is waited for is no news.
fn advance_dkim(
    env: &dyn Env,
    args: &Tick,
    wanted: &Wanted,
    store: &mut Writer,
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    let advanced = dkim::advance_all(env, wanted, store, &args.ways)?;
    let (lines, json): (Vec<String>, Vec<Value>) = advanced.steps.into_iter().unzip();
    if !lines.is_empty() {
        outcome.lines.extend(lines);
        outcome.json.insert("dkim".to_owned(), Value::Array(json));
    }
    Ok(())
}

/// Moves policies on, with evidence only.
fn advance_rollouts(
    env: &dyn Env,
    args: &Tick,
    wanted: &Wanted,
    store: &mut Writer,
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    let advanced = rollout::advance_all(env, wanted, store, &args.ways, &rollout::Order::by_timer())?;
    let (lines, json) = advanced.told();
    if !lines.is_empty() {
        outcome.lines.extend(lines);
        outcome.json.insert("rollout".to_owned(), Value::Array(json));
    }
    Ok(())
}

/// Brings `out/` and `postseal.lock` up to date, and says what that means for each host.
fn refresh(wanted: &Wanted, store: &Writer, outcome: &mut Outcome) -> Result<(), Failure> {
    let tree = wanted.checked(&store.inventory()?, store)?;
    let stale: BTreeSet<Utf8PathBuf> = store.stale_out(&tree)?.into_iter().collect();
    if !store.refresh_derived(&tree)? {
        return Ok(());
    }
    let out = session::shown(store, "out");
    let names = if stale.is_empty() { "postseal.lock".to_owned() } else { format!("{out}/") };
    outcome.did(format!("brought {names} up to date"), "refreshed", json!(true));
    let mut hosts = serde_json::Map::new();
    for (host, told) in told(&wanted.site, &tree, &stale) {
        let then = if told.is_empty() { String::new() } else { format!(", then: {}", told.join("; ")) };
        outcome.lines.push(format!("install {out}/{host}/ on {host}{then}"));
        hosts.insert(host.to_string(), json!(told));
    }
    if tree.entries().iter().any(|entry| entry.part == Part::Zone && stale.contains(&entry.path)) {
        outcome.lines.push(format!("publish the records that changed: {out}/dns/"));
    }
    outcome.json.insert("install".to_owned(), Value::Object(hosts));
    Ok(())
}

/// Returns the hosts of which files changed, with the commands that make the daemons read them.
fn told<'a>(site: &'a Site, tree: &Tree, stale: &BTreeSet<Utf8PathBuf>) -> BTreeMap<&'a HostName, Vec<String>> {
    let of = |host: &'a crate::site::Host| {
        let is_of_host = |path: &Utf8Path| path.starts_with(host.name.as_str());
        let touched = stale.iter().any(|path| is_of_host(path));
        let entries = tree.entries().iter().filter(|entry| is_of_host(&entry.path) && stale.contains(&entry.path));
        let effects = entries.filter_map(|entry| Effect::of(entry.part, &entry.path)).collect();
        touched.then(|| (&host.name, commands(&effects, host.platform.layout())))
    };
    site.hosts.iter().filter_map(of).collect()
}

/// Tells users that their certificates end. Each mail is recorded once the local sendmail has it, before the next one is sent.
fn send_notices(
    env: &dyn Env,
    site: Option<&Utf8Path>,
    notify: &Notify,
    wanted: &Wanted,
    store: &mut Writer,
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    let now = env.now();
    let (inventory, sent) = (store.inventory()?, store.ledger().notices()?);
    let due = notify::due(&wanted.site, &inventory, &sent, now);
    if due.is_empty() {
        return Ok(());
    }
    // The settings name the program that is run.
    host::refuse_site_of_others(env, site)?;
    let letters = Letters::new(&wanted.templates).map_err(|error| rendering(&error))?;
    refuse_secret_letter(&letters, wanted, store)?;
    let mut told = Vec::new();
    let mut refused = Vec::new();
    for notice in &due {
        let message = notify::message(notify, notice.certificate, &letters, now).map_err(|error| rendering(&error))?;
        match hand_over(env, notify, &message) {
            Ok(()) => {
                record_notice(store, notice, now)?;
                told.push(notice.certificate);
            }
            Err(Refusal::NotStarted(reason)) => {
                refused.push((notice.certificate, reason));
                break;
            }
            Err(Refusal::Said(reason)) => refused.push((notice.certificate, reason)),
        }
    }
    let left = due.len() - told.len();
    if !told.is_empty() {
        let line = format!("told {} by mail that a certificate ends", amount(told.len(), "user"));
        let told = told.iter().map(|one| json!({ "address": one.address, "device": one.device }));
        outcome.did(line, "told", told.collect());
    }
    for (certificate, reason) in refused.iter().take(3) {
        let message = format!("`{}` did not take the mail to {}: {reason}", notify.sendmail, certificate.address);
        outcome.undone.push(Diagnostic::error("sendmail", message, SENDMAIL));
    }
    if !refused.is_empty() {
        let left = amount(left, "user");
        outcome.undone(&format!("{left} could not be told that a certificate ends"), NEXT, None);
    }
    Ok(())
}

const SENDMAIL: &str =
    "look at the log of the local mail system, or name another program: notify.sendmail in postseal.toml";

fn rendering(error: &crate::render::RenderError) -> Failure {
    Failure::Input(vec![error.diagnostic().clone()])
}

/// A template of the administrator's could copy what `state/` keeps; a mail leaves the host.
fn refuse_secret_letter(letters: &Letters, wanted: &Wanted, store: &Writer) -> Result<(), Failure> {
    if wanted.templates.is_empty() {
        return Ok(());
    }
    let word = || "x".to_owned();
    let mail = ExpiryMail { address: word(), device: word(), day: word(), left: word(), from: word() };
    let body = letters.expiry(&mail).map_err(|error| rendering(&error))?;
    let files = Files::from([("mail/expiry.txt".into(), body)]);
    refuse_secrets(("templates/", &files), Some(store), RENDERED)
}

/// Why sendmail did not take a mail.
enum Refusal {
    NotStarted(String),
    Said(String),
}

/// Gives a mail to the local sendmail. The recipient stands in the message, for arguments are seen by everybody.
fn hand_over(env: &dyn Env, notify: &Notify, message: &str) -> Result<(), Refusal> {
    let arguments = ["-i", "-t", "-f", notify.from.as_str()];
    let program =
        Program { name: notify.sendmail.as_str(), arguments: &arguments, user: None, input: message.as_bytes() };
    let finished = env.run(&program).map_err(|error| Refusal::NotStarted(error.to_string()))?;
    if finished.success {
        return Ok(());
    }
    let said = finished.errors.lines().chain(finished.output.lines()).map(str::trim).find(|line| !line.is_empty());
    Err(Refusal::Said(visible_within(said.unwrap_or("it failed without a word"), 200, |_| false)))
}

fn record_notice(store: &mut Writer, notice: &Notice<'_>, now: time::OffsetDateTime) -> Result<(), Failure> {
    let one = notice.certificate;
    store.transact(|ledger| {
        for days in &notice.steps {
            ledger.add_notice(&one.serial, *days, now)?;
        }
        let detail = json!({ "device": one.device, "serial": one.serial.to_string(), "days": notice.steps.last() });
        ledger.record_event(now, "expiry-told", one.address.as_str(), &detail)
    })?;
    Ok(())
}

/// Says what would be done, and touches nothing.
fn dry_run(env: &dyn Env, site: Option<&Utf8Path>, quiet: bool) -> Result<Report, Failure> {
    let (survey, _) = status::look(env, site, status::LIMITS)?;
    let due: Vec<_> = survey.findings.iter().filter(|finding| finding.due).collect();
    let mut lines = Vec::new();
    for alike in due.chunk_by(|one, other| one.id == other.id) {
        let Some(first) = alike.first() else { continue };
        let subjects = || alike.iter().map(|finding| finding.subject.as_str()).collect::<Vec<_>>().join(", ");
        lines.push(match first.id {
            "end-not-recorded" => format!("would record the end of {}", amount(alike.len(), "certificate")),
            "server-certificate-expires" => format!("would renew the server certificate of {}", subjects()),
            "crl-due" | "crl-ended" => format!("would make {}", amount(alike.len(), "CRL")),
            "notice-due" => format!("would send mail: {}", first.text),
            _ => format!("would bring {} up to date", subjects()),
        });
    }
    if lines.is_empty() && !quiet {
        lines.push("nothing is due".to_owned());
    }
    let json = json!({ "due": due.iter().map(|finding| finding.id).collect::<BTreeSet<_>>() });
    Ok(Report::fine(self::lines(&lines), json))
}

fn lines(lines: &[String]) -> String {
    lines.iter().fold(String::new(), |text, line| text + line + "\n")
}

fn amount(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}
