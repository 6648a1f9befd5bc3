//! A state of one's own, on which an update runs as the writer runs it, with nothing below that keeps it: to measure what updates
//! cost by themselves.

use std::sync::Arc;

use super::pool::Pool;
use super::{Commit, State, Tx};
use crate::model::Timestamp;

#[derive(Default)]
pub struct Rehearsal {
    state: Arc<State>,
    pool: Pool,
}

impl Rehearsal {
    pub fn snapshot(&self) -> Arc<State> {
        self.state.clone()
    }

    /// Runs the update on a copy, as each update runs, and publishes it.
    pub fn update<T>(&mut self, now: Timestamp, change: impl FnOnce(&mut Tx) -> T) -> (T, Commit) {
        let mut working = (*self.state).clone();
        let (revision, mut changes, mut records) = (working.revision + 1, Vec::new(), Vec::new());
        let mut tx =
            Tx { state: &mut working, changes: &mut changes, records: &mut records, pool: &mut self.pool, revision, now };
        let done = change(&mut tx);
        working.revision = revision;
        self.state = Arc::new(working);
        (done, Commit { revision, at: now, causes: Vec::new(), changes, records })
    }
}
