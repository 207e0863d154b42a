//! The life of DKIM keys, with time as an argument: generated, published, active, retiring, revoked, destroyed.
//!
//! A [`Line`] is all keys of one domain and algorithm. What holds for every line, at every time (`tests/rotation.rs`):
//!
//! * At most one key is active; once one was, one is, unless the settings give the algorithm up.
//! * A line's first key is active at once, unconfirmed: a signature that nobody can verify is no worse than none. After that a
//!   key becomes active only once every authoritative server had its record, or an administrator said so, and those who asked
//!   before may have forgotten that there was none. There are two exceptions, both in the place of what is of no use any more:
//!   the successor of a revoked key, and a key from elsewhere in the place of one that nobody can verify.
//! * What signed leaves only when its successor signs, and stays published until all mail that it signed is delivered or given
//!   up and forgotten by resolvers.
//! * A wait begins when what is waited for has happened: seen on the servers, in force on the hosts.
//!
//! Nothing here knows how servers are asked or files installed; both are told to the line.

use time::{Duration, OffsetDateTime};

use crate::inventory::{DkimAlgorithm, DkimKey, DkimState};
use crate::names::{Digest, DomainName, Selector};

/// How long a mail may be on its way: sending hosts give up after four to five days (RFC 5321 §4.5.4.1).
pub const QUEUE_LIFETIME: Duration = Duration::days(5);

/// The least time between a record seen everywhere and its use: behind one address of a server may stand several.
pub const LEAST_WAIT: Duration = Duration::hours(1);

/// How long it may be remembered that there is no record, if no server said so: what BIND keeps at most (`max-ncache-ttl`).
pub const UNKNOWN_NEGATIVE_TTL: u32 = 3 * 3600;

/// How long a record may be remembered, if no server said so: what resolvers keep at most by default.
pub const UNKNOWN_TTL: u32 = 86_400;

/// Resolvers keep nothing longer, whatever a record says (RFC 8767 §4; RFC 2308 §5 for what is not there).
const LONGEST_TTL: u32 = 7 * 86_400;
const LONGEST_NEGATIVE_TTL: u32 = 86_400;

/// What the authoritative servers of a zone say of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sighting {
    /// All that there are have it.
    Everywhere {
        /// How long it may be kept, in seconds.
        ttl: u32,
        /// How long it may be remembered that there is none, in seconds.
        negative_ttl: u32,
    },
    /// At least one has it, and at least one does not, or does not answer.
    Somewhere,
    /// None has it, and at least one answers.
    Nowhere,
    /// None answers.
    Unknown,
}

/// What a new key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To take over when its record is seen.
    Rotation,
    /// To be there in an emergency.
    Standby,
    /// It signs elsewhere already.
    Import,
}

/// What a line does when it is to rotate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// A key waits for its turn already.
    UnderWay(Selector),
    /// The standby key has its turn now.
    Standby(Selector),
    /// There is no key yet that could.
    NeedsKey,
}

/// What time brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The key signs now, in the place of the other one.
    Activated(Selector, Option<Selector>),
    /// The key's record now says that it is revoked.
    Revoked(Selector),
    /// The key is gone.
    Destroyed(Selector),
}

/// What a run did to a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Whether the line was ended, for the settings do not want it.
    pub withdrawn: bool,
    /// The keys that every server was seen to have, for the first time or again.
    pub seen: Vec<Selector>,
    /// What time brought.
    pub steps: Vec<Step>,
}

impl Moved {
    /// Tells whether what is rendered changed.
    pub fn is_rendered(&self) -> bool {
        self.withdrawn || !self.steps.is_empty()
    }
}

