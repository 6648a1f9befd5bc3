//! Both ends of a connection: what one writes the other reads, in both versions, and what nobody wrote is refused.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::model::Timestamp;
use crate::model::link::{NetworkTotals, UsageBatch, UsageSample};

fn welcome(link_version: u32) -> ToAgent {
    let (installation, region, account) = (String::new(), String::new(), String::new());
    ToAgent::Welcome { instance: "i".into(), cluster: "c".into(), installation, region, account, link_version }
}

fn agreed(version: u32) -> (AgentEnd, ServerEnd) {
    let (mut agent, mut server) = (AgentEnd::default(), ServerEnd::default());
    let Frame::Text(text) = server.frame(&welcome(version)).unwrap() else { panic!("a text frame") };
    agent.read(&text).unwrap();
    (agent, server)
}

fn carried(agent: &mut AgentEnd, server: &mut ServerEnd, batch: &UsageBatch) -> (usize, UsageBatch) {
    let (size, message) = match agent.frame(&FromAgent::Usage(batch.clone())).unwrap() {
        Frame::Text(text) => (text.len(), server.read_text(&text)),
        Frame::Binary(bytes) => (bytes.len(), server.read_binary(&bytes)),
    };
    let Ok(FromAgent::Usage(read)) = message else { panic!("usage") };
    (size, read)
}

fn sample() -> impl Strategy<Value = UsageSample> {
    let totals = proptest::collection::vec(prop_oneof![Just(0u64), 0..1_000_000u64, any::<u64>()], 16);
    let network = proptest::option::of(proptest::collection::vec(0..1u64 << 40, 8));
    (0..6u8, 0..3u8, -1_000..5_000i64, any::<u64>(), totals, network).prop_map(|(id, task, interval_ms, bits, t, network)| {
        let cpu_cores = Some(f64::from_bits(bits)).filter(|c| c.is_finite()).unwrap_or(0.25);
        UsageSample {
            task: format!("task-{task}").into(),
            container: "app".into(),
            runtime_id: format!("runtime-{id}").into(),
            runtime_name: if id == 0 { "" } else { "ecs-ä-1" }.into(),
            interval_ms,
            cpu_cores,
            cpu_total_ns: t[0],
            cpu_user_ns: t[1],
            cpu_system_ns: t[2],
            throttled_periods: t[3],
            periods: t[4],
            throttled_ns: t[5],
            memory_bytes: t[6],
            memory_usage_bytes: t[7],
            memory_working_set_bytes: t[8],
            memory_rss_bytes: t[9],
            memory_cache_bytes: t[10],
            memory_limit_bytes: t[11],
            processes: t[12],
            block_read_bytes: t[13],
            block_write_bytes: t[14],
            oom_events: t[15],
            network: network.map(|n| NetworkTotals {
                receive_bytes: n[0],
                receive_packets: n[1],
                receive_errors: n[2],
                receive_dropped: n[3],
                transmit_bytes: n[4],
                transmit_packets: n[5],
                transmit_errors: n[6],
                transmit_dropped: n[7],
            }),
        }
    })
}

fn batch() -> impl Strategy<Value = UsageBatch> {
    (any::<i64>(), proptest::collection::vec(sample(), 0..8), any::<u64>()).prop_map(|(at, samples, cost_us)| UsageBatch {
        at: Timestamp(at),
        samples: samples.into_iter().map(Arc::new).collect(),
        cost_us,
    })
}

