//! The journal on disk, replayed from its first commit, gives the state; and so do the rows beside it.

use std::path::Path;

use crate::sim::seen::Seen;
use crate::store::journal::Journal;
use crate::store::{Commit, Error, State};

/// How what the files say differs from the state that they are of.
pub fn differs(dir: &Path, state: &State) -> Option<String> {
    read(dir, state).unwrap_or_else(|error| Some(format!("the journal cannot be read: {error}")))
}

fn read(dir: &Path, state: &State) -> Result<Option<String>, Error> {
    let journal = Journal::open(dir)?;
    if let Some(difference) = Seen::of(&journal.state()?).differs(state) {
        return Ok(Some(format!("the rows on disk are not the state: {difference}")));
    }
    // Where the oldest commits are cut off, what they put is not known.
    if journal.extent()?.is_none_or(|extent| extent.first > 1) {
        return Ok(None);
    }
    let commits: Vec<Commit> = journal.commits(1).collect::<Result<_, _>>()?;
    Ok(replayed(&commits).differs(state).map(|difference| format!("the journal, replayed, is not the state: {difference}")))
}

pub fn replayed(commits: &[Commit]) -> Seen {
    let mut seen = Seen::default();
    for commit in commits {
        commit.changes.iter().for_each(|change| seen.apply(change));
        seen.revision = commit.revision;
    }
    seen
}
