//! `server issue`, `server renew`, `server list`: the certificates that the site CA issues to its hosts, and the keys that wait
//! for their turn.

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::json;

use crate::cli::failure::{DIFFERS, Failure};
use crate::cli::host::the_host;
use crate::cli::make::{self, Served, ServerKey, ServerOrder};
use crate::cli::report::{Report, columns};
use crate::cli::session::{self, Wanted};
use crate::cli::show::{self, day};
use crate::diag::{Diagnostic, Severity};
use crate::env::Env;
use crate::host::{self, Facts, Kept, Machine};
use crate::inventory::{Inventory, ServerCertificate};
use crate::names::{Digest, HostName};
use crate::pki::Certificate;
use crate::site::{Host, Site};
use crate::store::Writer;
use crate::store::ledger::{LedgerError, Watched};

/// `server ...`
#[derive(Debug, clap::Subcommand)]
pub(super) enum ServerCommand {
    /// Issue a certificate to a host of the settings that has none
    Issue(Issue),
    /// Show the hosts' certificates, and the digests of their present and next keys for TLSA 3 1 1
    List,
    /// Issue a host's next certificate, which takes the place of the present one
    ///
    /// It has the key that waits for it, whose digest `server list` shows, and another key begins to wait.
    Renew(Renew),
    /// Look whether an ACME client renewed what smtpd shows, for which smtpd must be restarted (exit code 1 if something is wrong)
    ///
    /// smtpd reads its certificates at its start only. Run it as root after the ACME client, or from cron.
    Watch(Watch),
}

/// `server issue`
#[derive(Debug, clap::Args)]
pub(super) struct Issue {
    /// The host, as postseal.toml names it
    #[arg(value_name = "HOST")]
    host: HostName,
    /// How it is issued
    #[command(flatten)]
    common: Common,
}

/// `server renew`
#[derive(Debug, clap::Args)]
pub(super) struct Renew {
    /// The host, as postseal.toml names it [default: the only one]
    #[arg(value_name = "HOST")]
    host: Option<HostName>,
    /// Renew the certificates of all hosts
    #[arg(long, conflicts_with = "host")]
    all: bool,
    /// Keep the present key, as where its digest is published and no other
    #[arg(long)]
    same_key: bool,
    /// How it is issued
    #[command(flatten)]
    common: Common,
}

/// `server watch`
#[derive(Debug, clap::Args)]
pub(super) struct Watch {
    /// The directory that stands for the host's root, as where another system is mounted
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: Utf8PathBuf,
    /// Which host of the site it is [default: the only one]
    #[arg(long, value_name = "NAME")]
    host: Option<HostName>,
}

#[derive(Debug, clap::Args)]
struct Common {
    /// How many days the certificate is valid [default: 200]
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..=825))]
    days: Option<u16>,
    /// The file that holds the CA's passphrase [default: state/ca.passphrase, or ask]
    #[arg(long, value_name = "FILE")]
    ca_passphrase_file: Option<Utf8PathBuf>,
}

/// Does what a `server ...` command says.
pub(super) fn obey(env: &dyn Env, site: Option<&Utf8Path>, command: &ServerCommand) -> Result<Report, Failure> {
    match command {
        ServerCommand::Issue(args) => issue(env, site, args),
        ServerCommand::List => list(site),
        ServerCommand::Renew(args) => renew(env, site, args),
        ServerCommand::Watch(args) => watch_command(env, site, args),
    }
}

fn issue(env: &dyn Env, site: Option<&Utf8Path>, args: &Issue) -> Result<Report, Failure> {
    let (wanted, mut store) = open(env, site)?;
    let host = the_host(&wanted.site, Some(&args.host))?;
    refuse_files(host)?;
    let inventory = store.inventory()?;
    if let Some(present) = certificate_of(&inventory, host) {
        let message = format!("`{}` has a certificate until {}", host.name, day(present.not_after));
        let help = format!("to replace it: postseal server renew {}", host.name);
        return Err(Failure::input("server-certificate-there", message, help));
    }
    prove(&wanted, &inventory)?;
    make_all(env, &wanted, &mut store, &[host], ServerKey::Next, &args.common)
}

