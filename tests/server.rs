//! Server certificates: issued to hosts that have none, renewed with the key that was announced before.

#![expect(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test edits settings and reads what was written")]
#![allow(clippy::indexing_slicing, dead_code)]

#[path = "support/surroundings.rs"]
mod surroundings;

use std::fs;
use std::path::Path;

use postseal::inventory::{CertificateStatus, Inventory};
use postseal::keys::PrivateKey;
use postseal::names::Digest;
use postseal::pki::Certificate;
use postseal::secret::Secret;
use postseal::store::{SiteDir, Store};
use serde_json::Value;
use surroundings::{Answer, Surroundings, postseal};
use time::macros::datetime;

fn inventory(site: &Path) -> Inventory {
    Store::open(SiteDir::new(camino::Utf8Path::from_path(site).unwrap())).unwrap().inventory().unwrap()
}

/// What `server list` says of the first host: the digest of the present key and of the next.
fn listed(site: &Path) -> (String, String) {
    let listed = postseal(site, ["server", "list", "--format", "json"]);
    let json: Value = serde_json::from_str(&listed.out).unwrap();
    let text = |name: &str| json["hosts"][0][name].as_str().unwrap().to_owned();
    (text("spki"), text("next_spki"))
}

/// The one certificate and the one key that are rendered for the host.
fn rendered(site: &Path) -> (Certificate, PrivateKey) {
    let tls = site.join("out/mail.example.com/root/etc/mail/postseal/tls");
    let files: Vec<_> = fs::read_dir(tls).unwrap().map(|entry| entry.unwrap().path()).collect();
    let of = |end: &str| {
        let mut found = files.iter().filter(|path| path.to_string_lossy().ends_with(end));
        let one = fs::read_to_string(found.next().unwrap()).unwrap();
        assert!(found.next().is_none(), "{files:?}");
        one
    };
    (Certificate::from_pem(&of(".pem")).unwrap(), PrivateKey::from_pem(&Secret::from(of(".key"))).unwrap())
}

fn edit(site: &Path, old: &str, new: &str) {
    let file = site.join("postseal.toml");
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(text.matches(old).count(), 1, "{old} in {text}");
    fs::write(file, text.replace(old, new)).unwrap();
}

fn fine(answer: &Answer) {
    assert_eq!(answer.exit_code, 0, "{answer:?}");
}

#[test]
fn a_renewed_certificate_has_the_key_that_was_announced() {
    let (_guard, site) = surroundings::site();
    let (first, announced) = listed(&site);
    assert_ne!(first, announced);
    let before = rendered(&site).0;
    fine(&postseal(&site, ["server", "renew", "--days", "30"]));
    let (now, next) = listed(&site);
    assert_eq!(now, announced);
    assert!(![first.as_str(), announced.as_str()].contains(&next.as_str()));
    let (certificate, key) = rendered(&site);
    assert!(certificate.belongs_to(&key) && certificate != before);
    assert_eq!(Digest::of(&certificate.facts().spki).to_string(), now);
    assert_eq!(certificate.facts().not_after, datetime!(2026-12-24 12:00 UTC));
}

#[test]
fn a_certificate_that_keeps_its_key_leaves_the_next_one_waiting() {
    let (_guard, site) = surroundings::site();
    let (before, old) = (listed(&site), rendered(&site).0);
    fine(&postseal(&site, ["server", "renew", "mail.example.com", "--same-key"]));
    assert_eq!(listed(&site), before);
    let (certificate, key) = rendered(&site);
    assert!(certificate.belongs_to(&key) && certificate.facts().serial != old.facts().serial);
}

#[test]
fn every_key_that_ever_waited_or_served_stays_in_the_site() {
    let (_guard, site) = surroundings::site();
    for _ in 0..3 {
        fine(&postseal(&site, ["server", "renew", "--all"]));
    }
    fine(&postseal(&site, ["render"]));
    assert!(!site.join("state/swept").exists());
    // The CA's, five servers', and the two that sign.
    assert_eq!(fs::read_dir(site.join("state/keys")).unwrap().count(), 8);
}

#[test]
fn a_replaced_certificate_is_recorded_as_ended_and_replaced_once() {
    let (_guard, site) = surroundings::site();
    fine(&postseal(&site, ["server", "renew"]));
    fine(&postseal(&site, ["server", "renew"]));
    let connection = rusqlite::Connection::open(site.join("state/ledger.sqlite")).unwrap();
    let rows: Vec<(Option<String>, Option<i64>, String)> = connection
        .prepare("SELECT superseded_by, retires_at, status FROM certificate WHERE kind = 'server' ORDER BY rowid")
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(rows.len(), 3);
    let noon = Surroundings::default().now.unix_timestamp();
    assert!(rows[..2].iter().all(|(by, at, _)| by.is_some() && *at == Some(noon)), "{rows:?}");
    assert!(rows[2].0.is_none() && rows[2].2 == CertificateStatus::Live.as_str());
    assert_eq!(inventory(&site).server_certificates.len(), 1);
}

#[test]
fn what_golden_shows_of_a_renewed_certificate_has_its_reason() {
    let (_guard, site) = surroundings::site();
    fine(&postseal(&site, ["bless"]));
    let old = inventory(&site).server_certificates[0].serial;
    fine(&postseal(&site, ["server", "renew"]));
    let new = inventory(&site).server_certificates[0].serial;
    let diff = postseal(&site, ["diff"]);
    assert_eq!(diff.exit_code, 1);
    assert!(diff.out.contains(&format!("certificate of mail.example.com: serial {old} → {new}")), "{}", diff.out);
    assert!(!diff.out.contains("settings, templates or postseal itself changed"), "{}", diff.out);
}

