//! Private keys, passphrases and handouts. A key lies under the digest of its content, so the ledger's word decides what a
//! key is, and a key that was changed is noticed before it is used.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use camino::{Utf8Path, Utf8PathBuf};

use crate::names::{DeviceName, Digest, MailAddress};
use crate::secret::Secret;
use crate::store::files::{self, Durable, StoreError};
use crate::store::sweep::remove_if_empty;
use crate::store::{Store, Writer};

/// The end of a key's file name.
pub(super) const KEY: &str = ".key";
/// The name of the file that holds a mail password.
pub(super) const ACCOUNT_PASSWORD: &str = "password";
/// The end of the name of the file that holds a PKCS#12 file's password.
pub(super) const DEVICE_PASSWORD: &str = ".p12-password";
/// The file of a handout that holds the site CA's certificate.
pub const SITE_CA: &str = "site-ca.pem";

/// Returns the names of a handout's PKCS#12 files: the modern form, and the older one for Apple's systems.
pub fn bundle_names(address: &MailAddress) -> [String; 2] {
    let name = address.path_component();
    [format!("{name}.p12"), format!("{name}-apple.p12")]
}

/// Tells whether a file of a handout is a PKCS#12 file, which has a password.
pub(super) fn is_bundle(name: &str) -> bool {
    Utf8Path::new(name).extension() == Some("p12")
}

/// Returns the name of the file of a handout that holds a certificate with its chain, for a key that the person made.
pub fn chain_name(address: &MailAddress) -> String {
    format!("{}.pem", address.path_component())
}

/// Returns every name that a file of a handout may have, but for the CA's.
pub(super) fn own_names(address: &MailAddress) -> [String; 3] {
    let [modern, apple] = bundle_names(address);
    [modern, apple, chain_name(address)]
}

/// What a stored passphrase opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passphrase<'a> {
    /// A login.
    Account(&'a MailAddress),
    /// A device's PKCS#12 file.
    Device(&'a MailAddress, &'a DeviceName),
    /// The encrypted key of the site CA.
    SiteCa,
    /// The token that has the site CA's key. Nobody but the administrator puts it here; a passphrase is never tried as a PIN,
    /// for a token locks itself after a few wrong ones.
    Token,
}

impl Passphrase<'_> {
    fn path(self, state: &Utf8Path) -> Utf8PathBuf {
        let of = |address: &MailAddress| state.join("passwords").join(address.path_component());
        match self {
            Self::Account(address) => of(address).join(ACCOUNT_PASSWORD),
            Self::Device(address, device) => of(address).join(format!("{device}{DEVICE_PASSWORD}")),
            Self::SiteCa => state.join("ca.passphrase"),
            Self::Token => state.join("ca.pin"),
        }
    }
}

/// The place of private keys. Several threads may put some there at once; nothing refers to them yet.
#[derive(Clone, Debug)]
pub struct KeyPlace {
    directory: Utf8PathBuf,
    durable: Durable,
}

impl KeyPlace {
    /// Returns the same place for many keys: what is put there is only sure to be on the disk after [`Self::catch_up`].
    #[must_use]
    pub fn in_bulk(self) -> Self {
        Self { durable: Durable::IN_BULK, ..self }
    }

    /// Brings to the disk all that was put here so far.
    pub fn catch_up(&self) -> Result<(), StoreError> {
        files::sync_file_system(&[&self.directory])
    }

    /// Keeps a private key and returns the digest that names it from now on.
    pub fn put(&self, key: &Secret) -> Result<Digest, StoreError> {
        let digest = Digest::of(key.expose());
        match files::write_new_as(&self.path(&digest), key.expose(), 0o600, self.durable) {
            // The same key again is no harm; another one under its name is.
            Err(StoreError::Exists(_)) => self.key(&digest).map(|_| digest),
            result => result.map(|()| digest),
        }
    }

    fn key(&self, digest: &Digest) -> Result<Secret, StoreError> {
        let path = self.path(digest);
        let key = files::read_secret(&path)?;
        key.filter(|key| Digest::of(key.expose()) == *digest).ok_or(StoreError::Tampered(path))
    }

