//! From rows to the state in memory, at start. One thread reads the database, checks each row's sum and parses it; the other shares
//! what is equal and builds the tables and indexes. What was read is then compared with what the newest commit said there must be.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use rusqlite::{Connection, OptionalExtension};

use super::encode;
use super::pool::Pool;
use super::schema::{self, Totals};
use super::{Change, Error, State};

/// Rows that go from thread to thread at once, and how many such lots may wait.
const LOT: usize = 256;
const LOTS: usize = 4;

/// What the newest journal entry says of the rows.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Newest {
    pub revision: u64,
    /// None: written by an older version, or nothing was ever committed.
    pub totals: Option<Totals>,
    pub written: i64,
}

pub(super) fn newest(connection: &Connection) -> Result<Newest, Error> {
    let sql = "SELECT revision, row_count, row_sums, written FROM journal ORDER BY revision DESC LIMIT 1";
    let read = connection.query_row(sql, [], |row| {
        let (count, sums): (Option<i64>, Option<i64>) = (row.get(1)?, row.get(2)?);
        let totals = count.zip(sums).map(|(count, sums)| Totals { count, sums });
        Ok(Newest { revision: row.get(0)?, totals, written: row.get::<_, Option<i64>>(3)?.unwrap_or(0) })
    });
    Ok(read.optional()?.unwrap_or_default())
}

pub(super) fn load(connection: Connection, pool: &mut Pool, revision: u64) -> Result<(Connection, State, Totals), Error> {
    let (lots, filled) = sync_channel(LOTS);
    thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let totals = read(&connection, &lots);
            drop(lots);
            (connection, totals)
        });
        let state = build(&filled, pool, revision);
        let (connection, totals) =
            reader.join().map_err(|_| Error::Database("could not be read: its reader panicked".to_owned()))?;
        Ok((connection, state, totals?))
    })
}

fn read(connection: &Connection, lots: &SyncSender<Vec<Change>>) -> Result<Totals, Error> {
    let (mut lot, mut totals) = (Vec::with_capacity(LOT), Totals::default());
    each_row(connection, |kind, key, row, kept| {
        if encode::sum(&[kind, key, row]) != kept {
            return Err(Error::Damaged(format!("the row {kind} {key} is not as it was written: its checksum differs")));
        }
        let change = encode::decode_row(kind, key, row)
            .map_err(|e| Error::Damaged(format!("the row {kind} {key} cannot be read: {e}")))?;
        totals.add(kept);
        lot.push(change);
        if lot.len() == LOT {
            // Nobody takes it any more only if the builder panicked, and then that is told.
            let _ = lots.send(std::mem::replace(&mut lot, Vec::with_capacity(LOT)));
        }
        Ok(())
    })?;
    let _ = lots.send(lot);
    Ok(totals)
}

/// Every row: kind, key, the row and the checksum that was kept with it.
pub(super) fn each_row(
    connection: &Connection,
    mut each: impl FnMut(&str, &str, &str, u32) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut statement = connection.prepare("SELECT kind, key, row, sum FROM rows")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let text = |n: usize| -> Result<&str, Error> {
            row.get_ref(n)?.as_str().map_err(|e| Error::Damaged(format!("a row is no text: {e}")))
        };
        each(text(0)?, text(1)?, text(2)?, row.get(3)?)?;
    }
    Ok(())
}

/// Every row as the change that would put it, also of a file of version 1.
pub(super) fn each_change(connection: &Connection, mut each: impl FnMut(Change) -> Result<(), Error>) -> Result<(), Error> {
    if schema::version(connection)? >= schema::SCHEMA {
        return each_row(connection, |kind, key, row, _| each(encode::decode_row(kind, key, row)?));
    }
    let mut statement = connection.prepare("SELECT change FROM rows")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        each(serde_json::from_str(row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?)?)?;
    }
    Ok(())
}

fn build(filled: &Receiver<Vec<Change>>, pool: &mut Pool, revision: u64) -> State {
    let mut state = State::default();
    while let Ok(lot) = filled.recv() {
        for mut change in lot {
            pool.share(&mut change);
            state.apply(&change, revision);
        }
    }
    state.revision = revision;
    state
}
