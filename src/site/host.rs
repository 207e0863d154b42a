//! The tables of a host: its addresses, its certificates and the releases of its daemons.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::file::HostDraft;
use super::value::{Reader, Setting, Table};
use super::{CertificateSource, Host, SmtpdConf, Web, WebServer};
use crate::diag::{Diagnostic, Place};
use crate::names::{AbsolutePath, Digest, NameError, shown};
use crate::platform::{FILTER_RSPAMD_MINIMUM, OPENSMTPD_MINIMUM, Platform, Version};

impl Reader<'_> {
    /// Reads one `[[host]]`.
    pub(super) fn host(&mut self, table: &Table<'_>) -> Option<HostDraft> {
        let name = self.required(table, "name", "\"mail.example.com\"");
        let place = name.as_ref().map(|setting| self.place(setting.span.clone()));
        let name = name.and_then(|setting| self.parse(&setting));
        let platform = self.required(table, "platform", "\"debian\"").and_then(|setting| self.platform(&setting));
        let (addresses, places) = self.addresses(table);
        let listen = self.listen(table, &addresses);
        let smtpd_conf = self.choice_or(table, "smtpd_conf", &SMTPD_CONFS, SmtpdConf::Complete);
        let mx_certificate = self.certificate(table, "mx_certificate", "host.mx_certificate");
        let submission_certificate = self.certificate(table, "submission_certificate", "host.submission_certificate");
        let opensmtpd = self.version(table, "opensmtpd", &OPENSMTPD);
        let filter_rspamd = self.version(table, "filter_rspamd", &FILTER_RSPAMD);
        let mx_preference =
            table.get("mx_preference").and_then(|setting| self.number(&setting, 0..=65535, "preference"));
        let mx_spki = self.key_digests(table);
        let web = self.web(table);
        let platform = platform?;
        let host = Host {
            name: name?,
            platform,
            addresses,
            listen,
            smtpd_conf,
            mx_certificate,
            submission_certificate,
            opensmtpd: opensmtpd.unwrap_or(platform.layout().opensmtpd),
            filter_rspamd: filter_rspamd.unwrap_or(platform.layout().filter_rspamd),
            mx_preference: mx_preference.unwrap_or(PREFERENCE),
            mx_spki,
            web,
        };
        Some(HostDraft { host, name: place?, addresses: places })
    }

    fn key_digests(&mut self, table: &Table<'_>) -> Vec<Digest> {
        let Some(setting) = table.get("mx_spki") else { return Vec::new() };
        let read = |reader: &mut Self, element: &Setting<'_>| {
            let text = reader.text(element)?;
            let refuse = |_| NameError {
                problem: format!("`{}` is no SHA-256 of a key", shown(text)),
                mend: "write the 64 hexadecimal digits that `postseal tlsa FILE` prints".to_owned(),
            };
            reader.checked(text.parse().map_err(refuse), element.span.clone())
        };
        self.distinct(&setting, read).unwrap_or_default().into_iter().map(|(digest, _)| digest).collect()
    }

    fn web(&mut self, table: &Table<'_>) -> Option<Web> {
        let setting = table.get("web")?;
        let (word, body) = self.variant(&setting, "host.web")?;
        let (server, name) = match word {
            "caddy" => (WebServer::Caddy, "host.web.caddy"),
            "httpd" => (WebServer::Httpd, "host.web.httpd"),
            _ => (WebServer::Nginx, "host.web.nginx"),
        };
        let table = body.and_then(|body| self.table(&body, name));
        let certificates = table.and_then(|table| table.get("certificates")).and_then(|setting| self.parse(&setting));
        Some(Web { server, certificates })
    }

    fn platform(&mut self, setting: &Setting<'_>) -> Option<Platform> {
        let rows = Platform::ALL.map(|platform| (platform.layout().name, platform));
        let (ready, later): (Vec<_>, Vec<_>) = rows.into_iter().partition(|(_, platform)| platform.ready());
        let Some((name, _)) = later.into_iter().find(|(name, _)| setting.as_text() == Some(name)) else {
            return self.choice(setting, &ready);
        };
        let message = format!("postseal does not know `{name}` well enough yet");
        let help = "use debian or openbsd; a later release brings the others";
        self.error("not-yet", message, (setting.span.clone(), "not yet"), help);
        None
    }

    fn addresses(&mut self, table: &Table<'_>) -> (Vec<IpAddr>, Vec<Place>) {
        let Some(setting) = table.get("addresses") else { return (Vec::new(), Vec::new()) };
        let read = |reader: &mut Self, element: &Setting<'_>| {
            let address = reader.address(element)?;
            let Some(reason) = why_not_public(address) else { return Some(address) };
            let help = "write an address that the internet reaches the host at, or leave `addresses` out";
            let message = format!("`{address}` is {reason}, not a public address");
            reader.error("address-not-public", message, (element.span.clone(), reason), help);
            None
        };
        self.distinct(&setting, read).unwrap_or_default().into_iter().unzip()
    }

    fn listen(&mut self, table: &Table<'_>, addresses: &[IpAddr]) -> Vec<IpAddr> {
        let Some(setting) = table.get("listen") else {
            let ipv6 = addresses.iter().any(IpAddr::is_ipv6).then_some(Ipv6Addr::UNSPECIFIED.into());
            return std::iter::once(Ipv4Addr::UNSPECIFIED.into()).chain(ipv6).collect();
        };
        let read = |reader: &mut Self, element: &Setting<'_>| {
            let address = reader.address(element)?;
            let mapped = matches!(address, IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some());
            if !(address.is_multicast() || mapped || address == IpAddr::V4(Ipv4Addr::BROADCAST)) {
                return Some(address);
            }
            let problem = format!("nothing can listen on `{address}`");
            let mend = "write an address of the host, 0.0.0.0 for all of IPv4, or :: for all of IPv6".to_owned();
            reader.checked(Err(NameError { problem, mend }), element.span.clone())
        };
        let values = self.distinct(&setting, read).unwrap_or_default();
        self.not_empty(&setting, "leave `listen` out to listen on every address");
        values.into_iter().map(|(address, _)| address).collect()
    }

    fn address(&mut self, element: &Setting<'_>) -> Option<IpAddr> {
        let text = self.text(element)?;
        let address = text.parse().map_err(|_| NameError {
            problem: format!("`{}` is no IP address", shown(text)),
            mend: "write an address such as 203.0.113.10 or 2001:db8::10, without brackets or a prefix length"
                .to_owned(),
        });
        self.checked(address, element.span.clone())
    }

    fn certificate(&mut self, host: &Table<'_>, key: &'static str, name: &'static str) -> CertificateSource {
        let issued = CertificateSource::Issued;
        let Some(setting) = host.get(key) else { return issued };
        let files = if key == "mx_certificate" {
            ["host.mx_certificate.files", "host.mx_certificate.issued"]
        } else {
            ["host.submission_certificate.files", "host.submission_certificate.issued"]
        };
        match self.variant(&setting, name) {
            Some(("files", Some(body))) => self.files(&body, files[0]).unwrap_or(issued),
            Some(("files", None)) => {
                self.needs_table(&setting, "files", files[0]);
                issued
            }
            Some((_, body)) => {
                self.nothing(body, files[1]);
                issued
            }
            None => issued,
        }
    }

    fn files(&mut self, body: &Setting<'_>, name: &'static str) -> Option<CertificateSource> {
        let table = self.table(body, name)?;
        let example = "\"/etc/ssl/mail.example.com/fullchain.pem\"";
        let certificate = self.required(&table, "certificate", example).and_then(|setting| self.parse(&setting));
        let key = self.required(&table, "key", "\"/etc/ssl/mail.example.com/privkey.pem\"");
        let key_place = key.as_ref().map(|setting| setting.span.clone());
        let key: Option<AbsolutePath> = key.and_then(|setting| self.parse(&setting));
        let certificate: AbsolutePath = certificate?;
        let key = key?;
        if certificate == key {
            let message = format!("`{key}` cannot be both the certificate and its private key");
            let help = "name the file with the chain as `certificate` and the one with the private key as `key`";
            self.error("certificate-is-key", message, (key_place.unwrap_or_default(), "also the certificate"), help);
        }
        Some(CertificateSource::Files { certificate, key })
    }

    fn version(&mut self, table: &Table<'_>, key: &'static str, rule: &VersionRule) -> Option<Version> {
        let setting = table.get(key)?;
        let version: Version = self.parse(&setting)?;
        if version < rule.minimum {
            let message = format!("{} {version} is too old: {} or later is needed", rule.daemon, rule.minimum);
            let place = self.place(setting.span);
            let finding = Diagnostic::error(rule.code, message, rule.mend).at(place, "too old").note(rule.reason);
            self.report(finding);
        }
        Some(version)
    }
}

