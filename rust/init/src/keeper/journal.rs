//! The lines of a container on their way to journald, by its own protocol: one datagram a line, with the fields that
//! Docker's driver of that name writes (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>).
//!
//! Nobody waits for a journald that is stuck or gone. Lines are queued; while the queue is long and moves, the
//! container is not read from, as if its pipe were slow; if nothing has moved for a second, it is read from
//! nevertheless, and what finds no room in the queue is counted and said when there is room again. No line is sent in
//! pieces larger than the log's, so none is ever too large for a datagram.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use pyrt_container::log::Stream;
use pyrt_container::sys::{self, Fd};

/// As long as Docker's: a longer line comes in several messages.
const LONGEST: usize = 16 * 1024;
/// Bytes of the queue from which on the container has to wait.
const LONG: usize = 1024 * 1024;
/// Bytes beyond which nothing is queued.
const FULL: usize = 4 * LONG;
/// Nanoseconds without progress after which journald is taken for stuck, and between two attempts to reach it.
const PATIENCE: u64 = 1_000_000_000;
/// Nanoseconds that the keeper of a container which has ended stays for the rest of the queue.
const LAST: u64 = 5 * PATIENCE;
/// Of a line in the queue: stream, whether more of it follows, length.
const HEAD: usize = 6;

/// What is still to be sent, and to where.
pub struct Journal {
    path: PathBuf,
    /// Those that are the same in every message: "CONTAINER_NAME=web\n" and so on.
    fields: Vec<u8>,
    socket: Option<UnixDatagram>,
    /// Of each stream what has no end yet.
    begun: [Vec<u8>; 2],
    queue: Vec<u8>,
    /// How much of the queue's beginning is sent.
    sent: usize,
    moved: u64,
    tried: Option<u64>,
    lost: u64,
}

impl Journal {
    /// `target` is the name of journald's socket in `folder`, NUL, and the fields. None if it is something else.
    pub fn new(folder: Fd, target: &[u8]) -> Option<Self> {
        let end = target.iter().position(|&byte| byte == 0)?;
        Some(Self {
            // The keeper sees nothing of the host's files but /proc.
            path: PathBuf::from(format!("/proc/self/fd/{folder}")).join(OsStr::from_bytes(&target[..end])),
            fields: target[end + 1..].to_vec(),
            socket: None,
            begun: [Vec::new(), Vec::new()],
            queue: Vec::new(),
            sent: 0,
            moved: 0,
            tried: None,
            lost: 0,
        })
    }

