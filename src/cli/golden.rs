//! `render`, `diff`, `bless`: what is rendered, and what was accepted.

use camino::Utf8Path;
use serde_json::json;

use crate::cli::dkim::make_missing as make_missing_dkim_keys;
use crate::cli::failure::{DIFFERS, Failure};
use crate::cli::github::{self, Annotation};
use crate::cli::issuing::still_admitted;
use crate::cli::report::Report;
use crate::cli::session::{self, RENDERED, Wanted, refuse_secrets};
use crate::env::Env;
use crate::inventory::{DkimAlgorithm, DkimKey, Inventory};
use crate::names::{DomainName, visible};
use crate::plan::{self, Difference, Files, reason};
use crate::secret::Secret;
use crate::store::{SiteDir, Store, StoreError, TreeItem};

/// `render`
pub(super) fn render(env: &dyn Env, site: Option<&Utf8Path>) -> Result<Report, Failure> {
    let (wanted, mut store) = session::write(env, site)?;
    let made = make_missing_dkim_keys(env, &wanted.site, &mut store)?;
    let changed = session::refresh(&wanted, &store).map_err(|failure| after_keys(failure, &made))?;
    // What a renewal of the CA that was killed did not come to.
    if let Some(ca) = store.inventory()?.site_ca {
        store.refresh_site_ca(&ca.certificate)?;
    }
    let out = session::shown(&store, "out");
    let mut text = String::new();
    for key in &made {
        text.push_str(&format!(
            "made the DKIM key {} for {}; publish its record: postseal dns {}\n",
            key.selector, key.domain, key.domain
        ));
    }
    text.push_str(&if changed { format!("rendered {out}/\n") } else { format!("{out}/ is up to date\n") });
    let made: Vec<_> = made.iter().map(|key| json!({ "domain": key.domain, "selector": key.selector })).collect();
    let report = Report::fine(text, json!({ "changed": changed, "made": made })).warn(&wanted.warnings);
    let inventory = store.inventory()?;
    let report = report.warn(still_admitted(&inventory, env.now()).as_slice());
    let report = report.warn(&super::rollout::warnings(&wanted.site, &inventory.rollouts));
    Ok(report.done(format!("{out}/ is rendered")))
}

/// Keys that were made before something failed are recorded, and are not made again.
fn after_keys(failure: Failure, made: &[DkimKey]) -> Failure {
    let count = made.len();
    let noun = if count == 1 { "new DKIM key is" } else { "new DKIM keys are" };
    if count == 0 { failure } else { failure.after(&format!("{count} {noun} recorded")) }
}

/// What to do about a secret in golden/.
const TAKE_OUT: &str =
    "take it out of golden/ and out of what was committed, and make it anew: others may have read it";

/// `diff`
pub(super) fn diff(site: Option<&Utf8Path>, exit_zero: bool) -> Result<Report, Failure> {
    let directory = session::directory(site);
    let wanted = Wanted::read(&directory)?;
    let Some(golden) = golden(&directory)? else {
        let help = "accept what is rendered as a beginning: postseal bless";
        return Err(Failure::input("no-golden", "there is no golden/ to compare with", help));
    };
    let store = if directory.has_state()? { Some(Store::open(directory.clone())?) } else { None };
    let inventory = public_inventory(&directory, store.as_ref())?;
    let rendered = rendered(&wanted, &inventory, store.as_ref())?;
    refuse_secrets(("golden/", &golden), store.as_ref(), TAKE_OUT)?;
    let mut difference = plan::difference(&golden, &rendered);
    reason::explain(&mut difference, &golden, &rendered, &inventory, |blessed| {
        wanted.render(blessed).ok().map(|tree| plan::public_files(&tree))
    });
    let gaps = Gaps {
        lock_is_stale: store.map_or(Ok(false), |store| store.lock_is_stale())?,
        keys: plan::missing_keys(&wanted.site, &inventory),
    };
    let report = report(&difference, &directory, &gaps).warn(&wanted.warnings);
    Ok(if exit_zero { Report { exit_code: 0, ..report } } else { report })
}

