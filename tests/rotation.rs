//! The life of DKIM keys: each rule by itself, and all of them over random histories.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::collections::BTreeMap;

use postseal::dkim::rotation::{self, LEAST_WAIT, Line, Purpose, QUEUE_LIFETIME, RotationError, Sighting, Step, Turn};
use postseal::inventory::{DkimAlgorithm, DkimKey, DkimState};
use postseal::names::{Digest, Selector};
use proptest::prelude::*;
use time::macros::datetime;
use time::{Duration, OffsetDateTime};

const BEGIN: OffsetDateTime = datetime!(2026-11-24 12:00 UTC);
const HOUR: Duration = Duration::HOUR;
const DAY: Duration = Duration::DAY;
const SEEN: Sighting = Sighting::Everywhere { ttl: 3600, negative_ttl: 7200 };

fn at(hours: i64) -> OffsetDateTime {
    BEGIN + HOUR * i32::try_from(hours).unwrap()
}

fn selector(text: &str) -> Selector {
    text.parse().unwrap()
}

fn new_key(name: &str, now: OffsetDateTime) -> DkimKey {
    let what = ("example.com".parse().unwrap(), DkimAlgorithm::Rsa);
    DkimKey::new(what, selector(name), (format!("MII{name}"), Digest::of(name.as_bytes())), now)
}

fn empty() -> Line {
    Line::new("example.com".parse().unwrap(), DkimAlgorithm::Rsa, Vec::new())
}

/// A line whose key `a` signs since the beginning, and everybody can verify it.
fn signing() -> Line {
    let mut line = empty();
    line.add(new_key("a", BEGIN), Purpose::Rotation, BEGIN).unwrap();
    line.look(&selector("a"), SEEN, BEGIN);
    line
}

/// The same with `b`, which waits and was not seen yet.
fn rotating() -> Line {
    let mut line = signing();
    line.add(new_key("b", BEGIN), Purpose::Rotation, BEGIN).unwrap();
    line
}

/// The same with `b` in the place of `a` from the third hour on.
fn rotated() -> Line {
    let mut line = rotating();
    line.look(&selector("b"), SEEN, BEGIN);
    assert_eq!(run(&mut line, SEEN, at(2)), [Step::Activated(selector("b"), Some(selector("a")))]);
    line
}

/// A run in which every server that is asked says the same.
fn run(line: &mut Line, sighting: Sighting, now: OffsetDateTime) -> Vec<Step> {
    let answers: Vec<_> = line.to_look_at(now).map(|key| (key.selector.clone(), sighting)).collect();
    line.run(&answers, true, now).steps
}

fn state(line: &Line, name: &str) -> DkimState {
    line.keys().iter().find(|key| key.selector.as_str() == name).unwrap().state
}

fn active(line: &Line) -> &str {
    line.active().map_or("", |key| key.selector.as_str())
}

/// When the line is to be looked at next.
fn due(line: &Line) -> Option<OffsetDateTime> {
    line.keys().iter().filter_map(rotation::look_at).min()
}

#[test]
fn the_first_key_signs_at_once_and_is_unconfirmed() {
    let mut line = empty();
    line.add(new_key("a", BEGIN), Purpose::Rotation, BEGIN).unwrap();
    assert!(line.active().unwrap().is_unconfirmed());
    run(&mut line, Sighting::Nowhere, at(1));
    assert!(line.active().unwrap().is_unconfirmed());
    run(&mut line, SEEN, at(2));
    assert!(!line.active().unwrap().is_unconfirmed());
    assert_eq!(due(&line), None, "what signs and can be verified waits for nothing");
}

#[test]
fn even_a_first_key_that_was_meant_as_standby_signs() {
    let mut line = empty();
    line.add(new_key("a", BEGIN), Purpose::Standby, BEGIN).unwrap();
    assert_eq!((active(&line), line.standby()), ("a", None));
}

#[test]
fn a_successor_waits_as_long_as_it_may_be_remembered_that_there_was_none() {
    let mut line = rotating();
    line.look(&selector("b"), SEEN, at(1));
    assert_eq!(run(&mut line, SEEN, at(3) - Duration::SECOND), []);
    assert_eq!(active(&line), "a");
    assert_eq!(run(&mut line, SEEN, at(3)), [Step::Activated(selector("b"), Some(selector("a")))]);
    assert_eq!((active(&line), state(&line, "a")), ("b", DkimState::Retiring));
}

