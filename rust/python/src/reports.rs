//! What a keeper says, as frozen Python values: see `pyrt_container::protocol`.

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use pyrt_container::plan::Part;
use pyrt_container::protocol::{Ask, Report};

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
    timed_out: bool,
    lost_output: u64,
    ended: u64,
}

/// What is written to the descriptor that came with it is the process's standard input.
#[pyclass(frozen, get_all, module = "pyrt._native")]
pub struct Attached {
    terminal: bool,
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
        Report::Exited {
            code,
            signal,
            oom_kills,
            memory_peak,
            cpu_usec,
            pids_refused,
            timed_out,
            lost_output,
            ended,
        } => {
            let exited =
                Exited { code, signal, oom_kills, memory_peak, cpu_usec, pids_refused, timed_out, lost_output, ended };
            Ok(Bound::new(py, exited)?.into_any())
        }
        Report::Attached { terminal } => Ok(Bound::new(py, Attached { terminal })?.into_any()),
    }
}

/// What an engine asks the keeper of a detached container for; see the stub.
#[pyfunction]
pub fn ask<'py>(py: Python<'py>, what: &str) -> PyResult<Bound<'py, PyBytes>> {
    let ask = match what {
        "attach" => Ask::Attach,
        "close input" => Ask::CloseInput,
        "recorded" => Ask::Recorded,
        _ => return Err(pyo3::exceptions::PyValueError::new_err(format!("no keeper understands {what:?}"))),
    };
    Ok(PyBytes::new(py, &ask.encode()))
}
