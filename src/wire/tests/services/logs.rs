//! CloudWatch Logs: its times are plain longs in milliseconds, so `i64`, not `Timestamp`.

use super::{App, Cx, now};
use crate::shapes;
use crate::wire::fault::{Code, Fault};
use crate::wire::service::Service;

pub fn service() -> Service<App> {
    Service::new("logs")
        .target("Logs_20140328")
        .refuse(|e| Fault::new(&INVALID, format!("1 validation error detected: {e}")))
        .op("PutLogEvents", put_log_events)
        .op("GetLogEvents", get_log_events)
}

const INVALID: Code = Code::new("InvalidParameterException", 400);
const NOT_FOUND: Code = Code::new("ResourceNotFoundException", 400);

shapes! { "camelCase";
    input InputLogEvent { timestamp: i64, message: String }
    input PutLogEventsInput {
        log_group_name: String, log_stream_name: String, log_events: Vec<InputLogEvent>, sequence_token: Option<String>,
    }
    output PutLogEventsOutput { next_sequence_token: Option<String> }
    output OutputLogEvent { timestamp: i64, message: String, ingestion_time: i64 }
    input GetLogEventsInput {
        log_group_name: Option<String>, log_group_identifier: Option<String>, log_stream_name: String, start_time: Option<i64>,
        end_time: Option<i64>, next_token: Option<String>, limit: Option<u16>, start_from_head: Option<bool>, unmask: Option<bool>,
    }
    output GetLogEventsOutput { events: Vec<OutputLogEvent>, next_forward_token: String, next_backward_token: String }
}

async fn put_log_events(cx: Cx, input: PutLogEventsInput) -> Result<PutLogEventsOutput, Fault> {
    let ingestion_time = now().0;
    let mut events = cx.app.events.lock().unwrap();
    let stream = events.entry((input.log_group_name, input.log_stream_name)).or_default();
    stream.extend(input.log_events.into_iter().map(|e| OutputLogEvent {
        timestamp: e.timestamp,
        message: e.message,
        ingestion_time,
    }));
    stream.drain(..stream.len().saturating_sub(10_000));
    Ok(PutLogEventsOutput { next_sequence_token: None })
}

async fn get_log_events(cx: Cx, input: GetLogEventsInput) -> Result<GetLogEventsOutput, Fault> {
    let group = input.log_group_name.or(input.log_group_identifier).unwrap_or_default();
    let events = cx.app.events.lock().unwrap();
    let stream = events
        .get(&(group, input.log_stream_name))
        .ok_or_else(|| Fault::new(&NOT_FOUND, "The specified log stream does not exist."))?;
    let events = stream.iter().filter(|e| input.start_time.is_none_or(|s| e.timestamp >= s)).cloned().collect();
    Ok(GetLogEventsOutput { events, next_forward_token: "f/0".to_owned(), next_backward_token: "b/0".to_owned() })
}
