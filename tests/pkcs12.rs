//! The matrix of .p12 files: two protections, two kinds of key, read by NSS (Thunderbird), OpenSSL, GnuTLS and pyca.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test runs programs and reads the clock"
)]

#[path = "support/pki.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use postseal::keys::{KeyKind, generate};
use postseal::names::hex;
use postseal::pki::bundle::{Bundle, BundleSalts, Protection};
use postseal::secret::Secret;
use support::{Site, have, put, run, skip, succeed, text};

const PASSWORD: &str = "mPq7-Zr4t-8xKc \"$'\\";
const NICKNAME: &str = "alice@example.com (laptop)";

/// A bundle on disk, with what it should hold.
struct Sample {
    title: String,
    file: PathBuf,
    leaf: Vec<u8>,
    pkcs8: Vec<u8>,
}

/// Writes one bundle of each protection and kind of key.
fn samples(at: &Path) -> Vec<Sample> {
    let site = Site::new();
    let mut samples = Vec::new();
    for (kind, n) in [(KeyKind::P256, 10), (KeyKind::Rsa2048, 20)] {
        let key = generate(kind).unwrap();
        let (made, _) = site.client("alice@example.com", &key, n);
        for protection in [Protection::Modern, Protection::Apple] {
            let chain = [&made.issuing, &site.ca];
            let bundle = Bundle { key: &key, leaf: &made.leaf, chain: &chain, friendly_name: NICKNAME };
            let salts = BundleSalts::from_random(std::array::from_fn(|i| u8::try_from(i).unwrap() ^ n));
            let file = bundle.encode(protection, &Secret::from(PASSWORD.to_owned()), &salts).unwrap();
            let title = format!("{kind}-{protection:?}");
            let path = put(at, &format!("{title}.p12"), file.expose());
            let (leaf, pkcs8) = (made.leaf.der().to_vec(), key.expose_pkcs8().to_vec());
            samples.push(Sample { title, file: path, leaf, pkcs8 });
        }
    }
    samples
}

#[test]
fn openssl_reads_the_key_and_three_certificates() {
    if !have("openssl") {
        return;
    }
    let at = tempfile::tempdir().unwrap();
    put(at.path(), "password", PASSWORD);
    for sample in samples(at.path()) {
        let file = sample.file.to_str().unwrap();
        let arguments = ["pkcs12", "-in", file, "-passin", "file:password", "-nodes", "-info"];
        let text = succeed(at.path(), "openssl", &arguments);
        assert_eq!(text.matches("BEGIN CERTIFICATE").count(), 3, "{}", sample.title);
        assert_eq!(text.matches("BEGIN PRIVATE KEY").count(), 1, "{}", sample.title);
        assert_eq!(text.matches(&format!("friendlyName: {NICKNAME}")).count(), 2, "{}: {text}", sample.title);
        let expected = if sample.title.ends_with("Modern") {
            ["MAC: sha256, Iteration 10000", "AES-256-CBC, Iteration 10000, PRF hmacWithSHA256"]
        } else {
            ["MAC: sha1, Iteration 10000", "pbeWithSHA1And3-KeyTripleDES-CBC, Iteration 10000"]
        };
        assert!(expected.iter().all(|part| text.contains(part)), "{}: {text}", sample.title);
        let wrong = run(at.path(), "openssl", &["pkcs12", "-in", file, "-passin", "pass:wrong", "-noout"]);
        assert!(!wrong.status.success(), "{}", sample.title);
    }
}

#[test]
fn openssl_sees_every_derivation_iterated_as_was_asked_for() {
    if !have("openssl") {
        return;
    }
    let (at, site, key) = (tempfile::tempdir().unwrap(), Site::new(), generate(KeyKind::P256).unwrap());
    let (made, _) = site.client("alice@example.com", &key, 10);
    let bundle = Bundle { key: &key, leaf: &made.leaf, chain: &[&made.issuing, &site.ca], friendly_name: NICKNAME };
    for protection in [Protection::Modern, Protection::Apple] {
        let (password, salts) = (Secret::from(PASSWORD.to_owned()), BundleSalts::from_random([7; 72]));
        let file = bundle.encode_iterated(protection, &password, &salts, 2048).unwrap();
        put(at.path(), "bundle.p12", file.expose());
        let pass = format!("pass:{PASSWORD}");
        let arguments = ["pkcs12", "-in", "bundle.p12", "-passin", &pass, "-nodes", "-info", "-legacy"];
        let text = succeed(at.path(), "openssl", &arguments);
        // MAC, key and certificates.
        assert_eq!(text.matches("Iteration 2048").count(), 3, "{protection:?}: {text}");
    }
}

#[test]
fn nss_imports_the_certificate_under_its_nickname_with_its_key() {
    import_into_nss(None);
}

#[test]
fn the_nss_of_thunderbird_imports_it_too() {
    match std::env::var("POSTSEAL_THUNDERBIRD_LIB") {
        Ok(library) => import_into_nss(Some(&library)),
        Err(_) => println!("skipped: POSTSEAL_THUNDERBIRD_LIB does not name Thunderbird's libraries"),
    }
}

