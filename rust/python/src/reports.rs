//! What a keeper says, as frozen Python values: see `pyrt_container::protocol`.

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use pyrt_container::plan::Part;
use pyrt_container::protocol::{self, Report};

use crate::errors::another_version;

/// The process runs.
#[pyclass(frozen, get_all, module = "pyrt._native")]
pub struct Started {
    pid: u32,
    warnings: u32,
    timings: Vec<u64>,
    begun: u64,
}

/// A step failed and nothing is left.
#[pyclass(frozen, get_all, module = "pyrt._native")]
pub struct Failed {
    pub part: &'static str,
    pub index: u32,
    pub errno: i32,
    pub evidence: Py<PyBytes>,
}

/// The process has ended and is reaped.
#[pyclass(frozen, get_all, module = "pyrt._native")]
pub struct Exited {
    code: Option<i32>,
    signal: Option<i32>,
    oom_kills: u64,
    memory_peak: u64,
    cpu_usec: u64,
    pids_refused: u64,
    ended: u64,
}

/// The name of a part, as `Step.part` and `Failed.part` have it.
pub fn part_name(part: Part) -> &'static str {
    match part {
        Part::Keeper => "keeper",
        Part::Child => "child",
    }
}

/// Reads one message of the control socket; see the stub.
#[pyfunction]
pub fn parse_report<'py>(py: Python<'py>, message: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    let report = Report::decode(message).ok_or_else(|| another_version("keeper"))?;
    match report {
        Report::Started { pid, warnings, timings, begun } => {
            Ok(Bound::new(py, Started { pid, warnings, timings, begun })?.into_any())
        }
        Report::Failed { part, index, errno, evidence } => {
            let evidence = PyBytes::new(py, &evidence).unbind();
            Ok(Bound::new(py, Failed { part: part_name(part), index, errno, evidence })?.into_any())
        }
        Report::Exited { code, signal, oom_kills, memory_peak, cpu_usec, pids_refused, ended } => {
            let exited = Exited { code, signal, oom_kills, memory_peak, cpu_usec, pids_refused, ended };
            Ok(Bound::new(py, exited)?.into_any())
        }
    }
}

/// See the stub.
#[pyfunction]
pub fn stdio_message(py: Python<'_>) -> Bound<'_, PyBytes> {
    PyBytes::new(py, &protocol::stdio())
}
