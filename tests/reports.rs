//! Reports of other mail servers: those of the well known reporters are read and summed up as they mean it, and whatever a
//! stranger sends costs a bounded amount of memory and counts for nothing unless it is a report.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, dead_code, missing_docs)]
#![allow(clippy::disallowed_methods, reason = "a test writes mails")]

#[path = "support/surroundings.rs"]
mod surroundings;

use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use postseal::policy::evidence::DmarcSource;
use postseal::reports::{Report, ReportError, Rows, TlsSessions, read};
use proptest::prelude::*;
use serde_json::Value;
use time::OffsetDateTime;
use time::macros::datetime;
use zip::write::SimpleFileOptions;

use surroundings::{Answer, Surroundings, postseal, site};

const BEGIN: i64 = 1_795_392_000;

fn seed(name: &str) -> Vec<u8> {
    fs::read(Path::new("fuzz/seeds/report").join(name)).unwrap()
}

fn one(bytes: &[u8]) -> Report {
    let mut reports = read(bytes).unwrap();
    assert_eq!(reports.len(), 1);
    reports.remove(0)
}

fn source(address: &str, from: &str, [messages, dkim, spf, passed]: [u64; 4]) -> DmarcSource {
    DmarcSource { address: address.parse().unwrap(), from: from.parse().unwrap(), messages, dkim, spf, passed }
}

