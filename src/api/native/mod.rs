//! Beaufort's own JSON API: health, decisions, why, usage, gaps. What AWS has no operation for.

pub mod backup;
mod decisions;
pub mod discovery;
mod placement;
mod reset;
mod why;

use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use serde::Serialize;
use serde_json::json;

use super::{App, alertmanager};
use crate::observe;
use crate::wire::fault::Fault;

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

/// Every path that is answered here, whatever the method.
const SERVED: &[&str] = &[
    "/health",
    "/sd/prometheus",
    "/api/gaps",
    "/api/decisions",
    "/api/why",
    "/api/why/placement",
    "/api/usage",
    "/api/reset",
    "/api/backup",
    "/api/backup/data",
    "/api/backup/end",
    "/api/alerts",
    alertmanager::PATH,
];

type Answered = Result<Answer, Refusal>;

/// What is asked, as far as it matters here.
pub struct Request<'a> {
    pub method: &'a Method,
    pub path: &'a str,
    pub query: &'a str,
    pub authorization: Option<&'a str>,
    pub body: &'a Bytes,
}

/// Whether a path is answered here, and not by AWS's protocols.
pub fn is_ours(path: &str) -> bool {
    path == "/health" || path.starts_with("/api/") || path.starts_with("/sd/") || path.starts_with("/alertmanager/")
}

/// None: the path is not ours.
pub async fn answer(app: &Arc<App>, request: Request<'_>) -> Option<Answer> {
    let Request { method, path, query, authorization, body } = request;
    if !is_ours(path) {
        return None;
    }
    let answered = match (method.as_str(), path.trim_end_matches('/')) {
        ("GET", "/health") => health(app),
        ("GET", "/sd/prometheus") => discovery::prometheus(app, &Params::of(query)),
        ("GET", "/api/gaps") => Ok(gaps(app)),
        ("GET", "/api/decisions") => decisions::list(app, &Params::of(query)).await,
        ("GET", "/api/why") => why::why(app, &Params::of(query)).await,
        ("POST", "/api/why/placement") => placement::what_if(app, body),
        ("GET", "/api/usage") => usage(app, &Params::of(query)),
        ("POST", "/api/reset") => reset::reset(app).await,
        ("POST", "/api/backup") => backup::begin(app),
        ("GET", "/api/backup") => backup::show(app, &Params::of(query)),
        ("GET", "/api/backup/data") => backup::data(app, &Params::of(query)).await,
        ("POST", "/api/backup/end") => backup::end(app, &Params::of(query)),
        ("GET", "/api/alerts") => Ok(alertmanager::list(app)),
        ("POST", alertmanager::PATH) => alertmanager::receive(app, authorization, query, body).await,
        (_, known) if SERVED.contains(&known) => Err(Refusal {
            status: 405,
            error: format!("{path} is not asked by {method}"),
            hint: "GET reads; POST is for /alertmanager/v2/scale, /api/why/placement, /api/backup, /api/backup/end and /api/reset",
        }),
        _ => Err(Refusal {
            status: 404,
            error: format!("there is no {path}"),
            hint: "served here: /health, /metrics, /sd/prometheus, /api/decisions, /api/why, /api/why/placement, /api/alerts, /api/usage, /api/gaps, /api/backup, /api/reset, /alertmanager/v2/scale",
        }),
    };
    Some(answered.unwrap_or_else(|refusal| Answer {
        status: refusal.status,
        ..ok(&json!({ "error": refusal.error, "hint": refusal.hint }))
    }))
}

/// A body that could not be read, or is too large, for a path of ours.
pub fn unread(app: &App, path: &str, fault: &Fault) -> Option<Answer> {
    if !is_ours(path) {
        return None;
    }
    let status = fault.code.status;
    if path == alertmanager::PATH {
        observe::webhook_post(status, app.clock.now());
    }
    let hint = "send less at once; for alerts, group_by less or set the receiver's max_alerts";
    Some(Answer { status, ..ok(&json!({ "error": fault.message, "hint": hint })) })
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

pub(super) fn bad(error: String) -> Refusal {
    Refusal { status: 400, error, hint: "see README.md, the native API" }
}

pub(super) fn unavailable(error: impl std::fmt::Display) -> Refusal {
    Refusal { status: 503, error: error.to_string(), hint: "try again; if it stays, look at the server's log" }
}

pub(super) fn ok(value: &impl Serialize) -> Answer {
    let mut body = serde_json::to_vec(value).unwrap_or_default();
    body.push(b'\n');
    Answer { status: 200, content_type: "application/json", body: body.into() }
}

/// 200 once the API answers and this process's own agent, if it has one, is registered and connected. `degraded`: what is asked is
/// answered, but something could not be written to disk the last time that it was tried.
fn health(app: &App) -> Answered {
    let state = app.store.snapshot();
    let connected = state.instances.values().filter(|i| i.agent_connected).count();
    let ready = app.local_instance.as_ref().is_none_or(|id| state.instances.get(id).is_some_and(|i| i.agent_connected));
    let failing =
        [("state", app.store.stats().failing), ("metrics", app.metrics.stats().degraded), ("logs", app.logs.stats().failing)];
    let failing: Vec<&str> = failing.into_iter().filter(|(_, failing)| *failing).map(|(what, _)| what).collect();
    let status = match (ready, failing.is_empty()) {
        (false, _) => "starting",
        (true, false) => "degraded",
        (true, true) => "ok",
    };
    let answer = ok(&json!({
        "status": status,
        "not_written": failing,
        "version": env!("CARGO_PKG_VERSION"),
        "installation": app.store.installation(),
        "region": app.home.region,
        "account": app.home.account,
        "cluster": app.first_cluster,
        "container_instances_connected": connected,
        "state_damage": app.store.damage(),
        "uptime_s": app.clock.now().since(app.started_at) as f64 / 1000.0,
    }));
    Ok(Answer { status: if ready { 200 } else { 503 }, ..answer })
}

/// What clients asked for in vain, and what of the state asks for something that it cannot have.
fn gaps(app: &App) -> Answer {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Gaps {
        #[serde(flatten)]
        report: super::gaps::Report,
        not_scraped: Vec<discovery::NotScraped>,
    }
    ok(&Gaps { report: app.gaps.report(), not_scraped: discovery::not_scraped(&app.store.snapshot()) })
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
