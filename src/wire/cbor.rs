//! rpc-v2-cbor bodies (RFC 8949): bytes to [`Node`], and the CBOR [`Sink`].
//! Never allocates by a length that the sender claims.

use std::borrow::Cow;

use super::encode::Sink;
use super::node::{Budget, Malformed, Node, deeper};
use super::types::Timestamp;

const BREAK: u8 = 0xff;

/// An empty body is an empty structure.
pub fn parse(body: &[u8]) -> Result<Node<'_>, Malformed> {
    if body.is_empty() {
        return Ok(Node::Map(Vec::new()));
    }
    let mut reader = Reader { rest: body, budget: Budget::new() };
    let node = reader.item(0)?;
    if reader.rest.is_empty() { Ok(node) } else { Err(Malformed::new("bytes after the CBOR item")) }
}

struct Reader<'a> {
    rest: &'a [u8],
    budget: Budget,
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: u64) -> Result<&'a [u8], Malformed> {
        let n = usize::try_from(n).ok().filter(|n| *n <= self.rest.len()).ok_or_else(|| Malformed::new("CBOR ends early"))?;
        let (head, rest) = self.rest.split_at(n);
        self.rest = rest;
        Ok(head)
    }

    /// Major type, additional information, and its argument (None: indefinite length).
    fn head(&mut self) -> Result<(u8, u8, Option<u64>), Malformed> {
        let first = self.take(1)?[0];
        let (major, info) = (first >> 5, first & 31);
        let argument = match info {
            0..=23 => Some(u64::from(info)),
            24..=27 => Some(self.take(1 << (info - 24))?.iter().fold(0, |n, b| n << 8 | u64::from(*b))),
            31 => None,
            _ => return Err(Malformed::new("bad CBOR header")),
        };
        Ok((major, info, argument))
    }

    /// True, and past it, at the end of a container of `left` items or of indefinite length.
    fn ended(&mut self, left: &mut Option<u64>) -> Result<bool, Malformed> {
        match left {
            Some(0) => return Ok(true),
            Some(n) => *n -= 1,
            None if self.rest.first() == Some(&BREAK) => return self.take(1).map(|_| true),
            None => {}
        }
        Ok(false)
    }

    fn item(&mut self, depth: usize) -> Result<Node<'a>, Malformed> {
        self.budget.take()?;
        let (major, info, argument) = self.head()?;
        let integer = |n: u64| i64::try_from(n).map_err(|_| Malformed::new("integer does not fit a long"));
        Ok(match (major, argument) {
            (0, Some(n)) => Node::Int(integer(n)?),
            (1, Some(n)) => Node::Int(-1 - integer(n)?),
            (2, n) => Node::Bytes(self.string(2, n)?),
            (3, n) => Node::Str(text(self.string(3, n)?)?),
            (4, mut left) => {
                let (depth, mut items) = (deeper(depth)?, Vec::new());
                while !self.ended(&mut left)? {
                    items.push(self.item(depth)?);
                }
                Node::List(items)
            }
            (5, mut left) => {
                let (depth, mut members) = (deeper(depth)?, Vec::new());
                while !self.ended(&mut left)? {
                    let (3, _, n) = self.head()? else { return Err(Malformed::new("a map key must be text")) };
                    let key = text(self.string(3, n)?)?;
                    members.push((key, self.item(depth)?));
                }
                Node::Map(members)
            }
            (6, Some(1)) => match self.item(deeper(depth)?)? {
                Node::Int(s) => Node::Stamp(s.checked_mul(1000).ok_or_else(|| Malformed::new("timestamp out of range"))?),
                Node::Float(s) => {
                    Node::Stamp(Timestamp::from_seconds(s).ok_or_else(|| Malformed::new("timestamp out of range"))?.0)
                }
                _ => return Err(Malformed::new("tag 1 must hold a number")),
            },
            (7, Some(n)) => match info {
                20 => Node::Bool(false),
                21 => Node::Bool(true),
                22 | 23 => Node::Null,
                25 => Node::Float(half(n as u16)),
                26 => Node::Float(f64::from(f32::from_bits(n as u32))),
                27 => Node::Float(f64::from_bits(n)),
                _ => return Err(Malformed::new("unknown CBOR simple value")),
            },
            _ => return Err(Malformed::new("unsupported CBOR item")),
        })
    }

    fn string(&mut self, major: u8, length: Option<u64>) -> Result<Cow<'a, [u8]>, Malformed> {
        if let Some(n) = length {
            return self.take(n).map(Cow::Borrowed);
        }
        let mut whole = Vec::new();
        while !self.ended(&mut None)? {
            match self.head()? {
                (m, _, Some(n)) if m == major => whole.extend_from_slice(self.take(n)?),
                _ => return Err(Malformed::new("bad chunk in a CBOR string")),
            }
        }
        Ok(Cow::Owned(whole))
    }
}

