//! The life of certificates, as an administrator leads it: devices, renewal with an overlap, revocation.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, dead_code, missing_docs)]
#![allow(clippy::disallowed_methods, reason = "a test looks into the site")]

#[path = "support/surroundings.rs"]
mod surroundings;

use std::fs;
use std::path::PathBuf;

use postseal::pki::Certificate;
use serde_json::Value;
use time::macros::datetime;
use time::{Duration, OffsetDateTime};

use surroundings::{Answer, Surroundings};

const NOON: OffsetDateTime = datetime!(2026-11-24 12:00 UTC);
const ALICE: &str = "alice@example.com";

/// A site of Alice's, and the day that it is there.
struct Place {
    _guard: tempfile::TempDir,
    site: PathBuf,
    now: OffsetDateTime,
}

impl Place {
    fn new() -> Self {
        let (guard, site) = surroundings::site();
        Self { _guard: guard, site, now: NOON }
    }

    fn run(&self, line: &str) -> Answer {
        Surroundings { now: self.now, ..Surroundings::default() }.run(&self.site, line.split_whitespace())
    }

    /// Runs what must succeed, and returns what it says.
    fn done(&self, line: &str) -> String {
        let answer = self.run(line);
        assert_eq!(answer.exit_code, 0, "{line}: {}", answer.err);
        answer.out
    }

    fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.done(&format!("{line} --format json"))).unwrap()
    }

    fn after(&mut self, days: i64) {
        self.now += Duration::days(days);
    }

    /// The certificates of Alice's, in the order of `user show`: device and state.
    fn states(&self) -> Vec<(String, String)> {
        let shown = self.json(&format!("user show {ALICE}"));
        let word = |one: &Value, name: &str| one[name].as_str().unwrap().to_owned();
        let certificates = shown["certificates"].as_array().unwrap();
        certificates.iter().map(|one| (word(one, "device"), word(one, "state"))).collect()
    }

    fn twins(&self) -> usize {
        let list = self.site.join("out/mail.example.com/root/etc/mail/postseal/clients.pem");
        Certificate::all_from_pem(&fs::read_to_string(list).unwrap()).unwrap().len()
    }

    fn p12(&self, device: &str) -> Option<Vec<u8>> {
        fs::read(self.site.join(format!("handout/{ALICE}/{device}/{ALICE}.p12"))).ok()
    }
}

fn states(states: &[(&str, &str)]) -> Vec<(String, String)> {
    states.iter().map(|(device, state)| ((*device).to_owned(), (*state).to_owned())).collect()
}

#[test]
fn a_renewed_certificate_and_the_older_one_are_both_admitted_for_a_while() {
    let place = Place::new();
    let before = place.p12("default");
    let said = place.done(&format!("user renew {ALICE}"));
    assert!(said.contains("is admitted until 2026-12-24"), "{said}");
    assert_eq!(place.states(), states(&[("default", "superseded"), ("default", "live")]));
    assert_eq!(place.twins(), 2);
    assert!(place.p12("default").is_some() && place.p12("default") != before);
}

#[test]
fn the_overlap_never_outlasts_the_older_certificate() {
    let mut place = Place::new();
    place.after(360);
    let said = place.done(&format!("user renew {ALICE}"));
    assert!(said.contains("is admitted until 2027-11-24"), "{said}");
}

#[test]
fn without_an_overlap_the_older_certificate_is_refused_at_once() {
    let place = Place::new();
    place.done(&format!("user renew {ALICE} --overlap 0d"));
    assert_eq!(place.states(), states(&[("default", "revoked"), ("default", "live")]));
    assert_eq!(place.twins(), 1);
}

#[test]
fn a_certificate_that_was_replaced_is_never_renewed_again() {
    let mut place = Place::new();
    place.after(340);
    assert_eq!(place.json("user renew --expiring 30d")["renewed"].as_array().unwrap().len(), 1);
    for line in ["user renew --expiring 30d", "user renew --all"] {
        assert_eq!(place.done(line), "nothing to renew\n", "{line}");
    }
    place.done(&format!("user renew {ALICE}"));
    assert_eq!(place.states().iter().filter(|(_, state)| state == "live").count(), 1);
}

