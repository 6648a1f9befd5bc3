//! Scaling by table.

use super::*;
use crate::model::ServiceKey;
use crate::model::alarm::{AlarmState, Comparison};
use crate::model::arn::Home;
use crate::model::decision::ReasonCode;
use crate::model::metric::{MetricKey, Statistic};
use crate::model::scaling::{
    AdjustmentType, Aggregation, NotScaledCode, Scaled, Step, StepScaling, TargetTracking, TrackedMetric,
};

pub(super) const NOW: Timestamp = Timestamp(1_795_170_000_000);

pub(super) fn target(min: u32, max: u32) -> ScalableTarget {
    ScalableTarget {
        service: ServiceKey::new("shop", "web"),
        id: "t".to_owned(),
        min,
        max,
        suspend_in: false,
        suspend_out: false,
        suspend_scheduled: false,
        tags: Vec::new(),
        created_at: NOW,
        last_out: None,
        last_in: None,
    }
}

pub(super) fn policy(name: &str, kind: PolicyKind) -> ScalingPolicy {
    ScalingPolicy {
        service: ServiceKey::new("shop", "web"),
        name: name.to_owned(),
        uuid: "u".to_owned(),
        arn: format!("arn:aws:autoscaling:r:a:scalingPolicy:u:resource/ecs/service/shop/web:policyName/{name}"),
        kind,
        alarms: Vec::new(),
        created_at: NOW,
    }
}

fn predefined(name: &str) -> TrackedMetric {
    TrackedMetric::Predefined { name: name.to_owned(), resource_label: None }
}

pub(super) fn tracking() -> TargetTracking {
    TargetTracking {
        target: 50.0,
        metric: predefined("ECSServiceAverageCPUUtilization"),
        out_cooldown_ms: Some(10_000),
        in_cooldown_ms: Some(10_000),
        disable_scale_in: false,
    }
}

fn cpu() -> ScalingPolicy {
    policy("cpu", PolicyKind::TargetTracking(tracking()))
}

pub(super) fn step(lower: Option<f64>, upper: Option<f64>, adjustment: i64) -> Step {
    Step { lower, upper, adjustment }
}

pub(super) fn stepping(adjustment: AdjustmentType, steps: &[Step]) -> StepScaling {
    StepScaling {
        adjustment,
        steps: steps.to_vec(),
        min_adjustment_magnitude: None,
        cooldown_ms: Some(10_000),
        aggregation: Aggregation::Average,
    }
}

fn alarms(policy: &ScalingPolicy) -> Vec<Alarm> {
    let mut count = 0;
    let mut uuid = || {
        count += 1;
        format!("uuid-{count}")
    };
    policy_alarms(policy, &Home::new("us-east-1", "000000000000"), &mut uuid, NOW)
}

/// The managed alarm, raised by these values.
fn raised(comparison: Comparison, threshold: f64, recent: &[f64]) -> Alarm {
    let alarm = alarms(&cpu()).remove(0);
    Alarm { comparison, threshold, recent: recent.to_vec(), state: AlarmState::Alarm, ..alarm }
}

pub(super) fn high(recent: &[f64]) -> Alarm {
    raised(Comparison::GreaterThanThreshold, 50.0, recent)
}

pub(super) fn low(recent: &[f64]) -> Alarm {
    raised(Comparison::LessThanThreshold, 45.0, recent)
}

pub(super) struct Case {
    pub policy: ScalingPolicy,
    pub target: ScalableTarget,
    pub alarm: Alarm,
    pub desired: u32,
    pub running: u32,
    pub deploying: bool,
    pub siblings: Vec<(ScalingPolicy, Option<Alarm>)>,
}

impl Case {
    pub fn new(alarm: Alarm, desired: u32, running: u32) -> Case {
        Case { policy: cpu(), target: target(1, 10), alarm, desired, running, deploying: false, siblings: Vec::new() }
    }
    pub fn with(mut self, change: impl FnOnce(&mut Case)) -> Case {
        change(&mut self);
        self
    }
    pub fn on<T>(&self, ask: impl FnOnce(&Inputs) -> T) -> T {
        let siblings: Vec<_> = self.siblings.iter().map(|(p, a)| (p, a.as_ref())).collect();
        ask(&Inputs {
            policy: &self.policy,
            target: &self.target,
            alarm: &self.alarm,
            desired: self.desired,
            running: self.running,
            deployment_in_progress: self.deploying,
            siblings: &siblings,
        })
    }
    pub fn decide(&self) -> Scaling {
        self.on(|inputs| decide(inputs, NOW))
    }
}

