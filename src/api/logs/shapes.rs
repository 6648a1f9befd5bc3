//! The shapes of CloudWatch Logs, as AWS names them.

use std::collections::BTreeMap;

use crate::shapes;

shapes! { "camelCase";
    input CreateLogGroupInput {
        log_group_name: String, kms_key_id: Option<String>, tags: Option<BTreeMap<String, String>>,
        log_group_class: Option<LogGroupClass>, deletion_protection_enabled: Option<bool>,
    }
    input LogGroupInput { log_group_name: String }
    input DescribeLogGroupsInput {
        log_group_name_prefix: Option<String>, log_group_name_pattern: Option<String>, next_token: Option<String>,
        limit: Option<i64>, log_group_class: Option<LogGroupClass>, log_group_identifiers: Option<Vec<String>>,
    }
    output DescribeLogGroupsOutput { log_groups: Vec<LogGroup>, next_token: Option<String> }
    output LogGroup {
        log_group_name: String, creation_time: i64, retention_in_days: Option<u32>, metric_filter_count: i32, arn: String,
        stored_bytes: u64, log_group_class: String, log_group_arn: String, deletion_protection_enabled: bool,
    }

    input LogStreamInput { log_group_name: String, log_stream_name: String }
    input DescribeLogStreamsInput {
        log_group_name: Option<String>, log_group_identifier: Option<String>, log_stream_name_prefix: Option<String>,
        order_by: Option<OrderBy>, descending: Option<bool>, next_token: Option<String>, limit: Option<i64>,
    }
    output DescribeLogStreamsOutput { log_streams: Vec<LogStream>, next_token: Option<String> }
    output LogStream {
        log_stream_name: String, creation_time: i64, first_event_timestamp: Option<i64>, last_event_timestamp: Option<i64>,
        last_ingestion_time: Option<i64>, upload_sequence_token: String, arn: String, stored_bytes: i64,
    }

    input PutRetentionPolicyInput { log_group_name: String, retention_in_days: i64 }
    input TagResourceInput { resource_arn: String, tags: BTreeMap<String, String> }
    input UntagResourceInput { resource_arn: String, tag_keys: Vec<String> }
    input ListTagsForResourceInput { resource_arn: String }
    input TagLogGroupInput { log_group_name: String, tags: BTreeMap<String, String> }
    input UntagLogGroupInput { log_group_name: String, tags: Vec<String> }
    output TagsOutput { tags: BTreeMap<String, String> }

    input InputLogEvent { timestamp: i64, message: String }
    input PutLogEventsInput {
        log_group_name: String, log_stream_name: String, log_events: Vec<InputLogEvent>,
        // Any value is taken: "The sequence token is now ignored in PutLogEvents actions."
        sequence_token: Option<String>,
    }
    output PutLogEventsOutput { next_sequence_token: String, rejected_log_events_info: Option<RejectedLogEventsInfo> }
    output RejectedLogEventsInfo {
        too_new_log_event_start_index: Option<usize>, too_old_log_event_end_index: Option<usize>,
        expired_log_event_end_index: Option<usize>,
    }

    input GetLogEventsInput {
        log_group_name: Option<String>, log_group_identifier: Option<String>, log_stream_name: String, start_time: Option<i64>,
        end_time: Option<i64>, next_token: Option<String>, limit: Option<i64>, start_from_head: Option<bool>,
    }
    output OutputLogEvent { timestamp: i64, message: String, ingestion_time: i64 }
    output GetLogEventsOutput { events: Vec<OutputLogEvent>, next_forward_token: String, next_backward_token: String }

    input FilterLogEventsInput {
        log_group_name: Option<String>, log_group_identifier: Option<String>, log_stream_names: Option<Vec<String>>,
        log_stream_name_prefix: Option<String>, start_time: Option<i64>, end_time: Option<i64>, filter_pattern: Option<String>,
        next_token: Option<String>, limit: Option<i64>, start_from_head: Option<bool>,
        // "If the value is true, the operation attempts to provide responses that contain events from multiple log streams [...]
        // The operation now always behaves so."
        interleaved: Option<bool>,
    }
    output FilteredLogEvent { log_stream_name: String, timestamp: i64, message: String, ingestion_time: i64, event_id: String }
    output SearchedLogStream { log_stream_name: String, searched_completely: bool }
    output FilterLogEventsOutput {
        events: Vec<FilteredLogEvent>, searched_log_streams: Vec<SearchedLogStream>, next_token: Option<String>,
    }

    values LogGroupClass {
        #[serde(rename = "STANDARD")] Standard,
        #[serde(rename = "INFREQUENT_ACCESS")] InfrequentAccess,
        #[serde(rename = "DELIVERY")] Delivery,
    }
    values OrderBy { LogStreamName, LastEventTime }
}

impl LogGroupClass {
    pub fn name(self) -> &'static str {
        match self {
            LogGroupClass::Standard => "STANDARD",
            LogGroupClass::InfrequentAccess => "INFREQUENT_ACCESS",
            LogGroupClass::Delivery => "DELIVERY",
        }
    }
}
