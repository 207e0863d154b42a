//! A site's directory on disk: what is read by everyone, and what one writer at a time may write.
//!
//! Order keeps it safe: files first, under names that nothing refers to yet; the ledger's commit last; `postseal.lock` and
//! `out/` are derived and made anew by the next command. Time and randomness are given to this module.

mod archive;
pub mod backup;
pub mod files;
mod fsck;
mod guard;
mod handout;
mod incoming;
mod installs;
mod keys;
pub mod ledger;
pub mod lock;
pub mod mails;
mod site_dir;
mod stage;
mod sweep;
mod trees;

use std::fs;
use std::io;
use std::ops::Deref;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};

use crate::inventory::Inventory;
use crate::names::Digest;
use crate::secret::Secret;
use crate::tree::{Class, Content, Entry, Resolve, Stored, Tree};

pub use self::archive::Archive;
use self::files::Depth;
pub use self::files::StoreError;
pub use self::fsck::{Checked, Finding, Weight};
use self::guard::SiteLock;
pub use self::handout::{Lying, Waiting, is_waiting};
pub use self::incoming::{Handout, Incoming};
pub use self::keys::{KeyPlace, Passphrase, SITE_CA, bundle_names, chain_name};
use self::ledger::{Ledger, LedgerError, Transaction};
pub use self::site_dir::SiteDir;
pub use self::stage::Staged;
pub use self::trees::{TreeItem, TreeItems};

/// A site with its ledger and keys, for reading.
#[derive(Debug)]
pub struct Store {
    site: SiteDir,
    ledger: Ledger,
}

impl Store {
    /// Opens the site in a directory, which may be one that cannot be written.
    pub fn open(site: SiteDir) -> Result<Self, StoreError> {
        Self::open_with(site, Ledger::open_for_reading)
    }

    fn open_with(site: SiteDir, open: fn(&Utf8Path) -> Result<Ledger, LedgerError>) -> Result<Self, StoreError> {
        let path = checked_state(&site)?.join("ledger.sqlite");
        if !files::exists(&path)? {
            return Err(StoreError::LedgerLost(path));
        }
        // SQLite would write through a link.
        files::refuse_other_than_file(&path)?;
        let store = Self { ledger: open(&path)?, site };
        // What a full disk or a bad restore leaves looks like a new site; to go on would make other keys under old names.
        if files::exists(&store.site.path("postseal.lock"))? && store.ledger.is_empty()? {
            return Err(StoreError::LedgerLost(path));
        }
        Ok(store)
    }

    /// Returns the directory.
    pub fn site(&self) -> &SiteDir {
        &self.site
    }

    /// Returns the ledger, for reading.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Returns all that rendering needs.
    pub fn inventory(&self) -> Result<Inventory, StoreError> {
        Ok(self.ledger.inventory()?)
    }

    /// Tells whether `postseal.lock` says something else than the ledger, or is missing.
    pub fn lock_is_stale(&self) -> Result<bool, StoreError> {
        let wanted = lock::write(&self.inventory()?);
        // Compared as bytes: a lock that is not even text is stale, too.
        Ok(files::read(&self.site.path("postseal.lock"))?.is_none_or(|text| text != wanted.as_bytes()))
    }

    /// Keeps writers away while two things are compared, for as long as the result lives; where nobody can write, none is kept.
    pub fn quiet(site: &SiteDir, wait: impl FnMut(Duration)) -> Result<Quiet, StoreError> {
        let state = checked_state(site)?;
        match SiteLock::acquire(&state, wait) {
            Ok(lock) => Ok(Quiet { _lock: Some(lock) }),
            Err(StoreError::Io { source, .. }) if is_unwritable(source.kind()) => Ok(Quiet { _lock: None }),
            Err(error) => Err(error),
        }
    }

    /// Returns the paths of `out/` that are not as in the tree, be they missing, different or no longer wanted.
    pub fn stale_out(&self, tree: &Tree) -> Result<Vec<Utf8PathBuf>, StoreError> {
        trees::differing(&self.site.path("out"), OUT_MODE, &self.out_items(tree)?)
    }

