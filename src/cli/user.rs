//! `user add`, `user passwd`, `user remove`.

use camino::Utf8Path;
use serde_json::json;

use crate::cli::args::{Password, UserAdd, UserPasswd, UserRemove};
use crate::cli::csr;
use crate::cli::failure::Failure;
use crate::cli::issuing::{self, Signers};
use crate::cli::make::{self, ClientKey, ClientOrder, SiteCa};
use crate::cli::report::{Report, columns};
use crate::cli::session::{self, Wanted};
use crate::cli::show::day;
use crate::diag::{Diagnostic, did_you_mean};
use crate::env::Env;
use crate::inventory::{CertificateStatus, ClientCertificate, Inventory};
use crate::names::{DeviceName, MailAddress, Serial, shell_word};
use crate::password;
use crate::pki::trust::MAXIMUM_TWINS;
use crate::secret::Secret;
use crate::site::{Accounts, Site};
use crate::store::{Passphrase, Writer};

/// What `user add` and the first user of `init` have in common.
pub(super) struct NewUser<'a> {
    pub(super) order: ClientOrder<'a>,
    pub(super) senders: &'a [MailAddress],
    /// A mail password that the administrator chose; without one it is made.
    pub(super) chosen: Option<Secret>,
}

/// What was made for a user.
pub(super) struct Added {
    pub(super) certificate: time::Date,
    /// Whether there was no such account before.
    pub(super) is_new: bool,
    /// None for a key that was not made here.
    pub(super) p12_password: Option<Secret>,
    pub(super) mail_password: Option<Secret>,
}

/// `user add`
pub(super) fn add(env: &dyn Env, site: Option<&Utf8Path>, args: &UserAdd) -> Result<Report, Failure> {
    let (wanted, mut store) = session::write(env, site)?;
    let UserAdd { address, device, .. } = args;
    let inventory = store.inventory()?;
    if current(&inventory, address).any(|certificate| certificate.device == *device) {
        // A run that was killed may have come as far as that, and no further; who repeats it is refused, and finds all done.
        session::refresh(&wanted, &store)?;
    }
    check(&wanted.site, &inventory, address, device, &args.senders)?;
    let key = match &args.csr {
        Some(file) => ClientKey::Theirs(csr::key(&store, &inventory, file, address)?),
        None => ClientKey::New(args.key),
    };
    let chosen = chosen(env, &args.password)?;
    let file = args.ca_passphrase_file.as_deref();
    let mut ca = make::open_site_ca(env, &store, file)?;
    issuing::provide(env, &wanted.site, &mut store, &mut ca)?;
    let order = ClientOrder { address, device, key, days: args.days, apple: args.apple };
    let new = NewUser { order, senders: &args.senders, chosen };
    let added = make_user(env, &wanted.site, &ca, &new, &mut store)?;
    let done = format!("the certificate of {address} for `{device}` is recorded");
    session::refresh(&wanted, &store).map_err(|failure| failure.after(&done))?;
    let now = store.inventory()?;
    let list = List::between(&inventory, &now);
    let report = add_report(env, &wanted, &store, &new.order, &added, list).done(done);
    Ok(report.warn(trust_list_long(twins(&now)).as_slice()))
}

/// Whether new certificates changed whom the daemons trust.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum List {
    /// There is another twin.
    Changed,
    /// Their issuing CA is trusted already.
    Same,
}

impl List {
    /// Compares what was with what is.
    pub(super) fn between(before: &Inventory, now: &Inventory) -> Self {
        if before.trust_list == now.trust_list { Self::Same } else { Self::Changed }
    }
}

/// Returns how many twins are on the trust list.
pub(super) fn twins(inventory: &Inventory) -> usize {
    let own = |certificate: &&ClientCertificate| certificate.is_live() && certificate.issuer.is_none();
    inventory.client_certificates.iter().filter(own).count() + inventory.live_issuing_cas().count()
}

