//! What a request means: names and ARNs to rows, and AWS's rules for names and tags.

use std::sync::Arc;

use super::errors::{CLUSTER_NOT_FOUND, cluster_not_found, invalid, service_not_found};
use crate::model::arn;
use crate::model::cluster::{Cluster, ClusterStatus};
use crate::model::instance::{Instance, InstanceStatus};
use crate::model::service::Service;
use crate::model::tag::Tag;
use crate::model::task::Task;
use crate::model::{ClusterName, ServiceKey};
use crate::store::State;
use crate::wire::fault::Fault;

/// What a client means that names no cluster.
pub const DEFAULT_CLUSTER: &str = "default";
/// Tags on one resource.
pub const MAX_TAGS: usize = 50;

/// An ACTIVE cluster by name or ARN.
pub fn cluster<'a>(state: &'a State, reference: Option<&str>) -> Result<&'a Arc<Cluster>, Fault> {
    let name = arn::short_name(reference.filter(|r| !r.is_empty()).unwrap_or(DEFAULT_CLUSTER));
    let cluster = state.clusters.get(name).ok_or_else(cluster_not_found)?;
    match cluster.status {
        ClusterStatus::Active => Ok(cluster),
        ClusterStatus::Inactive => Err(Fault::new(&CLUSTER_NOT_FOUND, "The referenced cluster was inactive.")),
    }
}

/// The id or name in `reference`, which may be an ARN of `kind` (`task`, `service`, `container-instance`); an ARN of another cluster
/// or kind is the client's mistake. Old ARNs have no cluster in them.
pub fn within<'a>(cluster: &ClusterName, kind: &str, reference: &'a str) -> Result<&'a str, Fault> {
    let Some(resource) = arn::resource(reference) else { return Ok(arn::short_name(reference)) };
    let mut parts = resource.split('/');
    let (found, first, second) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    match (first, second) {
        _ if found != kind => Err(invalid(format!("Invalid identifier: the ARN is not of a {kind}."))),
        (Some(named), Some(id)) if named == cluster.as_str() => Ok(id),
        (Some(named), Some(_)) => {
            Err(invalid(format!("Invalid identifier: Identifier is for cluster {named}. Your cluster is {cluster}")))
        }
        (Some(id), None) => Ok(id),
        _ => Err(invalid("Invalid identifier: the ARN names nothing.")),
    }
}

/// A service in whatever status.
pub fn service<'a>(state: &'a State, cluster: &ClusterName, reference: &str) -> Result<&'a Arc<Service>, Fault> {
    let name = within(cluster, "service", reference)?;
    state.services.get(&ServiceKey::new(cluster, name)).ok_or_else(service_not_found)
}

pub fn task<'a>(state: &'a State, cluster: &ClusterName, reference: &str) -> Result<Option<&'a Arc<Task>>, Fault> {
    let id = within(cluster, "task", reference)?;
    Ok(state.tasks.get(id).filter(|t| t.cluster == *cluster))
}

/// An instance that has not been deregistered, or a deregistered one too if `gone`.
pub fn instance<'a>(
    state: &'a State,
    cluster: &ClusterName,
    reference: &str,
    gone: bool,
) -> Result<Option<&'a Arc<Instance>>, Fault> {
    let id = within(cluster, "container-instance", reference)?;
    let found = state.instances.get(id).filter(|i| i.cluster == *cluster);
    Ok(found.filter(|i| gone || i.status != InstanceStatus::Inactive))
}

/// Clusters, services: "Up to 255 letters (uppercase and lowercase), numbers, underscores, and hyphens are allowed."
pub fn check_name(what: &str, name: &str) -> Result<(), Fault> {
    let allowed = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    match (1..=255).contains(&name.len()) && allowed {
        true => Ok(()),
        false => Err(invalid(format!(
            "{what} is not valid: up to 255 letters (uppercase and lowercase), numbers, underscores, and hyphens are allowed."
        ))),
    }
}

