//! Maps of sparse files: old GNU's in the header, and the three that GNU tar puts into PAX records.
//!
//! ```text
//! 0.0   GNU.sparse.{size,numblocks}, then GNU.sparse.{offset,numbytes} again and again
//! 0.1   GNU.sparse.{size,numblocks,map,name}; map is "offset,length,offset,length"
//! 1.0   GNU.sparse.{major,minor,realsize,name}; the map is text in the first blocks of the content
//! ```

use super::header::{BLOCK, unsigned};
use super::pax::decimal;
use crate::error::SparseFault;

/// A piece of a sparse file that is in the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// The map in the making.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Map {
    segments: Vec<Segment>,
    limit: usize,
}

impl Map {
    pub(super) fn new(limit: usize) -> Self {
        Self { segments: Vec::new(), limit }
    }

    fn push(&mut self, segment: Segment) -> Result<(), SparseFault> {
        if self.segments.len() >= self.limit {
            return Err(SparseFault::TooLong { limit: self.limit });
        }
        self.segments.push(segment);
        Ok(())
    }

    /// Reads the `offset, length` pairs of an old GNU header or of a block that continues one.
    pub(super) fn push_gnu(&mut self, pairs: &[u8]) -> Result<(), SparseFault> {
        for pair in pairs.chunks_exact(24) {
            if pair.iter().all(|&byte| byte == 0) {
                break;
            }
            let field = |bytes| unsigned("", bytes).map_err(|_| SparseFault::Number);
            self.push(Segment { offset: field(&pair[..12])?, length: field(&pair[12..])? })?;
        }
        Ok(())
    }

    /// The segments, if they are in order, apart, within `size`, and `stored` bytes together.
    pub(super) fn finish(self, size: u64, stored: u64) -> Result<Vec<Segment>, SparseFault> {
        let (mut end, mut sum) = (0, 0_u64);
        for segment in &self.segments {
            if segment.offset < end {
                return Err(SparseFault::Order);
            }
            end = segment.offset.checked_add(segment.length).ok_or(SparseFault::Order)?;
            // Within `size` and apart, they cannot be more than it together.
            sum = sum.saturating_add(segment.length);
        }
        // The kernel counts the bytes of a file by signed numbers.
        if end > size || size > i64::MAX as u64 {
            return Err(SparseFault::Order);
        }
        if sum == stored { Ok(self.segments) } else { Err(SparseFault::Sum) }
    }
}

/// What the PAX records of an entry say about its holes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Claims {
    pub(super) name: Option<Vec<u8>>,
    size: Option<u64>,
    real_size: Option<u64>,
    major: Option<u64>,
    minor: Option<u64>,
    blocks: Option<u64>,
    /// Of 0.0: an offset that waits for its length.
    offset: Option<u64>,
    pairs: Option<Map>,
    map: Option<Map>,
}

/// Where the map of a sparse file is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    Header(Map),
    Content,
}

impl Claims {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn set(&mut self, key: &[u8], value: &[u8], limit: usize) -> Result<(), SparseFault> {
        if key == b"name" {
            return set(&mut self.name, value.to_vec());
        }
        if key == b"map" {
            return set(&mut self.map, list(value, limit)?);
        }
        let number = decimal(value).ok_or(SparseFault::Number);
        match key {
            b"size" => set(&mut self.size, number?),
            b"realsize" => set(&mut self.real_size, number?),
            b"major" => set(&mut self.major, number?),
            b"minor" => set(&mut self.minor, number?),
            b"numblocks" => set(&mut self.blocks, number?),
            b"offset" => set(&mut self.offset, number?),
            b"numbytes" => {
                let segment = Segment { offset: self.offset.take().ok_or(SparseFault::Incomplete)?, length: number? };
                self.pairs.get_or_insert_with(|| Map::new(limit)).push(segment)
            }
            _ => Err(SparseFault::Mixed),
        }
    }

    /// Size of the file with its holes, and where its map is.
    pub(super) fn resolve(self, limit: usize) -> Result<(u64, Place), SparseFault> {
        match (self.major, self.minor) {
            (None, None) => self.resolve_0(limit),
            (Some(1), Some(0)) => self.resolve_1(),
            _ => Err(SparseFault::Mixed),
        }
    }

    fn resolve_0(self, limit: usize) -> Result<(u64, Place), SparseFault> {
        if self.offset.is_some() {
            return Err(SparseFault::Incomplete);
        }
        let map = match (self.pairs, self.map) {
            (Some(_), Some(_)) => return Err(SparseFault::Mixed),
            (pairs, map) => pairs.or(map).unwrap_or_else(|| Map::new(limit)),
        };
        if self.real_size.is_some() {
            return Err(SparseFault::Mixed);
        }
        match (self.size, self.blocks) {
            (Some(size), Some(blocks)) if blocks == map.segments.len() as u64 => Ok((size, Place::Header(map))),
            _ => Err(SparseFault::Incomplete),
        }
    }

    fn resolve_1(self) -> Result<(u64, Place), SparseFault> {
        let other = self.offset.or(self.size).or(self.blocks).is_some();
        if other || self.pairs.is_some() || self.map.is_some() {
            return Err(SparseFault::Mixed);
        }
        Ok((self.real_size.ok_or(SparseFault::Incomplete)?, Place::Content))
    }
}

fn set<T>(place: &mut Option<T>, value: T) -> Result<(), SparseFault> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(SparseFault::Mixed),
    }
}

