//! The cluster query language of memberOf constraints and of ListContainerInstances' filter, as the Amazon ECS Developer Guide
//! ("Create expressions to define container instances for Amazon ECS tasks") defines it.
//!
//! Reading is [`parse`], asking is [`Expression::matches`]; regular expressions are compiled once, when the text is read.

mod parse;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::collections::BTreeMap;

use regex::bytes::Regex;

use crate::model::Timestamp;
use crate::model::instance::{Instance, Load};

pub use parse::parse;

/// PlacementConstraint: "The expression can have a maximum length of 2000 characters".
pub const MAX_CHARACTERS: usize = 2_000;

/// Parentheses and negations within one another: no expression that people write comes near.
const MAX_NESTING: usize = 32;

/// Compiled bytes of one regular expression, and of its cache: a text of the greatest length holds a hundred of them.
const MAX_REGEX_BYTES: usize = 128 * 1024;

/// An expression that was read and understood.
#[derive(Debug)]
pub struct Expression(Node);

/// Why a text is no expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at character {position}: expected {expected}")]
pub struct ParseError {
    /// The first character is number 1.
    pub position: usize,
    pub expected: String,
}

/// What an expression is asked about: a container instance and what runs on it now.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    pub instance: &'a Instance,
    pub load: &'a Load,
}

#[derive(Debug)]
enum Node {
    Any(Vec<Node>),
    All(Vec<Node>),
    Not(Box<Node>),
    Test(Test),
}

#[derive(Debug)]
enum Test {
    Exists(String),
    Attribute(String, TextTest),
    AttributeOrder(String, Comparison, String),
    AgentConnected(TextTest),
    /// `ec2InstanceId`: here the container instance's own id.
    InstanceId(TextTest),
    AgentVersion(Comparison, Vec<u64>),
    RegisteredAt(Comparison, Timestamp),
    RunningTasks(Comparison, i64),
    /// True when it is true of the group of any task on the instance whose desired status is RUNNING.
    TaskGroup(TextTest),
}

#[derive(Debug)]
enum TextTest {
    Equals(String),
    In(Vec<String>),
    /// Anchored on both sides: Java's `matches`, which the language is built on, means the whole value.
    Matches(Regex),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

impl Expression {
    /// `!=`, `!in` and `!~` are the plain negations of `==`, `in` and `=~`: an instance without the attribute satisfies them.
    pub fn matches(&self, subject: &Subject) -> bool {
        holds(&self.0, subject)
    }

    /// The answer for every instance with these attributes; None where it depends on anything else.
    pub fn matches_attributes(&self, attributes: &BTreeMap<String, Option<String>>) -> Option<bool> {
        settled(&self.0, attributes)
    }
}

/// Kleene's logic: what is not known leaves open only what hangs on it.
fn settled(node: &Node, attributes: &BTreeMap<String, Option<String>>) -> Option<bool> {
    let decided = |nodes: &[Node], by: bool| {
        let mut settled_all = true;
        for answer in nodes.iter().map(|n| settled(n, attributes)) {
            match answer {
                Some(answer) if answer == by => return Some(by),
                Some(_) => {}
                None => settled_all = false,
            }
        }
        settled_all.then_some(!by)
    };
    match node {
        Node::Any(nodes) => decided(nodes, true),
        Node::All(nodes) => decided(nodes, false),
        Node::Not(inner) => settled(inner, attributes).map(|answer| !answer),
        Node::Test(test) => of_attributes(test, attributes),
    }
}

/// None: the test asks about something else.
fn of_attributes(test: &Test, attributes: &BTreeMap<String, Option<String>>) -> Option<bool> {
    let attribute = |name: &str| attributes.get(name).and_then(|value| value.as_deref());
    match test {
        Test::Exists(name) => Some(attributes.contains_key(name)),
        Test::Attribute(name, text) => Some(attribute(name).is_some_and(|value| text.accepts(value))),
        Test::AttributeOrder(name, comparison, than) => {
            Some(attribute(name).is_some_and(|value| comparison.accepts(compare_values(value, than))))
        }
        _ => None,
    }
}

fn holds(node: &Node, subject: &Subject) -> bool {
    match node {
        Node::Any(nodes) => nodes.iter().any(|n| holds(n, subject)),
        Node::All(nodes) => nodes.iter().all(|n| holds(n, subject)),
        Node::Not(inner) => !holds(inner, subject),
        Node::Test(test) => passes(test, subject),
    }
}

fn passes(test: &Test, Subject { instance, load }: &Subject) -> bool {
    match test {
        Test::Exists(_) | Test::Attribute(..) | Test::AttributeOrder(..) => {
            of_attributes(test, &instance.attributes) == Some(true)
        }
        Test::AgentConnected(text) => text.accepts(if instance.agent_connected { "true" } else { "false" }),
        Test::InstanceId(text) => text.accepts(instance.id.as_str()),
        Test::AgentVersion(comparison, than) => comparison.accepts(compare_versions(&numbers_of(&instance.agent_version), than)),
        // The language writes whole seconds, so whole seconds are compared.
        Test::RegisteredAt(comparison, than) => comparison.accepts(instance.registered_at.floor(1000).cmp(than)),
        Test::RunningTasks(comparison, than) => comparison.accepts(i64::from(load.tasks).cmp(than)),
        Test::TaskGroup(text) => load.groups.iter().any(|(group, &tasks)| tasks > 0 && text.accepts(group)),
    }
}

impl TextTest {
    fn accepts(&self, value: &str) -> bool {
        match self {
            TextTest::Equals(wanted) => value == wanted,
            TextTest::In(list) => list.iter().any(|wanted| value == wanted),
            TextTest::Matches(regex) => regex.is_match(value.as_bytes()),
        }
    }
}

impl Comparison {
    fn accepts(self, ordering: Ordering) -> bool {
        match self {
            Comparison::Equal => ordering.is_eq(),
            Comparison::Greater => ordering.is_gt(),
            Comparison::GreaterOrEqual => ordering.is_ge(),
            Comparison::Less => ordering.is_lt(),
            Comparison::LessOrEqual => ordering.is_le(),
        }
    }
}

/// Attribute values are text; two numbers are compared as numbers.
fn compare_values(value: &str, than: &str) -> Ordering {
    match (value.parse::<f64>(), than.parse::<f64>()) {
        (Ok(value), Ok(than)) => value.total_cmp(&than),
        _ => value.cmp(than),
    }
}

/// `1.9` is older than `1.10`; `1.2` and `1.2.0` are the same.
fn compare_versions(left: &[u64], right: &[u64]) -> Ordering {
    let part = |parts: &[u64], at: usize| parts.get(at).copied().unwrap_or(0);
    (0..left.len().max(right.len())).map(|at| part(left, at).cmp(&part(right, at))).find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
}

/// The numbers of a version as an agent writes it: `v1.14.5-rc1 (abc)` is 1, 14, 5.
fn numbers_of(version: &str) -> Vec<u64> {
    let plain = version.trim_start_matches('v');
    let end = plain.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(plain.len());
    plain[..end].split('.').map_while(|part| part.parse().ok()).collect()
}
