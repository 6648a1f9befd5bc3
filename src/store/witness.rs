//! The number of the newest acknowledged commit, beside the database. SQLite ends its write-ahead log at the first frame that it
//! cannot read, and says nothing of what came after; this file lets a start see that acknowledged commits are missing.
//!
//! It is written after the commit is on disk and is not synced itself: after a power cut it may be behind, never ahead.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

pub(super) const NAME: &str = "acknowledged";

pub(super) struct Witness(File);

fn bytes(revision: u64) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&revision.to_le_bytes());
    bytes[8..].copy_from_slice(&crc32fast::hash(&revision.to_le_bytes()).to_le_bytes());
    bytes
}

impl Witness {
    pub(super) fn open(dir: &Path) -> io::Result<Witness> {
        Ok(Witness(OpenOptions::new().write(true).create(true).truncate(false).open(dir.join(NAME))?))
    }

    pub(super) fn saw(&self, revision: u64) -> io::Result<()> {
        self.0.write_all_at(&bytes(revision), 0)
    }
}

/// None: there is no such file, or its last write was cut off; it can tell nothing then.
pub(super) fn read(dir: &Path) -> Option<u64> {
    let (mut file, mut held) = (File::open(dir.join(NAME)).ok()?, [0; 12]);
    file.read_exact(&mut held).ok()?;
    let revision = u64::from_le_bytes(held[..8].try_into().ok()?);
    (bytes(revision) == held).then_some(revision)
}
