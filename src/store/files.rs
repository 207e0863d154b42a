//! The only place that writes files: whole or not at all, with their final mode from the first byte on.
//!
//! A file is written under a name that nothing refers to, brought to the disk, and only then renamed. Symbolic links are
//! never written through: a rename replaces the link. What a killed run leaves lies under a name that
//! `remove_leftovers` knows.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::sync::atomic::{AtomicU64, Ordering};

use camino::{Utf8Path, Utf8PathBuf};

use crate::diag::Diagnostic;
use crate::names::shell_word;
use crate::secret::Secret;
use crate::store::ledger::LedgerError;

/// Why the store could not do its work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another run holds the site's lock and does not end.
    #[error("`{0}` is held by another postseal; let it finish, or end it, and run the command again")]
    Busy(Utf8PathBuf),
    /// The ledger of a backup, or a key that it needs, is not what it must be.
    #[error("{0}; take another backup: nothing was put into place")]
    Damaged(String),
    /// A killed run's new site was brought to its end.
    #[error("`{0}` was left half made by a run that was killed, and is complete now; look at what it holds")]
    Completed(Utf8PathBuf),
    /// A file must not be written over.
    #[error("`{0}` exists already; it is never written over")]
    Exists(Utf8PathBuf),
    /// The directory holds a site already.
    #[error("`{0}` exists already, so the directory holds a site; choose another directory, or remove it first")]
    HoldsSite(Utf8PathBuf),
    /// The system refused.
    #[error("could not {doing} `{path}`: {}", reason(.source))]
    Io {
        /// What was being done: a verb that stands before the path.
        doing: &'static str,
        /// To which file or directory.
        path: Utf8PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The ledger refused or failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The ledger is missing or empty, beside other parts of a site.
    #[error("`{0}` is missing or empty, though there is a site; bring state/ back from a backup")]
    LedgerLost(Utf8PathBuf),
    /// `postseal.lock` names what the ledger does not know.
    #[error(
        "postseal.lock names {0}, which the ledger does not know: the ledger is older; bring the newest state/ back from a backup, or, if what the lock says never was, remove it and run: postseal render"
    )]
    LedgerOld(String),
    /// A list of users is longer than any.
    #[error("`{0}` is longer than 64 MiB; name a list of users, or divide it")]
    ListTooLong(Utf8PathBuf),
    /// There is no site here, or only the committed part of one.
    #[error(
        "`{0}` does not exist; go to the site's directory or name it with --site, or make a site: postseal init DOMAIN"
    )]
    NoState(Utf8PathBuf),
    /// What should be a backup is none that can be unpacked.
    #[error("{0}; name a file that postseal backup wrote: nothing was put into place")]
    NoBackup(String),
    /// What should hold a password or passphrase is too large for one.
    #[error("`{0}` is longer than 4096 octets; name a file that holds the secret only")]
    NoSecret(Utf8PathBuf),
    /// What the user named is too large to be it.
    #[error("`{path}` is longer than {most} octets; name the right file")]
    TooLong {
        /// The file.
        path: Utf8PathBuf,
        /// The most octets that are read.
        most: usize,
    },
    /// A link, a device or a directory stands where a file should.
    #[error("`{0}` is no regular file; put the file itself there")]
    NotAFile(Utf8PathBuf),
    /// A link stands where a directory of the program's own should.
    #[error("`{0}` is no directory, or a link to one; put the directory itself there")]
    NotADirectory(Utf8PathBuf),
    /// A new site needs a place where nothing is.
    #[error("`{0}` is in the way of a new site; choose another directory, or move it away")]
    Occupied(Utf8PathBuf),
    /// A path would leave the directory that it belongs below.
    #[error("`{0}` is no plain relative path; refused")]
    Outside(Utf8PathBuf),
    /// Others may read what only its owner should.
    #[error("others may read `{path}` (mode {mode:04o}); if nobody did, run: chmod go= {}", shell_word(.path.as_str()))]
    Readable {
        /// The file or directory.
        path: Utf8PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The ledger moved on between rendering and writing.
    #[error("`{0}` changed in the ledger since it was rendered; run the command again")]
    Stale(Utf8PathBuf),
    /// A content-addressed file holds something else than its name says.
    #[error("`{0}` does not hold what the ledger recorded; bring it back from a backup")]
    Tampered(Utf8PathBuf),
    /// A text is not as it should be, at a place that can be pointed at.
    #[error("{}", .0.message)]
    Text(Box<Diagnostic>),
    /// A backup was made for another passphrase or key.
    #[error("what was given does not open `{0}`; look which passphrase or key it was made for")]
    WrongOpener(Utf8PathBuf),
}

