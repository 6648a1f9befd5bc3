//! [`Node`] to shape: one serde Deserializer for every protocol, driven by the shape's types.
//! Counts the members that the shape does not have. Shapes must not use serde's `flatten`, `untagged` or
//! `tag`: they buffer the input as text and lose the types that drive this.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::de::value::{BorrowedStrDeserializer, StringDeserializer};
use serde::de::{self, DeserializeSeed, Deserializer, IntoDeserializer, Unexpected, Visitor};

use super::node::{Members, Node};
use super::types::{TIMESTAMP, Timestamp};

pub fn decode<'de, T: de::Deserialize<'de>>(node: Node<'de>, unknown: &Unknown) -> Result<T, Error> {
    T::deserialize(De { node, unknown })
}

/// Members of the request that no shape of ours has: all are counted, the first few are named.
#[derive(Default, Debug)]
pub struct Unknown(RefCell<(usize, Vec<String>)>);

impl Unknown {
    const NAMED: usize = 8;

    fn note(&self, shape: &str, member: &str) {
        let (count, names) = &mut *self.0.borrow_mut();
        *count += 1;
        if names.len() < Self::NAMED {
            names.push(format!("{shape}.{}", member.chars().take(64).collect::<String>()));
        }
    }

    pub fn into_inner(self) -> (usize, Vec<String>) {
        self.0.into_inner()
    }
}

/// Why a well-formed body is not the shape, and where.
#[derive(Debug, PartialEq)]
pub struct Error(Box<(Vec<String>, Reason)>);

#[derive(Debug, PartialEq, Clone)]
pub enum Reason {
    Missing(&'static str),
    NotOneOf { value: String, allowed: &'static [&'static str] },
    WrongType(String),
}

impl Error {
    fn new(reason: Reason) -> Error {
        Error(Box::new((Vec::new(), reason)))
    }

    fn at(mut self, step: impl Into<String>) -> Error {
        self.0.0.push(step.into());
        self
    }

    pub fn reason(&self) -> &Reason {
        &self.0.1
    }

    /// As AWS writes it: `containerDefinitions.1.member.memory`.
    pub fn path(&self) -> String {
        let mut steps: Vec<&str> = self.0.0.iter().rev().map(String::as_str).collect();
        if let Reason::Missing(field) = self.reason() {
            steps.push(field);
        }
        steps.join(".")
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let at = self.path();
        match self.reason() {
            Reason::Missing(_) => write!(f, "Value null at '{at}' failed to satisfy constraint: Member must not be null"),
            Reason::NotOneOf { value, allowed } => {
                write!(
                    f,
                    "Value '{value}' at '{at}' failed to satisfy constraint: Member must satisfy enum value set: [{}]",
                    allowed.join(", ")
                )
            }
            Reason::WrongType(what) => write!(f, "{what} at '{at}'"),
        }
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Error {
        Error::new(Reason::WrongType(message.to_string()))
    }
    fn missing_field(field: &'static str) -> Error {
        Error::new(Reason::Missing(field))
    }
    fn unknown_variant(variant: &str, allowed: &'static [&'static str]) -> Error {
        Error::new(Reason::NotOneOf { value: variant.chars().take(128).collect(), allowed })
    }
}

struct De<'de, 'u> {
    node: Node<'de>,
    unknown: &'u Unknown,
}