fn renew(env: &dyn Env, site: Option<&Utf8Path>, args: &Renew) -> Result<Report, Failure> {
    let (wanted, mut store) = open(env, site)?;
    let issued: Vec<&Host> = wanted.site.hosts.iter().filter(|host| host.needs_issued_certificate()).collect();
    let hosts = match (&args.host, issued.as_slice()) {
        (None, _) if args.all => issued,
        (None, [only]) => vec![*only],
        (name, _) => vec![the_host(&wanted.site, name.as_ref())?],
    };
    let inventory = store.inventory()?;
    for host in &hosts {
        refuse_files(host)?;
        if certificate_of(&inventory, host).is_none() {
            let message = format!("the host `{}` has no server certificate yet", host.name);
            let help = format!("issue one: postseal server issue {}", host.name);
            return Err(Failure::input("server-certificate-missing", message, help));
        }
    }
    prove(&wanted, &inventory)?;
    let key = if args.same_key { ServerKey::Same } else { ServerKey::Next };
    make_all(env, &wanted, &mut store, &hosts, key, &args.common)
}

/// Opens the site for writing; unlike other writers it goes on where a host has no certificate, which is what it mends.
pub(super) fn open(env: &dyn Env, site: Option<&Utf8Path>) -> Result<(Wanted, Writer), Failure> {
    let directory = session::directory(site);
    Wanted::read(&directory)?;
    let store = session::writer(env, directory.clone())?;
    // Read again: while this run waited, somebody may have changed them.
    Ok((Wanted::read(&directory)?, store))
}

/// Proves settings and templates good before anything is written, as if every host had its certificate.
pub(super) fn prove(wanted: &Wanted, inventory: &Inventory) -> Result<(), Failure> {
    let mut would_be = inventory.clone();
    for host in lacking(&wanted.site, inventory) {
        would_be.server_certificates.push(ServerCertificate {
            host: host.name.clone(),
            serial: crate::names::Serial::from_random([0; 16]),
            chain: String::new(),
            key: Digest::of(b""),
            not_after: time::OffsetDateTime::UNIX_EPOCH,
            former: None,
        });
    }
    wanted.render(&would_be).map(|_| ())
}

/// Returns the hosts that have no certificate and need one.
pub(super) fn lacking<'a>(site: &'a Site, inventory: &Inventory) -> Vec<&'a Host> {
    let lacks = |host: &&Host| host.needs_issued_certificate() && certificate_of(inventory, host).is_none();
    site.hosts.iter().filter(lacks).collect()
}

fn certificate_of<'a>(inventory: &'a Inventory, host: &Host) -> Option<&'a ServerCertificate> {
    inventory.server_certificates.iter().find(|certificate| certificate.host == host.name)
}

fn refuse_files(host: &Host) -> Result<(), Failure> {
    if host.needs_issued_certificate() {
        return Ok(());
    }
    let help = "let the ACME client renew them; or take mx_certificate or submission_certificate out of postseal.toml";
    let message = format!("`{}` takes its certificates from files that are kept on the host", host.name);
    Err(Failure::input("certificate-from-files", message, help))
}

