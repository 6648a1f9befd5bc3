//! Vectors for the wire: one service with a shape of everything, and a few real operations of each protocol, over every way in and out.

mod services;

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use serde::de::DeserializeOwned;

use super::decode::{Unknown, decode};
use super::encode::encode;
use super::node::{MAX_NODES, Node};
use super::service::Service;
use super::types::{Blob, TIMESTAMP, Timestamp};
use super::{MAX_BODY, Wire, cbor, form, json, xml};
use crate::wire::tests::services::probe::{Choice, Everything, Kind, Nested};
use crate::wire::tests::services::{App, all};

fn everything() -> Everything {
    let nested =
        Nested { name: Some("n".to_owned()), deeper: Some(Box::new(Everything { int: Some(-1), ..Default::default() })) };
    Everything {
        text: Some("<é&\"\\ \r\n>".to_owned()),
        int: Some(i32::MIN),
        long: Some(i64::MAX),
        double: Some(0.1),
        flag: Some(false),
        at: Some(Timestamp(1_795_168_801_123)),
        blob: Some(Blob(vec![0, 255, 16])),
        names: Some(vec!["a".to_owned(), String::new()]),
        stamps: Some(vec![Timestamp(0), Timestamp(-1500)]),
        tags: Some(BTreeMap::from([("k.1".to_owned(), "v".to_owned())])),
        nested: Some(vec![nested.clone(), Nested::default()]),
        by_name: Some(BTreeMap::from([("x".to_owned(), nested.clone())])),
        choice: Some(Choice::Left(nested)),
        kind: Some(Kind::Two),
    }
}

const FORM: &str = "Text=%3C%C3%A9%26%22%5C+%0D%0A%3E&Int=-2147483648&Long=9223372036854775807&Double=0.1&Flag=false\
    &At=2026-11-20T10%3A00%3A01.123Z&Blob=AP8Q&Names.member.1=a&Names.member.2=&Stamps.member.1=1970-01-01T00:00:00Z\
    &Stamps.member.2=1969-12-31T23:59:58.5Z&Tags.entry.1.key=k.1&Tags.entry.1.value=v&Nested.member.1.Name=n\
    &Nested.member.1.Deeper.Int=-1&Nested.member.2=&ByName.entry.1.key=x&ByName.entry.1.value.Name=n\
    &ByName.entry.1.value.Deeper.Int=-1&Choice.Left.Name=n&Choice.Left.Deeper.Int=-1&Kind=T/Two";

fn from_form<T: DeserializeOwned>(text: &str) -> Result<T, super::decode::Error> {
    decode(form::tree(form::parse(text.as_bytes())).unwrap(), &Unknown::default())
}

fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, super::decode::Error> {
    decode(json::parse(text.as_bytes()).unwrap(), &Unknown::default())
}

fn refusal<T: DeserializeOwned + std::fmt::Debug>(text: &str) -> String {
    from_json::<T>(text).unwrap_err().to_string()
}