#[test]
fn a_successor_waits_an_hour_at_least() {
    let mut line = rotating();
    let seen = Sighting::Everywhere { ttl: 60, negative_ttl: 60 };
    line.look(&selector("b"), seen, BEGIN);
    assert_eq!(run(&mut line, seen, at(1) - Duration::SECOND), []);
    assert_eq!(run(&mut line, seen, at(1)).len(), 1);
}

#[test]
fn the_longest_time_that_any_server_ever_said_counts_and_no_more_than_a_day_of_it() {
    for (said, waits) in [(10, 10), (24, 24), (30, 24), (1_000_000, 24)] {
        let mut line = rotating();
        let seen = |hours: u32| Sighting::Everywhere { ttl: 60, negative_ttl: hours.saturating_mul(3600) };
        line.look(&selector("b"), seen(said), BEGIN);
        line.look(&selector("b"), seen(1), BEGIN);
        assert_eq!(run(&mut line, seen(1), at(waits) - Duration::SECOND), [], "{said}");
        assert_eq!(run(&mut line, seen(1), at(waits)).len(), 1, "{said}");
    }
}

#[test]
fn a_server_that_lacks_the_record_at_the_last_look_lets_the_wait_begin_anew() {
    for lacking in [Sighting::Somewhere, Sighting::Nowhere] {
        let mut line = rotating();
        line.look(&selector("b"), SEEN, BEGIN);
        assert_eq!(run(&mut line, lacking, at(2)), []);
        assert_eq!(run(&mut line, SEEN, at(5)), []);
        assert_eq!(run(&mut line, SEEN, at(7) - Duration::SECOND), []);
        assert_eq!(run(&mut line, SEEN, at(7)).len(), 1);
    }
}

#[test]
fn when_no_server_answers_the_wait_goes_on_and_nothing_signs_that_is_not_looked_at() {
    let mut line = rotating();
    line.look(&selector("b"), SEEN, BEGIN);
    for hour in 2..50 {
        assert_eq!(run(&mut line, Sighting::Unknown, at(hour)), []);
    }
    assert_eq!(run(&mut line, SEEN, at(50)).len(), 1);
}

#[test]
fn an_administrator_can_confirm_what_no_server_answers_about_when_its_turn_has_come() {
    let mut line = rotating();
    line.look(&selector("b"), SEEN, BEGIN);
    run(&mut line, Sighting::Unknown, at(2));
    line.confirm(&selector("b"), at(3)).unwrap();
    assert_eq!(run(&mut line, Sighting::Unknown, at(3)).len(), 1, "its wait is over");
}

#[test]
fn what_an_administrator_confirms_waits_three_hours_and_is_not_asked_for() {
    let mut line = rotating();
    line.confirm(&selector("b"), at(1)).unwrap();
    assert_eq!(line.to_look_at(at(100)).count(), 0);
    assert_eq!(run(&mut line, Sighting::Unknown, at(4) - Duration::SECOND), []);
    assert_eq!(run(&mut line, Sighting::Unknown, at(4)).len(), 1);
}

#[test]
fn nothing_is_confirmed_twice_and_nothing_that_waits_for_no_server() {
    let mut line = rotated();
    let refused = |line: &mut Line, name: &str| line.confirm(&selector(name), at(3)).unwrap_err();
    assert_eq!(refused(&mut line, "a"), RotationError::NothingToConfirm(selector("a")), "it retires");
    assert_eq!(refused(&mut line, "b"), RotationError::NothingToConfirm(selector("b")), "it was seen");
    assert_eq!(refused(&mut line, "c"), RotationError::NoSuchKey(selector("c")));
    line.add(new_key("c", at(3)), Purpose::Rotation, at(3)).unwrap();
    line.confirm(&selector("c"), at(3)).unwrap();
    assert_eq!(refused(&mut line, "c"), RotationError::NothingToConfirm(selector("c")));
}

