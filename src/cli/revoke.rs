//! `user revoke`: certificates that are never admitted again, and, with `--now`, the proof that the door is shut.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use camino::Utf8Path;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::cli::args::Install;
use crate::cli::failure::Failure;
use crate::cli::host;
use crate::cli::issuing::{self, Signers};
use crate::cli::people::certificate_json;
use crate::cli::report::Report;
use crate::cli::session::{self, Wanted};
use crate::cli::show::day;
use crate::cli::user::{certificates, how_to_activate, known_ever, mail_password};
use crate::diag::{Diagnostic, did_you_mean};
use crate::env::{Env, Program};
use crate::host::{Door, Listener, is_root};
use crate::inventory::{CertificateStatus, ClientCertificate, Inventory, Reason};
use crate::keys::PublicKey;
use crate::names::{DeviceName, HostName, MailAddress, Serial, shell_word, visible};
use crate::pki::Certificate;
use crate::secret::Secret;
use crate::site::Host;
use crate::store::{Passphrase, Writer};

/// `user revoke`
#[derive(Debug, Args)]
pub(super) struct Revoke {
    /// Whose
    #[arg(value_name = "ADDRESS")]
    address: MailAddress,
    /// Only this device [default: all of them]
    #[arg(long, value_name = "NAME")]
    device: Option<DeviceName>,
    /// Why; `lost` also sets a new mail password, which the device knew
    #[arg(long, value_name = "REASON", value_enum, default_value_t = Why::Unspecified)]
    reason: Why,
    /// Install it on this host, restart OpenSMTPD, and prove by a handshake that the door is shut; as root
    #[arg(long)]
    now: bool,
    /// Which host of the site this is, for --now [default: the only one]
    #[arg(long, value_name = "NAME", requires = "now")]
    host: Option<HostName>,
    /// The file that holds the CA's passphrase, for the CRL (trust = "ca") [default: state/ca.passphrase, or ask]
    #[arg(long, value_name = "FILE")]
    ca_passphrase_file: Option<camino::Utf8PathBuf>,
}

/// Why a certificate is revoked, in an administrator's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Why {
    /// No reason
    Unspecified,
    /// The device is lost or stolen
    Lost,
    /// Somebody else may have the key
    Compromised,
    /// A newer certificate is in use
    Superseded,
    /// The device or its user is no longer there
    Left,
}

impl Why {
    fn reason(self) -> Reason {
        match self {
            Self::Unspecified => Reason::Unspecified,
            Self::Lost | Self::Compromised => Reason::KeyCompromise,
            Self::Superseded => Reason::Superseded,
            Self::Left => Reason::CessationOfOperation,
        }
    }
}

/// `user revoke`. A lost device cannot wait for settings to be mended: the ledger comes first, then what follows from it.
pub(super) fn revoke(env: &dyn Env, site: Option<&Utf8Path>, args: &Revoke) -> Result<Report, Failure> {
    let address = &args.address;
    if args.now {
        refuse_now(env, site)?;
    }
    let mut store = session::writer(env, session::directory(site))?;
    let inventory = store.inventory()?;
    known_ever(&inventory, address)?;
    let mut chosen = choose(&inventory, args)?;
    if args.reason.reason() == Reason::KeyCompromise {
        chosen.extend(of_same_key(&inventory, &store, &chosen)?);
    }
    // Whoever repeats a run that was killed has the password changed once more, which does no harm.
    let changes_password = args.reason == Why::Lost && store.ledger().has_password(address)?;
    let password = if changes_password { Some(new_password(env, address, &store)?) } else { None };
    // A CRL that cannot be made now is made later: what is lost cannot wait.
    let signers = Signers::of(env, &store, args.ca_passphrase_file.as_deref(), chosen.iter().copied());
    let (signers, hindrance) = signers.map_or_else(|why| (Signers::none(), Some(why)), |signers| (signers, None));
    record(env, args, &chosen, (password.as_ref(), &signers), &mut store)?;
    let done = format!("{} of {address} revoked in the ledger", certificates(chosen.len()));
    let follow = |store: &Writer| -> Result<Wanted, Failure> {
        for certificate in &chosen {
            store.forget_device(address, &certificate.device)?;
        }
        store.settle_password()?;
        let wanted = Wanted::read(store.site())?;
        session::refresh(&wanted, store)?;
        Ok(wanted)
    };
    let wanted = follow(&store).map_err(|failure| failure.after(&done))?;
    let mut report = report(env, &wanted, &store, args, &chosen, password.is_some())?.warn(&wanted.warnings);
    if args.now {
        report = match shut_now(env, args, &wanted, &mut store) {
            Ok(shut) => shut.told(report),
            Err(failure) => not_shut(report, &failure, &wanted),
        };
    } else {
        if password.is_some() {
            let kick = format!("doveadm kick {}", shell_word(address.as_str()));
            report.text.push_str(&format!(
                "to shut the account at once, install `credentials` and run: smtpctl update table credentials; {kick}\n"
            ));
        }
        if chosen.is_empty() || chosen.iter().any(|certificate| certificate.issuer.is_none()) {
            report.text.push_str(&how_to_activate(&wanted, &store, "the certificates are refused"));
        }
    }
    let report = report.done(done);
    Ok(match hindrance {
        Some(why) => issuing::behind(report, &why),
        None => report,
    })
}

