//! Every directory of `golden/` is a site, compared by the program itself as its owner's CI does it.
//!
//! `UPDATE_GOLDEN=1 cargo test --test golden` blesses what is rendered now; review it like code.

#![expect(clippy::disallowed_methods, reason = "a test prepares sites and runs the program on them")]
#![expect(clippy::unwrap_used, reason = "a test that cannot prepare its case fails")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Once;

/// A case whose rendering has one host, one domain and nothing special.
const PLAIN: &str = "golden/debian-minimal";

fn postseal(site: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postseal"));
    let command = command.args(arguments).arg("--site").arg(site).env_remove("CI").env_remove("GITHUB_ACTIONS");
    command.env_remove("GITHUB_STEP_SUMMARY").output().unwrap()
}

fn text(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

fn cases() -> Vec<PathBuf> {
    static RENEWED: Once = Once::new();
    let cases = directories();
    // Before any test reads a case, for they run side by side.
    RENEWED.call_once(|| {
        for case in cases.iter().filter(|_| std::env::var("UPDATE_GOLDEN").is_ok_and(|value| value == "1")) {
            let blessed = text(&postseal(case, &["bless"]));
            assert_eq!(blessed.0, 0, "{}\n{}", case.display(), blessed.2);
        }
    });
    cases
}

fn directories() -> Vec<PathBuf> {
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
    let case = cases().into_iter().find(|case| case == Path::new(PLAIN)).unwrap();
    copy(&case, &site);
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
        let (code, out, err) = text(&postseal(&case, &["diff"]));
        let count = files(&case.join("golden")).len();
        let summary = format!("0 changed, 0 added, 0 missing, {count} identical\n");
        assert_eq!((code, out), (0, summary), "{}\n{err}", case.display());
    }
}

#[test]
fn every_case_says_what_it_shows_and_holds_only_what_is_committed() {
    let cases = cases();
    assert!(!cases.is_empty());
    for case in cases {
        let settings = fs::read_to_string(case.join("postseal.toml")).unwrap();
        assert!(settings.starts_with("# Shows "), "{}", case.display());
        let mut names: Vec<_> = fs::read_dir(&case).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.retain(|name| name != "bimi" && name != "domains");
        names.sort();
        assert_eq!(names, [".gitignore", "golden", "postseal.lock", "postseal.toml"], "{}", case.display());
    }
}

#[test]
fn every_process_reports_the_same_bytes() {
    for case in cases() {
        for command in ["diff", "dns"] {
            let runs = [(); 3].map(|()| postseal(&case, &[command, "--format", "json"]).stdout);
            assert!(!runs[0].is_empty() && runs.iter().all(|run| *run == runs[0]), "{command} {}", case.display());
        }
    }
}

#[test]
fn every_process_renders_the_same_bytes() {
    for case in cases() {
        let guard = tempfile::tempdir().unwrap();
        let site = guard.path().join("site");
        copy(&case, &site);
        // Against an empty golden/ the report holds all that is rendered.
        fs::remove_dir_all(site.join("golden")).unwrap();
        fs::create_dir(site.join("golden")).unwrap();
        let runs = [(); 3].map(|()| text(&postseal(&site, &["diff", "--format", "json"])));
        assert_eq!(runs[0].0, 1, "{}\n{}", case.display(), runs[0].2);
        assert!(runs.iter().all(|run| *run == runs[0]), "{}", case.display());
    }
}

#[test]
fn every_process_reports_many_differences_in_the_same_order() {
    let (_guard, site) = plain();
    for file in files(&site.join("golden")) {
        fs::write(&file, "spoilt\n").unwrap();
    }
    let runs = [(); 3].map(|()| answers(&site));
    assert!(runs.iter().all(|run| *run == runs[0]));
    let runs = [(); 3].map(|()| text(&postseal(&site, &["diff", "--format", "json"])));
    assert!(runs.iter().all(|run| *run == runs[0]));
    let report: serde_json::Value = serde_json::from_str(&runs[0].1).unwrap();
    let paths: Vec<&str> =
        report["changes"].as_array().unwrap().iter().map(|change| change["path"].as_str().unwrap()).collect();
    assert_eq!((runs[0].0, paths.len()), (1, files(&site.join("golden")).len()));
    // As paths compare, name by name.
    assert!(paths.is_sorted_by_key(Path::new), "{paths:?}");
}

