//! `rollout ...`: the way of domains to their policies.

mod advance;
mod back;
mod judge;
mod list;
mod words;

use camino::Utf8Path;

use crate::cli::failure::Failure;
use crate::cli::report::Report;
use crate::diag::Diagnostic;
use crate::env::Env;
use crate::inventory::{Inventory, Rollout};
use crate::names::HostName;
use crate::policy::rollout::{self, Way};
use crate::site::{Domain, Site};
use crate::stages::Track;

pub(super) use self::advance::{Order, advance_all};
pub(super) use self::words::grouped;

/// `rollout`
#[derive(Debug, clap::Args)]
pub(super) struct Rollouts {
    /// What to do [default: list]
    #[command(subcommand)]
    command: Option<RolloutCommand>,
}

/// `rollout ...`
#[derive(Debug, clap::Subcommand)]
enum RolloutCommand {
    /// Show how far each policy is, what comes next and when, and what is missing for it
    List(list::List),
    /// Do what is due: ask the name servers, look at reports, move on; part of `tick`
    Advance(advance::Advance),
    /// Go one step back, to a milder policy
    Back(back::Back),
}

/// `rollout ...`
pub(super) fn obey(env: &dyn Env, site: Option<&Utf8Path>, rollouts: &Rollouts) -> Result<Report, Failure> {
    match &rollouts.command {
        None => list::list(env, site, &list::List::default()),
        Some(RolloutCommand::List(args)) => list::list(env, site, args),
        Some(RolloutCommand::Advance(args)) => advance::advance(env, site, args),
        Some(RolloutCommand::Back(args)) => back::back(env, site, args),
    }
}

/// Reads a track by its name in the settings.
fn track(text: &str) -> Result<Track, String> {
    let names = || Track::ALL.map(Track::as_str).join(", ");
    Track::ALL.into_iter().find(|track| track.as_str() == text).ok_or_else(|| format!("use one of {}", names()))
}

/// Where the domains of a site stand, without what rollouts have nothing to do with.
struct Standings {
    inventory: Inventory,
    hosts: Vec<HostName>,
}

impl Standings {
    fn new(site: &Site, rollouts: Vec<Rollout>) -> Self {
        Self { inventory: Inventory { rollouts, ..Inventory::default() }, hosts: rollout::hosts_of(site) }
    }

    fn recorded(&self, domain: &Domain, track: Track) -> Option<&Rollout> {
        self.inventory.rollout(&domain.name, track)
    }

    fn way(&self, domain: &Domain, track: Track, now: time::OffsetDateTime) -> Option<Way> {
        Way::new(self.recorded(domain, track), domain, track, &self.hosts, now)
    }
}

/// Warns of what the settings do to policies that senders remember.
pub(super) fn warnings(site: &Site, rollouts: &[Rollout]) -> Vec<Diagnostic> {
    let hosts = rollout::hosts_of(site);
    let remembered = || rollouts.iter().filter(|rollout| rollout.max_age.is_some());
    let gone: Vec<&Rollout> = remembered().filter(|rollout| !site.has_domain(&rollout.domain)).collect();
    let mut found = Vec::new();
    if let Some(first) = gone.first() {
        let whose = first.domain.as_str();
        let more = if gone.len() > 1 { format!(" and {} more", gone.len() - 1) } else { String::new() };
        let message = format!("{whose}{more} left the settings, and senders remember its MTA-STS policy");
        let help =
            "put it back with [domain.rollout] mta_sts = \"off\", and let it go once `postseal rollout` says off";
        found.push(Diagnostic::warning("rollout-domain-gone", message, help));
    }
    let lost = |rollout: &Rollout| {
        let names: Vec<&str> = rollout::lost_hosts(site, rollout).into_iter().map(HostName::as_str).collect();
        names.join(", ")
    };
    let lacking: Vec<(&Rollout, String)> = remembered()
        .filter(|rollout| {
            site.has_domain(&rollout.domain)
                && rollout.change.is_none_or(|change| change.step < crate::inventory::MxStep::Moved)
        })
        .map(|rollout| (rollout, lost(rollout)))
        .filter(|(rollout, names)| !names.is_empty() && !hosts.iter().all(|host| rollout.mx.contains(host)))
        .collect();
    if let Some((first, names)) = lacking.first() {
        let more =
            if lacking.len() > 1 { format!(" (and of {} more domains)", lacking.len() - 1) } else { String::new() };
        let days = first.max_age.unwrap_or_default().div_ceil(86_400);
        let message = format!(
            "the MX records of {}{more} cannot name {names} any more, and senders that remember the MTA-STS policy refuse \
                 other hosts for up to {days} days",
            first.domain
        );
        let help = "put the host back into the settings until MX records have moved: postseal rollout list";
        found.push(Diagnostic::warning("rollout-host-gone", message, help));
    }
    found
}

/// Reads a reason: one line that says something.
fn reason(text: &str) -> Result<String, String> {
    let said = text.trim();
    let is_line = !said.is_empty() && said.len() <= 500 && !said.chars().any(char::is_control);
    if is_line { Ok(said.to_owned()) } else { Err("write one line of at most 500 octets".to_owned()) }
}
