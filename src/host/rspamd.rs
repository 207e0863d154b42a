//! The running Rspamd, asked as filter-rspamd asks it: by HTTP, at the socket of its normal worker.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use crate::names::{DomainName, visible};
use crate::platform::Layout;

/// How long an answer is waited for: where DNS does not answer, Rspamd waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

/// No answer of Rspamd's is longer, in octets.
const LONGEST_ANSWER: u64 = 1 << 20;

/// An address that is nobody's (RFC 5737): the host's own mail is signed without a login, and this is to prove the login's way.
const CLIENT: &str = "192.0.2.1";

/// The normal worker of a running Rspamd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rspamd {
    socket: Utf8PathBuf,
}

impl Rspamd {
    /// Names the one of a platform, where the rendered configuration has it listen.
    pub fn new(layout: &Layout) -> Self {
        Self { socket: Utf8Path::new(layout.rspamd_run).join("normal.sock") }
    }

    /// Returns where it listens.
    pub fn socket(&self) -> &Utf8Path {
        &self.socket
    }

    /// Tells whether it answers.
    pub fn answers(&self) -> bool {
        self.ask(b"GET /ping HTTP/1.0\r\n\r\n").is_ok_and(|answer| answer.starts_with(b"HTTP/1."))
    }

    /// Has it judge a message as somebody of the domain submits it, and returns the message with the signatures that it adds.
    ///
    /// # Errors
    /// Those of the connection, and whatever Rspamd answers that is no judgement.
    pub fn sign(&self, domain: &DomainName, message: &str) -> io::Result<Vec<u8>> {
        let answer = self.ask(&request(domain, message))?;
        let mut signed = Vec::new();
        for signature in signatures(&answer).map_err(io::Error::other)? {
            signed.extend(b"DKIM-Signature: ");
            signed.extend(folded(&signature).into_bytes());
            signed.extend(b"\r\n");
        }
        signed.extend(message.as_bytes());
        Ok(signed)
    }

    fn ask(&self, request: &[u8]) -> io::Result<Vec<u8>> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(request)?;
        let mut answer = Vec::new();
        let mut part = [0; 4096];
        // It may keep the connection open: what was promised is enough.
        while !is_complete(&answer) && answer.len() < usize::try_from(LONGEST_ANSWER).unwrap_or(usize::MAX) {
            let count = stream.read(&mut part)?;
            if count == 0 {
                break;
            }
            answer.extend_from_slice(part.get(..count).unwrap_or_default());
        }
        Ok(answer)
    }
}

/// Returns a message of the domain that goes nowhere.
pub fn probe(domain: &DomainName, now: OffsetDateTime) -> String {
    let date = now.format(&Rfc2822).unwrap_or_default();
    let at = now.unix_timestamp();
    format!(
        "From: <postmaster@{domain}>\r\nTo: <postmaster@{domain}>\r\nSubject: postseal has this signed and sends it to nobody\r\n\
         Date: {date}\r\nMessage-ID: <postseal-probe.{at}@{domain}>\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=us-ascii\r\n\r\nOnly the signatures of this message are looked at.\r\n"
    )
}

/// Returns what filter-rspamd sends of a message that somebody of the domain submits.
fn request(domain: &DomainName, message: &str) -> Vec<u8> {
    let length = message.len();
    let address = format!("postmaster@{domain}");
    format!(
        "POST /checkv2 HTTP/1.0\r\nContent-Length: {length}\r\nIp: {CLIENT}\r\nHelo: postseal.invalid\r\n\
         Hostname: postseal.invalid\r\nFrom: {address}\r\nRcpt: {address}\r\nUser: {address}\r\n\
         Queue-Id: postseal-probe\r\n\r\n{message}"
    )
    .into_bytes()
}

/// Returns head and body of an answer.
fn parts(answer: &[u8]) -> Option<(&str, &[u8])> {
    let at = answer.windows(4).position(|octets| octets == b"\r\n\r\n")?;
    Some((std::str::from_utf8(answer.get(..at)?).ok()?, answer.get(at + 4..)?))
}

