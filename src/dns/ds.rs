//! What the zone above a signed zone is to be told of its keys: DS, CDS and CDNSKEY, made of DNSKEY records as text.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::names::{Digest, hex, shown};

/// A public key of a zone (RFC 4034 §2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsKey {
    /// The zone, in lower case, with the final dot.
    pub zone: String,
    /// The flags: 256 is a zone's key, 257 one that signs keys, 128 more a revoked one (RFC 5011 §7).
    pub flags: u16,
    /// The number of the algorithm.
    pub algorithm: u8,
    /// The key, in the algorithm's own form.
    pub key: Vec<u8>,
}

/// Why a text holds no keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct Fault {
    /// The line that the record begins in, counted from 1.
    pub line: usize,
    /// What is wrong.
    pub problem: String,
}

/// How good an algorithm is (RFC 8624 §3.1, RFC 9905).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// What new zones take.
    Good,
    /// Every resolver knows it; nothing needs to be done.
    Fine,
    /// Not for new zones.
    Dated,
    /// Resolvers take the zone for unsigned or for forged.
    Forbidden,
    /// Nothing is known of it here.
    Unknown,
}

/// Numbers and names (RFC 4034 appendix A.1, and those after it).
const ALGORITHMS: [(u8, &str, Standing); 13] = [
    (1, "RSAMD5", Standing::Forbidden),
    (3, "DSA", Standing::Forbidden),
    (5, "RSASHA1", Standing::Forbidden),
    (6, "DSA-NSEC3-SHA1", Standing::Forbidden),
    (7, "NSEC3RSASHA1", Standing::Forbidden),
    (8, "RSASHA256", Standing::Fine),
    (10, "RSASHA512", Standing::Dated),
    (12, "ECC-GOST", Standing::Forbidden),
    (13, "ECDSAP256SHA256", Standing::Good),
    (14, "ECDSAP384SHA384", Standing::Fine),
    (15, "ED25519", Standing::Good),
    (16, "ED448", Standing::Fine),
    (23, "ECC-GOST12", Standing::Dated),
];

const ZONE_KEY: u16 = 0x0100;
const REVOKED: u16 = 0x0080;
const SIGNS_KEYS: u16 = 0x0001;

impl DnsKey {
    /// Tells whether it signs the zone's keys, so that the zone above names it.
    pub fn signs_keys(&self) -> bool {
        self.flags & (ZONE_KEY | REVOKED | SIGNS_KEYS) == ZONE_KEY | SIGNS_KEYS
    }

    /// Returns the content of its record on the wire (RFC 4034 §2.1).
    fn rdata(&self) -> Vec<u8> {
        // The protocol is 3.
        let [high, low] = self.flags.to_be_bytes();
        [&[high, low, 3, self.algorithm], self.key.as_slice()].concat()
    }

    /// Returns the tag by which signatures and DS records name it (RFC 4034 appendix B).
    pub fn tag(&self) -> u16 {
        let rdata = self.rdata();
        if self.algorithm == 1 {
            // Appendix B.1.
            let end = rdata.len().saturating_sub(3);
            let octets = rdata.get(end..).unwrap_or_default();
            return octets.iter().take(2).fold(0, |tag, octet| tag << 8 | u16::from(*octet));
        }
        let sum = rdata.chunks(2).fold(0_u64, |sum, pair| {
            let octet = |at: usize| u64::from(pair.get(at).copied().unwrap_or_default());
            sum + (octet(0) << 8 | octet(1))
        });
        // What is left above 16 bits is added once.
        u16::try_from((sum + (sum >> 16)) & 0xffff).unwrap_or_default()
    }

    /// Returns SHA-256 of the zone's name and the key (RFC 4034 §5.1.4, RFC 4509 §2.1).
    pub fn digest(&self) -> Digest {
        let labels = self.zone.split('.').filter(|label| !label.is_empty());
        let mut octets: Vec<u8> = Vec::new();
        for label in labels {
            // A label has at most 63 octets: `read` looks.
            octets.push(u8::try_from(label.len()).unwrap_or_default());
            octets.extend_from_slice(label.as_bytes());
        }
        octets.push(0);
        octets.extend(self.rdata());
        Digest::of(&octets)
    }

