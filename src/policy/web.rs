//! The names that the site's web server answers to, and what it serves there.

use crate::policy::rollout::InForce;
use crate::site::{Bimi, Domain, Site};
use crate::stages::StsStage;

/// What a name of the web server is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// Settings for mail programs: `autoconfig.DOMAIN`.
    Autoconfig,
    /// The logo and its certificate: `bimi.DOMAIN`.
    Bimi,
    /// The MTA-STS policy: `mta-sts.DOMAIN` (RFC 8461 §3.3).
    MtaSts,
}

impl Purpose {
    /// Returns the first label of the name.
    pub fn label(self) -> &'static str {
        match self {
            Self::Autoconfig => "autoconfig",
            Self::Bimi => "bimi",
            Self::MtaSts => "mta-sts",
        }
    }
}

/// Returns what the site's web server serves for a domain, sorted; nothing if no host has one.
pub fn purposes(site: &Site, domain: &Domain, in_force: &InForce<'_>) -> Vec<Purpose> {
    if site.web_host().is_none() {
        return Vec::new();
    }
    let is_ours = matches!(domain.bimi, Bimi::Logo { base: None, .. });
    let wanted = [
        (Purpose::Autoconfig, domain.mail),
        (Purpose::Bimi, is_ours),
        (Purpose::MtaSts, in_force.mta_sts != StsStage::Off),
    ];
    wanted.into_iter().filter(|(_, wanted)| *wanted).map(|(purpose, _)| purpose).collect()
}

/// Returns where a file of the domain's logo lies; none if the settings name no place, and no host has a web server.
pub fn bimi_uri(site: &Site, domain: &Domain, file: &str) -> Option<String> {
    match &domain.bimi {
        Bimi::Logo { base: Some(base), .. } => Some(format!("{base}{file}")),
        Bimi::Logo { base: None, .. } => {
            site.web_host().map(|_| format!("https://{}.{}/{file}", Purpose::Bimi.label(), domain.name))
        }
        Bimi::Declined | Bimi::Unset => None,
    }
}
