//! `ca renew`, `ca export`, `ca import`: the site CA's certificate through its life.

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::json;

use crate::cli::failure::Failure;
use crate::cli::make;
use crate::cli::report::{Report, columns};
use crate::cli::server;
use crate::cli::session::{self, Wanted};
use crate::cli::show::{self, colons, day};
use crate::env::Env;
use crate::inventory::Inventory;
use crate::keys::{KeyError, KeyKind, PrivateKey, Signing};
use crate::names::{HostName, MailAddress, Serial, visible};
use crate::pki::import::{self, Needs, Probe};
use crate::pki::{Certificate, Refusal, issue};
use crate::secret::Secret;
use crate::site::Site;
use crate::store::ledger::{AuthorityKey, NewCertificate, RecordedCa};
use crate::store::{SITE_CA, Store, Writer, files};
use crate::token_uri::TokenUri;

/// `ca export`
#[derive(Debug, clap::Args)]
pub(super) struct Export {
    /// The directory, which is made if it is missing
    #[arg(value_name = "DIR")]
    directory: Utf8PathBuf,
}

/// `ca import`
#[derive(Debug, clap::Args)]
pub(super) struct Import {
    /// The file that holds the CA's certificate, in PEM
    #[arg(long, value_name = "FILE")]
    certificate: Utf8PathBuf,
    /// The file that holds its private key, in PEM, encrypted or not
    #[arg(long, value_name = "FILE", required_unless_present = "token")]
    key: Option<Utf8PathBuf>,
    /// The PKCS#11 token that has its private key, as pkcs11:token=TOKEN;object=LABEL?module-path=/usr/lib/MODULE.so
    #[arg(long, value_name = "URI", conflicts_with = "key")]
    token: Option<TokenUri>,
    /// The file that holds the passphrase of that key [default: ask, if it is encrypted]
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    key_passphrase_file: Option<Utf8PathBuf>,
    /// The file that holds the passphrase of the site's CA, which will protect the key here [default: state/ca.passphrase, or ask];
    /// with --token, the PIN of the token [default: state/ca.pin, or ask]
    #[arg(long, value_name = "FILE")]
    ca_passphrase_file: Option<Utf8PathBuf>,
}

/// No file of a certificate or a key is larger, in octets.
const MAXIMUM_PEM: usize = 1 << 16;

/// `ca renew`
pub(super) fn renew(env: &dyn Env, site: Option<&Utf8Path>, file: Option<&Utf8Path>) -> Result<Report, Failure> {
    let (wanted, mut store) = server::open(env, site)?;
    server::prove(&wanted, &store.inventory()?)?;
    let ca = make::open_site_ca(env, &store, file)?;
    let present = recorded_ca(&store)?;
    let (now, serial) = (env.now(), make::serial(env)?);
    let renewed = issue::renewed_site_ca(&ca.certificate, &hosts(&wanted.site), &ca.key, serial, now)?;
    let recorded = make::recorded(&renewed, serial, "");
    replace(&mut store, &present, &recorded, &present.key, (now, "ca-renewed", &renewed.facts().subject))?;
    let done = format!("the site CA is renewed until {}", day(recorded.not_after));
    let (handouts, lacking) = follow(&wanted, &store, &renewed).map_err(|failure| failure.after(&done))?;
    let mut text = format!("renewed the site CA until {}\n{}", day(recorded.not_after), rows(&renewed));
    text.push_str(&format!("whatever was issued before goes on working; {}\n", refreshed(handouts)));
    text.push_str(&format!(
        "give the new {SITE_CA} to everyone before {}: postseal ca export DIR\n",
        day(present.not_after)
    ));
    text.push_str("servers send it along from their next certificates on: postseal server renew --all\n");
    text.push_str(&lacking);
    let json = json!({
        "not_after": day(recorded.not_after).to_string(),
        "fingerprint": recorded.fingerprint.to_string(),
        "handouts": handouts,
    });
    Ok(Report::fine(text, json).warn(&wanted.warnings).done(done))
}

