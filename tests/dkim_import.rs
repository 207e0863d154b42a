//! Keys that other programs made sign here as the keys that those programs say they are; and many keys are made at once.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, dead_code, missing_docs)]
#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a test runs programs and writes their files")]

#[path = "support/pki.rs"]
mod support;
#[path = "support/surroundings.rs"]
mod surroundings;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use postseal::inventory::{DkimAlgorithm, DkimKey, DkimState};
use postseal::store::{SiteDir, Store};
use support::{have, run, succeed};
use surroundings::{Answer, Surroundings, postseal};

fn import(site: &Path, selector: &str, file: &Path) -> Answer {
    postseal(site, ["dkim", "import", "example.com", selector, file.to_str().unwrap()])
}

fn keys(site: &Path) -> Vec<DkimKey> {
    let place = SiteDir::new(camino::Utf8Path::from_path(site).unwrap());
    Store::open(place).unwrap().inventory().unwrap().dkim_keys
}

/// What the record of the key says after `p=`.
fn published(site: &Path, selector: &str) -> String {
    keys(site).into_iter().find(|key| key.selector.as_str() == selector).unwrap().public
}

/// What openssl says that the record of a key has to say.
fn as_openssl_says(at: &Path, arguments: &[&str]) -> String {
    let out = run(at, "openssl", &[&["pkey", "-pubout", "-outform", "DER"], arguments].concat());
    let spki = out.stdout;
    // Of an Ed25519 key the 32 octets alone (RFC 8463 §4).
    BASE64_STANDARD.encode(if spki.len() == 44 { &spki[12..] } else { &spki })
}

#[test]
fn every_key_that_openssl_writes_is_the_key_that_openssl_says() {
    if !have("openssl") {
        return;
    }
    let (guard, site) = surroundings::site();
    let at = guard.path();
    let openssl = |arguments: &str| succeed(at, "openssl", &arguments.split(' ').collect::<Vec<_>>());
    let made = [
        ("traditional", "genrsa -traditional -out traditional 2048", "PEM"),
        ("pkcs8", "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:3072 -out pkcs8", "PEM"),
        ("long", "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:4096 -out long", "PEM"),
        ("der", "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -outform DER -out der", "DER"),
        ("ed25519", "genpkey -algorithm ed25519 -out ed25519", "PEM"),
        ("ed25519-der", "genpkey -algorithm ed25519 -outform DER -out ed25519-der", "DER"),
    ];
    for (number, (name, command, form)) in made.into_iter().enumerate() {
        openssl(command);
        if name == "pkcs8" {
            openssl("req -x509 -new -key pkcs8 -subj /CN=mail -out certificate");
            let text =
                fs::read_to_string(at.join(name)).unwrap() + &fs::read_to_string(at.join("certificate")).unwrap();
            fs::write(at.join(name), format!("# signs since 2019\n{text}").replace('\n', "\r\n")).unwrap();
        }
        let selector = format!("s{number}");
        let answer = import(&site, &selector, &at.join(name));
        assert_eq!(answer.exit_code, 0, "{name}: {}", answer.err);
        assert!(answer.out.contains("signs at once"), "{name}: {}", answer.out);
        assert_eq!(published(&site, &selector), as_openssl_says(at, &["-in", name, "-inform", form]), "{name}");
    }
    assert_eq!(postseal(&site, ["fsck"]).exit_code, 0, "what is kept of each is read as the same key");
}

#[test]
fn every_key_that_rspamadm_makes_is_the_key_whose_record_it_prints() {
    if !have("rspamadm") {
        return;
    }
    let (guard, site) = surroundings::site();
    for kind in ["rsa", "ed25519", "ed25519-seed"] {
        let file = guard.path().join(kind);
        let arguments = ["dkim_keygen", "-t", kind, "-b", "2048", "-s", "old", "-d", "example.com", "-k"];
        let said = succeed(guard.path(), "rspamadm", &[&arguments[..], &[file.to_str().unwrap()]].concat());
        let answer = import(&site, kind, &file);
        assert_eq!(answer.exit_code, 0, "{kind}: {}", answer.err);
        let said: String = said.chars().filter(|c| c.is_ascii_alphanumeric() || "+/=".contains(*c)).collect();
        assert!(said.contains(&published(&site, kind)), "{kind}: {said}");
    }
}

