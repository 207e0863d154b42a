//! TLS reports (RFC 8460), parsed by mail-auth.

use std::collections::BTreeMap;

use mail_auth::report::tlsrpt::{FailureDetails, Policy, ResultType, TlsReport};

use super::{
    MOST_COUNTED, Report, ReportError, Rows, TlsSessions, broken, domain, identifier, label, moment, too_large,
};
use crate::names::{DomainName, shown};

/// In octets. A report is some kilobytes; what the parser makes of the worst text is ten times as large.
const JSON_LIMIT: usize = 8 << 20;

type Sums = BTreeMap<(Option<&'static str>, Option<DomainName>), u64>;

/// Reads a report: one for each domain that it is about.
pub(super) fn read(text: impl AsRef<str>) -> Result<Vec<Report>, ReportError> {
    let text = text.as_ref();
    // Others attach JSON too.
    if !text.contains("\"date-range\"") {
        return Ok(Vec::new());
    }
    if text.len() > JSON_LIMIT {
        return Err(too_large("a TLS report in it", JSON_LIMIT));
    }
    // The parser stops at a depth of 128, and at numbers that are none.
    let report =
        TlsReport::parse_json(text.trim().as_bytes()).map_err(|_| broken("it is no TLS report of RFC 8460"))?;
    let begins = moment(report.date_range.start_datetime.to_timestamp())?;
    let ends = moment(report.date_range.end_datetime.to_timestamp())?;
    let names = [&report.organization_name, &report.contact_info].into_iter().filter_map(|name| name.as_deref());
    let reporter = label(names).ok_or_else(|| broken("it does not say who it is from"))?;
    let mut of_domains: BTreeMap<DomainName, Sums> = BTreeMap::new();
    for policy in &report.policies {
        let name = &policy.policy.policy_domain;
        let about =
            domain(name).ok_or_else(|| broken(format!("`{}`, which it is about, is no domain", shown(name))))?;
        add(of_domains.entry(about).or_default(), policy)?;
    }
    if of_domains.is_empty() {
        return Err(broken("it does not say which domain it is about"));
    }
    let of_domain = |(domain, sums): (DomainName, Sums)| {
        let sessions = sums.into_iter().map(|((result, mx), sessions)| TlsSessions { result, mx, sessions });
        let (reporter, rows) = (reporter.clone(), Rows::Tls(sessions.collect()));
        let mut report = Report { reporter, id: report.report_id.clone(), domain, begins, ends, rows };
        report.id = identifier(&report.id, || report.digest())?;
        Ok(report)
    };
    of_domains.into_iter().map(of_domain).collect()
}

fn add(sums: &mut Sums, policy: &Policy) -> Result<(), ReportError> {
    let mut told = 0_u64;
    let mut count = |result, mx, sessions: u64| {
        if sessions > 0 {
            let sum = sums.entry((result, mx)).or_default();
            *sum = sum.saturating_add(sessions);
        }
    };
    for FailureDetails { result_type, receiving_mx_hostname, failed_session_count, .. } in &policy.failure_details {
        let sessions = u64::from(*failed_session_count);
        told = told.saturating_add(sessions);
        count(Some(word(*result_type)), receiving_mx_hostname.as_deref().and_then(domain), sessions);
    }
    count(None, None, policy.summary.total_success.into());
    // Some reporters give the sum alone.
    count(Some("unspecified"), None, u64::from(policy.summary.total_failure).saturating_sub(told));
    let all = sums.values().fold(0, |sum: u64, sessions| sum.saturating_add(*sessions));
    if all > MOST_COUNTED { Err(broken("it counts more sessions than there are")) } else { Ok(()) }
}

/// Returns the word of RFC 8460 §4.3, or `other`.
fn word(result: ResultType) -> &'static str {
    match result {
        ResultType::StartTlsNotSupported => "starttls-not-supported",
        ResultType::CertificateHostMismatch => "certificate-host-mismatch",
        ResultType::CertificateExpired => "certificate-expired",
        ResultType::CertificateNotTrusted => "certificate-not-trusted",
        ResultType::ValidationFailure => "validation-failure",
        ResultType::TlsaInvalid => "tlsa-invalid",
        ResultType::DnssecInvalid => "dnssec-invalid",
        ResultType::DaneRequired => "dane-required",
        ResultType::StsPolicyFetchError => "sts-policy-fetch-error",
        ResultType::StsPolicyInvalid => "sts-policy-invalid",
        ResultType::StsWebpkiInvalid => "sts-webpki-invalid",
        ResultType::Other => "other",
    }
}
