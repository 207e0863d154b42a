//! `rollout advance`: asks the name servers what is waited for, looks at reports, and moves every policy that is due.

use std::collections::BTreeSet;
use std::net::IpAddr;

use camino::Utf8Path;
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use super::judge::{self, Judged};
use super::{Standings, grouped};
use crate::cli::dkim::{self, Ways};
use crate::cli::failure::Failure;
use crate::cli::report::Report;
use crate::cli::session::{self, Wanted};
use crate::cli::show;
use crate::dkim::rotation::Sighting;
use crate::dkim::seeing::{Answer, Question, WantedRecord};
use crate::dns::{RecordData, Zone};
use crate::env::Env;
use crate::inventory::Rollout;
use crate::names::DomainName;
use crate::policy::rollout::{self, Asks, Known, Moved, Next, Way};
use crate::policy::{mta_sts, words};
use crate::records;
use crate::site::{Domain, Site};
use crate::stages::{Stage, Track};
use crate::store::Writer;
use crate::store::ledger::{LedgerError, Transaction};

pub(super) use crate::cli::dkim::moment;

/// `rollout advance`
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Advance {
    /// One domain of the site [default: all]
    #[arg(value_name = "DOMAIN")]
    domain: Option<DomainName>,
    /// One policy: dmarc, mta_sts or spf [default: all]
    #[arg(long, value_name = "TRACK", value_parser = super::track)]
    track: Option<Track>,
    /// Move on though reports are missing or bad, or no name server answers; waits are not shortened
    #[arg(long, requires = "domain", requires = "reason")]
    anyway: bool,
    /// Why, for the record
    #[arg(long, value_name = "TEXT", requires = "anyway", value_parser = crate::cli::rollout::reason)]
    reason: Option<String>,
    /// A sender some of whose mail passes and some fails, as that of a forwarder does; may be given again
    #[arg(long, value_name = "ADDRESS", requires = "domain")]
    accept: Vec<IpAddr>,
    /// Say nothing if nothing changed, so that cron sends no mail
    #[arg(long)]
    quiet: bool,
    #[command(flatten)]
    ways: Ways,
}

/// What a run is to do.
#[derive(Clone, Debug, Default)]
pub(in crate::cli) struct Order {
    domain: Option<DomainName>,
    track: Option<Track>,
    /// Why to move on without evidence.
    word: Option<String>,
    accepted: Vec<IpAddr>,
    /// Whether a timer gave it: what was missing a while ago is not looked for each time.
    timer: bool,
}

impl Order {
    /// Returns what a timer orders.
    pub(in crate::cli) fn by_timer() -> Self {
        Self { timer: true, ..Self::default() }
    }
}

/// How often a timer looks for evidence that is missing.
const LOOK_AGAIN: Duration = Duration::days(1);

/// What a run found and did.
#[derive(Debug, Default)]
pub(in crate::cli) struct Advanced {
    /// What changed: the domain, in words, and for programs.
    pub(in crate::cli) steps: Vec<(DomainName, String, Value)>,
    /// What is waited for still.
    waiting: Vec<(DomainName, String, Value)>,
    /// Whether the file of a policy changed.
    installs: bool,
    to_publish: BTreeSet<DomainName>,
}

impl Advanced {
    /// Returns what changed, as lines for people and for programs.
    pub(in crate::cli) fn told(&self) -> (Vec<String>, Vec<Value>) {
        (lines(&self.steps), self.steps.iter().map(|(.., json)| json.clone()).collect())
    }
}

fn lines(said: &[(DomainName, String, Value)]) -> Vec<String> {
    let said: Vec<(DomainName, String)> = said.iter().map(|(domain, text, _)| (domain.clone(), text.clone())).collect();
    grouped(&said)
}

/// `rollout advance`
pub(super) fn advance(env: &dyn Env, site: Option<&Utf8Path>, args: &Advance) -> Result<Report, Failure> {
    let (wanted, mut store) = session::write(env, site)?;
    if let Some(domain) = &args.domain {
        show::known(&wanted.site, domain)?;
    }
    let order = Order {
        domain: args.domain.clone(),
        track: args.track,
        word: args.reason.clone().filter(|_| args.anyway),
        accepted: args.accept.clone(),
        timer: false,
    };
    let unfinished = store.ledger().derived_is_stale()?;
    let advanced = advance_all(env, &wanted, &mut store, &args.ways, &order)?;
    if store.ledger().derived_is_stale()? {
        session::refresh(&wanted, &store).map_err(|failure| failure.after("what was due is recorded"))?;
    }
    report(&advanced, &wanted, &store, (args.quiet, unfinished))
}

