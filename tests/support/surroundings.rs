//! The program run within the test: real files and keys, but a clock that stands, and output, terminal and variables that a
//! test sets and reads.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use postseal::dkim::rotation::Sighting;
use postseal::dkim::seeing::{self, Question};
use postseal::env::{Env, Finished, Program, System};
use postseal::keys::{KeyError, KeyKind, PrivateKey};
use postseal::secret::Secret;
use time::OffsetDateTime;
use time::macros::datetime;

/// What the program finds around it, and what it said.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a thing that may go wrong around the program")]
pub(crate) struct Surroundings {
    pub(crate) now: OffsetDateTime,
    /// What a person types at each question; without any, nobody is there.
    pub(crate) typed: Mutex<Vec<&'static str>>,
    pub(crate) ci: bool,
    pub(crate) random_fails: bool,
    /// How many times randomness is given until there is none left.
    pub(crate) random_left: Option<AtomicUsize>,
    /// Whether every RSA key is the same one, for to make one takes its time.
    pub(crate) same_rsa: bool,
    pub(crate) output_fails: bool,
    /// What stands on standard input.
    pub(crate) input: Vec<u8>,
    /// What the name servers say.
    pub(crate) name_servers: fn(&Question) -> Sighting,
    pub(crate) out: Mutex<String>,
    pub(crate) err: Mutex<String>,
}

impl Default for Surroundings {
    fn default() -> Self {
        Self {
            now: datetime!(2026-11-24 12:00 UTC),
            typed: Mutex::default(),
            ci: false,
            random_fails: false,
            random_left: None,
            same_rsa: false,
            output_fails: false,
            input: Vec::new(),
            name_servers: |_| Sighting::Unknown,
            out: Mutex::default(),
            err: Mutex::default(),
        }
    }
}

impl Env for Surroundings {
    fn now(&self) -> OffsetDateTime {
        self.now
    }

    fn random(&self, count: usize) -> io::Result<Secret> {
        let spend = |left: &AtomicUsize| {
            left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_err()
        };
        let fails = self.random_fails || self.random_left.as_ref().is_some_and(spend);
        if fails { Err(io::Error::other("none left")) } else { System.random(count) }
    }

    fn generate_key(&self, kind: KeyKind) -> Result<PrivateKey, KeyError> {
        static RSA: OnceLock<PrivateKey> = OnceLock::new();
        match kind {
            _ if self.random_fails => Err(KeyError::NoRandomness),
            KeyKind::Rsa2048 if self.same_rsa => {
                Ok(RSA.get_or_init(|| System.generate_key(KeyKind::Rsa2048).unwrap()).clone())
            }
            _ => System.generate_key(kind),
        }
    }

    fn variable(&self, name: &str) -> Option<String> {
        match name {
            "CI" => self.ci.then(|| "true".to_owned()),
            "NO_COLOR" => Some("1".to_owned()),
            _ => None,
        }
    }

    fn output_is_terminal(&self) -> bool {
        false
    }

    fn person_is_there(&self) -> bool {
        !self.typed.lock().unwrap().is_empty()
    }

    fn ask_secret(&self, _prompt: &str) -> io::Result<Secret> {
        Ok(Secret::from(self.typed.lock().unwrap().remove(0).to_owned()))
    }

    fn input(&self, most: usize) -> io::Result<Vec<u8>> {
        Ok(self.input.iter().take(most).copied().collect())
    }

    fn print(&self, text: &str) -> io::Result<()> {
        if self.output_fails {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.out.lock().unwrap().push_str(text);
        Ok(())
    }

    fn talk(&self, text: &str) -> io::Result<()> {
        self.err.lock().unwrap().push_str(text);
        Ok(())
    }

    fn wait(&self, length: Duration) {
        System.wait(length);
    }

    fn ask_name_servers(
        &self,
        _resolver: Option<SocketAddr>,
        questions: &[Question],
        _done: &(dyn Fn(usize) + Sync),
    ) -> Vec<seeing::Answer> {
        let answer = |question: &Question| {
            let sighting = (self.name_servers)(question);
            let is_there = matches!(sighting, Sighting::Everywhere { .. });
            let lacking = ("ns2.example.com".to_owned(), "has no such record".to_owned());
            seeing::Answer { sighting, lacking: if is_there { Vec::new() } else { vec![lacking] } }
        };
        questions.iter().map(answer).collect()
    }

    fn run(&self, program: &Program<'_>) -> io::Result<Finished> {
        System.run(program)
    }
}

/// What the program answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) exit_code: u8,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Surroundings {
    /// Runs the program on a site.
    pub(crate) fn run<A: Into<OsString>>(&self, site: &Path, arguments: impl IntoIterator<Item = A>) -> Answer {
        let program = [OsString::from("postseal"), "--site".into(), site.into()];
        let exit_code = postseal::cli::run(self, program.into_iter().chain(arguments.into_iter().map(Into::into)));
        Answer {
            exit_code,
            out: std::mem::take(&mut *self.out.lock().unwrap()),
            err: std::mem::take(&mut *self.err.lock().unwrap()),
        }
    }
}

/// Runs the program on a site where nobody looks on.
pub(crate) fn postseal<A: Into<OsString>>(site: &Path, arguments: impl IntoIterator<Item = A>) -> Answer {
    Surroundings::default().run(site, arguments)
}

/// Returns a copy of a site of Alice's at example.com, in a directory that goes with the guard.
pub(crate) fn site() -> (tempfile::TempDir, PathBuf) {
    static MADE: OnceLock<tempfile::TempDir> = OnceLock::new();
    let made = MADE.get_or_init(|| {
        let guard = tempfile::tempdir().unwrap();
        let answer = postseal(
            &guard.path().join("site"),
            ["init", "example.com", "--user", "alice@example.com", "--address", "203.0.113.10"],
        );
        assert_eq!(answer.exit_code, 0, "{}", answer.err);
        guard
    });
    let guard = tempfile::tempdir().unwrap();
    let site = guard.path().join("site");
    copy(&made.path().join("site"), &site);
    (guard, site)
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    std::fs::set_permissions(to, std::fs::metadata(from).unwrap().permissions()).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Returns every file below a directory with what it holds; but for the ledger's own `-wal` and `-shm`, which reading touches.
pub(crate) fn snapshot(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            found.insert(path.clone(), Vec::new());
            found.extend(snapshot(&path));
        } else if !path.to_string_lossy().contains("ledger.sqlite-") && path.is_file() {
            found.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    found
}
