//! The walk over a tar: blocks in, entries and pieces of their content out, and nothing held but one entry.

use super::entry::{Entry, Kind, Time};
use super::header::{BLOCK, Header, text, unsigned};
use super::pax::Records;
use super::sparse::{Map, Place, TextMap};
use crate::error::{Error, Reason, Result, SparseFault};
use crate::names;
use crate::options::Limits;

/// Largest size that the octal field of a header can hold; only beyond it may a PAX header have another.
const OCTAL_MAX: u64 = 0o77_777_777_777;
/// Longest target of a symbolic link that the kernel takes.
const TARGET_MAX: usize = 4095;

/// Where the bytes of a tar come from.
pub(crate) trait Source {
    /// The bytes at hand; waits for at least one, and gives none only at the end.
    fn fill(&mut self) -> Result<&[u8]>;
    /// Says that the first `count` of them are done with.
    fn consume(&mut self, count: usize);
}

impl Source for &[u8] {
    fn fill(&mut self) -> Result<&[u8]> {
        Ok(self)
    }

    fn consume(&mut self, count: usize) {
        *self = &self[count..];
    }
}

/// Reads a tar from front to back.
pub(crate) struct Reader<S> {
    source: S,
    limits: Limits,
    /// Plain bytes consumed.
    offset: u64,
    /// Content of the current entry that was not given yet.
    left: u64,
    /// Zeros after that content.
    padding: u64,
    /// Bytes of the source that [`Reader::piece`] gave and that are not consumed yet.
    lent: usize,
    headers: u64,
    /// Bytes of files that sparse maps have promised.
    promised: u64,
    global: Records,
    start: u64,
    name: Vec<u8>,
}

/// What stands before the header of an entry.
#[derive(Default)]
struct Before {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    records: Option<Records>,
}

impl Before {
    fn is_empty(&self) -> bool {
        self.name.is_none() && self.link.is_none() && self.records.is_none()
    }
}

/// Puts what may come once.
fn put<T>(place: &mut Option<T>, value: T) -> Result<(), Reason> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Reason::HeaderRepeated),
    }
}

impl<S: Source> Reader<S> {
    pub(crate) fn new(source: S, limits: &Limits) -> Self {
        Self {
            source,
            limits: *limits,
            offset: 0,
            left: 0,
            padding: 0,
            lent: 0,
            headers: 0,
            promised: 0,
            global: Records::default(),
            start: 0,
            name: Vec::new(),
        }
    }

