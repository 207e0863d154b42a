//! Every directory of `golden/` is a site, compared by the program itself as its owner's CI does it.
//!
//! `UPDATE_GOLDEN=1 cargo test --test golden` blesses what is rendered now; review it like code.

#![expect(clippy::disallowed_methods, reason = "a test prepares sites and runs the program on them")]
#![expect(clippy::unwrap_used, reason = "a test that cannot prepare its case fails")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A case whose rendering has one host, one domain and nothing special.
const PLAIN: &str = "golden/debian-minimal";

fn postseal(site: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postseal"));
    command.args(arguments).arg("--site").arg(site).env_remove("CI").output().unwrap()
}

fn text(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

fn cases() -> Vec<PathBuf> {
    let entries = fs::read_dir("golden").unwrap().map(|entry| entry.unwrap().path());
    let mut cases: Vec<_> = entries.filter(|path| path.is_dir()).collect();
    cases.sort();
    cases
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(&file, &target).unwrap();
    }
}

/// A copy of the plain case that a test may spoil.
fn plain() -> (tempfile::TempDir, PathBuf) {
    let guard = tempfile::tempdir().unwrap();
    let site = guard.path().join("site");
    copy(Path::new(PLAIN), &site);
    (guard, site)
}

/// A site of its own, with a ledger, blessed.
fn blessed() -> (tempfile::TempDir, PathBuf) {
    let guard = tempfile::tempdir().unwrap();
    let site = guard.path().join("site");
    let made = postseal(&site, &["init", "example.com", "--user", "alice@example.com", "--address", "203.0.113.10"]);
    assert_eq!(text(&made).0, 0, "{made:?}");
    assert_eq!(text(&postseal(&site, &["bless"])).0, 0);
    (guard, site)
}

fn replace(path: &Path, from: &str, to: &str) {
    let before = fs::read_to_string(path).unwrap();
    assert!(before.contains(from), "{} has no {from:?}", path.display());
    fs::write(path, before.replacen(from, to, 1)).unwrap();
}

#[test]
fn every_case_renders_what_was_blessed() {
    for case in cases() {
        if std::env::var("UPDATE_GOLDEN").is_ok() {
            assert_eq!(text(&postseal(&case, &["bless"])).0, 0);
        }
        let (code, out, err) = text(&postseal(&case, &["diff"]));
        assert_eq!(code, 0, "{}\n{out}{err}", case.display());
        assert!(out.starts_with("0 changed, 0 added, 0 missing, "), "{}\n{out}", case.display());
    }
}

#[test]
fn every_process_reports_the_same_bytes() {
    for case in cases() {
        let runs = [(); 3].map(|()| postseal(&case, &["dns", "--format", "json"]).stdout);
        assert!(!runs[0].is_empty() && runs.iter().all(|run| *run == runs[0]), "{}", case.display());
    }
}

#[test]
fn no_golden_file_holds_a_secret() {
    for case in cases() {
        for file in files(&case) {
            let text = fs::read_to_string(&file).unwrap();
            assert!(!postseal::plan::holds_secret(&text), "{}", file.display());
        }
    }
}

/// Spoils a copy of the plain case, and expects `diff` to say so.
fn expect_difference(summary: &str, spoil: impl FnOnce(&Path)) {
    let (_guard, site) = plain();
    spoil(&site.join("golden"));
    let (code, out, _) = text(&postseal(&site, &["diff"]));
    assert_eq!((code, out.lines().last().unwrap().rsplit_once(", ").unwrap().0), (1, summary), "{out}");
}

#[test]
fn a_stray_file_is_a_difference() {
    expect_difference("0 changed, 0 added, 1 missing", |golden| fs::write(golden.join("dns/stray.zone"), "").unwrap());
}

#[test]
fn a_missing_file_is_a_difference() {
    expect_difference("0 changed, 1 added, 0 missing", |golden| {
        fs::remove_file(golden.join("dns/example.com.zone")).unwrap();
    });
}

#[test]
fn a_changed_line_is_a_difference() {
    expect_difference("1 changed, 0 added, 0 missing", |golden| {
        replace(&golden.join("dns/example.com.zone"), "v=spf1 mx ~all", "v=spf1 mx +all");
    });
}

