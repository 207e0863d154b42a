//! Where domains stand on the way to their policies.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};
use time::OffsetDateTime;

use super::read::{all, one_of, text, time};
use super::{LedgerError, Transaction, moment, parsed};
use crate::inventory::{MxChange, MxStep, Rollout};
use crate::names::{DomainName, HostName};
use crate::stages::{Stage, Track};

/// Returns every recorded step, sorted by domain and track.
pub(super) fn rollouts(sql: &Connection) -> Result<Vec<Rollout>, LedgerError> {
    let mut hosts: BTreeMap<DomainName, (Vec<HostName>, Vec<HostName>)> = BTreeMap::new();
    let rows = all(sql, "SELECT domain, host, is_mx FROM rollout_mx ORDER BY domain, host", [], |row| {
        let domain: DomainName = parsed(&text(row, 0)?, "domain name")?;
        let host: HostName = parsed(&text(row, 1)?, "host name")?;
        Ok((domain, host, row.get::<_, bool>(2)?))
    })?;
    for (domain, host, is_mx) in rows {
        let (mx, also) = hosts.entry(domain).or_default();
        if is_mx { mx.push(host) } else { also.push(host) }
    }
    let query = "SELECT domain, track, stage, since, seen, looked, max_age, mx_step, mx_since, mx_seen FROM rollout";
    let mut found = all(sql, query, [], |row| {
        let later = |column| row.get::<_, Option<i64>>(column)?.map(moment).transpose();
        let (track, word) = (one_of(&text(row, 1)?, Track::ALL, Track::as_str)?, text(row, 2)?);
        let damaged = || LedgerError::Damaged { what: format!("`{word}`, which is no stage") };
        let stage = Stage::of(track, &word).ok_or_else(damaged)?;
        let step: Option<String> = row.get(7)?;
        let step = step.map(|step| one_of(&step, MxStep::ALL, MxStep::as_str)).transpose()?;
        let seen = later(9)?;
        let change = step.zip(later(8)?).map(|(step, since)| MxChange { step, since, seen });
        let rollout = Rollout::new(parsed(&text(row, 0)?, "domain name")?, stage, time(row, 3)?);
        Ok(Rollout { seen: later(4)?, looked: later(5)?, max_age: row.get(6)?, change, ..rollout })
    })?;
    for rollout in found.iter_mut().filter(|rollout| rollout.stage.track() == Track::MtaSts) {
        (rollout.mx, rollout.also) = hosts.remove(&rollout.domain).unwrap_or_default();
    }
    found.sort_by(|a, b| (&a.domain, a.stage.track()).cmp(&(&b.domain, b.stage.track())));
    Ok(found)
}

impl Transaction<'_> {
    /// Takes back what is known of MTA-STS after a restore: the site may have gone on since, so that senders remember a policy for
    /// up to so many seconds, by domain. Returns how many domains that is about.
    pub fn doubt_rollouts(&mut self, longest: &dyn Fn(&DomainName) -> u32) -> Result<usize, LedgerError> {
        let first = Stage::first(Track::MtaSts);
        let mut doubted: Vec<Rollout> = rollouts(self.connection())?;
        doubted.retain(|one| one.stage.track() == Track::MtaSts && one.stage != first);
        for rollout in &mut doubted {
            rollout.max_age = rollout.max_age.max(Some(longest(&rollout.domain)));
            rollout.seen = None;
            rollout.change = rollout.change.map(|change| MxChange { seen: None, ..change });
            self.save_rollout(rollout)?;
        }
        Ok(doubted.len())
    }

    /// Records where a domain stands, instead of what was recorded of that track.
    pub fn save_rollout(&mut self, rollout: &Rollout) -> Result<(), LedgerError> {
        let sql = self.connection();
        let domain = rollout.domain.as_str();
        let seconds = |at: Option<OffsetDateTime>| at.map(OffsetDateTime::unix_timestamp);
        let change = rollout.change;
        sql.prepare_cached(
            "INSERT INTO rollout (domain, track, stage, since, seen, looked, max_age, mx_step, mx_since, mx_seen)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
             ON CONFLICT (domain, track) DO UPDATE SET
                 stage = ?3, since = ?4, seen = ?5, looked = ?6, max_age = ?7, mx_step = ?8, mx_since = ?9, mx_seen = ?10",
        )?
        .execute(params![
            domain,
            rollout.stage.track().as_str(),
            rollout.stage.as_str(),
            rollout.since.unix_timestamp(),
            seconds(rollout.seen),
            seconds(rollout.looked),
            rollout.max_age,
            change.map(|change| change.step.as_str()),
            seconds(change.map(|change| change.since)),
            seconds(change.and_then(|change| change.seen)),
        ])?;
        if rollout.stage.track() == Track::MtaSts {
            sql.prepare_cached("DELETE FROM rollout_mx WHERE domain = ?1")?.execute([domain])?;
            let mut insert = sql.prepare_cached("INSERT INTO rollout_mx (domain, host, is_mx) VALUES (?1, ?2, ?3)")?;
            for (hosts, is_mx) in [(&rollout.mx, true), (&rollout.also, false)] {
                for host in hosts {
                    insert.execute(params![domain, host.as_str(), is_mx])?;
                }
            }
        }
        Ok(())
    }
}
