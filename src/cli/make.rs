//! Makes what a site needs: CA, server certificates, client certificates with their handout.

use camino::Utf8Path;
use time::OffsetDateTime;

use crate::cli::failure::Failure;
use crate::env::Env;
use crate::inventory::NextKey;
use crate::keys::{KeyError, KeyKind, PrivateKey, PublicKey, SigningKey};
use crate::names::{DeviceName, Digest, HostName, MailAddress, Serial};
use crate::password;
use crate::pki::bundle::{Bundle, BundleSalts, Protection};
use crate::pki::inspect::Certificate;
use crate::pki::issue::{self, Authority, ClientRequest, ClientSerials, EmptyCrl};
use crate::pki::profile::BACKDATED;
use crate::secret::Secret;
use crate::site::Site;
use crate::store::ledger::{AuthorityKey, ClientIssuer, NewCertificate, NewClient, RecordedCa};
use crate::store::{Handout, Passphrase, SITE_CA, Store, Writer, bundle_names, chain_name};
use crate::token;
use crate::token_uri::TokenUri;

/// A CA that can sign: its certificate and its opened key.
pub(super) struct SiteCa {
    pub(super) certificate: Certificate,
    pub(super) key: SigningKey,
    /// What opened the key, and opens that of the issuing CA for all clients. None if the key is on a token: a PIN opens that.
    pub(super) passphrase: Option<Secret>,
    /// Who issues the certificates of clients.
    pub(super) issuer: Issuer,
}

/// Who issues the certificates of clients; `issuing::provide` decides it.
pub(super) enum Issuer {
    /// A CA of each certificate's own, with or without its empty CRL.
    Own(EmptyCrl),
    /// The one for all.
    Shared(Box<SharedIssuer>),
}

/// The issuing CA for all clients, opened.
#[derive(Clone)]
pub(super) struct SharedIssuer {
    pub(super) serial: Serial,
    pub(super) certificate: Certificate,
    pub(super) key: PrivateKey,
}

impl SharedIssuer {
    pub(super) fn authority(&self) -> Result<Authority<'_>, Failure> {
        Ok(Authority::new(&self.certificate, &self.key)?)
    }
}

/// Refuses a mailbox of a domain that the issuing CA for all may not certify: nobody would admit the certificate.
pub(super) fn refuse_stranger(issuing: &Certificate, address: &MailAddress) -> Result<(), Failure> {
    let domain = address.domain();
    if issuing.facts().permitted.contains(&format!("email:{domain}")) {
        return Ok(());
    }
    let message = format!("the issuing CA was made before the site had the domain `{domain}`");
    let help = "make one for all domains, and give everybody their new certificate: postseal ca renew --clients";
    Err(Failure::input("issuing-ca-lacks-domain", message, help))
}

impl SiteCa {
    pub(super) fn authority(&self) -> Result<Authority<'_>, Failure> {
        Ok(Authority::new(&self.certificate, &self.key)?)
    }
}

/// Returns octets for a salt, an initialisation vector, a serial.
pub(super) fn octets<const N: usize>(env: &dyn Env) -> Result<[u8; N], Failure> {
    let random = env.random(N).map_err(|error| no_randomness(&error))?;
    random.expose().try_into().map_err(|_| no_randomness(&std::io::Error::other("too few octets")))
}

pub(super) fn no_randomness(error: &std::io::Error) -> Failure {
    Failure::work("randomness", format!("the system gave no random octets: {error}"), "look at the system's log")
}

pub(super) fn serial(env: &dyn Env) -> Result<Serial, Failure> {
    octets(env).map(Serial::from_random)
}

/// Returns how many threads the machine runs at once.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

pub(super) fn key(env: &dyn Env, kind: KeyKind) -> Result<PrivateKey, Failure> {
    Ok(env.generate_key(kind)?)
}

pub(super) fn generated_password(env: &dyn Env) -> Result<Secret, Failure> {
    Ok(password::generate(&env.random(password::RANDOM_OCTETS).map_err(|error| no_randomness(&error))?))
}

/// Returns what the ledger records of a certificate; `chain` is what a server sends after it.
pub(super) fn recorded(certificate: &Certificate, serial: Serial, chain: &str) -> NewCertificate {
    NewCertificate {
        serial,
        pem: certificate.pem() + chain,
        fingerprint: certificate.fingerprint(),
        not_before: certificate.facts().not_before,
        not_after: certificate.facts().not_after,
    }
}

