//! How far an agent's clock is from ours, and its times as ours would show them: an hour's difference must neither move metrics nor
//! logs by an hour.
//!
//! A message takes a moment, so the shortest way of late says most: what lies between the agent's time in a message and ours when
//! it arrives is the difference of the clocks and the message's way.

use crate::model::link::{Ending, TaskReport, UsageBatch};
use crate::model::log::LineBatch;
use crate::model::{Millis, Timestamp};

/// From here on times are translated, and until here again: clocks held by NTP never differ so much, and a message's way is shorter.
const DIFFERS_MS: Millis = 2_000;
const AGREES_MS: Millis = 1_000;
/// No message is so long on its way: believed at the first word.
const SURELY_MS: Millis = 60_000;
/// A clock that seems to have been put back is believed after this long: a link that stood still looks alike for a moment.
const PERSISTS_MS: Millis = 5_000;
/// The shortest way is looked for anew this often, as clocks drift.
const WINDOW_MS: Millis = 60_000;

#[derive(Debug, Default)]
pub(super) struct AgentClock {
    /// Added to the agent's times, these are ours: what is believed.
    offset: Option<Millis>,
    translates: bool,
    /// The least of this window, and since when.
    window: Option<(Timestamp, Millis)>,
    /// Since when, and the least since then, every message seems late.
    late: Option<(Timestamp, Millis)>,
    heard_first: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// The agent's clock is so far ahead of ours.
    Differs(Millis),
    Agrees,
}

impl AgentClock {
    /// A message that the agent wrote at `at` by its clock has arrived. Some: once, when the clocks begin to differ or to agree.
    pub fn hear(&mut self, at: Timestamp, now: Timestamp) -> Option<Turn> {
        let lag = now.since(at);
        if self.offset.is_none() {
            self.heard_first = now;
        }
        self.measure(lag, now);
        let offset = self.offset.unwrap_or(0);
        // What is late at first may only have waited, in a storm of agents for example.
        let sure = offset.abs() >= SURELY_MS || offset < 0 || now.since(self.heard_first) >= PERSISTS_MS;
        match self.translates {
            false if offset.abs() >= DIFFERS_MS && sure => {
                self.translates = true;
                Some(Turn::Differs(-offset))
            }
            true if offset.abs() < AGREES_MS => {
                self.translates = false;
                Some(Turn::Agrees)
            }
            _ => None,
        }
    }

    fn measure(&mut self, lag: Millis, now: Timestamp) {
        let offset = *self.offset.get_or_insert(lag);
        let window = self.window.get_or_insert((now, lag));
        window.1 = window.1.min(lag);
        let drifted = (now.since(window.0) >= WINDOW_MS).then_some(window.1);
        if lag < offset || lag >= offset + SURELY_MS {
            (self.offset, self.window, self.late) = (Some(lag), None, None);
            return;
        } else if lag > offset + DIFFERS_MS {
            let late = self.late.get_or_insert((now, lag));
            late.1 = late.1.min(lag);
            if now.since(late.0) >= PERSISTS_MS {
                (self.offset, self.window, self.late) = (Some(late.1), None, None);
                return;
            }
        } else {
            self.late = None;
        }
        if let Some(least) = drifted {
            self.window = None;
            // While messages seem late it is not drift.
            if self.late.is_none() {
                self.offset = Some(least);
            }
        }
    }

    /// How far the agent's clock is ahead.
    pub fn ahead(&self) -> Millis {
        -self.offset.unwrap_or(0)
    }

    /// What to add to the agent's times.
    fn shift(&self) -> Option<Millis> {
        self.offset.filter(|_| self.translates)
    }

    pub fn report(&self, report: &mut TaskReport) {
        let Some(by) = self.shift() else { return };
        let shift = |at: &mut Timestamp| *at = *at + by;
        let maybe = |at: &mut Option<Timestamp>| at.iter_mut().for_each(shift);
        shift(&mut report.at);
        maybe(&mut report.pull_started_at);
        maybe(&mut report.pull_stopped_at);
        if let Some(Ending::EssentialExited { at, .. }) = &mut report.ending {
            shift(at);
        }
        for container in &mut report.containers {
            maybe(&mut container.started_at);
            maybe(&mut container.finished_at);
        }
    }

    pub fn usage(&self, batch: &mut UsageBatch) {
        if let Some(by) = self.shift() {
            batch.at = batch.at + by;
        }
    }