#[test]
fn only_what_ends_within_the_days_is_renewed() {
    let mut place = Place::new();
    place.done(&format!("user add {ALICE} --device phone --days 90"));
    place.after(61);
    let renewed = place.json("user renew --expiring 30d");
    let devices: Vec<&str> =
        renewed["renewed"].as_array().unwrap().iter().map(|one| one["device"].as_str().unwrap()).collect();
    assert_eq!(devices, ["phone"]);
}

#[test]
fn with_the_same_key_no_p12_is_made_and_the_key_stays() {
    let place = Place::new();
    place.done(&format!("user renew {ALICE} --same-key"));
    assert_eq!(place.p12("default"), None);
    let chain = fs::read_to_string(place.site.join(format!("handout/{ALICE}/default/{ALICE}.pem"))).unwrap();
    let renewed = Certificate::from_pem(&chain).unwrap();
    let shown = place.json(&format!("user show {ALICE}"));
    let serials: Vec<&str> =
        shown["certificates"].as_array().unwrap().iter().map(|one| one["serial"].as_str().unwrap()).collect();
    assert_eq!(renewed.facts().serial, serials[1]);
    assert!(!place.site.join(format!("state/passwords/{ALICE}/default.p12-password")).exists());
    // The next renewal knows that the key is the person's own.
    place.done(&format!("user renew {ALICE}"));
    assert_eq!(place.p12("default"), None);
    let again = fs::read_to_string(place.site.join(format!("handout/{ALICE}/default/{ALICE}.pem"))).unwrap();
    assert_eq!(Certificate::from_pem(&again).unwrap().facts().spki, renewed.facts().spki);
}

#[test]
fn of_two_devices_one_is_revoked_alone_and_what_is_left_is_said() {
    let place = Place::new();
    place.done(&format!("user add {ALICE} --device phone"));
    let said = place.done(&format!("user revoke {ALICE} --device phone"));
    assert!(said.contains("still admitted: alice@example.com for `default`, until 2027-11-24"), "{said}");
    assert_eq!(place.states(), states(&[("default", "live"), ("phone", "revoked")]));
    assert_eq!(place.twins(), 1);
    assert!(!place.site.join(format!("handout/{ALICE}/phone")).exists());
    assert!(place.p12("default").is_some());
}

#[test]
fn to_revoke_a_device_revokes_the_older_certificate_of_an_overlap_too() {
    let place = Place::new();
    place.done(&format!("user add {ALICE} --device phone"));
    place.done(&format!("user renew {ALICE} --device phone"));
    place.done(&format!("user revoke {ALICE} --device phone"));
    assert_eq!(place.states(), states(&[("default", "live"), ("phone", "revoked"), ("phone", "revoked")]));
    assert_eq!(place.twins(), 1);
}

#[test]
fn a_device_that_was_revoked_gets_a_new_certificate_if_asked() {
    let place = Place::new();
    place.done(&format!("user revoke {ALICE} --reason compromised"));
    place.done(&format!("user add {ALICE}"));
    assert_eq!(place.states(), states(&[("default", "revoked"), ("default", "live")]));
}

#[test]
fn to_revoke_again_does_no_harm() {
    let place = Place::new();
    place.done(&format!("user revoke {ALICE}"));
    let said = place.done(&format!("user revoke {ALICE}"));
    assert!(said.starts_with("nothing of alice@example.com was admitted any more"), "{said}");
}

#[test]
fn a_lost_device_changes_the_mail_password_and_another_reason_does_not() {
    let place = Place::new();
    place.done(&format!("user add {ALICE} --device phone"));
    let password = || fs::read_to_string(place.site.join(format!("state/passwords/{ALICE}/password"))).unwrap();
    let credentials =
        || fs::read_to_string(place.site.join("out/mail.example.com/root/etc/mail/postseal/credentials")).unwrap();
    let before = (password(), credentials());
    place.done(&format!("user revoke {ALICE} --device phone --reason left"));
    assert_eq!((password(), credentials()), before);
    place.done(&format!("user revoke {ALICE} --device phone --reason lost"));
    assert!(password() != before.0 && credentials() != before.1);
}

