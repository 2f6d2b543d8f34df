//! Making mounts and putting them where they belong.
//!
//! Until a mount is attached it is a descriptor that no path leads to. Places inside the container are
//! opened by openat2(2) with the container's root for /, and mounts go over descriptors, not names.

use std::ffi::{CStr, CString};

use crate::plan::{Slot, Slots as SlotList, Texts};
use crate::sys::{self, Errno, Fd, resolve};

use super::Slots;

/// Longest path inside the container, with its NUL.
const PATH: usize = libc::PATH_MAX as usize;

fn in_context(fstype: &CStr, attributes: u64, configure: impl FnOnce(Fd) -> sys::Result<()>) -> sys::Result<Fd> {
    let context = sys::fsopen(fstype)?;
    let mount = configure(context).and_then(|()| sys::fsconfig_create(context)).and_then(|()| {
        // The kernel refuses propagation and idmaps here, and takes just the MOUNT_ATTR_ bits.
        sys::fsmount(context, attributes)
    });
    sys::close(context);
    mount
}

/// A detached mount of `fstype`; an option is `key=value` or a bare flag.
pub(super) fn new_mount(fstype: &CStr, options: Texts<'_>, attributes: u64) -> sys::Result<Fd> {
    in_context(fstype, attributes, |context| {
        // What df(1) and mount(8) show in the first column, unless the plan has a name for it.
        if !options.iter().any(|option| option.to_bytes().starts_with(b"source=")) {
            sys::fsconfig_string(context, c"source", fstype)?;
        }
        options.iter().try_for_each(|option| set_option(context, option))
    })
}

fn set_option(context: Fd, option: &CStr) -> sys::Result<()> {
    const KEY: usize = 64;
    let bytes = option.to_bytes_with_nul();
    let Some(equals) = bytes.iter().position(|&byte| byte == b'=') else {
        return sys::fsconfig_flag(context, option);
    };
    let mut key = [0; KEY];
    key.get_mut(..equals).filter(|_| equals < KEY).ok_or(Errno(libc::EINVAL))?.copy_from_slice(&bytes[..equals]);
    let key = CStr::from_bytes_until_nul(&key).map_err(|_| Errno(libc::EINVAL))?;
    let value = CStr::from_bytes_until_nul(&bytes[equals + 1..]).map_err(|_| Errno(libc::EINVAL))?;
    sys::fsconfig_string(context, key, value)
}

/// `/proc/self/fd/N`, written without allocation.
struct DescriptorPath([u8; 32]);

impl DescriptorPath {
    fn of(fd: Fd) -> Self {
        const PREFIX: &[u8] = b"/proc/self/fd/";
        let mut path = [0; 32];
        path[..PREFIX.len()].copy_from_slice(PREFIX);
        let digits = fd.checked_ilog10().unwrap_or(0) as usize + 1;
        let mut rest = fd;
        for place in path[PREFIX.len()..PREFIX.len() + digits].iter_mut().rev() {
            *place = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        Self(path)
    }

    fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or(c"")
    }
}

/// What an overlay is made of: directories below descriptors. Only the keeper makes any, so this may allocate.
pub(super) struct Stack {
    /// Topmost first.
    lowers: Vec<CString>,
    /// What holds `upper` and `work`.
    changes: Option<CString>,
    volatile: bool,
}

impl Stack {
    pub fn of(
        slots: &Slots,
        (lowers, names): (SlotList<'_>, Texts<'_>),
        (upper, changes): (Option<Slot>, &CStr),
        volatile: bool,
    ) -> sys::Result<Self> {
        let lowers = lowers.iter().zip(names.iter()).map(|(slot, name)| Ok(path_below(slots.get(slot)?, name)));
        let changes = upper.map(|slot| Ok(path_below(slots.get(slot)?, changes))).transpose()?;
        Ok(Self { lowers: lowers.collect::<sys::Result<_>>()?, volatile: volatile && changes.is_some(), changes })
    }

    /// The keys and values of what takes the changes.
    fn writable(&self) -> impl Iterator<Item = (&'static CStr, CString)> {
        let parts = [(c"upperdir", c"upper"), (c"workdir", c"work")];
        self.changes.iter().flat_map(move |path| parts.map(|(key, name)| (key, joined(path, name))))
    }
}

