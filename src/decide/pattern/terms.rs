//! Unstructured patterns: `ERROR "out of memory" -health ?warn %4\d\d%`.

use regex::Regex;

use super::Error;
use super::scan::Scanner;

/// Every `all`, none of `none`, and one of `any` if there are any.
#[derive(Debug, Default)]
pub struct Terms {
    all: Vec<Term>,
    none: Vec<Term>,
    any: Vec<Term>,
}

#[derive(Debug)]
enum Term {
    Text(String),
    Regex(Regex),
}

pub fn parse(scanner: &mut Scanner) -> Result<Terms, Error> {
    let mut terms = Terms::default();
    loop {
        scanner.space();
        if scanner.end() {
            break;
        }
        let list = if scanner.take("-") {
            &mut terms.none
        } else if scanner.take("?") {
            &mut terms.any
        } else {
            &mut terms.all
        };
        list.push(term(scanner)?);
    }
    // "If you combine the ? term with other terms, all ? terms are ignored."
    if !terms.all.is_empty() || !terms.none.is_empty() {
        terms.any.clear();
    }
    Ok(terms)
}

fn term(scanner: &mut Scanner) -> Result<Term, Error> {
    let term = match scanner.peek() {
        Some('"') => Term::Text(scanner.quoted('"')?),
        Some('%') => Term::Regex(scanner.regex()?),
        _ => {
            let word = scanner.word(|c| !c.is_whitespace());
            // "Terms that include characters other than alphanumeric must be placed inside double quotation marks."
            if word.is_empty() || word.chars().any(|c| !c.is_alphanumeric() && c != '_') {
                return Err(Error::new(format!("Invalid character(s) in term '{word}'")));
            }
            Term::Text(word.to_owned())
        }
    };
    match scanner.peek() {
        Some(c) if !c.is_whitespace() => Err(Error::new(format!("a space is expected before '{}'", scanner.ahead()))),
        _ => Ok(term),
    }
}

impl Terms {
    pub fn matches(&self, message: &str) -> bool {
        let found = |term: &Term| match term {
            Term::Text(text) => message.contains(text.as_str()),
            Term::Regex(regex) => regex.is_match(message),
        };
        self.all.iter().all(found) && !self.none.iter().any(found) && (self.any.is_empty() || self.any.iter().any(found))
    }
}
