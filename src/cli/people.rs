//! `user list`, `user show`: who there is, with which certificates, and what happened to them.

use std::cmp::Ordering;

use camino::Utf8Path;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use crate::cli::args::days;
use crate::cli::failure::Failure;
use crate::cli::report::{Report, columns};
use crate::cli::session;
use crate::cli::show::{colons, day};
use crate::cli::user::known_ever;
use crate::env::Env;
use crate::inventory::{CertificateStatus, ClientCertificate, Inventory, User};
use crate::names::{DeviceName, DomainName, MailAddress};
use crate::store::ledger::Event;

/// `user list`
#[derive(Debug, Args)]
pub(super) struct List {
    /// Only users whose address holds this text
    #[arg(value_name = "TEXT")]
    text: Option<String>,
    /// Only users of a domain
    #[arg(long, value_name = "DOMAIN")]
    domain: Option<DomainName>,
    /// Only certificates of devices with this name
    #[arg(long, value_name = "NAME")]
    device: Option<DeviceName>,
    /// Only certificates that end within so many days, such as 30d, and have none that takes their place
    #[arg(long, value_name = "DAYS", value_parser = days)]
    expiring: Option<u16>,
    /// Only certificates that stand so [default: those that are admitted or held, and users without any]
    #[arg(long, value_name = "STATE", value_enum)]
    state: Option<State>,
    /// In which order
    #[arg(long, value_name = "KEY", value_enum, default_value_t = Order::Address)]
    sort: Order,
}

/// How a certificate stands, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum State {
    /// Admitted
    Live,
    /// Admitted until the overlap with a newer one is over
    Superseded,
    /// Came back with a restored ledger, and waits to be confirmed
    Held,
    /// Ended
    Expired,
    /// Revoked
    Revoked,
    /// Users without a certificate
    None,
}

impl State {
    fn of(certificate: &ClientCertificate) -> Self {
        match certificate.status {
            CertificateStatus::Live if certificate.successor.is_some() => Self::Superseded,
            CertificateStatus::Live => Self::Live,
            CertificateStatus::Held => Self::Held,
            CertificateStatus::Expired => Self::Expired,
            CertificateStatus::Revoked => Self::Revoked,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Superseded => "superseded",
            Self::Held => "held",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::None => "none",
        }
    }
}

/// What a list is sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Order {
    /// The address, then the device
    Address,
    /// The end, the soonest first
    Expiry,
    /// The begin, the newest first
    Issued,
}

/// A line of the list: a user, and one of the certificates, if any.
type Line<'a> = (&'a User, Option<&'a ClientCertificate>);

/// `user list`
pub(super) fn list(env: &dyn Env, site: Option<&Utf8Path>, args: &List) -> Result<Report, Failure> {
    let (_, store) = session::read(site)?;
    let (inventory, now) = (store.inventory()?, env.now());
    let mut lines = lines(&inventory, args, now);
    lines.sort_by(|(_, a), (_, b)| match args.sort {
        Order::Address => Ordering::Equal,
        Order::Expiry => last(*a).cmp(&last(*b)),
        Order::Issued => b.map(|b| b.not_before).cmp(&a.map(|a| a.not_before)),
    });
    let row = |(user, certificate): &Line<'_>| {
        let device = certificate.map_or_else(|| "-".to_owned(), |certificate| certificate.device.to_string());
        let state = certificate.map_or_else(|| "no certificate".to_owned(), |certificate| state(certificate, now));
        vec![user.address.to_string(), device, state]
    };
    let text = match (lines.is_empty(), inventory.users.is_empty()) {
        (false, _) => columns(&lines.iter().map(row).collect::<Vec<_>>()),
        (true, true) => "no users yet; add one: postseal user add ADDRESS\n".to_owned(),
        (true, false) => format!("none of {} users\n", inventory.users.len()),
    };
    Ok(Report::fine(text, json!({ "users": users_json(&lines, now) })))
}

