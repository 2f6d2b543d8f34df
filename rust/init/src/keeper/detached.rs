//! The life of a detached container, which depends on no process but its keeper.
//!
//! One loop over its outputs, its end, and the engines that come and go. The order at the end is what makes the
//! exit outlive everybody: the output is in the log, the exit on the disk, and only then is anybody told.

use std::ffi::CString;

use pyrt_container::execute::Running;
use pyrt_container::log::Stream;
use pyrt_container::protocol::{Detached, Report};
use pyrt_container::sys::{self, Errno, Fd};

use super::audience::{Audience, Input};
use super::journal::Journal;
use super::log::Log;
use super::{Deadline, ended, settle};

/// What is read at once: as much as a pipe holds (pipe(7)).
const PIECE: usize = 64 * 1024;
/// The outputs' pipes, once one was found full: the container runs on while the keeper writes. It costs the kernel 16 KiB.
const CAPACITY: usize = 1024 * 1024;
/// Milliseconds after which an exit that could not be written is tried again.
const AGAIN: i32 = 500;

/// The container's ends of its standard streams, and ours.
pub struct Pipes {
    pub theirs: [Fd; 3],
    input: Option<Fd>,
    outputs: [Fd; 2],
}

impl Pipes {
    pub fn make(keeps_input: bool) -> sys::Result<Self> {
        let ([reads, input], [out, stdout], [err, stderr]) = (sys::pipe()?, sys::pipe()?, sys::pipe()?);
        if !keeps_input {
            // A pipe that nobody writes to is at its end.
            sys::close(input);
        }
        Ok(Self { theirs: [reads, stdout, stderr], input: keeps_input.then_some(input), outputs: [out, err] })
    }
}

/// The descriptors that came with the start, but for the plan's.
#[derive(Clone, Copy)]
pub struct Doors {
    pub control: Fd,
    pub folder: Fd,
    pub listener: Fd,
    pub names: Fd,
    /// The folder of journald's socket.
    pub journald: Option<Fd>,
}

struct Source {
    fd: Fd,
    stream: Stream,
    grown: bool,
}

struct Keeping {
    running: Running,
    folder: Fd,
    name: CString,
    audience: Audience,
    input: Input,
    sources: Vec<Source>,
    log: Log,
    journal: Option<Journal>,
    piece: Vec<u8>,
    started: Report,
    deadline: Deadline,
}

/// From `Started`, which has been sent, to the removal of the last trace but the container's folder.
pub fn keep(doors: Doors, asked: Detached, running: Running, pipes: Pipes, started: Report, deadline: Deadline) {
    let Doors { control, folder, listener, names, journald } = doors;
    // Nobody's end of session or Ctrl-C is to reach us.
    let _ = sys::setsid();
    let streams = [(pipes.outputs[0], Stream::Stdout), (pipes.outputs[1], Stream::Stderr)];
    let mut sources: Vec<Source> = streams.map(|(fd, stream)| Source { fd, stream, grown: false }).into();
    sources.extend(running.terminal.map(|fd| Source { fd, stream: Stream::Stdout, grown: true }));
    for source in &sources {
        let _ = sys::set_nonblocking(source.fd);
    }
    let input = Input { fd: running.terminal.or(pipes.input), terminal: running.terminal.is_some() };
    let mut keeping = Keeping {
        running,
        folder,
        name: asked.name,
        audience: Audience::new(control, listener, names),
        input,
        sources,
        log: Log::new(folder, asked.log_size, asked.log_files),
        journal: journald.and_then(|folder| Journal::new(folder, &asked.journal)),
        piece: Vec::new(),
        started,
        deadline,
    };
    keeping.attend();
    keeping.finish();
}

impl Keeping {
    /// Until the process has ended.
    fn attend(&mut self) {
        loop {
            let mut entries = vec![watch(self.running.pidfd)];
            if !self.journal.as_ref().is_some_and(Journal::is_behind) {
                entries.extend(self.sources.iter().map(|source| watch(source.fd)));
            }
            entries.extend(self.audience.watched().map(watch));
            let served = entries.len();
            let room = self.journal.as_ref().and_then(Journal::watched);
            entries.extend(room.map(|fd| libc::pollfd { fd, events: libc::POLLOUT, revents: 0 }));
            if sys::poll(&mut entries, self.patience()).is_err() {
                return;
            }
            if self.deadline.pass(&self.running) {
                settle(&mut self.running);
            }
            let has_ended = entries[0].revents != 0;
            for entry in entries[1..served].iter().filter(|entry| entry.revents != 0) {
                self.serve(entry.fd, usize::MAX);
            }
            self.pass_on();
            if has_ended {
                return;
            }
        }
    }

    /// Milliseconds, as poll(2) wants them.
    fn patience(&self) -> i32 {
        let both = [self.deadline.patience(), self.journal.as_ref().map_or(-1, Journal::patience)];
        both.into_iter().filter(|&each| each >= 0).min().unwrap_or(-1)
    }

