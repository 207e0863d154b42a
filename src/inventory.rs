//! What exists, as recorded: certificates, DKIM keys, accounts. Facts only, never a private key or a password hash; files
//! that hold those are referred to by what they are and their digest.

use time::OffsetDateTime;

use crate::names::{DeviceName, Digest, DomainName, HostName, MailAddress, Selector, Serial};
use crate::stages::{Stage, Track};

/// Everything the ledger knows that rendering needs, or, in CI, the public part of it from `postseal.lock`.
///
/// Every list is sorted as its element type says, so that equal ledgers give equal bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// The site CA, once there is one.
    pub site_ca: Option<SiteCa>,
    /// Live server certificates, one for each host, sorted by host.
    pub server_certificates: Vec<ServerCertificate>,
    /// Keys of the servers' next certificates, sorted by host.
    pub next_keys: Vec<NextKey>,
    /// Issuing CAs for all clients, the oldest first; when read from the lock, the live ones, without successor and CRL.
    pub issuing_cas: Vec<IssuingCa>,
    /// DKIM keys that are not destroyed, sorted by domain, algorithm, selector; when read from the lock, their
    /// [`DkimKey::public_part`].
    pub dkim_keys: Vec<DkimKey>,
    /// Where domains stand on the way to their policies, sorted by domain and track; who is not in it stands at the beginning.
    /// When read from the lock, their [`Rollout::public_part`].
    pub rollouts: Vec<Rollout>,
    /// Accounts, sorted by address; empty when read from the lock.
    pub users: Vec<User>,
    /// Client certificates of every status, sorted by address, device, time of issue; empty when read from the lock.
    pub client_certificates: Vec<ClientCertificate>,
    /// The digest of the credentials table; none when read from the lock.
    pub credentials: Option<Digest>,
    /// The digest of the list of twins that daemons trust; none when read from the lock.
    pub trust_list: Option<Digest>,
    /// The digest of the CRLs, one after the other; none without any, and when read from the lock.
    pub crls: Option<Digest>,
    /// The digest of the list of twins followed by the CRLs; none without any CRL, and when read from the lock.
    pub twins_and_crls: Option<Digest>,
}

impl Inventory {
    /// Returns the part that everybody may know, which is what `postseal.lock` holds.
    #[must_use]
    pub fn public_part(&self) -> Self {
        Self {
            site_ca: self.site_ca.clone(),
            server_certificates: self.server_certificates.clone(),
            next_keys: self.next_keys.clone(),
            issuing_cas: self.live_issuing_cas().map(IssuingCa::public_part).collect(),
            dkim_keys: self.dkim_keys.iter().map(DkimKey::public_part).collect(),
            rollouts: self.rollouts.iter().filter_map(Rollout::public_part).collect(),
            ..Self::default()
        }
    }

    /// Returns the DKIM keys of a domain.
    pub fn dkim_keys_of(&self, domain: &DomainName) -> &[DkimKey] {
        let from = self.dkim_keys.partition_point(|key| key.domain < *domain);
        let behind = self.dkim_keys.partition_point(|key| key.domain <= *domain);
        self.dkim_keys.get(from..behind).unwrap_or_default()
    }

    /// Returns where a domain stands on a track, if that is recorded.
    pub fn rollout(&self, domain: &DomainName, track: Track) -> Option<&Rollout> {
        let at = self.rollouts.binary_search_by(|one| (&one.domain, one.stage.track()).cmp(&(domain, track))).ok()?;
        self.rollouts.get(at)
    }

    /// Returns the issuing CAs for all clients whose twins daemons trust.
    pub fn live_issuing_cas(&self) -> impl Iterator<Item = &IssuingCa> {
        self.issuing_cas.iter().filter(|ca| ca.status == CertificateStatus::Live)
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
    /// SHA-256 of the key (`SubjectPublicKeyInfo`) of the certificate before it, which the host shows until this one is installed.
    pub former: Option<Digest>,
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

/// Where a DKIM key stands in its life; it never goes back. [`crate::dkim::rotation`] moves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DkimState {
    /// Its record is to be published, and no authoritative server was seen to have it.
    Generated,
    /// An authoritative server has its record, or an administrator says so.
    Published,
    /// Signs.
    Active,
    /// Signs no more; mail that it signed may still be on its way, so its record stays.
    Retiring,
    /// Its record says that it is revoked: an empty `p=` (RFC 6376 §3.6.1).
    Revoked,
    /// Its record and its private half are gone; the selector stays used.
    Destroyed,
}

impl DkimState {
    /// Every state, in the order of life.
    pub const ALL: [Self; 6] =
        [Self::Generated, Self::Published, Self::Active, Self::Retiring, Self::Revoked, Self::Destroyed];

