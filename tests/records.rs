//! What every zone keeps, whatever the site; and each record of the tips, with what it depends on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout, missing_docs)]
#![allow(clippy::disallowed_methods, reason = "a test runs BIND's own reader")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use postseal::dns::{Record, RecordData, Zone, zone};
use postseal::inventory::{DkimAlgorithm, DkimKey, DkimState, Inventory, NextKey, Rollout, ServerCertificate};
use postseal::keys::KeyKind;
use postseal::names::{Digest, DomainName, HostName, Serial};
use postseal::pki::Certificate;
use postseal::platform::{Platform, Version};
use postseal::policy::rollout::in_force;
use postseal::records::zones;
use postseal::site::{
    Accounts, Alignment, Bimi, Ca, Caa, CertificateSource, Delivery, Dkim, Dmarc, DmarcPolicy, Domain, Host, Services,
    Site, SmtpdConf, SpfPolicy, StsStage, TlsReports, Trust, Web, WebServer,
};
use postseal::stages::Stage;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use time::macros::datetime;

/// Domains of which some lie in others, or have the name of a host or of the web server.
const DOMAINS: [&str; 8] = [
    "a.example.com",
    "autoconfig.example.org",
    "b.a.example.com",
    "example.com",
    "example.net",
    "example.org",
    "mta-sts.example.com",
    "xn--mnchen-3ya.example",
];

const HOSTS: [&str; 8] = [
    "autoconfig.example.com",
    "bimi.example.net",
    "example.com",
    "mail.example.com",
    "mail.far.test",
    "mta-sts.example.org",
    "mx.a.example.com",
    "mx.xn--mnchen-3ya.example",
];

const SILENT: [&str; 7] = [
    "bimi.example.com",
    "example.org",
    "mail.example.com",
    "mta-sts.example.com",
    "www.elsewhere.test",
    "www.example.com",
    "www.b.a.example.com",
];

fn files() -> CertificateSource {
    CertificateSource::Files {
        certificate: "/etc/ssl/mx.pem".parse().unwrap(),
        key: "/etc/ssl/private/mx.key".parse().unwrap(),
    }
}

fn host(name: &str, address: u8) -> Host {
    Host {
        name: name.parse().unwrap(),
        platform: Platform::Debian,
        addresses: vec![IpAddr::from([203, 0, 113, address])],
        listen: vec!["0.0.0.0".parse().unwrap()],
        smtpd_conf: SmtpdConf::Complete,
        mx_certificate: CertificateSource::Issued,
        submission_certificate: CertificateSource::Issued,
        opensmtpd: Version::new(7, 4, 0),
        filter_rspamd: Version::new(0, 1, 8),
        mx_preference: 10,
        mx_spki: Vec::new(),
        web: None,
    }
}

fn domain(name: &str) -> Domain {
    Domain::new(name.parse().unwrap())
}

fn site(hosts: Vec<Host>, domains: Vec<Domain>) -> Site {
    Site {
        hosts,
        domains,
        accounts: Accounts::Managed,
        aliases: Vec::new(),
        dkim: Dkim::default(),
        delivery: Delivery::Lmtp { socket: None },
        trust: Trust::Pinned,
        ca: Ca { name: "Example".to_owned(), key: KeyKind::P256 },
        notify: None,
        services: Services::default(),
        files: BTreeMap::new(),
    }
}

/// A site of one host and one domain.
fn plain() -> Site {
    site(vec![host("mail.example.com", 10)], vec![domain("example.com")])
}

fn with_web(mut site: Site) -> Site {
    site.hosts[0].web = Some(Web { server: WebServer::Nginx, certificates: None });
    site
}

fn rolled(domain: &str, stage: Stage) -> Inventory {
    let rollout = Rollout::new(domain.parse().unwrap(), stage, datetime!(2026-11-24 00:00 UTC));
    Inventory { rollouts: vec![rollout], ..Inventory::default() }
}

fn records(site: &Site, inventory: &Inventory, domain: &str) -> Vec<Record> {
    let zones = zones(site, inventory);
    zones.into_iter().find(|zone| zone.domain.as_str() == domain).unwrap().records
}

