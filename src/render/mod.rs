//! Renders a site into the tree of its files. The one module that knows Tera.
//!
//! Nothing here reads a clock or a file: equal sites and inventories give equal bytes. Secrets stay references.

pub mod quote;
mod view;
mod web;

use std::sync::Arc;

use camino::Utf8PathBuf;
use tera::{Context, ErrorKind, Tera};

use crate::diag::{Diagnostic, Place, Source, did_you_mean};
use crate::dkim;
use crate::dns::zone;
use crate::inventory::{DkimKey, DkimState, Inventory, ServerCertificate};
use crate::names::visible_within;
use crate::pki::Certificate;
use crate::platform::Layout;
use crate::policy::rollout;
use crate::records;
use crate::site::{Accounts, Alias, CertificateSource, Host, Signing, Site, SmtpdConf};
use crate::tree::{Class, Content, Entry, Part, Stored, Tree};
use quote::Syntax;

/// Why a site cannot be rendered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.message)]
pub struct RenderError(Box<Diagnostic>);

impl RenderError {
    /// Returns the finding to report.
    pub fn diagnostic(&self) -> &Diagnostic {
        &self.0
    }
}

impl From<Diagnostic> for RenderError {
    fn from(diagnostic: Diagnostic) -> Self {
        Self(Box::new(diagnostic))
    }
}

/// Pairs each template's name, which is its path below `templates/`, with its text.
macro_rules! templates {
    ($($name:literal),+ $(,)?) => {
        &[$(($name, include_str!(concat!("../../templates/", $name)))),+]
    };
}

static BUILTIN: &[(&str, &str)] = templates![
    "mail/expiry.txt",
    "rspamd/dkim/selectors.map",
    "rspamd/local.d/arc.conf",
    "rspamd/local.d/dkim.conf",
    "rspamd/local.d/dkim_signing.conf",
    "rspamd/local.d/dmarc.conf",
    "rspamd/local.d/force_actions.conf",
    "rspamd/local.d/milter_headers.conf",
    "rspamd/local.d/regexp.conf",
    "rspamd/local.d/settings.conf",
    "rspamd/local.d/worker-controller.inc",
    "rspamd/local.d/worker-normal.inc",
    "rspamd/local.d/worker-proxy.inc",
    "rspamd/override.d/options.inc",
    "smtpd.conf",
    "smtpd/conf.d/listeners.conf",
    "smtpd/conf.d/names.conf",
    "smtpd/conf.d/rules.conf",
    "smtpd/domains",
    "smtpd/fragment",
    "smtpd/mailboxes",
    "smtpd/senders",
    "web/autoconfig.xml",
    "web/httpd.conf",
    "web/nginx-acme.conf",
    "web/nginx.conf",
    "web/postseal.caddy",
];

/// Returns the built-in templates: name and text, sorted by name.
pub fn builtin_templates() -> &'static [(&'static str, &'static str)] {
    BUILTIN
}

/// Renders every file of every host and every zone. An override, name and text, stands in for the built-in template of its
/// name.
pub fn render(site: &Site, inventory: &Inventory, overrides: &[(String, String)]) -> Result<Tree, RenderError> {
    refuse_alias_of_user(site, inventory)?;
    refuse_broken_promises(site, inventory)?;
    let templates = Templates::new(overrides)?;
    templates.try_mail()?;
    let mut entries = Vec::new();
    for host in &site.hosts {
        let certificate = issued_certificate(inventory, host)?;
        HostTree { site, inventory, host, layout: host.platform.layout(), templates: &templates }
            .render(certificate, &mut entries)?;
    }
    if let Some(host) = site.web_host() {
        HostTree { site, inventory, host, layout: host.platform.layout(), templates: &templates }.web(&mut entries)?;
    }
    for zone in records::zones(site, inventory) {
        entries.push(Entry {
            path: format!("dns/{}.zone", zone.domain).into(),
            owner: "root".to_owned(),
            group: "root".to_owned(),
            mode: 0o644,
            class: Class::Public,
            part: Part::Zone,
            content: Content::Text(zone::write(&zone)),
        });
    }
    Ok(Tree::new(entries))
}

/// What the template of the mail to a user sees.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ExpiryMail {
    /// Whose certificate it is.
    pub address: String,
    /// On which device.
    pub device: String,
    /// The day on which it ends.
    pub day: String,
    /// How long it is until then.
    pub left: String,
    /// Who the mail comes from.
    pub from: String,
}

/// The templates of mails.
pub struct Letters(Templates);

