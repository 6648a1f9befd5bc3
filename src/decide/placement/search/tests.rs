//! Against the scan: whatever the cluster and the request, what is found fits and no instance that fits has a better score.

use proptest::prelude::*;

use super::super::tests::{Host, constraint, host, strategy};
use super::super::{Candidate, Outcome, first_failed, place};
use super::*;
use crate::model::instance::InstanceStatus;
use crate::model::placement::{PlacementConstraint, PlacementStrategy};
use crate::model::task::Resources;

const GROUP: &str = "service:web";

fn any_host() -> impl Strategy_<Value = Host> {
    let numbers = (0..2048u32, 0..2048u32, 0..1024u32, prop_oneof![4 => Just(0u32), 1 => 0..20u32]);
    (0..3usize, prop::option::of(0..2usize), numbers, any::<bool>(), 0..12u8).prop_map(
        |(zone, rack, (cpu, memory, used, tasks), port, state)| {
            // Round numbers, so that there are ties.
            let (cpu, memory, used) = (cpu & !255, memory & !255, used & !255);
            let mut host = host("", ["a", "b", "c"][zone], cpu, memory).with_load(used, used);
            if let Some(rack) = rack {
                host.instance.attributes.insert("rack".to_owned(), Some(rack.to_string()));
            }
            if port {
                host.load.tcp_ports.insert(80);
            }
            host.instance.agent_connected = state != 0;
            if state == 1 {
                host.instance.status = InstanceStatus::Draining;
            }
            if tasks == 0 { host } else { host.with_tasks(GROUP, tasks) }
        },
    )
}

fn any_strategy() -> impl Strategy_<Value = PlacementStrategy> {
    prop_oneof![
        1 => Just(strategy("random", "")),
        3 => Just(strategy("spread", "instanceId")),
        2 => Just(strategy("spread", "attribute:ecs.availability-zone")),
        2 => Just(strategy("spread", "attribute:rack")),
        2 => Just(strategy("binpack", "cpu")),
        2 => Just(strategy("binpack", "memory")),
    ]
}

fn any_constraint() -> impl Strategy_<Value = PlacementConstraint> {
    prop_oneof![
        Just(constraint("distinctInstance", "")),
        Just(constraint("memberOf", "attribute:ecs.availability-zone != b")),
        Just(constraint("memberOf", "attribute:rack == 1 or runningTasksCount < 3")),
        Just(constraint("memberOf", "task:group == service:web or attribute:ecs.availability-zone == a")),
        Just(constraint("memberOf", "not(ec2InstanceId =~ i1.*)")),
    ]
}

use proptest::strategy::Strategy as Strategy_;

fn put(host: &mut Host, room: &mut Room, needs: &Resources) {
    let load = &mut host.load;
    (load.cpu, load.memory, load.tasks) = (load.cpu + needs.cpu, load.memory + needs.memory, load.tasks + 1);
    load.tcp_ports.extend(&needs.tcp_ports);
    let tasks = load.groups.get(GROUP).copied().unwrap_or(0);
    load.groups.insert(GROUP.into(), tasks + 1);
    room.task(&host.instance.id, needs, Some(GROUP), load, 1, 2);
}

/// What the strategies before the first `random` say of a host, worked out from nothing.
fn criteria(strategies: &[PlacementStrategy], hosts: &[Host], at: usize) -> Vec<u64> {
    let tasks = |h: &Host| u64::from(h.load.groups.get(GROUP).copied().unwrap_or(0));
    let alike = |name: &str| {
        let value = |h: &Host| h.instance.attributes.get(name).cloned().flatten();
        hosts.iter().filter(|h| value(h) == value(&hosts[at])).map(tasks).sum()
    };
    let of = |s: &PlacementStrategy| match s.field.as_deref()? {
        "cpu" => Some(u64::from(hosts[at].instance.registered.cpu.saturating_sub(hosts[at].load.cpu))),
        "memory" => Some(u64::from(hosts[at].instance.registered.memory.saturating_sub(hosts[at].load.memory))),
        "instanceId" => Some(tasks(&hosts[at])),
        attribute => Some(alike(attribute.strip_prefix("attribute:")?)),
    };
    strategies.iter().map_while(of).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn the_choice_is_one_that_a_scan_would_make(
        mut hosts in prop::collection::vec(any_host(), 0..160),
        strategies in prop::collection::vec(any_strategy(), 0..4),
        constraints in prop::collection::vec(any_constraint(), 0..2),
        (cpu, memory, seed) in (0..300u32, 0..300u32, any::<u64>()),
        (with_port, of_service) in (any::<bool>(), any::<bool>()),
        changes in prop::collection::vec((0..220usize, 0..3u8), 0..3),
    ) {
        let mut room = Room::default();
        for (n, host) in hosts.iter_mut().enumerate() {
            host.instance.id = format!("i{n:03}").into();
            room.enter(&host.instance, &host.load, 1);
        }
        let resources = Resources { cpu, memory, tcp_ports: if with_port { vec![80] } else { vec![] }, udp_ports: vec![] };
        let asked = match (strategies.is_empty(), of_service) {
            (true, true) => vec![strategy("spread", "attribute:ecs.availability-zone"), strategy("spread", "instanceId")],
            (true, false) => vec![strategy("random", "")],
            _ => strategies.clone(),
        };
        // One round of placements, and one more after each of some changes.
        for change in std::iter::once(None).chain(changes.into_iter().map(Some)) {
            if let Some((at, what)) = change.filter(|_| !hosts.is_empty()) {
                let count = hosts.len();
                let host = &mut hosts[at % count];
                let old = host.instance.clone();
                match what {
                    0 => host.instance.agent_connected = !host.instance.agent_connected,
                    1 => host.instance.registered.cpu += 1024,
                    _ => drop(host.instance.attributes.insert("rack".to_owned(), Some("1".to_owned()))),
                }
                room.update(&old, &host.instance, &host.load, 2);
            }
            let request = Request {
                count: 1,
                resources: &resources,
                group: GROUP,
                constraints: &constraints,
                strategy: &strategies,
                of_service,
                seed,
            };
            let mut placer = Placer::new(&request, &room).expect("all attributes are known");
            for _ in 0..8 {
                let look = |id: &InstanceId, see: &mut dyn FnMut(&Instance, &Load)| {
                    let host = hosts.iter().find(|h| h.instance.id == *id).expect("an instance of the room");
                    see(&host.instance, &host.load);
                };
                let candidate = |h: &Host| first_failed(&request, &Candidate { instance: &h.instance, load: &h.load }).is_none();
                let best = (0..hosts.len()).filter(|&n| candidate(&hosts[n])).map(|n| criteria(&asked, &hosts, n)).min();
                let chosen = placer.next(&room, &look);
                prop_assert_eq!(chosen.is_some(), best.is_some());
                let Some((id, reason)) = chosen else { break };
                let at = hosts.iter().position(|h| h.instance.id == id).expect("an instance of the room");
                prop_assert!(candidate(&hosts[at]), "{id} does not fit");
                prop_assert_eq!(Some(criteria(&asked, &hosts, at)), best.clone());
                // The numbers that it gives are those of the scan.
                let all: Vec<Candidate> = hosts.iter().map(|h| Candidate { instance: &h.instance, load: &h.load }).collect();
                let Outcome::Placed { reason: scanned, .. } = &place(&request, &all)[0] else { panic!("the scan finds a place") };
                let random = asked.iter().position(|s| s.kind.as_deref() == Some("random"));
                let (told, scanned) = (&reason.evidence["score"], &scanned.evidence["score"]);
                let by = |score: &serde_json::Value, n: usize| score[n].clone();
                for n in 0..random.unwrap_or(asked.len()) {
                    prop_assert_eq!(by(told, n), by(scanned, n));
                }
                let left = hosts[at].instance.registered.cpu - hosts[at].load.cpu - cpu;
                prop_assert_eq!(&reason.evidence["cpu_left"], &serde_json::json!(left));
                put(&mut hosts[at], &mut room, &resources);
            }
        }
    }
}

