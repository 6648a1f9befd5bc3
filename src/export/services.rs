//! Services, their deployments and their scaling.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::families::{Kind, Page, labels};
use crate::api::App;
use crate::decide::alarm;
use crate::decide::autoscale::cooldown;
use crate::model::DeploymentId;
use crate::model::metric::Query;
use crate::model::scaling::{PolicyKind, ScalingPolicy, TargetTracking, TrackedMetric};
use crate::model::service::{Rollout, Service, ServiceStatus};
use crate::model::task::TaskStatus;
use crate::store::State;

/// How long after a period's end its data may still arrive.
const SETTLE_MS: i64 = 150;

pub fn write(page: &mut Page, app: &App, state: &State) {
    let live: Vec<(String, &Arc<Service>)> = state
        .services
        .values()
        .filter(|s| s.status != ServiceStatus::Inactive)
        .map(|s| (labels([("cluster", s.key.cluster.as_str()), ("service", s.key.service.as_str())]), s))
        .collect();
    let mut gauge = |name: &str, help: &str, read: &dyn Fn(&Service) -> Option<f64>| {
        page.family(name, Kind::Gauge, help, live.iter().filter_map(|(labels, s)| Some((labels, read(s)?))));
    };
    let count = |n: u32| Some(f64::from(n));
    gauge("beaufort_service_desired_tasks", "Tasks wanted.", &|s| count(s.desired_count));
    gauge("beaufort_service_running_tasks", "Tasks RUNNING.", &|s| count(state.counts(&s.key).running));
    gauge("beaufort_service_pending_tasks", "Tasks on their way to RUNNING.", &|s| count(state.counts(&s.key).pending));
    gauge("beaufort_service_stopping_tasks", "Tasks on their way to STOPPED.", &|s| count(state.counts(&s.key).stopping));
    gauge("beaufort_service_min_tasks", "Least capacity that scaling may set.", &|s| {
        Some(f64::from(state.targets.get(&s.key)?.min))
    });
    gauge("beaufort_service_max_tasks", "Most capacity that scaling may set.", &|s| {
        Some(f64::from(state.targets.get(&s.key)?.max))
    });
    gauge("beaufort_service_unplaceable_tasks", "Tasks wanted that neither run nor are on their way.", &|s| {
        let counts = state.counts(&s.key);
        count(s.desired_count.saturating_sub(counts.running + counts.pending))
    });
    gauge("beaufort_service_steady", "1 while the service is in its steady state.", &|s| Some(f64::from(u8::from(s.steady))));
    gauge("beaufort_deployment_in_progress", "1 while a deployment of the service goes on.", &|s| {
        Some(f64::from(u8::from(s.deployments.iter().any(|d| d.rollout == Rollout::InProgress) || s.deployments.len() > 1)))
    });
    gauge("beaufort_deployment_failed_tasks", "Tasks in a row of the newest deployment that did not reach RUNNING.", &|s| {
        Some(f64::from(s.primary()?.failed_tasks))
    });
    gauge("beaufort_deployment_last_progress_timestamp_seconds", "When the newest deployment last moved.", &|s| {
        Some(s.primary()?.updated_at.seconds())
    });
    deployments(page, state, live.iter().map(|(_, service)| &***service));
    scaling(page, app, state);
}

