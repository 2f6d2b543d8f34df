//! Which namespaces are new, which are joined, which stay the host's.

use std::os::fd::{AsRawFd, OwnedFd};

use crate::plan::{FIRST_OPENED, Slot};
use crate::spec::{Linux, NamespaceKind};
use crate::sys;

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
        let namespaces = Self::read(linux, |kind, file, path| {
            let namespace = open_namespace(kind, file, path)?;
            if is_ours(kind, &namespace) {
                return Ok(Origin::Host);
            }
            let label = format!("the {} namespace {file}", name(kind));
            Ok(Origin::Joined(opened.add(namespace, label)))
        })?;
        namespaces.check()?;
        Ok(namespaces)
    }

    /// Whether the list makes sense, whatever may be joined.
    pub fn check_list(linux: &Linux<'_>) -> Result<()> {
        Self::read(linux, |_, _, _| Ok(Origin::Joined(FIRST_OPENED)))?.check()
    }

    /// `None` if one is joined, or something is wrong with the list.
    pub fn all_new(linux: &Linux<'_>) -> Option<Self> {
        Self::read(linux, |_, _, path| Err(Error::spec(path, "joined"))).ok()
    }

    /// For one more process: whatever is not the host's is by now the container's, in which `first` is, and is joined
    /// through it.
    pub fn of_container(linux: &Linux<'_>, first: Slot) -> Result<Self> {
        Self::read(linux, |kind, file, path| match open_namespace(kind, file, path) {
            Ok(namespace) if is_ours(kind, &namespace) => Ok(Origin::Host),
            // Its file may be gone.
            _ => Ok(Origin::Joined(first)),
        })
    }

    fn read(linux: &Linux<'_>, mut join: impl FnMut(NamespaceKind, &str, &str) -> Result<Origin>) -> Result<Self> {
        let mut namespaces = Self([Origin::Host; KINDS.len()]);
        for (index, namespace) in linux.namespaces.iter().enumerate() {
            let path = || format!("linux.namespaces[{index}]");
            if linux.namespaces[..index].iter().any(|earlier| earlier.kind == namespace.kind) {
                return Err(Error::spec(path(), format!("a second {} namespace", name(namespace.kind))));
            }
            namespaces.0[namespace.kind as usize] = match namespace.path.as_deref().filter(|path| !path.is_empty()) {
                None => Origin::New,
                Some(file) => join(namespace.kind, file, &(path() + ".path"))?,
            };
        }
        Ok(namespaces)
    }

    fn check(&self) -> Result<()> {
        match (self.of(NamespaceKind::Mount), self.of(NamespaceKind::User)) {
            (Origin::Host, Origin::New | Origin::Joined(_)) => {
                Err(Error::spec("linux.namespaces", "a user namespace has no rights in the host's mount namespace")
                    .hint("give the container a mount namespace of its own, or leave the user namespace out"))
            }
            (Origin::Joined(_), Origin::New) => {
                Err(Error::spec("linux.namespaces", "a new user namespace has no rights in a joined mount namespace")
                    .hint("join the user namespace that it belongs to, or leave the user namespace out"))
            }
            _ => Ok(()),
        }
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

    /// What is joined by descriptor, but for the pid namespace, which only children enter. The user namespace comes last:
    /// until then the host's rights are there, which suffice for all others.
    pub fn joined(&self) -> impl Iterator<Item = (NamespaceKind, Slot)> {
        let others = KINDS.into_iter().filter(|kind| !matches!(kind, NamespaceKind::Pid | NamespaceKind::User));
        others.chain([NamespaceKind::User]).filter_map(|kind| match self.of(kind) {
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

fn open_namespace(kind: NamespaceKind, file: &str, path: &str) -> Result<OwnedFd> {
    if !file.starts_with('/') {
        return Err(Error::spec(path, "not an absolute path"));
    }
    let namespace = open(file, libc::O_RDONLY | libc::O_NONBLOCK).map_err(|error| error.at(path, file))?;
    match sys::namespace_type(namespace.as_raw_fd()) {
        Ok(found) if found == flag(kind) => Ok(namespace),
        Ok(found) => {
            let other = KINDS.into_iter().find(|&kind| flag(kind) == found).map_or("unknown", name);
            Err(Error::spec(path, format!("{file} is a {other} namespace, not a {} namespace", name(kind))))
        }
        Err(_) => Err(Error::spec(path, format!("{file} is no namespace"))),
    }
}

/// Whether it is the one that this process is in: to join it is to stay.
fn is_ours(kind: NamespaceKind, namespace: &OwnedFd) -> bool {
    let ours = open(&format!("/proc/self/ns/{}", file_name(kind)), libc::O_PATH);
    ours.is_ok_and(|ours| identity(&ours).is_some_and(|identity_of_ours| identity(namespace) == Some(identity_of_ours)))
}

fn identity(namespace: &OwnedFd) -> Option<(u64, u64)> {
    rustix::fs::fstat(namespace).ok().map(|stat| (stat.st_dev, stat.st_ino))
}

/// Below /proc/PID/ns.
const fn file_name(kind: NamespaceKind) -> &'static str {
    match kind {
        NamespaceKind::Network => "net",
        NamespaceKind::Mount => "mnt",
        other => name(other),
    }
}
