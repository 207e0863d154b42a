//! `trust = "ca"`: one issuing CA for all, its CRL, and the way from one trust to the other. What OpenSSL says of the rendered
//! files is what Dovecot and nginx do, which ask it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, dead_code, missing_docs)]
#![allow(clippy::disallowed_methods, reason = "a test edits sites and runs OpenSSL")]
#![allow(clippy::print_stdout, reason = "a test says what it skips")]

#[path = "support/surroundings.rs"]
mod surroundings;

use std::fs;
use std::path::Path;
use std::process::Command;

use postseal::inventory::{CertificateStatus, ClientCertificate, Inventory, Reason};
use postseal::names::Serial;
use postseal::pki::Certificate;
use postseal::pki::crl::Seen;
use postseal::site::Trust;
use postseal::store::{SiteDir, Store};
use time::macros::datetime;
use time::{Duration, OffsetDateTime};

use surroundings::{Answer, Surroundings, postseal, site};

const FILES: &str = "out/mail.example.com/root/etc/mail/postseal";

/// Writes whom the daemons are to admit into the settings.
fn trust(site: &Path, trust: Trust) {
    let file = site.join("postseal.toml");
    let word = if trust == Trust::Ca { "ca" } else { "pinned" };
    let text = fs::read_to_string(&file).unwrap();
    let line = text.lines().find(|line| line.contains("clients.trust = ")).unwrap().to_owned();
    fs::write(file, text.replace(&line, &format!("clients.trust = \"{word}\""))).unwrap();
}

fn fine(site: &Path, command: &str) -> Answer {
    let answer = postseal(site, command.split(' '));
    assert_eq!(answer.exit_code, 0, "{command}: {}", answer.err);
    answer
}

/// The clock of the tests stands; which of two is the newer one shows when it is put forward.
fn later(site: &Path, command: &str) -> Answer {
    let answer = Surroundings { now: LATER, ..Surroundings::default() }.run(site, command.split(' '));
    assert_eq!(answer.exit_code, 0, "{command}: {}", answer.err);
    answer
}

/// A site with Alice's pinned certificate, and Bob's and Carol's under the issuing CA.
fn mixed() -> (tempfile::TempDir, std::path::PathBuf) {
    let (guard, site) = site();
    trust(&site, Trust::Ca);
    fine(&site, "user add bob@example.com");
    fine(&site, "user add carol@example.com");
    (guard, site)
}

fn store(site: &Path) -> Store {
    Store::open(SiteDir::new(camino::Utf8Path::from_path(site).unwrap())).unwrap()
}

fn inventory(site: &Path) -> Inventory {
    store(site).inventory().unwrap()
}

fn of<'a>(inventory: &'a Inventory, address: &str) -> Vec<&'a ClientCertificate> {
    inventory.client_certificates.iter().filter(|certificate| certificate.address.as_str() == address).collect()
}

/// The newest certificate of an address.
fn serial(site: &Path, address: &str) -> Serial {
    of(&inventory(site), address).last().unwrap().serial
}

fn rendered(site: &Path, name: &str) -> String {
    fs::read_to_string(site.join(FILES).join(name)).unwrap()
}

fn serials(seen: &Seen) -> Vec<Serial> {
    seen.entries.iter().map(|entry| entry.serial).collect()
}

/// The serials on the rendered CRL.
fn listed(site: &Path) -> Vec<Serial> {
    serials(&Seen::from_pem(&rendered(site, "clients.crl")).unwrap())
}

fn twins(site: &Path) -> Vec<Certificate> {
    Certificate::all_from_pem(&rendered(site, "clients.pem")).unwrap()
}

fn have_openssl() -> bool {
    let have = Command::new("openssl").arg("version").output().is_ok();
    assert!(have || std::env::var("INTEROP").is_ok_and(|value| value != "require"), "openssl is not installed");
    have
}

