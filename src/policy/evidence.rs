//! What reports of other mail servers tell of a domain: sums over a span of time; and what of it
//! must be known before a policy is tightened.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use time::{Duration, OffsetDateTime};

use crate::names::{DomainName, shown};

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

/// How far back reports are looked at.
pub const SPAN: Duration = Duration::days(30);

/// The newest report must be of this time: an older one says nothing of what is sent now.
pub const FRESH: Duration = Duration::days(14);

/// So many reports of DMARC there must be: who sends them sends one a day, as a rule (RFC 9990 §3.5.1), so that a week is
/// covered.
pub const LEAST_REPORTS: u64 = 7;

/// Of so many messages from the site's own addresses at most one may fail: forwarding and a lost signature happen.
pub const OWN_MESSAGES_FOR_A_FAILURE: u64 = 1000;

/// What is missing before a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Nobody is asked for reports.
    NotAsked(Kind),
    /// So many reports are too few.
    TooFew(Kind, u64),
    /// The newest report is too old.
    Stale(Kind, OffsetDateTime),
    /// Of the messages from an address of the site's own so many failed: failed, of all.
    OwnFails(IpAddr, u64, u64),
    /// Of so many messages not one passes.
    NothingPasses(u64),
    /// Of the messages from an address some pass and so many do not: failed, of all.
    SometimesFails(IpAddr, DomainName, u64, u64),
    /// Of the messages from an address so many pass by their signature alone: those, of all.
    SignatureAlone(IpAddr, DomainName, u64, u64),
    /// So many sessions failed, most of them for this reason.
    TlsFails(u64, String),
}

/// Of what reports are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// DMARC aggregate reports.
    Dmarc,
    /// TLS reports.
    Tls,
}

impl Kind {
    fn noun(self) -> &'static str {
        match self {
            Self::Dmarc => "DMARC",
            Self::Tls => "TLS",
        }
    }

    fn setting(self) -> &'static str {
        match self {
            Self::Dmarc => "dmarc.reports",
            Self::Tls => "tls_reports",
        }
    }
}

impl Missing {
    /// Returns a word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotAsked(_) => "no-reports-asked-for",
            Self::TooFew(..) => "too-few-reports",
            Self::Stale(..) => "reports-too-old",
            Self::OwnFails(..) => "own-mail-fails",
            Self::NothingPasses(_) => "nothing-passes",
            Self::SometimesFails(..) => "source-fails-sometimes",
            Self::SignatureAlone(..) => "source-passes-by-signature-alone",
            Self::TlsFails(..) => "tls-fails",
        }
    }

    /// Returns the address that an administrator may accept, so that this counts no more.
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Self::SometimesFails(address, ..) | Self::SignatureAlone(address, ..) => Some(*address),
            Self::NotAsked(_)
            | Self::NothingPasses(_)
            | Self::TooFew(..)
            | Self::Stale(..)
            | Self::OwnFails(..)
            | Self::TlsFails(..) => None,
        }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAsked(kind) => write!(f, "no {} reports are asked for ({})", kind.noun(), kind.setting()),
            Self::TooFew(kind, 0) => write!(f, "no {} report", kind.noun()),
            Self::TooFew(kind, 1) => write!(f, "only 1 {} report", kind.noun()),
            Self::TooFew(kind, count) => write!(f, "only {count} {} reports", kind.noun()),
            Self::Stale(kind, newest) => write!(f, "the newest {} report is of {}", kind.noun(), newest.date()),
            Self::OwnFails(address, failed, of) => {
                write!(f, "{failed} of {of} messages from {address}, which is the site's own, fail")
            }
            Self::NothingPasses(0) => write!(f, "the reports tell of nothing that succeeded"),
            Self::NothingPasses(of) => write!(f, "of {of} messages in the reports not one passes"),
            Self::SometimesFails(address, from, failed, of) => {
                write!(f, "{failed} of {of} messages from {address} as {from} fail, others of it pass")
            }
            Self::SignatureAlone(address, from, count, of) => {
                write!(f, "{count} of {of} messages from {address} as {from} pass by their signature alone")
            }
            Self::TlsFails(failed, reason) => write!(f, "{failed} TLS sessions failed: {}", shown(reason)),
        }
    }
}

