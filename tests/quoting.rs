//! What the quoting filters write is read back by the real daemons: unchanged, and without effect on what stands beside it.
//!
//! A daemon that is missing skips its test, unless INTEROP=require.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout, missing_docs)]
#![allow(clippy::disallowed_methods, reason = "a test runs daemons and writes their files")]

use std::fmt::Write as _;
use std::process::{Command, Output};

use postseal::dns::zone::character_strings;
use postseal::names::shell_word;
use postseal::render::quote::{caddy, nginx, smtpd, table, ucl};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

/// Runs a program; none if it is not installed.
fn run(program: &str, arguments: &[&str]) -> Option<Output> {
    match Command::new(program).args(arguments).output() {
        Ok(output) => Some(output),
        Err(error) => {
            let required = std::env::var("INTEROP").is_ok_and(|value| value == "require");
            assert!(!required, "{program}: {error}");
            println!("skipped: {program} not installed");
            None
        }
    }
}

/// Returns values of all sorts, those first that an attacker would try.
fn values(count: usize) -> Vec<String> {
    let hostile = [
        "",
        "{= string.char(34) =}; injected = true; y = {= string.char(34) =}",
        "{% if true %}x{% endif %}",
        "{# gone #}",
        "=} {=",
        "$LOCAL_CONFDIR ${DBDIR} $$",
        "\"; injected = true; x = \"",
        "\" } injected { \"",
        "a\\",
        "\\\"",
        "\\u0022",
        "' or '",
        "# no comment",
        ".include \"/etc/passwd\"",
        "10k",
        "1e5",
        "yes",
        "/* x */",
        "<<EOD",
        "a=b, c",
    ];
    let mut runner = TestRunner::deterministic();
    let strategy = prop_oneof!["[ -~]{0,30}", "[{}%=#$\"'\\\\;]{1,8}"];
    let drawn = (0..count).map(|_| strategy.new_tree(&mut runner).unwrap().current());
    hostile.into_iter().map(str::to_owned).chain(drawn).collect()
}

#[test]
fn rspamd_reads_back_every_key_and_value() {
    let directory = tempfile::tempdir().unwrap();
    let values = values(400);
    let mut text = String::from("postseal {\n");
    for (number, value) in values.iter().enumerate() {
        let (key, value) = (ucl(&format!("k{number}{value}")).unwrap(), ucl(value).unwrap());
        writeln!(text, "  {key} = {value};").unwrap();
    }
    text.push_str("}\n");
    let path = directory.path().join("rspamd.conf");
    std::fs::write(&path, text).unwrap();
    let arguments = ["configdump", "-c", path.to_str().unwrap(), "-j", "postseal"];
    let Some(output) = run("rspamadm", &arguments) else { return };
    let stdout = String::from_utf8(output.stdout).unwrap();
    let json = &stdout[stdout.find('{').unwrap_or_else(|| panic!("{stdout}"))..];
    let read: serde_json::Map<String, serde_json::Value> = serde_json::from_str(json).unwrap();
    for (number, value) in values.iter().enumerate() {
        let key = format!("k{number}{value}");
        assert_eq!(read.get(&key).and_then(|read| read.as_str()), Some(value.as_str()), "{key}");
    }
    assert_eq!(read.len(), values.len(), "nothing was injected");
}

#[test]
fn opensmtpd_reads_back_every_string() {
    let directory = tempfile::tempdir().unwrap();
    let values: Vec<_> = values(400).into_iter().filter(|value| smtpd(value).is_ok()).collect();
    let mut text = String::new();
    for (number, value) in values.iter().enumerate() {
        let (name, path) =
            (smtpd(&format!("t{number}{value}")).unwrap(), smtpd(&format!("file:/nowhere/{value}")).unwrap());
        writeln!(text, "table {name} {path}").unwrap();
    }
    text.push_str("match from any for any reject\n");
    let path = directory.path().join("smtpd.conf");
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap();
    let Some(output) = run("smtpd", &["-n", "-f", path]) else { return };
    // No such file exists, so each line is told with path and name as smtpd read them.
    let told = String::from_utf8(output.stderr).unwrap();
    let told: Vec<_> = told.lines().filter(|line| line.starts_with(path)).collect();
    let expected = values.iter().enumerate().map(|(number, value)| {
        let line = number + 1;
        format!("{path}:{line}: invalid configuration file /nowhere/{value} for table t{number}{value}")
    });
    let expected: Vec<_> = expected.collect();
    assert_eq!(told, expected);
}

