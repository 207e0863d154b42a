//! Certificate requests that other programs make, honest and hostile: of an honest one the key is taken, and nothing else.

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
use std::path::Path;

use postseal::pki::Certificate;
use postseal::pki::request::{MAXIMUM_REQUEST, public_key};
use support::{have, put, succeed};
use surroundings::{Answer, postseal};

/// Runs a script that must succeed.
fn sh(at: &Path, script: &str) {
    succeed(at, "sh", &["-ceu", script]);
}

const EC: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256";

/// Makes a request with OpenSSL: subject, lines of the extensions, and how the key is made.
fn openssl(at: &Path, key: &str, subject: &str, extensions: &str) -> Vec<u8> {
    let config = format!("[req]\ndistinguished_name=dn\nreq_extensions=more\n[dn]\n[more]\n{extensions}\n");
    let config = if extensions.is_empty() { config.replace("req_extensions=more\n", "") } else { config };
    put(at, "req.cnf", config);
    sh(at, &format!("openssl req -new {key} -nodes -keyout key.pem -out req.pem -config req.cnf -subj '{subject}'"));
    fs::read(at.join("req.pem")).unwrap()
}

/// The key of the request that OpenSSL finds in a file.
fn key_of(at: &Path, name: &str, form: &str) -> Vec<u8> {
    sh(
        at,
        &format!(
            "openssl req -in {name} -inform {form} -noout -pubkey | openssl pkey -pubin -outform DER -out key.der"
        ),
    );
    fs::read(at.join("key.der")).unwrap()
}

fn taken(request: &[u8]) -> Result<Vec<u8>, String> {
    let taken = public_key(request, &"alice@example.com".parse().unwrap());
    taken.map(|key| key.spki_der().to_vec()).map_err(|refusal| refusal.problem)
}

#[test]
fn of_a_request_of_openssl_the_key_is_taken() {
    if !have("openssl") {
        return;
    }
    let at = tempfile::tempdir().unwrap();
    let at = at.path();
    for (key, subject, extensions) in [
        (EC, "/", ""),
        (EC, "/CN=Alice Example", "subjectKeyIdentifier=hash\nnsCertType=client,email"),
        (EC, "/CN=alice@example.com/emailAddress=Alice@Example.COM", "subjectAltName=email:alice@example.com"),
        ("-newkey rsa:2048", "/C=DE/O=Example/CN=alice", "basicConstraints=CA:FALSE\nkeyUsage=digitalSignature"),
        ("-newkey rsa:3072 -sha512", "/CN=alice", "extendedKeyUsage=clientAuth"),
    ] {
        let request = openssl(at, key, subject, extensions);
        let of = format!("{key} {subject} {extensions}");
        assert_eq!(taken(&request), Ok(key_of(at, "req.pem", "PEM")), "{of}");
        sh(at, "openssl req -in req.pem -outform DER -out req.der; openssl req -in req.pem -text -out text.pem");
        assert_eq!(taken(&fs::read(at.join("req.der")).unwrap()), Ok(key_of(at, "req.pem", "PEM")), "{of}, in DER");
        assert_eq!(taken(&fs::read(at.join("text.pem")).unwrap()), Ok(key_of(at, "req.pem", "PEM")), "{of}, with text");
    }
}

#[test]
fn of_a_request_of_certtool_the_key_is_taken() {
    if !(have("certtool") && have("openssl")) {
        return;
    }
    let at = tempfile::tempdir().unwrap();
    let at = at.path();
    put(at, "template", "cn = \"Alice\"\nemail = \"alice@example.com\"\ntls_www_client\nsigning_key\n");
    for kind in ["--key-type ecdsa --curve secp256r1", "--key-type rsa --bits 2048", "--key-type rsa --bits 3072"] {
        sh(at, &format!("certtool --generate-privkey {kind} --outfile key.pem"));
        sh(at, "certtool --generate-request --load-privkey key.pem --template template --outfile req.pem");
        let request = fs::read(at.join("req.pem")).unwrap();
        assert!(String::from_utf8_lossy(&request).contains("BEGIN NEW CERTIFICATE REQUEST"));
        assert_eq!(taken(&request), Ok(key_of(at, "req.pem", "PEM")), "{kind}");
    }
}

