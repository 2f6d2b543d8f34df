//! The log of a container, read: see `pyrt_container::log`.

use std::os::fd::{IntoRawFd, RawFd};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use pyrt_container::log::{Reader, Stream};
use rustix::fs::inotify;

use crate::errors::host_error;

/// Reads a log in pieces; see the stub.
#[pyclass(frozen, module = "pyrt._native")]
pub struct LogReader {
    reader: Mutex<Reader>,
}

#[pymethods]
impl LogReader {
    #[new]
    #[pyo3(signature = (*, since="", until="", times=false, details=""))]
    fn new(since: &str, until: &str, times: bool, details: &str) -> Self {
        Self { reader: Mutex::new(Reader::new(since, until, times, details)) }
    }

    /// See the stub.
    fn feed<'py>(&self, py: Python<'py>, data: &[u8]) -> Vec<(bool, Bound<'py, PyBytes>)> {
        let texts = self.reader.lock().unwrap_or_else(PoisonError::into_inner).feed(data);
        texts.into_iter().map(|(stream, text)| (stream == Stream::Stderr, PyBytes::new(py, &text))).collect()
    }

    /// See the stub.
    #[getter]
    fn done(&self) -> bool {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner).is_done
    }
}

/// Watches the files of a folder; see the stub.
#[pyfunction]
pub fn watch_folder(path: PathBuf) -> PyResult<RawFd> {
    let failed = |errno: rustix::io::Errno| host_error("watching a container's log", &errno.into());
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).map_err(failed)?;
    let events = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
    inotify::add_watch(&watch, &path, events | inotify::WatchFlags::ONLYDIR).map_err(failed)?;
    Ok(watch.into_raw_fd())
}
