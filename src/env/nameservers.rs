//! Asks authoritative name servers, each by itself: what a resolver remembers says nothing about what others will see.
//!
//! A resolver is asked only for the way: for the NS records of a name, from `_domainkey.DOMAIN` up to the first that has some,
//! and for the addresses of those servers. Then each address of each server is asked for the TXT or MX records, without recursion.
//! A server has a record if at least one of its addresses answers, and all that answer have it.

mod exchange;
mod memo;
mod search;
#[cfg(test)]
mod tests;
mod zone;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::rr::{Name, RecordType};
use hickory_resolver::system_conf::read_system_conf;
use tokio::runtime;
use tokio::task::JoinSet;

use self::exchange::Mute;
use self::search::{Said, Search, Told};
use self::zone::Zone;
use crate::dkim::rotation::{Sighting, UNKNOWN_NEGATIVE_TTL};
use crate::dkim::seeing::{Answer, Question, WantedRecord};
use crate::names;

/// Where name servers listen.
const PORT: u16 = 53;

/// How long a server may take for one try. Resolvers themselves give up sooner.
const PATIENCE: Duration = Duration::from_secs(3);

/// How many questions are under way at once.
const QUESTIONS: usize = 256;

/// How often a record may be said to be elsewhere, by an alias or a delegation.
const MOST_STEPS: usize = 8;

/// Asks every authoritative server for every record, finding them by way of a resolver; none is the system's own. `done` is
/// told how many questions are answered, each time that one is.
pub(super) fn look(resolver: Option<SocketAddr>, questions: &[Question], done: &(dyn Fn(usize) + Sync)) -> Vec<Answer> {
    if questions.is_empty() {
        return Vec::new();
    }
    let resolvers = resolver.map_or_else(system_resolvers, |resolver| vec![resolver]);
    answer_all(Search::new(resolvers, PORT, PATIENCE), questions, done)
}

fn system_resolvers() -> Vec<SocketAddr> {
    let Ok((config, _)) = read_system_conf() else { return Vec::new() };
    config.name_servers().iter().map(|server| (server.ip, PORT).into()).collect()
}

/// What is known of a record so far.
#[derive(Debug, Default)]
struct Tally {
    /// How many servers have it.
    having: usize,
    /// How many spoke with authority.
    speaking: usize,
    ttl: u32,
    negative_ttl: Option<u32>,
    lacking: BTreeSet<(String, String)>,
}

impl Tally {
    fn lacks(who: String, why: impl Into<String>) -> Self {
        Self { lacking: BTreeSet::from([(who, why.into())]), ..Self::default() }
    }

    fn add(&mut self, other: Self) {
        self.having += other.having;
        self.speaking += other.speaking;
        self.ttl = self.ttl.max(other.ttl);
        self.negative_ttl = self.negative_ttl.max(other.negative_ttl);
        self.lacking.extend(other.lacking);
    }

    fn sum_up(self) -> Answer {
        let sighting = match (self.having, self.speaking) {
            (1.., _) if self.lacking.is_empty() => {
                Sighting::Everywhere { ttl: self.ttl, negative_ttl: self.negative_ttl.unwrap_or(UNKNOWN_NEGATIVE_TTL) }
            }
            (1.., _) => Sighting::Somewhere,
            (0, 1..) => Sighting::Nowhere,
            (0, 0) => Sighting::Unknown,
        };
        Answer { sighting, lacking: self.lacking.into_iter().collect() }
    }
}

/// Where a record is said to be: at another name, or with the servers of a zone that begins further down.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Elsewhere {
    Alias(Name),
    Delegation(Name, BTreeSet<Name>),
}

/// What others chose, as a name in an answer, on one short line.
fn shown(name: &Name) -> String {
    let text = name.to_lowercase().to_ascii();
    names::shown(text.strip_suffix('.').filter(|text| !text.is_empty()).unwrap_or(&text))
}

fn answer_all(search: Search, questions: &[Question], done: &(dyn Fn(usize) + Sync)) -> Vec<Answer> {
    let unknown = |_: &Question| Answer { sighting: Sighting::Unknown, lacking: Vec::new() };
    let mut answers: Vec<Answer> = questions.iter().map(unknown).collect();
    // Without a runtime nobody can be asked.
    let Ok(runtime) = runtime::Builder::new_current_thread().enable_all().build() else { return answers };
    let search = Arc::new(search);
    runtime.block_on(async {
        let (mut waiting, mut under_way, mut count) = (questions.iter().cloned().enumerate(), JoinSet::new(), 0);
        loop {
            while under_way.len() < QUESTIONS
                && let Some((at, question)) = waiting.next()
            {
                let search = Arc::clone(&search);
                under_way.spawn(async move { (at, answer(search, question).await) });
            }
            let Some(finished) = under_way.join_next().await else { break };
            count += 1;
            done(count);
            if let Ok((at, answer)) = finished
                && let Some(place) = answers.get_mut(at)
            {
                *place = answer;
            }
        }
    });
    answers
}