/// What is known of a domain beside reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About<'a> {
    /// Whether reports are asked for.
    pub asked: bool,
    /// The site's own addresses.
    pub own: &'a [IpAddr],
    /// The networks of others that send by the settings' word: address and length of the prefix.
    pub networks: &'a [(IpAddr, u8)],
    /// Those that an administrator accepts as they are.
    pub accepted: &'a [IpAddr],
}

impl About<'_> {
    /// Tells whether who sends from there sends for the site.
    fn is_own(&self, address: IpAddr) -> bool {
        self.own.contains(&address) || self.networks.iter().any(|network| is_within(address, *network))
    }
}

/// Tells whether an address is of a network: the prefix of that many bits is the same.
fn is_within(address: IpAddr, (network, length): (IpAddr, u8)) -> bool {
    let (address, network, bits) = match (address, network) {
        (IpAddr::V4(one), IpAddr::V4(other)) => (u128::from(one.to_bits()), u128::from(other.to_bits()), 32),
        (IpAddr::V6(one), IpAddr::V6(other)) => (one.to_bits(), other.to_bits(), 128),
        _ => return false,
    };
    let host_bits = bits - u32::from(length).min(bits);
    address.checked_shr(host_bits) == network.checked_shr(host_bits)
}

/// Tells what keeps DMARC from refusing more.
///
/// Who only fails says nothing: so does everybody who forges the domain. An address of which some mail passes is somebody's who
/// may send, or forwards.
pub fn lacking_of_dmarc(evidence: &DmarcEvidence, about: &About<'_>, now: OffsetDateTime) -> Vec<Missing> {
    let mut missing = reports(Kind::Dmarc, about.asked, (evidence.reports, LEAST_REPORTS), evidence.newest, now);
    let mut own: BTreeMap<IpAddr, (u64, u64)> = BTreeMap::new();
    for source in evidence.sources.iter().filter(|source| about.is_own(source.address)) {
        let (failed, of) = own.entry(source.address).or_default();
        *failed = failed.saturating_add(source.failed());
        *of = of.saturating_add(source.messages);
    }
    for (address, (failed, of)) in own {
        if failed > of / OWN_MESSAGES_FOR_A_FAILURE {
            missing.push(Missing::OwnFails(address, failed, of));
        }
    }
    // Where nothing passes, the site's own mail does not either, whatever its addresses are.
    if missing.is_empty() && evidence.sources.iter().all(|source| source.passed == 0) {
        missing.push(Missing::NothingPasses(evidence.messages().0));
    }
    let of_others = strangers(evidence, about).filter(|source| source.passed > 0 && source.failed() > 0);
    missing.extend(
        of_others.map(|source| {
            Missing::SometimesFails(source.address, source.from.clone(), source.failed(), source.messages)
        }),
    );
    missing
}

/// Tells what keeps SPF from saying `-all`: what keeps DMARC, and mail that passes by its signature alone, which some receivers
/// would refuse before they see it.
pub fn lacking_of_spf(evidence: &DmarcEvidence, about: &About<'_>, now: OffsetDateTime) -> Vec<Missing> {
    let mut missing = lacking_of_dmarc(evidence, about, now);
    let alone = |source: &DmarcSource| source.passed.saturating_sub(source.spf);
    let of_others = strangers(evidence, about).filter(|source| alone(source) > 0);
    missing
        .extend(of_others.map(|source| {
            Missing::SignatureAlone(source.address, source.from.clone(), alone(source), source.messages)
        }));
    missing
}