/// Client tokens: ASCII 33 to 126, 64 characters for RunTask and 36 for services.
pub fn check_token(token: Option<&str>, most: usize) -> Result<(), Fault> {
    match token {
        Some(t) if t.is_empty() || t.len() > most || !t.bytes().all(|b| (33..=126).contains(&b)) => {
            Err(invalid(format!("clientToken is not valid: up to {most} characters of ASCII 33 to 126 are allowed.")))
        }
        _ => Ok(()),
    }
}

pub fn check_length(what: &str, text: Option<&str>, most: usize) -> Result<(), Fault> {
    match text {
        Some(t) if t.chars().count() > most => Err(invalid(format!("{what} can have up to {most} characters."))),
        _ => Ok(()),
    }
}

/// A list that must name something, and at most `most` things (section "Batch sizes").
pub fn check_batch(what: &str, len: usize, most: usize) -> Result<(), Fault> {
    match len {
        0 => Err(invalid(format!("{what} cannot be empty."))),
        n if n > most => Err(invalid(format!("{what} can have at most {most} items."))),
        _ => Ok(()),
    }
}

/// The rules of [`Tag`]; a key may stand once.
pub fn check_tags(tags: &[Tag]) -> Result<(), Fault> {
    let fits = |text: &str| text.chars().all(|c| c.is_alphanumeric() || c.is_whitespace() || "_.:/=+-@".contains(c));
    if tags.len() > MAX_TAGS {
        return Err(invalid(format!("A resource can have at most {MAX_TAGS} tags.")));
    }
    for (i, tag) in tags.iter().enumerate() {
        let value = tag.value.as_deref().unwrap_or_default();
        if tag.key.is_empty() || tag.key.chars().count() > 128 || value.chars().count() > 256 {
            return Err(invalid("A tag's key must have 1 to 128 characters and its value at most 256."));
        }
        if !fits(&tag.key) || !fits(value) {
            return Err(invalid(
                "Some of the tags contain invalid characters. Valid characters: UTF-8 letters, spaces, numbers and _ . / = + - : @.",
            ));
        }
        if tag.key.get(..4).is_some_and(|p| p.eq_ignore_ascii_case("aws:")) {
            return Err(invalid("Tag keys that begin with aws: are reserved."));
        }
        if tags[..i].iter().any(|t| t.key == tag.key) {
            return Err(invalid(format!("Duplicate tag key: {}.", tag.key)));
        }
    }
    Ok(())
}

/// `new` beside `old`; a key that is there gets the new value.
pub fn merged_tags(old: &[Tag], new: &[Tag]) -> Vec<Tag> {
    let kept = old.iter().filter(|t| !new.iter().any(|n| n.key == t.key));
    kept.chain(new).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(key: &str, value: &str) -> Tag {
        Tag { key: key.to_owned(), value: Some(value.to_owned()) }
    }

    #[test]
    fn references() {
        let cluster = ClusterName::new("prod");
        let arn = |rest: &str| format!("arn:aws:ecs:us-east-1:000000000000:{rest}");
        for (reference, want) in [
            ("web".to_owned(), Some("web")),
            (arn("service/prod/web"), Some("web")),
            (arn("service/web"), Some("web")),
            (arn("service/other/web"), None),
            (arn("task/prod/web"), None),
            (arn("service"), None),
        ] {
            assert_eq!(within(&cluster, "service", &reference).ok(), want, "{reference}");
        }
    }

    #[test]
    fn tags() {
        for (tags, fine) in [
            (vec![tag("a", ""), tag("b c", "é/:=+-@_.")], true),
            (vec![tag("", "x")], false),
            (vec![tag("AWS:x", "x")], false),
            (vec![tag("a", "1"), tag("a", "2")], false),
            (vec![tag("a", "<")], false),
            (vec![tag(&"k".repeat(129), "")], false),
            ((0..51).map(|i| tag(&i.to_string(), "")).collect(), false),
        ] {
            assert_eq!(check_tags(&tags).is_ok(), fine, "{tags:?}");
        }
        assert_eq!(merged_tags(&[tag("a", "1"), tag("b", "1")], &[tag("a", "2")]), [tag("b", "1"), tag("a", "2")]);
    }
}