/// Says why no mail from the internet reaches the address; addresses of the documentation ranges pass, for examples.
fn why_not_public(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(ip) => match ip.octets() {
            [0, ..] => Some("the unspecified address"),
            [127, ..] => Some("a loopback address"),
            [10, ..] | [192, 168, ..] | [172, 16..=31, ..] => Some("a private address"),
            [100, 64..=127, ..] => Some("an address behind a provider's NAT"),
            [169, 254, ..] => Some("a link-local address"),
            [224..=239, ..] => Some("a multicast address"),
            [240..=255, ..] => Some("a reserved address"),
            _ => None,
        },
        IpAddr::V6(ip) if ip.is_unspecified() => Some("the unspecified address"),
        IpAddr::V6(ip) if ip.is_loopback() => Some("a loopback address"),
        IpAddr::V6(ip) => match ip.segments() {
            [0xff00..=0xffff, ..] => Some("a multicast address"),
            [0xfe80..=0xfeff, ..] => Some("a link-local address"),
            [0xfc00..=0xfdff, ..] => Some("a private address"),
            [0, 0, 0, 0, 0, 0xffff, ..] => Some("an IPv4 address in IPv6 form"),
            [0x2000..=0x3fff, ..] => None,
            _ => Some("a reserved address"),
        },
    }
}

