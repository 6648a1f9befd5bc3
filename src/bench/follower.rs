//! Following rotating log files, as Docker's json-file driver writes them, at a million lines a second: the follower's own code over
//! files that another process writes.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context;

use super::row::{Row, Rows};
use crate::agent::docker::bench::follow;
use crate::model::log::LineBatch;
use crate::testbed::logfiles;

const FILES: u64 = 10;
const LINES_EACH: u64 = 1_000_000;
const PER_SECOND: f64 = 1_000_000.0;

pub fn measure() -> anyhow::Result<Rows> {
    let dir = std::env::temp_dir().join(format!("beaufort-bench-follower-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let measured = run(&dir);
    // Best effort: it is a temporary directory.
    let _ = std::fs::remove_dir_all(&dir);
    measured
}

/// What came of one file's lines.
#[derive(Clone, Copy, Default)]
struct Seen {
    last: u64,
    lost: u64,
    twice: u64,
}

impl Seen {
    fn line(&mut self, number: u64) {
        match number {
            n if n > self.last => (self.lost, self.last) = (self.lost + n - self.last - 1, n),
            _ => self.twice += 1,
        }
    }
}

fn run(dir: &Path) -> anyhow::Result<Rows> {
    let mut writer = Command::new(std::env::current_exe()?)
        .args(["testbed", "write-logs"])
        .arg(dir)
        .args([FILES.to_string(), LINES_EACH.to_string(), PER_SECOND.to_string()])
        .stdout(Stdio::piped())
        .spawn()?;
    let paths: BTreeMap<_, _> = (0..FILES).map(|n| (n.to_string(), logfiles::path(dir, n))).collect();
    let mut seen = vec![Seen::default(); FILES as usize];
    let mut strange = 0;
    let followed = follow(&paths, || Ok(writer.try_wait()?.is_none()), |batch| strange += count(&batch, &mut seen));
    if followed.is_err() {
        // The writer's own end says nothing any more.
        let _ = writer.kill();
    }
    let mut told = String::new();
    writer.stdout.take().map_or(Ok(0), |mut out| out.read_to_string(&mut told))?;
    let status = writer.wait()?;
    let cpu = followed?.as_secs_f64();
    anyhow::ensure!(status.success(), "the writer ended with {status}");
    let took: f64 = told.trim().parse().context("the writer's time")?;
    let lines = (FILES * LINES_EACH) as f64;
    let lost: u64 = seen.iter().map(|seen| seen.lost + LINES_EACH - seen.last).sum();
    let twice: u64 = seen.iter().map(|seen| seen.twice).sum();
    let share = 100.0 * cpu / lines * PER_SECOND;
    Ok(vec![
        Row::new("following 10 rotating log files, 1,000,000 lines a second in all: the follower", share, "% of a core")
            .at_most(20.0)
            .grows("linear in bytes of lines; a quiet file costs one look in 200 ms")
            .note(format!(
                "{lines:.0} lines of 150 bytes in {took:.1} s ({:.0} lines/s), written and rotated by another process at 32 MiB, 3 files kept; \
                 CPU time of its thread",
                lines / took
            )),
        Row::new("lines lost of those", lost as f64, "lines").at_most(0.0),
        Row::new("lines twice of those", (twice + strange) as f64, "lines").at_most(0.0),
    ])
}

/// Counts one file's lines out of a batch; answers how many were none of the writer's.
fn count(batch: &LineBatch, seen: &mut [Seen]) -> u64 {
    let Some(seen) = batch.source.parse().ok().and_then(|n: usize| seen.get_mut(n)) else { return batch.events.len() as u64 };
    let mut strange = 0;
    for event in &batch.events {
        match event.message.strip_prefix("line ").and_then(|rest| rest.split(' ').next()?.parse().ok()) {
            Some(number) => seen.line(number),
            None => strange += 1,
        }
    }
    strange
}

/// The writer: `beaufort testbed write-logs DIRECTORY FILES LINES LINES-A-SECOND`.
pub fn write(arguments: &[String]) -> io::Result<f64> {
    let number = |at: usize| arguments.get(at).and_then(|text| text.parse::<f64>().ok()).ok_or(io::ErrorKind::InvalidInput);
    let directory = arguments.first().ok_or(io::ErrorKind::InvalidInput)?;
    logfiles::write(Path::new(directory), number(1)? as u64, number(2)? as u64, number(3)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_counted_once() {
        let dir = std::env::temp_dir().join(format!("beaufort-bench-follower-test-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        logfiles::write(&dir, 2, 3_000, 1e6).unwrap();
        let paths: BTreeMap<_, _> = (0..2).map(|n| (n.to_string(), logfiles::path(&dir, n))).collect();
        let (mut seen, mut strange) = (vec![Seen::default(); 2], 0);
        follow(&paths, || Ok(false), |batch| strange += count(&batch, &mut seen)).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(strange, 0);
        assert!(seen.iter().all(|seen| (seen.last, seen.lost, seen.twice) == (3_000, 0, 0)));
        let mut gaps = Seen::default();
        [1, 2, 5, 5].into_iter().for_each(|n| gaps.line(n));
        assert_eq!((gaps.last, gaps.lost, gaps.twice), (5, 2, 1));
    }
}
