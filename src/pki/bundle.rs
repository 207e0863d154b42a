//! PKCS#12 files (RFC 7292): key, certificate and chain in one file that a mail program imports.
//!
//! Two protections, because no single one is opened everywhere: [`Protection::Modern`] for Thunderbird, current systems and
//! whatever refuses SHA-1, [`Protection::Apple`] for iOS up to 17 and older macOS, which refuse AES.
//!
//! The private key is copied once, into a buffer of the final size that is encrypted in place: no readable copy stays.

use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockModeEncrypt as _, KeyIvInit as _};
use pkcs8::der::Encode as _;
use pkcs8::pkcs5::EncryptionScheme;
use pkcs8::pkcs5::pbes2::Parameters;
use ring::hmac;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::der::{bmp_string, element, explicit0, integer, null, object_identifier, octets, sequence, set};
use super::{Certificate, PkiError};
use crate::keys::PrivateKey;
use crate::names::shown;
use crate::secret::Secret;

/// The iterations of every derivation in a bundle, if nobody asks for others.
///
/// A bundle's password is made by postseal, of 100 random bits or more, so that stretching adds nothing that a guesser would
/// notice: 10,000 keeps thousands of bundles within seconds, and 600,000 would cost a quarter of a second for each.
/// (Of MAC and encryption the cheaper one bounds a guess; both have the same count.)
pub const ITERATIONS: u32 = 10_000;

/// The fewest iterations (RFC 8018 §4.2).
pub const MINIMUM_ITERATIONS: u32 = 1_000;

/// The octets that [`BundleSalts`] are cut from.
pub const SALT_OCTETS: usize = 72;

// Object identifiers, as encoded.
const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
const ENCRYPTED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x06];
const SHROUDED_KEY_BAG: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x0a, 0x01, 0x02];
const CERTIFICATE_BAG: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x0a, 0x01, 0x03];
const X509_CERTIFICATE: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x16, 0x01];
const FRIENDLY_NAME: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x14];
const LOCAL_KEY_ID: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x15];
const SHA_AND_3DES: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x01, 0x03];
const SHA1: &[u8] = &[0x2b, 0x0e, 0x03, 0x02, 0x1a];
const SHA256: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];

/// How a bundle is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// pbeWithSHAAnd3-KeyTripleDES-CBC and an HMAC-SHA1 (RFC 7292 appendix C).
    Apple,
    /// PBES2 with PBKDF2-HMAC-SHA256 and AES-256-CBC (RFC 8018), and an HMAC-SHA256.
    Modern,
}

/// What a bundle holds.
#[derive(Clone, Copy, Debug)]
pub struct Bundle<'a> {
    /// The private key.
    pub key: &'a PrivateKey,
    /// Its certificate.
    pub leaf: &'a Certificate,
    /// The CAs from the one that signed the leaf upwards.
    pub chain: &'a [&'a Certificate],
    /// The name that mail programs show for key and certificate.
    pub friendly_name: &'a str,
}

/// The random octets of one bundle. A second bundle, of the same key too, needs others.
#[derive(Clone, Copy, Debug)]
pub struct BundleSalts {
    key: ([u8; 16], [u8; 16]),
    certificates: ([u8; 16], [u8; 16]),
    mac: [u8; 8],
}

impl BundleSalts {
    /// Cuts the salts from random octets.
    pub fn from_random(random: [u8; SALT_OCTETS]) -> Self {
        let cut = |at: usize| std::array::from_fn(|i| random.get(at + i).copied().unwrap_or_default());
        Self {
            key: (cut(0), cut(16)),
            certificates: (cut(32), cut(48)),
            mac: std::array::from_fn(|i| random.get(64 + i).copied().unwrap_or_default()),
        }
    }
}

