//! The embedded backend: SQLite in WAL mode with full sync. One row per thing as JSON, so that `sqlite3` shows it; a journal of
//! commits; the appended records. [`super::schema`] has the tables, [`super::encode`] the texts, [`super::load`] the way back.

use std::fs::{self, File, TryLockError};
use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, params, params_from_iter};

use super::encode::{self, Encoded};
use super::pool::Pool;
use super::schema::{self, Totals};
use super::witness::{self, Witness};
use super::{Commit, Error, Record, RecordQuery, State, load, restore};

pub(super) const FILE: &str = "state.sqlite";
const LOG: &str = "state.sqlite-wal";
/// Commits the journal keeps, and the bytes that they may have.
const JOURNAL_LENGTH: i64 = 100_000;
const JOURNAL_BYTES: i64 = 256 << 20;
/// Decisions and alarm transitions that are kept; the oldest go first.
const RECORDS_LENGTH: i64 = 1_000_000;
/// History is cut once in so many commits, a little more of it than was added since.
const CUT_EVERY: u64 = 32;
/// Pages that are given back to the file system at once, when more than a quarter of the file is unused.
const SHRINK_PAGES: i64 = 512;
const SHRINK_ABOVE: i64 = 4_096;

/// The write-ahead log is folded in after so many pages (32 MiB), and its file is no longer than this afterwards.
const SETTINGS: &str = "
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
PRAGMA wal_autocheckpoint = 8192;
PRAGMA journal_size_limit = 67108864;
PRAGMA cache_size = -8192;
";

pub(super) struct Database {
    connection: Connection,
    installation: String,
    witness: Option<Witness>,
    /// Of all rows, after the newest commit.
    totals: Totals,
    /// Bytes that the journal was ever given.
    written: i64,
    /// Records since history was last cut.
    appended: i64,
    /// Held for as long as we live: one server per directory.
    _lock: Option<File>,
}

impl From<rusqlite::Error> for Error {
    fn from(e: rusqlite::Error) -> Error {
        match e.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => Error::Damaged(e.to_string()),
            Some(rusqlite::ErrorCode::DiskFull) => Error::Full(e.to_string()),
            _ => Error::Database(format!("cannot be used: {e}")),
        }
    }
}

impl From<serde_json::Error> for Error {
    fn from(e: serde_json::Error) -> Error {
        Error::Damaged(format!("a row cannot be read: {e}"))
    }
}

fn io(what: &str, e: std::io::Error) -> Error {
    Error::Database(format!("cannot be opened: {what}: {e}"))
}

/// One process at a time works in a data directory.
pub(super) fn lock(dir: &Path) -> Result<File, Error> {
    fs::create_dir_all(dir).map_err(|e| io(&dir.display().to_string(), e))?;
    let lock = File::create(dir.join("lock")).map_err(|e| io("lock", e))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(Error::InUse(dir.display().to_string())),
        Err(TryLockError::Error(e)) => Err(io("lock", e)),
    }
}

