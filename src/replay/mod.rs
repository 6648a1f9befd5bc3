//! The past read again: what was recorded of a service, what policies that are given would have made of it, whether this version
//! still decides as the ledger says, and how all that is shown.
//!
//! Owns no rule: alarms and policies are `decide`'s, a policy's checks are the API's. Reads no network: who asks a server brings
//! its answers. Start reading at [`report::back_test`]; [`recording`] says what has to be fetched, [`files`] fetches it from a
//! data directory, [`transcript`] tells a journal's commits and decisions line by line.

pub mod chart;
pub mod files;
pub mod given;
pub mod plot;
pub mod recording;
pub mod report;
pub mod sides;
pub mod transcript;
pub mod verify;

#[cfg(test)]
pub mod tests;

/// What cannot be done with what was given, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Wrong {
    pub what: String,
    pub next: String,
}

impl Wrong {
    pub fn new(what: impl Into<String>, next: impl Into<String>) -> Wrong {
        Wrong { what: what.into(), next: next.into() }
    }
}
