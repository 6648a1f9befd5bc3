//! `POST /api/reset`, for test suites: empties everything and stops its tasks. Only with `--ephemeral`.

use serde_json::json;

use super::{Answered, App, Refusal, ok, unavailable};
use crate::store::{self, Change, State};

pub async fn reset(app: &App) -> Answered {
    if !app.ephemeral {
        return Err(Refusal {
            status: 403,
            error: "this Beaufort keeps its state".to_owned(),
            hint: "start it with --ephemeral to be able to reset it",
        });
    }
    let first = app.first_cluster.clone();
    let forgotten = app
        .store
        .update("reset", move |tx| {
            let gone = everything(tx.state(), first.as_str());
            let count = gone.len();
            // Agents are told to forget tasks that vanish: they stop and remove their containers.
            gone.into_iter().for_each(|change| tx.put(change));
            Ok::<_, store::Error>(count)
        })
        .await
        .map_err(unavailable)?;
    app.store.clear_history().await.map_err(unavailable)?;
    app.metrics.reset();
    app.logs.reset().map_err(unavailable)?;
    Ok(ok(&json!({ "forgotten": forgotten })))
}

/// Everything but container instances, which are there whatever we say, and the first cluster.
fn everything(state: &State, first: &str) -> Vec<Change> {
    let tasks = state.tasks.keys().map(|k| Change::Task(k.clone(), None));
    let services = state.services.keys().map(|k| Change::Service(k.clone(), None));
    let definitions = state.definitions.keys().map(|k| Change::Definition(k.clone(), None));
    let alarms = state.alarms.keys().map(|k| Change::Alarm(k.clone(), None));
    let targets = state.targets.keys().map(|k| Change::Target(k.clone(), None));
    let policies = state.policies.keys().map(|k| Change::Policy(k.clone(), None));
    let activities = state.activities.keys().map(|k| Change::Activity(k.clone(), None));
    let kept = |name: &str| name == first || state.instances.values().any(|i| i.cluster.as_str() == name);
    let clusters = state.clusters.keys().filter(|k| !kept(k.as_str())).map(|k| Change::Cluster(k.clone(), None));
    tasks
        .chain(services)
        .chain(definitions)
        .chain(alarms)
        .chain(targets)
        .chain(policies)
        .chain(activities)
        .chain(clusters)
        .collect()
}
