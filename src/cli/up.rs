//! `beaufort up` and `beaufort serve`: a whole Beaufort, with or without an agent in the same process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::builder::FalseyValueParser;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio_util::sync::CancellationToken;

use super::datadir;
use super::screen::{self, Ink, Paint};
use super::server::{HostOptions, LogFormat, LogOptions, TokenOptions, WebhookOptions, default_data_dir, reach_docker};
use super::signals::stop_on_signal;
use crate::agent::docker::{DockerConfig, DockerEngine};
use crate::agent::engine::{Engine, ObservedState};
use crate::app::{self, Config, Core, Running};
use crate::export;
use crate::observe::otlp::{self, Telemetry};

/// How long an end waits for the containers of stopped tasks to be removed.
const REMOVE_WITHIN: Duration = Duration::from_secs(10);
/// Below this it is worth a word.
const FEW_DESCRIPTORS: u64 = 8_192;

/// The options of every control plane.
#[derive(Clone, Debug, clap::Args)]
pub struct ServerOptions {
    /// Where to listen; loopback only, unless --allow-unauthenticated
    #[arg(long, env = "BEAUFORT_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:4566")]
    pub listen: SocketAddr,
    /// Where to keep state, metrics and logs [default: $XDG_DATA_HOME/beaufort, ~/.local/share/beaufort, or /var/lib/beaufort for root]
    #[arg(long, env = "BEAUFORT_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The cluster that is there from the start
    #[arg(long, env = "BEAUFORT_CLUSTER", default_value = "default")]
    pub cluster: String,
    /// The AWS region in ARNs
    #[arg(long, env = "BEAUFORT_REGION", default_value = "us-east-1")]
    pub region: String,
    /// The AWS account in ARNs
    #[arg(long, env = "BEAUFORT_ACCOUNT_ID", value_name = "ID", default_value = "000000000000")]
    pub account_id: String,
    /// Offer POST /api/reset, and keep everything in memory unless --data-dir is given too
    #[arg(long, env = "BEAUFORT_EPHEMERAL", value_parser = FalseyValueParser::new())]
    pub ephemeral: bool,
    #[command(flatten)]
    pub token: TokenOptions,
    #[command(flatten)]
    pub webhook: WebhookOptions,
    /// Let --listen be more than loopback, though clients are not authenticated: for a closed container network
    #[arg(long, env = "BEAUFORT_ALLOW_UNAUTHENTICATED", value_parser = FalseyValueParser::new())]
    pub allow_unauthenticated: bool,
    #[command(flatten)]
    pub log: LogOptions,
}

const UP_EXAMPLES: &str = "\
Examples:
  beaufort up
  beaufort up --ephemeral --listen 127.0.0.1:0      for a test suite: in memory, a free port, nothing left behind
  beaufort up --zone a --attribute disk=ssd         this host as placement constraints see it
  beaufort up --task-network shop                   tasks join the Docker network shop, so that its members reach them
  beaufort up --agent-token-file token              let agents of other hosts join (beaufort agent)

Then, in another terminal:
  export AWS_ENDPOINT_URL=http://127.0.0.1:4566 AWS_DEFAULT_REGION=us-east-1 AWS_ACCESS_KEY_ID=x AWS_SECRET_ACCESS_KEY=x
  aws ecs list-clusters

Traces, metrics and logs of Beaufort itself leave by OTLP where OTEL_EXPORTER_OTLP_ENDPOINT points to.
Tasks run on when Beaufort ends, and it takes them up again when it starts.";

/// Run everything here: the control plane and an agent on this machine's Docker.
///
/// The AWS APIs (ECS, CloudWatch, CloudWatch Logs, Application Auto Scaling) are served at once; tasks start as soon as Docker answers.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = UP_EXAMPLES)]
pub struct UpArgs {
    #[command(flatten)]
    pub server: ServerOptions,
    #[command(flatten)]
    pub host: HostOptions,
    /// Stop every task before ending; in memory this is always so
    #[arg(long, env = "BEAUFORT_STOP_TASKS_ON_EXIT", value_parser = FalseyValueParser::new())]
    pub stop_tasks_on_exit: bool,
}

