//! The command line: exactly what the user typed, in types that cannot hold a bad value.

use std::net::IpAddr;

use camino::Utf8PathBuf;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::cli::backup::Backup;
use crate::cli::confirm::Confirm;
use crate::cli::export::Export;
use crate::cli::handout::Handout;
use crate::cli::restore::Restore;
use crate::cli::server::ServerCommand;
use crate::keys::KeyKind;
use crate::names::{AbsolutePath, DeviceName, DomainName, HostName, MailAddress};
use crate::platform::Platform;
use crate::site::TableKind;
use crate::token_uri::TokenUri;

/// Makes a mail server that admits only holders of a client certificate
///
/// From postseal.toml it makes keys and certificates, and renders OpenSMTPD's and Rspamd's configuration and the DNS records.
///
/// Exit codes: 0 fine; 1 differs; 2 wrong command line or settings; 3 could not do the work; 4 refused, because a secret would
/// have been written or shown.
#[derive(Debug, Parser)]
#[command(name = "postseal", bin_name = "postseal", version, propagate_version = true, max_term_width = 100)]
pub(super) struct Arguments {
    /// What to do
    #[command(subcommand)]
    pub(super) command: Command,
    /// The directory of the site [default: this directory; for init: the domain]
    #[arg(long, global = true, value_name = "DIR")]
    pub(super) site: Option<Utf8PathBuf>,
    /// How to report [default: human; where GITHUB_ACTIONS=true: github]
    #[arg(long, global = true, value_enum)]
    pub(super) format: Option<Format>,
}

/// How a command reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people
    Human,
    /// For programs
    Json,
    /// For people on GitHub Actions: with annotations, and of `diff` a table in the job summary
    Github,
    /// Of `status`: a line with performance data for Nagios, Icinga and the like
    Nagios,
    /// Of `status`: a file for the textfile collector of Prometheus's node_exporter
    Prometheus,
    /// Of `status`: a calendar of what ends
    Ics,
    /// Of `dns`: a fragment of a zone file for each domain
    Zone,
    /// Of `dns`: a table to type from into a provider's form, with long texts in the forms that providers want
    Table,
    /// Of `dns`: YAML for octoDNS
    Octodns,
    /// Of `dns`: JavaScript for DNSControl
    Dnscontrol,
    /// Of `dns`: a script for nsupdate (RFC 2136)
    Nsupdate,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show what the ledger knows in a form that other programs read
    Export(Export),
    /// Check that ledger and files agree, and change nothing (exit code 1 if something is not in order)
    Fsck,
    /// Make a complete site: settings, CA, server certificate, DKIM keys, first user, first render
    Init(Box<Init>),
    /// Accounts and their certificates
    #[command(subcommand)]
    User(UserCommand),
    /// The site CA
    #[command(subcommand)]
    Ca(CaCommand),
    /// The servers' certificates
    #[command(subcommand)]
    Server(ServerCommand),
    /// DKIM keys
    #[command(subcommand)]
    Dkim(super::dkim::DkimCommand),
    /// How far the policies of domains are: DMARC, MTA-STS, SPF
    Rollout(super::rollout::Rollouts),
    /// Show the DNS records to publish
    Dns(Dns),
    /// Show what the zone above is to be told of a signed zone's keys: DS, CDS and CDNSKEY (DNSSEC)
    Ds(super::ds::Ds),
    /// Show what DNS is to say of the key of a certificate: TLSA 3 1 1 (DANE)
    Tlsa(super::tlsa::Tlsa),
    /// What other mail servers report of the domains: DMARC and TLS reports
    #[command(subcommand)]
    Reports(super::reports::ReportsCommand),
    /// Render every file into out/
    Render,
    /// Compare what is rendered with golden/ (exit code 1 if it differs)
    ///
    /// Shows a unified diff of each file, and why it differs where that is known. Needs no secret: a clone with the settings,
    /// postseal.lock and golden/ is enough.
    Diff(Diff),
    /// Write the whole site into one encrypted file, in the age format
    Backup(Backup),
    /// Accept what is rendered as golden/
    ///
    /// Makes the keys that new domains lack, where the ledger is. Refused in CI, where nobody would look.
    Bless(Bless),
    /// Show what `apply` would do to a host (exit code 1 if there is something)
    Plan(Install),
    /// Make a site from a backup; nobody is admitted who is not on the host's list, until confirmed
    Restore(Restore),
    /// Install what is rendered on a host, as root: staged, checked, switched by rename
    ///
    /// Nothing is changed if a check fails, or if a file there is not what postseal wrote. On the running system Rspamd takes over
    /// at once: it is reloaded, signs a message that is sent to nobody, and the signatures are verified, by DNS too; if that fails,
    /// the old files are back. Other daemons are not restarted; what must be told to them is printed.
    Apply(Apply),
    /// Show what expires, what is due, what does not fit together (exit code 1 if something is due or urgent)
    Status(super::status::Status),
    /// Logos for BIMI
    #[command(subcommand)]
    Svg(super::svg::SvgCommand),
    /// Do all that is due: for a timer, as each hour
    Tick(super::tick::Tick),
    /// Print a completion script for a shell
    #[command(hide = true)]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    #[command(hide = true)]
    Man,
}

