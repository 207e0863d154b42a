//! `fsck`: whether ledger and files say the same.

use camino::Utf8Path;
use serde_json::json;

use crate::cli::failure::{DIFFERS, Failure};
use crate::cli::report::Report;
use crate::cli::session::{self, Wanted};
use crate::env::Env;
use crate::names::visible;
use crate::store::{Checked, Finding, Store, Weight};

/// `fsck`
pub(super) fn fsck(env: &dyn Env, site: Option<&Utf8Path>) -> Result<Report, Failure> {
    let directory = session::directory(site);
    let quiet = Store::quiet(&directory, |pause| env.wait(pause))?;
    let store = Store::open(directory)?;
    let mut checked = store.check(&mut |done, total| progress(env, done, total))?;
    drawn_files(&store, &mut checked);
    drop(quiet);
    let exit_code = if checked.is_clean() { 0 } else { DIFFERS };
    Ok(Report { exit_code, foreign: true, ..Report::fine(text(&checked), to_json(&checked)) })
}

/// Adds whether settings and templates can be read, and `out/` is what they and the ledger make.
fn drawn_files(store: &Store, checked: &mut Checked) {
    let stale = Wanted::read(store.site()).and_then(|wanted| {
        let tree = wanted.checked(&store.inventory()?, store)?;
        Ok(!store.stale_out(&tree)?.is_empty())
    });
    match stale {
        Ok(true) => checked.add("run postseal render", "out/ is not what the ledger and the settings make"),
        Ok(false) => {}
        // What is wrong with the ledger is said, and nothing can be made from it.
        Err(_) if checked.findings.iter().any(|finding| finding.weight == Weight::Ledger) => {}
        Err(failure) => {
            for diagnostic in failure.diagnostics() {
                let place = diagnostic.place.as_ref().map_or_else(String::new, |place| {
                    let (line, column) = place.line_column();
                    format!("{}:{line}:{column}: ", place.source.path)
                });
                checked.add(diagnostic.help.clone(), format!("{place}{}", diagnostic.message));
            }
        }
    }
}

/// Tells a person how far it is, every now and then, on one line that goes again.
fn progress(env: &dyn Env, done: usize, total: usize) {
    const STEP: usize = 250;
    if total < 2 * STEP || !env.person_is_there() {
        return;
    }
    let line = if done == total {
        "\r\x1b[K".to_owned()
    } else if done.is_multiple_of(STEP) {
        format!("\rcertificates: {done} of {total}")
    } else {
        return;
    };
    // That nobody sees it is no reason to stop.
    let _ = env.talk(&line);
}

fn text(checked: &Checked) -> String {
    let line = |finding: &Finding| {
        let note = if finding.weight == Weight::Note { "note: " } else { "" };
        format!("{note}{}: {}\n", visible(&finding.mend), visible(&finding.problem))
    };
    let mut text: String = checked.findings.iter().map(line).collect();
    let Checked { certificates, keys, files, .. } = checked;
    let verdict = if checked.is_clean() { "ledger and files agree" } else { "not all is in order" };
    text.push_str(&format!("{verdict}: {certificates} certificates, {keys} keys, {files} files\n"));
    text
}

fn to_json(checked: &Checked) -> serde_json::Value {
    let weight = |weight| match weight {
        Weight::Note => "note",
        Weight::Files => "files",
        Weight::Ledger => "ledger",
    };
    let finding = |finding: &Finding| json!({ "mend": finding.mend, "problem": finding.problem, "weight": weight(finding.weight) });
    json!({
        "clean": checked.is_clean(),
        "findings": checked.findings.iter().map(finding).collect::<Vec<_>>(),
        "certificates": checked.certificates,
        "keys": checked.keys,
        "files": checked.files,
    })
}
