//! What can be recorded. Each method is one fact; those of one closure come true together.

use camino::Utf8Path;
use rusqlite::{Connection, OptionalExtension as _, params};
use time::OffsetDateTime;

use super::{AuthorityKey, LedgerError, Watched, collision, parsed, read};
use crate::install::Effect;
use crate::inventory::{CertificateStatus, Crl, Inventory, NextKey, Reason};
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
    /// Who issued it.
    pub issuer: ClientIssuer,
}

/// The issuing CA of a client certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientIssuer {
    /// One of its own (`trust = "pinned"`).
    Own {
        /// Its certificate, signed by the site CA, as PEM.
        issuing: String,
        /// Its self-signed twin, as PEM.
        twin: String,
        /// The only CRL that it ever has, as PEM, if servers of the site heed CRLs.
        crl: Option<(Crl, String)>,
    },
    /// The one for all (`trust = "ca"`), by its serial.
    Shared(Serial),
}

impl<'a> Transaction<'a> {
    pub(super) fn new(sql: rusqlite::Transaction<'a>) -> Self {
        Self { sql }
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.sql
    }

    pub(super) fn commit(self) -> Result<(), LedgerError> {
        Ok(self.sql.commit()?)
    }

    /// Returns all that is recorded, this mutation included.
    pub fn inventory(&self) -> Result<Inventory, LedgerError> {
        read::inventory(&self.sql)
    }

    /// Records the site CA; an older one must be superseded or revoked first.
    pub fn add_site_ca(&mut self, ca: &NewCertificate, key: &AuthorityKey) -> Result<(), LedgerError> {
        self.add_authority("site_ca", ca, None, key, || "a live site CA".to_owned())
    }

    /// Records an issuing CA for all clients, with its twin as PEM; an older one must be superseded or revoked first.
    pub fn add_issuing_ca(&mut self, ca: &NewCertificate, twin: &str, key: &AuthorityKey) -> Result<(), LedgerError> {
        self.add_authority("issuing_ca", ca, Some(twin), key, || "a live issuing CA".to_owned())
    }