impl Bundle<'_> {
    /// Returns the bundle as a .p12 file.
    ///
    /// # Errors
    /// [`PkiError::Password`] for an empty password or one that is not printable ASCII: LibreSSL and Java open no other.
    /// [`PkiError::Name`] for a friendly name outside the Basic Multilingual Plane, or with control characters.
    /// [`PkiError::ForeignKey`] if key and certificate are no pair.
    pub fn encode(&self, protection: Protection, password: &Secret, salts: &BundleSalts) -> Result<Secret, PkiError> {
        self.encode_iterated(protection, password, salts, ITERATIONS)
    }

    /// Returns the bundle as a .p12 file whose derivations are all iterated so often, as other programs do: OpenSSL 2,048
    /// times, NSS 600,000 times.
    ///
    /// # Errors
    /// As [`Self::encode`]; [`PkiError::Iterations`] below [`MINIMUM_ITERATIONS`].
    pub fn encode_iterated(
        &self,
        protection: Protection,
        password: &Secret,
        salts: &BundleSalts,
        iterations: u32,
    ) -> Result<Secret, PkiError> {
        let password = Password::new(password, iterations)?;
        check_name(self.friendly_name)?;
        if !self.leaf.belongs_to(self.key) {
            return Err(PkiError::ForeignKey(self.leaf.facts().subject.clone()));
        }
        let attributes = self.attributes();
        let certificates = self.certificates(protection, &password, salts, &attributes)?;
        let contents = sequence(&[&certificates, &self.key_content(protection, &password, salts, &attributes)?]);
        let mac = mac(protection, &password, salts.mac, &contents);
        let file = sequence(&[&integer(3), &data(&contents), &mac]);
        Ok(Secret::new(file))
    }

    fn key_content(
        &self,
        protection: Protection,
        password: &Password,
        salts: &BundleSalts,
        attributes: &[u8],
    ) -> Result<Vec<u8>, PkiError> {
        let (scheme, encrypted) = protection.encrypt(self.key.expose_pkcs8(), password, salts.key)?;
        let shrouded = sequence(&[&scheme, &octets(&encrypted)]);
        let bag = bag(SHROUDED_KEY_BAG, &shrouded, Some(attributes));
        Ok(data(&sequence(&[&bag])))
    }

    fn certificates(
        &self,
        protection: Protection,
        password: &Password,
        salts: &BundleSalts,
        attributes: &[u8],
    ) -> Result<Vec<u8>, PkiError> {
        let mut bags = vec![certificate_bag(self.leaf, Some(attributes))];
        bags.extend(self.chain.iter().map(|ca| certificate_bag(ca, None)));
        let clear = sequence(&bags.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let (scheme, encrypted) = protection.encrypt(&clear, password, salts.certificates)?;
        // EncryptedContentInfo with the implicitly tagged [0] of RFC 5652 §6.1.
        let content = sequence(&[&object_identifier(DATA), &scheme, &element(0x80, &[&encrypted])]);
        let encrypted_data = sequence(&[&integer(0), &content]);
        Ok(sequence(&[&object_identifier(ENCRYPTED_DATA), &explicit0(&encrypted_data)]))
    }

    /// The attributes by which a reader finds that key and certificate are a pair, and what to call them.
    fn attributes(&self) -> Vec<u8> {
        let fingerprint = self.leaf.fingerprint();
        let id = fingerprint.octets().split_at(20).0;
        let name = sequence(&[&object_identifier(FRIENDLY_NAME), &set(&[&bmp_string(self.friendly_name)])]);
        let key_id = sequence(&[&object_identifier(LOCAL_KEY_ID), &set(&[&octets(id)])]);
        set(&[&name, &key_id])
    }
}

/// A ContentInfo of type data.
fn data(content: &[u8]) -> Vec<u8> {
    sequence(&[&object_identifier(DATA), &explicit0(&octets(content))])
}

fn bag(kind: &[u8], value: &[u8], attributes: Option<&[u8]>) -> Vec<u8> {
    sequence(&[&object_identifier(kind), &explicit0(value), attributes.unwrap_or_default()])
}

fn certificate_bag(certificate: &Certificate, attributes: Option<&[u8]>) -> Vec<u8> {
    let value = sequence(&[&object_identifier(X509_CERTIFICATE), &explicit0(&octets(certificate.der()))]);
    bag(CERTIFICATE_BAG, &value, attributes)
}

fn check_name(name: &str) -> Result<(), PkiError> {
    let in_plane = |c: char| u16::try_from(u32::from(c)).is_ok() && !c.is_control();
    if !name.is_empty() && name.chars().all(in_plane) {
        return Ok(());
    }
    Err(PkiError::Name(format!(
        "`{}` is no name for a .p12 file; write at least one character, and no emoji or control characters",
        shown(name)
    )))
}