fn text(bytes: Cow<'_, [u8]>) -> Result<Cow<'_, str>, Malformed> {
    let bad = |_| Malformed::new("text is not UTF-8");
    match bytes {
        Cow::Borrowed(b) => std::str::from_utf8(b).map(Cow::Borrowed).map_err(bad),
        Cow::Owned(b) => String::from_utf8(b).map(Cow::Owned).map_err(|e| bad(e.utf8_error())),
    }
}

fn half(bits: u16) -> f64 {
    let (exponent, mantissa) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023));
    let magnitude = match exponent {
        0 => mantissa * 2f64.powi(-24),
        31 => {
            if mantissa == 0.0 {
                f64::INFINITY
            } else {
                f64::NAN
            }
        }
        e => (mantissa + 1024.0) * 2f64.powi(e - 25),
    };
    if bits >> 15 == 1 { -magnitude } else { magnitude }
}

/// Structures and lists are written with indefinite length: absent members are known only when reached.
#[derive(Default)]
pub struct Cbor(pub Vec<u8>);

impl Cbor {
    fn head(&mut self, major: u8, n: u64) {
        let major = major << 5;
        match n {
            0..=23 => self.0.push(major | n as u8),
            24..=0xff => self.0.extend([major | 24, n as u8]),
            0x100..=0xffff => {
                self.0.push(major | 25);
                self.0.extend((n as u16).to_be_bytes());
            }
            0x1_0000..=0xffff_ffff => {
                self.0.push(major | 26);
                self.0.extend((n as u32).to_be_bytes());
            }
            _ => {
                self.0.push(major | 27);
                self.0.extend(n.to_be_bytes());
            }
        }
    }
}

impl Sink for Cbor {
    fn key(&mut self, key: &str) {
        self.string(key);
    }
    fn open_structure(&mut self) {
        self.0.push(0xbf);
    }
    fn close_structure(&mut self) {
        self.0.push(BREAK);
    }
    fn open_list(&mut self) {
        self.0.push(0x9f);
    }
    fn close_list(&mut self) {
        self.0.push(BREAK);
    }
    fn boolean(&mut self, v: bool) {
        self.0.push(if v { 0xf5 } else { 0xf4 });
    }
    fn integer(&mut self, v: i64) {
        if v < 0 { self.head(1, (-1 - v) as u64) } else { self.head(0, v as u64) }
    }
    fn double(&mut self, v: f64) {
        self.0.push(0xfb);
        self.0.extend(v.to_be_bytes());
    }
    fn string(&mut self, v: &str) {
        self.head(3, v.len() as u64);
        self.0.extend_from_slice(v.as_bytes());
    }
    fn blob(&mut self, v: &[u8]) {
        self.head(2, v.len() as u64);
        self.0.extend_from_slice(v);
    }
    fn timestamp(&mut self, ms: i64) {
        self.head(6, 1);
        if ms % 1000 == 0 { self.integer(ms / 1000) } else { self.double(ms as f64 / 1000.0) }
    }
}
