//! The agent in one process with a simulated engine and a scripted control plane.

mod host;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::runtime::Ended;
use crate::decide::container::{KEEP_REPORTED_MS, PAUSE};
use crate::model::definition::{HealthCheck, KeyValue, NetworkMode, PortMapping, RestartPolicy};
use crate::model::link::{Assignment, Ending, Phase, ToAgent};
use crate::model::log::{LineBatch, ResumePoint};
use crate::model::task::Health;
use host::{Host, Seen, after, container, logging, stopping, task};

#[tokio::test(start_paused = true)]
async fn a_task_starts_in_the_order_of_its_dependencies_inside_its_own_network() {
    let mut host = Host::new().await;
    let mut db = container("db", "sim/health@3s");
    db.health_check = Some(HealthCheck::default());
    let mut init = container("init", "sim/exit:0@1s");
    init.essential = Some(false);
    let app = after(after(container("app", "sim/ok"), "db", "HEALTHY"), "init", "SUCCESS");
    let mut t = task("t", vec![app, db, init]);
    t.network_mode = NetworkMode::Awsvpc;
    host.assign(1, &[t]).await;
    host.until("app runs", |seen| seen.phases("t").is_some_and(|p| p[0] == Phase::Running)).await;
    let order = host.engine.start_order();
    assert_eq!((order[0].as_str(), order[3].as_str()), (format!("t/{PAUSE}").as_str(), "t/app"));
    let report = &host.seen.reports["t"];
    assert!(report.address.as_deref().is_some_and(|a| a.starts_with("10.77.")));
    assert_eq!((report.containers[1].health, report.containers[2].exit_code), (Health::Healthy, Some(0)));
    assert_eq!(report.ending, None);
    assert!(report.pull_started_at.is_some() && report.pull_stopped_at >= report.pull_started_at);
    assert!(report.containers[0].started_at.unwrap().since(report.containers[1].started_at.unwrap()) >= 3_000);
}

