//! What is fuzzed: each function takes any octets and panics if the program does not keep its word about them. libFuzzer calls
//! them (`fuzz/run`), and `tests/fuzz.rs` with the seeds and mutations of them, so that every test run tries a few hundred.

use std::sync::Arc;

use camino::Utf8Path;
use postseal::accounts_csv::List;
use postseal::cli::draw::{draw, json_text, short, to_json};
use postseal::diag::{Diagnostic, Source};
use postseal::dkim::private::PrivateHalf;
use postseal::dns::zone::character_strings;
use postseal::inventory::{DkimKey, DkimState, Inventory, ServerCertificate};
use postseal::keys::{PemItem, PrivateKey, PublicKey, encode_pem, pem_items, spki_of};
use postseal::names::{Digest, Serial, is_hidden};
use postseal::password;
use postseal::pki::Certificate;
use postseal::pki::crl::Seen;
use postseal::pki::request::public_key;
use postseal::render::quote;
use postseal::render::render;
use postseal::reports::{self, Rows};
use postseal::secret::Secret;
use postseal::site::{Site, load};
use postseal::store::files::read_given_secret;
use postseal::store::lock as lockfile;
use postseal::tree::Content;

/// A target's name and what it calls.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("certificate", certificate),
    ("dkim", dkim),
    ("key", key),
    ("list", list),
    ("lock", lock),
    ("pem", pem),
    ("report", report),
    ("request", request),
    ("secret", secret),
    ("settings", settings),
    ("smtpd", smtpd),
    ("svg", svg),
    ("table", table),
    ("template", template),
    ("ucl", ucl),
    ("zone", zone),
];

/// Parts of an input are set apart by this octet, which stands in no text.
const APART: u8 = 0xff;

/// A certificate in DER, and what is read from it.
pub fn certificate(data: &[u8]) {
    let Ok(certificate) = Certificate::from_der(data.to_vec()) else { return };
    assert_eq!(certificate.der(), data);
    assert_eq!(Certificate::from_pem(&certificate.pem()).unwrap(), certificate);
    let _ = (certificate.profile(), certificate.is_signed_by(&certificate), certificate.facts().is_twin());
}

/// A DKIM key from elsewhere: refused with a mend that shows nothing of it, or kept in a form that is read as the same key.
pub fn dkim(data: &[u8]) {
    match PrivateHalf::read(&Secret::new(data.to_vec())) {
        Ok(half) => {
            assert_eq!(PrivateHalf::read(half.file()).unwrap(), half);
            assert!(half.file().expose().is_ascii() && !half.public().is_empty());
        }
        Err(unusable) => assert!(!unusable.to_string().is_empty() && !unusable.mend().is_empty()),
    }
}

/// A private key in DER, as it is and as if it were encrypted.
pub fn key(data: &[u8]) {
    let _ = spki_of(&Secret::new(data.to_vec()));
    if let Ok(key) = PrivateKey::from_pkcs8_der(Secret::new(data.to_vec())) {
        assert_eq!(PrivateKey::from_pem(&key.to_pem()).unwrap().public(), key.public());
    }
    let pem = encode_pem("ENCRYPTED PRIVATE KEY", data);
    let _ = PrivateKey::decrypt(&pem, &Secret::from("correct horse".to_owned()));
}

/// A PEM text with anything in it.
pub fn pem(data: &[u8]) {
    let items = pem_items(data);
    for item in items.into_iter().flatten() {
        match item {
            PemItem::Certificate(der) => certificate(&der),
            PemItem::PrivateKey(der) => key(der.expose()),
            PemItem::Request(der) => request(&der),
            PemItem::Crl(_) | PemItem::PublicKey(_) | PemItem::Other => {}
        }
    }
    let _ = PrivateKey::from_pem(&Secret::new(data.to_vec()));
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = Certificate::all_from_pem(text);
        let _ = Seen::from_pem(text);
        let _ = PrivateKey::decrypt(text, &Secret::from("correct horse".to_owned()));
    }
}