    /// The next entry, whatever was left of the last one's content; `None` at the end of the archive.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>> {
        self.skip_content()?;
        let mut before = Before::default();
        loop {
            self.start = self.offset;
            self.name.clear();
            let Some(block) = self.header_block(&before)? else { return Ok(None) };
            let header = Header(&block);
            self.name = header.name();
            self.count_header()?;
            match header.flag() {
                b'g' if !before.is_empty() => return Err(self.refuse(Reason::HeaderOrphan)),
                b'g' | b'x' | b'L' | b'K' => self.extended(&header, &mut before)?,
                _ => return self.entry(&header, before).map(Some),
            }
        }
    }

    /// The next piece of the current entry's content; `None` at its end.
    pub(crate) fn piece(&mut self) -> Result<Option<&[u8]>> {
        self.give_back();
        if self.left == 0 {
            return Ok(None);
        }
        let available = self.source.fill()?.len();
        if available == 0 {
            return Err(self.refuse(Reason::Truncated));
        }
        self.lent = available.min(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= self.lent as u64;
        // What was filled stays at hand until it is consumed.
        Ok(Some(&self.source.fill()?[..self.lent]))
    }

    /// Consumes what comes after the end of the archive: it has no meaning, but belongs to the digest.
    pub(crate) fn drain(&mut self) -> Result<()> {
        loop {
            match self.source.fill()?.len() {
                0 => return Ok(()),
                count => self.consume(count),
            }
        }
    }

    /// An error about the entry that is being read.
    pub(crate) fn refuse(&self, reason: impl Into<Reason>) -> Error {
        Error::Entry { entry: self.name.clone(), offset: self.start, reason: reason.into() }
    }

    fn consume(&mut self, count: usize) {
        self.source.consume(count);
        self.offset += count as u64;
    }

    fn give_back(&mut self) {
        let lent = std::mem::take(&mut self.lent);
        self.consume(lent);
    }

    fn skip_content(&mut self) -> Result<()> {
        self.give_back();
        while self.piece()?.is_some() {}
        // Not always there behind the last entry: `umoci insert` ends with the file's own bytes.
        let mut padding = std::mem::take(&mut self.padding) as usize;
        while padding > 0 {
            let count = self.source.fill()?.len().min(padding);
            if count == 0 {
                break;
            }
            self.consume(count);
            padding -= count;
        }
        Ok(())
    }

    fn expect_content(&mut self, size: u64) {
        self.left = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
    }

    /// One whole block; `None` if the tar ends before it.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        let mut have = 0;
        while have < BLOCK {
            let bytes = self.source.fill()?;
            let count = bytes.len().min(BLOCK - have);
            block[have..have + count].copy_from_slice(&bytes[..count]);
            match (count, have) {
                (0, 0) => return Ok(None),
                (0, _) => return Err(self.refuse(Reason::Truncated)),
                _ => self.consume(count),
            }
            have += count;
        }
        Ok(Some(block))
    }

    /// The next block that is a header; `None` at the end of the archive, which two blocks of zeros mark.
    ///
    /// As in other readers, an archive may also just end, or end after one such block. But one between entries is
    /// where some readers stop and others go on.
    fn header_block(&mut self, before: &Before) -> Result<Option<[u8; BLOCK]>> {
        let block = self.block()?;
        match block {
            Some(block) if !Header(&block).is_zero() => {
                return if Header(&block).is_sound() { Ok(Some(block)) } else { Err(self.refuse(Reason::Checksum)) };
            }
            None if self.offset == 0 => return Err(self.refuse(Reason::Empty)),
            _ if !before.is_empty() => return Err(self.refuse(Reason::HeaderOrphan)),
            _ => {}
        }
        match self.block()? {
            Some(second) if !Header(&second).is_zero() => Err(self.refuse(Reason::LoneZeroBlock)),
            _ => Ok(None),
        }
    }

    fn count_header(&mut self) -> Result<()> {
        self.headers += 1;
        match self.limits.entries {
            limit if self.headers > limit => Err(self.refuse(Reason::TooManyEntries { limit })),
            _ => Ok(()),
        }
    }

    /// Reads the content of an extended header and notes what it says.
    fn extended(&mut self, header: &Header<'_>, before: &mut Before) -> Result<()> {
        let size = header.size().map_err(|reason| self.refuse(reason))?;
        if size > self.limits.header {
            return Err(self.refuse(Reason::HeaderTooLarge { limit: self.limits.header }));
        }
        let mut content = Vec::new();
        self.expect_content(size);
        while let Some(piece) = self.piece()? {
            content.extend_from_slice(piece);
        }
        self.skip_content()?;
        let noted = match header.flag() {
            b'g' => self.global.global(&content),
            b'x' => Records::local(&content, self.limits.sparse).and_then(|records| put(&mut before.records, records)),
            b'L' => put(&mut before.name, text(&content).to_vec()),
            _ => put(&mut before.link, text(&content).to_vec()),
        };
        noted.map_err(|reason| self.refuse(reason))
    }

    /// Puts together what all headers of an entry say.
    fn entry(&mut self, header: &Header<'_>, before: Before) -> Result<Entry> {
        let mut records = before.records.unwrap_or_default();
        let raw = match (before.name, records.path.take()) {
            (Some(gnu), Some(pax)) if gnu != pax => return Err(self.refuse(Reason::NameAmbiguous)),
            (gnu, pax) => gnu.or(pax).unwrap_or_else(|| header.name()),
        };
        let raw = records.sparse.name.take().unwrap_or(raw);
        self.name.clone_from(&raw);
        let link = match (before.link, records.link.take()) {
            (Some(gnu), Some(pax)) if gnu != pax => return Err(self.refuse(Reason::NameAmbiguous)),
            (gnu, pax) => gnu.or(pax).unwrap_or_else(|| header.link().to_vec()),
        };
        let built = self.build(header, records, &raw, link);
        match built {
            Ok((entry, stored)) => self.with_content(header, entry, stored),
            Err(reason) => Err(self.refuse(reason)),
        }
    }

    fn build(
        &self,
        header: &Header<'_>,
        records: Records,
        raw: &[u8],
        link: Vec<u8>,
    ) -> Result<(Entry, Stored), Reason> {
        let path = names::normalise(raw, &self.limits)?;
        let size = size(header, records.size)?;
        let is_sparse = header.flag() == b'S' || !records.sparse.is_empty();
        let kind = self.kind(header, raw, link)?;
        if kind != Kind::File {
            if is_sparse {
                return Err(SparseFault::NoFile.into());
            }
            // Readers differ in whether they take such a size for content: CVE-2025-62518, CVE-2026-33055.
            if size != 0 {
                return Err(Reason::SizeOfNoFile { size });
            }
        }
        let (uid, gid) = (records.uid.or(self.global.uid), records.gid.or(self.global.gid));
        let mtime = records.mtime.or(self.global.mtime);
        let entry = Entry {
            path,
            offset: self.start,
            kind,
            mode: header.mode()?,
            uid: owner(uid.map_or_else(|| header.uid(), Ok)?)?,
            gid: owner(gid.map_or_else(|| header.gid(), Ok)?)?,
            mtime: mtime.map_or_else(|| header.mtime().map(|seconds| Time { seconds, nanoseconds: 0 }), Ok)?,
            xattrs: records.xattrs,
        };
        let map = match (header.flag(), records.sparse.is_empty()) {
            (_, true) => None,
            (b'S', false) => return Err(SparseFault::Mixed.into()),
            (_, false) => Some(records.sparse.resolve(self.limits.sparse)?),
        };
        Ok((entry, Stored { size, map }))
    }

    fn kind(&self, header: &Header<'_>, raw: &[u8], link: Vec<u8>) -> Result<Kind, Reason> {
        Ok(match header.flag() {
            // Before ustar, a directory was a file whose name ends in a slash.
            b'0' | 0 if raw.ends_with(b"/") => Kind::Directory,
            b'0' | 0 | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink(self.hard_link(&link)?),
            b'2' => Kind::Symlink(symlink(link)?),
            b'3' => header.device().map(|(major, minor)| Kind::Character { major, minor })?,
            b'4' => header.device().map(|(major, minor)| Kind::Block { major, minor })?,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            flag => return Err(Reason::Type { flag: char::from(flag) }),
        })
    }

    fn hard_link(&self, target: &[u8]) -> Result<Vec<u8>, Reason> {
        let path = names::normalise(target, &self.limits).map_err(|reason| match reason {
            Reason::NameClimbs => Reason::LinkClimbs,
            other => other,
        })?;
        if path.is_empty() { Err(Reason::LinkEmpty) } else { Ok(path) }
    }

    /// Prepares the content of the entry, after the map that may stand before it.
    fn with_content(&mut self, header: &Header<'_>, mut entry: Entry, stored: Stored) -> Result<Entry> {
        let (size, map, stored) = match (stored.map, header.flag()) {
            (None, b'S') => {
                let (size, map) = self.gnu_map(header)?;
                (size, map, stored.size)
            }
            (Some((size, Place::Header(map))), _) => (size, map, stored.size),
            (Some((size, Place::Content)), _) => {
                let (map, length) = self.text_map(stored.size)?;
                (size, map, stored.size - length)
            }
            (None, _) => {
                self.expect_content(stored.size);
                return Ok(entry);
            }
        };
        let segments = map.finish(size, stored).map_err(|fault| self.refuse(fault))?;
        self.promise(size)?;
        entry.kind = Kind::Sparse { size, segments };
        self.expect_content(stored);
        Ok(entry)
    }

    /// Counts the bytes that a sparse file will seem to have, of which the archive has but a few.
    fn promise(&mut self, size: u64) -> Result<()> {
        self.promised = self.promised.saturating_add(size);
        match self.limits.size {
            limit if self.promised > limit => Err(self.refuse(Reason::TooLarge { limit })),
            _ => Ok(()),
        }
    }

    /// The map of an old GNU header: four pieces there, and 21 in each of the blocks that follow.
    fn gnu_map(&mut self, header: &Header<'_>) -> Result<(u64, Map)> {
        if !header.is_gnu() {
            return Err(self.refuse(SparseFault::Mixed));
        }
        let mut map = Map::new(self.limits.sparse);
        let size = unsigned("", &header.0[483..495]).map_err(|_| self.refuse(SparseFault::Number))?;
        map.push_gnu(&header.0[386..482]).map_err(|fault| self.refuse(fault))?;
        let mut more = header.0[482] != 0;
        while more {
            let block = self.block()?.ok_or_else(|| self.refuse(Reason::Truncated))?;
            map.push_gnu(&block[..504]).map_err(|fault| self.refuse(fault))?;
            more = block[504] != 0;
        }
        Ok((size, map))
    }

    /// The map of format 1.0, which is the start of the content; and its length there.
    fn text_map(&mut self, stored: u64) -> Result<(Map, u64)> {
        let mut reading = TextMap::new(self.limits.sparse);
        for number in 1..=stored / BLOCK as u64 {
            let block = self.block()?.ok_or_else(|| self.refuse(Reason::Truncated))?;
            if let Some(map) = reading.block(&block).map_err(|fault| self.refuse(fault))? {
                return Ok((map, number * BLOCK as u64));
            }
        }
        Err(self.refuse(SparseFault::Incomplete))
    }
}

/// What is in the archive for an entry.
struct Stored {
    size: u64,
    map: Option<(u64, Place)>,
}

/// The size on which all readers agree: the header's, or the extended header's where the header has no room for it.
fn size(header: &Header<'_>, extended: Option<u64>) -> Result<u64, Reason> {
    let size = header.size()?;
    match extended {
        Some(extended) if extended != size && extended <= OCTAL_MAX => {
            Err(Reason::SizeAmbiguous { header: size, extended })
        }
        Some(extended) if extended > i64::MAX as u64 => Err(Reason::Number { field: "size" }),
        extended => Ok(extended.unwrap_or(size)),
    }
}

/// A uid or gid; the last number means "do not change" to the kernel.
fn owner(id: i64) -> Result<u32, Reason> {
    u32::try_from(id).ok().filter(|&id| id != u32::MAX).ok_or(Reason::Owner { id })
}

fn symlink(target: Vec<u8>) -> Result<Vec<u8>, Reason> {
    match target.len() {
        0 => Err(Reason::LinkEmpty),
        _ if target.contains(&0) => Err(Reason::NulInName),
        1..=TARGET_MAX => Ok(target),
        _ => Err(Reason::LinkTooLong { limit: TARGET_MAX }),
    }
}