/// Refuses what `--now` cannot do, before anything is changed.
fn refuse_now(env: &dyn Env, site: Option<&Utf8Path>) -> Result<(), Failure> {
    if !is_root() {
        let help = "run it as root on the mail host, or leave out --now and install what it says";
        return Err(Failure::work("not-root", "only root can install files and restart OpenSMTPD", help));
    }
    host::refuse_site_of_others(env, site)?;
    // Broken settings would be found after the revocation, which then would be open for as long as it takes to mend them.
    Wanted::read(&session::directory(site)).map(drop).map_err(|failure| match failure {
        Failure::Input(mut findings) => {
            let note = "nothing is revoked yet; leave out --now to revoke at once, whatever the settings say";
            if let Some(last) = findings.last_mut() {
                last.notes.push(note.to_owned());
            }
            Failure::Input(findings)
        }
        other => other,
    })
}

/// Returns the certificates that are to be revoked: also those that a newer one took the place of, for they are admitted still.
fn choose<'a>(inventory: &'a Inventory, args: &Revoke) -> Result<Vec<&'a ClientCertificate>, Failure> {
    let own = || inventory.client_certificates.iter().filter(|certificate| certificate.address == args.address);
    let Some(device) = &args.device else {
        return Ok(own().filter(|certificate| may_be_admitted(certificate)).collect());
    };
    if !own().any(|certificate| certificate.device == *device) {
        let near = did_you_mean(device.as_str(), own().map(|certificate| certificate.device.as_str()));
        let help = near.map_or_else(
            || format!("see the devices: postseal user show {}", shell_word(args.address.as_str())),
            |near| format!("did you mean `{near}`?"),
        );
        let message = format!("`{}` has no device `{device}`", args.address);
        return Err(Failure::input("device-unknown", message, help));
    }
    Ok(own().filter(|certificate| may_be_admitted(certificate) && certificate.device == *device).collect())
}

/// Returns what else may be admitted with one of the keys, where the person made the key themselves and had it certified for
/// several devices: who has the key has all of them.
fn of_same_key<'a>(
    inventory: &'a Inventory,
    store: &Writer,
    chosen: &[&ClientCertificate],
) -> Result<Vec<&'a ClientCertificate>, Failure> {
    let spki = |certificate: &ClientCertificate| -> Result<Vec<u8>, Failure> {
        Ok(Certificate::from_pem(&store.ledger().client_pem(&certificate.serial)?.certificate)?.facts().spki.clone())
    };
    let keys = chosen.iter().filter(|one| one.theirs).map(|one| spki(one)).collect::<Result<BTreeSet<_>, _>>()?;
    let mut found = Vec::new();
    for one in inventory.client_certificates.iter().filter(|one| one.theirs && may_be_admitted(one)) {
        let is_chosen = chosen.iter().any(|chosen| chosen.serial == one.serial);
        if !keys.is_empty() && !is_chosen && keys.contains(&spki(one)?) {
            found.push(one);
        }
    }
    Ok(found)
}

