//! `beaufort alerts`: what Alertmanager has told, and which of its alerts could not be used.

use std::process::ExitCode;

use serde_json::Value;

use super::Target;
use super::client::Client;
use super::screen::{self, Ink, Paint, status_ink};
use crate::model::Timestamp;

const EXAMPLES: &str = "\
Examples:
  beaufort alerts
  beaufort alerts --json | jq '.unusable[].why'
  beaufort why service/web        what the alerts did to the service";

/// List the alerts of Prometheus that Alertmanager has told of.
///
/// Each that names a scaling policy is an alarm here; those that name none, or one that is not there, are listed with what is wrong with them.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct AlertsArgs {
    /// Print the answer as JSON
    #[arg(long)]
    pub json: bool,
}

pub async fn run(target: Target, args: AlertsArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&target.endpoint)?;
    let alerts = client.get("/api/alerts", &[]).await?;
    if args.json {
        screen::say_json(&alerts)?
    } else {
        screen::say(&text(&alerts, Paint::stdout()))?
    }
    Ok(ExitCode::SUCCESS)
}

fn text(told: &Value, paint: Paint) -> String {
    let list = |name: &str| told[name].as_array().cloned().unwrap_or_default();
    let word = |of: &Value, name: &str| screen::printable(of[name].as_str().unwrap_or("-"));
    let time = |of: &Value, name: &str| {
        of[name]
            .as_str()
            .and_then(Timestamp::parse_iso)
            .map_or("never".to_owned(), |t| t.iso().replace('T', " ").replace('Z', ""))
    };
    let (alerts, unusable) = (list("alerts"), list("unusable"));
    let mut text = match told["accepts"].as_bool() {
        Some(true) => format!(
            "Alertmanager was last heard of: {}; its heartbeat: {} (UTC, since the start)\n",
            time(told, "lastPostAt"),
            time(told, "lastHeartbeatAt")
        ),
        _ => "no alerts are taken: start Beaufort with --webhook-token-file FILE\n".to_owned(),
    };
    if !alerts.is_empty() {
        let row = |a: &Value| {
            let state = word(a, "state");
            vec![
                paint.ink(status_ink(&state), &state).to_string(),
                word(a, "rule"),
                format!("{}/{}", word(a, "cluster"), word(a, "service")),
                word(a, "policy"),
                word(a, "value"),
                word(a, "threshold"),
                time(a, "startsAt"),
            ]
        };
        let head = ["STATE", "RULE", "SERVICE", "POLICY", "VALUE", "THRESHOLD", "SINCE"];
        text.push_str(&screen::table(&head, alerts.iter().map(row).collect(), ""));
    }
    if !unusable.is_empty() {
        text.push_str(&format!("{}\n", paint.ink(Ink::Strong, "Told, but of no use here:")));
        let row = |u: &Value| vec![u["times"].to_string(), word(u, "rule"), word(u, "why")];
        text.push_str(&screen::table(&["TIMES", "RULE", "WHY"], unusable.iter().map(row).collect(), ""));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_stands_and_what_could_not_be_used() {
        let told = json!({
            "accepts": true, "lastPostAt": "2026-11-20T10:23:52.355Z", "lastHeartbeatAt": null,
            "alerts": [{ "state": "ALARM", "rule": "High", "cluster": "demo", "service": "web", "policy": "out", "value": "250", "threshold": "100",
                         "startsAt": "2026-11-20T10:23:51.000Z" }],
            "unusable": [{ "times": 7, "rule": "Typo", "why": "there is no service demo/wbe" }],
        });
        assert_eq!(
            text(&told, Paint::off()),
            "\
Alertmanager was last heard of: 2026-11-20 10:23:52.355; its heartbeat: never (UTC, since the start)
STATE  RULE  SERVICE   POLICY  VALUE  THRESHOLD  SINCE
ALARM  High  demo/web  out     250    100        2026-11-20 10:23:51.000
Told, but of no use here:
TIMES  RULE  WHY
7      Typo  there is no service demo/wbe
"
        );
        let none = json!({ "accepts": false, "alerts": [], "unusable": [] });
        assert_eq!(text(&none, Paint::off()), "no alerts are taken: start Beaufort with --webhook-token-file FILE\n");
    }
}