/// Returns the public part of what exists: from the ledger, or where there is none from `postseal.lock`. A clone that lacks
/// that too knows no key: what is rendered from it is not what the site is.
fn public_inventory(directory: &SiteDir, store: Option<&Store>) -> Result<Inventory, Failure> {
    if let Some(store) = store {
        return Ok(store.inventory()?.public_part());
    }
    directory.locked_inventory()?.ok_or_else(|| {
        let help = "commit it where the ledger is, and bring it here; or make a site: postseal init DOMAIN";
        Failure::input("no-lock", "there is neither state/ nor postseal.lock", help)
    })
}

/// Returns the public files as they are rendered now, without secrets.
fn rendered(wanted: &Wanted, inventory: &Inventory, store: Option<&Store>) -> Result<Files, Failure> {
    let tree =
        wanted.render(inventory).map_err(|failure| if store.is_none() { by_the_lock(failure) } else { failure })?;
    let files = plan::public_files(&tree);
    refuse_secrets(("", &files), store, RENDERED)?;
    Ok(files)
}

/// A clone may have an old lock: then the certificate that is missing here lies where the ledger is.
fn by_the_lock(failure: Failure) -> Failure {
    let Failure::Input(diagnostics) = failure else { return failure };
    let note =
        "here postseal.lock tells what there is; if the ledger knows one, run `postseal render` there and commit it";
    let explained = diagnostics.into_iter().map(|diagnostic| match diagnostic.code {
        "server-certificate-missing" => diagnostic.note(note),
        _ => diagnostic,
    });
    Failure::Input(explained.collect())
}

const MAKE_KEYS: &str = "make it where the ledger is, and commit postseal.lock: postseal render";

/// A domain, and the algorithm of the key that it lacks.
type MissingKey<'a> = (&'a DomainName, DkimAlgorithm);

fn without((domain, algorithm): MissingKey<'_>) -> String {
    format!("{domain} has no DKIM key yet ({})", algorithm.as_str())
}

/// What is not as it should be, though no file of golden shows it.
struct Gaps<'a> {
    lock_is_stale: bool,
    keys: Vec<MissingKey<'a>>,
}

impl Gaps<'_> {
    /// Says each, with its mend.
    fn lines(&self) -> Vec<String> {
        let stale = "postseal.lock is older than the ledger; bring it up to date: postseal render";
        let stale = self.lock_is_stale.then(|| stale.to_owned());
        stale.into_iter().chain(self.keys.iter().map(|key| format!("{}; {MAKE_KEYS}", without(*key)))).collect()
    }
}

fn report(difference: &Difference, directory: &SiteDir, gaps: &Gaps<'_>) -> Report {
    let mut text = String::new();
    for change in &difference.changes {
        for reason in &change.reasons {
            text.push_str(&format!("# {reason}\n"));
        }
        text.push_str(&change.unified);
    }
    let lines = gaps.lines();
    for gap in &lines {
        text.push_str(&format!("{gap}\n"));
    }
    text.push_str(&difference.summary());
    text.push('\n');
    let changes: Vec<_> = difference
        .changes
        .iter()
        .map(|change| {
            json!({
                "path": change.path.as_str(),
                "kind": change.kind.as_str(),
                "line": change.line,
                "reason": change.reasons,
                "diff": change.unified,
            })
        })
        .collect();
    let missing =
        gaps.keys.iter().map(|(domain, algorithm)| json!({ "domain": domain, "algorithm": algorithm.as_str() }));
    let json = json!({
        "changes": changes,
        "identical": difference.identical,
        "lock_is_stale": gaps.lock_is_stale,
        "missing_keys": missing.collect::<Vec<_>>(),
    });
    let beside: Vec<_> =
        lines.iter().map(|gap| Annotation::drift(directory.path("postseal.lock"), 1, gap.clone())).collect();
    let remarks = github::remarks(difference, &directory.path("golden"), &beside);
    let exit_code = if difference.changes.is_empty() && lines.is_empty() { 0 } else { DIFFERS };
    Report { exit_code, remarks, foreign: true, ..Report::fine(text, json) }
}

