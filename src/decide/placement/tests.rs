use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::model::Timestamp;
use crate::model::instance::InstanceStatus;

#[derive(Clone, Debug)]
pub(super) struct Host {
    pub instance: Instance,
    pub load: Load,
}

pub(super) fn host(id: &str, zone: &str, cpu: u32, memory: u32) -> Host {
    let instance = Instance {
        id: id.into(),
        cluster: "default".into(),
        status: InstanceStatus::Active,
        agent_connected: true,
        disconnected_at: None,
        engine_away_since: None,
        registered: Resources { cpu, memory, ..Resources::default() },
        reserved_tcp_ports: vec![22],
        attributes: BTreeMap::from([("ecs.availability-zone".to_owned(), Some(zone.to_owned()))]),
        agent_version: "0.1.0".to_owned(),
        docker_version: String::new(),
        host_name: id.to_owned(),
        host_address: String::new(),
        tags: Vec::new(),
        registered_at: Timestamp(0),
        version: 1,
    };
    Host { instance, load: Load::default() }
}

impl Host {
    pub fn with_load(mut self, cpu: u32, memory: u32) -> Host {
        (self.load.cpu, self.load.memory) = (cpu, memory);
        self
    }
    pub fn with_tasks(mut self, group: &str, tasks: u32) -> Host {
        self.load.groups.insert(group.into(), tasks);
        self.load.tasks += tasks;
        self
    }
}

fn needs(cpu: u32, memory: u32) -> Resources {
    Resources { cpu, memory, ..Resources::default() }
}

pub(super) fn strategy(kind: &str, field: &str) -> PlacementStrategy {
    PlacementStrategy { kind: Some(kind.to_owned()), field: (!field.is_empty()).then(|| field.to_owned()) }
}

pub(super) fn constraint(kind: &str, expression: &str) -> PlacementConstraint {
    PlacementConstraint { kind: Some(kind.to_owned()), expression: (!expression.is_empty()).then(|| expression.to_owned()) }
}

struct Want {
    count: u32,
    resources: Resources,
    constraints: Vec<PlacementConstraint>,
    strategy: Vec<PlacementStrategy>,
    of_service: bool,
    seed: u64,
}

fn want(count: u32, resources: Resources) -> Want {
    Want { count, resources, constraints: Vec::new(), strategy: Vec::new(), of_service: true, seed: 7 }
}

fn run(want: &Want, hosts: &[Host]) -> Vec<Outcome> {
    let candidates: Vec<Candidate> = hosts.iter().map(|h| Candidate { instance: &h.instance, load: &h.load }).collect();
    let request = Request {
        count: want.count,
        resources: &want.resources,
        group: "service:web",
        constraints: &want.constraints,
        strategy: &want.strategy,
        of_service: want.of_service,
        seed: want.seed,
    };
    place(&request, &candidates)
}

fn ids(outcomes: &[Outcome]) -> Vec<&str> {
    fn id(outcome: &Outcome) -> &str {
        match outcome {
            Outcome::Placed { instance, .. } => instance.as_str(),
            Outcome::Refused(_) => "-",
        }
    }
    outcomes.iter().map(id).collect()
}

fn refusal(outcomes: &[Outcome]) -> &Refusal {
    let refused = outcomes.iter().find_map(|o| match o {
        Outcome::Refused(refusal) => Some(refusal),
        Outcome::Placed { .. } => None,
    });
    refused.expect("a refusal")
}

fn placed_per(outcomes: &[Outcome]) -> BTreeMap<&str, u32> {
    let mut counts = BTreeMap::new();
    ids(outcomes).into_iter().for_each(|id| *counts.entry(id).or_insert(0) += 1);
    counts
}

