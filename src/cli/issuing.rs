//! The issuing CA for all clients, of `trust = "ca"`: made at first need, renewed with every certificate below it, retired; and
//! its CRL, for Dovecot and web servers. OpenSMTPD reads no CRL, and this module says so wherever it matters.

use std::collections::BTreeSet;

use camino::Utf8Path;
use serde_json::json;
use time::{Duration, OffsetDateTime};

use crate::cli::args::days;
use crate::cli::failure::Failure;
use crate::cli::make::{self, ClientKey, ClientOrder, Issuer, SharedIssuer, SiteCa};
use crate::cli::report::{Report, columns};
use crate::cli::session::{self, Wanted};
use crate::cli::show::day;
use crate::cli::user::how_to_activate;
use crate::diag::Diagnostic;
use crate::env::Env;
use crate::inventory::{CertificateStatus, ClientCertificate, Inventory, IssuingCa, Reason};
use crate::keys::{KeyKind, PrivateKey, PublicKey};
use crate::names::{DomainName, Serial};
use crate::pki::Certificate;
use crate::pki::crl::{self, Seen};
use crate::pki::issue::{self, EmptyCrl};
use crate::pki::profile::{BACKDATED, Scope};
use crate::secret::Secret;
use crate::site::{Site, Trust};
use crate::store::ledger::{AuthorityKey, NewCertificate, NewClient, RecordedIssuingCa, Transaction};
use crate::store::{Store, Writer, bundle_names};

/// `ca renew`, with `--clients` and without
#[derive(Debug, clap::Args)]
pub(super) struct Renew {
    /// Make a new issuing CA for the clients, and issue every certificate anew under it (trust = "ca")
    #[arg(long)]
    pub(super) clients: bool,
    /// How long the old certificates are admitted beside the new ones
    #[arg(long, value_name = "DAYS", default_value = "30d", value_parser = days, conflicts_with = "now", requires = "clients")]
    pub(super) overlap: u16,
    /// Admit the old certificates no longer, as when one is stolen: OpenSMTPD reads no CRL
    #[arg(long, requires = "clients")]
    pub(super) now: bool,
    /// The file that holds the CA's passphrase [default: state/ca.passphrase, or ask]
    #[arg(long, value_name = "FILE")]
    pub(super) ca_passphrase_file: Option<camino::Utf8PathBuf>,
}

/// `ca retire`
#[derive(Debug, clap::Args)]
pub(super) struct Retire {
    /// Retire it though people have no other certificate: they are shut out
    #[arg(long)]
    pub(super) force: bool,
}

/// `ca crl`
#[derive(Debug, clap::Args)]
pub(super) struct ShowCrl {
    /// Make a new one first
    #[arg(long)]
    pub(super) refresh: bool,
    /// The file that holds the CA's passphrase [default: state/ca.passphrase, or ask]
    #[arg(long, value_name = "FILE", requires = "refresh")]
    pub(super) ca_passphrase_file: Option<camino::Utf8PathBuf>,
}

/// When a CRL is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// In any case.
    Always,
    /// Once half of the newest one's life is over, or it does not say what the ledger says.
    IfHalfGone,
}

/// Decides who issues the certificates of clients: with `trust = "ca"` the issuing CA for all, which is made if there is none.
pub(super) fn provide(env: &dyn Env, site: &Site, store: &mut Writer, ca: &mut SiteCa) -> Result<(), Failure> {
    if site.trust == Trust::Pinned {
        // Whoever heeds the CRL of an issuing CA for all wants one of every other CA, too.
        let heeded = store.inventory()?.live_issuing_cas().next().is_some();
        ca.issuer = Issuer::Own(if heeded { EmptyCrl::Signed } else { EmptyCrl::Omitted });
        return Ok(());
    }
    let is_held = |one: &IssuingCa| one.status == CertificateStatus::Held && one.successor.is_none();
    if store.ledger().issuing_ca()?.is_none() && store.inventory()?.issuing_cas.iter().any(is_held) {
        // Another one would take its place, and nobody under it could be admitted again.
        let message = "the issuing CA for all clients is held since a restore";
        let help = "admit those of whom you know that they were not revoked: postseal user confirm ADDRESS (or --all)";
        return Err(Failure::input("certificate-held", message, help));
    }
    let passphrase = passphrase_of(env, store, ca)?;
    let shared = match store.ledger().issuing_ca()? {
        Some(recorded) => open(store, &recorded, &passphrase)?,
        None => first(env, site, store, ca, &passphrase)?,
    };
    ca.issuer = Issuer::Shared(Box::new(shared));
    // The keys are at hand: a CRL that nobody renews shuts everybody out.
    refresh(env, store, Due::IfHalfGone, |_| Ok(passphrase.clone())).map(|_| ())
}

