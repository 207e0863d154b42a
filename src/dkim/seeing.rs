//! What authoritative name servers are asked about records that something waits for, and what they say. The asking is `env`'s.

use std::collections::BTreeSet;

use crate::dkim::rotation::Sighting;
use crate::names::HostName;

/// A record that is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Its name, without a dot at its end.
    pub name: String,
    /// What it must hold for others to act on it.
    pub wanted: WantedRecord,
}

/// What a record must say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WantedRecord {
    /// This DKIM key: the `k=` and the `p=` tag.
    Key {
        /// `rsa` or `ed25519`.
        algorithm: &'static str,
        /// In base64.
        public: String,
    },
    /// That the DKIM key is revoked: an empty `p=`, or no record at all.
    Revoked,
    /// These hosts, in MX records of whatever preference.
    Mx(BTreeSet<HostName>),
    /// A policy: the one TXT record there that begins with this one's version says the same. Others do not matter.
    Policy(String),
}

/// What the servers say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// In all.
    pub sighting: Sighting,
    /// Every server that does not have it, by name, with the reason.
    pub lacking: Vec<(String, String)>,
}

impl WantedRecord {
    /// Tells whether MX records are asked for, and not TXT records.
    pub fn is_mx(&self) -> bool {
        matches!(self, Self::Mx(_))
    }

    /// Tells what keeps others from acting on the records at the name: TXT records, each with its strings joined (RFC 6376 §3.6.2.2),
    /// or the names that MX records have; none if nothing does.
    ///
    /// Tags are compared, not octets: an administrator may add notes (`n=`), leave out what is the default, and break base64
    /// into lines. What narrows the use of the key is told: a test (`t=y`) is to be treated as unsigned mail by receivers, and a
    /// record for other services or hashes verifies nothing.
    pub fn fault(&self, records: &[Vec<u8>]) -> Option<&'static str> {
        match (self, records) {
            (Self::Revoked, records) => {
                records.iter().any(|record| holds_key(record)).then_some("still has a key there")
            }
            (Self::Key { .. }, []) => Some("has no such record"),
            (Self::Key { algorithm, public }, [record]) => key_fault(record, algorithm, public),
            (Self::Key { .. }, [_, _, ..]) => Some("has several TXT records there"),
            (Self::Mx(hosts), records) => mx_fault(hosts, records),
            (Self::Policy(text), records) => policy_fault(text, records),
        }
    }
}

/// Tells whether a receiver could take a key out of a record, also one that reads it laxly.
fn holds_key(record: &[u8]) -> bool {
    let text = String::from_utf8_lossy(record);
    text.split(';')
        .any(|tag| tag.split_once('=').is_some_and(|(name, value)| trim(name) == "p" && !bare(value).is_empty()))
}

fn key_fault(record: &[u8], algorithm: &str, public: &str) -> Option<&'static str> {
    let text = String::from_utf8_lossy(record);
    let Some(tags) = tags(&text) else { return Some("has a TXT record there that is no DKIM record") };
    let value = |wanted: &str| tags.iter().find(|(name, _)| *name == wanted).map(|(_, value)| *value);
    let lists = |list: &str, wanted: &str| list.split(':').any(|item| trim(item) == wanted);
    let version = tags.iter().position(|(name, _)| *name == "v");
    let is_first = version.is_none_or(|at| at == 0) && value("v").is_none_or(|version| version == "DKIM1");
    let Some(found) = value("p").map(bare).filter(|_| is_first) else {
        return Some("has a TXT record there that is no DKIM record");
    };
    if found.is_empty() {
        return Some("says that the key is revoked");
    }
    // Padding tells nothing, and not every tool writes it.
    let is_same = found.trim_end_matches('=') == public.trim_end_matches('=');
    if !is_same || value("k").unwrap_or("rsa") != algorithm {
        return Some("has another key");
    }
    if value("h").is_some_and(|hashes| !lists(hashes, "sha256")) {
        return Some("has the key, but not for sha256 (h=)");
    }
    if value("s").is_some_and(|services| !lists(services, "email") && !lists(services, "*")) {
        return Some("has the key, but not for mail (s=)");
    }
    value("t").is_some_and(|flags| lists(flags, "y")).then_some("has the key, but only as a test (t=y)")
}

fn mx_fault(hosts: &BTreeSet<HostName>, records: &[Vec<u8>]) -> Option<&'static str> {
    let found: BTreeSet<String> = records
        .iter()
        .map(|record| String::from_utf8_lossy(record).trim_end_matches('.').to_ascii_lowercase())
        .collect();
    let is_there = |host: &HostName| found.contains(host.as_str());
    match hosts.iter().filter(|host| is_there(host)).count() {
        count if count < hosts.len() => Some("lacks an MX record"),
        count if count < found.len() => Some("has an MX record that is to go"),
        _ => None,
    }
}

