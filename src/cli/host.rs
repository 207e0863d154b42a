//! `plan` and `apply`: what a host has, and what it should have.

use std::collections::BTreeSet;

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::json;

use crate::cli::args::{Apply, Install};
use crate::cli::dkim::Ways;
use crate::cli::failure::{DIFFERS, Failure};
use crate::cli::report::{Report, columns};
use crate::cli::session::{self, Wanted};
use crate::cli::takeover::{self, Taken, Takeover};
use crate::diag::{Diagnostic, Severity, did_you_mean};
use crate::env::Env;
use crate::host::{self, Facts, HostError, Machine, Rspamd, Verifier};
use crate::install::{Action, Choices, Effect, Found, Installation, Step, commands};
use crate::inventory::Inventory;
use crate::names::{AbsolutePath, Digest, HostName, shell_word};
use crate::site::{Host, Site, SmtpdConf};
use crate::store::ledger::LedgerError;
use crate::store::{Store, Writer};
use crate::tree::Resolve as _;

/// `plan`
pub(super) fn plan(env: &dyn Env, site: Option<&Utf8Path>, args: &Install) -> Result<Report, Failure> {
    refuse_site_of_others(env, site)?;
    let (wanted, store) = session::read(site)?;
    let inventory = store.inventory()?;
    let host = the_host(&wanted.site, args.host.as_ref())?;
    let machine = Machine::open(host, &args.root)?;
    let installation = compare(&machine, &wanted, &store, &inventory, host, args)?;
    let facts = facts(env, &wanted, &inventory);
    let mut warnings = wanted.warnings.clone();
    warnings.extend(host::own_checks(&machine, &installation, facts));
    let failed = warnings.iter().any(|finding| finding.severity == Severity::Error);
    let mut text = steps(&machine, &installation);
    // What a killed run made due, `apply` will tell too.
    let mut due = store.ledger().due(&host.name, machine.root())?;
    due.extend(installation.effects());
    let then = commands(&due, host.platform.layout());
    for command in &then {
        text.push_str(&format!("then: {command}\n"));
    }
    text.push_str(&installation.summary());
    text.push('\n');
    let exit_code = if installation.is_done() && then.is_empty() && !failed { 0 } else { DIFFERS };
    let report =
        Report { exit_code, foreign: true, ..Report::fine(text, to_json(&machine, &installation, host, &then)) };
    Ok(report.warn(&warnings).warn(&hindrances(&installation)))
}

/// `apply`
pub(super) fn apply(env: &dyn Env, site: Option<&Utf8Path>, args: &Apply) -> Result<Report, Failure> {
    if !host::is_root() {
        let help = "run it as root; to look at the files, see out/ or run: postseal plan";
        return Err(Failure::work("not-root", "only root can give files to the daemons' users", help));
    }
    refuse_site_of_others(env, site)?;
    let (wanted, mut store) = session::write(env, site)?;
    let ways = (!args.no_reload).then_some(&args.ways);
    let installed = install(env, &wanted, &mut store, &args.install, ways)?;
    let mut text = installed.text;
    for command in &installed.due {
        text.push_str(&format!("now: {command}\n"));
    }
    let told = installed.due.iter().map(|command| format!("now: {command}"));
    let told = std::iter::once(installed.done).chain(told).collect::<Vec<_>>().join("; ");
    let report = Report::fine(text, installed.json).warn(&installed.warnings);
    Ok(report.done(told))
}

/// What an installation did.
pub(super) struct Installed {
    pub(super) text: String,
    pub(super) json: serde_json::Value,
    pub(super) warnings: Vec<Diagnostic>,
    /// What must be told to the daemons: shell commands, in order.
    pub(super) due: Vec<String>,
    /// What is done, in words such as `mail.example.com is installed on /`.
    done: String,
}

