//! `dkim revoke`: a key that others may have is worth nothing from now on.

use camino::Utf8Path;
use serde_json::json;

use super::keys::{self, Order};
use super::{KeyName, find};
use crate::cli::failure::Failure;
use crate::cli::report::Report;
use crate::cli::session;
use crate::dkim::rotation::Purpose;
use crate::env::Env;
use crate::inventory::DkimState;

/// `dkim revoke`
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Revoke {
    /// The key: its selector, or a name such as 202611r._domainkey.example.com
    #[arg(value_name = "KEY")]
    key: KeyName,
}

/// `dkim revoke`
pub(super) fn revoke(env: &dyn Env, site: Option<&Utf8Path>, args: &Revoke) -> Result<Report, Failure> {
    let (wanted, mut store) = session::write(env, site)?;
    let named = find(&store, &args.key)?;
    let (domain, algorithm) = (&named.domain, named.algorithm);
    let now = env.now();
    let line = store.ledger().dkim_line(domain, algorithm)?;
    let signs = line.active().is_some_and(|active| active.selector == named.selector);
    // Made before anything is recorded: no moment passes in which the ledger has a revoked key and nothing in its place.
    let spare = if signs && line.successor(now).is_none() {
        let order = Order { domain: domain.clone(), algorithm, purpose: Purpose::Rotation };
        Some(keys::new_key(env, &store, &order)?)
    } else {
        None
    };
    let successor = store.transact(|ledger| {
        let mut line = ledger.dkim_line(domain, algorithm)?;
        let successor = line.compromise(&named.selector, now).map_err(|error| {
            Failure::input("dkim-key-revoked", format!("{domain}: {error}"), "see the keys: postseal dkim list")
        })?;
        ledger.save_dkim_line(&line)?;
        let successor = match &spare {
            Some(key) => Some(keys::record(ledger, key.clone(), Purpose::Rotation, now)?.selector),
            None => successor,
        };
        ledger.record_event(now, "dkim-key-compromised", &named.record(), &json!({ "successor": successor }))?;
        ledger.set_derived_stale()?;
        Ok::<_, Failure>(successor)
    })?;
    let recorded = format!("the revocation of {} is recorded", named.record());
    super::advance::refresh_if_stale(&wanted, &store).map_err(|failure| failure.after(&recorded))?;
    let line = store.ledger().dkim_line(domain, algorithm)?;
    let successor = successor.and_then(|selector| line.key(&selector).cloned());
    let zone = session::shown(&store, &format!("out/dns/{domain}.zone"));
    let mut text = format!("revoked {}\n", named.record());
    if let Some(key) = &successor {
        text.push_str(&format!("{} signs in its place\n", key.selector));
    }
    text.push_str(&format!("publish the records of {domain} at once: {zone}\n"));
    // A host may sign with it until it is installed anew, be it that its turn was over.
    let install = line.key(&named.selector).is_some_and(|key| key.unused.is_none());
    if install {
        text.push_str("then install: postseal apply\n");
    }
    if let Some(key) = successor.iter().find(|key| key.state == DkimState::Active && key.seen.is_none()) {
        text.push_str(&format!(
            "nobody can verify what {} signs before its record is on the name servers: postseal dkim advance looks\n",
            key.selector
        ));
    }
    let json = json!({
        "revoked": named.record(),
        "successor": successor.as_ref().map(|key| key.selector.as_str()),
        "successor_seen": successor.as_ref().is_some_and(|key| key.seen.is_some()),
        "publish": [domain],
        "install": install,
    });
    Ok(Report::fine(text, json).warn(&wanted.warnings).done(recorded))
}