/// What a server says that heeds CRLs, and reads one file as Dovecot does, or two as nginx does.
fn verdict(site: &Path, serial: &Serial, at: OffsetDateTime) -> Result<(), String> {
    verdict_of(site, site, serial, at)
}

/// The same, of a certificate that another site's ledger knows.
fn verdict_of(site: &Path, known: &Path, serial: &Serial, at: OffsetDateTime) -> Result<(), String> {
    let pem = store(known).ledger().client_pem(serial).unwrap();
    let (leaf, chain) = (site.join("leaf.pem"), site.join("chain.pem"));
    fs::write(&leaf, pem.certificate).unwrap();
    fs::write(&chain, pem.issuing).unwrap();
    let at = at.unix_timestamp().to_string();
    let judge = |list: &str, crl: Option<&str>| {
        let mut command = Command::new("openssl");
        command.args(["verify", "-x509_strict", "-no-CApath", "-no-CAstore", "-purpose", "sslclient"]);
        command.args(["-crl_check", "-crl_check_all", "-attime", &at]);
        command.arg("-CAfile").arg(site.join(FILES).join(list));
        command.args(crl.map(|name| format!("-CRLfile={}", site.join(FILES).join(name).display())));
        let output = command.arg("-untrusted").arg(&chain).arg(&leaf).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        if output.status.success() { Ok(()) } else { Err(text) }
    };
    let (one, two) = (judge("clients-with-crl.pem", None), judge("clients.pem", Some("clients.crl")));
    assert_eq!(one.is_ok(), two.is_ok(), "{one:?} {two:?}");
    one
}

const NOW: OffsetDateTime = datetime!(2026-11-24 12:00 UTC);
const LATER: OffsetDateTime = datetime!(2026-11-24 13:00 UTC);