/// `plan` and `apply`
#[derive(Debug, Args)]
pub(super) struct Install {
    /// The directory that stands for the host's root, as where another system is mounted
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub(super) root: Utf8PathBuf,
    /// Which host of the site it is [default: the only one]
    #[arg(long, value_name = "NAME")]
    pub(super) host: Option<HostName>,
    /// A file that postseal did not write and that is replaced; a copy is kept in state/kept/. May be given again
    #[arg(long, value_name = "PATH")]
    pub(super) adopt: Vec<AbsolutePath>,
    /// A file that postseal did not write and that stays as it is; may be given again
    #[arg(long, value_name = "PATH")]
    pub(super) keep: Vec<AbsolutePath>,
}

/// `apply`
#[derive(Debug, Args)]
pub(super) struct Apply {
    #[command(flatten)]
    pub(super) install: Install,
    /// Only put the files in their places: reload nothing, prove nothing
    #[arg(long)]
    pub(super) no_reload: bool,
    #[command(flatten)]
    pub(super) ways: super::dkim::Ways,
}

/// `init`
#[derive(Debug, Args)]
pub(super) struct Init {
    /// The domain that the site begins with
    #[arg(value_name = "DOMAIN")]
    pub(super) domain: DomainName,
    /// The first user: gets a certificate and a mail password, and the mail to postmaster and abuse
    #[arg(long, value_name = "ADDRESS")]
    pub(super) user: Option<MailAddress>,
    /// The mail host [default: mail.DOMAIN]
    #[arg(long, value_name = "NAME")]
    pub(super) host: Option<HostName>,
    /// A public address of the host, for DNS; may be given again
    #[arg(long = "address", value_name = "IP")]
    pub(super) addresses: Vec<IpAddr>,
    /// The host's operating system
    #[arg(long, value_name = "NAME", default_value_t = Platform::Debian, value_parser = platform)]
    pub(super) platform: Platform,
    /// The kind of the CA's key: p256, rsa2048 or rsa3072
    #[arg(long, value_name = "KIND", default_value_t = KeyKind::P256)]
    pub(super) ca_key: KeyKind,
    /// The file that holds the CA's passphrase [default: ask, or without a terminal make one]; with --ca-token, the token's PIN
    #[arg(long, value_name = "FILE")]
    pub(super) ca_passphrase_file: Option<Utf8PathBuf>,
    /// The PKCS#11 token that has the CA's key, as pkcs11:token=TOKEN;object=LABEL?module-path=/usr/lib/MODULE.so
    #[arg(long, value_name = "URI")]
    pub(super) ca_token: Option<TokenUri>,
    /// A credentials table that you keep yourself, such as db:/etc/mail/creds.db [default: postseal keeps the accounts]
    #[arg(long, value_name = "TYPE:PATH", value_parser = external)]
    pub(super) credentials: Option<External>,
    /// A certificate for port 25 that an ACME client keeps on the host [default: issued here]
    #[arg(long, value_name = "PATH", requires = "mx_key")]
    pub(super) mx_certificate: Option<AbsolutePath>,
    /// The private key of --mx-certificate
    #[arg(long, value_name = "PATH", requires = "mx_certificate")]
    pub(super) mx_key: Option<AbsolutePath>,
    /// A certificate for ports 465 and 587 that an ACME client keeps on the host [default: issued here]
    #[arg(long, value_name = "PATH", requires = "submission_key")]
    pub(super) submission_certificate: Option<AbsolutePath>,
    /// The private key of --submission-certificate
    #[arg(long, value_name = "PATH", requires = "submission_certificate")]
    pub(super) submission_key: Option<AbsolutePath>,
}

