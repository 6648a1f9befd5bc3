//! What was put since the last checkpoint: per series the seconds, encoded as they grow, and the minutes.

use super::chunk::{Encoder, decode};
use super::point::{Point, Second, is_single, normalise};
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
    recent: Vec<Open>,
    /// Older seconds, ascending, each later than the one before.
    settled: Encoder,
    settled_until: Option<Second>,
    /// Seconds that came after their place in `settled` was written.
    late: Vec<Point>,
    minutes: Vec<Point>,
}

/// How many of the newest seconds stay open to merging at no cost.
const OPEN_SECONDS: usize = 4;

/// An open second. Nearly all are of one sample, and there is a handful for every live series: those take no more than they need.
#[derive(Clone, Debug)]
enum Open {
    Single(Second, f64),
    Set(Box<Point>),
}

impl Open {
    fn of(point: Point) -> Open {
        if is_single(&point.set) { Open::Single(point.at, point.set.sum) } else { Open::Set(Box::new(point)) }
    }

    fn at(&self) -> Second {
        match self {
            Open::Single(at, _) => *at,
            Open::Set(point) => point.at,
        }
    }

    fn point(&self) -> Point {
        match self {
            Open::Single(at, value) => Point::single(*at, *value),
            Open::Set(point) => Point::clone(point),
        }
    }

    fn merge(&mut self, other: &Point) {
        if let Open::Single(at, value) = self {
            *self = Open::Set(Box::new(Point::single(*at, *value)));
        }
        if let Open::Set(point) = self {
            point.merge(other);
        }
    }
}

impl SeriesHead {
    pub fn add(&mut self, point: Point, resolution: Resolution) {
        if resolution == Resolution::Minute {
            return insert(&mut self.minutes, point);
        }
        if self.settled_until.is_some_and(|until| point.at <= until) {
            return insert(&mut self.late, point);
        }
        self.open(point);
        if self.recent.len() > OPEN_SECONDS {
            let oldest = self.recent.remove(0).point();
            self.settled_until = Some(oldest.at);
            self.settled.push(&oldest);
        }
    }

    fn open(&mut self, point: Point) {
        if self.recent.capacity() == 0 {
            self.recent.reserve_exact(OPEN_SECONDS + 1);
        }
        match self.recent.last() {
            Some(last) if last.at() >= point.at => match self.recent.binary_search_by_key(&point.at, Open::at) {
                Ok(at) => self.recent[at].merge(&point),
                Err(at) => self.recent.insert(at, Open::of(point)),
            },
            _ => self.recent.push(Open::of(point)),
        }
    }

    /// Ascending, each second once.
    pub fn seconds(&self) -> Vec<Point> {
        let mut points = Vec::with_capacity(self.settled.points() as usize + self.recent.len() + self.late.len());
        let whole = decode(self.settled.bytes(), self.settled.points(), &mut points);
        debug_assert!(whole.is_some(), "the encoder's own bytes");
        points.extend(self.recent.iter().map(Open::point).chain(self.late.iter().cloned()));
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
