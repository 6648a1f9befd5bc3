//! `beaufort why`: how a thing stands, what it waits for, and the decisions that brought it there.

use std::process::ExitCode;
use std::time::Duration;

use clap::CommandFactory;
use clap::error::ErrorKind;
use serde_json::{Value, json};

use super::client::Client;
use super::ecs::short;
use super::screen::{self, Ink, Paint, status_ink};
use super::subject::Subject;
use super::{Cli, ClusterOption, Target};
use crate::model::Timestamp;

const EXAMPLES: &str = "\
Examples:
  beaufort why service/web                        why it has the tasks it has
  beaufort why task/0123abcd                      why it stopped, or was placed where it is
  beaufort why alarm/cpu-high -f                  and go on showing what is decided
  beaufort why placement web:7 --count 3          where tasks would go now, and why not elsewhere; nothing is started";

/// Explain how something came to be as it is, and what it waits for.
///
/// Shows how it stands now, what is being waited for, then the decisions about it, newest last, each with its reason and its numbers.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct WhyArgs {
    /// service/NAME, task/ID, alarm/NAME, instance/ID, or the word placement
    #[arg(value_name = "SUBJECT")]
    pub subject: Subject,
    /// With placement: the task definition to place
    #[arg(value_name = "DEFINITION")]
    pub definition: Option<String>,
    /// With placement: how many tasks
    #[arg(long, value_name = "N", requires = "definition", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub count: Option<u32>,
    #[command(flatten)]
    pub cluster: ClusterOption,
    /// Go on showing decisions as they are made
    #[arg(long, short)]
    pub follow: bool,
    /// How many decisions to show
    #[arg(long, short = 'n', value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub limit: u16,
    /// Print the answer as JSON; with --follow one decision a line
    #[arg(long)]
    pub json: bool,
}

const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Pieces of evidence beside a decision; --json has all of them.
const NUMBERS_SHOWN: usize = 6;

pub async fn run(target: Target, args: WhyArgs) -> anyhow::Result<ExitCode> {
    let usage = |text: &str| Cli::command().error(ErrorKind::ArgumentConflict, text).exit();
    match (&args.subject, &args.definition) {
        (Subject::Placement, None) => usage("why placement needs a task definition: why placement FAMILY[:REVISION]"),
        (Subject::Placement, Some(_)) if args.follow => usage("why placement cannot be followed: it asks what would be now"),
        (Subject::Placement, _) | (_, None) => {}
        (_, Some(_)) => usage("a task definition is for why placement only"),
    }
    let client = Client::new(&target.endpoint)?;
    match &args.definition {
        Some(definition) => placement(&client, &args, definition).await,
        None => explain(&client, &args).await,
    }
}

async fn explain(client: &Client, args: &WhyArgs) -> anyhow::Result<ExitCode> {
    let (subject, limit) = (args.subject.path(&args.cluster.cluster), args.limit.to_string());
    let answer = client.get("/api/why", &[("subject", &subject), ("limit", &limit)]).await?;
    let decisions = decisions_in_order(&answer);
    let paint = Paint::stdout();
    if !args.json {
        screen::say(&text(&subject, &answer["now"], &decisions, paint))?;
    } else if !args.follow {
        screen::say_json(&answer)?;
    } else {
        say_lines(&decisions)?;
    }
    if !args.follow {
        return Ok(ExitCode::SUCCESS);
    }
    let mut seen = newest(&decisions).unwrap_or(0);
    loop {
        tokio::time::sleep(LOOK_AGAIN).await;
        // The answer holds few decisions, so that those of any half second fit.
        let answer = client.get("/api/why", &[("subject", &subject), ("limit", "200")]).await?;
        let new: Vec<Value> = decisions_in_order(&answer).into_iter().filter(|d| d["seq"].as_u64() > Some(seen)).collect();
        seen = newest(&new).unwrap_or(seen);
        if args.json {
            say_lines(&new)?;
        } else {
            screen::say(&new.iter().map(|d| decision(d, &subject, paint)).collect::<String>())?;
        }
    }
}

fn say_lines(decisions: &[Value]) -> anyhow::Result<()> {
    screen::say(&decisions.iter().map(|d| format!("{d}\n")).collect::<String>())
}

