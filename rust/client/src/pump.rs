//! Copies one stream to another and never waits: where bytes may be spliced they never come up to
//! user space, else they are read and written.

use alloc::vec::Vec;
use core::ffi::{CStr, c_int};

use libc::{POLLIN, POLLOUT, pollfd};

use crate::sys::{self, Errno, Fd, Owned};

/// Read and spliced at once: what a pipe holds.
const PIECE: usize = 64 << 10;
/// Pieces in one turn, so that one busy stream leaves room for signals and for the others.
const PIECES: usize = 16;
/// What a terminal takes without making its writer wait, if it says that it is ready.
const TERMINAL_PIECE: usize = 256;

/// A descriptor that poll(2) is to look at; without any event it still tells of errors and ends.
pub const fn look_at(fd: Fd, events: i16) -> pollfd {
    pollfd { fd, events, revents: 0 }
}

/// None: poll(2) passes over what is negative.
pub const NOWHERE: pollfd = look_at(-1, 0);

/// One of the user's descriptors, or one of our own.
enum Descriptor {
    Users(Fd),
    Own(Owned),
}

impl Descriptor {
    fn fd(&self) -> Fd {
        match self {
            Self::Users(fd) => *fd,
            Self::Own(owned) => owned.fd(),
        }
    }
}

/// How bytes get into a descriptor without waiting, although its flags belong to others as well.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Files never wait, and neither does a description of our own with O_NONBLOCK.
    Write,
    /// At most so many bytes at a time, and only after poll has said that there is room.
    Small(usize),
    /// Sockets take a flag a call.
    Send,
}

/// Where bytes go.
pub struct Sink {
    descriptor: Descriptor,
    way: Way,
    splices: bool,
}

/// A second description of a terminal, whose O_NONBLOCK is nobody else's business.
fn reopened(descriptor: Fd, access: c_int) -> Option<Owned> {
    let name = alloc::format!("/proc/self/fd/{descriptor}\0");
    let name = CStr::from_bytes_with_nul(name.as_bytes()).ok()?;
    sys::open(name, access | libc::O_NONBLOCK | libc::O_NOCTTY, 0).ok()
}

/// The S_IFMT part of its mode.
fn kind_of(descriptor: Fd) -> sys::Result<u32> {
    Ok(sys::stat_of(descriptor)?.st_mode & libc::S_IFMT)
}

impl Sink {
    /// One of the user's descriptors.
    pub fn of_user(descriptor: Fd) -> sys::Result<Self> {
        let kind = kind_of(descriptor)?;
        let own = if kind == libc::S_IFCHR { reopened(descriptor, libc::O_WRONLY) } else { None };
        let way = match kind {
            libc::S_IFIFO => Way::Small(libc::PIPE_BUF),
            libc::S_IFSOCK => Way::Send,
            libc::S_IFCHR if own.is_none() => Way::Small(TERMINAL_PIECE),
            _ => Way::Write,
        };
        let descriptor = own.map_or(Descriptor::Users(descriptor), Descriptor::Own);
        Ok(Self { descriptor, way, splices: matches!(kind, libc::S_IFIFO | libc::S_IFREG) })
    }

    /// A container's, which came from the server and is ours alone.
    pub fn of_container(descriptor: Owned) -> sys::Result<Self> {
        sys::set_nonblocking(descriptor.fd())?;
        let splices = kind_of(descriptor.fd())? == libc::S_IFIFO;
        Ok(Self { descriptor: Descriptor::Own(descriptor), way: Way::Write, splices })
    }

    /// Writes what goes in now; `Err(AGAIN)` if that is nothing.
    pub fn write(&self, bytes: &[u8]) -> sys::Result<usize> {
        let fd = self.descriptor.fd();
        match self.way {
            Way::Write => sys::write(fd, bytes),
            Way::Send => sys::send(fd, bytes, libc::MSG_DONTWAIT),
            Way::Small(most) if is_ready(fd, POLLOUT) => sys::write(fd, &bytes[..most.min(bytes.len())]),
            Way::Small(_) => Err(Errno::AGAIN),
        }
    }
}

/// Where bytes come from.
pub struct Source(Descriptor);

impl Source {
    /// The user's input. A terminal is shared with others who might take what poll has promised to us.
    pub fn of_user(descriptor: Fd) -> sys::Result<Self> {
        let own = match kind_of(descriptor)? {
            libc::S_IFCHR => reopened(descriptor, libc::O_RDONLY),
            _ => None,
        };
        Ok(Self(own.map_or(Descriptor::Users(descriptor), Descriptor::Own)))
    }

