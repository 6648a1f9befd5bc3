//! Looks at every page, row, journal entry and record of a state or a backup, and says what is wrong and where. Changes nothing.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};
use serde::Serialize;

use super::backup::{self, Manifest};
use super::encode;
use super::schema::{self, Totals};
use super::{Error, load, sqlite, witness};
use crate::model::Timestamp;

/// Faults of one sort that are told in full; the others are counted.
const TOLD: usize = 10;

/// What was found.
#[derive(Debug, Serialize)]
pub struct Report {
    pub schema: u32,
    pub installation: String,
    pub revision: u64,
    pub committed_at: Option<Timestamp>,
    pub counts: BTreeMap<String, u64>,
    pub commits: u64,
    pub records: u64,
    /// Set in a backup.
    pub backup: Option<Manifest>,
    /// What is, and must be, as it is: without these, Beaufort does not start.
    pub state_faults: Vec<String>,
    /// Of journal and ledger: what was, and why.
    pub history_faults: Vec<String>,
}

impl Report {
    pub fn is_whole(&self) -> bool {
        self.state_faults.is_empty() && self.history_faults.is_empty()
    }
}

#[derive(Default)]
struct Faults {
    told: Vec<String>,
    more: u64,
}

impl Faults {
    fn add(&mut self, text: String) {
        match self.told.len() < TOLD {
            true => self.told.push(text),
            false => self.more += 1,
        }
    }

    /// What could not be read to its end is a fault, too.
    fn note(&mut self, what: &str, read: Result<(), Error>) {
        if let Err(error) = read {
            self.add(format!("{what} cannot be read to the end: {error}"));
        }
    }

    fn list(self) -> Vec<String> {
        let more = (self.more > 0).then(|| format!("and {} more", self.more));
        self.told.into_iter().chain(more).collect()
    }
}

/// `path`: a backup, a `state.sqlite`, or a data directory; a server may be at work there.
pub fn examine(path: &Path) -> Result<Report, Error> {
    let (file, dir) = match path.is_dir() {
        true => (path.join(sqlite::FILE), Some(path)),
        false => (path.to_owned(), None),
    };
    if !file.is_file() {
        return Err(backup::failed("there is no state at", &file, "name a data directory or a backup"));
    }
    // Read first: commits that a server makes from now on are none that are missing.
    let acknowledged = dir.and_then(witness::read);
    let connection = Connection::open_with_flags(&file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.execute_batch("BEGIN")?;
    let found = schema::version(&connection)?;
    match found {
        schema::SCHEMA => {}
        newer if newer > schema::SCHEMA => return Err(Error::Newer { found, known: schema::SCHEMA }),
        0 => return Err(Error::Damaged("it is empty, or no state of Beaufort".to_owned())),
        _ => return Err(backup::failed("an older version wrote", &file, "start Beaufort on it once; it is rewritten then")),
    }
    let (mut state, mut history) = (Faults::default(), Faults::default());
    structure(&connection, &mut state);
    let mut totals = Totals::default();
    let read = rows(&connection, &mut totals, &mut state);
    state.note("the rows", read);
    let newest = load::newest(&connection)?;
    if let Some(said) = newest.totals.filter(|said| *said != totals) {
        state.add(format!("there are {} rows, and commit {} left {}, or other ones", totals.count, newest.revision, said.count));
    }
    if let Some(acknowledged) = acknowledged.filter(|revision| *revision > newest.revision) {
        state.add(Error::Lost { found: newest.revision, acknowledged }.to_string());
    }
    let (mut commits, mut records) = (0, 0);
    let read = journal(&connection, &mut commits, &mut history);
    history.note("the journal", read);
    let read = ledger(&connection, &mut records, &mut history);
    history.note("the ledger", read);
    Ok(Report {
        schema: found,
        installation: connection
            .query_row("SELECT value FROM meta WHERE name = 'installation'", [], |row| row.get(0))
            .unwrap_or_default(),
        revision: newest.revision,
        committed_at: backup::committed_at(&connection)?,
        counts: backup::counts(&connection).unwrap_or_default(),
        commits,
        records,
        backup: backup::manifest(&connection)?,
        state_faults: state.list(),
        history_faults: history.list(),
    })
}

/// The first thing that is wrong with a file's pages. Cheaper than [`examine`].
pub(super) fn first_fault(file: &Path) -> Option<String> {
    let said = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .and_then(|connection| connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0)));
    match said {
        Ok(said) => Some(said).filter(|said| said != "ok"),
        Err(error) => Some(error.to_string()),
    }
}

fn structure(connection: &Connection, faults: &mut Faults) {
    let said = connection
        .prepare(&format!("PRAGMA integrity_check({TOLD})"))
        .and_then(|mut check| check.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<String>, _>>());
    match said {
        Ok(lines) => lines.into_iter().filter(|line| line != "ok").for_each(|line| faults.add(format!("in the file: {line}"))),
        Err(error) => faults.add(format!("the file cannot be read to the end: {error}")),
    }
}

fn rows(connection: &Connection, totals: &mut Totals, faults: &mut Faults) -> Result<(), Error> {
    load::each_row(connection, |kind, key, row, kept| {
        totals.add(kept);
        if encode::sum(&[kind, key, row]) != kept {
            faults.add(format!("the row {kind} {key} is not as it was written"));
        } else if let Err(error) = encode::decode_row(kind, key, row) {
            faults.add(format!("the row {kind} {key} says what this Beaufort does not understand: {error}"));
        }
        Ok(())
    })
}

fn journal(connection: &Connection, commits: &mut u64, faults: &mut Faults) -> Result<(), Error> {
    let mut statement = connection.prepare("SELECT revision, at, causes, changes, sum FROM journal ORDER BY revision")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        *commits += 1;
        let (revision, at, kept): (u64, i64, Option<u32>) = (row.get(0)?, row.get(1)?, row.get(4)?);
        let (causes, changes): (String, String) = (row.get(2)?, row.get(3)?);
        if kept.is_some_and(|kept| sqlite::journal_sum(revision, at, &causes, &changes) != kept) {
            faults.add(format!("the journal's commit {revision} is not as it was written"));
        } else if let Err(error) = encode::decode_changes(&changes).map(drop).and(encode::decode_causes(&causes).map(drop)) {
            faults.add(format!("the journal's commit {revision} says what this Beaufort does not understand: {error}"));
        }
    }
    Ok(())
}

fn ledger(connection: &Connection, records: &mut u64, faults: &mut Faults) -> Result<(), Error> {
    let mut statement = connection.prepare("SELECT seq, body, sum FROM records ORDER BY seq")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        *records += 1;
        let (number, body, kept): (i64, String, Option<u32>) = (row.get(0)?, row.get(1)?, row.get(2)?);
        if kept.is_some_and(|kept| encode::sum(&[&body]) != kept) {
            faults.add(format!("the ledger's record {number} is not as it was written"));
        } else if let Err(error) = encode::decode_record(&body) {
            faults.add(format!("the ledger's record {number} says what this Beaufort does not understand: {error}"));
        }
    }
    Ok(())
}
