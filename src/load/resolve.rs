//! Where a service's tasks can be reached, asked of the API again and again as a load balancer's targets would be.

use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Target;
use super::client::{Api, ECS};
use super::stats::Outcome;

/// Tasks that DescribeTasks takes at once.
const DESCRIBED_AT_ONCE: usize = 100;
/// Between two looks for a first target.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// A task that takes longer is asked again in the next round.
const HEALTHY_WITHIN: Duration = Duration::from_millis(500);

#[derive(Clone, Debug)]
pub struct Service {
    pub cluster: String,
    pub name: String,
    /// What is asked of each task.
    pub path: String,
    /// Which of the ports, where a task has several, and where to ask one that has an address of its own.
    pub container_port: Option<u16>,
    /// A task is a target only once it has answered here: one that runs may not listen yet.
    pub health: Option<String>,
    /// The host of a Beaufort that is not on this one. A task that has an address of its own is asked there then, as its ports on its
    /// host may not be reachable from here (the generator in a container, on the tasks' network).
    pub elsewhere: Option<String>,
}

/// The first targets, waited for as long as `lasts`: neither the control plane nor the service need be there yet. Fails with what was
/// the matter last.
pub async fn wait(api: &Api, service: &Service, lasts: Duration, stop: &CancellationToken) -> anyhow::Result<Vec<Target>> {
    let deadline = Instant::now() + lasts;
    let mut told = false;
    loop {
        let found = once(api, service, &[]).await;
        if let Ok(targets) = &found
            && !targets.is_empty()
        {
            return found;
        }
        if stop.is_cancelled() {
            bail!("interrupted before service {}/{} had a task", service.cluster, service.name);
        }
        if Instant::now() >= deadline {
            let (cluster, name) = (&service.cluster, &service.name);
            let waited = lasts.as_secs_f64();
            found.with_context(|| format!("service {cluster}/{name} could not be asked for within {waited} s"))?;
            bail!(
                "service {cluster}/{name} has no running task with a port after {waited} s; beaufort services shows what there is"
            );
        }
        if !told {
            told = true;
            eprintln!("waiting up to {} s for a task of service {}/{}", lasts.as_secs_f64(), service.cluster, service.name);
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(LOOK_AGAIN.min(deadline.saturating_duration_since(Instant::now()))) => {}
        }
    }
}

/// Keeps `targets` as the service's tasks are, until `stop`. What cannot be asked just now stays as it was.
pub async fn follow(api: Api, service: Service, every: Duration, targets: watch::Sender<Vec<Target>>, stop: CancellationToken) {
    let mut tick = tokio::time::interval(every);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let known = targets.borrow().clone();
        match once(&api, &service, &known).await {
            Ok(found) => drop(targets.send_if_modified(|known| {
                let changed = *known != found;
                *known = found;
                changed
            })),
            Err(error) => tracing::warn!(service = %service.name, error = format!("{error:#}"), "the targets stay as they were"),
        }
    }
}

/// `known` have shown that they are healthy.
pub async fn once(api: &Api, service: &Service, known: &[Target]) -> anyhow::Result<Vec<Target>> {
    let asked = json!({ "cluster": service.cluster, "serviceName": service.name, "desiredStatus": "RUNNING" });
    let listed = api.aws(ECS, "ListTasks", &asked).await?;
    let arns: Vec<Value> = listed["taskArns"].as_array().cloned().unwrap_or_default();
    let mut targets = Vec::new();
    for arns in arns.chunks(DESCRIBED_AT_ONCE) {
        let described = api.aws(ECS, "DescribeTasks", &json!({ "cluster": service.cluster, "tasks": arns })).await?;
        targets.extend(of_tasks(&described, service)?);
    }
    if let Some(path) = &service.health {
        let probed = targets.into_iter().map(|target| async move {
            let healthy = known.contains(&target) || is_healthy(&target, path).await;
            healthy.then_some(target)
        });
        targets = join_all(probed).await.into_iter().flatten().collect();
    }
    targets.sort_by_key(|target| target.uri.to_string());
    Ok(targets)
}

async fn is_healthy(target: &Target, path: &str) -> bool {
    let Some(authority) = target.uri.authority() else { return false };
    let Ok(uri) = format!("http://{authority}{path}").parse() else { return false };
    let (client, target) = (super::http_client(), Target { uri });
    let asked = tokio::time::timeout(HEALTHY_WITHIN, super::ask(&client, &target)).await;
    asked == Ok(Outcome::Completed)
}