/// Returns the contents of a name's records of a type, as `dns` shows them.
fn of(site: &Site, inventory: &Inventory, (zone, name, kind): (&str, &str, &str)) -> Vec<String> {
    let records = records(site, inventory, zone);
    let found = records.iter().filter(|record| record.name == name && record.data.kind() == kind);
    found.map(|record| record.data.to_string()).collect()
}

fn texts(site: &Site, name: &str) -> Vec<String> {
    of(site, &Inventory::default(), ("example.com", name, "TXT"))
}

fn reason(site: &Site, inventory: &Inventory, name: &str) -> String {
    let records = records(site, inventory, "example.com");
    records.iter().find(|record| record.name == name).unwrap().reason.to_string()
}

fn chain() -> String {
    let directory = "golden/debian-minimal/golden/mail.example.com/root/etc/mail/postseal/tls";
    let file = std::fs::read_dir(directory).unwrap().next().unwrap().unwrap().path();
    std::fs::read_to_string(file).unwrap()
}

fn spki(chain: &str) -> Digest {
    Digest::of(&Certificate::from_pem(chain).unwrap().facts().spki)
}

/// What exists for a host whose certificate is issued.
fn served(host: &HostName, chain: &str) -> (ServerCertificate, NextKey) {
    let (now, key) = (datetime!(2026-11-24 00:00 UTC), Digest::of(host.as_str().as_bytes()));
    let certificate = ServerCertificate {
        host: host.clone(),
        serial: Serial::from_random([1; 16]),
        chain: chain.to_owned(),
        key,
        not_after: now,
        former: None,
    };
    (certificate, NextKey { host: host.clone(), key, spki: key, since: now })
}

prop_compose! {
    fn some_host()(
        (which, preference, addresses) in (0..HOSTS.len(), 1_u16..4, 0_usize..3),
        (is_issued, keys, has_web) in (any::<bool>(), prop::collection::vec(0_u8..3, 0..3), prop::bool::weighted(0.3)),
    ) -> Host {
        let number = u8::try_from(which).unwrap();
        let all = [IpAddr::from([203, 0, 113, number]), format!("2001:db8::{number}").parse().unwrap()];
        Host {
            addresses: all[..addresses].to_vec(),
            mx_certificate: if is_issued { CertificateSource::Issued } else { files() },
            mx_preference: preference * 10,
            mx_spki: keys.into_iter().map(|key| Digest::of(&[key])).collect(),
            web: has_web.then_some(Web { server: WebServer::Nginx, certificates: None }),
            ..host(HOSTS[which], number)
        }
    }
}

fn some_address() -> impl Strategy<Value = postseal::names::MailAddress> {
    let domains: Vec<&str> = DOMAINS.into_iter().chain(["reports.example.com", "far.test"]).collect();
    ("[a-z][a-z/=+']{0,4}", prop::sample::select(domains))
        .prop_map(|(local, domain)| format!("{local}@{domain}").parse().unwrap())
}

prop_compose! {
    fn some_dmarc()(
        policy in prop::option::of(prop::sample::select(&DmarcPolicy::ALL[..])),
        (sp, np) in (prop::option::of(prop::sample::select(&DmarcPolicy::ALL[..])), prop::option::of(prop::sample::select(&DmarcPolicy::ALL[..]))),
        (strict, testing, psd) in (any::<bool>(), any::<bool>(), prop::option::of(any::<bool>())),
        (reports, failure_reports) in (prop::option::of(some_address()), prop::option::of(some_address())),
    ) -> Dmarc {
        let nearness = if strict { Alignment::Strict } else { Alignment::Relaxed };
        Dmarc { policy, sp, np, adkim: nearness, aspf: nearness, testing, psd, reports, failure_reports }
    }
}

