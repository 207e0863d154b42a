//! The logos that settings name: read, and refused unless receivers would show them.

use std::collections::{BTreeMap, BTreeSet};

use camino::Utf8Path;
use time::OffsetDateTime;

use crate::cli::draw;
use crate::cli::failure::Failure;
use crate::diag::{Diagnostic, Severity};
use crate::names::{DomainName, shell_word};
use crate::policy::bimi::{Mark, Unfit};
use crate::policy::svg::{self, LARGEST_DRAWING};
use crate::site::{Bimi, Site};
use crate::store::SiteDir;

/// In octets: a chain of three certificates, the first with a logo in it, has some 20,000.
pub(super) const LARGEST_CERTIFICATE: usize = 1 << 18;

/// How many findings about one logo are told here; `svg check` tells all.
const FEW: usize = 3;

/// Returns the text of each file of logos and their certificates, by its path below the site's directory.
pub(super) fn files(directory: &SiteDir, site: &Site) -> Result<BTreeMap<String, String>, Failure> {
    let (mut logos, mut certificates) = (BTreeSet::new(), BTreeSet::new());
    for domain in &site.domains {
        if let Bimi::Logo { file, certificate, .. } = &domain.bimi {
            logos.insert(file);
            certificates.extend(certificate);
        }
    }
    let (mut found, mut wrong, mut marks) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
    for file in logos {
        let octets = directory.bimi(file, LARGEST_DRAWING)?;
        match octets.map(|octets| svg::text(directory.path("bimi").join(file), &octets)) {
            None => wrong.push(missing(directory, file)),
            Some(Err(told)) => wrong.push(refused(directory, file, &[*told])),
            Some(Ok(source)) => {
                let errors: Vec<_> =
                    svg::check(&source).into_iter().filter(|told| told.severity == Severity::Error).collect();
                if errors.is_empty() {
                    found.insert(format!("bimi/{file}"), source.text.clone());
                } else {
                    wrong.push(refused(directory, file, &errors));
                }
            }
        }
    }
    for file in certificates {
        match directory.bimi(file, LARGEST_CERTIFICATE)? {
            None => wrong.push(missing(directory, file)),
            Some(octets) => match mark(&octets, &directory.path("bimi").join(file)) {
                Err(told) => wrong.push(*told),
                Ok(mark) => {
                    marks.insert(file, mark);
                    found.insert(format!("bimi/{file}"), String::from_utf8_lossy(&octets).into_owned());
                }
            },
        }
    }
    for domain in &site.domains {
        if let Bimi::Logo { file, certificate: Some(certificate), .. } = &domain.bimi
            && let Some((mark, logo)) = marks.get(certificate).zip(found.get(&format!("bimi/{file}")))
        {
            // When it ends is for `status` to say: what is published stays as it is.
            wrong.extend(misfits(mark, (logo, &domain.name), &directory.path("bimi").join(certificate)));
        }
    }
    // Nobody reads more at once.
    wrong.truncate(50);
    if wrong.is_empty() { Ok(found) } else { Err(Failure::Input(wrong)) }
}

/// Reads a certificate.
pub(super) fn mark(octets: &[u8], file: &Utf8Path) -> Result<Mark, Box<Diagnostic>> {
    Mark::read(&String::from_utf8_lossy(octets)).map_err(|unfit| Box::new(told(&unfit, file)))
}

/// Returns what of a certificate does not fit to a logo and its domain.
pub(super) fn misfits(mark: &Mark, (logo, domain): (&str, &DomainName), file: &Utf8Path) -> Vec<Diagnostic> {
    mark.misfits(logo.as_bytes(), domain).iter().map(|unfit| told(unfit, file)).collect()
}

/// Tells of a certificate that has not begun or has ended.
pub(super) fn ended(mark: &Mark, file: &Utf8Path, now: OffsetDateTime) -> Option<Diagnostic> {
    let problem = if now < mark.not_before {
        format!("the certificate begins on {}", mark.not_before.date())
    } else if now > mark.not_after {
        format!("the certificate ended on {}", mark.not_after.date())
    } else {
        return None;
    };
    Some(told(&Unfit { problem, mend: "order the next one, and look at the clock" }, file))
}

fn told(unfit: &Unfit, file: &Utf8Path) -> Diagnostic {
    Diagnostic::error("bimi-certificate", format!("`{file}`: {}", unfit.problem), unfit.mend)
}

fn missing(directory: &SiteDir, file: &str) -> Diagnostic {
    let path = directory.path("bimi").join(file);
    let help = "put the file there, or take `bimi.logo` out of the settings";
    Diagnostic::error("bimi-file-missing", format!("there is no file `{path}`, which the settings name"), help)
}

fn refused(directory: &SiteDir, file: &str, errors: &[Diagnostic]) -> Diagnostic {
    let path = directory.path("bimi").join(file);
    let help = format!(
        "look at all that is wrong: postseal svg check {0}; and mend it: postseal svg fix --in-place {0}",
        shell_word(path.as_str())
    );
    let told = Diagnostic::error("bimi-logo", format!("the logo `{path}` is none that receivers show"), help);
    let shown = draw::short(errors.get(..FEW).unwrap_or(errors));
    shown.lines().fold(told, Diagnostic::note)
}