#[test]
fn no_case_holds_a_private_key_or_a_password_hash() {
    for case in cases() {
        for file in files(&case) {
            let text = fs::read_to_string(&file).unwrap();
            // Words of the test's own: `bless` has asked the program's detector already.
            let word = ["PRIVATE KEY", "$2", "$5$", "$6$", "$y$"].into_iter().find(|word| text.contains(word));
            assert_eq!(word, None, "{}", file.display());
        }
    }
}

/// A text without PEM's frame and line ends, so that a copy is found however it is broken into lines.
fn body(text: &str) -> String {
    text.lines().filter(|line| !line.starts_with("-----")).map(str::trim).collect()
}

#[test]
fn nothing_that_state_keeps_is_blessed() {
    let (_guard, site) = blessed();
    // The ledger is no text, and the lock file is empty.
    let texts = files(&site.join("state")).into_iter().filter_map(|file| {
        let text = body(&fs::read_to_string(&file).ok()?);
        Some((file, text)).filter(|(_, text)| !text.is_empty())
    });
    let secrets: Vec<_> = texts.collect();
    // Passphrase of the CA, two passwords of Alice's, keys of CA, server (and of its next certificate) and two for DKIM.
    assert_eq!(secrets.len(), 8, "{:?}", secrets.iter().map(|(file, _)| file).collect::<Vec<_>>());
    for file in files(&site.join("golden")) {
        let golden = body(&fs::read_to_string(&file).unwrap());
        for (secret, text) in &secrets {
            assert!(!golden.contains(text), "{} holds {}", file.display(), secret.display());
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
fn what_keeps_git_from_changing_line_ends_is_compared_too() {
    expect_difference("1 changed, 0 added, 0 missing", |golden| {
        fs::write(golden.join(".gitattributes"), "* text=auto\n").unwrap();
    });
    expect_difference("0 changed, 1 added, 0 missing", |golden| {
        fs::remove_file(golden.join(".gitattributes")).unwrap();
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
fn a_stray_file_that_is_no_text_is_a_difference() {
    expect_difference("0 changed, 0 added, 1 missing", |golden| {
        fs::write(golden.join("dns/stray"), [0xff, 0x00, 0xfe]).unwrap();
    });
}

#[test]
fn a_changed_policy_shows_as_that_record_alone() {
    let is_header = |line: &str| line.starts_with("+++ ") || line.starts_with("--- ");
    let record = |sign, policy| {
        format!("{sign}_dmarc.example.com. 3600 IN TXT \"v=DMARC1; p={policy}; rua=mailto:dmarc-reports@example.com\"")
    };
    let is_reason = |line: &str| line.starts_with("-; Receivers") || line.starts_with("+; Receivers");
    for (_guard, site) in [plain(), blessed()] {
        replace(&site.join("postseal.toml"), "dmarc.reports", "dmarc.policy = \"reject\"\ndmarc.reports");
        let (code, out, _) = text(&postseal(&site, &["diff"]));
        let changed: Vec<&str> = out.lines().filter(|line| line.starts_with(['+', '-']) && !is_header(line)).collect();
        let (reasons, records): (Vec<&str>, Vec<&str>) = changed.into_iter().partition(|line| is_reason(line));
        let [before, after] = [record('-', "none"), record('+', "reject; np=reject")];
        assert_eq!((code, records, reasons.len()), (1, vec![before.as_str(), after.as_str()], 2));
        assert!(out.lines().last().unwrap().starts_with("1 changed, 0 added, 0 missing, "), "{out}");
    }
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
    let zone = site.join("golden/dns/example.com.zone");
    let in_ci = |value: &str, arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_postseal"));
        let command = command.args(arguments).arg("--site").arg(&site).env("CI", value).env_remove("GITHUB_ACTIONS");
        text(&command.output().unwrap())
    };
    for value in ["true", "1", "yes", "woodpecker"] {
        fs::write(&zone, "spoilt\n").unwrap();
        let (code, out, err) = in_ci(value, &["bless"]);
        assert_eq!((code, out.as_str()), (2, ""), "CI={value}");
        assert!(err.contains("--force"), "{err}");
        assert_eq!(fs::read_to_string(&zone).unwrap(), "spoilt\n");
        assert_eq!(in_ci(value, &["bless", "--force"]).0, 0);
        assert_eq!(in_ci(value, &["diff"]).0, 0);
    }
    for value in ["", "0", "false", "False"] {
        assert_eq!(in_ci(value, &["bless"]).0, 0, "CI={value}");
    }
}

#[test]
fn a_clone_is_blessed_from_its_lock_and_gets_no_state() {
    let (_guard, site) = plain();
    for file in files(&site.join("golden")) {
        fs::write(&file, "spoilt\n").unwrap();
    }
    fs::write(site.join("golden/stray"), "").unwrap();
    assert_eq!(text(&postseal(&site, &["bless"])).0, 0);
    let mut expected: Vec<_> = files(Path::new(PLAIN));
    let mut found: Vec<_> = files(&site);
    expected.sort();
    found.sort();
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found.strip_prefix(&site).unwrap(), expected.strip_prefix(PLAIN).unwrap());
        assert_eq!(fs::read_to_string(found).unwrap(), fs::read_to_string(expected).unwrap());
    }
}

#[test]
fn a_clone_without_its_lock_is_neither_compared_nor_blessed() {
    // The one case that could be rendered without: it lost its DKIM keys.
    let guard = tempfile::tempdir().unwrap();
    let site = guard.path().join("site");
    copy(&cases().into_iter().find(|case| case.ends_with("acme-certificates")).unwrap(), &site);
    let lock = site.join("postseal.lock");
    let kept = fs::read(&lock).unwrap();
    fs::remove_file(&lock).unwrap();
    for command in ["diff", "bless"] {
        let (code, out, err) = text(&postseal(&site, &[command]));
        assert_eq!((code, out.as_str()), (2, ""), "{command}");
        assert!(err.contains("neither state/ nor postseal.lock"), "{err}");
    }
    fs::write(&lock, kept).unwrap();
    assert_eq!(text(&postseal(&site, &["diff"])).0, 0);
}

/// What must be neither written nor shown.
const SECRETS: [&str; 2] = ["-----BEGIN PRIVATE KEY-----", "alice@example.com:$2b$10$abcdefghijklmnopqrstuv"];

#[test]
fn a_secret_that_a_template_copies_is_neither_blessed_nor_shown() {
    for secret in SECRETS {
        for format in ["human", "json"] {
            let (_guard, site) = plain();
            let smtpd_conf = site.join("golden/mail.example.com/root/etc/smtpd.conf");
            let before = fs::read_to_string(&smtpd_conf).unwrap();
            fs::create_dir(site.join("templates")).unwrap();
            fs::write(site.join("templates/smtpd.conf"), format!("# {secret}\n")).unwrap();
            for command in ["bless", "diff"] {
                let (code, out, err) = text(&postseal(&site, &[command, "--format", format]));
                assert_eq!((code, out.as_str()), (4, ""), "{command}: {err}");
                assert!(err.contains("smtpd.conf") && !err.contains(secret), "{err}");
            }
            assert_eq!(fs::read_to_string(&smtpd_conf).unwrap(), before);
        }
    }
}

#[test]
fn a_secret_that_was_put_into_golden_is_not_shown_and_the_next_bless_takes_it_out() {
    for secret in SECRETS {
        let (_guard, site) = plain();
        let zone = site.join("golden/dns/example.com.zone");
        fs::write(&zone, format!("; {secret}\n")).unwrap();
        let (code, out, err) = text(&postseal(&site, &["diff"]));
        assert_eq!((code, out.as_str()), (4, ""), "{err}");
        assert!(err.contains("example.com.zone") && !err.contains(secret), "{err}");
        let (code, out, err) = text(&postseal(&site, &["bless"]));
        assert!(code == 0 && !out.contains(secret) && !err.contains(secret), "{out}{err}");
        assert_eq!(text(&postseal(&site, &["diff"])).0, 0);
    }
}

#[test]
fn a_new_user_changes_nothing_that_is_public() {
    let (_guard, site) = blessed();
    assert_eq!(text(&postseal(&site, &["user", "add", "bob@example.com"])).0, 0);
    let (code, out, _) = text(&postseal(&site, &["diff"]));
    assert_eq!(code, 0, "{out}");
}

/// What is committed of a site, at another place.
fn clone(site: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    for part in ["domains", "golden", "templates"] {
        if site.join(part).exists() {
            copy(&site.join(part), &to.join(part));
        }
    }
    fs::create_dir_all(to).unwrap();
    for part in ["postseal.toml", "postseal.lock"] {
        fs::copy(site.join(part), to.join(part)).unwrap();
    }
}

/// Declares `example.org` beside `example.com`.
fn add_domain(site: &Path) {
    replace(
        &site.join("postseal.toml"),
        "\"abuse@example.com\"",
        "\"postmaster@example.org\" = \"alice@example.com\"\n\"abuse@example.com\"",
    );
    fs::create_dir_all(site.join("domains")).unwrap();
    fs::write(site.join("domains/example.org.toml"), "spf = \"fail\"\n").unwrap();
}

/// The answers of `diff` in every form; the annotations of GitHub name the site's own place, so they are asked from within.
fn answers(site: &Path) -> Vec<(i32, String, String)> {
    let answer = |format: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_postseal"));
        let command = command.args(["diff", "--format", format]).current_dir(site);
        text(&command.env_remove("GITHUB_ACTIONS").env_remove("GITHUB_STEP_SUMMARY").output().unwrap())
    };
    ["human", "json", "github"].map(answer).into()
}

#[test]
fn a_clone_without_state_gives_the_same_answer() {
    let (guard, site) = blessed();
    let other = guard.path().join("clone");
    // A setting, then keys that the settings want and nobody made, then those keys.
    replace(&site.join("postseal.toml"), "name = \"example.com\"", "name = \"example.com\"\nspf = \"fail\"");
    clone(&site, &other);
    let policy = answers(&site);
    assert_eq!((policy[0].0, answers(&other)), (1, policy));
    add_domain(&site);
    clone(&site, &other);
    let keyless = answers(&site);
    assert!(keyless[0].1.contains("example.org has no DKIM key yet (rsa); make it where the ledger is"), "{keyless:?}");
    assert_eq!(answers(&other), keyless);
    assert_eq!(text(&postseal(&site, &["render"])).0, 0);
    clone(&site, &other);
    let keyed = answers(&site);
    assert!(keyed[0].1.contains("\n# new DKIM key of example.org (rsa): selector "), "{keyed:?}");
    assert_eq!(answers(&other), keyed);
}

#[test]
fn a_clone_blesses_no_domain_whose_keys_were_never_made() {
    let (guard, site) = blessed();
    add_domain(&site);
    let other = guard.path().join("clone");
    clone(&site, &other);
    let (code, out, err) = text(&postseal(&other, &["bless"]));
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.contains("example.org has no DKIM key yet") && err.contains("postseal render"), "{err}");
    assert!(!other.join("golden/dns/example.org.zone").exists());
    // Where the ledger is they are made.
    assert_eq!(text(&postseal(&site, &["bless"])).0, 0);
    clone(&site, &other);
    assert_eq!(text(&postseal(&other, &["diff"])).0, 0);
}

#[test]
fn of_a_domain_that_left_the_settings_only_the_keys_stay_published() {
    let (guard, site) = blessed();
    let before = fs::read_to_string(site.join("postseal.toml")).unwrap();
    add_domain(&site);
    assert_eq!(text(&postseal(&site, &["bless"])).0, 0);
    fs::write(site.join("postseal.toml"), before).unwrap();
    fs::remove_dir_all(site.join("domains")).unwrap();
    let other = guard.path().join("clone");
    clone(&site, &other);
    assert!(fs::read_to_string(other.join("postseal.lock")).unwrap().contains("example.org"));
    let (code, out, _) = text(&postseal(&other, &["diff"]));
    assert_eq!(code, 1);
    assert!(out.contains("--- a/golden/dns/example.org.zone\n+++ b/rendered/dns/example.org.zone\n"), "{out}");
    let gone = |what: &str| out.lines().any(|line| line.starts_with('-') && line.contains(what));
    assert!(gone("v=spf1") && gone("v=DMARC1") && !gone("_domainkey"), "{out}");
    assert_eq!(text(&postseal(&other, &["bless"])).0, 0);
    assert_eq!(text(&postseal(&other, &["diff"])).0, 0);
}

#[test]
fn an_old_lock_without_a_certificate_is_told_to_be_renewed() {
    let (_guard, site) = plain();
    replace(&site.join("postseal.lock"), "host = \"mail.example.com\"", "host = \"old.example.com\"");
    for command in ["diff", "bless"] {
        let (code, out, err) = text(&postseal(&site, &[command]));
        assert_eq!((code, out.as_str()), (2, ""));
        assert!(err.contains("run `postseal render` there and commit it"), "{err}");
    }
}

#[test]
fn line_ends_of_both_kinds_survive_a_git_that_changes_them() {
    let (guard, site) = blessed();
    let name = "rspamd/local.d/dmarc.conf";
    fs::create_dir_all(site.join("templates/rspamd/local.d")).unwrap();
    fs::write(site.join("templates").join(name), "# first\r\n# second\r\n").unwrap();
    assert_eq!(text(&postseal(&site, &["bless"])).0, 0);
    let git = |place: &Path, arguments: &[&str]| {
        let mut command = Command::new("git");
        let command = command.args(["-c", "core.autocrlf=true", "-c", "user.name=a", "-c", "user.email=a@example.com"]);
        let output = command.args(arguments).current_dir(place).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    git(&site, &["init", "--quiet"]);
    git(&site, &["add", "."]);
    git(&site, &["commit", "--quiet", "-m", "site"]);
    git(guard.path(), &["clone", "--quiet", "site", "clone"]);
    let other = guard.path().join("clone");
    assert!(!other.join("state").exists());
    let lock = fs::read_to_string(other.join("postseal.lock")).unwrap();
    assert!(lock.contains("\r\n"), "git changed nothing, so this proves nothing");
    for file in files(&site.join("golden")) {
        let cloned = other.join(file.strip_prefix(&site).unwrap());
        assert_eq!(fs::read(&cloned).unwrap(), fs::read(&file).unwrap(), "{}", cloned.display());
    }
    assert_eq!(
        text(&postseal(&other, &["diff"])),
        (0, "0 changed, 0 added, 0 missing, 17 identical\n".into(), String::new())
    );
}

#[test]
fn a_link_in_golden_is_named_and_not_followed() {
    let link = |at: &Path| {
        let place = at.parent().unwrap().join("elsewhere");
        fs::create_dir_all(&place).unwrap();
        fs::write(place.join("token"), "of another program\n").unwrap();
        std::os::unix::fs::symlink(place, at).unwrap();
    };
    for name in ["golden/dns/link", "golden"] {
        let (_guard, site) = plain();
        let kept = fs::read_to_string(site.join("postseal.lock")).unwrap();
        if name == "golden" {
            fs::remove_dir_all(site.join(name)).unwrap();
        }
        link(&site.join(name));
        for command in ["diff", "bless"] {
            let (code, out, err) = text(&postseal(&site, &[command]));
            assert_eq!((code, out.as_str()), (2, ""), "{command} {name}: {err}");
            assert!(err.contains(&format!("{name}` is a link")) && !err.contains("another program"), "{err}");
        }
        // The mend that it tells.
        fs::remove_file(site.join(name)).unwrap();
        let _ = fs::remove_dir_all(site.join("golden/dns/elsewhere"));
        assert_eq!(text(&postseal(&site, &["bless"])).0, 0);
        assert_eq!(fs::read_to_string(site.join("postseal.lock")).unwrap(), kept);
    }
}

#[test]
fn every_outcome_has_its_exit_code_in_every_form() {
    type Spoil = fn(&Path);
    let table: [(i32, Spoil); 5] = [
        (0, |_| {}),
        (1, |site| fs::remove_file(site.join("golden/dns/example.com.zone")).unwrap()),
        (2, |site| replace(&site.join("postseal.toml"), "platform", "plattform")),
        (3, |site| {
            use std::os::unix::fs::PermissionsExt as _;
            fs::set_permissions(site.join("state"), fs::Permissions::from_mode(0o755)).unwrap();
        }),
        (4, |site| fs::write(site.join("golden/dns/example.com.zone"), "-----BEGIN PRIVATE KEY-----\n").unwrap()),
    ];
    let (guard, site) = blessed();
    for (code, spoil) in table {
        let place = guard.path().join(code.to_string());
        let copied = Command::new("cp").arg("-a").args([&site, &place]).status().unwrap();
        assert!(copied.success());
        spoil(&place);
        for format in ["human", "json", "github"] {
            let run = |more: &[&str]| text(&postseal(&place, &[&["diff", "--format", format], more].concat()));
            let (found, out, err) = run(&[]);
            assert_eq!((found, out.is_empty()), (code, code > 1), "{format}: {out}{err}");
            assert_eq!(err.is_empty(), code < 2, "{err}");
            // Only the difference is overlooked.
            assert_eq!(run(&["--exit-zero"]).0, if code == 1 { 0 } else { code }, "{format}");
        }
    }
}

#[test]
fn json_tells_of_each_change_what_and_where_it_is_and_why() {
    let (_guard, site) = plain();
    replace(&site.join("postseal.toml"), "dmarc.reports", "dmarc.policy = \"reject\"\ndmarc.reports");
    let report: serde_json::Value =
        serde_json::from_str(&text(&postseal(&site, &["diff", "--format", "json"])).1).unwrap();
    let change = &report["changes"][0];
    let golden = fs::read_to_string(site.join("golden/dns/example.com.zone")).unwrap();
    // Its reason, which stands above it, is another one too.
    let line = golden.lines().position(|line| line.starts_with("_dmarc.")).unwrap();
    assert_eq!((change["path"].as_str(), change["kind"].as_str()), (Some("dns/example.com.zone"), Some("changed")));
    assert_eq!(change["line"], line);
    let reason = "settings, templates or postseal itself changed, or golden/ was edited";
    assert_eq!(change["reason"], serde_json::json!([reason]));
}

#[test]
fn a_lock_that_is_older_than_the_ledger_is_a_difference() {
    let (_guard, site) = blessed();
    let lock = site.join("postseal.lock");
    let old = fs::read(&lock).unwrap();
    add_domain(&site);
    for command in ["render", "bless"] {
        assert_eq!(text(&postseal(&site, &[command])).0, 0);
    }
    assert_eq!(text(&postseal(&site, &["diff"])).0, 0);
    // As when a merge took the other side's lock.
    fs::write(&lock, old).unwrap();
    let (code, out, _) = text(&postseal(&site, &["diff"]));
    assert_eq!(code, 1);
    assert!(out.contains("postseal.lock is older than the ledger; bring it up to date: postseal render"), "{out}");
    assert_eq!(text(&postseal(&site, &["render"])).0, 0);
    assert_eq!(text(&postseal(&site, &["diff"])).0, 0);
}

#[test]
fn what_state_keeps_is_neither_blessed_nor_shown() {
    let (_guard, site) = blessed();
    let password = fs::read_to_string(site.join("state/passwords/alice@example.com/password")).unwrap();
    fs::create_dir_all(site.join("templates/rspamd/local.d")).unwrap();
    fs::write(site.join("templates/rspamd/local.d/dmarc.conf"), format!("# {password}\n")).unwrap();
    for command in ["bless", "diff"] {
        let (code, out, err) = text(&postseal(&site, &[command]));
        assert_eq!(code, 4, "{command}: {err}");
        assert!(!out.contains(&password) && !err.contains(&password), "{command}");
    }
}

/// Every file below a directory with its content.
fn snapshot(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = files(directory).into_iter().map(|file| (file.clone(), fs::read(file).unwrap())).collect();
    files.sort();
    files
}

#[test]
fn a_key_store_in_golden_is_refused_though_it_is_no_text() {
    let (_guard, site) = blessed();
    let bundle = site.join("handout/alice@example.com/default/alice@example.com.p12");
    fs::copy(bundle, site.join("golden/notes.bin")).unwrap();
    for command in ["diff", "bless"] {
        let (code, out, err) = text(&postseal(&site, &[command]));
        assert_eq!((code, out.as_str()), (4, ""), "{command}: {err}");
        assert!(err.contains("`golden/notes.bin` is a private key or a .p12 file"), "{err}");
    }
}

#[test]
fn no_command_writes_what_a_template_copies_from_state() {
    let (_guard, site) = blessed();
    let template = site.join("templates/rspamd/local.d/dmarc.conf");
    fs::create_dir_all(template.parent().unwrap()).unwrap();
    // New keys would be made before anything is rendered.
    add_domain(&site);
    let password = fs::read_to_string(site.join("state/passwords/alice@example.com/password")).unwrap();
    for secret in [SECRETS[0], SECRETS[1], &password] {
        fs::write(&template, format!("# {secret}\n")).unwrap();
        let before = snapshot(&site);
        let commands: [&[&str]; 4] =
            [&["render"], &["bless"], &["user", "add", "bob@example.com"], &["user", "passwd", "alice@example.com"]];
        for command in commands {
            let (code, out, err) = text(&postseal(&site, command));
            assert_eq!((code, out.as_str()), (4, ""), "{command:?}: {err}");
            assert!(err.contains("dmarc.conf") && !err.contains(secret), "{err}");
            assert!(snapshot(&site) == before, "{command:?} wrote something");
        }
    }
    fs::write(&template, format!("# {}\n", SECRETS[0])).unwrap();
    // A lost device cannot wait: the ledger revokes, and the message says that out/ does not yet.
    let (code, _, err) = text(&postseal(&site, &["user", "remove", "alice@example.com"]));
    assert_eq!(code, 4);
    assert!(
        err.contains(
            "alice@example.com is removed and revoked in the ledger, but out/ and postseal.lock may not show it yet"
        ),
        "{err}"
    );
    assert!(text(&postseal(&site, &["user", "list"])).1.starts_with("no users yet"));
}

#[test]
fn control_characters_of_golden_do_not_reach_the_terminal() {
    let (_guard, site) = plain();
    replace(&site.join("golden/dns/example.com.zone"), "; ", "; \u{1b}[2J\u{202e}");
    let (code, out, _) = text(&postseal(&site, &["diff"]));
    assert_eq!(code, 1);
    assert!(out.contains("\\u{1b}[2J\\u{202e}") && !out.contains('\u{1b}'), "{out}");
}
