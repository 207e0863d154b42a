//! Why a file differs from what was blessed. What golden files name (selectors, serials, the CA) is compared with what exists
//! now, so that a clone without the ledger gives the same reasons.

use std::collections::{BTreeMap, BTreeSet};

use camino::Utf8Path;
use time::OffsetDateTime;

use crate::dkim;
use crate::dns::zone;
use crate::inventory::{DkimAlgorithm, DkimKey, DkimState, Inventory, NextKey, ServerCertificate, SiteCa};
use crate::names::{Digest, DomainName, HostName, Selector, Serial};
use crate::pki::Certificate;
use crate::plan::{Difference, Files};
use crate::records;
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
        let lines = unequal(&change.path, &old, &new);
        let touching = facts.iter().filter(|fact| old != new && fact.touches(&change.path, &lines));
        change.reasons.extend(touching.map(|fact| fact.text.clone()));
        if old != text(golden) || there(&then) != there(golden) {
            change.reasons.push(NOT_THE_LEDGER.to_owned());
        }
    }
}

/// Something that exists now and did not when golden was blessed, or the reverse, or is another.
struct Fact<'a> {
    text: String,
    about: About<'a>,
}

/// What a fact is about: the files that it may be the reason of.
enum About<'a> {
    /// Whatever has one of these words in its path or in a line that differs.
    Words(Vec<String>),
    /// What tells of a key: its zone, and which files of keys a host has.
    Record(&'a DkimKey),
    /// That, of both, and what says which of them signs.
    Signer(&'a DkimKey, Option<&'a DkimKey>),
}

impl Fact<'_> {
    /// Tells whether it is about the path, or about one of the lines by which the file differs.
    fn touches(&self, path: &Utf8Path, lines: &[Line<'_>]) -> bool {
        let any = |is_about: &dyn Fn(&str) -> bool| lines.iter().any(|(_, line)| is_about(line));
        match &self.about {
            About::Words(words) => words
                .iter()
                .any(|word| path.as_str().contains(word.as_str()) || any(&|line| line.contains(word.as_str()))),
            About::Record(key) => any(&tells(path, key, false)),
            About::Signer(key, None) => any(&tells(path, key, true)),
            About::Signer(key, Some(other)) => any(&tells(path, key, true)) || any(&tells(path, other, true)),
        }
    }
}

/// A line with the one above it.
type Line<'a> = (&'a str, &'a str);

/// Returns the lines that one text has and the other has not. In a zone a record is another one if the remark above is.
fn unequal<'a>(path: &Utf8Path, old: &'a str, new: &'a str) -> Vec<Line<'a>> {
    let is_zone = path.starts_with("dns");
    let lines = |text: &'a str| -> BTreeSet<Line<'a>> {
        let above = std::iter::once("").chain(text.lines());
        above.zip(text.lines()).map(|(above, line)| (if is_zone { above } else { "" }, line)).collect()
    };
    lines(old).symmetric_difference(&lines(new)).copied().collect()
}

/// Returns whether a line of a file tells of a key: in a zone its record, in a MANIFEST its file, and, `if_signing`, in any
/// other file what says that it signs.
fn tells(path: &Utf8Path, key: &DkimKey, if_signing: bool) -> impl Fn(&str) -> bool {
    let (file, line_of_map) = (dkim::key_file_name(key), format!("{} {}", key.domain, key.selector));
    let (listed, named) = (format!("/{file} "), format!("/{file}\""));
    let record = format!("{}. ", dkim::record_name(&key.selector, &key.domain));
    let (is_zone, is_its_zone) = (path.starts_with("dns"), path == zone_path(&key.domain));
    let is_manifest = path.file_name() == Some(MANIFEST);
    move |line| match () {
        () if is_zone => is_its_zone && line.starts_with(&record),
        () if is_manifest => line.contains(&listed),
        () => if_signing && (line == line_of_map || line.contains(&named)),
    }
}

fn zone_path(domain: &DomainName) -> String {
    format!("dns/{domain}.zone")
}