#[test]
fn one_issuing_ca_is_made_at_first_need_and_its_key_lies_encrypted() {
    let (_guard, site) = mixed();
    let (issuers, cas) = (inventory(&site), store(&site).ledger().issuing_cas().unwrap());
    let [ca] = cas.as_slice() else { panic!("{cas:?}") };
    for who in ["bob@example.com", "carol@example.com"] {
        assert_eq!(of(&issuers, who)[0].issuer, Some(ca.serial));
    }
    assert_eq!(of(&issuers, "alice@example.com")[0].issuer, None);
    let postseal::store::ledger::AuthorityKey::File(key) = &ca.key else { panic!("{ca:?}") };
    let key = store(&site).key(key).unwrap();
    assert!(key.expose_str().unwrap().starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"));
    assert_eq!(Certificate::from_pem(&ca.twin).unwrap().facts().permitted, ["email:example.com"]);
}

#[test]
fn a_further_certificate_changes_no_list_and_says_so() {
    let (_guard, site) = mixed();
    let before = rendered(&site, "clients.pem");
    let answer = fine(&site, "user add bob@example.com --device phone");
    assert_eq!(rendered(&site, "clients.pem"), before);
    assert!(
        answer.out.ends_with("the certificate is admitted already: nothing is to be installed\n"),
        "{}",
        answer.out
    );
}

#[test]
fn who_heeds_the_crl_refuses_the_removed_and_admits_the_rest() {
    if !have_openssl() {
        return;
    }
    let (_guard, site) = mixed();
    let (bob, carol) = (serial(&site, "bob@example.com"), serial(&site, "carol@example.com"));
    assert_eq!((verdict(&site, &bob, NOW), verdict(&site, &carol, NOW)), (Ok(()), Ok(())));
    fine(&site, "user remove carol@example.com");
    assert_eq!(verdict(&site, &bob, NOW), Ok(()));
    let refused = verdict(&site, &carol, NOW).unwrap_err();
    assert!(refused.contains("certificate revoked"), "{refused}");
    // Nobody renewed it.
    let refused = verdict(&site, &bob, NOW + Duration::days(31)).unwrap_err();
    assert!(refused.contains("CRL has expired"), "{refused}");
}

#[test]
fn a_revocation_and_its_crl_are_one_change_of_the_ledger() {
    let (_guard, site) = mixed();
    let carol = serial(&site, "carol@example.com");
    let answer = fine(&site, "user remove carol@example.com");
    let known = inventory(&site);
    let ca = &known.issuing_cas[0];
    assert_eq!(ca.crl.map(|crl| crl.number), Some(2));
    let seen = Seen::from_pem(&rendered(&site, "clients.crl")).unwrap();
    assert_eq!((seen.number, serials(&seen)), (Some(2), vec![carol]));
    assert!(
        answer.err.contains("OpenSMTPD reads no CRL, and goes on admitting a revoked certificate"),
        "{}",
        answer.err
    );
    assert!(answer.out.contains("systemctl reload dovecot"), "{}", answer.out);
    assert!(!answer.out.contains("restart opensmtpd"), "{}", answer.out);
}

#[test]
fn without_the_passphrase_a_removal_counts_and_the_crl_follows_later() {
    let (_guard, site) = mixed();
    let carol = serial(&site, "carol@example.com");
    let passphrase = site.join("state/ca.passphrase");
    let kept = site.join("../passphrase");
    fs::rename(&passphrase, &kept).unwrap();
    let answer = postseal(&site, ["user", "remove", "carol@example.com"]);
    assert_eq!(answer.exit_code, 3, "{}", answer.err);
    assert!(answer.err.contains("error[crl-behind]"), "{}", answer.err);
    assert_eq!(of(&inventory(&site), "carol@example.com")[0].status, CertificateStatus::Revoked);
    assert!(listed(&site).is_empty());
    // The next certificate brings the CRL up to date, for the key is open then.
    fine(&site, &format!("user add dave@example.com --ca-passphrase-file {}", kept.display()));
    assert_eq!(listed(&site), [carol]);
}

#[test]
fn a_device_that_is_revoked_alone_is_on_the_crl_and_the_others_are_not() {
    let (_guard, site) = mixed();
    fine(&site, "user add bob@example.com --device phone");
    let phone =
        of(&inventory(&site), "bob@example.com").iter().find(|one| one.device.as_str() == "phone").unwrap().serial;
    let answer = fine(&site, "user revoke bob@example.com --device phone --reason lost");
    assert_eq!(listed(&site), [phone]);
    assert!(
        answer.out.contains("systemctl reload dovecot") && !answer.out.contains("restart opensmtpd"),
        "{}",
        answer.out
    );
    assert!(answer.err.contains("warning[revoked-still-admitted]"), "{}", answer.err);
    fs::remove_file(site.join("state/ca.passphrase")).unwrap();
    let answer = postseal(&site, ["user", "revoke", "bob@example.com"]);
    assert!(answer.exit_code == 3 && answer.err.contains("error[crl-behind]"), "{}", answer.err);
}

#[test]
fn what_is_renewed_without_an_overlap_is_on_the_crl() {
    let (_guard, site) = mixed();
    let old = serial(&site, "bob@example.com");
    let answer = later(&site, "user renew bob@example.com --overlap 0d");
    assert!(answer.out.ends_with("the new certificates are admitted already\n"), "{}", answer.out);
    assert_eq!(listed(&site), [old]);
}

#[test]
fn a_crl_is_renewed_at_half_its_life_by_whoever_opens_the_ca_and_by_order() {
    let (_guard, site) = mixed();
    let number = || inventory(&site).issuing_cas[0].crl.unwrap().number;
    let on = |days, command: &str| {
        let surroundings = Surroundings { now: NOW + Duration::days(days), ..Surroundings::default() };
        let answer = surroundings.run(&site, command.split(' '));
        assert_eq!(answer.exit_code, 0, "{}", answer.err);
        answer
    };
    on(14, "user add bob@example.com --device one");
    assert_eq!(number(), 1);
    on(15, "user add bob@example.com --device two");
    assert_eq!(number(), 2);
    let shown = on(15, "ca crl --refresh").out;
    assert!(number() == 3 && shown.contains("number      3\n") && shown.contains("ends        2027-01-08:"), "{shown}");
    assert_eq!(Seen::from_pem(&rendered(&site, "clients-with-crl.pem")).unwrap().number, Some(3));
}

#[test]
fn a_new_issuing_ca_gives_everybody_a_new_certificate_and_admits_the_old_ones_until_the_overlap_ends() {
    let (_guard, site) = mixed();
    fine(&site, "user add bob@example.com --device phone --apple");
    let before = inventory(&site);
    let old_p12 = fs::read(site.join("handout/bob@example.com/phone/bob@example.com-apple.p12")).unwrap();
    later(&site, "ca renew --clients --overlap 10d");
    let after = inventory(&site);
    let [old, new] = after.issuing_cas.as_slice() else { panic!("{:?}", after.issuing_cas) };
    let retires_at = old.successor.unwrap().retires_at;
    assert_eq!((old.successor.unwrap().serial, retires_at), (new.serial, LATER + Duration::days(10)));
    for who in before.client_certificates.iter().filter(|certificate| certificate.issuer.is_some()) {
        let of_device: Vec<_> = after
            .client_certificates
            .iter()
            .filter(|one| (&one.address, &one.device) == (&who.address, &who.device))
            .collect();
        let [first, second] = of_device.as_slice() else { panic!("{of_device:?}") };
        let (first, second) = if first.issuer == Some(old.serial) { (first, second) } else { (second, first) };
        assert_eq!((first.successor.unwrap().serial, first.ends_at()), (second.serial, retires_at));
        assert_eq!((second.issuer, second.successor), (Some(new.serial), None));
        assert_eq!(second.not_after - second.not_before, first.not_after - first.not_before);
    }
    assert_eq!(twins(&site).len(), 3);
    assert_ne!(fs::read(site.join("handout/bob@example.com/phone/bob@example.com-apple.p12")).unwrap(), old_p12);
    if have_openssl() {
        for certificate in after.client_certificates.iter().filter(|certificate| certificate.issuer.is_some()) {
            assert_eq!(verdict(&site, &certificate.serial, LATER), Ok(()), "{}", certificate.address);
        }
    }
    // Alice's is pinned, and nobody's business.
    assert_eq!(of(&after, "alice@example.com").len(), 1);
}

#[test]
fn a_new_issuing_ca_at_once_shuts_out_the_old_one_and_the_removed() {
    let (_guard, site) = mixed();
    let old = store(&site).ledger().issuing_ca().unwrap().unwrap();
    fine(&site, "user remove carol@example.com");
    later(&site, "ca renew --clients --now");
    let list = twins(&site);
    assert!(list.len() == 2 && !list.contains(&Certificate::from_pem(&old.twin).unwrap()));
    let known = inventory(&site);
    assert_eq!(known.issuing_cas[0].status, CertificateStatus::Revoked);
    let bobs: Vec<_> = of(&known, "bob@example.com").iter().map(|one| one.status).collect();
    assert!(bobs.contains(&CertificateStatus::Revoked) && bobs.contains(&CertificateStatus::Live), "{bobs:?}");
    // Nobody revoked is admitted by OpenSMTPD any more.
    assert_eq!(fine(&site, "render").err, "");
}

#[test]
fn a_domain_that_is_added_needs_a_new_issuing_ca_and_then_has_users() {
    let (_guard, site) = mixed();
    let settings = fs::read_to_string(site.join("postseal.toml")).unwrap();
    let more = "\n[[domain]]\nname = \"example.org\"\n[aliases]\n\"postmaster@example.org\" = \"bob@example.com\"";
    fs::write(site.join("postseal.toml"), settings.replace("\n[aliases]", more)).unwrap();
    let answer = postseal(&site, ["user", "add", "dave@example.org"]);
    assert!(answer.exit_code == 2 && answer.err.contains("postseal ca renew --clients"), "{}", answer.err);
    later(&site, "ca renew --clients");
    fine(&site, "user add dave@example.org");
}

#[test]
fn more_than_200_domains_are_too_many_for_one_issuing_ca() {
    let (_guard, site) = site();
    trust(&site, Trust::Ca);
    let settings = fs::read_to_string(site.join("postseal.toml")).unwrap();
    let names: Vec<String> = (0..200).map(|n| format!("d{n}.example.net")).collect();
    let domains = names.iter().map(|name| format!("\n[[domain]]\nname = \"{name}\"")).collect::<Vec<_>>().concat();
    let alias = |name: &String| format!("\n\"postmaster@{name}\" = \"alice@example.com\"");
    let aliases = names.iter().map(alias).collect::<Vec<_>>().concat();
    let settings = settings.replace("\n[aliases]", &format!("{domains}\n[aliases]{aliases}"));
    fs::write(site.join("postseal.toml"), settings).unwrap();
    let answer = postseal(&site, ["user", "add", "bob@example.com"]);
    assert!(
        answer.exit_code == 2 && answer.err.contains("1 to 200 domains, not 201; use trust = \"pinned\""),
        "{}",
        answer.err
    );
}

#[test]
fn from_pinned_to_ca_and_back_nobody_is_locked_out_in_between() {
    let (_guard, site) = mixed();
    let admitted = |who: &str| {
        let pem = store(&site).ledger().client_pem(&serial(&site, who)).unwrap();
        let leaf = Certificate::from_pem(&pem.certificate).unwrap();
        twins(&site).iter().any(|twin| leaf.is_signed_by(twin))
    };
    let all = ["alice@example.com", "bob@example.com", "carol@example.com"];
    let ca = store(&site).ledger().issuing_ca().unwrap().unwrap();
    assert!(all.iter().all(|who| admitted(who)));
    trust(&site, Trust::Pinned);
    fine(&site, "render");
    assert!(all.iter().all(|who| admitted(who)));
    fine(&site, "user add dave@example.com");
    assert!(admitted("dave@example.com") && all.iter().all(|who| admitted(who)));
    assert_eq!(twins(&site).len(), 3);
    if have_openssl() {
        // Whoever heeds CRLs takes the new pinned certificate, too.
        assert_eq!(verdict(&site, &serial(&site, "dave@example.com"), NOW), Ok(()));
    }
    let refused = postseal(&site, ["ca", "retire"]);
    assert!(refused.exit_code == 2 && refused.err.contains("2 devices would be shut out"), "{}", refused.err);
    later(&site, "user renew --all");
    assert!(admitted("dave@example.com") && all.iter().all(|who| admitted(who)));
    fine(&site, "ca retire");
    assert!(admitted("dave@example.com") && all.iter().all(|who| admitted(who)));
    assert!(!rendered(&site, "clients.pem").contains(&ca.twin));
    assert!(!site.join(FILES).join("clients.crl").exists());
}

#[test]
fn retired_by_force_an_issuing_ca_takes_all_that_is_under_it_along() {
    let (_guard, site) = mixed();
    trust(&site, Trust::Pinned);
    fine(&site, "ca retire --force");
    let known = inventory(&site);
    let bob = of(&known, "bob@example.com")[0];
    assert_eq!(bob.revocation.map(|revocation| revocation.reason), Some(Reason::Superseded));
    assert_eq!(twins(&site).len(), 1);
}

#[test]
fn a_clone_without_the_ledger_lists_the_same_files() {
    let (guard, site) = mixed();
    fine(&site, "bless");
    fs::rename(site.join("state"), guard.path().join("state")).unwrap();
    fs::remove_dir_all(site.join("out")).unwrap();
    assert!(
        fs::read_to_string(site.join("golden/mail.example.com/MANIFEST")).unwrap().contains("clients-with-crl.pem")
    );
    fine(&site, "diff");
}

#[test]
fn the_site_ca_is_in_no_client_trust_file() {
    let (_guard, site) = mixed();
    fine(&site, "user remove carol@example.com");
    later(&site, "ca renew --clients");
    fine(&site, "bless");
    let mut sites = vec![site.clone()];
    sites.extend(fs::read_dir("golden").unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()));
    for site in sites {
        let lock = fs::read_to_string(site.join("postseal.lock")).unwrap();
        let ca = lock.split_once("[site_ca]").unwrap().1;
        let ca = Certificate::from_pem(ca.split_once("\"\"\"\n").unwrap().1.split_once("\"\"\"").unwrap().0).unwrap();
        let mut seen = 0;
        for top in ["golden", "out"].map(|top| site.join(top)).into_iter().filter(|top| top.exists()) {
            for (path, octets) in surroundings::snapshot(&top).into_iter().filter(|(path, _)| path.is_file()) {
                seen += 1;
                // A server sends the site CA behind its own certificate, so that programs can compare.
                let is_chain = path.parent().unwrap().ends_with("tls") && path.extension().unwrap() == "pem";
                assert!(is_chain || !holds(&octets, &ca), "{} holds the site CA", path.display());
            }
        }
        assert!(seen > 10, "{}: {seen} files", site.display());
    }
}