fn sources(report: &Report) -> &[DmarcSource] {
    if let Rows::Dmarc(sources) = &report.rows { sources } else { panic!("{report:?}") }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        archive.start_file(*name, SimpleFileOptions::default()).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

fn mail(kind: &str, attachment: &[u8]) -> Vec<u8> {
    let body = STANDARD.encode(attachment);
    format!("From: a@b.test\r\nContent-Type: {kind}\r\nContent-Transfer-Encoding: base64\r\n\r\n{body}\r\n")
        .into_bytes()
}

/// What is wrong with a file.
fn problem(bytes: &[u8]) -> String {
    read(bytes).unwrap_err().to_string()
}

// The manners of reporters

#[test]
fn google_sends_a_zip_that_is_the_whole_mail() {
    for name in ["google.eml", "google.zip", "google.xml"] {
        let report = one(&seed(name));
        assert_eq!((report.reporter.as_str(), report.id.as_str()), ("google.com", "10236547894561237890"));
        assert_eq!((report.begins.unix_timestamp(), report.ends.unix_timestamp()), (BEGIN, BEGIN + 86_399));
        // Two records of one sender are one row; a sub-domain has its own.
        let expected = [
            source("203.0.113.10", "example.com", [42, 42, 40, 42]),
            source("2001:db8:66::7", "news.example.com", [3, 0, 0, 0]),
        ];
        assert_eq!(sources(&report), expected, "{name}");
    }
}

#[test]
fn microsoft_sends_a_gzip_within_nested_parts() {
    let report = one(&seed("microsoft.eml"));
    assert_eq!(report.reporter, "Enterprise Outlook");
    let expected =
        [source("198.51.100.7", "example.com", [1, 0, 0, 0]), source("203.0.113.10", "example.com", [7, 7, 7, 7])];
    assert_eq!(sources(&report), expected);
}

#[test]
fn yahoo_writes_domains_in_any_case() {
    assert_eq!(sources(&one(&seed("yahoo.xml.gz"))), [source("203.0.113.10", "example.com", [5, 5, 5, 5])]);
}

#[test]
fn mail_ru_writes_elements_in_another_order_and_ipv4_as_ipv6() {
    assert_eq!(sources(&one(&seed("mailru.xml"))), [source("203.0.113.10", "example.com", [1, 1, 1, 1])]);
}

#[test]
fn a_byte_order_mark_a_namespace_entities_and_quoted_printable_are_read() {
    let report = one(&seed("xs4all.eml"));
    // The parser trims the text on both sides of an entity.
    assert_eq!(report.reporter, "XS4ALL Internet&Co");
    assert_eq!(sources(&report), [source("192.0.2.99", "example.com", [2, 0, 0, 0])]);
}

#[test]
fn the_form_of_rfc_9990_is_read() {
    assert_eq!(sources(&one(&seed("rfc9990.xml"))), [source("203.0.113.10", "example.com", [123, 123, 0, 123])]);
}

#[test]
fn a_tls_report_counts_successes_and_failures_by_type_and_host() {
    let report = one(&seed("google-tls.json.gz"));
    let mx = Some("mail.example.com".parse().unwrap());
    let expected = [
        TlsSessions { result: None, mx: None, sessions: 98 },
        TlsSessions { result: Some("certificate-expired"), mx, sessions: 2 },
    ];
    assert_eq!((report.id.as_str(), &report.rows), ("2026-11-23T00:00:00Z_example.com", &Rows::Tls(expected.into())));
}

#[test]
fn the_policies_of_a_tls_report_are_summed_up_and_failures_without_details_are_kept() {
    let expected = [
        TlsSessions { result: None, mx: None, sessions: 14 },
        TlsSessions { result: Some("unspecified"), mx: None, sessions: 3 },
    ];
    assert_eq!(one(&seed("microsoft-tls.eml")).rows, Rows::Tls(expected.into()));
}

#[test]
fn a_forwarded_mail_is_looked_into() {
    let mut forwarded =
        b"Content-Type: multipart/mixed; boundary=f\r\n\r\n--f\r\nContent-Type: message/rfc822\r\n\r\n".to_vec();
    forwarded.extend(seed("microsoft.eml"));
    forwarded.extend(b"\r\n--f--\r\n");
    assert_eq!(one(&forwarded), one(&seed("microsoft.eml")));
}

#[test]
fn a_mail_with_two_reports_has_two() {
    let part = |kind: &str, bytes: &[u8]| {
        format!("--f\nContent-Type: {kind}\nContent-Transfer-Encoding: BASE64\n\n{}\n", STANDARD.encode(bytes))
    };
    let parts =
        part("application/octet-stream", &seed("yahoo.xml.gz")) + &part("text/plain", &seed("google-tls.json.gz"));
    let mail = format!(
        "From x@y.test Mon Nov 23 00:00:00 2026\nSubject: two\nContent-Type: multipart/mixed; boundary=f\n\n{parts}--f--\n"
    );
    assert_eq!(read(mail.as_bytes()).unwrap(), [one(&seed("yahoo.xml.gz")), one(&seed("google-tls.json.gz"))]);
}

#[test]
fn what_is_no_report_is_told_from_a_broken_one() {
    let html = b"<!DOCTYPE html><html><body><br>&nbsp;<p>Hi</body></html>";
    let others: [&[u8]; 9] = [
        &seed("letter.eml"),
        b"",
        b"{}",
        b"[1]",
        html,
        &mail("text/html", html),
        &mail("image/png", b"\x89PNG\r\n\x1a\n"),
        &zip(&[("a.txt", b"hello"), ("b.html", html)]),
        b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>",
    ];
    for other in others {
        assert_eq!(read(other), Err(ReportError::NoReport), "{}", String::from_utf8_lossy(other));
    }
}

// What a verdict is worth

fn xml(rows: &str) -> String {
    format!(
        "<feedback><report_metadata><org_name>r</org_name><report_id>1</report_id><date_range><begin>{BEGIN}</begin>\
         <end>{}</end></date_range></report_metadata><policy_published><domain>example.com</domain></policy_published>\
         {rows}</feedback>",
        BEGIN + 86_400
    )
}

fn record(count: &str, from: &str, evaluated: &str, results: &str) -> String {
    format!(
        "<record><row><source_ip>192.0.2.1</source_ip><count>{count}</count><policy_evaluated>{evaluated}\
         </policy_evaluated></row><identifiers><header_from>{from}</header_from></identifiers><auth_results>{results}\
         </auth_results></record>"
    )
}

#[test]
fn a_verdict_that_its_own_results_contradict_is_no_pass() {
    let lie = record(
        "4",
        "example.com",
        "<dkim>pass</dkim><spf>pass</spf>",
        "<dkim><result>fail</result></dkim><spf><result>softfail</result></spf>",
    );
    assert_eq!(sources(&one(xml(&lie).as_bytes())), [source("192.0.2.1", "example.com", [4, 0, 0, 0])]);
    let silent = record("4", "example.com", "<dkim>pass</dkim>", "");
    assert_eq!(sources(&one(xml(&silent).as_bytes())), [source("192.0.2.1", "example.com", [4, 4, 0, 4])]);
}

#[test]
fn a_sender_that_names_no_domain_of_the_policys_counts_for_the_policys_own() {
    for from in ["", "example.net", "a_b.example.com", "\u{1b}[31m", "notexample.com"] {
        let report = one(xml(&record("4", from, "", "")).as_bytes());
        assert_eq!(sources(&report), [source("192.0.2.1", "example.com", [4, 0, 0, 0])], "{from}");
    }
}

#[test]
fn a_count_that_is_no_number_of_messages_breaks_the_report() {
    for count in ["", "0", "-5", "1e3", "4294967296", "99999999999999999999", "0x10", "<![CDATA[7]]>"] {
        let text = xml(&record(count, "example.com", "", ""));
        assert_eq!(problem(text.as_bytes()), "a record of it does not say how many messages it counts", "{count}");
    }
    let most = xml(&record("4294967295", "example.com", "", "").repeat(233));
    assert_eq!(problem(most.as_bytes()), "it counts more messages than there are");
}

#[test]
fn what_a_reporter_writes_never_reaches_the_terminal_as_it_is() {
    let text = xml("").replace(">r<", ">\u{202e}a&#x1b;[31mb\n<").replace(">1<", ">&#7;x<");
    let report = one(text.as_bytes());
    assert_eq!((report.reporter.as_str(), report.id.as_str()), (r"\u{202e}a\u{1b}[31mb", r"\u{7}x"));
}

#[test]
fn a_span_is_believed_only_if_it_can_be_true() {
    let now = datetime!(2026-11-24 12:00 UTC);
    let judge = |begin: i64, end: i64| {
        let at = |seconds: i64| OffsetDateTime::from_unix_timestamp(seconds).unwrap();
        let report = Report { begins: at(begin), ends: at(end), ..one(&seed("google.xml")) };
        report.check_span(now).map_err(|error| error.to_string())
    };
    let (day, at) = (86_400, now.unix_timestamp());
    assert_eq!(judge(at - day, at), Ok(()));
    assert_eq!(judge(at - day, at + day), Ok(()));
    let wrong = |what: &str| Err(format!("its span {what}"));
    assert_eq!(judge(at - day, at + day + 1), wrong("ends in the future"));
    assert_eq!(judge(at, at - 1), wrong("ends before it begins"));
    assert_eq!(judge(at - 33 * day, at), wrong("is longer than 32 days"));
    assert_eq!(judge(at - 401 * day, at - 400 * day), wrong("ended more than 400 days ago"));
}

#[test]
fn a_report_without_a_span_or_with_one_in_milliseconds_is_broken() {
    for (from, to) in
        [(format!("<begin>{BEGIN}"), "<begin>".to_owned()), (format!("<end>{}", BEGIN + 86_400), "<end>-1".to_owned())]
    {
        assert_eq!(problem(xml("").replace(&from, &to).as_bytes()), "it does not say which span of time it is about");
    }
    let far =
        xml("").replace(&BEGIN.to_string(), "1795392000000").replace(&(BEGIN + 86_400).to_string(), "1795478400000");
    assert!(read(far.as_bytes()).is_err());
}

// Hostile ones

/// What the process holds at most, in MiB.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

fn bomb(octets: usize) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(b"<feedback>").unwrap();
    let part = vec![b' '; 1 << 20];
    (0..octets >> 20).for_each(|_| encoder.write_all(&part).unwrap());
    encoder.finish().unwrap()
}

