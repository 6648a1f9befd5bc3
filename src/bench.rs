//! `beaufort bench`: how fast the parts are that need neither Docker nor a client. `make bench` shows them beside the figures of the
//! whole; alone it is the quickest way to see what a change to a store or a decision costs.
//!
//! A part is a file in `bench/` and a line in [`PARTS`]; it answers [`row::Row`]s, each with its goal and its reference where it
//! has them.

mod agents;
pub mod cost;
mod decisions;
mod exposition;
mod fleet;
pub mod follower;
mod logs;
mod metrics;
mod placement;
pub mod row;
mod sampling;
mod store;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::json;

use row::Rows;

struct Part {
    /// On the command line.
    name: &'static str,
    /// In the table.
    group: &'static str,
    measure: fn() -> anyhow::Result<Rows>,
}

/// `make bench` runs each in a process of its own.
const PARTS: &[Part] = &[
    Part { name: "decisions", group: "Decisions", measure: decisions::measure },
    Part { name: "placement", group: "Control plane", measure: placement::measure },
    Part { name: "agents", group: "Agents", measure: agents::measure },
    Part { name: "exposition", group: "Control plane", measure: exposition::measure },
    Part { name: "store", group: "Store", measure: store::measure },
    Part { name: "store-scale", group: "Store", measure: store::at_scale },
    Part { name: "metrics", group: "Metrics", measure: metrics::measure },
    Part { name: "sampling", group: "Metrics", measure: sampling::measure },
    Part { name: "logs", group: "Logs", measure: logs::measure },
    Part { name: "follower", group: "Logs", measure: follower::measure },
];

/// Measure the stores and the decisions of this build.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  beaufort bench\n  beaufort bench metrics logs\n  beaufort bench --json\n  beaufort bench --list"
)]
pub struct BenchArgs {
    /// Only these parts
    #[arg(value_name = "PART", value_parser = clap::builder::PossibleValuesParser::new(PARTS.iter().map(|part| part.name)))]
    pub parts: Vec<String>,
    /// The figures as JSON
    #[arg(long)]
    pub json: bool,
    /// Which parts there are
    #[arg(long)]
    pub list: bool,
}

pub fn run(args: &BenchArgs) -> anyhow::Result<ExitCode> {
    if args.list {
        return list(args.json);
    }
    let wanted = PARTS.iter().filter(|part| args.parts.is_empty() || args.parts.iter().any(|name| name == part.name));
    let mut told = Vec::new();
    for part in wanted {
        let rows = (part.measure)().with_context(|| format!("{} could not be measured", part.name))?;
        if args.json {
            told.extend(rows);
        } else {
            rows.iter().for_each(show);
        }
    }
    if args.json {
        println!("{}", serde_json::to_string(&told)?);
    }
    Ok(ExitCode::SUCCESS)
}

fn list(json: bool) -> anyhow::Result<ExitCode> {
    if json {
        let parts: Vec<_> = PARTS.iter().map(|part| json!({"name": part.name, "group": part.group})).collect();
        println!("{}", serde_json::to_string(&parts)?);
    } else {
        PARTS.iter().for_each(|part| println!("{:<16} {}", part.name, part.group));
    }
    Ok(ExitCode::SUCCESS)
}

fn show(row: &row::Row) {
    let verdict = match (row.goal, row.met()) {
        (Some(row::Goal::AtMost(goal)), Some(met)) => format!("{} (at most {goal})", if met { "met" } else { "missed" }),
        (Some(row::Goal::AtLeast(goal)), Some(met)) => format!("{} (at least {goal})", if met { "met" } else { "missed" }),
        _ => String::new(),
    };
    println!("{:<64} {:>14.2} {:<14} {verdict}", row.what, row.median(), row.unit);
    if let Some(reference) = &row.reference {
        let value = reference.value.map(|value| format!("{value:.2} {}", reference.unit)).unwrap_or_default();
        println!("    against {} {value}", reference.what);
    }
    if !row.note.is_empty() {
        println!("    {}", row.note);
    }
}

/// How often a second of this thread's CPU time `work` can be done; each time counts `each`.
pub(crate) fn per_second<T>(each: u32, mut work: impl FnMut() -> T) -> f64 {
    const LOOP_FOR: Duration = Duration::from_millis(500);
    let (started, cost, mut rounds) = (Instant::now(), cost::Cost::start(), 0u64);
    while started.elapsed() < LOOP_FOR {
        std::hint::black_box(work());
        rounds += 1;
    }
    rounds as f64 * f64::from(each) / cost.spent().thread
}
