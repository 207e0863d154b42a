//! Removes what a killed run made and never recorded: keys, passwords and handouts that the ledger does not know.
//!
//! Only what is recognisably the program's own goes, by name and place; of a key its content must have the name, too. What
//! else a person keeps there stays, and so does a key that `postseal.lock` names: a ledger from an old backup knows less.

use std::fs;
use std::io;

use camino::Utf8Path;

use crate::names::{DeviceName, Digest, MailAddress};
use crate::store::files::{self, Item, ItemKind, StoreError, while_doing};
use crate::store::keys::{ACCOUNT_PASSWORD, DEVICE_PASSWORD, KEY, SITE_CA, bundle_names};
use crate::store::ledger::Referred;
use crate::store::{Store, Writer};

impl Writer {
    /// Removes what the ledger refers to nowhere. Only who holds the site's lock may do it.
    pub(super) fn sweep(&self) -> Result<(), StoreError> {
        let known = self.ledger().referred()?;
        let state = self.state();
        sweep_keys(self, &known)?;
        each_user(&state.join("passwords"), |address, directory| sweep_passwords(address, directory, &known))?;
        each_user(&self.site().path("handout"), |address, directory| sweep_handouts(address, directory, &known))
    }
}

fn sweep_keys(store: &Store, known: &Referred) -> Result<(), StoreError> {
    let mut lock = None;
    for item in files::list(&store.state().join("keys"))? {
        let Some(name) = own_key(&item).filter(|name| !known.keys.contains(*name)) else { continue };
        if lock.is_none() {
            lock = Some(files::read(&store.site().path("postseal.lock"))?.unwrap_or_default());
        }
        let locked = lock.iter().any(|lock| lock.windows(name.len()).any(|part| part == name.as_bytes()));
        if !locked && files::read_secret(&item.path)?.is_some_and(|key| Digest::of(key.expose()).short() == name) {
            files::remove_file(&item.path)?;
        }
    }
    Ok(())
}

/// Returns the digest's first digits that name a key's file.
fn own_key(item: &Item) -> Option<&str> {
    let name = item.path.file_name()?.strip_suffix(KEY)?;
    let named_so = name.len() == 16 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    (named_so && item.kind == ItemKind::File && item.mode == 0o600).then_some(name)
}

/// Visits the directories that are named after a mailbox; each is gone afterwards if nothing is left in it.
fn each_user(
    directory: &Utf8Path,
    visit: impl Fn(&MailAddress, &Utf8Path) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    for item in files::list(directory)?.into_iter().filter(|item| item.kind == ItemKind::Directory) {
        let address = item.path.file_name().and_then(MailAddress::of_path_component);
        if let Some(address) = address {
            visit(&address, &item.path)?;
        }
    }
    Ok(())
}

fn sweep_passwords(address: &MailAddress, directory: &Utf8Path, known: &Referred) -> Result<(), StoreError> {
    let has_account = known.accounts.contains(address);
    for item in files::list(directory)?.into_iter().filter(|item| item.kind == ItemKind::File) {
        let name = item.path.file_name().unwrap_or_default();
        let device = name.strip_suffix(DEVICE_PASSWORD).and_then(|device| device.parse().ok());
        let unknown = match device {
            Some(device) => !known.knows_device(address, &device),
            None => name == ACCOUNT_PASSWORD && !has_account,
        };
        if unknown {
            files::remove_file(&item.path)?;
        }
    }
    if has_account { Ok(()) } else { remove_if_empty(directory) }
}

fn sweep_handouts(address: &MailAddress, directory: &Utf8Path, known: &Referred) -> Result<(), StoreError> {
    for item in files::list(directory)?.into_iter().filter(|item| item.kind == ItemKind::Directory) {
        let device: Option<DeviceName> = item.path.file_name().and_then(|name| name.parse().ok());
        if device.is_some_and(|device| !known.knows_device(address, &device)) {
            sweep_handout(address, &item.path)?;
        }
    }
    if known.accounts.contains(address) { Ok(()) } else { remove_if_empty(directory) }
}

fn sweep_handout(address: &MailAddress, directory: &Utf8Path) -> Result<(), StoreError> {
    let bundles = bundle_names(address);
    let items = files::list(directory)?;
    let named = |item: &Item, name: &str| item.kind == ItemKind::File && item.path.file_name() == Some(name);
    let is_bundle = |item: &Item| bundles.iter().any(|name| named(item, name));
    // Among files of somebody's own the CA's certificate, which is no secret, may be theirs as well.
    let all_ours = items.iter().all(|item| is_bundle(item) || named(item, SITE_CA));
    for item in items.iter().filter(|item| is_bundle(item) || all_ours) {
        files::remove_file(&item.path)?;
    }
    remove_if_empty(directory)
}

fn remove_if_empty(directory: &Utf8Path) -> Result<(), StoreError> {
    match fs::remove_dir(directory) {
        Ok(()) => files::sync_directory(files::parent(directory)),
        Err(kept) if kept.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        Err(other) => Err(while_doing("remove", directory)(other)),
    }
}
