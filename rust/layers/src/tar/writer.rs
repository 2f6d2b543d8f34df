//! Headers as every reader of layers understands them: ustar, with a PAX header for what does not fit. The same entry
//! always gives the same bytes.

use super::entry::{Entry, Kind, Time};
use super::header::BLOCK;

/// Appends the headers of an entry with `size` bytes of content.
pub(crate) fn encode(entry: &Entry, size: u64, out: &mut Vec<u8>) {
    let mut header = Fields::new(entry, size);
    let records = std::mem::take(&mut header.records);
    if !records.is_empty() {
        let mut extended = Fields::empty(b'x');
        extended.text(0, 100, &[b"PaxHeaders/", &entry.path[..entry.path.len().min(80)]].concat());
        extended.numbers(0o644, 0, 0, records.len() as u64, Time::default());
        out.extend_from_slice(&extended.finish());
        out.extend_from_slice(&records);
        pad(records.len() as u64, out);
    }
    out.extend_from_slice(&header.finish());
}

/// Appends the zeros that follow `size` bytes of content.
pub(crate) fn pad(size: u64, out: &mut Vec<u8>) {
    let padding = size.next_multiple_of(BLOCK as u64) - size;
    out.resize(out.len() + padding as usize, 0);
}

/// Appends what ends a tar.
pub(crate) fn end(out: &mut Vec<u8>) {
    out.resize(out.len() + 2 * BLOCK, 0);
}

/// A header in the making, and the records for what has no room in it.
struct Fields {
    block: [u8; BLOCK],
    records: Vec<u8>,
}

impl Fields {
    fn empty(flag: u8) -> Self {
        let mut block = [0; BLOCK];
        block[156] = flag;
        block[257..265].copy_from_slice(b"ustar\x0000");
        Self { block, records: Vec::new() }
    }

    fn new(entry: &Entry, size: u64) -> Self {
        let (flag, target, device): (_, &[u8], _) = match &entry.kind {
            Kind::File | Kind::Sparse { .. } => (b'0', b"", None),
            Kind::HardLink(target) => (b'1', target, None),
            Kind::Symlink(target) => (b'2', target, None),
            Kind::Character { major, minor } => (b'3', b"", Some((*major, *minor))),
            Kind::Block { major, minor } => (b'4', b"", Some((*major, *minor))),
            Kind::Directory => (b'5', b"", None),
            Kind::Fifo => (b'6', b"", None),
        };
        let mut fields = Self::empty(flag);
        match (&entry.kind, entry.path.is_empty()) {
            (_, true) => fields.name(0, "path", b"./"),
            (Kind::Directory, false) => fields.name(0, "path", &[&entry.path, &b"/"[..]].concat()),
            (_, false) => fields.name(0, "path", &entry.path),
        }
        fields.name(157, "linkpath", target);
        fields.numbers(entry.mode, entry.uid, entry.gid, size, entry.mtime);
        if let Some((major, minor)) = device {
            fields.octal(329, 7, major.into());
            fields.octal(337, 7, minor.into());
        }
        for xattr in &entry.xattrs {
            fields.record(&[b"SCHILY.xattr.", &xattr.name[..]].concat(), &xattr.value);
        }
        fields
    }

    /// A name of up to 100 bytes of ASCII, or the start of it, and all of it in a record.
    fn name(&mut self, offset: usize, key: &str, name: &[u8]) {
        if name.len() > 100 || !name.is_ascii() {
            // Records ought to be in UTF-8; GNU tar and Go write other names as they are, and read them so.
            self.record(key.as_bytes(), name);
        }
        self.text(offset, 100, name);
    }

    fn text(&mut self, offset: usize, room: usize, text: &[u8]) {
        let length = text.len().min(room);
        self.block[offset..offset + length].copy_from_slice(&text[..length]);
    }

    fn numbers(&mut self, mode: u32, uid: u32, gid: u32, size: u64, mtime: Time) {
        self.octal(100, 7, mode.into());
        self.number(108, 7, "uid", uid.into());
        self.number(116, 7, "gid", gid.into());
        self.number(124, 11, "size", size);
        match u64::try_from(mtime.seconds) {
            Ok(seconds) if mtime.nanoseconds == 0 && fits(11, seconds) => self.octal(136, 11, seconds),
            seconds => {
                self.octal(136, 11, seconds.ok().filter(|&seconds| fits(11, seconds)).unwrap_or(0));
                self.record(b"mtime", decimal(mtime).as_bytes());
            }
        }
    }

