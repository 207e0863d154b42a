//! The files that mail lies in: single ones, directories, Maildirs. Nothing is written, moved or marked as read.

use std::fs::{self, File};
use std::io::{self, Read as _};

use camino::{Utf8Path, Utf8PathBuf};

use super::files::{self, ItemKind, StoreError, while_doing};

/// Returns the file, or the files in the directory, sorted; none if it is missing. Of a Maildir it is the mail in `cur` and `new`,
/// and in its folders, which are Maildirs too; another directory is not searched below. Links and hidden files are left out.
pub fn files_of(path: &Utf8Path) -> Result<Option<Vec<Utf8PathBuf>>, StoreError> {
    let metadata = match fs::metadata(path) {
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(None),
        result => result.map_err(while_doing("read", path))?,
    };
    let mut found = Vec::new();
    if metadata.is_dir() {
        add(path, Within::Named, &mut found)?;
    } else {
        found.push(path.to_owned());
    }
    Ok(Some(found))
}

/// What a directory is looked into for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    /// It was named.
    Named,
    /// It is `cur` or `new`, whose files are mail.
    Mail,
    /// It lies in a Maildir, and counts if it is one.
    Folder,
}

fn add(directory: &Utf8Path, within: Within, found: &mut Vec<Utf8PathBuf>) -> Result<(), StoreError> {
    let items = files::list(directory)?;
    let has = |name| items.iter().any(|item| is_named(&item.path, name) && item.kind == ItemKind::Directory);
    let is_maildir = within != Within::Mail && has("cur") && has("new");
    for item in &items {
        let is_hidden = item.path.file_name().is_some_and(|name| name.starts_with('.'));
        let holds_mail = is_named(&item.path, "cur") || is_named(&item.path, "new");
        match item.kind {
            ItemKind::Directory if is_maildir => {
                add(&item.path, if holds_mail { Within::Mail } else { Within::Folder }, found)?;
            }
            ItemKind::File if !is_maildir && !is_hidden && within != Within::Folder => found.push(item.path.clone()),
            _ => {}
        }
    }
    Ok(())
}

fn is_named(path: &Utf8Path, name: &str) -> bool {
    path.file_name() == Some(name)
}

/// Returns what a file holds, at most so many octets, or none if it is missing, as a mail that was moved from `new` to `cur`.
pub fn read(path: &Utf8Path, most: usize) -> Result<Option<Vec<u8>>, StoreError> {
    let doing = while_doing("read", path);
    let file = match File::open(path) {
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(None),
        result => result.map_err(&doing)?,
    };
    let mut bytes = Vec::new();
    file.take(most as u64).read_to_end(&mut bytes).map_err(&doing)?;
    Ok(Some(bytes))
}
