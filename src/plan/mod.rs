//! The difference between a rendered tree and what was blessed: which public files changed, came, or are gone, and why.

pub mod reason;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use camino::{Utf8Path, Utf8PathBuf};

use crate::inventory::{DkimAlgorithm, DkimState, Inventory};
use crate::names::{self, DomainName};
use crate::site::Site;
use crate::tree::{Class, Content, Tree};

/// Public files by their path below `golden/`.
pub type Files = BTreeMap<Utf8PathBuf, String>;

/// What keeps git from turning the line ends of golden files, of which some are CRLF, into its own.
pub const GIT_ATTRIBUTES: (&str, &str) = (".gitattributes", "* -text\n");

/// What became of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Rendered, not in golden.
    Added,
    /// Different.
    Changed,
    /// In golden, no longer rendered.
    Missing,
}

impl Kind {
    /// Returns the word that reports use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Changed => "changed",
            Self::Missing => "missing",
        }
    }
}

/// The difference in one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Below `golden/`.
    pub path: Utf8PathBuf,
    /// What became of it.
    pub kind: Kind,
    /// The unified diff, from golden to rendered.
    pub unified: String,
    /// The first line of golden that differs, from 1; the last one if only lines behind it were added.
    pub line: usize,
    /// Why, as far as it is known; [`reason::explain`] fills it in.
    pub reasons: Vec<String>,
}

/// The difference of two public trees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// What differs, sorted by path.
    pub changes: Vec<Change>,
    /// How many files are equal.
    pub identical: usize,
}

impl Difference {
    /// Returns the closing line: `2 changed, 1 added, 1 missing, 37 identical`.
    pub fn summary(&self) -> String {
        let count = |kind| self.changes.iter().filter(|change| change.kind == kind).count();
        let (changed, added, missing) = (count(Kind::Changed), count(Kind::Added), count(Kind::Missing));
        format!("{changed} changed, {added} added, {missing} missing, {} identical", self.identical)
    }
}

/// Returns the files that belong into `golden/`: every public text, each host's MANIFEST, which lists the private and secret
/// ones too, and what tells git to leave them alone.
pub fn public_files(tree: &Tree) -> Files {
    let public = tree.entries().iter().filter_map(|entry| match (&entry.content, entry.class) {
        (Content::Text(text), Class::Public) => Some((entry.path.clone(), text.clone())),
        _ => None,
    });
    let (attributes, text) = GIT_ATTRIBUTES;
    public.chain(tree.manifests()).chain([(attributes.into(), text.to_owned())]).collect()
}

/// Returns the DKIM keys that the settings want and nobody has made yet.
pub fn missing_keys<'a>(site: &'a Site, inventory: &Inventory) -> Vec<(&'a DomainName, DkimAlgorithm)> {
    let is_active = |domain: &DomainName, algorithm| {
        let mut keys = inventory.dkim_keys_of(domain).iter();
        keys.any(|key| key.algorithm == algorithm && key.state == DkimState::Active)
    };
    let wanted = site.domains.iter().flat_map(|domain| domain.dkim.iter().map(move |kind| (&domain.name, *kind)));
    wanted.filter(|(domain, algorithm)| !is_active(domain, *algorithm)).collect()
}

/// Tells whether a text holds a private key in PEM or a password hash, of crypt(3) or of Rspamd's controller.
pub fn holds_secret(text: &str) -> bool {
    let schemes = ["$1$", "$2$", "$2a$", "$2b$", "$2y$", "$5$", "$6$", "$7$", "$y$", "$argon2", "$scrypt$", "$pbkdf2"];
    let hash = |line: &str| schemes.iter().any(|scheme| line.contains(scheme));
    text.contains("PRIVATE KEY-----") || text.lines().any(hash)
}

/// Tells whether octets are a private key or a key store in DER: PKCS#12 (RFC 7292 §4), PKCS#8 (RFC 5958 §2), PKCS#1
/// (RFC 8017 §A.1.2) or SEC 1 (RFC 5915 §3). Each is a SEQUENCE that begins with a version and what that is followed by.
pub fn is_der_secret(octets: &[u8]) -> bool {
    let Some([0x30, length, rest @ ..]) = octets.get(..) else { return false };
    // The long form tells in its first octet how many octets of length follow.
    let skip = if *length < 0x80 { 0 } else { usize::from(length & 0x7f) };
    let begins = [[2, 1, 3, 0x30], [2, 1, 0, 0x30], [2, 1, 1, 0x30], [2, 1, 0, 2], [2, 1, 1, 4]];
    rest.get(skip..).is_some_and(|content| begins.iter().any(|begin| content.starts_with(begin)))
}