#[test]
fn a_service_is_balanced_over_zones_then_instances() {
    let hosts = [host("a1", "a", 4096, 4096), host("a2", "a", 4096, 4096), host("b1", "b", 4096, 4096)];
    let outcomes = run(&want(4, needs(128, 128)), &hosts);
    assert_eq!(placed_per(&outcomes), BTreeMap::from([("a1", 1), ("a2", 1), ("b1", 2)]));

    // Tasks of the group that are there already count, those of others do not.
    let hosts = [host("a1", "a", 4096, 4096).with_tasks("service:web", 2), host("b1", "b", 4096, 4096).with_tasks("other", 9)];
    assert_eq!(ids(&run(&want(3, needs(128, 128)), &hosts))[..2], ["b1", "b1"]);

    // So do those on an instance that takes no new ones.
    let mut draining = host("b2", "b", 4096, 4096).with_tasks("service:web", 5);
    draining.instance.status = InstanceStatus::Draining;
    let hosts = [host("a1", "a", 4096, 4096), host("b1", "b", 4096, 4096), draining];
    assert_eq!(ids(&run(&want(2, needs(128, 128)), &hosts)), ["a1", "a1"]);
}

#[test]
fn binpack_takes_the_least_free_that_fits() {
    let hosts = [
        host("big", "a", 4096, 4096),
        host("snug", "a", 4096, 4096).with_load(0, 3072),
        host("full", "a", 4096, 4096).with_load(0, 4000),
    ];
    let mut want = want(3, needs(0, 512));
    want.strategy = vec![strategy("binpack", "memory")];
    assert_eq!(ids(&run(&want, &hosts)), ["snug", "snug", "big"]);

    // The next strategy breaks the ties of the one before.
    let hosts = [host("roomy", "a", 4096, 4096), host("tight", "a", 1024, 4096), host("other", "b", 512, 4096)];
    want.count = 2;
    want.strategy = vec![strategy("spread", "attribute:ecs.availability-zone"), strategy("binpack", "cpu")];
    assert_eq!(ids(&run(&want, &hosts)), ["other", "tight"]);
}

#[test]
fn random_is_fair_and_follows_the_seed() {
    let hosts: Vec<Host> = (0..4).map(|i| host(&format!("i{i}"), "a", 1 << 20, 1 << 20)).collect();
    let mut want = want(4_000, needs(1, 1));
    want.of_service = false;
    let counts = placed_per(&run(&want, &hosts)).into_values().collect::<Vec<_>>();
    assert!(counts.len() == 4 && counts.iter().all(|n| (850..1150).contains(n)), "{counts:?}");
    want.count = 20;
    let first = run(&want, &hosts);
    want.seed += 1;
    assert_ne!(ids(&first), ids(&run(&want, &hosts)));
}

#[test]
fn filters_are_asked_in_order_and_counted() {
    let mut hosts = vec![
        host("away", "a", 4096, 4096),
        host("gone", "a", 4096, 4096),
        host("cpu", "a", 100, 4096),
        host("mem1", "a", 4096, 128),
        host("mem2", "a", 4096, 64),
        host("port", "a", 4096, 4096),
        host("same", "a", 4096, 4096).with_tasks("service:web", 1),
        host("zone", "a", 4096, 4096),
    ];
    hosts[0].instance.status = InstanceStatus::Draining;
    hosts[1].instance.agent_connected = false;
    hosts[5].load.tcp_ports.insert(80);
    let mut want = want(3, Resources { cpu: 128, memory: 512, tcp_ports: vec![80], udp_ports: vec![53] });
    want.constraints = vec![constraint("distinctInstance", ""), constraint("memberOf", "attribute:ecs.availability-zone == b")];
    let outcomes = run(&want, &hosts);
    assert_eq!(ids(&outcomes), ["-", "-", "-"]);
    let refusal = refusal(&outcomes);
    assert_eq!(
        refusal.tally,
        [
            (Filter::Memory, 2),
            (Filter::Active, 1),
            (Filter::Connected, 1),
            (Filter::Cpu, 1),
            (Filter::Ports, 1),
            (Filter::DistinctInstance, 1),
            (Filter::MemberOf, 1)
        ]
    );
    assert_eq!(refusal.closest, Some(("zone".into(), Filter::MemberOf)));
    assert_eq!(refusal.failures.len(), 8);
    assert_eq!(refusal.failures[3], ("mem1".into(), Filter::Memory));
    assert_eq!(refusal.reason.code, ReasonCode::NotPlaced);
    assert_eq!(
        refusal.reason.sentence,
        "not placed, 8 instances: 2 lack memory (need 512 MiB, most free 128), 1 is not ACTIVE (1 DRAINING), \
         1 agent is disconnected, 1 lacks CPU (need 128 units, most free 100), 1 lacks a host port that is taken (TCP 80), \
         1 already runs a task of the group (distinctInstance), 1 fails memberOf attribute:ecs.availability-zone == b"
    );
    assert_eq!(refusal.reason.evidence["tally"]["memory"], 2);
    assert_eq!(refusal.reason.evidence["most_memory_free"], 4096);
    // The list of failures is not repeated.
    assert!(matches!(&outcomes[1], Outcome::Refused(later) if later.failures.is_empty() && later.tally == refusal.tally));
}