const SERVE_EXAMPLES: &str = "\
Examples:
  head -c 24 /dev/urandom | base64 > token
  beaufort serve --agent-token-file token
  ssh -R 4566:127.0.0.1:4566 host beaufort agent --join http://127.0.0.1:4566 --token-file token";

/// Run the control plane alone; agents join it from their hosts.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = SERVE_EXAMPLES)]
pub struct ServeArgs {
    #[command(flatten)]
    pub server: ServerOptions,
}

impl ServerOptions {
    fn in_memory(&self) -> bool {
        self.ephemeral && self.data_dir.is_none()
    }

    pub fn config(&self) -> anyhow::Result<Config> {
        let data_dir = match &self.data_dir {
            Some(dir) => Some(dir.clone()),
            None if self.ephemeral => None,
            None => Some(default_data_dir()?),
        };
        Ok(Config {
            listen: self.listen,
            data_dir,
            cluster: self.cluster.clone(),
            region: self.region.clone(),
            account: self.account_id.clone(),
            ephemeral: self.ephemeral,
            agent_token: self.token.token()?,
            webhook_token: self.webhook.token()?,
            allow_unauthenticated: self.allow_unauthenticated,
            ..Config::default()
        })
    }
}

impl UpArgs {
    pub fn config(&self) -> anyhow::Result<Config> {
        Ok(Config {
            // State in memory is gone after the end: nothing would know its tasks any more.
            stop_tasks_on_exit: self.stop_tasks_on_exit || self.server.in_memory(),
            zone: self.host.zone.clone(),
            attributes: self.host.attributes(),
            task_otlp_endpoint: self.host.otlp_endpoint(),
            ..self.server.config()?
        })
    }
}

pub async fn up(args: UpArgs) -> anyhow::Result<ExitCode> {
    let config = args.config()?;
    config.check()?;
    let (mut running, telemetry, stop) = begin(config, &args.server, true).await?;
    let docker = args.host.dress(docker_config(&running.core));
    let engine = match reach_docker(docker, &stop).await {
        Ok(engine) => engine,
        Err(error) => {
            finish(running, None, telemetry).await?;
            return Err(error.into());
        }
    };
    if let Some(engine) = &engine {
        running.start_agent(engine.clone());
    }
    stop.cancelled().await;
    finish(running, engine, telemetry).await
}

pub async fn serve(args: ServeArgs) -> anyhow::Result<ExitCode> {
    let config = args.server.config()?;
    config.check()?;
    let (running, telemetry, stop) = begin(config, &args.server, false).await?;
    if running.core.config.agent_token.is_none() {
        tracing::warn!("no agent can join, so no task can run: give --agent-token-file");
    }
    stop.cancelled().await;
    finish(running, None, telemetry).await
}

fn docker_config(core: &Core) -> DockerConfig {
    DockerConfig::new(core.installation(), core.app.home.clone(), core.app.clock.clone())
}

async fn begin(
    config: Config,
    options: &ServerOptions,
    local_agent: bool,
) -> anyhow::Result<(Running, Telemetry, CancellationToken)> {
    let json = options.log.log_format == LogFormat::Json;
    let telemetry = otlp::init(json, false)?;
    raise_descriptors();
    // Before the stores are opened: from here on an end is an orderly one.
    let stop = stop_on_signal()?;
    let dir = config.data_dir.clone();
    if let Some(dir) = &dir {
        datadir::check(dir)?;
    }
    let core = Core::open(config, local_agent).await.map_err(|error| match &dir {
        Some(dir) => datadir::explain(dir, error),
        None => error,
    })?;
    let running = app::start(core).await?;
    if !running.core.config.listen.ip().is_loopback() {
        tracing::warn!(address = %running.address, "whoever reaches this address can run containers here: clients are not authenticated");
    }
    let app = running.core.app.clone();
    telemetry.export_gauges(export::otlp::GAUGES, move || export::otlp::gauges(&app));
    if json {
        tracing::info!(address = %running.address, installation = running.core.installation(), "listening");
    } else {
        screen::say(&greeting(running.address, &running.core.config, local_agent, Paint::stdout()))?;
    }
    Ok((running, telemetry, stop))
}