/// Makes the site CA with its encrypted key, and the placeholder that keeps the trust list from ever being empty.
pub(super) fn site_ca(env: &dyn Env, site: &Site, store: &mut Writer, passphrase: &Secret) -> Result<SiteCa, Failure> {
    let key = key(env, site.ca.key)?;
    let encrypted = key.encrypt(passphrase, octets(env)?, octets(env)?)?;
    let stored = AuthorityKey::File(store.put_key(&Secret::from(encrypted))?);
    site_ca_of(env, site, store, (SigningKey::Here(key), &stored, Some(passphrase.clone())))
}

/// Makes the site CA with a key that is on a token; `file` holds the PIN.
pub(super) fn site_ca_on_token(
    env: &dyn Env,
    site: &Site,
    store: &mut Writer,
    uri: &TokenUri,
    file: Option<Secret>,
) -> Result<SiteCa, Failure> {
    let key = token::open(uri, token::Wanted::Any(site.ca.key), || match file {
        Some(pin) => Ok(pin),
        None if env.person_is_there() => Ok::<_, Failure>(env.ask_secret("the PIN of the CA's token: ")?),
        None => Err(Failure::input("ca-passphrase", "the PIN of the CA's token is needed", CA_PASSPHRASE_FILE)),
    })?;
    site_ca_of(env, site, store, (key, &AuthorityKey::Token(uri.clone()), None))
}

fn site_ca_of(
    env: &dyn Env,
    site: &Site,
    store: &mut Writer,
    (key, stored, passphrase): (SigningKey, &AuthorityKey, Option<Secret>),
) -> Result<SiteCa, Failure> {
    let now = env.now();
    let hosts: Vec<HostName> = site.hosts.iter().map(|host| host.name.clone()).collect();
    let serial = serial(env)?;
    let certificate = issue::site_ca(&site.ca.name, &hosts, &key, serial, now)?;
    let placeholder = issue::placeholder_twin(self::key(env, KeyKind::P256)?, self::serial(env)?, now)?;
    let recorded = recorded(&certificate, serial, "");
    store.transact(|ledger| {
        ledger.add_site_ca(&recorded, stored)?;
        ledger.set_placeholder(&placeholder.pem())?;
        ledger.record_event(now, "ca-made", &site.ca.name, &serde_json::json!({ "serial": serial.to_string() }))
    })?;
    Ok(SiteCa { certificate, key, passphrase, issuer: Issuer::Own(EmptyCrl::Omitted) })
}

/// Opens the site CA's key.
pub(super) fn open_site_ca(env: &dyn Env, store: &Store, file: Option<&Utf8Path>) -> Result<SiteCa, Failure> {
    let help = "make a site with one: postseal init DOMAIN";
    let recorded = store.ledger().site_ca()?.ok_or_else(|| Failure::input("no-ca", "this site has no CA", help))?;
    let certificate = Certificate::from_pem(&recorded.certificate)?;
    let (key, passphrase) = authority_key(env, store, file, &recorded.key, &certificate)?;
    Ok(SiteCa { certificate, key, passphrase, issuer: Issuer::Own(EmptyCrl::Omitted) })
}

/// Returns the passphrase of the site CA, once it proved to open its present key.
pub(super) fn proved_passphrase(env: &dyn Env, store: &Store, file: Option<&Utf8Path>) -> Result<Secret, Failure> {
    let passphrase = ca_passphrase(env, store, file)?;
    if let Some(RecordedCa { key: AuthorityKey::File(digest), .. }) = store.ledger().site_ca()? {
        PrivateKey::decrypt(store.key(&digest)?.expose_str().unwrap_or_default(), &passphrase)?;
    }
    Ok(passphrase)
}

/// Opens a CA's key; also returns the passphrase that did it.
fn authority_key(
    env: &dyn Env,
    store: &Store,
    file: Option<&Utf8Path>,
    key: &AuthorityKey,
    certificate: &Certificate,
) -> Result<(SigningKey, Option<Secret>), Failure> {
    match key {
        AuthorityKey::File(digest) => {
            let passphrase = ca_passphrase(env, store, file)?;
            let encrypted = store.key(digest)?;
            let key = PrivateKey::decrypt(encrypted.expose_str().unwrap_or_default(), &passphrase)?;
            Ok((SigningKey::Here(key), Some(passphrase)))
        }
        AuthorityKey::Token(uri) => Ok((token_key(env, store, file, uri, certificate)?, None)),
    }
}