#[tokio::test(start_paused = true)]
async fn an_essential_exit_ends_the_task_and_everything_goes_after_the_report() {
    let mut host = Host::new().await;
    host.assign(1, &[task("t", vec![container("app", "sim/exit:3@5s"), container("side", "sim/ok")])]).await;
    let report = host.until_finished("t").await;
    assert!(matches!(&report.ending, Some(Ending::EssentialExited { container, .. }) if container.as_str() == "app"));
    let codes: Vec<Option<i32>> = report.containers.iter().map(|c| c.exit_code).collect();
    assert_eq!(codes, [Some(3), Some(143)]);
    assert_eq!(host.engine.containers().len(), 2, "removed before anyone could have taken note");
    host.pass(KEEP_REPORTED_MS as u64 + 1_000).await;
    assert!(host.engine.containers().is_empty() && host.engine.cleaned_up(&"t".into()));
    // Assigned once more, because the report was lost: told again, not run again.
    host.seen.reports.clear();
    host.put(2, &task("t", vec![container("app", "sim/exit:3@5s"), container("side", "sim/ok")])).await;
    assert!(host.until_finished("t").await.finished);
    assert_eq!(host.engine.starts(&"t".into(), "app"), 1);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_pulled_or_started_says_why() {
    let cases = [
        ("sim/fail-pull", "CannotPullContainerError: "),
        ("sim/fail-create", "CannotCreateContainerError: "),
        ("sim/fail-start", "CannotStartContainerError: "),
    ];
    let mut host = Host::new().await;
    let tasks: Vec<Assignment> =
        cases.iter().map(|(image, _)| task(image, vec![container("app", image), container("side", "sim/ok")])).collect();
    host.assign(1, &tasks).await;
    for (image, text) in cases {
        let report = host.until_finished(image).await;
        let app = &report.containers[0];
        assert!(app.reason.as_deref().is_some_and(|r| r.starts_with(text)), "{app:?}");
        assert_eq!(app.exit_code, None);
        assert!(matches!(&report.ending, Some(Ending::FailedToStart { error }) if error.starts_with(text)));
    }
}

#[tokio::test(start_paused = true)]
async fn the_restart_policy_starts_the_same_container_and_the_task_runs_on() {
    let mut host = Host::new().await;
    let mut app = container("app", "sim/exit:1@70s");
    app.restart_policy = Some(RestartPolicy { enabled: true, ignored_exit_codes: None, restart_attempt_period: Some(60) });
    host.assign(1, &[task("t", vec![app])]).await;
    host.until_running("t").await;
    let id = host.engine.runtime_id(&"t".into(), "app");
    host.until("restarted", |seen| seen.reports["t"].containers[0].restart_count == 2).await;
    assert_eq!(host.engine.runtime_id(&"t".into(), "app"), id);
    assert_eq!(host.engine.starts(&"t".into(), "app"), 3);
    assert!(host.seen.history.iter().all(|r| r.ending.is_none() && r.containers[0].phase != Phase::Stopped));
}

#[tokio::test(start_paused = true)]
async fn a_stop_goes_backwards_and_gives_each_container_its_grace() {
    let mut host = Host::new().await;
    let mut app = after(container("app", "sim/stubborn"), "db", "START");
    app.stop_timeout = Some(2);
    let t = task("t", vec![container("db", "sim/ok"), app]);
    host.assign(1, std::slice::from_ref(&t)).await;
    host.until_running("t").await;
    let asked = tokio::time::Instant::now();
    host.put(2, &stopping(&t)).await;
    let report = host.until_finished("t").await;
    assert!((2_000..3_000).contains(&asked.elapsed().as_millis()), "{:?}", asked.elapsed());
    assert_eq!(report.ending, Some(Ending::Asked));
    assert_eq!((report.containers[0].exit_code, report.containers[1].exit_code), (Some(143), Some(137)));
    assert_eq!(host.engine.stop_order(), ["t/app", "t/db"]);
    host.say(ToAgent::Update { generation: 3, put: vec![], forget: vec!["t".into()] }).await;
    host.pass(1_000).await;
    assert!(host.engine.containers().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_a_pull() {
    let mut host = Host::new().await;
    let t = task("t", vec![container("app", "sim/pull@500s")]);
    host.assign(1, std::slice::from_ref(&t)).await;
    host.until("pulling", |seen| seen.phases("t").is_some_and(|p| p[0] == Phase::Pulling)).await;
    host.put(2, &stopping(&t)).await;
    let asked = tokio::time::Instant::now();
    assert_eq!(host.until_finished("t").await.containers[0].exit_code, None);
    assert!(asked.elapsed().as_secs() < 1);
}

#[tokio::test(start_paused = true)]
async fn a_new_agent_adopts_what_runs_and_stops_what_nobody_assigned() {
    let mut host = Host::new().await;
    let mut own = task("own", vec![container("app", "sim/ok")]);
    own.network_mode = NetworkMode::Awsvpc;
    let dies = task("dies", vec![container("app", "sim/exit:7@60s")]);
    let stray = task("stray", vec![container("a", "sim/ok"), container("b", "sim/ok")]);
    host.assign(1, &[own.clone(), dies.clone(), stray]).await;
    for id in ["own", "dies", "stray"] {
        host.until_running(id).await;
    }
    let before = host.seen.reports["own"].clone();
    let mut host = host.restart_agent().await;
    host.assign(1, &[own.clone(), dies]).await;
    host.until_running("own").await;
    let now = &host.seen.reports["own"];
    assert_eq!((&now.containers[0].runtime_id, &now.address), (&before.containers[0].runtime_id, &before.address));
    host.pass(5_000).await;
    let left: Vec<String> = host.engine.containers().iter().map(|c| c.task.to_string()).collect();
    assert!(!left.contains(&"stray".to_owned()) && host.engine.cleaned_up(&"stray".into()), "{left:?}");
    assert!(!host.seen.reports.contains_key("stray"), "not a word about what nobody asked for");
    // It goes on from there: a death is seen, a stop obeyed.
    assert_eq!(host.until_finished("dies").await.containers[0].exit_code, Some(7));
    host.put(2, &stopping(&own)).await;
    host.until_finished("own").await;
    for id in ["own", "dies"] {
        assert_eq!(host.engine.starts(&id.into(), "app"), 1, "{id}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_death_while_no_agent_was_there_is_found() {
    let mut host = Host::new().await;
    let t = task("t", vec![container("app", "sim/exit:9@10s")]);
    host.assign(1, std::slice::from_ref(&t)).await;
    host.until_running("t").await;
    host.shutdown.cancel();
    tokio::time::sleep(Duration::from_secs(20)).await;
    let mut host = host.restart_agent().await;
    host.assign(1, &[t]).await;
    let report = host.until_finished("t").await;
    assert!(matches!(report.ending, Some(Ending::EssentialExited { .. })));
    assert_eq!((report.containers[0].exit_code, host.engine.starts(&"t".into(), "app")), (Some(9), 1));
}

#[tokio::test(start_paused = true)]
async fn repeated_and_late_messages_change_nothing_and_a_gap_asks_anew() {
    let mut host = Host::new().await;
    let t = task("t", vec![container("app", "sim/ok")]);
    host.assign(5, std::slice::from_ref(&t)).await;
    host.assign(5, std::slice::from_ref(&t)).await;
    host.until_running("t").await;
    host.put(6, &stopping(&t)).await;
    host.put(6, &stopping(&t)).await;
    // Late: from before the stop.
    host.put(5, &t).await;
    host.assign(5, &[]).await;
    assert_eq!(host.until_finished("t").await.ending, Some(Ending::Asked));
    assert_eq!(host.engine.starts(&"t".into(), "app"), 1);
    assert_eq!(host.seen.hellos.len(), 1);
    let u = task("u", vec![container("app", "sim/ok")]);
    host.put(9, &u).await;
    host.until("hello", |seen| seen.hellos.len() == 2).await;
    assert_eq!(host.seen.hellos[1].instance, Some("i".into()));
    assert_eq!(host.engine.starts(&"u".into(), "app"), 0);
    host.assign(9, &[u]).await;
    host.until_running("u").await;
}

#[tokio::test(start_paused = true)]
async fn what_stands_is_told_again_though_nothing_changes() {
    let mut host = Host::new().await;
    host.assign(7, &[task("t", vec![container("app", "sim/ok")])]).await;
    host.until_running("t").await;
    host.pass(10_000).await;
    let told = host.seen.history.len();
    host.pass(60_000).await;
    assert!((1..=3).contains(&(host.seen.history.len() - told)), "once in half a minute");
    assert_eq!(host.seen.generation, Some(7), "a heartbeat says what was heard");
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_is_away_stops_nothing() {
    let mut host = Host::new().await;
    let (t, u) = (task("t", vec![container("app", "sim/ok")]), task("u", vec![container("app", "sim/exit:4@15s")]));
    host.assign(1, &[t.clone(), u]).await;
    host.until_running("t").await;
    host.until_running("u").await;
    host.engine.go_away(false);
    host.until("said so", |seen| seen.engine_up == Some(false)).await;
    // Asked for meanwhile: done when it is back.
    host.put(2, &task("v", vec![container("app", "sim/ok")])).await;
    host.pass(30_000).await;
    assert!(host.seen.reports.values().all(|r| r.ending.is_none()));
    host.engine.come_back();
    host.until_running("v").await;
    // A death that no event told of.
    assert_eq!(host.until_finished("u").await.containers[0].exit_code, Some(4));
    host.until("said so", |seen| seen.engine_up == Some(true)).await;
    assert_eq!(host.seen.reports["t"].ending, None);
    assert_eq!(host.engine.starts(&"t".into(), "app"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_start_whose_answer_was_lost_is_not_made_twice() {
    let mut host = Host::new().await;
    host.assign(1, &[task("once", vec![container("app", "sim/start@1s+exit:0@5s")])]).await;
    host.pass(500).await;
    host.engine.go_away(false);
    host.pass(30_000).await;
    host.engine.come_back();
    let report = host.until_finished("once").await;
    assert_eq!((report.containers[0].exit_code, host.engine.starts(&"once".into(), "app")), (Some(0), 1));
}

#[tokio::test(start_paused = true)]
async fn a_list_that_is_older_than_what_is_known_is_not_believed() {
    let mut host = Host::new().await;
    let mortal = task("mortal", vec![container("app", "sim/exit:6@10100ms")]);
    host.assign(1, &[mortal]).await;
    host.until_running("mortal").await;
    host.engine.set_list_delay(500);
    host.pass(9_900).await;
    host.engine.go_away(false);
    host.engine.come_back();
    host.pass(50).await;
    // Made, and died, while the list was on its way.
    host.put(2, &task("young", vec![container("app", "sim/ok")])).await;
    host.until_finished("mortal").await;
    host.pass(2_000).await;
    let young = &host.seen.reports["young"];
    assert_eq!((young.ending.clone(), young.containers[0].phase), (None, Phase::Running));
    let mortal = &host.seen.reports["mortal"].containers[0];
    assert_eq!((mortal.phase, mortal.exit_code), (Phase::Stopped, Some(6)));
}

#[tokio::test(start_paused = true)]
async fn usage_is_sampled_every_second_as_the_test_says() {
    let mut host = Host::new().await;
    host.assign(1, &[task("t", vec![container("app", "sim/cpu:0.25")])]).await;
    host.until_running("t").await;
    host.pass(3_000).await;
    let last = host.seen.usage.last().unwrap().samples[0].clone();
    assert_eq!((&*last.task, last.interval_ms, last.cpu_cores), ("t", 1_000, 0.25));
    let already = host.seen.usage.len();
    host.engine.set_cpu(&"t".into(), 1.5);
    host.pass(10_000).await;
    assert_eq!(host.seen.usage.len() - already, 10);
    let now = &host.seen.usage.last().unwrap().samples[0];
    assert_eq!((now.cpu_cores, now.cpu_total_ns - last.cpu_total_ns), (1.5, 15_000_000_000));
}

#[tokio::test(start_paused = true)]
async fn deaths_at_the_engines_going_are_held_until_it_is_back() {
    let mut host = Host::new().await;
    host.assign(1, &[task("t", vec![container("app", "sim/ok")])]).await;
    host.until_running("t").await;
    host.engine.go_away(true);
    host.pass(20_000).await;
    assert_eq!(host.seen.reports["t"].ending, None, "reported before the engine could confirm it");
    host.engine.come_back();
    let report = host.until_finished("t").await;
    assert!(matches!(report.ending, Some(Ending::EssentialExited { .. })));
    assert_eq!(report.containers[0].exit_code, Some(137));
}

#[tokio::test(start_paused = true)]
async fn the_death_of_the_pause_ends_the_task() {
    let mut host = Host::new().await;
    let mut t = task("t", vec![container("app", "sim/ok")]);
    t.network_mode = NetworkMode::Awsvpc;
    host.assign(1, &[t]).await;
    host.until_running("t").await;
    host.engine.kill(&host.engine.runtime_id(&"t".into(), PAUSE).unwrap());
    let report = host.until_finished("t").await;
    assert_eq!((report.ending, report.containers[0].exit_code), (Some(Ending::PauseExited), Some(143)));
}

#[tokio::test(start_paused = true)]
async fn a_broken_link_stops_nothing_and_everything_is_said_again() {
    let mut host = Host::new().await;
    let t = task("t", vec![container("app", "sim/ok")]);
    let u = task("u", vec![container("app", "sim/exit:1@20s")]);
    let all = [t.clone(), u.clone()];
    host.assign(1, &all).await;
    host.until_running("t").await;
    host.until_running("u").await;
    host.far.connection.send_replace(0);
    host.pass(30_000).await;
    host.seen = Seen::default();
    host.far.connection.send_replace(2);
    host.welcome().await;
    host.until_running("t").await;
    assert_eq!(host.until_finished("u").await.containers[0].exit_code, Some(1));
    // The control plane knows nothing of the end yet.
    host.assign(1, &all).await;
    host.pass(60_000).await;
    assert_eq!((host.engine.starts(&"t".into(), "app"), host.engine.starts(&"u".into(), "app")), (1, 1));
    assert!(host.counters.usage_dropped.load(Ordering::Relaxed) >= 29, "usage of the silent time is counted");
}

/// Stores as a log store does: in order, each number once.
fn store(stored: &mut Vec<String>, batches: &[LineBatch]) -> Vec<ResumePoint> {
    for batch in batches {
        assert!(batch.first <= stored.len() as u64, "a gap before {batch:?}");
        let known = stored.len() - batch.first as usize;
        stored.extend(batch.events.iter().skip(known).map(|e| e.message.to_string()));
    }
    let next = stored.len() as u64;
    batches.last().map(|b| ResumePoint { source: b.source.clone(), next, resume: next.to_string() }).into_iter().collect()
}

#[tokio::test(start_paused = true)]
async fn every_line_is_stored_once_over_reconnections_refusals_and_restarts() {
    let mut host = Host::new().await;
    let t = task("t", vec![logging(container("app", "sim/log:7"))]);
    let mut stored: Vec<String> = vec![];
    let mut points = vec![];
    for round in 0..6u64 {
        host.say(ToAgent::Assign { generation: round, tasks: vec![Arc::new(t.clone())], resume: points.clone() }).await;
        host.pass(3_500).await;
        let batches = std::mem::take(&mut host.seen.lines);
        assert!(!batches.is_empty());
        match round {
            // Neither stored nor answered: the connection breaks.
            1 => {}
            2 => {
                let source = batches[0].source.clone();
                host.say(ToAgent::LinesRefused { source, why: "disk full".into(), wait: true }).await;
                host.until("sent again", |seen| !seen.lines.is_empty()).await;
                points = store(&mut stored, &std::mem::take(&mut host.seen.lines));
            }
            // Stored, but the word of it lost.
            3 => points = store(&mut stored, &batches),
            _ => {
                points = store(&mut stored, &batches);
                host.say(ToAgent::LinesStored(points.clone())).await;
            }
        }
        assert_eq!(batches[0].target.stream, "p/app/t");
        host.seen.lines.clear();
        if round == 4 {
            host = host.restart_agent().await;
        } else {
            host.far.connection.send_replace(round + 10);
            host.welcome().await;
        }
    }
    let expect: Vec<String> = (0..stored.len()).map(|n| format!("app {n}")).collect();
    assert_eq!(stored, expect);
    assert!(stored.len() > 60, "{}", stored.len());
}

#[tokio::test(start_paused = true)]
async fn lines_that_nobody_stores_make_reading_pause_and_none_is_lost() {
    let mut host = Host::new().await;
    host.assign(1, &[task("t", vec![logging(container("app", "sim/ok"))])]).await;
    host.until_running("t").await;
    let id = host.engine.runtime_id(&"t".into(), "app").unwrap();
    for n in 0..3_000 {
        host.engine.write_line(&id, &format!("app {n}"));
        if n % 100 == 0 {
            host.pass(1).await;
        }
    }
    host.engine.kill(&id);
    let mut stored = vec![];
    while stored.len() < 3_000 {
        host.until("lines", |seen| !seen.lines.is_empty()).await;
        let points = store(&mut stored, &std::mem::take(&mut host.seen.lines));
        host.say(ToAgent::LinesStored(points)).await;
    }
    assert_eq!(stored[2_999], "app 2999");
}

#[tokio::test(start_paused = true)]
async fn many_tasks_start_at_once_within_the_lanes() {
    let mut host = Host::new().await;
    let tasks: Vec<Assignment> = (0..60)
        .map(|n| {
            let mut t = task(&format!("t{n}"), vec![container("app", "sim/start@200ms")]);
            t.network_mode = if n % 2 == 0 { NetworkMode::Bridge } else { NetworkMode::Host };
            t.containers[0].port_mappings =
                Some(vec![PortMapping { container_port: Some(80), host_port: Some(0), ..Default::default() }]);
            t
        })
        .collect();
    host.assign(1, &tasks).await;
    for t in &tasks {
        host.until_running(t.task.as_str()).await;
    }
    assert_eq!(host.engine.most_starts_at_once(), 8);
    let binding = &host.seen.reports["t0"].containers[0].bindings[0];
    assert!(binding.container_port == 80 && binding.host_port >= 32_768);
    host.pass(2_000).await;
    assert!(!host.seen.usage.is_empty());
    let taken: Vec<Assignment> = tasks.iter().map(stopping).collect();
    host.assign(2, &taken).await;
    for t in &tasks {
        host.until_finished(t.task.as_str()).await;
    }
    host.assign(3, &[]).await;
    host.pass(5_000).await;
    assert!(host.engine.containers().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_refused_agent_gives_up() {
    let host = Host::new().await;
    host.say(ToAgent::Refused { why: "version".into() }).await;
    assert_eq!(host.agent.await.unwrap(), Err(Ended::Refused("version".into())));
}

#[test]
fn a_containers_environment_names_its_task_but_never_overrules_it() {
    use super::spec::{Surroundings, container_spec};
    let mut app = logging(container("app", "sim/ok"));
    app.environment = Some(vec![KeyValue { name: Some("AWS_REGION".into()), value: Some("mars".into()) }]);
    app.log_configuration.as_mut().unwrap().options.as_mut().unwrap().remove("awslogs-stream-prefix");
    let t = task("t", vec![app]);
    let state = crate::decide::container::State { containers: vec![Default::default()], ..Default::default() };
    let around = Surroundings { region: "eu-central-1".into(), otlp_endpoint: Some("http://127.0.0.1:4566".into()) };
    let spec = container_spec(&t, 0, &state, &around);
    let names: Vec<&str> = spec.environment.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["AWS_DEFAULT_REGION", "AWS_EXECUTION_ENV", "OTEL_RESOURCE_ATTRIBUTES", "OTEL_EXPORTER_OTLP_ENDPOINT"]);
    assert!(spec.environment[2].1.contains("aws.ecs.cluster.name=default") && spec.environment[2].1.contains("service.name=web"));
    assert_eq!(spec.log_target.unwrap().stream, "", "the engine fills in the runtime id");
}
