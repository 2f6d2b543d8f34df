//! Copies one stream to another and never waits: where bytes may be spliced they never come up to
//! user space, else they are read and written.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::SendFlags;
use rustix::pipe::{PIPE_BUF, SpliceFlags};

/// Read and spliced at once: what a pipe holds.
const PIECE: usize = 64 << 10;
/// Pieces in one turn, so that one busy stream leaves room for signals and for the others.
const PIECES: usize = 16;
/// What a terminal takes without making its writer wait, if it says that it is ready.
const TERMINAL_PIECE: usize = 256;

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
    descriptor: OwnedFd,
    way: Way,
    splices: bool,
}

/// A second description of a terminal, whose O_NONBLOCK is nobody else's business.
fn reopened(descriptor: BorrowedFd<'_>, access: OFlags) -> Option<OwnedFd> {
    use std::os::fd::AsRawFd;
    let name = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
    let flags = access | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::open(name, flags, Mode::empty()).ok()
}

fn kind_of(descriptor: BorrowedFd<'_>) -> io::Result<FileType> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(descriptor)?.st_mode))
}

impl Sink {
    /// One of the user's descriptors.
    pub fn of_user(descriptor: BorrowedFd<'_>) -> io::Result<Self> {
        let kind = kind_of(descriptor)?;
        let own = if kind == FileType::CharacterDevice { reopened(descriptor, OFlags::WRONLY) } else { None };
        let way = match kind {
            FileType::Fifo => Way::Small(PIPE_BUF),
            FileType::Socket => Way::Send,
            FileType::CharacterDevice if own.is_none() => Way::Small(TERMINAL_PIECE),
            _ => Way::Write,
        };
        let descriptor = own.map_or_else(|| descriptor.try_clone_to_owned(), Ok)?;
        Ok(Self { descriptor, way, splices: matches!(kind, FileType::Fifo | FileType::RegularFile) })
    }

    /// A container's, which came from the server and is ours alone.
    pub fn of_container(descriptor: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&descriptor, true)?;
        let splices = kind_of(descriptor.as_fd())? == FileType::Fifo;
        Ok(Self { descriptor, way: Way::Write, splices })
    }

    /// Writes what goes in now; `Err(AGAIN)` if that is nothing.
    pub fn write(&self, bytes: &[u8]) -> rustix::io::Result<usize> {
        match self.way {
            Way::Write => rustix::io::write(&self.descriptor, bytes),
            Way::Send => rustix::net::send(&self.descriptor, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL),
            Way::Small(most) if is_ready(self.as_fd(), PollFlags::OUT) => {
                rustix::io::write(&self.descriptor, &bytes[..most.min(bytes.len())])
            }
            Way::Small(_) => Err(Errno::AGAIN),
        }
    }
}

impl AsFd for Sink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Where bytes come from.
pub struct Source(OwnedFd);

impl Source {
    /// The user's input. A terminal is shared with others who might take what poll has promised to us.
    pub fn of_user(descriptor: BorrowedFd<'_>) -> io::Result<Self> {
        let own = match kind_of(descriptor)? {
            FileType::CharacterDevice => reopened(descriptor, OFlags::RDONLY),
            _ => None,
        };
        Ok(Self(own.map_or_else(|| descriptor.try_clone_to_owned(), Ok)?))
    }

    /// A container's, which came from the server and is ours alone.
    pub fn of_container(descriptor: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&descriptor, true)?;
        Ok(Self(descriptor))
    }
}

/// Whether poll reports any of these, an error or an end for this descriptor now.
fn is_ready(descriptor: BorrowedFd<'_>, flags: PollFlags) -> bool {
    poll(&mut [PollFd::from_borrowed_fd(descriptor, flags)], Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) == Ok(1)
}

/// Whether nobody will ever read what is written here.
pub fn is_deaf(descriptor: BorrowedFd<'_>) -> bool {
    is_ready(descriptor, PollFlags::empty())
}

