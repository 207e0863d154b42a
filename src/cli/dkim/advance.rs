//! `dkim advance`: asks the name servers what is waited for, and moves every key that is due one step on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use camino::Utf8Path;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use super::keys::{self, Order};
use crate::cli::failure::Failure;
use crate::cli::report::Report;
use crate::cli::session::{self, Wanted};
use crate::dkim;
use crate::dkim::rotation::{self, Line, Moved, Purpose, Sighting, Step, Turn};
use crate::dkim::seeing::{Answer, Question, WantedRecord};
use crate::env::Env;
use crate::inventory::{DkimAlgorithm, DkimKey, DkimState};
use crate::names::{Digest, DomainName, Selector};
use crate::site::Site;
use crate::store::Writer;
use crate::store::ledger::Transaction;

/// How the name servers are found.
#[derive(Clone, Debug, Default, clap::Args)]
pub(in crate::cli) struct Ways {
    /// Find the name servers by this resolver [default: the system's]
    #[arg(long, value_name = "ADDRESS[:PORT]", value_parser = resolver)]
    resolver: Option<SocketAddr>,
}

impl Ways {
    /// Returns the resolver that was named, if one was.
    pub(in crate::cli) fn resolver(&self) -> Option<SocketAddr> {
        self.resolver
    }
}

fn resolver(text: &str) -> Result<SocketAddr, String> {
    let address = text.parse::<SocketAddr>().or_else(|_| text.parse::<IpAddr>().map(|address| (address, 53).into()));
    address.map_err(|_| "write an address such as 192.0.2.53, 192.0.2.53:5300 or [2001:db8::53]:5300".to_owned())
}

/// `dkim advance`
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Advance {
    /// Say nothing if nothing changed, so that cron sends no mail
    #[arg(long)]
    quiet: bool,
    #[command(flatten)]
    ways: Ways,
}

/// What a run found and did.
#[derive(Debug, Default)]
pub(in crate::cli) struct Advanced {
    /// What changed in the life of keys, as lines for people and for programs.
    pub(in crate::cli) steps: Vec<(String, Value)>,
    /// What is waited for still.
    pub(in crate::cli) waiting: Vec<(String, Value)>,
    /// Whether files to install changed, as against records alone.
    pub(in crate::cli) signs_anew: bool,
    /// The domains whose records changed.
    pub(in crate::cli) to_publish: BTreeSet<DomainName>,
}

impl Advanced {
    /// Says what an earlier run recorded and did not say.
    pub(super) fn finish(&mut self, unfinished: bool) {
        if unfinished {
            let line = "an earlier run was not finished: out/ is brought up to date, publish the records that changed";
            self.steps.insert(0, (line.to_owned(), json!({ "what": "finished" })));
            self.signs_anew = true;
        }
    }

    fn step(&mut self, key: &KeyOf<'_>, what: &str, line: String) {
        let json = json!({
            "domain": key.0, "algorithm": key.1.as_str(), "selector": key.2, "what": what,
        });
        self.steps.push((line, json));
    }
}

/// Domain, algorithm, selector.
type KeyOf<'a> = (&'a DomainName, DkimAlgorithm, &'a Selector);

/// `dkim advance`
pub(super) fn advance(env: &dyn Env, site: Option<&Utf8Path>, args: &Advance) -> Result<Report, Failure> {
    let directory = session::directory(site);
    let mut store = session::writer(env, directory)?;
    let wanted = Wanted::read(store.site())?;
    let unfinished = unfinished(&store)?;
    let mut advanced = advance_all(env, &wanted, &mut store, &args.ways)?;
    advanced.finish(unfinished);
    refresh_if_stale(&wanted, &store).map_err(|failure| failure.after("what was due is recorded"))?;
    report(env, &advanced, &wanted, &store, args.quiet)
}

/// Tells whether an earlier run recorded what it did not come to render, and so to say.
pub(super) fn unfinished(store: &Writer) -> Result<bool, Failure> {
    Ok(store.ledger().derived_is_stale()?)
}