fn path_below(fd: Fd, name: &CStr) -> CString {
    let folder = DescriptorPath::of(fd);
    if name.is_empty() { folder.as_c_str().to_owned() } else { joined(folder.as_c_str(), name) }
}

fn joined(folder: &CStr, name: &CStr) -> CString {
    let mut path = [folder.to_bytes(), b"/"].concat();
    path.extend_from_slice(name.to_bytes());
    CString::new(path).unwrap_or_default()
}

/// A detached overlay (Documentation/filesystems/overlayfs.rst; `lowerdir+` since Linux 6.7).
pub(super) fn new_overlay(stack: &Stack, attributes: u64) -> sys::Result<Fd> {
    in_context(c"overlay", attributes, |context| {
        sys::fsconfig_string(context, c"source", c"overlay")?;
        stack.lowers.iter().try_for_each(|lower| sys::fsconfig_string(context, c"lowerdir+", lower))?;
        stack.writable().try_for_each(|(key, path)| sys::fsconfig_string(context, key, &path))?;
        if stack.volatile { sys::fsconfig_flag(context, c"volatile") } else { Ok(()) }
    })
}

/// The same by mount(2), at the directory `at.1` of `at.0`. Its one text holds every layer, so they are opened: that
/// makes twenty bytes of each.
pub(super) fn mount_overlay(stack: &Stack, attributes: u64, at: (Fd, &CStr)) -> sys::Result<()> {
    let mut opened = Vec::new();
    let mounted = mount_of_opened(stack, &mut opened, attributes, at);
    opened.into_iter().for_each(sys::close);
    mounted
}

fn mount_of_opened(stack: &Stack, opened: &mut Vec<Fd>, attributes: u64, at: (Fd, &CStr)) -> sys::Result<()> {
    let mut open = |path: &CStr| {
        let fd = sys::openat(libc::AT_FDCWD, path, libc::O_PATH | libc::O_DIRECTORY, 0)?;
        opened.push(fd);
        Ok(format!("/proc/self/fd/{fd}"))
    };
    let layers: Vec<String> = stack.lowers.iter().map(|lower| open(lower)).collect::<sys::Result<_>>()?;
    let mut options = format!("lowerdir={}", layers.join(":"));
    for (key, path) in stack.writable() {
        options += &format!(",{}={}", key.to_string_lossy(), open(&path)?);
    }
    if stack.volatile {
        options += ",volatile";
    }
    let text = |text: String| CString::new(text).map_err(|_| Errno(libc::EINVAL));
    let target = text(format!("/proc/self/fd/{}/{}", at.0, at.1.to_string_lossy()))?;
    // The four bits that a plan uses here are the same numbers for mount(2) as for fsmount(2).
    sys::mount(c"overlay", &target, attributes, &text(options)?)
}

/// Opens a place of the host that is no link.
pub(super) fn open_outside(path: &CStr) -> sys::Result<Fd> {
    sys::openat(libc::AT_FDCWD, path, libc::O_PATH | libc::O_NOFOLLOW, 0)
}

/// Attaches `mount` at a directory of the host that is no link.
fn attach_outside(mount: Fd, path: &CStr) -> sys::Result<()> {
    let place = open_outside(path)?;
    let result = sys::move_mount(mount, place);
    sys::close(place);
    result
}

/// Attaches the root file system over /, makes it the root, and lets the old root go, with the mounts `along`: whoever
/// closes the last descriptor of a detached mount waits for an RCU grace period, and this is one for all.
pub(super) fn pivot_root(root: Fd, slots: &Slots, along: SlotList<'_>) -> sys::Result<()> {
    for slot in along.iter() {
        let mount = slots.get(slot)?;
        // A clone of a shared mount is shared: what lies over it next would lie over its original, the host's, as well.
        sys::set_mount_attributes(mount, 0, 0, libc::MS_PRIVATE, true)?;
        // Anywhere but over /, where umount2 would find it instead of the old root.
        attach_outside(mount, c"/proc")?;
    }
    attach_outside(root, c"/")?;
    sys::fchdir(root)?;
    // pivot_root(2), "pivot_root(".", ".")": the old root is then stacked at ".", where umount2 finds it.
    sys::pivot_root_here()?;
    sys::detach_here()?;
    sys::chdir(c"/")
}

