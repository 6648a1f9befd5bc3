//! `beaufort backtest`: what scaling policies would have made of what was recorded of a service.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;

use super::failure::Failure;
use super::past::{Past, document, moment, service};
use super::screen::{self, Ink, Paint, parse_span, span};
use super::{ClusterOption, Target};
use crate::model::{Millis, Timestamp};
use crate::replay::files::Files;
use crate::replay::recording::{self, CapacityModel, MINUTES_KEPT, Window, plan};
use crate::replay::report::{Column, Options, Report, back_test};
use crate::replay::{chart, plot};

const EXAMPLES: &str = "\
Examples:
  beaufort backtest cpu-50.json --service web --since 24h
  beaufort backtest cpu-50.json cpu-70.json --service web --since 3h --svg web.svg
  beaufort backtest steps.json --service prod/web --since 2026-11-20T08:00:00Z --until 2026-11-20T18:00:00Z --warmup 30s
  beaufort backtest cpu-50.json --service web --data-dir /var/lib/beaufort --json | jq .policies[0].task_hours

A file holds PutScalingPolicy's input, as for `aws application-autoscaling put-scaling-policy --cli-input-json`; what is missing of
ServiceNamespace, ResourceId and ScalableDimension is filled in. Several policies in one file (a list, or a document of `beaufort
apply`) run together; several files are compared. A step policy needs its alarm: in the file under alarms, or one that there is.

Older than 3 hours there are minutes, older than 15 days nothing. What the result assumes is printed with it.";

/// Try scaling policies on what was recorded of a service
///
/// The alarms are judged and the policies asked as the control plane does it, on the recorded metrics, and their answers are carried
/// out in a simulated service. Nothing is changed anywhere.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct BacktestArgs {
    /// The policies to try
    #[arg(value_name = "POLICY.json", required = true, num_args = 1..=8)]
    pub files: Vec<PathBuf>,
    /// The service: NAME or CLUSTER/NAME; without it, the one that the first file names
    #[arg(long, short, value_name = "SERVICE")]
    pub service: Option<String>,
    #[command(flatten)]
    pub cluster: ClusterOption,
    /// From when on: so long ago, or a time
    #[arg(long, value_name = "TIME", default_value = "24h")]
    pub since: String,
    /// Up to when; now, if it is not said
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// The finest datapoints to use
    #[arg(long, value_name = "LENGTH", default_value = "1s", value_parser = step)]
    pub step: Millis,
    /// How metrics depend on capacity; without it, linear for the service's own utilization and constant for others
    #[arg(long, value_name = "MODEL", value_enum)]
    pub capacity_model: Option<Capacity>,
    /// How long a new task takes to run; without it, as long as was recorded
    #[arg(long, value_name = "LENGTH", value_parser = parse_span)]
    pub warmup: Option<Millis>,
    /// The least tasks, instead of the scalable target's
    #[arg(long, value_name = "N")]
    pub min: Option<u32>,
    /// The most tasks, instead of the scalable target's
    #[arg(long, value_name = "N")]
    pub max: Option<u32>,
    /// Read a data directory instead of asking a server; its server may run
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Draw a chart into this file
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Capacity {
    /// The metric is what it was, whatever runs: a queue's length
    Constant,
    /// The load is what it was, shared equally by what runs: utilization, requests per task
    Linear,
}

impl From<Capacity> for CapacityModel {
    fn from(given: Capacity) -> CapacityModel {
        match given {
            Capacity::Constant => CapacityModel::Constant,
            Capacity::Linear => CapacityModel::Linear,
        }
    }
}

/// CloudWatch's periods.
fn step(text: &str) -> Result<Millis, String> {
    let ms = parse_span(text)?;
    match ms / 1_000 {
        1 | 5 | 10 | 20 | 30 | 60 if ms % 1_000 == 0 => Ok(ms),
        _ => Err(format!("{text} is no step: write 1s, 5s, 10s, 20s, 30s or 60s")),
    }
}