fn make_all(
    env: &dyn Env,
    wanted: &Wanted,
    store: &mut Writer,
    hosts: &[&Host],
    key: ServerKey,
    common: &Common,
) -> Result<Report, Failure> {
    let ca = make::open_site_ca(env, store, common.ca_passphrase_file.as_deref())?;
    for host in hosts {
        make::refuse_unpermitted(&ca, &host.name)?;
    }
    let mut made: Vec<(&Host, Served)> = Vec::new();
    let done = |made: &[(&Host, Served)]| {
        let names: Vec<&str> = made.iter().map(|(host, _)| host.name.as_str()).collect();
        format!("the new certificate of {} is recorded", names.join(", "))
    };
    for host in hosts {
        let order = ServerOrder { host: &host.name, days: common.days, key };
        match make::server_certificate(env, &ca, &order, store) {
            Ok(served) => made.push((host, served)),
            Err(failure) if made.is_empty() => return Err(failure),
            Err(failure) => return Err(failure.after(&done(&made))),
        }
    }
    let done = done(&made);
    let still_lacking = lacking(&wanted.site, &store.inventory()?);
    if still_lacking.is_empty() {
        session::refresh(wanted, store).map_err(|failure| failure.after(&done))?;
    }
    let mut text = String::new();
    for (host, served) in &made {
        text.push_str(&told(host, served));
        let files = session::shown(store, "out").join(host.name.as_str());
        if still_lacking.is_empty() {
            let restart = host.platform.layout().restart_smtpd;
            text.push_str(&format!("it is shown to others once {files}/ is installed there, and: {restart}\n"));
        }
    }
    for host in &still_lacking {
        text.push_str(&format!("before anything is rendered, issue one more: postseal server issue {}\n", host.name));
    }
    let json = made.iter().map(|(host, served)| {
        json!({
            "host": host.name,
            "serial": served.serial.to_string(),
            "not_after": day(served.not_after).to_string(),
            "spki": served.spki.to_string(),
            "next_spki": served.next.spki.to_string(),
        })
    });
    let json = json!({ "certificates": json.collect::<Vec<_>>() });
    Ok(Report::fine(text, json).warn(&wanted.warnings).done(done))
}

fn told(host: &Host, served: &Served) -> String {
    let rows = columns(&[
        vec!["serial".to_owned(), served.serial.to_string()],
        vec!["TLSA 3 1 1 now".to_owned(), served.spki.to_string()],
        vec!["TLSA 3 1 1 next".to_owned(), served.next.spki.to_string()],
    ]);
    let mut text = format!("issued a certificate to {} until {}\n", host.name, day(served.not_after));
    for line in rows.lines() {
        text.push_str(&format!("  {line}\n"));
    }
    text
}

/// `server list`
fn list(site: Option<&Utf8Path>) -> Result<Report, Failure> {
    let wanted = Wanted::read(&session::directory(site))?;
    let inventory = show::inventory(site)?;
    let (mut rows, mut json) = (Vec::new(), Vec::new());
    for host in wanted.site.hosts.iter().filter(|host| host.needs_issued_certificate()) {
        let next = inventory.next_keys.iter().find(|next| next.host == host.name);
        let next_spki = next.map(|next| next.spki.to_string());
        let present = certificate_of(&inventory, host);
        let spki = present.map(spki).transpose()?.map(|spki| spki.to_string());
        let digest = |spki: &Option<String>| spki.clone().unwrap_or_else(|| "-".to_owned());
        rows.push(match present {
            Some(one) => format!("{}  until {}  serial {}", host.name, day(one.not_after), one.serial),
            None => format!("{}  no certificate yet: postseal server issue {}", host.name, host.name),
        });
        rows.push(format!("  TLSA 3 1 1 now   {}", digest(&spki)));
        rows.push(format!("  TLSA 3 1 1 next  {}", digest(&next_spki)));
        json.push(json!({
            "host": host.name,
            "serial": present.map(|one| one.serial.to_string()),
            "not_after": present.map(|one| day(one.not_after).to_string()),
            "spki": spki,
            "next_spki": next_spki,
            "next_since": next.map(|next| day(next.since).to_string()),
        }));
    }
    let text = if rows.is_empty() {
        "every host takes its certificates from files that are kept there\n".to_owned()
    } else {
        rows.join("\n") + "\n"
    };
    Ok(Report::fine(text, json!({ "hosts": json })))
}

/// What a look at a certificate that somebody else keeps found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It is another one than at the last look: smtpd must be restarted.
    Changed,
    /// Nobody looked before.
    First,
    /// It is the same.
    Same,
}

/// What a look at a host's certificates from files found.
#[derive(Debug)]
pub(super) struct Look {
    /// Those that smtpd can use.
    pub(super) kept: Vec<(Kept, Change)>,
    /// What is wrong with others.
    pub(super) findings: Vec<Diagnostic>,
}

impl Look {
    /// Tells whether smtpd must be restarted.
    pub(super) fn needs_restart(&self) -> bool {
        self.kept.iter().any(|(_, change)| *change == Change::Changed)
    }

