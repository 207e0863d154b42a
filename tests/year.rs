//! A year of hourly runs over many domains, by the real ledger, in a world that goes wrong: servers that are late, silent or
//! refuse, administrators who publish and install late, runs and installations that are killed, and keys that are stolen. All the
//! while a receiver with the worst memory that TTLs allow must be able to verify every mail, for as long as it may be on its way.
//!
//! By default a sample; POSTSEAL_FULL=yes takes 1,000 domains.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]
#![allow(clippy::disallowed_methods, reason = "a test asks how much of it is wanted, and makes an empty file")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::rc::Rc;

use postseal::dkim;
use postseal::dkim::rotation::{self, Line, Purpose, Sighting, Step, Turn};
use postseal::inventory::{DkimAlgorithm, DkimKey, DkimState};
use postseal::names::{Digest, DomainName, HostName, Selector};
use postseal::store::ledger::{Ledger, LedgerError, Transaction};
use time::macros::datetime;
use time::{Duration, OffsetDateTime};

const BEGIN: OffsetDateTime = datetime!(2026-11-24 12:00 UTC);
const DAYS: i64 = 366;
const EVERY: Duration = Duration::days(90);
/// How long a mail may be on its way (RFC 5321 §4.5.4.1).
const MAIL_LIFETIME: Duration = Duration::days(5);

/// `SplitMix64`: the same world each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.roll() % u64::try_from(end).unwrap()).unwrap()
    }

    /// Tells whether something happens that does once in so many times.
    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn up_to(&mut self, most: Duration) -> Duration {
        Duration::seconds(i64::try_from(self.roll() % most.whole_seconds().unsigned_abs().max(1)).unwrap())
    }

    /// Mostly soon; at times after many days.
    fn late(&mut self, mostly: Duration, at_times: Duration) -> Duration {
        if self.once_in(10) { self.up_to(at_times) } else { self.up_to(mostly) }
    }

    fn one_of(&mut self, choice: &[u32]) -> u32 {
        choice[self.below(choice.len())]
    }
}

/// What a name server says of a selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Record {
    Key,
    Revoked,
}

type Zone = BTreeMap<Selector, Record>;

/// Domain and selector.
type Name = (usize, Selector);

#[derive(Default)]
struct Server {
    zone: Rc<Zone>,
    /// Since when it has each key's record.
    since: HashMap<Selector, OffsetDateTime>,
    silent_until: Option<OffsetDateTime>,
    /// When the newest zone that is on its way arrives.
    newest: Option<OffsetDateTime>,
}

struct Domain {
    name: DomainName,
    servers: Vec<Server>,
    ttl: u32,
    negative_ttl: u32,
    /// What lies in out/.
    rendered: Zone,
    is_to_be_published: bool,
}

#[derive(Clone, Debug)]
enum Event {
    Publish(usize),
    Arrive(usize, usize, Rc<Zone>),
    Apply(usize),
}

/// What receivers are owed of a key's signatures.
#[derive(Clone, Debug, Default)]
struct Owed {
    /// It signed before it was proved, as it had to: mail that nobody could verify from the beginning.
    unproved: bool,
    stolen: bool,
    /// When a host signed with it last and does no longer; as long as one does, that is now.
    last: Option<OffsetDateTime>,
}

#[derive(Debug, Default)]
struct Count {
    runs: usize,
    killed: usize,
    activated: usize,
    destroyed: usize,
    stolen: usize,
    proved_in_emergency: usize,
    arrivals: usize,
}

struct World {
    dice: Dice,
    ledger: Ledger,
    standby: bool,
    domains: Vec<Domain>,
    hosts: Vec<HostName>,
    /// By host and line what it signs with.
    signing: Vec<BTreeMap<(usize, DkimAlgorithm), Selector>>,
    to_be_applied: Vec<bool>,
    events: BTreeMap<(OffsetDateTime, usize), Event>,
    owed: HashMap<Name, Owed>,
    count: Count,
}

