//! A chunk at rest: one series' points as columns. Written once, when a checkpoint or a merge makes a part, so it may cost more than
//! the head's codec ([`super::chunk`]) and takes less: times are nothing when they are regular, and what follows from something else
//! (the count from the weights, the sum of equal samples) is kept as the difference to that, which is mostly none.

use super::bits::{BitReader, BitWriter};
use super::column::{MAX_LENGTH, read_floats, read_ints, write_floats, write_ints};
use super::point::{Point, Spread, is_single};
use crate::model::metric::StatisticSet;

/// What a point is, in the order of the file's numbers.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Single = 0,
    Same = 1,
    Opaque = 2,
    Exact = 3,
    Sketch = 4,
}

const KINDS: [Kind; 5] = [Kind::Single, Kind::Same, Kind::Opaque, Kind::Exact, Kind::Sketch];

fn kind_of(point: &Point) -> Kind {
    match &point.spread {
        _ if is_single(&point.set) => Kind::Single,
        Spread::Same => Kind::Same,
        Spread::Opaque => Kind::Opaque,
        Spread::Exact(_) => Kind::Exact,
        Spread::Sketch(_) => Kind::Sketch,
    }
}

#[derive(Default)]
struct Columns {
    /// Single points' values.
    singles: Vec<f64>,
    /// Numbers of sets that follow from nothing.
    numbers: [Vec<f64>; 4],
    /// How far, in units of the last place, the other numbers are from what they should be.
    surprises: Vec<i64>,
    /// Elements of each distribution and one more; 0: as the point's before.
    lengths: Vec<i64>,
    values: Vec<f64>,
    bins: Vec<i64>,
    weights: Vec<f64>,
}

const COUNT: usize = 0;
const SUM: usize = 1;
const MIN: usize = 2;
const MAX: usize = 3;
/// In which a set's numbers are written: what comes later may follow from what came before.
const ORDER: [usize; 4] = [COUNT, MIN, SUM, MAX];

pub(super) fn encode(points: &[Point]) -> Vec<u8> {
    let mut out = BitWriter::default();
    let Some(first) = points.first() else { return out.into_bytes() };
    let kinds: Vec<i64> = points.iter().map(|point| kind_of(point) as i64).collect();
    let times: Vec<i64> = points.windows(2).map(|pair| pair[1].at.wrapping_sub(pair[0].at)).collect();
    write_ints(&mut out, &[first.at]);
    write_ints(&mut out, &times);
    write_ints(&mut out, &kinds);
    let mut columns = Columns::default();
    let mut before: Option<&Spread> = None;
    for point in points {
        match kind_of(point) {
            Kind::Single => columns.singles.push(point.set.sum),
            kind => columns.take(kind, point, &mut before),
        }
    }
    write_floats(&mut out, &columns.singles);
    columns.numbers.iter().for_each(|column| write_floats(&mut out, column));
    write_ints(&mut out, &columns.surprises);
    write_ints(&mut out, &columns.lengths);
    write_floats(&mut out, &columns.values);
    write_ints(&mut out, &columns.bins);
    write_floats(&mut out, &columns.weights);
    out.into_bytes()
}

impl Columns {
    fn take<'a>(&mut self, kind: Kind, point: &'a Point, before: &mut Option<&'a Spread>) {
        let set = [point.set.count, point.set.sum, point.set.min, point.set.max];
        match &point.spread {
            Spread::Same | Spread::Opaque => {}
            spread => {
                if before.is_some_and(|before| same_bits(before, spread)) {
                    self.lengths.push(0);
                } else {
                    self.spread(spread);
                }
                *before = Some(spread);
            }
        }
        let mut known = [None; 4];
        if matches!(kind, Kind::Exact | Kind::Sketch) {
            known = expected(&point.spread);
        }
        for at in ORDER {
            if kind == Kind::Same {
                known = expected_of_same(&set, at);
            }
            match known[at] {
                Some(known) => self.surprises.push(surprise(known, set[at])),
                None => self.numbers[at].push(set[at]),
            }
        }
    }

    fn spread(&mut self, spread: &Spread) {
        match spread {
            Spread::Same | Spread::Opaque => {}
            Spread::Exact(values) => {
                self.lengths.push(values.len() as i64 + 1);
                self.values.extend(values.iter().map(|(value, _)| *value));
                self.weights.extend(values.iter().map(|(_, weight)| *weight));
            }
            Spread::Sketch(bins) => {
                self.lengths.push(bins.len() as i64 + 1);
                let mut last = 0;
                for (bin, weight) in bins {
                    self.bins.push(i64::from(*bin) - last);
                    self.weights.push(*weight);
                    last = i64::from(*bin);
                }
            }
        }
    }
}

