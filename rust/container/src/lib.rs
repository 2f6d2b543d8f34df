//! From an OCI runtime specification to a running process, in three moves.
//!
//! * [`compile`] reads the specification, opens what it names and writes a [`plan::Plan`].
//! * [`execute`] walks the plan with raw system calls: no policy, no allocation after the clone.
//! * [`explain`] turns the plan, or the step at which it failed, into sentences.
//!
//! [`rootfs`] opens the files of a container from outside.
//! [`seccomp`] compiles system call filters; [`protocol`] is how a plan travels to the keeper that executes it, and what
//! comes back. Nothing here knows Python.

pub mod compile;
pub mod execute;
pub mod explain;
pub mod host;
mod json;
pub mod log;
pub mod lookup;
pub mod plan;
pub mod protocol;
pub mod rootfs;
pub mod seccomp;
pub mod spec;
pub mod sys;
