//! The operating systems as data: paths, owners, daemon versions, service commands. Every path of the outer world that
//! postseal renders stands here and nowhere else.
//!
//! Sources: Debian's packages (opensmtpd 7.4.0p1-1~bpo12+1, rspamd 3.4-1, dovecot 2.3.19), OpenBSD 7.x base and ports.
//! FreeBSD's ports and Alpine's packages were read, not run: their rows are data for a later release, see [`Platform::ready`].

use std::fmt;
use std::str::FromStr;

/// An operating system that a host of the site runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Platform {
    /// Alpine Linux.
    Alpine,
    /// Debian 12 with the backports suite, or later.
    Debian,
    /// FreeBSD with ports.
    FreeBsd,
    /// OpenBSD.
    OpenBsd,
}

/// What differs between the operating systems.
#[derive(Debug)]
pub struct Layout {
    /// The name in `postseal.toml`.
    pub name: &'static str,
    /// OpenSMTPD's main configuration file.
    pub smtpd_conf: &'static str,
    /// The directory that belongs to postseal: tables, trust list, TLS files, fragments.
    pub smtpd_dir: &'static str,
    /// The user that OpenSMTPD's unprivileged processes and its filters run as.
    pub smtpd_user: &'static str,
    /// The group of that user.
    pub smtpd_group: &'static str,
    /// Where OpenSMTPD looks for filters that are named without a path.
    pub filter_dir: &'static str,
    /// The authorities of the system: OpenSMTPD reads them at start for every TLS listener or relay without a `ca` of its own.
    pub system_ca: &'static str,
    /// The group of root.
    pub root_group: &'static str,
    /// The directory that holds Rspamd's `local.d` and `override.d`.
    pub rspamd_dir: &'static str,
    /// Rspamd's user.
    pub rspamd_user: &'static str,
    /// Rspamd's group.
    pub rspamd_group: &'static str,
    /// Rspamd's state directory; DKIM keys lie in `dkim` below it.
    pub rspamd_state: &'static str,
    /// Rspamd's run-time directory, for sockets.
    pub rspamd_run: &'static str,
    /// Dovecot's LMTP socket.
    pub lmtp_socket: &'static str,
    /// The user that owns virtual mailboxes, unless the settings name another.
    pub mailbox_user: &'static str,
    /// Where Maildir delivery keeps mail, unless the settings name another place.
    pub mailbox_dir: &'static str,
    /// OpenSMTPD's version on the oldest supported release.
    pub opensmtpd: Version,
    /// filter-rspamd's version there.
    pub filter_rspamd: Version,
    /// How OpenSMTPD is restarted: it has no reload.
    pub restart_smtpd: &'static str,
    /// How Rspamd is restarted.
    pub restart_rspamd: &'static str,
    /// How Rspamd is told to read its configuration anew, by SIGHUP: no request is lost.
    pub reload_rspamd: &'static str,
    /// How Dovecot is told to read its configuration, and what that names, anew.
    pub reload_dovecot: &'static str,
    /// What concerns web servers.
    pub web: WebLayout,
}

/// What differs between the operating systems for web servers.
#[derive(Debug)]
pub struct WebLayout {
    /// The directory that belongs to postseal; below it is one for each name that is served.
    pub root: &'static str,
    /// Where an ACME client leaves its answers (http-01, RFC 8555 §8.3), below the path that the challenge names.
    pub challenges: &'static str,
    /// What httpd does not see of each path: the directory that it is confined to.
    pub chroot: &'static str,
    /// Where the ACME client keeps certificates, unless the settings name another place.
    pub certificates: &'static str,
    /// How it names them.
    pub acme_client: AcmeClient,
    /// Where nginx reads its configuration.
    pub nginx: WebDaemon,
    /// Where Caddy does.
    pub caddy: WebDaemon,
    /// Where OpenBSD's httpd does; none where it is not.
    pub httpd: Option<WebDaemon>,
}

