//! DKIM keys in the ledger: their lines, and what of them is due.

use std::collections::BTreeSet;

use rusqlite::{Connection, Row, params};
use time::OffsetDateTime;

use super::read::{all, one_of, text, time};
use super::{LedgerError, Transaction, collision, digest, parsed};
use crate::dkim::rotation::{self, Line};
use crate::inventory::{DkimAlgorithm, DkimKey, DkimState};
use crate::names::{DomainName, HostName, Selector};

const COLUMNS: &str =
    "domain, algorithm, selector, state, made, since, standby, seen, confirmed, ttl, negative_ttl, unused,
                       public, key";

/// Returns all keys that are not destroyed, sorted by domain, algorithm, selector.
pub(super) fn keys(sql: &Connection) -> Result<Vec<DkimKey>, LedgerError> {
    let mut found = all(sql, &format!("SELECT {COLUMNS} FROM dkim_key WHERE state <> 'destroyed'"), [], key)?;
    found.sort_by(|a, b| (&a.domain, a.algorithm, &a.selector).cmp(&(&b.domain, b.algorithm, &b.selector)));
    Ok(found)
}

/// Returns all keys that ever were.
pub(super) fn ever(sql: &Connection) -> Result<Vec<DkimKey>, LedgerError> {
    all(sql, &format!("SELECT {COLUMNS} FROM dkim_key ORDER BY domain, selector"), [], key)
}

fn key(row: &Row<'_>) -> Result<DkimKey, LedgerError> {
    let later = |column| row.get::<_, Option<i64>>(column)?.map(super::moment).transpose();
    Ok(DkimKey {
        domain: parsed(&text(row, 0)?, "domain name")?,
        algorithm: algorithm(row, 1)?,
        selector: parsed(&text(row, 2)?, "selector")?,
        state: one_of(&text(row, 3)?, DkimState::ALL, DkimState::as_str)?,
        made: time(row, 4)?,
        since: time(row, 5)?,
        standby: row.get(6)?,
        seen: later(7)?,
        confirmed: row.get(8)?,
        ttl: row.get(9)?,
        negative_ttl: row.get(10)?,
        unused: later(11)?,
        public: text(row, 12)?,
        key: digest(&text(row, 13)?)?,
    })
}

fn algorithm(row: &Row<'_>, column: usize) -> Result<DkimAlgorithm, LedgerError> {
    one_of(&text(row, column)?, DkimAlgorithm::ALL, DkimAlgorithm::as_str)
}

fn of_line(row: &Row<'_>) -> Result<(DomainName, DkimAlgorithm), LedgerError> {
    Ok((parsed(&text(row, 0)?, "domain name")?, algorithm(row, 1)?))
}

pub(super) fn due(sql: &Connection, now: OffsetDateTime) -> Result<Vec<(DomainName, DkimAlgorithm)>, LedgerError> {
    let query = "SELECT DISTINCT domain, algorithm FROM dkim_key WHERE look_at <= ?1 OR look_at > ?2
                 ORDER BY domain, algorithm DESC";
    let values = [now, now + rotation::LONGEST_WAIT].map(OffsetDateTime::unix_timestamp);
    all(sql, query, values, of_line)
}

pub(super) fn next_due(sql: &Connection, now: OffsetDateTime) -> Result<Option<OffsetDateTime>, LedgerError> {
    let query = "SELECT min(look_at) FROM dkim_key WHERE look_at > ?1";
    let next: Option<i64> = sql.query_row(query, [now.unix_timestamp()], |row| row.get(0))?;
    next.map(super::moment).transpose()
}

pub(super) fn aged(sql: &Connection, since: OffsetDateTime) -> Result<Vec<DkimKey>, LedgerError> {
    let query = format!(
        "SELECT {COLUMNS} FROM dkim_key AS old INDEXED BY dkim_key_by_age
         WHERE state = 'active' AND since <= ?1
           AND NOT EXISTS (SELECT 1 FROM dkim_key WHERE domain = old.domain AND algorithm = old.algorithm
                           AND state IN ('generated', 'published') AND standby = 0)
         ORDER BY domain, algorithm DESC"
    );
    all(sql, &query, [since.unix_timestamp()], key)
}

