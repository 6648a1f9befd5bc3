//! How many tasks of one group every instance runs, sixty-four instances at a time.

use imbl::OrdMap;

const INLINE: usize = 4;

/// Sixty-four counts as binary digits: a mask per digit, so that comparing all the counts takes one step per digit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    /// Counts to fifteen, which is most there is, need no allocation.
    low: [u64; INLINE],
    high: Vec<u64>,
}

impl Tally {
    fn digits(&self) -> impl DoubleEndedIterator<Item = u64> + '_ {
        self.low.iter().chain(&self.high).copied()
    }

    pub fn get(&self, slot: u32) -> u32 {
        self.digits().enumerate().fold(0, |count, (digit, mask)| count | ((mask >> slot & 1) as u32) << digit)
    }

    fn set(&mut self, slot: u32, count: u32) {
        let digits = (u32::BITS - count.leading_zeros()) as usize;
        if digits > INLINE + self.high.len() {
            self.high.resize(digits - INLINE, 0);
        }
        for (digit, mask) in self.low.iter_mut().chain(&mut self.high).enumerate() {
            *mask = *mask & !(1 << slot) | u64::from(count >> digit & 1) << slot;
        }
        while self.high.last() == Some(&0) {
            self.high.pop();
        }
    }

    /// The slots with a task at least.
    pub fn any(&self) -> u64 {
        self.digits().fold(0, |any, mask| any | mask)
    }

    pub fn is(&self, count: u32) -> u64 {
        let digits = INLINE + self.high.len();
        if (u32::BITS - count.leading_zeros()) as usize > digits {
            return 0;
        }
        self.digits().enumerate().fold(u64::MAX, |is, (digit, mask)| is & if count >> digit & 1 == 1 { mask } else { !mask })
    }

    /// The least count among these slots, of which there is one at least.
    pub fn least(&self, among: u64) -> u32 {
        let (mut left, mut least) = (among, 0);
        for mask in self.digits().rev() {
            least <<= 1;
            match left & !mask {
                0 => least |= 1,
                without => left = without,
            }
        }
        least
    }
}

/// The tasks of one group in a cluster, those with desired status RUNNING.
#[derive(Clone, Debug, Default)]
pub struct Group {
    by_kind: OrdMap<u32, u64>,
    by_block: OrdMap<u32, Tally>,
}

impl Group {
    pub fn of_kind(&self, kind: u32) -> u64 {
        self.by_kind.get(&kind).copied().unwrap_or(0)
    }

    pub fn of_block(&self, block: u32) -> Option<&Tally> {
        self.by_block.get(&block)
    }

    pub fn is_empty(&self) -> bool {
        self.by_kind.is_empty()
    }

    pub fn add(&mut self, kind: u32, block: u32, slot: u32, by: i64) {
        let all = self.of_kind(kind).saturating_add_signed(by);
        if all == 0 {
            self.by_kind.remove(&kind)
        } else {
            self.by_kind.insert(kind, all)
        };
        if !self.by_block.contains_key(&block) {
            self.by_block.insert(block, Tally::default());
        }
        let Some(tally) = self.by_block.get_mut(&block) else { return };
        let count = i64::from(tally.get(slot)) + by;
        tally.set(slot, u32::try_from(count).unwrap_or(0));
        if tally.any() == 0 {
            self.by_block.remove(&block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_tally_counts_as_an_array_does(
            sets in prop::collection::vec((0..64u32, prop_oneof![0..5u32, 0..70u32, any::<u32>()]), 0..200),
            among in any::<u64>(),
        ) {
            let (mut tally, mut plain) = (Tally::default(), [0u32; 64]);
            for (slot, count) in sets {
                tally.set(slot, count);
                plain[slot as usize] = count;
                prop_assert_eq!(tally.is(count) >> slot & 1, 1);
            }
            let masked = |f: &dyn Fn(u32) -> bool| (0..64).fold(0u64, |m, slot| m | u64::from(f(plain[slot])) << slot);
            for slot in 0..64 {
                prop_assert_eq!(tally.get(slot), plain[slot as usize]);
                prop_assert_eq!(tally.is(plain[slot as usize]), masked(&|n| n == plain[slot as usize]));
            }
            prop_assert_eq!(tally.any(), masked(&|n| n > 0));
            prop_assert_eq!(tally.is(0), !tally.any());
            prop_assume!(among != 0);
            let least = (0..64).filter(|slot| among >> slot & 1 == 1).map(|slot| plain[slot]).min();
            prop_assert_eq!(Some(tally.least(among)), least);
        }
    }
}
