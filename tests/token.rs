//! A site CA whose key lives on a PKCS#11 token, with a real one (SoftHSM): OpenSSL judges what it signs. Runs only with the
//! feature: `cargo test --features pkcs11 --test token`.

#![cfg(feature = "pkcs11")]
#![expect(clippy::disallowed_methods, clippy::print_stdout, clippy::unwrap_used, reason = "a test runs programs")]
#![allow(clippy::indexing_slicing, dead_code)]

#[path = "support/pki.rs"]
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use postseal::pki::Certificate;
use support::{have, put, skip};

const PIN: &str = "4711-pin";

/// Where Debian's and Fedora's packages put it.
const MODULES: [&str; 2] = ["/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so"];

/// A module that writes down what another one is asked; of OpenSC's.
const SPIES: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/pkcs11-spy.so",
    "/usr/lib/aarch64-linux-gnu/pkcs11-spy.so",
    "/usr/lib64/pkcs11/pkcs11-spy.so",
];

/// A directory with a token of its own, and a site whose CA is in files.
struct Place {
    guard: tempfile::TempDir,
    module: &'static str,
    /// What the module spies on.
    spied: Option<&'static str>,
}

/// What a program answered.
#[derive(Debug)]
struct Answer {
    code: i32,
    out: String,
    err: String,
}

impl Place {
    /// Makes the token `Mail CA` and the site; nothing where SoftHSM is not installed.
    fn new() -> Option<Self> {
        let module = MODULES.into_iter().find(|module| Path::new(module).exists());
        if module.is_none() {
            skip("SoftHSM is not installed");
        }
        if !["softhsm2-util", "pkcs11-tool", "certtool", "openssl"].map(have).iter().all(|have| *have) {
            return None;
        }
        let place = Self { guard: tempfile::tempdir().unwrap(), module: module?, spied: None };
        fs::create_dir(place.path("tokens")).unwrap();
        let tokens = place.path("tokens");
        put(place.guard.path(), "softhsm2.conf", format!("directories.tokendir = {}\n", tokens.display()));
        for (name, content) in [("pin", PIN), ("wrong", "0000-pin")] {
            put(place.guard.path(), name, format!("{content}\n"));
        }
        place.token("Mail CA");
        place.fine("init example.com --user alice@example.com --address 203.0.113.10");
        Some(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.guard.path().join(name)
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.guard.path()).env("SOFTHSM2_CONF", self.path("softhsm2.conf"));
        command.env("GNUTLS_PIN", PIN).env("NO_COLOR", "1").env_remove("CI");
        if let Some(spied) = self.spied {
            command.env("PKCS11SPY", spied).env("PKCS11SPY_OUTPUT", self.path("spied"));
        }
        command
    }

    fn sh(&self, script: &str) -> String {
        let output = self.command("sh").args(["-ceu", script]).output().unwrap();
        assert!(output.status.success(), "{script}: {}", support::text(&output));
        support::text(&output)
    }

    /// Makes a token.
    fn token(&self, label: &str) {
        self.sh(&format!("softhsm2-util --init-token --free --label '{label}' --so-pin 12345678 --pin {PIN}"));
    }

    /// Makes a key that never leaves the token.
    fn key(&self, label: &str, id: &str, kind: &str) {
        let module = self.module;
        self.sh(&format!(
            "pkcs11-tool --module {module} --token-label 'Mail CA' --login --pin {PIN} --keypairgen --key-type {kind} \
             --label {label} --id {id}"
        ));
    }

    /// Makes the certificate of a CA with that key, as GnuTLS does it.
    fn certificate(&self, label: &str) -> String {
        let template = format!("cn = \"{label} CA\"\nca\ncert_signing_key\ncrl_signing_key\nexpiration_days = 3650\n");
        put(self.guard.path(), "template", template);
        let (module, file) = (self.module, format!("{label}.pem"));
        self.sh(&format!(
            "certtool --provider {module} --generate-self-signed --template template --hash SHA256 --outfile {file} \
             --load-privkey 'pkcs11:token=Mail%20CA;object={label};type=private' \
             --load-pubkey 'pkcs11:token=Mail%20CA;object={label};type=public'"
        ));
        file
    }

