use serde_json::{Value, json};

use super::{Client, SECOND};

fn stat(id: &str, metric: &str, stat: &str) -> Value {
    json!({"Id": id, "MetricStat": {"Metric": {"Namespace": "Shop", "MetricName": metric}, "Period": 60, "Stat": stat}})
}

fn data(queries: Value) -> Value {
    json!({"MetricDataQueries": queries, "StartTime": SECOND - 600, "EndTime": SECOND + 60})
}

async fn put(client: &Client, metric: &str, ago_s: i64, value: f64) {
    let datum = json!({"MetricName": metric, "Timestamp": SECOND - ago_s, "Value": value});
    client.ok("PutMetricData", json!({"Namespace": "Shop", "MetricData": [datum]})).await;
}

#[tokio::test]
async fn put_and_read_in_every_protocol() {
    let client = Client::new();
    put(&client, "Orders", 120, 1.0).await;
    let form = "Action=PutMetricData&Version=2010-08-01&Namespace=Shop&MetricData.member.1.MetricName=Orders\
        &MetricData.member.1.Values.member.1=2&MetricData.member.1.Values.member.2=4&MetricData.member.1.Counts.member.1=1\
        &MetricData.member.1.Counts.member.2=2&MetricData.member.1.Timestamp=2026-11-20T12:38:30Z";
    let said = client.query(form).await;
    assert_eq!(said.status, 200, "{}", said.text());
    let set = json!({"SampleCount": 2.0, "Sum": 30.0, "Minimum": 10.0, "Maximum": 20.0});
    let datum = json!({"MetricName": "Orders", "Timestamp": SECOND - 60, "StatisticValues": set, "StorageResolution": 1});
    let (said, _) = client.cbor("PutMetricData", json!({"Namespace": "Shop", "MetricData": [datum]})).await;
    assert_eq!(said.status, 200);

    let asked = data(json!([stat("m1", "Orders", "Sum"), stat("none", "Nothing", "Sum")]));
    let answer = client.ok("GetMetricData", asked.clone()).await;
    let result = &answer["MetricDataResults"][0];
    assert_eq!(result["Id"], "m1");
    assert_eq!(result["Label"], "Orders");
    assert_eq!(result["StatusCode"], "Complete");
    assert_eq!(result["Values"], json!([30.0, 11.0]), "newest first");
    let times: Vec<f64> = result["Timestamps"].as_array().unwrap().iter().map(|t| t.as_f64().unwrap()).collect();
    assert_eq!(times, [(SECOND - 60) as f64, (SECOND - 120) as f64]);
    assert_eq!(answer["MetricDataResults"][1]["Values"], json!([]));

    let (_, answer) = client.cbor("GetMetricData", asked).await;
    assert_eq!(answer["MetricDataResults"][0]["Values"], json!([30.0, 11.0]));

    let form = "Action=GetMetricStatistics&Version=2010-08-01&Namespace=Shop&MetricName=Orders&Period=300\
        &StartTime=2026-11-20T12:35:00Z&EndTime=2026-11-20T12:40:00Z&Statistics.member.1=Sum&Statistics.member.2=SampleCount";
    let text = client.query(form).await.text();
    let point = "<Timestamp>2026-11-20T12:35:00Z</Timestamp><SampleCount>6</SampleCount><Sum>41</Sum><Unit>None</Unit>";
    assert!(text.replace(".0<", "<").contains(point), "{text}");
}

