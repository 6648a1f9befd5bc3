//! `beaufort load`: the generator as a program.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args as ClapArgs;
use http::Uri;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::client::Api;
use super::profile::{Profile, read_duration};
use super::stats::Live;
use super::{Options, Target, resolve};

const EXAMPLES: &str = "\
Examples:
  beaufort load http://127.0.0.1:8080/ --rate 50 --for 30s
  beaufort load service/web --rate 200 --for 2m         the service's tasks in turn, whichever run
  beaufort load service/web --profile day.txt --json

A profile is a line for each phase: NAME RATE DURATION
  calm    20       60s
  ramp    20..300  90s
  spike   900      20s

Latency counts from when a request was due, so a slow server cannot hide behind the requests that it held up.
Exit codes: 0 something was completed, 1 nothing was.";

/// Offer requests at a rate, whatever becomes of them (open loop)
#[derive(ClapArgs, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// http://HOST:PORT/PATH, several in turn, or service/[CLUSTER/]NAME for the service's running tasks
    #[arg(required = true, value_name = "TARGET")]
    pub targets: Vec<String>,
    /// Requests a second
    #[arg(long, default_value_t = 10.0, conflicts_with = "profile")]
    pub rate: f64,
    /// How long: 500ms, 30s, 2m
    #[arg(long = "for", default_value = "30s", value_parser = read_duration, conflicts_with = "profile")]
    pub lasts: Duration,
    /// Phases from a file, a line each: NAME RATE DURATION, as in `ramp 20..300 90s`; or JSON
    #[arg(long, value_name = "FILE")]
    pub profile: Option<PathBuf>,
    /// What is asked of a service's tasks
    #[arg(long, default_value = "/")]
    pub path: String,
    /// Which of the containers' ports, where there are several
    #[arg(long)]
    pub container_port: Option<u16>,
    /// Ask a service's task only once it has answered here, as a load balancer would
    #[arg(long, value_name = "PATH")]
    pub health: Option<String>,
    /// Requests under way at the same time; more are dropped, and counted
    #[arg(long, default_value_t = 1_000)]
    pub in_flight: usize,
    /// When a request without an answer has failed
    #[arg(long, default_value = "10s", value_parser = read_duration)]
    pub timeout: Duration,
    /// The report as JSON
    #[arg(long)]
    pub json: bool,
}

/// `endpoint` is asked for service/NAME. Fails when nothing was completed.
pub async fn run(args: Args, endpoint: &str) -> anyhow::Result<ExitCode> {
    let profile = match &args.profile {
        None => Profile::steady(args.rate, args.lasts)?,
        Some(file) => {
            let text = std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
            Profile::parse(&text).with_context(|| format!("{} is no profile", file.display()))?
        }
    };
    let stop = CancellationToken::new();
    let targets = targets(&args, endpoint, &stop).await?;
    let live = Live::new(&profile);
    let progress = tokio::spawn(show(live.clone(), targets.clone(), profile.clone()));
    tokio::spawn({
        let stop = stop.clone();
        async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                stop.cancel();
            }
        }
    });
    let options = Options { in_flight: args.in_flight, timeout: args.timeout, settle: args.timeout };
    let report = super::run(&profile, targets, &options, &live, &stop).await;
    stop.cancel();
    progress.abort();
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{report}");
    }
    Ok(if report.total.completed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn targets(args: &Args, endpoint: &str, stop: &CancellationToken) -> anyhow::Result<watch::Receiver<Vec<Target>>> {
    if let [one] = &args.targets[..]
        && let Some(service) = one.strip_prefix("service/")
    {
        let (cluster, name) = service.split_once('/').unwrap_or(("default", service));
        let rooted = |path: &String| if path.starts_with('/') { path.clone() } else { format!("/{path}") };
        let service = resolve::Service {
            cluster: cluster.to_owned(),
            name: name.to_owned(),
            path: rooted(&args.path),
            container_port: args.container_port,
            health: args.health.as_ref().map(rooted),
        };
        let api = Api::new(endpoint)?;
        let first = resolve::once(&api, &service, &[]).await?;
        if first.is_empty() {
            bail!("service {cluster}/{name} has no running task with a port; beaufort services shows what there is");
        }
        let (sender, receiver) = watch::channel(first);
        tokio::spawn(resolve::follow(api, service, Duration::from_secs(1), sender, stop.clone()));
        return Ok(receiver);
    }
    let parsed: anyhow::Result<Vec<Target>> = args.targets.iter().map(|text| url(text)).collect();
    Ok(watch::channel(parsed?).1)
}

fn url(text: &str) -> anyhow::Result<Target> {
    if text.starts_with("service/") {
        bail!("{text} must be the only target");
    }
    let uri: Uri = text.parse().with_context(|| format!("{text} is no URL"))?;
    if uri.scheme_str() != Some("http") || uri.host().is_none() {
        bail!("{text} is no target: it is http://HOST:PORT/PATH (without TLS) or service/NAME");
    }
    Ok(Target { uri })
}

/// One line that is written over once a second; only for a person who watches.
async fn show(live: Live, targets: watch::Receiver<Vec<Target>>, profile: Profile) {
    if !std::io::stderr().is_terminal() {
        return;
    }
    let start = tokio::time::Instant::now();
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tick.tick().await;
        let (at, second) = (start.elapsed(), live.last_second(start.elapsed()));
        let total = live.report(at).total;
        let phase = profile.phase_at(at).map_or("settling", |(index, _)| profile.phases()[index].name.as_str());
        let p99 = second.p99_ms.map_or("-".to_owned(), |ms| format!("{ms:.0} ms"));
        eprint!(
            "\r\x1b[K{:>4} s {phase}: offered {}/s, completed {}/s, p99 {p99}, failed {}, dropped {}, in flight {}, targets {}",
            at.as_secs(),
            second.offered,
            second.completed,
            total.failed,
            total.dropped,
            total.in_flight,
            targets.borrow().len(),
        );
        let _ = std::io::stderr().flush();
    }
}
