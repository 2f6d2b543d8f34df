//! Tars written byte by byte, so that they can lie.

pub const BLOCK: usize = 512;

/// One header under construction.
#[derive(Clone)]
pub struct Header(pub [u8; BLOCK]);

impl Header {
    pub fn new(flag: u8, name: impl AsRef<[u8]>) -> Self {
        let mut header = Self([0; BLOCK]).at(257, b"ustar\x0000").at(156, &[flag]).at(0, name.as_ref());
        header = header.octal(100, 7, 0o644).octal(108, 7, 0).octal(116, 7, 0);
        header.octal(124, 11, 0).octal(136, 11, 1_000_000_000)
    }

    /// Puts bytes anywhere.
    pub fn at(mut self, offset: usize, bytes: &[u8]) -> Self {
        self.0[offset..offset + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub fn octal(self, offset: usize, digits: usize, value: u64) -> Self {
        self.at(offset, format!("{value:0digits$o}").as_bytes())
    }

    pub fn mode(self, mode: u64) -> Self {
        self.octal(100, 7, mode)
    }

    pub fn owner(self, uid: u64, gid: u64) -> Self {
        self.octal(108, 7, uid).octal(116, 7, gid)
    }

    pub fn size(self, size: u64) -> Self {
        self.octal(124, 11, size)
    }

    pub fn mtime(self, mtime: u64) -> Self {
        self.octal(136, 11, mtime)
    }

    pub fn link(self, target: impl AsRef<[u8]>) -> Self {
        self.at(157, target.as_ref())
    }

    pub fn device(self, major: u64, minor: u64) -> Self {
        self.octal(329, 7, major).octal(337, 7, minor)
    }

    pub fn gnu(self) -> Self {
        self.at(257, b"ustar  \0")
    }

    /// With the checksum that makes it a header.
    pub fn block(mut self) -> [u8; BLOCK] {
        self.0[148..156].copy_from_slice(b"        ");
        let sum: u32 = self.0.iter().map(|&byte| u32::from(byte)).sum();
        self.0[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0
    }
}

/// A tar under construction.
#[derive(Clone, Default)]
pub struct Tar(pub Vec<u8>);

impl Tar {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn header(self, header: Header) -> Self {
        self.bytes(&header.block())
    }

    /// Bytes as they are, without padding.
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Bytes, padded to whole blocks.
    pub fn content(self, bytes: &[u8]) -> Self {
        let mut padded = self.bytes(bytes);
        padded.0.resize(padded.0.len().next_multiple_of(BLOCK), 0);
        padded
    }

    pub fn file(self, name: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Self {
        let content = content.as_ref();
        self.header(Header::new(b'0', name).size(content.len() as u64)).content(content)
    }

    pub fn dir(self, name: impl AsRef<[u8]>) -> Self {
        self.header(Header::new(b'5', name).mode(0o755))
    }

    pub fn symlink(self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.header(Header::new(b'2', name).link(target).mode(0o777))
    }

    pub fn hardlink(self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.header(Header::new(b'1', name).link(target))
    }

    /// An extended header with these records, before the entry that comes next.
    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        self.extended(b'x', &records.iter().flat_map(|(key, value)| record(key, value)).collect::<Vec<_>>())
    }

    pub fn global(self, records: &[(&str, &[u8])]) -> Self {
        self.extended(b'g', &records.iter().flat_map(|(key, value)| record(key, value)).collect::<Vec<_>>())
    }

    pub fn extended(self, flag: u8, content: &[u8]) -> Self {
        self.header(Header::new(flag, "././@Extended").size(content.len() as u64)).content(content)
    }

    pub fn long_name(self, name: impl AsRef<[u8]>) -> Self {
        self.extended(b'L', &[name.as_ref(), b"\0"].concat())
    }

    pub fn long_link(self, name: impl AsRef<[u8]>) -> Self {
        self.extended(b'K', &[name.as_ref(), b"\0"].concat())
    }

    /// With the two blocks that end a tar.
    pub fn end(self) -> Vec<u8> {
        self.bytes(&[0; 2 * BLOCK]).0
    }
}

/// One record of an extended header: its length counts itself.
pub fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let length = (rest + 1..).find(|length| rest + length.to_string().len() == *length).unwrap();
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}
