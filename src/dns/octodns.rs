//! Writes records for octoDNS: the file of one zone, with its keys in the order that octoDNS insists on.

use std::fmt::Write as _;

use super::{RecordData, RecordSet, Zone, remark};

/// Returns the zone's file, which octoDNS looks for as `DOMAIN.yaml`.
pub fn write(zone: &Zone) -> String {
    let domain = &zone.domain;
    let mut text = format!(
        "# Written by postseal: what the mail of {domain} needs in DNS, as {domain}.yaml of a source of its own.\n\
         # A name has one SPF record at most: merge it with one that is there already.\n"
    );
    for host in &zone.unaddressed {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "# {host}. needs A and AAAA records of your own: postseal.toml does not tell its addresses. RFC 5321 §5.1"
        );
    }
    text.push_str("---\n");
    let mut sets = zone.sets();
    // Sorting keeps the order of equals: the sets of one name stay as they are.
    sets.sort_by_cached_key(|set| natural(&key(zone, set)));
    if sets.is_empty() {
        text.push_str("{}\n");
    }
    let mut last = None;
    for set in &sets {
        let name = key(zone, set);
        if last.as_ref() != Some(&name) {
            let _ = writeln!(text, "{}:", quoted(&name));
        }
        for record in &set.records {
            let _ = writeln!(text, "# {}", remark(record));
        }
        let _ = writeln!(text, "- ttl: {}\n  type: {}", set.ttl(), set.kind);
        let values: Vec<String> = set.records.iter().map(|record| value(&record.data)).collect();
        match values.as_slice() {
            // An alias has one target, which octoDNS wants without a list.
            [target] if set.kind == "CNAME" => text.push_str(&format!("  value: {target}\n")),
            _ => text.push_str(&format!("  values:\n  - {}\n", values.join("\n  - "))),
        }
        last = Some(name);
    }
    text
}

/// Returns the name as a key: nothing for the domain itself.
fn key(zone: &Zone, set: &RecordSet<'_>) -> String {
    match zone.relative(set.name) {
        name if name == "@" => String::new(),
        name => name.into_owned(),
    }
}

/// Cuts a name into texts and numbers, by which octoDNS sorts: a text comes first, be it empty. Of numbers, the longer one is
/// greater: a label may have more digits than any integer.
fn natural(name: &str) -> Vec<(String, usize, String)> {
    let mut parts = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let (text, after) = rest.split_at(rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len()));
        let (number, after) = after.split_at(after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len()));
        let digits = number.trim_start_matches('0');
        // Zero is greater than no number at all.
        parts.push((text.to_owned(), digits.len() + usize::from(!number.is_empty()), digits.to_owned()));
        rest = after;
    }
    parts
}

fn value(data: &RecordData) -> String {
    let host = |name: &dyn std::fmt::Display| quoted(&format!("{name}."));
    let mx = |preference: u16, exchange: String| format!("exchange: {exchange}\n    preference: {preference}");
    match data {
        RecordData::A(address) => quoted(&address.to_string()),
        RecordData::Aaaa(address) => quoted(&address.to_string()),
        RecordData::Caa { tag, value } => {
            format!("flags: 0\n    tag: {}\n    value: {}", quoted(tag), quoted(value))
        }
        RecordData::Cname(target) => host(target),
        RecordData::Mx { preference, exchange } => mx(*preference, host(exchange)),
        RecordData::NullMx => mx(0, quoted(".")),
        RecordData::Srv { priority, weight, port, target } => {
            let target = target.as_ref().map_or_else(|| quoted("."), |target| host(target));
            format!("port: {port}\n    priority: {priority}\n    target: {target}\n    weight: {weight}")
        }
        RecordData::Tlsa(digest) => format!(
            "certificate_association_data: {}\n    certificate_usage: 3\n    matching_type: 1\n    selector: 1",
            quoted(&digest.to_string())
        ),
        RecordData::Txt(text) => quoted(&escaped(text)),
    }
}

/// Returns a text as octoDNS reads it: `;` behind a backslash, and quotes around one that begins with a quote, which it takes off.
///
/// Two things octoDNS cannot say: a backslash before `;`, which it refuses, and `" "` within a text, which it removes. No record
/// of a site has them.
pub fn escaped(text: &str) -> String {
    let text = text.replace(';', r"\;");
    if text.starts_with('"') { format!("\"{text}\"") } else { text }
}

/// Returns the text as a scalar of YAML 1.1: in single quotes, which mean nothing else; in double quotes if not all is printable
/// ASCII (YAML 1.2.2, 7.3.1 and 7.3.2).
pub fn quoted(text: &str) -> String {
    if text.bytes().all(|octet| matches!(octet, b' '..=b'~')) {
        return format!("'{}'", text.replace('\'', "''"));
    }
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            _ => {
                let _ = write!(out, "\\U{:08x}", u32::from(c));
            }
        }
    }
    out.push('"');
    out
}
