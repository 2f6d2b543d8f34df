//! Layers: extracted, written and removed, without the interpreter's lock.

use std::os::fd::{AsFd, RawFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::prelude::*;
use pyrt_layers::{Options, Packing, Report, WriteOptions, Written};

use crate::descriptors::duplicate;
use crate::errors::layer_error;

/// Raised by one thread, seen by another that extracts.
#[pyclass(frozen, module = "pyrt._native")]
pub struct CancelFlag {
    raised: Arc<AtomicBool>,
}

#[pymethods]
impl CancelFlag {
    #[new]
    fn new() -> Self {
        Self { raised: Arc::new(AtomicBool::new(false)) }
    }

    /// See the stub.
    fn set(&self) {
        self.raised.store(true, Ordering::Relaxed);
    }
}

/// What was extracted.
#[pyclass(frozen, get_all, module = "pyrt._native")]
pub struct LayerReport {
    digest: String,
    diff_id: String,
    compressed_size: u64,
    size: u64,
    entries: u64,
    opaque_root: bool,
}

impl From<Report> for LayerReport {
    fn from(report: Report) -> Self {
        Self {
            digest: report.digest.to_string(),
            diff_id: report.diff_id.to_string(),
            compressed_size: report.compressed_size,
            size: report.size,
            entries: report.contents.entries,
            opaque_root: report.contents.opaque_root,
        }
    }
}

/// Extracts a layer; see the stub.
#[pyfunction]
#[pyo3(signature = (source, directory, *, blob=None, cancel=None))]
pub fn extract_layer(
    py: Python<'_>,
    source: RawFd,
    directory: RawFd,
    blob: Option<RawFd>,
    cancel: Option<&Bound<'_, CancelFlag>>,
) -> PyResult<LayerReport> {
    let (source, directory) = (duplicate(source)?, duplicate(directory)?);
    let blob = blob.map(duplicate).transpose()?;
    let raised = cancel.map(|flag| Arc::clone(&flag.get().raised));
    let report = py.detach(|| {
        let options = Options { blob: blob.as_ref().map(AsFd::as_fd), cancel: raised.as_deref(), ..Options::default() };
        pyrt_layers::extract(source.as_fd(), directory.as_fd(), &options)
    });
    report.map(LayerReport::from).map_err(layer_error)
}

impl From<Written> for LayerReport {
    fn from(written: Written) -> Self {
        Self {
            digest: written.digest.to_string(),
            diff_id: written.diff_id.to_string(),
            compressed_size: written.compressed_size,
            size: written.size,
            entries: written.entries,
            opaque_root: false,
        }
    }
}

/// Writes a directory as a layer; see the stub.
#[pyfunction]
#[pyo3(signature = (directory, sink, *, gzip=0, cancel=None))]
pub fn write_layer(
    py: Python<'_>,
    directory: RawFd,
    sink: RawFd,
    gzip: u32,
    cancel: Option<&Bound<'_, CancelFlag>>,
) -> PyResult<LayerReport> {
    let (directory, sink) = (duplicate(directory)?, duplicate(sink)?);
    let raised = cancel.map(|flag| Arc::clone(&flag.get().raised));
    let written = py.detach(|| {
        let packing = if gzip == 0 { Packing::None } else { Packing::Gzip(gzip) };
        let options = WriteOptions { packing, cancel: raised.as_deref(), ..WriteOptions::default() };
        pyrt_layers::write_layer(directory.as_fd(), sink.as_fd(), &options)
    });
    written.map(LayerReport::from).map_err(layer_error)
}

/// Removes a tree; see the stub.
#[pyfunction]
pub fn remove_tree(py: Python<'_>, dirfd: RawFd, name: PathBuf) -> PyResult<()> {
    let directory = duplicate(dirfd)?;
    py.detach(|| pyrt_layers::remove_tree(directory.as_fd(), name.as_os_str())).map_err(layer_error)
}
