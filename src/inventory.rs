//! What exists, as recorded: certificates, DKIM keys, accounts. Facts only, never a private key or a password hash; files
//! that hold those are referred to by what they are and their digest.

use time::OffsetDateTime;

use crate::names::{DeviceName, Digest, DomainName, HostName, MailAddress, Selector, Serial};

/// Everything the ledger knows that rendering needs, or, in CI, the public part of it from `postseal.lock`.
///
/// Every list is sorted as its element type says, so that equal ledgers give equal bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// The site CA, once there is one.
    pub site_ca: Option<SiteCa>,
    /// Live server certificates, sorted by host.
    pub server_certificates: Vec<ServerCertificate>,
    /// DKIM keys that still matter to DNS or Rspamd, sorted by domain, algorithm, selector.
    pub dkim_keys: Vec<DkimKey>,
    /// Accounts, sorted by address; empty when read from the lock.
    pub users: Vec<User>,
    /// Client certificates of every status, sorted by address, device, time of issue; empty when read from the lock.
    pub client_certificates: Vec<ClientCertificate>,
    /// The digest of the credentials table; none when read from the lock.
    pub credentials: Option<Digest>,
    /// The digest of the list of twins that daemons trust; none when read from the lock.
    pub trust_list: Option<Digest>,
}

impl Inventory {
    /// Returns the part that everybody may know, which is what `postseal.lock` holds.
    #[must_use]
    pub fn public_part(&self) -> Self {
        Self {
            site_ca: self.site_ca.clone(),
            server_certificates: self.server_certificates.clone(),
            dkim_keys: self.dkim_keys.clone(),
            ..Self::default()
        }
    }
}

/// The CA that everyone of the site knows; no daemon trusts it for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteCa {
    /// The certificate as PEM.
    pub certificate: String,
    /// When it ends.
    pub not_after: OffsetDateTime,
}

/// A server certificate that the site CA issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerCertificate {
    /// The host it is for.
    pub host: HostName,
    /// Its serial; names the files on the host, so that certificate and key switch together.
    pub serial: Serial,
    /// Certificate and site CA as PEM, in the order a server sends them.
    pub chain: String,
    /// The key's file below `state/keys`.
    pub key: Digest,
    /// When it ends.
    pub not_after: OffsetDateTime,
}

/// The algorithm of a DKIM key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DkimAlgorithm {
    /// RSA with SHA-256 (RFC 6376, RFC 8301).
    Rsa,
    /// Ed25519 with SHA-256 (RFC 8463).
    Ed25519,
}

impl DkimAlgorithm {
    /// Every algorithm.
    pub const ALL: [Self; 2] = [Self::Rsa, Self::Ed25519];

    /// Returns the value of the `k=` tag.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rsa => "rsa",
            Self::Ed25519 => "ed25519",
        }
    }

    /// Returns the last letter of a dated selector.
    pub fn letter(self) -> char {
        match self {
            Self::Rsa => 'r',
            Self::Ed25519 => 'e',
        }
    }
}

/// Where a DKIM key stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DkimState {
    /// Signs.
    Active,
}

impl DkimState {
    /// Every state.
    pub const ALL: [Self; 1] = [Self::Active];

    /// Returns the state's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
        }
    }
}

/// A DKIM key pair, of which only the public half is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DkimKey {
    /// The domain that signs (`d=`).
    pub domain: DomainName,
    /// The algorithm.
    pub algorithm: DkimAlgorithm,
    /// The selector (`s=`).
    pub selector: Selector,
    /// Where it stands.
    pub state: DkimState,
    /// Since when it stands there.
    pub since: OffsetDateTime,
    /// The `p=` tag: base64 of the SubjectPublicKeyInfo (RSA) or of the 32 raw octets (Ed25519).
    pub public: String,
    /// The private key's file below `state/keys`.
    pub key: Digest,
}

/// An account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The mailbox, which is the login too.
    pub address: MailAddress,
    /// The further addresses that the login may send as, sorted.
    pub senders: Vec<MailAddress>,
    /// When the account was made.
    pub since: OffsetDateTime,
}

/// What a client certificate is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CertificateStatus {
    /// Its twin is on the trust list, until it expires.
    Live,
    /// Its twin was taken off the trust list.
    Revoked,
}

impl CertificateStatus {
    /// Every status.
    pub const ALL: [Self; 2] = [Self::Live, Self::Revoked];

    /// Returns the status's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Revoked => "revoked",
        }
    }
}

/// A client certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Whose it is.
    pub address: MailAddress,
    /// On which device.
    pub device: DeviceName,
    /// Its serial.
    pub serial: Serial,
    /// SHA-256 of the DER form, as OpenSMTPD logs it.
    pub fingerprint: Digest,
    /// Live or not.
    pub status: CertificateStatus,
    /// When it began.
    pub not_before: OffsetDateTime,
    /// When it ends.
    pub not_after: OffsetDateTime,
}