/// Returns the files of `golden/`, or none before the first `bless`.
pub(super) fn golden(directory: &SiteDir) -> Result<Option<Files>, Failure> {
    let items = directory.golden().map_err(|error| match &error {
        StoreError::NotAFile(path) => {
            let help = "golden/ holds directories and files, nothing else: remove it, then accept what is rendered: postseal bless";
            Failure::input("file-name", format!("`{}` is a link or a device", visible(path.as_str())), help)
        }
        StoreError::Outside(path) => {
            let message = format!("the name of `{}` is not in UTF-8", visible(path.as_str()));
            Failure::input("file-name", message, "postseal writes no such name into golden/: remove it")
        }
        _ => error.into(),
    })?;
    let is_secret =
        |item: &TreeItem| item.content.as_ref().is_some_and(|content| plan::is_der_secret(content.expose()));
    if let Some((path, _)) = items.iter().flatten().find(|(_, item)| is_secret(item)) {
        let message = format!("`golden/{}` is a private key or a .p12 file", visible(path.as_str()));
        return Err(Failure::secret("secret-in-golden", message, TAKE_OUT));
    }
    Ok(items.map(|items| {
        // What is no text is told apart, and never shown.
        let text = |content: &Secret| match content.expose_str() {
            Some(text) => text.to_owned(),
            None => format!("(no text: {})\n", crate::names::Digest::of(content.expose())),
        };
        items.into_iter().filter_map(|(path, item)| Some((path, text(&item.content?)))).collect()
    }))
}

/// Tells whether this runs in CI, where nobody looks. Systems set CI to true, 1, yes or their name; as npm's and others' tools
/// do, everything counts but what says no.
fn in_ci(env: &dyn Env) -> bool {
    let says_no = |value: &str| ["", "0", "false"].contains(&value.to_ascii_lowercase().as_str());
    env.variable("CI").is_some_and(|value| !says_no(&value))
}

/// `bless`
pub(super) fn bless(env: &dyn Env, site: Option<&Utf8Path>, force: bool) -> Result<Report, Failure> {
    if !force && in_ci(env) {
        let help = "bless where a person looks at it, and commit golden/; or use --force";
        return Err(Failure::input("bless-in-ci", "CI is set: nobody would see what is accepted here", help));
    }
    let directory = session::directory(site);
    // Without a ledger, as in a clone, `postseal.lock` tells what exists, and nobody else writes here.
    let mut store = if directory.has_state()? { Some(session::write(env, site)?.1) } else { None };
    let before = golden(&directory)?.unwrap_or_default();
    let wanted = Wanted::read(&directory)?;
    let made = match &mut store {
        // A domain that is blessed without its keys would differ with the next render.
        Some(store) => make_missing_dkim_keys(env, &wanted.site, store)?,
        None => Vec::new(),
    };
    let store = store.as_ref();
    let inventory = public_inventory(&directory, store.map(|writer| &**writer))?;
    if let Some(key) = plan::missing_keys(&wanted.site, &inventory).first() {
        return Err(Failure::input("lock-incomplete", without(*key), MAKE_KEYS));
    }
    let rendered = rendered(&wanted, &inventory, store.map(|writer| &**writer))?;
    let difference = plan::difference(&before, &rendered);
    directory.write_golden(&rendered).map_err(|error| after_keys(error.into(), &made))?;
    if let Some(store) = store {
        session::refresh(&wanted, store).map_err(|failure| after_keys(failure, &made))?;
    }
    let text = format!(
        "{}\nblessed {}/; commit it together with postseal.lock\n",
        difference.summary(),
        directory.path("golden")
    );
    let changes: Vec<_> = difference
        .changes
        .iter()
        .map(|change| json!({ "path": change.path.as_str(), "kind": change.kind.as_str() }))
        .collect();
    let report = Report::fine(text, json!({ "changes": changes, "identical": difference.identical }));
    Ok(report.warn(&wanted.warnings).done(format!("{}/ is blessed", directory.path("golden"))))
}