#[test]
fn a_changed_line_end_is_a_difference() {
    expect_difference("1 changed, 0 added, 0 missing", |golden| {
        replace(&golden.join("dns/example.com.zone"), "\n", "\r\n");
    });
}

#[test]
fn a_changed_mode_is_a_difference() {
    expect_difference("1 changed, 0 added, 0 missing", |golden| {
        replace(
            &golden.join("mail.example.com/MANIFEST"),
            "/credentials root opensmtpd 0640",
            "/credentials root opensmtpd 0644",
        );
    });
}

#[test]
fn a_changed_policy_shows_as_that_record_alone() {
    let (_guard, site) = plain();
    replace(&site.join("postseal.toml"), "dmarc.reports", "dmarc.policy = \"reject\"\ndmarc.reports");
    let (code, out, _) = text(&postseal(&site, &["diff"]));
    let is_header = |line: &str| line.starts_with("+++ ") || line.starts_with("--- ");
    let changed: Vec<&str> = out.lines().filter(|line| line.starts_with(['+', '-']) && !is_header(line)).collect();
    let record = |policy| {
        format!("_dmarc.example.com. 3600 IN TXT \"v=DMARC1; p={policy}; rua=mailto:dmarc-reports@example.com\"")
    };
    assert_eq!(
        (code, changed),
        (1, vec![format!("-{}", record("none")).as_str(), format!("+{}", record("reject")).as_str()])
    );
}

#[test]
fn a_site_that_was_never_blessed_is_told_how_to_begin() {
    let (_guard, site) = plain();
    fs::remove_dir_all(site.join("golden")).unwrap();
    let (code, out, err) = text(&postseal(&site, &["diff"]));
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.contains("postseal bless"), "{err}");
}

#[test]
fn nothing_is_blessed_where_nobody_looks() {
    let (_guard, site) = plain();
    let mut command = Command::new(env!("CARGO_BIN_EXE_postseal"));
    let output = command.args(["bless", "--site"]).arg(&site).env("CI", "true").output().unwrap();
    assert_eq!(text(&output).0, 2);
}

#[test]
fn a_secret_that_a_template_copies_is_not_blessed() {
    for secret in ["-----BEGIN PRIVATE KEY-----", "alice@example.com:$2b$10$abcdefghijklmnopqrstuv"] {
        let (_guard, site) = plain();
        fs::create_dir_all(site.join("templates/rspamd/local.d")).unwrap();
        fs::write(site.join("templates/rspamd/local.d/dmarc.conf"), format!("# {secret}\n")).unwrap();
        let (code, out, err) = text(&postseal(&site, &["bless"]));
        assert_eq!(code, 4, "{err}");
        assert!(!out.contains(secret) && !err.contains(secret));
    }
}

#[test]
fn a_new_user_changes_nothing_that_is_public() {
    let (_guard, site) = blessed();
    assert_eq!(text(&postseal(&site, &["user", "add", "bob@example.com"])).0, 0);
    let (code, out, _) = text(&postseal(&site, &["diff"]));
    assert_eq!(code, 0, "{out}");
}

#[test]
fn a_clone_without_state_gives_the_same_answer() {
    let (guard, site) = blessed();
    replace(&site.join("postseal.toml"), "name = \"example.com\"", "name = \"example.com\"\nspf = \"fail\"");
    let clone = guard.path().join("clone");
    for part in ["postseal.toml", "postseal.lock"] {
        fs::create_dir_all(&clone).unwrap();
        fs::copy(site.join(part), clone.join(part)).unwrap();
    }
    copy(&site.join("golden"), &clone.join("golden"));
    let answer = text(&postseal(&site, &["diff"]));
    assert_eq!(answer.0, 1);
    assert_eq!(text(&postseal(&clone, &["diff"])), answer);
}

#[test]
fn a_lock_that_is_older_than_the_ledger_is_a_difference() {
    let (_guard, site) = blessed();
    replace(&site.join("postseal.lock"), "version", "# edited\nversion");
    let (code, out, _) = text(&postseal(&site, &["diff"]));
    assert_eq!(code, 1);
    assert!(out.contains("postseal.lock is older than the ledger"), "{out}");
}
