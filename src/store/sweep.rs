//! Sets aside what a killed run made and never recorded: keys, passwords and handouts that the ledger does not know.
//!
//! Only what is recognisably the program's own goes, by name and place; of a key its content must have the name, too. What
//! else a person keeps there stays. Nothing is destroyed but what belongs to persons or devices that are recorded as gone, and
//! the keys that are recorded as destroyed: a ledger from an old backup knows less than there was, and from `state/swept/` all
//! can be put back.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;

use camino::{Utf8Path, Utf8PathBuf};

use crate::inventory::DkimKey;
use crate::names::{DeviceName, Digest, MailAddress};
use crate::store::files::{self, Item, ItemKind, StoreError, while_doing};
use crate::store::keys::{ACCOUNT_PASSWORD, DEVICE_PASSWORD, KEY, SITE_CA, own_names};
use crate::store::ledger::Referred;
use crate::store::{Store, Writer};

impl Writer {
    /// Sets aside what the ledger refers to nowhere, and returns where it is now. Only who holds the site's lock may do it.
    pub(super) fn sweep(&self) -> Result<Vec<Utf8PathBuf>, StoreError> {
        let mut sweep = Sweep { store: self, known: self.ledger().referred()?, aside: Vec::new() };
        sweep.keys()?;
        sweep.destroyed_keys()?;
        sweep.each_user(&self.state().join("passwords"), Sweep::passwords)?;
        sweep.each_user(&self.site().path("handout"), Sweep::handouts)?;
        Ok(sweep.aside)
    }

    /// Refuses a ledger that lacks what `postseal.lock` names, which is written after the ledger: such a ledger comes from an old
    /// backup, and to go on would make other keys under names that are published.
    pub(super) fn refuse_old_ledger(&self) -> Result<(), StoreError> {
        // To write what it should be takes a small part of what it takes to read it.
        if !self.lock_is_stale()? {
            return Ok(());
        }
        // A lock that cannot be read, as after a merge, is written anew.
        let Ok(Some(locked)) = self.site().locked_inventory() else { return Ok(()) };
        let known = self.inventory()?;
        // Destroyed keys as well: the run that destroyed one may have been killed before it wrote the lock.
        let ever = self.ledger().dkim_keys_ever()?;
        let selector = |key: &DkimKey| (key.domain.clone(), key.selector.clone(), key.key);
        let states: BTreeMap<_, _> = ever.iter().map(|key| (selector(key), key.public_part().state)).collect();
        let went_back = |key: &&DkimKey| states.get(&selector(key)).is_none_or(|state| *state < key.state);
        if let Some(key) = locked.dkim_keys.iter().find(went_back) {
            let name = crate::dkim::record_name(&key.selector, &key.domain);
            let state = states.contains_key(&selector(key)).then(|| format!(" as {}", key.state.as_str()));
            return Err(StoreError::LedgerOld(name + &state.unwrap_or_default()));
        }
        let serials: BTreeSet<_> = known.server_certificates.iter().map(|certificate| certificate.serial).collect();
        let issuing: BTreeSet<_> = known.issuing_cas.iter().map(|ca| ca.serial).collect();
        if let Some(ca) = locked.issuing_cas.iter().find(|ca| !issuing.contains(&ca.serial)) {
            return Err(StoreError::LedgerOld(format!("the issuing CA {}", ca.serial)));
        }
        let unknown = locked.server_certificates.iter().find(|certificate| !serials.contains(&certificate.serial));
        unknown.map_or(Ok(()), |certificate| {
            Err(StoreError::LedgerOld(format!("the certificate {} of {}", certificate.serial, certificate.host)))
        })
    }
}

struct Sweep<'a> {
    store: &'a Store,
    known: Referred,
    aside: Vec<Utf8PathBuf>,
}

/// Returns the digest's first digits that name a key's file.
fn own_key(item: &Item) -> Option<&str> {
    let name = item.path.file_name()?.strip_suffix(KEY)?;
    let named_so = name.len() == 16 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    (named_so && item.kind == ItemKind::File && item.mode == 0o600).then_some(name)
}