const SELECTORS: &str = "rspamd/dkim/selectors.map";
const EXPIRY: &str = "mail/expiry.txt";

impl Letters {
    /// Reads the templates, of which an override stands in for the built-in one of its name.
    pub fn new(overrides: &[(String, String)]) -> Result<Self, RenderError> {
        Templates::new(overrides).map(Self)
    }

    /// Renders the body of the mail that tells of an expiry.
    pub fn expiry(&self, mail: &ExpiryMail) -> Result<String, RenderError> {
        self.0.render(EXPIRY, &context(mail))
    }
}

/// One address has one meaning in OpenSMTPD's table: an alias would silently take a user's mail away.
fn refuse_alias_of_user(site: &Site, inventory: &Inventory) -> Result<(), RenderError> {
    let is_user = |alias: &&Alias| inventory.users.binary_search_by(|user| user.address.cmp(&alias.address)).is_ok();
    site.aliases.iter().find(is_user).map_or(Ok(()), |alias| {
        let message = format!("the alias `{}` is a user's own address", alias.address);
        let help = "take it out of [aliases] in postseal.toml";
        Err(Diagnostic::error("alias-is-user", message, help).into())
    })
}

/// What senders remember of an MTA-STS policy, they act on (RFC 8461 §5): until that is over, somebody serves it, and the hosts
/// have certificates that senders can check.
fn refuse_broken_promises(site: &Site, inventory: &Inventory) -> Result<(), RenderError> {
    for rollout in inventory.rollouts.iter().filter(|rollout| rollout.max_age.is_some()) {
        let Some(domain) = site.domain(&rollout.domain) else { continue };
        let policy = rollout::in_force(site, inventory, domain);
        let unchecked = policy.mx.iter().find(|host| host.mx_certificate == CertificateSource::Issued);
        let why = match unchecked {
            _ if !domain.mail => "it is to have no mail".to_owned(),
            Some(host) => format!("`{}` is to have a certificate that they cannot check", host.name),
            None if site.web_host().is_none() => "no host is to serve it any more".to_owned(),
            None => continue,
        };
        let message = format!("senders remember the MTA-STS policy of `{}`, and {why}", domain.name);
        let help = format!(
            "take that back, write rollout.mta_sts = \"off\" for `{0}`, and wait until `postseal rollout {0}` says that it is off",
            domain.name
        );
        return Err(Diagnostic::error("mta-sts-remembered", message, help).into());
    }
    Ok(())
}

/// Returns the newest certificate issued for the host, if it needs one.
fn issued_certificate<'a>(inventory: &'a Inventory, host: &Host) -> Result<Option<&'a ServerCertificate>, RenderError> {
    if [&host.mx_certificate, &host.submission_certificate].iter().all(|source| **source != CertificateSource::Issued) {
        return Ok(None);
    }
    let issued = inventory.server_certificates.iter().filter(|certificate| certificate.host == host.name);
    let newest = issued.max_by_key(|certificate| (certificate.not_after, certificate.serial));
    newest.map(Some).ok_or_else(|| {
        let message = format!("the host `{}` has no server certificate yet", host.name);
        let ca = inventory.site_ca.as_ref().and_then(|ca| Certificate::from_pem(&ca.certificate).ok());
        let is_permitted = ca.is_none_or(|ca| ca.facts().permits_host(&host.name));
        let first = if is_permitted { "" } else { "have the CA name the host: postseal ca renew; then " };
        let help = format!(
            "{first}issue one: postseal server issue {}; or name certificate files in postseal.toml",
            host.name
        );
        Diagnostic::error("server-certificate-missing", message, help).into()
    })
}

/// The host whose files are rendered, and what they are made from.
struct HostTree<'a> {
    site: &'a Site,
    inventory: &'a Inventory,
    host: &'a Host,
    layout: &'static Layout,
    templates: &'a Templates,
}