/// A web server of an operating system.
#[derive(Debug)]
pub struct WebDaemon {
    /// The file of ours that its configuration includes.
    pub conf: &'static str,
    /// Its main configuration file.
    pub main: &'static str,
    /// How it is told to read its configuration anew.
    pub reload: &'static str,
}

/// How an ACME client names its files in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcmeClient {
    /// As OpenBSD's acme-client is set up: `NAME.fullchain.pem` and `private/NAME.key`.
    AcmeClient,
    /// certbot: `NAME/fullchain.pem` and `NAME/privkey.pem`.
    Certbot,
}

/// The web servers that postseal knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WebServer {
    /// Caddy, which gets its certificates by itself.
    Caddy,
    /// OpenBSD's httpd.
    Httpd,
    /// nginx.
    Nginx,
}

impl WebServer {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Caddy, Self::Httpd, Self::Nginx];

    /// Returns its name in the settings, which is its program's too.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Caddy => "caddy",
            Self::Httpd => "httpd",
            Self::Nginx => "nginx",
        }
    }
}

impl WebLayout {
    /// Returns where a web server reads its configuration; none if the operating system does not have it.
    pub fn daemon(&self, server: WebServer) -> Option<&WebDaemon> {
        match server {
            WebServer::Caddy => Some(&self.caddy),
            WebServer::Httpd => self.httpd.as_ref(),
            WebServer::Nginx => Some(&self.nginx),
        }
    }
}

/// A release number of a daemon; a patch level (`p1`) is not compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Major, minor and patch number; what is not written is 0.
    pub numbers: [u32; 3],
}

impl Version {
    /// Makes a version of its three numbers.
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { numbers: [major, minor, patch] }
    }
}

impl FromStr for Version {
    type Err = crate::names::NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || crate::names::NameError {
            problem: format!("`{}` is no version", crate::names::shown(text)),
            mend: "write one as the daemon prints it, such as 7.4.0p1 or 0.1.8".to_owned(),
        };
        let plain = text.split_once('p').map_or(text, |(numbers, _)| numbers);
        let mut version = Self::new(0, 0, 0);
        let mut parts = plain.split('.');
        for number in &mut version.numbers {
            let Some(part) = parts.next() else { break };
            *number = part.parse().map_err(|_| wrong())?;
        }
        if parts.next().is_some() { Err(wrong()) } else { Ok(version) }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.numbers;
        write!(f, "{major}.{minor}")?;
        if patch > 0 { write!(f, ".{patch}") } else { Ok(()) }
    }
}

/// Below 7.0 `verify` also admits what any public CA signed (OpenSMTPD#926), and Debian 12's 6.8 cannot serve TLS (#1239).
pub const OPENSMTPD_MINIMUM: Version = Version::new(7, 0, 0);

/// Below 0.1.8 filter-rspamd hides the login from Rspamd when OpenSMTPD is 7.4 or later, and it speaks no unix socket.
pub const FILTER_RSPAMD_MINIMUM: Version = Version::new(0, 1, 8);

impl Platform {
    /// Every platform of the table.
    pub const ALL: [Self; 4] = [Self::Alpine, Self::Debian, Self::FreeBsd, Self::OpenBsd];

    /// Tells whether the platform can be named in the settings yet: its row is checked against the real packages.
    pub fn ready(self) -> bool {
        matches!(self, Self::Debian | Self::OpenBsd)
    }

    /// Returns the platform's row of the table.
    pub fn layout(self) -> &'static Layout {
        match self {
            Self::Alpine => &ALPINE,
            Self::Debian => &DEBIAN,
            Self::FreeBsd => &FREEBSD,
            Self::OpenBsd => &OPENBSD,
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.layout().name)
    }
}