/// Attaches `mount` at a place that goes with the old root, and clones it. Whoever closes a detached mount waits for an
/// RCU grace period; the old root's is one for all.
pub(super) fn renew(mount: Fd, place: Fd) -> sys::Result<Fd> {
    sys::move_mount(mount, place)?;
    let clone = sys::clone_tree(mount, c"", true)?;
    // What comes to lie over it next would lie over the clone as well, and over the host's, if they were shared.
    sys::set_mount_attributes(mount, 0, 0, libc::MS_PRIVATE, true)?;
    Ok(clone)
}

/// Attaches the root file system at `path` and makes it the root by chroot(2); returns the root that was left.
pub(super) fn enter_root(root: Fd, path: &CStr) -> sys::Result<Fd> {
    let host = sys::openat(libc::AT_FDCWD, c"/", libc::O_PATH | libc::O_DIRECTORY, 0)?;
    let place = sys::openat(host, path, libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW, 0)?;
    sys::move_mount(root, place)?;
    sys::close(place);
    sys::fchdir(root)?;
    sys::chroot_here()?;
    Ok(host)
}

/// Attaches the root file system over / and takes it for the root; what lies below stays, for those who have it.
pub(super) fn move_root(root: Fd) -> sys::Result<()> {
    attach_outside(root, c"/")?;
    sys::fchdir(root)?;
    sys::chroot_here()?;
    sys::chdir(c"/")
}

/// Opens `path` with `root` for /. `strict` refuses every symlink on the way.
pub(super) fn open_inside(root: Fd, path: &CStr, strict: bool) -> sys::Result<Fd> {
    let links = if strict { resolve::NO_SYMLINKS } else { 0 };
    sys::openat2(root, path, libc::O_PATH, 0, resolve::IN_ROOT | resolve::NO_MAGICLINKS | links)
}

/// Attaches `mount` at `path` below `root`, which is made if it is missing.
///
/// A link that leads nowhere, such as the one to systemd-resolved's file that many a root file system has at
/// /etc/resolv.conf, is covered by a file: nothing is made behind it, and the root may be read-only.
pub(super) fn attach(mount: Fd, root: Fd, path: &CStr, file: bool, strict: bool) -> sys::Result<()> {
    let place = match open_inside(root, path, strict) {
        Err(Errno(libc::ENOENT | libc::ELOOP)) => make_place(root, path, file, strict)?,
        other => other?,
    };
    let result = sys::move_mount(mount, place);
    sys::close(place);
    result
}

/// Makes each missing directory of `path`, and at its end a directory or an empty file, which it opens.
fn make_place(root: Fd, path: &CStr, file: bool, strict: bool) -> sys::Result<Fd> {
    let bytes = path.to_bytes();
    let mut prefix = [0u8; PATH];
    if bytes.len() >= PATH {
        return Err(Errno(libc::ENAMETOOLONG));
    }
    let mut parent = open_inside(root, c"/", strict)?;
    let mut from = 0;
    while from < bytes.len() {
        let length = bytes[from..].iter().position(|&byte| byte == b'/').unwrap_or(bytes.len() - from);
        let end = from + length;
        if length > 0 {
            prefix[..end].copy_from_slice(&bytes[..end]);
            let is_last = bytes[end..].iter().all(|&byte| byte == b'/');
            let next = make_one((root, parent), &bytes[from..end], &prefix, is_last && file, strict);
            sys::close(parent);
            parent = next?;
        }
        from = end + 1;
    }
    Ok(parent)
}

/// Makes a directory of the container, and those on the way to it.
pub(super) fn make_directory(path: &CStr) -> sys::Result<()> {
    make_place(libc::AT_FDCWD, path, false, false).map(sys::close)
}