/// Tells whether a file holds the certificate, or another one with its key: in PEM, in DER, or in base64 without any frame.
fn holds(octets: &[u8], ca: &Certificate) -> bool {
    let key = &ca.facts().spki;
    let within = |octets: &[u8]| octets.windows(key.len()).any(|part| part == key);
    let text = String::from_utf8_lossy(octets);
    // Whatever is base64, in as many lines as it may have: DER can begin at each place.
    let mut runs = vec![String::new()];
    for line in text.lines() {
        let word = line.trim().trim_matches('"');
        let plain = !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b));
        match (plain, runs.last_mut()) {
            (true, Some(run)) => run.push_str(word),
            _ => runs.push(String::new()),
        }
    }
    let engine = base64::engine::GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        base64::engine::GeneralPurposeConfig::new()
            .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent)
            .with_decode_allow_trailing_bits(true),
    );
    let decoded = |run: &String| {
        let plain: String = run.chars().filter(|c| *c != '=').collect();
        let whole = plain.len() - plain.len() % 4;
        base64::Engine::decode(&engine, &plain[..whole]).unwrap_or_default()
    };
    within(octets) || runs.iter().any(|run| within(&decoded(run)))
}

#[test]
fn the_search_for_the_site_ca_finds_it_in_every_form() {
    let (_guard, site) = site();
    let pem = inventory(&site).site_ca.unwrap().certificate;
    let ca = Certificate::from_pem(&pem).unwrap();
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    for form in [pem.as_bytes(), ca.der(), body.as_bytes(), &[b"x\n".as_slice(), pem.as_bytes()].concat()] {
        assert!(holds(form, &ca));
    }
    assert!(!holds(rendered(&site, "clients.pem").as_bytes(), &ca));
}