/// `-> 6`, `not AlreadyAtMaxCapacity`, `wait in_cooldown 4000`.
fn said(scaling: &Scaling) -> String {
    match scaling {
        Scaling::To { desired, .. } => format!("-> {desired}"),
        Scaling::Not { not_scaled, .. } => format!("not {}", not_scaled.code.as_str()),
        Scaling::Wait { until, reason } => {
            let remaining = until.map(|u| format!(" {}", u.since(NOW))).unwrap_or_default();
            format!("wait {}{remaining}", reason.code.as_str())
        }
    }
}

fn check(case: Case, expected: &str) {
    let scaling = case.decide();
    assert_eq!(said(&scaling), expected, "{scaling:?}");
    let reason = match &scaling {
        Scaling::To { reason, .. } | Scaling::Not { reason, .. } | Scaling::Wait { reason, .. } => reason,
    };
    for name in ["running", "desired", "min", "max", "policy", "alarm"] {
        assert!(reason.evidence.contains_key(name), "{name} in {reason:?}");
    }
}

fn scaled(ago_ms: i64, from: u32, to: u32) -> Option<Scaled> {
    Some(Scaled { at: NOW - ago_ms, from, to, policy: "cpu".to_owned() })
}

#[test]
fn out_in_proportion_to_the_metric() {
    check(Case::new(high(&[75.0]), 1, 1), "-> 2");
    check(Case::new(high(&[140.0, 143.0, 146.6]), 2, 2), "-> 6");
    // The running count is the base, and what is ordered already is not ordered again.
    check(Case::new(high(&[100.0]), 4, 2), "not AlreadyAtDesiredCapacity");
    check(Case::new(high(&[200.0]), 4, 2), "-> 8");
    // Nothing runs: the datapoint brings one task.
    check(Case::new(high(&[90.0]), 0, 0).with(|c| c.target.min = 0), "-> 1");
    check(Case::new(high(&[90.0]), 3, 0), "not AlreadyAtDesiredCapacity");
    check(Case::new(high(&[500.0]), 2, 2), "-> 10");
    check(Case::new(high(&[500.0]), 10, 10), "not AlreadyAtMaxCapacity");
    check(Case::new(high(&[]), 2, 2), "wait no_data");
    check(Case::new(high(&[500.0]), 2, 2).with(|c| c.target.suspend_out = true), "wait suspended");
    // A deployment does not hold a scale-out back.
    check(Case::new(high(&[75.0]), 2, 2).with(|c| c.deploying = true), "-> 3");
}

#[test]
fn desired_outside_the_bounds() {
    check(Case::new(high(&[60.0]), 1, 1).with(|c| c.target.min = 4), "-> 4");
    check(Case::new(high(&[400.0]), 1, 1).with(|c| c.target.min = 4), "-> 8");
    check(Case::new(low(&[10.0]), 2, 2).with(|c| c.target.min = 4), "not AlreadyAtMinCapacity");
    check(Case::new(high(&[400.0]), 12, 12), "not AlreadyAtMaxCapacity");
    check(Case::new(low(&[44.0]), 12, 12), "-> 10");
}

#[test]
fn a_scale_out_in_cooldown_counts_what_was_just_added() {
    let cooling = |alarm, desired, running| Case::new(alarm, desired, running).with(|c| c.target.last_out = scaled(4_000, 2, 4));
    // 4 running at 75 need 6, two more; but two were added just now.
    check(cooling(high(&[75.0]), 4, 4), "wait in_cooldown 6000");
    // Need 8, four more: from 2 that makes 6.
    check(cooling(high(&[100.0]), 4, 4), "-> 6");
    // Still starting long after: the cooldown has not begun.
    let late = Case::new(high(&[85.0]), 4, 3).with(|c| c.target.last_out = scaled(60_000, 2, 4));
    check(late, "-> 5");
    let late = Case::new(high(&[70.0]), 4, 3).with(|c| c.target.last_out = scaled(60_000, 2, 4));
    check(late, "wait in_cooldown");
    let missing_later = Case::new(high(&[85.0]), 4, 3).with(|c| c.target.last_out = scaled(300_000, 2, 4));
    check(missing_later, "-> 6");
    check(Case::new(high(&[75.0]), 4, 4).with(|c| c.target.last_out = scaled(10_000, 2, 4)), "-> 6");
    // None: 300 s, as ECS has it.
    let default = Case::new(high(&[75.0]), 4, 4).with(|c| {
        c.target.last_out = scaled(299_000, 2, 4);
        c.policy.kind = PolicyKind::TargetTracking(TargetTracking { out_cooldown_ms: None, ..tracking() });
    });
    check(default, "wait in_cooldown 1000");
}

