//! `restore`: a site from a backup. What was revoked since it was made must not come back, so nobody is admitted who is not on
//! the host's own list, or whom the administrator confirms.

use std::collections::{BTreeMap, BTreeSet};

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::json;
use time::OffsetDateTime;

use crate::cli::failure::Failure;
use crate::cli::host::the_host;
use crate::cli::make;
use crate::cli::report::Report;
use crate::cli::session::{self, Wanted};
use crate::cli::show::day;
use crate::env::Env;
use crate::host::Machine;
use crate::install::Found;
use crate::inventory::{Crl, Inventory, Reason};
use crate::names::{Digest, HostName, MailAddress, Serial, hex, shell_word};
use crate::password;
use crate::pki::Certificate;
use crate::pki::crl::{Seen, Why};
use crate::secret::Secret;
use crate::site::{Accounts, Site};
use crate::store::backup::{self, Opener, Packed};
use crate::store::{Passphrase, Staged, Writer};

/// `restore`
#[derive(Debug, clap::Args)]
pub(super) struct Restore {
    /// The backup
    #[arg(value_name = "FILE")]
    pub(super) file: Utf8PathBuf,
    /// The file that holds the backup's passphrase [default: ask]
    #[arg(long, value_name = "FILE", conflicts_with = "identity")]
    pub(super) passphrase_file: Option<Utf8PathBuf>,
    /// The file that age-keygen wrote, with the private key of a recipient
    #[arg(long, value_name = "FILE")]
    pub(super) identity: Option<Utf8PathBuf>,
    /// Where the files of a host lie: whom it admits now stays admitted, everybody else is held
    #[arg(long, value_name = "DIR")]
    pub(super) root: Option<Utf8PathBuf>,
    /// Which host of the site it is [default: the only one]
    #[arg(long, value_name = "NAME", requires = "root")]
    pub(super) host: Option<HostName>,
}

/// `restore`
pub(super) fn restore(env: &dyn Env, site: Option<&Utf8Path>, args: &Restore) -> Result<Report, Failure> {
    let target = session::directory(site);
    if !crate::store::files::exists(&args.file)? {
        let help = "name a file that postseal backup wrote";
        return Err(Failure::input("no-such-file", format!("`{}` does not exist", args.file), help));
    }
    let found = backup::Found::read(&args.file)?;
    let opener = opener(env, args, found.is_by_passphrase())?;
    let sealed = found.open(&opener)?;
    let suffix = hex(&make::octets::<8>(env)?);
    let (mut store, packed) =
        Staged::filled(&target, &suffix, |pause| env.wait(pause), |directory| sealed.unpack(directory))?;
    let wanted = Wanted::read(store.site())?;
    let present = args.root.as_deref().map(|root| Present::read(&wanted.site, args.host.as_ref(), root)).transpose()?;
    let mut outcome = judge(&store, &wanted.site, present.as_ref())?;
    outcome.doubted = record(env.now(), &mut store, &wanted.site, &packed, present.as_ref(), &outcome)?;
    for address in outcome.taken.keys().chain(&outcome.closed) {
        // What it held opens nothing any more.
        store.remove_passphrase(Passphrase::Account(address))?;
    }
    for (serial, _) in &outcome.revoked {
        if let Some((address, device, _)) = store.ledger().whose(serial)? {
            store.forget_device(&address, &device)?;
        }
    }
    store.refuse_damage()?;
    session::refresh(&wanted, &store)?;
    store.settle()?;
    let report = report(target.root(), &packed, present.as_ref(), &outcome);
    Ok(report.warn(&wanted.warnings).done(format!("the site {} is restored", target.root())))
}

