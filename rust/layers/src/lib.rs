//! Layers of images: a tar, compressed or not, becomes a directory in overlay form, and back.
//!
//! Everything in a layer is an enemy's input. It is unpacked by descriptors alone, each name one component below a
//! directory that this crate opened itself, so that nothing in an archive can reach a file outside. Here is no
//! policy about images, no Python, and no thread that outlives a call.

mod buffers;
mod compression;
mod digest;
mod error;
mod folder;
mod names;
mod options;
mod pipeline;
mod remove;
mod sys;
mod tar;
mod tree;
mod write;

pub use compression::Compression;
pub use digest::Digest;
pub use error::{Error, Fault, Reason, SparseFault};
pub use folder::{can_be_passed_on, make_folder, pass_on};
pub use options::{Contents, Limits, Options, Overlay, Progress, Report};
pub use pipeline::extract;
pub use remove::remove_tree;
pub use write::{Packing, WriteOptions, Written, write_layer};
