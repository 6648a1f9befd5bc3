use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::model::Timestamp;
use crate::model::instance::InstanceStatus;

#[derive(Clone, Debug)]
struct Host {
    instance: Instance,
    load: Load,
}

fn host(n: usize, zone: &str, kind: usize) -> Host {
    let attributes = [(ZONE.to_owned(), Some(zone.to_owned())), ("rack".to_owned(), Some(kind.to_string()))];
    let instance = Instance {
        id: format!("i{n:03}").into(),
        cluster: "c".into(),
        status: InstanceStatus::Active,
        agent_connected: true,
        disconnected_at: None,
        engine_away_since: None,
        registered: Resources { cpu: 1_000, memory: 2_000, ..Resources::default() },
        reserved_tcp_ports: vec![22],
        attributes: BTreeMap::from(attributes),
        agent_version: String::new(),
        docker_version: String::new(),
        host_name: String::new(),
        host_address: String::new(),
        tags: Vec::new(),
        registered_at: Timestamp(0),
        version: 1,
    };
    Host { instance, load: Load::default() }
}

impl Host {
    fn takes(&mut self, takes: &Resources, group: &str, by: i64) {
        let load = &mut self.load;
        let of = |value: u32, change: u32| value.saturating_add_signed(change as i32 * by as i32);
        (load.cpu, load.memory, load.tasks) = (of(load.cpu, takes.cpu), of(load.memory, takes.memory), of(load.tasks, 1));
        for port in &takes.tcp_ports {
            if by > 0 {
                load.tcp_ports.insert(*port)
            } else {
                load.tcp_ports.remove(port)
            };
        }
        let tasks = of(load.groups.get(group).copied().unwrap_or(0), 1);
        if tasks == 0 {
            load.groups.remove(group)
        } else {
            load.groups.insert(Arc::from(group), tasks)
        };
    }
}

