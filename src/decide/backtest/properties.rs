//! What holds for every load and policy.

use proptest::prelude::*;

use super::tests::{setup, shared, tracking};
use super::*;

fn any_load() -> impl Strategy<Value = Vec<f64>> {
    proptest::collection::vec((5_usize..60, 0.0_f64..6.0), 1..8)
        .prop_map(|parts| parts.into_iter().flat_map(|(seconds, load)| std::iter::repeat_n(load, seconds)).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    /// Within the bounds once inside of them, and task-hours are the integral of the curve.
    #[test]
    fn capacity_stays_within_its_bounds(load in any_load(), ran in 1_u32..8, target in 20.0_f64..90.0, min in 1_u32..4, more in 0_u32..8) {
        let bounds = (min, min + more);
        let started = ran.clamp(bounds.0, bounds.1);
        let outcome = run(&setup(vec![tracking("cpu", target)], load.len(), bounds), &shared(&load, started));
        prop_assert_eq!(outcome.running.len(), load.len());
        prop_assert_eq!(outcome.metric.len(), load.len());
        for (desired, running) in outcome.desired.iter().zip(&outcome.running) {
            prop_assert!((bounds.0..=bounds.1).contains(desired) && running <= &bounds.1, "{desired} desired, {running} run");
        }
        let figures = Figures::of_outcome(&outcome, Yardstick::default());
        let integral: u64 = outcome.running.iter().map(|n| u64::from(*n)).sum();
        prop_assert_eq!(figures.task_hours(), integral as f64 / 3_600.0);
        prop_assert_eq!(figures.outs + figures.ins, outcome.moves().len());
    }

    /// A load that does not change: a policy that lets tasks be busier never has more of them, once both are at rest.
    #[test]
    fn a_looser_policy_never_needs_more(load in 0.2_f64..6.0, ran in 1_u32..10, target in 20.0_f64..60.0, looser in 5.0_f64..40.0) {
        let load = vec![load; 300];
        let rest = |target: f64| {
            let outcome = run(&setup(vec![tracking("cpu", target)], load.len(), (1, 40)), &shared(&load, ran.max(load[0].ceil() as u32)));
            (outcome.running[299], outcome.moves().iter().filter(|step| step.to > step.from).count())
        };
        let ((tight, outs), (loose, looser_outs)) = (rest(target), rest(target + looser));
        prop_assert!(loose <= tight, "{loose} tasks at {} %, {tight} at {target} %", target + looser);
        prop_assert!(looser_outs <= outs, "{looser_outs} scale-outs at {} %, {outs} at {target} %", target + looser);
    }

    /// A load that only grows: at no moment has the looser policy more tasks.
    #[test]
    fn a_looser_policy_is_never_ahead_of_a_growing_load(steps in proptest::collection::vec(0.0_f64..1.0, 1..5), target in 20.0_f64..60.0, looser in 5.0_f64..40.0) {
        let mut sum = 1.0;
        let load: Vec<f64> = steps.iter().flat_map(|more| { sum += more; std::iter::repeat_n(sum, 60) }).collect();
        let curve = |target: f64| run(&setup(vec![tracking("cpu", target)], load.len(), (6, 60)), &shared(&load, 6)).running;
        for (second, (tight, loose)) in curve(target).into_iter().zip(curve(target + looser)).enumerate() {
            prop_assert!(loose <= tight, "second {second}: {loose} tasks at {} %, {tight} at {target} %", target + looser);
        }
    }

    /// The same record and the same policies come to the same, to the last decision.
    #[test]
    fn a_back_test_is_repeatable(load in any_load(), ran in 1_u32..8) {
        let setup = setup(vec![tracking("cpu", 50.0), tracking("tighter", 30.0)], load.len(), (1, 12));
        let record = shared(&load, ran);
        prop_assert_eq!(run(&setup, &record), run(&setup, &record));
    }
}
