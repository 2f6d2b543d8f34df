//! What the client itself has to say when something goes wrong.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use core::fmt::Display;

use crate::{signals, sys};

/// Why the client could not do its part: a sentence, and what to do about it.
#[derive(Debug)]
pub struct Failure {
    pub(crate) sentence: String,
    pub(crate) hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(sentence: impl Into<String>) -> Self {
        Self { sentence: sentence.into(), hint: None }
    }

    /// What was being done, and why it could not be.
    pub(crate) fn of(action: &str, reason: impl Display) -> Self {
        Self::new(format!("{action}: {reason}"))
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn report(&self) {
        // Somebody who reads no errors is no reason to end by SIGPIPE.
        signals::expect_no_reader();
        say(&format!("pyrt: {}\n", self.sentence));
        if let Some(hint) = &self.hint {
            say(&format!("hint: {hint}\n"));
        }
    }
}

/// To descriptor 2, as far as that takes it.
fn say(text: &str) {
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        let Ok(count @ 1..) = sys::write(2, rest) else { return };
        rest = &rest[count..];
    }
}

/// A path in a sentence.
pub fn shown(path: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(path)
}
