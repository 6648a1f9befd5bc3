//! `POST /api/why/placement`: where tasks would go, and why not elsewhere, without placing any.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answered, App, Refusal, bad, ok};
use crate::decide::definition::reserved;
use crate::decide::placement::{self, Candidate, Outcome, Request};
use crate::model::ClusterName;
use crate::model::placement::{PlacementConstraint, PlacementStrategy};
use crate::schedule::find_definition;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WhatIf {
    cluster: Option<String>,
    task_definition: String,
    count: Option<u32>,
    group: Option<String>,
    #[serde(default)]
    placement_constraints: Vec<PlacementConstraint>,
    #[serde(default)]
    placement_strategy: Vec<PlacementStrategy>,
}

/// Tasks that one question may place.
const MAX_COUNT: u32 = 1_000;

pub fn what_if(app: &App, body: &[u8]) -> Answered {
    let asked: WhatIf = serde_json::from_slice(body).map_err(|e| bad(format!("the body cannot be read: {e}")))?;
    placement::check(&asked.placement_constraints, &asked.placement_strategy).map_err(bad)?;
    let state = app.store.snapshot();
    let definition = find_definition(&state, &asked.task_definition).ok_or_else(|| Refusal {
        status: 404,
        error: format!("there is no task definition {}", asked.task_definition),
        hint: "aws ecs list-task-definitions shows what there is",
    })?;
    let cluster = ClusterName::new(asked.cluster.as_deref().unwrap_or("default"));
    let hosts: Vec<_> = state.instances_of_cluster(&cluster).map(|i| (i.clone(), state.load(&i.id))).collect();
    let candidates: Vec<Candidate> = hosts.iter().map(|(instance, load)| Candidate { instance, load }).collect();
    let resources = reserved(definition, &Default::default());
    let group = asked.group.unwrap_or_else(|| format!("family:{}", definition.key.family));
    let constraints = [asked.placement_constraints, definition.placement_constraints.clone()].concat();
    let request = Request {
        count: asked.count.unwrap_or(1).min(MAX_COUNT),
        resources: &resources,
        group: &group,
        constraints: &constraints,
        strategy: &asked.placement_strategy,
        of_service: group.starts_with("service:"),
        seed: app.ids.u64(),
    };
    let outcomes: Vec<Value> = placement::place(&request, &candidates)
        .into_iter()
        .map(|outcome| match outcome {
            Outcome::Placed { instance, reason } => {
                json!({ "placed": true, "instance": instance, "reason": reason.sentence, "evidence": reason.evidence })
            }
            Outcome::Refused(refusal) => json!({
                "placed": false,
                "reason": refusal.reason.sentence,
                "evidence": refusal.reason.evidence,
                "event": refusal.event_text(),
            }),
        })
        .collect();
    let needs = json!({ "cpu": resources.cpu, "memory": resources.memory, "tcp_ports": resources.tcp_ports, "udp_ports": resources.udp_ports });
    Ok(ok(&json!({ "cluster": cluster, "task_definition": definition.key.to_string(), "needs": needs, "outcomes": outcomes })))
}