impl HostTree<'_> {
    fn render(&self, certificate: Option<&ServerCertificate>, entries: &mut Vec<Entry>) -> Result<(), RenderError> {
        let issued = certificate.map_or_else(String::new, |certificate| {
            format!("{}/tls/{}-{}", self.layout.smtpd_dir, certificate.host, certificate.serial)
        });
        self.directories(certificate.is_some(), entries);
        self.public_files(&view::Public::new(self.site, self.inventory, self.host, &issued), entries)?;
        self.private_files(&view::Private::new(self.site, self.inventory, self.layout), entries)?;
        self.stored_files(entries);
        if let Some(certificate) = certificate {
            let chain = Content::Text(certificate.chain.clone());
            let key = Content::Stored(Stored::Key(certificate.key), Some(certificate.key));
            entries.push(self.root_entry(&format!("{issued}.pem"), 0o644, (Class::Public, Part::Certificate), chain));
            entries.push(self.root_entry(&format!("{issued}.key"), 0o600, (Class::Secret, Part::Certificate), key));
        }
        Ok(())
    }

    /// Adds the directories that belong to postseal alone; those of the daemons' packages are there already.
    fn directories(&self, tls: bool, entries: &mut Vec<Entry>) {
        let Layout { smtpd_dir, rspamd_group, .. } = self.layout;
        let what = (Class::Public, Part::Smtpd);
        let mut add = |path: &str, mode| entries.push(self.root_entry(path, mode, what, Content::Directory));
        add(smtpd_dir, 0o755);
        if tls {
            add(&format!("{smtpd_dir}/tls"), 0o755);
        }
        if self.host.smtpd_conf == SmtpdConf::Fragments {
            add(&format!("{smtpd_dir}/conf.d"), 0o755);
        }
        let keys = dkim::key_directory(self.layout);
        let what = (Class::Public, Part::Rspamd);
        entries.push(self.entry(&keys, rspamd_group, 0o750, what, Content::Directory));
    }

    fn public_files(&self, view: &view::Public, entries: &mut Vec<Entry>) -> Result<(), RenderError> {
        let context = context(view);
        for (name, _) in BUILTIN {
            let Some(path) = self.public_path(name) else { continue };
            let text = self.templates.render(name, &context)?;
            let part = match Syntax::of_template(name) {
                Syntax::Map => Part::DkimMap,
                Syntax::Ucl => Part::Rspamd,
                Syntax::Smtpd => Part::Smtpd,
                Syntax::Table => Part::Table,
                Syntax::Caddy | Syntax::Httpd | Syntax::Nginx | Syntax::Text | Syntax::Xml => continue,
            };
            entries.push(self.root_entry(&path, 0o644, (Class::Public, part), Content::Text(text)));
        }
        Ok(())
    }

    /// Returns where the template's file lies on the host, unless it is not public or this host does without it.
    fn public_path(&self, template: &str) -> Option<String> {
        let Layout { rspamd_dir, smtpd_conf, smtpd_dir, .. } = self.layout;
        let whole = self.host.smtpd_conf == SmtpdConf::Complete;
        match template {
            SELECTORS => (self.site.dkim.signing == Signing::SelectorMap).then(|| dkim::selector_map(self.layout)),
            "rspamd/local.d/arc.conf" if !self.site.forwards() => None,
            "smtpd.conf" => whole.then(|| (*smtpd_conf).to_owned()),
            "smtpd/domains" => Some(format!("{smtpd_dir}/domains")),
            _ => {
                let fragment = template.strip_prefix("smtpd/conf.d/").filter(|_| !whole);
                let fragment = fragment.map(|file| format!("{smtpd_dir}/conf.d/{file}"));
                fragment.or_else(|| Some(format!("{rspamd_dir}/{}", template.strip_prefix("rspamd/")?)))
            }
        }
    }

    /// Adds the tables that name people; smtpd reads them as its own user when `smtpctl update table` tells it to.
    fn private_files(&self, view: &view::Private, entries: &mut Vec<Entry>) -> Result<(), RenderError> {
        let context = context(view);
        for table in ["mailboxes", "senders"] {
            let text = self.templates.render(&format!("smtpd/{table}"), &context)?;
            let path = format!("{}/{table}", self.layout.smtpd_dir);
            let what = (Class::Private, Part::Table);
            entries.push(self.entry(&path, self.layout.smtpd_group, 0o640, what, Content::Text(text)));
        }
        Ok(())
    }

    /// Adds what only the store holds: the trust list, the CRLs, the credentials and the DKIM keys.
    fn stored_files(&self, entries: &mut Vec<Entry>) {
        let Layout { smtpd_dir, smtpd_group, rspamd_group, .. } = self.layout;
        let trust_list = Content::Stored(Stored::TrustList, self.inventory.trust_list);
        let what = (Class::Private, Part::TrustList);
        entries.push(self.root_entry(&format!("{smtpd_dir}/clients.pem"), 0o644, what, trust_list));
        // The lock knows it too, so that a clone without the ledger lists the same files.
        if self.inventory.live_issuing_cas().next().is_some() {
            let what = (Class::Private, Part::Crls);
            let crls = Content::Stored(Stored::Crls, self.inventory.crls);
            entries.push(self.root_entry(&format!("{smtpd_dir}/clients.crl"), 0o644, what, crls));
            let both = Content::Stored(Stored::TwinsAndCrls, self.inventory.twins_and_crls);
            entries.push(self.root_entry(&format!("{smtpd_dir}/clients-with-crl.pem"), 0o644, what, both));
        }
        if self.site.accounts == Accounts::Managed {
            let path = format!("{smtpd_dir}/credentials");
            let credentials = Content::Stored(Stored::Credentials, self.inventory.credentials);
            entries.push(self.entry(&path, smtpd_group, 0o640, (Class::Secret, Part::Table), credentials));
        }
        let keys = self.inventory.dkim_keys.iter();
        // One that has just left stays until Rspamd has heard of it, and for the way back if it does not.
        let is_there = |key: &&DkimKey| matches!(key.state, DkimState::Active | DkimState::Retiring);
        for key in keys.filter(|key| is_there(key) && self.site.has_domain(&key.domain)) {
            let path = dkim::key_path(self.layout, key);
            let content = Content::Stored(Stored::Key(key.key), Some(key.key));
            entries.push(self.entry(&path, rspamd_group, 0o640, (Class::Secret, Part::DkimKey), content));
        }
    }

    fn root_entry(&self, path: &str, mode: u32, what: (Class, Part), content: Content) -> Entry {
        self.entry(path, self.layout.root_group, mode, what, content)
    }

    fn entry(&self, path: &str, group: &str, mode: u32, (class, part): (Class, Part), content: Content) -> Entry {
        let path = Utf8PathBuf::from(format!("{}/root{path}", self.host.name));
        Entry { path, owner: "root".to_owned(), group: group.to_owned(), mode, class, part, content }
    }
}

