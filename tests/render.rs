//! What every rendered tree must keep, and that the real daemons take it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout, missing_docs)]
#![allow(clippy::disallowed_methods, reason = "a test runs daemons and writes their files")]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::process::Command;

use postseal::inventory::{DkimAlgorithm, DkimKey, DkimState, Inventory, ServerCertificate, User};
use postseal::keys::KeyKind;
use postseal::names::{Digest, Serial};
use postseal::platform::{Platform, Version};
use postseal::render::{builtin_templates, quote, render};
use postseal::site::{
    Accounts, Alias, Ca, CertificateSource, Delivery, Dkim, Dmarc, DmarcPolicy, Domain, Host, Services, Signing, Site,
    SmtpdConf, SpfPolicy, Trust,
};
use postseal::tree::{Class, Content, Entry, Tree};
use time::macros::datetime;

const KEYS: [(DkimAlgorithm, &str); 2] = [(DkimAlgorithm::Rsa, "202611r"), (DkimAlgorithm::Ed25519, "202611e")];

fn host(name: &str, platform: Platform, smtpd_conf: SmtpdConf) -> Host {
    Host {
        name: name.parse().unwrap(),
        platform,
        addresses: vec!["203.0.113.10".parse().unwrap(), "2001:db8::10".parse().unwrap()],
        listen: vec!["0.0.0.0".parse().unwrap(), "::".parse().unwrap()],
        smtpd_conf,
        mx_certificate: CertificateSource::Files {
            certificate: "/etc/ssl/mx.pem".parse().unwrap(),
            key: "/etc/ssl/private/mx.key".parse().unwrap(),
        },
        submission_certificate: CertificateSource::Issued,
        opensmtpd: Version::new(7, 4, 0),
        filter_rspamd: Version::new(0, 1, 8),
        mx_preference: 10,
        mx_spki: Vec::new(),
        web: None,
    }
}

fn domain(name: &str, spf: SpfPolicy) -> Domain {
    let dmarc = Dmarc {
        policy: Some(DmarcPolicy::Reject),
        reports: Some("dmarc@example.com".parse().unwrap()),
        ..Dmarc::default()
    };
    Domain { spf: Some(spf), dmarc, ..Domain::new(name.parse().unwrap()) }
}

fn site() -> Site {
    Site {
        hosts: vec![
            host("example.org", Platform::OpenBsd, SmtpdConf::Fragments),
            host("mail.example.com", Platform::Debian, SmtpdConf::Complete),
        ],
        domains: vec![domain("example.com", SpfPolicy::SoftFail), domain("example.org", SpfPolicy::Fail)],
        accounts: Accounts::Managed,
        aliases: vec![Alias {
            address: "postmaster@example.com".parse().unwrap(),
            targets: vec!["alice@example.com".parse().unwrap(), "bob@elsewhere.net".parse().unwrap()],
        }],
        dkim: Dkim::default(),
        delivery: Delivery::Lmtp { socket: None },
        trust: Trust::Pinned,
        ca: Ca { name: "Example".to_owned(), key: KeyKind::P256 },
        notify: None,
        services: Services::default(),
        files: BTreeMap::new(),
    }
}

fn inventory() -> Inventory {
    let now = datetime!(2026-11-24 00:00 UTC);
    let certificate = |host: &str, first| ServerCertificate {
        host: host.parse().unwrap(),
        serial: Serial::from_random([first; 16]),
        chain: "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n".to_owned(),
        key: Digest::of(host.as_bytes()),
        not_after: now,
        former: None,
    };
    let key = |domain: &str, algorithm, selector: &str| {
        let public = ("A".repeat(392), Digest::of(selector.as_bytes()));
        let made = DkimKey::new((domain.parse().unwrap(), algorithm), selector.parse().unwrap(), public, now);
        DkimKey { state: DkimState::Active, ..made }
    };
    let domains = ["example.com", "example.org"];
    Inventory {
        server_certificates: vec![certificate("example.org", 1), certificate("mail.example.com", 2)],
        dkim_keys: domains.iter().flat_map(|domain| KEYS.map(|(kind, name)| key(domain, kind, name))).collect(),
        users: vec![User {
            address: "alice@example.com".parse().unwrap(),
            senders: vec!["postmaster@example.com".parse().unwrap()],
            since: now,
        }],
        ..Inventory::default()
    }
}

fn tree() -> Tree {
    render(&site(), &inventory(), &[]).unwrap()
}

