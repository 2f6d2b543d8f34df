//! `process.rlimits`: which side sets each limit, and when.

use crate::plan::Op;
use crate::spec::ResourceLimit;

use super::error::{Error, Result};
use super::opened::Writer;

/// In the order of their numbers (asm-generic/resource.h).
const LIMITS: [&str; 16] = [
    "RLIMIT_CPU",
    "RLIMIT_FSIZE",
    "RLIMIT_DATA",
    "RLIMIT_STACK",
    "RLIMIT_CORE",
    "RLIMIT_RSS",
    "RLIMIT_NPROC",
    "RLIMIT_NOFILE",
    "RLIMIT_MEMLOCK",
    "RLIMIT_AS",
    "RLIMIT_LOCKS",
    "RLIMIT_SIGPENDING",
    "RLIMIT_MSGQUEUE",
    "RLIMIT_NICE",
    "RLIMIT_RTPRIO",
    "RLIMIT_RTTIME",
];
/// Those that could end the making of the container before it is made: the child holds more descriptors than its
/// process will, writes more, and has its own stack.
const LIMITS_SET_LAST: [&str; 5] = ["RLIMIT_FSIZE", "RLIMIT_DATA", "RLIMIT_STACK", "RLIMIT_NOFILE", "RLIMIT_AS"];

/// The name of a limit's number.
pub(crate) fn limit_name(resource: u32) -> &'static str {
    LIMITS.get(resource as usize).copied().unwrap_or("RLIMIT_?")
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    resource: u32,
    soft: u64,
    hard: u64,
    last: bool,
}

impl Limit {
    /// A ceiling can only be raised by the keeper; what would hurt is lowered by the child, at last.
    pub fn write_early(&self, writer: &mut Writer) {
        const HARMLESS: u64 = 4096;
        let Limit { resource, soft, hard, last } = *self;
        if !last || (limit_name(resource) == "RLIMIT_NOFILE" && soft >= HARMLESS) {
            writer.plan.keeper(Op::SetLimit { resource, soft, hard });
        } else if hard >= HARMLESS {
            writer.plan.keeper(Op::SetLimit { resource, soft: hard, hard });
        }
    }

    /// The child's part, right before the command.
    pub fn write_last(&self, writer: &mut Writer) {
        let Limit { resource, soft, hard, last } = *self;
        if last {
            writer.plan.child(Op::SetLimit { resource, soft, hard });
        }
    }
}

/// Checks the list; `path` is its JSON path.
pub(super) fn limits(rlimits: &[ResourceLimit<'_>], path: &str) -> Result<Vec<Limit>> {
    let mut limits: Vec<Limit> = Vec::with_capacity(rlimits.len());
    for (index, given) in rlimits.iter().enumerate() {
        let field = |name: &str| format!("{path}[{index}]{name}");
        let Some(number) = LIMITS.iter().position(|name| *name == &*given.kind) else {
            return Err(Error::spec(field(".type"), format!("{:?} is no limit", &*given.kind)));
        };
        if given.soft > given.hard {
            let message = format!("{} is more than the hard limit, {}", given.soft, given.hard);
            return Err(Error::spec(field(".soft"), message));
        }
        let resource = number as u32;
        if limits.iter().any(|earlier| earlier.resource == resource) {
            return Err(Error::spec(field(".type"), format!("{} comes twice", given.kind)));
        }
        let last = LIMITS_SET_LAST.contains(&&*given.kind);
        limits.push(Limit { resource, soft: given.soft, hard: given.hard, last });
    }
    Ok(limits)
}
