//! Terminals: the master is handed to whoever listens on `--console-socket`, or served here in the foreground.

use std::fs::Metadata;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use pyrt_container::sys;

use crate::error::{Error, Result};

/// Who gets the terminal.
#[derive(Clone, Copy, Debug)]
pub enum Terminal<'a> {
    /// There is none.
    None,
    /// The socket of `--console-socket`.
    Socket(&'a str),
    /// Our own terminal is connected with it.
    Here,
}

impl<'a> Terminal<'a> {
    /// Checks that wish and flags agree; `stays` is whether this command waits for the process.
    pub fn choose(wanted: bool, socket: Option<&'a str>, stays: bool) -> Result<Self> {
        match (wanted, socket) {
            (false, None) => Ok(Self::None),
            (false, Some(_)) => Err(Error::new("process.terminal: is false, so --console-socket is for nothing")),
            (true, Some(socket)) => {
                let data = std::fs::metadata(socket);
                let data = data.map_err(|error| Error::file("--console-socket", Path::new(socket), &error))?;
                check_socket(&data, socket)?;
                Ok(Self::Socket(socket))
            }
            (true, None) if stays => Ok(Self::Here),
            (true, None) => Err(Error::new("process.terminal: is true, and there is no --console-socket")
                .hint("who does not wait for the process has to say who gets its terminal")),
        }
    }
}

fn check_socket(data: &Metadata, path: &str) -> Result<()> {
    if data.file_type().is_socket() {
        Ok(())
    } else {
        Err(Error::new(format!("--console-socket {path}: is no socket")))
    }
}

/// Hands the master over, with a name as runc sends it.
pub fn send(socket: &str, master: RawFd) -> Result<()> {
    hand_over("--console-socket", socket, "/dev/ptmx", master)
}

/// Hands a pidfd over; `name` is runc's for how the process was made.
pub fn send_pidfd(socket: &str, name: &str, pidfd: RawFd) -> Result<()> {
    hand_over("--pidfd-socket", socket, name, pidfd)
}

fn hand_over(flag: &str, socket: &str, name: &str, fd: RawFd) -> Result<()> {
    let stream = UnixStream::connect(socket);
    let stream = stream.map_err(|error| Error::file(flag, Path::new(socket), &error))?;
    sys::send_packet(stream.as_raw_fd(), name.as_bytes(), &[fd])
        .map_err(|errno| Error::call(&format!("{flag} {socket}"), errno))
}

/// Our own terminal without its line discipline, until this is dropped.
#[derive(Debug)]
pub struct Raw {
    before: libc::termios,
}

impl Raw {
    /// `None` if standard input is no terminal.
    pub fn enter() -> Option<Self> {
        // SAFETY: `struct termios` is plain numbers, filled in by tcgetattr(3).
        unsafe {
            let mut settings: libc::termios = std::mem::zeroed();
            if libc::tcgetattr(0, &raw mut settings) != 0 {
                return None;
            }
            let before = settings;
            libc::cfmakeraw(&raw mut settings);
            libc::tcsetattr(0, libc::TCSANOW, &raw const settings);
            Some(Self { before })
        }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // SAFETY: settings that this terminal has had.
        unsafe { libc::tcsetattr(0, libc::TCSANOW, &raw const self.before) };
    }
}

/// Gives the container's terminal the size of ours.
pub fn copy_size(master: RawFd) {
    // SAFETY: `struct winsize` is plain numbers, filled in by the first call.
    unsafe {
        let mut size: libc::winsize = std::mem::zeroed();
        if libc::ioctl(0, libc::TIOCGWINSZ, &raw mut size) == 0 {
            libc::ioctl(master, libc::TIOCSWINSZ, &raw const size);
        }
    }
}
