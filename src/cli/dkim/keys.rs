//! Making DKIM keys.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;
use time::OffsetDateTime;

use crate::cli::failure::Failure;
use crate::cli::make;
use crate::dkim::rotation::Purpose;
use crate::dkim::{self, rotation::RotationError};
use crate::env::Env;
use crate::inventory::{DkimAlgorithm, DkimKey};
use crate::keys::{self, KeyKind};
use crate::names::DomainName;
use crate::plan;
use crate::secret::Secret;
use crate::site::Site;
use crate::store::Writer;
use crate::store::ledger::{LedgerError, Transaction};

/// A key that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Order {
    pub(in crate::cli) domain: DomainName,
    pub(in crate::cli) algorithm: DkimAlgorithm,
    pub(in crate::cli) purpose: Purpose,
}

/// Makes the DKIM keys that the settings ask for and the ledger lacks. A domain's first key is active at once.
pub(in crate::cli) fn make_missing(env: &dyn Env, site: &Site, store: &mut Writer) -> Result<Vec<DkimKey>, Failure> {
    let inventory = store.inventory()?;
    let missing = plan::missing_keys(site, &inventory).into_iter();
    let order =
        |(domain, algorithm): (&DomainName, _)| Order { domain: domain.clone(), algorithm, purpose: Purpose::Rotation };
    make(env, store, &missing.map(order).collect::<Vec<_>>())
}

/// Makes and records keys. What is recorded when something fails stays so, and its line says that it waits already.
pub(in crate::cli) fn make(env: &dyn Env, store: &mut Writer, orders: &[Order]) -> Result<Vec<DkimKey>, Failure> {
    let now = env.now();
    let mut made = Vec::new();
    for order in orders {
        let key = new_key(env, store, order)?;
        made.push(store.transact(|ledger| record(ledger, key.clone(), order.purpose, now))?);
    }
    Ok(made)
}

/// Makes a key, of which nothing is recorded yet.
pub(super) fn new_key(env: &dyn Env, store: &Writer, order: &Order) -> Result<DkimKey, Failure> {
    let now = env.now();
    let (domain, algorithm) = (&order.domain, order.algorithm);
    let restored = store.ledger().last_event("restored")?;
    let used = store.ledger().dkim_selectors(domain)?;
    let selector = dkim::fresh_selector(now.date(), algorithm, &used, restored)
        .ok_or_else(|| Failure::work("clock", "the clock shows no usable date", "set the clock"))?;
    let (private, public) = new_pair(env, algorithm)?;
    let stored = store.put_key(&private)?;
    Ok(DkimKey::new((domain.clone(), algorithm), selector, (public, stored), now))
}

/// Adds a key to its line, and returns it as it then is.
pub(super) fn record(
    ledger: &mut Transaction<'_>,
    key: DkimKey,
    purpose: Purpose,
    now: OffsetDateTime,
) -> Result<DkimKey, Failure> {
    let (selector, name) = (key.selector.clone(), dkim::record_name(&key.selector, &key.domain));
    let mut line = ledger.dkim_line(&key.domain, key.algorithm)?;
    line.add(key, purpose, now).map_err(unexpected)?;
    ledger.save_dkim_line(&line)?;
    ledger.set_derived_stale()?;
    let added = line.key(&selector).cloned().ok_or_else(|| unexpected(RotationError::NoSuchKey(selector)))?;
    let what = if purpose == Purpose::Import { "dkim-key-imported" } else { "dkim-key-made" };
    let detail =
        json!({ "algorithm": added.algorithm.as_str(), "state": added.state.as_str(), "standby": added.standby });
    ledger.record_event(now, what, &name, &detail)?;
    Ok(added)
}

/// What callers have looked at before; another run cannot come between, for the site is locked.
fn unexpected(error: RotationError) -> Failure {
    LedgerError::Refused(error.to_string()).into()
}

/// Returns the private key as Rspamd reads it, and the `p=` tag of its record.
fn new_pair(env: &dyn Env, algorithm: DkimAlgorithm) -> Result<(Secret, String), Failure> {
    match algorithm {
        DkimAlgorithm::Rsa => {
            let key = make::key(env, KeyKind::Rsa2048)?;
            Ok((key.to_pem(), BASE64_STANDARD.encode(key.spki_der())))
        }
        DkimAlgorithm::Ed25519 => {
            let seed = env.random(32).map_err(|error| make::no_randomness(&error))?;
            let public = BASE64_STANDARD.encode(keys::ed25519_public(&seed)?);
            Ok((seed_file(&seed), public))
        }
    }
}

/// Returns the one form of an Ed25519 key that Rspamd reads from 3.4 on: base64 of the seed. It reads PEM from 3.13.2 on only.
pub(super) fn seed_file(seed: &Secret) -> Secret {
    let mut text = Vec::with_capacity(64);
    text.resize(44, 0);
    // 32 octets are 44 characters; the room is there.
    let written = BASE64_STANDARD.encode_slice(seed.expose(), &mut text).unwrap_or_default();
    text.truncate(written);
    text.push(b'\n');
    Secret::new(text)
}
