//! What was issued and decided, in SQLite. All SQL of the program is in this module; none of it is seen outside.
//!
//! Invariants are constraints of `schema.sql`. A mutation is a closure on a [`Transaction`] that can run again, so that
//! a server with many writers can take SQLite's place.

mod audit;
mod dkim;
mod read;
mod reports;
mod rollout;
mod transaction;

use camino::{Utf8Path, Utf8PathBuf};
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior, ffi};
use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;
use time::OffsetDateTime;

use crate::dkim::rotation::Line;
use crate::install::Effect;
use crate::inventory::{CertificateStatus, DkimAlgorithm, DkimKey, Inventory, Rollout};
use crate::names::{DeviceName, Digest, DomainName, HostName, MailAddress, Selector, Serial, shown};
use crate::password;
use crate::secret::Secret;

pub use self::audit::{CertificateRow, CrlRow, KeyRow};
pub use self::dkim::KeyUse;
pub use self::read::{AuthorityKey, ClientPem, Event, RecordedCa, RecordedIssuingCa, Referred, Watched};
pub use self::reports::{Recorded, ReportSums};
pub use self::transaction::{ClientIssuer, NewCertificate, NewClient, Transaction};

/// Why the ledger refused or failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// Something of that name is recorded already.
    #[error("{what} exists already")]
    AlreadyExists {
        /// What exists, with its name in backticks.
        what: String,
    },
    /// Another program holds the ledger's file.
    #[error("the ledger is in use by another program; let it finish, and run the command again")]
    Busy,
    /// SQLite failed, or the file is damaged.
    #[error("the ledger could not be used: {0}")]
    Database(String),
    /// The system lets nobody write the ledger, or beside it.
    #[error("the ledger cannot be written; make state/ writable for this user, and run the command again")]
    CannotWrite,
    /// A recorded value is not of its kind.
    #[error("the ledger holds {what}; bring `state` back from a backup")]
    Damaged {
        /// What it holds, and what that is not.
        what: String,
    },
    /// There is no room to write.
    #[error("the disk that holds state/ledger.sqlite is full; free some space, and run the command again")]
    Full,
    /// The ledger was written by a newer program.
    #[error("the ledger has version {found} and this postseal knows {known} at most; use a newer postseal")]
    Newer {
        /// The version of the ledger.
        found: i64,
        /// The newest version that this program knows.
        known: i64,
    },
    /// Nothing of that name is recorded.
    #[error("{what} is not recorded")]
    NotFound {
        /// What is missing, with its name in backticks.
        what: String,
    },
    /// The file is not a ledger of postseal's.
    #[error("the file is another program's database, not a ledger")]
    NotOurs,
    /// A run was killed or is under way, and what it recorded lies beside the ledger, where nothing can be written.
    #[error("`{0}` holds what is not yet in the ledger; run any postseal command where the site can be written")]
    Unfinished(String),
    /// A constraint forbids it.
    #[error("the ledger refuses it: {0}")]
    Refused(String),
}

impl From<rusqlite::Error> for LedgerError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy,
            Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => Self::CannotWrite,
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Damaged { what: format!("what SQLite cannot read ({error})") }
            }
            Some(ErrorCode::ConstraintViolation) => {
                let text = error.to_string();
                Self::Refused(text.strip_prefix("CHECK constraint failed: ").unwrap_or(&text).to_owned())
            }
            _ => Self::Database(error.to_string()),
        }
    }
}

/// Returns the columns of the unique constraint that was violated, if it was that.
fn collision(error: &rusqlite::Error) -> Option<String> {
    let code = error.sqlite_error()?.extended_code;
    let unique = [ffi::SQLITE_CONSTRAINT_UNIQUE, ffi::SQLITE_CONSTRAINT_PRIMARYKEY].contains(&code);
    unique.then(|| error.to_string())
}

/// The recorded facts of a site.
#[derive(Debug)]
pub struct Ledger {
    sql: Connection,
}

/// Marks the file as a ledger of postseal's: "pseL".
const APPLICATION: i64 = 0x7073_654c;

/// Leads from an empty file to the newest schema; the version of a ledger is the number of steps that it took.
const STEPS: [&str; 5] = [
    include_str!("schema.sql"),
    include_str!("installed.sql"),
    include_str!("life.sql"),
    include_str!("rotation.sql"),
    include_str!("policies.sql"),
];

