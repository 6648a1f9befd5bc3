//! From a request's head (and a form's Action) to protocol, service and operation. Pure.

use http::request::Parts;

use super::form::{self, Pair};
use super::service::{Operation, Protocol, Service};

/// What a request says that it is, before we look whether we have it.
#[derive(Debug, PartialEq)]
pub struct Asked<'a> {
    pub protocol: Protocol,
    /// X-Amz-Target's prefix, CBOR's service, query's Version, or "".
    pub service: &'a str,
    pub operation: String,
    /// From SigV4's credential scope.
    pub signs: &'a str,
    pub region: &'a str,
}

/// The protocol by headers alone: enough to refuse a body unread.
pub fn protocol(head: &Parts) -> Protocol {
    let kind = header(head, "content-type");
    if header(head, "smithy-protocol") == "rpc-v2-cbor" {
        Protocol::Cbor
    } else if head.headers.contains_key("x-amz-target") {
        if kind.starts_with("application/x-amz-json-1.0") { Protocol::Json10 } else { Protocol::Json11 }
    } else if kind.starts_with("application/x-www-form-urlencoded") || head.uri.query().is_some_and(|q| q.contains("Action=")) {
        Protocol::Query
    } else {
        Protocol::RestJson
    }
}

pub fn asked<'a>(head: &'a Parts, form: &[Pair<'_>], version: &'a str) -> Asked<'a> {
    let (region, signs) = scope(head);
    let protocol = protocol(head);
    let (service, operation) = match protocol {
        // A service's prefix may itself contain dots (cloudtrail's does), so the last one counts.
        Protocol::Json10 | Protocol::Json11 => header(head, "x-amz-target").rsplit_once('.').unwrap_or_default(),
        Protocol::Cbor => {
            let mut path = head.uri.path().rsplit('/');
            match (path.next(), path.next(), path.next(), path.next()) {
                (Some(op), Some("operation"), Some(service), Some("service")) => (service, op),
                _ => ("", ""),
            }
        }
        Protocol::Query => (version, form.iter().find(|(k, _)| k == "Action").map_or("", |(_, v)| v.as_ref())),
        Protocol::RestJson => ("", ""),
    };
    Asked { protocol, service, operation: operation.to_owned(), signs, region }
}

pub fn find<'s, S>(
    services: &'s [Service<S>],
    asked: &Asked,
    head: &Parts,
) -> (Option<&'s Service<S>>, Option<&'s Operation<S>>) {
    let by = |test: &dyn Fn(&Service<S>) -> bool| services.iter().find(|s| test(s));
    if asked.protocol == Protocol::RestJson {
        // Two services may own the same path (`/tags/{arn}`): the one that the client signed for goes first.
        let path = head.uri.path();
        let mut candidates: Vec<&Service<S>> = services.iter().collect();
        candidates.sort_by_key(|s| s.signs != asked.signs);
        let hit = candidates.into_iter().find_map(|s| {
            let fits = |op: &&Operation<S>| op.route.as_ref().is_some_and(|r| r.matches(head.method.as_str(), path));
            Some((s, s.operations.iter().find(fits)?))
        });
        return hit.map_or((by(&|s| s.signs == asked.signs), None), |(s, op)| (Some(s), Some(op)));
    }
    let service = match asked.protocol {
        Protocol::Query => by(&|s| !s.version.is_empty() && s.signs == asked.signs)
            .or_else(|| by(&|s| !s.version.is_empty() && s.version == asked.service)),
        _ => by(&|s| !s.target.is_empty() && s.target == asked.service),
    };
    (service, service.and_then(|s| s.operation(&asked.operation)))
}

/// Region and signing name of `Credential=AKID/date/region/service/aws4_request`.
fn scope(head: &Parts) -> (&str, &str) {
    let credential = header(head, "authorization").split_once("Credential=").map(|(_, rest)| rest);
    let mut parts = credential.unwrap_or_default().split(['/', ',']).skip(2);
    (parts.next().unwrap_or("us-east-1"), parts.next().unwrap_or_default())
}

fn header<'a>(head: &'a Parts, name: &str) -> &'a str {
    head.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
}

/// A form's pairs: the body's, or of a GET the query string's (as STS's presigned calls).
pub fn pairs<'a>(head: &'a Parts, body: &'a [u8]) -> Vec<Pair<'a>> {
    let source = if body.is_empty() { head.uri.query().unwrap_or_default().as_bytes() } else { body };
    form::parse(source).collect()
}
