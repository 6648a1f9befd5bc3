//! What reading and writing metrics have in common: identities, periods and where an answer's periods begin.

use super::errors;
use super::shapes::Dimension;
use crate::model::metric::MetricKey;
use crate::model::{Millis, Timestamp};
use crate::wire::fault::Fault;

const DAY_MS: Millis = 86_400_000;
const MOST_DIMENSIONS: usize = 30;

pub fn key(namespace: &str, name: &str, dimensions: &[Dimension]) -> MetricKey {
    MetricKey::new(namespace, name, dimensions.iter().map(|d| (d.name.as_str(), d.value.as_str())))
}

/// CloudWatch, Dimension: a name of 1 to 255 and a value of 1 to 1024 ASCII characters, at least one of them no space, none a
/// control character; a name does not begin with a colon. `at` is the list's path.
pub fn check_dimensions(dimensions: &[Dimension], at: &str) -> Result<(), Fault> {
    if dimensions.len() > MOST_DIMENSIONS {
        return Err(errors::too_many(at, MOST_DIMENSIONS));
    }
    for (n, dimension) in (1..).zip(dimensions) {
        for (member, text, most) in [("Name", &dimension.name, 255), ("Value", &dimension.value, 1024)] {
            let path = || format!("{at}.member.{n}.{member}");
            if text.trim().is_empty() {
                return Err(errors::missing(&path()));
            }
            let colon = member == "Name" && text.starts_with(':');
            if text.len() > most || colon || !text.bytes().all(|b| (b' '..=b'~').contains(&b)) {
                return Err(errors::value(format!("The value {} for parameter {} is invalid.", short(text), path())));
            }
        }
        if dimensions[..n - 1].iter().any(|d| d.name == dimension.name) {
            return Err(errors::value(format!("The parameter {at} names the dimension {} twice.", short(&dimension.name))));
        }
    }
    Ok(())
}

/// What of a client's text may stand in an error.
pub fn short(text: &str) -> String {
    text.chars().take(128).collect()
}

/// 1, 5, 10, 20, 30 or a multiple of 60 seconds, at most a day (GetMetricStatistics, "Period").
pub fn period_ms(period_s: i32) -> Option<Millis> {
    let valid = matches!(period_s, 1 | 5 | 10 | 20 | 30) || (period_s > 0 && period_s % 60 == 0);
    (valid && period_s <= 86_400).then(|| Millis::from(period_s) * 1_000)
}

/// Where an answer's periods begin (GetMetricStatistics, "StartTime"): the older the start, the coarser the grid.
pub fn rounded_start(start: Timestamp, period_ms: Millis, now: Timestamp) -> Timestamp {
    let age = now.since(start);
    start.floor(match age {
        _ if age > 63 * DAY_MS => 3_600_000,
        _ if age > 15 * DAY_MS => 300_000,
        _ if period_ms < 60_000 => period_ms,
        _ => 60_000,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods() {
        let valid: Vec<i32> = [0, -60, 1, 2, 5, 10, 15, 20, 30, 45, 60, 90, 120, 86_400, 86_460]
            .into_iter()
            .filter(|period| period_ms(*period).is_some())
            .collect();
        assert_eq!(valid, [1, 5, 10, 20, 30, 60, 120, 86_400]);
    }

    #[test]
    fn starts() {
        let now = Timestamp(1_795_176_000_000);
        let at = |age: Millis| now - age;
        assert_eq!(rounded_start(at(61_500), 1_000, now), at(62_000));
        assert_eq!(rounded_start(at(61_500), 10_000, now), at(70_000));
        assert_eq!(rounded_start(at(61_500), 300_000, now), at(120_000));
        assert_eq!(rounded_start(at(16 * DAY_MS + 1), 300_000, now), at(16 * DAY_MS + 300_000));
        assert_eq!(rounded_start(at(64 * DAY_MS + 1), 3_600_000, now), at(64 * DAY_MS + 3_600_000));
    }

    #[test]
    fn dimensions() {
        let check = |name: &str, value: &str| {
            let dimension = Dimension { name: name.to_owned(), value: value.to_owned() };
            check_dimensions(&[dimension], "D").map_err(|fault| fault.message)
        };
        assert_eq!(check("host", "a b"), Ok(()));
        assert_eq!(check("host", " "), Err("The parameter D.member.1.Value is required.".to_owned()));
        assert_eq!(check(":host", "a"), Err("The value :host for parameter D.member.1.Name is invalid.".to_owned()));
        assert!(check("host", "a\nb").is_err());
        let one = Dimension { name: "a".to_owned(), value: "b".to_owned() };
        assert!(check_dimensions(&[one.clone(), one.clone()], "D").is_err());
        assert!(check_dimensions(&vec![one; 31], "D").is_err());
    }
}
