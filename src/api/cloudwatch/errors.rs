//! Every error that our CloudWatch operations answer. Shapes and query codes differ, as CloudWatch once spoke query only.

use crate::wire::decode::{self, Reason};
use crate::wire::fault::{self, Code, Fault};

const INVALID_VALUE: Code = Code::new("InvalidParameterValueException", 400).query("InvalidParameterValue");
const COMBINATION: Code = Code::new("InvalidParameterCombinationException", 400).query("InvalidParameterCombination");
/// Not `MissingRequiredParameterException`: most operations do not declare that shape.
const MISSING: Code = Code::new("MissingParameter", 400);
pub const INTERNAL: Code = Code::new("InternalServiceFault", 500).query("InternalServiceError");
const INVALID_NEXT_TOKEN: Code = Code::new("InvalidNextToken", 400);
const INVALID_FORMAT: Code = Code::new("InvalidFormatFault", 400).query("InvalidFormat");
const LIMIT_EXCEEDED: Code = Code::new("LimitExceededFault", 400).query("LimitExceeded");
const ALARM_NOT_FOUND: Code = Code::new("ResourceNotFound", 404);
const RESOURCE_NOT_FOUND: Code = Code::new("ResourceNotFoundException", 404);

pub fn value(message: impl Into<String>) -> Fault {
    Fault::new(&INVALID_VALUE, message)
}

pub fn combination(message: impl Into<String>) -> Fault {
    Fault::new(&COMBINATION, message)
}

pub fn missing(parameter: &str) -> Fault {
    Fault::new(&MISSING, format!("The parameter {parameter} is required."))
}

pub fn validation(message: impl Into<String>) -> Fault {
    Fault::new(&fault::VALIDATION, message)
}

/// The sentence of AWS's own shape checks; `member` in lower camel case.
pub fn constraint(member: &str, value: &str, rule: &str) -> Fault {
    validation(format!("1 validation error detected: Value '{value}' at '{member}' failed to satisfy constraint: {rule}"))
}

pub fn too_many(collection: &str, most: usize) -> Fault {
    value(format!("The collection {collection} must not have a size greater than {most}."))
}

pub fn internal(message: impl Into<String>) -> Fault {
    Fault::new(&INTERNAL, message)
}

pub fn next_token() -> Fault {
    Fault::new(&INVALID_NEXT_TOKEN, "The specified next token is not valid.")
}

pub fn format(message: impl Into<String>) -> Fault {
    Fault::new(&INVALID_FORMAT, message)
}

pub fn limit(message: impl Into<String>) -> Fault {
    Fault::new(&LIMIT_EXCEEDED, message)
}

/// CloudWatch says nothing but the code.
pub fn alarm_not_found() -> Fault {
    Fault::new(&ALARM_NOT_FOUND, "")
}

pub fn resource_not_found(arn: &str) -> Fault {
    let shown: String = arn.chars().take(256).collect();
    Fault::new(&RESOURCE_NOT_FOUND, format!("Unknown resource: {shown}"))
}

/// An input that does not fit its shape.
pub fn refuse(error: &decode::Error) -> Fault {
    match error.reason() {
        Reason::Missing(_) => missing(&query_path(&error.path())),
        Reason::NotOneOf { value, allowed } => {
            let rule = format!("Member must satisfy enum value set: [{}]", allowed.join(", "));
            constraint(&camel_path(&error.path()), value, &rule)
        }
        Reason::WrongType(_) => Fault::new(&fault::SERIALIZATION, error.to_string()),
    }
}

/// `MetricData.1.member.MetricName`, as CloudWatch says it over every protocol: `MetricData.member.1.MetricName`.
fn query_path(path: &str) -> String {
    let mut steps: Vec<&str> = path.split('.').collect();
    for at in 1..steps.len() {
        if steps[at] == "member" && steps[at - 1].bytes().all(|b| b.is_ascii_digit()) {
            steps.swap(at - 1, at);
        }
    }
    steps.join(".")
}

/// AWS's shape checks name members in lower camel case whatever the protocol.
fn camel_path(path: &str) -> String {
    let camel = |step: &str| {
        let mut chars = step.chars();
        chars.next().map(|first| format!("{}{}", first.to_ascii_lowercase(), chars.as_str())).unwrap_or_default()
    };
    path.split('.').map(camel).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_as_cloudwatch_says_them() {
        assert_eq!(query_path("MetricData.1.member.MetricName"), "MetricData.member.1.MetricName");
        assert_eq!(query_path("Namespace"), "Namespace");
        assert_eq!(camel_path("Metrics.1.member.StateValue"), "metrics.1.member.stateValue");
    }
}
