//! The way to a domain's policies, with time and evidence as arguments: which step is in force, which is next, when it may
//! come, and what must be known before.
//!
//! A [`Way`] is one domain on one [`Track`]. What holds for every way, at every time (`tests/rollout_ways.rs`):
//!
//! * No step is skipped. A stricter stage comes only after the wait of the one before, which begins when every authoritative
//!   name server was seen to have that one's record, after a last look at it, and with evidence or an administrator's word.
//! * Milder is safe: DMARC and SPF go back at once. A policy of MTA-STS that senders remember is withdrawn by one with mode
//!   `none`, which stays until nobody remembers another one (RFC 8461 §8.3).
//! * MX records name no host that a remembered policy does not list; nor does a policy lose a host that MX records of a day
//!   before name.
//!
//! That the policy's file is served over HTTPS is not looked at here; its identifier in DNS is.

use time::{Duration, OffsetDateTime};

use crate::dkim::rotation::Sighting;
use crate::inventory::{Inventory, MxChange, MxStep, Rollout};
use crate::names::HostName;
use crate::site::{Domain, Host, Site};
use crate::stages::{DmarcPolicy, SpfPolicy, Stage, StsStage, Track};

/// How long a policy of DMARC or SPF is watched before the next: a month (RFC 9989 §7.4).
pub const MONTH: Duration = Duration::days(30);

/// How long a policy of MTA-STS is watched before the next: reports come once a day (RFC 8460 §4.1), and no weekday is like
/// the other.
pub const WEEK: Duration = Duration::days(7);

/// How long resolvers may remember a record, whatever its TTL was when they asked.
pub const LONGEST_TTL: Duration = Duration::days(1);

/// `max_age` of a policy that is tested or withdrawn, in seconds: a shorter one is of no use, for senders look once a day.
const DAY_OF_AGE: u32 = 86_400;

/// `max_age` of a policy that is enforced for the first time, in seconds: a mistake is over in a week.
const WEEK_OF_AGE: u32 = 604_800;

/// The policies that are rendered for a domain now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InForce<'a> {
    /// What SPF says of other senders.
    pub spf: SpfPolicy,
    /// What DMARC asks of receivers.
    pub dmarc: DmarcPolicy,
    /// MTA-STS.
    pub mta_sts: StsStage,
    /// How long senders may remember the MTA-STS policy, in seconds.
    pub max_age: u32,
    /// The hosts that MX records name, in the order of the site; none for a domain without mail.
    pub mx: Vec<&'a Host>,
    /// The names that the MTA-STS policy lists, sorted: those, and where hosts change, those that come and that leave.
    pub policy_mx: Vec<HostName>,
}

/// Returns the policies that are rendered for a domain: what the settings fix, else what is recorded, else the beginning.
pub fn in_force<'a>(site: &'a Site, inventory: &Inventory, domain: &Domain) -> InForce<'a> {
    let stage = |track| inventory.rollout(&domain.name, track).map_or(Stage::first(track), |rollout| rollout.stage);
    let (mut spf, mut dmarc, mut mta_sts) = (SpfPolicy::SoftFail, DmarcPolicy::None, StsStage::Off);
    for track in Track::ALL {
        match stage(track) {
            Stage::Dmarc(policy) => dmarc = policy,
            Stage::MtaSts(stage) => mta_sts = stage,
            Stage::Spf(policy) => spf = policy,
        }
    }
    if !domain.mail {
        // Nothing is lost by refusing what nobody sends.
        (spf, dmarc, mta_sts) = (SpfPolicy::Fail, DmarcPolicy::Reject, StsStage::Off);
    }
    let remembered = inventory.rollout(&domain.name, Track::MtaSts).filter(|rollout| rollout.max_age.is_some());
    let (mx, policy_mx) = mail_hosts(site, domain, remembered);
    let longest = remembered.and_then(|rollout| rollout.max_age).unwrap_or(u32::MAX);
    InForce {
        spf: domain.spf.unwrap_or(spf),
        dmarc: domain.dmarc.policy.unwrap_or(dmarc),
        mta_sts,
        max_age: match mta_sts {
            StsStage::Off | StsStage::Testing | StsStage::Withdrawn => DAY_OF_AGE,
            StsStage::Enforce => WEEK_OF_AGE,
            // What nobody recorded is not published: it would be forgotten when the policy is withdrawn.
            StsStage::EnforceLong => domain.rollout.max_age.min(longest),
        },
        mx,
        policy_mx,
    }
}

