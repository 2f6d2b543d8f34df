//! What engines and a keeper say to each other.
//!
//! ```text
//! engine                      spawner socket                ready keeper
//!    | Start + [plan, control, 0, 1, 2, opened...] ------------> |   whoever reads it is the keeper: attached
//!    | Start + [plan, control, folder, listener, folder of the   |
//!    |          listener's name, (journald's), opened...] -----> |   or detached
//!    |                      control socket                       | executes the keeper's list
//!    | Stdio, a command perhaps + [0, 1, 2], or                  | only where the plan waits for it (AwaitStdio);
//!    |         [folder, listener, its name's, (journald's)] ---> | with the latter it is detached from then on
//!    | <-------------------- Started + [pidfd, (terminal)]       | the child has called execve
//!    | <-------------------- Failed                              | or a step failed; keeper ends
//!    |                                                           |
//!    | <-------------------- Exited                              | PID 1 is reaped; detached: it is on disk
//!    | <-------------------- end of file                         | cgroups are removed, keeper is gone
//!    | end of file --------------------------------------------> | attached: the child is killed
//! ```
//!
//! A detached container's keeper outlives the engine. It has a second door, under its container's id, where any
//! number of engines may come and go; the control socket is only the first of them:
//!
//! ```text
//! any engine                  listener's socket             keeper, detached
//!    | connect ------------------------------------------------> |
//!    | <-------------------- Started + [pidfd]                   | adoption: as the first engine was told
//!    | Attach -------------------------------------------------> |
//!    | <-------------------- Attached + [input or terminal]      | what is written goes to its standard input
//!    | CloseInput ---------------------------------------------> | the keeper's own copy of the input is closed
//!    | <-------------------- Exited, end of file                 | as above
//!    | Recorded -----------------------------------------------> | the exit is in a journal: no need to keep it
//! ```
//!
//! What the container writes is in the log and nowhere else: an engine reads it there, so that no reader can hold
//! the keeper up. `Exited` is also what the keeper writes, byte for byte, to the file `exit` of the folder.
//!
//! All sockets are SOCK_SEQPACKET: one message, one datagram. Every message begins with
//! `version u16, kind u16`. All numbers are little-endian.
//!
//! A keeper is started by an engine of its own version, and may be adopted by one of any later version. So there are two
//! numbers: messages that start something are refused where they are of another version; those that a keeper exchanges
//! with engines to come, and its `exit`, only ever grow at their ends, and whoever reads passes over what he does not know.

use std::ffi::CString;

use crate::plan::{Field, MAX_OPS, Part, split};

/// Of [`Start`] and [`Stdio`]: changes whenever one of them does, or the plan.
pub const VERSION: u16 = 5;
/// Of [`Report`] and [`Ask`]: never changes, for keepers of all versions that were ever installed may be alive.
const LASTING: u16 = 5;
/// No message is longer: a `Started` with a full timing table, a `Failed` with its evidence.
pub const MAX_MESSAGE: usize = 16 * 1024;
/// The kernel passes at most this many descriptors in one message (SCM_MAX_FD, include/net/scm.h).
pub const MAX_DESCRIPTORS: usize = 253;
/// Bytes of a file that could not be executed, kept so that the error can say why.
pub const EVIDENCE: usize = 4096;

/// Engine to keeper: make this container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// The container is killed so many nanoseconds after its start; 0 for never.
    pub limit: u64,
    /// None: the container ends when the control socket closes.
    pub detached: Option<Detached>,
}

/// What the keeper of a container that outlives its engine has to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detached {
    /// The name of the listener's socket in its folder, to be removed at the end.
    pub name: CString,
    /// Bytes after which a log file is full.
    pub log_size: u64,
    /// How many log files are kept, the one being written among them; 0: no log.
    pub log_files: u32,
    /// Standard input stays open for those who attach; else it is at its end.
    pub input: bool,
    /// Where its lines go as well: the name of journald's socket in the folder whose descriptor comes after the
    /// listener's, NUL, and the fields of each message. Empty: nowhere, and there is no such descriptor.
    pub journal: Vec<u8>,
}

/// Engine to the keeper of a detached container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Wants the way to its standard input.
    Attach,
    /// Nothing more will come: end of file once everybody who attached has closed theirs, too.
    CloseInput,
    /// The exit is recorded in a journal.
    Recorded,
}