#[test]
fn the_predecessor_stays_published_for_five_days_and_its_ttl_after_no_host_uses_it() {
    let mut line = rotated();
    run(&mut line, SEEN, at(1000));
    assert_eq!((state(&line, "a"), due(&line)), (DkimState::Retiring, None), "a host may sign with it still");
    line.unused(&selector("a"), at(1000));
    line.unused(&selector("a"), at(1001));
    let end = at(1000) + DAY * 5 + HOUR;
    assert_eq!(due(&line), Some(end));
    assert_eq!(run(&mut line, SEEN, end - Duration::SECOND), []);
    assert_eq!(run(&mut line, SEEN, end), [Step::Revoked(selector("a"))]);
}

#[test]
fn a_record_of_unknown_ttl_may_be_remembered_for_a_day_and_none_for_more_than_a_week() {
    for (ttl, kept) in [(None, DAY), (Some(30 * 86_400), DAY * 7), (Some(0), Duration::ZERO)] {
        let mut line = empty();
        line.add(new_key("a", BEGIN), Purpose::Rotation, BEGIN).unwrap();
        if let Some(ttl) = ttl {
            line.look(&selector("a"), Sighting::Everywhere { ttl, negative_ttl: 0 }, BEGIN);
        }
        line.withdraw(BEGIN);
        line.unused(&selector("a"), at(1));
        assert_eq!(due(&line), Some(at(1) + QUEUE_LIFETIME + kept));
    }
}

#[test]
fn a_private_key_is_destroyed_only_when_every_server_says_that_it_is_revoked_and_the_old_record_is_forgotten() {
    let mut line = rotated();
    line.unused(&selector("a"), at(2));
    let end = at(2) + QUEUE_LIFETIME + HOUR;
    run(&mut line, SEEN, end);
    for lacking in [Sighting::Nowhere, Sighting::Somewhere, Sighting::Unknown] {
        assert_eq!(run(&mut line, lacking, end + DAY), []);
    }
    assert_eq!(run(&mut line, SEEN, end + DAY), []);
    assert_eq!(run(&mut line, SEEN, end + DAY + HOUR - Duration::SECOND), []);
    assert_eq!(run(&mut line, SEEN, end + DAY + HOUR), [Step::Destroyed(selector("a"))]);
    assert_eq!(line.key(&selector("a")), None);
}

#[test]
fn a_revoked_key_that_a_host_may_still_sign_with_is_not_destroyed() {
    let mut line = signing();
    line.compromise(&selector("a"), at(1)).unwrap();
    line.look(&selector("a"), SEEN, at(2));
    assert_eq!(run(&mut line, SEEN, at(1000)), []);
    line.unused(&selector("a"), at(1000));
    assert_eq!(run(&mut line, SEEN, at(1000)), [Step::Destroyed(selector("a"))]);
}

#[test]
fn a_standby_key_that_was_seen_takes_over_at_once_when_the_other_is_revoked() {
    let mut line = signing();
    line.add(new_key("s", BEGIN), Purpose::Standby, BEGIN).unwrap();
    run(&mut line, SEEN, at(1));
    assert_eq!(due(&line), None, "it waits for an emergency alone");
    assert_eq!(run(&mut line, SEEN, at(500)), [], "and does not take over by itself");
    assert_eq!(line.compromise(&selector("a"), at(501)), Ok(Some(selector("s"))));
    assert_eq!((active(&line), state(&line, "a")), ("s", DkimState::Revoked));
    assert!(!line.active().unwrap().is_unconfirmed());
}

#[test]
fn in_an_emergency_the_key_that_receivers_verify_best_takes_over() {
    let mut line = rotating();
    line.add(new_key("s", BEGIN), Purpose::Standby, BEGIN).unwrap();
    line.look(&selector("s"), SEEN, BEGIN);
    line.look(&selector("b"), SEEN, at(9));
    let best = |line: &Line, now| line.successor(now).unwrap().selector.to_string();
    assert_eq!(best(&line, at(10)), "s", "who asked for the other may still remember that there was none");
    assert_eq!(best(&line, at(11)), "s", "both can be verified; the standby key is there for this");
    line.look(&selector("s"), Sighting::Nowhere, at(12));
    assert_eq!(best(&line, at(12)), "b");
}

#[test]
fn without_a_key_in_waiting_a_revocation_leaves_nothing_that_signs_until_a_new_key_comes() {
    let mut line = signing();
    assert_eq!(line.compromise(&selector("a"), at(1)), Ok(None));
    assert_eq!(line.active(), None);
    assert_eq!(line.compromise(&selector("a"), at(1)), Err(RotationError::RevokedAlready(selector("a"))));
    line.add(new_key("b", at(1)), Purpose::Rotation, at(1)).unwrap();
    assert!(line.active().unwrap().is_unconfirmed());
}