    fn out_items(&self, tree: &Tree) -> Result<TreeItems, StoreError> {
        let items = tree.entries().iter().map(|entry| Ok((entry.path.clone(), self.out_item(entry)?)));
        let mut items = items.collect::<Result<TreeItems, StoreError>>()?;
        let manifest = |text: String| TreeItem { mode: 0o644, content: Some(text.into()) };
        items.extend(tree.manifests().into_iter().map(|(path, text)| (path, manifest(text))));
        Ok(items)
    }

    fn out_item(&self, entry: &Entry) -> Result<TreeItem, StoreError> {
        let content = match &entry.content {
            Content::Directory => return Ok(TreeItem { mode: 0o755, content: None }),
            Content::Stored(stored, rendered) => {
                let content = self.resolve(stored)?;
                if rendered.is_some_and(|digest| digest != Digest::of(content.expose())) {
                    return Err(StoreError::Stale(entry.path.clone()));
                }
                content
            }
            Content::Text(text) => text.clone().into(),
        };
        let mode = if entry.class == Class::Public { 0o644 } else { 0o600 };
        Ok(TreeItem { mode, content: Some(content) })
    }

    fn state(&self) -> Utf8PathBuf {
        self.site.path("state")
    }
}

impl Resolve for Store {
    type Error = StoreError;

    fn resolve(&self, stored: &Stored) -> Result<Secret, StoreError> {
        match stored {
            Stored::Credentials => Ok(self.ledger.credentials()?),
            Stored::Key(digest) => self.key(digest),
            Stored::Crls => Ok(self.ledger.crls()?.into()),
            Stored::TrustList => Ok(self.ledger.trust_list()?.into()),
            Stored::TwinsAndCrls => Ok(self.ledger.twins_and_crls()?.into()),
        }
    }
}

/// Keeps writers away until it is dropped.
#[derive(Debug)]
pub struct Quiet {
    _lock: Option<SiteLock>,
}

fn is_unwritable(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

/// A site with its ledger and keys, for writing; holds the site's lock until it is dropped.
#[derive(Debug)]
pub struct Writer {
    store: Store,
    set_aside: Vec<Utf8PathBuf>,
    _lock: SiteLock,
}

/// A writer can do all that a reader can.
impl Deref for Writer {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.store
    }
}

/// The files below name people and hold keys.
const OUT_MODE: u32 = 0o700;

/// What git must never see; the last line covers what a killed run leaves beside `out/` and `golden/`.
const IGNORED: [&str; 4] = ["/state/", "/handout/", "/out/", ".postseal-*"];

impl Writer {
    /// Makes an empty site in a directory that holds none. `wait` sleeps while another run holds the lock.
    pub fn create(site: SiteDir, wait: impl FnMut(Duration)) -> Result<Self, StoreError> {
        refuse_site(&site)?;
        files::create_dir(site.root(), 0o755)?;
        ignore(&site)?;
        files::create_dir(&site.path("state"), 0o700)?;
        let state = checked_state(&site)?;
        let lock = SiteLock::acquire(&state, wait)?;
        // Asked again: the run that held the lock may have made one.
        refuse_site(&site)?;
        files::create_dir(&state.join("keys"), 0o700)?;
        let path = state.join("ledger.sqlite");
        if !files::exists(&path)? {
            files::write_new(&path, b"", 0o600)?;
        }
        let ledger = Ledger::open(&path)?;
        Ok(Self { store: Store { site, ledger }, set_aside: Vec::new(), _lock: lock })
    }

    /// Opens a site that was unpacked where nobody else looks.
    fn of_filled(site: SiteDir, lock: SiteLock) -> Result<Self, StoreError> {
        let path = checked_state(&site)?.join("ledger.sqlite");
        let ledger = Ledger::open_restored(&path)?;
        if ledger.is_empty()? {
            return Err(StoreError::Damaged("the ledger is empty".to_owned()));
        }
        ignore(&site)?;
        Ok(Self { store: Store { site, ledger }, set_aside: Vec::new(), _lock: lock })
    }

