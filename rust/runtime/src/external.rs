//! What of a container comes from outside and is no part of a checkpoint: binds, namespaces of others, standard input, output and
//! error. criu is told of each under a name, and at the restore what stands for it then.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use pyrt_container::host::read_file;
use pyrt_container::spec::{Mount, Namespace, NamespaceKind, Spec};
use pyrt_container::sys::{self, Errno, Side, resolve};

use crate::criu::Message;
use crate::error::{Error, Result};

/// runc's name for the file, and its form: a text for each of the three.
pub const DESCRIPTORS: &str = "descriptors.json";

/// `external`, `join_ns`, `inherit_fd` of `criu_opts`.
const EXTERNAL: u64 = 37;
const JOIN: u64 = 39;
const INHERIT: u64 = 27;

/// The mounts of a container that are binds.
pub fn binds<'s>(spec: &'s Spec<'s>) -> impl Iterator<Item = &'s Mount<'s>> {
    spec.mounts.iter().filter(|mount| {
        mount.kind.as_deref() == Some("bind") || mount.options.iter().any(|word| matches!(&**word, "bind" | "rbind"))
    })
}

/// Binds by their places in the running container, each under its destination.
pub fn name_binds(spec: &Spec<'_>, pid: i32, options: &mut Message) -> Result<()> {
    let mounts = read_file(&format!("/proc/{pid}/mountinfo")).unwrap_or_default();
    let root = File::open(format!("/proc/{pid}/root"));
    let root = root.map_err(|error| Error::file("opening", Path::new("the container's root"), &error))?;
    for mount in binds(spec) {
        // A link may lead there: what is mounted where it ends says its own place.
        let place = mount_at(&root, &mount.destination).and_then(|id| place_of(&mounts, &id));
        let place =
            place.ok_or_else(|| Error::new(format!("{}: nothing is mounted there any more", mount.destination)))?;
        options.text(EXTERNAL, &format!("mnt[{place}]:{}", mount.destination));
    }
    Ok(())
}

/// The number of the mount that a path in a root ends in.
fn mount_at(root: &File, path: &str) -> Option<String> {
    let path = std::ffi::CString::new(path).ok()?;
    let flags = libc::O_PATH;
    let fd = sys::openat2(root.as_raw_fd(), &path, flags, 0, resolve::IN_ROOT | resolve::NO_MAGICLINKS).ok()?;
    let info = read_file(&format!("/proc/self/fdinfo/{fd}"));
    sys::close(fd);
    mount_of(&info.ok()?)
}

fn mount_of(info: &str) -> Option<String> {
    info.lines().find_map(|line| line.strip_prefix("mnt_id:")).map(|number| number.trim().to_owned())
}

/// Its fifth field (proc_pid_mountinfo(5)).
fn place_of<'m>(mounts: &'m str, id: &str) -> Option<&'m str> {
    let line = mounts.lines().find(|line| line.split(' ').next() == Some(id))?;
    line.split(' ').nth(4)
}

/// What is bound where: by the name of its destination, from the bundle of the restore.
pub fn supply_binds(spec: &Spec<'_>, bundle: &Path, options: &mut Message) {
    for mount in binds(spec) {
        let source = bundle.join(mount.source.as_deref().unwrap_or_default());
        options.text(EXTERNAL, &format!("mnt[{}]:{}", mount.destination, source.display()));
    }
}

// ---- namespaces ----------------------------------------------------------------------------------

/// The net namespace of others.
const NET: &str = "extRootNetNS";

fn joined<'s>(spec: &'s Spec<'s>) -> impl Iterator<Item = (&'s Namespace<'s>, &'s str)> {
    spec.linux.namespaces.iter().filter_map(|namespace| {
        let path = namespace.path.as_deref().filter(|path| !path.is_empty())?;
        Some((namespace, path))
    })
}

fn inode(path: impl AsRef<Path>) -> Option<u64> {
    fs::metadata(path).map(|data| data.ino()).ok()
}

/// A net namespace that was there before the container is left as it is.
pub fn name_namespaces(spec: &Spec<'_>, pid: i32, options: &mut Message) {
    let is_joined = joined(spec).any(|(namespace, _)| namespace.kind == NamespaceKind::Network);
    if let Some(inode) = inode(format!("/proc/{pid}/ns/net")).filter(|_| is_joined) {
        options.text(EXTERNAL, &format!("net[{inode}]:{NET}"));
    }
}

/// The namespaces that are joined, opened as criu has to have them; those of the host's own are nobody's.
pub fn supply_namespaces(spec: &Spec<'_>, handed: &mut Handed, options: &mut Message) -> Result<()> {
    for (namespace, path) in joined(spec) {
        let (name, own) = match namespace.kind {
            NamespaceKind::Network => ("net", "/proc/self/ns/net"),
            NamespaceKind::Ipc => ("ipc", "/proc/self/ns/ipc"),
            NamespaceKind::Uts => ("uts", "/proc/self/ns/uts"),
            _ => continue,
        };
        if inode(path) == inode(own) {
            continue;
        }
        if namespace.kind == NamespaceKind::Network {
            let file = File::open(path).map_err(|error| Error::file("opening", Path::new(path), &error))?;
            handed.give(NET, file.as_raw_fd(), options);
            handed.files.push(file);
        } else {
            let mut join = Message::default();
            join.text(1, name).text(2, path);
            options.message(JOIN, &join);
        }
    }
    Ok(())
}

