//! What holds for every policy, history and load.

use proptest::prelude::*;

use super::tests::{Case, NOW, high, low, step, stepping, target, tracking};
use super::{Scaling, validate};
use crate::model::decision::ReasonCode;
use crate::model::scaling::{AdjustmentType, PolicyKind, ScalableTarget, Scaled, Step, TargetTracking};

/// Intervals as validation admits them: sorted cuts around zero, open at both ends.
fn any_steps() -> impl Strategy<Value = Vec<Step>> {
    (proptest::collection::btree_set(-50_i32..50, 1..8), proptest::collection::vec(-30_i64..200, 9)).prop_map(|(cuts, by)| {
        let cuts: Vec<f64> = cuts.into_iter().map(f64::from).collect();
        let lowers = std::iter::once(None).chain(cuts.iter().copied().map(Some));
        let uppers = cuts.iter().copied().map(Some).chain(std::iter::once(None));
        lowers.zip(uppers).zip(by).map(|((lower, upper), adjustment)| step(lower, upper, adjustment)).collect()
    })
}

fn any_kind() -> impl Strategy<Value = PolicyKind> {
    let types = vec![AdjustmentType::ChangeInCapacity, AdjustmentType::PercentChangeInCapacity, AdjustmentType::ExactCapacity];
    prop_oneof![
        (1.0..200.0).prop_map(|target| PolicyKind::TargetTracking(TargetTracking { target, ..tracking() })),
        (any_steps(), proptest::sample::select(types))
            .prop_map(|(steps, adjustment)| PolicyKind::Step(stepping(adjustment, &steps))),
    ]
}

fn any_scaled() -> impl Strategy<Value = Option<Scaled>> {
    proptest::option::of((0_i64..20_000, 0_u32..20, 0_u32..20).prop_map(|(ago, from, to)| Scaled {
        at: NOW - ago,
        from,
        to,
        policy: "cpu".to_owned(),
    }))
}

proptest! {
    /// Whatever the policy and whatever happened before: the result lies within the bounds, it is a change, and a policy of one
    /// direction never goes the other way.
    #[test]
    fn results_stay_within_bounds_and_keep_their_direction(
        kind in any_kind(), upward in any::<bool>(), recent in proptest::collection::vec(-50.0..400.0, 0..6),
        desired in 0_u32..25, running in 0_u32..25, min in 0_u32..10, more in 0_u32..10,
        last_out in any_scaled(), last_in in any_scaled(), deploying in any::<bool>(),
    ) {
        let alarm = if upward { high(&recent) } else { low(&recent) };
        let tracks = matches!(kind, PolicyKind::TargetTracking(_));
        let case = Case::new(alarm, desired, running).with(|c| {
            c.policy.kind = kind;
            c.target = ScalableTarget { last_out, last_in, ..target(min, min + more) };
            c.deploying = deploying;
        });
        let scaling = case.decide();
        if let Scaling::To { desired: to, reason } = &scaling {
            prop_assert!((min..=min + more).contains(to), "{:?}", scaling);
            match reason.code {
                ReasonCode::ScaledOut => prop_assert!(*to > desired && (upward || !tracks)),
                ReasonCode::ScaledIn => prop_assert!(*to < desired && !deploying && !(upward && tracks)),
                code => prop_assert!(false, "{:?}", code),
            }
        }
    }

    #[test]
    fn a_metric_on_its_target_changes_nothing(target_value in 0.1..1000.0, count in 1_u32..100, upward in any::<bool>()) {
        let recent = [target_value; 3];
        let alarm = if upward { high(&recent) } else { low(&recent) };
        let case = Case::new(alarm, count, count).with(|c| {
            c.target = target(1, 200);
            c.policy.kind = PolicyKind::TargetTracking(TargetTracking { target: target_value, ..tracking() });
        });
        prop_assert!(!matches!(case.decide(), Scaling::To { .. }), "{:?}", case.decide());
    }

    /// After a scale-out has come true and the load is the same, no further one and no scale-in follows.
    #[test]
    fn one_scale_out_is_enough(metric in 50.1..500.0, running in 1_u32..40) {
        let case = Case::new(high(&[metric]), running, running).with(|c| c.target = target(1, 1000));
        let Scaling::To { desired, .. } = case.decide() else { panic!("above its target") };
        let carried = metric * f64::from(running) / f64::from(desired);
        prop_assert!(carried <= 50.0 + 1e-6);
        for alarm in [high(&[carried]), low(&[carried])] {
            let after = Case::new(alarm, desired, desired).with(|c| c.target = target(1, 1000));
            prop_assert!(!matches!(after.decide(), Scaling::To { .. }), "{:?}", after.decide());
        }
    }

    #[test]
    fn exactly_one_step_matches(steps in any_steps(), beyond in -60.0_f64..60.0, upward in any::<bool>()) {
        let kind = stepping(AdjustmentType::ChangeInCapacity, &steps);
        prop_assert_eq!(validate(&PolicyKind::Step(kind)), Ok(()));
        for beyond in [beyond, beyond.round()] {
            let matching = steps.iter().filter(|s| super::step::select(std::slice::from_ref(s), beyond, upward).is_some()).count();
            prop_assert_eq!(matching, 1);
        }
    }
}
