//! How far beyond its threshold an alert is, as far as its annotations tell.

use super::Alert;
use crate::model::alarm::Comparison;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Out,
    In,
}

impl Direction {
    /// The label `direction`. Err: neither out nor in.
    pub fn of(label: Option<&str>) -> Result<Option<Direction>, String> {
        match label {
            None | Some("") => Ok(None),
            Some("out") => Ok(Some(Direction::Out)),
            Some("in") => Ok(Some(Direction::In)),
            Some(other) => Err(other.to_owned()),
        }
    }
}

/// What a step policy picks its step by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Breach {
    pub value: f64,
    pub threshold: f64,
    /// Whether the value lies above the threshold.
    pub upward: bool,
    /// Both numbers were given. Without them the breach is taken to be the smallest: the step next to the threshold acts.
    pub given: bool,
}

impl Breach {
    pub fn of(alert: &Alert) -> Breach {
        let number = |name: &str| alert.annotations.get(name)?.trim().parse().ok().filter(|n: &f64| n.is_finite());
        let direction = Direction::of(alert.label("direction")).ok().flatten();
        let by_label = direction != Some(Direction::In);
        match (number("value"), number("threshold")) {
            (Some(value), Some(threshold)) => {
                // On the threshold only the label can tell.
                let upward = if value == threshold { by_label } else { value > threshold };
                Breach { value, threshold, upward, given: true }
            }
            _ => Breach { value: 0.0, threshold: 0.0, upward: by_label, given: false },
        }
    }

    /// With equality: the rule has found a breach, whatever its operator is.
    pub fn comparison(&self) -> Comparison {
        if self.upward { Comparison::GreaterThanOrEqualToThreshold } else { Comparison::LessThanOrEqualToThreshold }
    }
}