#[test]
fn what_inflates_to_hundreds_of_megabytes_is_refused_within_bounded_memory() {
    let before = peak();
    let expected = "what is compressed in it is larger than 64 MiB";
    assert_eq!(problem(&bomb(100 << 20)), expected);
    assert_eq!(problem(&mail("application/gzip", &bomb(100 << 20))), expected);
    let forty = vec![b' '; 40 << 20];
    let zipped = zip(&[("a.xml", &forty), ("b.xml", &forty)]);
    drop(forty);
    assert_eq!(problem(&zipped), expected);
    if cfg!(target_os = "linux") {
        assert!(peak() - before < 300, "{before} -> {} MiB", peak());
    }
}

#[test]
fn the_most_that_may_be_read_costs_bounded_memory() {
    let before = peak();
    // Each is as large as may be, and of the smallest pieces that a parser would keep something for.
    let records = xml(&"<record></record>".repeat(200_000));
    assert_eq!(problem(&gzip(records.as_bytes())), "it has more than 100000 records");
    let results = xml(&format!("<record><auth_results>{}</auth_results></record>", "<dkim></dkim>".repeat(100_000)));
    assert_eq!(problem(&gzip(results.as_bytes())), "an element `record` of it is larger than 128 KiB");
    let within = record("1", "example.com", "", &"<dkim></dkim>".repeat(9_000)).repeat(30);
    assert_eq!(sources(&one(&gzip(xml(&within).as_bytes())))[0].messages, 30);
    let parts = "\n--b\n\n".repeat(5 << 20);
    assert_eq!(
        problem(format!("Content-Type: multipart/mixed; boundary=b\n\n{parts}").as_bytes()),
        "it has more than 100 parts"
    );
    assert_eq!(problem("a:\n".repeat(9 << 20).as_bytes()), "its header is larger than 256 KiB");
    let policies =
        format!("{{\"date-range\":0,\"policies\":[{}]}}", "{\"policy\":{\"mx-host\":[\"\"]}},".repeat(1 << 20));
    assert_eq!(problem(policies.as_bytes()), "a TLS report in it is larger than 8 MiB");
    let names: Vec<String> = (0..60_000).map(|n| n.to_string()).collect();
    let entries: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), b"".as_slice())).collect();
    assert_eq!(problem(&zip(&entries)), "a zip archive in it has more than 16 entries");
    if cfg!(target_os = "linux") {
        assert!(peak() - before < 400, "{before} -> {} MiB", peak());
    }
}

