//! The log of a detached container: what it writes, in the line format that Kubernetes reads, in files of bounded size.
//!
//! ```text
//! 2016-10-06T00:17:09.669794202Z stdout P the beginning of a line of
//! 2016-10-06T00:17:09.669794202Z stdout F several pieces
//! ```
//!
//! F ends a line of the container's, P does not: the texts, with a newline after each F, are what it wrote, byte
//! for byte. `log` is being written; `log.1` is the one before it, and so on. The container never has to wait for a
//! disk that is full or broken: what can't be written is counted and thrown away. Memory is one buffer.

use std::ffi::{CStr, CString};

use pyrt_container::log::{FLAG, PREFIX, Stream, newline};
use pyrt_container::sys::{self, Errno, Fd};

/// No piece of a line is longer: other readers of this format have buffers.
const LONGEST: usize = 16 * 1024;
/// What is gathered before it is written: fewer calls beyond this gain nothing measurable.
const GATHERED: usize = 256 * 1024;
const NAME: &CStr = c"log";
const CLOSED: Fd = -1;

/// An open log.
pub struct Log {
    folder: Fd,
    file: Fd,
    /// Of the file, up to the end of the last whole line.
    size: u64,
    full_at: u64,
    files: u32,
    gathered: Vec<u8>,
    /// How many of the gathered bytes are the container's own.
    payload: u64,
    /// Bytes that could not be written.
    pub lost: u64,
}

impl Log {
    /// `files` are kept, each of about `full_at` bytes. The first one is opened when there is something to write.
    pub fn new(folder: Fd, full_at: u64, files: u32) -> Self {
        Self { folder, file: CLOSED, size: 0, full_at, files, gathered: Vec::new(), payload: 0, lost: 0 }
    }

    /// Adds what came from one read(2): its time is now.
    pub fn add(&mut self, stream: Stream, mut data: &[u8], now: u64) {
        if self.files == 0 {
            return;
        }
        if self.gathered.capacity() == 0 {
            self.gathered.reserve_exact(GATHERED);
        }
        let mut whole = prefix(stream, now);
        let mut part = whole;
        (whole[FLAG], part[FLAG]) = (b'F', b'P');
        let room = GATHERED.min(usize::try_from(self.full_at).unwrap_or(GATHERED));
        while !data.is_empty() {
            let window = &data[..data.len().min(LONGEST)];
            let (piece, is_whole) = match newline(window) {
                Some(end) => (&window[..=end], true),
                None => (window, false),
            };
            if self.gathered.len() + PREFIX + piece.len() + 1 > room {
                self.flush();
            }
            self.gathered.extend_from_slice(if is_whole { &whole } else { &part });
            self.gathered.extend_from_slice(piece);
            if !is_whole {
                self.gathered.push(b'\n');
            }
            self.payload += piece.len() as u64;
            data = &data[piece.len()..];
        }
    }

    /// Writes what was gathered.
    pub fn flush(&mut self) {
        if self.gathered.is_empty() {
            return;
        }
        if self.write().is_err() {
            self.lost += self.payload;
        }
        self.gathered.clear();
        self.payload = 0;
    }

    fn write(&mut self) -> sys::Result<()> {
        if self.file == CLOSED {
            self.open()?;
        }
        if self.size > 0 && self.size + self.gathered.len() as u64 > self.full_at {
            self.rotate()?;
        }
        let mut written = 0;
        while written < self.gathered.len() {
            match sys::write_some(self.file, &self.gathered[written..]) {
                Ok(count) if count > 0 => written += count,
                Err(Errno(libc::EINTR)) => {}
                refused => {
                    // No torn lines: the file ends where it ended before.
                    let _ = sys::truncate(self.file, self.size);
                    return Err(refused.err().unwrap_or(Errno(libc::EIO)));
                }
            }
        }
        self.size += written as u64;
        Ok(())
    }

    fn open(&mut self) -> sys::Result<()> {
        let flags = libc::O_RDWR | libc::O_CREAT | libc::O_APPEND | libc::O_NOFOLLOW;
        self.file = sys::openat(self.folder, NAME, flags, 0o600)?;
        self.size = sys::stat_at(self.file, c"")?.st_size as u64;
        // A keeper that was killed while it wrote may have left half a line.
        let mut last = [b'\n'];
        if self.size > 0 && sys::read_from(self.file, &mut last, self.size - 1)? == 1 && last != [b'\n'] {
            sys::write(self.file, b"\n")?;
            self.size += 1;
        }
        Ok(())
    }

    /// The oldest file goes, the others move up by one, and a new one begins.
    fn rotate(&mut self) -> sys::Result<()> {
        for number in (1..self.files).rev() {
            match sys::rename_at(self.folder, &file_name(number - 1), &file_name(number)) {
                Err(Errno(libc::ENOENT)) => {}
                other => other?,
            }
        }
        if self.files == 1 {
            sys::unlinkat(self.folder, NAME, 0)?;
        }
        sys::close(std::mem::replace(&mut self.file, CLOSED));
        self.open()
    }
}

fn file_name(number: u32) -> CString {
    let name = if number == 0 { "log".to_owned() } else { format!("log.{number}") };
    CString::new(name).unwrap_or_default()
}

