//! The demo's stage: a Beaufort of its own in this process, the sample service on it through the API, and the end of all of it.
//! Everything made is marked with this run's installation, and goes with it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::agent::docker::{DockerConfig, DockerEngine};
use crate::agent::engine::Engine;
use crate::app::{self, Config, Core, Running};
use crate::load::client::{Api, ECS, SCALING};

pub const CLUSTER: &str = "demo";
pub const SERVICE: &str = "web";
pub const LOG_GROUP: &str = "/demo/web";
pub const POLICY: &str = "cpu";
/// Percent of the reserved CPU that the service is kept at.
pub const TARGET: f64 = 55.0;
pub const MOST_TASKS: u32 = 4;
/// A quarter of a core for each task, so that four take one core.
const TASK_CPU: u32 = 256;
const TASK_MEMORY_MIB: u32 = 128;
/// With a quarter of a core, a task can answer about 45 requests a second.
const CPU_MS: u32 = 5;
const PORT: u16 = 8080;

const READY_WITHIN: Duration = Duration::from_secs(40);
const EMPTY_WITHIN: Duration = Duration::from_secs(15);
const LOOK_AGAIN: Duration = Duration::from_millis(200);

pub struct Stage {
    pub api: Api,
    running: Running,
    engine: Arc<DockerEngine>,
    image: String,
    _directory: Directory,
}

/// Gone when dropped.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(directory = %self.0.display(), %error, "the demo's data cannot be removed");
        }
    }
}

impl Stage {
    /// A control plane and an agent on this host's Docker, on a free port.
    pub async fn open(docker_host: Option<String>) -> anyhow::Result<Stage> {
        let unique = uuid::Uuid::new_v4().simple().to_string();
        let directory = std::env::temp_dir().join(format!("beaufort-demo-{unique}"));
        std::fs::create_dir(&directory).with_context(|| format!("{} cannot be made", directory.display()))?;
        let directory = Directory(directory);
        let config = Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            data_dir: Some(Path::new(&directory.0).to_owned()),
            cluster: CLUSTER.to_owned(),
            // The reset at the end is what makes the agent remove its containers at once.
            ephemeral: true,
            ..Config::default()
        };
        let core = Core::open(config, true).await?;
        let docker = DockerConfig {
            docker_host,
            // awsvpc's; the demo needs none.
            pause_pool: 0,
            ..DockerConfig::new(core.installation(), core.app.home.clone(), core.app.clock.clone())
        };
        let engine = DockerEngine::connect(docker).await;
        let engine =
            Arc::new(engine.context("the demo runs containers, but Docker cannot be reached; start it, or set DOCKER_HOST")?);
        let mut running = app::start(core).await?;
        running.start_agent(engine.clone());
        let api = Api::new(&format!("http://{}", running.address))?;
        Ok(Stage { api, running, engine, image: format!("beaufort/demo:{}", &unique[..12]), _directory: directory })
    }

    /// The sample service with its scaling, as a client would make it. Returns when it is steady.
    pub async fn set(&self) -> anyhow::Result<()> {
        let image = self.engine.ensure_own_image(&self.image, &["/beaufort"], &["web"]).await;
        image.context("the sample service's image cannot be made")?;
        until("the agent is not ready", READY_WITHIN, async || Ok(self.api.get("/health").await.is_ok())).await?;
        let api = &self.api;
        api.aws(ECS, "RegisterTaskDefinition", &definition(&self.image)).await?;
        api.aws(ECS, "CreateService", &service()).await?;
        self.steady().await?;
        api.aws(SCALING, "RegisterScalableTarget", &scalable_target()).await?;
        api.aws(SCALING, "PutScalingPolicy", &policy()).await?;
        Ok(())
    }

    async fn steady(&self) -> anyhow::Result<()> {
        let asked = json!({ "cluster": CLUSTER, "services": [SERVICE] });
        let mut last_event = String::new();
        let steady = until("the sample service is not steady", READY_WITHIN, async || {
            let described = self.api.aws(ECS, "DescribeServices", &asked).await?;
            let service = &described["services"][0];
            last_event = service["events"][0]["message"].as_str().unwrap_or("no event yet").to_owned();
            Ok(service["runningCount"] == 1 && service["deployments"][0]["rolloutState"] == "COMPLETED")
        })
        .await;
        steady.with_context(|| format!("the service's last event: {last_event}"))
    }

    /// Ends and removes everything; what cannot be removed is told.
    pub async fn strike(self) -> anyhow::Result<()> {
        let mut left = Vec::new();
        if let Err(error) = self.running.stop_tasks().await {
            left.push(format!("{error:#}"));
        }
        if let Err(error) = self.api.post("/api/reset").await {
            left.push(format!("{error:#}"));
        }
        let empty = async || Ok(self.engine.list().await?.is_empty());
        if until("containers are left", EMPTY_WITHIN, empty).await.is_err() {
            // The agent had its time; take them away by hand.
            for container in self.engine.list().await.unwrap_or_default() {
                if let Err(error) = self.engine.remove(&container.runtime_id).await {
                    left.push(format!("container {}: {error}", container.runtime_id));
                }
            }
        }
        self.running.stop().await;
        if let Err(error) = self.engine.shutdown_cleanup().await {
            left.push(format!("networks: {error}"));
        }
        if let Err(error) = self.engine.remove_image(&self.image).await {
            left.push(format!("image {}: {error}", self.image));
        }
        if !left.is_empty() {
            bail!("not everything could be removed: {}", left.join("; "));
        }
        Ok(())
    }
}

