//! What the web server's own program says to the files that are staged for it.

use std::fmt::Write as _;

use camino::{Utf8Path, Utf8PathBuf};

use super::{CHECK, Judge, file_name, said};
use crate::diag::Diagnostic;
use crate::host::HostError;
use crate::install::Found;
use crate::platform::{WebDaemon, WebServer};
use crate::secret::Secret;
use crate::tree::Part;

impl Judge<'_> {
    /// The certificates of another system are where this machine's programs do not look, so they are asked on the running one.
    pub(super) fn web(&mut self) -> Result<(), HostError> {
        let machine = self.machine;
        let server = machine.host.web.as_ref().map(|web| web.server);
        let Some((server, daemon)) = server.and_then(|server| Some((server, machine.layout.web.daemon(server)?)))
        else {
            return Ok(());
        };
        if !machine.is_running() {
            self.verdict.notes.push(format!("`{}` was not asked: this is not its host", server.as_str()));
            return Ok(());
        }
        self.web_included(server, daemon)?;
        let checks = Utf8Path::new(machine.layout.smtpd_dir).join(CHECK);
        self.clear(&checks)?;
        machine.root.make_directory(&checks, (0, 0), 0o700)?;
        let answer = self.web_in(server, &checks);
        self.clear(&checks)?;
        answer
    }

    fn web_in(&mut self, server: WebServer, checks: &Utf8Path) -> Result<(), HostError> {
        let root = &self.machine.root;
        let place = |copy: &Utf8Path, text: Secret| {
            root.stage(copy, &text, (0, 0), 0o600)?;
            root.switch(copy)
        };
        let mut copies: Vec<Utf8PathBuf> = Vec::new();
        for step in &self.installation.steps {
            let wanted = step.wanted.as_ref().filter(|wanted| wanted.part == Part::WebConf(server));
            let Some(text) = wanted.and_then(|wanted| wanted.content.as_ref()?.expose_str()) else { continue };
            let copy = checks.join(file_name(&step.path));
            place(&copy, text.to_owned().into())?;
            copies.push(root.outside(&copy));
        }
        // nginx is given a configuration of nothing else, for it cannot be told to take one file for another.
        let main = checks.join("main.conf");
        let mut text = format!("events {{ }}\nerror_log stderr;\npid {};\n", root.outside(&checks.join("pid")));
        text.push_str("http {\naccess_log off;\n");
        for copy in &copies {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "include {copy};");
        }
        text.push_str("}\n");
        let config = match (server, copies.as_slice()) {
            (WebServer::Nginx, _) => {
                place(&main, text.into())?;
                root.outside(&main)
            }
            (_, [only, ..]) => only.clone(),
            (_, []) => return Ok(()),
        };
        let arguments = match server {
            WebServer::Caddy => vec!["adapt", "--adapter", "caddyfile", "--config", config.as_str()],
            WebServer::Httpd => vec!["-n", "-f", config.as_str()],
            WebServer::Nginx => vec!["-t", "-q", "-c", config.as_str()],
        };
        let name = server.as_str();
        let Some(finished) = self.ask(name, &arguments, None)? else {
            self.missing(name, name);
            return Ok(());
        };
        if !finished.success {
            let message = format!("{name} would not take what is rendered for it");
            let help = "mend what it names: a certificate, or a template of yours";
            let places = format!("{}/", root.outside(checks));
            self.refusal(Diagnostic::error("web-refuses", message, help), &said(&finished).replace(&places, ""));
        }
        Ok(())
    }

    /// What nothing includes is served by nobody.
    fn web_included(&mut self, server: WebServer, daemon: &WebDaemon) -> Result<(), HostError> {
        let (main, conf) = (Utf8Path::new(daemon.main), Utf8Path::new(daemon.conf));
        let text = match self.machine.root.look(main)? {
            Found::File(_, _, text) => String::from_utf8_lossy(text.expose()).into_owned(),
            _ => String::new(),
        };
        let word = if server == WebServer::Caddy { "import" } else { "include" };
        // By its own name, or by a pattern for all of its directory.
        let directory = conf.parent().map(|parent| format!("{}/*", file_name(parent))).unwrap_or_default();
        let names_it = |line: &str| line.contains(file_name(conf)) || line.contains(&directory);
        let mut lines = text.lines().map(str::trim_start);
        if !lines.any(|line| line.starts_with(word) && names_it(line)) {
            let semicolon = if server == WebServer::Nginx { ";" } else { "" };
            let quote = if server == WebServer::Httpd { "\"" } else { "" };
            let message = format!("`{main}` does not include `{conf}`, so none of it is served");
            let help = format!("add to it: {word} {quote}{conf}{quote}{semicolon}");
            self.warning("web-not-included", message, help);
        }
        Ok(())
    }
}