/// Does all that is due on a site; what is rendered is not yet brought up to date.
pub(in crate::cli) fn advance_all(
    env: &dyn Env,
    wanted: &Wanted,
    store: &mut Writer,
    ways: &Ways,
) -> Result<Advanced, Failure> {
    let mut advanced = Advanced::default();
    rotate_due(env, &wanted.site, store, &mut advanced)?;
    let mut due = store.ledger().dkim_due(env.now())?;
    due.extend(given_up(&wanted.site, store)?);
    advance_lines(env, &wanted.site, store, &due, ways, &mut advanced)?;
    make_standbys(env, &wanted.site, store, &mut advanced)?;
    Ok(advanced)
}

/// Brings the derived files up to date where they are not, be it from an earlier run that was killed.
pub(super) fn refresh_if_stale(wanted: &Wanted, store: &Writer) -> Result<(), Failure> {
    if store.ledger().derived_is_stale()? {
        session::refresh(wanted, store)?;
    }
    Ok(())
}

/// Tells whether the settings want the domain to sign by the algorithm.
fn is_wanted(site: &Site, domain: &DomainName, algorithm: DkimAlgorithm) -> bool {
    let at = site.domains.binary_search_by(|known| known.name.cmp(domain));
    at.is_ok_and(|at| site.domains.get(at).is_some_and(|domain| domain.dkim.contains(&algorithm)))
}

/// Returns the domains and algorithms that sign though the settings no longer want it, or do not know the domain any more.
fn given_up(site: &Site, store: &Writer) -> Result<Vec<(DomainName, DkimAlgorithm)>, Failure> {
    let mut found = Vec::new();
    for algorithm in DkimAlgorithm::ALL {
        let signers = store.ledger().dkim_signers(algorithm)?.into_iter();
        found.extend(signers.filter(|domain| !is_wanted(site, domain, algorithm)).map(|domain| (domain, algorithm)));
    }
    Ok(found)
}

/// Begins the rotation of keys that are old enough.
fn rotate_due(env: &dyn Env, site: &Site, store: &mut Writer, advanced: &mut Advanced) -> Result<(), Failure> {
    let lines = due_for_rotation(env, site, store)?;
    begin_rotation(env, store, &lines, advanced).map(|_| ())
}

/// Returns the domains and algorithms whose keys are old enough by the settings to be rotated.
pub(super) fn due_for_rotation(
    env: &dyn Env,
    site: &Site,
    store: &Writer,
) -> Result<Vec<(DomainName, DkimAlgorithm)>, Failure> {
    let Some(every) = site.dkim.rotate_every.map(|days| Duration::days(days.into())) else { return Ok(Vec::new()) };
    let now = env.now();
    let mut aged = store.ledger().dkim_aged(rotation::oldest_not_due(every, now))?;
    aged.retain(|key| rotation::rotation_due(key, every) <= now);
    aged.retain(|key| is_wanted(site, &key.domain, key.algorithm));
    Ok(aged.into_iter().map(|key| (key.domain, key.algorithm)).collect())
}

/// What came of lines that were to rotate, but for those that have a new key now.
#[derive(Debug, Default)]
pub(super) struct Begun {
    /// Of which a successor was on its way already.
    pub(super) under_way: Vec<(DomainName, Selector)>,
    /// Of which the standby key takes over.
    pub(super) by_standby: Vec<(DomainName, DkimAlgorithm)>,
}

/// Lets a successor take its way for each of the lines: the standby key, or a new one.
pub(super) fn begin_rotation(
    env: &dyn Env,
    store: &mut Writer,
    lines: &[(DomainName, DkimAlgorithm)],
    advanced: &mut Advanced,
) -> Result<Begun, Failure> {
    let now = env.now();
    // In one transaction: with 10,000 domains the disk would be waited for as often.
    let turns = store.transact(|ledger| {
        let turn = |(domain, algorithm): &(DomainName, DkimAlgorithm)| {
            let mut line = ledger.dkim_line(domain, *algorithm)?;
            let turn = line.rotate();
            if let Turn::Standby(selector) = &turn {
                ledger.save_dkim_line(&line)?;
                let detail = json!({ "algorithm": algorithm.as_str() });
                ledger.record_event(now, "dkim-rotation-begun", &dkim::record_name(selector, domain), &detail)?;
            }
            Ok::<_, Failure>(turn)
        };
        lines.iter().map(turn).collect::<Result<Vec<Turn>, Failure>>()
    })?;
    let mut begun = Begun::default();
    let mut orders = Vec::new();
    for ((domain, algorithm), turn) in lines.iter().zip(turns) {
        match turn {
            Turn::UnderWay(selector) => begun.under_way.push((domain.clone(), selector)),
            Turn::Standby(selector) => {
                begun.by_standby.push((domain.clone(), *algorithm));
                let line = format!("{domain}: the standby key {selector} ({}) takes over", algorithm.as_str());
                advanced.step(&(domain, *algorithm, &selector), "rotation-begun", line);
            }
            Turn::NeedsKey => {
                orders.push(Order { domain: domain.clone(), algorithm: *algorithm, purpose: Purpose::Rotation });
            }
        }
    }
    for key in keys::make(env, store, &orders)? {
        made(&key, advanced);
    }
    Ok(begun)
}