fn list(text: &[u8], limit: usize) -> Result<Map, SparseFault> {
    let mut map = Map::new(limit);
    let mut numbers = text.split(|&byte| byte == b',').map(|number| decimal(number).ok_or(SparseFault::Number));
    if text.is_empty() {
        return Ok(map);
    }
    while let Some(offset) = numbers.next() {
        map.push(Segment { offset: offset?, length: numbers.next().ok_or(SparseFault::Incomplete)?? })?;
    }
    Ok(map)
}

/// Reads a map of format 1.0, block by block: the number of pieces, then offset and length of each, a line a number.
pub(super) struct TextMap {
    map: Map,
    left: Option<u64>,
    offset: Option<u64>,
    line: Vec<u8>,
}

impl TextMap {
    pub(super) fn new(limit: usize) -> Self {
        Self { map: Map::new(limit), left: None, offset: None, line: Vec::new() }
    }

    /// Takes one block; gives the map with the block that completes it. What is left of that is padding.
    pub(super) fn block(&mut self, block: &[u8; BLOCK]) -> Result<Option<Map>, SparseFault> {
        for &byte in block {
            match byte {
                b'\n' => {
                    if self.line_ended()? {
                        return Ok(Some(std::mem::replace(&mut self.map, Map::new(0))));
                    }
                }
                // No number has more digits.
                b'0'..=b'9' if self.line.len() < 20 => self.line.push(byte),
                _ => return Err(SparseFault::Number),
            }
        }
        Ok(None)
    }

    fn line_ended(&mut self) -> Result<bool, SparseFault> {
        let number = decimal(&self.line).ok_or(SparseFault::Number)?;
        self.line.clear();
        match (self.left, self.offset.take()) {
            (None, _) => self.left = Some(number),
            (Some(_), None) => self.offset = Some(number),
            (Some(left), Some(offset)) => {
                self.map.push(Segment { offset, length: number })?;
                self.left = Some(left - 1);
            }
        }
        Ok(self.left == Some(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(records: &[(&str, &str)]) -> Result<(u64, Place), SparseFault> {
        let mut claims = Claims::default();
        for (key, value) in records {
            claims.set(key.as_bytes(), value.as_bytes(), 4)?;
        }
        claims.resolve(4)
    }

    fn map(pairs: &[(u64, u64)]) -> Map {
        Map { segments: pairs.iter().map(|&(offset, length)| Segment { offset, length }).collect(), limit: 4 }
    }

    #[test]
    fn both_forms_of_format_0_are_read() {
        let pairs =
            [("size", "9"), ("numblocks", "2"), ("offset", "0"), ("numbytes", "1"), ("offset", "5"), ("numbytes", "2")];
        let list = [("size", "9"), ("numblocks", "2"), ("map", "0,1,5,2")];
        assert_eq!(claims(&pairs), Ok((9, Place::Header(map(&[(0, 1), (5, 2)])))));
        assert_eq!(claims(&list), claims(&pairs));
    }

    #[test]
    fn orphans_and_mixtures_are_refused() {
        use SparseFault::*;
        for (records, fault) in [
            (&[("numbytes", "1")][..], Incomplete),
            (&[("offset", "1")], Incomplete),
            (&[("offset", "1"), ("offset", "2")], Mixed),
            (&[("size", "9")], Incomplete),
            (&[("size", "9"), ("numblocks", "2"), ("map", "0,1")], Incomplete),
            (&[("size", "9"), ("numblocks", "1"), ("map", "0")], Incomplete),
            (&[("size", "9"), ("numblocks", "1"), ("map", "0,x")], Number),
            (&[("major", "1"), ("minor", "0")], Incomplete),
            (&[("major", "1"), ("minor", "0"), ("realsize", "9"), ("map", "0,1")], Mixed),
            (&[("major", "2"), ("minor", "0"), ("realsize", "9")], Mixed),
            (&[("unheard", "2")], Mixed),
            (&[("size", "9"), ("numblocks", "5"), ("map", "0,1,2,1,4,1,6,1,8,1")], TooLong { limit: 4 }),
        ] {
            assert_eq!(claims(records), Err(fault), "{records:?}");
        }
    }

    #[test]
    fn a_map_fits_its_file() {
        assert!(map(&[(0, 1), (5, 2), (9, 0)]).finish(9, 3).is_ok());
        assert_eq!(map(&[(0, 6), (5, 2)]).finish(9, 8), Err(SparseFault::Order));
        assert_eq!(map(&[(5, 2), (0, 1)]).finish(9, 3), Err(SparseFault::Order));
        assert_eq!(map(&[(8, 2)]).finish(9, 2), Err(SparseFault::Order));
        assert_eq!(map(&[(u64::MAX, 2)]).finish(9, 2), Err(SparseFault::Order));
        assert_eq!(map(&[(0, 2)]).finish(9, 3), Err(SparseFault::Sum));
        assert_eq!(map(&[]).finish(u64::MAX, 0), Err(SparseFault::Order));
    }

    #[test]
    fn a_text_map_spans_blocks() {
        let text: String = "3\n".to_owned() + &"0".repeat(19) + "\n1\n" + &format!("{:019}", 7) + "\n2\n10\n1\n";
        let mut padded = text.into_bytes();
        padded.resize(BLOCK, 0);
        assert_eq!(TextMap::new(4).block(&padded.try_into().unwrap()), Ok(Some(map(&[(0, 1), (7, 2), (10, 1)]))));
        assert_eq!(TextMap::new(4).block(&[b'1'; BLOCK]), Err(SparseFault::Number));
        assert_eq!(TextMap::new(4).block(&[b'\n'; BLOCK]), Err(SparseFault::Number));
    }
}