/// What never ends is last.
fn last(certificate: Option<&ClientCertificate>) -> (bool, Option<OffsetDateTime>) {
    let end = certificate.map(ClientCertificate::ends_at);
    (end.is_none(), end)
}

fn lines<'a>(inventory: &'a Inventory, args: &List, now: OffsetDateTime) -> Vec<Line<'a>> {
    let horizon = args.expiring.map(|days| now + Duration::days(i64::from(days)));
    let user_fits = |user: &&User| {
        args.text.as_ref().is_none_or(|text| user.address.as_str().contains(&text.to_lowercase()))
            && args.domain.as_ref().is_none_or(|domain| user.address.domain() == *domain)
    };
    let fits = |certificate: &&ClientCertificate| {
        args.device.as_ref().is_none_or(|device| certificate.device == *device)
            && horizon.is_none_or(|horizon| certificate.is_current() && certificate.not_after <= horizon)
            && match args.state {
                Some(wanted) => State::of(certificate) == wanted,
                None => matches!(certificate.status, CertificateStatus::Live | CertificateStatus::Held),
            }
    };
    let mut lines = Vec::new();
    let mut rest = inventory.client_certificates.as_slice();
    for user in &inventory.users {
        // Both lists are sorted by address.
        let before = rest.partition_point(|certificate| certificate.address < user.address);
        rest = rest.get(before..).unwrap_or_default();
        let (own, others) = rest.split_at(rest.partition_point(|certificate| certificate.address == user.address));
        rest = others;
        if !user_fits(&user) {
            continue;
        }
        let none = !own.iter().any(ClientCertificate::is_live);
        let narrow = args.device.is_some() || horizon.is_some();
        let found: Vec<Line<'a>> = own.iter().filter(fits).map(|certificate| (user, Some(certificate))).collect();
        let bare = match args.state {
            Some(State::None) => none && !narrow,
            Some(_) => false,
            None => found.is_empty() && !narrow,
        };
        lines.extend(found);
        if bare {
            lines.push((user, None));
        }
    }
    lines
}

/// Says how a certificate stands, in a few words.
fn state(certificate: &ClientCertificate, now: OffsetDateTime) -> String {
    let end = day(certificate.not_after);
    match (certificate.status, certificate.successor) {
        (CertificateStatus::Live, _) if certificate.ends_at() <= now => {
            format!("ended {}; the next `tick` takes it off the trust list", day(certificate.ends_at()))
        }
        (CertificateStatus::Live, None) => format!("until {end}"),
        (CertificateStatus::Live | CertificateStatus::Expired, Some(_)) => {
            format!("replaced; admitted until {}", day(certificate.ends_at()))
        }
        (CertificateStatus::Held, _) => "held since a restore; admit it with: postseal user confirm ADDRESS".to_owned(),
        (CertificateStatus::Expired, None) => format!("expired {end}"),
        (CertificateStatus::Revoked, _) => certificate.revocation.map_or_else(
            || "revoked".to_owned(),
            |revocation| format!("revoked {} ({})", day(revocation.at), revocation.reason.as_str()),
        ),
    }
}

