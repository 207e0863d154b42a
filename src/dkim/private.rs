//! The private half of a DKIM key: every form in which it may come from elsewhere, and the one that is kept of each kind.
//!
//! Rspamd reads more forms than any one release does reliably; kept are PKCS#8 in PEM for RSA and the seed in base64 for
//! Ed25519, which every Rspamd from 3.4 on reads.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use pkcs8::der::asn1::AnyRef;
use pkcs8::der::{Decode as _, Reader as _, SliceReader, Tag, Tagged as _};
use pkcs8::{EncodePrivateKey as _, EncodePublicKey as _, ObjectIdentifier};
use rsa::pkcs1::RsaPrivateKeyRef;
use rsa::traits::SignatureScheme as _;
use zeroize::Zeroizing;

use crate::inventory::DkimAlgorithm;
use crate::keys;
use crate::secret::Secret;

/// No key with all that may stand around it is longer, in octets.
pub const MAXIMUM_FILE: usize = 64 << 10;

/// The least and the most bits of an RSA key: signers use 2,048 at least, and not every verifier takes more than 4,096
/// (RFC 8301 §3.2).
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;

/// The least public exponent (FIPS 186-5 §5.1), and the most that verifiers take.
const EXPONENTS: std::ops::RangeInclusive<u64> = 65_537..=(1 << 33) - 1;

/// rsaEncryption (RFC 8017 §A.1), id-Ed25519 (RFC 8410 §3).
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// What else a key may be, by its algorithm.
const OTHER_KINDS: [(ObjectIdentifier, &str); 7] = [
    (ObjectIdentifier::new_unwrap("1.2.840.10045.2.1"), "a key of an elliptic curve (ECDSA)"),
    (ObjectIdentifier::new_unwrap("1.2.840.10040.4.1"), "a DSA key"),
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10"), "a key for RSA-PSS"),
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.3.1"), "a Diffie-Hellman key"),
    (ObjectIdentifier::new_unwrap("1.3.101.110"), "an X25519 key"),
    (ObjectIdentifier::new_unwrap("1.3.101.111"), "an X448 key"),
    (ObjectIdentifier::new_unwrap("1.3.101.113"), "an Ed448 key"),
];

/// Why a file gives no key to sign with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// An RSA key is too short.
    #[error("it is an RSA key of {0} bits; receivers refuse, or soon will, what is shorter than 2048")]
    Short(usize),
    /// An RSA key is too long.
    #[error("it is an RSA key of {0} bits; not every receiver takes more than 4096")]
    Long(usize),
    /// An RSA key's public exponent is none that is safe and taken everywhere.
    #[error("it is an RSA key whose public exponent is even, below 65537 or of more than 33 bits")]
    Exponent,
    /// The key is of a kind that DKIM does not know.
    #[error("it is {0}; mail is signed with RSA or Ed25519 keys")]
    Kind(&'static str),
    /// The key is encrypted.
    #[error("the key is encrypted")]
    Encrypted,
    /// Only the public half is there.
    #[error("it holds a {0}, and no private key")]
    PublicOnly(&'static str),
    /// The halves do not belong together.
    #[error("its private and its public half do not belong together")]
    Apart,
    /// There is more than one key.
    #[error("it holds more than one private key")]
    Several,
    /// Nothing of it is a key.
    #[error("it holds no private key: {0}")]
    NoKey(&'static str),
}

impl Unusable {
    /// Says what to do about it.
    pub fn mend(&self) -> &'static str {
        match self {
            Self::Short(_) | Self::Long(_) | Self::Exponent => {
                "leave it where it is, publish a key that postseal makes beside it, and change over once every name server has that"
            }
            Self::Kind(_) => "name the file of the RSA or Ed25519 key that signs now",
            Self::Encrypted => {
                "decrypt it where nobody else can read it: (umask 077; openssl pkey -in OLD -out NEW), and import NEW"
            }
            Self::PublicOnly(_) => "name the file of the private key that belongs to it",
            Self::Apart => "bring the file back from a backup, or write it anew with the program that made it",
            Self::Several => "write the key that signs now into a file of its own",
            Self::NoKey(_) => {
                "name a file with an RSA or Ed25519 key: PEM, DER, base64, or the 32 or 64 octets of an Ed25519 key"
            }
        }
    }
}

/// A private key that mail can be signed with, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrivateHalf {
    algorithm: DkimAlgorithm,
    bits: usize,
    public: String,
    file: Secret,
}

