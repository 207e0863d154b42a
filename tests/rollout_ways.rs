//! The way to a domain's policies: each rule by itself, and all of them over random histories, with senders that remember what
//! they were told.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::collections::BTreeMap;

use postseal::dkim::rotation::Sighting;
use postseal::inventory::{Inventory, MxStep, Rollout};
use postseal::keys::KeyKind;
use postseal::names::HostName;
use postseal::platform::{Platform, Version};
use postseal::policy::mta_sts;
use postseal::policy::rollout::{self, Asks, Known, LONGEST_TTL, MONTH, Moved, Needs, Next, Step, WEEK, Way};
use postseal::site::{Accounts, Ca, CertificateSource, Delivery, Dkim, Domain, Host, Services, Site, SmtpdConf, Trust};
use postseal::stages::{DmarcPolicy, SpfPolicy, Stage, StsStage, Track};
use proptest::prelude::*;
use time::macros::datetime;
use time::{Duration, OffsetDateTime};

const BEGIN: OffsetDateTime = datetime!(2026-11-24 12:00 UTC);
const HERE: Sighting = Sighting::Everywhere { ttl: 3600, negative_ttl: 3600 };
const SECOND: Duration = Duration::SECOND;

fn host(name: &str) -> Host {
    Host {
        name: name.parse().unwrap(),
        platform: Platform::Debian,
        addresses: vec![],
        listen: vec!["0.0.0.0".parse().unwrap()],
        smtpd_conf: SmtpdConf::Complete,
        mx_certificate: CertificateSource::Issued,
        submission_certificate: CertificateSource::Issued,
        opensmtpd: Version::new(7, 4, 0),
        filter_rspamd: Version::new(0, 1, 8),
        mx_preference: 10,
        mx_spki: Vec::new(),
        web: None,
    }
}

fn site(hosts: &[&str]) -> Site {
    let mut domain = Domain::new("example.com".parse().unwrap());
    domain.rollout.mta_sts = StsStage::EnforceLong;
    Site {
        hosts: hosts.iter().map(|name| host(name)).collect(),
        domains: vec![domain],
        accounts: Accounts::Managed,
        aliases: Vec::new(),
        dkim: Dkim::default(),
        delivery: Delivery::Lmtp { socket: None },
        trust: Trust::Pinned,
        ca: Ca { name: "Example".to_owned(), key: KeyKind::P256 },
        notify: None,
        services: Services::default(),
        files: BTreeMap::new(),
    }
}

/// What is recorded of the site's one domain, and what its settings are.
struct World {
    site: Site,
    recorded: Vec<Rollout>,
}

impl World {
    fn new() -> Self {
        Self { site: site(&["a.example.com"]), recorded: Vec::new() }
    }

    fn domain(&mut self) -> &mut Domain {
        &mut self.site.domains[0]
    }

    fn set_hosts(&mut self, hosts: &[&str]) {
        self.site.hosts = hosts.iter().map(|name| host(name)).collect();
    }

    fn inventory(&self) -> Inventory {
        Inventory { rollouts: self.recorded.clone(), ..Inventory::default() }
    }

    fn way(&self, track: Track, now: OffsetDateTime) -> Way {
        let inventory = self.inventory();
        let domain = &self.site.domains[0];
        let recorded = inventory.rollout(&domain.name, track);
        Way::new(recorded, domain, track, &rollout::hosts_of(&self.site), now).unwrap()
    }

    fn save(&mut self, way: &Way) {
        let track = way.aim().track();
        self.recorded.retain(|rollout| rollout.stage.track() != track);
        self.recorded.push(way.rollout().clone());
        self.recorded.sort_by_key(|rollout| rollout.stage.track());
    }

    fn run(&mut self, track: Track, known: Known, now: OffsetDateTime) -> Moved {
        let mut way = self.way(track, now);
        let moved = way.run(known, now);
        self.save(&way);
        moved
    }

    /// A run among name servers that have everything, with evidence.
    fn good(&mut self, track: Track, now: OffsetDateTime) -> Vec<Step> {
        self.run(track, Known { sighting: Some(HERE), evidence: true, word: false }, now).steps
    }

    fn stage(&self, track: Track, now: OffsetDateTime) -> Stage {
        self.way(track, now).rollout().stage
    }

