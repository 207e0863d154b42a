//! Transcripts of the program, and the examples of README.md and docs/, each file run in an empty directory of its own.
//!
//! `TRYCMD=overwrite cargo test --test cli` writes what the program prints now; review it like code.

#![expect(
    clippy::disallowed_methods,
    reason = "transcripts are run as copies, and brought back when they are rewritten"
)]
#![expect(clippy::unwrap_used, reason = "a test that cannot read its cases fails")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// The program with a fixed clock; `cargo test` builds it beside the tests.
fn at_noon() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    // A test lies in PROFILE/deps/.
    let program = test.ancestors().nth(2).unwrap().join("examples").join("postseal-at-noon");
    assert!(program.exists(), "run `cargo test` without --all-targets, or `cargo build --examples` before");
    program
}

fn transcripts() -> Vec<PathBuf> {
    let mut found = vec![PathBuf::from("README.md")];
    for (directory, end) in [("docs", "md"), ("tests/cli", "trycmd")] {
        let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        found.extend(entries.filter(|path| path.extension().is_some_and(|found| found == end)));
    }
    found.sort();
    found
}

/// Copies a transcript to a place where trycmd runs it in an empty directory: that is what `.in` and `.out` beside it ask for.
fn copy(from: &Path, place: &Path) -> PathBuf {
    let to = place.join(from);
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::copy(from, &to).unwrap();
    for beside in ["in", "out"] {
        fs::create_dir_all(to.with_extension(beside)).unwrap();
    }
    if from.ends_with("bimi.md") {
        fs::copy("tests/svg/example.svg.txt", to.with_extension("in").join("drawing.svg")).unwrap();
    }
    // What other programs made: keys, and reports.
    let seeds = [("dkim-import.md", "dkim", ""), ("reports.md", "report", "Maildir")];
    for (_, target, folder) in seeds.into_iter().filter(|(page, ..)| from.ends_with(page)) {
        let place = to.with_extension("in").join(folder);
        fs::create_dir_all(&place).unwrap();
        for seed in fs::read_dir(Path::new("fuzz/seeds").join(target)).unwrap().map(|entry| entry.unwrap().path()) {
            let copy = place.join(seed.file_name().unwrap());
            fs::copy(seed, &copy).unwrap();
            fs::set_permissions(copy, fs::Permissions::from_mode(0o600)).unwrap();
        }
    }
    to
}

#[test]
fn transcripts_show_what_the_program_prints() {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("transcripts");
    let _ = fs::remove_dir_all(&place);
    let copies: Vec<(PathBuf, PathBuf)> = transcripts().into_iter().map(|from| (copy(&from, &place), from)).collect();
    {
        let cases = trycmd::TestCases::new();
        cases.register_bin("postseal", at_noon());
        for (copy, _) in &copies {
            cases.case(copy);
        }
    }
    if std::env::var("TRYCMD").is_ok_and(|mode| mode == "overwrite") {
        for (copy, original) in &copies {
            fs::copy(copy, original).unwrap();
        }
    }
}
