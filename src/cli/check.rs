//! `beaufort check`: verifies a data directory or a backup.

use std::path::PathBuf;
use std::process::ExitCode;

use super::screen::{self, Ink, Paint};
use super::server::default_data_dir;
use crate::store::{self, Report};

const EXAMPLES: &str = "\
Exits with 0 when everything is as it was written, and with 1 when something is not.

Examples:
  beaufort check                           the data directory that `beaufort up` would use
  beaufort check /var/lib/beaufort         a server may be at work there
  beaufort check state.backup --json

Every page, row, journal entry and record is read and compared with its checksum; nothing is changed. A server itself verifies every
row when it starts.";

/// Verify a data directory or a backup, and say what is wrong and where.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct CheckArgs {
    /// A data directory or a backup [default: the data directory of `beaufort up`]
    #[arg(value_name = "DIR|FILE", env = "BEAUFORT_DATA_DIR")]
    pub path: Option<PathBuf>,
    /// Print what was found as JSON
    #[arg(long)]
    pub json: bool,
}

pub fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let path = args.path.clone().map_or_else(default_data_dir, Ok)?;
    let report = store::examine(&path)?;
    if args.json {
        screen::say_json(&serde_json::to_value(&report)?)?;
    } else {
        screen::say(&text(&path.display().to_string(), &report, Paint::stdout()))?;
    }
    Ok(if report.is_whole() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub fn faults(report: &Report) -> Vec<String> {
    report.state_faults.iter().chain(&report.history_faults).cloned().collect()
}

fn text(path: &str, report: &Report, paint: Paint) -> String {
    let things: u64 = report.counts.values().sum();
    let verdict = if report.is_whole() { paint.ink(Ink::Good, "whole") } else { paint.ink(Ink::Bad, "damaged") };
    let mut text = format!(
        "{path}: {verdict}; commit {}, {things} things, {} commits of journal, {} records of the ledger\n",
        report.revision, report.commits, report.records
    );
    for fault in faults(report) {
        text.push_str(&format!("  {fault}\n"));
    }
    if !report.state_faults.is_empty() {
        text.push_str("put a backup in its place: beaufort restore FILE --data-dir DIR --replace\n");
    } else if !report.history_faults.is_empty() {
        text.push_str(
            "the state itself is whole, and Beaufort starts; what was damaged is history: `why` and `replay` may miss some of it\n",
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_and_what_to_do() {
        let mut report = Report {
            schema: 2,
            installation: "me".to_owned(),
            revision: 7,
            committed_at: None,
            counts: [("task".to_owned(), 3)].into(),
            commits: 7,
            records: 2,
            backup: None,
            state_faults: Vec::new(),
            history_faults: Vec::new(),
        };
        let line = "d: whole; commit 7, 3 things, 7 commits of journal, 2 records of the ledger\n";
        assert_eq!(text("d", &report, Paint::off()), line);
        report.history_faults.push("the journal's commit 3 is not as it was written".to_owned());
        assert!(text("d", &report, Paint::off()).contains("commit 3 is not as it was written\nthe state itself is whole"));
        report.state_faults.push("the row task 1 is not as it was written".to_owned());
        assert!(text("d", &report, Paint::off()).ends_with("beaufort restore FILE --data-dir DIR --replace\n"));
    }
}
