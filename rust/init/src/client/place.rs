//! Where the server's socket is. `python/pyrt/cli/place.py` is the twin of this.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::Failure;

/// The state folder whose server has the plain name.
const USUAL_ROOT: &str = "/var/lib/pyrt";

/// The runtime folder, and the name that the files of one server share in it.
pub struct Place {
    folder: PathBuf,
    name: String,
}

fn absolute(variable: &str) -> Result<Option<PathBuf>, Failure> {
    match std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from) {
        Some(path) if path.is_relative() => {
            Err(Failure::new(format!("{variable} is {}, which is no absolute path", path.display()))
                .hint("write it from / on"))
        }
        path => Ok(path),
    }
}

/// FNV-1a, 64 bits: a short name for a state folder, the same in both languages.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

fn server_name(root: Option<PathBuf>) -> String {
    match root {
        Some(root) if root != Path::new(USUAL_ROOT) => format!("pyrt-{:016x}", hash(root.as_os_str().as_bytes())),
        _ => "pyrt".to_owned(),
    }
}

fn folder() -> Result<PathBuf, Failure> {
    if let Some(folder) = absolute("PYRT_RUN")? {
        return Ok(folder);
    }
    if rustix::process::geteuid().is_root() {
        return Ok("/run/pyrt".into());
    }
    absolute("XDG_RUNTIME_DIR")?.map(|folder| folder.join("pyrt")).ok_or_else(|| {
        Failure::new("there is no folder for the server's socket").hint("set XDG_RUNTIME_DIR or PYRT_RUN")
    })
}

impl Place {
    /// By $PYRT_RUN, $PYRT_ROOT, $XDG_RUNTIME_DIR and the user.
    pub fn find() -> Result<Self, Failure> {
        Ok(Self { folder: folder()?, name: server_name(absolute("PYRT_ROOT")?) })
    }

    fn file(&self, extension: &str) -> PathBuf {
        self.folder.join(format!("{}.{extension}", self.name))
    }

    /// Where the server listens.
    pub fn socket(&self) -> PathBuf {
        self.file("sock")
    }

    /// Whoever starts a server holds this file locked until it answers.
    pub fn start_lock(&self) -> PathBuf {
        self.file("start")
    }

    /// Makes the folder, 0700, if it is not there.
    ///
    /// Nobody else may own it or have rights in it: who can replace the socket is given descriptors and environment.
    pub fn prepare(&self) -> Result<(), Failure> {
        let name = self.folder.display();
        let made = std::fs::DirBuilder::new().mode(0o700).create(&self.folder);
        if let Err(error) = made.or_else(|error| if self.folder.is_dir() { Ok(()) } else { Err(error) }) {
            return Err(Failure::new(format!("creating {name}: {error}")).hint("PYRT_RUN names another folder"));
        }
        let facts =
            std::fs::metadata(&self.folder).map_err(|error| Failure::new(format!("reading {name}: {error}")))?;
        if facts.uid() != rustix::process::geteuid().as_raw() || facts.mode() & 0o077 != 0 {
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
        assert_eq!(server_name(Some(USUAL_ROOT.into())), "pyrt");
        assert_eq!(server_name(Some("/srv/state".into())), "pyrt-b4609a885934df11");
    }
}
