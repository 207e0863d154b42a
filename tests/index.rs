//! `export --index`: what it writes, `openssl ca` takes for its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, dead_code, missing_docs)]
#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a test runs programs and says what it skips")]

#[path = "support/pki.rs"]
mod pki;
#[path = "support/surroundings.rs"]
mod surroundings;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rusqlite::Connection;

use surroundings::postseal;

const CONFIG: &str = "[ca]\ndefault_ca = all\n[all]\ndatabase = index.txt\ncertificate = ca.pem\nprivate_key = ca.key\n\
                      default_md = sha256\ndefault_crl_days = 3\n";

fn must(site: &Path, arguments: &[&str]) -> String {
    let answer = postseal(site, arguments);
    assert_eq!(answer.exit_code, 0, "{arguments:?}: {answer:?}");
    answer.out
}

/// Returns a site with certificates of every standing, and one that has ended in the ledger alone.
fn every_standing() -> (tempfile::TempDir, std::path::PathBuf) {
    let (guard, site) = surroundings::site();
    for who in ["bob@example.com", "carol@example.com", "dave@example.com", "eve@example.com"] {
        must(&site, &["user", "add", who]);
    }
    must(&site, &["user", "remove", "bob@example.com"]);
    let ledger = Connection::open(site.join("state/ledger.sqlite")).unwrap();
    ledger.execute_batch("UPDATE certificate SET status = 'held' WHERE address LIKE 'carol@%'").unwrap();
    ledger.execute_batch("UPDATE certificate SET status = 'expired' WHERE address LIKE 'dave@%'").unwrap();
    (guard, site)
}

#[test]
fn openssl_tells_the_standing_of_every_certificate_from_the_index() {
    if !pki::have("openssl") {
        return;
    }
    let (_guard, site) = every_standing();
    let index = site.join("index.txt");
    must(&site, &["export", "--index", index.to_str().unwrap()]);
    assert_eq!(fs::metadata(&index).unwrap().permissions().mode() & 0o777, 0o600);
    fs::write(site.join("openssl.cnf"), CONFIG).unwrap();
    let ledger = Connection::open(site.join("state/ledger.sqlite")).unwrap();
    let mut query = ledger.prepare("SELECT serial, status FROM certificate").unwrap();
    let rows = query.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))).unwrap();
    let mut seen = 0;
    for (serial, status) in rows.map(Result::unwrap) {
        let serial = serial.to_uppercase();
        let said = pki::text(&pki::run(&site, "openssl", &["ca", "-config", "openssl.cnf", "-status", &serial]));
        let standing = match status.as_str() {
            "live" => "Valid (V)",
            "expired" => "Expired (E)",
            _ => "Revoked (R)",
        };
        assert!(said.contains(&format!("{serial}={standing}")), "{status}: {said}");
        seen += 1;
    }
    assert_eq!(seen, 7);
}

#[test]
fn openssl_makes_a_crl_from_the_index_with_times_and_reasons() {
    if !pki::have("openssl") {
        return;
    }
    let (_guard, site) = every_standing();
    must(&site, &["export", "--index", site.join("index.txt").to_str().unwrap()]);
    fs::write(site.join("openssl.cnf"), CONFIG).unwrap();
    fs::write(site.join("ca.pem"), must(&site, &["ca", "show", "--pem"])).unwrap();
    let key = fs::read_dir(site.join("state/keys")).unwrap().map(|entry| entry.unwrap().path());
    let key = key.into_iter().find(|path| fs::read_to_string(path).unwrap().contains("ENCRYPTED")).unwrap();
    fs::copy(key, site.join("ca.key")).unwrap();
    let make = ["ca", "-config", "openssl.cnf", "-gencrl", "-passin", "file:state/ca.passphrase", "-out", "crl.pem"];
    pki::succeed(&site, "openssl", &make);
    let said = pki::succeed(&site, "openssl", &["crl", "-in", "crl.pem", "-noout", "-text"]);
    assert_eq!(said.matches("Serial Number:").count(), 2, "{said}");
    assert!(said.contains("Cessation Of Operation") && said.contains("Certificate Hold"), "{said}");
    assert!(said.contains("Revocation Date: Nov 24 12:00:00 2026"), "{said}");
    let update = ["ca", "-config", "openssl.cnf", "-updatedb", "-passin", "file:state/ca.passphrase"];
    pki::succeed(&site, "openssl", &update);
}

#[test]
fn the_index_goes_to_standard_output_or_to_a_file_that_is_not_there() {
    let (_guard, site) = surroundings::site();
    let shown = must(&site, &["export", "--index"]);
    let subjects: Vec<&str> = shown.lines().map(|line| line.split('\t').nth(5).unwrap()).collect();
    assert_eq!(subjects.len(), 3);
    assert!(
        subjects.iter().any(|subject| subject.starts_with("/CN=alice@example.com/OU=default/serialNumber=")),
        "{subjects:?}"
    );
    let (index, attributes) = (site.join("index.txt"), site.join("index.txt.attr"));
    let export = ["export", "--index", index.to_str().unwrap()];
    fs::write(&attributes, "precious").unwrap();
    assert_eq!(postseal(&site, export).exit_code, 3);
    assert!(!index.exists());
    fs::remove_file(&attributes).unwrap();
    must(&site, &export);
    assert_eq!(fs::read_to_string(&index).unwrap(), shown);
    assert_eq!(postseal(&site, export).exit_code, 3);
    assert_eq!(postseal(&site, ["export"]).exit_code, 2);
}