fn may_be_admitted(certificate: &ClientCertificate) -> bool {
    matches!(certificate.status, CertificateStatus::Live | CertificateStatus::Held)
}

/// Makes a mail password that the lost device does not know. Returns its hash.
fn new_password(env: &dyn Env, address: &MailAddress, store: &Writer) -> Result<Secret, Failure> {
    let (password, hash) = mail_password(env, None)?;
    store.put_pending_password(address, &password)?;
    Ok(hash)
}

fn record(
    env: &dyn Env,
    args: &Revoke,
    chosen: &[&ClientCertificate],
    (hash, signers): (Option<&Secret>, &Signers),
    store: &mut Writer,
) -> Result<(), Failure> {
    let (now, address, reason) = (env.now(), &args.address, args.reason.reason());
    store.transact(|ledger| {
        for certificate in chosen {
            ledger.revoke_certificate(&certificate.serial, reason, now)?;
            let detail = json!({
                "device": certificate.device,
                "serial": certificate.serial.to_string(),
                "reason": reason.as_str(),
            });
            ledger.record_event(now, "client-certificate-revoked", address.as_str(), &detail)?;
        }
        if let Some(hash) = hash {
            ledger.set_password(address, hash)?;
            ledger.record_event(now, "password-set", address.as_str(), &json!({ "because": "device lost" }))?;
        }
        signers.sign(ledger, now)
    })
}

fn report(
    env: &dyn Env,
    wanted: &Wanted,
    store: &Writer,
    args: &Revoke,
    chosen: &[&ClientCertificate],
    password_is_new: bool,
) -> Result<Report, Failure> {
    let (now, address) = (env.now(), &args.address);
    let mut text = String::new();
    if chosen.is_empty() {
        text.push_str(&format!("nothing of {address} was admitted any more; out/ shows it\n"));
    }
    for certificate in chosen {
        text.push_str(&format!(
            "revoked the certificate of {address} for `{}`, {}\n",
            certificate.device, certificate.serial
        ));
    }
    let place = store.passphrase_path(Passphrase::Account(address));
    if password_is_new {
        text.push_str(&format!("the mail password, which the device knew, is a new one: in {place}\n"));
    } else if args.reason == Why::Lost {
        text.push_str("the device knew the mail password: change it in your own table too\n");
    }
    let inventory = store.inventory()?;
    let left: Vec<&ClientCertificate> = inventory
        .client_certificates
        .iter()
        .filter(|certificate| certificate.address == *address && may_be_admitted(certificate))
        .collect();
    if left.is_empty() {
        text.push_str(&format!("no certificate of {address} is left\n"));
    }
    for certificate in &left {
        let (device, end) = (&certificate.device, day(certificate.ends_at()));
        text.push_str(&match certificate.status {
            CertificateStatus::Held => format!("held since a restore: {address} for `{device}`\n"),
            _ => format!("still admitted: {address} for `{device}`, until {end}\n"),
        });
    }
    if chosen.iter().any(|certificate| certificate.issuer.is_some()) {
        text.push_str(&issuing::how_to_tell(wanted, store));
    }
    let json = json!({
        "address": address,
        "revoked": chosen.iter().map(|certificate| certificate.serial.to_string()).collect::<Vec<_>>(),
        "password_file": password_is_new.then(|| place.as_str()),
        "left": left.iter().map(|certificate| certificate_json(certificate, now)).collect::<Vec<_>>(),
    });
    Ok(Report::fine(text, json).warn(issuing::still_admitted(&inventory, now).as_slice()))
}

/// What `--now` did and found.
struct Shut {
    text: String,
    json: Value,
    warnings: Vec<Diagnostic>,
    exit_code: u8,
}

