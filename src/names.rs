//! Names that cannot hold a bad value: domains, hosts, mailboxes, selectors, devices, paths.
//!
//! A rule on one value lives in that value's `FromStr`; whoever holds the type needs no further check. Nothing here knows
//! files, settings or other names.

use std::fmt;
use std::str::FromStr;

use camino::{Utf8Path, Utf8PathBuf};

/// Why a text is no name of the wanted kind: what is wrong, and how to mend it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}; {mend}")]
pub struct NameError {
    /// What is wrong, in lower case without a full stop.
    pub problem: String,
    /// What to write instead.
    pub mend: String,
}

fn refuse(problem: impl Into<String>, mend: impl Into<String>) -> NameError {
    NameError { problem: problem.into(), mend: mend.into() }
}

/// Implements the traits that every name shares: `Display`, `AsRef<str>`, and serde through `FromStr`.
macro_rules! name {
    ($type:ident) => {
        impl $type {
            /// Returns the name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

/// A domain of two or more labels in lower-case A-label form, without the final dot (RFC 1035 §2.3.1, RFC 5890 §2.3.1).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainName(String);
name!(DomainName);

impl FromStr for DomainName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        checked_domain(text).map(Self)
    }
}

impl DomainName {
    /// Tells whether this name is `other` or lies below it.
    pub fn is_within(&self, other: &Self) -> bool {
        self.0.strip_suffix(other.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }
}

/// A name that records stand at: a domain name of which labels but the last two may begin with `_`, as `_spf.example.com`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordName(String);
name!(RecordName);

impl FromStr for RecordName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        // What a label has behind its underscore is one as others have.
        let plain: Vec<&str> = text.split('.').map(|label| label.strip_prefix('_').unwrap_or(label)).collect();
        let name = checked_domain(&plain.join("."))?;
        let underscored = text.split('.').map(|label| label.starts_with('_'));
        let labels: Vec<String> = name
            .split('.')
            .zip(underscored)
            .map(|(label, underscored)| if underscored { format!("_{label}") } else { label.to_owned() })
            .collect();
        let name = labels.join(".");
        if name.len() > 253
            || labels.iter().any(|label| label.len() > 63)
            || labels.iter().rev().take(2).any(|label| label.starts_with('_'))
        {
            return Err(refuse(
                format!("`{}` is no name of a record", shown(text)),
                "write a name such as _spf.example.com, of at most 253 characters, its labels of at most 63",
            ));
        }
        Ok(Self(name))
    }
}

/// The name of one host: a domain name that has addresses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostName(String);
name!(HostName);

impl FromStr for HostName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let name = checked_domain(text)?;
        if name.len() > HOST_NAME_LIMIT {
            return Err(refuse(
                format!("`{}` is longer than {HOST_NAME_LIMIT} characters", shown(text)),
                "write a shorter name: Linux has none that is longer, and OpenSMTPD would cut it off",
            ));
        }
        Ok(Self(name))
    }
}

/// HOST_NAME_MAX of Linux. OpenSMTPD cuts a longer name off in its greeting and says nothing of it, not even with `-n`.
const HOST_NAME_LIMIT: usize = 64;

impl HostName {
    /// Returns the same name as a domain.
    pub fn as_domain(&self) -> DomainName {
        DomainName(self.0.clone())
    }
}

fn checked_domain(text: &str) -> Result<String, NameError> {
    let shown = shown(text);
    if text.is_empty() {
        return Err(refuse("a domain name is missing", "write a name such as example.com"));
    }
    let ascii;
    let text = if text.is_ascii() {
        text
    } else {
        ascii = a_labels(text)?;
        &ascii
    };
    if text.ends_with('.') {
        return Err(refuse(format!("`{shown}` ends in a dot"), "write the name without the final dot"));
    }
    if text.len() > 253 {
        return Err(refuse("a domain name has at most 253 characters", "write a shorter name"));
    }
    let name = text.to_ascii_lowercase();
    let labels: Vec<&str> = name.split('.').collect();
    if let Some(label) = labels.iter().find(|label| !is_label(label)) {
        return Err(refuse(
            format!("`{}` is no label of a domain name", self::shown(label)),
            "a label has 1 to 63 letters, digits or hyphens and neither begins nor ends with a hyphen",
        ));
    }
    let Some(last) = labels.last().filter(|_| labels.len() >= 2) else {
        return Err(refuse(format!("`{shown}` has one label only"), "write the whole name, such as example.com"));
    };
    if last.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(refuse(
            format!("`{shown}` ends in a number, as an IP address does"),
            "write a domain name; addresses have settings of their own",
        ));
    }
    Ok(name)
}

