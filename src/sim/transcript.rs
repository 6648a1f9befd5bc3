//! The decisions of a run as a text that a person reads and a test compares: when, about what, what was done and why. Ids, which
//! differ from run to run of changed code, are told by names in the order of their first appearance.

use std::collections::BTreeMap;

use super::clock::START;
use crate::model::Timestamp;
use crate::model::decision::{Decision, Subject};

/// `hosts`: host names by the ids of their instances.
pub fn transcript(ledger: &[(Timestamp, Decision)], hosts: &BTreeMap<String, String>) -> String {
    let mut names = Names { hosts, known: BTreeMap::new(), tasks: 0, others: 0 };
    let mut text = String::new();
    for (at, decision) in ledger {
        let subject = match &decision.subject {
            Subject::Task { task, .. } => names.say(task.as_str()),
            Subject::Service(key) => format!("service {key}"),
            Subject::Instance(id) => names.say(id.as_str()),
            Subject::Alarm { name, .. } => format!("alarm {}", names.say(name)),
        };
        let (action, sentence) = (names.say(&decision.action), names.say(&decision.reason.sentence));
        let code = decision.reason.code.as_str();
        text.push_str(&format!("{} {subject}: {action} [{code}] {sentence}\n", offset(*at)));
    }
    text
}

/// Since the world began: minutes, seconds and milliseconds.
fn offset(at: Timestamp) -> String {
    let ms = at.since(START);
    format!("{:02}:{:02}.{:03}", ms / 60_000, ms / 1_000 % 60, ms % 1_000)
}

struct Names<'a> {
    hosts: &'a BTreeMap<String, String>,
    known: BTreeMap<String, String>,
    tasks: u32,
    others: u32,
}

impl Names<'_> {
    fn say(&mut self, text: &str) -> String {
        let mut said = String::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let word_len = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(rest.len());
            if word_len == 0 {
                said.push(first);
                rest = &rest[first.len_utf8()..];
                continue;
            }
            let (word, after) = rest.split_at(word_len);
            said.push_str(&self.word(word));
            rest = after;
        }
        // Moments of the day are told from the world's begin elsewhere: dates stay as they are, as START does.
        said
    }

    fn word(&mut self, word: &str) -> String {
        if let Some(host) = self.hosts.get(word) {
            return host.clone();
        }
        let is_hex = word.bytes().all(|b| b.is_ascii_hexdigit());
        // A policy's alarm ends in a UUID.
        let uuid = word.len().checked_sub(36).filter(|&at| is_uuid(&word[at..]));
        let (kept, id) = match uuid {
            Some(at) => word.split_at(at),
            None if word.len() == 32 && is_hex => ("", word),
            None if word.len() == 19 && word.bytes().all(|b| b.is_ascii_digit()) => ("", word),
            None => return word.to_owned(),
        };
        if let Some(name) = self.known.get(id) {
            return format!("{kept}{name}");
        }
        let (count, kind) = if id.len() == 32 { (&mut self.tasks, "task") } else { (&mut self.others, "id") };
        *count += 1;
        let name = format!("{kind}-{count}");
        self.known.insert(id.to_owned(), name.clone());
        format!("{kept}{name}")
    }
}

fn is_uuid(text: &str) -> bool {
    let dashes = [8, 13, 18, 23];
    text.len() == 36 && text.bytes().enumerate().all(|(n, b)| if dashes.contains(&n) { b == b'-' } else { b.is_ascii_hexdigit() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_become_names() {
        let instance = "a".repeat(32);
        let hosts = BTreeMap::from([(instance.clone(), "host-3".to_owned())]);
        let mut names = Names { hosts: &hosts, known: BTreeMap::new(), tasks: 0, others: 0 };
        let (one, two) = ("0".repeat(32), "1".repeat(32));
        let text = format!(
            "task {one} on {instance}, ecs-svc/1234567890123456789; not {two} but ({one}) — TargetTracking-x-{}",
            "12345678-1234-4234-8234-123456789012"
        );
        let told = "task task-1 on host-3, ecs-svc/id-1; not task-2 but (task-1) — TargetTracking-x-id-2";
        assert_eq!(names.say(&text), told);
        assert_eq!(offset(START + 61_020), "01:01.020");
    }
}