    fn mx(&self) -> Vec<String> {
        let inventory = self.inventory();
        let in_force = rollout::in_force(&self.site, &inventory, &self.site.domains[0]);
        in_force.mx.iter().map(|host| host.name.to_string()).collect()
    }

    fn policy(&self) -> String {
        let inventory = self.inventory();
        let text = mta_sts::policy(&rollout::in_force(&self.site, &inventory, &self.site.domains[0]));
        text.unwrap_or_default().replace("\r\n", " ").replace(".example.com", "")
    }

    /// Goes on to the long enforcement, which is seen at the moment that is returned.
    fn enforce(&mut self) -> OffsetDateTime {
        let mut now = BEGIN;
        for _ in 0..3 {
            self.good(Track::MtaSts, now);
            self.good(Track::MtaSts, now);
            now += WEEK;
        }
        assert_eq!(self.stage(Track::MtaSts, now), Stage::MtaSts(StsStage::EnforceLong));
        now - WEEK
    }
}

const QUARANTINE: Stage = Stage::Dmarc(DmarcPolicy::Quarantine);
const REJECT: Stage = Stage::Dmarc(DmarcPolicy::Reject);

fn sts(stage: StsStage) -> Step {
    Step::Stage(Stage::MtaSts(stage))
}

#[test]
fn dmarc_waits_a_month_from_when_every_name_server_has_the_record() {
    let mut world = World::new();
    let seen = BEGIN + Duration::days(5);
    assert_eq!(world.way(Track::Dmarc, BEGIN).next(), Next::Unpublished);
    for sighting in [Sighting::Nowhere, Sighting::Somewhere, Sighting::Unknown] {
        let known = Known { sighting: Some(sighting), evidence: true, word: false };
        assert_eq!(world.run(Track::Dmarc, known, BEGIN), Moved::default());
    }
    assert_eq!(world.good(Track::Dmarc, seen), []);
    assert_eq!(world.good(Track::Dmarc, seen + MONTH - SECOND), []);
    assert_eq!(world.good(Track::Dmarc, seen + MONTH), [Step::Stage(QUARANTINE)]);
}

#[test]
fn dmarc_ends_at_its_aim_and_goes_on_step_by_step_to_a_stricter_one() {
    let mut world = World::new();
    let mut now = BEGIN;
    let mut month = |world: &mut World| {
        let mut steps = world.good(Track::Dmarc, now);
        now += MONTH;
        steps.extend(world.good(Track::Dmarc, now));
        steps
    };
    assert_eq!(month(&mut world), [Step::Stage(QUARANTINE)]);
    assert_eq!(month(&mut world), []);
    world.domain().rollout.dmarc = DmarcPolicy::Reject;
    assert_eq!(month(&mut world), [Step::Stage(REJECT)]);
    assert_eq!(month(&mut world), []);
    assert_eq!(world.way(Track::Dmarc, now).next(), Next::Reached);
}

#[test]
fn without_evidence_nothing_becomes_stricter_but_by_an_administrators_word() {
    let mut world = World::new();
    world.good(Track::Dmarc, BEGIN);
    let now = BEGIN + MONTH;
    assert_eq!(world.way(Track::Dmarc, now).needs(now), Some(Needs::Dmarc));
    let bare = Known { sighting: Some(HERE), evidence: false, word: false };
    assert_eq!(world.run(Track::Dmarc, bare, now).steps, []);
    assert_eq!(world.way(Track::Dmarc, now).rollout().looked, Some(now));
    let by_word = Known { word: true, ..bare };
    assert_eq!(world.run(Track::Dmarc, by_word, now).steps, [Step::Stage(QUARANTINE)]);
    assert_eq!(world.run(Track::Dmarc, by_word, now).steps, [], "a word does not shorten the wait");
}

#[test]
fn a_word_stands_for_name_servers_that_are_silent_and_not_for_one_that_lacks_the_record() {
    for (sighting, steps) in [(Sighting::Unknown, 1), (Sighting::Nowhere, 0), (Sighting::Somewhere, 0)] {
        let mut world = World::new();
        world.good(Track::Dmarc, BEGIN);
        let known = Known { sighting: Some(sighting), evidence: false, word: true };
        assert_eq!(world.run(Track::Dmarc, known, BEGIN + MONTH).steps.len(), steps, "{sighting:?}");
    }
}