#[test]
fn events_are_worded_as_ecs_words_them() {
    let unable = "was unable to place a task because no container instance met all of its requirements.";
    let see = "For more information, see the Troubleshooting section of the Amazon ECS Developer Guide.";
    let check = |host: Option<Host>, why: &str, code: &str| {
        let mut want = want(1, Resources { cpu: 64, memory: 64, tcp_ports: vec![80], udp_ports: Vec::new() });
        want.constraints = vec![constraint("distinctInstance", ""), constraint("memberOf", "attribute:none exists")];
        let hosts: Vec<Host> = host.into_iter().collect();
        let outcomes = run(&want, &hosts);
        let refusal = refusal(&outcomes);
        assert_eq!(refusal.event_text(), format!("{unable} {why} {see}"));
        assert_eq!(refusal.closest.as_ref().map_or("", |(_, filter)| filter.failure_code()), code);
    };
    let closest = |what: &str| format!("The closest matching (container-instance i) {what}");
    let none = "Reason: No Container Instances were found in your cluster.";
    let fine = || host("i", "a", 128, 128);
    let changed = |change: fn(&mut Host)| {
        let mut host = fine();
        change(&mut host);
        Some(host)
    };
    check(None, none, "");
    check(changed(|h| h.instance.status = InstanceStatus::Draining), none, "INACTIVE");
    check(changed(|h| h.instance.agent_connected = false), &closest("encountered error \"AGENT\"."), "AGENT");
    check(changed(|h| h.load.cpu = 100), &closest("has insufficient CPU units available."), "RESOURCE:CPU");
    check(changed(|h| h.load.memory = 100), &closest("has insufficient memory available."), "RESOURCE:MEMORY");
    let port = closest("is already using a port required by your task.");
    check(changed(|h| h.load.tcp_ports.extend([80])), &port, "RESOURCE:PORTS");
    check(changed(|h| h.instance.reserved_tcp_ports.push(80)), &port, "RESOURCE:PORTS");
    check(changed(|h| h.instance.registered.tcp_ports.push(80)), &port, "RESOURCE:PORTS");
    check(
        Some(fine().with_tasks("service:web", 1)),
        &closest("encountered error \"DistinctInstance placement constraint unsatisfied.\"."),
        "DistinctInstance placement constraint unsatisfied.",
    );
    check(
        Some(fine()),
        &closest("encountered error \"MemberOf placement constraint unsatisfied.\"."),
        "MemberOf placement constraint unsatisfied.",
    );
}

#[test]
fn tasks_of_the_same_call_count_for_each_other() {
    // Ports.
    let hosts = [host("a", "a", 4096, 4096), host("b", "b", 4096, 4096)];
    let ported = |tcp, udp| Resources { cpu: 1, memory: 1, tcp_ports: tcp, udp_ports: udp };
    assert_eq!(placed_per(&run(&want(3, ported(vec![80], vec![])), &hosts)), BTreeMap::from([("-", 1), ("a", 1), ("b", 1)]));
    assert_eq!(placed_per(&run(&want(3, ported(vec![], vec![53])), &hosts)), BTreeMap::from([("-", 1), ("a", 1), ("b", 1)]));
    // Expressions about tasks.
    let mut want = want(5, needs(1, 1));
    want.constraints = vec![constraint("memberOf", "runningTasksCount < 2 and not(task:group == other)")];
    assert_eq!(placed_per(&run(&want, &hosts)), BTreeMap::from([("-", 1), ("a", 2), ("b", 2)]));
}

