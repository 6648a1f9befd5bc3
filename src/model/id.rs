//! Names and ids as types of their own, cheap to clone and to order.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident;)*) => { $(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            pub fn new(text: impl AsRef<str>) -> $name {
                $name(Arc::from(text.as_ref()))
            }
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl From<&str> for $name {
            fn from(text: &str) -> $name {
                $name::new(text)
            }
        }
        impl From<String> for $name {
            fn from(text: String) -> $name {
                $name::new(text)
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    )* };
}

names! {
    /// 1 to 255 of `[A-Za-z0-9_-]`.
    ClusterName;
    /// 1 to 255 of `[A-Za-z0-9_-]`, unique among a cluster's services that are not INACTIVE.
    ServiceName;
    /// A container's name inside its task definition.
    ContainerName;
    /// 32 hexadecimal digits, unique everywhere.
    TaskId;
    /// 32 hexadecimal digits: a container instance, which is one agent on one Docker host.
    InstanceId;
    /// `ecs-svc/` and 19 digits.
    DeploymentId;
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServiceKey {
    pub cluster: ClusterName,
    pub service: ServiceName,
}

impl ServiceKey {
    pub fn new(cluster: impl AsRef<str>, service: impl AsRef<str>) -> ServiceKey {
        ServiceKey { cluster: ClusterName::new(cluster), service: ServiceName::new(service) }
    }

    /// `service/CLUSTER/NAME`, Application Auto Scaling's resource id.
    pub fn resource_id(&self) -> String {
        format!("service/{}/{}", self.cluster, self.service)
    }

    pub fn from_resource_id(text: &str) -> Option<ServiceKey> {
        let (cluster, service) = text.strip_prefix("service/")?.split_once('/')?;
        (!cluster.is_empty() && !service.is_empty() && !service.contains('/')).then(|| ServiceKey::new(cluster, service))
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}/{}", self.cluster, self.service)
    }
}

/// A task definition's family and revision, written `family:revision`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DefinitionKey {
    pub family: Arc<str>,
    pub revision: u32,
}

impl DefinitionKey {
    pub fn new(family: impl AsRef<str>, revision: u32) -> DefinitionKey {
        DefinitionKey { family: Arc::from(family.as_ref()), revision }
    }
}

impl fmt::Display for DefinitionKey {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}:{}", self.family, self.revision)
    }
}