/// Opens the key of a certificate that is on a token.
pub(super) fn token_key(
    env: &dyn Env,
    store: &Store,
    file: Option<&Utf8Path>,
    uri: &TokenUri,
    certificate: &Certificate,
) -> Result<SigningKey, Failure> {
    let public = PublicKey::from_spki(&certificate.facts().spki)?;
    token::open(uri, token::Wanted::Of(&public), || match file {
        Some(file) => read_passphrase(file),
        None => kept_or_asked(env, store, Passphrase::Token, ("the PIN of the CA's token", CA_PASSPHRASE_FILE)),
    })
}

const CA_PASSPHRASE_FILE: &str = "name its file with --ca-passphrase-file, or run this on a terminal";

pub(super) fn ca_passphrase(env: &dyn Env, store: &Store, file: Option<&Utf8Path>) -> Result<Secret, Failure> {
    match file {
        Some(file) => read_passphrase(file),
        None => kept_or_asked(env, store, Passphrase::SiteCa, ("the CA's passphrase", CA_PASSPHRASE_FILE)),
    }
}

/// Returns the passphrase of what is in files, where a file that the user named holds the token's PIN.
pub(super) fn passphrase_beside_pin(env: &dyn Env, store: &Store) -> Result<Secret, Failure> {
    let help = "write it into that file, or run this on a terminal; --ca-passphrase-file is for the token's PIN";
    let passphrase = kept_or_asked(env, store, Passphrase::SiteCa, ("the issuing CA's passphrase", help))?;
    // What will protect a new key opens nothing yet that would show a slip.
    let is_new = store.ledger().issuing_ca()?.is_none() && store.passphrase(Passphrase::SiteCa)?.is_none();
    if is_new && env.ask_secret("the same again: ")? != passphrase {
        return Err(Failure::input("password-mismatch", "the two passphrases differ", "run the command again"));
    }
    Ok(passphrase)
}

fn kept_or_asked(
    env: &dyn Env,
    store: &Store,
    of: Passphrase<'_>,
    (what, help): (&str, &str),
) -> Result<Secret, Failure> {
    if let Some(kept) = store.passphrase(of)? {
        return Ok(without_line_end(&kept));
    }
    if env.person_is_there() {
        return Ok(env.ask_secret(&format!("{what}: "))?);
    }
    let place = store.passphrase_path(of);
    Err(Failure::input("ca-passphrase", format!("{what} is needed, and `{place}` is not there"), help))
}

/// Reads a file that the user named, of so many octets at most; `what` it should hold.
pub(super) fn read_given(file: &Utf8Path, most: usize, what: &str) -> Result<Secret, Failure> {
    crate::store::files::read_given(file, most)?.ok_or_else(|| {
        let help = format!("name a file that holds {what}");
        Failure::input("no-such-file", format!("`{file}` does not exist"), help)
    })
}

/// Reads a passphrase from a file: its content without the last line end.
pub(super) fn read_passphrase(file: &Utf8Path) -> Result<Secret, Failure> {
    let read = crate::store::files::read_given_secret(file)?;
    let Some(content) = read else {
        return Err(Failure::input(
            "no-such-file",
            format!("`{file}` does not exist"),
            "name a file that holds the secret",
        ));
    };
    let secret = without_line_end(&content);
    if secret.expose().is_empty() {
        return Err(Failure::input("empty-secret", format!("`{file}` is empty"), "write the secret into it"));
    }
    // OpenSSL reads one line of at most 1,023 octets; a terminal types UTF-8.
    let is_line = secret.expose_str().is_some_and(|text| text.len() < 1024 && !text.chars().any(char::is_control));
    if !is_line {
        let message = format!("`{file}` does not hold one line of text in UTF-8");
        return Err(Failure::input(
            "secret-not-a-line",
            message,
            "write the secret as one line, at most 1023 octets long",
        ));
    }
    Ok(secret)
}

/// An editor ends a file with a line end, which is no part of the secret.
fn without_line_end(secret: &Secret) -> Secret {
    let bytes = secret.expose();
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    Secret::new(bytes.strip_suffix(b"\r").unwrap_or(bytes).to_vec())
}

/// Which key a server's new certificate has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServerKey {
    /// The one that waits for it, or a new one.
    Next,
    /// The present one's.
    Same,
}

