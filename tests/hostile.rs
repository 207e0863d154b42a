//! Whatever stands in a setting, an argument, a password file, a template or the name of a file: it is refused with a code, a
//! place and a mend, or it is taken and means nothing but itself. `tests/lab/test_hostile.py` asks the real parsers about
//! what is taken.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, dead_code, missing_docs)]
#![allow(clippy::disallowed_methods, reason = "a test spoils sites")]

#[path = "support/hostile.rs"]
mod hostile;
#[path = "support/surroundings.rs"]
mod surroundings;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use postseal::cli::draw::{draw, json_text, short, to_json};
use postseal::cli::{self};
use postseal::diag::{Diagnostic, Source};
use postseal::inventory::{DkimKey, DkimState, Inventory, ServerCertificate, User};
use postseal::names::{Digest, DomainName, MailAddress, RecordName, Serial};
use postseal::render::{builtin_templates, render};
use postseal::secret::Secret;
use postseal::site::{CODES, CaaIssuer, SETTINGS, Site, load};
use postseal::store::{SiteDir, Store};
use postseal::tree::Content;
use proptest::prelude::*;
use time::macros::datetime;
use toml::Value;

use hostile::{RAW, is_safe, texts};
use surroundings::{Answer, postseal, snapshot};

// Settings

/// A good value for each setting, unlike all others, so that in what is rendered it can be told from them.
const EXAMPLES: &[(&str, &str)] = &[
    ("accounts.external.path", "'/etc/mail/one'"),
    ("accounts.external.type", "'file'"),
    ("ca.key", "'p256'"),
    ("ca.name", "'Example CA'"),
    ("clients.trust", "'pinned'"),
    ("delivery.lmtp.socket", "'/run/two'"),
    ("delivery.maildir.path", "'/var/three'"),
    ("dkim.rotate_every", "90"),
    ("dkim.signing", "'domains'"),
    ("dkim.standby", "true"),
    ("domain.bimi.logo.base", "'https://logo.fifteen.example/bimi/'"),
    ("domain.bimi.logo.certificate", "'sixteen.pem'"),
    ("domain.bimi.logo.file", "'seventeen.svg'"),
    ("domain.caa.iodef", "'security@eighteen.example'"),
    ("domain.caa.issue", "['ca.nineteen.example; accounturi=https://ca.example/1']"),
    ("domain.caa.issuemail", "['ca.ninety.example']"),
    ("domain.caa.issuewild", "['ca.twenty.example']"),
    ("domain.dkim", "['rsa']"),
    ("domain.dmarc.adkim", "'strict'"),
    ("domain.dmarc.aspf", "'strict'"),
    ("domain.dmarc.failure_reports", "'ruf@thirty.example'"),
    ("domain.dmarc.np", "'reject'"),
    ("domain.dmarc.policy", "'none'"),
    ("domain.dmarc.psd", "false"),
    ("domain.dmarc.reports", "'dmarc@four.example'"),
    ("domain.dmarc.sp", "'quarantine'"),
    ("domain.dmarc.testing", "true"),
    ("domain.dnssec", "true"),
    ("domain.mail", "true"),
    ("domain.name", "'five.example'"),
    ("domain.other_names", "['forty.example']"),
    ("domain.rollout.dmarc", "'reject'"),
    ("domain.rollout.max_age", "90"),
    ("domain.rollout.mta_sts", "'off'"),
    ("domain.rollout.spf", "'fail'"),
    ("domain.silent_names", "['fifty.five.example']"),
    ("domain.spf", "'fail'"),
    ("domain.spf_also", "['include:_spf.sixty.example']"),
    ("domain.tls_reports", "'tls@seventy.example'"),
    ("host.addresses", "['203.0.113.6']"),
    ("host.filter_rspamd", "'0.1.8'"),
    ("host.listen", "['192.0.2.7']"),
    ("host.mx_certificate.files.certificate", "'/etc/eight'"),
    ("host.mx_certificate.files.key", "'/etc/nine'"),
    ("host.mx_preference", "20"),
    ("host.mx_spki", "['0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef']"),
    ("host.name", "'ten.example'"),
    ("host.opensmtpd", "'7.4'"),
    ("host.platform", "'debian'"),
    ("host.smtpd_conf", "'complete'"),
    ("host.submission_certificate.files.certificate", "'/etc/eleven'"),
    ("host.submission_certificate.files.key", "'/etc/twelve'"),
    ("host.web.caddy.certificates", "'/etc/eighty'"),
    ("host.web.httpd.certificates", "'/etc/eightyone'"),
    ("host.web.nginx.certificates", "'/etc/eightytwo'"),
    ("notify.before", "[30, 7]"),
    ("notify.from", "'postmaster@thirteen.example'"),
    ("notify.sendmail", "'/usr/sbin/fourteen'"),
    ("services.imaps", "true"),
    ("services.managesieve", "false"),
    ("services.pop3s", "false"),
];

/// Tables of which each setting is one of several choices.
const CHOICES: [&str; 6] =
    ["accounts", "delivery", "domain.bimi", "host.mx_certificate", "host.submission_certificate", "host.web"];

fn is_table(name: &str) -> bool {
    SETTINGS.iter().any(|(table, _)| *table == name)
}

