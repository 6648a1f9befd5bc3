//! CloudWatch Logs: groups, streams, events, retention and tags. Times are plain longs in milliseconds, so `i64`.
//!
//! Start at [`service`]. Constraints on members are in [`check`], the store behind it all is `telemetry::logs`.

mod check;
mod events;
mod groups;
mod shapes;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::{App, Cx};
use crate::telemetry::logs::{Error, LogStore};
use crate::wire::fault::{self, Code, Fault};
use crate::wire::service::Service;

pub fn service() -> Service<App> {
    Service::new("logs")
        .target("Logs_20140328")
        .refuse(|e| Fault::new(&INVALID, format!("1 validation error detected: {e}")))
        .op("CreateLogGroup", groups::create_log_group)
        .op("DeleteLogGroup", groups::delete_log_group)
        .op("DescribeLogGroups", groups::describe_log_groups)
        .op("CreateLogStream", groups::create_log_stream)
        .op("DeleteLogStream", groups::delete_log_stream)
        .op("DescribeLogStreams", groups::describe_log_streams)
        .op("PutRetentionPolicy", groups::put_retention_policy)
        .op("DeleteRetentionPolicy", groups::delete_retention_policy)
        .op("TagResource", groups::tag_resource)
        .op("UntagResource", groups::untag_resource)
        .op("ListTagsForResource", groups::list_tags_for_resource)
        .op("TagLogGroup", groups::tag_log_group)
        .op("UntagLogGroup", groups::untag_log_group)
        .op("ListTagsLogGroup", groups::list_tags_log_group)
        .op("PutLogEvents", events::put_log_events)
        .op("GetLogEvents", events::get_log_events)
        .op("FilterLogEvents", events::filter_log_events)
}

const INVALID: Code = Code::new("InvalidParameterException", 400);
const NOT_FOUND: Code = Code::new("ResourceNotFoundException", 400);
const EXISTS: Code = Code::new("ResourceAlreadyExistsException", 400);
const LIMIT: Code = Code::new("LimitExceededException", 400);
const TOO_MANY_TAGS: Code = Code::new("TooManyTagsException", 400);
const UNAVAILABLE: Code = Code::new("ServiceUnavailableException", 500);

fn invalid(message: impl Into<String>) -> Fault {
    Fault::new(&INVALID, message)
}

fn refused(error: Error) -> Fault {
    let code = match error {
        Error::NoGroup | Error::NoStream => &NOT_FOUND,
        Error::GroupExists | Error::StreamExists => &EXISTS,
        Error::LimitExceeded => &LIMIT,
        Error::Overloaded | Error::Format(_) | Error::Damaged(_) | Error::Io(_) => &UNAVAILABLE,
    };
    Fault::new(code, error.to_string())
}

/// The store waits for the disk, so it is called off the threads that serve requests.
async fn with_store<T, F>(cx: &Cx, call: F) -> Result<T, Fault>
where
    T: Send + 'static,
    F: FnOnce(&LogStore) -> Result<T, Error> + Send + 'static,
{
    let store = Arc::clone(&cx.app.logs);
    match crate::telemetry::logs::aside(move || call(&store)).await {
        Ok(result) => result.map_err(refused),
        Err(_) => Err(Fault::new(&fault::INTERNAL, "The log store failed; the request id is in our log.")),
    }
}
