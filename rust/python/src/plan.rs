//! Plans: compiled here, executed by a keeper, explained when asked or when one has failed.
//!
//! All of it takes well under 100 us and keeps the interpreter's lock: to let it go and wait for it again costs more.

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use pyrt_container::compile::Compiled;
use pyrt_container::host::Host;
use pyrt_container::plan::Part;
use pyrt_container::protocol::{self, MAX_COMMAND, Start, Stdio};
use pyrt_container::{compile as compiler, explain};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use crate::descriptors::duplicate;
use crate::errors::{compile_error, host_error, start_failure};
use crate::reports::{Failed, part_name};

/// One operation, for people.
#[pyclass(frozen, get_all, module = "pyrt._native")]
pub struct Step {
    part: &'static str,
    index: usize,
    name: &'static str,
    text: String,
}

/// A compiled plan and the descriptors that it needs.
#[pyclass(frozen, module = "pyrt._native")]
pub struct Plan {
    compiled: Compiled,
    memfd: OwnedFd,
}

impl Plan {
    fn new(compiled: Compiled) -> PyResult<Self> {
        let memfd = sealed(&compiled.bytes).map_err(|error| host_error("keeping the plan in memory", &error))?;
        Ok(Self { compiled, memfd })
    }

    fn parsed(&self) -> pyrt_container::plan::Plan<'_> {
        // The compiler has written them, and nobody can change them.
        pyrt_container::plan::Plan::parse(&self.compiled.bytes).expect("a compiled plan is a plan")
    }
}

#[pymethods]
impl Plan {
    /// See the stub.
    fn steps(&self) -> Vec<Step> {
        let steps = explain::steps(&self.parsed(), &self.compiled.names);
        steps
            .into_iter()
            .map(|explain::Step { part, index, name, text }| Step { part: part_name(part), index, name, text })
            .collect()
    }

    /// See the stub.
    #[getter]
    fn takes_command(&self) -> bool {
        self.parsed().takes_command()
    }

    /// See the stub.
    fn sample(&self, container: &str, id_base: u32) -> Option<Sample> {
        self.compiled.sample(container, id_base).map(Sample)
    }

    /// See the stub.
    #[pyo3(signature = (control, *ends, limit=0, detached=None))]
    fn start_message<'py>(
        &self,
        py: Python<'py>,
        control: RawFd,
        ends: Vec<RawFd>,
        limit: u64,
        detached: Option<&Detached>,
    ) -> (Bound<'py, PyBytes>, Vec<RawFd>) {
        let start = Start { limit, detached: detached.map(|detached| detached.0.clone()) };
        let mut descriptors = vec![self.memfd.as_raw_fd(), control];
        descriptors.extend(ends);
        descriptors.extend(self.compiled.descriptors.iter().map(AsRawFd::as_raw_fd));
        (PyBytes::new(py, &start.encode()), descriptors)
    }
}

/// A plan without its descriptors, to make a template of.
#[pyclass(frozen, module = "pyrt._native")]
pub struct Sample(compiler::Sample);

#[pymethods]
impl Sample {
    /// See the stub.
    fn template(&self, other: &Self) -> Option<Template> {
        compiler::Template::of(self.0.clone(), &other.0).map(Template)
    }
}

/// What the plans of all containers of one specification have in common.
#[pyclass(frozen, module = "pyrt._native")]
pub struct Template(compiler::Template);

#[pymethods]
impl Template {
    /// See the stub.
    fn fill(&self, container: &str, id_base: u32) -> PyResult<Option<Plan>> {
        self.0.fill(container, id_base, machine()?).map(Plan::new).transpose()
    }
}

/// What the keeper of a detached container has to know.
#[pyclass(frozen, module = "pyrt._native")]
pub struct Detached(protocol::Detached);

#[pymethods]
impl Detached {
    /// See the stub.
    #[new]
    #[pyo3(signature = (*, name, log_size, log_files, input, journal))]
    fn new(name: CString, log_size: u64, log_files: u32, input: bool, journal: Vec<u8>) -> Self {
        Self(protocol::Detached { name, log_size, log_files, input, journal })
    }
}

/// The keeper maps it: it must not change or shrink under its hands.
fn sealed(bytes: &[u8]) -> std::io::Result<OwnedFd> {
    let memfd = memfd_create("pyrt-plan", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    rustix::io::write(&memfd, bytes)?;
    fcntl_add_seals(&memfd, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    Ok(memfd)
}

/// This machine, looked at once.
pub fn machine() -> PyResult<&'static Host> {
    static MACHINE: OnceLock<Host> = OnceLock::new();
    if let Some(host) = MACHINE.get() {
        return Ok(host);
    }
    let probed = Host::probe().map_err(compile_error)?;
    Ok(MACHINE.get_or_init(|| probed))
}

/// Compiles the plan of a container; see the stub.
#[pyfunction]
pub fn compile(spec: &[u8], start: &[u8]) -> PyResult<Plan> {
    Plan::new(compiler::compile(spec, start, machine()?).map_err(compile_error)?)
}

/// Compiles the plan of a process that joins a container; see the stub.
#[pyfunction]
pub fn compile_exec(spec: &[u8], process: &[u8], start: &[u8], pidfd: RawFd) -> PyResult<Plan> {
    let compiled = compiler::compile_exec(spec, process, start, duplicate(pidfd)?, machine()?);
    Plan::new(compiled.map_err(compile_error)?)
}

/// Compiles a command for a container that waits; see the stub.
#[pyfunction]
pub fn compile_command<'py>(py: Python<'py>, process: &[u8]) -> PyResult<Option<Bound<'py, PyBytes>>> {
    let command = compiler::compile_command(process).map_err(compile_error)?;
    Ok((command.len() <= MAX_COMMAND).then(|| PyBytes::new(py, &command)))
}

/// What lets a container go on that waits; see the stub.
#[pyfunction]
#[pyo3(signature = (command, detached=None))]
pub fn stdio_message<'py>(py: Python<'py>, command: &[u8], detached: Option<&Detached>) -> Bound<'py, PyBytes> {
    let detached = detached.map(|detached| detached.0.clone());
    PyBytes::new(py, &Stdio { detached, command }.encode())
}

/// The exception for a failed start; see the stub.
#[pyfunction]
pub fn failure(plan: &Plan, failed: &Bound<'_, Failed>) -> Py<PyAny> {
    let report = failed.get();
    let part = if report.part == part_name(Part::Child) { Part::Child } else { Part::Keeper };
    let evidence = report.evidence.bind(failed.py()).as_bytes();
    let names = &plan.compiled.names;
    let failure = explain::failure(&plan.parsed(), names, part, report.index, report.errno, evidence);
    start_failure(failed.py(), &failure)
}

/// What this machine has; see the stub.
#[pyfunction]
pub fn host(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let host = machine()?;
    let controllers = PyDict::new(py);
    for hierarchy in host.cgroups.v1.iter().chain(&host.cgroups.v2) {
        for controller in &hierarchy.controllers {
            controllers.set_item(controller, &hierarchy.mount)?;
        }
    }
    let facts = PyDict::new(py);
    facts.set_item("kernel", &host.release)?;
    facts.set_item("version", host.kernel)?;
    facts.set_item("privileged", host.privileged)?;
    facts.set_item("capabilities", host.capabilities)?;
    facts.set_item("cgroups", host.cgroups.layout().name())?;
    facts.set_item("controllers", controllers)?;
    facts.set_item("swap_accounting", host.swap_accounting)?;
    Ok(facts)
}