#[test]
fn of_a_request_of_certutil_the_key_is_taken() {
    if !(have("certutil") && have("openssl")) {
        return;
    }
    let at = tempfile::tempdir().unwrap();
    let at = at.path();
    sh(at, "mkdir db; certutil -N -d db --empty-password; head -c 64 /dev/urandom >noise");
    for (kind, more) in [("-k ec -q nistp256", "-7 alice@example.com"), ("-k rsa -g 2048", "")] {
        let make = format!("certutil -R -d db -z noise -s 'CN=Alice Example,E=alice@example.com' {kind} {more}");
        sh(at, &format!("{make} -a -o req.pem; {make} -o req.der"));
        for (name, form) in [("req.pem", "PEM"), ("req.der", "DER")] {
            assert_eq!(taken(&fs::read(at.join(name)).unwrap()), Ok(key_of(at, name, form)), "{kind} {form}");
        }
    }
}

#[test]
fn a_request_for_anything_but_the_address_is_refused() {
    if !have("openssl") {
        return;
    }
    let at = tempfile::tempdir().unwrap();
    for (subject, extensions, said) in [
        ("/CN=bob@example.com", "", "`bob@example.com` in its subject"),
        ("/CN=alice@example.com/CN=bob@example.com", "", "`bob@example.com` in its subject"),
        ("/CN=alice@example.com/emailAddress=bob@example.com", "", "`bob@example.com` in its subject"),
        ("/emailAddress=alice", "", "`alice` in its subject"),
        ("/CN=Alice <alice@example.com>", "", "in its subject"),
        ("/OU=x/UID=ceo@example.net", "", "`ceo@example.net` in its subject"),
        ("/", "subjectAltName=email:bob@example.com", "`bob@example.com` in its subjectAltName"),
        (
            "/",
            "subjectAltName=email:alice@example.com,email:bob@example.com",
            "`bob@example.com` in its subjectAltName",
        ),
        ("/", "subjectAltName=DNS:mail.example.com", "mail.example.com)` in"),
        ("/", "subjectAltName=IP:192.0.2.1", "in its subjectAltName"),
        ("/", "subjectAltName=URI:https://example.com/", "in its subjectAltName"),
        ("/", "subjectAltName=otherName:1.3.6.1.4.1.311.20.2.3;UTF8:bob@example.com", "in its subjectAltName"),
        ("/", "subjectAltName=RID:1.2.3.4", "in its subjectAltName"),
        ("/", "basicConstraints=CA:TRUE", "CA:TRUE"),
        ("/", "basicConstraints=critical,CA:TRUE,pathlen:0", "CA:TRUE"),
        ("/", "keyUsage=digitalSignature,keyCertSign", "keyCertSign"),
        ("/", "keyUsage=cRLSign", "cRLSign"),
        ("/", "subjectAltName=DER:30:03:81:7f:61", "does not parse"),
    ] {
        let refused = taken(&openssl(at.path(), EC, subject, extensions)).unwrap_err();
        assert!(refused.contains(said), "{subject} {extensions}: {refused}");
    }
}

#[test]
fn a_request_for_a_key_of_another_kind_is_refused() {
    if !have("openssl") {
        return;
    }
    let at = tempfile::tempdir().unwrap();
    for (key, said) in [
        ("-newkey ec -pkeyopt ec_paramgen_curve:P-384", "an elliptic curve of 384 bits"),
        ("-newkey ec -pkeyopt ec_paramgen_curve:secp256k1", "an elliptic curve other than P-256"),
        ("-newkey ec -pkeyopt ec_paramgen_curve:P-256 -pkeyopt ec_param_enc:explicit", "cannot be used"),
        ("-newkey ed25519", "is Ed25519"),
        ("-newkey ed448", "is Ed448"),
        ("-newkey rsa:1024", "RSA with 1024 bits"),
        ("-newkey rsa:4096", "RSA with 4096 bits"),
        ("-newkey rsa:2048 -pkeyopt rsa_keygen_pubexp:3", "RSA with a small exponent"),
        ("-newkey rsa:2048 -sigopt rsa_padding_mode:pss", "signed in a way that postseal does not verify"),
        ("-newkey rsa-pss -pkeyopt rsa_keygen_bits:2048", "is RSA-PSS"),
    ] {
        let refused = taken(&openssl(at.path(), key, "/", "")).unwrap_err();
        let or = said == "cannot be used" && refused.contains("other than P-256");
        assert!(refused.contains(said) || or, "{key}: {refused}");
    }
}