/// Tells what keeps MTA-STS from being enforced: a failure, or that nobody reported.
pub fn lacking_of_tls(evidence: &TlsEvidence, asked: bool, now: OffsetDateTime) -> Vec<Missing> {
    let mut missing = reports(Kind::Tls, asked, (evidence.reports, 1), evidence.newest, now);
    if missing.is_empty() && evidence.successful == 0 {
        missing.push(Missing::NothingPasses(0));
    }
    if evidence.failed > 0 {
        let reason = evidence.failures.first().map_or("unknown", |(reason, ..)| reason);
        missing.push(Missing::TlsFails(evidence.failed, reason.to_owned()));
    }
    missing
}

/// Returns the sources of which no mail passes, those with the most messages first: forgers, and who was forgotten.
pub fn refused(evidence: &DmarcEvidence) -> impl Iterator<Item = &DmarcSource> {
    evidence.sources.iter().filter(|source| source.messages > 0 && source.passed == 0)
}

fn strangers<'a>(evidence: &'a DmarcEvidence, about: &About<'a>) -> impl Iterator<Item = &'a DmarcSource> + use<'a> {
    let about = *about;
    evidence
        .sources
        .iter()
        .filter(move |source| !about.is_own(source.address) && !about.accepted.contains(&source.address))
}