/// Turns an internationalised name into its A-label form (RFC 5891 §4.4). A name that is shown otherwise than it is written, as
/// with characters that are not seen, is refused: nobody could tell what they see in the records.
fn a_labels(text: &str) -> Result<String, NameError> {
    let shown = shown(text);
    // Of what is no letter and no digit much looks like something else, or like nothing (RFC 5892 §2).
    let is_plain = text.len() <= 1_000 && text.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '.');
    let refused = |mend: String| refuse(format!("`{shown}` is no internationalised domain name"), mend);
    let ascii = Some(text)
        .filter(|_| is_plain)
        .and_then(|text| idna::domain_to_ascii_strict(text).ok())
        .ok_or_else(|| refused("write it in its A-label form (xn--...), as a registrar shows it".to_owned()))?;
    let (plain, faults) = idna::domain_to_unicode(&ascii);
    if faults.is_err() || plain != text.to_lowercase() {
        return Err(refused(format!("did you mean `{ascii}`?")));
    }
    Ok(ascii)
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// A mailbox: a dot-atom local part and a domain, both in lower case (RFC 5321 §4.1.2).
///
/// Of the characters that RFC 5322 allows in a local part, those stay out that a shell, a template, a table file or
/// OpenSMTPD's own expansion gives a meaning to. OpenSMTPD compares local parts without regard to case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MailAddress {
    text: String,
    at: usize,
}

impl MailAddress {
    /// Returns the whole address, `local@domain`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the part before the `@`.
    pub fn local_part(&self) -> &str {
        self.text.get(..self.at).unwrap_or_default()
    }

    /// Returns the domain.
    pub fn domain(&self) -> DomainName {
        DomainName(self.text.get(self.at + 1..).unwrap_or_default().to_owned())
    }