#[test]
fn a_revoked_key_that_waited_never_signs_and_leaves_what_signs_alone() {
    let mut line = rotating();
    assert_eq!(line.compromise(&selector("b"), at(1)), Ok(None));
    assert_eq!((active(&line), state(&line, "b")), ("a", DkimState::Revoked));
    run(&mut line, SEEN, at(2));
    // No server said of its record how long it is kept.
    line.look(&selector("b"), Sighting::Everywhere { ttl: 60, negative_ttl: 60 }, at(2));
    assert_eq!(run(&mut line, SEEN, at(3)), [Step::Destroyed(selector("b"))], "nothing ever used it");
}

#[test]
fn a_rotation_takes_the_standby_key_and_one_that_is_under_way_goes_on() {
    let mut line = signing();
    assert_eq!(line.rotate(), Turn::NeedsKey);
    line.add(new_key("s", BEGIN), Purpose::Standby, BEGIN).unwrap();
    run(&mut line, SEEN, at(1));
    assert_eq!(line.rotate(), Turn::Standby(selector("s")));
    assert_eq!(line.rotate(), Turn::UnderWay(selector("s")));
    // It was seen long ago, but servers are asked once more.
    assert_eq!(run(&mut line, Sighting::Unknown, at(1000)), []);
    assert_eq!(run(&mut line, SEEN, at(1000)).len(), 1);
}

#[test]
fn only_one_key_waits_for_its_turn_and_only_one_for_an_emergency() {
    let mut line = rotating();
    line.add(new_key("s", BEGIN), Purpose::Standby, BEGIN).unwrap();
    for (purpose, waits) in [(Purpose::Rotation, "b"), (Purpose::Import, "b"), (Purpose::Standby, "s")] {
        let refused = line.add(new_key("x", BEGIN), purpose, BEGIN);
        assert_eq!(refused, Err(RotationError::Waiting(selector(waits))));
    }
}

#[test]
fn a_key_from_elsewhere_takes_the_place_of_one_that_nobody_can_verify_and_else_waits() {
    let mut line = empty();
    line.add(new_key("a", BEGIN), Purpose::Rotation, BEGIN).unwrap();
    line.add(new_key("i", at(1)), Purpose::Import, at(1)).unwrap();
    assert_eq!((active(&line), state(&line, "a")), ("i", DkimState::Retiring));
    let mut line = signing();
    line.add(new_key("i", at(1)), Purpose::Import, at(1)).unwrap();
    assert_eq!((active(&line), state(&line, "i")), ("a", DkimState::Generated));
}

#[test]
fn a_line_that_the_settings_give_up_retires_what_signed_and_revokes_what_waited() {
    let mut line = rotating();
    line.add(new_key("s", BEGIN), Purpose::Standby, BEGIN).unwrap();
    assert!(line.withdraw(at(1)));
    assert_eq!(line.active(), None);
    let states = ["a", "b", "s"].map(|name| state(&line, name));
    assert_eq!(states, [DkimState::Retiring, DkimState::Revoked, DkimState::Revoked]);
    assert!(!line.withdraw(at(2)));
}

#[test]
fn what_servers_say_of_a_key_is_not_taken_for_its_revocation() {
    let mut line = rotating();
    let moved = line.run(&[(selector("b"), SEEN)], false, at(1));
    assert!(moved.withdrawn);
    let b = line.key(&selector("b")).unwrap();
    assert_eq!((b.state, b.seen), (DkimState::Revoked, None), "they were asked for the key, and have it still");
}

#[test]
fn after_a_doubt_all_is_to_be_seen_again() {
    let mut line = rotating();
    line.confirm(&selector("b"), BEGIN).unwrap();
    line.doubt();
    assert!(line.active().unwrap().is_unconfirmed());
    assert_eq!(line.to_look_at(at(5)).count(), 2);
    assert_eq!(run(&mut line, Sighting::Unknown, at(5)), []);
}

