//! Where there is room in a cluster: its instances in blocks of sixty-four, of instances that agree in their attributes, with what
//! is free on each and how many tasks of each group it runs. Kept up by the store on every change, so that a placement looks at a
//! summary per block and at one block or a few, not at every instance. Chooses nothing: that is `decide::placement`'s.

mod block;
mod group;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::{OrdMap, Vector};

pub use block::{Block, SLOTS, Summary};
pub use group::{Group, Tally};

use super::InstanceId;
use super::instance::{Capacity, Instance, Load};
use super::task::Resources;

/// Sets of attributes that have blocks of their own. An attribute that every instance has its own value of would otherwise give
/// every instance a block, and a placement looks at every kind.
const KINDS_MAX: usize = 128;
pub const ZONE: &str = "ecs.availability-zone";

type Attributes = Arc<BTreeMap<String, Option<String>>>;

#[derive(Clone, Debug, Default)]
pub struct Room {
    capacity: Capacity,
    /// The commit that last changed anything here: while it stands, who found no place finds none.
    moved: u64,
    by_attributes: OrdMap<(Known, Attributes), u32>,
    kinds: Vector<Arc<Kind>>,
    empty_kinds: Vec<u32>,
    blocks: Vector<Arc<Block>>,
    empty_blocks: Vec<u32>,
    places: OrdMap<InstanceId, Place>,
    groups: OrdMap<Arc<str>, Arc<Group>>,
    /// The instances of a block on which a port is taken.
    ports: OrdMap<(Port, u32), u64>,
}

/// Instances that agree in their attributes, as far as these are known of all of them.
#[derive(Clone, Debug)]
pub struct Kind {
    pub known: Known,
    attributes: Attributes,
    heads: Vec<Head>,
    instances: u32,
    open: u32,
}

/// What is known of the attributes of a kind's instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Known {
    All,
    /// Where there are too many kinds.
    Zone,
    /// Where there are too many zones.
    Nothing,
}

#[derive(Clone, Copy, Debug)]
pub struct Head {
    pub block: u32,
    pub summary: Summary,
}

