//! `dns`: the records to publish, in the form that somebody needs.

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::json;

use crate::cli::args::{Dns, Format};
use crate::cli::failure::Failure;
use crate::cli::report::Report;
use crate::cli::{session, show};
use crate::dns::{Zone, dnscontrol, json, nsupdate, octodns, table, zone};
use crate::names::visible;
use crate::records;
use crate::store::files;

/// `dns`
pub(super) fn dns(site: Option<&Utf8Path>, args: &Dns, format: Format) -> Result<Report, Failure> {
    let wanted = session::Wanted::read(&session::directory(site))?;
    let inventory = show::inventory(site)?;
    let zones = match &args.domain {
        // Of thousands of domains, only the one is worked out.
        Some(name) => {
            let zone = records::zone_of(&wanted.site, &inventory, name);
            if zone.is_none() {
                show::known(&wanted.site, name)?;
            }
            zone.into_iter().collect()
        }
        None => records::zones(&wanted.site, &inventory),
    };
    let form = Form::of(format);
    if let Some(directory) = &args.output {
        return write_files(&zones, form, directory);
    }
    if form == Form::Octodns && zones.len() > 1 {
        let message = format!("octoDNS wants a file for each domain, and there are {}", zones.len());
        let help = "name a directory for them with --output, or one domain";
        return Err(Failure::input("dns-needs-directory", message, help));
    }
    let texts: Vec<String> = zones.iter().map(|zone| form.write(zone)).collect();
    Ok(Report::fine(texts.join("\n"), json::value(&zones)))
}

/// A form that has a file for each domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Dnscontrol,
    Nsupdate,
    Octodns,
    Table,
    Zone,
}

impl Form {
    fn of(format: Format) -> Self {
        match format {
            Format::Dnscontrol => Self::Dnscontrol,
            Format::Nsupdate => Self::Nsupdate,
            Format::Octodns => Self::Octodns,
            Format::Table => Self::Table,
            _ => Self::Zone,
        }
    }

    fn write(self, zone: &Zone) -> String {
        match self {
            Self::Dnscontrol => dnscontrol::write(zone),
            Self::Nsupdate => nsupdate::write(zone),
            Self::Octodns => octodns::write(zone),
            Self::Table => table::write(zone),
            Self::Zone => zone::write(zone),
        }
    }

    /// Returns how the file of a domain is named, as its reader looks for it.
    fn file_name(self, zone: &Zone) -> String {
        let ending = match self {
            Self::Dnscontrol => "js",
            Self::Nsupdate => "nsupdate",
            Self::Octodns => "yaml",
            Self::Table => "txt",
            Self::Zone => "zone",
        };
        format!("{}.{ending}", zone.domain)
    }
}

/// What the first line of each form says, behind the sign of a comment.
const MARK: &str = "Written by postseal: ";

/// Writes a file for each domain; none if one of them would replace what postseal did not write.
fn write_files(zones: &[Zone], form: Form, directory: &Utf8Path) -> Result<Report, Failure> {
    // What is missing above it was mistyped, or is a disk that is not there.
    let above = directory.parent().filter(|above| !above.as_str().is_empty());
    if let Some(above) = above
        && !files::exists(above)?
    {
        let message = format!("`{}` does not exist", visible(above.as_str()));
        let help = "look at the path of --output; only its last directory is made";
        return Err(Failure::input("no-such-file", message, help));
    }
    let mut due: Vec<(Utf8PathBuf, String)> = Vec::new();
    for zone in zones {
        let (path, text) = (directory.join(form.file_name(zone)), form.write(zone));
        match files::read(&path)? {
            Some(there) if there == text.as_bytes() => {}
            Some(there) if !is_ours(&there) => {
                let message = format!("postseal did not write `{}`", visible(path.as_str()));
                let help = "name another directory with --output, or move the file away";
                return Err(Failure::input("dns-file-of-others", message, help));
            }
            _ => due.push((path, text)),
        }
    }
    files::create_dir(directory, 0o755)?;
    for (path, text) in &due {
        files::write_listed(path, text.as_bytes(), 0o644)?;
    }
    let text = format!("{}: {} of {} files written\n", visible(directory.as_str()), due.len(), zones.len());
    let all: Vec<String> = zones.iter().map(|zone| form.file_name(zone)).collect();
    Ok(Report::fine(text, json!({ "directory": directory.as_str(), "files": all, "written": due.len() })))
}

fn is_ours(text: &[u8]) -> bool {
    let first = text.split(|octet| *octet == b'\n').next().unwrap_or_default();
    first.windows(MARK.len()).take(4).any(|window| window == MARK.as_bytes())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_form_is_known_for_postseals_own_and_nothing_else_is() {
        let zone = Zone { domain: "example.com".parse().unwrap(), records: Vec::new(), unaddressed: Vec::new() };
        for form in [Form::Dnscontrol, Form::Nsupdate, Form::Octodns, Form::Table, Form::Zone] {
            assert!(is_ours(form.write(&zone).as_bytes()), "{form:?}");
        }
        for other in ["", "; mine\n; Written by postseal: ", "mail: Written by postseal: x"] {
            assert!(!is_ours(other.as_bytes()), "{other}");
        }
    }
}
