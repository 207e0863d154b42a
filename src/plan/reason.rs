//! Why a file differs from what was blessed. What golden files name (selectors, serials, the CA) is compared with what exists
//! now, so that a clone without the ledger gives the same reasons.

use std::collections::BTreeMap;

use camino::Utf8Path;
use time::OffsetDateTime;

use crate::dkim;
use crate::dns::zone;
use crate::inventory::{DkimKey, DkimState, Inventory, ServerCertificate, SiteCa};
use crate::names::{Digest, HostName, Selector, Serial};
use crate::pki::Certificate;
use crate::plan::{Difference, Files};
use crate::tree::MANIFEST;

/// What is left when it is not the ledger.
pub const NOT_THE_LEDGER: &str = "settings, templates or postseal itself changed, or golden/ was edited";

/// Adds to each change why it came. `render` tells what today's settings and templates make of another inventory, or none if
/// that cannot be rendered.
pub fn explain(
    difference: &mut Difference,
    golden: &Files,
    rendered: &Files,
    inventory: &Inventory,
    render: impl FnOnce(&Inventory) -> Option<Files>,
) {
    let blessed = blessed(golden, inventory);
    let facts = facts(&blessed, inventory);
    // What today's settings would have made of what was blessed parts the ledger's changes from all others.
    let then = if facts.is_empty() { Some(rendered.clone()) } else { render(&blessed) };
    let Some(then) = then else { return };
    for change in &mut difference.changes {
        let text = |files: &Files| files.get(&change.path).cloned().unwrap_or_default();
        let there = |files: &Files| files.contains_key(&change.path);
        let (old, new) = (text(&then), text(rendered));
        let touching = facts.iter().filter(|fact| old != new && fact.touches(&change.path, &old, &new));
        change.reasons.extend(touching.map(|fact| fact.text.clone()));
        if old != text(golden) || there(&then) != there(golden) {
            change.reasons.push(NOT_THE_LEDGER.to_owned());
        }
    }
}

/// Something that exists now and did not when golden was blessed, or the reverse.
struct Fact {
    text: String,
    /// The words by which files speak of it.
    marks: Vec<String>,
}

impl Fact {
    fn touches(&self, path: &Utf8Path, old: &str, new: &str) -> bool {
        self.marks.iter().any(|mark| {
            let about = |text: &str| -> Vec<String> {
                text.lines().filter(|line| line.contains(mark.as_str())).map(str::to_owned).collect()
            };
            path.as_str().contains(mark.as_str()) || about(old) != about(new)
        })
    }
}

/// Returns what golden files say exists. What they do not name is taken from what exists now: a file that was taken out of
/// golden makes nothing new.
fn blessed(golden: &Files, inventory: &Inventory) -> Inventory {
    let mut dkim_keys: Vec<DkimKey> = golden.iter().flat_map(|(path, text)| zone_keys(path, text)).collect();
    let listed = |key: &&DkimKey| {
        let name = format!("/{} ", dkim::key_file_name(key));
        golden.iter().any(|(path, text)| path.file_name() == Some(MANIFEST) && text.contains(&name))
    };
    let named =
        |key: &&DkimKey| dkim_keys.iter().any(|old| (&old.domain, &old.selector) == (&key.domain, &key.selector));
    let unnamed: Vec<_> = inventory.dkim_keys.iter().filter(|key| listed(key) && !named(key)).cloned().collect();
    dkim_keys.extend(unnamed);
    dkim_keys.sort_by(|a, b| (&a.domain, a.algorithm, &a.selector).cmp(&(&b.domain, b.algorithm, &b.selector)));
    let found = || golden.iter().filter_map(|(path, text)| certificate(path, text));
    let site_ca = found().find_map(|(_, ca)| ca);
    let mut server_certificates: Vec<ServerCertificate> = found().map(|(certificate, _)| certificate).collect();
    let named = |now: &&ServerCertificate| server_certificates.iter().any(|old| old.host == now.host);
    let unnamed: Vec<_> = inventory.server_certificates.iter().filter(|now| !named(now)).cloned().collect();
    server_certificates.extend(unnamed);
    Inventory { site_ca, server_certificates, dkim_keys, ..Inventory::default() }
}