prop_compose! {
    fn some_domain()(
        (which, mail, dnssec) in (0..DOMAINS.len(), prop::bool::weighted(0.7), any::<bool>()),
        silent in prop::sample::subsequence(&SILENT[..], 0..3),
        also in prop::sample::subsequence(vec!["include:_spf.far.test", "ip4:192.0.2.0/24", "mx:example.net"], 0..3),
        spf in prop::option::of(prop::sample::select(&SpfPolicy::ALL[..])),
        dmarc in some_dmarc(),
        (tls, bimi) in (0..3, 0..4),
        tls_address in some_address(),
        issuers in prop::collection::vec(prop::sample::select(vec![";", "ca.test", "ca.test; accounturi=https://ca.test/1"]), 0..4),
    ) -> Domain {
        let issuers: Vec<_> = issuers.into_iter().map(|issuer| issuer.parse().unwrap()).collect();
        Domain {
            mail,
            dnssec,
            silent_names: silent.into_iter().map(|name| name.parse().unwrap()).collect(),
            spf,
            spf_also: also.into_iter().map(|term| term.parse().unwrap()).collect(),
            dmarc,
            tls_reports: match tls {
                0 => None,
                1 => Some(TlsReports::Mail(tls_address)),
                _ => Some(TlsReports::Https("https://far.test/tls".to_owned())),
            },
            bimi: match bimi {
                0 => Bimi::Unset,
                1 => Bimi::Declined,
                number => Bimi::Logo {
                    file: "logo.svg".to_owned(),
                    certificate: (number == 2).then(|| "logo.pem".to_owned()),
                    base: (number == 2).then(|| "https://far.test/".to_owned()),
                },
            },
            caa: Caa { issue: issuers.clone(), issuewild: issuers.clone(), issuemail: issuers, iodef: Some("mailto:a@far.test".to_owned()) },
            ..domain(DOMAINS[which])
        }
    }
}

prop_compose! {
    fn sites()(
        mut hosts in prop::collection::vec(some_host(), 1..5),
        mut domains in prop::collection::vec(some_domain(), 1..7),
        (imaps, managesieve, pop3s) in (any::<bool>(), any::<bool>(), any::<bool>()),
        stages in prop::collection::vec((0..DOMAINS.len(), prop::sample::select(&StsStage::ALL[..])), 0..4),
        keys in prop::collection::vec((0..DOMAINS.len(), 0..3_u8), 0..5),
    ) -> (Site, Inventory) {
        hosts.sort_by(|one, other| one.name.cmp(&other.name));
        hosts.dedup_by(|one, other| one.name == other.name);
        domains.sort_by(|one, other| one.name.cmp(&other.name));
        domains.dedup_by(|one, other| one.name == other.name);
        let chain = chain();
        let (server_certificates, next_keys) = hosts.iter().map(|host| served(&host.name, &chain)).unzip();
        let mut rollouts: Vec<_> = stages.into_iter()
            .flat_map(|(which, stage)| rolled(DOMAINS[which], Stage::MtaSts(stage)).rollouts)
            .collect();
        rollouts.sort_by(|one, other| one.domain.cmp(&other.domain));
        rollouts.dedup_by(|one, other| one.domain == other.domain);
        let mut dkim_keys: Vec<_> = keys.into_iter().map(|(which, number)| {
            let public = ("A".repeat(392), Digest::of(&[number]));
            let what = (DOMAINS[which].parse().unwrap(), DkimAlgorithm::Rsa);
            DkimKey::new(what, format!("s{number}").parse().unwrap(), public, datetime!(2026-11-24 00:00 UTC))
        }).collect();
        dkim_keys.sort_by(|a, b| (&a.domain, a.algorithm, &a.selector).cmp(&(&b.domain, b.algorithm, &b.selector)));
        dkim_keys.dedup_by(|a, b| (&a.domain, &a.selector) == (&b.domain, &b.selector));
        let site = Site { services: Services { imaps, managesieve, pop3s }, ..site(hosts, domains) };
        (site, Inventory { server_certificates, next_keys, rollouts, dkim_keys, ..Inventory::default() })
    }
}

fn is_below(name: &str, domain: &DomainName) -> bool {
    name == domain.as_str() || name.strip_suffix(domain.as_str()).is_some_and(|rest| rest.ends_with('.'))
}

