//! What has to be fetched to try policies on the past, and the record that the answers come to.

use std::sync::Arc;

use crate::decide::alarm as rules;
use crate::decide::backtest::{Contender, Model, Record};
use crate::model::alarm::Alarm;
use crate::model::decision::Decision;
use crate::model::metric::{Datapoint, MetricKey, Query, Statistic};
use crate::model::scaling::ScalableTarget;
use crate::model::{Millis, ServiceKey, Timestamp};

const SECOND: Millis = 1_000;
const MINUTE: Millis = 60_000;
/// How long seconds are kept, and minutes: what is older can be asked for by the minute only, or not at all.
const SECONDS_KEPT: Millis = 3 * 60 * MINUTE;
pub const MINUTES_KEPT: Millis = 15 * 24 * 60 * MINUTE;
/// No alarm is given more than this to look back over before the start.
const LEAD_AT_MOST: Millis = 24 * 60 * MINUTE;
/// As the control plane has it: how long after a period's end its data may still arrive.
pub const SETTLE_MS: Millis = 150;

/// What is known of a service besides its metrics.
#[derive(Clone, Debug)]
pub struct Known {
    pub service: ServiceKey,
    /// As it is now.
    pub target: Option<ScalableTarget>,
    /// Those that name a policy of the service.
    pub alarms: Vec<Alarm>,
    /// About the service itself, oldest first.
    pub decisions: Vec<Decision>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub since: Timestamp,
    pub until: Timestamp,
    /// The finest resolution to ask for.
    pub step_ms: Millis,
}

/// One question to the metrics, and where its answer belongs.
#[derive(Clone, Debug, PartialEq)]
pub struct Fetch {
    pub query: Query,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Running,
    Desired,
    /// Where nobody wrote down how many run: how many were measured.
    Measured,
    Series(usize),
    /// How many samples a series' datapoints are of.
    Samples(usize),
}

/// A metric as one statistic, as an alarm names it.
type Wanted = (MetricKey, Statistic, Option<String>);

#[derive(Clone, Debug)]
pub struct Plan {
    service: ServiceKey,
    start: Timestamp,
    end: Timestamp,
    wanted: Vec<Wanted>,
    /// Coarse ones first: finer answers take their place.
    pub fetches: Vec<Fetch>,
}

/// `now` is the newest moment of which there is data.
pub fn plan(service: &ServiceKey, contenders: &[&Contender], window: Window, now: Timestamp) -> Plan {
    let mut wanted: Vec<Wanted> = Vec::new();
    let mut lead = MINUTE;
    for alarm in contenders.iter().flat_map(|contender| &contender.alarms) {
        let series = (alarm.metric.clone(), alarm.statistic.clone(), alarm.unit.clone());
        if !wanted.contains(&series) {
            wanted.push(series);
        }
        lead = lead.max(window.since.since(rules::range(alarm, window.since, SETTLE_MS).start) + MINUTE);
    }
    let start = (window.since - lead.min(LEAD_AT_MOST)).floor(MINUTE);
    let mut fetches = Vec::new();
    for (from, to, period_ms) in stretches(start, window.until, now, window.step_ms) {
        let mut fetch = |what: What, (key, statistic, unit): (MetricKey, Statistic, Option<&str>)| {
            let unit = unit.map(Arc::from);
            fetches.push(Fetch { what, query: Query { key, statistic, unit, start: from, end: to, period_ms } });
        };
        let count = |name: &str| (insight(service, name), Statistic::Average, None);
        fetch(What::Measured, (utilization(service), Statistic::SampleCount, None));
        fetch(What::Running, count("RunningTaskCount"));
        fetch(What::Desired, count("DesiredTaskCount"));
        for (n, (metric, statistic, unit)) in wanted.iter().enumerate() {
            fetch(What::Samples(n), (metric.clone(), Statistic::SampleCount, unit.as_deref()));
            fetch(What::Series(n), (metric.clone(), statistic.clone(), unit.as_deref()));
        }
    }
    Plan { service: service.clone(), start, end: window.until, wanted, fetches }
}

/// By the minute where seconds are no longer kept, then as fine as is asked.
fn stretches(start: Timestamp, end: Timestamp, now: Timestamp, step_ms: Millis) -> Vec<(Timestamp, Timestamp, Millis)> {
    let fine_from = if step_ms >= MINUTE { end } else { ((now - SECONDS_KEPT).floor(MINUTE) + MINUTE).max(start) };
    let coarse = (start, fine_from.min(end), MINUTE.max(step_ms));
    [coarse, (fine_from, end, step_ms.max(SECOND))].into_iter().filter(|(from, to, _)| from < to).collect()
}

fn dimensions(service: &ServiceKey) -> [(&str, &str); 2] {
    [("ClusterName", service.cluster.as_str()), ("ServiceName", service.service.as_str())]
}

fn insight(service: &ServiceKey, name: &str) -> MetricKey {
    MetricKey::new("ECS/ContainerInsights", name, dimensions(service))
}

fn utilization(service: &ServiceKey) -> MetricKey {
    MetricKey::new("AWS/ECS", "CPUUtilization", dimensions(service))
}

/// How a metric is taken to depend on capacity, unless it is said.
fn is_utilization(service: &ServiceKey, metric: &MetricKey) -> bool {
    *metric == utilization(service) || *metric == MetricKey::new("AWS/ECS", "MemoryUtilization", dimensions(service))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CapacityModel {
    Constant,
    Linear,
}

impl Plan {
    /// The record that the answers come to; they are in the order of the fetches.
    pub fn record(&self, answers: &[Vec<Datapoint>], model: Option<CapacityModel>) -> Record {
        let mut record = Record::new(self.start, self.end.floor(SECOND));
        let places: Vec<usize> = self
            .wanted
            .iter()
            .map(|(metric, statistic, unit)| {
                let linear = model.map_or(is_utilization(&self.service, metric), |model| model == CapacityModel::Linear);
                let model = if linear { Model::Linear { ceiling: None } } else { Model::Constant };
                record.series(metric, statistic, unit.as_deref(), model)
            })
            .collect();
        let mut samples: &[Datapoint] = &[];
        for (fetch, points) in self.fetches.iter().zip(answers) {
            let width = fetch.query.period_ms;
            match fetch.what {
                What::Running => record.ran(points, width),
                What::Desired => record.desired_was(points, width),
                What::Measured => {
                    let seconds = (width / SECOND) as f64;
                    let each: Vec<Datapoint> =
                        points.iter().map(|p| Datapoint { value: p.value / seconds, ..p.clone() }).collect();
                    record.ran(&each, width);
                }
                What::Samples(_) => samples = points,
                What::Series(n) => record.measured(places[n], &counted(points, samples), width),
            }
        }
        for (place, (metric, _, unit)) in places.into_iter().zip(&self.wanted) {
            let percent = unit.as_deref() == Some("Percent") || &*metric.namespace == "AWS/ECS";
            if percent && matches!(record.series[place].model, Model::Linear { .. }) {
                let ceiling = Some(record.highest(place).unwrap_or(100.0).max(100.0));
                record.series[place].model = Model::Linear { ceiling };
            }
        }
        record
    }
}

/// A server that is asked for one statistic does not say of how many samples it is.
fn counted(points: &[Datapoint], samples: &[Datapoint]) -> Vec<Datapoint> {
    let of = |point: &Datapoint| samples.binary_search_by_key(&point.at, |s| s.at).ok().map(|n| samples[n].value);
    points.iter().map(|point| Datapoint { sample_count: of(point).unwrap_or(1.0), ..point.clone() }).collect()
}