    /// Returns the state's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Generated => "generated",
            Self::Published => "published",
            Self::Active => "active",
            Self::Retiring => "retiring",
            Self::Revoked => "revoked",
            Self::Destroyed => "destroyed",
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
    /// When it was made, or came from elsewhere.
    pub made: OffsetDateTime,
    /// Since when it stands there.
    pub since: OffsetDateTime,
    /// Whether it waits for an emergency, and not for its turn.
    pub standby: bool,
    /// Since when every authoritative server has the record that the state asks for; none as long as that is not known.
    pub seen: Option<OffsetDateTime>,
    /// Whether [`Self::seen`] is an administrator's word, so that no server needs to be asked.
    pub confirmed: bool,
    /// How long others may keep its record, in seconds, as the servers say.
    pub ttl: Option<u32>,
    /// How long others may remember that there is no such record, in seconds (RFC 2308 §5).
    pub negative_ttl: Option<u32>,
    /// Since when no host signs with it any more.
    pub unused: Option<OffsetDateTime>,
    /// The `p=` tag: base64 of the SubjectPublicKeyInfo (RSA) or of the 32 raw octets (Ed25519).
    pub public: String,
    /// The private key's file below `state/keys`.
    pub key: Digest,
}

impl DkimKey {
    /// Makes a key that nothing became of yet; `key` names the private half's file below `state/keys`.
    pub fn new(
        (domain, algorithm): (DomainName, DkimAlgorithm),
        selector: Selector,
        (public, key): (String, Digest),
        made: OffsetDateTime,
    ) -> Self {
        Self {
            domain,
            algorithm,
            selector,
            state: DkimState::Generated,
            made,
            since: made,
            standby: false,
            seen: None,
            confirmed: false,
            ttl: None,
            negative_ttl: None,
            unused: None,
            public,
            key,
        }
    }

    /// Tells whether it signs, and nobody knows whether receivers can verify that.
    pub fn is_unconfirmed(&self) -> bool {
        self.state == DkimState::Active && self.seen.is_none()
    }

    /// Returns what rendering depends on: what was seen of name servers changes no file.
    #[must_use]
    pub fn public_part(&self) -> Self {
        let (state, since) = match self.state {
            DkimState::Generated | DkimState::Published => (DkimState::Published, self.made),
            state => (state, self.since),
        };
        let made = Self::new(
            (self.domain.clone(), self.algorithm),
            self.selector.clone(),
            (self.public.clone(), self.key),
            since,
        );
        Self { state, ..made }
    }
}

/// Where a domain stands on the way to one of its policies. [`crate::policy::rollout`] moves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollout {
    /// The domain.
    pub domain: DomainName,
    /// The stage, and so the track.
    pub stage: Stage,
    /// Since when it stands there.
    pub since: OffsetDateTime,
    /// Since when every authoritative name server has the stage's record; the waits for the next stage begin then.
    pub seen: Option<OffsetDateTime>,
    /// When it was last found that evidence for the next stage is missing.
    pub looked: Option<OffsetDateTime>,
    /// Of MTA-STS: the longest `max_age` of an enforced policy that a sender may remember, in seconds; none if nobody does.
    /// While there is one, [`Self::mx`] are the hosts that MX records name.
    pub max_age: Option<u32>,
    /// Of MTA-STS: the hosts that MX records name, sorted. Without [`Self::max_age`] it is only known which they were.
    pub mx: Vec<HostName>,
    /// The hosts that the MTA-STS policy lists beside those, because they come or they leave; sorted.
    pub also: Vec<HostName>,
    /// Of a change of MX records while a policy is remembered: how far it is.
    pub change: Option<MxChange>,
}

/// How far a change of MX records is while senders remember an enforced MTA-STS policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MxChange {
    /// The step.
    pub step: MxStep,
    /// When it was recorded.
    pub since: OffsetDateTime,
    /// Since when every authoritative name server has what it publishes.
    pub seen: Option<OffsetDateTime>,
}

/// The steps of a change of MX records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MxStep {
    /// The policy lists the hosts that come; MX records are as before.
    Announced,
    /// MX records name them; the policy still lists those that left.
    Moved,
}

impl MxStep {
    /// Every step, in their order.
    pub const ALL: [Self; 2] = [Self::Announced, Self::Moved];

    /// Returns the step's name in the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Announced => "announced",
            Self::Moved => "moved",
        }
    }
}