/// Warns of a trust list that is too long to be sent. It is no error: who is listed is admitted by OpenSMTPD all the same.
pub(super) fn trust_list_long(twins: usize) -> Option<Diagnostic> {
    if twins <= MAXIMUM_TWINS {
        return None;
    }
    let message = format!("{twins} issuers are trusted, and TLS can name {MAXIMUM_TWINS} issuers to a client");
    let help =
        "remove who has left: postseal user remove ADDRESS; or trust one CA for all: trust = \"ca\", docs/trust.md";
    let note = "Dovecot sends the names of its whole list to whoever connects, in 65,535 octets (RFC 8446 §4.2.4)";
    Some(Diagnostic::warning("trust-list-long", message, help).note(note))
}

/// Refuses what cannot be added, before anything is written.
fn check(
    site: &Site,
    inventory: &Inventory,
    address: &MailAddress,
    device: &DeviceName,
    senders: &[MailAddress],
) -> Result<(), Failure> {
    for (address, whose) in std::iter::once((address, "user")).chain(senders.iter().map(|sender| (sender, "sender"))) {
        check_domain(site, address, whose)?;
    }
    check_mailbox(site, address)?;
    if let Some(taken) = current(inventory, address).find(|certificate| certificate.device == *device) {
        let word = shell_word(address.as_str());
        let then =
            if taken.is_live() { "renew it: postseal user renew" } else { "admit it again: postseal user confirm" };
        let help = format!("name another device with --device NAME, or {then} {word} --device {device}");
        let message = format!("`{address}` has a certificate for `{device}` until {}", day(taken.not_after));
        return Err(Failure::input("device-taken", message, help));
    }
    Ok(())
}

fn check_domain(site: &Site, address: &MailAddress, whose: &str) -> Result<(), Failure> {
    let domain = address.domain();
    if let Some(known) = site.domain(&domain) {
        return if known.mail { Ok(()) } else { Err(without_mail(address, whose)) };
    }
    let near = did_you_mean(domain.as_str(), site.domains.iter().map(|domain| domain.name.as_str()));
    let help = near.map_or_else(
        || format!("declare the domain in postseal.toml: [[domain]] with name = \"{domain}\""),
        |name| format!("did you mean `{}@{name}`?", address.local_part()),
    );
    let message = format!("{whose} `{address}` belongs to no domain of this site");
    Err(Failure::input("user-domain-unknown", message, help))
}

fn without_mail(address: &MailAddress, whose: &str) -> Failure {
    let help = format!("remove `mail = false` of `{}` in postseal.toml, or choose another address", address.domain());
    Failure::input("user-domain-without-mail", format!("{whose} `{address}` is in a domain without mail"), help)
}

/// Refuses an address that can be no user's on this site.
pub(super) fn check_mailbox(site: &Site, address: &MailAddress) -> Result<(), Failure> {
    check_domain(site, address, "user")?;
    refuse_tag(address)?;
    let mailbox = site.mailbox_of(address);
    if mailbox != *address {
        let message = format!("`{address}` is another name of `{mailbox}`");
        return Err(Failure::input("user-is-other-name", message, format!("name the user {mailbox}")));
    }
    // Sorted, for a list of users asks thousands of times.
    if site.aliases.binary_search_by(|alias| alias.address.cmp(address)).is_ok() {
        let help = "take it out of [aliases] in postseal.toml, or choose another address";
        return Err(Failure::input("user-is-alias", format!("`{address}` is an alias"), help));
    }
    Ok(())
}

/// OpenSMTPD and Dovecot take what follows a + for a tag.
pub(super) fn refuse_tag(address: &MailAddress) -> Result<(), Failure> {
    if address.local_part().contains('+') {
        let help = "mail to NAME+TAG goes to the mailbox NAME: leave the + out, or add such an address with --sender";
        return Err(Failure::input("user-has-tag", format!("`{address}` has a tag, and no mailbox of its own"), help));
    }
    Ok(())
}

/// Returns the newest certificate of each of a user's devices, live or held.
pub(super) fn current<'a>(
    inventory: &'a Inventory,
    address: &MailAddress,
) -> impl Iterator<Item = &'a ClientCertificate> {
    let of = address.clone();
    let own = inventory.client_certificates.iter().filter(move |certificate| certificate.address == of);
    own.filter(|certificate| certificate.is_current())
}

