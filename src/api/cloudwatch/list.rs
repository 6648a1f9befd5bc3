//! ListMetrics: which metrics there are.

use super::shapes::{Dimension, ListMetricsInput, ListMetricsOutput, Metric};
use super::{Cx, errors, token};
use crate::model::Millis;
use crate::model::metric::MetricKey;
use crate::telemetry::metrics::ListFilter;
use crate::wire::fault::Fault;

const PAGE: usize = 500;
const MOST_FILTERS: usize = 10;
/// A metric without data for two weeks is no longer listed; RecentlyActive says three hours.
const LISTED_MS: Millis = 14 * 86_400_000;
const RECENTLY_MS: Millis = 3 * 3_600_000;
const TOKEN: &str = "metrics";

pub async fn list_metrics(cx: Cx, input: ListMetricsInput) -> Result<ListMetricsOutput, Fault> {
    let dimensions = input.dimensions.unwrap_or_default();
    if dimensions.len() > MOST_FILTERS {
        return Err(errors::too_many("Dimensions", MOST_FILTERS));
    }
    let after: Option<MetricKey> = token::read(TOKEN, input.next_token.as_deref())?;
    let active_ms = if input.recently_active.is_some() { RECENTLY_MS } else { LISTED_MS };
    let filter = ListFilter {
        namespace: input.namespace,
        name: input.metric_name,
        dimensions: dimensions.into_iter().map(|d| (d.name, d.value)).collect(),
        active_since: Some(cx.app.clock.now() - active_ms),
    };
    let mut found = cx.app.metrics.list(&filter, after.as_ref(), PAGE + 1);
    let more = found.len() > PAGE;
    found.truncate(PAGE);
    let next_token = found.last().filter(|_| more).map(|last| token::write(TOKEN, last));
    Ok(ListMetricsOutput { metrics: found.iter().map(metric).collect(), next_token })
}

fn metric(key: &MetricKey) -> Metric {
    Metric { namespace: key.namespace.to_string(), metric_name: key.name.to_string(), dimensions: dimensions(key) }
}

pub fn dimensions(key: &MetricKey) -> Vec<Dimension> {
    key.dimensions.iter().map(|(name, value)| Dimension { name: name.to_string(), value: value.to_string() }).collect()
}
