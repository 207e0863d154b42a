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
        "INSERT INTO report (kind, reporter, id, about, domain, begins, ends, read_at, digest)
         VALUES ('dmarc', 'example.net', ?1, ?2, ?2, ?3, ?4, ?4, ?1)",
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
fn a_policy_that_was_fixed_milder_goes_on_from_there_and_not_from_where_it_was() {
    let (_guard, site) = surroundings::site();
    advance(&site, BEGIN);
    let due = BEGIN + Duration::days(30);
    good_month(&site, "example.com", due);
    advance(&site, due);
    assert!(zone(&site).contains("p=quarantine"), "{}", zone(&site));
    edit(&site, "# dmarc.policy = \"none\"", "dmarc.policy = \"none\"");
    let later = due + Duration::days(1);
    advance(&site, later);
    edit(&site, "dmarc.policy = \"none\"", "# dmarc.policy = \"none\"");
    fine(at(later).run(&site, ["render"]));
    assert!(zone(&site).contains("p=none"), "{}", zone(&site));
    assert_eq!(at(later).run(&site, ["fsck"]).exit_code, 0);
}

#[test]
fn a_domain_that_left_while_its_policy_is_remembered_is_told_of_by_render_and_status() {
    let (_guard, site) = surroundings::site();
    let sql = Connection::open(site.join("state/ledger.sqlite")).unwrap();
    let stage = "INSERT INTO rollout (domain, track, stage, since, max_age) VALUES ('left.example', 'mta_sts', 'enforce', 0, 604800)";
    sql.execute(stage, []).unwrap();
    assert!(at(BEGIN).run(&site, ["render"]).err.contains("warning[rollout-domain-gone]"));
    let told = at(BEGIN).run(&site, ["status"]).out;
    assert!(told.contains("left.example  left the settings, and senders remember its MTA-STS policy"), "{told}");
}