pub async fn run(target: Target, args: BacktestArgs) -> anyhow::Result<ExitCode> {
    let documents = args.files.iter().map(|path| document(path)).collect::<anyhow::Result<Vec<_>>>()?;
    let key = service(args.service.as_deref(), &args.cluster.cluster, &documents)?;
    let past = Past::open(&target.endpoint, args.data_dir.as_deref())?;
    let now = past.now();
    let window = window(&args, now)?;
    let known = past.known(&key, window.since, window.until).await?;
    let (mut givens, mut records) = (Vec::new(), Vec::new());
    for document in &documents {
        let given = document.of(&key, &known.alarms, &Files::home(), window.since).map_err(Failure::from)?;
        let plan = plan(&key, &given.contenders.iter().collect::<Vec<_>>(), window, now);
        records.push(plan.record(&past.answers(&plan).await?, args.capacity_model.map(Into::into)));
        givens.push(given);
    }
    let options = Options { start_delay_ms: args.warmup, min: args.min, max: args.max };
    let report = back_test(&known, &givens, &records, window, options).map_err(Failure::from)?;
    if let Some(path) = &args.svg {
        std::fs::write(path, chart::svg(&report))
            .with_context(|| format!("the chart cannot be written to {}", path.display()))?;
    }
    if args.json {
        screen::say_json(&report.json())?;
    } else {
        screen::say(&text(&report, plot_width(), Paint::stdout()))?;
        if let Some(path) = &args.svg {
            screen::say(&format!("chart: {}\n", path.display()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn window(args: &BacktestArgs, now: Timestamp) -> Result<Window, Failure> {
    let until = args.until.as_deref().map_or(Ok(now), |text| moment(text, now))?.min(now).floor(1_000);
    let since = moment(&args.since, now)?.floor(1_000);
    if since >= until {
        let what = format!("nothing lies between {} and {}", since.iso(), until.iso());
        return Err(Failure::new(what, "--since is to be before --until, and before now"));
    }
    if now.since(since) > MINUTES_KEPT + recording::SETTLE_MS {
        let what = format!("{} is more than 15 days ago, and minutes are kept for so long", since.iso());
        return Err(Failure::new(what, "--since 15d"));
    }
    Ok(Window { since, until, step_ms: args.step })
}

fn plot_width() -> usize {
    crossterm::terminal::size().map_or(80, |(columns, _)| usize::from(columns)).clamp(40, 160)
}

fn text(report: &Report, width: usize, paint: Paint) -> String {
    let length = span(report.end.since(report.start));
    let minute = |at: Timestamp| at.iso().get(..19).unwrap_or_default().replace('T', " ");
    let mut text = format!(
        "{}  {} to {} UTC ({length}), {} to {} tasks\n\n",
        paint.ink(Ink::Strong, &format!("service/{}", report.service)),
        minute(report.start),
        minute(report.end),
        report.bounds.0,
        report.bounds.1
    );
    text.push_str(&table(report));
    text.push('\n');
    text.push_str(&plots(report, width, paint));
    text.push('\n');
    for note in &report.notes {
        text.push_str(&format!("{}\n", paint.ink(Ink::Faint, &format!("- {note}"))));
    }
    text
}

/// A row for each figure, a column for what was and for each policy.
fn table(report: &Report) -> String {
    let columns: Vec<&Column> = report.columns().collect();
    let mut head = vec![""];
    head.extend(columns.iter().map(|column| column.name.as_str()));
    let unit = if report.unit == "Percent" { " %" } else { "" };
    let value = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.1}{unit}"));
    let share = |seconds: u64, of: u64| match of {
        0 => "-".to_owned(),
        of => format!("{} ({:.1} %)", span(seconds as i64 * 1_000), seconds as f64 * 100.0 / of as f64),
    };
    let actual = report.actual.figures.task_hours();
    let hours = |hours: f64| {
        let more = if actual > 0.0 { ((hours / actual - 1.0) * 100.0).round() } else { 0.0 };
        if more == 0.0 { format!("{hours:.2}") } else { format!("{hours:.2} ({more:+.0} %)") }
    };
    let seconds = |ms: Option<Millis>| ms.map_or("-".to_owned(), |ms| format!("{:.1} s", ms as f64 / 1e3));
    let row = |name: &str, of: &dyn Fn(&Column) -> String| {
        std::iter::once(name.to_owned()).chain(columns.iter().map(|column| of(column))).collect::<Vec<_>>()
    };
    let rows = vec![
        row("target", &|c| value(c.target)),
        row("time over target", &|c| share(c.figures.over_s, c.figures.seconds)),
        row("time under target", &|c| share(c.figures.under_s, c.figures.seconds)),
        row("time without data", &|c| share(c.figures.no_data_s, c.figures.seconds)),
        row("metric, mean", &|c| value(c.figures.mean)),
        row("metric, 95th percentile", &|c| value(c.figures.p95)),
        row("task-hours", &|c| hours(c.figures.task_hours())),
        row("most tasks", &|c| format!("{:.0}", c.figures.most_tasks)),
        row("scale-outs, scale-ins", &|c| format!("{}, {}", c.figures.outs, c.figures.ins)),
        row("largest step", &|c| c.figures.largest_step.to_string()),
        row("breach to capacity, median", &|c| seconds(c.figures.reaction_median())),
        row("breach to capacity, worst", &|c| seconds(c.figures.reactions.last().copied())),
    ];
    screen::table(&head, rows, "nothing")
}

fn plots(report: &Report, width: usize, paint: Paint) -> String {
    let names = report.columns().map(|column| column.name.chars().count()).max().unwrap_or(0);
    let room = width.saturating_sub(names + 12).max(16);
    let mut text = String::new();
    let most_of = |curves: &dyn Fn(&Column) -> &[Option<f64>]| {
        report.columns().flat_map(|c| plot::buckets(curves(c), room)).flatten().fold(0.0, f64::max)
    };
    let mut panel = |what: &str, curves: &dyn Fn(&Column) -> &[Option<f64>]| {
        let most = most_of(curves);
        text.push_str(&format!("{}, 0 to {most:.0}\n", paint.ink(Ink::Strong, what)));
        for (n, column) in report.columns().enumerate() {
            let line = plot::line(curves(column), room, most);
            let ink = if n == 0 { Ink::Faint } else { Ink::Source(n - 1) };
            text.push_str(format!("  {:<names$}  {}", column.name, paint.ink(ink, &line)).trim_end());
            text.push('\n');
        }
    };
    panel(&report.metric, &|column| &column.metric);
    panel("running tasks", &|column| &column.running);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_case_as_it_is_printed() {
        let report = crate::replay::tests::report();
        let text = text(&report, 60, Paint::off());
        let golden = include_str!("backtest/golden.txt");
        assert!(text == golden, "it is printed otherwise now; if that is meant, this is the new golden.txt:\n{text}");
    }

    #[test]
    fn steps_are_cloudwatchs_periods() {
        assert_eq!((step("1s"), step("60s"), step("1m")), (Ok(1_000), Ok(60_000), Ok(60_000)));
        for text in ["0s", "2s", "500ms", "5m", "x"] {
            assert!(step(text).is_err(), "{text}");
        }
    }
}
