//! What reports say before a step.

use std::net::IpAddr;

use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use crate::cli::failure::Failure;
use crate::policy::evidence::{self, About, DmarcSource, Missing};
use crate::policy::rollout::{Needs, Way};
use crate::site::{Domain, Site, SpfTerm};
use crate::store::ledger::Ledger;

/// What reports say.
#[derive(Debug, Default)]
pub(super) struct Judged {
    /// What is missing.
    pub(super) missing: Vec<Missing>,
    /// Who would be refused altogether, those with the most messages first.
    pub(super) refused: Vec<DmarcSource>,
    /// The sums, for the record.
    pub(super) sums: Value,
}

/// Looks at what was reported of a domain since its stage is published, and not longer ago than counts.
pub(super) fn judge(
    ledger: &Ledger,
    (site, domain): (&Site, &Domain),
    (way, needs): (&Way, Needs),
    accepted: &[IpAddr],
    now: OffsetDateTime,
) -> Result<Judged, Failure> {
    let since = |span| way.rollout().seen.map_or(now - span, |seen| seen.max(now - span));
    let own: Vec<IpAddr> = site.hosts.iter().flat_map(|host| host.addresses.iter().copied()).collect();
    let network =
        |term: &SpfTerm| if let SpfTerm::Ip(address, length) = term { Some((*address, *length)) } else { None };
    let networks: Vec<(IpAddr, u8)> = domain.spf_also.iter().filter_map(network).collect();
    let about = About { asked: domain.dmarc.reports.is_some(), own: &own, networks: &networks, accepted };
    if needs == Needs::Tls {
        // What is told of a day that ended sooner is told of sessions without the policy.
        let begin = way.rollout().seen.map_or(now, |seen| seen + Duration::DAY);
        let found = ledger.tls_evidence(&domain.name, since(evidence::FRESH).max(begin.min(now)))?;
        let missing = evidence::lacking_of_tls(&found, domain.tls_reports.is_some(), now);
        let sums = json!({ "reports": found.reports, "successful": found.successful, "failed": found.failed });
        return Ok(Judged { missing, refused: Vec::new(), sums });
    }
    let found = ledger.dmarc_evidence(&domain.name, since(evidence::SPAN))?;
    let missing = match needs {
        Needs::Spf => evidence::lacking_of_spf(&found, &about, now),
        Needs::Dmarc | Needs::Tls => evidence::lacking_of_dmarc(&found, &about, now),
    };
    let (messages, failed) = found.messages();
    let sums = json!({ "reports": found.reports, "messages": messages, "failed": failed });
    Ok(Judged { missing, refused: evidence::refused(&found).cloned().collect(), sums })
}

impl Judged {
    pub(super) fn missing_json(&self) -> Vec<Value> {
        let one = |missing: &Missing| json!({ "what": missing.code(), "text": missing.to_string(), "address": missing.address() });
        self.missing.iter().map(one).collect()
    }
}
