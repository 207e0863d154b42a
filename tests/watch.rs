//! `server watch`: what an ACME client keeps on a host, as smtpd will read it at its next start.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test plays the ACME client"
)]
#![allow(clippy::indexing_slicing, dead_code)]

#[path = "support/pki.rs"]
mod support;
#[path = "support/surroundings.rs"]
mod surroundings;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, KeyPair};
use surroundings::{Answer, postseal};
use time::macros::datetime;

const LIVE: &str = "etc/letsencrypt/live/mail.example.com";
const ARCHIVE: &str = "etc/letsencrypt/archive/mail.example.com";

/// A site whose host takes its certificate from files, and a directory that stands for the host's root.
struct Host {
    guard: tempfile::TempDir,
    site: PathBuf,
    root: PathBuf,
}

impl Host {
    /// Only root's files are good, so that nobody else can try it.
    fn new() -> Option<Self> {
        if !postseal::host::is_root() {
            support::skip("only root owns what smtpd takes");
            return None;
        }
        let (guard, site) = surroundings::site();
        let files = format!("files = {{ certificate = \"/{LIVE}/fullchain.pem\", key = \"/{LIVE}/privkey.pem\" }}");
        let settings = fs::read_to_string(site.join("postseal.toml")).unwrap();
        let settings = settings.replace("_certificate = \"issued\"", &format!("_certificate.{files}"));
        assert_eq!(settings.matches(&files).count(), 2);
        fs::write(site.join("postseal.toml"), settings).unwrap();
        let root = guard.path().join("root");
        for directory in [LIVE, ARCHIVE] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        Some(Self { guard, site, root })
    }

    fn watch(&self) -> Answer {
        postseal(&self.site, ["server", "watch", "--root", self.root.to_str().unwrap()])
    }

    /// What certbot does at its n-th renewal: new files, and links that lead to them.
    fn renew(&self, n: u8, not_after: time::OffsetDateTime) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["mail.example.com".to_owned()]).unwrap();
        params.not_after = not_after;
        let certificate = params.self_signed(&key).unwrap();
        self.put(&format!("fullchain{n}.pem"), &certificate.pem());
        self.put(&format!("privkey{n}.pem"), &key.serialize_pem());
        for name in ["fullchain", "privkey"] {
            self.link(&format!("{name}.pem"), &format!("../../archive/mail.example.com/{name}{n}.pem"));
        }
    }

    fn put(&self, name: &str, content: &str) {
        let path = self.root.join(ARCHIVE).join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn link(&self, name: &str, target: &str) {
        let link = self.root.join(LIVE).join(name);
        let _ = fs::remove_file(&link);
        symlink(target, link).unwrap();
    }
}

const LATER: time::OffsetDateTime = datetime!(2027-02-22 0:00 UTC);

fn assert_says(answer: &Answer, exit_code: u8, said: &str, restart: bool) {
    assert_eq!(answer.exit_code, exit_code, "{answer:?}");
    assert!(answer.out.contains(said) || answer.err.contains(said), "{said}: {answer:?}");
    assert_eq!(answer.out.contains("now: systemctl restart opensmtpd"), restart, "{answer:?}");
}

#[test]
fn a_renewal_is_told_once_with_what_it_needs() {
    let Some(host) = Host::new() else { return };
    host.renew(1, LATER);
    assert_says(&host.watch(), 0, "is watched from now on, until 2027-02-22", false);
    assert_says(&host.watch(), 0, "is as before", false);
    host.renew(2, LATER);
    assert_says(&host.watch(), 0, "is another certificate than before", true);
    assert_says(&host.watch(), 0, "is as before", false);
    // Below another root another machine is looked at.
    let other = Host { root: host.guard.path().join("other"), ..host };
    for directory in [LIVE, ARCHIVE] {
        fs::create_dir_all(other.root.join(directory)).unwrap();
    }
    other.renew(1, LATER);
    assert_says(&other.watch(), 0, "is watched from now on", false);
}