/// Says what of a zone DNS, or a reader of mail's records, would not take.
fn fault(zone: &Zone, site: &Site) -> Option<String> {
    let mut sets: BTreeMap<(&str, &str), Vec<&Record>> = BTreeMap::new();
    for record in &zone.records {
        sets.entry((&record.name, record.data.kind())).or_default().push(record);
        if record.name.len() > 253 || record.name.split('.').any(|label| label.is_empty() || label.len() > 63) {
            return Some(format!("DNS has no room for {}", record.name));
        }
        let around = site.domains.iter().map(|domain| &domain.name).filter(|name| is_below(&record.name, name));
        // A domain that left the settings has its keys only, where they were.
        if around.max_by_key(|name| name.as_str().len()) != Some(&zone.domain) && site.has_domain(&zone.domain) {
            return Some(format!("{} belongs into another zone than {}", record.name, zone.domain));
        }
    }
    for ((name, kind), set) in &sets {
        let kinds = sets.keys().filter(|(other, _)| other == name).count();
        let contents: BTreeSet<String> = set.iter().map(|record| record.data.to_string()).collect();
        let problem = match *kind {
            _ if contents.len() != set.len() => "a record twice",
            _ if set.iter().any(|record| record.ttl != set[0].ttl) => "two TTLs in a set",
            "CNAME" if kinds != 1 || set.len() != 1 => "a CNAME beside another record",
            // No name of mail's has two texts: two of SPF, DMARC, TLS-RPT, MTA-STS or BIMI void each other.
            "TXT" if set.len() != 1 => "two texts",
            "MX" if set.len() > 1 && set.iter().any(|record| record.data == RecordData::NullMx) => "null MX and MX",
            _ => continue,
        };
        return Some(format!("{name} {kind}: {problem}: {contents:?}"));
    }
    None
}

proptest! {
    #[test]
    fn every_zone_of_every_site_can_be_loaded_and_contradicts_itself_nowhere((site, inventory) in sites()) {
        let zones = zones(&site, &inventory);
        for zone in &zones {
            prop_assert_eq!(fault(zone, &site), None);
        }
    }

    #[test]
    fn no_record_says_nothing_of_why_and_of_where_that_is_written((site, inventory) in sites()) {
        for record in zones(&site, &inventory).iter().flat_map(|zone| &zone.records) {
            prop_assert!(record.reason.ends_with('.') && !record.reason.contains('\n'), "{:?}", record);
            prop_assert!(record.rfc.starts_with("RFC ") || record.rfc.starts_with("draft-"), "{:?}", record);
        }
    }
}

#[test]
fn bind_loads_what_is_written() {
    let mut runner = TestRunner::deterministic();
    let directory = tempfile::tempdir().unwrap();
    for _ in 0..12 {
        let (site, inventory) = sites().new_tree(&mut runner).unwrap().current();
        for zone in zones(&site, &inventory) {
            let text = zone::write(&zone);
            let path = directory.path().join("zone");
            let domain = &zone.domain;
            let head =
                format!("{domain}. 60 IN SOA ns.far.test. b.far.test. 1 1 1 1 1\n{domain}. 60 IN NS ns.far.test.\n");
            std::fs::write(&path, head + &text).unwrap();
            let arguments =
                ["-i", "none", "-k", "fail", "-r", "fail", "-o", "-", domain.as_str(), path.to_str().unwrap()];
            let output = match Command::new("named-compilezone").args(arguments).output() {
                Ok(output) => output,
                Err(error) => {
                    assert!(
                        std::env::var("INTEROP").is_ok_and(|value| value == "require"),
                        "named-compilezone: {error}"
                    );
                    return println!("skipped: named-compilezone not installed");
                }
            };
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && !said.contains("warning"), "{said}\n{text}");
            let compiled = String::from_utf8(output.stdout).unwrap();
            // SOA and NS are ours.
            assert_eq!(compiled.lines().count(), zone.records.len() + 2, "{compiled}\n{text}");
        }
    }
}

#[test]
fn a_domain_that_has_no_mail_says_so_in_every_record_that_can() {
    let mut site = with_web(plain());
    site.domains[0] = Domain { mail: false, dkim: Vec::new(), ..site.domains[0].clone() };
    let records = records(&site, &Inventory::default(), "example.com");
    let found: Vec<_> = records.iter().map(|one| format!("{} {} {}", one.name, one.data.kind(), one.data)).collect();
    assert_eq!(
        found,
        [
            "example.com MX 0 .",
            "example.com TXT v=spf1 -all",
            "_dmarc.example.com TXT v=DMARC1; p=reject; np=reject",
            "*._domainkey.example.com TXT v=DKIM1; p=",
            "mail.example.com A 203.0.113.10",
            "mail.example.com TXT v=spf1 a -all",
        ]
    );
}

