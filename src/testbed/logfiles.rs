//! Writes log files as Docker's json-file driver does, at a rate, and rotates them: what the follower is measured with.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// As the agent asks of Docker: max-size and max-file.
const MAX_SIZE: u64 = 32 << 20;
const MAX_FILES: u32 = 3;
const TICK: Duration = Duration::from_millis(5);
const WIDTH: usize = 72;

/// `x.log`, its rotated files, and how far it is.
struct Log {
    path: PathBuf,
    file: File,
    size: u64,
    lines: u64,
}

/// Lines `line 1 xxx` to `line n xxx` into each of the files; seconds that it took.
pub fn write(directory: &Path, files: u64, lines_each: u64, per_second: f64) -> io::Result<f64> {
    let mut logs = (0..files).map(|n| Log::new(path(directory, n))).collect::<io::Result<Vec<_>>>()?;
    let (began, mut buffer) = (Instant::now(), Vec::new());
    let mut written = 0;
    while written < lines_each {
        let due = (began.elapsed().as_secs_f64() * per_second / files as f64) as u64;
        for log in &mut logs {
            log.write_to(due.min(lines_each), &mut buffer)?;
        }
        written = logs.iter().map(|log| log.lines).min().unwrap_or(lines_each);
        std::thread::sleep(TICK);
    }
    Ok(began.elapsed().as_secs_f64())
}

pub fn path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number}-json.log"))
}

impl Log {
    fn new(path: PathBuf) -> io::Result<Log> {
        let file = File::options().create(true).append(true).open(&path)?;
        Ok(Log { path, file, size: 0, lines: 0 })
    }

    fn write_to(&mut self, due: u64, buffer: &mut Vec<u8>) -> io::Result<()> {
        while self.lines < due {
            if self.size >= MAX_SIZE {
                self.rotate()?;
            }
            buffer.clear();
            while self.lines < due && buffer.len() < 64 << 10 {
                self.lines += 1;
                let (line, nanos) = (self.lines, self.lines % 1_000_000_000);
                writeln!(
                    buffer,
                    "{{\"log\":\"line {line} {:x<WIDTH$}\\n\",\"stream\":\"stdout\",\"time\":\"2026-11-20T10:55:36.{nanos:09}Z\"}}",
                    ""
                )?;
            }
            self.file.write_all(buffer)?;
            self.size += buffer.len() as u64;
        }
        Ok(())
    }

    /// Docker's order: close, remove the oldest, move the others on, open anew.
    fn rotate(&mut self) -> io::Result<()> {
        let name = |k: u32| PathBuf::from(format!("{}.{k}", self.path.display()));
        let _ = fs::remove_file(name(MAX_FILES - 1));
        for k in (1..MAX_FILES - 1).rev() {
            let _ = fs::rename(name(k), name(k + 1));
        }
        fs::rename(&self.path, name(1))?;
        *self = Log { lines: self.lines, ..Log::new(self.path.clone())? };
        Ok(())
    }
}
