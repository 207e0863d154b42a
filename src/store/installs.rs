//! What an installation leaves in the site: files of others that were replaced.

use camino::{Utf8Path, Utf8PathBuf};

use crate::names::{Digest, HostName};
use crate::secret::Secret;
use crate::store::files::{self, StoreError};
use crate::store::{Store, Writer};

impl Store {
    /// Returns where the content of a replaced file is kept: by host, path and content, so that no two get in each other's way.
    pub fn kept_path(&self, host: &HostName, path: &Utf8Path, content: &Secret) -> Utf8PathBuf {
        let digest = Digest::of(content.expose());
        self.state().join("kept").join(host.as_str()).join(digest.short()).join(path.file_name().unwrap_or("file"))
    }
}

impl Writer {
    /// Keeps what a file held that somebody else wrote, before it is replaced. Returns where.
    pub fn keep_replaced(&self, host: &HostName, path: &Utf8Path, content: &Secret) -> Result<Utf8PathBuf, StoreError> {
        let place = self.kept_path(host, path, content);
        files::create_dir(files::parent(&place), 0o700)?;
        files::write_atomic(&place, content.expose(), 0o600)?;
        Ok(place)
    }
}