/// Why a line does not do what it was told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RotationError {
    /// The line has no such key, or it is destroyed.
    #[error("`{0}` is no key that is there")]
    NoSuchKey(Selector),
    /// It is revoked already.
    #[error("`{0}` is revoked already")]
    RevokedAlready(Selector),
    /// What it waits for is not to be confirmed.
    #[error("`{0}` waits for no name server")]
    NothingToConfirm(Selector),
    /// Another key waits in that place.
    #[error("`{0}` waits already")]
    Waiting(Selector),
    /// It was used before.
    #[error("the selector `{0}` was used before")]
    Used(Selector),
}

/// The keys of one domain and algorithm that are not destroyed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    domain: DomainName,
    algorithm: DkimAlgorithm,
    keys: Vec<DkimKey>,
}

impl Line {
    /// Puts keys together, which all are of the domain and algorithm.
    pub fn new(domain: DomainName, algorithm: DkimAlgorithm, keys: Vec<DkimKey>) -> Self {
        Self { domain, algorithm, keys }
    }

    /// Returns the domain.
    pub fn domain(&self) -> &DomainName {
        &self.domain
    }

    /// Returns the algorithm.
    pub fn algorithm(&self) -> DkimAlgorithm {
        self.algorithm
    }

    /// Returns the keys; one that was destroyed by this very line is among them.
    pub fn keys(&self) -> &[DkimKey] {
        &self.keys
    }

    /// Returns the key that signs.
    pub fn active(&self) -> Option<&DkimKey> {
        self.keys.iter().find(|key| key.state == DkimState::Active)
    }

    /// Returns the key that waits for its turn.
    pub fn candidate(&self) -> Option<&DkimKey> {
        self.keys.iter().find(|key| is_waiting(key) && !key.standby)
    }

    /// Returns the key that waits for an emergency.
    pub fn standby(&self) -> Option<&DkimKey> {
        self.keys.iter().find(|key| is_waiting(key) && key.standby)
    }

    /// Returns the key of a selector.
    pub fn key(&self, selector: &Selector) -> Option<&DkimKey> {
        self.keys.iter().find(|key| key.selector == *selector && key.state != DkimState::Destroyed)
    }

    /// Returns the keys whose record name servers are to be asked for now: what was not yet seen on all of them, and what
    /// would sign now, for a last look.
    pub fn to_look_at(&self, now: OffsetDateTime) -> impl Iterator<Item = &DkimKey> {
        self.keys.iter().filter(move |key| !key.confirmed && wants_look(key, now))
    }

    /// Adds a new key. The line's first one signs at once, as does one from elsewhere in the place of one that nobody can
    /// verify.
    ///
    /// # Errors
    /// [`RotationError::Waiting`] if another one waits for the same, [`RotationError::Used`] for a selector that is there.
    pub fn add(&mut self, key: DkimKey, purpose: Purpose, now: OffsetDateTime) -> Result<(), RotationError> {
        if self.keys.iter().any(|old| old.selector == key.selector) {
            return Err(RotationError::Used(key.selector));
        }
        let key = DkimKey { state: DkimState::Generated, since: now, standby: purpose == Purpose::Standby, ..key };
        let at_once = match self.active() {
            None => true,
            Some(active) => purpose == Purpose::Import && active.is_unconfirmed(),
        };
        if at_once {
            let selector = key.selector.clone();
            self.keys.push(DkimKey { standby: false, ..key });
            self.activate(&selector, now);
            return Ok(());
        }
        let waiting = if key.standby { self.standby() } else { self.candidate() };
        if let Some(waiting) = waiting {
            return Err(RotationError::Waiting(waiting.selector.clone()));
        }
        self.keys.push(key);
        Ok(())
    }

    /// Begins a rotation.
    pub fn rotate(&mut self) -> Turn {
        if let Some(candidate) = self.candidate() {
            return Turn::UnderWay(candidate.selector.clone());
        }
        let Some(standby) = self.standby().map(|key| key.selector.clone()) else { return Turn::NeedsKey };
        self.change(&standby, |key| key.standby = false);
        Turn::Standby(standby)
    }

