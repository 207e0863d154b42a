//! The certificate of a logo: a VMC or CMC, which says whose it is by the hash of its octets (RFC 9399).

use std::io::Read as _;

use base64::Engine as _;
use ring::digest;
use time::OffsetDateTime;

use crate::names::{DomainName, shown};
use crate::pki::Certificate;
use crate::policy::svg::LARGEST_DRAWING;

/// What is wrong with a logo's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// In a few words.
    pub problem: String,
    /// How to mend it.
    pub mend: &'static str,
}

/// The certificate of a logo, with its chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// When it begins.
    pub not_before: OffsetDateTime,
    /// When it ends.
    pub not_after: OffsetDateTime,
    names: Vec<String>,
    is_for_marks: bool,
    is_chained: bool,
    /// Algorithms, as the content of their object identifiers, and hashes.
    hashes: Vec<(Vec<u8>, Vec<u8>)>,
    /// The logos that are in it themselves.
    embedded: Vec<Vec<u8>>,
}

/// id-kp-BrandIndicatorforMessageIdentification
const FOR_MARKS: &str = "1.3.6.1.5.5.7.3.31";
/// id-pe-logotype (RFC 9399 §4.1)
const LOGOTYPE: &str = "1.3.6.1.5.5.7.1.12";

const SHA1: &[u8] = &[0x2b, 0x0e, 0x03, 0x02, 0x1a];
const SHA256: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];
const SHA384: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02];
const SHA512: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03];

impl Mark {
    /// Reads a PEM text: the certificate of the logo first, then those that vouch for it.
    ///
    /// # Errors
    /// If it is no PEM, holds no certificate, or one that cannot be read.
    pub fn read(pem: &str) -> Result<Self, Unfit> {
        let mend = "give the chain as its CA delivered it, in PEM, the certificate of the logo first";
        let refuse = |problem: String| Unfit { problem, mend };
        let chain = Certificate::all_from_pem(pem).map_err(|error| refuse(shown(&error.to_string())))?;
        let first = chain.first().ok_or_else(|| refuse("the file holds no certificate".to_owned()))?;
        let unreadable = || refuse("the certificate cannot be read".to_owned());
        let (_, parsed) = x509_parser::parse_x509_certificate(first.der()).map_err(|_| unreadable())?;
        let usage = parsed.extended_key_usage().ok().flatten();
        let is_for_marks =
            usage.is_some_and(|usage| usage.value.other.iter().any(|oid| oid.to_id_string() == FOR_MARKS));
        let mut logos = Logos::default();
        if let Some(found) = parsed.extensions().iter().find(|extension| extension.oid.to_id_string() == LOGOTYPE) {
            logos.read(found.value, 0);
        }
        let facts = first.facts();
        Ok(Self {
            not_before: facts.not_before,
            not_after: facts.not_after,
            names: facts.names.iter().filter_map(|name| name.strip_prefix("dns:")).map(str::to_owned).collect(),
            is_for_marks,
            is_chained: chain.windows(2).all(|pair| matches!(pair, [one, next] if one.is_signed_by(next))),
            hashes: logos.hashes,
            embedded: logos.uris.iter().filter_map(|uri| embedded(uri)).collect(),
        })
    }

    /// Returns what does not fit to a domain and its logo, whatever the time is.
    pub fn misfits(&self, logo: &[u8], domain: &DomainName) -> Vec<Unfit> {
        let mut found = Vec::new();
        let mut unless = |fits: bool, problem: String, mend| {
            if !fits {
                found.push(Unfit { problem, mend });
            }
        };
        let again = "order one for this logo and domain, as a VMC or CMC";
        unless(self.is_for_marks, "the certificate is none for logos (its extended key usage)".to_owned(), again);
        unless(
            self.is_chained,
            "a certificate of the chain is not signed by the next".to_owned(),
            "put the chain into order: the certificate of the logo, what signed it, and so on",
        );
        unless(
            self.names.iter().any(|name| covers(name, domain)),
            format!("the certificate does not name `{domain}`, but: {}", shown(&self.names.join(", "))),
            again,
        );
        unless(!self.hashes.is_empty(), "the certificate has no hash of a logo in it".to_owned(), again);
        unless(
            self.hashes.is_empty() || self.is_of(logo),
            "the certificate is for another logo than this one".to_owned(),
            "publish the very octets that the CA was given, or order a certificate for these",
        );
        found
    }

