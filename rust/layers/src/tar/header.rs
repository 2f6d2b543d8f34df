//! The fields of one 512-byte header, strictly read.

use crate::error::Reason;

/// Size of everything in a tar.
pub(super) const BLOCK: usize = 512;

/// One block, taken for a header.
pub(super) struct Header<'block>(pub(super) &'block [u8; BLOCK]);

/// Where the fields lie.
mod at {
    use std::ops::Range;
    pub(super) const NAME: Range<usize> = 0..100;
    pub(super) const MODE: Range<usize> = 100..108;
    pub(super) const UID: Range<usize> = 108..116;
    pub(super) const GID: Range<usize> = 116..124;
    pub(super) const SIZE: Range<usize> = 124..136;
    pub(super) const MTIME: Range<usize> = 136..148;
    pub(super) const CHECKSUM: Range<usize> = 148..156;
    pub(super) const FLAG: usize = 156;
    pub(super) const LINK: Range<usize> = 157..257;
    pub(super) const MAGIC: Range<usize> = 257..265;
    pub(super) const MAJOR: Range<usize> = 329..337;
    pub(super) const MINOR: Range<usize> = 337..345;
    pub(super) const PREFIX: Range<usize> = 345..500;
    /// star keeps times behind a shorter prefix, and signs the end of the block.
    pub(super) const STAR_PREFIX: Range<usize> = 345..476;
    pub(super) const STAR_MAGIC: Range<usize> = 508..512;
}

impl Header<'_> {
    pub(super) fn is_zero(&self) -> bool {
        self.0.iter().all(|&byte| byte == 0)
    }

    /// Whether the checksum is that of the bytes, taken as unsigned, or as signed as some old tars did.
    pub(super) fn is_sound(&self) -> bool {
        let sums = |bytes: &[u8]| {
            let unsigned: u32 = bytes.iter().map(|&byte| u32::from(byte)).sum();
            let high = bytes.iter().map(|&byte| u32::from(byte >> 7)).sum::<u32>();
            (i64::from(unsigned), i64::from(high) * 256)
        };
        // The field itself counts as spaces.
        let (all, of_field) = (sums(self.0), sums(&self.0[at::CHECKSUM]));
        let unsigned = all.0 - of_field.0 + 8 * i64::from(b' ');
        let signed = unsigned - (all.1 - of_field.1);
        matches!(number(&self.0[at::CHECKSUM]), Some(sum) if sum == unsigned || sum == signed)
    }

    pub(super) fn flag(&self) -> u8 {
        self.0[at::FLAG]
    }

    /// Whether the header is old GNU's, where other fields lie in the place of the prefix.
    pub(super) fn is_gnu(&self) -> bool {
        &self.0[at::MAGIC] == b"ustar  \0"
    }

    /// The name, with the prefix that ustar puts before it.
    pub(super) fn name(&self) -> Vec<u8> {
        let name = text(&self.0[at::NAME]);
        match self.prefix() {
            b"" => name.to_vec(),
            prefix => [prefix, b"/", name].concat(),
        }
    }

    fn prefix(&self) -> &[u8] {
        if !self.0[at::MAGIC].starts_with(b"ustar\0") {
            return b"";
        }
        let star = &self.0[at::STAR_MAGIC] == b"tar\0";
        text(&self.0[if star { at::STAR_PREFIX } else { at::PREFIX }])
    }

    pub(super) fn link(&self) -> &[u8] {
        text(&self.0[at::LINK])
    }

    pub(super) fn mode(&self) -> Result<u32, Reason> {
        // Some tars write the type of the file along with its permissions.
        Ok((field("mode", &self.0[at::MODE])? & 0o7777) as u32)
    }

    pub(super) fn uid(&self) -> Result<i64, Reason> {
        field("uid", &self.0[at::UID])
    }

    pub(super) fn gid(&self) -> Result<i64, Reason> {
        field("gid", &self.0[at::GID])
    }

    pub(super) fn size(&self) -> Result<u64, Reason> {
        unsigned("size", &self.0[at::SIZE])
    }

    pub(super) fn mtime(&self) -> Result<i64, Reason> {
        field("mtime", &self.0[at::MTIME])
    }

    /// Device number, to be asked of devices only: others may have anything there.
    pub(super) fn device(&self) -> Result<(u32, u32), Reason> {
        let major = field("major device number", &self.0[at::MAJOR])?;
        let minor = field("minor device number", &self.0[at::MINOR])?;
        // Linux has 12 bits for the one and 20 for the other (include/linux/kdev_t.h).
        if !(0..1 << 12).contains(&major) || !(0..1 << 20).contains(&minor) {
            return Err(Reason::Device { major, minor });
        }
        Ok((major as u32, minor as u32))
    }
}

/// A text field, which ends at the first NUL or with the field.
pub(super) fn text(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or_default()
}

fn field(name: &'static str, bytes: &[u8]) -> Result<i64, Reason> {
    number(bytes).ok_or(Reason::Number { field: name })
}

/// A field whose number must not be negative.
pub(super) fn unsigned(name: &'static str, bytes: &[u8]) -> Result<u64, Reason> {
    u64::try_from(field(name, bytes)?).map_err(|_| Reason::Number { field: name })
}

/// A numeric field: octal digits, or base-256 when its first bit is set; nothing at all is 0.
fn number(field: &[u8]) -> Option<i64> {
    if field.first()? & 0x80 != 0 { binary(field) } else { octal(field) }
}

/// GNU's base-256: a big-endian two's complement whose top bit is the mark, and the one below it the sign.
fn binary(field: &[u8]) -> Option<i64> {
    let first = i128::from(((field[0] << 1) as i8) >> 1);
    // The longest field has twelve bytes, so that it always fits.
    let value = field[1..].iter().fold(first, |value, &byte| (value << 8) | i128::from(byte));
    i64::try_from(value).ok()
}

fn octal(field: &[u8]) -> Option<i64> {
    let start = field.iter().position(|&byte| byte != b' ' && byte != 0).unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(|byte| !(b'0'..=b'7').contains(byte)).unwrap_or(digits.len());
    // What follows a NUL is not part of the field. What follows a space must not be text.
    if !text(&digits[end..]).iter().all(|&byte| byte == b' ') {
        return None;
    }
    Some(digits[..end].iter().fold(0, |value, &byte| value << 3 | i64::from(byte - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_fields_are_read_as_written_by_every_tar() {
        for (field, value) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b" 644 \0  ", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (b"777777777777", Some(0o777_777_777_777)),
            (b"12\0garbage", Some(0o12)),
            (b"12 garbage", None),
            (b"128\0", None),
            (b"-1\0", None),
            (b"+1\0", None),
            (b"0x1\0", None),
        ] {
            assert_eq!(number(field), value, "{field:?}");
        }
    }

    #[test]
    fn base_256_is_whole_or_refused() {
        let wide = |bytes: [u8; 8]| [&[0x80, 0, 0, 0][..], &bytes].concat();
        assert_eq!(number(&wide((1_u64 << 40).to_be_bytes())), Some(1 << 40));
        assert_eq!(number(&wide((1_u64 << 63).to_be_bytes())), None);
        assert_eq!(number(&[0xff; 12]), Some(-1));
        assert_eq!(number(&[0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(number(&[0x81, 0, 0, 0, 0, 0, 0, 5]), Some((1 << 56) + 5));
        assert_eq!(number(&[0xbf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), Some((1 << 62) - 1));
    }
}
