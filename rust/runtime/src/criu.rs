//! criu, as `criu swrk` speaks (criu.org/RPC): a process of ours, a socket that it has as descriptor 3, and messages in protocol
//! buffers' wire format, of which this needs numbers and bytes.
//!
//! ```text
//! we                                        criu
//!   | request: dump, restore, version ------> |
//!   | <------------- notice: script, process  |  and waits; orphan-pts-master carries a descriptor
//!   | notice done, or not (then it gives up)> |
//!   | <------------------------------ answer  |
//! ```

use std::fs;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pyrt_container::sys::{self, Errno};

use crate::error::{Error, Result};
use crate::process;

/// Where `criu swrk` finds its socket.
const SOCKET: RawFd = 3;
/// What is handed on follows it.
pub const FIRST_HANDED: RawFd = SOCKET + 1;
/// Our own copies lie above all that a command is handed.
const ASIDE: RawFd = 64;
/// criu's own limit of a message (`CR_MAX_MSG_SIZE`) is 1 KiB; a sentence of its log may be in it.
const LONGEST: usize = 64 << 10;

/// What is asked for (`criu_req_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Write a tree of processes down.
    Dump = 1,
    /// Bring it back.
    Restore = 2,
    /// Write down what memory has changed.
    PreDump = 4,
    /// Who are you?
    Version = 10,
}

const NOTIFY: u64 = 6;

/// A message in the making.
#[derive(Clone, Debug, Default)]
pub struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    /// A number.
    pub fn number(&mut self, field: u64, number: u64) -> &mut Self {
        self.varint(field << 3);
        self.varint(number);
        self
    }

    /// A switch that is on; one that is off is left out.
    pub fn switch(&mut self, field: u64, on: bool) -> &mut Self {
        if on { self.number(field, 1) } else { self }
    }

    /// A text.
    pub fn text(&mut self, field: u64, text: &str) -> &mut Self {
        self.bytes(field, text.as_bytes())
    }

    /// A message within the message.
    pub fn message(&mut self, field: u64, message: &Self) -> &mut Self {
        self.bytes(field, &message.0)
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) -> &mut Self {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }
}

/// What a field of a message that has come can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message, in their order, up to where it makes no sense.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (u64, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Number(self.varint()?),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                let (bytes, rest) = self.0.split_at_checked(length)?;
                self.0 = rest;
                Value::Bytes(bytes)
            }
            _ => return None,
        };
        Some((key >> 3, value))
    }
}

/// A message of criu's (`criu_resp`).
#[derive(Debug, Default)]
struct Answer {
    kind: u64,
    success: bool,
    script: String,
    /// Of the process that is restored.
    pid: i32,
    error: String,
    version: u32,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Self {
        let mut answer = Self::default();
        for (field, value) in Fields(bytes) {
            match (field, value) {
                (1, Value::Number(kind)) => answer.kind = kind,
                (2, Value::Number(success)) => answer.success = success != 0,
                (5, Value::Bytes(notice)) => {
                    answer.script = text_of(notice, 1);
                    answer.pid = number_of(notice, 2) as i32;
                }
                (9, Value::Bytes(text)) => answer.error = String::from_utf8_lossy(text).into_owned(),
                (10, Value::Bytes(version)) => answer.version = version_of(version),
                _ => {}
            }
        }
        answer
    }
}

/// The numbers among a message's fields.
pub fn numbers(message: &[u8]) -> impl Iterator<Item = (u64, u64)> {
    Fields(message).filter_map(|(field, value)| match value {
        Value::Number(number) => Some((field, number)),
        Value::Bytes(_) => None,
    })
}

fn text_of(message: &[u8], place: u64) -> String {
    let found = Fields(message).find_map(|(field, value)| match value {
        Value::Bytes(text) if field == place => Some(String::from_utf8_lossy(text).into_owned()),
        _ => None,
    });
    found.unwrap_or_default()
}

fn number_of(message: &[u8], place: u64) -> u64 {
    numbers(message).find(|(field, _)| *field == place).map_or(0, |(_, number)| number)
}

/// As criu counts: 31701 is 3.17.1.
fn version_of(message: &[u8]) -> u32 {
    let part = |place: u64| number_of(message, place) as u32;
    part(1) * 10_000 + part(2) * 100 + part(4)
}

/// criu tells how far it is, and waits.
#[derive(Debug)]
pub struct Notice<'a> {
    /// `setup-namespaces`, `post-restore`, ...
    pub script: &'a str,
    /// The first process that is restored, if it is there yet.
    pub pid: i32,
    /// A terminal's master, which is the listener's to close.
    pub terminal: Option<RawFd>,
}

/// What is done when criu tells something.
pub type Listener<'a> = dyn FnMut(&Notice<'_>) -> Result<()> + 'a;

