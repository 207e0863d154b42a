//! A zone and its servers, as their names and addresses are found by way of a resolver.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};

use super::search::Search;
use super::shown;

/// A zone has two to seven servers, and at most some thirteen. One with more than this is not asked.
const MOST_SERVERS: usize = 32;

/// A server has one address of each kind, or two. What comes after these is told instead of asked.
const MOST_ADDRESSES: usize = 16;

/// How many aliases a server's name may be of.
const MOST_ALIASES: usize = 8;

/// A zone.
#[derive(Debug)]
pub(super) struct Zone {
    pub(super) name: Name,
    pub(super) servers: Vec<Arc<Server>>,
}

/// A name server.
#[derive(Debug)]
pub(super) struct Server {
    /// Its name, for people.
    pub(super) shown: String,
    pub(super) addresses: Vec<IpAddr>,
    /// Why it has no addresses that can be asked.
    pub(super) problem: String,
}

/// Who is to blame, and why.
pub(super) type Nobody = (String, String);

impl Search {
    /// Finds the zone that a name is in: the first from there upwards that has name servers.
    pub(super) async fn zone_of(&self, name: &Name) -> Result<Arc<Zone>, Nobody> {
        let mut at = name.clone();
        // What is in no zone below the root does not exist, and its servers need not be asked.
        while !at.is_root() {
            match self.servers_of(&at).await {
                Ok(servers) if servers.is_empty() => at = at.base_name(),
                Ok(servers) => return self.zone_with(at, servers).await,
                Err(why) => return Err((shown(&at), format!("its name servers cannot be found: {why}"))),
            }
        }
        Err((shown(name), "no name servers are to be found for it".to_owned()))
    }

    /// Puts a zone together with its servers, whose addresses are looked up.
    pub(super) async fn zone_with(&self, name: Name, servers: BTreeSet<Name>) -> Result<Arc<Zone>, Nobody> {
        if servers.len() > MOST_SERVERS {
            return Err((shown(&name), format!("has more than {MOST_SERVERS} name servers")));
        }
        let mut found = Vec::with_capacity(servers.len());
        for server in servers {
            found.push(self.servers.get(server.clone(), self.server(server)).await);
        }
        Ok(Arc::new(Zone { name, servers: found }))
    }

    /// Returns the names of the servers of the zone that begins at a name; none if no zone does.
    async fn servers_of(&self, at: &Name) -> Result<BTreeSet<Name>, String> {
        self.cuts.get(at.to_lowercase(), self.look_up_servers(at)).await
    }

    async fn look_up_servers(&self, at: &Name) -> Result<BTreeSet<Name>, String> {
        let message = self.look_up(at, RecordType::NS).await?;
        let server = |data: &RData| if let RData::NS(server) = data { Some(server.0.to_lowercase()) } else { None };
        // Those of another name, which this one is an alias of, are not this one's.
        let own = message.answers.iter().filter(|record| record.name == *at);
        Ok(own.filter_map(|record| server(&record.data)).collect())
    }

    async fn server(&self, name: Name) -> Arc<Server> {
        let mut addresses = BTreeSet::new();
        let mut problem = "has no address".to_owned();
        for kind in [RecordType::A, RecordType::AAAA] {
            match self.look_up(&name, kind).await {
                Ok(message) => addresses.extend(addresses_in(&message, &name)),
                Err(why) => problem = format!("its addresses cannot be found: {why}"),
            }
        }
        if addresses.len() > MOST_ADDRESSES {
            problem = format!("has more than {MOST_ADDRESSES} addresses");
            addresses.clear();
        }
        Arc::new(Server { shown: shown(&name), addresses: addresses.into_iter().collect(), problem })
    }

    /// Asks one resolver after the other, until one knows.
    async fn look_up(&self, name: &Name, kind: RecordType) -> Result<Message, String> {
        let mut why = "the system names no resolver; name one with --resolver".to_owned();
        for resolver in &self.resolvers {
            why = match self.ask(*resolver, name, kind, true).await {
                Ok(message) => match message.response_code {
                    ResponseCode::NoError | ResponseCode::NXDomain => return Ok(message),
                    ResponseCode::ServFail => format!("the resolver {} answers SERVFAIL", place(*resolver)),
                    ResponseCode::Refused => format!("the resolver {} refuses", place(*resolver)),
                    _ => format!("the resolver {} answers with an error", place(*resolver)),
                },
                Err(mute) => format!("the resolver {} {}", place(*resolver), mute.reason()),
            };
        }
        Err(why)
    }
}

/// Writes where a server is, without the port that is everyone's.
fn place(server: SocketAddr) -> String {
    if server.port() == super::PORT { server.ip().to_string() } else { server.to_string() }
}

/// Reads the addresses of a name, or of what it is an alias of.
fn addresses_in(message: &Message, name: &Name) -> Vec<IpAddr> {
    let mut name = name;
    for _ in 0..MOST_ALIASES {
        let alias = message.answers.iter().find_map(|record| match &record.data {
            RData::CNAME(target) if record.name == *name => Some(&target.0),
            _ => None,
        });
        let Some(target) = alias else { break };
        name = target;
    }
    let address = |data: &RData| match data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        _ => None,
    };
    message.answers.iter().filter(|record| record.name == *name).filter_map(|record| address(&record.data)).collect()
}
