//! Writes records as a script for nsupdate (RFC 2136): a set that is the mail's alone is replaced, one that others share is only
//! added to.

use std::fmt::Write as _;

use super::{Record, RecordData, RecordSet, Zone, zone};

/// Returns the script: one update, which the server does whole or not at all, and which changes nothing if it is done again.
pub fn write(zone: &Zone) -> String {
    let domain = &zone.domain;
    let mut text = format!(
        "; Written by postseal: what the mail of {domain} needs in DNS. To be run as: nsupdate -k KEYFILE THIS-FILE\n\
         ;\n\
         ; * Of each name and type below, the records become exactly these: others of that name and type are removed.\n\
         ; * But a TXT set at a name without `_` is shared with others: what is there stays, except for the same SPF record with\n\
         ;   the other end, `~all` for `-all`.\n\
         ; * A name has one SPF record at most. Look first (dig TXT {domain}) for one of others, or of postseal's with other terms,\n\
         ;   and remove it by a line before `send`, such as: update delete {domain}. TXT \"v=spf1 ...\"\n\
         ; * If a name that gets records is an alias, or one that becomes an alias has records, the server refuses the whole update\n\
         ;   (YXRRSET) and changes nothing.\n\
         ; * SOA and NS are never touched, nor any other name.\n"
    );
    for host in &zone.unaddressed {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            ";\n; {host}. needs A and AAAA records of your own: postseal.toml does not tell its addresses. RFC 5321 §5.1"
        );
    }
    let sets = zone.sets();
    if sets.is_empty() {
        return text;
    }
    text.push_str(";\n");
    for line in prerequisites(&sets) {
        let _ = writeln!(text, "{line}");
    }
    for set in &sets {
        write_set(&mut text, set);
    }
    text.push_str(";\nsend\n");
    text
}

/// An update of a name that is an alias, and an alias at a name that has records, would be ignored without a word
/// (RFC 2136 §3.4.2.2).
fn prerequisites(sets: &[RecordSet<'_>]) -> Vec<String> {
    let absent = |set: &RecordSet<'_>, kind: &str| format!("prereq nxrrset {} {kind}", zone::owner(set.name));
    let mut lines: Vec<String> = Vec::new();
    for set in sets {
        match set.kind {
            "CNAME" => lines.extend(["A", "AAAA", "MX", "TXT"].map(|kind| absent(set, kind))),
            _ => lines.push(absent(set, "CNAME")),
        }
    }
    lines.sort();
    lines.dedup();
    lines
}

fn write_set(text: &mut String, set: &RecordSet<'_>) {
    let (name, kind, ttl) = (zone::owner(set.name), set.kind, set.ttl());
    // To nsupdate an empty line is an order to send.
    text.push_str(";\n");
    for record in &set.records {
        let _ = writeln!(text, "; {}", super::remark(record));
    }
    if is_shared(set) {
        for old in set.records.iter().flat_map(|record| other_ends(record)) {
            let _ = writeln!(text, "update delete {name} TXT {}", zone::character_strings(&old));
        }
    } else {
        let _ = writeln!(text, "update delete {name} {kind}");
    }
    for record in &set.records {
        let _ = writeln!(text, "update add {name} {ttl} {kind} {}", zone::content(&record.data));
    }
}

/// Tells whether others may have records in the set, as those that prove to somebody whose the domain is. A name with `_` says
/// what it is for (RFC 8552).
fn is_shared(set: &RecordSet<'_>) -> bool {
    set.kind == "TXT" && !set.name.split('.').any(|label| label.starts_with('_'))
}

/// Returns the SPF records that postseal has published in place of this one before the policy moved.
fn other_ends(record: &Record) -> Vec<String> {
    let RecordData::Txt(text) = &record.data else { return Vec::new() };
    let stem = ["-all", "~all"].iter().find_map(|end| text.strip_prefix("v=spf1 ")?.strip_suffix(end));
    let ends = stem.map(|stem| ["-all", "~all"].map(|end| format!("v=spf1 {stem}{end}")));
    ends.into_iter().flatten().filter(|other| other != text).collect()
}
