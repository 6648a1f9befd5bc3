//! `beaufort ps`: tasks, newest first.

use std::process::ExitCode;

use serde_json::json;

use super::client::Client;
use super::ecs::{self, Container, Task, Which, short, time};
use super::screen::{self, Ink, Paint, ago, status_ink};
use super::subject::parse_service;
use super::{ClusterOption, Target};
use crate::clock::{Clock, SystemClock};
use crate::model::Timestamp;

const EXAMPLES: &str = "\
Examples:
  beaufort ps
  beaufort ps --service web --all          also tasks that stopped within the last hour
  beaufort ps --json | jq -r '.tasks[].taskArn'";

/// List tasks: what runs, since when, and where it can be reached.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct PsArgs {
    #[command(flatten)]
    pub cluster: ClusterOption,
    /// Only this service's tasks
    #[arg(long, short, value_name = "NAME")]
    pub service: Option<String>,
    /// Also tasks that have stopped
    #[arg(long, short)]
    pub all: bool,
    /// Print DescribeTasks' answer as JSON
    #[arg(long)]
    pub json: bool,
}

pub async fn run(target: Target, args: PsArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&target.endpoint)?;
    let service = args.service.as_deref().map(parse_service).transpose().map_err(anyhow::Error::msg)?;
    let (of, name) = service.map_or((None, None), |(cluster, name)| (cluster, Some(name)));
    let cluster = of.unwrap_or(args.cluster.cluster);
    let which = if args.all { Which::All } else { Which::Live };
    let tasks = ecs::tasks(&client, &cluster, name.as_deref(), which).await?;
    if args.json {
        screen::say_json(&json!({ "tasks": tasks }))?;
    } else {
        let tasks: Vec<Task> = ecs::read_all(tasks)?;
        screen::say(&table(&tasks, &cluster, SystemClock.now(), Paint::stdout()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn table(tasks: &[Task], cluster: &str, now: Timestamp, paint: Paint) -> String {
    let rows = tasks.iter().map(|task| row(task, now, paint)).collect();
    screen::table(
        &["TASK", "GROUP", "DEFINITION", "STATUS", "AGE", "CONTAINERS"],
        rows,
        &format!("no tasks in cluster {cluster} (--all shows stopped ones, --cluster another cluster)"),
    )
}

fn row(task: &Task, now: Timestamp, paint: Paint) -> Vec<String> {
    let mut status = paint.ink(status_ink(&task.last_status), &task.last_status);
    if task.desired_status == "STOPPED" && task.last_status != "STOPPED" {
        status.push_str(" (to stop)");
    }
    if matches!(task.health_status.as_str(), "HEALTHY" | "UNHEALTHY") {
        let health = task.health_status.to_lowercase();
        status.push_str(&format!(" ({})", paint.ink(status_ink(&task.health_status), &health)));
    }
    let mut containers: Vec<String> = task.containers.iter().map(|c| container(c, task)).collect();
    containers.extend(task.stopped_reason.as_ref().map(|why| paint.ink(Ink::Faint, &screen::printable(why))));
    let since = task.stopped_at.or(task.started_at).unwrap_or(task.created_at);
    vec![
        task.id().to_owned(),
        task.group.clone(),
        short(&task.task_definition_arn).to_owned(),
        status,
        ago(Some(time(since)), now),
        containers.join(", "),
    ]
}

/// `app 127.0.0.1:32768->80/tcp`, `app exit 1`, `app PENDING`.
fn container(container: &Container, task: &Task) -> String {
    let mut words = vec![container.name.clone()];
    if container.last_status != task.last_status && !container.last_status.is_empty() {
        words.push(container.last_status.clone());
    }
    words.extend(container.exit_code.map(|code| format!("exit {code}")));
    if container.last_status == "RUNNING" {
        for b in &container.network_bindings {
            // A person reaches what listens everywhere by the loopback address.
            let host = if matches!(b.bind_ip.as_str(), "0.0.0.0" | "::" | "") { "127.0.0.1" } else { &b.bind_ip };
            words.push(format!("{host}:{}->{}/{}", b.host_port, b.container_port, b.protocol));
        }
        // With an address of its own a task maps no ports.
        let own = container.network_interfaces.iter().filter(|_| container.network_bindings.is_empty());
        words.extend(own.filter_map(|i| i.private_ipv4_address.clone()));
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn one_line_a_task() {
        let at = 1_795_170_000.0;
        let tasks: Vec<Task> = ecs::read_all(vec![
            json!({
                "taskArn": "arn:aws:ecs:us-east-1:000000000000:task/default/0123456789abcdef0123456789abcdef",
                "taskDefinitionArn": "arn:aws:ecs:us-east-1:000000000000:task-definition/web:7", "group": "service:web",
                "lastStatus": "RUNNING", "desiredStatus": "RUNNING", "healthStatus": "HEALTHY", "createdAt": at - 65.0, "startedAt": at - 60.0,
                "containers": [{ "name": "app", "lastStatus": "RUNNING",
                    "networkBindings": [{ "bindIP": "0.0.0.0", "containerPort": 80, "hostPort": 32768, "protocol": "tcp" }] }],
            }),
            json!({
                "taskArn": "arn:aws:ecs:us-east-1:000000000000:task/default/ffff",
                "taskDefinitionArn": "arn:aws:ecs:us-east-1:000000000000:task-definition/job:1", "group": "family:job",
                "lastStatus": "STOPPED", "desiredStatus": "STOPPED", "healthStatus": "UNKNOWN", "createdAt": at - 3_700.0, "stoppedAt": at - 3_600.0,
                "stoppedReason": "Essential container in task exited", "containers": [{ "name": "app", "lastStatus": "STOPPED", "exitCode": 1 }],
            }),
        ])
        .unwrap();
        let text = table(&tasks, "default", Timestamp((at * 1000.0) as i64), Paint::off());
        assert_eq!(
            text,
            "\
TASK                              GROUP        DEFINITION  STATUS             AGE  CONTAINERS
0123456789abcdef0123456789abcdef  service:web  web:7       RUNNING (healthy)  1m   app 127.0.0.1:32768->80/tcp
ffff                              family:job   job:1       STOPPED            1h   app exit 1, Essential container in task exited
"
        );
        assert!(table(&[], "c", Timestamp(0), Paint::off()).starts_with("no tasks in cluster c"));
    }
}