fn whole(table: &str, setting: &str) -> String {
    if table.is_empty() { setting.to_owned() } else { format!("{table}.{setting}") }
}

fn example(setting: &str) -> Option<Value> {
    let (_, raw) = EXAMPLES.iter().find(|(name, _)| *name == setting)?;
    Some(format!("x = {raw}").parse::<toml::Table>().unwrap()["x"].clone())
}

/// Stands where a value is to be written, until the document is text.
const HOLE: &str = "@@HOLE@@";

/// Returns settings that are good but for a hole in place of one setting's value.
fn document(setting: &str) -> String {
    let mut root = toml::Table::new();
    let table = setting.rsplit_once('.').map_or("", |(table, _)| table);
    for needed in ["host.name", "host.platform", "domain.name"] {
        set(&mut root, needed, example(needed).unwrap());
    }
    let siblings = SETTINGS.iter().filter(|(name, _)| *name == table && !CHOICES.contains(name) && !name.is_empty());
    for sibling in siblings.flat_map(|(_, settings)| *settings) {
        let sibling = whole(table, sibling);
        // These lie below one name of the domain.
        let depends = sibling == "domain.silent_names";
        if let Some(value) = example(&sibling).filter(|_| !depends) {
            set(&mut root, &sibling, value);
        }
    }
    if setting.starts_with("host.web.httpd") {
        set(&mut root, "host.platform", Value::String("openbsd".to_owned()));
    }
    set(&mut root, setting, Value::String(HOLE.to_owned()));
    toml::to_string(&root).unwrap()
}

fn set(root: &mut toml::Table, setting: &str, value: Value) {
    let (first, rest) = setting.split_once('.').map_or((setting, None), |(first, rest)| (first, Some(rest)));
    let Some(rest) = rest else {
        root.insert(first.to_owned(), value);
        return;
    };
    let several = ["host", "domain"].contains(&first);
    let empty = || if several { Value::Array(vec![toml::Table::new().into()]) } else { toml::Table::new().into() };
    match root.entry(first).or_insert_with(empty) {
        Value::Array(tables) => set(tables[0].as_table_mut().unwrap(), rest, value),
        Value::Table(table) => set(table, rest, value),
        other => panic!("{first} is {other:?}"),
    }
}

fn source(path: &str, text: impl Into<String>) -> Arc<Source> {
    Arc::new(Source { path: path.into(), text: text.into() })
}

/// Checks that findings can be believed, shown and acted on.
fn assert_told(findings: &[Diagnostic], of: &str) {
    for finding in findings {
        let code = finding.code;
        assert!(CODES.iter().chain(cli::CODES).any(|(known, _)| *known == code), "{of}: {code} is not listed");
        assert!(finding.place.is_some() && !finding.help.is_empty(), "{of}: {finding:?}");
        let words = [&finding.message, &finding.label, &finding.help].into_iter().chain(&finding.notes);
        assert!(words.map(String::len).sum::<usize>() < 3_000, "{of}: {finding:?}");
    }
    let drawn = draw(findings, false) + &short(findings);
    assert!(is_safe(&drawn.replace('\t', " ")), "{of}: {drawn:?}");
    assert!(drawn.len() < 6_000 * (findings.len() + 1), "{of}: {} octets", drawn.len());
    let json = to_json(findings);
    let text = json_text(&json);
    assert!(is_safe(&text), "{of}: {text:?}");
    assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), json);
}

/// Returns what a site may have: a key for each signature, a certificate for each host, a user.
fn inventory(site: &Site) -> Inventory {
    let now = datetime!(2026-11-24 0:00 UTC);
    let (key, serial) = (Digest::of(b"key"), Serial::from_random([7; 16]));
    let key_of = |domain: &postseal::site::Domain, algorithm: &postseal::inventory::DkimAlgorithm| {
        let selector = format!("202611{}", algorithm.as_str()).parse().unwrap();
        let made = DkimKey::new((domain.name.clone(), *algorithm), selector, ("A".repeat(392), key), now);
        DkimKey { state: DkimState::Active, ..made }
    };
    let certificates = site.hosts.iter().map(|host| ServerCertificate {
        host: host.name.clone(),
        serial,
        chain: String::new(),
        key,
        not_after: now,
        former: None,
    });
    Inventory {
        server_certificates: certificates.collect(),
        dkim_keys: site.domains.iter().flat_map(|domain| domain.dkim.iter().map(|kind| key_of(domain, kind))).collect(),
        users: vec![User {
            address: "alice@other.example".parse().unwrap(),
            senders: vec!["sales@other.example".parse().unwrap()],
            since: now,
        }],
        ..Inventory::default()
    }
}

/// Returns what becomes of a value: names are kept in lower case, internationalised ones as DNS has them.
fn kept(value: &str) -> String {
    if let Some((mechanism, Ok(name))) = value.split_once(':').map(|(word, name)| (word, name.parse::<RecordName>())) {
        return format!("{mechanism}:{name}");
    }
    let domain = value.parse::<DomainName>().map(|name| name.to_string());
    let name = domain.or_else(|_| value.parse::<MailAddress>().map(|address| address.to_string()));
    let issuer =
        || value.parse::<CaaIssuer>().map_or_else(|_| value.to_lowercase(), |it| it.to_string().to_lowercase());
    name.unwrap_or_else(|_| issuer())
}

