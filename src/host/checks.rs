//! What the daemons' own checks miss: `smtpd -n` and `rspamadm configtest` say OK to each of these, and the daemon then dies,
//! admits nobody or sends unsigned (`facts/opensmtpd.md` section 6, `facts/platforms.md` section 8).

use std::collections::BTreeMap;
use std::fs;

use camino::{Utf8Path, Utf8PathBuf};
use time::OffsetDateTime;

use crate::diag::{Diagnostic, Severity};
use crate::dkim::{self, private};
use crate::host::Machine;
use crate::install::{Action, Found, Installation, Wanted};
use crate::inventory::{DkimKey, Inventory};
use crate::keys::{self, KeyError, PrivateKey};
use crate::names::Digest;
use crate::pki::inspect::Certificate;
use crate::plan;
use crate::platform::{AcmeClient, WebServer};
use crate::policy::web::served;
use crate::secret::Secret;
use crate::site::{CertificateSource, Site};
use crate::tree::Part;

/// No certificate with its chain, and no key, is larger, in octets.
const MAXIMUM_PEM: u64 = 1 << 20;

/// What the checks compare the files with.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// What is wanted.
    pub site: &'a Site,
    /// What exists.
    pub inventory: &'a Inventory,
    /// Whether a template of the administrator's says how mail is signed.
    pub own_signing: bool,
    /// The time.
    pub now: OffsetDateTime,
}

/// Returns what is wrong with the files as they would be installed, and with what the host has to have beside them.
pub fn own_checks(machine: &Machine<'_>, installation: &Installation, facts: Facts<'_>) -> Vec<Diagnostic> {
    let mut checks = Checks { machine, facts, findings: Vec::new() };
    let wanted: Vec<&Wanted> = installation.steps.iter().filter_map(|step| step.wanted.as_ref()).collect();
    checks.trust_list(&wanted);
    checks.issued_certificates(&wanted);
    checks.dkim_keys(installation);
    if machine.is_system {
        for source in [&machine.host.mx_certificate, &machine.host.submission_certificate] {
            if let CertificateSource::Files { certificate, key } = source {
                checks.certificate_files(certificate.as_path(), key.as_path());
            }
        }
        checks.reachable(installation);
        checks.surroundings();
        checks.web_certificates();
    }
    checks.findings
}

/// A certificate that somebody else keeps on a host, as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its file on the host.
    pub path: Utf8PathBuf,
    /// What that holds.
    pub digest: Digest,
    /// When it ends.
    pub not_after: OffsetDateTime,
}

/// Returns the certificates that an ACME client keeps on the host and smtpd can use, and what is wrong with others.
pub fn kept_certificates(machine: &Machine<'_>, facts: Facts<'_>) -> (Vec<Kept>, Vec<Diagnostic>) {
    let (mut kept, mut findings) = (Vec::new(), Vec::new());
    for source in [&machine.host.mx_certificate, &machine.host.submission_certificate] {
        let CertificateSource::Files { certificate, key } = source else { continue };
        let mut checks = Checks { machine, facts, findings: Vec::new() };
        let seen = checks.certificate_files(certificate.as_path(), key.as_path());
        kept.extend(seen.filter(|seen| !kept.contains(seen)));
        findings.extend(checks.findings.into_iter().filter(|finding| !findings.contains(finding)).collect::<Vec<_>>());
    }
    (kept, findings)
}

struct Checks<'a> {
    machine: &'a Machine<'a>,
    facts: Facts<'a>,
    findings: Vec<Diagnostic>,
}