#[test]
fn entities_are_refused_before_they_are_read() {
    let laughs = "<!DOCTYPE feedback [<!ENTITY a \"ha\"><!ENTITY b \"&a;&a;&a;&a;\">]>".to_owned() + &xml("");
    assert_eq!(problem(laughs.as_bytes()), "it declares a document type, which no report does");
    let file = "<?xml version=\"1.0\"?><!doctype feedback SYSTEM \"file:///etc/passwd\">".to_owned() + &xml("");
    assert_eq!(problem(file.as_bytes()), "it declares a document type, which no report does");
    // One that nobody declared is its own name.
    assert_eq!(one(xml("").replace(">r<", ">&passwd;<").as_bytes()).reporter, "passwd");
}

#[test]
fn deep_nesting_ends_early() {
    let deep = |before: &str, after: &str| before.repeat(500_000) + &after.repeat(500_000);
    let elements = xml(&deep("<a>", "</a>"));
    assert_eq!(problem(elements.as_bytes()), "its elements lie more than 16 deep in each other");
    let json = format!("{{\"date-range\":{}}}", deep("[", "]"));
    assert_eq!(problem(json.as_bytes()), "it is no TLS report of RFC 8460");
    let ignored = String::from_utf8(seed("microsoft-tls.eml")).unwrap();
    assert!(ignored.contains("tlsrpt+gzip"));
    let nested = "Content-Type: message/rfc822\n\n".repeat(500_000);
    assert_eq!(problem(nested.as_bytes()), "its parts lie more than 8 deep in each other");
    let parts: Vec<String> =
        (0..5000).map(|n| format!("Content-Type: multipart/mixed; boundary=b{n}\n\n--b{n}\n")).collect();
    let parts = parts.concat();
    assert_eq!(problem(parts.as_bytes()), "its parts lie more than 8 deep in each other");
}