/// Opens `prefix` below `root`, making its last `component` below `parent` if it is missing.
fn make_one(
    (root, parent): (Fd, Fd),
    component: &[u8],
    prefix: &[u8; PATH],
    file: bool,
    strict: bool,
) -> sys::Result<Fd> {
    let prefix = CStr::from_bytes_until_nul(prefix).map_err(|_| Errno(libc::ENAMETOOLONG))?;
    let errno = match open_inside(root, prefix, strict) {
        // Only where it leads can be missing: a link at the end of a file's path is covered itself.
        Err(errno @ Errno(libc::ENOENT | libc::ELOOP)) => errno,
        other => return other,
    };
    let mut name = [0u8; 256];
    name.get_mut(..component.len()).ok_or(Errno(libc::ENAMETOOLONG))?.copy_from_slice(component);
    let name = CStr::from_bytes_until_nul(&name).map_err(|_| Errno(libc::ENAMETOOLONG))?;
    if file && !strict && is_link(parent, name) {
        return sys::openat(parent, name, libc::O_PATH | libc::O_NOFOLLOW, 0);
    }
    if errno.0 != libc::ENOENT {
        return Err(errno);
    }
    if file {
        let flags = libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_WRONLY;
        sys::close(sys::openat(parent, name, flags, 0o644)?);
    } else {
        sys::mkdirat(parent, name, 0o755)?;
    }
    open_inside(root, prefix, strict)
}

fn is_link(parent: Fd, name: &CStr) -> bool {
    sys::stat_at(parent, name).is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFLNK)
}

/// Whether a place of the container is absent, which hides it well enough.
fn is_absent(errno: Errno) -> bool {
    matches!(errno.0, libc::ENOENT | libc::ENOTDIR | libc::ELOOP)
}

/// Hides `path` below `root` under `empty` if it is a directory, under the null device of `dev` otherwise. `empty` itself hides the
/// first directory; the flag says whether it does.
pub(super) fn mask(root: Fd, path: &CStr, empty: (Fd, &mut bool), dev: Fd) -> sys::Result<()> {
    let place = match open_inside(root, path, false) {
        Err(errno) if is_absent(errno) => return Ok(()),
        other => other?,
    };
    let result = cover(place, empty, dev);
    sys::close(place);
    result
}

fn cover(place: Fd, (empty, hides): (Fd, &mut bool), dev: Fd) -> sys::Result<()> {
    let is_directory = sys::stat_at(place, c"")?.st_mode & libc::S_IFMT == libc::S_IFDIR;
    if is_directory && !*hides {
        *hides = true;
        return sys::move_mount(empty, place);
    }
    let cover = if is_directory { sys::clone_tree(empty, c"", false) } else { clone_null(dev) }?;
    let result = sys::move_mount(cover, place);
    sys::close(cover);
    result
}

/// A fake null would hand out what it is to hide (CVE-2025-31133).
fn clone_null(dev: Fd) -> sys::Result<Fd> {
    let clone = sys::clone_tree(dev, c"null", false)?;
    let genuine = sys::stat_at(clone, c"")
        .is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFCHR && stat.st_rdev == libc::makedev(1, 3));
    if genuine {
        return Ok(clone);
    }
    sys::close(clone);
    Err(Errno(libc::ENODEV))
}

/// Attaches `mount` over /. Paths still begin below it: a process's root is a place, not a name.
pub(super) fn park(mount: Fd) -> sys::Result<()> {
    // A clone of a shared mount is shared: what is parked over it next would lie over its original as well.
    sys::set_mount_attributes(mount, 0, 0, libc::MS_PRIVATE, true)?;
    attach_outside(mount, c"/")
}

/// Makes `path` below `root` and what is mounted below it read-only, by a clone of itself.
pub(super) fn make_readonly(root: Fd, path: &CStr) -> sys::Result<()> {
    let place = match open_inside(root, path, false) {
        Err(errno) if is_absent(errno) => return Ok(()),
        other => other?,
    };
    let clone = sys::clone_tree(place, c"", true)?;
    let result = sys::set_mount_attributes(clone, sys::MOUNT_ATTR_RDONLY, 0, 0, true)
        .and_then(|()| sys::move_mount(clone, place));
    sys::close(clone);
    sys::close(place);
    result
}

/// Changes bits of what is mounted at a place inside the container, the topmost if there are several.
pub(super) fn remount(path: &CStr, set: u64, clear: u64, propagation: u64, recursive: bool) -> sys::Result<()> {
    let place = open_inside(libc::AT_FDCWD, path, false)?;
    let result = sys::set_mount_attributes(place, set, clear, propagation, recursive);
    sys::close(place);
    result
}

