//! Every error that our operations answer. An operation sends only codes that it declares.

use crate::wire::decode;
use crate::wire::fault::{self, Code, Fault};

const OBJECT_NOT_FOUND: Code = Code::new("ObjectNotFoundException", 400);
const RESOURCE_NOT_FOUND: Code = Code::new("ResourceNotFoundException", 400);
const INVALID_NEXT_TOKEN: Code = Code::new("InvalidNextTokenException", 400);
const LIMIT_EXCEEDED: Code = Code::new("LimitExceededException", 400);
const TOO_MANY_TAGS: Code = Code::new("TooManyTagsException", 400);
pub const INTERNAL: Code = Code::new("InternalServiceException", 500);

pub fn invalid(message: impl Into<String>) -> Fault {
    Fault::new(&fault::VALIDATION, message)
}

/// The sentence of AWS's own shape checks; `member` in lower camel case.
pub fn constraint(member: &str, value: impl std::fmt::Display, rule: &str) -> Fault {
    invalid(format!("1 validation error detected: Value '{value}' at '{member}' failed to satisfy constraint: {rule}"))
}

pub fn not_found(message: impl Into<String>) -> Fault {
    Fault::new(&OBJECT_NOT_FOUND, message)
}

pub fn resource_not_found(arn: &str) -> Fault {
    let shown: String = arn.chars().take(256).collect();
    let mut fault = Fault::new(&RESOURCE_NOT_FOUND, format!("The resource {shown} doesn't exist."));
    fault.members.push(("ResourceName", shown));
    fault
}

pub fn too_many_tags(arn: &str, most: usize) -> Fault {
    let mut fault = Fault::new(&TOO_MANY_TAGS, format!("A scalable target can have at most {most} tags."));
    fault.members.push(("ResourceName", arn.chars().take(256).collect()));
    fault
}

pub fn next_token() -> Fault {
    Fault::new(&INVALID_NEXT_TOKEN, "The next token is not valid.")
}

pub fn limit(message: impl Into<String>) -> Fault {
    Fault::new(&LIMIT_EXCEEDED, message)
}

/// An input that does not fit its shape.
pub fn refuse(error: &decode::Error) -> Fault {
    match error.reason() {
        decode::Reason::WrongType(_) => Fault::new(&fault::SERIALIZATION, error.to_string()),
        _ => {
            let text = error.to_string();
            // AWS's shape checks name members in lower camel case.
            let path = error.path();
            let camel: Vec<String> = path
                .split('.')
                .map(|step| {
                    let mut chars = step.chars();
                    chars.next().map(|c| format!("{}{}", c.to_ascii_lowercase(), chars.as_str())).unwrap_or_default()
                })
                .collect();
            invalid(format!(
                "1 validation error detected: {}",
                text.replacen(&format!("'{path}'"), &format!("'{}'", camel.join(".")), 1)
            ))
        }
    }
}