impl<'de> De<'de, '_> {
    fn wrong(&self, v: &dyn de::Expected) -> Error {
        let found = match &self.node {
            Node::Null => Unexpected::Unit,
            Node::Bool(b) => Unexpected::Bool(*b),
            Node::Int(i) => Unexpected::Signed(*i),
            Node::Float(f) => Unexpected::Float(*f),
            Node::Str(s) | Node::Text(s) => Unexpected::Str(s.get(..64).unwrap_or(s)),
            Node::Bytes(_) => Unexpected::Other("blob"),
            Node::Stamp(_) => Unexpected::Other("timestamp"),
            Node::List(_) => Unexpected::Seq,
            Node::Map(_) | Node::Branch(_) => Unexpected::Map,
        };
        de::Error::invalid_type(found, v)
    }

    fn integer(&self) -> Option<i64> {
        match &self.node {
            Node::Int(i) => Some(*i),
            // Some clients write 5.0; only what loses nothing is taken.
            Node::Float(f) if f.fract() == 0.0 && f.abs() < 9e15 => Some(*f as i64),
            Node::Text(t) => t.parse().ok(),
            _ => None,
        }
    }

    fn double(&self) -> Option<f64> {
        match &self.node {
            Node::Int(i) => Some(*i as f64),
            Node::Float(f) => Some(*f),
            Node::Str(s) | Node::Text(s) if s == "NaN" => Some(f64::NAN),
            Node::Str(s) | Node::Text(s) if s == "Infinity" => Some(f64::INFINITY),
            Node::Str(s) | Node::Text(s) if s == "-Infinity" => Some(f64::NEG_INFINITY),
            // Rust would also take "inf" and "nan".
            Node::Text(t) if t.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b)) => t.parse().ok(),
            _ => None,
        }
    }

    fn timestamp(&self) -> Option<Timestamp> {
        match &self.node {
            Node::Stamp(ms) => Some(Timestamp(*ms)),
            Node::Str(s) => Timestamp::parse_iso(s),
            Node::Text(t) => Timestamp::parse_iso(t).or_else(|| Timestamp::from_seconds(self.double()?)),
            _ => Timestamp::from_seconds(self.double()?),
        }
    }

    /// The items of a list: `[..]`, `X.member.N`, `X.N`, or nothing (`X=`, how query writes an empty list).
    fn items(self, v: &dyn de::Expected) -> Result<Vec<Node<'de>>, Error> {
        let numbered = |members: &Members| members.iter().all(|(k, _)| k.bytes().all(|b| b.is_ascii_digit()));
        let values = |members: Members<'de>| members.into_iter().map(|(_, n)| n).collect();
        match self.node {
            Node::List(items) => Ok(items),
            Node::Text(t) if t.is_empty() => Ok(Vec::new()),
            Node::Branch(members) if numbered(&members) => Ok(values(members)),
            Node::Branch(mut members) if members.len() == 1 => match members.pop() {
                Some((_, Node::Branch(items))) if numbered(&items) => Ok(values(items)),
                Some((_, Node::Text(t))) if t.is_empty() => Ok(Vec::new()),
                _ => Err(de::Error::invalid_type(Unexpected::Map, v)),
            },
            node => Err(De { node, ..self }.wrong(v)),
        }
    }

    /// The entries of a map: `{..}`, `X.entry.N.key` with `.value`, or nothing.
    fn entries(self, v: &dyn de::Expected) -> Result<Members<'de>, Error> {
        if let Node::Map(members) = self.node {
            return Ok(members);
        }
        let entry = |item| {
            let (mut key, mut value) = (None, None);
            let Node::Branch(pair) = item else { return None };
            for (name, node) in pair {
                match (name.as_ref(), node) {
                    ("key", Node::Text(k)) => key = Some(k),
                    ("value", v) => value = Some(v),
                    _ => return None,
                }
            }
            Some((key?, value?))
        };
        let items = self.items(v)?.into_iter();
        items.map(|i| entry(i).ok_or_else(|| de::Error::custom("a map needs entries of key and value"))).collect()
    }
}

