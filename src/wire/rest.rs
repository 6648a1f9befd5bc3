//! restJson routes: a method and a path whose labels and query parameters become members of the input.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::node::{Members, Node};

/// Written as `GET /schedules/{Name}?GroupName=groupName`: `{Member}` is a path label, `Member=parameter` binds
/// a query parameter.
pub struct Route {
    method: &'static str,
    path: Vec<&'static str>,
    parameters: Vec<(&'static str, &'static str)>,
}

impl Route {
    pub fn new(route: &'static str) -> Route {
        let (method, rest) = route.split_once(' ').expect("a route is METHOD /path");
        let (path, parameters) = rest.split_once('?').unwrap_or((rest, ""));
        let parameters = parameters.split('&').filter(|p| !p.is_empty());
        Route {
            method,
            path: path.split('/').collect(),
            parameters: parameters.map(|p| p.split_once('=').unwrap_or((p, p))).collect(),
        }
    }

    /// Whether the request is this one. Labels never span segments: an ARN's slashes arrive as %2F.
    pub fn matches(&self, method: &str, path: &str) -> bool {
        let mut given = path.split('/');
        self.method == method
            && self
                .path
                .iter()
                .all(|want| given.next().is_some_and(|got| label(want).is_some() && !got.is_empty() || *want == got))
            && given.next().is_none()
    }

    /// Adds what path and query say to the members that the body said.
    pub fn bind<'a>(&self, path: &'a str, query: &'a str, members: &mut Members<'a>) {
        for (want, got) in self.path.iter().zip(path.split('/')) {
            if let Some(member) = label(want) {
                members.push((member.into(), Node::Text(percent_decode_str(got).decode_utf8_lossy())));
            }
        }
        for (member, parameter) in &self.parameters {
            let mut values: Vec<Cow<'a, str>> =
                form_urlencoded::parse(query.as_bytes()).filter(|(k, _)| k == parameter).map(|(_, v)| v).collect();
            match values.len() {
                0 => {}
                1 => members.push(((*member).into(), Node::Text(values.remove(0)))),
                _ => members.push(((*member).into(), Node::List(values.into_iter().map(Node::Text).collect()))),
            }
        }
    }
}

fn label(segment: &'static str) -> Option<&'static str> {
    segment.strip_prefix('{')?.strip_suffix('}')
}
