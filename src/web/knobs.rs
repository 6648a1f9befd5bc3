//! What the sample service may be told while it runs: `GET /knobs` shows the knobs, `POST /knobs?cpu_ms=20&error_rate=0.1` turns them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::{milliseconds, share, work};

pub const MAX_CONCURRENCY: usize = 256;
const MAX_MEMORY_MIB: usize = 16 << 10;

#[derive(Clone, Debug, PartialEq)]
pub struct Knobs {
    pub cpu: Duration,
    pub latency: Duration,
    pub error_rate: f64,
    pub concurrency: usize,
    /// Between being told to end and taking no more.
    pub drain: Duration,
}

/// The knobs as they stand, and what hangs on them.
pub struct Panel(Mutex<Standing>);

struct Standing {
    knobs: Knobs,
    /// Replaced when the concurrency changes: who waits at the old one is still served there.
    turn: Arc<Semaphore>,
    held: Vec<u8>,
}

/// What a request asks for: of each knob the new place, or none.
#[derive(Default)]
struct Turned {
    cpu: Option<Duration>,
    latency: Option<Duration>,
    error_rate: Option<f64>,
    memory_mib: Option<usize>,
    concurrency: Option<usize>,
}

impl Panel {
    pub fn new(knobs: Knobs, held: Vec<u8>) -> Panel {
        let turn = Arc::new(Semaphore::new(knobs.concurrency));
        Panel(Mutex::new(Standing { knobs, turn, held }))
    }

    fn lock(&self) -> MutexGuard<'_, Standing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn now(&self) -> (Knobs, Arc<Semaphore>) {
        let standing = self.lock();
        (standing.knobs.clone(), standing.turn.clone())
    }

    /// As JSON, in the names that [`Panel::turn`] takes.
    pub fn show(&self) -> String {
        let standing = self.lock();
        let Knobs { cpu, latency, error_rate, concurrency, .. } = standing.knobs;
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let shown = serde_json::json!({ "cpu_ms": ms(cpu), "latency_ms": ms(latency), "error_rate": error_rate,
            "memory_mib": standing.held.len() >> 20, "concurrency": concurrency });
        format!("{shown}\n")
    }

    /// All that the query says, or nothing of it. Touching memory takes its time: call it where that may block.
    pub fn turn(&self, query: &str) -> Result<(), String> {
        let turned = read(query)?;
        // The old goes first, so that the two together need not fit; what cannot be had leaves nothing held.
        let held = turned.memory_mib.map(|mebibytes| {
            self.lock().held = Vec::new();
            work::hold(mebibytes).ok_or_else(|| format!("memory_mib={mebibytes}: so much memory cannot be had"))
        });
        let held = held.transpose()?;
        let mut standing = self.lock();
        let knobs = &mut standing.knobs;
        knobs.cpu = turned.cpu.unwrap_or(knobs.cpu);
        knobs.latency = turned.latency.unwrap_or(knobs.latency);
        knobs.error_rate = turned.error_rate.unwrap_or(knobs.error_rate);
        if let Some(concurrency) = turned.concurrency {
            knobs.concurrency = concurrency;
            standing.turn = Arc::new(Semaphore::new(concurrency));
        }
        standing.held = held.unwrap_or_else(|| std::mem::take(&mut standing.held));
        Ok(())
    }
}

fn read(query: &str) -> Result<Turned, String> {
    let mut turned = Turned::default();
    let mut any = false;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, text) = pair.split_once('=').unwrap_or((pair, ""));
        let of = |why: String| format!("{name}={text}: {why}");
        let time = || milliseconds(text).map(|ms| Some(Duration::from_secs_f64(ms / 1e3))).map_err(of);
        let count = |most: usize, least: usize| match text.parse::<usize>() {
            Ok(number) if (least..=most).contains(&number) => Ok(Some(number)),
            _ => Err(of(format!("it is {least} to {most}"))),
        };
        match name {
            "cpu_ms" => turned.cpu = time()?,
            "latency_ms" => turned.latency = time()?,
            "error_rate" => turned.error_rate = Some(share(text).map_err(of)?),
            "memory_mib" => turned.memory_mib = count(MAX_MEMORY_MIB, 0)?,
            "concurrency" => turned.concurrency = count(MAX_CONCURRENCY, 1)?,
            _ => return Err(format!("there is no knob {name}; there are {NAMES}")),
        }
        any = true;
    }
    if any { Ok(turned) } else { Err(format!("name a knob: POST /knobs?cpu_ms=20; there are {NAMES}")) }
}

const NAMES: &str = "cpu_ms, latency_ms, error_rate, memory_mib and concurrency";

#[cfg(test)]
mod tests {
    use super::*;

    fn panel() -> Panel {
        let knobs = Knobs {
            cpu: Duration::from_millis(2),
            latency: Duration::ZERO,
            error_rate: 0.0,
            concurrency: 2,
            drain: Duration::ZERO,
        };
        Panel::new(knobs, Vec::new())
    }

    #[test]
    fn knobs_are_turned_together_or_not_at_all() {
        let panel = panel();
        panel.turn("cpu_ms=20.5&latency_ms=7&error_rate=0.25&memory_mib=3&concurrency=9").unwrap();
        let all = serde_json::json!({"cpu_ms": 20.5, "latency_ms": 7.0, "error_rate": 0.25, "memory_mib": 3, "concurrency": 9});
        let shown = |panel: &Panel| serde_json::from_str::<serde_json::Value>(&panel.show()).unwrap();
        assert_eq!(shown(&panel), all);
        assert_eq!(panel.now().1.available_permits(), 9);
        for (query, why) in [
            ("", "name a knob"),
            ("cpu_ms", "cpu_ms=: "),
            ("cpu_ms=1&latency_ms=-1", "latency_ms=-1: "),
            ("cpu_ms=60001", "0 to 60000"),
            ("error_rate=1.5", "0 to 1"),
            ("memory_mib=16385", "0 to 16384"),
            ("concurrency=0", "1 to 256"),
            ("cpu_ms=1&speed=3", "no knob speed"),
        ] {
            let refused = panel.turn(query).unwrap_err();
            assert!(refused.contains(why), "{query}: {refused}");
            assert_eq!(shown(&panel), all, "{query} changed something");
        }
        panel.turn("memory_mib=0").unwrap();
        assert_eq!(shown(&panel)["memory_mib"], 0);
    }
}
