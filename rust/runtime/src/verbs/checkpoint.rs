//! `checkpoint` and `restore`.

use crate::error::{Error, Result};

/// They want criu, and what it needs to know of the mounts of a container is not written down yet.
pub fn refuse(verb: &str) -> Result<u8> {
    Err(Error::new(format!("{verb}: not supported by pyrt-runtime")).hint("runc and crun can, with criu"))
}
