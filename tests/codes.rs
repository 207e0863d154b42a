//! Every code that the program can report is listed once, has a case that makes the program report it, and a paragraph in
//! `docs/codes.md`. The cases of the settings' codes are the files of `tests/bad/`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, dead_code, missing_docs)]
#![allow(clippy::disallowed_methods, reason = "a test spoils sites")]

#[path = "support/surroundings.rs"]
mod surroundings;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use postseal::{cli, site};
use time::macros::datetime;

use surroundings::{Answer, Surroundings, postseal};

/// What a host has to show, or root to do, is tried in the laboratory.
const LABORATORY: [&str; 4] =
    ["tests/lab/test_apply.py", "tests/lab/test_revoke.py", "tests/lab/test_takeover.py", "tests/lab/test_web.py"];

/// The codes whose case is there.
const OF_HOSTS: [&str; 37] = [
    "account-missing",
    "certificate-expired",
    "certificate-file",
    "certificate-key",
    "certificate-mismatch",
    "certificate-owner",
    "certificate-unjudged",
    "changed-meanwhile",
    "daemon-order",
    "directory-closed",
    "dkim-key-mismatch",
    "dkim-key-missing",
    "dkim-unconfirmed",
    "dns-silent",
    "door-open",
    "door-unclear",
    "filter-missing",
    "in-the-way",
    "no-smtpd-conf",
    "not-ours",
    "not-root",
    "path-unknown",
    "probe-failed",
    "record-lost",
    "rspamd-refuses",
    "rspamd-reload",
    "rspamd-socket",
    "site-of-others",
    "smtpd-refuses",
    "system-ca-missing",
    "trust-list",
    "unreadable",
    "unsigned",
    "web-certificate",
    "web-certificate-name",
    "web-not-included",
    "web-refuses",
];

/// What no input reaches, as each says that postseal itself or another program is wrong; or what takes 2,113 certificates.
const UNREACHABLE: [&str; 3] = ["bcrypt", "trust-list-long", "unjudged"];

/// Imports a report of Google's with another count.
fn report(site: &Path, count: &str) -> Answer {
    let whole = fs::read_to_string("fuzz/seeds/report/google.xml").unwrap();
    report_file(site, &whole.replace("<count>2", count))
}

fn report_file(site: &Path, text: &str) -> Answer {
    fs::write(site.join("report.xml"), text).unwrap();
    postseal(site, ["reports", "import", site.join("report.xml").to_str().unwrap()])
}

