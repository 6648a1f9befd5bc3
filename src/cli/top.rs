//! `beaufort top`: which containers use the CPU and the memory, live or once.

mod live;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::process::ExitCode;

use serde::Deserialize;
use serde_json::Value;

use super::Target;
use super::client::Client;
use super::screen;
use crate::model::link::UsageSample;

const EXAMPLES: &str = "\
Examples:
  beaufort top
  beaufort top --service web --sort memory
  beaufort top --once --tasks
  beaufort top --json | jq '.containers | length'

Keys: c by CPU, m by memory, t tasks or containers, arrows to move, q to leave.
CPU is in percent of one core, measured over the last second; % RSV is the part of the task's or container's reservation in use.";

/// Show which tasks use the CPU and the memory, live.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct TopArgs {
    /// Only this cluster; all when not given
    #[arg(long, short, value_name = "NAME")]
    pub cluster: Option<String>,
    /// Only this service
    #[arg(long, short, value_name = "NAME")]
    pub service: Option<String>,
    /// Sum up the containers of each task
    #[arg(long, short)]
    pub tasks: bool,
    /// What comes first
    #[arg(long, value_enum, default_value_t, value_name = "COLUMN")]
    pub sort: Sort,
    /// Print the table once and end; so it is too when the output is no terminal
    #[arg(long)]
    pub once: bool,
    /// Print the newest sample of every container as JSON and end
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Sort {
    #[default]
    Cpu,
    Memory,
}

/// One container as `GET /api/usage` tells it.
#[derive(Clone, Debug, Deserialize)]
pub struct Usage {
    pub cluster: String,
    pub service: Option<String>,
    pub family: String,
    /// CPU units and MiB; 0: none.
    #[serde(default)]
    pub cpu_reserved: f64,
    #[serde(default)]
    pub memory_reserved_mib: f64,
    pub sample: UsageSample,
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub of: String,
    pub task: String,
    pub container: String,
    pub cores: f64,
    /// Cores; 0: none.
    pub cores_reserved: f64,
    pub memory: u64,
    /// Bytes; 0: none.
    pub memory_bound: u64,
    pub processes: u64,
    pub throttled: bool,
}

pub const HEAD: [&str; 9] = ["SERVICE", "TASK", "CONTAINER", "CPU", "% RSV", "MEMORY", "LIMIT", "% MEM", "PROCS"];