fn passphrase_of(env: &dyn Env, store: &Store, ca: &SiteCa) -> Result<Secret, Failure> {
    ca.passphrase.as_ref().map_or_else(|| make::passphrase_beside_pin(env, store), |known| Ok(known.clone()))
}

/// Opens the key of an issuing CA.
fn open(store: &Store, recorded: &RecordedIssuingCa, passphrase: &Secret) -> Result<SharedIssuer, Failure> {
    let AuthorityKey::File(digest) = &recorded.key else {
        let message = "the issuing CA's key is on a token";
        return Err(Failure::work("ledger", message, "use the postseal that put it there"));
    };
    let encrypted = store.key(digest)?;
    let key = PrivateKey::decrypt(encrypted.expose_str().unwrap_or_default(), passphrase)?;
    Ok(SharedIssuer { serial: recorded.serial, certificate: Certificate::from_pem(&recorded.certificate)?, key })
}

/// An issuing CA that is made, its key in its file, and that nothing refers to yet.
struct NewIssuer {
    shared: SharedIssuer,
    recorded: NewCertificate,
    twin: String,
    key: AuthorityKey,
}

impl NewIssuer {
    fn make(
        env: &dyn Env,
        site: &Site,
        store: &Writer,
        ca: &SiteCa,
        passphrase: &Secret,
        now: OffsetDateTime,
    ) -> Result<Self, Failure> {
        let domains: Vec<DomainName> = site.mail_domains().map(|domain| domain.name.clone()).collect();
        let (key, serial, twin) = (make::key(env, KeyKind::P256)?, make::serial(env)?, make::serial(env)?);
        let made = issue::issuing_ca(Scope::Domains(&domains), &key, (serial, twin), &ca.authority()?, now)?;
        let encrypted = key.encrypt(passphrase, make::octets(env)?, make::octets(env)?)?;
        let stored = store.put_key(&Secret::from(encrypted))?;
        Ok(Self {
            recorded: make::recorded(&made.issuing, serial, ""),
            twin: made.twin.pem(),
            key: AuthorityKey::File(stored),
            shared: SharedIssuer { serial, certificate: made.issuing, key },
        })
    }

    /// Records the CA with its first CRL.
    fn record(&self, ledger: &mut Transaction<'_>, now: OffsetDateTime) -> Result<(), Failure> {
        ledger.add_issuing_ca(&self.recorded, &self.twin, &self.key)?;
        let detail = json!({ "serial": self.shared.serial.to_string() });
        ledger.record_event(now, "issuing-ca-made", &self.shared.serial.to_string(), &detail)?;
        sign_crl(&self.shared, ledger, now)
    }
}

fn first(
    env: &dyn Env,
    site: &Site,
    store: &mut Writer,
    ca: &SiteCa,
    passphrase: &Secret,
) -> Result<SharedIssuer, Failure> {
    let now = env.now();
    let new = NewIssuer::make(env, site, store, ca, passphrase, now)?;
    store.transact(|ledger| new.record(ledger, now))?;
    Ok(new.shared)
}

/// The issuing CAs whose twins daemons trust, opened, to sign CRLs; empty without any, and then no passphrase was asked for.
pub(super) struct Signers(Vec<SharedIssuer>);

impl Signers {
    /// Returns none.
    pub(super) fn none() -> Self {
        Self(Vec::new())
    }

