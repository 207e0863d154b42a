//! The names that the site's web server answers to, and what it serves there.

use crate::inventory::Inventory;
use crate::names::DomainName;
use crate::platform::{AcmeClient, WebServer};
use crate::policy::rollout::{InForce, in_force};
use crate::site::{Bimi, Domain, Host, Site};
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

    /// Returns the name itself.
    pub fn name(self, domain: &DomainName) -> String {
        format!("{}.{domain}", self.label())
    }
}

/// A domain for which the web server has a name at least.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served<'a> {
    /// The domain.
    pub domain: &'a Domain,
    /// Its policies.
    pub in_force: InForce<'a>,
    /// What its names are for, one at least, sorted.
    pub purposes: Vec<Purpose>,
}

impl Served<'_> {
    /// Returns the names, in the order of their purposes.
    pub fn names(&self) -> impl Iterator<Item = String> {
        self.purposes.iter().map(|purpose| purpose.name(&self.domain.name))
    }

    /// Returns where the host has the domain's certificate, with its chain, and the key; the first name names them. None if the
    /// web server gets certificates by itself, or the host has none.
    pub fn certificate(&self, host: &Host) -> Option<(String, String)> {
        let (web, layout) = (host.web.as_ref()?, &host.platform.layout().web);
        let directory = match &web.certificates {
            Some(directory) => directory.as_str(),
            None if web.server == WebServer::Caddy => return None,
            None => layout.certificates,
        };
        let name = self.names().next()?;
        Some(match layout.acme_client {
            AcmeClient::AcmeClient => {
                (format!("{directory}/{name}.fullchain.pem"), format!("{directory}/private/{name}.key"))
            }
            AcmeClient::Certbot => {
                (format!("{directory}/{name}/fullchain.pem"), format!("{directory}/{name}/privkey.pem"))
            }
        })
    }
}

/// Returns each domain that the web server has a name for, in the order of the site.
pub fn served<'a>(site: &'a Site, inventory: &Inventory) -> Vec<Served<'a>> {
    let served = |domain: &'a Domain| {
        let in_force = in_force(site, inventory, domain);
        let purposes = purposes(site, domain, &in_force);
        (!purposes.is_empty()).then_some(Served { domain, in_force, purposes })
    };
    site.domains.iter().filter_map(served).collect()
}

/// Returns what the site's web server serves for a domain, sorted; nothing if no host has one.
pub fn purposes(site: &Site, domain: &Domain, in_force: &InForce<'_>) -> Vec<Purpose> {
    if site.web_host().is_none() {
        return Vec::new();
    }
    let is_ours = matches!(domain.bimi, Bimi::Logo { base: None, .. });
    let wanted = [
        // A mail program drops settings that name no server to read from.
        (Purpose::Autoconfig, domain.mail && (site.services.imaps || site.services.pop3s)),
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
