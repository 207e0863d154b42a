//! `render`, `diff`, `bless`: what is rendered, and what was accepted.

use std::collections::BTreeMap;

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::json;

use crate::cli::failure::{DIFFERS, Failure};
use crate::cli::make;
use crate::cli::report::Report;
use crate::cli::session::{self, RENDERED, Wanted, refuse_secrets};
use crate::cli::show;
use crate::env::Env;
use crate::plan::{self, Difference};
use crate::secret::Secret;
use crate::store::{SiteDir, Store};

/// `render`
pub(super) fn render(env: &dyn Env, site: Option<&Utf8Path>) -> Result<Report, Failure> {
    let (wanted, mut store) = session::write(env, site)?;
    let made = make::missing_dkim_keys(env, &wanted.site, &mut store)?;
    let changed = session::refresh(&wanted, &store)?;
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
    Ok(Report::fine(text, json!({ "changed": changed, "made": made })).warn(&wanted.warnings))
}

/// `diff`
pub(super) fn diff(site: Option<&Utf8Path>) -> Result<Report, Failure> {
    let directory = session::directory(site);
    let wanted = Wanted::read(&directory)?;
    let Some(golden) = golden(&directory)? else {
        let help = "accept what is rendered as a beginning: postseal bless";
        return Err(Failure::input("no-golden", "there is no golden/ to compare with", help));
    };
    let store = if directory.has_state()? { Some(Store::open(directory.clone())?) } else { None };
    let stale = store.as_ref().map_or(Ok(false), Store::lock_is_stale)?;
    let rendered = rendered(&wanted, &directory, site)?;
    refuse_secrets(&rendered, store.as_ref(), RENDERED)?;
    refuse_secrets(
        &golden,
        store.as_ref(),
        "take it out of golden/ and out of what was committed, and make it anew: others may have read it",
    )?;
    let difference = plan::difference(&golden, &rendered);
    Ok(report(&difference, stale).warn(&wanted.warnings))
}

/// Returns the public files as they are rendered now. A clone that lacks `postseal.lock` knows no key: what is rendered from
/// it is not what the site is.
fn rendered(
    wanted: &Wanted,
    directory: &SiteDir,
    site: Option<&Utf8Path>,
) -> Result<BTreeMap<Utf8PathBuf, String>, Failure> {
    if !directory.has_state()? && directory.lock()?.is_none() {
        let help = "commit it where the ledger is, and bring it here; or make a site: postseal init DOMAIN";
        return Err(Failure::input("no-lock", "there is neither state/ nor postseal.lock", help));
    }
    Ok(plan::public_files(&wanted.render(&show::inventory(site)?)?))
}

fn report(difference: &Difference, stale: bool) -> Report {
    let mut text: String = difference.changes.iter().map(|change| visible(&change.unified)).collect();
    if stale {
        text.push_str("postseal.lock is older than the ledger; bring it up to date: postseal render\n");
    }
    text.push_str(&difference.summary());
    text.push('\n');
    let changes: Vec<_> = difference
        .changes
        .iter()
        .map(|change| json!({ "path": change.path.as_str(), "kind": change.kind.as_str(), "diff": change.unified }))
        .collect();
    let json = json!({ "changes": changes, "identical": difference.identical, "lock_is_stale": stale });
    let differs = stale || !difference.changes.is_empty();
    Report { exit_code: if differs { DIFFERS } else { 0 }, ..Report::fine(text, json) }
}

/// Golden may come from a stranger's pull request: what would move the cursor or turn the text is escaped.
pub(super) fn visible(text: &str) -> String {
    let plain = |c: char| matches!(c, '\n' | '\t') || !(c.is_control() || crate::names::is_hidden(c));
    text.chars().fold(String::with_capacity(text.len()), |mut shown, c| {
        if plain(c) {
            shown.push(c);
        } else {
            shown.extend(c.escape_default());
        }
        shown
    })
}

/// Returns the files of `golden/`, or none before the first `bless`.
fn golden(directory: &SiteDir) -> Result<Option<BTreeMap<Utf8PathBuf, String>>, Failure> {
    let items = directory.golden()?;
    Ok(items.map(|items| {
        let files = items.into_iter().filter(|(path, _)| path != ".gitattributes");
        // What is no text is told apart, and never shown.
        let text = |content: &Secret| match content.expose_str() {
            Some(text) => text.to_owned(),
            None => format!("(no text: {})\n", crate::names::Digest::of(content.expose())),
        };
        files.filter_map(|(path, item)| Some((path, text(&item.content?)))).collect()
    }))
}

/// `bless`
pub(super) fn bless(env: &dyn Env, site: Option<&Utf8Path>, force: bool) -> Result<Report, Failure> {
    if !force && env.variable("CI").is_some_and(|value| value == "true") {
        let help = "bless where a person looks at it, and commit golden/; or use --force";
        return Err(Failure::input("bless-in-ci", "CI=true: nobody would see what is accepted here", help));
    }
    let directory = session::directory(site);
    // Without a ledger, as in a clone, `postseal.lock` tells what exists, and nobody else writes here.
    let mut store = if directory.has_state()? { Some(session::write(env, site)?.1) } else { None };
    let wanted = Wanted::read(&directory)?;
    if let Some(store) = &mut store {
        // A domain that is blessed without its keys would differ with the next render.
        make::missing_dkim_keys(env, &wanted.site, store)?;
    }
    let rendered = rendered(&wanted, &directory, site)?;
    refuse_secrets(&rendered, store.as_deref(), RENDERED)?;
    let before = golden(&directory)?.unwrap_or_default();
    let difference = plan::difference(&before, &rendered);
    directory.write_golden(&rendered)?;
    if let Some(store) = &store {
        session::refresh(&wanted, store)?;
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
    Ok(Report::fine(text, json!({ "changes": changes, "identical": difference.identical })).warn(&wanted.warnings))
}