/// Returns the mail password that the administrator chose, if they did.
fn chosen(env: &dyn Env, password: &Password) -> Result<Option<Secret>, Failure> {
    let given = match (&password.password_file, password.ask_password) {
        (Some(file), _) => make::read_passphrase(file)?,
        (None, true) if env.person_is_there() => {
            let first = env.ask_secret("mail password: ")?;
            if env.ask_secret("the same again: ")? != first {
                return Err(Failure::input("password-mismatch", "the two passwords differ", "run the command again"));
            }
            first
        }
        (None, true) => {
            let help = "give --password-file, or leave both out to have one made";
            return Err(Failure::input("no-terminal", "there is no terminal to ask for the password on", help));
        }
        (None, false) => return Ok(None),
    };
    password::judge(&given).map(Some).map_err(|error| Failure::input("password", error.problem, error.mend))
}

/// Issues the certificate and, for somebody new, opens the account; files first, the ledger last.
pub(super) fn make_user(
    env: &dyn Env,
    site: &Site,
    ca: &SiteCa,
    new: &NewUser<'_>,
    store: &mut Writer,
) -> Result<Added, Failure> {
    let now = env.now();
    let address = new.order.address;
    let inventory = store.inventory()?;
    let known = inventory.users.iter().find(|user| user.address == *address);
    let is_new = known.is_none();
    let mut senders = known.map_or_else(Vec::new, |user| user.senders.clone());
    senders.extend_from_slice(new.senders);
    senders.retain(|sender| sender != address);
    senders.sort();
    senders.dedup();
    let sets_password = site.accounts == Accounts::Managed && (is_new || new.chosen.is_some());
    let mut client = make::client(env, ca, &new.order)?;
    let hash = if sets_password {
        let (password, hash) = mail_password(env, new.chosen.clone())?;
        client.handout.mail_password = Some(password);
        Some(hash)
    } else {
        None
    };
    store.incoming().put(client.serial(), &client.handout)?;
    store.transact(|ledger| {
        if is_new {
            ledger.add_user(address, now)?;
        }
        ledger.set_senders(address, &senders)?;
        if let Some(hash) = &hash {
            ledger.set_password(address, hash)?;
        }
        ledger.add_client_certificate(&client.recorded, &client.whose)?;
        if matches!(new.order.key, ClientKey::Theirs(_)) {
            ledger.mark_theirs(client.serial())?;
        }
        let detail = json!({ "device": new.order.device, "serial": client.serial().to_string() });
        ledger.record_event(now, "client-certificate-issued", address.as_str(), &detail)
    })?;
    let done = format!("the certificate of {address} for `{}` is recorded", new.order.device);
    store.settle_handout(client.serial()).map_err(|error| Failure::from(error).after(&done))?;
    Ok(Added {
        certificate: day(client.recorded.not_after),
        is_new,
        p12_password: client.handout.p12_password,
        mail_password: client.handout.mail_password,
    })
}

/// Makes or takes a mail password, and returns it with its hash.
pub(super) fn mail_password(env: &dyn Env, chosen: Option<Secret>) -> Result<(Secret, Secret), Failure> {
    let password = match chosen {
        Some(chosen) => chosen,
        None => make::generated_password(env)?,
    };
    let hash = password::hash(&password, make::octets(env)?).map_err(|error| {
        Failure::work("bcrypt", format!("the password could not be hashed: {error}"), "report this as a bug")
    })?;
    Ok((password, hash))
}

fn add_report(
    env: &dyn Env,
    wanted: &Wanted,
    store: &Writer,
    order: &ClientOrder<'_>,
    added: &Added,
    list: List,
) -> Report {
    let handout = store.handout_path(order.address, order.device);
    let mut rows = vec![vec!["give them".to_owned(), format!("{handout}/")]];
    let mut secret = |what: &str, secret: &Secret, place| {
        let shown = secret.expose_str().filter(|_| env.output_is_terminal());
        let shown = shown.map_or_else(|| format!("in {}", store.passphrase_path(place)), str::to_owned);
        rows.push(vec![what.to_owned(), shown]);
    };
    if let Some(password) = &added.p12_password {
        secret("password of the .p12", password, Passphrase::Device(order.address, order.device));
    }
    if let Some(password) = &added.mail_password {
        secret("mail password", password, Passphrase::Account(order.address));
    }
    let ClientOrder { address, device, .. } = order;
    let mut text = format!("issued a certificate to {address} for `{device}` until {}\n", added.certificate);
    for line in columns(&rows).lines() {
        text.push_str(&format!("  {line}\n"));
    }
    match (list, added.is_new) {
        (List::Changed, _) => text.push_str(&how_to_activate(wanted, store, "the certificate is admitted")),
        (List::Same, false) => text.push_str("the certificate is admitted already: nothing is to be installed\n"),
        (List::Same, true) => {
            text.push_str(
                "the certificate is admitted already; the account needs its tables on the host: postseal apply\n",
            );
        }
    }
    let json = json!({
        "address": order.address,
        "device": order.device,
        "not_after": added.certificate.to_string(),
        "handout": handout.as_str(),
    });
    Report::fine(text, json)
}