/// A detached clone of a place inside the container.
pub(super) fn clone_inside(path: &CStr, recursive: bool) -> sys::Result<Fd> {
    let place = open_inside(libc::AT_FDCWD, path, false)?;
    let clone = sys::clone_tree(place, c"", recursive);
    sys::close(place);
    clone
}

/// Copies the directory `path` of the container into the root of the detached tmpfs `mount`.
pub(super) fn copy_up(mount: Fd, path: &CStr) -> sys::Result<()> {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY;
    let source = match sys::openat2(libc::AT_FDCWD, path, flags, 0, resolve::IN_ROOT | resolve::NO_MAGICLINKS) {
        Err(errno) if is_absent(errno) => return Ok(()),
        other => other?,
    };
    let target = sys::openat(mount, c".", flags, 0)?;
    let result = copy_directory(source, target, COPY_DEPTH);
    sys::close(source);
    sys::close(target);
    result
}

/// Deepest directory that is copied: each level takes a frame of the child's stack.
const COPY_DEPTH: u32 = 64;

fn copy_directory(source: Fd, target: Fd, depth: u32) -> sys::Result<()> {
    // A record: inode u64, offset i64, length u16, type u8, name (getdents64(2)).
    const NAME: usize = 19;
    if depth == 0 {
        return Err(Errno(libc::ELOOP));
    }
    let stat = sys::stat_at(source, c"")?;
    sys::chown_at(target, c"", stat.st_uid, stat.st_gid)?;
    sys::fchmod(target, stat.st_mode & 0o7777)?;
    let mut records = [0u8; 4096];
    loop {
        let filled = sys::getdents(source, &mut records)?;
        if filled == 0 {
            return Ok(());
        }
        let mut at = 0;
        while at < filled {
            let length = usize::from(u16::from_ne_bytes([records[at + 16], records[at + 17]]));
            let name = CStr::from_bytes_until_nul(&records[at + NAME..at + length]).map_err(|_| Errno(libc::EIO))?;
            if name != c"." && name != c".." {
                copy_entry(source, target, name, depth)?;
            }
            at += length;
        }
    }
}

fn copy_entry(source: Fd, target: Fd, name: &CStr, depth: u32) -> sys::Result<()> {
    let stat = sys::stat_at(source, name)?;
    let mode = stat.st_mode & 0o7777;
    match stat.st_mode & libc::S_IFMT {
        libc::S_IFDIR => {
            sys::mkdirat(target, name, 0o700)?;
            let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
            let (from, to) = (sys::openat(source, name, flags, 0)?, sys::openat(target, name, flags, 0)?);
            let result = copy_directory(from, to, depth - 1);
            sys::close(from);
            sys::close(to);
            return result;
        }
        libc::S_IFREG => copy_file(source, target, name)?,
        libc::S_IFLNK => {
            let mut text = [0u8; PATH];
            let length = sys::readlinkat(source, name, &mut text[..PATH - 1])?;
            text[length] = 0;
            let text = CStr::from_bytes_until_nul(&text).map_err(|_| Errno(libc::EIO))?;
            sys::symlinkat(text, target, name)?;
            return sys::chown_at(target, name, stat.st_uid, stat.st_gid);
        }
        // Fifos and sockets are made anew; devices can't be made inside and would be nodev.
        kind @ (libc::S_IFIFO | libc::S_IFSOCK) => sys::mknodat(target, name, kind | mode, 0)?,
        _ => return Ok(()),
    }
    sys::chown_at(target, name, stat.st_uid, stat.st_gid)?;
    sys::chmod_at(target, name, mode)
}

fn copy_file(source: Fd, target: Fd, name: &CStr) -> sys::Result<()> {
    const PIECE: usize = 1 << 30;
    let from = sys::openat(source, name, libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK, 0)?;
    let to = sys::openat(target, name, libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW, 0o600);
    let result = to.and_then(|to| {
        let copied = loop {
            match sys::sendfile(to, from, PIECE) {
                Ok(0) => break Ok(()),
                Ok(_) => {}
                Err(errno) => break Err(errno),
            }
        };
        sys::close(to);
        copied
    });
    sys::close(from);
    result
}