/// A password in the two forms that a bundle needs: as it is, for PBES2, and as a BMPString with a final zero (RFC 7292 §B.1);
/// and how often what is derived from it is iterated.
struct Password {
    ascii: Secret,
    bmp: Secret,
    iterations: u32,
}

impl Password {
    fn new(password: &Secret, iterations: u32) -> Result<Self, PkiError> {
        if iterations < MINIMUM_ITERATIONS {
            return Err(PkiError::Iterations(iterations));
        }
        let ascii = password.expose();
        if ascii.is_empty() || !ascii.iter().all(|octet| (0x20..0x7f).contains(octet)) {
            return Err(PkiError::Password);
        }
        let mut bmp = Vec::with_capacity(2 * ascii.len() + 2);
        ascii.iter().chain(&[0]).for_each(|octet| bmp.extend_from_slice(&[0, *octet]));
        Ok(Self { ascii: password.clone(), bmp: Secret::new(bmp), iterations })
    }
}

impl Protection {
    /// Encrypts the octets; returns the AlgorithmIdentifier and the ciphertext.
    fn encrypt(
        self,
        clear: &[u8],
        password: &Password,
        (salt, iv): ([u8; 16], [u8; 16]),
    ) -> Result<(Vec<u8>, Vec<u8>), PkiError> {
        // Padding adds 1 to 16 octets; the buffer has its final size from the start, so that no copy is left behind.
        let mut buffer = Zeroizing::new(vec![0; clear.len() + 16]);
        buffer.split_at_mut(clear.len()).0.copy_from_slice(clear);
        match self {
            Self::Apple => {
                let (salt, _) = salt.split_at(8);
                let encrypted = triple_des(&mut buffer, clear.len(), password, salt)?.to_vec();
                let parameters = sequence(&[&octets(salt), &integer(password.iterations)]);
                Ok((sequence(&[&object_identifier(SHA_AND_3DES), &parameters]), encrypted))
            }
            Self::Modern => {
                let writing = |error: &dyn std::fmt::Display| PkiError::Writing(error.to_string());
                let scheme = Parameters::generate_pbkdf2_sha256_aes256cbc(password.iterations, &salt, iv)
                    .map_err(|error| writing(&error))?;
                let encrypted = scheme
                    .encrypt_in_place(password.ascii.expose(), &mut buffer, clear.len())
                    .map_err(|error| writing(&error))?
                    .to_vec();
                Ok((EncryptionScheme::from(scheme).to_der().map_err(|error| writing(&error))?, encrypted))
            }
        }
    }
}

/// Encrypts the first octets of the buffer in place, as RFC 7292 appendix C says.
fn triple_des<'b>(buffer: &'b mut [u8], length: usize, password: &Password, salt: &[u8]) -> Result<&'b [u8], PkiError> {
    let key = derive::<Sha1>(Purpose::Key, password, salt, 24);
    let iv = derive::<Sha1>(Purpose::InitialVector, password, salt, 8);
    let cipher = cbc::Encryptor::<des::TdesEde3>::new_from_slices(&key, &iv);
    let cipher = cipher.map_err(|error| PkiError::Writing(error.to_string()))?;
    cipher.encrypt_padded::<Pkcs7>(buffer, length).map_err(|_| PkiError::Writing("padding".to_owned()))
}

/// Returns the MacData over the authenticated safe. The salt has 8 octets: macOS refuses 16.
fn mac(protection: Protection, password: &Password, salt: [u8; 8], contents: &[u8]) -> Vec<u8> {
    let (key, name, algorithm) = match protection {
        Protection::Apple => {
            (derive::<Sha1>(Purpose::Mac, password, &salt, 20), SHA1, hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY)
        }
        Protection::Modern => (derive::<Sha256>(Purpose::Mac, password, &salt, 32), SHA256, hmac::HMAC_SHA256),
    };
    let tag = hmac::sign(&hmac::Key::new(algorithm, &key), contents);
    let digest_info = sequence(&[&sequence(&[&object_identifier(name), &null()]), &octets(tag.as_ref())]);
    sequence(&[&digest_info, &octets(&salt), &integer(password.iterations)])
}

/// What octets are derived for: the ID of RFC 7292 §B.3.
#[derive(Clone, Copy)]
enum Purpose {
    Key = 1,
    InitialVector = 2,
    Mac = 3,
}

/// The octets of a block of SHA-1 and of SHA-256.
const BLOCK: usize = 64;