    /// Returns the address as a URI (RFC 6068 §2): what stands for itself neither there nor in a list of URIs in a record (`,`, `!`,
    /// `;`) becomes its number.
    pub fn to_uri(&self) -> String {
        let stands = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+'".contains(&byte);
        let local = self
            .local_part()
            .bytes()
            .map(|byte| if stands(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") });
        format!("mailto:{}@{}", local.collect::<String>(), self.domain())
    }

    /// Returns the address as one path component: `/` becomes `%2f`, and of an address that leaves no room for the extension of
    /// a file within 255 octets the end becomes a `~` and its digest. Neither `%` nor `~` stands in an address.
    pub fn path_component(&self) -> String {
        let whole = self.text.replace('/', "%2f");
        let limit = COMPONENT_LIMIT - 17;
        match whole.get(..limit).filter(|_| whole.len() > COMPONENT_LIMIT) {
            Some(begin) => format!("{begin}~{}", Digest::of(self.text.as_bytes()).short()),
            None => whole,
        }
    }

    /// Returns the address that has this path component, if one has.
    pub fn of_path_component(name: &str) -> Option<Self> {
        let address: Self = name.replace("%2f", "/").parse().ok()?;
        (address.path_component() == name).then_some(address)
    }
}

/// A component of a path has 255 octets; the rest is for what stands behind it, as `-apple.p12` does.
const COMPONENT_LIMIT: usize = 200;

/// Addresses sort by domain first, so that a domain's mailboxes stand together.
impl Ord for MailAddress {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let ((local, domain), (other_local, other_domain)) =
            (self.text.split_at(self.at), other.text.split_at(other.at));
        (domain, local).cmp(&(other_domain, other_local))
    }
}

impl PartialOrd for MailAddress {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl FromStr for MailAddress {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let shown = shown(text);
        let Some((local, domain)) = text.rsplit_once('@') else {
            return Err(refuse(format!("`{shown}` has no @"), "write an address such as alice@example.com"));
        };
        if let Some(bad) = local.chars().find(|c| !c.is_ascii_alphanumeric() && !"._+-=/'".contains(*c)) {
            return Err(refuse(
                format!("`{}` may not stand in the local part of `{shown}`", bad.escape_default()),
                "a local part has ASCII letters, digits and . _ + - = / '",
            ));
        }
        if !(1..=64).contains(&local.len()) {
            return Err(refuse(
                format!("the local part of `{shown}` is empty or too long"),
                "write 1 to 64 characters before the @",
            ));
        }
        if local.starts_with(['-', '.', '/']) || local.ends_with('.') || local.contains("..") {
            return Err(refuse(
                format!("the local part of `{shown}` is no dot-atom"),
                "begin it with a letter or digit; single dots stand between characters only",
            ));
        }
        let domain = checked_domain(domain)?;
        if local.len() + 1 + domain.len() > 254 {
            return Err(refuse("an address has at most 254 characters", "write a shorter address"));
        }
        Ok(Self { text: format!("{}@{domain}", local.to_ascii_lowercase()), at: local.len() })
    }
}

impl AsRef<str> for MailAddress {
    fn as_ref(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for MailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl serde::Serialize for MailAddress {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> serde::Deserialize<'de> for MailAddress {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <String as serde::Deserialize>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A DKIM selector: one lower-case label (RFC 6376 §3.1, narrowed to what every DNS panel takes).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector(String);
name!(Selector);

impl FromStr for Selector {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if is_label(text) {
            return Ok(Self(text.to_owned()));
        }
        Err(refuse(
            format!("`{}` is no selector", shown(text)),
            "a selector has 1 to 63 lower-case letters, digits or hyphens and neither begins nor ends with a hyphen",
        ))
    }
}

/// What a user calls one of their devices: `laptop`, `phone`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceName(String);
name!(DeviceName);

/// The device of a user who has only one.
impl Default for DeviceName {
    fn default() -> Self {
        Self("default".to_owned())
    }
}

impl FromStr for DeviceName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if is_label(text) && text.len() <= 32 {
            return Ok(Self(text.to_owned()));
        }
        Err(refuse(
            format!("`{}` is no device name", shown(text)),
            "a device name has 1 to 32 lower-case letters, digits or hyphens, such as laptop or phone",
        ))
    }
}

/// An absolute path of plain characters, without `.` and `..` components.
///
/// The alphabet is narrow on purpose: such a path stands unquoted and unchanged in smtpd.conf, UCL and a shell.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AbsolutePath(Utf8PathBuf);

impl AbsolutePath {
    /// Returns the path.
    pub fn as_path(&self) -> &Utf8Path {
        &self.0
    }

    /// Returns the path as text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl FromStr for AbsolutePath {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let shown = shown(text);
        if !text.starts_with('/') {
            return Err(refuse(format!("`{shown}` is no absolute path"), "begin it with /"));
        }
        if let Some(bad) = text.chars().find(|c| !c.is_ascii_alphanumeric() && !"/._-".contains(*c)) {
            return Err(refuse(
                format!("`{}` may not stand in the path `{shown}`", bad.escape_default()),
                "use letters, digits and / . _ - only",
            ));
        }
        let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
        if text.len() > 255 || !text.split('/').skip(1).all(plain) {
            return Err(refuse(
                format!("`{shown}` is no plain path to a file"),
                "write at most 255 characters, no empty, `.` or `..` component, and no / at the end",
            ));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for AbsolutePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0.as_str())
    }
}

impl<'de> serde::Deserialize<'de> for AbsolutePath {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <String as serde::Deserialize>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The serial number of a certificate: 16 octets, positive (RFC 5280 §4.1.2.2 allows 20 octets at most).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial([u8; 16]);

impl Serial {
    /// Makes a serial of 126 random bits: the first bit is cleared to stay positive, the second set to stay 16 octets long.
    pub fn from_random(mut octets: [u8; 16]) -> Self {
        octets[0] = (octets[0] & 0x7f) | 0x40;
        Self(octets)
    }

