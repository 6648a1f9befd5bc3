//! Tags of alarms.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::shapes::{ListTagsForResourceInput, ListTagsForResourceOutput, Nothing, Tag, TagResourceInput, UntagResourceInput};
use super::{Cx, alarms, errors, update};
use crate::model::alarm::Alarm;
use crate::model::{arn, tag as model};
use crate::store::State;
use crate::wire::fault::Fault;

const MOST_TAGS: usize = 50;

/// Keys of 1 to 128 characters that do not begin with `aws:`, each once; values of up to 256.
pub fn checked(tags: Vec<Tag>) -> Result<Vec<model::Tag>, Fault> {
    let mut keys = BTreeSet::new();
    for tag in &tags {
        let (key, value) = (tag.key.chars().count(), tag.value.chars().count());
        if !(1..=128).contains(&key) || value > 256 || tag.key.to_ascii_lowercase().starts_with("aws:") {
            return Err(errors::value(
                "A tag's key has 1 to 128 characters and does not begin with aws:, its value at most 256.",
            ));
        }
        if !keys.insert(&tag.key) {
            return Err(errors::value("The same tag key is given twice."));
        }
    }
    if tags.len() > MOST_TAGS {
        return Err(too_many());
    }
    Ok(tags.into_iter().map(|tag| model::Tag { key: tag.key, value: Some(tag.value) }).collect())
}

fn too_many() -> Fault {
    errors::value(format!("An alarm can have at most {MOST_TAGS} tags."))
}

fn find(state: &State, resource_arn: &str) -> Result<Arc<Alarm>, Fault> {
    let resource = arn::resource(resource_arn).filter(|_| resource_arn.split(':').nth(2) == Some("cloudwatch"));
    let resource = resource.ok_or_else(|| errors::value("The parameter ResourceARN is not the ARN of a CloudWatch resource."))?;
    let alarm = resource.strip_prefix("alarm:").and_then(|name| state.alarms.get(name));
    alarm.cloned().ok_or_else(|| errors::resource_not_found(resource_arn))
}

pub async fn tag(cx: Cx, input: TagResourceInput) -> Result<Nothing, Fault> {
    let new = checked(input.tags)?;
    update(&cx, "TagResource", move |tx, _| {
        let alarm = find(tx.state(), &input.resource_arn)?;
        let mut tags = alarm.tags.clone();
        tags.retain(|tag| new.iter().all(|n| n.key != tag.key));
        tags.extend(new);
        if tags.len() > MOST_TAGS {
            return Err(too_many());
        }
        tx.put(Alarm { tags, ..(*alarm).clone() });
        Ok(Nothing {})
    })
    .await
}

pub async fn untag(cx: Cx, input: UntagResourceInput) -> Result<Nothing, Fault> {
    update(&cx, "UntagResource", move |tx, _| {
        let alarm = find(tx.state(), &input.resource_arn)?;
        let mut tags = alarm.tags.clone();
        tags.retain(|tag| !input.tag_keys.contains(&tag.key));
        tx.put(Alarm { tags, ..(*alarm).clone() });
        Ok(Nothing {})
    })
    .await
}

pub async fn list(cx: Cx, input: ListTagsForResourceInput) -> Result<ListTagsForResourceOutput, Fault> {
    let alarm = find(&cx.app.store.snapshot(), &input.resource_arn)?;
    Ok(ListTagsForResourceOutput { tags: alarms::shown_tags(&alarm) })
}
