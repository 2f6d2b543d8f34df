//! One file of an image, without a mount.

use std::path::{Path, PathBuf};

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use pyrt_container::lookup;

use crate::errors::lookup_error;

/// Reads a file of an image; see the stub.
#[pyfunction]
pub fn read_image_file<'py>(
    py: Python<'py>,
    layers: Vec<PathBuf>,
    path: &str,
    limit: usize,
) -> PyResult<Option<Bound<'py, PyBytes>>> {
    let layers: Vec<&Path> = layers.iter().map(PathBuf::as_path).collect();
    let content = lookup::read_image_file(&layers, path, limit).map_err(|error| lookup_error(&error))?;
    Ok(content.map(|content| PyBytes::new(py, &content)))
}
