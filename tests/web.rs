//! What the site's web server hands out, and its configuration: read by parsers of these tests' own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};

use postseal::inventory::{Inventory, Rollout};
use postseal::keys::KeyKind;
use postseal::names::Digest;
use postseal::platform::{Platform, WebServer};
use postseal::policy::mta_sts::{self, policy};
use postseal::policy::rollout::{InForce, in_force};
use postseal::render::quote::{caddy, httpd, nginx, xml};
use postseal::render::render;
use postseal::site::{
    Accounts, Bimi, Ca, CertificateSource, Delivery, Dkim, Domain, Host, Services, Site, SmtpdConf, StsStage, Trust,
    Web,
};
use postseal::stages::Stage;
use postseal::tree::{Class, Content, Part, Tree};
use proptest::prelude::*;
use time::macros::datetime;

const HOST: &str = "mail.example.com";

fn host(name: &str, platform: Platform, server: Option<WebServer>) -> Host {
    let files = CertificateSource::Files {
        certificate: "/etc/ssl/mx.pem".parse().unwrap(),
        key: "/etc/ssl/private/mx.key".parse().unwrap(),
    };
    Host {
        name: name.parse().unwrap(),
        platform,
        addresses: Vec::new(),
        listen: vec!["0.0.0.0".parse().unwrap(), "::".parse().unwrap()],
        smtpd_conf: SmtpdConf::Complete,
        mx_certificate: files.clone(),
        submission_certificate: files,
        opensmtpd: platform.layout().opensmtpd,
        filter_rspamd: platform.layout().filter_rspamd,
        mx_preference: 10,
        mx_spki: Vec::new(),
        web: server.map(|server| Web { server, certificates: None }),
    }
}

/// A site with a logo, a further name, and a domain without mail.
fn site(server: WebServer) -> Site {
    let domain = |name: &str| Domain::new(name.parse().unwrap());
    let (file, certificate) = ("logo.svg".to_owned(), Some("vmc.pem".to_owned()));
    let bimi = Bimi::Logo { file, certificate, base: None };
    let platform = if server == WebServer::Httpd { Platform::OpenBsd } else { Platform::Debian };
    let files = [("bimi/logo.svg", "<svg/>\n"), ("bimi/vmc.pem", "-----BEGIN CERTIFICATE-----\n")];
    Site {
        hosts: vec![host(HOST, platform, Some(server))],
        domains: vec![
            Domain { bimi, ..domain("example.com") },
            Domain { alias_of: Some("example.com".parse().unwrap()), ..domain("example.net") },
            Domain { mail: false, ..domain("example.org") },
        ],
        accounts: Accounts::Managed,
        aliases: Vec::new(),
        dkim: Dkim::default(),
        delivery: Delivery::Lmtp { socket: None },
        trust: Trust::Pinned,
        ca: Ca { name: "Example".to_owned(), key: KeyKind::P256 },
        notify: None,
        services: Services::default(),
        files: files.map(|(path, text)| (path.to_owned(), text.to_owned())).into(),
    }
}

fn rollout(domain: &str, stage: StsStage) -> Rollout {
    Rollout::new(domain.parse().unwrap(), Stage::MtaSts(stage), datetime!(2026-11-24 00:00 UTC))
}

/// Where example.com enforces its policy, and example.net tries one.
fn inventory() -> Inventory {
    let rollouts = vec![rollout("example.com", StsStage::Enforce), rollout("example.net", StsStage::Testing)];
    Inventory { rollouts, ..Inventory::default() }
}

fn tree(server: WebServer) -> Tree {
    render(&site(server), &inventory(), &[]).unwrap()
}

/// The host's files below a directory, by their path below that.
fn below<'a>(tree: &'a Tree, directory: &str) -> BTreeMap<&'a str, &'a str> {
    let texts = tree.entries().iter().filter_map(|entry| match (&entry.content, entry.on_host()) {
        (Content::Text(text), Some((HOST, path))) => {
            assert!(!path.starts_with(directory) || entry.class == Class::Public, "{path}");
            Some((path.strip_prefix(directory)?, text.as_str()))
        }
        _ => None,
    });
    texts.collect()
}

// The policy file

/// A policy as RFC 8461 §3.2 has it, with CRLF, read by its grammar.
#[derive(Debug, PartialEq, Eq)]
struct Read {
    mode: String,
    mx: Vec<String>,
    max_age: u32,
}