fn text(entry: &Entry) -> &str {
    if let Content::Text(text) = &entry.content { text } else { "" }
}

fn find<'a>(tree: &'a Tree, path: &str) -> &'a str {
    text(
        tree.entries()
            .iter()
            .find(|entry| entry.path == path)
            .unwrap_or_else(|| panic!("{path}: {:?}", tree.manifests())),
    )
}

/// Everything of a tree as one text.
fn whole(tree: &Tree) -> String {
    let entries = tree.entries().iter().map(|entry| format!("{entry:?}"));
    entries.collect::<Vec<_>>().join("\n")
}

#[test]
fn every_listener_of_port_25_is_open_and_every_verify_has_its_ca() {
    let tree = tree();
    let lines = tree.entries().iter().flat_map(|entry| text(entry).lines());
    let listeners: Vec<_> = lines.filter(|line| line.starts_with("listen on ") && line.contains(" port ")).collect();
    assert_eq!(listeners.len(), 12);
    for line in listeners {
        let words: Vec<_> = line.split(' ').collect();
        if words.contains(&"25") {
            assert!(
                !["verify", "auth", "ca", "tls-require", "smtps"].iter().any(|word| words.contains(word)),
                "{line}"
            );
        } else {
            assert!(["verify", "ca", "auth", "senders"].iter().all(|word| words.contains(word)), "{line}");
        }
    }
    let smtpd = tree.entries().iter().filter(|entry| entry.path.extension() == Some("conf")).map(text);
    let mut verifying = smtpd.flat_map(str::lines).filter(|line| !line.starts_with('#') && line.contains("verify"));
    assert!(verifying.all(|line| line.contains(" ca \"clients\" ")));
}

#[test]
fn a_single_rule_lets_mail_out_for_people_one_for_the_host_and_one_for_what_aliases_forward() {
    let out = |site: &Site| -> Vec<String> {
        let tree = render(site, &inventory(), &[]).unwrap();
        let conf = find(&tree, "mail.example.com/root/etc/smtpd.conf");
        conf.lines().filter(|line| line.ends_with("action \"outbound\"")).map(str::to_owned).collect()
    };
    let mut site = site();
    let people = "match tag \"SUBMISSION\" auth from any for any action \"outbound\"";
    let host = "match from socket for any action \"outbound\"";
    // OpenSMTPD has no address called "local": the word stands for the socket, and for what it made of an alias.
    assert_eq!(out(&site), [people, host, "match from src \"local\" for any action \"outbound\""]);
    site.aliases[0].targets = vec!["alice@example.com".parse().unwrap()];
    assert_eq!(out(&site), [people, host]);
}

#[test]
fn fragments_are_the_parts_of_the_whole_file() {
    let mut site = site();
    site.hosts.remove(0);
    let whole = render(&site, &inventory(), &[]).unwrap();
    site.hosts[0].smtpd_conf = SmtpdConf::Fragments;
    let parts = render(&site, &inventory(), &[]).unwrap();
    let whole = find(&whole, "mail.example.com/root/etc/smtpd.conf");
    for name in ["names", "listeners", "rules"] {
        let part = find(&parts, &format!("mail.example.com/root/etc/mail/postseal/conf.d/{name}.conf"));
        let (header, part) = part.split_once("\n\n").unwrap();
        assert!(header.starts_with("# Written by postseal"), "{name}: {header}");
        assert!(whole.contains(part), "{name}:\n{part}");
    }
    assert!(!parts.manifests().values().any(|manifest| manifest.contains("smtpd.conf ")));
}

#[test]
fn equal_sites_give_equal_bytes_here_and_in_another_process() {
    let digest = |tree: &Tree| Digest::of(whole(tree).as_bytes()).to_string();
    let here = digest(&tree());
    println!("tree {here} tree");
    if std::env::var_os("POSTSEAL_TEST_CHILD").is_some() {
        return;
    }
    for _ in 0..4 {
        let name = "equal_sites_give_equal_bytes_here_and_in_another_process";
        let mut child = Command::new(std::env::current_exe().unwrap());
        let output = child.args(["--exact", name, "--nocapture"]).env("POSTSEAL_TEST_CHILD", "1").output().unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert!(stdout.contains(&format!("tree {here} tree")), "{stdout}");
    }
}

#[test]
fn the_tree_is_sorted_and_holds_no_path_twice() {
    let tree = tree();
    assert!(tree.entries().windows(2).all(|pair| pair[0].path < pair[1].path));
}