#[tokio::test]
async fn data_that_is_refused() {
    let client = Client::new();
    let value = "InvalidParameterValueException";
    let combination = "InvalidParameterCombinationException";
    let ok = json!({"MetricName": "m", "Value": 1.0});
    let many: Vec<Value> = vec![ok.clone(); 1_001];
    let values: Vec<f64> = vec![1.0; 151];
    let of = |datum: Value| json!({"Namespace": "Shop", "MetricData": [datum]});
    let cases = [
        (json!({"Namespace": "AWS/ECS", "MetricData": [ok]}), value, "The value AWS/ for parameter Namespace is invalid."),
        (json!({"Namespace": ":x", "MetricData": [ok]}), value, "The value :x for parameter Namespace is invalid."),
        (json!({"MetricData": [ok]}), "MissingParameter", "The parameter Namespace is required."),
        (json!({"Namespace": "Shop"}), "MissingParameter", "The parameter MetricData is required."),
        (of(json!({"Value": 1})), "MissingParameter", "The parameter MetricData.member.1.MetricName is required."),
        (
            json!({"Namespace": "Shop", "MetricData": many}),
            value,
            "The collection MetricData must not have a size greater than 1000.",
        ),
        (
            of(json!({"MetricName": "m", "Value": 1, "Values": [1]})),
            combination,
            "The parameters MetricData.member.1.Value and MetricData.member.1.Values are mutually exclusive and you have specified both.",
        ),
        (
            json!({"Namespace": "Shop", "MetricData": [ok, {"MetricName": "m", "Values": [1], "Counts": [1, 2]}]}),
            value,
            "The parameters MetricData.member.2.Values and MetricData.member.2.Counts must be of the same size.",
        ),
        (of(json!({"MetricName": "m"})), combination, "At least one of the parameters must be specified."),
        (
            of(json!({"MetricName": "m", "Values": values})),
            value,
            "The collection MetricData.member.1.Values must not have a size greater than 150.",
        ),
        (
            of(json!({"MetricName": "m", "Value": "NaN"})),
            value,
            "The value NaN for parameter MetricData.member.1.Value is invalid.",
        ),
        (
            of(json!({"MetricName": "m", "Value": 1e300})),
            value,
            "The value 1e300 for parameter MetricData.member.1.Value is invalid.",
        ),
        (
            of(json!({"MetricName": "m", "Value": 1, "StorageResolution": 30})),
            value,
            "The value 30 for parameter MetricData.member.1.StorageResolution is invalid.",
        ),
        (
            of(json!({"MetricName": "m", "Value": 1, "Timestamp": SECOND - 15 * 86_400})),
            value,
            "The parameter MetricData.member.1.Timestamp must specify a time within the past two weeks.",
        ),
        (
            of(json!({"MetricName": "m", "Value": 1, "Timestamp": SECOND + 7_300})),
            value,
            "The parameter MetricData.member.1.Timestamp must specify a time no more than two hours in the future.",
        ),
        (
            of(json!({"MetricName": "m", "Value": 1, "Dimensions": [{"Name": "host", "Value": ""}]})),
            "MissingParameter",
            "The parameter MetricData.member.1.Dimensions.member.1.Value is required.",
        ),
    ];
    for (input, code, message) in cases {
        client.refused("PutMetricData", input, code, message).await;
    }
    assert_eq!(client.app().metrics.stats().points_accepted, 0, "one bad datum refuses all");
}

#[tokio::test]
async fn an_error_in_every_protocol() {
    let client = Client::new();
    let input = json!({"Namespace": "Shop", "MetricData": [{"MetricName": "m", "Value": 1, "Values": [1]}]});
    let query_error = "InvalidParameterCombination;Sender";
    let said = client.json("PutMetricData", input.clone()).await;
    assert_eq!((said.status, said.query_error.as_str()), (400, query_error));
    let (said, body) = client.cbor("PutMetricData", input).await;
    assert_eq!((said.status, said.query_error.as_str()), (400, query_error));
    assert_eq!(body["__type"], "InvalidParameterCombinationException");
    let form = "Action=PutMetricData&Version=2010-08-01&Namespace=Shop&MetricData.member.1.MetricName=m\
        &MetricData.member.1.Value=1&MetricData.member.1.Values.member.1=1";
    let said = client.query(form).await;
    assert_eq!(said.status, 400);
    assert!(said.text().contains("<Type>Sender</Type><Code>InvalidParameterCombination</Code>"), "{}", said.text());
}