    /// Opens those that issued one of the certificates, which are about to be revoked.
    pub(super) fn of<'a>(
        env: &dyn Env,
        store: &Store,
        file: Option<&Utf8Path>,
        certificates: impl IntoIterator<Item = &'a ClientCertificate>,
    ) -> Result<Self, Failure> {
        let issuers: Vec<Serial> = certificates.into_iter().filter_map(|certificate| certificate.issuer).collect();
        Self::open(
            store,
            |ca| ca.is_live && issuers.contains(&ca.serial),
            |store| make::ca_passphrase(env, store, file),
        )
    }

    /// Opens those of the serials, trusted or not: they are about to be.
    pub(super) fn of_serials(
        env: &dyn Env,
        store: &Store,
        file: Option<&Utf8Path>,
        serials: &BTreeSet<Serial>,
    ) -> Result<Self, Failure> {
        Self::open(store, |ca| serials.contains(&ca.serial), |store| make::ca_passphrase(env, store, file))
    }

    fn open(
        store: &Store,
        wanted: impl Fn(&RecordedIssuingCa) -> bool,
        passphrase: impl Fn(&Store) -> Result<Secret, Failure>,
    ) -> Result<Self, Failure> {
        let cas = store.ledger().issuing_cas()?.into_iter();
        let cas: Vec<_> = cas.filter(wanted).collect();
        if cas.is_empty() {
            return Ok(Self::none());
        }
        let passphrase = passphrase(store)?;
        Ok(Self(cas.iter().map(|ca| open(store, ca, &passphrase)).collect::<Result<_, _>>()?))
    }

    /// Makes a new CRL of each, as of what the mutation says by now.
    pub(super) fn sign(&self, ledger: &mut Transaction<'_>, now: OffsetDateTime) -> Result<(), Failure> {
        self.0.iter().try_for_each(|signer| sign_crl(signer, ledger, now))
    }
}

fn sign_crl(signer: &SharedIssuer, ledger: &mut Transaction<'_>, now: OffsetDateTime) -> Result<(), Failure> {
    let inventory = ledger.inventory()?;
    let ca = inventory.live_issuing_cas().find(|ca| ca.serial == signer.serial);
    // One that was revoked a moment ago needs none: its twin is off the list.
    let Some(ca) = ca else { return Ok(()) };
    let listed = ledger.crl(&ca.serial)?.and_then(|pem| Seen::from_pem(&pem).ok()).unwrap_or_default();
    let entries = crl::next_entries(&inventory, ca, &listed.entries);
    let next = ca.crl.as_ref().map_or(1, |crl| crl.number.saturating_add(1));
    // After a restore nobody knows how far the numbers had come: a clock is further.
    let clock = if ledger.has_event("restored")? { u32::try_from(now.unix_timestamp()).unwrap_or(next) } else { next };
    let number = next.max(clock);
    let (crl, pem) = crl::sign(&entries, number, &signer.authority()?, now)?;
    ledger.set_crl(&ca.serial, &crl, &pem)?;
    let detail = json!({ "number": number, "entries": entries.len() });
    Ok(ledger.record_event(now, "crl-made", &ca.serial.to_string(), &detail)?)
}

/// Makes a new CRL of each issuing CA for which it is due. Returns whether there was one; then `out/` is to be rendered.
pub(super) fn refresh_crl(
    env: &dyn Env,
    store: &mut Writer,
    file: Option<&Utf8Path>,
    due: Due,
) -> Result<bool, Failure> {
    refresh(env, store, due, |store| make::ca_passphrase(env, store, file))
}

fn refresh(
    env: &dyn Env,
    store: &mut Writer,
    due: Due,
    passphrase: impl Fn(&Store) -> Result<Secret, Failure>,
) -> Result<bool, Failure> {
    let now = env.now();
    let inventory = store.inventory()?;
    let mut wanted = Vec::new();
    for ca in inventory.live_issuing_cas() {
        let listed = seen(store, ca)?.entries;
        if due == Due::Always || crl::is_due(ca, &inventory, &listed, now) {
            wanted.push(ca.serial);
        }
    }
    if wanted.is_empty() {
        return Ok(false);
    }
    let signers = Signers::open(store, |ca| ca.is_live && wanted.contains(&ca.serial), passphrase)?;
    store.transact(|ledger| signers.sign(ledger, now))?;
    Ok(true)
}

