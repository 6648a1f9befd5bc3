//! `beaufort simulate`: worlds in simulated time with everything that can go wrong, by seed or by script.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::json;

use super::screen::{self, Ink, Paint};
use crate::model::Millis;
use crate::sim::{self, Fault, Options, Report, Script, generate, many, shrink, transcript};

const EXAMPLES: &str = "\
Examples:
  beaufort simulate                                   ten seeds
  beaufort simulate --seeds 1..1000 --keep-going      all of them, whatever breaks
  beaufort simulate --seed 42 --transcript            what was decided, when and why
  beaufort simulate --seed 42 --print > 42.script     what would happen, as a script
  beaufort simulate --script 42.script --shrink       the least of it that still breaks
  beaufort simulate --for 10m --faults crash,commit,disk --instances 20 --tasks 300

A script is one line of JSON for the world and one for each command; lines can be left out, changed and added.
Exit codes: 0 everything held, 1 something was broken.";

/// Runs of a failing script that shrinking may take.
const SHRINK_RUNS: usize = 300;

/// Run whole clusters in simulated time, with faults, and check that nothing acknowledged is lost and nothing runs twice.
///
/// The control plane, its stores, its decisions and the agents are the real ones; engines, time and faults are simulated. A seed
/// decides everything, so a failing one can be run again: it prints itself, what was broken, and its script made as small as it gets.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct SimulateArgs {
    /// Run this seed alone
    #[arg(long, value_name = "N", conflicts_with_all = ["seeds", "script"])]
    pub seed: Option<u64>,
    /// Run these seeds, the last one included
    #[arg(long, value_name = "A..B", value_parser = parse_seeds, default_value = "1..10")]
    pub seeds: (u64, u64),
    /// Run a script instead of a seed's
    #[arg(long, value_name = "FILE")]
    pub script: Option<PathBuf>,
    /// Container instances; else the seed chooses
    #[arg(long, value_name = "N")]
    pub instances: Option<usize>,
    /// Desired tasks over all services; else the seed chooses
    #[arg(long, value_name = "N")]
    pub tasks: Option<u32>,
    /// Services; else the seed chooses
    #[arg(long, value_name = "N")]
    pub services: Option<u32>,
    /// How long things go wrong, in simulated time
    #[arg(long = "for", value_name = "TIME", value_parser = screen::parse_span, default_value = "60s")]
    pub for_ms: Millis,
    /// Time between two commands on average
    #[arg(long, value_name = "TIME", value_parser = screen::parse_span, default_value = "3s")]
    pub every: Millis,
    /// What may go wrong, by commas, or none: kill, oom, agent, wire, messages, engine, slow, crash, commit, disk, clock, host-clock, replace
    #[arg(long, value_name = "LIST", value_parser = parse_faults, default_value = "all")]
    pub faults: Faults,
    /// Go on after a seed that breaks something
    #[arg(long)]
    pub keep_going: bool,
    /// End after this much real time, whatever is left
    #[arg(long, value_name = "TIME", value_parser = screen::parse_span)]
    pub within: Option<Millis>,
    /// Worlds at the same time
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub threads: usize,
    /// Make a failing script as small as it gets; a seed that fails alone is shrunk anyway
    #[arg(long)]
    pub shrink: bool,
    /// Write the scripts of what fails into this directory
    #[arg(long, value_name = "DIR")]
    pub save: Option<PathBuf>,
    /// Print the script and run nothing
    #[arg(long)]
    pub print: bool,
    /// Print what was decided, when and why, and what was done to the world
    #[arg(long)]
    pub transcript: bool,
    /// Print the outcome as JSON
    #[arg(long)]
    pub json: bool,
}

/// Of [`Fault::KINDS`].
#[derive(Clone, Debug, PartialEq)]
pub struct Faults(Vec<String>);

fn parse_faults(text: &str) -> Result<Faults, String> {
    match text {
        "all" => return Ok(Faults(Fault::KINDS.map(str::to_owned).to_vec())),
        "none" => return Ok(Faults(Vec::new())),
        _ => {}
    }
    let kinds: Vec<String> = text.split(',').map(|kind| kind.trim().to_owned()).collect();
    match kinds.iter().find(|kind| !Fault::KINDS.contains(&kind.as_str())) {
        Some(unknown) => Err(format!("there is no fault {unknown}: name some of {}, or none", Fault::KINDS.join(", "))),
        None => Ok(Faults(kinds)),
    }
}

