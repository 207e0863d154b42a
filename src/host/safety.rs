//! What root takes its orders from must be in nobody else's hands.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;

use camino::{Utf8Path, Utf8PathBuf};

use crate::host::HostError;

/// Looks, as root, for something that tells what to install and that others can write: the site's settings and templates, its
/// ledger and keys, and every directory above. Returns the first with the reason.
///
/// Root and whoever became root by sudo (`sudo_user`) are trusted, as git trusts them with a repository. Of a symbolic link the
/// owner counts, the directory that it stands in, and where it leads: else it could lead elsewhere once this was looked at.
pub fn refuse_writable_by_others(site: &Utf8Path, sudo_user: Option<u32>) -> Result<OfOthers, HostError> {
    let failed = |source| HostError::io("open", site, source);
    site.canonicalize_utf8().map_err(failed)?;
    let site = std::path::absolute(site).map_err(failed)?;
    let site = Utf8PathBuf::from_path_buf(site).unwrap_or_else(|path| path.to_string_lossy().into_owned().into());
    let mut judge = Judge { sudo_user, seen: BTreeSet::new() };
    if let Some(found) = judge.way(&site, false)? {
        return Ok(Some(found));
    }
    let orders = ["postseal.toml", "postseal.lock", "domains", "templates", "state"];
    let mut left: Vec<Utf8PathBuf> = orders.iter().map(|name| site.join(name)).collect();
    while let Some(path) = left.pop() {
        if !path.exists() {
            continue;
        }
        let found = if path.is_symlink() { judge.way(&path, false)? } else { judge.one(&path, false)? };
        if found.is_some() {
            return Ok(found);
        }
        // Further below no link to a directory is followed by what reads them.
        if path.is_dir() && (!path.is_symlink() || path.parent() == Some(&site)) {
            let failed = |source| HostError::io("read", &path, source);
            for entry in path.read_dir_utf8().map_err(failed)? {
                left.push(entry.map_err(failed)?.into_path());
            }
        }
    }
    Ok(None)
}

/// Somebody else's thing, and what makes it that.
type OfOthers = Option<(Utf8PathBuf, String)>;

struct Judge {
    sudo_user: Option<u32>,
    /// The links that were followed: some lead to each other.
    seen: BTreeSet<Utf8PathBuf>,
}

impl Judge {
    /// Judges an absolute path with every directory on the way to it, through its links.
    fn way(&mut self, path: &Utf8Path, is_above: bool) -> Result<OfOthers, HostError> {
        let mut above: Vec<&Utf8Path> = path.ancestors().collect();
        above.reverse();
        for one in above {
            if let Some(found) = self.one(one, is_above || one != path)? {
                return Ok(Some(found));
            }
            if one.is_symlink() && self.seen.insert(one.to_owned()) {
                let target = one.read_link_utf8().map_err(|source| HostError::io("read", one, source))?;
                let target = one.parent().unwrap_or(one).join(target);
                if let Some(found) = self.way(&target, is_above || one != path)? {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    fn one(&self, path: &Utf8Path, is_above: bool) -> Result<OfOthers, HostError> {
        let metadata = fs::symlink_metadata(path).map_err(|source| HostError::io("read", path, source))?;
        // A link's own mode says nothing.
        let mode = if metadata.is_symlink() { 0 } else { metadata.mode() };
        Ok(reason(metadata.uid(), mode, is_above, self.sudo_user).map(|reason| (path.to_owned(), reason)))
    }
}

fn reason(owner: u32, mode: u32, is_above: bool, sudo_user: Option<u32>) -> Option<String> {
    if owner != 0 && Some(owner) != sudo_user {
        return Some(format!("belongs to the user {owner}"));
    }
    // In a directory like /tmp everybody may write, and nobody may move what belongs to others. In the site itself they could
    // add a template.
    let sticky = is_above && mode & 0o1000 != 0;
    (mode & 0o022 != 0 && !sticky).then(|| format!("has mode {:04o}", mode & 0o7777))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_and_who_became_root_are_trusted() {
        assert_eq!(reason(0, 0o100_644, false, None), None);
        assert_eq!(reason(1000, 0o100_644, false, Some(1000)), None);
        assert_eq!(reason(1000, 0o100_644, false, Some(1001)), Some("belongs to the user 1000".into()));
        assert_eq!(reason(0, 0o100_664, false, None), Some("has mode 0664".into()));
        assert_eq!(reason(0, 0o040_757, true, None), Some("has mode 0757".into()));
        assert_eq!(reason(0, 0o041_777, true, None), None);
        assert_eq!(reason(0, 0o101_666, false, None), Some("has mode 1666".into()));
    }
}