/// Tells what keeps a policy from being the one that is wanted. There must be one of its kind (RFC 7208 §4.5, RFC 9989 §4.10.1,
/// RFC 8461 §3.1); order and white space between tags are not compared, of SPF the order of terms is.
fn policy_fault(wanted: &str, records: &[Vec<u8>]) -> Option<&'static str> {
    let version = |text: &str| text.split([';', ' ']).next().unwrap_or_default().to_owned();
    let of_kind = |record: &&Vec<u8>| version(&String::from_utf8_lossy(record)) == version(wanted);
    let found: Vec<String> =
        records.iter().filter(of_kind).map(|record| String::from_utf8_lossy(record).into_owned()).collect();
    match found.as_slice() {
        [] => Some("has no such record"),
        [one] if says_the_same(wanted, one) => None,
        [_] => Some("has another policy"),
        _ => Some("has several such records"),
    }
}

fn says_the_same(wanted: &str, found: &str) -> bool {
    if wanted.starts_with("v=spf1") {
        let terms = |text: &str| text.split(' ').filter(|term| !term.is_empty()).map(str::to_ascii_lowercase).collect();
        let (one, other): (Vec<String>, Vec<String>) = (terms(wanted), terms(found));
        return one == other;
    }
    let sorted = |text| {
        let mut tags: Vec<(&str, &str)> = tags(text)?;
        tags.sort_unstable();
        Some(tags)
    };
    sorted(wanted).is_some_and(|tags| sorted(found) == Some(tags))
}

/// Reads a list of tags (RFC 6376 §3.2); none if it is no such list, or has a tag twice.
fn tags(text: &str) -> Option<Vec<(&str, &str)>> {
    let text = trim(text);
    let list = text.strip_suffix(';').unwrap_or(text);
    let mut tags: Vec<(&str, &str)> = Vec::new();
    for tag in list.split(';') {
        let (name, value) = tag.split_once('=').map(|(name, value)| (trim(name), trim(value)))?;
        let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !is_name || tags.iter().any(|(known, _)| *known == name) {
            return None;
        }
        tags.push((name, value));
    }
    Some(tags)
}

