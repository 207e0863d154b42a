//! From TOML to a draft of the site: which settings there are, their defaults, and the rules on each single value. Rules
//! between values are in `rules`.

use std::ops::RangeInclusive;
use std::sync::Arc;

use toml::Spanned;
use toml::de::DeTable;

use super::domain::{Named, Said};
use super::value::{Reader, Setting, Table};
use super::{Accounts, CertificateSource, Delivery, Dkim, Domain, Host, Services, Signing, TableKind, Trust};
use crate::diag::{Diagnostic, Place, Source};
use crate::inventory::DkimAlgorithm;
use crate::keys::KeyKind;
use crate::names::{AbsolutePath, DomainName, MailAddress, NameError, shown};

/// What the files say, each value in order, and where it says what rules between values need.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) start: Place,
    pub(super) hosts: Vec<HostDraft>,
    pub(super) domains: Vec<DomainDraft>,
    pub(super) aliases: Vec<AliasDraft>,
    pub(super) accounts: Accounts,
    pub(super) delivery: Delivery,
    pub(super) trust: Trust,
    pub(super) ca_name: Option<String>,
    pub(super) ca_key: KeyKind,
    pub(super) dkim: Dkim,
    pub(super) notify: NotifyDraft,
    pub(super) services: Services,
}

/// What the settings say of the mail to users.
#[derive(Debug, Default)]
pub(super) struct NotifyDraft {
    pub(super) before: Vec<u16>,
    pub(super) from: Option<MailAddress>,
    pub(super) sendmail: Option<AbsolutePath>,
}

/// A host and where its name and addresses stand.
#[derive(Debug)]
pub(super) struct HostDraft {
    pub(super) host: Host,
    pub(super) name: Place,
    pub(super) addresses: Vec<Place>,
}

/// A domain and where it says what rules between values need; of what it does not say there is no place.
#[derive(Debug)]
pub(super) struct DomainDraft {
    pub(super) domain: Domain,
    pub(super) name: Place,
    pub(super) silent_names: Vec<(DomainName, Place)>,
    pub(super) dkim: Option<Place>,
    pub(super) reports: Option<Place>,
    pub(super) failure_reports: Option<Place>,
    pub(super) spf_also: Option<Place>,
    pub(super) tls_reports: Option<Place>,
    pub(super) mta_sts: Option<Place>,
    pub(super) bimi: Option<Place>,
}

/// An alias and where its parts stand.
#[derive(Debug)]
pub(super) struct AliasDraft {
    pub(super) address: MailAddress,
    pub(super) place: Place,
    pub(super) targets: Vec<(MailAddress, Place)>,
}

/// Reads the files: all syntax errors, else all that is wrong with single settings, else the draft.
pub(super) fn read(sources: &[Arc<Source>]) -> Result<Draft, Vec<Diagnostic>> {
    let mut findings = Vec::new();
    let mut tables = Vec::new();
    for source in sources {
        let (table, errors) = DeTable::parse_recoverable(&source.text);
        findings.extend(super::syntax::errors(source, errors));
        tables.push(table);
    }
    if !findings.is_empty() {
        return Err(findings);
    }
    let start = sources
        .first()
        .map_or_else(|| Arc::new(Source { path: "postseal.toml".into(), text: String::new() }), Arc::clone);
    let mut draft = Draft {
        start: Place { source: start, span: 0..0 },
        hosts: Vec::new(),
        domains: Vec::new(),
        aliases: Vec::new(),
        accounts: Accounts::Managed,
        delivery: Delivery::Lmtp { socket: None },
        trust: Trust::Pinned,
        ca_name: None,
        ca_key: KeyKind::P256,
        dkim: Dkim::default(),
        notify: NotifyDraft::default(),
        services: Services::default(),
    };
    let (mut domains, mut defaults) = (Vec::new(), Said::default());
    for (index, (source, table)) in sources.iter().zip(&tables).enumerate() {
        let is_domain_file = index > 0;
        let mut reader = Reader { source: Arc::clone(source), is_domain_file, findings: &mut findings };
        if is_domain_file {
            domains.extend(reader.domain_file(table));
        } else {
            reader.main_file(table, &mut draft, &mut domains, &mut defaults);
        }
    }
    let has_web = draft.hosts.iter().any(|host| host.host.web.is_some())
        && draft.hosts.iter().all(|host| host.host.mx_certificate != CertificateSource::Issued);
    draft.domains = domains.into_iter().flat_map(|domain| domain.drafts(&defaults, has_web)).collect();
    if findings.is_empty() { Ok(draft) } else { Err(findings) }
}