#[test]
fn keys_are_due_for_rotation_between_three_quarters_of_the_time_and_its_end_each_at_its_own() {
    let every = DAY * 90;
    let mut days = BTreeMap::<i64, usize>::new();
    for number in 0..1_000 {
        let what = (format!("d{number}.example").parse().unwrap(), DkimAlgorithm::Rsa);
        let key = DkimKey::new(what, selector("a"), ("MII".to_owned(), Digest::of(b"")), BEGIN);
        let due = rotation::rotation_due(&key, every);
        assert!(due > BEGIN + every * 3 / 4 && due <= BEGIN + every);
        assert_eq!(rotation::rotation_due(&key, every), due);
        *days.entry((due - BEGIN).whole_days()).or_default() += 1;
        // What the ledger is asked for holds every key that is due.
        assert!(rotation::oldest_not_due(every, due) >= BEGIN);
    }
    assert!(days.len() >= 22 && days.values().all(|count| *count < 100), "{days:?}");
}

/// What happens to a line, and for how many hours nothing does after that.
#[derive(Clone, Debug)]
enum Event {
    Add(Purpose),
    /// A selector that was used before.
    AddAgain(usize),
    Run(Vec<Sighting>, bool),
    Confirm(usize),
    Rotate,
    Compromise(usize),
    CompromiseActive,
    Unused(usize),
    Doubt,
}

fn sighting() -> impl Strategy<Value = Sighting> {
    let hours = || prop::sample::select(vec![0_u32, 60, 3600, 7200, 86_400, 172_800, 1_000_000]);
    prop_oneof![
        5 => (hours(), hours()).prop_map(|(ttl, negative_ttl)| Sighting::Everywhere { ttl, negative_ttl }),
        1 => Just(Sighting::Somewhere),
        1 => Just(Sighting::Nowhere),
        1 => Just(Sighting::Unknown),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => prop::sample::select(vec![Purpose::Rotation, Purpose::Standby, Purpose::Import]).prop_map(Event::Add),
        1 => (0..9_usize).prop_map(Event::AddAgain),
        12 => (prop::collection::vec(sighting(), 1..4), prop::bool::weighted(0.95)).prop_map(|(s, w)| Event::Run(s, w)),
        1 => (0..9_usize).prop_map(Event::Confirm),
        2 => Just(Event::Rotate),
        1 => (0..9_usize).prop_map(Event::Compromise),
        1 => Just(Event::CompromiseActive),
        3 => (0..9_usize).prop_map(Event::Unused),
        1 => Just(Event::Doubt),
    ]
}

/// Events, and after how many hours each comes.
fn history() -> impl Strategy<Value = Vec<(i64, Event)>> {
    let hours = prop_oneof![4 => 0..3_i64, 2 => 3..30_i64, 1 => 100..200_i64];
    prop::collection::vec((hours, event()), 1..60)
}

/// What is known of a key apart from the line: it is counted anew from what happened.
#[derive(Clone, Debug, Default)]
struct Known {
    since: Option<OffsetDateTime>,
    confirmed: bool,
    ttl: Option<u32>,
    negative_ttl: Option<u32>,
    unused: Option<OffsetDateTime>,
}

impl Known {
    fn told(&mut self, sighting: Sighting, now: OffsetDateTime) {
        match sighting {
            Sighting::Everywhere { ttl, negative_ttl } => {
                self.since.get_or_insert(now);
                self.ttl = self.ttl.max(Some(ttl));
                self.negative_ttl = self.negative_ttl.max(Some(negative_ttl));
            }
            Sighting::Somewhere | Sighting::Nowhere => self.since = None,
            Sighting::Unknown => {}
        }
    }

    fn ready(&self) -> Option<OffsetDateTime> {
        let negative = Duration::seconds(self.negative_ttl.unwrap_or(10_800).min(86_400).into());
        self.since.map(|since| since + negative.max(LEAST_WAIT))
    }

    fn kept(&self) -> Duration {
        Duration::seconds(self.ttl.unwrap_or(86_400).min(604_800).into())
    }
}

#[derive(Default)]
struct World {
    known: BTreeMap<Selector, Known>,
    made: usize,
}

impl World {
    fn fresh(&mut self, now: OffsetDateTime) -> DkimKey {
        self.made += 1;
        new_key(&format!("k{}", self.made), now)
    }
}

fn pick(line: &Line, number: usize) -> Option<Selector> {
    let keys = line.keys();
    (!keys.is_empty()).then(|| keys[number % keys.len()].selector.clone())
}

