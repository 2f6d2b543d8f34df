//! What a caller may choose about an extraction, what it may watch, and what it gets.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU64};

use crate::compression::Compression;
use crate::digest::Digest;

/// How to extract a layer. `Options::default()` is right for a pull as root.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// Receives a copy of the bytes as they came. On an error it holds a part of them.
    pub blob: Option<BorrowedFd<'a>>,
    /// Raise it from any thread, and the call returns [`Error::Cancelled`](crate::Error::Cancelled) within about 50 ms.
    pub cancel: Option<&'a AtomicBool>,
    /// Counters that any thread may read while the call runs.
    pub progress: Option<&'a Progress>,
    /// End with syncfs(2) of the directory's file system, so that the layer outlives a power cut.
    pub sync: bool,
    /// Which extended attributes the overlay mount will look at.
    pub overlay: Overlay,
    /// How much an image may ask for.
    pub limits: Limits,
}

/// Name space of the attributes with which overlayfs marks opaque directories.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overlay {
    /// `trusted.overlay.`: an overlay mounted with the host's rights.
    #[default]
    Trusted,
    /// `user.overlay.`: an overlay mounted with `userxattr`, in a user namespace.
    User,
}

impl Overlay {
    pub(crate) fn prefix(self) -> &'static [u8] {
        match self {
            Self::Trusted => b"trusted.overlay.",
            Self::User => b"user.overlay.",
        }
    }

    pub(crate) fn opaque(self) -> &'static str {
        match self {
            Self::Trusted => "trusted.overlay.opaque",
            Self::User => "user.overlay.opaque",
        }
    }
}

/// Bounds on what an image may make this machine do. They hold the resident memory of an extraction below 64 MiB.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Entries, extended headers included.
    pub entries: u64,
    /// Bytes of the tar, and bytes of its files with their holes.
    pub size: u64,
    /// Directories above an entry.
    pub depth: usize,
    /// Bytes of an entry's path.
    pub path: usize,
    /// Bytes of one extended header (PAX, or a GNU long name).
    pub header: u64,
    /// Pieces of one sparse file.
    pub sparse: usize,
    /// Bytes of history that a decompressor may keep (zstd's window, the dictionary of xz).
    pub window: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 4_000_000,
            size: 512 << 30,
            depth: 4096,
            path: 64 << 10,
            // As Go's archive/tar, which most layers were made with, has it.
            header: 1 << 20,
            sparse: 256 << 10,
            // zstd up to level 20 and xz up to -8. RFC 8878 asks of a decoder 8 MiB.
            window: 32 << 20,
        }
    }
}

/// How far an extraction has come. Each counter only grows.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes read from the source.
    pub compressed: AtomicU64,
    /// Bytes after decompression.
    pub plain: AtomicU64,
    /// Entries that are in place.
    pub entries: AtomicU64,
}

/// What was extracted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Digest of the bytes as they came: the name of the blob.
    pub digest: Digest,
    /// Digest of the plain tar: the name of the layer.
    pub diff_id: Digest,
    /// Bytes as they came.
    pub compressed_size: u64,
    /// Bytes of the plain tar.
    pub size: u64,
    /// How they were compressed.
    pub compression: Compression,
    /// What the tar holds.
    pub contents: Contents,
}

/// What the tar of a layer holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Entries, whiteouts among them.
    pub entries: u64,
    /// Directories that the layer needs but does not list; made as root's, 0755.
    pub implied: u64,
    /// Extended attributes that were left out: forged overlay attributes, the host's security labels, and such as
    /// the file system cannot keep.
    pub dropped_xattrs: u64,
    /// The root itself is opaque: no layer below this one is to be seen. Overlayfs does not look at the attribute
    /// of a root, so whoever stacks the layers must end the stack here.
    pub opaque_root: bool,
}