fn import_into_nss(library: Option<&str>) {
    if !have("pk12util") || !have("certutil") {
        return;
    }
    let at = tempfile::tempdir().unwrap();
    put(at.path(), "password", PASSWORD);
    put(at.path(), "empty", "\n");
    let nss = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(at.path());
        library.map(|library| command.env("LD_LIBRARY_PATH", library));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{program} {arguments:?}: {}", text(&output));
        text(&output)
    };
    for sample in samples(at.path()) {
        let store = format!("sql:{}", sample.title);
        std::fs::create_dir(at.path().join(&sample.title)).unwrap();
        nss("certutil", &["-N", "-d", &store, "--empty-password"]);
        let file = sample.file.to_str().unwrap();
        nss("pk12util", &["-i", file, "-d", &store, "-w", "password", "-k", "empty"]);
        let list = nss("certutil", &["-L", "-d", &store]);
        let row = list.lines().find(|line| line.starts_with(NICKNAME)).unwrap_or_else(|| panic!("{list}"));
        assert!(row.trim_end().ends_with("u,u,u"), "{}: {list}", sample.title);
        assert_eq!(list.lines().filter(|line| line.trim_end().ends_with(",,")).count(), 2, "{}: {list}", sample.title);
        let keys = nss("certutil", &["-K", "-d", &store]);
        assert!(keys.contains(NICKNAME) && !keys.contains("orphan"), "{}: {keys}", sample.title);
    }
}

#[test]
fn gnutls_reads_every_bag() {
    if !have("certtool") {
        return;
    }
    let at = tempfile::tempdir().unwrap();
    for sample in samples(at.path()) {
        let file = sample.file.to_str().unwrap();
        let text = succeed(at.path(), "certtool", &["--p12-info", "--inder", "--infile", file, "--password", PASSWORD]);
        assert_eq!(text.matches("BEGIN CERTIFICATE").count(), 3, "{}: {text}", sample.title);
        assert!(text.contains("PRIVATE KEY"), "{}: {text}", sample.title);
        assert_eq!(text.matches(&format!("Friendly name: {NICKNAME}")).count(), 2, "{}: {text}", sample.title);
    }
}

#[test]
fn pyca_finds_key_leaf_name_and_chain() {
    const SCRIPT: &str = "\
import sys
from cryptography.hazmat.primitives import serialization as s
from cryptography.hazmat.primitives.serialization import pkcs12
p = pkcs12.load_pkcs12(open(sys.argv[1], 'rb').read(), sys.argv[2].encode())
public = lambda k: k.public_bytes(s.Encoding.DER, s.PublicFormat.SubjectPublicKeyInfo)
own = s.load_der_private_key(bytes.fromhex(sys.argv[3]), None)
assert public(p.key.public_key()) == public(own.public_key()) == public(p.cert.certificate.public_key())
print(p.cert.certificate.public_bytes(s.Encoding.DER).hex())
print(p.cert.friendly_name.decode())
print(len(p.additional_certs))
";
    let in_lab = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/lab-venv/bin/python3");
    let python = if in_lab.exists() { in_lab.to_str().unwrap() } else { "python3" };
    if !have(python) {
        return;
    }
    let at = tempfile::tempdir().unwrap();
    if !run(at.path(), python, &["-c", "import cryptography"]).status.success() {
        return skip("python3 has no cryptography");
    }
    for sample in samples(at.path()) {
        let file = sample.file.to_str().unwrap();
        let printed = succeed(at.path(), python, &["-W", "ignore", "-c", SCRIPT, file, PASSWORD, &hex(&sample.pkcs8)]);
        let expected = format!("{}\n{NICKNAME}\n2\n", hex(&sample.leaf));
        assert_eq!(printed, expected, "{}", sample.title);
    }
}

#[test]
fn equal_input_gives_equal_bundles_in_which_no_key_can_be_read() {
    let site = Site::new();
    let key = generate(KeyKind::P256).unwrap();
    let (made, _) = site.client("alice@example.com", &key, 10);
    let bundle = Bundle { key: &key, leaf: &made.leaf, chain: &[&made.issuing], friendly_name: NICKNAME };
    let salts = BundleSalts::from_random([3; 72]);
    for protection in [Protection::Modern, Protection::Apple] {
        let encode = || bundle.encode(protection, &Secret::from(PASSWORD.to_owned()), &salts).unwrap();
        assert!(encode() == encode());
        assert!(!encode().expose().windows(32).any(|part| key.expose_pkcs8().windows(32).any(|own| own == part)));
    }
    let stranger = generate(KeyKind::P256).unwrap();
    let wrong = Bundle { key: &stranger, ..bundle };
    assert!(wrong.encode(Protection::Modern, &Secret::from(PASSWORD.to_owned()), &salts).is_err());
}
