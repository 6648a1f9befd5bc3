//! Space-delimited patterns: `[ip, user, ..., status = 4*, bytes > 1000]`.

use super::Error;
use super::scan::{Scanner, Tree};
use super::value::Comparison;

/// Fields from the front, and from the back if there is a `...` between.
#[derive(Debug, Default)]
pub struct Fields {
    front: Vec<Field>,
    back: Option<Vec<Field>>,
}

/// What a field must satisfy; None: it only has to be there.
#[derive(Debug)]
struct Field(Option<Tree<Comparison>>);

pub fn parse(scanner: &mut Scanner) -> Result<Fields, Error> {
    scanner.need("[")?;
    let mut fields = Fields::default();
    loop {
        scanner.space();
        if scanner.take("...") {
            if fields.back.is_some() {
                return Err(Error::new("... may stand once"));
            }
            fields.back = Some(Vec::new());
        } else {
            let field = field(scanner)?;
            fields.back.as_mut().unwrap_or(&mut fields.front).push(field);
        }
        if scanner.take("]") {
            break;
        }
        scanner.need(",")?;
    }
    scanner.space();
    match scanner.end() {
        true => Ok(fields),
        false => Err(Error::new(format!("nothing may follow the closing bracket, but '{}' does", scanner.ahead()))),
    }
}

fn field(scanner: &mut Scanner) -> Result<Field, Error> {
    if let Some(',' | ']') = scanner.peek() {
        return Ok(Field(None));
    }
    if scanner.peek() != Some('(') {
        let mut ahead = Scanner::new(scanner.rest());
        name(&mut ahead)?;
        ahead.space();
        if matches!(ahead.peek(), None | Some(',' | ']')) {
            name(scanner)?;
            return Ok(Field(None));
        }
    }
    // A field's conditions repeat its name: `w1 != ERROR && w1 != WARN`.
    let own = std::cell::RefCell::new(None::<String>);
    let tree = scanner.tree(&|scanner| {
        let found = name(scanner)?;
        let mut own = own.borrow_mut();
        if own.as_ref().is_some_and(|own| *own != found) {
            return Err(Error::new(format!("the conditions of one field name one field, not '{found}' too")));
        }
        *own = Some(found);
        scanner.comparison()
    })?;
    Ok(Field(Some(tree)))
}

fn name(scanner: &mut Scanner) -> Result<String, Error> {
    scanner.space();
    let name = scanner.word(|c| c.is_alphanumeric() || c == '_' || c == '-');
    match name.is_empty() {
        true => Err(Error::new(format!("a field's name is expected before '{}'", scanner.ahead()))),
        false => Ok(name.to_owned()),
    }
}

impl Fields {
    pub fn matches(&self, message: &str) -> bool {
        let found = split(message);
        let back = self.back.as_deref().unwrap_or_default();
        let named = self.front.len() + back.len();
        let fits = if self.back.is_some() { found.len() >= named } else { found.len() == named };
        if !fits {
            return false;
        }
        let holds =
            |(field, value): (&Field, &&str)| field.0.as_ref().is_none_or(|tree| tree.holds(&|c| c.holds_for_field(value)));
        self.front.iter().zip(&found).all(holds) && back.iter().zip(&found[found.len() - back.len()..]).all(holds)
    }
}

/// "Characters between square brackets or double quotation marks are treated as a single field", without the delimiters.
fn split(message: &str) -> Vec<&str> {
    let mut fields = Vec::new();
    let mut rest = message.trim_start();
    while let Some(first) = rest.chars().next() {
        let close = match first {
            '"' => rest[1..].find('"'),
            '[' => rest[1..].find(']'),
            _ => None,
        };
        let (field, behind) = match close {
            Some(end) => (&rest[1..end + 1], &rest[end + 2..]),
            None => rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len())),
        };
        fields.push(field);
        rest = behind.trim_start();
    }
    fields
}
