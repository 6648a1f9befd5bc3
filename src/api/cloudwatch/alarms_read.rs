//! Alarms and their history, as they are shown.

use super::metric::{key, short};
use super::shapes::{
    AlarmHistoryItem, AlarmType, DescribeAlarmHistoryInput, DescribeAlarmHistoryOutput, DescribeAlarmsForMetricInput,
    DescribeAlarmsForMetricOutput, DescribeAlarmsInput, DescribeAlarmsOutput, HistoryItemType, MetricAlarm, ScanBy, Statistic,
};
use super::{Cx, alarms, errors, list, token};
use crate::model::Timestamp;
use crate::model::alarm::{Alarm, AlarmHistory, AlarmState, HistoryKind};
use crate::model::arn::Home;
use crate::store::{self, Record, RecordQuery, Store};
use crate::wire::fault::Fault;
use crate::wire::types;

const PAGE: usize = 50;
const HISTORY_PAGE: usize = 100;
const MOST_NAMES: usize = 100;
const READ_AT_ONCE: usize = 1_000;

pub async fn describe(cx: Cx, input: DescribeAlarmsInput) -> Result<DescribeAlarmsOutput, Fault> {
    if input.children_of_alarm_name.is_some() || input.parents_of_alarm_name.is_some() {
        return Err(errors::validation("Composite alarms are not served in this release: no alarm has children or parents."));
    }
    if input.alarm_names.is_some() && input.alarm_name_prefix.is_some() {
        return Err(errors::validation("AlarmNamePrefix and AlarmNames cannot both be specified."));
    }
    if let Some(names) = input.alarm_names.as_ref().filter(|names| names.len() > MOST_NAMES) {
        let rule = format!("Member must have length less than or equal to {MOST_NAMES}");
        return Err(errors::constraint("alarmNames", &format!("[{}]", short(&names.join(", "))), &rule));
    }
    let size = token::max_records(input.max_records, PAGE)?;
    let after: Option<String> = token::read("alarms", input.next_token.as_deref())?;
    let state = cx.app.store.snapshot();
    // No types: metric alarms only, as on AWS.
    let metric_alarms =
        input.alarm_types.as_ref().is_none_or(|types| types.is_empty() || types.contains(&AlarmType::MetricAlarm));
    let wanted_state = input.state_value.map(AlarmState::from);
    let wanted = |alarm: &Alarm| {
        metric_alarms
            && after.as_ref().is_none_or(|after| alarm.name > *after)
            && input.alarm_names.as_ref().is_none_or(|names| names.contains(&alarm.name))
            && input.alarm_name_prefix.as_ref().is_none_or(|prefix| alarm.name.starts_with(prefix.as_str()))
            && wanted_state.is_none_or(|wanted| alarm.state == wanted)
            && input.action_prefix.as_ref().is_none_or(|prefix| all_actions(alarm).any(|a| a.starts_with(prefix.as_str())))
    };
    let mut found: Vec<MetricAlarm> =
        state.alarms.values().filter(|alarm| wanted(alarm)).take(size + 1).map(|alarm| shown(alarm, &cx.app.home)).collect();
    let more = found.len() > size;
    found.truncate(size);
    let next_token = found.last().filter(|_| more).map(|last| token::write("alarms", &last.alarm_name));
    Ok(DescribeAlarmsOutput { composite_alarms: Vec::new(), metric_alarms: found, next_token })
}

fn all_actions(alarm: &Alarm) -> impl Iterator<Item = &String> {
    alarm.ok_actions.iter().chain(&alarm.alarm_actions).chain(&alarm.insufficient_data_actions)
}

pub async fn describe_for_metric(cx: Cx, input: DescribeAlarmsForMetricInput) -> Result<DescribeAlarmsForMetricOutput, Fault> {
    let metric = key(&input.namespace, &input.metric_name, input.dimensions.as_deref().unwrap_or_default());
    let extended = input.extended_statistic.as_deref().map(|text| {
        alarms::percentile(text)
            .ok_or_else(|| errors::value(format!("The value {} for parameter ExtendedStatistic is not supported.", short(text))))
    });
    let statistic = extended.transpose()?.or(input.statistic.map(Into::into));
    let wanted = |alarm: &Alarm| {
        statistic.as_ref().is_none_or(|s| *s == alarm.statistic)
            && input.period.is_none_or(|period| i64::from(period) == i64::from(alarm.period_s))
            && input.unit.is_none_or(|unit| alarm.unit.as_deref() == Some(unit.as_str()))
    };
    let state = cx.app.store.snapshot();
    let found = state.alarms_of_metric(&metric).filter(|alarm| wanted(alarm)).map(|alarm| shown(alarm, &cx.app.home)).collect();
    Ok(DescribeAlarmsForMetricOutput { metric_alarms: found })
}

