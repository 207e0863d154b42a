//! `postseal.lock`: the public facts that rendering needs, for a machine without a ledger. Written for people to review,
//! read as if an enemy had written it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;

use camino::Utf8Path;
use serde::Deserialize;
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};
use toml::Spanned;

use crate::diag::{Diagnostic, Place, Source};
use crate::inventory::{
    CertificateStatus, DkimAlgorithm, DkimKey, DkimState, Inventory, IssuingCa, NextKey, Rollout, ServerCertificate,
    SiteCa,
};
use crate::names::{Digest, DomainName, HostName, Selector, Serial};
use crate::stages::{Stage, Track};

const HEADER: &str = "# Written by postseal from its ledger; do not edit it, commit it.
# It holds public facts only: what `postseal diff` needs where there is no ledger.
";

const VERSION: i64 = 1;

/// The longest `max_age` of MTA-STS (RFC 8461 §3.2).
const LONGEST_AGE: u32 = 31_557_600;

const MEND: &str = "write it anew with `postseal render` where the ledger is, and commit it";

/// Returns the text of `postseal.lock` for the public part of an inventory.
pub fn write(inventory: &Inventory) -> String {
    let mut text = format!("{HEADER}\nversion = {VERSION}\n");
    if let Some(ca) = &inventory.site_ca {
        text.push_str("\n[site_ca]\n");
        line(&mut text, "not_after", &moment(ca.not_after));
        line(&mut text, "certificate", &quoted(&ca.certificate));
    }
    for ca in inventory.live_issuing_cas() {
        text.push_str("\n[[issuing_ca]]\n");
        line(&mut text, "serial", &quoted(&ca.serial.to_string()));
        line(&mut text, "not_after", &moment(ca.not_after));
    }
    for certificate in &inventory.server_certificates {
        text.push_str("\n[[server_certificate]]\n");
        line(&mut text, "host", &quoted(certificate.host.as_str()));
        line(&mut text, "serial", &quoted(&certificate.serial.to_string()));
        line(&mut text, "key", &quoted(&certificate.key.to_string()));
        line(&mut text, "not_after", &moment(certificate.not_after));
        if let Some(former) = &certificate.former {
            line(&mut text, "former", &quoted(&former.to_string()));
        }
        line(&mut text, "chain", &quoted(&certificate.chain));
    }
    for key in &inventory.next_keys {
        text.push_str("\n[[next_key]]\n");
        line(&mut text, "host", &quoted(key.host.as_str()));
        line(&mut text, "key", &quoted(&key.key.to_string()));
        line(&mut text, "spki", &quoted(&key.spki.to_string()));
        line(&mut text, "since", &moment(key.since));
    }
    for key in inventory.dkim_keys.iter().map(DkimKey::public_part) {
        text.push_str("\n[[dkim_key]]\n");
        line(&mut text, "domain", &quoted(key.domain.as_str()));
        line(&mut text, "algorithm", &quoted(key.algorithm.as_str()));
        line(&mut text, "selector", &quoted(key.selector.as_str()));
        line(&mut text, "state", &quoted(key.state.as_str()));
        line(&mut text, "since", &moment(key.since));
        line(&mut text, "public", &quoted(&key.public));
        line(&mut text, "key", &quoted(&key.key.to_string()));
    }
    rollouts(&mut text, inventory);
    text
}

fn rollouts(text: &mut String, inventory: &Inventory) {
    for rollout in inventory.rollouts.iter().filter_map(Rollout::public_part) {
        text.push_str("\n[[rollout]]\n");
        line(text, "domain", &quoted(rollout.domain.as_str()));
        line(text, "track", &quoted(rollout.stage.track().as_str()));
        line(text, "stage", &quoted(rollout.stage.as_str()));
        line(text, "since", &moment(rollout.since));
        if let Some(max_age) = rollout.max_age {
            line(text, "max_age", &max_age.to_string());
        }
        for (name, hosts) in [("mx", &rollout.mx), ("also", &rollout.also)] {
            if !hosts.is_empty() {
                let hosts: Vec<String> = hosts.iter().map(|host| quoted(host.as_str())).collect();
                line(text, name, &format!("[{}]", hosts.join(", ")));
            }
        }
    }
}

fn line(text: &mut String, name: &str, value: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{name} = {value}");
}

