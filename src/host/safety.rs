//! What root takes its orders from must be in nobody else's hands.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use camino::{Utf8Path, Utf8PathBuf};

use crate::host::HostError;

/// Looks, as root, for something that tells what to install and that others can write: the site's settings and templates, its
/// ledger and keys, and every directory above. Returns the first with the reason.
///
/// Root and whoever became root by sudo (`sudo_user`) are trusted, as git trusts them with a repository.
pub fn refuse_writable_by_others(
    site: &Utf8Path,
    sudo_user: Option<u32>,
) -> Result<Option<(Utf8PathBuf, String)>, HostError> {
    let real = site.canonicalize_utf8().map_err(|source| HostError::io("open", site, source))?;
    let judge = |path: &Utf8Path, is_above: bool| -> Result<Option<(Utf8PathBuf, String)>, HostError> {
        let metadata = fs::symlink_metadata(path).map_err(|source| HostError::io("read", path, source))?;
        let reason = reason(metadata.uid(), metadata.mode(), is_above, sudo_user);
        Ok(reason.map(|reason| (path.to_owned(), reason)))
    };
    for above in real.ancestors() {
        if let Some(found) = judge(above, *above != *real)? {
            return Ok(Some(found));
        }
    }
    let orders = ["postseal.toml", "postseal.lock", "domains", "templates", "state"];
    let mut left: Vec<Utf8PathBuf> = orders.iter().map(|name| real.join(name)).collect();
    while let Some(path) = left.pop() {
        if !path.exists() {
            continue;
        }
        if let Some(found) = judge(&path, false)? {
            return Ok(Some(found));
        }
        if path.is_dir() && !path.is_symlink() {
            let failed = |source| HostError::io("read", &path, source);
            for entry in path.read_dir_utf8().map_err(failed)? {
                left.push(entry.map_err(failed)?.into_path());
            }
        }
    }
    Ok(None)
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
