//! Where replay and back-test take the past from: a running Beaufort, over its API, or a data directory.

use std::path::Path;

use anyhow::Context;
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{Client, Service as Api};
use super::ecs::taken;
use super::failure::Failure;
use super::screen::parse_span;
use super::subject::parse_service;
use crate::clock::{Clock, SystemClock};
use crate::model::decision::{Decision, Reason, Subject};
use crate::model::metric::{Datapoint, Query};
use crate::model::scaling::ScalableTarget;
use crate::model::{ServiceKey, Timestamp};
use crate::replay::files::Files;
use crate::replay::given::{Document, known_alarm};
use crate::replay::recording::{Known, Plan};
use crate::replay::{Wrong, given};

/// Pages of one list.
const MAX_PAGES: usize = 1_000;
const DECISIONS: usize = 1_000;
/// DescribeAlarms takes so many names.
const NAMES: usize = 100;

pub enum Past {
    Server { client: Box<Client>, now: Timestamp },
    Files(Box<Files>),
}

impl From<Wrong> for Failure {
    fn from(wrong: Wrong) -> Failure {
        Failure::new(wrong.what, wrong.next)
    }
}

impl Past {
    pub fn open(endpoint: &str, files: Option<&Path>) -> Result<Past, Failure> {
        Ok(match files {
            Some(path) => Past::Files(Box::new(Files::open(path)?)),
            None => Past::Server { client: Box::new(Client::new(endpoint)?), now: SystemClock.now() },
        })
    }

    /// The newest moment that is known of.
    pub fn now(&self) -> Timestamp {
        match self {
            Past::Server { now, .. } => *now,
            Past::Files(files) => files.now,
        }
    }

    pub async fn known(&self, service: &ServiceKey, since: Timestamp, until: Timestamp) -> anyhow::Result<Known> {
        let client = match self {
            Past::Files(files) => return Ok(files.known(service, since, until).map_err(Failure::from)?),
            Past::Server { client, .. } => client,
        };
        let scaling = json!({ "ServiceNamespace": "ecs", "ResourceIds": [service.resource_id()] });
        let mut targets = client.call(Api::Scaling, "DescribeScalableTargets", &scaling).await?;
        let target = taken(&mut targets, "ScalableTargets").first().map(|shown| target(service, shown));
        let policies = json!({ "ServiceNamespace": "ecs", "ResourceId": service.resource_id(), "MaxResults": 50 });
        let mut policies = client.call(Api::Scaling, "DescribeScalingPolicies", &policies).await?;
        let names: Vec<Value> = taken(&mut policies, "ScalingPolicies")
            .iter_mut()
            .flat_map(|policy| taken(policy, "Alarms"))
            .map(|alarm| alarm["AlarmName"].clone())
            .collect();
        let mut alarms = Vec::new();
        for names in names.chunks(NAMES) {
            let mut page =
                client.call(Api::CloudWatch, "DescribeAlarms", &json!({ "AlarmNames": names, "MaxRecords": NAMES })).await?;
            alarms.extend(taken(&mut page, "MetricAlarms").iter().filter_map(|shown| known_alarm(shown, self.now())));
        }
        let path = service.resource_id();
        let mut decisions: Vec<Decision> = decisions(client, &[("subject", &path)], Some(since), Some(until), MAX_PAGES)
            .await?
            .into_iter()
            .map(|(_, d)| d)
            .collect();
        decisions.reverse();
        Ok(Known { service: service.clone(), target, alarms, decisions })
    }

    pub async fn answers(&self, plan: &Plan) -> anyhow::Result<Vec<Vec<Datapoint>>> {
        let client = match self {
            Past::Files(files) => return Ok(files.answers(plan).map_err(Failure::from)?),
            Past::Server { client, .. } => client,
        };
        let mut answers = Vec::with_capacity(plan.fetches.len());
        for fetch in &plan.fetches {
            answers.push(metric_data(client, &fetch.query).await?);
        }
        Ok(answers)
    }
}

fn target(service: &ServiceKey, shown: &Value) -> ScalableTarget {
    let count = |name: &str| shown[name].as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
    let suspended = |name: &str| shown["SuspendedState"][name].as_bool().unwrap_or(false);
    ScalableTarget {
        service: service.clone(),
        id: String::new(),
        min: count("MinCapacity"),
        max: count("MaxCapacity"),
        suspend_in: suspended("DynamicScalingInSuspended"),
        suspend_out: suspended("DynamicScalingOutSuspended"),
        suspend_scheduled: suspended("ScheduledScalingSuspended"),
        tags: Vec::new(),
        created_at: Timestamp::ZERO,
        last_out: None,
        last_in: None,
    }
}

