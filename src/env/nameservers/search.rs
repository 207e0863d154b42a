//! One run's questions to servers, and what is known from them.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::exchange::{self, Mute};
use super::memo::{Failures, Memo};
use super::zone::{Server, Zone};
use crate::dkim::rotation::UNKNOWN_NEGATIVE_TTL;

/// How many servers are asked at once.
const EXCHANGES: usize = 64;

/// How often in a row a server may give no answer before it is asked nothing more in this run: of thousands of zones with one
/// dead server not every one can wait for it.
const PATIENT_WITH: usize = 3;

/// The same for resolvers, which may be looking for a dead server themselves.
const PATIENT_WITH_RESOLVERS: usize = 20;

/// What is known in one run, so that no server is asked the same twice.
#[derive(Debug)]
pub(super) struct Search {
    pub(super) resolvers: Vec<SocketAddr>,
    port: u16,
    patience: Duration,
    exchanges: Semaphore,
    silent: Failures<SocketAddr>,
    /// The servers of the zone that begins at a name, none if no zone does, or why nobody knows.
    pub(super) cuts: Memo<Name, Result<BTreeSet<Name>, String>>,
    /// The servers by their names.
    pub(super) servers: Memo<Name, Arc<Server>>,
    /// The negative TTL of a zone, as an address says it.
    negative_ttls: Memo<(Name, IpAddr), Option<u32>>,
}

/// What the addresses of one server say.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) server: Arc<Server>,
    pub(super) said: Vec<(IpAddr, Result<Said, Mute>)>,
}

/// What an address says of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// The TXT records there, each with its strings joined, or the names in MX records, and their TTL in seconds; there may be
    /// none.
    Records(Vec<Vec<u8>>, u32),
    /// It is an alias, for so many seconds.
    Alias(Name, u32),
    /// It is in a zone that begins further down, at this name, and has these servers.
    Delegation(Name, BTreeSet<Name>),
    /// Nothing that counts, and why.
    Nothing(&'static str),
}

impl Search {
    pub(super) fn new(resolvers: Vec<SocketAddr>, port: u16, patience: Duration) -> Self {
        Self {
            resolvers,
            port,
            patience,
            exchanges: Semaphore::new(EXCHANGES),
            silent: Failures::default(),
            cuts: Memo::default(),
            servers: Memo::default(),
            negative_ttls: Memo::default(),
        }
    }

    /// Asks a server, unless it has fallen silent.
    pub(super) async fn ask(
        &self,
        server: SocketAddr,
        name: &Name,
        kind: RecordType,
        recursion: bool,
    ) -> Result<Message, Mute> {
        // Nobody closes the semaphore.
        let _permit = self.exchanges.acquire().await;
        if self.silent.count(&server) >= if recursion { PATIENT_WITH_RESOLVERS } else { PATIENT_WITH } {
            return Err(Mute::Silent);
        }
        // A resolver tries one server after the other meanwhile.
        let patience = if recursion { self.patience * 2 } else { self.patience };
        let answer = exchange::ask(server, name, kind, recursion, patience).await;
        if !matches!(answer, Err(Mute::Unreachable)) {
            self.silent.note(server, answer.is_ok());
        }
        answer
    }

    /// Asks all addresses of all servers of a zone for the records at a name.
    pub(super) async fn ask_all(self: Arc<Self>, zone: &Arc<Zone>, name: &Name, kind: RecordType) -> Vec<Told> {
        let mut asked = JoinSet::new();
        for (at, server) in zone.servers.iter().enumerate() {
            for address in server.addresses.iter().copied() {
                let (search, zone, name) = (Arc::clone(&self), Arc::clone(zone), name.clone());
                asked.spawn(async move {
                    let answer = search.ask((address, search.port).into(), &name, kind, false).await;
                    (at, address, answer.map(|message| read(&message, &name, &zone.name)))
                });
            }
        }
        let mut told: Vec<Told> =
            zone.servers.iter().map(|server| Told { server: Arc::clone(server), said: Vec::new() }).collect();
        while let Some(finished) = asked.join_next().await {
            if let Ok((at, address, said)) = finished
                && let Some(told) = told.get_mut(at)
            {
                told.said.push((address, said));
            }
        }
        for told in &mut told {
            told.said.sort_by_key(|(address, _)| *address);
        }
        told
    }

    /// Returns for how long resolvers may remember of a zone that a name is not there, by the longest that the addresses which
    /// answered say (RFC 2308 §5). One that does not say it may be thought to say the longest that is usual.
    pub(super) async fn negative_ttl(&self, zone: &Zone, told: &Told) -> Option<u32> {
        let mut longest = None;
        for (address, _) in told.said.iter().filter(|(_, said)| said.is_ok()) {
            let key = (zone.name.to_lowercase(), *address);
            let said = self.negative_ttls.get(key, self.ask_negative_ttl(&zone.name, *address)).await;
            longest = longest.max(Some(said.unwrap_or(UNKNOWN_NEGATIVE_TTL)));
        }
        longest
    }

    async fn ask_negative_ttl(&self, zone: &Name, address: IpAddr) -> Option<u32> {
        let message = self.ask((address, self.port).into(), zone, RecordType::SOA, false).await.ok()?;
        message.answers.iter().filter(|_| message.authoritative).find_map(|record| match &record.data {
            RData::SOA(soa) if record.name == *zone => Some(record.ttl.min(soa.minimum)),
            _ => None,
        })
    }
}

/// Reads what a server of a zone says of the TXT or MX records at a name.
fn read(message: &Message, name: &Name, zone: &Name) -> Said {
    match message.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain => {}
        ResponseCode::Refused => return Said::Nothing("refuses"),
        ResponseCode::ServFail => return Said::Nothing("answers SERVFAIL"),
        ResponseCode::NotAuth => return Said::Nothing("does not serve the zone"),
        _ => return Said::Nothing("answers with an error"),
    }
    if !message.authoritative {
        return referral(message, name, zone).unwrap_or(Said::Nothing("does not serve the zone"));
    }
    let (mut records, mut longest) = (Vec::new(), 0);
    for record in message.answers.iter().filter(|record| record.name == *name) {
        match &record.data {
            RData::CNAME(target) => return Said::Alias(target.0.to_lowercase(), record.ttl),
            RData::TXT(txt) => {
                records.push(txt.txt_data.concat());
                longest = longest.max(record.ttl);
            }
            RData::MX(mx) => {
                records.push(mx.exchange.to_ascii().into_bytes());
                longest = longest.max(record.ttl);
            }
            _ => {}
        }
    }
    Said::Records(records, longest)
}

/// Reads that the name is in a zone below this one. A referral to elsewhere tells that the server does not serve this one.
fn referral(message: &Message, name: &Name, zone: &Name) -> Option<Said> {
    let is_below = |cut: &Name| zone.zone_of(cut) && cut != zone && cut.zone_of(name);
    let server = |data: &RData| if let RData::NS(server) = data { Some(server.0.to_lowercase()) } else { None };
    let named = message.authorities.iter().filter_map(|record| Some((&record.name, server(&record.data)?)));
    let named: Vec<_> = named.filter(|(cut, _)| is_below(cut)).collect();
    let cut = named.iter().map(|(cut, _)| *cut).max_by_key(|cut| cut.num_labels())?.to_lowercase();
    let servers = named.into_iter().filter(|(owner, _)| **owner == cut).map(|(_, server)| server).collect();
    Some(Said::Delegation(cut, servers))
}
