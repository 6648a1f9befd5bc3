//! awsvpc: a bridge network per cluster, a pause container with its own address per task, and a few warm ones, as a network namespace
//! is half the price of a start. A warm pause is given to a task by renaming it, which survives a restart of the agent.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bollard::models::{
    ContainerCreateBody, EndpointIpamConfig, EndpointSettings, HostConfig, HostConfigLogConfig, Ipam, IpamConfig,
    NetworkCreateRequest, NetworkingConfig, RestartPolicy, RestartPolicyNameEnum,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, InspectNetworkOptions, ListContainersOptionsBuilder,
    ListNetworksOptionsBuilder, RemoveContainerOptionsBuilder, RenameContainerOptionsBuilder, StartContainerOptions,
};
use tokio::sync::Notify;

use super::connect::{CREATE, NETWORK, START, failed, failure, status};
use super::{Shared, images, labels, observe};
use crate::agent::engine::{EngineError, RuntimeId, Started};
use crate::model::TaskId;

/// 4,094 addresses a cluster and host.
const PREFIX: u32 = 20;
const SUBNETS: u32 = 256;
const ADDRESS_ATTEMPTS: usize = 16;
const REFILL_PAUSE: Duration = Duration::from_millis(250);

#[derive(Default)]
pub struct Pool {
    networks: tokio::sync::Mutex<BTreeMap<String, Arc<Network>>>,
    warm: Mutex<BTreeMap<String, VecDeque<RuntimeId>>>,
    /// Given to tasks, renamed or about to be: a list made just before still shows them as warm.
    taken: Mutex<BTreeSet<RuntimeId>>,
    wanted: Notify,
    /// Starts under way: the refill waits for none.
    pub starts: AtomicUsize,
    serial: AtomicUsize,
    image: tokio::sync::OnceCell<String>,
}

struct Network {
    name: String,
    base: u32,
    addresses: Mutex<Addresses>,
}

#[derive(Default)]
struct Addresses {
    used: BTreeSet<u32>,
    /// Addresses go round, so that a freed one rests a while.
    next: u32,
}

