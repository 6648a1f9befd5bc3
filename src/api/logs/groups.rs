//! Groups and streams: made, described, retained, tagged, removed.

use std::collections::BTreeMap;

use super::check;
use super::shapes::*;
use super::{Cx, Fault, LIMIT, NOT_FOUND, TOO_MANY_TAGS, UNAVAILABLE, invalid, with_store};
use crate::telemetry::logs::{Error, GroupInfo, GroupQuery, StreamInfo, StreamOrder, StreamQuery};
use crate::wire::fault::Code;

/// DescribeLogGroups and DescribeLogStreams: "The default is up to 50 items."
const PAGE: usize = 50;

pub async fn create_log_group(cx: Cx, input: CreateLogGroupInput) -> Result<(), Fault> {
    check::group_name(&input.log_group_name)?;
    // What cannot be kept is not promised.
    if input.kms_key_id.is_some() {
        return Err(invalid("kmsKeyId: log groups are not encrypted by keys here."));
    }
    if input.deletion_protection_enabled == Some(true) {
        return Err(invalid("deletionProtectionEnabled: log groups cannot be protected here."));
    }
    let tags = input.tags.unwrap_or_default();
    check::tags(&tags)?;
    if tags.len() > check::MAX_TAGS {
        return Err(invalid("A log group may have 50 tags."));
    }
    let class = input.log_group_class.unwrap_or(LogGroupClass::Standard);
    with_store(&cx, move |logs| logs.create_group(&input.log_group_name, class.name(), tags)).await
}

pub async fn delete_log_group(cx: Cx, input: LogGroupInput) -> Result<(), Fault> {
    check::group_text(&input.log_group_name, "logGroupName")?;
    with_store(&cx, move |logs| logs.delete_group(&input.log_group_name)).await
}

pub async fn describe_log_groups(cx: Cx, input: DescribeLogGroupsInput) -> Result<DescribeLogGroupsOutput, Fault> {
    let limit = check::limit(input.limit, PAGE, PAGE)?;
    if input.log_group_name_prefix.is_some() && input.log_group_name_pattern.is_some() {
        return Err(invalid("LogGroup name prefix and LogGroup name pattern are mutually exclusive parameters."));
    }
    if let Some(prefix) = &input.log_group_name_prefix {
        check::group_text(prefix, "logGroupNamePrefix")?;
    }
    if let Some(pattern) = input.log_group_name_pattern.as_deref().filter(|p| !p.is_empty()) {
        check::group_text(pattern, "logGroupNamePattern")?;
    }
    let home = cx.app.home.clone();
    let (groups, more) = if let Some(wanted) = &input.log_group_identifiers {
        if input.log_group_name_prefix.is_some() || input.log_group_name_pattern.is_some() {
            return Err(invalid("logGroupIdentifiers cannot be combined with logGroupNamePrefix or logGroupNamePattern."));
        }
        if wanted.is_empty() || wanted.len() > PAGE {
            let constraint = "Member must have length between 1 and 50";
            return Err(check::violated(format!("[{}]", wanted.join(", ")), "logGroupIdentifiers", constraint));
        }
        let mut names: Vec<String> = wanted.iter().map(|i| check::by_identifier(i).to_owned()).collect();
        names.sort();
        names.dedup();
        with_store(&cx, move |logs| Ok((names.iter().filter_map(|n| logs.group(n)).collect(), false))).await?
    } else {
        with_store(&cx, move |logs| {
            Ok(logs.describe_groups(&GroupQuery {
                prefix: input.log_group_name_prefix.as_deref(),
                pattern: input.log_group_name_pattern.as_deref(),
                class: input.log_group_class.map(LogGroupClass::name),
                after: input.next_token.as_deref(),
                limit,
            }))
        })
        .await?
    };
    let groups: Vec<GroupInfo> = groups;
    let next_token = groups.last().filter(|_| more).map(|g| g.name.clone());
    let log_groups = groups.into_iter().map(|g| {
        let arn = home.log_group(&g.name);
        LogGroup {
            creation_time: g.created.0,
            retention_in_days: g.retention_days,
            metric_filter_count: 0,
            arn: format!("{arn}:*"),
            stored_bytes: g.stored_bytes,
            log_group_class: g.class,
            log_group_arn: arn,
            deletion_protection_enabled: false,
            log_group_name: g.name,
        }
    });
    Ok(DescribeLogGroupsOutput { log_groups: log_groups.collect(), next_token })
}

pub async fn create_log_stream(cx: Cx, input: LogStreamInput) -> Result<(), Fault> {
    check::group_text(&input.log_group_name, "logGroupName")?;
    check::stream_name(&input.log_stream_name, "logStreamName")?;
    let made = with_store(&cx, move |logs| logs.create_stream(&input.log_group_name, &input.log_stream_name)).await;
    // CreateLogStream declares no LimitExceededException.
    made.map_err(|fault| if *fault.code == LIMIT { Fault::new(&UNAVAILABLE, fault.message) } else { fault })
}

pub async fn delete_log_stream(cx: Cx, input: LogStreamInput) -> Result<(), Fault> {
    check::group_text(&input.log_group_name, "logGroupName")?;
    check::stream_name(&input.log_stream_name, "logStreamName")?;
    with_store(&cx, move |logs| logs.delete_stream(&input.log_group_name, &input.log_stream_name)).await
}