#[derive(Clone, Debug)]
enum Step {
    Enter { at: usize, zone: usize, rack: usize },
    Leave(usize),
    Stand { at: usize, status: u8, connected: bool, cpu: u32, ports: Vec<u16> },
    Move { at: usize, rack: usize },
    Start { at: usize, cpu: u32, memory: u32, group: usize, port: Option<u16> },
    End(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let at = 0..150usize;
    prop_oneof![
        4 => (at.clone(), 0..3usize, 0..3usize).prop_map(|(at, zone, rack)| Step::Enter { at, zone, rack }),
        1 => at.clone().prop_map(Step::Leave),
        1 => (at.clone(), 0..3u8, any::<bool>(), 0..1_500u32, prop::collection::vec(20..25u16, 0..2))
            .prop_map(|(at, status, connected, cpu, ports)| Step::Stand { at, status, connected, cpu, ports }),
        1 => (at.clone(), 0..5usize).prop_map(|(at, rack)| Step::Move { at, rack }),
        6 => (at, 0..400u32, 0..400u32, 0..4usize, prop::option::of(20..25u16))
            .prop_map(|(at, cpu, memory, group, port)| Step::Start { at, cpu, memory, group, port }),
        3 => (0..100usize).prop_map(Step::End),
    ]
}

/// Everything that a room says, worked out from its instances.
fn check(room: &Room, hosts: &BTreeMap<usize, Host>) {
    let mut capacity = Capacity::default();
    hosts.values().for_each(|h| capacity.enter(&h.instance));
    assert_eq!((room.capacity(), room.instances()), (capacity, hosts.len()));
    let alike: BTreeSet<_> = hosts.values().map(|h| &h.instance.attributes).collect();
    assert_eq!(room.kinds().count(), alike.len());
    for Host { instance, load } in hosts.values() {
        let place = room.places[&instance.id];
        let block = room.block(place.block).unwrap();
        let is = |mask: u64| mask >> place.slot & 1 == 1;
        assert_eq!(block.id(place.slot), Some(&instance.id));
        assert_eq!(room.kind(block.kind).unwrap().attributes(), Some(&instance.attributes));
        let open = instance.status == InstanceStatus::Active && instance.agent_connected;
        for (cpu, memory) in [(0, 0), (300, 0), (0, 300), (900, 900)] {
            let fits = load.cpu + cpu <= instance.registered.cpu && load.memory + memory <= instance.registered.memory;
            assert_eq!(is(block.fitting(cpu, memory)), open && fits);
        }
        for group in ["g0", "g1", "g2", "g3"] {
            let tasks = room.group(group).and_then(|g| g.of_block(place.block)).map_or(0, |t| t.get(place.slot));
            assert_eq!(tasks, load.groups.get(group).copied().unwrap_or(0));
        }
        for port in 18..26 {
            let own = instance.reserved_tcp_ports.contains(&port);
            assert_eq!(is(room.taken(Protocol::Tcp, port, place.block)), own || load.tcp_ports.contains(&port));
        }
    }
    for (number, kind) in room.kinds() {
        let of_kind = || hosts.values().filter(|h| Some(&h.instance.attributes) == kind.attributes());
        for group in ["g0", "g1", "g2", "g3"] {
            let tasks: u64 = of_kind().map(|h| u64::from(h.load.groups.get(group).copied().unwrap_or(0))).sum();
            assert_eq!(room.group(group).map_or(0, |g| g.of_kind(number)), tasks);
        }
        assert_eq!(kind.open(), kind.heads().iter().map(|h| room.block(h.block).unwrap().open()).sum::<u32>());
        assert!(kind.heads().iter().all(|h| room.block(h.block).unwrap().summary() == h.summary));
    }
    let groups: BTreeSet<_> = hosts.values().flat_map(|h| h.load.groups.keys()).collect();
    assert_eq!(room.groups.len(), groups.len(), "what is over is forgotten");
}

proptest! {
    #[test]
    fn a_room_says_what_its_instances_are(steps in prop::collection::vec(step(), 0..400)) {
        let (mut room, mut hosts) = (Room::default(), BTreeMap::<usize, Host>::new());
        let mut tasks: Vec<(usize, Resources, String)> = Vec::new();
        for (n, step) in steps.into_iter().enumerate() {
            let moved = n as u64;
            match step {
                Step::Enter { at, zone, rack } => {
                    if let std::collections::btree_map::Entry::Vacant(place) = hosts.entry(at) {
                        let host = place.insert(host(at, ["a", "b", "c"][zone], rack));
                        room.enter(&host.instance, &host.load, moved);
                    }
                }
                Step::Leave(at) => {
                    if let Some(host) = hosts.remove(&at) {
                        room.leave(&host.instance, &host.load, moved);
                        tasks.retain(|(on, _, _)| *on != at);
                    }
                }
                Step::Stand { at, status, connected, cpu, ports } => {
                    let Some(host) = hosts.get_mut(&at) else { continue };
                    let old = host.instance.clone();
                    let all = [InstanceStatus::Active, InstanceStatus::Draining, InstanceStatus::Inactive];
                    (host.instance.status, host.instance.agent_connected) = (all[status as usize], connected);
                    (host.instance.registered.cpu, host.instance.reserved_tcp_ports) = (cpu, ports);
                    room.update(&old, &host.instance, &host.load, moved);
                }
                Step::Move { at, rack } => {
                    let Some(host) = hosts.get_mut(&at) else { continue };
                    let old = host.instance.clone();
                    host.instance.attributes.insert("rack".to_owned(), Some(rack.to_string()));
                    room.update(&old, &host.instance, &host.load, moved);
                }
                Step::Start { at, cpu, memory, group, port } => {
                    let Some(host) = hosts.get_mut(&at) else { continue };
                    let port = port.filter(|port| !host.load.tcp_ports.contains(port));
                    let takes = Resources { cpu, memory, tcp_ports: port.into_iter().collect(), udp_ports: Vec::new() };
                    let group = format!("g{group}");
                    host.takes(&takes, &group, 1);
                    room.task(&host.instance.id, &takes, Some(&group), &host.load, 1, moved);
                    tasks.push((at, takes, group));
                }
                Step::End(which) => {
                    if tasks.is_empty() {
                        continue;
                    }
                    let (at, takes, group) = tasks.swap_remove(which % tasks.len());
                    let host = hosts.get_mut(&at).expect("its tasks go with it");
                    host.takes(&takes, &group, -1);
                    room.task(&host.instance.id, &takes, Some(&group), &host.load, -1, moved);
                }
            }
            prop_assert!(room.moved() <= moved);
        }
        check(&room, &hosts);
    }
}

#[test]
fn attributes_of_ones_own_do_not_make_a_kind_each_for_ever() {
    let mut room = Room::default();
    let mut hosts: Vec<Host> = (0..600).map(|n| host(n, ["a", "b"][n % 2], n)).collect();
    hosts.iter().for_each(|h| room.enter(&h.instance, &h.load, 1));
    assert_eq!(room.kinds().count(), KINDS_MAX + 2);
    let of_zone = room.kinds().find(|(_, kind)| kind.known == Known::Zone).expect("one per zone").1;
    assert_eq!((of_zone.attribute(ZONE).is_some(), of_zone.attribute("rack"), of_zone.attributes()), (true, None, None));
    // Zones of one's own do not either.
    for (n, host) in hosts.iter_mut().enumerate() {
        let old = host.instance.clone();
        host.instance.attributes.insert(ZONE.to_owned(), Some(n.to_string()));
        room.update(&old, &host.instance, &host.load, 2);
    }
    assert!(room.kinds().count() <= 2 * KINDS_MAX + 1);
    assert_eq!(room.kinds().map(|(_, kind)| kind.open()).sum::<u32>(), 600);
    for host in &hosts {
        room.leave(&host.instance, &host.load, 3);
    }
    assert_eq!((room.kinds().count(), room.instances(), room.ports.len()), (0, 0, 0));
}