/// Returns every line that is rendered for a site, with its path, the value in question taken out.
fn lines(site: &Site, value: &str) -> Vec<String> {
    let tree = render(site, &inventory(site), &[]).unwrap();
    let value = kept(value);
    let encoded = value.replace('/', "%2f").replace('=', "%3d");
    let mut lines = Vec::new();
    for entry in tree.entries() {
        let Content::Text(text) = &entry.content else { continue };
        // Only the reasons above a zone's records have a sign that is not ASCII.
        let plain =
            text.replace('\u{a7}', "S").bytes().all(|byte| b"\t\r\n".contains(&byte) || (b' '..=b'~').contains(&byte));
        assert!(plain, "{}: {text:?}", entry.path);
        // A long text of a zone is written as several strings.
        let text = text.replace("\" \"", "");
        lines.extend(text.lines().map(|line| format!("{}: {line}", entry.path).to_lowercase()));
    }
    for line in lines.iter_mut().filter(|_| !value.is_empty()) {
        *line = line.replace(&value, "<value>").replace(&encoded, "<value>");
    }
    lines.sort();
    lines
}

/// Loads settings. What is refused is told; of what is accepted everything rendered is as for the example.
fn judge(sources: &[Arc<Source>], value: &str, model: Option<&[String]>, of: &str) -> bool {
    match load(sources) {
        Err(findings) => {
            assert!(!findings.is_empty(), "{of}: refused without a word");
            assert_told(&findings, of);
            false
        }
        Ok((site, warnings)) => {
            assert_told(&warnings, of);
            if let Some(model) = model {
                let lines = lines(&site, value);
                assert!(lines == model, "{of} brought {:?}", lines.iter().zip(model).find(|(new, old)| new != old));
            }
            true
        }
    }
}

#[test]
fn every_setting_has_an_example_and_the_examples_are_good() {
    let mut leaves = BTreeSet::new();
    // What stands in [defaults] has the examples of a domain's.
    for (table, settings) in SETTINGS.iter().filter(|(table, _)| *table != "defaults") {
        leaves.extend(settings.iter().map(|setting| whole(table, setting)).filter(|name| !is_table(name)));
    }
    leaves.remove("aliases");
    leaves.remove("defaults");
    assert_eq!(leaves, EXAMPLES.iter().map(|(name, _)| (*name).to_owned()).collect());
    for (setting, raw) in EXAMPLES {
        let text = document(setting).replace(&format!("\"{HOLE}\""), raw);
        assert!(load(&[source("postseal.toml", text.clone())]).is_ok(), "{setting}\n{text}");
    }
}

/// Returns a hostile text alone, and before, behind and within a good one.
fn forms(hostile: &str, good: &str) -> Vec<String> {
    let (begin, end) = good.split_at(good.len() / 2);
    if hostile.len() > 100_000 {
        return vec![hostile.to_owned()];
    }
    vec![hostile.to_owned(), format!("{hostile}{good}"), format!("{good}{hostile}"), format!("{begin}{hostile}{end}")]
}

#[test]
fn a_hostile_text_in_a_setting_is_refused_or_means_itself() {
    let mut taken = BTreeMap::new();
    for setting in SETTINGS.iter().flat_map(|(table, settings)| settings.iter().map(|name| whole(table, name))) {
        let hole = document(&setting);
        let good = example(&setting);
        let is_list = good.as_ref().is_some_and(Value::is_array);
        let text = good.as_ref().and_then(|good| good.as_array().map_or(good, |list| &list[0]).as_str());
        let write = |value: &str| {
            let quoted = Value::String(value.to_owned()).to_string();
            hole.replace(&format!("\"{HOLE}\""), &if is_list { format!("[{quoted}]") } else { quoted })
        };
        // The CA's name is in its certificate, and in no line.
        let in_lines = |value: &str| if setting == "ca.name" { String::new() } else { value.to_owned() };
        let model = text.map(|text| lines(&load(&[source("postseal.toml", write(text))]).unwrap().0, &in_lines(text)));
        // Of these one choice decides what other lines there are.
        let model = model.filter(|_| {
            ![
                "ca.key",
                "dkim.signing",
                "domain.dkim",
                "domain.spf",
                "domain.dmarc.policy",
                "host.platform",
                "accounts.external.type",
            ]
            .contains(&setting.as_str())
        });
        let may_be_word = setting.starts_with("domain.bimi") || setting.starts_with("domain.caa");
        for hostile in texts() {
            for value in text.map_or_else(|| vec![hostile.clone()], |text| forms(&hostile, text)) {
                let shown = postseal::names::shown(&value);
                let of = format!("{setting} = {shown}");
                // A file may be called what other lines say, too, such as `null`; nobody is a CA that is called `;`.
                let is_word = |lines: &&[String]| lines.iter().any(|line| line.contains(&kept(&value)));
                let model = model.as_deref().filter(|lines| !may_be_word || !is_word(lines));
                if judge(&[source("postseal.toml", write(&value))], &in_lines(&value), model, &of) {
                    *taken.entry(setting.clone()).or_insert(0) += 1;
                }
            }
        }
    }
    // That much is taken proves that the second half was tried.
    for setting in ["ca.name", "domain.name", "domain.dmarc.reports", "delivery.lmtp.socket", "host.name"] {
        assert!(taken.get(setting).is_some_and(|count| *count > 3), "{setting}: {taken:?}");
    }
}