fn made(key: &DkimKey, advanced: &mut Advanced) {
    let (domain, selector, algorithm) = (&key.domain, &key.selector, key.algorithm.as_str());
    let line = match (key.state, key.standby) {
        (DkimState::Active, _) => format!("{domain}: made {selector} ({algorithm}), which signs at once"),
        (_, true) => format!("{domain}: made the standby key {selector} ({algorithm})"),
        (_, false) => format!("{domain}: made {selector} ({algorithm}), which signs once it is published"),
    };
    advanced.signs_anew |= key.state == DkimState::Active;
    advanced.to_publish.insert(domain.clone());
    advanced.step(&(domain, key.algorithm, selector), "made", line);
}

/// Makes a key for an emergency wherever one is wanted and there is none.
fn make_standbys(env: &dyn Env, site: &Site, store: &mut Writer, advanced: &mut Advanced) -> Result<(), Failure> {
    if !site.dkim.standby {
        return Ok(());
    }
    let mut lines = store.ledger().dkim_without_standby()?;
    lines.retain(|(domain, algorithm)| is_wanted(site, domain, *algorithm));
    let orders: Vec<Order> =
        lines.into_iter().map(|(domain, algorithm)| Order { domain, algorithm, purpose: Purpose::Standby }).collect();
    for key in keys::make(env, store, &orders)? {
        made(&key, advanced);
    }
    Ok(())
}

/// Asks the name servers about the lines' keys, and moves what is due one step on.
pub(super) fn advance_lines(
    env: &dyn Env,
    site: &Site,
    store: &mut Writer,
    lines: &[(DomainName, DkimAlgorithm)],
    ways: &Ways,
    advanced: &mut Advanced,
) -> Result<(), Failure> {
    let mut known = Vec::new();
    let lines: BTreeSet<&(DomainName, DkimAlgorithm)> = lines.iter().collect();
    for (domain, algorithm) in lines {
        known.push((store.ledger().dkim_line(domain, *algorithm)?, is_wanted(site, domain, *algorithm)));
    }
    let asked = env.now();
    let keys: Vec<&DkimKey> = known.iter().flat_map(|(line, _)| line.to_look_at(asked)).collect();
    let questions: Vec<Question> = keys.iter().map(|key| question(key)).collect();
    let answers = ask(env, ways, &questions);
    let answered: Answered<'_> =
        keys.into_iter().zip(&answers).map(|(key, answer)| ((&key.domain, &key.selector), answer)).collect();
    // The clocks begin when the answers are there.
    let now = env.now();
    let outcomes = store.transact(|ledger| {
        let mut outcomes = Vec::new();
        for (line, wanted) in &known {
            outcomes.push(move_on(ledger, line, *wanted, &answered, now)?);
        }
        Ok::<_, Failure>(outcomes)
    })?;
    let destroyed = outcomes.iter().flat_map(|outcome| {
        outcome.line.keys().iter().filter(|key| key.state == DkimState::Destroyed).map(|key| key.key)
    });
    remove_keys(store, &destroyed.collect())?;
    for outcome in outcomes {
        told(&outcome, advanced);
    }
    Ok(())
}