    /// Returns the octets, most significant first.
    pub fn octets(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl FromStr for Serial {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let wrong = || refuse(format!("`{}` is no serial", shown(text)), "a serial has 32 hexadecimal digits");
        let octets: [u8; 16] = unhex(text).and_then(|octets| octets.try_into().ok()).ok_or_else(wrong)?;
        if octets[0] & 0xc0 == 0x40 { Ok(Self(octets)) } else { Err(wrong()) }
    }
}

/// The SHA-256 digest of some content, written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Returns the digest of the bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
        let mut octets = [0; 32];
        octets.copy_from_slice(digest.as_ref());
        Self(octets)
    }

    /// Returns the octets.
    pub fn octets(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the first 16 hexadecimal digits: short enough for a file name, long enough to be unique in a site.
    pub fn short(&self) -> String {
        hex(&self.0[..8])
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let octets = unhex(text).and_then(|octets| octets.try_into().ok());
        octets
            .map(Self)
            .ok_or_else(|| refuse(format!("`{}` is no digest", shown(text)), "a digest has 64 hexadecimal digits"))
    }
}

/// Returns the bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Returns the bytes that lower-case hexadecimal digits stand for.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| if let [high, low] = pair { Some(digit(*high)? << 4 | digit(*low)?) } else { None }).collect()
}

/// Returns the text as one word of a shell's command line (POSIX.1-2024, 2.2.2), for the commands that messages tell to run.
pub fn shell_word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@%:,=".contains(c);
    if !text.is_empty() && !text.starts_with('-') && text.chars().all(is_plain) {
        return text.to_owned();
    }
    // A word that begins like an option is a path all the same.
    let dot = if text.starts_with('-') { "./" } else { "" };
    format!("{dot}'{}'", text.replace('\'', r"'\''"))
}