/// Reads the DKIM keys of a zone; since when they sign, and where their private halves lie, stands nowhere in golden.
fn zone_keys(path: &Utf8Path, text: &str) -> Vec<DkimKey> {
    if !path.starts_with("dns") {
        return Vec::new();
    }
    let key = |(name, value): (&str, String)| {
        let (selector, domain) = name.split_once("._domainkey.")?;
        let (algorithm, public) = dkim::read_record(&value)?;
        let what = (domain.parse().ok()?, algorithm);
        let (public, private) = (public.to_owned(), Digest::of(&[]));
        let key = DkimKey::new(what, selector.parse::<Selector>().ok()?, (public, private), OffsetDateTime::UNIX_EPOCH);
        Some(DkimKey { state: DkimState::Active, ..key })
    };
    zone::txt_records(text).filter_map(key).collect()
}

/// Reads an issued certificate, `HOST/root/.../tls/HOST-SERIAL.pem`, and the site CA behind it.
fn certificate(path: &Utf8Path, text: &str) -> Option<(ServerCertificate, Option<SiteCa>)> {
    let host: HostName = path.iter().next()?.parse().ok()?;
    let name = path.file_name()?.strip_suffix(".pem")?;
    let serial: Serial = name.strip_prefix(host.as_str())?.strip_prefix('-')?.parse().ok()?;
    let chain = Certificate::all_from_pem(text).unwrap_or_default();
    let not_after = chain.first().map_or(OffsetDateTime::UNIX_EPOCH, |leaf| leaf.facts().not_after);
    let ca = chain.get(1).map(|ca| SiteCa { certificate: ca.pem(), not_after: ca.facts().not_after });
    Some((ServerCertificate { host, serial, chain: text.to_owned(), key: Digest::of(&[]), not_after }, ca))
}

fn facts(old: &Inventory, new: &Inventory) -> Vec<Fact> {
    let hosts = steps(&old.server_certificates, &new.server_certificates, |one| {
        (one.host.clone(), one.serial.to_string(), one.chain.clone())
    });
    let domains = steps(&old.dkim_keys, &new.dkim_keys, |one| {
        ((one.domain.clone(), one.algorithm), one.selector.to_string(), one.public.clone())
    });
    let certificates = hosts.into_iter().filter_map(|(old, new)| certificate_fact(old, new));
    let keys = domains.into_iter().filter_map(|(old, new)| key_fact(old, new));
    ca_fact(old, new).into_iter().chain(certificates).chain(keys).collect()
}

/// What was and what is instead of it; one of them at least is there.
type Step<'a, T> = (Option<&'a T>, Option<&'a T>);

/// Pairs what is gone with what came in its place. `parts` returns what something is for, its name, and its content.
fn steps<'a, T, G: Ord>(old: &'a [T], new: &'a [T], parts: impl Fn(&T) -> (G, String, String)) -> Vec<Step<'a, T>> {
    type Group<'a, T> = BTreeMap<String, (String, &'a T)>;
    let mut groups: BTreeMap<G, [Group<'a, T>; 2]> = BTreeMap::new();
    for (side, one) in old.iter().map(|one| (0, one)).chain(new.iter().map(|one| (1, one))) {
        let (group, name, content) = parts(one);
        let [before, after] = groups.entry(group).or_default();
        if side == 0 { before } else { after }.insert(name, (content, one));
    }
    groups.into_values().flat_map(|[before, after]| within(&before, &after)).collect()
}

