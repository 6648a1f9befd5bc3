//! From text to tests: `subject operator [argument]`, joined by and, or, not and parentheses; `and` binds tighter than `or`.

use regex::bytes::{Regex, RegexBuilder};

use super::{Comparison, Expression, MAX_CHARACTERS, MAX_NESTING, MAX_REGEX_BYTES, Node, ParseError, Test, TextTest, numbers_of};
use crate::model::Timestamp;

/// Every error says where in the text, and what should have stood there.
pub fn parse(text: &str) -> Result<Expression, ParseError> {
    if text.chars().count() > MAX_CHARACTERS {
        return Err(ParseError {
            position: MAX_CHARACTERS + 1,
            expected: format!("the end: an expression has at most {MAX_CHARACTERS} characters"),
        });
    }
    let mut reader = Reader { text, at: 0, nesting: 0 };
    let node = any(&mut reader)?;
    reader.skip_blanks();
    match reader.rest().is_empty() {
        true => Ok(Expression(node)),
        false => Err(reader.expected("and, or, or the end of the expression")),
    }
}

struct Reader<'a> {
    text: &'a str,
    /// In bytes, always on a character's edge.
    at: usize,
    nesting: usize,
}

/// One operator of the language, whichever of its two spellings was used.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equals(Sign),
    In(Sign),
    Matches(Sign),
    Exists(Sign),
    Order(Comparison),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sign {
    Plain,
    Negated,
}

/// Longer spellings stand before those they begin with.
const OPERATORS: &[(&str, Operator)] = &[
    ("==", Operator::Equals(Sign::Plain)),
    ("!=", Operator::Equals(Sign::Negated)),
    ("=~", Operator::Matches(Sign::Plain)),
    ("!~", Operator::Matches(Sign::Negated)),
    (">=", Operator::Order(Comparison::GreaterOrEqual)),
    ("<=", Operator::Order(Comparison::LessOrEqual)),
    (">", Operator::Order(Comparison::Greater)),
    ("<", Operator::Order(Comparison::Less)),
    ("!in", Operator::In(Sign::Negated)),
    ("!exists", Operator::Exists(Sign::Negated)),
    ("equals", Operator::Equals(Sign::Plain)),
    ("not_equals", Operator::Equals(Sign::Negated)),
    ("matches", Operator::Matches(Sign::Plain)),
    ("not_matches", Operator::Matches(Sign::Negated)),
    ("greater_than_equal", Operator::Order(Comparison::GreaterOrEqual)),
    ("less_than_equal", Operator::Order(Comparison::LessOrEqual)),
    ("greater_than", Operator::Order(Comparison::Greater)),
    ("less_than", Operator::Order(Comparison::Less)),
    ("in", Operator::In(Sign::Plain)),
    ("not_in", Operator::In(Sign::Negated)),
    ("exists", Operator::Exists(Sign::Plain)),
    ("not_exists", Operator::Exists(Sign::Negated)),
];

fn any(reader: &mut Reader) -> Result<Node, ParseError> {
    let mut nodes = vec![all(reader)?];
    while reader.takes("||") || reader.takes_word("or") {
        nodes.push(all(reader)?);
    }
    Ok(single_or(nodes, Node::Any))
}

fn all(reader: &mut Reader) -> Result<Node, ParseError> {
    let mut nodes = vec![one(reader)?];
    while reader.takes("&&") || reader.takes_word("and") {
        nodes.push(one(reader)?);
    }
    Ok(single_or(nodes, Node::All))
}

fn single_or(mut nodes: Vec<Node>, join: fn(Vec<Node>) -> Node) -> Node {
    if nodes.len() == 1 { nodes.remove(0) } else { join(nodes) }
}

fn one(reader: &mut Reader) -> Result<Node, ParseError> {
    reader.nesting += 1;
    if reader.nesting > MAX_NESTING {
        return Err(reader.expected(&format!("at most {MAX_NESTING} levels of parentheses and negations")));
    }
    let node = if reader.takes("!") || reader.takes_word("not") {
        Node::Not(Box::new(one(reader)?))
    } else if reader.takes("(") {
        let inner = any(reader)?;
        if !reader.takes(")") {
            return Err(reader.expected(")"));
        }
        inner
    } else {
        test(reader)?
    };
    reader.nesting -= 1;
    Ok(node)
}

