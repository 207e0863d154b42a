//! The site CA through its life: renewed, exported, or made elsewhere and imported; OpenSSL and NSS judge what it certifies.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test runs programs and reads the clock"
)]
#![allow(clippy::indexing_slicing, dead_code)]

#[path = "support/pki.rs"]
mod support;
#[path = "support/surroundings.rs"]
mod surroundings;

use std::fs;
use std::path::{Path, PathBuf};

use postseal::keys::{KeyKind, generate};
use postseal::pki::Certificate;
use postseal::pki::import::{Needs, Probe, check};
use postseal::pki::issue::{placeholder_twin, site_ca};
use support::{have, put, run, succeed};
use surroundings::{Answer, Surroundings, postseal};
use time::{Duration, OffsetDateTime};

fn sh(at: &Path, script: &str) {
    succeed(at, "sh", &["-ceu", script]);
}

/// OpenSSL reads the clock, and so does the program here.
fn now() -> Surroundings {
    let now = OffsetDateTime::now_utc();
    Surroundings { now: now.replace_nanosecond(0).unwrap(), ..Surroundings::default() }
}

fn fine(answer: &Answer) {
    assert_eq!(answer.exit_code, 0, "{answer:?}");
}

/// A site of Alice's that was made now, beside a directory for files.
fn site() -> (tempfile::TempDir, PathBuf) {
    let guard = tempfile::tempdir().unwrap();
    let site = guard.path().join("site");
    fine(&now().run(&site, ["init", "example.com", "--user", "alice@example.com", "--address", "203.0.113.10"]));
    (guard, site)
}

/// The CA as `ca show` has it.
fn ca(site: &Path) -> Certificate {
    Certificate::from_pem(&postseal(site, ["ca", "show", "--pem"]).out).unwrap()
}

/// The chain that the host shows.
fn server(site: &Path) -> Vec<Certificate> {
    let tls = site.join("out/mail.example.com/root/etc/mail/postseal/tls");
    let mut pem =
        fs::read_dir(tls).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.extension().unwrap() == "pem");
    Certificate::all_from_pem(&fs::read_to_string(pem.next().unwrap()).unwrap()).unwrap()
}

/// The newest client's certificate and its issuing CA.
fn client(site: &Path, at: &Path, device: &str) -> [Certificate; 2] {
    let password = site.join("state/passwords/alice@example.com").join(format!("{device}.p12-password"));
    let p12 = site.join("handout/alice@example.com").join(device).join("alice@example.com.p12");
    let (password, p12) = (password.to_str().unwrap(), p12.to_str().unwrap());
    sh(at, &format!("openssl pkcs12 -in {p12} -passin file:{password} -nokeys -out chain.pem"));
    let chain = Certificate::all_from_pem(&fs::read_to_string(at.join("chain.pem")).unwrap()).unwrap();
    [chain[0].clone(), chain[1].clone()]
}

/// Whether OpenSSL finds the leaf good under the CA.
fn verifies(at: &Path, ca: &Certificate, purpose: &[&str], between: &[&Certificate], leaf: &Certificate) -> bool {
    put(at, "ca.pem", ca.pem());
    put(at, "between.pem", between.iter().map(|one| one.pem()).collect::<String>());
    put(at, "leaf.pem", leaf.pem());
    let mut line = vec!["verify", "-no-CApath", "-no-CAstore", "-CAfile", "ca.pem", "-purpose"];
    line.extend(purpose);
    if ca.facts().critical.iter().any(|oid| oid == "2.5.29.19") {
        line.push("-x509_strict");
    }
    if !between.is_empty() {
        line.extend(["-untrusted", "between.pem"]);
    }
    line.push("leaf.pem");
    let output = run(at, "openssl", &line);
    if !output.status.success() {
        println!("{}", support::text(&output));
    }
    output.status.success()
}

fn assert_good(at: &Path, ca: &Certificate, server: &[Certificate], client: &[Certificate; 2]) {
    assert!(verifies(at, ca, &["sslserver", "-verify_hostname", "mail.example.com"], &[], &server[0]));
    assert!(verifies(at, ca, &["sslclient"], &[&client[1]], &client[0]));
}