/// Says what must happen on each host before something is true there: OpenSMTPD reads its trust list at start only.
pub(super) fn how_to_activate(wanted: &Wanted, store: &Writer, what: &str) -> String {
    let hosts = wanted.site.hosts.iter().map(|host| {
        let files = session::shown(store, "out").join(host.name.as_str());
        format!("{what} once {files}/ is installed there, and: {}\n", host.platform.layout().restart_smtpd)
    });
    hosts.collect()
}

/// `user passwd`
pub(super) fn passwd(env: &dyn Env, site: Option<&Utf8Path>, args: &UserPasswd) -> Result<Report, Failure> {
    let (wanted, mut store) = session::write(env, site)?;
    if wanted.site.accounts != Accounts::Managed {
        let help = "change it in the table that `accounts` names in postseal.toml";
        return Err(Failure::input("accounts-external", "the passwords of this site are kept elsewhere", help));
    }
    known(&store.inventory()?, &args.address)?;
    let chosen = chosen(env, &args.password)?;
    let (password, hash) = mail_password(env, chosen)?;
    store.put_pending_password(&args.address, &password)?;
    let now = env.now();
    store.transact(|ledger| {
        ledger.set_password(&args.address, &hash)?;
        ledger.record_event(now, "password-set", args.address.as_str(), &json!({}))
    })?;
    let done = format!("the new mail password of {} is recorded", args.address);
    let settled = store.settle_password().map_err(Failure::from);
    settled.and_then(|()| session::refresh(&wanted, &store)).map_err(|failure| failure.after(&done))?;
    let place = store.passphrase_path(Passphrase::Account(&args.address));
    let shown =
        password.expose_str().filter(|_| env.output_is_terminal()).map_or_else(|| format!("in {place}"), str::to_owned);
    let text = format!(
        "set a new mail password for {}: {shown}\nit counts once `credentials` is installed and read: smtpctl update table credentials\n",
        args.address
    );
    Ok(Report::fine(text, json!({ "address": args.address, "password_file": place.as_str() })).done(done))
}