impl PrivateHalf {
    /// Reads a key in whatever form it has: RSA as PKCS#1 or PKCS#8, and Ed25519 as PKCS#8 (RFC 5958, RFC 8410), in PEM with
    /// anything around it, in DER, or as base64 of that; an Ed25519 seed, with or without its public half behind it, in 32 or 64
    /// octets or in their base64. That an RSA key can sign is tried.
    ///
    /// # Errors
    /// [`Unusable`].
    pub fn read(file: &Secret) -> Result<Self, Unusable> {
        let octets = file.expose();
        let octets = octets.strip_prefix(b"\xef\xbb\xbf").unwrap_or(octets);
        if octets.trim_ascii().is_empty() {
            return Err(Unusable::NoKey("it is empty"));
        }
        if is_pem(octets) {
            return Self::of_pem(octets);
        }
        if let Some(read) = Self::of_raw(octets) {
            return read;
        }
        if octets.first() == Some(&0x30) && !octets.is_ascii() {
            return Self::of_der(octets);
        }
        let Some(decoded) = decode(octets) else {
            return Err(Unusable::NoKey("it is neither PEM, nor DER, nor base64"));
        };
        Self::of_raw(decoded.expose()).unwrap_or_else(|| Self::of_der(decoded.expose()))
    }

    /// Makes one of the seed of an Ed25519 key, of 32 octets (RFC 8032 §5.1.5).
    ///
    /// # Errors
    /// [`Unusable::NoKey`] if it has another length.
    pub fn of_seed(seed: &Secret) -> Result<Self, Unusable> {
        let public = keys::ed25519_public(seed).map_err(|_| Unusable::NoKey("an Ed25519 key has 32 octets"))?;
        let public = BASE64_STANDARD.encode(public);
        Ok(Self { algorithm: DkimAlgorithm::Ed25519, bits: 256, public, file: seed_file(seed) })
    }

    /// Returns the algorithm.
    pub fn algorithm(&self) -> DkimAlgorithm {
        self.algorithm
    }

    /// Returns the length of the modulus, or of an Ed25519 key, in bits.
    pub fn bits(&self) -> usize {
        self.bits
    }

    /// Returns the public half as the `p=` tag of its record has it: the SubjectPublicKeyInfo of an RSA key (RFC 6376 §3.6.1), the
    /// 32 octets of an Ed25519 key (RFC 8463 §4), in base64.
    pub fn public(&self) -> &str {
        &self.public
    }

    /// Returns the file that is kept, and that Rspamd reads.
    pub fn file(&self) -> &Secret {
        &self.file
    }

    /// Takes the file and the public half.
    pub fn into_parts(self) -> (Secret, String) {
        (self.file, self.public)
    }

    /// Reads an Ed25519 key that is nothing but its octets; none if there are neither 32 nor 64.
    fn of_raw(octets: &[u8]) -> Option<Result<Self, Unusable>> {
        let (seed, public) = match octets.len() {
            32 => (octets, None),
            64 => octets.split_at_checked(32).map(|(seed, public)| (seed, Some(public)))?,
            _ => return None,
        };
        // Random octets never are: it is a password, or a key in hexadecimal.
        if octets.iter().all(|octet| (b' '..=b'~').contains(octet)) {
            return Some(Err(Unusable::NoKey("it is a line of text")));
        }
        Some(Self::of_ed25519(seed, public))
    }

    fn of_ed25519(seed: &[u8], public: Option<&[u8]>) -> Result<Self, Unusable> {
        let half = Self::of_seed(&Secret::new(seed.to_vec()))?;
        if public.is_some_and(|public| BASE64_STANDARD.encode(public) != half.public) {
            return Err(Unusable::Apart);
        }
        Ok(half)
    }

    fn of_pem(text: &[u8]) -> Result<Self, Unusable> {
        let mut found: Option<Result<Self, Unusable>> = None;
        let mut public = None;
        for section in sections(text)? {
            let key = match section.label {
                b"PRIVATE KEY" | b"RSA PRIVATE KEY" if section.is_encrypted => Err(Unusable::Encrypted),
                b"PRIVATE KEY" | b"RSA PRIVATE KEY" => {
                    let der =
                        decode(section.body).ok_or(Unusable::NoKey("what it has between BEGIN and END is no base64"));
                    der.and_then(|der| Self::of_der(der.expose()))
                }
                b"ENCRYPTED PRIVATE KEY" => Err(Unusable::Encrypted),
                b"EC PRIVATE KEY" => Err(Unusable::Kind("a key of an elliptic curve (ECDSA)")),
                b"DSA PRIVATE KEY" => Err(Unusable::Kind("a DSA key")),
                b"OPENSSH PRIVATE KEY" => Err(Unusable::Kind("a key for SSH")),
                b"PUBLIC KEY" | b"RSA PUBLIC KEY" => {
                    public = public.or(Some("public key"));
                    continue;
                }
                b"CERTIFICATE" => {
                    public = public.or(Some("certificate"));
                    continue;
                }
                _ => continue,
            };
            if found.is_some() {
                return Err(Unusable::Several);
            }
            found = Some(key);
        }
        let nothing = public.map_or(Unusable::NoKey("its PEM text has none"), Unusable::PublicOnly);
        found.unwrap_or(Err(nothing))
    }

