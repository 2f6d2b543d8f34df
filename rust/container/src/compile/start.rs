//! What a start needs that the OCI specification has no place for.

use serde::Deserialize;

use crate::host::Host;
use crate::plan::Slot;
use crate::spec::{Text, nullable_list};

use super::error::{Error, Result, parse};
use super::opened::{Opened, open};

/// The start document.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start<'a> {
    /// The container's id; the engine's are 64 hexadecimal digits.
    #[serde(borrow)]
    pub id: Text<'a>,
    /// Made of layers; if absent the specification's `root.path` is the root file system.
    #[serde(borrow, default)]
    pub rootfs: Option<Rootfs<'a>>,
    /// Absolute directory that `root.path` is relative to.
    #[serde(borrow, default)]
    pub bundle: Option<Text<'a>>,
    /// PID 1 is ours: it reaps and forwards signals.
    #[serde(default)]
    pub init: bool,
    /// The container is created first and started later, and lives without a keeper.
    #[serde(borrow, default)]
    pub lifecycle: Option<Lifecycle<'a>>,
    /// Made before anybody has asked for it: all is done but the command, which waits for its standard descriptors.
    #[serde(default)]
    pub parked: bool,
}

/// What the OCI runtime command asks for beside the specification.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lifecycle<'a> {
    /// A fifo: a byte from it starts the command.
    #[serde(borrow, default)]
    pub release: Option<Text<'a>>,
    /// A fifo: takes what goes wrong after that.
    #[serde(borrow, default)]
    pub outcome: Option<Text<'a>>,
    /// That many descriptors from number 3 on are handed to the command.
    #[serde(default)]
    pub preserve: u32,
    /// The session keyring stays the caller's.
    #[serde(default)]
    pub no_new_keyring: bool,
    /// A file that nobody needs to read where the container is made: mounts of files lie over it until the old root goes.
    #[serde(borrow, default)]
    pub spare: Option<Text<'a>>,
    /// The root of a container that has no mount namespace of its own, for one more process.
    #[serde(borrow, default)]
    pub root: Option<Text<'a>>,
    /// One more process goes into these groups below the container's own: controller, or "" for all, and path.
    #[serde(borrow, default)]
    pub cgroups: Vec<(Text<'a>, Text<'a>)>,
    /// The root is changed by chroot(2).
    #[serde(default)]
    pub no_pivot: bool,
}

/// A root file system made of layers.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rootfs<'a> {
    /// Absolute directories, topmost first.
    #[serde(borrow)]
    pub lowers: Vec<Text<'a>>,
    /// What takes the changes; none: read-only.
    #[serde(borrow, default)]
    pub upper: Option<Upper<'a>>,
    /// Changes need not survive a crash of the machine.
    #[serde(default)]
    pub volatile: bool,
    /// Files of this container alone.
    #[serde(borrow, default, deserialize_with = "nullable_list")]
    pub files: Vec<File<'a>>,
}

/// What takes the changes.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Upper<'a> {
    /// Absolute directory that holds `upper` and `work`.
    #[serde(borrow)]
    Directory(Text<'a>),
    /// Memory.
    Tmpfs {
        /// Bytes; half the memory if absent.
        #[serde(default)]
        size: Option<u64>,
    },
}

/// A file that is bound over its path, owned by the container's root.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File<'a> {
    /// Where.
    #[serde(borrow)]
    pub path: Text<'a>,
    /// All of it.
    #[serde(borrow)]
    pub content: Text<'a>,
    /// Permissions.
    pub mode: u32,
}

/// As long as the name of a directory can be, for it is that of the cgroup.
const MAX_ID: usize = 255;

/// Most layers of one container: that many descriptors travel in one message beside all others.
pub(super) const MAX_LOWERS: usize = 200;

impl<'a> Start<'a> {
    /// Reads and checks the document.
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        let start: Self = parse(bytes, "start")?;
        start.check()?;
        Ok(start)
    }

    /// Whether the OCI runtime command was called in a user namespace, by an engine that needs no rights of the machine's.
    pub(super) fn is_of_plain_user(&self, host: &Host) -> bool {
        self.lifecycle.is_some() && host.nested
    }

    /// Whether the process waits for its start by another command.
    pub(super) fn waits(&self) -> bool {
        self.lifecycle.as_ref().is_some_and(|lifecycle| lifecycle.release.is_some())
    }

    /// What one more process has for /, if that does not come with the mount namespace.
    pub(super) fn open_root(&self, opened: &mut Opened) -> Result<Option<Slot>> {
        let Some(path) = self.lifecycle.as_ref().and_then(|lifecycle| lifecycle.root.as_ref()) else { return Ok(None) };
        let root = open(path, libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW);
        let root = root.map_err(|failure| failure.at("start.lifecycle.root", path))?;
        Ok(Some(opened.add(root, "the container's root")))
    }

    fn check(&self) -> Result<()> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-+.".contains(&byte);
        if self.id.len() > MAX_ID || self.id.bytes().all(|byte| byte == b'.') || !self.id.bytes().all(plain) {
            return Err(Error::spec("start.id", format!("1 to {MAX_ID} letters, digits, _, -, + and . are an id")));
        }
        if self.bundle.as_ref().is_some_and(|bundle| !bundle.starts_with('/')) {
            return Err(Error::spec("start.bundle", "not an absolute path"));
        }
        self.rootfs.as_ref().map_or(Ok(()), Rootfs::check)
    }
}

impl Rootfs<'_> {
    fn check(&self) -> Result<()> {
        if self.lowers.is_empty() {
            return Err(Error::spec("start.rootfs.lowers", "no layers"));
        }
        if self.lowers.len() > MAX_LOWERS {
            let message = format!("{} layers, at most {MAX_LOWERS} are possible", self.lowers.len());
            return Err(Error::spec("start.rootfs.lowers", message));
        }
        if let Some(index) = self.lowers.iter().position(|lower| !lower.starts_with('/')) {
            return Err(Error::spec(format!("start.rootfs.lowers[{index}]"), "not an absolute path"));
        }
        match &self.upper {
            Some(Upper::Directory(path)) if !path.starts_with('/') => {
                Err(Error::spec("start.rootfs.upper.directory", "not an absolute path"))
            }
            _ => Ok(()),
        }
    }
}