fn shown(alarm: &Alarm, home: &Home) -> MetricAlarm {
    let statistic = Statistic::plain(&alarm.statistic);
    let stamp = |at: Timestamp| types::Timestamp(at.0);
    MetricAlarm {
        alarm_name: alarm.name.clone(),
        alarm_arn: home.alarm(&alarm.name),
        alarm_description: alarm.description.clone(),
        alarm_configuration_updated_timestamp: stamp(alarm.configuration_updated_at),
        actions_enabled: alarm.actions_enabled,
        ok_actions: alarm.ok_actions.clone(),
        alarm_actions: alarm.alarm_actions.clone(),
        insufficient_data_actions: alarm.insufficient_data_actions.clone(),
        state_value: alarm.state.into(),
        state_reason: alarm.state_reason.clone(),
        state_reason_data: alarm.state_reason_data.clone(),
        state_updated_timestamp: stamp(alarm.state_updated_at),
        metric_name: alarm.metric.name.to_string(),
        namespace: alarm.metric.namespace.to_string(),
        extended_statistic: statistic.is_none().then(|| alarm.statistic.to_string()),
        statistic,
        dimensions: list::dimensions(&alarm.metric),
        period: alarm.period_s,
        unit: alarm.unit.clone(),
        evaluation_periods: alarm.evaluation_periods,
        datapoints_to_alarm: alarm.datapoints_to_alarm,
        threshold: alarm.threshold,
        comparison_operator: alarm.comparison.into(),
        treat_missing_data: alarm.missing_given.then(|| alarm.missing.as_str().to_owned()),
        state_transitioned_timestamp: stamp(alarm.state_transitioned_at),
    }
}

pub async fn history(cx: Cx, input: DescribeAlarmHistoryInput) -> Result<DescribeAlarmHistoryOutput, Fault> {
    let size = token::max_records(input.max_records, HISTORY_PAGE)?;
    let place: Option<u64> = token::read("history", input.next_token.as_deref())?;
    if input.start_date.zip(input.end_date).is_some_and(|(start, end)| start > end) {
        return Err(errors::validation("The parameter StartDate must not be after the parameter EndDate."));
    }
    if input.alarm_types.as_ref().is_some_and(|types| !types.is_empty() && !types.contains(&AlarmType::MetricAlarm)) {
        return Ok(DescribeAlarmHistoryOutput { alarm_history_items: Vec::new(), next_token: None });
    }
    let query = RecordQuery {
        subject: input.alarm_name.as_ref().map(|name| format!("alarm/{name}")),
        since: input.start_date.map(|at| Timestamp(at.0)),
        until: input.end_date.map(|at| Timestamp(at.0)),
        ..RecordQuery::alarms()
    };
    let store = &cx.app.store;
    let read = match input.scan_by {
        Some(ScanBy::TimestampAscending) => oldest_first(store, query, place, input.history_item_type).await,
        _ => newest_first(store, query, place, input.history_item_type, size + 1).await,
    };
    let mut found = read.map_err(|e| errors::internal(format!("The history cannot be read: {e}.")))?;
    let more = found.len() > size;
    found.truncate(size);
    let next_token = found.last().filter(|_| more).map(|(number, _)| token::write("history", number));
    let alarm_history_items = found.into_iter().map(|(_, entry)| item(entry)).collect();
    Ok(DescribeAlarmHistoryOutput { alarm_history_items, next_token })
}

type Entries = Vec<(u64, AlarmHistory)>;

fn entries(records: Vec<(u64, Record)>, wanted: Option<HistoryItemType>) -> impl Iterator<Item = (u64, AlarmHistory)> {
    records.into_iter().filter_map(move |(number, record)| match record {
        Record::Alarm(entry) if wanted.is_none_or(|wanted| wanted == item_type(entry.kind)) => Some((number, entry)),
        _ => None,
    })
}

/// In steps, until `enough` of the wanted kind are found.
async fn newest_first(
    store: &Store,
    query: RecordQuery,
    place: Option<u64>,
    wanted: Option<HistoryItemType>,
    enough: usize,
) -> Result<Entries, store::Error> {
    let (mut found, mut before) = (Entries::new(), place);
    let limit = if wanted.is_some() { READ_AT_ONCE } else { enough };
    loop {
        let read = store.records(RecordQuery { before, limit, ..query.clone() }).await?;
        let last = read.len() < limit;
        before = read.last().map(|(number, _)| *number);
        found.extend(entries(read, wanted));
        if last || found.len() >= enough {
            return Ok(found);
        }
    }
}

/// The store reads newest first; oldest first is the same, turned round.
async fn oldest_first(
    store: &Store,
    query: RecordQuery,
    place: Option<u64>,
    wanted: Option<HistoryItemType>,
) -> Result<Entries, store::Error> {
    let (mut found, mut before) = (Entries::new(), None);
    loop {
        let read = store.records(RecordQuery { before, after: place, limit: READ_AT_ONCE, ..query.clone() }).await?;
        let last = read.len() < READ_AT_ONCE;
        before = read.last().map(|(number, _)| *number);
        found.extend(entries(read, wanted));
        if last {
            found.reverse();
            return Ok(found);
        }
    }
}

fn item_type(kind: HistoryKind) -> HistoryItemType {
    match kind {
        HistoryKind::ConfigurationUpdate => HistoryItemType::ConfigurationUpdate,
        HistoryKind::StateUpdate => HistoryItemType::StateUpdate,
        HistoryKind::Action => HistoryItemType::Action,
    }
}

fn item(entry: AlarmHistory) -> AlarmHistoryItem {
    AlarmHistoryItem {
        alarm_name: entry.alarm,
        alarm_type: AlarmType::MetricAlarm,
        timestamp: types::Timestamp(entry.at.0),
        history_item_type: item_type(entry.kind),
        history_summary: entry.summary,
        history_data: entry.data,
    }
}
