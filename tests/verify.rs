//! What OpenSSL says of the certificates and keys: who is admitted with which trust list, and who is not.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test runs programs and reads the clock"
)]

#[path = "support/pki.rs"]
mod support;

use std::path::Path;

use postseal::keys::{KeyKind, PrivateKey, generate};
use postseal::pki::Certificate;
use postseal::pki::issue::{Authority, placeholder_twin, server};
use postseal::pki::trust::trust_list;
use postseal::secret::Secret;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, SanType};
use support::{Site, have, put, run, serial, succeed, text};

/// Verifies the leaf for a purpose with the trusted list and what the peer sends along.
fn verdict(
    at: &Path,
    purpose: &[&str],
    trusted: &str,
    sent: &[&Certificate],
    leaf: &Certificate,
) -> Result<(), String> {
    put(at, "trusted.pem", trusted);
    put(at, "sent.pem", sent.iter().map(|ca| ca.pem()).collect::<String>());
    put(at, "leaf.pem", leaf.pem());
    let mut arguments = vec!["verify", "-x509_strict", "-no-CApath", "-no-CAstore", "-CAfile", "trusted.pem"];
    if !sent.is_empty() {
        arguments.extend(["-untrusted", "sent.pem"]);
    }
    arguments.extend(purpose);
    arguments.push("leaf.pem");
    let output = run(at, "openssl", &arguments);
    if output.status.success() { Ok(()) } else { Err(text(&output)) }
}

const CLIENT: &[&str] = &["-purpose", "sslclient"];

#[test]
fn a_client_is_admitted_by_its_own_twin_and_by_no_other() {
    if !have("openssl") {
        return;
    }
    let (site, at) = (Site::new(), tempfile::tempdir().unwrap());
    for (n, kind) in [(10, KeyKind::P256), (20, KeyKind::Rsa2048)] {
        let (alice, _) = site.client("alice@example.com", &generate(kind).unwrap(), n);
        let (bob, _) = site.client("bob@example.com", &generate(KeyKind::P256).unwrap(), n + 50);
        let judge = |trusted: &Certificate, sent: &[&Certificate]| {
            verdict(at.path(), CLIENT, &trusted.pem(), sent, &alice.leaf)
        };
        assert_eq!(judge(&alice.twin, &[]), Ok(()));
        assert_eq!(judge(&alice.twin, &[&alice.issuing]), Ok(()));
        assert_eq!(judge(&alice.twin, &[&alice.issuing, &site.ca]), Ok(()));
        assert!(judge(&bob.twin, &[&alice.issuing, &site.ca]).is_err());
        // What the person sees: a chain that ends in the site CA.
        assert_eq!(judge(&site.ca, &[&alice.issuing]), Ok(()));
    }
}

#[test]
fn revoking_one_device_leaves_the_others_admitted() {
    if !have("openssl") {
        return;
    }
    let (site, at) = (Site::new(), tempfile::tempdir().unwrap());
    let key = generate(KeyKind::P256).unwrap();
    let placeholder = placeholder_twin(generate(KeyKind::P256).unwrap(), serial(99), site.now).unwrap();
    let (laptop, _) = site.client("alice@example.com", &key, 10);
    let (phone, _) = site.client("alice@example.com", &key, 20);
    let judge = |list: &str, client: &postseal::pki::issue::PinnedClient| {
        verdict(at.path(), CLIENT, list, &[&client.issuing, &site.ca], &client.leaf).is_ok()
    };
    let both = trust_list([&laptop.twin, &phone.twin], &placeholder).unwrap();
    assert!(judge(&both, &laptop) && judge(&both, &phone));
    let one = trust_list([&phone.twin], &placeholder).unwrap();
    assert!(!judge(&one, &laptop) && judge(&one, &phone));
    let none = trust_list([], &placeholder).unwrap();
    assert!(!judge(&none, &laptop) && !judge(&none, &phone));
}

#[test]
fn a_server_certificate_is_good_for_its_host_only() {
    if !have("openssl") {
        return;
    }
    let (site, at) = (Site::new(), tempfile::tempdir().unwrap());
    let authority = Authority::new(&site.ca, &site.key).unwrap();
    let key = generate(KeyKind::P256).unwrap();
    let made =
        |host: &str| server(&host.parse().unwrap(), key.public(), &authority, serial(5), None, site.now).unwrap();
    let judge = |name: &str, leaf: &Certificate| {
        let purpose = ["-purpose", "sslserver", "-verify_hostname", name];
        verdict(at.path(), &purpose, &site.ca.pem(), &[], leaf)
    };
    assert_eq!(judge("mail.example.com", &made("mail.example.com")), Ok(()));
    assert!(judge("www.example.com", &made("mail.example.com")).is_err());
    let foreign = judge("mail.example.net", &made("mail.example.net")).unwrap_err();
    assert!(foreign.contains("permitted subtree violation"), "{foreign}");
    assert!(verdict(at.path(), CLIENT, &site.ca.pem(), &[], &made("mail.example.com")).is_err());
}

