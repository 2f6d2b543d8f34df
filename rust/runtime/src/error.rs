//! What went wrong, as one line.

use std::fmt;
use std::io;
use std::path::Path;

use pyrt_container::compile;
use pyrt_container::explain::{Failure, Kind};
use pyrt_container::sys::Errno;

/// A sentence and perhaps advice.
#[derive(Debug)]
pub struct Error {
    message: String,
    hint: Option<String>,
    of_hook: bool,
    code: u8,
}

/// What everything here returns.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A sentence.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, of_hook: false, code: 1 }
    }

    /// The same with advice.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same with another exit code than 1.
    #[must_use]
    pub fn with_code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    /// What the command exits with.
    pub fn code(&self) -> u8 {
        self.code
    }

    /// Whether a hook is to blame.
    pub fn is_of_hook(&self) -> bool {
        self.of_hook
    }

    /// A file that could not be read, written or made.
    pub fn file(doing: &str, path: &Path, error: &io::Error) -> Self {
        let why = error.raw_os_error().map_or_else(|| error.to_string(), |number| compile::describe(Errno(number)));
        Self::new(format!("{doing} {}: {why}", path.display()))
    }

    /// A call that failed.
    pub fn call(doing: &str, errno: Errno) -> Self {
        Self::new(format!("{doing}: {}", compile::describe(errno)))
    }

    /// A step of a plan that failed. Engines tell a command that is not there from one that may not be executed by the
    /// words of runc: those come first.
    pub fn start(failure: Failure, command: &str) -> Self {
        let Failure { sentence, kind, hint, step, .. } = failure;
        let words = match kind {
            Kind::Other => sentence,
            Kind::NotFound if command.contains('/') => {
                format!("exec: {command:?}: stat {command}: no such file or directory: {sentence}")
            }
            Kind::NotFound => format!("exec: {command:?}: executable file not found in $PATH: {sentence}"),
            Kind::NotExecutable if sentence.ends_with("permission denied") => format!("exec: {command:?}: {sentence}"),
            Kind::NotExecutable => format!("exec: {command:?}: permission denied: {sentence}"),
        };
        Self { message: words, hint, of_hook: step == "RunHook", code: 1 }
    }
}

impl From<compile::Error> for Error {
    fn from(error: compile::Error) -> Self {
        // Without a path it is the whole document.
        let place = if error.path.is_empty() { "config.json: " } else { "" };
        Self { message: format!("{place}{error}"), hint: error.hint, of_hook: false, code: 1 }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}
