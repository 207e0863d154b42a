//! `status`: what expires, what is due, what does not fit together.

use std::collections::BTreeSet;
use std::ffi::OsString;

use camino::{Utf8Path, Utf8PathBuf};
use clap::ValueEnum as _;
use serde_json::json;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use crate::cli::args::{Command, Format};
use crate::cli::failure::{DIFFERS, Failure};
use crate::cli::report::{Report, columns};
use crate::cli::session::{self, Wanted};
use crate::cli::{golden, issuing};
use crate::diag::Diagnostic;
use crate::env::Env;
use crate::inventory::{Inventory, ServerCertificate};
use crate::names::{HostName, Serial, visible};
use crate::notify;
use crate::pki::crl;
use crate::pki::profile::BACKDATED;
use crate::plan;
use crate::site::{CertificateSource, Site};
use crate::status::{
    self, Facts, Finding, Golden, HANDOUT_LIMIT, Kind, Limits, Severity, Survey, ics, nagios, prometheus,
};
use crate::store::{SiteDir, Store, files};
use crate::tree::Tree;

/// `status`
#[derive(Debug, clap::Args)]
pub(super) struct Status {
    /// Warn of what ends within this time, such as 30d, 4w or 12h
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = span)]
    warn: Duration,
    /// What ends within this time is urgent
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = span)]
    critical: Duration,
    /// Show every finding, however many are alike
    #[arg(long)]
    all: bool,
    /// Write into a file, whole or not at all, instead of to standard output
    #[arg(long, value_name = "FILE")]
    output: Option<Utf8PathBuf>,
}

/// The default limits.
pub(super) const LIMITS: Limits = Limits { warn: Duration::days(30), critical: Duration::days(7) };

/// Reads a span of time: a number of hours, days or weeks.
pub(super) fn span(text: &str) -> Result<Duration, String> {
    let wrong = || "write a number with h, d or w, such as 30d".to_owned();
    let unit = text.chars().next_back().ok_or_else(wrong)?;
    let number = text.strip_suffix(unit).filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()));
    let number: u16 = number.and_then(|number| number.parse().ok()).ok_or_else(wrong)?;
    match unit {
        'h' => Ok(Duration::hours(number.into())),
        'd' => Ok(Duration::days(number.into())),
        'w' => Ok(Duration::weeks(number.into())),
        _ => Err(wrong()),
    }
}

/// Refuses a format that only another command has.
pub(super) fn refuse_foreign_format(format: Format, command: &Command) -> Result<(), Failure> {
    let (of_dns, is_there) = match format {
        Format::Human | Format::Json | Format::Github => return Ok(()),
        Format::Nagios | Format::Prometheus | Format::Ics => (false, matches!(command, Command::Status(_))),
        Format::Zone | Format::Table | Format::Octodns | Format::Dnscontrol | Format::Nsupdate => {
            (true, matches!(command, Command::Dns(_)))
        }
    };
    if is_there {
        return Ok(());
    }
    let name = format.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    Err(if of_dns {
        let help = "use human, json or github here, or ask: postseal dns";
        Failure::input("format-of-dns", format!("only `dns` reports as `{name}`"), help)
    } else {
        let help = "use human, json or github here, or ask: postseal status";
        Failure::input("format-of-status", format!("only `status` reports as `{name}`"), help)
    })
}

/// Answers a wrong command line that asked for Nagios as a plug-in does: unknown, not critical.
pub(super) fn usage(env: &dyn Env, typed: &[OsString], error: &clap::Error) -> Option<u8> {
    let asked = typed.windows(2).any(|pair| matches!(pair, [one, other] if one == "--format" && other == "nagios"));
    if !error.use_stderr() || !(asked || typed.iter().any(|word| word == "--format=nagios")) {
        return None;
    }
    let text = error.render().to_string();
    let reason = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
    // That nobody reads it changes nothing.
    let _ = env.print(&nagios::unknown(reason));
    Some(nagios::UNKNOWN)
}

