//! `checkpoint` and `restore`.

use crate::error::{Error, Result};

/// criu brings a container back without its limits and device rules on cgroup v2, and before 3.19 without no_new_privs.
pub fn refuse(verb: &str) -> Result<u8> {
    Err(Error::new(format!("{verb}: not supported by pyrt-runtime")).hint("runc and crun can, with criu"))
}