/// A list of users: told safely, with places that are in it, or taken. The password of a user who is taken is told nowhere.
pub fn list(data: &[u8]) {
    let text = Secret::new(data.to_vec());
    let (told, lines) = match List::read("users.csv".into(), &text) {
        Ok(mut list) => (list.told(), list.take_lines()),
        Err(told) => (told, Vec::new()),
    };
    self::told(&told);
    let sources: Vec<&str> = told.iter().filter_map(|found| Some(found.place.as_ref()?.source.text.as_str())).collect();
    for line in lines {
        let password = line.password.as_ref().and_then(Secret::expose_str).unwrap_or_default();
        // What is in another field too may be shown there; what stands for hidden octets hides none.
        let once = text.expose_str().is_some_and(|text| text.matches(password).count() == 1);
        if once && password.contains(|c: char| c.is_ascii_alphanumeric()) {
            assert!(!sources.iter().any(|source| source.contains(password)), "{sources:?}");
        }
    }
}

/// A mail or report of another mail server's: refused in words that can be shown, or sums that agree with each other.
pub fn report(data: &[u8]) {
    let shows = |text: &str| text.chars().all(|c| !c.is_control() && !is_hidden(c));
    match reports::read(data) {
        Err(error) => assert!(!error.to_string().is_empty() && shows(&error.to_string())),
        Ok(reports) => {
            assert!(!reports.is_empty());
            for report in reports {
                assert!(shows(&report.reporter) && shows(&report.id) && !report.id.is_empty());
                if let Rows::Dmarc(sources) = &report.rows {
                    for source in sources {
                        assert!(source.from.is_within(&report.domain) && source.messages > 0);
                        assert!(source.dkim.max(source.spf) <= source.passed && source.passed <= source.messages);
                    }
                }
            }
        }
    }
}

/// A certificate request, in PEM or DER: refused with a mend, or its key is one that is certified.
pub fn request(data: &[u8]) {
    match public_key(data, &"alice@example.com".parse().unwrap()) {
        Ok(key) => assert_eq!(PublicKey::from_spki(key.spki_der()).unwrap(), key),
        Err(refusal) => {
            let words = [&refusal.problem, &refusal.mend];
            assert!(
                words.iter().all(|text| !text.is_empty() && text.chars().all(|c| !c.is_control() && !is_hidden(c)))
            );
        }
    }
}

/// `postseal.lock`: refused at a place, or read and written back as the same.
pub fn lock(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match lockfile::read(text, Utf8Path::new("postseal.lock")) {
        Ok(inventory) => {
            let written = lockfile::write(&inventory);
            assert_eq!(lockfile::read(&written, Utf8Path::new("postseal.lock")).unwrap(), inventory);
        }
        Err(finding) => told(&[*finding]),
    }
}

/// A file that should hold a password.
pub fn secret(data: &[u8]) {
    let directory = tempfile::tempdir().unwrap();
    let path = Utf8Path::from_path(directory.path()).unwrap().join("given");
    std::fs::write(&path, data).unwrap();
    let read = read_given_secret(&path);
    assert_eq!(read.is_ok(), data.len() <= 4096);
    let Some(secret) = read.ok().flatten() else { return };
    assert_eq!(secret.expose(), data);
    if let Ok(password) = password::judge(&secret) {
        let text = password.expose_str().unwrap();
        assert!(text.chars().count() >= 8 && text.len() <= 72 && !text.chars().any(char::is_control));
    }
}

/// Settings: `postseal.toml`, and behind each `0xff` a file of a domain. What is refused is told; what is taken renders to
/// text without surprises.
pub fn settings(data: &[u8]) {
    let mut sources = Vec::new();
    for (number, part) in data.split(|octet| *octet == APART).enumerate() {
        let Ok(text) = std::str::from_utf8(part) else { return };
        let path = if number == 0 { "postseal.toml".into() } else { format!("domains/d{number}.example.toml").into() };
        sources.push(Arc::new(Source { path, text: text.to_owned() }));
    }
    match load(&sources) {
        Err(findings) => {
            assert!(!findings.is_empty() && findings.iter().all(|finding| finding.place.is_some()));
            told(&findings);
        }
        Ok((site, warnings)) => {
            told(&warnings);
            rendered(&site, &[]);
        }
    }
}

