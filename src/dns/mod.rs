//! DNS records as data, without a resolver. Where a record comes from is `records`' business; `zone` writes them as text.

pub mod ds;
pub mod zone;

use std::borrow::Cow;
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
            Self::Caa { tag, value } => write!(f, "0 {tag} \"{value}\""),
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
