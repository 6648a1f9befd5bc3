//! How changes and records are written: the one place that knows. A row is its thing as JSON, under its kind and its key as JSON; the
//! journal holds the same texts, one commit's changes as an array. Each text is made once and written to both.
//!
//! A reader of a journal needs [`decode_changes`], [`decode_causes`] and [`decode_record`], and [`sum`] where it wants to be sure.

use serde::{Deserialize, Serialize};

use super::{Change, Record, RecordKind};

/// A change as it is written. `row` None deletes.
pub(super) struct Encoded {
    pub kind: &'static str,
    pub key: String,
    pub row: Option<String>,
    /// The change's name in the journal.
    name: &'static str,
}

/// Row kinds and what the journal calls them.
const KINDS: &[(&str, &str)] = &[
    ("cluster", "Cluster"),
    ("definition", "Definition"),
    ("service", "Service"),
    ("task", "Task"),
    ("instance", "Instance"),
    ("alarm", "Alarm"),
    ("target", "Target"),
    ("policy", "Policy"),
    ("activity", "Activity"),
];

pub(super) fn encode(change: &Change) -> Result<Encoded, serde_json::Error> {
    fn of<K: Serialize, V: Serialize>(kind: usize, key: &K, row: &Option<V>) -> Result<Encoded, serde_json::Error> {
        let (kind, name) = KINDS[kind];
        let row = row.as_ref().map(serde_json::to_string).transpose()?;
        Ok(Encoded { kind, name, key: serde_json::to_string(key)?, row })
    }
    match change {
        Change::Cluster(key, row) => of(0, key, row),
        Change::Definition(key, row) => of(1, key, row),
        Change::Service(key, row) => of(2, key, row),
        Change::Task(key, row) => of(3, key, row),
        Change::Instance(key, row) => of(4, key, row),
        Change::Alarm(key, row) => of(5, key, row),
        Change::Target(key, row) => of(6, key, row),
        Change::Policy(key, row) => of(7, key, row),
        Change::Activity(key, row) => of(8, key, row),
    }
}

/// The row that a change is about.
pub(super) fn address(change: &Change) -> Result<(&'static str, String), serde_json::Error> {
    fn of<K: Serialize>(kind: usize, key: &K) -> Result<(&'static str, String), serde_json::Error> {
        Ok((KINDS[kind].0, serde_json::to_string(key)?))
    }
    match change {
        Change::Cluster(key, _) => of(0, key),
        Change::Definition(key, _) => of(1, key),
        Change::Service(key, _) => of(2, key),
        Change::Task(key, _) => of(3, key),
        Change::Instance(key, _) => of(4, key),
        Change::Alarm(key, _) => of(5, key),
        Change::Target(key, _) => of(6, key),
        Change::Policy(key, _) => of(7, key),
        Change::Activity(key, _) => of(8, key),
    }
}

/// The text of a journal entry's changes: what serde would make of a `Vec<Change>`.
pub(super) fn journal_text(changes: &[Encoded]) -> String {
    let mut text = String::with_capacity(64 + changes.iter().map(|c| 64 + c.row.as_ref().map_or(4, String::len)).sum::<usize>());
    text.push('[');
    for (n, change) in changes.iter().enumerate() {
        if n > 0 {
            text.push(',');
        }
        let row = change.row.as_deref().unwrap_or("null");
        for part in ["{\"", change.name, "\":[", &change.key, ",", row, "]}"] {
            text.push_str(part);
        }
    }
    text.push(']');
    text
}

pub fn decode_changes(text: &str) -> Result<Vec<Change>, serde_json::Error> {
    serde_json::from_str(text)
}

pub fn decode_causes(text: &str) -> Result<Vec<String>, serde_json::Error> {
    serde_json::from_str(text)
}

pub fn decode_record(body: &str) -> Result<Record, serde_json::Error> {
    serde_json::from_str(body)
}

/// What a row says. An unknown kind is an error, as an unknown member would be none.
pub fn decode_row(kind: &str, key: &str, row: &str) -> Result<Change, serde_json::Error> {
    fn of<'a, K: Deserialize<'a>, V: Deserialize<'a>>(
        change: fn(K, Option<V>) -> Change,
        key: &'a str,
        row: &'a str,
    ) -> Result<Change, serde_json::Error> {
        Ok(change(serde_json::from_str(key)?, Some(serde_json::from_str(row)?)))
    }
    match kind {
        "cluster" => of(Change::Cluster, key, row),
        "definition" => of(Change::Definition, key, row),
        "service" => of(Change::Service, key, row),
        "task" => of(Change::Task, key, row),
        "instance" => of(Change::Instance, key, row),
        "alarm" => of(Change::Alarm, key, row),
        "target" => of(Change::Target, key, row),
        "policy" => of(Change::Policy, key, row),
        "activity" => of(Change::Activity, key, row),
        _ => Err(serde::de::Error::custom(format_args!("there is no kind of row {kind:?}"))),
    }
}

/// The number under which the database keeps a kind of record.
pub fn record_kind(kind: RecordKind) -> i64 {
    match kind {
        RecordKind::Decision => 1,
        RecordKind::Alarm => 2,
    }
}

/// The checksum that is kept beside texts: CRC-32 over each with its length, so that no border can move.
pub fn sum(texts: &[&str]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for text in texts {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::task::TaskStatus;
    use crate::model::{ClusterName, ServiceKey, TaskId};
    use crate::store::tests::{cluster, task};

    #[test]
    fn rows_and_journal_say_what_the_changes_were() {
        let changes = [
            Change::from(task("1", "web", "i", TaskStatus::Running)),
            Change::Task(TaskId::new("2"), None),
            Change::from(cluster("c")),
            Change::Service(ServiceKey::new("c", "a \"quoted\" name"), None),
            Change::Activity((ServiceKey::new("c", "web"), -5, "id".into()), None),
            Change::Cluster(ClusterName::new("d"), None),
        ];
        let encoded: Vec<Encoded> = changes.iter().map(|c| encode(c).unwrap()).collect();
        assert_eq!(decode_changes(&journal_text(&encoded)).unwrap(), changes);
        assert_eq!(journal_text(&[]), "[]");
        for (encoded, change) in encoded.iter().zip(&changes) {
            if let Some(row) = &encoded.row {
                assert_eq!(decode_row(encoded.kind, &encoded.key, row).unwrap(), *change);
            }
        }
        assert!(decode_row("volume", "\"v\"", "{}").unwrap_err().to_string().contains("volume"));
        assert_ne!(sum(&["ab", "c"]), sum(&["a", "bc"]));
    }
}
