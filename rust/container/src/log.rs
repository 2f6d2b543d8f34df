//! The lines of a container's log, read back: what it wrote, byte for byte, or with the time before each line.
//!
//! ```text
//! 2016-10-06T00:17:09.669794202Z stdout F text
//! 0                              31     38 40
//! ```
//!
//! The keeper writes them (`rust/init/src/keeper/log.rs`), and so does whoever serves Kubernetes.

/// Bytes before a line's text.
pub const PREFIX: usize = 40;
/// Where a line's F or P stands.
pub const FLAG: usize = 38;
const TIME: usize = 30;
const STREAM: usize = 31;

/// Which output a text belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Reads a log in pieces of any size.
#[derive(Debug, Default)]
pub struct Reader {
    since: Vec<u8>,
    until: Vec<u8>,
    shows_times: bool,
    details: Vec<u8>,
    /// The beginning of a line whose end has not come yet.
    rest: Vec<u8>,
    /// Whether a line of stdout, of stderr has been begun and not ended.
    is_open: [bool; 2],
    /// A line after `until` was met: nothing more will come.
    pub is_done: bool,
}

impl Reader {
    /// Only lines from `since` to `until`, times as the log has them, "" for all; with the time before each line
    /// if it `shows_times`, then `details`.
    pub fn new(since: &str, until: &str, shows_times: bool, details: &str) -> Self {
        let (since, until, details) = (since.into(), until.into(), details.into());
        Self { since, until, shows_times, details, ..Self::default() }
    }

    /// The texts in what was read, those of one stream that follow each other put together.
    pub fn feed(&mut self, data: &[u8]) -> Vec<(Stream, Vec<u8>)> {
        let mut texts = Vec::new();
        let mut data = data;
        if !self.rest.is_empty() {
            let Some(end) = newline(data) else {
                self.rest.extend_from_slice(data);
                return texts;
            };
            let mut line = std::mem::take(&mut self.rest);
            line.extend_from_slice(&data[..=end]);
            self.line(&line, data.len(), &mut texts);
            data = &data[end + 1..];
        }
        while let Some(end) = newline(data) {
            self.line(&data[..=end], data.len(), &mut texts);
            data = &data[end + 1..];
        }
        self.rest.extend_from_slice(data);
        texts
    }

    /// One line with its newline. One that is none, because its keeper was killed in the middle of it, is passed over.
    /// `room` is for what may follow on the same stream: a text that has to grow is copied again and again.
    fn line(&mut self, line: &[u8], room: usize, texts: &mut Vec<(Stream, Vec<u8>)>) {
        let Some((head, text)) = line.split_at_checked(PREFIX) else { return };
        let (time, stream) = (&head[..TIME], &head[STREAM..FLAG - 1]);
        let stream = match stream {
            b"stdout" => Stream::Stdout,
            b"stderr" => Stream::Stderr,
            _ => return,
        };
        let is_whole = match head[FLAG] {
            b'F' => true,
            b'P' => false,
            _ => return,
        };
        // Times of one length in one zone are in the order of their bytes.
        if time < &self.since[..] || self.is_done {
            return;
        }
        if !self.until.is_empty() && time > &self.until[..] {
            self.is_done = true;
            return;
        }
        if texts.last().is_none_or(|(last, _)| *last != stream) {
            texts.push((stream, Vec::with_capacity(if texts.is_empty() { room } else { 0 })));
        }
        let Some((_, out)) = texts.last_mut() else { return };
        let is_open = &mut self.is_open[stream as usize];
        if !*is_open {
            if self.shows_times {
                out.extend_from_slice(time);
                out.push(b' ');
            }
            out.extend_from_slice(&self.details);
        }
        *is_open = !is_whole;
        out.extend_from_slice(if is_whole { text } else { &text[..text.len() - 1] });
    }
}

/// Where the first newline is.
pub fn newline(data: &[u8]) -> Option<usize> {
    // SAFETY: the length is the slice's own.
    let found = unsafe { libc::memchr(data.as_ptr().cast(), i32::from(b'\n'), data.len()) };
    (!found.is_null()).then(|| found as usize - data.as_ptr() as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &[u8] = b"2016-10-06T00:17:09.669794202Z stdout P one \n\
        2016-10-06T00:17:10.000000000Z stderr F oh\n\
        2016-10-06T00:17:11.000000000Z stdout F line\n\
        torn by a kill\n\
        2016-10-06T00:17:12.000000000Z stdout F \n";

    fn text(texts: &[(Stream, Vec<u8>)], wanted: Stream) -> String {
        let parts = texts.iter().filter(|(stream, _)| *stream == wanted).map(|(_, text)| text.clone());
        String::from_utf8(parts.collect::<Vec<_>>().concat()).unwrap()
    }

    #[test]
    fn what_was_written_comes_back() {
        let texts = Reader::new("", "", false, "").feed(LOG);
        assert_eq!(text(&texts, Stream::Stdout), "one line\n\n");
        assert_eq!(text(&texts, Stream::Stderr), "oh\n");
        assert_eq!(texts.len(), 3);
    }

    #[test]
    fn pieces_of_any_size_give_the_same() {
        for size in 1..LOG.len() {
            let mut reader = Reader::new("", "", false, "");
            let texts: Vec<_> = LOG.chunks(size).flat_map(|piece| reader.feed(piece)).collect();
            assert_eq!(text(&texts, Stream::Stdout), "one line\n\n");
            assert_eq!(text(&texts, Stream::Stderr), "oh\n");
        }
    }

    #[test]
    fn times_and_details_stand_before_lines_not_before_their_parts() {
        let texts = Reader::new("", "", true, "a=b ").feed(LOG);
        let expected = "2016-10-06T00:17:09.669794202Z a=b one line\n2016-10-06T00:17:12.000000000Z a=b \n";
        assert_eq!(text(&texts, Stream::Stdout), expected);
    }

    #[test]
    fn only_what_lies_between_two_times() {
        let mut reader = Reader::new("2016-10-06T00:17:10.000000000Z", "2016-10-06T00:17:11.000000000Z", false, "");
        let texts = reader.feed(LOG);
        assert_eq!(text(&texts, Stream::Stdout), "line\n");
        assert_eq!(text(&texts, Stream::Stderr), "oh\n");
        assert!(reader.is_done);
    }
}