fn opener(env: &dyn Env, args: &Restore, by_passphrase: bool) -> Result<Opener, Failure> {
    let wrong = |what, option: &str| {
        let message = format!("`{}` was encrypted for {what}", args.file);
        Err(Failure::input("backup-key", message, format!("give {option}")))
    };
    match (by_passphrase, &args.passphrase_file, &args.identity) {
        (true, Some(file), _) => Ok(Opener::Passphrase(make::read_passphrase(file)?)),
        (true, None, Some(_)) => wrong("a passphrase", "--passphrase-file FILE instead of --identity"),
        (true, None, None) if env.person_is_there() => {
            Ok(Opener::Passphrase(env.ask_secret("passphrase of the backup: ")?))
        }
        (true, None, None) => wrong("a passphrase", "--passphrase-file FILE, or run this on a terminal"),
        (false, _, None) => wrong("the holder of a key", "--identity FILE, with what age-keygen wrote"),
        (false, _, Some(file)) => {
            let Some(text) = crate::store::files::read_given_secret(file)? else {
                let help = "name a file that age-keygen wrote";
                return Err(Failure::input("no-such-file", format!("`{file}` does not exist"), help));
            };
            Opener::of_identities(&text).ok_or_else(|| {
                let help = "name a file that age-keygen wrote, with a line AGE-SECRET-KEY-1...";
                Failure::input("backup-key", format!("`{file}` holds no private key of age"), help)
            })
        }
    }
}

/// What a host has now.
struct Present {
    host: HostName,
    root: Utf8PathBuf,
    /// The twins on its trust list.
    twins: BTreeSet<Digest>,
    /// The lines of its credentials table; none where the administrator keeps it.
    credentials: Option<BTreeMap<MailAddress, Secret>>,
    /// Its CRLs as PEM.
    crls: Option<String>,
}

impl Present {
    fn read(site: &Site, named: Option<&HostName>, root: &Utf8Path) -> Result<Self, Failure> {
        let host = the_host(site, named)?;
        let machine = Machine::open(host, root)?;
        let path = |name: &str| Utf8PathBuf::from(host.platform.layout().smtpd_dir).join(name);
        let list = needed(&machine, &path("clients.pem"))?;
        let twins = Certificate::all_from_pem(list.expose_str().unwrap_or_default())?;
        let credentials = match site.accounts {
            Accounts::External { .. } => None,
            Accounts::Managed => Some(credentials(&needed(&machine, &path("credentials"))?)),
        };
        let crls = read(&machine, &path("clients.crl"))?;
        Ok(Self {
            host: host.name.clone(),
            root: machine.root().to_owned(),
            twins: twins.iter().map(Certificate::fingerprint).collect(),
            credentials,
            crls: crls.and_then(|crls| crls.expose_str().map(str::to_owned)),
        })
    }
}

fn credentials(table: &Secret) -> BTreeMap<MailAddress, Secret> {
    let lines = table.expose_str().unwrap_or_default().lines();
    let line = |line: &str| {
        let (address, hash) = line.split_once(':')?;
        Some((address.parse().ok()?, Secret::from(hash.to_owned())))
    };
    lines.filter_map(line).collect()
}

fn needed(machine: &Machine<'_>, path: &Utf8PathBuf) -> Result<Secret, Failure> {
    read(machine, path)?.ok_or_else(|| {
        let message = format!("the host has no `{path}`, so it does not tell whom it admits");
        let help = "name with --root where its files are, or leave --root out: then everybody is held until confirmed";
        Failure::input("host-list-missing", message, help)
    })
}

fn read(machine: &Machine<'_>, path: &Utf8PathBuf) -> Result<Option<Secret>, Failure> {
    match machine.found(std::iter::once(path))?.remove(path) {
        Some(Found::File(_, _, content)) => Ok(Some(content)),
        Some(Found::Unreadable) => {
            Err(Failure::input("unreadable", format!("`{path}` cannot be read"), "run this as root"))
        }
        None | Some(Found::Nothing) => Ok(None),
        Some(Found::Directory(..) | Found::Other) => {
            let message = format!("`{path}` is no file, or a link stands on the way to it");
            Err(Failure::input("in-the-way", message, "move it away: postseal follows no links"))
        }
    }
}

/// What a restored ledger is to say.
#[derive(Default)]
struct Outcome {
    /// Whose certificates stay live.
    kept: usize,
    /// Those that are held, with whose they are.
    held: Vec<(Serial, String)>,
    /// Those that the host's CRLs name, and why.
    revoked: Vec<(Serial, Reason)>,
    /// How many certificates the host's CRLs name of which the backup knows nothing.
    unknown_revoked: usize,
    /// The host's own CRLs, which are newer: the issuing CA, what they say, and their PEM.
    crls: Vec<(Serial, Seen, String)>,
    /// Accounts whose password the host knows better.
    taken: BTreeMap<MailAddress, Secret>,
    /// Accounts that the host does not admit any more.
    closed: BTreeSet<MailAddress>,
    /// Whether there is an issuing CA for all that is or may be trusted.
    has_shared: bool,
    /// How many twins the host has of which the backup knows nothing.
    unknown_twins: usize,
    /// Logins of which the backup knows nothing.
    unknown_logins: Vec<MailAddress>,
    /// How many DKIM keys are to be seen anew on the name servers.
    doubted: usize,
}

