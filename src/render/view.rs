//! What templates see: lists and words, sorted and worded here, so that a template decides layout and nothing else. No map
//! is ever iterated, for Tera goes through one in random order.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::dkim;
use crate::inventory::{DkimAlgorithm, DkimKey, DkimState, Inventory};
use crate::names::{DomainName, MailAddress};
use crate::platform::Layout;
use crate::site::{Accounts, CertificateSource, Delivery, Domain, Host, Signing, Site, SmtpdConf};

/// What the templates of public files see of one host.
#[derive(Debug, Serialize)]
pub(super) struct Public {
    host: String,
    fragment: bool,
    listen: Vec<String>,
    mx: CertificateFiles,
    submission: CertificateFiles,
    trust_list: String,
    tables: Tables,
    postmaster: String,
    host_postmaster: String,
    filter: Filter,
    delivery: DeliveryWords,
    domains: Vec<String>,
    forwards: bool,
    signers: Vec<Signer>,
    map: Option<SelectorMap>,
    sealers: Vec<Sealer>,
    sockets: Sockets,
}

/// Where one certificate and its key lie on the host.
#[derive(Debug, Serialize)]
struct CertificateFiles {
    certificate: String,
    key: String,
}

/// The tables of OpenSMTPD as it names them, `kind:path`.
#[derive(Debug, Serialize)]
struct Tables {
    credentials: String,
    senders: String,
    mailboxes: String,
    domains: String,
}

/// The filter's command line, and as whom it runs.
#[derive(Debug, Serialize)]
struct Filter {
    command: String,
    user: &'static str,
    group: &'static str,
}

/// The LMTP socket, or the pattern of the Maildirs' paths.
#[derive(Debug, Serialize)]
struct DeliveryWords {
    lmtp: Option<String>,
    maildir: Option<String>,
}

/// A domain that DKIM signs for.
#[derive(Debug, Serialize)]
struct Signer {
    domain: String,
    keys: Vec<SigningKey>,
}

/// A key that signs.
#[derive(Debug, Serialize)]
struct SigningKey {
    selector: String,
    path: String,
}

/// A domain whose forwarded mail is sealed by ARC.
#[derive(Debug, Serialize)]
struct Sealer {
    domain: String,
    selector: String,
    path: String,
}

/// Where Rspamd finds the selector of a domain, and the key's file.
#[derive(Debug, Serialize)]
struct SelectorMap {
    file: String,
    path: String,
}

/// Where Rspamd's workers listen, as Rspamd writes it.
#[derive(Debug, Serialize)]
struct Sockets {
    normal: String,
    controller: String,
}

impl Public {
    /// Makes the view; `issued` names the issued certificate's files without their extension.
    pub(super) fn new(site: &Site, inventory: &Inventory, host: &Host, issued: &str) -> Self {
        let layout = host.platform.layout();
        let socket = format!("{}/normal.sock", layout.rspamd_run);
        let own = || site.mail_domains().find(|domain| domain.alias_of.is_none());
        let domain = site.domain_of(&host.name).filter(|domain| domain.mail).or_else(own);
        Self {
            host: host.name.to_string(),
            fragment: host.smtpd_conf == SmtpdConf::Fragments,
            listen: host.listen.iter().map(ToString::to_string).collect(),
            mx: CertificateFiles::new(&host.mx_certificate, issued),
            submission: CertificateFiles::new(&host.submission_certificate, issued),
            trust_list: format!("{}/clients.pem", layout.smtpd_dir),
            tables: Tables::new(&site.accounts, layout),
            postmaster: domain.map_or_else(String::new, |domain| format!("postmaster@{}", domain.name)),
            host_postmaster: format!("postmaster@{}", host.name),
            filter: Filter {
                command: format!("filter-rspamd -url {socket}"),
                user: layout.smtpd_user,
                group: layout.rspamd_group,
            },
            delivery: DeliveryWords::new(&site.delivery, layout),
            domains: site.mail_domains().map(|domain| domain.name.to_string()).collect(),
            forwards: site.forwards(),
            signers: site.domains.iter().filter_map(|domain| Signer::new(inventory, domain, layout)).collect(),
            map: (site.dkim.signing == Signing::SelectorMap).then(|| SelectorMap::new(layout)),
            sealers: site.domains.iter().filter_map(|domain| Sealer::new(inventory, domain, layout)).collect(),
            sockets: Sockets::new(layout, &socket),
        }
    }
}

impl CertificateFiles {
    fn new(source: &CertificateSource, issued: &str) -> Self {
        match source {
            CertificateSource::Files { certificate, key } => {
                Self { certificate: certificate.to_string(), key: key.to_string() }
            }
            CertificateSource::Issued => Self { certificate: format!("{issued}.pem"), key: format!("{issued}.key") },
        }
    }
}

impl Tables {
    fn new(accounts: &Accounts, layout: &Layout) -> Self {
        let file = |name: &str| format!("file:{}/{name}", layout.smtpd_dir);
        let credentials = match accounts {
            Accounts::External { kind, path } => format!("{}:{path}", kind.as_str()),
            Accounts::Managed => file("credentials"),
        };
        Self { credentials, senders: file("senders"), mailboxes: file("mailboxes"), domains: file("domains") }
    }
}

