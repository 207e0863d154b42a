//! Writes records for people who type them into a provider's form: names relative to the domain, and a long text in the four forms
//! that such forms want.

use std::fmt::Write as _;

use super::{RecordData, Zone, zone};
use crate::names::visible;

/// Returns the zone's records as a table, and each long text below it.
pub fn write(zone: &Zone) -> String {
    let domain = &zone.domain;
    let mut text = format!(
        "Written by postseal: what the mail of {domain} needs in DNS.\n\
         `@` is {domain} itself; a form that wants whole names takes NAME.{domain}. Where a form has a field for a priority, the first\n\
         number of an MX or SRV value goes there. A name has one SPF record at most: merge it with one that is there already.\n\n"
    );
    let mut rows = vec![["NAME", "TYPE", "TTL", "VALUE"].map(str::to_owned)];
    let mut long = Vec::new();
    for record in &zone.records {
        let name = visible(&zone.relative(&record.name));
        let value = match &record.data {
            RecordData::Txt(text) if zone::pieces(text).count() > 1 => {
                long.push((name.clone(), text));
                format!("(long: {} below)", long.len())
            }
            data => visible(&data.to_string()),
        };
        rows.push([name, record.data.kind().to_owned(), record.ttl.to_string(), value]);
    }
    text.push_str(&aligned(&rows));
    for host in &zone.unaddressed {
        // Writing to a String cannot fail.
        let _ =
            writeln!(text, "\n{host} needs A and AAAA records of your own: postseal.toml does not tell its addresses.");
    }
    for (number, (name, value)) in long.iter().enumerate() {
        let _ = write!(text, "\n{}: TXT of {name}, {} characters\n", number + 1, value.chars().count());
        text.push_str(&forms(value));
    }
    text
}

/// Returns a long text in the four forms. Whatever form is taken, the record is the same: its strings are joined without a space.
fn forms(value: &str) -> String {
    let pieces: Vec<String> = zone::pieces(value).map(|piece| visible(&String::from_utf8_lossy(piece))).collect();
    let lines = |texts: &[String]| texts.iter().map(|text| ["    ", text, "\n"].concat()).collect::<String>();
    format!(
        "  a form that takes a text of any length, and cuts it itself:\n{}\
         \x20 a form that wants a value as in a zone file, or says that 255 characters are too many:\n{}\
         \x20 a form with a field for each string, or an API that wants a list; without a space where they meet:\n{}\
         \x20 a form that imports a zone file, or a name server of your own: postseal dns --format zone\n\
         \x20 Then look at what is served: dig +short TXT shows the strings in quotes, in this order.\n",
        lines(&[visible(value)]),
        lines(&[zone::character_strings(value)]),
        lines(&pieces),
    )
}

/// Lays rows out in columns, two blanks apart; the last column is not padded.
fn aligned(rows: &[[String; 4]]) -> String {
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..4).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}