/// Keeper to engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// The process runs. The message carries a pidfd and, if there is one, the terminal's master.
    Started {
        /// Process id in the host's pid namespace.
        pid: u32,
        /// Steps whose refusal by the kernel was let pass: bits of [`warning`].
        warnings: u32,
        /// CLOCK_MONOTONIC nanoseconds at which each step was done, the keeper's list first, then
        /// the child's; 0 for a step that was not run. The child's last (`Exec`) is when it was begun.
        timings: Vec<u64>,
        /// CLOCK_MONOTONIC nanoseconds at which the keeper read [`Start`].
        begun: u64,
    },
    /// A step failed, nothing is left.
    Failed {
        /// In which list.
        part: Part,
        /// Index in that list.
        index: u32,
        /// The kernel's error number, or 0 if the plan itself was refused.
        errno: i32,
        /// For `Exec`: the text of the candidate, NUL, then the first bytes of that file. Else a name or nothing.
        evidence: Vec<u8>,
    },
    /// The process has ended and is reaped.
    Exited {
        /// The exit code, if it exited by itself.
        code: Option<i32>,
        /// The signal that ended it otherwise.
        signal: Option<i32>,
        /// Tasks of its cgroup that the kernel killed for want of memory.
        oom_kills: u64,
        /// Largest memory use of its cgroup, bytes; 0 if unknown.
        memory_peak: u64,
        /// Processor time of its cgroup, or of the process if there is none, microseconds.
        cpu_usec: u64,
        /// Forks that the pids limit refused.
        pids_refused: u64,
        /// The keeper killed it because its time was up.
        timed_out: bool,
        /// Bytes of its output that could not be written to the log.
        lost_output: u64,
        /// CLOCK_REALTIME nanoseconds at which it was reaped.
        ended: u64,
    },
    /// What is written to the descriptor that comes with it is the process's standard input.
    Attached {
        /// The descriptor is the master of its terminal. Without a descriptor there is no input.
        terminal: bool,
    },
}

/// Bits of [`Report::Started::warnings`].
pub mod warning {
    /// oom_score_adj was not lowered: no CAP_SYS_RESOURCE.
    pub const OOM_SCORE: u32 = 1;
    /// A resource limit was set only as high as the host allows.
    pub const RESOURCE_LIMIT: u32 = 2;
}

const START: u16 = 1;
const STARTED: u16 = 2;
const FAILED: u16 = 3;
const EXITED: u16 = 4;
const ATTACHED: u16 = 5;
const ATTACH: u16 = 6;
const CLOSE_INPUT: u16 = 7;
const RECORDED: u16 = 8;
const STDIO: u16 = 9;

fn begin(version: u16, kind: u16) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    version.put(&mut out);
    kind.put(&mut out);
    out
}

fn open(wanted: u16, mut input: &[u8]) -> Option<(u16, &[u8])> {
    let version = u16::take(&mut input)?;
    let kind = u16::take(&mut input)?;
    (version == wanted).then_some((kind, input))
}

impl Start {
    /// The message's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = begin(VERSION, START);
        self.limit.put(&mut out);
        put_detached(self.detached.as_ref(), &mut out);
        out
    }

    /// Reads a message; `None` if it is none of this version.
    pub fn decode(input: &[u8]) -> Option<Self> {
        let (kind, mut fields) = open(VERSION, input)?;
        let fields = &mut fields;
        let (limit, detached) = (u64::take(fields)?, take_detached(fields)?);
        (kind == START && fields.is_empty()).then_some(Self { limit, detached })
    }
}

fn put_detached(detached: Option<&Detached>, out: &mut Vec<u8>) {
    detached.is_some().put(out);
    if let Some(Detached { name, log_size, log_files, input, journal }) = detached {
        log_size.put(out);
        log_files.put(out);
        input.put(out);
        for text in [journal, name.as_bytes()] {
            (text.len() as u32).put(out);
            out.extend_from_slice(text);
        }
    }
}

fn take_detached(fields: &mut &[u8]) -> Option<Option<Detached>> {
    if !bool::take(fields)? {
        return Some(None);
    }
    let (log_size, log_files, input) = (u64::take(fields)?, u32::take(fields)?, bool::take(fields)?);
    let mut text = || {
        let length = u32::take(fields)? as usize;
        split(fields, length)
    };
    let (journal, name) = (text()?.to_vec(), CString::new(text()?).ok()?);
    Some(Some(Detached { name, log_size, log_files, input, journal }))
}

