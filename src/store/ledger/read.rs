//! What the ledger tells: the inventory and the two files that only the store holds.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use camino::{Utf8Path, Utf8PathBuf};
use rusqlite::{Connection, OptionalExtension as _, Params, Row};
use time::OffsetDateTime;

use super::{LedgerError, digest, moment, parsed};
use crate::install::Effect;
use crate::inventory::{
    CertificateStatus, ClientCertificate, Crl, Inventory, IssuingCa, NextKey, Reason, Revocation, ServerCertificate,
    SiteCa, Successor, User,
};
use crate::names::{DeviceName, Digest, HostName, MailAddress, Serial};
use crate::pki::Certificate;
use crate::secret::Secret;
use crate::token_uri::TokenUri;

/// The live site CA, with what issuing needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedCa {
    /// Its serial.
    pub serial: Serial,
    /// The certificate as PEM.
    pub certificate: String,
    /// Where its key is.
    pub key: AuthorityKey,
    /// When it ends.
    pub not_after: OffsetDateTime,
}

/// Where the key of a CA is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthorityKey {
    /// In an encrypted file below `state/keys`.
    File(Digest),
    /// On a token, by its PKCS#11 URI (RFC 7512).
    Token(TokenUri),
}

/// An issuing CA for all clients, with what issuing needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedIssuingCa {
    /// The serial of its certificate from the site CA.
    pub serial: Serial,
    /// That certificate as PEM.
    pub certificate: String,
    /// Its twin as PEM.
    pub twin: String,
    /// Where its key is.
    pub key: AuthorityKey,
    /// When it ends.
    pub not_after: OffsetDateTime,
    /// Whether it is live and none took its place.
    pub is_current: bool,
    /// Whether daemons trust its twin.
    pub is_live: bool,
}

/// The certificates of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientPem {
    /// The client's own, as PEM.
    pub certificate: String,
    /// Its issuing CA's, signed by the site CA, as PEM.
    pub issuing: String,
    /// Its issuing CA's twin, as PEM.
    pub twin: String,
}

/// A file that an ACME client keeps, as it was seen last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// Its path on the host.
    pub path: Utf8PathBuf,
    /// What it held.
    pub digest: Digest,
    /// When the certificate in it ends.
    pub not_after: OffsetDateTime,
}

/// What the ledger refers to in files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Referred {
    /// The first digits of every recorded key's digest, as they name its file; those of keys out of use, too.
    pub keys: BTreeSet<String>,
    /// The same of destroyed keys; what is recorded of another one, too, is not among them.
    pub destroyed: BTreeSet<String>,
    /// The accounts that were not removed.
    pub accounts: HashSet<MailAddress>,
    /// Those that were.
    pub removed: HashSet<MailAddress>,
    /// The devices of each mailbox that have a certificate, live or held.
    pub devices: HashMap<MailAddress, Vec<DeviceName>>,
    /// The devices of each mailbox whose certificates have all ended.
    pub ended: HashMap<MailAddress, Vec<DeviceName>>,
}

impl Referred {
    /// Tells whether the device has a certificate, live or held.
    pub fn knows_device(&self, address: &MailAddress, device: &DeviceName) -> bool {
        self.devices.get(address).is_some_and(|devices| devices.contains(device))
    }