macro_rules! integers {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, v: V) -> Result<V::Value, Error> {
            match self.integer() {
                Some(i) => v.visit_i64(i),
                None => Err(self.wrong(&v)),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for De<'de, '_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, v: V) -> Result<V::Value, Error> {
        match self.node {
            Node::Null => v.visit_unit(),
            Node::Bool(b) => v.visit_bool(b),
            Node::Int(i) => v.visit_i64(i),
            Node::Float(f) => v.visit_f64(f),
            Node::Stamp(ms) => v.visit_f64(ms as f64 / 1000.0),
            Node::Str(_) | Node::Text(_) => self.deserialize_str(v),
            Node::Bytes(_) => self.deserialize_bytes(v),
            Node::List(_) => self.deserialize_seq(v),
            Node::Map(_) | Node::Branch(_) => self.deserialize_map(v),
        }
    }

    integers! { deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 }

    fn deserialize_bool<V: Visitor<'de>>(self, v: V) -> Result<V::Value, Error> {
        match &self.node {
            Node::Bool(b) => v.visit_bool(*b),
            Node::Text(t) if t.eq_ignore_ascii_case("true") => v.visit_bool(true),
            Node::Text(t) if t.eq_ignore_ascii_case("false") => v.visit_bool(false),
            _ => Err(self.wrong(&v)),
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, v: V) -> Result<V::Value, Error> {
        match self.double() {
            Some(f) => v.visit_f64(f),
            None => Err(self.wrong(&v)),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, v: V) -> Result<V::Value, Error> {
        self.deserialize_f64(v)
    }

    fn deserialize_str<V: Visitor<'de>>(self, v: V) -> Result<V::Value, Error> {
        match self.node {
            Node::Str(Cow::Borrowed(s)) | Node::Text(Cow::Borrowed(s)) => v.visit_borrowed_str(s),
            Node::Str(Cow::Owned(s)) | Node::Text(Cow::Owned(s)) => v.visit_string(s),
            _ => Err(self.wrong(&v)),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, v: V) -> Result<V::Value, Error> {
        self.deserialize_str(v)
    }

    fn deserialize_char<V: Visitor<'de>>(self, v: V) -> Result<V::Value, Error> {
        self.deserialize_str(v)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, v: V) -> Result<V::Value, Error> {
        match &self.node {
            Node::Bytes(b) => v.visit_bytes(b),
            Node::Str(s) | Node::Text(s) => match STANDARD.decode(s.as_bytes()) {
                Ok(bytes) => v.visit_byte_buf(bytes),
                Err(_) => Err(self.wrong(&v)),
            },
            _ => Err(self.wrong(&v)),
        }
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, v: V) -> Result<V::Value, Error> {
        self.deserialize_bytes(v)
    }

    fn deserialize_option<V: Visitor<'de>>(self, v: V) -> Result<V::Value, Error> {
        if self.node == Node::Null { v.visit_none() } else { v.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, v: V) -> Result<V::Value, Error> {
        if name != TIMESTAMP {
            return v.visit_newtype_struct(self);
        }
        match self.timestamp() {
            Some(t) => v.visit_newtype_struct(t.0.into_deserializer()),
            None => Err(self.wrong(&"a timestamp")),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, v: V) -> Result<V::Value, Error> {
        let unknown = self.unknown;
        let items = self.items(&v)?.into_iter();
        v.visit_seq(Items { items, at: 0, unknown })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, v: V) -> Result<V::Value, Error> {
        self.deserialize_seq(v)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(self, _: &'static str, _: usize, v: V) -> Result<V::Value, Error> {
        self.deserialize_seq(v)
    }

    fn deserialize_map<V: Visitor<'de>>(self, v: V) -> Result<V::Value, Error> {
        let unknown = self.unknown;
        let members = self.entries(&v)?.into_iter();
        v.visit_map(Fields { members, value: None, shape: None, unknown })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        v: V,
    ) -> Result<V::Value, Error> {
        let unknown = self.unknown;
        match self.node {
            Node::Map(members) | Node::Branch(members) => {
                v.visit_map(Fields { members: members.into_iter(), value: None, shape: Some((name, fields)), unknown })
            }
            Node::Text(t) if t.is_empty() => {
                v.visit_map(Fields { members: Vec::new().into_iter(), value: None, shape: None, unknown })
            }
            node => Err(De { node, unknown }.wrong(&v)),
        }
    }

    /// A string is a value of a string enum; a structure of one member is a union.
    fn deserialize_enum<V: Visitor<'de>>(self, _: &'static str, _: &'static [&'static str], v: V) -> Result<V::Value, Error> {
        let unknown = self.unknown;
        match self.node {
            Node::Str(s) | Node::Text(s) => v.visit_enum(s.into_deserializer()),
            Node::Map(mut members) | Node::Branch(mut members) => {
                members.retain(|(_, n)| *n != Node::Null);
                let (1, Some((name, node))) = (members.len(), members.pop()) else {
                    return Err(de::Error::custom("a union must have exactly one member"));
                };
                let at = name.to_string();
                v.visit_enum(Union { name, content: De { node, unknown } }).map_err(|e| e.at(at))
            }
            node => Err(De { node, unknown }.wrong(&v)),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, v: V) -> Result<V::Value, Error> {
        v.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, v: V) -> Result<V::Value, Error> {
        v.visit_unit()
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, v: V) -> Result<V::Value, Error> {
        self.deserialize_str(v)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, v: V) -> Result<V::Value, Error> {
        v.visit_unit()
    }
}

