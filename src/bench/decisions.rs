//! Decisions, alone: an alarm's evaluation and placements.

use std::collections::BTreeMap;

use super::per_second;
use super::row::{Row, Rows};
use crate::decide::{alarm, placement};
use crate::model::Timestamp;
use crate::model::alarm::{Alarm, AlarmState, Comparison, MissingData};
use crate::model::instance::{Instance, InstanceStatus, Load};
use crate::model::metric::{Datapoint, MetricKey, Statistic};
use crate::model::task::Resources;

const HOSTS: usize = 1_000;
pub(super) const NOW: Timestamp = Timestamp(1_795_170_000_000);

pub fn measure() -> anyhow::Result<Rows> {
    let (alarm, points) = (alarm_of_a_policy(), points());
    let range = alarm::range(&alarm, NOW, 0);
    let alarms = per_second(1, || alarm::evaluate(&alarm, range, &points, NOW));
    let hosts: Vec<(Instance, Load)> = (0..HOSTS).map(host).collect();
    let candidates: Vec<_> = hosts.iter().map(|(instance, load)| placement::Candidate { instance, load }).collect();
    let needs = Resources { cpu: 64, memory: 64, ..Resources::default() };
    let placed = |count| {
        let request = placement::Request {
            count,
            resources: &needs,
            group: "service:web",
            constraints: &[],
            strategy: &[],
            of_service: true,
            seed: 7,
        };
        per_second(count, || placement::place(&request, &candidates))
    };
    Ok(vec![
        Row::new("alarm evaluations", alarms, "evaluations/s")
            .at_least(200_000.0)
            .grows("linear in alarms that have new data; an alarm without is not looked at")
            .note("3 of 3 datapoints of a target tracking alarm, with its reasons, on one thread"),
        Row::new(format!("placements on {HOSTS} hosts, one at a time"), placed(1), "tasks/s"),
        Row::new(format!("placements on {HOSTS} hosts, 1000 at a time"), placed(1_000), "tasks/s"),
    ])
}

/// What target tracking makes of a high-resolution policy.
fn alarm_of_a_policy() -> Alarm {
    Alarm {
        name: "TargetTracking-service/default/web-AlarmHigh-0".to_owned(),
        description: None,
        actions_enabled: true,
        ok_actions: Vec::new(),
        alarm_actions: Vec::new(),
        insufficient_data_actions: Vec::new(),
        metric: MetricKey::new("AWS/ECS", "CPUUtilization", [("ClusterName", "default"), ("ServiceName", "web")]),
        statistic: Statistic::Average,
        period_s: 1,
        unit: None,
        evaluation_periods: 3,
        datapoints_to_alarm: None,
        threshold: 50.0,
        comparison: Comparison::GreaterThanThreshold,
        missing: MissingData::Missing,
        missing_given: false,
        owned_by_policy: None,
        state: AlarmState::Ok,
        state_reason: String::new(),
        state_reason_data: None,
        recent: Vec::new(),
        state_updated_at: NOW,
        state_transitioned_at: NOW,
        configuration_updated_at: NOW,
        tags: Vec::new(),
        trace: None,
        external: None,
    }
}

fn points() -> Vec<Datapoint> {
    (1..=5).rev().map(|i| Datapoint { at: NOW - i * 1_000, value: 60.0 + i as f64, sample_count: 1.0 }).collect()
}

pub fn host(n: usize) -> (Instance, Load) {
    let name = format!("host-{n}");
    let instance = Instance {
        id: name.as_str().into(),
        cluster: "default".into(),
        status: InstanceStatus::Active,
        agent_connected: true,
        disconnected_at: None,
        engine_away_since: None,
        registered: Resources { cpu: 65_536, memory: 262_144, ..Resources::default() },
        reserved_tcp_ports: vec![22],
        attributes: BTreeMap::from([("ecs.availability-zone".to_owned(), Some(format!("zone-{}", n % 3)))]),
        agent_version: String::new(),
        docker_version: String::new(),
        host_name: name,
        host_address: String::new(),
        tags: Vec::new(),
        registered_at: NOW,
        version: 1,
    };
    // Uneven, so that the ranking has something to do.
    (instance, Load { cpu: (n as u32 * 37) % 1_024, tasks: n as u32 % 10, ..Load::default() })
}