/// Words for the reasons that a person can mend at once.
fn reason(source: &io::Error) -> String {
    match source.kind() {
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::QuotaExceeded => "disk quota exceeded".to_owned(),
        io::ErrorKind::ReadOnlyFilesystem => "the file system is read-only".to_owned(),
        io::ErrorKind::StorageFull => "disk full".to_owned(),
        _ => source.to_string(),
    }
}

/// Turns a system's error into a [`StoreError`] that says what was being done to which path.
pub(super) fn while_doing<'a>(doing: &'static str, path: &'a Utf8Path) -> impl Fn(io::Error) -> StoreError + 'a {
    move |source| StoreError::Io { doing, path: path.to_owned(), source }
}

const PREFIX: &str = ".postseal-";
const SUFFIX: &str = ".tmp";
const JOURNAL: &str = ".tmp-journal";

/// When what is written reaches the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Durable {
    /// Before the call returns.
    AtOnce,
    /// With all else that was written, when [`sync_file_system`] is called.
    Together,
}

impl Durable {
    /// The way for many files: one call of the system for all of them, where it has such a call.
    pub(super) const IN_BULK: Self = if cfg!(target_os = "linux") { Self::Together } else { Self::AtOnce };

    fn file(self, file: &mut File, bytes: &[u8], mode: u32) -> io::Result<()> {
        match self {
            Self::AtOnce => write_through(file, bytes, mode),
            Self::Together => write_with_mode(file, bytes, mode),
        }
    }

    /// Brings a directory's names to the disk, unless that comes later.
    pub(super) fn directory(self, path: &Utf8Path) -> Result<(), StoreError> {
        match self {
            Self::AtOnce => sync_directory(path),
            Self::Together => Ok(()),
        }
    }
}

/// Writes a file whole or not at all; an older one of that name is replaced.
pub fn write_atomic(path: &Utf8Path, bytes: &[u8], mode: u32) -> Result<(), StoreError> {
    let temporary = Temporary::write(path, bytes, mode)?;
    fs::rename(&temporary.path, path).map_err(while_doing("write", path))?;
    temporary.keep();
    sync_directory(parent(path))
}

/// Writes a file that the user named, whole or not at all. What is no file, as a device or a link, is not replaced.
pub fn write_named(path: &Utf8Path, bytes: &[u8], mode: u32) -> Result<(), StoreError> {
    match kind(path)? {
        None | Some(ItemKind::File) => write_atomic(path, bytes, mode),
        Some(ItemKind::Directory | ItemKind::Other) => Err(StoreError::NotAFile(path.to_owned())),
    }
}

/// Does what [`write_named`] does in a directory that no later run sweeps: what a killed run left is replaced by the next one.
pub fn write_listed(path: &Utf8Path, bytes: &[u8], mode: u32) -> Result<(), StoreError> {
    if kind(path)?.is_some() {
        refuse_other_than_file(path)?;
    }
    let (temporary, mut file) = Temporary::beside(path, mode)?;
    file.write_all(bytes).map_err(while_doing("write", path))?;
    temporary.settle(&file, path)
}

/// Writes a file that must not exist yet.
pub fn write_new(path: &Utf8Path, bytes: &[u8], mode: u32) -> Result<(), StoreError> {
    write_new_as(path, bytes, mode, Durable::AtOnce)
}

pub(super) fn write_new_as(path: &Utf8Path, bytes: &[u8], mode: u32, durable: Durable) -> Result<(), StoreError> {
    let temporary = Temporary::write_as(path, bytes, mode, durable)?;
    // Unlike a rename, a link never replaces.
    fs::hard_link(&temporary.path, path).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => StoreError::Exists(path.to_owned()),
        _ => while_doing("write", path)(source),
    })?;
    drop(temporary);
    durable.directory(parent(path))
}

/// A file in the making that must not exist yet: nobody sees it before it is whole, and killed half-way it leaves only what the
/// next one in the same directory removes.
#[derive(Debug)]
pub(super) struct NewFile {
    path: Utf8PathBuf,
    temporary: Option<Temporary>,
    /// Locked, so that what a killed run left is told from what one is at work on.
    file: File,
}

