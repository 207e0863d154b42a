//! Verifies DKIM signatures as receivers do (RFC 6376 §6): by keys that are given, or by what DNS has.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use mail_auth::common::crypto::Algorithm;
use mail_auth::common::parse::TxtRecordParser as _;
use mail_auth::common::verify::DomainKey;
use mail_auth::{AuthenticatedMessage, DkimOutput, DkimResult, MessageAuthenticator, Parameters, ResolverCache, Txt};

use crate::dkim;
use crate::host::HostError;
use crate::inventory::{DkimAlgorithm, DkimKey};
use crate::names::visible;

/// What became of one signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// `d=`
    pub domain: String,
    /// `s=`
    pub selector: String,
    /// `a=`, if it is one of ours.
    pub algorithm: Option<DkimAlgorithm>,
    /// The verdict.
    pub verdict: Verdict,
}

/// What a receiver would say of a signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is good.
    Good,
    /// It is not, and why.
    Bad(String),
    /// DNS does not answer, so nobody knows.
    Unknown(String),
}

/// Verifies signatures.
pub struct Verifier {
    runtime: tokio::runtime::Runtime,
    live: MessageAuthenticator,
}

/// How long DNS is waited for, and how often it is asked again.
const PATIENCE: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 1;

impl Verifier {
    /// Makes one that asks DNS by a resolver; none is the system's own.
    pub fn new(resolver: Option<SocketAddr>) -> Result<Self, HostError> {
        let failed = |source| HostError::io("make", "a resolver".into(), source);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let (config, mut options) = match resolver {
            // A system without a resolver is one that does not answer.
            None => hickory_resolver::system_conf::read_system_conf().unwrap_or_else(|_| {
                (ResolverConfig::from_parts(None, Vec::new(), Vec::new()), ResolverOpts::default())
            }),
            Some(address) => (by(address), ResolverOpts::default()),
        };
        options.timeout = PATIENCE;
        options.attempts = ATTEMPTS;
        // A record that was just switched is what is asked for.
        options.cache_size = 0;
        let live = MessageAuthenticator::new(config, options).map_err(io::Error::other).map_err(failed)?;
        Ok(Self { runtime, live })
    }

    /// Verifies every signature of a message by the keys, whatever DNS has.
    pub fn by_keys(&self, message: &[u8], keys: &[DkimKey]) -> Vec<Checked> {
        let record = |key: &DkimKey| {
            let name = format!("{}.", dkim::record_name(&key.selector, &key.domain)).into_boxed_str();
            Some((name, Arc::new(DomainKey::parse(dkim::record_text(key).as_bytes()).ok()?)))
        };
        self.verify(message, &Known { records: keys.iter().filter_map(record).collect(), is_all: true })
    }

    /// Verifies every signature of a message by what DNS has now.
    pub fn by_dns(&self, message: &[u8]) -> Vec<Checked> {
        self.verify(message, &Known { records: HashMap::new(), is_all: false })
    }

    fn verify(&self, message: &[u8], known: &Known) -> Vec<Checked> {
        let Some(message) = AuthenticatedMessage::parse(message) else { return Vec::new() };
        let parameters = Parameters::new(&message).with_txt_cache(known);
        let outputs = self.runtime.block_on(self.live.verify_dkim(parameters));
        outputs.iter().map(checked).collect()
    }
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").finish_non_exhaustive()
    }
}

fn by(address: SocketAddr) -> ResolverConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = address.port();
        connection
    });
    let server = NameServerConfig::new(address.ip(), true, connections.into());
    ResolverConfig::from_parts(None, Vec::new(), vec![server])
}

fn checked(output: &DkimOutput<'_>) -> Checked {
    let (domain, selector, algorithm) = output.signature().map_or_else(Default::default, |signature| {
        let algorithm = match signature.a {
            Algorithm::RsaSha256 => Some(DkimAlgorithm::Rsa),
            Algorithm::Ed25519Sha256 => Some(DkimAlgorithm::Ed25519),
            Algorithm::RsaSha1 => None,
        };
        (signature.d.clone(), signature.s.clone(), algorithm)
    });
    let verdict = match output.result() {
        DkimResult::Pass => Verdict::Good,
        DkimResult::TempError(error) => Verdict::Unknown(visible(&error.to_string())),
        DkimResult::Neutral(error) | DkimResult::Fail(error) | DkimResult::PermError(error) => {
            Verdict::Bad(visible(&error.to_string()))
        }
        DkimResult::None => Verdict::Bad("there is no signature".to_owned()),
    };
    Checked { domain, selector, algorithm, verdict }
}

/// Records that are known without asking.
struct Known {
    records: HashMap<Box<str>, Arc<DomainKey>>,
    /// Whether DNS is not asked for others: they do not exist.
    is_all: bool,
}

impl ResolverCache<Box<str>, Txt> for Known {
    fn get<Q>(&self, name: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let none = || self.is_all.then_some(Txt::Error(mail_auth::Error::NoHeadersFound));
        self.records.get(name).map(|key| Txt::DomainKey(Arc::clone(key))).or_else(none)
    }

    fn remove<Q>(&self, _name: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        None
    }

    fn insert(&self, _key: Box<str>, _value: Txt, _valid_until: std::time::Instant) {}
}