/// Returns what golden files say exists. What they do not name is taken from what exists now: a file that was taken out of
/// golden makes nothing new.
fn blessed(golden: &Files, inventory: &Inventory) -> Inventory {
    let mut dkim_keys: Vec<DkimKey> = golden.iter().flat_map(|(path, text)| zone_keys(path, text, golden)).collect();
    let is_known = |domain: &DomainName| inventory.dkim_keys_of(domain).iter().any(|key| is_listed(golden, key));
    let has_zone = |domain: &DomainName| golden.contains_key(Utf8Path::new(&zone_path(domain)));
    let named =
        |key: &&DkimKey| dkim_keys.iter().any(|old| (&old.domain, &old.selector) == (&key.domain, &key.selector));
    let unnamed =
        inventory.dkim_keys.iter().filter(|key| !has_zone(&key.domain) && is_known(&key.domain) && !named(key));
    let unnamed: Vec<_> = unnamed.cloned().collect();
    dkim_keys.extend(unnamed);
    dkim_keys.sort_by(|a, b| (&a.domain, a.algorithm, &a.selector).cmp(&(&b.domain, b.algorithm, &b.selector)));
    let found = || golden.iter().filter_map(|(path, text)| certificate(path, text));
    let site_ca = found().find_map(|(_, ca)| ca);
    let mut server_certificates: Vec<ServerCertificate> = found().map(|(certificate, _)| certificate).collect();
    let named = |now: &&ServerCertificate| server_certificates.iter().any(|old| old.host == now.host);
    let unnamed: Vec<_> = inventory.server_certificates.iter().filter(|now| !named(now)).cloned().collect();
    server_certificates.extend(unnamed);
    let next_keys = next_keys(golden, inventory, &server_certificates);
    // Where policies stand is not read back: what they changed is told as a change of the settings.
    let rollouts = inventory.rollouts.clone();
    Inventory { site_ca, server_certificates, next_keys, dkim_keys, rollouts, ..Inventory::default() }
}

/// Reads the keys of next certificates from the TLSA records of golden: of a host's keys the one that its certificate has not.
/// A host without TLSA records there has the key that waits now.
fn next_keys(golden: &Files, inventory: &Inventory, certificates: &[ServerCertificate]) -> Vec<NextKey> {
    let mut records: BTreeMap<&str, Vec<Digest>> = BTreeMap::new();
    for (host, key) in
        golden.iter().filter(|(path, _)| path.starts_with("dns")).flat_map(|(_, text)| zone::tlsa_records(text))
    {
        records.entry(host).or_default().push(key);
    }
    let read = records.iter().filter_map(|(host, keys)| {
        let present = spki(certificates.iter().find(|one| one.host.as_str() == *host)?);
        let spki = *keys.iter().find(|key| Some(**key) != present)?;
        Some(NextKey { host: host.parse().ok()?, key: Digest::of(&[]), spki, since: OffsetDateTime::UNIX_EPOCH })
    });
    let unnamed = inventory.next_keys.iter().filter(|key| !records.contains_key(key.host.as_str())).cloned();
    let mut keys: Vec<NextKey> = read.chain(unnamed).collect();
    keys.sort_by(|a, b| a.host.cmp(&b.host));
    keys
}

fn spki(certificate: &ServerCertificate) -> Option<Digest> {
    let leaf = Certificate::from_pem(&certificate.chain).ok()?;
    Some(Digest::of(&leaf.facts().spki))
}

/// Tells whether a host of golden has a key's file.
fn is_listed(golden: &Files, key: &DkimKey) -> bool {
    let name = format!("/{} ", dkim::key_file_name(key));
    golden.iter().any(|(path, text)| path.file_name() == Some(MANIFEST) && text.contains(&name))
}

/// Reads the DKIM keys of a zone; since when they stand there, and where their private halves lie, stands nowhere in golden.
fn zone_keys(path: &Utf8Path, text: &str, golden: &Files) -> Vec<DkimKey> {
    if !path.starts_with("dns") {
        return Vec::new();
    }
    let key = |(remark, name, value): (&str, &str, String)| {
        let (selector, domain) = name.split_once("._domainkey.")?;
        let (algorithm, public) = dkim::read_record(&value)?;
        let what = (domain.parse().ok()?, algorithm);
        let (public, private) = (public.to_owned(), Digest::of(&[]));
        let key = DkimKey::new(what, selector.parse::<Selector>().ok()?, (public, private), OffsetDateTime::UNIX_EPOCH);
        Some(DkimKey { state: blessed_state(&key, remark, golden), ..key })
    };
    zone::txt_records(text).filter_map(key).collect()
}