#[test]
fn one_instance_can_be_asked_alone() {
    let (roomy, full) = (host("a", "a", 4096, 4096), host("b", "a", 64, 64));
    let resources = needs(128, 32);
    let request = Request {
        count: 1,
        resources: &resources,
        group: "family:x",
        constraints: &[],
        strategy: &[],
        of_service: false,
        seed: 0,
    };
    assert_eq!(first_failed(&request, &Candidate { instance: &roomy.instance, load: &roomy.load }), None);
    assert_eq!(first_failed(&request, &Candidate { instance: &full.instance, load: &full.load }), Some(Filter::Cpu));
}

#[test]
fn what_is_not_understood_places_nothing() {
    let hosts = [host("a", "a", 4096, 4096)];
    for bad in [constraint("memberOf", "colour =="), constraint("memberOf", ""), constraint("nearby", "")] {
        let mut want = want(1, needs(1, 1));
        want.constraints = vec![bad];
        let outcomes = run(&want, &hosts);
        assert_eq!(refusal(&outcomes).tally, [(Filter::MemberOf, 1)]);
        assert!(refusal(&outcomes).reason.sentence.ends_with("(not understood)"));
    }
}

#[test]
fn a_placement_says_what_it_was_chosen_by() {
    let hosts = [host("a", "a", 1024, 1024).with_tasks("service:web", 1), host("b", "b", 1024, 1024), host("c", "b", 10, 10)];
    let outcomes = run(&want(1, needs(256, 128)), &hosts);
    let Outcome::Placed { instance, reason } = &outcomes[0] else { panic!("not placed") };
    assert_eq!(instance.as_str(), "b");
    assert_eq!(reason.code, ReasonCode::Placed);
    assert_eq!(
        reason.sentence,
        "placed on container instance b: best by spread(attribute:ecs.availability-zone), spread(instanceId) of 2 that fit, of 3; \
         768 CPU units and 896 MiB stay free"
    );
    let evidence = serde_json::to_value(&reason.evidence).expect("plain values");
    assert_eq!(evidence["score"][0]["value"], 0);
    assert_eq!((&evidence["candidates"], &evidence["fitting"], &evidence["cpu_left"]), (&3.into(), &2.into(), &768.into()));
}

#[test]
fn checks_name_what_is_wrong() {
    let constraints = |c: PlacementConstraint| check(&[c], &[]).expect_err("refused");
    let strategies = |s: PlacementStrategy| check(&[], &[s]).expect_err("refused");
    assert_eq!(constraints(constraint("distinctInstance", "x")), "distinctInstance expression should not be specified.");
    assert_eq!(constraints(constraint("memberOf", "")), "memberOf expression should not be null or empty.");
    assert_eq!(
        constraints(constraint("memberOf", "attribute:a")),
        "Invalid expression 'attribute:a': at character 12: expected an operator: ==, !=, >, >=, <, <=, in, !in, =~, !~, exists or !exists."
    );
    assert_eq!(constraints(constraint("nearby", "")), "constraint.type 'nearby' is not supported.");
    assert_eq!(strategies(strategy("random", "x")), "random strategy field should not be specified.");
    assert_eq!(strategies(strategy("spread", "")), "spread strategy field should not be null or empty.");
    assert_eq!(strategies(strategy("spread", "cpu")), "strategy.field 'cpu' is not supported for strategy.type 'spread'.");
    assert_eq!(
        strategies(strategy("spread", "attribute:")),
        "strategy.field 'attribute:' is not supported for strategy.type 'spread'."
    );
    assert_eq!(strategies(strategy("binpack", "host")), "strategy.field 'host' is not supported for strategy.type 'binpack'.");
    assert_eq!(strategies(strategy("pile", "")), "strategy.type 'pile' is not supported.");
    assert_eq!(
        check(&vec![constraint("distinctInstance", ""); 11], &[]).expect_err("too many"),
        "Too many placement constraints: at most 10 can be specified."
    );
    assert_eq!(
        check(&[], &vec![strategy("random", ""); 6]).expect_err("too many"),
        "Too many placement strategies: at most 5 can be specified."
    );
    let all = [
        strategy("spread", "host"),
        strategy("spread", "instanceId"),
        strategy("spread", "attribute:rack"),
        strategy("binpack", "CPU"),
        strategy("random", ""),
    ];
    assert_eq!(check(&[constraint("distinctInstance", ""), constraint("memberOf", "attribute:a exists")], &all), Ok(()));
    assert_eq!(
        check_of_definition(&[constraint("distinctInstance", "")]),
        Err("constraint.type 'distinctInstance' is not supported.".to_owned())
    );
}