async fn answer(search: Arc<Search>, question: Question) -> Answer {
    let Ok(name) = Name::from_ascii(format!("{}.", question.name)) else {
        return Tally::lacks(names::shown(&question.name), "is no name that DNS can hold").sum_up();
    };
    // A zone that begins at the name itself is found as a delegation.
    match search.zone_of(&name.base_name()).await {
        Ok(zone) => tally(search, zone, name, Arc::new(question.wanted), Vec::new()).await.sum_up(),
        Err((who, why)) => Tally::lacks(who, why).sum_up(),
    }
}

/// A future that holds others of its own kind.
type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Asks all servers of a zone for the records at a name, and goes on where they say that it is elsewhere. The trail holds the
/// names that led here.
fn tally(
    search: Arc<Search>,
    zone: Arc<Zone>,
    name: Name,
    wanted: Arc<WantedRecord>,
    mut trail: Vec<Name>,
) -> Boxed<Tally> {
    Box::pin(async move {
        let mut tally = Tally::default();
        let mut onward = BTreeSet::new();
        for told in Arc::clone(&search).ask_all(&zone, &name, record_type(&wanted)).await {
            let mut judged = judge(&told, &wanted, &mut onward);
            if judged.lacking.is_empty() {
                judged.negative_ttl = search.negative_ttl(&zone, &told).await;
            }
            tally.add(judged);
        }
        if !trail.is_empty() {
            let with_name = |(who, why): (String, String)| (who, format!("{why}: {}", shown(&name)));
            tally.lacking = tally.lacking.into_iter().map(with_name).collect();
        }
        trail.push(name.clone());
        for elsewhere in onward {
            let (search, wanted, trail) = (Arc::clone(&search), Arc::clone(&wanted), trail.clone());
            tally.add(follow(search, name.clone(), elsewhere, wanted, trail).await);
        }
        tally
    })
}

async fn follow(
    search: Arc<Search>,
    name: Name,
    elsewhere: Elsewhere,
    wanted: Arc<WantedRecord>,
    trail: Vec<Name>,
) -> Tally {
    if trail.len() > MOST_STEPS {
        return Tally::lacks(shown(&name), "is an alias of an alias, and so on without an end");
    }
    match elsewhere {
        Elsewhere::Alias(target) if trail.contains(&target) => {
            Tally::lacks(shown(&name), "is an alias that leads back to itself")
        }
        Elsewhere::Alias(target) => {
            // If it is an alias itself, a resolver may fail on what comes after it; above it the way goes on.
            let found = match search.zone_of(&target).await {
                Ok(zone) => Ok(zone),
                Err(nobody) => search.zone_of(&target.base_name()).await.map_err(|_| nobody),
            };
            match found {
                Ok(zone) => tally(search, zone, target, wanted, trail).await,
                Err((who, why)) => Tally::lacks(who, why),
            }
        }
        Elsewhere::Delegation(cut, servers) => match search.zone_with(cut, servers).await {
            Ok(zone) => tally(search, zone, name, wanted, trail).await,
            Err((who, why)) => Tally::lacks(who, why),
        },
    }
}

fn record_type(wanted: &WantedRecord) -> RecordType {
    if wanted.is_mx() { RecordType::MX } else { RecordType::TXT }
}

/// Judges what the addresses of one server say.
fn judge(told: &Told, wanted: &WantedRecord, onward: &mut BTreeSet<Elsewhere>) -> Tally {
    let who = told.server.shown.clone();
    let answered: Vec<_> = told.said.iter().filter_map(|(at, said)| Some((at, said.as_ref().ok()?))).collect();
    if answered.is_empty() {
        let mutes: Vec<Mute> = told.said.iter().filter_map(|(_, said)| said.as_ref().err().copied()).collect();
        // One that can be reached tells more than one that cannot.
        let mute = mutes.iter().find(|mute| **mute != Mute::Unreachable).or(mutes.first());
        return Tally::lacks(who, mute.map_or(told.server.problem.as_str(), |mute| mute.reason()));
    }
    let mut tally = Tally::default();
    let mut elsewhere = Vec::new();
    let several = answered.len() > 1;
    for (at, said) in answered {
        let fault = match said {
            Said::Nothing(why) => Some(*why),
            Said::Records(records, _) => wanted.fault(records),
            Said::Alias(..) | Said::Delegation(..) => None,
        };
        if !matches!(said, Said::Nothing(_)) {
            tally.speaking = 1;
        }
        match said {
            _ if fault.is_some() => {
                let place = if several { format!(" at {at}") } else { String::new() };
                tally.lacking.insert((who.clone(), format!("{}{place}", fault.unwrap_or_default())));
            }
            Said::Records(_, ttl) => {
                tally.having = 1;
                tally.ttl = tally.ttl.max(*ttl);
            }
            Said::Alias(target, ttl) => {
                tally.ttl = tally.ttl.max(*ttl);
                elsewhere.push(Elsewhere::Alias(target.clone()));
            }
            Said::Delegation(cut, servers) => elsewhere.push(Elsewhere::Delegation(cut.clone(), servers.clone())),
            Said::Nothing(_) => {}
        }
    }
    if !tally.lacking.is_empty() {
        tally.having = 0;
    }
    onward.extend(elsewhere);
    tally
}
