//! Why a command did not do its work, and the exit code that says so.

use std::io::ErrorKind;

use crate::diag::Diagnostic;
use crate::host::HostError;
use crate::keys::KeyError;
use crate::pki::PkiError;
use crate::store::StoreError;
use crate::store::ledger::LedgerError;
use crate::token::TokenError;

/// The exit code of a command whose comparison found a difference.
pub(super) const DIFFERS: u8 = 1;

/// Why a command stopped. Each kind has its exit code (`facts/ci-contract.md`, section 3).
#[derive(Debug)]
pub(super) enum Failure {
    /// The command line or the settings are wrong: exit code 2, nothing was written.
    Input(Vec<Diagnostic>),
    /// A check on the host failed, and nothing was changed there: exit code 1.
    Check(Vec<Diagnostic>),
    /// The work could not be done: input or output, a missing program: exit code 3.
    Work(Box<Diagnostic>),
    /// The ledger's change counts, but what follows from it could not be done: exit code 3.
    Recorded(Vec<Diagnostic>),
    /// A secret would have been written or shown: exit code 4.
    Secret(Box<Diagnostic>),
    /// Nobody reads standard output any more: exit code 0, as for `postseal dns | head -1`.
    BrokenPipe,
}

impl Failure {
    /// Makes a failure of one wrong input.
    pub(super) fn input(code: &'static str, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::Input(vec![Diagnostic::error(code, message, help)])
    }

    /// Makes a failure of work that could not be done.
    pub(super) fn work(code: &'static str, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::Work(Box::new(Diagnostic::error(code, message, help)))
    }

    /// Makes a refusal to write or show a secret.
    pub(super) fn secret(code: &'static str, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::Secret(Box::new(Diagnostic::error(code, message, help)))
    }

    /// Says that a change is recorded all the same, in words such as `alice@example.com is removed`, and what is left to do.
    pub(super) fn after(self, recorded: &str) -> Self {
        if matches!(self, Self::BrokenPipe | Self::Recorded(_)) {
            return self;
        }
        let message = format!("{recorded}, but out/ and postseal.lock may not show it yet");
        let help = "mend what is named above, then: postseal render; there is no need to repeat this command";
        if let Self::Secret(diagnostic) = self {
            return Self::Secret(Box::new(diagnostic.note(format!("{message}; {help}"))));
        }
        let mut diagnostics = self.diagnostics().to_vec();
        diagnostics.push(Diagnostic::error("not-rendered", message, help));
        Self::Recorded(diagnostics)
    }

    /// Says that a run over many ended here, what of it is recorded, in words such as `2 certificates are`, and how it goes on.
    pub(super) fn stopped(self, recorded: &str) -> Self {
        let mut diagnostics = self.diagnostics().to_vec();
        let message = format!("{recorded} recorded, and the run ended there");
        let help = "mend what is named above, and run the same command again: it goes on where it stopped";
        diagnostics.push(Diagnostic::error("import-stopped", message, help));
        Self::Recorded(diagnostics)
    }

    /// Says that a handover is recorded all the same, and who removes what is still there.
    pub(super) fn unremoved(self, recorded: &str) -> Self {
        let mut diagnostics = self.diagnostics().to_vec();
        let help = "mend what is named above, then: postseal render; there is no need to repeat this command";
        diagnostics.push(Diagnostic::error("not-removed", format!("{recorded}, but some of it is still here"), help));
        Self::Recorded(diagnostics)
    }

    /// Says that all is done, though the report of it could not be shown.
    pub(super) fn unshown(self, done: &str) -> Self {
        let Self::Work(mut diagnostic) = self else { return self };
        diagnostic.notes.push(format!("{done}; only the report of it is lost"));
        "look at where standard output goes; there is no need to repeat this command".clone_into(&mut diagnostic.help);
        Self::Recorded(vec![*diagnostic])
    }

    /// Returns the exit code.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::BrokenPipe => 0,
            Self::Check(_) => DIFFERS,
            Self::Input(_) => 2,
            Self::Recorded(_) | Self::Work(_) => 3,
            Self::Secret(_) => 4,
        }
    }

    /// Returns what to show.
    pub(super) fn diagnostics(&self) -> &[Diagnostic] {
        match self {
            Self::BrokenPipe => &[],
            Self::Check(diagnostics) | Self::Input(diagnostics) | Self::Recorded(diagnostics) => diagnostics,
            Self::Work(diagnostic) | Self::Secret(diagnostic) => std::slice::from_ref(diagnostic.as_ref()),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self::BrokenPipe;
        }
        Self::work("output", format!("could not write the output: {error}"), "look at where standard output goes")
    }
}

/// The store's errors say `problem; mend`, so that a log of one line is enough; here the two are shown apart.
impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let text = error.to_string();
        let (problem, mend) = match &error {
            // A path may hold what else parts problem and mend.
            StoreError::Io { source, .. } => (text.as_str(), io_mend(source.kind())),
            _ => text.split_once("; ").unwrap_or((&text, "look at the place named, and run the command again")),
        };
        match error {
            StoreError::Text(diagnostic) => Self::Input(vec![*diagnostic]),
            StoreError::Io { source, .. } if is_wrong_name(source.kind()) => Self::input("file-name", problem, mend),
            StoreError::ListTooLong(_)
            | StoreError::NotAFile(_)
            | StoreError::Outside(_)
            | StoreError::TooLong { .. } => Self::input("file-name", problem, mend),
            StoreError::Completed(_)
            | StoreError::HoldsSite(_)
            | StoreError::LedgerLost(_)
            | StoreError::NoSecret(_)
            | StoreError::NoState(_)
            | StoreError::Occupied(_) => Self::input("site", problem, mend),
            StoreError::Damaged(_) => Self::input("backup-damaged", problem, mend),
            StoreError::NoBackup(_) => Self::input("no-backup", problem, mend),
            StoreError::WrongOpener(_) => Self::input("backup-key", problem, mend),
            StoreError::LedgerOld(_) => Self::input("ledger-old", problem, mend),
            StoreError::Ledger(_) => Self::work("ledger", problem, mend),
            _ => Self::work("store", problem, mend),
        }
    }
}

