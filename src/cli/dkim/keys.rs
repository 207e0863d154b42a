//! Making DKIM keys.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use indicatif::ProgressBar;
use serde_json::json;
use time::OffsetDateTime;

use crate::cli::failure::Failure;
use crate::cli::{make, progress};
use crate::dkim::private::PrivateHalf;
use crate::dkim::rotation::Purpose;
use crate::dkim::{self, rotation::RotationError};
use crate::env::Env;
use crate::inventory::{DkimAlgorithm, DkimKey};
use crate::keys::KeyKind;
use crate::names::{Digest, DomainName, Selector};
use crate::plan;
use crate::secret::Secret;
use crate::site::Site;
use crate::store::ledger::{LedgerError, Transaction};
use crate::store::{KeyPlace, Writer};

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

/// How many keys are recorded at once. What they wait for the disk together is a small part of what it takes to make them, and
/// what is lost to a kill is made again in seconds.
const BATCH: usize = 64;

/// A pair that waits to be recorded: the number of its order, its record's `p=` tag, and the name of its file.
type Pair = (usize, String, Digest);

/// Makes and records keys, on all cores: threads make pairs and put their files where nothing refers to them yet, and one records
/// what is ready, a batch in one transaction. What is recorded when something fails stays so, and its line says that it waits
/// already.
pub(in crate::cli) fn make(env: &dyn Env, store: &mut Writer, orders: &[Order]) -> Result<Vec<DkimKey>, Failure> {
    let mut made = Vec::with_capacity(orders.len());
    let (place, next) = (store.key_place().in_bulk(), AtomicUsize::new(0));
    let progress = progress::bar(env, orders.len(), "DKIM keys");
    let outcome = thread::scope(|scope| {
        // Bounded: who makes waits for who records, and not in memory.
        let (sender, receiver) = sync_channel(BATCH);
        for _ in 0..make::cores().min(orders.len()) {
            let (sender, place, next) = (sender.clone(), &place, &next);
            scope.spawn(move || make_pairs(env, orders, next, place, &sender));
        }
        drop(sender);
        record_all(env, store, orders, &place, &receiver, &mut made, &progress)
    });
    progress.finish_and_clear();
    match outcome {
        Err(failure) if made.is_empty() => Err(failure),
        Err(failure) => Err(failure.stopped(&recorded(made.len()))),
        Ok(()) => {
            // As they were ordered, not as they were ready.
            made.sort_by_key(|(number, _)| *number);
            Ok(made.into_iter().map(|(_, key)| key).collect())
        }
    }
}

fn recorded(count: usize) -> String {
    if count == 1 { "1 DKIM key is".to_owned() } else { format!("{count} DKIM keys are") }
}

/// Makes pairs until there is nothing left to do, or nobody who takes them. Their private halves are wiped once they are written.
fn make_pairs(
    env: &dyn Env,
    orders: &[Order],
    next: &AtomicUsize,
    place: &KeyPlace,
    made: &SyncSender<Result<Pair, Failure>>,
) {
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let Some(order) = orders.get(number) else { break };
        let pair =
            new_pair(env, order.algorithm).and_then(|(private, public)| Ok((number, public, place.put(&private)?)));
        let failed = pair.is_err();
        if made.send(pair).is_err() || failed {
            break;
        }
    }
}

/// Records pairs as they come, a batch at a time, each with the number of its order.
fn record_all(
    env: &dyn Env,
    store: &mut Writer,
    orders: &[Order],
    place: &KeyPlace,
    pairs: &Receiver<Result<Pair, Failure>>,
    made: &mut Vec<(usize, DkimKey)>,
    progress: &ProgressBar,
) -> Result<(), Failure> {
    let (now, restored) = (env.now(), store.ledger().last_event("restored")?);
    loop {
        let (mut batch, mut ended) = (Vec::with_capacity(BATCH), None);
        while batch.len() < BATCH && ended.is_none() {
            match pairs.recv() {
                Ok(Ok(pair)) => {
                    batch.push(pair);
                    progress.inc(1);
                }
                Ok(Err(failure)) => ended = Some(Err(failure)),
                // All are made.
                Err(_) => ended = Some(Ok(())),
            }
        }
        if !batch.is_empty() {
            place.catch_up()?;
            batch.sort_by_key(|(number, ..)| *number);
            let keys = store.transact(|ledger| {
                let pairs =
                    batch.iter().filter_map(|(number, public, key)| Some((*number, orders.get(*number)?, public, key)));
                let record = |(number, order, public, key): (usize, &Order, &String, &Digest)| {
                    let used = ledger.dkim_selectors(&order.domain)?;
                    let selector = fresh_selector(now, order.algorithm, &used, restored)?;
                    let whose = (order.domain.clone(), order.algorithm);
                    let key = DkimKey::new(whose, selector, (public.clone(), *key), now);
                    Ok::<_, Failure>((number, record(ledger, key, order.purpose, now)?))
                };
                pairs.map(record).collect::<Result<Vec<_>, Failure>>()
            })?;
            made.extend(keys);
        }
        if let Some(ended) = ended {
            return ended;
        }
    }
}

fn fresh_selector(
    now: OffsetDateTime,
    algorithm: DkimAlgorithm,
    used: &[Selector],
    restored: Option<OffsetDateTime>,
) -> Result<Selector, Failure> {
    dkim::fresh_selector(now.date(), algorithm, used, restored)
        .ok_or_else(|| Failure::work("clock", "the clock shows no usable date", "set the clock"))
}

/// Makes a key, of which nothing is recorded yet.
pub(super) fn new_key(env: &dyn Env, store: &Writer, order: &Order) -> Result<DkimKey, Failure> {
    let now = env.now();
    let (domain, algorithm) = (&order.domain, order.algorithm);
    let restored = store.ledger().last_event("restored")?;
    let selector = fresh_selector(now, algorithm, &store.ledger().dkim_selectors(domain)?, restored)?;
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
    line.add(key, purpose, now).map_err(|error| unexpected(&error))?;
    ledger.save_dkim_line(&line)?;
    ledger.set_derived_stale()?;
    let added = line.key(&selector).cloned().ok_or_else(|| unexpected(&RotationError::NoSuchKey(selector)))?;
    let what = if purpose == Purpose::Import { "dkim-key-imported" } else { "dkim-key-made" };
    let detail =
        json!({ "algorithm": added.algorithm.as_str(), "state": added.state.as_str(), "standby": added.standby });
    ledger.record_event(now, what, &name, &detail)?;
    Ok(added)
}

/// What callers have looked at before; another run cannot come between, for the site is locked.
fn unexpected(error: &RotationError) -> Failure {
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
            let half = PrivateHalf::of_seed(&seed).map_err(|error| make::no_randomness(&io::Error::other(error)))?;
            Ok(half.into_parts())
        }
    }
}