struct Items<'de, 'u> {
    items: std::vec::IntoIter<Node<'de>>,
    at: usize,
    unknown: &'u Unknown,
}

impl<'de> de::SeqAccess<'de> for Items<'de, '_> {
    type Error = Error;
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let Some(node) = self.items.next() else { return Ok(None) };
        self.at += 1;
        seed.deserialize(De { node, unknown: self.unknown }).map(Some).map_err(|e| e.at("member").at(self.at.to_string()))
    }
    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

struct Fields<'de, 'u> {
    members: std::vec::IntoIter<(Cow<'de, str>, Node<'de>)>,
    value: Option<(Cow<'de, str>, Node<'de>)>,
    /// Of a structure: its name and its members' names. None for a map.
    shape: Option<(&'static str, &'static [&'static str])>,
    unknown: &'u Unknown,
}

impl<'de> de::MapAccess<'de> for Fields<'de, '_> {
    type Error = Error;
    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        // A null member is an absent one, everywhere.
        for (key, node) in self.members.by_ref().filter(|(_, n)| *n != Node::Null) {
            if let Some((shape, fields)) = self.shape
                && !fields.contains(&key.as_ref())
            {
                self.unknown.note(shape, &key);
                continue;
            }
            let (key, _) = self.value.insert((key, node));
            return match key {
                Cow::Borrowed(k) => seed.deserialize(BorrowedStrDeserializer::new(k)),
                Cow::Owned(k) => seed.deserialize(StringDeserializer::new(k.clone())),
            }
            .map(Some);
        }
        Ok(None)
    }
    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Error> {
        let (key, node) = self.value.take().ok_or_else(|| <Error as de::Error>::custom("a value without its key"))?;
        seed.deserialize(De { node, unknown: self.unknown }).map_err(|e| e.at(key))
    }
}

struct Union<'de, 'u> {
    name: Cow<'de, str>,
    content: De<'de, 'u>,
}

impl<'de, 'u> de::EnumAccess<'de> for Union<'de, 'u> {
    type Error = Error;
    type Variant = De<'de, 'u>;
    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, De<'de, 'u>), Error> {
        Ok((seed.deserialize(StringDeserializer::new(self.name.into_owned()))?, self.content))
    }
}

impl<'de> de::VariantAccess<'de> for De<'de, '_> {
    type Error = Error;
    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }
    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(self)
    }
    fn tuple_variant<V: Visitor<'de>>(self, _: usize, v: V) -> Result<V::Value, Error> {
        self.deserialize_seq(v)
    }
    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], v: V) -> Result<V::Value, Error> {
        self.deserialize_struct("union", fields, v)
    }
}