const SECOND: &str = "[[host]]\nname = \"mx2.mail.example.com\"\nplatform = \"openbsd\"\n\n[[domain]]";

#[test]
fn a_host_that_is_added_gets_its_certificate_and_is_rendered() {
    let (_guard, site) = surroundings::site();
    edit(&site, "[[domain]]", SECOND);
    let refused = postseal(&site, ["render"]);
    assert!(refused.err.contains("server-certificate-missing"), "{refused:?}");
    assert!(refused.err.contains("postseal server issue mx2.mail.example.com"), "{refused:?}");
    // The name lies below one that the CA may certify.
    let issued = postseal(&site, ["server", "issue", "mx2.mail.example.com"]);
    fine(&issued);
    assert!(issued.out.contains("rcctl restart smtpd"), "{}", issued.out);
    fine(&postseal(&site, ["render"]));
    assert!(site.join("out/mx2.mail.example.com/root/etc/mail/smtpd.conf").exists());
    let unnamed = postseal(&site, ["server", "renew"]);
    assert!(unnamed.err.contains("host-not-named"), "{unnamed:?}");
    fine(&postseal(&site, ["server", "renew", "--all"]));
}

#[test]
fn of_two_hosts_that_are_added_each_gets_its_certificate_in_turn() {
    let (_guard, site) = surroundings::site();
    edit(&site, "[[domain]]", SECOND);
    edit(&site, SECOND, &format!("[[host]]\nname = \"a.mail.example.com\"\nplatform = \"debian\"\n\n{SECOND}"));
    let first = postseal(&site, ["server", "issue", "a.mail.example.com"]);
    fine(&first);
    assert!(first.out.contains("postseal server issue mx2.mail.example.com"), "{}", first.out);
    fine(&postseal(&site, ["server", "issue", "mx2.mail.example.com"]));
    fine(&postseal(&site, ["render"]));
}

#[test]
fn a_host_that_the_ca_may_not_certify_is_told_how_it_may() {
    let (_guard, site) = surroundings::site();
    edit(&site, "[[domain]]", &SECOND.replace("mx2.mail", "mx2"));
    let before = surroundings::snapshot(&site);
    for command in [&["render"][..], &["server", "issue", "mx2.example.com"]] {
        let refused = postseal(&site, command);
        assert!(refused.exit_code == 2 && refused.err.contains("postseal ca renew"), "{refused:?}");
    }
    assert_eq!(surroundings::snapshot(&site), before);
}

#[test]
fn what_cannot_be_issued_is_refused_and_nothing_written() {
    let (guard, site) = surroundings::site();
    let wrong = guard.path().join("wrong");
    fs::write(&wrong, "another passphrase\n").unwrap();
    let before = surroundings::snapshot(&site);
    for (line, code) in [
        (&["issue", "mail.example.com"][..], "server-certificate-there"),
        (&["issue", "mail.example.net"], "host-unknown"),
        (&["renew", "mail.example.net"], "host-unknown"),
        (&["renew", "--ca-passphrase-file", wrong.to_str().unwrap()], "ca-passphrase"),
        (&["renew", "--days", "826"], "invalid value"),
        (&["renew", "mail.example.com", "--all"], "cannot be used with"),
    ] {
        let refused = postseal(&site, [&["server"], line].concat());
        assert!(refused.exit_code == 2 && refused.err.contains(code), "{line:?}: {refused:?}");
    }
    fs::create_dir(site.join("templates")).unwrap();
    fs::write(site.join("templates/smtpd.conf"), "{% if").unwrap();
    assert!(postseal(&site, ["server", "renew"]).err.contains("error[template]"));
    fs::remove_dir_all(site.join("templates")).unwrap();
    assert_eq!(surroundings::snapshot(&site), before);
}

#[test]
fn an_older_site_gets_its_next_key_with_the_first_renewal() {
    let (_guard, site) = surroundings::site();
    let connection = rusqlite::Connection::open(site.join("state/ledger.sqlite")).unwrap();
    connection.execute("DELETE FROM next_key", []).unwrap();
    drop(connection);
    let listed_before = postseal(&site, ["server", "list"]).out;
    assert!(listed_before.contains("TLSA 3 1 1 next  -"), "{listed_before}");
    fine(&postseal(&site, ["server", "renew"]));
    let (now, next) = listed(&site);
    assert_ne!(now, next);
}

#[test]
fn after_a_renewal_dns_still_names_the_key_that_the_host_shows() {
    let (_guard, site) = surroundings::site();
    let settings = site.join("postseal.toml");
    let text = fs::read_to_string(&settings).unwrap().replace("# dnssec = false", "dnssec = true");
    fs::write(&settings, text).unwrap();
    let keys = || -> Vec<String> {
        assert_eq!(postseal(&site, ["render"]).exit_code, 0);
        let zone = fs::read_to_string(site.join("out/dns/example.com.zone")).unwrap();
        zone.lines().filter_map(|line| Some(line.split_once(" TLSA 3 1 1 ")?.1.to_owned())).collect()
    };
    let before = keys();
    assert_eq!(before.len(), 2, "{before:?}");
    assert_eq!(postseal(&site, ["server", "renew", "mail.example.com"]).exit_code, 0);
    let after = keys();
    // Now the one that waited, before it the one that the host shows as yet, and another one that waits.
    assert_eq!((&after[0], &after[1], after.len()), (&before[1], &before[0], 3), "{after:?}");
}
