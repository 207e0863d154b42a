//! How long the program takes to start, against an empty program. See docs/benchmarks.md.

#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock and runs the programs that it compares")]
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark is no part of the program")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use support::{Times, Work, in_turn, shown};

const TURNS: usize = 400;

fn main() {
    let empty = empty();
    let postseal = Path::new(env!("CARGO_BIN_EXE_postseal"));
    let [own, floor, help, openssl] = in_turn(
        TURNS,
        [
            Work::new(1, || run(postseal, "--version")),
            Work::new(1, || run(&empty, "--version")),
            Work::new(1, || run(postseal, "--help")),
            Work::new(1, || run(Path::new("openssl"), "version")),
        ],
    );
    let more = Times::sum(&[(1.0, &own), (-1.0, &floor)]);
    println!("start: from before the process is made until it has ended, by {TURNS} turns");
    println!("  postseal --version         {}", shown(own.median()));
    println!("  an empty program           {}", shown(floor.median()));
    println!("  postseal over empty        {}; {} more", own.over(&floor), shown(more.median()));
    println!("    the fastest tenth of each  {} more", shown(own.fastest() - floor.fastest()));
    println!("  postseal --help over empty {}", help.over(&floor));
    println!("  openssl version over empty {}", openssl.over(&floor));
}

/// Makes the empty program.
fn empty() -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (source, program) = (directory.join("empty.rs"), directory.join("empty"));
    fs::write(&source, "fn main() {}\n").unwrap();
    let made = Command::new("rustc").args(["-O", "-o"]).args([&program, &source]).status().unwrap();
    assert!(made.success(), "rustc could not make the empty program");
    program
}

fn run(program: &Path, argument: &str) {
    let mut command = Command::new(program);
    let status = command.arg(argument).stdin(Stdio::null()).stdout(Stdio::null()).status().unwrap();
    assert!(status.success(), "{} {argument}", program.display());
}
