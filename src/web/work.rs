//! The work itself: CPU that is really burnt, memory that is really held, errors that come evenly.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Steps between two looks at the clock: some microseconds.
const STEPS: u32 = 4_096;

/// Keeps this thread's CPU busy for so much of its own CPU time: when the thread is throttled, it takes longer, as real work does.
pub fn burn(cpu: Duration) {
    let until = thread_cpu() + cpu;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    while thread_cpu() < until {
        for _ in 0..STEPS {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
        }
        std::hint::black_box(state);
    }
}

/// CPU time of the calling thread; to the nanosecond, where getrusage's is a timer tick behind.
pub fn thread_cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::MAX, Duration::from)
}

/// Memory whose pages are touched, so that they are there.
pub fn hold(mebibytes: usize) -> Option<Vec<u8>> {
    let size = mebibytes.checked_mul(1 << 20)?;
    let mut held = Vec::new();
    held.try_reserve_exact(size).ok()?;
    held.resize(size, 1);
    Some(std::hint::black_box(held))
}

/// Whether the n-th request (from 1) is one of the share that fails: evenly spread, and the same in every run.
pub fn is_error(n: u64, share: f64) -> bool {
    let failed = |n: u64| (n as f64 * share + 1e-9).floor();
    n > 0 && failed(n) > failed(n - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_is_really_burnt() {
        for cpu in [Duration::from_millis(3), Duration::from_millis(40)] {
            let before = thread_cpu();
            burn(cpu);
            let burnt = thread_cpu() - before;
            assert!(burnt >= cpu && burnt < cpu + Duration::from_millis(15), "{burnt:?} for {cpu:?}");
        }
    }

    #[test]
    fn errors_come_evenly() {
        for (share, of, expected) in [(0.0, 1000, 0), (0.1, 1000, 100), (0.25, 8, 2), (1.0, 7, 7), (0.3, 10, 3)] {
            let errors: Vec<u64> = (1..=of).filter(|n| is_error(*n, share)).collect();
            assert_eq!(errors.len(), expected, "{share}");
        }
        assert_eq!((1..=8).filter(|n| is_error(*n, 0.25)).collect::<Vec<_>>(), [4, 8]);
    }

    #[test]
    fn memory_is_held_or_refused() {
        assert_eq!(hold(3).unwrap().len(), 3 << 20);
        assert!(hold(usize::MAX).is_none());
        assert!(hold(1 << 43).is_none());
    }
}
