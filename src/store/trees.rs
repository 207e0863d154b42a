//! Whole directories, written beside the old one and switched by rename: `out/` and `golden/`.
//!
//! The new tree is complete and on the disk before the old one is moved away, so whatever a killed run leaves, the next
//! one can tell which of the two is whole.

use std::collections::BTreeMap;
use std::fs;

use camino::{Utf8Component, Utf8Path, Utf8PathBuf};

use crate::secret::Secret;
use crate::store::files::{self, Durable, ItemKind, StoreError, while_doing};

/// Something that a written tree has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeItem {
    /// The permission bits.
    pub mode: u32,
    /// What the file holds; none is a directory.
    pub content: Option<Secret>,
}

/// A tree as it lies on the disk, by relative path; directories that hold something need not be named.
pub type TreeItems = BTreeMap<Utf8PathBuf, TreeItem>;

/// Replaces a directory as a whole. It has the mode; directories below have 0755. Returns whether anything changed.
pub(super) fn replace_tree(directory: &Utf8Path, mode: u32, items: &TreeItems) -> Result<bool, StoreError> {
    if let Some(outside) = items.keys().find(|path| !is_plain(path)) {
        return Err(StoreError::Outside(outside.clone()));
    }
    recover(directory)?;
    let there = files::exists(directory)?;
    let wanted = with_directories(items);
    let has_mode = there && has_mode(directory, mode)?;
    let before = if there { read_tree(directory)? } else { TreeItems::new() };
    if has_mode && before == wanted {
        return Ok(false);
    }
    let (new, old) = (beside(directory, "new"), beside(directory, "old"));
    files::create_dir(&new, mode)?;
    // A directory sorts before what is in it.
    for (path, item) in &wanted {
        match &item.content {
            None => files::create_dir(&new.join(path), item.mode)?,
            // What stays the same is the same file: of ten thousand zones one is written if one domain changes.
            Some(_) if before.get(path) == Some(item) && files::link(&directory.join(path), &new.join(path)) => {}
            Some(content) => files::write_staged(&new.join(path), content.expose(), item.mode, Durable::AtOnce)?,
        }
    }
    sync_below(&new, &wanted)?;
    if there {
        files::rename(directory, &old)?;
    }
    files::rename(&new, directory)?;
    files::remove_dir(&old)?;
    Ok(true)
}

/// Returns what of a directory is not as wanted: missing, different or too much; of one that has another mode, everything.
pub(super) fn differing(directory: &Utf8Path, mode: u32, items: &TreeItems) -> Result<Vec<Utf8PathBuf>, StoreError> {
    let wanted = with_directories(items);
    if !files::exists(directory)? || !has_mode(directory, mode)? {
        return Ok(wanted.into_keys().collect());
    }
    let there = read_tree(directory)?;
    let changed = wanted.iter().filter(|(path, item)| there.get(*path) != Some(item)).map(|(path, _)| path);
    let gone = there.keys().filter(|path| !wanted.contains_key(*path));
    Ok(changed.chain(gone).cloned().collect())
}

/// Brings a directory to order after a run that was killed while it replaced it.
pub(super) fn recover(directory: &Utf8Path) -> Result<(), StoreError> {
    let (new, old) = (beside(directory, "new"), beside(directory, "old"));
    if !files::exists(directory)? && files::exists(&old)? {
        // The old one is moved away only when the new one is whole.
        let whole = if files::exists(&new)? { &new } else { &old };
        files::rename(whole, directory)?;
    }
    files::remove_dir(&new)?;
    files::remove_dir(&old)
}

/// Returns everything below a directory, which may be missing; links and devices are refused.
pub(super) fn read_tree(directory: &Utf8Path) -> Result<TreeItems, StoreError> {
    let mut items = TreeItems::new();
    read_below(directory, directory, &mut items)?;
    Ok(items)
}

fn read_below(top: &Utf8Path, directory: &Utf8Path, items: &mut TreeItems) -> Result<(), StoreError> {
    for item in files::list(directory)? {
        let relative = item.path.strip_prefix(top).unwrap_or(&item.path).to_owned();
        let content = match item.kind {
            ItemKind::Directory => {
                read_below(top, &item.path, items)?;
                None
            }
            ItemKind::File => files::read(&item.path)?.map(Secret::new),
            ItemKind::Other => return Err(StoreError::NotAFile(item.path)),
        };
        items.insert(relative, TreeItem { mode: item.mode, content });
    }
    Ok(())
}

fn with_directories(items: &TreeItems) -> TreeItems {
    let mut all = TreeItems::new();
    for (path, item) in items {
        for above in path.ancestors().skip(1).filter(|above| !above.as_str().is_empty()) {
            all.entry(above.to_owned()).or_insert(TreeItem { mode: 0o755, content: None });
        }
        all.insert(path.clone(), item.clone());
    }
    all
}

fn is_plain(path: &Utf8Path) -> bool {
    !path.as_str().is_empty() && path.components().all(|part| matches!(part, Utf8Component::Normal(_)))
}

