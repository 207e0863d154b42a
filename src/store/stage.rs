//! A new site is made beside its place and moved there whole: killed half-way, it leaves nothing at that place.

use std::fs;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};

use crate::store::files::{self, StoreError, while_doing};
use crate::store::guard::SiteLock;
use crate::store::{SiteDir, Writer};

impl Writer {
    /// Makes an empty site beside the place that [`Writer::settle`] will move it to. What a killed run left there is removed.
    /// `wait` sleeps while another run makes a site for the same place.
    pub fn stage(target: &SiteDir, mut wait: impl FnMut(Duration)) -> Result<Self, StoreError> {
        refuse_occupied(target)?;
        let beside = beside(target);
        let state = beside.join("state");
        if files::exists(&state)? {
            // Only who holds the lock may sweep; whoever makes a site there holds it till the end.
            drop(SiteLock::acquire(&state, &mut wait)?);
        }
        files::remove_dir(&beside)?;
        files::create_dir(&beside, 0o755)?;
        Self::create(SiteDir::new(beside), wait)
    }

    /// Moves the finished site to its place, which holds none yet, and closes it.
    pub fn settle(self, target: &SiteDir) -> Result<(), StoreError> {
        refuse_occupied(target)?;
        let from = self.site().path("");
        let to = target.path("");
        let Self { store, _lock: lock } = self;
        // SQLite keeps paths: its files are closed before they move.
        drop(store);
        fs::rename(&from, &to).map_err(while_doing("make the site", &to))?;
        drop(lock);
        files::sync_directory(files::parent(to.as_str().trim_end_matches('/').into()))
    }
}

/// A site is made at a place where nothing is, or an empty directory.
fn refuse_occupied(target: &SiteDir) -> Result<(), StoreError> {
    let settings = target.path("postseal.toml");
    if files::exists(&settings)? || target.has_state()? {
        return Err(StoreError::HoldsSite(settings));
    }
    let place = target.path("");
    if !files::list(&place)?.is_empty() {
        return Err(StoreError::Occupied(place));
    }
    Ok(())
}

fn beside(target: &SiteDir) -> Utf8PathBuf {
    let place = target.path("");
    let place: &Utf8Path = place.as_str().trim_end_matches('/').into();
    files::parent(place).join(format!(".postseal-{}.tmp", place.file_name().unwrap_or("site")))
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

    #[test]
    fn a_site_appears_whole_or_not_at_all() {
        let (_guard, target) = place();
        let writer = Writer::stage(&target, never).unwrap();
        writer.write_settings("# settings\n").unwrap();
        assert!(!files::exists(&target.path("")).unwrap());
        writer.settle(&target).unwrap();
        assert!(files::exists(&target.path("postseal.toml")).unwrap());
        assert!(!files::exists(&beside(&target)).unwrap());
    }

    #[test]
    fn what_a_killed_run_left_is_in_nobody_s_way() {
        let (_guard, target) = place();
        drop(Writer::stage(&target, never).unwrap());
        Writer::stage(&target, never).unwrap().settle(&target).unwrap();
        assert!(files::exists(&target.path("state")).unwrap());
    }

    #[test]
    fn neither_a_site_nor_other_files_are_built_over() {
        let (_guard, target) = place();
        Writer::stage(&target, never).unwrap().settle(&target).unwrap();
        assert!(matches!(Writer::stage(&target, never), Err(StoreError::HoldsSite(_))));
        let (_guard, target) = place();
        files::create_dir(&target.path(""), 0o755).unwrap();
        files::write_new(&target.path("notes"), b"", 0o644).unwrap();
        assert!(matches!(Writer::stage(&target, never), Err(StoreError::Occupied(_))));
    }
}
