//! Events written and read: PutLogEvents, GetLogEvents, FilterLogEvents.

use std::time::Duration;

use super::check;
use super::shapes::*;
use super::{Cx, Fault, invalid, with_store};
use crate::decide::pattern::Pattern;
use crate::model::Timestamp;
use crate::model::log::LogEvent;
use crate::observe;
use crate::telemetry::logs::{Event, From, Key, Scan, Selection};

/// PutLogEvents: "The maximum batch size is 1,048,576 bytes. This size is calculated as the sum of all event messages in UTF-8,
/// plus 26 bytes for each log event."
const MAX_BATCH_BYTES: usize = 1_048_576;
const EVENT_OVERHEAD: usize = 26;
const MAX_EVENTS: usize = 10_000;
const MAX_SPAN_MS: i64 = 86_400_000;
/// FilterLogEvents may answer an empty page with a token; this long it searches before it does.
const SEARCH_BUDGET: Duration = Duration::from_secs(5);
/// "You can specify up to 100 log streams."
const MAX_STREAMS: usize = 100;

pub fn sequence_token(next: u64) -> String {
    format!("{next:056}")
}

pub async fn put_log_events(cx: Cx, input: PutLogEventsInput) -> Result<PutLogEventsOutput, Fault> {
    check::group_text(&input.log_group_name, "logGroupName")?;
    check::stream_name(&input.log_stream_name, "logStreamName")?;
    check_batch(&input.log_events)?;
    let events =
        input.log_events.into_iter().map(|e| LogEvent { at: Timestamp(e.timestamp), message: e.message.into() }).collect();
    let put = with_store(&cx, move |logs| logs.put(&input.log_group_name, &input.log_stream_name, events)).await?;
    observe::log_stored("", "", put.events, put.bytes);
    let rejected = RejectedLogEventsInfo {
        too_new_log_event_start_index: put.too_new_start,
        too_old_log_event_end_index: put.too_old_end,
        expired_log_event_end_index: put.expired_end,
    };
    let any = put.too_new_start.or(put.too_old_end).or(put.expired_end).is_some();
    Ok(PutLogEventsOutput { next_sequence_token: sequence_token(put.next), rejected_log_events_info: any.then_some(rejected) })
}

fn check_batch(events: &[InputLogEvent]) -> Result<(), Fault> {
    let length = |constraint: &str| Err(check::violated(format!("[{} events]", events.len()), "logEvents", constraint));
    if events.is_empty() {
        return length("Member must have length greater than or equal to 1");
    }
    if events.len() > MAX_EVENTS {
        return length("Member must have length less than or equal to 10000");
    }
    for (i, event) in events.iter().enumerate() {
        check::time(Some(event.timestamp), &format!("logEvents.{}.member.timestamp", i + 1))?;
        if event.message.is_empty() {
            let member = format!("logEvents.{}.member.message", i + 1);
            return Err(check::violated("", &member, "Member must have length greater than or equal to 1"));
        }
    }
    let bytes: usize = events.iter().map(|e| e.message.len() + EVENT_OVERHEAD).sum();
    if bytes > MAX_BATCH_BYTES {
        return Err(invalid(format!("Upload too large: {bytes} bytes exceeds limit of {MAX_BATCH_BYTES}")));
    }
    if !events.is_sorted_by_key(|e| e.timestamp) {
        return Err(invalid("Log events in a single PutLogEvents request must be in chronological order."));
    }
    let span = events[events.len() - 1].timestamp - events[0].timestamp;
    if span > MAX_SPAN_MS {
        return Err(invalid("The batch of log events in a single PutLogEvents request cannot span more than 24 hours."));
    }
    Ok(())
}

