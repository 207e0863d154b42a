//! The attachments of a mail (RFC 5322, RFC 2046). Headers are read by mail-parser; the parts are walked here, for a mail of
//! nothing but parts, or of parts in parts, must cost no more than another one.

use std::borrow::Cow;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use mail_parser::{MessageParser, MimeHeaders as _};

use super::{Found, ReportError, broken, too_large, unpack};

/// The largest header of a mail or part, in octets.
const HEADER_LIMIT: usize = 256 << 10;

/// How deep parts may lie in parts. A forwarded report lies three deep.
const DEPTH_LIMIT: usize = 8;

/// The most parts of a mail.
const PARTS_LIMIT: usize = 100;

/// Reads the reports that are attached to a mail.
pub(super) fn read(bytes: &[u8], found: &mut Found) -> Result<(), ReportError> {
    // Some programs that hand over a mail put the line of an mbox before it.
    let bytes = match bytes.strip_prefix(b"From ") {
        Some(rest) if is_mbox(rest) => return Err(broken("it holds several mails; give each as a file of its own")),
        Some(_) => split_line(bytes).1,
        None => bytes,
    };
    Walk { parts: 0, found }.part(bytes, 0)
}

fn is_mbox(rest: &[u8]) -> bool {
    ["\n\nFrom ", "\n\r\nFrom "].iter().any(|begin| find(rest, begin.as_bytes()).is_some())
}

struct Walk<'f> {
    parts: usize,
    found: &'f mut Found,
}

impl Walk<'_> {
    /// Reads a mail, or a part of one.
    fn part(&mut self, bytes: &[u8], depth: usize) -> Result<(), ReportError> {
        self.parts += 1;
        if depth > DEPTH_LIMIT {
            return Err(broken(format!("its parts lie more than {DEPTH_LIMIT} deep in each other")));
        }
        if self.parts > PARTS_LIMIT {
            return Err(broken(format!("it has more than {PARTS_LIMIT} parts")));
        }
        let (header, body) = split_header(bytes);
        if header.len() > HEADER_LIMIT {
            return Err(too_large("its header", HEADER_LIMIT));
        }
        // Without a header it is the text of a person.
        let Some(parsed) = MessageParser::new().parse_headers(header) else { return Ok(()) };
        let Some(kind) = parsed.content_type() else { return Ok(()) };
        let kind_is = |main: &str| kind.ctype().eq_ignore_ascii_case(main);
        if kind_is("multipart") {
            let Some(boundary) = kind.attribute("boundary").filter(|boundary| !boundary.is_empty()) else {
                return Ok(());
            };
            return self.parts_between(body, boundary, depth);
        }
        let content = decoded(body, parsed.content_transfer_encoding().unwrap_or_default())?;
        if kind_is("message") && kind.subtype().is_some_and(|subtype| subtype.eq_ignore_ascii_case("rfc822")) {
            return self.part(&content, depth + 1);
        }
        // What people write is no report, even if they quote one.
        if unpack::is_packed_or_plain(&content) { self.found.take(&content) } else { Ok(()) }
    }

    fn parts_between(&mut self, body: &[u8], boundary: &str, depth: usize) -> Result<(), ReportError> {
        let (mut rest, mut part) = (body, None::<&[u8]>);
        while !rest.is_empty() {
            let here = rest;
            let (line, behind) = split_line(rest);
            rest = behind;
            let delimiter = line.strip_prefix(b"--").and_then(|line| line.strip_prefix(boundary.as_bytes()));
            let Some(after) = delimiter.map(<[u8]>::trim_ascii_end) else { continue };
            let is_last = match after {
                b"" => false,
                b"--" => true,
                _ => continue,
            };
            if let Some(begin) = part {
                let length = begin.len() - here.len();
                self.part(begin.get(..length).unwrap_or_default(), depth + 1)?;
            }
            part = (!is_last).then_some(behind);
            if is_last {
                return Ok(());
            }
        }
        // The end of the mail may be lost; what is in the last part shows whether it is whole.
        part.map_or(Ok(()), |begin| self.part(begin, depth + 1))
    }
}

/// Parts header and body at the first empty line.
fn split_header(bytes: &[u8]) -> (&[u8], &[u8]) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let (line, behind) = split_line(rest);
        if matches!(line, b"\n" | b"\r\n") {
            return bytes.split_at(bytes.len() - behind.len());
        }
        // No header is longer; a file that is no mail is not searched to its end.
        if bytes.len() - behind.len() > HEADER_LIMIT {
            break;
        }
        rest = behind;
    }
    (bytes, b"")
}

/// Parts a line, its end included, from what follows.
fn split_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |newline| newline + 1);
    bytes.split_at(end)
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// Reads what a transfer encoding made of a body (RFC 2045 §6).
fn decoded<'b>(body: &'b [u8], encoding: &str) -> Result<Cow<'b, [u8]>, ReportError> {
    if encoding.trim().eq_ignore_ascii_case("base64") {
        let config = GeneralPurposeConfig::new()
            .with_decode_padding_mode(DecodePaddingMode::Indifferent)
            .with_decode_allow_trailing_bits(true);
        let is_of_it = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
        // Behind the padding, lists put their footers.
        let text: Vec<u8> =
            body.iter().take_while(|byte| **byte != b'=').filter(|byte| is_of_it(byte)).copied().collect();
        let octets = GeneralPurpose::new(&alphabet::STANDARD, config).decode(text);
        return octets.map(Cow::Owned).map_err(|_| broken("an attachment of it is damaged, or ends too soon"));
    }
    if encoding.trim().eq_ignore_ascii_case("quoted-printable") {
        return Ok(Cow::Owned(unquoted(body)));
    }
    Ok(Cow::Borrowed(body))
}

/// Reads quoted-printable text; what is none of it stands for itself.
fn unquoted(body: &[u8]) -> Vec<u8> {
    let digit = |byte: Option<&u8>| {
        byte.and_then(|byte| char::from(*byte).to_digit(16)).and_then(|digit| u8::try_from(digit).ok())
    };
    let mut out = Vec::with_capacity(body.len());
    let mut rest = body;
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        if *first != b'=' {
            out.push(*first);
        } else if let (Some(high), Some(low)) = (digit(behind.first()), digit(behind.get(1))) {
            out.push(high << 4 | low);
            rest = behind.get(2..).unwrap_or_default();
        } else if let (line, after) = split_line(behind)
            && line.trim_ascii().is_empty()
        {
            rest = after;
        } else {
            out.push(b'=');
        }
    }
    out
}