/// `status`
pub(super) fn status(env: &dyn Env, site: Option<&Utf8Path>, args: &Status, format: Format) -> Result<Report, Failure> {
    let looked = look(env, site, Limits { warn: args.warn, critical: args.critical });
    if format == Format::Nagios
        && let Err(failure) = &looked
    {
        let reason = failure.diagnostics().first().map_or("unknown", |diagnostic| diagnostic.message.as_str());
        let report = Report::fine(nagios::unknown(reason), serde_json::Value::Null);
        return Ok(Report { exit_code: nagios::UNKNOWN, ..report });
    }
    let (survey, warnings) = looked?;
    let alarm = survey.findings.iter().any(|finding| finding.due || finding.severity == Severity::Critical);
    let plain = if alarm { DIFFERS } else { 0 };
    let (text, exit_code) = match format {
        Format::Nagios => nagios::write(&survey),
        Format::Prometheus => (prometheus::write(&survey), 0),
        Format::Ics => (ics::write(&survey), 0),
        _ => (human(&survey, args.all), plain),
    };
    let report = Report { exit_code, ..Report::fine(text, to_json(&survey)) };
    let report = if matches!(format, Format::Human | Format::Json | Format::Github) {
        report.warn(&warnings)
    } else {
        // They are written for a program, which nobody looks at.
        report
    };
    match &args.output {
        None => Ok(report),
        Some(file) => write(file, format, report),
    }
}

/// Writes the report into a file, which a collector or a calendar never sees half of, and says nothing: it is done each hour.
fn write(file: &Utf8Path, format: Format, report: Report) -> Result<Report, Failure> {
    let text = match format {
        Format::Json => crate::cli::draw::json_text(&report.json),
        _ => report.text,
    };
    // The exposition names nobody, and is read by another user.
    let mode = if format == Format::Prometheus { 0o644 } else { 0o600 };
    if let Some(directory) = file.parent().filter(|above| !above.as_str().is_empty())
        && !files::exists(directory)?
    {
        let message = format!("`{}` does not exist", visible(directory.as_str()));
        return Err(Failure::input("no-such-file", message, "make the directory, or name another file"));
    }
    files::write_named(file, text.as_bytes(), mode)?;
    Ok(Report { text: String::new(), json: json!({ "output": file.as_str() }), ..report })
}

/// Looks at the site, from the ledger or without one from `postseal.lock`.
pub(super) fn look(
    env: &dyn Env,
    site: Option<&Utf8Path>,
    limits: Limits,
) -> Result<(Survey, Vec<Diagnostic>), Failure> {
    let directory = session::directory(site);
    let wanted = Wanted::read(&directory)?;
    let store = if directory.has_state()? { Some(Store::open(directory.clone())?) } else { None };
    let inventory = match &store {
        Some(store) => store.inventory()?,
        None => directory.locked_inventory()?.ok_or_else(|| {
            let help = "run it where the ledger is, or bring postseal.lock here; or make a site: postseal init DOMAIN";
            Failure::input("no-lock", "there is neither state/ nor postseal.lock", help)
        })?,
    };
    let now = env.now();
    let facts = facts(&wanted, &directory, store.as_ref(), &inventory, now)?;
    Ok((status::survey(&wanted.site, &inventory, &facts, limits, now), wanted.warnings))
}

fn facts(
    wanted: &Wanted,
    directory: &SiteDir,
    store: Option<&Store>,
    inventory: &Inventory,
    now: OffsetDateTime,
) -> Result<Facts, Failure> {
    let mut facts = Facts {
        has_ledger: store.is_some(),
        lock_is_stale: false,
        out_is_stale: false,
        cannot_render: None,
        golden: Golden::Unknown,
        handouts: BTreeSet::new(),
        watched: Vec::new(),
        notices: 0,
        crls_due: BTreeSet::new(),
    };
    match wanted.render(inventory) {
        Ok(tree) => {
            facts.golden = compare_golden(directory, &tree);
            if let Some(store) = store {
                match store.stale_out(&tree) {
                    Ok(stale) => facts.out_is_stale = !stale.is_empty(),
                    Err(error) => facts.cannot_render = Some(visible(&error.to_string())),
                }
            }
        }
        Err(failure) => facts.cannot_render = failure.diagnostics().first().map(|first| visible(&first.message)),
    }
    let Some(store) = store else { return Ok(facts) };
    facts.lock_is_stale = store.lock_is_stale()?;
    for ca in inventory.live_issuing_cas() {
        if crl::is_due(ca, inventory, &issuing::seen(store, ca)?.entries, now) {
            facts.crls_due.insert(ca.serial);
        }
    }
    facts.handouts = old_handouts(store, inventory, now)?;
    for (host, path) in kept_by_others(&wanted.site) {
        let seen = store.ledger().watched(host, Utf8Path::new("/"))?.into_iter();
        facts
            .watched
            .extend(seen.filter(|seen| seen.path == path).map(|seen| (host.clone(), seen.path, seen.not_after)));
    }
    facts.notices = notify::due(&wanted.site, inventory, &store.ledger().notices()?, now).len();
    Ok(facts)
}