/// `user remove`. A lost device cannot wait for settings to be mended: the ledger comes first, then what follows from it.
pub(super) fn remove(env: &dyn Env, site: Option<&Utf8Path>, args: &UserRemove) -> Result<Report, Failure> {
    let address = &args.address;
    let mut store = session::writer(env, session::directory(site))?;
    let inventory = store.inventory()?;
    let is_there = inventory.users.iter().any(|user| user.address == *address);
    // Removed before, perhaps by a run that was killed: what follows is done all the same.
    known_ever(&inventory, address)?;
    // A CRL that cannot be made now is made later: what is lost cannot wait.
    let of = inventory.client_certificates.iter().filter(|certificate| certificate.address == *address);
    let ended = |status| matches!(status, CertificateStatus::Expired | CertificateStatus::Revoked);
    let of = of.filter(|certificate| !ended(certificate.status));
    let signers = Signers::of(env, &store, args.ca_passphrase_file.as_deref(), of);
    let (signers, hindrance) = signers.map_or_else(|why| (Signers::none(), Some(why)), |signers| (signers, None));
    let revoked = if is_there { record_removal(env, address, &signers, &mut store)? } else { Vec::new() };
    let done = format!("{address} is removed and revoked in the ledger");
    let wanted = follow_removal(address, &store).map_err(|failure| failure.after(&done))?;
    let shared = |serial: &&Serial| {
        let mut all = inventory.client_certificates.iter();
        all.any(|certificate| certificate.serial == **serial && certificate.issuer.is_some())
    };
    let on_crl = revoked.iter().filter(shared).count();
    let off_list = revoked.len() - on_crl;
    let what = match (is_there, on_crl, off_list) {
        (false, ..) => format!("{address} was removed before; out/ shows it"),
        (true, 0, 0) => format!("removed {address}, who had no certificate any more"),
        (true, 0, off_list) => format!("removed {address} and took {} off the trust list", certificates(off_list)),
        (true, on_crl, 0) => format!("removed {address} and revoked {}", certificates(on_crl)),
        (true, on_crl, off_list) => {
            let (on_crl, off_list) = (certificates(on_crl), certificates(off_list));
            format!("removed {address}, revoked {on_crl}, and took {off_list} off the trust list")
        }
    };
    let mut text = format!("{what}\n");
    text.push_str(match wanted.site.accounts {
        Accounts::External { .. } => "take the login out of your own table too\n",
        Accounts::Managed => {
            "to shut the account at once, install `credentials` and run: smtpctl update table credentials\n"
        }
    });
    if on_crl > 0 {
        text.push_str(&issuing::how_to_tell(&wanted, &store));
    }
    if off_list > 0 || on_crl == 0 {
        text.push_str(&how_to_activate(&wanted, &store, "the certificates are refused"));
    }
    let leads = wanted.site.aliases.iter().filter(|alias| alias.targets.contains(address));
    for alias in leads {
        text.push_str(&format!("the alias {} still leads to {address}: change it in postseal.toml\n", alias.address));
    }
    let serials: Vec<String> = revoked.iter().map(ToString::to_string).collect();
    let json = json!({ "address": address, "revoked": serials });
    let report = Report::fine(text, json).warn(&wanted.warnings);
    let report = report.warn(issuing::still_admitted(&store.inventory()?, env.now()).as_slice()).done(done);
    Ok(match hindrance {
        Some(why) => issuing::behind(report, &why),
        None => report,
    })
}

fn record_removal(
    env: &dyn Env,
    address: &MailAddress,
    signers: &Signers,
    store: &mut Writer,
) -> Result<Vec<Serial>, Failure> {
    let now = env.now();
    store.transact(|ledger| {
        let revoked = ledger.remove_user(address, now)?;
        ledger.record_event(now, "user-removed", address.as_str(), &json!({ "revoked": revoked.len() }))?;
        signers.sign(ledger, now)?;
        Ok(revoked)
    })
}

/// Removes what the person was given, and renders without them.
fn follow_removal(address: &MailAddress, store: &Writer) -> Result<Wanted, Failure> {
    store.forget_user(address)?;
    let wanted = Wanted::read(store.site())?;
    session::refresh(&wanted, store)?;
    Ok(wanted)
}

pub(super) fn certificates(count: usize) -> String {
    if count == 1 { "1 certificate".to_owned() } else { format!("{count} certificates") }
}

/// Refuses an address that is and was nobody's.
pub(super) fn known_ever(inventory: &Inventory, address: &MailAddress) -> Result<(), Failure> {
    let was_there = inventory.client_certificates.iter().any(|certificate| certificate.address == *address);
    if was_there { Ok(()) } else { known(inventory, address) }
}

pub(super) fn known(inventory: &Inventory, address: &MailAddress) -> Result<(), Failure> {
    if inventory.users.iter().any(|user| user.address == *address) {
        return Ok(());
    }
    let near = did_you_mean(address.as_str(), inventory.users.iter().map(|user| user.address.as_str()));
    let help = near
        .map_or_else(|| "see who there is: postseal user list".to_owned(), |near| format!("did you mean `{near}`?"));
    Err(Failure::input("user-unknown", format!("there is no user `{address}`"), help))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::Severity;

    #[test]
    fn a_trust_list_is_too_long_once_tls_cannot_name_all_of_it() {
        assert_eq!(trust_list_long(MAXIMUM_TWINS), None);
        let warned = trust_list_long(MAXIMUM_TWINS + 1).map(|found| (found.severity, found.code));
        assert_eq!(warned, Some((Severity::Warning, "trust-list-long")));
    }
}
