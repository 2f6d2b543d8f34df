//! The files of a container from outside, and the files of its limits.

use std::ffi::CString;
use std::os::fd::{AsFd, IntoRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use pyo3::prelude::*;
use pyrt_container::compile::cgroup_limits;
use pyrt_container::rootfs;
use pyrt_container::sys;

use crate::descriptors::duplicate;
use crate::errors::{compile_error, os_error};
use crate::plan::machine;

/// Opens a path inside a root; see the stub.
#[pyfunction]
#[pyo3(signature = (root, path, flags, mode=0))]
pub fn open_in_root(py: Python<'_>, root: RawFd, path: PathBuf, flags: i32, mode: u32) -> PyResult<RawFd> {
    let root = duplicate(root)?;
    let text = CString::new(path.as_os_str().as_bytes())?;
    let opened = py.detach(|| rootfs::open_in_root(root.as_fd(), &text, flags, mode));
    opened.map(IntoRawFd::into_raw_fd).map_err(|errno| os_error(errno, &path))
}

/// Mounts layers where no path leads to; see the stub.
#[pyfunction]
#[pyo3(signature = (lowers, upper=None))]
pub fn mount_layers(py: Python<'_>, lowers: Vec<PathBuf>, upper: Option<PathBuf>) -> PyResult<RawFd> {
    let lowers: Vec<&Path> = lowers.iter().map(PathBuf::as_path).collect();
    let mounted = py.detach(|| rootfs::mount_layers(&lowers, upper.as_deref()));
    let blamed = upper.as_deref().or(lowers.first().copied()).unwrap_or(Path::new(""));
    mounted.map(IntoRawFd::into_raw_fd).map_err(|errno| os_error(errno, blamed))
}

/// Takes on file system ids; see the stub.
#[pyfunction]
pub fn set_file_ids(uid: u32, gid: u32) -> PyResult<()> {
    sys::take_file_ids(uid, gid).map_err(|errno| os_error(errno, Path::new("")))
}

/// The files of limits; see the stub.
#[pyfunction]
#[pyo3(name = "cgroup_limits")]
pub fn limits(resources: &[u8]) -> PyResult<Vec<(String, String, String)>> {
    cgroup_limits(resources, machine()?).map_err(compile_error)
}
