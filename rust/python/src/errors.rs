//! Rust's errors as Python's: the classes are Python's own, imported when first raised.
//!
//! An error of the kernel carries `(operation, path, errno)`: the sentence names all three, and
//! `__cause__` is an `OSError` for whoever wants to look at the number.

use std::io;
use std::path::Path;

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyType};

use pyrt_container::seccomp;

mod classes {
    use pyo3::import_exception;

    import_exception!(pyrt.errors, EngineError);
    import_exception!(pyrt.errors, HostError);
    import_exception!(pyrt.errors, SpecError);
}

/// `who` does not speak this version's protocol.
pub fn another_version(who: &str) -> PyErr {
    classes::EngineError::new_err(format!("the {who} sent a message that this version of pyrt does not know"))
}

/// This machine refused `operation` on `path` ("" if there is none).
pub fn host_error(operation: &str, path: impl AsRef<Path>, error: &io::Error) -> PyErr {
    caused(classes::HostError::new_err(sentence(operation, path.as_ref(), error)), path.as_ref(), error)
}

/// A profile that is refused, and the field that is to blame.
pub fn seccomp_error(error: &seccomp::Error) -> PyErr {
    Python::attach(|py| {
        raised(&py.get_type::<classes::SpecError>(), &error.to_string(), &[("field", Some(error.field()))])
    })
}

/// An exception of `class` with keywords; those that are None are left to the class.
fn raised(class: &Bound<'_, PyType>, message: &str, keywords: &[(&str, Option<&str>)]) -> PyErr {
    let given = keywords.iter().filter_map(|(name, value)| value.map(|value| (*name, value)));
    let made = given.into_py_dict(class.py()).and_then(|keywords| class.call((message,), Some(&keywords)));
    made.map_or_else(|error| error, PyErr::from_value)
}

/// "opening /x: permission denied", in the kernel's words without Rust's "(os error 13)".
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