/// Newest last.
pub fn decisions_in_order(answer: &Value) -> Vec<Value> {
    let mut decisions = answer["decisions"].as_array().cloned().unwrap_or_default();
    decisions.sort_by_key(|d| d["seq"].as_u64());
    decisions
}

pub fn newest(decisions: &[Value]) -> Option<u64> {
    decisions.iter().filter_map(|d| d["seq"].as_u64()).max()
}

fn text(subject: &str, now: &Value, decisions: &[Value], paint: Paint) -> String {
    let mut text = format!("{}\n", paint.ink(Ink::Strong, subject));
    match now {
        Value::Null => text.push_str("  is no more; what is remembered of it:\n"),
        _ if subject.starts_with("service/") => service_now(&mut text, now, decisions, paint),
        _ if subject.starts_with("task/") => task_now(&mut text, now, paint),
        _ => facts_now(&mut text, now, paint),
    }
    if decisions.is_empty() {
        text.push_str("no decisions are remembered\n");
    } else {
        text.push_str(&format!("{}\n", paint.ink(Ink::Strong, "decisions, newest last (UTC)")));
        decisions.iter().for_each(|d| text.push_str(&decision(d, subject, paint)));
    }
    text
}

fn service_now(text: &mut String, now: &Value, decisions: &[Value], paint: Paint) {
    let number = |name: &str| now[name].as_u64().unwrap_or_default();
    let status = word(&now["status"]);
    let mut line = format!(
        "  {}: desired {}, running {}, pending {}",
        paint.ink(status_ink(&status), &status),
        number("desired"),
        number("running"),
        number("pending")
    );
    if number("stopping") > 0 {
        line.push_str(&format!(", stopping {}", number("stopping")));
    }
    text.push_str(&format!("{line}\n"));
    for d in now["deployments"].as_array().into_iter().flatten() {
        let rollout = word(&d["rollout"]);
        text.push_str(&format!(
            "  deployment {} {}",
            short(&word(&d["task_definition"])),
            paint.ink(status_ink(&rollout), &rollout)
        ));
        text.push_str(&colon(&d["reason"]));
        match d["failed_tasks"].as_u64() {
            Some(failed) if failed > 0 => text.push_str(&format!(" ({failed} failed tasks)")),
            _ => {}
        }
        if let Some(until) = d["throttled_until"].as_str() {
            text.push_str(&format!(" (starts are held back until {until})"));
        }
        text.push('\n');
    }
    for a in now["alarms"].as_array().into_iter().flatten() {
        let state = word(&a["state"]);
        text.push_str(&format!(
            "  alarm {} {}{}\n",
            word(&a["alarm"]),
            paint.ink(status_ink(&state), &state),
            colon(&a["reason"])
        ));
    }
    if let Some(wait) = waits_for(now, decisions) {
        text.push_str(&format!("  {} {wait}\n", paint.ink(Ink::Warn, "waits for:")));
    } else if let Some(event) = now["event"].as_str() {
        text.push_str(&format!("  last event: {}\n", screen::printable(event)));
    }
}

/// The newest decision, when it was to wait: what is decided later ends a wait.
fn waits_for(now: &Value, decisions: &[Value]) -> Option<String> {
    if now["steady"] == json!(true) {
        return None;
    }
    let newest = decisions.iter().rev().find(|d| d["subject"].as_str().is_some_and(|s| s.starts_with("service/")))?;
    let code = newest["code"].as_str()?;
    let waits = code.starts_with("wait_") || ["not_placed", "no_instances", "throttled", "deployment_stuck"].contains(&code);
    waits.then(|| word(&newest["reason"]))
}

fn task_now(text: &mut String, now: &Value, paint: Paint) {
    let (status, desired) = (word(&now["status"]), word(&now["desired"]));
    text.push_str(&format!("  {}", paint.ink(status_ink(&status), &status)));
    if desired != status {
        text.push_str(&format!(", to become {desired}"));
    }
    text.push_str(&format!(", {} on instance {}", short(&word(&now["task_definition"])), word(&now["instance"])));
    if let Some(service) = now["service"].as_str() {
        text.push_str(&format!(", of service {service}"));
    }
    text.push('\n');
    if let Some(why) = now["stopped_reason"].as_str() {
        text.push_str(&format!("  {}: {}\n", word(&now["stop_code"]), screen::printable(why)));
    }
    for c in now["containers"].as_array().into_iter().flatten() {
        let status = word(&c["status"]);
        text.push_str(&format!("  container {} {}", word(&c["name"]), paint.ink(status_ink(&status), &status)));
        if let Some(code) = c["exit_code"].as_i64() {
            text.push_str(&format!(", exit code {code}"));
        }
        match c["restarts"].as_u64() {
            Some(restarts) if restarts > 0 => text.push_str(&format!(", restarted {restarts} times")),
            _ => {}
        }
        text.push_str(&colon(&c["reason"]));
        text.push('\n');
    }
}

