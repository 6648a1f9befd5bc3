//! How long to wait after the nth failure in a row. Owns curves only: who counts, and what counts as a failure, is the caller's.

use crate::model::Millis;

/// Failures in a row that cost nothing: a first bad start is often chance.
pub const FREE_FAILURES: u32 = 2;
/// The first wait of the restart throttle.
pub const THROTTLE_BASE_MS: Millis = 1_000;
/// ECS's longest wait between starts of tasks that never reach RUNNING (Developer Guide, "Service throttle logic").
pub const THROTTLE_MAX_MS: Millis = 27 * 60 * 1_000;

/// The restart throttle after `n` tasks in a row that did not reach RUNNING. ECS publishes only the curve's end; ours starts
/// small, because seconds are the point, and doubles.
pub fn after_failures(n: u32) -> Millis {
    exponential(n.saturating_sub(FREE_FAILURES), THROTTLE_BASE_MS, THROTTLE_MAX_MS)
}

/// The throttle that follows one of `previous` milliseconds, on the curve of [`after_failures`].
pub fn after_throttle(previous: Millis) -> Millis {
    previous.saturating_mul(2).clamp(THROTTLE_BASE_MS, THROTTLE_MAX_MS)
}

/// The wait after the nth failure in a row: `base_ms`, doubled for each further one, at most `max_ms`. 0 failures wait for nothing.
pub fn exponential(n: u32, base_ms: Millis, max_ms: Millis) -> Millis {
    let Some(doublings) = n.checked_sub(1) else { return 0 };
    match 1_i64.checked_shl(doublings) {
        Some(factor) if factor > 0 => base_ms.saturating_mul(factor).min(max_ms),
        _ => max_ms,
    }
}

/// Spreads a wait over its upper half, so that many who failed together do not come back together. `spread` is a random number
/// in 0..1; anything else is taken as the nearer end.
pub fn jittered(wait: Millis, spread: f64) -> Millis {
    let spread = if spread.is_finite() { spread.clamp(0.0, 1.0) } else { 1.0 };
    wait - ((wait / 2) as f64 * (1.0 - spread)) as Millis
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_throttle_starts_small_and_ends_at_27_minutes() {
        let waits: Vec<Millis> = (0..=6).map(after_failures).collect();
        assert_eq!(waits, [0, 0, 0, 1_000, 2_000, 4_000, 8_000]);
        assert_eq!(after_failures(13), 1_024_000);
        assert_eq!(after_failures(14), THROTTLE_MAX_MS);
        assert_eq!(after_failures(u32::MAX), THROTTLE_MAX_MS);
    }

    #[test]
    fn the_next_throttle_is_the_curve_s_next_point() {
        for n in FREE_FAILURES..40 {
            assert_eq!(after_throttle(after_failures(n)), after_failures(n + 1), "after {n}");
        }
    }

    proptest! {
        #[test]
        fn grows_and_stays_within_its_bounds(n in 0_u32..200, base in 1_i64..100_000, over in 0_i64..10_000_000) {
            let max = base + over;
            let wait = exponential(n, base, max);
            prop_assert!(wait <= max);
            prop_assert!(wait <= exponential(n + 1, base, max));
            prop_assert_eq!(wait == 0, n == 0);
        }

        #[test]
        fn jitter_keeps_the_upper_half(wait in 0_i64..10_000_000, spread in 0.0..1.0) {
            let jittered = jittered(wait, spread);
            prop_assert!(jittered <= wait && jittered >= wait / 2);
        }
    }
}