#[test]
fn an_archive_in_an_archive_is_refused() {
    let expected = "there is an archive in an archive";
    assert_eq!(problem(&zip(&[("a.zip", &seed("google.zip"))])), expected);
    assert_eq!(problem(&gzip(&gzip(&seed("google.xml")))), expected);
    assert_eq!(problem(&zip(&[("a.gz", &seed("yahoo.xml.gz"))])), expected);
    let names: Vec<String> = (0..17).map(|n| format!("{n}.xml")).collect();
    let many: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), b"".as_slice())).collect();
    assert_eq!(problem(&zip(&many)), "a zip archive in it has more than 16 entries");
}

#[test]
fn a_file_that_ends_anywhere_is_broken_or_no_report_but_never_half_a_report() {
    for name in [
        "google.xml",
        "google.zip",
        "yahoo.xml.gz",
        "google-tls.json.gz",
        "rfc9990.xml",
        "google.eml",
        "microsoft-tls.eml",
    ] {
        let whole = seed(name);
        let expected = read(&whole).unwrap();
        for end in (0..whole.len()).step_by(1 + whole.len() / 400) {
            match read(&whole[..end]) {
                // Behind the report there is nothing that matters.
                Ok(reports) => assert_eq!(reports, expected, "{name} to {end}"),
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        }
    }
}

#[test]
fn other_encodings_are_refused_or_cost_the_reporters_name_alone() {
    let wide: Vec<u8> = [0xfeff].into_iter().chain(xml("").encode_utf16()).flat_map(u16::to_le_bytes).collect();
    assert_eq!(problem(&wide), "it is in UTF-16, and a report is in UTF-8");
    let latin: Vec<u8> =
        xml("").replace(">r<", ">Bj\u{f6}rn<").chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
    assert_eq!(one(&latin).reporter, "Bj\u{fffd}rn");
}

#[test]
fn unbalanced_or_doubled_xml_is_broken() {
    let good = xml("");
    for (text, expected) in [
        (good.replace("</org_name>", "</org>"), "its elements are not balanced"),
        (good.clone() + &good, "something follows its end"),
        (good.replace("</feedback>", ""), "it ends too soon"),
        (good.replace("report_metadata", "metadata"), "it has no `report_metadata`"),
        (good.replace("example.com", "example"), "`example`, which it is about, is no domain"),
        (good.replace("<org_name>r</org_name>", ""), "it does not say who it is from"),
        (good.replace(">1<", &format!(">{}<", "1".repeat(256))), "its identifier is larger than 255 octets"),
        (good.replace("feedback>", "d:feedback>"), "its elements have a prefix, which is not read"),
    ] {
        assert_eq!(problem(text.as_bytes()), expected);
    }
}

#[test]
fn nobody_reads_more_than_32_mib() {
    assert_eq!(problem(&vec![b'x'; (32 << 20) + 1]), "it is larger than 32 MiB");
}

fn a_source() -> impl Strategy<Value = DmarcSource> {
    let from = prop::sample::select(vec!["example.com", "news.example.com", "x.y.example.com"]);
    (any::<[u8; 4]>(), any::<[u8; 16]>(), any::<bool>(), from, 1..5000_u64, 0..3_usize).prop_map(
        |(v4, v6, is_v6, from, messages, how)| {
            let address: IpAddr = if is_v6 { IpAddr::from(v6).to_canonical() } else { v4.into() };
            let [dkim, spf] = [[0, 0], [messages, 0], [messages, messages]][how];
            let passed = dkim.max(spf);
            DmarcSource { address, from: from.parse().unwrap(), messages, dkim, spf, passed }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn a_report_that_was_written_reads_back(
        sources in prop::collection::btree_map(0..100_000_u32, a_source(), 0..20),
        reporter in "[ -~\u{e4}\u{20ac}]{1,60}",
        pack in 0..4_usize,
    ) {
        let mut sources: Vec<DmarcSource> = sources.into_values().collect();
        sources.sort_by(|a, b| (a.address, &a.from).cmp(&(b.address, &b.from)));
        sources.dedup_by(|a, b| (a.address, &a.from) == (b.address, &b.from));
        let word = |counts: u64| if counts > 0 { "pass" } else { "fail" };
        let rows: Vec<String> = sources.iter().map(|s| format!(
            "<record><row><source_ip>{}</source_ip><count>{}</count><policy_evaluated><dkim>{}</dkim><spf>{}</spf></policy_evaluated>\
             </row><identifiers><header_from>{}</header_from></identifiers></record>",
            s.address, s.messages, word(s.dkim), word(s.spf), s.from
        )).collect();
        let escaped = reporter.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        prop_assume!(!reporter.trim().is_empty());
        let text = xml(&rows.concat()).replace(">r<", &format!(">{escaped}<"));
        let packed = match pack {
            0 => text.into_bytes(),
            1 => gzip(text.as_bytes()),
            2 => zip(&[("r.xml", text.as_bytes())]),
            _ => mail("application/zip", &zip(&[("r.xml", text.as_bytes())])),
        };
        let report = one(&packed);
        prop_assert_eq!(report.rows, Rows::Dmarc(sources));
        prop_assert_eq!(report.reporter.split_whitespace().collect::<String>(), reporter.split_whitespace().collect::<String>());
    }

    #[test]
    fn a_tls_report_that_was_written_reads_back(good in 0..1_000_000_u32, bad in prop::collection::vec((0..12_usize, 1..1000_u32), 0..8)) {
        let words = ["starttls-not-supported", "certificate-host-mismatch", "certificate-expired", "certificate-not-trusted",
            "validation-failure", "tlsa-invalid", "dnssec-invalid", "dane-required", "sts-policy-fetch-error",
            "sts-policy-invalid", "sts-webpki-invalid", "something-new"];
        let details: Vec<Value> = bad.iter().map(|(word, count)| serde_json::json!({"result-type": words[*word], "failed-session-count": count})).collect();
        let all: u32 = bad.iter().map(|(_, count)| count).sum();
        let text = serde_json::json!({"organization-name": "r", "report-id": "1",
            "date-range": {"start-datetime": "2026-11-23T00:00:00Z", "end-datetime": "2026-11-24T00:00:00Z"},
            "policies": [{"policy": {"policy-type": "sts", "policy-domain": "example.com."},
                "summary": {"total-successful-session-count": good, "total-failure-session-count": all}, "failure-details": details}]}).to_string();
        let Rows::Tls(rows) = one(text.as_bytes()).rows else { panic!() };
        let sum = |is_good: bool| rows.iter().filter(|row| row.result.is_none() == is_good).map(|row| row.sessions).sum::<u64>();
        prop_assert_eq!((sum(true), sum(false)), (u64::from(good), u64::from(all)));
    }
}

// The commands

fn put(site: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = site.parent().unwrap().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, bytes).unwrap();
    path
}

fn import(site: &Path, path: &Path) -> Answer {
    postseal(site, ["--format", "json", "reports", "import", path.to_str().unwrap()])
}

fn json(answer: &Answer) -> Value {
    serde_json::from_str(&answer.out).unwrap_or_else(|_| panic!("{answer:?}"))
}

fn shown(site: &Path) -> Value {
    json(&postseal(site, ["--format", "json", "reports", "show", "example.com"]))
}

/// A Maildir as Dovecot has it, with every seed in it.
fn maildir(site: &Path) -> PathBuf {
    for (number, entry) in fs::read_dir("fuzz/seeds/report").unwrap().enumerate() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let folder = ["cur", "new", ".Reports/cur"][number % 3];
        put(site, &format!("Maildir/{folder}/{number}.M1P2.mail:2,S{name}"), &fs::read(&path).unwrap());
    }
    for folder in ["tmp", ".Reports/new", ".Reports/tmp"] {
        put(site, &format!("Maildir/{folder}/.keep"), b"");
    }
    put(site, "Maildir/tmp/half", &seed("google.xml")[..900]);
    put(site, "Maildir/dovecot-uidlist", b"3 V1 N1\n");
    site.parent().unwrap().join("Maildir")
}

#[test]
fn a_maildir_may_be_read_again_and_again() {
    let (_guard, site) = site();
    let maildir = maildir(&site);
    let first = import(&site, &maildir);
    assert_eq!(first.exit_code, 0, "{first:?}");
    let told = json(&first);
    // Google's is there three times.
    assert_eq!((&told["files"], &told["recorded"], &told["known"]), (&11.into(), &8.into(), &2.into()), "{first:?}");
    assert_eq!(told["without_report"], 1);
    let before = shown(&site);
    let again = json(&import(&site, &maildir));
    assert_eq!((&again["recorded"], &again["known"]), (&0.into(), &10.into()));
    assert_eq!(shown(&site), before);
    let dmarc = &before["dmarc"];
    assert_eq!(
        (&dmarc["reports"], &dmarc["messages"], &dmarc["failed"]),
        (&6.into(), &184.into(), &6.into()),
        "{before}"
    );
    assert_eq!(dmarc["sources"][0]["host"], "mail.example.com");
    assert_eq!(dmarc["sources"][0]["messages"], 178);
    let tls = &before["tls"];
    assert_eq!((&tls["successful"], &tls["failed"]), (&112.into(), &5.into()));
}

#[test]
fn reports_of_others_domains_are_left_out_and_sub_domains_count() {
    let (_guard, site) = site();
    let other = String::from_utf8(seed("google.xml")).unwrap();
    let path = put(&site, "a/other.xml", other.replace("<domain>example.com<", "<domain>example.net<").as_bytes());
    put(&site, "a/sub.xml", other.replace("<domain>example.com<", "<domain>news.example.com<").as_bytes());
    let told = json(&import(&site, path.parent().unwrap()));
    assert_eq!((&told["recorded"], &told["other_domains"]), (&1.into(), &1.into()));
    assert_eq!(shown(&site)["dmarc"]["messages"], 45);
}

#[test]
fn a_second_report_of_the_same_number_is_kept_out_with_a_warning() {
    let (_guard, site) = site();
    import(&site, &put(&site, "one.xml", &seed("google.xml")));
    let before = shown(&site);
    let forged = String::from_utf8(seed("google.xml")).unwrap().replace("<count>3<", "<count>30000<");
    let answer = import(&site, &put(&site, "two.xml", forged.as_bytes()));
    assert_eq!(answer.exit_code, 1);
    assert!(
        answer.err.contains("report-conflict") && answer.err.contains("`google.com` has two reports"),
        "{answer:?}"
    );
    assert_eq!(shown(&site), before);
}

#[test]
fn a_broken_file_is_told_of_and_the_run_goes_on() {
    let (_guard, site) = site();
    put(&site, "r/1-broken.gz", &seed("yahoo.xml.gz")[..200]);
    put(&site, "r/2-\u{1b}[31m.xml", &seed("google.xml"));
    let far = xml("").replace(&(BEGIN + 86_400).to_string(), "4102444800");
    put(&site, "r/3-future.xml", far.as_bytes());
    put(&site, "r/4-letter.eml", &seed("letter.eml"));
    let answer = import(&site, &site.parent().unwrap().join("r"));
    let told = json(&answer);
    assert_eq!(answer.exit_code, 1);
    assert_eq!(
        (&told["recorded"], &told["refused"], &told["without_report"]),
        (&1.into(), &2.into(), &1.into()),
        "{answer:?}"
    );
    assert_eq!(told["results"][2]["problem"], "its span ends in the future");
    assert!(!answer.out.contains('\u{1b}') && !answer.err.contains('\u{1b}'));
}

#[test]
fn a_named_file_without_a_report_is_told_of_and_one_in_a_directory_is_not() {
    let (_guard, site) = site();
    let path = put(&site, "r/letter.eml", &seed("letter.eml"));
    let named = import(&site, &path);
    assert_eq!(named.exit_code, 1);
    assert!(named.err.contains("report-missing"), "{named:?}");
    let directory = import(&site, path.parent().unwrap());
    assert_eq!((directory.exit_code, directory.err.as_str()), (0, ""));
}

#[test]
fn a_mail_may_come_on_standard_input() {
    let (_guard, site) = site();
    let surroundings = Surroundings { input: seed("google.eml"), ..Surroundings::default() };
    let answer = surroundings.run(&site, ["reports", "import", "-"]);
    assert_eq!((answer.exit_code, answer.out.as_str()), (0, "files: 1\nrecorded: 1 report\nknown before: 0\n"));
    let large = Surroundings { input: vec![b'x'; (32 << 20) + 2], ..Surroundings::default() };
    assert!(large.run(&site, ["reports", "import", "-"]).err.contains("it is larger than 32 MiB"));
}

#[test]
fn a_report_is_forgotten_after_400_days() {
    let (_guard, site) = site();
    import(&site, &put(&site, "one.xml", &seed("google.xml")));
    let later = Surroundings { now: datetime!(2027-12-29 12:00 UTC), ..Surroundings::default() };
    let new = String::from_utf8(seed("rfc9990.xml")).unwrap();
    let (begin, end) = (later.now.unix_timestamp() - 86_400, later.now.unix_timestamp());
    let new = new.replace("1795392000", &begin.to_string()).replace("1795478399", &end.to_string());
    let path = put(&site, "new.xml", new.as_bytes());
    let answer = later.run(&site, ["reports", "import", path.to_str().unwrap()]);
    assert!(answer.out.ends_with("forgotten, for they are too old: 1\n"), "{answer:?}");
    let all = later.run(&site, ["--format", "json", "reports", "show", "example.com", "--days", "3660"]);
    assert_eq!(json(&all)["dmarc"]["messages"], 123);
}

#[test]
fn an_import_is_an_event_if_it_recorded_something() {
    let (_guard, site) = site();
    let path = put(&site, "one.xml", &seed("google.xml"));
    import(&site, &path);
    import(&site, &path);
    let place = postseal::store::SiteDir::new(camino::Utf8Path::from_path(&site).unwrap());
    let events = postseal::store::Store::open(place).unwrap().ledger().events_of("reports").unwrap();
    let told: Vec<_> = events.iter().map(|event| (event.what.as_str(), event.detail["recorded"].clone())).collect();
    assert_eq!(told, [("reports-imported", 1.into())]);
}

#[test]
fn nothing_is_shown_before_something_came() {
    let (_guard, site) = site();
    let answer = postseal(&site, ["reports", "show"]);
    assert_eq!(answer.out, "no reports of the last 30 days; read those that came: postseal reports import PATH\n");
    assert_eq!(postseal(&site, ["reports", "show", "example.net"]).exit_code, 2);
}