/// Backs a site up, and restores it elsewhere.
struct Saved {
    file: std::path::PathBuf,
    passphrase: std::path::PathBuf,
}

impl Saved {
    fn of(site: &Path) -> Self {
        let saved = Self { file: site.with_extension("age"), passphrase: site.with_extension("passphrase") };
        fs::write(&saved.passphrase, "correct horse battery").unwrap();
        let (file, passphrase) = (saved.file.display(), saved.passphrase.display());
        fine(site, &format!("backup {file} --passphrase-file {passphrase}"));
        saved
    }

    fn restored(&self, more: &str) -> (std::path::PathBuf, Answer) {
        let place = self.file.with_extension("again");
        let (file, passphrase) = (self.file.display(), self.passphrase.display());
        let answer = fine(&place, &format!("restore {file} --passphrase-file {passphrase}{more}"));
        fine(&place, "fsck");
        (place, answer)
    }
}

/// A host on which the site's files are installed.
fn host(site: &Path) -> std::path::PathBuf {
    let root = site.with_extension("root");
    let from = site.join("out/mail.example.com/root");
    assert!(Command::new("cp").arg("-a").args([&from, &root]).status().unwrap().success());
    root
}

#[test]
fn a_site_of_one_ca_is_in_order_and_stays_so_on_the_way_back() {
    let (_guard, site) = mixed();
    fine(&site, "fsck");
    trust(&site, Trust::Pinned);
    fine(&site, "user add zoe@example.com");
    fine(&site, "fsck");
    later(&site, "user renew --all --overlap 0d");
    later(&site, "ca retire");
    later(&site, "fsck");
}

