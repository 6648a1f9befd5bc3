//! CloudWatch Logs filter patterns: terms, phrases, exclusions, regular expressions, JSON and space-delimited patterns
//! ("Filter pattern syntax for metric filters, subscription filters, filter log events, and Live Tail").
//!
//! Start at [`Pattern::parse`]. What compares one value is in [`value`], what the two structured kinds share in [`scan`].

mod fields;
mod json;
mod scan;
mod terms;
mod value;

#[cfg(test)]
mod tests;

/// A pattern that was read, to be matched against any number of messages.
#[derive(Debug)]
pub struct Pattern(Kind);

#[derive(Debug)]
enum Kind {
    /// The empty pattern matches everything.
    All,
    Terms(terms::Terms),
    Json(json::Json),
    Fields(fields::Fields),
}

/// What is wrong with a pattern, in words for who wrote it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Invalid filter pattern: {0}")]
pub struct Error(String);

impl Error {
    fn new(why: impl Into<String>) -> Error {
        Error(why.into())
    }
}

/// "The maximum length of a filter pattern is 1024."
const MAX_LENGTH: usize = 1024;

impl Pattern {
    pub fn parse(text: &str) -> Result<Pattern, Error> {
        if text.chars().count() > MAX_LENGTH {
            return Err(Error::new(format!("it has more than {MAX_LENGTH} characters")));
        }
        let text = text.trim();
        let mut scanner = scan::Scanner::new(text);
        let kind = match text.chars().next() {
            None => Kind::All,
            // `" "`, with its quotes, is what AWS's examples write for everything.
            Some('"') if text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).is_some_and(|t| t.trim().is_empty()) => {
                Kind::All
            }
            Some('{') => Kind::Json(json::parse(&mut scanner)?),
            Some('[') => Kind::Fields(fields::parse(&mut scanner)?),
            Some(_) => Kind::Terms(terms::parse(&mut scanner)?),
        };
        Ok(Pattern(kind))
    }

    pub fn matches(&self, message: &str) -> bool {
        match &self.0 {
            Kind::All => true,
            Kind::Terms(terms) => terms.matches(message),
            Kind::Json(json) => json.matches(message),
            Kind::Fields(fields) => fields.matches(message),
        }
    }
}
