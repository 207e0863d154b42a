//! What can be recorded. Each method is one fact; those of one closure come true together.

use camino::Utf8Path;
use rusqlite::{Connection, OptionalExtension as _, params};
use time::OffsetDateTime;

use super::{LedgerError, collision, parsed, read};
use crate::install::Effect;
use crate::inventory::{DkimKey, Inventory};
use crate::names::{DeviceName, Digest, HostName, MailAddress, Serial};
use crate::secret::Secret;

/// A mutation of the ledger that is under way; dropped without success, it leaves nothing behind.
#[derive(Debug)]
pub struct Transaction<'a> {
    sql: rusqlite::Transaction<'a>,
}

/// A certificate that was just issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewCertificate {
    /// Its serial.
    pub serial: Serial,
    /// The certificate as PEM; a server's is followed by those it sends along.
    pub pem: String,
    /// SHA-256 of the certificate's DER form.
    pub fingerprint: Digest,
    /// When it begins.
    pub not_before: OffsetDateTime,
    /// When it ends.
    pub not_after: OffsetDateTime,
}

/// Whose client certificate it is, and who issued it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewClient {
    /// Whose it is.
    pub address: MailAddress,
    /// On which device.
    pub device: DeviceName,
    /// The issuing CA's certificate, signed by the site CA, as PEM.
    pub issuing: String,
    /// The issuing CA's self-signed twin, as PEM.
    pub twin: String,
}

/// Why a certificate is revoked (RFC 5280 §5.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The account or the host is gone.
    CessationOfOperation,
    /// The device is lost, or the key was seen.
    KeyCompromise,
    /// A newer one takes its place.
    Superseded,
    /// No reason was given.
    Unspecified,
}

impl Reason {
    /// Returns the reason's name in RFC 5280.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CessationOfOperation => "cessationOfOperation",
            Self::KeyCompromise => "keyCompromise",
            Self::Superseded => "superseded",
            Self::Unspecified => "unspecified",
        }
    }
}

impl<'a> Transaction<'a> {
    pub(super) fn new(sql: rusqlite::Transaction<'a>) -> Self {
        Self { sql }
    }

    pub(super) fn commit(self) -> Result<(), LedgerError> {
        Ok(self.sql.commit()?)
    }

    /// Returns all that is recorded, this mutation included.
    pub fn inventory(&self) -> Result<Inventory, LedgerError> {
        read::inventory(&self.sql)
    }

    /// Records the site CA; an older one must be revoked first.
    pub fn add_site_ca(&mut self, ca: &NewCertificate, key: &Digest) -> Result<(), LedgerError> {
        let added = self.sql.execute(
            "INSERT INTO certificate (kind, serial, certificate, fingerprint, not_before, not_after, key)
             VALUES ('site_ca', ?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                ca.serial.to_string(),
                ca.pem,
                ca.fingerprint.to_string(),
                ca.not_before.unix_timestamp(),
                ca.not_after.unix_timestamp(),
                key.to_string()
            ],
        );
        certificate_added(added, ca, || "a live site CA".to_owned())
    }

    /// Records a server certificate; the host's older one must be revoked first.
    pub fn add_server_certificate(
        &mut self,
        certificate: &NewCertificate,
        host: &HostName,
        key: &Digest,
    ) -> Result<(), LedgerError> {
        let added = self.sql.execute(
            "INSERT INTO certificate (kind, serial, certificate, fingerprint, not_before, not_after, host, key)
             VALUES ('server', ?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                certificate.serial.to_string(),
                certificate.pem,
                certificate.fingerprint.to_string(),
                certificate.not_before.unix_timestamp(),
                certificate.not_after.unix_timestamp(),
                host.as_str(),
                key.to_string()
            ],
        );
        certificate_added(added, certificate, || format!("a live certificate of `{host}`"))
    }