/// Where an instance stands, and what it has.
#[derive(Clone, Copy, Debug)]
struct Place {
    block: u32,
    slot: u32,
    has: (u32, u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    Tcp,
    Udp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Port {
    /// Taken by a task.
    Task(Protocol, u16),
    /// Kept by the instance for itself.
    Own(Protocol, u16),
}

impl Kind {
    /// None: it differs from instance to instance.
    pub fn attribute(&self, name: &str) -> Option<Option<&str>> {
        let told = match self.known {
            Known::All => true,
            Known::Zone => name == ZONE,
            Known::Nothing => false,
        };
        told.then(|| self.attributes.get(name).and_then(|value| value.as_deref()))
    }

    /// None: they differ.
    pub fn attributes(&self) -> Option<&BTreeMap<String, Option<String>>> {
        (self.known == Known::All).then_some(&*self.attributes)
    }

    pub fn heads(&self) -> &[Head] {
        &self.heads
    }

    pub fn open(&self) -> u32 {
        self.open
    }
}

impl Room {
    pub fn capacity(&self) -> Capacity {
        self.capacity
    }

    pub fn moved(&self) -> u64 {
        self.moved
    }

    /// Instances of whatever status.
    pub fn instances(&self) -> usize {
        self.places.len()
    }

    pub fn kinds(&self) -> impl Iterator<Item = (u32, &Kind)> {
        self.kinds.iter().enumerate().filter(|(_, kind)| kind.instances > 0).map(|(n, kind)| (n as u32, &**kind))
    }

    pub fn kind(&self, kind: u32) -> Option<&Kind> {
        self.kinds.get(kind as usize).map(|kind| &**kind)
    }

    pub fn block(&self, block: u32) -> Option<&Block> {
        self.blocks.get(block as usize).map(|block| &**block)
    }

    pub fn group(&self, name: &str) -> Option<&Group> {
        self.groups.get(name).map(|group| &**group)
    }

    /// The instances of the block on which a task cannot have the port.
    pub fn taken(&self, protocol: Protocol, port: u16, block: u32) -> u64 {
        let of = |key: Port| self.ports.get(&(key, block)).copied().unwrap_or(0);
        of(Port::Task(protocol, port)) | of(Port::Own(protocol, port))
    }

    pub fn enter(&mut self, instance: &Instance, load: &Load, moved: u64) {
        self.moved = moved;
        self.capacity.enter(instance);
        let kind = self.kind_of(instance);
        let (block, slot) = self.slot_of(kind);
        let place = Place { block, slot, has: (instance.registered.cpu, instance.registered.memory) };
        self.places.insert(instance.id.clone(), place);
        if let Some(kind) = self.kinds.get_mut(kind as usize).map(Arc::make_mut) {
            kind.instances += 1;
        }
        self.change(place, |block| {
            block.enter(slot, &instance.id);
            block.stand(slot, instance);
            block.weigh(slot, place.has, load);
        });
        own_ports(instance).for_each(|port| self.port(port, place, true));
        task_ports(&load.tcp_ports, &load.udp_ports).for_each(|port| self.port(port, place, true));
        for (group, &tasks) in &load.groups {
            self.group_by(group, kind, place, i64::from(tasks));
        }
    }

    /// As it was when it entered, with what runs there now.
    pub fn leave(&mut self, instance: &Instance, load: &Load, moved: u64) {
        let Some(place) = self.places.remove(&instance.id) else { return };
        self.moved = moved;
        self.capacity.leave(instance);
        let Some(kind) = self.block(place.block).map(|block| block.kind) else { return };
        for (group, &tasks) in &load.groups {
            self.group_by(group, kind, place, -i64::from(tasks));
        }
        task_ports(&load.tcp_ports, &load.udp_ports).for_each(|port| self.port(port, place, false));
        own_ports(instance).for_each(|port| self.port(port, place, false));
        self.change(place, |block| block.leave(place.slot));
        self.tidy(kind, place.block);
    }

    /// The instance's row has changed, and what runs there has not.
    pub fn update(&mut self, old: &Instance, new: &Instance, load: &Load, moved: u64) {
        let Some(place) = self.places.get(&new.id).copied().filter(|_| old.attributes == new.attributes) else {
            self.leave(old, load, moved);
            return self.enter(new, load, moved);
        };
        self.moved = moved;
        self.capacity.leave(old);
        self.capacity.enter(new);
        let place = Place { has: (new.registered.cpu, new.registered.memory), ..place };
        self.places.insert(new.id.clone(), place);
        self.change(place, |block| {
            block.stand(place.slot, new);
            block.weigh(place.slot, place.has, load);
        });
        own_ports(old).for_each(|port| self.port(port, place, false));
        own_ports(new).for_each(|port| self.port(port, place, true));
    }

    /// A task came to the instance (`by` is 1) or left it (-1), which now has this load. Its group counts while it is wanted.
    pub fn task(&mut self, id: &InstanceId, takes: &Resources, group: Option<&str>, load: &Load, by: i64, moved: u64) {
        self.moved = moved;
        let Some(place) = self.places.get(id).copied() else { return };
        let kind = self.change(place, |block| block.weigh(place.slot, place.has, load));
        task_ports(&takes.tcp_ports, &takes.udp_ports).for_each(|port| self.port(port, place, by > 0));
        if let Some(group) = group {
            self.group_by(group, kind, place, by);
        }
    }

    fn kind_of(&mut self, instance: &Instance) -> u32 {
        let all = (Known::All, Arc::new(instance.attributes.clone()));
        if let Some(&kind) = self.by_attributes.get(&all) {
            return kind;
        }
        let of_zone = instance.attributes.get(ZONE).map(|zone| (ZONE.to_owned(), zone.clone()));
        let zone = (Known::Zone, Arc::new(of_zone.into_iter().collect()));
        let key = match self.by_attributes.len() {
            ..KINDS_MAX => all,
            few if few < 2 * KINDS_MAX || self.by_attributes.contains_key(&zone) => zone,
            _ => (Known::Nothing, Attributes::default()),
        };
        if let Some(&kind) = self.by_attributes.get(&key) {
            return kind;
        }
        let kind = Arc::new(Kind { known: key.0, attributes: key.1.clone(), heads: Vec::new(), instances: 0, open: 0 });
        let number = match self.empty_kinds.pop() {
            Some(number) => {
                self.kinds.set(number as usize, kind);
                number
            }
            None => {
                self.kinds.push_back(kind);
                self.kinds.len() as u32 - 1
            }
        };
        self.by_attributes.insert(key, number);
        number
    }

    fn slot_of(&mut self, kind: u32) -> (u32, u32) {
        let heads = self.kind(kind).map_or(&[][..], |k| &k.heads);
        if let Some(found) = heads.iter().find_map(|head| Some((head.block, self.block(head.block)?.free_slot()?))) {
            return found;
        }
        let block = Arc::new(Block::new(kind));
        let number = self.empty_blocks.pop().unwrap_or(self.blocks.len() as u32);
        let head = Head { block: number, summary: block.summary() };
        match (number as usize) < self.blocks.len() {
            true => drop(self.blocks.set(number as usize, block)),
            false => self.blocks.push_back(block),
        }
        if let Some(kind) = self.kinds.get_mut(kind as usize).map(Arc::make_mut) {
            kind.heads.push(head);
        }
        (number, 0)
    }

    /// Changes a block and what is said of it; answers with its kind.
    fn change(&mut self, place: Place, change: impl FnOnce(&mut Block)) -> u32 {
        let Some(block) = self.blocks.get_mut(place.block as usize).map(Arc::make_mut) else { return u32::MAX };
        let open = block.open();
        change(block);
        let (summary, opened) = (block.summary(), block.open());
        if let Some(kind) = self.kinds.get_mut(block.kind as usize).map(Arc::make_mut) {
            kind.open = kind.open + opened - open;
            if let Some(head) = kind.heads.iter_mut().find(|head| head.block == place.block) {
                head.summary = summary;
            }
        }
        block.kind
    }

    /// After an instance has left: what is empty is used again.
    fn tidy(&mut self, number: u32, block: u32) {
        let empty = self.block(block).is_some_and(Block::is_empty);
        let Some(kind) = self.kinds.get_mut(number as usize).map(Arc::make_mut) else { return };
        kind.instances -= 1;
        if empty {
            kind.heads.retain(|head| head.block != block);
            self.empty_blocks.push(block);
        }
        if kind.instances == 0 {
            self.by_attributes.remove(&(kind.known, kind.attributes.clone()));
            self.empty_kinds.push(number);
        }
    }

    fn group_by(&mut self, name: &str, kind: u32, place: Place, by: i64) {
        if !self.groups.contains_key(name) {
            self.groups.insert(Arc::from(name), Arc::default());
        }
        let Some(group) = self.groups.get_mut(name).map(Arc::make_mut) else { return };
        group.add(kind, place.block, place.slot, by);
        if group.is_empty() {
            self.groups.remove(name);
        }
    }

    fn port(&mut self, port: Port, place: Place, taken: bool) {
        let key = (port, place.block);
        let before = self.ports.get(&key).copied().unwrap_or(0);
        let bit = 1 << place.slot;
        match if taken { before | bit } else { before & !bit } {
            0 => drop(self.ports.remove(&key)),
            after => drop(self.ports.insert(key, after)),
        }
    }
}

fn own_ports(instance: &Instance) -> impl Iterator<Item = Port> + '_ {
    let tcp = instance.reserved_tcp_ports.iter().chain(&instance.registered.tcp_ports);
    let udp = instance.registered.udp_ports.iter();
    tcp.map(|&port| Port::Own(Protocol::Tcp, port)).chain(udp.map(|&port| Port::Own(Protocol::Udp, port)))
}

fn task_ports<'a>(tcp: impl IntoIterator<Item = &'a u16>, udp: impl IntoIterator<Item = &'a u16>) -> impl Iterator<Item = Port> {
    let tcp = tcp.into_iter().map(|&port| Port::Task(Protocol::Tcp, port));
    tcp.chain(udp.into_iter().map(|&port| Port::Task(Protocol::Udp, port)))
}
