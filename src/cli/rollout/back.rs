//! `rollout back`: one step milder.

use camino::Utf8Path;
use serde_json::json;

use super::Standings;
use crate::cli::failure::Failure;
use crate::cli::report::Report;
use crate::cli::{session, show};
use crate::env::Env;
use crate::names::DomainName;
use crate::policy::rollout::Step;
use crate::policy::words;
use crate::stages::Track;

/// `rollout back`
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Back {
    /// The domain
    #[arg(value_name = "DOMAIN")]
    domain: DomainName,
    /// Which policy: dmarc, mta_sts or spf
    #[arg(long, value_name = "TRACK", value_parser = super::track)]
    track: Track,
}

/// `rollout back`
pub(super) fn back(env: &dyn Env, site: Option<&Utf8Path>, args: &Back) -> Result<Report, Failure> {
    let (wanted, mut store) = session::write(env, site)?;
    show::known(&wanted.site, &args.domain)?;
    let now = env.now();
    let standings = Standings::new(&wanted.site, store.ledger().rollouts()?);
    let domain = wanted.site.domain(&args.domain);
    let way = domain.and_then(|domain| standings.way(domain, args.track, now));
    let before = way.as_ref().map(|way| way.rollout().stage);
    let moved = way.and_then(|mut way| way.back(now).map(|stage| (way, stage)));
    let (Some((way, stage)), Some(before)) = (moved, before) else {
        let message = format!("{} of {} cannot go back", words::called(args.track), args.domain);
        let help = match args.track {
            Track::MtaSts => {
                "to take it away, write mta_sts = \"off\" into [domain.rollout], then: postseal rollout advance"
            }
            Track::Dmarc | Track::Spf => "see where it stands, and whether the settings fix it: postseal rollout list",
        };
        return Err(Failure::input("rollout-no-way-back", message, help));
    };
    store.transact(|ledger| {
        ledger.save_rollout(way.rollout())?;
        let detail =
            json!({ "track": args.track.as_str(), "step": "back", "from": before.as_str(), "to": stage.as_str() });
        ledger.record_event(now, "rollout-moved", args.domain.as_str(), &detail)?;
        ledger.set_derived_stale()
    })?;
    let recorded = format!("{} of {} is back at {}", words::called(args.track), args.domain, words::stage(stage));
    session::refresh(&wanted, &store).map_err(|failure| failure.after(&recorded))?;
    let zone = session::shown(&store, &format!("out/dns/{}.zone", args.domain));
    let mut text = format!("{}: {} now\n", args.domain, words::step(&Step::Stage(stage)));
    if args.track == Track::MtaSts {
        text.push_str("install its policy first: postseal apply\n");
    }
    text.push_str(&format!(
        "publish the records of {}: {zone}\nit goes on from there after the wait; to stay, change the aim in [domain.rollout]\n",
        args.domain
    ));
    let json = json!({
        "domain": args.domain, "track": args.track.as_str(), "from": before.as_str(), "to": stage.as_str(),
        "publish": [args.domain], "install": args.track == Track::MtaSts,
    });
    Ok(Report::fine(text, json).warn(&wanted.warnings).done(recorded))
}