pub async fn describe_log_streams(cx: Cx, input: DescribeLogStreamsInput) -> Result<DescribeLogStreamsOutput, Fault> {
    let group = check::one_group(input.log_group_name, input.log_group_identifier)?;
    let limit = check::limit(input.limit, PAGE, PAGE)?;
    let order = match input.order_by {
        Some(OrderBy::LastEventTime) => StreamOrder::LastEventTime,
        _ => StreamOrder::Name,
    };
    if let Some(prefix) = &input.log_stream_name_prefix {
        check::stream_name(prefix, "logStreamNamePrefix")?;
        // "If orderBy is LastEventTime, you cannot specify this parameter."
        if order == StreamOrder::LastEventTime {
            return Err(invalid("Cannot order by LastEventTime with a logStreamNamePrefix."));
        }
    }
    let after = input.next_token.as_deref().map(stream_token).transpose()?;
    let arn = cx.app.home.log_group(&group);
    let (prefix, descending) = (input.log_stream_name_prefix, input.descending.unwrap_or(false));
    let (streams, more) = with_store(&cx, move |logs| {
        let after = after.as_ref().map(|(rank, name)| (*rank, name.as_str()));
        logs.describe_streams(&group, &StreamQuery { prefix: prefix.as_deref(), order, descending, after, limit })
    })
    .await?;
    let rank = |s: &StreamInfo| if order == StreamOrder::Name { 0 } else { s.last_event.unwrap_or(s.created).0 };
    let next_token = streams.last().filter(|_| more).map(|s| format!("{}@{}", rank(s), s.name));
    let log_streams = streams.into_iter().map(|s| LogStream {
        creation_time: s.created.0,
        first_event_timestamp: s.first_event.map(|t| t.0),
        last_event_timestamp: s.last_event.map(|t| t.0),
        last_ingestion_time: s.last_ingestion.map(|t| t.0),
        upload_sequence_token: super::events::sequence_token(s.next),
        arn: format!("{arn}:log-stream:{}", s.name),
        // "As of June 17, 2019, this parameter is no longer supported for log streams, and is always reported as zero."
        stored_bytes: 0,
        log_stream_name: s.name,
    });
    Ok(DescribeLogStreamsOutput { log_streams: log_streams.collect(), next_token })
}

fn stream_token(token: &str) -> Result<(i64, String), Fault> {
    let read = token.split_once('@').and_then(|(rank, name)| Some((rank.parse().ok()?, name.to_owned())));
    read.ok_or_else(|| invalid("The specified nextToken is invalid."))
}

pub async fn put_retention_policy(cx: Cx, input: PutRetentionPolicyInput) -> Result<(), Fault> {
    check::group_text(&input.log_group_name, "logGroupName")?;
    let days = check::retention(input.retention_in_days)?;
    with_store(&cx, move |logs| logs.set_retention(&input.log_group_name, Some(days))).await
}

pub async fn delete_retention_policy(cx: Cx, input: LogGroupInput) -> Result<(), Fault> {
    check::group_text(&input.log_group_name, "logGroupName")?;
    with_store(&cx, move |logs| logs.set_retention(&input.log_group_name, None)).await
}

pub async fn tag_resource(cx: Cx, input: TagResourceInput) -> Result<(), Fault> {
    tag(&cx, check::tagged_group(&input.resource_arn)?, input.tags, &TOO_MANY_TAGS).await
}

pub async fn untag_resource(cx: Cx, input: UntagResourceInput) -> Result<(), Fault> {
    let group = check::tagged_group(&input.resource_arn)?;
    with_store(&cx, move |logs| logs.untag_group(&group, input.tag_keys)).await
}

pub async fn list_tags_for_resource(cx: Cx, input: ListTagsForResourceInput) -> Result<TagsOutput, Fault> {
    tags_of(&cx, check::tagged_group(&input.resource_arn)?)
}

pub async fn tag_log_group(cx: Cx, input: TagLogGroupInput) -> Result<(), Fault> {
    tag(&cx, input.log_group_name, input.tags, &super::INVALID).await
}

pub async fn untag_log_group(cx: Cx, input: UntagLogGroupInput) -> Result<(), Fault> {
    with_store(&cx, move |logs| logs.untag_group(&input.log_group_name, input.tags)).await
}

pub async fn list_tags_log_group(cx: Cx, input: LogGroupInput) -> Result<TagsOutput, Fault> {
    tags_of(&cx, input.log_group_name)
}

async fn tag(cx: &Cx, group: String, tags: BTreeMap<String, String>, too_many: &'static Code) -> Result<(), Fault> {
    check::tags(&tags)?;
    let TagsOutput { tags: mut all } = tags_of(cx, group.clone())?;
    all.extend(tags.clone());
    if all.len() > check::MAX_TAGS {
        return Err(Fault::new(too_many, "A log group may have 50 tags."));
    }
    with_store(cx, move |logs| logs.tag_group(&group, tags)).await
}

fn tags_of(cx: &Cx, group: String) -> Result<TagsOutput, Fault> {
    let found = cx.app.logs.group(&group).ok_or_else(|| Fault::new(&NOT_FOUND, Error::NoGroup.to_string()))?;
    Ok(TagsOutput { tags: found.tags })
}
