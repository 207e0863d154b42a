//! The part of a site's directory that is written by hand or committed: settings, templates, `postseal.lock`, `golden/`.
//! It is all there is in CI, and reading it needs no ledger.

use std::collections::BTreeMap;
use std::sync::Arc;

use camino::{Utf8Path, Utf8PathBuf};

use crate::diag::{Diagnostic, Place, Source};
use crate::inventory::Inventory;
use crate::store::files::{self, ItemKind, StoreError};
use crate::store::lock;
use crate::store::trees::{self, TreeItem, TreeItems};

/// A site's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteDir {
    root: Utf8PathBuf,
}

impl SiteDir {
    /// Names a directory, which need not exist.
    pub fn new(root: impl Into<Utf8PathBuf>) -> Self {
        let root = root.into();
        Self { root: if root.as_str().is_empty() { ".".into() } else { root } }
    }

    /// Returns the directory's own path.
    pub fn root(&self) -> &Utf8Path {
        &self.root
    }

    /// Returns the path of something in the directory, as the user would write it.
    pub fn path(&self, name: impl AsRef<Utf8Path>) -> Utf8PathBuf {
        if self.root == "." { name.as_ref().to_owned() } else { self.root.join(name) }
    }

    /// Tells whether the site's secrets and ledger are here too.
    pub fn has_state(&self) -> Result<bool, StoreError> {
        files::exists(&self.path("state"))
    }

    /// Returns `postseal.toml` and `domains/*.toml`, sorted by name.
    pub fn settings(&self) -> Result<Vec<Source>, StoreError> {
        let main = self.path("postseal.toml");
        let mut sources = vec![source(main.clone())?.ok_or(StoreError::NoState(main))?];
        for item in files::list(&self.path("domains"))? {
            if item.path.extension() == Some("toml") && item.kind != ItemKind::Directory {
                sources.extend(source(item.path)?);
            }
        }
        Ok(sources)
    }

    /// Returns the templates that stand in for built-in ones, each with its path below `templates/`, sorted by that.
    pub fn templates(&self) -> Result<Vec<(Utf8PathBuf, Source)>, StoreError> {
        let top = self.path("templates");
        let mut found = Vec::new();
        let mut left = vec![top.clone()];
        while let Some(directory) = left.pop() {
            for item in files::list(&directory)? {
                // An editor's own files are no templates.
                if item.path.file_name().is_some_and(|name| name.starts_with('.') || name.ends_with('~')) {
                    continue;
                }
                if item.kind == ItemKind::Directory {
                    left.push(item.path);
                } else if item.kind == ItemKind::Other {
                    // A link could lead to a secret.
                    return Err(StoreError::NotAFile(item.path));
                } else {
                    let name = item.path.strip_prefix(&top).unwrap_or(&item.path).to_owned();
                    found.extend(source(item.path)?.map(|source| (name, source)));
                }
            }
        }
        found.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(found)
    }

