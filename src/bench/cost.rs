//! What a stretch of work cost: time on the wall, and time of a processor, which others on the machine take nothing from.

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

pub struct Cost {
    began: Instant,
    thread: Duration,
    process: Duration,
}

/// Seconds.
#[derive(Clone, Copy, Debug)]
pub struct Spent {
    pub wall: f64,
    /// Of the thread that asked.
    pub thread: f64,
    /// Of all of this process' threads.
    pub process: f64,
}

impl Cost {
    pub fn start() -> Cost {
        Cost {
            began: Instant::now(),
            thread: cpu(ClockId::CLOCK_THREAD_CPUTIME_ID),
            process: cpu(ClockId::CLOCK_PROCESS_CPUTIME_ID),
        }
    }

    pub fn spent(&self) -> Spent {
        let since = |clock, then: Duration| cpu(clock).saturating_sub(then).as_secs_f64().max(1e-9);
        Spent {
            wall: self.began.elapsed().as_secs_f64().max(1e-9),
            thread: since(ClockId::CLOCK_THREAD_CPUTIME_ID, self.thread),
            process: since(ClockId::CLOCK_PROCESS_CPUTIME_ID, self.process),
        }
    }
}

fn cpu(clock: ClockId) -> Duration {
    clock_gettime(clock).map(Duration::from).unwrap_or_default()
}

/// Bytes of this process in memory.
pub fn resident_bytes() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_ascii_whitespace().next()?.parse::<f64>().ok().map(|kib| kib * 1024.0)
}
