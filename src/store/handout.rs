//! What people are given, once they have it: it goes from this machine. The ledger says first that it was handed over; what a
//! killed run did not get to remove, the next one does.

use std::fs;
use std::io;

use camino::{Utf8Path, Utf8PathBuf};
use time::OffsetDateTime;

use crate::inventory::{ClientCertificate, Inventory};
use crate::names::{DeviceName, MailAddress, Serial};
use crate::store::files::{self, ItemKind, StoreError, while_doing};
use crate::store::keys::{Passphrase, SITE_CA, is_bundle, own_names};
use crate::store::{Store, Writer};

/// What lies here of one handout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lying {
    /// The directory, there or not.
    pub directory: Utf8PathBuf,
    /// The files of ours in it.
    pub files: Vec<String>,
    /// The file with the password of the PKCS#12 files, if it is there.
    pub p12_password: Option<Utf8PathBuf>,
}

impl Lying {
    /// Tells whether a PKCS#12 file is among them.
    pub fn has_bundle(&self) -> bool {
        self.files.iter().any(|name| is_bundle(name))
    }

    /// Tells whether something is there that only the person should have.
    pub fn is_here(&self) -> bool {
        self.p12_password.is_some() || self.files.iter().any(|name| name != SITE_CA)
    }
}

/// A handout that nobody said was handed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Whose.
    pub address: MailAddress,
    /// For which device.
    pub device: DeviceName,
    /// Of which certificate.
    pub serial: Serial,
    /// Since when the certificate is valid.
    pub since: OffsetDateTime,
    /// Whether something of it is still here; if not, somebody took it away and did not say so.
    pub is_here: bool,
}

/// Where it is noted whose mail password goes with the last of their handouts.
const PENDING: &str = "handed-over.pending";

impl Store {
    /// Returns what lies here for a device.
    pub fn handout(&self, address: &MailAddress, device: &DeviceName) -> Result<Lying, StoreError> {
        let directory = self.handout_path(address, device);
        let mut there = Vec::new();
        for name in own_names(address).into_iter().chain([SITE_CA.to_owned()]) {
            if files::exists(&directory.join(&name))? {
                there.push(name);
            }
        }
        let password = self.passphrase_path(Passphrase::Device(address, device));
        let p12_password = files::exists(&password)?.then_some(password);
        Ok(Lying { directory, files: there, p12_password })
    }

    /// Returns the handouts of which nobody said that they were handed over, the oldest first.
    pub fn waiting_handouts(&self, inventory: &Inventory) -> Result<Vec<Waiting>, StoreError> {
        let mut waiting = Vec::new();
        for certificate in inventory.client_certificates.iter().filter(|certificate| is_waiting(certificate)) {
            let ClientCertificate { address, device, serial, not_before, .. } = certificate;
            let is_here = self.handout(address, device)?.is_here();
            let (address, device) = (address.clone(), device.clone());
            waiting.push(Waiting { address, device, serial: *serial, since: *not_before, is_here });
        }
        waiting.sort_by(|a, b| (a.since, &a.address, &a.device).cmp(&(b.since, &b.address, &b.device)));
        Ok(waiting)
    }
}

/// Tells whether it is a device's newest certificate, of which the person was not given all yet.
pub fn is_waiting(certificate: &ClientCertificate) -> bool {
    certificate.is_current() && certificate.handed_over.is_none()
}

impl Writer {
    /// Notes, before the ledger says that handouts of an account are handed over, that its mail password goes with the last one.
    pub fn begin_hand_over(&self, address: &MailAddress) -> Result<(), StoreError> {
        files::write_atomic(&self.state().join(PENDING), address.as_str().as_bytes(), 0o600)
    }

    /// Removes what the ledger says was handed over, and the mail password of the account that was noted if none of its handouts
    /// waits any more. It can be done again at any point.
    pub fn settle_hand_over(&self) -> Result<(), StoreError> {
        for (address, device) in self.ledger().handed_over()? {
            let lying = self.handout(&address, &device)?;
            // A person may have put something of their own beside it.
            if !lying.files.is_empty() || files::exists(&lying.directory)? {
                remove_handout(&address, &lying.directory)?;
            }
            if lying.p12_password.is_some() {
                self.remove_passphrase(Passphrase::Device(&address, &device))?;
            }
        }
        let pending = self.state().join(PENDING);
        let Some(noted) = files::read_secret(&pending)? else { return Ok(()) };
        if let Some(Ok(address)) = noted.expose_str().map(str::parse::<MailAddress>) {
            let inventory = self.inventory()?;
            let waits = |one: &ClientCertificate| one.address == address && is_waiting(one);
            if !inventory.client_certificates.iter().any(waits) {
                self.remove_passphrase(Passphrase::Account(&address))?;
            }
        }
        files::remove_file(&pending)
    }
}

/// Removes the files of ours, and the directories that are empty then. The CA's certificate, which is no secret, may be
/// somebody's own among files that are.
fn remove_handout(address: &MailAddress, directory: &Utf8Path) -> Result<(), StoreError> {
    let own = own_names(address);
    files::refuse_link(directory)?;
    let items = files::list(directory)?;
    let named = |item: &files::Item, name: &str| item.kind == ItemKind::File && item.path.file_name() == Some(name);
    let is_own = |item: &files::Item| own.iter().any(|name| named(item, name));
    let all_ours = items.iter().all(|item| is_own(item) || named(item, SITE_CA));
    for item in items.iter().filter(|item| is_own(item) || all_ours) {
        files::remove_file(&item.path)?;
    }
    for directory in [directory, files::parent(directory)] {
        match fs::remove_dir(directory) {
            Ok(()) => files::sync_directory(files::parent(directory))?,
            Err(kept) if [io::ErrorKind::DirectoryNotEmpty, io::ErrorKind::NotFound].contains(&kept.kind()) => {}
            Err(other) => return Err(while_doing("remove", directory)(other)),
        }
    }
    Ok(())
}
