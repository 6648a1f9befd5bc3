//! `beaufort agent`: runs the tasks of a control plane elsewhere on this host's Docker.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{IpAddr, ToSocketAddrs, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use nix::fcntl::{Flock, FlockArg};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::client::Client;
use super::failure::Failure;
use super::server::{HostOptions, LogFormat, LogOptions, default_data_dir, reach_docker, read_token};
use super::signals::stop_on_signal;
use crate::agent::config::AgentConfig;
use crate::agent::docker::DockerConfig;
use crate::agent::link;
use crate::agent::runtime::{self, Ended};
use crate::clock::SystemClock;
use crate::ids::IdSource;
use crate::model::InstanceId;
use crate::model::arn::Home;
use crate::observe::otlp;

const EXAMPLES: &str = "\
Examples:
  beaufort agent --join http://127.0.0.1:4566 --token-file token
  beaufort agent --join http://127.0.0.1:4566 --token-file token --cluster gpu --zone b --attribute gpu=a100

The server listens on loopback only: bring it here by a tunnel, for example
  ssh -N -L 4566:127.0.0.1:4566 server

Tasks run on while the server is away or this agent is restarted. The data directory holds the agent's identity: two agents on one
host need two of them, and never touch each other's containers.";

/// Run the agent of one more Docker host: what ECS calls a container instance.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct AgentArgs {
    /// The server to join
    #[arg(long, env = "BEAUFORT_JOIN", value_name = "URL")]
    pub join: String,
    /// The server's agent token; other users of this machine may see it, so prefer --token-file
    #[arg(long, env = "BEAUFORT_AGENT_TOKEN", hide_env_values = true, value_name = "TOKEN", conflicts_with = "token_file")]
    pub token: Option<String>,
    /// A file that holds the token
    #[arg(long, env = "BEAUFORT_AGENT_TOKEN_FILE", value_name = "FILE", required_unless_present = "token")]
    pub token_file: Option<PathBuf>,
    /// The cluster to register into
    #[arg(long, env = "BEAUFORT_CLUSTER", default_value = "default")]
    pub cluster: String,
    #[command(flatten)]
    pub host: HostOptions,
    /// Where tasks' host ports can be reached from other hosts [default: the address from which this host reaches the server]
    #[arg(long, env = "BEAUFORT_HOST_ADDRESS", value_name = "IP")]
    pub host_address: Option<IpAddr>,
    /// Where to keep this agent's identity [default: the directory agent in that of `beaufort up`]
    #[arg(long, env = "BEAUFORT_AGENT_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    #[command(flatten)]
    pub log: LogOptions,
}

/// What the agent must know of its server before it can run anything.
#[derive(Debug, Deserialize)]
struct Server {
    region: String,
    account: String,
}

/// Between two tries to ask a server that is away.
const ASK_AGAIN: Duration = Duration::from_millis(500);

pub async fn run(args: AgentArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.join)?;
    let token = read_token("agent", args.token.as_deref(), args.token_file.as_ref())?.context("no token")?;
    let dir = match &args.data_dir {
        Some(dir) => dir.clone(),
        None => default_data_dir()?.join("agent"),
    };
    let ids = IdSource::random();
    let identity = Identity::open(&dir, || ids.instance().to_string())?;
    let telemetry = otlp::init(args.log.log_format == LogFormat::Json, false)?;
    let stop = stop_on_signal()?;
    tracing::info!(agent = identity.id, server = client.endpoint(), cluster = args.cluster, "starting");
    let ended = serve(&args, &client, &token, &identity, ids, &stop).await;
    tokio::task::spawn_blocking(move || telemetry.shutdown()).await?;
    match ended? {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(Ended::Refused(why)) => {
            let next = "put right what the server says, then start the agent again";
            Err(Failure::new(format!("{} refuses this agent: {why}", client.endpoint()), next).into())
        }
        Err(ended) => Err(ended.into()),
    }
}

