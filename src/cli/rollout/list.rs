//! `rollout list`: how far each policy is, and what it waits for.

use camino::Utf8Path;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::Standings;
use super::judge::{self, Judged};
use crate::cli::failure::Failure;
use crate::cli::report::{Report, columns};
use crate::cli::{session, show};
use crate::env::Env;
use crate::inventory::Inventory;
use crate::names::DomainName;
use crate::policy::rollout::{self, Next, Way};
use crate::policy::words;
use crate::site::{Domain, Site};
use crate::stages::{DmarcPolicy, SpfPolicy, Stage, Track};

/// `rollout list`
#[derive(Debug, Default, clap::Args)]
pub(in crate::cli) struct List {
    /// One domain of the site [default: all]
    #[arg(value_name = "DOMAIN")]
    domain: Option<DomainName>,
}

/// How many senders are named that would be refused.
const NAMED: usize = 5;

/// `rollout list`
pub(super) fn list(env: &dyn Env, site: Option<&Utf8Path>, args: &List) -> Result<Report, Failure> {
    let (wanted, store) = session::read(site)?;
    if let Some(domain) = &args.domain {
        show::known(&wanted.site, domain)?;
    }
    let now = env.now();
    let standings = Standings::new(&wanted.site, store.ledger().rollouts()?);
    let domains =
        wanted.site.domains.iter().filter(|domain| args.domain.as_ref().is_none_or(|name| domain.name == *name));
    let (mut rows, mut json, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    for domain in domains.clone() {
        for track in Track::ALL {
            let way = standings.way(domain, track, now);
            let next = way.as_ref().map(Way::next);
            let judged = match (&way, &next) {
                (Some(way), Some(Next::Step { needs: Some(needs), .. })) => {
                    judge::judge(store.ledger(), (&wanted.site, domain), (way, *needs), &[], now)?
                }
                _ => Judged::default(),
            };
            let told = Told { stage: stage(&wanted.site, &standings.inventory, domain, track), way, next, judged };
            rows.push(vec![
                domain.name.to_string(),
                words::called(track).to_owned(),
                words::stage(told.stage),
                told.since(),
                told.next(now),
            ]);
            json.push(told.to_json(domain, track, now));
            if args.domain.is_some() {
                refused.extend(told.refused());
            }
        }
    }
    let is_hard = |domain: &Domain| {
        domain.mail && (domain.rollout.dmarc == DmarcPolicy::Reject || domain.rollout.spf == SpfPolicy::Fail)
    };
    let notes: Vec<&str> = domains.clone().any(is_hard).then_some(words::LISTS).into_iter().collect();
    let lines = refused.into_iter().chain(notes.iter().map(|note| format!("note: {note}")));
    let text = lines.fold(columns(&rows), |text, line| text + &line + "\n");
    let mut warnings = wanted.warnings.clone();
    warnings.extend(super::warnings(&wanted.site, &standings.inventory.rollouts));
    Ok(Report::fine(text, json!({ "rollouts": json, "notes": notes })).warn(&warnings))
}

/// What is rendered for a domain on a track.
fn stage(site: &Site, inventory: &Inventory, domain: &Domain, track: Track) -> Stage {
    let in_force = rollout::in_force(site, inventory, domain);
    match track {
        Track::Dmarc => Stage::Dmarc(in_force.dmarc),
        Track::MtaSts => Stage::MtaSts(in_force.mta_sts),
        Track::Spf => Stage::Spf(in_force.spf),
    }
}

/// All that is told of one track of a domain.
struct Told {
    stage: Stage,
    way: Option<Way>,
    next: Option<Next>,
    judged: Judged,
}

impl Told {
    fn since(&self) -> String {
        let seen = self.way.as_ref().and_then(|way| way.rollout().seen);
        seen.map_or_else(|| "-".to_owned(), |seen| format!("since {}", seen.date()))
    }

    fn next(&self, now: OffsetDateTime) -> String {
        let Some(next) = &self.next else { return "as the settings fix it".to_owned() };
        let Next::Step { step, at, .. } = next else {
            let what = if *next == Next::Reached {
                "as the settings want it"
            } else {
                "publish its record on every name server"
            };
            return what.to_owned();
        };
        let what = words::step(step);
        let missing: Vec<String> = self.judged.missing.iter().map(ToString::to_string).collect();
        let missing = if missing.is_empty() { String::new() } else { format!("; missing: {}", missing.join("; ")) };
        match *at <= now {
            true if missing.is_empty() => format!("{what}, at the next `rollout advance`"),
            true => format!("{what}, once nothing is missing{missing}"),
            false => format!("{what}, from {} on{missing}", super::advance::moment(*at)),
        }
    }

    /// Whom a stricter policy would refuse: the administrator judges whether one of them was forgotten.
    fn refused(&self) -> Vec<String> {
        let all = &self.judged.refused;
        let one = |source: &crate::policy::evidence::DmarcSource| {
            format!("would be refused: {} messages from {} as {}", source.messages, source.address, source.from)
        };
        let mut lines: Vec<String> = all.iter().take(NAMED).map(one).collect();
        if all.len() > NAMED {
            lines.push(format!("... and from {} more addresses", all.len() - NAMED));
        }
        lines
    }

    fn to_json(&self, domain: &Domain, track: Track, now: OffsetDateTime) -> Value {
        let rollout = self.way.as_ref().map(Way::rollout);
        let (step, at) = match &self.next {
            Some(Next::Step { step, at, .. }) => (Some(words::code(step)), Some(at.unix_timestamp())),
            _ => (None, None),
        };
        let state = match &self.next {
            None => "fixed",
            Some(Next::Reached) => "reached",
            Some(Next::Unpublished) => "unpublished",
            Some(Next::Step { at, .. }) if *at > now => "waiting",
            Some(Next::Step { .. }) if self.judged.missing.is_empty() => "due",
            Some(Next::Step { .. }) => "missing",
        };
        let refused = self.judged.refused.iter();
        json!({
            "domain": domain.name,
            "track": track.as_str(),
            "stage": self.stage.as_str(),
            "aim": self.way.as_ref().map(|way| way.aim().as_str()),
            "since": rollout.and_then(|rollout| rollout.seen).map(OffsetDateTime::unix_timestamp),
            "state": state,
            "step": step,
            "at": at,
            "next": self.next(now),
            "missing": self.judged.missing_json(),
            "refused": refused.map(|one| json!({ "address": one.address, "from": one.from, "messages": one.messages })).collect::<Vec<_>>(),
        })
    }
}
