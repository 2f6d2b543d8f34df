//! Overlays, mounted by the kernel, to see what it makes of layers.

use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// An overlay of directories, the topmost first; unmounted at the end.
pub struct Mounted(PathBuf);

impl Mounted {
    /// Mounts at `at`, which is made. `upper` has the directories `upper` and `work`.
    pub fn new(at: &Path, lowers: &[&Path], upper: Option<&Path>) -> Self {
        fs::create_dir(at).unwrap();
        let lowers: Vec<_> = lowers.iter().map(|lower| lower.to_str().unwrap()).collect();
        let mut data = format!("lowerdir={}", lowers.join(":"));
        if let Some(upper) = upper.map(Path::display) {
            data += &format!(",upperdir={upper}/upper,workdir={upper}/work,redirect_dir=off,metacopy=off");
        }
        mount("overlay", at, "overlay", MountFlags::empty(), Some(CString::new(data).unwrap().as_c_str())).unwrap();
        Self(at.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        unmount(&self.0, UnmountFlags::DETACH).unwrap();
    }
}