fn is_mx(text: &str) -> bool {
    let name = text.strip_prefix("*.").unwrap_or(text);
    let is_label = |label: &str| {
        let plain = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        (1..=63).contains(&label.len()) && plain && !label.starts_with('-') && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

fn strictly(text: &str) -> Read {
    assert!(text.is_ascii() && text.len() <= 64 << 10);
    let text = text.strip_suffix("\r\n").expect("the last line ends, too");
    let lines: Vec<(&str, &str)> = text
        .split("\r\n")
        .map(|line| {
            assert!(!line.contains(['\r', '\n']), "{line:?}");
            line.split_once(": ").expect("a name, a colon and one space")
        })
        .collect();
    assert_eq!(lines[0], ("version", "STSv1"), "it comes first");
    let all = |name: &str| lines.iter().filter(|line| line.0 == name).map(|line| line.1).collect::<Vec<_>>();
    assert!(lines.iter().all(|line| ["version", "mode", "max_age", "mx"].contains(&line.0)), "{lines:?}");
    let [[mode], [max_age], [_]] = ["mode", "max_age", "version"].map(|name| <[&str; 1]>::try_from(all(name)).unwrap());
    assert!(["enforce", "testing", "none"].contains(&mode));
    let max_age: u32 = max_age.parse().unwrap();
    assert!(max_age <= 31_557_600);
    let mx: Vec<String> = all("mx").into_iter().map(str::to_owned).collect();
    assert!(mx.iter().all(|mx| is_mx(mx)), "{mx:?}");
    assert!(mode == "none" || !mx.is_empty());
    Read { mode: mode.to_owned(), mx, max_age }
}

fn forced<'a>(site: &'a Site, stage: StsStage, max_age: u32, mx: &[&str]) -> InForce<'a> {
    let mx = mx.iter().map(|name| name.parse().unwrap()).collect();
    InForce { mta_sts: stage, max_age, policy_mx: mx, ..in_force(site, &Inventory::default(), &site.domains[0]) }
}

#[test]
fn a_policy_file_has_these_bytes() {
    let site = site(WebServer::Nginx);
    let enforced = policy(&forced(&site, StsStage::Enforce, 604_800, &["mx1.example.com", "mx2.example.com"]));
    let expected =
        "version: STSv1\r\nmode: enforce\r\nmx: mx1.example.com\r\nmx: mx2.example.com\r\nmax_age: 604800\r\n";
    assert_eq!(enforced.as_deref(), Some(expected));
    let withdrawn = policy(&forced(&site, StsStage::Withdrawn, 86_400, &["mx1.example.com"]));
    assert_eq!(withdrawn.as_deref(), Some("version: STSv1\r\nmode: none\r\nmax_age: 86400\r\n"));
    assert_eq!(policy(&forced(&site, StsStage::Off, 86_400, &["mx1.example.com"])), None);
}

