//! A rendered tree: the files of every host and zone, with owner, mode, class and content.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use camino::{Utf8Path, Utf8PathBuf};

use crate::names::Digest;
use crate::platform::WebServer;
use crate::secret::Secret;

/// The name of the list of owners and modes of a host, in `out/HOST/` and `golden/HOST/`.
pub const MANIFEST: &str = "MANIFEST";

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
    /// What the issuing CAs for all clients revoked.
    Crls,
    /// A private key below `state/keys`.
    Key(Digest),
    /// The twins that daemons trust.
    TrustList,
    /// Those twins, followed by the CRLs: Dovecot 2.3 reads both from one file.
    TwinsAndCrls,
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

/// Who reads a file, and when. The order is that of an installation: whatever it is interrupted after, each daemon finds
/// what its configuration names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// OpenSMTPD's certificate or its key, under a name that is never used again: nothing reads it before a configuration names
    /// it.
    Certificate,
    /// A key that Rspamd signs with, under a name that is never used again.
    DkimKey,
    /// Which of them signs; Rspamd watches it, and takes over whatever stands in its place.
    DkimMap,
    /// Whom OpenSMTPD admits; read at its start.
    TrustList,
    /// What Dovecot and web servers read: whom to admit, and what was revoked. OpenSMTPD reads no CRL.
    Crls,
    /// A table of OpenSMTPD's; read at its start, and anew at `smtpctl update table`.
    Table,
    /// Rspamd's configuration; read at its start.
    Rspamd,
    /// OpenSMTPD's configuration; read at its start.
    Smtpd,
    /// What a web server hands out: it reads the file at each request.
    WebFile,
    /// A web server's configuration; read anew at a reload.
    WebConf(WebServer),
    /// A zone: it is published, on no host of the site.
    Zone,
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
    /// Who reads it.
    pub part: Part,
    /// What it holds.
    pub content: Content,
}

impl Entry {
    /// Splits the path into the host and the absolute path there; a zone belongs to no host.
    pub fn on_host(&self) -> Option<(&str, &str)> {
        let (host, path) = self.path.as_str().split_once("/root/")?;
        // The slash before the path on the host is the last one of `/root/`.
        Some((host, self.path.as_str().get(self.path.as_str().len() - path.len() - 1..)?))
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

    /// Returns `HOST/MANIFEST` for each host: path on the host, owner, group, mode and class of every file and directory.
    pub fn manifests(&self) -> BTreeMap<Utf8PathBuf, String> {
        let mut manifests = BTreeMap::new();
        for entry in &self.entries {
            let Some((host, path)) = entry.on_host() else { continue };
            let text = manifests
                .entry(Utf8Path::new(host).join(MANIFEST))
                .or_insert_with(|| String::from("# path owner group mode class\n"));
            let slash = if entry.content == Content::Directory { "/" } else { "" };
            let Entry { owner, group, mode, class, .. } = entry;
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{path}{slash} {owner} {group} {mode:04o} {}", class.as_str());
        }
        manifests
    }
}

/// Resolves what only the store holds.
pub trait Resolve {
    /// Why something could not be resolved.
    type Error;

    /// Returns the bytes behind a reference.
    fn resolve(&self, stored: &Stored) -> Result<Secret, Self::Error>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_lists_a_host_s_files_by_their_path_there() {
        let entry = |path: &str, content| Entry {
            path: path.into(),
            owner: "root".into(),
            group: "wheel".into(),
            mode: 0o644,
            class: Class::Public,
            part: Part::Smtpd,
            content,
        };
        let tree = Tree::new(vec![
            entry("mx.example.com/root/etc/mail", Content::Directory),
            entry("dns/example.com.zone", Content::Text(String::new())),
            entry("mx.example.com/root/etc/mail/smtpd.conf", Content::Text(String::new())),
        ]);
        let manifests: Vec<_> = tree.manifests().into_iter().collect();
        let text = "# path owner group mode class\n/etc/mail/ root wheel 0644 public\n/etc/mail/smtpd.conf root wheel 0644 public\n";
        assert_eq!(manifests, [("mx.example.com/MANIFEST".into(), text.to_owned())]);
    }
}
