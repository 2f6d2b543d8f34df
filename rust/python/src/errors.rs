//! Rust's errors as Python's: the classes are Python's own, imported when first raised.
//!
//! An error of the kernel carries `(operation, path, errno)`: the sentence names all three, and
//! `__cause__` is an `OSError` for whoever wants to look at the number.

use std::io;
use std::path::Path;

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;

mod classes {
    use pyo3::import_exception;

    import_exception!(pyrt.errors, EngineError);
    import_exception!(pyrt.errors, HostError);
}

/// `who` does not speak this version's protocol.
pub fn another_version(who: &str) -> PyErr {
    classes::EngineError::new_err(format!("the {who} sent a message that this version of pyrt does not know"))
}

/// This machine refused `operation` on `path` ("" if there is none).
pub fn host_error(operation: &str, path: impl AsRef<Path>, error: &io::Error) -> PyErr {
    caused(classes::HostError::new_err(sentence(operation, path.as_ref(), error)), path.as_ref(), error)
}

/// "opening /x: Permission denied", in the kernel's words without Rust's "(os error 13)".
fn sentence(operation: &str, path: &Path, error: &io::Error) -> String {
    let words = error.to_string();
    let words = words.split(" (os error").next().unwrap_or_default();
    let space = if path.as_os_str().is_empty() { "" } else { " " };
    format!("{operation}{space}{}: {words}", path.display())
}

fn caused(raised: PyErr, path: &Path, error: &io::Error) -> PyErr {
    let Some(errno) = error.raw_os_error() else { return raised };
    Python::attach(|py| {
        let words = io::Error::from_raw_os_error(errno).to_string();
        raised.set_cause(py, Some(PyOSError::new_err((errno, words, path.to_path_buf()))));
    });
    raised
}
