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

/// What a site consists of, in the order in which it is moved: the first claims the place, the last makes it a site. What is
/// written by hand may be there before a new site is.
const PARTS: [&str; 10] = [
    "state",
    "bimi",
    "domains",
    "templates",
    "golden",
    "handout",
    "out",
    ".gitignore",
    "postseal.lock",
    "postseal.toml",
];
const BY_HAND: [&str; 4] = ["bimi", "domains", "templates", "golden"];

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
        let mut staged = Self::begin(target, suffix, &BY_HAND)?;
        staged.writer = Some(Writer::create(SiteDir::new(staged.stage.clone()), wait)?);
        Ok(staged)
    }

    /// Makes a site of what `fill` puts into an empty directory, for a place where no part of a site is; also returns what `fill`
    /// does.
    pub fn filled<T>(
        target: &SiteDir,
        suffix: &str,
        wait: impl FnMut(Duration),
        fill: impl FnOnce(&SiteDir) -> Result<T, StoreError>,
    ) -> Result<(Self, T), StoreError> {
        let mut staged = Self::begin(target, suffix, &[])?;
        let site = SiteDir::new(staged.stage.clone());
        files::create_dir(&site.path("state"), 0o700)?;
        let lock = SiteLock::acquire(&site.path("state"), wait)?;
        let filled = fill(&site)?;
        staged.writer = Some(Writer::of_filled(site, lock)?);
        Ok((staged, filled))
    }

    /// Begins a stage. `free` are the parts that may be there already, and stay.
    fn begin(target: &SiteDir, suffix: &str, free: &[&str]) -> Result<Self, StoreError> {
        let place = target.root();
        let around = if place.is_dir() { place } else { files::parent(place) };
        let prefix = format!(".postseal-{}.", place.file_name().unwrap_or("site"));
        finish_killed(target, &prefix)?;
        refuse_occupied(target, free)?;
        files::create_dir(around, 0o755)?;
        let stage = around.join(format!("{prefix}{suffix}.tmp"));
        // Must not exist: what somebody else made there is not ours to put keys into.
        DirBuilder::new().mode(0o755).create(&stage).map_err(while_doing("create", &stage))?;
        let staged = Self { writer: None, stage, target: target.clone() };
        sweep(around, &prefix, &staged.stage)?;
        Ok(staged)
    }

    /// Moves the finished site to its place and closes it.
    pub fn settle(mut self) -> Result<(), StoreError> {
        // What is not in the stage is not moved.
        let absent = PARTS.into_iter().filter(|part| !self.stage.join(part).exists()).collect::<Vec<_>>();
        refuse_occupied(&self.target, &absent)?;
        let Some(Writer { store, _lock: lock, .. }) = self.writer.take() else { return Ok(()) };
        // SQLite keeps paths: its files are closed before they move.
        drop(store);
        let place = self.target.root();
        if place.is_dir() {
            move_parts(&self.stage, &self.target)?;
        } else {
            move_to(&self.stage, place, &self.target)?;
        }
        drop(lock);
        files::sync_directory(files::parent(place))
    }
}

fn move_parts(stage: &Utf8Path, target: &SiteDir) -> Result<(), StoreError> {
    for part in PARTS {
        if files::exists(&stage.join(part))? {
            move_to(&stage.join(part), &target.path(part), target)?;
        }
    }
    files::sync_directory(target.root())
}

/// Another run may have been faster: a directory that holds something is never replaced.
fn move_to(from: &Utf8Path, to: &Utf8Path, target: &SiteDir) -> Result<(), StoreError> {
    fs::rename(from, to).map_err(|error| match error.kind() {
        io::ErrorKind::DirectoryNotEmpty => StoreError::HoldsSite(target.path("postseal.toml")),
        _ => while_doing("make the site", to)(error),
    })
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
        // Parts that were moved already miss what is still here; the next run brings them together.
        if is_half_moved(&self.stage).unwrap_or(true) {
            return;
        }
        // Where it cannot be removed, the next run sweeps it; a second error would hide the first.
        let _ = files::remove_dir(&self.stage);
    }
}