/// Derives octets from the password (RFC 7292 §B.2, whose letters are used here).
///
/// Not by ring, whose SHA-1 uses no instructions made for it, and which takes twice as long for one block of SHA-256.
fn derive<Hash: Digest>(purpose: Purpose, password: &Password, salt: &[u8], length: usize) -> Zeroizing<Vec<u8>> {
    let bmp = password.bmp.expose();
    let mut i = Zeroizing::new(Vec::with_capacity(filled(salt) + filled(bmp)));
    i.extend(salt.iter().cycle().take(filled(salt)));
    i.extend(bmp.iter().cycle().take(filled(bmp)));

    let mut out = Zeroizing::new(Vec::with_capacity(length + <Hash as Digest>::output_size()));
    while out.len() < length {
        let first = Hash::new().chain_update([purpose as u8; BLOCK]).chain_update(&*i).finalize();
        let a = (1..password.iterations).fold(first, |a, _| Hash::digest(a));
        out.extend_from_slice(&a);
        let b = Zeroizing::new(a.iter().copied().cycle().take(BLOCK).collect::<Vec<u8>>());
        i.chunks_mut(BLOCK).for_each(|block| add_with_one(block, &b));
    }
    out.truncate(length);
    out
}

/// The length of the octets when they are repeated to whole blocks.
fn filled(octets: &[u8]) -> usize {
    octets.len().div_ceil(BLOCK) * BLOCK
}

/// Sets the block to block + b + 1, as big-endian numbers, without the carry out.
fn add_with_one(block: &mut [u8], b: &[u8]) {
    let mut carry = 1;
    for (digit, other) in block.iter_mut().zip(b).rev() {
        let [high, low] = (u16::from(*digit) + u16::from(*other) + carry).to_be_bytes();
        *digit = low;
        carry = u16::from(high);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::{hex, unhex};

    fn derived(purpose: Purpose, password: &str, salt: &str, iterations: u32, length: usize) -> String {
        let password = Password::new(&Secret::from(password.to_owned()), ITERATIONS).unwrap();
        // A vector of one iteration is less than is let in.
        let password = Password { iterations, ..password };
        hex(&derive::<Sha1>(purpose, &password, &unhex(salt).unwrap(), length))
    }

    #[test]
    fn derivation_gives_what_bouncy_castle_and_openssl_give() {
        // The test vectors that OpenSSL, Go and pyca share for "smeg" and "queeg".
        let key = derived(Purpose::Key, "smeg", "0a58cf64530d823f", 1, 24);
        assert_eq!(key, "8aaae6297b6cb04642ab5b077851284eb7128f1a2a7fbca3");
        assert_eq!(derived(Purpose::InitialVector, "smeg", "0a58cf64530d823f", 1, 8), "79993dfe048d3b76");
        let key = derived(Purpose::Key, "queeg", "05dec959acff72f7", 1000, 24);
        assert_eq!(key, "ed2034e36328830ff09df1e1a07dd357185dac0d4f9eb3d4");
        assert_eq!(derived(Purpose::InitialVector, "queeg", "05dec959acff72f7", 1000, 8), "11dedad7758d4860");
    }

    #[test]
    fn passwords_are_printable_ascii() {
        for bad in ["", "pässword", "tab\t", "\u{1f600}"] {
            let refused = Password::new(&Secret::from(bad.to_owned()), ITERATIONS);
            assert_eq!(refused.err(), Some(PkiError::Password), "{bad:?}");
        }
    }

    #[test]
    fn too_few_iterations_are_refused() {
        let with = |iterations| Password::new(&Secret::from("secret".to_owned()), iterations).err();
        assert_eq!((with(999), with(1_000)), (Some(PkiError::Iterations(999)), None));
    }

    #[test]
    fn friendly_names_stay_in_the_basic_plane() {
        assert!(check_name("Иван alice@example.com (laptop)").is_ok());
        for bad in ["", "smile \u{1f600}", "two\nlines"] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn salts_do_not_overlap() {
        let salts = BundleSalts::from_random(std::array::from_fn(|i| u8::try_from(i).unwrap()));
        let all = [salts.key.0, salts.key.1, salts.certificates.0, salts.certificates.1].concat();
        assert_eq!([&all[..], &salts.mac].concat(), (0..72).collect::<Vec<u8>>());
    }
}
