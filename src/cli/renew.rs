//! `user renew`: a newer certificate for a device, and an overlap in which both are admitted.

use std::collections::HashSet;

use camino::Utf8Path;
use clap::Args;
use serde_json::json;
use time::{Duration, OffsetDateTime};

use crate::cli::args::days;
use crate::cli::csr;
use crate::cli::failure::Failure;
use crate::cli::issuing;
use crate::cli::make::{self, ClientKey, ClientOrder, SiteCa};
use crate::cli::report::{Report, columns};
use crate::cli::session::{self, Wanted};
use crate::cli::show::day;
use crate::cli::user::{List, certificates, current, how_to_activate, known, trust_list_long, twins};
use crate::diag::did_you_mean;
use crate::env::Env;
use crate::inventory::{CertificateStatus, ClientCertificate, Inventory, Reason};
use crate::keys::{KeyKind, PublicKey};
use crate::names::{DeviceName, MailAddress, Serial, shell_word};
use crate::pki::Certificate;
use crate::site::Trust;
use crate::store::ledger::LedgerError;
use crate::store::{Passphrase, Writer};

/// `user renew`
#[derive(Debug, Args)]
pub(super) struct Renew {
    /// Whose; may be given again
    #[arg(value_name = "ADDRESS", required_unless_present_any = ["all", "expiring"], conflicts_with_all = ["all", "expiring"])]
    addresses: Vec<MailAddress>,
    /// Only this device [default: all of them]
    #[arg(long, value_name = "NAME")]
    device: Option<DeviceName>,
    /// Everybody's certificates that end within so many days, such as 30d
    #[arg(long, value_name = "DAYS", value_parser = days)]
    expiring: Option<u16>,
    /// Everybody's certificates, but for those that were issued within the last day
    #[arg(long, conflicts_with = "expiring")]
    all: bool,
    /// How long the old certificate is admitted beside the new one, unless it ends before; 0d refuses it at once
    #[arg(long, value_name = "DAYS", value_parser = days, default_value = "30d")]
    overlap: u16,
    /// Certify the key that the person has already; no .p12 is made [default: a new key, unless the person made their own]
    #[arg(long, conflicts_with_all = ["key", "apple"])]
    same_key: bool,
    /// The kind of the new key: p256, rsa2048 or rsa3072
    #[arg(long, value_name = "KIND", default_value_t = KeyKind::P256)]
    key: KeyKind,
    /// Write a second .p12 in the older form that Apple's systems read
    #[arg(long)]
    apple: bool,
    /// How many days the new certificate is valid
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u16).range(1..=825))]
    days: u16,
    /// The file that holds the CA's passphrase [default: state/ca.passphrase, or ask]
    #[arg(long, value_name = "FILE")]
    ca_passphrase_file: Option<camino::Utf8PathBuf>,
}

/// A certificate that took the place of another.
struct Renewed {
    address: MailAddress,
    device: DeviceName,
    serial: Serial,
    not_after: OffsetDateTime,
    replaces: Serial,
    /// Until when the older one is admitted.
    retires_at: OffsetDateTime,
    /// Whether the person needs a new PKCS#12 file.
    has_p12: bool,
}

/// `user renew`
pub(super) fn renew(env: &dyn Env, site: Option<&Utf8Path>, args: &Renew) -> Result<Report, Failure> {
    let (wanted, mut store) = session::write(env, site)?;
    let inventory = store.inventory()?;
    let chosen = choose(&wanted, &inventory, args, env.now())?;
    if chosen.is_empty() {
        session::refresh(&wanted, &store)?;
        let text = "nothing to renew\n".to_owned();
        return Ok(Report::fine(text, json!({ "renewed": [] })));
    }
    let file = args.ca_passphrase_file.as_deref();
    let mut ca = make::open_site_ca(env, &store, file)?;
    issuing::provide(env, &wanted.site, &mut store, &mut ca)?;
    let mut renewed = Vec::new();
    for old in chosen {
        match renew_one(env, &ca, (old, &inventory), args, &mut store) {
            Ok(one) => renewed.push(one),
            Err(failure) if renewed.is_empty() => return Err(failure),
            // Each counts by itself; the next run goes on where this one ended.
            Err(failure) => {
                return Err(failure.after(&format!("{} renewed and recorded", certificates(renewed.len()))));
            }
        }
    }
    let done = format!("{} renewed and recorded", certificates(renewed.len()));
    // Without an overlap the old ones belong on the CRL.
    let crl = issuing::refresh_crl(env, &mut store, file, issuing::Due::IfHalfGone);
    crl.and_then(|_| session::refresh(&wanted, &store)).map_err(|failure| failure.after(&done))?;
    let now = store.inventory()?;
    let report = report(&wanted, &store, &renewed, (List::between(&inventory, &now), env.now())).done(done);
    Ok(report.warn(trust_list_long(twins(&now)).as_slice()))
}

