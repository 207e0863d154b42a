//! postseal in surroundings whose clock shows what `POSTSEAL_NOW` says (RFC 3339), for tests of what time brings; without
//! it, the time. All else is real.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;

use postseal::dkim::seeing::{Answer, Question};
use postseal::env::{Env, Finished, Program, System};
use postseal::keys::{KeyError, KeyKind, PrivateKey};
use postseal::secret::Secret;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

struct At(Option<OffsetDateTime>);

impl Env for At {
    fn now(&self) -> OffsetDateTime {
        self.0.unwrap_or_else(|| System.now())
    }

    fn random(&self, count: usize) -> io::Result<Secret> {
        System.random(count)
    }

    fn generate_key(&self, kind: KeyKind) -> Result<PrivateKey, KeyError> {
        System.generate_key(kind)
    }

    fn variable(&self, name: &str) -> Option<String> {
        System.variable(name)
    }

    fn output_is_terminal(&self) -> bool {
        System.output_is_terminal()
    }

    fn person_is_there(&self) -> bool {
        System.person_is_there()
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

    fn ask_name_servers(
        &self,
        resolver: Option<SocketAddr>,
        questions: &[Question],
        done: &(dyn Fn(usize) + Sync),
    ) -> Vec<Answer> {
        System.ask_name_servers(resolver, questions, done)
    }

    fn run(&self, program: &Program<'_>) -> io::Result<Finished> {
        System.run(program)
    }
}

fn main() -> ExitCode {
    let now = match System.variable("POSTSEAL_NOW").map(|text| OffsetDateTime::parse(&text, &Rfc3339)).transpose() {
        Ok(now) => now,
        Err(error) => {
            // A test that asks for another time must not get the present one.
            let _ = System.talk(&format!("POSTSEAL_NOW: {error}\n"));
            return ExitCode::from(2);
        }
    };
    ExitCode::from(postseal::cli::run(&At(now), std::env::args_os()))
}