const NEW_FILE: &str = "new-";

impl NewFile {
    /// Begins a file that only its owner may read.
    pub(super) fn create(path: &Utf8Path) -> Result<Self, StoreError> {
        let doing = while_doing("write", path);
        if exists(path)? {
            return Err(StoreError::Exists(path.to_owned()));
        }
        let directory = parent(path);
        sweep_new(directory)?;
        let (temporary, file) = Temporary::create_as(directory, NEW_FILE, 0o600).map_err(&doing)?;
        // Where there are no locks, as on some network's disks, nothing is swept either.
        let _ = file.try_lock();
        if file.metadata().map_err(&doing)?.permissions().mode() & 0o7777 != 0o600 {
            // A disk for all systems knows no modes.
            let _ = file.set_permissions(fs::Permissions::from_mode(0o600));
        }
        Ok(Self { path: path.to_owned(), temporary: Some(temporary), file })
    }

    /// Brings it to the disk and to its name, which nobody may have taken meanwhile.
    pub(super) fn finish(mut self) -> Result<(), StoreError> {
        let doing = while_doing("write", &self.path);
        self.file.sync_all().map_err(&doing)?;
        let Some(temporary) = self.temporary.take() else { return Ok(()) };
        match fs::hard_link(&temporary.path, &self.path) {
            Ok(()) => drop(temporary),
            Err(taken) if taken.kind() == io::ErrorKind::AlreadyExists => {
                return Err(StoreError::Exists(self.path.clone()));
            }
            // A disk for all systems knows no links: the name is taken first, and then replaced.
            Err(refused) if matches!(refused.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported) => {
                OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.path).map_err(&doing)?;
                fs::rename(&temporary.path, &self.path).map_err(&doing)?;
                temporary.keep();
            }
            Err(other) => return Err(doing(other)),
        }
        sync_directory(parent(&self.path))
    }
}

/// Removes what killed runs left of files that [`NewFile`] began in a directory.
pub(super) fn sweep_new(directory: &Utf8Path) -> Result<(), StoreError> {
    for item in list(directory)? {
        let name = item.path.file_name().unwrap_or_default();
        let is_ours = name.starts_with(&format!("{PREFIX}{NEW_FILE}")) && name.ends_with(SUFFIX);
        if is_ours && item.kind == ItemKind::File {
            // Somebody else's is left to them.
            let dead = OpenOptions::new().write(true).open(&item.path).is_ok_and(|file| file.try_lock().is_ok());
            let _ = dead.then(|| fs::remove_file(&item.path));
        }
    }
    Ok(())
}

impl io::Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Makes an empty file under a name that nothing refers to, and that `remove_leftovers` knows.
pub(super) fn create_temporary(directory: &Utf8Path, mode: u32) -> Result<Utf8PathBuf, StoreError> {
    let (temporary, _) = Temporary::create(directory, mode).map_err(while_doing("write", directory))?;
    let path = temporary.path.clone();
    temporary.keep();
    Ok(path)
}

/// A file under a name that nothing refers to, removed when dropped.
#[derive(Debug)]
pub(super) struct Temporary {
    path: Utf8PathBuf,
}

impl Temporary {
    fn write(path: &Utf8Path, bytes: &[u8], mode: u32) -> Result<Self, StoreError> {
        Self::write_as(path, bytes, mode, Durable::AtOnce)
    }

    fn write_as(path: &Utf8Path, bytes: &[u8], mode: u32, durable: Durable) -> Result<Self, StoreError> {
        let doing = while_doing("write", path);
        let (temporary, mut file) = Self::create(parent(path), mode).map_err(&doing)?;
        durable.file(&mut file, bytes, mode).map_err(&doing)?;
        Ok(temporary)
    }

    fn create(directory: &Utf8Path, mode: u32) -> io::Result<(Self, File)> {
        Self::create_as(directory, "", mode)
    }

