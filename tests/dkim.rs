//! The life of DKIM keys by the commands that move it: what signs, what is published, and when. The clock and the name servers
//! are the test's.

#![expect(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test edits settings and reads what was written")]
#![allow(clippy::indexing_slicing, dead_code)]

#[path = "support/surroundings.rs"]
mod surroundings;

use std::fs;
use std::path::{Path, PathBuf};

use postseal::dkim::rotation::Sighting;
use postseal::dkim::seeing::Question;
use serde_json::Value;
use surroundings::{Answer, Surroundings, postseal};
use time::Duration;
use time::macros::datetime;

const EVERYWHERE: fn(&Question) -> Sighting = |_| Sighting::Everywhere { ttl: 7200, negative_ttl: 1800 };
const NOWHERE: fn(&Question) -> Sighting = |_| Sighting::Nowhere;
const SOMEWHERE: fn(&Question) -> Sighting = |_| Sighting::Somewhere;

/// The program so many minutes after the site was made, among such name servers.
fn after(minutes: i64, name_servers: fn(&Question) -> Sighting) -> Surroundings {
    let now = datetime!(2026-11-24 12:00 UTC) + Duration::minutes(minutes);
    Surroundings { now, name_servers, ..Surroundings::default() }
}

fn hours(hours: i64) -> i64 {
    hours * 60
}

fn days(days: i64) -> i64 {
    hours(days * 24)
}

fn fine(answer: Answer) -> String {
    assert_eq!(answer.exit_code, 0, "{answer:?}");
    answer.out
}

fn advance(site: &Path, minutes: i64, name_servers: fn(&Question) -> Sighting) -> String {
    fine(after(minutes, name_servers).run(site, ["dkim", "advance"]))
}

/// What `dkim list` says of each key of the algorithm: selector and state.
fn states(site: &Path, algorithm: &str) -> Vec<(String, String)> {
    let listed = fine(postseal(site, ["dkim", "list", "--format", "json"]));
    let json: Value = serde_json::from_str(&listed).unwrap();
    let keys = json["keys"].as_array().unwrap().iter().filter(|key| key["algorithm"] == algorithm);
    let text = |key: &Value, name: &str| key[name].as_str().unwrap().to_owned();
    keys.map(|key| (text(key, "selector"), text(key, "state"))).collect()
}

fn rsa(site: &Path) -> Vec<(String, String)> {
    states(site, "rsa")
}

fn pairs(states: &[(String, String)]) -> Vec<(&str, &str)> {
    states.iter().map(|(selector, state)| (selector.as_str(), state.as_str())).collect()
}

/// The RSA selector that Rspamd is told to sign with.
fn signs(site: &Path) -> String {
    let conf = out(site, "mail.example.com/root/etc/rspamd/local.d/dkim_signing.conf");
    let selectors = conf.split('"').filter(|word| word.starts_with("2026") && word.contains('r'));
    let found: Vec<&str> = selectors.collect();
    assert_eq!(found.len(), 1, "{conf}");
    found[0].to_owned()
}

fn out(site: &Path, path: &str) -> String {
    fs::read_to_string(site.join("out").join(path)).unwrap()
}

/// The selectors whose records are in the zone, and of which of them the `p=` is empty.
fn published(site: &Path) -> Vec<(String, bool)> {
    let zone = out(site, "dns/example.com.zone");
    let records = zone.lines().filter(|line| line.contains("._domainkey") && line.contains("TXT"));
    let mut found: Vec<(String, bool)> = records
        .filter(|line| line.contains("k=rsa"))
        .map(|line| (line.split('.').next().unwrap().to_owned(), line.contains("p=\"")))
        .collect();
    found.sort();
    found
}

fn key_files(site: &Path) -> usize {
    fs::read_dir(site.join("state/keys")).unwrap().count()
}

