//! gzip (RFC 1952): the inflating by zlib-rs, the frame around it here.
//!
//! Measured on a Debian layer, 170 MB, on a Xeon: zlib-rs 355 ms, and 450 where it was built without looking at what the
//! processor has (flate2's feature `runtime_detection`, on by default, off with the other defaults); ISA-L 289, which is
//! assembler; libdeflate 278, which can't stream; gzip(1) 1,150. On an EPYC zlib-rs 229, zlib-ng 238, gzip(1) 796. The
//! checksum that libraries take along costs another 32; taken by crc32fast, 8.

use flate2::{Decompress, FlushDecompress, Status};

use super::{Codec, Compression, Step, damaged};
use crate::error::Reason;

/// One member: `header, deflated data, CRC of the plain data, its length modulo 2^32`.
pub(super) struct Gzip {
    part: Part,
    /// The start of a header or trailer that came in pieces.
    gathered: Vec<u8>,
    inflate: Decompress,
    checksum: crc32fast::Hasher,
    size: u32,
}

#[derive(Clone, Copy)]
enum Part {
    Header,
    Data,
    Trailer,
}

/// The longest header that is waited for: the extra field has 64 KiB at most, the names in it have no bound.
const HEADER_MAX: usize = 128 << 10;
const TRAILER: usize = 8;

mod flag {
    pub(super) const CHECKSUM: u8 = 1 << 1;
    pub(super) const EXTRA: u8 = 1 << 2;
    pub(super) const NAME: u8 = 1 << 3;
    pub(super) const COMMENT: u8 = 1 << 4;
    pub(super) const RESERVED: u8 = 0b1110_0000;
}

impl Gzip {
    pub(super) fn new() -> Self {
        Self {
            part: Part::Header,
            gathered: Vec::new(),
            inflate: Decompress::new(false),
            checksum: crc32fast::Hasher::new(),
            size: 0,
        }
    }

    fn header(&mut self, input: &[u8]) -> Result<usize, Reason> {
        let before = self.gathered.len();
        let length = match before {
            0 => header_length(input),
            _ => {
                self.gathered.extend_from_slice(input);
                header_length(&self.gathered)
            }
        };
        match length {
            Some(length) => {
                self.part = Part::Data;
                self.gathered.clear();
                Ok(length? - before)
            }
            None if before + input.len() > HEADER_MAX => Err(bad("the header has no end")),
            None if before == 0 => {
                self.gathered.extend_from_slice(input);
                Ok(input.len())
            }
            None => Ok(input.len()),
        }
    }

    fn data(&mut self, input: &[u8], output: &mut [u8]) -> Result<(usize, usize), Reason> {
        let (read, written) = (self.inflate.total_in(), self.inflate.total_out());
        let status = self.inflate.decompress(input, output, FlushDecompress::None).map_err(bad)?;
        if status == Status::StreamEnd {
            self.part = Part::Trailer;
        }
        let (read, written) = (self.inflate.total_in() - read, self.inflate.total_out() - written);
        let (read, written) = (read as usize, written as usize);
        self.checksum.update(&output[..written]);
        self.size = self.size.wrapping_add(written as u32);
        Ok((read, written))
    }

    /// Takes what there is of the trailer; whether it is complete, and right.
    fn trailer(&mut self, input: &[u8]) -> Result<(usize, bool), Reason> {
        let read = input.len().min(TRAILER - self.gathered.len());
        self.gathered.extend_from_slice(&input[..read]);
        let Ok(trailer) = <[u8; TRAILER]>::try_from(&self.gathered[..]) else { return Ok((read, false)) };
        let expected = u64::from(self.size) << 32 | u64::from(self.checksum.clone().finalize());
        match u64::from_le_bytes(trailer) {
            trailer if trailer == expected => Ok((read, true)),
            _ => Err(bad("the checksum is wrong")),
        }
    }
}

/// Length of the header at the start of `bytes`; nothing if it is not complete.
fn header_length(bytes: &[u8]) -> Option<Result<usize, Reason>> {
    let &[0x1f, 0x8b, 8, flags, ..] = bytes.get(..10)? else { return Some(Err(bad("no header"))) };
    if flags & flag::RESERVED != 0 {
        return Some(Err(bad("a header of an unknown kind")));
    }
    let mut length = 10;
    if flags & flag::EXTRA != 0 {
        let extra = bytes.get(length..length + 2)?;
        length += 2 + usize::from(u16::from_le_bytes([extra[0], extra[1]]));
    }
    for text in [flag::NAME, flag::COMMENT] {
        if flags & text != 0 {
            length += bytes.get(length..)?.iter().position(|&byte| byte == 0)? + 1;
        }
    }
    if flags & flag::CHECKSUM != 0 {
        let stored = bytes.get(length..length + 2)?;
        if crc32fast::hash(&bytes[..length]) as u16 != u16::from_le_bytes([stored[0], stored[1]]) {
            return Some(Err(bad("the checksum of the header is wrong")));
        }
        length += 2;
    }
    bytes.get(..length).map(|_| Ok(length))
}

fn bad(detail: impl std::fmt::Display) -> Reason {
    damaged(Compression::Gzip, detail)
}

impl Codec for Gzip {
    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, Reason> {
        let (mut read, mut written, mut ended) = (0, 0, false);
        if let Part::Header = self.part {
            read = self.header(input)?;
        }
        if let Part::Data = self.part {
            let (more, all) = self.data(&input[read..], output)?;
            (read, written) = (read + more, all);
        }
        if let Part::Trailer = self.part {
            let (more, all) = self.trailer(&input[read..])?;
            (read, ended) = (read + more, all);
        }
        Ok(Step { read, written, ended })
    }

    fn restart(&mut self) -> Result<(), Reason> {
        self.inflate.reset(false);
        self.part = Part::Header;
        self.gathered.clear();
        self.checksum.reset();
        self.size = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn length(bytes: &[u8]) -> Option<Result<usize, Reason>> {
        header_length(bytes)
    }

    #[test]
    fn headers_may_have_all_optional_parts() {
        let mut header = vec![0x1f, 0x8b, 8, 0b1_1110, 0, 0, 0, 0, 0, 255, 3, 0];
        header.extend_from_slice(b"\0\0\0name\0comment\0");
        header.extend_from_slice(&(crc32fast::hash(&header) as u16).to_le_bytes());
        let whole = header.len();
        for end in 0..whole {
            assert_eq!(length(&header[..end]), None, "{end}");
        }
        assert_eq!(length(&header), Some(Ok(whole)));
        header.push(7);
        assert_eq!(length(&header), Some(Ok(whole)));
        header[20] ^= 1;
        assert!(matches!(length(&header), Some(Err(Reason::Damaged { .. }))));
    }

    #[test]
    fn a_header_in_pieces_is_gathered() {
        let mut gzip = Gzip::new();
        let plain = [0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 3, b'a', 0];
        let read: usize = plain.iter().map(|&byte| gzip.step(&[byte], &mut [0]).unwrap().read).sum();
        assert_eq!(read, plain.len());
        assert!(matches!(gzip.part, Part::Data));
    }

    #[test]
    fn a_header_without_end_is_refused() {
        let mut gzip = Gzip::new();
        gzip.step(&[0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 3], &mut [0]).unwrap();
        assert!((0..200).any(|_| gzip.step(&[b'n'; 1024], &mut [0]).is_err()));
    }
}