#[test]
fn a_hostile_alias_is_refused_or_means_itself() {
    let settings = |key: &str, target: &str| {
        let quote = |text: &str| Value::String(text.to_owned()).to_string();
        let text = document("host.listen").replace(&format!("\"{HOLE}\""), "['192.0.2.7']");
        vec![source("postseal.toml", format!("{text}\n[aliases]\n{} = {}\n", quote(key), quote(target)))]
    };
    let (key, target) = ("sales@five.example", "carol@thirteen.example");
    let model = |value: &str| lines(&load(&settings(key, target)).unwrap().0, value);
    let (of_key, of_target) = (model(key), model(target));
    let mut taken = 0;
    for hostile in texts() {
        for value in forms(&hostile, key).into_iter().chain([format!("{hostile}@five.example")]) {
            let of = format!("alias {}", postseal::names::shown(&value));
            taken += u32::from(judge(&settings(&value, target), &value, Some(&of_key), &of));
        }
        for value in forms(&hostile, target).into_iter().chain([format!("{hostile}@thirteen.example")]) {
            let of = format!("target {}", postseal::names::shown(&value));
            taken += u32::from(judge(&settings(key, &value), &value, Some(&of_target), &of));
        }
    }
    assert!(taken > 40, "only {taken} were taken");
}

#[test]
fn a_value_of_another_type_is_refused_at_its_place() {
    for setting in SETTINGS.iter().flat_map(|(table, settings)| settings.iter().map(|name| whole(table, name))) {
        for raw in RAW {
            let text = document(&setting).replace(&format!("\"{HOLE}\""), raw);
            judge(&[source("postseal.toml", text)], "", None, &format!("{setting} = {raw}"));
        }
    }
}

#[test]
fn a_hostile_name_of_a_setting_is_refused_at_its_place() {
    for (table, _) in SETTINGS {
        for hostile in texts() {
            let hole = document(&whole(table, HOLE));
            let key = Value::String(hostile.clone()).to_string();
            let text = hole.replacen(&format!("\"{HOLE}\" ="), &format!("{key} ="), 1);
            let taken = judge(&[source("postseal.toml", text)], "", None, &format!("[{table}] {key:.80}"));
            assert!(!taken, "[{table}] takes {key:.80}");
        }
    }
}

#[test]
fn a_file_of_a_domain_with_a_hostile_name_or_content_is_refused_or_means_itself() {
    // The host lies in the domain that stays, for its postmaster is of that domain.
    let main = document("host.listen").replace(&format!("\"{HOLE}\""), "['192.0.2.7']");
    let main = main.replace("ten.example", "ten.five.example");
    let file = |path: &str, text: &str| vec![source("postseal.toml", main.clone()), source(path, text)];
    let good = "fourteen.example";
    let model = lines(&load(&file(&format!("domains/{good}.toml"), "")).unwrap().0, good);
    for hostile in texts() {
        for name in forms(&hostile, good) {
            let of = format!("domains/{}.toml", postseal::names::shown(&name));
            // Of a path the last component is what the file is called.
            let called = name.rsplit('/').find(|part| !part.is_empty()).unwrap_or_default().to_owned();
            judge(&file(&format!("domains/{name}.toml"), ""), &called, Some(&model), &of);
        }
        judge(&file("domains/fourteen.example.toml", &hostile), "", None, &format!("content {hostile:.80}"));
    }
}

#[test]
fn two_spellings_of_an_address_are_one() {
    let (_guard, site) = surroundings::site();
    let again = postseal(&site, ["user", "add", "ALICE@Example.COM"]);
    assert!(again.err.contains("error[device-taken]"), "{again:?}");
    assert_eq!(postseal(&site, ["user", "add", "Alice@EXAMPLE.com", "--device", "phone"]).exit_code, 0);
    let list = postseal(&site, ["user", "list"]).out;
    assert_eq!(list.matches("alice@example.com").count(), list.lines().count(), "{list}");
}

/// Settings of a megabyte, which a careless reader answers after minutes or with an overflow of its stack.
#[test]
fn a_megabyte_of_settings_is_answered_at_once() {
    let site = "[[host]]\nname = 'mail.example.com'\nplatform = 'debian'\n[[domain]]\nname = 'example.com'\n";
    let each = |count: usize, line: &dyn Fn(usize) -> String| (0..count).map(line).collect::<String>();
    let aliases = |line: &dyn Fn(usize) -> String| format!("{site}[aliases]\n{}", each(18_000, line));
    let documents = [
        ("deep lists", format!("a = {}", "[".repeat(1_000_000))),
        ("deep tables", format!("a = {}", "{a=".repeat(330_000))),
        ("a deep key", format!("{}a = 1", "a.".repeat(500_000))),
        ("a deep header", format!("[{}a]", "a.".repeat(500_000))),
        ("unknown settings", each(100_000, &|number| format!("k{number}=1\n"))),
        ("bad aliases", aliases(&|number| format!("'k{number}' = 'x'\n"))),
        ("a line of bad aliases", format!("aliases={{{}}}", each(60_000, &|number| format!("'k{number}'='x',")))),
        ("circles", aliases(&|n| format!("'a{n}@example.com' = ['a{}@example.com','a0@example.com']\n", n + 1))),
        ("strangers", aliases(&|number| format!("'a@x{number}.example' = 'a@example.com'\n"))),
        ("one domain", each(36_000, &|_| "[[domain]]\nname='example.com'\n".to_owned())),
        ("reports", each(15_000, &|n| format!("[[domain]]\nname='e{n}.com'\ndmarc.reports='a@b{n}.org'\n"))),
        ("bad hosts", each(20_000, &|number| format!("[[host]]\nname='e{number}.com'\nplatform='x'\n"))),
        ("one address", format!("[[host]]\naddresses=[{}]", "'203.0.113.1',".repeat(70_000))),
        ("a long text", format!("[ca]\nname='{}'", "a".repeat(1_000_000))),
        ("lines", "\n".repeat(1_000_000)),
        ("no TOML", "= = =\n".repeat(160_000)),
    ];
    for (what, text) in documents {
        let begun = Instant::now();
        judge(&[source("postseal.toml", text)], "", None, what);
        // Two seconds on an idle machine would do; tests share theirs.
        assert!(begun.elapsed() < Duration::from_secs(10), "{what} took {:?}", begun.elapsed());
    }
}