fn judge(store: &Writer, site: &Site, present: Option<&Present>) -> Result<Outcome, Failure> {
    let inventory = store.inventory()?;
    let mut outcome = Outcome::default();
    let twins = twins(store, &inventory)?;
    issuing_cas(store, present, &twins, &mut outcome)?;
    outcome.has_shared = store.ledger().issuing_cas()?.iter().any(|ca| ca.is_live);
    let heeded: BTreeSet<Serial> = outcome.crls.iter().map(|(issuer, ..)| *issuer).collect();
    for certificate in inventory.client_certificates.iter().filter(|certificate| certificate.is_live()) {
        let serial = certificate.serial;
        let listed = |serial: &Serial| {
            let twin = twins.get(serial);
            present.is_some_and(|present| twin.is_some_and(|twin| present.twins.contains(twin)))
        };
        let of_issuer = outcome.crls.iter().filter(|(issuer, ..)| certificate.issuer == Some(*issuer));
        let why =
            of_issuer.flat_map(|(_, crl, _)| &crl.entries).find(|entry| entry.serial == serial).map(|entry| entry.why);
        let stays = match &certificate.issuer {
            None => listed(&serial),
            // The issuing CA for all admits whom it does not revoke: without its newest CRL that is not known.
            Some(issuer) => listed(issuer) && heeded.contains(issuer),
        };
        if let Some(Why::Revoked(reason)) = why {
            outcome.revoked.push((serial, reason));
        } else if stays && why.is_none() {
            outcome.kept += 1;
        } else {
            outcome.held.push((serial, format!("{} ({})", certificate.address, certificate.device)));
        }
    }
    let known: BTreeSet<Serial> = inventory.client_certificates.iter().map(|one| one.serial).collect();
    let named = outcome.crls.iter().flat_map(|(_, crl, _)| &crl.entries);
    outcome.unknown_revoked = named.filter(|entry| !known.contains(&entry.serial)).count();
    if let (Accounts::Managed, Some(present)) = (&site.accounts, present) {
        accounts(store, &inventory, present, &mut outcome)?;
    }
    if let Some(present) = present {
        let placeholder = store.ledger().placeholder()?.and_then(|pem| Certificate::from_pem(&pem).ok());
        let known: BTreeSet<Digest> =
            twins.values().copied().chain(placeholder.map(|twin| twin.fingerprint())).collect();
        outcome.unknown_twins = present.twins.difference(&known).count();
    }
    Ok(outcome)
}

/// Returns the fingerprints of all twins, by the serial of their row.
fn twins(store: &Writer, inventory: &Inventory) -> Result<BTreeMap<Serial, Digest>, Failure> {
    let mut twins = BTreeMap::new();
    for certificate in inventory.client_certificates.iter().filter(|certificate| certificate.issuer.is_none()) {
        let pem = store.ledger().client_pem(&certificate.serial)?;
        twins.insert(certificate.serial, Certificate::from_pem(&pem.twin)?.fingerprint());
    }
    for ca in store.ledger().issuing_cas()? {
        twins.insert(ca.serial, Certificate::from_pem(&ca.twin)?.fingerprint());
    }
    Ok(twins)
}

/// The issuing CAs for all: held, unless the host trusts them; their CRLs on the host are heeded.
fn issuing_cas(
    store: &Writer,
    present: Option<&Present>,
    twins: &BTreeMap<Serial, Digest>,
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    for ca in store.ledger().issuing_cas()?.into_iter().filter(|ca| ca.is_live) {
        let twin = Certificate::from_pem(&ca.twin)?;
        let is_listed =
            present.is_some_and(|present| twins.get(&ca.serial).is_some_and(|twin| present.twins.contains(twin)));
        if !is_listed {
            outcome.held.push((ca.serial, "the issuing CA for all".to_owned()));
            continue;
        }
        let crls = present.and_then(|present| present.crls.as_deref()).unwrap_or_default();
        let found = crls.split_inclusive("-----END X509 CRL-----\n");
        let read = found
            .filter_map(|pem| Seen::signed_by(pem, &twin).map(|crl| (ca.serial, crl, pem.trim_start().to_owned())));
        let before = outcome.crls.len();
        outcome.crls.extend(read);
        if outcome.crls.len() == before {
            // Trusted with the CRL of the backup it would let in whom that does not name yet.
            outcome.held.push((ca.serial, "the issuing CA for all, of which the host has no CRL".to_owned()));
        }
    }
    Ok(())
}

