use time::macros::datetime;

use super::*;
use crate::diag::Source;
use crate::inventory::{Crl, DkimAlgorithm, DkimKey, DkimState, SiteCa, Successor, User};
use crate::keys::{KeyKind, generate};
use crate::names::DeviceName;
use crate::pki::issue::{Authority, server, site_ca};

const NOW: OffsetDateTime = datetime!(2026-11-24 12:00 UTC);
const SECOND: Duration = Duration::SECOND;
const LIMITS: Limits = Limits { warn: Duration::days(30), critical: Duration::days(7) };

fn days(count: i64) -> Duration {
    Duration::days(count)
}

fn site() -> Site {
    let text = "[[host]]\nname = \"mail.example.com\"\nplatform = \"debian\"\n[[domain]]\nname = \"example.com\"\n[aliases]\n\
                \"postmaster@example.com\" = \"alice+list@example.com\"\n";
    load(text)
}

fn load(text: &str) -> Site {
    let source = Source { path: "postseal.toml".into(), text: text.to_owned() };
    crate::site::load(&[std::sync::Arc::new(source)]).unwrap().0
}

fn serial(n: u8) -> Serial {
    Serial::from_random([n; 16])
}

fn client(address: &str, n: u8, not_after: OffsetDateTime) -> ClientCertificate {
    ClientCertificate {
        address: address.parse().unwrap(),
        device: DeviceName::default(),
        serial: serial(n),
        fingerprint: Digest::of(&[n]),
        status: CertificateStatus::Live,
        not_before: NOW - days(1),
        not_after,
        successor: None,
        issuer: None,
        revocation: None,
        handed_over: None,
        theirs: false,
    }
}

/// A server certificate that began so long before now and ends so long after it.
fn server_certificate(past: i64, left: Duration) -> ServerCertificate {
    let key = generate(KeyKind::P256).unwrap();
    let host: HostName = "mail.example.com".parse().unwrap();
    let begin = NOW - days(past) + BACKDATED;
    let ca = site_ca("CA", std::slice::from_ref(&host), &key, serial(90), begin).unwrap();
    let authority = Authority::new(&ca, &key).unwrap();
    let made = server(&host, key.public(), &authority, serial(91), Some(200), begin).unwrap();
    let (not_after, key) = (NOW + left, Digest::of(b"key"));
    ServerCertificate { host, serial: serial(91), chain: made.pem(), key, not_after, former: None }
}

fn dkim(algorithm: DkimAlgorithm) -> DkimKey {
    let what = ("example.com".parse().unwrap(), algorithm);
    let made = DkimKey::new(what, "a".parse().unwrap(), ("A".to_owned(), Digest::of(b"key")), NOW);
    DkimKey { state: DkimState::Active, seen: Some(NOW), ..made }
}

/// A site with Alice, in which all is well for a long time.
fn inventory() -> Inventory {
    Inventory {
        site_ca: Some(SiteCa { certificate: String::new(), not_after: NOW + days(3000) }),
        server_certificates: vec![server_certificate(10, days(190))],
        dkim_keys: vec![dkim(DkimAlgorithm::Rsa), dkim(DkimAlgorithm::Ed25519)],
        users: vec![User { address: "alice@example.com".parse().unwrap(), senders: Vec::new(), since: NOW }],
        client_certificates: vec![client("alice@example.com", 1, NOW + days(300))],
        ..Inventory::default()
    }
}

fn facts() -> Facts {
    Facts {
        has_ledger: true,
        lock_is_stale: false,
        out_is_stale: false,
        cannot_render: None,
        golden: Golden::Same,
        handouts: BTreeSet::new(),
        watched: Vec::new(),
        notices: 0,
        crls_due: BTreeSet::new(),
    }
}

fn look(inventory: &Inventory, facts: &Facts) -> Survey {
    survey(&site(), inventory, facts, LIMITS, NOW)
}