impl Database {
    pub(super) fn open(dir: Option<&Path>, new_installation: &str, pool: &mut Pool) -> Result<(Database, State), Error> {
        let (mut connection, lock) = match dir {
            None => (Connection::open_in_memory()?, None),
            Some(dir) => {
                let lock = lock(dir)?;
                restore::check_not_halfway(dir)?;
                (Connection::open(dir.join(FILE))?, Some(lock))
            }
        };
        // What is refused is left as it is: its write-ahead log is not folded in when we let go.
        let has_log = dir.is_some_and(|dir| dir.join(LOG).metadata().is_ok_and(|log| log.len() > 0));
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, has_log)?;
        let found = schema::version(&connection)?;
        if found > schema::SCHEMA {
            return Err(Error::Newer { found, known: schema::SCHEMA });
        }
        if found == 0 {
            // Not each time: it is written anew even where it stands, and what may be damaged is not written into.
            connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL;")?;
        }
        connection.execute_batch(SETTINGS)?;
        schema::prepare(&mut connection)?;
        if found == 0 {
            connection.execute("INSERT OR IGNORE INTO meta VALUES ('installation', ?1)", [new_installation])?;
        }
        let sql = "SELECT value FROM meta WHERE name = 'installation'";
        let installation: Option<String> = connection.query_row(sql, [], |row| row.get(0)).optional()?;
        // Nothing is written into a file that may be damaged.
        let installation = installation.ok_or_else(|| Error::Damaged("it does not say whose it is".to_owned()))?;
        let newest = load::newest(&connection)?;
        if let Some(acknowledged) = dir.and_then(witness::read).filter(|revision| *revision > newest.revision) {
            return Err(Error::Lost { found: newest.revision, acknowledged });
        }
        let (connection, state, totals) = load::load(connection, pool, newest.revision)?;
        if let Some(said) = newest.totals.filter(|said| *said != totals) {
            return Err(Error::Damaged(format!(
                "it has {} rows where commit {} left {}, or other ones of them",
                totals.count, newest.revision, said.count
            )));
        }
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
        let witness = dir.map(|dir| Witness::open(dir).map_err(|e| io(witness::NAME, e))).transpose()?;
        let database = Database { connection, installation, witness, totals, written: newest.written, appended: 0, _lock: lock };
        Ok((database, state))
    }

    pub(super) fn installation(&self) -> &str {
        &self.installation
    }

    /// A value that is remembered beside the state.
    pub(super) fn take_meta(&mut self, name: &str) -> Result<Option<String>, Error> {
        Ok(self.connection.query_row("DELETE FROM meta WHERE name = ?1 RETURNING value", [name], |row| row.get(0)).optional()?)
    }

    pub(super) fn write(&mut self, commit: &Commit) -> Result<(), Error> {
        let (mut totals, mut written) = (self.totals, self.written);
        let encoded = commit.changes.iter().map(encode::encode).collect::<Result<Vec<Encoded>, _>>()?;
        let (causes, changes) = (serde_json::to_string(&commit.causes)?, encode::journal_text(&encoded));
        written += (causes.len() + changes.len()) as i64;
        let cut = commit.revision.is_multiple_of(CUT_EVERY);
        let appended = self.appended + commit.records.len() as i64;
        let tx = self.connection.transaction()?;
        for change in &encoded {
            put(&tx, change, &mut totals)?;
        }
        let mut journal = tx.prepare_cached("INSERT INTO journal VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?;
        let sum = journal_sum(commit.revision, commit.at.0, &causes, &changes);
        journal.execute(params![commit.revision, commit.at.0, causes, changes, written, totals.count, totals.sums, sum])?;
        drop(journal);
        append(&tx, &commit.records)?;
        if cut {
            cut_history(&tx, commit.revision as i64, written, appended)?;
        }
        tx.commit()?;
        (self.totals, self.written, self.appended) = (totals, written, if cut { 0 } else { appended });
        if let Some(Err(error)) = self.witness.as_ref().map(|witness| witness.saw(commit.revision)) {
            tracing::warn!(%error, "the number of the newest commit could not be noted; the commit itself is durable");
        }
        Ok(())
    }

    pub(super) fn records(&self, query: &RecordQuery) -> Result<Vec<(u64, Record)>, Error> {
        records(&self.connection, query)
    }

    pub(super) fn clear_history(&mut self) -> Result<(), Error> {
        // The newest journal entry holds the revision that the next start goes on from.
        Ok(self.connection.execute_batch(
            "BEGIN; DELETE FROM records; DELETE FROM journal WHERE revision < (SELECT max(revision) FROM journal); COMMIT;",
        )?)
    }

    /// Folds the write-ahead log into the file, so that the next start is quick. What is acknowledged is durable either way.
    pub(super) fn close(&mut self) {
        let _ = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    }
}

/// A second way in, for who only reads: a long look at the ledger must not hold up commits.
pub(super) struct Reader(Connection);

impl Reader {
    pub(super) fn open(dir: &Path) -> Result<Reader, Error> {
        let connection = Connection::open_with_flags(dir.join(FILE), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.execute_batch("PRAGMA cache_size = -2048;")?;
        Ok(Reader(connection))
    }

    pub(super) fn records(&self, query: &RecordQuery) -> Result<Vec<(u64, Record)>, Error> {
        records(&self.0, query)
    }
}

fn records(connection: &Connection, query: &RecordQuery) -> Result<Vec<(u64, Record)>, Error> {
    let mut sql = String::from("SELECT seq, body FROM records WHERE kind = ?");
    let mut values: Vec<rusqlite::types::Value> = vec![encode::record_kind(query.kind).into()];
    let mut filter = |clause: &str, value: Option<rusqlite::types::Value>| {
        if let Some(value) = value {
            sql.push_str(clause);
            values.push(value);
        }
    };
    filter(" AND subject = ?", query.subject.clone().map(Into::into));
    filter(" AND service = ?", query.service.clone().map(Into::into));
    filter(" AND at >= ?", query.since.map(|t| t.0.into()));
    filter(" AND at <= ?", query.until.map(|t| t.0.into()));
    filter(" AND seq < ?", query.before.map(|n| (n as i64).into()));
    filter(" AND seq > ?", query.after.map(|n| (n as i64).into()));
    sql.push_str(" ORDER BY seq DESC LIMIT ?");
    values.push((query.limit.min(10_000) as i64).into());
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let body = row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?;
        found.push((row.get(0)?, encode::decode_record(body)?));
    }
    Ok(found)
}

