//! Writes records for DNSControl: JavaScript of the fifth edition, to be included after the domain itself is declared.

use std::fmt::Write as _;

use super::{RecordData, Zone, remark};

/// Returns a file that adds the zone's records to the domain, or to that which it lies in: it names no provider and no registrar.
pub fn write(zone: &Zone) -> String {
    let domain = &zone.domain;
    let mut text = format!(
        "// Written by postseal: what the mail of {domain} needs in DNS. In dnsconfig.js, below the D(...) of the domain:\n\
         //   require(\"./{domain}.js\");\n\
         // A name has one SPF record at most: merge it with one that is there already.\n"
    );
    for host in &zone.unaddressed {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "// {host}. needs A and AAAA records of your own: postseal.toml does not tell its addresses. RFC 5321 §5.1"
        );
    }
    let _ = write!(text, "D_EXTEND({}", quoted(domain.as_str()));
    for record in &zone.records {
        let name = quoted(&zone.relative(&record.name));
        let _ = write!(text, ",\n  // {}\n  {}({name}, ", remark(record), record.data.kind());
        let _ = write!(text, "{}, TTL({}))", arguments(&record.data), record.ttl);
    }
    text.push_str("\n);\n");
    text
}

/// Returns the content as arguments of the function that is named like the type.
fn arguments(data: &RecordData) -> String {
    let host = |name: &dyn std::fmt::Display| quoted(&format!("{name}."));
    match data {
        RecordData::A(address) => quoted(&address.to_string()),
        RecordData::Aaaa(address) => quoted(&address.to_string()),
        RecordData::Caa { tag, value } => format!("{}, {}", quoted(tag), quoted(value)),
        RecordData::Cname(target) => host(target),
        RecordData::Mx { preference, exchange } => format!("{preference}, {}", host(exchange)),
        RecordData::NullMx => format!("0, {}", quoted(".")),
        RecordData::Srv { priority, weight, port, target } => {
            let target = target.as_ref().map_or_else(|| quoted("."), |target| host(target));
            format!("{priority}, {weight}, {port}, {target}")
        }
        RecordData::Tlsa(digest) => format!("3, 1, 1, {}", quoted(&digest.to_string())),
        RecordData::Txt(text) => quoted(text),
    }
}

/// Returns the text as a string of JavaScript: `"` and `\` by a backslash, what is not printable ASCII as UTF-16 in hexadecimal
/// (ECMA-262, StringLiteral).
pub fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
    out.push('"');
    out
}