/// What is found: kind, severity, whether it is due.
fn found(inventory: &Inventory) -> Vec<(&'static str, Severity, bool)> {
    found_with(inventory, &facts())
}

fn found_with(inventory: &Inventory, facts: &Facts) -> Vec<(&'static str, Severity, bool)> {
    let survey = look(inventory, facts);
    let listed = |id| FINDINGS.iter().any(|(known, _)| *known == id);
    assert!(survey.findings.iter().all(|finding| listed(finding.id) && !finding.text.ends_with('.')), "{survey:?}");
    survey.findings.iter().map(|finding| (finding.id, finding.severity, finding.due)).collect()
}

fn with_clients(clients: Vec<ClientCertificate>) -> Inventory {
    let mut inventory = inventory();
    inventory.client_certificates.extend(clients);
    inventory
}

#[test]
fn where_all_is_well_there_is_nothing_to_tell() {
    assert_eq!(found(&inventory()), []);
    let survey = look(&inventory(), &facts());
    assert_eq!((survey.worst(), survey.is_anything_due()), (Severity::Ok, false));
    assert_eq!(
        survey.expiries.iter().map(|one| one.kind).collect::<Vec<_>>(),
        [Kind::SiteCa, Kind::Server, Kind::Client]
    );
    assert_eq!(survey.counts, Counts { users: 1, clients: [1, 0, 0, 0], twins: 1 });
}

#[test]
fn a_certificate_is_told_of_from_the_first_moment_within_a_limit() {
    let id = "client-certificate-expires";
    for (left, expected) in [
        (days(30) + SECOND, None),
        (days(30), Some((id, Severity::Warning, false))),
        (days(7) + SECOND, Some((id, Severity::Warning, false))),
        (days(7), Some((id, Severity::Critical, false))),
        (SECOND, Some((id, Severity::Critical, false))),
        // From its last moment on it is no longer admitted by anybody: the ledger follows, and Alice has another.
        (Duration::ZERO, Some(("end-not-recorded", Severity::Warning, true))),
    ] {
        let phone =
            ClientCertificate { device: "phone".parse().unwrap(), ..client("alice@example.com", 2, NOW + left) };
        assert_eq!(found(&with_clients(vec![phone])), expected.into_iter().collect::<Vec<_>>(), "{left}");
    }
}

#[test]
fn the_site_ca_stays_urgent_when_it_has_ended() {
    for (left, severity) in
        [(days(30), Severity::Warning), (days(7), Severity::Critical), (days(-9), Severity::Critical)]
    {
        let ca = SiteCa { certificate: String::new(), not_after: NOW + left };
        let inventory = Inventory { site_ca: Some(ca), ..inventory() };
        assert_eq!(found(&inventory), [("site-ca-expires", severity, false)]);
    }
}

#[test]
fn a_server_certificate_is_due_from_its_last_third_on() {
    let id = "server-certificate-expires";
    // 120 days of 180 are over at the third.
    for (past, left, expected) in [
        (120, days(60), vec![]),
        (120, days(60) - SECOND, vec![(id, Severity::Warning, true)]),
        (173, days(7), vec![(id, Severity::Critical, true)]),
        (180, Duration::ZERO, vec![(id, Severity::Critical, true)]),
        (190, days(-10), vec![(id, Severity::Critical, true)]),
    ] {
        let inventory = Inventory { server_certificates: vec![server_certificate(past, left)], ..inventory() };
        assert_eq!(found(&inventory), expected, "{past} {left}");
    }
}

#[test]
fn a_host_without_a_certificate_is_urgent_unless_it_needs_none() {
    let inventory = Inventory { server_certificates: Vec::new(), ..inventory() };
    assert_eq!(found(&inventory), [("host-without-certificate", Severity::Critical, false)]);
    let files = "files = { certificate = \"/a.pem\", key = \"/a.key\" }";
    let text = format!(
        "[[host]]\nname = \"mail.example.com\"\nplatform = \"debian\"\nmx_certificate.{files}\nsubmission_certificate.{files}\n\
         [[domain]]\nname = \"example.com\"\n"
    );
    assert_eq!(survey(&load(&text), &inventory, &facts(), LIMITS, NOW).findings, []);
}

