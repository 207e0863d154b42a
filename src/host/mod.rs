//! A host's own files: what is there, what would be done to it, and doing it. Programs are run through [`crate::env::Env`].
//!
//! An installation stages every file beside its place, has the daemons and checks of our own judge the staged whole, records
//! in the ledger what is ours, and only then switches by rename, in the order of [`crate::install`]. Killed anywhere, it
//! leaves a configuration that starts and signs, and the next run completes it.

mod accounts;
mod checks;
mod daemons;
mod door;
mod files;
mod rspamd;
mod safety;
mod signatures;

use std::collections::{BTreeMap, BTreeSet};

use camino::{Utf8Path, Utf8PathBuf};

use crate::install::{Action, Found, Installation, Owner, Step, Wanted};
use crate::platform::Layout;
use crate::secret::Secret;
use crate::site::Host;
use crate::tree::{Content, Stored, Tree};

use self::accounts::Accounts;
pub use self::checks::{Facts, Kept, kept_certificates, own_checks};
pub use self::daemons::{Verdict, judge};
pub use self::door::{Door, Listener};
use self::files::Root;
pub use self::rspamd::{Rspamd, probe};
pub use self::safety::refuse_writable_by_others;
pub use self::signatures::{Checked, Verdict as SignatureVerdict, Verifier};

/// Why a host's files could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// The system refused.
    #[error("could not {doing} `{path}`: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: Utf8PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Another installation is at work.
    #[error("another postseal installs below `{0}`; let it finish, and run the command again")]
    Busy(Utf8PathBuf),
    /// What should stand for the host's root is no directory.
    #[error("`{0}` is no directory; name with --root where the host's files are")]
    NoRoot(Utf8PathBuf),
    /// The root's path has characters that need quoting.
    #[error("the path `{0}` has other characters than letters, digits and / . _ -; mount or move it to a plain one")]
    RootNotPlain(Utf8PathBuf),
    /// The host lacks an account that a file must belong to.
    #[error("the host has no {kind} `{name}`; install the daemons' packages first")]
    NoAccount {
        /// `user` or `group`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// A directory of a daemon's package is missing.
    #[error("the host has no directory `{path}`; install the package of {daemon} first")]
    NotInstalled {
        /// The directory.
        path: Utf8PathBuf,
        /// Whose it is.
        daemon: &'static str,
    },
}

impl HostError {
    fn io(doing: &'static str, path: &Utf8Path, source: std::io::Error) -> Self {
        Self::Io { doing, path: path.to_owned(), source }
    }
}

/// No key is larger, in octets.
const MAXIMUM_KEY: u64 = 1 << 16;

/// Tells whether this process is root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A host of the site, as its files lie below a directory.
#[derive(Debug)]
pub struct Machine<'a> {
    host: &'a Host,
    layout: &'static Layout,
    root: Root,
    accounts: Accounts,
    /// Whether a whole system is there, not an empty directory that is being filled.
    is_system: bool,
}

impl<'a> Machine<'a> {
    /// Opens a host below the directory that stands for its root. Where that has no accounts of its own, as an empty
    /// directory that is being filled, those of this machine are used.
    pub fn open(host: &'a Host, root: &Utf8Path) -> Result<Self, HostError> {
        let root = Root::open(root)?;
        let own = Accounts::read(&root.outside("/etc".into()))?;
        let is_system = own.is_some();
        let accounts = match own {
            Some(accounts) => accounts,
            None => Accounts::read("/etc".into())?.unwrap_or_default(),
        };
        Ok(Self { host, layout: host.platform.layout(), root, accounts, is_system })
    }

    /// Keeps other installations away from the host until this is dropped.
    ///
    /// # Errors
    /// [`HostError::Busy`] if one is at work: two would take each other's staged files for leftovers.
    pub fn lock(&self) -> Result<(), HostError> {
        if self.root.lock()? { Ok(()) } else { Err(HostError::Busy(self.root().to_owned())) }
    }

    /// Returns the directory that stands for the host's root, without symbolic links.
    pub fn root(&self) -> &Utf8Path {
        self.root.path()
    }

    /// Tells whether a whole system is there.
    pub fn is_system(&self) -> bool {
        self.is_system
    }

    /// Tells whether it is the running system itself.
    pub fn is_running(&self) -> bool {
        self.is_system && self.root() == "/"
    }