async fn until(what: &str, within: Duration, mut holds: impl AsyncFnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let deadline = Instant::now() + within;
    loop {
        if holds().await? {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{what} after {} s", within.as_secs());
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn definition(image: &str) -> Value {
    json!({
        "family": "demo-web",
        "networkMode": "bridge",
        "cpu": TASK_CPU.to_string(),
        "memory": TASK_MEMORY_MIB.to_string(),
        "containerDefinitions": [{
            "name": "web",
            "image": image,
            "cpu": TASK_CPU,
            "memory": TASK_MEMORY_MIB,
            "essential": true,
            "command": ["web"],
            "environment": [
                { "name": "WEB_PORT", "value": PORT.to_string() },
                { "name": "WEB_CPU_MS", "value": CPU_MS.to_string() },
            ],
            "portMappings": [{ "containerPort": PORT, "hostPort": 0, "protocol": "tcp" }],
            "stopTimeout": 10,
            "logConfiguration": {
                "logDriver": "awslogs",
                "options": {
                    "awslogs-group": LOG_GROUP,
                    "awslogs-region": "us-east-1",
                    "awslogs-stream-prefix": "web",
                    "awslogs-create-group": "true",
                },
            },
        }],
    })
}

fn service() -> Value {
    json!({
        "cluster": CLUSTER,
        "serviceName": SERVICE,
        "taskDefinition": "demo-web",
        "desiredCount": 1,
        "deploymentConfiguration": { "minimumHealthyPercent": 100, "maximumPercent": 200 },
    })
}

fn scalable_target() -> Value {
    json!({
        "ServiceNamespace": "ecs",
        "ResourceId": format!("service/{CLUSTER}/{SERVICE}"),
        "ScalableDimension": "ecs:service:DesiredCount",
        "MinCapacity": 1,
        "MaxCapacity": MOST_TASKS,
    })
}

fn policy() -> Value {
    json!({
        "PolicyName": POLICY,
        "ServiceNamespace": "ecs",
        "ResourceId": format!("service/{CLUSTER}/{SERVICE}"),
        "ScalableDimension": "ecs:service:DesiredCount",
        "PolicyType": "TargetTrackingScaling",
        "TargetTrackingScalingPolicyConfiguration": {
            "TargetValue": TARGET,
            "PredefinedMetricSpecification": { "PredefinedMetricType": "ECSServiceAverageCPUUtilizationHighResolution" },
            "ScaleOutCooldown": 3,
            "ScaleInCooldown": 5,
        },
    })
}
