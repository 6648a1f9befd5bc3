//! The AWS SDK for Rust, which speaks CBOR to CloudWatch, against a whole Beaufort in this process.

use std::time::Duration;

use aws_sdk_cloudwatch::Client;
use aws_sdk_cloudwatch::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_cloudwatch::primitives::DateTime;
use aws_sdk_cloudwatch::types::{
    ComparisonOperator, Dimension, Metric, MetricDataQuery, MetricDatum, MetricStat, StateValue, Statistic,
};
use beaufort::app::{self, Config, Core};
use beaufort::clock::{Clock, SystemClock};

async fn serve() -> (app::Running, Client) {
    let config = Config { listen: "127.0.0.1:0".parse().unwrap(), ..Config::default() };
    let running = app::start(Core::open(config, false).await.unwrap()).await.unwrap();
    let client = Client::from_conf(
        aws_sdk_cloudwatch::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new("test", "test", None, None, "test"))
            .endpoint_url(format!("http://{}", running.address))
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .build(),
    );
    (running, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cbor_client_puts_gets_and_is_refused() {
    let (running, client) = serve().await;
    let dimension = Dimension::builder().name("Service").value("web").build();
    let now = SystemClock.now().0 / 1_000;
    let datum = |value: f64, at: i64| {
        MetricDatum::builder()
            .metric_name("Latency")
            .dimensions(dimension.clone())
            .value(value)
            .storage_resolution(1)
            .timestamp(DateTime::from_secs(at))
            .build()
    };
    let values = [0.1, 0.2, 1e100];
    let data = values.iter().enumerate().map(|(n, v)| datum(*v, now - 10 + n as i64)).collect();
    client.put_metric_data().namespace("Rust").set_metric_data(Some(data)).send().await.unwrap();

    let metric = Metric::builder().namespace("Rust").metric_name("Latency").dimensions(dimension).build();
    let stat = MetricStat::builder().metric(metric).period(1).stat("Average").build();
    let answer = client
        .get_metric_data()
        .start_time(DateTime::from_secs(now - 60))
        .end_time(DateTime::from_secs(now + 1))
        .metric_data_queries(MetricDataQuery::builder().id("q").metric_stat(stat).build())
        .send()
        .await
        .unwrap();
    let result = &answer.metric_data_results()[0];
    assert_eq!(result.values(), [1e100, 0.2, 0.1], "newest first, to the bit");
    assert_eq!(result.timestamps()[2], DateTime::from_secs(now - 10));

    client
        .put_metric_alarm()
        .alarm_name("slow")
        .namespace("Rust")
        .metric_name("Latency")
        .statistic(Statistic::Average)
        .period(60)
        .evaluation_periods(1)
        .threshold(0.5)
        .comparison_operator(ComparisonOperator::GreaterThanThreshold)
        .send()
        .await
        .unwrap();
    let alarms = client.describe_alarms().alarm_names("slow").send().await.unwrap();
    assert_eq!(alarms.metric_alarms()[0].threshold(), Some(0.5));

    let refused =
        client.set_alarm_state().alarm_name("none").state_value(StateValue::Ok).state_reason("x").send().await.unwrap_err();
    assert!(refused.into_service_error().is_resource_not_found());
    tokio::time::timeout(Duration::from_secs(20), running.stop()).await.unwrap();
}