fn set(site: &Path, dkim: &str) {
    let file = site.join("postseal.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(file, text + "\n[dkim]\n" + dkim + "\n").unwrap();
}

/// A site whose first keys were seen, and whose host signs with them.
fn settled() -> (tempfile::TempDir, PathBuf) {
    let (guard, site) = surroundings::site();
    advance(&site, 0, EVERYWHERE);
    fine(postseal(&site, ["dkim", "confirm", "--in-force"]));
    (guard, site)
}

#[test]
fn the_first_keys_sign_at_once_and_are_unconfirmed_until_every_name_server_has_them() {
    let (_guard, site) = surroundings::site();
    assert_eq!(pairs(&rsa(&site)), [("202611r", "active")]);
    let list = || fine(postseal(&site, ["dkim", "list"]));
    assert_eq!(list().matches("unconfirmed").count(), 2);
    let said = advance(&site, 0, SOMEWHERE);
    assert!(said.contains("202611r._domainkey.example.com: not yet everywhere: ns2.example.com"), "{said}");
    assert_eq!(list().matches("unconfirmed").count(), 2);
    advance(&site, 1, EVERYWHERE);
    assert_eq!(list().matches("unconfirmed").count(), 0);
}

#[test]
fn a_successor_signs_once_every_name_server_had_it_for_the_wait() {
    let (_guard, site) = settled();
    fine(after(10, NOWHERE).run(&site, ["dkim", "rotate"]));
    assert_eq!(pairs(&rsa(&site)), [("202611r", "active"), ("202611r2", "generated")]);
    assert_eq!(published(&site), [("202611r".to_owned(), false), ("202611r2".to_owned(), false)]);
    advance(&site, 20, SOMEWHERE);
    assert_eq!(pairs(&rsa(&site)), [("202611r", "active"), ("202611r2", "published")]);
    advance(&site, 30, EVERYWHERE);
    // The least wait is an hour, for the zone says half of one.
    advance(&site, 89, EVERYWHERE);
    assert_eq!((signs(&site).as_str(), pairs(&rsa(&site))[1].1), ("202611r", "published"));
    let said = advance(&site, 90, EVERYWHERE);
    assert!(said.contains("example.com: 202611r2 signs now in the place of 202611r\n"), "{said}");
    assert!(said.contains("install it: postseal apply\n"), "{said}");
    assert_eq!(
        (signs(&site).as_str(), pairs(&rsa(&site))),
        ("202611r2", vec![("202611r", "retiring"), ("202611r2", "active")])
    );
}

#[test]
fn a_record_that_vanishes_before_the_switch_holds_it_and_the_wait_begins_anew() {
    let (_guard, site) = settled();
    fine(after(0, NOWHERE).run(&site, ["dkim", "rotate"]));
    advance(&site, 10, EVERYWHERE);
    advance(&site, hours(2), SOMEWHERE);
    advance(&site, hours(3), EVERYWHERE);
    assert_eq!(signs(&site), "202611r");
    advance(&site, hours(4), EVERYWHERE);
    assert_eq!(signs(&site), "202611r2");
}

#[test]
fn name_servers_that_are_all_silent_at_the_switch_hold_it_and_cost_no_wait() {
    let (_guard, site) = settled();
    fine(after(0, NOWHERE).run(&site, ["dkim", "rotate"]));
    advance(&site, 10, EVERYWHERE);
    advance(&site, hours(2), |_| Sighting::Unknown);
    assert_eq!(signs(&site), "202611r");
    advance(&site, hours(2) + 1, EVERYWHERE);
    assert_eq!(signs(&site), "202611r2");
}

/// A site on which a successor signs since five hours after its beginning; its host was not installed since.
fn switched() -> (tempfile::TempDir, PathBuf) {
    let (guard, site) = settled();
    fine(after(0, NOWHERE).run(&site, ["dkim", "rotate"]));
    advance(&site, hours(2), EVERYWHERE);
    advance(&site, hours(5), EVERYWHERE);
    (guard, site)
}

#[test]
fn the_clock_of_a_key_that_left_begins_with_the_installation() {
    let (_guard, site) = switched();
    advance(&site, days(60), EVERYWHERE);
    assert_eq!(pairs(&rsa(&site))[0], ("202611r", "retiring"));
    fine(after(days(60), EVERYWHERE).run(&site, ["dkim", "confirm", "--in-force"]));
    // Five days in queues, and two hours in caches, as the name servers said.
    advance(&site, days(65) + hours(2) - 1, EVERYWHERE);
    assert_eq!(pairs(&rsa(&site))[0], ("202611r", "retiring"));
    advance(&site, days(65) + hours(2), EVERYWHERE);
    assert_eq!(pairs(&rsa(&site))[0], ("202611r", "revoked"));
    assert_eq!(published(&site)[0], ("202611r".to_owned(), true));
}

#[test]
fn a_key_that_served_its_time_ends_without_its_private_half_and_its_selector_is_never_used_again() {
    let (_guard, site) = switched();
    fine(after(hours(6), EVERYWHERE).run(&site, ["dkim", "confirm", "--in-force"]));
    let before = key_files(&site);
    advance(&site, days(6), NOWHERE);
    advance(&site, days(7), NOWHERE);
    assert_eq!(pairs(&rsa(&site))[0], ("202611r", "revoked"), "its end waits until the revocation is seen");
    advance(&site, days(8), EVERYWHERE);
    let said = advance(&site, days(9), EVERYWHERE);
    assert!(said.contains("example.com: 202611r is destroyed\n"), "{said}");
    assert_eq!(pairs(&rsa(&site)), [("202611r2", "active")]);
    assert_eq!(published(&site), [("202611r2".to_owned(), false)]);
    assert_eq!(key_files(&site), before - 2, "one of each algorithm");
    fine(after(0, NOWHERE).run(&site, ["dkim", "rotate"]));
    assert_eq!(pairs(&rsa(&site)), [("202611r2", "active"), ("202611r3", "generated")]);
}

#[test]
fn of_two_hosts_both_must_sign_anew_before_a_key_that_left_begins_to_end() {
    let (_guard, site) = settled();
    let file = site.join("postseal.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(
        &file,
        text + "\n[[host]]\nname = \"mx2.example.com\"\nplatform = \"debian\"\n\
        submission_certificate.files = { certificate = \"/etc/c.pem\", key = \"/etc/c.key\" }\n\
        mx_certificate.files = { certificate = \"/etc/c.pem\", key = \"/etc/c.key\" }\n",
    )
    .unwrap();
    fine(after(0, NOWHERE).run(&site, ["dkim", "rotate"]));
    advance(&site, hours(2), EVERYWHERE);
    advance(&site, hours(5), EVERYWHERE);
    let in_force = |host| fine(after(hours(6), NOWHERE).run(&site, ["dkim", "confirm", "--in-force", "--host", host]));
    assert!(!in_force("mail.example.com").contains("used no more"));
    assert!(in_force("mx2.example.com").contains("202611r._domainkey.example.com is used no more"));
}

#[test]
fn a_rotation_that_is_on_its_way_is_not_begun_twice() {
    let (_guard, site) = settled();
    fine(after(0, NOWHERE).run(&site, ["dkim", "rotate"]));
    let said = fine(after(0, NOWHERE).run(&site, ["dkim", "rotate", "example.com"]));
    assert!(said.contains("example.com: 202611r2 is on its way already\n"), "{said}");
    assert_eq!(rsa(&site).len(), 2);
}

#[test]
fn where_nothing_is_due_it_is_said_when_something_is() {
    let (_guard, site) = switched();
    fine(after(hours(5), NOWHERE).run(&site, ["dkim", "confirm", "--in-force"]));
    let said = advance(&site, hours(6), NOWHERE);
    assert_eq!(said, "nothing is due; the next step is due at 2026-11-29 19:00 UTC\n");
    let quiet = fine(after(hours(6), NOWHERE).run(&site, ["dkim", "advance", "--quiet"]));
    assert_eq!(quiet, "");
}

#[test]
fn an_administrators_word_takes_the_place_of_a_look_and_not_of_the_wait() {
    let (_guard, site) = settled();
    fine(after(0, NOWHERE).run(&site, ["dkim", "rotate"]));
    fine(after(0, NOWHERE).run(&site, ["dkim", "confirm", "202611r2", "202611e2._domainkey.example.com"]));
    advance(&site, hours(3) - 1, NOWHERE);
    assert_eq!(signs(&site), "202611r");
    advance(&site, hours(3), NOWHERE);
    assert_eq!(signs(&site), "202611r2");
}

#[test]
fn a_key_that_was_seen_needs_no_confirmation() {
    let (_guard, site) = settled();
    let answer = postseal(&site, ["dkim", "confirm", "202611r"]);
    assert_eq!((answer.exit_code, answer.err.contains("[dkim-nothing-to-confirm]")), (2, true), "{answer:?}");
}

#[test]
fn a_compromised_key_without_a_successor_is_replaced_at_once_by_an_unconfirmed_one() {
    let (_guard, site) = settled();
    let said = fine(after(0, NOWHERE).run(&site, ["dkim", "revoke", "202611r"]));
    assert!(said.contains("202611r2 signs in its place\n"), "{said}");
    assert!(said.contains("nobody can verify what 202611r2 signs before"), "{said}");
    assert_eq!(signs(&site), "202611r2");
    assert_eq!(published(&site), [("202611r".to_owned(), true), ("202611r2".to_owned(), false)]);
    assert_eq!(pairs(&states(&site, "ed25519")), [("202611e", "active")], "the other algorithm goes on");
}

#[test]
fn with_a_standby_key_a_compromise_costs_no_moment() {
    let (_guard, site) = settled();
    set(&site, "standby = true");
    advance(&site, 0, NOWHERE);
    advance(&site, 10, EVERYWHERE);
    advance(&site, days(30), EVERYWHERE);
    assert_eq!(signs(&site), "202611r", "a standby key waits");
    let said = fine(after(days(30), NOWHERE).run(&site, ["dkim", "revoke", "202611r"]));
    assert!(!said.contains("nobody can verify"), "{said}");
    assert_eq!(signs(&site), "202611r2");
    advance(&site, days(30), NOWHERE);
    assert_eq!(pairs(&rsa(&site)).last(), Some(&("202612r", "generated")), "another one stands by");
}

#[test]
fn a_rotation_with_a_standby_key_switches_at_once() {
    let (_guard, site) = settled();
    set(&site, "standby = true");
    advance(&site, 0, NOWHERE);
    advance(&site, 10, EVERYWHERE);
    fine(after(hours(2), EVERYWHERE).run(&site, ["dkim", "rotate"]));
    assert_eq!(signs(&site), "202611r2");
}

#[test]
fn a_key_is_due_for_rotation_within_the_last_quarter_of_the_time_that_the_settings_give_it() {
    let (_guard, site) = settled();
    set(&site, "rotate_every = 100");
    advance(&site, days(75) - 1, EVERYWHERE);
    assert_eq!(rsa(&site).len(), 1);
    advance(&site, days(100), EVERYWHERE);
    assert_eq!(rsa(&site).len(), 2);
}

#[test]
fn what_is_due_by_the_settings_can_be_rotated_by_hand() {
    let (_guard, site) = settled();
    let answer = postseal(&site, ["dkim", "rotate", "--due"]);
    assert_eq!((answer.exit_code, answer.err.contains("[rotate-every-missing]")), (2, true), "{answer:?}");
    set(&site, "rotate_every = 100");
    fine(after(days(74), NOWHERE).run(&site, ["dkim", "rotate", "--due"]));
    assert_eq!(rsa(&site).len(), 1);
    fine(after(days(101), NOWHERE).run(&site, ["dkim", "rotate", "--due"]));
    assert_eq!(rsa(&site).len(), 2);
}

#[test]
fn an_algorithm_that_the_settings_give_up_retires() {
    let (_guard, site) = settled();
    let file = site.join("postseal.toml");
    let text = fs::read_to_string(&file).unwrap();
    let at = text.find("name = \"example.com\"").unwrap();
    let (before, behind) = text.split_at(at);
    fs::write(&file, format!("{before}dkim = [\"rsa\"]\n{behind}")).unwrap();
    // Nothing of it is due by itself: it is the settings that changed.
    let said = advance(&site, hours(1), EVERYWHERE);
    assert!(said.contains("example.com: ed25519 is given up, as the settings want\n"), "{said}");
    assert_eq!(pairs(&states(&site, "ed25519")), [("202611e", "retiring")]);
}

#[test]
fn tick_moves_keys_on() {
    let (_guard, site) = settled();
    fine(after(0, NOWHERE).run(&site, ["dkim", "rotate"]));
    fine(after(10, EVERYWHERE).run(&site, ["tick"]));
    let said = fine(after(hours(2), EVERYWHERE).run(&site, ["tick"]));
    assert!(said.contains("example.com: 202611r2 signs now in the place of 202611r\n"), "{said}");
    assert_eq!(signs(&site), "202611r2");
}

#[test]
fn a_selector_that_several_domains_have_is_named_with_its_domain() {
    let (_guard, site) = settled();
    let file = site.join("postseal.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text + "\n[[domain]]\nname = \"example.org\"\n").unwrap();
    fine(postseal(&site, ["render"]));
    let answer = postseal(&site, ["dkim", "revoke", "202611r"]);
    assert_eq!(answer.exit_code, 2);
    assert!(answer.err.contains("202611r._domainkey.example.com, 202611r._domainkey.example.org"), "{}", answer.err);
    fine(postseal(&site, ["dkim", "revoke", "202611r._domainkey.example.org"]));
    assert_eq!(signs_of(&site, "example.com"), "202611r");
}

fn signs_of(site: &Path, domain: &str) -> String {
    let listed = fine(postseal(site, ["dkim", "list", domain, "--format", "json"]));
    let json: Value = serde_json::from_str(&listed).unwrap();
    let keys = json["keys"].as_array().unwrap();
    let active = keys.iter().find(|key| key["state"] == "active" && key["algorithm"] == "rsa").unwrap();
    active["selector"].as_str().unwrap().to_owned()
}

#[test]
fn a_domain_that_is_not_named_is_asked_for_where_there_are_several() {
    let (_guard, site) = settled();
    let file = site.join("postseal.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text + "\n[[domain]]\nname = \"example.org\"\n").unwrap();
    let answer = postseal(&site, ["dkim", "rotate"]);
    assert_eq!((answer.exit_code, answer.err.contains("[domain-not-named]")), (2, true), "{answer:?}");
    fine(postseal(&site, ["dkim", "rotate", "--all"]));
    assert_eq!(rsa(&site).len(), 3, "the new domain's first key signs, the other one's successor waits");
}

#[test]
fn what_name_servers_say_changes_no_file_that_is_committed() {
    let (_guard, site) = settled();
    fine(after(0, NOWHERE).run(&site, ["dkim", "rotate"]));
    let before = surroundings::snapshot(&site.join("out"));
    let lock = fs::read_to_string(site.join("postseal.lock")).unwrap();
    advance(&site, 10, SOMEWHERE);
    advance(&site, 20, EVERYWHERE);
    assert_eq!(surroundings::snapshot(&site.join("out")), before);
    assert_eq!(fs::read_to_string(site.join("postseal.lock")).unwrap(), lock);
    assert_eq!(pairs(&rsa(&site))[1].1, "published");
}

/// Lets the ledger know what `out/` does not show yet, as a run does that is killed before it renders.
fn kill_before_rendering(site: &Path) {
    let place = postseal::store::SiteDir::new(camino::Utf8Path::from_path(site).unwrap());
    let mut writer = postseal::store::Writer::open(place, |_| ()).unwrap();
    let outcome = writer.transact(|ledger| {
        ledger.set_derived_stale()?;
        Ok::<_, postseal::store::ledger::LedgerError>(())
    });
    outcome.unwrap();
}

#[test]
fn what_was_not_rendered_is_not_confirmed_to_be_in_force() {
    let (_guard, site) = switched();
    kill_before_rendering(&site);
    let answer = after(hours(6), NOWHERE).run(&site, ["dkim", "confirm", "--in-force"]);
    assert_eq!((answer.exit_code, answer.err.contains("[dkim-not-rendered]")), (2, true), "{answer:?}");
    assert!(fine(after(hours(6), NOWHERE).run(&site, ["dkim", "list"])).contains("install on mail.example.com"));
    fine(after(hours(7), NOWHERE).run(&site, ["dkim", "confirm", "--in-force"]));
}

#[test]
fn what_a_killed_run_did_not_say_the_next_one_says() {
    let (_guard, site) = switched();
    kill_before_rendering(&site);
    let said = fine(after(hours(6), NOWHERE).run(&site, ["dkim", "advance", "--quiet"]));
    assert!(said.contains("an earlier run was not finished") && said.contains("install it: postseal apply"), "{said}");
    assert_eq!(fine(after(hours(6), NOWHERE).run(&site, ["dkim", "advance", "--quiet"])), "");
}

#[test]
fn a_revoked_key_that_a_host_may_still_sign_with_is_to_be_installed_away() {
    let (_guard, site) = switched();
    let said = fine(after(hours(6), NOWHERE).run(&site, ["dkim", "revoke", "202611r"]));
    assert!(said.contains("then install: postseal apply\n"), "{said}");
    fine(after(hours(7), NOWHERE).run(&site, ["dkim", "confirm", "--in-force"]));
    let said = fine(after(hours(8), NOWHERE).run(&site, ["dkim", "revoke", "202611e"]));
    assert!(!said.contains("install"), "{said}");
}

#[test]
fn a_clock_that_goes_back_cuts_no_wait_short() {
    let (_guard, site) = settled();
    fine(after(days(30), NOWHERE).run(&site, ["dkim", "rotate"]));
    fine(after(-days(2000), NOWHERE).run(&site, ["dkim", "confirm", "202612r", "202612e"]));
    advance(&site, days(30) + hours(3) - 1, NOWHERE);
    assert_eq!(signs(&site), "202611r");
    advance(&site, days(30) + hours(3), NOWHERE);
    assert_eq!(signs(&site), "202612r");
    // The host signed with the old one until a month later, when the clock went back once more.
    fine(after(days(60), NOWHERE).run(&site, ["user", "add", "bob@example.com"]));
    fine(after(-days(2000), NOWHERE).run(&site, ["dkim", "confirm", "--in-force"]));
    advance(&site, days(65), NOWHERE);
    assert_eq!(pairs(&rsa(&site))[0], ("202611r", "retiring"));
}

#[test]
fn a_clock_that_was_ahead_of_the_time_stops_nothing() {
    let (_guard, site) = settled();
    fine(after(0, NOWHERE).run(&site, ["dkim", "rotate"]));
    fine(after(days(7000), NOWHERE).run(&site, ["dkim", "confirm", "202611r2", "202611e2"]));
    advance(&site, 0, NOWHERE);
    advance(&site, hours(3), NOWHERE);
    assert_eq!(signs(&site), "202611r2");
    fine(after(days(7000), NOWHERE).run(&site, ["dkim", "confirm", "--in-force"]));
    advance(&site, hours(4), NOWHERE);
    advance(&site, hours(4) + days(6), NOWHERE);
    assert_eq!(pairs(&rsa(&site))[0], ("202611r", "revoked"));
}

#[test]
fn the_keys_of_a_domain_that_left_the_settings_come_to_their_end_in_order() {
    let (_guard, site) = surroundings::site();
    let file = site.join("postseal.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.clone() + "\n[[domain]]\nname = \"example.org\"\n").unwrap();
    fine(postseal(&site, ["render"]));
    advance(&site, 0, EVERYWHERE);
    fine(postseal(&site, ["dkim", "confirm", "--in-force"]));
    fs::write(&file, text).unwrap();
    fine(postseal(&site, ["render"]));
    let zone = || fs::read_to_string(site.join("out/dns/example.org.zone"));
    assert!(zone().unwrap().contains("202611r._domainkey.example.org") && !zone().unwrap().contains("spf1"));
    let said = advance(&site, hours(1), EVERYWHERE);
    assert!(said.contains("example.org: rsa is given up, as the settings want\n"), "{said}");
    fine(after(hours(2), EVERYWHERE).run(&site, ["dkim", "confirm", "--in-force"]));
    advance(&site, hours(2) + days(5), EVERYWHERE);
    assert!(zone().unwrap().contains("p=MII"), "mail may be on its way still");
    for day in [6, 7, 8] {
        advance(&site, days(day), EVERYWHERE);
    }
    assert!(zone().is_err());
    assert_eq!(signs(&site), "202611r", "the other domain's");
}