/// Makes what someone could who had got hold of an issuing CA's key.
fn forged(issuing: &Certificate, key: &PrivateKey, san: SanType) -> Certificate {
    let key = rcgen::KeyPair::try_from(key.expose_pkcs8()).unwrap();
    let issuer = Issuer::from_ca_cert_der(&issuing.der().into(), key).unwrap();
    let mut params = CertificateParams::default();
    let facts = issuing.facts();
    (params.not_before, params.not_after) = (facts.not_before, facts.not_after);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationalUnitName, "forged");
    params.is_ca = IsCa::ExplicitNoCa;
    params.subject_alt_names = vec![san];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let leaf_key = rcgen::KeyPair::generate().unwrap();
    Certificate::from_der(params.signed_by(&leaf_key, &issuer).unwrap().der().to_vec()).unwrap()
}

#[test]
fn an_issuing_ca_certifies_its_own_mailbox_and_nothing_else() {
    if !have("openssl") {
        return;
    }
    let (site, at) = (Site::new(), tempfile::tempdir().unwrap());
    let (alice, key) = site.client("alice@example.com", &generate(KeyKind::P256).unwrap(), 10);
    let mail = |name: &str| SanType::Rfc822Name(name.try_into().unwrap());
    let judge = |san, purpose: &str| {
        let leaf = forged(&alice.issuing, &key, san);
        let purpose = ["-purpose", purpose];
        let by_twin = verdict(at.path(), &purpose, &alice.twin.pem(), &[], &leaf);
        assert_eq!(by_twin.is_ok(), verdict(at.path(), &purpose, &site.ca.pem(), &[&alice.issuing], &leaf).is_ok());
        by_twin
    };
    assert_eq!(judge(mail("alice@example.com"), "sslclient"), Ok(()));
    for foreign in ["mallory@example.com", "alice@example.net", "alice@sub.example.com"] {
        let refusal = judge(mail(foreign), "sslclient").unwrap_err();
        assert!(refusal.contains("permitted subtree violation"), "{foreign}: {refusal}");
    }
    let host = SanType::DnsName("mail.example.com".try_into().unwrap());
    assert!(judge(host, "sslserver").unwrap_err().contains("excluded subtree violation"));
    let address = SanType::IpAddress("192.0.2.1".parse().unwrap());
    assert!(judge(address, "sslserver").unwrap_err().contains("excluded subtree violation"));
}

#[test]
fn openssl_opens_an_encrypted_key_and_finds_the_same_public_half() {
    if !have("openssl") {
        return;
    }
    let at = tempfile::tempdir().unwrap();
    for (kind, name) in KeyKind::ALL {
        let key = generate(kind).unwrap();
        let passphrase = Secret::from("correct horse".to_owned());
        put(at.path(), "ca.key", key.encrypt(&passphrase, [7; 16], [9; 16]).unwrap());
        let public = ["pkey", "-in", "ca.key", "-passin", "pass:correct horse", "-pubout", "-outform", "DER"];
        succeed(at.path(), "openssl", &[&public[..], &["-out", "public.der"]].concat());
        assert_eq!(std::fs::read(at.path().join("public.der")).unwrap(), key.spki_der(), "{name}");
        let scheme = succeed(at.path(), "openssl", &["asn1parse", "-in", "ca.key"]);
        assert!(
            scheme.contains(":PBKDF2") && scheme.contains(":aes-256-cbc") && scheme.contains(":0927C0"),
            "{scheme}"
        );
        let wrong = ["pkey", "-in", "ca.key", "-passin", "pass:wrong", "-noout"];
        assert!(!run(at.path(), "openssl", &wrong).status.success());
    }
}

#[test]
fn keys_that_openssl_made_are_read_in_each_of_their_forms() {
    if !have("openssl") {
        return;
    }
    let at = tempfile::tempdir().unwrap();
    for (form, make, kind) in [
        ("PKCS#8", "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out k", KeyKind::P256),
        ("SEC1", "openssl ecparam -name prime256v1 -genkey -noout -out k", KeyKind::P256),
        ("PKCS#1", "openssl genrsa -traditional -out k 2048", KeyKind::Rsa2048),
    ] {
        succeed(at.path(), "sh", &["-c", make]);
        let pem = Secret::new(std::fs::read(at.path().join("k")).unwrap());
        let key = PrivateKey::from_pem(&pem).unwrap_or_else(|error| panic!("{form}: {error}"));
        assert_eq!(key.kind(), kind, "{form}");
        succeed(at.path(), "openssl", &["pkey", "-in", "k", "-pubout", "-outform", "DER", "-out", "public.der"]);
        assert!(key.matches(&std::fs::read(at.path().join("public.der")).unwrap()), "{form}");
    }
    let scrypt = "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -aes256 -pass pass:x -out k";
    succeed(at.path(), "sh", &["-c", scrypt]);
    let pem = std::fs::read_to_string(at.path().join("k")).unwrap();
    assert!(PrivateKey::decrypt(&pem, &Secret::from("x".to_owned())).is_ok());
}