/// Returns where a key stood when golden was blessed. An empty record is revoked; of the others the remark above tells, and
/// if another release worded it, who signs and whose file is there.
fn blessed_state(key: &DkimKey, remark: &str, golden: &Files) -> DkimState {
    if key.public.is_empty() {
        return DkimState::Revoked;
    }
    let states = [DkimState::Published, DkimState::Active, DkimState::Retiring];
    if let Some(state) = states.into_iter().find(|state| remark.starts_with(records::dkim_reason(*state))) {
        return state;
    }
    let mut of_hosts = golden.iter().filter(|(path, _)| path.file_name() != Some(MANIFEST) && !path.starts_with("dns"));
    if of_hosts.any(|(path, text)| text.lines().any(tells(path, key, true))) {
        return DkimState::Active;
    }
    if is_listed(golden, key) { DkimState::Retiring } else { DkimState::Published }
}

/// Reads an issued certificate, `HOST/root/.../tls/HOST-SERIAL.pem`, and the site CA behind it.
fn certificate(path: &Utf8Path, text: &str) -> Option<(ServerCertificate, Option<SiteCa>)> {
    let host: HostName = path.iter().next()?.parse().ok()?;
    let name = path.file_name()?.strip_suffix(".pem")?;
    let serial: Serial = name.strip_prefix(host.as_str())?.strip_prefix('-')?.parse().ok()?;
    let chain = Certificate::all_from_pem(text).unwrap_or_default();
    let not_after = chain.first().map_or(OffsetDateTime::UNIX_EPOCH, |leaf| leaf.facts().not_after);
    let ca = chain.get(1).map(|ca| SiteCa { certificate: ca.pem(), not_after: ca.facts().not_after });
    Some((
        ServerCertificate { host, serial, chain: text.to_owned(), key: Digest::of(&[]), not_after, former: None },
        ca,
    ))
}

