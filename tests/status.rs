//! `status` in each of its forms, on real files: from the ledger, from a clone, and where nothing can be read.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, dead_code, missing_docs)]
#![allow(clippy::disallowed_methods, reason = "a test changes sites")]

#[path = "support/surroundings.rs"]
mod surroundings;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;
use time::Duration;
use time::macros::datetime;

use surroundings::{Answer, Surroundings, postseal, snapshot};

/// A site whose first DKIM keys are published.
fn published() -> (tempfile::TempDir, PathBuf) {
    let (guard, site) = surroundings::site();
    assert_eq!(postseal(&site, ["dkim", "confirm", "202611r", "202611e"]).exit_code, 0);
    (guard, site)
}

fn status(days: i64, site: &Path, options: &str) -> Answer {
    let now = datetime!(2026-11-24 12:00 UTC) + Duration::days(days);
    let arguments = std::iter::once("status").chain(options.split_whitespace());
    Surroundings { now, ..Surroundings::default() }.run(site, arguments)
}

fn ids(answer: &Answer) -> Vec<String> {
    let json: Value = serde_json::from_str(&answer.out).unwrap();
    json["findings"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_site_whose_keys_are_published_is_well_and_looking_changes_nothing() {
    let (_guard, site) = published();
    let before = snapshot(&site);
    for format in ["human", "json", "nagios", "prometheus", "ics"] {
        let answer = status(1, &site, &format!("--format {format}"));
        assert_eq!((answer.exit_code, answer.err.as_str()), (0, ""), "{format}");
    }
    assert_eq!(ids(&status(1, &site, "--format json")), ["golden-absent"]);
    assert_eq!(snapshot(&site), before);
}

#[test]
fn the_exit_code_tells_cron_and_nagios_how_urgent_it_is() {
    let (_guard, site) = published();
    // She has what she was given.
    fs::remove_dir_all(site.join("handout")).unwrap();
    fs::remove_dir_all(site.join("state/passwords")).unwrap();
    // Alice's certificate ends after 365 days, the server's after 200, of which the last third begins after 133.
    for (days, plain, nagios) in [(100, 0, 0), (140, 1, 1), (196, 1, 2), (400, 1, 2)] {
        assert_eq!(status(days, &site, "").exit_code, plain, "after {days} days");
        assert_eq!(status(days, &site, "--format json").exit_code, plain, "after {days} days");
        let answer = status(days, &site, "--format nagios");
        assert_eq!((answer.exit_code, answer.out.lines().count()), (nagios, 1), "{answer:?}");
        for format in ["prometheus", "ics"] {
            assert_eq!(status(days, &site, &format!("--format {format}")).exit_code, 0);
        }
    }
}

#[test]
fn a_user_whose_certificate_ends_is_a_warning_that_cron_need_not_tell() {
    let (_guard, site) = published();
    assert_eq!(postseal(&site, ["user", "add", "bob@example.com", "--days", "40"]).exit_code, 0);
    let answer = status(20, &site, "");
    assert_eq!(answer.exit_code, 0, "{answer:?}");
    assert!(answer.out.contains("bob@example.com  the certificate for `default` ends in 20 days"), "{}", answer.out);
    assert!(answer.out.contains("-> postseal user renew bob@example.com\n"), "{}", answer.out);
    let answer = status(20, &site, "--warn 2w --critical 0d");
    assert!(answer.out.contains("lies here since 20 days") && !answer.out.contains("ends in"), "{}", answer.out);
}

#[test]
fn nagios_is_told_unknown_where_nothing_can_be_known() {
    let (_guard, site) = published();
    let unknown = |answer: &Answer| {
        assert_eq!(answer.exit_code, 3, "{answer:?}");
        assert!(answer.out.starts_with("POSTSEAL UNKNOWN - ") && answer.out.lines().count() == 1, "{answer:?}");
    };
    unknown(&status(0, &site.join("nowhere"), "--format nagios"));
    unknown(&status(0, &site, "--format nagios --warn soon"));
    unknown(&status(0, &site, "--format=nagios --nonsense"));
    fs::set_permissions(site.join("state"), fs::Permissions::from_mode(0o755)).unwrap();
    unknown(&status(0, &site, "--format nagios"));
    fs::set_permissions(site.join("state"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(site.join("state/ledger.sqlite"), "no database").unwrap();
    unknown(&status(0, &site, "--format nagios"));
    fs::write(site.join("postseal.toml"), "nonsense = 1\n").unwrap();
    unknown(&status(0, &site, "--format nagios"));
}

#[test]
fn what_cannot_be_rendered_is_urgent_and_the_rest_is_told_all_the_same() {
    let (_guard, site) = published();
    fs::create_dir(site.join("templates")).unwrap();
    fs::write(site.join("templates/smtpd.conf"), "{% if").unwrap();
    let answer = status(140, &site, "--format json");
    assert_eq!(answer.exit_code, 1);
    let ids = ids(&answer);
    assert_eq!(&ids[..2], ["cannot-render", "server-certificate-expires"], "{ids:?}");
}

#[test]
fn what_was_changed_by_hand_and_not_rendered_is_due() {
    let (_guard, site) = published();
    let lock = fs::read_to_string(site.join("postseal.lock")).unwrap();
    fs::write(site.join("postseal.lock"), format!("{lock}# x\n")).unwrap();
    fs::write(site.join("out/mail.example.com/root/etc/mail/postseal/domains"), "").unwrap();
    let answer = status(1, &site, "--format json");
    assert_eq!((answer.exit_code, ids(&answer)[..2].to_vec()), (1, vec!["lock-stale".into(), "out-stale".into()]));
    let now = datetime!(2026-11-25 12:00 UTC);
    assert_eq!(Surroundings { now, ..Surroundings::default() }.run(&site, ["tick"]).exit_code, 0);
    assert_eq!(status(1, &site, "").exit_code, 0);
}

#[test]
fn golden_is_compared() {
    let (_guard, site) = published();
    assert_eq!(postseal(&site, ["bless"]).exit_code, 0);
    assert_eq!(ids(&status(1, &site, "--format json")), [""; 0]);
    fs::write(site.join("golden/more"), "x\n").unwrap();
    assert_eq!(ids(&status(1, &site, "--format json")), ["golden-differs"]);
}

#[test]
fn a_clone_tells_what_it_can_and_what_it_cannot() {
    let (_guard, site) = published();
    assert_eq!(postseal(&site, ["bless"]).exit_code, 0);
    fs::remove_dir_all(site.join("state")).unwrap();
    fs::remove_dir_all(site.join("out")).unwrap();
    assert_eq!(ids(&status(1, &site, "--format json")), ["no-ledger"]);
    let answer = status(199, &site, "");
    assert_eq!(answer.exit_code, 1);
    assert!(answer.out.contains("the server certificate ends in 1 day"), "{}", answer.out);
    assert!(answer.out.contains("known only where state/ is"), "{}", answer.out);
    fs::remove_file(site.join("postseal.lock")).unwrap();
    let answer = status(1, &site, "");
    assert!(answer.exit_code == 2 && answer.err.contains("error[no-lock]"), "{answer:?}");
}

#[test]
fn a_form_of_status_is_refused_elsewhere_before_anything_is_done() {
    let (_guard, site) = published();
    let before = snapshot(&site);
    for format in ["nagios", "prometheus", "ics"] {
        for command in [&["user", "remove", "alice@example.com"][..], &["tick"], &["render"]] {
            let answer = postseal(&site, command.iter().copied().chain(["--format", format]));
            assert_eq!((answer.exit_code, answer.out.as_str()), (2, ""), "{answer:?}");
            assert!(answer.err.contains("error[format-of-status]"), "{answer:?}");
        }
    }
    assert_eq!(snapshot(&site), before);
}

#[test]
fn a_file_is_replaced_whole_and_only_the_collectors_may_be_read_by_others() {
    let (guard, site) = published();
    let file = guard.path().join("postseal.prom");
    for (format, mode, begin) in [
        ("prometheus", 0o644, "# HELP "),
        ("ics", 0o600, "BEGIN:VCALENDAR\r\n"),
        ("json", 0o600, "{"),
        ("human", 0o600, "all"),
    ] {
        let answer = status(1, &site, &format!("--format {format} --output {}", file.display()));
        assert_eq!((answer.exit_code, answer.err.as_str()), (0, ""));
        assert!(format == "json" || answer.out.is_empty(), "{answer:?}");
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with(begin), "{text}");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, mode);
    }
    assert_eq!(fs::read_dir(guard.path()).unwrap().count(), 2, "something was left beside it");
}

#[test]
fn what_is_no_file_is_not_replaced() {
    let (guard, site) = published();
    let target = guard.path().join("kept");
    fs::write(&target, "mine").unwrap();
    let link = guard.path().join("link");
    std::os::unix::fs::symlink(&target, &link).unwrap();
    for place in [link.as_path(), guard.path(), &guard.path().join("nowhere/file")] {
        let answer = status(1, &site, &format!("--output {}", place.display()));
        assert_eq!(answer.exit_code, 2, "{answer:?}");
    }
    assert!(link.is_symlink() && fs::read_to_string(target).unwrap() == "mine");
}
