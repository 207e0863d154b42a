//! `user import`: certificates for everyone on a list.
//!
//! Threads make what one user needs and put it where it waits; one thread records what is ready, a batch in one transaction,
//! and moves it to its place. Nothing of a user is kept longer, and a run that is killed anywhere is resumed by the same command:
//! who is recorded is skipped.

use std::collections::{HashMap, HashSet};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::json;

use crate::accounts_csv::{Column, Line, List};
use crate::cli::failure::{DIFFERS, Failure};
use crate::cli::issuing;
use crate::cli::make::{self, ClientKey, ClientOrder, SiteCa};
use crate::cli::progress;
use crate::cli::report::Report;
use crate::cli::session;
use crate::cli::user::{check_mailbox, how_to_activate, mail_password, trust_list_long, twins};
use crate::diag::Diagnostic;
use crate::env::Env;
use crate::inventory::Inventory;
use crate::keys::KeyKind;
use crate::names::{DeviceName, MailAddress};
use crate::pki::Certificate;
use crate::secret::Secret;
use crate::site::{Accounts, Site, Trust};
use crate::store::files::read_given_list;
use crate::store::ledger::{NewCertificate, NewClient};
use crate::store::{Archive, Incoming, Passphrase, Writer};

/// `user import`
#[derive(Debug, clap::Args)]
pub(super) struct Import {
    /// The list, as CSV. Its first line names the columns: address, and as wanted name, device, password
    #[arg(value_name = "FILE")]
    file: Utf8PathBuf,
    /// Write a second .p12 for each in the older form that Apple's systems read
    #[arg(long)]
    apple: bool,
    /// The kind of the users' keys: p256, rsa2048 or rsa3072
    #[arg(long, value_name = "KIND", default_value_t = KeyKind::P256)]
    key: KeyKind,
    /// How many days the certificates are valid
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u16).range(1..=825))]
    days: u16,
    /// Issue nothing if a line is bad [default: issue for the others, and exit with 1]
    #[arg(long)]
    stop: bool,
    /// Write what is to be given to the users of the list into one file, a .tar
    #[arg(long, value_name = "FILE", value_parser = tar_file)]
    archive: Option<Utf8PathBuf>,
    /// Put the passwords into the archive too, as passwords.csv
    #[arg(long, requires = "archive")]
    with_passwords: bool,
    /// How many threads work [default: as many as the machine runs at once]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: Option<u16>,
    /// The file that holds the CA's passphrase [default: state/ca.passphrase, or ask]
    #[arg(long, value_name = "FILE")]
    ca_passphrase_file: Option<Utf8PathBuf>,
}

/// The end of the name keeps a slip of the hand from replacing another file, such as the list.
fn tar_file(text: &str) -> Result<Utf8PathBuf, String> {
    let path = Utf8PathBuf::from(text);
    if path.extension() == Some("tar") { Ok(path) } else { Err("name a file whose name ends in .tar".to_owned()) }
}

/// How many users are recorded at once. What they wait for the disk together is a small part of what it takes to make them, and
/// what is lost to a kill is made again in seconds.
const BATCH: usize = 64;

/// What is to be made for one user.
struct Job {
    address: MailAddress,
    is_new: bool,
    password: Option<Secret>,
    devices: Vec<DeviceName>,
}

/// What was made for one user, and waits to be recorded.
struct Made {
    address: MailAddress,
    is_new: bool,
    hash: Option<Secret>,
    certificates: Vec<(NewCertificate, NewClient)>,
}

/// What a list asks for.
#[derive(Default)]
struct Asked {
    jobs: Vec<Job>,
    already_there: usize,
    /// Every good line, without passwords, if they are kept.
    lines: Vec<Line>,
}

