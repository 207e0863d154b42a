//! The files of a host, below a directory that stands for its root.
//!
//! Root works here in directories that daemons own, so every step from the root down is taken by descriptor and none
//! through a symbolic link: what a daemon puts in the way is refused, not followed. A file is written beside its place under
//! a name of ours and switched by rename.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;

use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::{AtFlags, FileType, FlockOperation, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;

use crate::host::HostError;
use crate::install::{Found, Owner};
use crate::names::{AbsolutePath, Digest};
use crate::secret::Secret;

/// A configuration is never larger; what is, is not read into memory.
const MAXIMUM_SIZE: u64 = 1 << 30;

/// What our names in other people's directories begin with.
const OURS: &str = ".postseal-";

/// The files below a host's root directory.
#[derive(Debug)]
pub(super) struct Root {
    path: Utf8PathBuf,
    directory: OwnedFd,
}

impl Root {
    /// Opens the directory that stands for a host's root: `/`, or where another system is mounted.
    pub(super) fn open(path: &Utf8Path) -> Result<Self, HostError> {
        let failed = |source| HostError::io("open", path, source);
        let real = path.canonicalize_utf8().map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => failed(error),
            _ => HostError::NoRoot(path.to_owned()),
        })?;
        if !real.is_dir() {
            return Err(HostError::NoRoot(path.to_owned()));
        }
        // It stands in files that smtpd and rspamadm are asked about: their quoting is not tried with it.
        if real != "/" && real.as_str().parse::<AbsolutePath>().is_err() {
            return Err(HostError::RootNotPlain(real));
        }
        let directory =
            rustix::fs::open(real.as_str(), DIRECTORY, Mode::empty()).map_err(|error| failed(error.into()))?;
        Ok(Self { path: real, directory })
    }

    /// Keeps other installations away until this is dropped; false if one is at work.
    pub(super) fn lock(&self) -> Result<bool, HostError> {
        match rustix::fs::flock(&self.directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(HostError::io("lock", &self.path, error.into())),
        }
    }

    /// Returns the directory, without symbolic links.
    pub(super) fn path(&self) -> &Utf8Path {
        &self.path
    }

    /// Returns where a path of the host lies for programs of this machine.
    pub(super) fn outside(&self, path: &Utf8Path) -> Utf8PathBuf {
        self.path.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Returns what is at a path.
    pub(super) fn look(&self, path: &Utf8Path) -> Result<Found, HostError> {
        self.look_within(path, MAXIMUM_SIZE)
    }

    /// Returns what is at a path; a file of more octets than that is not read, and none of ours.
    pub(super) fn look_within(&self, path: &Utf8Path, limit: u64) -> Result<Found, HostError> {
        match self.look_closely(path, limit) {
            Ok(found) => Ok(found),
            Err(Errno::NOENT) => Ok(Found::Nothing),
            Err(Errno::ACCESS | Errno::PERM) => Ok(Found::Unreadable),
            // A symbolic link, or a file in the place of a directory.
            Err(Errno::LOOP | Errno::NOTDIR | Errno::MLINK) => Ok(Found::Other),
            Err(error) => Err(HostError::io("read", &self.outside(path), error.into())),
        }
    }

    fn look_closely(&self, path: &Utf8Path, limit: u64) -> Result<Found, Errno> {
        let (parent, name) = self.parent(path)?;
        let stat = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let (owner, mode) = attributes(&stat);
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Ok(Found::Directory(owner, mode)),
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let file = rustix::fs::openat(&parent, name, flags, Mode::empty())?;
                // Asked again, of what was really opened.
                let stat = rustix::fs::fstat(&file)?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                    return Ok(Found::Other);
                }
                let (owner, mode) = attributes(&stat);
                match read(file, &stat, limit) {
                    Ok(content) => Ok(Found::File(owner, mode, content)),
                    Err(error) if error.kind() == io::ErrorKind::FileTooLarge => Ok(Found::Other),
                    Err(error) => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
                }
            }
            _ => Ok(Found::Other),
        }
    }

    /// Returns owner, mode and content of a file of so many octets at most. Links are followed as the host itself would, for ACME
    /// clients keep their newest files behind them; none leads out of the root.
    pub(super) fn read_through_links(&self, path: &Utf8Path, limit: u64) -> io::Result<(Owner, u32, Secret)> {
        let mut left: Vec<String> = parts(path);
        let mut walked = vec![self.directory.try_clone()?];
        let mut links = 0;
        while let Some(part) = left.pop() {
            let Some(here) = walked.last() else { break };
            if part == ".." {
                // Above the root is the root.
                walked.truncate(walked.len().saturating_sub(1).max(1));
                continue;
            }
            let stat = rustix::fs::statat(here, &part, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
                links += 1;
                if links > MOST_LINKS {
                    return Err(Errno::LOOP.into());
                }
                let target = rustix::fs::readlinkat(here, &part, Vec::new())?;
                let target =
                    target.to_str().map_err(|_| io::Error::other("it leads to a name that is not in UTF-8"))?;
                if target.starts_with('/') {
                    walked.truncate(1);
                }
                left.extend(parts(target.into()));
            } else if left.is_empty() {
                return open_file(here, &part, limit);
            } else {
                let directory = rustix::fs::openat(here, &part, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
                walked.push(directory);
            }
        }
        Err(Errno::ISDIR.into())
    }

    /// Makes a directory with owner and mode, or gives one that is there both.
    pub(super) fn make_directory(&self, path: &Utf8Path, owner: Owner, mode: u32) -> Result<(), HostError> {
        let failed = |error: Errno| HostError::io("make", &self.outside(path), error.into());
        let make = || {
            let (parent, name) = self.parent(path)?;
            match rustix::fs::mkdirat(&parent, name, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
            let directory = rustix::fs::openat(&parent, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
            give(&directory, owner, mode)?;
            rustix::fs::fsync(&directory)?;
            rustix::fs::fsync(&parent)
        };
        make().map_err(failed)
    }

    /// Removes a directory that was made for nothing; one that holds something stays.
    pub(super) fn remove_directory(&self, path: &Utf8Path) {
        if let Ok((parent, name)) = self.parent(path) {
            // What cannot be removed does no harm.
            let _ = rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR);
        }
    }

    /// Writes a file beside its place, complete and on the disk. It has its owner before anybody but root may read it.
    pub(super) fn stage(&self, path: &Utf8Path, content: &Secret, owner: Owner, mode: u32) -> Result<(), HostError> {
        let staged = staged_name(path);
        let write = || {
            let (parent, _) = self.parent(path)?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let create = || rustix::fs::openat(&parent, &staged, flags, Mode::RUSR | Mode::WUSR);
            // What a killed run left under our name is ours to remove.
            let file = create().or_else(|error| {
                if error != Errno::EXIST {
                    return Err(error);
                }
                rustix::fs::unlinkat(&parent, &staged, AtFlags::empty())?;
                create()
            })?;
            let mut file = File::from(file);
            file.write_all(content.expose())?;
            give(&file, owner, mode)?;
            file.sync_all()
        };
        write().map_err(|error| HostError::io("write", &self.outside(path), error))
    }

    /// Returns where the staged file lies for programs of this machine.
    pub(super) fn staged(&self, path: &Utf8Path) -> Utf8PathBuf {
        self.outside(path).with_file_name(staged_name(path))
    }

    /// Puts the staged file into its place, in one step.
    pub(super) fn switch(&self, path: &Utf8Path) -> Result<(), HostError> {
        let switch = || {
            let (parent, name) = self.parent(path)?;
            rustix::fs::renameat(&parent, staged_name(path), &parent, name)?;
            rustix::fs::fsync(&parent)
        };
        switch().map_err(|error: Errno| HostError::io("replace", &self.outside(path), error.into()))
    }

    /// Removes a file.
    pub(super) fn remove(&self, path: &Utf8Path) -> Result<(), HostError> {
        let remove = || {
            let (parent, name) = self.parent(path)?;
            rustix::fs::unlinkat(&parent, name, AtFlags::empty())?;
            rustix::fs::fsync(&parent)
        };
        remove().map_err(|error: Errno| HostError::io("remove", &self.outside(path), error.into()))
    }

    /// Removes a staged file, if it is there.
    pub(super) fn unstage(&self, path: &Utf8Path) {
        if let Ok((parent, _)) = self.parent(path) {
            // What cannot be removed is removed by the next run.
            let _ = rustix::fs::unlinkat(&parent, staged_name(path), AtFlags::empty());
        }
    }

    /// Removes what a killed run staged in a directory, for files that are no longer rendered too.
    pub(super) fn sweep(&self, directory: &Utf8Path) -> Result<(), HostError> {
        let names = self.list(directory)?;
        names.iter().filter(|name| is_staged_name(name)).try_for_each(|name| self.remove(&directory.join(name)))
    }

    /// Returns the names in a directory, sorted; none where it is missing.
    pub(super) fn list(&self, directory: &Utf8Path) -> Result<Vec<String>, HostError> {
        let list = || {
            let (parent, name) = self.parent(directory)?;
            let directory = rustix::fs::openat(&parent, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
            let mut names = Vec::new();
            for entry in rustix::fs::Dir::read_from(&directory)? {
                // A name that is not UTF-8 is none of ours.
                names.extend(
                    entry?.file_name().to_str().ok().filter(|name| ![".", ".."].contains(name)).map(str::to_owned),
                );
            }
            names.sort();
            Ok(names)
        };
        match list() {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::MLINK) => Ok(Vec::new()),
            other => other.map_err(|error: Errno| HostError::io("read", &self.outside(directory), error.into())),
        }
    }

    /// Makes a symbolic link; for our own short-lived directories only.
    pub(super) fn link(&self, target: &Utf8Path, path: &Utf8Path) -> Result<(), HostError> {
        let link = || {
            let (parent, name) = self.parent(path)?;
            rustix::fs::symlinkat(target.as_str(), &parent, name)
        };
        link().map_err(|error: Errno| HostError::io("make", &self.outside(path), error.into()))
    }

    /// Opens the directory that holds a path, from the root down.
    fn parent<'a>(&self, path: &'a Utf8Path) -> Result<(OwnedFd, &'a str), Errno> {
        let name = path.file_name().ok_or(Errno::INVAL)?;
        let above = path.parent().and_then(|parent| parent.strip_prefix("/").ok()).ok_or(Errno::INVAL)?;
        let mut directory = self.directory.try_clone().map_err(|_| Errno::MFILE)?;
        for part in above.components() {
            directory = rustix::fs::openat(&directory, part.as_str(), DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
        }
        Ok((directory, name))
    }
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// As many as Linux follows.
const MOST_LINKS: usize = 40;

/// Returns the components of a path, the last one first.
fn parts(path: &Utf8Path) -> Vec<String> {
    path.as_str().split('/').rev().filter(|part| !["", "."].contains(part)).map(str::to_owned).collect()
}

/// Opens and reads what must be a regular file. A pipe is not waited for, and of a file of any size no memory is taken.
fn open_file(directory: &OwnedFd, name: &str, limit: u64) -> io::Result<(Owner, u32, Secret)> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, name, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&file)?;
    let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || size > limit {
        return Err(io::Error::other("it is no file of a certificate's size"));
    }
    let (owner, mode) = attributes(&stat);
    Ok((owner, mode, read(file, &stat, limit)?))
}