#[derive(Clone, Copy, PartialEq, Eq)]
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
    pub fn interest(&self) -> impl Iterator<Item = PollFd<'_>> {
        let (source, sink) = (self.source.0.as_fd(), self.sink.as_fd());
        let (first, second) = match self.wait {
            Wait::Source => (PollFd::from_borrowed_fd(source, PollFlags::IN), Some(sink)),
            Wait::Sink => (PollFd::from_borrowed_fd(sink, PollFlags::OUT), None),
        };
        // Watched without any flag, a sink still reports that its reader is gone.
        std::iter::once(first).chain(second.map(|sink| PollFd::from_borrowed_fd(sink, PollFlags::empty())))
    }

    /// Whether nothing is held and nothing is there to be read.
    pub fn is_drained(&self) -> bool {
        self.over.is_some() || self.held.is_empty() && !is_ready(self.source.0.as_fd(), PollFlags::IN)
    }

    /// Copies what can be copied now.
    pub fn turn(&mut self) {
        for _ in 0..PIECES {
            let step = if self.splices { self.splice() } else { self.copy() };
            match step {
                Ok(Some(_)) => {}
                Ok(None) => return self.over = Some(Over::Source),
                Err(Errno::AGAIN) => return self.wait_for_news(),
                Err(Errno::INTR) => {}
                Err(Errno::INVAL) if self.splices => self.splices = false,
                // The master of a terminal says so when nobody has the other side open any more.
                Err(Errno::IO) if !self.splices && self.held.is_empty() => return self.over = Some(Over::Source),
                Err(error) => return self.over = Some(Over::Sink(error)),
            }
        }
    }

    fn wait_for_news(&mut self) {
        if self.splices {
            // The kernel does not say which side it was; if both are ready by now the next turn shows it.
            let has_bytes = is_ready(self.source.0.as_fd(), PollFlags::IN);
            self.wait = if has_bytes { Wait::Sink } else { Wait::Source };
        } else {
            self.wait = if self.held.is_empty() { Wait::Source } else { Wait::Sink };
        }
        if self.wait == Wait::Source && is_deaf(self.sink.as_fd()) {
            self.over = Some(Over::Sink(Errno::PIPE));
        }
    }

    fn splice(&mut self) -> rustix::io::Result<Option<usize>> {
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        let count = rustix::pipe::splice(&self.source.0, None, &self.sink, None, PIECE, flags)?;
        Ok((count > 0).then_some(count))
    }

    fn copy(&mut self) -> rustix::io::Result<Option<usize>> {
        if self.held.is_empty() {
            let mut piece = [0; PIECE];
            let count = rustix::io::read(&self.source.0, &mut piece)?;
            if count == 0 {
                return Ok(None);
            }
            self.held.extend_from_slice(&piece[..count]);
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

    fn pipe() -> (OwnedFd, File) {
        let (read, write) = rustix::pipe::pipe().unwrap();
        (read, write.into())
    }

    #[test]
    fn a_pipe_is_spliced_to_its_end() {
        let (source, mut input) = pipe();
        let (output, sink) = pipe();
        input.write_all(b"one").unwrap();
        drop(input);
        let mut pump = Pump::new(Source::of_container(source).unwrap(), Sink::of_user(sink.as_fd()).unwrap());
        drop(sink);
        pump.turn();
        assert_eq!(pump.over(), Some(Over::Source));
        drop(pump);
        let mut text = String::new();
        File::from(output).read_to_string(&mut text).unwrap();
        assert_eq!(text, "one");
    }

    #[test]
    fn a_full_sink_is_waited_for_and_nothing_is_lost() {
        let (source, mut input) = pipe();
        let (output, sink) = pipe();
        let mut output = File::from(output);
        let mut pump = Pump::new(Source::of_container(source).unwrap(), Sink::of_user(sink.as_fd()).unwrap());
        drop(sink);
        for _ in 0..2 {
            input.write_all(&[b'x'; PIECE]).unwrap();
            pump.turn();
        }
        assert_eq!(pump.over(), None);
        assert!(pump.wait == Wait::Sink && !pump.is_drained());
        drop(input);
        let mut piece = vec![0; PIECE];
        output.read_exact(&mut piece).unwrap();
        pump.turn();
        output.read_exact(&mut piece).unwrap();
        pump.turn();
        assert_eq!(pump.over(), Some(Over::Source));
    }

    #[test]
    fn a_reader_that_leaves_ends_the_pump_while_its_source_is_silent() {
        let (source, _input) = pipe();
        let (output, sink) = pipe();
        let mut pump = Pump::new(Source::of_container(source).unwrap(), Sink::of_user(sink.as_fd()).unwrap());
        pump.turn();
        assert_eq!(pump.over(), None);
        drop(output);
        pump.turn();
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
        let mut pump = Pump::new(Source::of_container(source).unwrap(), Sink::of_user(file.as_fd()).unwrap());
        pump.turn();
        assert_eq!(pump.over(), Some(Over::Source));
        assert_eq!(file.metadata().unwrap().len(), 5);
    }
}
