//! Reading a pattern's text: words, quoted phrases, `%regex%`, and conditions joined by `&&` and `||`.

use regex::{Regex, RegexBuilder};

use super::Error;
use super::value::{Comparison, Operand, Operator};

pub struct Scanner<'a> {
    rest: &'a str,
    regexes: usize,
}

/// Conditions joined: `&&` binds tighter than `||`.
#[derive(Debug)]
pub enum Tree<T> {
    Any(Vec<Tree<T>>),
    All(Vec<Tree<T>>),
    Leaf(T),
}

/// "You can use a maximum of two regex in each filter pattern."
const MAX_REGEXES: usize = 2;
const MAX_REGEX_BYTES: usize = 1 << 20;
/// Parentheses inside parentheses.
const MAX_DEPTH: usize = 32;

impl<T> Tree<T> {
    pub fn holds(&self, leaf: &impl Fn(&T) -> bool) -> bool {
        match self {
            Tree::Any(trees) => trees.iter().any(|t| t.holds(leaf)),
            Tree::All(trees) => trees.iter().all(|t| t.holds(leaf)),
            Tree::Leaf(l) => leaf(l),
        }
    }
}

impl<'a> Scanner<'a> {
    pub fn new(text: &'a str) -> Scanner<'a> {
        Scanner { rest: text, regexes: 0 }
    }

    pub fn space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    pub fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    pub fn rest(&self) -> &'a str {
        self.rest
    }

    pub fn end(&self) -> bool {
        self.rest.is_empty()
    }

    /// Takes `text` if it comes next, after any space.
    pub fn take(&mut self, text: &str) -> bool {
        self.space();
        let rest = self.rest.strip_prefix(text);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    pub fn need(&mut self, text: &str) -> Result<(), Error> {
        match self.take(text) {
            true => Ok(()),
            false => Err(Error::new(format!("'{text}' is expected before '{}'", self.ahead()))),
        }
    }

    /// What comes next, for a message.
    pub fn ahead(&self) -> String {
        match self.rest.is_empty() {
            true => "the end".to_owned(),
            false => self.rest.chars().take(20).collect(),
        }
    }

    pub fn word(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !wanted(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    /// What stands between two `mark`s, the first of which comes next; `\` keeps a mark inside.
    pub fn quoted(&mut self, mark: char) -> Result<String, Error> {
        let mut chars = self.rest.char_indices().skip(1);
        let mut out = String::new();
        while let Some((at, c)) = chars.next() {
            if c == mark {
                self.rest = &self.rest[at + mark.len_utf8()..];
                return Ok(out);
            }
            match c {
                '\\' => match chars.next() {
                    Some((_, next)) if next == mark || next == '\\' => out.push(next),
                    Some((_, next)) => out.extend(['\\', next]),
                    None => break,
                },
                c => out.push(c),
            }
        }
        Err(Error::new(format!("{mark} is never closed")))
    }

    /// `%...%`: "alphanumeric characters", `: _ # = @ / ; , -` and space, and `^ $ ? [ ] { } | \ * + .`; no parentheses.
    pub fn regex(&mut self) -> Result<Regex, Error> {
        self.regexes += 1;
        if self.regexes > MAX_REGEXES {
            return Err(Error::new(format!("it may hold {MAX_REGEXES} regular expressions")));
        }
        let body = &self.rest[1..];
        let end = body.find('%').ok_or_else(|| Error::new("% is never closed"))?;
        let (text, rest) = (&body[..end], &body[end + 1..]);
        self.rest = rest;
        let allowed = |c: char| c.is_ascii_alphanumeric() || ":_#=@/;,- ^$?[]{}|\\*+.".contains(c);
        if let Some(c) = text.chars().find(|c| !allowed(*c)) {
            return Err(Error::new(format!("'{c}' may not stand in a regular expression")));
        }
        if text.is_empty() {
            return Err(Error::new("a regular expression is empty"));
        }
        escapes(text)?;
        let built = RegexBuilder::new(text).size_limit(MAX_REGEX_BYTES).dfa_size_limit(MAX_REGEX_BYTES).build();
        built.map_err(|_| Error::new(format!("%{text}% is no regular expression that can be used")))
    }

    /// Conditions, each read by `leaf`, joined by `&&`, `||` and parentheses.
    pub fn tree<T>(&mut self, leaf: &impl Fn(&mut Scanner<'a>) -> Result<T, Error>) -> Result<Tree<T>, Error> {
        self.any(leaf, 0)
    }

    fn any<T>(&mut self, leaf: &impl Fn(&mut Scanner<'a>) -> Result<T, Error>, depth: usize) -> Result<Tree<T>, Error> {
        let mut trees = vec![self.all(leaf, depth)?];
        while self.take("||") {
            trees.push(self.all(leaf, depth)?);
        }
        Ok(Tree::Any(trees))
    }

    fn all<T>(&mut self, leaf: &impl Fn(&mut Scanner<'a>) -> Result<T, Error>, depth: usize) -> Result<Tree<T>, Error> {
        let mut trees = vec![self.one(leaf, depth)?];
        while self.take("&&") {
            trees.push(self.one(leaf, depth)?);
        }
        Ok(Tree::All(trees))
    }

    fn one<T>(&mut self, leaf: &impl Fn(&mut Scanner<'a>) -> Result<T, Error>, depth: usize) -> Result<Tree<T>, Error> {
        if !self.take("(") {
            self.space();
            return leaf(self).map(Tree::Leaf);
        }
        if depth == MAX_DEPTH {
            return Err(Error::new(format!("parentheses go deeper than {MAX_DEPTH}")));
        }
        let tree = self.any(leaf, depth + 1)?;
        self.need(")")?;
        Ok(tree)
    }

    /// An operator and a value: `= "x*"`, `>= 1e3`, `!= %re%`.
    pub fn comparison(&mut self) -> Result<Comparison, Error> {
        let operators = [
            ("!=", Operator::NotEqual),
            ("<=", Operator::AtMost),
            (">=", Operator::AtLeast),
            ("=", Operator::Equal),
            ("<", Operator::Less),
            (">", Operator::More),
        ];
        let operator = operators.into_iter().find(|(sign, _)| self.take(sign)).map(|(_, operator)| operator);
        let operator = operator.ok_or_else(|| Error::new(format!("an operator is expected before '{}'", self.ahead())))?;
        self.space();
        let operand = match self.peek() {
            Some('"') => Operand::text(&self.quoted('"')?),
            Some('%') => Operand::Regex(self.regex()?),
            _ => {
                let word = self.word(|c| c.is_alphanumeric() || "_*.+-:/@#".contains(c));
                if word.is_empty() {
                    return Err(Error::new(format!("a value is expected before '{}'", self.ahead())));
                }
                Operand::bare(word)
            }
        };
        Comparison::new(operator, operand)
    }
}

/// Only the classes that AWS lists; `\b`, `\p{..}` and their like are not among them.
fn escapes(text: &str) -> Result<(), Error> {
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            continue;
        }
        match chars.next() {
            Some(c) if c.is_ascii_alphanumeric() && !"dDsSwWxnrt".contains(c) => {
                return Err(Error::new(format!("\\{c} may not stand in a regular expression")));
            }
            Some(_) => (),
            None => return Err(Error::new("a regular expression ends with \\")),
        }
    }
    Ok(())
}