fn parse_seeds(text: &str) -> Result<(u64, u64), String> {
    let (first, last) = text.split_once("..").unwrap_or((text, text));
    let number = |text: &str| text.parse::<u64>().map_err(|_| format!("{text} is no seed: write --seeds 1..200"));
    let (first, last) = (number(first)?, number(last.trim_start_matches('='))?);
    if first > last { Err(format!("{first} to {last} are no seeds: write --seeds 1..200")) } else { Ok((first, last)) }
}

/// What all runs came to.
#[derive(Default)]
struct Sum {
    runs: u64,
    simulated_ms: Millis,
    commits: u64,
    decisions: u64,
    /// Of all runs, in whatever order they ended: the same seeds give the same.
    digest: u32,
    failed: Vec<(Script, Report)>,
}

pub fn run(args: &SimulateArgs) -> anyhow::Result<ExitCode> {
    let options = Options {
        instances: args.instances,
        tasks: args.tasks,
        services: args.services,
        faults_ms: args.for_ms,
        fault_every_ms: args.every,
        faults: args.faults.0.clone(),
        ..Options::default()
    };
    let given = args.script.as_deref().map(|path| -> anyhow::Result<Script> {
        let text = std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
        Script::parse(&text).with_context(|| format!("{} is no script", path.display()))
    });
    let given = given.transpose()?;
    let (first, last) = args.seed.map_or(args.seeds, |seed| (seed, seed));
    let mut scripts: Box<dyn Iterator<Item = Script> + Send> = match given {
        Some(script) => Box::new(std::iter::once(script)),
        None => Box::new((first..=last).map(move |seed| generate::script(seed, &options))),
    };
    if args.print {
        for script in scripts {
            screen::say(&script.to_text())?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let alone = args.script.is_some() || first == last;
    let begun = Instant::now();
    let in_time = || args.within.is_none_or(|ms| begun.elapsed() < Duration::from_millis(ms.unsigned_abs()));
    let mut sum = Sum::default();
    let threads = if alone { 1 } else { args.threads };
    many::run_all(
        threads,
        args.transcript,
        || scripts.next().filter(|_| in_time()),
        |script, report| {
            sum.note(script, report, args);
            progress(&sum, begun.elapsed());
            sum.failed.is_empty() || args.keep_going
        },
    );
    end_progress();
    let took = begun.elapsed();
    for (script, report) in &mut sum.failed {
        let small = if args.shrink || alone { make_small(script, report) } else { None };
        if let Some(dir) = &args.save {
            save(dir, small.as_ref().unwrap_or(script), report)?;
        }
        if !args.json {
            screen::say(&failure(script, small.as_ref(), report, args, Paint::stdout()))?;
        }
    }
    match args.json {
        true => screen::say_json(&sum.to_json(took))?,
        false => screen::say(&sum.text(took, Paint::stdout()))?,
    }
    Ok(if sum.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Sum {
    fn note(&mut self, script: &Script, report: Report, args: &SimulateArgs) {
        self.runs += 1;
        self.simulated_ms += report.simulated_ms;
        self.commits += report.commits;
        self.decisions += report.decisions;
        self.digest ^= report.digest;
        if args.transcript {
            let story = report.story.iter().map(|line| format!("{line}\n")).collect::<String>();
            let ledger = transcript::transcript(&report.ledger, &report.hosts);
            // A reader that went away is told of by what follows.
            let _ = screen::say(&format!("seed {}\n\nWhat was done:\n{story}\nWhat was decided:\n{ledger}\n", report.seed));
        }
        if !report.breaches.is_empty() {
            self.failed.push((script.clone(), report));
        }
    }

    fn speed(&self, took: Duration) -> f64 {
        self.simulated_ms as f64 / 1e3 / took.as_secs_f64().max(1e-3)
    }

    fn text(&self, took: Duration, paint: Paint) -> String {
        let head = ["SEEDS", "SIMULATED", "COMMITS", "DECISIONS", "BROKEN", "TOOK", "SPEED"];
        let row = vec![
            self.runs.to_string(),
            screen::span(self.simulated_ms),
            self.commits.to_string(),
            self.decisions.to_string(),
            self.failed.len().to_string(),
            format!("{:.1}s", took.as_secs_f64()),
            format!("{:.0}x", self.speed(took)),
        ];
        let verdict = match self.failed.is_empty() {
            true => paint.ink(Ink::Good, "everything held"),
            false => paint.ink(Ink::Bad, "something was broken"),
        };
        format!("{}{verdict}\n", screen::table(&head, vec![row], ""))
    }

    fn to_json(&self, took: Duration) -> serde_json::Value {
        let failed = self.failed.iter().map(|(script, report)| {
            let breaches: Vec<_> =
                report.breaches.iter().map(|b| json!({"at": b.at.iso(), "rule": b.rule.as_str(), "what": b.what})).collect();
            json!({"seed": report.seed, "breaches": breaches, "script": script})
        });
        json!({"seeds": self.runs, "simulatedMs": self.simulated_ms, "commits": self.commits, "decisions": self.decisions, "digest": self.digest,
            "tookMs": took.as_millis() as u64, "simulatedSecondsPerSecond": self.speed(took), "failed": failed.collect::<Vec<_>>()})
    }
}

fn progress(sum: &Sum, took: Duration) {
    let mut out = std::io::stderr();
    if out.is_terminal() {
        let speed = sum.speed(took);
        let _ = write!(out, "\r{} runs, {} broken, {speed:.0} simulated seconds a second ", sum.runs, sum.failed.len());
    }
}

fn end_progress() {
    if std::io::stderr().is_terminal() {
        let _ = writeln!(std::io::stderr());
    }
}

/// The script with everything left out that the first breach does not need, or None when it holds on a second run.
fn make_small(script: &mut Script, report: &Report) -> Option<Script> {
    let rule = report.breaches.first()?.rule;
    let fails = |script: &Script| many::run_one(script, false).breaches.iter().any(|breach| breach.rule == rule);
    let (small, _) = shrink::shrink(script, SHRINK_RUNS, fails);
    (small.commands.len() < script.commands.len()).then_some(small)
}

fn save(dir: &std::path::Path, script: &Script, report: &Report) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("{} cannot be made", dir.display()))?;
    let told: String = report.breaches.iter().map(|breach| format!("# {breach}\n")).collect();
    let path = dir.join(format!("{}.script", report.seed));
    std::fs::write(&path, format!("{told}{}", script.to_text())).with_context(|| format!("{} cannot be written", path.display()))
}

/// The seed, what was broken, the least script that breaks it, and how to see it again.
fn failure(script: &Script, small: Option<&Script>, report: &Report, args: &SimulateArgs, paint: Paint) -> String {
    let mut text = format!("{}\n", paint.ink(Ink::Bad, &format!("seed {} broke something", report.seed)));
    for breach in &report.breaches {
        text.push_str(&format!("  {breach}\n"));
    }
    let (what, shown) = match small {
        Some(small) => ("The least of its script that breaks the same", small),
        None => ("Its script", script),
    };
    text.push_str(&format!("{what}, {} of {} commands:\n{}", shown.commands.len(), script.commands.len(), shown.to_text()));
    text.push_str(&format!("Again: {}\n\n", again(report.seed, args)));
    text
}

/// The command line that repeats it.
fn again(seed: u64, args: &SimulateArgs) -> String {
    if let Some(path) = &args.script {
        return format!("beaufort simulate --script {}", path.display());
    }
    let mut line = format!("beaufort simulate --seed {seed}");
    let numbers = [
        ("instances", args.instances.map(|n| n as u64)),
        ("tasks", args.tasks.map(u64::from)),
        ("services", args.services.map(u64::from)),
    ];
    for (name, value) in numbers {
        if let Some(value) = value {
            line.push_str(&format!(" --{name} {value}"));
        }
    }
    let Options { faults_ms, fault_every_ms, .. } = Options::default();
    if args.for_ms != faults_ms {
        line.push_str(&format!(" --for {}ms", args.for_ms));
    }
    if args.every != fault_every_ms {
        line.push_str(&format!(" --every {}ms", args.every));
    }
    if args.faults.0.len() != sim::Fault::KINDS.len() {
        let faults = if args.faults.0.is_empty() { "none".to_owned() } else { args.faults.0.join(",") };
        line.push_str(&format!(" --faults {faults}"));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: SimulateArgs,
    }

    fn args(line: &str) -> Result<SimulateArgs, clap::Error> {
        Line::try_parse_from(line.split(' ').skip(1)).map(|line| line.args)
    }

    #[test]
    fn a_failing_seed_names_the_line_that_repeats_it() {
        for line in [
            "beaufort simulate --seed 7",
            "beaufort simulate --seed 7 --instances 20 --tasks 300 --services 4 --for 600000ms --every 500ms --faults crash,disk",
            "beaufort simulate --seed 7 --faults none",
        ] {
            assert_eq!(again(7, &args(line).unwrap()), line);
        }
        assert_eq!(again(7, &args("beaufort simulate --script a.script").unwrap()), "beaufort simulate --script a.script");
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for line in ["--seeds 9..1", "--seeds x", "--faults fire", "--for soon", "--seed 1 --seeds 1..2"] {
            assert!(args(&format!("beaufort simulate {line}")).is_err(), "{line}");
        }
        assert_eq!(args("beaufort simulate --seeds 3..5").unwrap().seeds, (3, 5));
    }
}
