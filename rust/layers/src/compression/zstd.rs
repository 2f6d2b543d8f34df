//! zstd by its own library, with a bound on the window. Skippable frames are skipped by it.

use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};

use super::{Codec, Compression, Step, damaged};
use crate::error::Reason;

pub(super) struct Zstd {
    decoder: Decoder<'static>,
    window: u64,
}

impl Zstd {
    pub(super) fn new(window: u64) -> Result<Self, Reason> {
        let failed = |error| damaged(Compression::Zstd, error);
        let mut decoder = Decoder::new().map_err(failed)?;
        // The library takes 10 to 31 here.
        let log = window.max(1).ilog2().clamp(10, 31);
        decoder.set_parameter(DParameter::WindowLogMax(log)).map_err(failed)?;
        Ok(Self { decoder, window })
    }
}

impl Codec for Zstd {
    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, Reason> {
        let (mut input, mut output) = (InBuffer::around(input), OutBuffer::around(output));
        let left = self.decoder.run(&mut input, &mut output).map_err(|error| match error.to_string() {
            text if text.contains("too much memory") => {
                Reason::WindowTooLarge { compression: Compression::Zstd.name(), limit: self.window }
            }
            text => damaged(Compression::Zstd, text),
        })?;
        Ok(Step { read: input.pos(), written: output.pos(), ended: left == 0 })
    }

    fn restart(&mut self) -> Result<(), Reason> {
        self.decoder.reinit().map_err(|error| damaged(Compression::Zstd, error))
    }
}