fn issuing_ca(crl: Option<(Duration, Duration)>) -> IssuingCa {
    let crl = crl.map(|(past, left)| Crl { number: 3, this_update: NOW - past, next_update: NOW + left });
    IssuingCa { serial: serial(50), status: CertificateStatus::Live, not_after: NOW + days(900), successor: None, crl }
}

#[test]
fn a_crl_is_due_from_its_middle_on_and_urgent_once_it_has_ended() {
    for (crl, expected) in [
        (Some((days(7) - SECOND, days(7) + SECOND)), vec![]),
        (Some((days(7), days(7))), vec![("crl-due", Severity::Warning, true)]),
        (Some((days(14) - SECOND, SECOND)), vec![("crl-due", Severity::Warning, true)]),
        (Some((days(14), Duration::ZERO)), vec![("crl-ended", Severity::Critical, true)]),
        (None, vec![("crl-due", Severity::Warning, true)]),
    ] {
        let inventory = Inventory { issuing_cas: vec![issuing_ca(crl)], ..inventory() };
        assert_eq!(found(&inventory), expected, "{crl:?}");
    }
}

#[test]
fn a_crl_that_does_not_say_what_was_revoked_is_due_however_young() {
    let inventory = Inventory { issuing_cas: vec![issuing_ca(Some((days(1), days(13))))], ..inventory() };
    assert_eq!(found(&inventory), []);
    let facts = Facts { crls_due: BTreeSet::from([serial(50)]), ..facts() };
    assert_eq!(found_with(&inventory, &facts), [("crl-due", Severity::Warning, true)]);
}

#[test]
fn of_an_issuing_ca_that_is_gone_no_crl_is_missed() {
    for status in [CertificateStatus::Expired, CertificateStatus::Revoked] {
        let inventory = Inventory { issuing_cas: vec![IssuingCa { status, ..issuing_ca(None) }], ..inventory() };
        assert_eq!(found(&inventory), []);
    }
}

#[test]
fn the_overlap_of_a_replaced_certificate_is_told_until_its_end_is_due() {
    let successor = |left| Some(Successor { serial: serial(1), retires_at: NOW + left });
    for (left, expected) in [
        (SECOND, ("admitted-until", Severity::Ok, false)),
        (Duration::ZERO, ("end-not-recorded", Severity::Warning, true)),
    ] {
        // It would run out in a day by itself, of which nobody needs to be told.
        let old = ClientCertificate { successor: successor(left), ..client("alice@example.com", 2, NOW + days(1)) };
        assert_eq!(found(&with_clients(vec![old])), [expected]);
    }
}

#[test]
fn a_certificate_that_is_held_waits_for_confirmation() {
    let status = CertificateStatus::Held;
    let held = ClientCertificate { status, ..client("alice@example.com", 2, NOW + days(300)) };
    let survey = look(&with_clients(vec![held]), &facts());
    assert_eq!(survey.findings.len(), 1);
    assert_eq!(survey.findings[0].mend.as_deref(), Some("postseal user confirm alice@example.com"));
}

#[test]
fn what_was_revoked_or_has_ended_is_told_no_more() {
    for status in [CertificateStatus::Revoked, CertificateStatus::Expired] {
        let gone = ClientCertificate { status, ..client("alice@example.com", 2, NOW - days(1)) };
        assert_eq!(found(&with_clients(vec![gone])), []);
    }
}

