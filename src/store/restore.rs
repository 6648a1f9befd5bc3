//! Puts a backup in the place of a data directory's state. The copy is verified before anything is replaced; what was there is kept
//! aside; an interrupted restore is seen at the next start.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::backup::failed;
use super::check::{self, Report};
use super::{Error, sqlite, witness};
use crate::model::Timestamp;

/// There while files are being moved.
const HALFWAY: &str = "restore-in-progress";
const INCOMING: &str = "state.sqlite.restoring";
/// What belongs to a state.
const FILES: &[&str] = &[sqlite::FILE, "state.sqlite-wal", "state.sqlite-shm", witness::NAME];

/// What was done.
#[derive(Debug)]
pub struct Restored {
    /// Of the backup, as it was verified.
    pub report: Report,
    /// Where what was replaced is kept.
    pub kept: Option<PathBuf>,
}

pub(super) fn check_not_halfway(dir: &Path) -> Result<(), Error> {
    if dir.join(HALFWAY).exists() {
        return Err(Error::Halfway(dir.display().to_string()));
    }
    Ok(())
}

/// `replace`: also where there is a state already.
pub fn restore(backup: &Path, dir: &Path, replace: bool, now: Timestamp) -> Result<Restored, Error> {
    if !backup.is_file() {
        return Err(failed("there is no file", backup, "name a file that `beaufort backup` made"));
    }
    let _lock = sqlite::lock(dir)?;
    let incoming = dir.join(INCOMING);
    let is_there = FILES.iter().chain([&HALFWAY]).any(|name| dir.join(name).exists());
    if is_there && !replace {
        return Err(Error::NotEmpty(dir.display().to_string()));
    }
    let report = bring(backup, &incoming, now).inspect_err(|_| {
        // What was brought is of no use, and nothing else was touched.
        let _ = fs::remove_file(&incoming);
    })?;
    let kept = is_there.then(|| dir.join(format!("replaced-{}", now.iso().replace(':', ""))));
    swap(dir, &incoming, kept.as_deref()).map_err(|e| failed("the files could not be moved in", dir, e))?;
    Ok(Restored { report, kept })
}

/// Copies, marks and verifies.
fn bring(backup: &Path, incoming: &Path, now: Timestamp) -> Result<Report, Error> {
    // Not with the permissions of a backup, which may be kept from being written.
    let copied = File::open(backup).and_then(|mut from| io::copy(&mut from, &mut File::create(incoming)?));
    copied.map_err(|e| failed("the backup cannot be copied to", incoming, e))?;
    let report = check::examine(incoming)?;
    if let Some(fault) = report.state_faults.iter().chain(&report.history_faults).next() {
        return Err(Error::BadBackup(format!("{}: {fault}", backup.display())));
    }
    let copy = Connection::open_with_flags(incoming, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    copy.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(()))?;
    let taken_at = report.backup.as_ref().map(|m| m.taken_at).or(report.committed_at).unwrap_or(now);
    let told = format!("commit {} of {}", report.revision, taken_at.iso());
    copy.execute("INSERT OR REPLACE INTO meta VALUES ('restored', ?1)", [told])?;
    copy.execute("DELETE FROM meta WHERE name = 'backup'", [])?;
    drop(copy);
    File::open(incoming).and_then(|file| file.sync_all()).map_err(|e| failed("cannot be synced:", incoming, e))?;
    Ok(report)
}

fn swap(dir: &Path, incoming: &Path, kept: Option<&Path>) -> io::Result<()> {
    let (sync, halfway) = (|path: &Path| File::open(path)?.sync_all(), dir.join(HALFWAY));
    File::create(&halfway)?.sync_all()?;
    sync(dir)?;
    if let Some(kept) = kept {
        fs::create_dir_all(kept)?;
        for name in FILES {
            match fs::rename(dir.join(name), kept.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        sync(kept)?;
    }
    fs::rename(incoming, dir.join(sqlite::FILE))?;
    sync(dir)?;
    fs::remove_file(&halfway)?;
    sync(dir)
}
