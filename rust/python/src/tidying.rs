//! What a janitor does, in one call: a thread that takes the interpreter's lock anew for each of fifty small calls makes
//! the thread of the loop wait for it as often.

use std::fs::{DirBuilder, Permissions, remove_dir, set_permissions};
use std::io;
use std::os::fd::{AsFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use pyo3::prelude::*;
use pyrt_container::sys::Errno;

use crate::descriptors::duplicate;
use crate::errors::{layer_error, os_error};

/// Removes groups and folders, and makes folders; see the stub.
#[pyfunction]
pub fn tidy(
    py: Python<'_>,
    dirfd: RawFd,
    names: Vec<PathBuf>,
    groups: Vec<PathBuf>,
    uppers: Vec<PathBuf>,
) -> PyResult<(Vec<(PathBuf, PyErr)>, usize)> {
    let directory = duplicate(dirfd)?;
    let (stuck, made) = py.detach(|| {
        for group in groups {
            // Most are gone, and what is in use by another container's stays.
            let _ = remove_dir(group);
        }
        let removed = names.into_iter().map(|name| {
            let result = pyrt_layers::remove_tree(directory.as_fd(), name.as_os_str());
            (name, result)
        });
        let stuck: Vec<_> = removed.filter_map(|(name, result)| Some((name, result.err()?))).collect();
        (stuck, uppers.iter().take_while(|folder| new_upper(folder).is_ok()).count())
    });
    Ok((stuck.into_iter().map(|(name, error)| (name, layer_error(error))).collect(), made))
}

/// Makes the folder of a container; see the stub.
#[pyfunction]
pub fn make_upper(folder: PathBuf) -> PyResult<()> {
    new_upper(&folder).map_err(|error| os_error(Errno(error.raw_os_error().unwrap_or_default()), &folder))
}

fn new_upper(folder: &Path) -> io::Result<()> {
    let private = |path: &Path| DirBuilder::new().mode(0o700).create(path);
    private(folder)?;
    private(&folder.join("work"))?;
    // The root directory of the container has the mode of its upper layer's; umask must not take from it.
    let upper = folder.join("upper");
    DirBuilder::new().mode(0o755).create(&upper)?;
    set_permissions(upper, Permissions::from_mode(0o755))
}
