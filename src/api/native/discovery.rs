//! `GET /sd/prometheus`: where Prometheus scrapes the applications' own metrics, as its HTTP service discovery reads it. Containers say
//! so themselves, by Docker labels or by tags of their task definition under the names below; what is said wrongly is told as a gap.
//!
//! The choice is a pure function of the state, asked at every refresh: [`discover`].

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;

use super::{Answered, App, Params, bad, ok};
use crate::model::definition::{ContainerDefinition, NetworkMode, TaskDefinition};
use crate::model::instance::Instance;
use crate::model::task::{Container, Task, TaskStatus};
use crate::store::State;

/// `true` or `false`; a port alone means `true`.
pub const SCRAPE: &str = "prometheus.io/scrape";
/// The container's own port, not the host's.
pub const PORT: &str = "prometheus.io/port";
pub const PATH: &str = "prometheus.io/path";
pub const SCHEME: &str = "prometheus.io/scheme";

/// Rows of what is not listed that an answer holds.
const MOST_SKIPPED: usize = 200;
const LONGEST_HOST: usize = 253;

/// One port of one running container.
pub struct Target<'a> {
    pub task: &'a Task,
    pub container: &'a Container,
    instance: Option<&'a Instance>,
    host: String,
    port: u16,
    path: Option<&'a str>,
    scheme: Option<&'a str>,
}

/// A container that wants to be scraped and cannot be: of every task that runs it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Skipped {
    pub cluster: String,
    pub service: Option<String>,
    pub task_definition: String,
    pub container: String,
    pub why: String,
}

#[derive(Default)]
pub struct Found<'a> {
    pub targets: Vec<Target<'a>>,
    /// And of how many tasks.
    pub skipped: BTreeMap<Skipped, u64>,
}

/// What is said about one container, by label or tag name.
type Said<'a> = dyn Fn(&str) -> Option<&'a str> + 'a;

/// Every running task that `wanted` lets through, in the order of task ids.
pub fn discover<'a>(state: &'a State, wanted: impl Fn(&Task) -> bool) -> Found<'a> {
    let mut found = Found::default();
    let running = state.tasks.values().filter(|t| t.last_status == TaskStatus::Running && !t.is_stopping());
    for task in running.filter(|t| wanted(t)) {
        let Some(definition) = state.definitions.get(&task.definition) else { continue };
        let instance = state.instances.get(&task.instance).map(AsRef::as_ref);
        for (defined, said) in asked(definition) {
            let Some(container) = task.containers.iter().find(|c| c.name.as_str() == defined.name) else { continue };
            // One that is not essential may have ended: there is nothing to scrape any more.
            if container.last_status != TaskStatus::Running {
                continue;
            }
            match target(task, definition, defined, container, instance, &*said) {
                Ok(Some(target)) => found.targets.push(target),
                Ok(None) => {}
                Err(why) => {
                    let skipped = Skipped {
                        cluster: task.cluster.to_string(),
                        service: task.service.as_ref().map(|s| s.to_string()),
                        task_definition: definition.key.to_string(),
                        container: defined.name.clone(),
                        why,
                    };
                    *found.skipped.entry(skipped).or_default() += 1;
                }
            }
        }
    }
    found
}

/// The containers about which something is said. Tags of the definition speak of the container that has the port, else of the first
/// essential one; a container's own labels come before them.
fn asked(definition: &TaskDefinition) -> Vec<(&ContainerDefinition, Box<Said<'_>>)> {
    let mut all: Vec<(&ContainerDefinition, Box<Said<'_>>)> = Vec::new();
    for container in &definition.containers {
        let Some(labels) = &container.docker_labels else { continue };
        if labels.contains_key(SCRAPE) || labels.contains_key(PORT) {
            all.push((container, Box::new(move |name: &str| labels.get(name).map(String::as_str))));
        }
    }
    let tag = |name: &str| definition.tags.iter().find(|t| t.key == name).map(|t| t.value.as_deref().unwrap_or(""));
    if tag(SCRAPE).is_none() && tag(PORT).is_none() {
        return all;
    }
    let port = tag(PORT).and_then(|p| p.parse::<i32>().ok());
    let has_port =
        |c: &&ContainerDefinition| port.is_some() && c.port_mappings.iter().flatten().any(|m| m.container_port == port);
    let meant = definition.containers.iter().find(has_port);
    let meant = meant.or_else(|| definition.containers.iter().find(|c| c.is_essential()));
    if let Some(container) = meant.filter(|c| !all.iter().any(|(labelled, _)| labelled.name == c.name)) {
        all.push((container, Box::new(tag)));
    }
    all
}

fn target<'a>(
    task: &'a Task,
    definition: &TaskDefinition,
    defined: &ContainerDefinition,
    container: &'a Container,
    instance: Option<&'a Instance>,
    said: &Said<'a>,
) -> Result<Option<Target<'a>>, String> {
    match said(SCRAPE) {
        None | Some("true") => {}
        Some("false") => return Ok(None),
        Some(other) => return Err(format!("{SCRAPE} is {other:?}: true or false")),
    }
    let port = match said(PORT) {
        Some(text) => match text.parse() {
            Ok(port) if port > 0 => port,
            _ => return Err(format!("{PORT} is {text:?}: a number from 1 to 65535")),
        },
        None => {
            only_port(defined).ok_or_else(|| format!("{PORT} is missing, and the container does not map exactly one TCP port"))?
        }
    };
    let path = said(PATH);
    if let Some(path) = path.filter(|p| !p.starts_with('/') || p.contains(['?', '#'])) {
        return Err(format!("{PATH} is {path:?}: it begins with / and has neither ? nor #"));
    }
    let scheme = said(SCHEME);
    if let Some(scheme) = scheme.filter(|s| !matches!(*s, "http" | "https")) {
        return Err(format!("{SCHEME} is {scheme:?}: http or https"));
    }
    let (host, port) = address(task, definition.network_mode, container, instance, port)?;
    Ok(Some(Target { task, container, instance, host, port, path, scheme }))
}

