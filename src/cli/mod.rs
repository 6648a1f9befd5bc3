//! The command line: one file per command. Owns words on a terminal and exit codes; decides nothing about containers, and reads a
//! running Beaufort only over its HTTP API, or the files of one, where `replay` reads them.
//!
//! Start reading here: [`Command`] lists every command, `run` starts it. A new command is one variant and one line in `run`.

mod agent;
mod alerts;
mod apply;
mod backtest;
mod backup;
mod check;
mod client;
mod completion;
mod datadir;
mod ecs;
mod events;
mod failure;
mod gaps;
mod health;
mod logs;
mod past;
mod ps;
mod replay;
mod restore;
mod scale;
mod screen;
mod server;
mod services;
mod signals;
mod simulate;
mod subject;
mod top;
mod up;
mod why;

use std::future::Future;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use client::Client;
pub use failure::Failure;

const AFTER: &str = "\
Start here:
  beaufort up                                   an orchestrator on this machine's Docker
  export AWS_ENDPOINT_URL=http://127.0.0.1:4566 let aws-cli, boto3, Terraform and the SDKs talk to it
  beaufort services                             what runs
  beaufort why service/web                      and why

Exit codes: 0 done, 1 failed, 2 the command line cannot be understood.
Colours appear on a terminal only; NO_COLOR=1 turns them off.";

/// A self-hosted container orchestrator that behaves like Amazon ECS and can be seen.
#[derive(Debug, Parser)]
#[command(name = "beaufort", version, about, long_about = None, after_help = AFTER, max_term_width = 110)]
#[command(propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    pub target: Target,
    #[command(subcommand)]
    pub command: Command,
}

/// Which Beaufort the commands of a person talk to.
#[derive(Clone, Debug, clap::Args)]
pub struct Target {
    /// The Beaufort to talk to
    #[arg(long, global = true, env = "BEAUFORT_ENDPOINT", value_name = "URL", default_value = "http://127.0.0.1:4566")]
    pub endpoint: String,
}

/// The cluster that a command of a person looks into.
#[derive(Clone, Debug, clap::Args)]
pub struct ClusterOption {
    /// The cluster to look into
    #[arg(long, short, env = "BEAUFORT_CLUSTER", value_name = "NAME", default_value = "default")]
    pub cluster: String,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run everything here: the control plane and an agent on this machine's Docker
    Up(Box<up::UpArgs>),
    /// Run the control plane alone; agents join it from their hosts
    Serve(Box<up::ServeArgs>),
    /// Measure the stores and the decisions of this build, on one thread
    #[command(hide = true)]
    Bench(crate::bench::BenchArgs),
    /// Run the agent of one more Docker host
    Agent(Box<agent::AgentArgs>),
    /// List tasks
    Ps(ps::PsArgs),
    /// List services
    Services(services::ServicesArgs),
    /// Read what containers wrote
    Logs(logs::LogsArgs),
    /// Show what happened: service events and decisions, by time
    Events(events::EventsArgs),
    /// Show which tasks use the CPU and the memory, live
    Top(top::TopArgs),
    /// Explain how something came to be as it is, and what it waits for
    Why(why::WhyArgs),
    /// Make or change task definitions, services and their scaling, as JSON files ask
    Apply(apply::ApplyArgs),
    /// Set how many tasks a service has
    Scale(scale::ScaleArgs),
    /// List the alerts of Prometheus that Alertmanager has told of
    Alerts(alerts::AlertsArgs),
    /// Tell what was decided and why, commit by commit; with a policy, what it would have decided
    Replay(replay::ReplayArgs),
    /// Try scaling policies on what was recorded of a service
    Backtest(backtest::BacktestArgs),
    /// List what clients asked for and Beaufort does not do
    Gaps(gaps::GapsArgs),
    /// Tell whether Beaufort is up
    Health(health::HealthArgs),
    /// Run whole clusters in simulated time, with faults, and check that nothing is lost
    Simulate(Box<simulate::SimulateArgs>),
    /// Show a service scale with its load and explain itself: a Beaufort, a sample service and a load in one command
    Demo(crate::demo::Args),
    /// Offer requests at a rate, whatever becomes of them
    Load(crate::load::command::Args),
    /// Serve the sample service that the demo scales
    Web(crate::web::Args),
    /// Copy the control state into a file, also while the server works
    Backup(backup::BackupArgs),
    /// Put a backup in the place of a data directory's state
    Restore(restore::RestoreArgs),
    /// Verify a data directory or a backup, and say what is wrong and where
    Check(check::CheckArgs),
    /// Print a completion script for a shell
    Completion(completion::CompletionArgs),
}

fn run(target: Target, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Up(args) => in_workers(up::up(*args)),
        Command::Serve(args) => in_workers(up::serve(*args)),
        Command::Bench(args) => crate::bench::run(&args),
        Command::Agent(args) => in_workers(agent::run(*args)),
        Command::Ps(args) => in_one_thread(ps::run(target, args)),
        Command::Services(args) => in_one_thread(services::run(target, args)),
        Command::Logs(args) => in_one_thread(logs::run(target, args)),
        Command::Events(args) => in_one_thread(events::run(target, args)),
        Command::Top(args) => in_one_thread(top::run(target, args)),
        Command::Why(args) => in_one_thread(why::run(target, args)),
        Command::Apply(args) => in_one_thread(apply::run(target, args)),
        Command::Scale(args) => in_one_thread(scale::run(target, args)),
        Command::Alerts(args) => in_one_thread(alerts::run(target, args)),
        Command::Replay(args) => in_one_thread(replay::run(target, args)),
        Command::Backtest(args) => in_one_thread(backtest::run(target, args)),
        Command::Gaps(args) => in_one_thread(gaps::run(target, args)),
        Command::Health(args) => in_one_thread(health::run(target, args)),
        Command::Simulate(args) => simulate::run(&args),
        Command::Demo(args) => in_workers(crate::demo::run(args)),
        Command::Load(args) => in_workers(async move { crate::load::command::run(args, &target.endpoint).await }),
        Command::Web(args) => in_workers(async { crate::web::run(args).await.map(|()| ExitCode::SUCCESS) }),
        Command::Backup(args) => in_one_thread(backup::run(target, args)),
        Command::Restore(args) => restore::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Completion(args) => completion::run(&args),
    }
}

/// Parses the command line and does what it says.
pub fn main() -> ExitCode {
    // clap itself ends the process with 2 for a usage error and with 0 for --help and --version.
    let cli = Cli::parse();
    run(cli.target, cli.command).unwrap_or_else(|error| failure::report(&error))
}

/// The runtime of what serves: few workers, as each costs memory and the work is short.
pub fn in_workers(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    tokio::runtime::Builder::new_multi_thread().worker_threads(cores.clamp(2, 4)).enable_all().build()?.block_on(work)
}

pub fn in_one_thread(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

#[cfg(test)]
mod tests;