#[test]
fn a_user_without_a_certificate_or_a_domain_is_told_of_once() {
    let user = |address: &str| User { address: address.parse().unwrap(), senders: Vec::new(), since: NOW };
    let mut inventory = inventory();
    inventory.users.extend([user("bob@example.com"), user("carol@example.net")]);
    let survey = look(&inventory, &facts());
    let told: Vec<_> = survey.findings.iter().map(|finding| (finding.id, finding.subject.as_str())).collect();
    assert_eq!(told, [("user-without-certificate", "bob@example.com"), ("user-domain-gone", "carol@example.net")]);
}

#[test]
fn an_alias_must_lead_to_a_user_an_alias_or_out_of_the_site() {
    let text = "[[host]]\nname = \"mail.example.com\"\nplatform = \"debian\"\n[[domain]]\nname = \"example.com\"\n[aliases]\n\
                \"postmaster@example.com\" = [\"alice@example.com\", \"a@example.com\"]\n\
                \"a@example.com\" = \"somebody@example.org\"\n\"b@example.com\" = \"alise@example.com\"\n";
    let survey = survey(&load(text), &inventory(), &facts(), LIMITS, NOW);
    let told: Vec<_> = survey.findings.iter().map(|finding| (finding.id, finding.subject.as_str())).collect();
    assert_eq!(told, [("alias-to-nobody", "b@example.com")]);
}

#[test]
fn a_handout_is_nagged_about_after_fourteen_days() {
    for (past, here, expected) in [
        (days(14), true, vec![]),
        (days(14) + SECOND, true, vec![("handout-waits", Severity::Warning, false)]),
        (days(14) + SECOND, false, vec![]),
    ] {
        let mut inventory = inventory();
        inventory.client_certificates[0].not_before = NOW - past - BACKDATED;
        let handouts = if here { BTreeSet::from([serial(1)]) } else { BTreeSet::new() };
        assert_eq!(found_with(&inventory, &Facts { handouts, ..facts() }), expected);
        inventory.client_certificates[0].handed_over = Some(NOW);
        assert_eq!(found_with(&inventory, &Facts { handouts: BTreeSet::from([serial(1)]), ..facts() }), []);
    }
}

#[test]
fn a_trust_list_is_too_long_once_tls_cannot_name_all_of_it() {
    let mut inventory = inventory();
    let one = |n: usize| ClientCertificate {
        device: format!("d{n}").parse().unwrap(),
        ..client("alice@example.com", 2, NOW + days(300))
    };
    inventory.client_certificates = (0..MAXIMUM_TWINS).map(one).collect();
    assert_eq!(found(&inventory), []);
    inventory.issuing_cas.push(issuing_ca(Some((days(1), days(13)))));
    assert_eq!(found(&inventory), [("trust-list-long", Severity::Warning, false)]);
    // Clients of the CA for all stand on no list.
    for one in &mut inventory.client_certificates {
        one.issuer = Some(serial(50));
    }
    assert_eq!(found(&inventory), []);
}

#[test]
fn derived_files_a_missing_key_and_golden_are_compared() {
    let facts = Facts { lock_is_stale: true, out_is_stale: true, golden: Golden::Absent, notices: 2, ..facts() };
    let inventory = Inventory { dkim_keys: vec![dkim(DkimAlgorithm::Rsa)], ..inventory() };
    let expected = [
        ("lock-stale", Severity::Warning, true),
        ("out-stale", Severity::Warning, true),
        ("dkim-key-missing", Severity::Warning, false),
        ("notice-due", Severity::Ok, true),
        ("golden-absent", Severity::Ok, false),
    ];
    assert_eq!(found_with(&inventory, &facts), expected);
}

/// Returns what is found where the RSA key is as the change makes it, or as the change makes a second one.
fn found_of_dkim(change: impl Fn(&mut DkimKey), second: bool) -> Vec<(&'static str, Severity, bool)> {
    let mut key = DkimKey { selector: "b".parse().unwrap(), state: DkimState::Published, ..dkim(DkimAlgorithm::Rsa) };
    change(&mut key);
    let mut keys = if second { vec![dkim(DkimAlgorithm::Rsa)] } else { Vec::new() };
    keys.extend([key, dkim(DkimAlgorithm::Ed25519)]);
    found(&Inventory { dkim_keys: keys, ..inventory() })
}

