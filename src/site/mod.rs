//! What is wanted: the site, valid by construction, and the only way from settings files to one.

mod codes;
mod domain;
mod file;
mod host;
mod rules;
mod syntax;
mod terms;
mod template;
mod value;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::diag::{Diagnostic, Severity, Source};
use crate::inventory::{DkimAlgorithm, DkimKey};
use crate::keys::KeyKind;
use crate::names::{AbsolutePath, Digest, DomainName, HostName, MailAddress, RecordName};
use crate::platform::{Platform, Version};

pub use crate::platform::WebServer;
pub use crate::stages::{DmarcPolicy, SpfPolicy, StsStage};
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
    /// What mail programs are offered beside submission.
    pub services: Services,
    /// The text of each file that the settings name, by its path below the site's directory; [`load`] leaves it empty.
    pub files: BTreeMap<String, String>,
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
    /// The preference of its MX records: lower is tried first (RFC 5321 §5.1).
    pub mx_preference: u16,
    /// SHA-256 of the keys (`SubjectPublicKeyInfo`) that port 25 has or will have, where the certificate comes from files.
    pub mx_spki: Vec<Digest>,
    /// The web server there that serves policies, logos and settings for mail programs; none if this host has none.
    pub web: Option<Web>,
}

/// A web server that postseal configures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Web {
    /// Which one.
    pub server: WebServer,
    /// Where its certificates lie; none is where the platform's ACME client puts them.
    pub certificates: Option<AbsolutePath>,
}

/// What else the hosts offer to mail programs, beside submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Services {
    /// IMAP over TLS, port 993.
    pub imaps: bool,
    /// ManageSieve, port 4190.
    pub managesieve: bool,
    /// POP3 over TLS, port 995.
    pub pop3s: bool,
}

impl Default for Services {
    fn default() -> Self {
        Self { imaps: true, managesieve: false, pop3s: false }
    }
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

/// A domain of the site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain {
    /// Its name.
    pub name: DomainName,
    /// The domain whose further name this is: its mailboxes and its settings are that one's.
    pub alias_of: Option<DomainName>,
    /// Whether it sends and receives mail; one that does not says so in DNS.
    pub mail: bool,
    /// Names below it that have addresses and neither send nor receive mail, sorted.
    pub silent_names: Vec<DomainName>,
    /// The DKIM algorithms it signs with, sorted, one at least; none without mail.
    pub dkim: Vec<DkimAlgorithm>,
    /// What SPF says of other senders, if that is not left to the rollout.
    pub spf: Option<SpfPolicy>,
    /// Who else sends its mail, as terms of SPF, in the order of the settings.
    pub spf_also: Vec<SpfTerm>,
    /// What DMARC asks of receivers.
    pub dmarc: Dmarc,
    /// What its policies are to become.
    pub rollout: Aim,
    /// Where reports of TLS go; none if none are asked for.
    pub tls_reports: Option<TlsReports>,
    /// Its logo.
    pub bimi: Bimi,
    /// Which CAs may issue for it; empty lists say nothing.
    pub caa: Caa,
    /// Whether its zone is signed, so that TLSA records are of use.
    pub dnssec: bool,
}

impl Domain {
    /// Makes a domain of which the settings say nothing but the name.
    pub fn new(name: DomainName) -> Self {
        Self {
            name,
            alias_of: None,
            mail: true,
            silent_names: Vec::new(),
            dkim: vec![DkimAlgorithm::Rsa, DkimAlgorithm::Ed25519],
            spf: None,
            spf_also: Vec::new(),
            dmarc: Dmarc::default(),
            rollout: Aim::default(),
            tls_reports: None,
            bimi: Bimi::Unset,
            caa: Caa::default(),
            dnssec: false,
        }
    }
}

/// What a domain's policies are to become, step by step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aim {
    /// DMARC's policy.
    pub dmarc: DmarcPolicy,
    /// MTA-STS: off, testing or [`StsStage::EnforceLong`].
    pub mta_sts: StsStage,
    /// How long senders remember an enforced policy in the end, in seconds (RFC 8461 §3.2).
    pub max_age: u32,
    /// What SPF says of other senders.
    pub spf: SpfPolicy,
}

/// A year (RFC 8461 §3.2).
const LONGEST_AGE: u32 = 31_557_600;

impl Default for Aim {
    fn default() -> Self {
        Self { dmarc: DmarcPolicy::Quarantine, mta_sts: StsStage::Off, max_age: LONGEST_AGE, spf: SpfPolicy::SoftFail }
    }
}

/// DMARC without its policy's path (RFC 9989 §4.7).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dmarc {
    /// What receivers are asked to do with mail that fails (`p`), if that is not left to the rollout.
    pub policy: Option<DmarcPolicy>,
    /// The same of sub-domains (`sp`), if it differs.
    pub sp: Option<DmarcPolicy>,
    /// The same of sub-domains that do not exist (`np`), if the settings say so.
    pub np: Option<DmarcPolicy>,
    /// Whether the signing domain must be the author's very domain (`adkim=s`).
    pub adkim: Alignment,
    /// Whether the envelope's domain must be (`aspf=s`).
    pub aspf: Alignment,
    /// Whether the policy is only a test (`t=y`): one level milder than it says.
    pub testing: bool,
    /// Whether the domain is an organization's top (`psd=n`), or a suffix that others register below (`psd=y`).
    pub psd: Option<bool>,
    /// Where aggregate reports go (`rua`).
    pub reports: Option<MailAddress>,
    /// Where reports of single failures go (`ruf`).
    pub failure_reports: Option<MailAddress>,
}

