//! `beaufort restore`: puts a backup in the place of a data directory's state.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use super::backup::tell;
use super::failure::Failure;
use super::screen::{self, Ink, Paint};
use crate::clock::{Clock, SystemClock};
use crate::store::{self, Restored};

const EXAMPLES: &str = "\
Examples:
  beaufort restore state.backup --data-dir /var/lib/beaufort
  beaufort restore state.backup --data-dir /var/lib/beaufort --replace   what is there is kept in replaced-.../

End the server first; it is refused while one uses the directory. Nothing is touched before the backup has been verified. Metrics
and logs stay as they are.

When the server starts again and agents connect: tasks that were started after the backup are not known any more, and their
containers are stopped and removed; tasks that have ended since run again, those of RunTask too. To look first, restore into an
empty directory and start `beaufort serve --data-dir DIR --listen 127.0.0.1:0`, which no agent joins.";

/// Put a backup in the place of a data directory's state.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct RestoreArgs {
    /// What `beaufort backup` wrote
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The data directory
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Also where there is a state already: it is kept aside
    #[arg(long)]
    pub replace: bool,
    /// Print what was done as JSON
    #[arg(long)]
    pub json: bool,
}

pub fn run(args: &RestoreArgs) -> anyhow::Result<ExitCode> {
    let Restored { report, kept } =
        store::restore(&args.file, &args.data_dir, args.replace, SystemClock.now()).map_err(advise)?;
    if args.json {
        screen::say_json(&json!({ "data_dir": args.data_dir, "revision": report.revision, "counts": report.counts,
                                  "manifest": report.backup, "kept": kept }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = format!("restored into {}\n", args.data_dir.display());
    if let Some(manifest) = &report.backup {
        text.push_str(&tell(manifest));
    }
    if let Some(kept) = kept {
        text.push_str(&format!("what was there before is in {}\n", kept.display()));
    }
    let warning =
        "when agents connect, they stop tasks that are newer than the backup, and start again those that have ended since";
    screen::say(&format!("{text}{}\n", Paint::stdout().ink(Ink::Warn, warning)))?;
    Ok(ExitCode::SUCCESS)
}

fn advise(error: store::Error) -> anyhow::Error {
    match error {
        store::Error::InUse(_) => Failure::new(error.to_string(), "end the server that uses it, then restore").into(),
        other => other.into(),
    }
}