#[test]
fn in_gradually_and_only_when_everyone_is_ready() {
    check(Case::new(low(&[30.0]), 4, 4), "-> 3");
    check(Case::new(low(&[44.0]), 2, 2), "not AlreadyAtDesiredCapacity");
    // At most half at a time.
    check(Case::new(low(&[1.0]), 8, 8), "-> 4");
    check(Case::new(low(&[1.0]), 3, 3), "-> 2");
    check(Case::new(low(&[0.0]), 1, 1).with(|c| c.target.min = 0), "-> 0");
    check(Case::new(low(&[0.0]), 1, 1), "not AlreadyAtMinCapacity");
    check(Case::new(low(&[10.0]), 4, 0), "wait no_data");
    check(Case::new(low(&[10.0]), 4, 4).with(|c| c.deploying = true), "not TargetServicePutResourceAsUnscalable");
    check(Case::new(low(&[10.0]), 4, 4).with(|c| c.target.suspend_in = true), "wait suspended");
    check(Case::new(low(&[10.0]), 4, 4).with(|c| c.target.last_in = scaled(4_000, 5, 4)), "wait in_cooldown 6000");
    let cancelled = Case::new(low(&[10.0]), 4, 4).with(|c| {
        c.target.last_in = scaled(4_000, 5, 4);
        c.target.last_out = scaled(2_000, 4, 5);
    });
    check(cancelled, "-> 2");
    let disabled = TargetTracking { disable_scale_in: true, ..tracking() };
    check(Case::new(low(&[10.0]), 4, 4).with(|c| c.policy.kind = PolicyKind::TargetTracking(disabled)), "wait scale_in_disabled");
}

#[test]
fn a_scale_in_that_would_be_taken_back_is_not_made() {
    // Low on average, but the load has come back: 4 x 44 / 50 needs all four.
    let rising = [5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 44.0, 44.0, 44.0];
    check(Case::new(low(&rising), 4, 4), "not AutoScalingAnticipatedFlapping");
    let milder = [5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 35.0, 35.0, 35.0];
    check(Case::new(low(&milder), 4, 4), "-> 3");
}

#[test]
fn the_largest_need_of_all_target_tracking_policies_wins_a_scale_in() {
    let memory = || policy("memory", PolicyKind::TargetTracking(tracking()));
    let with =
        |sibling: ScalingPolicy, alarm: Option<Alarm>| Case::new(low(&[5.0]), 4, 4).with(|c| c.siblings = vec![(sibling, alarm)]);
    check(with(memory(), Some(low(&[35.0]))), "-> 3");
    check(with(memory(), None), "wait scale_in_not_ready");
    check(with(memory(), Some(Alarm { state: AlarmState::Ok, ..low(&[35.0]) })), "wait scale_in_not_ready");
    check(with(memory(), Some(Alarm { state: AlarmState::InsufficientData, ..low(&[]) })), "wait scale_in_not_ready");
    let disabled = policy("memory", PolicyKind::TargetTracking(TargetTracking { disable_scale_in: true, ..tracking() }));
    check(with(disabled, None), "-> 2");
    let steps = policy("steps", PolicyKind::Step(stepping(AdjustmentType::ChangeInCapacity, &[step(Some(0.0), None, 1)])));
    check(with(steps, None), "-> 2");
}

fn steps_out() -> Vec<Step> {
    vec![step(Some(0.0), Some(10.0), 1), step(Some(10.0), Some(20.0), 2), step(Some(20.0), None, 3)]
}