    /// Queues what came from one read(2).
    pub fn add(&mut self, stream: Stream, data: &[u8]) {
        for piece in data.split_inclusive(|&byte| byte == b'\n') {
            let (text, is_whole) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (piece, false),
            };
            self.begin(stream, text);
            if is_whole {
                self.end_line(stream, false);
            }
        }
    }

    fn begin(&mut self, stream: Stream, mut text: &[u8]) {
        while !text.is_empty() {
            if self.begun[stream as usize].len() == LONGEST {
                self.end_line(stream, true);
            }
            let begun = &mut self.begun[stream as usize];
            let (now, later) = text.split_at(text.len().min(LONGEST - begun.len()));
            begun.extend_from_slice(now);
            text = later;
        }
    }

    fn end_line(&mut self, stream: Stream, goes_on: bool) {
        let mut line = std::mem::take(&mut self.begun[stream as usize]);
        // What is lost is lost in one piece: nothing is queued again before there is room for more than a line.
        if self.lost > 0 && self.waiting() < LONG {
            self.tell_of_lost();
        }
        if self.lost > 0 || !self.push(stream, goes_on, &line) {
            self.lost += 1;
        }
        line.clear();
        self.begun[stream as usize] = line;
    }

    fn tell_of_lost(&mut self) {
        let said = format!("pyrt: {} lines are missing here: journald did not take them", self.lost);
        if self.lost > 0 && self.push(Stream::Stderr, false, said.as_bytes()) {
            self.lost = 0;
        }
    }

    /// False if there is no room.
    fn push(&mut self, stream: Stream, goes_on: bool, line: &[u8]) -> bool {
        if self.waiting() == 0 {
            self.moved = sys::monotonic();
        }
        if self.waiting() + HEAD + line.len() > FULL {
            return false;
        }
        self.queue.extend_from_slice(&[stream as u8, u8::from(goes_on)]);
        self.queue.extend_from_slice(&(line.len() as u32).to_le_bytes());
        self.queue.extend_from_slice(line);
        true
    }

    fn waiting(&self) -> usize {
        self.queue.len() - self.sent
    }

    /// Whether the container is to wait.
    pub fn is_behind(&self) -> bool {
        self.waiting() >= LONG && sys::monotonic() < self.moved + PATIENCE
    }

    /// What can be written to when there is room, if that matters.
    pub fn watched(&self) -> Option<Fd> {
        self.socket.as_ref().filter(|_| self.waiting() > 0).map(AsRawFd::as_raw_fd)
    }

    /// Milliseconds after which it is to be looked after, whatever happens; -1 for never.
    pub fn patience(&self) -> i32 {
        if self.waiting() == 0 {
            return -1;
        }
        let next = match (&self.socket, self.tried) {
            (None, Some(tried)) => tried + PATIENCE,
            _ if self.is_behind() => self.moved + PATIENCE,
            _ => return -1,
        };
        i32::try_from(next.saturating_sub(sys::monotonic()).div_ceil(1_000_000)).unwrap_or(i32::MAX)
    }

    /// Sends as much as is taken just now.
    pub fn send(&mut self) {
        let mut message = Vec::new();
        while self.waiting() > 0 && self.reach() {
            let length = self.compose(&mut message);
            let Some(socket) = &self.socket else { return };
            match socket.send(&message) {
                Ok(_) => self.moved = sys::monotonic(),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => self.lost += 1,
                // It was ended, or started anew: another may be there soon.
                Err(_) => {
                    self.socket = None;
                    self.tried = Some(sys::monotonic());
                    break;
                }
            }
            self.sent += length;
        }
        if self.waiting() == 0 {
            (self.queue, self.sent) = (Vec::new(), 0);
        } else if self.sent >= LONG {
            self.queue.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// Connects anew where that is due.
    fn reach(&mut self) -> bool {
        if self.socket.is_some() {
            return true;
        }
        if self.tried.is_some_and(|tried| sys::monotonic() < tried + PATIENCE) {
            return false;
        }
        self.tried = Some(sys::monotonic());
        let reached = UnixDatagram::unbound().and_then(|socket| {
            socket.set_nonblocking(true)?;
            socket.connect(&self.path)?;
            Ok(socket)
        });
        self.socket = reached.ok();
        self.socket.is_some()
    }

    /// The message of the queue's first line; returns how much of the queue that is.
    fn compose(&self, message: &mut Vec<u8>) -> usize {
        let queued = &self.queue[self.sent..];
        let length = u32::from_le_bytes([queued[2], queued[3], queued[4], queued[5]]) as usize;
        message.clear();
        message.extend_from_slice(&self.fields);
        // What is written to stderr is an error: as Docker's driver has it.
        message.extend_from_slice(if queued[0] == Stream::Stderr as u8 { b"PRIORITY=3\n" } else { b"PRIORITY=6\n" });
        if queued[1] != 0 {
            message.extend_from_slice(b"CONTAINER_PARTIAL_MESSAGE=true\n");
        }
        message.extend_from_slice(b"MESSAGE=");
        message.extend_from_slice(&queued[HEAD..HEAD + length]);
        message.push(b'\n');
        HEAD + length
    }

    /// The container has ended: what has no end is a line, too. Stays for the rest as long as that is taken.
    pub fn finish(&mut self) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            if !self.begun[stream as usize].is_empty() {
                self.end_line(stream, false);
            }
        }
        self.tell_of_lost();
        let end = sys::monotonic() + LAST;
        loop {
            self.send();
            let now = sys::monotonic();
            let Some(fd) = self.watched() else { return };
            let until = end.min(self.moved + PATIENCE);
            if now >= until {
                return;
            }
            let patience = i32::try_from((until - now).div_ceil(1_000_000)).unwrap_or(i32::MAX);
            let _ = sys::poll(&mut [libc::pollfd { fd, events: libc::POLLOUT, revents: 0 }], patience);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Place(PathBuf, std::fs::File);

    impl Place {
        fn new(name: &str) -> Self {
            let name = format!("pyrt-journal-{}-{name}", std::process::id());
            Self(std::env::temp_dir().join(name), std::fs::File::open(std::env::temp_dir()).unwrap())
        }

        fn listen(&self) -> UnixDatagram {
            let socket = UnixDatagram::bind(&self.0).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        }

        fn journal(&self) -> Journal {
            let target = [self.0.file_name().unwrap().as_bytes(), b"\0CONTAINER_NAME=web\n"].concat();
            Journal::new(self.1.as_raw_fd(), &target).unwrap()
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    fn received(socket: &UnixDatagram) -> Vec<String> {
        let mut buffer = vec![0; 64 * 1024];
        let next = || socket.recv(&mut buffer).ok().map(|count| String::from_utf8(buffer[..count].to_vec()).unwrap());
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn lines_are_put_together_and_carry_their_fields() {
        let place = Place::new("lines");
        let socket = place.listen();
        let mut journal = place.journal();
        for (stream, text) in [(Stream::Stdout, "on"), (Stream::Stderr, "bad\n"), (Stream::Stdout, "e\n\nlast")] {
            journal.add(stream, text.as_bytes());
        }
        journal.finish();
        let told = [(3, "bad"), (6, "one"), (6, ""), (6, "last")];
        let expected =
            told.map(|(priority, text)| format!("CONTAINER_NAME=web\nPRIORITY={priority}\nMESSAGE={text}\n"));
        assert_eq!(received(&socket), expected);
    }

    #[test]
    fn a_long_line_comes_in_pieces() {
        let place = Place::new("long");
        let socket = place.listen();
        let mut journal = place.journal();
        journal.add(Stream::Stdout, &[b"x".repeat(2 * LONGEST + 5), b"\n".to_vec()].concat());
        journal.finish();
        let told = received(&socket);
        journal.add(Stream::Stdout, &b"x".repeat(LONGEST));
        journal.add(Stream::Stdout, b"\n");
        journal.finish();
        assert_eq!(received(&socket).len(), 1);
        let lengths: Vec<_> = told.iter().map(|each| each.matches('x').count()).collect();
        assert_eq!(lengths, [LONGEST, LONGEST, 5]);
        let goes_on: Vec<_> = told.iter().map(|each| each.contains("CONTAINER_PARTIAL_MESSAGE=true\n")).collect();
        assert_eq!(goes_on, [true, true, false]);
    }

    #[test]
    fn a_journald_that_does_not_read_costs_no_more_than_the_queue_and_is_told_what_is_missing() {
        let place = Place::new("stuck");
        let socket = place.listen();
        let mut journal = place.journal();
        let line = [b"y".repeat(999), b"\n".to_vec()].concat();
        for _ in 0..2 * FULL / 1000 {
            journal.add(Stream::Stdout, &line);
            journal.send();
        }
        assert!(journal.lost > 0);
        assert!(journal.waiting() <= FULL);
        assert!(journal.watched().is_some());
        let mut told = Vec::new();
        while journal.waiting() > 0 {
            told.extend(received(&socket));
            journal.send();
        }
        let lost = journal.lost;
        journal.add(Stream::Stdout, b"again\n");
        journal.send();
        told.extend(received(&socket));
        assert!(told[told.len() - 2].contains(&format!("pyrt: {lost} lines are missing here")));
        assert!(told[told.len() - 1].contains("MESSAGE=again"));
        assert_eq!(told.iter().filter(|each| each.contains("yyy")).count() as u64 + lost, (2 * FULL / 1000) as u64);
    }

    #[test]
    fn one_that_is_gone_is_looked_for_again() {
        let place = Place::new("gone");
        let mut journal = place.journal();
        journal.add(Stream::Stdout, b"early\n");
        journal.send();
        assert!(journal.watched().is_none());
        assert!((1..=1000).contains(&journal.patience()));
        let socket = place.listen();
        journal.tried = None;
        journal.send();
        assert!(received(&socket)[0].contains("MESSAGE=early"));
        drop(socket);
        std::fs::remove_file(&place.0).unwrap();
        journal.add(Stream::Stdout, b"late\n");
        journal.finish();
        assert_eq!(journal.waiting(), HEAD + 4);
    }
}