    fn create_as(directory: &Utf8Path, what: &str, mode: u32) -> io::Result<(Self, File)> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = COUNTER.fetch_add(1, Ordering::Relaxed);
            let path = directory.join(format!("{PREFIX}{what}{}-{number}{SUFFIX}", std::process::id()));
            match OpenOptions::new().write(true).create_new(true).mode(mode).open(&path) {
                Err(taken) if taken.kind() == io::ErrorKind::AlreadyExists => {}
                result => return result.map(|file| (Self { path }, file)),
            }
        }
    }

    /// Opens a file that takes the place of another when it is whole, in a directory that no later run may sweep: it has one
    /// name, and what a killed run left under it is replaced.
    pub(super) fn beside(path: &Utf8Path, mode: u32) -> Result<(Self, File), StoreError> {
        let name = format!("{PREFIX}{}{SUFFIX}", path.file_name().unwrap_or_default());
        let temporary = parent(path).join(name);
        remove_file(&temporary)?;
        let doing = while_doing("write", path);
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary).map_err(&doing)?;
        file.set_permissions(fs::Permissions::from_mode(mode)).map_err(&doing)?;
        Ok((Self { path: temporary }, file))
    }

    /// Puts the file, which is whole now, in its place.
    pub(super) fn settle(self, file: &File, path: &Utf8Path) -> Result<(), StoreError> {
        let doing = while_doing("write", path);
        file.sync_all().map_err(&doing)?;
        fs::rename(&self.path, path).map_err(&doing)?;
        self.keep();
        sync_directory(parent(path))
    }

    fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // What cannot be removed now, `remove_leftovers` removes.
        let _ = fs::remove_file(&self.path);
    }
}

fn write_through(file: &mut File, bytes: &[u8], mode: u32) -> io::Result<()> {
    write_with_mode(file, bytes, mode)?;
    file.sync_all()
}

fn write_with_mode(file: &mut File, bytes: &[u8], mode: u32) -> io::Result<()> {
    // The umask may have taken bits away, never added any: so far nobody could read more than is meant.
    if file.metadata()?.permissions().mode() & 0o7777 != mode {
        file.set_permissions(fs::Permissions::from_mode(mode))?;
    }
    file.write_all(bytes)
}

/// Writes a file into a directory that nobody reads yet.
pub(super) fn write_staged(path: &Utf8Path, bytes: &[u8], mode: u32, durable: Durable) -> Result<(), StoreError> {
    let doing = while_doing("write", path);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(&doing)?;
    durable.file(&mut file, bytes, mode).map_err(&doing)
}

/// Gives a file a second name; false where the disk knows no links, or nobody may make one.
pub(super) fn link(file: &Utf8Path, name: &Utf8Path) -> bool {
    fs::hard_link(file, name).is_ok()
}

/// Brings to the disk what was written to the file systems of the directories so far and was to be durable together.
#[cfg(target_os = "linux")]
pub(super) fn sync_file_system(directories: &[&Utf8Path]) -> Result<(), StoreError> {
    let mut done = Vec::new();
    for path in directories {
        let doing = while_doing("write", path);
        let directory = File::open(path).map_err(&doing)?;
        let device = directory.metadata().map_err(&doing)?.dev();
        if !done.contains(&device) {
            rustix::fs::syncfs(&directory).map_err(|error| doing(error.into()))?;
            done.push(device);
        }
    }
    Ok(())
}

/// Elsewhere each file was brought to the disk when it was written.
#[cfg(not(target_os = "linux"))]
pub(super) fn sync_file_system(_directories: &[&Utf8Path]) -> Result<(), StoreError> {
    Ok(())
}

/// Writes a file of that size into a directory that nobody reads yet, from a stream that does not fit into memory.
pub(super) fn write_staged_from(
    path: &Utf8Path,
    from: &mut impl io::Read,
    size: u64,
    mode: u32,
) -> Result<(), StoreError> {
    let doing = while_doing("write", path);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(&doing)?;
    let mut buffer = zeroize::Zeroizing::new(vec![0; 1 << 16]);
    let mut left = size;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let read = from.read(buffer.get_mut(..most).unwrap_or_default()).map_err(&doing)?;
        if read == 0 {
            return Err(doing(io::ErrorKind::UnexpectedEof.into()));
        }
        file.write_all(buffer.get(..read).unwrap_or_default()).map_err(&doing)?;
        left -= read as u64;
    }
    write_through(&mut file, &[], mode).map_err(&doing)
}

/// Adds to the end of a file that another program gave, unless it would grow longer than the limit. Returns whether it did.
pub fn append(path: &Utf8Path, bytes: &[u8], limit: u64) -> Result<bool, StoreError> {
    let doing = while_doing("write", path);
    // A pipe would be waited for.
    if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        return Err(StoreError::NotAFile(path.to_owned()));
    }
    let mut file = OpenOptions::new().append(true).create(true).mode(0o644).open(path).map_err(&doing)?;
    let length = file.metadata().map_err(&doing)?.len().saturating_add(bytes.len() as u64);
    if length > limit {
        return Ok(false);
    }
    file.write_all(bytes).map_err(doing)?;
    Ok(true)
}