fn facts_now(text: &mut String, now: &Value, paint: Paint) {
    for (name, value) in now.as_object().into_iter().flatten() {
        text.push_str(&format!("  {} {}\n", paint.ink(Ink::Faint, &format!("{name}:")), word(value)));
    }
}

/// `10:23:52.355  start 2 tasks  why (numbers)`, with the subject where it is another than the one asked about.
pub fn decision(d: &Value, asked: &str, paint: Paint) -> String {
    let subject = word(&d["subject"]);
    let about = if subject == asked { String::new() } else { format!("{} ", paint.ink(Ink::Faint, &about(&subject))) };
    let mut numbers = numbers(&d["evidence"], &word(&d["reason"]));
    // An alert's labels say whose rule it was and what it was about.
    if let Some(labels) = d["evidence"]["labels"].as_object() {
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        numbers.push_str(&format!(
            "{}labels {{{}}}",
            if numbers.is_empty() { "" } else { ", " },
            screen::printable(&labels.join(", "))
        ));
    }
    let numbers = if numbers.is_empty() { String::new() } else { format!(" {}", paint.ink(Ink::Faint, &format!("({numbers})"))) };
    let action = paint.ink(Ink::Strong, &word(&d["action"]));
    format!("{}  {about}{action}: {}{numbers}\n", paint.ink(Ink::Faint, &clock(&d["at"])), word(&d["reason"]))
}

/// A task's id cut to what tells it apart.
fn about(subject: &str) -> String {
    match subject.split_once('/') {
        Some((kind @ ("task" | "instance"), id)) => format!("{kind}/{}", id.get(..8).unwrap_or(id)),
        _ => subject.to_owned(),
    }
}

/// `2026-11-20 10:23:52.355`.
fn clock(at: &Value) -> String {
    let text = word(at);
    Timestamp::parse_iso(&text).map_or(text, |t| t.iso().replace('T', " ").replace('Z', ""))
}

/// What the sentence does not say already: an id twice in a line only makes it longer.
fn numbers(evidence: &Value, sentence: &str) -> String {
    let simple = |v: &Value| match v {
        Value::Number(_) | Value::Bool(_) => true,
        Value::String(s) => s.len() <= 40 && !(s.len() > 8 && sentence.contains(s.as_str())),
        _ => false,
    };
    let shown = evidence.as_object().into_iter().flatten().filter(|(_, v)| simple(v)).take(NUMBERS_SHOWN);
    shown.map(|(name, value)| format!("{name} {}", word(value))).collect::<Vec<_>>().join(", ")
}

fn word(value: &Value) -> String {
    match value {
        Value::String(text) => screen::printable(text),
        Value::Null => "-".to_owned(),
        other => screen::printable(&other.to_string()),
    }
}

fn colon(value: &Value) -> String {
    value.as_str().filter(|text| !text.is_empty()).map(|text| format!(": {}", screen::printable(text))).unwrap_or_default()
}