#[test]
fn mail_of_a_name_with_an_address_alone_is_refused_unless_it_is_a_host() {
    let mut site = plain();
    site.domains[0].silent_names = vec!["mail.example.com".parse().unwrap(), "www.example.com".parse().unwrap()];
    assert_eq!(texts(&site, "www.example.com"), ["v=spf1 -all"]);
    assert_eq!(of(&site, &Inventory::default(), ("example.com", "www.example.com", "MX")), ["0 ."]);
    assert_eq!(texts(&site, "mail.example.com"), ["v=spf1 a -all"]);
}

#[test]
fn spf_names_other_senders_in_order_and_counts_what_receivers_look_up() {
    let mut site = plain();
    let also = ["include:_spf.far.test", "ip4:192.0.2.0/24", "a:out.far.test"];
    site.domains[0].spf_also = also.iter().map(|term| term.parse().unwrap()).collect();
    assert_eq!(texts(&site, "example.com"), ["v=spf1 mx include:_spf.far.test ip4:192.0.2.0/24 a:out.far.test ~all"]);
    let reason = reason_of_spf(&site);
    assert!(reason.contains(" 3 of the 10 look-ups ") && reason.contains("inside of what it includes"), "{reason}");
    site.domains[0].spf_also = vec!["ip6:2001:db8::/32".parse().unwrap()];
    let reason = reason_of_spf(&site);
    assert!(reason.contains(" 1 of the 10 look-ups ") && !reason.contains("includes"), "{reason}");
}

fn reason_of_spf(site: &Site) -> String {
    let records = records(site, &Inventory::default(), "example.com");
    let spf = records.iter().find(|record| record.data.to_string().starts_with("v=spf1")).unwrap();
    spf.reason.to_string()
}

#[test]
fn more_mx_hosts_than_receivers_look_up_are_named_by_their_addresses() {
    let hosts: Vec<Host> = (10..21).map(|number| host(&format!("mx{number}.example.com"), number)).collect();
    let mut site = site(hosts, vec![domain("example.com")]);
    let found = texts(&site, "example.com");
    assert!(found[0].starts_with("v=spf1 ip4:203.0.113.10 ") && !found[0].contains(" mx"), "{found:?}");
    site.hosts.pop();
    assert_eq!(texts(&site, "example.com"), ["v=spf1 mx ~all"]);
}

#[test]
fn dmarc_has_what_the_settings_say_and_nothing_historic() {
    let mut site = plain();
    assert_eq!(texts(&site, "_dmarc.example.com"), ["v=DMARC1; p=none"]);
    site.domains[0].dmarc = Dmarc {
        policy: Some(DmarcPolicy::Quarantine),
        sp: Some(DmarcPolicy::Reject),
        np: None,
        adkim: Alignment::Strict,
        aspf: Alignment::Strict,
        testing: true,
        psd: Some(false),
        reports: Some("a/b=c@example.com".parse().unwrap()),
        failure_reports: Some("ruf@example.com".parse().unwrap()),
    };
    let text = "v=DMARC1; p=quarantine; sp=reject; np=reject; adkim=s; aspf=s; psd=n; t=y; \
                rua=mailto:a%2Fb%3Dc@example.com; ruf=mailto:ruf@example.com; fo=1";
    assert_eq!(texts(&site, "_dmarc.example.com"), [text]);
    site.domains[0].dmarc.np = Some(DmarcPolicy::None);
    assert!(texts(&site, "_dmarc.example.com")[0].contains("; np=none;"));
}