    /// Opens the site in a directory and mends what a killed run left. `wait` sleeps while another run holds the lock.
    pub fn open(site: SiteDir, wait: impl FnMut(Duration)) -> Result<Self, StoreError> {
        let lock = SiteLock::acquire(&checked_state(&site)?, wait)?;
        let store = Store::open_with(site, Ledger::open)?;
        ignore(&store.site)?;
        files::remove_leftovers(store.site.root(), Depth::Here)?;
        for (name, depth) in [("state", Depth::Below), ("handout", Depth::Below)] {
            files::remove_leftovers(&store.site.path(name), depth)?;
        }
        for name in ["out", "golden"] {
            trees::recover(&store.site.path(name))?;
        }
        let mut writer = Self { store, set_aside: Vec::new(), _lock: lock };
        writer.refuse_old_ledger()?;
        writer.settle_password()?;
        writer.set_aside = writer.settle_handouts()?;
        writer.settle_hand_over()?;
        let swept = writer.sweep()?;
        writer.set_aside.extend(swept);
        Ok(writer)
    }

    /// Returns where the files are now that no record knew when the site was opened.
    pub fn set_aside(&self) -> &[Utf8PathBuf] {
        &self.set_aside
    }

    /// Runs a mutation of the ledger as a whole or not at all. The closure may be run more than once.
    pub fn transact<T, E: From<LedgerError>>(
        &mut self,
        mutation: impl FnMut(&mut Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.store.ledger.transact(mutation)
    }

    /// Writes the first settings; a file that is there already is kept and refused.
    pub fn write_settings(&self, text: &str) -> Result<(), StoreError> {
        files::write_new(&self.site.path("postseal.toml"), text.as_bytes(), 0o644)
    }

    /// Brings the derived files up to date with the ledger: `postseal.lock` and `out/`. Returns whether either changed.
    pub fn refresh_derived(&self, tree: &Tree) -> Result<bool, StoreError> {
        let out = self.write_out(tree)?;
        let changed = self.refresh_lock()? || out;
        self.ledger.derived_is_fresh()?;
        Ok(changed)
    }

    /// Brings `postseal.lock` up to date with the ledger. Returns whether it changed.
    pub fn refresh_lock(&self) -> Result<bool, StoreError> {
        let stale = self.lock_is_stale()?;
        if stale {
            let text = lock::write(&self.inventory()?);
            files::write_atomic(&self.site.path("postseal.lock"), text.as_bytes(), 0o644)?;
        }
        Ok(stale)
    }

    /// Replaces `out/` by a tree, with all that it refers to. Returns whether anything changed.
    pub fn write_out(&self, tree: &Tree) -> Result<bool, StoreError> {
        trees::replace_tree(&self.site.path("out"), OUT_MODE, &self.out_items(tree)?)
    }
}

/// Returns the path of the state directory, once it proved to be closed to others. It may itself be a link, to a disk that is
/// encrypted, but what is kept in it is never looked for elsewhere.
fn checked_state(site: &SiteDir) -> Result<Utf8PathBuf, StoreError> {
    let state = site.path("state");
    if !files::exists(&state)? {
        return Err(StoreError::NoState(state));
    }
    let metadata = fs::metadata(&state).map_err(files::while_doing("read", &state))?;
    files::refuse_readable(&state, &metadata)?;
    for directory in [state.join("keys"), state.join("passwords"), state.join("incoming"), site.path("handout")] {
        files::refuse_link(&directory)?;
    }
    Ok(state)
}

/// A site is there if there are settings, a lock (its state may be elsewhere) or a recorded fact; less is what a killed `create` left.
fn refuse_site(site: &SiteDir) -> Result<(), StoreError> {
    for name in ["postseal.toml", "postseal.lock"] {
        if files::exists(&site.path(name))? {
            return Err(StoreError::HoldsSite(site.path(name)));
        }
    }
    let state = site.path("state");
    let ledger = state.join("ledger.sqlite");
    if files::exists(&ledger)? && !Ledger::open(&ledger)?.is_empty()? {
        return Err(StoreError::HoldsSite(state));
    }
    Ok(())
}

/// Adds to `.gitignore` what it lacks.
fn ignore(site: &SiteDir) -> Result<(), StoreError> {
    let path = site.path(".gitignore");
    let mut text = files::read(&path)?.unwrap_or_default();
    let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).collect();
    let missing: Vec<&str> = IGNORED.into_iter().filter(|line| !lines.contains(&line.as_bytes())).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !text.is_empty() && !text.ends_with(b"\n") {
        text.push(b'\n');
    }
    for line in missing {
        text.extend_from_slice(line.as_bytes());
        text.push(b'\n');
    }
    files::write_atomic(&path, &text, 0o644)
}