    /// Does all that a run does for a line: mends what a wrong clock wrote, takes in what the servers said of [`Self::to_look_at`], ends the line if the settings
    /// do not want it, and does what time brings.
    pub fn run(&mut self, answers: &[(Selector, Sighting)], wanted: bool, now: OffsetDateTime) -> Moved {
        self.mend_clock(now);
        let (mut seen, mut everywhere) = (Vec::new(), Vec::new());
        for (selector, sighting) in answers {
            let was_unseen = self.key(selector).is_some_and(|key| key.seen.is_none());
            self.look(selector, *sighting, now);
            if matches!(sighting, Sighting::Everywhere { .. }) {
                everywhere.push(selector.clone());
                if was_unseen {
                    seen.push(selector.clone());
                }
            }
        }
        // After the answers, which are about the records that there were: the end of a line changes what they ask for.
        let withdrawn = !wanted && self.withdraw(now);
        let steps = self.advance(&everywhere, now);
        Moved { withdrawn, seen, steps }
    }

    /// Takes in what the servers said of a key's record.
    pub fn look(&mut self, selector: &Selector, sighting: Sighting, now: OffsetDateTime) {
        self.change(selector, |key| {
            if key.confirmed {
                return;
            }
            match sighting {
                Sighting::Everywhere { ttl, negative_ttl } => {
                    publish(key, now);
                    let now = not_before(key, now);
                    key.seen.get_or_insert(now);
                    // The longest that any of them ever said: somebody may have it from then.
                    key.ttl = key.ttl.max(Some(ttl.min(LONGEST_TTL)));
                    key.negative_ttl = key.negative_ttl.max(Some(negative_ttl.min(LONGEST_NEGATIVE_TTL)));
                }
                Sighting::Somewhere => {
                    publish(key, now);
                    forget_sighting(key);
                }
                Sighting::Nowhere => forget_sighting(key),
                // Nobody said that it is gone; nor that it is there.
                Sighting::Unknown => {}
            }
        });
    }

    /// Takes an administrator's word that every authoritative server has the record that a key's state asks for. What was seen
    /// already is not waited for anew, and a key that waits can be confirmed even then: no server may answer when it is its turn.
    ///
    /// # Errors
    /// [`RotationError::NoSuchKey`], and [`RotationError::NothingToConfirm`] if no server is waited for.
    pub fn confirm(&mut self, selector: &Selector, now: OffsetDateTime) -> Result<(), RotationError> {
        let key = self.key(selector).ok_or_else(|| RotationError::NoSuchKey(selector.clone()))?;
        let is_proved = key.confirmed || (key.seen.is_some() && !is_waiting(key));
        if key.state == DkimState::Retiring || is_proved {
            return Err(RotationError::NothingToConfirm(selector.clone()));
        }
        self.change(selector, |key| {
            publish(key, now);
            let now = not_before(key, now);
            key.seen.get_or_insert(now);
            key.confirmed = true;
        });
        Ok(())
    }

    /// Does what time brings. `looked` are the keys that all servers were just now seen to have: without that, nothing
    /// becomes active but what an administrator confirmed.
    pub fn advance(&mut self, looked: &[Selector], now: OffsetDateTime) -> Vec<Step> {
        let mut steps = Vec::new();
        let ready = self.candidate().filter(|key| is_ready(key, now));
        let ready = ready.filter(|key| key.confirmed || looked.contains(&key.selector)).map(|key| key.selector.clone());
        if let Some(selector) = ready {
            let before = self.activate(&selector, now);
            steps.push(Step::Activated(selector, before));
        }
        let due: Vec<(Selector, DkimState)> = self
            .keys
            .iter()
            .filter(|key| key.state >= DkimState::Retiring && look_at(key).is_some_and(|at| at <= now))
            .map(|key| (key.selector.clone(), key.state))
            .collect();
        for (selector, state) in due {
            if state == DkimState::Retiring {
                self.change(&selector, |key| revoke(key, now));
                steps.push(Step::Revoked(selector));
            } else if self.key(&selector).is_some_and(|key| key.seen.is_some()) {
                self.change(&selector, |key| enter(key, DkimState::Destroyed, now));
                steps.push(Step::Destroyed(selector));
            }
        }
        steps
    }