impl Pool {
    /// A warm pause has ended.
    pub fn lost(&self, id: &str) {
        lock(&self.warm).values_mut().for_each(|warm| warm.retain(|w| w != id));
        self.wanted.notify_one();
    }
    /// What was warm may be dead now: the refill looks again.
    pub fn engine_came_back(&self) {
        lock(&self.warm).values_mut().for_each(VecDeque::clear);
        self.wanted.notify_one();
    }
    fn take(&self, cluster: &str) -> Option<RuntimeId> {
        let mut warm = lock(&self.warm);
        let id = warm.entry(cluster.to_owned()).or_default().pop_front()?;
        // Under the lock of `warm`, so that it is always in one of the two.
        lock(&self.taken).insert(id.clone());
        Some(id)
    }
    fn is_in_use(&self, cluster: &str, id: &RuntimeId) -> bool {
        let warm = lock(&self.warm);
        warm.get(cluster).is_some_and(|warm| warm.contains(id)) || lock(&self.taken).contains(id)
    }
    pub fn removed(&self, id: &str) {
        lock(&self.taken).remove(id);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running pause for the task: the one it has, a warm one, or a new one.
pub async fn pause(shared: &Arc<Shared>, task: &TaskId, cluster: &str) -> Result<(RuntimeId, Started), EngineError> {
    let name = labels::pause_name(&shared.config.installation, task);
    if let Some(found) = running_or_gone(shared, &name).await? {
        return Ok(found);
    }
    while let Some(warm) = shared.pool.take(cluster) {
        shared.pool.wanted.notify_one();
        let options = RenameContainerOptionsBuilder::default().name(&name).build();
        match shared.docker.rename_container(&warm, options).await {
            Ok(()) => {}
            Err(error) if status(&error).is_some() => continue,
            Err(error) => return Err(failed(START)(error)),
        }
        let Some(started) = running_or_gone(shared, &warm).await? else { continue };
        return Ok(started);
    }
    let new = start_new(shared, cluster, &name).await?;
    // Only now: of a cluster's first task, the refill would not know the network before.
    shared.pool.wanted.notify_one();
    let found = running_or_gone(shared, &new).await?;
    found.ok_or_else(|| failure(START, "the pause container ended at once"))
}

/// One that does not run any more has lost its network: it is removed.
async fn running_or_gone(shared: &Shared, name: &str) -> Result<Option<(RuntimeId, Started)>, EngineError> {
    let found = match shared.docker.inspect_container(name, None::<InspectContainerOptions>).await {
        Ok(found) => found,
        Err(error) if status(&error) == Some(404) => return Ok(None),
        Err(error) => return Err(failed(START)(error)),
    };
    let id = found.id.clone().unwrap_or_else(|| name.to_owned());
    if !observe::is_running(&found) {
        remove(shared, &id).await?;
        return Ok(None);
    }
    let at = observe::time(found.state.as_ref().and_then(|s| s.started_at.as_deref()));
    let at = at.unwrap_or_else(|| shared.config.clock.now());
    Ok(Some((id, Started { at, bindings: Vec::new(), address: observe::address(&found), network: None })))
}

async fn remove(shared: &Shared, id: &str) -> Result<(), EngineError> {
    let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
    match shared.docker.remove_container(id, Some(options)).await {
        Err(error) if !matches!(status(&error), Some(404 | 409)) => Err(failed(NETWORK)(error)),
        _ => Ok(()),
    }
}

async fn start_new(shared: &Arc<Shared>, cluster: &str, name: &str) -> Result<RuntimeId, EngineError> {
    let image = image(shared).await?;
    let network = network(shared, cluster).await?;
    let mut last = failure(NETWORK, "no address is left");
    for _ in 0..ADDRESS_ATTEMPTS {
        let address = network.allocate().ok_or_else(|| failure(NETWORK, format!("network {} is full", network.name)))?;
        match try_start(shared, cluster, name, &image, &network, address).await {
            Ok(id) => return Ok(id),
            // Somebody else's container on our network, or one that Docker still holds: the next one.
            Err(error) if error.text.contains("ddress already in use") => last = error,
            Err(error) => {
                network.release(address);
                return Err(error);
            }
        }
    }
    Err(last)
}

async fn try_start(
    shared: &Arc<Shared>,
    cluster: &str,
    name: &str,
    image: &str,
    network: &Network,
    address: Ipv4Addr,
) -> Result<RuntimeId, EngineError> {
    let options = CreateContainerOptionsBuilder::default().name(name).build();
    let created = match shared.docker.create_container(Some(options), body(shared, cluster, image, network, address)).await {
        Ok(created) => created.id,
        Err(error) => return Err(failed(CREATE)(error)),
    };
    let _permit = shared.own_network_starts.acquire().await;
    match shared.docker.start_container(&created, None::<StartContainerOptions>).await {
        Ok(()) => Ok(created),
        Err(error) => {
            remove(shared, &created).await?;
            Err(failed(START)(error))
        }
    }
}

fn body(shared: &Shared, cluster: &str, image: &str, network: &Network, address: Ipv4Addr) -> ContainerCreateBody {
    let mark = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let endpoint = EndpointSettings {
        ipam_config: Some(EndpointIpamConfig { ipv4_address: Some(address.to_string()), ..Default::default() }),
        ..EndpointSettings::default()
    };
    let [a, b, c, d] = address.octets();
    ContainerCreateBody {
        image: Some(image.to_owned()),
        entrypoint: Some(vec!["/beaufort".to_owned()]),
        cmd: Some(vec!["pause".to_owned()]),
        // As EC2 names the interface of a task.
        hostname: Some(format!("ip-{a}-{b}-{c}-{d}")),
        labels: Some(HashMap::from([
            mark(labels::INSTALLATION, &shared.config.installation),
            mark(labels::CONTAINER, labels::PAUSE),
            mark(labels::CLUSTER, cluster),
        ])),
        host_config: Some(HostConfig {
            network_mode: Some(network.name.clone()),
            // Whoever has ipc mode `task` joins it.
            ipc_mode: Some("shareable".to_owned()),
            cap_drop: Some(vec!["ALL".to_owned()]),
            readonly_rootfs: Some(true),
            security_opt: Some(vec!["no-new-privileges".to_owned()]),
            log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
            // A restarted pause would have a new network that the task's containers never see.
            restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
            ..HostConfig::default()
        }),
        networking_config: Some(NetworkingConfig { endpoints_config: Some(HashMap::from([(network.name.clone(), endpoint)])) }),
        ..ContainerCreateBody::default()
    }
}

async fn image(shared: &Shared) -> Result<String, EngineError> {
    let config = &shared.config;
    if let Some(image) = &config.pause_image {
        return Ok(image.clone());
    }
    let make = || async {
        let reference = format!("beaufort/pause:{}", images::binary_hash(&config.binary).await?);
        images::ensure_own(&shared.docker, &config.installation, &reference, &config.binary, &["/beaufort"], &["pause"]).await?;
        Ok::<String, EngineError>(reference)
    };
    let reference = shared.pool.image.get_or_try_init(make).await?.clone();
    // Somebody may have pruned it since.
    if shared.docker.inspect_image(&reference).await.is_err_and(|e| status(&e) == Some(404)) {
        images::ensure_own(&shared.docker, &config.installation, &reference, &config.binary, &["/beaufort"], &["pause"]).await?;
    }
    Ok(reference)
}

async fn network(shared: &Shared, cluster: &str) -> Result<Arc<Network>, EngineError> {
    // Held while Docker works, so that a cluster's network is made once.
    let mut networks = shared.pool.networks.lock().await;
    if let Some(network) = networks.get(cluster) {
        return Ok(network.clone());
    }
    let name = labels::network_name(&shared.config.installation, cluster);
    let network = match existing(shared, &name).await? {
        Some(network) => network,
        None => make_network(shared, cluster, &name).await?,
    };
    let network = Arc::new(network);
    networks.insert(cluster.to_owned(), network.clone());
    Ok(network)
}

async fn existing(shared: &Shared, name: &str) -> Result<Option<Network>, EngineError> {
    let found = match shared.docker.inspect_network(name, None::<InspectNetworkOptions>).await {
        Ok(found) => found,
        Err(error) if status(&error) == Some(404) => return Ok(None),
        Err(error) => return Err(failed(NETWORK)(error)),
    };
    let subnet = found.ipam.and_then(|i| i.config).and_then(|c| c.into_iter().next()).and_then(|c| c.subnet);
    let base = subnet.as_deref().and_then(|s| s.split_once('/')?.0.parse::<Ipv4Addr>().ok());
    let base = base.ok_or_else(|| failure(NETWORK, format!("network {name} has no IPv4 subnet")))?;
    let taken = found
        .containers
        .unwrap_or_default()
        .into_values()
        .filter_map(|c| c.ipv4_address?.split('/').next()?.parse::<Ipv4Addr>().ok().map(u32::from));
    let used = taken.collect();
    Ok(Some(Network { name: name.to_owned(), base: base.into(), addresses: Mutex::new(Addresses { used, next: 0 }) }))
}

async fn make_network(shared: &Shared, cluster: &str, name: &str) -> Result<Network, EngineError> {
    let first = u32::from(shared.config.network_base);
    let start = super::jsonfile::hash(name.as_bytes()) as u32;
    let mut last = failure(NETWORK, "no subnet is free");
    for k in 0..SUBNETS {
        // Another installation's networks may be there: begin somewhere of our own and go round.
        let base = Ipv4Addr::from(first.wrapping_add((start.wrapping_add(k) % SUBNETS) << (32 - PREFIX)));
        let request = NetworkCreateRequest {
            name: name.to_owned(),
            driver: Some("bridge".to_owned()),
            ipam: Some(Ipam {
                config: Some(vec![IpamConfig { subnet: Some(format!("{base}/{PREFIX}")), ..Default::default() }]),
                ..Default::default()
            }),
            labels: Some(HashMap::from([
                (labels::INSTALLATION.to_owned(), shared.config.installation.clone()),
                (labels::CLUSTER.to_owned(), cluster.to_owned()),
            ])),
            ..NetworkCreateRequest::default()
        };
        match shared.docker.create_network(request).await {
            Ok(_) => return Ok(Network { name: name.to_owned(), base: base.into(), addresses: Mutex::default() }),
            Err(error) if status(&error).is_some() && error.to_string().contains("overlaps") => last = failed(NETWORK)(error),
            Err(error) => return Err(failed(NETWORK)(error)),
        }
    }
    Err(last)
}

impl Network {
    /// The first address is the gateway's, the last the broadcast's.
    fn allocate(&self) -> Option<Ipv4Addr> {
        let count = (1 << (32 - PREFIX)) - 3;
        let mut addresses = lock(&self.addresses);
        for _ in 0..count {
            let address = self.base + 2 + addresses.next;
            addresses.next = (addresses.next + 1) % count;
            if addresses.used.insert(address) {
                return Some(Ipv4Addr::from(address));
            }
        }
        None
    }
    fn release(&self, address: Ipv4Addr) {
        lock(&self.addresses).used.remove(&u32::from(address));
    }
}

/// A pause was removed: its address is free again.
pub async fn release(shared: &Shared, cluster: &str, address: &str) {
    if let Ok(address) = address.parse()
        && let Some(network) = shared.pool.networks.lock().await.get(cluster)
    {
        network.release(address);
    }
}

/// Keeps the pools of the clusters in use filled, at low priority: one at a time, and only while nothing else starts.
pub async fn refill(shared: Arc<Shared>) {
    let size = shared.config.pause_pool;
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = shared.pool.wanted.notified() => {}
        }
        let clusters: Vec<String> = shared.pool.networks.lock().await.keys().cloned().collect();
        for cluster in clusters {
            if let Err(error) = refill_cluster(&shared, &cluster, size).await {
                tracing::warn!(cluster, %error, "cannot keep warm pause containers");
            }
        }
    }
}

