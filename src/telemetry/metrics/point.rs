//! One period of one series: its statistic set, and as much of the distribution as percentiles need.

use std::sync::LazyLock;

use sketches_ddsketch::Config;

use crate::model::metric::{Observed, Statistic, StatisticSet};

/// Seconds since the epoch: the finest time that CloudWatch keeps (sub-second timestamps are floored).
pub(super) type Second = i64;

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Point {
    pub at: Second,
    pub set: StatisticSet,
    pub spread: Spread,
}

/// How the samples of a set are distributed.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Spread {
    /// Every sample is the minimum.
    Same,
    /// Published as a set of differing values: nothing is known between minimum and maximum.
    Opaque,
    /// Few distinct values, ascending, each with its weight.
    Exact(Vec<(f64, f64)>),
    /// Bins of a DDSketch, ascending, each with its weight. Sparse, because the crate's dense store takes a kilobyte for each
    /// minute, and a minute of one series touches a few dozen bins.
    Sketch(Vec<(i32, f64)>),
}

/// Beyond this many distinct values a sketch is smaller than the values.
const MAX_EXACT: usize = 20;
/// Beyond this the lowest bins collapse into one, as in DDSketch: high percentiles keep their accuracy.
const MAX_BINS: usize = 400;
/// The bin of values too small for the logarithm; below every real one.
const ZERO_BIN: i32 = -100_000;

/// One percent relative accuracy, like CloudWatch's own percentiles.
static SCALE: LazyLock<Config> = LazyLock::new(|| Config::new(0.01, MAX_BINS as u32, 1.0e-9));

impl Point {
    pub fn single(at: Second, value: f64) -> Point {
        Point { at, set: StatisticSet::of(value), spread: Spread::Same }
    }

    /// CloudWatch: percentiles of a statistic set exist only if SampleCount is 1 or Min equals Max.
    pub fn of_set(at: Second, set: StatisticSet) -> Point {
        let spread = if set.min == set.max { Spread::Same } else { Spread::Opaque };
        Point { at, set, spread }
    }

    /// None: holds a number that CloudWatch refuses, or no sample at all.
    pub fn of(at: Second, value: &Observed) -> Option<Point> {
        match value {
            Observed::Value(value) => value.is_finite().then(|| Point::single(at, *value)),
            Observed::Set(set) => is_sound(set).then(|| Point::of_set(at, *set)),
            Observed::Values(values) => {
                let mut whole: Option<Point> = None;
                for &(value, count) in values {
                    if !value.is_finite() || !count.is_finite() || count <= 0.0 {
                        return None;
                    }
                    let set = StatisticSet { count, sum: value * count, min: value, max: value };
                    match &mut whole {
                        None => whole = Some(Point { at, set, spread: Spread::Same }),
                        Some(whole) => whole.absorb(&set, &Spread::Same),
                    }
                }
                whole.filter(|whole| is_sound(&whole.set))
            }
        }
    }

    pub fn merge(&mut self, other: &Point) {
        self.absorb(&other.set, &other.spread);
    }

    fn absorb(&mut self, set: &StatisticSet, spread: &Spread) {
        let same_value = self.set.min == set.min;
        match (&mut self.spread, spread) {
            (Spread::Same, Spread::Same) if same_value => {}
            (Spread::Opaque, _) => {}
            (_, Spread::Opaque) => self.spread = Spread::Opaque,
            (Spread::Sketch(bins), other) => add_to_sketch(bins, set, other),
            (mine, other) => {
                let mut values = exact_values(&self.set, mine);
                match other {
                    Spread::Sketch(_) => {
                        let mut bins = sketch_of(&values);
                        add_to_sketch(&mut bins, set, other);
                        *mine = Spread::Sketch(bins);
                    }
                    _ => {
                        for (value, count) in exact_values(set, other) {
                            add_weight(&mut values, value, count, f64::total_cmp);
                        }
                        *mine = if values.len() > MAX_EXACT { Spread::Sketch(sketch_of(&values)) } else { Spread::Exact(values) };
                    }
                }
            }
        }
        self.set.merge(*set);
    }

    /// None: CloudWatch gives no such datapoint.
    pub fn statistic(&self, statistic: &Statistic) -> Option<f64> {
        Some(match statistic {
            Statistic::SampleCount => self.set.count,
            Statistic::Sum => self.set.sum,
            Statistic::Average => self.set.sum / self.set.count,
            Statistic::Minimum => self.set.min,
            Statistic::Maximum => self.set.max,
            Statistic::Percentile(share) => return self.percentile(*share),
        })
    }

    /// The largest of the lowest `share` percent of samples. CloudWatch has no percentiles of metrics with negative values.
    fn percentile(&self, share: f64) -> Option<f64> {
        if self.set.min < 0.0 {
            return None;
        }
        let rank = (share / 100.0 * self.set.count).max(f64::MIN_POSITIVE);
        // A hair of slack: 0.95 * 20 must be the 19th of 20, whatever the last bit of the product.
        let rank = rank - rank * 1e-12;
        match &self.spread {
            Spread::Opaque => None,
            Spread::Same => Some(self.set.min),
            Spread::Exact(values) => at_rank(values, rank),
            Spread::Sketch(_) if share >= 100.0 => Some(self.set.max),
            Spread::Sketch(bins) => at_rank(bins, rank)
                .map(|bin| if bin <= ZERO_BIN { 0.0 } else { SCALE.value(bin) })
                .map(|value| value.clamp(self.set.min, self.set.max)),
        }
    }
}

pub(super) fn is_sound(set: &StatisticSet) -> bool {
    [set.count, set.sum, set.min, set.max].iter().all(|n| n.is_finite()) && set.count > 0.0 && set.min <= set.max
}