#[tokio::test]
async fn metric_data_comes_in_pages() {
    let client = Client::new();
    for minute in 1..=3 {
        put(&client, "A", minute * 60, minute as f64).await;
        put(&client, "B", minute * 60, minute as f64 * 10.0).await;
    }
    for (scan, expected) in [
        ("TimestampDescending", [("a", 1.0), ("a", 2.0), ("a", 3.0), ("b", 10.0), ("b", 20.0), ("b", 30.0)]),
        ("TimestampAscending", [("a", 3.0), ("a", 2.0), ("a", 1.0), ("b", 30.0), ("b", 20.0), ("b", 10.0)]),
    ] {
        for size in [1, 2, 3, 4, 100] {
            let mut seen: Vec<(String, f64)> = Vec::new();
            let mut token = Value::Null;
            loop {
                let mut hidden = stat("hidden", "A", "Sum");
                hidden["ReturnData"] = json!(false);
                let mut input = data(json!([stat("a", "A", "Sum"), hidden, stat("b", "B", "Sum")]));
                input["MaxDatapoints"] = json!(size);
                input["ScanBy"] = json!(scan);
                if !token.is_null() {
                    input["NextToken"] = token;
                }
                let answer = client.ok("GetMetricData", input).await;
                let before = seen.len();
                for result in answer["MetricDataResults"].as_array().unwrap() {
                    let id = result["Id"].as_str().unwrap();
                    seen.extend(result["Values"].as_array().unwrap().iter().map(|v| (id.to_owned(), v.as_f64().unwrap())));
                }
                assert!(seen.len() - before <= size, "a page of {size}");
                token = answer["NextToken"].clone();
                if token.is_null() {
                    break;
                }
            }
            let expected: Vec<(String, f64)> = expected.iter().map(|(id, v)| (id.to_string(), *v)).collect();
            assert_eq!(seen, expected, "{scan}, {size} a page");
        }
    }
}

#[tokio::test]
async fn metric_data_that_is_refused() {
    let client = Client::new();
    let one = stat("m1", "A", "Sum");
    let mut odd = stat("m1", "A", "Sum");
    odd["MetricStat"]["Period"] = json!(7);
    let cases = [
        (data(json!([one, one])), "The values for parameter id in MetricDataQueries are not unique."),
        (
            data(json!([stat("M1", "A", "Sum")])),
            "The value M1 for parameter MetricDataQueries.member.1.Id is not matching the expected pattern ^[a-z][a-zA-Z0-9_]*$.",
        ),
        (
            data(json!([{"Id": "e1", "Expression": "SEARCH('x', 'Sum')"}])),
            "Error in expression 'e1': metric math, SEARCH and Metrics Insights are not served in this release; \
             ask for the metric itself with MetricStat",
        ),
        (
            data(json!([{"Id": "e1"}])),
            "Either the parameter MetricDataQueries.member.1.MetricStat or MetricDataQueries.member.1.Expression must be specified.",
        ),
        (
            data(json!([odd])),
            "The parameter MetricDataQueries.member.1.MetricStat.Period must be 1, 5, 10, 20, 30 or a multiple of 60.",
        ),
        (
            json!({"MetricDataQueries": [one], "StartTime": SECOND, "EndTime": SECOND}),
            "The parameter StartTime must be less than the parameter EndTime.",
        ),
    ];
    for (input, message) in cases {
        client.refused("GetMetricData", input, "ValidationException", message).await;
    }
    let mut bad = data(json!([one]));
    bad["NextToken"] = json!("nonsense");
    client.refused("GetMetricData", bad, "InvalidNextToken", "The specified next token is not valid.").await;
}

