//! Names and ids as types of their own, cheap to clone and to order; ids of many digits as the bytes that they are.

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
            /// So that one who keeps many can let equal ones share their text.
            pub fn text_mut(&mut self) -> &mut Arc<str> {
                &mut self.0
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

/// A text that is mostly a long hexadecimal id. A UUID or a Docker container's id is kept in half its digits; any other text as it is.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "std::borrow::Cow<'_, str>", into = "String")]
pub struct HexText(Held);

#[derive(Clone, PartialEq, Eq, Hash)]
enum Held {
    /// `8-4-4-4-12` lower-case digits.
    Uuid([u8; 16]),
    /// 64 lower-case digits.
    Digits64(Box<[u8; 32]>),
    Text(Box<str>),
}

/// Where a UUID's dashes are, counted in digits.
const DASHES: [usize; 4] = [8, 12, 16, 20];

fn bytes_of<const N: usize>(digits: impl Iterator<Item = u8>) -> Option<[u8; N]> {
    let (mut bytes, mut at) = ([0u8; N], 0);
    for digit in digits {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        *bytes.get_mut(at / 2)? |= if at % 2 == 0 { value << 4 } else { value };
        at += 1;
    }
    (at == 2 * N).then_some(bytes)
}

impl From<&str> for HexText {
    fn from(text: &str) -> HexText {
        let raw = text.as_bytes();
        let dashed = |raw: &[u8]| raw.len() == 36 && DASHES.iter().enumerate().all(|(n, at)| raw[at + n] == b'-');
        let held = match raw.len() {
            36 if dashed(raw) => bytes_of(raw.iter().copied().filter(|b| *b != b'-')).map(Held::Uuid),
            64 => bytes_of(raw.iter().copied()).map(|bytes| Held::Digits64(Box::new(bytes))),
            _ => None,
        };
        HexText(held.unwrap_or_else(|| Held::Text(text.into())))
    }
}

impl From<String> for HexText {
    fn from(text: String) -> HexText {
        HexText::from(text.as_str())
    }
}

impl From<std::borrow::Cow<'_, str>> for HexText {
    fn from(text: std::borrow::Cow<'_, str>) -> HexText {
        HexText::from(&*text)
    }
}

impl From<HexText> for String {
    fn from(id: HexText) -> String {
        id.to_string()
    }
}

impl fmt::Display for HexText {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let (bytes, is_uuid): (&[u8], bool) = match &self.0 {
            Held::Text(text) => return f.write_str(text),
            Held::Uuid(bytes) => (bytes, true),
            Held::Digits64(bytes) => (&**bytes, false),
        };
        let mut text = String::with_capacity(64);
        for (n, byte) in bytes.iter().enumerate() {
            if is_uuid && DASHES.contains(&(2 * n)) {
                text.push('-');
            }
            text.push(DIGITS[usize::from(byte >> 4)].into());
            text.push(DIGITS[usize::from(byte & 15)].into());
        }
        f.write_str(&text)
    }
}

impl fmt::Debug for HexText {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_in_bytes_is_the_text_that_it_was() {
        let runtime = "0123456789abcdef".repeat(4);
        let kept = |text: &str| (HexText::from(text).to_string(), matches!(HexText::from(text).0, Held::Text(_)));
        for (text, plain) in [
            ("9f1c2d3e-0000-4abc-8def-0123456789ab", false),
            (runtime.as_str(), false),
            ("9F1C2D3E-0000-4ABC-8DEF-0123456789AB", true),
            ("9f1c2d3e00000-4abc-8def-0123456789ab", true),
            ("9f1c2d3e--000-4abc-8def-0123456789ab", true),
            (runtime.to_uppercase().as_str(), true),
            ("docker-app", true),
            ("", true),
            (
                "\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}",
                true,
            ),
        ] {
            assert_eq!(kept(text), (text.to_owned(), plain));
            let through: HexText = serde_json::from_str(&serde_json::to_string(&HexText::from(text)).unwrap()).unwrap();
            assert_eq!(through, HexText::from(text));
        }
        assert_eq!(std::mem::size_of::<Option<HexText>>(), 24);
    }
}
