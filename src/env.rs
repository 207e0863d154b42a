//! The only door to the outside: clock, randomness, keys, the environment, the terminal. Tests bring an `Env` of their own.
#![expect(clippy::disallowed_methods, reason = "this is the door that the others must use")]

mod nameservers;

use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use ring::rand::SecureRandom as _;
use time::OffsetDateTime;

use crate::dkim::seeing::{Answer, Question};
use crate::keys::{self, KeyError, KeyKind, PrivateKey};
use crate::secret::Secret;

/// A program to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program<'a> {
    /// Its name; it is looked for in the system's own directories, whatever `PATH` says.
    pub name: &'a str,
    /// Its arguments: never a secret, for everybody sees them.
    pub arguments: &'a [&'a str],
    /// User and group to run as, without supplementary groups.
    pub user: Option<(u32, u32)>,
    /// What it reads from standard input.
    pub input: &'a [u8],
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Whether its exit code is 0.
    pub success: bool,
    /// What it wrote to standard output.
    pub output: String,
    /// What it wrote to standard error.
    pub errors: String,
}

/// What the program asks of its surroundings; several threads may ask at once.
pub trait Env: Sync {
    /// Returns the time in UTC, in whole seconds: certificates hold no finer.
    fn now(&self) -> OffsetDateTime;

    /// Returns random octets fit for keys.
    fn random(&self, count: usize) -> io::Result<Secret>;

    /// Makes a key pair.
    fn generate_key(&self, kind: KeyKind) -> Result<PrivateKey, KeyError>;

    /// Returns a variable of the environment.
    fn variable(&self, name: &str) -> Option<String>;

    /// Tells whether a person reads standard output.
    fn output_is_terminal(&self) -> bool;

    /// Tells whether a person reads standard error and can be asked on the terminal.
    fn person_is_there(&self) -> bool;

    /// Asks the person for a secret, without echo.
    fn ask_secret(&self, prompt: &str) -> io::Result<Secret>;

    /// Returns what stands on standard input, at most so many octets.
    fn input(&self, most: usize) -> io::Result<Vec<u8>> {
        let _ = most;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Writes data to standard output.
    fn print(&self, text: &str) -> io::Result<()>;

    /// Says something on standard error.
    fn talk(&self, text: &str) -> io::Result<()>;

    /// Lets time pass, as while another postseal works.
    fn wait(&self, length: Duration);

    /// Asks every authoritative name server for records, each server by itself; one answer for each question. The servers are
    /// found by way of the resolver, or of the system's own. `done` is told how many questions are answered.
    fn ask_name_servers(
        &self,
        resolver: Option<SocketAddr>,
        questions: &[Question],
        done: &(dyn Fn(usize) + Sync),
    ) -> Vec<Answer>;

    /// Runs a program to its end, with a plain environment; an error if it cannot be started.
    fn run(&self, program: &Program<'_>) -> io::Result<Finished>;
}

/// Where the daemons' packages put their programs, ports and packages first.
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The real surroundings.
#[derive(Debug)]
pub struct System;

impl Env for System {
    fn now(&self) -> OffsetDateTime {
        let now = OffsetDateTime::now_utc();
        now.replace_nanosecond(0).unwrap_or(now)
    }

    fn random(&self, count: usize) -> io::Result<Secret> {
        let mut octets = vec![0; count];
        let filled = ring::rand::SystemRandom::new().fill(&mut octets);
        filled.map_err(|_| io::Error::other("the system gave no random octets"))?;
        Ok(Secret::new(octets))
    }

    fn generate_key(&self, kind: KeyKind) -> Result<PrivateKey, KeyError> {
        keys::generate(kind)
    }

    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn output_is_terminal(&self) -> bool {
        io::stdout().is_terminal()
    }

    fn person_is_there(&self) -> bool {
        io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    fn ask_secret(&self, prompt: &str) -> io::Result<Secret> {
        rpassword::prompt_password(prompt).map(Secret::from)
    }

    fn input(&self, most: usize) -> io::Result<Vec<u8>> {
        let mut octets = Vec::new();
        io::stdin().lock().take(most as u64).read_to_end(&mut octets)?;
        Ok(octets)
    }

    fn print(&self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    fn talk(&self, text: &str) -> io::Result<()> {
        io::stderr().lock().write_all(text.as_bytes())
    }

    fn wait(&self, length: Duration) {
        std::thread::sleep(length);
    }

    fn ask_name_servers(
        &self,
        resolver: Option<SocketAddr>,
        questions: &[Question],
        done: &(dyn Fn(usize) + Sync),
    ) -> Vec<Answer> {
        nameservers::look(resolver, questions, done)
    }

    fn run(&self, program: &Program<'_>) -> io::Result<Finished> {
        let mut command = Command::new(program.name);
        command.args(program.arguments).env_clear().envs([("PATH", SYSTEM_PATH), ("LC_ALL", "C")]);
        command.stdin(if program.input.is_empty() { Stdio::null() } else { Stdio::piped() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).current_dir("/");
        if let Some((user, group)) = program.user {
            command.uid(user).gid(group);
        }
        let mut child = command.spawn()?;
        let (input, pipe) = (program.input, child.stdin.take());
        let output = std::thread::scope(|scope| {
            // Beside the reading: a program that writes before it has read all would wait for us, and we for it.
            scope.spawn(move || {
                // A program may end before it has read all; its exit code tells whether that is well.
                let _ = pipe.map(|mut pipe| pipe.write_all(input));
            });
            child.wait_with_output()
        })?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (success, output, errors) = (output.status.success(), text(&output.stdout), text(&output.stderr));
        Ok(Finished { success, output, errors })
    }
}