pub async fn run(target: Target, args: TopArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&target.endpoint)?;
    let usage = ask(&client, &args).await?;
    if args.json {
        screen::say_json(&usage)?;
    } else if args.once || !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        screen::say(&text(&read(usage)?, args.tasks, args.sort))?;
    } else {
        live::run(&client, &args).await?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn ask(client: &Client, args: &TopArgs) -> anyhow::Result<Value> {
    let query: Vec<(&str, &str)> = [("cluster", &args.cluster), ("service", &args.service)]
        .into_iter()
        .filter_map(|(name, value)| value.as_deref().map(|v| (name, v)))
        .collect();
    client.get("/api/usage", &query).await
}

fn read(mut usage: Value) -> anyhow::Result<Vec<Usage>> {
    super::ecs::read_all(super::ecs::taken(&mut usage, "containers"))
}

fn rows(usage: &[Usage], by_task: bool, sort: Sort) -> Vec<Row> {
    let mut rows: Vec<Row> = usage.iter().map(row).collect();
    if by_task {
        rows = sum_by_task(rows);
    }
    // Names last, so that what uses nothing stands still.
    rows.sort_by(|a, b| {
        let by = match sort {
            Sort::Cpu => b.cores.total_cmp(&a.cores),
            Sort::Memory => Reverse(a.memory).cmp(&Reverse(b.memory)),
        };
        by.then_with(|| (&a.of, &a.task, &a.container).cmp(&(&b.of, &b.task, &b.container)))
    });
    rows
}

fn row(usage: &Usage) -> Row {
    let name = usage.service.as_ref().unwrap_or(&usage.family);
    let of = if usage.cluster == "default" { name.clone() } else { format!("{}/{name}", usage.cluster) };
    let sample = &usage.sample;
    let reserved = (usage.memory_reserved_mib * 1_048_576.0) as u64;
    Row {
        of,
        task: sample.task.get(..8).unwrap_or(&sample.task).to_owned(),
        container: sample.container.to_string(),
        cores: sample.cpu_cores,
        cores_reserved: usage.cpu_reserved / 1024.0,
        memory: sample.memory_bytes,
        memory_bound: if sample.memory_limit_bytes > 0 { sample.memory_limit_bytes } else { reserved },
        processes: sample.processes,
        throttled: sample.throttled_periods > 0,
    }
}

fn sum_by_task(rows: Vec<Row>) -> Vec<Row> {
    let mut tasks: BTreeMap<(String, String), (Row, usize)> = BTreeMap::new();
    for row in rows {
        match tasks.get_mut(&(row.of.clone(), row.task.clone())) {
            Some((sum, containers)) => {
                sum.cores += row.cores;
                // The API tells every container what its task reserves.
                sum.cores_reserved = sum.cores_reserved.max(row.cores_reserved);
                sum.memory += row.memory;
                sum.memory_bound += row.memory_bound;
                sum.processes += row.processes;
                sum.throttled |= row.throttled;
                *containers += 1;
            }
            None => drop(tasks.insert((row.of.clone(), row.task.clone()), (row, 1))),
        }
    }
    let name = |(row, containers): (Row, usize)| Row { container: format!("({containers})"), ..row };
    tasks.into_values().map(name).collect()
}

pub fn cells(row: &Row) -> [String; 9] {
    let share = |part: f64, whole: f64| if whole > 0.0 { format!("{:.0}%", part / whole * 100.0) } else { "-".to_owned() };
    let bound = if row.memory_bound > 0 { screen::bytes(row.memory_bound) } else { "-".to_owned() };
    [
        row.of.clone(),
        row.task.clone(),
        row.container.clone(),
        format!("{:.1}%{}", row.cores * 100.0, if row.throttled { " *" } else { "" }),
        share(row.cores, row.cores_reserved),
        screen::bytes(row.memory),
        bound,
        share(row.memory as f64, row.memory_bound as f64),
        row.processes.to_string(),
    ]
}

fn text(usage: &[Usage], by_task: bool, sort: Sort) -> String {
    let rows = rows(usage, by_task, sort);
    let mut text = screen::table(&HEAD, rows.iter().map(|r| cells(r).to_vec()).collect(), "no container is running");
    if rows.iter().any(|r| r.throttled) {
        text.push_str("* held back at its CPU limit at some time\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn usage() -> Vec<Usage> {
        let sample = |task: &str, container: &str, cores: f64, memory: u64, limit: u64| {
            serde_json::to_value(UsageSample {
                task: task.into(),
                container: container.into(),
                cpu_cores: cores,
                memory_bytes: memory,
                memory_limit_bytes: limit,
                processes: 2,
                ..UsageSample::default()
            })
            .unwrap()
        };
        let of = |cluster: &str, service: Option<&str>, sample: Value| json!({ "at": "x", "cluster": cluster, "service": service, "family": "job", "cpu_reserved": 256, "memory_reserved_mib": 128, "sample": sample });
        read(json!({ "containers": [
            of("default", Some("web"), sample("0123456789ab", "app", 0.125, 64 << 20, 128 << 20)),
            of("default", Some("web"), sample("0123456789ab", "side", 0.03, 1 << 20, 0)),
            of("other", None, sample("ffffffffffff", "run", 0.5, 2048, 0)),
        ]}))
        .unwrap()
    }

    #[test]
    fn containers_by_cpu() {
        assert_eq!(
            text(&usage(), false, Sort::Cpu),
            "\
SERVICE    TASK      CONTAINER  CPU    % RSV  MEMORY    LIMIT      % MEM  PROCS
other/job  ffffffff  run        50.0%  200%   2.0 KiB   128.0 MiB  0%     2
web        01234567  app        12.5%  50%    64.0 MiB  128.0 MiB  50%    2
web        01234567  side       3.0%   12%    1.0 MiB   128.0 MiB  1%     2
"
        );
        assert_eq!(text(&[], false, Sort::Cpu), "no container is running\n");
    }

    #[test]
    fn tasks_by_memory() {
        assert_eq!(
            text(&usage(), true, Sort::Memory),
            "\
SERVICE    TASK      CONTAINER  CPU    % RSV  MEMORY    LIMIT      % MEM  PROCS
web        01234567  (2)        15.5%  62%    65.0 MiB  256.0 MiB  25%    4
other/job  ffffffff  (1)        50.0%  200%   2.0 KiB   128.0 MiB  0%     2
"
        );
    }
}