fn recorded_ca(store: &Store) -> Result<RecordedCa, Failure> {
    let help = "make a site with one: postseal init DOMAIN";
    store.ledger().site_ca()?.ok_or_else(|| Failure::input("no-ca", "this site has no CA", help))
}

fn hosts(site: &Site) -> Vec<HostName> {
    site.hosts.iter().map(|host| host.name.clone()).collect()
}

/// Records a CA's certificate in the place of the present one. That is out with people and true until its own end, so it stays
/// live until then; nothing is issued under it any more.
fn replace(
    store: &mut Writer,
    present: &RecordedCa,
    new: &NewCertificate,
    key: &AuthorityKey,
    (now, what, subject): (time::OffsetDateTime, &str, &str),
) -> Result<(), Failure> {
    store.transact(|ledger| {
        ledger.supersede_certificate(&present.serial, &new.serial, present.not_after)?;
        ledger.add_site_ca(new, key)?;
        let detail = json!({ "serial": new.serial.to_string(), "replaces": present.serial.to_string() });
        ledger.record_event(now, what, subject, &detail)
    })?;
    Ok(())
}

/// Brings up to date what follows from a new certificate of the CA. Returns how many handouts got it, and what is to be done
/// before anything can be rendered.
fn follow(wanted: &Wanted, store: &Writer, ca: &Certificate) -> Result<(usize, String), Failure> {
    let handouts = store.refresh_site_ca(&ca.pem())?;
    let lacking = server::lacking(&wanted.site, &store.inventory()?);
    if lacking.is_empty() {
        session::refresh(wanted, store)?;
    }
    let next = |host: &&crate::site::Host| {
        format!("before anything is rendered, issue a certificate: postseal server issue {}\n", host.name)
    };
    Ok((handouts, lacking.iter().map(next).collect()))
}

fn refreshed(handouts: usize) -> String {
    match handouts {
        0 => format!("no handout here has another {SITE_CA}"),
        1 => format!("1 handout got the new {SITE_CA}"),
        many => format!("{many} handouts got the new {SITE_CA}"),
    }
}

/// What a person compares.
fn rows(ca: &Certificate) -> String {
    let facts = ca.facts();
    columns(&[
        vec!["subject".to_owned(), facts.subject.clone()],
        vec!["valid".to_owned(), format!("{} until {}", day(facts.not_before), day(facts.not_after))],
        vec!["sha-256".to_owned(), colons(&ca.fingerprint())],
    ])
}

/// `ca export`
pub(super) fn export(site: Option<&Utf8Path>, args: &Export) -> Result<Report, Failure> {
    let Some(ca) = show::inventory(site)?.site_ca else {
        return Err(Failure::input("no-ca", "this site has no CA", "make a site with one: postseal init DOMAIN"));
    };
    let ca = Certificate::from_pem(&ca.certificate)?;
    let text = format!(
        "This certificate authority vouches for our mail servers. Trust it only if the program that you give it to\n\
         shows the same fingerprint as you were told by somebody you know.\n\n{}",
        rows(&ca)
    );
    let pem = ca.pem();
    let contents: [(&str, &[u8]); 3] =
        [(SITE_CA, pem.as_bytes()), ("site-ca.der", ca.der()), ("site-ca.txt", text.as_bytes())];
    files::create_dir(&args.directory, 0o755)?;
    let mut told = String::new();
    for (name, content) in contents {
        let path = args.directory.join(name);
        files::write_atomic(&path, content, 0o644)?;
        told.push_str(&format!("wrote {path}\n"));
    }
    let json = json!({
        "directory": args.directory.as_str(),
        "files": contents.map(|(name, _)| name),
        "fingerprint": ca.fingerprint().to_string(),
    });
    Ok(Report::fine(told, json))
}