/// What a server certificate is made for.
pub(super) struct ServerOrder<'a> {
    pub(super) host: &'a HostName,
    pub(super) days: Option<u16>,
    pub(super) key: ServerKey,
}

/// A server certificate that is made and recorded.
pub(super) struct Served {
    pub(super) serial: Serial,
    pub(super) not_after: OffsetDateTime,
    /// SHA-256 of its public key.
    pub(super) spki: Digest,
    /// What waits for the certificate after it.
    pub(super) next: NextKey,
}

/// Refuses a host that the site CA may not certify.
pub(super) fn refuse_unpermitted(ca: &SiteCa, host: &HostName) -> Result<(), Failure> {
    if ca.certificate.facts().permits_host(host) {
        return Ok(());
    }
    let message = format!("the site CA is not for `{host}`: the hosts that it may certify are named in it");
    Err(Failure::input("host-not-permitted", message, "have the CA name the hosts of postseal.toml: postseal ca renew"))
}

/// Issues the host's server certificate, in place of the present one if there is one, and sees that another key waits.
pub(super) fn server_certificate(
    env: &dyn Env,
    ca: &SiteCa,
    order: &ServerOrder<'_>,
    store: &mut Writer,
) -> Result<Served, Failure> {
    let ServerOrder { host, days, .. } = order;
    let (now, serial) = (env.now(), serial(env)?);
    refuse_unpermitted(ca, host)?;
    let inventory = store.inventory()?;
    let present = inventory.server_certificates.iter().find(|certificate| certificate.host == **host);
    let waiting = inventory.next_keys.iter().find(|next| next.host == **host);
    let reused = match order.key {
        ServerKey::Next => waiting.map(|next| next.key),
        ServerKey::Same => present.map(|present| present.key),
    };
    let (key, stored) = match reused {
        Some(stored) => (PrivateKey::from_pem(&store.key(&stored)?)?, stored),
        None => new_server_key(env, store)?,
    };
    let next = if let (ServerKey::Same, Some(waiting)) = (order.key, waiting) {
        waiting.clone()
    } else {
        let (key, stored) = new_server_key(env, store)?;
        NextKey { host: (*host).clone(), key: stored, spki: Digest::of(key.spki_der()), since: now }
    };
    let certificate = issue::server(host, key.public(), &ca.authority()?, serial, *days, now)?;
    // The site CA goes along: programs that were given only its fingerprint can compare.
    let recorded = recorded(&certificate, serial, &ca.certificate.pem());
    let replaced = present.map(|present| present.serial);
    store.transact(|ledger| {
        if let Some(replaced) = &replaced {
            // A host shows one certificate, so that there is no overlap: the old one ends with the installation of the new.
            ledger.supersede_certificate(replaced, &serial, now)?;
        }
        ledger.add_server_certificate(&recorded, host, &stored)?;
        ledger.set_next_key(&next)?;
        let replaced = replaced.map(|replaced| replaced.to_string());
        let detail = serde_json::json!({ "serial": serial.to_string(), "replaces": replaced });
        ledger.record_event(now, "server-certificate-issued", host.as_str(), &detail)
    })?;
    Ok(Served { serial, not_after: recorded.not_after, spki: Digest::of(key.spki_der()), next })
}

fn new_server_key(env: &dyn Env, store: &Writer) -> Result<(PrivateKey, Digest), Failure> {
    let key = key(env, KeyKind::P256)?;
    let stored = store.put_key(&key.to_pem())?;
    Ok((key, stored))
}

/// The key of a new client certificate.
#[derive(Clone, Debug)]
pub(super) enum ClientKey {
    /// Made here, and given to the person in a PKCS#12 file.
    New(KeyKind),
    /// The person's own, of which only the public half is known here.
    Theirs(PublicKey),
}

/// What a new client certificate is made for.
pub(super) struct ClientOrder<'a> {
    pub(super) address: &'a MailAddress,
    pub(super) device: &'a DeviceName,
    pub(super) key: ClientKey,
    pub(super) days: u16,
    pub(super) apple: bool,
}

/// A client certificate that is made, and nowhere recorded or written yet.
pub(super) struct Client {
    pub(super) recorded: NewCertificate,
    pub(super) whose: NewClient,
    /// What the person is to be given.
    pub(super) handout: Handout,
}

impl Client {
    pub(super) fn serial(&self) -> &Serial {
        &self.recorded.serial
    }
}