#[test]
fn a_revocation_counts_though_the_settings_are_broken() {
    let place = Place::new();
    fs::write(place.site.join("postseal.toml"), "no toml").unwrap();
    let answer = place.run(&format!("user revoke {ALICE}"));
    assert_eq!(answer.exit_code, 3);
    assert!(answer.err.contains("1 certificate of alice@example.com revoked in the ledger, but"), "{}", answer.err);
}

#[test]
fn a_list_shows_what_it_is_asked_for() {
    let mut place = Place::new();
    place.done(&format!("user add {ALICE} --device phone --days 29"));
    place.done("user add bob@example.com --days 200");
    place.done(&format!("user renew {ALICE} --device default"));
    place.done("user revoke bob@example.com");
    place.after(10);
    let expect = |line: &str, expected: &str| {
        let said = place.done(line);
        let words =
            |line: &str| line.split_whitespace().take(2).collect::<Vec<_>>().join(" ").replace("@example.com", "");
        assert_eq!(said.lines().map(words).collect::<Vec<_>>().join(", "), expected, "{line}");
    };
    expect("user list", "alice default, alice default, alice phone, bob -");
    expect("user list --expiring 30d", "alice phone");
    expect("user list --state superseded", "alice default");
    expect("user list --state revoked", "bob default");
    expect("user list --state none", "bob -");
    expect("user list --sort expiry alice", "alice phone, alice default, alice default");
    expect("user list --device phone", "alice phone");
    expect("user list --domain example.org", "none of");
}

#[test]
fn the_history_of_a_user_tells_what_happened_in_order() {
    let place = Place::new();
    place.done(&format!("user renew {ALICE}"));
    place.done(&format!("user revoke {ALICE} --reason lost"));
    place.done(&format!("user remove {ALICE}"));
    let shown = place.json(&format!("user show {ALICE}"));
    let what: Vec<&str> =
        shown["history"].as_array().unwrap().iter().map(|one| one["what"].as_str().unwrap()).collect();
    let expected = [
        "client-certificate-issued",
        "client-certificate-renewed",
        "client-certificate-revoked",
        "client-certificate-revoked",
        "password-set",
        "user-removed",
    ];
    assert_eq!((what.as_slice(), shown["removed"].as_bool()), (expected.as_slice(), Some(true)));
}

#[test]
fn a_mistyped_device_is_guessed() {
    let place = Place::new();
    place.done(&format!("user add {ALICE} --device phone"));
    for verb in ["revoke", "renew"] {
        let answer = place.run(&format!("user {verb} {ALICE} --device phoen"));
        assert_eq!(answer.exit_code, 2);
        assert!(answer.err.contains("did you mean `phone`?"), "{}", answer.err);
    }
}

#[test]
fn a_certificate_that_ran_out_is_renewed_whether_or_not_its_end_is_recorded() {
    for ticked in [false, true] {
        let mut place = Place::new();
        place.after(380);
        if ticked {
            place.done("tick");
            assert_eq!(place.states(), states(&[("default", "expired")]));
        }
        let said = place.done("user renew --expiring 30d");
        assert!(said.contains("the old one           ended on 2027-11-24"), "ticked {ticked}: {said}");
        assert_eq!(place.states().last().unwrap().1, "live", "ticked {ticked}");
        place.done("fsck");
    }
}

#[test]
fn a_device_that_nobody_missed_for_a_month_is_renewed_by_name_only() {
    let mut place = Place::new();
    place.after(400);
    place.done("tick");
    assert_eq!(place.done("user renew --all"), "nothing to renew\n");
    place.done(&format!("user renew {ALICE}"));
    assert_eq!(place.twins(), 1);
}

#[test]
fn a_list_issues_anew_what_ran_out() {
    let mut place = Place::new();
    place.after(380);
    let list = place.site.parent().unwrap().join("users.csv");
    fs::write(&list, format!("address\n{ALICE}\n")).unwrap();
    let said = place.json(&format!("user import {}", list.display()));
    assert_eq!((said["issued"].as_u64(), said["already_there"].as_u64()), (Some(1), Some(0)));
}
