//! DNS records as data, without a resolver. Where a record comes from is `records`' business; `zone` writes them as text.

pub mod zone;

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::names::{DomainName, HostName};

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
    pub reason: &'static str,
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
    /// A host that takes mail.
    Mx {
        /// Lower is tried first.
        preference: u16,
        /// The host.
        exchange: HostName,
    },
    /// A text, whole: only writers split it.
    Txt(String),
}

impl RecordData {
    /// Returns the name of the type.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::A(_) => "A",
            Self::Aaaa(_) => "AAAA",
            Self::Mx { .. } => "MX",
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
            Self::Mx { preference, exchange } => write!(f, "{preference} {exchange}."),
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