/// A template of the administrator's: its name, an octet `0xff`, its text.
pub fn template(data: &[u8]) {
    let Some(apart) = data.iter().position(|octet| *octet == APART) else { return };
    let (Ok(name), Ok(text)) = (std::str::from_utf8(&data[..apart]), std::str::from_utf8(&data[apart + 1..])) else {
        return;
    };
    // A loop over a range takes its time, as its author wants it.
    if text.contains("range") {
        return;
    }
    let source = Source { path: "postseal.toml".into(), text: SITE.to_owned() };
    rendered(&load(&[Arc::new(source)]).unwrap().0, &[(name.to_owned(), text.to_owned())]);
}

const SITE: &str = "[[host]]\nname = \"mail.example.com\"\nplatform = \"debian\"\n[[domain]]\nname = \"example.com\"\n";

fn rendered(site: &Site, templates: &[(String, String)]) {
    let digest = Digest::of(b"key");
    let not_after = some_time();
    let certificates = site.hosts.iter().map(|host| ServerCertificate {
        host: host.name.clone(),
        serial: Serial::from_random([7; 16]),
        chain: String::new(),
        key: digest,
        not_after,
        former: None,
    });
    let keys = site.domains.iter().flat_map(|domain| domain.dkim.iter().map(move |algorithm| (domain, *algorithm)));
    let keys = keys.map(|(domain, algorithm)| {
        let selector = format!("202611{}", algorithm.as_str()).parse().unwrap();
        let made = DkimKey::new((domain.name.clone(), algorithm), selector, ("A".repeat(392), digest), not_after);
        DkimKey { state: DkimState::Active, ..made }
    });
    let inventory =
        Inventory { server_certificates: certificates.collect(), dkim_keys: keys.collect(), ..Inventory::default() };
    match render(site, &inventory, templates) {
        Err(error) => told(std::slice::from_ref(error.diagnostic())),
        Ok(tree) => {
            for entry in tree.entries() {
                let Content::Text(text) = &entry.content else { continue };
                let plain = |c: char| c == '\n' || c == '\u{a7}' || (' '..='~').contains(&c);
                assert!(!templates.is_empty() || text.chars().all(plain), "{}", entry.path);
            }
        }
    }
}

/// Times do not matter here.
fn some_time() -> time::OffsetDateTime {
    Certificate::from_pem(CERTIFICATE).unwrap().facts().not_after
}

const CERTIFICATE: &str = include_str!("../seeds/pem/certificate.pem");

/// Checks that findings are fit for a terminal and for a program.
fn told(findings: &[Diagnostic]) {
    let drawn = draw(findings, false) + &short(findings);
    let acts = |c: char| c != '\n' && c != '\t' && (c.is_control() || is_hidden(c));
    assert!(!drawn.contains(acts), "{drawn:?}");
    let json = to_json(findings);
    let text = json_text(&json);
    assert!(!text.contains(acts), "{text:?}");
    assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), json);
}

/// A drawing: told of at places that are in it, and what is made of it conforms and is made no further.
pub fn svg(data: &[u8]) {
    let source = match postseal::policy::svg::text("logo.svg".into(), data) {
        Ok(source) => source,
        Err(finding) => return told(&[*finding]),
    };
    told(&postseal::policy::svg::check(&source));
    let wishes = postseal::policy::svg::Wishes { title: None, fallback: "logo", square: true };
    match postseal::policy::svg::fix(&source, wishes) {
        Err(findings) => {
            assert!(!findings.is_empty());
            told(&findings);
        }
        Ok(fixed) => {
            let made = Arc::new(Source { path: "logo.svg".into(), text: fixed.text });
            let findings = postseal::policy::svg::check(&made);
            assert!(findings.iter().all(|finding| finding.severity == postseal::diag::Severity::Warning));
            assert_eq!(postseal::policy::svg::fix(&made, wishes).unwrap().text, made.text);
        }
    }
}

