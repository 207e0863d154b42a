//! Whatever stands in the settings files, `load` answers and the answer can be drawn.

use std::sync::Arc;

use postseal::cli::draw::{draw, short, to_json};
use postseal::diag::{Severity, Source};
use postseal::inventory::DkimAlgorithm;
use postseal::site::{Signing, load};
use proptest::prelude::*;

const VALID: &str = r#"
accounts.external = { type = "file", path = "/etc/mail/creds" }
clients.trust = "pinned"
[dkim]
rotate_every = 90
standby = true
signing = "domains"
[ca]
name = "Example Mail CA"
key = "rsa2048"
[[host]]
name = "mail.example.com"
platform = "debian"
addresses = ["203.0.113.10", "2001:db8::10"]
listen = ["0.0.0.0", "::"]
opensmtpd = "7.4"
[host.mx_certificate.files]
certificate = "/etc/ssl/fullchain.pem"
key = "/etc/ssl/privkey.pem"
[[domain]]
name = "example.com"
dkim = ["rsa", "ed25519"]
dmarc = { policy = "none", reports = "dmarc-reports@example.com" }
[aliases]
"postmaster@example.com" = ["alice@example.com", "bob@example.net"]
[delivery.lmtp]
socket = "/run/dovecot/lmtp"
"#;

const HOSTILE: &[&str] = &[
    "\0",
    "\u{202e}",
    "\u{feff}",
    "\r",
    "[",
    "]",
    "[[",
    "{",
    "}",
    "\"",
    "'''",
    "=",
    ".",
    ",",
    "\n",
    "#",
    "\\",
    "99999999999999999999",
    "1979-05-27",
    "true",
    "nan",
    "[host]\n",
    "[[host]]\n",
    "[[aliases]]\n",
    "host.name = 1\n",
    "\"\" = \"\"\n",
    "ä",
    "a@b.cc",
];

fn source(path: &str, text: impl Into<String>) -> Arc<Source> {
    Arc::new(Source { path: path.into(), text: text.into() })
}

fn load_and_draw(sources: &[Arc<Source>]) {
    let findings = match load(sources) {
        Ok((_, warnings)) => {
            assert!(warnings.iter().all(|finding| finding.severity == Severity::Warning));
            warnings
        }
        Err(findings) => {
            assert!(findings.iter().any(|finding| finding.severity == Severity::Error));
            findings
        }
    };
    let drawn = draw(&findings, false) + &short(&findings);
    assert!(!drawn.contains(['\0', '\u{1b}', '\u{202e}', '\r']), "{drawn:?}");
    to_json(&findings);
}

#[test]
fn the_valid_file_is_valid() {
    let (site, warnings) = load(&[source("postseal.toml", VALID)]).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(site.hosts[0].opensmtpd.to_string(), "7.4");
    assert!(site.forwards());
    assert_eq!((site.dkim.rotate_every, site.dkim.standby, site.dkim.signing), (Some(90), true, Signing::Domains));
}

#[test]
fn a_map_signs_with_rsa_alone_unless_the_settings_ask_for_more() {
    let text = VALID.replace("signing = \"domains\"", "signing = \"selector_map\"");
    let codes = |text: &str| {
        let errors = load(&[source("postseal.toml", text)]).err().unwrap_or_default();
        errors.iter().map(|finding| finding.code).collect::<Vec<_>>()
    };
    assert_eq!(codes(&text), ["dkim-map-one-key"]);
    for algorithms in ["dkim = [\"rsa\"]\n", ""] {
        let (site, _) =
            load(&[source("postseal.toml", text.replace("dkim = [\"rsa\", \"ed25519\"]\n", algorithms))]).unwrap();
        assert_eq!(site.domains[0].dkim, [DkimAlgorithm::Rsa]);
    }
    // A file of a domain's own is asked too.
    let rsa = text.replace("dkim = [\"rsa\", \"ed25519\"]\n", "");
    let rsa = rsa.replace("[aliases]\n", "[aliases]\n\"postmaster@example.org\" = \"alice@example.com\"\n");
    for (own, expected) in [("", None), ("dkim = [\"rsa\", \"ed25519\"]\n", Some("dkim-map-one-key"))] {
        let sources = [source("postseal.toml", rsa.clone()), source("domains/example.org.toml", own)];
        let first = load(&sources).err().and_then(|errors| errors.first().map(|finding| finding.code));
        assert_eq!(first, expected, "{own}");
    }
}

