//! The settings file that `init` writes: short, commented, and read back by `load` as it was answered.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::{Accounts, CertificateSource};
use crate::keys::KeyKind;
use crate::names::{DomainName, HostName, MailAddress};
use crate::platform::Platform;

/// What `init` knows about the new site.
#[derive(Clone, Debug)]
pub struct InitAnswers {
    /// The first domain.
    pub domain: DomainName,
    /// The host that takes its mail.
    pub host: HostName,
    /// The operating system there.
    pub platform: Platform,
    /// The host's public addresses; may be empty.
    pub addresses: Vec<IpAddr>,
    /// Who keeps logins and passwords.
    pub accounts: Accounts,
    /// The certificate of port 25.
    pub mx_certificate: CertificateSource,
    /// The certificate of ports 465 and 587.
    pub submission_certificate: CertificateSource,
    /// The kind of the site CA's key.
    pub ca_key: KeyKind,
    /// Who reads the mail to postmaster and abuse, and the DMARC reports.
    pub first_user: Option<MailAddress>,
}

/// Returns a settings file for the answers. A line that is commented out shows a setting's default or an example.
pub fn starting_settings(answers: &InitAnswers) -> String {
    let mut text = String::from(HEAD);
    text += &accounts(&answers.accounts);
    text += CLIENTS;
    text += DKIM;
    text += &ca(answers);
    text += &host(answers);
    text += &domain(answers);
    text += &aliases(answers);
    text += &delivery(answers.platform);
    text
}

/// Returns the text as a TOML string; control and bidirectional characters are escaped.
pub fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            ' '..='~' => quoted.push(c),
            _ if c.is_alphanumeric() => quoted.push(c),
            // Writing to a String cannot fail.
            _ => _ = write!(quoted, "\\U{:08X}", u32::from(c)),
        }
    }
    quoted + "\""
}

/// Returns a line, commented out if it only says the default.
fn line(is_default: bool, setting: &str) -> String {
    if is_default { format!("# {setting}\n") } else { format!("{setting}\n") }
}

/// Returns a line with a remark behind it.
fn remarked(is_default: bool, setting: &str, remark: &str) -> String {
    format!("{:<34} # {remark}\n", line(is_default, setting).trim_end())
}

fn accounts(accounts: &Accounts) -> String {
    let (managed, kind, path) = match accounts {
        Accounts::External { kind, path } => (false, kind.as_str(), path.as_str()),
        Accounts::Managed => (true, "file", "/etc/mail/creds"),
    };
    let external = format!("accounts.external = {{ type = {}, path = {} }}", quote(kind), quote(path));
    line(!managed, "accounts = \"managed\"") + &line(managed, &external)
}

fn ca(answers: &InitAnswers) -> String {
    let name = format!("name = {}", quote(&format!("{} mail CA", answers.domain)));
    let key = format!("key = \"{}\"", answers.ca_key);
    let key = remarked(answers.ca_key == KeyKind::P256, &key, "or p256, rsa2048, rsa3072");
    CA.to_owned() + &remarked(true, &name, "people see it when they trust the CA") + &key
}

fn host(answers: &InitAnswers) -> String {
    let addresses: Vec<String> = answers.addresses.iter().map(|address| quote(&address.to_string())).collect();
    let shown = if addresses.is_empty() { "\"203.0.113.10\"".to_owned() } else { addresses.join(", ") };
    let layout = answers.platform.layout();
    let (opensmtpd, filter) = (quote(&layout.opensmtpd.to_string()), quote(&layout.filter_rspamd.to_string()));
    [
        format!("{HOST}name = {}\n", quote(answers.host.as_str())),
        remarked(false, &format!("platform = {}", quote(layout.name)), "debian or openbsd"),
        remarked(addresses.is_empty(), &format!("addresses = [{shown}]"), "for the DNS records"),
        HOST_DEFAULTS.to_owned(),
        remarked(true, &format!("opensmtpd = {opensmtpd}"), "the releases that the host runs, if they differ"),
        line(true, &format!("filter_rspamd = {filter}")),
        CERTIFICATES.to_owned(),
        certificate("mx_certificate", answers, &answers.mx_certificate),
        certificate("submission_certificate", answers, &answers.submission_certificate),
    ]
    .concat()
}

fn certificate(name: &str, answers: &InitAnswers, source: &CertificateSource) -> String {
    let (issued, certificate, key) = match source {
        CertificateSource::Files { certificate, key } => (false, certificate.to_string(), key.to_string()),
        CertificateSource::Issued => {
            let directory = format!("/etc/letsencrypt/live/{}", answers.host);
            (true, format!("{directory}/fullchain.pem"), format!("{directory}/privkey.pem"))
        }
    };
    let certificate = format!("{name}.files.certificate = {}", quote(&certificate));
    let key = format!("{name}.files.key = {}", quote(&key));
    line(!issued, &format!("{name} = \"issued\"")) + &line(issued, &certificate) + &line(issued, &key)
}