impl Reader<'_> {
    fn main_file<'t>(
        &mut self,
        root: &'t Spanned<DeTable<'t>>,
        draft: &mut Draft,
        domains: &mut Vec<Named>,
        defaults: &mut Said,
    ) {
        let table = self.open("", root.span(), root.get_ref());
        if let Some(accounts) = table.get("accounts").and_then(|setting| self.accounts(&setting)) {
            draft.accounts = accounts;
        }
        if let Some(delivery) = table.get("delivery").and_then(|setting| self.delivery(&setting)) {
            draft.delivery = delivery;
        }
        if let Some(clients) = table.get("clients").and_then(|setting| self.table(&setting, "clients")) {
            draft.trust = self.choice_or(&clients, "trust", &TRUSTS, Trust::Pinned);
        }
        if let Some(ca) = table.get("ca").and_then(|setting| self.table(&setting, "ca")) {
            draft.ca_name = ca.get("name").and_then(|setting| self.ca_name(&setting));
            draft.ca_key = self.choice_or(&ca, "key", &KEY_KINDS, KeyKind::P256);
        }
        if let Some(dkim) = table.get("dkim").and_then(|setting| self.table(&setting, "dkim")) {
            draft.dkim = self.dkim_rules(&dkim);
        }
        if let Some(notify) = table.get("notify").and_then(|setting| self.table(&setting, "notify")) {
            draft.notify = self.notify(&notify);
        }
        if let Some(setting) = table.get("host") {
            draft.hosts = self.tables(&setting, "host").iter().filter_map(|table| self.host(table)).collect();
        }
        if let Some(setting) = table.get("domain") {
            domains.extend(self.tables(&setting, "domain").iter().filter_map(|table| self.domain(table)));
        }
        if let Some(table) = table.get("defaults").and_then(|setting| self.table(&setting, "defaults")) {
            *defaults = self.said(&table);
        }
        draft.services.imaps = matches!(draft.delivery, Delivery::Lmtp { .. });
        if let Some(services) = table.get("services").and_then(|setting| self.table(&setting, "services")) {
            draft.services = self.services(&services, draft.services);
        }
        if let Some(setting) = table.get("aliases") {
            let entries = self.entries(&setting);
            draft.aliases = entries.into_iter().filter_map(|(key, value)| self.alias(key, &value)).collect();
        }
    }

    fn domain_file<'t>(&mut self, root: &'t Spanned<DeTable<'t>>) -> Option<Named> {
        let table = self.open("domain", 0..0, root.get_ref());
        let path = self.source.path.clone();
        let name: Result<DomainName, NameError> = path.file_stem().unwrap_or_default().parse();
        if let Err(error) = &name {
            let help = format!("name the file after its domain, such as domains/example.com.toml: {}", error.mend);
            self.error("bad-file-name", &error.problem, (0..0, "the name of this file"), help);
        }
        self.rest_of_domain(&table, name.ok(), 0..0)
    }

    fn accounts(&mut self, setting: &Setting<'_>) -> Option<Accounts> {
        let (word, body) = self.variant(setting, "accounts")?;
        if word == "managed" {
            self.nothing(body, "accounts.managed");
            return Some(Accounts::Managed);
        }
        let Some(body) = body else {
            self.needs_table(setting, word, "accounts.external");
            return None;
        };
        let table = self.table(&body, "accounts.external")?;
        let kind = self.required(&table, "type", "\"file\"").and_then(|setting| self.choice(&setting, &TABLE_KINDS));
        let path = self.required(&table, "path", "\"/etc/mail/creds\"").and_then(|setting| self.parse(&setting));
        Some(Accounts::External { kind: kind?, path: path? })
    }

    fn delivery(&mut self, setting: &Setting<'_>) -> Option<Delivery> {
        let (word, body) = self.variant(setting, "delivery")?;
        let (name, key) = if word == "lmtp" { ("delivery.lmtp", "socket") } else { ("delivery.maildir", "path") };
        let path = body.and_then(|body| {
            let table = self.table(&body, name)?;
            let setting = table.get(key)?;
            let path = self.parse::<AbsolutePath>(&setting)?;
            let fits = word != "lmtp" || path.as_str().len() <= SOCKET_LIMIT;
            let refuse = || NameError {
                problem: format!("`{}` is too long for the path of a socket", shown(path.as_str())),
                mend: format!("choose a path of at most {SOCKET_LIMIT} characters"),
            };
            self.checked(if fits { Ok(path) } else { Err(refuse()) }, setting.span.clone())
        });
        Some(if word == "lmtp" { Delivery::Lmtp { socket: path } } else { Delivery::Maildir { path } })
    }

    fn dkim_rules(&mut self, table: &Table<'_>) -> Dkim {
        Dkim {
            rotate_every: table.get("rotate_every").and_then(|setting| self.number(&setting, ROTATION_DAYS, "days")),
            standby: table.get("standby").and_then(|setting| self.truth(&setting)).unwrap_or_default(),
            signing: self.choice_or(table, "signing", &SIGNINGS, Signing::Domains),
        }
    }

    fn services(&mut self, table: &Table<'_>, default: Services) -> Services {
        let mut offered = |key, default| table.get(key).and_then(|setting| self.truth(&setting)).unwrap_or(default);
        Services {
            imaps: offered("imaps", default.imaps),
            managesieve: offered("managesieve", default.managesieve),
            pop3s: offered("pop3s", default.pop3s),
        }
    }

    fn notify(&mut self, table: &Table<'_>) -> NotifyDraft {
        let before = table
            .get("before")
            .and_then(|setting| self.distinct(&setting, |reader, element| reader.number(element, NOTICE_DAYS, "days")));
        let mut before: Vec<u16> = before.unwrap_or_default().into_iter().map(|(days, _)| days).collect();
        before.sort_by_key(|days| std::cmp::Reverse(*days));
        NotifyDraft {
            before,
            from: table.get("from").and_then(|setting| self.parse(&setting)),
            sendmail: table.get("sendmail").and_then(|setting| self.parse(&setting)),
        }
    }

    /// Reads the CA's name: what X.509 (RFC 5280, `ub-common-name`) and every program that shows it can hold.
    fn ca_name(&mut self, setting: &Setting<'_>) -> Option<String> {
        let text = self.text(setting)?;
        let plain = |c: char| c == ' ' || c.is_ascii_graphic() || (c.is_alphanumeric() && c <= '\u{ffff}');
        let refuse = |problem: String, mend: &str| NameError { problem, mend: mend.to_owned() };
        let checked = if let Some(bad) = text.chars().find(|c| !plain(*c)) {
            let problem = format!("`{}` may not stand in the name of a CA", bad.escape_default());
            Err(refuse(problem, "use letters, digits, spaces and the punctuation of ASCII"))
        } else if !(1..=64).contains(&text.chars().count()) || text.trim() != text {
            let problem = format!("`{}` cannot be the name of a CA", shown(text));
            Err(refuse(problem, "write 1 to 64 characters, without a space at either end"))
        } else {
            Ok(text.to_owned())
        };
        self.checked(checked, setting.span.clone())
    }

    fn alias(&mut self, key: std::ops::Range<usize>, value: &Setting<'_>) -> Option<AliasDraft> {
        if value.is_table() {
            let help = "write the address in quotes: \"alice@example.com\" = \"bob@example.com\"";
            self.error("wrong-type", "an alias wants an address, not a table", (key, "a table"), help);
            return None;
        }
        let address = self.checked(value.name().parse(), key.clone());
        let targets = if value.as_text().is_some() {
            self.parse(value).map(|target| vec![(target, self.place(value.span.clone()))])
        } else {
            let targets = self.distinct(value, |reader, element| reader.parse(element));
            self.not_empty(value, "name an address that the mail goes to, or remove the alias");
            targets
        };
        Some(AliasDraft { address: address?, place: self.place(key), targets: targets? })
    }
}