/// Reads an issuing CA's newest CRL; one that is none is as good as empty, and made anew.
pub(super) fn seen(store: &Store, ca: &IssuingCa) -> Result<Seen, Failure> {
    let pem = store.ledger().crl(&ca.serial)?;
    Ok(pem.and_then(|pem| Seen::from_pem(&pem).ok()).unwrap_or_default())
}

/// Says of which revoked certificates OpenSMTPD still admits the holders: it reads no CRL.
pub(super) fn still_admitted(inventory: &Inventory, now: OffsetDateTime) -> Option<Diagnostic> {
    let on_crl = |ca: &IssuingCa| {
        let entries = crl::entries(inventory, &ca.serial, None);
        let lasting = |serial: &Serial| {
            let mut certificates = inventory.client_certificates.iter();
            certificates.any(|certificate| certificate.serial == *serial && certificate.not_after > now)
        };
        entries.iter().filter(|entry| lasting(&entry.serial)).count()
    };
    let count: usize = inventory.live_issuing_cas().map(on_crl).sum();
    if count == 0 {
        return None;
    }
    let what = if count == 1 { "a revoked certificate".to_owned() } else { format!("{count} revoked certificates") };
    let message = format!("OpenSMTPD reads no CRL, and goes on admitting {what}");
    let help = "to shut them out there, issue all others anew: postseal ca renew --clients --now";
    let note = "it admits to the handshake; to send, the mail password of a user is needed too";
    Some(Diagnostic::warning("revoked-still-admitted", message, help).note(note))
}

/// Says what must happen on each host before those who heed the CRL refuse whom it names.
pub(super) fn how_to_tell(wanted: &Wanted, store: &Writer) -> String {
    let hosts = wanted.site.hosts.iter().map(|host| {
        let files = session::shown(store, "out").join(host.name.as_str());
        let reload = host.platform.layout().reload_dovecot;
        format!("Dovecot refuses what the CRL names once {files}/ is installed there, and: {reload}\n")
    });
    hosts.collect()
}

/// Adds to the report of a revocation that the CRL could not be made, and why.
pub(super) fn behind(mut report: Report, why: &Failure) -> Report {
    let why = why.diagnostics().first().map_or("", |diagnostic| diagnostic.message.as_str());
    let message = format!("the revocation is recorded, but the CRL does not say so yet: {why}");
    let help = "make a new one: postseal ca crl --refresh --ca-passphrase-file FILE";
    report.exit_code = CRL_MISSING;
    report.warnings.insert(0, Diagnostic::error("crl-behind", message, help));
    report
}

/// The exit code of a revocation that counts without its CRL: a part of the work could not be done.
const CRL_MISSING: u8 = 3;

/// `ca crl`
pub(super) fn crl(env: &dyn Env, site: Option<&Utf8Path>, args: &ShowCrl) -> Result<Report, Failure> {
    if args.refresh {
        let (wanted, mut store) = session::write(env, site)?;
        refuse_without(&store.inventory()?)?;
        refresh_crl(env, &mut store, args.ca_passphrase_file.as_deref(), Due::Always)?;
        let done = "a new CRL is recorded";
        session::refresh(&wanted, &store).map_err(|failure| failure.after(done))?;
        return Ok(crl_report(env, &store)?.done(done));
    }
    let (_, store) = session::read(site)?;
    refuse_without(&store.inventory()?)?;
    crl_report(env, &store)
}

fn refuse_without(inventory: &Inventory) -> Result<(), Failure> {
    if inventory.live_issuing_cas().next().is_some() {
        return Ok(());
    }
    let message = "this site has no issuing CA for all clients";
    let help = "it is made with the first certificate after trust = \"ca\" stands in postseal.toml";
    Err(Failure::input("no-issuing-ca", message, help))
}