fn stepped(kind: StepScaling, alarm: Alarm, desired: u32, running: u32) -> Case {
    Case::new(alarm, desired, running).with(|c| c.policy = policy("steps", PolicyKind::Step(kind)))
}

#[test]
fn the_distance_from_the_threshold_picks_the_step() {
    let out = |metric: f64| stepped(stepping(AdjustmentType::ChangeInCapacity, &steps_out()), high(&[metric]), 2, 2);
    check(out(50.0), "-> 3");
    check(out(59.9), "-> 3");
    check(out(60.0), "-> 4");
    check(out(70.0), "-> 5");
    check(out(49.0), "wait no_step_matches");
    let steps = [step(Some(-10.0), Some(0.0), -1), step(None, Some(-10.0), -2)];
    let scale_in = |metric: f64| stepped(stepping(AdjustmentType::ChangeInCapacity, &steps), low(&[metric]), 5, 5);
    check(scale_in(45.0), "-> 4");
    check(scale_in(35.1), "-> 4");
    check(scale_in(35.0), "-> 3");
    check(scale_in(45.1), "wait no_step_matches");
    check(scale_in(35.0).with(|c| c.deploying = true), "not TargetServicePutResourceAsUnscalable");
    // Steps do not wait for the other policies.
    check(scale_in(35.0).with(|c| c.siblings = vec![(cpu(), None)]), "-> 3");
    for (aggregation, expected) in
        [(Aggregation::Minimum, "-> 3"), (Aggregation::Average, "-> 4"), (Aggregation::Maximum, "-> 5")]
    {
        let kind = StepScaling { aggregation, ..stepping(AdjustmentType::ChangeInCapacity, &steps_out()) };
        check(stepped(kind, high(&[55.0, 62.0, 75.0]), 2, 2), expected);
    }
}

#[test]
fn adjustments_are_rounded_as_aws_rounds_them() {
    let cases = [
        (10, 25, None, 2),
        (10, -25, None, -2),
        (3, 10, None, 1),
        (3, -10, None, -1),
        (10, 25, Some(4), 4),
        (10, -25, Some(4), -4),
        (0, 50, None, 1),
        (0, -50, None, 0),
        (7, 0, Some(2), 0),
        (u32::MAX, i64::MAX, None, i64::from(u32::MAX)),
    ];
    for (running, adjustment, min_adjustment_magnitude, expected) in cases {
        let kind = StepScaling { min_adjustment_magnitude, ..stepping(AdjustmentType::PercentChangeInCapacity, &[]) };
        assert_eq!(super::step::change(&kind, running, adjustment), expected, "{running} {adjustment}");
    }
    let exact = |adjustment| stepping(AdjustmentType::ExactCapacity, &[step(Some(0.0), None, adjustment)]);
    check(stepped(exact(7), high(&[60.0]), 2, 2), "-> 7");
    check(stepped(exact(2), high(&[60.0]), 5, 5), "-> 2");
    check(stepped(exact(5), high(&[60.0]), 5, 3), "not AlreadyAtDesiredCapacity");
    check(stepped(exact(70), high(&[60.0]), 5, 5), "-> 10");
}

/// AWS's example: 2 were added, then a step of 3 comes within the cooldown and adds 1; the same step again adds nothing.
#[test]
fn a_larger_step_in_cooldown_adds_the_difference_once() {
    let mut case = stepped(stepping(AdjustmentType::ChangeInCapacity, &steps_out()), high(&[60.0]), 2, 2);
    for (metric, expected) in [(60.0, "-> 4"), (60.0, "wait in_cooldown 10000"), (70.0, "-> 5"), (70.0, "wait in_cooldown 10000")]
    {
        case.alarm = high(&[metric]);
        let scaling = case.decide();
        assert_eq!(said(&scaling), expected, "{scaling:?}");
        if let Scaling::To { desired, .. } = scaling {
            case.target = case.on(|inputs| remember(inputs, desired, NOW));
            (case.desired, case.running) = (desired, desired);
        }
    }
    assert_eq!(case.target.last_out.map(|s| (s.from, s.to)), Some((2, 5)));
}

