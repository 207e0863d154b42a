#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
use std::sync::OnceLock;

use pkcs8::der::Encode as _;
use proptest::prelude::*;

use super::*;
use crate::keys::{KeyKind, encode_pem, generate};

fn rsa_key() -> &'static keys::PrivateKey {
    static KEY: OnceLock<keys::PrivateKey> = OnceLock::new();
    KEY.get_or_init(|| generate(KeyKind::Rsa2048).unwrap())
}

fn read(octets: impl Into<Vec<u8>>) -> Result<PrivateHalf, Unusable> {
    PrivateHalf::read(&Secret::new(octets.into()))
}

fn der(tag: Tag, value: &[u8]) -> Vec<u8> {
    AnyRef::new(tag, value).unwrap().to_der().unwrap()
}

/// RFC 8032 §7.1, test 1.
fn seed() -> Vec<u8> {
    crate::names::unhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60").unwrap()
}

fn both() -> Vec<u8> {
    let public = crate::names::unhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a").unwrap();
    [seed(), public].concat()
}

/// PKCS#8 of the Ed25519 key; `public` is whatever stands at its end.
fn ed25519_der(public: &[u8]) -> Vec<u8> {
    let version = [2, 1, u8::from(!public.is_empty())];
    let algorithm = der(Tag::Sequence, &ED25519.to_der().unwrap());
    let key = der(Tag::OctetString, &der(Tag::OctetString, &seed()));
    der(Tag::Sequence, &[version.as_slice(), &algorithm, &key, public].concat())
}

fn pkcs1() -> Vec<u8> {
    items(rsa_key().expose_pkcs8()).unwrap()[2].value().to_vec()
}

/// Every form without variation, each with the algorithm that it is of.
fn forms() -> Vec<(DkimAlgorithm, &'static str, Vec<u8>)> {
    let public = &both()[32..];
    let v2 = ed25519_der(&[&[0x81, 33, 0], public].concat());
    let ring = ed25519_der(&[&[0xa1, 35, 3, 33, 0], public].concat());
    let pkcs8 = rsa_key().expose_pkcs8().to_vec();
    let base64 = |octets: &[u8]| BASE64_STANDARD.encode(octets).into_bytes();
    let pem = |label: &str, octets: &[u8]| encode_pem(label, octets).into_bytes();
    let (rsa, ed25519) = (DkimAlgorithm::Rsa, DkimAlgorithm::Ed25519);
    vec![
        (rsa, "PKCS#8 in PEM", pem("PRIVATE KEY", &pkcs8)),
        (rsa, "PKCS#1 in PEM", pem("RSA PRIVATE KEY", &pkcs1())),
        (rsa, "PKCS#8", pkcs8.clone()),
        (rsa, "PKCS#1", pkcs1()),
        (rsa, "base64 of PKCS#8", base64(&pkcs8)),
        (rsa, "base64 of PKCS#1", base64(&pkcs1())),
        (ed25519, "a seed", seed()),
        (ed25519, "both halves", both()),
        (ed25519, "base64 of a seed", base64(&seed())),
        (ed25519, "base64 of both halves", base64(&both())),
        (ed25519, "PKCS#8", ed25519_der(&[])),
        (ed25519, "PKCS#8 of RFC 5958 with the public half", v2.clone()),
        (ed25519, "PKCS#8 as ring wrote it", ring.clone()),
        (ed25519, "base64 of PKCS#8", base64(&v2)),
        (ed25519, "PKCS#8 in PEM", pem("PRIVATE KEY", &ed25519_der(&[]))),
        (ed25519, "PKCS#8 of RFC 5958 in PEM", pem("PRIVATE KEY", &v2)),
    ]
}

fn expected(algorithm: DkimAlgorithm) -> (String, Vec<u8>) {
    match algorithm {
        DkimAlgorithm::Rsa => {
            let file = rsa_key().to_pem();
            (BASE64_STANDARD.encode(rsa_key().spki_der()), file.expose().to_vec())
        }
        DkimAlgorithm::Ed25519 => {
            (BASE64_STANDARD.encode(&both()[32..]), (BASE64_STANDARD.encode(seed()) + "\n").into_bytes())
        }
    }
}