/// `user import`
pub(super) fn import(env: &dyn Env, site: Option<&Utf8Path>, args: &Import) -> Result<Report, Failure> {
    let text = read_given_list(&args.file)?.ok_or_else(|| {
        Failure::input("no-such-file", format!("`{}` does not exist", args.file), "name the file that holds the list")
    })?;
    let mut list = List::read(args.file.clone(), &text).map_err(Failure::Input)?;
    let (wanted, mut store) = session::write(env, site)?;
    let managed = wanted.site.accounts == Accounts::Managed;
    if !managed && list.has(Column::Password) {
        let help = "leave the column `password` out, and keep the passwords in the table that `accounts` names";
        return Err(Failure::input("accounts-external", "the passwords of this site are kept elsewhere", help));
    }
    if let Some(archive) = &args.archive {
        check_archive(&store, archive)?;
    }
    // What has run out is no reason to skip somebody, whether or not `tick` was there before.
    let now = env.now();
    store.transact(|ledger| ledger.expire_certificates(now))?;
    let inventory = store.inventory()?;
    let issuing = match wanted.site.trust {
        Trust::Ca => store.ledger().issuing_ca()?.map(|ca| Certificate::from_pem(&ca.certificate)).transpose()?,
        Trust::Pinned => None,
    };
    let Asked { jobs, already_there, lines } =
        ask(&mut list, &wanted.site, &inventory, args.archive.is_some(), issuing.as_ref());
    drop(inventory);
    if args.stop && list.bad_lines() > 0 {
        return Err(Failure::Input(list.told()));
    }
    let issued = if jobs.is_empty() { 0 } else { issue(env, args, &wanted.site, jobs, &mut store)? };
    let done = format!("{} recorded", certificates(issued));
    // A run that was killed may have left this to do.
    session::refresh(&wanted, &store).map_err(|failure| failure.after(&done))?;
    let mut text = format!("issued: {issued}\nalready there: {already_there}\nbad lines: {}\n", list.bad_lines());
    let mut archive = None;
    if issued > 0 {
        let place = |name| session::shown(&store, name);
        text.push_str(&format!(
            "give them what is in {}/ADDRESS/DEVICE/; the passwords are in {}/\n",
            place("handout"),
            place("state/passwords")
        ));
    }
    if let Some(path) = &args.archive {
        let archived = write_archive(env, args, &list, &lines, &store).map_err(|failure| stopped(failure, issued))?;
        text.push_str(&format!("{path} holds what {archived} of them are to be given; keep it from others\n"));
        archive = Some(json!({ "path": path.as_str(), "handouts": archived }));
    }
    if issued > 0 {
        text.push_str(&how_to_activate(&wanted, &store, "the certificates are admitted"));
    }
    let bad_lines = list.bad_lines();
    let json = json!({ "issued": issued, "already_there": already_there, "bad_lines": bad_lines, "archive": archive });
    let exit_code = if list.bad_lines() > 0 { DIFFERS } else { 0 };
    let report = Report { exit_code, ..Report::fine(text, json) }.done(done);
    Ok(report.warn(&wanted.warnings).warn(&list.told()).warn(trust_list_long(twins(&store.inventory()?)).as_slice()))
}

fn certificates(count: usize) -> String {
    if count == 1 { "1 certificate is".to_owned() } else { format!("{count} certificates are") }
}

/// Refuses a place where the archive would be seen, before anything is written.
fn check_archive(store: &Writer, path: &Utf8Path) -> Result<(), Failure> {
    if !Archive::would_be_published(store.site(), path)? {
        return Ok(());
    }
    let message = format!("`{path}` lies in the site, where git would take it along");
    Err(Failure::secret("archive-place", message, "write the archive outside of the site, or into handout/"))
}

/// What the lines so far say of one user.
#[derive(Default)]
struct Seen {
    /// Each device with its line.
    devices: Vec<(DeviceName, usize)>,
    /// The mail password with its line.
    password: Option<(Secret, usize)>,
    /// The place among the jobs.
    job: Option<usize>,
}

/// Finds what the good lines of a list ask for, and adds to it what is wrong with them on this site. Whoever writes an archive
/// needs the lines afterwards.
fn ask(
    list: &mut List<'_>,
    site: &Site,
    inventory: &Inventory,
    keep_lines: bool,
    issuing: Option<&Certificate>,
) -> Asked {
    let users: HashSet<&MailAddress> = inventory.users.iter().map(|user| &user.address).collect();
    let current = inventory.client_certificates.iter().filter(|certificate| certificate.is_current());
    let current: HashSet<_> = current.map(|certificate| (&certificate.address, &certificate.device)).collect();
    let mut asked = Asked::default();
    let mut all: HashMap<MailAddress, Seen> = HashMap::new();
    for mut line in list.take_lines() {
        let is_stranger = |ca: &Certificate| make::refuse_stranger(ca, &line.address);
        if let Err(failure) = check_mailbox(site, &line.address).and_then(|()| issuing.map_or(Ok(()), is_stranger)) {
            failure.diagnostics().iter().for_each(|found| list.refuse(&line, Column::Address, "", found.clone()));
            continue;
        }
        let seen = all
            .entry(line.address.clone())
            .or_insert_with(|| Seen { devices: Vec::with_capacity(1), ..Seen::default() });
        if let Some((_, first)) = seen.devices.iter().find(|(device, _)| *device == line.device) {
            let message = format!("`{}` has two lines for the device `{}`", line.address, line.device);
            let diagnostic = duplicate(message, "leave one of them out, or name another device", *first);
            list.refuse(&line, Column::Address, "again here", diagnostic);
            continue;
        }
        if let Some(password) = line.password.take() {
            let (known, first) = seen.password.get_or_insert_with(|| (password.clone(), line.number));
            if *known != password {
                let message = format!("`{}` has two mail passwords", line.address);
                let help = "give the same one in each line of a user, or in one of them only";
                let diagnostic = duplicate(message, help, *first);
                list.refuse(&line, Column::Password, "another one", diagnostic);
                continue;
            }
            line.password = Some(password);
        }
        seen.devices.push((line.device.clone(), line.number));
        let password = line.password.take();
        if current.contains(&(&line.address, &line.device)) {
            asked.already_there += 1;
        } else {
            let at = *seen.job.get_or_insert(asked.jobs.len());
            if at == asked.jobs.len() {
                let (address, is_new) = (line.address.clone(), !users.contains(&line.address));
                asked.jobs.push(Job { address, is_new, password: None, devices: Vec::with_capacity(1) });
            }
            if let Some(job) = asked.jobs.get_mut(at) {
                job.password = job.password.take().or(password);
                job.devices.push(line.device.clone());
            }
        }
        if keep_lines {
            asked.lines.push(line);
        }
    }
    asked
}

