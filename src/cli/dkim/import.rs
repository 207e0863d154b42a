//! `dkim import`: a key that signs elsewhere already.

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::json;

use super::advance;
use super::keys;
use crate::cli::failure::Failure;
use crate::cli::report::Report;
use crate::cli::{session, show};
use crate::diag::Diagnostic;
use crate::dkim;
use crate::dkim::private::{self, PrivateHalf};
use crate::dkim::rotation::{Line, Purpose, RotationError};
use crate::env::Env;
use crate::inventory::{DkimAlgorithm, DkimKey, DkimState};
use crate::names::{Digest, DomainName, Selector, shell_word};
use crate::site::Site;
use crate::store::{Store, files};

/// `dkim import`
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Import {
    /// The domain of the site that the key signs for
    #[arg(value_name = "DOMAIN")]
    domain: DomainName,
    /// The selector that its record is published under
    #[arg(value_name = "SELECTOR")]
    selector: Selector,
    /// The file of the private key: RSA of 2048 to 4096 bits or Ed25519, in PEM, DER or base64
    #[arg(value_name = "FILE")]
    file: Utf8PathBuf,
}

/// `dkim import`
pub(super) fn import(env: &dyn Env, site: Option<&Utf8Path>, args: &Import) -> Result<Report, Failure> {
    let Import { domain, selector, file } = args;
    let (half, mode) = read(file)?;
    let (wanted, mut store) = session::write(env, site)?;
    refuse_unwanted(&wanted.site, domain, &half)?;
    refuse_known(&store, domain, selector, &half)?;
    let (now, algorithm, bits) = (env.now(), half.algorithm(), half.bits());
    let (private, public) = half.into_parts();
    let whose = (domain.clone(), algorithm);
    let key = DkimKey::new(whose, selector.clone(), (public, Digest::of(private.expose())), now);
    let line = store.ledger().dkim_line(domain, algorithm)?;
    let before = line.active().map(|active| active.selector.clone());
    // What would be refused leaves no file.
    line.clone().add(key.clone(), Purpose::Import, now).map_err(|error| waits(&line, &error))?;
    store.put_key(&private)?;
    drop(private);
    let key = store.transact(|ledger| keys::record(ledger, key.clone(), Purpose::Import, now))?;
    let name = dkim::record_name(selector, domain);
    let done = format!("{name} is imported");
    advance::refresh_if_stale(&wanted, &store).map_err(|failure| failure.after(&done))?;
    let signs = key.state == DkimState::Active;
    let before = before.filter(|_| signs);
    let json = json!({
        "imported": name,
        "domain": domain,
        "selector": selector,
        "algorithm": algorithm.as_str(),
        "bits": bits,
        "signs": signs,
        "in_place_of": before,
        "record": dkim::record_text(&key),
        "publish": [domain],
        "install": signs,
    });
    let kind = match algorithm {
        DkimAlgorithm::Rsa => format!("rsa, {bits} bits"),
        DkimAlgorithm::Ed25519 => "ed25519".to_owned(),
    };
    let text = format!("imported {name} ({kind})\n{}", what_next(&store, &key, before.as_ref()));
    Ok(Report::fine(text, json).warn(&wanted.warnings).warn(readable(file, mode, domain).as_slice()).done(done))
}

/// Says what the key does now, and what its administrator does.
fn what_next(store: &Store, key: &DkimKey, before: Option<&Selector>) -> String {
    let DkimKey { domain, selector, .. } = key;
    let zone = session::shown(store, &format!("out/dns/{domain}.zone"));
    if key.state == DkimState::Active {
        let place = before
            .map_or_else(String::new, |before| format!(", in the place of {before}, which nobody can verify yet"));
        return format!(
            "{selector} signs at once{place}\n\
             leave its record published, and see that postseal finds it: postseal dkim advance\n\
             publish what else is in {zone}\n\
             then install: postseal apply\n"
        );
    }
    format!(
        "{selector} waits, as a key signs for {domain} that others can verify\n\
         it signs once every name server has had its record for long enough, an hour at least: postseal dkim advance\n\
         its record is in {zone}\n"
    )
}

/// Reads the file. What it holds is wiped.
fn read(file: &Utf8Path) -> Result<(PrivateHalf, u32), Failure> {
    let (content, mode) = files::read_given_file(file, private::MAXIMUM_FILE)?.ok_or_else(|| {
        let help = "name the file of the private key that signs now";
        Failure::input("no-such-file", format!("`{file}` does not exist"), help)
    })?;
    let half = PrivateHalf::read(&content).map_err(|unusable| {
        Failure::input("dkim-import-refused", format!("`{file}` cannot be used: {unusable}"), unusable.mend())
    })?;
    Ok((half, mode))
}

fn refuse_unwanted(site: &Site, name: &DomainName, half: &PrivateHalf) -> Result<(), Failure> {
    show::known(site, name)?;
    let domain = site.domains.iter().find(|domain| domain.name == *name);
    if domain.is_some_and(|domain| domain.dkim.contains(&half.algorithm())) {
        return Ok(());
    }
    let algorithm = half.algorithm().as_str();
    let message = format!("the settings do not want {name} to sign with {algorithm}");
    let help = format!("add \"{algorithm}\" to `dkim` of {name} in the settings, or import another key");
    Err(Failure::input("dkim-import-unwanted", message, help))
}

/// Refuses a selector that was used and a key that the domain has or had, or that was revoked anywhere because others have it.
fn refuse_known(store: &Store, domain: &DomainName, selector: &Selector, half: &PrivateHalf) -> Result<(), Failure> {
    let known = store.ledger().dkim_uses_of(half.public())?;
    let help = "see the keys: postseal dkim list";
    for (of, used, compromised) in &known {
        let name = dkim::record_name(used, of);
        if *compromised {
            let help = "others may have it: publish a key that postseal makes, and change over once every name server has that";
            return Err(Failure::input(
                "dkim-import-known",
                format!("the key is that of {name}, which was revoked"),
                help,
            ));
        }
        if of == domain {
            let message = format!("the key is that of {name} already");
            return Err(Failure::input("dkim-import-known", message, help));
        }
    }
    if store.ledger().dkim_selectors(domain)?.contains(selector) {
        let message = format!("the selector `{selector}` named another key of {domain} before");
        let help = "a selector names one key for ever, for resolvers keep its record: name that which the key is published under";
        return Err(Failure::input("dkim-selector-used", message, help));
    }
    Ok(())
}

/// Says why the line takes no other key now.
fn waits(line: &Line, error: &RotationError) -> Failure {
    let domain = line.domain();
    let help = match error {
        RotationError::Waiting(selector) => format!(
            "wait until it signs, or take it back and import again: postseal dkim revoke {}",
            shell_word(&dkim::record_name(selector, domain))
        ),
        _ => "see the keys: postseal dkim list".to_owned(),
    };
    let message = format!("{domain} has a key of {} that takes over next: {error}", line.algorithm().as_str());
    Failure::input("dkim-import-waits", message, help)
}

fn readable(file: &Utf8Path, mode: u32, domain: &DomainName) -> Option<Diagnostic> {
    if mode.trailing_zeros() >= 3 {
        return None;
    }
    let message = format!("everybody on this machine may read `{file}` (mode {mode:04o})");
    let help =
        format!("whoever did can sign as {domain}: once the key signs here, rotate it: postseal dkim rotate {domain}");
    Some(Diagnostic::warning("dkim-import-readable", message, help))
}