    /// Tells whether the device had certificates, and none is left.
    pub fn knew_device(&self, address: &MailAddress, device: &DeviceName) -> bool {
        self.ended.get(address).is_some_and(|devices| devices.contains(device)) && !self.knows_device(address, device)
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub at: OffsetDateTime,
    /// What, in one word or two.
    pub what: String,
    /// To whom or to what.
    pub subject: String,
    /// Whatever else is worth knowing.
    pub detail: serde_json::Value,
}

pub(super) fn inventory(sql: &Connection) -> Result<Inventory, LedgerError> {
    let site_ca = site_ca(sql)?.map(|ca| SiteCa { certificate: ca.certificate, not_after: ca.not_after });
    let (twins, crls) = (trust_list(sql)?, Some(crls(sql)?).filter(|crls| !crls.is_empty()));
    Ok(Inventory {
        site_ca,
        server_certificates: server_certificates(sql)?,
        next_keys: next_keys(sql)?,
        issuing_cas: issuing_cas_of_inventory(sql)?,
        dkim_keys: super::dkim::keys(sql)?,
        rollouts: super::rollout::rollouts(sql)?,
        users: users(sql)?,
        client_certificates: client_certificates(sql)?,
        credentials: Some(Digest::of(credentials(sql)?.expose())),
        trust_list: twins.as_ref().map(|list| Digest::of(list.as_bytes())),
        crls: crls.as_ref().map(|crls| Digest::of(crls.as_bytes())),
        twins_and_crls: twins.zip(crls).map(|(twins, crls)| Digest::of((twins + &crls).as_bytes())),
    })
}

pub(super) fn site_ca(sql: &Connection) -> Result<Option<RecordedCa>, LedgerError> {
    let query = "SELECT serial, certificate, key, token, not_after FROM certificate
                 WHERE kind = 'site_ca' AND status = 'live' AND superseded_by IS NULL";
    let mut found = all(sql, query, [], |row| {
        Ok(RecordedCa {
            serial: parsed(&text(row, 0)?, "serial")?,
            certificate: text(row, 1)?,
            key: authority_key(row, 2)?,
            not_after: time(row, 4)?,
        })
    })?;
    Ok(found.pop())
}

/// Reads the columns `key` and `token`, of which one is there.
fn authority_key(row: &Row<'_>, column: usize) -> Result<AuthorityKey, LedgerError> {
    let (key, token): (Option<String>, Option<String>) = (row.get(column)?, row.get(column + 1)?);
    match (key, token) {
        (Some(key), _) => Ok(AuthorityKey::File(digest(&key)?)),
        (None, Some(token)) => Ok(AuthorityKey::Token(parsed(&token, "token")?)),
        (None, None) => Err(LedgerError::Damaged { what: "a CA without a key".to_owned() }),
    }
}

pub(super) fn issuing_cas(sql: &Connection) -> Result<Vec<RecordedIssuingCa>, LedgerError> {
    let query =
        "SELECT serial, certificate, twin, key, token, not_after, status, superseded_by IS NULL FROM certificate
                 WHERE kind = 'issuing_ca' ORDER BY not_before, serial";
    all(sql, query, [], |row| {
        let is_live = text(row, 6)? == CertificateStatus::Live.as_str();
        Ok(RecordedIssuingCa {
            serial: parsed(&text(row, 0)?, "serial")?,
            certificate: text(row, 1)?,
            twin: text(row, 2)?,
            key: authority_key(row, 3)?,
            not_after: time(row, 5)?,
            is_current: is_live && row.get(7)?,
            is_live,
        })
    })
}

fn issuing_cas_of_inventory(sql: &Connection) -> Result<Vec<IssuingCa>, LedgerError> {
    let query = "SELECT serial, status, not_after, superseded_by, retires_at, number, this_update, next_update
                 FROM certificate LEFT JOIN crl ON crl.issuer = certificate.serial
                 WHERE kind = 'issuing_ca' ORDER BY not_before, serial";
    all(sql, query, [], |row| {
        let number: Option<u32> = row.get(5)?;
        let crl = |number| Ok::<_, LedgerError>(Crl { number, this_update: time(row, 6)?, next_update: time(row, 7)? });
        Ok(IssuingCa {
            serial: parsed(&text(row, 0)?, "serial")?,
            status: one_of(&text(row, 1)?, CertificateStatus::ALL, CertificateStatus::as_str)?,
            not_after: time(row, 2)?,
            successor: successor(row, 3)?,
            crl: number.map(crl).transpose()?,
        })
    })
}

/// Reads the columns `superseded_by` and `retires_at`.
fn successor(row: &Row<'_>, column: usize) -> Result<Option<Successor>, LedgerError> {
    let serial: Option<String> = row.get(column)?;
    let successor =
        |serial: String| Ok(Successor { serial: parsed(&serial, "serial")?, retires_at: time(row, column + 1)? });
    serial.map(successor).transpose()
}

pub(super) fn crls(sql: &Connection) -> Result<String, LedgerError> {
    let query = "SELECT pem FROM crl JOIN certificate ON certificate.serial = crl.issuer
                 WHERE status = 'live' ORDER BY not_before, certificate.serial";
    Ok(all(sql, query, [], |row| text(row, 0))?.concat())
}

pub(super) fn crl(sql: &Connection, issuer: &Serial) -> Result<Option<String>, LedgerError> {
    let query = "SELECT pem FROM crl WHERE issuer = ?1";
    Ok(sql.query_row(query, [issuer.to_string()], |row| row.get(0)).optional()?)
}

fn next_keys(sql: &Connection) -> Result<Vec<NextKey>, LedgerError> {
    let mut found = all(sql, "SELECT host, key, spki, since FROM next_key", [], |row| {
        Ok(NextKey {
            host: parsed(&text(row, 0)?, "host name")?,
            key: digest(&text(row, 1)?)?,
            spki: digest(&text(row, 2)?)?,
            since: time(row, 3)?,
        })
    })?;
    found.sort_by(|a, b| a.host.cmp(&b.host));
    Ok(found)
}

pub(super) fn watched(sql: &Connection, host: &HostName, root: &Utf8Path) -> Result<Vec<Watched>, LedgerError> {
    let query = "SELECT path, digest, not_after FROM watched WHERE host = ?1 AND root = ?2 ORDER BY path";
    all(sql, query, [host.as_str(), root.as_str()], |row| {
        Ok(Watched { path: text(row, 0)?.into(), digest: digest(&text(row, 1)?)?, not_after: time(row, 2)? })
    })
}

pub(super) fn notices(sql: &Connection) -> Result<BTreeSet<(Serial, u16)>, LedgerError> {
    let found =
        all(sql, "SELECT serial, days FROM notice", [], |row| Ok((parsed(&text(row, 0)?, "serial")?, row.get(1)?)))?;
    Ok(found.into_iter().collect())
}

pub(super) fn certificate_pem(sql: &Connection, serial: &Serial) -> Result<Option<String>, LedgerError> {
    let query = "SELECT certificate FROM certificate WHERE serial = ?1";
    Ok(sql.query_row(query, [serial.to_string()], |row| row.get(0)).optional()?)
}

pub(super) fn whose(
    sql: &Connection,
    serial: &Serial,
) -> Result<Option<(MailAddress, DeviceName, CertificateStatus)>, LedgerError> {
    let query = "SELECT address, device, status FROM certificate WHERE kind = 'client' AND serial = ?1";
    let mut found = all(sql, query, [serial.to_string()], |row| {
        let status = one_of(&text(row, 2)?, CertificateStatus::ALL, CertificateStatus::as_str)?;
        Ok((parsed(&text(row, 0)?, "mail address")?, parsed(&text(row, 1)?, "device name")?, status))
    })?;
    Ok(found.pop())
}

fn server_certificates(sql: &Connection) -> Result<Vec<ServerCertificate>, LedgerError> {
    let query = "SELECT host, serial, certificate, key, not_after,
                        (SELECT former.certificate FROM certificate AS former
                         WHERE former.kind = 'server' AND former.superseded_by = certificate.serial
                           AND former.status <> 'revoked')
                 FROM certificate WHERE kind = 'server' AND status = 'live' AND superseded_by IS NULL";
    let mut found = all(sql, query, [], |row| {
        Ok(ServerCertificate {
            host: parsed(&text(row, 0)?, "host name")?,
            serial: parsed(&text(row, 1)?, "serial")?,
            chain: text(row, 2)?,
            key: digest(&text(row, 3)?)?,
            not_after: time(row, 4)?,
            former: row
                .get::<_, Option<String>>(5)?
                .and_then(|pem| Certificate::from_pem(&pem).ok())
                .map(|former| Digest::of(&former.facts().spki)),
        })
    })?;
    found.sort_by(|a, b| a.host.cmp(&b.host));
    Ok(found)
}

fn users(sql: &Connection) -> Result<Vec<User>, LedgerError> {
    let mut senders: BTreeMap<String, Vec<MailAddress>> = BTreeMap::new();
    for (login, sender) in all(sql, "SELECT login, address FROM sender", [], |row| Ok((text(row, 0)?, text(row, 1)?)))?
    {
        senders.entry(login).or_default().push(parsed(&sender, "mail address")?);
    }
    let mut found = all(sql, "SELECT address, since FROM account WHERE removed_at IS NULL", [], |row| {
        let address = text(row, 0)?;
        Ok(User { address: parsed(&address, "mail address")?, senders: Vec::new(), since: time(row, 1)? })
    })?;
    for user in &mut found {
        user.senders = senders.remove(user.address.as_str()).unwrap_or_default();
        user.senders.sort();
    }
    found.sort_by(|a, b| a.address.cmp(&b.address));
    Ok(found)
}

fn client_certificates(sql: &Connection) -> Result<Vec<ClientCertificate>, LedgerError> {
    let query =
        "SELECT address, device, serial, fingerprint, status, not_before, not_after, superseded_by, retires_at, issuer,
                 revoked_at, reason, handed_over, theirs FROM certificate WHERE kind = 'client'";
    let mut found = all(sql, query, [], |row| {
        let (issuer, reason): (Option<String>, Option<String>) = (row.get(9)?, row.get(11)?);
        let revocation = |reason: String| {
            let reason = one_of(&reason, Reason::ALL, Reason::as_str)?;
            Ok::<_, LedgerError>(Revocation { at: time(row, 10)?, reason })
        };
        Ok(ClientCertificate {
            address: parsed(&text(row, 0)?, "mail address")?,
            device: parsed(&text(row, 1)?, "device name")?,
            serial: parsed(&text(row, 2)?, "serial")?,
            fingerprint: digest(&text(row, 3)?)?,
            status: one_of(&text(row, 4)?, CertificateStatus::ALL, CertificateStatus::as_str)?,
            not_before: time(row, 5)?,
            not_after: time(row, 6)?,
            successor: successor(row, 7)?,
            issuer: issuer.map(|issuer| parsed(&issuer, "serial")).transpose()?,
            revocation: reason.map(revocation).transpose()?,
            handed_over: row.get::<_, Option<i64>>(12)?.map(moment).transpose()?,
            theirs: row.get(13)?,
        })
    })?;
    // Of one second the one that counts now was last; the serial decides between others.
    let order = |one: &ClientCertificate| (one.not_before, one.is_current(), one.serial);
    found.sort_by(|a, b| (&a.address, &a.device, order(a)).cmp(&(&b.address, &b.device, order(b))));
    Ok(found)
}

pub(super) fn credentials(sql: &Connection) -> Result<Secret, LedgerError> {
    let query = "SELECT address, password_hash FROM account WHERE password_hash IS NOT NULL";
    let mut found = all(sql, query, [], |row| {
        let address: MailAddress = parsed(&text(row, 0)?, "mail address")?;
        Ok((address, Secret::from(text(row, 1)?)))
    })?;
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    let room = found.iter().map(|(address, hash)| address.as_str().len() + hash.expose().len() + 2).sum();
    let mut table = Vec::with_capacity(room);
    for (address, hash) in &found {
        for part in [address.as_str().as_bytes(), b":", hash.expose(), b"\n"] {
            table.extend_from_slice(part);
        }
    }
    Ok(Secret::new(table))
}

pub(super) fn trust_list(sql: &Connection) -> Result<Option<String>, LedgerError> {
    let live = "SELECT twin FROM certificate
                WHERE kind IN ('client', 'issuing_ca') AND status = 'live' AND twin IS NOT NULL ORDER BY serial";
    let mut twins = all(sql, live, [], |row| text(row, 0))?;
    if twins.is_empty() {
        twins = all(sql, "SELECT twin FROM placeholder", [], |row| text(row, 0))?;
    }
    let ended = twins.into_iter().map(|twin| if twin.ends_with('\n') { twin } else { twin + "\n" });
    Ok(Some(ended.collect::<String>()).filter(|list| !list.is_empty()))
}

pub(super) fn referred(sql: &Connection) -> Result<Referred, LedgerError> {
    let query = "SELECT key, NULL, NULL, 0 FROM certificate WHERE key IS NOT NULL
                 UNION ALL SELECT key, NULL, NULL, 0 FROM dkim_key WHERE state <> 'destroyed'
                 UNION ALL SELECT key, NULL, NULL, 0 FROM next_key
                 UNION ALL SELECT NULL, address, NULL, removed_at IS NOT NULL FROM account
                 UNION ALL SELECT DISTINCT NULL, address, device, status NOT IN ('live', 'held') FROM certificate
                 WHERE kind = 'client'";
    let mut referred = Referred::default();
    let rows = all(sql, query, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
    for (key, address, device, gone) in rows {
        let (key, address, device): (Option<String>, Option<String>, Option<String>) = (key, address, device);
        if let Some(key) = key {
            referred.keys.insert(digest(&key)?.short());
        }
        let Some(address) = address else { continue };
        let address: MailAddress = parsed(&address, "mail address")?;
        match device {
            Some(device) if gone => {
                referred.ended.entry(address).or_default().push(parsed(&device, "device name")?);
            }
            Some(device) => referred.devices.entry(address).or_default().push(parsed(&device, "device name")?),
            None if gone => drop(referred.removed.insert(address)),
            None => drop(referred.accounts.insert(address)),
        }
    }
    for key in all(sql, "SELECT key FROM dkim_key WHERE state = 'destroyed'", [], |row| digest(&text(row, 0)?))? {
        let name = key.short();
        if !referred.keys.contains(&name) {
            referred.destroyed.insert(name);
        }
    }
    Ok(referred)
}

pub(super) fn client_pem(sql: &Connection, serial: &Serial) -> Result<ClientPem, LedgerError> {
    let query = "SELECT client.certificate, coalesce(client.issuing, ca.certificate), coalesce(client.twin, ca.twin)
                 FROM certificate client LEFT JOIN certificate ca ON ca.serial = client.issuer
                 WHERE client.kind = 'client' AND client.serial = ?1";
    let found = sql.query_row(query, [serial.to_string()], |row| {
        Ok(ClientPem { certificate: row.get(0)?, issuing: row.get(1)?, twin: row.get(2)? })
    });
    let missing = || LedgerError::NotFound { what: format!("a client certificate with the serial `{serial}`") };
    found.optional()?.ok_or_else(missing)
}

pub(super) fn events(sql: &Connection) -> Result<Vec<Event>, LedgerError> {
    all(sql, "SELECT at, what, subject, detail FROM event ORDER BY id", [], event)
}

pub(super) fn events_of(sql: &Connection, subject: &str) -> Result<Vec<Event>, LedgerError> {
    all(sql, "SELECT at, what, subject, detail FROM event WHERE subject = ?1 ORDER BY id", [subject], event)
}

fn event(row: &Row<'_>) -> Result<Event, LedgerError> {
    Ok(Event {
        at: time(row, 0)?,
        what: text(row, 1)?,
        subject: text(row, 2)?,
        detail: parsed(&text(row, 3)?, "JSON text")?,
    })
}

pub(super) fn has_password(sql: &Connection, address: &MailAddress) -> Result<bool, LedgerError> {
    let query = "SELECT EXISTS (SELECT 1 FROM account WHERE address = ?1 AND password_hash IS NOT NULL)";
    Ok(sql.query_row(query, [address.as_str()], |row| row.get(0))?)
}

pub(super) fn handed_over(sql: &Connection) -> Result<Vec<(MailAddress, DeviceName)>, LedgerError> {
    let query = "SELECT address, device FROM certificate WHERE kind = 'client' AND status IN ('live', 'held')
                 AND superseded_by IS NULL AND handed_over IS NOT NULL ORDER BY serial";
    all(sql, query, [], |row| Ok((parsed(&text(row, 0)?, "mail address")?, parsed(&text(row, 1)?, "device name")?)))
}

pub(super) fn newest_event(sql: &Connection) -> Result<Option<OffsetDateTime>, LedgerError> {
    Ok(all(sql, "SELECT at FROM event ORDER BY id DESC LIMIT 1", [], |row| time(row, 0))?.pop())
}

pub(super) fn last_event(sql: &Connection, what: &str) -> Result<Option<OffsetDateTime>, LedgerError> {
    let at: Option<i64> = sql.query_row("SELECT max(at) FROM event WHERE what = ?1", [what], |row| row.get(0))?;
    at.map(moment).transpose()
}

pub(super) fn installed(
    sql: &Connection,
    host: &HostName,
    root: &Utf8Path,
) -> Result<BTreeSet<(Utf8PathBuf, Digest)>, LedgerError> {
    let query = "SELECT path, digest FROM installed WHERE host = ?1 AND root = ?2";
    let found =
        all(sql, query, [host.as_str(), root.as_str()], |row| Ok((text(row, 0)?.into(), digest(&text(row, 1)?)?)))?;
    Ok(found.into_iter().collect())
}

pub(super) fn due(sql: &Connection, host: &HostName, root: &Utf8Path) -> Result<BTreeSet<Effect>, LedgerError> {
    let query = "SELECT effect FROM due WHERE host = ?1 AND root = ?2";
    let found = all(sql, query, [host.as_str(), root.as_str()], |row| parsed(&text(row, 0)?, "effect"))?;
    Ok(found.into_iter().collect())
}

pub(super) fn is_empty(sql: &Connection) -> Result<bool, LedgerError> {
    let query = "SELECT NOT (EXISTS (SELECT 1 FROM certificate) OR EXISTS (SELECT 1 FROM account)
                          OR EXISTS (SELECT 1 FROM dkim_key) OR EXISTS (SELECT 1 FROM event))";
    Ok(sql.query_row(query, [], |row| row.get(0))?)
}

pub(super) fn all<T>(
    sql: &Connection,
    query: &str,
    parameters: impl Params,
    of_row: impl Fn(&Row<'_>) -> Result<T, LedgerError>,
) -> Result<Vec<T>, LedgerError> {
    let mut statement = sql.prepare_cached(query)?;
    let mut rows = statement.query(parameters)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(of_row(row)?);
    }
    Ok(found)
}

pub(super) fn text(row: &Row<'_>, column: usize) -> Result<String, LedgerError> {
    Ok(row.get(column)?)
}

pub(super) fn time(row: &Row<'_>, column: usize) -> Result<OffsetDateTime, LedgerError> {
    moment(row.get(column)?)
}

pub(super) fn one_of<T: Copy, const N: usize>(
    text: &str,
    all: [T; N],
    name: fn(T) -> &'static str,
) -> Result<T, LedgerError> {
    let known = all.into_iter().find(|one| name(*one) == text);
    known.ok_or_else(|| LedgerError::Damaged { what: format!("`{text}`, which this postseal does not know") })
}
