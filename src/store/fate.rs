//! What a simulation makes of a commit: a disk that refuses it, or a crash just before or just after it is durable.

use super::{Commit, Error};

/// What becomes of one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is written.
    Written,
    /// The disk refuses it, in these words.
    Refused(String),
    /// The process dies before it is on disk. Nobody is answered.
    LostBefore,
    /// The process dies when it is on disk. Nobody is answered.
    LostAfter,
}

/// Decides over each commit before it is written, in order.
pub trait Fates: Send + Sync + 'static {
    fn of(&self, commit: &Commit) -> Fate;
    /// The writer is dead, as it was told to be.
    fn died(&self);
}

impl Fate {
    pub(super) fn refused(self) -> Result<Fate, Error> {
        match self {
            Fate::Refused(why) => Err(Error::Database(format!("cannot be written: {why}"))),
            other => Ok(other),
        }
    }
}
