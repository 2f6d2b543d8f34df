//! A container that is created by one command and started by another: its process waits at the end of the child's
//! list, with everything done but execve(2).
//!
//! ```text
//! create                               the container's process                  start
//!   | <------------------- CallKeeper  |  all is done                             .
//!   |  writes the state down           |                                          .
//!   | Release ---------------------->  |  OutliveKeeper, closes the channel       .
//!   |  ends                            |  reads `release` <------------ one byte  |
//!                                      |  startContainer hooks                    |
//!                                      |  `outcome`: step and errno ------------> |  it failed
//!                                      |  execve: end of file ------------------> |  it runs
//! ```

use crate::plan::{Op, Slot, TextsBuf};
use crate::spec::Process;

use super::error::Result;
use super::hooks::Ready;
use super::opened::{Opened, Writer, open};
use super::start::Start;

/// The first number after standard input, output and error.
const FIRST_OPEN: u32 = 3;

/// How a process ends its list; nothing of it if the engine's keeper looks after the container.
#[derive(Debug, Default)]
pub(super) struct Lifecycle {
    outlives: bool,
    /// The fifos by which it is started.
    start: Option<(Slot, Slot)>,
    hooks: Vec<Ready>,
    preserved: u32,
    /// There is none that could be looked for.
    no_command: bool,
}

impl Lifecycle {
    /// Opens the fifos; `hooks` are those of startContainer.
    pub fn open(start: &Start<'_>, hooks: Vec<Ready>, opened: &mut Opened) -> Result<Self> {
        let Some(given) = &start.lifecycle else { return Ok(Self::default()) };
        let fifos = match (&given.release, &given.outcome) {
            (Some(release), Some(outcome)) => {
                // Both directions, so that neither waits for its other side, and the first has an end only with us.
                let read = open(release, libc::O_RDWR).map_err(|error| error.at("start.lifecycle.release", release))?;
                let other = open(outcome, libc::O_RDONLY | libc::O_NONBLOCK);
                let other = other.map_err(|error| error.at("start.lifecycle.outcome", outcome))?;
                let write = open(outcome, libc::O_WRONLY);
                let write = write.map_err(|error| error.at("start.lifecycle.outcome", outcome))?;
                drop(other);
                Some((opened.add(read, "the start"), opened.add(write, "the outcome of the start")))
            }
            _ => None,
        };
        Ok(Self { outlives: true, start: fifos, hooks, preserved: given.preserve, no_command: false })
    }

    /// The same of a container that can't be started.
    pub fn without_command(self) -> Self {
        Self { no_command: true, ..self }
    }

    /// Whether the process lives without a keeper.
    pub fn outlives(&self) -> bool {
        self.outlives
    }

    /// Whether the process is given the home of its user, as runc does where there is none or an empty one. The engine that
    /// has a keeper has read the image beforehand.
    pub fn finds_home(&self, process: &Process<'_>) -> bool {
        let given = process.env.iter().rev().find_map(|entry| entry.strip_prefix("HOME="));
        self.outlives && !self.no_command && given.unwrap_or_default().is_empty()
    }

    /// While the process is root of all that is mounted.
    pub fn write_home(&self, process: &Process<'_>, writer: &mut Writer) {
        if self.finds_home(process) {
            writer.plan.child(Op::FindHome { uid: process.user.uid });
        }
    }

    /// Once the process is its user, and before a filter may forbid to look.
    pub fn write_look(&self, candidates: &TextsBuf, writer: &mut Writer) {
        if self.start.is_some() && !self.no_command {
            writer.plan.child(Op::FindCommand { candidates: candidates.as_texts() });
        }
    }

    /// When nothing is left that could fail but the filter and execve(2).
    pub fn write_wait(&self, writer: &mut Writer) {
        if let Some((release, outcome)) = self.start {
            writer.plan.child(Op::CallKeeper {});
            writer.plan.child(Op::AwaitKeeper {});
            writer.plan.child(Op::OutliveKeeper {});
            let first = FIRST_OPEN + self.preserved;
            writer.plan.child(Op::AwaitStart { release, outcome, first });
        } else if self.outlives {
            writer.plan.child(Op::OutliveKeeper {});
        }
    }

    /// Once it is started, and before all descriptors but the standard ones are closed.
    pub fn write_last(&self, writer: &mut Writer) {
        self.hooks.iter().for_each(|hook| writer.plan.child(hook.op(None)));
        if self.preserved > 0 {
            writer.plan.child(Op::PassDescriptors { count: self.preserved });
        }
    }
}
