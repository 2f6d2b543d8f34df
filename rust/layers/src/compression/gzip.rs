//! gzip by zlib-rs, which also checks the CRC and the length at the end of each member.
//!
//! Measured on a Debian layer, 170 MB: zlib-rs 261 ms, zlib-ng 270, gzip(1) 796.

use flate2::{Decompress, FlushDecompress, Status};

use super::{Codec, Compression, Step, damaged};
use crate::error::Reason;

pub(super) struct Gzip(Decompress);

/// Logarithm of deflate's largest window.
const WINDOW: u8 = 15;

impl Gzip {
    pub(super) fn new() -> Self {
        Self(Decompress::new_gzip(WINDOW))
    }
}

impl Codec for Gzip {
    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, Reason> {
        let (read, written) = (self.0.total_in(), self.0.total_out());
        let status = self.0.decompress(input, output, FlushDecompress::None);
        let status = status.map_err(|error| damaged(Compression::Gzip, error))?;
        Ok(Step {
            read: (self.0.total_in() - read) as usize,
            written: (self.0.total_out() - written) as usize,
            ended: status == Status::StreamEnd,
        })
    }

    fn restart(&mut self) -> Result<(), Reason> {
        // A reset would forget that there is a gzip header.
        *self = Self::new();
        Ok(())
    }
}