type Case = (&'static str, u8, fn(&Path) -> Answer);

/// A code, its exit code, and what makes the program report it on a site of Alice's at example.com.
const CASES: &[Case] = &[
    ("accounts-external", 2, |site| {
        edit(site, "accounts = \"managed\"", "accounts.external = { type = \"file\", path = \"/etc/mail/creds\" }");
        postseal(site, ["user", "passwd", "alice@example.com"])
    }),
    ("alias-is-user", 2, |site| {
        edit(site, "[aliases]", "[aliases]\n\"alice@example.com\" = \"bob@example.net\"");
        postseal(site, ["render"])
    }),
    ("archive-place", 4, |site| {
        let archive = site.join("users.tar");
        import(site, "address\n", &["--archive", archive.to_str().unwrap()])
    }),
    ("backup-damaged", 2, |site| {
        let mut keys = fs::read_dir(site.join("state/keys")).unwrap().map(|entry| entry.unwrap().path());
        // That of Ed25519 alone is no PEM.
        fs::remove_file(keys.find(|key| !fs::read_to_string(key).unwrap().contains("BEGIN")).unwrap()).unwrap();
        backed_up(site, None)
    }),
    ("backup-key", 2, |site| backed_up(site, Some("another secret\n"))),
    ("backup-passphrase", 2, |site| postseal(site, ["backup", site.with_extension("age").to_str().unwrap()])),
    ("backup-recipient", 2, |site| {
        postseal(site, ["backup", site.with_extension("age").to_str().unwrap(), "--recipient", "alice"])
    }),
    ("bimi-certificate", 2, |site| {
        with_logo(site);
        edit(site, "bimi.logo.file", "bimi.logo.certificate = \"vmc.pem\"\nbimi.logo.file");
        fs::create_dir(site.join("bimi")).unwrap();
        fs::copy("tests/svg/conforms/logo.svg", site.join("bimi/logo.svg")).unwrap();
        fs::write(site.join("bimi/vmc.pem"), "").unwrap();
        postseal(site, ["render"])
    }),
    ("bimi-file-missing", 2, |site| {
        with_logo(site);
        postseal(site, ["render"])
    }),
    ("bimi-logo", 2, |site| {
        with_logo(site);
        fs::create_dir(site.join("bimi")).unwrap();
        fs::write(site.join("bimi/logo.svg"), "<svg/>").unwrap();
        postseal(site, ["render"])
    }),
    ("bless-in-ci", 2, |site| Surroundings { ci: true, ..Surroundings::default() }.run(site, ["bless"])),
    ("ca-known", 2, |site| {
        let keys = fs::read_dir(site.join("state/keys")).unwrap().map(|entry| entry.unwrap().path());
        let key = keys.into_iter().find(|key| fs::read_to_string(key).unwrap().contains("ENCRYPTED")).unwrap();
        import_ca(site, &key)
    }),
    ("ca-passphrase", 2, |site| {
        fs::remove_file(site.join("state/ca.passphrase")).unwrap();
        postseal(site, ["user", "add", "bob@example.com"])
    }),
    ("ca-refused", 2, |site| {
        fs::write(site.join("key"), "no key").unwrap();
        import_ca(site, &site.join("key"))
    }),
    ("certificate-from-files", 2, |site| {
        second_host(site);
        postseal(site, ["server", "issue", "mx2.example.com"])
    }),
    ("certificate-held", 2, |site| {
        let place = postseal::store::SiteDir::new(camino::Utf8Path::from_path(site).unwrap());
        let mut writer = postseal::store::Writer::open(place, |_| ()).unwrap();
        let serial = writer.inventory().unwrap().client_certificates[0].serial;
        writer.transact(|ledger| ledger.hold_certificate(&serial)).unwrap();
        drop(writer);
        postseal(site, ["user", "renew", "alice@example.com"])
    }),
    ("clock", 3, |site| {
        edit(site, "[aliases]", "[[domain]]\nname = \"example.org\"\n[aliases]");
        Surroundings { now: datetime!(-0001-01-01 0:00 UTC), ..Surroundings::default() }.run(site, ["render"])
    }),
    ("crl-behind", 3, |site| {
        trust_one_ca(site);
        fs::remove_file(site.join("state/ca.passphrase")).unwrap();
        postseal(site, ["user", "remove", "bob@example.com"])
    }),
    ("csr-key-taken", 2, |site| {
        request(site, "/CN=Bob");
        let csr = ["--csr", site.join("csr").to_str().unwrap()].map(str::to_owned);
        let add =
            |address: &str| postseal(site, ["user", "add", address].map(str::to_owned).into_iter().chain(csr.clone()));
        assert_eq!(add("bob@example.com").exit_code, 0);
        add("carol@example.com")
    }),
    ("csr-refused", 2, |site| {
        request(site, "/emailAddress=alice@example.com");
        postseal(site, ["user", "add", "bob@example.com", "--csr", site.join("csr").to_str().unwrap()])
    }),
    ("csv-columns", 2, |site| import(site, "adress,device\n", &[])),
    ("csv-duplicate", 2, |site| import(site, "address\nbob@example.com\nBob@example.com\n", &["--stop"])),
    ("csv-line", 2, |site| import(site, "address,device\nbob@example.com\n", &["--stop"])),
    ("csv-name", 2, |site| import(site, "address,device\nbob@example.com,My Phone\n", &["--stop"])),
    ("device-taken", 2, |site| postseal(site, ["user", "add", "alice@example.com"])),
    ("device-unknown", 2, |site| postseal(site, ["user", "handout", "alice@example.com", "--device", "fone"])),
    ("dkim-import-known", 2, |site| {
        assert_eq!(import_key(site, "mail", SEED).exit_code, 0);
        import_key(site, "mail2", SEED)
    }),
    ("dkim-import-readable", 0, |site| {
        let key = site.join("key");
        fs::write(&key, SEED).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        postseal(site, ["dkim", "import", "example.com", "mail", key.to_str().unwrap()])
    }),
    ("dkim-import-refused", 2, |site| import_key(site, "mail", "no key")),
    ("dkim-import-unwanted", 2, |site| {
        edit(site, "name = \"example.com\"", "name = \"example.com\"\ndkim = [\"rsa\"]");
        import_key(site, "mail", SEED)
    }),
    ("dkim-import-waits", 2, |site| {
        assert_eq!(postseal(site, ["dkim", "confirm", "202611e"]).exit_code, 0);
        assert_eq!(postseal(site, ["dkim", "rotate"]).exit_code, 0);
        import_key(site, "mail", SEED)
    }),
    ("dkim-key-ambiguous", 2, |site| {
        second_domain(site);
        postseal(site, ["dkim", "revoke", "202611r"])
    }),
    ("dkim-key-revoked", 2, |site| {
        assert_eq!(postseal(site, ["dkim", "revoke", "202611r"]).exit_code, 0);
        postseal(site, ["dkim", "revoke", "202611r"])
    }),
    ("dkim-key-unknown", 2, |site| postseal(site, ["dkim", "revoke", "202610r"])),
    ("dkim-not-rendered", 2, |site| {
        let place = postseal::store::SiteDir::new(camino::Utf8Path::from_path(site).unwrap());
        let mut writer = postseal::store::Writer::open(place, |_| ()).unwrap();
        let outcome = writer.transact(|ledger| {
            ledger.set_derived_stale()?;
            Ok::<_, postseal::store::ledger::LedgerError>(())
        });
        outcome.unwrap();
        drop(writer);
        postseal(site, ["dkim", "confirm", "--in-force"])
    }),
    ("dkim-nothing-to-confirm", 2, |site| {
        assert_eq!(postseal(site, ["dkim", "confirm", "202611r"]).exit_code, 0);
        postseal(site, ["dkim", "confirm", "202611r"])
    }),
    ("dkim-selector-used", 2, |site| import_key(site, "202611r", SEED)),
    ("dns-file-of-others", 2, |site| {
        fs::create_dir(site.join("zones")).unwrap();
        fs::write(site.join("zones/example.com.yaml"), "'': []\n").unwrap();
        postseal(site, ["dns", "--format", "octodns", "--output", site.join("zones").to_str().unwrap()])
    }),
    ("dns-needs-directory", 2, |site| {
        second_domain(site);
        postseal(site, ["dns", "--format", "octodns"])
    }),
    ("dnskey-private", 2, |site| of_file(site, "ds", "Private-key-format: v1.3\n")),
    ("dnskey-refused", 2, |site| of_file(site, "ds", "example.com. IN A 203.0.113.10\n")),
    ("domain-not-named", 2, |site| {
        second_domain(site);
        postseal(site, ["dkim", "rotate"])
    }),
    ("domain-unknown", 2, |site| postseal(site, ["dns", "example.org"])),
    ("empty-secret", 2, |site| passwd(site, b"\n")),
    ("file-name", 2, |site| {
        fs::create_dir(site.join("templates")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", site.join("templates/smtpd.conf")).unwrap();
        postseal(site, ["render"])
    }),
    ("format-of-dns", 2, |site| postseal(site, ["status", "--format", "octodns"])),
    ("format-of-status", 2, |site| postseal(site, ["user", "list", "--format", "nagios"])),
    ("host", 3, |site| {
        // A regular file where a directory is looked into is told apart; an unreadable device is not.
        fs::create_dir_all(site.join("root/etc")).unwrap();
        std::os::unix::fs::symlink("/dev/null/x", site.join("root/etc/passwd")).unwrap();
        postseal(site, ["plan", "--root", site.join("root").to_str().unwrap()])
    }),
    ("host-list-missing", 2, |site| {
        fs::create_dir(site.join("root")).unwrap();
        backed_up_with(site, None, &["--root", site.join("root").to_str().unwrap()])
    }),
    ("host-name", 2, |site| {
        let domain = format!("{}.example.com", "a".repeat(60));
        postseal(&site.join("new"), ["init", &domain])
    }),
    ("host-not-named", 2, |site| {
        second_host(site);
        postseal(site, ["plan"])
    }),
    ("host-not-permitted", 2, |site| {
        edit(site, "name = \"mail.example.com\"", "name = \"mx.example.com\"");
        postseal(site, ["server", "issue", "mx.example.com"])
    }),
    ("host-unknown", 2, |site| postseal(site, ["plan", "--host", "mail.example.org"])),
    ("import-stopped", 3, |site| {
        fs::write(site.join("handout/bob@example.com"), "mine").unwrap();
        import(site, "address\nbob@example.com\n", &[])
    }),
    ("issuing-ca-in-use", 2, |site| {
        trust_one_ca(site);
        postseal(site, ["ca", "retire"])
    }),
    ("issuing-ca-lacks-domain", 2, |site| {
        trust_one_ca(site);
        edit(site, "[aliases]", "[[domain]]\nname = \"example.org\"\n[aliases]");
        postseal(site, ["user", "add", "carol@example.org"])
    }),
    ("ledger", 3, |site| {
        fs::write(site.join("state/ledger.sqlite"), "no database").unwrap();
        postseal(site, ["user", "list"])
    }),
    ("ledger-old", 2, |site| {
        let backup = fs::read(site.join("state/ledger.sqlite")).unwrap();
        edit(site, "[aliases]", "[[domain]]\nname = \"example.org\"\n[aliases]");
        assert_eq!(postseal(site, ["render"]).exit_code, 0);
        fs::write(site.join("state/ledger.sqlite"), backup).unwrap();
        postseal(site, ["render"])
    }),
    ("lock-duplicate", 2, |site| {
        fs::remove_dir_all(site.join("state")).unwrap();
        let lock = fs::read_to_string(site.join("postseal.lock")).unwrap();
        let (_, key) = lock.split_once("[[dkim_key]]").unwrap();
        let twice = format!("{lock}\n[[dkim_key]]{}", key.split("[[").next().unwrap());
        fs::write(site.join("postseal.lock"), twice).unwrap();
        postseal(site, ["dns"])
    }),
    ("lock-incomplete", 2, |site| {
        edit(site, "[aliases]", "[[domain]]\nname = \"example.org\"\n[aliases]");
        fs::remove_dir_all(site.join("state")).unwrap();
        postseal(site, ["bless"])
    }),
    ("lock-unreadable", 2, |site| lock(site, "version = 1\n<<<<<<< HEAD\n")),
    ("lock-version", 2, |site| lock(site, "version = 2\n")),
    ("mta-sts-remembered", 2, |site| {
        enforced(site, "example.com", "mail.example.com");
        postseal(site, ["render"])
    }),
    ("no-backup", 2, |site| postseal(&site.join("new"), ["restore", site.join("postseal.toml").to_str().unwrap()])),
    ("no-ca", 2, |site| lock(site, "version = 1\n")),
    ("no-golden", 2, |site| postseal(site, ["diff"])),
    ("no-issuing-ca", 2, |site| postseal(site, ["ca", "crl"])),
    ("no-lock", 2, |site| {
        assert_eq!(postseal(site, ["bless"]).exit_code, 0);
        fs::remove_dir_all(site.join("state")).unwrap();
        fs::remove_file(site.join("postseal.lock")).unwrap();
        postseal(site, ["diff"])
    }),
    ("no-root", 2, |site| postseal(site, ["plan", "--root", "/nowhere/at/all"])),
    ("no-such-file", 2, |site| {
        postseal(site, ["user", "passwd", "alice@example.com", "--password-file", "/nowhere/at/all"])
    }),
    ("no-terminal", 2, |site| postseal(site, ["user", "passwd", "alice@example.com", "--ask-password"])),
    ("not-done", 1, |site| {
        fs::remove_file(site.join("state/ca.passphrase")).unwrap();
        Surroundings { now: datetime!(2027-06-01 0:00 UTC), ..Surroundings::default() }.run(site, ["tick"])
    }),
    ("not-installed", 3, |site| {
        fs::create_dir_all(site.join("root/etc")).unwrap();
        for name in ["passwd", "group"] {
            fs::write(site.join("root/etc").join(name), "root:x:0:0:::\n").unwrap();
        }
        postseal(site, ["plan", "--root", site.join("root").to_str().unwrap()])
    }),
    ("not-removed", 3, |site| {
        fs::create_dir(site.join("elsewhere")).unwrap();
        fs::remove_dir_all(site.join("handout/alice@example.com")).unwrap();
        fs::create_dir(site.join("handout/alice@example.com")).unwrap();
        std::os::unix::fs::symlink(site.join("elsewhere"), site.join("handout/alice@example.com/default")).unwrap();
        postseal(site, ["user", "handout", "alice@example.com", "--done"])
    }),
    ("not-rendered", 3, |site| {
        edit(site, "[[domain]]", "[[domain]]\nspf = 1");
        postseal(site, ["user", "remove", "alice@example.com"])
    }),
    ("not-utf8", 2, |site| {
        fs::write(site.join("postseal.toml"), b"a = \"\xff\"\n").unwrap();
        postseal(site, ["render"])
    }),
    ("nothing-live", 2, |site| {
        postseal(site, ["user", "revoke", "alice@example.com"]);
        postseal(site, ["user", "renew", "alice@example.com"])
    }),
    ("output", 3, |site| Surroundings { output_fails: true, ..Surroundings::default() }.run(site, ["user", "list"])),
    ("password", 2, |site| passwd(site, b"short\n")),
    ("password-mismatch", 2, |site| {
        let surroundings = Surroundings::default();
        *surroundings.typed.lock().unwrap() = vec!["correct horse", "battery staple", ""];
        surroundings.run(site, ["user", "passwd", "alice@example.com", "--ask-password"])
    }),
    ("pki", 2, |site| lock(site, "version = 1\n[site_ca]\nnot_after = 2030-01-01T00:00:00Z\ncertificate = \"x\"\n")),
    ("randomness", 3, |site| {
        let arguments = ["user", "passwd", "alice@example.com"];
        Surroundings { random_fails: true, ..Surroundings::default() }.run(site, arguments)
    }),
    ("report-conflict", 1, |site| {
        report(site, "<count>2");
        report(site, "<count>3")
    }),
    ("report-missing", 1, |site| report_file(site, "a letter")),
    ("report-refused", 1, |site| report(site, "<count>-2")),
    ("revoked-still-admitted", 0, |site| {
        trust_one_ca(site);
        postseal(site, ["user", "remove", "bob@example.com"])
    }),
    ("rollout-domain-gone", 0, |site| {
        enforced(site, "example.org", "mail.example.com");
        postseal(site, ["rollout"])
    }),
    ("rollout-host-gone", 0, |site| {
        enforced(site, "example.com", "old.example.com");
        postseal(site, ["rollout"])
    }),
    ("rollout-no-way-back", 2, |site| postseal(site, ["rollout", "back", "example.com", "--track", "dmarc"])),
    ("rotate-every-missing", 2, |site| postseal(site, ["dkim", "rotate", "--due"])),
    ("secret-in-golden", 4, |site| {
        assert_eq!(postseal(site, ["bless"]).exit_code, 0);
        fs::write(site.join("golden/key"), "-----BEGIN PRIVATE KEY-----\n").unwrap();
        postseal(site, ["diff"])
    }),
    ("secret-not-a-line", 2, |site| passwd(site, b"two\nlines\n")),
    ("sendmail", 1, |site| {
        edit(site, "# notify.before", "notify.before");
        edit(site, "# notify.sendmail = \"/usr/sbin/sendmail\"", "notify.sendmail = \"/bin/false\"");
        fs::remove_file(site.join("state/ca.passphrase")).unwrap();
        Surroundings { now: datetime!(2027-11-20 0:00 UTC), ..Surroundings::default() }.run(site, ["tick"])
    }),
    ("server-certificate-missing", 2, |site| {
        edit(site, "name = \"mail.example.com\"", "name = \"mx.example.com\"");
        postseal(site, ["render"])
    }),
    ("server-certificate-there", 2, |site| postseal(site, ["server", "issue", "mail.example.com"])),
    ("site", 2, |site| postseal(&site.join("nowhere"), ["render"])),
    ("store", 3, |site| {
        fs::set_permissions(site.join("state"), fs::Permissions::from_mode(0o755)).unwrap();
        postseal(site, ["render"])
    }),
    ("svg-attribute", 1, |site| {
        logo(
            site,
            r#"<svg xmlns="http://www.w3.org/2000/svg" version="1.2" baseProfile="tiny-ps" viewBox="0 0 64 64"><title>Example</title><path style="fill:red" d="M0 0h64v64z"/></svg>"#,
        )
    }),
    ("svg-doctype", 1, |site| {
        logo(
            site,
            r#"<!DOCTYPE svg><svg xmlns="http://www.w3.org/2000/svg" version="1.2" baseProfile="tiny-ps" viewBox="0 0 64 64"><title>Example</title></svg>"#,
        )
    }),
    ("svg-element", 1, |site| {
        logo(
            site,
            r#"<svg xmlns="http://www.w3.org/2000/svg" version="1.2" baseProfile="tiny-ps" viewBox="0 0 64 64"><title>Example</title><image href="a.png"/></svg>"#,
        )
    }),
    ("svg-encoding", 1, |site| logo(site, "\u{1f}\0<svg/>")),
    ("svg-large", 1, |site| {
        logo(
            site,
            &format!(
                "<svg xmlns=\"http://www.w3.org/2000/svg\" version=\"1.2\" baseProfile=\"tiny-ps\" viewBox=\"0 0 64 64\"><title>Example</title>{}</svg>",
                "<g/>".repeat(9000)
            ),
        )
    }),
    ("svg-reference", 1, |site| {
        logo(
            site,
            r#"<svg xmlns="http://www.w3.org/2000/svg" version="1.2" baseProfile="tiny-ps" viewBox="0 0 64 64"><title>Example</title><rect fill="url(https://example.net/a.svg#b)"/></svg>"#,
        )
    }),
    ("svg-root", 1, |site| {
        logo(
            site,
            r#"<svg xmlns="http://www.w3.org/2000/svg" baseProfile="tiny-ps" viewBox="0 0 64 64"><title>Example</title></svg>"#,
        )
    }),
    ("svg-text", 1, |site| {
        logo(
            site,
            r#"<svg xmlns="http://www.w3.org/2000/svg" version="1.2" baseProfile="tiny-ps" viewBox="0 0 64 64"><title>Example</title><g>Example</g></svg>"#,
        )
    }),
    ("svg-title", 1, |site| {
        logo(
            site,
            r#"<svg xmlns="http://www.w3.org/2000/svg" version="1.2" baseProfile="tiny-ps" viewBox="0 0 64 64"><g/></svg>"#,
        )
    }),
    ("svg-unfixable", 1, |site| {
        fs::write(site.join("logo.svg"), r#"<svg xmlns="http://www.w3.org/2000/svg" version="1.2" baseProfile="tiny-ps" viewBox="0 0 64 64"><title>Example</title><g opacity="0.5"/></svg>"#).unwrap();
        postseal(site, ["svg", "fix", site.join("logo.svg").to_str().unwrap()])
    }),
    ("svg-value", 1, |site| {
        logo(
            site,
            r#"<svg xmlns="http://www.w3.org/2000/svg" version="1.2" baseProfile="tiny-ps" viewBox="0 0 64 64"><title>Example</title><path fill-rule="even-odd" d="M0 0h64v64z"/></svg>"#,
        )
    }),
    ("svg-viewbox", 1, |site| {
        logo(
            site,
            r#"<svg xmlns="http://www.w3.org/2000/svg" version="1.2" baseProfile="tiny-ps" viewBox="0 0 64 48"><title>Example</title></svg>"#,
        )
    }),
    ("svg-xml", 1, |site| {
        logo(
            site,
            r#"<svg xmlns="http://www.w3.org/2000/svg" version="1.2" baseProfile="tiny-ps" viewBox="0 0 64 64"><title>Example</title><g></svg>"#,
        )
    }),
    ("template", 2, |site| template(site, "smtpd.conf", "{% if")),
    ("template-unknown", 2, |site| template(site, "smtp.conf", "")),
    ("template-unquoted", 2, |site| template(site, "smtpd.conf", "{{ host }}")),
    ("tlsa-private", 2, |site| of_file(site, "tlsa", "-----BEGIN PRIVATE KEY-----\n")),
    ("tlsa-refused", 2, |site| of_file(site, "tlsa", "no certificate\n")),
    ("token", 3, |site| {
        let key = postseal::keys::generate(postseal::keys::KeyKind::P256).unwrap();
        let (hosts, serial) = (["mail.example.com".parse().unwrap()], postseal::names::Serial::from_random([1; 16]));
        let now = Surroundings::default().now;
        let ca = postseal::pki::issue::site_ca("Other CA", &hosts, &key, serial, now).unwrap();
        fs::write(site.join("ca.pem"), ca.pem()).unwrap();
        let (certificate, token) =
            (site.join("ca.pem"), "pkcs11:token=Mail%20CA;object=ca?module-path=/nowhere/token.so");
        postseal(site, ["ca", "import", "--certificate", certificate.to_str().unwrap(), "--token", token])
    }),
    ("trust-pinned", 2, |site| postseal(site, ["ca", "renew", "--clients"])),
    ("user-domain-unknown", 2, |site| postseal(site, ["user", "add", "bob@example.org"])),
    ("user-domain-without-mail", 2, |site| {
        edit(site, "[aliases]", "[[domain]]\nname = \"parked.example\"\nmail = false\n\n[aliases]");
        postseal(site, ["user", "add", "bob@parked.example"])
    }),
    ("user-has-tag", 2, |site| postseal(site, ["user", "add", "bob+eu@example.com"])),
    ("user-is-alias", 2, |site| postseal(site, ["user", "add", "postmaster@example.com"])),
    ("user-is-other-name", 2, |site| {
        edit(site, "[aliases]", "[[domain]]\nname = \"example.net\"\nother_names = [\"example.org\"]\n\n[aliases]");
        postseal(site, ["user", "add", "bob@example.org"])
    }),
    ("user-unknown", 2, |site| postseal(site, ["user", "remove", "bob@example.com"])),
];

/// Makes a key and a request for it, with a subject of one attribute.
fn request(site: &Path, subject: &str) {
    let (attribute, value) = subject[1..].split_once('=').unwrap();
    let attribute = if attribute == "CN" { vec![2, 5, 4, 3] } else { vec![1, 2, 840, 113_549, 1, 9, 1] };
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::from_oid(&attribute), value);
    let csr = params.serialize_request(&rcgen::KeyPair::generate().unwrap()).unwrap();
    fs::write(site.join("csr"), csr.pem().unwrap()).unwrap();
}

/// Imports the site's own certificate as if it were another CA's.
fn import_ca(site: &Path, key: &Path) -> Answer {
    let certificate = site.join("handout/alice@example.com/default/site-ca.pem");
    let passphrase = site.join("state/ca.passphrase");
    let [certificate, key, passphrase] = [&certificate, key, &passphrase].map(|path| path.to_str().unwrap());
    let files = ["--certificate", certificate, "--key", key, "--key-passphrase-file", passphrase];
    postseal(site, [&["ca", "import"][..], &files].concat())
}

/// Records that senders remember a domain's MTA-STS policy, which lists the host.
fn enforced(site: &Path, domain: &str, host: &str) {
    let sql = rusqlite::Connection::open(site.join("state/ledger.sqlite")).unwrap();
    let stage =
        "INSERT INTO rollout (domain, track, stage, since, max_age) VALUES (?1, 'mta_sts', 'enforce', 0, 604800)";
    sql.execute(stage, [domain]).unwrap();
    sql.execute("INSERT INTO rollout_mx (domain, host, is_mx) VALUES (?1, ?2, 1)", [domain, host]).unwrap();
}

fn logo(site: &Path, text: &str) -> Answer {
    fs::write(site.join("logo.svg"), text).unwrap();
    postseal(site, ["svg", "check", site.join("logo.svg").to_str().unwrap()])
}

fn with_logo(site: &Path) {
    let domain = "[[domain]]\nname = \"example.org\"\nbimi.logo.file = \"logo.svg\"\nbimi.logo.base = \"https://www.example.org/\"\n[aliases]";
    edit(site, "[aliases]", domain);
}

fn edit(site: &Path, old: &str, new: &str) {
    let file = site.join("postseal.toml");
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(text.matches(old).count(), 1, "{old} in {text}");
    fs::write(file, text.replace(old, new)).unwrap();
}

/// Bob's certificate is the first of the issuing CA for all.
fn trust_one_ca(site: &Path) {
    edit(site, "# clients.trust = \"pinned\"", "clients.trust = \"ca\"");
    assert_eq!(postseal(site, ["user", "add", "bob@example.com"]).exit_code, 0);
}

/// An Ed25519 key (RFC 8032 §7.1, test 1).
const SEED: &str = "nWGxne/9WmC6hEr0kuwsxERJxXN7MmkZcDusAxyuf2A=\n";

/// What a command says of a file that holds something else.
fn of_file(site: &Path, command: &str, content: &str) -> Answer {
    let file = site.join("given");
    fs::write(&file, content).unwrap();
    postseal(site, [command, file.to_str().unwrap()])
}

fn import_key(site: &Path, selector: &str, key: &str) -> Answer {
    let file = site.join("key");
    fs::write(&file, key).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    postseal(site, ["dkim", "import", "example.com", selector, file.to_str().unwrap()])
}

fn second_domain(site: &Path) {
    edit(site, "[aliases]", "[[domain]]\nname = \"example.org\"\n[aliases]");
    assert_eq!(postseal(site, ["render"]).exit_code, 0);
}

fn second_host(site: &Path) {
    let files = "files = { certificate = \"/etc/a.pem\", key = \"/etc/a.key\" }";
    let host = format!(
        "[[host]]\nname = \"mx2.example.com\"\nplatform = \"debian\"\nmx_certificate.{files}\nsubmission_certificate.{files}\n"
    );
    edit(site, "[[domain]]", &format!("{host}\n[[domain]]"));
}

fn import(site: &Path, list: &str, options: &[&str]) -> Answer {
    let file = site.join("users.csv");
    fs::write(&file, list).unwrap();
    postseal(site, [&["user", "import", file.to_str().unwrap()], options].concat())
}

fn passwd(site: &Path, content: &[u8]) -> Answer {
    let file = site.join("given");
    fs::write(&file, content).unwrap();
    postseal(site, ["user", "passwd", "alice@example.com", "--password-file", file.to_str().unwrap()])
}

/// What `restore` says of a site's backup; `then` is what the passphrase's file holds by then.
fn backed_up(site: &Path, then: Option<&str>) -> Answer {
    backed_up_with(site, then, &[])
}

fn backed_up_with(site: &Path, then: Option<&str>, more: &[&str]) -> Answer {
    let (backup, passphrase) = (site.with_extension("age"), site.with_extension("given"));
    fs::write(&passphrase, "the secret\n").unwrap();
    let (backup, given) = (backup.to_str().unwrap(), passphrase.to_str().unwrap());
    let answer = postseal(site, ["backup", backup, "--passphrase-file", given]);
    assert_eq!(answer.exit_code, 0, "{answer:?}");
    fs::write(&passphrase, then.unwrap_or("the secret\n")).unwrap();
    postseal(&site.join("new"), [&["restore", backup, "--passphrase-file", given], more].concat())
}

/// What a clone without state/ says, whose postseal.lock holds this.
fn lock(site: &Path, text: &str) -> Answer {
    fs::remove_dir_all(site.join("state")).unwrap();
    fs::write(site.join("postseal.lock"), text).unwrap();
    postseal(site, ["ca", "show"])
}

fn template(site: &Path, name: &str, text: &str) -> Answer {
    fs::create_dir(site.join("templates")).unwrap();
    fs::write(site.join("templates").join(name), text).unwrap();
    postseal(site, ["render"])
}

/// What hinders no work, so that there is a report of it, too.
const DONE_ALL_THE_SAME: [&str; 8] = [
    "crl-behind",
    "dkim-import-readable",
    "report-conflict",
    "report-missing",
    "report-refused",
    "revoked-still-admitted",
    "rollout-domain-gone",
    "rollout-host-gone",
];

fn reported(answer: &Answer) -> BTreeSet<&str> {
    let code = |line: &'_ str| ["error[", "warning["].iter().find_map(|kind| line.strip_prefix(kind)).is_some();
    answer.err.lines().filter(|line| code(line)).filter_map(|line| line.split(['[', ']']).nth(1)).collect()
}

#[test]
fn every_code_outside_of_the_settings_is_reported_by_its_case() {
    for (code, exit_code, case) in CASES {
        let (_guard, site) = surroundings::site();
        let answer = case(&site);
        assert!(reported(&answer).contains(code), "{code}: {answer:?}");
        assert_eq!(answer.exit_code, *exit_code, "{code}: {}", answer.err);
        assert!(answer.err.contains("= help: "), "{code}: {answer:?}");
        assert_eq!(answer.out.is_empty(), !DONE_ALL_THE_SAME.contains(code), "{code}: {answer:?}");
        assert!(!answer.err.contains(['\u{1b}', '\0', '\u{202e}']), "{code}: {}", answer.err);
    }
}

#[test]
fn every_listed_code_has_a_case() {
    let cases: Vec<&str> = CASES.iter().map(|(code, ..)| *code).collect();
    assert!(cases.is_sorted(), "{cases:?}");
    let laboratory = LABORATORY.map(|file| fs::read_to_string(file).unwrap()).concat();
    let untried: Vec<_> = OF_HOSTS.iter().filter(|code| !laboratory.contains(&format!("\"{code}\""))).collect();
    assert!(untried.is_empty(), "{LABORATORY:?} lack {untried:?}");
    let tried: BTreeSet<&str> = cases.into_iter().chain(UNREACHABLE).chain(OF_HOSTS).collect();
    let listed: BTreeSet<&str> = cli::CODES.iter().map(|(code, _)| *code).collect();
    assert_eq!(tried, listed);
    assert_eq!(listed.len(), cli::CODES.len(), "a code is listed twice");
    let twice: Vec<_> = site::CODES.iter().filter(|(code, _)| listed.contains(code)).collect();
    assert!(twice.is_empty(), "listed in both tables: {twice:?}");
}

/// Where a code stands in the sources: as the first argument of these, or behind a field's name.
const MAKERS: [&str; 12] = [
    "Diagnostic::error(",
    "Diagnostic::warning(",
    "Failure::input(",
    "Failure::work(",
    "Failure::secret(",
    "Self::input(",
    "Self::work(",
    "Self::secret(",
    "self.error(",
    "self.warning(",
    "checks.error(",
    "reader.error(",
];
const OTHERS: [&str; 2] = ["repeated(", "code:"];

fn sources(directory: &Path, found: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else {
            let text = fs::read_to_string(&path).unwrap();
            found.insert(path, text.split("#[cfg(test)]").next().unwrap().to_owned());
        }
    }
}

#[test]
fn the_lists_have_the_codes_of_the_sources_and_no_others() {
    let mut texts = BTreeMap::new();
    sources(Path::new("src"), &mut texts);
    let mut made = BTreeSet::new();
    for (maker, text) in MAKERS.iter().chain(&OTHERS).flat_map(|maker| texts.values().map(move |text| (maker, text))) {
        for (at, _) in text.match_indices(maker) {
            let argument = text[at + maker.len()..].trim_start();
            made.extend(argument.strip_prefix('"').and_then(|rest| rest.split('"').next()));
        }
    }
    let listed: BTreeSet<&str> = site::CODES.iter().chain(cli::CODES).map(|(code, _)| *code).collect();
    assert_eq!(made, listed);
}

const PAGE: &str = "docs/codes.md";

#[test]
fn the_documentation_explains_every_code_and_no_other() {
    let text = fs::read_to_string(PAGE).unwrap();
    let explained: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`')).collect();
    for (table, part) in [(site::CODES, "## Settings"), (cli::CODES, "## Commands and files")] {
        let (_, part) = text.split_once(part).unwrap();
        let headings = part.lines().take_while(|line| !line.starts_with("## "));
        let headings: Vec<_> = headings.filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`')).collect();
        assert_eq!(headings, table.iter().map(|(code, _)| *code).collect::<Vec<_>>());
    }
    assert_eq!(explained.len(), site::CODES.len() + cli::CODES.len());
}

