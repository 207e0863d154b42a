//! postseal in surroundings whose clock always shows 2026-11-24 12:00 UTC, for transcripts that must not change with the
//! day. All else is real.

use std::io;
use std::process::ExitCode;

use postseal::env::{Env, Finished, Program, System};
use postseal::keys::{KeyError, KeyKind, PrivateKey};
use postseal::secret::Secret;
use time::OffsetDateTime;
use time::macros::datetime;

struct Noon;

impl Env for Noon {
    fn now(&self) -> OffsetDateTime {
        datetime!(2026-11-24 12:00 UTC)
    }

    fn random(&self, count: usize) -> io::Result<Secret> {
        System.random(count)
    }

    fn generate_key(&self, kind: KeyKind) -> Result<PrivateKey, KeyError> {
        System.generate_key(kind)
    }

    /// A transcript is the same in CI.
    fn variable(&self, _name: &str) -> Option<String> {
        None
    }

    fn output_is_terminal(&self) -> bool {
        false
    }

    fn person_is_there(&self) -> bool {
        false
    }

    fn ask_secret(&self, prompt: &str) -> io::Result<Secret> {
        System.ask_secret(prompt)
    }

    fn print(&self, text: &str) -> io::Result<()> {
        System.print(text)
    }

    fn talk(&self, text: &str) -> io::Result<()> {
        System.talk(text)
    }

    fn wait(&self, length: std::time::Duration) {
        System.wait(length);
    }

    fn run(&self, program: &Program<'_>) -> io::Result<Finished> {
        System.run(program)
    }
}

fn main() -> ExitCode {
    ExitCode::from(postseal::cli::run(&Noon, std::env::args_os()))
}
