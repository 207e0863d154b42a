//! What other mail servers reported.

use rusqlite::{Connection, OptionalExtension as _, params};
use time::OffsetDateTime;

use super::read::{all, text};
use super::{Ledger, LedgerError, Transaction, moment, parsed};
use crate::names::DomainName;
use crate::policy::evidence::{DmarcEvidence, DmarcSource, TlsEvidence};
use crate::reports::{Report, Rows};

/// What became of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// It counts.
    New,
    /// It was recorded before.
    Known,
    /// Another one of the same number was recorded before, and stays.
    Conflict,
}

/// What the reports of one kind tell of one domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportSums {
    /// The site's domain.
    pub domain: DomainName,
    /// How many reports there are.
    pub reports: u64,
    /// The end of the newest report's span.
    pub newest: OffsetDateTime,
    /// How many messages or sessions.
    pub all: u64,
    /// How many of them passed DMARC, or succeeded.
    pub passed: u64,
}

/// Counted numbers are never negative; what does not fit is as good as the most.
fn sum(row: &rusqlite::Row<'_>, column: usize) -> Result<u64, LedgerError> {
    Ok(u64::try_from(row.get::<_, i64>(column)?).unwrap_or_default())
}

fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Returns how many reports of a kind about a domain end after a time, and when the newest does.
fn count(
    sql: &Connection,
    kind: &str,
    domain: &DomainName,
    since: OffsetDateTime,
) -> Result<(u64, Option<OffsetDateTime>), LedgerError> {
    let query = "SELECT COUNT(*), MAX(ends) FROM report WHERE kind = ?1 AND domain = ?2 AND ends > ?3";
    let found = all(sql, query, params![kind, domain.as_str(), since.unix_timestamp()], |row| {
        Ok((sum(row, 0)?, row.get::<_, Option<i64>>(1)?.map(moment).transpose()?))
    })?;
    Ok(found.first().copied().unwrap_or_default())
}

pub(super) const DMARC: &str = "
    SELECT address, header_from, SUM(messages), SUM(dkim), SUM(spf), SUM(passed)
    FROM report JOIN dmarc_source ON dmarc_source.report = report.number
    WHERE kind = 'dmarc' AND domain = ?1 AND ends > ?2
    GROUP BY address, header_from ORDER BY SUM(messages) DESC, address, header_from";

pub(super) const TLS: &str = "
    SELECT result, mx, SUM(sessions)
    FROM report JOIN tls_sessions ON tls_sessions.report = report.number
    WHERE kind = 'tls' AND domain = ?1 AND ends > ?2
    GROUP BY result, mx ORDER BY SUM(sessions) DESC, result, mx";

impl Ledger {
    /// Returns what the DMARC reports tell of a domain of the site, and of names below it, whose span ends after a time.
    pub fn dmarc_evidence(&self, domain: &DomainName, since: OffsetDateTime) -> Result<DmarcEvidence, LedgerError> {
        self.at_one_moment(|sql| {
            let (reports, newest) = count(sql, "dmarc", domain, since)?;
            let sources = all(sql, DMARC, params![domain.as_str(), since.unix_timestamp()], |row| {
                Ok(DmarcSource {
                    address: parsed(&text(row, 0)?, "IP address")?,
                    from: parsed(&text(row, 1)?, "domain name")?,
                    messages: sum(row, 2)?,
                    dkim: sum(row, 3)?,
                    spf: sum(row, 4)?,
                    passed: sum(row, 5)?,
                })
            })?;
            Ok(DmarcEvidence { reports, newest, sources })
        })
    }

    /// Returns what the TLS reports tell of a domain of the site, and of names below it, whose span ends after a time.
    pub fn tls_evidence(&self, domain: &DomainName, since: OffsetDateTime) -> Result<TlsEvidence, LedgerError> {
        self.at_one_moment(|sql| {
            let (reports, newest) = count(sql, "tls", domain, since)?;
            let mut evidence = TlsEvidence { reports, newest, ..TlsEvidence::default() };
            let rows = all(sql, TLS, params![domain.as_str(), since.unix_timestamp()], |row| {
                Ok((text(row, 0)?, Some(text(row, 1)?).filter(|mx| !mx.is_empty()), sum(row, 2)?))
            })?;
            for (result, mx, sessions) in rows {
                if result.is_empty() {
                    evidence.successful += sessions;
                } else {
                    evidence.failed += sessions;
                    evidence.failures.push((result, mx, sessions));
                }
            }
            Ok(evidence)
        })
    }

