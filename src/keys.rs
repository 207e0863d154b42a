//! Private keys: their kinds, forms, and what can be derived from them. Keys are made in `env`, where randomness is;
//! [`generate`] stands here for it, and for nobody else.
//!
//! Everything that holds private octets is wiped when dropped, and buffers have their final size from the start, for a `Vec`
//! that grows leaves its old octets behind.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use pkcs8::der::asn1::{AnyRef, BitStringRef, OctetString, OctetStringRef, UintRef};
use pkcs8::der::{Encode as _, SecretDocument, Tag};
use pkcs8::pkcs5::pbes2::Parameters;
use pkcs8::spki::{AlgorithmIdentifierRef, SubjectPublicKeyInfoRef};
use pkcs8::{
    EncodePrivateKey as _, EncodePublicKey as _, EncryptedPrivateKeyInfoOwned, ObjectIdentifier, PrivateKeyInfoRef,
};
use rcgen::PublicKeyData as _;
use ring::signature::KeyPair as _;
use zeroize::{Zeroize as _, Zeroizing};

use crate::names::{NameError, shown};
use crate::secret::Secret;

/// The kind of a key pair for certificates. Ed25519 is refused: NSS cannot import one from PKCS#12, LibreSSL refuses it as a
/// client's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyKind {
    /// ECDSA on P-256.
    P256,
    /// RSA with 2,048 bits.
    Rsa2048,
    /// RSA with 3,072 bits.
    Rsa3072,
}

impl KeyKind {
    /// Every kind, with its name.
    pub const ALL: [(Self, &'static str); 3] =
        [(Self::P256, "p256"), (Self::Rsa2048, "rsa2048"), (Self::Rsa3072, "rsa3072")];
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(kind, _)| kind == self).map_or("", |(_, name)| name);
        f.pad(name)
    }
}

impl FromStr for KeyKind {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::ALL.iter().find(|(_, name)| *name == text).map(|(kind, _)| *kind).ok_or_else(|| NameError {
            problem: format!("`{}` is no kind of key that postseal makes", shown(text)),
            mend: "write p256, rsa2048 or rsa3072".to_owned(),
        })
    }
}

/// Why a key cannot be read, made or used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The passphrase does not open the key.
    #[error("the passphrase does not open this key")]
    WrongPassphrase,
    /// The encryption is none that postseal reads.
    #[error("the key is encrypted in a way that postseal cannot read: {0}")]
    ForeignEncryption(String),
    /// The octets are no key that can sign.
    #[error("this is no private key: {0}")]
    Malformed(String),
    /// The PEM text has no such thing in it.
    #[error("there is no {0} in this PEM text")]
    Missing(&'static str),
    /// A key, but none of [`KeyKind`].
    #[error("{0} is no kind of key that postseal uses for certificates; use p256, rsa2048 or rsa3072")]
    UnusableKind(String),
    /// The system gave no randomness.
    #[error("the system's random number generator failed")]
    NoRandomness,
    /// A key that is elsewhere did not sign, or signed wrongly.
    #[error("{0}")]
    Elsewhere(String),
}

impl KeyError {
    fn malformed(why: impl fmt::Display) -> Self {
        Self::Malformed(why.to_string())
    }
}

/// The iterations of PBKDF2 for a key that a person's passphrase protects (OWASP 2023 for HMAC-SHA256; about 0.1 s).
pub const PASSPHRASE_ITERATIONS: u32 = 600_000;

/// Who wants more has other reasons than safety: a file says how often, and its reader has to do it.
const MOST_ITERATIONS: u32 = 10_000_000;

/// id-ecPublicKey and the curve P-256 (RFC 5480 §2.1.1).
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256_CURVE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
/// The SubjectPublicKeyInfo of a P-256 key up to its point, which is not compressed (RFC 5480 §2).
const P256_SPKI: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// What stands before the point at the end of an ECPrivateKey: `[1]` with a BIT STRING (RFC 5915 §3).
const P256_PUBLIC: [u8; 5] = [0xa1, 0x44, 0x03, 0x42, 0x00];
/// rsaEncryption (RFC 8017 §A.1).
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

