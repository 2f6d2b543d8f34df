//! One extraction: reading, decompressing, hashing and unpacking at once, on as many cores as there are.
//!
//! ```text
//!   source --> [read, hash, copy to blob] --> [decompress] --+--> [hash]
//!              the caller's thread                           +--> [unpack] --> directory
//! ```
//!
//! Buffers of two bounded pools go along the arrows and come back. A thread that fails hangs up, and the others end when
//! they notice; none outlives the call. The reader waits for its source by poll(2) and looks at the cancel flag
//! every 50 ms, so that it may be a pipe or a socket on which nothing comes.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, Scope, ScopedJoinHandle};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::buffers::{Buffer, Pool};
use crate::compression::{Compression, Decoder};
use crate::digest::{Digest, Hasher};
use crate::error::{Error, Reason, Result};
use crate::options::{Contents, Options, Report};
use crate::sys;
use crate::tar::Source;
use crate::tree;

/// Large enough that handing one on costs nothing beside filling it, small enough for the second-level cache.
const COMPRESSED_BUFFER: usize = 128 << 10;
pub(crate) const PLAIN_BUFFER: usize = 256 << 10;
/// How many buffers of each kind there are, at most.
pub(crate) const BUFFERS: usize = 8;
/// How long a source may keep silent before the cancel flag is looked at.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
const NO_PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// A filled buffer on its way, or the end of the stream. A hang-up without that end means that something failed.
pub(crate) type Message<'pool> = Option<Arc<Buffer<'pool>>>;

/// Extracts the layer that `source` gives into `directory`, which must be empty, in overlay form.
///
/// The source is read to its end, whatever it is: a file, a pipe or a socket. On an error the directory holds a part
/// of the layer, nothing outside of it was touched, and the caller removes it ([`remove_tree`](crate::remove_tree)).
pub fn extract(source: BorrowedFd<'_>, directory: BorrowedFd<'_>, options: &Options<'_>) -> Result<Report> {
    let (compressed, plain) = (Pool::new(BUFFERS, COMPRESSED_BUFFER), Pool::new(BUFFERS, PLAIN_BUFFER));
    let (to_decoder, from_reader) = sync_channel(BUFFERS);
    let (to_hasher, hasher_input) = sync_channel(BUFFERS);
    let (to_unpacker, unpacker_input) = sync_channel(BUFFERS);
    let report = thread::scope(|scope| {
        let unpacking = start(scope, "unpack", || {
            tree::unpack(Incoming { messages: unpacker_input, current: None, at: 0, ended: false }, directory, options)
        })?;
        let hashing = start(scope, "hash", || hash(hasher_input))?;
        let decoding = start(scope, "decompress", || decode(from_reader, &plain, [to_hasher, to_unpacker], options))?;
        let read = Read { source, options, pool: &compressed, compression: Compression::None }.run(to_decoder);
        let (decoded, hashed, unpacked) = (join(decoding), join(hashing), join(unpacking));
        put_together(read, decoded, hashed, unpacked)
    })?;
    if options.sync {
        rustix::fs::syncfs(directory).map_err(Error::system("sync the file system of", b"."))?;
    }
    Ok(report)
}

/// What a thread has found about some bytes.
pub(crate) type Hashed = (Digest, u64);

fn put_together(
    read: Result<(Compression, Hashed)>,
    decoded: Result<()>,
    hashed: Option<Hashed>,
    unpacked: Result<Contents>,
) -> Result<Report> {
    let (contents, (compression, (digest, compressed_size)), (diff_id, size)) = match (unpacked, decoded, read, hashed)
    {
        (Ok(contents), Ok(()), Ok(read), Some(hashed)) => (contents, read, hashed),
        (unpacked, decoded, read, _) => return Err(first_cause([unpacked.err(), decoded.err(), read.err()])),
    };
    let digest = if compression == Compression::None { diff_id } else { digest };
    Ok(Report { digest, diff_id, compressed_size, size, compression, contents })
}

