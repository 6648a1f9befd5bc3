//! SQLite as anybody would use it: one INSERT per transaction, synced. What the store's own rate is measured beside.

use std::path::Path;

use rusqlite::Connection;

use super::Error;

pub struct PlainSqlite(Connection);

impl PlainSqlite {
    pub fn create(path: &Path) -> Result<PlainSqlite, Error> {
        let connection = Connection::open(path)?;
        let settings = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;";
        connection.execute_batch(&format!("{settings} CREATE TABLE plain (id INTEGER PRIMARY KEY, text TEXT NOT NULL);"))?;
        Ok(PlainSqlite(connection))
    }

    pub fn insert(&self, text: &str) -> Result<(), Error> {
        self.0.prepare_cached("INSERT INTO plain (text) VALUES (?1)")?.execute([text])?;
        Ok(())
    }
}