fn test(reader: &mut Reader) -> Result<Node, ParseError> {
    let (subject, at) = reader.subject();
    if let Some(name) = subject.strip_prefix("attribute:") {
        if name.is_empty() {
            return Err(reader.expected("an attribute's name"));
        }
        return attribute_test(reader, name);
    }
    match subject {
        "agentConnected" => text_test(reader, Test::AgentConnected),
        "ec2InstanceId" => text_test(reader, Test::InstanceId),
        "task:group" => text_test(reader, Test::TaskGroup),
        "agentVersion" => ordered_test(reader, "a version such as 1.14.5", version, Test::AgentVersion),
        "registeredAt" => ordered_test(reader, "a date such as 2018-06-18 or 2018-06-18T22:28:28Z", moment, Test::RegisteredAt),
        "runningTasksCount" => ordered_test(reader, "a whole number", |t| t.parse().ok(), Test::RunningTasks),
        _ => Err(reader.expected_at(
            at,
            "attribute:NAME, agentConnected, agentVersion, ec2InstanceId, registeredAt, runningTasksCount or task:group",
        )),
    }
}

fn attribute_test(reader: &mut Reader, name: &str) -> Result<Node, ParseError> {
    let (operator, at) = reader.operator()?;
    let name = name.to_owned();
    match operator {
        Operator::Exists(sign) => Ok(signed(sign, Test::Exists(name))),
        Operator::Order(comparison) => Ok(Node::Test(Test::AttributeOrder(name, comparison, reader.word()?.0))),
        _ => {
            let (sign, text) = text_argument(reader, operator, at)?;
            Ok(signed(sign, Test::Attribute(name, text)))
        }
    }
}

fn text_test(reader: &mut Reader, make: fn(TextTest) -> Test) -> Result<Node, ParseError> {
    let (operator, at) = reader.operator()?;
    let (sign, text) = text_argument(reader, operator, at)?;
    Ok(signed(sign, make(text)))
}

fn text_argument(reader: &mut Reader, operator: Operator, at: usize) -> Result<(Sign, TextTest), ParseError> {
    match operator {
        Operator::Equals(sign) => Ok((sign, TextTest::Equals(reader.word()?.0))),
        Operator::In(sign) => Ok((sign, TextTest::In(reader.list()?))),
        Operator::Matches(sign) => {
            let (word, at) = reader.word()?;
            Ok((sign, TextTest::Matches(regex(&word).map_err(|why| reader.expected_at(at, &why))?)))
        }
        Operator::Exists(_) | Operator::Order(_) => Err(reader.expected_at(at, "==, !=, in, !in, =~ or !~ behind this subject")),
    }
}

fn ordered_test<T>(
    reader: &mut Reader,
    what: &str,
    read: fn(&str) -> Option<T>,
    make: fn(Comparison, T) -> Test,
) -> Result<Node, ParseError> {
    let (operator, at) = reader.operator()?;
    let (sign, comparison) = match operator {
        Operator::Equals(sign) => (sign, Comparison::Equal),
        Operator::Order(comparison) => (Sign::Plain, comparison),
        _ => return Err(reader.expected_at(at, "==, !=, >, >=, < or <= behind this subject")),
    };
    let (word, at) = reader.word()?;
    let value = read(&word).ok_or_else(|| reader.expected_at(at, what))?;
    Ok(signed(sign, make(comparison, value)))
}

fn signed(sign: Sign, test: Test) -> Node {
    match sign {
        Sign::Plain => Node::Test(test),
        Sign::Negated => Node::Not(Box::new(Node::Test(test))),
    }
}

/// As in Java, `\w` and `\d` are ASCII's (which also keeps what is compiled small). Compiled by itself first, so that `a)|(b` cannot break out of the anchors.
fn regex(pattern: &str) -> Result<Regex, String> {
    let compile = |pattern: &str| {
        RegexBuilder::new(pattern).unicode(false).size_limit(MAX_REGEX_BYTES).dfa_size_limit(MAX_REGEX_BYTES).build()
    };
    compile(pattern).and_then(|_| compile(&format!(r"\A(?:{pattern})\z"))).map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => "a smaller regular expression".to_owned(),
        _ => "a regular expression (without look-around and back-references)".to_owned(),
    })
}

