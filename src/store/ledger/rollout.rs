//! Where domains stand on the way to their policies.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};

use super::read::{all, text, time};
use super::{LedgerError, Transaction, moment, parsed};
use crate::inventory::Rollout;
use crate::names::{DomainName, HostName};
use crate::stages::{Stage, Track};

/// Returns every recorded step, sorted by domain and track.
pub(super) fn rollouts(sql: &Connection) -> Result<Vec<Rollout>, LedgerError> {
    let mut hosts: BTreeMap<DomainName, Vec<HostName>> = BTreeMap::new();
    let rows = all(sql, "SELECT domain, host FROM rollout_mx", [], |row| {
        Ok((parsed(&text(row, 0)?, "domain")?, parsed(&text(row, 1)?, "host name")?))
    })?;
    for (domain, host) in rows {
        hosts.entry(domain).or_default().push(host);
    }
    let mut found = all(sql, "SELECT domain, track, stage, since, max_age, mx_since FROM rollout", [], |row| {
        let (track, word) = (text(row, 1)?, text(row, 2)?);
        let track = Track::ALL.into_iter().find(|known| known.as_str() == track);
        let stage = track.and_then(|track| Stage::of(track, &word));
        let damaged = || LedgerError::Damaged { what: format!("`{word}`, which is no stage") };
        Ok(Rollout {
            domain: parsed(&text(row, 0)?, "domain")?,
            stage: stage.ok_or_else(damaged)?,
            since: time(row, 3)?,
            max_age: row.get(4)?,
            mx: Vec::new(),
            mx_since: row.get::<_, Option<i64>>(5)?.map(moment).transpose()?,
        })
    })?;
    for rollout in found.iter_mut().filter(|rollout| rollout.stage.track() == Track::MtaSts) {
        let mut mx = hosts.remove(&rollout.domain).unwrap_or_default();
        mx.sort();
        rollout.mx = mx;
    }
    found.sort_by(|a, b| (&a.domain, a.stage.track()).cmp(&(&b.domain, b.stage.track())));
    Ok(found)
}

impl Transaction<'_> {
    /// Records where a domain stands, instead of what was recorded of that track.
    pub fn save_rollout(&mut self, rollout: &Rollout) -> Result<(), LedgerError> {
        let sql = self.connection();
        let domain = rollout.domain.as_str();
        sql.execute(
            "INSERT INTO rollout (domain, track, stage, since, max_age, mx_since) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (domain, track) DO UPDATE SET stage = ?3, since = ?4, max_age = ?5, mx_since = ?6",
            params![
                domain,
                rollout.stage.track().as_str(),
                rollout.stage.as_str(),
                rollout.since.unix_timestamp(),
                rollout.max_age,
                rollout.mx_since.map(time::OffsetDateTime::unix_timestamp),
            ],
        )?;
        if rollout.stage.track() == Track::MtaSts {
            sql.execute("DELETE FROM rollout_mx WHERE domain = ?1", [domain])?;
            for host in &rollout.mx {
                sql.execute("INSERT INTO rollout_mx (domain, host) VALUES (?1, ?2)", [domain, host.as_str()])?;
            }
        }
        Ok(())
    }
}
