//! A directory in overlay form becomes a layer: telling, hashing, compressing and writing at once.
//!
//! ```text
//!   directory --> [tell] --+--> [hash]
//!          caller's thread +--> [compress, hash] --> sink
//! ```

use std::io::{self, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use rustix::io::Errno;

use crate::buffers::{Buffer, Pool};
use crate::compression::Compression;
use crate::digest::{Digest, Hasher};
use crate::error::{Error, Result};
use crate::options::{Overlay, Progress};
use crate::pipeline::{BUFFERS, Hashed, Message, PLAIN_BUFFER, first_cause, hash, join, start};
use crate::sys;
use crate::tar::{self, Entry};
use crate::tree::{Listener, tell};

/// How to write a layer.
#[derive(Clone, Copy, Debug, Default)]
pub struct WriteOptions<'a> {
    /// How to compress it.
    pub packing: Packing,
    /// Raise it from any thread, and the call returns [`Error::Cancelled`] after the piece that it is at.
    pub cancel: Option<&'a AtomicBool>,
    /// Counters that any thread may read while the call runs.
    pub progress: Option<&'a Progress>,
    /// Where the overlay mount has left its marks.
    pub overlay: Overlay,
}

/// How to compress a layer, with the levels of the format's own tool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Packing {
    /// Not at all.
    #[default]
    None,
    /// gzip, level 1 to 9.
    Gzip(u32),
    /// zstd, level 1 to 19.
    Zstd(i32),
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Digest of the bytes that went to the sink: the name of the blob.
    pub digest: Digest,
    /// Digest of the plain tar: the name of the layer.
    pub diff_id: Digest,
    /// Bytes that went to the sink.
    pub compressed_size: u64,
    /// Bytes of the plain tar.
    pub size: u64,
    /// How they are compressed.
    pub compression: Compression,
    /// Entries, whiteouts among them.
    pub entries: u64,
    /// Sockets, which no tar can hold, and which were left out.
    pub sockets: u64,
}

/// Writes all that is in `directory` to `sink` as a layer: a sorted tar, in which overlayfs's whiteouts and opaque
/// directories are those of the OCI image specification.
pub fn write_layer(directory: BorrowedFd<'_>, sink: BorrowedFd<'_>, options: &WriteOptions<'_>) -> Result<Written> {
    let pool = Pool::new(BUFFERS, PLAIN_BUFFER);
    let (to_hasher, hasher_input) = sync_channel(BUFFERS);
    let (to_packer, packer_input) = sync_channel(BUFFERS);
    thread::scope(|scope| {
        let hashing = start(scope, "hash", || hash(hasher_input))?;
        let packing = start(scope, "compress", || pack(packer_input, sink, options))?;
        let told = Outgoing::new(&pool, [to_hasher, to_packer], options).run(directory);
        let (hashed, packed) = (join(hashing), join(packing));
        match (told, packed, hashed) {
            (Ok((entries, sockets)), Ok((digest, compressed_size)), Some((diff_id, size))) => {
                let compression = options.packing.compression();
                Ok(Written { digest, diff_id, compressed_size, size, compression, entries, sockets })
            }
            (told, packed, _) => Err(first_cause([packed.err(), told.err()])),
        }
    })
}

impl Packing {
    fn compression(self) -> Compression {
        match self {
            Self::None => Compression::None,
            Self::Gzip(_) => Compression::Gzip,
            Self::Zstd(_) => Compression::Zstd,
        }
    }
}

/// The plain bytes on their way to both threads.
struct Outgoing<'a, 'pool> {
    pool: &'pool Pool,
    buffer: Buffer<'pool>,
    to: [SyncSender<Message<'pool>>; 2],
    options: &'a WriteOptions<'a>,
    headers: Vec<u8>,
    entries: u64,
    size: u64,
}

impl<'a, 'pool> Outgoing<'a, 'pool> {
    fn new(pool: &'pool Pool, to: [SyncSender<Message<'pool>>; 2], options: &'a WriteOptions<'a>) -> Self {
        Self { pool, buffer: pool.take(), to, options, headers: Vec::new(), entries: 0, size: 0 }
    }

    fn run(mut self, directory: BorrowedFd<'_>) -> Result<(u64, u64)> {
        let sockets = tell(directory, self.options.overlay, &mut self)?;
        let mut last = Vec::new();
        tar::end(&mut last);
        self.put(&last)?;
        self.send()?;
        self.to.iter().try_for_each(|to| to.send(None)).map_err(|_| Error::Cancelled)?;
        Ok((self.entries, sockets))
    }

