//! `ds`: what the zone above is to be told of a signed zone's keys.

use std::fmt::Write as _;

use camino::Utf8PathBuf;
use serde_json::json;

use crate::cli::failure::Failure;
use crate::cli::make;
use crate::cli::report::Report;
use crate::dns::ds::{self, DnsKey, Standing};
use crate::names::shown;

/// `ds`
#[derive(Debug, clap::Args)]
pub(super) struct Ds {
    /// A zone file or a part of one with the zone's DNSKEY records, such as K*.key of BIND
    #[arg(value_name = "FILE")]
    file: Utf8PathBuf,
}

/// A zone file of more octets is no part of one.
const MAXIMUM: usize = 1024 * 1024;

const WHERE: &str =
    "name a file that holds the zone's DNSKEY records: K*.key, or what `dig +noall +answer DOMAIN DNSKEY` says";

/// `ds`
pub(super) fn ds(args: &Ds) -> Result<Report, Failure> {
    let file = &args.file;
    let content = make::read_given(file, MAXIMUM, "the zone's DNSKEY records")?;
    let text = content.expose_str().unwrap_or_default();
    if text.contains("Private-key-format:") || text.contains("PRIVATE KEY-----") {
        let message = format!("`{}` holds a private key, which nobody needs to be told", shown(file.as_str()));
        return Err(Failure::input("dnskey-private", message, "name the file with the public half beside it: K*.key"));
    }
    let refused = |why: &str| {
        let message = format!("`{}` holds no DNSKEY record that can be read: {why}", shown(file.as_str()));
        Failure::input("dnskey-refused", message, WHERE)
    };
    let keys = ds::read(text).map_err(|fault| refused(&fault.to_string()))?;
    if keys.is_empty() {
        return Err(refused("there is none"));
    }
    let signing: Vec<&DnsKey> = keys.iter().filter(|key| key.signs_keys()).collect();
    if signing.is_empty() {
        return Err(refused("of none the flags are 257, as those of a key that signs keys are"));
    }
    let json = signing.iter().map(|key| {
        let (name, standing) = key.algorithm();
        json!({
            "zone": key.zone,
            "key_tag": key.tag(),
            "algorithm": key.algorithm,
            "algorithm_name": name,
            "digest_type": 2,
            "digest": key.digest().to_string(),
            "ds": key.ds(),
            "cds": key.ds(),
            "cdnskey": key.dnskey(),
            "advice": advice(key, standing),
        })
    });
    Ok(Report::fine(told(&signing), json!({ "keys": json.collect::<Vec<_>>() })))
}

fn told(keys: &[&DnsKey]) -> String {
    let mut text = String::new();
    for key in keys {
        let (zone, (name, standing)) = (&key.zone, key.algorithm());
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "Key {tag} of {zone}, algorithm {number} ({name}): {advice}\n\
             {zone} IN DS {ds}\n\
             {zone} IN CDS {ds}\n\
             {zone} IN CDNSKEY {dnskey}\n\n",
            tag = key.tag(),
            number = key.algorithm,
            advice = advice(key, standing),
            ds = key.ds(),
            dnskey = key.dnskey()
        );
    }
    text.push_str(TO_DO);
    text
}

const TO_DO: &str = "\
1. Have every name server answer with signatures first, and wait until the longest TTL of the unsigned zone is over.
2. Give the DS record to where the domain is registered: it asks for key tag, algorithm, digest type (2) and digest, or for the key.
   A registry that reads CDS and CDNSKEY (RFC 7344, RFC 8078) takes them from your zone instead; most name servers publish them.
3. A key that signs keys changes seldom, and only then the DS: publish the new key, wait a TTL of the DNSKEY records, add its DS, wait
   a TTL of the DS records, then remove the old DS, and a TTL later the old key.
4. To go back: remove the DS first, wait its TTL, and only then stop to sign.
";

fn advice(key: &DnsKey, standing: Standing) -> String {
    match (standing, key.rsa_bits()) {
        (Standing::Good, _) => "a good choice.".to_owned(),
        (Standing::Fine, _) => "fine; a new key may be of algorithm 13.".to_owned(),
        (Standing::Dated, Some(bits)) if bits < 2048 => {
            format!("{bits} bits are too few; make the next key of algorithm 13.")
        }
        (Standing::Dated, _) => "not for new keys; make the next key of algorithm 13.".to_owned(),
        (Standing::Forbidden, _) => {
            "must not sign any more: resolvers take the zone for unsigned; make a key of algorithm 13.".to_owned()
        }
        (Standing::Unknown, _) => "not known here: ask whether resolvers know it; algorithm 13 they all do.".to_owned(),
    }
}
