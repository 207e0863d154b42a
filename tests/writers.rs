//! What the writers of records write is read back by interpreters of their languages: every value unchanged, and nothing beside.
//!
//! A program that is missing skips its test, unless INTEROP=require. The readers' own tools are in tests/lab/test_writers.py.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout, missing_docs)]
#![allow(clippy::disallowed_methods, reason = "a test runs programs and writes their files")]

#[path = "support/surroundings.rs"]
#[allow(dead_code)]
mod surroundings;

use std::process::Command;

use postseal::dns::{Record, RecordData, Zone, dnscontrol, nsupdate, octodns, table, zone};
use postseal::names::Digest;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use surroundings::postseal;

const PYTHON: &str = "target/lab-venv/bin/python";

/// Runs a program on a file and returns what it printed as JSON; none if it is not installed.
fn read_back(program: &str, script: &str, text: &str) -> Option<Value> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("written");
    std::fs::write(&path, text).unwrap();
    let eval = if program == PYTHON { "-c" } else { "-e" };
    match Command::new(program).args([eval, script]).arg(&path).output() {
        Ok(output) => {
            let err = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{err}\n{text}");
            Some(serde_json::from_slice(&output.stdout).unwrap())
        }
        Err(error) => {
            let required = std::env::var("INTEROP").is_ok_and(|value| value == "require");
            assert!(!required, "{program}: {error}");
            println!("skipped: {program} not installed");
            None
        }
    }
}

/// Returns texts of all sorts, those first that an attacker would try.
fn texts() -> Vec<String> {
    let hostile = [
        "",
        "\"",
        "\\",
        "a\\",
        "\"quoted\"",
        "a\" \"b",
        "';--",
        "'",
        "''",
        "a: b # c",
        "- a",
        "!include /etc/passwd",
        "&a *a",
        "yes",
        "10",
        "\"), A(\"@\", \"203.0.113.66",
        "*/ alert(1) /*",
        "${process.exit(1)}",
        "</script>",
        "\u{2028}\u{2029}\u{85}",
        "\n- ttl: 1",
        "\r\nupdate delete example.com. ANY\r\nsend\r\n",
        "\0\u{1}\u{7f}",
        "ä\u{1f4a3}\u{202e}",
        "; comment",
        "a;b\\;c",
        "$INCLUDE /etc/passwd",
        "( \n )",
        "\\000\\034",
    ];
    let mut runner = TestRunner::deterministic();
    let strategy = prop_oneof!["[ -~]{0,30}", "[;\"'\\\\#:\\n ]{1,8}", "\\PC{0,300}", "[a-z;]{250,600}"];
    let drawn = (0..200).map(|_| strategy.new_tree(&mut runner).unwrap().current());
    // octoDNS takes two quotes with a blank between them for the end of one string and the begin of the next.
    hostile.into_iter().map(str::to_owned).chain(drawn).filter(|text| !text.contains("\" \"")).collect()
}

/// Returns a zone with each text as a TXT record's, as a CAA value and as a reason.
fn hostile_zone() -> Zone {
    let records = texts().into_iter().enumerate().flat_map(|(number, text)| {
        let record = |data| Record {
            name: format!("t{number}.example.com"),
            ttl: 3600,
            data,
            reason: text.clone().into(),
            rfc: "RFC 1035 §5.1",
        };
        [record(RecordData::Txt(text.clone())), record(RecordData::Caa { tag: "issue", value: text.clone() })]
    });
    Zone { domain: "example.com".parse().unwrap(), records: records.collect(), unaddressed: Vec::new() }
}

/// Returns name, type and text of each record, sorted.
fn wanted(zone: &Zone) -> Value {
    let texts = zone.records.iter().map(|record| match &record.data {
        RecordData::Txt(text) | RecordData::Caa { value: text, .. } => {
            json!([zone.relative(&record.name), record.data.kind(), text])
        }
        other => panic!("{other:?}"),
    });
    sorted(texts.collect())
}

fn sorted(mut rows: Vec<Value>) -> Value {
    rows.sort_by_key(ToString::to_string);
    Value::Array(rows)
}