    fn path(&self, digest: &Digest) -> Utf8PathBuf {
        self.directory.join(format!("{}{KEY}", digest.short()))
    }
}

impl Store {
    /// Returns where private keys lie.
    pub fn key_place(&self) -> KeyPlace {
        KeyPlace { directory: self.state().join("keys"), durable: Durable::AtOnce }
    }

    /// Returns the private key of that digest, once it proved to be it.
    pub fn key(&self, digest: &Digest) -> Result<Secret, StoreError> {
        self.key_place().key(digest)
    }

    /// Returns where the private key of that digest lies.
    pub fn key_path(&self, digest: &Digest) -> Utf8PathBuf {
        self.key_place().path(digest)
    }

    /// Returns a passphrase, if it is still kept.
    pub fn passphrase(&self, of: Passphrase<'_>) -> Result<Option<Secret>, StoreError> {
        files::read_secret(&of.path(&self.state()))
    }

    /// Returns where a passphrase lies or would lie.
    pub fn passphrase_path(&self, of: Passphrase<'_>) -> Utf8PathBuf {
        of.path(&self.state())
    }

    /// Returns what `state/` keeps, in the forms in which a text could hold it: passwords and passphrases as they are, in
    /// hexadecimal and base64; of a key the first line of its base64.
    pub fn secret_texts(&self) -> Result<Vec<Secret>, StoreError> {
        let mut texts = Vec::new();
        for item in files::list(&self.state().join("keys"))? {
            let Some(key) = files::read_secret(&item.path)? else { continue };
            let lines = key.expose_str().unwrap_or_default().lines();
            let body = lines.filter(|line| !line.starts_with("-----")).find(|line| line.len() >= 40);
            texts.extend(body.map(|line| Secret::from(line.to_owned())));
        }
        let mut files = [Passphrase::SiteCa, Passphrase::Token].map(|of| self.passphrase_path(of)).to_vec();
        for person in files::list(&self.state().join("passwords"))? {
            files.extend(files::list(&person.path)?.into_iter().map(|item| item.path));
        }
        for path in files {
            let Some(secret) = files::read_secret(&path)? else { continue };
            let bytes = secret.expose().trim_ascii_end();
            texts.push(Secret::new(bytes.to_vec()));
            texts.push(Secret::from(crate::names::hex(bytes)));
            texts.push(Secret::from(BASE64_STANDARD_NO_PAD.encode(bytes)));
        }
        // A text of a few characters would be found by chance, an empty one everywhere.
        texts.retain(|text| text.expose().len() >= 8);
        Ok(texts)
    }