    fn uri(&self, token: &str, key: &str) -> String {
        format!("pkcs11:token={token};{key}?module-path={}", self.module)
    }

    fn postseal(&self, arguments: &[&str]) -> Answer {
        let mut command = self.command(env!("CARGO_BIN_EXE_postseal"));
        let output = command.args(["--site", "site"]).args(arguments).output().unwrap();
        let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
        Answer { code: output.status.code().unwrap(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// Runs a command whose words have no blanks, and which must succeed.
    fn fine(&self, line: &str) -> String {
        let answer = self.postseal(&line.split(' ').collect::<Vec<_>>());
        assert_eq!(answer.code, 0, "{line}: {answer:?}");
        answer.out
    }

    fn import(&self, certificate: &str, uri: &str, pin: &str) -> Answer {
        self.postseal(&["ca", "import", "--certificate", certificate, "--token", uri, "--ca-passphrase-file", pin])
    }

    /// A site whose CA has a key of that kind on the token.
    fn with_token(kind: &str) -> Option<Self> {
        let place = Self::new()?;
        place.key("ca", "01", kind);
        let imported = place.import(&place.certificate("ca"), &place.uri("Mail%20CA", "object=ca"), "pin");
        assert_eq!(imported.code, 0, "{imported:?}");
        Some(place)
    }

    fn openssl_verifies(&self, purpose: &str, leaf: &[Certificate]) {
        put(self.guard.path(), "root.pem", self.fine("ca show --pem"));
        put(self.guard.path(), "leaf.pem", leaf[0].pem());
        put(self.guard.path(), "rest.pem", leaf[1..].iter().map(Certificate::pem).collect::<String>());
        self.sh(&format!(
            "openssl verify -x509_strict -no-CApath -no-CAstore -CAfile root.pem -untrusted rest.pem -purpose {purpose} leaf.pem"
        ));
    }

    /// The chain that the host shows.
    fn server(&self) -> Vec<Certificate> {
        let tls = self.path("site/out/mail.example.com/root/etc/mail/postseal/tls");
        let mut files = fs::read_dir(tls).unwrap().map(|entry| entry.unwrap().path());
        let pem = files.find(|path| path.extension().is_some_and(|end| end == "pem")).unwrap();
        Certificate::all_from_pem(&fs::read_to_string(pem).unwrap()).unwrap()
    }

    /// The chain that a person was given.
    fn client(&self, address: &str) -> Vec<Certificate> {
        let script = format!(
            "openssl pkcs12 -nokeys -in site/handout/{address}/default/{address}.p12 \
             -passin file:site/state/passwords/{address}/default.p12-password"
        );
        Certificate::all_from_pem(&self.sh(&script)).unwrap()
    }
}

/// Refused with the code `token`, in these words.
fn assert_refused(answer: &Answer, words: &[&str]) {
    assert!(answer.code == 3 && answer.err.contains("error[token]"), "{answer:?}");
    assert!(words.iter().all(|word| answer.err.contains(word)), "{words:?}: {}", answer.err);
    assert!(!answer.err.contains(PIN) && !answer.err.contains("0000-pin"), "{}", answer.err);
}

fn issues_what_openssl_verifies(kind: &str) {
    let Some(place) = Place::with_token(kind) else { return };
    place.fine("server renew --ca-passphrase-file pin");
    place.fine("user add bob@example.com --ca-passphrase-file pin");
    place.openssl_verifies("sslserver", &place.server());
    place.openssl_verifies("sslclient", &place.client("bob@example.com"));
    // The renewed certificate has the token's key as well, and goes on issuing.
    let before = place.fine("ca show --pem");
    place.fine("ca renew --ca-passphrase-file pin");
    assert_ne!(place.fine("ca show --pem"), before);
    place.openssl_verifies("sslclient", &place.client("bob@example.com"));
    place.fine("user add carol@example.com --ca-passphrase-file pin");
    place.openssl_verifies("sslclient", &place.client("carol@example.com"));
}

#[test]
fn a_p256_key_on_a_token_issues_what_openssl_verifies() {
    issues_what_openssl_verifies("EC:prime256v1");
}

#[test]
fn an_rsa_key_of_2048_bits_on_a_token_issues_what_openssl_verifies() {
    issues_what_openssl_verifies("rsa:2048");
}

#[test]
fn an_rsa_key_of_3072_bits_on_a_token_issues_what_openssl_verifies() {
    issues_what_openssl_verifies("rsa:3072");
}

#[test]
fn a_site_begins_with_a_key_on_a_token() {
    let Some(place) = Place::new() else { return };
    // The token tells EC from RSA, and the public key how long it is.
    for (kind, name, another, told) in [
        ("EC:prime256v1", "p256", "rsa2048", "of the kind rsa2048"),
        ("rsa:2048", "rsa2048", "rsa3072", "--ca-key rsa2048"),
        ("rsa:3072", "rsa3072", "rsa2048", "--ca-key rsa3072"),
    ] {
        place.key(name, "01", kind);
        fs::remove_dir_all(place.path("site")).unwrap();
        let uri = place.uri("Mail%20CA", &format!("object={name}"));
        let init = format!(
            "init example.com --user alice@example.com --address 203.0.113.10 --ca-token {uri} --ca-passphrase-file"
        );
        let words = |pin| init.split(' ').map(str::to_owned).chain([pin]).collect::<Vec<String>>();
        let run = |more: &[&str], pin: &str| {
            let words = words(pin.to_owned());
            place.postseal(&words.iter().map(String::as_str).chain(more.iter().copied()).collect::<Vec<_>>())
        };
        assert_refused(&run(&["--ca-key", name], "wrong"), &["tried once"]);
        assert_refused(&run(&["--ca-key", another], "pin"), &[told]);
        assert!(!place.path("site").exists());
        let made = run(&["--ca-key", name], "pin");
        assert!(made.code == 0 && !made.out.contains("ca.passphrase"), "{made:?}");
        place.openssl_verifies("sslserver", &place.server());
        place.openssl_verifies("sslclient", &place.client("alice@example.com"));
        place.fine("user add bob@example.com --ca-passphrase-file pin");
        place.openssl_verifies("sslclient", &place.client("bob@example.com"));
        assert!(
            files(&place.path("site/state"))
                .iter()
                .all(|(_, content)| !content.windows(9).any(|part| part == b"ENCRYPTED"))
        );
    }
}

#[test]
fn many_certificates_are_issued_side_by_side_with_one_login() {
    let Some(place) = Place::with_token("EC:prime256v1") else { return };
    let list: Vec<String> = (0..40).map(|number| format!("user{number}@example.com\n")).collect();
    put(place.guard.path(), "users.csv", format!("address\n{}", list.concat()));
    place.fine("user import users.csv --ca-passphrase-file pin");
    place.openssl_verifies("sslclient", &place.client("user0@example.com"));
    place.openssl_verifies("sslclient", &place.client("user39@example.com"));
}

#[test]
fn nothing_that_is_kept_here_signs_for_the_ca() {
    let Some(place) = Place::with_token("EC:prime256v1") else { return };
    let wanted = Certificate::from_pem(&place.fine("ca show --pem")).unwrap();
    let passphrase = fs::read_to_string(place.path("site/state/ca.passphrase")).unwrap();
    let passphrase = postseal::secret::Secret::from(passphrase.trim_end().to_owned());
    let mut encrypted = 0;
    for file in fs::read_dir(place.path("site/state/keys")).unwrap() {
        let pem = fs::read_to_string(file.unwrap().path()).unwrap();
        if pem.contains("ENCRYPTED") {
            encrypted += 1;
            let key = postseal::keys::PrivateKey::decrypt(&pem, &passphrase).unwrap();
            assert!(!wanted.belongs_to(&key));
        } else if let Ok(key) = postseal::keys::PrivateKey::from_pem(&pem.into()) {
            assert!(!wanted.belongs_to(&key));
        }
    }
    // That of the CA before it, whose certificate people still have.
    assert_eq!(encrypted, 1);
    let listed = place.sh(&format!(
        "pkcs11-tool --module {} --token-label 'Mail CA' --login --pin {PIN} --list-objects --type privkey",
        place.module
    ));
    assert!(listed.contains("never extractable"), "{listed}");
    // The PIN was given in a file of the administrator's; none of ours has it.
    for (path, content) in files(&place.path("site")) {
        assert!(!content.windows(PIN.len()).any(|part| part == PIN.as_bytes()), "{}", path.display());
    }
}

/// Has the next certificates of clients issued by one CA for all.
fn trust_one_ca(place: &Place) {
    let settings = place.path("site/postseal.toml");
    let text = fs::read_to_string(&settings).unwrap();
    let text = text.replace("# clients.trust = \"pinned\"", "clients.trust = \"ca\"");
    assert!(text.contains("\nclients.trust = \"ca\""), "{text}");
    fs::write(&settings, text).unwrap();
}

fn files(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![(path.clone(), fs::read(path).unwrap())] })
        .collect()
}

/// SoftHSM counts no wrong PIN, so OpenSC's spy between postseal and the module counts what is tried.
#[test]
fn a_wrong_pin_is_tried_once_and_changes_nothing() {
    let Some(mut place) = Place::new() else { return };
    let found = SPIES.into_iter().find(|spy| Path::new(spy).exists());
    let Some(spy) = found else { return skip("OpenSC's spy is not installed") };
    place.key("ca", "01", "EC:prime256v1");
    let certificate = place.certificate("ca");
    place.spied = Some(place.module);
    place.module = spy;
    assert_eq!(place.import(&certificate, &place.uri("Mail%20CA", "object=ca"), "pin").code, 0);
    let logins = || fs::read_to_string(place.path("spied")).unwrap().matches(": C_Login\n").count();
    let (before, logins_before) = (files(&place.path("site/out")), logins());
    let refused = place.postseal(&["user", "add", "bob@example.com", "--ca-passphrase-file", "wrong"]);
    assert_refused(&refused, &["the PIN does not open the token `Mail CA`; it was tried once", "locks itself"]);
    assert_eq!(logins() - logins_before, 1);
    assert_eq!(files(&place.path("site/out")), before);
    assert!(!place.fine("user list").contains("bob@example.com"));
    assert!(!place.path("site/handout/bob@example.com").exists());
    // One is enough for a whole list, too.
    let logins_before = logins();
    put(place.guard.path(), "users.csv", "address\nbob@example.com\ncarol@example.com\ndave@example.com\n");
    place.fine("user import users.csv --ca-passphrase-file pin");
    assert_eq!(logins() - logins_before, 1);
}

#[test]
fn a_kept_passphrase_is_never_tried_as_a_pin_but_a_kept_pin_is() {
    let Some(place) = Place::with_token("EC:prime256v1") else { return };
    let kept = place.path("site/state/ca.passphrase");
    assert!(kept.exists());
    let asked = place.postseal(&["user", "add", "bob@example.com"]);
    assert!(asked.code == 2 && asked.err.contains("error[ca-passphrase]") && asked.err.contains("ca.pin"), "{asked:?}");
    let pin = place.path("site/state/ca.pin");
    fs::write(&pin, format!("{PIN}\n")).unwrap();
    fs::set_permissions(&pin, fs::Permissions::from_mode(0o600)).unwrap();
    place.fine("user add bob@example.com");
    // No template copies it.
    let view = place.fine("user show bob@example.com --format json");
    assert!(!view.contains(PIN), "{view}");
}

#[test]
fn with_one_ca_for_all_the_issuing_ca_stays_in_its_file() {
    let Some(place) = Place::with_token("EC:prime256v1") else { return };
    trust_one_ca(&place);
    place.fine("user add bob@example.com --ca-passphrase-file pin");
    place.openssl_verifies("sslclient", &place.client("bob@example.com"));
    fs::rename(place.path("site/state/ca.passphrase"), place.path("passphrase")).unwrap();
    let lacking = place.postseal(&["user", "add", "carol@example.com", "--ca-passphrase-file", "pin"]);
    assert!(lacking.code == 2 && lacking.err.contains("the issuing CA's passphrase is needed"), "{lacking:?}");
}

#[test]
fn what_is_not_there_or_there_twice_is_told_with_a_mend() {
    let Some(place) = Place::new() else { return };
    place.key("ca", "01", "EC:prime256v1");
    place.key("ca", "02", "EC:prime256v1");
    place.key("other", "03", "EC:prime256v1");
    place.key("rsa", "04", "rsa:2048");
    let certificate = {
        place.key("good", "05", "EC:prime256v1");
        place.certificate("good")
    };
    let import = |uri: &str| place.import(&certificate, uri, "pin");
    let uri = |key: &str| place.uri("Mail%20CA", key);
    assert_refused(
        &import("pkcs11:token=a;object=b?module-path=/nowhere/lib.so"),
        &["`/nowhere/lib.so`", "module-path="],
    );
    assert_refused(&import("pkcs11:token=a;object=b?module-path=/usr/bin/env"), &["`/usr/bin/env`"]);
    assert_refused(&import(&place.uri("Other", "object=ca")), &["there is no token `Other`", "--list-slots"]);
    assert_refused(&import(&uri("object=nothing")), &["no private key", "--list-objects"]);
    assert_refused(&import(&uri("object=ca")), &["2 private keys", "id=%01"]);
    assert_refused(&import(&uri("object=rsa")), &["of the kind p256"]);
    assert_refused(&import(&uri("object=other")), &["is not that of the certificate"]);
    assert_refused(&import(&uri("object=ca;id=%02")), &["is not that of the certificate"]);
    assert_refused(&place.import(&certificate, &uri("object=good"), "wrong"), &["tried once"]);
    assert!(!place.fine("ca show").contains("good CA"));
    place.token("Mail CA");
    assert_refused(&import(&uri("object=good")), &["2 tokens", "serial="]);
}

#[test]
fn without_a_module_that_of_the_system_is_asked() {
    let Some(place) = Place::new() else { return };
    place.key("ca", "01", "EC:prime256v1");
    let imported = place.import(&place.certificate("ca"), "pkcs11:token=Mail%20CA;object=ca", "pin");
    assert_eq!(imported.code, 0, "{imported:?}");
    place.fine("user add bob@example.com --ca-passphrase-file pin");
}

#[test]
fn a_token_that_is_pulled_later_is_told_and_put_back_works_again() {
    let Some(place) = Place::with_token("EC:prime256v1") else { return };
    fs::rename(place.path("tokens"), place.path("pulled")).unwrap();
    fs::create_dir(place.path("tokens")).unwrap();
    let refused = place.postseal(&["user", "add", "bob@example.com", "--ca-passphrase-file", "pin"]);
    assert_refused(&refused, &["there is no token `Mail CA`"]);
    // What signs nothing needs no token.
    place.fine("user list");
    place.fine("render");
    fs::remove_dir(place.path("tokens")).unwrap();
    fs::rename(place.path("pulled"), place.path("tokens")).unwrap();
    place.fine("user add bob@example.com --ca-passphrase-file pin");
}
