//! An open site: its settings, its ledger, its templates, and what follows from them.

use std::sync::Arc;

use camino::{Utf8Path, Utf8PathBuf};

use crate::cli::failure::Failure;
use crate::diag::{Diagnostic, Source};
use crate::env::Env;
use crate::inventory::Inventory;
use crate::render;
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
        let (site, warnings) = site::load(&settings).map_err(Failure::Input)?;
        Ok(Self { site, templates: templates(directory)?, warnings })
    }

    /// Renders every file for what exists.
    pub(super) fn render(&self, inventory: &Inventory) -> Result<Tree, Failure> {
        render::render(&self.site, inventory, &self.templates)
            .map_err(|error| Failure::Input(vec![error.diagnostic().clone()]))
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
    wanted.render(&store.inventory()?)?;
    Ok((wanted, store))
}

/// Opens a site's ledger for writing, once nobody else does, whatever the settings say.
pub(super) fn writer(env: &dyn Env, directory: SiteDir) -> Result<Writer, Failure> {
    let mut told = false;
    Ok(Writer::open(directory, |pause| {
        if !told {
            // That nobody can be told is no reason not to wait.
            let _ = env.talk("postseal: waiting for another postseal that works on this site\n");
            told = true;
        }
        env.wait(pause);
    })?)
}

/// Renders what the ledger says now, and brings `out/` and `postseal.lock` up to date. Returns whether they changed.
pub(super) fn refresh(wanted: &Wanted, store: &Writer) -> Result<bool, Failure> {
    Ok(store.refresh_derived(&wanted.render(&store.inventory()?)?)?)
}

/// Returns the path of something in the site, as the user would write it.
pub(super) fn shown(store: &Store, name: &str) -> Utf8PathBuf {
    store.site().path(name)
}