/// The program is gone, and with it what was not committed.
#[derive(Debug)]
struct Killed;

impl From<LedgerError> for Killed {
    fn from(error: LedgerError) -> Self {
        panic!("the ledger refuses: {error}");
    }
}

impl World {
    fn new(directory: &Path, domains: usize, standby: bool, seed: u64) -> Self {
        let path = directory.join("ledger.sqlite");
        std::fs::write(&path, b"").unwrap();
        let ledger = Ledger::open(camino::Utf8Path::from_path(&path).unwrap()).unwrap();
        let mut dice = Dice(seed);
        let domain = |number: usize| Domain {
            name: format!("d{number}.example").parse().unwrap(),
            servers: (0..2 + dice.below(2)).map(|_| Server::default()).collect(),
            ttl: dice.one_of(&[60, 3600, 86_400]),
            negative_ttl: dice.one_of(&[60, 3600, 10_800, 86_400]),
            rendered: Zone::new(),
            is_to_be_published: false,
        };
        Self {
            domains: (0..domains).map(domain).collect(),
            dice,
            ledger,
            standby,
            hosts: vec!["mail.example.com".parse().unwrap(), "out.example.com".parse().unwrap()],
            signing: vec![BTreeMap::new(); 2],
            to_be_applied: vec![false; 2],
            events: BTreeMap::new(),
            owed: HashMap::new(),
            count: Count::default(),
        }
    }

    fn number(domain: &DomainName) -> usize {
        let text = domain.as_str().strip_prefix('d').unwrap().split('.').next().unwrap();
        text.parse().unwrap()
    }

    fn later(&mut self, at: OffsetDateTime, event: Event) {
        let sequence = self.events.len() + self.count.arrivals + self.dice.below(1 << 40);
        self.events.insert((at, sequence), event);
    }

    /// A point at which a run may be killed.
    fn survive(&mut self) -> Result<(), Killed> {
        if self.dice.once_in(60) {
            self.count.killed += 1;
            return Err(Killed);
        }
        Ok(())
    }

