//! Extended headers of POSIX.1-2001: records of `length key=value\n`.

use super::entry::{Time, Xattr};
use super::sparse::Claims;
use crate::error::{Reason, SparseFault};

const XATTR: &[u8] = b"SCHILY.xattr.";
const SPARSE: &[u8] = b"GNU.sparse.";

/// What extended headers say about an entry. What pyrt has no use for (user names, comments, access times) is read
/// over, as POSIX asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<i64>,
    pub(super) gid: Option<i64>,
    pub(super) mtime: Option<Time>,
    /// In order; of two with one name the last holds.
    pub(super) xattrs: Vec<Xattr>,
    pub(super) sparse: Claims,
}

impl Records {
    /// Reads a header that holds for one entry.
    pub(super) fn local(bytes: &[u8], sparse_limit: usize) -> Result<Self, Reason> {
        let mut records = Self::default();
        for record in Iter(bytes) {
            let (key, value) = record?;
            records.set(key, value, sparse_limit)?;
        }
        Ok(records)
    }

    /// Adds a header that holds for all entries after it. What is by nature of one entry must not be in it.
    pub(super) fn global(&mut self, bytes: &[u8]) -> Result<(), Reason> {
        for record in Iter(bytes) {
            let (key, value) = record?;
            match key {
                b"path" => return Err(Reason::RecordGlobal { key: "path" }),
                b"linkpath" => return Err(Reason::RecordGlobal { key: "linkpath" }),
                b"size" => return Err(Reason::RecordGlobal { key: "size" }),
                b"uid" | b"gid" | b"mtime" => self.set(key, value, 0)?,
                _ if key.starts_with(SPARSE) => return Err(Reason::RecordGlobal { key: "GNU.sparse" }),
                _ if key.starts_with(XATTR) => return Err(Reason::RecordGlobal { key: "SCHILY.xattr" }),
                _ => {}
            }
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8], sparse_limit: usize) -> Result<(), Reason> {
        match key {
            b"path" => once(&mut self.path, "path", value.to_vec()),
            b"linkpath" => once(&mut self.link, "linkpath", value.to_vec()),
            b"size" => once(&mut self.size, "size", decimal(value).ok_or(Reason::Number { field: "size" })?),
            b"uid" => Self::number(&mut self.uid, "uid", value),
            b"gid" => Self::number(&mut self.gid, "gid", value),
            b"mtime" => {
                self.mtime = Some(time(value).ok_or(Reason::Number { field: "mtime" })?);
                Ok(())
            }
            _ => self.set_prefixed(key, value, sparse_limit),
        }
    }

    fn set_prefixed(&mut self, key: &[u8], value: &[u8], sparse_limit: usize) -> Result<(), Reason> {
        if let Some(name) = key.strip_prefix(XATTR) {
            self.xattrs.push(Xattr { name: name.to_vec(), value: value.to_vec() });
        } else if let Some(key) = key.strip_prefix(SPARSE) {
            if sparse_limit == 0 {
                return Err(SparseFault::NoFile.into());
            }
            self.sparse.set(key, value, sparse_limit)?;
        }
        Ok(())
    }

    fn number(place: &mut Option<i64>, field: &'static str, value: &[u8]) -> Result<(), Reason> {
        let number = decimal(value).and_then(|number| i64::try_from(number).ok());
        *place = Some(number.ok_or(Reason::Number { field })?);
        Ok(())
    }
}

/// Sets what may be said twice only if it is the same.
fn once<T: PartialEq>(place: &mut Option<T>, key: &'static str, value: T) -> Result<(), Reason> {
    match place {
        Some(before) if *before != value => Err(Reason::RecordRepeated { key }),
        _ => {
            *place = Some(value);
            Ok(())
        }
    }
}

/// Decimal digits and nothing else.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Seconds with a sign and a fraction of any length; what is finer than a nanosecond is cut off downwards.
fn time(text: &[u8]) -> Option<Time> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut parts = text.splitn(2, |&byte| byte == b'.');
    let seconds = i64::try_from(decimal(parts.next()?)?).ok()?;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = fraction.iter().chain(std::iter::repeat(&b'0')).take(9);
    let nanoseconds = digits.fold(0, |value, byte| value * 10 + u32::from(byte - b'0'));
    Some(match (negative, nanoseconds) {
        (false, _) => Time { seconds, nanoseconds },
        (true, 0) => Time { seconds: -seconds, nanoseconds },
        (true, _) => Time { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

/// Walks over the records of a header.
struct Iter<'bytes>(&'bytes [u8]);

impl<'bytes> Iterator for Iter<'bytes> {
    type Item = Result<(&'bytes [u8], &'bytes [u8]), Reason>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let record = self.split().ok_or(Reason::Record);
        if record.is_err() {
            self.0 = b"";
        }
        Some(record)
    }
}

impl<'bytes> Iter<'bytes> {
    fn split(&mut self) -> Option<(&'bytes [u8], &'bytes [u8])> {
        // No length has more digits than this.
        let space = self.0.iter().take(20).position(|&byte| byte == b' ')?;
        let length = usize::try_from(decimal(&self.0[..space])?).ok()?;
        let record = self.0.get(space + 1..length)?.strip_suffix(b"\n")?;
        self.0 = &self.0[length..];
        let equals = record.iter().position(|&byte| byte == b'=')?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        if key.is_empty() { None } else { Some((key, value)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(bytes: &[u8]) -> Result<Records, Reason> {
        Records::local(bytes, 10)
    }

    #[test]
    fn records_are_read_by_their_length() {
        let records = local(b"12 path=a/b\n16 linkpath=a\nb\n11 size=10\n").unwrap();
        assert_eq!(records.path.as_deref(), Some(&b"a/b"[..]));
        assert_eq!(records.link.as_deref(), Some(&b"a\nb"[..]));
        assert_eq!(records.size, Some(10));
    }

    #[test]
    fn broken_records_are_refused() {
        for bytes in [
            &b"12 path=a/b"[..],
            b"13 path=a/b\n",
            b"11 path=a/b\n",
            b"012 path=a/b",
            b"0 \n",
            b"3 \n",
            b"path=a\n",
            b" path=a\n",
            b"-1 path=a\n",
            b"+9 path=a\n",
            b"9 patha\n\n",
            b"5 =a\n",
            b"99999999999999999999999 path=a\n",
            b"18446744073709551615 path=a\n",
        ] {
            assert_eq!(local(bytes), Err(Reason::Record), "{:?}", bytes.escape_ascii().to_string());
        }
    }

    #[test]
    fn one_entry_has_one_size() {
        assert_eq!(local(b"10 size=1\n10 size=1\n").unwrap().size, Some(1));
        assert_eq!(local(b"10 size=1\n10 size=2\n"), Err(Reason::RecordRepeated { key: "size" }));
        assert_eq!(local(b"11 size=-1\n"), Err(Reason::Number { field: "size" }));
    }

    #[test]
    fn times_have_signs_and_fractions() {
        let at = |seconds, nanoseconds| Some(Time { seconds, nanoseconds });
        assert_eq!(time(b"12"), at(12, 0));
        assert_eq!(time(b"12.5"), at(12, 500_000_000));
        assert_eq!(time(b"12.123456789123"), at(12, 123_456_789));
        assert_eq!(time(b"-1.25"), at(-2, 750_000_000));
        assert_eq!(time(b"-3"), at(-3, 0));
        for wrong in [&b""[..], b".5", b"1.-5", b"1e3", b"--1", b"99999999999999999999"] {
            assert_eq!(time(wrong), None);
        }
    }
}
