//! Many scripts on a few threads, each world in a directory of its own where writing costs little.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use super::check::{Breach, Rule};
use super::clock::START;
use super::script::Script;
use super::{Report, run_in};

/// Directories of one process.
static NUMBER: AtomicU64 = AtomicU64::new(0);

/// A place for a world's files. In memory where there is such a place: what is checked is what was written before whom was
/// answered, not the disk.
pub fn new_dir() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    let parent = if memory.is_dir() { memory } else { std::env::temp_dir() };
    parent.join(format!("beaufort-sim-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed)))
}

/// A run that panics or cannot begin is broken too.
pub fn run_one(script: &Script, ledger: bool) -> Report {
    let dir = new_dir();
    let ended = catch_unwind(AssertUnwindSafe(|| run_in(&dir, script, ledger)));
    let why = match ended {
        Ok(Ok(report)) => return report,
        Ok(Err(error)) => format!("the world ended: {error:#}"),
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            format!("the world panicked: {}", text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default())
        }
    };
    let _ = std::fs::remove_dir_all(&dir);
    let breaches = vec![Breach { at: START, rule: Rule::Checks, what: why }];
    Report { seed: script.head.seed, breaches, ..Report::default() }
}

/// Runs what `next` gives until it gives nothing more, and hands each report to `done`; false from it ends all.
pub fn run_all(
    threads: usize,
    ledger: bool,
    next: impl FnMut() -> Option<Script> + Send,
    done: impl FnMut(&Script, Report) -> bool + Send,
) {
    let (next, done) = (Mutex::new(Some(next)), Mutex::new(done));
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                loop {
                    let script = next.lock().unwrap_or_else(PoisonError::into_inner).as_mut().and_then(|next| next());
                    let Some(script) = script else { return };
                    let report = run_one(&script, ledger);
                    let goes_on = done.lock().unwrap_or_else(PoisonError::into_inner)(&script, report);
                    if !goes_on {
                        *next.lock().unwrap_or_else(PoisonError::into_inner) = None;
                    }
                }
            });
        }
    });
}