fn accounts(store: &Writer, inventory: &Inventory, present: &Present, outcome: &mut Outcome) -> Result<(), Failure> {
    let Some(now) = &present.credentials else { return Ok(()) };
    let before = credentials(&store.ledger().credentials()?);
    for user in &inventory.users {
        match (before.get(&user.address), now.get(&user.address)) {
            (before, Some(now)) if before != Some(now) => {
                // What is no hash opens nothing there either.
                let hash = now.expose_str().filter(|hash| password::is_hash(hash));
                match hash {
                    Some(_) => drop(outcome.taken.insert(user.address.clone(), now.clone())),
                    None => drop(outcome.closed.insert(user.address.clone())),
                }
            }
            (Some(_), None) => drop(outcome.closed.insert(user.address.clone())),
            _ => {}
        }
    }
    let known = |address: &&MailAddress| inventory.users.iter().any(|user| user.address == **address);
    outcome.unknown_logins = now.keys().filter(|address| !known(address)).cloned().collect();
    Ok(())
}

fn record(
    now: OffsetDateTime,
    store: &mut Writer,
    site: &Site,
    packed: &Packed,
    present: Option<&Present>,
    outcome: &Outcome,
) -> Result<usize, Failure> {
    let known: BTreeMap<Serial, u32> =
        store.inventory()?.issuing_cas.into_iter().filter_map(|ca| Some((ca.serial, ca.crl?.number))).collect();
    let subject = present.map_or("site", |present| present.host.as_str()).to_owned();
    let detail = json!({
        "made": packed.made.unix_timestamp(),
        "kept": outcome.kept,
        "held": outcome.held.iter().map(|(serial, _)| serial.to_string()).collect::<Vec<_>>(),
        "revoked": outcome.revoked.iter().map(|(serial, _)| serial.to_string()).collect::<Vec<_>>(),
        "passwords_taken": outcome.taken.len(),
        "passwords_forgotten": outcome.closed.len(),
    });
    let doubted = store.transact(|ledger| {
        for (serial, _) in &outcome.held {
            ledger.hold_certificate(serial)?;
        }
        for (serial, reason) in &outcome.revoked {
            ledger.revoke_certificate(serial, *reason, now)?;
        }
        for (issuer, crl, pem) in &outcome.crls {
            if let Some(crl) = newer(crl, known.get(issuer)) {
                ledger.set_crl(issuer, &crl, pem)?;
            }
        }
        for (address, hash) in &outcome.taken {
            ledger.set_password(address, hash)?;
        }
        for address in &outcome.closed {
            ledger.clear_password(address)?;
        }
        ledger.record_event(now, "restored", &subject, &detail)?;
        // MTA-STS may have been enforced since, for as long as the settings say; a milder stage of the others is safe.
        ledger.doubt_rollouts(&|name| site.domain(name).map_or(0, |domain| domain.rollout.max_age))?;
        // Name servers and hosts may have gone on since.
        ledger.doubt_dkim_keys()
    })?;
    Ok(doubted)
}

/// Returns what to record of a CRL of the host's, if it is newer than the backup's.
fn newer(crl: &Seen, known: Option<&u32>) -> Option<Crl> {
    crl.recorded().filter(|crl| known.is_none_or(|known| crl.number > *known))
}

/// How many of those who are held are named; `user list` names all.
const NAMED: usize = 10;