fn has_mode(directory: &Utf8Path, mode: u32) -> Result<bool, StoreError> {
    use std::os::unix::fs::PermissionsExt as _;
    let metadata = fs::symlink_metadata(directory).map_err(while_doing("read", directory))?;
    if metadata.is_dir() {
        Ok(metadata.permissions().mode() & 0o7777 == mode)
    } else {
        Err(StoreError::Exists(directory.to_owned()))
    }
}

fn sync_below(top: &Utf8Path, items: &TreeItems) -> Result<(), StoreError> {
    for (path, _) in items.iter().filter(|(_, item)| item.content.is_none()) {
        files::sync_directory(&top.join(path))?;
    }
    files::sync_directory(top)
}

/// The name keeps to the pattern `.postseal-*` of `.gitignore`.
fn beside(directory: &Utf8Path, what: &str) -> Utf8PathBuf {
    let name = directory.file_name().unwrap_or_default();
    directory.with_file_name(format!(".postseal-{name}.{what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch() -> (tempfile::TempDir, Utf8PathBuf) {
        let guard = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(guard.path().to_owned()).unwrap();
        (guard, path)
    }

    fn tree(text: &str) -> TreeItems {
        let content = Some(Secret::from(text.to_owned()));
        let file = TreeItem { mode: 0o600, content };
        let empty = TreeItem { mode: 0o755, content: None };
        [("a/b/c".into(), file.clone()), ("d".into(), file), ("e".into(), empty)].into()
    }

    fn put(directory: &Utf8Path, text: &str) {
        replace_tree(directory, 0o700, &tree(text)).unwrap();
    }

    fn holds(directory: &Utf8Path) -> Vec<u8> {
        files::read(&directory.join("a/b/c")).unwrap().unwrap()
    }

    #[test]
    fn a_tree_is_replaced_whole_and_an_equal_one_left_alone() {
        let (_guard, dir) = scratch();
        let out = dir.join("out");
        assert!(replace_tree(&out, 0o700, &tree("one")).unwrap());
        assert!(!replace_tree(&out, 0o700, &tree("one")).unwrap());
        files::write_new(&out.join("stray"), b"", 0o644).unwrap();
        assert!(replace_tree(&out, 0o700, &tree("one")).unwrap());
        assert!(replace_tree(&out, 0o700, &tree("two")).unwrap());
        assert_eq!(read_tree(&out).unwrap().len(), 5);
        assert_eq!(holds(&out), b"two");
        assert_eq!(files::list(&dir).unwrap().len(), 1);
    }

    #[test]
    fn a_file_that_stays_the_same_is_not_written_again() {
        use std::os::unix::fs::MetadataExt as _;
        let (_guard, dir) = scratch();
        let out = dir.join("out");
        put(&out, "one");
        let number = |name: &str| fs::metadata(out.join(name)).unwrap().ino();
        let before = (number("a/b/c"), number("d"));
        let mut items = tree("one");
        items.get_mut(Utf8Path::new("d")).unwrap().content = Some(Secret::from("two".to_owned()));
        assert!(replace_tree(&out, 0o700, &items).unwrap());
        assert_eq!(number("a/b/c"), before.0);
        assert_ne!(number("d"), before.1);
        // As an editor that writes in place: nobody else has the file.
        assert_eq!(fs::metadata(out.join("a/b/c")).unwrap().nlink(), 1);
    }

    #[test]
    fn a_run_killed_while_it_staged_changes_nothing() {
        let (_guard, dir) = scratch();
        let out = dir.join("out");
        put(&out, "one");
        files::create_dir(&dir.join(".postseal-out.new/half"), 0o700).unwrap();
        recover(&out).unwrap();
        assert_eq!((holds(&out), files::list(&dir).unwrap().len()), (b"one".to_vec(), 1));
    }

    #[test]
    fn a_run_killed_between_the_renames_is_completed() {
        let (_guard, dir) = scratch();
        let out = dir.join("out");
        put(&out, "one");
        fs::rename(&out, dir.join(".postseal-out.old")).unwrap();
        put(&dir.join(".postseal-out.new"), "two");
        recover(&out).unwrap();
        assert_eq!((holds(&out), files::list(&dir).unwrap().len()), (b"two".to_vec(), 1));
    }

    #[test]
    fn a_first_tree_that_was_never_whole_is_dropped() {
        let (_guard, dir) = scratch();
        files::create_dir(&dir.join(".postseal-out.new"), 0o700).unwrap();
        recover(&dir.join("out")).unwrap();
        assert!(files::list(&dir).unwrap().is_empty());
    }

    #[test]
    fn no_path_leaves_the_tree() {
        let (_guard, dir) = scratch();
        for bad in ["/etc/passwd", "../a", "a/../../b", ""] {
            let items = [(bad.into(), TreeItem { mode: 0o644, content: None })].into();
            assert!(matches!(replace_tree(&dir.join("out"), 0o700, &items), Err(StoreError::Outside(_))), "{bad}");
        }
    }

    #[test]
    fn a_link_in_place_of_the_tree_is_refused() {
        let (_guard, dir) = scratch();
        std::os::unix::fs::symlink("/tmp", dir.join("out")).unwrap();
        assert!(matches!(replace_tree(&dir.join("out"), 0o700, &tree("one")), Err(StoreError::Exists(_))));
    }
}
