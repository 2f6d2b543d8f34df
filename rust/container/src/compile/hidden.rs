//! `linux.maskedPaths` and `linux.readonlyPaths`.

use std::ffi::CString;
use std::os::fd::AsRawFd;

use crate::host::Host;
use crate::plan::{Op, Slot, TextsBuf};
use crate::spec::{Linux, Text};
use crate::sys;

use super::error::{Error, Result};
use super::opened::{Opened, Writer, clone_tree, open};
use super::options::{NODEV, NOEXEC, NOSUID, RDONLY};
use super::paths::{c, place};

/// Checked paths, and a /dev/null where the container has none of ours.
#[derive(Debug)]
pub(super) struct Hidden {
    masked: Vec<CString>,
    readonly: Vec<CString>,
    null: Option<Slot>,
}

impl Hidden {
    pub fn open(linux: &Linux<'_>, has_own_dev: bool, host: &Host, opened: &mut Opened) -> Result<Self> {
        let masked = paths(&linux.masked_paths, "linux.maskedPaths")?;
        let readonly = paths(&linux.readonly_paths, "linux.readonlyPaths")?;
        let null = (!masked.is_empty() && !has_own_dev).then(|| open_null(host, opened)).transpose()?;
        Ok(Self { masked, readonly, null })
    }

    /// The keeper's part: what things are hidden under.
    pub fn write_keeper(&self, dev: Option<Slot>, writer: &mut Writer) -> Option<(Slot, Slot)> {
        if self.masked.is_empty() {
            return None;
        }
        let empty = writer.slot("the empty directory");
        let options: TextsBuf = [c"size=4k", c"nr_inodes=2", c"mode=755"].into_iter().collect();
        let attributes = RDONLY | NOSUID | NODEV | NOEXEC;
        writer.plan.keeper(Op::NewMount { fstype: c"tmpfs", options: options.as_texts(), attributes, out: empty });
        let null = match (dev, self.null) {
            (Some(dev), None) => {
                let out = writer.slot("/dev/null");
                writer.plan.keeper(Op::CloneTree { dir: dev, path: c"null", recursive: false, out });
                out
            }
            (_, Some(null)) => null,
            (None, None) => return None,
        };
        Some((empty, null))
    }

    /// The child's part.
    pub fn write_child(&self, covers: Option<(Slot, Slot)>, writer: &mut Writer) {
        if let Some((empty, null)) = covers {
            self.masked.iter().for_each(|path| writer.plan.child(Op::Mask { path, empty, null }));
        }
        self.readonly.iter().for_each(|path| writer.plan.child(Op::MakeReadonly { path }));
    }
}

fn paths(list: &[Text<'_>], field: &str) -> Result<Vec<CString>> {
    let checked = list.iter().enumerate().map(|(index, path)| place(path, &format!("{field}[{index}]")));
    checked.map(|path| path.map(|path| c(&path))).collect()
}

/// The host's, and no imitation of it (CVE-2025-31133).
fn open_null(host: &Host, opened: &mut Opened) -> Result<Slot> {
    const NULL: &str = "/dev/null";
    let place = open(NULL, libc::O_PATH).map_err(|failure| failure.at("linux.maskedPaths", NULL))?;
    let genuine = sys::stat_at(place.as_raw_fd(), c"")
        .is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFCHR && stat.st_rdev == libc::makedev(1, 3));
    if !genuine {
        return Err(Error::host("linux.maskedPaths", "this machine's /dev/null is not the null device"));
    }
    let clone = if host.privileged {
        clone_tree(&place, false).map_err(|failure| failure.at("linux.maskedPaths", NULL))?
    } else {
        place
    };
    Ok(opened.add(clone, NULL))
}
