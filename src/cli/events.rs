//! `beaufort events`: service events, as ECS words them, and decisions, merged by time.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use super::client::Client;
use super::ecs::{self, Service, time};
use super::screen::{self, Ink, Paint};
use super::subject::parse_service;
use super::why::{self, decisions_in_order, newest};
use super::{ClusterOption, Target};
use crate::model::Timestamp;

const EXAMPLES: &str = "\
Examples:
  beaufort events                 of every service of the cluster, and of all decisions
  beaufort events service/web -f
  beaufort events --json -f | jq .";

/// Show what happened: service events and decisions, by time.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct EventsArgs {
    /// Only of this service: service/NAME
    #[arg(value_name = "SERVICE")]
    pub service: Option<String>,
    #[command(flatten)]
    pub cluster: ClusterOption,
    /// Go on showing what happens
    #[arg(long, short)]
    pub follow: bool,
    /// How many of the newest to show first
    #[arg(long, short = 'n', value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub limit: u16,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
}

const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Decisions of one look.
const DECISIONS: &str = "1000";

/// One thing that happened.
struct Happened {
    at: Timestamp,
    json: Value,
    /// As printed, but for the colour of a decision.
    kind: Kind,
}

enum Kind {
    Event { service: String, message: String },
    Decision,
}

/// What was shown already: a service keeps its newest hundred events, so this stays small.
#[derive(Default)]
struct Seen {
    events: BTreeSet<String>,
    decision: u64,
}

pub async fn run(target: Target, args: EventsArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&target.endpoint)?;
    let only = args.service.as_deref().map(parse_service).transpose().map_err(anyhow::Error::msg)?;
    let (of, name) = only.map_or((None, None), |(cluster, name)| (cluster, Some(name)));
    let cluster = of.unwrap_or(args.cluster.cluster);
    let (mut seen, paint) = (Seen::default(), Paint::stdout());
    let mut limit = usize::from(args.limit);
    loop {
        let happened = look(&client, &cluster, name.as_deref(), &mut seen).await?;
        let first = happened.len().saturating_sub(limit);
        let lines = happened[first..].iter().map(|h| if args.json { format!("{}\n", h.json) } else { line(h, paint) });
        screen::say(&lines.collect::<String>())?;
        if !args.follow {
            return Ok(ExitCode::SUCCESS);
        }
        limit = usize::MAX;
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// What happened since the last look, by time.
async fn look(client: &Client, cluster: &str, name: Option<&str>, seen: &mut Seen) -> anyhow::Result<Vec<Happened>> {
    let services: Vec<Service> = match name {
        Some(name) => vec![ecs::service(client, cluster, name).await?],
        None => ecs::read_all(ecs::services(client, cluster).await?)?,
    };
    let key = name.map(|name| format!("{cluster}/{name}"));
    let after = seen.decision.to_string();
    let mut query = vec![("limit", DECISIONS), ("after", after.as_str())];
    query.extend(key.as_deref().map(|key| ("service", key)));
    let decisions = decisions_in_order(&client.get("/api/decisions", &query).await?);
    Ok(merge(services, decisions, seen))
}

fn merge(services: Vec<Service>, decisions: Vec<Value>, seen: &mut Seen) -> Vec<Happened> {
    seen.decision = newest(&decisions).unwrap_or(seen.decision);
    let mut present = BTreeSet::new();
    let mut happened = Vec::new();
    for service in services {
        for event in service.events {
            if !seen.events.contains(&event.id) {
                let at = time(event.created_at);
                let json = json!({ "at": at.iso(), "kind": "event", "service": service.service_name, "id": event.id, "message": event.message });
                let kind = Kind::Event { service: service.service_name.clone(), message: event.message };
                happened.push(Happened { at, json, kind });
            }
            present.insert(event.id);
        }
    }
    // What the service has forgotten cannot come again.
    seen.events = present;
    for mut decision in decisions {
        let at = decision["at"].as_str().and_then(Timestamp::parse_iso).unwrap_or_default();
        decision["kind"] = json!("decision");
        happened.push(Happened { at, json: decision, kind: Kind::Decision });
    }
    happened.sort_by_key(|h| h.at);
    happened
}

fn line(happened: &Happened, paint: Paint) -> String {
    match &happened.kind {
        Kind::Decision => why::decision(&happened.json, "", paint),
        Kind::Event { service, message } => {
            let at = happened.at.iso().replace('T', " ").replace('Z', "");
            let of = paint.ink(Ink::Good, &format!("event of {service}"));
            format!("{}  {of}: {}\n", paint.ink(Ink::Faint, &at), screen::printable(message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_by_time_and_shown_once() {
        let at = 1_795_170_232.0;
        let web = |ids: &[&str]| Service {
            service_name: "web".to_owned(),
            events: ids
                .iter()
                .map(|id| ecs::Event { id: (*id).to_owned(), created_at: at, message: format!("(service web) {id}") })
                .collect(),
            ..Service::default()
        };
        let decision = |seq: u64, at: &str| json!({ "seq": seq, "at": at, "subject": "service/default/web", "action": "start 1 task", "reason": "1 missing", "evidence": {} });
        let mut seen = Seen::default();
        let show = |happened: &[Happened]| happened.iter().map(|h| line(h, Paint::off())).collect::<String>();
        let first = merge(
            vec![web(&["a"])],
            vec![decision(1, "2026-11-20T10:23:51.000Z"), decision(2, "2026-11-20T10:23:53.000Z")],
            &mut seen,
        );
        assert_eq!(
            show(&first),
            "\
2026-11-20 10:23:51.000  service/default/web start 1 task: 1 missing
2026-11-20 10:23:52.000  event of web: (service web) a
2026-11-20 10:23:53.000  service/default/web start 1 task: 1 missing
"
        );
        assert_eq!(seen.decision, 2);
        let second = merge(vec![web(&["b", "a"])], vec![], &mut seen);
        assert_eq!(show(&second), "2026-11-20 10:23:52.000  event of web: (service web) b\n");
        assert_eq!(seen.decision, 2);
    }
}