static ALPINE: Layout = Layout {
    name: "alpine",
    smtpd_conf: "/etc/smtpd/smtpd.conf",
    smtpd_dir: "/etc/smtpd/postseal",
    smtpd_user: "smtpd",
    smtpd_group: "smtpd",
    filter_dir: "/usr/lib/opensmtpd",
    system_ca: "/etc/ssl/certs/ca-certificates.crt",
    root_group: "root",
    rspamd_dir: "/etc/rspamd",
    rspamd_user: "rspamd",
    rspamd_group: "rspamd",
    rspamd_state: "/var/lib/rspamd",
    rspamd_run: "/run/rspamd",
    lmtp_socket: "/run/dovecot/lmtp",
    mailbox_user: "vmail",
    mailbox_dir: "/var/vmail",
    opensmtpd: Version::new(7, 4, 0),
    filter_rspamd: Version::new(0, 1, 8),
    restart_smtpd: "rc-service smtpd restart",
    restart_rspamd: "rc-service rspamd restart",
    reload_rspamd: "rc-service rspamd reload",
    reload_dovecot: "rc-service dovecot reload",
    web: WebLayout {
        root: "/var/www/postseal",
        challenges: "/var/www/postseal/acme",
        chroot: "",
        certificates: "/etc/letsencrypt/live",
        acme_client: AcmeClient::Certbot,
        nginx: WebDaemon {
            conf: "/etc/nginx/http.d/postseal.conf",
            main: "/etc/nginx/nginx.conf",
            reload: "rc-service nginx reload",
        },
        caddy: WebDaemon {
            conf: "/etc/caddy/postseal.caddy",
            main: "/etc/caddy/Caddyfile",
            reload: "rc-service caddy reload",
        },
        httpd: None,
    },
};

static DEBIAN: Layout = Layout {
    name: "debian",
    smtpd_conf: "/etc/smtpd.conf",
    smtpd_dir: "/etc/mail/postseal",
    smtpd_user: "opensmtpd",
    smtpd_group: "opensmtpd",
    filter_dir: "/usr/libexec/opensmtpd",
    system_ca: "/etc/ssl/certs/ca-certificates.crt",
    root_group: "root",
    rspamd_dir: "/etc/rspamd",
    rspamd_user: "_rspamd",
    rspamd_group: "_rspamd",
    rspamd_state: "/var/lib/rspamd",
    rspamd_run: "/run/rspamd",
    lmtp_socket: "/run/dovecot/lmtp",
    mailbox_user: "vmail",
    mailbox_dir: "/var/vmail",
    opensmtpd: Version::new(7, 4, 0),
    filter_rspamd: Version::new(0, 1, 8),
    restart_smtpd: "systemctl restart opensmtpd",
    restart_rspamd: "systemctl restart rspamd",
    reload_rspamd: "systemctl reload rspamd",
    reload_dovecot: "systemctl reload dovecot",
    web: WebLayout {
        root: "/var/www/postseal",
        challenges: "/var/www/postseal/acme",
        chroot: "",
        certificates: "/etc/letsencrypt/live",
        acme_client: AcmeClient::Certbot,
        nginx: WebDaemon {
            conf: "/etc/nginx/conf.d/postseal.conf",
            main: "/etc/nginx/nginx.conf",
            reload: "systemctl reload nginx",
        },
        caddy: WebDaemon {
            conf: "/etc/caddy/postseal.caddy",
            main: "/etc/caddy/Caddyfile",
            reload: "systemctl reload caddy",
        },
        httpd: None,
    },
};