fn prefix(stream: Stream, now: u64) -> [u8; PREFIX] {
    let mut text = *b"0000-00-00T00:00:00.000000000Z stdout   ";
    if stream == Stream::Stderr {
        text[34..37].copy_from_slice(b"err");
    }
    let (seconds, nanos) = (now / 1_000_000_000, now % 1_000_000_000);
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let fields = [
        (0, 4, year),
        (5, 2, month),
        (8, 2, day),
        (11, 2, of_day / 3600),
        (14, 2, of_day / 60 % 60),
        (17, 2, of_day % 60),
        (20, 9, nanos),
    ];
    for (at, digits, mut value) in fields {
        for place in (at..at + digits).rev() {
            text[place] = b'0' + (value % 10) as u8;
            value /= 10;
        }
    }
    text
}

/// Year, month and day of a day since 1970 in the Gregorian calendar. A year is counted from March, so that the
/// leap day is its last, and 400 years are always 146,097 days.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::fd::AsRawFd;
    use std::path::PathBuf;

    const AT: u64 = 1_475_713_029_669_794_202;

    struct Folder(PathBuf, fs::File);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("pyrt-log-{}-{name}", std::process::id()));
            fs::create_dir(&path).unwrap();
            let file = fs::File::open(&path).unwrap();
            Self(path, file)
        }

        fn log(&self, full_at: u64, files: u32) -> Log {
            Log::new(self.1.as_raw_fd(), full_at, files)
        }

        fn read(&self, name: &str) -> String {
            fs::read_to_string(self.0.join(name)).unwrap()
        }

        fn names(&self) -> Vec<String> {
            let mut names: Vec<_> =
                fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn lines_have_time_stream_and_flag() {
        let folder = Folder::new("lines");
        let mut log = folder.log(1 << 20, 1);
        log.add(Stream::Stdout, b"one\n\nno end", AT);
        log.add(Stream::Stderr, b" yet\n", AT + 1);
        log.flush();
        let expected = "2016-10-06T00:17:09.669794202Z stdout F one\n2016-10-06T00:17:09.669794202Z stdout F \n\
            2016-10-06T00:17:09.669794202Z stdout P no end\n2016-10-06T00:17:09.669794203Z stderr F  yet\n";
        assert_eq!(folder.read("log"), expected);
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        let days = [(0, (1970, 1, 1)), (11_016, (2000, 2, 29)), (20_513, (2026, 3, 1)), (47_541, (2100, 3, 1))];
        for (day, expected) in days {
            assert_eq!(date(day), expected);
        }
    }

    #[test]
    fn a_long_line_comes_in_pieces() {
        let folder = Folder::new("long");
        let mut log = folder.log(1 << 20, 1);
        let mut line = vec![b'x'; 3 * LONGEST];
        line.push(b'\n');
        log.add(Stream::Stdout, &line, AT);
        log.flush();
        let text = folder.read("log");
        let flags: Vec<_> = text.lines().map(|line| line.as_bytes()[FLAG]).collect();
        assert_eq!(flags, b"PPPF");
        let whole: String = text.lines().map(|line| &line[PREFIX..]).collect();
        assert_eq!(whole.len(), 3 * LONGEST);
    }

    #[test]
    fn files_are_bounded_in_size_and_number() {
        let folder = Folder::new("rotation");
        let mut log = folder.log(1000, 3);
        for number in 0..1000 {
            log.add(Stream::Stdout, format!("{number:04}\n").as_bytes(), AT);
            log.flush();
        }
        assert_eq!(folder.names(), ["log", "log.1", "log.2"]);
        let whole: String = ["log.2", "log.1", "log"].iter().map(|name| folder.read(name)).collect();
        let numbers: Vec<u32> = whole.lines().map(|line| line[PREFIX..].parse().unwrap()).collect();
        assert_eq!(*numbers.last().unwrap(), 999);
        assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]));
        assert!(numbers.len() > 44);
        assert!(["log", "log.1", "log.2"].iter().all(|name| folder.read(name).len() <= 1000));
    }

    #[test]
    fn half_a_line_of_a_killed_keeper_is_ended() {
        let folder = Folder::new("torn");
        fs::write(folder.0.join("log"), "2016-10-06T00:17:09.669794202Z stdo").unwrap();
        let mut log = folder.log(1000, 2);
        log.add(Stream::Stdout, b"next\n", AT);
        log.flush();
        let text = folder.read("log");
        assert_eq!(text.lines().count(), 2);
        assert!(text.ends_with("F next\n"));
    }

    #[test]
    fn what_finds_no_room_is_counted_and_nothing_is_torn() {
        let folder = Folder::new("full");
        std::os::unix::fs::symlink("/dev/full", folder.0.join("log")).unwrap();
        let mut log = folder.log(1 << 20, 2);
        // A link in the place of the log is not followed, so this is a failing open.
        log.add(Stream::Stdout, b"lost\n", AT);
        log.flush();
        assert_eq!(log.lost, 5);
        fs::remove_file(folder.0.join("log")).unwrap();
        log.add(Stream::Stdout, b"kept\n", AT);
        log.flush();
        assert_eq!((log.lost, folder.read("log").lines().count()), (5, 1));
    }

    #[test]
    fn without_files_nothing_is_kept() {
        let folder = Folder::new("none");
        let mut log = folder.log(1000, 0);
        log.add(Stream::Stdout, b"gone\n", AT);
        log.flush();
        assert_eq!((folder.names().len(), log.lost), (0, 0));
    }
}
