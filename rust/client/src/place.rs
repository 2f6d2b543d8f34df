//! Where the server's socket is. `python/pyrt/cli/place.py` is the twin of this.

use alloc::borrow::ToOwned;
use alloc::ffi::CString;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::failure::{Failure, shown};
use crate::given::Given;
use crate::sys;

/// The state folder whose server has the plain name.
const USUAL_ROOT: &[u8] = b"/var/lib/pyrt";

/// The runtime folder, and the name that the files of one server share in it.
pub struct Place {
    folder: Vec<u8>,
    name: String,
}

fn absolute<'a>(given: Given<'a>, variable: &str) -> Result<Option<&'a [u8]>, Failure> {
    match given.variable(variable) {
        Some(path) if !path.starts_with(b"/") => {
            Err(Failure::new(format!("{variable} is {}, which is no absolute path", shown(path)))
                .hint("write it from / on"))
        }
        path => Ok(path),
    }
}

/// FNV-1a, 64 bits: a short name for a state folder, the same in both languages.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

fn server_name(root: Option<&[u8]>) -> String {
    match root {
        Some(root) if root != USUAL_ROOT => format!("pyrt-{:016x}", hash(root)),
        _ => "pyrt".to_owned(),
    }
}

fn folder(given: Given<'_>) -> Result<Vec<u8>, Failure> {
    if let Some(folder) = absolute(given, "PYRT_RUN")? {
        return Ok(folder.to_owned());
    }
    if sys::user() == 0 {
        return Ok(b"/run/pyrt".to_vec());
    }
    absolute(given, "XDG_RUNTIME_DIR")?.map(|folder| join(folder, b"pyrt")).ok_or_else(|| {
        Failure::new("there is no folder for the server's socket").hint("set XDG_RUNTIME_DIR or PYRT_RUN")
    })
}

/// The path of a file in a folder.
pub fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    let slash: &[u8] = if folder.is_empty() || folder.ends_with(b"/") { b"" } else { b"/" };
    [folder, slash, name].concat()
}

/// For the kernel. What comes from arguments and environment has no NUL inside.
pub fn terminated(path: &[u8]) -> CString {
    CString::new(path).unwrap_or_default()
}

impl Place {
    /// By $PYRT_RUN, $PYRT_ROOT, $XDG_RUNTIME_DIR and the user.
    pub fn find(given: Given<'_>) -> Result<Self, Failure> {
        Ok(Self { folder: folder(given)?, name: server_name(absolute(given, "PYRT_ROOT")?) })
    }

    fn file(&self, extension: &str) -> Vec<u8> {
        join(&self.folder, format!("{}.{extension}", self.name).as_bytes())
    }

    /// Where the server listens.
    pub fn socket(&self) -> Vec<u8> {
        self.file("sock")
    }

    /// Whoever starts a server holds this file locked until it answers.
    pub fn start_lock(&self) -> Vec<u8> {
        self.file("start")
    }

    /// Makes the folder, 0700, if it is not there.
    ///
    /// Nobody else may own it or have rights in it: who can replace the socket is given descriptors and environment.
    pub fn prepare(&self) -> Result<(), Failure> {
        let (name, path) = (shown(&self.folder), terminated(&self.folder));
        let made = sys::make_folder(&path, 0o700);
        let facts = sys::stat(&path);
        let is_folder = facts.is_ok_and(|facts| facts.st_mode & libc::S_IFMT == libc::S_IFDIR);
        if let Err(error) = made.or(if is_folder { Ok(()) } else { made }) {
            return Err(Failure::of(&format!("creating {name}"), error).hint("PYRT_RUN names another folder"));
        }
        let facts = facts.map_err(|error| Failure::of(&format!("reading {name}"), error))?;
        if facts.st_uid != sys::user() || facts.st_mode & 0o077 != 0 {
            return Err(Failure::new(format!("{name} is open to others")).hint(format!("chmod 700 {name}, and own it")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_folder_of_its_own_has_a_server_of_its_own() {
        assert_eq!(server_name(None), "pyrt");
        assert_eq!(server_name(Some(USUAL_ROOT)), "pyrt");
        assert_eq!(server_name(Some(b"/srv/state")), "pyrt-b4609a885934df11");
    }
}