#[test]
fn every_form_of_a_key_is_the_same_key_in_the_one_form_that_is_kept() {
    for (algorithm, form, octets) in forms() {
        let half = read(octets).unwrap_or_else(|error| panic!("{form}: {error}"));
        let (public, file) = expected(algorithm);
        assert_eq!((half.algorithm(), half.public()), (algorithm, public.as_str()), "{form}");
        assert_eq!(half.file().expose(), file, "{form}");
        assert_eq!(read(half.file().expose()).unwrap(), half, "{form}: what is kept is read as the same");
    }
}

#[test]
fn a_kept_key_tells_its_public_half_and_anything_else_none() {
    let (public, file) = expected(DkimAlgorithm::Rsa);
    assert_eq!(public_half(&Secret::new(file)), Some(public));
    assert_eq!(public_half(&Secret::from("no key".to_owned())), None);
}

#[test]
fn an_rsa_key_is_as_long_as_receivers_take_it() {
    let key = |bits| {
        let key = rsa::PrivateKey::new(&mut getrandom::SysRng, bits).unwrap();
        key.to_pkcs8_der().unwrap().as_bytes().to_vec()
    };
    assert_eq!(read(key(1024)), Err(Unusable::Short(1024)));
    assert_eq!(read(key(2040)), Err(Unusable::Short(2040)));
    // Not every length is a multiple of what libraries like.
    assert_eq!(read(key(2056)).unwrap().bits(), 2056);
}

#[test]
fn an_exponent_is_one_that_is_safe() {
    for number in [3_u64, 17, 32_767, 65_538, (1 << 34) + 1, (1 << 62) + 1] {
        let octets = number.to_be_bytes();
        let exponent = &octets[octets.iter().position(|octet| *octet != 0).unwrap()..];
        let key = pkcs1();
        let mut parts: Vec<Vec<u8>> = items(&key).unwrap().iter().map(|item| item.to_der().unwrap()).collect();
        parts[2] = der(Tag::Integer, exponent);
        assert_eq!(read(der(Tag::Sequence, &parts.concat())), Err(Unusable::Exponent), "{number}");
    }
}

#[test]
fn numbers_that_do_not_belong_together_are_no_rsa_key() {
    let key = pkcs1();
    for part in [1, 3, 4, 5] {
        let mut parts: Vec<Vec<u8>> = items(&key).unwrap().iter().map(|item| item.to_der().unwrap()).collect();
        let middle = parts[part].len() / 2;
        parts[part][middle] ^= 4;
        assert_eq!(read(der(Tag::Sequence, &parts.concat())), Err(Unusable::Apart), "part {part}");
    }
}