/// Installs what is rendered. With ways to find name servers, a running Rspamd takes it over; other daemons are not told.
pub(super) fn install(
    env: &dyn Env,
    wanted: &Wanted,
    store: &mut Writer,
    args: &Install,
    ways: Option<&Ways>,
) -> Result<Installed, Failure> {
    let inventory = store.inventory()?;
    let host = the_host(&wanted.site, args.host.as_ref())?;
    let machine = Machine::open(host, &args.root)?;
    machine.lock()?;
    let installation = compare(&machine, wanted, store, &inventory, host, args)?;
    let facts = facts(env, wanted, &inventory);
    let mut warnings = wanted.warnings.clone();
    let hindrances = hindrances(&installation);
    if !hindrances.is_empty() {
        return Err(Failure::Check(hindrances));
    }
    warnings.extend(refuse_errors(host::own_checks(&machine, &installation, facts))?);
    let staging = machine.stage(&installation)?;
    let verdict = host::judge(&machine, env, &installation, facts)?;
    warnings.extend(refuse_errors(verdict.findings)?);
    refuse_changed_meanwhile(&machine, &installation)?;
    let kept = keep_replaced(store, host, &installation)?;
    record(env, store, &machine, host, &installation)?;
    let is_due = takeover::is_due(&store.ledger().due(&host.name, machine.root())?);
    let own_signing = facts.own_signing;
    let ways = ways.filter(|_| machine.is_running());
    let takeover = Takeover {
        env,
        wanted,
        inventory: &inventory,
        host,
        machine: &machine,
        installation: &installation,
        own_signing,
        is_due,
    };
    let rspamd = awaited(store, ways, takeover)?;
    staging.switch(&verdict.smtpd_order).map_err(half_way)?;
    let taken = taken_over(store, &machine, host, &rspamd)?;
    machine.remove_unused(&installation).map_err(half_way)?;
    // An earlier run may have been killed before it said what it had made due.
    let mut due = store.ledger().due(&host.name, machine.root())?;
    if matches!(rspamd, Awaited::Answers(..)) {
        due.remove(&Effect::RestartRspamd);
    }
    let due = commands(&due, host.platform.layout());
    // What is said twice does no harm, and the files are in place whatever becomes of the ledger now.
    let _ = store.transact(|ledger| ledger.forget_due(&host.name, machine.root()));
    warnings.extend(taken.warnings);
    let mut text = String::new();
    for (path, kept) in &kept {
        text.push_str(&format!("kept what {path} held in {kept}\n"));
    }
    for note in &verdict.notes {
        text.push_str(&format!("note: {note}\n"));
    }
    text.push_str(&done(&machine, &installation, host));
    text.push_str(&taken.text);
    let mut json = to_json(&machine, &installation, host, &due);
    if let Some(json) = json.as_object_mut() {
        let kept = kept.iter().map(|(path, kept)| json!({ "path": path.as_str(), "kept": kept.as_str() }));
        json.insert("kept".to_owned(), kept.collect());
        json.insert("notes".to_owned(), json!(verdict.notes));
        json.insert("proof".to_owned(), taken.json);
    }
    let done = format!("{} is installed on {}", host.name, machine.root());
    Ok(Installed { text, json, warnings, due, done })
}

/// Whether Rspamd is to take over what is installed.
enum Awaited<'a> {
    /// No: nothing is new to it, or it is not to be told.
    Nothing,
    /// It is, but does not answer.
    Silent(Rspamd),
    /// It is, and answers.
    Answers(Rspamd, Takeover<'a>, Box<Verifier>),
}

/// Asks, before anything is switched, whether there is an Rspamd to take over what is new, or what is not known to be in force.
fn awaited<'a>(store: &Writer, ways: Option<&Ways>, takeover: Takeover<'a>) -> Result<Awaited<'a>, Failure> {
    let Some(ways) = ways else { return Ok(Awaited::Nothing) };
    let is_new = takeover.is_due || takeover.machine.changes_for_rspamd(takeover.installation).next().is_some();
    if !is_new && store.ledger().dkim_in_force()?.contains(&takeover.host.name) {
        return Ok(Awaited::Nothing);
    }
    let rspamd = Rspamd::new(takeover.host.platform.layout());
    if !rspamd.answers() {
        return Ok(Awaited::Silent(rspamd));
    }
    Ok(Awaited::Answers(rspamd, takeover, Box::new(Verifier::new(ways.resolver())?)))
}

