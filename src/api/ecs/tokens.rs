//! RunTask's client tokens: the same token with the same request answers the tasks that it made the first time.
//!
//! Kept in memory only. Over a restart the tasks themselves tell: those of a token are named after it ([`crate::ids::task_of_token`]),
//! for as long as a stopped task is kept. AWS keeps a token "for up to 24 hours".

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};

use crate::model::{ClusterName, Millis, TaskId, Timestamp};

pub const KEPT_MS: Millis = 24 * 60 * 60 * 1000;
const MOST: usize = 10_000;

type Key = (ClusterName, String);

#[derive(Default)]
pub struct Tokens(Mutex<Remembered>);

#[derive(Default)]
struct Remembered {
    by_token: BTreeMap<Key, Seen>,
    /// Oldest first.
    order: VecDeque<(Timestamp, Key)>,
}

#[derive(Clone)]
struct Seen {
    request: u64,
    tasks: Vec<TaskId>,
}

#[derive(Debug, PartialEq)]
pub enum Known {
    /// Made these tasks before.
    Same(Vec<TaskId>),
    /// Was used for another request.
    Different,
    New,
}

/// What a request asks for, as one number: compared within one process only.
pub fn fingerprint(request: &impl std::fmt::Debug) -> u64 {
    let mut hasher = DefaultHasher::new();
    format!("{request:?}").hash(&mut hasher);
    hasher.finish()
}

impl Tokens {
    pub fn look(&self, cluster: &ClusterName, token: &str, request: u64) -> Known {
        let remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match remembered.by_token.get(&(cluster.clone(), token.to_owned())) {
            Some(seen) if seen.request == request => Known::Same(seen.tasks.clone()),
            Some(_) => Known::Different,
            None => Known::New,
        }
    }

    pub fn remember(&self, cluster: &ClusterName, token: &str, request: u64, tasks: Vec<TaskId>, now: Timestamp) {
        let mut remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Remembered { by_token, order } = &mut *remembered;
        while order.len() >= MOST || order.front().is_some_and(|(at, _)| now.since(*at) > KEPT_MS) {
            let Some((_, oldest)) = order.pop_front() else { break };
            by_token.remove(&oldest);
        }
        let key = (cluster.clone(), token.to_owned());
        if by_token.insert(key.clone(), Seen { request, tasks }).is_none() {
            order.push_back((now, key));
        }
    }

    /// The tasks were not made after all.
    pub fn forget(&self, cluster: &ClusterName, token: &str) {
        let mut remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (cluster.clone(), token.to_owned());
        remembered.by_token.remove(&key);
        remembered.order.retain(|(_, k)| *k != key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_for_a_day_and_within_bounds() {
        let (tokens, cluster) = (Tokens::default(), ClusterName::new("c"));
        let remember = |token: &str, at| tokens.remember(&cluster, token, 1, vec![TaskId::new("t")], Timestamp(at));
        remember("a", 0);
        assert_eq!(tokens.look(&cluster, "a", 1), Known::Same(vec![TaskId::new("t")]));
        assert_eq!(tokens.look(&cluster, "a", 2), Known::Different);
        assert_eq!(tokens.look(&ClusterName::new("d"), "a", 1), Known::New);
        remember("b", KEPT_MS + 1);
        assert_eq!(tokens.look(&cluster, "a", 1), Known::New);
        (0..MOST).for_each(|i| remember(&format!("t{i}"), KEPT_MS + 2));
        assert_eq!(tokens.look(&cluster, "b", 1), Known::New);
        tokens.forget(&cluster, "t5");
        assert_eq!(tokens.look(&cluster, "t5", 1), Known::New);
        assert_eq!(tokens.0.lock().unwrap().order.len(), MOST - 1);
    }
}