impl Checks<'_> {
    fn error(&mut self, code: &'static str, message: impl Into<String>, help: impl Into<String>) {
        self.add(Diagnostic::error(code, message, help));
    }

    fn warning(&mut self, code: &'static str, message: impl Into<String>, help: impl Into<String>) {
        self.add(Diagnostic::warning(code, message, help));
    }

    /// The mx and the submission certificate are often the same files, and said once.
    fn add(&mut self, finding: Diagnostic) {
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    /// An empty or broken list kills smtpd at its start; the site CA on it would admit what was ever revoked.
    fn trust_list(&mut self, wanted: &[&Wanted]) {
        let is_list = |wanted: &&&Wanted| match wanted.part {
            Part::TrustList => true,
            Part::Crls => wanted.path.extension() == Some("pem"),
            _ => false,
        };
        for file in wanted.iter().filter(is_list) {
            let text = file.content.as_ref().and_then(Secret::expose_str).unwrap_or_default();
            let twins = Certificate::all_from_pem(text);
            let good = twins.is_ok_and(|twins| !twins.is_empty() && twins.iter().all(|twin| twin.facts().is_twin()));
            if !good {
                let message = format!("the trust list `{}` would not hold twins alone, one at least", file.path);
                self.error("trust-list", message, "bring state/ back from a backup, or report this as a bug");
            }
        }
    }

    /// A key that does not match kills smtpd at the first TLS connection.
    fn issued_certificates(&mut self, wanted: &[&Wanted]) {
        let find = |path: &Utf8Path| wanted.iter().find(|wanted| wanted.path == path);
        let certificates =
            wanted.iter().filter(|file| file.part == Part::Certificate && file.path.extension() == Some("pem"));
        for file in certificates {
            let (Some(chain), Some(key)) = (&file.content, find(&file.path.with_extension("key"))) else { continue };
            let certificate = Certificate::from_pem(chain.expose_str().unwrap_or_default());
            let key = key.content.as_ref().map(PrivateKey::from_pem);
            match (certificate, key) {
                (Ok(certificate), Some(Ok(key))) if certificate.belongs_to(&key) => {
                    self.validity(&file.path, &certificate);
                }
                _ => {
                    let message = format!("the certificate `{}` and its key do not belong together", file.path);
                    self.error("certificate-mismatch", message, "bring state/ back from a backup");
                }
            }
        }
    }

    fn validity(&mut self, path: &Utf8Path, certificate: &Certificate) {
        let until = certificate.facts().not_after;
        if until < self.facts.now {
            let message = format!("the certificate `{path}` ended on {}", until.date());
            self.warning("certificate-expired", message, "mail programs refuse it: have it renewed");
        }
    }

    /// Files that an ACME client keeps: smtpd wants them root's, alike, and of a kind that it can use. Returns the certificate,
    /// unless an error was found.
    fn certificate_files(&mut self, certificate: &Utf8Path, key: &Utf8Path) -> Option<Kept> {
        let chain = self.root_file(certificate, 0o022, "0755")?;
        let private = self.root_file(key, 0o037, "0740")?;
        let parsed = chain.expose_str().map(Certificate::from_pem);
        let Some(Ok(parsed)) = parsed else {
            let message = format!("`{certificate}` holds no certificate");
            self.error("certificate-file", message, "name the file with the certificate and its chain, in PEM");
            return None;
        };
        self.validity(certificate, &parsed);
        match public_half(&private) {
            Err(error) => {
                let message = format!("`{key}` could not be compared with `{certificate}`: {error}");
                self.warning("certificate-unjudged", message, "see that they belong together: smtpd dies if not");
            }
            Ok(spki) if spki != parsed.facts().spki => {
                let message = format!("the key `{key}` does not belong to the certificate `{certificate}`");
                self.error(
                    "certificate-mismatch",
                    message,
                    "smtpd would die at the first connection: name the right pair",
                );
            }
            Ok(_) if !["EC ", "RSA "].iter().any(|kind| parsed.facts().key.starts_with(kind)) => {
                let message = format!("`{certificate}` has a key of a kind that smtpd cannot use");
                self.error("certificate-key", message, "have a certificate issued for an RSA or P-256 key");
            }
            Ok(_) => {}
        }
        let kept = Kept {
            path: certificate.to_owned(),
            digest: Digest::of(chain.expose()),
            not_after: parsed.facts().not_after,
        };
        Some(kept).filter(|_| self.findings.iter().all(|found| found.severity != Severity::Error))
    }

    /// Reads a file that must be root's and must not grant what `forbidden` names.
    fn root_file(&mut self, path: &Utf8Path, forbidden: u32, most: &str) -> Option<Secret> {
        let ((user, _), mode, content) = match self.machine.root.read_through_links(path, MAXIMUM_PEM) {
            Ok(found) => found,
            Err(error) => {
                let message = format!("`{path}` cannot be used: {error}");
                self.error("certificate-file", message, "have the certificate issued first, or correct the path");
                return None;
            }
        };
        if user != 0 || mode & forbidden != 0 {
            let message = format!("`{path}` belongs to the user {user} and has mode {mode:04o}: smtpd refuses it");
            self.error("certificate-owner", message, format!("give it to root, with mode {most} at most"));
        }
        Some(content)
    }

    /// Rspamd passes over a key that it cannot use, and the mail leaves unsigned.
    fn dkim_keys(&mut self, installation: &Installation) {
        let keys: BTreeMap<String, &DkimKey> =
            self.facts.inventory.dkim_keys.iter().map(|key| (dkim::key_file_name(key), key)).collect();
        for step in installation.steps.iter().filter(|step| step.action.writes()) {
            let wanted = step.wanted.as_ref().filter(|wanted| wanted.part == Part::DkimKey);
            let content = wanted.and_then(|wanted| wanted.content.as_ref());
            let key = step.path.file_name().and_then(|name| keys.get(name));
            let (Some(content), Some(key)) = (content, key) else { continue };
            if private::public_half(content).as_deref() != Some(key.public.as_str()) {
                let record = dkim::record_name(&key.selector, &key.domain);
                let message = format!("the private key of {record} is not the one whose record is published");
                self.error("dkim-key-mismatch", message, "bring state/ back from a backup");
            }
        }
        for (domain, algorithm) in plan::missing_keys(self.facts.site, self.facts.inventory) {
            let message =
                format!("{domain} has no {} key, so its mail would not be signed with one", algorithm.as_str());
            self.error("dkim-key-missing", message, "make it: postseal render");
        }
    }

    /// A file below a directory that its reader may not search is not there for it.
    fn reachable(&mut self, installation: &Installation) {
        let layout = self.machine.layout;
        let accounts = &self.machine.accounts;
        let smtpd = (layout.smtpd_dir.into(), layout.smtpd_user);
        let rspamd = (Utf8PathBuf::from(layout.rspamd_state).join("dkim"), layout.rspamd_user);
        for (directory, name) in [smtpd, rspamd] {
            let Ok((user, group)) = accounts.user_and_group(name) else { continue };
            for above in directory.ancestors().filter(|path| *path != "/") {
                let step = installation.steps.iter().find(|step| step.path == above && step.action != Action::Keep);
                let wanted = step.and_then(|step| step.wanted.as_ref()).map(|wanted| (wanted.owner, wanted.mode));
                let found = || match self.machine.root.look(above) {
                    Ok(Found::Directory(owner, mode)) => Some((owner, mode)),
                    _ => None,
                };
                let Some((owner, mode)) = wanted.or_else(found) else { continue };
                let bit = match owner {
                    (owner, _) if owner == user => 0o100,
                    (_, owner) if owner == group => 0o010,
                    _ => 0o001,
                };
                if mode & bit == 0 {
                    let message = format!("{name} may not search `{above}`, which has mode {mode:04o}");
                    let help = format!("let {name} through: chmod a+x {above}");
                    self.error("directory-closed", message, help);
                }
            }
        }
    }

    /// What the web server shows: nginx starts only with all of them, httpd leaves a name without one out. A mail server that meets
    /// the wrong one takes no policy.
    fn web_certificates(&mut self) {
        let (host, layout) = (self.machine.host, &self.machine.layout.web);
        let Some(server) = host.web.as_ref().map(|web| web.server) else { return };
        let mut missing = Vec::new();
        for served in served(self.facts.site, self.facts.inventory) {
            let Some((path, key)) = served.certificate(host) else { continue };
            let names: Vec<String> = served.names().collect();
            let order = acme_order(layout.acme_client, &names, layout.challenges);
            let root = &self.machine.root;
            let [chain, key_file] =
                [&path, &key].map(|path| root.read_through_links(path.as_str().into(), MAXIMUM_PEM));
            let read = chain.ok().filter(|_| key_file.is_ok());
            let chain = read.and_then(|(_, _, text)| Certificate::from_pem(text.expose_str()?).ok());
            let Some(chain) = chain else {
                missing.push((path, order));
                continue;
            };
            self.validity(path.as_str().into(), &chain);
            if let Some(name) = names.iter().find(|name| !covers(&chain, name)) {
                let message = format!("the certificate `{path}` is not for {name}");
                self.warning("web-certificate-name", message, format!("have it issued for all names: {order}"));
            }
        }
        let Some((path, order)) = missing.first() else { return };
        let more = missing.len() - 1;
        let others = if more == 0 { String::new() } else { format!(", nor are {more} others") };
        let message = format!("the certificate `{path}` and its key are not there{others}");
        let help = format!("have it issued first, docs/web.md says how: {order}");
        match server {
            WebServer::Httpd => self.warning("web-certificate", message, help),
            WebServer::Caddy | WebServer::Nginx => self.error("web-certificate", message, help),
        }
    }

    /// What smtpd looks for at its start, or shortly after.
    fn surroundings(&mut self) {
        let layout = self.machine.layout;
        let filter = Utf8Path::new(layout.filter_dir).join("filter-rspamd");
        let is_file =
            |path: &Utf8Path| fs::metadata(self.machine.root.outside(path)).is_ok_and(|found| found.is_file());
        if !is_file(&filter) {
            let message = format!("the filter `{filter}` is not there: smtpd would end shortly after its start");
            self.error("filter-missing", message, "install the package of filter-rspamd");
        }
        if !is_file(layout.system_ca.into()) {
            let message =
                format!("the system's authorities `{}` are not there: smtpd would end at its start", layout.system_ca);
            self.error("system-ca-missing", message, "install the package ca-certificates");
        }
        for name in [layout.smtpd_user, layout.mailbox_user] {
            if let Err(error) = self.machine.accounts.user(name) {
                let text = error.to_string();
                let (problem, _) = text.split_once("; ").unwrap_or((&text, ""));
                let help = format!("make it: useradd --system --user-group --shell /usr/sbin/nologin {name}");
                self.error("account-missing", problem, help);
            }
        }
    }
}

/// Returns the order that gets a certificate for some names, of which the first names it.
fn acme_order(client: AcmeClient, names: &[String], challenges: &str) -> String {
    let first = names.first().map_or("", String::as_str);
    match client {
        AcmeClient::AcmeClient => format!("acme-client -v {first}"),
        AcmeClient::Certbot => {
            let names = names.join(" -d ");
            format!("certbot certonly --webroot -w {challenges} --cert-name {first} -d {names}")
        }
    }
}

/// Tells whether a certificate is for a name: the name itself, or all below the same domain (RFC 9525 §6.3).
fn covers(certificate: &Certificate, name: &str) -> bool {
    let wildcard = name.split_once('.').map(|(_, rest)| format!("dns:*.{rest}"));
    let own = format!("dns:{name}");
    certificate.facts().names.iter().any(|named| *named == own || Some(named) == wildcard.as_ref())
}

/// Returns the SubjectPublicKeyInfo of the first private key in a PEM text, of any kind that can sign.
fn public_half(text: &Secret) -> Result<Vec<u8>, KeyError> {
    keys::spki_of(&keys::pkcs8_of_pem(text)?)
}