#[test]
fn a_key_that_signs_unconfirmed_is_told_until_every_name_server_has_it() {
    let active = |seen| move |key: &mut DkimKey| (key.state, key.seen) = (DkimState::Active, seen);
    assert_eq!(found_of_dkim(active(None), false), [("dkim-unconfirmed", Severity::Warning, false)]);
    assert_eq!(found_of_dkim(active(Some(NOW)), false), []);
}

#[test]
fn a_successor_that_waits_is_told_and_is_due_when_its_wait_is_over() {
    let seen = |seen: Option<OffsetDateTime>| found_of_dkim(|key| key.seen = seen, true);
    assert_eq!(seen(None), [("dkim-unpublished", Severity::Ok, false)]);
    assert_eq!(seen(Some(NOW)), []);
    assert_eq!(seen(Some(NOW - Duration::hours(3))), [("dkim-due", Severity::Ok, true)]);
}

#[test]
fn a_key_that_left_is_told_while_a_host_may_sign_with_it() {
    let retiring = |unused| move |key: &mut DkimKey| (key.state, key.unused) = (DkimState::Retiring, unused);
    assert_eq!(found_of_dkim(retiring(None), true), [("dkim-not-in-force", Severity::Warning, false)]);
    assert_eq!(found_of_dkim(retiring(Some(NOW)), true), []);
    assert_eq!(found_of_dkim(retiring(Some(NOW - days(6))), true), [("dkim-due", Severity::Ok, true)]);
}

#[test]
fn a_revoked_key_is_urgent_while_a_host_may_sign_with_it() {
    let revoked = |unused: Option<OffsetDateTime>, seen: Option<OffsetDateTime>| {
        found_of_dkim(|key| (key.state, key.unused, key.seen) = (DkimState::Revoked, unused, seen), true)
    };
    assert_eq!(revoked(None, Some(NOW)), [("dkim-revoked-in-use", Severity::Critical, false)]);
    assert_eq!(revoked(Some(NOW), None), [("dkim-revocation-unseen", Severity::Warning, false)]);
    assert_eq!(revoked(Some(NOW), Some(NOW)), []);
}

#[test]
fn without_a_ledger_nothing_is_said_of_users() {
    let facts = Facts { has_ledger: false, ..facts() };
    assert_eq!(found_with(&inventory().public_part(), &facts), [("no-ledger", Severity::Ok, false)]);
}

#[test]
fn the_most_urgent_comes_first_and_then_the_soonest() {
    let users = ["bob", "carol"].map(|name| format!("{name}@example.com"));
    let phone = |address: &str, n, left| client(address, n, NOW + days(left));
    let clients = vec![phone(&users[0], 3, 20), phone(&users[1], 4, 3), phone(&users[1], 5, 12)];
    let survey = look(&with_clients(clients), &facts());
    let moments: Vec<_> =
        survey.findings.iter().filter_map(|one| one.moment).map(|at| (at - NOW).whole_days()).collect();
    assert_eq!(moments, [3, 12, 20]);
    assert_eq!(survey.soonest(Kind::Client).map(|one| one.at), Some(NOW + days(3)));
}

#[test]
fn a_hostile_name_is_one_word_of_the_command_that_mends() {
    let mut inventory = inventory();
    inventory.users.push(User { address: "o'hara@example.com".parse().unwrap(), senders: Vec::new(), since: NOW });
    assert_eq!(
        look(&inventory, &facts()).findings[0].mend.as_deref(),
        Some("postseal user add 'o'\\''hara@example.com'")
    );
}