/// The longest that a client certificate lasts.
const NOTICE_DAYS: RangeInclusive<u16> = 1..=825;

/// A key that leaves is published for a week or so, and the next one for some hours before it comes.
const ROTATION_DAYS: RangeInclusive<u16> = 14..=1095;

/// `sun_path` of the BSDs has 104 octets with the NUL, that of Linux 108.
const SOCKET_LIMIT: usize = 103;

/// An algorithm with its name for messages.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Shown(pub(super) DkimAlgorithm);

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.as_str())
    }
}

const KEY_KINDS: [(&str, KeyKind); 3] =
    [("p256", KeyKind::P256), ("rsa2048", KeyKind::Rsa2048), ("rsa3072", KeyKind::Rsa3072)];

const SIGNINGS: [(&str, Signing); 2] = [("domains", Signing::Domains), ("selector_map", Signing::SelectorMap)];

const TRUSTS: [(&str, Trust); 2] = [("pinned", Trust::Pinned), ("ca", Trust::Ca)];

const TABLE_KINDS: [(&str, TableKind); 7] = [
    ("db", TableKind::Db),
    ("file", TableKind::File),
    ("ldap", TableKind::Ldap),
    ("mysql", TableKind::Mysql),
    ("passwd", TableKind::Passwd),
    ("postgres", TableKind::Postgres),
    ("sqlite", TableKind::Sqlite),
];