pub(super) fn without_standby(sql: &Connection) -> Result<Vec<(DomainName, DkimAlgorithm)>, LedgerError> {
    let query = "SELECT domain, algorithm FROM dkim_key AS old
         WHERE state = 'active'
           AND NOT EXISTS (SELECT 1 FROM dkim_key WHERE domain = old.domain AND algorithm = old.algorithm
                           AND state IN ('generated', 'published') AND standby = 1)
         ORDER BY domain, algorithm DESC";
    all(sql, query, [], of_line)
}

pub(super) fn signers(sql: &Connection, of: DkimAlgorithm) -> Result<Vec<DomainName>, LedgerError> {
    let query = "SELECT DISTINCT domain FROM dkim_key
                 WHERE algorithm = ?1 AND state IN ('generated', 'published', 'active') ORDER BY domain";
    all(sql, query, [of.as_str()], |row| parsed(&text(row, 0)?, "domain name"))
}

pub(super) fn line(sql: &Connection, domain: &DomainName, of: DkimAlgorithm) -> Result<Line, LedgerError> {
    let query = format!(
        "SELECT {COLUMNS} FROM dkim_key WHERE domain = ?1 AND algorithm = ?2 AND state <> 'destroyed' ORDER BY selector"
    );
    let keys = all(sql, &query, params![domain.as_str(), of.as_str()], key)?;
    Ok(Line::new(domain.clone(), of, keys))
}

pub(super) fn selectors(sql: &Connection, domain: &DomainName) -> Result<Vec<Selector>, LedgerError> {
    let query = "SELECT selector FROM dkim_key WHERE domain = ?1 ORDER BY selector";
    all(sql, query, [domain.as_str()], |row| parsed(&text(row, 0)?, "selector"))
}

/// A domain, its selector of a key, and whether that was revoked because others may have it.
pub type KeyUse = (DomainName, Selector, bool);

pub(super) fn uses_of(sql: &Connection, public: &str) -> Result<Vec<KeyUse>, LedgerError> {
    let query = "SELECT domain, selector,
                        EXISTS (SELECT 1 FROM event WHERE what = 'dkim-key-compromised'
                                AND subject = selector || '._domainkey.' || domain)
                 FROM dkim_key WHERE public = ?1 ORDER BY domain, selector";
    all(sql, query, [public], |row| {
        Ok((parsed(&text(row, 0)?, "domain name")?, parsed(&text(row, 1)?, "selector")?, row.get(2)?))
    })
}

pub(super) fn domains_of(
    sql: &Connection,
    selector: &Selector,
) -> Result<Vec<(DomainName, DkimAlgorithm)>, LedgerError> {
    let query = "SELECT domain, algorithm FROM dkim_key WHERE selector = ?1 ORDER BY domain";
    all(sql, query, [selector.as_str()], of_line)
}

pub(super) fn change(sql: &Connection) -> Result<i64, LedgerError> {
    Ok(sql.query_row("SELECT number FROM dkim_change", [], |row| row.get(0))?)
}

pub(super) fn in_force(sql: &Connection) -> Result<BTreeSet<HostName>, LedgerError> {
    let query = "SELECT host FROM dkim_in_force WHERE number = (SELECT number FROM dkim_change)";
    let hosts = all(sql, query, [], |row| parsed(&text(row, 0)?, "host name"))?;
    Ok(hosts.into_iter().collect())
}

pub(super) fn derived_is_stale(sql: &Connection) -> Result<bool, LedgerError> {
    Ok(sql.query_row("SELECT EXISTS (SELECT 1 FROM stale_derived)", [], |row| row.get(0))?)
}

