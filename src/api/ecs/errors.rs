//! Every error that our ECS operations answer, and AWS's words for them. An operation sends only codes that it declares.

use crate::wire::decode;
use crate::wire::fault::{self, Code, Fault};

pub const CLIENT: Code = Code::new("ClientException", 400);
pub const INVALID_PARAMETER: Code = Code::new("InvalidParameterException", 400);
pub const SERVER: Code = Code::new("ServerException", 500);
pub const CLUSTER_NOT_FOUND: Code = Code::new("ClusterNotFoundException", 400);
pub const CONTAINS_INSTANCES: Code = Code::new("ClusterContainsContainerInstancesException", 400);
pub const CONTAINS_SERVICES: Code = Code::new("ClusterContainsServicesException", 400);
pub const CONTAINS_TASKS: Code = Code::new("ClusterContainsTasksException", 400);
pub const SERVICE_NOT_FOUND: Code = Code::new("ServiceNotFoundException", 400);
pub const SERVICE_NOT_ACTIVE: Code = Code::new("ServiceNotActiveException", 400);
pub const UNSUPPORTED: Code = Code::new("UnsupportedFeatureException", 400);
pub const CONFLICT: Code = Code::new("ConflictException", 400);
pub const TARGET_NOT_FOUND: Code = Code::new("TargetNotFoundException", 400);
pub const ATTRIBUTE_LIMIT: Code = Code::new("AttributeLimitExceededException", 400);
pub const RESOURCE_NOT_FOUND: Code = Code::new("ResourceNotFoundException", 400);
pub const LIMIT_EXCEEDED: Code = Code::new("LimitExceededException", 400);

pub fn client(message: impl Into<String>) -> Fault {
    Fault::new(&CLIENT, message)
}

pub fn invalid(message: impl Into<String>) -> Fault {
    Fault::new(&INVALID_PARAMETER, message)
}

pub fn unsupported(message: impl Into<String>) -> Fault {
    Fault::new(&UNSUPPORTED, message)
}

pub fn cluster_not_found() -> Fault {
    Fault::new(&CLUSTER_NOT_FOUND, "Cluster not found.")
}

pub fn service_not_found() -> Fault {
    Fault::new(&SERVICE_NOT_FOUND, "Service not found.")
}

/// An input that does not fit its shape.
pub fn refuse(error: &decode::Error) -> Fault {
    match error.reason() {
        decode::Reason::WrongType(_) => Fault::new(&fault::SERIALIZATION, error.to_string()),
        _ => invalid(error.to_string()),
    }
}