    /// Passes the buffer on and takes another.
    fn send(&mut self) -> Result<()> {
        if self.options.cancel.is_some_and(|flag| flag.load(Ordering::Relaxed)) {
            return Err(Error::Cancelled);
        }
        let full = Arc::new(std::mem::replace(&mut self.buffer, self.pool.take()));
        self.size += full.len() as u64;
        if let Some(progress) = self.options.progress {
            progress.plain.store(self.size, Ordering::Relaxed);
        }
        self.to.iter().try_for_each(|to| to.send(Some(Arc::clone(&full)))).map_err(|_| Error::Cancelled)
    }

    fn put(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let room = self.buffer.room();
            let count = room.len().min(bytes.len());
            room[..count].copy_from_slice(&bytes[..count]);
            self.filled(count)?;
            bytes = &bytes[count..];
        }
        Ok(())
    }

    fn filled(&mut self, count: usize) -> Result<()> {
        self.buffer.filled(count);
        if self.buffer.room().is_empty() { self.send() } else { Ok(()) }
    }

    /// Reads `size` bytes of a file right into the buffers.
    fn put_file(&mut self, entry: &Entry, fd: &OwnedFd, size: u64) -> Result<()> {
        let mut left = size;
        while left > 0 {
            let room = self.buffer.room();
            let most = room.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            match rustix::io::read(fd, &mut room[..most]) {
                Ok(0) => {
                    let why = "it became shorter while it was read";
                    return Err(Error::Unwritable { entry: entry.path.clone(), why });
                }
                Ok(count) => {
                    left -= count as u64;
                    self.filled(count)?;
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(Error::system("read", &entry.path)(error)),
            }
        }
        Ok(())
    }
}

impl Listener for Outgoing<'_, '_> {
    fn entry(&mut self, entry: &Entry, content: Option<(&OwnedFd, u64)>) -> Result<()> {
        let size = content.map_or(0, |(_, size)| size);
        let mut headers = std::mem::take(&mut self.headers);
        headers.clear();
        tar::encode(entry, size, &mut headers);
        self.put(&headers)?;
        if let Some((fd, size)) = content {
            self.put_file(entry, fd, size)?;
        }
        headers.clear();
        tar::pad(size, &mut headers);
        self.put(&headers)?;
        self.headers = headers;
        self.entries += 1;
        if let Some(progress) = self.options.progress {
            progress.entries.store(self.entries, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Compresses what comes and writes it to the sink.
fn pack(messages: Receiver<Message<'_>>, sink: BorrowedFd<'_>, options: &WriteOptions<'_>) -> Result<Hashed> {
    let sink = Sink { fd: sink, hasher: Hasher::default(), options };
    let failed = |error: io::Error| Error::system("write", b"the layer")(error);
    let sink = match options.packing {
        Packing::None => {
            let mut sink = sink;
            feed(messages, &mut sink)?;
            sink
        }
        Packing::Gzip(level) => {
            let level = flate2::Compression::new(level.clamp(1, 9));
            let mut encoder = flate2::write::GzEncoder::new(sink, level);
            feed(messages, &mut encoder)?;
            encoder.finish().map_err(failed)?
        }
        Packing::Zstd(level) => {
            let mut encoder = zstd::Encoder::new(sink, level.clamp(1, 19)).map_err(failed)?;
            encoder.include_checksum(true).map_err(failed)?;
            feed(messages, &mut encoder)?;
            encoder.finish().map_err(failed)?
        }
    };
    Ok(sink.hasher.finish())
}

fn feed(messages: Receiver<Message<'_>>, to: &mut impl Write) -> Result<()> {
    loop {
        match messages.recv() {
            Ok(Some(bytes)) => to.write_all(&bytes).map_err(Error::system("write", b"the layer"))?,
            Ok(None) => return Ok(()),
            Err(_) => return Err(Error::Cancelled),
        }
    }
}

/// Where the layer goes, and what its digest is.
struct Sink<'a> {
    fd: BorrowedFd<'a>,
    hasher: Hasher,
    options: &'a WriteOptions<'a>,
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        sys::write_all(self.fd, bytes)?;
        self.hasher.update(bytes);
        if let Some(progress) = self.options.progress {
            progress.compressed.store(self.hasher.length(), Ordering::Relaxed);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