    fn of_der(der: &[u8]) -> Result<Self, Unusable> {
        let broken = Unusable::NoKey("it is no whole DER, as if it were cut off or changed");
        let items = items(der).ok_or(broken.clone())?;
        let tags: Vec<Tag> = items.iter().map(AnyRef::tag).collect();
        match (items.as_slice(), tags.as_slice()) {
            ([_, algorithm, key, more @ ..], [Tag::Integer, Tag::Sequence, Tag::OctetString, ..]) => {
                Self::of_pkcs8(*algorithm, key.value(), more)
            }
            (_, [Tag::Integer, Tag::Integer] | [Tag::Sequence, Tag::BitString]) => {
                Err(Unusable::PublicOnly("public key"))
            }
            (_, [Tag::Integer, Tag::Integer, ..]) if tags.len() == 6 => Err(Unusable::Kind("a DSA key")),
            (_, [Tag::Integer, Tag::Integer, ..]) => Self::of_pkcs1(der),
            (_, [Tag::Integer, Tag::OctetString, ..]) => Err(Unusable::Kind("a key of an elliptic curve (ECDSA)")),
            (_, [Tag::Sequence, Tag::OctetString]) => Err(Unusable::Encrypted),
            (_, [Tag::Sequence, Tag::Sequence, Tag::BitString]) => Err(Unusable::PublicOnly("certificate")),
            _ => Err(broken),
        }
    }

    /// Reads the parts of a OneAsymmetricKey (RFC 5958 §2).
    fn of_pkcs8(algorithm: AnyRef<'_>, key: &[u8], more: &[AnyRef<'_>]) -> Result<Self, Unusable> {
        let unknown = Unusable::Kind("a key of an unknown algorithm");
        let algorithm =
            SliceReader::new(algorithm.value()).and_then(|mut reader| ObjectIdentifier::decode(&mut reader));
        let algorithm = algorithm.map_err(|_| unknown.clone())?;
        if algorithm == RSA_ENCRYPTION {
            return Self::of_pkcs1(key);
        }
        if algorithm != ED25519 {
            let kind = OTHER_KINDS.iter().find(|(known, _)| *known == algorithm);
            return Err(kind.map_or(unknown, |(_, kind)| Unusable::Kind(kind)));
        }
        let seed = AnyRef::from_der(key).ok().filter(|seed| seed.tag() == Tag::OctetString && seed.value().len() == 32);
        let seed = seed.ok_or(Unusable::NoKey("an Ed25519 key has 32 octets"))?;
        let is_public = |item: &&AnyRef<'_>| item.tag().number().value() == 1 && item.tag().is_context_specific();
        let public = more.iter().find(is_public).map(|public| match AnyRef::from_der(public.value()) {
            // As older releases of ring write it: a BIT STRING inside, where RFC 5958 has one in its place.
            Ok(inside) if public.tag().is_constructed() => inside.value(),
            _ => public.value(),
        });
        // Before the octets stands how many bits of the last one are not used.
        Self::of_ed25519(seed.value(), public.map(|public| public.strip_prefix(&[0]).unwrap_or(public)))
    }

    fn of_pkcs1(der: &[u8]) -> Result<Self, Unusable> {
        let parts = RsaPrivateKeyRef::from_der(der).map_err(|_| Unusable::NoKey("its RSA key is not whole"))?;
        let bits = bit_length(parts.modulus.as_bytes());
        if bits < *RSA_BITS.start() {
            return Err(Unusable::Short(bits));
        }
        if bits > *RSA_BITS.end() {
            return Err(Unusable::Long(bits));
        }
        let exponent = parts.public_exponent.as_bytes();
        let number = exponent.iter().fold(0_u64, |number, octet| (number << 8) | u64::from(*octet));
        if exponent.len() > 8 || !EXPONENTS.contains(&number) || number % 2 == 0 {
            return Err(Unusable::Exponent);
        }
        if parts.other_prime_infos.is_some() {
            return Err(Unusable::Kind("an RSA key of more than two primes"));
        }
        let key = rsa::PrivateKey::try_from(parts).map_err(|_| Unusable::Apart)?;
        // Numbers that fit together may still be no primes; a signature that is not one shows it.
        let unblinded: Option<&mut getrandom::SysRng> = None;
        rsa::Pkcs1v15Sign::new_unprefixed().sign(unblinded, &key, &[0x5a; 32]).map_err(|_| Unusable::Apart)?;
        let public = key.to_public_key().to_public_key_der().map_err(|_| Unusable::Apart)?;
        let private = key.to_pkcs8_der().map_err(|_| Unusable::Apart)?;
        let public = BASE64_STANDARD.encode(public.as_bytes());
        let file = keys::encode_pem("PRIVATE KEY", private.as_bytes()).into();
        drop((key, private));
        keys::overwrite_freed();
        Ok(Self { algorithm: DkimAlgorithm::Rsa, bits, public, file })
    }
}