#[test]
fn what_is_no_private_key_for_mail_is_called_what_it_is() {
    let pem = |label: &str, octets: &[u8]| encode_pem(label, octets).into_bytes();
    let p256 = generate(KeyKind::P256).unwrap();
    let swapped = [&both()[32..], &seed()].concat();
    let two = [pem("PRIVATE KEY", rsa_key().expose_pkcs8()), pem("RSA PRIVATE KEY", &pkcs1())].concat();
    let mut wrong_v2 = both()[32..].to_vec();
    wrong_v2[5] ^= 1;
    let cases: &[(Vec<u8>, Unusable)] = &[
        (p256.to_pem().expose().to_vec(), Unusable::Kind("a key of an elliptic curve (ECDSA)")),
        (p256.expose_pkcs8().to_vec(), Unusable::Kind("a key of an elliptic curve (ECDSA)")),
        (p256.spki_der().to_vec(), Unusable::PublicOnly("public key")),
        (pem("PUBLIC KEY", rsa_key().spki_der()), Unusable::PublicOnly("public key")),
        (pem("CERTIFICATE", rsa_key().spki_der()), Unusable::PublicOnly("certificate")),
        (pem("ENCRYPTED PRIVATE KEY", b"x"), Unusable::Encrypted),
        (
            b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n".to_vec(),
            Unusable::Encrypted,
        ),
        (pem("DSA PRIVATE KEY", b"x"), Unusable::Kind("a DSA key")),
        (pem("OPENSSH PRIVATE KEY", b"x"), Unusable::Kind("a key for SSH")),
        (swapped, Unusable::Apart),
        (ed25519_der(&[&[0x81, 33, 0], wrong_v2.as_slice()].concat()), Unusable::Apart),
        (two, Unusable::Several),
        (b" \n".to_vec(), Unusable::NoKey("it is empty")),
        (b"correct horse battery staple 123".to_vec(), Unusable::NoKey("it is a line of text")),
        (crate::names::hex(&seed()).into_bytes(), Unusable::NoKey("it is a line of text")),
        (pem("X509 CRL", b"x"), Unusable::NoKey("its PEM text has none")),
        (
            b"-----BEGIN PRIVATE KEY-----\nAAAA\n".to_vec(),
            Unusable::NoKey("a section of its PEM text does not end"),
        ),
    ];
    for (octets, expected) in cases {
        assert_eq!(read(octets.clone()).as_ref(), Err(expected), "{}", String::from_utf8_lossy(octets));
    }
}

#[test]
fn a_refusal_shows_nothing_of_the_key() {
    let half = PrivateHalf::of_seed(&Secret::new(seed())).unwrap();
    assert!(!format!("{half:?}").contains(&BASE64_STANDARD.encode(seed())));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn nothing_around_a_key_changes_it(
        form in any::<prop::sample::Index>(),
        width in 1..200_usize,
        end in prop::sample::select(vec!["\n", "\r\n"]),
        before in prop::sample::select(vec!["", "\n\n", "# signs since 2019\n", "\u{feff}", "Bag Attributes: x=1\n"]),
        behind in prop::sample::select(vec!["", "\n", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"]),
    ) {
        let forms = forms();
        let (algorithm, name, octets) = form.get(&forms);
        let text = String::from_utf8(octets.clone());
        let octets = match text {
            Ok(text) if text.starts_with("-----") => {
                let mut lines: Vec<&str> = text.lines().collect();
                let (first, last) = (lines.remove(0), lines.pop().unwrap());
                let body = lines.concat();
                let wrapped: Vec<&str> = body.as_bytes().chunks(width).map(|line| std::str::from_utf8(line).unwrap()).collect();
                let lines = [&[first], wrapped.as_slice(), &[last, ""]].concat();
                [before, &lines.join(end), behind].concat().into_bytes()
            }
            Ok(text) if name.contains("base64") => {
                let lines: Vec<&str> = text.as_bytes().chunks(width.max(20)).map(|line| std::str::from_utf8(line).unwrap()).collect();
                (lines.join(end) + if width % 2 == 0 { end } else { "" }).into_bytes()
            }
            _ => octets.clone(),
        };
        let half = read(octets).unwrap();
        let (public, _) = expected(*algorithm);
        prop_assert_eq!(half.public(), public.as_str());
    }

    #[test]
    fn whatever_is_changed_in_a_key_it_is_refused_or_signs_as_it_says(
        form in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let forms = forms();
        let mut octets = form.get(&forms).2.clone();
        for (at, octet) in changes {
            let at = at.index(octets.len());
            octets[at] = octet;
        }
        if cut.index(4) == 0 {
            octets.truncate(cut.index(octets.len()));
        }
        match read(octets) {
            Ok(half) => prop_assert_eq!(read(half.file().expose()).unwrap(), half),
            Err(refused) => prop_assert!(!refused.to_string().is_empty() && !refused.mend().is_empty()),
        }
    }

    #[test]
    fn any_octets_are_read_without_panic(octets in prop::collection::vec(any::<u8>(), 0..200), text in "[A-Za-z0-9+/=\n -]{0,100}") {
        let _ = read(octets);
        let _ = read(text);
    }
}