/// Returns what the program says of a code: of the settings in `tests/bad/`, of others when its case runs.
fn said(code: &str) -> Option<String> {
    if let Some((_, _, case)) = CASES.iter().find(|(known, ..)| *known == code) {
        let (guard, site) = surroundings::site();
        let answer = case(&site);
        return Some(answer.err.replace(guard.path().to_str().unwrap(), "").replace("/site", "example.com"));
    }
    fs::read_to_string(format!("tests/bad/{code}.stderr")).ok()
}

/// Returns the first finding of a code without the closing line.
fn first<'a>(code: &str, said: &'a str) -> &'a str {
    said.split("\n\n").find(|finding| finding.contains(&format!("[{code}]"))).unwrap()
}

/// `UPDATE_CODES=1` writes what is said now.
#[test]
fn the_documentation_shows_of_every_code_what_is_said() {
    let text = fs::read_to_string(PAGE).unwrap();
    let mut sections = text.split("\n### ");
    let mut shown = sections.next().unwrap().to_owned();
    for section in sections {
        let (code, _) = section.split_once('\n').unwrap();
        let code = code.trim_matches('`');
        shown.push_str("\n### ");
        let Some(said) = said(code) else {
            shown.push_str(section);
            continue;
        };
        let (section, part) = section.split_once("\n## ").map_or((section, None), |(one, other)| (one, Some(other)));
        shown.push_str(section.split("```text").next().unwrap().trim_end());
        shown.push_str(&format!("\n\n```text\n{}\n```\n", first(code, &said)));
        shown.extend(part.map(|part| format!("\n## {part}")));
    }
    if std::env::var_os("UPDATE_CODES").is_some() {
        fs::write(PAGE, &shown).unwrap();
        return;
    }
    let differs = text.lines().zip(shown.lines()).find(|(old, new)| old != new);
    assert!(text == shown, "{PAGE} is old, renew it with UPDATE_CODES=1: {differs:?}");
}
