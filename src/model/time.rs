//! Points in time and lengths of time, both in milliseconds.

use std::fmt;
use std::ops::{Add, Sub};

use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch. The serde name is the mark by which `wire` recognises a timestamp (JSON writes seconds,
/// query ISO 8601, CBOR tag 1); through plain serde_json, as in our own files, it is the integer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename = "$Timestamp")]
pub struct Timestamp(pub i64);

/// A length of time in milliseconds, never negative where it is a setting.
pub type Millis = i64;

impl Timestamp {
    pub const ZERO: Timestamp = Timestamp(0);

    pub fn since(self, earlier: Timestamp) -> Millis {
        self.0 - earlier.0
    }

    /// The start of the period of `ms` milliseconds, counted from the epoch, that holds this moment.
    pub fn floor(self, ms: Millis) -> Timestamp {
        Timestamp(self.0.div_euclid(ms) * ms)
    }

    pub fn seconds(self) -> f64 {
        self.0 as f64 / 1000.0
    }

    fn jiff(self) -> jiff::Timestamp {
        jiff::Timestamp::from_millisecond(self.0).unwrap_or_default()
    }

    /// `2026-11-20T10:23:52.355Z`.
    pub fn iso(self) -> String {
        self.jiff().strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
    }

    /// `20/11/26 10:00:00`, as CloudWatch's StateReason writes a datapoint's time.
    pub fn in_state_reason(self) -> String {
        self.jiff().strftime("%d/%m/%y %H:%M:%S").to_string()
    }

    /// `2026-11-20T10:23:52.355+0000`, as CloudWatch's StateReasonData writes it.
    pub fn in_reason_data(self) -> String {
        self.jiff().strftime("%Y-%m-%dT%H:%M:%S.%3f+0000").to_string()
    }

    /// `10:23:52.355`, for people reading a terminal (UTC).
    pub fn clock(self) -> String {
        self.jiff().strftime("%H:%M:%S.%3f").to_string()
    }

    pub fn parse_iso(text: &str) -> Option<Timestamp> {
        text.parse::<jiff::Timestamp>().ok().map(|t| Timestamp(t.as_millisecond()))
    }
}

impl Add<Millis> for Timestamp {
    type Output = Timestamp;
    fn add(self, ms: Millis) -> Timestamp {
        Timestamp(self.0.saturating_add(ms))
    }
}

impl Sub<Millis> for Timestamp {
    type Output = Timestamp;
    fn sub(self, ms: Millis) -> Timestamp {
        Timestamp(self.0.saturating_sub(ms))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.iso())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_as_each_reader_expects() {
        let t = Timestamp(1_795_170_232_355);
        assert_eq!(t.iso(), "2026-11-20T10:23:52.355Z");
        assert_eq!(t.in_state_reason(), "20/11/26 10:23:52");
        assert_eq!(t.in_reason_data(), "2026-11-20T10:23:52.355+0000");
        assert_eq!(Timestamp::parse_iso(&t.iso()), Some(t));
        assert_eq!(t.floor(60_000).iso(), "2026-11-20T10:23:00.000Z");
    }
}
