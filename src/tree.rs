//! A rendered tree: the files of every host and zone, with owner, mode, class and content.

use std::fmt;

use camino::Utf8PathBuf;

use crate::names::Digest;
use crate::secret::Secret;

/// Who may see a file's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Goes to golden and may be printed.
    Public,
    /// Names users: rendered, never golden.
    Private,
    /// Never printed, never golden: path and "differs" only.
    Secret,
}

impl Class {
    /// Returns the class as MANIFEST writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Private => "private",
            Self::Secret => "secret",
        }
    }
}

/// Something that only the store holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// The table of logins and password hashes.
    Credentials,
    /// A private key below `state/keys`.
    Key(Digest),
    /// The twins that daemons trust.
    TrustList,
}

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A directory: nothing by itself.
    Directory,
    /// Text that is known here.
    Text(String),
    /// A reference, resolved only when files are written. The digest is unknown where there is no ledger (CI).
    Stored(Stored, Option<Digest>),
}

/// One file or directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Below `out/` and `golden/`: `HOST/root/etc/smtpd.conf`, `dns/example.com.zone`.
    pub path: Utf8PathBuf,
    /// The owner on the host.
    pub owner: String,
    /// The group on the host.
    pub group: String,
    /// The permission bits.
    pub mode: u32,
    /// Who may see it.
    pub class: Class,
    /// What it holds.
    pub content: Content,
}

impl fmt::Display for Entry {
    /// Writes the entry's line of MANIFEST: path, owner, group, mode, class.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = if self.content == Content::Directory { "/" } else { "" };
        let Self { path, owner, group, mode, class, .. } = self;
        write!(f, "{path}{slash} {owner} {group} {mode:04o} {}", class.as_str())
    }
}

/// A whole rendered tree, sorted by path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    entries: Vec<Entry>,
}

impl Tree {
    /// Sorts the entries by path.
    pub fn new(mut entries: Vec<Entry>) -> Self {
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Self { entries }
    }

    /// Returns the entries, sorted by path.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Returns MANIFEST: a line for every entry.
    pub fn manifest(&self) -> String {
        let mut text = String::from("# path owner group mode class\n");
        for entry in &self.entries {
            text.push_str(&entry.to_string());
            text.push('\n');
        }
        text
    }
}

/// Resolves what only the store holds.
pub trait Resolve {
    /// Why something could not be resolved.
    type Error;

    /// Returns the bytes behind a reference.
    fn resolve(&self, stored: &Stored) -> Result<Secret, Self::Error>;
}
