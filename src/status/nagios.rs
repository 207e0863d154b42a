//! A survey as a plug-in of Nagios, Icinga or Naemon says it: one line with performance data, and an exit code
//! (Monitoring Plugins Development Guidelines).

use super::{Kind, Severity, Survey};
use crate::names::visible;

/// The exit code for what cannot be told.
pub const UNKNOWN: u8 = 3;

/// Returns the line and the exit code.
pub fn write(survey: &Survey) -> (String, u8) {
    let (word, code) = match survey.worst() {
        Severity::Ok => ("OK", 0),
        Severity::Warning => ("WARNING", 1),
        Severity::Critical => ("CRITICAL", 2),
    };
    let count = |severity| survey.findings.iter().filter(|finding| finding.severity == severity).count();
    let (critical, warning) = (count(Severity::Critical), count(Severity::Warning));
    let first = survey.findings.iter().find(|finding| finding.severity > Severity::Ok || finding.due);
    let text = match first {
        None => "nothing is due".to_owned(),
        Some(finding) => format!("{}: {}", finding.subject, finding.text),
    };
    let more = (critical + warning).saturating_sub(1);
    let more = if more == 0 { String::new() } else { format!(" (and {more} more)") };
    let mut data = vec![format!("critical={critical};;0"), format!("warning={warning};0;")];
    for kind in Kind::ALL {
        if let Some(expiry) = survey.soonest(kind) {
            let days = (expiry.at - survey.now).whole_days();
            // A range `N:` alerts below N.
            let (warn, urgent) = (survey.limits.warn.whole_days(), survey.limits.critical.whole_days());
            let limits = if kind == Kind::Crl { ";0:".to_owned() } else { format!("{warn}:;{urgent}:") };
            data.push(format!("{}_days={days};{limits}", kind.as_str()));
        }
    }
    (format!("POSTSEAL {word} - {} | {}\n", plain(&format!("{text}{more}")), data.join(" ")), code)
}

/// Returns the line that says why nothing can be told.
pub fn unknown(reason: &str) -> String {
    format!("POSTSEAL UNKNOWN - {}\n", plain(reason))
}

/// A bar would begin the performance data, and a line end the long output.
fn plain(text: &str) -> String {
    visible(text).replace('|', "/")
}