impl Ledger {
    /// Opens the ledger in a file that exists; an empty file becomes an empty ledger.
    pub fn open(path: &Utf8Path) -> Result<Self, LedgerError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Self::prepare(Connection::open_with_flags(path, flags)?)
    }

    /// Opens the ledger for somebody who only reads, and may not be able to do more.
    ///
    /// SQLite needs to write beside a ledger even to read it. Where that cannot be, as on a disk that is read-only, it is read
    /// as it lies there, if all that was recorded has reached it.
    pub fn open_for_reading(path: &Utf8Path) -> Result<Self, LedgerError> {
        let opened = Self::open(path).and_then(|ledger| ledger.is_empty().map(|_| ledger));
        let Err(LedgerError::CannotWrite) = opened else { return opened };
        let log = format!("{path}-wal");
        if fs::metadata(&log).is_ok_and(|log| log.len() > 0) {
            return Err(LedgerError::Unfinished(log));
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
        let escape = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02x}") };
        let escaped: String = path.as_str().bytes().map(escape).collect();
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let sql = Connection::open_with_flags(format!("file:{escaped}?immutable=1"), flags)?;
        if steps_taken(&sql)? < STEPS.len() { Err(LedgerError::CannotWrite) } else { Ok(Self { sql }) }
    }

    /// Opens a ledger that [`Self::copy_into`] wrote.
    pub fn open_restored(path: &Utf8Path) -> Result<Self, LedgerError> {
        let ledger = Self::open(path)?;
        ledger.sql.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
        Ok(ledger)
    }

    /// Copies all that is recorded, and nothing that was deleted, into an empty file.
    pub fn copy_into(&self, path: &Utf8Path) -> Result<(), LedgerError> {
        self.sql.execute("VACUUM INTO ?1", [path.as_str()])?;
        Ok(())
    }

    fn prepare(mut sql: Connection) -> Result<Self, LedgerError> {
        sql.busy_timeout(Duration::from_mins(1))?;
        sql.pragma_update(None, "foreign_keys", true)?;
        sql.pragma_update(None, "synchronous", "FULL")?;
        // A hash that was replaced does not stay in the file.
        sql.pragma_update_and_check(None, "secure_delete", true, |_| Ok(()))?;
        if steps_taken(&sql)? < STEPS.len() {
            sql.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
            migrate(&mut sql)?;
        }
        Ok(Self { sql })
    }

    /// Runs a mutation as a whole or not at all. The closure may be run more than once.
    pub fn transact<T, E: From<LedgerError>>(
        &mut self,
        mut mutation: impl FnMut(&mut Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        // Immediate: two writers wait for each other at the beginning, and neither fails in the middle.
        let begun = rusqlite::Transaction::new(&mut self.sql, TransactionBehavior::Immediate);
        let mut transaction = Transaction::new(begun.map_err(LedgerError::from)?);
        let value = mutation(&mut transaction)?;
        transaction.commit()?;
        Ok(value)
    }

    /// Returns all that rendering needs, as of one moment.
    pub fn inventory(&self) -> Result<Inventory, LedgerError> {
        self.at_one_moment(read::inventory)
    }

    /// Returns the credentials table: a line `ADDRESS:HASH` for every account that has a password.
    pub fn credentials(&self) -> Result<Secret, LedgerError> {
        read::credentials(&self.sql)
    }

    /// Tells whether the password opens the account: its hash is the recorded one.
    pub fn opens(&self, address: &MailAddress, password: &Secret) -> Result<bool, LedgerError> {
        let credentials = self.credentials()?;
        let lines = credentials.expose_str().unwrap_or_default().lines();
        let hash = lines.filter_map(|line| line.split_once(':')).find(|(login, _)| *login == address.as_str());
        Ok(hash.is_some_and(|(_, hash)| password::opens(password, hash)))
    }

    /// Returns the list that daemons trust: the twins of all live certificates by serial, or else the placeholder's.
    pub fn trust_list(&self) -> Result<String, LedgerError> {
        self.at_one_moment(read::trust_list)?
            .ok_or_else(|| LedgerError::NotFound { what: "a placeholder for the empty trust list".to_owned() })
    }

    /// Returns what must lie in files, for the ledger refers to it.
    pub fn referred(&self) -> Result<Referred, LedgerError> {
        read::referred(&self.sql)
    }

    /// Returns the live site CA.
    pub fn site_ca(&self) -> Result<Option<RecordedCa>, LedgerError> {
        read::site_ca(&self.sql)
    }

    /// Returns the certificates that belong to a client's serial.
    pub fn client_pem(&self, serial: &Serial) -> Result<ClientPem, LedgerError> {
        read::client_pem(&self.sql, serial)
    }

    /// Returns the issuing CA for all clients that issues now.
    pub fn issuing_ca(&self) -> Result<Option<RecordedIssuingCa>, LedgerError> {
        Ok(read::issuing_cas(&self.sql)?.into_iter().find(|ca| ca.is_current))
    }

    /// Returns every issuing CA for all clients, the oldest first.
    pub fn issuing_cas(&self) -> Result<Vec<RecordedIssuingCa>, LedgerError> {
        read::issuing_cas(&self.sql)
    }

    /// Returns the CRLs of all live issuing CAs, as PEM, the oldest CA's first; empty without any.
    pub fn crls(&self) -> Result<String, LedgerError> {
        read::crls(&self.sql)
    }

    /// Returns the newest CRL of an issuing CA, as PEM.
    pub fn crl(&self, issuer: &Serial) -> Result<Option<String>, LedgerError> {
        read::crl(&self.sql, issuer)
    }

    /// Returns what servers read that heed CRLs: the list of twins, followed by the CRLs.
    pub fn twins_and_crls(&self) -> Result<String, LedgerError> {
        let read = |sql: &Connection| Ok(read::trust_list(sql)?.unwrap_or_default() + &read::crls(sql)?);
        self.at_one_moment(read)
    }

    /// Returns what was last seen of the files that an ACME client keeps on a host below the root.
    pub fn watched(&self, host: &HostName, root: &Utf8Path) -> Result<Vec<Watched>, LedgerError> {
        read::watched(&self.sql, host, root)
    }

    /// Returns of which expiries, and how many days before, mails told: serial and days.
    pub fn notices(&self) -> Result<BTreeSet<(Serial, u16)>, LedgerError> {
        read::notices(&self.sql)
    }

    /// Returns the certificate of a serial, of whatever kind, as PEM.
    pub fn certificate_pem(&self, serial: &Serial) -> Result<Option<String>, LedgerError> {
        read::certificate_pem(&self.sql, serial)
    }

    /// Returns whose a client certificate is, whatever its status.
    pub fn whose(&self, serial: &Serial) -> Result<Option<(MailAddress, DeviceName, CertificateStatus)>, LedgerError> {
        read::whose(&self.sql, serial)
    }

    /// Returns all events, the oldest first.
    pub fn events(&self) -> Result<Vec<Event>, LedgerError> {
        read::events(&self.sql)
    }

    /// Returns what happened to somebody or something, the oldest first.
    pub fn events_of(&self, subject: &str) -> Result<Vec<Event>, LedgerError> {
        read::events_of(&self.sql, subject)
    }

    /// Tells whether an account has a password.
    pub fn has_password(&self, address: &MailAddress) -> Result<bool, LedgerError> {
        read::has_password(&self.sql, address)
    }

    /// Returns the devices whose newest certificate was handed over.
    pub fn handed_over(&self) -> Result<Vec<(MailAddress, DeviceName)>, LedgerError> {
        read::handed_over(&self.sql)
    }

    /// Returns when the newest event happened, as the clock was then.
    pub fn newest_event(&self) -> Result<Option<OffsetDateTime>, LedgerError> {
        read::newest_event(&self.sql)
    }

    /// Returns when something happened last, if it ever did.
    pub fn last_event(&self, what: &str) -> Result<Option<OffsetDateTime>, LedgerError> {
        read::last_event(&self.sql, what)
    }

    /// Returns path and digest of everything that was ever installed on a host below the root.
    pub fn installed(&self, host: &HostName, root: &Utf8Path) -> Result<BTreeSet<(Utf8PathBuf, Digest)>, LedgerError> {
        read::installed(&self.sql, host, root)
    }

    /// Returns what the daemons of a host were to be told by installations that did not get to say it.
    pub fn due(&self, host: &HostName, root: &Utf8Path) -> Result<BTreeSet<Effect>, LedgerError> {
        read::due(&self.sql, host, root)
    }

    /// Returns where domains stand on the way to their policies, sorted by domain and track.
    pub fn rollouts(&self) -> Result<Vec<Rollout>, LedgerError> {
        self.at_one_moment(rollout::rollouts)
    }

    /// Returns the domains and algorithms of which something may be due: a name server to be asked, or a wait that is over.
    pub fn dkim_due(&self, now: OffsetDateTime) -> Result<Vec<(DomainName, DkimAlgorithm)>, LedgerError> {
        dkim::due(&self.sql, now)
    }

    /// Returns when something may be due after now; what waits for an administrator or an installation alone is not counted.
    pub fn next_dkim_due(&self, now: OffsetDateTime) -> Result<Option<OffsetDateTime>, LedgerError> {
        dkim::next_due(&self.sql, now)
    }

    /// Returns the keys that sign since then or longer, where no other one waits for its turn.
    pub fn dkim_aged(&self, since: OffsetDateTime) -> Result<Vec<DkimKey>, LedgerError> {
        dkim::aged(&self.sql, since)
    }

    /// Returns the domains and algorithms that sign, and have no key that waits for an emergency.
    pub fn dkim_without_standby(&self) -> Result<Vec<(DomainName, DkimAlgorithm)>, LedgerError> {
        dkim::without_standby(&self.sql)
    }

    /// Returns the domains that sign by the algorithm, or have a key that is to.
    pub fn dkim_signers(&self, algorithm: DkimAlgorithm) -> Result<Vec<DomainName>, LedgerError> {
        dkim::signers(&self.sql, algorithm)
    }

    /// Returns every DKIM key that there ever was, destroyed ones as well.
    pub fn dkim_keys_ever(&self) -> Result<Vec<DkimKey>, LedgerError> {
        dkim::ever(&self.sql)
    }

    /// Returns the keys of a domain and algorithm that are not destroyed.
    pub fn dkim_line(&self, domain: &DomainName, algorithm: DkimAlgorithm) -> Result<Line, LedgerError> {
        dkim::line(&self.sql, domain, algorithm)
    }

    /// Returns every selector that the domain ever had.
    pub fn dkim_selectors(&self, domain: &DomainName) -> Result<Vec<Selector>, LedgerError> {
        dkim::selectors(&self.sql, domain)
    }

    /// Returns every domain and algorithm that ever had a key of this selector, whatever became of it.
    pub fn dkim_domains_of(&self, selector: &Selector) -> Result<Vec<(DomainName, DkimAlgorithm)>, LedgerError> {
        dkim::domains_of(&self.sql, selector)
    }

    /// Returns what ever had the key of this public half, in the form of a record's `p=` tag, whatever became of it.
    pub fn dkim_uses_of(&self, public: &str) -> Result<Vec<KeyUse>, LedgerError> {
        dkim::uses_of(&self.sql, public)
    }

    /// Returns the number of the newest change of what signs; [`Transaction::set_dkim_in_force`] takes it.
    pub fn dkim_change(&self) -> Result<i64, LedgerError> {
        dkim::change(&self.sql)
    }

    /// Returns the hosts on which the newest change of what signs is known to be in force.
    pub fn dkim_in_force(&self) -> Result<BTreeSet<HostName>, LedgerError> {
        dkim::in_force(&self.sql)
    }

    /// Tells whether `out/` and `postseal.lock` may be older than the ledger, as after a run that was killed.
    pub fn derived_is_stale(&self) -> Result<bool, LedgerError> {
        dkim::derived_is_stale(&self.sql)
    }

    /// Records that `out/` and `postseal.lock` show what is recorded.
    pub fn derived_is_fresh(&self) -> Result<(), LedgerError> {
        if self.derived_is_stale()? {
            self.sql.execute("DELETE FROM stale_derived", [])?;
        }
        Ok(())
    }

    /// Tells whether nothing was ever recorded.
    pub fn is_empty(&self) -> Result<bool, LedgerError> {
        read::is_empty(&self.sql)
    }

    fn at_one_moment<T>(&self, read: impl Fn(&Connection) -> Result<T, LedgerError>) -> Result<T, LedgerError> {
        let snapshot = rusqlite::Transaction::new_unchecked(&self.sql, TransactionBehavior::Deferred)?;
        read(&snapshot)
    }
}

