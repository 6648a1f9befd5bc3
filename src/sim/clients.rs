//! Clients that remember what they were told: after every crash and at the end, each change that was acknowledged is there, or a later
//! one of the same thing. A call whose answer was lost may have been done or not, but never by half; one that was refused has not.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::script::Call;
use super::seen::Seen;
use crate::model::definition::TaskDefinition;
use crate::model::scaling::PolicyKind;
use crate::model::service::ServiceStatus;
use crate::model::{DefinitionKey, ServiceKey, TaskId};
use crate::store::State;

/// How a call ended for its client.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Done(Value),
    Refused(String),
    /// The control plane died before it answered.
    Lost,
}

/// What a thing may be now: as the last acknowledged call left it, or as one whose answer was lost since may have.
#[derive(Clone, Debug, PartialEq)]
struct May<T>(Vec<T>);

impl<T: Clone + PartialEq> May<T> {
    fn after(&self, answer: &Answer, change: impl Fn(&T) -> T) -> May<T> {
        let changed = self.0.iter().map(change);
        let mut all: Vec<T> = match answer {
            Answer::Done(_) => changed.collect(),
            Answer::Lost => self.0.iter().cloned().chain(changed).collect(),
            Answer::Refused(_) => self.0.clone(),
        };
        let mut kept: Vec<T> = Vec::new();
        all.retain(|one| {
            !kept.contains(one) && {
                kept.push(one.clone());
                true
            }
        });
        May(all)
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Asked {
    /// None: something else scales it.
    desired: Option<u32>,
    definition: String,
}

#[derive(Default)]
pub struct Clients {
    services: BTreeMap<String, May<Option<Asked>>>,
    /// Revisions that were acknowledged.
    definitions: BTreeSet<String>,
    targets: BTreeMap<String, May<Option<(u32, u32)>>>,
    tracked: BTreeMap<String, May<Option<u32>>>,
    alarms: BTreeMap<String, May<Option<u32>>>,
    /// Of RunTask.
    pub run: Vec<TaskId>,
    stopped: BTreeSet<TaskId>,
}

fn none<T>() -> May<Option<T>> {
    May(vec![None])
}

fn key(service: &str) -> ServiceKey {
    ServiceKey::new("default", service)
}

/// The last part of an ARN.
fn tail(value: &Value) -> Option<&str> {
    value.as_str()?.rsplit('/').next()
}

/// The family's newest revision, which a call that names the family means.
fn newest(state: &State, family: &str) -> Option<String> {
    let of_family = state.definitions.keys().filter(|key: &&DefinitionKey| *key.family == *family);
    of_family.max_by_key(|key| key.revision).map(DefinitionKey::to_string)
}

impl Clients {
    /// `state` is what was there before the call.
    pub fn hear(&mut self, call: &Call, answer: &Answer, state: &State, stop: Option<&TaskId>) {
        let body = match answer {
            Answer::Done(body) => body,
            _ => &Value::Null,
        };
        match call {
            Call::Register { .. } => {
                self.definitions.extend(tail(&body["taskDefinition"]["taskDefinitionArn"]).map(str::to_owned))
            }
            Call::Create { service, family, desired, .. } => {
                let Some(definition) = newest(state, family) else { return };
                let asked = Asked { desired: Some(*desired), definition };
                self.service(service, answer, |_| Some(asked.clone()));
            }
            Call::Desire { service, desired } => self.service(service, answer, |before| {
                let before = before.clone()?;
                Some(Asked { desired: before.desired.map(|_| *desired), ..before })
            }),
            Call::Roll { service, family } => {
                let Some(definition) = newest(state, family) else { return };
                self.service(service, answer, |before| Some(Asked { definition: definition.clone(), ..before.clone()? }));
            }
            Call::Delete { service } => self.service(service, answer, |_| None),
            Call::RunTask { .. } => {
                let made = body["tasks"].as_array().into_iter().flatten();
                self.run.extend(made.filter_map(|task| tail(&task["taskArn"])).map(TaskId::new));
            }
            Call::StopTask { .. } if matches!(answer, Answer::Done(_)) => self.stopped.extend(stop.cloned()),
            Call::StopTask { .. } => {}
            Call::Target { service, min, max } => {
                // From now on its policies may set the desired count, and the target itself pulls it into its bounds.
                if !matches!(answer, Answer::Refused(_)) {
                    self.scaled(service);
                }
                let may = self.targets.entry(service.clone()).or_insert_with(none);
                *may = may.after(answer, |_| Some((*min, *max)));
            }
            Call::Track { service, percent } => {
                let may = self.tracked.entry(service.clone()).or_insert_with(none);
                *may = may.after(answer, |_| Some(*percent));
            }
            Call::Steps { .. } => {}
            Call::Alarm { name, threshold } => self.alarm(name, answer, Some(*threshold)),
            Call::Unalarm { name } => self.alarm(name, answer, None),
        }
    }

    fn service(&mut self, name: &str, answer: &Answer, change: impl Fn(&Option<Asked>) -> Option<Asked>) {
        let scaled = self.targets.contains_key(name);
        let change = |before: &Option<Asked>| {
            let after = change(before)?;
            Some(Asked { desired: after.desired.filter(|_| !scaled), ..after })
        };
        let may = self.services.entry(name.to_owned()).or_insert_with(none);
        *may = may.after(answer, change);
    }

    fn scaled(&mut self, name: &str) {
        for asked in self.services.get_mut(name).into_iter().flat_map(|may| &mut may.0).flatten() {
            asked.desired = None;
        }
    }

    fn alarm(&mut self, name: &str, answer: &Answer, threshold: Option<u32>) {
        let may = self.alarms.entry(name.to_owned()).or_insert_with(none);
        *may = may.after(answer, |_| threshold);
    }

    /// What is not as it was acknowledged. `seen` says which tasks have been forgotten in due time.
    pub fn missing(&self, state: &State, seen: &Seen) -> Vec<String> {
        let mut missing = Vec::new();
        for (name, may) in &self.services {
            let is = state.services.get(&key(name)).filter(|s| s.status == ServiceStatus::Active).and_then(|service| {
                let definition = service.primary()?.definition.to_string();
                Some(Asked { desired: Some(service.desired_count), definition })
            });
            let same = |may: &Option<Asked>| match (may, &is) {
                (Some(may), Some(is)) => may.definition == is.definition && (may.desired.is_none() || may.desired == is.desired),
                (None, None) => true,
                _ => false,
            };
            if !may.0.iter().any(same) {
                missing.push(format!("service {name} is {is:?}, and its clients were told {:?}", may.0));
            }
        }
        for definition in &self.definitions {
            if !state.definitions.keys().any(|key| key.to_string() == *definition) {
                missing.push(format!("task definition {definition} was acknowledged and is not there"));
            }
        }
        for (name, may) in &self.targets {
            let is = state.targets.get(&key(name)).map(|target| (target.min, target.max));
            if !may.0.contains(&is) {
                missing.push(format!("the scalable target of {name} is {is:?}, and its clients were told {:?}", may.0));
            }
        }
        for (name, may) in &self.tracked {
            let policy = state.policies.get(&(key(name), "cpu".to_owned()));
            let is = policy.and_then(|policy| match &policy.kind {
                PolicyKind::TargetTracking(tracking) => Some(tracking.target as u32),
                PolicyKind::Step(_) => None,
            });
            let alarms = policy.map_or(0, |policy| policy.alarms.iter().filter(|name| state.alarms.contains_key(*name)).count());
            if !may.0.contains(&is) || (is.is_some() && alarms != 2) {
                missing
                    .push(format!("the policy of {name} is {is:?} with {alarms} alarms, and its clients were told {:?}", may.0));
            }
        }
        for (name, may) in &self.alarms {
            let is = state.alarms.get(name).map(|alarm| alarm.threshold as u32);
            if !may.0.contains(&is) {
                missing.push(format!("alarm {name} is {is:?}, and its clients were told {:?}", may.0));
            }
        }
        for id in &self.run {
            match state.tasks.get(id) {
                Some(task) if self.stopped.contains(id) && !task.is_stopping() => {
                    missing.push(format!("task {id} was asked to stop, which was acknowledged, and is not stopping"));
                }
                None if !seen.forgotten.contains(id) => missing.push(format!("task {id} was acknowledged and is not there")),
                _ => {}
            }
        }
        missing
    }
}

/// How the containers of a definition behave.
pub fn behaviour(definition: &TaskDefinition) -> &str {
    let first = definition.containers.first();
    let variables = first.and_then(|container| container.environment.as_ref()).into_iter().flatten();
    variables.filter(|pair| pair.name.as_deref() == Some("SIM")).find_map(|pair| pair.value.as_deref()).unwrap_or("ok")
}