fn crl_report(env: &dyn Env, store: &Store) -> Result<Report, Failure> {
    let inventory = store.inventory()?;
    let (mut rows, mut json) = (Vec::new(), Vec::new());
    for ca in inventory.live_issuing_cas() {
        let seen = seen(store, ca)?;
        let Some(made) = &ca.crl else { continue };
        rows.extend([
            vec!["issuing CA".to_owned(), ca.serial.to_string()],
            vec!["number".to_owned(), made.number.to_string()],
            vec!["made".to_owned(), day(made.this_update).to_string()],
            vec!["ends".to_owned(), format!("{}: who heeds it then refuses everybody", day(made.next_update))],
            vec!["revoked".to_owned(), seen.entries.len().to_string()],
        ]);
        json.push(json!({
            "issuer": ca.serial.to_string(),
            "number": made.number,
            "this_update": day(made.this_update).to_string(),
            "next_update": day(made.next_update).to_string(),
            "ended": made.next_update <= env.now(),
            "revoked": seen.entries.iter().map(|entry| entry.serial.to_string()).collect::<Vec<_>>(),
        }));
    }
    let warnings: Vec<Diagnostic> = still_admitted(&inventory, env.now()).into_iter().collect();
    Ok(Report::fine(columns(&rows), json!({ "crls": json })).warn(&warnings))
}

/// `ca renew --clients`
pub(super) fn renew(env: &dyn Env, site: Option<&Utf8Path>, args: &Renew) -> Result<Report, Failure> {
    let (wanted, mut store) = session::write(env, site)?;
    if wanted.site.trust == Trust::Pinned {
        let help = "to renew everybody's certificate: postseal user renew --all";
        let message = "with trust = \"pinned\" each certificate has an issuing CA of its own";
        return Err(Failure::input("trust-pinned", message, help));
    }
    let file = args.ca_passphrase_file.as_deref();
    let mut ca = make::open_site_ca(env, &store, file)?;
    let passphrase = passphrase_of(env, &store, &ca)?;
    let now = env.now();
    let at_once = args.now || args.overlap == 0;
    let renewal = Renewal {
        old: store.ledger().issuing_ca()?.map(|old| old.serial),
        retires_at: if at_once { now } else { now + Duration::days(i64::from(args.overlap)) },
        at_once,
        now,
    };
    let new = NewIssuer::make(env, &wanted.site, &store, &ca, &passphrase, now)?;
    ca.issuer = Issuer::Shared(Box::new(new.shared.clone()));
    let inventory = store.inventory()?;
    let (again, gone): (Vec<_>, Vec<_>) =
        Renewal::current(&inventory).partition(|certificate| wanted.site.has_domain(&certificate.address.domain()));
    let mut clients = Vec::new();
    for certificate in &again {
        let client = anew(env, &ca, &store, certificate)?;
        store.incoming().put(client.serial(), &client.handout)?;
        // What is secret in it lies in its file now.
        clients.push(Anew { old: certificate, recorded: client.recorded, whose: client.whose });
    }
    store.transact(|ledger| renewal.record(ledger, &new, &clients))?;
    let done = format!("a new issuing CA and {} are recorded", count(clients.len(), "certificate"));
    let settled = clients.iter().try_for_each(|one| store.settle_handout(&one.recorded.serial));
    settled.map_err(|error| Failure::from(error).after(&done))?;
    session::refresh(&wanted, &store).map_err(|failure| failure.after(&done))?;
    Ok(renewed(&wanted, &store, &renewal, &clients, &gone).done(done))
}

/// A certificate that takes the place of another.
struct Anew<'a> {
    old: &'a ClientCertificate,
    recorded: NewCertificate,
    whose: NewClient,
}

/// What `ca renew --clients` replaces, and until when that is admitted.
struct Renewal {
    old: Option<Serial>,
    retires_at: OffsetDateTime,
    at_once: bool,
    now: OffsetDateTime,
}