#[test]
fn the_identifier_is_the_beginning_of_the_digest_of_the_bytes() {
    let text = "version: STSv1\r\nmode: none\r\nmax_age: 86400\r\n";
    let id = mta_sts::id(text);
    assert!(Digest::of(text.as_bytes()).to_string().starts_with(&id));
    // RFC 8461 §3.1: 1*32(ALPHA / DIGIT).
    assert!((1..=32).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{id}");
}

proptest! {
    #[test]
    fn every_policy_is_read_back_by_the_grammar(
        stage in 1..5_usize,
        max_age in 0..=31_557_600_u32,
        mx in proptest::collection::btree_set("[a-z]([a-z0-9-]{0,10}[a-z0-9])?\\.example\\.(com|net)", 1..6),
    ) {
        let site = site(WebServer::Nginx);
        let stage = StsStage::ALL[stage];
        let names: Vec<&str> = mx.iter().map(String::as_str).collect();
        let text = policy(&forced(&site, stage, max_age, &names)).unwrap();
        let read = strictly(&text);
        let mode = match stage {
            StsStage::Withdrawn => "none",
            StsStage::Testing => "testing",
            _ => "enforce",
        };
        let expected = if stage == StsStage::Withdrawn { Vec::new() } else { mx.into_iter().collect() };
        prop_assert_eq!(read, Read { mode: mode.to_owned(), mx: expected, max_age });
    }

    #[test]
    fn policies_have_one_identifier_only_if_they_are_one(ages in (0..1000_u32, 0..1000_u32)) {
        let site = site(WebServer::Nginx);
        let of = |age| policy(&forced(&site, StsStage::Enforce, age, &["mx.example.com"])).unwrap();
        prop_assert_eq!(ages.0 == ages.1, mta_sts::id(&of(ages.0)) == mta_sts::id(&of(ages.1)));
    }
}

// What is handed out

#[test]
fn each_name_has_its_files_and_nothing_else_lies_below_the_web_root() {
    let tree = tree(WebServer::Nginx);
    let files: Vec<&str> = below(&tree, "/var/www/postseal/").into_keys().collect();
    let expected = [
        "autoconfig.example.com/mail/config-v1.1.xml",
        "autoconfig.example.net/mail/config-v1.1.xml",
        "bimi.example.com/logo.svg",
        "bimi.example.com/vmc.pem",
        "mta-sts.example.com/.well-known/mta-sts.txt",
        "mta-sts.example.net/.well-known/mta-sts.txt",
    ];
    assert_eq!(files, expected);
}

#[test]
fn a_policy_lies_below_the_web_root_as_it_is_identified() {
    let tree = tree(WebServer::Nginx);
    let files = below(&tree, "/var/www/postseal/");
    let read = |domain: &str| strictly(files[format!("mta-sts.{domain}/.well-known/mta-sts.txt").as_str()]);
    let mx = vec![HOST.to_owned()];
    assert_eq!(read("example.com"), Read { mode: "enforce".into(), mx: mx.clone(), max_age: 604_800 });
    assert_eq!(read("example.net"), Read { mode: "testing".into(), mx, max_age: 86_400 });
}

#[test]
fn a_site_without_a_web_server_renders_nothing_for_one() {
    let mut site = site(WebServer::Nginx);
    site.hosts[0].web = None;
    let tree = render(&site, &inventory(), &[]).unwrap();
    assert!(below(&tree, "/var/www").is_empty() && below(&tree, "/etc/nginx").is_empty());
}

#[test]
fn a_logo_whose_file_is_not_there_is_left_out() {
    let mut site = site(WebServer::Nginx);
    site.files.clear();
    let tree = render(&site, &inventory(), &[]).unwrap();
    assert!(below(&tree, "/var/www/postseal/bimi.example.com").is_empty());
}

#[test]
fn a_logo_that_is_named_as_its_own_certificate_lies_there_once() {
    let mut site = site(WebServer::Nginx);
    let file = || "logo.svg".to_owned();
    site.domains[0].bimi = Bimi::Logo { file: file(), certificate: Some(file()), base: None };
    let tree = render(&site, &inventory(), &[]).unwrap();
    assert!(tree.entries().windows(2).all(|pair| pair[0].path < pair[1].path));
}

/// A server as Thunderbird reads it: type, host, port, socket type, user name, authentication.
type Server = [String; 6];

/// Reads settings as `readFromXML` of Thunderbird does: what that throws at fails here.
fn settings(text: &str) -> (Vec<String>, Vec<Server>, Vec<Server>) {
    let document = roxmltree::Document::parse(text).unwrap();
    let root = document.root_element();
    assert_eq!((root.tag_name().name(), root.attribute("version")), ("clientConfig", Some("1.1")));
    let only = |node: roxmltree::Node<'_, '_>, name: &str| -> String {
        let mut found = node.children().filter(|child| child.has_tag_name(name));
        let text = found.next().unwrap_or_else(|| panic!("no {name}")).text().unwrap().to_owned();
        assert!(found.next().is_none(), "{name}");
        text
    };
    let [provider] =
        <[_; 1]>::try_from(root.children().filter(roxmltree::Node::is_element).collect::<Vec<_>>()).unwrap();
    assert_eq!(provider.tag_name().name(), "emailProvider");
    let domains = provider.children().filter(|child| child.has_tag_name("domain"));
    let domains: Vec<String> = domains.map(|domain| domain.text().unwrap().to_owned()).collect();
    assert_eq!(provider.attribute("id"), domains.first().map(String::as_str));
    assert!(!only(provider, "displayName").is_empty() && !only(provider, "displayShortName").is_empty());
    let servers = |tag: &str, kinds: &[&str]| -> Vec<Server> {
        let of_tag = provider.children().filter(|child| child.has_tag_name(tag));
        let read = |server: roxmltree::Node<'_, '_>| {
            let kind = server.attribute("type").unwrap();
            assert!(kinds.contains(&kind));
            let [name, port, socket, user, how] =
                ["hostname", "port", "socketType", "username", "authentication"].map(|tag| only(server, tag));
            assert!(port.parse::<u16>().is_ok_and(|port| port > 0));
            assert!(["plain", "SSL", "STARTTLS"].contains(&socket.as_str()));
            // It knows no `TLS-client-cert`, and drops a server that names it.
            assert!(["password-cleartext", "password-encrypted", "OAuth2"].contains(&how.as_str()));
            [kind.to_owned(), name, port, socket, user, how]
        };
        of_tag.map(read).collect()
    };
    let (incoming, outgoing) = (servers("incomingServer", &["imap", "pop3"]), servers("outgoingServer", &["smtp"]));
    assert!(!incoming.is_empty() && !outgoing.is_empty());
    (domains, incoming, outgoing)
}

fn server(kind: &str, host: &str, port: &str, socket: &str) -> Server {
    [kind, host, port, socket, "%EMAILADDRESS%", "password-cleartext"].map(str::to_owned)
}

#[test]
fn settings_for_mail_programs_name_what_the_site_offers() {
    let mut site = site(WebServer::Nginx);
    site.services = Services { imaps: true, pop3s: true, managesieve: false };
    site.hosts.insert(0, host("mail2.example.com", Platform::Debian, None));
    site.hosts[0].mx_preference = 20;
    let tree = render(&site, &inventory(), &[]).unwrap();
    let files = below(&tree, "/var/www/postseal/");
    for domain in ["example.com", "example.net"] {
        let path = format!("autoconfig.{domain}/mail/config-v1.1.xml");
        let (domains, incoming, outgoing) = settings(files[path.as_str()]);
        assert_eq!(domains, [domain]);
        let both = |kind: &str, port: &str, socket: &str| {
            [HOST, "mail2.example.com"].map(|host| server(kind, host, port, socket))
        };
        assert_eq!(incoming, [both("imap", "993", "SSL"), both("pop3", "995", "SSL")].concat());
        assert_eq!(outgoing, [both("smtp", "465", "SSL"), both("smtp", "587", "STARTTLS")].concat());
    }
}

#[test]
fn a_site_that_nobody_reads_mail_from_has_no_settings_for_mail_programs() {
    let mut site = site(WebServer::Nginx);
    site.services = Services { imaps: false, pop3s: false, managesieve: false };
    let tree = render(&site, &inventory(), &[]).unwrap();
    let files = below(&tree, "/var/www/postseal/");
    assert!(files.keys().all(|path| !path.starts_with("autoconfig.")), "{:?}", files.keys());
    let conf = below(&tree, "/etc/nginx/conf.d/postseal.conf")[""];
    assert!(!conf.contains("autoconfig.example"), "{conf}");
}

// nginx

/// A directive of nginx's with its words and, if it has one, its block.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Directive {
    words: Vec<String>,
    block: Option<Vec<Directive>>,
}