    /// A container's, which came from the server and is ours alone.
    pub fn of_container(descriptor: Owned) -> sys::Result<Self> {
        sys::set_nonblocking(descriptor.fd())?;
        Ok(Self(Descriptor::Own(descriptor)))
    }
}

/// Whether poll reports any of these, an error or an end for this descriptor now.
fn is_ready(descriptor: Fd, events: i16) -> bool {
    sys::poll(&mut [look_at(descriptor, events)], 0) == Ok(1)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    Source,
    Sink,
}

/// How a pump ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// Everything is copied.
    Source,
    /// The rest can't be written; PIPE if nobody reads it any more.
    Sink(Errno),
}

/// One direction of a relay.
pub struct Pump {
    source: Source,
    sink: Sink,
    /// Read and not yet written.
    held: Vec<u8>,
    splices: bool,
    wait: Wait,
    over: Option<Over>,
}

impl Pump {
    /// Nothing moves before the first [`Pump::turn`].
    pub fn new(source: Source, sink: Sink) -> Self {
        let splices = sink.splices;
        Self { source, sink, held: Vec::new(), splices, wait: Wait::Source, over: None }
    }

    /// Whether and how it has ended.
    pub fn over(&self) -> Option<Over> {
        self.over
    }

    /// What to wait for. While the sink is what holds things up, the source's end is no news.
    pub fn interest(&self) -> [pollfd; 2] {
        let (source, sink) = (self.source.0.fd(), self.sink.descriptor.fd());
        match self.wait {
            // Watched without any event, a sink still reports that its reader is gone.
            Wait::Source => [look_at(source, POLLIN), look_at(sink, 0)],
            Wait::Sink => [NOWHERE, look_at(sink, POLLOUT)],
        }
    }

    /// Whether nothing is held and nothing is there to be read.
    pub fn is_drained(&self) -> bool {
        self.over.is_some() || self.held.is_empty() && !is_ready(self.source.0.fd(), POLLIN)
    }

    /// Copies what can be copied now that poll(2) has said this of what it waits for.
    pub fn turn(&mut self, [source, sink]: [i16; 2]) {
        match (self.wait, source, sink) {
            (_, 0, 0) => {}
            (Wait::Source, 0, _) => self.over = Some(Over::Sink(Errno::PIPE)),
            _ => self.copy_all(),
        }
    }

    fn copy_all(&mut self) {
        let mut moved = false;
        for _ in 0..PIECES {
            let step = if self.splices { self.splice() } else { self.copy() };
            match step {
                Ok(Some(_)) => moved = true,
                Ok(None) => return self.over = Some(Over::Source),
                Err(Errno::AGAIN) => return self.wait = self.what_is_missing(moved),
                Err(Errno::INTR) => {}
                Err(Errno::INVAL) if self.splices => self.splices = false,
                // The master of a terminal says so when nobody has the other side open any more.
                Err(Errno::IO) if !self.splices && self.held.is_empty() => return self.over = Some(Over::Source),
                Err(error) => return self.over = Some(Over::Sink(error)),
            }
        }
        // Others have their turn; what is held has to be written even if nothing more comes.
        self.wait = if self.held.is_empty() { Wait::Source } else { Wait::Sink };
    }

    /// After a step that could not be done. The kernel does not say which side of a splice it was: if nothing went
    /// through, not the side that poll(2) has just found ready; else poll(2) will tell.
    fn what_is_missing(&self, moved: bool) -> Wait {
        match (self.splices, self.wait) {
            (true, Wait::Source) if !moved => Wait::Sink,
            (true, _) => Wait::Source,
            (false, _) if self.held.is_empty() => Wait::Source,
            (false, _) => Wait::Sink,
        }
    }

    fn splice(&mut self) -> sys::Result<Option<usize>> {
        let count = sys::splice(self.source.0.fd(), self.sink.descriptor.fd(), PIECE)?;
        Ok((count > 0).then_some(count))
    }