/// Tells whether what was named can be no file of that kind, whatever the state of the system.
fn is_wrong_name(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::InvalidFilename | ErrorKind::InvalidInput | ErrorKind::IsADirectory | ErrorKind::NotADirectory
    )
}

/// Says what an administrator does about a refusal of the system.
fn io_mend(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::InvalidFilename => "use shorter names: the system takes 255 octets, and 4096 for a whole path",
        ErrorKind::InvalidInput => "a path cannot hold a NUL octet",
        ErrorKind::IsADirectory => "name a file, not a directory",
        ErrorKind::NotADirectory => "a part of this path is a file, where a directory should be",
        ErrorKind::NotFound => "make the directory that is missing, or name another place",
        ErrorKind::PermissionDenied => "run this as the user who owns the site, or at a place where you may write",
        ErrorKind::QuotaExceeded | ErrorKind::StorageFull => "free some space, and run the command again",
        ErrorKind::ReadOnlyFilesystem => "mount it for writing, or name another place with --site",
        _ => "look at the place named, and run the command again",
    }
}

/// On a host neither the site nor its owner is what hinders.
fn host_mend(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::IsADirectory => "move it away, and run the command again",
        ErrorKind::PermissionDenied => {
            "run this as root; if root may not either, look for a flag that forbids it: lsattr"
        }
        ErrorKind::ReadOnlyFilesystem => "mount it for writing, and run the command again",
        _ => io_mend(kind),
    }
}

impl From<HostError> for Failure {
    fn from(error: HostError) -> Self {
        let text = error.to_string();
        if let HostError::Io { source, .. } = &error {
            return Self::work("host", text, host_mend(source.kind()));
        }
        let (problem, mend) = text.split_once("; ").unwrap_or((&text, "look at the host"));
        match error {
            HostError::Busy(_) => Self::work("host", problem, mend),
            HostError::NoRoot(_) | HostError::RootNotPlain(_) => Self::input("no-root", problem, mend),
            _ => Self::work("not-installed", problem, mend),
        }
    }
}

impl From<LedgerError> for Failure {
    fn from(error: LedgerError) -> Self {
        StoreError::from(error).into()
    }
}

impl From<TokenError> for Failure {
    fn from(TokenError { problem, mend }: TokenError) -> Self {
        Self::work("token", problem, mend)
    }
}

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Self {
        PkiError::from(error).into()
    }
}

impl From<PkiError> for Failure {
    fn from(error: PkiError) -> Self {
        match error {
            PkiError::Key(KeyError::WrongPassphrase) => Self::input(
                "ca-passphrase",
                "the passphrase does not open the CA's key",
                "look which file or passphrase belongs to this site",
            ),
            PkiError::Key(KeyError::Elsewhere(problem)) => {
                Self::work("token", problem, "look at the token with: pkcs11-tool --list-slots")
            }
            PkiError::Key(KeyError::NoRandomness) | PkiError::Unexpected { .. } | PkiError::Writing(_) => {
                Self::work("pki", error.to_string(), "run the command again; if it stays, report it as a bug")
            }
            _ => Self::input("pki", error.to_string(), "look at what was asked for"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Failure {
        std::io::Error::from(ErrorKind::StorageFull).into()
    }

    #[test]
    fn what_fails_after_the_ledger_says_that_the_change_counts_and_how_to_go_on() {
        for failure in [full(), Failure::input("settings", "wrong", "mend it")] {
            let failure = failure.after("bob@example.com is removed");
            let last = failure.diagnostics().last().unwrap();
            assert_eq!((failure.exit_code(), failure.diagnostics().len()), (3, 2));
            assert!(
                last.message.starts_with("bob@example.com is removed, but ") && last.help.contains("postseal render")
            );
        }
    }

    #[test]
    fn a_secret_that_is_refused_after_the_ledger_keeps_its_exit_code() {
        let failure = Failure::secret("secret", "no", "no").after("bob@example.com is removed");
        assert_eq!(failure.exit_code(), 4);
        assert!(failure.diagnostics()[0].notes[0].starts_with("bob@example.com is removed, but "));
    }

    #[test]
    fn a_lost_report_says_that_only_it_is_lost() {
        let failure = full().unshown("bob@example.com is removed");
        assert_eq!((failure.exit_code(), failure.diagnostics().len()), (3, 1));
        assert_eq!(failure.diagnostics()[0].notes, ["bob@example.com is removed; only the report of it is lost"]);
    }

    #[test]
    fn who_reads_no_further_needs_no_message() {
        let broken = || Failure::from(std::io::Error::from(ErrorKind::BrokenPipe));
        assert_eq!(broken().after("done").exit_code() + broken().unshown("done").exit_code(), 0);
    }
}
