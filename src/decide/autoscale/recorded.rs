//! What a scaling decision was made of, kept beside it in the ledger: enough for any version to make it again.

use serde::{Deserialize, Serialize};

use super::{Inputs, Scaling, decide};
use crate::model::Timestamp;
use crate::model::alarm::Alarm;
use crate::model::decision::{Decision, Evidence, Reason};
use crate::model::scaling::{ScalableTarget, ScalingPolicy};

/// The evidence that holds it.
pub const INPUTS: &str = "inputs";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recorded {
    pub policy: ScalingPolicy,
    pub target: ScalableTarget,
    pub alarm: Alarm,
    pub desired: u32,
    pub running: u32,
    pub deployment_in_progress: bool,
    pub siblings: Vec<(ScalingPolicy, Option<Alarm>)>,
}

/// Texts and lists that no decision looks at would only fill the ledger.
fn lean(alarm: &Alarm) -> Alarm {
    Alarm {
        description: None,
        ok_actions: Vec::new(),
        alarm_actions: Vec::new(),
        insufficient_data_actions: Vec::new(),
        state_reason: String::new(),
        state_reason_data: None,
        tags: Vec::new(),
        trace: None,
        external: None,
        ..alarm.clone()
    }
}

impl Recorded {
    pub fn of(inputs: &Inputs) -> Recorded {
        Recorded {
            policy: inputs.policy.clone(),
            target: ScalableTarget { tags: Vec::new(), ..inputs.target.clone() },
            alarm: lean(inputs.alarm),
            desired: inputs.desired,
            running: inputs.running,
            deployment_in_progress: inputs.deployment_in_progress,
            siblings: inputs.siblings.iter().map(|(policy, alarm)| ((*policy).clone(), alarm.map(lean))).collect(),
        }
    }

    /// Of a decision; None where it is not one of scaling's, or was made before inputs were kept.
    pub fn read(evidence: &Evidence) -> Option<Recorded> {
        Recorded::deserialize(evidence.get(INPUTS)?).ok()
    }

    pub fn beside(self, reason: Reason) -> Reason {
        reason.with(INPUTS, serde_json::to_value(self).unwrap_or_default())
    }

    pub fn again(&self, now: Timestamp) -> Scaling {
        let siblings: Vec<(&ScalingPolicy, Option<&Alarm>)> = self.siblings.iter().map(|(p, a)| (p, a.as_ref())).collect();
        let inputs = Inputs {
            policy: &self.policy,
            target: &self.target,
            alarm: &self.alarm,
            desired: self.desired,
            running: self.running,
            deployment_in_progress: self.deployment_in_progress,
            siblings: &siblings,
        };
        decide(&inputs, now)
    }
}

/// What this version says of a recorded decision.
#[derive(Clone, Debug, PartialEq)]
pub enum Again {
    /// The same, to the word and the number.
    Same,
    /// The same is done for the same reason, in other words or with other numbers beside it.
    Reworded(Reason),
    /// Something else is done, or for another reason.
    Parts { action: String, reason: Reason },
}

/// None: the decision does not hold what it was made of.
pub fn again(decision: &Decision) -> Option<Again> {
    let recorded = Recorded::read(&decision.reason.evidence)?;
    let (action, reason) = match recorded.again(decision.at) {
        Scaling::To { desired, reason } => (format!("desired {} -> {desired}", recorded.desired), reason),
        Scaling::Not { reason, .. } | Scaling::Wait { reason, .. } => (super::NO_CHANGE.to_owned(), reason),
    };
    if (&action, reason.code) != (&decision.action, decision.reason.code) {
        return Some(Again::Parts { action, reason });
    }
    let mut evidence = decision.reason.evidence.clone();
    evidence.remove(INPUTS);
    // Numbers as the ledger writes them: 3.0 and 3 are one.
    let same = reason.sentence == decision.reason.sentence && written(&reason.evidence) == written(&evidence);
    Some(if same { Again::Same } else { Again::Reworded(reason) })
}