#[test]
fn a_record_that_is_gone_at_the_last_look_holds_the_step_and_costs_no_wait() {
    let mut world = World::new();
    world.good(Track::Dmarc, BEGIN);
    let now = BEGIN + MONTH;
    for sighting in [None, Some(Sighting::Nowhere), Some(Sighting::Unknown)] {
        assert_eq!(world.run(Track::Dmarc, Known { sighting, evidence: true, word: false }, now).steps, []);
    }
    assert_eq!(world.way(Track::Dmarc, now).asks(now), Some(Asks::Policy));
    assert_eq!(world.good(Track::Dmarc, now).len(), 1);
}

#[test]
fn a_milder_aim_is_followed_at_once() {
    let mut world = World::new();
    world.domain().rollout.dmarc = DmarcPolicy::Reject;
    for month in 0..3 {
        world.good(Track::Dmarc, BEGIN + MONTH * month);
        world.good(Track::Dmarc, BEGIN + MONTH * month);
    }
    let now = BEGIN + MONTH * 3;
    assert_eq!(world.stage(Track::Dmarc, now), REJECT);
    world.domain().rollout.dmarc = DmarcPolicy::None;
    assert_eq!(world.run(Track::Dmarc, Known::default(), now).steps, [Step::Stage(Stage::Dmarc(DmarcPolicy::None))]);
}

#[test]
fn spf_says_all_only_if_that_is_the_aim() {
    let mut world = World::new();
    assert!(!world.way(Track::Spf, BEGIN).is_under_way());
    assert_eq!(world.way(Track::Spf, BEGIN).next(), Next::Reached);
    world.domain().rollout.spf = SpfPolicy::Fail;
    world.good(Track::Spf, BEGIN);
    assert_eq!(world.good(Track::Spf, BEGIN + MONTH - SECOND), []);
    assert_eq!(world.way(Track::Spf, BEGIN).needs(BEGIN + MONTH), Some(Needs::Spf));
    assert_eq!(world.good(Track::Spf, BEGIN + MONTH), [Step::Stage(Stage::Spf(SpfPolicy::Fail))]);
}

#[test]
fn a_policy_that_the_settings_fix_and_a_domain_without_mail_have_no_way() {
    let mut domain = Domain::new("example.com".parse().unwrap());
    domain.dmarc.policy = Some(DmarcPolicy::None);
    domain.spf = Some(SpfPolicy::Fail);
    let has_way = |domain: &Domain| Track::ALL.map(|track| rollout::aim(domain, track).is_some());
    assert_eq!(has_way(&domain), [false, true, false]);
    domain.mail = false;
    assert_eq!(has_way(&domain), [false, false, false]);
}

#[test]
fn mta_sts_is_tested_enforced_for_a_week_and_then_for_long() {
    let mut world = World::new();
    assert_eq!(world.good(Track::MtaSts, BEGIN), [sts(StsStage::Testing)]);
    assert_eq!(world.policy(), "version: STSv1 mode: testing mx: a max_age: 86400 ");
    world.good(Track::MtaSts, BEGIN);
    assert_eq!(world.good(Track::MtaSts, BEGIN + WEEK - SECOND), []);
    assert_eq!(world.good(Track::MtaSts, BEGIN + WEEK), [sts(StsStage::Enforce)]);
    assert_eq!(world.policy(), "version: STSv1 mode: enforce mx: a max_age: 604800 ");
    let seen = BEGIN + WEEK + Duration::HOUR;
    world.good(Track::MtaSts, seen);
    assert_eq!(world.good(Track::MtaSts, seen + WEEK - SECOND), []);
    assert_eq!(world.good(Track::MtaSts, seen + WEEK), [sts(StsStage::EnforceLong)]);
    assert_eq!(world.policy(), "version: STSv1 mode: enforce mx: a max_age: 31557600 ");
}