fn version(text: &str) -> Option<Vec<u64>> {
    let numbers = numbers_of(text);
    (numbers.len() == text.split('.').count()).then_some(numbers)
}

/// A date alone is its midnight; a time without a zone is UTC.
fn moment(text: &str) -> Option<Timestamp> {
    Timestamp::parse_iso(text)
        .or_else(|| Timestamp::parse_iso(&format!("{text}Z")))
        .or_else(|| Timestamp::parse_iso(&format!("{text}T00:00:00Z")))
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn expected(&self, what: &str) -> ParseError {
        self.expected_at(self.at, what)
    }

    fn expected_at(&self, byte: usize, what: &str) -> ParseError {
        ParseError { position: self.text[..byte].chars().count() + 1, expected: what.to_owned() }
    }

    fn skip_blanks(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn takes(&mut self, symbol: &str) -> bool {
        self.skip_blanks();
        let found = self.rest().starts_with(symbol);
        if found {
            self.at += symbol.len();
        }
        found
    }

    fn takes_word(&mut self, word: &str) -> bool {
        self.skip_blanks();
        let found = self.rest().strip_prefix(word).is_some_and(|next| !next.starts_with(continues_word));
        if found {
            self.at += word.len();
        }
        found
    }

    /// Up to what cannot stand in a subject's or an attribute's name, and where it began.
    fn subject(&mut self) -> (&'a str, usize) {
        self.skip_blanks();
        let (rest, begin) = (self.rest(), self.at);
        let end = rest.find(|c: char| c.is_whitespace() || "=!<>()[]&|,'\"".contains(c)).unwrap_or(rest.len());
        self.at += end;
        (&rest[..end], begin)
    }

    fn operator(&mut self) -> Result<(Operator, usize), ParseError> {
        self.skip_blanks();
        let begin = self.at;
        for &(spelling, operator) in OPERATORS {
            let is_word = spelling.ends_with(|c: char| c.is_ascii_alphabetic());
            if if is_word { self.takes_word(spelling) } else { self.takes(spelling) } {
                return Ok((operator, begin));
            }
        }
        Err(self.expected("an operator: ==, !=, >, >=, <, <=, in, !in, =~, !~, exists or !exists"))
    }

    fn word(&mut self) -> Result<(String, usize), ParseError> {
        self.argument(false)
    }

    fn list(&mut self) -> Result<Vec<String>, ParseError> {
        if !self.takes("[") {
            return Err(self.expected("a list such as [a, b]"));
        }
        let mut list = vec![self.argument(true)?.0];
        while self.takes(",") {
            list.push(self.argument(true)?.0);
        }
        match self.takes("]") {
            true => Ok(list),
            false => Err(self.expected(", or ]")),
        }
    }

    fn argument(&mut self, in_list: bool) -> Result<(String, usize), ParseError> {
        self.skip_blanks();
        let (rest, begin) = (self.rest(), self.at);
        if let Some(quote) = rest.chars().next().filter(|c| matches!(c, '\'' | '"')) {
            let inner = &rest[1..];
            let Some(end) = inner.find(quote) else {
                return Err(self.expected(&format!("a closing {quote}")));
            };
            self.at += end + 2;
            return Ok((inner[..end].to_owned(), begin));
        }
        let end = if in_list { end_of_item(rest) } else { end_of_word(rest) };
        if end == 0 {
            return Err(self.expected("a value"));
        }
        self.at += end;
        Ok((rest[..end].to_owned(), begin))
    }
}

fn continues_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}

fn end_of_item(text: &str) -> usize {
    text.find(|c: char| c.is_whitespace() || c == ',' || c == ']').unwrap_or(text.len())
}

/// A word ends at a blank, at `&&` or `||`, or at a parenthesis that it did not open: `(m5|g2).*` is one word.
fn end_of_word(text: &str) -> usize {
    let mut open = 0usize;
    for (at, c) in text.char_indices() {
        match c {
            c if c.is_whitespace() => return at,
            '(' => open += 1,
            ')' if open == 0 => return at,
            ')' => open -= 1,
            '&' | '|' if open == 0 && text[at + 1..].starts_with(c) => return at,
            _ => {}
        }
    }
    text.len()
}