    /// A number in octal, or in a record and 0 here.
    fn number(&mut self, offset: usize, digits: usize, key: &str, value: u64) {
        if fits(digits, value) {
            self.octal(offset, digits, value);
        } else {
            self.octal(offset, digits, 0);
            self.record(key.as_bytes(), value.to_string().as_bytes());
        }
    }

    fn octal(&mut self, offset: usize, digits: usize, value: u64) {
        self.text(offset, digits, format!("{value:0digits$o}").as_bytes());
    }

    fn record(&mut self, key: &[u8], value: &[u8]) {
        // The length counts its own digits.
        let rest = key.len() + value.len() + 3;
        let mut length = rest + rest.to_string().len();
        length = rest + length.to_string().len();
        self.records.extend_from_slice(format!("{length} ").as_bytes());
        self.records.extend_from_slice(key);
        self.records.push(b'=');
        self.records.extend_from_slice(value);
        self.records.push(b'\n');
    }

    fn finish(mut self) -> [u8; BLOCK] {
        self.text(148, 8, b"        ");
        let sum: u32 = self.block.iter().map(|&byte| u32::from(byte)).sum();
        self.text(148, 8, format!("{sum:06o}\0 ").as_bytes());
        self.block
    }
}

fn fits(digits: usize, value: u64) -> bool {
    value < 1 << (3 * digits)
}

/// Seconds with their fraction, as short as it is exact.
fn decimal(time: Time) -> String {
    let total = i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanoseconds);
    let sign = if total < 0 { "-" } else { "" };
    let (seconds, nanoseconds) = (total.unsigned_abs() / 1_000_000_000, total.unsigned_abs() % 1_000_000_000);
    let text = format!("{sign}{seconds}.{nanoseconds:09}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::{Reader, Xattr};
    use super::*;
    use crate::options::Limits;

    fn read_back(entry: &Entry, size: u64) -> Entry {
        let mut tar = Vec::new();
        encode(entry, size, &mut tar);
        let mut entry = Reader::new(&tar[..], &Limits::default()).next().unwrap().unwrap();
        entry.offset = 0;
        entry
    }

    fn entry(path: &[u8], kind: Kind) -> Entry {
        let mtime = Time { seconds: 1, nanoseconds: 0 };
        Entry { path: path.to_vec(), offset: 0, kind, mode: 0o644, uid: 1, gid: 2, mtime, xattrs: Vec::new() }
    }

    #[test]
    fn what_is_written_reads_the_same() {
        let long = b"d/".repeat(200);
        let cases = [
            entry(b"", Kind::Directory),
            entry(&long[..399], Kind::Directory),
            entry(&[b'n'; 100], Kind::File),
            entry(&[b'n'; 101], Kind::Symlink(vec![b't'; 3000])),
            entry(b"\xff\xfe", Kind::HardLink(b"\xfe".to_vec())),
            entry("\u{e9}".as_bytes(), Kind::Fifo),
            entry(b"c", Kind::Character { major: 4095, minor: (1 << 20) - 1 }),
            entry(b"b", Kind::Block { major: 8, minor: 0 }),
            Entry { uid: u32::MAX - 1, gid: 0o10_000_000, ..entry(b"owner", Kind::File) },
            Entry { mtime: Time { seconds: -3, nanoseconds: 250_000_000 }, ..entry(b"old", Kind::File) },
            Entry { mtime: Time { seconds: i64::MAX, nanoseconds: 1 }, ..entry(b"late", Kind::File) },
            Entry { xattrs: vec![Xattr { name: b"user.a".into(), value: vec![0; 90] }], ..entry(b"x", Kind::File) },
        ];
        for case in cases {
            assert_eq!(read_back(&case, 0), case);
        }
    }

    #[test]
    fn sizes_beyond_the_header_are_in_a_record() {
        let mut tar = Vec::new();
        encode(&entry(b"huge", Kind::File), 1 << 33, &mut tar);
        assert_eq!(tar.len(), 3 * BLOCK);
        assert!(tar[BLOCK..].starts_with(b"19 size=8589934592\n"));
    }

    #[test]
    fn times_are_exact() {
        let text = |seconds, nanoseconds| decimal(Time { seconds, nanoseconds });
        assert_eq!(text(12, 500_000_000), "12.5");
        assert_eq!(text(-3, 250_000_000), "-2.75");
        assert_eq!(text(-1, 1), "-0.999999999");
        assert_eq!(text(10, 0), "10");
        assert_eq!(text(-10, 0), "-10");
    }
}