/// The AlgorithmIdentifier of an RSA key (RFC 3279 §2.3.1), behind four octets in its SubjectPublicKeyInfo.
const RSA_ALGORITHM: [u8; 15] =
    [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
/// The least public exponent (FIPS 186-5 §5.1).
const LEAST_EXPONENT: u64 = 65_537;

/// The public half of a key pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    kind: KeyKind,
    spki: Vec<u8>,
}

impl PublicKey {
    /// Takes over a public key in its SubjectPublicKeyInfo (RFC 5280 §4.1.2.7), in the form that postseal itself writes.
    ///
    /// # Errors
    /// [`KeyError::UnusableKind`] for a kind that is not used, [`KeyError::Malformed`] if it is none, or written otherwise.
    pub fn from_spki(spki: &[u8]) -> Result<Self, KeyError> {
        let kind = kind_of(spki)?;
        let head = spki.get(..P256_SPKI.len());
        if kind == KeyKind::P256 && (head != Some(P256_SPKI.as_slice()) || spki.len() != P256_SPKI.len() + 65) {
            return Err(KeyError::malformed("the point of the elliptic curve is compressed"));
        }
        let parts = |at: usize, part: &[u8]| spki.get(at..at + part.len()) == Some(part);
        if kind != KeyKind::P256 && !(parts(4, &RSA_ALGORITHM) && parts(19, &[0x03, 0x82]) && parts(23, &[0x00])) {
            return Err(KeyError::malformed("the RSA key is not written as RFC 3279 says"));
        }
        Ok(Self { kind, spki: spki.to_vec() })
    }

    /// Makes a P-256 key of its point, which is not compressed (SEC 1 §2.3.3).
    ///
    /// # Errors
    /// As [`Self::from_spki`].
    pub fn p256(point: &[u8]) -> Result<Self, KeyError> {
        Self::from_spki(&[P256_SPKI.as_slice(), point].concat())
    }

    /// Makes an RSA key of its modulus and exponent, in octets of the highest first.
    ///
    /// # Errors
    /// As [`Self::from_spki`].
    pub fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, KeyError> {
        let number = |octets| UintRef::new(octets).and_then(|number| number.to_der()).map_err(KeyError::malformed);
        let numbers = [number(modulus)?, number(exponent)?].concat();
        let key = AnyRef::new(Tag::Sequence, &numbers).and_then(|key| key.to_der()).map_err(KeyError::malformed)?;
        let algorithm = AlgorithmIdentifierRef { oid: RSA_ENCRYPTION, parameters: Some(AnyRef::NULL) };
        let bits = BitStringRef::from_bytes(&key).map_err(KeyError::malformed)?;
        let info = SubjectPublicKeyInfoRef { algorithm, subject_public_key: bits };
        Self::from_spki(&info.to_der().map_err(KeyError::malformed)?)
    }

    /// Returns the kind.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// Returns the SubjectPublicKeyInfo as DER (RFC 5280 §4.1.2.7).
    pub fn spki_der(&self) -> &[u8] {
        &self.spki
    }

    /// Tells whether the signature is one of the message, in the form that certificates have.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let algorithm: &dyn ring::signature::VerificationAlgorithm = match self.kind {
            KeyKind::P256 => &ring::signature::ECDSA_P256_SHA256_ASN1,
            KeyKind::Rsa2048 | KeyKind::Rsa3072 => &ring::signature::RSA_PKCS1_2048_8192_SHA256,
        };
        ring::signature::UnparsedPublicKey::new(algorithm, self.bits()).verify(message, signature).is_ok()
    }

    /// Returns what stands in the BIT STRING of the SubjectPublicKeyInfo: the point, or modulus and exponent.
    pub(crate) fn bits(&self) -> &[u8] {
        let before = match self.kind {
            KeyKind::P256 => P256_SPKI.len(),
            // With 2,048 bits or 3,072, every length takes two octets more than its first.
            KeyKind::Rsa2048 | KeyKind::Rsa3072 => 24,
        };
        self.spki.get(before..).unwrap_or_default()
    }
}

/// A private key that can sign certificates, as PKCS#8 DER (RFC 5208); a clone shares it.
#[derive(Clone)]
pub struct PrivateKey {
    public: PublicKey,
    private: Arc<Private>,
}

struct Private {
    pkcs8: Secret,
    /// What the key signs with, once it was needed: most of a user's keys never sign here.
    signer: OnceLock<Signer>,
}