fn users_json(lines: &[Line<'_>], now: OffsetDateTime) -> Vec<Value> {
    let mut users: Vec<(&MailAddress, Value, Vec<Value>)> = Vec::new();
    for (user, certificate) in lines {
        if users.last().is_none_or(|(address, ..)| **address != user.address) {
            let senders = &user.senders;
            let json = json!({ "address": user.address, "senders": senders, "since": day(user.since).to_string() });
            users.push((&user.address, json, Vec::new()));
        }
        if let (Some((.., certificates)), Some(certificate)) = (users.last_mut(), certificate) {
            certificates.push(certificate_json(certificate, now));
        }
    }
    let whole = users.into_iter().map(|(_, mut user, certificates)| {
        if let Some(user) = user.as_object_mut() {
            user.insert("certificates".to_owned(), certificates.into());
        }
        user
    });
    whole.collect()
}

pub(super) fn certificate_json(certificate: &ClientCertificate, now: OffsetDateTime) -> Value {
    json!({
        "device": certificate.device,
        "serial": certificate.serial.to_string(),
        "fingerprint": certificate.fingerprint.to_string(),
        "state": State::of(certificate).as_str(),
        "not_before": day(certificate.not_before).to_string(),
        "not_after": day(certificate.not_after).to_string(),
        "expired": certificate.not_after <= now,
        "admitted_until": certificate.is_live().then(|| day(certificate.ends_at()).to_string()),
        "superseded_by": certificate.successor.map(|successor| successor.serial.to_string()),
        "revoked": certificate.revocation.map(|revocation| day(revocation.at).to_string()),
        "reason": certificate.revocation.map(|revocation| revocation.reason.as_str()),
        "handed_over": certificate.handed_over.map(|at| day(at).to_string()),
        "own_key": certificate.theirs,
        "trust": if certificate.issuer.is_some() { "ca" } else { "pinned" },
    })
}

/// `user show`
pub(super) fn show(env: &dyn Env, site: Option<&Utf8Path>, address: &MailAddress) -> Result<Report, Failure> {
    let (_, store) = session::read(site)?;
    let (inventory, now) = (store.inventory()?, env.now());
    known_ever(&inventory, address)?;
    let user = inventory.users.iter().find(|user| user.address == *address);
    let own = inventory.client_certificates.iter().filter(|certificate| certificate.address == *address);
    let own: Vec<&ClientCertificate> = own.collect();
    let mut text = match user {
        Some(user) => format!("{address}, an account since {}\n", day(user.since)),
        None => format!("{address}, removed\n"),
    };
    for sender in user.iter().flat_map(|user| &user.senders) {
        text.push_str(&format!("  may send as {sender}\n"));
    }
    if own.is_empty() {
        text.push_str("no certificates\n");
    }
    for certificate in &own {
        text.push_str(&format!("{}: {}\n", certificate.device, state(certificate, now)));
        let issued = format!("{} with the serial {}", day(certificate.not_before), certificate.serial);
        let handout = store.handout_path(address, &certificate.device);
        let kept = certificate.is_current() && certificate.handed_over.is_none();
        let handed_over = match certificate.handed_over {
            Some(at) => Some(format!("on {}", day(at))),
            None if kept && crate::store::files::exists(&handout)? => Some(format!("not yet; it is in {handout}/")),
            None => None,
        };
        let mut rows =
            vec![vec!["issued".to_owned(), issued], vec!["sha-256".to_owned(), colons(&certificate.fingerprint)]];
        rows.extend(handed_over.map(|when| vec!["handed over".to_owned(), when]));
        for line in columns(&rows).lines() {
            text.push_str(&format!("  {line}\n"));
        }
    }
    let events = store.ledger().events_of(address.as_str())?;
    if !events.is_empty() {
        text.push_str("history\n");
    }
    for event in &events {
        text.push_str(&format!("  {}  {}\n", day(event.at), told(event)));
    }
    let history = events
        .iter()
        .map(|event| json!({ "at": day(event.at).to_string(), "what": event.what, "detail": event.detail }));
    let json = json!({
        "address": address,
        "removed": user.is_none(),
        "since": user.map(|user| day(user.since).to_string()),
        "senders": user.map_or(&[][..], |user| &user.senders),
        "certificates": own.iter().map(|certificate| certificate_json(certificate, now)).collect::<Vec<_>>(),
        "history": history.collect::<Vec<_>>(),
    });
    Ok(Report::fine(text, json))
}

/// Says what happened: the event's words, the device, and whatever else is short.
fn told(event: &Event) -> String {
    let mut text = event.what.replace('-', " ");
    let word = |name: &str| event.detail.get(name).and_then(Value::as_str);
    if let Some(device) = word("device") {
        text.push_str(&format!(", {device}"));
    }
    if let Some(reason) = word("reason") {
        text.push_str(&format!(" ({reason})"));
    }
    if let Some(serial) = word("serial") {
        text.push_str(&format!(", {serial}"));
    }
    text
}
