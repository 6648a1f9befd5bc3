//! `beaufort services`: services and how far they are.

use std::process::ExitCode;

use serde_json::json;

use super::client::Client;
use super::ecs::{self, Service, short, time};
use super::screen::{self, Ink, Paint, ago, status_ink};
use super::{ClusterOption, Target};
use crate::clock::{Clock, SystemClock};
use crate::model::Timestamp;

const EXAMPLES: &str = "\
Examples:
  beaufort services
  beaufort services --cluster prod --json";

/// List services: wanted and running tasks, the rollout, and the last event.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct ServicesArgs {
    #[command(flatten)]
    pub cluster: ClusterOption,
    /// Print DescribeServices' answer as JSON
    #[arg(long)]
    pub json: bool,
}

/// Characters of an event that fit beside the rest.
const EVENT_WIDTH: usize = 90;

pub async fn run(target: Target, args: ServicesArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&target.endpoint)?;
    let services = ecs::services(&client, &args.cluster.cluster).await?;
    if args.json {
        screen::say_json(&json!({ "services": services }))?;
    } else {
        let services: Vec<Service> = ecs::read_all(services)?;
        screen::say(&table(&services, &args.cluster.cluster, SystemClock.now(), Paint::stdout()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn table(services: &[Service], cluster: &str, now: Timestamp, paint: Paint) -> String {
    let rows = services.iter().map(|service| row(service, now, paint)).collect();
    screen::table(
        &["SERVICE", "DEFINITION", "DESIRED", "RUNNING", "PENDING", "ROLLOUT", "AGE", "LAST EVENT"],
        rows,
        &format!("no services in cluster {cluster} (--cluster names another cluster)"),
    )
}

fn row(service: &Service, now: Timestamp, paint: Paint) -> Vec<String> {
    let rollout = service.deployments.first().map_or("-", |d| d.rollout_state.as_str());
    let shown = if service.status == "ACTIVE" { rollout } else { &service.status };
    let running = if service.running_count == service.desired_count { Ink::Good } else { Ink::Warn };
    let event = service.events.first().map(|e| {
        let text = screen::cut(&screen::printable(&e.message), EVENT_WIDTH);
        paint.ink(Ink::Faint, &format!("{} ago: {text}", ago(Some(time(e.created_at)), now)))
    });
    vec![
        service.service_name.clone(),
        short(&service.task_definition).to_owned(),
        service.desired_count.to_string(),
        paint.ink(running, &service.running_count.to_string()),
        service.pending_count.to_string(),
        paint.ink(status_ink(shown), shown),
        ago(Some(time(service.created_at)), now),
        event.unwrap_or_default(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn one_line_a_service() {
        let at = 1_795_170_000.0;
        let services: Vec<Service> = ecs::read_all(vec![json!({
            "serviceName": "web", "status": "ACTIVE", "taskDefinition": "arn:aws:ecs:us-east-1:000000000000:task-definition/web:7",
            "desiredCount": 3, "runningCount": 2, "pendingCount": 1, "createdAt": at - 86_400.0,
            "deployments": [{ "rolloutState": "IN_PROGRESS" }],
            "events": [{ "id": "e", "createdAt": at - 5.0, "message": "(service web) has started 1 tasks: (task 0123)." }],
        })])
        .unwrap();
        assert_eq!(
            table(&services, "default", Timestamp((at * 1000.0) as i64), Paint::off()),
            "\
SERVICE  DEFINITION  DESIRED  RUNNING  PENDING  ROLLOUT      AGE  LAST EVENT
web      web:7       3        2        1        IN_PROGRESS  1d   5s ago: (service web) has started 1 tasks: (task 0123).
"
        );
    }
}