#[test]
fn what_was_issued_before_a_renewal_has_a_chain_through_both_certificates() {
    if !have("openssl") {
        return;
    }
    let (guard, site) = site();
    let at = guard.path();
    let (old, old_server, old_client) = (ca(&site), server(&site), client(&site, at, "default"));
    let later = now();
    let later = Surroundings { now: later.now + Duration::minutes(1), ..later };
    fine(&later.run(&site, ["ca", "renew"]));
    let new = ca(&site);
    let (facts, before) = (new.facts(), old.facts());
    assert_eq!(
        (&facts.subject_raw, &facts.spki, &facts.subject_key_id),
        (&before.subject_raw, &before.spki, &before.subject_key_id)
    );
    assert_ne!(facts.serial, before.serial);
    assert_eq!(facts.not_after, later.now + Duration::days(3652));
    fine(&now().run(&site, ["user", "add", "alice@example.com", "--device", "phone"]));
    fine(&now().run(&site, ["server", "renew"]));
    let (new_server, new_client) = (server(&site), client(&site, at, "phone"));
    for ca in [&old, &new] {
        assert_good(at, ca, &old_server, &old_client);
        assert_good(at, ca, &new_server, &new_client);
    }
    assert_eq!(new_server[1], new);
    // Daemons admit both.
    let listed = fs::read_to_string(site.join("out/mail.example.com/root/etc/mail/postseal/clients.pem")).unwrap();
    assert_eq!(Certificate::all_from_pem(&listed).unwrap().len(), 2);
    let handed = fs::read_to_string(site.join("handout/alice@example.com/default/site-ca.pem")).unwrap();
    assert_eq!(handed, new.pem());
    // Killed before that, it is done by the next `render`, as messages say.
    fs::write(site.join("handout/alice@example.com/default/site-ca.pem"), old.pem()).unwrap();
    fs::remove_file(site.join("handout/alice@example.com/phone/site-ca.pem")).unwrap();
    fine(&now().run(&site, ["render"]));
    let handed = fs::read_to_string(site.join("handout/alice@example.com/default/site-ca.pem")).unwrap();
    assert_eq!(handed, new.pem());
    assert!(!site.join("handout/alice@example.com/phone/site-ca.pem").exists());
}

#[test]
fn nss_finds_chains_through_the_renewed_certificate_too() {
    if !(have("certutil") && have("openssl")) {
        return;
    }
    let (guard, site) = site();
    let at = guard.path();
    let (old, server, client) = (ca(&site), server(&site), client(&site, at, "default"));
    fine(&now().run(&site, ["ca", "renew"]));
    for (name, trusted) in [("old", vec![&old]), ("new", vec![&ca(&site)]), ("both", vec![&old, &ca(&site)])] {
        sh(at, &format!("rm -rf {name}; mkdir {name}; certutil -N -d {name} --empty-password"));
        for (number, ca) in trusted.iter().enumerate() {
            put(at, "ca.pem", ca.pem());
            sh(at, &format!("certutil -A -d {name} -n ca{number} -t CT,C, -a -i ca.pem"));
        }
        for (nickname, certificate) in [("issuing", &client[1]), ("client", &client[0]), ("server", &server[0])] {
            put(at, "one.pem", certificate.pem());
            sh(at, &format!("certutil -A -d {name} -n {nickname} -t ,, -a -i one.pem"));
        }
        sh(at, &format!("certutil -V -d {name} -n client -u C; certutil -V -d {name} -n server -u V"));
    }
}

#[test]
fn a_renewed_ca_is_for_the_hosts_of_today() {
    let (_guard, site) = surroundings::site();
    let settings = fs::read_to_string(site.join("postseal.toml")).unwrap();
    let second = "[[host]]\nname = \"mx2.example.com\"\nplatform = \"debian\"\n\n[[domain]]";
    fs::write(site.join("postseal.toml"), settings.replacen("[[domain]]", second, 1)).unwrap();
    let renewed = postseal(&site, ["ca", "renew"]);
    fine(&renewed);
    assert!(renewed.out.contains("postseal server issue mx2.example.com"), "{}", renewed.out);
    assert_eq!(ca(&site).facts().permitted, ["dns:mail.example.com", "dns:mx2.example.com"]);
    fine(&postseal(&site, ["server", "issue", "mx2.example.com"]));
    fine(&postseal(&site, ["render"]));
    // Once more: each time it is the newest that is replaced.
    fine(&postseal(&site, ["ca", "renew"]));
    fine(&postseal(&site, ["render"]));
}

