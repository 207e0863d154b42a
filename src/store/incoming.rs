//! What people are to be given, on its way: written below `state/incoming/SERIAL/` before its certificate is recorded, and
//! moved to its place afterwards. So a renewal that is killed before the ledger knows of it leaves the older handout
//! whole, and one that is killed after it is completed by the next run.

use camino::{Utf8Path, Utf8PathBuf};

use crate::inventory::CertificateStatus;
use crate::names::{DeviceName, MailAddress, Serial};
use crate::secret::Secret;
use crate::store::files::{self, Durable, ItemKind, StoreError};
use crate::store::keys::{Passphrase, own_names};
use crate::store::{Store, Writer};

const FILES: &str = "handout";
/// Names what there is: the files of the handout and the passwords, a line for each.
const NAMES: &str = "names";
const P12_PASSWORD: &str = "p12-password";
const MAIL_PASSWORD: &str = "mail-password";

/// What a person is to be given with one certificate.
#[derive(Debug, Default)]
pub struct Handout {
    /// The files by their names.
    pub files: Vec<(String, Secret)>,
    /// The password of the PKCS#12 files among them.
    pub p12_password: Option<Secret>,
    /// A new mail password of the account.
    pub mail_password: Option<Secret>,
}

/// The place of handouts that are not recorded yet. Several threads may write there at once.
#[derive(Clone, Debug)]
pub struct Incoming {
    directory: Utf8PathBuf,
    durable: Durable,
}

impl Incoming {
    fn of(store: &Store) -> Self {
        Self { directory: store.state().join("incoming"), durable: Durable::AtOnce }
    }

    /// Returns the same place for many handouts: what is put there is only sure to be on the disk after [`Self::catch_up`].
    #[must_use]
    pub fn in_bulk(self) -> Self {
        Self { durable: Durable::IN_BULK, ..self }
    }

    /// Brings to the disk all that was put here so far.
    pub fn catch_up(&self) -> Result<(), StoreError> {
        files::sync_file_system(&[&self.directory])
    }

    fn place(&self, serial: &Serial) -> Utf8PathBuf {
        self.directory.join(serial.to_string())
    }

    /// Keeps a handout until the certificate of that serial is recorded.
    pub fn put(&self, serial: &Serial, handout: &Handout) -> Result<(), StoreError> {
        let place = self.place(serial);
        let below = place.join(FILES);
        files::create_dir_as(&below, 0o700, self.durable)?;
        for (name, content) in &handout.files {
            if name.starts_with('.') || name.contains('/') || name.is_empty() {
                return Err(StoreError::Outside(below.join(name)));
            }
            files::write_staged(&below.join(name), content.expose(), 0o600, self.durable)?;
        }
        let passwords = [(P12_PASSWORD, &handout.p12_password), (MAIL_PASSWORD, &handout.mail_password)];
        let passwords = passwords.into_iter().filter_map(|(name, password)| Some((name, password.as_ref()?)));
        let mut names: String = handout.files.iter().flat_map(|(name, _)| [name.as_str(), "\n"]).collect();
        for (name, password) in passwords {
            files::write_staged(&place.join(name), password.expose(), 0o600, self.durable)?;
            names.push_str(name);
            names.push('\n');
        }
        files::write_staged(&place.join(NAMES), names.as_bytes(), 0o600, self.durable)?;
        self.durable.directory(&below)?;
        self.durable.directory(&place)
    }
}

impl Store {
    /// Returns where handouts wait for their certificates to be recorded.
    pub fn incoming(&self) -> Incoming {
        Incoming::of(self)
    }
}

impl Writer {
    /// Moves the handout of a certificate that was just recorded to its place; without one it does nothing.
    pub fn settle_handout(&self, serial: &Serial) -> Result<(), StoreError> {
        let place = self.incoming().place(serial);
        match self.ledger().whose(serial)? {
            Some((address, device, _)) if files::exists(&place)? => {
                let move_in = MoveIn { fresh: true, durable: Durable::AtOnce };
                self.move_in(&place, (&address, &device), move_in)?;
                files::remove_dir(&place)
            }
            _ => Ok(()),
        }
    }

