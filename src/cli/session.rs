//! An open site: its settings, its ledger, its templates, and what follows from them.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use camino::{Utf8Path, Utf8PathBuf};

use crate::cli::bimi;
use crate::cli::failure::Failure;
use crate::diag::{Diagnostic, Source};
use crate::env::Env;
use crate::inventory::Inventory;
use crate::names::visible;
use crate::plan::{self, Files};
use crate::render;
use crate::secret::Secret;
use crate::site::{self, Site};
use crate::store::{SiteDir, Store, Writer};
use crate::tree::Tree;

/// What is written by hand: settings and templates.
#[derive(Debug)]
pub(super) struct Wanted {
    /// The site as the settings describe it.
    pub(super) site: Site,
    /// The administrator's own templates.
    pub(super) templates: Vec<(String, String)>,
    /// Findings that do not hinder the work.
    pub(super) warnings: Vec<Diagnostic>,
}

impl Wanted {
    /// Reads settings and templates; all that is wrong with them is reported in one run.
    pub(super) fn read(directory: &SiteDir) -> Result<Self, Failure> {
        let settings: Vec<Arc<Source>> = directory.settings()?.into_iter().map(Arc::new).collect();
        let (mut site, warnings) = site::load(&settings).map_err(Failure::Input)?;
        site.files = bimi::files(directory, &site)?;
        Ok(Self { site, templates: templates(directory)?, warnings })
    }

    /// Renders every file for what exists; [`Wanted::checked`] does it for what is to be written.
    pub(super) fn render(&self, inventory: &Inventory) -> Result<Tree, Failure> {
        render::render(&self.site, inventory, &self.templates)
            .map_err(|error| Failure::Input(vec![error.diagnostic().clone()]))
    }

    /// Renders every file for what exists, and refuses public files that hold a secret, before one of them is written.
    pub(super) fn checked(&self, inventory: &Inventory, store: &Store) -> Result<Tree, Failure> {
        let tree = self.render(inventory)?;
        // Without a template of the administrator's nothing can copy what state/ keeps, and with many users it is much to read.
        let store = Some(store).filter(|_| !self.templates.is_empty());
        refuse_secrets(("", &plan::public_files(&tree)), store, RENDERED)?;
        Ok(tree)
    }
}

/// What to do about a secret in a rendered file.
pub(super) const RENDERED: &str = "a template of yours copies a secret into a public file; take it out";

/// Refuses public files, with the directory that their paths are below, that hold a secret: a private key, a hash, or anything that the store keeps, as it is, in hexadecimal
/// or in base64.
pub(super) fn refuse_secrets(
    (directory, files): (&str, &Files),
    store: Option<&Store>,
    help: &str,
) -> Result<(), Failure> {
    let stored = Kept::new(store.map(Store::secret_texts).transpose()?.unwrap_or_default());
    let holds = |text: &str| plan::holds_secret(text) || stored.stands_in(text.as_bytes());
    let Some((path, _)) = files.iter().find(|(_, text)| holds(text)) else { return Ok(()) };
    let message = format!("`{directory}{}` holds a private key, a password or its hash", visible(path.as_str()));
    Err(Failure::secret("secret-in-golden", message, help))
}

/// How many octets of a secret are looked up at once; [`Store::secret_texts`] returns none that is shorter.
const BEGIN: usize = 8;

/// What a site keeps secret, so that a text is searched for all of it in one pass: a provider's site has thousands of passwords
/// and megabytes of zones. Of the beginnings only a keyed hash is kept beside the secrets, which are wiped.
struct Kept {
    hasher: RandomState,
    beginnings: HashMap<u64, Vec<Secret>>,
}

impl Kept {
    fn new(secrets: Vec<Secret>) -> Self {
        let mut kept = Self { hasher: RandomState::new(), beginnings: HashMap::new() };
        for secret in secrets {
            if let Some(begin) = secret.expose().get(..BEGIN) {
                let begin = kept.hasher.hash_one(begin);
                kept.beginnings.entry(begin).or_default().push(secret);
            }
        }
        kept
    }