/// What nginx's lexer makes of a text: words, and `;`, `{` and `}` as themselves.
fn nginx_tokens(text: &str) -> Vec<Result<String, char>> {
    let mut tokens = Vec::new();
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            ' ' | '\t' | '\r' | '\n' => {}
            '#' => while rest.next_if(|c| *c != '\n').is_some() {},
            ';' | '{' | '}' => tokens.push(Err(c)),
            '"' | '\'' => {
                let mut word = String::new();
                loop {
                    match rest.next().expect("a quote ends") {
                        end if end == c => break,
                        '\\' => match rest.next().unwrap() {
                            plain @ ('"' | '\'' | '\\') => word.push(plain),
                            't' => word.push('\t'),
                            'r' => word.push('\r'),
                            'n' => word.push('\n'),
                            other => word.extend(['\\', other]),
                        },
                        plain => word.push(plain),
                    }
                }
                let next = rest.peek().copied();
                assert!(next.is_none_or(|next| " \t\r\n;{)".contains(next)), "{next:?} after a quote");
                tokens.push(Ok(word));
            }
            _ => {
                let mut word = c.to_string();
                while let Some(c) = rest.next_if(|c| !" \t\r\n;{".contains(*c)) {
                    word.push(c);
                }
                tokens.push(Ok(word));
            }
        }
    }
    tokens
}