/// `ca import`
pub(super) fn import(env: &dyn Env, site: Option<&Utf8Path>, args: &Import) -> Result<Report, Failure> {
    let (wanted, mut store) = server::open(env, site)?;
    let inventory = store.inventory()?;
    server::prove(&wanted, &inventory)?;
    let certificate = given_certificate(&args.certificate)?;
    let given = args.key.as_ref().map(|file| given_key(env, file, args)).transpose()?;
    let present = recorded_ca(&store)?;
    // Its own serial may have 20 octets, and is no other CA's business: here it is called by its fingerprint.
    let name = Serial::from_random(std::array::from_fn(|i| {
        certificate.fingerprint().octets().get(i).copied().unwrap_or_default()
    }));
    if present.certificate == certificate.pem() || store.ledger().certificate_pem(&name)?.is_some() {
        let help =
            "renew the site's CA here: postseal ca renew; or make another certificate for that one where it is from";
        return Err(Failure::input("ca-known", "the certificate is or was the one of this site's CA", help));
    }
    let file = args.ca_passphrase_file.as_deref();
    let stored = match (&args.token, &given) {
        (Some(uri), _) => {
            let key = make::token_key(env, &store, file, uri, &certificate)?;
            judge(env, &wanted.site, &store, &inventory, &certificate, (&key).into())?;
            AuthorityKey::Token(uri.clone())
        }
        (None, Some(key)) => {
            judge(env, &wanted.site, &store, &inventory, &certificate, key.into())?;
            let passphrase = make::proved_passphrase(env, &store, file)?;
            let encrypted = key.encrypt(&passphrase, make::octets(env)?, make::octets(env)?)?;
            AuthorityKey::File(store.put_key(&Secret::from(encrypted))?)
        }
        (None, None) => return Err(refuse("neither a key nor a token is named", "name one with --key or --token")),
    };
    let recorded = make::recorded(&certificate, name, "");
    let subject = &certificate.facts().subject;
    replace(&mut store, &present, &recorded, &stored, (env.now(), "ca-imported", subject))?;
    let done = format!("{subject} is the site CA now");
    let (handouts, lacking) = follow(&wanted, &store, &certificate).map_err(|failure| failure.after(&done))?;
    let mut text = format!("the site CA is another one now, until {}\n{}", day(recorded.not_after), rows(&certificate));
    if let Some(uri) = &args.token {
        text.push_str(&format!(
            "its key stays on the token `{}`, whose PIN is asked for from now on\n",
            visible(uri.token())
        ));
    }
    text.push_str(&format!("client certificates go on working; {}\n", refreshed(handouts)));
    text.push_str(&format!("give {SITE_CA} to everyone who trusts the old one: postseal ca export DIR\n"));
    // RFC 5280 §4.2.1.9 wants it; easy-rsa does not write it, and Python from 3.13 on refuses what is without.
    if !certificate.facts().critical.iter().any(|oid| oid == "2.5.29.19") {
        text.push_str(
            "its basicConstraints is not critical, so that strict programs refuse it; this mends that: postseal ca renew\n",
        );
    }
    text.push_str("then have the servers' certificates issued by the new one: postseal server renew --all\n");
    text.push_str(below_the_old_one(&store)?);
    text.push_str(&lacking);
    let json = json!({
        "not_after": day(recorded.not_after).to_string(),
        "fingerprint": recorded.fingerprint.to_string(),
        "handouts": handouts,
        "token": args.token.as_ref().map(ToString::to_string),
    });
    Ok(Report::fine(text, json).warn(&wanted.warnings).done(done))
}

/// Says what the old CA certified that is not issued anew by itself.
fn below_the_old_one(store: &Store) -> Result<&'static str, Failure> {
    let has_shared = store.inventory()?.live_issuing_cas().next().is_some();
    let said = "the issuing CA for all clients is certified by the old one still; for a new one: postseal ca renew --clients\n";
    Ok(if has_shared { said } else { "" })
}

