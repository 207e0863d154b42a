//! A survey in Prometheus's text exposition format (version 0.0.4), for node_exporter's textfile collector. No user is named:
//! there are as many series with ten thousand users as with one.

use std::fmt::Write as _;

use super::{FINDINGS, Kind, Severity, Survey};
use crate::inventory::CertificateStatus;
use crate::pki::trust::MAXIMUM_TWINS;

/// Returns the exposition: gauges only, each with its help.
pub fn write(survey: &Survey) -> String {
    let mut text = Exposition(String::new());
    text.gauge("postseal_status", "How urgent the most urgent is: 0 fine, 1 warning, 2 critical.");
    text.sample("postseal_status", &[], worth(survey.worst()));
    text.gauge("postseal_status_timestamp_seconds", "When this was looked at.");
    text.sample("postseal_status_timestamp_seconds", &[], survey.now.unix_timestamp());
    text.gauge("postseal_due", "Whether `postseal tick` would do something.");
    text.sample("postseal_due", &[], i64::from(survey.is_anything_due()));
    text.gauge("postseal_findings", "How many findings of each kind `postseal status` has.");
    for (id, _) in FINDINGS {
        let count = survey.findings.iter().filter(|finding| finding.id == *id).count();
        text.sample("postseal_findings", &[("finding", id)], size(count));
    }
    text.gauge("postseal_expiry_timestamp_seconds", "When the first of each kind that is in use ends.");
    for kind in Kind::ALL {
        if let Some(expiry) = survey.soonest(kind) {
            text.sample("postseal_expiry_timestamp_seconds", &[("kind", kind.as_str())], expiry.at.unix_timestamp());
        }
    }
    text.gauge("postseal_server_certificate_expiry_timestamp_seconds", "When the server certificate of a host ends.");
    for expiry in survey.expiries.iter().filter(|expiry| expiry.kind == Kind::Server) {
        let name = "postseal_server_certificate_expiry_timestamp_seconds";
        text.sample(name, &[("host", &expiry.subject)], expiry.at.unix_timestamp());
    }
    text.gauge("postseal_expiring", "How many of each kind in use end within the time that is worth a warning.");
    for kind in Kind::ALL {
        for (within, limit) in [("warning", survey.limits.warn), ("critical", survey.limits.critical)] {
            let ends = |expiry: &&super::Expiry| expiry.kind == kind && expiry.at - survey.now <= limit;
            let count = survey.expiries.iter().filter(ends).count();
            text.sample("postseal_expiring", &[("kind", kind.as_str()), ("within", within)], size(count));
        }
    }
    text.gauge("postseal_client_certificates", "How many client certificates there are of each status.");
    for (status, count) in CertificateStatus::ALL.iter().zip(survey.counts.clients) {
        text.sample("postseal_client_certificates", &[("status", status.as_str())], size(count));
    }
    text.gauge("postseal_users", "How many accounts there are.");
    text.sample("postseal_users", &[], size(survey.counts.users));
    text.gauge("postseal_trust_list_twins", "How many certificates the daemons' trust list holds.");
    text.sample("postseal_trust_list_twins", &[], size(survey.counts.twins));
    text.gauge("postseal_trust_list_twins_limit", "How many of them TLS can name to a client.");
    text.sample("postseal_trust_list_twins_limit", &[], size(MAXIMUM_TWINS));
    text.0
}

fn worth(severity: Severity) -> i64 {
    match severity {
        Severity::Ok => 0,
        Severity::Warning => 1,
        Severity::Critical => 2,
    }
}

fn size(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

struct Exposition(String);

impl Exposition {
    fn gauge(&mut self, name: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ =
            writeln!(self.0, "# HELP {name} {}\n# TYPE {name} gauge", help.replace('\\', r"\\").replace('\n', r"\n"));
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: i64) {
        let pairs: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        let labels = if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) };
        // As above.
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn the_value_of_a_label_stays_within_its_quotes() {
        assert_eq!(escaped("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }
}
