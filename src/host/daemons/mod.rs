//! What the daemons' own programs say to the staged files, before any of them is in its place.

mod rspamd;
mod smtpd;
mod web;

use camino::{Utf8Path, Utf8PathBuf};

use crate::diag::Diagnostic;
use crate::env::{Env, Finished, Program};
use crate::host::checks::Facts;
use crate::host::{HostError, Machine};
use crate::install::{Found, Installation};

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

/// Has `smtpd -n`, `rspamadm configtest` and `rspamadm configdump` judge the staged files, and on the running system the web
/// server its own.
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
    judge.web()?;
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
        self.verdict.findings.push(Diagnostic::warning(code, message, help));
    }

    /// Reports that a daemon would not start, with the first lines of what its program said.
    fn refusal(&mut self, finding: Diagnostic, text: &str) {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty()).take(10);
        self.verdict.findings.push(lines.fold(finding, Diagnostic::note));
    }

    /// Runs a program; none if it is not there.
    fn ask(&self, name: &str, arguments: &[&str], user: Option<(u32, u32)>) -> Result<Option<Finished>, HostError> {
        match self.env.run(&Program { name, arguments, user, input: &[] }) {
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