#[test]
fn what_openssl_makes_and_mail_cannot_be_signed_with_is_refused_by_its_name() {
    if !have("openssl") {
        return;
    }
    let (guard, site) = surroundings::site();
    let at = guard.path();
    let before = surroundings::snapshot(&site);
    for (command, why) in [
        ("genrsa -out key 1024", "RSA key of 1024 bits"),
        (
            "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -pkeyopt rsa_keygen_pubexp:3 -out key",
            "public exponent",
        ),
        ("ecparam -name prime256v1 -genkey -out key", "elliptic curve"),
        ("ecparam -name prime256v1 -genkey -noout -outform DER -out key", "elliptic curve"),
        ("genpkey -algorithm ed448 -out key", "Ed448"),
        ("genpkey -algorithm x25519 -out key", "X25519"),
        ("genpkey -algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048 -out key", "RSA-PSS"),
        ("genpkey -algorithm RSA -aes256 -pass pass:x -out key", "encrypted"),
        ("genpkey -algorithm ed25519 -aes256 -pass pass:x -outform PEM -out key", "encrypted"),
        ("genrsa -traditional -aes128 -passout pass:x -out key 2048", "encrypted"),
        ("req -x509 -newkey rsa:2048 -nodes -subj /CN=x -keyout /dev/null -out key", "certificate"),
        ("rsa -in old -pubout -out key", "public key"),
        ("rsa -in old -pubout -outform DER -out key", "public key"),
        ("rsa -in old -RSAPublicKey_out -out key", "public key"),
        ("dsaparam -genkey -noout -out key 1024", "DSA"),
    ] {
        if command.contains("-in old") {
            succeed(at, "openssl", &["genrsa", "-out", "old", "2048"]);
        }
        succeed(at, "openssl", &command.split(' ').collect::<Vec<_>>());
        let answer = import(&site, "mail", &at.join("key"));
        assert_eq!(answer.exit_code, 2, "{command}: {answer:?}");
        assert!(answer.err.contains("dkim-import-refused") && answer.err.contains(why), "{command}: {}", answer.err);
    }
    assert!(surroundings::snapshot(&site) == before, "something that was refused left a trace");
}

/// Writes one of the two Ed25519 keys of RFC 8032 §7.1 into a file.
fn seed(at: &Path, number: u8) -> std::path::PathBuf {
    let keys = ["nWGxne/9WmC6hEr0kuwsxERJxXN7MmkZcDusAxyuf2A=", "TM0Imyj/ltqdtsNG7BFOD1uKMZ81q6Yk2oz27U+4pvs="];
    let file = at.join(format!("seed-{number}"));
    fs::write(&file, keys[usize::from(number)]).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    file
}

#[test]
fn an_imported_key_waits_where_a_key_signs_that_others_can_verify() {
    let (guard, site) = surroundings::site();
    assert_eq!(postseal(&site, ["dkim", "confirm", "202611e"]).exit_code, 0);
    let answer = import(&site, "old", &seed(guard.path(), 0));
    assert!(answer.exit_code == 0 && answer.out.contains("old waits"), "{answer:?}");
    let state = |selector: &str| keys(&site).into_iter().find(|key| key.selector.as_str() == selector).unwrap().state;
    assert_eq!((state("202611e"), state("old")), (DkimState::Active, DkimState::Generated));
    // Its name in the refusal is the whole command that makes room.
    let refused = import(&site, "older", &seed(guard.path(), 1));
    assert!(refused.err.contains("postseal dkim revoke old._domainkey.example.com"), "{refused:?}");
}

