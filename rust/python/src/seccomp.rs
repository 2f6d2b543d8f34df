//! Seccomp programs for inspection; a container's own is compiled with its plan.

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use pyrt_container::seccomp;

use crate::errors::seccomp_error;

/// Compiles the JSON of `linux.seccomp`; see the stub.
#[pyfunction]
pub fn compile_seccomp<'py>(py: Python<'py>, json: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    let text = std::str::from_utf8(json)
        .map_err(|error| seccomp::Error::Refused { field: "linux.seccomp".to_owned(), problem: error.to_string() });
    let filter = text.and_then(seccomp::compile).map_err(|error| seccomp_error(&error))?;
    Ok(PyBytes::new(py, &filter.program))
}