#[test]
fn a_request_that_was_changed_or_is_not_alone_is_refused() {
    if !have("openssl") {
        return;
    }
    let at = tempfile::tempdir().unwrap();
    let at = at.path();
    let pem = openssl(at, EC, "/CN=Alice", "subjectAltName=email:alice@example.com");
    sh(at, "openssl req -in req.pem -outform DER -out req.der");
    let other = openssl(at, EC, "/CN=Alice", "");
    sh(at, "openssl req -x509 -key key.pem -out cert.pem -config req.cnf -subj /CN=x");
    let der = fs::read(at.join("req.der")).unwrap();
    assert!(taken(&pem).is_ok() && taken(&der).is_ok());
    let joined = |parts: &[&[u8]]| taken(&parts.concat());
    let key = fs::read(at.join("key.pem")).unwrap();
    for parts in [&[&pem, &other][..], &[&pem, &pem], &[&pem, &key], &[&key, &pem]] {
        let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_slice()).collect();
        assert!(joined(&parts).unwrap_err().contains("more than one"), "{parts:?}");
    }
    assert!(joined(&[&der, b"\0"]).is_err() && joined(&[&der, &der]).is_err() && joined(&[b""]).is_err());
    assert!(taken(&key).is_err() && taken(&fs::read(at.join("cert.pem")).unwrap()).is_err());
    assert!(joined(&[&pem, &vec![b'\n'; MAXIMUM_REQUEST]]).unwrap_err().contains("too long"));
    // Whatever octet is changed, the request is no longer what its key signed; the name of the signature's algorithm is not
    // signed, nor is the head of the signature, and how those are written may not matter.
    let algorithm = [0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
    let unsigned = der.windows(12).rposition(|part| part == algorithm).unwrap();
    for at in 0..der.len() {
        for bit in [0x01, 0x80] {
            let mut changed = der.clone();
            changed[at] ^= bit;
            let got = taken(&changed);
            let same = (unsigned..unsigned + 15).contains(&at) && got == taken(&der);
            assert!(got.is_err() || same, "octet {at} ^ {bit:#x}");
        }
    }
}

#[test]
fn somebody_elses_key_cannot_be_had_certified() {
    if !have("openssl") {
        return;
    }
    let at = tempfile::tempdir().unwrap();
    let at = at.path();
    openssl(at, EC, "/", "");
    sh(at, "openssl req -in req.pem -outform DER -out one.der");
    openssl(at, EC, "/", "");
    sh(at, "openssl req -in req.pem -outform DER -out other.der");
    let (one, other) = (fs::read(at.join("one.der")).unwrap(), fs::read(at.join("other.der")).unwrap());
    // The SubjectPublicKeyInfo of the other within the first: as long, at the same place.
    let head = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00];
    let place = |der: &[u8]| der.windows(head.len()).position(|part| part == head).unwrap() + head.len();
    let mut forged = one.clone();
    forged[place(&one)..place(&one) + 65].copy_from_slice(&other[place(&other)..place(&other) + 65]);
    assert!(taken(&forged).unwrap_err().contains("not signed by the key"));
}

fn add(site: &Path, address: &str, device: &str, csr: &Path) -> Answer {
    postseal(site, ["user", "add", address, "--device", device, "--csr", csr.to_str().unwrap()])
}