    /// What was read goes where it belongs.
    fn pass_on(&mut self) {
        self.log.flush();
        if let Some(journal) = &mut self.journal {
            journal.send();
        }
    }

    fn serve(&mut self, fd: Fd, most: usize) {
        if let Some(index) = self.sources.iter().position(|source| source.fd == fd) {
            self.copy(index, most);
        } else if self.audience.watched().next() == Some(fd) {
            self.audience.welcome(&[(self.started.clone(), Some(self.running.pidfd))]);
        } else {
            self.audience.hear(fd, &mut self.input);
        }
    }

    /// One read of an output, and how much there was. At its end it is no longer looked at.
    fn copy(&mut self, index: usize, most: usize) -> usize {
        if self.piece.is_empty() {
            // Zeroes of the kernel's, which are no memory yet.
            self.piece = vec![0; PIECE];
        }
        let Source { fd, stream, grown } = self.sources[index];
        let wanted = PIECE.min(most);
        match sys::read(fd, &mut self.piece[..wanted]) {
            Ok(count) if count > 0 => {
                if count == PIECE && !grown {
                    let _ = sys::grow_pipe(fd, CAPACITY);
                    self.sources[index].grown = true;
                }
                self.log.add(stream, &self.piece[..count], sys::realtime());
                if let Some(journal) = &mut self.journal {
                    journal.add(stream, &self.piece[..count]);
                }
                count
            }
            Err(Errno(libc::EAGAIN)) => 0,
            // A terminal whose last process has ended gives EIO.
            _ => {
                self.sources.remove(index);
                if self.input.fd != Some(fd) {
                    sys::close(fd);
                }
                0
            }
        }
    }

    /// What the outputs hold just now. Others may have them open and write on: they are not waited for.
    fn drain(&mut self) {
        let outputs: Vec<Fd> = self.sources.iter().map(|source| source.fd).collect();
        for fd in outputs {
            // A terminal counts only what has got through to its reader, and that is done, at the latest, by whoever reads.
            let mut left = if self.running.terminal == Some(fd) { CAPACITY } else { waiting(fd) };
            while left > 0
                && let Some(index) = self.sources.iter().position(|source| source.fd == fd)
            {
                match self.copy(index, left) {
                    0 => break,
                    count => left = left.saturating_sub(count),
                }
            }
            self.pass_on();
        }
    }

    fn finish(mut self) {
        let Ok(end) = self.running.reap() else { return };
        let time = sys::realtime();
        self.drain();
        let exited = ended(&self.running, end, time, self.deadline.has_passed, self.log.lost);
        if record(self.folder, &exited).is_err() {
            self.insist(&exited);
        } else {
            self.audience.tell(&exited);
        }
        if let Some(journal) = &mut self.journal {
            // Its end is known by now: nobody waits for journald.
            journal.finish();
        }
        self.running.clean_up();
        self.deadline.clean_up();
        self.audience.end(&self.name);
    }

    /// The disk does not take the exit: we are the only ones who know it. We stay until it does, or until an engine
    /// has it in its journal.
    fn insist(&mut self, exited: &Report) {
        self.audience.tell(exited);
        while !self.audience.has_recorded && record(self.folder, exited).is_err() {
            let mut entries: Vec<_> = self.audience.watched().map(watch).collect();
            let _ = sys::poll(&mut entries, AGAIN);
            for (index, entry) in entries.iter().enumerate().filter(|(_, entry)| entry.revents != 0) {
                if index == 0 {
                    let reports = [(self.started.clone(), Some(self.running.pidfd)), (exited.clone(), None)];
                    self.audience.welcome(&reports);
                } else {
                    self.audience.hear(entry.fd, &mut self.input);
                }
            }
        }
    }
}

fn watch(fd: Fd) -> libc::pollfd {
    libc::pollfd { fd, events: libc::POLLIN, revents: 0 }
}

/// Bytes that can be read at once: ioctl_tty(2), pipe(7).
fn waiting(fd: Fd) -> usize {
    let mut count: i32 = 0;
    let result = sys::ioctl(fd, libc::FIONREAD, (&raw mut count) as u64);
    if result.is_ok() { usize::try_from(count).unwrap_or(0) } else { 0 }
}

/// Whole or not at all, whatever happens when, a power loss included.
fn record(folder: Fd, exited: &Report) -> sys::Result<()> {
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC | libc::O_NOFOLLOW;
    let file = sys::openat(folder, c"exit.new", flags, 0o600)?;
    let written = sys::write(file, &exited.encode()).and_then(|()| sys::sync(file));
    sys::close(file);
    written?;
    sys::rename_at(folder, c"exit.new", c"exit")?;
    sys::sync(folder)
}
