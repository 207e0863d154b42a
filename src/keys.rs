//! Private keys: their kinds, forms, and what can be derived from them. Keys are made in `env`, where randomness is.

use std::fmt;
use std::str::FromStr;

use crate::names::{NameError, shown};

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