    /// Moves the handouts of many certificates, all recorded in one transaction just now and put here in bulk, to their places.
    ///
    /// Killed in between, it is completed by the next run as any other. When the power fails, of renames that are not on the
    /// disk yet each is there or not, and both are what a killed run leaves: a handout is removed from here only after all of
    /// them are on the disk.
    pub fn settle_bulk<'a>(
        &self,
        recorded: impl Iterator<Item = (&'a Serial, &'a MailAddress, &'a DeviceName)> + Clone,
    ) -> Result<(), StoreError> {
        let incoming = self.incoming();
        let move_in = MoveIn { fresh: true, durable: Durable::IN_BULK };
        for (serial, address, device) in recorded.clone() {
            self.move_in(&incoming.place(serial), (address, device), move_in)?;
        }
        files::sync_file_system(&[&incoming.directory, &self.site().path("handout")])?;
        for (serial, ..) in recorded {
            files::remove_dir_as(&incoming.place(serial), Durable::IN_BULK)?;
        }
        files::sync_directory(&incoming.directory)
    }

    /// Brings what a killed run left to its end: the handout of a recorded certificate comes to its place, that of one that has
    /// ended is destroyed, and any other is set aside. Returns where that is now.
    pub(super) fn settle_handouts(&self) -> Result<Vec<Utf8PathBuf>, StoreError> {
        let directory = self.incoming().directory;
        files::refuse_link(&directory)?;
        let mut aside = Vec::new();
        for item in files::list(&directory)?.into_iter().filter(|item| item.kind == ItemKind::Directory) {
            let Some(serial) = item.path.file_name().and_then(|name| name.parse::<Serial>().ok()) else { continue };
            match self.ledger().whose(&serial)? {
                Some((address, device, CertificateStatus::Live | CertificateStatus::Held)) => {
                    let move_in = MoveIn { fresh: false, durable: Durable::AtOnce };
                    self.move_in(&item.path, (&address, &device), move_in)?;
                    files::remove_dir(&item.path)?;
                }
                Some(_) => files::remove_dir(&item.path)?,
                None => {
                    let place = self.state().join("swept/incoming").join(serial.to_string());
                    files::create_dir(files::parent(&place), 0o700)?;
                    files::rename(&item.path, &place)?;
                    aside.push(place);
                }
            }
        }
        Ok(aside)
    }

    /// Moves each file to its place; what the older handout of the device had besides goes. It can be done again at any point.
    fn move_in(
        &self,
        place: &Utf8Path,
        (address, device): (&MailAddress, &DeviceName),
        MoveIn { fresh, durable }: MoveIn,
    ) -> Result<(), StoreError> {
        let names = files::read(&place.join(NAMES))?;
        // They are there before the certificate is recorded, and go when all is done.
        let Some(names) = names.as_deref().map(String::from_utf8_lossy) else { return Ok(()) };
        let target = self.handout_path(address, device);
        for own in [files::parent(&target), &target] {
            files::create_dir_as(own, 0o700, durable)?;
            files::refuse_link(own)?;
        }
        let comes = |name: &str| names.lines().any(|line| line == name);
        for name in own_names(address).iter().filter(|name| !comes(name)) {
            files::remove_file_as(&target.join(name), durable)?;
        }
        if !comes(P12_PASSWORD) {
            files::remove_file_as(&self.passphrase_path(Passphrase::Device(address, device)), durable)?;
        }
        for item in files::list(&place.join(FILES))? {
            let name = item.path.file_name().unwrap_or_default();
            files::rename_as(&item.path, &target.join(name), durable)?;
        }
        self.move_passphrase(&place.join(P12_PASSWORD), Passphrase::Device(address, device), durable)?;
        let mail = place.join(MAIL_PASSWORD);
        if let Some(password) = files::read_secret(&mail)?
            && (fresh || self.ledger().opens(address, &password)?)
        {
            self.move_passphrase(&mail, Passphrase::Account(address), durable)?;
        }
        Ok(())
    }

    fn move_passphrase(&self, from: &Utf8Path, of: Passphrase<'_>, durable: Durable) -> Result<(), StoreError> {
        if !files::exists(from)? {
            return Ok(());
        }
        let path = self.passphrase_path(of);
        let directory = files::parent(&path);
        files::create_dir_as(directory, 0o700, durable)?;
        files::refuse_link(directory)?;
        files::rename_as(from, &path, durable)
    }
}

/// How a handout comes to its place.
#[derive(Clone, Copy)]
struct MoveIn {
    /// The mail password's hash was recorded just now.
    fresh: bool,
    durable: Durable,
}
