//! Writes records as a fragment of a zone file (RFC 1035 §5.1): whole names, so that it may stand anywhere in a zone.

use std::fmt::Write as _;

use super::{RecordData, Zone, remark};
use crate::names::Digest;

/// The longest `<character-string>` (RFC 1035 §3.3).
const STRING_LIMIT: usize = 255;

/// Returns the zone's records as text, each below its reason; without SOA and NS, which are not mail's business.
pub fn write(zone: &Zone) -> String {
    let mut text = format!(
        "; Written by postseal: what the mail of {domain} needs in DNS. It belongs into the zone of {domain}.\n\
         ; A name has one SPF record at most: merge it with one that is there already.\n",
        domain = zone.domain
    );
    for record in &zone.records {
        let (name, ttl, kind) = (owner(&record.name), record.ttl, record.data.kind());
        // Writing to a String cannot fail.
        let _ = writeln!(text, "\n; {}\n{name} {ttl} IN {kind} {}", remark(record), content(&record.data));
    }
    for host in &zone.unaddressed {
        let _ = write!(
            text,
            "\n; {host}. needs A and AAAA records of your own: postseal.toml does not tell its addresses. RFC 5321 §5.1\n"
        );
    }
    text
}

/// Returns a name with its final dot; what is not of letters, digits, `-`, `_` and `*` by its decimal number.
pub fn owner(name: &str) -> String {
    let mut text = String::with_capacity(name.len() + 1);
    for octet in name.bytes() {
        match octet {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'*' | b'.' => text.push(char::from(octet)),
            _ => {
                let _ = write!(text, "\\{octet:03}");
            }
        }
    }
    text.push('.');
    text
}

/// Returns the content of a record as a zone file has it.
pub fn content(data: &RecordData) -> String {
    match data {
        RecordData::Caa { tag, value } => format!("0 {tag} {}", quoted(value.as_bytes())),
        RecordData::Txt(value) => character_strings(value),
        data => data.to_string(),
    }
}

/// Returns the text in pieces of at most 255 octets, of which there is at least one.
pub fn pieces(text: &str) -> impl Iterator<Item = &[u8]> {
    let empty = text.is_empty().then_some(&[][..]);
    empty.into_iter().chain(text.as_bytes().chunks(STRING_LIMIT))
}

/// Returns the text as quoted strings of at most 255 octets each (RFC 1035 §5.1), for readers join them without a space
/// (RFC 7208 §3.3, RFC 6376 §3.6.2.2).
pub fn character_strings(text: &str) -> String {
    pieces(text).map(quoted).collect::<Vec<_>>().join(" ")
}

/// Quotes one string: `"` and `\` by a backslash, what is not printable ASCII by its decimal number.
fn quoted(octets: &[u8]) -> String {
    let mut text = String::from("\"");
    for &octet in octets {
        match octet {
            b'"' | b'\\' => text.extend(['\\', char::from(octet)]),
            b' '..=b'~' => text.push(char::from(octet)),
            _ => {
                let _ = write!(text, "\\{octet:03}");
            }
        }
    }
    text.push('"');
    text
}

/// Returns the TXT records of a text that [`write()`] wrote, as the remark above, name and joined value. Escapes stay as they
/// are: the values of which this is asked have none.
pub fn txt_records(text: &str) -> impl Iterator<Item = (&str, &str, String)> {
    let above = std::iter::once("").chain(text.lines());
    above.zip(text.lines()).filter_map(|(above, line)| {
        let (head, strings) = line.split_once(" IN TXT ")?;
        let name = head.split_once(". ")?.0;
        // Every other part stands between quotes.
        Some((above.strip_prefix("; ").unwrap_or_default(), name, strings.split('"').skip(1).step_by(2).collect()))
    })
}

/// Returns the TLSA records of a text that [`write()`] wrote, as host and digest of the key of port 25.
pub fn tlsa_records(text: &str) -> impl Iterator<Item = (&str, Digest)> {
    text.lines().filter_map(|line| {
        let (head, digest) = line.split_once(" IN TLSA 3 1 1 ")?;
        Some((head.strip_prefix("_25._tcp.")?.split_once(". ")?.0, digest.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_in_a_caa_value_does_not_end_it() {
        let data = RecordData::Caa { tag: "issue", value: "ca.example; x=\"\\".to_owned() };
        assert_eq!(content(&data), r#"0 issue "ca.example; x=\"\\""#);
        assert_eq!(data.to_string(), content(&data));
    }

    #[test]
    fn an_owner_name_stays_one_word() {
        assert_eq!(owner("a b;\n.example.com"), r"a\032b\059\010.example.com.");
    }

    #[test]
    fn a_long_text_is_split_after_255_octets() {
        let text = character_strings(&"a".repeat(256));
        assert_eq!(text, format!("\"{}\" \"a\"", "a".repeat(255)));
    }
}