proptest! {
    #[test]
    fn whatever_is_written_into_two_settings_is_told_or_taken(
        one in 0..EXAMPLES.len(), other in 0..EXAMPLES.len(), value in "\\PC{0,20}|[\\x00-\\x7f]{0,20}",
    ) {
        let quoted = Value::String(value).to_string();
        let text = document(EXAMPLES[one].0).replace(&format!("\"{HOLE}\""), &quoted);
        let more = document(EXAMPLES[other].0).replace(&format!("\"{HOLE}\""), &quoted);
        judge(&[source("postseal.toml", text), source("domains/six.example.toml", more)], "", None, "two settings");
    }
}

// The command line

/// A good value for each option and argument.
const ARGUMENTS: &[(&str, &str)] = &[
    ("--accept", "198.51.100.7"),
    ("--address", "203.0.113.10"),
    ("--adopt", "/etc/smtpd.conf"),
    ("--archive", "/nowhere/users.tar"),
    ("--ca-key", "p256"),
    ("--ca-passphrase-file", "/nowhere/passphrase"),
    ("--ca-token", "pkcs11:token=one;object=two"),
    ("--certificate", "/nowhere/ca.pem"),
    ("--credentials", "db:/etc/mail/creds.db"),
    ("--critical", "7d"),
    ("--csr", "/nowhere/client.csr"),
    ("--days", "30"),
    ("--device", "phone"),
    ("--domain", "example.com"),
    ("--expiring", "30d"),
    ("--format", "human"),
    ("--host", "mail.example.com"),
    ("--identity", "/nowhere/identity"),
    ("--jobs", "2"),
    ("--keep", "/etc/smtpd.conf"),
    ("--key", "p256"),
    ("--key-passphrase-file", "/nowhere/passphrase"),
    ("--mx-certificate", "/etc/one.pem"),
    ("--mx-key", "/etc/one.key"),
    ("--output", "/nowhere/output"),
    ("--overlap", "30d"),
    ("--passphrase-file", "/nowhere/passphrase"),
    ("--password-file", "/nowhere/password"),
    ("--platform", "debian"),
    ("--reason", "left"),
    ("--recipient", "age1nobody"),
    ("--resolver", "192.0.2.53:5300"),
    ("--root", "/nowhere/root"),
    ("--sender", "sales@example.com"),
    ("--sort", "expiry"),
    ("--state", "live"),
    ("--submission-certificate", "/etc/two.pem"),
    ("--submission-key", "/etc/two.key"),
    ("--title", "Example"),
    ("--token", "pkcs11:token=one;object=two"),
    ("--track", "dmarc"),
    ("--user", "alice@example.com"),
    ("--warn", "30d"),
    ("<ADDRESS>", "bob@example.com"),
    ("<DIR>", "/nowhere/export"),
    ("<DOMAIN>", "example.com"),
    ("<FILE>", "/nowhere/site.age"),
    ("<HOST>", "mail.example.com"),
    ("<KEY>", "202611r"),
    ("<PATH>", "/nowhere/reports"),
    ("<SELECTOR>", "mail"),
    ("<SHELL>", "bash"),
    ("<TEXT>", "alice"),
];

/// Returns each command with the options and arguments that take a value, as the program's own help tells them.
fn commands() -> Vec<(Vec<String>, Vec<String>)> {
    let mut found = Vec::new();
    let mut left = vec![vec![], vec!["completions".to_owned()]];
    while let Some(command) = left.pop() {
        let help = postseal(Path::new("."), command.iter().cloned().chain(["--help".to_owned()])).out;
        let (mut takes, mut is_group, mut part) = (BTreeSet::new(), false, "");
        for line in help.lines() {
            if line.is_empty() {
                continue;
            }
            if !line.starts_with(' ') {
                part = line;
                continue;
            }
            let word = line.split_whitespace().next().unwrap_or_default();
            match part {
                "Commands:" if line.starts_with("  ") && !line.starts_with("   ") && word != "help" => {
                    is_group = true;
                    left.push(command.iter().cloned().chain([word.to_owned()]).collect());
                }
                "Arguments:" if line.starts_with("  <") || line.starts_with("  [") => {
                    takes.insert(word.trim_end_matches("...").replace('[', "<").replace(']', ">"));
                }
                "Options:" if line.trim_start().starts_with('-') && line.contains('<') => {
                    takes.extend(line.split_whitespace().find(|word| word.starts_with("--")).map(str::to_owned));
                }
                _ => {}
            }
        }
        if !is_group {
            found.push((command, takes.into_iter().filter(|name| name != "--site").collect()));
        }
    }
    found.sort();
    found
}