/// Creates a directory and those above it that are missing, all with the mode; one that exists stays as it is.
pub fn create_dir(path: &Utf8Path, mode: u32) -> Result<(), StoreError> {
    create_dir_as(path, mode, Durable::AtOnce)
}

/// Does what [`create_dir`] does.
pub(super) fn create_dir_as(path: &Utf8Path, mode: u32, durable: Durable) -> Result<(), StoreError> {
    let doing = while_doing("create", path);
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => return Ok(()),
        Ok(_) => return Err(StoreError::Exists(path.to_owned())),
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => {}
        Err(other) => return Err(doing(other)),
    }
    create_dir_as(parent(path), mode, durable)?;
    match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => {}
        // Another run was quicker.
        Err(taken) if taken.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(other) => return Err(doing(other)),
    }
    let directory = File::open(path).map_err(&doing)?;
    if directory.metadata().map_err(&doing)?.permissions().mode() & 0o777 != mode {
        directory.set_permissions(fs::Permissions::from_mode(mode)).map_err(&doing)?;
    }
    durable.directory(parent(path))
}

/// Refuses a link, a directory or a device in place of a file.
pub(super) fn refuse_other_than_file(path: &Utf8Path) -> Result<(), StoreError> {
    let metadata = fs::symlink_metadata(path).map_err(while_doing("look at", path))?;
    if metadata.is_file() { Ok(()) } else { Err(StoreError::NotAFile(path.to_owned())) }
}

/// Refuses a link, through which something else would be written, read or swept; what is missing is none.
pub(super) fn refuse_link(directory: &Utf8Path) -> Result<(), StoreError> {
    match fs::symlink_metadata(directory) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(StoreError::NotADirectory(directory.to_owned())),
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(other) => Err(while_doing("look at", directory)(other)),
    }
}

/// Removes a file; one that is missing already is no error.
pub fn remove_file(path: &Utf8Path) -> Result<(), StoreError> {
    remove_file_as(path, Durable::AtOnce)
}

/// Does what [`remove_file`] does.
pub(super) fn remove_file_as(path: &Utf8Path, durable: Durable) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Ok(()) => durable.directory(parent(path)),
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(other) => Err(while_doing("remove", path)(other)),
    }
}

/// Removes a directory with all that is in it; one that is missing already is no error.
pub fn remove_dir(path: &Utf8Path) -> Result<(), StoreError> {
    remove_dir_as(path, Durable::AtOnce)
}

/// Does what [`remove_dir`] does.
pub(super) fn remove_dir_as(path: &Utf8Path, durable: Durable) -> Result<(), StoreError> {
    match fs::remove_dir_all(path) {
        Ok(()) => durable.directory(parent(path)),
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(other) => Err(while_doing("remove", path)(other)),
    }
}

/// Moves a file or directory to a name on the same file system, for good.
pub(super) fn rename(from: &Utf8Path, to: &Utf8Path) -> Result<(), StoreError> {
    rename_as(from, to, Durable::AtOnce)
}

/// Does what [`rename`] does.
pub(super) fn rename_as(from: &Utf8Path, to: &Utf8Path, durable: Durable) -> Result<(), StoreError> {
    fs::rename(from, to).map_err(while_doing("move", from))?;
    durable.directory(parent(to))
}

/// Tells whether something of that name exists, be it a link that leads nowhere.
pub fn exists(path: &Utf8Path) -> Result<bool, StoreError> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(other) => Err(while_doing("look at", path)(other)),
    }
}

/// Returns what something is, or none if it is missing; links are not followed.
pub(super) fn kind(path: &Utf8Path) -> Result<Option<ItemKind>, StoreError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(kind_of(&metadata))),
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(other) => Err(while_doing("look at", path)(other)),
    }
}

fn kind_of(metadata: &fs::Metadata) -> ItemKind {
    match metadata.file_type() {
        kind if kind.is_dir() => ItemKind::Directory,
        kind if kind.is_file() => ItemKind::File,
        _ => ItemKind::Other,
    }
}