#[test]
fn opensmtpd_takes_every_table_field() {
    let directory = tempfile::tempdir().unwrap();
    let fields = ["alice@example.com", "o'hara+x@example.com", "a/b=c@example.com", "_x@example.com", "vmail"];
    let table = fields.map(|field| format!("{0} {0}, {0}\n", table(field).unwrap())).concat();
    let (list, conf) = (directory.path().join("table"), directory.path().join("smtpd.conf"));
    std::fs::write(&list, table).unwrap();
    let list = smtpd(&format!("file:{}", list.display())).unwrap();
    std::fs::write(
        &conf,
        format!("table \"t\" {list}\naction \"a\" mbox virtual <\"t\">\nmatch for local action \"a\"\n"),
    )
    .unwrap();
    let Some(output) = run("smtpd", &["-n", "-f", conf.to_str().unwrap()]) else { return };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn nginx_reads_back_every_word() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nginx.conf");
    let path = path.to_str().unwrap();
    for value in values(60).into_iter().filter(|value| nginx(value).is_ok()) {
        // No such directive exists, so it is told as nginx read it.
        let name = format!("x{value}");
        std::fs::write(path, format!("{} y;\n", nginx(&name).unwrap())).unwrap();
        let Some(output) = run("nginx", &["-t", "-q", "-e", "stderr", "-c", path]) else { return };
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains(&format!("unknown directive \"{name}\" in {path}:1\n")), "{name}: {told}");
    }
}

#[test]
fn caddy_reads_back_every_token() {
    let directory = tempfile::tempdir().unwrap();
    let values: Vec<_> = values(400).into_iter().filter(|value| caddy(value).is_ok()).collect();
    let mut text = String::from(":80 {\n");
    for (number, value) in values.iter().enumerate() {
        writeln!(text, "\tvars k{number} {}", caddy(value).unwrap()).unwrap();
    }
    text.push_str("}\n");
    let path = directory.path().join("Caddyfile");
    std::fs::write(&path, text).unwrap();
    let arguments = ["adapt", "--adapter", "caddyfile", "--config", path.to_str().unwrap()];
    let Some(output) = run("caddy", &arguments) else { return };
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut found = std::collections::BTreeMap::new();
    for route in json["apps"]["http"]["servers"]["srv0"]["routes"].as_array().unwrap() {
        for handler in route["handle"].as_array().unwrap() {
            let handler = handler.as_object().unwrap();
            assert_eq!(handler["handler"], "vars", "nothing was injected");
            let pairs = handler.iter().filter(|(key, _)| *key != "handler");
            found.extend(pairs.map(|(key, value)| (key.clone(), value.clone())));
        }
    }
    let expected = values.iter().enumerate().map(|(number, value)| (format!("k{number}"), value.as_str().into()));
    assert_eq!(found, expected.collect());
}

#[test]
fn bind_reads_back_every_text_of_a_zone() {
    let directory = tempfile::tempdir().unwrap();
    let mut texts = values(200);
    texts.extend(["v=DKIM1; p=".to_owned() + &"A".repeat(600), "é\u{1}\n".to_owned()]);
    let mut zone = String::from("example.com. 60 IN SOA a. b. 1 1 1 1 1\nexample.com. 60 IN NS a.invalid.\n");
    for (number, text) in texts.iter().enumerate() {
        writeln!(zone, "t{number}.example.com. 60 IN TXT {}", character_strings(text)).unwrap();
    }
    let path = directory.path().join("zone");
    std::fs::write(&path, zone).unwrap();
    let arguments = ["-i", "none", "-o", "-", "-s", "full", "example.com", path.to_str().unwrap()];
    let Some(output) = run("named-compilezone", &arguments) else { return };
    let compiled = String::from_utf8(output.stdout).unwrap();
    for (number, text) in texts.iter().enumerate() {
        let name = format!("t{number}.example.com.");
        let line = compiled.lines().find(|line| line.split_whitespace().next() == Some(name.as_str())).unwrap();
        let (_, strings) = line.split_once("TXT").unwrap();
        // BIND's own quoting is what ours must equal, for both are read back by the same rules (see dns::zone).
        assert_eq!(strings.trim(), character_strings(text), "{text:?}");
    }
}

#[test]
fn a_shell_reads_every_word_back() {
    // No argument of a program can hold NUL.
    let texts: Vec<String> = values(300).into_iter().map(|text| text.replace('\0', "")).collect();
    let more = ["templates/a;reboot", "it's", "-rf", "$(reboot)", "`reboot`", "a\nb", "*", "~root"].map(str::to_owned);
    let texts: Vec<String> = texts.into_iter().chain(more).collect();
    let words: Vec<String> = texts.iter().map(|text| shell_word(text)).collect();
    let script = format!("printf '%s\\0' {}", words.join(" "));
    let output = run("sh", &["-ec", &script]).unwrap();
    let read: Vec<&str> = std::str::from_utf8(&output.stdout).unwrap().split_terminator('\0').collect();
    let wanted: Vec<String> =
        texts.iter().map(|text| if text.starts_with('-') { format!("./{text}") } else { text.clone() }).collect();
    assert_eq!(read, wanted);
    let plain = "example.com/templates/smtpd.conf";
    assert_eq!(shell_word(plain), plain);
}
