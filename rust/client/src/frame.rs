//! Frames between client and server, as bytes.
//!
//! ```text
//! frame     length of the payload u32, kind u16, descriptors u16, payload
//!
//! 1  Call    protocol u16, count of arguments u32, then texts that each end in a NUL:
//!            version, directory, arguments, environment (NAME=value)
//! 2  Drain   -
//! 3  Signal  number u8
//! 4  Window  rows u16, columns u16
//! 16 Other   the server's version
//! 17 Text    stream u8 (1 or 2), bytes
//! 18 Relay   streams u8: 1 input, 2 output, 4 error, 8 terminal; a descriptor for each of the first
//!            three that is set, in this order, or the terminal's master alone
//! 19 Exit    status u8, signal u8 (0: none; else the client is to end by it)
//! ```
//!
//! All numbers are little-endian. Descriptors travel by SCM_RIGHTS with the first byte of their frame.
//! Drain, Other and the first three things in a Call never change, so that versions can tell each other apart.

use alloc::vec::Vec;
use core::ffi::CStr;

use crate::failure::Failure;
use crate::given::Given;
use crate::sys::{self, Errno, Fd, Owned};

/// Changes whenever a frame does; the server tells a client of another one its version and runs nothing.
pub const PROTOCOL: u16 = 1;
/// Arguments and environment together may be this long (Linux itself allows 6 MiB at most).
const LONGEST_CALL: usize = 4 << 20;
/// No frame from the server is longer.
const LONGEST_FRAME: usize = 1 << 20;
const HEADER: usize = 8;
/// Read from the server at once.
const PIECE: usize = 64 << 10;
/// Of Linux: no path is longer.
const LONGEST_PATH: usize = libc::PATH_MAX as usize;

const CALL: u16 = 1;
const DRAIN: u16 = 2;
const SIGNAL: u16 = 3;
const WINDOW: u16 = 4;
const OTHER: u16 = 16;
const TEXT: u16 = 17;
const RELAY: u16 = 18;
const EXIT: u16 = 19;

/// Bits of a Relay's `streams`.
const INPUT: u8 = 1;
const OUTPUT: u8 = 2;
const ERROR: u8 = 4;
const TERMINAL: u8 = 8;

/// What the server says.
#[derive(Debug)]
pub enum Frame {
    /// It is of another version and has run nothing.
    Other,
    /// Bytes for descriptor 1 or 2.
    Text { stream: Fd, bytes: Vec<u8> },
    /// Descriptors to copy from and to.
    Relay(Ends),
    /// The verb is done.
    Exit { status: u8, signal: u8 },
}

/// The container's side of a relay.
#[derive(Debug)]
pub enum Ends {
    /// Pipes; `input` is a write end, the others are read ends.
    Pipes { input: Option<Owned>, output: Option<Owned>, error: Option<Owned> },
    /// The master of a pseudo terminal; `input`: keys go in as well.
    Terminal { master: Owned, input: bool },
}

fn header(kind: u16, descriptors: u16, payload: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + payload);
    out.extend_from_slice(&u32::try_from(payload).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&descriptors.to_le_bytes());
    out
}

/// A Signal's bytes.
pub fn signal(number: u8) -> Vec<u8> {
    let mut out = header(SIGNAL, 0, 1);
    out.push(number);
    out
}

/// A Window's bytes.
pub fn window(rows: u16, columns: u16) -> Vec<u8> {
    let mut out = header(WINDOW, 0, 4);
    out.extend_from_slice(&rows.to_le_bytes());
    out.extend_from_slice(&columns.to_le_bytes());
    out
}

/// A Drain's bytes.
pub fn drain() -> Vec<u8> {
    header(DRAIN, 0, 0)
}

/// What this process was asked to do, ready to be sent any number of times.
pub struct Call(Vec<u8>);

impl Call {
    /// With this process's directory. A directory that is gone travels as "".
    pub fn of(given: Given<'_>) -> Result<Self, Failure> {
        let mut place = [0; LONGEST_PATH];
        let directory = match sys::working_folder(&mut place) {
            // Linux says "(unreachable)/..." of one that is in another tree of mounts.
            Ok(path) if path.starts_with(b"/") => path,
            _ => b"",
        };
        let environment: Vec<&CStr> = given.variables().map(|(_, entry)| entry).collect();
        Self::encode(directory, given.words(), &environment)
    }

    fn encode(directory: &[u8], arguments: &[&CStr], environment: &[&CStr]) -> Result<Self, Failure> {
        let rest = arguments.iter().chain(environment);
        let texts: usize = rest.clone().map(|text| text.count_bytes() + 1).sum();
        let first = [env!("CARGO_PKG_VERSION").as_bytes(), directory];
        let payload = 6 + first.iter().map(|text| text.len() + 1).sum::<usize>() + texts;
        if payload > LONGEST_CALL {
            return Err(Failure::new("arguments and environment are longer than 4 MiB")
                .hint("put what is long into a file (--env-file, -v) or pass it through stdin (-i)"));
        }
        let mut bytes = header(CALL, 3, payload);
        bytes.extend_from_slice(&PROTOCOL.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(arguments.len()).unwrap_or(u32::MAX).to_le_bytes());
        for text in first {
            bytes.extend_from_slice(text);
            bytes.push(0);
        }
        for text in rest {
            bytes.extend_from_slice(text.to_bytes_with_nul());
        }
        Ok(Self(bytes))
    }