impl Renewal {
    /// Returns the newest certificate of each device, of those that issuing CAs for all clients issued.
    fn current(inventory: &Inventory) -> impl Iterator<Item = &ClientCertificate> {
        let shared = |certificate: &&ClientCertificate| certificate.issuer.is_some();
        let newest = |certificate: &&ClientCertificate| certificate.is_live() && certificate.is_current();
        inventory.client_certificates.iter().filter(shared).filter(newest)
    }

    fn record(&self, ledger: &mut Transaction<'_>, new: &NewIssuer, clients: &[Anew<'_>]) -> Result<(), Failure> {
        if let Some(old) = &self.old {
            ledger.supersede_certificate(old, &new.shared.serial, self.retires_at)?;
        }
        new.record(ledger, self.now)?;
        for Anew { old, recorded, whose } in clients {
            ledger.supersede_certificate(&old.serial, &recorded.serial, self.retires_at)?;
            ledger.add_client_certificate(recorded, whose)?;
            if old.theirs {
                ledger.mark_theirs(&recorded.serial)?;
            }
            let (serial, replaces) = (recorded.serial.to_string(), old.serial.to_string());
            let detail = json!({ "device": whose.device, "serial": serial, "replaces": replaces });
            ledger.record_event(self.now, "client-certificate-renewed", whose.address.as_str(), &detail)?;
        }
        if self.at_once {
            // Whatever the old ones issued ends with them, held certificates and those in an overlap of their own too.
            for ca in ledger.inventory()?.live_issuing_cas().filter(|ca| ca.serial != new.shared.serial) {
                revoke_with_clients(ledger, &ca.serial, self.now)?;
            }
        }
        Ok(())
    }
}

/// Revokes an issuing CA and all that is left under it.
fn revoke_with_clients(ledger: &mut Transaction<'_>, ca: &Serial, now: OffsetDateTime) -> Result<usize, Failure> {
    let inventory = ledger.inventory()?;
    let under = inventory.client_certificates.iter().filter(|certificate| certificate.issuer == Some(*ca));
    let mut revoked = 0;
    for certificate in under {
        if matches!(certificate.status, CertificateStatus::Live | CertificateStatus::Held) {
            ledger.revoke_certificate(&certificate.serial, Reason::Superseded, now)?;
            revoked += 1;
        }
    }
    ledger.revoke_certificate(ca, Reason::Superseded, now)?;
    Ok(revoked)
}

/// Issues a certificate anew, with as long a life; for a key that is the person's own, with that key.
fn anew(env: &dyn Env, ca: &SiteCa, store: &Store, old: &ClientCertificate) -> Result<make::Client, Failure> {
    let pem = store.ledger().client_pem(&old.serial)?.certificate;
    let public = PublicKey::from_spki(&Certificate::from_pem(&pem)?.facts().spki)?;
    let [_, apple] = bundle_names(&old.address);
    let apple = crate::store::files::exists(&store.handout_path(&old.address, &old.device).join(apple))?;
    let key = if old.theirs { ClientKey::Theirs(public) } else { ClientKey::New(public.kind()) };
    let lifetime = (old.not_after - old.not_before - BACKDATED).whole_days();
    let days = u16::try_from(lifetime).unwrap_or(1).max(1);
    let order = ClientOrder { address: &old.address, device: &old.device, key, days, apple };
    make::client(env, ca, &order)
}