    /// Tells whether something that a person is to be given for a device still lies here.
    pub fn has_handout(&self, address: &MailAddress, device: &DeviceName) -> Result<bool, StoreError> {
        let directory = self.handout_path(address, device);
        let files = own_names(address).map(|name| directory.join(name));
        for path in files.into_iter().chain([self.passphrase_path(Passphrase::Device(address, device))]) {
            if files::exists(&path)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns the directory of what a person is given for a device, made or not.
    pub fn handout_path(&self, address: &MailAddress, device: &DeviceName) -> Utf8PathBuf {
        self.site().path("handout").join(address.path_component()).join(device.as_str())
    }
}

impl Writer {
    /// Keeps a private key and returns the digest that names it from now on.
    pub fn put_key(&self, key: &Secret) -> Result<Digest, StoreError> {
        self.key_place().put(key)
    }

    /// Removes a private key; one that is missing already is no error.
    pub fn remove_key(&self, digest: &Digest) -> Result<(), StoreError> {
        files::remove_file(&self.key_path(digest))
    }

    /// Keeps a passphrase; an older one of the same thing is replaced.
    pub fn put_passphrase(&self, of: Passphrase<'_>, passphrase: &Secret) -> Result<(), StoreError> {
        let path = of.path(&self.state());
        let directory = files::parent(&path);
        files::create_dir(directory, 0o700)?;
        files::refuse_link(directory)?;
        files::write_atomic(&path, passphrase.expose(), 0o600)
    }

    /// Puts the site CA's certificate into every handout that is still here and has another one; returns how many there were.
    pub fn refresh_site_ca(&self, pem: &str) -> Result<usize, StoreError> {
        let mut refreshed = 0;
        for certificate in self.inventory()?.client_certificates.iter().filter(|certificate| certificate.is_current()) {
            let directory = self.handout_path(&certificate.address, &certificate.device);
            // Behind a link lies what is somebody else's.
            if [files::parent(&directory), &directory].into_iter().any(|own| files::refuse_link(own).is_err()) {
                continue;
            }
            let path = directory.join(SITE_CA);
            if files::read(&path)?.is_some_and(|content| content != pem.as_bytes()) {
                files::write_atomic(&path, pem.as_bytes(), 0o600)?;
                refreshed += 1;
            }
        }
        Ok(refreshed)
    }

    /// Removes a passphrase that was handed over; one that is missing already is no error.
    pub fn remove_passphrase(&self, of: Passphrase<'_>) -> Result<(), StoreError> {
        files::remove_file(&of.path(&self.state()))
    }

    /// Keeps a mail password whose hash is about to be recorded. The one that counts until then stays.
    pub fn put_pending_password(&self, address: &MailAddress, password: &Secret) -> Result<(), StoreError> {
        let mut text = Vec::with_capacity(address.as_str().len() + 1 + password.expose().len());
        text.extend_from_slice(address.as_str().as_bytes());
        text.push(b'\n');
        text.extend_from_slice(password.expose());
        files::write_atomic(&self.pending_password(), Secret::new(text).expose(), 0o600)
    }

    /// Makes the pending password the one that counts if its hash is recorded, or else drops it; without one it does nothing.
    pub fn settle_password(&self) -> Result<(), StoreError> {
        let path = self.pending_password();
        let Some(pending) = files::read_secret(&path)? else { return Ok(()) };
        let text = pending.expose_str().and_then(|text| text.split_once('\n'));
        if let Some((Ok(address), password)) = text.map(|(address, password)| (address.parse(), password)) {
            let password = Secret::new(password.as_bytes().to_vec());
            if self.ledger().opens(&address, &password)? {
                self.put_passphrase(Passphrase::Account(&address), &password)?;
            }
        }
        files::remove_file(&path)
    }

    /// Removes a person's handouts and passwords; what is missing already is no error.
    pub fn forget_user(&self, address: &MailAddress) -> Result<(), StoreError> {
        let name = address.path_component();
        for directory in [self.site().path("handout").join(&name), self.state().join("passwords").join(&name)] {
            files::remove_dir(&directory)?;
        }
        Ok(())
    }

    /// Removes what a person was given for a device, and its password; what is missing already is no error.
    pub fn forget_device(&self, address: &MailAddress, device: &DeviceName) -> Result<(), StoreError> {
        let handout = self.handout_path(address, device);
        files::refuse_link(files::parent(&handout))?;
        files::remove_dir(&handout)?;
        remove_if_empty(files::parent(&handout))?;
        self.remove_passphrase(Passphrase::Device(address, device))
    }

    /// One at a time: whoever writes holds the site's lock.
    fn pending_password(&self) -> Utf8PathBuf {
        self.state().join("password.pending")
    }

    /// Writes a file of what a person is given for a device.
    pub fn write_handout(
        &self,
        address: &MailAddress,
        device: &DeviceName,
        name: &str,
        content: &Secret,
    ) -> Result<Utf8PathBuf, StoreError> {
        let directory = self.handout_path(address, device);
        let path = directory.join(name);
        if name.starts_with('.') || name.contains('/') || name.is_empty() {
            return Err(StoreError::Outside(path));
        }
        for own in [files::parent(&directory), &directory] {
            files::create_dir(own, 0o700)?;
            files::refuse_link(own)?;
        }
        files::write_atomic(&path, content.expose(), 0o600)?;
        Ok(path)
    }
}
