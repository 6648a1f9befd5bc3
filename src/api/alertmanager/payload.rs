//! Alertmanager's webhook body, version 4. Members that we do not know are none of our business: newer versions have more.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::decide::alert::Alert;
use crate::model::{Millis, Timestamp};

/// Longer texts than any rule has; what is longer would only fill the store.
const MOST_TEXT: usize = 2_048;
const MOST_LABELS: usize = 64;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    version: String,
    group_key: String,
    #[serde(default)]
    truncated_alerts: u64,
    alerts: Vec<Told>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    status: String,
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    starts_at: String,
    #[serde(default)]
    ends_at: String,
    #[serde(rename = "generatorURL", default)]
    generator_url: String,
    fingerprint: String,
}

pub struct Message {
    pub alerts: Vec<Alert>,
    /// Alerts that Alertmanager left out of the message (its `max_alerts`).
    pub truncated: u64,
}

/// What cannot be read is told in words that lead to the place.
pub fn read(body: &[u8], repeat_ms: Millis) -> Result<Message, String> {
    let value: serde_json::Value = serde_json::from_slice(body).map_err(|e| format!("the body is no JSON: {e}"))?;
    // Before the rest: a body of another version may well have other members.
    match value.get("version").and_then(|v| v.as_str()) {
        Some("4") => {}
        Some(other) => return Err(format!("the body is of version {other:?}; only Alertmanager's version 4 is read")),
        None => return Err("the body has no version; Alertmanager's webhook bodies have \"version\": \"4\"".to_owned()),
    }
    let body: Body = serde_json::from_value(value).map_err(|e| format!("the body is not as Alertmanager's version 4 is: {e}"))?;
    debug_assert_eq!(body.version, "4");
    let (group_key, truncated) = (body.group_key, body.truncated_alerts);
    let alerts: Result<Vec<Alert>, String> =
        body.alerts.into_iter().enumerate().map(|(n, told)| alert(told, n, &group_key, repeat_ms)).collect();
    Ok(Message { alerts: alerts?, truncated })
}

fn alert(told: Told, n: usize, group_key: &str, repeat_ms: Millis) -> Result<Alert, String> {
    let firing = match told.status.as_str() {
        "firing" => true,
        "resolved" => false,
        other => return Err(format!("alerts[{n}].status is {other:?}; it is firing or resolved")),
    };
    let starts_at = Timestamp::parse_iso(&told.starts_at)
        .ok_or_else(|| format!("alerts[{n}].startsAt is {:?}, which is no time", short(&told.starts_at)))?;
    let fingerprint = told.fingerprint;
    if fingerprint.is_empty() || fingerprint.len() > 64 || !fingerprint.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Err(format!("alerts[{n}].fingerprint is {:?}; it is a hash in letters and digits", short(&fingerprint)));
    }
    if told.labels.len() > MOST_LABELS {
        return Err(format!("alerts[{n}] has {} labels; {MOST_LABELS} are read", told.labels.len()));
    }
    let bounded = |map: BTreeMap<String, String>| map.into_iter().map(|(k, v)| (short(&k), short(&v))).collect();
    // Of the annotations only those that mean something to us are kept.
    let annotations = told.annotations.into_iter().filter(|(k, _)| ["value", "threshold"].contains(&k.as_str())).collect();
    Ok(Alert {
        firing,
        labels: bounded(told.labels),
        annotations: bounded(annotations),
        starts_at,
        // Of one that fires it is the year 1.
        ends_at: Timestamp::parse_iso(&told.ends_at).filter(|_| !firing),
        fingerprint,
        group_key: short(group_key),
        generator_url: short(&told.generator_url),
        repeat_ms,
    })
}

fn short(text: &str) -> String {
    let end = (0..=MOST_TEXT.min(text.len())).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn body() -> serde_json::Value {
        json!({
            "receiver": "beaufort", "status": "firing", "version": "4", "groupKey": "{}:{a=\"b\"}", "truncatedAlerts": 2, "externalURL": "http://a",
            "notification_reason": "newer versions say more",
            "alerts": [{
                "status": "firing", "labels": {"alertname": "High", "cluster": "demo"}, "annotations": {"value": "250", "summary": "s"},
                "startsAt": "2026-11-20T11:23:52.355678901+01:00", "endsAt": "0001-01-01T00:00:00Z", "generatorURL": "http://p", "fingerprint": "b41e2f2618c6a90f",
            }],
        })
    }

    fn why(change: impl FnOnce(&mut serde_json::Value)) -> String {
        let mut body = body();
        change(&mut body);
        read(body.to_string().as_bytes(), 1).err().unwrap_or_default()
    }

    #[test]
    fn a_body_as_alertmanager_sends_it() {
        let message = read(body().to_string().as_bytes(), 30_000).unwrap();
        assert_eq!((message.truncated, message.alerts.len()), (2, 1));
        let alert = &message.alerts[0];
        assert_eq!((alert.firing, alert.rule(), alert.starts_at.iso().as_str()), (true, "High", "2026-11-20T10:23:52.355Z"));
        assert_eq!(alert.ends_at, None);
        assert_eq!((alert.group_key.as_str(), alert.repeat_ms), ("{}:{a=\"b\"}", 30_000));
        assert_eq!(alert.annotations.keys().collect::<Vec<_>>(), ["value"]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (expected, change) in [
            (
                "version \"3\"",
                Box::new(|b: &mut serde_json::Value| b["version"] = json!("3")) as Box<dyn FnOnce(&mut serde_json::Value)>,
            ),
            ("has no version", Box::new(|b| b["version"] = json!(4))),
            ("missing field `groupKey`", Box::new(|b| drop(b.as_object_mut().unwrap().remove("groupKey")))),
            ("alerts[0].status is \"pending\"", Box::new(|b| b["alerts"][0]["status"] = json!("pending"))),
            ("alerts[0].startsAt is \"soon\"", Box::new(|b| b["alerts"][0]["startsAt"] = json!("soon"))),
            ("alerts[0].fingerprint is \"\"", Box::new(|b| b["alerts"][0]["fingerprint"] = json!(""))),
            ("invalid type", Box::new(|b| b["alerts"] = json!({}))),
            ("has 65 labels", Box::new(|b| b["alerts"][0]["labels"] = (0..65).map(|n| (n.to_string(), json!("x"))).collect())),
        ] {
            let said = why(change);
            assert!(said.contains(expected), "{said:?} should say {expected:?}");
        }
        assert!(read(b"{", 1).err().unwrap().starts_with("the body is no JSON"));
        assert_eq!(short(&"é".repeat(3_000)).len(), MOST_TEXT, "cut between characters");
    }
}