#[test]
fn what_was_issued_and_revoked_after_the_backup_stays_revoked() {
    let (_guard, site) = mixed();
    let saved = Saved::of(&site);
    fine(&site, "user add ivy@example.com");
    fine(&site, "user revoke ivy@example.com --reason compromised");
    fine(&site, "user revoke carol@example.com --reason lost");
    let (place, answer) = saved.restored(&format!(" --root {}", host(&site).display()));
    assert!(answer.out.contains("names 1 that the backup does not know"), "{}", answer.out);
    let reasons = |address: &str| of(&inventory(&place), address)[0].revocation.map(|revocation| revocation.reason);
    assert_eq!(reasons("carol@example.com"), Some(Reason::KeyCompromise));
    assert!(!place.join("handout/carol@example.com").exists());
    for again in [false, true] {
        if again {
            fine(&place, "ca crl --refresh");
        }
        for (address, is_admitted) in [("bob", true), ("carol", false), ("ivy", false)] {
            let serial = serial(&site, &format!("{address}@example.com"));
            let verdict = verdict_of(&place, &site, &serial, NOW);
            assert_eq!(verdict.is_ok(), is_admitted, "{address}, again {again}: {verdict:?}");
        }
    }
}

#[test]
fn who_is_confirmed_after_a_restore_brings_nobody_else_back() {
    let (_guard, site) = mixed();
    let saved = Saved::of(&site);
    fine(&site, "user revoke carol@example.com --reason lost");
    let (place, _) = saved.restored("");
    let refused = postseal(&place, ["user", "add", "dora@example.com"]);
    assert!(refused.exit_code == 2 && refused.err.contains("certificate-held"), "{refused:?}");
    fine(&place, "user confirm bob@example.com");
    assert_eq!(verdict(&place, &serial(&site, "bob@example.com"), NOW), Ok(()));
    assert!(verdict(&place, &serial(&site, "carol@example.com"), NOW).is_err());
    fine(&place, "user add dora@example.com");
    fine(&place, "fsck");
}

