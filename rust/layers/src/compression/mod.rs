//! Decompression, recognised by the first bytes and bounded in memory: one interface over five formats.

mod bzip2;
mod gzip;
mod xz;
mod zstd;

use std::fmt;

use crate::error::Reason;
use crate::options::Limits;

/// How the bytes of a layer are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compression {
    /// Not at all.
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
    /// The .xz format, not the older .lzma.
    Xz,
    /// bzip2.
    Bzip2,
}

impl Compression {
    /// Bytes that [`Compression::detect`] needs to see, if there are as many.
    pub(crate) const MAGIC: usize = 10;

    /// Tells the format by its first bytes; what is none of them is a plain tar, which has a file's name there.
    pub(crate) fn detect(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, 8, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            // Either of the numbers that open a block, or the end of an empty stream.
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, 0x53, 0x59, ..]
            | [b'B', b'Z', b'h', b'1'..=b'9', 0x17, 0x72, 0x45, 0x38, 0x50, 0x90, ..] => Self::Bzip2,
            _ => Self::None,
        }
    }

    /// The name of the format.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "uncompressed",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Xz => "xz",
            Self::Bzip2 => "bzip2",
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// What one call has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) read: usize,
    pub(crate) written: usize,
    /// The stream, member or frame is complete; which may take no further byte, in or out.
    pub(crate) ended: bool,
}

impl Step {
    /// Whether nothing happened, which asks for more input.
    pub(crate) fn is_none(self) -> bool {
        self == Self { read: 0, written: 0, ended: false }
    }
}

/// One stream, member or frame of a format.
trait Codec {
    /// Reads some of `input`, writes some of `output`.
    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, Reason>;
    /// Prepares for another stream.
    fn restart(&mut self) -> Result<(), Reason>;
}

/// Decompresses a whole blob: as many streams as there are, one after the other.
///
/// Between streams and after the last, zero bytes are padding, as xz defines and tape blocks leave them. Anything else
/// that is no further stream of the format is refused: gzip(1) would only warn of it, and two readers of the layer
/// could see two different ones.
pub(crate) struct Decoder {
    compression: Compression,
    codec: Box<dyn Codec>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first byte of the first stream.
    Start,
    Inside,
    /// At the first byte of what follows a stream, which decides what it is.
    Between,
    /// In a further stream whose magic number may still turn out to be none.
    Again,
}

impl Decoder {
    /// A decoder; none for what is not compressed.
    pub(crate) fn new(compression: Compression, limits: &Limits) -> Result<Option<Self>, Reason> {
        let codec: Box<dyn Codec> = match compression {
            Compression::None => return Ok(None),
            Compression::Gzip => Box::new(gzip::Gzip::new()),
            Compression::Zstd => Box::new(zstd::Zstd::new(limits.window)?),
            Compression::Xz => Box::new(xz::Xz::new(limits.window)?),
            Compression::Bzip2 => Box::new(bzip2::Bzip2::new()),
        };
        Ok(Some(Self { compression, codec, state: State::Start }))
    }

    /// Reads some of `input`, writes some of `output`.
    pub(crate) fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, Reason> {
        if self.state == State::Between {
            let zeros = input.iter().take_while(|&&byte| byte == 0).count();
            if zeros > 0 || input.is_empty() {
                return Ok(Step { read: zeros, written: 0, ended: false });
            }
            self.codec.restart()?;
            self.state = State::Again;
        }
        let step = self.codec.step(input, output).map_err(|reason| self.explain(reason))?;
        self.state = match (step.ended, self.state) {
            (true, _) => State::Between,
            (false, State::Again) if step.written == 0 => State::Again,
            (false, State::Start) if step.read == 0 => State::Start,
            (false, _) => State::Inside,
        };
        Ok(step)
    }

    /// Says that there is no more input; it must have ended with a stream.
    pub(crate) fn finish(&self) -> Result<(), Reason> {
        match self.state {
            State::Between => Ok(()),
            State::Start | State::Inside => Err(Reason::Truncated),
            State::Again => Err(Reason::TrailingGarbage { compression: self.compression.name() }),
        }
    }

    fn explain(&self, reason: Reason) -> Reason {
        match (self.state, reason) {
            (State::Again, Reason::Damaged { compression, .. }) => Reason::TrailingGarbage { compression },
            (_, reason) => reason,
        }
    }
}

/// A sentence for what a library says of the data.
fn damaged(compression: Compression, detail: impl fmt::Display) -> Reason {
    Reason::Damaged { compression: compression.name(), detail: detail.to_string() }
}