#[test]
fn a_record_below_the_organizations_own_asks_nothing_of_names_that_do_not_exist() {
    let strict = |name| {
        let dmarc = Dmarc { policy: Some(DmarcPolicy::Reject), ..Dmarc::default() };
        Domain { dmarc, ..domain(name) }
    };
    let site = site(vec![host("mail.example.com", 10)], vec![strict("a.example.com"), strict("example.com")]);
    let found = |zone, name| of(&site, &Inventory::default(), (zone, name, "TXT"));
    assert_eq!(found("a.example.com", "_dmarc.a.example.com"), ["v=DMARC1; p=reject"]);
    assert_eq!(found("example.com", "_dmarc.example.com"), ["v=DMARC1; p=reject; np=reject"]);
}

fn consents(site: &Site) -> Vec<(String, String)> {
    let zones = zones(site, &Inventory::default());
    let records = zones.iter().flat_map(|zone| zone.records.iter().map(move |record| (zone, record)));
    let consents = records.filter(|(_, record)| record.name.contains("._report._dmarc."));
    consents.map(|(zone, record)| (zone.domain.to_string(), record.name.clone())).collect()
}

#[test]
fn a_zone_agrees_to_reports_about_other_organizations_only() {
    let reporting = |name, reports: &str, failures: Option<&str>| {
        let dmarc = Dmarc {
            reports: Some(reports.parse().unwrap()),
            failure_reports: failures.map(|address| address.parse().unwrap()),
            ..Dmarc::default()
        };
        Domain { dmarc, ..domain(name) }
    };
    let mut site = site(
        vec![host("mail.example.com", 10)],
        vec![
            reporting("a.example.com", "dmarc@example.com", None),
            reporting("example.com", "dmarc@example.com", None),
            reporting("example.net", "dmarc@far.test", Some("ruf@reports.example.com")),
            reporting("example.org", "dmarc@example.com", Some("dmarc@example.com")),
        ],
    );
    let zone = |name: &str| ("example.com".to_owned(), name.to_owned());
    let others =
        [zone("example.net._report._dmarc.reports.example.com"), zone("example.org._report._dmarc.example.com")];
    assert_eq!(consents(&site), others);
    // It says that it is an organization of its own (RFC 9989 section 4.10.2).
    site.domains[0].dmarc.psd = Some(false);
    assert!(consents(&site).contains(&zone("a.example.com._report._dmarc.example.com")));
    // So is each that lies below a public suffix.
    site.domains[0].dmarc.psd = None;
    site.domains[1].dmarc.psd = Some(true);
    assert!(consents(&site).contains(&zone("a.example.com._report._dmarc.example.com")));
}

#[test]
fn reports_about_a_host_go_to_its_own_domain_or_to_the_first_that_asks() {
    let asking =
        |name: &str, to: &str| Domain { tls_reports: Some(TlsReports::Mail(to.parse().unwrap())), ..domain(name) };
    let mut site = site(
        vec![host("mail.example.com", 10)],
        vec![domain("example.com"), asking("example.net", "tls@example.net"), asking("example.org", "tls@example.org")],
    );
    let name = "_smtp._tls.mail.example.com";
    assert_eq!(texts(&site, name), ["v=TLSRPTv1; rua=mailto:tls@example.net"]);
    let reason = reason(&site, &Inventory::default(), name);
    assert!(reason.contains("goes where those of example.net go"), "{reason}");
    site.domains[0] = asking("example.com", "tls@example.com");
    assert_eq!(texts(&site, name), ["v=TLSRPTv1; rua=mailto:tls@example.com"]);
    assert_eq!(texts(&site, "_smtp._tls.example.com"), ["v=TLSRPTv1; rua=mailto:tls@example.com"]);
}

#[test]
fn the_text_of_mta_sts_names_the_policy_that_is_in_force() {
    let site = with_web(plain());
    let name = "_mta-sts.example.com";
    assert!(texts(&site, name).is_empty());
    let mut ids = BTreeSet::new();
    for stage in [StsStage::Testing, StsStage::Enforce, StsStage::EnforceLong, StsStage::Withdrawn] {
        let inventory = rolled("example.com", Stage::MtaSts(stage));
        let policy = postseal::policy::mta_sts::policy(&in_force(&site, &inventory, &site.domains[0])).unwrap();
        let id = postseal::policy::mta_sts::id(&policy);
        assert_eq!(of(&site, &inventory, ("example.com", name, "TXT")), [format!("v=STSv1; id={id};")]);
        ids.insert(id);
    }
    assert_eq!(ids.len(), 4, "senders fetch a policy anew if the identifier is another one");
}

