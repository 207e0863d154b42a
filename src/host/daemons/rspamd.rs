//! What `rspamadm` says of the staged files together with all others of the host, and whether Rspamd would sign.

use std::collections::BTreeMap;

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::Value;

use super::{CHECK, Judge, said};
use crate::diag::Diagnostic;
use crate::dkim;
use crate::host::HostError;
use crate::inventory::{DkimKey, DkimState};
use crate::platform::Layout;
use crate::site::Signing;

impl Judge<'_> {
    pub(super) fn rspamd(&mut self) -> Result<(), HostError> {
        let layout = self.machine.layout;
        let main = Utf8Path::new(layout.rspamd_dir).join("rspamd.conf");
        let root = &self.machine.root;
        // A directory that is only being filled is judged with the configuration of this machine's package.
        let main = [root.outside(&main), main].into_iter().find(|path| path.is_file());
        let Some(main) = main else {
            self.missing(&format!("{}/rspamd.conf", layout.rspamd_dir), "Rspamd");
            return Ok(());
        };
        let checks = Utf8Path::new(layout.rspamd_dir).join(CHECK);
        self.clear(&checks)?;
        root.make_directory(&checks, (0, 0), 0o755)?;
        let said = self.rspamd_in(&checks, &main);
        self.clear(&checks)?;
        said
    }

    fn rspamd_in(&mut self, checks: &Utf8Path, main: &Utf8Path) -> Result<(), HostError> {
        self.overlay(checks)?;
        let local = format!("--var=LOCAL_CONFDIR={}", self.machine.root.outside(checks));
        let state = format!("--var=DBDIR={}", self.machine.root.outside(self.machine.layout.rspamd_state.into()));
        // As Rspamd's own user: what it may not read stops it, and the Lua of another system's configuration runs here. Below
        // a directory that is only being filled all is ours, and that user may not reach it.
        let user = self.machine.accounts.user_and_group(self.machine.layout.rspamd_user).ok();
        let user = user.filter(|_| self.machine.is_system());
        let ask = |arguments: &[&str]| {
            let all: Vec<&str> = [&[local.as_str(), state.as_str()], arguments].concat();
            self.ask("rspamadm", &all, user)
        };
        let tested = ask(&["configtest", "-c", main.as_str()])?;
        let Some(tested) = tested else {
            self.missing("rspamadm", "Rspamd");
            return Ok(());
        };
        if !tested.success {
            let finding = Diagnostic::error(
                "rspamd-refuses",
                "Rspamd would not start with the new configuration",
                "mend what it names: a template of yours, or a file of yours in local.d or override.d",
            );
            let text =
                said(&tested).replace(self.machine.root.outside(checks).as_str(), self.machine.layout.rspamd_dir);
            self.refusal(finding, &text);
            return Ok(());
        }
        let dumped = ask(&["configdump", "-c", main.as_str(), "-j"])?;
        let model = dumped.and_then(|dumped| serde_json::from_str::<Value>(&dumped.output).ok());
        let sections = model.as_ref().map(|model| (model.get("dkim_signing"), model.get("worker")));
        if let Some((Some(signing), Some(workers))) = sections {
            self.signing(signing);
            self.socket(workers);
        } else {
            self.warning(
                "unjudged",
                "`rspamadm configdump` does not tell whether Rspamd would sign",
                "send a mail to yourself after the restart, and look at its signatures",
            );
        }
        Ok(())
    }

    /// Makes a directory that looks as the host's own for Rspamd will: links to what stays, and to what is staged.
    fn overlay(&self, checks: &Utf8Path) -> Result<(), HostError> {
        let root = &self.machine.root;
        let own = Utf8Path::new(self.machine.layout.rspamd_dir);
        let changed = ["local.d", "override.d"];
        for name in root.list(own)? {
            if !changed.contains(&name.as_str()) && !name.starts_with(CHECK) {
                root.link(&root.outside(&own.join(&name)), &checks.join(&name))?;
            }
        }
        for directory in changed {
            root.make_directory(&checks.join(directory), (0, 0), 0o755)?;
            let mut places: BTreeMap<String, Option<Utf8PathBuf>> = BTreeMap::new();
            for name in root.list(&own.join(directory))?.into_iter().filter(|name| !name.starts_with(".postseal-")) {
                let place = root.outside(&own.join(directory).join(&name));
                places.insert(name, Some(place));
            }
            let steps = self.installation.steps.iter().filter(|step| step.path.parent() == Some(&own.join(directory)));
            for step in steps {
                let name = step.path.file_name().unwrap_or_default().to_owned();
                if step.action.changes() {
                    places.insert(name, step.action.writes().then(|| root.staged(&step.path)));
                }
            }
            for (name, place) in places {
                if let Some(place) = place {
                    root.link(&place, &checks.join(directory).join(name))?;
                }
            }
        }
        Ok(())
    }

    /// Another file can take the place of what local.d says, silently: what counts is what Rspamd makes of them all.
    fn signing(&mut self, model: &Value) {
        let site = self.facts.site;
        let keys = self.facts.inventory.dkim_keys.iter();
        // What the settings give up goes on signing nowhere, and its turn is over at the next `dkim advance`.
        let active: Vec<_> = keys.filter(|key| key.state == DkimState::Active && site.signs(key)).collect();
        let enabled = model.get("enabled").is_none_or(|value| value != false);
        let signs = enabled && model.get("sign_authenticated").is_some_and(|value| value == true);
        for key in active {
            let is_there = match site.dkim.signing {
                Signing::Domains => has_block(model, key, &dkim::key_path(self.machine.layout, key)),
                Signing::SelectorMap => has_map(model, key, self.machine.layout),
            };
            if !signs || !is_there {
                let record = dkim::record_name(&key.selector, &key.domain);
                let message = format!("Rspamd would not sign with {record}");
                let help = format!(
                    "look what takes the place of local.d/dkim_signing.conf: {}/override.d, {}/dynamic, or a template of yours",
                    self.machine.layout.rspamd_dir, self.machine.layout.rspamd_state
                );
                // Whoever writes the template may sign by other means.
                if self.facts.own_signing {
                    self.warning("unsigned", message, help);
                } else {
                    self.error("unsigned", message, help);
                }
            }
        }
    }

    /// The filter asks Rspamd at one socket; where that is missing, every mail is put off.
    fn socket(&mut self, workers: &Value) {
        let wanted = format!("{}/normal.sock", self.machine.layout.rspamd_run);
        let listens = |socket: &Value| socket.as_str().is_some_and(|socket| socket.starts_with(&wanted));
        // One worker is an object, several are a list of them.
        let mut workers = workers.as_array().map_or_else(|| std::slice::from_ref(workers), Vec::as_slice).iter();
        let found = workers.any(|worker| match worker.pointer("/normal/bind_socket") {
            Some(Value::Array(sockets)) => sockets.iter().any(listens),
            Some(socket) => listens(socket),
            None => false,
        });
        if !found {
            let message = format!("Rspamd's normal worker would not listen at {wanted}, where the filter asks it");
            let help =
                format!("look what takes the place of local.d/worker-normal.inc in {}", self.machine.layout.rspamd_dir);
            self.error("rspamd-socket", message, help);
        }
    }
}

/// Tells whether a block of its domain names the key with its file.
fn has_block(model: &Value, key: &DkimKey, path: &str) -> bool {
    let selectors = model.pointer(&format!("/domain/{}/selectors", key.domain)).and_then(Value::as_array);
    let is_key = |entry: &Value| {
        entry.get("selector").is_some_and(|value| value == key.selector.as_str())
            && entry.get("path").is_some_and(|value| value == path)
    };
    selectors.is_some_and(|selectors| selectors.iter().any(is_key))
}

/// Tells whether the key is looked for in the map, which a block of its domain would take the place of.
fn has_map(model: &Value, key: &DkimKey, layout: &Layout) -> bool {
    let is = |name: &str, wanted: String| model.get(name).is_some_and(|value| *value == wanted);
    let block = model.pointer(&format!("/domain/{}", key.domain));
    is("selector_map", dkim::selector_map(layout)) && is("path", dkim::key_pattern(layout)) && block.is_none()
}