/// One way, with what is known of it.
struct Plan<'a> {
    domain: &'a Domain,
    way: Way,
    is_new: bool,
    judged: Option<Judged>,
    asks: Option<Asks>,
}

/// Does all that is due on a site; what is rendered is not yet brought up to date.
pub(in crate::cli) fn advance_all(
    env: &dyn Env,
    wanted: &Wanted,
    store: &mut Writer,
    ways: &Ways,
    order: &Order,
) -> Result<Advanced, Failure> {
    loosen_fixed(&wanted.site, store, env.now())?;
    let standings = Standings::new(&wanted.site, store.ledger().rollouts()?);
    let plans = plan(&wanted.site, store, &standings, order, env.now())?;
    let questions = questions(&wanted.site, &standings, &plans);
    let answers = dkim::ask(env, ways, &questions);
    let mut answers = answers.into_iter();
    let mut answered: Vec<Option<Answer>> = Vec::new();
    for plan in &plans {
        let answer = plan.asks.and_then(|_| answers.next());
        answered.push(answer);
    }
    // The clocks begin when the answers are there.
    let now = env.now();
    let outcomes = store.transact(|ledger| {
        let mut outcomes = Vec::new();
        for (plan, answer) in plans.iter().zip(&answered) {
            outcomes.push(move_on(ledger, plan, answer.as_ref(), order, now)?);
        }
        Ok::<_, LedgerError>(outcomes)
    })?;
    let mut advanced = Advanced::default();
    for ((plan, answer), (way, moved)) in plans.iter().zip(&answered).zip(&outcomes) {
        tell(plan, answer.as_ref(), (way, moved), now, &mut advanced);
    }
    Ok(advanced)
}

/// Records where the settings fix a policy that is milder than what its domain had come to: once they fix it no longer, the domain
/// goes on from there, and is not strict again at once.
fn loosen_fixed(site: &Site, store: &mut Writer, now: OffsetDateTime) -> Result<(), Failure> {
    let recorded = store.ledger().rollouts()?;
    let milder: Vec<(Stage, Rollout)> = recorded
        .into_iter()
        .filter_map(|rollout| {
            let fixed = rollout::fixed(site.domain(&rollout.domain)?, rollout.stage.track())?;
            (fixed < rollout.stage).then(|| (rollout.stage, Rollout::new(rollout.domain, fixed, now)))
        })
        .collect();
    if milder.is_empty() {
        return Ok(());
    }
    store.transact(|ledger| {
        for (before, rollout) in &milder {
            ledger.save_rollout(rollout)?;
            let detail = json!({
                "track": rollout.stage.track().as_str(), "step": "fixed",
                "from": before.as_str(), "to": rollout.stage.as_str(),
            });
            ledger.record_event(now, "rollout-moved", rollout.domain.as_str(), &detail)?;
        }
        ledger.set_derived_stale()
    })?;
    Ok(())
}

/// Returns the ways of which something may be due, or that are not recorded yet.
fn plan<'a>(
    site: &'a Site,
    store: &Writer,
    standings: &Standings,
    order: &Order,
    now: OffsetDateTime,
) -> Result<Vec<Plan<'a>>, Failure> {
    let mut plans = Vec::new();
    for domain in site.domains.iter().filter(|domain| order.domain.as_ref().is_none_or(|name| domain.name == *name)) {
        for track in Track::ALL.into_iter().filter(|track| order.track.is_none_or(|wanted| wanted == *track)) {
            let Some(way) = standings.way(domain, track, now).filter(Way::is_under_way) else { continue };
            let is_new = standings.recorded(domain, track).is_none();
            let is_due = match way.next() {
                Next::Reached => false,
                Next::Unpublished => true,
                Next::Step { at, .. } => at <= now,
            };
            let needs = way.needs(now);
            let looked = way.rollout().looked.is_some_and(|looked| looked <= now && now < looked + LOOK_AGAIN);
            if !(is_due || is_new) || (needs.is_some() && order.timer && looked) {
                continue;
            }
            let judged =
                needs.map(|needs| judge::judge(store.ledger(), (site, domain), (&way, needs), &order.accepted, now));
            let judged = judged.transpose()?;
            let is_held = judged.as_ref().is_some_and(|judged| !judged.missing.is_empty()) && order.word.is_none();
            let asks = way.asks(now).filter(|_| !is_held);
            plans.push(Plan { domain, way, is_new, judged, asks });
        }
    }
    Ok(plans)
}