/// Tells whether a character is seen as nothing, or turns the text around it: Unicode's Default_Ignorable_Code_Point and general
/// category Cf, line separators, and the blank of Braille.
pub fn is_hidden(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{115f}' | '\u{1160}'
        | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
        | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// Returns the text as it may stand in a message: control and hidden characters escaped, at most 80 characters.
pub fn shown(text: &str) -> String {
    visible_within(text, 80, |_| false)
}

/// Returns the whole text on one line: control and hidden characters escaped.
pub fn visible(text: &str) -> String {
    visible_within(text, usize::MAX, |_| false)
}

/// Returns at most `most` characters of a text, with control and hidden characters escaped but those that are kept.
pub fn visible_within(text: &str, most: usize, keep: impl Fn(char) -> bool) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    for c in chars.by_ref().take(most) {
        if !keep(c) && (c.is_control() || is_hidden(c)) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    if chars.next().is_some() {
        out.push_str("...");
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn domain_names_are_lowered_and_bounded() {
        assert_eq!("Example.COM".parse::<DomainName>().unwrap().as_str(), "example.com");
        let long = format!("{}.com", ["a"; 130].join("."));
        for bad in
            ["", "com", "example.com.", "-a.com", "a-.com", "a..com", "ex ample.com", "1.2.3.4", "a_b.com", &long]
        {
            assert!(bad.parse::<DomainName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_internationalised_name_becomes_what_dns_has_unless_it_is_not_what_it_looks_like() {
        for (text, expected) in [
            ("münchen.example", Ok("xn--mnchen-3ya.example")),
            ("MÜNCHEN.Example", Ok("xn--mnchen-3ya.example")),
            ("xn--mnchen-3ya.example", Ok("xn--mnchen-3ya.example")),
            ("例え.テスト", Ok("xn--r8jz45g.xn--zckzah")),
            // A soft hyphen, letters of full width, a zero-width joiner, a full stop of another script.
            ("exam\u{ad}ple.com", Err("write it in its A-label form (xn--...), as a registrar shows it")),
            ("example\u{2800}.com", Err("write it in its A-label form (xn--...), as a registrar shows it")),
            ("\u{ff45}xample.com", Err("did you mean `example.com`?")),
            ("ex\u{200d}ample.com", Err("write it in its A-label form (xn--...), as a registrar shows it")),
            ("münchen。example", Err("write it in its A-label form (xn--...), as a registrar shows it")),
            ("a_ü.com", Err("write it in its A-label form (xn--...), as a registrar shows it")),
        ] {
            let parsed = text.parse::<DomainName>();
            let parsed = parsed.as_ref().map(DomainName::as_str).map_err(|error| error.mend.as_str());
            assert_eq!(parsed, expected, "{text:?}");
        }
        assert_eq!("alice@münchen.example".parse::<MailAddress>().unwrap().as_str(), "alice@xn--mnchen-3ya.example");
        assert!(format!("{}.example", "ü".repeat(2_000)).parse::<DomainName>().is_err());
    }

    #[test]
    fn a_record_may_stand_below_names_that_begin_with_an_underscore() {
        for good in ["_spf.example.com", "a._b.example.com", "example.com", "_SPF.Example.com"] {
            assert_eq!(good.parse::<RecordName>().unwrap().as_str(), good.to_ascii_lowercase());
        }
        let long = format!("_{}.example.com", "a".repeat(63));
        for bad in ["__a.example.com", "_.example.com", "a_b.example.com", "_example.com", "a._com", &long] {
            assert!(bad.parse::<RecordName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn mail_addresses_refuse_what_a_table_or_shell_would_read() {
        let address = "Alice.B+list@Example.com".parse::<MailAddress>().unwrap();
        assert_eq!(
            (address.as_str(), address.local_part(), address.domain().as_str()),
            ("alice.b+list@example.com", "alice.b+list", "example.com")
        );
        for bad in [
            "alice",
            "@example.com",
            "a b@example.com",
            "a:b@example.com",
            "a,b@example.com",
            "#a@example.com",
            "a\n@example.com",
            "..@example.com",
            ".a@example.com",
            "a.@example.com",
            "-a@example.com",
            "{{x}}@example.com",
            "$x@example.com",
            "a\"b@example.com",
            "a@b@c.com",
            "a@localhost",
        ] {
            assert!(bad.parse::<MailAddress>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_slash_in_a_local_part_cannot_leave_the_directory() {
        assert_eq!("a/../b@example.com".parse::<MailAddress>().err().map(|e| e.problem.is_empty()), Some(false));
        assert_eq!("a/b@example.com".parse::<MailAddress>().unwrap().path_component(), "a%2fb@example.com");
    }

    #[test]
    fn the_longest_addresses_are_path_components_with_room_for_an_extension() {
        let label = "a".repeat(60);
        let domain = format!("{label}.{label}.{label}.com");
        let component = |local: &str| format!("{local}@{domain}").parse::<MailAddress>().unwrap().path_component();
        let (one, other) = (component(&format!("a{}", "/".repeat(62))), component(&format!("a{}b", "/".repeat(62))));
        assert_eq!((one.len(), other.len()), (200, 200));
        assert_ne!(one, other);
        assert!(!one.contains('/'));
    }

    #[test]
    fn a_host_name_is_one_that_linux_knows() {
        let name = |length: usize| format!("{}.{}.com", "a".repeat(length - 55), "b".repeat(50)).parse::<HostName>();
        assert!(name(64).is_ok() && name(65).is_err());
    }

    #[test]
    fn paths_are_absolute_and_plain() {
        assert!("/etc/ssl/mail.example.com.pem".parse::<AbsolutePath>().is_ok());
        for bad in ["", "etc", "/", "/a//b", "/a/../b", "/a/./b", "/a/", "/a b", "/a\"b", "/a$b", "/ä"] {
            assert!(bad.parse::<AbsolutePath>().is_err(), "{bad}");
        }
    }

    #[test]
    fn serials_are_positive_and_always_sixteen_octets() {
        for octets in [[0; 16], [0xff; 16]] {
            let serial = Serial::from_random(octets);
            assert!(serial.octets()[0] >= 0x40 && serial.octets()[0] < 0x80);
            assert_eq!(serial.to_string().parse::<Serial>().unwrap(), serial);
        }
        assert!("00000000000000000000000000000000".parse::<Serial>().is_err());
    }

    #[test]
    fn hidden_characters_are_shown_escaped() {
        assert_eq!(shown("a\u{202e}b\u{2028}\n\0"), "a\\u{202e}b\\u{2028}\\n\\u{0}");
    }
}
