//! Logos of a site: read from `bimi/`, kept by a backup, and refused where they would lead elsewhere.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, dead_code, missing_docs)]
#![allow(clippy::disallowed_methods, reason = "a test makes a site's files")]

#[path = "support/surroundings.rs"]
mod surroundings;

use std::fs;
use std::path::Path;

use surroundings::{postseal, site};

/// Makes a certificate for a logo of example.org, as a CA for marks would: subjectLogo, direct, one image (RFC 9399 §4.1).
fn certificate(logo: &str) -> String {
    let der = |tag: u8, parts: &[&[u8]]| {
        let content = parts.concat();
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&[tag, 0x82], &length[..], &content].concat()
    };
    let sha256 = [0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];
    let digest: postseal::names::Digest = postseal::names::Digest::of(logo.as_bytes());
    let hash = der(0x30, &[&der(0x30, &[&der(0x06, &[&sha256])]), &der(0x04, &[digest.octets()])]);
    let uri = der(0x30, &[&der(0x16, &[b"https://example.org/logo.svg"])]);
    let details = der(0x30, &[&der(0x16, &[b"image/svg+xml"]), &der(0x30, &[&hash]), &uri]);
    let images = der(0x30, &[&der(0x30, &[&details])]);
    let extension = der(0x30, &[&der(0xa2, &[&der(0xa0, &[&images])])]);
    let mut params = rcgen::CertificateParams::new(vec!["example.org".to_owned()]).unwrap();
    params.not_before = time::macros::datetime!(2026-01-01 0:00 UTC);
    params.not_after = time::macros::datetime!(2027-01-01 0:00 UTC);
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::Other(vec![1, 3, 6, 1, 5, 5, 7, 3, 31])];
    params.custom_extensions = vec![rcgen::CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 12], extension)];
    params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
}

const LOGO: &str = r##"<svg xmlns="http://www.w3.org/2000/svg" version="1.2" baseProfile="tiny-ps" viewBox="0 0 64 64">
  <title>Example</title>
  <path d="M8 8h48v48z" fill="#0067b9"/>
</svg>
"##;

fn with_logo(site: &Path) {
    let settings = fs::read_to_string(site.join("postseal.toml")).unwrap();
    let more = "[[domain]]\nname = \"example.org\"\nbimi.logo = { file = \"logo.svg\", certificate = \"vmc.pem\", base = \"https://www.example.org/\" }\n[aliases]";
    fs::write(site.join("postseal.toml"), settings.replace("[aliases]", more)).unwrap();
    fs::create_dir(site.join("bimi")).unwrap();
    fs::write(site.join("bimi/logo.svg"), LOGO).unwrap();
    fs::write(site.join("bimi/vmc.pem"), certificate(LOGO)).unwrap();
}

#[test]
fn a_site_with_a_logo_that_conforms_is_rendered() {
    let (_guard, site) = site();
    with_logo(&site);
    let answer = postseal(&site, ["render"]);
    assert_eq!(answer.exit_code, 0, "{}", answer.err);
}

#[test]
fn a_logo_behind_a_link_is_refused() {
    let (_guard, site) = site();
    with_logo(&site);
    for (name, to) in [("bimi/logo.svg", "../state/ca.passphrase"), ("bimi/vmc.pem", "../state/ca.passphrase")] {
        let kept = fs::read(site.join(name)).unwrap();
        fs::remove_file(site.join(name)).unwrap();
        std::os::unix::fs::symlink(to, site.join(name)).unwrap();
        let answer = postseal(&site, ["render"]);
        assert_eq!(answer.exit_code, 2, "{}", answer.err);
        assert!(answer.err.contains(name), "{}", answer.err);
        fs::remove_file(site.join(name)).unwrap();
        fs::write(site.join(name), kept).unwrap();
    }
}

#[test]
fn a_backup_has_the_logo() {
    let (guard, site) = site();
    with_logo(&site);
    fs::write(guard.path().join("secret"), "correct horse battery\n").unwrap();
    let secret = guard.path().join("secret");
    let (archive, other) = (guard.path().join("site.age"), guard.path().join("other"));
    let options = ["--passphrase-file", secret.to_str().unwrap()];
    let answer = postseal(&site, ["backup", archive.to_str().unwrap()].into_iter().chain(options));
    assert_eq!(answer.exit_code, 0, "{}", answer.err);
    let answer = postseal(&other, ["restore", archive.to_str().unwrap()].into_iter().chain(options));
    assert_eq!(answer.exit_code, 0, "{}", answer.err);
    assert_eq!(fs::read_to_string(other.join("bimi/logo.svg")).unwrap(), LOGO);
}

#[test]
fn a_drawing_is_replaced_only_by_what_conforms() {
    let (guard, site) = site();
    let place = guard.path().join("drawing.svg");
    let path = place.to_str().unwrap();
    let drawing = LOGO.replace("version=\"1.2\" baseProfile=\"tiny-ps\"", "version='1.1'");
    let bad = drawing.replace("<path", "<g opacity='.5'/><path");
    fs::write(&place, &bad).unwrap();
    assert_eq!(postseal(&site, ["svg", "fix", "--in-place", path]).exit_code, 1);
    assert_eq!(fs::read_to_string(&place).unwrap(), bad);
    fs::write(&place, &drawing).unwrap();
    assert_eq!(postseal(&site, ["svg", "fix", "--in-place", path]).exit_code, 0);
    assert_eq!(fs::read_to_string(&place).unwrap(), LOGO);
    assert_eq!(postseal(&site, ["svg", "check", path]).exit_code, 0);
}

#[test]
fn a_certificate_for_another_logo_is_refused_before_anything_is_rendered() {
    let (_guard, site) = site();
    with_logo(&site);
    fs::write(site.join("bimi/logo.svg"), LOGO.replace("Example", "Other")).unwrap();
    let answer = postseal(&site, ["render"]);
    assert_eq!(answer.exit_code, 2, "{}", answer.err);
    assert!(answer.err.contains("bimi-certificate") && answer.err.contains("another logo"), "{}", answer.err);
}

#[test]
fn the_dates_of_a_certificate_are_judged_by_svg_check_and_not_by_render() {
    let (_guard, site) = site();
    with_logo(&site);
    let (logo, certificate) = (site.join("bimi/logo.svg"), site.join("bimi/vmc.pem"));
    let line = [
        "svg",
        "check",
        logo.to_str().unwrap(),
        "--domain",
        "example.org",
        "--certificate",
        certificate.to_str().unwrap(),
    ];
    assert_eq!(postseal(&site, line).exit_code, 0);
    let later = || surroundings::Surroundings {
        now: time::macros::datetime!(2027-01-02 0:00 UTC),
        ..surroundings::Surroundings::default()
    };
    let answer = later().run(&site, line);
    assert!(answer.exit_code == 1 && answer.err.contains("ended on 2027-01-01"), "{answer:?}");
    assert_eq!(later().run(&site, ["render"]).exit_code, 0);
}