#[test]
fn five_thousand_instances_take_five_thousand_tasks() {
    let hosts: Vec<Host> = (0..5_000).map(|i| host(&format!("i{i:04}"), ["a", "b", "c"][i % 3], 4096, 4096)).collect();
    let outcomes = run(&want(5_000, needs(64, 64)), &hosts);
    assert!(placed_per(&outcomes).into_values().all(|tasks| tasks <= 2));
    // And refuse as many without a list of failures each.
    let outcomes = run(&want(5_000, needs(8192, 64)), &hosts);
    assert_eq!(outcomes.len(), 5_000);
}

fn any_host() -> impl Strategy<Value = Host> {
    (0..3usize, 0..2048u32, 0..2048u32, 0..1024u32, 0..3u32, any::<bool>(), 0..10u8).prop_map(
        |(zone, cpu, memory, used, tasks, port, state)| {
            let mut host = host("", ["a", "b", "c"][zone], cpu, memory).with_load(used.min(cpu), used.min(memory));
            if port {
                host.load.tcp_ports.insert(80);
            }
            host.instance.agent_connected = state != 0;
            if state == 1 {
                host.instance.status = InstanceStatus::Draining;
            }
            host.with_tasks("service:web", tasks)
        },
    )
}

fn any_strategy() -> impl Strategy<Value = PlacementStrategy> {
    prop_oneof![
        Just(strategy("random", "")),
        Just(strategy("spread", "instanceId")),
        Just(strategy("spread", "attribute:ecs.availability-zone")),
        Just(strategy("binpack", "cpu")),
        Just(strategy("binpack", "memory")),
    ]
}

/// What a strategy says of a host, worked out from nothing.
fn criterion(strategy: &PlacementStrategy, hosts: &[Host], at: usize) -> u32 {
    let (host, tasks) = (&hosts[at], |h: &Host| h.load.groups.get("service:web").copied().unwrap_or(0));
    match strategy.field.as_deref() {
        Some("cpu") => host.instance.registered.cpu - host.load.cpu,
        Some("memory") => host.instance.registered.memory - host.load.memory,
        Some("instanceId") => tasks(host),
        _ => hosts.iter().filter(|h| h.instance.zone() == host.instance.zone()).map(tasks).sum(),
    }
}

fn numbered(mut hosts: Vec<Host>) -> Vec<Host> {
    hosts.iter_mut().enumerate().for_each(|(i, host)| host.instance.id = format!("i{i}").into());
    hosts
}