    pub fn lines(&self, batch: &mut LineBatch) {
        if let Some(by) = self.shift() {
            batch.events.iter_mut().for_each(|event| event.at = event.at + by);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Timestamp = Timestamp(1_795_170_000_000);
    const HOUR: Millis = 3_600_000;

    fn usage(clock: &AgentClock, at: Timestamp) -> Timestamp {
        let mut batch = UsageBatch { at, ..UsageBatch::default() };
        clock.usage(&mut batch);
        batch.at
    }

    #[test]
    fn an_hour_off_is_seen_at_once_and_translated() {
        for ahead in [HOUR, -HOUR] {
            let mut clock = AgentClock::default();
            assert_eq!(clock.hear(T0 + ahead, T0 + 30), Some(Turn::Differs(ahead - 30)));
            assert_eq!(clock.hear(T0 + 1_000 + ahead, T0 + 1_002), None, "said once");
            assert_eq!(clock.ahead(), ahead - 2, "the shortest way says most");
            assert_eq!(usage(&clock, T0 + 5_000 + ahead), T0 + 5_002);
        }
    }

    #[test]
    fn clocks_that_agree_are_left_alone() {
        let mut clock = AgentClock::default();
        for n in 0..600 {
            assert_eq!(clock.hear(T0 + n * 1_000 + (n % 7) * 100, T0 + n * 1_000 + 700), None);
        }
        assert_eq!(usage(&clock, T0), T0);
    }

    #[test]
    fn waiting_is_no_difference() {
        let mut clock = AgentClock::default();
        assert_eq!(clock.hear(T0, T0 + 20_000), None, "a Hello that waited in a storm");
        assert_eq!(clock.hear(T0 + 21_000, T0 + 21_010), None);
        assert_eq!(clock.ahead(), -10);
        // The link stands still for ten seconds, then everything comes at once.
        for n in 0..10 {
            assert_eq!(clock.hear(T0 + 22_000 + n * 1_000, T0 + 32_000), None);
        }
        assert_eq!(clock.hear(T0 + 33_000, T0 + 33_010), None);
        assert_eq!(clock.ahead(), -10);
    }

    #[test]
    fn a_clock_that_is_set_right_is_believed_either_way() {
        let mut clock = AgentClock::default();
        assert!(clock.hear(T0 - HOUR, T0).is_some());
        assert_eq!(clock.hear(T0 + 1_000, T0 + 1_005), Some(Turn::Agrees), "it was behind");
        let mut clock = AgentClock::default();
        assert!(clock.hear(T0 + HOUR, T0).is_some());
        let turns: Vec<(i64, Turn)> =
            (1..20).filter_map(|n| Some((n, clock.hear(T0 + n * 1_000, T0 + n * 1_000 + 5)?))).collect();
        assert_eq!(turns, [(1, Turn::Agrees)], "it was ahead");
        assert_eq!(usage(&clock, T0), T0);
        let mut clock = AgentClock::default();
        let turns: Vec<(i64, Turn)> = (1..20)
            .filter_map(|n| Some((n, clock.hear(T0 + n * 1_000 - if n < 3 { 0 } else { 10_000 }, T0 + n * 1_000)?)))
            .collect();
        assert_eq!(turns, [(8, Turn::Differs(-10_000))], "by less than a link may stand still");
    }

    #[test]
    fn slow_drift_is_followed() {
        let mut clock = AgentClock::default();
        // Loses a second in twenty minutes.
        for n in 0..6_000 {
            let now = T0 + n * 1_000;
            clock.hear(now - n * 1_000 / 1_200, now + 5);
        }
        assert!((-5_200..-4_900).contains(&clock.ahead()), "{}", clock.ahead());
    }

    #[test]
    fn every_time_of_a_report_is_moved_alike() {
        let mut clock = AgentClock::default();
        clock.hear(T0 + HOUR, T0);
        let container = crate::model::link::ContainerReport {
            name: "app".into(),
            phase: crate::model::link::Phase::Stopped,
            runtime_id: None,
            image_digest: None,
            started_at: Some(T0 + HOUR),
            finished_at: Some(T0 + HOUR),
            exit_code: None,
            reason: None,
            health: crate::model::task::Health::Unknown,
            bindings: vec![],
            address: None,
            network: None,
            restart_count: 0,
        };
        let mut report = TaskReport {
            task: "t".into(),
            containers: vec![container],
            address: None,
            pull_started_at: Some(T0 + HOUR),
            pull_stopped_at: None,
            ending: Some(Ending::EssentialExited { container: "app".into(), at: T0 + HOUR }),
            finished: true,
            at: T0 + HOUR,
        };
        clock.report(&mut report);
        let left = serde_json::to_string(&report).unwrap();
        assert!(!left.contains(&(T0 + HOUR).0.to_string()), "{left}");
        assert_eq!(left.matches(&T0.0.to_string()).count(), 5, "{left}");
    }
}