    /// Returns the host's files of a rendered tree, with what they hold and the numbers of their owners.
    ///
    /// # Errors
    /// What `resolve` says, and [`HostError::NoAccount`].
    pub fn wanted<E: From<HostError>>(
        &self,
        tree: &Tree,
        resolve: impl Fn(&Stored) -> Result<Secret, E>,
    ) -> Result<Vec<Wanted>, E> {
        let mut wanted = Vec::new();
        for entry in tree.entries() {
            let Some((_, path)) = entry.on_host().filter(|(host, _)| *host == self.host.name.as_str()) else {
                continue;
            };
            let content = match &entry.content {
                Content::Directory => None,
                Content::Text(text) => Some(Secret::from(text.clone())),
                Content::Stored(stored, _) => Some(resolve(stored)?),
            };
            let owner = (self.accounts.user(&entry.owner)?, self.accounts.group(&entry.group)?);
            let (path, mode, class, part) = (path.into(), entry.mode, entry.class, entry.part);
            wanted.push(Wanted { path, owner, mode, class, part, content });
        }
        Ok(wanted)
    }

    /// Returns what the host has at the paths.
    pub fn found<'p>(
        &self,
        paths: impl Iterator<Item = &'p Utf8PathBuf>,
    ) -> Result<BTreeMap<Utf8PathBuf, Found>, HostError> {
        let look = |path: &Utf8PathBuf| {
            // Rspamd can put anything in the place of its keys, as files of any size that take no room on the disk.
            if path.starts_with(self.layout.rspamd_state) {
                return self.root.look_within(path, MAXIMUM_KEY);
            }
            self.root.look(path)
        };
        paths.map(|path| Ok((path.clone(), look(path)?))).collect()
    }

    /// Returns owner and group by name, as far as the host has names for them.
    pub fn owner_names(&self, (user, group): Owner) -> String {
        format!("{}:{}", self.accounts.user_name(user), self.accounts.group_name(group))
    }

    /// Refuses a host on which a directory is missing that a daemon's package brings.
    pub fn refuse_missing_packages(&self, installation: &Installation) -> Result<(), HostError> {
        self.directories(installation).map(|_| ())
    }

    /// Returns the directories that must be made: those of the tree, and what lies above a file and is missing.
    ///
    /// A directory that a daemon's package brings is not made here, for its owner and mode are the package's to choose.
    fn directories(&self, installation: &Installation) -> Result<Vec<(Utf8PathBuf, Owner, u32)>, HostError> {
        let mut made: Vec<(Utf8PathBuf, Owner, u32)> = Vec::new();
        // What was looked at: a web server's files lie in thousands of directories.
        let mut seen: BTreeSet<&Utf8Path> = BTreeSet::new();
        for step in installation.changes().filter(|step| step.action.writes()) {
            let Some(wanted) = &step.wanted else { continue };
            let mut above: Vec<&Utf8Path> = step.path.ancestors().skip(1).collect();
            above.reverse();
            for directory in above.into_iter().filter(|path| *path != "/") {
                if seen.insert(directory) && self.root.look(directory)? == Found::Nothing {
                    self.refuse_package_directory(directory)?;
                    made.push((directory.to_owned(), (0, 0), 0o755));
                }
            }
            if step.is_directory() {
                seen.insert(&step.path);
                made.push((step.path.clone(), wanted.owner, wanted.mode));
            }
        }
        Ok(made)
    }

    fn refuse_package_directory(&self, directory: &Utf8Path) -> Result<(), HostError> {
        let Layout { rspamd_dir, rspamd_state, .. } = self.layout;
        if self.is_system && [rspamd_dir, rspamd_state].contains(&&directory.as_str()) {
            return Err(HostError::NotInstalled { path: directory.to_owned(), daemon: "Rspamd" });
        }
        Ok(())
    }

    /// Stages every file of an installation. What is staged is removed again unless it is switched.
    pub fn stage(&'a self, installation: &'a Installation) -> Result<Staging<'a>, HostError> {
        let mut staging = Staging { machine: self, installation, made: Vec::new() };
        self.sweep(installation)?;
        for (path, owner, mode) in self.directories(installation)? {
            let is_new = self.root.look(&path)? == Found::Nothing;
            // An existing one gets owner and mode in its turn.
            if is_new {
                self.root.make_directory(&path, owner, mode)?;
                staging.made.push(path);
            }
        }
        for (step, wanted) in files(installation) {
            if let Some(content) = &wanted.content {
                self.root.stage(&step.path, content, wanted.owner, wanted.mode)?;
            }
        }
        Ok(staging)
    }

    /// Tells whether a file lies where Rspamd keeps what it signs with, and not its configuration.
    fn is_rspamds_own(&self, path: &Utf8Path) -> bool {
        path.starts_with(self.layout.rspamd_state)
    }

    /// Removes what is no longer rendered of what Rspamd signs with, once it signs with it no more.
    pub fn remove_unused(&self, installation: &Installation) -> Result<(), HostError> {
        let mut steps = installation.steps.iter().filter(|step| step.action == Action::Remove);
        steps.try_for_each(|step| if self.is_rspamds_own(&step.path) { self.root.remove(&step.path) } else { Ok(()) })
    }

    /// Returns what an installation changes of what Rspamd reads.
    pub fn changes_for_rspamd<'i>(&self, installation: &'i Installation) -> impl Iterator<Item = &'i Step> {
        let Layout { rspamd_dir, rspamd_state, .. } = self.layout;
        let is_rspamds = move |path: &Utf8Path| [rspamd_dir, rspamd_state].iter().any(|place| path.starts_with(place));
        installation.changes().filter(move |step| !step.is_directory() && is_rspamds(&step.path))
    }

    /// Puts back what Rspamd read before an installation, keys before what names them. A key that is new stays: nothing names it
    /// then. Before [`Machine::remove_unused`] nothing that signed is gone.
    pub fn put_back(&self, installation: &Installation) -> Result<(), HostError> {
        for step in self.changes_for_rspamd(installation) {
            match &step.found {
                Found::File(owner, mode, content) => {
                    self.root.stage(&step.path, content, *owner, *mode)?;
                    self.root.switch(&step.path)?;
                }
                _ if self.is_rspamds_own(&step.path) => {}
                _ => self.root.remove(&step.path)?,
            }
        }
        Ok(())
    }

    fn sweep(&self, installation: &Installation) -> Result<(), HostError> {
        let directories: BTreeSet<&Utf8Path> =
            installation.steps.iter().filter_map(|step| step.path.parent()).collect();
        directories.into_iter().try_for_each(|directory| self.root.sweep(directory))
    }
}

