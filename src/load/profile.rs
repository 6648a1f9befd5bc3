//! When requests arrive: phases of a rate that stands or moves evenly, and the moment of the n-th arrival. Pure.
//!
//! A profile is written as lines `NAME RATE DURATION`, where a rate is `20` or `20..300` (requests a second) and a duration `500ms`,
//! `30s` or `2m`; `#` begins a comment. As JSON: `[{"name": "ramp", "from": 20, "to": 300, "seconds": 90}, ...]`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Bounds on what a profile may ask for; one machine's client reaches none of them.
const MAX_PHASES: usize = 100;
const MAX_RATE: f64 = 100_000.0;
const MAX_LENGTH: Duration = Duration::from_secs(24 * 3600);

#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    phases: Vec<Phase>,
}

/// `from` and `to` in requests a second; the rate moves evenly between them.
#[derive(Clone, Debug, PartialEq)]
pub struct Phase {
    pub name: String,
    pub from: f64,
    pub to: f64,
    pub lasts: Duration,
}

/// A request that is due.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arrival {
    /// Since the profile began.
    pub at: Duration,
    /// Which phase it belongs to.
    pub phase: usize,
}

#[derive(Debug, PartialEq, thiserror::Error)]
pub enum Error {
    #[error("line {line}: {what}; a line is NAME RATE DURATION, as in `ramp 20..300 90s`")]
    Line { line: usize, what: String },
    #[error("the profile is no JSON list of {{name, from, to, seconds}}: {0}")]
    Json(String),
    #[error("phase {phase}: {what}")]
    Phase { phase: String, what: &'static str },
    #[error("the profile has no phase")]
    Empty,
    #[error("the profile has more than {MAX_PHASES} phases")]
    TooMany,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    from: f64,
    to: Option<f64>,
    seconds: f64,
}

impl Phase {
    pub fn new(name: &str, from: f64, to: f64, seconds: f64) -> Phase {
        Phase { name: name.to_owned(), from, to, lasts: Duration::try_from_secs_f64(seconds).unwrap_or(Duration::ZERO) }
    }

    /// Arrivals in the first `t` seconds of the phase: the area under its rate.
    fn arrivals(&self, t: f64) -> f64 {
        self.from * t + self.slope() * t * t / 2.0
    }

    /// Change of the rate, per second.
    fn slope(&self) -> f64 {
        (self.to - self.from) / self.lasts.as_secs_f64()
    }

    /// The moment in the phase at which `n` arrivals have come. In the form without cancellation: it stands where the slope is 0.
    fn moment(&self, n: f64) -> f64 {
        let root = (self.from * self.from + 2.0 * self.slope() * n).max(0.0).sqrt();
        if self.from + root == 0.0 { 0.0 } else { 2.0 * n / (self.from + root) }
    }
}

impl Profile {
    pub fn new(phases: Vec<Phase>) -> Result<Profile, Error> {
        if phases.is_empty() {
            return Err(Error::Empty);
        }
        if phases.len() > MAX_PHASES {
            return Err(Error::TooMany);
        }
        let refuse = |phase: &Phase, what| Err(Error::Phase { phase: phase.name.clone(), what });
        for phase in &phases {
            if ![phase.from, phase.to].iter().all(|rate| (0.0..=MAX_RATE).contains(rate)) {
                return refuse(phase, "a rate is 0 to 100000 requests a second");
            }
            if phase.lasts.is_zero() || phase.lasts > MAX_LENGTH {
                return refuse(phase, "a phase lasts more than nothing and at most a day");
            }
        }
        Ok(Profile { phases })
    }

    pub fn steady(rate: f64, lasts: Duration) -> Result<Profile, Error> {
        Profile::new(vec![Phase { name: "steady".to_owned(), from: rate, to: rate, lasts }])
    }

    /// Text or JSON, as the module's head describes them.
    pub fn parse(text: &str) -> Result<Profile, Error> {
        if text.trim_start().starts_with('[') {
            let written: Vec<Written> = serde_json::from_str(text).map_err(|e| Error::Json(e.to_string()))?;
            return Profile::new(
                written.iter().map(|w| Phase::new(&w.name, w.from, w.to.unwrap_or(w.from), w.seconds)).collect(),
            );
        }
        let lines = text.lines().enumerate().map(|(n, line)| (n + 1, line.split('#').next().unwrap_or("").trim()));
        let phases: Result<Vec<Phase>, Error> = lines
            .filter(|(_, line)| !line.is_empty())
            .map(|(line, text)| read_line(text).map_err(|what| Error::Line { line, what }))
            .collect();
        Profile::new(phases?)
    }

    pub fn phases(&self) -> &[Phase] {
        &self.phases
    }

    pub fn length(&self) -> Duration {
        self.phases.iter().map(|p| p.lasts).sum()
    }

    /// The rate that is meant at a moment; 0 after the end.
    pub fn rate(&self, at: Duration) -> f64 {
        self.phase_at(at).map_or(0.0, |(phase, begins)| {
            let phase = &self.phases[phase];
            phase.from + phase.slope() * (at - begins).as_secs_f64()
        })
    }

    /// The phase of a moment and when it began.
    pub fn phase_at(&self, at: Duration) -> Option<(usize, Duration)> {
        let mut begins = Duration::ZERO;
        for (index, phase) in self.phases.iter().enumerate() {
            if at < begins + phase.lasts {
                return Some((index, begins));
            }
            begins += phase.lasts;
        }
        None
    }