/// Count, sum, minimum and maximum, as far as they follow from the distribution. Both sides of the codec ask this, so it must always
/// compute alike.
fn expected(spread: &Spread) -> [Option<f64>; 4] {
    match spread {
        Spread::Same | Spread::Opaque => [None; 4],
        Spread::Exact(values) => {
            let sum = values.iter().fold(0.0, |sum, (value, weight)| sum + value * weight);
            let (min, max) = (values.first().map_or(0.0, |v| v.0), values.last().map_or(0.0, |v| v.0));
            [Some(total(values)), Some(sum), Some(min), Some(max)]
        }
        Spread::Sketch(bins) => [Some(total(bins)), None, None, None],
    }
}

fn total<K>(weighted: &[(K, f64)]) -> f64 {
    weighted.iter().fold(0.0, |sum, (_, weight)| sum + weight)
}

/// Of equal samples; `set` holds what comes before `at` in the order.
fn expected_of_same(set: &[f64; 4], at: usize) -> [Option<f64>; 4] {
    match at {
        SUM => [None, Some(set[MIN] * set[COUNT]), None, None],
        MAX => [None, None, None, Some(set[MIN])],
        _ => [None; 4],
    }
}

/// In steps from one double to the next one.
fn surprise(expected: f64, number: f64) -> i64 {
    number.to_bits().wrapping_sub(expected.to_bits()) as i64
}

fn surprised(expected: f64, by: i64) -> f64 {
    f64::from_bits(expected.to_bits().wrapping_add(by as u64))
}

fn same_bits(a: &Spread, b: &Spread) -> bool {
    match (a, b) {
        (Spread::Exact(a), Spread::Exact(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a.0.to_bits(), a.1.to_bits()) == (b.0.to_bits(), b.1.to_bits()))
        }
        (Spread::Sketch(a), Spread::Sketch(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a.0, a.1.to_bits()) == (b.0, b.1.to_bits()))
        }
        _ => false,
    }
}

/// None: the bytes are not a chunk of that many points.
pub(super) fn decode(bytes: &[u8], count: u32, out: &mut Vec<Point>) -> Option<()> {
    let length = count as usize;
    if length == 0 {
        return Some(());
    }
    let input = &mut BitReader::new(bytes);
    let mut at = *read_ints(input, 1)?.first()?;
    let times = read_ints(input, length - 1)?;
    let kinds = read_ints(input, length)?;
    let kinds: Vec<Kind> =
        kinds.into_iter().map(|kind| KINDS.get(usize::try_from(kind).ok()?).copied()).collect::<Option<_>>()?;
    let of = |wanted: &[Kind]| kinds.iter().filter(|kind| wanted.contains(kind)).count();
    let singles = read_floats(input, of(&[Kind::Single]))?;
    let (same, opaque, exact, sketch) = (of(&[Kind::Same]), of(&[Kind::Opaque]), of(&[Kind::Exact]), of(&[Kind::Sketch]));
    let plain = [same + opaque, opaque + sketch, same + opaque + sketch, opaque + sketch];
    let mut numbers = Vec::with_capacity(4);
    for length in plain {
        numbers.push(read_floats(input, length)?.into_iter());
    }
    let mut surprises = read_ints(input, 2 * same + 4 * exact + sketch)?.into_iter();
    let lengths = read_ints(input, exact + sketch)?;
    let mut spreads = Spreads::read(input, &kinds, lengths)?;
    let mut singles = singles.into_iter();
    for (place, kind) in kinds.iter().enumerate() {
        if let Some(step) = place.checked_sub(1) {
            at = at.wrapping_add(*times.get(step)?);
        }
        let spread = match kind {
            Kind::Single => {
                out.push(Point::single(at, singles.next()?));
                continue;
            }
            Kind::Same => Spread::Same,
            Kind::Opaque => Spread::Opaque,
            Kind::Exact | Kind::Sketch => spreads.next(*kind)?,
        };
        let from_spread = expected(&spread);
        let mut set = [0.0; 4];
        for number in ORDER {
            let known = if *kind == Kind::Same { expected_of_same(&set, number) } else { from_spread };
            set[number] = match known[number] {
                Some(known) => surprised(known, surprises.next()?),
                None => numbers[number].next()?,
            };
        }
        let [count, sum, min, max] = set;
        out.push(Point { at, set: StatisticSet { count, sum, min, max }, spread });
    }
    Some(())
}