    /// Returns the key that would sign if the active one were revoked now: the one that receivers can verify best.
    pub fn successor(&self, now: OffsetDateTime) -> Option<&DkimKey> {
        let worth = |key: &&DkimKey| (is_ready(key, now), key.seen.is_some(), key.state, key.standby);
        self.keys.iter().filter(|key| is_waiting(key)).max_by_key(worth)
    }

    /// Revokes a key that others may have. If it is the one that signs, its successor signs at once; without one,
    /// nothing does until [`Self::add`]. Returns the successor.
    ///
    /// # Errors
    /// [`RotationError::NoSuchKey`], [`RotationError::RevokedAlready`].
    pub fn compromise(&mut self, selector: &Selector, now: OffsetDateTime) -> Result<Option<Selector>, RotationError> {
        let state = self.key(selector).ok_or_else(|| RotationError::NoSuchKey(selector.clone()))?.state;
        if state == DkimState::Revoked {
            return Err(RotationError::RevokedAlready(selector.clone()));
        }
        self.change(selector, |key| {
            if is_waiting(key) {
                // It never signed anything.
                key.unused = Some(now);
            }
            revoke(key, now);
        });
        if state != DkimState::Active {
            return Ok(None);
        }
        let successor = self.successor(now).map(|key| key.selector.clone());
        if let Some(successor) = &successor {
            self.activate(successor, now);
        }
        Ok(successor)
    }

    /// Ends the line, for the settings no longer want its algorithm or its domain. Returns whether anything changed.
    pub fn withdraw(&mut self, now: OffsetDateTime) -> bool {
        let mut changed = false;
        for key in &mut self.keys {
            match key.state {
                DkimState::Active => enter(key, DkimState::Retiring, now),
                DkimState::Generated | DkimState::Published => {
                    key.unused = Some(now);
                    revoke(key, now);
                }
                DkimState::Retiring | DkimState::Revoked | DkimState::Destroyed => continue,
            }
            changed = true;
        }
        changed
    }

    /// Takes in that no host signs with a key any more.
    pub fn unused(&mut self, selector: &Selector, now: OffsetDateTime) {
        self.change(selector, |key| {
            if key.state != DkimState::Active {
                let now = not_before(key, now);
                key.unused.get_or_insert(now);
            }
        });
    }

    /// Mends what a clock wrote that was ahead of the time: what has not happened yet is taken to happen now, so that each wait
    /// is at least as long as it must be.
    pub fn mend_clock(&mut self, now: OffsetDateTime) {
        for key in &mut self.keys {
            let now = now.max(key.made);
            key.since = key.since.min(now);
            key.seen = key.seen.map(|seen| seen.min(now));
            key.unused = key.unused.map(|unused| unused.min(now));
        }
    }

    /// Forgets what is known of name servers.
    pub fn doubt(&mut self) {
        self.keys.iter_mut().for_each(|key| {
            forget_sighting(key);
            key.confirmed = false;
        });
    }

    fn change(&mut self, selector: &Selector, change: impl FnOnce(&mut DkimKey)) {
        if let Some(key) = self.keys.iter_mut().find(|key| key.selector == *selector) {
            change(key);
        }
    }

    /// Lets a key sign. Returns the one that did.
    fn activate(&mut self, selector: &Selector, now: OffsetDateTime) -> Option<Selector> {
        let before = self.active().map(|key| key.selector.clone());
        if let Some(before) = &before {
            self.change(before, |key| enter(key, DkimState::Retiring, now));
        }
        self.change(selector, |key| enter(key, DkimState::Active, now));
        before
    }
}

fn is_waiting(key: &DkimKey) -> bool {
    matches!(key.state, DkimState::Generated | DkimState::Published)
}

