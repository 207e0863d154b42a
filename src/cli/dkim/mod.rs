//! `dkim ...`: DKIM keys and their rotation.

mod advance;
mod confirm;
mod import;
mod keys;
mod list;
mod revoke;
mod rotate;

use camino::Utf8Path;

use crate::cli::failure::Failure;
use crate::cli::report::Report;
use crate::dkim;
use crate::env::Env;
use crate::inventory::DkimAlgorithm;
use crate::names::{DomainName, NameError, Selector, shown};
use crate::store::Store;

pub(super) use self::advance::{Ways, advance_all, ask, moment};
pub(super) use self::confirm::record_in_force;
pub(super) use self::keys::make_missing;

/// `dkim ...`
#[derive(Debug, clap::Subcommand)]
pub(super) enum DkimCommand {
    /// Show what signs, since when, and what happens next and when
    List(list::List),
    /// Make new keys that take over once every name server has their records
    Rotate(rotate::Rotate),
    /// Do what is due: ask the name servers, switch, retire, destroy; for a timer, as each hour
    Advance(advance::Advance),
    /// Say what postseal cannot see: that records are published, or that hosts sign with what is rendered
    Confirm(confirm::Confirm),
    /// Take over the key that another mail server signs with, so that it can move here without a gap
    Import(import::Import),
    /// Revoke a key that others may have: an empty `p=` in its record, and its successor signs
    Revoke(revoke::Revoke),
}

/// `dkim ...`
pub(super) fn obey(env: &dyn Env, site: Option<&Utf8Path>, command: &DkimCommand) -> Result<Report, Failure> {
    match command {
        DkimCommand::Advance(args) => advance::advance(env, site, args),
        DkimCommand::Confirm(args) => confirm::confirm(env, site, args),
        DkimCommand::Import(args) => import::import(env, site, args),
        DkimCommand::List(args) => list::list(env, site, args),
        DkimCommand::Revoke(args) => revoke::revoke(env, site, args),
        DkimCommand::Rotate(args) => rotate::rotate(env, site, args),
    }
}

/// How a key is named on the command line: by its selector, or by its record's whole name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyName {
    selector: Selector,
    domain: Option<DomainName>,
}

impl std::str::FromStr for KeyName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let name = text.strip_suffix('.').unwrap_or(text);
        match name.split_once("._domainkey.") {
            Some((selector, domain)) => Ok(Self { selector: selector.parse()?, domain: Some(domain.parse()?) }),
            None if text.contains('.') => Err(NameError {
                problem: format!("`{}` names no DKIM key", shown(text)),
                mend: "write its selector, such as 202611r, or 202611r._domainkey.example.com".to_owned(),
            }),
            None => Ok(Self { selector: name.parse()?, domain: None }),
        }
    }
}

/// A key of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    domain: DomainName,
    algorithm: DkimAlgorithm,
    selector: Selector,
}

impl Named {
    fn record(&self) -> String {
        dkim::record_name(&self.selector, &self.domain)
    }
}

/// Finds a key by its name.
fn find(store: &Store, name: &KeyName) -> Result<Named, Failure> {
    let mut found = store.ledger().dkim_domains_of(&name.selector)?;
    found.retain(|(domain, _)| name.domain.as_ref().is_none_or(|wanted| wanted == domain));
    let selector = name.selector.clone();
    match found.as_slice() {
        [(domain, algorithm)] => Ok(Named { domain: domain.clone(), algorithm: *algorithm, selector }),
        [] => {
            let whose = name.domain.as_ref().map_or_else(String::new, |domain| format!(" of {domain}"));
            let message = format!("there is no DKIM key{whose} with the selector `{selector}`");
            Err(Failure::input("dkim-key-unknown", message, "see the keys: postseal dkim list"))
        }
        [(first, _), (second, _), ..] => {
            let message = format!("several domains have a DKIM key with the selector `{selector}`");
            let help =
                format!("write which one is meant: {selector}._domainkey.{first}, {selector}._domainkey.{second}");
            Err(Failure::input("dkim-key-ambiguous", message, help))
        }
    }
}
