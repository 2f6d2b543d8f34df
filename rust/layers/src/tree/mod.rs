//! The directory that a layer becomes: entries of a tar are put in place below one opened directory.
//!
//! The result is what overlayfs needs as a lower layer: a whiteout is a character device 0/0, and an opaque directory
//! carries an extended attribute. Where entries of one layer touch each other, the result is that of applying
//! them in order to a mounted overlay, but for whiteouts, which hide only what lower layers have: so the order of a
//! file and of a whiteout of its name does not matter.

mod directories;
mod metadata;
mod place;
mod walk;

pub(crate) use place::unpack;
pub(crate) use walk::{Listener, tell};