/// A string of `smtpd.conf` is read back by the rules of OpenSMTPD's lexer, whatever stands behind it.
pub fn smtpd(data: &[u8]) {
    let Some((value, behind)) = pair(data) else { return };
    if let Ok(quoted) = quote::smtpd(value) {
        assert_eq!(read_smtpd(&format!("{quoted}{behind}")), Some((value.to_owned(), behind)));
    }
}

/// A field of a table is read back by the rules of OpenSMTPD's tables, as key and as one of several values.
pub fn table(data: &[u8]) {
    let Some((key, value)) = pair(data) else { return };
    if let (Ok(key), Ok(value)) = (quote::table(key), quote::table(value)) {
        let line = format!("{key} {value}, {key}");
        assert_eq!(read_pair(&line), Some((key.clone(), vec![value, key])));
    }
}

/// A string of Rspamd's configuration is read back as JSON, and holds nothing that Jinja or UCL would read before.
pub fn ucl(data: &[u8]) {
    let Ok(value) = std::str::from_utf8(data) else { return };
    if let Ok(quoted) = quote::ucl(value) {
        assert_eq!(serde_json::from_str::<String>(&quoted).unwrap(), value);
        assert!(!quoted.contains(['{', '}', '$', '#', '%', '\n', '\'']), "{quoted}");
    }
}

/// A text of a zone is read back by the rules of RFC 1035, and no string is too long.
pub fn zone(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let strings = read_strings(&character_strings(text)).unwrap();
    assert!(!strings.is_empty() && strings.iter().all(|string| string.len() <= 255));
    assert_eq!(strings.concat(), data);
}

fn pair(data: &[u8]) -> Option<(&str, &str)> {
    let apart = data.iter().position(|octet| *octet == APART)?;
    Some((std::str::from_utf8(&data[..apart]).ok()?, std::str::from_utf8(&data[apart + 1..]).ok()?))
}

// Readers, by the daemons' sources and the RFC; `tests/quoting.rs` asks the daemons themselves.

/// Reads a quoted string as `yylex` of OpenSMTPD's parse.y does, and returns it with what follows.
fn read_smtpd(text: &str) -> Option<(String, &str)> {
    let mut rest = text.strip_prefix('"')?;
    let mut value = String::new();
    loop {
        let c = rest.chars().next()?;
        rest = &rest[c.len_utf8()..];
        match c {
            '"' => return Some((value, rest)),
            '\n' => {}
            '\\' if rest.starts_with(['"', ' ', '\t']) => {
                value.push_str(&rest[..1]);
                rest = &rest[1..];
            }
            '\\' if rest.starts_with('\n') => rest = &rest[1..],
            _ => value.push(c),
        }
    }
}

/// Reads a line as `parse_table_line` of OpenSMTPD's util.c does for a table of pairs.
fn read_pair(line: &str) -> Option<(String, Vec<String>)> {
    let line = line.trim();
    if line.is_empty() || line.starts_with(['#', '[']) {
        return None;
    }
    let (key, value) = line.split_once([' ', '\t', ':'])?;
    let targets = value.trim_start_matches([' ', '\t']).split(',');
    Some((key.to_owned(), targets.map(|target| target.trim().to_owned()).collect()))
}

/// Reads quoted strings as RFC 1035 §5.1 tells.
fn read_strings(text: &str) -> Option<Vec<Vec<u8>>> {
    let (mut strings, mut octets) = (Vec::new(), text.bytes());
    while let Some(octet) = octets.next() {
        if octet == b' ' {
            continue;
        }
        let mut string = Vec::new();
        if octet != b'"' {
            return None;
        }
        loop {
            match octets.next()? {
                b'"' => break,
                b'\\' => match octets.next()? {
                    first @ b'0'..=b'9' => {
                        let digits = [first, octets.next()?, octets.next()?];
                        string.push(std::str::from_utf8(&digits).ok()?.parse().ok()?);
                    }
                    other => string.push(other),
                },
                plain => string.push(plain),
            }
        }
        strings.push(string);
    }
    Some(strings)
}