    /// Returns who reported of a domain with a span that ends after a time, with the number of reports, most first.
    pub fn reporters(
        &self,
        kind: &str,
        domain: &DomainName,
        since: OffsetDateTime,
    ) -> Result<Vec<(String, u64)>, LedgerError> {
        let query = "SELECT reporter, COUNT(*) FROM report WHERE kind = ?1 AND domain = ?2 AND ends > ?3
                     GROUP BY reporter ORDER BY COUNT(*) DESC, reporter";
        let since = since.unix_timestamp();
        all(&self.sql, query, params![kind, domain.as_str(), since], |row| Ok((text(row, 0)?, sum(row, 1)?)))
    }

    /// Returns the sums of the reports of a kind whose span ends after a time, for each domain that has any, sorted.
    pub fn report_sums(&self, kind: &str, since: OffsetDateTime) -> Result<Vec<ReportSums>, LedgerError> {
        let (all_of, good_of) = match kind {
            "dmarc" => ("SELECT SUM(messages) FROM dmarc_source", "SELECT SUM(passed) FROM dmarc_source"),
            _ => (
                "SELECT SUM(sessions) FROM tls_sessions",
                "SELECT SUM(iif(result = '', sessions, 0)) FROM tls_sessions",
            ),
        };
        let query = format!(
            "SELECT domain, COUNT(*), MAX(ends), coalesce(SUM(({all_of} WHERE report = number)), 0),
                    coalesce(SUM(({good_of} WHERE report = number)), 0)
             FROM report WHERE kind = ?1 AND ends > ?2 GROUP BY domain ORDER BY domain"
        );
        all(&self.sql, &query, params![kind, since.unix_timestamp()], |row| {
            Ok(ReportSums {
                domain: parsed(&text(row, 0)?, "domain name")?,
                reports: sum(row, 1)?,
                newest: moment(row.get(2)?)?,
                all: sum(row, 3)?,
                passed: sum(row, 4)?,
            })
        })
    }
}

impl Transaction<'_> {
    /// Records a report once, as one about a domain of the site.
    pub fn record_report(
        &mut self,
        report: &Report,
        domain: &DomainName,
        now: OffsetDateTime,
    ) -> Result<Recorded, LedgerError> {
        let sql = self.connection();
        let digest = report.digest().to_string();
        let key = params![report.kind(), report.reporter, report.id, report.domain.as_str()];
        let known: Option<String> = sql
            .prepare_cached("SELECT digest FROM report WHERE kind = ?1 AND reporter = ?2 AND id = ?3 AND about = ?4")?
            .query_row(key, |row| row.get(0))
            .optional()?;
        if let Some(known) = known {
            return Ok(if known == digest { Recorded::Known } else { Recorded::Conflict });
        }
        sql.prepare_cached(
            "INSERT INTO report (kind, reporter, id, about, domain, begins, ends, read_at, digest)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![
            report.kind(),
            report.reporter,
            report.id,
            report.domain.as_str(),
            domain.as_str(),
            report.begins.unix_timestamp(),
            report.ends.unix_timestamp(),
            now.unix_timestamp(),
            digest
        ])?;
        add_rows(sql, sql.last_insert_rowid(), &report.rows)?;
        Ok(Recorded::New)
    }

    /// Forgets the reports whose span ended before a time; returns how many.
    pub fn forget_reports(&mut self, before: OffsetDateTime) -> Result<usize, LedgerError> {
        Ok(self.connection().execute("DELETE FROM report WHERE ends <= ?1", [before.unix_timestamp()])?)
    }
}

fn add_rows(sql: &Connection, report: i64, rows: &Rows) -> Result<(), LedgerError> {
    match rows {
        Rows::Dmarc(sources) => {
            let mut add = sql.prepare_cached(
                "INSERT INTO dmarc_source (report, address, header_from, messages, dkim, spf, passed)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?;
            for source in sources {
                add.execute(params![
                    report,
                    source.address.to_string(),
                    source.from.as_str(),
                    number(source.messages),
                    number(source.dkim),
                    number(source.spf),
                    number(source.passed)
                ])?;
            }
        }
        Rows::Tls(sessions) => {
            let mut add =
                sql.prepare_cached("INSERT INTO tls_sessions (report, result, mx, sessions) VALUES (?1, ?2, ?3, ?4)")?;
            for row in sessions {
                let mx = row.mx.as_ref().map_or("", DomainName::as_str);
                add.execute(params![report, row.result.unwrap_or_default(), mx, number(row.sessions)])?;
            }
        }
    }
    Ok(())
}