fn written(evidence: &Evidence) -> String {
    serde_json::to_string(evidence).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Case, NOW, high, low, policy, target, tracking};
    use super::*;
    use crate::model::decision::{ReasonCode, Subject};
    use crate::model::scaling::{PolicyKind, ScalableTarget, Scaled, TargetTracking};

    /// As the ledger holds it, through its JSON.
    fn remembered(case: &Case) -> Decision {
        let (action, reason) = match case.decide() {
            Scaling::To { desired, reason } => (format!("desired {} -> {desired}", case.desired), reason),
            Scaling::Not { reason, .. } | Scaling::Wait { reason, .. } => (super::super::NO_CHANGE.to_owned(), reason),
        };
        let reason = case.on(Recorded::of).beside(reason);
        let subject = Subject::Service(case.policy.service.clone());
        let decision = Decision { at: NOW, subject, action, reason, trace: None };
        serde_json::from_str(&serde_json::to_string(&decision).unwrap()).unwrap()
    }

    fn cases() -> Vec<Case> {
        let sibling = || policy("memory", PolicyKind::TargetTracking(tracking()));
        let scaled = |ago, from, to| Some(Scaled { at: NOW - ago, from, to, policy: "cpu".to_owned() });
        vec![
            Case::new(high(&[60.1, 70.3, 143.2]), 2, 2),
            Case::new(high(&[60.0; 3]), 10, 10),
            Case::new(high(&[80.0; 3]), 3, 2)
                .with(|c| c.target = ScalableTarget { last_out: scaled(4_000, 2, 3), ..target(1, 9) }),
            Case::new(low(&[10.0; 30]), 6, 6),
            Case::new(low(&[10.0; 30]), 6, 6).with(|c| c.deploying = true),
            Case::new(low(&[10.0; 30]), 6, 6).with(|c| c.siblings = vec![(sibling(), None)]),
            Case::new(low(&[10.0; 30]), 6, 6).with(|c| c.siblings = vec![(sibling(), Some(low(&[30.0; 30])))]),
            Case::new(high(&[]), 2, 2),
        ]
    }

    #[test]
    fn a_decision_is_made_again_from_what_the_ledger_holds() {
        for case in cases() {
            let decision = remembered(&case);
            assert_eq!(again(&decision), Some(Again::Same), "{} {}", decision.action, decision.reason);
        }
    }

    #[test]
    fn what_comes_out_otherwise_is_told_apart() {
        let case = Case::new(high(&[60.0, 70.0, 80.0]), 2, 2);
        let honest = remembered(&case);
        let mut other = honest.clone();
        other.reason.sentence.push_str(" (as an older version put it)");
        assert!(matches!(again(&other), Some(Again::Reworded(_))));
        let mut other = honest.clone();
        other.action = "desired 2 -> 9".to_owned();
        assert!(matches!(again(&other), Some(Again::Parts { action, .. }) if action == "desired 2 -> 3"));
        let mut other = honest.clone();
        other.reason.code = ReasonCode::AlreadyAtMax;
        assert!(matches!(again(&other), Some(Again::Parts { .. })));
        let mut old = honest;
        old.reason.evidence.remove(INPUTS);
        assert_eq!(again(&old), None);
    }

    #[test]
    fn texts_that_nothing_is_decided_by_are_left_out() {
        let mut alarm = high(&[60.0]);
        alarm.state_reason_data = Some("x".repeat(5_000));
        alarm.description = Some("y".repeat(5_000));
        let kind = PolicyKind::TargetTracking(TargetTracking { target: 70.0, ..tracking() });
        let case = Case::new(alarm, 2, 2).with(|c| c.policy.kind = kind);
        assert!(serde_json::to_string(&case.on(Recorded::of)).unwrap().len() < 2_500);
    }
}