#[test]
fn every_option_and_argument_has_an_example() {
    let commands = commands();
    assert!(commands.len() >= 12, "{commands:?}");
    let taken: BTreeSet<&str> = commands.iter().flat_map(|(_, takes)| takes).map(String::as_str).collect();
    assert_eq!(taken, ARGUMENTS.iter().map(|(name, _)| *name).collect());
}

/// Checks that the program was right to refuse, and told why; or that it did as it was asked.
fn assert_answered(answer: &Answer, of: &str) {
    // 1 is what `plan` says of a host to which something is to be done.
    assert!([0, 1, 2].contains(&answer.exit_code), "{of}: {answer:?}");
    assert!(is_safe(&answer.err) && answer.err.len() < 20_000, "{of}: {answer:?}");
    assert!(is_safe(&answer.out.replace('\t', " ")), "{of}: {answer:?}");
    if answer.exit_code == 2 {
        assert!(answer.out.is_empty(), "{of}: {answer:?}");
        let by_rules = answer.err.starts_with("error: ");
        let by_code = answer.err.contains("error[") && answer.err.contains("= help: ");
        let by_code = by_code || answer.err.contains("\"code\": \"");
        assert!(by_rules || by_code, "{of}: {answer:?}");
    }
}

/// Options that name a file to write: their values are tried below a directory of the test's, never as they are.
const WRITTEN: [&str; 1] = ["--output"];

/// Returns a command line with one value in question; whatever else it needs is good.
fn command_line(command: &[String], takes: &[String], name: &str, value: &OsStr) -> Vec<OsString> {
    let mut line: Vec<OsString> = command.iter().map(OsString::from).collect();
    let good = |name: &str| ARGUMENTS.iter().find(|(known, _)| *known == name).unwrap().1;
    let partner = match name {
        "--mx-certificate" => Some("--mx-key"),
        "--mx-key" => Some("--mx-certificate"),
        "--submission-certificate" => Some("--submission-key"),
        "--submission-key" => Some("--submission-certificate"),
        "--certificate" if command == ["svg", "check"] => Some("--domain"),
        "--domain" if command == ["svg", "check"] => Some("--certificate"),
        _ => None,
    };
    // Of `ca import`, whose files are read one after the other.
    let needed = ["--certificate", "--key"].into_iter().filter(|needed| *needed != name && command == ["ca", "import"]);
    line.extend(needed.map(|needed| format!("{needed}={}", good(needed)).into()));
    if command == ["rollout", "advance"] && name == "--reason" {
        line.push("--anyway".into());
    }
    if command == ["rollout", "back"] && name != "--track" {
        line.push(format!("--track={}", good("--track")).into());
    }
    line.extend(partner.map(|partner| format!("{partner}={}", good(partner)).into()));
    // No host is looked at: what this machine has is no part of the test.
    if takes.iter().any(|takes| takes == "--root") && name != "--root" {
        line.push(format!("--root={}", good("--root")).into());
    }
    if name.starts_with('-') {
        line.push([OsStr::new(name), OsStr::new("="), value].into_iter().collect());
    }
    for argument in takes.iter().filter(|argument| argument.starts_with('<')) {
        line.push(if argument == name { value.to_owned() } else { good(argument).into() });
    }
    line
}

/// The commands but `apply`, which takes what `plan` and `dkim advance` take and would do it, and `ca export`, which writes where it is told to.
fn judged() -> Vec<(Vec<String>, Vec<String>)> {
    commands().into_iter().filter(|(command, _)| command != &["apply"] && command != &["ca", "export"]).collect()
}