#[test]
fn public_files_do_not_depend_on_people() {
    let public = |inventory: &Inventory| {
        let tree = render(&site(), inventory, &[]).unwrap();
        let entries = tree.entries().iter().filter(|entry| entry.class == Class::Public).cloned();
        entries.collect::<Vec<_>>()
    };
    let lock = Inventory { users: Vec::new(), ..inventory() };
    assert_eq!(public(&inventory()), public(&lock));
    assert!(!whole(&Tree::new(public(&inventory()))).contains("alice"));
}

#[test]
fn no_value_of_a_template_goes_unquoted() {
    for (name, text) in builtin_templates() {
        assert_eq!(quote::first_unquoted(quote::Syntax::of_template(name), text), None, "{name}");
    }
    let own = [("smtpd.conf".to_owned(), "# x\ntable a {{ host }}\n".to_owned())];
    let error = render(&site(), &inventory(), &own).unwrap_err();
    let diagnostic = error.diagnostic();
    assert_eq!(diagnostic.code, "template-unquoted");
    assert_eq!(diagnostic.place.as_ref().unwrap().line_column(), (2, 9));
    assert_eq!(diagnostic.help, "write {{ name | smtpd }}: a name and that filter, nothing else");
}

#[test]
fn a_mistake_in_an_own_template_is_shown_at_its_place() {
    for (text, place, label) in [
        ("# x\npki {{ hots | smtpd }}\n", (2, 8), "there is no value of this name"),
        ("pki {{ listen | smtpd }}", (1, 8), "Invalid type for the value, expected `text` but got `array`"),
        ("\n{% include \"no\" %}", (2, 12), "Unknown template `no`"),
        ("{% if %}", (1, 7), "Found `%}`"),
    ] {
        let own = [("smtpd.conf".to_owned(), text.to_owned())];
        let error = render(&site(), &inventory(), &own).unwrap_err();
        let diagnostic = error.diagnostic();
        assert_eq!(diagnostic.message, "the template `smtpd.conf` does not fit this version of postseal");
        let found = diagnostic.place.as_ref().map(postseal::diag::Place::line_column);
        assert_eq!(found, Some(place), "{text}: {diagnostic:?}");
        assert!(diagnostic.label.starts_with(label), "{text}: {}", diagnostic.label);
    }
    let own = [("smtp.conf".to_owned(), String::new())];
    assert_eq!(render(&site(), &inventory(), &own).unwrap_err().diagnostic().help, "did you mean `smtpd.conf`?");
}

#[test]
fn rspamds_files_hold_no_jinja_and_no_carriage_return() {
    for entry in tree().entries().iter().filter(|entry| entry.path.as_str().contains("/rspamd/")) {
        let text = text(entry);
        assert!(!["{%", "{=", "{#", "\r", "\u{feff}"].iter().any(|bad| text.contains(bad)), "{}", entry.path);
        let after_brace = text.match_indices('{').all(|(at, _)| text[at + 1..].starts_with([' ', '\n']));
        assert!(after_brace, "{}", entry.path);
    }
}

/// The site with one signature for each message, named by a map.
fn mapped() -> Site {
    let mut site = site();
    site.dkim.signing = Signing::SelectorMap;
    site.domains.iter_mut().for_each(|domain| domain.dkim = vec![DkimAlgorithm::Rsa]);
    site
}

#[test]
fn a_map_names_the_one_key_that_signs_and_seals_for_each_domain() {
    let mut inventory = inventory();
    inventory.dkim_keys[0].state = DkimState::Retiring;
    let next =
        DkimKey { selector: "202612r".parse().unwrap(), state: DkimState::Active, ..inventory.dkim_keys[0].clone() };
    inventory.dkim_keys.insert(1, next);
    let tree = render(&mapped(), &inventory, &[]).unwrap();
    for (host, state) in [("example.org", "/var/rspamd"), ("mail.example.com", "/var/lib/rspamd")] {
        let map = find(&tree, &format!("{host}/root{state}/dkim/selectors.map"));
        let lines: Vec<_> = map.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(lines, ["example.com 202612r", "example.org 202611r"]);
        for file in ["arc.conf", "dkim_signing.conf"] {
            let text = find(&tree, &format!("{host}/root/etc/rspamd/local.d/{file}"));
            assert!(text.contains(&format!("selector_map = \"{state}/dkim/selectors.map\";\n")), "{text}");
            // `$` is escaped like every other character that Rspamd's parsers read: it reaches Lua all the same.
            assert!(text.contains(&format!("path = \"{state}/dkim/\\u0024domain.\\u0024selector.key\";\n")), "{text}");
            assert!(!text.contains("domain {") && !text.contains("202611r"), "{text}");
        }
    }
    assert!(
        tree.entries().iter().any(|entry| entry.path.ends_with("example.com.202611r.key")),
        "it may have to come back"
    );
}

