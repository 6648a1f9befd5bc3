//! `beaufort backup`: a copy of the state into one file, from a server that works or from a directory that nobody uses.

use std::fs::{self, File};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};

use super::client::Client;
use super::failure::Failure;
use super::screen::{self, bytes};
use super::{Target, check};
use crate::clock::{Clock, SystemClock};
use crate::store::{self, Manifest};

const EXAMPLES: &str = "\
Examples:
  beaufort backup /backup/beaufort-$(date +%F)           of the server at --endpoint, while it works
  beaufort backup state.backup --data-dir /var/lib/beaufort    of a directory, when no server runs

The file holds the control state: clusters, task definitions, services, tasks, instances, alarms and policies, with the journal and
the ledger. It does not hold metrics and logs: they are large, and are only consistent when the server has ended; copy the
directories metrics/ and logs/ then. `beaufort check FILE` verifies a backup, `beaufort restore FILE --data-dir DIR` puts it in place.";

/// Copy the control state into a file.
///
/// The copy is of one commit, whatever is changed meanwhile; it is verified before the file gets its name.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct BackupArgs {
    /// Where to write
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Copy this data directory, which no server uses, instead of asking one
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Replace FILE if it is there
    #[arg(long)]
    pub force: bool,
    /// Print what the backup holds as JSON
    #[arg(long)]
    pub json: bool,
}

const LOOK_AGAIN: Duration = Duration::from_millis(100);

pub async fn run(target: Target, args: BackupArgs) -> anyhow::Result<ExitCode> {
    if args.file.exists() && !args.force {
        let next = "choose another name, or replace it with --force";
        return Err(Failure::new(format!("{} is there already", args.file.display()), next).into());
    }
    let mut name = args.file.clone().into_os_string();
    name.push(".part");
    let part = PathBuf::from(name);
    let taken = take(&target, &args, &part).await;
    if taken.is_err() {
        // Half a backup is none.
        let _ = fs::remove_file(&part);
    }
    let (manifest, size) = taken?;
    fs::rename(&part, &args.file)?;
    if let Some(dir) = args.file.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        File::open(dir)?.sync_all()?;
    }
    if args.json {
        screen::say_json(&json!({ "file": args.file, "bytes": size, "manifest": manifest }))?;
    } else {
        screen::say(&format!("{}: {}\n{}", args.file.display(), bytes(size), tell(&manifest)))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn take(target: &Target, args: &BackupArgs, part: &Path) -> anyhow::Result<(Manifest, u64)> {
    match &args.data_dir {
        Some(dir) => {
            // SQLite makes the file itself, and wants none there.
            let _ = fs::remove_file(part);
            store::backup_of(dir, part, SystemClock.now()).map_err(|error| match error {
                store::Error::InUse(_) => {
                    Failure::new(error.to_string(), "leave --data-dir away: the server is asked for a backup then").into()
                }
                other => anyhow::Error::new(other),
            })?;
        }
        None => fetch(&Client::new(&target.endpoint)?, part).await?,
    }
    let report = store::examine(part)?;
    if !report.is_whole() {
        let what = check::faults(&report).into_iter().next().unwrap_or_default();
        return Err(Failure::new(format!("what was copied is not whole: {what}"), "`beaufort check` tells more").into());
    }
    let manifest = report.backup.context("the copy does not say what it is")?;
    Ok((manifest, part.metadata()?.len()))
}

async fn fetch(client: &Client, part: &Path) -> anyhow::Result<()> {
    let begun = client.post("/api/backup", &json!({})).await?;
    let id = begun["id"].as_str().unwrap_or_default().to_owned();
    let fetched = fetch_whole(client, &id, part).await;
    // The server's copy is removed, whatever became of ours.
    let ended = client.post(&format!("/api/backup/end?id={id}"), &json!({})).await;
    fetched?;
    ended.map(drop)
}

async fn fetch_whole(client: &Client, id: &str, part: &Path) -> anyhow::Result<()> {
    let progress = Progress { shown: std::io::stderr().is_terminal() };
    let size = loop {
        let now = client.get("/api/backup", &[("id", id)]).await?;
        match now["stage"].as_str() {
            Some("ready") => break now["bytes"].as_u64().unwrap_or_default(),
            Some("copying") => progress.show("the server copies its state"),
            _ => return Err(failed(&now)),
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    };
    let (mut file, mut have) = (File::create(part).with_context(|| format!("{} cannot be written", part.display()))?, 0);
    while have < size {
        let piece = client.get_bytes("/api/backup/data", &[("id", id), ("offset", &have.to_string())]).await?;
        if piece.is_empty() {
            let next = "begin again";
            return Err(Failure::new(format!("the server's copy ended after {have} of {size} bytes"), next).into());
        }
        file.write_all(&piece).with_context(|| format!("{} cannot be written", part.display()))?;
        have += piece.len() as u64;
        progress.show(&format!("{:>3} % of {}", 100 * have / size.max(1), bytes(size)));
    }
    progress.show("");
    Ok(file.sync_all()?)
}

fn failed(told: &Value) -> anyhow::Error {
    let why = told["error"].as_str().unwrap_or("it did not say why");
    Failure::new(format!("the server could not take a backup: {why}"), "look at its log; `beaufort check` verifies its directory")
        .into()
}

/// One line on a terminal that is written over.
struct Progress {
    shown: bool,
}

impl Progress {
    fn show(&self, text: &str) {
        if self.shown {
            // A terminal that went away needs no progress.
            let _ = write!(std::io::stderr(), "\r\x1b[2K{text}");
        }
    }
}

/// What a backup holds, for a person.
pub fn tell(manifest: &Manifest) -> String {
    let things: Vec<String> = manifest.counts.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    format!(
        "commit {} of {}, taken {} by Beaufort {} from installation {}\nholds {}; {} commits of journal, {} records of the ledger\n",
        manifest.revision,
        manifest.committed_at.map_or_else(|| "never".to_owned(), |at| at.iso()),
        manifest.taken_at.iso(),
        manifest.version,
        manifest.installation,
        if things.is_empty() { "nothing".to_owned() } else { things.join(", ") },
        manifest.commits,
        manifest.records,
    )
}