fn many(count: usize) -> (Vec<Host>, Room) {
    let mut room = Room::default();
    let hosts: Vec<Host> = (0..count).map(|n| host(&format!("i{n:04}"), ["a", "b", "c"][n % 3], 4096, 4096)).collect();
    hosts.iter().for_each(|h| room.enter(&h.instance, &h.load, 1));
    (hosts, room)
}

fn nowhere(_: &InstanceId, _: &mut dyn FnMut(&Instance, &Load)) {}

#[test]
fn random_gives_each_that_fits_the_same_chance() {
    // Three of 300 fit, far apart and in kinds of their own: counted; all of 300: drawn.
    for fitting in [3usize, 300] {
        let (mut hosts, mut room) = many(300);
        for (n, host) in hosts.iter_mut().enumerate().filter(|(n, _)| n % (300 / fitting) != 0) {
            let _ = n;
            let old = host.instance.clone();
            host.instance.agent_connected = false;
            room.update(&old, &host.instance, &host.load, 2);
        }
        let needs = Resources { cpu: 1, memory: 1, ..Resources::default() };
        let mut counts = std::collections::BTreeMap::new();
        let request =
            Request { count: 1, resources: &needs, group: GROUP, constraints: &[], strategy: &[], of_service: false, seed: 7 };
        let mut placer = Placer::new(&request, &room).expect("no attribute is asked for");
        for _ in 0..fitting * 300 {
            *counts.entry(placer.next(&room, &nowhere).expect("a place").0).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), fitting);
        assert!(counts.values().all(|n| (210..400).contains(n)), "{counts:?}");
    }
}

#[test]
fn the_same_seed_makes_the_same_choices_and_another_one_others() {
    let (hosts, room) = many(200);
    let needs = Resources { cpu: 1, memory: 1, ..Resources::default() };
    let chosen = |seed| {
        let (mut hosts, mut room) = (hosts.clone(), room.clone());
        let request =
            Request { count: 1, resources: &needs, group: GROUP, constraints: &[], strategy: &[], of_service: true, seed };
        let mut placer = Placer::new(&request, &room).expect("zones are known");
        let next = |_| {
            let id = placer.next(&room, &nowhere).expect("a place").0;
            let at = hosts.iter().position(|h| h.instance.id == id).expect("an instance of the room");
            put(&mut hosts[at], &mut room, &needs);
            id
        };
        (0..100).map(next).collect::<Vec<InstanceId>>()
    };
    assert_eq!(chosen(1), chosen(1));
    assert_ne!(chosen(1), chosen(2));
}

#[test]
fn attributes_that_the_room_cannot_tell_apart_are_left_to_the_scan() {
    let mut room = Room::default();
    for n in 0..300 {
        let mut host = host(&format!("i{n:04}"), "a", 4096, 4096);
        host.instance.attributes.insert("name".to_owned(), Some(n.to_string()));
        room.enter(&host.instance, &host.load, 1);
    }
    let needs = Resources::default();
    let placer = |field: &str| {
        let strategy = [strategy("spread", field)];
        let request = Request {
            count: 1,
            resources: &needs,
            group: GROUP,
            constraints: &[],
            strategy: &strategy,
            of_service: true,
            seed: 1,
        };
        Placer::new(&request, &room).is_some()
    };
    assert!(!placer("attribute:name"));
    assert!(placer("attribute:ecs.availability-zone"));
}
