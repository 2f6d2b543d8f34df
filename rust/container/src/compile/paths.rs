//! Paths inside the container, as text. Symlinks are the executor's concern: it resolves within the root.

use std::ffi::CString;

use super::error::{Error, Result};

/// Checks a path and takes out what means nothing (`//`, `/./`, a slash at the end). `..` is refused.
pub(super) fn inside(path: &str, field: &str) -> Result<String> {
    if !path.starts_with('/') {
        return Err(Error::spec(field, format!("{path:?} is not an absolute path")));
    }
    if path.len() >= libc::PATH_MAX as usize {
        return Err(Error::spec(field, "longer than any path can be"));
    }
    let mut plain = String::with_capacity(path.len());
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part == ".." {
            return Err(Error::spec(field, format!("{path:?} contains ..")));
        }
        plain.push('/');
        plain.push_str(part);
    }
    Ok(plain)
}

/// As [`inside`], for the kernel; the root itself is refused.
pub(super) fn place(path: &str, field: &str) -> Result<String> {
    match inside(path, field)? {
        plain if plain.is_empty() => Err(Error::spec(field, "the root itself")),
        plain => Ok(plain),
    }
}

/// Text that is known to have no NUL, for the kernel.
pub(super) fn c(text: &str) -> CString {
    CString::new(text).unwrap_or_default()
}

/// Whether `path` is `parent` or lies below it.
pub(super) fn is_within(path: &str, parent: &str) -> bool {
    path.strip_prefix(parent).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Places that every container has prepared for it. A symlink on the way to one is an attack (CVE-2026-41579).
pub(super) fn is_prepared(path: &str) -> bool {
    ["/dev", "/proc", "/sys"].iter().any(|parent| is_within(path, parent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_made_plain() {
        assert_eq!(inside("//a/./b//", "f").unwrap(), "/a/b");
        assert_eq!(inside("/", "f").unwrap(), "");
        for path in ["", "a", "./a", "/a/../b", "/.."] {
            assert_eq!(inside(path, "f").unwrap_err().path, "f", "{path}");
        }
        assert!(place("/.", "f").is_err());
        assert!(inside(&"/a".repeat(3000), "f").is_err());
    }

    #[test]
    fn a_name_that_only_begins_alike_is_elsewhere() {
        assert!(is_within("/dev/pts", "/dev") && is_within("/dev", "/dev") && !is_within("/device", "/dev"));
    }
}
