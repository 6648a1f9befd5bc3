//! Columns of a chunk at rest: whole numbers and doubles, each column in the shortest of a few forms. Exact for every bit pattern.
//!
//! Most of what is measured is a whole number in disguise: bytes, pages of a limit as percents, decimals. Such a column is found out and
//! kept as whole numbers; what is left is noise in all 52 bits of its mantissa, and takes what it takes.

use super::bits::{BitReader, BitWriter, unzigzag, zigzag};
use super::chunk::Xor;
use super::scale::{self, Scale};

/// More elements than a chunk of any series has; damaged bytes may claim more.
pub(super) const MAX_LENGTH: usize = 1 << 24;

/// A quotient this long is written as ones, and the number in full after it.
const ESCAPE: u32 = 20;
/// A column of fewer runs than one in so many elements is tried as runs.
const RUNS_FROM: usize = 3;
/// How many different values back a repeated one is found.
const RECENT: usize = 16;

#[derive(Clone, Copy, PartialEq)]
enum Ints {
    Constant = 0,
    /// Differences to the one before.
    Steps = 1,
    /// Above the least.
    Offsets = 2,
    /// Values and how often each comes.
    Runs = 3,
}

pub(super) fn write_ints(out: &mut BitWriter, column: &[i64]) {
    write_ints_in(out, column, true);
}

fn write_ints_in(out: &mut BitWriter, column: &[i64], may_run: bool) {
    let Some(&first) = column.first() else { return };
    let runs = 1 + column.windows(2).filter(|pair| pair[0] != pair[1]).count();
    if runs == 1 {
        out.bits(Ints::Constant as u64, 2);
        return out.varint(zigzag(first));
    }
    let least = column.iter().copied().min().unwrap_or(first);
    let steps: Vec<u64> = column.windows(2).map(|pair| zigzag(pair[1].wrapping_sub(pair[0]))).collect();
    let offsets: Vec<u64> = column.iter().map(|value| value.wrapping_sub(least) as u64).collect();
    let ((step_bits, step_k), (offset_bits, offset_k)) = (rice_cost(&steps), rice_cost(&offsets));
    let mut best = BitWriter::default();
    if step_bits <= offset_bits {
        best.bits(Ints::Steps as u64, 2);
        best.varint(zigzag(first));
        write_rice(&mut best, &steps, step_k);
    } else {
        best.bits(Ints::Offsets as u64, 2);
        best.varint(zigzag(least));
        write_rice(&mut best, &offsets, offset_k);
    }
    if may_run && runs * RUNS_FROM < column.len() {
        let (mut values, mut lengths) = (Vec::with_capacity(runs), Vec::with_capacity(runs));
        for run in column.chunk_by(|a, b| a == b) {
            values.push(run[0]);
            lengths.push(run.len() as i64);
        }
        let mut as_runs = BitWriter::default();
        as_runs.bits(Ints::Runs as u64, 2);
        as_runs.varint(runs as u64);
        write_ints_in(&mut as_runs, &values, false);
        write_ints_in(&mut as_runs, &lengths, false);
        if as_runs.len_bits() < best.len_bits() {
            best = as_runs;
        }
    }
    out.append(&best);
}

pub(super) fn read_ints(input: &mut BitReader, length: usize) -> Option<Vec<i64>> {
    if length == 0 {
        return Some(Vec::new());
    }
    if length > MAX_LENGTH {
        return None;
    }
    match input.bits(2)? {
        0 => {
            let value = unzigzag(input.varint()?);
            Some(vec![value; length])
        }
        1 => {
            let mut last = unzigzag(input.varint()?);
            let k = input.bits(6)? as u32;
            let mut column = Vec::with_capacity(length.min(1 << 16));
            column.push(last);
            for _ in 1..length {
                last = last.wrapping_add(unzigzag(read_rice(input, k)?));
                column.push(last);
            }
            Some(column)
        }
        2 => {
            let least = unzigzag(input.varint()?);
            let k = input.bits(6)? as u32;
            (0..length).map(|_| Some(least.wrapping_add(read_rice(input, k)? as i64))).collect()
        }
        _ => {
            let runs = usize::try_from(input.varint()?).ok().filter(|runs| *runs <= length)?;
            let values = read_ints(input, runs)?;
            let lengths = read_ints(input, runs)?;
            let mut column = Vec::with_capacity(length.min(1 << 16));
            for (value, run) in values.into_iter().zip(lengths) {
                let run = usize::try_from(run).ok().filter(|run| column.len() + run <= length)?;
                column.resize(column.len() + run, value);
            }
            (column.len() == length).then_some(column)
        }
    }
}

