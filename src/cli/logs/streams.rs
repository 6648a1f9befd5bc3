//! Which log streams belong to what was asked for.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::LogsArgs;
use crate::cli::Failure;
use crate::cli::client::{Client, Service as Api};
use crate::cli::ecs::{self, Task, Which, taken};
use crate::cli::subject::Subject;

/// Streams read at the same time: those of the newest tasks, or those written to last.
const MAX_SOURCES: usize = 50;
/// Empty looks after which the stream of a task that is gone is left: its last lines may come late.
const QUIET_LOOKS: u32 = 10;

/// One stream, and how far it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub group: String,
    pub stream: String,
    /// What its lines begin with.
    pub label: String,
    /// Chooses the colour.
    pub number: usize,
    pub token: Option<String>,
    /// Named by the person: an error when it is not there.
    pub asked_for: bool,
    pub gone: bool,
    pub empty_looks: u32,
}

impl Source {
    pub fn new(group: &str, stream: &str, label: &str) -> Source {
        Source {
            group: group.to_owned(),
            stream: stream.to_owned(),
            label: label.to_owned(),
            number: 0,
            token: None,
            asked_for: false,
            gone: false,
            empty_looks: 0,
        }
    }

    pub fn quiet(&mut self, nothing_came: bool) {
        self.empty_looks = if nothing_came { self.empty_looks + 1 } else { 0 };
    }

    pub fn is_done(&self) -> bool {
        self.gone && self.empty_looks >= QUIET_LOOKS
    }
}

/// What was asked for.
pub enum What {
    Service { cluster: String, name: String },
    Task { cluster: String, id: String },
    Group(String),
    Stream { group: String, stream: String },
}

impl What {
    pub fn of(args: &LogsArgs) -> Result<What, Failure> {
        let default = || args.cluster.cluster.clone();
        match (&args.subject, &args.group, &args.stream) {
            (_, Some(group), Some(stream)) => Ok(What::Stream { group: group.clone(), stream: stream.clone() }),
            (_, Some(group), None) => Ok(What::Group(group.clone())),
            (Some(Subject::Service { cluster, name }), ..) => {
                Ok(What::Service { cluster: cluster.clone().unwrap_or_else(default), name: name.clone() })
            }
            (Some(Subject::Task(id)), ..) => Ok(What::Task { cluster: default(), id: id.clone() }),
            (other, ..) => {
                let other = other.as_ref().map(ToString::to_string).unwrap_or_default();
                Err(Failure::new(format!("{other} writes no log"), "name service/NAME, task/ID or --group NAME"))
            }
        }
    }

    /// Whether streams may come later.
    pub fn may_grow(&self) -> bool {
        matches!(self, What::Service { .. } | What::Group(_))
    }

    pub fn nothing(&self) -> Failure {
        match self {
            What::Service { name, .. } => Failure::new(
                format!("no task of service {name} writes to awslogs"),
                format!(
                    "`beaufort ps --all --service {name}` shows its tasks; the definition's logConfiguration must say awslogs. `docker logs` reads the others"
                ),
            ),
            What::Task { id, .. } => Failure::new(
                format!("no container of task {id} writes to awslogs"),
                "the task definition's logConfiguration must say awslogs; `docker logs` reads the others",
            ),
            What::Group(group) | What::Stream { group, .. } => {
                Failure::new(format!("the log group {group} has no streams"), "`aws logs describe-log-groups` lists the groups")
            }
        }
    }
}

/// Finds streams; remembers task definitions, which never change.
#[derive(Default)]
pub struct Finder {
    definitions: BTreeMap<String, Value>,
}

impl Finder {
    pub async fn find(&mut self, client: &Client, what: &What) -> anyhow::Result<Vec<Source>> {
        let mut sources = match what {
            What::Service { cluster, name } => {
                let tasks: Vec<Task> = ecs::read_all(ecs::tasks(client, cluster, Some(name), Which::All).await?)?;
                if tasks.is_empty() {
                    // Says so when there is no such service.
                    ecs::service(client, cluster, name).await?;
                }
                self.of_tasks(client, &tasks, true).await?
            }
            What::Task { cluster, id } => {
                let task = ecs::task(client, cluster, id).await?;
                self.of_tasks(client, &[task], false).await?
            }
            What::Group(group) => of_group(client, group).await?,
            What::Stream { group, stream } => vec![Source { asked_for: true, ..Source::new(group, stream, stream) }],
        };
        sources.truncate(MAX_SOURCES);
        sources.iter_mut().enumerate().for_each(|(number, source)| source.number = number);
        Ok(sources)
    }

    async fn of_tasks(&mut self, client: &Client, tasks: &[Task], with_task: bool) -> anyhow::Result<Vec<Source>> {
        let mut sources = Vec::new();
        for task in tasks {
            if sources.len() >= MAX_SOURCES {
                break;
            }
            let arn = &task.task_definition_arn;
            if !self.definitions.contains_key(arn) {
                self.definitions.insert(arn.clone(), ecs::definition(client, arn).await?);
            }
            sources.extend(of_task(task, &self.definitions[arn], with_task));
        }
        Ok(sources)
    }
}