/// Lets an event happen, and counts along. Returns the answers that were given in it.
#[expect(clippy::too_many_lines, reason = "one arm for each thing that can happen")]
fn happen(line: &mut Line, world: &mut World, event: &Event, now: OffsetDateTime) -> BTreeMap<Selector, Sighting> {
    let mut answered = BTreeMap::new();
    match event {
        Event::Add(purpose) => {
            let key = world.fresh(now);
            let name = key.selector.clone();
            if line.add(key, *purpose, now).is_ok() {
                world.known.insert(name, Known::default());
            }
        }
        Event::AddAgain(number) => {
            if let Some(name) = pick(line, *number) {
                let again = line.add(new_key(name.as_str(), now), Purpose::Rotation, now);
                assert_eq!(again, Err(RotationError::Used(name)));
            }
        }
        Event::Run(sightings, wanted) => {
            let asked: Vec<Selector> = line.to_look_at(now).map(|key| key.selector.clone()).collect();
            let answers: Vec<_> = asked.into_iter().zip(sightings.iter().copied().cycle()).collect();
            for (name, sighting) in &answers {
                world.known.get_mut(name).unwrap().told(*sighting, now);
            }
            line.run(&answers, *wanted, now);
            answered.extend(answers);
        }
        Event::Confirm(number) => {
            let name = pick(line, *number);
            if let Some(name) = name.filter(|name| line.confirm(name, now).is_ok()) {
                let known = world.known.get_mut(&name).unwrap();
                known.since.get_or_insert(now);
                known.confirmed = true;
            }
        }
        Event::Rotate => {
            if line.rotate() == Turn::NeedsKey && line.active().is_some() {
                let key = world.fresh(now);
                world.known.insert(key.selector.clone(), Known::default());
                line.add(key, Purpose::Rotation, now).unwrap();
            }
        }
        Event::Compromise(_) | Event::CompromiseActive => {
            let name = match event {
                Event::Compromise(number) => pick(line, *number),
                _ => line.active().map(|key| key.selector.clone()),
            };
            let was_active = line.active().map(|key| key.selector.clone());
            let Some(name) = name else { return answered };
            if line.compromise(&name, now).is_ok_and(|successor| successor.is_none()) && was_active == Some(name) {
                // As `dkim revoke` does.
                let key = world.fresh(now);
                world.known.insert(key.selector.clone(), Known::default());
                line.add(key, Purpose::Rotation, now).unwrap();
            }
        }
        Event::Unused(number) => {
            let left = line.keys().iter().filter(|key| key.state > DkimState::Active).cycle();
            if let Some(name) = left.skip(*number).map(|key| key.selector.clone()).next() {
                line.unused(&name, now);
                world.known.get_mut(&name).unwrap().unused.get_or_insert(now);
            }
        }
        Event::Doubt => {
            line.doubt();
            for known in world.known.values_mut() {
                (known.since, known.confirmed) = (None, false);
            }
        }
    }
    answered
}

/// What the record says changes with the state; what was seen of the old one is no sighting of the new.
fn forget_old_records(before: &Line, after: &Line, world: &mut World) {
    for key in after.keys() {
        let old = before.keys().iter().find(|old| old.selector == key.selector).map(|old| old.state);
        if key.state == DkimState::Revoked && old != Some(DkimState::Revoked) {
            let known = world.known.get_mut(&key.selector).unwrap();
            (known.since, known.confirmed) = (None, false);
            if old < Some(DkimState::Active) {
                known.unused.get_or_insert(key.since);
            }
        }
    }
}

