//! Shape to bytes: one serde Serializer for every protocol, writing straight into the protocol's [`Sink`].
//! There is no tree on this side. Absent members (`None`) are never written, so shapes need no `skip_serializing_if`.

use std::fmt;

use serde::ser::{self, Serialize, Serializer};

use super::types::TIMESTAMP;

/// What a protocol does with the parts of an answer, in order. A `key` is followed by exactly one value.
pub trait Sink {
    fn key(&mut self, key: &str);
    fn open_structure(&mut self);
    fn close_structure(&mut self);
    fn open_map(&mut self) {
        self.open_structure();
    }
    fn close_map(&mut self) {
        self.close_structure();
    }
    fn open_list(&mut self);
    fn close_list(&mut self);
    fn boolean(&mut self, v: bool);
    fn integer(&mut self, v: i64);
    fn double(&mut self, v: f64);
    fn string(&mut self, v: &str);
    fn blob(&mut self, v: &[u8]);
    /// Milliseconds since the epoch.
    fn timestamp(&mut self, ms: i64);
}

/// `()` is the empty structure.
pub fn encode<T: Serialize + ?Sized>(value: &T, sink: &mut dyn Sink) -> Result<(), Error> {
    value.serialize(&mut Encoder { sink, pending: Pending::None, stamp: false })
}

#[derive(Debug)]
pub struct Error(String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl ser::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Error {
        Error(message.to_string())
    }
}

/// A key waits until its value turns out to exist.
enum Pending {
    None,
    Member(&'static str),
    Entry(String),
}

struct Encoder<'s> {
    sink: &'s mut dyn Sink,
    pending: Pending,
    /// The next integer is a timestamp.
    stamp: bool,
}

impl Encoder<'_> {
    fn sink(&mut self) -> &mut dyn Sink {
        match std::mem::replace(&mut self.pending, Pending::None) {
            Pending::None => {}
            Pending::Member(key) => self.sink.key(key),
            Pending::Entry(key) => self.sink.key(&key),
        }
        self.sink
    }
}

impl<'a, 's> Serializer for &'a mut Encoder<'s> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = ser::Impossible<(), Error>;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = ser::Impossible<(), Error>;

    fn serialize_bool(self, v: bool) -> Result<(), Error> {
        self.sink().boolean(v);
        Ok(())
    }
    fn serialize_i8(self, v: i8) -> Result<(), Error> {
        self.serialize_i64(v.into())
    }
    fn serialize_i16(self, v: i16) -> Result<(), Error> {
        self.serialize_i64(v.into())
    }
    fn serialize_i32(self, v: i32) -> Result<(), Error> {
        self.serialize_i64(v.into())
    }
    fn serialize_i64(self, v: i64) -> Result<(), Error> {
        if std::mem::take(&mut self.stamp) {
            self.sink().timestamp(v);
        } else {
            self.sink().integer(v);
        }
        Ok(())
    }
    fn serialize_u8(self, v: u8) -> Result<(), Error> {
        self.serialize_i64(v.into())
    }
    fn serialize_u16(self, v: u16) -> Result<(), Error> {
        self.serialize_i64(v.into())
    }
    fn serialize_u32(self, v: u32) -> Result<(), Error> {
        self.serialize_i64(v.into())
    }
    fn serialize_u64(self, v: u64) -> Result<(), Error> {
        self.serialize_i64(v.try_into().map_err(ser::Error::custom)?)
    }
    fn serialize_f32(self, v: f32) -> Result<(), Error> {
        self.serialize_f64(v.into())
    }
    fn serialize_f64(self, v: f64) -> Result<(), Error> {
        self.sink().double(v);
        Ok(())
    }
    fn serialize_char(self, v: char) -> Result<(), Error> {
        self.serialize_str(v.encode_utf8(&mut [0; 4]))
    }
    fn serialize_str(self, v: &str) -> Result<(), Error> {
        self.sink().string(v);
        Ok(())
    }
    fn serialize_bytes(self, v: &[u8]) -> Result<(), Error> {
        self.sink().blob(v);
        Ok(())
    }
    fn serialize_none(self) -> Result<(), Error> {
        self.pending = Pending::None;
        Ok(())
    }
    fn serialize_some<T: Serialize + ?Sized>(self, v: &T) -> Result<(), Error> {
        v.serialize(self)
    }
    fn serialize_unit(self) -> Result<(), Error> {
        self.sink().open_structure();
        self.sink.close_structure();
        Ok(())
    }
    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Error> {
        self.serialize_unit()
    }
    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), Error> {
        self.serialize_str(variant)
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, name: &'static str, v: &T) -> Result<(), Error> {
        self.stamp = name == TIMESTAMP;
        v.serialize(self)
    }
    /// A union: a structure of one member.
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        v: &T,
    ) -> Result<(), Error> {
        self.sink().open_structure();
        self.pending = Pending::Member(variant);
        v.serialize(&mut *self)?;
        self.sink.close_structure();
        Ok(())
    }
    fn serialize_seq(self, _: Option<usize>) -> Result<Self, Error> {
        self.sink().open_list();
        Ok(self)
    }
    fn serialize_tuple(self, n: usize) -> Result<Self, Error> {
        self.serialize_seq(Some(n))
    }
    fn serialize_tuple_struct(self, _: &'static str, n: usize) -> Result<Self, Error> {
        self.serialize_seq(Some(n))
    }
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Error> {
        Err(ser::Error::custom("a union's member must be one value"))
    }
    fn serialize_map(self, _: Option<usize>) -> Result<Self, Error> {
        self.sink().open_map();
        Ok(self)
    }
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, Error> {
        self.sink().open_structure();
        Ok(self)
    }
    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Error> {
        Err(ser::Error::custom("a union's member must be a shape of its own"))
    }
}