/// Returns the hosts that MX records name, and what the policy lists.
fn mail_hosts<'a>(site: &'a Site, domain: &Domain, remembered: Option<&Rollout>) -> (Vec<&'a Host>, Vec<HostName>) {
    if !domain.mail {
        return (Vec::new(), Vec::new());
    }
    let all: Vec<&Host> = site.hosts.iter().collect();
    let Some(rollout) = remembered else {
        let names = hosts_of(site);
        return (all, names);
    };
    let kept: Vec<&Host> = all.iter().copied().filter(|host| rollout.mx.contains(&host.name)).collect();
    // If the settings have none of them any more, a domain without an MX record would be worse than one with others.
    let mx = if kept.is_empty() { all } else { kept };
    let names = mx.iter().map(|host| &host.name).chain(&rollout.mx).chain(&rollout.also);
    let names = sorted(names.cloned());
    (mx, names)
}

/// Returns the names of a site's hosts, sorted.
pub fn hosts_of(site: &Site) -> Vec<HostName> {
    sorted(site.hosts.iter().map(|host| host.name.clone()))
}

/// Returns the hosts that MX records of a domain should still name and cannot, for the settings do not have them any more.
pub fn lost_hosts<'a>(site: &Site, rollout: &'a Rollout) -> Vec<&'a HostName> {
    let is_there = |name: &HostName| site.hosts.iter().any(|host| host.name == *name);
    rollout.mx.iter().filter(|name| rollout.max_age.is_some() && !is_there(name)).collect()
}

fn sorted(names: impl Iterator<Item = HostName>) -> Vec<HostName> {
    let mut names: Vec<HostName> = names.collect();
    names.sort();
    names.dedup();
    names
}

/// Returns what a domain's policy on a track is to become; none if there is no way to go: the settings fix it, or the domain has
/// no mail.
pub fn aim(domain: &Domain, track: Track) -> Option<Stage> {
    let aim = &domain.rollout;
    match track {
        _ if !domain.mail => None,
        Track::Dmarc => domain.dmarc.policy.is_none().then_some(Stage::Dmarc(aim.dmarc)),
        Track::MtaSts => Some(Stage::MtaSts(aim.mta_sts)),
        Track::Spf => domain.spf.is_none().then_some(Stage::Spf(aim.spf)),
    }
}

/// Returns the stage that the settings fix for a domain with mail on a track.
pub fn fixed(domain: &Domain, track: Track) -> Option<Stage> {
    match track {
        _ if !domain.mail => None,
        Track::Dmarc => domain.dmarc.policy.map(Stage::Dmarc),
        Track::MtaSts => None,
        Track::Spf => domain.spf.map(Stage::Spf),
    }
}

/// What others must have reported before a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// That mail of the domain passes DMARC.
    Dmarc,
    /// That mail of the domain passes DMARC, and not by its signature alone.
    Spf,
    /// That hosts reach the domain's by TLS.
    Tls,
}

/// A step on a way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Another stage.
    Stage(Stage),
    /// The MX hosts changed while MTA-STS was tested: the test begins anew.
    TestAgain,
    /// The MTA-STS policy lists the hosts that come.
    Announce,
    /// MX records name the site's hosts.
    MoveMx,
    /// The MTA-STS policy loses the hosts that left.
    DropMx,
    /// Senders are to remember the enforced policy for longer.
    Lengthen,
    /// No sender remembers an enforced policy any more.
    Forget,
}

/// What comes next on a way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing: it is as the settings want it.
    Reached,
    /// Nothing before every authoritative name server has what is rendered now.
    Unpublished,
    /// A step.
    Step {
        /// Which.
        step: Step,
        /// When it may come.
        at: OffsetDateTime,
        /// What must be known before.
        needs: Option<Needs>,
    },
}

/// What name servers are to be asked about a way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// The record of the policy as it is rendered now.
    Policy,
    /// The MX records as they are rendered now.
    Mx,
}

/// What is known in one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// What the name servers said of [`Way::asks`].
    pub sighting: Option<Sighting>,
    /// Whether others reported what the next step needs.
    pub evidence: bool,
    /// Whether an administrator takes it upon them: in the place of evidence, and of name servers that do not answer.
    pub word: bool,
}

