//! bzip2 by libbz2-rs. It needs 4 MB at most, whatever the stream says.

use bzip2::{Decompress, Status};

use super::{Codec, Compression, Step, damaged};
use crate::error::Reason;

pub(super) struct Bzip2(Decompress);

impl Bzip2 {
    pub(super) fn new() -> Self {
        Self(Decompress::new(false))
    }
}

impl Codec for Bzip2 {
    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, Reason> {
        let (read, written) = (self.0.total_in(), self.0.total_out());
        let status = self.0.decompress(input, output).map_err(|error| damaged(Compression::Bzip2, error))?;
        Ok(Step {
            read: (self.0.total_in() - read) as usize,
            written: (self.0.total_out() - written) as usize,
            ended: status == Status::StreamEnd,
        })
    }

    fn restart(&mut self) -> Result<(), Reason> {
        *self = Self::new();
        Ok(())
    }
}
