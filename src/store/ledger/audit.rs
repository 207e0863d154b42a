//! The ledger as it lies there, row by row and as text, for the checks of `store::fsck`: nothing is taken for granted.

use rusqlite::Connection;

use super::read::all;
use super::{Ledger, LedgerError, STEPS};

/// A row of the table of certificates.
#[derive(Debug)]
pub struct CertificateRow {
    /// The serial.
    pub serial: String,
    /// `client`, `server`, `site_ca` or `issuing_ca`.
    pub kind: String,
    /// The fingerprint.
    pub fingerprint: String,
    /// The certificate as PEM, perhaps with others behind it.
    pub certificate: String,
    /// When it begins, in seconds since 1970.
    pub not_before: i64,
    /// When it ends.
    pub not_after: i64,
    /// `live`, `held`, `expired` or `revoked`.
    pub status: String,
    /// When it was revoked.
    pub revoked_at: Option<i64>,
    /// Why.
    pub reason: Option<String>,
    /// The serial of what took its place.
    pub superseded_by: Option<String>,
    /// The digest of its key, below state/keys.
    pub key: Option<String>,
    /// A server's host.
    pub host: Option<String>,
    /// A client's mailbox.
    pub address: Option<String>,
    /// A client's device.
    pub device: Option<String>,
    /// A client's own issuing CA as PEM.
    pub issuing: Option<String>,
    /// The twin of an issuing CA as PEM.
    pub twin: Option<String>,
    /// The serial of the issuing CA for all that issued it.
    pub issuer: Option<String>,
}

/// A key that the ledger refers to.
#[derive(Debug)]
pub struct KeyRow {
    /// What it is, in words.
    pub what: String,
    /// The digest that names it.
    pub digest: String,
    /// What the ledger tells of its public half: a DKIM record's `p=`, or the digest of the SubjectPublicKeyInfo.
    pub public: Option<String>,
}

/// A row of the table of CRLs.
#[derive(Debug)]
pub struct CrlRow {
    /// The serial of its issuing CA.
    pub issuer: String,
    /// Its number.
    pub number: i64,
    /// When it was made.
    pub this_update: i64,
    /// When it ends.
    pub next_update: i64,
    /// The CRL as PEM.
    pub pem: String,
}

const COLUMNS: &str = "serial, kind, fingerprint, certificate, not_before, not_after, status, revoked_at, reason,
                       superseded_by, key, host, address, device, issuing, twin, issuer";

impl Ledger {
    /// Shows every certificate to the visitor, CAs first, then by time; one at a time, for there may be many.
    pub fn each_certificate(&self, mut visit: impl FnMut(&CertificateRow)) -> Result<(), LedgerError> {
        let query = format!(
            "SELECT {COLUMNS} FROM certificate
             ORDER BY kind = 'site_ca' DESC, kind = 'issuing_ca' DESC, not_before, serial"
        );
        let mut statement = self.sql.prepare(&query)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            visit(&CertificateRow {
                serial: row.get(0)?,
                kind: row.get(1)?,
                fingerprint: row.get(2)?,
                certificate: row.get(3)?,
                not_before: row.get(4)?,
                not_after: row.get(5)?,
                status: row.get(6)?,
                revoked_at: row.get(7)?,
                reason: row.get(8)?,
                superseded_by: row.get(9)?,
                key: row.get(10)?,
                host: row.get(11)?,
                address: row.get(12)?,
                device: row.get(13)?,
                issuing: row.get(14)?,
                twin: row.get(15)?,
                issuer: row.get(16)?,
            });
        }
        Ok(())
    }

    /// Returns how many certificates there are.
    pub fn certificate_count(&self) -> Result<usize, LedgerError> {
        let count: u32 = self.sql.query_row("SELECT count(*) FROM certificate", [], |row| row.get(0))?;
        Ok(usize::try_from(count).unwrap_or(usize::MAX))
    }

    /// Returns every key that is referred to but for those of certificates.
    pub fn other_keys(&self) -> Result<Vec<KeyRow>, LedgerError> {
        let query = "SELECT selector || '._domainkey.' || domain, key, public FROM dkim_key WHERE state <> 'destroyed'
                     UNION ALL SELECT 'the next certificate of ' || host, key, spki FROM next_key ORDER BY 1";
        all(&self.sql, query, [], |row| Ok(KeyRow { what: row.get(0)?, digest: row.get(1)?, public: row.get(2)? }))
    }

    /// Returns the CRLs.
    pub fn crl_rows(&self) -> Result<Vec<CrlRow>, LedgerError> {
        all(&self.sql, "SELECT issuer, number, this_update, next_update, pem FROM crl ORDER BY issuer", [], |row| {
            Ok(CrlRow {
                issuer: row.get(0)?,
                number: row.get(1)?,
                this_update: row.get(2)?,
                next_update: row.get(3)?,
                pem: row.get(4)?,
            })
        })
    }

    /// Returns the twin that stands on the trust list when there is no other.
    pub fn placeholder(&self) -> Result<Option<String>, LedgerError> {
        Ok(all(&self.sql, "SELECT twin FROM placeholder", [], |row| Ok(row.get(0)?))?.pop())
    }

    /// Returns what SQLite itself finds wrong with the file, and what is in it besides or instead of the ledger's own tables.
    pub fn file_problems(&self) -> Result<Vec<String>, LedgerError> {
        let mut found = all(&self.sql, "PRAGMA integrity_check", [], |row| Ok(row.get::<_, String>(0)?))?;
        found.retain(|line| line != "ok");
        let foreign = all(&self.sql, "PRAGMA foreign_key_check", [], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(2)?))
        })?;
        found.extend(foreign.into_iter().map(|(table, parent)| format!("a row of {table} refers to no {parent}")));
        let (own, new) = (objects(&self.sql)?, objects(&newest()?)?);
        found.extend(own.iter().filter(|one| !new.contains(one)).map(|one| format!("the {one} is none of postseal's")));
        found.extend(new.iter().filter(|one| !own.contains(one)).map(|one| format!("the {one} is missing")));
        Ok(found)
    }
}

/// Returns an empty ledger in memory.
fn newest() -> Result<Connection, LedgerError> {
    let sql = Connection::open_in_memory()?;
    for step in STEPS {
        sql.execute_batch(step)?;
    }
    Ok(sql)
}

/// Returns the kinds and names of what a database is made of.
fn objects(sql: &Connection) -> Result<Vec<String>, LedgerError> {
    let query = "SELECT type || ' ' || name FROM sqlite_schema WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY 1";
    all(sql, query, [], |row| Ok(row.get(0)?))
}
