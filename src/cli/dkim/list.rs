//! `dkim list`: what signs, since when, and what happens next and when.

use std::collections::BTreeSet;

use camino::Utf8Path;
use serde_json::json;
use time::{Duration, OffsetDateTime};

use super::advance::moment;
use crate::cli::failure::Failure;
use crate::cli::report::{Report, columns};
use crate::cli::session;
use crate::cli::show;
use crate::dkim;
use crate::dkim::rotation;
use crate::env::Env;
use crate::inventory::{DkimKey, DkimState};
use crate::names::{DomainName, HostName};
use crate::site::Site;

/// `dkim list`
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct List {
    /// One domain of the site [default: all]
    #[arg(value_name = "DOMAIN")]
    domain: Option<DomainName>,
}

/// `dkim list`
pub(super) fn list(env: &dyn Env, site: Option<&Utf8Path>, args: &List) -> Result<Report, Failure> {
    let (wanted, store) = session::read(site)?;
    let inventory = store.inventory()?;
    // One that left the settings may have keys still.
    if let Some(domain) = args.domain.as_ref().filter(|domain| inventory.dkim_keys_of(domain).is_empty()) {
        show::known(&wanted.site, domain)?;
    }
    let in_force = store.ledger().dkim_in_force()?;
    let hosts: Vec<&HostName> = wanted.site.hosts.iter().map(|host| &host.name).collect();
    let behind: Vec<&HostName> = hosts.into_iter().filter(|host| !in_force.contains(*host)).collect();
    let keys: Vec<&DkimKey> = match &args.domain {
        Some(domain) => inventory.dkim_keys_of(domain).iter().collect(),
        None => inventory.dkim_keys.iter().collect(),
    };
    let waiting: BTreeSet<_> = keys
        .iter()
        .filter(|key| matches!(key.state, DkimState::Generated | DkimState::Published) && !key.standby)
        .map(|key| (&key.domain, key.algorithm))
        .collect();
    let now = env.now();
    let row = |key: &DkimKey| {
        let is_waited_for = waiting.contains(&(&key.domain, key.algorithm));
        let next = next(key, &wanted.site, is_waited_for, &behind, now);
        vec![key.domain.to_string(), key.selector.to_string(), key.algorithm.as_str().to_owned(), does(key), next]
    };
    let json = keys.iter().map(|key| {
        let is_waited_for = waiting.contains(&(&key.domain, key.algorithm));
        json!({
            "domain": key.domain,
            "selector": key.selector,
            "algorithm": key.algorithm.as_str(),
            "state": key.state.as_str(),
            "since": key.since.unix_timestamp(),
            "standby": key.standby,
            "seen": key.seen.map(OffsetDateTime::unix_timestamp),
            "confirmed": key.confirmed,
            "ttl": key.ttl,
            "negative_ttl": key.negative_ttl,
            "unused": key.unused.map(OffsetDateTime::unix_timestamp),
            "due": rotation::look_at(key).map(OffsetDateTime::unix_timestamp),
            "next": next(key, &wanted.site, is_waited_for, &behind, now),
            "record": dkim::record_text(key),
        })
    });
    let json = json!({ "keys": json.collect::<Vec<_>>(), "behind": behind });
    let text = if keys.is_empty() {
        "no DKIM keys yet; make them: postseal render\n".to_owned()
    } else {
        columns(&keys.iter().map(|key| row(key)).collect::<Vec<_>>())
    };
    Ok(Report::fine(text, json).warn(&wanted.warnings))
}

/// What a key does now.
fn does(key: &DkimKey) -> String {
    let since = key.since.date();
    match key.state {
        DkimState::Generated => format!("made {since}"),
        DkimState::Published if key.standby => format!("standby since {since}"),
        DkimState::Published => format!("published {since}"),
        DkimState::Active => format!("signs since {since}"),
        DkimState::Retiring => format!("signed until {since}"),
        DkimState::Revoked => format!("revoked {since}"),
        DkimState::Destroyed => format!("destroyed {since}"),
    }
}

/// What happens to a key next, and when.
fn next(key: &DkimKey, site: &Site, is_waited_for: bool, behind: &[&HostName], now: OffsetDateTime) -> String {
    let at = |at: OffsetDateTime| if at <= now { "at the next `dkim advance`".to_owned() } else { moment(at) };
    let hosts = || behind.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match (key.state, key.seen) {
        (DkimState::Generated | DkimState::Published, None) => "publish its record on every name server".to_owned(),
        (DkimState::Generated | DkimState::Published, Some(_)) if key.standby => "can sign at once".to_owned(),
        (DkimState::Generated | DkimState::Published, Some(_)) => {
            rotation::ready_at(key).map_or_else(String::new, |ready| format!("signs {}", at(ready)))
        }
        (DkimState::Active, None) => "unconfirmed: publish its record on every name server".to_owned(),
        (DkimState::Active, Some(_)) if !behind.is_empty() && key.since <= now && is_waited_for => {
            "its successor is on its way".to_owned()
        }
        (DkimState::Active, Some(_)) if is_waited_for => "its successor is on its way".to_owned(),
        (DkimState::Active, Some(_)) => site.dkim.rotate_every.map_or_else(
            || "rotated by `dkim rotate`".to_owned(),
            |days| format!("rotated {}", at(rotation::rotation_due(key, Duration::days(days.into())))),
        ),
        (DkimState::Retiring, _) | (DkimState::Revoked, Some(_)) if key.unused.is_none() => {
            format!("install on {}: postseal apply", hosts())
        }
        (DkimState::Retiring, _) => {
            rotation::look_at(key).map_or_else(String::new, |gone| format!("stays published until {}", at(gone)))
        }
        (DkimState::Revoked, None) => "publish its record, which says so, on every name server".to_owned(),
        (DkimState::Revoked, Some(_)) => {
            rotation::look_at(key).map_or_else(String::new, |gone| format!("destroyed {}", at(gone)))
        }
        (DkimState::Destroyed, _) => String::new(),
    }
}