    /// All arrivals in order. The first comes when the first whole request has accrued, so N seconds at rate R are N x R requests.
    pub fn arrivals(&self) -> impl Iterator<Item = Arrival> + '_ {
        let mut phase = 0;
        let mut begins = Duration::ZERO;
        let mut before = 0.0;
        (1u64..).map_while(move |n| {
            loop {
                let current = self.phases.get(phase)?;
                let lasts = current.lasts.as_secs_f64();
                let of_phase = n as f64 - before;
                // A hair beyond the end is the last arrival of the phase, and rounding.
                if of_phase <= current.arrivals(lasts) + 1e-6 {
                    let at = begins + Duration::try_from_secs_f64(current.moment(of_phase).min(lasts)).unwrap_or(current.lasts);
                    return Some(Arrival { at, phase });
                }
                before += current.arrivals(lasts);
                begins += current.lasts;
                phase += 1;
            }
        })
    }
}

fn read_line(text: &str) -> Result<Phase, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [name, rate, lasts] = words[..] else { return Err(format!("{} words instead of three", words.len())) };
    let number = |text: &str| text.parse::<f64>().map_err(|_| format!("{text} is no rate"));
    let (from, to) = match rate.split_once("..") {
        Some((from, to)) => (number(from)?, number(to)?),
        None => (number(rate)?, number(rate)?),
    };
    Ok(Phase { name: name.to_owned(), from, to, lasts: read_duration(lasts)? })
}

/// `500ms`, `30s`, `2m`, `1h`.
pub fn read_duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("{text} is no duration: say 500ms, 30s, 2m or 1h")),
    };
    let number: f64 = number.parse().map_err(|_| format!("{text} is no duration: say 500ms, 30s, 2m or 1h"))?;
    Duration::try_from_secs_f64(number * seconds).map_err(|_| format!("{text} is too long"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_ways_to_write_a_profile() {
        let text = "# the day\ncalm 20 1m\n\nramp 20..300 90s # up\nspike 900 500ms\n";
        let json = r#"[{"name":"calm","from":20,"seconds":60},{"name":"ramp","from":20,"to":300,"seconds":90},
                       {"name":"spike","from":900,"to":900,"seconds":0.5}]"#;
        let phases = vec![
            Phase::new("calm", 20.0, 20.0, 60.0),
            Phase::new("ramp", 20.0, 300.0, 90.0),
            Phase::new("spike", 900.0, 900.0, 0.5),
        ];
        assert_eq!(Profile::parse(text).unwrap().phases(), phases);
        assert_eq!(Profile::parse(json).unwrap().phases(), phases);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, said) in [
            ("", "no phase"),
            ("calm 20", "line 1: 2 words"),
            ("\ncalm many 3s", "line 2: many is no rate"),
            ("calm 20 3", "3 is no duration"),
            ("calm 20 0s", "phase calm: a phase lasts"),
            ("calm -1 3s", "phase calm: a rate is"),
            ("calm nan 3s", "phase calm: a rate is"),
            ("[{\"name\":\"x\",\"rate\":3}]", "no JSON list"),
            (&"a 1 1s\n".repeat(MAX_PHASES + 1), "more than 100"),
        ] {
            let error = Profile::parse(text).unwrap_err().to_string();
            assert!(error.contains(said), "{text:?} gave {error}");
        }
    }

    #[test]
    fn arrivals_are_where_the_rate_puts_them() {
        let at = |profile: &Profile| profile.arrivals().map(|a| (a.at.as_millis(), a.phase)).collect::<Vec<_>>();
        let steady = Profile::parse("a 4 1s\nb 2 1s").unwrap();
        assert_eq!(at(&steady), [(250, 0), (500, 0), (750, 0), (1000, 0), (1500, 1), (2000, 1)]);
        // 0 to 4 in two seconds: n = t^2.
        let ramp = Profile::parse("up 0..4 2s").unwrap();
        assert_eq!(at(&ramp), [(1000, 0), (1414, 0), (1732, 0), (2000, 0)]);
        let down = Profile::parse("down 4..0 2s").unwrap();
        assert_eq!(at(&down), [(267, 0), (585, 0), (1000, 0), (2000, 0)]);
        assert_eq!(ramp.rate(Duration::from_secs(1)), 2.0);
        assert_eq!(ramp.rate(Duration::from_secs(3)), 0.0);
        // A fraction of a request is carried into the next phase, not lost.
        assert_eq!(at(&Profile::parse("a 1 500ms\nb 1 500ms").unwrap()), [(1000, 1)]);
        assert_eq!(at(&Profile::parse("none 0 1s").unwrap()), []);
    }

    proptest! {
        #[test]
        fn in_order_within_their_phase_and_as_many_as_the_area(
            rates in prop::collection::vec((0.0..200.0f64, 0.0..200.0f64, 0.1..3.0f64), 1..5)
        ) {
            let phases: Vec<Phase> = rates.iter().map(|(from, to, s)| Phase::new("p", *from, *to, *s)).collect();
            let area: f64 = phases.iter().map(|p| p.arrivals(p.lasts.as_secs_f64())).sum();
            let profile = Profile::new(phases).unwrap();
            let arrivals: Vec<Arrival> = profile.arrivals().collect();
            prop_assert!((arrivals.len() as f64 - area).abs() <= 1.0, "{} for an area of {area}", arrivals.len());
            prop_assert!(arrivals.windows(2).all(|w| w[0].at <= w[1].at && w[0].phase <= w[1].phase));
            for arrival in &arrivals {
                let begins: Duration = profile.phases()[..arrival.phase].iter().map(|p| p.lasts).sum();
                prop_assert!(arrival.at >= begins && arrival.at <= begins + profile.phases()[arrival.phase].lasts);
            }
        }
    }
}