fn assert_read(zone: &Zone, read: Option<Value>) {
    if let Some(Value::Array(read)) = read {
        assert_eq!(sorted(read), wanted(zone));
    }
}

#[test]
fn node_reads_every_text_and_runs_nothing_else() {
    let script = r"
        const records = [];
        const note = (kind, at) => (...all) => { records.push([all[0], kind, all[at]]); return {}; };
        const world = { TXT: note('TXT', 1), CAA: note('CAA', 2), TTL: () => ({}), D_EXTEND: () => {} };
        const vm = require('vm');
        vm.runInNewContext(require('fs').readFileSync(process.argv[1], 'utf8'), world);
        console.log(JSON.stringify(records));
    ";
    let zone = hostile_zone();
    assert_read(&zone, read_back("node", script, &dnscontrol::write(&zone)));
}

#[test]
fn yaml_holds_every_text_and_nothing_else_in_the_order_that_octodns_insists_on() {
    let script = r"
import json, sys
from octodns.record.txt import TxtValue
from octodns.yaml import safe_load
found = []
with open(sys.argv[1]) as file:
    for name, sets in safe_load(file, enforce_order=True).items():
        for one in sets:
            assert set(one) == {'ttl', 'type', 'values'} and one['ttl'] == 3600, one
            for value in one['values']:
                if one['type'] == 'TXT':
                    value = TxtValue.process([value])[0].to_raw_text()
                else:
                    value = value['value']
                found.append([name, one['type'], value])
print(json.dumps(found))
    ";
    let zone = hostile_zone();
    assert_read(&zone, read_back(PYTHON, script, &octodns::write(&zone)));
}

/// Reads what stands in a zone file, or behind `update add` in a script.
const ZONE_READER: &str = r"
import json, sys, dns.zone, dns.rdatatype
with open(sys.argv[1], newline='') as file:
    text = ''.join(line.removeprefix('update add ') for line in file if not line.startswith(('update delete', 'prereq', 'send')))
zone = dns.zone.from_text(text, 'example.com.', relativize=False, check_origin=False)
found = []
for name, ttl, data in zone.iterate_rdatas():
    kind = dns.rdatatype.to_text(data.rdtype)
    value = b''.join(data.strings) if kind == 'TXT' else data.value
    found.append([name.to_text().removesuffix('.example.com.'), kind, value.decode()])
print(json.dumps(found))
";

#[test]
fn a_zone_file_holds_every_text_and_nothing_else() {
    let zone = hostile_zone();
    assert_read(&zone, read_back(PYTHON, ZONE_READER, &zone::write(&zone)));
}

#[test]
fn a_script_for_nsupdate_holds_every_text_and_no_other_order() {
    let zone = hostile_zone();
    let text = nsupdate::write(&zone);
    let is_known =
        |line: &str| ["; ", ";", "prereq nxrrset ", "update ", "send"].iter().any(|begin| line.starts_with(begin));
    // An empty line, too, is an order to send.
    for line in text.trim_end().split(['\n', '\r']) {
        assert!(is_known(line), "{line:?}");
    }
    assert_eq!(text.matches("\nsend\n").count(), 1);
    let deleted = text.lines().filter(|line| line.starts_with("update delete"));
    // Nothing is deleted of the TXT sets, whose names have no `_`.
    assert!(deleted.clone().all(|line| line.ends_with(" CAA")), "{:?}", deleted.collect::<Vec<_>>());
    assert_read(&zone, read_back(PYTHON, ZONE_READER, &text));
}

#[test]
fn a_table_shows_nothing_that_a_terminal_takes_for_an_order() {
    let text = table::write(&hostile_zone());
    assert!(text.chars().all(|c| c == '\n' || !c.is_control() && !postseal::names::is_hidden(c)));
}