impl Ask {
    /// The message's bytes.
    pub fn encode(self) -> Vec<u8> {
        let kind = match self {
            Self::Attach => ATTACH,
            Self::CloseInput => CLOSE_INPUT,
            Self::Recorded => RECORDED,
        };
        begin(LASTING, kind)
    }

    /// Reads a message, also one of a later version; `None` if it is none that is known.
    pub fn decode(input: &[u8]) -> Option<Self> {
        match open(LASTING, input)?.0 {
            ATTACH => Some(Self::Attach),
            CLOSE_INPUT => Some(Self::CloseInput),
            RECORDED => Some(Self::Recorded),
            _ => None,
        }
    }
}

/// Longest command that a container that waits takes instead of its own, in bytes. A socket takes half as much again, and
/// so large a buffer is memory only where something is put into it.
pub const MAX_COMMAND: usize = 128 << 10;

/// Engine to keeper: here are standard input, output and error of the container that waits for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stdio<'a> {
    /// As of [`Start`], which could not say it yet; then the descriptors are those for its keeper.
    pub detached: Option<Detached>,
    /// The [`crate::plan::Op::Exec`] to end with instead of the plan's own, empty if that is meant.
    pub command: &'a [u8],
}

impl<'a> Stdio<'a> {
    /// The message's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = begin(VERSION, STDIO);
        put_detached(self.detached.as_ref(), &mut out);
        out.extend_from_slice(self.command);
        out
    }

    /// Reads a message; `None` if it is none of this version.
    pub fn decode(input: &'a [u8]) -> Option<Self> {
        let (kind, mut fields) = open(VERSION, input)?;
        let detached = take_detached(&mut fields)?;
        (kind == STDIO).then_some(Self { detached, command: fields })
    }
}

/// `None` travels as this, which no exit code and no signal number is.
const ABSENT: i32 = i32::MIN;

fn put_optional(value: Option<i32>, out: &mut Vec<u8>) {
    value.unwrap_or(ABSENT).put(out);
}

fn take_optional(input: &mut &[u8]) -> Option<Option<i32>> {
    i32::take(input).map(|value| (value != ABSENT).then_some(value))
}