#[test]
fn what_is_said_of_all_domains_does_not_make_a_record_include_itself() {
    let text = VALID
        .replace("[aliases]\n", "[defaults]\nspf_also = [\"include:example.com\", \"ip4:192.0.2.1\"]\n[aliases]\n");
    let (site, _) = load(&[source("postseal.toml", text), source("domains/b.example.toml", "")]).unwrap();
    let terms = |at: usize| site.domains[at].spf_also.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        (terms(0), terms(1)),
        (vec!["include:example.com".into(), "ip4:192.0.2.1".into()], vec!["ip4:192.0.2.1".into()])
    );
}

#[test]
fn no_source_at_all_is_reported() {
    load_and_draw(&[]);
}

#[test]
fn huge_names_and_values_are_reported_in_short() {
    let huge = "x".repeat(2_000_000);
    let text = format!("{huge} = 1\naccounts = \"{huge}\"\nclients.trust = {huge}\n");
    load_and_draw(&[source("postseal.toml", text.clone())]);
    let text = text.replace(&format!("clients.trust = {huge}\n"), "");
    let errors = load(&[source("postseal.toml", text)]).err().unwrap_or_default();
    assert_eq!(errors.iter().map(|finding| finding.code).collect::<Vec<_>>(), ["unknown-key", "bad-choice"]);
    let drawn = draw(&errors, false);
    assert!(drawn.len() < 4_000, "{} bytes", drawn.len());
}

#[test]
fn a_long_chain_of_aliases_and_a_long_circle_need_no_stack() {
    for end in ["alice", "a0"] {
        let mut text = VALID.replace("[delivery.lmtp]\nsocket = \"/run/dovecot/lmtp\"\n", "");
        let link = |number| format!("\"a{number}@example.com\" = \"a{}@example.com\"\n", number + 1);
        text.extend((0..5_000).map(link));
        text.extend(["\"a5000@example.com\" = \"", end, "@example.com\"\n"]);
        let errors = load(&[source("postseal.toml", text)]).err().unwrap_or_default();
        assert_eq!(errors.len(), usize::from(end == "a0"));
    }
}

#[test]
fn a_shared_target_is_no_circle() {
    let text = VALID.replace(
        "[delivery.lmtp]\nsocket = \"/run/dovecot/lmtp\"\n",
        "\"a@example.com\" = [\"b@example.com\", \"c@example.com\"]\n\"b@example.com\" = \"c@example.com\"\n\
         \"c@example.com\" = \"alice@example.com\"\n",
    );
    assert!(load(&[source("postseal.toml", text)]).is_ok());
}

#[test]
fn the_name_of_the_ca_comes_from_the_first_domain_as_written() {
    let text = VALID.replace("name = \"Example Mail CA\"\n", "") + "[[domain]]\nname = \"a.example\"\n";
    assert_eq!(load(&[source("postseal.toml", text)]).unwrap().0.ca.name, "example.com mail CA");
}

#[test]
fn a_domain_file_is_one_domain() {
    let text = VALID
        .replace("[delivery.lmtp]\nsocket = \"/run/dovecot/lmtp\"\n", "\"postmaster@b.example\" = \"a@b.example\"\n");
    let sources = [source("postseal.toml", text), source("domains/b.example.toml", "spf = \"fail\"\n")];
    let (site, warnings) = load(&sources).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(
        site.domains.iter().map(|domain| domain.name.as_str()).collect::<Vec<_>>(),
        ["b.example", "example.com"]
    );
}

proptest! {
    #[test]
    fn text_never_panics(main in any::<String>(), domain in any::<String>()) {
        load_and_draw(&[source("postseal.toml", main), source("domains/example.com.toml", domain)]);
    }

    #[test]
    fn mutated_settings_never_panic(
        cuts in prop::collection::vec((0..VALID.len(), 0_usize..12, prop::sample::select(HOSTILE)), 1..6),
        path in "(domains/)?.{0,20}",
    ) {
        let mut text: Vec<char> = VALID.chars().collect();
        for (at, length, insert) in cuts {
            let (start, end) = (at.min(text.len()), (at + length).min(text.len()));
            text.splice(start..end, insert.chars());
        }
        let text: String = text.into_iter().collect();
        load_and_draw(&[source("postseal.toml", text.clone()), source(&path, text)]);
    }

    #[test]
    fn values_of_any_type_anywhere_never_panic(line in 0_usize..VALID.lines().count(), value in prop::sample::select(&[
        "1", "1.5", "true", "[]", "{}", "[1]", "[[]]", "{ a = 1 }", "[{ a = {} }]", "\"\"", "\"\\u202E\"", "07:32:00", "\"issued\"",
    ][..])) {
        let lines = VALID.lines().enumerate().map(|(number, old)| match old.split_once(" = ") {
            Some((name, _)) if number == line => format!("{name} = {value}\n"),
            _ => format!("{old}\n"),
        });
        load_and_draw(&[source("postseal.toml", lines.collect::<String>())]);
    }
}