impl Sweep<'_> {
    fn keys(&mut self) -> Result<(), StoreError> {
        let keys = &self.known.keys;
        let is_unknown = |name: &str, _| name.strip_suffix(KEY).is_some_and(|name| !keys.contains(name));
        for item in files::list_if(&self.store.state().join("keys"), is_unknown)? {
            let Some(name) = own_key(&item) else { continue };
            if self.known.destroyed.contains(name) {
                files::remove_file(&item.path)?;
            } else if files::read_secret(&item.path)?.is_some_and(|key| Digest::of(key.expose()).short() == name) {
                self.set_aside(&item.path)?;
            }
        }
        Ok(())
    }

    /// Ends what the run that destroyed a key did not, as it was killed; wherever an earlier one put its private half.
    fn destroyed_keys(&mut self) -> Result<(), StoreError> {
        let swept = self.store.state().join("swept/keys");
        for item in files::list(&swept)? {
            if own_key(&item).is_some_and(|name| self.known.destroyed.contains(name)) {
                files::remove_file(&item.path)?;
            }
        }
        Ok(())
    }

    /// Visits the directories that are named after a mailbox; each is gone afterwards if nothing is left in it.
    fn each_user(
        &mut self,
        directory: &Utf8Path,
        visit: impl Fn(&mut Self, &MailAddress, &Utf8Path) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        for item in files::list(directory)?.into_iter().filter(|item| item.kind == ItemKind::Directory) {
            let address = item.path.file_name().and_then(MailAddress::of_path_component);
            if let Some(address) = address {
                visit(self, &address, &item.path)?;
            }
        }
        Ok(())
    }

    fn passwords(&mut self, address: &MailAddress, directory: &Utf8Path) -> Result<(), StoreError> {
        let has_account = self.known.accounts.contains(address);
        for item in files::list(directory)?.into_iter().filter(|item| item.kind == ItemKind::File) {
            let name = item.path.file_name().unwrap_or_default();
            let device: Option<DeviceName> = name.strip_suffix(DEVICE_PASSWORD).and_then(|device| device.parse().ok());
            let unknown = match &device {
                Some(device) => !self.known.knows_device(address, device),
                None => name == ACCOUNT_PASSWORD && !has_account,
            };
            if unknown {
                self.take(address, device.as_ref(), &item.path)?;
            }
        }
        if has_account { Ok(()) } else { remove_if_empty(directory) }
    }

    fn handouts(&mut self, address: &MailAddress, directory: &Utf8Path) -> Result<(), StoreError> {
        let items = files::list(directory)?;
        let mut may_be_empty = items.is_empty();
        for item in items.into_iter().filter(|item| item.kind == ItemKind::Directory) {
            let device: Option<DeviceName> = item.path.file_name().and_then(|name| name.parse().ok());
            if let Some(device) = device.filter(|device| !self.known.knows_device(address, device)) {
                self.handout(address, &device, &item.path)?;
                may_be_empty = true;
            }
        }
        if may_be_empty { remove_if_empty(directory) } else { Ok(()) }
    }

    fn handout(&mut self, address: &MailAddress, device: &DeviceName, directory: &Utf8Path) -> Result<(), StoreError> {
        let bundles = own_names(address);
        let items = files::list(directory)?;
        let named = |item: &Item, name: &str| item.kind == ItemKind::File && item.path.file_name() == Some(name);
        let is_bundle = |item: &Item| bundles.iter().any(|name| named(item, name));
        // Among files of somebody's own the CA's certificate, which is no secret, may be theirs as well.
        let all_ours = items.iter().all(|item| is_bundle(item) || named(item, SITE_CA));
        for item in items.iter().filter(|item| is_bundle(item) || all_ours) {
            self.take(address, Some(device), &item.path)?;
        }
        remove_if_empty(directory)
    }

    /// What a removed person had is gone with them, and what opens nothing any more with its certificate; what nobody is known
    /// to have had may be somebody's.
    fn take(&mut self, address: &MailAddress, device: Option<&DeviceName>, path: &Utf8Path) -> Result<(), StoreError> {
        let has_ended = device.is_some_and(|device| self.known.knew_device(address, device));
        let is_gone = has_ended || self.known.removed.contains(address);
        if is_gone { files::remove_file(path) } else { self.set_aside(path) }
    }

    /// Moves a file below `state/swept/`, where it has the path that it has in the site.
    fn set_aside(&mut self, path: &Utf8Path) -> Result<(), StoreError> {
        let below = path.strip_prefix(self.store.site().root()).unwrap_or(path);
        let place = self.store.state().join("swept").join(below.strip_prefix("state").unwrap_or(below));
        files::create_dir(files::parent(&place), 0o700)?;
        files::rename(path, &place)?;
        self.aside.push(place);
        Ok(())
    }
}

pub(super) fn remove_if_empty(directory: &Utf8Path) -> Result<(), StoreError> {
    match fs::remove_dir(directory) {
        Ok(()) => files::sync_directory(files::parent(directory)),
        Err(kept) if [io::ErrorKind::DirectoryNotEmpty, io::ErrorKind::NotFound].contains(&kept.kind()) => Ok(()),
        Err(other) => Err(while_doing("remove", directory)(other)),
    }
}