/// The running tasks' addresses in DescribeTasks' answer.
fn of_tasks(described: &Value, service: &Service) -> anyhow::Result<Vec<Target>> {
    let tasks = described["tasks"].as_array().context("DescribeTasks answered without tasks")?;
    let ready = tasks.iter().filter(|task| task["lastStatus"] == "RUNNING" && task["desiredStatus"] == "RUNNING");
    ready
        .filter_map(|task| address(task, service))
        .map(|address| {
            let uri = format!("http://{address}{}", service.path);
            Ok(Target { uri: uri.parse().with_context(|| format!("{uri} is no URL"))? })
        })
        .collect()
}

fn address(task: &Value, service: &Service) -> Option<String> {
    let containers = task["containers"].as_array()?;
    let mut interfaces = containers.iter().flat_map(|c| c["networkInterfaces"].as_array().into_iter().flatten());
    let own = interfaces.find_map(|interface| interface["privateIpv4Address"].as_str());
    let bindings = containers.iter().flat_map(|c| c["networkBindings"].as_array().into_iter().flatten());
    let wanted = |binding: &&Value| {
        binding["protocol"] != "udp" && service.container_port.is_none_or(|port| binding["containerPort"] == json!(port))
    };
    let mut bound = bindings.filter(wanted);
    let inside = |binding: Option<&Value>| {
        let named = binding.and_then(|b| b["containerPort"].as_u64()).and_then(|port| u16::try_from(port).ok());
        service.container_port.or(named).unwrap_or(80)
    };
    if let (Some(own), Some(_)) = (own, &service.elsewhere) {
        return Some(format!("{own}:{}", inside(bound.next())));
    }
    if let Some(binding) = bound.find(|b| b["hostPort"].as_u64().is_some_and(|port| port > 0)) {
        let host = match binding["bindIP"].as_str() {
            // Bound everywhere: on this host, that is also here; else where the control plane is, which may be that host.
            None | Some("" | "0.0.0.0" | "::") => service.elsewhere.as_deref().unwrap_or("127.0.0.1"),
            Some(address) => address,
        };
        return Some(format!("{host}:{}", binding["hostPort"]));
    }
    Some(format!("{}:{}", own?, inside(None)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_answer_is_a_target() {
        let binding = |container: u16, host: u16| json!({ "bindIP": "0.0.0.0", "containerPort": container, "hostPort": host, "protocol": "tcp" });
        let described = json!({ "tasks": [
            { "lastStatus": "RUNNING", "desiredStatus": "RUNNING", "containers": [{ "networkBindings": [binding(9000, 1), binding(8080, 32768)] }] },
            { "lastStatus": "PENDING", "desiredStatus": "RUNNING", "containers": [{ "networkBindings": [binding(8080, 32769)] }] },
            { "lastStatus": "RUNNING", "desiredStatus": "STOPPED", "containers": [{ "networkBindings": [binding(8080, 32770)] }] },
            { "lastStatus": "RUNNING", "desiredStatus": "RUNNING",
              "containers": [{ "networkInterfaces": [{ "privateIpv4Address": "10.77.0.5" }] }] },
            { "lastStatus": "RUNNING", "desiredStatus": "RUNNING", "containers": [{ "name": "silent" }] },
        ]});
        let service = |container_port| Service {
            cluster: "c".into(),
            name: "web".into(),
            path: "/x".into(),
            container_port,
            health: None,
            elsewhere: None,
        };
        let found = |port| of_tasks(&described, &service(port)).unwrap().iter().map(|t| t.uri.to_string()).collect::<Vec<_>>();
        assert_eq!(found(Some(8080)), ["http://127.0.0.1:32768/x", "http://10.77.0.5:8080/x"]);
        assert_eq!(found(None), ["http://127.0.0.1:1/x", "http://10.77.0.5:80/x"]);
    }
    #[test]
    fn from_elsewhere_a_task_is_asked_at_its_own_address() {
        let binding = json!({ "bindIP": "0.0.0.0", "containerPort": 8080, "hostPort": 32768, "protocol": "tcp" });
        let with = |interfaces: Value| {
            let container = json!({ "networkBindings": [binding], "networkInterfaces": interfaces });
            json!({ "containers": [container] })
        };
        let own = json!([{ "privateIpv4Address": "172.30.0.9" }]);
        let service = |elsewhere: Option<&str>, container_port| Service {
            cluster: "c".into(),
            name: "web".into(),
            path: "/".into(),
            container_port,
            health: None,
            elsewhere: elsewhere.map(str::to_owned),
        };
        for (interfaces, elsewhere, port, expected) in [
            (own.clone(), Some("beaufort"), None, "172.30.0.9:8080"),
            (own.clone(), Some("beaufort"), Some(9000), "172.30.0.9:9000"),
            (own, None, None, "127.0.0.1:32768"),
            (json!([]), Some("beaufort"), None, "beaufort:32768"),
        ] {
            assert_eq!(address(&with(interfaces), &service(elsewhere, port)).as_deref(), Some(expected));
        }
    }
}
