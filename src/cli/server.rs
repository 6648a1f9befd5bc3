//! What `up`, `serve` and `agent` share: their options, where data lies, and the way to a Docker that may not be up yet.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::failure::Failure;
use crate::agent::docker::{DockerConfig, DockerEngine, TASK_NETWORK};

/// Between two tries to reach Docker.
const DOCKER_AGAIN: Duration = Duration::from_secs(1);
/// Between two sentences about a Docker that stays away.
const REMIND: Duration = Duration::from_secs(30);
/// One try; a daemon that hangs must not hold up the next one.
const DOCKER_TRY: Duration = Duration::from_secs(15);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

#[derive(Clone, Debug, clap::Args)]
pub struct LogOptions {
    /// How our own log is written to standard error; BEAUFORT_LOG=debug says more
    #[arg(long, env = "BEAUFORT_LOG_FORMAT", value_enum, default_value_t, value_name = "FORMAT")]
    pub log_format: LogFormat,
}

/// The Docker host of an agent.
#[derive(Clone, Debug, clap::Args)]
pub struct HostOptions {
    /// The availability zone of this host, for spreading tasks
    #[arg(long, env = "BEAUFORT_ZONE")]
    pub zone: Option<String>,
    /// An attribute of this host for placement constraints, KEY=VALUE or KEY; may be repeated
    #[arg(long = "attribute", value_name = "K=V", value_parser = parse_attribute)]
    pub attributes: Vec<(String, Option<String>)>,
    /// Warm network namespaces kept per cluster for awsvpc tasks; 0 for none
    #[arg(long, env = "BEAUFORT_PAUSE_POOL", value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(..=64))]
    pub pause_pool: u16,
    /// Docker's address: unix:///PATH or tcp://HOST:PORT
    #[arg(long, env = "DOCKER_HOST", value_name = "ADDRESS")]
    pub docker_host: Option<String>,
    /// A Docker network that is there already, for bridge tasks to join in place of Docker's default bridge: its other members, such as
    /// a compose project's, then reach tasks by their own address
    #[arg(long, env = "BEAUFORT_TASK_NETWORK", value_name = "NAME")]
    pub task_network: Option<String>,
    /// Where containers send their own OTLP: their OTEL_EXPORTER_OTLP_ENDPOINT, unless the task definition says another
    #[arg(long, env = "BEAUFORT_TASK_OTLP_ENDPOINT", value_name = "URL")]
    pub task_otlp_endpoint: Option<String>,
}

impl HostOptions {
    pub fn attributes(&self) -> BTreeMap<String, Option<String>> {
        self.attributes.iter().cloned().collect()
    }

    /// None when the variable is there and empty, which is how a Compose file leaves something out.
    pub fn otlp_endpoint(&self) -> Option<String> {
        self.task_otlp_endpoint.clone().filter(|e| !e.is_empty())
    }

    pub fn dress(&self, config: DockerConfig) -> DockerConfig {
        let docker_host = self.docker_host.clone().filter(|h| !h.is_empty());
        // A variable that is set to nothing is not set, as compose files have it.
        let task_network = self.task_network.clone().filter(|name| !name.is_empty());
        DockerConfig { docker_host, task_network, pause_pool: self.pause_pool.into(), ..config }
    }
}

/// What agents say to be let in.
#[derive(Clone, Debug, clap::Args)]
pub struct TokenOptions {
    /// The secret that agents and their server share; other users of this machine may see it, so prefer --agent-token-file
    #[arg(long, env = "BEAUFORT_AGENT_TOKEN", hide_env_values = true, value_name = "TOKEN", conflicts_with = "agent_token_file")]
    pub agent_token: Option<String>,
    /// A file that holds the secret
    #[arg(long, env = "BEAUFORT_AGENT_TOKEN_FILE", value_name = "FILE")]
    pub agent_token_file: Option<PathBuf>,
}

impl TokenOptions {
    pub fn token(&self) -> anyhow::Result<Option<String>> {
        read_token("agent", self.agent_token.as_deref(), self.agent_token_file.as_ref())
    }
}

/// What Alertmanager says to have its alerts taken.
#[derive(Clone, Debug, clap::Args)]
pub struct WebhookOptions {
    /// The secret that Alertmanager sends with alerts that scale; other users of this machine may see it, so prefer --webhook-token-file
    #[arg(
        long,
        env = "BEAUFORT_WEBHOOK_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN",
        conflicts_with = "webhook_token_file"
    )]
    pub webhook_token: Option<String>,
    /// A file that holds the secret; without one, no alert is taken
    #[arg(long, env = "BEAUFORT_WEBHOOK_TOKEN_FILE", value_name = "FILE")]
    pub webhook_token_file: Option<PathBuf>,
}

impl WebhookOptions {
    pub fn token(&self) -> anyhow::Result<Option<String>> {
        // A variable that is set to nothing is not set: Compose files give such.
        let token = self.webhook_token.as_deref().filter(|token| !token.is_empty());
        let file = self.webhook_token_file.as_ref().filter(|file| !file.as_os_str().is_empty());
        if token.is_some() && file.is_some() {
            let what = "both --webhook-token and --webhook-token-file are given (or their variables)";
            return Err(Failure::new(what, "leave one of them out").into());
        }
        read_token("webhook", token, file)
    }
}