/// A credentials table that the administrator keeps.
#[derive(Clone, Debug)]
pub(super) struct External {
    /// The table's type.
    pub(super) kind: TableKind,
    /// The table's path.
    pub(super) path: AbsolutePath,
}

fn platform(text: &str) -> Result<Platform, String> {
    let ready = || Platform::ALL.into_iter().filter(|platform| platform.ready());
    let names = || ready().map(|platform| platform.to_string()).collect::<Vec<_>>().join(" or ");
    ready().find(|platform| platform.to_string() == text).ok_or_else(|| format!("use {}", names()))
}

fn external(text: &str) -> Result<External, String> {
    let (kind, path) = text.split_once(':').ok_or("write TYPE:PATH, such as db:/etc/mail/creds.db")?;
    let found = TableKind::ALL.iter().find(|known| known.as_str() == kind);
    let names = || TableKind::ALL.map(TableKind::as_str).join(", ");
    let kind =
        *found.ok_or_else(|| format!("`{}` is no type of table; use one of {}", crate::names::shown(kind), names()))?;
    Ok(External { kind, path: path.parse().map_err(|error: crate::names::NameError| error.to_string())? })
}

/// Reads a number of days, such as `30`, `30d` or `4w`.
pub(super) fn days(text: &str) -> Result<u16, String> {
    let (number, unit) = match text.strip_suffix(['d', 'w']) {
        Some(number) => (number, if text.ends_with('w') { 7 } else { 1 }),
        None => (text, 1),
    };
    let days = number.parse::<u16>().ok().and_then(|number| number.checked_mul(unit)).filter(|days| *days <= 3660);
    days.ok_or_else(|| "write a number of days up to 3660, such as 30d, or of weeks, such as 4w".to_owned())
}

/// `user ...`
#[derive(Debug, Subcommand)]
pub(super) enum UserCommand {
    /// Issue a certificate for a user; a new user also gets an account
    Add(UserAdd),
    /// Admit certificates again that a restore holds
    Confirm(Confirm),
    /// Show where it lies what a person is to be given, or remove it once they have it
    Handout(Handout),
    /// Issue certificates for everyone on a list; who has one already is skipped
    Import(super::import::Import),
    /// Show the users and their certificates
    List(super::people::List),
    /// Show a user, with every certificate and what happened
    Show {
        /// Whom
        #[arg(value_name = "ADDRESS")]
        address: MailAddress,
    },
    /// Issue certificates anew before they end; the old ones are admitted for a while longer
    Renew(super::renew::Renew),
    /// Take certificates off the trust list for good
    Revoke(super::revoke::Revoke),
    /// Set a new mail password
    Passwd(UserPasswd),
    /// Close an account and revoke its certificates
    Remove(UserRemove),
}

/// `user remove`
#[derive(Debug, Args)]
pub(super) struct UserRemove {
    /// Whose
    #[arg(value_name = "ADDRESS")]
    pub(super) address: MailAddress,
    /// The file that holds the CA's passphrase, for the CRL (trust = "ca") [default: state/ca.passphrase, or ask]
    #[arg(long, value_name = "FILE")]
    pub(super) ca_passphrase_file: Option<Utf8PathBuf>,
}