#[tokio::test]
async fn statistics_keep_units_apart() {
    let client = Client::new();
    for (unit, value) in [("Bytes", 1.0), ("Bytes", 3.0), ("Seconds", 5.0)] {
        let datum = json!({"MetricName": "m", "Value": value, "Unit": unit});
        client.ok("PutMetricData", json!({"Namespace": "Shop", "MetricData": [datum]})).await;
    }
    let ask = |more: Value| {
        let mut input =
            json!({"Namespace": "Shop", "MetricName": "m", "StartTime": SECOND, "EndTime": SECOND + 60, "Period": 60});
        input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        input
    };
    let answer = client.ok("GetMetricStatistics", ask(json!({"Statistics": ["Average", "Maximum"]}))).await;
    assert_eq!(answer["Label"], "m");
    let points = answer["Datapoints"].as_array().unwrap();
    let said: Vec<_> = points.iter().map(|p| (&p["Unit"], &p["Average"], &p["Maximum"])).collect();
    assert_eq!(said, [(&json!("Bytes"), &json!(2.0), &json!(3.0)), (&json!("Seconds"), &json!(5.0), &json!(5.0))]);
    assert!(points[0].get("Sum").is_none() && points[0].get("ExtendedStatistics").is_none());
    let answer = client.ok("GetMetricStatistics", ask(json!({"Unit": "Seconds", "ExtendedStatistics": ["p99.9"]}))).await;
    let p = answer["Datapoints"][0]["ExtendedStatistics"]["p99.9"].as_f64().unwrap();
    assert!((p - 5.0).abs() < 0.1, "{p}");
    assert_eq!(
        client.ok("GetMetricStatistics", ask(json!({"Unit": "Count", "Statistics": ["Sum"]}))).await["Datapoints"],
        json!([])
    );

    let (value, combination) = ("InvalidParameterValueException", "InvalidParameterCombinationException");
    let sum = json!({"Statistics": ["Sum"]});
    let mut back = ask(sum.clone());
    back["EndTime"] = json!(SECOND);
    client.refused("GetMetricStatistics", back, value, "The parameter StartTime must be less than the parameter EndTime.").await;
    let mut long = ask(sum);
    long["EndTime"] = json!(SECOND + 86_400);
    long["Period"] = json!(1);
    let limit = "You have requested up to 86400 datapoints, which exceeds the limit of 1440. You may reduce the datapoints requested by increasing Period, or decreasing the time range.";
    client.refused("GetMetricStatistics", long, combination, limit).await;
    let neither = "At least one of the parameters Statistics and ExtendedStatistics must be specified.";
    client.refused("GetMetricStatistics", ask(json!({})), combination, neither).await;
    let odd = "The value tm99 for parameter ExtendedStatistics is not supported.";
    client.refused("GetMetricStatistics", ask(json!({"ExtendedStatistics": ["tm99"]})), value, odd).await;
}

#[tokio::test]
async fn metrics_are_listed_in_pages_and_by_dimensions() {
    let client = Client::new();
    let datum = |n: usize| json!({"MetricName": "m", "Value": 1, "Dimensions": [{"Name": "host", "Value": format!("h{n:04}")}, {"Name": "zone", "Value": "a"}]});
    let all: Vec<Value> = (0..501).map(datum).collect();
    client.ok("PutMetricData", json!({"Namespace": "Shop", "MetricData": all})).await;
    client.ok("PutMetricData", json!({"Namespace": "Other", "MetricData": [{"MetricName": "m", "Value": 1}]})).await;
    let first = client.ok("ListMetrics", json!({"Namespace": "Shop"})).await;
    assert_eq!(first["Metrics"].as_array().unwrap().len(), 500);
    let rest = client.ok("ListMetrics", json!({"Namespace": "Shop", "NextToken": first["NextToken"]})).await;
    assert_eq!(rest["Metrics"].as_array().unwrap().len(), 1);
    assert_eq!(rest["Metrics"][0]["Dimensions"][0], json!({"Name": "host", "Value": "h0500"}));
    assert!(rest.get("NextToken").is_none());
    let one = client.ok("ListMetrics", json!({"Dimensions": [{"Name": "host", "Value": "h0007"}]})).await;
    assert_eq!(one["Metrics"].as_array().unwrap().len(), 1);
    client.clock.advance(4 * 3_600_000);
    assert_eq!(client.ok("ListMetrics", json!({"RecentlyActive": "PT3H"})).await["Metrics"], json!([]));
    assert_ne!(client.ok("ListMetrics", json!({})).await["Metrics"], json!([]));
    client.clock.advance(15 * 86_400_000);
    assert_eq!(client.ok("ListMetrics", json!({})).await["Metrics"], json!([]), "silent for two weeks");
    let odd = "1 validation error detected: Value 'PT1H' at 'recentlyActive' failed to satisfy constraint: Member must satisfy enum value set: [PT3H]";
    client.refused("ListMetrics", json!({"RecentlyActive": "PT1H"}), "ValidationException", odd).await;
}
