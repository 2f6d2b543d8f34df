//! Looks at files: one of an image, without a mount, and whether some are still what they were.

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

/// Tells files from what they are later; see the stub.
#[pyfunction]
pub fn stamps<'py>(py: Python<'py>, paths: Vec<PathBuf>) -> Bound<'py, PyBytes> {
    let mut stamps = Vec::with_capacity(paths.len() * 32);
    for path in paths {
        let status = rustix::fs::stat(path).ok();
        let words = status.map_or([0; 4], |status| {
            let at = |seconds: i64, rest: u64| (seconds as u64).wrapping_mul(1_000_000_000).wrapping_add(rest);
            let changed = at(status.st_ctime, status.st_ctime_nsec);
            [status.st_ino, status.st_size as u64, at(status.st_mtime, status.st_mtime_nsec), changed]
        });
        words.iter().for_each(|word| stamps.extend_from_slice(&word.to_le_bytes()));
    }
    PyBytes::new(py, &stamps)
}