#[test]
fn a_policy_that_is_remembered_is_withdrawn_until_nobody_remembers_it() {
    let mut world = World::new();
    let now = world.enforce();
    world.domain().rollout.mta_sts = StsStage::Off;
    assert_eq!(world.run(Track::MtaSts, Known::default(), now).steps, [sts(StsStage::Withdrawn)]);
    assert_eq!(world.policy(), "version: STSv1 mode: none max_age: 86400 ");
    let seen = now + Duration::days(3);
    world.good(Track::MtaSts, seen);
    let over = seen + Duration::seconds(31_557_600) + LONGEST_TTL;
    assert_eq!(world.good(Track::MtaSts, over - SECOND), []);
    assert_eq!(world.good(Track::MtaSts, over), [sts(StsStage::Off)]);
    assert_eq!(world.policy(), "");
}

#[test]
fn a_shorter_max_age_is_published_at_once_and_the_longer_one_is_not_forgotten() {
    let mut world = World::new();
    let now = world.enforce();
    world.domain().rollout.max_age = 86_400;
    assert!(world.policy().ends_with("max_age: 86400 "));
    assert_eq!(world.good(Track::MtaSts, now), []);
    assert_eq!(world.way(Track::MtaSts, now).rollout().max_age, Some(31_557_600));
}

#[test]
fn a_longer_max_age_is_recorded_before_it_is_published() {
    let mut world = World::new();
    world.domain().rollout.max_age = 700_000;
    let now = world.enforce();
    world.domain().rollout.max_age = 800_000;
    assert!(world.policy().ends_with("max_age: 700000 "));
    assert_eq!(world.good(Track::MtaSts, now), [Step::Lengthen]);
    assert!(world.policy().ends_with("max_age: 800000 "));
}

#[test]
fn what_was_only_tested_is_off_at_once() {
    let mut world = World::new();
    world.good(Track::MtaSts, BEGIN);
    world.domain().rollout.mta_sts = StsStage::Off;
    assert_eq!(world.run(Track::MtaSts, Known::default(), BEGIN).steps, [sts(StsStage::Off)]);
}

#[test]
fn other_hosts_begin_the_test_anew() {
    let mut world = World::new();
    world.good(Track::MtaSts, BEGIN);
    world.good(Track::MtaSts, BEGIN);
    world.set_hosts(&["a.example.com", "b.example.com"]);
    assert_eq!(world.mx(), ["a.example.com", "b.example.com"], "nobody refuses anything yet");
    let now = BEGIN + WEEK;
    assert_eq!(world.good(Track::MtaSts, now), [Step::TestAgain]);
    world.good(Track::MtaSts, now);
    assert_eq!(world.good(Track::MtaSts, now + WEEK - SECOND), []);
    assert_eq!(world.good(Track::MtaSts, now + WEEK), [sts(StsStage::Enforce)]);
}

#[test]
fn under_an_enforced_policy_a_new_host_is_announced_before_mail_is_sent_to_it() {
    let mut world = World::new();
    world.domain().rollout.max_age = 700_000;
    let now = world.enforce();
    world.set_hosts(&["a.example.com", "b.example.com"]);
    let policy = |listed: &str| format!("version: STSv1 mode: enforce {listed} max_age: 700000 ");
    assert_eq!((world.mx(), world.policy()), (vec!["a.example.com".to_owned()], policy("mx: a")));
    assert_eq!(world.good(Track::MtaSts, now), [Step::Announce]);
    assert_eq!((world.mx(), world.policy()), (vec!["a.example.com".to_owned()], policy("mx: a mx: b")));
    world.good(Track::MtaSts, now);
    let known = now + Duration::seconds(700_000) + LONGEST_TTL;
    assert_eq!(world.good(Track::MtaSts, known - SECOND), []);
    // The last one leaves as the new one comes: only its records can be kept no longer than the settings have it.
    world.set_hosts(&["b.example.com"]);
    assert_eq!(world.good(Track::MtaSts, known), [Step::MoveMx]);
    assert_eq!((world.mx(), world.policy()), (vec!["b.example.com".to_owned()], policy("mx: a mx: b")));
    assert_eq!(world.way(Track::MtaSts, known).asks(known), Some(Asks::Mx));
    let seen = known + Duration::HOUR;
    world.good(Track::MtaSts, seen);
    assert_eq!(world.good(Track::MtaSts, seen + LONGEST_TTL - SECOND), []);
    assert_eq!(world.good(Track::MtaSts, seen + LONGEST_TTL), [Step::DropMx]);
    assert_eq!((world.mx(), world.policy()), (vec!["b.example.com".to_owned()], policy("mx: b")));
}

