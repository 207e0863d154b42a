//! `user confirm`: admits again what a restore holds.

use std::collections::BTreeSet;

use camino::Utf8Path;
use serde_json::json;
use time::OffsetDateTime;

use crate::cli::failure::Failure;
use crate::cli::issuing::Signers;
use crate::cli::report::Report;
use crate::cli::session;
use crate::cli::user::known;
use crate::env::Env;
use crate::inventory::{CertificateStatus, ClientCertificate, Inventory};
use crate::names::{DeviceName, MailAddress, Serial, shell_word};
use crate::store::Writer;

/// `user confirm`
#[derive(Debug, clap::Args)]
pub(super) struct Confirm {
    /// Whose certificates were not revoked since the backup was made
    #[arg(value_name = "ADDRESS", required_unless_present = "all", conflicts_with = "all")]
    pub(super) address: Option<MailAddress>,
    /// One device of theirs [default: all]
    #[arg(long, value_name = "NAME", conflicts_with = "all")]
    pub(super) device: Option<DeviceName>,
    /// Everybody's
    #[arg(long)]
    pub(super) all: bool,
    /// The file that holds the CA's passphrase, for the CRL (trust = "ca") [default: state/ca.passphrase, or ask]
    #[arg(long, value_name = "FILE")]
    pub(super) ca_passphrase_file: Option<camino::Utf8PathBuf>,
}

/// `user confirm`
pub(super) fn confirm(env: &dyn Env, site: Option<&Utf8Path>, args: &Confirm) -> Result<Report, Failure> {
    let (wanted, mut store) = session::write(env, site)?;
    let inventory = store.inventory()?;
    if let Some(address) = &args.address {
        known(&inventory, address)?;
    }
    if let (Some(address), Some(device)) = (&args.address, &args.device) {
        let mut own = inventory.client_certificates.iter().filter(|one| one.address == *address);
        if !own.any(|one| one.device == *device) {
            let help = format!("see the devices: postseal user show {}", shell_word(address.as_str()));
            return Err(Failure::input("device-unknown", format!("`{address}` has no device `{device}`"), help));
        }
    }
    let now = env.now();
    let held: Vec<ClientCertificate> =
        inventory.client_certificates.iter().filter(|one| is_meant(one, args)).cloned().collect();
    let (ended, admitted): (Vec<_>, Vec<_>) = held.into_iter().partition(|one| one.ends_at() <= now);
    let cas = held_cas(&inventory, &admitted, args.all);
    // With the twin of the CA for all everyone under it would be admitted, were it not for a CRL that names who is not.
    let issuers = admitted.iter().filter_map(|one| one.issuer).chain(cas.iter().copied()).collect();
    let signers = Signers::of_serials(env, &store, args.ca_passphrase_file.as_deref(), &issuers)?;
    record(now, &mut store, &admitted, &cas, &signers)?;
    let done = format!("{} certificates are confirmed", admitted.len());
    session::refresh(&wanted, &store).map_err(|failure| failure.after(&done))?;
    Ok(report(&wanted, &store, &admitted, &ended, &cas).done(done))
}

fn is_meant(certificate: &ClientCertificate, args: &Confirm) -> bool {
    certificate.status == CertificateStatus::Held
        && args.address.as_ref().is_none_or(|address| certificate.address == *address)
        && args.device.as_ref().is_none_or(|device| certificate.device == *device)
}

/// Returns the issuing CAs for all that are held and without which those are not admitted.
fn held_cas(inventory: &Inventory, admitted: &[ClientCertificate], all: bool) -> Vec<Serial> {
    let needed: BTreeSet<Serial> = admitted.iter().filter_map(|certificate| certificate.issuer).collect();
    let held = inventory.issuing_cas.iter().filter(|ca| ca.status == CertificateStatus::Held);
    held.map(|ca| ca.serial).filter(|serial| all || needed.contains(serial)).collect()
}

fn record(
    now: OffsetDateTime,
    store: &mut Writer,
    admitted: &[ClientCertificate],
    cas: &[Serial],
    signers: &Signers,
) -> Result<(), Failure> {
    store.transact(|ledger| {
        for certificate in admitted {
            ledger.confirm_certificate(&certificate.serial)?;
            let detail = json!({ "device": certificate.device, "serial": certificate.serial.to_string() });
            ledger.record_event(now, "certificate-confirmed", certificate.address.as_str(), &detail)?;
        }
        for serial in cas {
            ledger.confirm_certificate(serial)?;
            ledger.record_event(now, "issuing-ca-confirmed", &serial.to_string(), &json!({}))?;
        }
        signers.sign(ledger, now)
    })
}

fn report(
    wanted: &session::Wanted,
    store: &Writer,
    admitted: &[ClientCertificate],
    ended: &[ClientCertificate],
    cas: &[Serial],
) -> Report {
    let mut text = String::new();
    for certificate in admitted {
        text.push_str(&format!("confirmed {} for `{}`\n", certificate.address, certificate.device));
    }
    for certificate in ended {
        let ClientCertificate { address, device, .. } = certificate;
        text.push_str(&format!("{address} for `{device}` ended meanwhile, and is not admitted\n"));
    }
    if !cas.is_empty() {
        text.push_str(
            "the issuing CA for all is trusted again: OpenSMTPD then admits whoever has a certificate of it\n",
        );
    }
    if text.is_empty() {
        text.push_str("nothing of theirs is held\n");
    }
    let left = store.inventory().map(|inventory| {
        inventory.client_certificates.iter().filter(|one| one.status == CertificateStatus::Held).count()
    });
    let left = left.unwrap_or_default();
    if left > 0 {
        text.push_str(&format!("still held: {left} certificates\n"));
    }
    if !admitted.is_empty() {
        text.push_str(&crate::cli::user::how_to_activate(wanted, store, "they are admitted"));
    }
    let serials = |list: &[ClientCertificate]| list.iter().map(|one| one.serial.to_string()).collect::<Vec<_>>();
    let json = json!({ "confirmed": serials(admitted), "ended": serials(ended), "still_held": left });
    Report::fine(text, json)
}
