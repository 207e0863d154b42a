//! Every fuzz target with its seeds and a few hundred mutations of them: what `fuzz/run` does for minutes, done for seconds,
//! and the same at each run.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, unreachable_pub, missing_docs)]
#![allow(clippy::disallowed_methods, reason = "a test reads its seeds")]

#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use targets::TARGETS;

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(Path::new("fuzz/seeds").join(target)).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

/// What a mutation puts in: each means something to one of the formats.
const PIECES: &[&[u8]] = &[
    b"",
    b"\0",
    b"\xff",
    b"\n",
    b"\"",
    b"'",
    b"\\",
    b"{{",
    b"}}",
    b"{%",
    b"%}",
    b"{=",
    b"$",
    b"#",
    b"[",
    b"]",
    b"[[",
    b"=",
    b".",
    b",",
    b"-----BEGIN CERTIFICATE-----\n",
    b"-----END CERTIFICATE-----\n",
    b"\x30\x80",
    b"\x30\x84\xff\xff\xff\xff",
    b"\x02\x01\x00",
    b"\xe2\x80\xae",
    b"\x1b[31m",
    b"99999999999999999999",
    b"1979-05-27T07:32:00Z",
    b"\"\"\"",
    b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
];

#[test]
fn every_target_keeps_its_word_about_its_seeds_and_mutations_of_them() {
    for (name, target) in TARGETS {
        let seeds = seeds(name);
        assert!(!seeds.is_empty(), "{name} has no seeds");
        for seed in &seeds {
            target(seed);
        }
        let mut runner = TestRunner::deterministic();
        let cuts =
            prop::collection::vec((any::<prop::sample::Index>(), 0..40_usize, prop::sample::select(PIECES)), 1..6);
        let strategy = (prop::sample::select(seeds), cuts);
        for _ in 0..300 {
            let (mut data, cuts) = strategy.new_tree(&mut runner).unwrap().current();
            for (at, length, piece) in cuts {
                let start = at.index(data.len() + 1);
                let end = (start + length).min(data.len());
                data.splice(start..end, piece.iter().copied());
            }
            target(&data);
        }
    }
}

#[test]
fn every_target_is_built_and_has_its_seeds() {
    let names = |directory: &str| {
        let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        let mut names: Vec<_> = entries.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    let listed: Vec<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names("fuzz/fuzz_targets"), listed);
    assert_eq!(names("fuzz/seeds"), listed);
    let manifest = fs::read_to_string("fuzz/Cargo.toml").unwrap();
    assert!(listed.iter().all(|name| manifest.contains(&format!("\nname = \"{name}\"\n"))));
}

/// Joins two values as the targets take them.
fn pair(one: &str, other: &str) -> Vec<u8> {
    [one.as_bytes(), b"\xff", other.as_bytes()].concat()
}

proptest! {
    #[test]
    fn strings_of_smtpd_conf_read_back(value in "\\PC{0,40}|[\x01-\x7f]{0,40}|[$#{}\"\\\\ %=]{0,12}", behind in "[ -~\n]{0,20}") {
        targets::smtpd(&pair(&value, &behind));
    }

    #[test]
    fn strings_of_rspamd_read_back(value in "\\PC{0,40}|[\x01-\x7f]{0,40}|[${}%=#\"\\\\]{0,12}") {
        targets::ucl(value.as_bytes());
    }

    #[test]
    fn fields_of_a_table_read_back(key in "[ -~]{1,20}|[a-z.@+/=']{1,20}", value in "[ -~]{1,20}|[a-z.@+]{1,20}") {
        targets::table(&pair(&key, &value));
    }

    #[test]
    fn texts_of_a_zone_read_back(text in "\\PC{0,600}|[ -~\n;\\\\\"]{0,600}") {
        targets::zone(text.as_bytes());
    }
}
