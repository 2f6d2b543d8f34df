//! Reading and writing tars as a stream: ustar, old GNU and PAX, as POSIX.1-2001 pax(1) and tar(5) of libarchive have them.
//!
//! Written for hostile input: where two readers could take one archive for two different trees (numbers that lenient
//! readers cut off, two sizes, two names), it is refused. That is why the headers are not left to a library:
//! those at hand take eight bytes of a twelve-byte number, and skip what they do not understand.

mod entry;
mod header;
mod pax;
mod reader;
mod sparse;
mod writer;

pub(crate) use entry::{Entry, Kind, Time, Xattr};
pub(crate) use reader::{Reader, Source};
pub(crate) use writer::{encode, end, pad};
