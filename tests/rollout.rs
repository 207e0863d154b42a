//! The way of domains to their policies, by the commands that move it. The clock and the name servers are the test's; reports
//! are written into the ledger.

#![expect(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test edits settings and reads what was written")]
#![allow(clippy::indexing_slicing, dead_code)]

#[path = "support/surroundings.rs"]
mod surroundings;

use std::fs;
use std::path::Path;

use postseal::dkim::rotation::Sighting;
use postseal::dkim::seeing::Question;
use rusqlite::{Connection, params};
use serde_json::Value;
use surroundings::{Answer, Surroundings, postseal};
use time::macros::datetime;
use time::{Duration, OffsetDateTime};

const BEGIN: OffsetDateTime = datetime!(2026-11-24 12:00 UTC);
const EVERYWHERE: fn(&Question) -> Sighting = |_| Sighting::Everywhere { ttl: 3600, negative_ttl: 3600 };
const OWN: &str = "203.0.113.10";

fn at(now: OffsetDateTime) -> Surroundings {
    Surroundings { now, name_servers: EVERYWHERE, same_rsa: true, ..Surroundings::default() }
}

fn fine(answer: Answer) -> String {
    assert_eq!(answer.exit_code, 0, "{answer:?}");
    answer.out
}

fn advance(site: &Path, now: OffsetDateTime) -> String {
    fine(at(now).run(site, ["rollout", "advance"]))
}

fn edit(site: &Path, from: &str, to: &str) {
    let file = site.join("postseal.toml");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(file, text.replacen(from, to, 1)).unwrap();
}

fn add(site: &Path, settings: &str) {
    let file = site.join("postseal.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(file, text + settings).unwrap();
}

/// A report of a day that ends then: messages from the address, and how many of them pass by DKIM and SPF.
fn report(site: &Path, domain: &str, ends: OffsetDateTime, address: &str, [messages, dkim, spf]: [i64; 3]) {
    let sql = Connection::open(site.join("state/ledger.sqlite")).unwrap();
    let ends = ends.unix_timestamp();
    sql.execute(
        "INSERT INTO report (kind, reporter, id, domain, begins, ends, read_at) VALUES ('dmarc', 'example.net', ?1, ?2, ?3, ?4, ?4)",
        params![format!("{ends}-{address}"), domain, ends - 86_400, ends],
    )
    .unwrap();
    sql.execute(
        "INSERT INTO dmarc_source (report, address, header_from, messages, dkim, spf, passed)
         VALUES (last_insert_rowid(), ?1, ?2, ?3, ?4, ?5, max(?4, ?5))",
        params![address, domain, messages, dkim, spf],
    )
    .unwrap();
}

/// A month of good reports, which ends then.
fn good_month(site: &Path, domain: &str, ends: OffsetDateTime) {
    for day in 0..29 {
        report(site, domain, ends - Duration::days(day), OWN, [40, 40, 40]);
    }
}

fn list(site: &Path, now: OffsetDateTime) -> Value {
    serde_json::from_str(&fine(at(now).run(site, ["rollout", "list", "--format", "json"]))).unwrap()
}

fn of<'a>(list: &'a Value, domain: &str, track: &str) -> &'a Value {
    let all = list["rollouts"].as_array().unwrap();
    all.iter().find(|one| one["domain"] == domain && one["track"] == track).unwrap()
}

fn stage(site: &Path, domain: &str, track: &str) -> String {
    of(&list(site, BEGIN), domain, track)["stage"].as_str().unwrap().to_owned()
}

fn zone(site: &Path) -> String {
    fs::read_to_string(site.join("out/dns/example.com.zone")).unwrap()
}

fn events(site: &Path, what: &str) -> Vec<Value> {
    let sql = Connection::open(site.join("state/ledger.sqlite")).unwrap();
    let mut query = sql.prepare("SELECT detail FROM event WHERE what = ?1 ORDER BY rowid").unwrap();
    let rows = query.query_map([what], |row| row.get::<_, String>(0)).unwrap();
    rows.map(|detail| serde_json::from_str(&detail.unwrap()).unwrap()).collect()
}

#[test]
fn a_domain_becomes_quarantine_a_month_after_its_record_is_everywhere_and_with_reports() {
    let (_guard, site) = surroundings::site();
    let nowhere = Surroundings { name_servers: |_| Sighting::Nowhere, ..at(BEGIN) };
    let said = fine(nowhere.run(&site, ["rollout", "advance"]));
    assert!(said.contains("example.com: DMARC p=none is not yet everywhere: ns2.example.com"), "{said}");
    let said = advance(&site, BEGIN);
    assert!(said.contains("example.com: every name server has DMARC p=none\n"), "{said}");
    let due = BEGIN + Duration::days(30);
    good_month(&site, "example.com", due);
    advance(&site, due - Duration::SECOND);
    assert_eq!(stage(&site, "example.com", "dmarc"), "none");
    let said = advance(&site, due);
    assert!(said.contains("example.com: DMARC says p=quarantine now\n"), "{said}");
    assert!(said.contains("publish the records of example.com: "), "{said}");
    assert!(zone(&site).contains("p=quarantine"), "{}", zone(&site));
    assert_eq!(events(&site, "rollout-moved")[0]["evidence"]["messages"], 29 * 40);
}

