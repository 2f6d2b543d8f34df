//! HOME of a process whose environment has none: what the container's /etc/passwd says of its user.
//!
//! Engines leave it to the runtime, since only inside, with all mounts in place, it is clear which file that is. It is
//! the container's own: bounded, and never waited for.

use std::ffi::c_char;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::sys::{self, Fd};

/// How much of the file is worth reading: 20,000 users.
const LARGEST_FILE: usize = 1 << 20;
/// A line that is longer names no directory that could be entered.
const LONGEST_LINE: usize = libc::PATH_MAX as usize;
const NAME: &[u8] = b"HOME=";
const ROOM: usize = NAME.len() + LONGEST_LINE + 1;

/// An entry of the environment that the child writes, in memory that the keeper has made for it.
pub(super) struct Home(Box<[AtomicU8]>);

impl Home {
    pub fn new() -> Self {
        Self((0..ROOM).map(|_| AtomicU8::new(0)).collect())
    }

    /// For execve(2): ends in NUL from the beginning.
    pub fn as_ptr(&self) -> *const c_char {
        self.0.as_ptr().cast()
    }

    /// The directory of the user, or / if the file can't be read or does not know it.
    pub fn find(&self, uid: u32) {
        let mut line = Line::default();
        let found = sys::openat(libc::AT_FDCWD, c"/etc/passwd", FLAGS, 0).is_ok_and(|file| {
            let found = is_regular(file) && line.find(file, uid);
            sys::close(file);
            found
        });
        let home = if found { home_of(line.as_bytes(), uid) } else { None };
        let entry = NAME.iter().chain(home.unwrap_or(b"/")).chain(&[0]);
        self.0.iter().zip(entry).for_each(|(to, from)| to.store(*from, Ordering::Relaxed));
    }
}

/// Non-blocking: the image may have put a fifo there.
const FLAGS: i32 = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY;

fn is_regular(file: Fd) -> bool {
    sys::stat_at(file, c"").is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFREG)
}

/// The line that is being read; of one that is too long, nothing.
struct Line {
    bytes: [u8; LONGEST_LINE],
    length: usize,
}

impl Default for Line {
    fn default() -> Self {
        Self { bytes: [0; LONGEST_LINE], length: 0 }
    }
}

impl Line {
    /// Reads up to the end of the first line that is about the user.
    fn find(&mut self, file: Fd, uid: u32) -> bool {
        let mut piece = [0; 4096];
        let mut left = LARGEST_FILE;
        while left > 0 {
            let count = sys::read(file, &mut piece).unwrap_or(0).min(left);
            if count == 0 {
                break;
            }
            left -= count;
            if piece[..count].iter().any(|&byte| self.take(byte, uid)) {
                return true;
            }
        }
        // The last one may have no end.
        home_of(self.as_bytes(), uid).is_some()
    }

    /// Whether this byte ends the line that is looked for.
    fn take(&mut self, byte: u8, uid: u32) -> bool {
        if byte == b'\n' {
            let found = home_of(self.as_bytes(), uid).is_some();
            self.length = if found { self.length } else { 0 };
            return found;
        }
        if let Some(place) = self.bytes.get_mut(self.length) {
            *place = byte;
        }
        self.length += 1;
        false
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// The directory in a line of passwd(5), if it is about this user.
fn home_of(line: &[u8], uid: u32) -> Option<&[u8]> {
    let mut fields = line.split(|&byte| byte == b':');
    let number = std::str::from_utf8(fields.nth(2)?).ok()?;
    let home = fields.nth(2)?;
    (number.parse() == Ok(uid) && home.first() == Some(&b'/') && !home.contains(&0)).then_some(home)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(file: &[u8], uid: u32) -> Option<Vec<u8>> {
        let mut line = Line::default();
        let ended = file.iter().any(|&byte| line.take(byte, uid));
        let home = home_of(line.as_bytes(), uid).map(<[u8]>::to_vec);
        assert!(!ended || home.is_some());
        home
    }

    #[test]
    fn the_first_line_of_the_user_tells() {
        let file = b"root:x:0:0:root:/root:/bin/sh\nother:x:0:0::/other:\nbob:x:7:7:Bob:/home/bob:/bin/sh";
        assert_eq!(found(file, 0).unwrap(), b"/root");
        assert_eq!(found(file, 7).unwrap(), b"/home/bob");
        assert_eq!(found(file, 8), None);
    }

    #[test]
    fn what_is_no_entry_is_passed_over() {
        let long = [b"a:x:7:7::/".as_slice(), &[b'x'; LONGEST_LINE], b":\na:x:7:7::/short:\n"].concat();
        assert_eq!(found(&long, 7).unwrap(), b"/short");
        for line in [
            b"".as_slice(),
            b":::::",
            b"a:x:7",
            b"a:x:7:7::",
            b"a:x:7:7::relative:",
            b"a:x:-7:7::/a:",
            b"a:x:7:7::/\0:",
        ] {
            assert_eq!(found(line, 7), None, "{line:?}");
        }
    }

    #[test]
    fn the_entry_is_a_text_from_the_beginning() {
        let home = Home::new();
        home.find(u32::MAX);
        // SAFETY: the entry ends in NUL within its memory, which lives until the end of the test.
        assert_eq!(unsafe { std::ffi::CStr::from_ptr(home.as_ptr()) }, c"HOME=/");
    }
}