#[test]
fn a_host_without_a_crl_brings_nobody_back() {
    let (_guard, site) = mixed();
    let saved = Saved::of(&site);
    let root = host(&site);
    fs::write(root.join("etc/mail/postseal/clients.crl"), "garbage").unwrap();
    let (place, answer) = saved.restored(&format!(" --root {}", root.display()));
    assert!(answer.out.contains("of which the host has no CRL"), "{}", answer.out);
    assert!(verdict_of(&place, &site, &serial(&site, "bob@example.com"), NOW).is_err());
}

#[test]
fn of_a_list_only_the_line_is_refused_whose_domain_the_ca_lacks() {
    let (_guard, site) = mixed();
    let settings = site.join("postseal.toml");
    let text = fs::read_to_string(&settings).unwrap();
    fs::write(&settings, text.replacen("[aliases]", "[[domain]]\nname = \"example.org\"\n[aliases]", 1)).unwrap();
    let list = site.with_extension("csv");
    fs::write(&list, "address\ndora@example.com\nemil@example.org\n").unwrap();
    let answer = postseal(&site, ["user", "import", list.to_str().unwrap()]);
    assert_eq!(answer.exit_code, 1, "{answer:?}");
    assert!(answer.out.starts_with("issued: 1\n") && answer.err.contains("csv:3:1"));
    assert!(answer.err.contains("error[issuing-ca-lacks-domain]"), "{answer:?}");
}