/// Issues a client certificate and makes its handout. A key of an issuing CA of its own signs once and is
/// gone. Threads may do it side by side.
pub(super) fn client(env: &dyn Env, ca: &SiteCa, order: &ClientOrder<'_>) -> Result<Client, Failure> {
    let now = env.now();
    let own = match &order.key {
        ClientKey::New(kind) => Some(key(env, *kind)?),
        ClientKey::Theirs(_) => None,
    };
    let public = match (&order.key, &own) {
        (ClientKey::Theirs(public), _) => public,
        (ClientKey::New(_), Some(own)) => own.public(),
        (ClientKey::New(_), None) => return Err(KeyError::NoRandomness.into()),
    };
    let request = ClientRequest { address: order.address, device: order.device, key: public, days: Some(order.days) };
    let issued = match &ca.issuer {
        Issuer::Own(empty_crl) => pinned(env, ca, &request, *empty_crl, now)?,
        Issuer::Shared(shared) => shared_by_all(env, shared, &request, now)?,
    };
    let handout = handout(env, order, own.as_ref(), &issued.leaf, &[&issued.issuing, &ca.certificate])?;
    let (address, device) = (order.address.clone(), order.device.clone());
    let whose = NewClient { address, device, issuer: issued.issuer };
    Ok(Client { recorded: recorded(&issued.leaf, issued.serial, ""), whose, handout })
}

/// A client certificate with its issuing CA's.
struct Issued {
    serial: Serial,
    leaf: Certificate,
    issuing: Certificate,
    issuer: ClientIssuer,
}

/// Issues under a CA of its own.
fn pinned(
    env: &dyn Env,
    ca: &SiteCa,
    request: &ClientRequest<'_>,
    empty_crl: EmptyCrl,
    now: OffsetDateTime,
) -> Result<Issued, Failure> {
    let issuing_key = key(env, KeyKind::P256)?;
    let serials = ClientSerials { leaf: serial(env)?, issuing: serial(env)?, twin: serial(env)? };
    let made = issue::client(request, issuing_key, serials, &ca.authority()?, now, empty_crl)?;
    let issuer = ClientIssuer::Own { issuing: made.issuing.pem(), twin: made.twin.pem(), crl: made.crl };
    Ok(Issued { serial: serials.leaf, leaf: made.leaf, issuing: made.issuing, issuer })
}

/// Issues under the one CA for all.
fn shared_by_all(
    env: &dyn Env,
    shared: &SharedIssuer,
    request: &ClientRequest<'_>,
    now: OffsetDateTime,
) -> Result<Issued, Failure> {
    refuse_stranger(&shared.certificate, request.address)?;
    let serial = serial(env)?;
    let leaf = issue::client_of(request, &shared.authority()?, serial, now)?;
    let issuer = ClientIssuer::Shared(shared.serial);
    Ok(Issued { serial, leaf, issuing: shared.certificate.clone(), issuer })
}

/// Makes what the person is to be given: PKCS#12 files for a key that was made here, or else the certificate with its chain.
fn handout(
    env: &dyn Env,
    order: &ClientOrder<'_>,
    own: Option<&PrivateKey>,
    leaf: &Certificate,
    chain: &[&Certificate],
) -> Result<Handout, Failure> {
    let mut handout = Handout::default();
    if let Some(key) = own {
        let password = generated_password(env)?;
        let friendly_name = &friendly_name(order.address, order.device, leaf);
        let bundle = Bundle { key, leaf, chain, friendly_name };
        let forms = [Protection::Modern, Protection::Apple].into_iter().zip(bundle_names(order.address));
        for (protection, file) in forms.take(if order.apple { 2 } else { 1 }) {
            let p12 = bundle.encode(protection, &password, &BundleSalts::from_random(octets(env)?))?;
            handout.files.push((file, p12));
        }
        handout.p12_password = Some(password);
    } else {
        let whole: String = std::iter::once(&leaf).chain(chain).map(|certificate| certificate.pem()).collect();
        handout.files.push((chain_name(order.address), whole.into()));
    }
    if let Some(site_ca) = chain.last() {
        handout.files.push((SITE_CA.to_owned(), site_ca.pem().into()));
    }
    Ok(handout)
}

/// The name that mail programs show. The day of issue tells a renewed certificate from the one that it replaces.
fn friendly_name(address: &MailAddress, device: &DeviceName, leaf: &Certificate) -> String {
    format!("{address} {device} {}", (leaf.facts().not_before + BACKDATED).date())
}