pub(super) fn journal_sum(revision: u64, at: i64, causes: &str, changes: &str) -> u32 {
    encode::sum(&[&revision.to_string(), &at.to_string(), causes, changes])
}

/// Rows keep their place in the file, so that a change of one writes one page.
fn put(tx: &Transaction, change: &Encoded, totals: &mut Totals) -> Result<(), Error> {
    let Encoded { kind, key, row, .. } = change;
    let mut find = tx.prepare_cached("SELECT rowid, sum FROM rows WHERE kind = ?1 AND key = ?2")?;
    let known: Option<(i64, u32)> = find.query_row((kind, key), |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    if let Some((_, sum)) = known {
        totals.take(sum);
    }
    let sum = row.as_ref().map(|row| encode::sum(&[kind, key, row]));
    if let Some(sum) = sum {
        totals.add(sum);
    }
    match (row, known) {
        (None, None) => 0,
        (None, Some((id, _))) => tx.prepare_cached("DELETE FROM rows WHERE rowid = ?1")?.execute([id])?,
        (Some(row), Some((id, _))) => {
            tx.prepare_cached("UPDATE rows SET row = ?2, sum = ?3 WHERE rowid = ?1")?.execute(params![id, row, sum])?
        }
        (Some(row), None) => {
            tx.prepare_cached("INSERT INTO rows VALUES (?1, ?2, ?3, ?4)")?.execute(params![kind, key, row, sum])?
        }
    };
    Ok(())
}

fn append(tx: &Transaction, records: &[Record]) -> Result<(), Error> {
    let sql = "INSERT INTO records (at, kind, subject, service, body, sum) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let mut append = tx.prepare_cached(sql)?;
    for record in records {
        let body = serde_json::to_string(record)?;
        let (kind, sum) = (encode::record_kind(record.kind()), encode::sum(&[&body]));
        append.execute(params![record.at().0, kind, record.subject(), record.service(), body, sum])?;
    }
    Ok(())
}

/// Bounded work: at most twice of what was added since the last time, so that the rest goes by and by.
fn cut_history(tx: &Transaction, revision: i64, written: i64, appended: i64) -> Result<(), Error> {
    let entries = 2 * CUT_EVERY as i64;
    // The newest of the entries that may go this time.
    let last: Option<(i64, Option<i64>)> = tx
        .query_row("SELECT revision, written FROM journal ORDER BY revision LIMIT 1 OFFSET ?1", [entries - 1], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    if let Some((last, upto)) = last
        && (last <= revision - JOURNAL_LENGTH || upto.is_some_and(|upto| upto <= written - JOURNAL_BYTES))
    {
        tx.execute("DELETE FROM journal WHERE revision <= ?1", [last])?;
    }
    let (oldest, newest): (Option<i64>, Option<i64>) =
        tx.query_row("SELECT (SELECT min(seq) FROM records), (SELECT max(seq) FROM records)", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    if let (Some(oldest), Some(newest)) = (oldest, newest) {
        let last = (newest - RECORDS_LENGTH).min(oldest + 2 * appended + entries);
        tx.execute("DELETE FROM records WHERE seq <= ?1", [last])?;
    }
    let unused: i64 = tx.pragma_query_value(None, "freelist_count", |row| row.get(0))?;
    let pages: i64 = tx.pragma_query_value(None, "page_count", |row| row.get(0))?;
    if unused > SHRINK_ABOVE && unused * 4 > pages {
        tx.execute_batch(&format!("PRAGMA incremental_vacuum({SHRINK_PAGES})"))?;
    }
    Ok(())
}