#[test]
fn one_shape_survives_json_and_cbor_both_ways() {
    let (mut j, mut c) = (json::Json::default(), cbor::Cbor::default());
    encode(&everything(), &mut j).unwrap();
    encode(&everything(), &mut c).unwrap();
    assert_eq!(decode::<Everything>(json::parse(&j.0).unwrap(), &Unknown::default()).unwrap(), everything());
    assert_eq!(decode::<Everything>(cbor::parse(&c.0).unwrap(), &Unknown::default()).unwrap(), everything());
    let text = String::from_utf8(j.0).unwrap();
    assert!(text.contains(r#""At":1795168801.123,"Blob":"AP8Q""#), "{text}");
    assert!(text.contains(r#""Long":9223372036854775807,"Double":0.1"#), "{text}");
    assert!(!text.contains("null"), "{text}");
}

#[test]
fn a_form_decodes_by_the_types_of_the_shape() {
    assert_eq!(from_form::<Everything>(FORM).unwrap(), everything());
}

#[test]
fn xml_is_what_query_clients_read() {
    let mut x = xml::Xml::default();
    encode(&everything(), &mut x).unwrap();
    let text = x.text;
    assert!(text.starts_with("<Text>&lt;é&amp;\"\\ &#13;\n&gt;</Text><Int>-2147483648</Int>"), "{text}");
    assert!(
        text.contains("<At>2026-11-20T10:00:01.123Z</At><Blob>AP8Q</Blob><Names><member>a</member><member></member></Names>"),
        "{text}"
    );
    assert!(text.contains("<Tags><entry><key>k.1</key><value>v</value></entry></Tags>"), "{text}");
    assert!(
        text.contains("<Nested><member><Name>n</Name><Deeper><Int>-1</Int></Deeper></member><member></member></Nested>"),
        "{text}"
    );
    assert!(text.contains("<ByName><entry><key>x</key><value><Name>n</Name>"), "{text}");
    assert!(
        text.ends_with("<Choice><Left><Name>n</Name><Deeper><Int>-1</Int></Deeper></Left></Choice><Kind>T/Two</Kind>"),
        "{text}"
    );
}

#[test]
fn lists_in_forms() {
    let names =
        |text: &str| from_form::<Everything>(text).map(|e| e.names.map(|n| n.join(",")).unwrap_or_else(|| "absent".to_owned()));
    let order = "Names.member.10=c&Names.member.2=b&Names.member.1=a";
    assert_eq!(names(order).unwrap(), "a,b,c");
    assert_eq!(names("Names.1=a&Names.2=b").unwrap(), "a,b");
    assert_eq!(names("Names.Item.1=a").unwrap(), "a");
    assert_eq!(names("Names=").unwrap(), "");
    assert_eq!(names("").unwrap(), "absent");
    assert_eq!(names("Names.member.4000000000=a&Names.member.7=b").unwrap(), "b,a");
    assert!(names("Names=a").is_err());
    assert!(form::tree(form::parse(b"Names=a&Names.member.1=b")).is_err());
}

#[test]
fn numbers_keep_their_value_or_are_refused() {
    let int = |t: &str| from_json::<Everything>(&format!("{{\"Int\":{t}}}")).ok().and_then(|e| e.int);
    assert_eq!(
        (int("5"), int("5.0"), int("5.5"), int("2147483648"), int("\"5\""), int("true")),
        (Some(5), Some(5), None, None, None, None)
    );
    let long = |t: &str| from_json::<Everything>(&format!("{{\"Long\":{t}}}")).ok().and_then(|e| e.long);
    assert_eq!((long("9223372036854775807"), long("9223372036854775808")), (Some(i64::MAX), None));
    let double = |t: &str| from_json::<Everything>(&format!("{{\"Double\":{t}}}")).ok().and_then(|e| e.double);
    assert_eq!((double("1"), double("\"-Infinity\""), double("\"1\"")), (Some(1.0), Some(f64::NEG_INFINITY), None));
    assert_eq!(double("122.416294033786585"), "122.416294033786585".parse().ok());
    let text = |t: &str| from_form::<Everything>(t).ok().and_then(|e| e.double);
    assert_eq!((text("Double=1e3"), text("Double=inf"), text("Double=Infinity")), (Some(1000.0), None, Some(f64::INFINITY)));
    for bits in [0x3c00u16, 0x0001, 0xfbff] {
        assert!(cbor::parse(&[0xf9, (bits >> 8) as u8, bits as u8]).is_ok());
    }
    assert_eq!(cbor::parse(&[0xf9, 0x3e, 0x00]).unwrap(), Node::Float(1.5));
}

#[test]
fn null_is_absent_and_unknown_members_are_counted() {
    let unknown = Unknown::default();
    let text = r#"{"Text":null,"Extra":{"a":[1,2]},"Nested":[{"Name":"n","Odd":1}],"Tags":{"a":null,"b":"c"}}"#;
    let got: Everything = decode(json::parse(text.as_bytes()).unwrap(), &unknown).unwrap();
    assert_eq!((got.text, got.tags.unwrap().len()), (None, 1));
    assert_eq!(unknown.into_inner(), (2, vec!["Everything.Extra".to_owned(), "Nested.Odd".to_owned()]));
}

#[test]
fn refusals_say_where() {
    use crate::wire::tests::services::cloudwatch::PutMetricDataInput;
    assert_eq!(
        refusal::<PutMetricDataInput>(r#"{"Namespace":"n","MetricData":[{"MetricName":"m"},{"Value":1}]}"#),
        "Value null at 'MetricData.2.member.MetricName' failed to satisfy constraint: Member must not be null"
    );
    assert!(
        refusal::<Everything>(r#"{"Kind":"Three"}"#).contains("'Three' at 'Kind'")
            && refusal::<Everything>(r#"{"Kind":"Three"}"#).contains("[One, T/Two]")
    );
    assert_eq!(refusal::<Everything>(r#"{"Names":[1]}"#), "invalid type: integer `1`, expected a string at 'Names.1.member'");
    assert!(refusal::<Everything>(r#"{"Choice":{"Left":{},"Right":1}}"#).contains("exactly one member"));
}

#[test]
fn timestamp_carries_its_mark() {
    struct Name(&'static str);
    impl super::encode::Sink for Name {
        fn key(&mut self, _: &str) {}
        fn open_structure(&mut self) {}
        fn close_structure(&mut self) {}
        fn open_list(&mut self) {}
        fn close_list(&mut self) {}
        fn boolean(&mut self, _: bool) {}
        fn integer(&mut self, _: i64) {}
        fn double(&mut self, _: f64) {}
        fn string(&mut self, _: &str) {}
        fn blob(&mut self, _: &[u8]) {}
        fn timestamp(&mut self, _: i64) {
            self.0 = TIMESTAMP;
        }
    }
    let mut name = Name("");
    encode(&Timestamp(1), &mut name).unwrap();
    assert_eq!(name.0, TIMESTAMP);
    // Through plain serde_json, as in our own files, it is the integer.
    assert_eq!(serde_json::to_string(&Timestamp(1500)).unwrap(), "1500");
    assert_eq!(serde_json::from_str::<Timestamp>("1500").unwrap(), Timestamp(1500));
}

/// The trap that bans `flatten`: the shape's types no longer reach the form.
#[test]
fn flatten_loses_the_types() {
    #[derive(serde::Deserialize, Debug)]
    #[allow(dead_code)]
    struct Inner {
        int: i32,
    }
    #[derive(serde::Deserialize, Debug)]
    #[allow(dead_code)]
    struct Outer {
        #[serde(flatten)]
        inner: Inner,
    }
    assert!(from_json::<Outer>(r#"{"int":1}"#).is_ok());
    assert!(from_form::<Outer>("int=1").is_err());
}

#[test]
fn hostile_bodies_are_bounded() {
    assert!(json::parse("[".repeat(100_000).as_bytes()).is_err());
    assert!(cbor::parse(&[0x9f].repeat(100_000)).is_err());
    assert!(cbor::parse(&[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).is_err());
    assert!(cbor::parse(&[0x5b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).is_err());
    assert!(cbor::parse(&[0xc1].repeat(100_000)).is_err());
    assert!(form::tree(form::parse("a.".repeat(100_000).as_bytes())).is_err());
    assert!(form::tree(form::parse("&a=".repeat(MAX_NODES + 1).as_bytes())).is_err());
    assert!(json::parse(format!("[{}0]", "0,".repeat(MAX_NODES)).as_bytes()).is_err());
    assert!(cbor::parse(&[0x00, 0x00]).is_err() && json::parse(b"{} {}").is_err());
}

// ---- whole requests ----

fn wire() -> Wire<App> {
    Wire { app: Arc::new(App::default()), services: all(), observe: |_, _| {}, span: |_, _, _| tracing::Span::none() }
}

async fn send(headers: &[(&str, &str)], method: &str, uri: &str, body: impl Into<Bytes>) -> Response<Bytes> {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (head, ()) = request.body(()).unwrap().into_parts();
    wire().answer(head, body.into()).await
}

const FORM_TYPE: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

fn text(response: &Response<Bytes>) -> &str {
    std::str::from_utf8(response.body()).unwrap()
}

#[tokio::test]
async fn a_panic_is_an_answer() {
    for (headers, uri) in [
        (vec![("x-amz-target", "Probe.Panic")], "/"),
        (vec![("smithy-protocol", "rpc-v2-cbor")], "/service/Probe/operation/Panic"),
    ] {
        let response = send(&headers, "POST", uri, "").await;
        assert_eq!(response.status(), 500);
        assert!(response.headers().contains_key("x-amzn-requestid"));
        assert!(String::from_utf8_lossy(response.body()).contains("InternalFailure"));
    }
}

#[tokio::test]
async fn rest_labels_and_parameters_become_members() {
    let response = send(&[], "GET", "/probe/arn%3Aaws%2Fx?long=7&name=a&name=b", "").await;
    assert_eq!(text(&response), r#"{"Text":"arn:aws/x","Long":7,"Names":["a","b"]}"#);
    let response = send(&[], "GET", "/nowhere", "").await;
    assert_eq!(response.headers()["x-amzn-errortype"], "UnknownOperationException");
}

#[tokio::test]
async fn query_by_version_by_scope_and_by_get() {
    let response = send(&[FORM_TYPE], "POST", "/", "Action=Echo&Version=2026-11-20&Int=4").await;
    let want = "<EchoResponse xmlns=\"urn:probe\"><EchoResult><Int>4</Int></EchoResult><ResponseMetadata><RequestId>";
    assert!(text(&response).starts_with(want), "{}", text(&response));
    let response = send(&[], "GET", "/?Action=Echo&Version=2026-11-20&Int=4&X-Amz-Signature=abc", "").await;
    assert!(text(&response).starts_with(want));
    let scope = (
        "authorization",
        "AWS4-HMAC-SHA256 Credential=AK/20261120/eu-west-1/monitoring/aws4_request, SignedHeaders=host, Signature=x",
    );
    let response = send(&[FORM_TYPE, scope], "POST", "/", "Action=DescribeAlarms").await;
    assert!(text(&response).contains(
        "<DescribeAlarmsResult><CompositeAlarms></CompositeAlarms><MetricAlarms></MetricAlarms></DescribeAlarmsResult>"
    ));
    let response = send(&[FORM_TYPE], "POST", "/", "Action=Nope&Version=2010-08-01").await;
    assert!(text(&response).contains("<Error><Type>Sender</Type><Code>InvalidAction</Code>"), "{}", text(&response));
}

#[tokio::test]
async fn gzip_is_inflated_within_the_cap() {
    let gzip = |bytes: &[u8]| {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    };
    let headers = [("x-amz-target", "Probe.Echo"), ("content-encoding", "gzip")];
    let response = send(&headers, "POST", "/", gzip(br#"{"Int":1}"#)).await;
    assert_eq!(text(&response), r#"{"Int":1}"#);
    let response = send(&headers, "POST", "/", gzip(&vec![b' '; MAX_BODY + 1])).await;
    assert_eq!(response.status(), 413);
    let response = send(&headers, "POST", "/", "not gzip").await;
    assert_eq!(response.status(), 400);
}

#[test]
fn the_table_has_no_doubles() {
    for service in all() {
        let Service { operations, signs, .. } = &service;
        let mut names: Vec<_> = operations.iter().map(|op| op.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), operations.len(), "{signs}");
    }
}