/// Returns the certificates that the arguments name: each its device's newest, and live.
fn choose<'a>(
    wanted: &Wanted,
    inventory: &'a Inventory,
    args: &Renew,
    now: OffsetDateTime,
) -> Result<Vec<&'a ClientCertificate>, Failure> {
    let device_fits =
        |certificate: &&ClientCertificate| args.device.as_ref().is_none_or(|device| certificate.device == *device);
    let renewable = renewable(inventory);
    let not_long_ago = |certificate: &&&ClientCertificate| certificate.not_after > now - FORGOTTEN;
    let everybody = renewable.iter().filter(not_long_ago).copied().filter(device_fits);
    // Somebody may have left the site's settings with their domain.
    let everybody = everybody.filter(|certificate| wanted.site.has_domain(&certificate.address.domain()));
    if let Some(days) = args.expiring {
        let horizon = now + Duration::days(i64::from(days));
        return Ok(everybody.filter(|certificate| certificate.not_after <= horizon).collect());
    }
    if args.all {
        // Repeated after a kill, `--all` goes on where it ended; what another kind of trust issued is due in any case.
        let is_new = |certificate: &&ClientCertificate| {
            let same_trust = certificate.issuer.is_some() == (wanted.site.trust != Trust::Pinned);
            same_trust && certificate.not_before > now - Duration::DAY
        };
        return Ok(everybody.filter(|certificate| !is_new(certificate)).collect());
    }
    let mut chosen = Vec::new();
    for address in &args.addresses {
        let before = chosen.len();
        chosen.extend(renewable.iter().copied().filter(|one| one.address == *address).filter(device_fits));
        if chosen.len() == before {
            return Err(none_of(inventory, address, args.device.as_ref()));
        }
    }
    chosen.sort_by_key(|certificate| (&certificate.address, &certificate.device));
    chosen.dedup_by_key(|certificate| certificate.serial);
    Ok(chosen)
}

/// How long after its end a certificate is renewed together with all others. Of a device that nobody missed for so long, the user
/// is to say.
const FORGOTTEN: Duration = Duration::days(30);

/// Returns each device's newest certificate, if it is live or has run out, whether or not that is recorded yet.
fn renewable(inventory: &Inventory) -> Vec<&ClientCertificate> {
    let mut newest: Vec<&ClientCertificate> = Vec::new();
    let users: HashSet<&MailAddress> = inventory.users.iter().map(|user| &user.address).collect();
    // Sorted by address, device and begin: the last one of a device counts.
    for certificate in &inventory.client_certificates {
        if newest
            .last()
            .is_some_and(|last| (&last.address, &last.device) == (&certificate.address, &certificate.device))
        {
            newest.pop();
        }
        newest.push(certificate);
    }
    let ran_out = |one: &ClientCertificate| one.status == CertificateStatus::Expired && one.successor.is_none();
    newest.retain(|one| users.contains(&one.address) && ((one.is_live() && one.is_current()) || ran_out(one)));
    newest
}

/// Says why nothing of a user's can be renewed.
fn none_of(inventory: &Inventory, address: &MailAddress, device: Option<&DeviceName>) -> Failure {
    if let Err(unknown) = known(inventory, address) {
        return unknown;
    }
    let word = shell_word(address.as_str());
    let of_device = |certificate: &&ClientCertificate| device.is_none_or(|device| certificate.device == *device);
    if current(inventory, address).filter(of_device).any(|one| one.status == CertificateStatus::Held) {
        let message = format!("the certificate of `{address}` is held since a restore");
        let help = format!("if it was not revoked since, admit it first: postseal user confirm {word}");
        return Failure::input("certificate-held", message, help);
    }
    let which = device.map_or_else(String::new, |device| format!(" for `{device}`"));
    let devices = current(inventory, address).map(|certificate| certificate.device.as_str());
    let near = device.and_then(|device| did_you_mean(device.as_str(), devices));
    let help = near.map_or_else(
        || {
            format!(
                "issue one: postseal user add {word}{}",
                device.map_or_else(String::new, |d| format!(" --device {d}"))
            )
        },
        |near| format!("did you mean `{near}`?"),
    );
    Failure::input("nothing-live", format!("`{address}` has no certificate{which} to renew"), help)
}

