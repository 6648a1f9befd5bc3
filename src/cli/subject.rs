//! What a command is about, as people name it: `service/NAME`, `service/CLUSTER/NAME`, `task/ID`, `alarm/NAME`.

use std::fmt;
use std::str::FromStr;

use super::ecs::short;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    Service { cluster: Option<String>, name: String },
    Task(String),
    Alarm(String),
    Instance(String),
    Placement,
}

impl FromStr for Subject {
    type Err = String;

    fn from_str(text: &str) -> Result<Subject, String> {
        if text == "placement" {
            return Ok(Subject::Placement);
        }
        let Some((kind, rest)) = text.split_once('/') else {
            return Err(format!("{text} names nothing: write service/NAME, task/ID or alarm/NAME"));
        };
        if rest.is_empty() {
            return Err(format!("{text} ends where a name should be"));
        }
        match kind {
            "service" => Ok(service(rest)),
            "task" => Ok(Subject::Task(short(rest).to_owned())),
            // An alarm's name may hold slashes.
            "alarm" => Ok(Subject::Alarm(rest.to_owned())),
            "instance" => Ok(Subject::Instance(short(rest).to_owned())),
            _ => Err(format!("{kind}/ is not known: write service/NAME, task/ID or alarm/NAME")),
        }
    }
}

fn service(rest: &str) -> Subject {
    match rest.split_once('/') {
        Some((cluster, name)) => Subject::Service { cluster: Some(cluster.to_owned()), name: name.to_owned() },
        None => Subject::Service { cluster: None, name: rest.to_owned() },
    }
}

/// `service/NAME`, `service/CLUSTER/NAME` or, where only a service can be meant, `NAME`.
pub fn parse_service(text: &str) -> Result<(Option<String>, String), String> {
    match service(text.strip_prefix("service/").unwrap_or(text)) {
        Subject::Service { name, .. } if name.is_empty() || name.contains('/') => {
            Err(format!("{text} names no service: write service/NAME"))
        }
        Subject::Service { cluster, name } => Ok((cluster, name)),
        _ => Err(format!("{text} names no service: write service/NAME")),
    }
}

impl Subject {
    /// As the native API takes it; `cluster` where the subject names none.
    pub fn path(&self, default_cluster: &str) -> String {
        match self {
            Subject::Service { cluster, name } => format!("service/{}/{name}", cluster.as_deref().unwrap_or(default_cluster)),
            Subject::Task(id) => format!("task/{id}"),
            Subject::Alarm(name) => format!("alarm/{name}"),
            Subject::Instance(id) => format!("instance/{id}"),
            Subject::Placement => "placement".to_owned(),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Subject::Service { cluster: None, name } => write!(f, "service/{name}"),
            other => f.write_str(&other.path("")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_as_people_name_them() {
        for (text, path) in [
            ("service/web", "service/c/web"),
            ("service/prod/web", "service/prod/web"),
            ("task/0123", "task/0123"),
            ("task/arn:aws:ecs:us-east-1:000000000000:task/default/0123", "task/0123"),
            ("alarm/TargetTracking-service/c/web-AlarmHigh", "alarm/TargetTracking-service/c/web-AlarmHigh"),
            ("instance/ab", "instance/ab"),
            ("placement", "placement"),
        ] {
            assert_eq!(text.parse::<Subject>().unwrap().path("c"), path);
        }
        for text in ["web", "service/", "task/", "pod/x", ""] {
            assert!(text.parse::<Subject>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_service_alone() {
        assert_eq!(parse_service("web"), Ok((None, "web".to_owned())));
        assert_eq!(parse_service("service/c/web"), Ok((Some("c".to_owned()), "web".to_owned())));
        assert_eq!(parse_service("c/web"), Ok((Some("c".to_owned()), "web".to_owned())));
        for text in ["", "service/", "a/b/c"] {
            assert!(parse_service(text).is_err(), "{text}");
        }
    }
}
