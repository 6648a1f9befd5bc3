//! `beaufort gaps`: what clients asked for and Beaufort does not do, counted since it started.

use std::process::ExitCode;

use serde_json::Value;

use super::Target;
use super::client::Client;
use super::screen::{self, Ink, Paint};

const EXAMPLES: &str = "\
Examples:
  beaufort gaps
  beaufort gaps --json | jq '.withoutEffect[].path'";

/// List what clients asked for and Beaufort does not do, since it started.
///
/// A field that Beaufort knows but that changes nothing here is accepted, so that clients work; it is counted and named by this command
/// with what happens instead. Members that no AWS shape has are named too.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct GapsArgs {
    /// Print the answer as JSON
    #[arg(long)]
    pub json: bool,
}

pub async fn run(target: Target, args: GapsArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&target.endpoint)?;
    let gaps = client.get("/api/gaps", &[]).await?;
    if args.json {
        screen::say_json(&gaps)?
    } else {
        screen::say(&text(&gaps, Paint::stdout()))?
    }
    Ok(ExitCode::SUCCESS)
}

fn text(gaps: &Value, paint: Paint) -> String {
    let list = |name: &str| gaps[name].as_array().cloned().unwrap_or_default();
    let word = |of: &Value, name: &str| screen::printable(of[name].as_str().unwrap_or_default());
    let (without, unknown, not_scraped) = (list("withoutEffect"), list("unknown"), list("notScraped"));
    if without.is_empty() && unknown.is_empty() && not_scraped.is_empty() {
        return "nothing was asked for that Beaufort does not do\n".to_owned();
    }
    let mut text = String::new();
    if !without.is_empty() {
        text.push_str(&format!("{}\n", paint.ink(Ink::Strong, "Accepted, but without effect here:")));
        let rows = without.iter().map(|w| vec![w["count"].to_string(), word(w, "path"), word(w, "instead")]).collect();
        text.push_str(&screen::table(&["TIMES", "FIELD", "INSTEAD"], rows, ""));
    }
    if !unknown.is_empty() {
        text.push_str(&format!("{}\n", paint.ink(Ink::Strong, "Not known to the operation:")));
        let rows = unknown.iter().map(|u| vec![u["count"].to_string(), word(u, "operation"), word(u, "name")]).collect();
        text.push_str(&screen::table(&["TIMES", "OPERATION", "MEMBER"], rows, ""));
    }
    if !not_scraped.is_empty() {
        text.push_str(&format!("{}\n", paint.ink(Ink::Strong, "Asks to be scraped by Prometheus, but cannot be:")));
        let rows = not_scraped.iter().map(|n| {
            let container = format!("{}/{}", word(n, "taskDefinition"), word(n, "container"));
            vec![n["tasks"].to_string(), word(n, "cluster"), word(n, "service"), container, word(n, "why")]
        });
        text.push_str(&screen::table(&["TASKS", "CLUSTER", "SERVICE", "CONTAINER", "WHY"], rows.collect(), ""));
    }
    match gaps["unnamed"].as_u64() {
        Some(more) if more > 0 => text.push_str(&format!("and {more} more, too many to name\n")),
        _ => {}
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn named_with_what_happens_instead() {
        let gaps = json!({
            "withoutEffect": [{ "path": "service.loadBalancers", "instead": "No traffic is routed.", "count": 3 }],
            "unknown": [{ "service": "ecs", "operation": "RunTask", "name": "RunTaskInput.odd", "count": 1 }],
            "unnamed": 2,
        });
        assert_eq!(
            text(&gaps, Paint::off()),
            "\
Accepted, but without effect here:
TIMES  FIELD                  INSTEAD
3      service.loadBalancers  No traffic is routed.
Not known to the operation:
TIMES  OPERATION  MEMBER
1      RunTask    RunTaskInput.odd
and 2 more, too many to name
"
        );
        let unscraped = json!({ "notScraped": [{ "cluster": "demo", "service": "web", "taskDefinition": "web:1", "container": "app",
            "why": "no port", "tasks": 2 }] });
        assert_eq!(
            text(&unscraped, Paint::off()),
            "\
Asks to be scraped by Prometheus, but cannot be:
TASKS  CLUSTER  SERVICE  CONTAINER  WHY
2      demo     web      web:1/app  no port
"
        );
        assert!(text(&json!({ "withoutEffect": [], "unknown": [], "unnamed": 0 }), Paint::off()).starts_with("nothing"));
    }
}