/// What a run did to a way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Whether every name server was seen to have what was waited for, for the first time.
    pub seen: bool,
    /// The steps.
    pub steps: Vec<Step>,
}

/// A domain's way on a track.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    rollout: Rollout,
    aim: Stage,
    hosts: Vec<HostName>,
    max_age: u32,
}

impl Way {
    /// Puts together what is recorded, else the beginning, and what the settings want: of a site's hosts the sorted names. None
    /// if there is no way to go, which [`aim`] tells.
    pub fn new(
        recorded: Option<&Rollout>,
        domain: &Domain,
        track: Track,
        hosts: &[HostName],
        now: OffsetDateTime,
    ) -> Option<Self> {
        let aim = aim(domain, track)?;
        let begin = || Rollout::new(domain.name.clone(), Stage::first(track), now);
        let rollout = recorded.cloned().unwrap_or_else(begin);
        let hosts = if track == Track::MtaSts { hosts.to_vec() } else { Vec::new() };
        Some(Self { rollout, aim, hosts, max_age: domain.rollout.max_age })
    }

    /// Returns where the domain stands.
    pub fn rollout(&self) -> &Rollout {
        &self.rollout
    }

    /// Returns where it is to go.
    pub fn aim(&self) -> Stage {
        self.aim
    }

    /// Tells whether a record of it is worth keeping: it is not at the beginning for good.
    pub fn is_under_way(&self) -> bool {
        let first = Stage::first(self.aim.track());
        self.aim != first || self.rollout.stage != first
    }

    /// Returns what comes next.
    pub fn next(&self) -> Next {
        let stage = self.rollout.stage;
        match (stage, self.aim) {
            (Stage::MtaSts(stage), Stage::MtaSts(aim)) => self.next_of_mta_sts(stage, aim),
            (Stage::Dmarc(_), Stage::Dmarc(_)) | (Stage::Spf(_), Stage::Spf(_)) if self.aim < stage => {
                self.at_once(Step::Stage(self.aim))
            }
            (Stage::Dmarc(now), Stage::Dmarc(aim)) if now < aim => {
                let then = if now == DmarcPolicy::None { DmarcPolicy::Quarantine } else { DmarcPolicy::Reject };
                self.after(Step::Stage(Stage::Dmarc(then)), MONTH, Some(Needs::Dmarc))
            }
            (Stage::Spf(now), Stage::Spf(aim)) if now < aim => {
                self.after(Step::Stage(self.aim), MONTH, Some(Needs::Spf))
            }
            // Only a stricter policy than the first is news to anybody.
            _ if stage != Stage::first(stage.track()) && self.rollout.seen.is_none() => Next::Unpublished,
            _ => Next::Reached,
        }
    }

    fn next_of_mta_sts(&self, stage: StsStage, aim: StsStage) -> Next {
        let to = |stage| Step::Stage(Stage::MtaSts(stage));
        let remembered = self.rollout.max_age.map(|seconds| Duration::seconds(seconds.into()));
        match (stage, aim) {
            (StsStage::Off, StsStage::Off) => return Next::Reached,
            (StsStage::Off, _) => return self.at_once(to(StsStage::Testing)),
            (StsStage::Testing, StsStage::Off) if remembered.is_none() => return self.at_once(to(StsStage::Off)),
            (StsStage::Withdrawn, StsStage::Off) => {
                return self.after(to(StsStage::Off), remembered.unwrap_or_default() + LONGEST_TTL, None);
            }
            (_, StsStage::Off) => return self.at_once(to(StsStage::Withdrawn)),
            (StsStage::Withdrawn, _) | (StsStage::Enforce | StsStage::EnforceLong, StsStage::Testing) => {
                return self.at_once(to(StsStage::Testing));
            }
            _ => {}
        }
        if let Some(change) = self.next_of_mx(remembered) {
            return change;
        }
        match stage {
            StsStage::Testing if aim != StsStage::Testing => self.after(to(StsStage::Enforce), WEEK, Some(Needs::Tls)),
            StsStage::Testing if remembered.is_some() => {
                self.after(Step::Forget, remembered.unwrap_or_default() + LONGEST_TTL, None)
            }
            StsStage::Enforce => self.after(to(StsStage::EnforceLong), WEEK, Some(Needs::Tls)),
            StsStage::EnforceLong if self.rollout.max_age < Some(self.max_age) => self.at_once(Step::Lengthen),
            _ if self.rollout.seen.is_none() => Next::Unpublished,
            _ => Next::Reached,
        }
    }

