//! What `smtpd -n` says: of the whole that is staged, and of each mixture that stands there between two renames.

use std::collections::BTreeMap;

use camino::{Utf8Path, Utf8PathBuf};

use super::{CHECK, Judge, file_name, said};
use crate::diag::Diagnostic;
use crate::env::Finished;
use crate::host::HostError;
use crate::install::{Action, Found, Step};
use crate::platform::{OPENSMTPD_MINIMUM, Version};
use crate::secret::Secret;
use crate::site::{CertificateSource, SmtpdConf};
use crate::tree::Part;

impl Judge<'_> {
    pub(super) fn smtpd(&mut self) -> Result<(), HostError> {
        let Some(told) = self.ask("smtpd", &["-h"], None)? else {
            self.missing("smtpd", "OpenSMTPD");
            return Ok(());
        };
        self.version(&said(&told));
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
                self.refusal(finding, &said);
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
            if let CertificateSource::Files { certificate, key } = source {
                for path in [certificate.as_path(), key.as_path()] {
                    names.insert(path.to_owned(), root.outside(path));
                }
            }
        }
        names
    }

    /// Below 7.0 `verify` is no gate at all. `told` names the version: `OpenSMTPD 7.4.0-portable`.
    fn version(&mut self, told: &str) {
        let word = told.split_once("OpenSMTPD ").and_then(|(_, rest)| rest.split(['-', 'p', '\n', ' ']).next());
        let Some(version) = word.and_then(|word| word.parse::<Version>().ok()) else { return };
        let wanted = self.machine.host.opensmtpd.max(OPENSMTPD_MINIMUM);
        if self.machine.is_running() && version < wanted {
            let message = format!("OpenSMTPD {version} is installed, and {wanted} is needed");
            let help = "install a newer one, or correct `opensmtpd` of the host in postseal.toml";
            self.error("opensmtpd-too-old", message, help);
        }
    }
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
