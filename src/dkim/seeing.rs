//! What authoritative name servers are asked about DKIM records, and what they say. The asking is `env`'s.

use crate::dkim::rotation::Sighting;

/// A TXT record that is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Its name, without a dot at its end.
    pub name: String,
    /// What it must hold for a receiver to act on it.
    pub wanted: WantedKey,
}

/// What a DKIM record must say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WantedKey {
    /// This key: the `k=` and the `p=` tag.
    Key {
        /// `rsa` or `ed25519`.
        algorithm: &'static str,
        /// In base64.
        public: String,
    },
    /// That it is revoked: an empty `p=`, or no record at all.
    Revoked,
}

/// What the servers say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// In all.
    pub sighting: Sighting,
    /// Every server that does not have it, by name, with the reason.
    pub lacking: Vec<(String, String)>,
}
