//! Next tokens: opaque to clients, and for us the place where the last page ended, so that a page does not depend on what came or
//! went since.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::errors;
use crate::wire::fault::Fault;

/// `kind` keeps one operation's token from being another's.
pub fn write<T: Serialize>(kind: &str, place: &T) -> String {
    let text = serde_json::to_string(&(kind, place)).expect("plain values are JSON");
    URL_SAFE_NO_PAD.encode(text)
}

pub fn read<T: DeserializeOwned>(kind: &str, token: Option<&str>) -> Result<Option<T>, Fault> {
    let Some(token) = token else { return Ok(None) };
    let place = || {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (said, place): (String, T) = serde_json::from_slice(&bytes).ok()?;
        (said == kind).then_some(place)
    };
    place().map(Some).ok_or_else(errors::next_token)
}

/// MaxRecords of the operations on alarms: 1 to 100.
pub fn max_records(given: Option<i32>, default: usize) -> Result<usize, Fault> {
    match given {
        None => Ok(default),
        Some(records @ 1..=100) => Ok(records as usize),
        Some(records) => {
            let bound = if records < 1 { "greater than or equal to 1" } else { "less than or equal to 100" };
            Err(errors::constraint("maxRecords", &records.to_string(), &format!("Member must have value {bound}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_its_own_operations() {
        let token = write("list", &("a", 7));
        assert_eq!(read::<(String, i64)>("list", Some(&token)).unwrap(), Some(("a".to_owned(), 7)));
        assert_eq!(read::<(String, i64)>("list", None).unwrap(), None);
        for (kind, token) in [("alarms", token.as_str()), ("list", "nonsense"), ("list", "")] {
            assert!(read::<(String, i64)>(kind, Some(token)).is_err());
        }
    }
}