/// Shows the kind only.
impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({})", self.public.kind)
    }
}

impl PrivateKey {
    /// Takes over an unencrypted PKCS#8 key.
    ///
    /// # Errors
    /// [`KeyError::Malformed`] if it cannot sign, [`KeyError::UnusableKind`] if it is of another kind or size.
    pub fn from_pkcs8_der(pkcs8: Secret) -> Result<Self, KeyError> {
        let signer = signer_of(&pkcs8)?;
        let spki = signer.0.subject_public_key_info();
        let kind = kind_of(&spki)?;
        let private = Private { pkcs8, signer: OnceLock::from(signer) };
        Ok(Self { public: PublicKey { kind, spki }, private: Arc::new(private) })
    }

    /// Takes over a P-256 key that ring made just now, without another multiplication for its public half, if that stands
    /// where ring writes it.
    fn from_ring(pkcs8: Secret) -> Result<Self, KeyError> {
        let public = pkcs8.expose().split_last_chunk::<65>().filter(|(before, _)| before.ends_with(&P256_PUBLIC));
        let Some((_, point)) = public else { return Self::from_pkcs8_der(pkcs8) };
        let spki = [P256_SPKI.as_slice(), point].concat();
        Ok(Self::of_parts(pkcs8, PublicKey { kind: KeyKind::P256, spki }))
    }

    /// Puts together what was made just now. ring takes no copy of the private half before it signs: it does not wipe its own.
    fn of_parts(pkcs8: Secret, public: PublicKey) -> Self {
        Self { public, private: Arc::new(Private { pkcs8, signer: OnceLock::new() }) }
    }

    /// Reads the first unencrypted private key of a PEM text.
    ///
    /// # Errors
    /// As [`Self::from_pkcs8_der`]; [`KeyError::Missing`] if the text has none.
    pub fn from_pem(text: &Secret) -> Result<Self, KeyError> {
        Self::from_pkcs8_der(pkcs8_of_pem(text)?)
    }

    /// Returns the key as an unencrypted `PRIVATE KEY` in PEM.
    pub fn to_pem(&self) -> Secret {
        encode_pem("PRIVATE KEY", self.expose_pkcs8()).into()
    }

    /// Returns the kind.
    pub fn kind(&self) -> KeyKind {
        self.public.kind
    }

    /// Returns the public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Returns the SubjectPublicKeyInfo as DER (RFC 5280 §4.1.2.7).
    pub fn spki_der(&self) -> &[u8] {
        self.public.spki_der()
    }

    /// Tells whether a certificate with this SubjectPublicKeyInfo belongs to the key.
    pub fn matches(&self, spki: &[u8]) -> bool {
        self.public.spki == spki
    }

    /// Returns the PKCS#8 DER for the one use that needs it.
    pub fn expose_pkcs8(&self) -> &[u8] {
        self.private.pkcs8.expose()
    }

    /// Returns the key as an `ENCRYPTED PRIVATE KEY` in PEM: PBES2 with PBKDF2-HMAC-SHA256 and AES-256-CBC (RFC 8018 §6.2),
    /// which OpenSSL and LibreSSL open. `salt` and `iv` are random and used once.
    ///
    /// # Errors
    /// [`KeyError::Malformed`] if the parameters do not encode, which cannot happen for a key that was read.
    pub fn encrypt(&self, passphrase: &Secret, salt: [u8; 16], iv: [u8; 16]) -> Result<String, KeyError> {
        let scheme = Parameters::generate_pbkdf2_sha256_aes256cbc(PASSPHRASE_ITERATIONS, &salt, iv)
            .map_err(KeyError::malformed)?;
        let encrypted = scheme.encrypt(passphrase.expose(), self.expose_pkcs8()).map_err(KeyError::malformed)?;
        let info = EncryptedPrivateKeyInfoOwned {
            encryption_algorithm: scheme.into(),
            encrypted_data: OctetString::new(encrypted).map_err(KeyError::malformed)?,
        };
        Ok(encode_pem("ENCRYPTED PRIVATE KEY", &info.to_der().map_err(KeyError::malformed)?))
    }

