//! `user handout`: where it lies what a person is to be given, and away with it once they have it.

use camino::Utf8Path;
use serde_json::json;

use crate::cli::failure::Failure;
use crate::cli::report::{Report, columns};
use crate::cli::session;
use crate::cli::show::day;
use crate::cli::user::known;
use crate::diag::did_you_mean;
use crate::env::Env;
use crate::inventory::{ClientCertificate, Inventory};
use crate::names::{DeviceName, MailAddress};
use crate::store::{Lying, Passphrase, Store, Writer, is_waiting};

/// `user handout`
#[derive(Debug, clap::Args)]
pub(super) struct Handout {
    /// Whose
    #[arg(value_name = "ADDRESS")]
    pub(super) address: MailAddress,
    /// One device of theirs [default: all]
    #[arg(long, value_name = "NAME")]
    pub(super) device: Option<DeviceName>,
    /// They have it: remove the files and their passwords from this machine
    #[arg(long)]
    pub(super) done: bool,
}

/// `user handout`
pub(super) fn handout(env: &dyn Env, site: Option<&Utf8Path>, args: &Handout) -> Result<Report, Failure> {
    if args.done {
        return done(env, site, args);
    }
    let store = Store::open(session::directory(site))?;
    let meant = meant(&store.inventory()?, args)?;
    let mut rows = Vec::new();
    let mut json = Vec::new();
    for certificate in &meant {
        let lying = store.handout(&args.address, &certificate.device)?;
        rows.push(row(certificate, &lying));
        json.push(one_to_json(certificate, &lying));
    }
    let mail = store.passphrase_path(Passphrase::Account(&args.address));
    let mail = crate::store::files::exists(&mail)?.then_some(mail);
    let place = mail.as_ref().map_or_else(|| "not here".to_owned(), ToString::to_string);
    rows.push(vec!["mail password".to_owned(), place]);
    let json = json!({ "address": args.address, "devices": json, "mail_password": mail.map(|path| path.to_string()) });
    Ok(Report::fine(columns(&rows), json))
}

/// Returns the newest certificate of each device that is meant.
fn meant(inventory: &Inventory, args: &Handout) -> Result<Vec<ClientCertificate>, Failure> {
    known(inventory, &args.address)?;
    let all = inventory.client_certificates.iter().filter(|one| one.address == args.address && one.is_current());
    let Some(device) = &args.device else { return Ok(all.cloned().collect()) };
    let found: Vec<ClientCertificate> = all.clone().filter(|one| one.device == *device).cloned().collect();
    if found.is_empty() {
        let near = did_you_mean(device.as_str(), all.map(|one| one.device.as_str()));
        let help = near
            .map_or_else(|| "see the devices: postseal user list".to_owned(), |near| format!("did you mean `{near}`?"));
        let message = format!("{} has no certificate for `{device}`", args.address);
        return Err(Failure::input("device-unknown", message, help));
    }
    Ok(found)
}

fn row(certificate: &ClientCertificate, lying: &Lying) -> Vec<String> {
    let state = match (certificate.handed_over, lying.is_here()) {
        (Some(at), _) => format!("handed over on {}", day(at)),
        (None, false) => "not here any more; if they have it: --done".to_owned(),
        (None, true) => {
            let password = match (&lying.p12_password, lying.has_bundle()) {
                (Some(path), _) => format!(", its password in {path}"),
                (None, true) => ", its password is missing".to_owned(),
                (None, false) => String::new(),
            };
            format!("in {}/: {}{password}", lying.directory, lying.files.join(", "))
        }
    };
    vec![certificate.device.to_string(), state]
}

fn one_to_json(certificate: &ClientCertificate, lying: &Lying) -> serde_json::Value {
    json!({
        "device": certificate.device,
        "serial": certificate.serial.to_string(),
        "directory": lying.directory.as_str(),
        "files": lying.files,
        "p12_password": lying.p12_password.as_ref().map(ToString::to_string),
        "handed_over": certificate.handed_over.map(|at| day(at).to_string()),
    })
}

/// The ledger comes first, then the files go; whatever the settings say, for nothing of this is rendered.
fn done(env: &dyn Env, site: Option<&Utf8Path>, args: &Handout) -> Result<Report, Failure> {
    let mut store = session::writer(env, session::directory(site))?;
    let meant = meant(&store.inventory()?, args)?;
    let marked: Vec<ClientCertificate> = meant.into_iter().filter(is_waiting).collect();
    store.begin_hand_over(&args.address)?;
    let now = env.now();
    store.transact(|ledger| {
        for certificate in &marked {
            ledger.mark_handed_over(&certificate.serial, now)?;
            let detail = json!({ "device": certificate.device, "serial": certificate.serial.to_string() });
            ledger.record_event(now, "handed-over", args.address.as_str(), &detail)?;
        }
        Ok::<(), crate::store::ledger::LedgerError>(())
    })?;
    let told = format!("it is recorded that {} has what is theirs", args.address);
    store.settle_hand_over().map_err(|error| Failure::from(error).unremoved(&told))?;
    report(args, &store, &marked).map(|report| report.done(told))
}

fn report(args: &Handout, store: &Writer, marked: &[ClientCertificate]) -> Result<Report, Failure> {
    let address = &args.address;
    let inventory = store.inventory()?;
    let left = inventory.client_certificates.iter().filter(|one| one.address == *address && is_waiting(one));
    let left: Vec<&str> = left.map(|one| one.device.as_str()).collect();
    let mut text = String::new();
    for one in marked {
        text.push_str(&format!("removed what {address} was given for `{}`\n", one.device));
    }
    if marked.is_empty() {
        text.push_str(&format!("nothing for {address} was left to hand over\n"));
    }
    text.push_str(&if left.is_empty() {
        "the mail password is gone from here too; the account keeps its own\n".to_owned()
    } else {
        format!("the mail password stays here until the rest is handed over: {}\n", left.join(", "))
    });
    let devices: Vec<&str> = marked.iter().map(|one| one.device.as_str()).collect();
    Ok(Report::fine(text, json!({ "address": address, "handed_over": devices, "left": left })))
}