fn nginx_block(tokens: &mut std::vec::IntoIter<Result<String, char>>, is_inner: bool) -> Vec<Directive> {
    let (mut block, mut words) = (Vec::new(), Vec::new());
    while let Some(token) = tokens.next() {
        match token {
            Ok(word) => words.push(word),
            Err(';') => block.push(Directive { words: std::mem::take(&mut words), block: None }),
            Err('{') => {
                let inner = nginx_block(tokens, true);
                block.push(Directive { words: std::mem::take(&mut words), block: Some(inner) });
            }
            Err(_) => {
                assert!(is_inner && words.is_empty());
                return block;
            }
        }
    }
    assert!(!is_inner && words.is_empty(), "{words:?}");
    block
}

fn nginx_conf(text: &str) -> Vec<Directive> {
    nginx_block(&mut nginx_tokens(text).into_iter(), false)
}

/// Returns the words of a directive that stands once.
fn one<'a>(block: &'a [Directive], name: &str) -> &'a [String] {
    let [only] = block.iter().filter(|one| one.words[0] == name).collect::<Vec<_>>()[..] else { panic!("{name}") };
    &only.words[1..]
}

#[test]
fn nginx_has_a_block_for_each_domain_with_its_names_and_its_certificate() {
    let tree = tree(WebServer::Nginx);
    let conf = nginx_conf(below(&tree, "/etc/nginx/conf.d/postseal.conf")[""]);
    let blocks = conf.iter().filter(|one| one.words == ["server"]);
    let mut found = BTreeMap::new();
    for block in blocks {
        let block = block.block.as_ref().unwrap();
        let names = block.iter().filter(|one| one.words[0] == "server_name").flat_map(|one| &one.words[1..]);
        let names: Vec<&str> = names.map(String::as_str).collect();
        let directory = format!("/etc/letsencrypt/live/{}", names[0]);
        assert_eq!(one(block, "ssl_certificate"), [format!("{directory}/fullchain.pem")]);
        assert_eq!(one(block, "ssl_certificate_key"), [format!("{directory}/privkey.pem")]);
        assert_eq!(one(block, "try_files"), ["/$host$postseal_file", "=404"]);
        let listens: Vec<&[String]> =
            block.iter().filter(|one| one.words[0] == "listen").map(|one| &one.words[1..]).collect();
        assert_eq!(listens, [["443", "ssl"], ["[::]:443", "ssl"]]);
        found.insert(names[0].to_owned(), names.len());
    }
    assert_eq!(found, [("autoconfig.example.com".to_owned(), 3), ("autoconfig.example.net".to_owned(), 2)].into());
}

#[test]
fn a_host_without_ipv6_does_not_listen_on_it() {
    let mut site = site(WebServer::Nginx);
    site.hosts[0].listen.pop();
    let tree = render(&site, &inventory(), &[]).unwrap();
    assert!(below(&tree, "/etc/nginx/conf.d/").values().all(|conf| !conf.contains("[::]")));
}

#[test]
fn a_name_for_which_nginx_has_no_room_is_a_pattern() {
    let mut site = site(WebServer::Nginx);
    let long = format!("{}.example.com", "a".repeat(23));
    let longer = format!("{}.example.com", "a".repeat(24));
    site.domains = [&long, &longer].map(|name| Domain::new(name.parse().unwrap())).into();
    let tree = render(&site, &Inventory::default(), &[]).unwrap();
    let conf = below(&tree, "/etc/nginx/conf.d/postseal.conf")[""];
    let names = nginx_conf(conf).into_iter().filter_map(|one| one.block);
    let names: Vec<String> =
        names.filter(|block| block.len() > 6).map(|block| one(&block, "server_name")[0].clone()).collect();
    let pattern = format!("~^autoconfig\\.{}\\z", longer.replace('.', "\\."));
    assert_eq!(names, [format!("autoconfig.{long}"), pattern]);
    assert_eq!(names[0].len(), 46, "a row of 64 octets has a pointer, a length and an end beside the name");
}