/// The distributions, handed out in order.
struct Spreads {
    lengths: std::vec::IntoIter<i64>,
    values: std::vec::IntoIter<f64>,
    bins: std::vec::IntoIter<i64>,
    weights: std::vec::IntoIter<f64>,
    before: Option<Spread>,
}

impl Spreads {
    fn read(input: &mut BitReader, kinds: &[Kind], lengths: Vec<i64>) -> Option<Spreads> {
        let (mut values, mut bins) = (0usize, 0usize);
        let listed = kinds.iter().filter(|kind| matches!(kind, Kind::Exact | Kind::Sketch));
        for (kind, length) in listed.zip(&lengths) {
            let elements = usize::try_from((length - 1).max(0)).ok().filter(|n| *n <= MAX_LENGTH)?;
            let total = if *kind == Kind::Exact { &mut values } else { &mut bins };
            *total = total.checked_add(elements).filter(|n| *n <= MAX_LENGTH)?;
        }
        let (value_column, bin_column) = (read_floats(input, values)?, read_ints(input, bins)?);
        let weights = read_floats(input, values + bins)?.into_iter();
        Some(Spreads {
            lengths: lengths.into_iter(),
            values: value_column.into_iter(),
            bins: bin_column.into_iter(),
            weights,
            before: None,
        })
    }

    fn next(&mut self, kind: Kind) -> Option<Spread> {
        let length = self.lengths.next()?;
        if length == 0 {
            let before = self.before.clone();
            return before
                .filter(|before| matches!((before, kind), (Spread::Exact(_), Kind::Exact) | (Spread::Sketch(_), Kind::Sketch)));
        }
        let elements = usize::try_from(length - 1).ok()?;
        let spread = match kind {
            Kind::Exact => {
                Spread::Exact((0..elements).map(|_| Some((self.values.next()?, self.weights.next()?))).collect::<Option<_>>()?)
            }
            _ => {
                let mut last = 0i64;
                let bin = |_| {
                    last = last.checked_add(self.bins.next()?)?;
                    Some((i32::try_from(last).ok()?, self.weights.next()?))
                };
                Spread::Sketch((0..elements).map(bin).collect::<Option<_>>()?)
            }
        };
        self.before = Some(spread.clone());
        Some(spread)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::chunk::tests::any_point;
    use super::*;

    fn read_back(points: &[Point]) -> Vec<Point> {
        let mut back = Vec::new();
        decode(&encode(points), points.len() as u32, &mut back).expect("what was written");
        back
    }

    proptest! {
        #[test]
        fn reads_exactly_what_was_written(points in prop::collection::vec(any_point(), 0..60), again in any::<bool>()) {
            // What comes twice is named by the one before.
            let points: Vec<Point> = if again { points.iter().flat_map(|p| [p.clone(), p.clone()]).collect() } else { points };
            // Debug tells -0.0 from 0.0 and prints the shortest digits that read back, so it compares bit for bit.
            prop_assert_eq!(format!("{:?}", read_back(&points)), format!("{points:?}"));
        }

        #[test]
        fn foreign_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), count in 0u32..50) {
            let _ = decode(&bytes, count, &mut Vec::new());
        }
    }

    #[test]
    fn a_service_of_equal_tasks_takes_next_to_nothing() {
        let set = StatisticSet { count: 7.0, sum: 7.0 * 256.0, min: 256.0, max: 256.0 };
        let points: Vec<Point> = (0..600).map(|at| Point::of_set(1_795_170_000 + at, set)).collect();
        assert!(encode(&points).len() < 32, "{}", encode(&points).len());
        assert_eq!(read_back(&points), points);
    }
}