/// Whoever was hung up on says "cancelled"; the cause is what another says.
pub(crate) fn first_cause<const N: usize>(errors: [Option<Error>; N]) -> Error {
    let errors = errors.into_iter().flatten();
    errors
        .reduce(|first, next| if matches!(first, Error::Cancelled) { next } else { first })
        .unwrap_or(Error::Cancelled)
}

pub(crate) fn start<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>> {
    let quietly = || {
        sys::block_signals();
        work()
    };
    let builder = thread::Builder::new().name(format!("layer {name}"));
    builder.spawn_scoped(scope, quietly).map_err(Error::system("start a thread to", name.as_bytes()))
}

pub(crate) fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The work of the caller's thread.
struct Read<'a, 'pool> {
    source: BorrowedFd<'a>,
    options: &'a Options<'a>,
    pool: &'pool Pool,
    compression: Compression,
}

impl<'pool> Read<'_, 'pool> {
    fn run(mut self, to_decoder: SyncSender<Message<'pool>>) -> Result<(Compression, Hashed)> {
        let mut hasher = Hasher::default();
        let mut read = 0;
        // The first piece must be long enough to tell the compression by.
        let mut least = Compression::MAGIC;
        loop {
            let mut buffer = self.pool.take();
            let ended = self.fill(&mut buffer, least)?;
            if std::mem::replace(&mut least, 1) > 1 {
                self.compression = Compression::detect(&buffer);
            }
            read += buffer.len() as u64;
            if let Some(progress) = self.options.progress {
                progress.compressed.store(read, Ordering::Relaxed);
            }
            let buffer = Arc::new(buffer);
            if !buffer.is_empty() {
                to_decoder.send(Some(Arc::clone(&buffer))).map_err(|_| Error::Cancelled)?;
            }
            self.keep(&buffer, &mut hasher)?;
            if ended {
                to_decoder.send(None).map_err(|_| Error::Cancelled)?;
                let (digest, _) = hasher.finish();
                return Ok((self.compression, (digest, read)));
            }
        }
    }

    /// Hashes and copies what came, while the next thread is at it already.
    fn keep(&self, bytes: &[u8], hasher: &mut Hasher) -> Result<()> {
        // Without compression, the digest of the plain bytes is this one too.
        if self.compression != Compression::None {
            hasher.update(bytes);
        }
        match self.options.blob {
            Some(blob) => sys::write_all(blob, bytes).map_err(Error::system("write", b"the copy of the layer")),
            None => Ok(()),
        }
    }

    /// Reads at least `least` bytes, and more if they are there already; true at the end.
    fn fill(&self, buffer: &mut Buffer<'_>, least: usize) -> Result<bool> {
        let failed = || Error::system("read", b"the layer");
        while !buffer.room().is_empty() {
            if self.options.cancel.is_some_and(|flag| flag.load(Ordering::Relaxed)) {
                return Err(Error::Cancelled);
            }
            let has_enough = buffer.len() >= least;
            let mut waiting = [PollFd::new(&self.source, PollFlags::IN)];
            match poll(&mut waiting, Some(if has_enough { &NO_PATIENCE } else { &PATIENCE })) {
                Ok(0) if has_enough => return Ok(false),
                Ok(0) | Err(Errno::INTR) => continue,
                Ok(_) => {}
                Err(error) => return Err(failed()(error)),
            }
            match rustix::io::read(self.source, buffer.room()) {
                Ok(0) => return Ok(true),
                Ok(count) => buffer.filled(count),
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(error) => return Err(failed()(error)),
            }
        }
        Ok(false)
    }
}