fn is_complete(answer: &[u8]) -> bool {
    let Some((head, body)) = parts(answer) else { return false };
    let field = |line: &str| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    };
    head.lines().find_map(field).is_some_and(|length| body.len() >= length)
}

/// Returns the signatures that an answer has for a message: one is a string, several are a list.
fn signatures(answer: &[u8]) -> Result<Vec<String>, String> {
    let Some((head, body)) = parts(answer) else { return Err("its answer is cut off".to_owned()) };
    let first = head.lines().next().unwrap_or_default();
    if first.split_ascii_whitespace().nth(1) != Some("200") {
        return Err(format!("it answers `{}`", visible(first)));
    }
    let answer: Value = serde_json::from_slice(body).map_err(|error| format!("its answer is no JSON: {error}"))?;
    if let Some(error) = answer.get("error").and_then(Value::as_str) {
        return Err(format!("it answers `{}`", visible(error)));
    }
    Ok(match answer.get("dkim-signature") {
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    })
}

/// Returns a field's text with the line ends that a mail has.
fn folded(text: &str) -> String {
    text.replace("\r\n", "\n").trim_end().replace('\n', "\r\n")
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn answer(body: &str) -> Vec<u8> {
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    }

    #[test]
    fn the_probe_is_a_mail_of_somebody_who_logged_in() {
        let domain: DomainName = "example.com".parse().unwrap();
        let message = probe(&domain, datetime!(2026-11-24 12:00:05 UTC));
        assert!(message.contains("\r\nDate: Tue, 24 Nov 2026 12:00:05 +0000\r\n"));
        assert!(message.lines().all(|line| line.len() < 79), "a line that is folded on its way breaks the signature");
        let request = String::from_utf8(request(&domain, &message)).unwrap();
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        assert_eq!(body, message);
        assert!(head.starts_with("POST /checkv2 HTTP/1.0\r\n"));
        for field in ["User: postmaster@example.com", "From: postmaster@example.com", "Ip: 192.0.2.1"] {
            assert!(head.lines().any(|line| line == field), "{field}");
        }
        assert!(head.contains(&format!("Content-Length: {}", message.len())));
    }

    #[test]
    fn one_signature_is_a_string_and_several_are_a_list() {
        assert_eq!(signatures(&answer(r#"{"dkim-signature": "v=1; a=b"}"#)).unwrap(), ["v=1; a=b"]);
        assert_eq!(signatures(&answer(r#"{"dkim-signature": ["one", "two"]}"#)).unwrap(), ["one", "two"]);
        assert!(signatures(&answer(r#"{"action": "no action"}"#)).unwrap().is_empty());
    }

    #[test]
    fn what_is_no_judgement_is_an_error_and_shows_no_control_character() {
        for bad in ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\n\r\n{", ""] {
            assert!(signatures(bad.as_bytes()).is_err(), "{bad}");
        }
        let refused = signatures(b"HTTP/1.1 400 \x1b[31m\r\n\r\n{}").unwrap_err();
        assert!(refused.contains("400") && !refused.contains('\x1b'), "{refused}");
        assert!(signatures(&answer(r#"{"error": "invalid command"}"#)).unwrap_err().contains("invalid command"));
    }

    #[test]
    fn an_answer_is_read_to_the_length_that_it_promises() {
        let whole = answer("{}");
        assert!(is_complete(&whole));
        assert!(!is_complete(&whole[..whole.len() - 1]));
        assert!(!is_complete(b"HTTP/1.0 200 OK\r\n\r\n{}"), "without a promise it ends with the connection");
    }

    #[test]
    fn a_signature_has_the_line_ends_of_a_mail() {
        assert_eq!(folded("v=1;\n\ta=b;\r\n\tc=d\r\n"), "v=1;\r\n\ta=b;\r\n\tc=d");
    }
}