    /// Records a client certificate of an account; the device's older one must be revoked first.
    pub fn add_client_certificate(
        &mut self,
        certificate: &NewCertificate,
        client: &NewClient,
    ) -> Result<(), LedgerError> {
        let NewClient { address, device, issuing, twin } = client;
        self.require_account(address)?;
        let added = self.sql.execute(
            "INSERT INTO certificate
                 (kind, serial, certificate, fingerprint, not_before, not_after, address, device, issuing, twin)
             VALUES ('client', ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            params![
                certificate.serial.to_string(),
                certificate.pem,
                certificate.fingerprint.to_string(),
                certificate.not_before.unix_timestamp(),
                certificate.not_after.unix_timestamp(),
                address.as_str(),
                device.as_str(),
                issuing,
                twin
            ],
        );
        certificate_added(added, certificate, || format!("a live certificate of `{address}` for `{device}`"))
    }

    /// Revokes a live certificate of whatever kind. It is never taken back.
    pub fn revoke_certificate(
        &mut self,
        serial: &Serial,
        reason: Reason,
        at: OffsetDateTime,
    ) -> Result<(), LedgerError> {
        let revoked = self.sql.execute(
            "UPDATE certificate SET status = 'revoked', revoked_at = ?2, reason = ?3 WHERE serial = ?1 AND status = 'live'",
            params![serial.to_string(), at.unix_timestamp(), reason.as_str()],
        )?;
        one(revoked, || format!("a live certificate with the serial `{serial}`"))
    }

    /// Records the twin that stands on the trust list while no client certificate is live.
    pub fn set_placeholder(&mut self, twin: &str) -> Result<(), LedgerError> {
        self.sql.execute(
            "INSERT INTO placeholder (only_one, twin) VALUES (1, ?1) ON CONFLICT (only_one) DO UPDATE SET twin = ?1",
            [twin],
        )?;
        Ok(())
    }

    /// Records an account, or one that was removed anew.
    pub fn add_user(&mut self, address: &MailAddress, since: OffsetDateTime) -> Result<(), LedgerError> {
        let added = self.sql.execute(
            "INSERT INTO account (address, since) VALUES (?1, ?2)
             ON CONFLICT (address) DO UPDATE SET since = ?2, removed_at = NULL WHERE removed_at IS NOT NULL",
            params![address.as_str(), since.unix_timestamp()],
        )?;
        if added == 0 { Err(LedgerError::AlreadyExists { what: format!("the account `{address}`") }) } else { Ok(()) }
    }

    /// Records the hash of an account's password.
    pub fn set_password(&mut self, address: &MailAddress, hash: &Secret) -> Result<(), LedgerError> {
        self.change_password(address, hash.expose_str().or(Some("")))
    }

    /// Forgets an account's password: nobody logs in until there is another.
    pub fn clear_password(&mut self, address: &MailAddress) -> Result<(), LedgerError> {
        self.change_password(address, None)
    }

    fn change_password(&mut self, address: &MailAddress, hash: Option<&str>) -> Result<(), LedgerError> {
        let changed = self.sql.execute(
            "UPDATE account SET password_hash = ?2 WHERE address = ?1 AND removed_at IS NULL",
            params![address.as_str(), hash],
        )?;
        one(changed, || format!("the account `{address}`"))
    }

    /// Records the further addresses that a login may send as, in place of those recorded before.
    pub fn set_senders(&mut self, login: &MailAddress, senders: &[MailAddress]) -> Result<(), LedgerError> {
        self.require_account(login)?;
        self.sql.execute("DELETE FROM sender WHERE login = ?1", [login.as_str()])?;
        for sender in senders {
            self.sql.execute(
                "INSERT INTO sender (login, address) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
                [login.as_str(), sender.as_str()],
            )?;
        }
        Ok(())
    }

    /// Marks an account as removed: no password, no senders, all certificates revoked. Returns their serials.
    pub fn remove_user(&mut self, address: &MailAddress, at: OffsetDateTime) -> Result<Vec<Serial>, LedgerError> {
        self.require_account(address)?;
        let live = live_serials(&self.sql, address)?;
        for serial in &live {
            self.revoke_certificate(serial, Reason::CessationOfOperation, at)?;
        }
        self.sql.execute("DELETE FROM sender WHERE login = ?1", [address.as_str()])?;
        self.sql.execute(
            "UPDATE account SET removed_at = ?2, password_hash = NULL WHERE address = ?1",
            params![address.as_str(), at.unix_timestamp()],
        )?;
        Ok(live)
    }

    fn require_account(&self, address: &MailAddress) -> Result<(), LedgerError> {
        let query = "SELECT 1 FROM account WHERE address = ?1 AND removed_at IS NULL";
        let found = self.sql.query_row(query, [address.as_str()], |_| Ok(())).optional()?;
        found.ok_or_else(|| LedgerError::NotFound { what: format!("the account `{address}`") })
    }

    /// Records a DKIM key. Its selector was never used for the domain before, and never will be again.
    pub fn add_dkim_key(&mut self, key: &DkimKey) -> Result<(), LedgerError> {
        let DkimKey { domain, algorithm, selector, state, since, public, key } = key;
        let added = self.sql.execute(
            "INSERT INTO dkim_key (domain, algorithm, selector, state, since, public, key)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                domain.as_str(),
                algorithm.as_str(),
                selector.as_str(),
                state.as_str(),
                since.unix_timestamp(),
                public,
                key.to_string()
            ],
        );
        let Err(error) = added else { return Ok(()) };
        let what = match collision(&error) {
            None => return Err(error.into()),
            Some(columns) if columns.contains("selector") => format!("the selector `{selector}` of `{domain}`"),
            Some(_) => format!("an active {} key of `{domain}`", algorithm.as_str()),
        };
        Err(LedgerError::AlreadyExists { what })
    }

