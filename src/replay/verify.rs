//! Whether this version decides as the ledger says: every scaling decision is made again from what it was made of.

use crate::decide::autoscale::NO_CHANGE;
use crate::decide::autoscale::recorded::{self, Again};
use crate::model::Timestamp;
use crate::model::decision::{Decision, ReasonCode};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verified {
    pub same: u64,
    pub reworded: u64,
    pub parted: u64,
    /// Made before inputs were kept, or by nobody's policy.
    pub without_inputs: u64,
}

/// One that comes out otherwise.
#[derive(Clone, Debug, PartialEq)]
pub struct Differs {
    pub at: Timestamp,
    pub subject: String,
    pub was: (String, ReasonCode, String),
    pub is: (String, ReasonCode, String),
    /// Only the words or the numbers beside it are others.
    pub only_words: bool,
}

impl Verified {
    /// None: the same, or not one that can be made again.
    pub fn look(&mut self, decision: &Decision) -> Option<Differs> {
        let (action, reason, only_words) = match recorded::again(decision) {
            None => {
                self.without_inputs += u64::from(is_scaling(decision));
                return None;
            }
            Some(Again::Same) => {
                self.same += 1;
                return None;
            }
            Some(Again::Reworded(reason)) => {
                self.reworded += 1;
                (decision.action.clone(), reason, true)
            }
            Some(Again::Parts { action, reason }) => {
                self.parted += 1;
                (action, reason, false)
            }
        };
        let was = (decision.action.clone(), decision.reason.code, decision.reason.sentence.clone());
        let is = (action, reason.code, reason.sentence);
        Some(Differs { at: decision.at, subject: decision.subject.path(), was, is, only_words })
    }
}

/// What a policy has said.
pub fn is_scaling(decision: &Decision) -> bool {
    decision.action == NO_CHANGE || matches!(decision.reason.code, ReasonCode::ScaledOut | ReasonCode::ScaledIn)
}