/// Returns what a file holds, or none if it is missing.
pub fn read(path: &Utf8Path) -> Result<Option<Vec<u8>>, StoreError> {
    let doing = while_doing("read", path);
    let metadata = match fs::metadata(path) {
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(None),
        result => result.map_err(&doing)?,
    };
    // A pipe would be waited for.
    if !metadata.is_file() {
        return Err(StoreError::NotAFile(path.to_owned()));
    }
    let mut bytes = Vec::new();
    File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)).map_err(&doing)?;
    Ok(Some(bytes))
}

/// Returns what a file that only its owner may read holds, or none if it is missing; links are refused.
pub fn read_secret(path: &Utf8Path) -> Result<Option<Secret>, StoreError> {
    let doing = while_doing("read", path);
    let metadata = match fs::symlink_metadata(path) {
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(None),
        result => result.map_err(&doing)?,
    };
    if !metadata.is_file() {
        return Err(StoreError::NotAFile(path.to_owned()));
    }
    let mut file = File::open(path).map_err(&doing)?;
    let opened = file.metadata().map_err(&doing)?;
    if (opened.dev(), opened.ino()) != (metadata.dev(), metadata.ino()) {
        return Err(StoreError::NotAFile(path.to_owned()));
    }
    refuse_readable(path, &opened)?;
    // Room for all of it at once: a buffer that grows leaves copies behind.
    let room = usize::try_from(opened.len()).unwrap_or_default().saturating_add(1);
    let mut bytes = Vec::with_capacity(room);
    file.read_to_end(&mut bytes).map_err(&doing)?;
    Ok(Some(Secret::new(bytes)))
}

/// Returns the secret that the user named a file for, or none if it is missing: a pipe from a password manager is as good as a
/// file, and who may read it is the user's business. More than 4 KiB is no secret that a person has.
pub fn read_given_secret(path: &Utf8Path) -> Result<Option<Secret>, StoreError> {
    read_given(path, GIVEN_SECRET_LIMIT).map_err(|error| match error {
        StoreError::TooLong { path, .. } => StoreError::NoSecret(path),
        other => other,
    })
}

/// Returns what a file holds that the user named, or none if it is missing; it may be a pipe. More than `most` octets are refused
/// unread.
pub fn read_given(path: &Utf8Path, most: usize) -> Result<Option<Secret>, StoreError> {
    let doing = while_doing("read", path);
    let file = match File::open(path) {
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(None),
        result => result.map_err(&doing)?,
    };
    // Room for all of it at once: a buffer that grows leaves copies behind.
    let mut bytes = Vec::with_capacity(most + 2);
    file.take(most as u64 + 1).read_to_end(&mut bytes).map_err(&doing)?;
    let secret = Secret::new(bytes);
    if secret.expose().len() > most {
        return Err(StoreError::TooLong { path: path.to_owned(), most });
    }
    Ok(Some(secret))
}

/// Returns what a file that the user named holds, with its permission bits, or none if it is missing; links are followed. What is
/// no file, as a pipe, is refused, and so are more than `most` octets.
pub fn read_given_file(path: &Utf8Path, most: usize) -> Result<Option<(Secret, u32)>, StoreError> {
    let doing = while_doing("read", path);
    let metadata = match fs::metadata(path) {
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(None),
        result => result.map_err(&doing)?,
    };
    // To open a pipe, one would wait for who writes it.
    if !metadata.is_file() {
        return Err(StoreError::NotAFile(path.to_owned()));
    }
    Ok(read_given(path, most)?.map(|content| (content, metadata.permissions().mode() & 0o7777)))
}

/// Returns what a list of users holds, which may be passwords too, or none if it is missing; a pipe is as good as a file.
pub fn read_given_list(path: &Utf8Path) -> Result<Option<Secret>, StoreError> {
    let doing = while_doing("read", path);
    let file = match File::open(path) {
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(None),
        result => result.map_err(&doing)?,
    };
    // In parts, for a buffer that grows leaves copies behind, and nobody knows how long a pipe is.
    let (mut parts, mut length) = (Vec::new(), 0);
    loop {
        let mut part = Vec::with_capacity(LIST_PART + 1);
        (&file).take(LIST_PART as u64).read_to_end(&mut part).map_err(&doing)?;
        let part = Secret::new(part);
        length += part.expose().len();
        if part.expose().is_empty() {
            break;
        }
        if length > LIST_LIMIT {
            return Err(StoreError::ListTooLong(path.to_owned()));
        }
        parts.push(part);
    }
    let mut whole = Vec::with_capacity(length);
    for part in &parts {
        whole.extend_from_slice(part.expose());
    }
    Ok(Some(Secret::new(whole)))
}