    /// Sends it, with the descriptors 0 to 2; waits as long as the server does not read.
    pub fn send(&self, socket: Fd) -> sys::Result<()> {
        let mut sent = sys::send_with(socket, &self.0, [0, 1, 2])?;
        while sent < self.0.len() {
            sent += sys::send(socket, &self.0[sent..], 0)?;
        }
        Ok(())
    }
}

/// Why what arrived is no frame, for the user.
fn malformed() -> Failure {
    Failure::new("the server speaks another language than this client").hint("is PYRT_RUN the folder of a pyrt server?")
}

/// What has arrived and is not taken yet.
#[derive(Default)]
pub struct Inbox {
    bytes: Vec<u8>,
    descriptors: Vec<Owned>,
}

/// What one read from the server gave.
#[derive(PartialEq, Eq)]
pub enum Arrival {
    /// Bytes, or nothing for now.
    Open,
    /// The server has closed the connection.
    Closed,
    /// The kernel says that nobody had taken the call, or not all of it.
    Reset,
}

impl Inbox {
    /// Whether anything has ever come that is still here.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Reads once from a socket that does not block.
    pub fn fill(&mut self, socket: Fd) -> Result<Arrival, Failure> {
        match sys::receive(socket, &mut self.bytes, PIECE, &mut self.descriptors) {
            Ok(0) => Ok(Arrival::Closed),
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(Arrival::Open),
            Err(Errno::CONNRESET) => Ok(Arrival::Reset),
            Err(error) => Err(Failure::of("reading from the server", error)),
        }
    }

    /// The next whole frame.
    pub fn next(&mut self) -> Result<Option<Frame>, Failure> {
        let Some(&[a, b, c, d, k, l, m, n]) = self.bytes.first_chunk() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        if length > LONGEST_FRAME {
            return Err(malformed());
        }
        if self.bytes.len() < HEADER + length {
            return Ok(None);
        }
        let payload = self.bytes[HEADER..HEADER + length].to_vec();
        self.bytes.drain(..HEADER + length);
        let count = usize::from(u16::from_le_bytes([m, n]));
        if count > self.descriptors.len() {
            return Err(malformed());
        }
        let descriptors = self.descriptors.drain(..count);
        parse(u16::from_le_bytes([k, l]), payload, descriptors).ok_or_else(malformed).map(Some)
    }
}

fn parse(kind: u16, mut payload: Vec<u8>, mut descriptors: impl Iterator<Item = Owned>) -> Option<Frame> {
    match (kind, payload.as_slice()) {
        (OTHER, _) => Some(Frame::Other),
        (TEXT, &[stream @ (1 | 2), ..]) => {
            payload.remove(0);
            Some(Frame::Text { stream: stream.into(), bytes: payload })
        }
        (RELAY, &[streams]) if streams & TERMINAL != 0 => {
            let ends = Ends::Terminal { master: descriptors.next()?, input: streams & INPUT != 0 };
            Some(Frame::Relay(ends))
        }
        (RELAY, &[streams]) => {
            let mut end = |bit| if streams & bit == 0 { Some(None) } else { descriptors.next().map(Some) };
            Some(Frame::Relay(Ends::Pipes { input: end(INPUT)?, output: end(OUTPUT)?, error: end(ERROR)? }))
        }
        (EXIT, &[status, signal]) => Some(Frame::Exit { status, signal }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(kind: u16, payload: &[u8]) -> Result<Option<Frame>, Failure> {
        let mut inbox = Inbox::default();
        inbox.bytes.extend(header(kind, 0, payload.len()));
        inbox.bytes.extend(payload);
        inbox.next()
    }

    #[test]
    fn a_text_names_its_stream() {
        let frame = received(TEXT, b"\x02pyrt: no").unwrap().unwrap();
        assert!(matches!(frame, Frame::Text { stream: 2, bytes } if bytes == b"pyrt: no"));
        assert!(received(TEXT, b"\x03x").is_err());
    }

    #[test]
    fn a_frame_that_is_not_whole_waits() {
        let mut inbox = Inbox::default();
        let whole = [header(EXIT, 0, 2), vec![7, 0]].concat();
        for byte in &whole[..whole.len() - 1] {
            inbox.bytes.push(*byte);
            assert!(inbox.next().unwrap().is_none());
        }
        inbox.bytes.push(0);
        assert!(matches!(inbox.next().unwrap(), Some(Frame::Exit { status: 7, signal: 0 })));
    }

    #[test]
    fn garbage_and_missing_descriptors_are_refused() {
        assert!(received(999, b"").is_err());
        assert!(received(RELAY, &[OUTPUT]).is_err());
        let mut inbox = Inbox::default();
        inbox.bytes.extend(b"HTTP/1.1 400 Bad Request\r\n");
        assert!(inbox.next().is_err());
    }

    #[test]
    fn a_call_that_is_too_long_is_refused_with_a_hint() {
        let long = std::ffi::CString::new("x".repeat(LONGEST_CALL)).unwrap();
        let failure = Call::encode(b"/", &[&long], &[]).err().unwrap();
        assert!(failure.hint.unwrap().contains("--env-file"));
    }

    #[test]
    fn a_call_is_as_long_as_it_says() {
        let Call(bytes) = Call::encode(b"/here", &[c"run", c""], &[c"A=1"]).ok().unwrap();
        let payload = [b"\x01\0\x02\0\0\0", env!("CARGO_PKG_VERSION").as_bytes(), b"\0/here\0run\0\0A=1\0"].concat();
        assert_eq!(bytes, [header(CALL, 3, payload.len()), payload].concat());
        assert_eq!(bytes.len(), bytes.capacity());
    }
}