    /// Returns what a file in `bimi/` holds, or none if it is missing; what is no file, as a link, is refused, and so are more than
    /// `most` octets.
    pub fn bimi(&self, name: &str, most: usize) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.path("bimi").join(name);
        for part in [self.path("bimi"), path.clone()] {
            // A link could lead to a secret, and what lies here is published.
            if files::kind(&part)? == Some(ItemKind::Other) {
                return Err(StoreError::NotAFile(part));
            }
        }
        Ok(files::read_given_file(&path, most)?.map(|(content, _)| content.expose().to_vec()))
    }

    /// Returns the text of `postseal.lock`, if there is one.
    pub fn lock(&self) -> Result<Option<Source>, StoreError> {
        source(self.path("postseal.lock"))
    }

    /// Returns the inventory that `postseal.lock` tells of, if there is one.
    pub fn locked_inventory(&self) -> Result<Option<Inventory>, StoreError> {
        let Some(source) = self.lock()? else { return Ok(None) };
        lock::read(&source.text, &source.path).map(Some).map_err(StoreError::Text)
    }

    /// Returns `golden/` as it lies on the disk, or none before the first `bless`.
    pub fn golden(&self) -> Result<Option<TreeItems>, StoreError> {
        let directory = self.path("golden");
        match files::kind(&directory)? {
            None => Ok(None),
            Some(ItemKind::Directory) => trees::read_tree(&directory).map(Some),
            // Where a link leads is none of the site's business: it could be a place that holds secrets.
            Some(_) => Err(StoreError::NotAFile(directory)),
        }
    }

    /// Replaces `golden/` by other files. Returns whether anything changed.
    pub fn write_golden(&self, files: &BTreeMap<Utf8PathBuf, String>) -> Result<bool, StoreError> {
        let item = |text: &str| TreeItem { mode: 0o644, content: Some(text.to_owned().into()) };
        let items: TreeItems = files.iter().map(|(path, text)| (path.clone(), item(text))).collect();
        trees::replace_tree(&self.path("golden"), 0o755, &items)
    }
}

fn source(path: Utf8PathBuf) -> Result<Option<Source>, StoreError> {
    let Some(bytes) = files::read(&path)? else { return Ok(None) };
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some(Source { path, text })),
        Err(wrong) => Err(StoreError::Text(Box::new(not_utf8(path, &wrong)))),
    }
}

fn not_utf8(path: Utf8PathBuf, wrong: &std::string::FromUtf8Error) -> Diagnostic {
    // Up to the first bad byte, the text that is shown has the same bytes.
    let start = wrong.utf8_error().valid_up_to();
    let text = String::from_utf8_lossy(wrong.as_bytes()).into_owned();
    let message = format!("`{path}` is not in UTF-8");
    let source = Arc::new(Source { path, text });
    Diagnostic::error("not-utf8", message, "save the file in UTF-8").at(Place { source, span: start..start }, "here")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(entries: &[(&str, &[u8])]) -> (tempfile::TempDir, SiteDir) {
        let guard = tempfile::tempdir().unwrap();
        let site = SiteDir::new(Utf8Path::from_path(guard.path()).unwrap());
        for (name, bytes) in entries {
            files::create_dir(files::parent(&site.path(name)), 0o755).unwrap();
            files::write_new(&site.path(name), bytes, 0o644).unwrap();
        }
        (guard, site)
    }

    #[test]
    fn settings_come_in_one_order_and_only_from_toml_files() {
        let (_guard, site) = site(&[
            ("domains/b.org.toml", b"b"),
            ("domains/a.org.toml", b"a"),
            ("domains/a.org~", b""),
            ("postseal.toml", b"x"),
        ]);
        let texts: Vec<String> = site.settings().unwrap().into_iter().map(|source| source.text).collect();
        assert_eq!(texts, ["x", "a", "b"]);
    }

    #[test]
    fn text_that_is_not_utf8_is_refused_at_its_place() {
        let (_guard, site) = site(&[("postseal.toml", b"a = 1\nb = \"\xff\"\n")]);
        let Err(StoreError::Text(wrong)) = site.settings() else { panic!("accepted") };
        assert_eq!((wrong.code, wrong.place.unwrap().line_column()), ("not-utf8", (2, 6)));
    }

    #[test]
    fn templates_are_named_by_their_path_below_the_directory() {
        let (_guard, site) =
            site(&[("templates/host/etc/smtpd.conf", b"s"), ("templates/a", b""), ("templates/.a.swp", b"")]);
        let names: Vec<Utf8PathBuf> = site.templates().unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["a", "host/etc/smtpd.conf"]);
    }

    #[test]
    fn paths_in_the_current_directory_are_plain() {
        assert_eq!(SiteDir::new(".").path("postseal.toml"), "postseal.toml");
        assert_eq!(SiteDir::new("").root(), ".");
        assert_eq!(SiteDir::new("../x").path("postseal.toml"), "../x/postseal.toml");
    }
}