/// Bits, and the width that needs the fewest.
fn rice_cost(column: &[u64]) -> (u64, u32) {
    let mean = column.iter().map(|v| *v as f64).sum::<f64>() / column.len().max(1) as f64;
    let guess = (mean.max(1.0).log2() as u32).min(62);
    (guess.saturating_sub(2)..=guess + 1).map(|k| (column.iter().map(|v| rice_bits(*v, k)).sum(), k)).min().unwrap_or((0, 0))
}

fn rice_bits(value: u64, k: u32) -> u64 {
    match value >> k {
        quotient if quotient < u64::from(ESCAPE) => quotient + 1 + u64::from(k),
        _ => u64::from(ESCAPE) + 64,
    }
}

fn write_rice(out: &mut BitWriter, column: &[u64], k: u32) {
    out.bits(u64::from(k), 6);
    for value in column {
        let quotient = value >> k;
        if quotient < u64::from(ESCAPE) {
            let quotient = quotient as u32;
            out.bits(((1 << quotient) - 1) << 1, quotient + 1);
            out.bits(*value, k);
        } else {
            out.bits((1 << ESCAPE) - 1, ESCAPE);
            out.bits(*value, 64);
        }
    }
}

fn read_rice(input: &mut BitReader, k: u32) -> Option<u64> {
    let mut quotient = 0;
    while quotient < ESCAPE && input.bit()? {
        quotient += 1;
    }
    if quotient == ESCAPE {
        return input.bits(64);
    }
    Some(u64::from(quotient).checked_shl(k)? | input.bits(k)?)
}

/// Doubles: what came shortly before is named, what is new is in a column of its own. Where nothing repeats there is only that.
pub(super) fn write_floats(out: &mut BitWriter, column: &[f64]) {
    let Some(first) = column.first() else { return };
    if column.iter().all(|value| value.to_bits() == first.to_bits()) {
        out.bits(0, 2);
        return write_fresh(out, &column[..1]);
    }
    let mut plain = BitWriter::default();
    plain.bits(1, 2);
    write_fresh(&mut plain, column);
    let (names, fresh) = name_repeated(column);
    if fresh.len() < column.len() {
        let mut named = BitWriter::default();
        named.bits(2, 2);
        write_ints(&mut named, &names);
        write_fresh(&mut named, &fresh);
        if named.len_bits() < plain.len_bits() {
            plain = named;
        }
    }
    out.append(&plain);
}

pub(super) fn read_floats(input: &mut BitReader, length: usize) -> Option<Vec<f64>> {
    if length == 0 {
        return Some(Vec::new());
    }
    if length > MAX_LENGTH {
        return None;
    }
    match input.bits(2)? {
        0 => Some(vec![*read_fresh(input, 1)?.first()?; length]),
        1 => read_fresh(input, length),
        2 => {
            let names = read_ints(input, length)?;
            let mut fresh = read_fresh(input, names.iter().filter(|name| **name == NEW).count())?.into_iter();
            let mut recent = Recent::default();
            names
                .into_iter()
                .map(|name| {
                    let bits = match name {
                        NEW => fresh.next()?.to_bits(),
                        0 => *recent.0.first()?,
                        older => *recent.0.get(usize::try_from(older).ok()? - 1)?,
                    };
                    recent.used(bits);
                    Some(f64::from_bits(bits))
                })
                .collect()
        }
        _ => None,
    }
}

/// 0 is the one before, 1 a new one, n the (n-1)th most recent before those.
const NEW: i64 = 1;

/// The newest first, each once.
#[derive(Default)]
struct Recent(Vec<u64>);

impl Recent {
    fn used(&mut self, bits: u64) {
        match self.0.iter().position(|known| *known == bits) {
            Some(at) => self.0[..=at].rotate_right(1),
            None => {
                self.0.truncate(RECENT - 1);
                self.0.insert(0, bits);
            }
        }
    }
}

fn name_repeated(column: &[f64]) -> (Vec<i64>, Vec<f64>) {
    let (mut names, mut fresh) = (Vec::with_capacity(column.len()), Vec::new());
    let mut recent = Recent::default();
    for value in column {
        let bits = value.to_bits();
        names.push(match recent.0.iter().position(|known| *known == bits) {
            Some(0) => 0,
            Some(at) => at as i64 + 1,
            None => {
                fresh.push(*value);
                NEW
            }
        });
        recent.used(bits);
    }
    (names, fresh)
}

fn write_fresh(out: &mut BitWriter, column: &[f64]) {
    if column.is_empty() {
        return;
    }
    let mut best = BitWriter::default();
    best.bit(false);
    let mut xor = Xor::default();
    column.iter().for_each(|value| xor.write(&mut best, *value));
    if let Some(whole) = scale::find(column) {
        let mut scaled = BitWriter::default();
        scaled.bit(true);
        whole.scale.write(&mut scaled);
        scaled.varint(whole.odd.len() as u64);
        if !whole.odd.is_empty() {
            let places: Vec<i64> = whole.odd.iter().map(|(at, _)| *at as i64).collect();
            write_ints(&mut scaled, &places);
            whole.odd.iter().for_each(|(_, bits)| scaled.bits(*bits, 64));
        }
        scaled.varint(zigzag(whole.first));
        scaled.varint(whole.unit);
        write_ints(&mut scaled, &whole.numbers);
        if scaled.len_bits() < best.len_bits() {
            best = scaled;
        }
    }
    out.append(&best);
}