fn only_port(container: &ContainerDefinition) -> Option<u16> {
    let mut ports = container.port_mappings.iter().flatten().filter(|m| m.protocol.as_deref() != Some("udp"));
    let port = ports.next()?.container_port?;
    ports.next().is_none().then(|| u16::try_from(port).ok()).flatten()
}

/// Where the container's port can be reached from outside of it.
fn address(
    task: &Task,
    mode: NetworkMode,
    container: &Container,
    instance: Option<&Instance>,
    port: u16,
) -> Result<(String, u16), String> {
    let host = || instance.map(|i| i.host_address.clone()).ok_or_else(|| "its container instance is gone".to_owned());
    match mode {
        NetworkMode::Awsvpc => Ok((task.address.clone().ok_or("the task has no address yet")?, port)),
        NetworkMode::Host => Ok((host()?, port)),
        NetworkMode::None => Err("network mode none: nothing can reach it".to_owned()),
        NetworkMode::Bridge => {
            if let (Some(address), Some(_)) = (&container.address, &container.network) {
                return Ok((address.clone(), port));
            }
            let mapped = container.bindings.iter().find(|b| b.container_port == port && &*b.protocol != "udp");
            let Some(binding) = mapped else {
                return Err(format!(
                    "port {port} is not mapped to a port of the host (portMappings), and there is no task network"
                ));
            };
            match &*binding.address {
                // Bound everywhere, so also where the instance says that it can be reached.
                "" | "0.0.0.0" | "::" => Ok((host()?, binding.host_port)),
                one => Ok((one.to_owned(), binding.host_port)),
            }
        }
    }
}

/// An element of the answer, as Prometheus wants it.
#[derive(Serialize)]
struct Group {
    targets: [String; 1],
    labels: BTreeMap<&'static str, String>,
}

impl Target<'_> {
    fn group(&self, in_place_of_loopback: Option<&str>) -> Group {
        let (task, zone) = (self.task, self.instance.map_or("", |i| i.zone()));
        let labels = [
            ("__metrics_path__", self.path.unwrap_or("").to_owned()),
            ("__scheme__", self.scheme.unwrap_or("").to_owned()),
            ("cluster", task.cluster.to_string()),
            ("service", task.service.as_ref().map(|s| s.to_string()).unwrap_or_default()),
            ("family", task.definition.family.to_string()),
            ("revision", task.definition.revision.to_string()),
            ("task", task.id.to_string()),
            ("container", self.container.name.to_string()),
            ("container_instance", task.instance.to_string()),
            ("zone", zone.to_owned()),
        ];
        let host = in_place_of_loopback.filter(|_| is_loopback(&self.host)).unwrap_or(&self.host);
        let target = if host.contains(':') && !host.starts_with('[') {
            format!("[{host}]:{}", self.port)
        } else {
            format!("{host}:{}", self.port)
        };
        // To Prometheus an empty label is none; an empty path or scheme would overrule its own.
        let labels = labels.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        Group { targets: [target], labels }
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// `?cluster=` and `?service=` filter; `?host=` stands in place of a loopback address, for a Prometheus in a container.
pub(super) fn prometheus(app: &App, params: &Params) -> Answered {
    let fits =
        |host: &str| host.len() <= LONGEST_HOST && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:[]".contains(&b));
    let host = params.get("host");
    if let Some(host) = host.filter(|h| !fits(h)) {
        return Err(bad(format!("host={host} is no name of a host")));
    }
    let state = app.store.snapshot();
    let found = discover(&state, |task| {
        params.get("cluster").is_none_or(|c| task.cluster.as_str() == c)
            && params.get("service").is_none_or(|s| task.service.as_ref().is_some_and(|own| own.as_str() == s))
    });
    Ok(ok(&found.targets.iter().map(|target| target.group(host)).collect::<Vec<_>>()))
}

/// What of `/api/gaps` this room knows: the containers that are not listed though they ask for it.
#[derive(Serialize)]
pub struct NotScraped {
    #[serde(flatten)]
    pub skipped: Skipped,
    pub tasks: u64,
}

pub(super) fn not_scraped(state: &State) -> Vec<NotScraped> {
    let found = discover(state, |_| true);
    found.skipped.into_iter().take(MOST_SKIPPED).map(|(skipped, tasks)| NotScraped { skipped, tasks }).collect()
}

#[cfg(test)]
mod tests;
