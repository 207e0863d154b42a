//! What is left of DKIM keys that ended, what a killed run leaves of them, and what is noticed where a ledger went back.

#![expect(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test spoils sites and reads what was written")]
#![allow(clippy::indexing_slicing, dead_code)]

#[path = "support/surroundings.rs"]
mod surroundings;

use std::fs;
use std::path::{Path, PathBuf};

use postseal::dkim::rotation::Sighting;
use rusqlite::Connection;
use surroundings::{Answer, Surroundings, snapshot};
use time::Duration;
use time::macros::datetime;

fn run(hours: i64, site: &Path, arguments: &str) -> Answer {
    let now = datetime!(2026-11-24 12:00 UTC) + Duration::hours(hours);
    let name_servers = |_: &_| Sighting::Everywhere { ttl: 3600, negative_ttl: 3600 };
    Surroundings { now, name_servers, ..Surroundings::default() }.run(site, arguments.split(' '))
}

fn fine(hours: i64, site: &Path, arguments: &str) -> String {
    let answer = run(hours, site, arguments);
    assert_eq!(answer.exit_code, 0, "{arguments}: {answer:?}");
    answer.out
}

const DESTROYED_AT: i64 = 24 * 8;

/// A site whose first keys have been retired, revoked, and seen to be so; the next run destroys them.
fn ending() -> (tempfile::TempDir, PathBuf) {
    let (guard, site) = surroundings::site();
    fine(0, &site, "dkim advance");
    fine(0, &site, "dkim rotate");
    fine(0, &site, "dkim advance");
    assert!(fine(1, &site, "dkim advance").contains("202611r2 signs now in the place of 202611r"));
    fine(1, &site, "dkim confirm --in-force");
    assert!(fine(24 * 6, &site, "dkim advance").contains("202611r has served its time"));
    fine(24 * 6 + 1, &site, "dkim advance");
    (guard, site)
}

fn keys(site: &Path) -> Vec<PathBuf> {
    snapshot(&site.join("state/keys")).into_keys().collect()
}

/// Runs what destroys two keys, and puts back what it did after the ledger's word: as if it was killed there.
fn killed(site: &Path) -> Vec<PathBuf> {
    let (before, out) = (snapshot(site), site.join("out"));
    let keys_before = keys(site);
    assert!(fine(DESTROYED_AT, site, "dkim advance").contains("202611r is destroyed"));
    let keys_after = keys(site);
    let gone: Vec<PathBuf> = keys_before.into_iter().filter(|key| !keys_after.contains(key)).collect();
    assert_eq!(gone.len(), 2);
    for (path, content) in &before {
        if gone.contains(path) || path.ends_with("postseal.lock") || (path.starts_with(&out) && path.is_file()) {
            fs::write(path, content).unwrap();
            let mode = if gone.contains(path) { 0o600 } else { 0o644 };
            fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        }
    }
    let ledger = Connection::open(site.join("state/ledger.sqlite")).unwrap();
    ledger.execute("INSERT INTO stale_derived VALUES (1)", []).unwrap();
    gone
}

#[test]
fn the_run_that_destroys_a_key_removes_its_private_half_and_a_check_is_content() {
    let (_guard, site) = ending();
    fine(DESTROYED_AT, &site, "dkim advance");
    assert!(fine(DESTROYED_AT, &site, "fsck").starts_with("ledger and files agree"));
}

#[test]
fn where_the_run_that_destroys_a_key_is_killed_the_next_one_removes_it() {
    let (_guard, site) = ending();
    let gone = killed(&site);
    let told = run(DESTROYED_AT, &site, "fsck");
    assert_eq!(told.exit_code, 1, "{told:?}");
    assert!(told.out.contains("is the private half of 202611r._domainkey.example.com, which is destroyed"), "{told:?}");
    fine(DESTROYED_AT + 1, &site, "dkim advance");
    assert!(gone.iter().all(|key| !key.exists()));
    assert!(!site.join("state/swept").exists(), "what is destroyed is not kept elsewhere");
    assert!(fine(DESTROYED_AT + 1, &site, "fsck").starts_with("ledger and files agree"));
}

#[test]
fn a_destroyed_key_that_was_set_aside_before_is_destroyed_as_well() {
    let (_guard, site) = ending();
    let gone = killed(&site);
    fs::create_dir_all(site.join("state/swept/keys")).unwrap();
    let aside: Vec<PathBuf> =
        gone.iter().map(|key| site.join("state/swept/keys").join(key.file_name().unwrap())).collect();
    for (key, aside) in gone.iter().zip(&aside) {
        fs::rename(key, aside).unwrap();
    }
    fine(DESTROYED_AT + 1, &site, "render");
    assert!(aside.iter().all(|key| !key.exists()));
}