impl DeliveryWords {
    fn new(delivery: &Delivery, layout: &Layout) -> Self {
        match delivery {
            Delivery::Lmtp { socket } => {
                let socket = socket.as_ref().map_or(layout.lmtp_socket, |socket| socket.as_str());
                Self { lmtp: Some(socket.to_owned()), maildir: None }
            }
            Delivery::Maildir { path } => {
                let path = path.as_ref().map_or(layout.mailbox_dir, |path| path.as_str());
                // `dest` is the mailbox that aliases lead to; its case and a +tag must not make another Maildir.
                let pattern = format!("{path}/%{{dest.domain:lowercase}}/%{{dest.user:lowercase|strip}}");
                Self { lmtp: None, maildir: Some(pattern) }
            }
        }
    }
}

/// Returns the keys that sign for a domain, by the algorithms that the settings want.
fn active_keys<'a>(inventory: &'a Inventory, domain: &'a Domain) -> impl Iterator<Item = &'a DkimKey> {
    let keys = inventory.dkim_keys_of(&domain.name).iter();
    keys.filter(|key| key.state == DkimState::Active && domain.dkim.contains(&key.algorithm))
}

impl Signer {
    fn new(inventory: &Inventory, domain: &Domain, layout: &Layout) -> Option<Self> {
        let keys: Vec<_> = active_keys(inventory, domain)
            .map(|key| SigningKey { selector: key.selector.to_string(), path: dkim::key_path(layout, key) })
            .collect();
        (!keys.is_empty()).then(|| Self { domain: domain.name.to_string(), keys })
    }
}

impl Sealer {
    fn new(inventory: &Inventory, domain: &Domain, layout: &Layout) -> Option<Self> {
        let key = active_keys(inventory, domain).find(|key| key.algorithm == DkimAlgorithm::Rsa)?;
        Some(Self {
            domain: domain.name.to_string(),
            selector: key.selector.to_string(),
            path: dkim::key_path(layout, key),
        })
    }
}

impl SelectorMap {
    fn new(layout: &Layout) -> Self {
        Self { file: dkim::selector_map(layout), path: dkim::key_pattern(layout) }
    }
}

impl Sockets {
    fn new(layout: &Layout, normal: &str) -> Self {
        let owner = format!("owner={} group={}", layout.rspamd_user, layout.rspamd_group);
        Self {
            normal: format!("{normal} mode=0660 {owner}"),
            controller: format!("{}/controller.sock mode=0600 {owner}", layout.rspamd_run),
        }
    }
}

/// What the templates of private files see: people. The public view has none, so that no public file depends on them.
#[derive(Debug, Serialize)]
pub(super) struct Private {
    mailboxes: Vec<Mailbox>,
    senders: Vec<Sender>,
}

/// An address with the system user or the addresses that it leads to.
#[derive(Debug, Serialize)]
struct Mailbox {
    address: String,
    targets: Vec<String>,
}

/// A login with the addresses that it may send as, its own first.
#[derive(Debug, Serialize)]
struct Sender {
    login: String,
    addresses: Vec<String>,
}

impl Private {
    /// Makes the view for hosts of the layout.
    pub(super) fn new(site: &Site, inventory: &Inventory, layout: &Layout) -> Self {
        let users = inventory
            .users
            .iter()
            .map(|user| Mailbox { address: user.address.to_string(), targets: vec![layout.mailbox_user.to_owned()] });
        let aliases = site.aliases.iter().map(|alias| Mailbox {
            address: alias.address.to_string(),
            targets: alias.targets.iter().map(ToString::to_string).collect(),
        });
        let other_names = OtherNames::new(site);
        let own: BTreeSet<&MailAddress> = Self::addresses(site, inventory).collect();
        let others = Self::addresses(site, inventory).flat_map(|address| {
            let others = other_names.of(address).filter(|other| !own.contains(other));
            others.map(|other| Mailbox { address: other.to_string(), targets: vec![address.to_string()] })
        });
        let senders = inventory.users.iter().map(|user| {
            let further = user.senders.iter().filter(|sender| **sender != user.address);
            let named: Vec<&MailAddress> = std::iter::once(&user.address).chain(further).collect();
            let others = named
                .iter()
                .flat_map(|sender| other_names.of(sender))
                .filter(|other| !own.contains(other) && !named.contains(&other));
            let others: Vec<String> = others.map(|other| other.to_string()).collect();
            let addresses = named.iter().map(ToString::to_string).chain(others).collect();
            Sender { login: user.address.to_string(), addresses }
        });
        Self { mailboxes: users.chain(aliases).chain(others).collect(), senders: senders.collect() }
    }

    /// Returns every address that is somebody's, or leads to others.
    fn addresses<'a>(site: &'a Site, inventory: &'a Inventory) -> impl Iterator<Item = &'a MailAddress> {
        let users = inventory.users.iter().map(|user| &user.address);
        users.chain(site.aliases.iter().map(|alias| &alias.address))
    }
}

/// The further names of domains, by the domain.
struct OtherNames<'a>(BTreeMap<&'a DomainName, Vec<&'a DomainName>>);

impl<'a> OtherNames<'a> {
    fn new(site: &'a Site) -> Self {
        let mut names: BTreeMap<&DomainName, Vec<&DomainName>> = BTreeMap::new();
        for domain in &site.domains {
            if let Some(of) = &domain.alias_of {
                names.entry(of).or_default().push(&domain.name);
            }
        }
        Self(names)
    }

    /// Returns what an address is called in the further names of its domain.
    fn of(&self, address: &MailAddress) -> impl Iterator<Item = MailAddress> {
        let names = if self.0.is_empty() { None } else { self.0.get(&address.domain()) };
        let others = names.into_iter().flatten();
        others.filter_map(|name| format!("{}@{name}", address.local_part()).parse().ok())
    }
}