fn duplicate(message: String, help: &str, first: usize) -> Diagnostic {
    Diagnostic::error("csv-duplicate", message, help).note(format!("the other one is in line {first}"))
}

/// Makes and records all that was asked for. Returns how many certificates.
fn issue(env: &dyn Env, args: &Import, site: &Site, jobs: Vec<Job>, store: &mut Writer) -> Result<usize, Failure> {
    let file = args.ca_passphrase_file.as_deref();
    let mut ca = make::open_site_ca(env, store, file)?;
    issuing::provide(env, site, store, &mut ca)?;
    let managed = site.accounts == Accounts::Managed;
    let threads = args.jobs.map_or_else(make::cores, usize::from);
    let progress = progress::bar(env, jobs.len(), "users");
    let incoming = store.incoming().in_bulk();
    let queue = Mutex::new(jobs.into_iter());
    let mut issued = 0;
    let outcome = thread::scope(|scope| {
        // Bounded: who makes waits for who records, and not in memory.
        let (sender, receiver) = sync_channel(BATCH);
        let worker = Worker { env, ca: &ca, args, managed, incoming: &incoming, queue: &queue };
        for _ in 0..threads {
            let sender = sender.clone();
            scope.spawn(move || worker.work(&sender));
        }
        drop(sender);
        record(env, &receiver, &incoming, store, |certificates, users| {
            issued += certificates;
            progress.inc(users as u64);
        })
    });
    progress.finish_and_clear();
    outcome.map(|()| issued).map_err(|failure| stopped(failure, issued))
}

/// Says how far a run came that could not go on.
fn stopped(failure: Failure, issued: usize) -> Failure {
    if issued == 0 { failure } else { failure.stopped(&certificates(issued)) }
}

/// Makes what users need.
#[derive(Clone, Copy)]
struct Worker<'a> {
    env: &'a dyn Env,
    ca: &'a SiteCa,
    args: &'a Import,
    managed: bool,
    incoming: &'a Incoming,
    queue: &'a Mutex<std::vec::IntoIter<Job>>,
}

impl Worker<'_> {
    /// Works until there is nothing left to do, or nobody who takes it.
    fn work(&self, made: &SyncSender<Result<Made, Failure>>) {
        // Whoever panics does so outside of the lock.
        let next = || self.queue.lock().unwrap_or_else(PoisonError::into_inner).next();
        while let Some(job) = next() {
            let outcome = self.make(job);
            let failed = outcome.is_err();
            if made.send(outcome).is_err() || failed {
                break;
            }
        }
    }

    fn make(&self, job: Job) -> Result<Made, Failure> {
        let Job { address, is_new, password, devices } = job;
        let sets_password = self.managed && (is_new || password.is_some());
        let (mut password, hash) = if sets_password {
            mail_password(self.env, password).map(|(one, hash)| (Some(one), Some(hash)))?
        } else {
            (None, None)
        };
        let mut certificates = Vec::with_capacity(devices.len());
        for device in devices {
            let Import { key, days, apple, .. } = *self.args;
            let order = ClientOrder { address: &address, device: &device, key: ClientKey::New(key), days, apple };
            let mut client = make::client(self.env, self.ca, &order)?;
            client.handout.mail_password = password.take();
            self.incoming.put(client.serial(), &client.handout)?;
            certificates.push((client.recorded, client.whose));
        }
        Ok(Made { address, is_new, hash, certificates })
    }
}

