//! `linux.timeOffsets`: what the clocks of a new time namespace are ahead of the host's, or behind.

use std::fmt::Write;

use crate::spec::{Linux, NamespaceKind};

use super::error::{Error, Result};
use super::namespaces::Namespaces;

/// Lines of /proc/self/timens_offsets (time_namespaces(7)).
pub(super) fn offsets(linux: &Linux<'_>, namespaces: &Namespaces) -> Result<String> {
    const SECOND: u32 = 1_000_000_000;
    let mut lines = String::new();
    for (clock, offset) in linux.time_offsets.iter() {
        let field = format!("linux.timeOffsets.{clock}");
        if !matches!(&**clock, "monotonic" | "boottime") {
            return Err(Error::spec(field, "neither monotonic nor boottime: other clocks are the whole machine's"));
        }
        if !namespaces.is_new(NamespaceKind::Time) {
            return Err(Error::spec(field, "needs a new time namespace"));
        }
        if offset.nanosecs >= SECOND {
            return Err(Error::spec(format!("{field}.nanosecs"), format!("{} is a second or more", offset.nanosecs)));
        }
        // Writing to a String can't fail.
        let _ = writeln!(lines, "{clock} {} {}", offset.secs, offset.nanosecs);
    }
    Ok(lines)
}