/// A clock that goes back cuts no wait short: nothing happens to a key before what happened to it last.
fn not_before(key: &DkimKey, now: OffsetDateTime) -> OffsetDateTime {
    now.max(key.since).max(key.made)
}

fn enter(key: &mut DkimKey, state: DkimState, now: OffsetDateTime) {
    key.since = not_before(key, now);
    key.state = state;
    key.standby = false;
}

fn publish(key: &mut DkimKey, now: OffsetDateTime) {
    if key.state == DkimState::Generated {
        key.since = not_before(key, now);
        key.state = DkimState::Published;
    }
}

/// The record is another one from here on, which nobody saw yet.
fn revoke(key: &mut DkimKey, now: OffsetDateTime) {
    enter(key, DkimState::Revoked, now);
    forget_sighting(key);
    key.confirmed = false;
}

fn forget_sighting(key: &mut DkimKey) {
    key.seen = None;
}

fn is_ready(key: &DkimKey, now: OffsetDateTime) -> bool {
    ready_at(key).is_some_and(|at| at <= now)
}

fn wants_look(key: &DkimKey, now: OffsetDateTime) -> bool {
    match key.state {
        DkimState::Generated | DkimState::Published => key.seen.is_none() || (!key.standby && is_ready(key, now)),
        DkimState::Active | DkimState::Revoked => key.seen.is_none(),
        DkimState::Retiring | DkimState::Destroyed => false,
    }
}

/// Returns from when on a key that waits may sign: those who asked for its record too early have forgotten the answer.
pub fn ready_at(key: &DkimKey) -> Option<OffsetDateTime> {
    let wait = Duration::seconds(i64::from(key.negative_ttl.unwrap_or(UNKNOWN_NEGATIVE_TTL))).max(LEAST_WAIT);
    key.seen.filter(|_| is_waiting(key)).map(|seen| seen + wait)
}

fn ttl(key: &DkimKey) -> Duration {
    Duration::seconds(i64::from(key.ttl.unwrap_or(UNKNOWN_TTL)))
}

/// No wait is longer; what is due later than that was written by a clock that was ahead of the time.
pub const LONGEST_WAIT: Duration = Duration::days(30);

/// Returns when something may be due for a key: a server to be asked, or a wait that is over. None if it waits for nothing, or
/// for an administrator or an installation.
pub fn look_at(key: &DkimKey) -> Option<OffsetDateTime> {
    match (key.state, key.seen) {
        (DkimState::Generated | DkimState::Published, Some(_)) if key.standby => None,
        (DkimState::Generated | DkimState::Published, Some(_)) => ready_at(key),
        (DkimState::Generated | DkimState::Published | DkimState::Active | DkimState::Revoked, None) => Some(key.since),
        (DkimState::Active | DkimState::Destroyed, _) => None,
        (DkimState::Retiring, _) => key.unused.map(|unused| unused + QUEUE_LIFETIME + ttl(key)),
        // A host that still signs with it would find no key.
        (DkimState::Revoked, Some(seen)) => key.unused.map(|unused| unused.max(seen + ttl(key))),
    }
}

/// Returns when a key that signs is due for rotation: after `every`, and up to a quarter of it earlier, by a share that is the
/// domain's own, so that domains that were made in one hour do not rotate in one.
pub fn rotation_due(key: &DkimKey, every: Duration) -> OffsetDateTime {
    let share = Digest::of(key.domain.as_str().as_bytes()).to_string();
    let share = share.get(..4).and_then(|digits| i64::from_str_radix(digits, 16).ok()).unwrap_or_default();
    key.since + every - Duration::seconds(every.whole_seconds() / 4 * share / 0x1_0000)
}

/// Returns since when a key at least signs that is due for rotation now; [`rotation_due`] decides.
pub fn oldest_not_due(every: Duration, now: OffsetDateTime) -> OffsetDateTime {
    now - every * 3 / 4
}