/// Asks the name servers; where that takes its time, who looks on sees how far it is.
pub(in crate::cli) fn ask(env: &dyn Env, ways: &Ways, questions: &[Question]) -> Vec<Answer> {
    let progress = progress(env, questions.len());
    let answers = env.ask_name_servers(ways.resolver, questions, &|count| progress.set_position(count as u64));
    progress.finish_and_clear();
    answers
}

/// A bar for who looks on, where it would stand long enough to be read.
fn progress(env: &dyn Env, questions: usize) -> ProgressBar {
    if questions < 20 || !env.person_is_there() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(questions as u64), ProgressDrawTarget::stderr());
    match ProgressStyle::with_template("{bar:40} {pos} of {len} records looked for, {eta} left") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Removes private halves that nothing refers to any more; another domain may have the same key.
fn remove_keys(store: &Writer, keys: &BTreeSet<Digest>) -> Result<(), Failure> {
    if keys.is_empty() {
        return Ok(());
    }
    let referred = store.ledger().referred()?.keys;
    for key in keys.iter().filter(|key| !referred.contains(&key.short())) {
        store.remove_key(key)?;
    }
    Ok(())
}

fn question(key: &DkimKey) -> Question {
    let wanted = match key.state {
        DkimState::Revoked => WantedRecord::Revoked,
        _ => WantedRecord::Key { algorithm: key.algorithm.as_str(), public: key.public.clone() },
    };
    Question { name: dkim::record_name(&key.selector, &key.domain), wanted }
}

/// What was said of a domain's selector.
type Answered<'a> = BTreeMap<(&'a DomainName, &'a Selector), &'a Answer>;

/// What became of a line.
struct Outcome {
    line: Line,
    moved: Moved,
    lacking: Vec<(Selector, Vec<(String, String)>)>,
}

fn move_on(
    ledger: &mut Transaction<'_>,
    line: &Line,
    wanted: bool,
    answered: &Answered<'_>,
    now: OffsetDateTime,
) -> Result<Outcome, Failure> {
    let (domain, algorithm) = (line.domain(), line.algorithm());
    let mut line = ledger.dkim_line(domain, algorithm)?;
    let answer = |key: &DkimKey| answered.get(&(domain, &key.selector)).map(|answer| (key.selector.clone(), *answer));
    let answers: Vec<(Selector, &Answer)> = line.keys().iter().filter_map(answer).collect();
    let sightings: Vec<(Selector, Sighting)> =
        answers.iter().map(|(selector, answer)| (selector.clone(), answer.sighting)).collect();
    let moved = line.run(&sightings, wanted, now);
    ledger.save_dkim_line(&line)?;
    let name = |selector: &Selector| dkim::record_name(selector, domain);
    for selector in &moved.seen {
        ledger.record_event(now, "dkim-key-seen", &name(selector), &json!({}))?;
    }
    for step in &moved.steps {
        match step {
            Step::Activated(selector, before) => {
                ledger.record_event(now, "dkim-key-activated", &name(selector), &json!({ "before": before }))?;
            }
            Step::Revoked(selector) => ledger.record_event(now, "dkim-key-retired", &name(selector), &json!({}))?,
            Step::Destroyed(selector) => ledger.record_event(now, "dkim-key-destroyed", &name(selector), &json!({}))?,
        }
    }
    if moved.withdrawn {
        let detail = json!({ "algorithm": algorithm.as_str() });
        ledger.record_event(now, "dkim-withdrawn", domain.as_str(), &detail)?;
    }
    if moved.is_rendered() {
        ledger.set_derived_stale()?;
    }
    let lacks = |(_, answer): &(_, &Answer)| !matches!(answer.sighting, Sighting::Everywhere { .. });
    let lacking =
        answers.into_iter().filter(lacks).map(|(selector, answer)| (selector, answer.lacking.clone())).collect();
    Ok(Outcome { line, moved, lacking })
}