#[test]
fn the_union_that_is_gone_from_a_name_server_holds_the_move_of_mx_records() {
    let mut world = World::new();
    let now = world.enforce();
    world.set_hosts(&["a.example.com", "b.example.com"]);
    world.good(Track::MtaSts, now);
    world.good(Track::MtaSts, now);
    let known = now + Duration::seconds(31_557_600) + LONGEST_TTL;
    let lacking = Known { sighting: Some(Sighting::Somewhere), evidence: true, word: false };
    assert_eq!(world.run(Track::MtaSts, lacking, known).steps, []);
    assert_eq!(world.good(Track::MtaSts, known), [Step::MoveMx]);
}

#[test]
fn a_change_that_was_taken_back_does_not_make_the_new_host_known() {
    let mut world = World::new();
    let now = world.enforce();
    for hosts in [&["a.example.com", "b.example.com"][..], &["a.example.com"], &["a.example.com", "b.example.com"]] {
        world.set_hosts(hosts);
        world.good(Track::MtaSts, now);
        assert_eq!(world.mx(), ["a.example.com"]);
    }
}

#[test]
fn a_host_that_leaves_loses_its_mx_record_at_once_and_its_place_in_the_policy_a_day_later() {
    let mut world = World::new();
    world.set_hosts(&["a.example.com", "b.example.com"]);
    let now = world.enforce();
    world.set_hosts(&["b.example.com"]);
    assert_eq!(world.good(Track::MtaSts, now), [Step::MoveMx]);
    assert_eq!(world.mx(), ["b.example.com"]);
    assert!(world.policy().contains("mx: a mx: b "), "{}", world.policy());
    world.good(Track::MtaSts, now);
    assert_eq!(world.good(Track::MtaSts, now + LONGEST_TTL), [Step::DropMx]);
}

#[test]
fn a_domain_without_any_of_its_remembered_hosts_has_mx_records_all_the_same() {
    let mut world = World::new();
    let now = world.enforce();
    world.set_hosts(&["new.example.com"]);
    let way = world.way(Track::MtaSts, now);
    let lost: Vec<String> = rollout::lost_hosts(&world.site, way.rollout()).iter().map(ToString::to_string).collect();
    assert_eq!((world.mx(), lost), (vec!["new.example.com".to_owned()], vec!["a.example.com".to_owned()]));
}

#[test]
fn one_step_back_is_taken_at_once_where_nothing_is_lost_by_it() {
    let mut world = World::new();
    let now = world.enforce();
    let mut way = world.way(Track::MtaSts, now);
    assert_eq!(way.back(now), Some(Stage::MtaSts(StsStage::Enforce)));
    assert_eq!(way.back(now), Some(Stage::MtaSts(StsStage::Testing)));
    assert_eq!(way.rollout().max_age, Some(31_557_600), "what senders remember is not forgotten");
    assert_eq!(way.back(now), None);
    let mut way = world.way(Track::Dmarc, now);
    assert_eq!(way.back(now), None);
}

#[test]
fn what_a_clock_wrote_that_was_ahead_is_waited_for_from_now_on() {
    let mut world = World::new();
    world.good(Track::Dmarc, BEGIN + Duration::days(4000));
    world.run(Track::Dmarc, Known::default(), BEGIN);
    assert_eq!(world.good(Track::Dmarc, BEGIN + MONTH - SECOND), []);
    assert_eq!(world.good(Track::Dmarc, BEGIN + MONTH), [Step::Stage(QUARANTINE)]);
}

// Random histories

#[derive(Clone, Debug)]
enum Event {
    Hosts(u8),
    Aim(Stage),
    MaxAge(u32),
    Publish,
    /// A run, what it rendered is published, and another run: among good name servers, with evidence.
    Good,
    /// What the name servers say in the place of the truth, and whether there is evidence, and a word.
    Run(Option<Sighting>, bool, bool),
    Back,
}