#[test]
fn only_active_keys_of_wanted_algorithms_sign_and_a_domain_without_one_is_left_out() {
    let (mut site, mut inventory) = (site(), inventory());
    site.domains[0].dkim = vec![DkimAlgorithm::Rsa];
    for state in DkimState::ALL.into_iter().filter(|state| *state != DkimState::Active) {
        for key in inventory.dkim_keys.iter_mut().filter(|key| key.domain.as_str() == "example.org") {
            key.state = state;
        }
        let tree = render(&site, &inventory, &[]).unwrap();
        for file in ["arc.conf", "dkim_signing.conf"] {
            let text = find(&tree, &format!("mail.example.com/root/etc/rspamd/local.d/{file}"));
            let named: Vec<_> = text.lines().filter(|line| line.contains("selector =")).collect();
            let expected = "      { selector = \"202611r\"; path = \"/var/lib/rspamd/dkim/example.com.202611r.key\"; }";
            assert_eq!(named, [expected], "{file} {state:?}");
            assert!(!text.contains("example.org"), "{file} {state:?}");
        }
    }
}

#[test]
fn zones_have_one_spf_record_a_name() {
    let tree = tree();
    let zone = find(&tree, "dns/example.org.zone");
    let spf = zone.lines().filter(|line| line.contains("v=spf1")).collect::<Vec<_>>();
    assert_eq!(spf, ["example.org. 3600 IN TXT \"v=spf1 mx -all\""], "{zone}");
    let zone = find(&tree, "dns/example.com.zone");
    assert!(zone.contains("\nmail.example.com. 3600 IN TXT \"v=spf1 a -all\"\n"), "{zone}");
    assert!(zone.contains("\nexample.org._report._dmarc.example.com. 3600 IN TXT \"v=DMARC1\"\n"), "{zone}");
}

#[test]
fn a_host_without_addresses_gets_a_comment_instead_of_records() {
    let mut site = site();
    site.hosts[1].addresses.clear();
    let tree = render(&site, &inventory(), &[]).unwrap();
    let zone = find(&tree, "dns/example.com.zone");
    assert!(zone.contains("\n; mail.example.com. needs A and AAAA records of your own"), "{zone}");
}

#[test]
fn a_host_without_its_certificate_is_refused() {
    let inventory = Inventory { server_certificates: Vec::new(), ..inventory() };
    let error = render(&site(), &inventory, &[]).unwrap_err();
    assert_eq!(error.to_string(), "the host `example.org` has no server certificate yet");
}

/// Writes the Debian host's files below a directory, with every path in them moved there.
fn write_out(tree: &Tree, root: &Path) {
    let prefix = root.to_str().unwrap();
    let moved = |text: &str| {
        ["/etc/", "/var/lib/"].iter().fold(text.to_owned(), |text, top| text.replace(top, &format!("{prefix}{top}")))
    };
    for entry in tree.entries() {
        let Ok(path) = entry.path.strip_prefix("mail.example.com/root") else { continue };
        match &entry.content {
            Content::Directory => std::fs::create_dir_all(root.join(path)).unwrap(),
            _ => write_file(&root.join(path), &moved(text(entry))),
        }
    }
    // The tree only refers to keys, and smtpd -n reads them.
    let issued = rcgen::generate_simple_self_signed(["mail.example.com".to_owned()]).unwrap();
    let tls = format!("etc/mail/postseal/tls/mail.example.com-{}", Serial::from_random([2; 16]));
    let issued_files = (format!("{tls}.pem"), format!("{tls}.key"));
    for (certificate, key) in [("etc/ssl/mx.pem", "etc/ssl/private/mx.key"), (&issued_files.0, &issued_files.1)] {
        write_file(&root.join(certificate), &issued.cert.pem());
        write_file(&root.join(key), &issued.signing_key.serialize_pem());
    }
}

