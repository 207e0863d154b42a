//! `tlsa`: what DNS is to say of a server's key.

use camino::Utf8PathBuf;
use serde_json::json;

use crate::cli::failure::Failure;
use crate::cli::make;
use crate::cli::report::{Report, columns};
use crate::dns::RecordData;
use crate::keys::{PemItem, pem_items};
use crate::names::{Digest, shown};
use crate::pki::Certificate;

/// `tlsa`
#[derive(Debug, clap::Args)]
pub(super) struct Tlsa {
    /// A certificate, with or without its chain, or a public key, as PEM
    #[arg(value_name = "FILE")]
    file: Utf8PathBuf,
}

/// A chain of more octets no server sends.
const MAXIMUM: usize = 1024 * 1024;

/// `tlsa`
pub(super) fn tlsa(args: &Tlsa) -> Result<Report, Failure> {
    let file = &args.file;
    let content = make::read_given(file, MAXIMUM, "a certificate or a public key")?;
    let text = content.expose_str().unwrap_or_default();
    if text.contains("PRIVATE KEY-----") {
        let message = format!("`{}` holds a private key, which DNS is not to be told", shown(file.as_str()));
        let help = "name the certificate; or write the public half alone: openssl pkey -in KEY -pubout -out FILE";
        return Err(Failure::input("tlsa-private", message, help));
    }
    let items = pem_items(content.expose()).unwrap_or_default();
    // The server's own certificate is the first of its chain.
    let spki = items.into_iter().find_map(|item| match item {
        PemItem::Certificate(der) => Some(Certificate::from_der(der).map(|leaf| leaf.facts().spki.clone()).ok()),
        PemItem::PublicKey(spki) => Some(Some(spki)),
        _ => None,
    });
    let Some(spki) = spki.flatten() else {
        let message = format!("`{}` holds neither a certificate nor a public key as PEM", shown(file.as_str()));
        return Err(Failure::input(
            "tlsa-refused",
            message,
            "name the certificate that port 25 shows, such as fullchain.pem",
        ));
    };
    let digest = Digest::of(&spki);
    let (record, setting) = (RecordData::Tlsa(digest).to_string(), format!("mx_spki = [\"{digest}\"]"));
    let rows = [
        ["sha-256", &digest.to_string()],
        ["record", &format!("_25._tcp.HOST. IN TLSA {record}")],
        ["setting", &setting],
    ];
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|&cell| cell.to_owned()).collect()).collect();
    let text = columns(&rows)
        + "Write the setting below the [[host]]; `postseal dns` gives the record. A next key stands in the list beside the present one\n\
           for two TTLs before port 25 shows it (docs/dns.md).\n";
    Ok(Report::fine(text, json!({ "spki_sha256": digest.to_string(), "record": record, "setting": setting })))
}