/// The ledger's lines with their numbers, newest first.
pub async fn decisions(
    client: &Client,
    filter: &[(&str, &str)],
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    pages: usize,
) -> anyhow::Result<Vec<(u64, Decision)>> {
    let (limit, since, until) = (DECISIONS.to_string(), since.map(Timestamp::iso), until.map(Timestamp::iso));
    let (mut all, mut before) = (Vec::new(), None::<String>);
    for _ in 0..pages {
        let mut query = vec![("limit", limit.as_str())];
        query.extend(filter);
        query.extend(since.as_deref().map(|at| ("since", at)));
        query.extend(until.as_deref().map(|at| ("until", at)));
        query.extend(before.as_deref().map(|number| ("before", number)));
        let page = taken(&mut client.get("/api/decisions", &query).await?, "decisions");
        let whole = page.len() == DECISIONS;
        for shown in page {
            all.push(decision(shown).context("the server's ledger has a line that this version does not know")?);
        }
        before = all.last().map(|(number, _)| number.to_string());
        if !whole {
            break;
        }
    }
    Ok(all)
}

/// A line of `/api/decisions`.
pub fn decision(shown: Value) -> anyhow::Result<(u64, Decision)> {
    #[derive(Deserialize)]
    struct Shown {
        seq: u64,
        at: String,
        subject: String,
        action: String,
        code: crate::model::decision::ReasonCode,
        reason: String,
        evidence: crate::model::decision::Evidence,
        trace: Option<String>,
    }
    let Shown { seq, at, subject, action, code, reason, evidence, trace } = serde_json::from_value(shown)?;
    let subject = match subject.split_once('/') {
        Some(("task", id)) => Subject::Task { task: crate::model::TaskId::new(id), service: None },
        Some(("alarm", name)) => Subject::Alarm { name: name.to_owned(), service: None },
        Some(("instance", id)) => Subject::Instance(crate::model::InstanceId::new(id)),
        _ => Subject::Service(ServiceKey::from_resource_id(&subject).with_context(|| format!("{subject} is no subject"))?),
    };
    let at = Timestamp::parse_iso(&at).with_context(|| format!("{at} is no time"))?;
    Ok((seq, Decision { at, subject, action, reason: Reason { code, sentence: reason, evidence }, trace }))
}

async fn metric_data(client: &Client, query: &Query) -> anyhow::Result<Vec<Datapoint>> {
    let dimensions: Vec<Value> =
        query.key.dimensions.iter().map(|(name, value)| json!({ "Name": **name, "Value": **value })).collect();
    let mut stat = json!({
        "Metric": { "Namespace": *query.key.namespace, "MetricName": *query.key.name, "Dimensions": dimensions },
        "Period": query.period_ms / 1_000, "Stat": query.statistic.to_string(),
    });
    if let Some(unit) = &query.unit {
        stat["Unit"] = json!(**unit);
    }
    let mut input = json!({
        "StartTime": query.start.seconds(), "EndTime": query.end.seconds(), "ScanBy": "TimestampAscending",
        "MetricDataQueries": [{ "Id": "past", "MetricStat": stat }],
    });
    let mut points = Vec::new();
    for _ in 0..MAX_PAGES {
        let mut page = client.call(Api::CloudWatch, "GetMetricData", &input).await?;
        for mut result in taken(&mut page, "MetricDataResults") {
            let (times, values) = (taken(&mut result, "Timestamps"), taken(&mut result, "Values"));
            points.extend(times.iter().zip(&values).filter_map(|(at, value)| {
                Some(Datapoint { at: super::ecs::time(at.as_f64()?), value: value.as_f64()?, sample_count: 1.0 })
            }));
        }
        match page["NextToken"].take() {
            Value::String(token) => input["NextToken"] = json!(token),
            _ => break,
        }
    }
    Ok(points)
}

/// `24h` ago, or a moment as ISO 8601 writes it.
pub fn moment(text: &str, now: Timestamp) -> Result<Timestamp, Failure> {
    let parsed = parse_span(text).ok().map(|ms| now - ms).or_else(|| Timestamp::parse_iso(text));
    parsed.ok_or_else(|| {
        Failure::new(format!("{text} is no time"), "write 90s, 10m, 24h or 7d for so long ago, or 2026-11-20T18:00:00Z")
    })
}

/// A file of policies.
pub fn document(path: &Path) -> anyhow::Result<Document> {
    let text = std::fs::read_to_string(path).map_err(|e| {
        Failure::new(format!("{} cannot be read: {e}", path.display()), "name a file with PutScalingPolicy's input as JSON")
    })?;
    Ok(Document::parse(&path.display().to_string(), &text).map_err(Failure::from)?)
}

/// The service that is named, or that the first file is about.
pub fn service(named: Option<&str>, cluster: &str, documents: &[given::Document]) -> anyhow::Result<ServiceKey> {
    if let Some(named) = named {
        let (of, name) = parse_service(named).map_err(anyhow::Error::msg)?;
        return Ok(ServiceKey::new(of.as_deref().unwrap_or(cluster), name));
    }
    let told = documents.iter().find_map(Document::service);
    Ok(told.ok_or_else(|| {
        Failure::new("which service is meant is said by nobody", "name it: --service web, or ResourceId in the file")
    })?)
}