fn domain(answers: &InitAnswers) -> String {
    let reports = format!("dmarc.reports = {}", quote(&format!("dmarc-reports@{}", answers.domain)));
    let name = quote(answers.domain.as_str());
    format!("{DOMAIN}name = {name}\n{DOMAIN_DEFAULTS}{}", line(answers.first_user.is_none(), &reports))
}

fn aliases(answers: &InitAnswers) -> String {
    let target = answers.first_user.as_ref().map_or_else(|| format!("alice@{}", answers.domain), ToString::to_string);
    let mut text = String::from(ALIASES);
    for local_part in ["postmaster", "abuse", "dmarc-reports"] {
        let address = format!("{local_part}@{}", answers.domain);
        if address != target {
            let alias = format!("{} = {}", quote(&address), quote(&target));
            text += &line(answers.first_user.is_none(), &alias);
        }
    }
    text
}

fn delivery(platform: Platform) -> String {
    let layout = platform.layout();
    let socket = line(true, &format!("socket = {}", quote(layout.lmtp_socket)));
    let path = line(true, &format!("path = {}", quote(layout.mailbox_dir)));
    format!("{DELIVERY}# [delivery.lmtp]\n{socket}# [delivery.maildir]\n{path}")
}

const HEAD: &str = "\
# The settings of a mail site, read by postseal. A line that is commented out with `# name = ...` shows an
# optional setting: its default, or an example. docs/settings.md explains every one.

# Who keeps logins and passwords: postseal (with `postseal user add`), or a table of your own.
";

const CLIENTS: &str = "
# Whom the daemons admit: with \"pinned\" each device can be revoked alone; \"ca\" is for sites with thousands (docs/trust.md).
# clients.trust = \"pinned\"

# Days before its end at which a user is told of it by mail (`postseal tick` sends it); off unless this is written.
# notify.before = [30, 7]
# notify.from = \"postmaster@example.com\"
# notify.sendmail = \"/usr/sbin/sendmail\"

# What mail programs find beside submission.
# services.imaps = true
# services.managesieve = false
# services.pop3s = false

# What domains have that do not say otherwise; takes what a domain takes.
# defaults.rollout.max_age = 365
";

const DKIM: &str = "
# Days after which a DKIM key is replaced (docs/dkim.md); only at your command unless this is written.
# dkim.rotate_every = 90
# dkim.standby = false              # true keeps a published key behind each one, for an emergency
# dkim.signing = \"domains\"          # or selector_map: no reload, but one signature instead of two
";

const CA: &str = "
# The CA of this site, which issues the certificates of your users' devices.
[ca]
";

const HOST: &str = "
# A machine that runs OpenSMTPD and Rspamd. `name` is its MX, HELO and login name.
[[host]]
";

const HOST_DEFAULTS: &str = "\
# listen = [\"0.0.0.0\", \"::\"]       # the local addresses to listen on
# smtpd_conf = \"complete\"          # or fragments, for an smtpd.conf of your own to include
# mx_preference = 10               # lower is tried first
# web = \"nginx\"                    # its web server, for MTA-STS, logos, mail programs (docs/web.md)
";

const CERTIFICATES: &str = "\
# Certificates: issued by the site CA, or files that an ACME client keeps fresh on the host.
# Other mail servers check port 25 (mx), your own users check 465 and 587 (submission).
";

const DOMAIN: &str = "
# A domain that sends and receives mail; with many, write domains/NAME.toml for each instead.
[[domain]]
";

const DOMAIN_DEFAULTS: &str = "\
# mail = true                      # false: it sends and takes none, and says so in DNS
# other_names = [\"example.net\"]    # further names of the same mailboxes
# silent_names = [\"www.example.com\"] # names with addresses that send and take no mail
# dkim = [\"rsa\", \"ed25519\"]        # every message gets both signatures
# spf_also = [\"ip4:192.0.2.0/24\"]  # who else sends its mail
# rollout.dmarc = \"quarantine\"     # what the policy comes to, step by step (docs/rollout.md)
# rollout.mta_sts = \"off\"          # or enforce, with public certificates and a web server
# dmarc.policy = \"none\"            # fixed: no rollout
# spf = \"softfail\"                 # or fail, which also refuses mail that others forward
# dnssec = false                   # true if the zone is signed: TLSA records (docs/dns.md)
# caa.issue = [\"letsencrypt.org\"]  # the only CA that may issue for it
# bimi = \"declined\"                # or a logo (docs/bimi.md)
# tls_reports = \"postmaster@example.com\" # where other servers report how TLS went
";

const ALIASES: &str = "
# Addresses that lead to others: \"address\" = \"target\", or a list of targets. Every domain needs a postmaster.
[aliases]
";