/// Every agent and every client takes a file descriptor, and the soft limit is often 1,024 where the hard one is far above.
fn raise_descriptors() {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    let limit = if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() { hard } else { soft };
    if limit < FEW_DESCRIPTORS {
        tracing::warn!(
            limit,
            "so many files and connections may be open at once: more agents and clients than that are turned away; raise it with \
             ulimit -n or LimitNOFILE="
        );
    }
}

fn greeting(address: SocketAddr, config: &Config, local_agent: bool, paint: Paint) -> String {
    let url = format!("http://{address}");
    let data = config.data_dir.as_ref().map_or_else(|| "in memory, gone at the end".to_owned(), |d| d.display().to_string());
    let mut lines = vec![
        ("endpoint", url.clone()),
        (
            "aws-cli",
            format!(
                "export AWS_ENDPOINT_URL={url} AWS_DEFAULT_REGION={} AWS_ACCESS_KEY_ID=x AWS_SECRET_ACCESS_KEY=x",
                config.region
            ),
        ),
        ("metrics", format!("{url}/metrics")),
        ("data", data),
    ];
    if address.port() != 4566 {
        lines.insert(1, ("beaufort", format!("export BEAUFORT_ENDPOINT={url}")));
    }
    if !local_agent {
        lines.push(("agents", format!("beaufort agent --join {url} --token-file FILE")));
    }
    let name = format!("Beaufort {} serves cluster {} in {}", env!("CARGO_PKG_VERSION"), config.cluster, config.region);
    let mut text = format!("{}\n", paint.ink(Ink::Strong, &name));
    for (what, value) in lines {
        text.push_str(&format!("  {} {value}\n", paint.ink(Ink::Faint, &format!("{what:<9}"))));
    }
    text
}

async fn finish(running: Running, engine: Option<Arc<DockerEngine>>, telemetry: Telemetry) -> anyhow::Result<ExitCode> {
    let stop_tasks = running.core.config.stop_tasks_on_exit;
    if stop_tasks
        && engine.is_some()
        && let Err(error) = running.stop_tasks().await
    {
        tracing::warn!(%error, "not every task was stopped");
    }
    if let Some(engine) = engine.as_ref().filter(|_| stop_tasks) {
        removed(engine).await;
    }
    running.stop().await;
    if let Some(engine) = engine.filter(|_| stop_tasks)
        && let Err(error) = engine.shutdown_cleanup().await
    {
        tracing::warn!(%error, "something of ours may be left in Docker");
    }
    tracing::info!("ended");
    // The exporters wait on threads of their own.
    tokio::task::spawn_blocking(move || telemetry.shutdown()).await?;
    Ok(ExitCode::SUCCESS)
}

/// A task is STOPPED before its containers are removed, which the agent does once their last lines are durable: it must not be ended
/// in between, as with state in memory nobody would know of them afterwards.
async fn removed(engine: &DockerEngine) {
    let all_gone = async {
        while engine.list().await.is_ok_and(|all| all.iter().any(|c| c.state != ObservedState::Running)) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    if tokio::time::timeout(REMOVE_WITHIN, all_gone).await.is_err() {
        tracing::warn!("some containers that have ended are still there; docker rm removes them");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greeting_says_how_to_go_on() {
        let config = Config { data_dir: Some(PathBuf::from("/d")), ..Config::default() };
        let text = greeting(SocketAddr::from(([127, 0, 0, 1], 4566)), &config, true, Paint::off());
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(
            text,
            format!(
                "Beaufort {version} serves cluster default in us-east-1\n\
                 \x20 endpoint  http://127.0.0.1:4566\n\
                 \x20 aws-cli   export AWS_ENDPOINT_URL=http://127.0.0.1:4566 AWS_DEFAULT_REGION=us-east-1 AWS_ACCESS_KEY_ID=x AWS_SECRET_ACCESS_KEY=x\n\
                 \x20 metrics   http://127.0.0.1:4566/metrics\n\
                 \x20 data      /d\n"
            )
        );
        let other = greeting(SocketAddr::from(([127, 0, 0, 1], 9)), &Config::default(), false, Paint::off());
        assert!(other.contains("export BEAUFORT_ENDPOINT=http://127.0.0.1:9\n") && other.contains("beaufort agent --join"));
        assert!(other.contains("in memory"));
    }
}