    /// Tells whether a logo is the one that the certificate vouches for: by its hash, or as the one that is in it.
    fn is_of(&self, logo: &[u8]) -> bool {
        let is_hash = |(algorithm, hash): &(Vec<u8>, Vec<u8>)| {
            let algorithm = match algorithm.as_slice() {
                SHA1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
                SHA256 => &digest::SHA256,
                SHA384 => &digest::SHA384,
                SHA512 => &digest::SHA512,
                _ => return false,
            };
            digest::digest(algorithm, logo).as_ref() == hash.as_slice()
        };
        self.hashes.iter().any(is_hash) || self.embedded.iter().any(|own| own == logo)
    }
}

/// A name covers itself and what is below it; it may name a selector (`SELECTOR._bimi.DOMAIN`).
fn covers(name: &str, domain: &DomainName) -> bool {
    let name = name.to_ascii_lowercase();
    let name = name.split_once("._bimi.").map_or(name.as_str(), |(_, domain)| domain);
    name.parse::<DomainName>().is_ok_and(|name| domain.is_within(&name))
}

/// Returns the logo in a `data:` URI, decompressed if it is compressed; none if there is none, or one beyond all measure.
fn embedded(uri: &str) -> Option<Vec<u8>> {
    let data = uri.strip_prefix("data:image/svg+xml")?.split_once(";base64,")?.1;
    let octets = base64::engine::general_purpose::STANDARD.decode(data).ok()?;
    if !octets.starts_with(&[0x1f, 0x8b]) {
        return Some(octets);
    }
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(octets.as_slice()).take(LARGEST_DRAWING as u64 + 1).read_to_end(&mut plain).ok()?;
    (plain.len() <= LARGEST_DRAWING).then_some(plain)
}

/// What stands in a logotype extension, wherever in its choices.
#[derive(Debug, Default)]
struct Logos {
    hashes: Vec<(Vec<u8>, Vec<u8>)>,
    uris: Vec<String>,
}

/// Tags of DER (X.690).
const OCTETS: u8 = 0x04;
const IDENTIFIER: u8 = 0x06;
const IA5: u8 = 0x16;
const SEQUENCE: u8 = 0x30;
/// The bit of what is made of other elements.
const CONSTRUCTED: u8 = 0x20;

impl Logos {
    /// Reads elements one after the other, and those within. A hash is a SEQUENCE of an algorithm and an OCTET STRING.
    fn read(&mut self, mut text: &[u8], depth: usize) {
        while let Some((tag, content, rest)) = element(text) {
            if tag == SEQUENCE
                && let Some((SEQUENCE, algorithm, behind)) = element(content)
                && let Some((IDENTIFIER, identifier, _)) = element(algorithm)
                && let Some((OCTETS, hash, [])) = element(behind)
            {
                self.hashes.push((identifier.to_vec(), hash.to_vec()));
            } else if tag & CONSTRUCTED != 0 && depth < 16 {
                self.read(content, depth + 1);
            } else if tag == IA5 {
                self.uris.extend(std::str::from_utf8(content).map(str::to_owned));
            }
            text = rest;
        }
    }
}