fn event(track: Track) -> impl Strategy<Value = Event> {
    let aims: Vec<Stage> = match track {
        Track::Dmarc => DmarcPolicy::ALL.map(Stage::Dmarc).to_vec(),
        Track::Spf => SpfPolicy::ALL.map(Stage::Spf).to_vec(),
        Track::MtaSts => [StsStage::Off, StsStage::Testing, StsStage::EnforceLong].map(Stage::MtaSts).to_vec(),
    };
    let lie = prop::sample::select(vec![Sighting::Unknown, Sighting::Somewhere, Sighting::Nowhere]);
    prop_oneof![
        2 => (1_u8..8).prop_map(Event::Hosts),
        1 => prop::sample::select(aims).prop_map(Event::Aim),
        1 => prop::sample::select(vec![86_400, 604_800, 1_500_000]).prop_map(Event::MaxAge),
        3 => Just(Event::Publish),
        8 => Just(Event::Good),
        5 => (prop::option::weighted(0.1, lie), prop::bool::weighted(0.9), prop::bool::weighted(0.1))
            .prop_map(|(lie, evidence, word)| Event::Run(lie, evidence, word)),
        1 => Just(Event::Back),
    ]
}

/// Hours that pass, and then what happens.
fn history(track: Track) -> impl Strategy<Value = Vec<(u16, Event)>> {
    let hours = prop_oneof![2 => 0_u16..30, 1 => Just(0), 1 => 150_u16..1000];
    prop::collection::vec((hours, event(track)), 1..80)
}

fn named(number: u8) -> Vec<&'static str> {
    let all = ["a.example.com", "b.example.com", "c.example.com"];
    (0_u8..3).filter(|at| number & (1 << at) != 0).map(|at| all[usize::from(at)]).collect()
}

/// What is published, and what senders and resolvers remember of it.
#[derive(Default)]
struct Others {
    /// The stages, the policy file, the hosts that it lists, and for how long it is remembered if it is enforced.
    policy: Option<(Stage, String, Vec<HostName>, Option<u32>)>,
    mx: Vec<String>,
    /// Hosts that MX records named, and until when.
    old_mx: Vec<(String, OffsetDateTime)>,
    /// Enforced policies, and until when they are remembered.
    remembered: Vec<(Vec<HostName>, OffsetDateTime)>,
}

impl Others {
    /// Until now, somebody may have fetched what is published.
    fn fetch(&mut self, now: OffsetDateTime) {
        if let Some((_, _, listed, Some(max_age))) = &self.policy {
            self.remembered.push((listed.clone(), now + Duration::seconds((*max_age).into())));
        }
        self.remembered.retain(|(_, until)| *until > now);
        self.old_mx.retain(|(_, until)| *until > now);
    }

    fn publish(&mut self, world: &World, track: Track, now: OffsetDateTime) {
        let inventory = world.inventory();
        let in_force = rollout::in_force(&world.site, &inventory, &world.site.domains[0]);
        self.old_mx.extend(self.mx.drain(..).map(|name| (name, now + LONGEST_TTL)));
        self.mx = world.mx();
        let max_age = in_force.mta_sts.is_enforced().then_some(in_force.max_age);
        self.policy = Some((world.stage(track, now), world.policy(), in_force.policy_mx, max_age));
        self.fetch(now);
    }

    fn say(&self, world: &World, track: Track, asks: Asks, now: OffsetDateTime) -> Sighting {
        let is_there = match asks {
            Asks::Mx => self.mx == world.mx(),
            Asks::Policy => self
                .policy
                .as_ref()
                .is_some_and(|(stage, policy, ..)| (*stage, policy) == (world.stage(track, now), &world.policy())),
        };
        if is_there { HERE } else { Sighting::Nowhere }
    }
}

impl World {
    /// A run in which the name servers say what is so, and there is evidence.
    fn honest(&mut self, track: Track, others: &Others, now: OffsetDateTime) {
        let sighting = self.way(track, now).asks(now).map(|asks| others.say(self, track, asks, now));
        self.run(track, Known { sighting, evidence: true, word: false }, now);
    }
}

