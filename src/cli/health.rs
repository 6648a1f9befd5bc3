//! `beaufort health`: whether a Beaufort answers and can run tasks.

use std::process::ExitCode;

use serde_json::Value;

use super::Target;
use super::client::Client;
use super::screen::{self, Ink, Paint, span, status_ink};

const EXAMPLES: &str = "\
Exits with 0 when all is well and with 1 when nothing answers, tasks cannot run yet, or the disk takes no writes.

Examples:
  beaufort health
  until beaufort health >/dev/null 2>&1; do sleep 0.2; done";

/// Tell whether Beaufort is up.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct HealthArgs {
    /// Print the answer as JSON
    #[arg(long)]
    pub json: bool,
}

pub async fn run(target: Target, args: HealthArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&target.endpoint)?;
    let (status, health) = client.get_any("/health", &[]).await?;
    if args.json {
        screen::say_json(&health)?;
    } else {
        screen::say(&text(&health, client.endpoint(), Paint::stdout()))?;
    }
    Ok(if status < 300 && health["status"] != "degraded" { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn text(health: &Value, endpoint: &str, paint: Paint) -> String {
    let word = |name: &str| health[name].as_str().unwrap_or("-");
    let status = word("status");
    let up = span((health["uptime_s"].as_f64().unwrap_or_default() * 1000.0) as i64);
    let instances = health["container_instances_connected"].as_u64().unwrap_or_default();
    let mut text = format!(
        "{} at {endpoint}: Beaufort {}, up {up}, {instances} container instance{} connected, cluster {}, region {}\n",
        paint.ink(status_ink(status), status),
        word("version"),
        if instances == 1 { "" } else { "s" },
        word("cluster"),
        word("region"),
    );
    if let Some(damage) = health["state_damage"].as_str() {
        text.push_str(&format!("{}\n", paint.ink(Ink::Bad, damage)));
    }
    if status == "starting" {
        text.push_str("its own agent is not connected yet: if that stays, Docker does not answer; the server's log says why\n");
    }
    if status == "degraded" {
        let what: Vec<&str> = health["not_written"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        text.push_str(&format!(
            "{} cannot be written to disk: make room on the data directory's disk; it goes on by itself, nothing needs a restart\n",
            what.join(" and ")
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn in_one_sentence() {
        let mut health = json!({ "status": "ok", "version": "0.1.0", "uptime_s": 61.5, "container_instances_connected": 1,
                                 "cluster": "default", "region": "us-east-1" });
        assert_eq!(
            text(&health, "http://h", Paint::off()),
            "ok at http://h: Beaufort 0.1.0, up 1m01s, 1 container instance connected, cluster default, region us-east-1\n"
        );
        health["status"] = json!("starting");
        assert!(text(&health, "http://h", Paint::off()).contains("Docker does not answer"));
        (health["status"], health["not_written"]) = (json!("degraded"), json!(["state", "logs"]));
        assert!(text(&health, "http://h", Paint::off()).contains("\nstate and logs cannot be written to disk: make room"));
    }
}