fn within<'a, T>(
    before: &BTreeMap<String, (String, &'a T)>,
    after: &BTreeMap<String, (String, &'a T)>,
) -> Vec<Step<'a, T>> {
    let both = before.iter().filter_map(|(name, old)| Some((old, after.get(name)?)));
    let mut steps: Vec<Step<'a, T>> =
        both.filter(|(old, new)| old.0 != new.0).map(|(old, new)| (Some(old.1), Some(new.1))).collect();
    let gone: Vec<_> = before.iter().filter(|(name, _)| !after.contains_key(*name)).map(|(_, (_, one))| *one).collect();
    let come: Vec<_> = after.iter().filter(|(name, _)| !before.contains_key(*name)).map(|(_, (_, one))| *one).collect();
    if let ([old], [new]) = (gone.as_slice(), come.as_slice()) {
        steps.push((Some(*old), Some(*new)));
    } else {
        steps.extend(gone.into_iter().map(|one| (Some(one), None)));
        steps.extend(come.into_iter().map(|one| (None, Some(one))));
    }
    steps
}

fn ca_fact(old: &Inventory, new: &Inventory) -> Option<Fact> {
    let (old, new) = (&old.site_ca.as_ref()?.certificate, &new.site_ca.as_ref()?.certificate);
    // The first line after the frame holds the serial.
    let mark = |pem: &String| pem.lines().nth(1).map(str::to_owned);
    let marks = [mark(old), mark(new)].into_iter().flatten().collect();
    (old != new).then(|| Fact { text: format!("site CA: made anew{}", validity(new)), marks })
}

fn certificate_fact(old: Option<&ServerCertificate>, new: Option<&ServerCertificate>) -> Option<Fact> {
    let text = match (old, new) {
        (Some(old), Some(ServerCertificate { host, serial, chain, .. })) if old.serial == *serial => {
            format!("certificate of {host}: golden/ has another one under the serial {serial}{}", validity(chain))
        }
        (Some(old), Some(ServerCertificate { host, serial, chain, .. })) => {
            format!("certificate of {host}: serial {} → {serial}{}", old.serial, validity(chain))
        }
        (None, Some(ServerCertificate { host, serial, chain, .. })) => {
            format!("new certificate of {host}: serial {serial}{}", validity(chain))
        }
        (Some(old), None) => format!("certificate of {} is gone: serial {}", old.host, old.serial),
        (None, None) => return None,
    };
    let mark = |one: &ServerCertificate| format!("{}-{}", one.host, one.serial);
    Some(Fact { text, marks: old.into_iter().chain(new).map(mark).collect() })
}

/// Returns the first and the last day of a PEM text's first certificate.
fn validity(pem: &str) -> String {
    let day = |moment: OffsetDateTime| moment.date();
    Certificate::from_pem(pem).map_or_else(
        |_| String::new(),
        |one| format!(", valid {} to {}", day(one.facts().not_before), day(one.facts().not_after)),
    )
}

fn key_fact(old: Option<&DkimKey>, new: Option<&DkimKey>) -> Option<Fact> {
    let since = |key: &DkimKey| format!("{} since {}", key.state.as_str(), key.since.date());
    let whose = |key: &DkimKey| format!("DKIM key of {} ({})", key.domain, key.algorithm.as_str());
    let text = match (old, new) {
        (Some(old), Some(new)) if old.selector == new.selector => {
            format!("{}: golden/ has another one under the selector {}, {}", whose(new), new.selector, since(new))
        }
        (Some(old), Some(new)) => {
            format!("{}: selector {} → {}, {}", whose(new), old.selector, new.selector, since(new))
        }
        (None, Some(new)) => format!("new {}: selector {}, {}", whose(new), new.selector, since(new)),
        (Some(old), None) => format!("{} is gone: selector {}", whose(old), old.selector),
        (None, None) => return None,
    };
    let marks = |key: &DkimKey| [dkim::record_name(&key.selector, &key.domain), dkim::key_file_name(key)];
    Some(Fact { text, marks: old.into_iter().chain(new).flat_map(marks).collect() })
}