async fn refill_cluster(shared: &Arc<Shared>, cluster: &str, size: usize) -> Result<(), EngineError> {
    adopt_or_remove_left_over(shared, cluster, size).await?;
    while !shared.stop.is_cancelled() && lock(&shared.pool.warm).get(cluster).map_or(0, VecDeque::len) < size {
        tokio::select! {
            () = shared.stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(REFILL_PAUSE) => {}
        }
        if shared.pool.starts.load(Ordering::Relaxed) > 0 {
            continue;
        }
        let serial = shared.pool.serial.fetch_add(1, Ordering::Relaxed);
        let unique = format!("{:x}-{serial}", shared.config.clock.now().0);
        let name = labels::pool_name(&shared.config.installation, &unique);
        let warm = start_new(shared, cluster, &name).await?;
        lock(&shared.pool.warm).entry(cluster.to_owned()).or_default().push_back(warm);
    }
    Ok(())
}

/// Warm pauses of an agent that ran before are ours to use; dead ones go.
async fn adopt_or_remove_left_over(shared: &Arc<Shared>, cluster: &str, size: usize) -> Result<(), EngineError> {
    for (id, name) in pool_containers(shared, Some(cluster)).await? {
        let known = shared.pool.is_in_use(cluster, &id);
        let wanted = lock(&shared.pool.warm).get(cluster).map_or(0, VecDeque::len) < size;
        if known {
            continue;
        }
        match running_or_gone(shared, &id).await? {
            Some(_) if wanted => lock(&shared.pool.warm).entry(cluster.to_owned()).or_default().push_back(id),
            _ => {
                tracing::debug!(name, "removing a warm pause container that nobody needs");
                remove(shared, &id).await?;
            }
        }
    }
    Ok(())
}