    fn copy(&mut self) -> sys::Result<Option<usize>> {
        if self.held.is_empty() && sys::read_behind(self.source.0.fd(), &mut self.held, PIECE)? == 0 {
            return Ok(None);
        }
        let count = self.sink.write(&self.held)?;
        self.held.drain(..count);
        Ok(Some(count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::fd::{AsRawFd, OwnedFd};

    fn pipe() -> (OwnedFd, File) {
        let (read, write) = std::io::pipe().unwrap();
        (read.into(), OwnedFd::from(write).into())
    }

    fn pump(source: OwnedFd, sink: &File) -> Pump {
        Pump::new(Source::of_container(source.into()).unwrap(), Sink::of_user(sink.as_raw_fd()).unwrap())
    }

    /// One turn, if there is something to be done; whether there was.
    fn turn(pump: &mut Pump) -> bool {
        let mut waited = pump.interest();
        let count = sys::poll(&mut waited, 0).unwrap();
        pump.turn(waited.map(|told| told.revents));
        count > 0
    }

    #[test]
    fn a_pipe_is_spliced_to_its_end() {
        let (source, mut input) = pipe();
        let (output, sink) = pipe();
        input.write_all(b"one").unwrap();
        drop(input);
        let mut pump = pump(source, &sink);
        turn(&mut pump);
        assert_eq!(pump.over(), Some(Over::Source));
        drop(sink);
        let mut text = String::new();
        File::from(output).read_to_string(&mut text).unwrap();
        assert_eq!(text, "one");
    }

    #[test]
    fn a_full_sink_is_waited_for_and_nothing_is_lost() {
        let (source, mut input) = pipe();
        let (output, sink) = pipe();
        let mut output = File::from(output);
        let mut pump = pump(source, &sink);
        for _ in 0..2 {
            input.write_all(&[b'x'; PIECE]).unwrap();
            turn(&mut pump);
        }
        while turn(&mut pump) {}
        assert_eq!(pump.over(), None);
        assert!(pump.wait == Wait::Sink && !pump.is_drained());
        drop(input);
        let mut piece = vec![0; PIECE];
        output.read_exact(&mut piece).unwrap();
        turn(&mut pump);
        output.read_exact(&mut piece).unwrap();
        turn(&mut pump);
        assert_eq!(pump.over(), Some(Over::Source));
    }

    #[test]
    fn a_reader_that_leaves_ends_the_pump_while_its_source_is_silent() {
        let (source, _input) = pipe();
        let (output, sink) = pipe();
        let mut pump = pump(source, &sink);
        assert!(!turn(&mut pump));
        drop(output);
        turn(&mut pump);
        assert_eq!(pump.over(), Some(Over::Sink(Errno::PIPE)));
    }

    #[test]
    fn a_file_opened_for_appending_is_written_where_it_can_not_be_spliced() {
        let path = std::env::temp_dir().join(format!("pyrt-pump-{}", std::process::id()));
        let file = File::options().create(true).append(true).read(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let (source, mut input) = pipe();
        input.write_all(b"line\n").unwrap();
        drop(input);
        let mut pump = pump(source, &file);
        turn(&mut pump);
        assert_eq!(pump.over(), Some(Over::Source));
        assert_eq!(file.metadata().unwrap().len(), 5);
    }

    #[test]
    fn what_goes_in_bit_by_bit_goes_on_while_its_source_is_silent() {
        let (source, mut input) = pipe();
        let (output, sink) = pipe();
        let bytes = vec![b'x'; 2 * PIECES * TERMINAL_PIECE];
        input.write_all(&bytes).unwrap();
        let descriptor = Descriptor::Users(sink.as_raw_fd());
        let slow = Sink { descriptor, way: Way::Small(TERMINAL_PIECE), splices: false };
        let mut pump = Pump::new(Source::of_container(source.into()).unwrap(), slow);
        while turn(&mut pump) {}
        let mut written = vec![0; bytes.len()];
        File::from(output).read_exact(&mut written).unwrap();
        assert_eq!(written, bytes);
    }

    #[test]
    fn memory_stays_the_same_however_much_is_copied() {
        let (source, mut input) = pipe();
        let (mut output, sink) = std::os::unix::net::UnixStream::pair().unwrap();
        let sink = File::from(OwnedFd::from(sink));
        let mut pump = pump(source, &sink);
        let mut piece = vec![0; PIECE];
        for _ in 0..20 {
            input.write_all(&piece).unwrap();
            while turn(&mut pump) {}
            output.read_exact(&mut piece).unwrap();
            assert!(pump.held.is_empty() && pump.held.capacity() < 2 * PIECE);
        }
    }
}