#[test]
fn in_a_year_three_domains_reach_their_aims_only_with_evidence() {
    let (_guard, site) = surroundings::site();
    add(
        &site,
        "\n[[domain]]\nname = \"example.net\"\n[[domain]]\nname = \"example.org\"\n[defaults.rollout]\ndmarc = \"reject\"\n",
    );
    fine(at(BEGIN).run(&site, ["render"]));
    let mut history = Vec::new();
    for week in 0..52 {
        let now = BEGIN + Duration::weeks(week);
        for day in 0..7 {
            report(&site, "example.com", now - Duration::days(day), OWN, [10, 10, 10]);
            // Of its own mail every tenth message fails.
            report(&site, "example.net", now - Duration::days(day), OWN, [10, 9, 0]);
        }
        let ticked = at(now).run(&site, ["tick"]);
        assert!(ticked.exit_code < 2, "{ticked:?}");
        history.push(["example.com", "example.net", "example.org"].map(|domain| stage(&site, domain, "dmarc")));
    }
    let last = history.last().unwrap();
    assert_eq!(last, &["reject", "none", "none"]);
    let first = |word: &str| history.iter().position(|week| week[0] == word).unwrap();
    // The first week that is 30 days or more after the one before.
    assert_eq!((first("quarantine"), first("reject")), (5, 11), "seen a week after it was rendered");
}

#[test]
fn what_is_missing_is_named_and_a_word_with_a_reason_moves_on_and_is_recorded() {
    let (_guard, site) = surroundings::site();
    advance(&site, BEGIN);
    let now = BEGIN + Duration::days(30);
    let said = advance(&site, now);
    assert!(said.contains("DMARC says p=quarantine, once nothing is missing: no DMARC report"), "{said}");
    let arguments = ["rollout", "advance", "example.com", "--anyway", "--reason", "watched the log myself"];
    fine(at(now).run(&site, arguments));
    assert_eq!(stage(&site, "example.com", "dmarc"), "quarantine");
    let event = &events(&site, "rollout-moved")[0];
    assert_eq!((&event["reason"], &event["to"]), (&"watched the log myself".into(), &"quarantine".into()));
}

#[test]
fn a_forwarder_holds_the_step_until_it_is_accepted() {
    let (_guard, site) = surroundings::site();
    advance(&site, BEGIN);
    let now = BEGIN + Duration::days(30);
    good_month(&site, "example.com", now);
    report(&site, "example.com", now, "198.51.100.7", [10, 9, 0]);
    report(&site, "example.com", now, "198.51.100.66", [99, 0, 0]);
    let said = advance(&site, now);
    assert!(said.contains("1 of 10 messages from 198.51.100.7 as example.com fail, others of it pass"), "{said}");
    let shown = fine(at(now).run(&site, ["rollout", "list", "example.com"]));
    assert!(shown.contains("would be refused: 99 messages from 198.51.100.66 as example.com\n"), "{shown}");
    let said = fine(at(now).run(&site, ["rollout", "advance", "example.com", "--accept", "198.51.100.7"]));
    assert!(said.contains("DMARC says p=quarantine now"), "{said}");
}

#[test]
fn tick_looks_for_missing_evidence_once_a_day_and_advance_each_time() {
    let (_guard, site) = surroundings::site();
    advance(&site, BEGIN);
    let now = BEGIN + Duration::days(30);
    let tick = |now| drop(at(now).run(&site, ["tick"]));
    tick(now);
    good_month(&site, "example.com", now);
    tick(now + Duration::hours(23));
    assert_eq!(stage(&site, "example.com", "dmarc"), "none");
    tick(now + Duration::DAY);
    assert_eq!(stage(&site, "example.com", "dmarc"), "quarantine");
}

#[test]
fn one_step_back_is_published_at_once_and_the_mildest_has_none() {
    let (_guard, site) = surroundings::site();
    let back = |now| at(now).run(&site, ["rollout", "back", "example.com", "--track", "dmarc"]);
    let refused = back(BEGIN);
    assert_eq!(refused.exit_code, 2);
    assert!(refused.err.contains("DMARC of example.com cannot go back"), "{}", refused.err);
    advance(&site, BEGIN);
    let now = BEGIN + Duration::days(30);
    good_month(&site, "example.com", now);
    advance(&site, now);
    fine(back(now));
    assert!(zone(&site).contains("p=none"), "{}", zone(&site));
}

#[test]
fn lists_are_told_of_once_where_the_aim_is_to_refuse() {
    let (_guard, site) = surroundings::site();
    let shown = || fine(postseal(&site, ["rollout"]));
    assert!(!shown().contains("RFC 9989"), "{}", shown());
    add(&site, "\n[[domain]]\nname = \"example.net\"\n[defaults.rollout]\ndmarc = \"reject\"\nspf = \"fail\"\n");
    assert_eq!(shown().matches("RFC 9989 §7.4").count(), 1, "{}", shown());
}

#[test]
fn a_clone_renders_the_stage_that_is_recorded() {
    let (_guard, site) = surroundings::site();
    fine(postseal(&site, ["bless"]));
    advance(&site, BEGIN);
    let now = BEGIN + Duration::days(30);
    good_month(&site, "example.com", now);
    advance(&site, now);
    fine(at(now).run(&site, ["bless"]));
    fs::remove_dir_all(site.join("state")).unwrap();
    assert_eq!(at(now).run(&site, ["diff"]).exit_code, 0);
}

#[test]
fn what_a_killed_run_recorded_is_rendered_by_the_next() {
    let (_guard, site) = surroundings::site();
    advance(&site, BEGIN);
    let now = BEGIN + Duration::days(30);
    good_month(&site, "example.com", now);
    advance(&site, now);
    let sql = Connection::open(site.join("state/ledger.sqlite")).unwrap();
    sql.execute("UPDATE rollout SET stage = 'none' WHERE track = 'dmarc'", []).unwrap();
    sql.execute("INSERT INTO stale_derived DEFAULT VALUES", []).unwrap();
    let said = advance(&site, now);
    assert!(said.contains("an earlier run was not finished"), "{said}");
    assert!(zone(&site).contains("p=none"), "{}", zone(&site));
}