    fn add_authority(
        &mut self,
        kind: &str,
        ca: &NewCertificate,
        twin: Option<&str>,
        key: &AuthorityKey,
        what: impl FnOnce() -> String,
    ) -> Result<(), LedgerError> {
        let (key, token) = match key {
            AuthorityKey::File(digest) => (Some(digest.to_string()), None),
            AuthorityKey::Token(uri) => (None, Some(uri.to_string())),
        };
        let added = self.sql.execute(
            "INSERT INTO certificate (kind, serial, certificate, fingerprint, not_before, not_after, twin, key, token)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            params![
                kind,
                ca.serial.to_string(),
                ca.pem,
                ca.fingerprint.to_string(),
                ca.not_before.unix_timestamp(),
                ca.not_after.unix_timestamp(),
                twin,
                key,
                token
            ],
        );
        certificate_added(added, ca, what)
    }

    /// Records a server certificate; the host's older one must be superseded or revoked first.
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

    /// Records a client certificate of an account; the device's older one must be superseded or revoked first.
    pub fn add_client_certificate(
        &mut self,
        certificate: &NewCertificate,
        client: &NewClient,
    ) -> Result<(), LedgerError> {
        let NewClient { address, device, issuer } = client;
        self.require_account(address)?;
        let (issuing, twin, shared) = match issuer {
            ClientIssuer::Own { issuing, twin, .. } => (Some(issuing), Some(twin), None),
            ClientIssuer::Shared(serial) => (None, None, Some(serial.to_string())),
        };
        let mut insert = self.sql.prepare_cached(
            "INSERT INTO certificate
                 (kind, serial, certificate, fingerprint, not_before, not_after, address, device, issuing, twin, issuer)
             VALUES ('client', ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?;
        let added = insert.execute(params![
            certificate.serial.to_string(),
            certificate.pem,
            certificate.fingerprint.to_string(),
            certificate.not_before.unix_timestamp(),
            certificate.not_after.unix_timestamp(),
            address.as_str(),
            device.as_str(),
            issuing,
            twin,
            shared
        ]);
        drop(insert);
        certificate_added(added, certificate, || format!("a live certificate of `{address}` for `{device}`"))?;
        match issuer {
            ClientIssuer::Own { crl: Some((crl, pem)), .. } => self.set_crl(&certificate.serial, crl, pem),
            ClientIssuer::Own { crl: None, .. } | ClientIssuer::Shared(_) => Ok(()),
        }
    }

    /// Revokes a live certificate of whatever kind. It is never taken back.
    pub fn revoke_certificate(
        &mut self,
        serial: &Serial,
        reason: Reason,
        at: OffsetDateTime,
    ) -> Result<(), LedgerError> {
        let revoked = self.sql.execute(
            "UPDATE certificate SET status = 'revoked', revoked_at = ?2, reason = ?3
             WHERE serial = ?1 AND status IN ('live', 'held')",
            params![serial.to_string(), at.unix_timestamp(), reason.as_str()],
        )?;
        one(revoked, || format!("a live certificate with the serial `{serial}`"))
    }

    /// Records that another certificate takes a live one's place, and until when both are admitted. It is recorded before the
    /// newer one is; once replaced, nothing replaces it again.
    pub fn supersede_certificate(
        &mut self,
        serial: &Serial,
        by: &Serial,
        retires_at: OffsetDateTime,
    ) -> Result<(), LedgerError> {
        let superseded = self.sql.execute(
            "UPDATE certificate SET superseded_by = ?2, retires_at = ?3
             WHERE serial = ?1 AND status = 'live' AND superseded_by IS NULL",
            params![serial.to_string(), by.to_string(), retires_at.unix_timestamp()],
        )?;
        one(superseded, || format!("a live certificate with the serial `{serial}`"))
    }

    /// Records the end of every certificate that ran out or whose overlap is over. Returns their serials. The site CA and a
    /// host's newest server certificate stay until another takes their place: without them nothing could be rendered, and so
    /// nobody be shut out any more.
    pub fn expire_certificates(&mut self, now: OffsetDateTime) -> Result<Vec<Serial>, LedgerError> {
        let mut expire = self.sql.prepare_cached(
            "UPDATE certificate SET status = 'expired'
             WHERE status IN ('live', 'held') AND min(not_after, coalesce(retires_at, not_after)) <= ?1
               AND (kind NOT IN ('site_ca', 'server') OR superseded_by IS NOT NULL)
             RETURNING serial",
        )?;
        let serials = expire.query_map([now.unix_timestamp()], |row| row.get::<_, String>(0))?;
        let mut serials: Vec<Serial> =
            serials.map(|serial| parsed(&serial?, "serial")).collect::<Result<_, LedgerError>>()?;
        serials.sort_unstable();
        Ok(serials)
    }

    /// Takes a live certificate off the trust list until it is confirmed.
    pub fn hold_certificate(&mut self, serial: &Serial) -> Result<(), LedgerError> {
        self.change_status(serial, CertificateStatus::Live, CertificateStatus::Held)
    }

    /// Admits a held certificate again.
    pub fn confirm_certificate(&mut self, serial: &Serial) -> Result<(), LedgerError> {
        self.change_status(serial, CertificateStatus::Held, CertificateStatus::Live)
    }

    fn change_status(
        &mut self,
        serial: &Serial,
        from: CertificateStatus,
        to: CertificateStatus,
    ) -> Result<(), LedgerError> {
        let changed = self.sql.execute(
            "UPDATE certificate SET status = ?3 WHERE serial = ?1 AND status = ?2",
            params![serial.to_string(), from.as_str(), to.as_str()],
        )?;
        one(changed, || format!("a {} certificate with the serial `{serial}`", from.as_str()))
    }

    /// Records that the person made the key of a client certificate, so that no PKCS#12 file can be made for it.
    pub fn mark_theirs(&mut self, serial: &Serial) -> Result<(), LedgerError> {
        let marked = self
            .sql
            .execute("UPDATE certificate SET theirs = 1 WHERE serial = ?1 AND kind = 'client'", [serial.to_string()])?;
        one(marked, || format!("a client certificate with the serial `{serial}`"))
    }

    /// Records that the person has what they were given for a certificate.
    pub fn mark_handed_over(&mut self, serial: &Serial, at: OffsetDateTime) -> Result<(), LedgerError> {
        let marked = self.sql.execute(
            "UPDATE certificate SET handed_over = ?2 WHERE serial = ?1 AND kind = 'client' AND status IN ('live', 'held')",
            params![serial.to_string(), at.unix_timestamp()],
        )?;
        one(marked, || format!("a live client certificate with the serial `{serial}`"))
    }

    /// Returns the newest CRL of an issuing CA, as PEM, this mutation included.
    pub fn crl(&self, issuer: &Serial) -> Result<Option<String>, LedgerError> {
        read::crl(&self.sql, issuer)
    }

    /// Tells whether something ever happened.
    pub fn has_event(&self, what: &str) -> Result<bool, LedgerError> {
        Ok(read::last_event(&self.sql, what)?.is_some())
    }

    /// Records the newest CRL of an issuing CA; its number is greater than that of the one before.
    pub fn set_crl(&mut self, issuer: &Serial, crl: &Crl, pem: &str) -> Result<(), LedgerError> {
        self.sql.execute(
            "INSERT INTO crl (issuer, number, this_update, next_update, pem) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (issuer) DO UPDATE SET number = ?2, this_update = ?3, next_update = ?4, pem = ?5",
            params![
                issuer.to_string(),
                crl.number,
                crl.this_update.unix_timestamp(),
                crl.next_update.unix_timestamp(),
                pem
            ],
        )?;
        Ok(())
    }

    /// Records the key of a host's next certificate, in place of the one recorded before.
    pub fn set_next_key(&mut self, next: &NextKey) -> Result<(), LedgerError> {
        self.sql.execute(
            "INSERT INTO next_key (host, key, spki, since) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (host) DO UPDATE SET key = ?2, spki = ?3, since = ?4",
            params![next.host.as_str(), next.key.to_string(), next.spki.to_string(), next.since.unix_timestamp()],
        )?;
        Ok(())
    }

    /// Records what was seen of a file that an ACME client keeps.
    pub fn set_watched(
        &mut self,
        host: &HostName,
        root: &Utf8Path,
        seen: &Watched,
        at: OffsetDateTime,
    ) -> Result<(), LedgerError> {
        self.sql.execute(
            "INSERT INTO watched (host, root, path, digest, not_after, since) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (host, root, path) DO UPDATE SET digest = ?4, not_after = ?5, since = ?6",
            params![
                host.as_str(),
                root.as_str(),
                seen.path.as_str(),
                seen.digest.to_string(),
                seen.not_after.unix_timestamp(),
                at.unix_timestamp()
            ],
        )?;
        Ok(())
    }

    /// Records that a mail told of a certificate's expiry, so many days before it.
    pub fn add_notice(&mut self, serial: &Serial, days: u16, at: OffsetDateTime) -> Result<(), LedgerError> {
        let values = params![serial.to_string(), days, at.unix_timestamp()];
        self.sql.execute("INSERT OR IGNORE INTO notice (serial, days, at) VALUES (?1, ?2, ?3)", values)?;
        Ok(())
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
        let mut add = self.sql.prepare_cached(
            "INSERT INTO account (address, since) VALUES (?1, ?2)
             ON CONFLICT (address) DO UPDATE SET since = ?2, removed_at = NULL WHERE removed_at IS NOT NULL",
        )?;
        let added = add.execute(params![address.as_str(), since.unix_timestamp()])?;
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
        let mut change = self
            .sql
            .prepare_cached("UPDATE account SET password_hash = ?2 WHERE address = ?1 AND removed_at IS NULL")?;
        let changed = change.execute(params![address.as_str(), hash])?;
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
        let found = self.sql.prepare_cached(query)?.query_row([address.as_str()], |_| Ok(())).optional()?;
        found.ok_or_else(|| LedgerError::NotFound { what: format!("the account `{address}`") })
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
        self.sql
            .prepare_cached("INSERT INTO event (at, what, subject, detail) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![at.unix_timestamp(), what, subject, detail.to_string()])?;
        Ok(())
    }
}

fn live_serials(sql: &Connection, address: &MailAddress) -> Result<Vec<Serial>, LedgerError> {
    let query = "SELECT serial FROM certificate
                 WHERE kind = 'client' AND address = ?1 AND status IN ('live', 'held') ORDER BY serial";
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