    fn stands_in(&self, text: &[u8]) -> bool {
        if self.beginnings.is_empty() {
            return false;
        }
        text.windows(BEGIN).enumerate().any(|(at, begin)| {
            let here = || text.get(at..).unwrap_or_default();
            let candidates = self.beginnings.get(&self.hasher.hash_one(begin));
            candidates.is_some_and(|secrets| secrets.iter().any(|secret| here().starts_with(secret.expose())))
        })
    }
}

fn templates(directory: &SiteDir) -> Result<Vec<(String, String)>, Failure> {
    let found = directory.templates()?.into_iter();
    Ok(found.map(|(name, Source { text, .. })| (name.into_string(), text)).collect())
}

/// Names the directory of the site that a command works on.
pub(super) fn directory(site: Option<&Utf8Path>) -> SiteDir {
    SiteDir::new(site.unwrap_or(Utf8Path::new(".")))
}

/// Opens a site for reading.
pub(super) fn read(site: Option<&Utf8Path>) -> Result<(Wanted, Store), Failure> {
    let directory = directory(site);
    let wanted = Wanted::read(&directory)?;
    Ok((wanted, Store::open(directory)?))
}

/// Opens a site for writing, once nobody else does. Settings and templates are proved good before anything is written.
pub(super) fn write(env: &dyn Env, site: Option<&Utf8Path>) -> Result<(Wanted, Writer), Failure> {
    let directory = directory(site);
    Wanted::read(&directory)?;
    let store = writer(env, directory.clone())?;
    // Read again: while this run waited, somebody may have changed them.
    let wanted = Wanted::read(&directory)?;
    wanted.checked(&store.inventory()?, &store)?;
    Ok((wanted, store))
}

/// Opens a site's ledger for writing, once nobody else does, whatever the settings say.
pub(super) fn writer(env: &dyn Env, directory: SiteDir) -> Result<Writer, Failure> {
    let mut told = false;
    let writer = Writer::open(directory, |pause| {
        if !told {
            // That nobody can be told is no reason not to wait.
            let _ = env.talk("postseal: waiting for another postseal that works on this site\n");
            told = true;
        }
        env.wait(pause);
    })?;
    if let [first, others @ ..] = writer.set_aside() {
        let more = if others.is_empty() { String::new() } else { format!(" and {} more", others.len()) };
        // The files are there whether or not somebody is told.
        let _ = env.talk(&format!(
            "postseal: what no record knows was set aside, as after a run that was killed: {first}{more}\n"
        ));
    }
    Ok(writer)
}

/// Renders what the ledger says now, and brings `out/` and `postseal.lock` up to date. Returns whether they changed.
pub(super) fn refresh(wanted: &Wanted, store: &Writer) -> Result<bool, Failure> {
    // The inventory of a large site is gone before its files are read.
    let tree = wanted.checked(&store.inventory()?, store)?;
    Ok(store.refresh_derived(&tree)?)
}

/// Returns the path of something in the site, as the user would write it.
pub(super) fn shown(store: &Store, name: &str) -> Utf8PathBuf {
    store.site().path(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_secret_is_found_wherever_it_stands_and_nothing_like_it() {
        let secrets = ["MIGHAgEAone", "MIGHAgEAtwo", "correct horse"].map(|text| Secret::from(text.to_owned()));
        let kept = Kept::new(secrets.into());
        for text in ["MIGHAgEAtwo", "x MIGHAgEAone\n", "\u{e4}correct horse"] {
            assert!(kept.stands_in(text.as_bytes()), "{text}");
        }
        for text in ["", "MIGHAgEA", "MIGHAgEAthree", "correct hors", "orrect horse"] {
            assert!(!kept.stands_in(text.as_bytes()), "{text}");
        }
    }
}