#[test]
fn one_key_signs_for_several_domains_until_others_have_it() {
    let (guard, site) = surroundings::site();
    let settings = site.join("postseal.toml");
    let more = "[[domain]]\nname = \"one.example\"\n[[domain]]\nname = \"two.example\"\n[aliases]";
    fs::write(&settings, fs::read_to_string(&settings).unwrap().replace("[aliases]", more)).unwrap();
    assert_eq!(postseal(&site, ["render"]).exit_code, 0);
    let file = seed(guard.path(), 0);
    let import = |domain: &str| postseal(&site, ["dkim", "import", domain, "shared", file.to_str().unwrap()]);
    assert_eq!((import("example.com").exit_code, import("one.example").exit_code), (0, 0));
    assert_eq!(postseal(&site, ["dkim", "revoke", "shared._domainkey.example.com"]).exit_code, 0);
    let refused = import("two.example");
    assert!(refused.exit_code == 2 && refused.err.contains("which was revoked"), "{refused:?}");
    assert_eq!(postseal(&site, ["fsck"]).exit_code, 0, "the other domain's key is still here");
}

#[test]
fn a_pipe_is_refused_and_not_waited_for() {
    let (guard, site) = surroundings::site();
    succeed(guard.path(), "mkfifo", &["pipe"]);
    for file in [guard.path().join("pipe"), "/dev/zero".into(), guard.path().into()] {
        let answer = import(&site, "mail", &file);
        assert!(answer.exit_code == 2 && answer.err.contains("file-name"), "{answer:?}");
    }
}

/// Adds so many domains, of two keys each.
fn many_domains(site: &Path, count: usize) {
    let settings = site.join("postseal.toml");
    let table = |number| format!("[[domain]]\nname = \"d{number}.example\"\n");
    let tables = (0..count).map(table).collect::<Vec<_>>().concat();
    fs::write(&settings, fs::read_to_string(&settings).unwrap().replace("[aliases]", &(tables + "[aliases]"))).unwrap();
}

fn quick() -> Surroundings {
    Surroundings { same_rsa: true, ..Surroundings::default() }
}

#[test]
fn each_of_many_domains_gets_keys_of_its_own() {
    let (_guard, site) = surroundings::site();
    many_domains(&site, 60);
    let answer = quick().run(&site, ["render"]);
    assert_eq!(answer.exit_code, 0, "{}", answer.err);
    let keys = keys(&site);
    let ed25519 = keys.iter().filter(|key| key.algorithm == DkimAlgorithm::Ed25519);
    let different: BTreeSet<&str> = ed25519.map(|key| key.public.as_str()).collect();
    assert_eq!((keys.len(), different.len()), (122, 61));
    assert!(keys.iter().all(|key| key.state == DkimState::Active));
    assert_eq!(postseal(&site, ["fsck"]).exit_code, 0);
}

#[test]
fn what_was_made_before_a_failure_stays_and_the_same_command_goes_on() {
    let (_guard, site) = surroundings::site();
    many_domains(&site, 60);
    let tired = Surroundings { random_left: Some(40.into()), ..quick() };
    let answer = tired.run(&site, ["render"]);
    let recorded = keys(&site).len() - 2;
    // Whole batches, and what was ready when it failed.
    assert!((64..90).contains(&recorded), "{recorded}");
    assert_eq!(answer.exit_code, 3, "{answer:?}");
    assert!(answer.err.contains(&format!("{recorded} DKIM keys are recorded")), "{recorded}: {}", answer.err);
    assert_eq!(quick().run(&site, ["render"]).exit_code, 0);
    assert_eq!(keys(&site).len(), 122);
    assert_eq!(postseal(&site, ["fsck"]).exit_code, 0);
}

#[test]
fn a_rotation_of_all_that_failed_goes_on_with_those_that_are_left() {
    let (_guard, site) = surroundings::site();
    many_domains(&site, 60);
    assert_eq!(quick().run(&site, ["render"]).exit_code, 0);
    let tired = Surroundings { random_left: Some(40.into()), ..quick() };
    assert_eq!(tired.run(&site, ["dkim", "rotate", "--all"]).exit_code, 3);
    let answer = quick().run(&site, ["dkim", "rotate", "--all"]);
    assert_eq!(answer.exit_code, 0, "{}", answer.err);
    assert!(answer.out.contains("is on its way already"), "{}", answer.out);
    assert_eq!(keys(&site).len(), 244, "each line has one successor");
}
