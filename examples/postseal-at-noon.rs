//! postseal in surroundings whose clock shows 2026-11-24 12:00 UTC, or the time in `NOW`, for transcripts that must not change
//! with the day, and where every name server has every record. All else is real.

#![expect(clippy::disallowed_methods, reason = "a transcript sets the clock by a variable")]

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;

use postseal::dkim::rotation::Sighting;
use postseal::dkim::seeing::{Answer, Question};
use postseal::env::{Env, Finished, Program, System};
use postseal::keys::{KeyError, KeyKind, PrivateKey};
use postseal::secret::Secret;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::datetime;

struct Noon;

impl Env for Noon {
    fn now(&self) -> OffsetDateTime {
        let later = std::env::var("NOW").ok().and_then(|now| OffsetDateTime::parse(&now, &Rfc3339).ok());
        later.unwrap_or(datetime!(2026-11-24 12:00 UTC))
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

    /// All name servers have all that is asked for.
    fn ask_name_servers(
        &self,
        _resolver: Option<SocketAddr>,
        questions: &[Question],
        _done: &(dyn Fn(usize) + Sync),
    ) -> Vec<Answer> {
        let sighting = Sighting::Everywhere { ttl: 3600, negative_ttl: 3600 };
        questions.iter().map(|_| Answer { sighting, lacking: Vec::new() }).collect()
    }

    fn run(&self, program: &Program<'_>) -> io::Result<Finished> {
        System.run(program)
    }
}

fn main() -> ExitCode {
    ExitCode::from(postseal::cli::run(&Noon, std::env::args_os()))
}
