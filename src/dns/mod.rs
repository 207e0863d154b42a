//! DNS records as data, without a resolver. Where a record comes from is `records`' business; the modules below write them, each in
//! the syntax of one reader, with its one way to quote.

pub mod ds;
pub mod dnscontrol;
pub mod json;
pub mod nsupdate;
pub mod octodns;
pub mod table;
pub mod zone;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::names::{Digest, DomainName, HostName};

/// One record that a site needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The owner name in lower case, without the final dot. It may hold labels with `_`, which no host name has.
    pub name: String,
    /// How long others may keep it, in seconds.
    pub ttl: u32,
    /// Type and content.
    pub data: RecordData,
    /// Why the site needs it: one sentence.
    pub reason: Cow<'static, str>,
    /// Where that is written: `RFC 6376 §3.6.1`.
    pub rfc: &'static str,
}

/// The types that a mail site needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordData {
    /// An IPv4 address.
    A(Ipv4Addr),
    /// An IPv6 address.
    Aaaa(Ipv6Addr),
    /// Which CAs may issue (RFC 8659); the flags are 0.
    Caa {
        /// `issue`, `issuewild`, `issuemail` or `iodef`.
        tag: &'static str,
        /// The property's value.
        value: String,
    },
    /// Another name of a host.
    Cname(HostName),
    /// A host that takes mail.
    Mx {
        /// Lower is tried first.
        preference: u16,
        /// The host.
        exchange: HostName,
    },
    /// No host takes mail (RFC 7505).
    NullMx,
    /// Where a service is (RFC 2782).
    Srv {
        /// Lower is tried first.
        priority: u16,
        /// How much of those of one priority goes there.
        weight: u16,
        /// The port; 0 if there is no such service.
        port: u16,
        /// The host; none if there is no such service (RFC 6186 §3.4).
        target: Option<HostName>,
    },
    /// The key of a server: TLSA 3 1 1 (RFC 6698 §2.1, RFC 7672 §3.1).
    Tlsa(Digest),
    /// A text, whole: only writers split it.
    Txt(String),
}

impl RecordData {
    /// Returns the name of the type.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::A(_) => "A",
            Self::Aaaa(_) => "AAAA",
            Self::Caa { .. } => "CAA",
            Self::Cname(_) => "CNAME",
            Self::Mx { .. } | Self::NullMx => "MX",
            Self::Srv { .. } => "SRV",
            Self::Tlsa(_) => "TLSA",
            Self::Txt(_) => "TXT",
        }
    }
}

/// Writes the content as a DNS panel wants it: a text is one string without quotes.
impl fmt::Display for RecordData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::A(address) => write!(f, "{address}"),
            Self::Aaaa(address) => write!(f, "{address}"),
            Self::Caa { .. } => f.write_str(&zone::content(self)),
            Self::Cname(host) => write!(f, "{host}."),
            Self::Mx { preference, exchange } => write!(f, "{preference} {exchange}."),
            Self::NullMx => f.write_str("0 ."),
            Self::Srv { priority, weight, port, target: Some(host) } => write!(f, "{priority} {weight} {port} {host}."),
            Self::Srv { priority, weight, port, target: None } => write!(f, "{priority} {weight} {port} ."),
            Self::Tlsa(digest) => write!(f, "3 1 1 {digest}"),
            Self::Txt(text) => f.write_str(text),
        }
    }
}

/// What one domain's zone needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    /// The domain.
    pub domain: DomainName,
    /// The records, in the order in which a person reads them.
    pub records: Vec<Record>,
    /// Hosts below the domain whose addresses the settings do not tell: their A and AAAA records are the administrator's.
    pub unaddressed: Vec<HostName>,
}

/// The records of one name and one type, of which there is at least one.
#[derive(Clone, Debug)]
pub struct RecordSet<'a> {
    /// The owner name, as in [`Record::name`].
    pub name: &'a str,
    /// The name of the type.
    pub kind: &'static str,
    /// The records, in the zone's order.
    pub records: Vec<&'a Record>,
}

impl RecordSet<'_> {
    /// Returns how long others may keep the set, in seconds: the shortest time, for a set has one (RFC 2181 §5.2).
    pub fn ttl(&self) -> u32 {
        self.records.iter().map(|record| record.ttl).min().unwrap_or_default()
    }
}

impl Zone {
    /// Returns the sets of records, in the order of their first ones.
    pub fn sets(&self) -> Vec<RecordSet<'_>> {
        let mut sets: Vec<RecordSet<'_>> = Vec::new();
        let mut places = BTreeMap::new();
        for record in &self.records {
            let (name, kind) = (record.name.as_str(), record.data.kind());
            let place = *places.entry((name, kind)).or_insert(sets.len());
            match sets.get_mut(place) {
                Some(set) => set.records.push(record),
                None => sets.push(RecordSet { name, kind, records: vec![record] }),
            }
        }
        sets
    }

    /// Returns a name relative to the domain, `@` for the domain itself; one that is not within it stays whole, with a final dot.
    pub fn relative<'a>(&self, name: &'a str) -> Cow<'a, str> {
        match name.strip_suffix(self.domain.as_str()) {
            Some("") => Cow::Borrowed("@"),
            Some(rest) if rest.ends_with('.') => Cow::Borrowed(rest.trim_end_matches('.')),
            _ => Cow::Owned(format!("{name}.")),
        }
    }
}

/// Returns what a record says of itself, on one line: its reason and where that is written.
fn remark(record: &Record) -> String {
    format!("{} {}", crate::names::visible(&record.reason), record.rfc)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn zone(names: &[(&str, RecordData)]) -> Zone {
        let record = |(name, data): &(&str, RecordData)| Record {
            name: (*name).to_owned(),
            ttl: 3600,
            data: data.clone(),
            reason: "Why.".into(),
            rfc: "RFC 1",
        };
        Zone {
            domain: "example.com".parse().unwrap(),
            records: names.iter().map(record).collect(),
            unaddressed: Vec::new(),
        }
    }

    #[test]
    fn records_of_one_name_and_type_are_one_set_wherever_they_stand() {
        let text = |text: &str| RecordData::Txt(text.to_owned());
        let zone = zone(&[
            ("example.com", text("one")),
            ("example.com", RecordData::NullMx),
            ("a.example.com", text("two")),
            ("example.com", text("three")),
        ]);
        let sets: Vec<_> = zone.sets().iter().map(|set| (set.name.to_owned(), set.kind, set.records.len())).collect();
        let wanted = [("example.com", "TXT", 2), ("example.com", "MX", 1), ("a.example.com", "TXT", 1)];
        assert_eq!(sets, wanted.map(|(name, kind, count)| (name.to_owned(), kind, count)));
    }

    #[test]
    fn a_name_is_relative_only_to_the_domain_that_it_lies_in() {
        let zone = zone(&[]);
        for (name, relative) in [
            ("example.com", "@"),
            ("_dmarc.example.com", "_dmarc"),
            ("notexample.com", "notexample.com."),
            ("example.net", "example.net."),
        ] {
            assert_eq!(zone.relative(name), relative);
        }
    }
}