#[test]
fn an_exported_ca_can_be_compared_and_read_in_both_forms() {
    let (guard, site) = surroundings::site();
    let place = guard.path().join("out of the site");
    for _ in 0..2 {
        fine(&postseal(&site, ["ca", "export", place.to_str().unwrap()]));
    }
    let ca = ca(&site);
    assert_eq!(fs::read_to_string(place.join("site-ca.pem")).unwrap(), ca.pem());
    assert_eq!(fs::read(place.join("site-ca.der")).unwrap(), ca.der());
    let text = fs::read_to_string(place.join("site-ca.txt")).unwrap();
    let shown = postseal(&site, ["ca", "show"]).out;
    for line in shown.lines().filter(|line| !line.starts_with("servers")) {
        assert!(text.contains(line), "{line} in {text}");
    }
    fs::write(guard.path().join("file"), "").unwrap();
    let refused = postseal(&site, ["ca", "export", guard.path().join("file").to_str().unwrap()]);
    assert!(refused.exit_code == 2 || refused.exit_code == 3, "{refused:?}");
    assert_eq!(fs::read_to_string(guard.path().join("file")).unwrap(), "");
}

const GOOD: &str =
    "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash";
const EC: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256";

/// Makes a CA as an administrator with OpenSSL does: other.pem and other.key.
fn other(at: &Path, key: &str, subject: &str, extensions: &str) {
    put(at, "ca.cnf", format!("[req]\ndistinguished_name=dn\n[dn]\n[more]\n{extensions}\n"));
    let make = format!("openssl req -x509 -days 3650 {key} -nodes -keyout other.key -out other.pem -config ca.cnf");
    sh(at, &format!("{make} -extensions more -subj '{subject}'"));
}

fn import(surroundings: &Surroundings, site: &Path, at: &Path, more: &[&str]) -> Answer {
    let (certificate, key) = (at.join("other.pem"), at.join("other.key"));
    let files = ["--certificate", certificate.to_str().unwrap(), "--key", key.to_str().unwrap()];
    surroundings.run(site, [&["ca", "import"][..], &files, more].concat())
}

#[test]
fn a_ca_that_openssl_made_takes_the_place_of_the_sites_own() {
    if !have("openssl") {
        return;
    }
    // As easy-rsa writes it: a text before the PEM, an authority key identifier that names issuer and serial.
    let easy_rsa = format!("{}\nauthorityKeyIdentifier=keyid,issuer:always", GOOD.replace("critical,CA", "CA"));
    for (key, subject, extensions, convert) in [
        (EC, "/CN=Other CA", GOOD, "true"),
        (
            EC,
            "/C=DE/O=Example/CN=Other CA/emailAddress=ca@example.com",
            GOOD,
            "openssl ec -in other.key -out k; mv k other.key",
        ),
        ("-newkey rsa:2048", "/CN=Easy-RSA CA", &easy_rsa, "openssl x509 -in other.pem -text -out t; mv t other.pem"),
        (
            "-newkey rsa:3072",
            "/CN=Other CA",
            &format!("{GOOD}\nnameConstraints=critical,permitted;DNS:example.com,permitted;email:example.com"),
            "openssl rsa -in other.key -traditional -out k; mv k other.key",
        ),
        (
            "-newkey rsa:2048",
            "/CN=Other CA",
            GOOD,
            "printf secret >p; openssl pkcs8 -topk8 -v2 aes-256-cbc -v2prf hmacWithSHA512 -in other.key -passout file:p -out k; mv k other.key",
        ),
        (
            EC,
            "/CN=Other CA",
            GOOD,
            "printf secret >p; openssl pkey -aes256 -in other.key -passout file:p -out k; mv k other.key",
        ),
    ] {
        let (guard, site) = site();
        let at = guard.path();
        other(at, key, subject, extensions);
        sh(at, convert);
        let passphrase = at.join("p");
        let more: &[&str] =
            if passphrase.exists() { &["--key-passphrase-file", passphrase.to_str().unwrap()] } else { &[] };
        let (old_ca, old_client) = (ca(&site), client(&site, at, "default"));
        let imported = import(&now(), &site, at, more);
        fine(&imported);
        assert!(imported.out.contains("postseal server renew --all"), "{}", imported.out);
        assert_eq!(imported.out.contains("this mends that: postseal ca renew"), subject.contains("Easy-RSA"));
        let new = ca(&site);
        assert_eq!(new, Certificate::from_pem(&fs::read_to_string(at.join("other.pem")).unwrap()).unwrap());
        // The site's passphrase opens its key.
        fine(&now().run(&site, ["server", "renew", "--all"]));
        fine(&now().run(&site, ["user", "add", "alice@example.com", "--device", "phone"]));
        let (server, phone) = (server(&site), client(&site, at, "phone"));
        assert_good(at, &new, &server, &phone);
        assert!(verifies(at, &old_ca, &["sslclient"], &[&old_client[1]], &old_client[0]));
        let listed = fs::read_to_string(site.join("out/mail.example.com/root/etc/mail/postseal/clients.pem")).unwrap();
        assert_eq!(Certificate::all_from_pem(&listed).unwrap().len(), 2);
        // It is renewed like one of postseal's own.
        fine(&now().run(&site, ["ca", "renew"]));
        assert_eq!(ca(&site).facts().subject_raw, new.facts().subject_raw);
        assert!(ca(&site).facts().critical.contains(&"2.5.29.19".to_owned()));
        assert_good(at, &ca(&site), &server, &phone);
        let again = import(&now(), &site, at, more);
        assert!(again.exit_code == 2 && again.err.contains("ca-known"), "{again:?}");
    }
}

