//! How the service answered the load: its scale-outs while the load ran, hop by hop, as Beaufort's ledger tells them.

use std::fmt::Write;

use serde::Serialize;
use serde_json::Value;

use super::client::Api;

/// One scale-out whose tasks serve; times in milliseconds, each hop from the end of the one before.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reaction {
    /// When the desired count was set.
    pub decided_at: String,
    pub policy: String,
    pub from: u64,
    pub to: u64,
    /// None for a further answer to a breach that went on: it waited for a cooldown, not for the alarm.
    pub alert_ms: Option<i64>,
    pub decision_ms: Option<i64>,
    pub placed_ms: Option<i64>,
    pub running_ms: Option<i64>,
    pub healthy_ms: Option<i64>,
    pub total_ms: Option<i64>,
}

/// Lines of the ledger that are asked for at once, and how often.
const PAGE: usize = 1_000;
const MOST_PAGES: usize = 100;

/// The ledger's newest line about the service: what is asked for later comes after it.
pub async fn newest(api: &Api, cluster: &str, service: &str) -> anyhow::Result<u64> {
    let told = api.get(&format!("/api/decisions?service={}&limit=1", subject(cluster, service))).await?;
    Ok(told["decisions"][0]["seq"].as_u64().unwrap_or(0))
}

/// The scale-outs that were completed after that line, oldest first. A service in trouble has many lines: they are read page by page.
pub async fn since(api: &Api, cluster: &str, service: &str, after: u64) -> anyhow::Result<Vec<Reaction>> {
    let (mut found, mut before) = (Vec::new(), String::new());
    for _ in 0..MOST_PAGES {
        let path = format!("/api/decisions?service={}&after={after}&limit={PAGE}{before}", subject(cluster, service));
        let told = api.get(&path).await?;
        found.splice(0..0, of_decisions(&told));
        let lines = told["decisions"].as_array().map_or(&[][..], Vec::as_slice);
        let oldest = lines.iter().filter_map(|line| line["seq"].as_u64()).min();
        let (Some(oldest), true) = (oldest, lines.len() >= PAGE) else { return Ok(found) };
        before = format!("&before={oldest}");
    }
    tracing::warn!(service, "the ledger has more lines than are read: the oldest scale-outs are left out");
    Ok(found)
}

fn subject(cluster: &str, service: &str) -> String {
    let plain = |text: &str| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
    format!("{}/{}", plain(cluster), plain(service))
}

fn of_decisions(told: &Value) -> Vec<Reaction> {
    let mut found: Vec<&Value> =
        told["decisions"].as_array().into_iter().flatten().filter(|d| d["code"] == "scale_out_done").collect();
    found.sort_by_key(|d| d["seq"].as_u64());
    let reaction = |decision: &Value| {
        let evidence = &decision["evidence"];
        let ms = |stage: &str| evidence["hops_ms"][stage].as_i64();
        let text = |name: &str| evidence[name].as_str().unwrap_or_default().to_owned();
        Reaction {
            decided_at: text("decided_at"),
            policy: text("policy"),
            from: evidence["from"].as_u64().unwrap_or(0),
            to: evidence["to"].as_u64().unwrap_or(0),
            alert_ms: ms("alert"),
            decision_ms: ms("decision"),
            placed_ms: ms("placed"),
            running_ms: ms("running"),
            healthy_ms: ms("healthy"),
            total_ms: ms("total"),
        }
    };
    found.into_iter().map(reaction).collect()
}

pub fn table(reactions: &[Reaction]) -> String {
    if reactions.is_empty() {
        return "no scale-out was completed during the load\n".to_owned();
    }
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_header([
        "DECIDED (UTC)",
        "DESIRED",
        "POLICY",
        "ALERT S",
        "DECISION S",
        "PLACED S",
        "RUNNING S",
        "HEALTHY S",
        "TOTAL S",
    ]);
    for r in reactions {
        let hops = [r.alert_ms, r.decision_ms, r.placed_ms, r.running_ms, r.healthy_ms, r.total_ms];
        let hops = hops.map(|ms| ms.map_or("-".to_owned(), |ms| format!("{:.2}", ms as f64 / 1e3)));
        let time = r.decided_at.split_once('T').map_or(r.decided_at.as_str(), |(_, time)| time).trim_end_matches('Z').to_owned();
        table.add_row([time, format!("{} -> {}", r.from, r.to), r.policy.clone()].into_iter().chain(hops));
    }
    let mut text = "scale-outs during the load, each hop from the end of the one before\n".to_owned();
    // Writing to a string does not fail.
    let _ = writeln!(text, "{}", table.trim_fmt());
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_ledger_s_lines_become_rows_oldest_first() {
        let done = |seq: u64, from: u32, to: u32, more: Value| {
            let mut hops = json!({"placed": 12, "running": 480, "healthy": 0});
            hops.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let evidence =
                json!({"from": from, "to": to, "policy": "cpu", "decided_at": "2026-11-20T10:23:52.355Z", "hops_ms": hops});
            json!({"seq": seq, "code": "scale_out_done", "evidence": evidence})
        };
        let first = done(7, 1, 3, json!({"alert": 3100, "decision": 8, "total": 3600}));
        let told = json!({"decisions": [done(9, 3, 4, json!({})), {"seq": 8, "code": "scaled_out", "evidence": {}}, first]});
        let reactions = of_decisions(&told);
        assert_eq!(reactions.iter().map(|r| (r.from, r.to, r.alert_ms)).collect::<Vec<_>>(), [(1, 3, Some(3100)), (3, 4, None)]);
        let text = table(&reactions);
        let rows: Vec<Vec<&str>> = text.lines().skip(2).map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[0], ["10:23:52.355", "1", "->", "3", "cpu", "3.10", "0.01", "0.01", "0.48", "0.00", "3.60"]);
        assert_eq!(rows[1][5..], ["-", "-", "0.01", "0.48", "0.00", "-"]);
        assert_eq!(table(&[]), "no scale-out was completed during the load\n");
        assert_eq!(subject("a b", "web"), "a%20b/web");
    }
}
