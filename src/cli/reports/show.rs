//! `reports show`: what the recorded reports tell.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use camino::Utf8Path;
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use crate::cli::args::days;
use crate::cli::dkim::moment;
use crate::cli::failure::Failure;
use crate::cli::report::{Report, columns};
use crate::cli::session;
use crate::cli::show;
use crate::env::Env;
use crate::names::{DomainName, HostName};
use crate::policy::evidence::{DmarcEvidence, DmarcSource, TlsEvidence};
use crate::site::Site;
use crate::store::Store;
use crate::store::ledger::ReportSums;

/// `reports show`
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Show {
    /// One domain of the site, with the senders [default: the sums of all domains]
    #[arg(value_name = "DOMAIN")]
    domain: Option<DomainName>,
    /// Reports whose span ends within so many days, such as 30d or 4w
    #[arg(long, value_name = "DAYS", value_parser = days, default_value = "30d")]
    days: u16,
    /// Every sender, and every kind of failure [default: the first ten]
    #[arg(long, requires = "domain")]
    all: bool,
}

const FIRST: usize = 10;

/// `reports show`
pub(super) fn show(env: &dyn Env, site: Option<&Utf8Path>, args: &Show) -> Result<Report, Failure> {
    let (wanted, store) = session::read(site)?;
    let since = env.now() - Duration::days(args.days.into());
    let (text, json) = match &args.domain {
        Some(domain) => {
            show::known(&wanted.site, domain)?;
            of_domain(&wanted.site, &store, domain, args, since)?
        }
        None => of_all(&wanted.site, &store, args, since)?,
    };
    Ok(Report { foreign: true, ..Report::fine(text, json) }.warn(&wanted.warnings))
}

/// The sums of each domain.
fn of_all(site: &Site, store: &Store, args: &Show, since: OffsetDateTime) -> Result<(String, Value), Failure> {
    let sums = |kind| -> Result<BTreeMap<DomainName, ReportSums>, Failure> {
        let sums = store.ledger().report_sums(kind, since)?.into_iter();
        Ok(sums.filter(|sums| site.has_domain(&sums.domain)).map(|sums| (sums.domain.clone(), sums)).collect())
    };
    let (dmarc, tls) = (sums("dmarc")?, sums("tls")?);
    let domains: BTreeSet<&DomainName> = dmarc.keys().chain(tls.keys()).collect();
    let silent = site.domains.len() - domains.len();
    let line = |domain: &&DomainName| {
        let cells = |sums: Option<&ReportSums>| match sums {
            Some(sums) => [sums.reports.to_string(), sums.all.to_string(), share(sums.passed, sums.all)],
            None => ["0".to_owned(), "-".to_owned(), "-".to_owned()],
        };
        let (dmarc, tls) = (cells(dmarc.get(*domain)), cells(tls.get(*domain)));
        std::iter::once(domain.to_string()).chain(dmarc).chain(tls).collect()
    };
    let mut rows: Vec<Vec<String>> = vec![
        ["domain", "DMARC reports", "messages", "pass", "TLS reports", "sessions", "succeed"].map(str::to_owned).into(),
    ];
    rows.extend(domains.iter().map(line));
    let json = domains.iter().map(|domain| {
        let of = |sums: Option<&ReportSums>| {
            sums.map(|sums| {
                let newest = sums.newest.unix_timestamp();
                json!({ "reports": sums.reports, "newest": newest, "all": sums.all, "passed": sums.passed })
            })
        };
        json!({ "domain": domain, "dmarc": of(dmarc.get(*domain)), "tls": of(tls.get(*domain)) })
    });
    let json = json!({ "since": since.unix_timestamp(), "domains": json.collect::<Vec<_>>(), "silent": silent });
    if domains.is_empty() {
        let text =
            format!("no reports of the last {} days; read those that came: postseal reports import PATH\n", args.days);
        return Ok((text, json));
    }
    let rest =
        if silent > 0 { format!("no reports of {silent} of {} domains\n", site.domains.len()) } else { String::new() };
    Ok((format!("{}{rest}", columns(&rows)), json))
}