    /// Records that a content is put on a host below the root: from then on a file that holds it is known to be ours. What is
    /// recorded already stays as it is.
    pub fn record_installed(
        &mut self,
        host: &HostName,
        root: &Utf8Path,
        (path, digest): (&Utf8Path, Digest),
        at: OffsetDateTime,
    ) -> Result<(), LedgerError> {
        self.sql
            .prepare_cached(
                "INSERT OR IGNORE INTO installed (host, root, path, digest, since) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![host.as_str(), root.as_str(), path.as_str(), digest.to_string(), at.unix_timestamp()])?;
        Ok(())
    }

    /// Records what a host's daemons must be told once its files are in place.
    pub fn add_due(&mut self, host: &HostName, root: &Utf8Path, effect: &Effect) -> Result<(), LedgerError> {
        let values = params![host.as_str(), root.as_str(), effect.to_string()];
        self.sql.execute("INSERT OR IGNORE INTO due (host, root, effect) VALUES (?1, ?2, ?3)", values)?;
        Ok(())
    }

    /// Records that the administrator is told what is due on a host.
    pub fn forget_due(&mut self, host: &HostName, root: &Utf8Path) -> Result<(), LedgerError> {
        self.sql.execute("DELETE FROM due WHERE host = ?1 AND root = ?2", params![host.as_str(), root.as_str()])?;
        Ok(())
    }

    /// Records that something happened.
    pub fn record_event(
        &mut self,
        at: OffsetDateTime,
        what: &str,
        subject: &str,
        detail: &serde_json::Value,
    ) -> Result<(), LedgerError> {
        self.sql.execute(
            "INSERT INTO event (at, what, subject, detail) VALUES (?1, ?2, ?3, ?4)",
            params![at.unix_timestamp(), what, subject, detail.to_string()],
        )?;
        Ok(())
    }
}

fn live_serials(sql: &Connection, address: &MailAddress) -> Result<Vec<Serial>, LedgerError> {
    let query =
        "SELECT serial FROM certificate WHERE kind = 'client' AND address = ?1 AND status = 'live' ORDER BY serial";
    let mut statement = sql.prepare_cached(query)?;
    let serials = statement.query_map([address.as_str()], |row| row.get::<_, String>(0))?;
    serials.map(|serial| parsed(&serial?, "serial")).collect()
}

fn certificate_added(
    added: rusqlite::Result<usize>,
    certificate: &NewCertificate,
    what: impl FnOnce() -> String,
) -> Result<(), LedgerError> {
    let Err(error) = added else { return Ok(()) };
    let what = match collision(&error) {
        None => return Err(error.into()),
        Some(columns) if columns.contains("certificate.serial") => {
            format!("a certificate with the serial `{}`", certificate.serial)
        }
        Some(columns) if columns.contains("certificate.fingerprint") => {
            format!("a certificate with the fingerprint `{}`", certificate.fingerprint)
        }
        Some(columns) if columns.contains("certificate.twin") => "a certificate with the same twin".to_owned(),
        Some(_) => what(),
    };
    Err(LedgerError::AlreadyExists { what })
}

fn one(changed: usize, what: impl FnOnce() -> String) -> Result<(), LedgerError> {
    if changed == 0 { Err(LedgerError::NotFound { what: what() }) } else { Ok(()) }
}