    /// Tells whether a certificate cannot be used, or has ended.
    pub(super) fn is_wrong(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Error)
    }
}

/// Looks at the certificates that an ACME client keeps on a host below the root, and records what is new. What cannot be used is
/// not recorded, so that its mending is noticed as a change.
pub(super) fn watch(
    env: &dyn Env,
    wanted: &Wanted,
    store: &mut Writer,
    root: &Utf8Path,
    host: &Host,
) -> Result<Look, Failure> {
    let machine = Machine::open(host, root)?;
    let (inventory, now) = (store.inventory()?, env.now());
    let facts = Facts { site: &wanted.site, inventory: &inventory, own_signing: false, now };
    let (kept, mut findings) = host::kept_certificates(&machine, facts);
    for finding in findings.iter_mut().filter(|finding| finding.code == "certificate-expired") {
        finding.severity = Severity::Error;
    }
    let known = store.ledger().watched(&host.name, machine.root())?;
    let change = |kept: &Kept| match known.iter().find(|known| known.path == kept.path) {
        None => Change::First,
        Some(known) if known.digest == kept.digest => Change::Same,
        Some(_) => Change::Changed,
    };
    let usable = kept.into_iter().filter(|kept| kept.not_after > now);
    let kept: Vec<(Kept, Change)> = usable.map(|kept| (kept.clone(), change(&kept))).collect();
    let new: Vec<&Kept> = kept.iter().filter(|(_, change)| *change != Change::Same).map(|(kept, _)| kept).collect();
    if !new.is_empty() {
        store.transact(|ledger| {
            for Kept { path, digest, not_after } in &new {
                let seen = Watched { path: path.clone(), digest: *digest, not_after: *not_after };
                ledger.set_watched(&host.name, machine.root(), &seen, now)?;
                let detail = json!({ "path": path.as_str(), "not_after": not_after.date().to_string() });
                ledger.record_event(now, "watched-certificate-changed", host.name.as_str(), &detail)?;
            }
            Ok::<(), LedgerError>(())
        })?;
    }
    Ok(Look { kept, findings })
}

/// `server watch`
fn watch_command(env: &dyn Env, site: Option<&Utf8Path>, args: &Watch) -> Result<Report, Failure> {
    let (wanted, mut store) = open(env, site)?;
    let host = the_host(&wanted.site, args.host.as_ref())?;
    let look = watch(env, &wanted, &mut store, &args.root, host)?;
    let mut text = String::new();
    for (kept, change) in &look.kept {
        let what = match change {
            Change::Changed => "is another certificate than before",
            Change::First => "is watched from now on",
            Change::Same => "is as before",
        };
        text.push_str(&format!("{}: {} {what}, until {}\n", host.name, kept.path, day(kept.not_after)));
    }
    let restart = look.needs_restart().then_some(host.platform.layout().restart_smtpd);
    if let Some(restart) = restart {
        text.push_str(&format!("now: {restart}\n"));
    }
    if look.kept.is_empty() && look.findings.is_empty() {
        text.push_str(&format!("{} takes no certificate from files: there is nothing to watch\n", host.name));
    }
    let certificates = look.kept.iter().map(|(kept, change)| {
        json!({
            "path": kept.path.as_str(),
            "not_after": day(kept.not_after).to_string(),
            "changed": *change == Change::Changed,
        })
    });
    let json = json!({ "host": host.name, "certificates": certificates.collect::<Vec<_>>(), "then": restart });
    let exit_code = if look.is_wrong() { DIFFERS } else { 0 };
    let done = restart.map(|restart| format!("what smtpd shows was renewed: {restart}"));
    Ok(Report { exit_code, done, ..Report::fine(text, json) }.warn(&wanted.warnings).warn(&look.findings))
}

/// Returns SHA-256 of a certificate's public key, as TLSA 3 1 1 has it (RFC 6698 §2.1).
fn spki(certificate: &ServerCertificate) -> Result<Digest, Failure> {
    Ok(Digest::of(&Certificate::from_pem(&certificate.chain)?.facts().spki))
}
