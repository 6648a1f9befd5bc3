//! One comparison: numbers by value, everything else as text with `*` standing for anything.

use regex::Regex;

use super::Error;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    Equal,
    NotEqual,
    Less,
    More,
    AtMost,
    AtLeast,
}

#[derive(Debug)]
pub enum Operand {
    /// With the text it was written as: `404` equals the string "404" too.
    Number(f64, Glob),
    Text(Glob),
    Regex(Regex),
}

#[derive(Debug)]
pub struct Comparison {
    operator: Operator,
    operand: Operand,
}

/// Text in which `*` stands for any run of characters: the parts between the stars.
#[derive(Debug)]
pub struct Glob(Vec<String>);

impl Operand {
    pub fn text(text: &str) -> Operand {
        Operand::Text(Glob::new(text))
    }
    /// Without quotes a number is a number.
    pub fn bare(text: &str) -> Operand {
        match number(text) {
            Some(n) => Operand::Number(n, Glob::new(text)),
            None => Operand::text(text),
        }
    }
}

impl Comparison {
    pub fn new(operator: Operator, operand: Operand) -> Result<Comparison, Error> {
        let equality = matches!(operator, Operator::Equal | Operator::NotEqual);
        if !equality && !matches!(operand, Operand::Number(..)) {
            return Err(Error::new("<, >, <= and >= compare numbers only"));
        }
        Ok(Comparison { operator, operand })
    }

    pub fn holds_for_number(&self, value: f64, text: &str) -> bool {
        match &self.operand {
            Operand::Number(wanted, _) => match self.operator {
                Operator::Equal => value == *wanted,
                Operator::NotEqual => value != *wanted,
                Operator::Less => value < *wanted,
                Operator::More => value > *wanted,
                Operator::AtMost => value <= *wanted,
                Operator::AtLeast => value >= *wanted,
            },
            _ => self.holds_for_text(text),
        }
    }

    pub fn holds_for_text(&self, value: &str) -> bool {
        let equal = match &self.operand {
            Operand::Number(_, glob) | Operand::Text(glob) => glob.matches(value),
            Operand::Regex(regex) => regex.is_match(value),
        };
        match self.operator {
            Operator::Equal => equal,
            Operator::NotEqual => !equal,
            _ => false,
        }
    }

    /// A field of a space-delimited event is a number when it reads as one.
    pub fn holds_for_field(&self, value: &str) -> bool {
        match number(value) {
            Some(n) => self.holds_for_number(n, value),
            None => self.holds_for_text(value),
        }
    }
}

/// Digits with sign, point and exponent; Rust would read `inf` and `nan` too.
fn number(text: &str) -> Option<f64> {
    let digits = text.bytes().any(|b| b.is_ascii_digit());
    let number = digits && text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    number.then(|| text.parse().ok()).flatten()
}

impl Glob {
    pub fn new(text: &str) -> Glob {
        Glob(text.split('*').map(str::to_owned).collect())
    }

    pub fn matches(&self, value: &str) -> bool {
        let [first, middle @ .., last] = self.0.as_slice() else {
            return self.0.first().is_some_and(|only| only == value);
        };
        let Some(mut rest) = value.strip_prefix(first.as_str()).and_then(|v| v.strip_suffix(last.as_str())) else { return false };
        for part in middle {
            match rest.find(part.as_str()) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        true
    }
}