/// Returns the public half of a key that is kept, or of what should be one; none if it is no key.
pub fn public_half(file: &Secret) -> Option<String> {
    PrivateHalf::read(file).ok().map(|half| half.public)
}

/// Returns the one form of an Ed25519 key that Rspamd reads from 3.4 on: base64 of the seed. It reads PEM from 3.13.2 on only.
fn seed_file(seed: &Secret) -> Secret {
    let mut text = Vec::with_capacity(64);
    text.resize(44, 0);
    // 32 octets are 44 characters; the room is there.
    let written = BASE64_STANDARD.encode_slice(seed.expose(), &mut text).unwrap_or_default();
    text.truncate(written);
    text.push(b'\n');
    Secret::new(text)
}

fn bit_length(octets: &[u8]) -> usize {
    let octets = octets.iter().position(|octet| *octet != 0).and_then(|first| octets.get(first..)).unwrap_or_default();
    octets.first().map_or(0, |first| octets.len() * 8 - usize::try_from(first.leading_zeros()).unwrap_or_default())
}

/// Returns what stands in a DER SEQUENCE that goes on to the last octet.
fn items(der: &[u8]) -> Option<Vec<AnyRef<'_>>> {
    let whole = AnyRef::from_der(der).ok().filter(|whole| whole.tag() == Tag::Sequence)?;
    let mut reader = SliceReader::new(whole.value()).ok()?;
    let mut items = Vec::new();
    while !reader.is_finished() {
        items.push(AnyRef::decode(&mut reader).ok()?);
    }
    Some(items)
}

/// Decodes base64 in one line or several. Everything of it lies in buffers of their final size, which are wiped.
fn decode(text: &[u8]) -> Option<Secret> {
    let mut plain = Zeroizing::new(Vec::with_capacity(text.len()));
    plain.extend(text.iter().filter(|octet| !octet.is_ascii_whitespace()));
    let mut octets = Zeroizing::new(vec![0; text.len() / 4 * 3 + 3]);
    let length = BASE64_STANDARD.decode_slice(plain.as_slice(), octets.as_mut_slice()).ok()?;
    octets.get(..length).filter(|octets| !octets.is_empty()).map(|octets| Secret::new(octets.to_vec()))
}

/// One section of a PEM text (RFC 7468), or of one with headers (RFC 1421 §4.6).
struct Section<'t> {
    label: &'t [u8],
    body: &'t [u8],
    is_encrypted: bool,
}

const BEGIN: &[u8] = b"-----BEGIN ";

fn label<'t>(line: &'t [u8], edge: &[u8]) -> Option<&'t [u8]> {
    line.trim_ascii().strip_prefix(edge)?.strip_suffix(b"-----")
}

fn is_pem(text: &[u8]) -> bool {
    text.split(|octet| *octet == b'\n').any(|line| label(line, BEGIN).is_some())
}

/// Reads the sections, whatever stands between them. (What `keys` has for it leaves copies of the key in memory.)
fn sections(text: &[u8]) -> Result<Vec<Section<'_>>, Unusable> {
    let mut found = Vec::new();
    // The label of the section that is read, where its body begins, and whether a header says that it is encrypted.
    let mut open: Option<(&[u8], usize, bool)> = None;
    let mut at = 0;
    for line in text.split_inclusive(|octet| *octet == b'\n') {
        let end = at + line.len();
        if let Some(begins) = label(line, BEGIN) {
            open = Some((begins, end, false));
        } else if let Some((name, from, is_encrypted)) = open {
            if label(line, b"-----END ") == Some(name) {
                let body = text.get(from..at).unwrap_or_default();
                found.push(Section { label: name, body, is_encrypted });
                open = None;
            } else if line.contains(&b':') {
                let says_so = line.windows(9).any(|word| word == b"ENCRYPTED");
                open = Some((name, from, is_encrypted || says_so));
            }
        }
        at = end;
    }
    if open.is_some() { Err(Unusable::NoKey("a section of its PEM text does not end")) } else { Ok(found) }
}

#[cfg(test)]
mod tests;
