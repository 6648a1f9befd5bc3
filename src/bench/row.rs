//! A figure, as `beaufort bench` tells it and `make bench` reads it: the values, the goal, the reference from the same run, and how
//! the cost grows with the work. The JSON's names are read by tests/bench, so they stay.

use serde::Serialize;

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// What is measured: the row's name, so it never changes with a value.
    pub what: String,
    /// One of each run; the median is judged.
    pub values: Vec<f64>,
    pub unit: &'static str,
    pub goal: Option<Goal>,
    pub reference: Option<Reference>,
    /// How the cost grows with the work, in a few words: "flat in n tasks".
    pub grows: &'static str,
    pub note: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    AtMost(f64),
    AtLeast(f64),
}

/// What the figure is held against. Without a value it was not measured in this run, and the name says where it is from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reference {
    pub what: String,
    pub value: Option<f64>,
    pub unit: &'static str,
}

pub type Rows = Vec<Row>;

impl Row {
    pub fn new(what: impl Into<String>, value: f64, unit: &'static str) -> Row {
        Row::of_runs(what, vec![value], unit)
    }

    /// `values` has at least one.
    pub fn of_runs(what: impl Into<String>, values: Vec<f64>, unit: &'static str) -> Row {
        Row { what: what.into(), values, unit, goal: None, reference: None, grows: "", note: String::new() }
    }

    pub fn at_most(self, goal: f64) -> Row {
        Row { goal: Some(Goal::AtMost(goal)), ..self }
    }

    pub fn at_least(self, goal: f64) -> Row {
        Row { goal: Some(Goal::AtLeast(goal)), ..self }
    }

    /// The reference, measured in this run.
    pub fn against(self, what: impl Into<String>, value: f64, unit: &'static str) -> Row {
        Row { reference: Some(Reference { what: what.into(), value: Some(value), unit }), ..self }
    }

    /// A reference that cannot run here: a figure that its source gives.
    pub fn quoting(self, what: impl Into<String>) -> Row {
        Row { reference: Some(Reference { what: what.into(), value: None, unit: "" }), ..self }
    }

    pub fn grows(self, how: &'static str) -> Row {
        Row { grows: how, ..self }
    }

    pub fn note(self, note: impl Into<String>) -> Row {
        Row { note: note.into(), ..self }
    }

    pub fn median(&self) -> f64 {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
    }

    /// None: there is no goal.
    pub fn met(&self) -> Option<bool> {
        self.goal.map(|goal| match goal {
            Goal::AtMost(most) => self.median() <= most,
            Goal::AtLeast(least) => self.median() >= least,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_judged_and_a_figure_without_value_is_never_met() {
        let row = Row::of_runs("x", vec![9.0, 1.0, 2.0], "s");
        assert_eq!((row.met(), row.clone().at_most(2.0).met(), row.at_least(2.1).met()), (None, Some(true), Some(false)));
        assert_eq!(Row::new("x", f64::NAN, "s").at_most(1.0).met(), Some(false));
    }

    #[test]
    fn the_json_is_what_make_bench_reads() {
        let row = Row::new("starts", 1.5, "s").at_most(2.0).against("Docker", 1.0, "s").grows("linear in n").note("warm");
        let json = serde_json::json!({"what": "starts", "values": [1.5], "unit": "s", "goal": {"at_most": 2.0},
            "reference": {"what": "Docker", "value": 1.0, "unit": "s"}, "grows": "linear in n", "note": "warm"});
        assert_eq!(serde_json::to_value(row).unwrap(), json);
    }
}