#[test]
fn a_hostile_argument_is_refused_and_nothing_written_or_taken() {
    let (guard, site) = surroundings::site();
    let mut values: Vec<String> = texts().into_iter().filter(|text| text.len() < 100_000).collect();
    values.push("x".repeat(255));
    let (mut seen, mut all_taken) = (BTreeSet::new(), 0);
    // So deep that no `..` leads out of it.
    let written = guard.path().join("a/b/c/d/e");
    fs::create_dir_all(&written).unwrap();
    for (command, takes) in judged() {
        for name in &takes {
            let good = ARGUMENTS.iter().find(|(known, _)| known == name).unwrap().1;
            let is_init = command == ["init"];
            let forms = values.iter().enumerate().flat_map(|(number, hostile)| {
                let around = [format!("{good}{hostile}"), format!("{hostile}{good}")];
                std::iter::once(hostile.clone()).chain(around.into_iter().filter(move |_| number % 5 == 0))
            });
            // What several commands take is read by one rule; `--key` of `ca import` is a file, `--reason` of `user revoke` one of a few.
            if name.starts_with('-')
                && ![["ca", "import"], ["user", "revoke"]].iter().any(|of| command == of)
                && !seen.insert(name.clone())
            {
                continue;
            }
            let (mut refused, mut taken) = (Vec::new(), 0);
            let before = snapshot(&site);
            for value in forms {
                let value =
                    if WRITTEN.contains(&name.as_str()) { format!("{}/{value}", written.display()) } else { value };
                let line = command_line(&command, &takes, name, OsStr::new(&value));
                let of = format!("{} {name} {}", command.join(" "), postseal::names::shown(&value));
                let answer = postseal(&site, line.clone());
                assert_answered(&answer, &of);
                // `init` is asked for a place that is taken, which it says when all else is well; to make a site takes its time.
                let is_well = answer.exit_code == 0 || (is_init && answer.err.contains("holds a site"));
                if !is_well {
                    refused.push(line);
                    continue;
                }
                taken += 1;
                if is_init && name != "--ca-token" && answer.exit_code == 2 && taken % 8 == 1 {
                    let place = guard.path().join(format!("{taken}{name}"));
                    assert_eq!(postseal(&place, line).exit_code, 0, "{of}");
                    assert_eq!(postseal(&place, ["render"]).out.lines().count(), 1, "{of}");
                }
            }
            all_taken += taken;
            // Apart from those that were taken and wrote, all of them again.
            let before = if taken == 0 { before } else { snapshot(&site) };
            for line in refused.iter().filter(|_| taken > 0) {
                postseal(&site, line.clone());
            }
            assert!(snapshot(&site) == before, "{command:?} {name}: something that was refused wrote");
        }
    }
    assert!(all_taken > 60, "only {all_taken} were taken");
    assert_eq!(postseal(&site, ["render"]).exit_code, 0);
    let not_utf8 = OsString::from_vec(b"a\xff".to_vec());
    for (command, takes) in judged() {
        for name in &takes {
            let answer = postseal(&site, command_line(&command, &takes, name, &not_utf8));
            assert_answered(&answer, "what is not UTF-8");
            assert_eq!(answer.exit_code, 2);
        }
    }
}

#[test]
fn a_hostile_directory_of_a_site_is_told_safely() {
    let guard = tempfile::tempdir().unwrap();
    let names =
        texts().into_iter().filter(|name| name.len() < 100_000 && !name.starts_with('/') && !name.contains(".."));
    for name in names {
        let place = guard.path().join("a/b").join(&name);
        let of = format!("--site {}", postseal::names::shown(&name));
        for command in [&["user", "list"][..], &["render"], &["dns", "--format", "json"]] {
            let answer = postseal(&place, command);
            assert_answered(&answer, &of);
            assert_eq!(answer.exit_code, 2, "{of}");
        }
    }
    for name in ["new\nline", "-h", "{{ host }}", "\u{202e}", "👩‍💻", "\"", &"x".repeat(220)] {
        let place = guard.path().join(name);
        let answer = postseal(&place, ["init", "example.com", "--user", "alice@example.com"]);
        assert_answered(&answer, name);
        assert_eq!((answer.exit_code, postseal(&place, ["render"]).exit_code), (0, 0), "{name}");
    }
    for name in ["x".repeat(256), "x".repeat(250)] {
        let answer = postseal(&guard.path().join(name), ["init", "example.com"]);
        assert_eq!(answer.exit_code, 2, "{answer:?}");
        assert!(answer.err.contains("error[file-name]"), "{answer:?}");
    }
}

// Files

#[test]
fn a_hostile_password_file_is_refused_or_opens_the_account() {
    let (guard, site) = surroundings::site();
    let file = guard.path().join("given");
    let alice = "alice@example.com".parse().unwrap();
    let texts = texts().into_iter().map(String::into_bytes);
    let more = [b"\xff\xfe12345678".to_vec(), b"12345678\r\n".to_vec(), vec![0; 100], b"\xef\xbb\xbf12345678".to_vec()];
    // To hash a password takes its time.
    let padded =
        texts.clone().filter(|text| text.len() < 60).step_by(9).map(|text| [b"1234", &text[..], b"5678"].concat());
    let mut taken = 0;
    for content in texts.chain(more).chain(padded) {
        fs::write(&file, &content).unwrap();
        let before = snapshot(&site);
        let answer =
            postseal(&site, ["user", "passwd", "alice@example.com", "--password-file", file.to_str().unwrap()]);
        let of = format!("{:?}", content.escape_ascii().to_string().get(..60));
        assert_answered(&answer, &of);
        if answer.exit_code == 2 {
            assert!(snapshot(&site) == before, "{of}");
            continue;
        }
        taken += 1;
        let line = content.strip_suffix(b"\n").unwrap_or(&content);
        let password = Secret::new(line.strip_suffix(b"\r").unwrap_or(line).to_vec());
        let store = Store::open(SiteDir::new(camino::Utf8Path::from_path(&site).unwrap())).unwrap();
        assert!(store.ledger().opens(&alice, &password).unwrap(), "{of}");
        let credentials =
            fs::read_to_string(site.join("out/mail.example.com/root/etc/mail/postseal/credentials")).unwrap();
        assert!(is_safe(&credentials) && credentials.lines().count() == 1, "{of}: {credentials:?}");
    }
    assert!(taken > 20, "only {taken} were taken");
}

