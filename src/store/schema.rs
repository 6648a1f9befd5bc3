//! The tables, their version, and how older versions become this one.
//!
//! Version 1: rows as whole changes under their key, nothing summed. Version 2: rows in the order of their making, each with its
//! checksum; every journal entry also says how many rows there are after it and what their checksums add up to.

use rusqlite::{Connection, Transaction, params};

use super::encode::{self, Encoded};
use super::{Change, Error};

pub(super) const SCHEMA: u32 = 2;

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS records (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, kind INTEGER NOT NULL,
    subject TEXT NOT NULL, service TEXT NOT NULL, body TEXT NOT NULL, sum INTEGER);
CREATE INDEX IF NOT EXISTS records_by_subject ON records (kind, subject, seq);
CREATE INDEX IF NOT EXISTS records_by_service ON records (kind, service, seq) WHERE service <> '';
CREATE TABLE IF NOT EXISTS rows (kind TEXT NOT NULL, key TEXT NOT NULL, row TEXT NOT NULL, sum INTEGER NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS rows_by_key ON rows (kind, key);
-- `written`: bytes of causes and changes up to and with this entry; `row_count`, `row_sums`: of all rows after it.
CREATE TABLE IF NOT EXISTS journal (
    revision INTEGER PRIMARY KEY, at INTEGER NOT NULL, causes TEXT NOT NULL, changes TEXT NOT NULL,
    written INTEGER, row_count INTEGER, row_sums INTEGER, sum INTEGER);
";

/// How many rows there are, and what their checksums add up to: a row that a disk lost or brought back does not go unseen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub count: i64,
    pub sums: i64,
}

impl Totals {
    pub(super) fn add(&mut self, sum: u32) {
        self.count += 1;
        self.sums = self.sums.wrapping_add(i64::from(sum));
    }
    pub(super) fn take(&mut self, sum: u32) {
        self.count -= 1;
        self.sums = self.sums.wrapping_sub(i64::from(sum));
    }
}

pub(super) fn version(connection: &Connection) -> Result<u32, Error> {
    Ok(connection.pragma_query_value(None, "user_version", |row| row.get(0))?)
}

/// Makes the tables, or brings those of an older version up: all or nothing.
pub(super) fn prepare(connection: &mut Connection) -> Result<(), Error> {
    let found = version(connection)?;
    match found {
        SCHEMA => Ok(()),
        newer if newer > SCHEMA => Err(Error::Newer { found, known: SCHEMA }),
        0 => {
            let tx = connection.transaction()?;
            tx.execute_batch(TABLES)?;
            tx.pragma_update(None, "user_version", SCHEMA)?;
            Ok(tx.commit()?)
        }
        _ => {
            tracing::info!(
                from = found,
                to = SCHEMA,
                "the state is of an older version and is being rewritten; this happens once"
            );
            let tx = connection.transaction()?;
            from_1(&tx)?;
            tx.pragma_update(None, "user_version", SCHEMA)?;
            tx.commit()?;
            // What the old tables took is given back where there is room to do so; the state is whole without it.
            if let Err(error) = connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL; VACUUM;") {
                tracing::warn!(%error, "the rewritten state could not be made smaller; that does no harm");
            }
            Ok(())
        }
    }
}

fn from_1(tx: &Transaction) -> Result<(), Error> {
    tx.execute_batch(
        "ALTER TABLE rows RENAME TO rows_1;
         ALTER TABLE records ADD COLUMN sum INTEGER;
         ALTER TABLE journal ADD COLUMN written INTEGER;
         ALTER TABLE journal ADD COLUMN row_count INTEGER;
         ALTER TABLE journal ADD COLUMN row_sums INTEGER;
         ALTER TABLE journal ADD COLUMN sum INTEGER;",
    )?;
    tx.execute_batch(TABLES)?;
    let mut totals = Totals::default();
    {
        let mut put = tx.prepare("INSERT INTO rows VALUES (?1, ?2, ?3, ?4)")?;
        let mut old = tx.prepare("SELECT change FROM rows_1 ORDER BY kind, key")?;
        let mut rows = old.query([])?;
        while let Some(row) = rows.next()? {
            let change: Change = serde_json::from_str(row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?)?;
            let Encoded { kind, key, row, .. } = encode::encode(&change)?;
            // Deleted rows were never kept.
            let row = row.unwrap_or_default();
            let sum = encode::sum(&[kind, &key, &row]);
            put.execute(params![kind, key, row, sum])?;
            totals.add(sum);
        }
    }
    tx.execute(
        "UPDATE journal SET row_count = ?1, row_sums = ?2, written = 0 WHERE revision = (SELECT max(revision) FROM journal)",
        params![totals.count, totals.sums],
    )?;
    Ok(tx.execute_batch("DROP TABLE rows_1;")?)
}
