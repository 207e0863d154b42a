//! `export`: what the ledger knows, for other programs.

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::json;
use time::OffsetDateTime;

use crate::cli::failure::Failure;
use crate::cli::report::Report;
use crate::cli::session;
use crate::env::Env;
use crate::names::shown;
use crate::pki::Certificate;
use crate::pki::index::{Standing, line};
use crate::store::ledger::{CertificateRow, LedgerError};
use crate::store::{Store, StoreError, files};

/// `export`
#[derive(Debug, clap::Args)]
pub(super) struct Export {
    /// An index.txt of every certificate, as `openssl ca` and easy-rsa keep one
    #[arg(long, required = true)]
    pub(super) index: bool,
    /// The file to write, which must not exist; beside it comes FILE.attr [default: standard output]
    #[arg(value_name = "FILE")]
    pub(super) file: Option<Utf8PathBuf>,
}

/// Certificates of one name, as a renewed one and that which it replaces, are allowed there too.
const ATTRIBUTES: &str = "unique_subject = no\n";

/// `export`
pub(super) fn export(env: &dyn Env, site: Option<&Utf8Path>, args: &Export) -> Result<Report, Failure> {
    let store = Store::open(session::directory(site))?;
    let held_since = store.ledger().last_event("restored")?.unwrap_or_else(|| env.now());
    let (mut index, mut count, mut damaged) = (String::new(), 0_usize, None);
    store.ledger().each_certificate(|row| match one(row, held_since) {
        Some(line) => {
            index.push_str(&line);
            count += 1;
        }
        None => damaged = Some(row.serial.clone()),
    })?;
    if let Some(serial) = damaged {
        let what = format!("the certificate `{}`, which cannot be read", shown(&serial));
        return Err(StoreError::from(LedgerError::Damaged { what }).into());
    }
    let Some(file) = &args.file else {
        return Ok(Report::fine(index.clone(), json!({ "certificates": count, "index": index })));
    };
    let attributes = Utf8PathBuf::from(format!("{file}.attr"));
    if files::exists(&attributes)? {
        return Err(StoreError::Exists(attributes).into());
    }
    // It tells of everybody who is let in.
    files::write_new(file, index.as_bytes(), 0o600)?;
    files::write_new(&attributes, ATTRIBUTES.as_bytes(), 0o600)?;
    let json = json!({ "certificates": count, "file": file.as_str() });
    Ok(Report::fine(format!("wrote {file} and {attributes}: {count} certificates\n"), json))
}

fn one(row: &CertificateRow, held_since: OffsetDateTime) -> Option<String> {
    let certificate = Certificate::from_pem(&row.certificate).ok()?;
    let standing = match (row.status.as_str(), row.revoked_at, &row.reason) {
        ("live", ..) => Standing::Valid,
        ("expired", ..) => Standing::Expired,
        // Not admitted until it is confirmed, which RFC 5280 has a reason for.
        ("held", ..) => Standing::Revoked(held_since, "certificateHold"),
        (_, Some(at), Some(reason)) => Standing::Revoked(OffsetDateTime::from_unix_timestamp(at).ok()?, reason),
        _ => return None,
    };
    Some(line(&certificate, standing))
}
