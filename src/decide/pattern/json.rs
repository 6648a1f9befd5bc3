//! JSON patterns: `{ ($.status >= 500 && $.path = "/api/*") || $.user NOT EXISTS }`.

use serde_json::Value;

use super::Error;
use super::scan::{Scanner, Tree};
use super::value::Comparison;

#[derive(Debug)]
pub struct Json(Tree<Condition>);

#[derive(Debug)]
struct Condition {
    selector: Vec<Step>,
    test: Test,
}

#[derive(Debug)]
enum Step {
    Member(String),
    Index(usize),
    /// `.*` or `[*]`.
    Every,
}

#[derive(Debug)]
enum Test {
    Compares(Comparison),
    IsNull,
    Is(bool),
    NotExists,
}

pub fn parse(scanner: &mut Scanner) -> Result<Json, Error> {
    scanner.need("{")?;
    let tree = scanner.tree(&condition)?;
    scanner.need("}")?;
    scanner.space();
    match scanner.end() {
        true => Ok(Json(tree)),
        false => Err(Error::new(format!("nothing may follow the closing brace, but '{}' does", scanner.ahead()))),
    }
}

fn condition(scanner: &mut Scanner) -> Result<Condition, Error> {
    let selector = selector(scanner)?;
    scanner.space();
    let test = if scanner.peek().is_some_and(char::is_alphabetic) {
        let first = scanner.word(char::is_alphabetic);
        scanner.space();
        let second = scanner.word(char::is_alphabetic);
        match (first, second) {
            ("IS", "NULL") => Test::IsNull,
            ("IS", "TRUE") => Test::Is(true),
            ("IS", "FALSE") => Test::Is(false),
            ("NOT", "EXISTS") => Test::NotExists,
            _ => {
                return Err(Error::new(format!(
                    "'{first} {second}' is no condition: IS NULL, IS TRUE, IS FALSE, NOT EXISTS are"
                )));
            }
        }
    } else {
        Test::Compares(scanner.comparison()?)
    };
    Ok(Condition { selector, test })
}

fn selector(scanner: &mut Scanner) -> Result<Vec<Step>, Error> {
    scanner.need("$")?;
    let mut steps = Vec::new();
    loop {
        let step = match scanner.peek() {
            Some('.') => {
                scanner.take(".");
                match scanner.peek() {
                    Some('[') => bracket(scanner)?,
                    Some('*') => {
                        scanner.take("*");
                        Step::Every
                    }
                    _ => {
                        let name = scanner.word(|c| c.is_alphanumeric() || c == '_' || c == '-');
                        if name.is_empty() {
                            return Err(Error::new(format!("a property name is expected before '{}'", scanner.ahead())));
                        }
                        Step::Member(name.to_owned())
                    }
                }
            }
            Some('[') => bracket(scanner)?,
            _ => break,
        };
        steps.push(step);
    }
    if steps.is_empty() {
        return Err(Error::new("a selector names a property: $.name"));
    }
    // "You can use only one wildcard in a property selector."
    if steps.iter().filter(|s| matches!(s, Step::Every)).count() > 1 {
        return Err(Error::new("a selector may hold one wildcard"));
    }
    Ok(steps)
}

fn bracket(scanner: &mut Scanner) -> Result<Step, Error> {
    scanner.need("[")?;
    let step = match scanner.peek() {
        Some(mark @ ('\'' | '"')) => Step::Member(scanner.quoted(mark)?),
        Some('*') => {
            scanner.take("*");
            Step::Every
        }
        _ => {
            let digits = scanner.word(|c| c.is_ascii_digit());
            Step::Index(digits.parse().map_err(|_| Error::new("between [ and ] stands a number, * or a quoted name"))?)
        }
    };
    scanner.need("]")?;
    Ok(step)
}

impl Json {
    pub fn matches(&self, message: &str) -> bool {
        // Cheaper than to have it parsed: most lines that are no JSON do not begin like it.
        if !message.trim_start().starts_with(['{', '[']) {
            return false;
        }
        let Ok(event) = serde_json::from_str::<Value>(message) else { return false };
        self.0.holds(&|condition| condition.holds(&event))
    }
}

impl Condition {
    fn holds(&self, event: &Value) -> bool {
        match &self.test {
            Test::NotExists => !reaches(event, &self.selector, &|_| true),
            test => reaches(event, &self.selector, &|value| test.holds(value)),
        }
    }
}

impl Test {
    fn holds(&self, value: &Value) -> bool {
        match (self, value) {
            (Test::IsNull, value) => value.is_null(),
            (Test::Is(wanted), value) => value.as_bool() == Some(*wanted),
            (Test::Compares(c), Value::String(text)) => c.holds_for_text(text),
            (Test::Compares(c), Value::Bool(flag)) => c.holds_for_text(if *flag { "true" } else { "false" }),
            (Test::Compares(c), Value::Number(n)) => c.holds_for_number(n.as_f64().unwrap_or(f64::NAN), &n.to_string()),
            // "If the selector points to an array or object, the filter does not match the log format."
            (Test::Compares(_) | Test::NotExists, _) => false,
        }
    }
}

/// Whether a value that the selector leads to satisfies `test`.
fn reaches(value: &Value, steps: &[Step], test: &impl Fn(&Value) -> bool) -> bool {
    let Some((step, rest)) = steps.split_first() else { return test(value) };
    match (step, value) {
        (Step::Member(name), Value::Object(members)) => members.get(name).is_some_and(|v| reaches(v, rest, test)),
        (Step::Index(i), Value::Array(items)) => items.get(*i).is_some_and(|v| reaches(v, rest, test)),
        (Step::Every, Value::Array(items)) => items.iter().any(|v| reaches(v, rest, test)),
        (Step::Every, Value::Object(members)) => members.values().any(|v| reaches(v, rest, test)),
        _ => false,
    }
}