fn context(view: &impl serde::Serialize) -> Context {
    // A view is a struct of words and lists, which always serializes.
    Context::from_serialize(view).unwrap_or_default()
}

/// The templates, ready to render.
struct Templates {
    tera: Tera,
    sources: Vec<(String, Arc<Source>)>,
}

impl Templates {
    fn new(overrides: &[(String, String)]) -> Result<Self, RenderError> {
        if let Some((name, _)) = overrides.iter().find(|(name, _)| BUILTIN.iter().all(|(known, _)| known != name)) {
            return Err(unknown_template(name));
        }
        let sources = BUILTIN.iter().map(|(name, text)| {
            let own = overrides.iter().find(|(own, _)| own == name);
            let (path, text) = match own {
                Some((_, text)) => (format!("templates/{name}"), text.as_str()),
                None => (format!("(built-in)/{name}"), *text),
            };
            ((*name).to_owned(), Arc::new(Source { path: path.into(), text: text.to_owned() }))
        });
        let mut templates = Self { tera: Tera::default(), sources: sources.collect() };
        quote::register(&mut templates.tera);
        templates.refuse_unquoted()?;
        let texts = templates.sources.iter().map(|(name, source)| (name, &source.text));
        templates.tera.add_raw_templates(texts).map_err(|error| templates.explain("", &error))?;
        Ok(templates)
    }

    fn render(&self, name: &str, context: &Context) -> Result<String, RenderError> {
        let mut bounded = Bounded(Vec::new());
        self.tera.render_to(name, context, &mut bounded).map_err(|error| self.explain(name, &error))?;
        // Templates, values and quotes are text, and so is what is joined from them.
        Ok(String::from_utf8(bounded.0).unwrap_or_default())
    }

    /// Renders a mail for nobody, so that a mistake in it is found before one is due.
    fn try_mail(&self) -> Result<(), RenderError> {
        let word = || "x".to_owned();
        let mail = ExpiryMail { address: word(), device: word(), day: word(), left: word(), from: word() };
        self.render(EXPIRY, &context(&mail)).map(|_| ())
    }

    /// Finds what a template writes unquoted, before it renders anything.
    fn refuse_unquoted(&self) -> Result<(), RenderError> {
        for (name, source) in &self.sources {
            let syntax = Syntax::of_template(name);
            if let Some(span) = quote::first_unquoted(syntax, &source.text) {
                let place = Place { source: Arc::clone(source), span };
                return Err(unquoted(name, syntax).at(place, "not quoted").into());
            }
        }
        Ok(())
    }

