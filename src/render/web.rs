//! What the site's web server hands out, and its configuration.
//!
//! Each name has a directory of its own below the web root, and a file lies there under the path by which it is asked for, so
//! that a configuration needs no list of files: nginx and Caddy find the directory by the name.

use serde::Serialize;

use super::{HostTree, RenderError, context};
use crate::names::HostName;
use crate::platform::{WebDaemon, WebServer};
use crate::policy::mta_sts;
use crate::policy::web::{Purpose, Served, served};
use crate::site::{Bimi, Host, Site};
use crate::tree::{Class, Content, Entry, Part};

/// The path of an MTA-STS policy (RFC 8461 §3.3).
const POLICY: &str = "/.well-known/mta-sts.txt";

/// The path of the settings that mail programs look for first, and the one of draft-ietf-mailmaint-autoconfig.
const SETTINGS: [&str; 2] = ["/mail/config-v1.1.xml", "/.well-known/autoconfig/mail/config-v1.1.xml"];

/// What a template of a web server's configuration sees.
#[derive(Debug, Serialize)]
struct Public<'a> {
    /// Where the file itself will lie.
    conf: &'static str,
    /// The directory of the names' directories, as the server sees it.
    root: &'a str,
    /// The directory of the challenges, as the server sees it.
    challenges: &'a str,
    ipv6: bool,
    sites: Vec<SiteView>,
}

/// Names that have one certificate.
#[derive(Debug, Serialize)]
struct SiteView {
    names: Vec<NameView>,
    certificate: Option<String>,
    key: Option<String>,
}

/// A name, as the servers write it.
#[derive(Debug, Serialize)]
struct NameView {
    name: String,
    /// As nginx takes it.
    pattern: String,
    /// As Caddy takes it.
    https: String,
    http: String,
    /// Its directory, as the server sees it.
    root: String,
    files: Vec<FileView>,
}

/// A file that a name has, for a server that has each listed.
#[derive(Debug, Serialize)]
struct FileView {
    uri: String,
    /// The path below the name's directory, if it is another.
    rewrite: Option<&'static str>,
    kind: &'static str,
    subkind: &'static str,
}

/// What a mail program is told of a domain.
#[derive(Debug, Serialize)]
struct Settings<'a> {
    domain: &'a str,
    incoming: &'a [ServerView],
    outgoing: &'a [ServerView],
}

/// A server of the site's, as Thunderbird's `config-v1.1.xml` has it.
#[derive(Debug, Serialize)]
struct ServerView {
    kind: &'static str,
    host: String,
    port: &'static str,
    socket: &'static str,
}

impl ServerView {
    fn new(host: &HostName, kind: &'static str, port: &'static str) -> Self {
        let socket = if port == "587" { "STARTTLS" } else { "SSL" };
        Self { kind, host: host.to_string(), port, socket }
    }
}

/// Returns the servers that mail is read from, and those that it is sent by, each in the order in which they are tried.
fn servers(site: &Site) -> (Vec<ServerView>, Vec<ServerView>) {
    let mut hosts: Vec<&Host> = site.hosts.iter().collect();
    hosts.sort_by_key(|host| host.mx_preference);
    let each = |kind, port| hosts.iter().map(move |host| ServerView::new(&host.name, kind, port));
    let imap = each("imap", "993").filter(|_| site.services.imaps);
    let pop3 = each("pop3", "995").filter(|_| site.services.pop3s);
    (imap.chain(pop3).collect(), each("smtp", "465").chain(each("smtp", "587")).collect())
}

