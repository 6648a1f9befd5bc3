//! `beaufort load`: the generator as a program.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args as ClapArgs;
use http::Uri;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::client::Api;
use super::expose::{self, Exposition};
use super::profile::{Profile, read_duration};
use super::stats::Live;
use super::{Options, Target, reactions, resolve};

/// Between two lines of progress where nobody watches.
const LOG_EVERY: Duration = Duration::from_secs(10);

const EXAMPLES: &str = "\
Examples:
  beaufort load http://127.0.0.1:8080/ --rate 50 --for 30s
  beaufort load service/web --rate 200 --for 2m         the service's tasks in turn, whichever run
  beaufort load service/web --profile day.txt --json
  beaufort load service/shop/web --rate 100 --metrics-listen 127.0.0.1:9466

A profile is a line for each phase: NAME RATE DURATION
  calm    20       60s
  ramp    20..300  90s
  spike   900      20s

A service that has no task yet is waited for. At the end its scale-outs are told, hop by hop.
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
    /// How long to wait for a service's first task
    #[arg(long, default_value = "60s", value_parser = read_duration)]
    pub wait: Duration,
    /// Serve the generator's own metrics here, at /metrics
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub metrics_listen: Option<SocketAddr>,
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
    // Before anything is waited for: a port that is taken is said at once.
    let listener = match args.metrics_listen {
        Some(address) => {
            let bound = TcpListener::bind(address).await;
            Some(bound.with_context(|| format!("{address} cannot be listened on; choose another --metrics-listen"))?)
        }
        None => None,
    };
    let stop = CancellationToken::new();
    tokio::spawn({
        let stop = stop.clone();
        async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                stop.cancel();
            }
        }
    });
    let asked = Asked::of(&args, endpoint)?;
    let targets = targets(&args, &asked, &stop).await?;
    let before = match &asked {
        Asked::Service { api, service } => Some(reactions::newest(api, &service.cluster, &service.name).await?),
        Asked::Urls(_) => None,
    };
    let live = Live::new(&profile);
    if let Some(listener) = listener {
        let service = match &asked {
            Asked::Service { service, .. } => Some((service.cluster.as_str(), service.name.as_str())),
            Asked::Urls(_) => None,
        };
        let exposition = Exposition::new(live.clone(), profile.clone(), service);
        tokio::spawn(expose::serve(listener, Arc::new(exposition)));
    }
    let progress = tokio::spawn(show(live.clone(), targets.clone(), profile.clone()));
    let options = Options { in_flight: args.in_flight, timeout: args.timeout, settle: args.timeout };
    let report = super::run(&profile, targets, &options, &live, &stop).await;
    stop.cancel();
    progress.abort();
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
    let mut scaled = None;
    if let (Asked::Service { api, service }, Some(before)) = (&asked, before) {
        // The load is measured, whatever has become of the control plane.
        match reactions::since(api, &service.cluster, &service.name, before).await {
            Ok(found) => scaled = Some(found),
            Err(error) => eprintln!("how the service scaled cannot be told: {error:#}"),
        }
    }
    if args.json {
        let mut told = serde_json::to_value(&report)?;
        told["reactions"] = serde_json::to_value(&scaled)?;
        println!("{told}");
    } else {
        println!("{report}");
        if let Some(scaled) = scaled {
            print!("\n{}", reactions::table(&scaled));
        }
    }
    Ok(if report.total.completed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whom the load is for.
enum Asked {
    Urls(Vec<Target>),
    Service { api: Box<Api>, service: Box<resolve::Service> },
}

impl Asked {
    fn of(args: &Args, endpoint: &str) -> anyhow::Result<Asked> {
        if let [one] = &args.targets[..]
            && let Some(service) = one.strip_prefix("service/")
        {
            let (cluster, name) = service.split_once('/').unwrap_or(("default", service));
            let rooted = |path: &String| if path.starts_with('/') { path.clone() } else { format!("/{path}") };
            let api = Api::new(endpoint)?;
            let service = resolve::Service {
                cluster: cluster.to_owned(),
                name: name.to_owned(),
                path: rooted(&args.path),
                container_port: args.container_port,
                health: args.health.as_ref().map(rooted),
                elsewhere: api.elsewhere(),
            };
            return Ok(Asked::Service { api: Box::new(api), service: Box::new(service) });
        }
        Ok(Asked::Urls(args.targets.iter().map(|text| url(text)).collect::<anyhow::Result<_>>()?))
    }
}

async fn targets(args: &Args, asked: &Asked, stop: &CancellationToken) -> anyhow::Result<watch::Receiver<Vec<Target>>> {
    match asked {
        Asked::Urls(targets) => Ok(watch::channel(targets.clone()).1),
        Asked::Service { api, service } => {
            let first = resolve::wait(api, service, args.wait, stop).await?;
            let (sender, receiver) = watch::channel(first);
            tokio::spawn(resolve::follow((**api).clone(), (**service).clone(), Duration::from_secs(1), sender, stop.clone()));
            Ok(receiver)
        }
    }
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

/// One line that is written over once a second for a person who watches; for a log a line of its own every ten seconds.
async fn show(live: Live, targets: watch::Receiver<Vec<Target>>, profile: Profile) {
    let terminal = std::io::stderr().is_terminal();
    let start = tokio::time::Instant::now();
    let every = if terminal { Duration::from_secs(1) } else { LOG_EVERY };
    let mut tick = tokio::time::interval_at(start + every, every);
    loop {
        tick.tick().await;
        let line = progress(&live, targets.borrow().len(), &profile, start.elapsed());
        if terminal {
            eprint!("\r\x1b[K{line}");
            let _ = std::io::stderr().flush();
        } else {
            eprintln!("{}", line.trim_start());
        }
    }
}

fn progress(live: &Live, targets: usize, profile: &Profile, at: Duration) -> String {
    let (second, total) = (live.last_second(at), live.report(at).total);
    let phase = profile.phase_at(at).map_or("settling", |(index, _)| profile.phases()[index].name.as_str());
    let p99 = second.p99_ms.map_or("-".to_owned(), |ms| format!("{ms:.0} ms"));
    format!(
        "{:>4} s {phase}: offered {}/s, completed {}/s, p99 {p99}, failed {}, dropped {}, in flight {}, targets {targets}",
        at.as_secs(),
        second.offered,
        second.completed,
        total.failed,
        total.dropped,
        total.in_flight,
    )
}