fn facts<'a>(old: &'a Inventory, new: &'a Inventory) -> Vec<Fact<'a>> {
    let hosts = steps(&old.server_certificates, &new.server_certificates, |one| {
        (one.host.clone(), one.serial.to_string(), one.chain.clone())
    });
    let certificates = hosts.into_iter().filter_map(|(old, new)| certificate_fact(old, new));
    let waiting =
        steps(&old.next_keys, &new.next_keys, |one| (one.host.clone(), one.spki.to_string(), one.spki.to_string()));
    let waiting = waiting.into_iter().filter_map(|(old, new)| next_key_fact(old, new));
    let keys = key_facts(&old.dkim_keys, &new.dkim_keys);
    ca_fact(old, new).into_iter().chain(certificates).chain(waiting).chain(keys).collect()
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

fn ca_fact<'a>(old: &Inventory, new: &Inventory) -> Option<Fact<'a>> {
    let (old, new) = (&old.site_ca.as_ref()?.certificate, &new.site_ca.as_ref()?.certificate);
    // The first line after the frame holds the serial.
    let mark = |pem: &String| pem.lines().nth(1).map(str::to_owned);
    let marks = [mark(old), mark(new)].into_iter().flatten().collect();
    (old != new).then(|| Fact { text: format!("site CA: made anew{}", validity(new)), about: About::Words(marks) })
}

fn certificate_fact<'a>(old: Option<&ServerCertificate>, new: Option<&ServerCertificate>) -> Option<Fact<'a>> {
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
    // Its files have its name, and a TLSA record its key.
    let marks = |one: &ServerCertificate| {
        std::iter::once(format!("{}-{}", one.host, one.serial)).chain(spki(one).map(|key| key.to_string()))
    };
    Some(Fact { text, about: About::Words(old.into_iter().chain(new).flat_map(marks).collect()) })
}

fn next_key_fact<'a>(old: Option<&NextKey>, new: Option<&NextKey>) -> Option<Fact<'a>> {
    let text = match (old, new) {
        (Some(old), Some(NextKey { host, spki, .. })) => {
            format!("next key of {host}: {} → {}", old.spki.short(), spki.short())
        }
        (None, Some(NextKey { host, spki, .. })) => format!("a next key of {host} waits: {}", spki.short()),
        (Some(old), None) => format!("the next key of {} waits no more: {}", old.host, old.spki.short()),
        (None, None) => return None,
    };
    Some(Fact { text, about: About::Words(old.into_iter().chain(new).map(|key| key.spki.to_string()).collect()) })
}

/// Returns the first and the last day of a PEM text's first certificate.
fn validity(pem: &str) -> String {
    let day = |moment: OffsetDateTime| moment.date();
    Certificate::from_pem(pem).map_or_else(
        |_| String::new(),
        |one| format!(", valid {} to {}", day(one.facts().not_before), day(one.facts().not_after)),
    )
}

/// Returns what became of keys: of each domain and algorithm first who signs now, then what each key came to besides.
fn key_facts<'a>(old: &'a [DkimKey], new: &'a [DkimKey]) -> Vec<Fact<'a>> {
    type Line<'a> = BTreeMap<&'a Selector, Step<'a, DkimKey>>;
    let mut lines: BTreeMap<(&DomainName, DkimAlgorithm), Line<'a>> = BTreeMap::new();
    for (side, key) in old.iter().map(|key| (0, key)).chain(new.iter().map(|key| (1, key))) {
        let line = lines.entry((&key.domain, key.algorithm)).or_default();
        let step = line.entry(&key.selector).or_default();
        if side == 0 { step.0 = Some(key) } else { step.1 = Some(key) }
    }
    let facts = lines.values().flat_map(|line| {
        let signs = |key: Option<&'a DkimKey>| key.filter(|key| key.state == DkimState::Active);
        let before = line.values().find_map(|(old, _)| signs(*old));
        let now = line.values().find_map(|(_, new)| signs(*new));
        let turn =
            if before.map(|key| &key.selector) == now.map(|key| &key.selector) { None } else { turn(before, now) };
        turn.into_iter()
            .chain(line.values().filter_map(move |(old, new)| key_fact(*old, *new, now.is_some())))
            .collect::<Vec<_>>()
    });
    facts.collect()
}

fn since(key: &DkimKey) -> String {
    format!("{} since {}", key.state.as_str(), key.since.date())
}

fn line_of(key: &DkimKey) -> String {
    format!("{} ({})", key.domain, key.algorithm.as_str())
}

/// Says that another key signs now.
fn turn<'a>(before: Option<&'a DkimKey>, now: Option<&'a DkimKey>) -> Option<Fact<'a>> {
    let text = match (before, now) {
        (Some(before), Some(now)) => {
            format!("rotation of {}: {} → {}, {}", line_of(now), before.selector, now.selector, since(now))
        }
        (None, Some(now)) => format!("new DKIM key of {}: selector {}, {}", line_of(now), now.selector, since(now)),
        (Some(before), None) => format!("no DKIM key of {} signs any more: {} did", line_of(before), before.selector),
        (None, None) => return None,
    };
    now.or(before).map(|one| Fact { text, about: About::Signer(one, before) })
}

/// Says what a key came to, unless [`turn`] does: that it signs, or does not any more because another one does.
fn key_fact<'a>(old: Option<&'a DkimKey>, new: Option<&'a DkimKey>, is_signed: bool) -> Option<Fact<'a>> {
    let key = new.or(old)?;
    let name = format!("{} of {}", key.selector, key.domain);
    let states = (old.map(|key| key.state), new.map(|key| key.state));
    let other = old.zip(new).filter(|(old, new)| {
        let is_public = |key: &DkimKey| key.state < DkimState::Revoked;
        is_public(old) && is_public(new) && old.public != new.public
    });
    let text = match states {
        _ if other.is_some() => {
            let since = since(key);
            format!(
                "DKIM key of {}: golden/ has another one under the selector {}, {since}",
                line_of(key),
                key.selector
            )
        }
        (None | Some(DkimState::Published), Some(DkimState::Active)) => return None,
        (Some(DkimState::Active), Some(DkimState::Retiring)) if is_signed => return None,
        (old, new) if old == new => return None,
        (None, Some(DkimState::Generated | DkimState::Published)) => format!("{name} is published before it signs"),
        (_, Some(DkimState::Revoked)) => format!("{name} is revoked (empty p=), since {}", key.since.date()),
        (_, None) => format!("{name} is gone: destroyed"),
        (_, Some(DkimState::Retiring)) => format!("{name} signs no more, {}", since(key)),
        (Some(old), Some(_)) => format!("{name} was {} in golden/, {}", old.as_str(), since(key)),
        (None, Some(_)) => format!("{name} is new, {}", since(key)),
    };
    // Whoever sees another key under a name looks for it wherever that stands.
    let about = if other.is_some() { About::Signer(key, None) } else { About::Record(key) };
    Some(Fact { text, about })
}
