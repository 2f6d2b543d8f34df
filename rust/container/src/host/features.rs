//! What newer kernels can do and older ones can't, as far as it decides which steps a plan has.

use super::Version;

/// Layers are given to overlayfs one by one (`lowerdir+`). Before it all of them are one text of mount(2).
const OVERLAY_BY_DESCRIPTOR: Version = (6, 7);
/// What is not attached anywhere can be cloned, stacked, and take other mounts.
const DETACHED_TREES: Version = (6, 15);

/// Abilities of this kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Overlayfs is configured step by step, and takes each layer on its own.
    pub overlay_by_descriptor: bool,
    /// open_tree(2) clones a mount that is not attached, overlayfs stacks one, and move_mount(2) attaches others to it.
    pub detached_trees: bool,
}

impl Features {
    /// What kernels of this version have.
    pub fn of(kernel: Version) -> Self {
        Self { overlay_by_descriptor: kernel >= OVERLAY_BY_DESCRIPTOR, detached_trees: kernel >= DETACHED_TREES }
    }
}