/// A site is made where nothing is, or in a directory that holds none of its parts.
fn refuse_occupied(target: &SiteDir, free: &[&str]) -> Result<(), StoreError> {
    let settings = target.path("postseal.toml");
    if files::exists(&settings)? || target.has_state()? {
        return Err(StoreError::HoldsSite(settings));
    }
    for part in PARTS.into_iter().filter(|part| !free.contains(part)) {
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

/// Completes a site whose parts were being moved when a run was killed: its stage has the settings, the place has the state.
/// The site is another than the one that is wanted now, so that this is told as an error.
fn finish_killed(target: &SiteDir, prefix: &str) -> Result<(), StoreError> {
    let settings = target.path("postseal.toml");
    if !target.has_state()? || files::exists(&settings)? {
        return Ok(());
    }
    for stage in stages(target.root(), prefix)? {
        if is_half_moved(&stage)? && owner(&stage) == owner(target.root()) {
            // Who still moves them holds the lock.
            let Some(held) = SiteLock::try_acquire(&target.path("state"))? else { break };
            move_parts(&stage, target)?;
            files::remove_dir(&stage)?;
            drop(held);
            return Err(StoreError::Completed(target.root().to_owned()));
        }
    }
    Ok(())
}

fn is_half_moved(stage: &Utf8Path) -> Result<bool, StoreError> {
    Ok(files::exists(&stage.join("postseal.toml"))? && !files::exists(&stage.join("state"))?)
}

/// Removes what killed runs left: stages of our own that nobody holds. The lock is held until they are gone.
fn sweep(around: &Utf8Path, prefix: &str, own: &Utf8Path) -> Result<(), StoreError> {
    for stage in stages(around, prefix)? {
        if stage == own || owner(&stage) != owner(own) {
            continue;
        }
        let state = stage.join("state");
        let lock = state.join("lock");
        if fs::symlink_metadata(&lock).is_ok_and(|metadata| metadata.is_file()) {
            if let Some(held) = SiteLock::try_acquire(&state)? {
                files::remove_dir(&stage)?;
                drop(held);
            }
        } else if is_older(&stage, own) {
            files::remove_dir(&stage)?;
        }
    }
    Ok(())
}

/// Returns the stages that any run left for a place.
fn stages(around: &Utf8Path, prefix: &str) -> Result<Vec<Utf8PathBuf>, StoreError> {
    let is_stage = |path: &Utf8Path| {
        path.file_name().is_some_and(|name| name.starts_with(prefix)) && path.extension() == Some("tmp")
    };
    let found = files::list(around)?.into_iter();
    Ok(found
        .filter(|item| item.kind == ItemKind::Directory)
        .map(|item| item.path)
        .filter(|path| is_stage(path))
        .collect())
}

fn owner(path: &Utf8Path) -> Option<u32> {
    fs::symlink_metadata(path).map(|metadata| metadata.uid()).ok()
}

/// A stage without a lock is one that is just being made, which takes no time, or dead. Both times are the file system's.
fn is_older(stage: &Utf8Path, own: &Utf8Path) -> bool {
    let changed = |path: &Utf8Path| fs::symlink_metadata(path).map(|metadata| metadata.mtime()).ok();
    changed(own).zip(changed(stage)).is_some_and(|(own, stage)| own - stage > 60)
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

    #[test]
    fn a_stage_that_was_killed_before_it_had_a_lock_is_swept_after_a_minute() {
        let (_guard, target) = place();
        let dead = files::parent(target.root()).join(".postseal-example.com.dead.tmp");
        files::create_dir(&dead, 0o755).unwrap();
        drop(stage(&target, "a").unwrap());
        assert!(files::exists(&dead).unwrap());
        let long_ago = std::time::UNIX_EPOCH + Duration::from_hours(1);
        fs::File::open(&dead).unwrap().set_modified(long_ago).unwrap();
        drop(stage(&target, "b").unwrap());
        assert!(!files::exists(&dead).unwrap());
    }

    #[test]
    fn a_site_that_fails_between_two_moves_loses_nothing() {
        let (_guard, target) = place();
        files::create_dir(target.root(), 0o755).unwrap();
        let failing = stage(&target, "a").unwrap();
        files::rename(&failing.stage.join("state"), &target.path("state")).unwrap();
        drop(failing);
        assert!(matches!(stage(&target, "b"), Err(StoreError::Completed(_))));
        assert!(files::exists(&target.path("postseal.toml")).unwrap());
    }

    #[test]
    fn a_site_whose_parts_were_being_moved_is_completed_by_the_next_run() {
        for moved in 1..PARTS.len() {
            let (_guard, target) = place();
            files::create_dir(target.root(), 0o755).unwrap();
            let mut killed = stage(&target, "a").unwrap();
            files::write_new(&killed.stage.join("out"), b"", 0o600).unwrap();
            killed.writer = None;
            for part in PARTS.iter().take(moved).filter(|part| killed.stage.join(part).exists()) {
                files::rename(&killed.stage.join(part), &target.path(part)).unwrap();
            }
            std::mem::forget(killed);
            assert!(matches!(stage(&target, "b"), Err(StoreError::Completed(_))));
            assert_eq!(names(target.root()), [".gitignore", "out", "postseal.toml", "state"]);
        }
    }
}
