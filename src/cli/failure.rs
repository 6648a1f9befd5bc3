//! How a command fails: what happened and why, then what to do next, and the exit code.

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use super::screen::{Ink, Paint};

/// A failure that knows what the person can do about it.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct Failure {
    pub what: String,
    pub next: String,
}

impl Failure {
    pub fn new(what: impl Into<String>, next: impl Into<String>) -> Failure {
        Failure { what: what.into(), next: next.into() }
    }
}

/// Says it on standard error. A reader that went away (`beaufort logs | head`) is no failure.
pub fn report(error: &anyhow::Error) -> ExitCode {
    if is_closed_pipe(error) {
        return ExitCode::SUCCESS;
    }
    let text = describe(error, Paint::stderr());
    // Nobody is left to tell if even this fails.
    let _ = std::io::stderr().write_all(text.as_bytes());
    ExitCode::FAILURE
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>()).any(|e| e.kind() == ErrorKind::BrokenPipe)
}

fn describe(error: &anyhow::Error, paint: Paint) -> String {
    let mut text = format!("{} {error}", paint.ink(Ink::Bad, "error:"));
    let mut said = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        // thiserror's transparent and `{0}` styles repeat what their source says.
        if !said.contains(&cause) {
            text.push_str(&format!(": {cause}"));
            said = cause;
        }
    }
    text.push('\n');
    if let Some(failure) = error.chain().find_map(|cause| cause.downcast_ref::<Failure>()) {
        text.push_str(&format!("{} {}\n", paint.ink(Ink::Faint, " next:"), failure.next));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn what_why_and_what_next() {
        let error = Err::<(), _>(Failure::new("nothing answers", "start one")).context("services cannot be listed").unwrap_err();
        assert_eq!(describe(&error, Paint::off()), "error: services cannot be listed: nothing answers\n next: start one\n");
        let twice = anyhow::anyhow!("no").context("said no");
        assert_eq!(describe(&twice, Paint::off()), "error: said no\n");
    }

    #[test]
    fn a_reader_that_left_is_no_failure() {
        let error = anyhow::Error::from(std::io::Error::from(ErrorKind::BrokenPipe)).context("printing");
        assert!(is_closed_pipe(&error));
        assert!(!is_closed_pipe(&anyhow::Error::from(std::io::Error::from(ErrorKind::NotFound))));
    }
}
