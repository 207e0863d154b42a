//! What the daemons' own programs say to the staged files, before any of them is in its place.

use std::collections::BTreeMap;

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::Value;

use crate::diag::{Diagnostic, Severity};
use crate::env::{Env, Finished, Program};
use crate::host::checks::Facts;
use crate::host::{HostError, Machine};
use crate::install::{Action, Found, Installation, Step};
use crate::inventory::DkimState;
use crate::platform::{OPENSMTPD_MINIMUM, Version};
use crate::secret::Secret;
use crate::site::SmtpdConf;
use crate::tree::Part;

/// What the programs said.
#[derive(Debug, Default)]
pub struct Verdict {
    /// What is wrong.
    pub findings: Vec<Diagnostic>,
    /// What could not be asked, and why.
    pub notes: Vec<String>,
    /// The order of OpenSMTPD's files in which it starts after each of them.
    pub smtpd_order: Vec<Utf8PathBuf>,
}

/// A directory of ours, in which the staged files stand together under the names that they will have.
const CHECK: &str = ".postseal-check";

/// Has `smtpd -n`, `rspamadm configtest` and `rspamadm configdump` judge the staged files.
///
/// Where the host is the running system, a program that is missing is a finding; elsewhere this machine's is asked, and if it
/// has none that is noted.
pub fn judge(
    machine: &Machine<'_>,
    env: &dyn Env,
    installation: &Installation,
    facts: Facts<'_>,
) -> Result<Verdict, HostError> {
    let mut judge = Judge { machine, env, installation, facts, verdict: Verdict::default() };
    judge.smtpd()?;
    judge.rspamd()?;
    Ok(judge.verdict)
}

struct Judge<'a> {
    machine: &'a Machine<'a>,
    env: &'a dyn Env,
    installation: &'a Installation,
    facts: Facts<'a>,
    verdict: Verdict,
}

