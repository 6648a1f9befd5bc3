//! CloudWatch: metrics in and out, and alarms on them. Three protocols over one table.
//!
//! Owns CloudWatch's shapes, limits and words. Data is `telemetry::metrics`', an alarm's rules are `decide::alarm`'s, and its
//! evaluation is a control loop's: what is written here is seen there as a commit. Metric math, anomaly detection, composite and
//! log alarms are refused by name. Start at [`service`].

mod alarms;
mod alarms_read;
mod alarms_set;
mod errors;
mod list;
mod metric;
mod put;
mod query;
mod shapes;
mod statistics;
mod tags;
#[cfg(test)]
pub(super) mod tests;
mod token;

use super::{App, Cx};
use crate::store::Tx;
use crate::wire::fault::Fault;
use crate::wire::service::Service;

pub use alarms::read as read_alarm;

pub fn service() -> Service<App> {
    Service::new("monitoring")
        .target("GraniteServiceVersion20100801")
        .json10()
        .query("2010-08-01", "http://monitoring.amazonaws.com/doc/2010-08-01/")
        .query_compatible()
        .refuse(errors::refuse)
        .op("PutMetricData", put::put_metric_data)
        .op("GetMetricData", query::get_metric_data)
        .op("GetMetricStatistics", statistics::get_metric_statistics)
        .op("ListMetrics", list::list_metrics)
        .op("PutMetricAlarm", alarms::put)
        .op("DeleteAlarms", alarms::delete)
        .op("SetAlarmState", alarms_set::set_state)
        .op("EnableAlarmActions", alarms_set::enable_actions)
        .op("DisableAlarmActions", alarms_set::disable_actions)
        .op("DescribeAlarms", alarms_read::describe)
        .op("DescribeAlarmsForMetric", alarms_read::describe_for_metric)
        .op("DescribeAlarmHistory", alarms_read::history)
        .op("TagResource", tags::tag)
        .op("UntagResource", tags::untag)
        .op("ListTagsForResource", tags::list)
}

/// See [`super::update`].
async fn update<T: Send + 'static>(
    cx: &Cx,
    operation: &str,
    change: impl FnOnce(&mut Tx, &App) -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    super::update(cx, format!("cloudwatch {operation}"), &errors::INTERNAL, change).await
}