    fn transact<T>(
        &mut self,
        mut mutation: impl FnMut(&mut Transaction<'_>) -> Result<T, Killed>,
    ) -> Result<T, Killed> {
        let dies = self.dice.once_in(60);
        let done = self.ledger.transact(|ledger| {
            let value = mutation(ledger)?;
            // Before the commit: nothing of it ever was.
            if dies { Err(Killed) } else { Ok(value) }
        });
        self.count.killed += usize::from(done.is_err());
        done
    }

    /// The first of all runs: `init`.
    fn begin(&mut self) {
        let orders: Vec<_> = self
            .domains
            .iter()
            .flat_map(|domain| DkimAlgorithm::ALL.map(|algorithm| (domain.name.clone(), algorithm)))
            .collect();
        for (domain, algorithm) in orders {
            while self.make(&domain, algorithm, Purpose::Rotation, BEGIN).is_err() {}
        }
        self.render(BEGIN);
    }

    fn new_key(&self, domain: &DomainName, algorithm: DkimAlgorithm, now: OffsetDateTime) -> DkimKey {
        let used = self.ledger.dkim_selectors(domain).unwrap();
        let selector = dkim::fresh_selector(now.date(), algorithm, &used, None).unwrap();
        let what = format!("{selector}.{domain}");
        let pair = (format!("MII{what}"), Digest::of(what.as_bytes()));
        DkimKey::new((domain.clone(), algorithm), selector, pair, now)
    }

    fn make(
        &mut self,
        domain: &DomainName,
        algorithm: DkimAlgorithm,
        purpose: Purpose,
        now: OffsetDateTime,
    ) -> Result<(), Killed> {
        let key = self.new_key(domain, algorithm, now);
        self.survive()?;
        let signs = self.transact(|ledger| {
            let mut line = ledger.dkim_line(domain, algorithm)?;
            line.add(key.clone(), purpose, now).unwrap();
            ledger.save_dkim_line(&line)?;
            ledger.set_derived_stale()?;
            Ok(line.active().is_some_and(|active| active.selector == key.selector))
        })?;
        let unproved = Owed { unproved: signs, ..Owed::default() };
        let fresh = self.owed.insert((Self::number(domain), key.selector), unproved);
        assert!(fresh.is_none(), "a selector is used again");
        Ok(())
    }

    /// What `dkim advance` does, in its order.
    fn run(&mut self, now: OffsetDateTime) -> Result<(), Killed> {
        self.count.runs += 1;
        let mut aged = self.ledger.dkim_aged(rotation::oldest_not_due(EVERY, now)).unwrap();
        aged.retain(|key| rotation::rotation_due(key, EVERY) <= now);
        for key in aged {
            let (domain, algorithm) = (key.domain, key.algorithm);
            self.survive()?;
            let turn = self.transact(|ledger| {
                let mut line = ledger.dkim_line(&domain, algorithm)?;
                let turn = line.rotate();
                ledger.save_dkim_line(&line)?;
                Ok(turn)
            })?;
            if turn == Turn::NeedsKey {
                self.make(&domain, algorithm, Purpose::Rotation, now)?;
            }
        }
        let due = self.ledger.dkim_due(now).unwrap();
        self.move_on(&due, now)?;
        if self.standby {
            for (domain, algorithm) in self.ledger.dkim_without_standby().unwrap() {
                self.make(&domain, algorithm, Purpose::Standby, now)?;
            }
        }
        self.refresh(now)
    }

    fn refresh(&mut self, now: OffsetDateTime) -> Result<(), Killed> {
        self.survive()?;
        if self.ledger.derived_is_stale().unwrap() {
            self.render(now);
            self.survive()?;
            self.ledger.derived_is_fresh().unwrap();
        }
        Ok(())
    }

    fn move_on(&mut self, due: &[(DomainName, DkimAlgorithm)], now: OffsetDateTime) -> Result<(), Killed> {
        let lines: Vec<Line> =
            due.iter().map(|(domain, algorithm)| self.ledger.dkim_line(domain, *algorithm).unwrap()).collect();
        let answers: Vec<Vec<(Selector, Sighting)>> = lines
            .iter()
            .map(|line| {
                let domain = &self.domains[Self::number(line.domain())];
                line.to_look_at(now).map(|key| (key.selector.clone(), seen(domain, key, now))).collect()
            })
            .collect();
        self.survive()?;
        let moved = self.transact(|ledger| {
            let mut all = Vec::new();
            for (line, answers) in lines.iter().zip(&answers) {
                let mut line = ledger.dkim_line(line.domain(), line.algorithm())?;
                let moved = line.run(answers, true, now);
                ledger.save_dkim_line(&line)?;
                if moved.is_rendered() {
                    ledger.set_derived_stale()?;
                }
                all.push((line, moved));
            }
            Ok(all)
        })?;
        for (line, moved) in moved {
            let number = Self::number(line.domain());
            let active = line.keys().iter().filter(|key| key.state == DkimState::Active).count();
            assert_eq!(active, 1, "of {} by {:?}", line.domain(), line.algorithm());
            for step in moved.steps {
                match step {
                    Step::Activated(selector, before) => {
                        self.count.activated += 1;
                        assert!(before.is_some());
                        assert!(self.is_clean(&(number, selector), now), "it signs before all can see it");
                    }
                    Step::Revoked(_) => {}
                    Step::Destroyed(selector) => {
                        self.count.destroyed += 1;
                        let signs =
                            |host: &BTreeMap<_, Selector>| host.get(&(number, line.algorithm())) == Some(&selector);
                        assert!(!self.signing.iter().any(signs), "a host signs with a destroyed key");
                    }
                }
            }
        }
        Ok(())
    }

    /// Writes out/, which the administrator publishes and installs some time later.
    fn render(&mut self, now: OffsetDateTime) {
        let mut zones = vec![Zone::new(); self.domains.len()];
        for key in self.ledger.inventory().unwrap().dkim_keys {
            let record = if key.state < DkimState::Revoked { Record::Key } else { Record::Revoked };
            zones[Self::number(&key.domain)].insert(key.selector, record);
        }
        for (number, zone) in zones.into_iter().enumerate() {
            if self.domains[number].rendered == zone {
                continue;
            }
            self.domains[number].rendered = zone;
            if !std::mem::replace(&mut self.domains[number].is_to_be_published, true) {
                let wait = self.dice.late(Duration::days(1), Duration::days(8));
                self.later(now + wait, Event::Publish(number));
            }
        }
        for host in 0..self.hosts.len() {
            self.apply_soon(host, now);
        }
    }

    fn apply_soon(&mut self, host: usize, now: OffsetDateTime) {
        if !std::mem::replace(&mut self.to_be_applied[host], true) {
            let wait = self.dice.late(Duration::days(1), Duration::days(6));
            self.later(now + wait, Event::Apply(host));
        }
    }

    fn happen(&mut self, event: Event, now: OffsetDateTime) {
        match event {
            Event::Publish(number) => {
                let zone = Rc::new(self.domains[number].rendered.clone());
                self.domains[number].is_to_be_published = false;
                for server in 0..self.domains[number].servers.len() {
                    let wait = self.dice.late(Duration::hours(1), Duration::hours(30));
                    let newest = &mut self.domains[number].servers[server].newest;
                    let at = newest.map_or(now + wait, |newest| newest.max(now + wait));
                    *newest = Some(at);
                    self.later(at, Event::Arrive(number, server, Rc::clone(&zone)));
                }
            }
            Event::Arrive(number, server, zone) => self.arrive(number, server, zone, now),
            Event::Apply(host) => {
                self.to_be_applied[host] = false;
                if self.apply(host, now).is_err() {
                    self.apply_soon(host, now);
                }
            }
        }
    }

    /// A server has another zone: whatever it no longer says, no receiver may still need.
    fn arrive(&mut self, number: usize, server: usize, zone: Rc<Zone>, now: OffsetDateTime) {
        self.count.arrivals += 1;
        let old = Rc::clone(&self.domains[number].servers[server].zone);
        for (selector, _) in old.iter().filter(|(_, record)| **record == Record::Key) {
            if zone.get(selector) != Some(&Record::Key) {
                self.assert_not_needed(&(number, selector.clone()), now);
                self.domains[number].servers[server].since.remove(selector);
            }
        }
        let known = &mut self.domains[number].servers[server];
        for (selector, _) in zone.iter().filter(|(_, record)| **record == Record::Key) {
            known.since.entry(selector.clone()).or_insert(now);
        }
        known.zone = zone;
    }

    fn assert_not_needed(&self, name: &Name, now: OffsetDateTime) {
        let owed = &self.owed[name];
        if owed.stolen {
            return;
        }
        let signs = self.signing.iter().any(|host| host.iter().any(|(line, key)| line.0 == name.0 && *key == name.1));
        let last = if signs { Some(now) } else { owed.last };
        // What a key signed before anybody could verify it is owed to nobody.
        let last = last.filter(|last| !owed.unproved || self.clean_at(name).is_some_and(|clean| clean <= *last));
        assert!(
            last.is_none_or(|last| last + MAIL_LIFETIME <= now),
            "mail of {last:?} signed by {name:?} fails at {now}"
        );
    }

    /// From when on no receiver remembers that there was no such record.
    fn clean_at(&self, (number, selector): &Name) -> Option<OffsetDateTime> {
        let domain = &self.domains[*number];
        let since: Option<Vec<_>> = domain.servers.iter().map(|server| server.since.get(selector)).collect();
        since?.into_iter().max().map(|since| *since + Duration::seconds(domain.negative_ttl.into()))
    }

    fn is_clean(&self, name: &Name, now: OffsetDateTime) -> bool {
        self.clean_at(name).is_some_and(|clean| clean <= now)
    }

    /// Installs on a host what is recorded, and then says so, if it is not killed.
    fn apply(&mut self, host: usize, now: OffsetDateTime) -> Result<(), Killed> {
        self.survive()?;
        let change = self.ledger.dkim_change().unwrap();
        let mut signing = BTreeMap::new();
        for key in self.ledger.inventory().unwrap().dkim_keys {
            if key.state == DkimState::Active {
                signing.insert((Self::number(&key.domain), key.algorithm), key.selector);
            }
        }
        assert_eq!(signing.len(), self.domains.len() * 2, "each line signs");
        let before = std::mem::replace(&mut self.signing[host], signing);
        for (line, selector) in before {
            if self.signing[host].get(&line) != Some(&selector) {
                self.owed.get_mut(&(line.0, selector)).unwrap().last = Some(now);
            }
        }
        for (line, selector) in &self.signing[host] {
            let name = (line.0, selector.clone());
            let owed = &self.owed[&name];
            assert!(owed.unproved || self.is_clean(&name, now), "{name:?} signs, and a receiver may not find it");
        }
        self.survive()?;
        let (name, hosts) = (self.hosts[host].clone(), self.hosts.clone());
        let unused = self.transact(|ledger| Ok(ledger.set_dkim_in_force(&name, change, &hosts, now)?))?;
        for (domain, selector) in unused {
            let number = Self::number(&domain);
            let signs = |host: &BTreeMap<(usize, _), Selector>| {
                host.iter().any(|(line, key)| line.0 == number && *key == selector)
            };
            assert!(!self.signing.iter().any(signs), "{selector} of {domain} is used still");
        }
        Ok(())
    }

    /// Somebody has a private key: what `dkim revoke` does.
    fn steal(&mut self, now: OffsetDateTime) -> Result<(), Killed> {
        let number = self.dice.below(self.domains.len());
        let (domain, algorithm) = (self.domains[number].name.clone(), DkimAlgorithm::ALL[self.dice.below(2)]);
        let line = self.ledger.dkim_line(&domain, algorithm).unwrap();
        let keys: Vec<&DkimKey> = line.keys().iter().filter(|key| key.state != DkimState::Revoked).collect();
        let key = if self.dice.once_in(3) { keys[self.dice.below(keys.len())] } else { line.active().unwrap() };
        let stolen = key.selector.clone();
        let spare = key.state == DkimState::Active && line.successor(now).is_none();
        let spare = spare.then(|| self.new_key(&domain, algorithm, now));
        let seen_standby = line.standby().is_some_and(|key| key.seen.is_some_and(|seen| seen + Duration::DAY <= now));
        let was_active = key.state == DkimState::Active;
        self.survive()?;
        let successor = self.transact(|ledger| {
            let mut line = ledger.dkim_line(&domain, algorithm)?;
            let successor = line.compromise(&stolen, now).unwrap();
            ledger.save_dkim_line(&line)?;
            if let Some(spare) = &spare {
                line.add(spare.clone(), Purpose::Rotation, now).unwrap();
                ledger.save_dkim_line(&line)?;
            }
            ledger.set_derived_stale()?;
            Ok(successor.or_else(|| spare.as_ref().map(|key| key.selector.clone())))
        })?;
        self.count.stolen += 1;
        self.owed.get_mut(&(number, stolen)).unwrap().stolen = true;
        if let Some(successor) = successor {
            let name = (number, successor);
            let is_clean = self.is_clean(&name, now);
            assert!(is_clean || !seen_standby, "a standby key does not stand by: {name:?}");
            self.count.proved_in_emergency += usize::from(is_clean && was_active);
            self.owed.entry(name).or_default().unproved = !is_clean;
        }
        self.refresh(now)
    }

    /// Lets name servers fall silent for a while.
    fn disturb(&mut self, now: OffsetDateTime) {
        for number in 0..self.domains.len() {
            if self.dice.once_in(200) {
                let server = self.dice.below(self.domains[number].servers.len());
                let spell = self.dice.late(Duration::hours(6), Duration::days(3));
                self.domains[number].servers[server].silent_until = Some(now + spell);
            }
        }
    }

    fn live(mut self) -> Count {
        self.begin();
        for hour in 0..DAYS * 24 {
            let now = BEGIN + Duration::hours(hour) + self.dice.up_to(Duration::minutes(50));
            while let Some(((at, sequence), _)) = self.events.first_key_value().filter(|((at, _), _)| *at <= now) {
                let (at, sequence) = (*at, *sequence);
                let event = self.events.remove(&(at, sequence)).unwrap();
                self.happen(event, at);
            }
            self.disturb(now);
            if self.dice.once_in(400) {
                let _ = self.steal(now);
            }
            // The timer itself fails at times.
            if !self.dice.once_in(20) {
                let _ = self.run(now);
            }
        }
        self.judge_the_end();
        self.count
    }

    /// Nothing stands still, and nothing was used twice.
    fn judge_the_end(&self) {
        let end = BEGIN + Duration::days(DAYS);
        let keys = self.ledger.dkim_keys_ever().unwrap();
        let names: BTreeSet<_> = keys.iter().map(|key| (&key.domain, &key.selector)).collect();
        assert_eq!(names.len(), keys.len());
        for key in &keys {
            let age = end - key.since;
            let most = match key.state {
                DkimState::Active => Duration::days(90 + 30),
                // A standby key waits as long as nothing happens.
                DkimState::Generated | DkimState::Published if key.standby => Duration::days(90 + 30),
                DkimState::Generated | DkimState::Published | DkimState::Revoked => Duration::days(30),
                DkimState::Retiring => MAIL_LIFETIME + Duration::days(7 + 14),
                DkimState::Destroyed => continue,
            };
            assert!(age <= most, "{key:?} stands still");
        }
    }
}

/// What the name servers say of a key's record together.
fn seen(domain: &Domain, key: &DkimKey, now: OffsetDateTime) -> Sighting {
    let (mut have, mut lack, mut silent) = (0, 0, 0);
    for server in &domain.servers {
        let record = server.zone.get(&key.selector);
        let is_there =
            if key.state == DkimState::Revoked { record != Some(&Record::Key) } else { record == Some(&Record::Key) };
        match is_there {
            _ if server.silent_until.is_some_and(|until| now < until) => silent += 1,
            true => have += 1,
            false => lack += 1,
        }
    }
    match (have, lack, silent) {
        (0, 0, _) => Sighting::Unknown,
        (0, _, _) => Sighting::Nowhere,
        (_, 0, 0) => Sighting::Everywhere { ttl: domain.ttl, negative_ttl: domain.negative_ttl },
        _ => Sighting::Somewhere,
    }
}

fn lives(standby: bool, seed: u64) {
    let is_full = std::env::var("POSTSEAL_FULL").as_deref() == Ok("yes");
    let domains = if is_full { 500 } else { 30 };
    let memory = Path::new("/dev/shm");
    let directory = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    let count = World::new(directory.path(), domains, standby, seed).live();
    let lines = domains * 2;
    assert!(count.activated >= lines * 3, "{count:?}");
    assert!(count.destroyed >= lines * 2, "{count:?}");
    assert!(count.killed > 100 && count.stolen > 5, "{count:?}");
    assert!(!standby || count.proved_in_emergency > 5, "{count:?}");
}

#[test]
fn for_a_year_no_signature_is_lost_that_could_be_verified() {
    lives(false, 1);
}

#[test]
fn for_a_year_with_standby_keys_no_signature_is_lost_and_no_emergency_costs_one() {
    lives(true, 2);
}