/// Says what became of a line.
fn told(outcome: &Outcome, advanced: &mut Advanced) {
    let (domain, algorithm) = (outcome.line.domain(), outcome.line.algorithm());
    let of = |selector| (domain, algorithm, selector);
    if outcome.moved.withdrawn {
        let line = format!("{domain}: {} is given up, as the settings want", algorithm.as_str());
        advanced.steps.push((line, json!({ "domain": domain, "algorithm": algorithm.as_str(), "what": "withdrawn" })));
        advanced.signs_anew = true;
        advanced.to_publish.insert(domain.clone());
    }
    for selector in &outcome.moved.seen {
        let state = outcome.line.key(selector).map(|key| key.state);
        let what = if state == Some(DkimState::Revoked) { "revocation" } else { "record" };
        let line = format!("{domain}: every name server has the {what} of {selector}");
        advanced.step(&of(selector), "seen", line);
    }
    for step in &outcome.moved.steps {
        match step {
            Step::Activated(selector, before) => {
                let place = before.as_ref().map_or_else(String::new, |before| format!(" in the place of {before}"));
                advanced.signs_anew = true;
                advanced.step(&of(selector), "activated", format!("{domain}: {selector} signs now{place}"));
            }
            Step::Revoked(selector) => {
                advanced.to_publish.insert(domain.clone());
                let line = format!("{domain}: {selector} has served its time, its record says so now");
                advanced.step(&of(selector), "retired", line);
            }
            Step::Destroyed(selector) => {
                advanced.to_publish.insert(domain.clone());
                advanced.step(&of(selector), "destroyed", format!("{domain}: {selector} is destroyed"));
            }
        }
    }
    for (selector, servers) in &outcome.lacking {
        let json = json!({
            "domain": domain, "algorithm": algorithm.as_str(), "selector": selector,
            "servers": servers.iter().map(|(name, why)| json!({ "server": name, "reason": why })).collect::<Vec<_>>(),
        });
        let who: Vec<String> = servers.iter().map(|(name, why)| format!("{name} ({why})")).collect();
        let who = if who.is_empty() { "no name server could be asked".to_owned() } else { who.join(", ") };
        advanced.waiting.push((format!("{}: not yet everywhere: {who}", dkim::record_name(selector, domain)), json));
    }
    for key in outcome.line.keys() {
        if let Some(at) = rotation::ready_at(key).filter(|_| !key.standby && key.state == DkimState::Published) {
            let line = format!("{domain}: {} signs from {at} on", key.selector, at = moment(at));
            let json = json!({ "domain": domain, "selector": key.selector, "ready_at": at.unix_timestamp() });
            advanced.waiting.push((line, json));
        }
    }
}

/// Writes a time for people, in UTC, to the minute.
pub(in crate::cli) fn moment(at: OffsetDateTime) -> String {
    let format = time::macros::format_description!("[year]-[month]-[day] [hour]:[minute] UTC");
    at.to_offset(time::UtcOffset::UTC).format(&format).unwrap_or_else(|_| at.to_string())
}

/// Says what a run did, what it waits for, and what the administrator does next.
pub(super) fn report(
    env: &dyn Env,
    advanced: &Advanced,
    wanted: &Wanted,
    store: &Writer,
    quiet: bool,
) -> Result<Report, Failure> {
    let mut text = String::new();
    for (line, _) in advanced.steps.iter().chain(&advanced.waiting) {
        text.push_str(line);
        text.push('\n');
    }
    let next = store.ledger().next_dkim_due(env.now())?;
    if advanced.steps.is_empty() && advanced.waiting.is_empty() {
        let then = next.map_or_else(String::new, |at| format!("; the next step is due at {}", moment(at)));
        text.push_str(&format!("nothing is due{then}\n"));
    }
    for domain in &advanced.to_publish {
        text.push_str(&format!(
            "publish the records of {domain}: {}\n",
            session::shown(store, &format!("out/dns/{domain}.zone"))
        ));
    }
    if advanced.signs_anew {
        text.push_str("install it: postseal apply\n");
    }
    let json = |list: &[(String, Value)]| list.iter().map(|(_, json)| json.clone()).collect::<Vec<_>>();
    let value = json!({
        "steps": json(&advanced.steps),
        "waiting": json(&advanced.waiting),
        "publish": advanced.to_publish,
        "install": advanced.signs_anew,
        "next": next.map(OffsetDateTime::unix_timestamp),
    });
    let text = if quiet && advanced.steps.is_empty() { String::new() } else { text };
    Ok(Report::fine(text, value).warn(&wanted.warnings).done("what was due is recorded"))
}