/// Records what was made, a batch at a time, and tells of each how many certificates and users it had.
fn record(
    env: &dyn Env,
    made: &Receiver<Result<Made, Failure>>,
    incoming: &Incoming,
    store: &mut Writer,
    mut tell: impl FnMut(usize, usize),
) -> Result<(), Failure> {
    loop {
        let (mut batch, mut ended) = (Vec::with_capacity(BATCH), None);
        while batch.len() < BATCH && ended.is_none() {
            match made.recv() {
                Ok(Ok(made)) => batch.push(made),
                Ok(Err(failure)) => ended = Some(Err(failure)),
                // All is made.
                Err(_) => ended = Some(Ok(())),
            }
        }
        // What is whole is recorded, though another failed.
        if !batch.is_empty() {
            incoming.catch_up()?;
            record_batch(env, &batch, store)?;
            tell(batch.iter().map(|made| made.certificates.len()).sum(), batch.len());
            let recorded = batch.iter().flat_map(|made| &made.certificates);
            store.settle_bulk(recorded.map(|(new, whose)| (&new.serial, &whose.address, &whose.device)))?;
        }
        if let Some(ended) = ended {
            return ended;
        }
    }
}

/// Records a batch in one transaction. The files are on the disk by then; they come to their places afterwards.
fn record_batch(env: &dyn Env, batch: &[Made], store: &mut Writer) -> Result<(), Failure> {
    let now = env.now();
    store.transact(|ledger| {
        for Made { address, is_new, hash, certificates } in batch {
            if *is_new {
                ledger.add_user(address, now)?;
            }
            if let Some(hash) = hash {
                ledger.set_password(address, hash)?;
            }
            for (certificate, whose) in certificates {
                ledger.add_client_certificate(certificate, whose)?;
                let detail = json!({ "device": whose.device, "serial": certificate.serial.to_string() });
                ledger.record_event(now, "client-certificate-issued", address.as_str(), &detail)?;
            }
        }
        Ok(())
    })
}

/// Writes what the users of a list are to be given into one file; returns for how many devices it is still here.
fn write_archive(
    env: &dyn Env,
    args: &Import,
    list: &List<'_>,
    lines: &[Line],
    store: &Writer,
) -> Result<usize, Failure> {
    let Some(path) = &args.archive else { return Ok(0) };
    let mut lines: Vec<&Line> = lines.iter().collect();
    lines.sort_by(|a, b| (&a.address, &a.device).cmp(&(&b.address, &b.device)));
    let mut archive = Archive::create(path, env.now())?;
    let mut archived = Vec::with_capacity(lines.len());
    for line in lines {
        if archive.add_handout(store, &line.address, &line.device)? {
            archived.push(line);
        }
    }
    if args.with_passwords {
        archive.add_secret("passwords.csv", &passwords(list, &archived, store)?)?;
    }
    archive.finish()?;
    Ok(archived.len())
}

/// Returns a table of the passwords, for who writes the letters. Its room is there from the beginning: a text that grows leaves
/// copies behind.
fn passwords(list: &List<'_>, lines: &[&Line], store: &Writer) -> Result<Secret, Failure> {
    let mut rows = Vec::with_capacity(lines.len());
    for line in lines {
        let kept = |of| store.passphrase(of).map(|kept| kept.unwrap_or_else(|| Secret::new(Vec::new())));
        let (address, device) = (&line.address, &line.device);
        rows.push((kept(Passphrase::Device(address, device))?, kept(Passphrase::Account(address))?));
    }
    let header = "address,name,device,p12_password,mail_password\r\n";
    let names: Vec<_> = lines.iter().map(|line| list.name(line)).collect();
    let fields = lines.iter().zip(&names).zip(&rows).map(|((line, name), (p12, mail))| {
        [
            line.address.as_str().as_bytes(),
            name.as_bytes(),
            line.device.as_str().as_bytes(),
            p12.expose(),
            mail.expose(),
        ]
    });
    // A quote may become two; each field has two more, and a comma or line end behind it.
    let room = fields.clone().flatten().map(|field| 2 * field.len() + 4).sum::<usize>() + header.len();
    let mut text = Vec::with_capacity(room);
    text.extend_from_slice(header.as_bytes());
    for row in fields {
        for (number, field) in row.into_iter().enumerate() {
            if number > 0 {
                text.push(b',');
            }
            push_field(&mut text, field);
        }
        text.extend_from_slice(b"\r\n");
    }
    Ok(Secret::new(text))
}

fn push_field(text: &mut Vec<u8>, field: &[u8]) {
    let plain = |octet: &u8| !b",\"\r\n;\t ".contains(octet);
    if field.iter().all(plain) {
        return text.extend_from_slice(field);
    }
    text.push(b'"');
    for octet in field {
        if *octet == b'"' {
            text.push(b'"');
        }
        text.push(*octet);
    }
    text.push(b'"');
}