#[test]
fn a_ca_that_could_not_serve_is_refused_and_nothing_written() {
    if !have("openssl") {
        return;
    }
    let (guard, site) = site();
    let at = guard.path();
    let before = surroundings::snapshot(&site);
    let constrained = |constraint: &str| format!("{GOOD}\nnameConstraints=critical,{constraint}");
    for (key, subject, extensions, said) in [
        (EC, "/CN=x", "basicConstraints=CA:FALSE\nsubjectKeyIdentifier=hash".to_owned(), "is no CA's"),
        (EC, "/CN=x", GOOD.replace("CA:TRUE", "CA:TRUE,pathlen:0"), "path length is 0"),
        (EC, "/CN=x", GOOD.replace("keyCertSign,", ""), "lacks keyCertSign"),
        (
            EC,
            "/CN=x",
            GOOD.replace("subjectKeyIdentifier=hash", "subjectKeyIdentifier=none"),
            "no subject key identifier",
        ),
        (EC, "/CN=x", format!("{GOOD}\nextendedKeyUsage=clientAuth"), "extended key usage"),
        (EC, "/CN=x", format!("{GOOD}\n1.2.3.4=critical,ASN1:NULL"), "critical extension 1.2.3.4"),
        (EC, "/CN=x", constrained("permitted;DNS:example.org"), "exclude `mail.example.com`"),
        (EC, "/CN=x", constrained("excluded;DNS:mail.example.com"), "exclude `mail.example.com`"),
        (EC, "/CN=x", constrained("permitted;email:.example.com"), "exclude `alice@example.com`"),
        (EC, "/CN=x", constrained("excluded;email:alice@example.com"), "exclude `alice@example.com`"),
        (EC, "/CN=x", constrained("permitted;URI:example.com"), "does not judge"),
        (EC, "/OU=one/OU=two/CN=x", GOOD.to_owned(), "would not lead back to it: its issuer is not the CA's subject"),
        (
            EC,
            "/DC=org/DC=example/CN=x",
            GOOD.to_owned(),
            "would not lead back to it: its issuer is not the CA's subject",
        ),
        (EC, "/CN=x+O=y", GOOD.to_owned(), "cannot be written again"),
        (EC, "/", GOOD.to_owned(), "cannot be written again"),
        ("-newkey ec -pkeyopt ec_paramgen_curve:P-384", "/CN=x", GOOD.to_owned(), "384 bits"),
        ("-newkey rsa:4096", "/CN=x", GOOD.to_owned(), "RSA with 4096 bits"),
        ("-newkey ed25519", "/CN=x", GOOD.to_owned(), "is Ed25519"),
    ] {
        other(at, key, subject, &extensions);
        let refused = import(&now(), &site, at, &[]);
        let of = format!("{key} {subject} {extensions}");
        assert!(refused.exit_code == 2 && refused.err.contains("ca-refused"), "{of}: {refused:?}");
        assert!(refused.err.contains(said), "{of}: {}", refused.err);
    }
    assert_eq!(surroundings::snapshot(&site), before);
}

