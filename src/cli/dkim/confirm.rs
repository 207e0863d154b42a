//! `dkim confirm`: an administrator's word for what postseal cannot see.

use camino::Utf8Path;
use serde_json::json;

use super::{KeyName, Named, find};
use crate::cli::failure::Failure;
use crate::cli::host::the_host;
use crate::cli::report::Report;
use crate::cli::session;
use crate::dkim;
use crate::env::Env;
use crate::names::HostName;
use crate::store::Writer;

/// `dkim confirm`
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Confirm {
    /// The keys whose records every name server has: selectors, or names such as 202611r._domainkey.example.com
    #[arg(value_name = "KEY", required_unless_present = "in_force")]
    keys: Vec<KeyName>,
    /// Every host, or that of --host, was installed as it is rendered now, and its Rspamd signs so
    #[arg(long, conflicts_with = "keys")]
    in_force: bool,
    /// The one host that --in-force is about
    #[arg(long, value_name = "NAME", requires = "in_force", conflicts_with = "keys")]
    host: Option<HostName>,
}

/// `dkim confirm`
pub(super) fn confirm(env: &dyn Env, site: Option<&Utf8Path>, args: &Confirm) -> Result<Report, Failure> {
    if args.in_force {
        return in_force(env, site, args.host.as_ref());
    }
    let (wanted, mut store) = session::write(env, site)?;
    let named = args.keys.iter().map(|name| find(&store, name)).collect::<Result<Vec<Named>, Failure>>()?;
    let now = env.now();
    store.transact(|ledger| {
        for key in &named {
            let mut line = ledger.dkim_line(&key.domain, key.algorithm)?;
            line.confirm(&key.selector, now).map_err(|error| {
                let help = "see what each key waits for: postseal dkim list";
                Failure::input("dkim-nothing-to-confirm", format!("{}: {error}", key.domain), help)
            })?;
            ledger.save_dkim_line(&line)?;
            ledger.record_event(now, "dkim-key-confirmed", &key.record(), &json!({}))?;
        }
        Ok::<_, Failure>(())
    })?;
    session::refresh(&wanted, &store).map_err(|failure| failure.after("the confirmation is recorded"))?;
    let line = |key: &Named| format!("{} is taken to be on every name server\n", key.record());
    let json = json!({ "confirmed": named.iter().map(Named::record).collect::<Vec<_>>() });
    Ok(Report::fine(named.iter().map(line).collect(), json).done("the confirmation is recorded"))
}

fn in_force(env: &dyn Env, site: Option<&Utf8Path>, host: Option<&HostName>) -> Result<Report, Failure> {
    let (wanted, mut store) = session::write(env, site)?;
    if store.ledger().derived_is_stale()? {
        // What was installed so far cannot be what the ledger says.
        session::refresh(&wanted, &store)?;
        let help = "install out/ now, then run the same command again";
        return Err(Failure::input(
            "dkim-not-rendered",
            "out/ was older than what is recorded, until this moment",
            help,
        ));
    }
    let all: Vec<HostName> = wanted.site.hosts.iter().map(|host| host.name.clone()).collect();
    let hosts = match host {
        Some(name) => vec![the_host(&wanted.site, Some(name))?.name.clone()],
        None => all.clone(),
    };
    let mut unused = Vec::new();
    for host in &hosts {
        unused.extend(record_in_force(env, &mut store, host, &all, "confirmed")?);
    }
    let taken = hosts.iter().map(|host| format!("{host} is taken to sign as it is rendered now"));
    let left = unused.iter().map(|name| format!("{name} is used no more; its record stays for a while"));
    let text = taken.chain(left).fold(String::new(), |text, line| text + &line + "\n");
    let json = json!({ "hosts": hosts, "unused": unused });
    Ok(Report::fine(text, json).done("the confirmation is recorded"))
}

/// Records that a host signs with what is recorded now. Returns the record names of the keys that no host uses any more.
pub(in crate::cli) fn record_in_force(
    env: &dyn Env,
    store: &mut Writer,
    host: &HostName,
    hosts: &[HostName],
    how: &str,
) -> Result<Vec<String>, Failure> {
    // What a host signed until a moment ago is not counted from earlier, whatever the clock says now.
    let now = store.ledger().newest_event()?.map_or(env.now(), |newest| newest.max(env.now()));
    let change = store.ledger().dkim_change()?;
    store.transact(|ledger| {
        let unused = ledger.set_dkim_in_force(host, change, hosts, now)?;
        let unused: Vec<String> = unused.iter().map(|(domain, selector)| dkim::record_name(selector, domain)).collect();
        ledger.record_event(now, "dkim-in-force", host.as_str(), &json!({ "how": how, "unused": unused }))?;
        Ok::<_, Failure>(unused)
    })
}