#[test]
fn how_far_away_a_moment_is_is_said_in_round_numbers() {
    let said = |left| when(NOW + left, NOW, ("ended", "ends"));
    assert_eq!(said(Duration::minutes(59)), "ends in less than an hour, on 2026-11-24");
    assert_eq!(said(Duration::minutes(60)), "ends in 1 hour, on 2026-11-24");
    assert_eq!(said(days(1) - SECOND), "ends in 23 hours, on 2026-11-25");
    assert_eq!(said(days(1)), "ends in 1 day, on 2026-11-25");
    assert_eq!(said(Duration::ZERO), "ended on 2026-11-24");
}

#[test]
fn nagios_is_told_the_first_finding_and_how_many_more() {
    let (line, code) = nagios::write(&look(&inventory(), &facts()));
    assert_eq!(
        (line.as_str(), code),
        (
            "POSTSEAL OK - nothing is due | critical=0;;0 warning=0;0; site_ca_days=3000;30:;7: server_days=190;30:;7: client_days=300;30:;7:\n",
            0
        )
    );
    let clients = vec![client("bob@example.com", 3, NOW + days(3)), client("carol@example.com", 4, NOW + days(20))];
    let (line, code) = nagios::write(&look(&with_clients(clients), &facts()));
    assert!(line.starts_with("POSTSEAL CRITICAL - bob@example.com: the certificate for `default` ends in 3 days, on 2026-11-27 (and 1 more) | critical=1;;0 warning=1;0; "), "{line}");
    assert_eq!((code, line.lines().count(), line.matches('|').count()), (2, 1, 1));
    let due = Facts { notices: 1, ..facts() };
    assert_eq!(nagios::write(&look(&inventory(), &due)).1, 1);
}

#[test]
fn what_nagios_is_told_stays_on_its_line_and_before_the_bar() {
    let problem = Some("a | b=1\nc".to_owned());
    let (line, code) = nagios::write(&look(&inventory(), &Facts { cannot_render: problem, ..facts() }));
    assert_eq!((code, line.lines().count(), line.matches('|').count()), (2, 1, 1), "{line}");
    assert_eq!(nagios::unknown("a | b\nc"), "POSTSEAL UNKNOWN - a / b\\nc\n");
}

/// Reads the exposition format 0.0.4 as strictly as its grammar is written; returns sample by series.
fn exposition(text: &str) -> std::collections::BTreeMap<String, i64> {
    let is_name = |name: &str| {
        let first = name.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
        first && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    assert!(text.ends_with('\n') && text.is_ascii());
    let (mut samples, mut metric, mut seen) = (std::collections::BTreeMap::new(), "", BTreeSet::new());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').unwrap();
            metric = name;
            assert!(is_name(name) && !words.is_empty() && seen.insert(name), "{line}");
            assert_eq!(lines.next(), Some(format!("# TYPE {name} gauge").as_str()));
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').map_or((series, ""), |(name, rest)| (name, rest));
        assert!(name == metric, "{line} stands below {metric}");
        let mut rest = labels.strip_suffix('}').unwrap_or(labels);
        while !rest.is_empty() {
            let (label, behind) = rest.split_once("=\"").unwrap();
            assert!(is_name(label), "{line}");
            let mut escaped = false;
            let end = behind.chars().position(|c| {
                let ends = c == '"' && !escaped;
                assert!(!escaped || "\\\"n".contains(c), "{line}");
                escaped = c == '\\' && !escaped;
                ends
            });
            rest = &behind[end.unwrap() + 1..];
            assert!(rest.is_empty() || rest.starts_with(','), "{line}");
            rest = rest.strip_prefix(',').unwrap_or(rest);
        }
        assert_eq!(samples.insert(series.to_owned(), value.parse().unwrap()), None, "{series} stands twice");
    }
    samples
}