fn compare_golden(directory: &SiteDir, tree: &Tree) -> Golden {
    match golden::golden(directory) {
        Ok(None) => Golden::Absent,
        Ok(Some(golden)) if golden == plan::public_files(tree) => Golden::Same,
        // What is wrong with it `diff` tells.
        Ok(Some(_)) | Err(_) => Golden::Differs,
    }
}

/// Returns the certificates whose handout still lies here. Only of those that are old enough to be told of is looked.
fn old_handouts(store: &Store, inventory: &Inventory, now: OffsetDateTime) -> Result<BTreeSet<Serial>, Failure> {
    let mut found = BTreeSet::new();
    let waiting = inventory.client_certificates.iter().filter(|one| one.is_current() && one.handed_over.is_none());
    for one in waiting.filter(|one| now - one.not_before - BACKDATED > HANDOUT_LIMIT) {
        if store.has_handout(&one.address, &one.device)? {
            found.insert(one.serial);
        }
    }
    Ok(found)
}

/// Returns the certificate files that an ACME client keeps, each once.
pub(super) fn kept_by_others(site: &Site) -> BTreeSet<(&HostName, &Utf8Path)> {
    let sources = site.hosts.iter().flat_map(|host| {
        [&host.mx_certificate, &host.submission_certificate].into_iter().map(move |source| (&host.name, source))
    });
    sources
        .filter_map(|(host, source)| match source {
            CertificateSource::Files { certificate, .. } => Some((host, certificate.as_path())),
            CertificateSource::Issued => None,
        })
        .collect()
}

// For people

/// How many alike findings are shown unless all are asked for.
const SHOWN: usize = 5;

/// A subject that is longer does not push all others to the right.
const SUBJECT_WIDTH: usize = 32;

/// Draws a survey: the most urgent first, alike findings together, and of many only the first.
pub(super) fn human(survey: &Survey, all: bool) -> String {
    let mut text = headline(survey);
    for (severity, title) in
        [(Severity::Critical, "urgent"), (Severity::Warning, "to look at"), (Severity::Ok, "good to know")]
    {
        let found: Vec<&Finding> = survey.findings.iter().filter(|finding| finding.severity == severity).collect();
        if found.is_empty() {
            continue;
        }
        text.push_str(&format!("\n{title}\n"));
        for alike in found.chunk_by(|one, other| one.id == other.id) {
            text.push_str(&group(alike, all, survey));
        }
    }
    let rows: Vec<Vec<String>> = Kind::ALL.into_iter().filter_map(|kind| in_use(survey, kind)).collect();
    if !rows.is_empty() {
        text.push_str("\nin use\n");
        text.extend(columns(&rows).lines().map(|line| format!("  {line}\n")));
    }
    text
}

fn headline(survey: &Survey) -> String {
    let count = |severity| survey.findings.iter().filter(|finding| finding.severity == severity).count();
    let due = if survey.is_anything_due() { "; `postseal tick` has something to do" } else { "" };
    match (count(Severity::Critical), count(Severity::Warning)) {
        (0, 0) if due.is_empty() => "all is well\n".to_owned(),
        (0, 0) => "nothing is wrong; `postseal tick` has something to do\n".to_owned(),
        (critical, warning) => format!("{critical} urgent, {warning} to look at{due}\n"),
    }
}

/// Draws findings of one kind, with what mends them.
fn group(alike: &[&Finding], all: bool, survey: &Survey) -> String {
    let few = all || alike.len() <= SHOWN + 1;
    let shown = if few { alike } else { alike.get(..SHOWN).unwrap_or(alike) };
    let width = shown.iter().map(|finding| finding.subject.chars().count()).max().unwrap_or(0).min(SUBJECT_WIDTH);
    let mend = |command: &str| format!("      -> {command}\n");
    let one_mends_all = alike.iter().all(|finding| finding.mend == alike.first().and_then(|first| first.mend.clone()));
    let mut text = String::new();
    for finding in shown {
        text.push_str(&format!("  {:width$}  {}\n", finding.subject, finding.text));
        if let Some(command) = finding.mend.as_deref().filter(|_| few && !one_mends_all) {
            text.push_str(&mend(command));
        }
    }
    if !few {
        let last = alike.iter().filter_map(|finding| finding.moment).max();
        let until = last.map_or_else(String::new, |last| format!(", the last on {}", last.date()));
        text.push_str(&format!("  ... and {} more{until}; --all shows them\n", alike.len() - shown.len()));
    }
    if let Some(command) = alike.first().and_then(|first| first.mend.as_deref()).filter(|_| !few || one_mends_all) {
        let whole = match shown.first() {
            Some(first) if first.id == "client-certificate-expires" && alike.len() > 1 => {
                format!("postseal user renew --expiring {}d", survey.limits.warn.whole_days())
            }
            _ if one_mends_all => command.to_owned(),
            _ => format!("{command} (and so for each)"),
        };
        text.push_str(&mend(&whole));
    }
    text
}