/// The name is of one length, for a file's own name may be as long as a name can be.
fn staged_name(path: &Utf8Path) -> String {
    format!("{OURS}{}.new", Digest::of(path.file_name().unwrap_or_default().as_bytes()).short())
}

fn is_staged_name(name: &str) -> bool {
    let middle = name.strip_prefix(OURS).and_then(|name| name.strip_suffix(".new"));
    middle.is_some_and(|middle| middle.len() == 16 && middle.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn attributes(stat: &Stat) -> (Owner, u32) {
    // The width of st_mode differs between the systems.
    #[allow(clippy::unnecessary_cast, clippy::cast_lossless)]
    let mode = stat.st_mode as u32 & 0o7777;
    ((stat.st_uid, stat.st_gid), mode)
}

fn give(file: &impl std::os::fd::AsFd, (user, group): Owner, mode: u32) -> Result<(), Errno> {
    rustix::fs::fchown(file, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)))?;
    rustix::fs::fchmod(file, Mode::from_bits_truncate(mode as rustix::fs::RawMode))
}

fn read(file: OwnedFd, stat: &Stat, limit: u64) -> io::Result<Secret> {
    let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
    if size > limit {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    // One allocation of the right size: growing would leave copies of a secret behind.
    let mut content = Vec::with_capacity(usize::try_from(size).unwrap_or(0) + 1);
    File::from(file).take(limit).read_to_end(&mut content)?;
    Ok(Secret::new(content))
}