pub async fn get_log_events(cx: Cx, input: GetLogEventsInput) -> Result<GetLogEventsOutput, Fault> {
    let group = check::one_group(input.log_group_name, input.log_group_identifier)?;
    check::stream_name(&input.log_stream_name, "logStreamName")?;
    check::time(input.start_time, "startTime")?;
    check::time(input.end_time, "endTime")?;
    let limit = check::limit(input.limit, MAX_EVENTS, MAX_EVENTS)?;
    let from = match (&input.next_token, input.start_from_head) {
        (Some(token), _) => read_token(token)?,
        (None, Some(true)) => From::Head,
        (None, _) => From::Tail,
    };
    let (start, end) = (input.start_time.unwrap_or(0), input.end_time.unwrap_or(i64::MAX));
    let page = with_store(&cx, move |logs| logs.read(&group, &input.log_stream_name, start, end, from, limit)).await?;
    let output = |e: Event| OutputLogEvent { timestamp: e.at.0, message: e.message, ingestion_time: e.ingested.0 };
    Ok(GetLogEventsOutput {
        events: page.events.into_iter().map(output).collect(),
        next_forward_token: format!("f/{:056}/s", page.forward),
        next_backward_token: format!("b/{:056}/s", page.backward),
    })
}

fn read_token(token: &str) -> Result<From, Fault> {
    let number = |rest: &str| rest.strip_suffix("/s").filter(|d| d.len() == 56).and_then(|d| d.parse().ok());
    let read = match token.split_at_checked(2) {
        Some(("f/", rest)) => number(rest).map(From::Forward),
        Some(("b/", rest)) => number(rest).map(From::Backward),
        _ => None,
    };
    read.ok_or_else(|| invalid("The specified nextToken is invalid."))
}

pub async fn filter_log_events(cx: Cx, input: FilterLogEventsInput) -> Result<FilterLogEventsOutput, Fault> {
    let group = check::one_group(input.log_group_name, input.log_group_identifier)?;
    check::time(input.start_time, "startTime")?;
    check::time(input.end_time, "endTime")?;
    let limit = check::limit(input.limit, MAX_EVENTS, MAX_EVENTS)?;
    let names = input.log_stream_names;
    if names.is_some() && input.log_stream_name_prefix.is_some() {
        return Err(invalid("logStreamNamePrefix and logStreamNames are mutually exclusive parameters."));
    }
    if let Some(names) = &names {
        if names.is_empty() || names.len() > MAX_STREAMS {
            let constraint = "Member must have length between 1 and 100";
            return Err(check::violated(format!("[{}]", names.join(", ")), "logStreamNames", constraint));
        }
        names.iter().try_for_each(|n| check::stream_name(n, "logStreamNames"))?;
    }
    let prefix = input.log_stream_name_prefix;
    if let Some(prefix) = &prefix {
        check::stream_name(prefix, "logStreamNamePrefix")?;
    }
    let pattern = Pattern::parse(input.filter_pattern.as_deref().unwrap_or_default()).map_err(|e| invalid(e.to_string()))?;
    let from = match &input.next_token {
        Some(token) => Some(Key::parse_token(token).ok_or_else(|| invalid("The specified nextToken is invalid."))?),
        None => None,
    };
    let (start, end) = (input.start_time.unwrap_or(0), input.end_time.unwrap_or(i64::MAX));
    let forward = input.start_from_head.unwrap_or(true);
    let found = with_store(&cx, move |logs| {
        let streams = match (&names, &prefix) {
            (Some(names), _) => Selection::Names(names),
            (None, Some(prefix)) => Selection::Prefix(prefix),
            (None, None) => Selection::All,
        };
        let matches = &|message: &str| pattern.matches(message);
        logs.scan(&Scan { group: &group, streams, start, end, from, limit, forward, budget: SEARCH_BUDGET, matches })
    })
    .await?;
    let output = |e: Event| FilteredLogEvent {
        log_stream_name: e.stream.to_string(),
        timestamp: e.at.0,
        ingestion_time: e.ingested.0,
        event_id: e.key.digits(),
        message: e.message,
    };
    Ok(FilterLogEventsOutput {
        events: found.events.into_iter().map(output).collect(),
        // "As of May 15, 2020, this parameter is no longer supported. This parameter returns an empty list."
        searched_log_streams: Vec::new(),
        next_token: found.next.map(|k| k.token()),
    })
}