/// Returns the files that are written, in order.
fn files(installation: &Installation) -> impl Iterator<Item = (&Step, &Wanted)> {
    let writes = installation.changes().filter(|step| step.action.writes() && !step.is_directory());
    writes.filter_map(|step| Some((step, step.wanted.as_ref()?)))
}

/// Files that lie complete beside their places; dropped before [`Staging::switch`], they are gone again.
#[derive(Debug)]
pub struct Staging<'a> {
    machine: &'a Machine<'a>,
    installation: &'a Installation,
    made: Vec<Utf8PathBuf>,
}

impl Staging<'_> {
    /// Puts every file into its place, in order, and removes what is no longer rendered but what Rspamd may still sign with:
    /// [`Machine::remove_unused`] does that. `smtpd_order` names OpenSMTPD's own files in the order that was proved to start
    /// after each of them.
    pub fn switch(mut self, smtpd_order: &[Utf8PathBuf]) -> Result<(), HostError> {
        // From here on a directory that was made holds what belongs there.
        self.made.clear();
        let root = &self.machine.root;
        let mut proved = smtpd_order.iter();
        for step in self.installation.changes() {
            match (&step.wanted, step.action) {
                (Some(wanted), _) if step.is_directory() => {
                    root.make_directory(&step.path, wanted.owner, wanted.mode)?;
                }
                (_, Action::Remove) if self.machine.is_rspamds_own(&step.path) => {}
                (_, Action::Remove) => root.remove(&step.path)?,
                // The steps of OpenSMTPD's files stand together: each takes the next of the proved order.
                _ if smtpd_order.contains(&step.path) => root.switch(proved.next().unwrap_or(&step.path))?,
                _ => root.switch(&step.path)?,
            }
        }
        Ok(())
    }
}

impl Drop for Staging<'_> {
    fn drop(&mut self) {
        let root = &self.machine.root;
        files(self.installation).for_each(|(step, _)| root.unstage(&step.path));
        self.made.iter().rev().for_each(|path| root.remove_directory(path));
    }
}