proptest! {
    #[test]
    fn nothing_is_overcommitted_and_every_task_has_an_outcome(
        hosts in prop::collection::vec(any_host(), 0..12).prop_map(numbered),
        strategies in prop::collection::vec(any_strategy(), 0..4),
        (count, cpu, memory) in (0..30u32, 0..600u32, 0..600u32),
        (distinct, with_port, of_service, seed) in (any::<bool>(), any::<bool>(), any::<bool>(), any::<u64>()),
    ) {
        let mut want = want(count, needs(cpu, memory));
        want.resources.tcp_ports = if with_port { vec![80] } else { vec![] };
        want.strategy = strategies;
        want.constraints = if distinct { vec![constraint("distinctInstance", "")] } else { vec![] };
        (want.of_service, want.seed) = (of_service, seed);
        let outcomes = run(&want, &hosts);
        prop_assert_eq!(outcomes.len(), count as usize);
        prop_assert_eq!(&outcomes, &run(&want, &hosts), "the same seed gives the same outcomes");
        let placed = placed_per(&outcomes);
        let mut room_left = false;
        for host in &hosts {
            let (instance, load) = (&host.instance, &host.load);
            let here = placed.get(instance.id.as_str()).copied().unwrap_or(0);
            prop_assert!(load.cpu + here * cpu <= instance.registered.cpu || here == 0);
            prop_assert!(load.memory + here * memory <= instance.registered.memory || here == 0);
            let open = instance.agent_connected && instance.status == InstanceStatus::Active;
            let port_free = !with_port || (!load.tcp_ports.contains(&80) && here <= 1);
            let alone = !distinct || load.groups["service:web"] + here <= 1;
            prop_assert!(here == 0 || (open && port_free && alone));
            room_left |= open
                && load.cpu + (here + 1) * cpu <= instance.registered.cpu
                && load.memory + (here + 1) * memory <= instance.registered.memory
                && (!with_port || (!load.tcp_ports.contains(&80) && here == 0))
                && (!distinct || load.groups["service:web"] + here == 0);
        }
        prop_assert!(!placed.contains_key("-") || !room_left, "refused although there was room");
        // The order in which instances are listed does not matter.
        let reversed: Vec<Host> = hosts.iter().rev().cloned().collect();
        let again = run(&want, &reversed);
        prop_assert_eq!(ids(&again), ids(&outcomes));
    }

    #[test]
    fn each_choice_is_the_best_there_is(
        mut hosts in prop::collection::vec(any_host(), 1..12).prop_map(numbered),
        strategies in prop::collection::vec(any_strategy(), 1..4),
        (cpu, memory, seed) in (0..400u32, 0..400u32, any::<u64>()),
    ) {
        let mut want = want(12, needs(cpu, memory));
        want.strategy = strategies.into_iter().filter(|s| s.kind.as_deref() != Some("random")).collect();
        prop_assume!(!want.strategy.is_empty());
        want.seed = seed;
        for outcome in run(&want, &hosts) {
            let Outcome::Placed { instance, .. } = outcome else { break };
            let criteria = |at: usize| want.strategy.iter().map(|s| criterion(s, &hosts, at)).collect::<Vec<u32>>();
            let chosen = hosts.iter().position(|host| host.instance.id == instance).expect("one of them");
            let open = |h: &Host| h.instance.agent_connected && h.instance.status == InstanceStatus::Active;
            let room = |h: &Host| {
                h.load.cpu + cpu <= h.instance.registered.cpu && h.load.memory + memory <= h.instance.registered.memory
            };
            let best = (0..hosts.len()).filter(|&at| open(&hosts[at]) && room(&hosts[at])).map(criteria).min();
            prop_assert_eq!(Some(criteria(chosen)), best);
            let load = &mut hosts[chosen].load;
            (load.cpu, load.memory) = (load.cpu + cpu, load.memory + memory);
            *load.groups.entry("service:web".into()).or_default() += 1;
        }
    }

    #[test]
    fn spreading_is_balanced_within_one(instances in 1..20usize, zones in 1..4usize, count in 0..60u32, seed in any::<u64>()) {
        let hosts: Vec<Host> =
            (0..instances).map(|i| host(&format!("i{i}"), ["a", "b", "c"][i % zones], 1 << 20, 1 << 20)).collect();
        let mut want = want(count, needs(1, 1));
        want.seed = seed;
        let within_one = |tasks: Vec<u32>| tasks.iter().max().unwrap_or(&0) - tasks.iter().min().unwrap_or(&0) <= 1;
        let outcomes = run(&want, &hosts);
        let placed = placed_per(&outcomes);
        let on = |host: &Host| placed.get(host.instance.id.as_str()).copied().unwrap_or(0);
        let mut per_zone: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
        hosts.iter().for_each(|host| per_zone.entry(host.instance.zone()).or_default().push(on(host)));
        prop_assert!(within_one(per_zone.values().map(|tasks| tasks.iter().sum()).collect()), "zones: {per_zone:?}");
        prop_assert!(per_zone.into_values().all(within_one), "instances of a zone");
    }
}
