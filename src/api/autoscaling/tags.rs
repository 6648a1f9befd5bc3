//! Tags of scalable targets.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::errors::{invalid, resource_not_found, too_many_tags};
use super::shapes::{ListTagsForResourceInput, ListTagsForResourceOutput, Nothing, TagResourceInput, UntagResourceInput};
use super::{Cx, update};
use crate::api::App;
use crate::model::scaling::ScalableTarget;
use crate::model::tag::Tag;
use crate::store::State;
use crate::wire::fault::Fault;

const MOST_TAGS: usize = 50;

/// Keys of 1 to 128 characters that do not begin with `aws:`, values of up to 256. `of` names the resource.
pub fn checked(tags: BTreeMap<String, String>, of: &str) -> Result<Vec<Tag>, Fault> {
    for (key, value) in &tags {
        let length = key.chars().count();
        if !(1..=128).contains(&length) || value.chars().count() > 256 || key.to_ascii_lowercase().starts_with("aws:") {
            return Err(invalid("A tag's key has 1 to 128 characters and does not begin with aws:, its value at most 256."));
        }
    }
    let tags: Vec<Tag> = tags.into_iter().map(|(key, value)| Tag { key, value: Some(value) }).collect();
    // RegisterScalableTarget and TagResource alike: more can never fit.
    if tags.len() > MOST_TAGS {
        return Err(invalid(format!("{of}: a scalable target can have at most {MOST_TAGS} tags.")));
    }
    Ok(tags)
}

pub fn check_number(tags: &[Tag], of: &str) -> Result<(), Fault> {
    if tags.len() > MOST_TAGS {
        return Err(invalid(format!("{of}: a scalable target can have at most {MOST_TAGS} tags.")));
    }
    Ok(())
}

pub fn merged(old: &[Tag], new: &[Tag]) -> Vec<Tag> {
    let kept = old.iter().filter(|tag| new.iter().all(|n| n.key != tag.key));
    kept.chain(new).cloned().collect()
}

fn find(state: &State, arn: &str, app: &App) -> Result<Arc<ScalableTarget>, Fault> {
    let found = state.targets.values().find(|target| app.home.scalable_target(&target.id) == arn);
    found.cloned().ok_or_else(|| resource_not_found(arn))
}

pub async fn tag(cx: Cx, input: TagResourceInput) -> Result<Nothing, Fault> {
    let new = checked(input.tags, "TagResource")?;
    update(&cx, "TagResource", move |tx, app| {
        let target = find(tx.state(), &input.resource_arn, app)?;
        let tags = merged(&target.tags, &new);
        if tags.len() > MOST_TAGS {
            return Err(too_many_tags(&input.resource_arn, MOST_TAGS));
        }
        tx.put(ScalableTarget { tags, ..(*target).clone() });
        Ok(Nothing {})
    })
    .await
}

pub async fn untag(cx: Cx, input: UntagResourceInput) -> Result<Nothing, Fault> {
    update(&cx, "UntagResource", move |tx, app| {
        let target = find(tx.state(), &input.resource_arn, app)?;
        let mut tags = target.tags.clone();
        tags.retain(|tag| !input.tag_keys.contains(&tag.key));
        tx.put(ScalableTarget { tags, ..(*target).clone() });
        Ok(Nothing {})
    })
    .await
}

pub async fn list(cx: Cx, input: ListTagsForResourceInput) -> Result<ListTagsForResourceOutput, Fault> {
    let target = find(&cx.app.store.snapshot(), &input.resource_arn, &cx.app)?;
    let tags = target.tags.iter().map(|tag| (tag.key.clone(), tag.value.clone().unwrap_or_default())).collect();
    Ok(ListTagsForResourceOutput { tags })
}