/// In octets: lines for some hundred thousand users.
const LIST_LIMIT: usize = 64 << 20;
const LIST_PART: usize = 256 << 10;

/// In octets.
const GIVEN_SECRET_LIMIT: usize = 4096;

/// Refuses what others than the owner may read, write or enter.
pub(super) fn refuse_readable(path: &Utf8Path, metadata: &fs::Metadata) -> Result<(), StoreError> {
    let mode = metadata.permissions().mode() & 0o7777;
    let others = mode & 0o077;
    if others == 0 { Ok(()) } else { Err(StoreError::Readable { path: path.to_owned(), mode }) }
}

/// Returns what is in a directory, sorted by name; nothing if it is missing.
pub(super) fn list(directory: &Utf8Path) -> Result<Vec<Item>, StoreError> {
    list_if(directory, |_, _| true)
}

/// Returns what is in a directory and wanted by its name, and whether it is a directory itself, sorted by name; nothing if it is
/// missing. Of the rest the system is asked nothing, which counts where tens of thousands of keys lie.
pub(super) fn list_if(directory: &Utf8Path, is_wanted: impl Fn(&str, bool) -> bool) -> Result<Vec<Item>, StoreError> {
    let doing = while_doing("read", directory);
    let found = match fs::read_dir(directory) {
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        result => result.map_err(&doing)?,
    };
    let mut items = Vec::new();
    for entry in found {
        let entry = entry.map_err(&doing)?;
        let path = Utf8PathBuf::from_path_buf(entry.path())
            .map_err(|path| StoreError::Outside(path.to_string_lossy().into_owned().into()))?;
        let is_directory = entry.file_type().map_err(&doing)?.is_dir();
        if !is_wanted(path.file_name().unwrap_or_default(), is_directory) {
            continue;
        }
        let metadata = entry.metadata().map_err(&doing)?;
        items.push(Item { path, kind: kind_of(&metadata), mode: metadata.permissions().mode() & 0o7777 });
    }
    // In one directory, the paths differ in the names.
    items.sort_by(|a, b| a.path.as_str().cmp(b.path.as_str()));
    Ok(items)
}

/// Returns what is in a directory; nothing if it is something else.
pub(super) fn list_in(item: &Item) -> Result<Vec<Item>, StoreError> {
    if item.kind == ItemKind::Directory { list(&item.path) } else { Ok(Vec::new()) }
}

/// Tells whether something has a name that only a killed run leaves.
pub(super) fn is_leftover(item: &Item) -> bool {
    item.path.file_name().is_some_and(|name| name.starts_with(PREFIX))
}

/// Something in a directory.
pub(super) struct Item {
    /// The directory's path with the item's name.
    pub(super) path: Utf8PathBuf,
    /// What it is; links are not followed.
    pub(super) kind: ItemKind,
    /// Its permission bits.
    pub(super) mode: u32,
}

/// What an item of a directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ItemKind {
    Directory,
    File,
    Other,
}

/// How far below a directory leftovers are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// In the directory itself.
    Here,
    /// In all that is below it too.
    Below,
}

/// Removes what a killed run left behind. Only who holds the site's lock may call it: what it removes is nobody's.
pub(super) fn remove_leftovers(directory: &Utf8Path, depth: Depth) -> Result<(), StoreError> {
    for item in list_if(directory, |name, is_directory| is_directory || name.starts_with(PREFIX))? {
        let name = item.path.file_name().unwrap_or_default();
        match item.kind {
            ItemKind::Directory if depth == Depth::Below => remove_leftovers(&item.path, depth)?,
            // The second is what SQLite keeps beside a copy of the ledger while it writes that.
            ItemKind::File if name.starts_with(PREFIX) && (name.ends_with(SUFFIX) || name.ends_with(JOURNAL)) => {
                remove_file(&item.path)?;
            }
            // The stage of an `init` that was killed when it had moved everything; one that holds something is not touched.
            ItemKind::Directory if name.starts_with(PREFIX) && name.ends_with(SUFFIX) => {
                let _ = fs::remove_dir(&item.path);
            }
            _ => {}
        }
    }
    Ok(())
}