#[test]
fn port_80_of_nginx_serves_challenges_and_nothing_else() {
    let tree = tree(WebServer::Nginx);
    let [server] = &nginx_conf(below(&tree, "/etc/nginx/conf.d/postseal-acme.conf")[""])[..] else { panic!() };
    let block = server.block.as_ref().unwrap();
    let locations: Vec<&[String]> =
        block.iter().filter(|one| one.words[0] == "location").map(|one| &one.words[1..]).collect();
    assert_eq!(locations, [&["^~", "/.well-known/acme-challenge/"][..], &["/"][..]]);
    assert_eq!(one(block.last().unwrap().block.as_ref().unwrap(), "return"), ["404"]);
}

#[test]
fn no_server_redirects() {
    for server in WebServer::ALL {
        let tree = tree(server);
        let confs = tree.entries().iter().filter(|entry| entry.part == Part::WebConf(server));
        let texts: Vec<&str> =
            confs.map(|entry| if let Content::Text(text) = &entry.content { text.as_str() } else { "" }).collect();
        assert!(!texts.is_empty());
        let words = ["301", "302", "307", "308", "redir"];
        assert!(texts.iter().all(|text| !words.iter().any(|word| text.contains(word))), "{texts:?}");
    }
}

proptest! {
    #[test]
    fn nginx_reads_back_every_word(words in proptest::collection::vec("[ -~]{0,30}", 1..5)) {
        let words: Vec<String> = words.into_iter().filter(|word| nginx(word).is_ok()).collect();
        let text = words.iter().fold("x".to_owned(), |text, word| format!("{text} {}", nginx(word).unwrap())) + ";";
        let expected: Vec<String> = std::iter::once("x".to_owned()).chain(words).collect();
        prop_assert_eq!(nginx_conf(&text), [Directive { words: expected, block: None }]);
    }

    #[test]
    fn nginx_is_told_no_variable(word in "[ -~]{0,30}") {
        prop_assert_eq!(nginx(&word).is_ok(), !word.contains('$'));
    }
}

// Caddy

/// What Caddy's lexer makes of a text, line by line, once it has looked for what it replaces before.
fn caddy_lines(text: &str) -> Vec<Vec<String>> {
    assert!(!text.contains("{$"), "a variable of the environment");
    let mut lines = vec![Vec::new()];
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\n' => lines.push(Vec::new()),
            ' ' | '\t' | '\r' => {}
            '#' => while rest.next_if(|c| *c != '\n').is_some() {},
            '"' => {
                let mut token = String::new();
                loop {
                    match rest.next().expect("a quote ends") {
                        '"' => break,
                        '\\' => match rest.next().unwrap() {
                            '"' => token.push('"'),
                            other => token.extend(['\\', other]),
                        },
                        plain => token.push(plain),
                    }
                }
                lines.last_mut().unwrap().push(token);
            }
            _ => {
                let mut token = c.to_string();
                while let Some(c) = rest.next_if(|c| !" \t\r\n".contains(*c)) {
                    token.push(c);
                }
                lines.last_mut().unwrap().push(token);
            }
        }
    }
    lines.retain(|line| !line.is_empty());
    lines
}

#[test]
fn caddy_has_one_block_of_all_names_and_gets_their_certificates() {
    let tree = tree(WebServer::Caddy);
    let lines = caddy_lines(below(&tree, "/etc/caddy/postseal.caddy")[""]);
    let names = ["autoconfig.example.com", "bimi.example.com", "mta-sts.example.com", "autoconfig.example.net"];
    for scheme in ["https", "http"] {
        let all = names.iter().chain(&["mta-sts.example.net"]).map(|name| format!("{scheme}://{name}"));
        let expected: Vec<String> = all.chain(["{".to_owned()]).collect();
        assert_eq!(lines.iter().filter(|line| **line == expected).count(), 1, "{lines:?}");
    }
    assert!(lines.iter().all(|line| line[0] != "tls"));
}

#[test]
fn caddy_takes_certificates_from_where_the_settings_say() {
    let mut site = site(WebServer::Caddy);
    site.hosts[0].web = Some(Web { server: WebServer::Caddy, certificates: Some("/etc/certs".parse().unwrap()) });
    let tree = render(&site, &inventory(), &[]).unwrap();
    let lines = caddy_lines(below(&tree, "/etc/caddy/postseal.caddy")[""]);
    let tls: Vec<&[String]> = lines.iter().filter(|line| line[0] == "tls").map(|line| &line[1..]).collect();
    let of = |name: &str| [format!("/etc/certs/{name}/fullchain.pem"), format!("/etc/certs/{name}/privkey.pem")];
    assert_eq!(tls, [of("autoconfig.example.com"), of("autoconfig.example.net")]);
}

