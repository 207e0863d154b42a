//! A small site of certificates, and programs that judge them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use postseal::keys::{KeyKind, PrivateKey, generate};
use postseal::names::Serial;
use postseal::pki::Certificate;
use postseal::pki::issue::{Authority, ClientRequest, ClientSerials, EmptyCrl, PinnedClient, client, site_ca};
use time::OffsetDateTime;

/// Tells whether the program is there. Without it a test prints that it was skipped, unless `INTEROP=require`.
pub(crate) fn have(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
    if found.is_ok_and(|output| output.status.success()) {
        return true;
    }
    skip(&format!("{program} is not installed"));
    false
}

/// Prints that something was skipped, or fails if `INTEROP=require`.
pub(crate) fn skip(why: &str) {
    assert_ne!(std::env::var("INTEROP").as_deref(), Ok("require"), "{why}");
    println!("skipped: {why}");
}

/// Runs a program in the directory.
pub(crate) fn run(directory: &Path, program: &str, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).current_dir(directory).output().unwrap()
}

/// Runs a program that must succeed; returns what it printed, both streams.
pub(crate) fn succeed(directory: &Path, program: &str, arguments: &[&str]) -> String {
    let output = run(directory, program, arguments);
    let text = text(&output);
    assert!(output.status.success(), "{program} {arguments:?}: {text}");
    text
}

/// Returns both streams.
pub(crate) fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Writes a file into the directory.
pub(crate) fn put(directory: &Path, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, content).unwrap();
    path
}

/// A serial that no other call with another number gives.
pub(crate) fn serial(n: u8) -> Serial {
    Serial::from_random([n; 16])
}

/// A site CA, made now: the programs read the clock.
pub(crate) struct Site {
    pub(crate) key: PrivateKey,
    pub(crate) ca: Certificate,
    pub(crate) now: OffsetDateTime,
}

impl Site {
    pub(crate) fn new() -> Self {
        let (key, now) = (generate(KeyKind::P256).unwrap(), OffsetDateTime::now_utc());
        let hosts = ["mail.example.com".parse().unwrap()];
        let ca = site_ca("Example Mail CA", &hosts, &key, serial(1), now).unwrap();
        Self { key, ca, now }
    }

    /// Makes a pinned client with the serials n, n + 1 and n + 2; also returns the issuing CA's key, which the program wipes.
    pub(crate) fn client(&self, address: &str, key: &PrivateKey, n: u8) -> (PinnedClient, PrivateKey) {
        let (address, device) = (address.parse().unwrap(), "laptop".parse().unwrap());
        let request = ClientRequest { address: &address, device: &device, key: key.public(), days: None };
        let serials = ClientSerials { leaf: serial(n), issuing: serial(n + 1), twin: serial(n + 2) };
        let issuing_key = generate(KeyKind::P256).unwrap();
        let authority = Authority::new(&self.ca, &self.key).unwrap();
        let made = client(&request, issuing_key.clone(), serials, &authority, self.now, EmptyCrl::Omitted).unwrap();
        (made, issuing_key)
    }
}
