//! Finds out that doubles are whole numbers of something: of a power of two, of a power of ten, or a percentage of a whole. Never
//! guesses: a scale is taken for the values that come back bit for bit, and the rest are kept as they are.

use super::bits::{BitReader, BitWriter};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scale {
    /// n / 2^e
    Binary(u32),
    /// n / 10^e
    Decimal(u32),
    /// n / whole * 100, as a percentage is computed.
    Percent(u64),
}

/// Values as `scale` of `first + unit * number`.
pub(super) struct Whole {
    pub scale: Scale,
    pub first: i64,
    pub unit: u64,
    pub numbers: Vec<i64>,
    /// Places and bits of the values that are none; in `numbers` they repeat the one before.
    pub odd: Vec<(usize, u64)>,
}

/// Beyond this not every whole number is a double.
const MAX_WHOLE: f64 = (1u64 << 53) as f64;
const MAX_BINARY: u32 = 40;
const MAX_DECIMAL: u32 = 9;
/// Of a percentage's whole: 2^36 bytes in pages is more than a host has.
const MAX_DENOMINATOR: u64 = 1 << 36;
/// How many values, spread over the column, a scale is tried with first.
const PROBES: usize = 16;
/// A scale is taken when at most one value in so many is odd.
const ODD: usize = 8;

impl Scale {
    pub fn write(self, out: &mut BitWriter) {
        match self {
            Scale::Binary(e) => {
                out.bits(0, 2);
                out.bits(u64::from(e), 6);
            }
            Scale::Decimal(e) => {
                out.bits(1, 2);
                out.bits(u64::from(e), 4);
            }
            Scale::Percent(whole) => {
                out.bits(2, 2);
                out.varint(whole);
            }
        }
    }

    pub fn read(input: &mut BitReader) -> Option<Scale> {
        Some(match input.bits(2)? {
            0 => Scale::Binary(input.bits(6)? as u32),
            1 => Scale::Decimal(input.bits(4)? as u32),
            2 => Scale::Percent(input.varint()?),
            _ => return None,
        })
    }

    pub fn value(self, number: i64) -> f64 {
        match self {
            Scale::Binary(e) => number as f64 / (1u64 << e) as f64,
            Scale::Decimal(e) => number as f64 / 10f64.powi(e as i32),
            Scale::Percent(whole) => number as f64 / whole as f64 * 100.0,
        }
    }

    /// None: the value is no whole number of this.
    fn number(self, value: f64) -> Option<i64> {
        let near = match self {
            Scale::Binary(e) => value * (1u64 << e) as f64,
            Scale::Decimal(e) => value * 10f64.powi(e as i32),
            Scale::Percent(whole) => value / 100.0 * whole as f64,
        };
        let number = near.round();
        (number.abs() < MAX_WHOLE && self.value(number as i64).to_bits() == value.to_bits()).then_some(number as i64)
    }
}

/// None: these are no whole numbers of anything that is looked for.
pub(super) fn find(column: &[f64]) -> Option<Whole> {
    let stride = column.len().div_ceil(PROBES).max(1);
    let probes: Vec<f64> = column.iter().copied().step_by(stride).collect();
    let fits = |scale: &Scale| {
        let odd = probes.iter().filter(|value| scale.number(**value).is_none()).count();
        odd * ODD <= probes.len()
    };
    let scale = binary(&probes).filter(fits).or_else(|| (1..=MAX_DECIMAL).map(Scale::Decimal).find(fits));
    let scale = scale.or_else(|| percent(&probes).filter(fits))?;
    apply(scale, column)
}

fn apply(scale: Scale, column: &[f64]) -> Option<Whole> {
    let (mut numbers, mut odd) = (Vec::with_capacity(column.len()), Vec::new());
    let mut last = column.iter().find_map(|value| scale.number(*value))?;
    let first = last;
    let mut unit = 0;
    for (at, value) in column.iter().enumerate() {
        match scale.number(*value) {
            Some(number) => last = number,
            None => odd.push((at, value.to_bits())),
        }
        unit = common(unit, last.abs_diff(first));
        numbers.push(last);
    }
    if odd.len() * ODD > column.len() {
        return None;
    }
    let unit = unit.max(1);
    numbers.iter_mut().for_each(|number| *number = (*number - first) / unit as i64);
    Some(Whole { scale, first, unit, numbers, odd })
}

fn common(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// The finest that a value needs, among those that need little.
fn binary(probes: &[f64]) -> Option<Scale> {
    let needed = |value: &f64| {
        if *value == 0.0 {
            return Some(0);
        }
        let bits = value.to_bits();
        let exponent = ((bits >> 52) & 0x7ff) as i64 - 1075;
        let zeros = i64::from((bits & ((1 << 52) - 1) | 1 << 52).trailing_zeros());
        u32::try_from((-(exponent + zeros)).max(0)).ok().filter(|e| *e <= MAX_BINARY)
    };
    probes.iter().filter_map(needed).max().map(Scale::Binary)
}

/// The least whole of which most probes are so many hundredths.
fn percent(probes: &[f64]) -> Option<Scale> {
    let mut whole = 1u64;
    for value in probes {
        let Some(denominator) = denominator(value / 100.0) else { continue };
        whole = (whole / common(whole, denominator)).checked_mul(denominator).filter(|w| *w <= MAX_DENOMINATOR)?;
    }
    (whole > 1).then_some(Scale::Percent(whole))
}

/// Of the simplest fraction that is this number to its last bits: the next convergent of its continued fraction that is so near.
/// A number with noise in its mantissa has none below the bound.
fn denominator(value: f64) -> Option<u64> {
    const BOUND: f64 = (1u64 << 22) as f64;
    if !(value > 0.0 && value < 1e6) {
        return None;
    }
    let (mut rest, mut before, mut q) = (value, 0.0, 1.0);
    let mut p = (rest.floor(), 1.0);
    while (value - p.0 / q).abs() > value * 4.0 * f64::EPSILON {
        rest = 1.0 / (rest - rest.floor());
        let whole = rest.floor();
        (before, q) = (q, whole * q + before);
        p = (whole * p.0 + p.1, p.0);
        if !q.is_finite() || q > BOUND {
            return None;
        }
    }
    Some(q as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_found_out() {
        let column = |value: &dyn Fn(f64) -> f64| (0..100).map(|n| value(f64::from(n * n))).collect::<Vec<_>>();
        let found = |column: &[f64]| find(column).map(|whole| (whole.scale, whole.unit, whole.odd.len()));
        assert_eq!(found(&column(&|n| n * 4096.0)), Some((Scale::Binary(0), 4096, 0)));
        assert_eq!(found(&column(&|n| n * 4096.0 / 268_435_456.0 * 100.0)), Some((Scale::Binary(14), 25, 0)));
        assert_eq!(found(&column(&|n| n / 100.0)), Some((Scale::Decimal(2), 1, 0)));
        let whole = 300.0 * 1_048_576.0;
        assert_eq!(found(&column(&|n| (7.0 + n) * 4096.0 / whole * 100.0)), Some((Scale::Percent(76_800), 1, 0)));
        assert_eq!(found(&column(&|n| (n + 0.3).sqrt())), None);
    }

    #[test]
    fn what_does_not_fit_is_kept_apart() {
        let mut column: Vec<f64> = (0..100).map(f64::from).collect();
        (column[0], column[50], column[51]) = (-0.0, f64::NAN, 0.123_456_789_012_345);
        let whole = find(&column).unwrap();
        assert_eq!((whole.scale, whole.odd.iter().map(|odd| odd.0).collect::<Vec<_>>()), (Scale::Binary(0), vec![0, 50, 51]));
    }
}
