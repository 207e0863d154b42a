//! A new site is made under a name of its own and moved to its place when it is whole. Whatever fails before that removes it;
//! killed half-way, it leaves only a directory `.postseal-*.tmp`, which the next run for the same place sweeps.

use std::fs::{self, DirBuilder};
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};

use crate::store::files::{self, ItemKind, StoreError, while_doing};
use crate::store::guard::SiteLock;
use crate::store::{SiteDir, Writer};

/// What a site consists of, in the order in which it is moved: the first claims the place, the last makes it a site.
const PARTS: [&str; 6] = ["state", "handout", "out", ".gitignore", "postseal.lock", "postseal.toml"];

/// A site in the making, removed when it is dropped before [`Staged::settle`].
#[derive(Debug)]
pub struct Staged {
    writer: Option<Writer>,
    stage: Utf8PathBuf,
    target: SiteDir,
}

impl Staged {
    /// Makes an empty site for a place where none is. `suffix` is random, so that no two runs share a stage.
    pub fn new(target: &SiteDir, suffix: &str, wait: impl FnMut(Duration)) -> Result<Self, StoreError> {
        refuse_occupied(target)?;
        let place = target.root();
        let around = if place.is_dir() { place } else { files::parent(place) };
        files::create_dir(around, 0o755)?;
        let prefix = format!(".postseal-{}.", place.file_name().unwrap_or("site"));
        let stage = around.join(format!("{prefix}{suffix}.tmp"));
        // Must not exist: what somebody else made there is not ours to put keys into.
        DirBuilder::new().mode(0o755).create(&stage).map_err(while_doing("create", &stage))?;
        let mut staged = Self { writer: None, stage, target: target.clone() };
        sweep(around, &prefix, &staged.stage)?;
        staged.writer = Some(Writer::create(SiteDir::new(staged.stage.clone()), wait)?);
        Ok(staged)
    }

    /// Moves the finished site to its place and closes it.
    pub fn settle(mut self) -> Result<(), StoreError> {
        refuse_occupied(&self.target)?;
        let Some(Writer { store, _lock: lock }) = self.writer.take() else { return Ok(()) };
        // SQLite keeps paths: its files are closed before they move.
        drop(store);
        let place = self.target.root();
        if place.is_dir() {
            for part in PARTS.iter().filter(|part| self.stage.join(part).exists()) {
                self.move_to(&self.stage.join(part), &self.target.path(part))?;
            }
            files::sync_directory(place)?;
        } else {
            self.move_to(&self.stage, place)?;
        }
        drop(lock);
        files::sync_directory(files::parent(place))
    }

    /// Another run may have been faster: a directory that holds something is never replaced.
    fn move_to(&self, from: &Utf8Path, to: &Utf8Path) -> Result<(), StoreError> {
        fs::rename(from, to).map_err(|error| match error.kind() {
            io::ErrorKind::DirectoryNotEmpty => StoreError::HoldsSite(self.target.path("postseal.toml")),
            _ => while_doing("make the site", to)(error),
        })
    }
}

impl Deref for Staged {
    type Target = Writer;

    #[expect(clippy::expect_used, reason = "only `settle` takes the writer, and ends the stage")]
    fn deref(&self) -> &Writer {
        self.writer.as_ref().expect("a stage has its writer until it settles")
    }
}

impl DerefMut for Staged {
    #[expect(clippy::expect_used, reason = "only `settle` takes the writer, and ends the stage")]
    fn deref_mut(&mut self) -> &mut Writer {
        self.writer.as_mut().expect("a stage has its writer until it settles")
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        self.writer = None;
        // Where it cannot be removed, the next run sweeps it; a second error would hide the first.
        let _ = files::remove_dir(&self.stage);
    }
}

/// A site is made where nothing is, or in a directory that holds none of its parts.
fn refuse_occupied(target: &SiteDir) -> Result<(), StoreError> {
    let settings = target.path("postseal.toml");
    if files::exists(&settings)? || target.has_state()? {
        return Err(StoreError::HoldsSite(settings));
    }
    for part in PARTS {
        let path = target.path(part);
        if files::exists(&path)? {
            return Err(StoreError::Occupied(path));
        }
    }
    let place = target.root();
    if files::exists(place)? && !place.is_dir() {
        return Err(StoreError::Occupied(place.to_owned()));
    }
    Ok(())
}