    /// Says what is wrong with a template, and where.
    fn explain(&self, name: &str, error: &tera::Error) -> RenderError {
        let diagnostic = match error.kind() {
            ErrorKind::SyntaxError(report) | ErrorKind::RenderingError(report) => {
                let name = if report.filename().is_empty() { name } else { report.filename() };
                self.misfit(name, report.message(), Some(report.span().range.clone()))
            }
            ErrorKind::CircularExtend { tpl, inheritance_chain: chain }
            | ErrorKind::CircularInclude { tpl, include_chain: chain } => self.circle(tpl, chain),
            ErrorKind::Io(std::io::ErrorKind::FileTooLarge) => {
                self.misfit(name, &format!("it writes more than {} MiB", LIMIT >> 20), Some(0..0))
            }
            // The escape function's refusal: only what `first_unquoted` overlooked gets so far.
            ErrorKind::Io(_) => unquoted(name, Syntax::of_template(name)),
            // Faults between templates come as a report that is text already: message, `--> name:line:column`, excerpt.
            other => {
                let text = other.to_string();
                let at = text.lines().find_map(|line| line.trim_start().strip_prefix("--> "));
                match at.and_then(|at| self.offset(at)) {
                    Some((name, offset)) => self.misfit(name, &text, Some(offset..offset)),
                    None => self.misfit(name, &text, None),
                }
            }
        };
        diagnostic.into()
    }

    /// Says that a template includes or extends itself, be it by way of others.
    fn circle(&self, name: &str, chain: &[String]) -> Diagnostic {
        let next = chain.iter().skip_while(|link| *link != name).nth(1).map_or(name, String::as_str);
        let source = self.sources.iter().find(|(known, _)| known == name).map(|(_, source)| source);
        let at = source.and_then(|source| source.text.find(&format!("\"{next}\""))).map(|at| at..at + next.len() + 2);
        self.misfit(name, "it leads back to itself", at)
    }

    /// Reads `name:line:column` as a template's name and an offset into it.
    fn offset<'a>(&self, at: &'a str) -> Option<(&'a str, usize)> {
        let mut parts = at.rsplitn(3, ':');
        let column: usize = parts.next()?.parse().ok()?;
        let line: usize = parts.next()?.parse().ok()?;
        let name = parts.next()?;
        let (_, source) = self.sources.iter().find(|(known, _)| known == name)?;
        let before: usize = source.text.split_inclusive('\n').take(line.checked_sub(1)?).map(str::len).sum();
        Some((name, before + column.checked_sub(1)?))
    }

    fn misfit(&self, name: &str, problem: &str, span: Option<std::ops::Range<usize>>) -> Diagnostic {
        let message = match name {
            "" => "the templates do not fit each other".to_owned(),
            _ => format!("the template `{name}` does not fit this version of postseal"),
        };
        let help = "correct it, or remove your copy of the template to use the built-in one";
        let diagnostic = Diagnostic::error("template", message, help);
        match (self.sources.iter().find(|(known, _)| known == name), span) {
            (Some((_, source)), Some(span)) => {
                diagnostic.at(Place { source: Arc::clone(source), span }, first_line(problem))
            }
            _ => diagnostic.note(first_line(problem)),
        }
    }
}

/// What a template wrote so far. A loop in somebody's template must not fill the memory: a bound of [`LIMIT`] octets leaves room
/// for the table of a hundred thousand mailboxes.
struct Bounded(Vec<u8>);

const LIMIT: usize = 16 << 20;

impl std::io::Write for Bounded {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + octets.len() > LIMIT {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    if line.ends_with("got `undefined`") {
        return "there is no value of this name".to_owned();
    }
    // Tera repeats the template's own words, however long they are.
    visible_within(line.trim_start_matches("error: ").trim_end_matches('.'), 300, |_| false)
}

fn unquoted(name: &str, syntax: Syntax) -> Diagnostic {
    let message = format!("the template `{name}` writes a value that is not quoted for its file");
    let help = format!("write {{{{ name | {} }}}}: a name and that filter, nothing else", syntax.filter());
    Diagnostic::error("template-unquoted", message, help)
}

fn unknown_template(name: &str) -> RenderError {
    let message = format!("there is no template `{}`", crate::names::shown(name));
    let known = || BUILTIN.iter().map(|(known, _)| *known);
    let help = match did_you_mean(name, known()) {
        Some(known) => format!("did you mean `{known}`?"),
        None => format!(
            "a file below templates/ has the name of a built-in one: {}",
            known().collect::<Vec<_>>().join(", ")
        ),
    };
    Diagnostic::error("template-unknown", message, help).into()
}