impl Report {
    /// The message's bytes.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Started { pid, warnings, timings, begun } => {
                let mut out = begin(LASTING, STARTED);
                pid.put(&mut out);
                warnings.put(&mut out);
                begun.put(&mut out);
                timings.iter().for_each(|time| time.put(&mut out));
                out
            }
            Self::Failed { part, index, errno, evidence } => {
                let mut out = begin(LASTING, FAILED);
                (*part == Part::Child).put(&mut out);
                index.put(&mut out);
                errno.put(&mut out);
                out.extend_from_slice(evidence);
                out
            }
            Self::Exited {
                code,
                signal,
                oom_kills,
                memory_peak,
                cpu_usec,
                pids_refused,
                timed_out,
                lost_output,
                ended,
            } => {
                let mut out = begin(LASTING, EXITED);
                put_optional(*code, &mut out);
                put_optional(*signal, &mut out);
                for number in [oom_kills, memory_peak, cpu_usec, pids_refused, lost_output, ended] {
                    number.put(&mut out);
                }
                timed_out.put(&mut out);
                out
            }
            Self::Attached { terminal } => {
                let mut out = begin(LASTING, ATTACHED);
                terminal.put(&mut out);
                out
            }
        }
    }

    /// Reads a message, also one of a later version; `None` if it is none that is known.
    pub fn decode(input: &[u8]) -> Option<Self> {
        let (kind, mut fields) = open(LASTING, input)?;
        let fields = &mut fields;
        match kind {
            STARTED => {
                let (pid, warnings, begun) = (u32::take(fields)?, u32::take(fields)?, u64::take(fields)?);
                let whole = fields.len() % size_of::<u64>() == 0 && fields.len() / size_of::<u64>() <= MAX_OPS;
                let timings = std::iter::from_fn(|| u64::take(fields)).collect();
                whole.then_some(Self::Started { pid, warnings, timings, begun })
            }
            FAILED => {
                let part = if bool::take(fields)? { Part::Child } else { Part::Keeper };
                let (index, errno) = (u32::take(fields)?, i32::take(fields)?);
                let evidence = split(fields, fields.len())?.to_vec();
                Some(Self::Failed { part, index, errno, evidence })
            }
            EXITED => {
                let (code, signal) = (take_optional(fields)?, take_optional(fields)?);
                let mut number = || u64::take(fields);
                Some(Self::Exited {
                    code,
                    signal,
                    oom_kills: number()?,
                    memory_peak: number()?,
                    cpu_usec: number()?,
                    pids_refused: number()?,
                    lost_output: number()?,
                    ended: number()?,
                    timed_out: bool::take(fields)?,
                })
            }
            ATTACHED => Some(Self::Attached { terminal: bool::take(fields)? }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXITED: Report = Report::Exited {
        code: Some(3),
        signal: None,
        oom_kills: 0,
        memory_peak: 1,
        cpu_usec: 2,
        pids_refused: 3,
        timed_out: false,
        lost_output: 5,
        ended: 4,
    };

    #[test]
    fn messages_survive_the_way() {
        let reports = [
            Report::Started { pid: 7, warnings: warning::OOM_SCORE, timings: vec![1, 2, u64::MAX], begun: 9 },
            Report::Failed { part: Part::Child, index: 17, errno: 1, evidence: b"/bin/sh\0#!x".to_vec() },
            EXITED,
            Report::Exited {
                code: None,
                signal: Some(9),
                oom_kills: 1,
                memory_peak: 1,
                cpu_usec: 2,
                pids_refused: 0,
                timed_out: true,
                lost_output: 0,
                ended: 4,
            },
            Report::Attached { terminal: true },
        ];
        for report in reports {
            assert_eq!(Report::decode(&report.encode()), Some(report));
        }
        let detached = Detached {
            name: c"abc".to_owned(),
            log_size: 1 << 40,
            log_files: 5,
            input: true,
            journal: b"x\0A=b\n".to_vec(),
        };
        for detached in [Some(detached), None] {
            let start = Start { limit: 7, detached: detached.clone() };
            assert_eq!(Start::decode(&start.encode()), Some(start));
            let stdio = Stdio { detached, command: b"command" };
            assert_eq!(Stdio::decode(&stdio.encode()), Some(stdio));
        }
        for ask in [Ask::Attach, Ask::CloseInput, Ask::Recorded] {
            assert_eq!(Ask::decode(&ask.encode()), Some(ask));
        }
    }

    #[test]
    fn what_a_later_version_adds_is_passed_over() {
        let grown = |mut bytes: Vec<u8>| {
            bytes.extend_from_slice(b"more");
            bytes
        };
        for report in [EXITED, Report::Attached { terminal: true }] {
            assert_eq!(Report::decode(&grown(report.encode())), Some(report));
        }
        for ask in [Ask::Attach, Ask::CloseInput, Ask::Recorded] {
            assert_eq!(Ask::decode(&grown(ask.encode())), Some(ask));
        }
    }

    /// Keepers that were started before the last change of this file may be alive: these bytes stay what they are.
    #[test]
    fn reports_are_what_they_always_were() {
        let started = Report::Started { pid: 7, warnings: 1, timings: vec![2], begun: 9 };
        assert_eq!(started.encode(), *b"\x05\0\x02\0\x07\0\0\0\x01\0\0\0\x09\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0");
        assert_eq!(Report::Attached { terminal: true }.encode(), *b"\x05\0\x05\0\x01");
        let asks = [Ask::Attach, Ask::CloseInput, Ask::Recorded].map(|ask| ask.encode()[..4].to_vec());
        assert_eq!(asks, [b"\x05\0\x06\0", b"\x05\0\x07\0", b"\x05\0\x08\0"]);
    }

    #[test]
    fn stdio_is_told_from_all_else() {
        assert_eq!(Stdio::decode(&Start { limit: 0, detached: None }.encode()), None);
        assert_eq!(Stdio::decode(b""), None);
    }

    #[test]
    fn another_version_is_no_message() {
        let mut bytes = Start { limit: 0, detached: None }.encode();
        bytes[0] ^= 1;
        assert_eq!(Start::decode(&bytes), None);
    }
}