fn reports(
    kind: Kind,
    asked: bool,
    (count, least): (u64, u64),
    newest: Option<OffsetDateTime>,
    now: OffsetDateTime,
) -> Vec<Missing> {
    match newest {
        _ if !asked && count == 0 => vec![Missing::NotAsked(kind)],
        Some(newest) if newest + FRESH < now => vec![Missing::Stale(kind, newest)],
        _ if count < least => vec![Missing::TooFew(kind, count)],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-24 12:00 UTC);
    const OWN: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 9));

    /// A source by its numbers: messages, DKIM, SPF, passed.
    fn source(address: IpAddr, [messages, dkim, spf, passed]: [u64; 4]) -> DmarcSource {
        DmarcSource { address, from: "example.com".parse().unwrap(), messages, dkim, spf, passed }
    }

    fn reported(sources: Vec<DmarcSource>) -> DmarcEvidence {
        DmarcEvidence { reports: LEAST_REPORTS, newest: Some(NOW - FRESH), sources }
    }

    fn codes(missing: &[Missing]) -> Vec<&'static str> {
        missing.iter().map(Missing::code).collect()
    }

    const ABOUT: About<'static> = About { asked: true, own: &[OWN], networks: &[], accepted: &[] };

    #[test]
    fn a_week_of_fresh_reports_is_needed() {
        let lacking = |evidence: &DmarcEvidence, about| codes(&lacking_of_dmarc(evidence, about, NOW));
        let good = reported(vec![source(OWN, [10, 10, 10, 10])]);
        assert_eq!(lacking(&good, &ABOUT), [""; 0]);
        let few = DmarcEvidence { reports: LEAST_REPORTS - 1, ..good.clone() };
        assert_eq!(lacking(&few, &ABOUT), ["too-few-reports"]);
        let stale = DmarcEvidence { newest: Some(NOW - FRESH - Duration::SECOND), ..good.clone() };
        assert_eq!(lacking(&stale, &ABOUT), ["reports-too-old"]);
        assert_eq!(lacking(&DmarcEvidence::default(), &ABOUT), ["too-few-reports"]);
        let unasked = About { asked: false, ..ABOUT };
        assert_eq!(lacking(&DmarcEvidence::default(), &unasked), ["no-reports-asked-for"]);
        assert_eq!(lacking(&good, &unasked), [""; 0], "they come all the same");
    }

    #[test]
    fn of_the_sites_own_mail_one_in_a_thousand_may_fail() {
        let lacking = |numbers| codes(&lacking_of_dmarc(&reported(vec![source(OWN, numbers)]), &ABOUT, NOW));
        assert_eq!(lacking([1000, 999, 999, 999]), [""; 0]);
        assert_eq!(lacking([999, 998, 998, 998]), ["own-mail-fails"]);
        assert_eq!(lacking([1, 0, 0, 0]), ["own-mail-fails"]);
        assert_eq!(lacking([u64::MAX, 0, 0, 0]), ["own-mail-fails"]);
    }

    #[test]
    fn who_only_fails_hinders_nothing_and_who_passes_sometimes_does_until_accepted() {
        let (forger, forwarder) = (source(OTHER, [50, 0, 0, 0]), source(OTHER, [50, 49, 0, 49]));
        let evidence = reported(vec![forger.clone(), source(OWN, [9, 9, 9, 9])]);
        assert_eq!(lacking_of_dmarc(&evidence, &ABOUT, NOW), []);
        assert_eq!(refused(&evidence).collect::<Vec<_>>(), [&forger]);
        assert_eq!(codes(&lacking_of_dmarc(&reported(vec![forger]), &ABOUT, NOW)), ["nothing-passes"]);
        assert_eq!(codes(&lacking_of_dmarc(&reported(Vec::new()), &ABOUT, NOW)), ["nothing-passes"]);
        let evidence = reported(vec![forwarder]);
        assert_eq!(refused(&evidence).count(), 0);
        let missing = lacking_of_dmarc(&evidence, &ABOUT, NOW);
        assert_eq!((codes(&missing), missing[0].address()), (vec!["source-fails-sometimes"], Some(OTHER)));
        assert_eq!(lacking_of_dmarc(&evidence, &About { accepted: &[OTHER], ..ABOUT }, NOW), []);
    }

    #[test]
    fn who_sends_by_the_settings_word_must_not_fail_either() {
        let network = |text: &str, length| (text.parse().unwrap(), length);
        let lacking = |networks: &[(IpAddr, u8)]| {
            let evidence = reported(vec![source(OTHER, [7000, 0, 0, 0]), source(OWN, [9, 9, 9, 9])]);
            codes(&lacking_of_dmarc(&evidence, &About { networks, ..ABOUT }, NOW))
        };
        for (networks, expected) in [
            ([network("203.0.113.0", 24)], &["own-mail-fails"][..]),
            ([network("203.0.113.9", 32)], &["own-mail-fails"]),
            ([network("0.0.0.0", 0)], &["own-mail-fails"]),
            ([network("203.0.112.0", 24)], &[]),
            ([network("::", 0)], &[]),
        ] {
            assert_eq!(lacking(&networks), expected, "{networks:?}");
        }
    }

    #[test]
    fn spf_says_all_only_if_nobody_needs_the_signature() {
        let lacking = |numbers, about| codes(&lacking_of_spf(&reported(vec![source(OTHER, numbers)]), about, NOW));
        assert_eq!(lacking([50, 50, 50, 50], &ABOUT), [""; 0]);
        assert_eq!(lacking([50, 0, 50, 50], &ABOUT), [""; 0]);
        assert_eq!(lacking([50, 50, 49, 50], &ABOUT), ["source-passes-by-signature-alone"]);
        assert_eq!(lacking([50, 50, 49, 50], &About { accepted: &[OTHER], ..ABOUT }), [""; 0]);
    }

    #[test]
    fn one_failed_session_keeps_mta_sts_from_being_enforced() {
        let good = TlsEvidence { reports: 1, newest: Some(NOW), successful: 9, ..TlsEvidence::default() };
        assert_eq!(lacking_of_tls(&good, true, NOW), []);
        assert_eq!(codes(&lacking_of_tls(&TlsEvidence::default(), true, NOW)), ["too-few-reports"]);
        let empty = TlsEvidence { successful: 0, ..good.clone() };
        assert_eq!(codes(&lacking_of_tls(&empty, true, NOW)), ["nothing-passes"]);
        let failures = vec![("certificate-expired\u{1b}".to_owned(), None, 1)];
        let missing = lacking_of_tls(&TlsEvidence { failed: 1, failures, ..good }, true, NOW);
        assert_eq!(codes(&missing), ["tls-fails"]);
        assert!(!missing[0].to_string().contains('\u{1b}'), "what strangers wrote is made fit to be shown");
    }
}
