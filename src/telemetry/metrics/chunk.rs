//! The codec of a run of points that grows: Gorilla's delta-of-delta times and XORed doubles, for statistic sets. The head's, and that
//! of parts of the first format; what is at rest now is [`super::packed`].
//!
//! A point of one sample, which nearly every 1-second point is, costs one bit for its time, one for being single and as many as
//! its value differs by. Anything else writes its four numbers and, where there is one, its distribution. Exact for every double.

use super::bits::{BitReader, BitWriter, unzigzag, zigzag};
use super::point::{Point, Second, Spread, is_single};
use crate::model::metric::StatisticSet;

#[derive(Clone, Debug, Default)]
pub(super) struct Encoder {
    out: BitWriter,
    points: u32,
    times: Times,
    single: Xor,
    /// Made with the first set: most series have none, and there is an encoder for every live one.
    set: Option<Box<[Xor; 4]>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Times {
    last: Second,
    delta: i64,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Xor {
    last: u64,
    leading: u8,
    /// Of the window that can be used again; 0: none yet.
    width: u8,
}

impl Encoder {
    /// Points must come in the order in which they are to be read; times that ascend are smallest.
    pub fn push(&mut self, point: &Point) {
        self.points += 1;
        self.times.write(&mut self.out, point.at);
        if is_single(&point.set) {
            self.out.bit(false);
            self.single.write(&mut self.out, point.set.sum);
            return;
        }
        self.out.bit(true);
        let kind = match &point.spread {
            Spread::Same => 0,
            Spread::Opaque => 1,
            Spread::Exact(_) => 2,
            Spread::Sketch(_) => 3,
        };
        self.out.bits(kind, 2);
        for (xor, number) in
            self.set.get_or_insert_default().iter_mut().zip([point.set.count, point.set.sum, point.set.min, point.set.max])
        {
            xor.write(&mut self.out, number);
        }
        match &point.spread {
            Spread::Same | Spread::Opaque => {}
            Spread::Exact(values) => {
                self.out.varint(values.len() as u64);
                let mut xor = Xor::default();
                for (value, weight) in values {
                    xor.write(&mut self.out, *value);
                    write_weight(&mut self.out, *weight);
                }
            }
            Spread::Sketch(bins) => {
                self.out.varint(bins.len() as u64);
                let mut last = 0i64;
                for (bin, weight) in bins {
                    self.out.varint(zigzag(*bin as i64 - last));
                    last = *bin as i64;
                    write_weight(&mut self.out, *weight);
                }
            }
        }
    }

    pub fn points(&self) -> u32 {
        self.points
    }

    pub fn bytes(&self) -> &[u8] {
        self.out.as_bytes()
    }
}

pub(super) fn encode(points: &[Point]) -> Vec<u8> {
    let mut encoder = Encoder::default();
    points.iter().for_each(|point| encoder.push(point));
    encoder.out.into_bytes()
}

/// None: the bytes are not a chunk of that many points.
pub(super) fn decode(bytes: &[u8], count: u32, out: &mut Vec<Point>) -> Option<()> {
    let mut input = BitReader::new(bytes);
    let mut times = Times::default();
    let mut single = Xor::default();
    let mut set = [Xor::default(); 4];
    for _ in 0..count {
        let at = times.read(&mut input)?;
        if !input.bit()? {
            out.push(Point::single(at, single.read(&mut input)?));
            continue;
        }
        let kind = input.bits(2)?;
        let mut numbers = [0.0; 4];
        for (number, xor) in numbers.iter_mut().zip(&mut set) {
            *number = xor.read(&mut input)?;
        }
        let [n, sum, min, max] = numbers;
        let spread = match kind {
            0 => Spread::Same,
            1 => Spread::Opaque,
            2 => {
                let mut xor = Xor::default();
                Spread::Exact(
                    (0..input.varint()?)
                        .map(|_| Some((xor.read(&mut input)?, read_weight(&mut input)?)))
                        .collect::<Option<_>>()?,
                )
            }
            _ => {
                let mut last = 0i64;
                Spread::Sketch(
                    (0..input.varint()?)
                        .map(|_| {
                            last = last.checked_add(unzigzag(input.varint()?))?;
                            Some((i32::try_from(last).ok()?, read_weight(&mut input)?))
                        })
                        .collect::<Option<_>>()?,
                )
            }
        };
        out.push(Point { at, set: StatisticSet { count: n, sum, min, max }, spread });
    }
    Some(())
}

/// Weights are counts of samples, so nearly always small whole numbers.
fn write_weight(out: &mut BitWriter, weight: f64) {
    if weight >= 0.0 && weight <= (1u64 << 53) as f64 && weight.fract() == 0.0 {
        out.varint((weight as u64) << 1);
    } else {
        out.varint(1);
        out.bits(weight.to_bits(), 64);
    }
}

fn read_weight(input: &mut BitReader) -> Option<f64> {
    match input.varint()? {
        1 => input.bits(64).map(f64::from_bits),
        whole => Some((whole >> 1) as f64),
    }
}

/// Prefix, payload width and range of a delta of deltas; the widest is for what fits nowhere.
const TIME_CLASSES: [(u64, u32, u32); 3] = [(0b10, 2, 7), (0b110, 3, 12), (0b1110, 4, 20)];

impl Times {
    fn write(&mut self, out: &mut BitWriter, at: Second) {
        let delta = at.wrapping_sub(self.last);
        let change = zigzag(delta.wrapping_sub(self.delta));
        (self.last, self.delta) = (at, delta);
        if change == 0 {
            return out.bit(false);
        }
        for (prefix, prefix_bits, width) in TIME_CLASSES {
            if change < 1 << width {
                out.bits(prefix, prefix_bits);
                return out.bits(change, width);
            }
        }
        out.bits(0b1111, 4);
        out.bits(change, 64);
    }

    fn read(&mut self, input: &mut BitReader) -> Option<Second> {
        let mut ones = 0;
        while ones < 4 && input.bit()? {
            ones += 1;
        }
        let change = match ones {
            0 => 0,
            4 => input.bits(64)?,
            n => input.bits(TIME_CLASSES[n - 1].2)?,
        };
        self.delta = self.delta.wrapping_add(unzigzag(change));
        self.last = self.last.wrapping_add(self.delta);
        Some(self.last)
    }
}

impl Xor {
    pub fn write(&mut self, out: &mut BitWriter, value: f64) {
        let bits = value.to_bits();
        let change = bits ^ self.last;
        self.last = bits;
        if change == 0 {
            return out.bit(false);
        }
        out.bit(true);
        let leading = (change.leading_zeros() as u8).min(31);
        let trailing = change.trailing_zeros() as u8;
        let width = 64 - leading - trailing;
        let window_trailing = 64u8.saturating_sub(self.leading + self.width);
        // The window is used again while it wastes less than the 11 bits that a new one costs.
        if self.width > 0 && leading >= self.leading && trailing >= window_trailing && self.width < width + 11 {
            out.bit(false);
            out.bits(change >> window_trailing, self.width as u32);
            return;
        }
        out.bit(true);
        out.bits(leading as u64, 5);
        out.bits(width as u64 - 1, 6);
        out.bits(change >> trailing, width as u32);
        (self.leading, self.width) = (leading, width);
    }

    pub fn read(&mut self, input: &mut BitReader) -> Option<f64> {
        if input.bit()? {
            if input.bit()? {
                self.leading = input.bits(5)? as u8;
                self.width = input.bits(6)? as u8 + 1;
            }
            if self.width == 0 || self.leading + self.width > 64 {
                return None;
            }
            let shift = 64 - self.leading - self.width;
            self.last ^= input.bits(self.width as u32)? << shift;
        }
        Some(f64::from_bits(self.last))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_back(points: &[Point]) -> Vec<Point> {
        let mut back = Vec::new();
        decode(&encode(points), points.len() as u32, &mut back).expect("what was written");
        back
    }

    fn any_number() -> impl Strategy<Value = f64> {
        prop_oneof![
            any::<f64>().prop_filter("CloudWatch refuses NaN", |n| !n.is_nan()),
            Just(0.0),
            Just(-0.0),
            Just(f64::MAX),
            Just(f64::MIN_POSITIVE),
            Just(f64::from_bits(1)),
            (0u32..100).prop_map(f64::from),
        ]
    }

    pub fn any_point() -> impl Strategy<Value = Point> {
        let spread = prop_oneof![
            Just(Spread::Same),
            Just(Spread::Opaque),
            prop::collection::vec((any_number(), 0.5f64..9e9), 0..5).prop_map(Spread::Exact),
            prop::collection::vec((any::<i32>(), (0u32..1000).prop_map(f64::from)), 0..5).prop_map(Spread::Sketch),
        ];
        let at = prop_oneof![any::<i64>(), 1_700_000_000i64..1_700_000_100];
        let set = (any_number(), any_number(), any_number(), any_number());
        prop_oneof![
            (at.clone(), any_number()).prop_map(|(at, value)| Point::single(at, value)),
            (at, set, spread).prop_map(|(at, (count, sum, min, max), spread)| {
                let set = StatisticSet { count, sum, min, max };
                let spread = if is_single(&set) { Spread::Same } else { spread };
                Point { at, set, spread }
            }),
        ]
    }

    proptest! {
        #[test]
        fn reads_exactly_what_was_written(points in prop::collection::vec(any_point(), 0..60)) {
            // Debug tells -0.0 from 0.0 and prints the shortest digits that read back, so it compares bit for bit.
            prop_assert_eq!(format!("{:?}", read_back(&points)), format!("{points:?}"));
        }

        #[test]
        fn foreign_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), count in 0u32..50) {
            let _ = decode(&bytes, count, &mut Vec::new());
        }
    }

    #[test]
    fn a_steady_gauge_takes_under_two_bytes() {
        let points: Vec<Point> =
            (0..10_800).map(|i| Point::single(1_795_170_000 + i, f64::from((i / 7 % 40) as u8) + 50.0)).collect();
        let per_point = encode(&points).len() as f64 / points.len() as f64;
        assert!(per_point < 1.4, "{per_point}");
        let still: Vec<Point> = (0..10_800).map(|i| Point::single(1_795_170_000 + i, 12.345)).collect();
        assert!(encode(&still).len() < 10_800 * 3 / 8 + 40);
    }
}