/// Half of what was there before the first step, not half of what it has added: asked each second, a share of the running count would
/// grow without end inside its own cooldown.
#[test]
fn a_percentage_in_cooldown_is_of_the_capacity_before_it() {
    let steps = [step(Some(0.0), Some(10.0), 50), step(Some(10.0), None, 100)];
    let mut case = stepped(stepping(AdjustmentType::PercentChangeInCapacity, &steps), high(&[55.0]), 4, 4);
    for (metric, expected) in [(55.0, "-> 6"), (55.0, "wait in_cooldown 10000"), (65.0, "-> 8"), (65.0, "wait in_cooldown 10000")]
    {
        case.alarm = high(&[metric]);
        let scaling = case.decide();
        assert_eq!(said(&scaling), expected, "{scaling:?}");
        if let Scaling::To { desired, .. } = scaling {
            case.target = case.on(|inputs| remember(inputs, desired, NOW));
            (case.desired, case.running) = (desired, desired);
        }
    }
    case.target.last_out = case.target.last_out.map(|s| Scaled { at: NOW - 10_000, ..s });
    assert_eq!(said(&case.decide()), "-> 10", "after the cooldown it is of all eight, up to the maximum");
}

#[test]
fn reasons_say_the_numbers() {
    let Scaling::To { reason, .. } = Case::new(high(&[140.0, 143.0, 146.6]), 2, 2).decide() else { panic!("scales out") };
    assert_eq!(reason.code, ReasonCode::ScaledOut);
    assert_eq!(reason.sentence, "CPUUtilization averages 143.2 over 3 datapoints, target 50: 6 tasks are needed; desired 2 -> 6");
    assert_eq!(reason.evidence["proposed"], 6);
    let Scaling::Not { not_scaled, .. } = Case::new(high(&[500.0]), 10, 10).decide() else { panic!("at the maximum") };
    assert_eq!((not_scaled.code, not_scaled.max), (NotScaledCode::AlreadyAtMaxCapacity, Some(10)));
}

#[test]
fn the_managed_alarms() {
    let made = alarms(&cpu());
    let [high, low] = made.as_slice() else { panic!("{made:?}") };
    assert_eq!(high.name, "TargetTracking-service/shop/web-AlarmHigh-uuid-2");
    assert_eq!(low.name, "TargetTracking-service/shop/web-AlarmLow-uuid-3");
    let action = format!("{}:createdBy/uuid-1", cpu().arn);
    for alarm in &made {
        assert_eq!(alarm.alarm_actions.as_slice(), std::slice::from_ref(&action));
        assert_eq!(alarm.description, Some(format!("DO NOT EDIT OR DELETE. For TargetTrackingScaling policy {action}.")));
        assert_eq!(alarm.metric, MetricKey::new("AWS/ECS", "CPUUtilization", [("ClusterName", "shop"), ("ServiceName", "web")]));
        assert_eq!(alarm.owned_by_policy, Some(cpu().arn));
        assert_eq!(crate::decide::alarm::validate(alarm), Ok(()));
    }
    assert_eq!((high.threshold, high.period_s, high.evaluation_periods), (50.0, 60, 3));
    assert_eq!((low.threshold, low.period_s, low.evaluation_periods), (45.0, 60, 15));
    assert_eq!((high.comparison, low.comparison), (Comparison::GreaterThanThreshold, Comparison::LessThanThreshold));

    let shapes = |tracking: TargetTracking| -> Vec<(f64, u32, u32)> {
        alarms(&policy("p", PolicyKind::TargetTracking(tracking)))
            .iter()
            .map(|a| (a.threshold, a.period_s, a.evaluation_periods))
            .collect()
    };
    let fine = predefined("ECSServiceAverageMemoryUtilizationHighResolution");
    assert_eq!(shapes(TargetTracking { target: 70.0, metric: fine, ..tracking() }), [(70.0, 1, 3), (63.0, 1, 30)]);
    assert_eq!(shapes(TargetTracking { disable_scale_in: true, ..tracking() }), [(50.0, 60, 3)]);
    let custom = TrackedMetric::Custom {
        metric: MetricKey::new("Shop", "Depth", []),
        statistic: Statistic::Maximum,
        unit: None,
        period_s: 10,
    };
    assert_eq!(shapes(TargetTracking { metric: custom, ..tracking() }), [(50.0, 10, 3), (45.0, 10, 30)]);
}