fn read_fresh(input: &mut BitReader, length: usize) -> Option<Vec<f64>> {
    if length == 0 {
        return Some(Vec::new());
    }
    if !input.bit()? {
        let mut xor = Xor::default();
        return (0..length).map(|_| xor.read(input)).collect();
    }
    let scale = Scale::read(input)?;
    let odd = usize::try_from(input.varint()?).ok().filter(|odd| *odd <= length)?;
    let places = read_ints(input, odd)?;
    let odd_bits = (0..odd).map(|_| input.bits(64)).collect::<Option<Vec<u64>>>()?;
    let (first, unit) = (unzigzag(input.varint()?), input.varint()? as i64);
    let numbers = read_ints(input, length)?;
    let mut column: Vec<f64> =
        numbers.into_iter().map(|number| scale.value(first.wrapping_add(number.wrapping_mul(unit)))).collect();
    for (place, bits) in places.into_iter().zip(odd_bits) {
        *column.get_mut(usize::try_from(place).ok()?)? = f64::from_bits(bits);
    }
    Some(column)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes_of(column: &[f64]) -> usize {
        let mut out = BitWriter::default();
        write_floats(&mut out, column);
        let bytes = out.into_bytes();
        let back = read_floats(&mut BitReader::new(&bytes), column.len()).expect("what was written");
        let bits = |column: &[f64]| column.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&back), bits(column));
        bytes.len()
    }

    #[test]
    fn what_is_whole_in_disguise_is_small() {
        fn walk(n: u64) -> f64 {
            (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 59) as f64
        }
        type Value = fn(u64) -> f64;
        // A constant; bytes; two decimals; pages of 300 MiB in percent; mostly the same with something new now and then.
        let cases: [(&str, Value, f64); 5] = [
            ("constant", |_| 12.345, 0.1),
            ("bytes", |n| 1e6 + walk(n), 0.9),
            ("decimals", |n| (1_000.0 + walk(n)) / 100.0, 0.9),
            ("pages", |n| (20_000.0 + walk(n)) * 4096.0 / (300.0 * 1_048_576.0) * 100.0, 0.9),
            ("seldom", |n| if n % 30 == 0 { 0.1 + walk(n).sqrt() } else { 0.0 }, 0.4),
        ];
        for (name, value, at_most) in cases {
            let column: Vec<f64> = (0..600).map(value).collect();
            let each = bytes_of(&column) as f64 / 600.0;
            assert!(each <= at_most, "{name}: {each} bytes each");
        }
    }

    fn any_ints() -> impl Strategy<Value = Vec<i64>> {
        prop_oneof![
            prop::collection::vec(any::<i64>(), 0..40),
            prop::collection::vec(-3i64..3, 0..200),
            prop::collection::vec((0i64..3, 1usize..50), 0..8)
                .prop_map(|runs| runs.into_iter().flat_map(|(v, n)| std::iter::repeat_n(v, n)).collect()),
        ]
    }

    fn any_floats() -> impl Strategy<Value = Vec<f64>> {
        let number = prop_oneof![any::<u64>().prop_map(f64::from_bits), Just(0.0), Just(-0.0), (0u32..9).prop_map(f64::from)];
        prop_oneof![
            prop::collection::vec(number.clone(), 0..40),
            (prop::collection::vec(-1000i32..1000, 0..100), 0i32..8)
                .prop_map(|(v, e)| v.into_iter().map(|v| f64::from(v) / 10f64.powi(e)).collect()),
            (prop::collection::vec(0u32..100_000, 0..100), 1u32..100_000, number).prop_map(|(v, d, odd)| v
                .into_iter()
                .map(|v| f64::from(v) / f64::from(d) * 100.0)
                .chain([odd])
                .collect()),
        ]
    }

    proptest! {
        #[test]
        fn ints_come_back(column in any_ints()) {
            let mut out = BitWriter::default();
            write_ints(&mut out, &column);
            let bytes = out.into_bytes();
            prop_assert_eq!(read_ints(&mut BitReader::new(&bytes), column.len()), Some(column));
        }

        #[test]
        fn floats_come_back_bit_for_bit(column in any_floats()) {
            bytes_of(&column);
        }

        #[test]
        fn foreign_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100), length in 0usize..300) {
            let _ = read_floats(&mut BitReader::new(&bytes), length);
            let _ = read_ints(&mut BitReader::new(&bytes), length);
        }
    }
}