/// How near a name must be to the author's domain (RFC 9989 §4.10).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Alignment {
    /// Of the same organization.
    #[default]
    Relaxed,
    /// The same.
    Strict,
}

/// A term that allows another sender (RFC 7208 §5).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SpfTerm {
    /// The hosts of a name's addresses.
    A(RecordName),
    /// Whom another domain's record allows.
    Include(RecordName),
    /// A network: the address and the length of its prefix.
    Ip(IpAddr, u8),
    /// The MX hosts of another domain.
    Mx(RecordName),
}

/// Where reports of TLS go (RFC 8460 §3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsReports {
    /// To a mailbox.
    Mail(MailAddress),
    /// To a web server that takes them: a URI that begins with `https://`.
    Https(String),
}

/// A domain's logo (draft-brand-indicators-for-message-identification).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Bimi {
    /// Nothing is published.
    #[default]
    Unset,
    /// The domain declines to have one.
    Declined,
    /// This one.
    Logo {
        /// The file, below `bimi/` in the site's directory.
        file: String,
        /// The file of its certificate (VMC or CMC), there too.
        certificate: Option<String>,
        /// Where both lie, as a URI that begins with `https://` and ends in `/`; none is the site's own web server.
        base: Option<String>,
    },
}

/// Which CAs may issue certificates for a domain (RFC 8659, RFC 9495), each list in the order of the settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caa {
    /// `issue`: for names; each is `CA; parameter=value`, or `;` for nobody.
    pub issue: Vec<CaaIssuer>,
    /// `issuewild`: for wildcards.
    pub issuewild: Vec<CaaIssuer>,
    /// `issuemail`: for S/MIME.
    pub issuemail: Vec<CaaIssuer>,
    /// `iodef`: whom a CA tells of a request that it refused, as a URI.
    pub iodef: Option<String>,
}

/// The value of an `issue` property (RFC 8659 §4.2), as it is written into the record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CaaIssuer(String);

impl CaaIssuer {
    /// Returns the property's value.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for CaaIssuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
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

    /// Returns the domains that send and receive mail.
    pub fn mail_domains(&self) -> impl Iterator<Item = &Domain> {
        self.domains.iter().filter(|domain| domain.mail)
    }

    /// Returns the address that an address in a further name of a domain stands for; every other one stands for itself.
    pub fn mailbox_of(&self, address: &MailAddress) -> MailAddress {
        let of = self.domain(&address.domain()).and_then(|domain| domain.alias_of.as_ref());
        of.and_then(|domain| format!("{}@{domain}", address.local_part()).parse().ok())
            .unwrap_or_else(|| address.clone())
    }

    /// Returns one of the site's domains.
    pub fn domain(&self, name: &DomainName) -> Option<&Domain> {
        let at = self.domains.binary_search_by(|domain| domain.name.cmp(name)).ok()?;
        self.domains.get(at)
    }

    /// Returns the host that serves policies, logos and settings for mail programs.
    pub fn web_host(&self) -> Option<&Host> {
        self.hosts.iter().find(|host| host.web.is_some())
    }

    /// Tells whether other servers can check the certificate of port 25 on every host: none is of the site's own CA.
    pub fn has_public_mx_certificates(&self) -> bool {
        self.hosts.iter().all(|host| host.mx_certificate != CertificateSource::Issued)
    }

    /// Tells whether the key's domain is one of the site's, and wants its algorithm.
    pub fn signs(&self, key: &DkimKey) -> bool {
        self.domain(&key.domain).is_some_and(|domain| domain.dkim.contains(&key.algorithm))
    }

    /// Returns the domain that the host's name lies within, the longest if there are several.
    pub fn domain_of(&self, host: &HostName) -> Option<&Domain> {
        self.domain_around(host.as_str())
    }

    /// Returns the longest domain that is the name or above it: the one whose zone has the name's records.
    pub fn domain_around(&self, name: &str) -> Option<&Domain> {
        self.domains_around(name).next()
    }

    /// Returns the domains that are the name or above it, the longest first.
    pub fn domains_around(&self, name: &str) -> impl Iterator<Item = &Domain> {
        let starts = std::iter::once(0).chain(name.match_indices('.').map(|(dot, _)| dot + 1));
        starts.filter_map(move |start| {
            let above = name.get(start..)?;
            let at = self.domains.binary_search_by(|domain| domain.name.as_str().cmp(above)).ok()?;
            self.domains.get(at)
        })
    }

    /// Returns the host of a name.
    pub fn host(&self, name: &str) -> Option<&Host> {
        let at = self.hosts.binary_search_by(|host| host.name.as_str().cmp(name)).ok()?;
        self.hosts.get(at)
    }

    /// Tells whether mail leaves the site again unchanged: an alias leads to a foreign address.
    pub fn forwards(&self) -> bool {
        self.aliases.iter().flat_map(|alias| &alias.targets).any(|target| !self.has_domain(&target.domain()))
    }
}
