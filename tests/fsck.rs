//! `postseal fsck`: silent on a site that is in order, and each thing that is spoilt is told with a mend.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, dead_code, missing_docs)]
#![allow(clippy::disallowed_methods, reason = "a test spoils sites")]

#[path = "support/surroundings.rs"]
mod surroundings;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use surroundings::{Answer, postseal, snapshot};

/// Changes the ledger behind its back, past the triggers that forbid it.
fn behind(site: &Path, sql: &str) {
    let ledger = Connection::open(site.join("state/ledger.sqlite")).unwrap();
    let query = "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'";
    let triggers: Vec<(String, String)> = ledger
        .prepare(query)
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    ledger.pragma_update(None, "foreign_keys", false).unwrap();
    ledger.pragma_update(None, "ignore_check_constraints", true).unwrap();
    for (name, _) in &triggers {
        ledger.execute_batch(&format!("DROP TRIGGER {name}")).unwrap();
    }
    ledger.execute_batch(sql).unwrap();
    for (_, sql) in &triggers {
        ledger.execute_batch(sql).unwrap();
    }
}

fn keys(site: &Path) -> Vec<PathBuf> {
    fs::read_dir(site.join("state/keys")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn alice(site: &Path) -> PathBuf {
    site.join("state/passwords/alice@example.com")
}

/// What is done to a site of Alice's, and a part of what is told of it.
type Case = (&'static str, fn(&Path));

const CASES: &[Case] = &[
    ("the key of mail.example.com", |site| {
        let query = "SELECT key FROM certificate WHERE kind = 'server'";
        let ledger = Connection::open(site.join("state/ledger.sqlite")).unwrap();
        let key: String = ledger.query_row(query, [], |row| row.get(0)).unwrap();
        fs::remove_file(site.join(format!("state/keys/{}.key", &key[..16]))).unwrap();
    }),
    ("is another one", |site| fs::write(&keys(site)[0], "another").unwrap()),
    ("others may read", |site| fs::set_permissions(&keys(site)[0], fs::Permissions::from_mode(0o644)).unwrap()),
    ("(mode 0640)", |site| {
        let password = alice(site).join("password");
        fs::set_permissions(password, fs::Permissions::from_mode(0o640)).unwrap();
    }),
    ("is no file", |site| std::os::unix::fs::symlink("/etc/passwd", site.join("state/link")).unwrap()),
    ("has another end than recorded", |site| behind(site, "UPDATE certificate SET not_after = not_after + 1")),
    ("has another begin than recorded", |site| behind(site, "UPDATE certificate SET not_before = not_before - 1")),
    ("has another fingerprint", |site| {
        behind(site, "UPDATE certificate SET fingerprint = lower(hex(randomblob(32))) WHERE kind = 'client'");
    }),
    ("has another serial", |site| {
        behind(
            site,
            "UPDATE certificate SET serial = '4' || substr(lower(hex(randomblob(16))), 2) WHERE kind = 'client'",
        );
    }),
    ("cannot be read", |site| behind(site, "UPDATE certificate SET certificate = 'x' WHERE kind = 'server'")),
    ("is not in order: its twin is none", |site| {
        behind(
            site,
            "UPDATE certificate SET twin = (SELECT certificate FROM certificate WHERE kind = 'site_ca') WHERE twin NOT NULL",
        );
    }),
    ("its issuing CA and its twin are no pair", |site| {
        behind(site, "UPDATE certificate SET twin = (SELECT twin FROM placeholder) WHERE twin NOT NULL");
    }),
    ("the trust list does not hold twins alone", |site| {
        behind(site, "UPDATE certificate SET twin = certificate WHERE kind = 'client'");
    }),
    ("it is made out to somebody else", |site| {
        behind(
            site,
            "INSERT INTO account VALUES ('eve@example.com', 1, NULL, NULL);
             UPDATE certificate SET address = 'eve@example.com' WHERE kind = 'client'",
        );
    }),
    ("it is made out to another host", |site| {
        behind(site, "UPDATE certificate SET host = 'mx.example.com' WHERE kind = 'server'");
    }),
    ("has the serial of", |site| {
        behind(
            site,
            "UPDATE certificate SET issuing = (SELECT certificate FROM certificate WHERE kind = 'server') WHERE issuing NOT NULL",
        );
    }),
    ("which is no newer one of it", |site| {
        behind(
            site,
            "UPDATE certificate SET retires_at = 1, superseded_by = (SELECT serial FROM certificate WHERE kind = 'server')
             WHERE kind = 'client'",
        );
    }),
    ("is no bcrypt hash", |site| behind(site, "UPDATE account SET password_hash = 'plain'")),
    ("the trust list would be empty", |site| {
        behind(site, "UPDATE certificate SET status = 'expired' WHERE kind = 'client'; DELETE FROM placeholder");
    }),
    ("refers to no account", |site| behind(site, "DELETE FROM sender; DELETE FROM account")),
    ("the trigger certificate_is_never_forgotten is missing", |site| {
        let ledger = Connection::open(site.join("state/ledger.sqlite")).unwrap();
        ledger.execute_batch("DROP TRIGGER certificate_is_never_forgotten").unwrap();
    }),
    ("the table other is none of postseal's", |site| behind(site, "CREATE TABLE other (x)")),
    ("is not the one whose public half is recorded", |site| behind(site, "UPDATE dkim_key SET public = 'AAAA'")),
    ("the CRL of the issuing CA", |site| {
        behind(site, "INSERT INTO crl SELECT serial, 1, 1, 2, 'x' FROM certificate WHERE kind = 'client'");
    }),
    ("the ledger holds no CA", |site| behind(site, "DELETE FROM certificate WHERE kind = 'site_ca'")),
    ("postseal.lock does not say", |site| fs::write(site.join("postseal.lock"), "version = 1\n").unwrap()),
    ("out/ is not what", |site| fs::write(site.join("out/more"), "").unwrap()),
    ("run postseal render: out/", |site| fs::remove_dir_all(site.join("out")).unwrap()),
    ("state/ca.passphrase does not open", |site| fs::write(site.join("state/ca.passphrase"), "another one").unwrap()),
    ("the password of the .p12", |site| fs::remove_file(alice(site).join("default.p12-password")).unwrap()),
    ("opens a .p12 file that is not here", |site| fs::remove_dir_all(site.join("handout")).unwrap()),
    ("is no whole PKCS#12 file", |site| {
        let bundle = site.join("handout/alice@example.com/default/alice@example.com.p12");
        let content = fs::read(&bundle).unwrap();
        fs::write(bundle, &content[..content.len() - 1]).unwrap();
    }),
    ("belongs to no certificate", |site| {
        fs::copy(alice(site).join("default.p12-password"), alice(site).join("phone.p12-password")).map(drop).unwrap();
    }),
    ("was revoked, and is recorded as live", |site| {
        assert_eq!(postseal(site, ["user", "revoke", "alice@example.com"]).exit_code, 0);
        behind(site, "UPDATE certificate SET status = 'live', revoked_at = NULL, reason = NULL WHERE kind = 'client'");
        assert_eq!(postseal(site, ["render"]).exit_code, 0);
    }),
    ("was issued, and is recorded no more", |site| behind(site, "DELETE FROM certificate WHERE kind = 'client'")),
    ("is not this site's CA", |site| {
        let handed = site.join("handout/alice@example.com/default/site-ca.pem");
        let server = fs::read_dir(site.join("out/mail.example.com/root/etc/mail/postseal/tls")).unwrap();
        let other =
            server.map(|entry| entry.unwrap().path()).find(|path| path.extension().is_some_and(|end| end == "pem"));
        fs::copy(other.unwrap(), handed).map(drop).unwrap();
    }),
    ("postseal.toml:2:1: ", |site| fs::write(site.join("postseal.toml"), "[[domain]]\nnmae = 1\n").unwrap()),
];

fn fsck(site: &Path) -> Answer {
    postseal(site, ["fsck"])
}

#[test]
fn a_site_that_is_in_order_is_told_to_be_and_nothing_is_changed() {
    let (_guard, site) = surroundings::site();
    for more in [&["user", "add", "bob@example.com"][..], &["user", "add", "bob@example.com", "--device", "phone"]] {
        assert_eq!(postseal(&site, more).exit_code, 0);
    }
    assert_eq!(postseal(&site, ["user", "remove", "bob@example.com"]).exit_code, 0);
    let before = snapshot(&site);
    let answer = fsck(&site);
    assert_eq!((answer.exit_code, answer.err.as_str()), (0, ""), "{answer:?}");
    assert_eq!(answer.out.lines().count(), 1, "{answer:?}");
    assert!(answer.out.starts_with("ledger and files agree: 5 certificates, 5 keys, "), "{answer:?}");
    assert!(snapshot(&site) == before);
}

#[test]
fn whatever_is_spoilt_is_told_with_a_mend() {
    let mut wrong = Vec::new();
    for (told, spoil) in CASES {
        let (_guard, site) = surroundings::site();
        spoil(&site);
        let before = snapshot(&site);
        let answer = fsck(&site);
        if answer.exit_code != 1 || !(*told == "settings" || answer.out.contains(told)) {
            wrong.push(format!("{told}: {answer:?}"));
            continue;
        }
        let lines: Vec<&str> = answer.out.lines().collect();
        assert!(
            lines.iter().all(|line| line.contains(": ")) && lines.last().unwrap().starts_with("not all is in order")
        );
        assert!(snapshot(&site) == before, "{told}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_a_killed_run_left_is_told_and_is_no_fault() {
    let (_guard, site) = surroundings::site();
    fs::create_dir_all(site.join("state/swept/keys")).unwrap();
    fs::create_dir_all(site.join("state/incoming/x")).unwrap();
    for directory in ["state/swept", "state/swept/keys", "state/incoming", "state/incoming/x"] {
        fs::set_permissions(site.join(directory), fs::Permissions::from_mode(0o700)).unwrap();
    }
    fs::write(site.join(".postseal-1-2.tmp"), "").unwrap();
    let answer = fsck(&site);
    assert_eq!((answer.exit_code, answer.out.matches("note: ").count()), (0, 3), "{answer:?}");
    let json = postseal(&site, ["fsck", "--format", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((json["clean"].as_bool(), json["findings"].as_array().unwrap().len()), (Some(true), 3));
}

#[test]
fn a_site_that_lost_its_ledger_is_refused() {
    let (_guard, site) = surroundings::site();
    fs::remove_file(site.join("state/ledger.sqlite")).unwrap();
    assert_eq!(fsck(&site).exit_code, 2);
}
