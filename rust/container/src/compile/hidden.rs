//! `linux.maskedPaths` and `linux.readonlyPaths`.

use std::ffi::CString;

use crate::plan::{Op, Slot, TextsBuf};
use crate::spec::{Linux, Text};

use super::error::Result;
use super::mounts::Base;
use super::opened::Writer;
use super::options::{NODEV, NOEXEC, NOSUID, RDONLY};
use super::paths::{c, place};

/// Checked paths.
#[derive(Debug)]
pub(super) struct Hidden {
    masked: Vec<CString>,
    readonly: Vec<CString>,
}

impl Hidden {
    pub fn of(linux: &Linux<'_>) -> Result<Self> {
        let masked = paths(&linux.masked_paths, "linux.maskedPaths")?;
        let readonly = paths(&linux.readonly_paths, "linux.readonlyPaths")?;
        Ok(Self { masked, readonly })
    }

    /// The keeper's part: what directories are hidden under.
    pub fn write_keeper(&self, writer: &mut Writer) -> Option<Slot> {
        if self.masked.is_empty() {
            return None;
        }
        let empty = writer.slot("the empty directory");
        let options: TextsBuf = [c"size=4k", c"nr_inodes=2", c"mode=755"].into_iter().collect();
        let attributes = RDONLY | NOSUID | NODEV | NOEXEC;
        writer.plan.keeper(Op::NewMount { fstype: c"tmpfs", options: options.as_texts(), attributes, out: empty });
        Some(empty)
    }

    /// The child's part, in what lies below `bases` before those are attached (`in_advance`), or in the rest; `dev` is what
    /// is mounted at /dev.
    pub fn write_child(
        &self,
        bases: &[Base<'_>],
        in_advance: bool,
        (empty, dev): (Option<Slot>, Slot),
        writer: &mut Writer,
    ) {
        let placed = |path: &CString| match Base::of(bases, path) {
            Some((slot, rest)) => in_advance.then_some((Some(slot), rest)),
            None => (!in_advance).then(|| (None, path.clone())),
        };
        if let Some(empty) = empty {
            for (within, path) in self.masked.iter().filter_map(placed) {
                writer.plan.child(Op::Mask { within, path: &path, empty, dev });
            }
        }
        for (within, path) in self.readonly.iter().filter_map(placed) {
            writer.plan.child(Op::MakeReadonly { within, path: &path });
        }
    }
}

fn paths(list: &[Text<'_>], field: &str) -> Result<Vec<CString>> {
    let checked = list.iter().enumerate().map(|(index, path)| place(path, &format!("{field}[{index}]")));
    checked.map(|path| path.map(|path| c(&path))).collect()
}
