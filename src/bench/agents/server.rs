//! The server under test: this binary as `serve` in a process of its own, and what the system says of it.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{SysconfVar, sysconf};
use serde_json::Value;
use tokio::process::{Child, Command};

use super::read;

const STARTS_WITHIN: Duration = Duration::from_secs(120);
const CALL_WITHIN: Duration = Duration::from_secs(120);

pub struct Server {
    pub url: String,
    pub token: String,
    dir: PathBuf,
    address: String,
    child: Child,
    api: Api,
}

/// A client of its API.
#[derive(Clone)]
pub struct Api {
    url: String,
    client: Client<HttpConnector, Full<bytes::Bytes>>,
}

impl Server {
    pub async fn start() -> anyhow::Result<Server> {
        let dir = std::env::temp_dir().join(format!("beaufort-bench-agents-{}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        // Whoever else looks for a port might get the same one in between; then the bench fails and says so.
        let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let (url, token) = (format!("http://{address}"), "a token for a bench on loopback".to_owned());
        let api = Api { url: url.clone(), client: Client::builder(TokioExecutor::new()).build_http() };
        let child = spawn(&dir, &address, &token)?;
        let server = Server { url, token, dir, address, child, api };
        server.until_healthy().await?;
        Ok(server)
    }

    async fn until_healthy(&self) -> anyhow::Result<f64> {
        let begun = Instant::now();
        while self.api.get("/health").await.is_err() {
            ensure!(begun.elapsed() < STARTS_WITHIN, "the server did not start: see {}", self.dir.join("log").display());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(begun.elapsed().as_secs_f64())
    }

    pub async fn kill(&mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Seconds to its /health.
    pub async fn restart(&mut self) -> anyhow::Result<f64> {
        self.child = spawn(&self.dir, &self.address, &self.token)?;
        self.until_healthy().await
    }

    pub async fn end(mut self) -> anyhow::Result<()> {
        self.child.kill().await?;
        std::fs::remove_dir_all(&self.dir).with_context(|| format!("{} is left behind", self.dir.display()))
    }

    pub fn api(&self) -> Api {
        self.api.clone()
    }

    pub async fn call(&self, operation: &str, input: Value) -> anyhow::Result<Value> {
        self.api.call(operation, input).await
    }

    pub async fn cloudwatch(&self, input: Value) -> anyhow::Result<Value> {
        self.api.post("GraniteServiceVersion20100801.GetMetricStatistics", "application/x-amz-json-1.0", input).await
    }

    fn proc(&self, file: &str) -> anyhow::Result<String> {
        let pid = self.child.id().context("the server has ended")?;
        Ok(std::fs::read_to_string(format!("/proc/{pid}/{file}"))?)
    }

    /// User and system time since its start.
    pub fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let stat = self.proc("stat")?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace().collect();
        // Behind the name come state and so on: user time is the 14th field of all, system time the 15th.
        let ticks: u64 = [11, 12].iter().filter_map(|n| fields.get(*n)?.parse::<u64>().ok()).sum();
        let per_second = sysconf(SysconfVar::CLK_TCK)?.unwrap_or(100);
        Ok(ticks as f64 / per_second as f64)
    }

    pub fn memory_mib(&self, which: &str) -> anyhow::Result<f64> {
        let status = self.proc("status")?;
        let line = status.lines().find(|line| line.starts_with(which)).context("no such line in status")?;
        let kib: f64 = line.split_ascii_whitespace().nth(1).context("no value")?.parse()?;
        Ok(kib / 1024.0)
    }
}

impl Api {
    async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.send(http::Request::get(format!("{}{path}", self.url)).body(Full::default())?, path).await
    }

    pub async fn call(&self, operation: &str, input: Value) -> anyhow::Result<Value> {
        let target = format!("AmazonEC2ContainerServiceV20141113.{operation}");
        self.post(&target, "application/x-amz-json-1.1", input).await
    }

    async fn post(&self, target: &str, content_type: &str, input: Value) -> anyhow::Result<Value> {
        let request = http::Request::post(&self.url).header("content-type", content_type).header("x-amz-target", target);
        self.send(request.body(Full::from(input.to_string()))?, target).await
    }

    async fn send(&self, request: http::Request<Full<bytes::Bytes>>, what: &str) -> anyhow::Result<Value> {
        let answer = async {
            let response = self.client.request(request).await?;
            let status = response.status().as_u16();
            read(status, &response.into_body().collect().await?.to_bytes(), what)
        };
        tokio::time::timeout(CALL_WITHIN, answer).await.with_context(|| format!("{what}: no answer"))?
    }
}

fn spawn(dir: &std::path::Path, address: &str, token: &str) -> anyhow::Result<Child> {
    let token_file = dir.join("token");
    std::fs::write(&token_file, token)?;
    let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.join("log"))?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["serve", "--listen", address, "--data-dir"]).arg(dir.join("data")).arg("--agent-token-file").arg(token_file);
    command.env("RUST_LOG", "warn").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
    Ok(command.spawn()?)
}

/// One for each agent's socket, here and, as children inherit it, there.
pub fn raise_descriptors(needed: u64) -> anyhow::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < needed {
        ensure!(
            hard >= needed,
            "{needed} file descriptors are needed and the limit is {hard}: raise it, for example by ulimit -n {needed}"
        );
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(())
}
