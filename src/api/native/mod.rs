//! Beaufort's own JSON API: health, decisions, why, usage, gaps. What AWS has no operation for.

mod decisions;
mod placement;
mod reset;
mod why;

use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use serde::Serialize;
use serde_json::json;

use super::App;

pub struct Answer {
    pub status: u16,
    pub content_type: &'static str,
    pub body: Bytes,
}

/// A refusal: what happened, and what to do.
pub struct Refusal {
    pub status: u16,
    pub error: String,
    pub hint: &'static str,
}

type Answered = Result<Answer, Refusal>;

/// None: the path is not ours.
pub async fn answer(app: &Arc<App>, method: &Method, path: &str, query: &str, body: &Bytes) -> Option<Answer> {
    if path != "/health" && !path.starts_with("/api/") {
        return None;
    }
    let answered = match (method.as_str(), path.trim_end_matches('/')) {
        ("GET", "/health") => health(app),
        ("GET", "/api/gaps") => Ok(ok(&app.gaps.report())),
        ("GET", "/api/decisions") => decisions::list(app, &Params::of(query)).await,
        ("GET", "/api/why") => why::why(app, &Params::of(query)).await,
        ("POST", "/api/why/placement") => placement::what_if(app, body),
        ("GET", "/api/usage") => usage(app, &Params::of(query)),
        ("POST", "/api/reset") => reset::reset(app).await,
        (_, "/health" | "/api/gaps" | "/api/decisions" | "/api/why" | "/api/why/placement" | "/api/usage" | "/api/reset") => {
            Err(Refusal {
                status: 405,
                error: format!("{path} is not asked by {method}"),
                hint: "GET reads, POST /api/reset empties",
            })
        }
        _ => Err(Refusal {
            status: 404,
            error: format!("there is no {path}"),
            hint: "served here: /health, /metrics, /api/decisions, /api/why, /api/why/placement, /api/usage, /api/gaps, /api/reset",
        }),
    };
    Some(answered.unwrap_or_else(|refusal| Answer {
        status: refusal.status,
        ..ok(&json!({ "error": refusal.error, "hint": refusal.hint }))
    }))
}

/// The parameters of a query string.
struct Params(Vec<(String, String)>);

impl Params {
    fn of(query: &str) -> Params {
        Params(form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }
    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
    }
    fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Refusal> {
        self.get(name).map(|text| text.parse().map_err(|_| bad(format!("{name}={text} is no number")))).transpose()
    }
}

fn bad(error: String) -> Refusal {
    Refusal { status: 400, error, hint: "see README.md, the native API" }
}

fn unavailable(error: impl std::fmt::Display) -> Refusal {
    Refusal { status: 503, error: error.to_string(), hint: "try again; if it stays, look at the server's log" }
}

fn ok(value: &impl Serialize) -> Answer {
    let mut body = serde_json::to_vec(value).unwrap_or_default();
    body.push(b'\n');
    Answer { status: 200, content_type: "application/json", body: body.into() }
}

/// 200 once the API answers and this process's own agent, if it has one, is registered and connected.
fn health(app: &App) -> Answered {
    let state = app.store.snapshot();
    let connected = state.instances.values().filter(|i| i.agent_connected).count();
    let ready = app.local_instance.as_ref().is_none_or(|id| state.instances.get(id).is_some_and(|i| i.agent_connected));
    let answer = ok(&json!({
        "status": if ready { "ok" } else { "starting" },
        "version": env!("CARGO_PKG_VERSION"),
        "installation": app.store.installation(),
        "region": app.home.region,
        "account": app.home.account,
        "cluster": app.first_cluster,
        "container_instances_connected": connected,
        "uptime_s": app.clock.now().since(app.started_at) as f64 / 1000.0,
    }));
    Ok(Answer { status: if ready { 200 } else { 503 }, ..answer })
}

/// The newest usage sample of every container, with what its task is.
fn usage(app: &App, params: &Params) -> Answered {
    let wanted = |facts: &crate::telemetry::ingest::TaskFacts| {
        params.get("cluster").is_none_or(|c| facts.cluster.as_str() == c)
            && params.get("service").is_none_or(|s| facts.service.as_ref().is_some_and(|f| f.as_str() == s))
    };
    let rows: Vec<_> = app
        .ingest
        .latest()
        .into_iter()
        .filter(|latest| wanted(&latest.facts))
        .map(|latest| {
            json!({
                "at": latest.at.iso(),
                "cluster": latest.facts.cluster,
                "service": latest.facts.service,
                "family": latest.facts.family,
                "cpu_reserved": latest.facts.cpu_reserved,
                "memory_reserved_mib": latest.facts.memory_reserved_mib,
                "sample": *latest.sample,
            })
        })
        .collect();
    Ok(ok(&json!({ "containers": rows })))
}