/// Bit for bit one sample: what most points are, and what the codec writes shortest.
pub(super) fn is_single(set: &StatisticSet) -> bool {
    set.count == 1.0 && set.sum.to_bits() == set.min.to_bits() && set.max.to_bits() == set.min.to_bits()
}

fn exact_values(set: &StatisticSet, spread: &Spread) -> Vec<(f64, f64)> {
    match spread {
        Spread::Exact(values) => values.clone(),
        _ => vec![(set.min, set.count)],
    }
}

fn bin_of(value: f64) -> i32 {
    if value < 1.0e-9 { ZERO_BIN } else { SCALE.key(value) }
}

fn sketch_of(values: &[(f64, f64)]) -> Vec<(i32, f64)> {
    let mut bins = Vec::with_capacity(values.len() + 1);
    for (value, count) in values {
        add_weight(&mut bins, bin_of(*value), *count, i32::cmp);
    }
    bins
}

fn add_to_sketch(bins: &mut Vec<(i32, f64)>, set: &StatisticSet, other: &Spread) {
    match other {
        Spread::Sketch(more) => more.iter().for_each(|(bin, count)| add_weight(bins, *bin, *count, i32::cmp)),
        _ => exact_values(set, other).iter().for_each(|(value, count)| add_weight(bins, bin_of(*value), *count, i32::cmp)),
    }
    if bins.len() > MAX_BINS {
        let surplus = bins.len() - MAX_BINS;
        let collapsed: f64 = bins.drain(..surplus).map(|(_, count)| count).sum();
        bins[0].1 += collapsed;
    }
}

fn add_weight<K: Copy>(list: &mut Vec<(K, f64)>, key: K, count: f64, order: impl Fn(&K, &K) -> std::cmp::Ordering) {
    match list.binary_search_by(|(k, _)| order(k, &key)) {
        Ok(at) => list[at].1 += count,
        Err(at) => list.insert(at, (key, count)),
    }
}

fn at_rank<K: Copy>(list: &[(K, f64)], rank: f64) -> Option<K> {
    let mut seen = 0.0;
    for (key, count) in list {
        seen += count;
        if seen >= rank {
            return Some(*key);
        }
    }
    list.last().map(|(key, _)| *key)
}

/// Sorts by time and merges what has the same time: parts and heads may overlap, and their points add up.
pub(super) fn normalise(points: &mut Vec<Point>) {
    if points.is_sorted_by(|a, b| a.at < b.at) {
        return;
    }
    points.sort_by_key(|p| p.at);
    points.dedup_by(|later, kept| {
        let same = later.at == kept.at;
        if same {
            kept.merge(later);
        }
        same
    });
}

/// The same points in periods of `seconds`, counted from the epoch. `points` ascend.
pub(super) fn roll_up(points: &[Point], seconds: i64) -> Vec<Point> {
    let mut rolled: Vec<Point> = Vec::new();
    for point in points {
        let at = point.at.div_euclid(seconds) * seconds;
        match rolled.last_mut() {
            Some(last) if last.at == at => last.merge(point),
            _ => rolled.push(Point { at, ..point.clone() }),
        }
    }
    rolled
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_values(values: &[f64]) -> Point {
        Point::of(0, &Observed::Values(values.iter().map(|v| (*v, 1.0)).collect())).unwrap()
    }

    #[test]
    fn percentile_is_the_largest_of_the_lowest_share() {
        let twenty = of_values(&(1..=20).map(f64::from).collect::<Vec<_>>());
        for (share, expected) in [(0.0, 1.0), (5.0, 1.0), (50.0, 10.0), (95.0, 19.0), (99.0, 20.0), (100.0, 20.0)] {
            assert_eq!(twenty.statistic(&Statistic::Percentile(share)), Some(expected), "p{share}");
        }
    }

    #[test]
    fn many_values_are_within_one_percent() {
        let many = of_values(&(1..=5000).map(f64::from).collect::<Vec<_>>());
        assert!(matches!(many.spread, Spread::Sketch(_)));
        for share in [50.0, 90.0, 99.0, 99.9] {
            let got = many.statistic(&Statistic::Percentile(share)).unwrap();
            let exact = share * 50.0;
            assert!((got - exact).abs() <= exact * 0.0101, "p{share}: {got} for {exact}");
        }
        assert_eq!(many.set, StatisticSet { count: 5000.0, sum: 12_502_500.0, min: 1.0, max: 5000.0 });
    }

    #[test]
    fn bins_stay_bounded() {
        let mut point = Point::single(0, 0.0);
        for i in 0..20_000 {
            point.merge(&Point::single(0, 1.03f64.powi(i % 8000) * 1e-9));
        }
        let Spread::Sketch(bins) = &point.spread else { panic!("a sketch") };
        assert!(bins.len() <= MAX_BINS);
        assert_eq!(bins.iter().map(|b| b.1).sum::<f64>(), 20_001.0);
    }

    #[test]
    fn no_percentile_of_a_set_of_differing_values_nor_of_negative_ones() {
        let p90 = Statistic::Percentile(90.0);
        let set = |count, sum, min, max| Point::of_set(0, StatisticSet { count, sum, min, max });
        assert_eq!(set(3.0, 6.0, 1.0, 3.0).statistic(&p90), None);
        assert_eq!(set(3.0, 6.0, 2.0, 2.0).statistic(&p90), Some(2.0));
        assert_eq!(Point::single(0, -1.0).statistic(&p90), None);
        let mut mixed = Point::single(0, 7.0);
        mixed.merge(&set(3.0, 6.0, 1.0, 3.0));
        assert_eq!(mixed.statistic(&p90), None);
        assert_eq!(mixed.statistic(&Statistic::Average), Some(13.0 / 4.0));
    }
}