    /// Returns what comes next because the site's hosts are others than MX records name.
    fn next_of_mx(&self, remembered: Option<Duration>) -> Option<Next> {
        let Rollout { mx, also, change, .. } = &self.rollout;
        let Some(remembered) = remembered else {
            return (*mx != self.hosts).then(|| self.at_once(Step::TestAgain));
        };
        let is_listed = |host: &HostName| mx.contains(host) || also.contains(host);
        let seen = change.and_then(|change| change.seen);
        let after =
            |step, wait| seen.map_or(Next::Unpublished, |seen| Next::Step { step, at: seen + wait, needs: None });
        match change.map(|change| change.step) {
            _ if !self.hosts.iter().all(is_listed) => Some(self.at_once(Step::Announce)),
            // Even if the settings changed back: only then does every sender know all that is listed.
            Some(MxStep::Announced) => Some(after(Step::MoveMx, remembered + LONGEST_TTL)),
            None | Some(MxStep::Moved) if *mx != self.hosts => Some(self.at_once(Step::MoveMx)),
            Some(MxStep::Moved) => Some(after(Step::DropMx, LONGEST_TTL)),
            None => None,
        }
    }

    fn at_once(&self, step: Step) -> Next {
        Next::Step { step, at: self.rollout.since, needs: None }
    }

    fn after(&self, step: Step, wait: Duration, needs: Option<Needs>) -> Next {
        let at = |seen: OffsetDateTime| Next::Step { step, at: seen + wait, needs };
        self.rollout.seen.map_or(Next::Unpublished, at)
    }

    /// Returns what name servers are to be asked now: what was not yet seen on all of them, and for a last look what must be
    /// there before a step that makes others refuse.
    pub fn asks(&self, now: OffsetDateTime) -> Option<Asks> {
        let asks_mx = self.rollout.change.is_some_and(|change| change.step == MxStep::Moved);
        match self.next() {
            Next::Unpublished if asks_mx => Some(Asks::Mx),
            Next::Unpublished => Some(Asks::Policy),
            Next::Step { step, at, needs } if at <= now && is_last_looked_at(&step, needs, self.rollout.change) => {
                Some(Asks::Policy)
            }
            Next::Reached | Next::Step { .. } => None,
        }
    }

    /// Returns what must be reported before a step that is due now.
    pub fn needs(&self, now: OffsetDateTime) -> Option<Needs> {
        match self.next() {
            Next::Step { at, needs, .. } if at <= now => needs,
            _ => None,
        }
    }

    /// Does all that a run does for a way: mends what a wrong clock wrote, takes in what the servers said of [`Self::asks`], and
    /// does what time and evidence bring.
    pub fn run(&mut self, known: Known, now: OffsetDateTime) -> Moved {
        self.mend_clock(now);
        let sighting = known.sighting.map(|sighting| match sighting {
            Sighting::Unknown if known.word => Sighting::Everywhere { ttl: 0, negative_ttl: 0 },
            sighting => sighting,
        });
        let is_there = matches!(sighting, Some(Sighting::Everywhere { .. }));
        let mut moved = Moved { seen: is_there && self.see(now), steps: Vec::new() };
        // What was seen is seen of what was rendered before: what follows is decided by it, once.
        while let Next::Step { step, at, needs } = self.next() {
            let is_held = needs.is_some() && !known.evidence && !known.word;
            if needs.is_some() && at <= now && is_held {
                self.rollout.looked = Some(now);
            }
            let must_be_there = is_last_looked_at(&step, needs, self.rollout.change);
            if at > now || is_held || (must_be_there && (!is_there || !moved.steps.is_empty())) {
                break;
            }
            self.take(&step, now);
            moved.steps.push(step);
        }
        moved
    }