/// Every host is as good as the others: mail spreads over them.
const PREFERENCE: u16 = 10;

/// The oldest release of a daemon that can be named.
struct VersionRule {
    daemon: &'static str,
    minimum: Version,
    code: &'static str,
    reason: &'static str,
    mend: &'static str,
}

static OPENSMTPD: VersionRule = VersionRule {
    daemon: "OpenSMTPD",
    minimum: OPENSMTPD_MINIMUM,
    code: "opensmtpd-too-old",
    reason: "before 7.0 it admits a client certificate of any public CA (OpenSMTPD#926), and the 6.8 of Debian 12 cannot \
             serve TLS (OpenSMTPD#1239)",
    mend: "upgrade OpenSMTPD; Debian 12 has 7.4 in bookworm-backports",
};

static FILTER_RSPAMD: VersionRule = VersionRule {
    daemon: "filter-rspamd",
    minimum: FILTER_RSPAMD_MINIMUM,
    code: "filter-rspamd-too-old",
    reason: "before 0.1.8 it hides the login from Rspamd under OpenSMTPD 7.4, so that mail of users goes out unsigned, and \
             it speaks no unix socket",
    mend: "upgrade opensmtpd-filter-rspamd to 0.1.8 or later",
};

const SMTPD_CONFS: [(&str, SmtpdConf); 2] = [("complete", SmtpdConf::Complete), ("fragments", SmtpdConf::Fragments)];