#[test]
fn a_hostile_template_is_refused_at_its_place_or_writes_what_it_says() {
    let main = document("host.listen").replace(&format!("\"{HOLE}\""), "['192.0.2.7']");
    let site = load(&[source("postseal.toml", main)]).unwrap().0;
    let inventory = inventory(&site);
    let try_one = |name: &str, text: &str| {
        let of = format!("{}: {}", postseal::names::shown(name), postseal::names::shown(text));
        match render(&site, &inventory, &[(name.to_owned(), text.to_owned())]) {
            Err(error) => {
                let finding = error.diagnostic();
                assert!(finding.code.starts_with("template"), "{of}: {finding:?}");
                let known = builtin_templates().iter().any(|(known, _)| *known == name);
                if known {
                    assert_told(std::slice::from_ref(finding), &of);
                }
                let drawn = draw(std::slice::from_ref(finding), false);
                assert!(is_safe(&drawn.replace('\t', " ")) && drawn.len() < 6_000, "{of}: {drawn}");
                false
            }
            Ok(_) => true,
        }
    };
    for hostile in texts() {
        assert!(!try_one(&hostile, ""), "a template may be called {hostile:.80}");
        for name in ["smtpd.conf", "smtpd/domains", "rspamd/local.d/dkim_signing.conf"] {
            let forms =
                ["{{ @ }}", "{{ @ | ucl }}", "{% @ %}", "{% if @ %}{% endif %}", "{% include \"@\" %}", "{# @ #}", "@"];
            for text in forms.map(|form| form.replace('@', &hostile)) {
                try_one(name, &text);
            }
        }
        // A value that a template makes up is quoted as any other.
        let text = format!("{{% set x = {} %}}{{{{ x | smtpd }}}}", Value::String(hostile.clone()));
        try_one("smtpd.conf", &text);
    }
}

/// Hostile texts that can be the name of a file.
fn file_names() -> Vec<OsString> {
    let fits = |text: &String| {
        (1..240).contains(&text.len()) && !text.contains(['/', '\0']) && ![".", ".."].contains(&text.as_str())
    };
    texts().into_iter().filter(fits).map(OsString::from).collect()
}

#[test]
fn files_of_hostile_names_in_golden_are_differences_and_shown_safely() {
    let (_guard, site) = surroundings::site();
    assert_eq!(postseal(&site, ["bless"]).exit_code, 0);
    let names = file_names();
    for name in &names {
        fs::write(site.join("golden").join(name), "x\u{1b}[31m\u{202e}\n").unwrap();
    }
    let answer = postseal(&site, ["diff"]);
    assert_eq!(answer.exit_code, 1, "{answer:?}");
    assert!(is_safe(&answer.out.replace('\t', " ")) && is_safe(&answer.err), "{answer:?}");
    let answer = postseal(&site, ["diff", "--format", "json"]);
    assert!(is_safe(&answer.out), "{answer:?}");
    let json: serde_json::Value = serde_json::from_str(&answer.out).unwrap();
    let told: BTreeSet<_> =
        json["changes"].as_array().unwrap().iter().map(|one| one["path"].as_str().unwrap()).collect();
    assert_eq!(told, names.iter().map(|name| name.to_str().unwrap()).collect());
}

#[test]
fn what_is_no_file_or_has_no_readable_name_is_refused() {
    for directory in ["golden", "templates", "domains"] {
        let (_guard, site) = surroundings::site();
        assert_eq!(postseal(&site, ["bless"]).exit_code, 0);
        fs::create_dir_all(site.join(directory)).unwrap();
        fs::write(site.join(directory).join(OsStr::from_bytes(b"a\xff.toml")), "").unwrap();
        let answer = postseal(&site, ["diff"]);
        assert_answered(&answer, directory);
        assert!(answer.err.contains("error[file-name]"), "{directory}: {answer:?}");
    }
    for directory in ["golden", "templates"] {
        let (_guard, site) = surroundings::site();
        assert_eq!(postseal(&site, ["bless"]).exit_code, 0);
        fs::create_dir_all(site.join(directory)).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", site.join(directory).join("smtpd.conf")).unwrap();
        let answer = postseal(&site, ["diff"]);
        assert_answered(&answer, directory);
        assert!(answer.err.contains("error[file-name]") && !answer.err.contains("root:"), "{directory}: {answer:?}");
    }
}

#[test]
fn files_of_hostile_names_beside_settings_and_templates_are_told_safely() {
    for name in file_names() {
        let (_guard, site) = surroundings::site();
        fs::create_dir_all(site.join("domains")).unwrap();
        let file = site.join("domains").join(&name).with_added_extension("toml");
        fs::write(&file, "").unwrap();
        let answer = postseal(&site, ["render"]);
        assert_answered(&answer, &name.to_string_lossy());
        fs::remove_file(file).unwrap();
        let before = snapshot(&site.join("out"));
        fs::create_dir_all(site.join("templates")).unwrap();
        fs::write(site.join("templates").join(&name), "").unwrap();
        let answer = postseal(&site, ["render"]);
        assert_answered(&answer, &name.to_string_lossy());
        // An editor's own files are left alone.
        let is_editors = name.to_string_lossy().starts_with('.') || name.to_string_lossy().ends_with('~');
        assert_eq!(answer.exit_code, if is_editors { 0 } else { 2 }, "{name:?}: {answer:?}");
        assert!(is_editors || snapshot(&site.join("out")) == before, "{name:?}");
    }
}