    /// Goes one step back, to where nothing is lost; the way goes on from there. Returns none at the mildest stage, and where
    /// only the settings lead further back.
    pub fn back(&mut self, now: OffsetDateTime) -> Option<Stage> {
        let stage = match self.rollout.stage {
            Stage::Dmarc(DmarcPolicy::Reject) => Stage::Dmarc(DmarcPolicy::Quarantine),
            Stage::Dmarc(DmarcPolicy::Quarantine) => Stage::Dmarc(DmarcPolicy::None),
            Stage::Spf(SpfPolicy::Fail) => Stage::Spf(SpfPolicy::SoftFail),
            Stage::MtaSts(StsStage::EnforceLong) => Stage::MtaSts(StsStage::Enforce),
            Stage::MtaSts(StsStage::Enforce) => Stage::MtaSts(StsStage::Testing),
            Stage::Dmarc(DmarcPolicy::None)
            | Stage::Spf(SpfPolicy::SoftFail)
            | Stage::MtaSts(StsStage::Off | StsStage::Testing | StsStage::Withdrawn) => return None,
        };
        self.mend_clock(now);
        self.take(&Step::Stage(stage), now);
        Some(stage)
    }

    /// A time that lies ahead was written by a wrong clock; the wait begins anew.
    fn mend_clock(&mut self, now: OffsetDateTime) {
        let Rollout { since, seen, looked, change, .. } = &mut self.rollout;
        for at in [Some(since), seen.as_mut(), looked.as_mut()].into_iter().flatten() {
            *at = (*at).min(now);
        }
        if let Some(MxChange { since, seen, .. }) = change {
            *since = (*since).min(now);
            *seen = seen.map(|seen| seen.min(now));
        }
    }

    /// Takes in that every server has what is waited for. Returns whether that is new.
    fn see(&mut self, now: OffsetDateTime) -> bool {
        let is_new = self.next() == Next::Unpublished;
        if is_new {
            match &mut self.rollout.change {
                Some(change) if change.seen.is_none() => change.seen = Some(now),
                _ => self.rollout.seen = Some(now),
            }
        }
        is_new
    }

    fn take(&mut self, step: &Step, now: OffsetDateTime) {
        let rollout = &mut self.rollout;
        match step {
            Step::Stage(stage) => {
                *rollout = Rollout { stage: *stage, since: now, seen: None, looked: None, ..rollout.clone() };
                match stage {
                    Stage::MtaSts(StsStage::Testing) if rollout.max_age.is_none() => rollout.mx.clone_from(&self.hosts),
                    Stage::MtaSts(StsStage::Enforce) => rollout.max_age = rollout.max_age.max(Some(WEEK_OF_AGE)),
                    Stage::MtaSts(StsStage::EnforceLong) => rollout.max_age = rollout.max_age.max(Some(self.max_age)),
                    Stage::MtaSts(StsStage::Off) => {
                        *rollout = Rollout::new(rollout.domain.clone(), *stage, now);
                    }
                    Stage::MtaSts(StsStage::Withdrawn) => {
                        // The policy lists nobody now, and until it is forgotten MX records stay.
                        (rollout.also, rollout.change) = (Vec::new(), None);
                    }
                    Stage::MtaSts(StsStage::Testing) | Stage::Dmarc(_) | Stage::Spf(_) => {}
                }
            }
            Step::TestAgain => {
                (rollout.since, rollout.seen) = (now, None);
                rollout.mx.clone_from(&self.hosts);
            }
            Step::Announce => {
                let also = rollout.also.iter().chain(&self.hosts).filter(|host| !rollout.mx.contains(host));
                rollout.also = sorted(also.cloned());
                rollout.change = Some(MxChange { step: MxStep::Announced, since: now, seen: None });
            }
            Step::MoveMx => {
                let also = rollout.mx.iter().chain(&rollout.also).filter(|host| !self.hosts.contains(host));
                rollout.also = sorted(also.cloned());
                rollout.mx.clone_from(&self.hosts);
                rollout.change = Some(MxChange { step: MxStep::Moved, since: now, seen: None });
            }
            Step::DropMx => (rollout.also, rollout.change) = (Vec::new(), None),
            Step::Lengthen => {
                (rollout.since, rollout.seen) = (now, None);
                rollout.max_age = rollout.max_age.max(Some(self.max_age));
            }
            Step::Forget => (rollout.max_age, rollout.also, rollout.change) = (None, Vec::new(), None),
        }
    }
}

/// Tells whether a step makes others refuse mail, so that what it builds on must be there at that very moment.
fn is_last_looked_at(step: &Step, needs: Option<Needs>, change: Option<MxChange>) -> bool {
    let is_announced = change.is_some_and(|change| change.step == MxStep::Announced);
    needs.is_some() || (*step == Step::MoveMx && is_announced)
}