fn renew_one(
    env: &dyn Env,
    ca: &SiteCa,
    (old, inventory): (&ClientCertificate, &Inventory),
    args: &Renew,
    store: &mut Writer,
) -> Result<Renewed, Failure> {
    let now = env.now();
    let theirs = args.same_key || old.theirs;
    let key = if theirs {
        let key = key_of(store, &old.serial)?;
        csr::refuse_compromised(store, inventory, &key)?;
        ClientKey::Theirs(key)
    } else {
        ClientKey::New(args.key)
    };
    let order = ClientOrder { address: &old.address, device: &old.device, key, days: args.days, apple: args.apple };
    let client = make::client(env, ca, &order)?;
    let retires_at = old.not_after.min(now + Duration::days(i64::from(args.overlap)));
    store.incoming().put(client.serial(), &client.handout)?;
    let detail = json!({
        "device": old.device,
        "serial": client.serial().to_string(),
        "replaces": old.serial.to_string(),
        "same_key": theirs,
    });
    store.transact(|ledger| {
        // One whose end is recorded needs no successor: it is admitted no longer.
        if old.is_live() {
            ledger.supersede_certificate(&old.serial, client.serial(), retires_at)?;
        }
        if old.is_live() && args.overlap == 0 {
            ledger.revoke_certificate(&old.serial, Reason::Superseded, now)?;
        }
        ledger.add_client_certificate(&client.recorded, &client.whose)?;
        if theirs {
            ledger.mark_theirs(client.serial())?;
        }
        ledger.record_event(now, "client-certificate-renewed", old.address.as_str(), &detail)?;
        Ok::<(), LedgerError>(())
    })?;
    let done = format!("the new certificate of {} for `{}` is recorded", old.address, old.device);
    store.settle_handout(client.serial()).map_err(|error| Failure::from(error).after(&done))?;
    Ok(Renewed {
        address: old.address.clone(),
        device: old.device.clone(),
        serial: *client.serial(),
        not_after: client.recorded.not_after,
        replaces: old.serial,
        retires_at,
        has_p12: client.handout.p12_password.is_some(),
    })
}

/// Returns the public key that a recorded certificate is for.
fn key_of(store: &Writer, serial: &Serial) -> Result<PublicKey, Failure> {
    let certificate = Certificate::from_pem(&store.ledger().client_pem(serial)?.certificate)?;
    Ok(PublicKey::from_spki(&certificate.facts().spki)?)
}

fn old_one(retires_at: OffsetDateTime, now: OffsetDateTime) -> String {
    let verb = if retires_at <= now { "ended on" } else { "is admitted until" };
    format!("{verb} {}", day(retires_at))
}

fn report(wanted: &Wanted, store: &Writer, renewed: &[Renewed], (list, now): (List, OffsetDateTime)) -> Report {
    let mut text = String::new();
    if let [one] = renewed {
        let Renewed { address, device, not_after, .. } = one;
        text.push_str(&format!("renewed the certificate of {address} for `{device}`, until {}\n", day(*not_after)));
        let mut rows = vec![
            vec!["give them".to_owned(), format!("{}/", store.handout_path(address, device))],
            vec!["the old one".to_owned(), old_one(one.retires_at, now)],
        ];
        if one.has_p12 {
            let password = store.passphrase_path(Passphrase::Device(address, device));
            rows.insert(1, vec!["password of the .p12".to_owned(), format!("in {password}")]);
        }
        for line in columns(&rows).lines() {
            text.push_str(&format!("  {line}\n"));
        }
    } else {
        text.push_str(&format!("renewed {}\n", certificates(renewed.len())));
        let row = |one: &Renewed| {
            vec![
                one.address.to_string(),
                one.device.to_string(),
                format!("until {}", day(one.not_after)),
                format!("the old one until {}", day(one.retires_at)),
            ]
        };
        for line in columns(&renewed.iter().map(row).collect::<Vec<_>>()).lines() {
            text.push_str(&format!("  {line}\n"));
        }
        let (handouts, passwords) = (session::shown(store, "handout"), session::shown(store, "state/passwords"));
        text.push_str(&format!("give them what is in {handouts}/ADDRESS/DEVICE/; the passwords lie in {passwords}/\n"));
    }
    text.push_str(&match list {
        List::Changed => how_to_activate(wanted, store, "the new certificates are admitted"),
        List::Same => "the new certificates are admitted already\n".to_owned(),
    });
    let json = renewed.iter().map(|one| {
        json!({
            "address": one.address,
            "device": one.device,
            "serial": one.serial.to_string(),
            "not_after": day(one.not_after).to_string(),
            "replaces": one.replaces.to_string(),
            "old_admitted_until": day(one.retires_at).to_string(),
            "handout": store.handout_path(&one.address, &one.device).as_str(),
        })
    });
    Report::fine(text, json!({ "renewed": json.collect::<Vec<_>>() }))
}
