//! Names in a layer: how a raw name becomes a path below the root, and what the names of whiteouts mean.

use crate::error::Reason;
use crate::options::Limits;

/// Longest single name that Linux file systems take.
const NAME_MAX: usize = 255;

/// First bytes of a whiteout's name (OCI image specification, layer.md, "Whiteouts").
const WHITEOUT: &[u8] = b".wh.";
/// First bytes of what AUFS kept for itself. Such entries are in old layers and mean nothing to others.
const RESERVED: &[u8] = b".wh..wh.";
/// Marks the directory that it lies in as opaque.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Path below the root of the layer: parts joined by single slashes, none of them `.` or `..`; the root is empty.
///
/// A leading slash counts for nothing, as in every other reader of layers.
pub(crate) fn normalise(raw: &[u8], limits: &Limits) -> Result<Vec<u8>, Reason> {
    if raw.contains(&0) {
        return Err(Reason::NulInName);
    }
    let mut path = Vec::with_capacity(raw.len());
    let mut parts = 0;
    for part in raw.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => continue,
            b".." => return Err(Reason::NameClimbs),
            _ if part.len() > NAME_MAX => return Err(Reason::NameTooLong),
            _ => parts += 1,
        }
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(part);
    }
    if path.len() > limits.path {
        return Err(Reason::PathTooLong { limit: limits.path });
    }
    if parts > limits.depth + 1 {
        return Err(Reason::TooDeep { limit: limits.depth });
    }
    Ok(path)
}

/// Parent and last part of a normalised path. The parent of a name in the root is the root, "".
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// Path of `name` in the directory `parent`.
pub(crate) fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() }
}

/// What is left of `path` below the directory `above`, if it lies there.
pub(crate) fn below<'path>(path: &'path [u8], above: &[u8]) -> Option<&'path [u8]> {
    if above.is_empty() {
        return Some(path);
    }
    match path.strip_prefix(above)? {
        b"" => Some(b""),
        rest => rest.strip_prefix(b"/"),
    }
}

/// What a name in a layer stands for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Meaning<'path> {
    /// Itself.
    Ordinary,
    /// "Nothing of this name is in the layers below."
    Whiteout(&'path [u8]),
    /// "Nothing that the layers below have in this directory is to be seen."
    Opaque,
    /// Nothing; AUFS's own.
    Reserved,
}

/// What the last part of a normalised path means.
pub(crate) fn meaning(path: &[u8]) -> Result<Meaning<'_>, Reason> {
    let (parent, name) = split(path);
    for part in parent.split(|&byte| byte == b'/') {
        if part.starts_with(RESERVED) {
            return Ok(Meaning::Reserved);
        }
        if part.starts_with(WHITEOUT) {
            return Err(Reason::BelowWhiteout);
        }
    }
    if name == OPAQUE {
        return Ok(Meaning::Opaque);
    }
    if name.starts_with(RESERVED) {
        return Ok(Meaning::Reserved);
    }
    match name.strip_prefix(WHITEOUT) {
        None => Ok(Meaning::Ordinary),
        Some(b"") => Err(Reason::WhiteoutUnnamed),
        Some(b"." | b"..") => Err(Reason::WhiteoutOfDirectory),
        Some(hidden) => Ok(Meaning::Whiteout(hidden)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(raw: &str) -> Result<String, Reason> {
        normalise(raw.as_bytes(), &Limits::default()).map(|path| String::from_utf8(path).unwrap())
    }

    #[test]
    fn names_are_read_below_the_root() {
        for (raw, path) in [("a/b", "a/b"), ("./a//b/", "a/b"), ("/a", "a"), ("./", ""), ("", ""), ("a/./b/.", "a/b")] {
            assert_eq!(normal(raw).as_deref(), Ok(path), "{raw}");
        }
    }

    #[test]
    fn names_that_climb_are_refused_even_when_they_come_back() {
        for raw in ["..", "../a", "a/..", "a/../b", "/..", "./.."] {
            assert_eq!(normal(raw), Err(Reason::NameClimbs), "{raw}");
        }
        assert_eq!(normal("a/..b/c..").as_deref(), Ok("a/..b/c.."));
    }

    #[test]
    fn names_are_bounded() {
        assert_eq!(normal(&"n".repeat(256)), Err(Reason::NameTooLong));
        assert_eq!(normal("a\0b"), Err(Reason::NulInName));
        assert!(normal(&"d/".repeat(4097)).is_ok());
        assert_eq!(normal(&"d/".repeat(4098)), Err(Reason::TooDeep { limit: 4096 }));
        assert!(matches!(normal(&format!("{}/", "d".repeat(200)).repeat(400)), Err(Reason::PathTooLong { .. })));
    }

    #[test]
    fn whiteouts_are_told_by_their_names() {
        assert_eq!(meaning(b"a/.wh.b"), Ok(Meaning::Whiteout(b"b")));
        assert_eq!(meaning(b".wh..wh..opq"), Ok(Meaning::Opaque));
        assert_eq!(meaning(b"a/.wh..wh.aufs"), Ok(Meaning::Reserved));
        assert_eq!(meaning(b".wh..wh.plnk/12.34"), Ok(Meaning::Reserved));
        assert_eq!(meaning(b".wh..b"), Ok(Meaning::Whiteout(b".b")));
        assert_eq!(meaning(b"a.wh.b"), Ok(Meaning::Ordinary));
        assert_eq!(meaning(b".wh."), Err(Reason::WhiteoutUnnamed));
        assert_eq!(meaning(b".wh.."), Err(Reason::WhiteoutOfDirectory));
        assert_eq!(meaning(b"a/.wh..."), Err(Reason::WhiteoutOfDirectory));
        assert_eq!(meaning(b".wh.a/b"), Err(Reason::BelowWhiteout));
    }

    #[test]
    fn below_stops_at_whole_parts() {
        assert_eq!(below(b"a/b", b"a"), Some(&b"b"[..]));
        assert_eq!(below(b"ab", b"a"), None);
        assert_eq!(below(b"a", b"a"), Some(&b""[..]));
        assert_eq!(below(b"a", b""), Some(&b"a"[..]));
    }
}