fn steps_taken(sql: &Connection) -> Result<usize, LedgerError> {
    let pragma = |name| sql.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (application, version) = (pragma("application_id")?, pragma("user_version")?);
    if ![0, APPLICATION].contains(&application) || (application == 0 && version != 0) {
        return Err(LedgerError::NotOurs);
    }
    let known = i64::try_from(STEPS.len()).unwrap_or(i64::MAX);
    usize::try_from(version)
        .ok()
        .filter(|taken| *taken <= STEPS.len())
        .ok_or(LedgerError::Newer { found: version, known })
}

fn migrate(sql: &mut Connection) -> Result<(), LedgerError> {
    let transaction = rusqlite::Transaction::new(sql, TransactionBehavior::Immediate)?;
    // Asked again: another run may have been quicker.
    for step in STEPS.iter().skip(steps_taken(&transaction)?) {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.pragma_update(None, "user_version", i64::try_from(STEPS.len()).unwrap_or(i64::MAX))?;
    Ok(transaction.commit()?)
}

/// Returns a recorded text as what it stands for.
fn parsed<T: std::str::FromStr>(text: &str, kind: &str) -> Result<T, LedgerError> {
    text.parse().map_err(|_| LedgerError::Damaged { what: format!("`{}`, which is no {kind}", shown(text)) })
}

/// Returns a recorded number of seconds as a time.
fn moment(seconds: i64) -> Result<OffsetDateTime, LedgerError> {
    OffsetDateTime::from_unix_timestamp(seconds)
        .map_err(|_| LedgerError::Damaged { what: format!("`{seconds}`, which is no time") })
}

fn digest(text: &str) -> Result<Digest, LedgerError> {
    parsed(text, "digest")
}

#[cfg(test)]
mod tests;