proptest! {
    #[test]
    fn caddy_reads_back_every_token(tokens in proptest::collection::vec("[ -~]{0,30}", 1..5)) {
        let tokens: Vec<String> = tokens.into_iter().filter(|token| caddy(token).is_ok()).collect();
        let text: Vec<String> = tokens.iter().map(|token| caddy(token).unwrap()).collect();
        let expected = if tokens.is_empty() { Vec::new() } else { vec![tokens] };
        prop_assert_eq!(caddy_lines(&text.join(" ")), expected);
    }
}

// httpd

/// A token of httpd.conf, as `yylex` of its parse.y makes it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Line,
    Other(char),
    Quoted(String),
    Word(String),
}

fn httpd_tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text.chars().peekable();
    let in_word = |c: char| c.is_ascii_alphanumeric() || (c.is_ascii_punctuation() && !"(){}<>!=#,;/".contains(c));
    while let Some(c) = rest.next() {
        match c {
            ' ' | '\t' => {}
            '\n' => tokens.push(Token::Line),
            '#' => while rest.next_if(|c| *c != '\n').is_some() {},
            '"' | '\'' => {
                let mut word = String::new();
                loop {
                    match rest.next().expect("a quote ends") {
                        end if end == c => break,
                        '\n' => {}
                        '\\' => match rest.next().unwrap() {
                            plain if plain == c || plain == ' ' || plain == '\t' => word.push(plain),
                            '\n' => {}
                            other => word.extend(['\\', other]),
                        },
                        plain => word.push(plain),
                    }
                }
                tokens.push(Token::Quoted(word));
            }
            c if c.is_ascii_alphanumeric() || ":_*".contains(c) => {
                let mut word = c.to_string();
                while let Some(c) = rest.next_if(|c| in_word(*c)) {
                    word.push(c);
                }
                tokens.push(Token::Word(word));
            }
            other => tokens.push(Token::Other(other)),
        }
    }
    tokens
}

/// A server of httpd.conf: names, whether it has TLS, certificate and key, and per location what it does.
#[derive(Debug, Default, PartialEq, Eq)]
struct Httpd {
    names: Vec<String>,
    listen: Vec<String>,
    tls: Vec<String>,
    locations: Vec<(String, Vec<String>)>,
}

/// Reads the part of the grammar of httpd.conf(5) that postseal writes; what is no part of it fails.
fn httpd_conf(text: &str) -> Vec<Httpd> {
    let mut lines: Vec<Vec<Token>> = Vec::new();
    for line in httpd_tokens(text).split(|token| *token == Token::Line) {
        if !line.is_empty() {
            lines.push(line.to_vec());
        }
    }
    let show = |line: &[Token]| -> String {
        let words = line.iter().map(|token| match token {
            Token::Quoted(text) => format!("'{text}'"),
            Token::Word(word) => word.clone(),
            Token::Other(c) => c.to_string(),
            Token::Line => String::new(),
        });
        words.collect::<Vec<_>>().join(" ")
    };
    let quoted = |line: &[Token], at: usize| match &line[at] {
        Token::Quoted(text) => text.clone(),
        other => panic!("{other:?}"),
    };
    let (mut servers, mut depth, mut in_tls) = (Vec::new(), 0, false);
    for line in &lines {
        let said = show(line);
        let word = said.split(' ').next().unwrap();
        match (depth, word) {
            (0, "server") => {
                servers.push(Httpd { names: vec![quoted(line, 1)], ..Httpd::default() });
                depth = 1;
                assert!(said.ends_with('{') && line.len() == 3, "{said}");
            }
            (1, "alias") => servers.last_mut().unwrap().names.push(quoted(line, 1)),
            (1, "listen") => servers.last_mut().unwrap().listen.push(said),
            (1, "tls") => {
                assert_eq!(said, "tls {");
                (depth, in_tls) = (2, true);
            }
            (1, "location") => {
                servers.last_mut().unwrap().locations.push((quoted(line, 1), Vec::new()));
                (depth, in_tls) = (2, false);
                assert!(said.ends_with('{') && line.len() == 3, "{said}");
            }
            (2, "certificate" | "key") if in_tls => servers.last_mut().unwrap().tls.push(quoted(line, 1)),
            (2, "root" | "request" | "default" | "block") if !in_tls => {
                servers.last_mut().unwrap().locations.last_mut().unwrap().1.push(said);
            }
            (1 | 2, "}") => {
                assert_eq!(line.len(), 1);
                depth -= 1;
            }
            _ => panic!("{said}"),
        }
    }
    assert_eq!(depth, 0);
    servers
}