#[test]
fn who_made_the_key_is_given_the_certificate_with_its_chain_and_no_p12() {
    if !have("openssl") {
        return;
    }
    let (guard, site) = surroundings::site();
    let at = guard.path();
    openssl(at, "-newkey rsa:2048", "/CN=Bob", "subjectKeyIdentifier=hash");
    let csr = at.join("req.pem");
    let answer = add(&site, "bob@example.com", "laptop", &csr);
    assert_eq!(answer.exit_code, 0, "{answer:?}");
    let handout = site.join("handout/bob@example.com/laptop");
    let mut names: Vec<_> = fs::read_dir(&handout).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["bob@example.com.pem", "site-ca.pem"]);
    assert!(!answer.out.contains(".p12") && !site.join("state/passwords/bob@example.com/laptop.p12-password").exists());
    let chain = Certificate::all_from_pem(&fs::read_to_string(handout.join("bob@example.com.pem")).unwrap()).unwrap();
    assert_eq!(chain.len(), 3);
    assert_eq!(chain[0].facts().spki, key_of(at, "req.pem", "PEM"));
    assert_eq!(chain[0].facts().names, ["email:bob@example.com"]);
    assert!(chain[0].facts().subject.starts_with("CN=bob@example.com, OU=laptop"), "{}", chain[0].facts().subject);
    // The person joins key and chain themselves, and OpenSSL admits the certificate by its twin.
    put(at, "leaf.pem", chain[0].pem());
    let listed = site.join("out/mail.example.com/root/etc/mail/postseal/clients.pem");
    let verify =
        ["verify", "-attime", "1795521600", "-purpose", "sslclient", "-CAfile", listed.to_str().unwrap(), "leaf.pem"];
    succeed(at, "openssl", &verify);
    let chain = handout.join("bob@example.com.pem");
    let bundle = ["pkcs12", "-export", "-inkey", "key.pem", "-passout", "pass:x", "-out", "bob.p12", "-in"];
    succeed(at, "openssl", &[&bundle[..], &[chain.to_str().unwrap()]].concat());
    // A renewal certifies the same key, for no other is known here.
    assert_eq!(postseal(&site, ["user", "renew", "bob@example.com"]).exit_code, 0);
    let renewed = Certificate::from_pem(&fs::read_to_string(&chain).unwrap()).unwrap();
    assert_eq!(renewed.facts().spki, key_of(at, "req.pem", "PEM"));
    assert!(!handout.join("bob@example.com.p12").exists());
    // Another device may have the same key; another person may not.
    assert_eq!(add(&site, "bob@example.com", "phone", &csr).exit_code, 0);
    let refused = add(&site, "carol@example.com", "laptop", &csr);
    assert!(refused.err.contains("csr-key-taken") && refused.err.contains("`bob@example.com`"), "{refused:?}");
    // Who saw the key has it on every device: none of them stays, and it is certified no more.
    let revoke = ["user", "revoke", "bob@example.com", "--device", "phone", "--reason", "compromised"];
    let revoked = postseal(&site, revoke);
    assert!(revoked.out.contains("no certificate of bob@example.com is left"), "{revoked:?}");
    assert!(add(&site, "bob@example.com", "desk", &csr).err.contains("csr-key-taken"));
    // Nor when the first is gone.
    assert_eq!(postseal(&site, ["user", "remove", "bob@example.com"]).exit_code, 0);
    assert!(add(&site, "carol@example.com", "laptop", &csr).err.contains("csr-key-taken"));
}

#[test]
fn a_refused_request_changes_nothing() {
    let (guard, site) = surroundings::site();
    let before = surroundings::snapshot(&site);
    let csr =
        put(guard.path(), "csr", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n");
    let refused = add(&site, "bob@example.com", "laptop", &csr);
    assert!(refused.exit_code == 2 && refused.err.contains("csr-refused"), "{refused:?}");
    let missing = add(&site, "bob@example.com", "laptop", &guard.path().join("missing"));
    assert!(missing.exit_code == 2 && missing.err.contains("no-such-file"), "{missing:?}");
    let endless = add(&site, "bob@example.com", "laptop", Path::new("/dev/zero"));
    assert!(endless.exit_code == 2 && endless.err.contains("65536 octets"), "{endless:?}");
    for more in [["--key", "p256"].as_slice(), &["--apple"]] {
        let line = [&["user", "add", "bob@example.com", "--csr", "x"][..], more].concat();
        assert_eq!(postseal(&site, line).exit_code, 2);
    }
    assert_eq!(surroundings::snapshot(&site), before);
}