#[test]
fn what_senders_remember_of_a_policy_is_not_broken_by_settings() {
    let (_guard, site) = surroundings::site();
    let sql = Connection::open(site.join("state/ledger.sqlite")).unwrap();
    let stage = "INSERT INTO rollout (domain, track, stage, since, max_age) VALUES ('example.com', 'mta_sts', 'enforce', 0, 604800)";
    sql.execute(stage, []).unwrap();
    sql.execute("INSERT INTO rollout_mx (domain, host, is_mx) VALUES ('example.com', 'mail.example.com', 1)", [])
        .unwrap();
    let refused = |why: &str| {
        let answer = at(BEGIN).run(&site, ["render"]);
        assert_eq!(answer.exit_code, 2, "{answer:?}");
        assert!(answer.err.contains("error[mta-sts-remembered]") && answer.err.contains(why), "{}", answer.err);
    };
    refused("a certificate that they cannot check");
    edit(
        &site,
        "mx_certificate = \"issued\"",
        "mx_certificate.files = { certificate = \"/etc/c.pem\", key = \"/etc/k.pem\" }",
    );
    refused("no host is to serve it any more");
    edit(&site, "# web = \"nginx\"", "web = \"nginx\"");
    assert_eq!(at(BEGIN).run(&site, ["render"]).exit_code, 0);
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

/// A site whose web server serves an MTA-STS policy, and what it serves.
fn with_web(site: &Path) {
    let files = "mx_certificate = { files = { certificate = \"/etc/ssl/mx.pem\", key = \"/etc/ssl/mx.key\" } }";
    edit(site, "mx_certificate = \"issued\"", &format!("{files}\nweb = \"nginx\""));
    edit(site, "dmarc.reports", "rollout.max_age = 8\ntls_reports = \"tls@example.net\"\ndmarc.reports");
}

const STS: [&str; 4] = ["rollout", "advance", "--track", "mta_sts"];

fn sts(site: &Path, now: OffsetDateTime) -> String {
    let word = ["example.com", "--anyway", "--reason", "watched"];
    fine(at(now).run(site, STS.into_iter().chain(word)))
}

fn mx(site: &Path) -> Vec<String> {
    let zone = zone(site);
    let names = zone.lines().filter(|line| !line.starts_with(';') && line.contains(" MX "));
    names.map(|line| line.split_whitespace().next_back().unwrap().trim_end_matches('.').to_owned()).collect()
}

#[test]
fn mta_sts_is_tested_enforced_and_withdrawn_and_mx_records_wait_for_senders_meanwhile() {
    let (_guard, site) = surroundings::site();
    with_web(&site);
    let week = Duration::days(7);
    assert!(
        sts(&site, BEGIN).contains("example.com: MTA-STS is tested now\nfirst install the policy: postseal apply\n")
    );
    sts(&site, BEGIN);
    let held = fine(at(BEGIN + week).run(&site, STS));
    assert!(
        held.contains("MTA-STS is enforced for a week at a time, once nothing is missing: no TLS report"),
        "{held}"
    );
    assert!(sts(&site, BEGIN + week).contains("MTA-STS is enforced for a week at a time now"));
    sts(&site, BEGIN + week);
    let mut now = BEGIN + week * 2;
    assert!(sts(&site, now).contains("MTA-STS is enforced for long now"));
    // Another host comes.
    let settings = fs::read_to_string(site.join("postseal.toml")).unwrap();
    let host = settings.split("[[host]]").nth(1).unwrap().split("[[domain]]").next().unwrap();
    let host = host
        .replace("mail.example.com", "mx.example.com")
        .replace("web = \"nginx\"\n", "")
        .replace(OWN, "203.0.113.11");
    edit(&site, "[[domain]]", &format!("[[host]]{host}[[domain]]"));
    fine(at(now).run(&site, ["ca", "renew"]));
    fine(at(now).run(&site, ["server", "issue", "mx.example.com"]));
    assert_eq!(mx(&site), ["mail.example.com"]);
    assert!(sts(&site, now).contains("the MTA-STS policy lists the hosts that come now"));
    sts(&site, now);
    now += Duration::seconds(691_200) + Duration::DAY;
    sts(&site, now - Duration::SECOND);
    assert_eq!(mx(&site), ["mail.example.com"]);
    assert!(sts(&site, now).contains("MX records name the hosts of the settings now"));
    assert_eq!(mx(&site), ["mail.example.com", "mx.example.com"]);
    // And MTA-STS is taken away.
    edit(&site, "rollout.max_age = 8", "rollout.mta_sts = \"off\"");
    assert!(fine(at(now).run(&site, STS)).contains("MTA-STS is withdrawn: its policy has mode none now"));
    sts(&site, now);
    now += Duration::seconds(691_200) + Duration::DAY;
    sts(&site, now - Duration::SECOND);
    assert_eq!(stage(&site, "example.com", "mta_sts"), "withdrawn");
    assert!(sts(&site, now).contains("MTA-STS is off now"));
}

#[test]
fn a_stage_that_is_not_what_the_last_step_led_to_is_found() {
    let (_guard, site) = surroundings::site();
    advance(&site, BEGIN);
    let now = BEGIN + Duration::days(30);
    good_month(&site, "example.com", now);
    advance(&site, now);
    assert_eq!(at(now).run(&site, ["fsck"]).exit_code, 0);
    let sql = Connection::open(site.join("state/ledger.sqlite")).unwrap();
    sql.execute("UPDATE rollout SET stage = 'none' WHERE track = 'dmarc'", []).unwrap();
    let answer = at(now).run(&site, ["fsck"]);
    assert!(answer.out.contains("dmarc of example.com was moved to quarantine, and is recorded as none"), "{answer:?}");
}

#[test]
fn status_tells_of_many_domains_in_a_few_lines() {
    let (_guard, site) = surroundings::site();
    let one = |number| format!("\n[[domain]]\nname = \"d{number}.example.net\"\ndkim = [\"rsa\"]");
    let more: Vec<String> = (0..40).map(one).collect();
    add(&site, &more.concat());
    fine(at(BEGIN).run(&site, ["render"]));
    let unseen = Surroundings { name_servers: |_| Sighting::Nowhere, ..at(BEGIN) };
    let said = fine(unseen.run(&site, ["rollout", "advance"]));
    assert_eq!(said.matches("not yet everywhere").count(), 1, "{said}");
    let shown = at(BEGIN).run(&site, ["status"]).out;
    assert_eq!(shown.matches("DMARC p=none is to be on every name server").count(), 5, "{shown}");
    advance(&site, BEGIN);
    let shown = at(BEGIN + Duration::days(31)).run(&site, ["status"]).out;
    assert_eq!(shown.matches("DMARC says p=quarantine, once reports say that nothing is lost").count(), 5, "{shown}");
}
