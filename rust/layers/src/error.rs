//! What can go wrong with a layer, and whose fault it is: the image's, this machine's, or nobody's.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What everything in this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a layer was not unpacked or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// One entry of the tar is refused.
    #[error("entry {} (byte {offset} of the tar): {reason}", shown(.entry))]
    Entry {
        /// The entry's name as far as it is known, raw.
        entry: Vec<u8>,
        /// Where its header starts, in plain bytes.
        offset: u64,
        /// What is wrong with it.
        reason: Reason,
    },
    /// The stream around the entries is damaged, or larger than allowed.
    #[error("byte {offset} of the layer: {reason}")]
    Stream {
        /// Where, in bytes as they came.
        offset: u64,
        /// What is wrong there.
        reason: Reason,
    },
    /// The kernel refused something that a sound layer may ask for.
    #[error("cannot {operation} {}: {source}", shown(.path.as_os_str().as_bytes()))]
    System {
        /// What was tried, as a verb.
        operation: &'static str,
        /// On what; relative to the layer where it lies in one.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Something in a directory cannot be told in a layer.
    #[error("{} cannot be written into a layer: {why}", shown(.entry))]
    Unwritable {
        /// Its path in the directory, raw.
        entry: Vec<u8>,
        /// Why not.
        why: &'static str,
    },
    /// The caller's flag was raised.
    #[error("cancelled")]
    Cancelled,
}

/// Who has to do something about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The image lies, is damaged, or asks for more than the limits.
    Image,
    /// This machine: its disk is full, a right is missing, a file system lacks something, a directory is not as it
    /// should be.
    Machine,
    /// The caller cancelled.
    Caller,
}

impl Error {
    /// Whose fault this is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Entry { .. } | Self::Stream { .. } => Fault::Image,
            Self::System { .. } | Self::Unwritable { .. } => Fault::Machine,
            Self::Cancelled => Fault::Caller,
        }
    }

    /// What the image did wrong, if it was the image.
    pub fn reason(&self) -> Option<&Reason> {
        match self {
            Self::Entry { reason, .. } | Self::Stream { reason, .. } => Some(reason),
            _ => None,
        }
    }

    /// A closure for `map_err` on system calls.
    pub(crate) fn system<E: Into<io::Error>>(operation: &'static str, path: &[u8]) -> impl FnOnce(E) -> Self {
        let path = Path::new(OsStr::from_bytes(path));
        move |source| Self::System { operation, path: path.to_path_buf(), source: source.into() }
    }
}

/// Bytes of a name for people: printable, on one line, not endless.
fn shown(name: &[u8]) -> String {
    const MOST: usize = 200;
    match name.get(..MOST) {
        Some(start) => format!("\"{}...\" ({} bytes)", start.escape_ascii(), name.len()),
        None => format!("\"{}\"", String::from_utf8_lossy(name).escape_debug()),
    }
}

/// What an image does wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each sentence says it")]
pub enum Reason {
    // Names.
    #[error("its name climbs out by \"..\"")]
    NameClimbs,
    #[error("the target of the hard link climbs out by \"..\"")]
    LinkClimbs,
    #[error("a name in it holds a NUL byte")]
    NulInName,
    #[error("a part of its name is longer than 255 bytes")]
    NameTooLong,
    #[error("its path is longer than {limit} bytes")]
    PathTooLong { limit: usize },
    #[error("its path is deeper than {limit} directories")]
    TooDeep { limit: usize },
    #[error("it would replace the root of the layer by something that is no directory")]
    RootReplaced,
    #[error("a parent of it is no directory")]
    ParentNotDirectory,
    #[error("the symbolic links among its parents form a loop, or are more than 40")]
    LinkLoop,

    // Links.
    #[error("the link has no target")]
    LinkEmpty,
    #[error("the target of the link is longer than {limit} bytes")]
    LinkTooLong { limit: usize },
    #[error("the hard link's target {target:?} is not in this layer")]
    LinkTargetMissing { target: String },
    #[error("the hard link's target {target:?} is a directory")]
    LinkToDirectory { target: String },

    // Whiteouts.
    #[error("the whiteout names no file")]
    WhiteoutUnnamed,
    #[error("the whiteout names its own directory or the one above")]
    WhiteoutOfDirectory,
    #[error("the whiteout is no empty file")]
    WhiteoutKind,
    #[error("it lies below a whiteout, which is no directory")]
    BelowWhiteout,

    // Headers.
    #[error("the header's checksum is wrong")]
    Checksum,
    #[error("the header's {field} is no number, or out of range")]
    Number { field: &'static str },
    #[error("the type {flag:?} is not known in layers")]
    Type { flag: char },
    #[error("the owner {id} is out of range")]
    Owner { id: i64 },
    #[error("the device number {major}:{minor} is out of range")]
    Device { major: i64, minor: i64 },
    #[error("it is no file, and yet claims {size} bytes of content")]
    SizeOfNoFile { size: u64 },
    #[error("the header says {header} bytes, its extended header {extended}: which is ambiguous")]
    SizeAmbiguous { header: u64, extended: u64 },
    #[error("GNU and PAX headers give it different names")]
    NameAmbiguous,
    #[error("two extended headers of one kind stand before one entry")]
    HeaderRepeated,
    #[error("an extended header is followed by no entry")]
    HeaderOrphan,
    #[error("the extended header is larger than {limit} bytes")]
    HeaderTooLarge { limit: u64 },
    #[error("a record of the extended header is malformed")]
    Record,
    #[error("the extended header says \"{key}\" twice, with different values")]
    RecordRepeated { key: &'static str },
    #[error("the global header sets \"{key}\", which is of one entry")]
    RecordGlobal { key: &'static str },
    #[error("the sparse map is malformed: {0}")]
    Sparse(SparseFault),

    // The archive.
    #[error("it holds nothing")]
    Empty,
    #[error("it ends in the middle")]
    Truncated,
    #[error("a single block of zeros stands between entries")]
    LoneZeroBlock,
    #[error("more than {limit} entries")]
    TooManyEntries { limit: u64 },
    #[error("more than {limit} bytes when unpacked")]
    TooLarge { limit: u64 },

    // The compression.
    #[error("damaged {compression} data: {detail}")]
    Damaged { compression: &'static str, detail: String },
    #[error("after the end of the {compression} data comes something else")]
    TrailingGarbage { compression: &'static str },
    #[error("decompressing the {compression} data takes a window of more than {limit} bytes")]
    WindowTooLarge { compression: &'static str, limit: u64 },
}

/// What is wrong with the map of a sparse file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each sentence says it")]
pub enum SparseFault {
    #[error("the entry is no file")]
    NoFile,
    #[error("it is incomplete")]
    Incomplete,
    #[error("two formats are mixed")]
    Mixed,
    #[error("a number is missing or out of range")]
    Number,
    #[error("its pieces overlap, are out of order, or end after the file")]
    Order,
    #[error("its pieces do not add up to the content")]
    Sum,
    #[error("it has more than {limit} pieces")]
    TooLong { limit: usize },
}

impl From<SparseFault> for Reason {
    fn from(fault: SparseFault) -> Self {
        Self::Sparse(fault)
    }
}