/// Returns the directory that a path's file lies in.
pub(super) fn parent(path: &Utf8Path) -> &Utf8Path {
    match path.parent() {
        Some(parent) if !parent.as_str().is_empty() => parent,
        Some(_) => Utf8Path::new("."),
        None => Utf8Path::new("/"),
    }
}

/// Brings a directory's names to the disk: without it, a rename may be lost when the power is.
pub(super) fn sync_directory(path: &Utf8Path) -> Result<(), StoreError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(while_doing("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch() -> (tempfile::TempDir, Utf8PathBuf) {
        let guard = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(guard.path().to_owned()).unwrap();
        (guard, path)
    }

    #[test]
    fn a_file_is_replaced_whole_and_leaves_no_temporary_behind() {
        let (_guard, dir) = scratch();
        let path = dir.join("a");
        write_atomic(&path, b"one", 0o644).unwrap();
        write_atomic(&path, b"two", 0o600).unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), b"two");
        let items = list(&dir).unwrap();
        assert_eq!(items.iter().map(|item| (item.path.clone(), item.mode)).collect::<Vec<_>>(), [(path, 0o600)]);
    }

    #[test]
    fn a_new_file_never_replaces_one() {
        let (_guard, dir) = scratch();
        let path = dir.join("a");
        write_new(&path, b"one", 0o600).unwrap();
        assert!(matches!(write_new(&path, b"two", 0o600), Err(StoreError::Exists(_))));
        assert_eq!(read(&path).unwrap().unwrap(), b"one");
        assert_eq!(list(&dir).unwrap().len(), 1);
    }

    #[test]
    fn a_link_is_replaced_not_written_through() {
        let (_guard, dir) = scratch();
        write_new(&dir.join("precious"), b"precious", 0o600).unwrap();
        std::os::unix::fs::symlink(dir.join("precious"), dir.join("link")).unwrap();
        assert!(matches!(read_secret(&dir.join("link")), Err(StoreError::NotAFile(_))));
        write_atomic(&dir.join("link"), b"new", 0o600).unwrap();
        assert_eq!(read(&dir.join("precious")).unwrap().unwrap(), b"precious");
        assert_eq!(read_secret(&dir.join("link")).unwrap().unwrap().expose(), b"new");
    }

    #[test]
    fn a_secret_that_others_may_read_is_refused() {
        let (_guard, dir) = scratch();
        write_new(&dir.join("key"), b"key", 0o640).unwrap();
        let error = read_secret(&dir.join("key")).unwrap_err();
        assert!(error.to_string().contains("(mode 0640)"), "{error}");
    }

    #[test]
    fn leftovers_of_a_killed_run_are_removed_and_nothing_else() {
        let (_guard, dir) = scratch();
        create_dir(&dir.join("below"), 0o700).unwrap();
        for name in [".postseal-1-0.tmp", "below/.postseal-1-1.tmp", "below/kept.tmp", ".postseal-kept"] {
            write_new(&dir.join(name), b"", 0o600).unwrap();
        }
        remove_leftovers(&dir, Depth::Here).unwrap();
        assert!(exists(&dir.join("below/.postseal-1-1.tmp")).unwrap());
        remove_leftovers(&dir, Depth::Below).unwrap();
        let names = |dir: &Utf8Path| list(dir).unwrap().into_iter().map(|item| item.path).collect::<Vec<_>>();
        assert_eq!(names(&dir), [dir.join(".postseal-kept"), dir.join("below")]);
        assert_eq!(names(&dir.join("below")), [dir.join("below/kept.tmp")]);
    }

    #[test]
    fn an_empty_stage_is_removed_and_one_that_holds_something_is_not() {
        let (_guard, dir) = scratch();
        let (empty, full) = (dir.join(".postseal-site.a.tmp"), dir.join(".postseal-site.b.tmp"));
        create_dir(&empty, 0o755).unwrap();
        create_dir(&full.join("state"), 0o700).unwrap();
        remove_leftovers(&dir, Depth::Here).unwrap();
        assert!(!empty.exists() && full.join("state").exists());
    }

    #[test]
    fn errors_say_what_was_being_done() {
        let (_guard, dir) = scratch();
        let error = write_new(&dir.join("missing/a"), b"", 0o600).unwrap_err();
        assert!(error.to_string().starts_with(&format!("could not write `{dir}/missing/a`: ")), "{error}");
        let full = while_doing("write", "a".into())(io::ErrorKind::StorageFull.into());
        assert_eq!(full.to_string(), "could not write `a`: disk full");
    }
}