macro_rules! elements {
    ($($tr:ident $method:ident)*) => {$(
        impl ser::$tr for &mut Encoder<'_> {
            type Ok = ();
            type Error = Error;
            fn $method<T: Serialize + ?Sized>(&mut self, v: &T) -> Result<(), Error> {
                v.serialize(&mut **self)
            }
            fn end(self) -> Result<(), Error> {
                self.sink.close_list();
                Ok(())
            }
        }
    )*};
}
elements! { SerializeSeq serialize_element SerializeTuple serialize_element SerializeTupleStruct serialize_field }

impl ser::SerializeStruct for &mut Encoder<'_> {
    type Ok = ();
    type Error = Error;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, v: &T) -> Result<(), Error> {
        self.pending = Pending::Member(key);
        v.serialize(&mut **self)
    }
    fn end(self) -> Result<(), Error> {
        self.sink.close_structure();
        Ok(())
    }
}

impl ser::SerializeMap for &mut Encoder<'_> {
    type Ok = ();
    type Error = Error;
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        let mut name = KeyName(String::new());
        encode(key, &mut name)?;
        self.pending = Pending::Entry(name.0);
        Ok(())
    }
    fn serialize_value<T: Serialize + ?Sized>(&mut self, v: &T) -> Result<(), Error> {
        v.serialize(&mut **self)
    }
    fn end(self) -> Result<(), Error> {
        self.sink.close_map();
        Ok(())
    }
}

/// Takes a map's key, which AWS has only as strings and string enums.
struct KeyName(String);

impl Sink for KeyName {
    fn key(&mut self, _: &str) {}
    fn open_structure(&mut self) {}
    fn close_structure(&mut self) {}
    fn open_list(&mut self) {}
    fn close_list(&mut self) {}
    fn boolean(&mut self, v: bool) {
        self.0 = v.to_string();
    }
    fn integer(&mut self, v: i64) {
        self.0 = v.to_string();
    }
    fn double(&mut self, v: f64) {
        self.0 = v.to_string();
    }
    fn string(&mut self, v: &str) {
        self.0 = v.to_owned();
    }
    fn blob(&mut self, _: &[u8]) {}
    fn timestamp(&mut self, _: i64) {}
}
