//! Sixty-four instances side by side: what is free of each, in columns, so that one look says which of them a task fits on.

use std::sync::Arc;

use super::super::InstanceId;
use super::super::instance::{Instance, InstanceStatus, Load};

pub const SLOTS: u32 = 64;

/// What is free of an instance, and one more; 0 where more is taken than there is, so that nothing fits, not even nothing.
fn room(all: u32, taken: u32) -> u32 {
    if taken > all { 0 } else { (all - taken).saturating_add(1) }
}

#[derive(Clone, Debug)]
pub struct Block {
    pub kind: u32,
    used: u64,
    /// ACTIVE, with its agent connected.
    open: u64,
    cpu: [u32; SLOTS as usize],
    memory: [u32; SLOTS as usize],
    /// Behind a pointer of its own: tasks change the columns all the time, and the ids hardly ever.
    ids: Arc<Vec<Option<InstanceId>>>,
}

/// The ends of a block's open instances, to pass by those on which nothing can be found. As [`Block`] counts: one more than is free.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    pub most_cpu: u32,
    pub most_memory: u32,
    pub least_cpu: u32,
    pub least_memory: u32,
}

impl Block {
    pub fn new(kind: u32) -> Block {
        let columns = [0; SLOTS as usize];
        Block { kind, used: 0, open: 0, cpu: columns, memory: columns, ids: Arc::new(vec![None; SLOTS as usize]) }
    }

    pub fn free_slot(&self) -> Option<u32> {
        (self.used != u64::MAX).then(|| (!self.used).trailing_zeros())
    }

    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    pub fn open(&self) -> u32 {
        self.open.count_ones()
    }

    pub fn enter(&mut self, slot: u32, id: &InstanceId) {
        self.used |= 1 << slot;
        Arc::make_mut(&mut self.ids)[slot as usize] = Some(id.clone());
    }

    pub fn leave(&mut self, slot: u32) {
        self.used &= !(1 << slot);
        self.open &= !(1 << slot);
        Arc::make_mut(&mut self.ids)[slot as usize] = None;
    }

    pub fn stand(&mut self, slot: u32, instance: &Instance) {
        match instance.status == InstanceStatus::Active && instance.agent_connected {
            true => self.open |= 1 << slot,
            false => self.open &= !(1 << slot),
        }
    }

    pub fn weigh(&mut self, slot: u32, (cpu, memory): (u32, u32), load: &Load) {
        self.cpu[slot as usize] = room(cpu, load.cpu);
        self.memory[slot as usize] = room(memory, load.memory);
    }

    pub fn summary(&self) -> Summary {
        let mut summary = Summary { most_cpu: 0, most_memory: 0, least_cpu: u32::MAX, least_memory: u32::MAX };
        for slot in 0..SLOTS as usize {
            if self.open >> slot & 1 == 1 {
                summary.most_cpu = summary.most_cpu.max(self.cpu[slot]);
                summary.most_memory = summary.most_memory.max(self.memory[slot]);
                summary.least_cpu = summary.least_cpu.min(self.cpu[slot]);
                summary.least_memory = summary.least_memory.min(self.memory[slot]);
            }
        }
        summary
    }

    /// The open instances that have so much free, as a bit each.
    pub fn fitting(&self, cpu: u32, memory: u32) -> u64 {
        let fits = |slot: usize| u64::from((self.cpu[slot] > cpu) & (self.memory[slot] > memory)) << slot;
        (0..SLOTS as usize).fold(0, |mask, slot| mask | fits(slot)) & self.open
    }

    pub fn id(&self, slot: u32) -> Option<&InstanceId> {
        self.ids.get(slot as usize)?.as_ref()
    }

    pub fn free_cpu(&self, slot: u32) -> u32 {
        self.cpu[slot as usize].saturating_sub(1)
    }

    pub fn free_memory(&self, slot: u32) -> u32 {
        self.memory[slot as usize].saturating_sub(1)
    }
}
