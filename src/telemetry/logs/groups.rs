//! Groups and streams: made, described, tagged, removed. Names are checked by the API; here they are keys.

use std::collections::BTreeMap;

use super::state::{Group, Op, Stream};
use super::{Error, LogStore};
use crate::model::Timestamp;

#[derive(Clone, Debug, PartialEq)]
pub struct GroupInfo {
    pub name: String,
    pub created: Timestamp,
    pub class: String,
    pub retention_days: Option<u32>,
    pub tags: BTreeMap<String, String>,
    pub stored_bytes: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct StreamInfo {
    pub name: String,
    pub created: Timestamp,
    pub first_event: Option<Timestamp>,
    pub last_event: Option<Timestamp>,
    pub last_ingestion: Option<Timestamp>,
    /// The number of the next event.
    pub next: u64,
    pub stored_bytes: u64,
    pub lost_lines: u64,
}

/// `prefix` is compared with the case, `pattern` is a part of the name without it, as DescribeLogGroups has them.
#[derive(Clone, Debug, Default)]
pub struct GroupQuery<'a> {
    pub prefix: Option<&'a str>,
    pub pattern: Option<&'a str>,
    pub class: Option<&'a str>,
    /// The name that the page before ended with.
    pub after: Option<&'a str>,
    pub limit: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StreamOrder {
    #[default]
    Name,
    LastEventTime,
}

#[derive(Clone, Debug, Default)]
pub struct StreamQuery<'a> {
    pub prefix: Option<&'a str>,
    pub order: StreamOrder,
    pub descending: bool,
    /// What the page before ended with: its last event's time (0 when ordered by name) and its name.
    pub after: Option<(i64, &'a str)>,
    pub limit: usize,
}

impl LogStore {
    pub fn create_group(&self, name: &str, class: &str, tags: BTreeMap<String, String>) -> Result<(), Error> {
        let mut writer = self.writer();
        let op = self.new_group(name, class, tags)?;
        self.change(&mut writer, vec![op])
    }

    pub(super) fn new_group(&self, name: &str, class: &str, tags: BTreeMap<String, String>) -> Result<Op, Error> {
        let state = self.read_state();
        if state.groups.contains_key(name) {
            return Err(Error::GroupExists);
        }
        if state.groups.len() >= self.limits.groups {
            return Err(Error::LimitExceeded);
        }
        let (name, class) = (name.to_owned(), class.to_owned());
        Ok(Op::CreateGroup { name, at: self.clock.now(), class, tags, retention_days: None })
    }

    pub fn delete_group(&self, name: &str) -> Result<(), Error> {
        self.change_group(name, Op::DeleteGroup { name: name.to_owned() })
    }

    pub fn create_stream(&self, group: &str, name: &str) -> Result<(), Error> {
        let mut writer = self.writer();
        if !self.read_state().groups.contains_key(group) {
            return Err(Error::NoGroup);
        }
        let op = self.new_stream(group, name)?;
        self.change(&mut writer, vec![op])
    }

    pub(super) fn new_stream(&self, group: &str, name: &str) -> Result<Op, Error> {
        let state = self.read_state();
        if state.stream(group, name).is_some() {
            return Err(Error::StreamExists);
        }
        if state.names.len() >= self.limits.streams {
            return Err(Error::LimitExceeded);
        }
        let (group, name) = (group.to_owned(), name.to_owned());
        Ok(Op::CreateStream { group, name, id: state.next_stream, at: self.clock.now() })
    }

    pub fn delete_stream(&self, group: &str, name: &str) -> Result<(), Error> {
        let mut writer = self.writer();
        {
            let state = self.read_state();
            state.groups.get(group).ok_or(Error::NoGroup)?.streams.get(name).ok_or(Error::NoStream)?;
        }
        self.change(&mut writer, vec![Op::DeleteStream { group: group.to_owned(), name: name.to_owned() }])
    }