/// Decompresses what comes, into full buffers; what is not compressed goes on as it is.
fn decode<'pool>(
    from_reader: Receiver<Message<'pool>>,
    pool: &'pool Pool,
    to: [SyncSender<Message<'pool>>; 2],
    options: &Options<'_>,
) -> Result<()> {
    let mut decode = Decode { decoder: None, to, options, read: 0, size: 0 };
    let mut output = pool.take();
    let mut is_first = true;
    loop {
        let message = from_reader.recv().map_err(|_| Error::Cancelled)?;
        let Some(input) = message else { break };
        if std::mem::take(&mut is_first) {
            let decoder = Decoder::new(Compression::detect(&input), &options.limits);
            decode.decoder = decoder.map_err(|reason| decode.refuse(reason))?;
        }
        match decode.decoder {
            None => {
                decode.read += input.len() as u64;
                decode.send(input)?;
            }
            Some(_) => output = decode.decompress(&input, output, pool)?,
        }
    }
    if let Some(decoder) = &decode.decoder {
        decoder.finish().map_err(|reason| decode.refuse(reason))?;
    }
    if !output.is_empty() {
        decode.send(Arc::new(output))?;
    }
    decode.end()
}

struct Decode<'a, 'pool> {
    decoder: Option<Decoder>,
    to: [SyncSender<Message<'pool>>; 2],
    options: &'a Options<'a>,
    read: u64,
    size: u64,
}

impl<'pool> Decode<'_, 'pool> {
    fn decompress(&mut self, mut input: &[u8], mut output: Buffer<'pool>, pool: &'pool Pool) -> Result<Buffer<'pool>> {
        loop {
            let Some(decoder) = &mut self.decoder else { return Ok(output) };
            let step = decoder.step(input, output.room()).map_err(|reason| self.refuse(reason))?;
            input = &input[step.read..];
            self.read += step.read as u64;
            output.filled(step.written);
            if output.room().is_empty() {
                self.send(Arc::new(output))?;
                output = pool.take();
            } else if input.is_empty() {
                // With room left, nothing waits inside the decoder.
                return Ok(output);
            } else if step.is_none() {
                let detail = "no progress".to_owned();
                return Err(self.refuse(Reason::Damaged { compression: "compressed", detail }));
            }
        }
    }

    fn send(&mut self, buffer: Arc<Buffer<'pool>>) -> Result<()> {
        self.size += buffer.len() as u64;
        if self.size > self.options.limits.size {
            return Err(self.refuse(Reason::TooLarge { limit: self.options.limits.size }));
        }
        if let Some(progress) = self.options.progress {
            progress.plain.store(self.size, Ordering::Relaxed);
        }
        self.to.iter().try_for_each(|to| to.send(Some(Arc::clone(&buffer)))).map_err(|_| Error::Cancelled)
    }

    fn end(self) -> Result<()> {
        self.to.iter().try_for_each(|to| to.send(None)).map_err(|_| Error::Cancelled)
    }

    fn refuse(&self, reason: Reason) -> Error {
        Error::Stream { offset: self.read, reason }
    }
}

/// Digest and length of what comes, unless it breaks off.
pub(crate) fn hash(messages: Receiver<Message<'_>>) -> Option<Hashed> {
    let mut hasher = Hasher::default();
    loop {
        match messages.recv() {
            Ok(Some(bytes)) => hasher.update(&bytes),
            Ok(None) => return Some(hasher.finish()),
            Err(_) => return None,
        }
    }
}

/// The plain bytes, as the unpacking thread gets them.
struct Incoming<'pool> {
    messages: Receiver<Message<'pool>>,
    current: Option<Arc<Buffer<'pool>>>,
    at: usize,
    ended: bool,
}

impl Source for Incoming<'_> {
    fn fill(&mut self) -> Result<&[u8]> {
        while self.remaining().is_empty() && !self.ended {
            self.current = None;
            self.at = 0;
            match self.messages.recv() {
                Ok(Some(buffer)) => self.current = Some(buffer),
                Ok(None) => self.ended = true,
                Err(_) => return Err(Error::Cancelled),
            }
        }
        Ok(self.remaining())
    }

    fn consume(&mut self, count: usize) {
        self.at += count;
    }
}

impl Incoming<'_> {
    fn remaining(&self) -> &[u8] {
        self.current.as_ref().map_or(&[], |buffer| &buffer[self.at..])
    }
}