#[test]
fn a_private_half_that_another_key_has_as_well_stays() {
    let (_guard, site) = ending();
    let ledger = Connection::open(site.join("state/ledger.sqlite")).unwrap();
    let copy = "INSERT INTO dkim_key (domain, selector, algorithm, state, made, since, seen, public, key)
                SELECT 'example.net', 'same', algorithm, 'active', made, since, seen, public, key
                FROM dkim_key WHERE selector = '202611r'";
    assert_eq!(ledger.execute(copy, []), Ok(1));
    let before = keys(&site).len();
    fine(DESTROYED_AT, &site, "dkim advance");
    assert_eq!(keys(&site).len(), before - 1, "that of the other algorithm");
    fine(DESTROYED_AT, &site, "render");
    assert_eq!(keys(&site).len(), before - 1);
}

#[test]
fn a_ledger_in_which_a_key_does_not_sign_yet_that_is_committed_to_sign_is_refused() {
    let (_guard, site) = surroundings::site();
    fine(0, &site, "dkim advance");
    fine(0, &site, "dkim rotate");
    fine(0, &site, "dkim advance");
    let ledger = site.join("state/ledger.sqlite");
    let whole = Connection::open(&ledger).unwrap();
    whole.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    drop(whole);
    let old = fs::read(&ledger).unwrap();
    fine(2, &site, "dkim advance");
    for name in ["ledger.sqlite-wal", "ledger.sqlite-shm"] {
        let _ = fs::remove_file(site.join("state").join(name));
    }
    fs::write(&ledger, old).unwrap();
    let refused = run(3, &site, "dkim advance");
    assert_eq!(refused.exit_code, 2, "{refused:?}");
    let told = "postseal.lock names 202611r._domainkey.example.com as retiring, which the ledger does not know";
    assert!(refused.err.contains(told), "{refused:?}");
}

#[test]
fn a_key_that_came_back_is_told() {
    let back = |selector: &str, state: &str| {
        format!("UPDATE dkim_key SET state = '{state}', unused = NULL, left_at = NULL WHERE selector = '{selector}'")
    };
    let cases = [
        (back("202611r", "retiring"), "202611r._domainkey.example.com was revoked, and is recorded as retiring"),
        (back("202611r2", "published"), "202611r2._domainkey.example.com was activated, and is recorded as published"),
        (
            "DELETE FROM dkim_key WHERE selector = '202611e2'".to_owned(),
            "202611e2._domainkey.example.com was made, and is recorded no more",
        ),
    ];
    for (spoil, told) in cases {
        let (_guard, site) = ending();
        let ledger = Connection::open(site.join("state/ledger.sqlite")).unwrap();
        ledger
            .execute_batch("DROP TRIGGER dkim_key_never_goes_back; DROP TRIGGER selector_is_never_forgotten")
            .unwrap();
        ledger.execute_batch(&spoil).unwrap();
        let answer = run(0, &site, "fsck");
        assert!(answer.exit_code == 1 && answer.out.contains(told), "{told}: {answer:?}");
    }
}

#[test]
fn after_a_restore_nothing_is_taken_to_be_published_and_no_host_to_sign() {
    let (guard, site) = ending();
    let (backup, password) = (guard.path().join("site.age"), guard.path().join("password"));
    fs::write(&password, "correct horse battery").unwrap();
    fs::set_permissions(&password, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let by = format!("--passphrase-file {}", password.display());
    fine(DESTROYED_AT, &site, &format!("backup {} {by}", backup.display()));
    let again = guard.path().join("again");
    let said = fine(DESTROYED_AT, &again, &format!("restore {} {by}", backup.display()));
    assert!(said.contains("the records of the backup's 4 DKIM keys is not known any more"), "{said}");
    assert!(said.contains("postseal dkim advance --site"), "{said}");
    let ledger = Connection::open(again.join("state/ledger.sqlite")).unwrap();
    let count = |query: &str| ledger.query_row(query, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count("SELECT count(*) FROM dkim_key WHERE seen IS NOT NULL OR confirmed"), 0);
    assert_eq!(count("SELECT count(*) FROM dkim_in_force"), 0);
    assert!(!fine(DESTROYED_AT, &again, "dkim advance").contains("destroyed"), "their revocation is seen anew first");
    assert!(fine(DESTROYED_AT + 1, &again, "dkim advance").contains("202611r is destroyed"));
}
