//! `beaufort scale`: sets a service's number of tasks and shows how it gets there.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::client::{Client, Service as Api};
use super::ecs::{self, Service};
use super::failure::Failure;
use super::screen::{self, Ink, Paint, parse_span, span};
use super::subject::parse_service;
use super::{ClusterOption, Target};
use crate::model::Millis;

const EXAMPLES: &str = "\
Examples:
  beaufort scale service/web 4
  beaufort scale web 0 --no-wait
  beaufort scale service/prod/web 20 --timeout 10m

When the service is auto scaled, its policies may change the number again: `beaufort why service/web` says when and why.";

/// Set how many tasks a service has, and wait until it has them.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct ScaleArgs {
    /// service/NAME or service/CLUSTER/NAME
    #[arg(value_name = "SERVICE")]
    pub service: String,
    /// Tasks wanted
    #[arg(value_name = "N", value_parser = clap::value_parser!(u32).range(..=10_000))]
    pub count: u32,
    #[command(flatten)]
    pub cluster: ClusterOption,
    /// Return at once
    #[arg(long)]
    pub no_wait: bool,
    /// How long to wait at most
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = parse_span)]
    pub timeout: Millis,
}

const LOOK_AGAIN: Duration = Duration::from_millis(300);

pub async fn run(target: Target, args: ScaleArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&target.endpoint)?;
    let (of, name) = parse_service(&args.service).map_err(anyhow::Error::msg)?;
    let cluster = of.unwrap_or(args.cluster.cluster);
    // Asked before, so that what happened earlier is not shown as progress.
    let before = ecs::service(&client, &cluster, &name).await?;
    let input = json!({ "cluster": cluster, "service": name, "desiredCount": args.count });
    client.call(Api::Ecs, "UpdateService", &input).await?;
    screen::say(&format!("service/{name}: desired {} -> {}\n", before.desired_count, args.count))?;
    if args.no_wait {
        return Ok(ExitCode::SUCCESS);
    }
    let mut progress = Progress { shown: None, last_event: before.events.first().map(|e| e.id.clone()) };
    let (began, bound) = (Instant::now(), Duration::from_millis(args.timeout.unsigned_abs()));
    loop {
        let service = ecs::service(&client, &cluster, &name).await?;
        screen::say(&progress.step(&service, Paint::stdout()))?;
        let took = span(began.elapsed().as_millis() as i64);
        if service.desired_count != i64::from(args.count) {
            let what = format!("service {name}: its desired count was changed to {} by somebody else", service.desired_count);
            return Err(Failure::new(what, format!("beaufort why service/{cluster}/{name}")).into());
        }
        if service.is_stable() {
            screen::say(&format!("stable after {took}\n"))?;
            return Ok(ExitCode::SUCCESS);
        }
        if began.elapsed() >= bound {
            let what = format!("service {name} has {} of {} tasks running after {took}", service.running_count, args.count);
            return Err(Failure::new(what, format!("beaufort why service/{cluster}/{name}")).into());
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// What of a service was shown already.
struct Progress {
    shown: Option<(i64, i64)>,
    last_event: Option<String>,
}

impl Progress {
    /// What is new, in lines.
    fn step(&mut self, service: &Service, paint: Paint) -> String {
        let mut text = String::new();
        let new: Vec<_> = service.events.iter().take_while(|e| Some(&e.id) != self.last_event.as_ref()).collect();
        for event in new.iter().rev() {
            text.push_str(&format!("  {}\n", paint.ink(Ink::Faint, &screen::printable(&event.message))));
        }
        self.last_event = service.events.first().map(|e| e.id.clone()).or(self.last_event.take());
        let now = (service.running_count, service.pending_count);
        if self.shown.replace(now) != Some(now) {
            text.push_str(&format!("  running {} of {}, pending {}\n", now.0, service.desired_count, now.1));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::ecs::Event;

    #[test]
    fn only_what_is_new_is_shown() {
        let event = |id: &str| Event { id: id.to_owned(), created_at: 0.0, message: format!("event {id}") };
        let at = |running, events: &[&str]| Service {
            desired_count: 2,
            running_count: running,
            events: events.iter().map(|e| event(e)).collect(),
            ..Service::default()
        };
        let mut progress = Progress { shown: None, last_event: Some("a".to_owned()) };
        assert_eq!(progress.step(&at(0, &["a"]), Paint::off()), "  running 0 of 2, pending 0\n");
        assert_eq!(progress.step(&at(0, &["c", "b", "a"]), Paint::off()), "  event b\n  event c\n");
        assert_eq!(progress.step(&at(2, &["c", "b", "a"]), Paint::off()), "  running 2 of 2, pending 0\n");
        assert_eq!(progress.step(&at(2, &["c", "b", "a"]), Paint::off()), "");
    }
}