/// All of one domain.
fn of_domain(
    site: &Site,
    store: &Store,
    domain: &DomainName,
    args: &Show,
    since: OffsetDateTime,
) -> Result<(String, Value), Failure> {
    let ledger = store.ledger();
    let (dmarc, tls) = (ledger.dmarc_evidence(domain, since)?, ledger.tls_evidence(domain, since)?);
    let (dmarc_by, tls_by) = (ledger.reporters("dmarc", domain, since)?, ledger.reporters("tls", domain, since)?);
    let ours: BTreeMap<IpAddr, &HostName> =
        site.hosts.iter().flat_map(|host| host.addresses.iter().map(|address| (*address, &host.name))).collect();
    let most = if args.all { usize::MAX } else { FIRST };
    let mut text = format!("{domain}, reports of the last {} days\n\n", args.days);
    text.push_str(&head("DMARC", dmarc.reports, dmarc.newest, &dmarc_by));
    if dmarc.reports > 0 {
        text.push_str(&dmarc_text(domain, &dmarc, &ours, most));
    }
    text.push('\n');
    text.push_str(&head("TLS", tls.reports, tls.newest, &tls_by));
    if tls.reports > 0 {
        text.push_str(&tls_text(&tls, most));
    }
    let reporters = |list: &[(String, u64)]| -> Vec<Value> {
        list.iter().map(|(name, reports)| json!({ "name": name, "reports": reports })).collect()
    };
    let (messages, failed) = dmarc.messages();
    let json = json!({
        "domain": domain,
        "since": since.unix_timestamp(),
        "dmarc": {
            "reports": dmarc.reports,
            "newest": dmarc.newest.map(OffsetDateTime::unix_timestamp),
            "reporters": reporters(&dmarc_by),
            "messages": messages,
            "failed": failed,
            "sources": dmarc.sources.iter().map(|source| source_json(source, &ours)).collect::<Vec<_>>(),
        },
        "tls": {
            "reports": tls.reports,
            "newest": tls.newest.map(OffsetDateTime::unix_timestamp),
            "reporters": reporters(&tls_by),
            "successful": tls.successful,
            "failed": tls.failed,
            "failures": tls.failures.iter().map(|(result, mx, sessions)| {
                json!({ "result": result, "mx": mx, "sessions": sessions })
            }).collect::<Vec<_>>(),
        },
    });
    Ok((text, json))
}

fn head(kind: &str, reports: u64, newest: Option<OffsetDateTime>, by: &[(String, u64)]) -> String {
    let Some(newest) = newest else { return format!("{kind}: no reports\n") };
    let named = by.iter().take(FIRST).map(|(name, reports)| format!("{name} ({reports})"));
    let more = if by.len() > FIRST { format!(" and {} more", by.len() - FIRST) } else { String::new() };
    let named = named.collect::<Vec<_>>().join(", ");
    let reports = if reports == 1 { "1 report".to_owned() } else { format!("{reports} reports") };
    format!("{kind}: {reports}, the newest until {}\n  from {named}{more}\n", moment(newest))
}

fn dmarc_text(domain: &DomainName, dmarc: &DmarcEvidence, ours: &BTreeMap<IpAddr, &HostName>, most: usize) -> String {
    let (messages, failed) = dmarc.messages();
    let passed = share(messages.saturating_sub(failed), messages);
    let mut text = format!(
        "  messages: {messages}; {passed} pass, {failed} would be quarantined or rejected where the policy says so\n"
    );
    let mut rows: Vec<Vec<String>> =
        vec![["  messages", "DKIM", "SPF", "fail", "sender", ""].map(str::to_owned).into()];
    rows.extend(dmarc.sources.iter().take(most).map(|source| {
        let who = if source.address.is_unspecified() { "(not told)".to_owned() } else { source.address.to_string() };
        let host = ours.get(&source.address).map(|host| format!("your {host}"));
        let from = (source.from != *domain).then(|| format!("as {}", source.from));
        vec![
            format!("  {}", source.messages),
            source.dkim.to_string(),
            source.spf.to_string(),
            source.failed().to_string(),
            who,
            host.into_iter().chain(from).collect::<Vec<_>>().join(", "),
        ]
    }));
    text.push_str(&columns(&rows));
    text.push_str(&more(dmarc.sources.len(), most, "senders"));
    text
}

fn tls_text(tls: &TlsEvidence, most: usize) -> String {
    let all = tls.successful.saturating_add(tls.failed);
    let mut text = format!("  sessions: {all}; {} succeed, {} failed\n", share(tls.successful, all), tls.failed);
    let row = |(result, mx, sessions): &(String, Option<String>, u64)| {
        vec![format!("  {sessions}"), result.clone(), mx.clone().unwrap_or_default()]
    };
    text.push_str(&columns(&tls.failures.iter().take(most).map(row).collect::<Vec<_>>()));
    text.push_str(&more(tls.failures.len(), most, "kinds of failures"));
    text
}

fn more(all: usize, most: usize, what: &str) -> String {
    if all > most { format!("  and {} more {what}: --all\n", all - most) } else { String::new() }
}

fn source_json(source: &DmarcSource, ours: &BTreeMap<IpAddr, &HostName>) -> Value {
    json!({
        "address": source.address,
        "host": ours.get(&source.address),
        "from": source.from,
        "messages": source.messages,
        "dkim": source.dkim,
        "spf": source.spf,
        "passed": source.passed,
        "failed": source.failed(),
    })
}

/// Returns a part of a whole in per cent, rounded down, so that 100 % is all of it.
fn share(part: u64, whole: u64) -> String {
    match u128::from(part).saturating_mul(1000).checked_div(u128::from(whole)) {
        Some(share) => format!("{}.{} %", share / 10, share % 10),
        None => "-".to_owned(),
    }
}
