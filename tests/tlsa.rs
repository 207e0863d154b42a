//! `tlsa` and `ds`, compared with what OpenSSL and BIND's own programs say of the same files.
//!
//! A program that is missing skips its test, unless INTEROP=require.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    dead_code,
    missing_docs
)]
#![allow(clippy::disallowed_methods, reason = "a test makes keys with other programs")]

#[path = "support/surroundings.rs"]
mod surroundings;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use postseal::keys::{KeyKind, encode_pem, generate};
use postseal::names::Digest;
use surroundings::{Answer, postseal};

/// Runs a program in a directory; none if it is not installed.
fn run(directory: &Path, program: &str, arguments: &[&str]) -> Option<String> {
    match Command::new(program).args(arguments).current_dir(directory).output() {
        Ok(output) => {
            assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
            Some(String::from_utf8(output.stdout).unwrap())
        }
        Err(error) => {
            let required = std::env::var("INTEROP").is_ok_and(|value| value == "require");
            assert!(!required, "{program}: {error}");
            println!("skipped: {program} not installed");
            None
        }
    }
}

fn ask(command: &str, file: &Path) -> Answer {
    postseal(Path::new("."), [command, file.to_str().unwrap(), "--format", "json"])
}

fn json(answer: &Answer) -> serde_json::Value {
    assert_eq!(answer.exit_code, 0, "{answer:?}");
    serde_json::from_str(&answer.out).unwrap()
}

#[test]
fn openssl_agrees_on_the_digest_of_a_certificates_key_and_the_chain_behind_it_does_not_matter() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    for (name, kind) in [("ec", ["EC", "ec_paramgen_curve:P-256"]), ("rsa", ["RSA", "rsa_keygen_bits:2048"])] {
        let made = ["genpkey", "-algorithm", kind[0], "-pkeyopt", kind[1], "-out", "key"];
        let Some(_) = run(at, "openssl", &made) else { return };
        run(at, "openssl", &["req", "-x509", "-key", "key", "-subj", "/CN=mx.example.com", "-out", "certificate"]);
        run(at, "openssl", &["pkey", "-in", "key", "-pubout", "-out", "public"]);
        run(at, "openssl", &["pkey", "-in", "key", "-pubout", "-outform", "DER", "-out", "der"]);
        let digest = Digest::of(&fs::read(at.join("der")).unwrap()).to_string();
        let other = fs::read_to_string("golden/debian-minimal/postseal.lock").unwrap();
        let other = &other[other.find("-----BEGIN").unwrap()..];
        let other = &other[..other.find("\"\"\"").unwrap()];
        let chain = fs::read_to_string(at.join("certificate")).unwrap() + other;
        fs::write(at.join("chain"), chain).unwrap();
        for file in ["certificate", "chain", "public"] {
            let told = json(&ask("tlsa", &at.join(file)));
            assert_eq!(told["spki_sha256"], digest, "{name} {file}");
            assert_eq!(told["record"], format!("3 1 1 {digest}"));
            assert_eq!(told["setting"], format!("mx_spki = [\"{digest}\"]"));
        }
    }
}

#[test]
fn a_private_key_is_refused_and_nothing_of_it_told() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("key");
    let key = generate(KeyKind::P256).unwrap();
    let pem = key.to_pem();
    let body = pem.expose_str().unwrap().lines().nth(1).unwrap().to_owned();
    for text in
        [pem.expose_str().unwrap().to_owned(), encode_pem("PUBLIC KEY", key.spki_der()) + pem.expose_str().unwrap()]
    {
        fs::write(&file, text).unwrap();
        for command in ["tlsa", "ds"] {
            let answer = ask(command, &file);
            assert_eq!(answer.exit_code, 2, "{answer:?}");
            assert!(!format!("{answer:?}").contains(&body) && answer.err.contains("holds a private key"), "{answer:?}");
        }
    }
}

#[test]
fn dnssec_dsfromkey_makes_the_same_ds_and_cds_records_of_every_algorithm() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    for (algorithm, advice) in [
        ("ECDSAP256SHA256", "a good choice."),
        ("ECDSAP384SHA384", "fine; "),
        ("ED25519", "a good choice."),
        ("RSASHA256", "fine; "),
        ("RSASHA512", "not for new keys; "),
    ] {
        let bits: &[&str] = if algorithm.starts_with("RSA") { &["-b", "2048"] } else { &[] };
        let made = [&["-q", "-K", ".", "-a", algorithm, "-f", "KSK"], bits, &["Example.com"]].concat();
        let Some(name) = run(at, "dnssec-keygen", &made) else { return };
        let file: PathBuf = at.join(format!("{}.key", name.trim()));
        let told = json(&ask("ds", &file));
        let key = &told["keys"][0];
        assert!(key["advice"].as_str().unwrap().starts_with(advice), "{algorithm}: {key}");
        let theirs = run(at, "dnssec-dsfromkey", &["-2", file.to_str().unwrap()]).unwrap();
        let content = theirs.trim().split_once(" IN DS ").unwrap().1;
        assert_eq!(key["ds"], content, "{algorithm}");
        let public = fs::read_to_string(&file).unwrap();
        let record = public.lines().find(|line| !line.starts_with(';')).unwrap();
        let (_, key_data) = record.split_once("DNSKEY ").unwrap();
        assert_eq!(key["cdnskey"].as_str().unwrap().replace(' ', ""), key_data.replace(' ', ""), "{algorithm}");
        assert_eq!(key["zone"], "example.com.");
    }
    // Of a whole zone, the keys that sign keys and no others.
    let made = ["-q", "-K", ".", "-a", "ED25519", "example.com"];
    run(at, "dnssec-keygen", &made);
    let all = fs::read_dir(at).unwrap().map(|entry| entry.unwrap().path());
    let all = all.filter(|path| path.extension().is_some_and(|end| end == "key"));
    let zone: String = all.map(|path| fs::read_to_string(path).unwrap()).collect();
    fs::write(at.join("zone"), zone).unwrap();
    assert_eq!(json(&ask("ds", &at.join("zone")))["keys"].as_array().unwrap().len(), 5);
}