#[test]
fn refusals() {
    let out = steps_out();
    let change = |steps: &[Step]| PolicyKind::Step(stepping(AdjustmentType::ChangeInCapacity, steps));
    let track = |target: f64, metric: TrackedMetric| PolicyKind::TargetTracking(TargetTracking { target, metric, ..tracking() });
    let labelled =
        TrackedMetric::Predefined { name: "ALBRequestCountPerTarget".to_owned(), resource_label: Some("app/x".to_owned()) };
    let cases = [
        (cpu().kind, None),
        (change(&out), None),
        (change(&[step(Some(-10.0), Some(0.0), -1), step(None, Some(-10.0), -2)]), None),
        (change(&[step(None, Some(0.0), -1), step(Some(0.0), None, 1)]), None),
        (change(&[]), Some("At least one step")),
        (change(&vec![step(Some(0.0), None, 1); 21]), Some("at most 20")),
        (change(&[step(None, None, 1)]), Some("must have a lower bound or an upper bound")),
        (change(&[step(None, Some(0.0), 1), step(None, Some(5.0), 1)]), Some("At most one")),
        (change(&[step(Some(0.0), Some(10.0), 1), step(Some(9.0), None, 1)]), Some("overlap")),
        (change(&[step(Some(0.0), Some(10.0), 1), step(Some(11.0), None, 1)]), Some("gap")),
        (change(&[step(Some(5.0), Some(5.0), 1)]), Some("greater than its lower bound")),
        (change(&[step(Some(-5.0), Some(0.0), -1)]), Some("negative lower bound")),
        (change(&[step(Some(0.0), Some(5.0), 1)]), Some("positive upper bound")),
        (change(&[step(Some(f64::NAN), None, 1)]), Some("finite")),
        (PolicyKind::Step(stepping(AdjustmentType::ExactCapacity, &[step(Some(0.0), None, -1)])), Some("must not be negative")),
        (
            PolicyKind::Step(StepScaling {
                min_adjustment_magnitude: Some(2),
                ..stepping(AdjustmentType::ChangeInCapacity, &out)
            }),
            Some("MinAdjustmentMagnitude"),
        ),
        (track(0.0, tracking().metric), Some("greater than zero")),
        (track(f64::INFINITY, tracking().metric), Some("greater than zero")),
        (track(50.0, predefined("Nonsense")), Some("Value 'Nonsense' at")),
        (track(50.0, predefined("ALBRequestCountPerTarget")), Some("Resource label should be specified")),
        (track(50.0, labelled), Some("is not served")),
    ];
    for (kind, expected) in cases {
        match (validate(&kind), expected) {
            (Ok(()), None) => {}
            (Err(refusal), Some(text)) => assert!(refusal.0.contains(text), "{refusal} should say {text}"),
            (result, expected) => panic!("{result:?} instead of {expected:?} for {kind:?}"),
        }
    }
    assert!(same_metric(&tracking().metric, &tracking().metric));
    assert!(!same_metric(&tracking().metric, &predefined("ECSServiceAverageMemoryUtilization")));
}

#[test]
fn bounds_clamp_with_their_cause() {
    assert_eq!(bounds::clamp(1, 2, 10), Some((2, "minimum capacity was set to 2".to_owned())));
    assert_eq!(bounds::clamp(11, 2, 10), Some((10, "maximum capacity was set to 10".to_owned())));
    assert_eq!(bounds::clamp(5, 2, 10), None);
    assert!(bounds::validate(3, 2).is_err());
}

#[test]
fn activities_are_told_in_awss_words() {
    let message = activity::successful(3);
    assert_eq!(activity::setting_desired(3), "Setting desired count to 3.");
    assert_eq!(message, "Successfully set desired count to 3. Change successfully fulfilled by ecs.");
    assert_eq!(activity::in_progress(3), "Successfully set desired count to 3. Waiting for change to be fulfilled by ecs.");
    assert_eq!(activity::failed(3, "no"), "Failed to set desired count to 3. Reason: no");
    let cause = activity::cause("hot", "cpu");
    assert_eq!(cause, "monitor alarm hot in state ALARM triggered policy cpu");
    assert_eq!(activity::service_event("Done.", &cause), format!("Message: Done. Cause: {cause}"));
}
