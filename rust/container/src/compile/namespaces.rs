//! Which namespaces are new, which are joined, which stay the host's.

use std::os::fd::OwnedFd;

use crate::plan::Slot;
use crate::spec::{Linux, NamespaceKind};

use super::error::{Error, Result};
use super::opened::{Opened, open};

const KINDS: [NamespaceKind; 8] = [
    NamespaceKind::Pid,
    NamespaceKind::Network,
    NamespaceKind::Mount,
    NamespaceKind::Ipc,
    NamespaceKind::Uts,
    NamespaceKind::User,
    NamespaceKind::Cgroup,
    NamespaceKind::Time,
];

/// The CLONE_ flag of a kind.
pub(super) const fn flag(kind: NamespaceKind) -> u64 {
    let flag = match kind {
        NamespaceKind::Pid => libc::CLONE_NEWPID,
        NamespaceKind::Network => libc::CLONE_NEWNET,
        NamespaceKind::Mount => libc::CLONE_NEWNS,
        NamespaceKind::Ipc => libc::CLONE_NEWIPC,
        NamespaceKind::Uts => libc::CLONE_NEWUTS,
        NamespaceKind::User => libc::CLONE_NEWUSER,
        NamespaceKind::Cgroup => libc::CLONE_NEWCGROUP,
        NamespaceKind::Time => 0x80,
    };
    flag as u64
}

/// Where a namespace of the container comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The host's.
    Host,
    /// Made for the container.
    New,
    /// Somebody's, opened in this slot.
    Joined(Slot),
}

/// Where each namespace comes from.
#[derive(Debug)]
pub(super) struct Namespaces([Origin; KINDS.len()]);

impl Namespaces {
    /// Checks the list and opens what is joined.
    pub fn open(linux: &Linux<'_>, opened: &mut Opened) -> Result<Self> {
        let mut namespaces = Self([Origin::Host; KINDS.len()]);
        for (index, namespace) in linux.namespaces.iter().enumerate() {
            let path = || format!("linux.namespaces[{index}]");
            if namespaces.of(namespace.kind) != Origin::Host {
                return Err(Error::spec(path(), format!("a second {} namespace", name(namespace.kind))));
            }
            let origin = match namespace.path.as_deref().filter(|path| !path.is_empty()) {
                None => Origin::New,
                Some(file) => {
                    let path = path() + ".path";
                    refuse_joining(namespace.kind, &path)?;
                    let label = format!("the {} namespace {file}", name(namespace.kind));
                    Origin::Joined(opened.add(open_namespace(file, &path)?, label))
                }
            };
            namespaces.0[namespace.kind as usize] = origin;
        }
        namespaces.check()?;
        Ok(namespaces)
    }

    fn check(&self) -> Result<()> {
        if !self.is_new(NamespaceKind::Mount) {
            return Err(Error::spec("linux.namespaces", "a new mount namespace is missing")
                .hint("without one the container's mounts would be the host's"));
        }
        Ok(())
    }

    pub fn of(&self, kind: NamespaceKind) -> Origin {
        self.0[kind as usize]
    }

    pub fn is_new(&self, kind: NamespaceKind) -> bool {
        self.of(kind) == Origin::New
    }

    /// New or joined: in any case not the host's.
    pub fn is_own(&self, kind: NamespaceKind) -> bool {
        self.of(kind) != Origin::Host
    }

    pub fn is_new_user(&self) -> bool {
        self.is_new(NamespaceKind::User)
    }

    /// Flags for clone3(2). The cgroup namespace comes later: its root is where the process is when it is made.
    pub fn clone_flags(&self) -> u64 {
        let new = KINDS.into_iter().filter(|&kind| self.is_new(kind) && kind != NamespaceKind::Cgroup);
        new.fold(0, |flags, kind| flags | flag(kind))
    }

    /// Flags for setns(2) with a pidfd of the container. The pid namespace is entered by the parent.
    pub fn join_flags(&self) -> u64 {
        let own = KINDS.into_iter().filter(|&kind| self.is_own(kind) && kind != NamespaceKind::Pid);
        own.fold(0, |flags, kind| flags | flag(kind))
    }

    /// What the child joins by descriptor.
    pub fn joined(&self) -> impl Iterator<Item = (NamespaceKind, Slot)> {
        KINDS.into_iter().filter_map(|kind| match self.of(kind) {
            Origin::Joined(slot) => Some((kind, slot)),
            _ => None,
        })
    }
}

/// As sentences call it.
pub(super) const fn name(kind: NamespaceKind) -> &'static str {
    match kind {
        NamespaceKind::Pid => "pid",
        NamespaceKind::Network => "network",
        NamespaceKind::Mount => "mount",
        NamespaceKind::Ipc => "ipc",
        NamespaceKind::Uts => "uts",
        NamespaceKind::User => "user",
        NamespaceKind::Cgroup => "cgroup",
        NamespaceKind::Time => "time",
    }
}

fn refuse_joining(kind: NamespaceKind, path: &str) -> Result<()> {
    match kind {
        // The other namespaces have to belong to it, so whoever clones would have to be in it, without the host's rights.
        NamespaceKind::User => Err(Error::spec(path, "joining a user namespace is not supported")),
        NamespaceKind::Mount => Err(Error::spec(path, "joining a mount namespace is not supported")),
        _ => Ok(()),
    }
}

fn open_namespace(file: &str, path: &str) -> Result<OwnedFd> {
    if !file.starts_with('/') {
        return Err(Error::spec(path, "not an absolute path"));
    }
    open(file, libc::O_RDONLY | libc::O_NONBLOCK).map_err(|error| error.at(path, file))
}