impl Transaction<'_> {
    /// Records that `out/` and `postseal.lock` do not show what is recorded, until they are brought up to date.
    pub fn set_derived_stale(&mut self) -> Result<(), LedgerError> {
        self.connection().execute("INSERT OR IGNORE INTO stale_derived (only_one) VALUES (1)", [])?;
        Ok(())
    }

    /// Returns the keys of a domain and algorithm that are not destroyed, this mutation included.
    pub fn dkim_line(&self, domain: &DomainName, algorithm: DkimAlgorithm) -> Result<Line, LedgerError> {
        line(self.connection(), domain, algorithm)
    }

    /// Returns every selector that the domain ever had, this mutation included.
    pub fn dkim_selectors(&self, domain: &DomainName) -> Result<Vec<Selector>, LedgerError> {
        selectors(self.connection(), domain)
    }

    /// Records a DKIM key. Its selector was never used for the domain before, and never will be again.
    pub fn add_dkim_key(&mut self, key: &DkimKey) -> Result<(), LedgerError> {
        let added = self
            .connection()
            .prepare_cached(
                "INSERT INTO dkim_key (domain, selector, algorithm, made, public, key, state, since, standby, seen, confirmed,
                                       ttl, negative_ttl, unused, look_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
            )?
            .execute(params![
                key.domain.as_str(),
                key.selector.as_str(),
                key.algorithm.as_str(),
                key.made.unix_timestamp(),
                key.public,
                key.key.to_string(),
                key.state.as_str(),
                key.since.unix_timestamp(),
                key.standby,
                seconds(key.seen),
                key.confirmed,
                key.ttl,
                key.negative_ttl,
                seconds(key.unused),
                seconds(rotation::look_at(key)),
            ]);
        match added {
            Ok(_) if key.state == DkimState::Active => self.count_dkim_change().map(|_| ()),
            Ok(_) => Ok(()),
            Err(error) => Err(refused(error, key)),
        }
    }

    /// Records what became of the keys of a line since it was read, and those that came to it. Returns how many changed.
    pub fn save_dkim_line(&mut self, line: &Line) -> Result<usize, LedgerError> {
        let before = self.dkim_line(line.domain(), line.algorithm())?;
        let old = |key: &DkimKey| before.keys().iter().find(|old| old.selector == key.selector);
        // What signed leaves before another comes in its place.
        let (last, first): (Vec<&DkimKey>, Vec<&DkimKey>) =
            line.keys().iter().filter(|key| old(key) != Some(*key)).partition(|key| key.state == DkimState::Active);
        for key in first.iter().chain(&last) {
            match old(key) {
                Some(old) => self.update_dkim_key(old, key)?,
                None => self.add_dkim_key(key)?,
            }
        }
        Ok(first.len() + last.len())
    }

    fn update_dkim_key(&mut self, old: &DkimKey, key: &DkimKey) -> Result<(), LedgerError> {
        let (was, is) = (old.state == DkimState::Active, key.state == DkimState::Active);
        let change = if was == is { None } else { Some(self.count_dkim_change()?) };
        let updated = self
            .connection()
            .prepare_cached(
                "UPDATE dkim_key SET state = ?3, since = ?4, standby = ?5, seen = ?6, confirmed = ?7, ttl = ?8,
                        negative_ttl = ?9, unused = ?10, look_at = ?11, left_at = coalesce(?12, left_at)
                 WHERE domain = ?1 AND selector = ?2",
            )?
            .execute(params![
                key.domain.as_str(),
                key.selector.as_str(),
                key.state.as_str(),
                key.since.unix_timestamp(),
                key.standby,
                seconds(key.seen),
                key.confirmed,
                key.ttl,
                key.negative_ttl,
                seconds(key.unused),
                seconds(rotation::look_at(key)),
                change.filter(|_| was),
            ]);
        updated.map(|_| ()).map_err(|error| refused(error, key))
    }

    fn count_dkim_change(&mut self) -> Result<i64, LedgerError> {
        let sql = self.connection();
        Ok(sql.query_row("UPDATE dkim_change SET number = number + 1 RETURNING number", [], |row| row.get(0))?)
    }

    /// Records that a host signs with what was to sign when the change of that number came, and, for every key whose turn was
    /// over by then on all of the hosts, that it is used no more. Returns those keys.
    pub fn set_dkim_in_force(
        &mut self,
        host: &HostName,
        change: i64,
        hosts: &[HostName],
        now: OffsetDateTime,
    ) -> Result<Vec<(DomainName, Selector)>, LedgerError> {
        self.connection().execute(
            "INSERT INTO dkim_in_force (host, number, at) VALUES (?1, ?2, ?3)
             ON CONFLICT (host) DO UPDATE SET number = max(number, ?2), at = ?3",
            params![host.as_str(), change, now.unix_timestamp()],
        )?;
        let known = all(self.connection(), "SELECT host, number FROM dkim_in_force", [], |row| {
            Ok((text(row, 0)?, row.get::<_, i64>(1)?))
        })?;
        let number = |host: &HostName| known.iter().find(|(name, _)| name == host.as_str()).map(|(_, number)| *number);
        // A host of which nothing is known may sign with anything.
        let everywhere = hosts.iter().map(|host| number(host).unwrap_or(-1)).min().unwrap_or(-1);
        let query = "SELECT DISTINCT domain, algorithm FROM dkim_key
                     WHERE left_at IS NOT NULL AND unused IS NULL AND left_at <= ?1 ORDER BY domain, algorithm DESC";
        let lines = all(self.connection(), query, [everywhere], of_line)?;
        let mut unused = Vec::new();
        for (domain, algorithm) in lines {
            let query = "SELECT selector FROM dkim_key WHERE domain = ?1 AND algorithm = ?2 AND unused IS NULL AND left_at <= ?3";
            let values = params![domain.as_str(), algorithm.as_str(), everywhere];
            let selectors: Vec<Selector> =
                all(self.connection(), query, values, |row| parsed(&text(row, 0)?, "selector"))?;
            let mut line = self.dkim_line(&domain, algorithm)?;
            for selector in selectors {
                line.unused(&selector, now);
                unused.push((domain.clone(), selector));
            }
            self.save_dkim_line(&line)?;
        }
        Ok(unused)
    }

    /// Takes back what is known of name servers about every key, and of hosts: after a restore, nothing of it needs to be true any
    /// more. Returns how many keys there are.
    pub fn doubt_dkim_keys(&mut self) -> Result<usize, LedgerError> {
        let mut lines: Vec<(DomainName, DkimAlgorithm)> =
            keys(self.connection())?.into_iter().map(|key| (key.domain, key.algorithm)).collect();
        let count = lines.len();
        lines.dedup();
        for (domain, algorithm) in lines {
            let mut line = self.dkim_line(&domain, algorithm)?;
            line.doubt();
            self.save_dkim_line(&line)?;
        }
        self.connection().execute("DELETE FROM dkim_in_force", [])?;
        Ok(count)
    }
}

fn seconds(at: Option<OffsetDateTime>) -> Option<i64> {
    at.map(OffsetDateTime::unix_timestamp)
}

fn refused(error: rusqlite::Error, key: &DkimKey) -> LedgerError {
    let DkimKey { domain, algorithm, selector, .. } = key;
    let what = match collision(&error) {
        None => return error.into(),
        Some(columns) if columns.contains("selector") => format!("the selector `{selector}` of `{domain}`"),
        Some(columns) if columns.contains("standby") => {
            format!("an {} key of `{domain}` that waits", algorithm.as_str())
        }
        Some(_) => format!("an active {} key of `{domain}`", algorithm.as_str()),
    };
    LedgerError::AlreadyExists { what }
}
