//! Errors: one readable line on standard error, and one in the file of `--log`, which engines read back.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;

use crate::clock;
use crate::error::Error;

/// Where errors are written down.
#[derive(Debug, Default)]
pub struct Log {
    /// The file of `--log`.
    pub path: Option<PathBuf>,
    /// `--log-format json`; else a line of text.
    pub json: bool,
}

impl Log {
    /// Says why the command ends; returns its exit code.
    pub fn fatal(&self, error: &Error) -> u8 {
        self.note("error", error);
        // Standard error may be closed: there is nobody else to tell.
        let _ = writeln!(std::io::stderr(), "pyrt-runtime: {}", line(error));
        error.code()
    }

    /// Says what did not keep the command from going on.
    pub fn warn(&self, error: &Error) {
        self.note("warning", error);
        if self.path.is_none() {
            let _ = writeln!(std::io::stderr(), "pyrt-runtime: warning: {}", line(error));
        }
    }

    fn note(&self, level: &str, error: &Error) {
        let Some(path) = &self.path else { return };
        let (time, message) = (clock::now(), line(error));
        let line = if self.json {
            serde_json::json!({ "level": level, "msg": message, "time": time }).to_string()
        } else {
            format!("time={time:?} level={level} msg={message:?}")
        };
        if let Ok(mut file) = OpenOptions::new().create(true).append(true).open(path) {
            let _ = writeln!(file, "{line}");
        }
    }
}

/// More of a text of config.json nobody wants to read.
const LONGEST: usize = 2048;

/// One line, whatever a config.json has in it: nothing that a terminal obeys, and with an end.
fn line(error: &Error) -> String {
    let text = error.to_string();
    let mut line = String::with_capacity(text.len());
    for letter in text.chars() {
        if line.len() > LONGEST {
            line.push_str("...");
            break;
        }
        if letter.is_control() { line.extend(letter.escape_default()) } else { line.push(letter) }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line() {
        assert_eq!(line(&Error::new("a\nb\x1b[2J\u{e4}")), "a\\nb\\u{1b}[2J\u{e4}");
        assert_eq!(line(&Error::new("x".repeat(1 << 20))).len(), LONGEST + 4);
    }
}