fn rank(stage: Stage) -> u8 {
    match stage {
        Stage::Dmarc(policy) => policy as u8,
        Stage::Spf(policy) => policy as u8,
        Stage::MtaSts(StsStage::Withdrawn) => 0,
        Stage::MtaSts(stage) => stage as u8,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_no_mail_is_lost_and_no_step_is_skipped(
        (track, history) in prop::sample::select([Track::Dmarc, Track::Spf, Track::MtaSts, Track::MtaSts, Track::MtaSts].to_vec())
            .prop_flat_map(|track| (Just(track), history(track))),
        enforced in prop::bool::weighted(0.7),
    ) {
        let (mut world, mut others, mut now) = (World::new(), Others::default(), BEGIN);
        let mut seen_at: Option<OffsetDateTime> = None;
        if enforced && track == Track::MtaSts {
            world.domain().rollout.max_age = 604_800;
            for _ in 0..3 {
                world.honest(track, &others, now);
                others.publish(&world, track, now);
                world.honest(track, &others, now);
                seen_at = Some(now);
                now += WEEK;
            }
        }
        for (hours, event) in history {
            now += Duration::HOUR * i32::from(hours);
            others.fetch(now);
            let before = world.way(track, now);
            let mut known = Known::default();
            match event {
                Event::Hosts(number) => {
                    let hosts = named(number);
                    let rollout = before.rollout();
                    let keeps = rollout.mx.iter().any(|host| hosts.contains(&host.as_str()));
                    // Records of hosts that left the settings cannot be kept: that is warned of.
                    if keeps || rollout.max_age.is_none() {
                        world.set_hosts(&hosts);
                        world.run(track, Known::default(), now);
                    }
                }
                Event::Aim(Stage::Dmarc(policy)) => world.domain().rollout.dmarc = policy,
                Event::Aim(Stage::Spf(policy)) => world.domain().rollout.spf = policy,
                Event::Aim(Stage::MtaSts(stage)) => world.domain().rollout.mta_sts = stage,
                Event::MaxAge(seconds) => world.domain().rollout.max_age = seconds,
                Event::Publish => others.publish(&world, track, now),
                Event::Good => {
                    known = Known { evidence: true, ..Known::default() };
                    world.honest(track, &others, now);
                    others.publish(&world, track, now);
                    world.honest(track, &others, now);
                }
                Event::Run(lie, evidence, word) => {
                    let asks = before.asks(now);
                    let sighting = asks.map(|asks| lie.unwrap_or_else(|| others.say(&world, track, asks, now)));
                    // A word is that the record is there: it is given by who knows.
                    let honest = asks.is_none_or(|asks| others.say(&world, track, asks, now) == HERE);
                    known = Known { sighting, evidence, word: word && honest };
                    world.run(track, known, now);
                }
                Event::Back => {
                    let mut way = world.way(track, now);
                    if way.back(now).is_some() {
                        world.save(&way);
                    }
                }
            }
            let after = world.way(track, now);
            let (old, new) = (before.rollout().stage, after.rollout().stage);
            if rank(new) > rank(old) {
                prop_assert_eq!(rank(new), rank(old) + 1, "{:?} to {:?}", old, new);
                if new != Stage::MtaSts(StsStage::Testing) {
                    let wait = if track == Track::MtaSts { WEEK } else { MONTH };
                    prop_assert!(seen_at.is_some_and(|seen| seen + wait <= now), "{:?} too soon: {:?}", new, seen_at);
                    prop_assert!(known.evidence || known.word);
                }
            }
            // What was seen is seen of the stage as it was entered then.
            let is_new = old != new || before.rollout().since != after.rollout().since;
            seen_at = match after.rollout().seen {
                Some(_) if is_new || before.rollout().seen.is_none() => Some(now),
                Some(_) => seen_at,
                None => None,
            };
            let visible: Vec<&String> = others.mx.iter().chain(others.old_mx.iter().map(|(name, _)| name)).collect();
            for (listed, until) in &others.remembered {
                for name in &visible {
                    prop_assert!(
                        listed.iter().any(|host| host.as_str() == name.as_str()),
                        "mail to {} is refused until {} by who remembers {:?}", name, until, listed
                    );
                }
            }
            if new == Stage::MtaSts(StsStage::Off) {
                prop_assert!(others.remembered.is_empty(), "the policy is gone, and is remembered");
            }
            let is_changing = after.rollout().change.is_some_and(|change| change.step == MxStep::Moved);
            prop_assert!(after.rollout().also.is_empty() || after.rollout().change.is_some() || is_changing);
        }
    }
}