fn refused(Refusal { problem, mend }: Refusal) -> Failure {
    Failure::input("ca-refused", problem, mend)
}

fn refuse(problem: impl Into<String>, mend: impl Into<String>) -> Failure {
    Failure::input("ca-refused", problem, mend)
}

fn given_certificate(file: &Utf8Path) -> Result<Certificate, Failure> {
    let text = make::read_given(file, MAXIMUM_PEM, "the CA's certificate in PEM")?;
    let found = text.expose_str().map(Certificate::all_from_pem);
    match found {
        Some(Ok(mut all)) if all.len() == 1 => all.pop(),
        Some(Ok(all)) if all.len() > 1 => {
            let problem = format!("`{file}` holds {} certificates", all.len());
            return Err(refuse(problem, "put the CA's own certificate into a file alone"));
        }
        _ => None,
    }
    .ok_or_else(|| refuse(format!("`{file}` holds no certificate in PEM"), "name the CA's certificate, as ca.crt"))
}

/// Opens the key, which OpenSSL and easy-rsa write in several forms.
fn given_key(env: &dyn Env, file: &Utf8Path, args: &Import) -> Result<PrivateKey, Failure> {
    let pem = make::read_given(file, MAXIMUM_PEM, "the CA's private key in PEM")?;
    let text = pem.expose_str().unwrap_or_default();
    let convert = "convert it: openssl pkcs8 -topk8 -v2 aes-256-cbc -in OLD -out NEW";
    if text.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(refuse(format!("`{file}` is encrypted in OpenSSL's older form"), convert));
    }
    let opened = if text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") {
        let passphrase = key_passphrase(env, file, args)?;
        PrivateKey::decrypt(text, &passphrase)
    } else {
        PrivateKey::from_pem(&pem)
    };
    opened.map_err(|error| match error {
        KeyError::WrongPassphrase => {
            let help = "name the file that holds the passphrase of this key with --key-passphrase-file";
            Failure::input("ca-passphrase", format!("the passphrase does not open `{file}`"), help)
        }
        KeyError::ForeignEncryption(_) => refuse(format!("`{file}`: {error}"), convert),
        KeyError::UnusableKind(kind) => refuse(
            format!("the CA's key is {kind}"),
            "use a CA with a P-256, RSA-2048 or RSA-3072 key, or let postseal make one",
        ),
        other => refuse(format!("`{file}` cannot be used: {other}"), "name the CA's private key in PEM, as ca.key"),
    })
}

fn key_passphrase(env: &dyn Env, key: &Utf8Path, args: &Import) -> Result<Secret, Failure> {
    match &args.key_passphrase_file {
        Some(file) => make::read_passphrase(file),
        None if env.person_is_there() => Ok(env.ask_secret("passphrase of the key to import: ")?),
        None => {
            let help = "name its file with --key-passphrase-file, or run this on a terminal";
            Err(Failure::input("ca-passphrase", format!("the passphrase of `{key}` is needed"), help))
        }
    }
}

/// Refuses what cannot be the site's CA.
fn judge(
    env: &dyn Env,
    site: &Site,
    store: &Store,
    inventory: &Inventory,
    certificate: &Certificate,
    key: Signing<'_>,
) -> Result<(), Failure> {
    let postmasters = site.mail_domains().filter_map(|domain| format!("postmaster@{}", domain.name).parse().ok());
    let mailboxes: Vec<MailAddress> =
        inventory.users.iter().map(|user| user.address.clone()).chain(postmasters).collect();
    let trusted = Certificate::all_from_pem(&store.ledger().trust_list()?)?;
    let needs = Needs { hosts: &hosts(site), mailboxes: &mailboxes, trusted: &trusted };
    let probe = Probe {
        key: make::key(env, KeyKind::P256)?,
        serials: [make::serial(env)?, make::serial(env)?, make::serial(env)?, make::serial(env)?],
    };
    import::check(certificate, key, needs, probe, env.now()).map_err(refused)
}
