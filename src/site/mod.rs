//! What is wanted: the site, valid by construction, and the only way from settings files to one.

mod codes;
mod file;
mod host;
mod rules;
mod syntax;
mod template;
mod value;

use std::net::IpAddr;
use std::sync::Arc;

use crate::diag::{Diagnostic, Severity, Source};
use crate::inventory::{DkimAlgorithm, DkimKey};
use crate::keys::KeyKind;
use crate::names::{AbsolutePath, DomainName, HostName, MailAddress};
use crate::platform::{Platform, Version};

pub use codes::{CODES, SETTINGS};
pub use template::{InitAnswers, quote, starting_settings};

/// Reads a site from its settings: first `postseal.toml`, then each `domains/NAME.toml`.
///
/// With the site come warnings. Without one come all syntax errors; if there are none, all that is wrong with single
/// settings; if there is nothing, all that is wrong between settings. Either list is sorted by place.
/// Of a kind 50 are told, for nobody reads more at once.
pub fn load(sources: &[Arc<Source>]) -> Result<(Site, Vec<Diagnostic>), Vec<Diagnostic>> {
    let draft = file::read(sources).map_err(|findings| sorted(findings, sources))?;
    let (site, findings) = rules::check(draft);
    let findings = sorted(findings, sources);
    if findings.iter().any(|finding| finding.severity == Severity::Error) {
        Err(findings)
    } else {
        Ok((site, findings))
    }
}

/// How many findings of a kind are reported: syntax errors of a file, mistakes in single settings, breaches of one rule. To tell
/// the line of each takes time by the length of the file.
const MOST: usize = 50;

fn sorted(mut findings: Vec<Diagnostic>, sources: &[Arc<Source>]) -> Vec<Diagnostic> {
    findings.sort_by_cached_key(|finding| {
        let place = finding.place.as_ref()?;
        let file = sources.iter().position(|source| Arc::ptr_eq(source, &place.source));
        Some((file, place.span.start, finding.code))
    });
    findings
}

/// A mail site: hosts, domains and the rules for both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// The hosts, one at least, sorted by name.
    pub hosts: Vec<Host>,
    /// The domains, one at least, sorted by name.
    pub domains: Vec<Domain>,
    /// Who keeps logins and passwords.
    pub accounts: Accounts,
    /// How DKIM keys are used and rotated.
    pub dkim: Dkim,
    /// Addresses that lead to others, sorted.
    pub aliases: Vec<Alias>,
    /// Where accepted mail goes.
    pub delivery: Delivery,
    /// Whom the daemons admit.
    pub trust: Trust,
    /// The site CA.
    pub ca: Ca,
    /// The mail to users before their certificates end; none without.
    pub notify: Option<Notify>,
}

/// One machine of the site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its name: MX target, HELO name, and the name that mail programs connect to.
    pub name: HostName,
    /// Its operating system.
    pub platform: Platform,
    /// Its public addresses, for DNS; may be empty.
    pub addresses: Vec<IpAddr>,
    /// The local addresses that OpenSMTPD listens on, one at least.
    pub listen: Vec<IpAddr>,
    /// Whether `smtpd.conf` is whole or in fragments.
    pub smtpd_conf: SmtpdConf,
    /// The certificate of port 25.
    pub mx_certificate: CertificateSource,
    /// The certificate of ports 465 and 587.
    pub submission_certificate: CertificateSource,
    /// OpenSMTPD's version there, 7.0 at least.
    pub opensmtpd: Version,
    /// filter-rspamd's version there, 0.1.8 at least.
    pub filter_rspamd: Version,
}

impl Host {
    /// Tells whether the site CA must issue a certificate for this host.
    pub fn needs_issued_certificate(&self) -> bool {
        [&self.mx_certificate, &self.submission_certificate].contains(&&CertificateSource::Issued)
    }
}

/// Whether OpenSMTPD's configuration is one file of postseal's, or fragments for a file of the administrator's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SmtpdConf {
    /// The whole `smtpd.conf`.
    Complete,
    /// Fragments that the administrator's own `smtpd.conf` includes.
    Fragments,
}

/// Where a server certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateSource {
    /// Files on the host that somebody else keeps fresh, as an ACME client does.
    Files {
        /// The certificate and its chain.
        certificate: AbsolutePath,
        /// Its private key.
        key: AbsolutePath,
    },
    /// Issued by the site CA.
    Issued,
}

/// A domain that the site sends and receives mail for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain {
    /// Its name.
    pub name: DomainName,
    /// The DKIM algorithms it signs with, sorted, one at least.
    pub dkim: Vec<DkimAlgorithm>,
    /// What SPF says of other senders.
    pub spf: SpfPolicy,
    /// What DMARC asks of receivers.
    pub dmarc: Dmarc,
}

/// The qualifier of SPF's last term (RFC 7208 §4.6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpfPolicy {
    /// `-all`.
    Fail,
    /// `~all`: DMARC still sees the DKIM signature of forwarded mail.
    SoftFail,
}