proptest! {
    #[test]
    fn what_an_agent_says_arrives_as_it_was(batches in proptest::collection::vec(batch(), 1..6), version in 0..3u32) {
        let (mut agent, mut server) = agreed(version);
        for batch in &batches {
            prop_assert_eq!(&carried(&mut agent, &mut server, batch).1, batch);
        }
    }

    #[test]
    fn foreign_bytes_are_refused_and_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), first in 0..3u8) {
        let (mut agent, mut server) = agreed(2);
        let first = if first == 0 { None } else { Some(USAGE) };
        let bytes: Vec<u8> = first.into_iter().chain(bytes).collect();
        let _ = server.read_binary(&bytes);
        let _ = agent.read(&String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn a_pass_that_changes_little_is_small() {
    let pass = |second: u64| UsageBatch {
        at: Timestamp(1_795_170_000_000 + second as i64 * 1_000),
        samples: (0..20u64)
            .map(|n| {
                let used = second * 12_000_000 + n;
                Arc::new(UsageSample {
                    task: format!("{n:032x}").into(),
                    container: "app".into(),
                    runtime_id: format!("{n:064x}").into(),
                    runtime_name: format!("ecs-web-1-app-{n}").into(),
                    interval_ms: 1_000,
                    cpu_cores: used as f64 / 1e9,
                    cpu_total_ns: used,
                    cpu_user_ns: used,
                    memory_bytes: 64 << 20,
                    memory_usage_bytes: 64 << 20,
                    network: Some(NetworkTotals { receive_bytes: used, ..NetworkTotals::default() }),
                    ..UsageSample::default()
                })
            })
            .collect(),
        cost_us: 300,
    };
    let (mut agent, mut server) = agreed(2);
    let (mut old, mut old_server) = agreed(1);
    carried(&mut agent, &mut server, &pass(1));
    let (small, read) = carried(&mut agent, &mut server, &pass(2));
    let (large, _) = carried(&mut old, &mut old_server, &pass(2));
    assert_eq!(read, pass(2));
    assert!(small < 700 && large > 10_000, "{small} bytes instead of {large}");
}

#[test]
fn every_cut_of_a_frame_is_torn_and_an_unknown_kind_is_named() {
    let (mut agent, _) = agreed(2);
    let samples = vec![Arc::new(UsageSample { task: "t".into(), cpu_total_ns: 7, ..UsageSample::default() })];
    let Frame::Binary(whole) = agent.frame(&FromAgent::Usage(UsageBatch { at: Timestamp(5), samples, cost_us: 1 })).unwrap()
    else {
        panic!("a binary frame")
    };
    for cut in 0..whole.len() {
        assert!(matches!(ServerEnd::default().read_binary(&whole[..cut]), Err(Unreadable::Torn)), "cut at {cut}");
    }
    let longer: Vec<u8> = whole.iter().copied().chain([0]).collect();
    assert!(matches!(ServerEnd::default().read_binary(&longer), Err(Unreadable::Torn)));
    assert!(matches!(ServerEnd::default().read_binary(&[9, 0]), Err(Unreadable::Kind(9))));
    // A place of a pass that there was not: a connection that lost its beginning.
    assert!(matches!(ServerEnd::default().read_binary(&[USAGE, 0, 0, 1, 1, 0]), Err(Unreadable::Torn)));
}

/// One agent's whole connection, as the first release said it: Hello, a task that ran and was stopped, its usage and its lines. No
/// later build may read it otherwise.
const RECORDED: &str = include_str!("recorded-v1.txt");

fn recorded(who: &str) -> impl Iterator<Item = &'static str> {
    RECORDED.lines().filter_map(move |line| line.strip_prefix(who))
}

/// Everything that `old` says stands in `new` as well.
fn holds(new: &serde_json::Value, old: &serde_json::Value) -> bool {
    use serde_json::Value::{Array, Object};
    match (new, old) {
        (Object(new), Object(old)) => old.iter().all(|(key, old)| new.get(key).is_some_and(|new| holds(new, old))),
        (Array(new), Array(old)) => new.len() == old.len() && new.iter().zip(old).all(|(new, old)| holds(new, old)),
        _ => new == old,
    }
}

#[test]
fn an_old_agent_is_understood_and_answered_in_its_words() {
    let (mut server, mut said) = (ServerEnd::default(), Vec::new());
    for text in recorded("agent ") {
        let message = server.read_text(text).unwrap();
        let old: serde_json::Value = serde_json::from_str(text).unwrap();
        assert!(holds(&serde_json::to_value(&message).unwrap(), &old), "{text}");
        said.push(message);
    }
    let Some(FromAgent::Hello(hello)) = said.first() else { panic!("Hello comes first") };
    assert_eq!((hello.common_version(), hello.process.as_str()), (Ok(1), ""));
    assert!(said.iter().any(|m| matches!(m, FromAgent::Usage(batch) if batch.samples.len() == 1)));
    assert!(said.iter().any(|m| matches!(m, FromAgent::Lines(_))) && said.iter().any(|m| matches!(m, FromAgent::Status(_))));
}

#[test]
fn an_old_server_is_understood_and_told_in_its_words() {
    let mut agent = AgentEnd::default();
    for text in recorded("server ") {
        let message = agent.read(text).unwrap();
        let old: serde_json::Value = serde_json::from_str(text).unwrap();
        assert!(holds(&serde_json::to_value(&message).unwrap(), &old), "{text}");
    }
    // What it was told stays JSON, and says all that it knows.
    for text in recorded("agent ") {
        let message = ServerEnd::default().read_text(text).unwrap();
        let Frame::Text(told) = agent.frame(&message).unwrap() else { panic!("an old server reads no binary frame") };
        assert!(holds(&serde_json::from_str(&told).unwrap(), &serde_json::from_str(text).unwrap()), "{told}");
    }
}