    /// Opens an `ENCRYPTED PRIVATE KEY` in PEM. rustls-pemfile skips these, so the pkcs8 crate reads the PEM here.
    ///
    /// # Errors
    /// [`KeyError::Missing`] if the text is no such PEM, [`KeyError::ForeignEncryption`] for a scheme outside PBES2,
    /// [`KeyError::WrongPassphrase`] if what comes out is no key.
    pub fn decrypt(pem: &str, passphrase: &Secret) -> Result<Self, KeyError> {
        let missing = KeyError::Missing("encrypted private key");
        let (label, document) = SecretDocument::from_pem(pem.trim()).map_err(|_| missing.clone())?;
        if label != "ENCRYPTED PRIVATE KEY" {
            return Err(missing);
        }
        let foreign = |error: &dyn fmt::Display| KeyError::ForeignEncryption(error.to_string());
        let info = EncryptedPrivateKeyInfoOwned::try_from(document.as_bytes()).map_err(|error| foreign(&error))?;
        let scheme = info.encryption_algorithm.pbes2().ok_or_else(|| foreign(&"not PBES2"))?;
        if let Some(count) = scheme.kdf.pbkdf2().map(|kdf| kdf.iteration_count).filter(|count| *count > MOST_ITERATIONS)
        {
            return Err(foreign(&format_args!("{count} iterations would take minutes")));
        }
        // In place in a buffer that is wiped whole: the crate's own `decrypt` frees its buffer as it is on a failure.
        let mut buffer = Zeroizing::new(info.encrypted_data.as_bytes().to_vec());
        let clear = match scheme.decrypt_in_place(passphrase.expose(), &mut buffer) {
            Ok(clear) => Secret::new(clear.to_vec()),
            Err(pkcs8::pkcs5::Error::UnsupportedAlgorithm { oid }) => return Err(foreign(&oid)),
            Err(_) => return Err(KeyError::WrongPassphrase),
        };
        // One wrong passphrase in 256 leaves a padding that looks right; then it is the content that tells.
        Self::from_pkcs8_der(clear).map_err(|error| match error {
            KeyError::Malformed(_) => KeyError::WrongPassphrase,
            other => other,
        })
    }

    /// Returns what the key signs with.
    ///
    /// # Errors
    /// [`KeyError::Malformed`] if it cannot sign, which cannot happen for a key that was read or made.
    fn signer(&self) -> Result<&Signer, KeyError> {
        let Private { pkcs8, signer } = &*self.private;
        match signer.get() {
            Some(signer) => Ok(signer),
            None => signer_of(pkcs8).map(|made| signer.get_or_init(|| made)),
        }
    }
}

/// A private key that is not here and never comes here, as on a token.
pub trait RemoteKey: fmt::Debug + Send + Sync {
    /// Returns the public half.
    fn public(&self) -> &PublicKey;

    /// Signs a message in the form that certificates have: ECDSA with SHA-256 as DER, or RSA PKCS#1 v1.5 with SHA-256.
    ///
    /// # Errors
    /// [`KeyError::Elsewhere`] says why it could not.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError>;
}

/// What a CA signs with. All that can be asked of it is a signature: a key that is not here cannot be written anywhere.
#[derive(Clone, Debug)]
pub enum SigningKey {
    /// A key that is here.
    Here(PrivateKey),
    /// A key that is elsewhere; a clone shares it.
    Elsewhere(Arc<dyn RemoteKey>),
}

/// A [`SigningKey`] that is borrowed.
#[derive(Clone, Copy, Debug)]
pub enum Signing<'k> {
    /// A key that is here.
    Here(&'k PrivateKey),
    /// A key that is elsewhere.
    Elsewhere(&'k dyn RemoteKey),
}

impl<'k> From<&'k PrivateKey> for Signing<'k> {
    fn from(key: &'k PrivateKey) -> Self {
        Self::Here(key)
    }
}

impl<'k> From<&'k SigningKey> for Signing<'k> {
    fn from(key: &'k SigningKey) -> Self {
        match key {
            SigningKey::Here(key) => Self::Here(key),
            SigningKey::Elsewhere(key) => Self::Elsewhere(&**key),
        }
    }
}