static FREEBSD: Layout = Layout {
    name: "freebsd",
    smtpd_conf: "/usr/local/etc/mail/smtpd.conf",
    smtpd_dir: "/usr/local/etc/mail/postseal",
    smtpd_user: "_smtpd",
    smtpd_group: "_smtpd",
    filter_dir: "/usr/local/libexec/opensmtpd",
    system_ca: "/usr/local/share/certs/ca-root-nss.crt",
    root_group: "wheel",
    rspamd_dir: "/usr/local/etc/rspamd",
    rspamd_user: "rspamd",
    rspamd_group: "rspamd",
    rspamd_state: "/var/db/rspamd",
    rspamd_run: "/var/run/rspamd",
    lmtp_socket: "/var/run/dovecot/lmtp",
    mailbox_user: "vmail",
    mailbox_dir: "/var/vmail",
    opensmtpd: Version::new(7, 4, 0),
    filter_rspamd: Version::new(0, 1, 8),
    restart_smtpd: "service smtpd restart",
    restart_rspamd: "service rspamd restart",
    reload_rspamd: "service rspamd reload",
    reload_dovecot: "service dovecot reload",
    web: WebLayout {
        root: "/usr/local/www/postseal",
        challenges: "/usr/local/www/postseal/acme",
        chroot: "",
        certificates: "/usr/local/etc/letsencrypt/live",
        acme_client: AcmeClient::Certbot,
        nginx: WebDaemon {
            conf: "/usr/local/etc/nginx/postseal.conf",
            main: "/usr/local/etc/nginx/nginx.conf",
            reload: "service nginx reload",
        },
        caddy: WebDaemon {
            conf: "/usr/local/etc/caddy/postseal.caddy",
            main: "/usr/local/etc/caddy/Caddyfile",
            reload: "service caddy reload",
        },
        httpd: None,
    },
};

static OPENBSD: Layout = Layout {
    name: "openbsd",
    smtpd_conf: "/etc/mail/smtpd.conf",
    smtpd_dir: "/etc/mail/postseal",
    smtpd_user: "_smtpd",
    smtpd_group: "_smtpd",
    filter_dir: "/usr/local/libexec/smtpd",
    system_ca: "/etc/ssl/cert.pem",
    root_group: "wheel",
    rspamd_dir: "/etc/rspamd",
    rspamd_user: "_rspamd",
    rspamd_group: "_rspamd",
    rspamd_state: "/var/rspamd",
    rspamd_run: "/var/run/rspamd",
    lmtp_socket: "/var/dovecot/lmtp",
    mailbox_user: "vmail",
    mailbox_dir: "/var/vmail",
    opensmtpd: Version::new(7, 4, 0),
    filter_rspamd: Version::new(0, 1, 8),
    restart_smtpd: "rcctl restart smtpd",
    restart_rspamd: "rcctl restart rspamd",
    reload_rspamd: "rcctl reload rspamd",
    reload_dovecot: "rcctl reload dovecot",
    web: WebLayout {
        root: "/var/www/postseal",
        challenges: "/var/www/acme",
        chroot: "/var/www",
        certificates: "/etc/ssl",
        acme_client: AcmeClient::AcmeClient,
        nginx: WebDaemon {
            conf: "/etc/nginx/postseal.conf",
            main: "/etc/nginx/nginx.conf",
            reload: "rcctl reload nginx",
        },
        caddy: WebDaemon {
            conf: "/etc/caddy/postseal.caddy",
            main: "/etc/caddy/Caddyfile",
            reload: "rcctl reload caddy",
        },
        httpd: Some(WebDaemon {
            conf: "/etc/httpd.postseal.conf",
            main: "/etc/httpd.conf",
            reload: "rcctl reload httpd",
        }),
    },
};

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn versions_are_read_as_daemons_print_them() {
        assert_eq!("7.4.0p1".parse::<Version>().unwrap(), Version::new(7, 4, 0));
        assert_eq!("0.1.8".parse::<Version>().unwrap().to_string(), "0.1.8");
        assert!("6.8.0p2".parse::<Version>().unwrap() < OPENSMTPD_MINIMUM);
        for bad in ["", "seven", "7.4.0.1", "-1"] {
            assert!(bad.parse::<Version>().is_err(), "{bad}");
        }
    }

    #[test]
    fn every_path_of_the_table_is_absolute_and_plain() {
        for platform in Platform::ALL {
            let row = platform.layout();
            for path in [
                row.smtpd_conf,
                row.smtpd_dir,
                row.filter_dir,
                row.system_ca,
                row.rspamd_dir,
                row.rspamd_state,
                row.rspamd_run,
                row.lmtp_socket,
                row.mailbox_dir,
                row.web.root,
                row.web.challenges,
                row.web.certificates,
            ] {
                assert!(path.parse::<crate::names::AbsolutePath>().is_ok(), "{platform}: {path}");
            }
        }
    }
}