/// A process of criu's for one request.
#[derive(Debug)]
pub struct Criu {
    verb: &'static str,
    process: Child,
    socket: RawFd,
}

/// How long a restore may read nothing: behind the end of an image that is cut off criu has been seen to go on for ever.
const PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 30 });
/// Milliseconds between two looks at it.
const PAUSE: i32 = 500;

/// How criu is called.
#[derive(Debug)]
pub struct Call<'a> {
    /// The verb that needs it.
    pub verb: &'static str,
    /// Its file, or a name that is looked for in PATH.
    pub program: &'a Path,
}

impl Call<'_> {
    /// criu's version, as it counts them. An error if there is no criu.
    pub fn version(&self) -> Result<u32> {
        let mut criu = self.begin(&[], || Ok(()))?;
        criu.ask(Kind::Version, None, &mut |_| Ok(())).map(|answer| answer.version)
    }

    /// Starts criu. `handed` become its descriptors from [`FIRST_HANDED`] on; `prepare` is called in the new process.
    pub fn begin(
        &self,
        handed: &[RawFd],
        mut prepare: impl FnMut() -> sys::Result<()> + Send + Sync + 'static,
    ) -> Result<Criu> {
        let verb = self.verb;
        let failed = |errno| Error::call(&format!("{verb}: calling criu"), errno);
        let [ours, theirs] = sys::packet_pair().map_err(failed)?;
        let (ours, theirs) = (own(ours), own(theirs));
        // The new process has other standard descriptors by the time that it comes to these.
        let given = std::iter::once(theirs.as_raw_fd()).chain(handed.iter().copied());
        let aside = given.map(|fd| sys::dup_above(fd, ASIDE).map(own)).collect::<sys::Result<Vec<OwnedFd>>>();
        let aside = aside.map_err(failed)?;
        let mut command = Command::new(self.program);
        // It writes to its log; what it says before it has one is read if it ends so.
        command.arg("swrk").arg(SOCKET.to_string()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut place = move || {
            for (number, fd) in (SOCKET..).zip(&aside) {
                sys::dup_to(fd.as_raw_fd(), number)?;
            }
            prepare()
        };
        // SAFETY: there is but one thread, so a fork may do all that this process may.
        unsafe { command.pre_exec(move || place().map_err(|Errno(number)| io::Error::from_raw_os_error(number))) };
        let process = command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                let message = format!("{verb}: criu is not installed: {} is not there", self.program.display());
                Error::new(message).hint("the package is called criu; --criu names its file")
            }
            _ => Error::new(format!("{verb}: calling criu: {error}")),
        })?;
        // And with the closure its copy: the socket has an end when criu has.
        drop((theirs, command));
        Ok(Criu { verb, process, socket: ours.into_raw_fd() })
    }
}

fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: a descriptor that a call has just made for us.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

impl Criu {
    /// Asks, and tells `listener` what criu tells, until it answers. `log` is where criu writes.
    pub fn call(&mut self, kind: Kind, options: &Message, log: &Path, listener: &mut Listener<'_>) -> Result<()> {
        let answer = self.ask(kind, Some((options, log)), listener)?;
        if answer.success {
            return Ok(());
        }
        Err(self.failed_by_log(log, &answer.error))
    }

    fn failed_by_log(&self, log: &Path, otherwise: &str) -> Error {
        let logged = fs::read_to_string(log).unwrap_or_default();
        self.failed(first_error(&logged).unwrap_or(otherwise)).hint(format!("{} has the rest", log.display()))
    }

    /// Waits until criu says something, as long as it reads.
    fn await_word(&mut self, log: Option<&Path>) -> Result<()> {
        let (mut before, mut since) = (0, Instant::now());
        let mut entry = [libc::pollfd { fd: self.socket, events: libc::POLLIN, revents: 0 }];
        loop {
            let heard = sys::poll(&mut entry, PAUSE);
            if heard.map_err(|errno| Error::call(&format!("{}: hearing criu", self.verb), errno))? > 0 {
                return Ok(());
            }
            let read: u64 = process::descendants().into_iter().map(process::bytes_read).sum();
            if read != before {
                (before, since) = (read, Instant::now());
            } else if since.elapsed() >= PATIENCE {
                self.give_up();
                let idle = format!("it has read nothing for {} s", PATIENCE.as_secs());
                let error = log.map_or_else(|| self.failed(&idle), |log| self.failed_by_log(log, &idle));
                return Err(error);
            }
        }
    }

    /// Ends criu and all that it has made.
    fn give_up(&mut self) {
        let all = process::descendants();
        for &pid in &all {
            let _ = sys::kill(pid, libc::SIGKILL);
        }
        let _ = self.process.wait();
        // Of these some are children of criu's, and not ours to reap.
        for pid in all {
            let _ = sys::wait(pid, true);
        }
    }

