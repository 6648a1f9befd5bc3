//! The embedded backend: SQLite in WAL mode with full sync. One row per thing as JSON, so that `sqlite3` shows it; a journal of
//! commits; the appended records.

use std::fs::{self, File, TryLockError};
use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params, params_from_iter};

use super::pool::Pool;
use super::{Change, Commit, Error, Record, RecordKind, RecordQuery, State};

pub(super) const SCHEMA: u32 = 1;
/// Commits the journal keeps.
const JOURNAL_LENGTH: i64 = 100_000;
/// Decisions and alarm transitions that are kept; the oldest go first.
const RECORDS_LENGTH: i64 = 1_000_000;
/// History is cut once in so many commits.
const CUT_EVERY: u64 = 1_000;

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rows (kind TEXT NOT NULL, key TEXT NOT NULL, change TEXT NOT NULL, PRIMARY KEY (kind, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS journal (revision INTEGER PRIMARY KEY, at INTEGER NOT NULL, causes TEXT NOT NULL, changes TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS records (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, kind INTEGER NOT NULL,
    subject TEXT NOT NULL, service TEXT NOT NULL, body TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS records_by_subject ON records (kind, subject, seq);
CREATE INDEX IF NOT EXISTS records_by_service ON records (kind, service, seq) WHERE service <> '';
";

pub(super) struct Database {
    connection: Connection,
    installation: String,
    /// Held for as long as we live: one server per directory.
    _lock: Option<File>,
}

impl From<rusqlite::Error> for Error {
    fn from(e: rusqlite::Error) -> Error {
        match e.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => Error::Damaged(e.to_string()),
            _ => Error::Database(format!("cannot be used: {e}")),
        }
    }
}

impl From<serde_json::Error> for Error {
    fn from(e: serde_json::Error) -> Error {
        Error::Damaged(format!("a row cannot be read: {e}"))
    }
}

impl Database {
    pub(super) fn open(dir: Option<&Path>, new_installation: &str, pool: &mut Pool) -> Result<(Database, State), Error> {
        let io = |what: &str, e: std::io::Error| Error::Database(format!("cannot be opened: {what}: {e}"));
        let (connection, lock) = match dir {
            None => (Connection::open_in_memory()?, None),
            Some(dir) => {
                fs::create_dir_all(dir).map_err(|e| io(&dir.display().to_string(), e))?;
                let lock = File::create(dir.join("lock")).map_err(|e| io("lock", e))?;
                match lock.try_lock() {
                    Ok(()) => {}
                    Err(TryLockError::WouldBlock) => return Err(Error::InUse(dir.display().to_string())),
                    Err(TryLockError::Error(e)) => return Err(io("lock", e)),
                }
                let connection = Connection::open(dir.join("state.sqlite"))?;
                connection.pragma_update(None, "journal_mode", "WAL")?;
                connection.pragma_update(None, "synchronous", "FULL")?;
                (connection, Some(lock))
            }
        };
        let check: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if check != "ok" {
            return Err(Error::Damaged(check));
        }
        let found: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if found > SCHEMA {
            return Err(Error::Newer { found, known: SCHEMA });
        }
        connection.execute_batch(TABLES)?;
        connection.pragma_update(None, "user_version", SCHEMA)?;
        connection.execute("INSERT OR IGNORE INTO meta VALUES ('installation', ?1)", [new_installation])?;
        let installation = connection.query_row("SELECT value FROM meta WHERE name = 'installation'", [], |row| row.get(0))?;
        let database = Database { connection, installation, _lock: lock };
        let state = database.load(pool)?;
        Ok((database, state))
    }

    pub(super) fn installation(&self) -> &str {
        &self.installation
    }

    fn load(&self, pool: &mut Pool) -> Result<State, Error> {
        let mut state = State::default();
        let newest: Option<u64> =
            self.connection.query_row("SELECT max(revision) FROM journal", [], |row| row.get(0)).optional()?.flatten();
        let revision = newest.unwrap_or(0);
        let mut statement = self.connection.prepare("SELECT change FROM rows")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let mut change = serde_json::from_str(row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?)?;
            pool.share(&mut change);
            state.apply(&change, revision);
        }
        state.revision = revision;
        Ok(state)
    }

    pub(super) fn write(&mut self, commit: &Commit) -> Result<(), Error> {
        let tx = self.connection.transaction()?;
        {
            let mut put = tx.prepare_cached("INSERT OR REPLACE INTO rows VALUES (?1, ?2, ?3)")?;
            let mut delete = tx.prepare_cached("DELETE FROM rows WHERE kind = ?1 AND key = ?2")?;
            for change in &commit.changes {
                let (kind, key, gone) = address(change)?;
                match gone {
                    true => delete.execute((kind, &key))?,
                    false => put.execute((kind, &key, serde_json::to_string(change)?))?,
                };
            }
            let mut journal = tx.prepare_cached("INSERT INTO journal VALUES (?1, ?2, ?3, ?4)")?;
            let (causes, changes) = (serde_json::to_string(&commit.causes)?, serde_json::to_string(&commit.changes)?);
            journal.execute(params![commit.revision, commit.at.0, causes, changes])?;
            let mut append =
                tx.prepare_cached("INSERT INTO records (at, kind, subject, service, body) VALUES (?1, ?2, ?3, ?4, ?5)")?;
            for record in &commit.records {
                let body = serde_json::to_string(record)?;
                append.execute(params![record.at().0, number(record.kind()), record.subject(), record.service(), body])?;
            }
            if commit.revision.is_multiple_of(CUT_EVERY) {
                tx.execute("DELETE FROM journal WHERE revision <= ?1", [commit.revision as i64 - JOURNAL_LENGTH])?;
                tx.execute("DELETE FROM records WHERE seq <= (SELECT max(seq) FROM records) - ?1", [RECORDS_LENGTH])?;
            }
        }
        Ok(tx.commit()?)
    }

    pub(super) fn records(&self, query: &RecordQuery) -> Result<Vec<(u64, Record)>, Error> {
        let mut sql = String::from("SELECT seq, body FROM records WHERE kind = ?");
        let mut values: Vec<rusqlite::types::Value> = vec![number(query.kind).into()];
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
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(values))?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let body = row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?;
            found.push((row.get(0)?, serde_json::from_str(body)?));
        }
        Ok(found)
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

pub(super) fn number(kind: RecordKind) -> i64 {
    match kind {
        RecordKind::Decision => 1,
        RecordKind::Alarm => 2,
    }
}

/// The row that a change is about, and whether it deletes it.
pub(super) fn address(change: &Change) -> Result<(&'static str, String, bool), Error> {
    fn of<K: serde::Serialize, V>(kind: &'static str, key: &K, row: &Option<V>) -> Result<(&'static str, String, bool), Error> {
        Ok((kind, serde_json::to_string(key)?, row.is_none()))
    }
    match change {
        Change::Cluster(key, row) => of("cluster", key, row),
        Change::Definition(key, row) => of("definition", key, row),
        Change::Service(key, row) => of("service", key, row),
        Change::Task(key, row) => of("task", key, row),
        Change::Instance(key, row) => of("instance", key, row),
        Change::Alarm(key, row) => of("alarm", key, row),
        Change::Target(key, row) => of("target", key, row),
        Change::Policy(key, row) => of("policy", key, row),
        Change::Activity(key, row) => of("activity", key, row),
    }
}