/// `user add`
#[derive(Debug, Args)]
pub(super) struct UserAdd {
    /// The mailbox, which is the login too
    #[arg(value_name = "ADDRESS")]
    pub(super) address: MailAddress,
    /// The device that the certificate is for
    #[arg(long, value_name = "NAME", default_value_t)]
    pub(super) device: DeviceName,
    /// A further address that the login may send as; may be given again
    #[arg(long = "sender", value_name = "ADDRESS")]
    pub(super) senders: Vec<MailAddress>,
    /// Write a second .p12 in the older form that Apple's systems read
    #[arg(long)]
    pub(super) apple: bool,
    /// The kind of the user's key: p256, rsa2048 or rsa3072
    #[arg(long, value_name = "KIND", default_value_t = KeyKind::P256)]
    pub(super) key: KeyKind,
    /// The request (PKCS#10, PEM or DER) of a person who made their key themselves: no .p12 is made
    #[arg(long, value_name = "FILE", conflicts_with_all = ["key", "apple"])]
    pub(super) csr: Option<Utf8PathBuf>,
    /// How many days the certificate is valid
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u16).range(1..=825))]
    pub(super) days: u16,
    /// Where the mail password comes from
    #[command(flatten)]
    pub(super) password: Password,
    /// The file that holds the CA's passphrase [default: state/ca.passphrase, or ask]
    #[arg(long, value_name = "FILE")]
    pub(super) ca_passphrase_file: Option<Utf8PathBuf>,
}

/// `user passwd`
#[derive(Debug, Args)]
pub(super) struct UserPasswd {
    /// Whose
    #[arg(value_name = "ADDRESS")]
    pub(super) address: MailAddress,
    /// Where the mail password comes from
    #[command(flatten)]
    pub(super) password: Password,
}

/// Where a mail password comes from; without either it is generated.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(super) struct Password {
    /// The file that holds the mail password [default: make one]
    #[arg(long, value_name = "FILE")]
    pub(super) password_file: Option<Utf8PathBuf>,
    /// Ask for the mail password on the terminal
    #[arg(long)]
    pub(super) ask_password: bool,
}

/// `ca ...`
#[derive(Debug, Subcommand)]
pub(super) enum CaCommand {
    /// Show what the issuing CA for all clients has revoked (trust = "ca")
    Crl(crate::cli::issuing::ShowCrl),
    /// Write the site CA's certificate as PEM and DER, with a text to compare it by, into a directory
    Export(super::ca::Export),
    /// Make a CA that was made elsewhere the site's own
    Import(Box<super::ca::Import>),
    /// Make the site CA's next certificate: same key and name, ten years from now, for the hosts of postseal.toml
    ///
    /// Certificates that were issued before stay as they are and go on working. With --clients it is the issuing CA for all
    /// clients that is made anew (trust = "ca"), with a new key, and every certificate under it.
    Renew(crate::cli::issuing::Renew),
    /// Revoke an issuing CA for all clients that nobody needs any more
    Retire(crate::cli::issuing::Retire),
    /// Show the site CA's certificate: subject, validity, fingerprint
    Show {
        /// Print the certificate as PEM instead
        #[arg(long)]
        pem: bool,
    },
}

/// `dns`
#[derive(Debug, Args)]
pub(super) struct Dns {
    /// One domain of the site [default: all]
    #[arg(value_name = "DOMAIN")]
    pub(super) domain: Option<DomainName>,
    /// Write a file for each domain into a directory, instead of to standard output
    #[arg(long, value_name = "DIR")]
    pub(super) output: Option<Utf8PathBuf>,
}

/// `diff`
#[derive(Debug, Args)]
pub(super) struct Diff {
    /// Exit with 0 if it differs, for jobs that only report; errors keep their codes
    #[arg(long)]
    pub(super) exit_zero: bool,
}

/// `bless`
#[derive(Debug, Args)]
pub(super) struct Bless {
    /// Bless even in CI (where the variable CI is set, but not to false or 0)
    #[arg(long)]
    pub(super) force: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Arguments::command().debug_assert();
    }
}
