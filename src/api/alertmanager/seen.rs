//! The alerts that could not be used, so that whoever wrote their rules finds out. A bounded memory: they are sent again and again.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::decide::alert::Alert;
use crate::model::Timestamp;

/// Different alerts that are remembered; the longest unheard goes first.
const MOST: usize = 100;

#[derive(Default)]
pub struct Seen(Mutex<BTreeMap<String, Unusable>>);

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Unusable {
    pub rule: String,
    pub labels: BTreeMap<String, String>,
    pub why: String,
    pub times: u64,
    #[serde(serialize_with = "iso")]
    pub last_at: Timestamp,
}

fn iso<S: serde::Serializer>(at: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&at.iso())
}

impl Seen {
    pub fn unusable(&self, alert: &Alert, why: String, now: Timestamp) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get_mut(&alert.fingerprint) {
            known.times += 1;
            known.last_at = now;
            known.why = why;
            return;
        }
        if known.len() >= MOST
            && let Some(oldest) = known.iter().min_by_key(|(_, u)| u.last_at).map(|(key, _)| key.clone())
        {
            known.remove(&oldest);
        }
        let unusable = Unusable { rule: alert.rule().to_owned(), labels: alert.labels.clone(), why, times: 1, last_at: now };
        known.insert(alert.fingerprint.clone(), unusable);
    }

    /// Newest first.
    pub fn list(&self) -> Vec<Unusable> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<Unusable> = known.values().cloned().collect();
        all.sort_by_key(|u| std::cmp::Reverse(u.last_at));
        all
    }
}