/// Returns the tag and content of the first element, and what stands behind it.
fn element(text: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = text.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match usize::from(first & 0x7f) {
        short if *first < 0x80 => (short, rest),
        octets @ 1..=4 => {
            let (length, rest) = rest.split_at_checked(octets)?;
            (length.iter().fold(0, |sum, octet| sum << 8 | usize::from(*octet)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGO: &[u8] = b"<svg/>";

    fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let content = parts.concat();
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&[tag, 0x82], &length[..], &content].concat()
    }

    /// A logotype extension: subjectLogo, direct, one image.
    fn extension(hash: &[u8], uri: &str) -> Vec<u8> {
        let algorithm = der(SEQUENCE, &[&der(IDENTIFIER, &[SHA256])]);
        let hash = der(SEQUENCE, &[&algorithm, &der(OCTETS, &[hash])]);
        let details = der(
            SEQUENCE,
            &[
                &der(IA5, &[b"image/svg+xml"]),
                &der(SEQUENCE, &[&hash]),
                &der(SEQUENCE, &[&der(IA5, &[uri.as_bytes()])]),
            ],
        );
        let images = der(SEQUENCE, &[&der(SEQUENCE, &[&details])]);
        der(SEQUENCE, &[&der(0xa2, &[&der(0xa0, &[&images])])])
    }

    fn pem(name: &str, usage: &[u64], extension: Option<Vec<u8>>) -> String {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::Other(usage.to_vec())];
        let oid = [1, 3, 6, 1, 5, 5, 7, 1, 12];
        params.custom_extensions.extend(extension.map(|value| rcgen::CustomExtension::from_oid_content(&oid, value)));
        params.self_signed(&key).unwrap().pem()
    }

    const MARKS: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 3, 31];

    fn problems(pem: &str, domain: &str) -> Vec<String> {
        let found = Mark::read(pem).unwrap().misfits(LOGO, &domain.parse().unwrap());
        found.into_iter().map(|unfit| unfit.problem).collect()
    }

    fn hash(of: &[u8]) -> Vec<u8> {
        digest::digest(&digest::SHA256, of).as_ref().to_vec()
    }

    #[test]
    fn a_certificate_for_the_logo_and_the_domain_fits() {
        let fine = || Some(extension(&hash(LOGO), "https://example.com/logo.svg"));
        assert_eq!(problems(&pem("example.com", MARKS, fine()), "example.com"), Vec::<String>::new());
        assert_eq!(problems(&pem("example.com", MARKS, fine()), "news.example.com"), Vec::<String>::new());
        assert_eq!(problems(&pem("brand._bimi.example.com", MARKS, fine()), "example.com"), Vec::<String>::new());
    }

    #[test]
    fn a_logo_within_the_certificate_is_compared_decompressed() {
        use std::io::Write as _;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(LOGO).unwrap();
        let compressed = encoder.finish().unwrap();
        let data = base64::engine::general_purpose::STANDARD.encode(&compressed);
        let value = extension(&hash(&compressed), &format!("data:image/svg+xml;base64,{data}"));
        assert_eq!(problems(&pem("example.com", MARKS, Some(value)), "example.com"), Vec::<String>::new());
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let fine = || Some(extension(&hash(LOGO), "https://example.com/logo.svg"));
        let told = |pem: String, domain| problems(&pem, domain).concat();
        assert!(told(pem("example.com", MARKS, fine()), "example.org").contains("does not name"));
        assert!(told(pem("www.example.com", MARKS, fine()), "example.com").contains("does not name"));
        assert!(
            told(pem("example.com", &[1, 3, 6, 1, 5, 5, 7, 3, 1], fine()), "example.com").contains("none for logos")
        );
        assert!(told(pem("example.com", MARKS, None), "example.com").contains("no hash"));
        let other = Some(extension(&hash(b"<svg />"), "https://example.com/logo.svg"));
        assert!(told(pem("example.com", MARKS, other), "example.com").contains("another logo"));
        let two = pem("example.com", MARKS, fine()) + &pem("example.net", MARKS, None);
        assert!(told(two, "example.com").contains("not signed by the next"));
        assert!(Mark::read("").is_err());
    }

    #[test]
    fn a_logo_that_unpacks_to_gigabytes_is_not_unpacked() {
        use std::io::Write as _;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(&vec![b' '; LARGEST_DRAWING * 8]).unwrap();
        let data = base64::engine::general_purpose::STANDARD.encode(encoder.finish().unwrap());
        assert_eq!(embedded(&format!("data:image/svg+xml;base64,{data}")), None);
    }

    proptest::proptest! {
        #[test]
        fn any_octets_are_read_without_panic(octets in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            Logos::default().read(&octets, 0);
        }
    }
}