#[test]
fn a_logo_that_nobody_shows_yet_is_published_with_the_reason() {
    let mut site = with_web(plain());
    let [file, certificate] = ["logo.svg", "logo.pem"].map(str::to_owned);
    site.domains[0].bimi = Bimi::Logo { file, certificate: Some(certificate), base: None };
    let name = "default._bimi.example.com";
    let text = "v=BIMI1; l=https://bimi.example.com/logo.svg; a=https://bimi.example.com/logo.pem;";
    assert_eq!(texts(&site, name), [text]);
    let told = |site: &Site| reason(site, &Inventory::default(), name);
    assert!(told(&site).ends_with("for DMARC of example.com has p=none."), "{}", told(&site));
    site.domains[0].dmarc.policy = Some(DmarcPolicy::Quarantine);
    assert!(!told(&site).contains("yet"), "{}", told(&site));
    site.domains[0].dmarc.sp = Some(DmarcPolicy::None);
    assert!(told(&site).ends_with("has sp=none."), "{}", told(&site));
    site.domains[0].dmarc = Dmarc { sp: None, testing: true, ..site.domains[0].dmarc.clone() };
    assert!(told(&site).ends_with("is a test (t=y)."), "{}", told(&site));
    site.domains[0].bimi = Bimi::Declined;
    assert_eq!(texts(&site, name), ["v=BIMI1; l=; a=;"]);
}

#[test]
fn receivers_show_no_logo_of_a_subdomain_while_its_organization_only_watches() {
    let strict = Dmarc { policy: Some(DmarcPolicy::Reject), ..Dmarc::default() };
    let logo = Bimi::Logo { file: "l.svg".to_owned(), certificate: None, base: Some("https://far.test/".to_owned()) };
    let below = Domain { dmarc: strict, bimi: logo, ..domain("a.example.com") };
    let site = site(vec![host("mail.example.com", 10)], vec![below, domain("example.com")]);
    let records = records(&site, &Inventory::default(), "a.example.com");
    let bimi = records.iter().find(|record| record.name == "default._bimi.a.example.com").unwrap();
    assert!(bimi.reason.ends_with("for DMARC of example.com has p=none."), "{}", bimi.reason);
}

#[test]
fn the_keys_of_a_host_are_told_only_where_the_zone_is_signed() {
    let mut site = plain();
    let chain = chain();
    let (certificate, next) = served(&site.hosts[0].name, &chain);
    let now = format!("3 1 1 {}", spki(&chain));
    let then = format!("3 1 1 {}", next.spki);
    let inventory = Inventory { server_certificates: vec![certificate], next_keys: vec![next], ..Inventory::default() };
    let what = ("example.com", "_25._tcp.mail.example.com", "TLSA");
    assert!(of(&site, &inventory, what).is_empty());
    site.domains[0].dnssec = true;
    assert_eq!(of(&site, &inventory, what), [now, then]);
    // What the lock holds is enough for a clone.
    assert_eq!(zones(&site, &inventory.public_part()), zones(&site, &inventory));
    site.hosts[0] = Host { mx_certificate: files(), mx_spki: vec![Digest::of(b"acme")], ..site.hosts[0].clone() };
    assert_eq!(of(&site, &inventory, what), [format!("3 1 1 {}", Digest::of(b"acme"))]);
}

#[test]
fn services_are_at_the_hosts_in_the_order_of_mail_or_nowhere() {
    let mut site = site(
        vec![host("a.example.com", 10), host("b.example.com", 11), host("c.example.com", 12)],
        vec![domain("example.com")],
    );
    site.hosts[0].mx_preference = 30;
    let found = |service: &str| {
        of(&site, &Inventory::default(), ("example.com", &format!("{service}._tcp.example.com"), "SRV"))
    };
    assert_eq!(found("_submissions"), ["0 1 465 b.example.com.", "0 1 465 c.example.com.", "1 1 465 a.example.com."]);
    assert_eq!(found("_submission").len(), 3);
    assert_eq!(found("_imaps")[0], "0 1 993 b.example.com.");
    for service in ["_imap", "_pop3", "_pop3s", "_sieve"] {
        assert_eq!(found(service), ["0 0 0 ."], "{service}");
    }
}