#[test]
fn a_pair_that_would_kill_smtpd_is_wrong_until_it_is_mended() {
    let Some(host) = Host::new() else { return };
    host.renew(1, LATER);
    host.watch();
    host.renew(2, LATER);
    // The ACME client is half-way.
    host.link("privkey.pem", "../../archive/mail.example.com/privkey1.pem");
    for _ in 0..2 {
        assert_says(&host.watch(), 1, "error[certificate-mismatch]", false);
    }
    host.link("privkey.pem", "../../archive/mail.example.com/privkey2.pem");
    assert_says(&host.watch(), 0, "is another certificate than before", true);
    host.put("privkey2.pem", "no key");
    let unjudged = host.watch();
    assert!(unjudged.exit_code == 0 && unjudged.err.contains("warning[certificate-unjudged]"), "{unjudged:?}");
    fs::set_permissions(host.root.join(ARCHIVE).join("privkey2.pem"), fs::Permissions::from_mode(0o644)).unwrap();
    assert_says(&host.watch(), 1, "error[certificate-owner]", false);
    host.put("fullchain2.pem", "no certificate");
    assert_says(&host.watch(), 1, "error[certificate-file]", false);
}

#[test]
fn a_certificate_that_has_ended_is_wrong() {
    let Some(host) = Host::new() else { return };
    host.renew(1, datetime!(2026-11-24 11:59 UTC));
    let ended = host.watch();
    assert_says(&ended, 1, "error[certificate-expired]", false);
    assert!(!ended.out.contains("watched from now on"), "{ended:?}");
    host.renew(2, LATER);
    assert_says(&host.watch(), 0, "is watched from now on", false);
}

#[test]
fn links_lead_where_the_host_itself_would_find_them_and_never_out_of_the_root() {
    let Some(host) = Host::new() else { return };
    host.renew(1, LATER);
    host.link("fullchain.pem", &format!("/{ARCHIVE}/fullchain1.pem"));
    assert_says(&host.watch(), 0, "is watched from now on", false);
    host.link("fullchain.pem", &format!("../../../../../../../../../../{ARCHIVE}/./fullchain1.pem"));
    assert_says(&host.watch(), 0, "is as before", false);
    // A directory may be a link, too.
    fs::rename(host.root.join("etc/letsencrypt"), host.root.join("var")).unwrap();
    symlink("/var", host.root.join("etc/letsencrypt")).unwrap();
    assert_says(&host.watch(), 0, "is as before", false);
    // For this test itself the link has to lead there, too.
    fs::remove_file(host.root.join("etc/letsencrypt")).unwrap();
    symlink("../var", host.root.join("etc/letsencrypt")).unwrap();
    // What lies outside is not there.
    let outside = host.guard.path().join("outside.pem");
    fs::copy(host.root.join("var/archive/mail.example.com/fullchain1.pem"), &outside).unwrap();
    host.link("fullchain.pem", outside.to_str().unwrap());
    assert_says(&host.watch(), 1, "No such file or directory", false);
    for target in ["fullchain.pem", "/", "..", "fullchain.pem/x", "/etc/letsencrypt"] {
        host.link("fullchain.pem", target);
        assert_says(&host.watch(), 1, "error[certificate-file]", false);
    }
    let pipe = host.root.join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    host.link("fullchain.pem", "/pipe");
    assert_says(&host.watch(), 1, "it is no file of a certificate's size", false);
}

#[test]
fn where_postseal_issues_there_is_nothing_to_watch() {
    let (_guard, site) = surroundings::site();
    let answer = postseal(&site, ["server", "watch"]);
    assert_says(&answer, 0, "there is nothing to watch", false);
}

#[test]
fn what_was_seen_is_in_the_json_too() {
    let Some(host) = Host::new() else { return };
    host.renew(1, LATER);
    host.watch();
    host.renew(2, LATER);
    let root = host.root.to_str().unwrap();
    let answer = postseal(&host.site, ["server", "watch", "--root", root, "--format", "json"]);
    let json: serde_json::Value = serde_json::from_str(&answer.out).unwrap();
    assert_eq!(json["then"], "systemctl restart opensmtpd");
    assert_eq!(json["certificates"][0]["changed"], true);
    assert_eq!(json["certificates"].as_array().unwrap().len(), 1);
    assert!(Path::new(json["certificates"][0]["path"].as_str().unwrap()).is_absolute());
}