/// Removes what killed runs left: stages of our own that nobody holds. The lock is held until they are gone.
fn sweep(around: &Utf8Path, prefix: &str, own: &Utf8Path) -> Result<(), StoreError> {
    let owner = |path: &Utf8Path| fs::symlink_metadata(path).map(|metadata| metadata.uid()).ok();
    for item in files::list(around)? {
        let is_stage =
            item.path.file_name().is_some_and(|name| name.starts_with(prefix)) && item.path.extension() == Some("tmp");
        if !is_stage || item.kind != ItemKind::Directory || item.path == own || owner(&item.path) != owner(own) {
            continue;
        }
        let state = item.path.join("state");
        let lock = state.join("lock");
        // A stage without a lock is one that is just being made, or empty.
        if fs::symlink_metadata(&lock).is_ok_and(|metadata| metadata.is_file())
            && let Some(held) = SiteLock::try_acquire(&state)?
        {
            files::remove_dir(&item.path)?;
            drop(held);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> (tempfile::TempDir, SiteDir) {
        let guard = tempfile::tempdir().unwrap();
        let site = SiteDir::new(Utf8Path::from_path(guard.path()).unwrap().join("example.com"));
        (guard, site)
    }

    fn never(_: Duration) {
        panic!("nobody else is at work");
    }

    fn stage(target: &SiteDir, suffix: &str) -> Result<Staged, StoreError> {
        let staged = Staged::new(target, suffix, never)?;
        staged.write_settings("# settings\n")?;
        Ok(staged)
    }

    fn names(directory: &Utf8Path) -> Vec<String> {
        files::list(directory).unwrap().iter().map(|item| item.path.file_name().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_site_appears_whole_and_leaves_nothing_beside_it() {
        let (_guard, target) = place();
        let staged = stage(&target, "a").unwrap();
        assert!(!files::exists(target.root()).unwrap());
        staged.settle().unwrap();
        assert!(files::exists(&target.path("postseal.toml")).unwrap());
        assert_eq!(names(files::parent(target.root())), ["example.com"]);
    }

    #[test]
    fn a_site_that_fails_leaves_no_key_behind() {
        let (_guard, target) = place();
        drop(stage(&target, "a").unwrap());
        assert!(names(files::parent(target.root())).is_empty());
    }

    #[test]
    fn what_a_killed_run_left_is_swept() {
        let (_guard, target) = place();
        let mut killed = stage(&target, "killed").unwrap();
        killed.writer = None;
        std::mem::forget(killed);
        stage(&target, "b").unwrap().settle().unwrap();
        assert!(!names(files::parent(target.root())).iter().any(|name| name.contains("killed")));
    }

    #[test]
    fn of_two_runs_for_one_place_the_slower_is_refused_and_harms_nothing() {
        for exists in [false, true] {
            let (_guard, target) = place();
            if exists {
                files::create_dir(target.root(), 0o755).unwrap();
            }
            let (fast, slow) = (stage(&target, "a").unwrap(), stage(&target, "b").unwrap());
            fast.settle().unwrap();
            assert!(matches!(slow.settle(), Err(StoreError::HoldsSite(_))));
            assert_eq!(names(target.root()), [".gitignore", "postseal.toml", "state"]);
        }
    }

    #[test]
    fn a_directory_keeps_what_is_in_it_and_parts_of_a_site_are_not_built_over() {
        let (_guard, target) = place();
        files::create_dir(&target.path(".git"), 0o755).unwrap();
        stage(&target, "a").unwrap().settle().unwrap();
        assert_eq!(names(target.root()), [".git", ".gitignore", "postseal.toml", "state"]);
        assert!(matches!(stage(&target, "b"), Err(StoreError::HoldsSite(_))));
        let (_guard, target) = place();
        files::create_dir(&target.path("out"), 0o755).unwrap();
        assert!(matches!(stage(&target, "a"), Err(StoreError::Occupied(_))));
    }
}