impl<'k> Signing<'k> {
    /// Returns the public half.
    pub fn public(self) -> &'k PublicKey {
        match self {
            Self::Here(key) => key.public(),
            Self::Elsewhere(key) => key.public(),
        }
    }

    /// Signs a message. What a key that is elsewhere signed is verified: it may be another key than it was, or broken.
    ///
    /// # Errors
    /// [`KeyError::Elsewhere`]; [`KeyError::Malformed`] if it cannot sign, which cannot happen for a key that was read or made.
    pub fn sign(self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        match self {
            Self::Here(key) => rcgen::SigningKey::sign(&key.signer()?.0, message).map_err(KeyError::malformed),
            Self::Elsewhere(key) => {
                let signature = key.sign(message)?;
                let verified = key.public().verifies(message, &signature);
                let wrong = || KeyError::Elsewhere("what the key signed is not signed by the key of the CA".to_owned());
                verified.then_some(signature).ok_or_else(wrong)
            }
        }
    }
}

/// rcgen's form of a key, wiped when dropped. (ring's own form of the key inside is not; ring offers no way.)
struct Signer(rcgen::KeyPair);

impl Drop for Signer {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

fn signer_of(pkcs8: &Secret) -> Result<Signer, KeyError> {
    rcgen::KeyPair::try_from(pkcs8.expose()).map(Signer).map_err(KeyError::malformed)
}

/// Returns the SubjectPublicKeyInfo of any PKCS#8 key that ring reads: P-256, P-384, Ed25519, RSA of 2,048 to 4,096 bits.
///
/// A certificate that an ACME client keeps may have a key of a kind that postseal itself does not make; it is compared by this.
///
/// # Errors
/// [`KeyError::Malformed`] if ring does not take the key.
pub fn spki_of(pkcs8: &Secret) -> Result<Vec<u8>, KeyError> {
    signer_of(pkcs8).map(|signer| signer.0.subject_public_key_info())
}

fn kind_of(spki: &[u8]) -> Result<KeyKind, KeyError> {
    use x509_parser::prelude::FromDer as _;
    use x509_parser::public_key::PublicKey as Parsed;

    let (_, info) = x509_parser::x509::SubjectPublicKeyInfo::from_der(spki).map_err(KeyError::malformed)?;
    match info.parsed().map_err(KeyError::malformed)? {
        Parsed::EC(point) if point.key_size() == 256 => {
            let curve = info.algorithm.parameters.as_ref().and_then(|curve| curve.as_oid().ok());
            if curve.is_some_and(|curve| curve.as_bytes() == P256_CURVE.as_bytes()) {
                return Ok(KeyKind::P256);
            }
            Err(KeyError::UnusableKind("an elliptic curve other than P-256".to_owned()))
        }
        Parsed::EC(point) => Err(KeyError::UnusableKind(format!("an elliptic curve of {} bits", point.key_size()))),
        Parsed::RSA(key) if key.try_exponent().is_ok_and(|exponent| exponent < LEAST_EXPONENT) => {
            Err(KeyError::UnusableKind("RSA with a small exponent".to_owned()))
        }
        Parsed::RSA(key) => match key.key_size() {
            2048 => Ok(KeyKind::Rsa2048),
            3072 => Ok(KeyKind::Rsa3072),
            bits => Err(KeyError::UnusableKind(format!("RSA with {bits} bits"))),
        },
        _ => Err(KeyError::UnusableKind(match info.algorithm.algorithm.to_id_string().as_str() {
            "1.3.101.112" => "Ed25519".to_owned(),
            "1.3.101.113" => "Ed448".to_owned(),
            "1.2.840.113549.1.1.10" => "RSA-PSS".to_owned(),
            other => format!("a key of the algorithm {other}"),
        })),
    }
}

/// Makes a key from the system's randomness. **Only `env` may call this**, and tests: everything else is given its keys.
///
/// # Errors
/// [`KeyError::NoRandomness`] if the system gives none.
pub fn generate(kind: KeyKind) -> Result<PrivateKey, KeyError> {
    let bits = match kind {
        KeyKind::P256 => {
            let algorithm = &ring::signature::ECDSA_P256_SHA256_ASN1_SIGNING;
            let document = ring::signature::EcdsaKeyPair::generate_pkcs8(algorithm, &ring::rand::SystemRandom::new())
                .map_err(|_| KeyError::NoRandomness)?;
            return PrivateKey::from_ring(Secret::new(document.as_ref().to_vec()));
        }
        KeyKind::Rsa2048 => 2048,
        KeyKind::Rsa3072 => 3072,
    };
    let key = rsa::PrivateKey::new(&mut getrandom::SysRng, bits).map_err(|_| KeyError::NoRandomness)?;
    let document = key.to_pkcs8_der().map_err(KeyError::malformed)?;
    let public = key.to_public_key().to_public_key_der().map_err(KeyError::malformed)?;
    let made = PrivateKey::of_parts(
        Secret::new(std::mem::take(&mut *document.to_bytes())),
        PublicKey::from_spki(public.as_bytes())?,
    );
    drop((key, document));
    overwrite_freed();
    Ok(made)
}

/// Overwrites what this thread gave back to the allocator: arithmetic with an RSA key frees its numbers as they are, and a thread
/// that does nothing else may need none of that memory again. No allocator promises it; the laboratory looks into the memory.
pub(crate) fn overwrite_freed() {
    const EACH: usize = 1 << 17;
    let mut taken: Vec<Vec<u8>> = Vec::new();
    for size in [4096, 1024, 512, 256, 128, 64, 24] {
        taken.extend((0..EACH / size).map(|_| std::hint::black_box(vec![0; size])));
    }
}

/// Returns the 32 octets of the Ed25519 public key that belongs to a seed of 32 octets (RFC 8032 §5.1.5); DKIM publishes them.
///
/// # Errors
/// [`KeyError::Malformed`] if the seed has another length.
pub fn ed25519_public(seed: &Secret) -> Result<[u8; 32], KeyError> {
    let pair = ring::signature::Ed25519KeyPair::from_seed_unchecked(seed.expose()).map_err(KeyError::malformed)?;
    pair.public_key().as_ref().try_into().map_err(KeyError::malformed)
}

/// Returns the first unencrypted private key of a PEM text as PKCS#8 DER, whatever form it has there.
///
/// # Errors
/// [`KeyError::Malformed`] if the text is no PEM, [`KeyError::Missing`] if it has no such key.
pub fn pkcs8_of_pem(text: &Secret) -> Result<Secret, KeyError> {
    // A text that is one key is read by a crate that leaves nothing of it in memory, which rustls-pemfile does.
    if let Some(Ok(("PRIVATE KEY", document))) = text.expose_str().map(|text| SecretDocument::from_pem(text.trim())) {
        return Ok(Secret::new(document.as_bytes().to_vec()));
    }
    let key = pem_items(text.expose())?.into_iter().find_map(|item| match item {
        PemItem::PrivateKey(pkcs8) => Some(pkcs8),
        _ => None,
    });
    key.ok_or(KeyError::Missing("unencrypted private key"))
}

/// One section of a PEM text.
#[derive(Debug)]
pub enum PemItem {
    /// A certificate as DER.
    Certificate(Vec<u8>),
    /// A CRL as DER.
    Crl(Vec<u8>),
    /// An unencrypted private key as PKCS#8 DER, whatever form it had in the text.
    PrivateKey(Secret),
    /// A public key: its SubjectPublicKeyInfo as DER.
    PublicKey(Vec<u8>),
    /// A certificate request (PKCS#10) as DER.
    Request(Vec<u8>),
    /// Something else that is well formed.
    Other,
}

/// Reads every section of a PEM text (RFC 7468). The one function that knows rustls-pemfile, which is archived.
///
/// Encrypted keys are skipped; the crate's own buffers for base64 are not wiped.
///
/// # Errors
/// [`KeyError::Malformed`] if a section does not end or is no base64.
pub fn pem_items(text: &[u8]) -> Result<Vec<PemItem>, KeyError> {
    let mut reader = text;
    rustls_pemfile::read_all(&mut reader)
        .map(|item| match item.map_err(KeyError::malformed)? {
            rustls_pemfile::Item::X509Certificate(der) => Ok(PemItem::Certificate(der.to_vec())),
            rustls_pemfile::Item::Crl(der) => Ok(PemItem::Crl(der.to_vec())),
            rustls_pemfile::Item::Pkcs8Key(mut der) => {
                let key = Secret::new(der.secret_pkcs8_der().to_vec());
                der.zeroize();
                Ok(PemItem::PrivateKey(key))
            }
            rustls_pemfile::Item::Pkcs1Key(mut der) => {
                let key = wrap(RSA_ENCRYPTION, AnyRef::NULL, der.secret_pkcs1_der());
                der.zeroize();
                key.map(PemItem::PrivateKey)
            }
            rustls_pemfile::Item::Sec1Key(mut der) => {
                let key = wrap(EC_PUBLIC_KEY, (&P256_CURVE).into(), der.secret_sec1_der());
                der.zeroize();
                key.map(PemItem::PrivateKey)
            }
            rustls_pemfile::Item::SubjectPublicKeyInfo(der) => Ok(PemItem::PublicKey(der.to_vec())),
            rustls_pemfile::Item::Csr(der) => Ok(PemItem::Request(der.to_vec())),
            _ => Ok(PemItem::Other),
        })
        .collect()
}

/// Returns the certificate requests of a PEM text, in DER, under the label of RFC 7468 §7 and the older one of NSS and GnuTLS.
///
/// # Errors
/// As [`pem_items`].
pub fn requests_of_pem(text: &[u8]) -> Result<Vec<Vec<u8>>, KeyError> {
    // rustls-pemfile knows the first label only.
    let text = String::from_utf8_lossy(text).replace("NEW CERTIFICATE REQUEST-----", "CERTIFICATE REQUEST-----");
    let requests = pem_items(text.as_bytes())?.into_iter().filter_map(|item| match item {
        PemItem::Request(der) => Some(der),
        _ => None,
    });
    Ok(requests.collect())
}

/// Returns a key of an algorithm's own form inside PKCS#8.
fn wrap(algorithm: ObjectIdentifier, parameters: AnyRef<'_>, key: &[u8]) -> Result<Secret, KeyError> {
    let key = OctetStringRef::new(key).map_err(KeyError::malformed)?;
    let algorithm = AlgorithmIdentifierRef { oid: algorithm, parameters: Some(parameters) };
    let document = SecretDocument::try_from(PrivateKeyInfoRef::new(algorithm, key)).map_err(KeyError::malformed)?;
    Ok(Secret::new(std::mem::take(&mut *document.to_bytes())))
}

/// Returns the DER octets as PEM in lines of 64 characters (RFC 7468 §3), written into one buffer of the final size.
pub fn encode_pem(label: &str, der: &[u8]) -> String {
    let body = der.len().div_ceil(48) * 65;
    let mut text = String::with_capacity(body + 2 * label.len() + 40);
    text.extend(["-----BEGIN ", label, "-----\n"]);
    let mut line = Zeroizing::new([0; 64]);
    for octets in der.chunks(48) {
        // 48 octets are 64 characters: the slice never is too small, and base64 is ASCII.
        let written = BASE64.encode_slice(octets, line.as_mut_slice()).unwrap_or_default();
        text.push_str(std::str::from_utf8(line.get(..written).unwrap_or_default()).unwrap_or_default());
        text.push('\n');
    }
    text.extend(["-----END ", label, "-----\n"]);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use x509_parser::prelude::FromDer as _;

    fn passphrase(text: &str) -> Secret {
        Secret::from(text.to_owned())
    }

    #[test]
    fn every_kind_survives_pem_and_keeps_its_public_half() {
        for (kind, name) in KeyKind::ALL {
            let key = generate(kind).unwrap();
            let again = PrivateKey::from_pem(&key.to_pem()).unwrap();
            assert_eq!((key.kind(), again.kind()), (kind, kind), "{name}");
            assert!(again.matches(key.spki_der()) && again.expose_pkcs8() == key.expose_pkcs8());
            assert_eq!(format!("{key:?}"), format!("PrivateKey({name})"));
        }
    }

    #[test]
    fn a_public_key_is_made_of_what_a_token_tells_of_it() {
        let point = generate(KeyKind::P256).unwrap().public().clone();
        assert_eq!(PublicKey::p256(point.bits()).unwrap(), point);
        assert!(PublicKey::p256(&point.bits()[1..]).is_err());
        for kind in [KeyKind::Rsa2048, KeyKind::Rsa3072] {
            let key = generate(kind).unwrap();
            let parsed = x509_parser::public_key::RSAPublicKey::from_der(key.public().bits()).unwrap().1;
            assert_eq!(PublicKey::rsa(parsed.modulus, parsed.exponent).unwrap(), *key.public());
        }
        assert!(PublicKey::rsa(&[0x80; 128], &[1, 0, 1]).is_err() && PublicKey::rsa(&[], &[]).is_err());
    }

    #[test]
    fn pem_never_outgrows_its_buffer() {
        for length in 0..200 {
            let text = encode_pem("PRIVATE KEY", &vec![0xa5; length]);
            let body = length.div_ceil(48) * 65;
            assert!(text.len() <= body + 2 * "PRIVATE KEY".len() + 40, "{length}");
            assert!(text.lines().all(|line| line.len() <= 64));
        }
    }

    #[test]
    fn an_encrypted_key_opens_with_its_passphrase_only() {
        let key = generate(KeyKind::P256).unwrap();
        let pem = key.encrypt(&passphrase("right"), [1; 16], [2; 16]).unwrap();
        assert!(PrivateKey::decrypt(&pem, &passphrase("right")).unwrap().matches(key.spki_der()));
        assert_eq!(PrivateKey::decrypt(&pem, &passphrase("wrong")).err(), Some(KeyError::WrongPassphrase));
        assert!(matches!(PrivateKey::decrypt("nothing", &passphrase("right")), Err(KeyError::Missing(_))));
        assert!(matches!(PrivateKey::from_pem(&pem.into()), Err(KeyError::Missing(_))));
    }

    #[test]
    fn a_key_that_would_take_hours_to_open_is_refused_at_once() {
        let key = generate(KeyKind::P256).unwrap();
        let mut scheme = Parameters::generate_pbkdf2_sha256_aes256cbc(1, &[1; 16], [2; 16]).unwrap();
        let encrypted = scheme.encrypt("right", key.expose_pkcs8()).unwrap();
        let pkcs8::pkcs5::pbes2::Kdf::Pbkdf2(kdf) = &mut scheme.kdf else { panic!("another derivation") };
        kdf.iteration_count = u32::MAX;
        let info = EncryptedPrivateKeyInfoOwned {
            encryption_algorithm: scheme.into(),
            encrypted_data: OctetString::new(encrypted).unwrap(),
        };
        let pem = encode_pem("ENCRYPTED PRIVATE KEY", &info.to_der().unwrap());
        let refused = PrivateKey::decrypt(&pem, &passphrase("right"));
        assert!(matches!(refused, Err(KeyError::ForeignEncryption(_))), "{refused:?}");
    }

    #[test]
    fn a_key_matches_its_own_public_half_only() {
        let [one, other] = [generate(KeyKind::P256).unwrap(), generate(KeyKind::P256).unwrap()];
        assert!(one.matches(one.spki_der()) && !one.matches(other.spki_der()));
    }

    #[test]
    fn ed25519_is_no_key_for_certificates() {
        let pkcs8 = ring::signature::Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).unwrap();
        let refused = PrivateKey::from_pkcs8_der(Secret::new(pkcs8.as_ref().to_vec()));
        assert_eq!(refused.err(), Some(KeyError::UnusableKind("Ed25519".to_owned())));
    }