/// Holds what changed against every rule.
fn judge(
    (before, known): (&Line, &BTreeMap<Selector, Known>),
    (event, answered): (&Event, &BTreeMap<Selector, Sighting>),
    after: &Line,
    now: OffsetDateTime,
) -> Result<(), TestCaseError> {
    let old = |key: &DkimKey| before.keys().iter().find(|old| old.selector == key.selector);
    let actives = after.keys().iter().filter(|key| key.state == DkimState::Active).count();
    prop_assert!(actives <= 1, "at most one signs");
    let given_up = matches!(event, Event::Run(_, false));
    prop_assert!(actives == 1 || before.active().is_none() || given_up, "what signed has a successor");
    let names: std::collections::BTreeSet<_> = after.keys().iter().map(|key| &key.selector).collect();
    prop_assert_eq!(names.len(), after.keys().len(), "no selector twice");
    prop_assert!(before.keys().iter().all(|key| names.contains(&key.selector)), "none is forgotten");
    for key in after.keys() {
        let was = old(key).map(|old| old.state);
        prop_assert!(was <= Some(key.state), "{:?} goes back from {:?}", key, was);
        if was == Some(key.state) {
            continue;
        }
        let proof = known.get(&key.selector).cloned().unwrap_or_default();
        match key.state {
            DkimState::Active => {
                let is_first =
                    before.active().is_none() || matches!(event, Event::CompromiseActive | Event::Compromise(_));
                let replaces = matches!(event, Event::Add(Purpose::Import))
                    && before.active().is_some_and(DkimKey::is_unconfirmed);
                let looked = matches!(answered.get(&key.selector), Some(Sighting::Everywhere { .. }));
                let is_proved = proof.ready().is_some_and(|at| at <= now) && (proof.confirmed || looked);
                prop_assert!(is_first || replaces || is_proved, "{:?} signs without proof: {:?}", key, proof);
            }
            DkimState::Retiring => {
                prop_assert_eq!(was, Some(DkimState::Active));
                prop_assert!(actives == 1 || given_up);
            }
            DkimState::Revoked => {
                let compromised = matches!(event, Event::CompromiseActive | Event::Compromise(_));
                let waited = given_up && was < Some(DkimState::Active);
                let over = proof.unused.is_some_and(|unused| unused + QUEUE_LIFETIME + proof.kept() <= now);
                prop_assert!(
                    compromised || waited || (was == Some(DkimState::Retiring) && over),
                    "{:?} {:?}",
                    key,
                    proof
                );
            }
            DkimState::Destroyed => {
                prop_assert_eq!(was, Some(DkimState::Revoked));
                prop_assert!(proof.unused.is_some() && proof.since.is_some_and(|since| since + proof.kept() <= now));
            }
            DkimState::Generated | DkimState::Published => {}
        }
    }
    let emergency = before.active().map(|key| key.selector.clone()) != after.active().map(|key| key.selector.clone());
    if matches!(event, Event::CompromiseActive) && emergency && before.standby().is_some_and(|key| key.seen.is_some()) {
        prop_assert!(after.active().unwrap().seen.is_some(), "what can be verified is there and does not sign");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 5_000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_every_rule_holds(history in history()) {
        let (mut line, mut world, mut now) = (empty(), World::default(), BEGIN);
        for (hours, event) in history {
            now += HOUR * i32::try_from(hours).unwrap();
            let before = line.clone();
            let answered = happen(&mut line, &mut world, &event, now);
            judge((&before, &world.known), (&event, &answered), &line, now)?;
            forget_old_records(&before, &line, &mut world);
        }
    }

    #[test]
    fn nothing_is_forgotten_by_looking_only_when_something_is_due(
        history in history(),
        answers in prop::collection::vec(sighting(), 1..40),
        rest in 0..400_i64,
    ) {
        let (mut hourly, mut lazy) = (empty(), empty());
        let (mut of_hourly, mut of_lazy) = (World::default(), World::default());
        let answer = |name: &Selector, now: OffsetDateTime| {
            let hour = usize::try_from((now - BEGIN).whole_hours()).unwrap();
            answers[(hour + name.as_str().len() + usize::from(name.as_str().as_bytes()[1])) % answers.len()]
        };
        let pass = |line: &mut Line, now| {
            let told: Vec<_> = line.to_look_at(now).map(|key| (key.selector.clone(), answer(&key.selector, now))).collect();
            line.run(&told, true, now);
        };
        let mut hour = 0;
        for (hours, event) in history.into_iter().chain([(rest, Event::Rotate)]) {
            for _ in 0..hours {
                hour += 1;
                let now = at(hour);
                pass(&mut hourly, now);
                if due(&lazy).is_some_and(|due| due <= now) {
                    pass(&mut lazy, now);
                }
                prop_assert_eq!(&hourly, &lazy, "hour {}", hour);
            }
            // What a run does is what `pass` does.
            if !matches!(event, Event::Run(_, true)) {
                happen(&mut hourly, &mut of_hourly, &event, at(hour));
                happen(&mut lazy, &mut of_lazy, &event, at(hour));
            }
        }
    }
}
