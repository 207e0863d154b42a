//! One writer at a time: an advisory lock on `state/lock`, which the system drops when its holder ends, killed or not.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::time::Duration;

use camino::Utf8Path;

use crate::store::files::{StoreError, while_doing};

/// The right to write to a site, held until it is dropped. Readers need none.
#[derive(Debug)]
pub(super) struct SiteLock {
    _file: File,
}

const PAUSE: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_mins(1);

impl SiteLock {
    /// Takes the lock in a state directory, waiting up to a minute for another run; `wait` sleeps for the time given.
    pub(super) fn acquire(state: &Utf8Path, mut wait: impl FnMut(Duration)) -> Result<Self, StoreError> {
        let path = state.join("lock");
        let doing = while_doing("lock", &path);
        let file = open(&path)?;
        let mut waited = Duration::ZERO;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::Error(source)) => return Err(doing(source)),
                Err(TryLockError::WouldBlock) if waited >= PATIENCE => return Err(StoreError::Busy(path.clone())),
                Err(TryLockError::WouldBlock) => wait(PAUSE),
            }
            waited += PAUSE;
        }
    }

    /// Takes the lock in a state directory if nobody holds it.
    pub(super) fn try_acquire(state: &Utf8Path) -> Result<Option<Self>, StoreError> {
        let path = state.join("lock");
        let file = open(&path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(while_doing("lock", &path)(source)),
        }
    }
}

/// Never truncated, never removed: who waits must hold the same file. A link is refused, for it would be made elsewhere.
fn open(path: &Utf8Path) -> Result<File, StoreError> {
    let doing = while_doing("lock", path);
    loop {
        let Some(there) = look_at(path).map_err(&doing)? else {
            // Where a link was put meanwhile, this fails.
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
                Err(taken) if taken.kind() == io::ErrorKind::AlreadyExists => continue,
                result => return result.map_err(&doing),
            }
        };
        if !there.is_file() {
            return Err(StoreError::NotAFile(path.to_owned()));
        }
        let file = OpenOptions::new().write(true).open(path).map_err(&doing)?;
        let opened = file.metadata().map_err(&doing)?;
        if (opened.dev(), opened.ino()) == (there.dev(), there.ino()) {
            return Ok(file);
        }
    }
}

fn look_at(path: &Utf8Path) -> io::Result<Option<fs::Metadata>> {
    match fs::symlink_metadata(path) {
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_writer_waits_a_minute_and_is_told_what_to_do() {
        let guard = tempfile::tempdir().unwrap();
        let state = Utf8Path::from_path(guard.path()).unwrap();
        let held = SiteLock::acquire(state, |_| panic!("nobody holds it")).unwrap();
        let mut slept = Duration::ZERO;
        let error = SiteLock::acquire(state, |pause| slept += pause).unwrap_err();
        assert_eq!(slept, Duration::from_mins(1));
        assert!(error.to_string().ends_with("let it finish, or end it, and run the command again"));
        drop(held);
        assert!(SiteLock::acquire(state, |_| panic!("nobody holds it")).is_ok());
    }

    #[test]
    fn a_link_in_place_of_the_lock_is_refused() {
        let guard = tempfile::tempdir().unwrap();
        let state = Utf8Path::from_path(guard.path()).unwrap();
        std::os::unix::fs::symlink(state.join("elsewhere"), state.join("lock")).unwrap();
        assert!(matches!(SiteLock::acquire(state, |_| ()), Err(StoreError::NotAFile(_))));
        assert!(!state.join("elsewhere").exists());
    }
}