fn renewed(
    wanted: &Wanted,
    store: &Writer,
    renewal: &Renewal,
    clients: &[Anew<'_>],
    gone: &[&ClientCertificate],
) -> Report {
    let row = |Anew { recorded, whose, .. }: &Anew<'_>| {
        let handout = store.handout_path(&whose.address, &whose.device);
        vec![whose.address.to_string(), format!("until {}", day(recorded.not_after)), format!("give them {handout}/")]
    };
    let mut text = format!("made a new issuing CA, and {} under it\n", count(clients.len(), "certificate"));
    for line in columns(&clients.iter().map(row).collect::<Vec<_>>()).lines() {
        text.push_str(&format!("  {line}\n"));
    }
    for certificate in gone {
        text.push_str(&format!("not renewed, as its domain is gone: {}\n", certificate.address));
    }
    if renewal.at_once {
        text.push_str(&how_to_activate(wanted, store, "the old certificates are refused, and the new ones admitted,"));
    } else {
        text.push_str(&format!("the old certificates are admitted until {}\n", day(renewal.retires_at)));
        text.push_str(&how_to_activate(wanted, store, "the new certificates are admitted"));
    }
    let made = clients.iter().map(|Anew { old, recorded, whose }| {
        json!({
            "address": whose.address,
            "device": whose.device,
            "serial": recorded.serial.to_string(),
            "replaces": old.serial.to_string(),
            "handout": store.handout_path(&whose.address, &whose.device).as_str(),
        })
    });
    let json = json!({
        "issued": made.collect::<Vec<_>>(),
        "not_renewed": gone.iter().map(|certificate| certificate.address.as_str()).collect::<Vec<_>>(),
        "old_until": if renewal.at_once { None } else { Some(day(renewal.retires_at).to_string()) },
    });
    Report::fine(text, json)
}

/// `ca retire`
pub(super) fn retire(env: &dyn Env, site: Option<&Utf8Path>, args: &Retire) -> Result<Report, Failure> {
    let (wanted, mut store) = session::write(env, site)?;
    let inventory = store.inventory()?;
    refuse_without(&inventory)?;
    // With trust = "ca" the newest one is in use, whoever has a certificate of it today.
    let in_use = |ca: &&IssuingCa| wanted.site.trust == Trust::Pinned || ca.successor.is_some();
    let candidates: Vec<&IssuingCa> = inventory.live_issuing_cas().filter(in_use).collect();
    if candidates.is_empty() {
        let help = "replace it with a new one: postseal ca renew --clients; or write trust = \"pinned\" first";
        return Err(Failure::input("issuing-ca-in-use", "the only issuing CA is the one that issues", help));
    }
    let depends = |certificate: &&ClientCertificate| {
        let of = candidates.iter().any(|ca| certificate.issuer == Some(ca.serial));
        of && certificate.is_current()
    };
    let dependent: Vec<&ClientCertificate> = inventory.client_certificates.iter().filter(depends).collect();
    if let ([first, ..], false) = (dependent.as_slice(), args.force) {
        let who = count(dependent.len(), "device");
        let message = format!("{who} would be shut out: `{}` of {} is one", first.device, first.address);
        let help = "issue their certificates anew: postseal user renew --all; or shut them out with --force";
        return Err(Failure::input("issuing-ca-in-use", message, help));
    }
    let now = env.now();
    let revoked = store.transact(|ledger| {
        let mut revoked = 0;
        for ca in &candidates {
            revoked += revoke_with_clients(ledger, &ca.serial, now)?;
            let detail = json!({ "clients": dependent.len() });
            ledger.record_event(now, "issuing-ca-retired", &ca.serial.to_string(), &detail)?;
        }
        Ok::<_, Failure>(revoked)
    })?;
    let done = "the issuing CA is retired in the ledger";
    let forgotten = dependent.iter().try_for_each(|lost| store.forget_device(&lost.address, &lost.device));
    forgotten.map_err(|error| Failure::from(error).after(done))?;
    session::refresh(&wanted, &store).map_err(|failure| failure.after(done))?;
    let retired = count(candidates.len(), "issuing CA");
    let mut text = format!("retired {retired}, and revoked {} under it\n", count(revoked, "certificate"));
    if store.inventory()?.live_issuing_cas().next().is_none() {
        text.push_str(
            "clients.crl and clients-with-crl.pem are gone with the last one: let Dovecot read clients.pem first\n",
        );
    }
    text.push_str(&how_to_activate(&wanted, &store, "it is trusted no longer"));
    let serials: Vec<String> = candidates.iter().map(|ca| ca.serial.to_string()).collect();
    Ok(Report::fine(text, json!({ "retired": serials, "revoked": revoked })).done(done))
}

fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}
