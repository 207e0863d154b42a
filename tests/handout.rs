//! `user handout`: what lies there is told, and goes once the person has it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, dead_code, missing_docs)]
#![allow(clippy::disallowed_methods, reason = "a test spoils sites")]

#[path = "support/surroundings.rs"]
mod surroundings;

use std::fs;
use std::path::Path;

use postseal::store::{SiteDir, Store};
use rusqlite::Connection;

use surroundings::{postseal, snapshot};

fn must(site: &Path, arguments: &[&str]) -> String {
    let answer = postseal(site, arguments);
    assert_eq!(answer.exit_code, 0, "{arguments:?}: {answer:?}");
    answer.out
}

fn handout(site: &Path, more: &[&str]) -> String {
    must(site, &[&["user", "handout", "alice@example.com"], more].concat())
}

fn is_there(site: &Path, path: &str) -> bool {
    site.join(path).exists()
}

const P12: &str = "handout/alice@example.com/default/alice@example.com.p12";
const P12_PASSWORD: &str = "state/passwords/alice@example.com/default.p12-password";
const PHONE: &str = "handout/alice@example.com/phone/alice@example.com.p12";
const PHONE_PASSWORD: &str = "state/passwords/alice@example.com/phone.p12-password";
const MAIL_PASSWORD: &str = "state/passwords/alice@example.com/password";

fn assert_in_order(site: &Path) {
    let answer = postseal(site, ["fsck"]);
    assert_eq!(answer.exit_code, 0, "{answer:?}");
}

#[test]
fn what_lies_there_is_told_and_nothing_is_changed() {
    let (_guard, site) = surroundings::site();
    let before = snapshot(&site);
    let told = handout(&site, &[]);
    for path in ["alice@example.com.p12, site-ca.pem", P12_PASSWORD, MAIL_PASSWORD] {
        assert!(told.contains(path), "{path}: {told}");
    }
    assert!(snapshot(&site) == before);
    let password = fs::read_to_string(site.join(P12_PASSWORD)).unwrap();
    assert!(!told.contains(&password));
}

#[test]
fn what_a_person_has_is_removed_device_by_device_and_the_mail_password_with_the_last() {
    let (_guard, site) = surroundings::site();
    must(&site, &["user", "add", "alice@example.com", "--device", "phone", "--apple"]);
    let credentials = Store::open(SiteDir::new(camino::Utf8Path::from_path(&site).unwrap()));
    let credentials = credentials.unwrap().ledger().credentials().unwrap();
    let told = handout(&site, &["--device", "phone", "--done"]);
    assert!(told.contains("until the rest is handed over: default"), "{told}");
    assert!(!is_there(&site, "handout/alice@example.com/phone") && !is_there(&site, PHONE_PASSWORD));
    assert!(is_there(&site, P12) && is_there(&site, P12_PASSWORD) && is_there(&site, MAIL_PASSWORD));
    assert!(handout(&site, &[]).contains("handed over on 2026-11-24"));
    assert_in_order(&site);

    let told = handout(&site, &["--done"]);
    assert!(told.contains("for `default`") && told.contains("the mail password is gone"), "{told}");
    assert!(!is_there(&site, "handout/alice@example.com") && !is_there(&site, P12_PASSWORD));
    assert!(!is_there(&site, MAIL_PASSWORD));
    assert_in_order(&site);
    let store = Store::open(SiteDir::new(camino::Utf8Path::from_path(&site).unwrap())).unwrap();
    assert!(store.ledger().credentials().unwrap() == credentials, "the account keeps its password");
    let events = store.ledger().events().unwrap();
    assert_eq!(events.iter().filter(|event| event.what == "handed-over").count(), 2);
    assert!(store.waiting_handouts(&store.inventory().unwrap()).unwrap().is_empty());
}

#[test]
fn a_new_mail_password_stays_until_it_is_handed_over_too() {
    let (_guard, site) = surroundings::site();
    handout(&site, &["--done"]);
    must(&site, &["user", "passwd", "alice@example.com"]);
    must(&site, &["render"]);
    assert!(is_there(&site, MAIL_PASSWORD));
    let told = handout(&site, &["--done"]);
    assert!(told.contains("was left to hand over"), "{told}");
    assert!(!is_there(&site, MAIL_PASSWORD));
}

#[test]
fn another_certificate_of_the_device_is_handed_over_anew() {
    let (_guard, site) = surroundings::site();
    handout(&site, &["--done"]);
    must(&site, &["user", "remove", "alice@example.com"]);
    must(&site, &["user", "add", "alice@example.com"]);
    must(&site, &["render"]);
    assert!(is_there(&site, P12) && is_there(&site, P12_PASSWORD) && is_there(&site, MAIL_PASSWORD));
    let store = Store::open(SiteDir::new(camino::Utf8Path::from_path(&site).unwrap())).unwrap();
    let waiting = store.waiting_handouts(&store.inventory().unwrap()).unwrap();
    assert_eq!(waiting.iter().map(|one| (one.device.as_str(), one.is_here)).collect::<Vec<_>>(), [("default", true)]);
}

#[test]
fn what_a_killed_run_recorded_is_completed_by_the_next_command_that_writes() {
    let (_guard, site) = surroundings::site();
    let ledger = Connection::open(site.join("state/ledger.sqlite")).unwrap();
    ledger.execute_batch("UPDATE certificate SET handed_over = 1795521600 WHERE kind = 'client'").unwrap();
    drop(ledger);
    let told = postseal(&site, ["fsck"]);
    assert!(told.exit_code == 1 && told.out.contains("was handed over, and is still here"), "{told:?}");
    must(&site, &["render"]);
    assert!(!is_there(&site, P12) && !is_there(&site, P12_PASSWORD));
    assert!(is_there(&site, MAIL_PASSWORD), "nobody said that it was handed over");
    assert_in_order(&site);
}

#[test]
fn a_persons_own_files_beside_a_handout_stay() {
    let (_guard, site) = surroundings::site();
    fs::write(site.join("handout/alice@example.com/default/NOTES"), "mine").unwrap();
    handout(&site, &["--done"]);
    assert!(!is_there(&site, P12) && is_there(&site, "handout/alice@example.com/default/NOTES"));
    handout(&site, &["--done"]);
    assert!(is_there(&site, "handout/alice@example.com/default/NOTES"));
}

#[test]
fn where_the_settings_are_wrong_a_handout_goes_all_the_same() {
    let (_guard, site) = surroundings::site();
    fs::write(site.join("postseal.toml"), "wrong").unwrap();
    handout(&site, &["--done"]);
    assert!(!is_there(&site, P12));
}
