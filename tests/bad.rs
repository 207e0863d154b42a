//! Every mistake in the settings is reported in the words of `tests/bad/`. A case is a file `CODE.toml`, or a directory with
//! a whole site, and `CODE.stderr`; `CODE.VARIANT` adds a case. `UPDATE_BAD=1` writes what is reported now.

#![expect(clippy::disallowed_methods, reason = "a test reads its cases and may rewrite them")]
#![expect(clippy::unwrap_used, reason = "a test that cannot read its cases fails")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use postseal::cli::draw::{draw, short, to_json};
use postseal::diag::{Diagnostic, Source};
use postseal::site::{CODES, SETTINGS, load};

fn cases() -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir("tests/bad").unwrap().map(|entry| entry.unwrap().path());
    let cases = entries.filter(|path| path.is_dir() || path.extension().is_some_and(|end| end == "toml"));
    let mut cases: Vec<_> = cases.map(|path| (name(&path), path)).collect();
    cases.sort();
    cases
}

fn name(path: &Path) -> String {
    let name = path.file_name().unwrap().to_str().unwrap();
    name.strip_suffix(".toml").unwrap_or(name).to_owned()
}

fn source(path: &str, file: &Path) -> Arc<Source> {
    Arc::new(Source { path: path.into(), text: std::fs::read_to_string(file).unwrap() })
}

fn sources(case: &Path) -> Vec<Arc<Source>> {
    if case.is_file() {
        return vec![source("postseal.toml", case)];
    }
    let mut domains: Vec<_> =
        std::fs::read_dir(case.join("domains")).unwrap().map(|entry| entry.unwrap().path()).collect();
    domains.sort();
    let domains = domains.iter().map(|file| source(&format!("domains/{}.toml", name(file)), file));
    std::iter::once(source("postseal.toml", &case.join("postseal.toml"))).chain(domains).collect()
}

fn findings(case: &Path) -> Vec<Diagnostic> {
    match load(&sources(case)) {
        Ok((_, warnings)) => warnings,
        Err(findings) => findings,
    }
}

#[test]
fn every_mistake_is_reported_in_these_words() {
    let update = std::env::var_os("UPDATE_BAD").is_some();
    let mut wrong = Vec::new();
    for (name, case) in cases() {
        let drawn = draw(&findings(&case), false);
        let expected = PathBuf::from(format!("tests/bad/{name}.stderr"));
        if update {
            std::fs::write(&expected, &drawn).unwrap();
        } else if std::fs::read_to_string(&expected).unwrap_or_default() != drawn {
            wrong.push(format!("== {name} is now reported as\n{drawn}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_code_has_a_case_and_every_case_its_code() {
    let mut seen = BTreeSet::new();
    for (name, case) in cases() {
        let code = name.split('.').next().unwrap().to_owned();
        assert!(findings(&case).iter().any(|finding| finding.code == code), "{name} does not report {code}");
        seen.insert(code);
    }
    let listed: BTreeSet<String> = CODES.iter().map(|(code, _)| (*code).to_owned()).collect();
    assert_eq!(listed.len(), CODES.len(), "a code is listed twice");
    assert_eq!(seen, listed);
}

#[test]
fn every_finding_is_complete() {
    for (name, case) in cases() {
        for finding in findings(&case) {
            assert!(CODES.iter().any(|(code, _)| *code == finding.code), "{name}: {} is not listed", finding.code);
            assert!(finding.place.is_some(), "{name}: {finding:?}");
            for text in [&finding.message, &finding.label, &finding.help] {
                assert!(!text.is_empty() && !text.ends_with('.'), "{name}: {finding:?}");
                assert!(!text.contains(['\u{202e}', '\u{200b}', '\0']), "{name}: {finding:?}");
            }
        }
    }
}

#[test]
fn the_three_drawings_tell_the_same() {
    for (name, case) in cases() {
        let findings = findings(&case);
        let (drawn, lines, json) = (draw(&findings, false), short(&findings), to_json(&findings));
        assert!(!drawn.contains('\u{1b}') && draw(&findings, true).contains('\u{1b}'), "{name}");
        assert_eq!(lines.lines().count(), findings.len());
        for (line, object) in lines.lines().zip(json.as_array().unwrap()) {
            let place = format!("{}:{}:{}", object["file"].as_str().unwrap(), object["line"], object["column"]);
            assert!(line.starts_with(&place) && drawn.contains(&place), "{name}: {line} {place}");
        }
    }
}

#[test]
fn the_documentation_names_every_setting() {
    let text = std::fs::read_to_string("docs/settings.md").unwrap();
    // What stands in [defaults] is explained where it stands in a domain.
    for (table, settings) in SETTINGS.iter().filter(|(table, _)| *table != "defaults") {
        for setting in *settings {
            let whole = if table.is_empty() { (*setting).to_owned() } else { format!("{table}.{setting}") };
            assert!(text.contains(&format!("`{whole}`")), "docs/settings.md does not explain {whole}");
        }
    }
}