fn is_white(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

fn trim(text: &str) -> &str {
    text.trim_matches(is_white)
}

/// The value without white space, which base64 may hold anywhere (RFC 6376 §2.10).
fn bare(value: &str) -> String {
    value.chars().filter(|c| !is_white(*c)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: &str = "has no such record";
    const SEVERAL: &str = "has several TXT records there";
    const NO_DKIM: &str = "has a TXT record there that is no DKIM record";
    const REVOKED: &str = "says that the key is revoked";
    const OTHER: &str = "has another key";

    fn fault(wanted: &WantedRecord, records: &[&str]) -> Option<&'static str> {
        wanted.fault(&records.iter().map(|record| record.as_bytes().to_vec()).collect::<Vec<_>>())
    }

    #[test]
    fn a_record_counts_by_what_its_tags_say() {
        let rsa = WantedRecord::Key { algorithm: "rsa", public: "MIIBIjAN+/==".to_owned() };
        let hashes = Some("has the key, but not for sha256 (h=)");
        let services = Some("has the key, but not for mail (s=)");
        for (record, expected) in [
            ("v=DKIM1; k=rsa; h=sha256; p=MIIBIjAN+/==", None),
            ("p=MIIBIjAN+/==", None),
            ("p=MIIBIjAN+/", None),
            (" v = DKIM1 ;\tk = rsa ; p = MII BIj\r\n AN+/= = ; ", None),
            ("v=DKIM1;p=MIIBIjAN+/==;n=by hand, 2026;t=s;s=*;x=unknown", None),
            ("v=DKIM1; h=sha1:sha256; s=tlsrpt : email; p=MIIBIjAN+/==", None),
            ("v=DKIM1; n=caf\u{e9}; p=MIIBIjAN+/==", None),
            ("v=DKIM1; k=ed25519; p=MIIBIjAN+/==", Some(OTHER)),
            ("v=DKIM1; k=RSA; p=MIIBIjAN+/==", Some(OTHER)),
            ("v=DKIM1; k=rsa; p=MIIBIjAN+0==", Some(OTHER)),
            ("v=DKIM1; k=rsa; p=miibijan+/==", Some(OTHER)),
            ("v=DKIM1; k=rsa; p=MIIBIjAN", Some(OTHER)),
            ("v=DKIM1; k=rsa; p=", Some(REVOKED)),
            ("v=DKIM1; k=rsa; p= ;", Some(REVOKED)),
            ("v=DKIM1; h=sha1; p=MIIBIjAN+/==", hashes),
            ("v=DKIM1; s=tlsrpt; p=MIIBIjAN+/==", services),
            ("v=DKIM1; t=s:y; p=MIIBIjAN+/==", Some("has the key, but only as a test (t=y)")),
            ("v=DKIM2; p=MIIBIjAN+/==", Some(NO_DKIM)),
            ("v=dkim1; p=MIIBIjAN+/==", Some(NO_DKIM)),
            ("k=rsa; v=DKIM1; p=MIIBIjAN+/==", Some(NO_DKIM)),
            ("v=DKIM1; k=rsa", Some(NO_DKIM)),
            ("v=DKIM1; p=MIIBIjAN+/==; p=MIIBIjAN+/==", Some(NO_DKIM)),
            ("v=DKIM1;; p=MIIBIjAN+/==", Some(NO_DKIM)),
            ("v=DKIM1 p=MIIBIjAN+/==", Some(NO_DKIM)),
            ("v=spf1 -all", Some(NO_DKIM)),
            ("\"v=DKIM1; p=MIIBIjAN+/==\"", Some(NO_DKIM)),
            ("=", Some(NO_DKIM)),
            ("", Some(NO_DKIM)),
        ] {
            assert_eq!(fault(&rsa, &[record]), expected, "{record:?}");
        }
        assert_eq!(fault(&rsa, &[]), Some(NONE));
        assert_eq!(fault(&rsa, &["p=MIIBIjAN+/==", "p=MIIBIjAN+/=="]), Some(SEVERAL));
        assert_eq!(fault(&rsa, &["p=MIIBIjAN+/==", "v=spf1 -all"]), Some(SEVERAL));
        assert_eq!(rsa.fault(&[b"v=DKIM1; n=\xff\xfe; p=MIIBIjAN+/==".to_vec()]), None, "a note is in any encoding");
        let ed25519 = WantedRecord::Key { algorithm: "ed25519", public: "11qYAYKx=".to_owned() };
        assert_eq!(fault(&ed25519, &["v=DKIM1; k=ed25519; p=11qYAYKx="]), None);
        assert_eq!(fault(&ed25519, &["v=DKIM1; p=11qYAYKx="]), Some(OTHER), "without k= it is RSA");
    }

    #[test]
    fn a_key_is_revoked_where_nobody_can_take_it_from_a_record() {
        let still = Some("still has a key there");
        for (records, expected) in [
            (&[][..], None),
            (&["v=DKIM1; k=rsa; p="], None),
            (&["v=DKIM1; p= ; n=revoked"], None),
            (&["v=DKIM1; p=", "v=spf1 -all"], None),
            (&["v=DKIM1; p=MIIB"], still),
            (&["v=DKIM1; p=", "v=DKIM1; p=MIIB"], still),
            (&["v=DKIM1;; p = MIIB"], still),
        ] {
            assert_eq!(fault(&WantedRecord::Revoked, records), expected, "{records:?}");
        }
    }

    #[test]
    fn a_policy_is_there_if_one_record_of_its_kind_says_the_same() {
        let of = |text: &str| WantedRecord::Policy(text.to_owned());
        let (dmarc, spf, sts) =
            (of("v=DMARC1; p=none; rua=mailto:d@example.com"), of("v=spf1 mx ~all"), of("v=STSv1; id=0a1b;"));
        let (other, several) = (Some("has another policy"), Some("has several such records"));
        for (wanted, records, expected) in [
            (&dmarc, &["v=DMARC1; p=none; rua=mailto:d@example.com"][..], None),
            (&dmarc, &["v=DMARC1;rua=mailto:d@example.com ;p = none;", "v=spf1 -all"], None),
            (&dmarc, &["v=DMARC1; p=quarantine; rua=mailto:d@example.com"], other),
            (&dmarc, &["v=DMARC1; p=none"], other),
            (&dmarc, &["v=DMARC1; p=none; rua=mailto:d@example.com; t=y"], other),
            (&dmarc, &["v=DMARC1; p=none; p=none; rua=mailto:d@example.com"], other),
            (&dmarc, &["v=DMARC1; p=none; rua=mailto:d@example.com", "v=DMARC1; p=reject"], several),
            (&dmarc, &["v=DMARC12; p=none; rua=mailto:d@example.com", "v=spf1 -all", ""], Some(NONE)),
            (&dmarc, &[], Some(NONE)),
            (&spf, &["google-site-verification=x", "v=spf1  MX ~all"], None),
            (&spf, &["v=spf1 ~all mx"], other),
            (&spf, &["v=spf1 mx -all"], other),
            (&spf, &["v=spf10 mx ~all"], Some(NONE)),
            (&spf, &["v=spf1 mx ~all", "v=spf1 mx ~all"], several),
            (&sts, &["v=STSv1; id=0a1b"], None),
            (&sts, &["v=STSv1; id=0A1B;"], other),
            (&sts, &["v=TLSRPTv1; rua=mailto:d@example.com"], Some(NONE)),
        ] {
            assert_eq!(fault(wanted, records), expected, "{records:?}");
        }
    }

    #[test]
    fn mx_records_are_there_if_they_name_these_hosts_and_no_other() {
        let of = |hosts: &[&str]| WantedRecord::Mx(hosts.iter().map(|host| host.parse().unwrap()).collect());
        let two = of(&["a.example.com", "b.example.com"]);
        assert_eq!(fault(&two, &["B.example.com.", "a.example.com"]), None);
        assert_eq!(fault(&two, &["a.example.com"]), Some("lacks an MX record"));
        assert_eq!(fault(&two, &[]), Some("lacks an MX record"));
        let leaving = ["a.example.com", "b.example.com", "c.example.com"];
        assert_eq!(fault(&two, &leaving), Some("has an MX record that is to go"));
    }
}
