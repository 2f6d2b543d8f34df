//! xz by liblzma, with a bound on its memory.

use liblzma::stream::{Action, Error, Status, Stream};

use super::{Codec, Compression, Step, damaged};
use crate::error::Reason;

pub(super) struct Xz {
    stream: Stream,
    window: u64,
}

/// What liblzma takes besides the dictionary, generously.
const OVERHEAD: u64 = 1 << 20;

impl Xz {
    pub(super) fn new(window: u64) -> Result<Self, Reason> {
        let stream = Stream::new_stream_decoder(window + OVERHEAD, 0);
        Ok(Self { stream: stream.map_err(|error| damaged(Compression::Xz, error))?, window })
    }
}

impl Codec for Xz {
    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, Reason> {
        let (read, written) = (self.stream.total_in(), self.stream.total_out());
        let status = self.stream.process(input, output, Action::Run).map_err(|error| match error {
            Error::MemLimit => Reason::WindowTooLarge { compression: Compression::Xz.name(), limit: self.window },
            error => damaged(Compression::Xz, error),
        })?;
        Ok(Step {
            read: (self.stream.total_in() - read) as usize,
            written: (self.stream.total_out() - written) as usize,
            ended: status == Status::StreamEnd,
        })
    }

    fn restart(&mut self) -> Result<(), Reason> {
        *self = Self::new(self.window)?;
        Ok(())
    }
}