fn every_kind() -> Zone {
    let host = |name: &str| name.parse().unwrap();
    let srv = |target| RecordData::Srv { priority: 0, weight: 1, port: 993, target };
    let records = [
        ("example.com", RecordData::NullMx),
        ("mail.example.com", RecordData::A("203.0.113.10".parse().unwrap())),
        ("mail.example.com", RecordData::Aaaa("2001:db8::1".parse().unwrap())),
        ("mail.example.com", RecordData::Mx { preference: 10, exchange: host("mail.example.com") }),
        ("example.com", RecordData::Caa { tag: "issue", value: ";".to_owned() }),
        ("mta-sts.example.com", RecordData::Cname(host("mail.example.com"))),
        ("_imaps._tcp.example.com", srv(Some(host("mail.example.com")))),
        ("_imap._tcp.example.com", srv(None)),
        ("_25._tcp.mail.example.com", RecordData::Tlsa(Digest::of(b""))),
        ("example.com", RecordData::Txt("v=spf1 mx ~all".to_owned())),
        ("_dmarc.example.com", RecordData::Txt("v=DMARC1; p=none".to_owned())),
    ];
    let record = |(name, data): (&str, RecordData)| Record {
        name: name.to_owned(),
        ttl: 3600,
        data,
        reason: "Why.".into(),
        rfc: "RFC 1",
    };
    Zone {
        domain: "example.com".parse().unwrap(),
        records: records.into_iter().map(record).collect(),
        unaddressed: vec![host("other.example.com")],
    }
}

#[test]
fn what_others_may_have_in_a_txt_set_is_never_deleted() {
    let text = nsupdate::write(&every_kind());
    let deleted: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("update delete ")).collect();
    assert_eq!(
        deleted,
        [
            "example.com. MX",
            "mail.example.com. A",
            "mail.example.com. AAAA",
            "mail.example.com. MX",
            "example.com. CAA",
            "mta-sts.example.com. CNAME",
            "_imaps._tcp.example.com. SRV",
            "_imap._tcp.example.com. SRV",
            "_25._tcp.mail.example.com. TLSA",
            "example.com. TXT \"v=spf1 mx -all\"",
            "_dmarc.example.com. TXT",
        ]
    );
}

#[test]
fn a_host_without_addresses_is_told_of_in_every_form() {
    let zone = every_kind();
    let forms = [dnscontrol::write, nsupdate::write, octodns::write, table::write, zone::write];
    for text in forms.map(|write| write(&zone)) {
        assert!(text.contains("other.example.com"), "{text}");
    }
    let json = postseal::dns::json::value(&[zone]);
    assert_eq!(json["mail_hosts_needing_addresses"], json!(["other.example.com"]));
}

#[test]
fn json_has_the_parts_of_every_kind() {
    let value = postseal::dns::json::value(&[every_kind()]);
    let fields: Vec<&Value> = value["records"].as_array().unwrap().iter().map(|record| &record["fields"]).collect();
    let digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let wanted = [
        json!({ "preference": 0, "exchange": "." }),
        json!({ "address": "203.0.113.10" }),
        json!({ "address": "2001:db8::1" }),
        json!({ "preference": 10, "exchange": "mail.example.com." }),
        json!({ "flags": 0, "tag": "issue", "value": ";" }),
        json!({ "target": "mail.example.com." }),
        json!({ "priority": 0, "weight": 1, "port": 993, "target": "mail.example.com." }),
        json!({ "priority": 0, "weight": 1, "port": 993, "target": "." }),
        json!({ "usage": 3, "selector": 1, "matching_type": 1, "association": digest }),
        json!({ "text": "v=spf1 mx ~all" }),
        json!({ "text": "v=DMARC1; p=none" }),
    ];
    assert_eq!(fields, wanted.iter().collect::<Vec<_>>());
}

#[test]
fn a_directory_for_zones_is_made_but_not_the_path_to_it() {
    let (_guard, site) = surroundings::site();
    let write = |directory: &str| {
        postseal(&site, ["dns", "--format", "octodns", "--output", site.join(directory).to_str().unwrap()])
    };
    // As where the disk that was to take them is not mounted.
    let refused = write("disk/zones");
    assert_eq!(refused.exit_code, 2, "{refused:?}");
    assert!(refused.err.contains("error[no-such-file]"), "{}", refused.err);
    assert!(!site.join("disk").exists());
    assert_eq!(write("zones").exit_code, 0);
    assert!(site.join("zones/example.com.yaml").exists());
}