impl Shut {
    /// Adds to the report of the revocation what became of it on this host.
    fn told(self, mut report: Report) -> Report {
        report.text.push_str(&self.text);
        if let Some(json) = report.json.as_object_mut() {
            json.insert("now".to_owned(), self.json);
        }
        report.exit_code = self.exit_code;
        report.warn(&self.warnings)
    }
}

/// Says that the door is open still, and what shuts it. The report is shown all the same: it tells where a new password lies.
fn not_shut(mut report: Report, failure: &Failure, wanted: &Wanted) -> Report {
    report.warnings.extend_from_slice(failure.diagnostics());
    let restarts: Vec<&str> = wanted.site.hosts.iter().map(|host| host.platform.layout().restart_smtpd).collect();
    let message =
        "the revocation is recorded, but the door was not proved shut: OpenSMTPD may still admit the certificates";
    let restart = restarts.first().copied().unwrap_or_default();
    let help =
        format!("mend what is named above, and run the same command again; by hand: postseal apply, then {restart}");
    report.warnings.push(Diagnostic::error("door-unclear", message, help));
    report.exit_code = NOT_SHUT;
    report
}

/// The exit code of a revocation that counts without its proof: a part of the work could not be done.
const NOT_SHUT: u8 = 3;

/// Installs what is rendered, restarts OpenSMTPD, ends sessions, and asks every listener what it thinks of the revoked
/// certificates.
fn shut_now(env: &dyn Env, args: &Revoke, wanted: &Wanted, store: &mut Writer) -> Result<Shut, Failure> {
    let install = Install { root: "/".into(), host: args.host.clone(), adopt: Vec::new(), keep: Vec::new() };
    let here = host::the_host(&wanted.site, args.host.as_ref())?;
    let installed = host::install(env, wanted, store, &install, None)?;
    let mut warnings = installed.warnings;
    let mut text = installed.text;
    let layout = here.platform.layout();
    // A restart also reads the tables: the new password counts, and the old one opens nothing.
    let mut orders = installed.due;
    if !orders.iter().any(|order| order == layout.restart_smtpd) {
        orders.push(layout.restart_smtpd.to_owned());
    }
    for order in &orders {
        tell(env, order)?;
        text.push_str(&format!("done: {order}\n"));
    }
    let kick = format!("doveadm kick {}", args.address);
    match env.run(&program(&["doveadm", "kick", args.address.as_str()])) {
        Ok(finished) if finished.success => text.push_str(&format!("done: {kick}\n")),
        // Dovecot is not there, not running, or nobody is logged in; none of them leaves the door open.
        Ok(finished) => text.push_str(&format!("no session was ended: {}\n", visible(finished.errors.trim()))),
        Err(_) => {}
    }
    let (proofs, findings) = prove(env, args, here, store)?;
    for proof in &proofs {
        text.push_str(&format!("{proof}\n"));
    }
    let exit_code = u8::from(!findings.is_empty());
    let json = json!({ "installed": installed.json, "done": orders, "proofs": proofs, "shut": findings.is_empty() });
    warnings.extend(findings);
    Ok(Shut { text, json, warnings, exit_code })
}

