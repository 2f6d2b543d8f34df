//! `linux.seccomp` of a runtime specification -> a BPF program that the kernel loads quickly.
//!
//! * `profile` reads the JSON and refuses what it can't honour.
//! * `abi` knows the numbers of system calls.
//! * `program` turns rules into ranges of numbers, a balanced tree over them, and checks of arguments.
//! * `assembler` places the instructions.
//!
//! # What a rule means
//!
//! Several rules for one call are alternatives; several `args` of one rule must all hold, unless two of them speak of
//! the same argument: then each is a rule of its own, as runc has it. Comparisons are of the whole 64 bits of
//! a register. Rules with `args` come before those without, each in the order of the list: the first that holds
//! decides. (libseccomp lets a rule without `args` wipe out the others, so that "allow ioctl, but not TIOCSTI" can't be
//! said.) A rule whose action is the default's is a rule like any other and never skipped.
//!
//! # What is not in the list
//!
//! A number without a name in Linux 6.18 answers ENOSYS unless the default lets it pass: a C library that probes for
//! a newer call falls back, where EPERM would be taken for an answer. If the profile does not list x32, its calls
//! answer ENOSYS, as kernels without it do. A call of another architecture that is not listed ends the process;
//! 32-bit ARM is always such a one.
//!
//! Names that this machine lacks are passed over; only a name that nobody knows, in a rule that stops what the default
//! would let pass, is an error.

mod abi;
mod assembler;
mod profile;
mod program;

pub use profile::{ARCHITECTURES, FLAGS};

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// A program for `SECCOMP_SET_MODE_FILTER`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// An array of `struct sock_filter`, in this machine's byte order.
    pub program: Vec<u8>,
    /// SECCOMP_FILTER_FLAG_ bits.
    pub flags: u64,
    /// Who answers what the filter notifies; none if it notifies nothing.
    pub notify: Option<Notify>,
}

/// Where notifications go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notify {
    /// A socket of the host.
    pub path: String,
    /// Handed on as it stands.
    pub metadata: String,
}

/// Why a profile is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not JSON, a wrong type, a field that nobody knows, or a value that can't be honoured.
    #[error("{field}: {problem}")]
    Refused {
        /// Where it stands, as a JSON path: `linux.seccomp.syscalls[3].action`.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The kernel takes at most [`LONGEST`] instructions.
    #[error("linux.seccomp makes a program of {0} instructions, the kernel takes {LONGEST}")]
    TooLong(usize),
}

impl Error {
    /// The JSON path of the culprit.
    pub fn field(&self) -> &str {
        match self {
            Self::Refused { field, .. } => field,
            Self::TooLong(_) => "linux.seccomp",
        }
    }
}

/// BPF_MAXINSNS of linux/bpf_common.h.
pub const LONGEST: usize = 4096;

/// Compiles the JSON of `linux.seccomp` for this machine; the same bytes are compiled once a process.
pub fn compile(json: &str) -> Result<Filter, Error> {
    if let Some(filter) = recall(json) {
        return Ok(filter);
    }
    let filter = compile_for(json, abi::Machine::NATIVE)?;
    remember(json, &filter);
    Ok(filter)
}

fn compile_for(json: &str, machine: abi::Machine) -> Result<Filter, Error> {
    let profile = profile::parse(json)?;
    let program = program::generate(&profile, machine);
    if program.len() > LONGEST {
        return Err(Error::TooLong(program.len()));
    }
    Ok(Filter {
        program: program.iter().flat_map(assembler::Instruction::bytes).collect(),
        flags: profile.flags,
        notify: profile.notify,
    })
}

/// A host has one profile for each set of capabilities in use, so a handful.
const REMEMBERED: usize = 16;
/// Docker's profile is 12 KiB; a giant is not worth keeping.
const LARGEST_REMEMBERED: usize = 256 * 1024;

/// Most recently used first. Found by content, which no hash can mistake; two of one length differ early.
static CACHE: Mutex<VecDeque<(Box<str>, Filter)>> = Mutex::new(VecDeque::new());

fn recall(json: &str) -> Option<Filter> {
    let mut cache = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
    let place = cache.iter().position(|(key, _)| **key == *json)?;
    let entry = cache.remove(place)?;
    let filter = entry.1.clone();
    cache.push_front(entry);
    Some(filter)
}

fn remember(json: &str, filter: &Filter) {
    if json.len() > LARGEST_REMEMBERED {
        return;
    }
    let mut cache = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
    cache.truncate(REMEMBERED - 1);
    cache.push_front((json.into(), filter.clone()));
}

#[cfg(test)]
mod tests;