async fn serve(
    args: &AgentArgs,
    client: &Client,
    token: &str,
    identity: &Identity,
    ids: crate::ids::SharedIds,
    stop: &CancellationToken,
) -> anyhow::Result<Result<(), Ended>> {
    let Some(server) = ask_server(client, stop).await else { return Ok(Ok(())) };
    let host_address = match args.host_address {
        Some(address) => address,
        None => address_towards(&args.join).unwrap_or(IpAddr::from([127, 0, 0, 1])),
    };
    let clock = Arc::new(SystemClock);
    let docker = DockerConfig {
        host_address: host_address.to_string(),
        ..DockerConfig::new(&identity.id, Home::new(&server.region, &server.account), clock.clone())
    };
    let Some(engine) = reach_docker(args.host.dress(docker), stop).await? else { return Ok(Ok(())) };
    let process = ids.instance().to_string();
    let link = link::connect_forever(&args.join, token, Arc::new(move || ids.u64()), stop.clone());
    let config = AgentConfig {
        zone: args.host.zone.clone(),
        attributes: args.host.attributes(),
        otlp_endpoint: args.host.otlp_endpoint(),
        instance: Some(InstanceId::new(&identity.id)),
        process,
        ..AgentConfig::new(args.cluster.as_str())
    };
    Ok(runtime::run(engine, link, clock, config, stop.clone()).await)
}

/// Region and account stand in every ARN that containers see. None when `stop` comes first.
async fn ask_server(client: &Client, stop: &CancellationToken) -> Option<Server> {
    let mut told = false;
    loop {
        let asked = tokio::select! {
            () = stop.cancelled() => return None,
            asked = client.get_any("/health", &[]) => asked,
        };
        // A server that is starting (503) says it too.
        match asked.and_then(|(_, health)| Ok(serde_json::from_value(health)?)) {
            Ok(server) => return Some(server),
            Err(error) if !told => {
                told = true;
                tracing::warn!(%error, "the server cannot be asked yet; trying on");
            }
            Err(_) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return None,
            () = tokio::time::sleep(ASK_AGAIN) => {}
        }
    }
}

/// Our own address on the way to the server. Connecting a UDP socket sends nothing.
fn address_towards(url: &str) -> Option<IpAddr> {
    let uri: http::Uri = url.parse().ok()?;
    let server = (uri.host()?, uri.port_u16().unwrap_or(80)).to_socket_addrs().ok()?.next()?;
    let socket = UdpSocket::bind(if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).ok()?;
    socket.connect(server).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Who this agent is: 32 hexadecimal digits that outlive it. Held by a lock, as two agents with one identity would take each other's
/// containers for their own.
struct Identity {
    id: String,
    _lock: Flock<File>,
}

impl Identity {
    fn open(dir: &Path, new: impl FnOnce() -> String) -> anyhow::Result<Identity> {
        let shown = dir.display();
        std::fs::create_dir_all(dir).with_context(|| format!("{shown} cannot be made; choose another with --data-dir"))?;
        let path = dir.join("agent-id");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file =
            file.with_context(|| format!("{} cannot be opened; choose another directory with --data-dir", path.display()))?;
        let mut lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| {
            Failure::new(format!("another agent uses {shown}"), "end it, or give this one a directory of its own with --data-dir")
        })?;
        let mut id = String::new();
        lock.read_to_string(&mut id).with_context(|| format!("{} cannot be read", path.display()))?;
        let mut id = id.trim().to_owned();
        if id.is_empty() {
            id = new();
            lock.seek(SeekFrom::Start(0))?;
            lock.write_all(format!("{id}\n").as_bytes())?;
            // Containers are marked with it from now on: it must not be lost with the power.
            lock.sync_all()?;
            File::open(dir)?.sync_all()?;
        }
        if id.len() != 32 || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
            bail!(
                "{} holds no identity (32 hexadecimal digits). Restore it, or remove it to register a new instance",
                path.display()
            );
        }
        Ok(Identity { id, _lock: lock })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_stays_and_belongs_to_one() {
        let dir = std::env::temp_dir().join(format!("beaufort-agent-{}", std::process::id()));
        let new = || "0123456789abcdef0123456789abcdef".to_owned();
        let first = Identity::open(&dir, new).unwrap();
        let second = Identity::open(&dir, || unreachable!("there is one already")).err().unwrap();
        assert!(second.to_string().starts_with("another agent uses"), "{second}");
        drop(first);
        assert_eq!(Identity::open(&dir, || unreachable!("there is one already")).unwrap().id, new());
        std::fs::write(dir.join("agent-id"), "garbage").unwrap();
        let garbled = Identity::open(&dir, new).err().unwrap();
        assert!(garbled.to_string().contains("holds no identity"), "{garbled}");
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn loopback_is_reached_from_loopback() {
        assert_eq!(address_towards("http://127.0.0.1:4566"), Some(IpAddr::from([127, 0, 0, 1])));
        assert_eq!(address_towards("nonsense"), None);
    }
}