/// Has Rspamd take over, if it answered. What others must be told stays due if that fails, and is said.
fn taken_over(store: &mut Writer, machine: &Machine<'_>, host: &Host, awaited: &Awaited<'_>) -> Result<Taken, Failure> {
    match awaited {
        Awaited::Nothing => Ok(Taken::default()),
        Awaited::Silent(rspamd) => {
            let why = format!("Rspamd does not answer at {}, so it was not proved that it signs", rspamd.socket());
            let text = format!("note: {why}; once it runs: postseal apply\n");
            Ok(Taken { text, json: json!({ "unproved": why }), ..Taken::default() })
        }
        Awaited::Answers(rspamd, takeover, verifier) => takeover.run(store, rspamd, verifier).map_err(|mut failure| {
            let mut due = store.ledger().due(&host.name, machine.root()).unwrap_or_default();
            due.remove(&Effect::RestartRspamd);
            if let Failure::Work(finding) = &mut failure {
                let told = commands(&due, host.platform.layout()).into_iter();
                finding.notes.extend(told.map(|order| format!("all else is installed; now: {order}")));
            }
            failure
        }),
    }
}

/// As root, orders are taken from a site that nobody else can write.
pub(super) fn refuse_site_of_others(env: &dyn Env, site: Option<&Utf8Path>) -> Result<(), Failure> {
    if !host::is_root() {
        return Ok(());
    }
    let sudo_user = env.variable("SUDO_UID").and_then(|number| number.parse().ok());
    let directory = session::directory(site);
    if !directory.root().exists() {
        // What reads the settings says so.
        return Ok(());
    }
    let found = host::refuse_writable_by_others(directory.root(), sudo_user)?;
    found.map_or(Ok(()), |(path, reason)| {
        let message = format!("`{path}` {reason}: others could tell root what to install");
        let word = shell_word(path.as_str());
        let help = format!("look whether it was changed, then: chown root {word}; chmod go-w {word}");
        Err(Failure::input("site-of-others", message, help))
    })
}

/// Returns the host of that name, or without a name the only one.
pub(super) fn the_host<'a>(site: &'a Site, name: Option<&HostName>) -> Result<&'a Host, Failure> {
    let names = || site.hosts.iter().map(|host| host.name.as_str());
    match (name, site.hosts.as_slice()) {
        (None, [only]) => Ok(only),
        (None, _) => {
            let help = format!("name it: --host NAME, one of {}", names().collect::<Vec<_>>().join(", "));
            Err(Failure::input("host-not-named", "the site has several hosts", help))
        }
        (Some(name), hosts) => hosts.iter().find(|host| host.name == *name).ok_or_else(|| {
            let help = match did_you_mean(name.as_str(), names()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the site has {}", names().collect::<Vec<_>>().join(", ")),
            };
            Failure::input("host-unknown", format!("the site has no host `{name}`"), help)
        }),
    }
}

fn compare(
    machine: &Machine<'_>,
    wanted: &Wanted,
    store: &Store,
    inventory: &Inventory,
    host: &Host,
    args: &Install,
) -> Result<Installation, Failure> {
    let tree = wanted.checked(inventory, store)?;
    let wanted = machine.wanted(&tree, |stored| store.resolve(stored).map_err(Failure::from))?;
    let installed = store.ledger().installed(&host.name, machine.root())?;
    let paths: BTreeSet<&Utf8PathBuf> =
        wanted.iter().map(|wanted| &wanted.path).chain(installed.iter().map(|(path, _)| path)).collect();
    let found = machine.found(paths.iter().copied())?;
    let set = |paths: &[AbsolutePath]| paths.iter().map(|path| path.as_path().to_owned()).collect();
    let mut choices = Choices { adopt: set(&args.adopt), keep: set(&args.keep) };
    let unknown = choices.adopt.iter().chain(&choices.keep).find(|path| !paths.contains(path));
    if let Some(unknown) = unknown {
        let near = did_you_mean(unknown.as_str(), paths.iter().map(|path| path.as_str()));
        let help =
            near.map_or_else(|| "see the paths: postseal plan".to_owned(), |near| format!("did you mean `{near}`?"));
        return Err(Failure::input("path-unknown", format!("`{unknown}` is no file of postseal's on this host"), help));
    }
    if host.smtpd_conf == SmtpdConf::Fragments {
        // What was rendered there before is the administrator's now: without it smtpd does not start.
        choices.keep.insert(host.platform.layout().smtpd_conf.into());
    }
    let installation = Installation::new(wanted, found, &installed, &choices);
    machine.refuse_missing_packages(&installation)?;
    Ok(installation)
}

