//! Custom attributes of container instances, which placement expressions can name.

use super::errors::{ATTRIBUTE_LIMIT, TARGET_NOT_FOUND, invalid};
use super::page::page;
use super::shapes::{Attribute, TargetType, instance_arn};
use super::{ask, update};
use crate::api::Cx;
use crate::model::ClusterName;
use crate::model::instance::{Instance, InstanceStatus};
use crate::shapes;
use crate::store::Tx;
use crate::wire::fault::Fault;

/// "You can specify up to 10 custom attributes for each resource", and as many in one call.
const MOST: usize = 10;

shapes! { "camelCase";
    input PutAttributesInput { cluster: Option<String>, attributes: Vec<Attribute> }
    input DeleteAttributesInput { cluster: Option<String>, attributes: Vec<Attribute> }
    input ListAttributesInput {
        cluster: Option<String>, target_type: TargetType, attribute_name: Option<String>, attribute_value: Option<String>,
        next_token: Option<String>, max_results: Option<i32>,
    }
    output AttributesOutput { attributes: Vec<Attribute> }
    output ListAttributesOutput { attributes: Vec<Attribute>, next_token: Option<String> }
}

pub async fn put(cx: Cx, input: PutAttributesInput) -> Result<AttributesOutput, Fault> {
    ask::check_batch("Attributes", input.attributes.len(), MOST)?;
    input.attributes.iter().try_for_each(check)?;
    update(&cx, "PutAttributes", move |tx, app| {
        let cluster = ask::cluster(tx.state(), input.cluster.as_deref())?.name.clone();
        let mut done = Vec::new();
        for attribute in input.attributes {
            let mut instance = target(tx, &cluster, &attribute)?;
            instance.attributes.insert(attribute.name.clone(), attribute.value.clone());
            if instance.attributes.keys().filter(|name| !built_in(name)).count() > MOST {
                let text = format!("A container instance can have up to {MOST} custom attributes.");
                return Err(Fault::new(&ATTRIBUTE_LIMIT, text));
            }
            instance.version += 1;
            done.push(shape(&app.home, &instance, attribute.name, attribute.value));
            tx.put(instance);
        }
        Ok(AttributesOutput { attributes: done })
    })
    .await
}

pub async fn delete(cx: Cx, input: DeleteAttributesInput) -> Result<AttributesOutput, Fault> {
    ask::check_batch("Attributes", input.attributes.len(), MOST)?;
    update(&cx, "DeleteAttributes", move |tx, app| {
        let cluster = ask::cluster(tx.state(), input.cluster.as_deref())?.name.clone();
        let mut done = Vec::new();
        for attribute in input.attributes {
            if built_in(&attribute.name) {
                return Err(invalid(format!("The attribute {} is reserved and cannot be deleted.", attribute.name)));
            }
            let mut instance = target(tx, &cluster, &attribute)?;
            if let Some(value) = instance.attributes.remove(&attribute.name) {
                instance.version += 1;
                done.push(shape(&app.home, &instance, attribute.name, value));
                tx.put(instance);
            }
        }
        Ok(AttributesOutput { attributes: done })
    })
    .await
}

pub async fn list(cx: Cx, input: ListAttributesInput) -> Result<ListAttributesOutput, Fault> {
    let TargetType::ContainerInstance = input.target_type;
    if input.attribute_value.is_some() && input.attribute_name.is_none() {
        return Err(invalid("attributeValue can be given only together with attributeName."));
    }
    let state = cx.app.store.snapshot();
    let cluster = ask::cluster(&state, input.cluster.as_deref())?;
    let wanted = |name: &String, value: &Option<String>| {
        input.attribute_name.as_ref().is_none_or(|n| n == name)
            && (input.attribute_value.is_none() || input.attribute_value == *value)
    };
    let instances = state.instances_of_cluster(&cluster.name).filter(|i| i.status != InstanceStatus::Inactive);
    let all = instances.flat_map(|i| i.attributes.iter().map(move |(name, value)| (i, name, value)));
    let found = all.filter(|(_, name, value)| wanted(name, value)).map(|(instance, name, value)| {
        // The least character between the two parts keeps the order of the index.
        (format!("{}\0{name}", instance.id), shape(&cx.app.home, instance, name.clone(), value.clone()))
    });
    let (attributes, next_token) = page(input.next_token, input.max_results, 100)?.of(found);
    Ok(ListAttributesOutput { attributes, next_token })
}

fn target(tx: &Tx, cluster: &ClusterName, attribute: &Attribute) -> Result<Instance, Fault> {
    let id = attribute.target_id.as_deref().ok_or_else(|| invalid("An attribute must name its targetId."))?;
    let not_found = || Fault::new(&TARGET_NOT_FOUND, "The specified target wasn't found.");
    ask::instance(tx.state(), cluster, id, false)?.map(|i| (**i).clone()).ok_or_else(not_found)
}

/// Attributes that agents and ECS itself set.
fn built_in(name: &str) -> bool {
    name.starts_with("ecs.") || name.starts_with("com.amazonaws.")
}

/// Attribute: "name 1-128 characters of letters, numbers, hyphens, underscores, slashes, backslashes, periods"; the value also @, colons
/// and spaces, "can't start or end with a space".
fn check(attribute: &Attribute) -> Result<(), Fault> {
    let of = |text: &str, more: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "-_/\\.".contains(c) || more.contains(c));
    let name = &attribute.name;
    if !(1..=128).contains(&name.len()) || !of(name, "") {
        return Err(invalid(
            "An attribute's name must have 1 to 128 letters, numbers, hyphens, underscores, slashes or periods.",
        ));
    }
    if built_in(name) {
        return Err(invalid(format!("The attribute {name} is reserved and cannot be set.")));
    }
    match &attribute.value {
        Some(value) if !(1..=128).contains(&value.len()) || !of(value, "@: ") || value.trim() != value => Err(invalid(
            "An attribute's value must have 1 to 128 letters, numbers, hyphens, underscores, periods, at signs, slashes, colons \
             or spaces, and no space at either end.",
        )),
        _ => Ok(()),
    }
}

fn shape(home: &crate::model::arn::Home, instance: &Instance, name: String, value: Option<String>) -> Attribute {
    let target_id = Some(instance_arn(home, instance));
    Attribute { name, value, target_type: Some(TargetType::ContainerInstance), target_id }
}