/// Compares what was blessed with what is rendered, bytewise.
pub fn difference(golden: &Files, rendered: &Files) -> Difference {
    let mut difference = Difference::default();
    let paths: BTreeSet<&Utf8PathBuf> = golden.keys().chain(rendered.keys()).collect();
    for path in paths {
        let (old, new) = (golden.get(path), rendered.get(path));
        let kind = match (old, new) {
            (None, _) => Kind::Added,
            (_, None) => Kind::Missing,
            (Some(old), Some(new)) if old == new => {
                difference.identical += 1;
                continue;
            }
            _ => Kind::Changed,
        };
        difference.changes.push(change(path, kind, old.map_or("", |text| text), new.map_or("", |text| text)));
    }
    difference
}

fn change(path: &Utf8Path, kind: Kind, old: &str, new: &str) -> Change {
    let text = similar::TextDiff::from_lines(old, new);
    // A stranger's file may have any name, one with line ends too.
    let name = names::visible(path.as_str());
    let from = if kind == Kind::Added { "/dev/null".to_owned() } else { format!("a/golden/{name}") };
    let to = if kind == Kind::Missing { "/dev/null".to_owned() } else { format!("b/rendered/{name}") };
    let mut unified = String::new();
    let body = text.unified_diff().context_radius(3).header(&from, &to).to_string();
    // Writing to a String cannot fail.
    let _ = write!(unified, "{body}");
    Change { path: path.to_owned(), kind, unified, line: first_difference(old, new), reasons: Vec::new() }
}

/// Returns the first line of the old text that differs; line ends count.
fn first_difference(old: &str, new: &str) -> usize {
    let (old, mut new) = (old.split_inclusive('\n'), new.split_inclusive('\n'));
    let lines = old.clone().count();
    let equal = old.take_while(|line| new.next() == Some(line)).count();
    (equal + 1).min(lines).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(list: &[(&str, &str)]) -> Files {
        list.iter().map(|(path, text)| (Utf8PathBuf::from(path), (*text).to_owned())).collect()
    }

    #[test]
    fn stray_missing_and_changed_files_are_all_differences() {
        let golden = files(&[("a", "1\n"), ("b", "1\n2\n"), ("c", "same\n")]);
        let rendered = files(&[("b", "1\n3\n"), ("c", "same\n"), ("d", "new\n")]);
        let difference = difference(&golden, &rendered);
        assert_eq!(difference.summary(), "1 changed, 1 added, 1 missing, 1 identical");
        let kinds: Vec<_> = difference.changes.iter().map(|change| (change.path.as_str(), change.kind)).collect();
        assert_eq!(kinds, [("a", Kind::Missing), ("b", Kind::Changed), ("d", Kind::Added)]);
        assert!(difference.changes[1].unified.contains("-2\n+3\n"));
        assert_eq!(difference.changes[1].line, 2);
    }

    #[test]
    fn secrets_are_found_and_public_keys_are_not() {
        assert!(holds_secret("-----BEGIN PRIVATE KEY-----\n"));
        assert!(holds_secret("alice@example.com:$2b$10$abc\n"));
        assert!(holds_secret("password = \"$2$abc$def\";\n"));
        assert!(!holds_secret("v=DKIM1; k=rsa; p=MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A\n-----BEGIN CERTIFICATE-----\n"));
    }

    #[test]
    fn keys_in_der_are_found_and_certificates_are_not() {
        let key = crate::keys::generate(crate::keys::KeyKind::P256).unwrap();
        assert!(is_der_secret(key.expose_pkcs8()));
        assert!(is_der_secret(&[0x30, 0x82, 9, 9, 2, 1, 3, 0x30, 0x82]));
        assert!(!is_der_secret(key.spki_der()));
        for octets in [&b""[..], b"0", b"0\x80", b"0\xff", b"text"] {
            assert!(!is_der_secret(octets), "{octets:?}");
        }
    }

    #[test]
    fn a_change_of_line_ends_alone_is_a_difference_at_its_line() {
        let difference = difference(&files(&[("a", "1\n2\r\n3\n")]), &files(&[("a", "1\n2\n3\n")]));
        let lines: Vec<_> = difference.changes.iter().map(|change| change.line).collect();
        assert_eq!(lines, [2]);
    }

    #[test]
    fn the_line_of_a_difference_is_one_that_golden_has() {
        for (old, new, line) in [("", "1\n", 1), ("1\n", "1\n2\n", 1), ("1\n2\n", "1\n", 2), ("1", "1\n", 1)] {
            assert_eq!(first_difference(old, new), line, "{old:?} {new:?}");
        }
    }

    #[test]
    fn a_file_name_with_line_ends_stays_one_line_of_the_header() {
        let difference = difference(&files(&[("a\n::error::b", "1\n")]), &Files::new());
        assert_eq!(difference.changes[0].unified.lines().next(), Some("--- a/golden/a\\n::error::b"));
    }
}