const DELIVERY: &str = "
# Where mail goes: to Dovecot by LMTP, or into Maildirs.
";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::{TableKind, load};
    use super::*;
    use crate::diag::Source;

    fn answers() -> Vec<InitAnswers> {
        let files = CertificateSource::Files {
            certificate: "/etc/ssl/c.pem".parse().unwrap(),
            key: "/etc/ssl/k.pem".parse().unwrap(),
        };
        let external = Accounts::External { kind: TableKind::Sqlite, path: "/etc/mail/sqlite.conf".parse().unwrap() };
        let mut all = Vec::new();
        for platform in Platform::ALL.into_iter().filter(|platform| platform.ready()) {
            for addresses in [vec![], vec!["192.0.2.1"], vec!["192.0.2.1", "2001:db8::1"]] {
                for accounts in [Accounts::Managed, external.clone()] {
                    for certificate in [CertificateSource::Issued, files.clone()] {
                        for (ca_key, _) in KeyKind::ALL {
                            for user in [None, Some("alice@example.com"), Some("postmaster@example.com")] {
                                all.push(InitAnswers {
                                    domain: "example.com".parse().unwrap(),
                                    host: "mail.example.com".parse().unwrap(),
                                    platform,
                                    addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
                                    accounts: accounts.clone(),
                                    mx_certificate: certificate.clone(),
                                    submission_certificate: CertificateSource::Issued,
                                    ca_key,
                                    first_user: user.map(|user| user.parse().unwrap()),
                                });
                            }
                        }
                    }
                }
            }
        }
        let swapped = all.iter().cloned().map(|answers| InitAnswers {
            mx_certificate: answers.submission_certificate,
            submission_certificate: answers.mx_certificate,
            ..answers
        });
        all.iter().cloned().chain(swapped).collect()
    }

    fn read(text: String) -> super::super::Site {
        let source = Source { path: "postseal.toml".into(), text };
        load(&[Arc::new(source)]).unwrap().0
    }

    #[test]
    fn starting_settings_read_back_as_they_were_answered() {
        for answers in answers() {
            let text = starting_settings(&answers);
            assert!(text.lines().count() <= 88, "{} lines", text.lines().count());
            assert!(text.lines().all(|line| line.len() <= 130), "{text}");
            let site = read(text);
            let host = &site.hosts[0];
            assert_eq!(
                (&host.name, host.platform, &host.addresses),
                (&answers.host, answers.platform, &answers.addresses)
            );
            assert_eq!((&host.mx_certificate, site.ca.key), (&answers.mx_certificate, answers.ca_key));
            assert_eq!(
                (&host.submission_certificate, &site.accounts),
                (&answers.submission_certificate, &answers.accounts)
            );
            assert_eq!(site.domains[0].name, answers.domain);
            assert_eq!(site.aliases.is_empty(), answers.first_user.is_none());
        }
    }

    #[test]
    fn what_is_commented_out_can_be_switched_on() {
        let first = answers().remove(0);
        let text = starting_settings(&first);
        let is_setting = |line: &str| {
            let name = line.split(" =").next().unwrap_or_default();
            line.contains(" = ") && !name.is_empty() && !name.trim_matches('"').contains(' ')
        };
        let mut switched = 0;
        for (number, line) in text.lines().enumerate() {
            let Some(setting) = line.strip_prefix("# ").filter(|line| is_setting(line)) else { continue };
            let name = setting.split([' ', '.']).next().unwrap_or_default();
            let lines = text
                .lines()
                .enumerate()
                .filter(|(other, old)| *other == number || !old.starts_with(&format!("{name} =")) || name == "name");
            // A line of a commented table needs its header too.
            let header = text.lines().nth(number - 1).unwrap_or_default().strip_prefix("# [").unwrap_or_default();
            let setting = if header.is_empty() { setting.to_owned() } else { format!("[{header}\n{setting}") };
            // Both lines of `files` belong together.
            let files = setting.split_once(".files.").map(|(name, _)| format!("# {name}.files."));
            let is_switched =
                |other, old: &str| other == number || files.as_ref().is_some_and(|it| old.starts_with(it));
            let lines = lines.map(|(other, old)| match old.strip_prefix("# ") {
                Some(_) if other == number => setting.clone(),
                Some(new) if is_switched(other, old) => new.to_owned(),
                _ => old.to_owned(),
            });
            read(lines.map(|line| line + "\n").collect());
            switched += 1;
        }
        assert!(switched >= 21, "only {switched} lines were tried");
    }

    #[test]
    fn every_setting_of_the_first_evening_is_shown() {
        // The finer ones of these tables are in docs/settings.md, and `mx_spki` is printed by a command.
        let finer = ["defaults", "domain.bimi", "domain.caa", "domain.dmarc", "domain.rollout", "host.web"];
        let is_finer = |table: &str| finer.iter().any(|finer| table.starts_with(finer));
        let text = starting_settings(&answers().remove(0));
        for (table, settings) in super::super::SETTINGS.iter().filter(|(table, _)| !is_finer(table)) {
            for setting in settings.iter().filter(|setting| **setting != "mx_spki") {
                assert!(text.contains(setting), "{table}: {setting}");
            }
        }
    }

    proptest! {
        #[test]
        fn quoted_text_parses_back(text in any::<String>()) {
            let document = format!("a = {}\n", quote(&text));
            let table: toml::Table = document.parse().unwrap();
            prop_assert_eq!(table["a"].as_str(), Some(text.as_str()));
            prop_assert_eq!(document.lines().count(), 1);
        }
    }
}