    fn ask(&mut self, kind: Kind, options: Option<(&Message, &Path)>, listener: &mut Listener<'_>) -> Result<Answer> {
        let mut request = Message::default();
        request.number(1, kind as u64);
        if let Some((options, _)) = options {
            request.message(2, options);
        }
        if self.send(&request).is_err() {
            return Err(self.end());
        }
        let mut buffer = vec![0; LONGEST];
        let mut refusal = None;
        loop {
            // Who writes a container down need not read; criu itself limits that.
            if !matches!(kind, Kind::Dump | Kind::PreDump) {
                self.await_word(options.map(|(_, log)| log))?;
            }
            let mut terminal = [-1];
            let received = sys::receive_packet(self.socket, &mut buffer, &mut terminal);
            let (length, passed) =
                received.map_err(|errno| Error::call(&format!("{}: hearing criu", self.verb), errno))?;
            if length == 0 {
                return Err(refusal.unwrap_or_else(|| self.end()));
            }
            let answer = Answer::parse(&buffer[..length]);
            if answer.kind != NOTIFY {
                return refusal.map_or(Ok(answer), Err);
            }
            let terminal = (passed > 0).then_some(terminal[0]);
            let told = listener(&Notice { script: &answer.script, pid: answer.pid, terminal });
            let mut done = Message::default();
            done.number(1, NOTIFY).number(3, u64::from(told.is_ok()));
            // criu gives up now, and cleans up before it answers.
            refusal = refusal.or(told.err());
            self.send(&done)?;
        }
    }

    fn send(&self, message: &Message) -> Result<()> {
        let sent = sys::send_packet(self.socket, &message.0, &[]);
        sent.map_err(|errno| Error::call(&format!("{}: telling criu", self.verb), errno))
    }

    /// It has not come up: its own words say why.
    fn end(&mut self) -> Error {
        let _ = self.process.wait();
        let mut words = vec![0; LONGEST];
        let length = self.process.stderr.as_mut().map_or(0, |stderr| stderr.read(&mut words).unwrap_or(0));
        let words = String::from_utf8_lossy(&words[..length]);
        let error = self.failed(first_error(&words).unwrap_or(&words));
        error.hint("`criu check` tells more; a newer kernel may need a newer criu")
    }

    fn failed(&self, said: &str) -> Error {
        let said = said.trim();
        let said = if said.is_empty() { "it does not say why" } else { said };
        Error::new(format!("{}: criu: {said}", self.verb))
    }
}

/// What follows the first is what comes of it: `(00.012) Error (criu/file.c:12): words`.
fn first_error(log: &str) -> Option<&str> {
    let error = log.lines().find_map(|line| line.split_once("Error (").map(|(_, error)| error))?;
    Some(error.split_once("): ").map_or(error, |(_, words)| words))
}

impl Drop for Criu {
    fn drop(&mut self) {
        // It ends once nobody listens; what it has restored is not its child but ours.
        sys::close(self.socket);
        let _ = self.process.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_as_protocol_buffers_write_them() {
        let mut inner = Message::default();
        inner.text(1, "pid").number(2, 300);
        let mut message = Message::default();
        message.number(1, 6).switch(2, true).switch(3, false).message(5, &inner);
        assert_eq!(message.0, b"\x08\x06\x10\x01\x2a\x08\x0a\x03pid\x10\xac\x02");
        let answer = Answer::parse(&message.0);
        assert_eq!((answer.kind, answer.success, answer.script.as_str(), answer.pid), (6, true, "pid", 300));
    }

    #[test]
    fn what_is_cut_off_is_no_field() {
        for bytes in
            [&b"\x08"[..], b"\x2a\x05ab", b"\x2a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x0d\x01\x02\x03\x04"]
        {
            assert_eq!(Fields(bytes).count(), 0, "{bytes:?}");
        }
    }

    #[test]
    fn one_that_does_nothing_is_given_up() {
        let idle = std::env::temp_dir().join(format!("pyrt-criu-{}", std::process::id()));
        fs::write(&idle, "#!/bin/sh\nexec sleep 1000\n").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&idle, mode).unwrap();
        let call = Call { verb: "restore", program: &idle };
        let error = call.version().unwrap_err().to_string();
        fs::remove_file(&idle).unwrap();
        assert_eq!(error, "restore: criu: it has read nothing for 1 s");
    }

    #[test]
    fn versions_count_up() {
        let mut version = Message::default();
        version.number(1, 3).number(2, 17).number(4, 1);
        assert_eq!(version_of(&version.0), 31_701);
    }
}