/// A DMARC policy (RFC 9989 §4.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dmarc {
    /// What receivers are asked to do with mail that fails.
    pub policy: DmarcPolicy,
    /// Where aggregate reports go.
    pub reports: Option<MailAddress>,
}

/// The `p` tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DmarcPolicy {
    /// Only report.
    None,
    /// Treat as suspicious.
    Quarantine,
    /// Refuse.
    Reject,
}

impl DmarcPolicy {
    /// Returns the tag's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Quarantine => "quarantine",
            Self::Reject => "reject",
        }
    }
}

/// Who keeps logins and passwords.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accounts {
    /// The administrator, in a table of OpenSMTPD's.
    External {
        /// The table's type: `file`, `db`, `passwd`, ...
        kind: TableKind,
        /// The table's path.
        path: AbsolutePath,
    },
    /// postseal, by `user add` and `user passwd`.
    Managed,
}

/// The table backends of OpenSMTPD (table(5) and the opensmtpd-table-* packages).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableKind {
    /// A Berkeley database made by makemap(8).
    Db,
    /// A plain file.
    File,
    /// table-ldap.
    Ldap,
    /// table-mysql.
    Mysql,
    /// table-passwd.
    Passwd,
    /// table-postgres.
    Postgres,
    /// table-sqlite.
    Sqlite,
}

impl TableKind {
    /// Every type.
    pub const ALL: [Self; 7] =
        [Self::Db, Self::File, Self::Ldap, Self::Mysql, Self::Passwd, Self::Postgres, Self::Sqlite];

    /// Returns the word that smtpd.conf uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Db => "db",
            Self::File => "file",
            Self::Ldap => "ldap",
            Self::Mysql => "mysql",
            Self::Passwd => "passwd",
            Self::Postgres => "postgres",
            Self::Sqlite => "sqlite",
        }
    }
}

/// An address that leads to others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alias {
    /// The address.
    pub address: MailAddress,
    /// Where its mail goes, sorted, one at least.
    pub targets: Vec<MailAddress>,
}

/// Where accepted mail for the site's domains goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// To Dovecot (or another) by LMTP.
    Lmtp {
        /// The socket; none is the platform's own.
        socket: Option<AbsolutePath>,
    },
    /// Into Maildirs, one for each mailbox, below a directory.
    Maildir {
        /// The directory; none is the platform's own.
        path: Option<AbsolutePath>,
    },
}

/// Whom the daemons admit (design: "Who the server admits").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// One issuing CA issues all certificates; its twin is listed.
    Ca,
    /// Each certificate has its own issuing CA, whose twin is listed.
    Pinned,
}

/// How DKIM keys are used and rotated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dkim {
    /// After how many days a key is rotated; none if only by command.
    pub rotate_every: Option<u16>,
    /// Whether each key has another one behind it that is published and can sign at once.
    pub standby: bool,
    /// How Rspamd learns what to sign with.
    pub signing: Signing,
}

/// How Rspamd learns what to sign with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Signing {
    /// By its configuration, with a block for each domain: a signature by each algorithm; a rotation needs a reload.
    #[default]
    Domains,
    /// By a map of selectors, which Rspamd watches: one signature, and a rotation needs no reload.
    SelectorMap,
}

/// The site CA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ca {
    /// The common name of its certificate.
    pub name: String,
    /// The kind of its key.
    pub key: KeyKind,
}

/// The mail to users before their certificates end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notify {
    /// How many days before, falling, one at least.
    pub before: Vec<u16>,
    /// Who it comes from.
    pub from: MailAddress,
    /// The program that takes it.
    pub sendmail: AbsolutePath,
}

impl Site {
    /// Tells whether the domain is one of the site's.
    pub fn has_domain(&self, name: &DomainName) -> bool {
        self.domains.binary_search_by(|domain| domain.name.cmp(name)).is_ok()
    }

    /// Tells whether the key's domain is one of the site's, and wants its algorithm.
    pub fn signs(&self, key: &DkimKey) -> bool {
        let found = self.domains.binary_search_by(|domain| domain.name.cmp(&key.domain)).ok();
        found.and_then(|at| self.domains.get(at)).is_some_and(|domain| domain.dkim.contains(&key.algorithm))
    }

    /// Returns the domain that the host's name lies within, the longest if there are several.
    pub fn domain_of(&self, host: &HostName) -> Option<&Domain> {
        let name = host.as_domain();
        let around = self.domains.iter().filter(|domain| name.is_within(&domain.name));
        around.max_by_key(|domain| domain.name.as_str().len())
    }

    /// Tells whether mail leaves the site again unchanged: an alias leads to a foreign address.
    pub fn forwards(&self) -> bool {
        self.aliases.iter().flat_map(|alias| &alias.targets).any(|target| !self.has_domain(&target.domain()))
    }
}