    /// Returns the content of the DS and of the CDS record (RFC 4034 §5.3, RFC 7344 §3.1).
    pub fn ds(&self) -> String {
        format!("{} {} 2 {}", self.tag(), self.algorithm, hex(self.digest().octets()).to_uppercase())
    }

    /// Returns the content of the DNSKEY and of the CDNSKEY record (RFC 4034 §2.2, RFC 7344 §3.2).
    pub fn dnskey(&self) -> String {
        format!("{} 3 {} {}", self.flags, self.algorithm, BASE64.encode(&self.key))
    }

    /// Returns the algorithm's name and how good it is.
    pub fn algorithm(&self) -> (&'static str, Standing) {
        let known = ALGORITHMS.iter().find(|(number, ..)| *number == self.algorithm);
        let (name, standing) = known.map_or(("unknown", Standing::Unknown), |(_, name, standing)| (name, *standing));
        let is_weak = self.rsa_bits().is_some_and(|bits| bits < 2048);
        (name, if is_weak && standing == Standing::Fine { Standing::Dated } else { standing })
    }

    /// Returns the length of an RSA key's modulus in bits (RFC 3110 §2).
    pub fn rsa_bits(&self) -> Option<usize> {
        if ![1, 5, 7, 8, 10].contains(&self.algorithm) {
            return None;
        }
        let (first, rest) = self.key.split_first()?;
        let modulus = if *first > 0 {
            rest.get(usize::from(*first)..)?
        } else {
            let (length, rest) = rest.split_at_checked(2)?;
            let length = length.iter().fold(0_usize, |length, octet| length << 8 | usize::from(*octet));
            rest.get(length..)?
        };
        let zeros = modulus.iter().take_while(|octet| **octet == 0).count();
        let first = modulus.get(zeros)?;
        Some((modulus.len() - zeros) * 8 - usize::try_from(first.leading_zeros()).unwrap_or_default())
    }
}

impl fmt::Display for DnsKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} IN DNSKEY {}", self.zone, self.dnskey())
    }
}

/// Reads the DNSKEY records of a zone file or a part of one, such as a `K*.key` file or what dig says (RFC 1035 §5.1); all
/// others are passed over.
///
/// # Errors
/// The first record that cannot be read.
pub fn read(text: &str) -> Result<Vec<DnsKey>, Fault> {
    let (mut origin, mut owner) = (None, None);
    let mut keys = Vec::new();
    for entry in entries(text)? {
        let fault = |problem: String| Fault { line: entry.line, problem };
        let mut words = entry.words.iter().map(String::as_str);
        let first = if entry.inherits { None } else { words.next() };
        if first.is_some_and(|word| word.eq_ignore_ascii_case("$ORIGIN")) {
            let name = words.next().unwrap_or_default();
            origin = Some(absolute(name, origin.as_deref()).map_err(fault)?);
            continue;
        }
        if let Some(word) = first {
            owner = Some(word.to_owned());
        }
        let mut rest = words.skip_while(|word| is_ttl_or_class(word));
        if !rest.next().is_some_and(|kind| kind.eq_ignore_ascii_case("DNSKEY")) {
            continue;
        }
        let Some(owner) = &owner else {
            return Err(fault("the record has no name".to_owned()));
        };
        let zone = absolute(owner, origin.as_deref()).map_err(fault)?;
        keys.push(key(zone, rest).map_err(fault)?);
    }
    Ok(keys)
}

fn key<'a>(zone: String, mut words: impl Iterator<Item = &'a str>) -> Result<DnsKey, String> {
    let mut word = || words.next().unwrap_or_default();
    let flags = word();
    let flags = flags.parse().map_err(|_| format!("`{}` are no flags of a DNSKEY record", shown(flags)))?;
    let protocol = word();
    if protocol != "3" {
        return Err(format!("`{}` is no protocol of a DNSKEY record, which is 3", shown(protocol)));
    }
    let algorithm = word();
    let by_name = ALGORITHMS.iter().find(|(_, name, _)| name.eq_ignore_ascii_case(algorithm));
    let by_name = by_name.map(|(number, ..)| *number);
    let number = by_name.or_else(|| algorithm.parse().ok());
    let algorithm = number.ok_or_else(|| format!("`{}` is no algorithm of DNSSEC", shown(algorithm)))?;
    let key = BASE64.decode(words.collect::<String>()).unwrap_or_default();
    if key.is_empty() {
        return Err("the key is no base64".to_owned());
    }
    Ok(DnsKey { zone, flags, algorithm, key })
}

