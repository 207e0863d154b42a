//! The certificate authority: who is who, and who is let in.
//!
//! An *issuing CA* has one key and two certificates: one that the site CA signed, so that a client's chain ends in the CA
//! that everyone of the site knows, and a self-signed *twin*. Daemons trust twins only. With one issuing CA for each client
//! certificate, to take one twin off the list is to revoke one device, without CRL and OCSP, which OpenSMTPD does not know.
//!
//! Nothing here reads a clock, draws a key, a serial or a salt, or touches a file; signatures alone draw their nonces.

pub mod audit;
pub mod bundle;
pub mod crl;
mod der;
pub mod import;
pub mod index;
pub mod inspect;
pub mod issue;
pub mod profile;
pub mod request;
pub mod trust;

pub use inspect::Certificate;

use time::OffsetDateTime;

use crate::keys::KeyError;

/// Why a certificate or a bundle cannot be made or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PkiError {
    /// The CA that should sign ends before the certificate would begin to be of use.
    #[error("the CA ended on {0}; renew it first: postseal ca renew")]
    AuthorityEnded(OffsetDateTime),
    /// The octets are no certificate.
    #[error("this is no certificate: {0}")]
    Certificate(String),
    /// A certificate and a key that were given as a pair are none.
    #[error("the private key does not belong to the certificate of `{0}`")]
    ForeignKey(String),
    /// Too few iterations for a bundle.
    #[error("a .p12 file's keys are derived with {minimum} iterations or more, not {0}", minimum = bundle::MINIMUM_ITERATIONS)]
    Iterations(u32),
    /// The key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// More days than the profile allows, or none.
    #[error("a {profile} certificate lasts 1 to {maximum} days, not {days}")]
    Lifetime {
        /// The profile's name.
        profile: &'static str,
        /// The days that were asked for.
        days: u16,
        /// The most days that the profile allows.
        maximum: u16,
    },
    /// A name that cannot stand where it should.
    #[error("{0}")]
    Name(String),
    /// The certificate that stands for a twin is none.
    #[error("`{0}` is no twin; only a twin may stand on the list of trusted CAs")]
    NoTwin(String),
    /// The password of a bundle is empty or not printable ASCII.
    #[error("the password of a .p12 file is made of printable ASCII characters, at least one")]
    Password,
    /// Two certificates of one issuer would have one serial (RFC 5280 §4.1.2.2).
    #[error("the serial {0} was given to two certificates of one issuer")]
    SameSerial(crate::names::Serial),
    /// rcgen wrote something else than it was asked for: a bug, here or there.
    #[error("internal error: the certificate of `{subject}` was not written as asked: {what}")]
    Unexpected {
        /// The certificate's subject.
        subject: String,
        /// What differs.
        what: &'static str,
    },
    /// Writing DER failed.
    #[error("internal error: {0}")]
    Writing(String),
}

/// Why something that others made is not taken, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}; {mend}")]
pub struct Refusal {
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub mend: String,
}

impl Refusal {
    fn new(problem: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { problem: problem.into(), mend: mend.into() }
    }
}

impl From<rcgen::Error> for PkiError {
    fn from(error: rcgen::Error) -> Self {
        Self::Writing(error.to_string())
    }
}
