//! Watches the service through the API, several times a second, and records what it sees.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::stage::{CLUSTER, SERVICE};
use super::summary::{Recording, Sample, Seen};
use crate::clock::{Clock, SystemClock};
use crate::load::client::{Api, CLOUDWATCH, ECS};
use crate::model::Timestamp;

const EVERY: Duration = Duration::from_millis(300);
/// Of the ledger in one look, and of it and of the looks in all: an hour of the demo.
const DECISIONS_AT_ONCE: usize = 200;
const DECISIONS_KEPT: usize = 2_000;
const SAMPLES_KEPT: usize = 12_000;

/// What the screen shows; clones are the same.
#[derive(Clone)]
pub struct Watched(Arc<Mutex<Inner>>);

struct Inner {
    /// All times are told from here.
    load_began: Timestamp,
    recording: Recording,
    alarms: Vec<Alarm>,
    after: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Alarm {
    /// AlarmHigh or AlarmLow.
    pub side: String,
    pub state: String,
    pub threshold: f64,
}

impl Watched {
    pub fn new(load_began: Timestamp, rises: Duration, falls: Duration) -> Watched {
        let recording =
            Recording { rises_ms: rises.as_millis() as i64, falls_ms: falls.as_millis() as i64, ..Recording::default() };
        Watched(Arc::new(Mutex::new(Inner { load_began, recording, alarms: Vec::new(), after: 0 })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn recording(&self) -> Recording {
        self.lock().recording.clone()
    }

    pub fn alarms(&self) -> Vec<Alarm> {
        self.lock().alarms.clone()
    }

    pub fn last(&self) -> Option<Sample> {
        self.lock().recording.samples.last().copied()
    }

    /// Looks until `stop`. A look that fails is left out.
    pub async fn follow(&self, api: Api, stop: CancellationToken) {
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            if let Err(error) = self.look(&api).await {
                tracing::warn!(error = format!("{error:#}"), "the service could not be looked at");
            }
        }
    }

    /// Also once at the end, so that nothing that was decided meanwhile is missing.
    pub async fn look(&self, api: &Api) -> anyhow::Result<()> {
        let (after, began) = {
            let inner = self.lock();
            (inner.after, inner.load_began)
        };
        let now = SystemClock.now();
        let described = api.aws(ECS, "DescribeServices", &json!({ "cluster": CLUSTER, "services": [SERVICE] })).await?;
        let alarms = api.aws(CLOUDWATCH, "DescribeAlarms", &json!({ "AlarmNamePrefix": "TargetTracking-service/" })).await?;
        let cpu = api.aws(CLOUDWATCH, "GetMetricStatistics", &cpu_question(now)).await?;
        let path = format!("/api/decisions?service={CLUSTER}/{SERVICE}&after={after}&limit={DECISIONS_AT_ONCE}");
        let decisions = api.get(&path).await?;
        let service = &described["services"][0];
        let count = |name: &str| service[name].as_u64().unwrap_or(0) as u32;
        let sample =
            Sample { at_ms: now.since(began), desired: count("desiredCount"), running: count("runningCount"), cpu: newest(&cpu) };
        let mut fresh: Vec<Seen> =
            decisions["decisions"].as_array().into_iter().flatten().filter_map(|d| seen(d, began)).collect();
        fresh.sort_by_key(|d| d.seq);
        let inner = &mut *self.lock();
        inner.alarms = alarms["MetricAlarms"].as_array().into_iter().flatten().filter_map(alarm).collect();
        inner.after = fresh.last().map_or(inner.after, |d| d.seq.max(inner.after));
        let recording = &mut inner.recording;
        if recording.samples.len() < SAMPLES_KEPT {
            recording.samples.push(sample);
        }
        let room = DECISIONS_KEPT.saturating_sub(recording.decisions.len());
        recording.decisions.extend(fresh.into_iter().take(room));
        Ok(())
    }
}

fn cpu_question(now: Timestamp) -> Value {
    let now_s = now.0 / 1000;
    json!({
        "Namespace": "AWS/ECS",
        "MetricName": "CPUUtilization",
        "Dimensions": [{ "Name": "ClusterName", "Value": CLUSTER }, { "Name": "ServiceName", "Value": SERVICE }],
        "StartTime": now_s - 5,
        "EndTime": now_s + 1,
        "Period": 1,
        "Statistics": ["Average"],
    })
}

fn newest(statistics: &Value) -> Option<f64> {
    let points = statistics["Datapoints"].as_array()?.iter();
    points
        .filter_map(|p| Some((p["Timestamp"].as_f64()?, p["Average"].as_f64()?)))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, cpu)| cpu)
}

fn alarm(described: &Value) -> Option<Alarm> {
    let name = described["AlarmName"].as_str()?;
    let side = ["AlarmHigh", "AlarmLow"].into_iter().find(|side| name.contains(side))?;
    Some(Alarm {
        side: side.to_owned(),
        state: described["StateValue"].as_str()?.to_owned(),
        threshold: described["Threshold"].as_f64()?,
    })
}

fn seen(decision: &Value, began: Timestamp) -> Option<Seen> {
    let text = |name: &str| decision[name].as_str().map(str::to_owned);
    Some(Seen {
        seq: decision["seq"].as_u64()?,
        at_ms: Timestamp::parse_iso(decision["at"].as_str()?)?.since(began),
        subject: text("subject")?,
        action: text("action")?,
        code: text("code")?,
        reason: text("reason")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let points = json!({ "Datapoints": [{ "Timestamp": 3.0, "Average": 40.0 }, { "Timestamp": 5.0, "Average": 61.5 }, { "Timestamp": 4.0, "Average": 1.0 }] });
        assert_eq!(newest(&points), Some(61.5));
        assert_eq!(newest(&json!({ "Datapoints": [] })), None);
        let described =
            json!({ "AlarmName": "TargetTracking-service/demo/web-AlarmLow-x", "StateValue": "OK", "Threshold": 49.5 });
        assert_eq!(alarm(&described), Some(Alarm { side: "AlarmLow".into(), state: "OK".into(), threshold: 49.5 }));
        assert_eq!(alarm(&json!({ "AlarmName": "other", "StateValue": "OK", "Threshold": 1.0 })), None);
        let decision = json!({ "seq": 7, "at": "2026-01-01T00:00:02.500Z", "subject": "service/demo/web", "action": "desired 1 -> 2",
            "code": "scaled_out", "reason": "because", "evidence": {}, "trace": null });
        let began = Timestamp::parse_iso("2026-01-01T00:00:00Z").unwrap();
        let seen = seen(&decision, began).unwrap();
        assert_eq!((seen.seq, seen.at_ms, seen.code.as_str()), (7, 2_500, "scaled_out"));
    }
}