/// `whose` is `agent` or `webhook`.
pub fn read_token(whose: &str, given: Option<&str>, file: Option<&PathBuf>) -> anyhow::Result<Option<String>> {
    let token = match (given, file) {
        (Some(token), _) => token.to_owned(),
        (None, Some(file)) => {
            std::fs::read_to_string(file).with_context(|| format!("the {whose} token cannot be read from {}", file.display()))?
        }
        (None, None) => return Ok(None),
    };
    let token = token.trim();
    // It travels in a header.
    if token.len() < 8 || !token.bytes().all(|b| b.is_ascii_graphic()) {
        let next = "make one: head -c 24 /dev/urandom | base64";
        let what = format!("the {whose} token is shorter than 8 characters, or has blanks or others than ASCII in it");
        return Err(Failure::new(what, next).into());
    }
    Ok(Some(token.to_owned()))
}

fn parse_attribute(text: &str) -> Result<(String, Option<String>), String> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, None),
    };
    // Attribute: "The name must contain between 1 and 128 characters and may contain letters, numbers, hyphens, underscores, forward
    // slashes, back slashes, or periods."
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_/\\.".contains(c);
    if name.is_empty() || name.len() > 128 || !name.chars().all(fits) {
        return Err(format!("{name:?} is no attribute's name: letters, digits, - _ / \\ and . only"));
    }
    Ok((name.to_owned(), value))
}

/// Where data lies unless --data-dir says so.
pub fn default_data_dir() -> anyhow::Result<PathBuf> {
    let of = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    data_dir_of(nix::unistd::geteuid().is_root(), of("XDG_DATA_HOME"), of("HOME"))
        .ok_or_else(|| Failure::new("there is no home directory to keep data in", "say where: --data-dir DIR").into())
}

fn data_dir_of(root: bool, xdg: Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    if let Some(xdg) = xdg {
        return Some(xdg.join("beaufort"));
    }
    if root { Some(PathBuf::from("/var/lib/beaufort")) } else { home.map(|h| h.join(".local/share/beaufort")) }
}

/// Connects as soon as Docker answers, however long that takes; None when `stop` comes first. A task network that cannot be used is an
/// error: waiting would not help, and tasks on another network would not be reached by those who look for them.
pub async fn reach_docker(config: DockerConfig, stop: &CancellationToken) -> Result<Option<Arc<DockerEngine>>, Failure> {
    let mut told: Option<Instant> = None;
    loop {
        let tried = tokio::select! {
            () = stop.cancelled() => return Ok(None),
            tried = tokio::time::timeout(DOCKER_TRY, DockerEngine::connect(config.clone())) => tried,
        };
        let why = match tried {
            Ok(Ok(engine)) => {
                if told.is_some() {
                    tracing::info!("Docker answers now");
                }
                return Ok(Some(Arc::new(engine)));
            }
            Ok(Err(error)) if error.name == TASK_NETWORK => {
                let next = "make it (docker network create NAME), or name another with --task-network / BEAUFORT_TASK_NETWORK";
                return Err(Failure::new(error.text, next));
            }
            Ok(Err(error)) => error.text,
            Err(_) => format!("no answer within {} s", DOCKER_TRY.as_secs()),
        };
        if told.is_none_or(|at| at.elapsed() >= REMIND) {
            told = Some(Instant::now());
            tracing::warn!(
                %why,
                "Docker cannot be used yet; tasks start once it can. Start it (systemctl start docker), let this user use it (group docker), \
                 or say where it is with --docker-host or DOCKER_HOST"
            );
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(None),
            () = tokio::time::sleep(DOCKER_AGAIN) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_lies_where_people_expect_it() {
        let path = |text: &str| Some(PathBuf::from(text));
        assert_eq!(data_dir_of(false, None, path("/home/a")), path("/home/a/.local/share/beaufort"));
        assert_eq!(data_dir_of(false, path("/x"), path("/home/a")), path("/x/beaufort"));
        assert_eq!(data_dir_of(true, None, path("/root")), path("/var/lib/beaufort"));
        assert_eq!(data_dir_of(false, None, None), None);
    }

    #[test]
    fn attributes_and_tokens() {
        assert_eq!(parse_attribute("disk=ssd"), Ok(("disk".to_owned(), Some("ssd".to_owned()))));
        assert_eq!(parse_attribute("gpu"), Ok(("gpu".to_owned(), None)));
        assert!(parse_attribute("=x").is_err() && parse_attribute("a b=x").is_err());
        assert_eq!(read_token("agent", Some(" secret-enough\n"), None).unwrap().as_deref(), Some("secret-enough"));
        assert_eq!(read_token("agent", None, None).unwrap(), None);
        assert!(read_token("agent", Some("short"), None).is_err() && read_token("agent", Some("with a blank"), None).is_err());
        let missing = read_token("agent", None, Some(&PathBuf::from("/nonexistent/token"))).unwrap_err();
        assert!(missing.to_string().contains("/nonexistent/token"));
    }
}
