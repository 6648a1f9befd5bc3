//! Tags of whatever has an ARN of ours.

use super::errors::{LIMIT_EXCEEDED, RESOURCE_NOT_FOUND, cluster_not_found, invalid};
use super::shapes::Empty;
use super::{ask, update};
use crate::api::Cx;
use crate::model::cluster::Cluster;
use crate::model::definition::TaskDefinition;
use crate::model::instance::Instance;
use crate::model::service::Service;
use crate::model::tag::Tag;
use crate::model::task::Task;
use crate::model::{ServiceKey, arn};
use crate::schedule;
use crate::shapes;
use crate::store::{State, Tx};
use crate::wire::fault::Fault;
use std::sync::Arc;

shapes! { "camelCase";
    input TagResourceInput { resource_arn: String, tags: Vec<Tag> }
    input UntagResourceInput { resource_arn: String, tag_keys: Vec<String> }
    input ListTagsForResourceInput { resource_arn: String }
    output ListTagsForResourceOutput { tags: Vec<Tag> }
}

/// A row that has tags.
enum Tagged {
    Cluster(Arc<Cluster>),
    Service(Arc<Service>),
    Task(Arc<Task>),
    Definition(Arc<TaskDefinition>),
    Instance(Arc<Instance>),
}

impl Tagged {
    fn tags(&self) -> &[Tag] {
        match self {
            Tagged::Cluster(c) => &c.tags,
            Tagged::Service(s) => &s.tags,
            Tagged::Task(t) => &t.tags,
            Tagged::Definition(d) => &d.tags,
            Tagged::Instance(i) => &i.tags,
        }
    }

    fn put(self, tx: &mut Tx, tags: Vec<Tag>) {
        match self {
            Tagged::Cluster(c) => tx.put(Cluster { tags, ..(*c).clone() }),
            Tagged::Service(s) => tx.put(Service { tags, ..(*s).clone() }),
            Tagged::Task(t) => tx.put((*t).clone().with_tags(tags)),
            Tagged::Definition(d) => tx.put(TaskDefinition { tags, ..(*d).clone() }),
            Tagged::Instance(i) => tx.put(Instance { tags, ..(*i).clone() }),
        }
    }
}

/// Ok(None): well-formed, but there is nothing of that name.
fn find(state: &State, resource_arn: &str) -> Result<Option<Tagged>, Fault> {
    let bad = || invalid(format!("The ARN {} is not valid.", resource_arn.chars().take(256).collect::<String>()));
    let resource = arn::resource(resource_arn).ok_or_else(bad)?;
    let parts: Vec<&str> = resource.split('/').collect();
    let cluster = |name: &str| state.clusters.contains_key(name).then_some(()).ok_or_else(cluster_not_found);
    Ok(match parts.as_slice() {
        ["cluster", name] => Some(Tagged::Cluster(state.clusters.get(*name).ok_or_else(cluster_not_found)?.clone())),
        ["task-definition", name] if name.contains(':') => {
            schedule::find_definition(state, name).cloned().map(Tagged::Definition)
        }
        ["service", of, name] => {
            cluster(of)?;
            state.services.get(&ServiceKey::new(of, name)).cloned().map(Tagged::Service)
        }
        ["task", of, id] => {
            cluster(of)?;
            state.tasks.get(*id).cloned().map(Tagged::Task)
        }
        ["container-instance", of, id] => {
            cluster(of)?;
            state.instances.get(*id).cloned().map(Tagged::Instance)
        }
        _ => return Err(bad()),
    })
}

fn not_found() -> Fault {
    Fault::new(&RESOURCE_NOT_FOUND, "The specified resource was not found.")
}

pub async fn tag(cx: Cx, input: TagResourceInput) -> Result<Empty, Fault> {
    ask::check_tags(&input.tags)?;
    update(&cx, "TagResource", move |tx, _| {
        let found = find(tx.state(), &input.resource_arn)?.ok_or_else(not_found)?;
        let tags = ask::merged_tags(found.tags(), &input.tags);
        // Tags that ECS itself set (aws:...) do not count.
        if tags.iter().filter(|t| !t.key.starts_with("aws:")).count() > ask::MAX_TAGS {
            return Err(Fault::new(&LIMIT_EXCEEDED, format!("A resource can have at most {} tags.", ask::MAX_TAGS)));
        }
        found.put(tx, tags);
        Ok(Empty {})
    })
    .await
}

pub async fn untag(cx: Cx, input: UntagResourceInput) -> Result<Empty, Fault> {
    update(&cx, "UntagResource", move |tx, _| {
        let found = find(tx.state(), &input.resource_arn)?.ok_or_else(not_found)?;
        let kept = found.tags().iter().filter(|t| !input.tag_keys.contains(&t.key)).cloned().collect();
        found.put(tx, kept);
        Ok(Empty {})
    })
    .await
}

pub async fn list(cx: Cx, input: ListTagsForResourceInput) -> Result<ListTagsForResourceOutput, Fault> {
    // This operation does not declare ResourceNotFoundException.
    let gone = || invalid("The specified resource was not found.");
    let found = find(&cx.app.store.snapshot(), &input.resource_arn)?.ok_or_else(gone)?;
    Ok(ListTagsForResourceOutput { tags: found.tags().to_vec() })
}
