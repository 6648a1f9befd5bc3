//! `GET /api/decisions`: the ledger, newest first, by subject, service and time; `after` follows it.

use serde_json::json;

use super::{Answered, App, Params, bad, ok, unavailable};
use crate::model::{ServiceKey, Timestamp};
use crate::store::{Record, RecordQuery};

pub async fn list(app: &App, params: &Params) -> Answered {
    let time = |name: &str| {
        params
            .get(name)
            .map(|text| Timestamp::parse_iso(text).ok_or_else(|| bad(format!("{name}={text} is no ISO 8601 time"))))
            .transpose()
    };
    let query = RecordQuery {
        subject: params.get("subject").map(str::to_owned),
        service: params.get("service").map(|s| service(s).to_string()),
        since: time("since")?,
        until: time("until")?,
        before: params.number("before")?,
        after: params.number("after")?,
        limit: params.number("limit")?.unwrap_or(100).min(1_000),
        ..RecordQuery::decisions()
    };
    let found = app.store.records(query).await.map_err(unavailable)?;
    Ok(ok(&json!({ "decisions": found.into_iter().filter_map(|(seq, record)| line(seq, record)).collect::<Vec<_>>() })))
}

/// `web`, `CLUSTER/web` or `service/CLUSTER/web`.
pub fn service(text: &str) -> ServiceKey {
    let text = text.strip_prefix("service/").unwrap_or(text);
    let (cluster, name) = text.split_once('/').unwrap_or(("default", text));
    ServiceKey::new(cluster, name)
}

pub fn line(seq: u64, record: Record) -> Option<serde_json::Value> {
    let Record::Decision(decision) = record else { return None };
    Some(json!({
        "seq": seq,
        "at": decision.at.iso(),
        "subject": decision.subject.path(),
        "action": decision.action,
        "code": decision.reason.code,
        "reason": decision.reason.sentence,
        "evidence": decision.reason.evidence,
        "trace": decision.trace,
    }))
}