/// Returns a question for each plan that asks one.
fn questions(site: &Site, standings: &Standings, plans: &[Plan<'_>]) -> Vec<Question> {
    let asking = || plans.iter().filter_map(|plan| plan.asks.map(|asks| (plan, asks)));
    let of_zone = |plan: &Plan<'_>, asks| asks == Asks::Policy && plan.way.aim().track() != Track::MtaSts;
    let zones = if asking().any(|(plan, asks)| of_zone(plan, asks)) {
        records::zones(site, &standings.inventory)
    } else {
        Vec::new()
    };
    asking().map(|(plan, asks)| question(site, standings, &zones, plan, asks)).collect()
}

fn question(site: &Site, standings: &Standings, zones: &[Zone], plan: &Plan<'_>, asks: Asks) -> Question {
    let domain = plan.domain;
    let in_force = rollout::in_force(site, &standings.inventory, domain);
    if asks == Asks::Mx {
        let hosts = in_force.mx.iter().map(|host| host.name.clone()).collect();
        return Question { name: domain.name.to_string(), wanted: WantedRecord::Mx(hosts) };
    }
    let (name, version) = match plan.way.aim().track() {
        Track::Dmarc => (format!("_dmarc.{}", domain.name), "v=DMARC1"),
        Track::Spf => (domain.name.to_string(), "v=spf1"),
        Track::MtaSts => {
            let id = mta_sts::policy(&in_force).map(|policy| mta_sts::id(&policy)).unwrap_or_default();
            let wanted = WantedRecord::Policy(format!("v=STSv1; id={id};"));
            return Question { name: format!("_mta-sts.{}", domain.name), wanted };
        }
    };
    let zone = zones.binary_search_by(|zone| zone.domain.cmp(&domain.name)).ok().and_then(|at| zones.get(at));
    let records = zone.into_iter().flat_map(|zone| &zone.records).filter(|record| record.name == name);
    let text = records.filter_map(|record| match &record.data {
        RecordData::Txt(text) if text.starts_with(version) => Some(text.clone()),
        _ => None,
    });
    let text = text.into_iter().next().unwrap_or_else(|| version.to_owned());
    Question { name, wanted: WantedRecord::Policy(text) }
}

fn move_on(
    ledger: &mut Transaction<'_>,
    plan: &Plan<'_>,
    answer: Option<&Answer>,
    order: &Order,
    now: OffsetDateTime,
) -> Result<(Way, Moved), LedgerError> {
    let mut way = plan.way.clone();
    let evidence = plan.judged.as_ref().is_some_and(|judged| judged.missing.is_empty());
    let sighting: Option<Sighting> = answer.map(|answer| answer.sighting);
    let moved = way.run(Known { sighting, evidence, word: order.word.is_some() }, now);
    // That nobody answers is no news.
    let is_news = plan.is_new && sighting.is_some_and(|sighting| sighting != Sighting::Unknown);
    if is_news || way != plan.way {
        ledger.save_rollout(way.rollout())?;
    }
    let (before, after) = (plan.way.rollout(), way.rollout());
    let (track, domain) = (way.aim().track().as_str(), plan.domain.name.as_str());
    if moved.seen {
        let detail = json!({ "track": track, "stage": before.stage.as_str() });
        ledger.record_event(now, "rollout-seen", domain, &detail)?;
    }
    for step in &moved.steps {
        let mut detail = json!({
            "track": track, "step": words::code(step), "from": before.stage.as_str(), "to": after.stage.as_str(),
        });
        if let (Some(judged), Some(detail)) = (&plan.judged, detail.as_object_mut()) {
            detail.insert("evidence".to_owned(), judged.sums.clone());
            detail.insert("accepted".to_owned(), json!(order.accepted));
            if !judged.missing.is_empty() {
                detail.insert("missing".to_owned(), json!(judged.missing_json()));
                detail.insert("reason".to_owned(), json!(order.word));
            }
        }
        ledger.record_event(now, "rollout-moved", domain, &detail)?;
    }
    if !moved.steps.is_empty() {
        ledger.set_derived_stale()?;
    }
    Ok((way, moved))
}

fn tell(
    plan: &Plan<'_>,
    answer: Option<&Answer>,
    (way, moved): (&Way, &Moved),
    now: OffsetDateTime,
    advanced: &mut Advanced,
) {
    let (domain, track) = (&plan.domain.name, way.aim().track());
    let called = words::called(track);
    let json = |what: &str| json!({ "domain": domain, "track": track.as_str(), "what": what, "stage": way.rollout().stage.as_str() });
    if moved.seen {
        let stage = words::stage(plan.way.rollout().stage);
        let text = match plan.asks {
            Some(Asks::Mx) => "every name server has the MX records".to_owned(),
            _ => format!("every name server has {called} {stage}"),
        };
        advanced.steps.push((domain.clone(), text, json("seen")));
    }
    for step in &moved.steps {
        let text = format!("{} now", words::step(step));
        advanced.steps.push((domain.clone(), text, json(words::code(step))));
        advanced.to_publish.insert(domain.clone());
        advanced.installs |= track == Track::MtaSts;
    }
    if !moved.steps.is_empty() {
        return;
    }
    if let Some(judged) = plan.judged.as_ref().filter(|judged| !judged.missing.is_empty()) {
        let Next::Step { step, .. } = plan.way.next() else { return };
        let missing: Vec<String> = judged.missing.iter().map(ToString::to_string).collect();
        let text = format!("{}, once nothing is missing: {}", words::step(&step), missing.join("; "));
        let mut json = json("missing");
        if let Some(json) = json.as_object_mut() {
            json.insert("missing".to_owned(), json!(judged.missing_json()));
        }
        advanced.waiting.push((domain.clone(), text, json));
    }
    if let Some(answer) = answer.filter(|answer| !matches!(answer.sighting, Sighting::Everywhere { .. })) {
        let who: Vec<String> = answer.lacking.iter().map(|(name, why)| format!("{name} ({why})")).collect();
        let who = if who.is_empty() { "no name server could be asked".to_owned() } else { who.join(", ") };
        let stage = words::stage(way.rollout().stage);
        advanced.waiting.push((
            domain.clone(),
            format!("{called} {stage} is not yet everywhere: {who}"),
            json("unpublished"),
        ));
    }
    if let Next::Step { step, at, .. } = way.next()
        && (moved.seen || plan.is_new)
        && at > now
    {
        let text = format!("{}, from {} on at the earliest", words::step(&step), moment(at));
        let mut json = json("waiting");
        if let Some(json) = json.as_object_mut() {
            json.insert("at".to_owned(), json!(at.unix_timestamp()));
        }
        advanced.waiting.push((domain.clone(), text, json));
    }
}

/// How many domains are named whose records changed.
const NAMED: usize = 5;

fn report(
    advanced: &Advanced,
    wanted: &Wanted,
    store: &Writer,
    (quiet, unfinished): (bool, bool),
) -> Result<Report, Failure> {
    let mut text = String::new();
    if unfinished {
        text.push_str(
            "an earlier run was not finished: out/ is brought up to date, publish the records that changed\n",
        );
    }
    for line in lines(&advanced.steps).into_iter().chain(lines(&advanced.waiting)) {
        text.push_str(&line);
        text.push('\n');
    }
    let standings = Standings::new(&wanted.site, store.ledger().rollouts()?);
    if text.is_empty() {
        text.push_str("nothing is due; see what comes: postseal rollout list\n");
    }
    if advanced.installs {
        // A sender that finds the new identifier fetches the policy at once.
        text.push_str("first install the policy: postseal apply\n");
    }
    if advanced.to_publish.len() > NAMED {
        text.push_str(&format!("publish the records that changed: {}\n", session::shown(store, "out/dns/")));
    } else {
        for domain in &advanced.to_publish {
            let zone = session::shown(store, &format!("out/dns/{domain}.zone"));
            text.push_str(&format!("publish the records of {domain}: {zone}\n"));
        }
    }
    let json = |list: &[(DomainName, String, Value)]| list.iter().map(|(.., json)| json.clone()).collect::<Vec<_>>();
    let value = json!({
        "steps": json(&advanced.steps),
        "waiting": json(&advanced.waiting),
        "finished": unfinished,
        "publish": advanced.to_publish,
        "install": advanced.installs,
    });
    let text = if quiet && advanced.steps.is_empty() && !unfinished { String::new() } else { text };
    let mut warnings = wanted.warnings.clone();
    if !quiet {
        warnings.extend(super::warnings(&wanted.site, &standings.inventory.rollouts));
    }
    Ok(Report::fine(text, value).warn(&warnings).done("what was due is recorded"))
}
