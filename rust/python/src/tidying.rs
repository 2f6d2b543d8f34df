//! What a janitor does, in one call: a thread that takes the interpreter's lock anew for each of fifty small calls makes
//! the thread of the loop wait for it as often.

use std::fs::remove_dir;
use std::os::fd::{AsFd, RawFd};
use std::path::PathBuf;

use pyo3::prelude::*;
use pyrt_container::sys::Errno;
use pyrt_layers::{can_be_passed_on, make_folder, pass_on, remove_tree};
use rustix::fs::CWD;

use crate::descriptors::duplicate;
use crate::errors::{layer_error, os_error};

/// Removes groups and folders, and makes folders; see the stub.
#[pyfunction]
pub fn tidy(
    py: Python<'_>,
    dirfd: RawFd,
    names: Vec<PathBuf>,
    groups: Vec<PathBuf>,
    folders: Vec<PathBuf>,
) -> PyResult<(Vec<(PathBuf, PyErr)>, usize)> {
    let directory = duplicate(dirfd)?;
    let (stuck, made) = py.detach(|| {
        for group in groups {
            // Most are gone, and what is in use by another container's stays.
            let _ = remove_dir(group);
        }
        let (directory, mut made, mut stuck) = (directory.as_fd(), 0, Vec::new());
        let passes = !folders.is_empty() && can_be_passed_on();
        for name in names {
            let next = folders.get(made).filter(|_| passes);
            let next = next.map(|next| pass_on(directory, name.as_os_str(), next.as_os_str()));
            if matches!(next, Some(Ok(true))) {
                made += 1;
            } else if let Err(error) = remove_tree(directory, name.as_os_str()) {
                stuck.push((name, error));
            }
        }
        made += folders[made..].iter().take_while(|folder| make_folder(directory, folder).is_ok()).count();
        (stuck, made)
    });
    Ok((stuck.into_iter().map(|(name, error)| (name, layer_error(error))).collect(), made))
}

/// Makes the folder of a container; see the stub.
#[pyfunction]
pub fn make_upper(folder: PathBuf) -> PyResult<()> {
    make_folder(CWD, &folder).map_err(|error| os_error(Errno(error.raw_os_error()), &folder))
}
