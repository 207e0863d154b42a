//! Compressed files, known by their first octets: whatever is in them is unpacked up to a bound, and no further.

use std::borrow::Cow;
use std::io::{Cursor, Read};

use flate2::read::GzDecoder;
use zip::ZipArchive;

use super::{ReportError, UNPACKED_LIMIT, broken, too_large};

/// The largest zip archive that is opened: its directory is read as a whole.
const ZIP_LIMIT: usize = 16 << 20;

/// The most entries of a zip archive. Reporters put one file into it.
const ENTRIES_LIMIT: usize = 16;

const GZIP: &[u8] = b"\x1f\x8b";
const ZIP: &[u8] = b"PK\x03\x04";

/// What may be a report, not compressed.
pub(super) enum Plain<'b> {
    /// XML.
    Xml(Cow<'b, str>),
    /// JSON.
    Json(Cow<'b, str>),
}

impl<'b> Plain<'b> {
    /// Looks what it is; neither of both for anything else.
    pub(super) fn of(bytes: &'b [u8]) -> Option<Self> {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        // Octets in another encoding matter to the reporter's name alone: domains and numbers are ASCII.
        let text = || String::from_utf8_lossy(bytes);
        match bytes.trim_ascii_start().first() {
            Some(b'<') => Some(Self::Xml(text())),
            Some(b'{') => Some(Self::Json(text())),
            _ => None,
        }
    }
}

fn is_packed(bytes: &[u8]) -> bool {
    bytes.starts_with(GZIP) || bytes.starts_with(ZIP)
}

/// Tells whether it is a file by itself, and no mail.
pub(super) fn is_packed_or_plain(bytes: &[u8]) -> bool {
    is_packed(bytes) || is_utf_16(bytes) || Plain::of(bytes).is_some()
}

fn is_utf_16(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff")
}

/// Hands over what is in a file: itself, if it is not compressed. `room` is how much may be unpacked, in octets.
pub(super) fn unpack(
    bytes: &[u8],
    room: &mut usize,
    each: &mut dyn FnMut(&[u8]) -> Result<(), ReportError>,
) -> Result<(), ReportError> {
    let mut hand_over = |content: &[u8]| match content {
        packed if is_packed(packed) => Err(broken("there is an archive in an archive")),
        wide if is_utf_16(wide) => Err(broken("it is in UTF-16, and a report is in UTF-8")),
        content => each(content),
    };
    if bytes.starts_with(GZIP) {
        let content = inflate(GzDecoder::new(bytes), room, "gzip")?;
        hand_over(&content)
    } else if bytes.starts_with(ZIP) {
        each_entry(bytes, room, &mut hand_over)
    } else {
        hand_over(bytes)
    }
}

fn each_entry(
    bytes: &[u8],
    room: &mut usize,
    each: &mut dyn FnMut(&[u8]) -> Result<(), ReportError>,
) -> Result<(), ReportError> {
    if bytes.len() > ZIP_LIMIT {
        return Err(too_large("a zip archive in it", ZIP_LIMIT));
    }
    let damaged = |_| broken("a zip archive in it is damaged, or of a kind that is not read");
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(damaged)?;
    if archive.len() > ENTRIES_LIMIT {
        return Err(broken(format!("a zip archive in it has more than {ENTRIES_LIMIT} entries")));
    }
    for number in 0..archive.len() {
        let entry = archive.by_index(number).map_err(damaged)?;
        if entry.is_file() {
            let content = inflate(entry, room, "zip")?;
            each(&content)?;
        }
    }
    Ok(())
}

/// Unpacks as much as there is room for; more is a bomb, whatever the archive says of its size.
fn inflate(from: impl Read, room: &mut usize, kind: &str) -> Result<Vec<u8>, ReportError> {
    let mut content = Vec::new();
    let read = from.take(*room as u64 + 1).read_to_end(&mut content);
    read.map_err(|_| broken(format!("what is compressed by {kind} in it is damaged, or ends too soon")))?;
    match room.checked_sub(content.len()) {
        Some(left) => *room = left,
        None => return Err(too_large("what is compressed in it", UNPACKED_LIMIT)),
    }
    Ok(content)
}
