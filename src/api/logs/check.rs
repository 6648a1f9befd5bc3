//! Constraints on members, in the words of AWS's own validation.

use std::collections::BTreeMap;
use std::fmt::Display;

use super::{Fault, invalid};
use crate::model::arn;

/// `1 validation error detected: Value '10001' at 'limit' failed to satisfy constraint: ...`
pub fn violated(value: impl Display, member: &str, constraint: impl Display) -> Fault {
    invalid(format!("1 validation error detected: Value '{value}' at '{member}' failed to satisfy constraint: {constraint}"))
}

pub fn limit(limit: Option<i64>, default: usize, max: usize) -> Result<usize, Fault> {
    match limit {
        None => Ok(default),
        Some(n) if n < 1 => Err(violated(n, "limit", "Member must have value greater than or equal to 1")),
        Some(n) if n > max as i64 => Err(violated(n, "limit", format!("Member must have value less than or equal to {max}"))),
        Some(n) => Ok(n as usize),
    }
}

pub fn time(value: Option<i64>, member: &str) -> Result<(), Fault> {
    match value {
        Some(ms) if ms < 0 => Err(violated(ms, member, "Member must have value greater than or equal to 0")),
        _ => Ok(()),
    }
}

const TOO_LONG: &str = "Invalid LogGroup or LogStream, both must have length less than or equal to 512.";
const MAX_NAME: usize = 512;

fn group_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || ".-_/#".contains(c)
}

pub fn group_name(name: &str) -> Result<(), Fault> {
    group_text(name, "logGroupName")?;
    if name.starts_with("aws/") {
        return Err(invalid("Log groups starting with aws/ are reserved for AWS."));
    }
    Ok(())
}

pub fn group_text(text: &str, member: &str) -> Result<(), Fault> {
    if text.is_empty() {
        return Err(violated("", member, "Member must have length greater than or equal to 1"));
    }
    if text.len() > MAX_NAME {
        return Err(invalid(TOO_LONG));
    }
    match text.chars().all(group_char) {
        true => Ok(()),
        false => Err(violated(text, member, "Member must satisfy regular expression pattern: [\\.\\-_/#A-Za-z0-9]+")),
    }
}

pub fn stream_name(name: &str, member: &str) -> Result<(), Fault> {
    if name.is_empty() {
        return Err(violated("", member, "Member must have length greater than or equal to 1"));
    }
    if name.chars().count() > MAX_NAME {
        return Err(invalid(TOO_LONG));
    }
    match name.contains([':', '*']) {
        false => Ok(()),
        true => Err(violated(name, member, "Member must satisfy regular expression pattern: [^:*]*")),
    }
}

/// "You must include either logGroupIdentifier or logGroupName, but not both." An identifier is a name or an ARN.
pub fn one_group(name: Option<String>, identifier: Option<String>) -> Result<String, Fault> {
    match (name, identifier) {
        (Some(name), None) => group_text(&name, "logGroupName").map(|()| name),
        (None, Some(identifier)) => Ok(by_identifier(&identifier).to_owned()),
        _ => Err(invalid("You must include either logGroupIdentifier or logGroupName, but not both.")),
    }
}

pub fn by_identifier(identifier: &str) -> &str {
    let name = arn::resource(identifier).and_then(|r| r.strip_prefix("log-group:")).unwrap_or(identifier);
    name.strip_suffix(":*").unwrap_or(name)
}

/// The group that a tagging call's ARN means.
pub fn tagged_group(resource_arn: &str) -> Result<String, Fault> {
    let ours = resource_arn.starts_with("arn:") && resource_arn.split(':').nth(2) == Some("logs");
    match arn::resource(resource_arn).filter(|r| ours && r.starts_with("log-group:")) {
        Some(_) => Ok(by_identifier(resource_arn).to_owned()),
        None => Err(invalid(format!("The ARN '{resource_arn}' does not name a log group."))),
    }
}

pub const MAX_TAGS: usize = 50;

pub fn tags(tags: &BTreeMap<String, String>) -> Result<(), Fault> {
    for (key, value) in tags {
        if key.is_empty() || key.chars().count() > 128 {
            return Err(violated(key, "tags", "Map keys must have length between 1 and 128"));
        }
        if value.chars().count() > 256 {
            return Err(violated(value, "tags", "Map values must have length less than or equal to 256"));
        }
        if key.to_ascii_lowercase().starts_with("aws:") {
            return Err(invalid("Tag keys that begin with aws: are reserved for AWS."));
        }
    }
    Ok(())
}

/// PutRetentionPolicy's "Possible values".
const RETENTION_DAYS: [u32; 22] =
    [1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653];

pub fn retention(days: i64) -> Result<u32, Fault> {
    let known = RETENTION_DAYS.into_iter().find(|d| i64::from(*d) == days);
    known.ok_or_else(|| {
        let allowed = RETENTION_DAYS.map(|d| d.to_string()).join(", ");
        violated(days, "retentionInDays", format!("Member must satisfy enum value set: [{allowed}]"))
    })
}