/// The streams of a task's containers: "prefix-name/container-name/ecs-task-id"; without awslogs-stream-prefix "the log stream is named
/// after the container ID that is assigned by the Docker daemon" (Amazon ECS, Send Amazon ECS logs to CloudWatch).
fn of_task(task: &Task, definition: &Value, with_task: bool) -> Vec<Source> {
    let containers = definition["containerDefinitions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let id = task.id();
    let brief = id.get(..8).unwrap_or(id);
    let mut sources = Vec::new();
    for container in containers {
        let (name, log) = (container["name"].as_str().unwrap_or_default(), &container["logConfiguration"]);
        let Some(group) = log["options"]["awslogs-group"].as_str().filter(|_| log["logDriver"] == "awslogs") else { continue };
        let stream = match log["options"]["awslogs-stream-prefix"].as_str() {
            Some(prefix) => Some(format!("{prefix}/{name}/{id}")),
            None => task.containers.iter().find(|c| c.name == name).and_then(|c| c.runtime_id.clone()),
        };
        let label = if with_task { format!("{brief}/{name}") } else { name.to_owned() };
        sources.extend(stream.map(|stream| Source::new(group, &stream, &label)));
    }
    sources
}

async fn of_group(client: &Client, group: &str) -> anyhow::Result<Vec<Source>> {
    let input = json!({ "logGroupName": group, "orderBy": "LastEventTime", "descending": true, "limit": MAX_SOURCES });
    let mut page = client.call(Api::Logs, "DescribeLogStreams", &input).await?;
    let streams = taken(&mut page, "logStreams");
    Ok(streams.iter().filter_map(|s| s["logStreamName"].as_str()).map(|stream| Source::new(group, stream, stream)).collect())
}

/// Adds what is new and marks what is gone.
pub fn update(sources: &mut Vec<Source>, found: Vec<Source>) {
    let same = |a: &Source, b: &Source| a.group == b.group && a.stream == b.stream;
    for source in sources.iter_mut() {
        source.gone = !found.iter().any(|f| same(f, source));
    }
    let mut next = sources.iter().map(|s| s.number + 1).max().unwrap_or(0);
    for mut source in found {
        if !sources.iter().any(|s| same(s, &source)) {
            source.number = next;
            next += 1;
            sources.push(source);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_named_as_ecs_names_them() {
        let definition = json!({ "containerDefinitions": [
            { "name": "app", "logConfiguration": { "logDriver": "awslogs", "options": { "awslogs-group": "/ecs/web", "awslogs-stream-prefix": "p" } } },
            { "name": "bare", "logConfiguration": { "logDriver": "awslogs", "options": { "awslogs-group": "/ecs/web" } } },
            { "name": "unborn", "logConfiguration": { "logDriver": "awslogs", "options": { "awslogs-group": "/ecs/web" } } },
            { "name": "other", "logConfiguration": { "logDriver": "json-file", "options": {} } },
            { "name": "none" },
        ]});
        let task: Task = serde_json::from_value(json!({
            "taskArn": "arn:aws:ecs:us-east-1:000000000000:task/default/0123456789abcdef",
            "containers": [{ "name": "bare", "runtimeId": "docker-id" }],
        }))
        .unwrap();
        let found = |with_task| {
            let sources = of_task(&task, &definition, with_task);
            sources.into_iter().map(|s| (s.group, s.stream, s.label)).collect::<Vec<_>>()
        };
        let line = |stream: &str, label: &str| ("/ecs/web".to_owned(), stream.to_owned(), label.to_owned());
        assert_eq!(found(false), [line("p/app/0123456789abcdef", "app"), line("docker-id", "bare")]);
        assert_eq!(found(true), [line("p/app/0123456789abcdef", "01234567/app"), line("docker-id", "01234567/bare")]);
    }

    #[test]
    fn new_streams_come_and_old_ones_go_when_they_are_quiet() {
        let mut sources = vec![Source { token: Some("t".to_owned()), ..Source::new("g", "a", "a") }];
        update(&mut sources, vec![Source::new("g", "b", "b"), Source::new("g", "a", "a")]);
        assert_eq!(
            sources.iter().map(|s| (s.stream.as_str(), s.number, s.token.is_some())).collect::<Vec<_>>(),
            [("a", 0, true), ("b", 1, false)]
        );
        update(&mut sources, vec![Source::new("g", "b", "b")]);
        assert!(!sources[0].is_done(), "its last lines may still come");
        (0..QUIET_LOOKS).for_each(|_| sources[0].quiet(true));
        assert!(sources[0].is_done());
        sources[0].quiet(false);
        assert!(!sources[0].is_done() && !sources[1].is_done());
    }
}
