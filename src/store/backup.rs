//! A copy of the state while it is being changed: consistent as of one commit, without unused pages, and with a word about itself.
//! What a copy needs and a running store does not know is in [`Manifest`].

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;

use rusqlite::{Connection, OpenFlags, OptionalExtension};
use serde::{Deserialize, Serialize};

use super::{Error, load, schema, sqlite};
use crate::model::Timestamp;

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Of the Beaufort that took it.
    pub version: String,
    pub schema: u32,
    pub installation: String,
    pub taken_at: Timestamp,
    /// Of the newest commit in it.
    pub revision: u64,
    pub committed_at: Option<Timestamp>,
    /// Things by kind.
    pub counts: BTreeMap<String, u64>,
    /// Entries of the journal and of the ledger.
    pub commits: u64,
    pub records: u64,
}

pub(super) fn failed(what: &str, path: &Path, error: impl std::fmt::Display) -> Error {
    Error::Copy(format!("{what} {}: {error}", path.display()))
}

/// Copies the state of `dir` into the new file `to`. Commits go on meanwhile. On an error nothing is left at `to`.
pub(super) fn take(dir: &Path, to: &Path, taken_at: Timestamp) -> Result<Manifest, Error> {
    let taken = copy(&dir.join(sqlite::FILE), to, taken_at);
    if taken.is_err() {
        // It is of no use half.
        let _ = fs::remove_file(to);
    }
    taken
}

fn copy(from: &Path, to: &Path, taken_at: Timestamp) -> Result<Manifest, Error> {
    let name = to.to_str().ok_or_else(|| failed("the path is no text", to, "write it in UTF-8"))?;
    let source = Connection::open_with_flags(from, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    if schema::version(&source)? != schema::SCHEMA {
        return Err(failed("the state is of another version, which cannot be copied here", from, "start Beaufort on it once"));
    }
    source.execute("VACUUM INTO ?1", [name])?;
    drop(source);
    let copy = Connection::open_with_flags(to, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // One file, and no other beside it.
    copy.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(()))?;
    let manifest = describe(&copy, taken_at)?;
    copy.execute("INSERT OR REPLACE INTO meta VALUES ('backup', ?1)", [serde_json::to_string(&manifest)?])?;
    drop(copy);
    File::open(to).and_then(|file| file.sync_all()).map_err(|e| failed("cannot be synced:", to, e))?;
    Ok(manifest)
}

fn describe(copy: &Connection, taken_at: Timestamp) -> Result<Manifest, Error> {
    let newest = load::newest(copy)?;
    let count = |table: &str| copy.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0));
    Ok(Manifest {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        schema: schema::SCHEMA,
        installation: copy.query_row("SELECT value FROM meta WHERE name = 'installation'", [], |row| row.get(0))?,
        taken_at,
        revision: newest.revision,
        committed_at: committed_at(copy)?,
        counts: counts(copy)?,
        commits: count("journal")?,
        records: count("records")?,
    })
}

pub(super) fn committed_at(connection: &Connection) -> Result<Option<Timestamp>, Error> {
    let sql = "SELECT at FROM journal ORDER BY revision DESC LIMIT 1";
    Ok(connection.query_row(sql, [], |row| row.get(0).map(Timestamp)).optional()?)
}

pub(super) fn counts(connection: &Connection) -> Result<BTreeMap<String, u64>, Error> {
    let mut statement = connection.prepare("SELECT kind, count(*) FROM rows GROUP BY kind")?;
    let counts = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
    Ok(counts)
}

/// What a file says that it is. None: it is no backup, but may be a state as it stands in a data directory.
pub(super) fn manifest(connection: &Connection) -> Result<Option<Manifest>, Error> {
    let text: Option<String> =
        connection.query_row("SELECT value FROM meta WHERE name = 'backup'", [], |row| row.get(0)).optional()?;
    Ok(text.map(|text| serde_json::from_str(&text)).transpose()?)
}
