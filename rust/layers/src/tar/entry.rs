//! One entry of a tar, all its headers put together.

use super::sparse::Segment;

/// Time since the epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Time {
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: u32,
}

/// An extended attribute, unfiltered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Xattr {
    pub(crate) name: Vec<u8>,
    pub(crate) value: Vec<u8>,
}

/// What an entry makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    /// A file of `size` bytes, of which only the segments are in the archive.
    Sparse {
        size: u64,
        segments: Vec<Segment>,
    },
    Directory,
    /// Target, raw.
    Symlink(Vec<u8>),
    /// Path of the target, normalised.
    HardLink(Vec<u8>),
    Character {
        major: u32,
        minor: u32,
    },
    Block {
        major: u32,
        minor: u32,
    },
    Fifo,
}

/// One entry. Its content, if any, is the reader's to give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Normalised; empty for the root.
    pub(crate) path: Vec<u8>,
    /// Where its header starts in the tar.
    pub(crate) offset: u64,
    pub(crate) kind: Kind,
    /// Permission bits with set-id and sticky bits, nothing else.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Time,
    pub(crate) xattrs: Vec<Xattr>,
}