    /// None: for ever.
    pub fn set_retention(&self, group: &str, days: Option<u32>) -> Result<(), Error> {
        self.change_group(group, Op::Retention { group: group.to_owned(), days })
    }

    pub fn tag_group(&self, group: &str, tags: BTreeMap<String, String>) -> Result<(), Error> {
        self.change_group(group, Op::Tag { group: group.to_owned(), tags })
    }

    pub fn untag_group(&self, group: &str, keys: Vec<String>) -> Result<(), Error> {
        self.change_group(group, Op::Untag { group: group.to_owned(), keys })
    }

    fn change_group(&self, name: &str, op: Op) -> Result<(), Error> {
        let mut writer = self.writer();
        if !self.read_state().groups.contains_key(name) {
            return Err(Error::NoGroup);
        }
        self.change(&mut writer, vec![op])
    }

    pub fn group(&self, name: &str) -> Option<GroupInfo> {
        self.read_state().groups.get(name).map(|g| group_info(name, g))
    }

    pub fn stream(&self, group: &str, name: &str) -> Option<StreamInfo> {
        self.read_state().stream(group, name).map(|s| stream_info(name, s))
    }

    /// In order of name (ASCII), and whether there are more.
    pub fn describe_groups(&self, query: &GroupQuery) -> (Vec<GroupInfo>, bool) {
        let pattern = query.pattern.map(str::to_lowercase);
        let state = self.read_state();
        let wanted = |name: &str, group: &Group| {
            query.class.is_none_or(|class| group.class == class)
                && query.after.is_none_or(|after| name > after)
                && query.prefix.is_none_or(|p| name.starts_with(p))
                && pattern.as_ref().is_none_or(|p| name.to_lowercase().contains(p))
        };
        let mut found = state.groups.iter().filter(|(name, group)| wanted(name, group));
        let page = found.by_ref().take(query.limit).map(|(name, g)| group_info(name, g)).collect();
        (page, found.next().is_some())
    }

    /// The page, and whether there are more.
    pub fn describe_streams(&self, group: &str, query: &StreamQuery) -> Result<(Vec<StreamInfo>, bool), Error> {
        let state = self.read_state();
        let streams = &state.groups.get(group).ok_or(Error::NoGroup)?.streams;
        // A stream without events counts by its creation, as it does in AWS's listing.
        let rank = |s: &Stream| match query.order {
            StreamOrder::Name => 0,
            StreamOrder::LastEventTime => s.last_event.unwrap_or(s.created.0),
        };
        let mut found: Vec<(i64, &str, &Stream)> = streams
            .iter()
            .filter(|(name, _)| query.prefix.is_none_or(|p| name.starts_with(p)))
            .map(|(name, s)| (rank(s), &**name, s))
            .filter(|(rank, name, _)| {
                query.after.is_none_or(|after| ((*rank, *name) > after) != query.descending && (*rank, *name) != after)
            })
            .collect();
        found.sort_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
        if query.descending {
            found.reverse();
        }
        let more = found.len() > query.limit;
        Ok((found.into_iter().take(query.limit).map(|(_, name, s)| stream_info(name, s)).collect(), more))
    }
}

fn group_info(name: &str, group: &Group) -> GroupInfo {
    GroupInfo {
        name: name.to_owned(),
        created: group.created,
        class: group.class.clone(),
        retention_days: group.retention_days,
        tags: group.tags.clone(),
        stored_bytes: group.streams.values().map(Stream::bytes).sum(),
    }
}

fn stream_info(name: &str, stream: &Stream) -> StreamInfo {
    StreamInfo {
        name: name.to_owned(),
        created: stream.created,
        first_event: stream.first_event.map(Timestamp),
        last_event: stream.last_event.map(Timestamp),
        last_ingestion: stream.last_ingestion.map(Timestamp),
        next: stream.next(),
        stored_bytes: stream.bytes(),
        lost_lines: stream.lost,
    }
}