fn report(place: &Utf8Path, packed: &Packed, present: Option<&Present>, outcome: &Outcome) -> Report {
    let made = day(packed.made);
    let mut lines = vec![format!("restored the site {place} as it was on {made}: {} files", packed.files)];
    lines.push(match present {
        Some(present) => format!(
            "whom {} admits at {} stays admitted: {} of {} certificates",
            present.host,
            present.root,
            outcome.kept,
            outcome.kept + outcome.held.len() + outcome.revoked.len()
        ),
        None => "nothing tells who was revoked since then, so every certificate is held: nobody is admitted by the next apply"
            .to_owned(),
    });
    if !outcome.held.is_empty() {
        let named = outcome.held.iter().take(NAMED).map(|(_, who)| who.as_str()).collect::<Vec<_>>().join(", ");
        let more = outcome.held.len().saturating_sub(NAMED);
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        lines.push(format!("held until you confirm them: {named}{more}"));
    }
    if !outcome.revoked.is_empty() {
        lines.push(format!("revoked, as the host's CRL says: {}", outcome.revoked.len()));
    }
    if outcome.unknown_revoked > 0 {
        let count = outcome.unknown_revoked;
        lines.push(format!(
            "the host's CRL names {count} that the backup does not know; every later CRL names them, too"
        ));
    }
    for (addresses, what) in [
        (outcome.taken.keys().collect::<Vec<_>>(), "the host knows a newer password, which counts"),
        (outcome.closed.iter().collect(), "the host does not know the login any more, so it has no password"),
        (
            outcome.unknown_logins.iter().collect(),
            "the host knows a login that the backup does not, and the next apply ends it",
        ),
    ] {
        lines.extend(addresses.into_iter().map(|address| format!("{what}: {address}")));
    }
    if outcome.unknown_twins > 0 {
        let count = outcome.unknown_twins;
        lines.push(format!("{count} certificates on the host are newer than the backup, and the next apply ends them"));
    }
    if outcome.doubted > 0 {
        let count = outcome.doubted;
        lines.push(format!(
            "whether name servers have the records of the backup's {count} DKIM keys is not known any more"
        ));
    }
    lines.push("what to do next:".to_owned());
    let steps = next_steps(place, made, present, outcome);
    lines.extend(steps.iter().enumerate().map(|(number, step)| format!("  {}. {step}", number + 1)));
    Report::fine(lines.join("\n") + "\n", to_json(place, packed, outcome))
}

fn next_steps(place: &Utf8Path, made: time::Date, present: Option<&Present>, outcome: &Outcome) -> Vec<String> {
    let site = shell_word(place.as_str());
    let mut steps = Vec::new();
    if !outcome.held.is_empty() {
        steps.push(format!("see who is held: postseal user list --site {site}"));
        let confirm = format!("postseal user confirm ADDRESS --site {site}");
        steps.push(format!("admit those of whom you know that they were not revoked: {confirm} (or --all)"));
    }
    if present.is_none() {
        steps.push(format!(
            "passwords are those of {made}: set anew what was changed since: postseal user passwd ADDRESS"
        ));
    }
    if outcome.has_shared {
        // Whom it certified since the backup was made, nobody knows, and each of them is admitted.
        steps.push(format!(
            "shut out whom the CA for all certified since: postseal ca renew --clients --now --site {site}"
        ));
    }
    if present.is_some() {
        steps.push("revoke again whatever was revoked since then and not installed on the host yet".to_owned());
    }
    if outcome.doubted > 0 {
        // A later key signed what is on its way, and the backup does not know it.
        steps.push("publish the records of out/dns, and leave newer DKIM records beside them for a week".to_owned());
        steps.push(format!("let DKIM keys be seen again: postseal dkim advance --site {site}"));
    }
    steps.push(format!("compare with the host before you install: postseal plan --site {site}"));
    steps.push("make a new backup".to_owned());
    steps
}

fn to_json(place: &Utf8Path, packed: &Packed, outcome: &Outcome) -> serde_json::Value {
    let serials = |serials: Vec<&Serial>| serials.iter().map(ToString::to_string).collect::<Vec<_>>();
    json!({
        "site": place.as_str(),
        "made": packed.made.unix_timestamp(),
        "files": packed.files,
        "kept": outcome.kept,
        "held": serials(outcome.held.iter().map(|(serial, _)| serial).collect()),
        "revoked": serials(outcome.revoked.iter().map(|(serial, _)| serial).collect()),
        "unknown_revoked": outcome.unknown_revoked,
        "passwords_taken": outcome.taken.keys().collect::<Vec<_>>(),
        "passwords_forgotten": outcome.closed,
        "unknown_logins": outcome.unknown_logins,
        "unknown_certificates": outcome.unknown_twins,
        "dkim_keys_doubted": outcome.doubted,
    })
}
