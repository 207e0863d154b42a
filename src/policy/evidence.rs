//! What reports of other mail servers tell of a domain: sums over a span of time.

use std::net::IpAddr;

use time::OffsetDateTime;

use crate::names::DomainName;

/// What DMARC aggregate reports tell of a domain (RFC 9990).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DmarcEvidence {
    /// How many reports there are.
    pub reports: u64,
    /// The end of the newest report's span.
    pub newest: Option<OffsetDateTime>,
    /// The senders, those with the most messages first.
    pub sources: Vec<DmarcSource>,
}

/// What one address sent under the domain's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DmarcSource {
    /// The address.
    pub address: IpAddr,
    /// The domain in From:, which may be a sub-domain.
    pub from: DomainName,
    /// How many messages.
    pub messages: u64,
    /// How many of them had an aligned DKIM signature that verifies.
    pub dkim: u64,
    /// How many of them passed SPF with an aligned domain.
    pub spf: u64,
    /// How many of them passed DMARC: by either.
    pub passed: u64,
}

impl DmarcSource {
    /// Returns how many messages an enforced policy would have cost.
    pub fn failed(&self) -> u64 {
        self.messages.saturating_sub(self.passed)
    }
}

impl DmarcEvidence {
    /// Returns how many messages there were, and how many of them failed.
    pub fn messages(&self) -> (u64, u64) {
        let sum = |of: fn(&DmarcSource) -> u64| self.sources.iter().map(of).fold(0, u64::saturating_add);
        (sum(|source| source.messages), sum(DmarcSource::failed))
    }
}

/// What TLS reports tell of a domain (RFC 8460).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsEvidence {
    /// How many reports there are.
    pub reports: u64,
    /// The end of the newest report's span.
    pub newest: Option<OffsetDateTime>,
    /// How many sessions succeeded.
    pub successful: u64,
    /// How many did not.
    pub failed: u64,
    /// Why: the result type (RFC 8460 §4.3) and the MX host if it is told, with the number of sessions, most first.
    pub failures: Vec<(String, Option<String>, u64)>,
}