fn deployments<'a>(page: &mut Page, state: &State, live: impl Iterator<Item = &'a Service>) {
    let mut rows = Vec::new();
    for service in live {
        // Of each deployment: tasks that run, and tasks that are not asked to stop.
        let mut counts: BTreeMap<&DeploymentId, (u32, u32)> = BTreeMap::new();
        for task in state.live_tasks_of_service(&service.key) {
            let Some(deployment) = &task.deployment else { continue };
            let (running, kept) = counts.entry(deployment).or_default();
            *running += u32::from(task.last_status == TaskStatus::Running);
            *kept += u32::from(!task.is_stopping());
        }
        for (at, deployment) in service.deployments.iter().enumerate() {
            let (running, kept) = counts.get(&deployment.id).copied().unwrap_or_default();
            let primary = at == 0;
            let pairs = [
                ("cluster", service.key.cluster.as_str()),
                ("service", service.key.service.as_str()),
                ("deployment", deployment.id.as_str()),
                ("status", if primary { "PRIMARY" } else { "ACTIVE" }),
                ("revision", &deployment.definition.revision.to_string()),
            ];
            // As DescribeServices counts them: what an older deployment may still keep is what is not asked to stop.
            rows.push((labels(pairs), if primary { service.desired_count } else { kept }, running));
        }
    }
    page.family(
        "beaufort_deployment_desired_tasks",
        Kind::Gauge,
        "Tasks that the deployment wants, or may still keep.",
        rows.iter().map(|(labels, desired, _)| (labels, f64::from(*desired))),
    );
    page.family(
        "beaufort_deployment_running_tasks",
        Kind::Gauge,
        "Tasks of the deployment that are RUNNING.",
        rows.iter().map(|(labels, _, running)| (labels, f64::from(*running))),
    );
}

fn scaling(page: &mut Page, app: &App, state: &State) {
    let tracking: Vec<(String, &TargetTracking, &ScalingPolicy)> = state
        .policies
        .values()
        .filter_map(|policy| {
            let PolicyKind::TargetTracking(tracking) = &policy.kind else { return None };
            let metric = match &tracking.metric {
                TrackedMetric::Predefined { name, .. } => name.as_str(),
                TrackedMetric::Custom { metric, .. } => &*metric.name,
            };
            let pairs = [
                ("cluster", policy.service.cluster.as_str()),
                ("service", policy.service.service.as_str()),
                ("policy", &policy.name),
                ("metric", metric),
            ];
            Some((labels(pairs), tracking, &**policy))
        })
        .collect();
    page.family(
        "beaufort_scaling_policy_target",
        Kind::Gauge,
        "What a target-tracking policy keeps its metric at.",
        tracking.iter().map(|(labels, tracking, _)| (labels, tracking.target)),
    );
    page.family(
        "beaufort_scaling_policy_metric",
        Kind::Gauge,
        "The newest value of a target-tracking policy's metric.",
        tracking.iter().filter_map(|(labels, _, policy)| Some((labels, newest(app, state, policy)?))),
    );
    let now = app.clock.now();
    let cooldowns: Vec<(String, f64)> = state
        .targets
        .values()
        .flat_map(|target| {
            let key = &target.service;
            let policies: Vec<&ScalingPolicy> = state.policies_of_service(key).map(|policy| &**policy).collect();
            let desired = state.services.get(key).map_or(0, |service| service.desired_count);
            let (out, inward) = cooldown::remaining(target, desired, &policies, now);
            [("out", out), ("in", inward)].map(|(direction, left)| {
                let pairs = [("cluster", key.cluster.as_str()), ("service", key.service.as_str()), ("direction", direction)];
                (labels(pairs), left as f64 / 1e3)
            })
        })
        .collect();
    page.family(
        "beaufort_scaling_cooldown_remaining_seconds",
        Kind::Gauge,
        "What is left of the cooldown, 0 for none.",
        cooldowns,
    );
}

/// As the policy's own high alarm sees it, which looks at whole periods.
fn newest(app: &App, state: &State, policy: &ScalingPolicy) -> Option<f64> {
    let alarm = state.alarms.get(policy.alarms.first()?)?;
    let range = alarm::range(alarm, app.clock.now(), SETTLE_MS);
    let query = Query {
        key: alarm.metric.clone(),
        statistic: alarm.statistic.clone(),
        unit: alarm.unit.as_deref().map(Arc::from),
        start: range.start,
        end: range.end,
        period_ms: range.period_ms,
    };
    app.metrics.query(&query).last().map(|point| point.value)
}