impl HostTree<'_> {
    /// Adds what the web server of this host hands out, and its configuration.
    pub(super) fn web(&self, entries: &mut Vec<Entry>) -> Result<(), RenderError> {
        let web = &self.layout.web;
        let Some(server) = self.host.web.as_ref().map(|web| web.server) else { return Ok(()) };
        let Some(daemon) = web.daemon(server) else { return Ok(()) };
        let what = (Class::Public, Part::WebFile);
        for directory in [web.root, web.challenges] {
            entries.push(self.root_entry(directory, 0o755, what, Content::Directory));
        }
        let all = served(self.site, self.inventory);
        let (incoming, outgoing) = servers(self.site);
        for served in &all {
            for purpose in &served.purposes {
                let below = format!("{}/{}", web.root, purpose.name(&served.domain.name));
                let mut add = |path: &str, text: &str| {
                    let content = Content::Text(text.to_owned());
                    entries.push(self.root_entry(&format!("{below}{path}"), 0o644, what, content));
                };
                match purpose {
                    Purpose::Autoconfig => {
                        let domain = served.domain.name.as_str();
                        let settings = Settings { domain, incoming: &incoming, outgoing: &outgoing };
                        let text = self.templates.render("web/autoconfig.xml", &context(&settings))?;
                        add(SETTINGS[0], &text);
                    }
                    Purpose::Bimi => logo_files(served).for_each(|file| {
                        // What is missing here is told where the files are read.
                        if let Some(text) = self.site.files.get(&format!("bimi/{file}")) {
                            add(&format!("/{file}"), text);
                        }
                    }),
                    Purpose::MtaSts => {
                        if let Some(text) = mta_sts::policy(&served.in_force) {
                            add(POLICY, &text);
                        }
                    }
                }
            }
        }
        self.web_conf(server, daemon, &all, entries)
    }

    fn web_conf(
        &self,
        server: WebServer,
        daemon: &WebDaemon,
        all: &[Served<'_>],
        entries: &mut Vec<Entry>,
    ) -> Result<(), RenderError> {
        let inside = |path: &'static str| match server {
            WebServer::Httpd => path.strip_prefix(self.layout.web.chroot).unwrap_or(path),
            WebServer::Caddy | WebServer::Nginx => path,
        };
        let root = inside(self.layout.web.root);
        let mut sites: Vec<SiteView> = all.iter().map(|served| SiteView::new(served, self.host, root)).collect();
        if sites.iter().all(|site| site.certificate.is_none()) {
            // Caddy reads one block of many names faster than many blocks.
            let names: Vec<NameView> = sites.into_iter().flat_map(|site| site.names).collect();
            sites = if names.is_empty() { Vec::new() } else { vec![SiteView { names, certificate: None, key: None }] };
        }
        let ipv6 = self.host.listen.iter().any(std::net::IpAddr::is_ipv6);
        let view = Public { conf: daemon.conf, root, challenges: inside(self.layout.web.challenges), ipv6, sites };
        let context = context(&view);
        let acme = daemon.conf.replace("postseal.conf", "postseal-acme.conf");
        let files = match server {
            WebServer::Caddy => vec![("web/postseal.caddy", daemon.conf.to_owned())],
            WebServer::Httpd => vec![("web/httpd.conf", daemon.conf.to_owned())],
            WebServer::Nginx => vec![("web/nginx-acme.conf", acme), ("web/nginx.conf", daemon.conf.to_owned())],
        };
        for (template, path) in files {
            let text = self.templates.render(template, &context)?;
            let what = (Class::Public, Part::WebConf(server));
            entries.push(self.root_entry(&path, 0o644, what, Content::Text(text)));
        }
        Ok(())
    }
}

/// Returns the files of a logo that the site itself serves.
fn logo_files<'a>(served: &'a Served<'_>) -> impl Iterator<Item = &'a str> {
    let (file, certificate) = match &served.domain.bimi {
        Bimi::Logo { file, certificate, base: None } => (Some(file), certificate.as_ref()),
        _ => (None, None),
    };
    // One path holds one file.
    file.into_iter().chain(certificate.filter(|certificate| Some(*certificate) != file)).map(String::as_str)
}

impl SiteView {
    fn new(served: &Served<'_>, host: &Host, root: &str) -> Self {
        let names = served.purposes.iter().map(|purpose| NameView::new(served, *purpose, root)).collect();
        let (certificate, key) = served.certificate(host).unzip();
        Self { names, certificate, key }
    }
}

impl NameView {
    fn new(served: &Served<'_>, purpose: Purpose, root: &str) -> Self {
        let name = purpose.name(&served.domain.name);
        let file = |uri: &str, rewrite, (kind, subkind)| FileView { uri: uri.to_owned(), rewrite, kind, subkind };
        let files = match purpose {
            Purpose::Autoconfig => SETTINGS
                .map(|uri| file(uri, (uri != SETTINGS[0]).then_some(SETTINGS[0]), ("text", "xml")))
                .into_iter()
                .collect(),
            Purpose::Bimi => logo_files(served)
                .zip([("image", "svg+xml"), ("application", "pem-certificate-chain")])
                .map(|(name, media)| file(&format!("/{name}"), None, media))
                .collect(),
            Purpose::MtaSts => vec![file(POLICY, None, ("text", "plain"))],
        };
        Self {
            pattern: nginx_name(&name),
            https: format!("https://{name}"),
            http: format!("http://{name}"),
            root: format!("{root}/{name}"),
            name,
            files,
        }
    }
}

/// The longest name that has room in nginx's table of names, whose rows have 64 octets by default: it does not start with a
/// longer one, and the size is for the administrator to set, once.
const LONGEST_ROW: usize = 46;

/// Returns a name as nginx takes it: a longer one is a pattern, for patterns are in no table.
fn nginx_name(name: &str) -> String {
    if name.len() <= LONGEST_ROW { name.to_owned() } else { format!("~^{}\\z", name.replace('.', "\\.")) }
}
