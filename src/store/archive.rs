//! One file that holds what many people are to be given, for who carries it elsewhere: a tar, readable by its owner only.

use std::fs::File;
use std::io::Write as _;

use camino::{Utf8Path, Utf8PathBuf};
use tar::{Builder, EntryType, Header};
use time::OffsetDateTime;

use crate::names::{DeviceName, MailAddress};
use crate::secret::Secret;
use crate::store::files::{self, ItemKind, StoreError, Temporary, while_doing};
use crate::store::keys::{SITE_CA, own_names};
use crate::store::{SiteDir, Store};

/// A tar in the making; dropped before [`Archive::finish`], it was never there.
pub struct Archive {
    tar: Builder<File>,
    temporary: Temporary,
    path: Utf8PathBuf,
    made: u64,
}

impl Archive {
    /// Tells whether an archive would lie where git takes it along: within the site, but not in `handout/`.
    ///
    /// # Errors
    /// What could not be written either: its directory is missing, or a directory has its name.
    pub fn would_be_published(site: &SiteDir, path: &Utf8Path) -> Result<bool, StoreError> {
        if files::kind(path)? == Some(ItemKind::Directory) {
            return Err(StoreError::NotAFile(path.to_owned()));
        }
        let real = |path: &Utf8Path| path.canonicalize_utf8().map_err(while_doing("look at", path));
        let (place, root, handout) = (real(files::parent(path))?, real(site.root())?, site.path("handout"));
        Ok(place.starts_with(root) && !(files::exists(&handout)? && place.starts_with(real(&handout)?)))
    }

    /// Begins an archive in which everything has the same time, and nobody's name.
    pub fn create(path: &Utf8Path, made: OffsetDateTime) -> Result<Self, StoreError> {
        let (temporary, file) = Temporary::beside(path, 0o600)?;
        let made = u64::try_from(made.unix_timestamp()).unwrap_or_default();
        Ok(Self { tar: Builder::new(file), temporary, path: path.to_owned(), made })
    }

    fn header(&self, kind: EntryType, mode: u32, length: usize) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(self.made);
        header.set_size(length as u64);
        header
    }

    /// Adds what is to be given for a device, if it is still here. Returns whether it was.
    pub fn add_handout(
        &mut self,
        store: &Store,
        address: &MailAddress,
        device: &DeviceName,
    ) -> Result<bool, StoreError> {
        let from = store.handout_path(address, device);
        let to = Utf8PathBuf::from(format!("handout/{}/{device}", address.path_component()));
        let mut names = Vec::from(own_names(address));
        names.push(SITE_CA.to_owned());
        names.retain(|name| files::kind(&from.join(name)).is_ok_and(|kind| kind == Some(ItemKind::File)));
        if names.iter().all(|name| name == SITE_CA) {
            return Ok(false);
        }
        for name in names {
            if let Some(content) = files::read_secret(&from.join(&name))? {
                let mut header = self.header(EntryType::Regular, 0o600, content.expose().len());
                let added = self.tar.append_data(&mut header, to.join(name), content.expose());
                added.map_err(while_doing("write", &self.path))?;
            }
        }
        Ok(true)
    }

    /// Adds a file of secrets, whose short name lies at the top. It goes from its own memory to the file: what copies for the
    /// others has a buffer that is not wiped.
    pub fn add_secret(&mut self, name: &str, content: &Secret) -> Result<(), StoreError> {
        let doing = while_doing("write", &self.path);
        let octets = content.expose();
        let mut header = self.header(EntryType::Regular, 0o600, octets.len());
        header.set_path(name).map_err(&doing)?;
        header.set_cksum();
        let padding = octets.len().next_multiple_of(BLOCK) - octets.len();
        let file = self.tar.get_mut();
        let parts = [header.as_bytes(), octets, [0; BLOCK].get(..padding).unwrap_or_default()];
        parts.iter().try_for_each(|part| file.write_all(part)).map_err(doing)
    }

    /// Puts the archive, which is whole now, in its place.
    pub fn finish(self) -> Result<(), StoreError> {
        let file = self.tar.into_inner().map_err(while_doing("write", &self.path))?;
        self.temporary.settle(&file, &self.path)
    }
}

/// Of a tar, in octets.
const BLOCK: usize = 512;