/// Whole seconds of UTC. A year before 0, which no certificate has, becomes the year 0.
fn moment(at: OffsetDateTime) -> String {
    let at = at.to_offset(UtcOffset::UTC).truncate_to_second();
    at.format(&Rfc3339).unwrap_or_else(|_| "0000-01-01T00:00:00Z".to_owned())
}

/// A TOML string; one with lines stays readable as lines.
fn quoted(text: &str) -> String {
    let lines = text.contains('\n');
    let mut out = String::from(if lines { "\"\"\"\n" } else { "\"" });
    for c in text.chars() {
        match c {
            '\n' => out.push(c),
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push_str(if lines { "\"\"\"" } else { "\"" });
    out
}

/// Reads the text of `postseal.lock`; the path is for messages.
pub fn read(text: &str, path: &Utf8Path) -> Result<Inventory, Box<Diagnostic>> {
    // Git may have turned the line ends into its own, and a certificate's would be rendered.
    let source = Arc::new(Source { path: path.to_owned(), text: text.replace("\r\n", "\n") });
    let text = source.text.as_str();
    // The version first: what a newer one brings is not known here.
    let head: Head = toml::from_str(text).map_err(|error| unreadable(&source, &error))?;
    if *head.version.get_ref() != VERSION {
        let message =
            format!("`{path}` has version {}, and this postseal reads version {VERSION}", head.version.get_ref());
        let place = Place { source, span: head.version.span() };
        let diagnostic = Diagnostic::error("lock-version", message, "use the postseal that wrote it");
        return Err(Box::new(diagnostic.at(place, "")));
    }
    let file: File = toml::from_str(text).map_err(|error| unreadable(&source, &error))?;
    let unique = Unique { source: Arc::clone(&source) };
    unique.check("issuing CA of this serial", &file.issuing_ca, |ca| vec![ca.serial.1.as_str()])?;
    unique
        .check("certificate of this host", &file.server_certificate, |certificate| vec![certificate.host.as_str()])?;
    unique.check("next key of this host", &file.next_key, |key| vec![key.host.as_str()])?;
    unique.check("key of this domain with this selector", &file.dkim_key, |key| {
        vec![key.domain.as_str(), key.selector.as_str()]
    })?;
    unique.check("active key of this domain with this algorithm", &file.dkim_key, |key| match key.state {
        State::Active => vec![key.domain.as_str(), DkimAlgorithm::from(key.algorithm).as_str()],
        // Of these there may be several: a selector tells them apart, and was looked at above.
        State::Published | State::Retiring | State::Revoked => vec![key.domain.as_str(), key.selector.as_str(), ""],
    })?;
    unique.check("stage of this domain on this track", &file.rollout, |rollout| {
        vec![rollout.0.domain.as_str(), rollout.0.stage.track().as_str()]
    })?;
    Ok(inventory(file))
}

fn unreadable(source: &Arc<Source>, error: &toml::de::Error) -> Box<Diagnostic> {
    let what = error.message().trim_end().lines().collect::<Vec<_>>().join("; ");
    let diagnostic = Diagnostic::error("lock-unreadable", format!("`{}` cannot be read: {what}", source.path), MEND);
    Box::new(match error.span() {
        Some(span) => diagnostic.at(Place { source: Arc::clone(source), span }, ""),
        None => diagnostic,
    })
}

/// Finds what is there twice, as after a merge.
struct Unique {
    source: Arc<Source>,
}

impl Unique {
    fn check<T>(
        &self,
        what: &str,
        items: &[Spanned<T>],
        name: impl for<'a> Fn(&'a T) -> Vec<&'a str>,
    ) -> Result<(), Box<Diagnostic>> {
        let mut seen = BTreeSet::new();
        let twice = items.iter().find(|item| !seen.insert(name(item.get_ref())));
        twice.map_or(Ok(()), |item| Err(self.twice(what, item.span(), &name(item.get_ref()).join(" "))))
    }

    fn twice(&self, what: &str, span: Range<usize>, name: &str) -> Box<Diagnostic> {
        let message = format!("`{}` has two entries for `{name}`", self.source.path);
        let place = Place { source: Arc::clone(&self.source), span };
        Box::new(Diagnostic::error("lock-duplicate", message, MEND).at(place, format!("the second {what}")))
    }
}

fn inventory(file: File) -> Inventory {
    let mut inventory = Inventory {
        site_ca: file.site_ca.map(|ca| SiteCa { certificate: ca.certificate, not_after: ca.not_after.0 }),
        issuing_cas: file.issuing_ca.into_iter().map(|item| item.into_inner().into()).collect(),
        server_certificates: file.server_certificate.into_iter().map(|item| item.into_inner().into()).collect(),
        next_keys: file.next_key.into_iter().map(|item| item.into_inner().into()).collect(),
        dkim_keys: file.dkim_key.into_iter().map(|item| item.into_inner().into()).collect(),
        rollouts: file.rollout.into_iter().map(|item| item.into_inner().0).collect(),
        ..Inventory::default()
    };
    inventory.rollouts.sort_by(|a, b| (&a.domain, a.stage.track()).cmp(&(&b.domain, b.stage.track())));
    inventory.server_certificates.sort_by(|a, b| a.host.cmp(&b.host));
    inventory.next_keys.sort_by(|a, b| a.host.cmp(&b.host));
    inventory
        .dkim_keys
        .sort_by(|a, b| (&a.domain, a.algorithm, &a.selector).cmp(&(&b.domain, b.algorithm, &b.selector)));
    inventory
}

#[derive(Deserialize)]
struct Head {
    version: Spanned<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "version")]
    _version: i64,
    site_ca: Option<CaEntry>,
    #[serde(default)]
    issuing_ca: Vec<Spanned<IssuingEntry>>,
    #[serde(default)]
    server_certificate: Vec<Spanned<ServerEntry>>,
    #[serde(default)]
    next_key: Vec<Spanned<NextEntry>>,
    #[serde(default)]
    dkim_key: Vec<Spanned<DkimEntry>>,
    #[serde(default)]
    rollout: Vec<Spanned<RolloutEntry>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaEntry {
    certificate: String,
    not_after: Moment,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IssuingEntry {
    serial: Named<Serial>,
    not_after: Moment,
}

impl From<IssuingEntry> for IssuingCa {
    fn from(entry: IssuingEntry) -> Self {
        let IssuingEntry { serial, not_after } = entry;
        let status = CertificateStatus::Live;
        Self { serial: serial.0, status, not_after: not_after.0, successor: None, crl: None }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ServerEntry {
    host: HostName,
    serial: Text<Serial>,
    key: Text<Digest>,
    not_after: Moment,
    former: Option<Text<Digest>>,
    chain: String,
}

impl From<ServerEntry> for ServerCertificate {
    fn from(entry: ServerEntry) -> Self {
        let ServerEntry { host, serial, key, not_after, former, chain } = entry;
        let former = former.map(|former| former.0);
        Self { host, serial: serial.0, chain, key: key.0, not_after: not_after.0, former }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NextEntry {
    host: HostName,
    key: Text<Digest>,
    spki: Text<Digest>,
    since: Moment,
}

impl From<NextEntry> for NextKey {
    fn from(entry: NextEntry) -> Self {
        let NextEntry { host, key, spki, since } = entry;
        Self { host, key: key.0, spki: spki.0, since: since.0 }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DkimEntry {
    domain: DomainName,
    algorithm: Algorithm,
    selector: Selector,
    state: State,
    since: Moment,
    public: Text<Base64>,
    key: Text<Digest>,
}

impl From<DkimEntry> for DkimKey {
    fn from(entry: DkimEntry) -> Self {
        let DkimEntry { domain, algorithm, selector, state, since, public, key } = entry;
        let state = match state {
            State::Active => DkimState::Active,
            State::Published => DkimState::Published,
            State::Retiring => DkimState::Retiring,
            State::Revoked => DkimState::Revoked,
        };
        let made = Self::new((domain, algorithm.into()), selector, (public.0.0, key.0), since.0);
        Self { state, ..made }
    }
}

#[derive(Deserialize)]
#[serde(try_from = "RolloutFields")]
struct RolloutEntry(Rollout);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RolloutFields {
    domain: DomainName,
    track: String,
    stage: String,
    since: Moment,
    max_age: Option<u32>,
    #[serde(default)]
    mx: BTreeSet<HostName>,
    #[serde(default)]
    also: BTreeSet<HostName>,
}

impl TryFrom<RolloutFields> for RolloutEntry {
    type Error = &'static str;

    fn try_from(fields: RolloutFields) -> Result<Self, Self::Error> {
        let RolloutFields { domain, track, stage, since, max_age, mx, also } = fields;
        let track = Track::ALL.into_iter().find(|known| known.as_str() == track).ok_or("there is no such track")?;
        let stage = Stage::of(track, &stage).ok_or("there is no such stage on this track")?;
        let is_sts = track == Track::MtaSts && stage != Stage::first(track);
        if max_age.is_some_and(|age| age > LONGEST_AGE) || (max_age.is_some() && !is_sts) {
            return Err("a max_age is one of MTA-STS, and at most a year");
        }
        let (mx, also) = (mx.into_iter().collect(), also.into_iter().collect());
        Ok(Self(Rollout { max_age, mx, also, ..Rollout::new(domain, stage, since.0) }))
    }
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Algorithm {
    Ed25519,
    Rsa,
}

impl From<Algorithm> for DkimAlgorithm {
    fn from(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Ed25519 => Self::Ed25519,
            Algorithm::Rsa => Self::Rsa,
        }
    }
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Active,
    Published,
    Retiring,
    Revoked,
}

/// The public half of a DKIM key: with another character in it, it would be further tags of the record.
struct Base64(String);

impl std::str::FromStr for Base64 {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte));
        if plain { Ok(Self(text.to_owned())) } else { Err("a public key is written in base64") }
    }
}

/// A value that is written as text and has no serde form of its own.
struct Text<T>(T);

impl<'de, T: std::str::FromStr<Err: std::fmt::Display>> Deserialize<'de> for Text<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

/// As [`Text`], with the text.
struct Named<T>(T, String);

impl<'de, T: std::str::FromStr<Err: std::fmt::Display>> Deserialize<'de> for Named<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(|value| Self(value, text)).map_err(serde::de::Error::custom)
    }
}

struct Moment(OffsetDateTime);

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = toml::value::Datetime::deserialize(deserializer)?.to_string();
        let wrong = |_| serde::de::Error::custom(format!("`{text}` is no time such as 2026-01-31T12:00:00Z"));
        OffsetDateTime::parse(&text, &Rfc3339).map(Self).map_err(wrong)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at() -> impl Strategy<Value = OffsetDateTime> {
        // The years 0 to 9999.
        (-62_167_219_200..253_402_300_800_i64).prop_map(|at| OffsetDateTime::from_unix_timestamp(at).unwrap())
    }

    fn digest() -> impl Strategy<Value = Digest> {
        any::<u64>().prop_map(|number| Digest::of(&number.to_be_bytes()))
    }

    fn server() -> impl Strategy<Value = ServerCertificate> {
        let former = prop::option::of(digest());
        let parts = ("[a-z]{1,3}\\.example\\.com", any::<[u8; 16]>(), any::<String>(), digest(), at(), former);
        parts.prop_map(|(host, serial, chain, key, not_after, former)| ServerCertificate {
            host: host.parse().unwrap(),
            serial: Serial::from_random(serial),
            chain,
            key,
            not_after,
            former,
        })
    }

    fn next_key() -> impl Strategy<Value = NextKey> {
        let parts = ("[a-z]{1,3}\\.example\\.com", digest(), digest(), at());
        parts.prop_map(|(host, key, spki, since)| NextKey { host: host.parse().unwrap(), key, spki, since })
    }

    fn dkim() -> impl Strategy<Value = DkimKey> {
        let algorithm = prop_oneof![Just(DkimAlgorithm::Rsa), Just(DkimAlgorithm::Ed25519)];
        let state = prop::sample::select(&DkimState::ALL[..5]);
        let parts =
            ("[a-z]{1,3}\\.org", algorithm, "[a-z0-9]{1,9}", at(), "[A-Za-z0-9+/]{0,80}={0,2}", digest(), state);
        parts.prop_map(|(domain, algorithm, selector, since, public, key, state)| {
            let (domain, selector) = (domain.parse().unwrap(), selector.parse().unwrap());
            DkimKey { state, ..DkimKey::new((domain, algorithm), selector, (public, key), since) }
        })
    }

    fn rollout() -> impl Strategy<Value = Rollout> {
        let words = [
            "none",
            "quarantine",
            "reject",
            "softfail",
            "fail",
            "off",
            "testing",
            "enforce",
            "enforce-long",
            "withdrawn",
        ];
        let stages = words.iter().flat_map(|word| Track::ALL.into_iter().filter_map(|track| Stage::of(track, word)));
        let hosts = || prop::collection::btree_set("[a-z]{1,3}\\.example\\.com", 0..3);
        let age = prop::option::of(0..=31_557_600_u32);
        let parts = ("[a-z]{1,3}\\.org", prop::sample::select(stages.collect::<Vec<_>>()), at(), age, hosts(), hosts());
        parts.prop_map(|(domain, stage, since, age, mx, also)| {
            let named =
                |hosts: std::collections::BTreeSet<String>| hosts.iter().map(|host| host.parse().unwrap()).collect();
            let (mx, also): (Vec<HostName>, Vec<HostName>) = (named(mx), named(also));
            let is_sts = stage.track() == Track::MtaSts && stage != Stage::first(Track::MtaSts);
            let max_age = age.filter(|_| is_sts);
            let also = if max_age.is_some() { also } else { Vec::new() };
            // What was seen of name servers changes no file.
            Rollout { seen: Some(since), max_age, mx, also, ..Rollout::new(domain.parse().unwrap(), stage, since) }
        })
    }

    prop_compose! {
        fn inventories()(
            site_ca in prop::option::of(("(.|\n)*", at())),
            mut issuing_cas in prop::collection::vec((any::<[u8; 16]>(), at()), 0..3),
            mut server_certificates in prop::collection::vec(server(), 0..4),
            mut next_keys in prop::collection::vec(next_key(), 0..4),
            mut dkim_keys in prop::collection::vec(dkim(), 0..4),
            mut rollouts in prop::collection::vec(rollout(), 0..4),
        ) -> Inventory {
            server_certificates.sort_by(|a, b| a.host.cmp(&b.host));
            server_certificates.dedup_by(|a, b| a.host == b.host);
            next_keys.sort_by(|a, b| a.host.cmp(&b.host));
            next_keys.dedup_by(|a, b| a.host == b.host);
            dkim_keys.sort_by(|a, b| (&a.domain, a.algorithm, &a.selector).cmp(&(&b.domain, b.algorithm, &b.selector)));
            dkim_keys.dedup_by(|a, b| a.domain == b.domain);
            rollouts.sort_by(|a, b| (&a.domain, a.stage.track()).cmp(&(&b.domain, b.stage.track())));
            rollouts.dedup_by(|a, b| a.domain == b.domain);
            let site_ca = site_ca.map(|(certificate, not_after)| SiteCa { certificate, not_after });
            issuing_cas.dedup_by_key(|ca| Serial::from_random(ca.0));
            let issuing_cas = issuing_cas.into_iter().map(|(serial, not_after)| {
                let (serial, status) = (Serial::from_random(serial), CertificateStatus::Live);
                IssuingCa { serial, status, not_after, successor: None, crl: None }
            });
            let issuing_cas = issuing_cas.collect();
            let secret = Some(Digest::of(b"not public"));
            Inventory {
                site_ca,
                issuing_cas,
                server_certificates,
                next_keys,
                dkim_keys,
                rollouts,
                credentials: secret,
                ..Inventory::default()
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(inventory in inventories()) {
            let text = write(&inventory);
            prop_assert_eq!(read(&text, "postseal.lock".into()).unwrap(), inventory.public_part());
            prop_assert_eq!(write(&inventory.public_part()), text.clone());
            // As git's `core.autocrlf` checks it out.
            let changed = text.replace('\n', "\r\n");
            prop_assert_eq!(read(&changed, "postseal.lock".into()).unwrap(), inventory.public_part());
        }

        #[test]
        fn hostile_text_never_panics(text in any::<String>(), cut in 0_usize..2000, inventory in inventories()) {
            let _ = read(&text, "postseal.lock".into());
            let mut spoiled: String = write(&inventory).chars().take(cut).collect();
            spoiled.push_str(&text);
            let _ = read(&spoiled, "postseal.lock".into());
        }
    }

    fn refusal(text: &str) -> (&'static str, String, Option<(usize, usize)>) {
        let error = read(text, "postseal.lock".into()).unwrap_err();
        (error.code, error.message, error.place.map(|place| place.line_column()))
    }

    #[test]
    fn errors_point_at_the_line() {
        let merge = "version = 1\n<<<<<<< HEAD\n";
        assert_eq!((refusal(merge).0, refusal(merge).2), ("lock-unreadable", Some((2, 9))));
        let time = "version = 1\n[site_ca]\nnot_after = 2026-01-01\ncertificate = \"\"\n";
        let message = "`postseal.lock` cannot be read: `2026-01-01` is no time such as 2026-01-31T12:00:00Z";
        assert_eq!(refusal(time), ("lock-unreadable", message.into(), Some((3, 13))));
        let unknown = "version = 1\nretired = []\n";
        assert_eq!((refusal(unknown).0, refusal(unknown).2), ("lock-unreadable", Some((2, 1))));
    }

    #[test]
    fn a_public_key_brings_no_further_tags() {
        let key = "[[dkim_key]]\ndomain = \"example.com\"\nalgorithm = \"rsa\"\nselector = \"a\"\nstate = \"active\"\n\
                   since = 2026-01-01T00:00:00Z\npublic = \"AAAA; t=y\"\nkey = \"\"\n";
        let message = "`postseal.lock` cannot be read: a public key is written in base64";
        assert_eq!(refusal(&format!("version = 1\n{key}")), ("lock-unreadable", message.into(), Some((8, 10))));
    }

    #[test]
    fn a_newer_version_is_refused_before_its_content() {
        let message = "`postseal.lock` has version 2, and this postseal reads version 1";
        assert_eq!(refusal("new = 1\nversion = 2\n"), ("lock-version", message.into(), Some((2, 11))));
    }

    #[test]
    fn a_merge_that_left_two_next_keys_of_a_host_is_refused() {
        let key = |content: &[u8]| {
            let digest = Digest::of(content);
            format!(
                "[[next_key]]\nhost = \"mail.example.com\"\nkey = \"{digest}\"\nspki = \"{digest}\"\n\
                 since = 2026-01-01T00:00:00Z\n"
            )
        };
        let two = format!("version = 1\n{}{}", key(b"a"), key(b"b"));
        let message = "`postseal.lock` has two entries for `mail.example.com`";
        assert_eq!(refusal(&two), ("lock-duplicate", message.into(), Some((7, 1))));
    }

    #[test]
    fn a_merge_that_left_two_active_keys_is_refused() {
        let key = |selector: &str| {
            let digest = Digest::of(b"");
            format!(
                "[[dkim_key]]\ndomain = \"example.com\"\nalgorithm = \"rsa\"\nselector = \"{selector}\"\nstate = \"active\"
since = 2026-01-01T00:00:00Z\npublic = \"\"\nkey = \"{digest}\"\n"
            )
        };
        let two = format!("version = 1\n{}{}", key("a"), key("b"));
        let message = "`postseal.lock` has two entries for `example.com rsa`";
        assert_eq!(refusal(&two), ("lock-duplicate", message.into(), Some((10, 1))));
        let same = format!("version = 1\n{}{}", key("a"), key("a"));
        assert_eq!(refusal(&same).1, "`postseal.lock` has two entries for `example.com a`");
    }

    #[test]
    fn a_stage_of_another_track_or_twice_the_same_track_is_refused() {
        let rollout = |track: &str, stage: &str| {
            format!(
                "[[rollout]]\ndomain = \"example.com\"\ntrack = \"{track}\"\nstage = \"{stage}\"\nsince = 2026-01-01T00:00:00Z\n"
            )
        };
        let (dmarc, wrong) = (rollout("dmarc", "quarantine"), rollout("spf", "quarantine"));
        assert_eq!(refusal(&format!("version = 1\n{wrong}")).0, "lock-unreadable");
        assert_eq!(refusal(&format!("version = 1\n{dmarc}max_age = 1\n")).0, "lock-unreadable");
        let twice = refusal(&format!("version = 1\n{dmarc}{dmarc}"));
        assert_eq!(
            (twice.0, twice.1.as_str()),
            ("lock-duplicate", "`postseal.lock` has two entries for `example.com dmarc`")
        );
    }
}