#[test]
fn a_pair_that_is_none_or_of_another_time_is_refused_and_nothing_written() {
    if !have("openssl") {
        return;
    }
    let (guard, site) = site();
    let at = guard.path();
    let before = surroundings::snapshot(&site);
    other(at, EC, "/CN=x", GOOD);
    for (days, said) in [(-1, "begins on"), (4000, "ended on")] {
        let then = now();
        let then = Surroundings { now: then.now + Duration::days(days), ..then };
        let refused = import(&then, &site, at, &[]);
        assert!(refused.exit_code == 2 && refused.err.contains(said), "{refused:?}");
    }
    for (script, said) in [
        ("openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out other.key", "does not belong to"),
        ("cp other.pem one; cat one >>other.pem", "holds 2 certificates"),
        ("cp other.key other.pem", "holds no certificate"),
    ] {
        other(at, EC, "/CN=x", GOOD);
        sh(at, script);
        let refused = import(&now(), &site, at, &[]);
        assert!(refused.exit_code == 2 && refused.err.contains(said), "{script}: {refused:?}");
    }
    // Of a corporate root, one below it.
    other(at, EC, "/CN=x", GOOD);
    sh(
        at,
        "mv other.pem root.pem; mv other.key root.key; openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
            -keyout other.key -subj /CN=below -out csr; openssl x509 -req -in csr -CA root.pem -CAkey root.key -days 100 \
            -extfile ca.cnf -extensions more -out other.pem",
    );
    assert!(import(&now(), &site, at, &[]).err.contains("not signed by itself"));
    assert_eq!(surroundings::snapshot(&site), before);
}

#[test]
fn an_encrypted_key_is_opened_or_the_way_to_open_it_told() {
    if !have("openssl") {
        return;
    }
    let (guard, site) = site();
    let at = guard.path();
    let before = surroundings::snapshot(&site);
    put(at, "p", "secret\n");
    put(at, "wrong", "another\n");
    let wrong = at.join("wrong");
    for (encrypt, more, said) in [
        ("pkcs8 -topk8 -v2 aes-256-cbc", vec![], "the passphrase of"),
        ("pkcs8 -topk8 -v2 aes-256-cbc", vec!["--key-passphrase-file", wrong.to_str().unwrap()], "does not open"),
        ("rsa -traditional -aes256", vec![], "older form"),
        (
            "pkcs8 -topk8 -v1 PBE-SHA1-3DES",
            vec!["--key-passphrase-file", wrong.to_str().unwrap()],
            "encrypted in a way",
        ),
    ] {
        other(at, "-newkey rsa:2048", "/CN=x", GOOD);
        sh(at, &format!("openssl {encrypt} -in other.key -passout file:p -out k; mv k other.key"));
        let refused = import(&now(), &site, at, &more);
        assert!(refused.exit_code == 2 && refused.err.contains(said), "{encrypt}: {refused:?}");
    }
    // And the site's own passphrase must open what it protects now.
    other(at, EC, "/CN=x", GOOD);
    let refused = import(&now(), &site, at, &["--ca-passphrase-file", wrong.to_str().unwrap()]);
    assert!(refused.exit_code == 2 && refused.err.contains("ca-passphrase"), "{refused:?}");
    assert_eq!(surroundings::snapshot(&site), before);
}

#[test]
fn the_key_of_a_twin_does_not_become_the_sites() {
    // Where the issuing key is kept (trust = "ca"), somebody could sign a site CA with it: everything below would be admitted.
    let (key, at) = (generate(KeyKind::P256).unwrap(), OffsetDateTime::now_utc());
    let hosts = ["mail.example.com".parse().unwrap()];
    let twin = placeholder_twin(key.clone(), support::serial(1), at).unwrap();
    let ca = site_ca("Example", &hosts, &key, support::serial(2), at).unwrap();
    let mailboxes = ["alice@example.com".parse().unwrap()];
    let judge = |trusted: &[Certificate]| {
        let needs = Needs { hosts: &hosts, mailboxes: &mailboxes, trusted };
        let probe = Probe { key: generate(KeyKind::P256).unwrap(), serials: [3, 4, 5, 6].map(support::serial) };
        check(&ca, &key, needs, probe, at)
    };
    assert_eq!(judge(&[]), Ok(()));
    assert!(judge(&[twin]).unwrap_err().problem.contains("daemons trust"));
}