fn facts<'a>(env: &dyn Env, wanted: &'a Wanted, inventory: &'a Inventory) -> Facts<'a> {
    let own_signing = wanted.templates.iter().any(|(name, _)| name == "rspamd/local.d/dkim_signing.conf");
    Facts { site: &wanted.site, inventory, own_signing, now: env.now() }
}

/// Says what only the administrator can decide or mend.
fn hindrances(installation: &Installation) -> Vec<Diagnostic> {
    let hindrance = |step: &Step| {
        let path = &step.path;
        if step.action == Action::Foreign {
            let message = format!("`{path}` was not written by postseal, or was changed since");
            let help = format!(
                "replace it (a copy is kept): --adopt {path}; leave it: --keep {path}; or bring its changes into postseal.toml or templates/"
            );
            return Diagnostic::error("not-ours", message, help);
        }
        if step.found == Found::Unreadable {
            return Diagnostic::error("unreadable", format!("`{path}` cannot be read"), "run this as root");
        }
        let message = format!("`{path}` is not of its kind or too large, or a link or a file stands in the way to it");
        Diagnostic::error("in-the-way", message, "move it away: postseal follows no links and removes no directory")
    };
    installation.hindrances().map(hindrance).collect()
}

/// Returns the warnings, unless there are errors.
fn refuse_errors(findings: Vec<Diagnostic>) -> Result<Vec<Diagnostic>, Failure> {
    if findings.iter().any(|finding| finding.severity == Severity::Error) {
        return Err(Failure::Check(findings));
    }
    Ok(findings)
}

/// The checks took seconds, in which somebody may have saved a file.
fn refuse_changed_meanwhile(machine: &Machine<'_>, installation: &Installation) -> Result<(), Failure> {
    let now = machine.found(installation.changes().map(|step| &step.path))?;
    // A directory that was missing is made for the staged files in it.
    let mut files = installation.changes().filter(|step| !step.is_directory());
    files.find(|step| now.get(&step.path) != Some(&step.found)).map_or(Ok(()), |step| {
        let message = format!("`{}` was changed while its replacement was checked", step.path);
        Err(Failure::Check(vec![Diagnostic::error("changed-meanwhile", message, "look at it: postseal plan")]))
    })
}

/// Says what a switch that failed in the middle means.
fn half_way(error: HostError) -> Failure {
    let mut failure = Failure::from(error);
    if let Failure::Work(diagnostic) = &mut failure {
        diagnostic.notes.push("some files are in place and some are not; the daemons start with either".to_owned());
        "mend what hinders it, and run the same command again".clone_into(&mut diagnostic.help);
    }
    failure
}

/// Keeps what is replaced and was written by others. Returns the paths, and where each is kept.
fn keep_replaced(
    store: &Writer,
    host: &Host,
    installation: &Installation,
) -> Result<Vec<(Utf8PathBuf, Utf8PathBuf)>, Failure> {
    let mut all = Vec::new();
    for step in installation.steps.iter().filter(|step| step.action == Action::Adopt) {
        if let Found::File(_, _, content) = &step.found {
            all.push((step.path.clone(), store.keep_replaced(&host.name, &step.path, content)?));
        }
    }
    Ok(all)
}