/// A TTL may have units, as BIND writes them: `1h30m`.
fn is_ttl_or_class(word: &str) -> bool {
    let units = |byte: u8| byte.is_ascii_digit() || b"smhdwSMHDW".contains(&byte);
    let is_ttl = word.starts_with(|c: char| c.is_ascii_digit()) && word.bytes().all(units);
    is_ttl || ["IN", "CH", "HS", "CS"].iter().any(|class| word.eq_ignore_ascii_case(class))
}

/// Returns a name whole, in lower case, with the final dot.
fn absolute(name: &str, origin: Option<&str>) -> Result<String, String> {
    let whole = match (name, origin) {
        (".", _) => return Ok(name.to_owned()),
        ("@", Some(origin)) => origin.to_owned(),
        (name, _) if name.ends_with('.') => name.to_owned(),
        (name, Some(".")) => format!("{name}."),
        (name, Some(origin)) => format!("{name}.{origin}"),
        (name, None) => return Err(format!("`{}` has no final dot, and no $ORIGIN stands above", shown(name))),
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_/".contains(&byte);
    let is_label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(plain);
    let labels = whole.strip_suffix('.').unwrap_or(&whole);
    if whole.len() > 254 || !labels.split('.').all(is_label) {
        return Err(format!("`{}` is no name of a zone", shown(name)));
    }
    Ok(whole.to_ascii_lowercase())
}

/// A record or a directive: its words, without remarks and parentheses.
struct Entry {
    line: usize,
    /// Whether it begins with a blank, so that the name is that of the record above.
    inherits: bool,
    words: Vec<String>,
}

fn entries(text: &str) -> Result<Vec<Entry>, Fault> {
    let mut entries: Vec<Entry> = Vec::new();
    let (mut depth, mut opened) = (0_usize, 0);
    for (line, content) in text.lines().enumerate().map(|(at, content)| (at + 1, content)) {
        if depth == 0 {
            entries.push(Entry { line, inherits: content.starts_with([' ', '\t']), words: Vec::new() });
        }
        let Some(entry) = entries.last_mut() else { continue };
        let mut word = String::new();
        let (mut is_quoted, mut is_escaped) = (false, false);
        for c in content.chars() {
            match c {
                _ if is_escaped => is_escaped = false,
                '\\' => is_escaped = true,
                '"' => is_quoted = !is_quoted,
                _ if is_quoted => {}
                ';' => break,
                '(' | ')' | ' ' | '\t' => {
                    entry.words.extend((!word.is_empty()).then(|| std::mem::take(&mut word)));
                    match c {
                        '(' => (depth, opened) = (depth + 1, line),
                        ')' if depth == 0 => {
                            let problem = "a `)` closes what nothing opened".to_owned();
                            return Err(Fault { line, problem });
                        }
                        ')' => depth -= 1,
                        _ => {}
                    }
                    continue;
                }
                _ => {}
            }
            word.push(c);
        }
        entry.words.extend((!word.is_empty()).then_some(word));
    }
    if depth > 0 {
        return Err(Fault { line: opened, problem: "a `(` is never closed".to_owned() });
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The key of RFC 6605 §6.1, and that of RFC 4509 §2.3.
    const P256: &str = "example.net. 3600 IN DNSKEY 257 3 13 (\n  GojIhhXUN/u4v54ZQqGSnyhWJwaubCvTmeexv7bR6edb\n  \
                        krSqQpF64cYbcB7wNcP+e+MAnLr+Wi9xMWyQLc8NAA== )\n";
    const RSA: &str = "dskey.example.com. 86400 IN DNSKEY 256 3 5 ( AQOeiiR0GOMYkDshWoSKz9Xz
        fwJr1AYtsmx3TGkJaNXVbfi/
        2pHm822aJ5iI9BMzNXxeYCmZ
        DRD99WYwYqUSdjMmmAphXdvx
        egXd/M5+X7OrzKBaMbCVdFLU
        Uh6DhweJBjEVv5f2wwjM9Xzc
        nOf+EPbtG9DMBmADjFDc2w/r
        ljwvFw==
        ) ;  key id = 60485\n";

    fn one(text: &str) -> DnsKey {
        let [key] = <[DnsKey; 1]>::try_from(read(text).unwrap()).unwrap();
        key
    }

    #[test]
    fn digests_and_tags_are_those_of_the_rfcs() {
        let key = one(P256);
        assert_eq!(key.ds(), "55648 13 2 B4C8C1FE2E7477127B27115656AD6256F424625BF5C1E2770CE6D6E37DF61D17");
        assert!(key.signs_keys());
        let key = one(RSA);
        assert_eq!(key.ds(), "60485 5 2 D4B7D520E7BB5F0F67674A0CCEB1E3E0614B93C4F9E99B8383F6A1E4469DA50A");
        assert_eq!(
            (key.signs_keys(), key.rsa_bits(), key.algorithm()),
            (false, Some(1024), ("RSASHA1", Standing::Forbidden))
        );
    }

    #[test]
    fn keys_are_found_in_every_form_of_a_zone_file() {
        let body = "GojIhhXUN/u4v54ZQqGSnyhWJwaubCvTmeexv7bR6edb krSqQpF64cYbcB7wNcP+e+MAnLr+Wi9xMWyQLc8NAA==";
        let expected = one(P256);
        for text in [
            format!("; This is a key-signing key\nExample.NET. IN DNSKEY 257 3 ECDSAP256SHA256 {body}\n"),
            format!("$ORIGIN net.\n$TTL 1h\nexample 1h30m DNSKEY 257 3 13 {body} ;{{id = 55648 (ksk)}}\n"),
            format!("$ORIGIN example.net.\n@ IN SOA a. b. ( 1 1 1 ; (\n 1 1 )\n IN 60 DNSKEY 257 3 13 {body}"),
            format!("x.example.net. TXT \"a ; ( DNSKEY\" \\( \nexample.net. in dnskey 257 3 13 ( {body} )"),
        ] {
            assert_eq!(read(&text).unwrap(), std::slice::from_ref(&expected), "{text}");
        }
        assert_eq!(read("example.net. IN DS 1 13 2 00\n\n").unwrap(), []);
    }

    #[test]
    fn what_cannot_be_read_is_told_by_its_line() {
        for (text, line, problem) in [
            ("\nexample.net. DNSKEY 257 3 13 (", 2, "a `(` is never closed"),
            ("example.net. A 192.0.2.1 )", 1, "a `)` closes what nothing opened"),
            ("example.net DNSKEY 257 3 13 AAAA", 1, "`example.net` has no final dot, and no $ORIGIN stands above"),
            (" DNSKEY 257 3 13 AAAA", 1, "the record has no name"),
            ("a..b. DNSKEY 257 3 13 AAAA", 1, "`a..b.` is no name of a zone"),
            ("a. DNSKEY 65536 3 13 AAAA", 1, "`65536` are no flags of a DNSKEY record"),
            ("a. DNSKEY 257 2 13 AAAA", 1, "`2` is no protocol of a DNSKEY record, which is 3"),
            ("a. DNSKEY 257 3 RSA AAAA", 1, "`RSA` is no algorithm of DNSSEC"),
            ("a. DNSKEY 257 3 13 A-", 1, "the key is no base64"),
            ("a. DNSKEY 257 3 13", 1, "the key is no base64"),
        ] {
            assert_eq!(read(text).unwrap_err(), Fault { line, problem: problem.to_owned() }, "{text}");
        }
    }

    #[test]
    fn a_revoked_key_is_told_to_nobody() {
        assert!(!one(&P256.replace(" 257 ", " 385 ")).signs_keys());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            zone in "([a-z0-9_-]{1,9}\\.){1,3}", flags in any::<u16>(), algorithm in any::<u8>(),
            key in prop::collection::vec(any::<u8>(), 1..300),
        ) {
            let key = DnsKey { zone, flags, algorithm, key };
            prop_assert_eq!(read(&key.to_string()).unwrap(), [key.clone()]);
            let _ = (key.tag(), key.ds(), key.rsa_bits());
        }

        #[test]
        fn hostile_text_never_panics(
            text in any::<String>(),
            words in prop::collection::vec("a\\.|@|\\$ORIGIN|DNSKEY|257|3|13|AAAA|\\(|\\)|\"|;|\n| |\\\\", 0..30),
        ) {
            let _ = read(&text);
            for key in read(&words.join(" ")).unwrap_or_default() {
                let _ = (key.tag(), key.ds(), key.algorithm());
            }
        }
    }
}