impl Judge<'_> {
    fn error(&mut self, code: &'static str, message: impl Into<String>, help: impl Into<String>) {
        self.verdict.findings.push(Diagnostic::error(code, message, help));
    }

    fn warning(&mut self, code: &'static str, message: impl Into<String>, help: impl Into<String>) {
        let finding = Diagnostic::error(code, message, help);
        self.verdict.findings.push(Diagnostic { severity: Severity::Warning, ..finding });
    }

    /// Runs a program; none if it is not there.
    fn ask(&self, name: &str, arguments: &[&str], user: Option<(u32, u32)>) -> Result<Option<Finished>, HostError> {
        match self.env.run(&Program { name, arguments, user }) {
            Ok(finished) => Ok(Some(finished)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(HostError::io("run", Utf8Path::new(name), source)),
        }
    }

    fn missing(&mut self, program: &str, package: &str) {
        if self.machine.is_running() {
            self.error(
                "not-installed",
                format!("`{program}` is not installed"),
                format!("install the package of {package}"),
            );
        } else {
            self.verdict.notes.push(format!("`{program}` is not installed here, so it was not asked"));
        }
    }

    // OpenSMTPD

    fn smtpd(&mut self) -> Result<(), HostError> {
        let Some(_) = self.ask("smtpd", &["-h"], None)? else {
            self.missing("smtpd", "OpenSMTPD");
            return Ok(());
        };
        self.version()?;
        let changed: Vec<Utf8PathBuf> =
            self.smtpd_files().filter(|step| step.action.changes()).map(|step| step.path.clone()).collect();
        self.verdict.smtpd_order.clone_from(&changed);
        let checks = Utf8Path::new(self.machine.layout.smtpd_dir).join(CHECK);
        self.clear(&checks)?;
        self.machine.root.make_directory(&checks, (0, 0), 0o700)?;
        let said = self.smtpd_in(&checks, &changed);
        self.clear(&checks)?;
        said
    }

    fn smtpd_files(&self) -> impl Iterator<Item = &Step> {
        let is_smtpd = |step: &&Step| {
            let wanted = step.wanted.as_ref();
            wanted.is_some_and(|wanted| wanted.part == Part::Smtpd && wanted.content.is_some())
        };
        self.installation.steps.iter().filter(is_smtpd)
    }

    /// What is removed and could be named by the administrator's own smtpd.conf.
    fn removed_for_smtpd(&self) -> impl Iterator<Item = &Step> {
        let layout = self.machine.layout;
        let is_own = self.machine.host.smtpd_conf == SmtpdConf::Fragments;
        let removed = self.installation.steps.iter().filter(|step| step.action == Action::Remove);
        removed.filter(move |step| is_own && step.path.starts_with(layout.smtpd_dir))
    }

    fn smtpd_in(&mut self, checks: &Utf8Path, changed: &[Utf8PathBuf]) -> Result<(), HostError> {
        match self.smtpd_starts(checks, changed)? {
            None => {
                let message =
                    format!("`{}` is not there, so nothing includes the fragments", self.machine.layout.smtpd_conf);
                self.without_fragments(message);
                return Ok(());
            }
            Some(Err(said)) => {
                let with = list(changed, self.machine.layout.smtpd_conf);
                let gone: Vec<Utf8PathBuf> = self.removed_for_smtpd().map(|step| step.path.clone()).collect();
                let without = if gone.is_empty() { String::new() } else { format!(" and without {}", list(&gone, "")) };
                let finding = Diagnostic::error(
                    "smtpd-refuses",
                    format!("smtpd would not start with {with}{without}"),
                    "mend what it names: a setting, a template of yours, or your own smtpd.conf",
                );
                let lines = said.lines().filter(|line| !line.trim().is_empty()).take(10);
                self.verdict.findings.push(lines.fold(finding, |finding, line| finding.note(line.trim())));
                return Ok(());
            }
            Some(Ok(())) => self.fragments_included()?,
        }
        // Between two renames both old and new files stand there: an order is wanted in which each mixture starts.
        for order in permutations(changed) {
            let mut starts = true;
            for count in 1..order.len() {
                let some = order.get(..count).unwrap_or_default();
                starts = starts && matches!(self.smtpd_starts(checks, some)?, Some(Ok(())));
            }
            if starts {
                self.verdict.smtpd_order = order;
                return Ok(());
            }
        }
        let note = format!("between the renames of {} smtpd would not start", list(changed, ""));
        self.verdict.notes.push(note);
        Ok(())
    }

    /// A configuration that the fragments are not part of goes on as it was, whatever postseal renders.
    fn fragments_included(&mut self) -> Result<(), HostError> {
        let main = Utf8Path::new(self.machine.layout.smtpd_conf);
        if self.machine.host.smtpd_conf != SmtpdConf::Fragments {
            return Ok(());
        }
        let Found::File(_, _, own) = self.machine.root.look(main)? else { return Ok(()) };
        let own = String::from_utf8_lossy(own.expose()).into_owned();
        let lines = || own.lines().filter(|line| !line.trim_start().starts_with('#'));
        let named = |step: &Step| lines().any(|line| line.contains(step.path.as_str()));
        let missing: Vec<Utf8PathBuf> =
            self.smtpd_files().filter(|step| !named(step)).map(|step| step.path.clone()).collect();
        if !missing.is_empty() {
            self.without_fragments(format!("`{main}` does not include {}", list(&missing, "")));
        }
        Ok(())
    }

    fn without_fragments(&mut self, message: String) {
        let path = self.machine.layout.smtpd_conf;
        let help = format!("let `{path}` include names.conf, listeners.conf and rules.conf, in this order");
        self.warning("no-smtpd-conf", message, help);
    }

    /// Asks `smtpd -n` about its configuration as it would be if of its own files only `new` were in place. None if the
    /// administrator's own smtpd.conf is not there.
    fn smtpd_starts(&self, checks: &Utf8Path, new: &[Utf8PathBuf]) -> Result<Option<Result<(), String>>, HostError> {
        let machine = self.machine;
        let mut texts: BTreeMap<Utf8PathBuf, String> = BTreeMap::new();
        for step in self.smtpd_files() {
            let wanted = step.wanted.as_ref().and_then(|wanted| wanted.content.as_ref());
            let found = match &step.found {
                Found::File(_, _, content) => Some(content),
                _ => None,
            };
            let is_new = new.contains(&step.path) || step.action == Action::Same;
            let content = if is_new { wanted } else { found.or(wanted) };
            texts.insert(step.path.clone(), content.and_then(Secret::expose_str).unwrap_or_default().to_owned());
        }
        let main = Utf8PathBuf::from(machine.layout.smtpd_conf);
        if machine.host.smtpd_conf == SmtpdConf::Fragments {
            let Found::File(_, _, own) = machine.root.look(&main)? else { return Ok(None) };
            texts.insert(main.clone(), String::from_utf8_lossy(own.expose()).into_owned());
        }
        let names = self.names(&texts, checks);
        for (path, text) in &texts {
            let copy = checks.join(file_name(path));
            machine.root.stage(&copy, &Secret::from(renamed(text, &names)), (0, 0), 0o600)?;
            machine.root.switch(&copy)?;
        }
        let copy = machine.root.outside(&checks.join(file_name(&main)));
        let back: BTreeMap<Utf8PathBuf, Utf8PathBuf> = names.into_iter().map(|(path, place)| (place, path)).collect();
        let answer = |finished: Finished| {
            if finished.success { Ok(()) } else { Err(renamed(&said(&finished), &back)) }
        };
        Ok(self.ask("smtpd", &["-n", "-f", copy.as_str()], None)?.map(answer))
    }

    /// Returns where each file of the host lies while smtpd is asked: its configuration in `checks`, what is staged beside its
    /// place, all else at its place.
    fn names(&self, texts: &BTreeMap<Utf8PathBuf, String>, checks: &Utf8Path) -> BTreeMap<Utf8PathBuf, Utf8PathBuf> {
        let root = &self.machine.root;
        let mut names = BTreeMap::new();
        for step in self.installation.steps.iter().filter(|step| step.wanted.is_some() && !step.is_directory()) {
            let staged = step.action.writes();
            names.insert(step.path.clone(), if staged { root.staged(&step.path) } else { root.outside(&step.path) });
        }
        // What will be gone is not to be found: a file of the administrator's may still name it.
        for step in self.removed_for_smtpd() {
            let nowhere = checks.join("removed").join(file_name(&step.path));
            names.insert(step.path.clone(), root.outside(&nowhere));
        }
        for path in texts.keys() {
            names.insert(path.clone(), root.outside(&checks.join(file_name(path))));
        }
        for source in [&self.machine.host.mx_certificate, &self.machine.host.submission_certificate] {
            if let crate::site::CertificateSource::Files { certificate, key } = source {
                for path in [certificate.as_path(), key.as_path()] {
                    names.insert(path.to_owned(), root.outside(path));
                }
            }
        }
        names
    }

    /// Below 7.0 `verify` is no gate at all.
    fn version(&mut self) -> Result<(), HostError> {
        let Some(finished) = self.ask("smtpd", &["-h"], None)? else { return Ok(()) };
        let text = said(&finished);
        let word = text.split_once("OpenSMTPD ").and_then(|(_, rest)| rest.split(['-', 'p', '\n', ' ']).next());
        let version = word.and_then(|word| word.parse::<Version>().ok());
        let Some(version) = version else { return Ok(()) };
        let wanted = self.machine.host.opensmtpd.max(OPENSMTPD_MINIMUM);
        if self.machine.is_running() && version < wanted {
            let message = format!("OpenSMTPD {version} is installed, and {wanted} is needed");
            self.error(
                "opensmtpd-too-old",
                message,
                "install a newer one, or correct `opensmtpd` of the host in postseal.toml",
            );
        }
        Ok(())
    }

    // Rspamd

    fn rspamd(&mut self) -> Result<(), HostError> {
        let layout = self.machine.layout;
        let main = Utf8Path::new(layout.rspamd_dir).join("rspamd.conf");
        let root = &self.machine.root;
        // A directory that is only being filled is judged with the configuration of this machine's package.
        let main = [root.outside(&main), main].into_iter().find(|path| path.is_file());
        let Some(main) = main else {
            self.missing(&format!("{}/rspamd.conf", layout.rspamd_dir), "Rspamd");
            return Ok(());
        };
        let checks = Utf8Path::new(layout.rspamd_dir).join(CHECK);
        self.clear(&checks)?;
        root.make_directory(&checks, (0, 0), 0o755)?;
        let said = self.rspamd_in(&checks, &main);
        self.clear(&checks)?;
        said
    }

    fn rspamd_in(&mut self, checks: &Utf8Path, main: &Utf8Path) -> Result<(), HostError> {
        self.overlay(checks)?;
        let local = format!("--var=LOCAL_CONFDIR={}", self.machine.root.outside(checks));
        let state = format!("--var=DBDIR={}", self.machine.root.outside(self.machine.layout.rspamd_state.into()));
        // As Rspamd's own user: what it may not read stops it, and the Lua of another system's configuration runs here. Below
        // a directory that is only being filled all is ours, and that user may not reach it.
        let user = self.machine.accounts.user_and_group(self.machine.layout.rspamd_user).ok();
        let user = user.filter(|_| self.machine.is_system());
        let ask = |arguments: &[&str]| {
            let all: Vec<&str> = [&[local.as_str(), state.as_str()], arguments].concat();
            self.ask("rspamadm", &all, user)
        };
        let tested = ask(&["configtest", "-c", main.as_str()])?;
        let Some(tested) = tested else {
            self.missing("rspamadm", "Rspamd");
            return Ok(());
        };
        if !tested.success {
            let finding = Diagnostic::error(
                "rspamd-refuses",
                "Rspamd would not start with the new configuration",
                "mend what it names: a template of yours, or a file of yours in local.d or override.d",
            );
            let text =
                said(&tested).replace(self.machine.root.outside(checks).as_str(), self.machine.layout.rspamd_dir);
            let lines = text.lines().filter(|line| !line.trim().is_empty()).take(10);
            self.verdict.findings.push(lines.fold(finding, |finding, line| finding.note(line.trim())));
            return Ok(());
        }
        let dumped = ask(&["configdump", "-c", main.as_str(), "-j"])?;
        let model = dumped.and_then(|dumped| serde_json::from_str::<Value>(&dumped.output).ok());
        let sections = model.as_ref().map(|model| (model.get("dkim_signing"), model.get("worker")));
        if let Some((Some(signing), Some(workers))) = sections {
            self.signing(signing);
            self.socket(workers);
        } else {
            self.warning(
                "unjudged",
                "`rspamadm configdump` does not tell whether Rspamd would sign",
                "send a mail to yourself after the restart, and look at its signatures",
            );
        }
        Ok(())
    }

    /// Makes a directory that looks as the host's own for Rspamd will: links to what stays, and to what is staged.
    fn overlay(&self, checks: &Utf8Path) -> Result<(), HostError> {
        let root = &self.machine.root;
        let own = Utf8Path::new(self.machine.layout.rspamd_dir);
        let changed = ["local.d", "override.d"];
        for name in root.list(own)? {
            if !changed.contains(&name.as_str()) && !name.starts_with(CHECK) {
                root.link(&root.outside(&own.join(&name)), &checks.join(&name))?;
            }
        }
        for directory in changed {
            root.make_directory(&checks.join(directory), (0, 0), 0o755)?;
            let mut places: BTreeMap<String, Option<Utf8PathBuf>> = BTreeMap::new();
            for name in root.list(&own.join(directory))?.into_iter().filter(|name| !name.starts_with(".postseal-")) {
                let place = root.outside(&own.join(directory).join(&name));
                places.insert(name, Some(place));
            }
            let steps = self.installation.steps.iter().filter(|step| step.path.parent() == Some(&own.join(directory)));
            for step in steps {
                let name = step.path.file_name().unwrap_or_default().to_owned();
                if step.action.changes() {
                    places.insert(name, step.action.writes().then(|| root.staged(&step.path)));
                }
            }
            for (name, place) in places {
                if let Some(place) = place {
                    root.link(&place, &checks.join(directory).join(name))?;
                }
            }
        }
        Ok(())
    }

    /// Another file can take the place of what local.d says, silently: what counts is what Rspamd makes of them all.
    fn signing(&mut self, model: &Value) {
        let site = self.facts.site;
        let keys = self.facts.inventory.dkim_keys.iter();
        let active: Vec<_> =
            keys.filter(|key| key.state == DkimState::Active && site.has_domain(&key.domain)).collect();
        let enabled = model.get("enabled").is_none_or(|value| value != false);
        let signs = enabled && model.get("sign_authenticated").is_some_and(|value| value == true);
        for key in active {
            let selectors = model.pointer(&format!("/domain/{}/selectors", key.domain)).and_then(Value::as_array);
            let path = format!("{}/dkim/{}", self.machine.layout.rspamd_state, crate::dkim::key_file_name(key));
            let is_key = |entry: &Value| {
                entry.get("selector").is_some_and(|value| value == key.selector.as_str())
                    && entry.get("path").is_some_and(|value| value == path.as_str())
            };
            if !signs || !selectors.is_some_and(|selectors| selectors.iter().any(is_key)) {
                let record = crate::dkim::record_name(&key.selector, &key.domain);
                let message = format!("Rspamd would not sign with {record}");
                let help = format!(
                    "look what takes the place of local.d/dkim_signing.conf: {}/override.d, {}/dynamic, or a template of yours",
                    self.machine.layout.rspamd_dir, self.machine.layout.rspamd_state
                );
                // Whoever writes the template may sign by other means.
                if self.facts.own_signing {
                    self.warning("unsigned", message, help);
                } else {
                    self.error("unsigned", message, help);
                }
            }
        }
    }

    /// The filter asks Rspamd at one socket; where that is missing, every mail is put off.
    fn socket(&mut self, workers: &Value) {
        let wanted = format!("{}/normal.sock", self.machine.layout.rspamd_run);
        let listens = |socket: &Value| socket.as_str().is_some_and(|socket| socket.starts_with(&wanted));
        // One worker is an object, several are a list of them.
        let mut workers = workers.as_array().map_or_else(|| std::slice::from_ref(workers), Vec::as_slice).iter();
        let found = workers.any(|worker| match worker.pointer("/normal/bind_socket") {
            Some(Value::Array(sockets)) => sockets.iter().any(listens),
            Some(socket) => listens(socket),
            None => false,
        });
        if !found {
            let message = format!("Rspamd's normal worker would not listen at {wanted}, where the filter asks it");
            let help =
                format!("look what takes the place of local.d/worker-normal.inc in {}", self.machine.layout.rspamd_dir);
            self.error("rspamd-socket", message, help);
        }
    }

    /// Removes a directory of ours with what is in it.
    fn clear(&self, checks: &Utf8Path) -> Result<(), HostError> {
        let root = &self.machine.root;
        for name in root.list(checks)? {
            let path = checks.join(&name);
            if matches!(root.look(&path)?, Found::Directory(..)) {
                for inner in root.list(&path)? {
                    root.remove(&path.join(inner))?;
                }
                root.remove_directory(&path);
            } else {
                root.remove(&path)?;
            }
        }
        root.remove_directory(checks);
        Ok(())
    }
}