    #[test]
    fn ed25519_public_keys_are_those_of_rfc_8032() {
        // RFC 8032 §7.1, test 1.
        let seed = crate::names::unhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60").unwrap();
        let public = ed25519_public(&Secret::new(seed)).unwrap();
        let expected = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        assert_eq!(crate::names::hex(&public), expected);
        assert!(ed25519_public(&Secret::new(vec![0; 31])).is_err());
    }

    proptest::proptest! {
        #[test]
        fn octets_survive_pem(octets in proptest::collection::vec(proptest::num::u8::ANY, 1..1000)) {
            let items = pem_items(encode_pem("CERTIFICATE", &octets).as_bytes()).unwrap();
            assert!(matches!(&items[..], [PemItem::Certificate(der)] if *der == octets));
        }

        #[test]
        fn any_text_is_read_without_panic(text in "(-----BEGIN (CERTIFICATE|RSA PRIVATE KEY|EC PRIVATE KEY)-----\n)?[A-Za-z0-9+/=\n -]{0,200}(\n-----END (CERTIFICATE|RSA PRIVATE KEY|EC PRIVATE KEY)-----\n)?") {
            let _ = PrivateKey::from_pem(&Secret::from(text.clone()));
            let _ = PrivateKey::decrypt(&text, &Secret::from(String::new()));
        }
    }
}