fn program<'a>(words: &'a [&'a str]) -> Program<'a> {
    let (name, arguments) = words.split_first().unwrap_or((&"", &[]));
    Program { name, arguments, user: None, input: &[] }
}

/// Runs one of the platform's own commands.
fn tell(env: &dyn Env, order: &str) -> Result<(), Failure> {
    let words: Vec<&str> = order.split_ascii_whitespace().collect();
    let failed = |what: &str| {
        let message = format!("`{order}` failed: {}", visible(what.trim()));
        Failure::work("daemon-order", message, format!("mend it and run: {order}; until then the door is open"))
    };
    match env.run(&program(&words)) {
        Ok(finished) if finished.success => Ok(()),
        Ok(finished) => Err(failed(&finished.errors)),
        Err(error) => Err(failed(&error.to_string())),
    }
}

/// How often in all, and with which pauses, a daemon that starts is asked again.
const ATTEMPTS: u32 = 40;
const PAUSE: Duration = Duration::from_millis(500);

/// Asks each listener of submission what it thinks of whatever was revoked of the user or the device, by this run or one before
/// that came to no proof, and of one that is live: a server that is down, or refuses everybody, would prove nothing.
fn prove(env: &dyn Env, args: &Revoke, here: &Host, store: &Writer) -> Result<(Vec<String>, Vec<Diagnostic>), Failure> {
    let (mut proofs, mut findings) = (Vec::new(), Vec::new());
    let mut patience = ATTEMPTS;
    let inventory = store.inventory()?;
    let live = inventory
        .client_certificates
        .iter()
        .find(|certificate| certificate.is_live() && certificate.not_after > env.now());
    let is_gone = |one: &&ClientCertificate| {
        one.address == args.address
            && args.device.as_ref().is_none_or(|device| one.device == *device)
            && one.status == CertificateStatus::Revoked
            && one.not_after > env.now()
    };
    let gone: Vec<&ClientCertificate> = inventory.client_certificates.iter().filter(is_gone).collect();
    let addresses: BTreeSet<IpAddr> = here.listen.iter().map(|address| local(*address)).collect();
    for (address, port) in addresses.into_iter().flat_map(|address| [(address, 465), (address, 587)]) {
        let listener = Listener { address, port, name: &here.name };
        let place = std::net::SocketAddr::new(address, port);
        let asked = live.map(|live| (live, false)).into_iter().chain(gone.iter().map(|gone| (*gone, true)));
        for (certificate, is_revoked) in asked {
            let whose = format!("the certificate of {} for `{}`", certificate.address, certificate.device);
            match (ask(env, &listener, store, &certificate.serial, &mut patience)?, is_revoked) {
                (Door::Shut(alert), true) => proofs.push(format!("{place} refuses {whose} ({alert})")),
                (Door::Open, false) => proofs.push(format!("{place} admits {whose}, which is live")),
                (Door::Open, true) => findings.push(Diagnostic::error(
                    "door-open",
                    format!("{place} still admits {whose}"),
                    if certificate.issuer.is_some() {
                        "OpenSMTPD reads no CRL: postseal ca renew --clients --now".to_owned()
                    } else {
                        let restart = here.platform.layout().restart_smtpd;
                        format!("look whether smtpd.conf reads clients.pem, then: {restart}")
                    },
                )),
                (Door::Shut(alert), false) => findings.push(Diagnostic::error(
                    "door-unclear",
                    format!("{place} refuses {whose}, which is live ({alert})"),
                    "so that it refuses the revoked one proves nothing; look at smtpd's log",
                )),
                (Door::Unclear(problem), _) => {
                    findings.push(Diagnostic::error(
                        "door-unclear",
                        format!("{place} says nothing of {whose}: {}", visible(&problem)),
                        "look whether OpenSMTPD runs, and at its log",
                    ));
                    break;
                }
            }
        }
    }
    if live.is_none() {
        proofs.push("no certificate is live, so that none could be shown for comparison".to_owned());
    }
    Ok((proofs, findings))
}

/// Asks until the daemon is there.
fn ask(
    env: &dyn Env,
    listener: &Listener<'_>,
    store: &Writer,
    serial: &Serial,
    patience: &mut u32,
) -> Result<Door, Failure> {
    let pem = store.ledger().client_pem(serial)?;
    let leaf = Certificate::from_pem(&pem.certificate)?;
    let issuing = Certificate::from_pem(&pem.issuing)?;
    let kind = PublicKey::from_spki(&leaf.facts().spki)?.kind();
    let chain = [leaf.der().to_vec(), issuing.der().to_vec()];
    let mut door = listener.shows(&chain, kind);
    while matches!(door, Door::Unclear(_)) && *patience > 0 {
        *patience -= 1;
        env.wait(PAUSE);
        door = listener.shows(&chain, kind);
    }
    Ok(door)
}

/// Where this host itself reaches what listens at an address.
fn local(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(any) if any.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(any) if any.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        one => one,
    }
}
