//! Rust's errors as Python's: the classes are Python's own, imported when first raised.
//!
//! An error of the kernel carries `(operation, path, errno)`: the sentence names all three, and
//! `__cause__` is an `OSError` for whoever wants to look at the number.

use std::io;
use std::path::Path;

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyType};
use pyrt_container::compile::{Blame, Cause, Error as CompileError, describe};
use pyrt_container::explain::{Failure, Kind};
use pyrt_container::sys::Errno;
use pyrt_container::{lookup, seccomp};
use pyrt_layers::{Error as LayerError, Fault};

mod classes {
    use pyo3::import_exception;

    import_exception!(pyrt.errors, CommandNotExecutable);
    import_exception!(pyrt.errors, CommandNotFound);
    import_exception!(pyrt.errors, EngineError);
    import_exception!(pyrt.errors, HostError);
    import_exception!(pyrt.errors, InvalidImage);
    import_exception!(pyrt.errors, PyrtError);
    import_exception!(pyrt.errors, SpecError);
    import_exception!(pyrt.errors, StartFailed);
    import_exception!(pyrt.errors, StateError);
}

/// `who` does not speak this version's protocol.
pub fn another_version(who: &str) -> PyErr {
    classes::EngineError::new_err(format!("the {who} sent a message that this version of pyrt does not know"))
}

/// This machine refused `operation`.
pub fn host_error(operation: &str, error: &io::Error) -> PyErr {
    let raised = classes::HostError::new_err(format!("{operation}: {}", words(error)));
    caused(raised, Path::new(""), error)
}

/// A specification that is refused, or a machine that can't do what it asks for.
pub fn compile_error(error: CompileError) -> PyErr {
    let (message, hint) = (error.to_string(), error.hint.as_deref());
    let raised = Python::attach(|py| match error.blame {
        Blame::Spec => spec_error(py, &message, &error.path, hint),
        Blame::Host => made(&py.get_type::<classes::HostError>(), &message, hinted(py, hint)),
    });
    match &error.cause {
        Some(Cause { errno, file }) => caused(raised, Path::new(file), &io::Error::from_raw_os_error(errno.0)),
        None => raised,
    }
}

/// A profile that is refused, and the field that is to blame.
pub fn seccomp_error(error: &seccomp::Error) -> PyErr {
    Python::attach(|py| spec_error(py, &error.to_string(), error.field(), None))
}

/// An image's file that can't be had: its own fault, or a layer's in the store.
pub fn lookup_error(error: &lookup::Error) -> PyErr {
    match error {
        lookup::Error::System(..) => classes::StateError::new_err(error.to_string()),
        _ => classes::InvalidImage::new_err(error.to_string()),
    }
}

/// A layer that was not extracted, or a tree that was not removed.
pub fn layer_error(error: LayerError) -> PyErr {
    let message = error.to_string();
    let message = message.split(" (os error").next().unwrap_or_default();
    let LayerError::System { path, source, .. } = &error else {
        return match error.fault() {
            Fault::Image => classes::InvalidImage::new_err(message.to_owned()),
            Fault::Machine => classes::StateError::new_err(message.to_owned()),
            Fault::Caller => classes::PyrtError::new_err(message.to_owned()),
        };
    };
    let hint = match source.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => Some("the disk is full: pyrt image prune, or a larger one"),
        Some(libc::EPERM) => Some("layers are extracted by root"),
        _ => None,
    };
    let raised = Python::attach(|py| made(&py.get_type::<classes::StateError>(), message, hinted(py, hint)));
    caused(raised, path, source)
}

/// What a call into the kernel that Python could have made itself says: the `OSError` that it would have raised.
pub fn os_error(errno: Errno, path: &Path) -> PyErr {
    PyOSError::new_err((errno.0, describe(errno), path.to_path_buf()))
}

/// A container that did not start, as the exception to raise.
pub fn start_failure(py: Python<'_>, failure: &Failure) -> Py<PyAny> {
    let class = match failure.kind {
        Kind::Other => py.get_type::<classes::StartFailed>(),
        Kind::NotFound => py.get_type::<classes::CommandNotFound>(),
        Kind::NotExecutable => py.get_type::<classes::CommandNotExecutable>(),
    };
    let keywords = hinted(py, failure.hint.as_deref()).and_then(|keywords| {
        keywords.set_item("step", failure.step)?;
        keywords.set_item("index", failure.index)?;
        keywords.set_item("path", &failure.path)?;
        keywords.set_item("errno", failure.errno)?;
        Ok(keywords)
    });
    made(&class, &failure.sentence, keywords).into_value(py).into_any()
}

fn spec_error(py: Python<'_>, message: &str, field: &str, hint: Option<&str>) -> PyErr {
    let keywords = hinted(py, hint).and_then(|keywords| {
        keywords.set_item("field", field)?;
        Ok(keywords)
    });
    made(&py.get_type::<classes::SpecError>(), message, keywords)
}

fn hinted<'py>(py: Python<'py>, hint: Option<&str>) -> PyResult<Bound<'py, PyDict>> {
    let keywords = PyDict::new(py);
    keywords.set_item("hint", hint)?;
    Ok(keywords)
}

/// An exception with its keywords, or the one that came up in making it.
fn made(class: &Bound<'_, PyType>, message: &str, keywords: PyResult<Bound<'_, PyDict>>) -> PyErr {
    let exception = keywords.and_then(|keywords| class.call((message,), Some(&keywords)));
    exception.map_or_else(|error| error, PyErr::from_value)
}

/// The kernel's words as the end of a sentence, without Rust's "(os error 13)".
fn words(error: &io::Error) -> String {
    let text = error.to_string();
    let mut letters = text.split(" (os error").next().unwrap_or_default().chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

fn caused(raised: PyErr, path: &Path, error: &io::Error) -> PyErr {
    let Some(errno) = error.raw_os_error() else { return raised };
    Python::attach(|py| {
        let words = words(&io::Error::from_raw_os_error(errno));
        raised.set_cause(py, Some(PyOSError::new_err((errno, words, path.to_path_buf()))));
    });
    raised
}