#[test]
fn names_of_the_web_server_are_other_names_of_its_host_unless_they_have_records() {
    let mut site = with_web(plain());
    let inventory = rolled("example.com", Stage::MtaSts(StsStage::Testing));
    let found = |site: &Site, name: &str| of(site, &inventory, ("example.com", name, "CNAME"));
    for name in ["autoconfig.example.com", "mta-sts.example.com"] {
        assert_eq!(found(&site, name), ["mail.example.com."], "{name}");
    }
    site.hosts.insert(0, host("autoconfig.example.com", 11));
    site.domains.push(domain("mta-sts.example.com"));
    assert!(found(&site, "autoconfig.example.com").is_empty() && found(&site, "mta-sts.example.com").is_empty());
}

#[test]
fn authorities_stand_in_the_zone_as_the_settings_say() {
    let mut site = plain();
    let issuers = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    site.domains[0].caa = Caa {
        issue: issuers(&["ca.test; accounturi=https://ca.test/1"]),
        issuewild: issuers(&[";"]),
        issuemail: issuers(&["mail.test"]),
        iodef: Some("mailto:security@example.com".to_owned()),
    };
    assert_eq!(
        of(&site, &Inventory::default(), ("example.com", "example.com", "CAA")),
        [
            "0 issue \"ca.test; accounturi=https://ca.test/1\"",
            "0 issuewild \";\"",
            "0 issuemail \"mail.test\"",
            "0 iodef \"mailto:security@example.com\""
        ]
    );
}

#[test]
fn further_names_of_a_domain_have_zones_of_their_own() {
    let other = Domain { alias_of: Some("example.com".parse().unwrap()), ..domain("example.net") };
    let site = site(vec![host("mail.example.com", 10)], vec![domain("example.com"), other]);
    let what = ("example.net", "example.net", "MX");
    assert_eq!(of(&site, &Inventory::default(), what), ["10 mail.example.com."]);
}

/// Returns how long this thread had a processor, which no other program changes.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

/// A wide bound, for a debug build: what is quadratic takes a hundred times as long.
#[test]
fn ten_thousand_domains_take_ten_times_as_long_as_a_thousand() {
    let large = |count: usize| {
        let names: Vec<String> = (0..count).map(|number| format!("d{number:05}.example")).collect();
        let reports = Dmarc { reports: Some("dmarc@d00000.example".parse().unwrap()), ..Dmarc::default() };
        let domains = names.iter().map(|name| Domain { dmarc: reports.clone(), ..domain(name) }).collect();
        let key = |name: &String, algorithm, selector: &str| {
            let public = ("A".repeat(392), Digest::of(b""));
            let what = (name.parse().unwrap(), algorithm);
            let made = DkimKey::new(what, selector.parse().unwrap(), public, datetime!(2026-11-24 00:00 UTC));
            DkimKey { state: DkimState::Active, ..made }
        };
        let two = [(DkimAlgorithm::Rsa, "r"), (DkimAlgorithm::Ed25519, "e")];
        let dkim_keys = names.iter().flat_map(|name| two.map(|(algorithm, selector)| key(name, algorithm, selector)));
        let inventory = Inventory { dkim_keys: dkim_keys.collect(), ..Inventory::default() };
        (with_web(site(vec![host("mail.d00000.example", 10)], domains)), inventory)
    };
    let time = |count| {
        let (site, inventory) = large(count);
        let begin = processor_time();
        let zones = zones(&site, &inventory);
        let text: usize = zones.iter().map(|zone| zone::write(zone).len()).sum();
        assert!(zones.len() == count && text > count * 1000);
        processor_time().checked_sub(begin).unwrap()
    };
    time(100);
    let (small, big) = (time(1000), time(10_000));
    println!("1,000: {small:?}, 10,000: {big:?}");
    assert!(big < small * 30, "{small:?} {big:?}");
}