/// Writes a file that only its owner reads, as smtpd wants keys.
fn write_file(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

/// Runs a program that must succeed and returns what it says; nothing if it is not installed.
fn accepted(program: &str, arguments: &[&str]) -> Option<String> {
    match Command::new(program).args(arguments).output() {
        Ok(output) => {
            let talk = String::from_utf8(output.stderr).unwrap();
            assert!(output.status.success(), "{program}: {talk}");
            Some(String::from_utf8(output.stdout).unwrap())
        }
        Err(error) => {
            assert!(!std::env::var("INTEROP").is_ok_and(|value| value == "require"), "{program}: {error}");
            println!("skipped: {program} not installed");
            None
        }
    }
}

#[test]
fn the_real_daemons_take_the_tree() {
    for delivery in [Delivery::Lmtp { socket: None }, Delivery::Maildir { path: None }] {
        for inventory in [inventory(), Inventory { users: Vec::new(), ..inventory() }] {
            let site = Site { delivery: delivery.clone(), aliases: Vec::new(), ..site() };
            let tree = render(&site, &inventory, &[]).unwrap();
            let root = tempfile::tempdir().unwrap();
            write_out(&tree, root.path());
            let smtpd_conf = root.path().join("etc/smtpd.conf");
            // smtpd takes keys and certificates of root only.
            if root.path().metadata().unwrap().uid() == 0 {
                accepted("smtpd", &["-n", "-f", smtpd_conf.to_str().unwrap()]);
            }
        }
    }
    let root = tempfile::tempdir().unwrap();
    write_out(&tree(), root.path());
    let local = format!("--var=LOCAL_CONFDIR={}", root.path().join("etc/rspamd").display());
    accepted("rspamadm", &[&local, "configtest", "-c", "/etc/rspamd/rspamd.conf"]);
    if let Some(dump) =
        accepted("rspamadm", &[&local, "configdump", "-c", "/etc/rspamd/rspamd.conf", "-j", "dkim_signing"])
    {
        let effective: serde_json::Value = serde_json::from_str(&dump[dump.find('{').unwrap()..]).unwrap();
        let keys = effective["domain"]["example.org"]["selectors"].as_array().unwrap();
        let selectors: Vec<_> = keys.iter().map(|key| key["selector"].as_str().unwrap()).collect();
        assert_eq!(selectors, KEYS.map(|(_, selector)| selector));
        assert_eq!((&effective["try_fallback"], &effective["use_esld"]), (&false.into(), &false.into()));
    }
    for name in ["example.com", "example.org"] {
        let zone = root.path().join(name);
        let start = format!("{name}. 60 IN SOA a. b. 1 1 1 1 1\n{name}. 60 IN NS ns.invalid.\n");
        std::fs::write(&zone, start + find(&tree(), &format!("dns/{name}.zone"))).unwrap();
        let path = zone.to_str().unwrap();
        accepted(
            "named-checkzone",
            &["-i", "local", "-k", "fail", "-m", "fail", "-S", "fail", "-r", "fail", name, path],
        );
    }
}

#[test]
fn rspamd_reads_the_place_of_the_map_and_the_pattern_of_its_keys() {
    let root = tempfile::tempdir().unwrap();
    write_out(&render(&mapped(), &inventory(), &[]).unwrap(), root.path());
    let local = format!("--var=LOCAL_CONFDIR={}", root.path().join("etc/rspamd").display());
    for section in ["dkim_signing", "arc"] {
        let arguments = [&local, "configdump", "-c", "/etc/rspamd/rspamd.conf", "-j", section];
        let Some(dump) = accepted("rspamadm", &arguments) else { return };
        let effective: serde_json::Value = serde_json::from_str(&dump[dump.find('{').unwrap()..]).unwrap();
        let place = |name: &str| format!("{}/var/lib/rspamd/dkim/{name}", root.path().display());
        assert_eq!(effective["selector_map"], place("selectors.map"));
        assert_eq!(effective["path"], place("$domain.$selector.key"));
        assert_eq!((&effective["domain"], &effective["try_fallback"]), (&serde_json::Value::Null, &false.into()));
    }
}

fn refused(name: &str, template: &str) -> (String, String) {
    let error = render(&site(), &inventory(), &[(name.to_owned(), template.to_owned())]).unwrap_err();
    let finding = error.diagnostic();
    let (line, column) = finding.place.as_ref().unwrap().line_column();
    (format!("{}:{line}:{column}", finding.code), finding.label.clone())
}

#[test]
fn a_template_that_includes_itself_is_refused_at_that_line() {
    let expected = ("template:2:12".to_owned(), "it leads back to itself".to_owned());
    assert_eq!(refused("smtpd.conf", "\n{% include \"smtpd.conf\" %}"), expected);
    assert_eq!(refused("smtpd/domains", "\n{% extends \"smtpd/domains\" %}"), expected);
}

#[test]
fn a_template_that_writes_without_end_is_stopped() {
    let tens = "{% for i in range(end=9999) %}".repeat(3) + "ten octets" + &"{% endfor %}".repeat(3);
    let expected = ("template:1:1".to_owned(), "it writes more than 16 MiB".to_owned());
    assert_eq!(refused("smtpd/conf.d/rules.conf", &tens), expected);
}

#[test]
fn a_long_template_is_read_in_one_pass() {
    let begun = std::time::Instant::now();
    assert!(refused("smtpd/conf.d/rules.conf", &"{% if host %}".repeat(50_000)).1.contains("too deep"));
    assert!(begun.elapsed().as_secs() < 10);
}

#[test]
fn the_documentation_names_every_template_and_every_value() {
    let text = std::fs::read_to_string("docs/templates.md").unwrap();
    for (name, template) in builtin_templates() {
        assert!(text.contains(&format!("\n| `{name}` |")), "docs/templates.md does not list {name}");
        // Within a loop a value is one of the list's: its last part is what is documented.
        for value in template.split("{{").skip(1).filter_map(|rest| rest.split('|').next()) {
            let part = value.trim().trim_start_matches('-').trim().rsplit('.').next().unwrap();
            let known = text.contains(&format!("`{part}`")) || text.contains(&format!(".{part}`"));
            let is_element = ["target", "address", "domain"].contains(&part);
            assert!(known || is_element, "docs/templates.md does not explain {value} of {name}");
        }
    }
}

#[test]
fn the_example_of_the_documentation_renders_as_it_shows() {
    let text = std::fs::read_to_string("docs/templates.md").unwrap();
    let block =
        |fence: &str| text.split_once(&format!("```{fence}\n")).unwrap().1.split_once("```").unwrap().0.to_owned();
    let tree = render(&site(), &inventory(), &[("smtpd/domains".to_owned(), block("jinja"))]).unwrap();
    assert_eq!(find(&tree, "mail.example.com/root/etc/mail/postseal/domains"), block("text"));
}

/// Returns a table of a host without its remarks.
fn table(tree: &Tree, path: &str) -> Vec<String> {
    let entry = tree.entries().iter().find(|entry| entry.path == path).unwrap();
    let Content::Text(text) = &entry.content else { panic!("{path} is no text") };
    text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(str::to_owned).collect()
}

#[test]
fn a_further_name_of_a_domain_has_its_mailboxes_and_its_senders_unless_an_alias_says_otherwise() {
    let mut site = site();
    let name = "example.net".parse().unwrap();
    let of = Some("example.com".parse().unwrap());
    site.domains.push(Domain { alias_of: of, ..Domain::new(name) });
    site.domains.sort_by(|one, other| one.name.cmp(&other.name));
    site.aliases = [("postmaster@example.com", "alice@example.com"), ("postmaster@example.net", "bob@example.org")]
        .map(|(address, target)| Alias { address: address.parse().unwrap(), targets: vec![target.parse().unwrap()] })
        .into();
    let tree = render(&site, &inventory(), &[]).unwrap();
    let host = "mail.example.com/root/etc/mail/postseal";
    assert_eq!(
        table(&tree, &format!("{host}/mailboxes")),
        [
            "alice@example.com vmail",
            "postmaster@example.com alice@example.com",
            "postmaster@example.net bob@example.org",
            "alice@example.net alice@example.com"
        ]
    );
    assert_eq!(
        table(&tree, &format!("{host}/senders")),
        ["alice@example.com alice@example.com, postmaster@example.com, alice@example.net"]
    );
    assert!(table(&tree, &format!("{host}/domains")).contains(&"example.net".to_owned()));
}

#[test]
fn a_domain_without_mail_is_in_no_table_of_the_daemons() {
    let mut site = site();
    site.domains.insert(0, Domain { mail: false, dkim: Vec::new(), ..Domain::new("a.example".parse().unwrap()) });
    let tree = render(&site, &inventory(), &[]).unwrap();
    let on_hosts = tree.entries().iter().filter(|entry| !entry.path.starts_with("dns"));
    for entry in on_hosts {
        let Content::Text(text) = &entry.content else { continue };
        assert!(!text.contains("a.example"), "{}", entry.path);
    }
    assert!(tree.entries().iter().any(|entry| entry.path == "dns/a.example.zone"));
}