/// Records what will be ours, before it is put into its place: after a kill it is known, and not taken for somebody else's.
fn record(
    env: &dyn Env,
    store: &mut Writer,
    machine: &Machine<'_>,
    host: &Host,
    installation: &Installation,
) -> Result<(), Failure> {
    let now = env.now();
    let ours = |step: &Step| {
        let content = step.wanted.as_ref()?.content.as_ref()?;
        let is_ours = step.action.writes() || step.action == Action::Same;
        is_ours.then(|| (step.path.clone(), Digest::of(content.expose())))
    };
    let ours: Vec<_> = installation.steps.iter().filter_map(ours).collect();
    let known = store.ledger().installed(&host.name, machine.root())?;
    let new: Vec<_> = ours.into_iter().filter(|file| !known.contains(file)).collect();
    let changes = installation.changes().count();
    if new.is_empty() && changes == 0 {
        return Ok(());
    }
    store.transact(|ledger| {
        for (path, digest) in &new {
            ledger.record_installed(&host.name, machine.root(), (path, *digest), now)?;
        }
        for effect in installation.effects() {
            ledger.add_due(&host.name, machine.root(), &effect)?;
        }
        let detail = json!({ "root": machine.root().as_str(), "changes": changes });
        ledger.record_event(now, "installing", host.name.as_str(), &detail)?;
        Ok::<(), LedgerError>(())
    })?;
    Ok(())
}

/// Draws what is not as it should be, with the difference of public files.
fn steps(machine: &Machine<'_>, installation: &Installation) -> String {
    let listed = installation.steps.iter().filter(|step| step.action != Action::Same);
    let rows: Vec<Vec<String>> = listed
        .clone()
        .map(|step| {
            let slash = if step.is_directory() { "/" } else { "" };
            vec![step.action.as_str().to_owned(), format!("{}{slash}", step.path), detail(machine, step)]
        })
        .collect();
    let diffs =
        listed.filter(|step| matches!(step.action, Action::Adopt | Action::Change | Action::Foreign | Action::Keep));
    let diffs: String = diffs.filter_map(Step::unified).collect();
    columns(&rows) + &diffs
}

fn detail(machine: &Machine<'_>, step: &Step) -> String {
    let Some(wanted) = &step.wanted else { return String::new() };
    let attributes = |owner, mode: u32| format!("{} {mode:04o}", machine.owner_names(owner));
    let should = attributes(wanted.owner, wanted.mode);
    match &step.found {
        Found::Directory(owner, mode) | Found::File(owner, mode, _)
            if (*owner, *mode) != (wanted.owner, wanted.mode) =>
        {
            format!("{} -> {should}", attributes(*owner, *mode))
        }
        _ => should,
    }
}

fn done(machine: &Machine<'_>, installation: &Installation, host: &Host) -> String {
    let count = installation.changes().count();
    if count == 0 {
        return format!("{} is as it should be\n", machine.root());
    }
    format!("{}installed {} on {}\n", steps_done(installation), host.name, machine.root())
}

fn steps_done(installation: &Installation) -> String {
    let rows: Vec<Vec<String>> = installation
        .steps
        .iter()
        .filter(|step| step.action != Action::Same)
        .map(|step| vec![step.action.as_str().to_owned(), step.path.to_string()])
        .collect();
    columns(&rows)
}

fn to_json(machine: &Machine<'_>, installation: &Installation, host: &Host, then: &[String]) -> serde_json::Value {
    let step = |step: &Step| {
        let wanted = step.wanted.as_ref();
        json!({
            "path": step.path.as_str(),
            "action": step.action.as_str(),
            "owner": wanted.map(|wanted| machine.owner_names(wanted.owner)),
            "mode": wanted.map(|wanted| format!("{:04o}", wanted.mode)),
            "class": wanted.map(|wanted| wanted.class.as_str()),
            "diff": step.unified(),
        })
    };
    json!({
        "host": host.name,
        "root": machine.root().as_str(),
        "steps": installation.steps.iter().map(step).collect::<Vec<_>>(),
        "then": then,
    })
}