async fn placement(client: &Client, args: &WhyArgs, definition: &str) -> anyhow::Result<ExitCode> {
    let input = json!({ "cluster": args.cluster.cluster, "taskDefinition": definition, "count": args.count.unwrap_or(1) });
    let answer = client.post("/api/why/placement", &input).await?;
    if args.json {
        screen::say_json(&answer)?;
    } else {
        screen::say(&placement_text(&answer, Paint::stdout()))?;
    }
    let all = answer["outcomes"].as_array().is_some_and(|o| o.iter().all(|o| o["placed"] == json!(true)));
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn placement_text(answer: &Value, paint: Paint) -> String {
    let needs = &answer["needs"];
    let mut text = format!("{} needs {} CPU units and {} MiB", word(&answer["task_definition"]), needs["cpu"], needs["memory"]);
    for (name, ports) in [("TCP", &needs["tcp_ports"]), ("UDP", &needs["udp_ports"])] {
        let ports: Vec<String> = ports.as_array().into_iter().flatten().map(Value::to_string).collect();
        if !ports.is_empty() {
            text.push_str(&format!(", {name} ports {}", ports.join(" ")));
        }
    }
    text.push_str(&format!(" of an instance of cluster {}\n", word(&answer["cluster"])));
    for (at, outcome) in answer["outcomes"].as_array().into_iter().flatten().enumerate() {
        let head = match outcome["placed"].as_bool() {
            Some(true) => paint.ink(Ink::Good, &format!("would go to {}", word(&outcome["instance"]))),
            _ => paint.ink(Ink::Bad, "would find no place"),
        };
        text.push_str(&format!("task {}: {head}: {}\n", at + 1, word(&outcome["reason"])));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> Value {
        json!({ "decisions": [
            { "seq": 9, "at": "2026-11-20T10:23:53.000Z", "subject": "service/default/web", "action": "wait", "code": "wait_capacity",
              "reason": "no instance has 512 CPU units left", "evidence": { "cpu": 512, "instances": [{ "id": "a" }] } },
            { "seq": 4, "at": "2026-11-20T10:23:52.355Z", "subject": "task/0123456789abcdef", "action": "start task", "code": "below_desired",
              "reason": "1 of 2 tasks run", "evidence": {} },
        ]})
    }

    #[test]
    fn a_service_now_what_it_waits_for_and_decisions_newest_last() {
        let now = json!({
            "status": "ACTIVE", "desired": 2, "running": 1, "pending": 0, "stopping": 0, "steady": false, "event": "e",
            "deployments": [{ "id": "ecs-svc/1", "task_definition": "web:7", "rollout": "IN_PROGRESS", "reason": "in progress", "failed_tasks": 2,
                              "throttled_until": null }],
            "alarms": [{ "alarm": "high", "policy": "p", "state": "OK", "reason": "below" }],
        });
        let decisions = decisions_in_order(&ledger());
        assert_eq!(newest(&decisions), Some(9));
        assert_eq!(
            text("service/default/web", &now, &decisions, Paint::off()),
            "\
service/default/web
  ACTIVE: desired 2, running 1, pending 0
  deployment web:7 IN_PROGRESS: in progress (2 failed tasks)
  alarm high OK: below
  waits for: no instance has 512 CPU units left
decisions, newest last (UTC)
2026-11-20 10:23:52.355  task/01234567 start task: 1 of 2 tasks run
2026-11-20 10:23:53.000  wait: no instance has 512 CPU units left (cpu 512)
"
        );
    }

    #[test]
    fn a_steady_service_waits_for_nothing() {
        let now = json!({ "steady": true });
        assert_eq!(waits_for(&now, &decisions_in_order(&ledger())), None);
    }

    #[test]
    fn a_task_with_its_end() {
        let now = json!({
            "status": "STOPPED", "desired": "STOPPED", "stop_code": "EssentialContainerExited", "service": "web", "instance": "i",
            "stopped_reason": "Essential container in task exited", "task_definition": "web:7",
            "containers": [{ "name": "app", "status": "STOPPED", "exit_code": 137, "reason": "OutOfMemoryError: killed", "restarts": 2 }],
        });
        assert_eq!(
            text("task/0123", &now, &[], Paint::off()),
            "\
task/0123
  STOPPED, web:7 on instance i, of service web
  EssentialContainerExited: Essential container in task exited
  container app STOPPED, exit code 137, restarted 2 times: OutOfMemoryError: killed
no decisions are remembered
"
        );
        assert!(text("task/0123", &Value::Null, &[], Paint::off()).contains("is no more"));
    }

    #[test]
    fn where_tasks_would_go() {
        let answer = json!({
            "cluster": "default", "task_definition": "web:7", "needs": { "cpu": 256, "memory": 512, "tcp_ports": [80], "udp_ports": [] },
            "outcomes": [
                { "placed": true, "instance": "i1", "reason": "most room" },
                { "placed": false, "reason": "port 80 is taken on every instance" },
            ],
        });
        assert_eq!(
            placement_text(&answer, Paint::off()),
            "\
web:7 needs 256 CPU units and 512 MiB, TCP ports 80 of an instance of cluster default
task 1: would go to i1: most room
task 2: would find no place: port 80 is taken on every instance
"
        );
    }
}
