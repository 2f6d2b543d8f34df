//! What is wrong with a specification or with this machine.

use std::fmt;

use serde::Deserialize;

use crate::json;
use crate::sys::Errno;

/// Who has to change something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The specification.
    Spec,
    /// This machine.
    Host,
}

/// Why there is no plan. One sentence: `path: message`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Error {
    /// Specification or machine.
    pub blame: Blame,
    /// JSON path of the culprit ("linux.resources.memory.limit"), or "".
    pub path: String,
    /// What is wrong with it.
    pub message: String,
    /// What can be done about it.
    pub hint: Option<String>,
    /// What the kernel refused, if it was the kernel.
    pub cause: Option<Cause>,
}

/// A system call that failed while a plan was compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// The kernel's error number.
    pub errno: Errno,
    /// The host's file that it was about.
    pub file: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// What compiling returns.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The specification's fault.
    pub fn spec(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { blame: Blame::Spec, path: path.into(), message: message.into(), hint: None, cause: None }
    }

    /// This machine's fault.
    pub fn host(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { blame: Blame::Host, path: path.into(), message: message.into(), hint: None, cause: None }
    }

    /// The same, because of the kernel.
    #[must_use]
    pub fn because(mut self, errno: Errno, file: impl Into<String>) -> Self {
        self.cause = Some(Cause { errno, file: file.into() });
        self
    }

    /// Whether the kernel has refused something to this user.
    pub(super) fn is_refusal(&self) -> bool {
        let refusals = [libc::EACCES, libc::EPERM, libc::EROFS];
        self.cause.as_ref().is_some_and(|cause| refusals.contains(&cause.errno.0))
    }

    /// The same with advice.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// The kernel's words for an error number, as the end of a sentence.
pub fn describe(errno: Errno) -> String {
    let text = std::io::Error::from_raw_os_error(errno.0).to_string();
    let words = text.split(" (os error").next().unwrap_or_default();
    let mut letters = words.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

/// Reads a JSON document; `root` is put before the path of whatever is wrong in it.
pub(super) fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8], root: &str) -> Result<T> {
    json::parse(bytes, root).map_err(|wrong| Error::spec(wrong.path, wrong.message))
}
