//! What was put since the last checkpoint: per series the seconds, encoded as they grow, and the minutes.

use super::chunk::{Encoder, decode};
use super::point::{Point, Second, normalise};
use super::series::IdMap;

/// Where a point belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resolution {
    Second,
    /// Published with a resolution of 60 s, or too late for the seconds.
    Minute,
}

#[derive(Default)]
pub(super) struct Shard {
    pub series: IdMap<SeriesHead>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct SeriesHead {
    /// The newest seconds, ascending, still open to merging: agents' batches for one second do not come at once.
    recent: Vec<Point>,
    /// Older seconds, ascending, each later than the one before.
    settled: Encoder,
    settled_until: Option<Second>,
    /// Seconds that came after their place in `settled` was written.
    late: Vec<Point>,
    minutes: Vec<Point>,
}

/// How many of the newest seconds stay open to merging at no cost.
const OPEN_SECONDS: usize = 4;

impl SeriesHead {
    pub fn add(&mut self, point: Point, resolution: Resolution) {
        if resolution == Resolution::Minute {
            return insert(&mut self.minutes, point);
        }
        if self.settled_until.is_some_and(|until| point.at <= until) {
            return insert(&mut self.late, point);
        }
        insert(&mut self.recent, point);
        if self.recent.len() > OPEN_SECONDS {
            let oldest = self.recent.remove(0);
            self.settled_until = Some(oldest.at);
            self.settled.push(&oldest);
        }
    }

    /// Ascending, each second once.
    pub fn seconds(&self) -> Vec<Point> {
        let mut points = Vec::with_capacity(self.settled.points() as usize + self.recent.len() + self.late.len());
        let whole = decode(self.settled.bytes(), self.settled.points(), &mut points);
        debug_assert!(whole.is_some(), "the encoder's own bytes");
        points.extend(self.recent.iter().chain(&self.late).cloned());
        normalise(&mut points);
        points
    }

    pub fn minutes(&self) -> &[Point] {
        &self.minutes
    }
}

fn insert(points: &mut Vec<Point>, point: Point) {
    match points.last() {
        Some(last) if last.at >= point.at => match points.binary_search_by_key(&point.at, |p| p.at) {
            Ok(at) => points[at].merge(&point),
            Err(at) => points.insert(at, point),
        },
        _ => points.push(point),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_in_any_order_come_back_in_order_and_merged() {
        let mut head = SeriesHead::default();
        for at in [10, 11, 12, 13, 14, 15, 16, 3, 12, 16, 3, 17] {
            head.add(Point::single(at, at as f64), Resolution::Second);
        }
        let seconds = head.seconds();
        let read: Vec<(i64, f64)> = seconds.iter().map(|p| (p.at, p.set.count)).collect();
        assert_eq!(read, [(3, 2.0), (10, 1.0), (11, 1.0), (12, 2.0), (13, 1.0), (14, 1.0), (15, 1.0), (16, 2.0), (17, 1.0)]);
        assert!(head.minutes().is_empty());
    }
}