/// Pauses that belong to no task, by id and name.
async fn pool_containers(shared: &Shared, cluster: Option<&str>) -> Result<Vec<(RuntimeId, String)>, EngineError> {
    let mut marks = vec![
        format!("{}={}", labels::INSTALLATION, shared.config.installation),
        format!("{}={}", labels::CONTAINER, labels::PAUSE),
    ];
    marks.extend(cluster.map(|c| format!("{}={c}", labels::CLUSTER)));
    let options = ListContainersOptionsBuilder::default().all(true).filters(&HashMap::from([("label", marks)])).build();
    let found = shared.docker.list_containers(Some(options)).await.map_err(failed(NETWORK))?;
    let prefix = format!("/{}", labels::pool_name(&shared.config.installation, ""));
    let named = found.into_iter().filter_map(|c| Some((c.id?, c.names?.into_iter().next()?)));
    Ok(named.filter(|(_, name)| name.starts_with(&prefix)).collect())
}

/// Removes the warm pauses and every network of the installation that no task uses any more.
pub async fn shutdown(shared: &Shared) -> Result<(), EngineError> {
    lock(&shared.pool.warm).clear();
    for (id, _) in pool_containers(shared, None).await? {
        remove(shared, &id).await?;
    }
    let mark = format!("{}={}", labels::INSTALLATION, shared.config.installation);
    let options = ListNetworksOptionsBuilder::default().filters(&HashMap::from([("label", vec![mark])])).build();
    let mut networks = shared.pool.networks.lock().await;
    networks.clear();
    for network in shared.docker.list_networks(Some(options)).await.map_err(failed(NETWORK))? {
        let Some(name) = network.name else { continue };
        match shared.docker.remove_network(&name).await {
            // 403: a task is still on it.
            Err(error) if !matches!(status(&error), Some(403 | 404)) => return Err(failed(NETWORK)(error)),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_go_round_and_are_never_given_twice() {
        let base = Ipv4Addr::new(10, 77, 16, 0);
        let network = Network { name: "n".into(), base: base.into(), addresses: Mutex::default() };
        let first = network.allocate().unwrap();
        assert_eq!(first, Ipv4Addr::new(10, 77, 16, 2));
        network.release(first);
        assert_eq!(network.allocate(), Some(Ipv4Addr::new(10, 77, 16, 3)), "a freed one rests");
        let rest = std::iter::from_fn(|| network.allocate()).count();
        assert_eq!(rest, 4092);
        assert!(!lock(&network.addresses).used.contains(&u32::from(Ipv4Addr::new(10, 77, 31, 255))), "broadcast");
    }
}