#[test]
fn prometheus_is_told_counts_and_the_soonest_end_but_no_user() {
    let clients = vec![client("bob@example.com", 3, NOW + days(3)), client("carol@example.com", 4, NOW + days(20))];
    let text = prometheus::write(&look(&with_clients(clients), &facts()));
    let samples = exposition(&text);
    let value = |series: &str| *samples.get(series).unwrap_or_else(|| panic!("{series} is not in\n{text}"));
    assert_eq!(value("postseal_status"), 2);
    assert_eq!(value("postseal_due"), 0);
    assert_eq!(value("postseal_findings{finding=\"client-certificate-expires\"}"), 2);
    assert_eq!(value("postseal_findings{finding=\"crl-ended\"}"), 0);
    assert_eq!(value("postseal_expiry_timestamp_seconds{kind=\"client\"}"), (NOW + days(3)).unix_timestamp());
    assert_eq!(value("postseal_expiring{kind=\"client\",within=\"warning\"}"), 2);
    assert_eq!(value("postseal_expiring{kind=\"client\",within=\"critical\"}"), 1);
    assert_eq!(
        value("postseal_server_certificate_expiry_timestamp_seconds{host=\"mail.example.com\"}"),
        (NOW + days(190)).unix_timestamp()
    );
    assert_eq!(value("postseal_client_certificates{status=\"live\"}"), 3);
    assert_eq!(value("postseal_status_timestamp_seconds"), NOW.unix_timestamp());
    assert!(!text.contains('@'), "{text}");
}

/// Reads a calendar as RFC 5545 writes it, strictly; returns the properties of each event by their names.
fn calendar(text: &str) -> Vec<std::collections::BTreeMap<String, String>> {
    assert!(text.ends_with("\r\n"));
    assert!(text.split("\r\n").all(|line| line.len() <= 75 && !line.contains(['\r', '\n'])), "{text}");
    let unfolded = text.replace("\r\n ", "");
    let mut open: Vec<String> = Vec::new();
    let (mut events, mut event, mut alarms) = (Vec::new(), std::collections::BTreeMap::new(), 0);
    for line in unfolded.split_terminator("\r\n") {
        let (name, value) = line.split_once(':').unwrap();
        assert!(
            name.split(';').all(|part| part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-=".contains(&b))),
            "{line}"
        );
        match name {
            "BEGIN" => open.push(value.to_owned()),
            "END" => {
                assert_eq!(open.pop().as_deref(), Some(value));
                if value == "VALARM" {
                    alarms += 1;
                } else if value == "VEVENT" {
                    assert_eq!(alarms, 1, "each event reminds once");
                    alarms = 0;
                    events.push(std::mem::take(&mut event));
                }
            }
            _ if open.len() == 2 => assert_eq!(event.insert(name.to_owned(), value.to_owned()), None, "{line}"),
            _ => assert!(!open.is_empty(), "{line}"),
        }
    }
    assert!(open.is_empty());
    events
}

#[test]
fn the_calendar_has_an_event_for_each_end_that_is_the_same_on_another_day() {
    let local = "o'hara=and.a.very.long.local.part.that.has.to.be.folded.somewhere";
    let clients = vec![client(&format!("{}@example.com", &local[..60]), 3, NOW + days(3))];
    let inventory = with_clients(clients);
    let text = ics::write(&look(&inventory, &facts()));
    let events = calendar(&text);
    assert_eq!(events.len(), 4);
    let first = &events[0];
    assert_eq!(first["UID"], format!("{}.client@postseal.invalid", serial(3)));
    assert_eq!(first["DTSTART;VALUE=DATE"], "20261127");
    assert_eq!(first["DTSTAMP"], "20261123T120000Z");
    assert!(first["SUMMARY"].ends_with(": the certificate for `default` ends"), "{first:?}");
    let uids: BTreeSet<_> = events.iter().map(|event| &event["UID"]).collect();
    assert_eq!(uids.len(), events.len());
    let later = survey(&site(), &inventory, &facts(), LIMITS, NOW + days(1));
    assert_eq!(ics::write(&later), text);
}