#[test]
fn httpd_has_a_server_for_each_name_and_each_of_its_files() {
    let tree = tree(WebServer::Httpd);
    let servers = httpd_conf(below(&tree, "/etc/httpd.postseal.conf")[""]);
    let (acme, named) = servers.split_first().unwrap();
    assert_eq!((acme.listen.as_slice(), acme.tls.len()), (&["listen on * port 80".to_owned()][..], 0));
    assert_eq!(acme.names, ["autoconfig.*", "bimi.*", "mta-sts.*"]);
    assert_eq!(acme.locations[0].0, "/.well-known/acme-challenge/*");
    assert_eq!(acme.locations[0].1, ["root '/acme'", "request strip 2"]);
    let served = below(&tree, "/var/www/postseal/");
    let mut reached = BTreeSet::new();
    for server in named {
        let name = &server.names[0];
        let first = if name.contains("example.net") { "autoconfig.example.net" } else { "autoconfig.example.com" };
        let [certificate, key] = [format!("/etc/ssl/{first}.fullchain.pem"), format!("/etc/ssl/private/{first}.key")];
        assert_eq!(server.tls, [certificate, key]);
        // `*` is every address of both families.
        assert_eq!(server.listen, ["listen on * tls port 443"]);
        let (last, locations) = server.locations.split_last().unwrap();
        assert_eq!(*last, ("*".to_owned(), vec!["block return 404".to_owned()]));
        for (uri, lines) in locations {
            assert_eq!(lines[0], format!("root '/postseal/{name}'"));
            let rewritten = lines.iter().find_map(|line| line.strip_prefix("request rewrite '")?.strip_suffix('\''));
            let file = format!("{name}{}", rewritten.unwrap_or(uri));
            assert!(served.contains_key(file.as_str()), "{file}");
            reached.insert(file);
        }
    }
    assert_eq!(reached.iter().map(String::as_str).collect::<Vec<_>>(), served.into_keys().collect::<Vec<_>>());
}

proptest! {
    #[test]
    fn httpd_reads_back_every_string(text in "[/a-z0-9._+-]{1,40}") {
        prop_assert_eq!(httpd_tokens(&httpd(&text).unwrap()), [Token::Quoted(text)]);
    }

    #[test]
    fn httpd_is_told_no_pattern_and_no_macro(text in "[ -~]{0,20}") {
        prop_assert!(httpd(&text).is_err() || !text.contains(['*', '?', '[', '$', '%', '\\', '"', '\'', ' ']));
    }

    #[test]
    fn xml_is_read_back_as_text_and_as_an_attribute(text in "[ -~äß€😀]{0,40}") {
        let quoted = xml(&text).unwrap();
        let document = format!("<a b=\"{quoted}\" c='{quoted}'>{quoted}</a>");
        let document = roxmltree::Document::parse(&document).unwrap();
        let root = document.root_element();
        prop_assert_eq!(root.attribute("b"), Some(text.as_str()));
        prop_assert_eq!(root.attribute("c"), Some(text.as_str()));
        prop_assert_eq!(root.text().unwrap_or_default(), text);
        prop_assert_eq!(root.children().filter(roxmltree::Node::is_element).count(), 0);
    }
}

// Many domains

#[test]
fn the_configuration_of_many_domains_grows_with_their_number_and_no_faster() {
    let size = |server, count: usize| {
        let mut site = site(server);
        site.domains = (0..count).map(|n| Domain::new(format!("d{n:05}.example.com").parse().unwrap())).collect();
        let tree = render(&site, &Inventory::default(), &[]).unwrap();
        let conf = tree.entries().iter().filter(|entry| entry.path.as_str().contains("/etc/"));
        let texts = conf.filter_map(|entry| if let Content::Text(text) = &entry.content { Some(text) } else { None });
        texts.filter(|text| text.contains("autoconfig.")).map(String::len).sum::<usize>()
    };
    for server in WebServer::ALL {
        let (few, many) = (size(server, 20), size(server, 200));
        assert!(many < few * 10 && many - few < 180 * 1400, "{server:?}: {few} and {many} octets");
    }
}