// ---- descriptors ---------------------------------------------------------------------------------

/// Names the standard descriptors as criu does: a pipe by its number, and a file of the host, which no mount of the container
/// leads to, by its mount and number.
pub fn name_descriptors(pid: i32, options: &mut Message) -> Vec<String> {
    let names: Vec<String> = (0..3).map(|fd| name_descriptor(pid, fd)).collect();
    for (index, name) in names.iter().enumerate() {
        if name.starts_with("file[") && !names[..index].contains(name) {
            options.text(EXTERNAL, name);
        }
    }
    names
}

fn name_descriptor(pid: i32, fd: RawFd) -> String {
    let path = PathBuf::from(format!("/proc/{pid}/fd/{fd}"));
    let link = fs::read_link(&path).unwrap_or_default().to_string_lossy().into_owned();
    let outside = || {
        let mount = mount_of(&read_file(&format!("/proc/{pid}/fdinfo/{fd}")).ok()?)?;
        let mounts = read_file(&format!("/proc/{pid}/mountinfo")).ok()?;
        if !link.starts_with('/') || place_of(&mounts, &mount).is_some() {
            return None;
        }
        Some(format!("file[{:x}:{:x}]", mount.parse::<u64>().ok()?, inode(&path)?))
    };
    outside().unwrap_or(link)
}

/// What criu is handed.
#[derive(Debug, Default)]
pub struct Handed {
    /// From [`crate::criu::FIRST_HANDED`] on.
    pub descriptors: Vec<RawFd>,
    files: Vec<File>,
    names: Vec<String>,
}

impl Handed {
    /// Our own standard descriptors take the places of those that the container has had.
    pub fn give_standard(&mut self, names: &[String], options: &mut Message) {
        for (fd, name) in (0..3).zip(names) {
            if name.starts_with("pipe:") || name.starts_with("file[") {
                self.give(name, fd, options);
            }
        }
    }

    /// One name stands for one descriptor.
    fn give(&mut self, name: &str, fd: RawFd, options: &mut Message) {
        if self.names.iter().any(|known| known == name) {
            return;
        }
        let number = crate::criu::FIRST_HANDED + self.descriptors.len() as RawFd;
        let mut inherit = Message::default();
        inherit.text(1, name).number(2, number as u64);
        options.message(INHERIT, &inherit);
        self.names.push(name.to_owned());
        self.descriptors.push(fd);
    }
}

// ---- places --------------------------------------------------------------------------------------

/// Makes the places of what is mounted straight on the root file system. That of a restore may be another than the one
/// in which they were made.
pub fn make_places(spec: &Spec<'_>, bundle: &Path, rootfs: &Path) -> Result<()> {
    let is_below = |mount: &Mount<'_>, other: &Mount<'_>| {
        *mount.destination != *other.destination && Path::new(&*mount.destination).starts_with(&*other.destination)
    };
    let on_root = spec.mounts.iter().filter(|mount| !spec.mounts.iter().any(|other| is_below(mount, other)));
    let is_file = |mount: &Mount<'_>| mount.source.as_deref().is_some_and(|source| bundle.join(source).is_file());
    let places: Vec<(&Path, bool)> = on_root
        .map(|mount| {
            (Path::new(&*mount.destination), binds(spec).any(|bind| std::ptr::eq(bind, mount)) && is_file(mount))
        })
        .collect();
    let failed = |errno| Error::call(&format!("making mount points in {}", rootfs.display()), errno);
    let root = File::open(rootfs).map_err(|error| Error::file("opening", rootfs, &error))?;
    match sys::clone(0, None).map_err(failed)? {
        // With the root for /: a link in it leads nowhere else.
        Side::Child => {
            let entered = sys::fchdir(root.as_raw_fd()).and_then(|()| sys::chroot_here());
            let made =
                entered.and_then(|()| places.iter().try_for_each(|(place, is_file)| make_place(place, *is_file)));
            sys::exit(made.map_or_else(|Errno(number)| number, |()| 0))
        }
        Side::Parent { pid, pidfd } => {
            sys::close(pidfd);
            match sys::wait(pid, true).map_err(failed)?.and_then(|ended| ended.code) {
                Some(0) => Ok(()),
                Some(number) => Err(failed(Errno(number))),
                None => Err(failed(Errno(libc::EINTR))),
            }
        }
    }
}

fn make_place(place: &Path, is_file: bool) -> sys::Result<()> {
    if place.exists() {
        return Ok(());
    }
    let folder = if is_file { place.parent().unwrap_or(place) } else { place };
    let made = fs::create_dir_all(folder).and_then(|()| if is_file { File::create(place).map(drop) } else { Ok(()) });
    made.map_err(|error| Errno(error.raw_os_error().unwrap_or(libc::EIO)))
}