/// What a program wrote, complaints first.
fn said(finished: &Finished) -> String {
    format!("{}{}", finished.errors, finished.output)
}

fn file_name(path: &Utf8Path) -> &str {
    path.file_name().unwrap_or_default()
}

fn list(paths: &[Utf8PathBuf], or: &str) -> String {
    let names: Vec<String> = paths.iter().map(|path| format!("`{path}`")).collect();
    if names.is_empty() { format!("`{or}`") } else { names.join(" and ") }
}

/// Replaces whole paths in a text: not those that only begin or end like one.
fn renamed(text: &str, names: &BTreeMap<Utf8PathBuf, Utf8PathBuf>) -> String {
    let in_path = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('/') {
        // A path begins where no character of one stands before it.
        let begin = rest.get(..start).unwrap_or_default().trim_end_matches(in_path).len();
        let tail = rest.get(begin..).unwrap_or_default();
        let length = tail.find(|c| !in_path(c)).unwrap_or(tail.len());
        let path = tail.get(..length).unwrap_or_default();
        out.push_str(rest.get(..begin).unwrap_or_default());
        out.push_str(names.get(Utf8Path::new(path)).map_or(path, |place| place.as_str()));
        rest = tail.get(length..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}

/// Returns every order of a few things, the given one first.
fn permutations<T: Clone>(things: &[T]) -> Vec<Vec<T>> {
    if things.len() < 2 {
        return vec![things.to_vec()];
    }
    let mut all = Vec::new();
    for (position, first) in things.iter().enumerate() {
        let mut others = things.to_vec();
        others.remove(position);
        for order in permutations(&others) {
            all.push([vec![first.clone()], order].concat());
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_paths_are_renamed_and_no_parts_of_them() {
        let names = [("/etc/mail/senders".into(), "/x/1".into())].into();
        let text =
            "table \"senders\" \"file:/etc/mail/senders\"\n/etc/mail/senders2 /a/etc/mail/senders /etc/mail/senders";
        let expected = "table \"senders\" \"file:/x/1\"\n/etc/mail/senders2 /a/etc/mail/senders /x/1";
        assert_eq!(renamed(text, &names), expected);
    }

    #[test]
    fn every_order_is_tried_the_given_one_first() {
        let orders = permutations(&[1, 2, 3]);
        assert_eq!((orders.len(), &orders[0]), (6, &vec![1, 2, 3]));
        assert_eq!(permutations::<u8>(&[]), [Vec::<u8>::new()]);
    }
}