impl Rollout {
    /// Makes the record of a domain that enters a stage.
    pub fn new(domain: DomainName, stage: Stage, since: OffsetDateTime) -> Self {
        let (mx, also) = (Vec::new(), Vec::new());
        Self { domain, stage, since, seen: None, looked: None, max_age: None, mx, also, change: None }
    }

    /// Returns what rendering depends on; none if that is nothing, for the domain stands where it would without a record.
    pub fn public_part(&self) -> Option<Self> {
        let is_plain = self.stage == Stage::first(self.stage.track()) && self.max_age.is_none();
        let mx = if self.max_age.is_some() { self.mx.clone() } else { Vec::new() };
        let public = Self::new(self.domain.clone(), self.stage, self.since);
        (!is_plain).then(|| Self { max_age: self.max_age, mx, also: self.also.clone(), ..public })
    }
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

/// What a certificate is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CertificateStatus {
    /// Daemons admit it: it, or the CA that issued it, is on the trust list until its end is recorded.
    Live,
    /// It came back with a restored ledger and may have been revoked since: not admitted until an administrator confirms it.
    Held,
    /// Its end is recorded: it ran out, or the overlap with the one that took its place is over.
    Expired,
    /// It was revoked.
    Revoked,
}

impl CertificateStatus {
    /// Every status.
    pub const ALL: [Self; 4] = [Self::Live, Self::Held, Self::Expired, Self::Revoked];

    /// Returns the status's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Held => "held",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

/// Why a certificate is revoked (RFC 5280 §5.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The account or the host is gone.
    CessationOfOperation,
    /// The device is lost, or the key was seen.
    KeyCompromise,
    /// A newer one takes its place.
    Superseded,
    /// No reason was given.
    Unspecified,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::CessationOfOperation, Self::KeyCompromise, Self::Superseded, Self::Unspecified];

    /// Returns the reason's name in RFC 5280.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CessationOfOperation => "cessationOfOperation",
            Self::KeyCompromise => "keyCompromise",
            Self::Superseded => "superseded",
            Self::Unspecified => "unspecified",
        }
    }
}

/// When and why something was revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// When.
    pub at: OffsetDateTime,
    /// Why.
    pub reason: Reason,
}

/// What took a certificate's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Successor {
    /// The serial of the newer certificate.
    pub serial: Serial,
    /// Until when both are admitted.
    pub retires_at: OffsetDateTime,
}

/// The issuing CA for all clients, of `trust = "ca"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuingCa {
    /// The serial of its certificate from the site CA.
    pub serial: Serial,
    /// Live or not.
    pub status: CertificateStatus,
    /// When it ends.
    pub not_after: OffsetDateTime,
    /// The newer one, from when on it issues nothing any more.
    pub successor: Option<Successor>,
    /// Its newest CRL.
    pub crl: Option<Crl>,
}

impl IssuingCa {
    fn public_part(&self) -> Self {
        Self { successor: None, crl: None, ..self.clone() }
    }
}

/// A CRL, without its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crl {
    /// Its number (RFC 5280 §5.2.3).
    pub number: u32,
    /// When it was made.
    pub this_update: OffsetDateTime,
    /// When those who heed it refuse everybody, unless they have a newer one.
    pub next_update: OffsetDateTime,
}

/// The key that a host's next certificate will have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextKey {
    /// The host.
    pub host: HostName,
    /// The private key's file below `state/keys`.
    pub key: Digest,
    /// SHA-256 of its SubjectPublicKeyInfo, as TLSA 3 1 1 has it (RFC 6698 §2.1).
    pub spki: Digest,
    /// Since when it waits.
    pub since: OffsetDateTime,
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
    /// The newer one of the same device.
    pub successor: Option<Successor>,
    /// The issuing CA for all that issued it; none if it has one of its own, with a twin of its own.
    pub issuer: Option<Serial>,
    /// When and why it was revoked.
    pub revocation: Option<Revocation>,
    /// Whether the person made the key, which was never here.
    pub theirs: bool,
    /// When the person had it, so that what they were given was removed here.
    pub handed_over: Option<OffsetDateTime>,
}

impl ClientCertificate {
    /// Tells whether daemons admit it, as far as is recorded.
    pub fn is_live(&self) -> bool {
        self.status == CertificateStatus::Live
    }

    /// Tells whether it is its device's newest: not ended, not revoked, not replaced.
    pub fn is_current(&self) -> bool {
        matches!(self.status, CertificateStatus::Live | CertificateStatus::Held) && self.successor.is_none()
    }

    /// Returns from when on it is admitted no longer.
    pub fn ends_at(&self) -> OffsetDateTime {
        self.successor.map_or(self.not_after, |successor| successor.retires_at.min(self.not_after))
    }
}