fn in_use(survey: &Survey, kind: Kind) -> Option<Vec<String>> {
    let soonest = survey.soonest(kind)?.at.date();
    let count = survey.expiries.iter().filter(|expiry| expiry.kind == kind).count();
    Some(match count {
        1 => vec![kind.noun().to_owned(), format!("until {soonest}")],
        _ => vec![format!("{}s", kind.noun()), format!("{count}, the first until {soonest}")],
    })
}

// For programs

fn to_json(survey: &Survey) -> serde_json::Value {
    let moment = |at: OffsetDateTime| at.format(&Rfc3339).ok();
    let finding = |finding: &Finding| {
        json!({
            "id": finding.id,
            "severity": finding.severity.as_str(),
            "due": finding.due,
            "subject": finding.subject,
            "moment": finding.moment.and_then(moment),
            "text": finding.text,
            "mend": finding.mend,
        })
    };
    let expiry = |expiry: &status::Expiry| json!({ "kind": expiry.kind.as_str(), "subject": expiry.subject, "id": expiry.id, "ends": moment(expiry.at) });
    json!({
        "status": survey.worst().as_str(),
        "due": survey.is_anything_due(),
        "checked": moment(survey.now),
        "findings": survey.findings.iter().map(finding).collect::<Vec<_>>(),
        "expiries": survey.expiries.iter().map(expiry).collect::<Vec<_>>(),
    })
}

/// The server certificates that `tick` renews.
pub(super) fn due_servers<'a>(
    site: &'a Site,
    inventory: &'a Inventory,
    now: OffsetDateTime,
) -> impl Iterator<Item = &'a ServerCertificate> {
    let needed = |host: &HostName| site.hosts.iter().any(|it| it.name == *host && it.needs_issued_certificate());
    let servers = inventory.server_certificates.iter();
    servers.filter(move |server| needed(&server.host) && status::server_is_due(server, now))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survey(count: usize) -> Survey {
        let now = time::macros::datetime!(2026-11-24 12:00 UTC);
        let finding = |n: usize| Finding {
            id: "client-certificate-expires",
            severity: Severity::Warning,
            due: false,
            subject: format!("user{n}@example.com"),
            moment: Some(now + Duration::days(9)),
            text: "ends".to_owned(),
            mend: Some(format!("postseal user renew user{n}@example.com")),
        };
        let counts = status::Counts::default();
        Survey { now, findings: (0..count).map(finding).collect(), expiries: Vec::new(), counts, limits: LIMITS }
    }

    #[test]
    fn ten_thousand_users_are_summed_up_unless_all_are_asked_for() {
        let text = human(&survey(10_000), false);
        assert_eq!(text.lines().count(), 10, "{text}");
        assert!(text.contains("  ... and 9995 more, the last on 2026-12-03; --all shows them\n"), "{text}");
        assert!(text.contains("-> postseal user renew --expiring 30d\n"), "{text}");
        assert_eq!(human(&survey(10_000), true).matches(" ends\n").count(), 10_000);
    }

    #[test]
    fn as_many_as_fit_are_shown_with_what_mends_each() {
        let text = human(&survey(6), false);
        assert_eq!(text.matches("-> postseal user renew user").count(), 6, "{text}");
        assert!(!text.contains("--all"), "{text}");
    }

    #[test]
    fn a_span_is_a_number_with_its_unit() {
        assert_eq!(span("30d"), Ok(Duration::days(30)));
        assert_eq!((span("2w"), span("12h")), (Ok(Duration::days(14)), Ok(Duration::hours(12))));
        for wrong in ["", "d", "30", "-1d", "+1d", "1.5d", "30 d", "30m", "99999d", "1ä", "\u{0663}d"] {
            assert!(span(wrong).is_err(), "{wrong}");
        }
    }
}
