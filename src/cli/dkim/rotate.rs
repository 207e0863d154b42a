//! `dkim rotate`: begins a rotation.

use camino::Utf8Path;

use super::advance::{self, Advanced, Ways};
use crate::cli::failure::Failure;
use crate::cli::report::Report;
use crate::cli::{session, show};
use crate::env::Env;
use crate::inventory::DkimAlgorithm;
use crate::names::DomainName;
use crate::site::{Domain, Site};

/// `dkim rotate`
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Rotate {
    /// One domain of the site [default: the only one]
    #[arg(value_name = "DOMAIN", conflicts_with_all = ["all", "due"])]
    domain: Option<DomainName>,
    /// Every domain
    #[arg(long, conflicts_with = "due")]
    all: bool,
    /// The domains whose keys are older than dkim.rotate_every
    #[arg(long)]
    due: bool,
    #[command(flatten)]
    ways: Ways,
}

/// `dkim rotate`
pub(super) fn rotate(env: &dyn Env, site: Option<&Utf8Path>, args: &Rotate) -> Result<Report, Failure> {
    let (wanted, mut store) = session::write(env, site)?;
    let lines = if args.due {
        if wanted.site.dkim.rotate_every.is_none() {
            let help = "write it into postseal.toml: [dkim] with rotate_every = 90; or name what to rotate";
            return Err(Failure::input("rotate-every-missing", "the settings do not say when a key is due", help));
        }
        advance::due_for_rotation(env, &wanted.site, &store)?
    } else {
        let domains = if args.all { wanted.site.domains.iter().collect() } else { vec![one(&wanted.site, args)?] };
        domains.into_iter().flat_map(lines_of).collect()
    };
    let mut advanced = Advanced::default();
    advanced.finish(advance::unfinished(&store)?);
    let begun = advance::begin_rotation(env, &mut store, &lines, &mut advanced)?;
    // What was just made is published nowhere yet; a standby key is, and signs after a last look.
    advance::advance_lines(env, &wanted.site, &mut store, &begun.by_standby, &args.ways, &mut advanced)?;
    advance::refresh_if_stale(&wanted, &store).map_err(|failure| failure.after("the rotation is recorded"))?;
    let mut report = advance::report(env, &advanced, &wanted, &store, false)?;
    let waits = |(domain, selector): &(DomainName, _)| format!("{domain}: {selector} is on its way already\n");
    report.text = begun.under_way.iter().map(waits).collect::<String>() + &report.text;
    Ok(report)
}

fn lines_of(domain: &Domain) -> impl Iterator<Item = (DomainName, DkimAlgorithm)> {
    domain.dkim.iter().map(|algorithm| (domain.name.clone(), *algorithm))
}

fn one<'a>(site: &'a Site, args: &Rotate) -> Result<&'a Domain, Failure> {
    if let Some(name) = &args.domain {
        show::known(site, name)?;
    }
    let named = |domain: &&Domain| args.domain.as_ref().is_none_or(|name| domain.name == *name);
    let mut domains = site.domains.iter().filter(named);
    let (one, another) = (domains.next(), domains.next());
    one.filter(|_| another.is_none()).ok_or_else(|| {
        let help = "name one, or write --all or --due";
        Failure::input("domain-not-named", "the site has several domains", help)
    })
}
