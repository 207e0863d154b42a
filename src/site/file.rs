//! From TOML to a draft of the site: which settings there are, their defaults, and the rules on each single value. Rules
//! between values are in `rules`.

use std::ops::RangeInclusive;
use std::sync::Arc;

use toml::Spanned;
use toml::de::DeTable;

use super::value::{Reader, Setting, Table};
use super::{Accounts, Delivery, Dkim, Dmarc, DmarcPolicy, Domain, Host, Signing, SpfPolicy, TableKind, Trust};
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

/// A domain and where its name, its algorithms and the address for reports stand.
#[derive(Debug)]
pub(super) struct DomainDraft {
    pub(super) domain: Domain,
    pub(super) name: Place,
    /// None if the algorithms are the default ones.
    pub(super) dkim: Option<Place>,
    pub(super) reports: Option<Place>,
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
    };
    for (index, (source, table)) in sources.iter().zip(&tables).enumerate() {
        let is_domain_file = index > 0;
        let mut reader = Reader { source: Arc::clone(source), is_domain_file, findings: &mut findings };
        if is_domain_file {
            draft.domains.extend(reader.domain_file(table));
        } else {
            reader.main_file(table, &mut draft);
        }
    }
    if findings.is_empty() { Ok(draft) } else { Err(findings) }
}

impl Reader<'_> {
    fn main_file<'t>(&mut self, root: &'t Spanned<DeTable<'t>>, draft: &mut Draft) {
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
            draft.domains = self.tables(&setting, "domain").iter().filter_map(|table| self.domain(table)).collect();
        }
        if let Some(setting) = table.get("aliases") {
            let entries = self.entries(&setting);
            draft.aliases = entries.into_iter().filter_map(|(key, value)| self.alias(key, &value)).collect();
        }
    }

    fn domain_file<'t>(&mut self, root: &'t Spanned<DeTable<'t>>) -> Option<DomainDraft> {
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

    fn domain(&mut self, table: &Table<'_>) -> Option<DomainDraft> {
        let name = self.required(table, "name", "\"example.com\"");
        let span = name.as_ref().map_or(0..0, |setting| setting.span.clone());
        let name = name.and_then(|setting| self.parse(&setting));
        self.rest_of_domain(table, name, span)
    }

    fn rest_of_domain(
        &mut self,
        table: &Table<'_>,
        name: Option<DomainName>,
        span: std::ops::Range<usize>,
    ) -> Option<DomainDraft> {
        let name = name.and_then(|name| self.short_enough(name, span.clone()));
        let dkim = self.dkim(table);
        let spf = self.choice_or(table, "spf", &SPF_POLICIES, SpfPolicy::SoftFail);
        let mut dmarc = Dmarc { policy: DmarcPolicy::None, reports: None };
        let mut reports = None;
        if let Some(table) = table.get("dmarc").and_then(|setting| self.table(&setting, "domain.dmarc")) {
            dmarc.policy = self.choice_or(&table, "policy", &DMARC_POLICIES, DmarcPolicy::None);
            if let Some(setting) = table.get("reports") {
                dmarc.reports = self.parse(&setting);
                reports = Some(self.place(setting.span));
            }
        }
        let written = table.get("dkim").map(|setting| self.place(setting.span));
        let domain = Domain { name: name?, dkim, spf, dmarc };
        Some(DomainDraft { domain, name: self.place(span), dkim: written, reports })
    }

    /// Refuses a domain whose name leaves no room for what is put before or behind it.
    fn short_enough(&mut self, name: DomainName, span: std::ops::Range<usize>) -> Option<DomainName> {
        if name.as_str().len() <= DOMAIN_LIMIT {
            return Some(name);
        }
        let problem = format!("`{}` is too long for the names of its DNS records and files", shown(name.as_str()));
        let mend = format!("a domain of a mail site has at most {DOMAIN_LIMIT} characters");
        self.checked(Err(NameError { problem, mend }), span)
    }

    fn dkim(&mut self, table: &Table<'_>) -> Vec<DkimAlgorithm> {
        let Some(setting) = table.get("dkim") else { return vec![DkimAlgorithm::Rsa, DkimAlgorithm::Ed25519] };
        let read = |reader: &mut Self, element: &Setting<'_>| reader.choice(element, &DKIM_ALGORITHMS).map(Shown);
        let values = self.distinct(&setting, read).unwrap_or_default();
        let mut algorithms: Vec<_> = values.into_iter().map(|(Shown(algorithm), _)| algorithm).collect();
        algorithms.sort();
        self.not_empty(&setting, "write [\"rsa\", \"ed25519\"], or leave `dkim` out, which means the same");
        if algorithms == [DkimAlgorithm::Ed25519] {
            let message = "signing with Ed25519 alone leaves mail unsigned for many receivers";
            let help = "write dkim = [\"rsa\", \"ed25519\"]: receivers that know both may use either";
            self.error("dkim-ed25519-alone", message, (setting.span, "only `ed25519`"), help);
        }
        algorithms
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

/// Of 253 characters that a name in DNS has, `202611r._domainkey.` takes 19; of 255 that a file's name has, `.202611r.key` 12.
const DOMAIN_LIMIT: usize = 220;

/// The longest that a client certificate lasts.
const NOTICE_DAYS: RangeInclusive<u16> = 1..=825;

/// A key that leaves is published for a week or so, and the next one for some hours before it comes.
const ROTATION_DAYS: RangeInclusive<u16> = 14..=1095;

/// `sun_path` of the BSDs has 104 octets with the NUL, that of Linux 108.
const SOCKET_LIMIT: usize = 103;

/// An algorithm with its name for messages.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Shown(DkimAlgorithm);

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.as_str())
    }
}

const DKIM_ALGORITHMS: [(&str, DkimAlgorithm); 2] = [("rsa", DkimAlgorithm::Rsa), ("ed25519", DkimAlgorithm::Ed25519)];

const DMARC_POLICIES: [(&str, DmarcPolicy); 3] =
    [("none", DmarcPolicy::None), ("quarantine", DmarcPolicy::Quarantine), ("reject", DmarcPolicy::Reject)];

const KEY_KINDS: [(&str, KeyKind); 3] =
    [("p256", KeyKind::P256), ("rsa2048", KeyKind::Rsa2048), ("rsa3072", KeyKind::Rsa3072)];

const SIGNINGS: [(&str, Signing); 2] = [("domains", Signing::Domains), ("selector_map", Signing::SelectorMap)];

const SPF_POLICIES: [(&str, SpfPolicy); 2] = [("softfail", SpfPolicy::SoftFail), ("fail", SpfPolicy::Fail)];

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
