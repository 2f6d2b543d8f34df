//! /dev: a tmpfs that the keeper fills while no path leads to it.
//!
//! The keeper makes it because the kernel lets nobody open a device on a tmpfs that was made inside a user namespace,
//! and because whatever lies at /dev in an image is then never touched (CVE-2025-31133, CVE-2026-41579).

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, OwnedFd};

use crate::plan::{Op, Slot, TextsBuf};
use crate::spec::{Device, Spec};
use crate::sys::{self, resolve};

use super::error::{Error, Result};
use super::ids::Ids;
use super::opened::Writer;
use super::options::{Options, RDONLY};
use super::paths::{c, is_within, place};

/// config-linux.md, "Default Devices".
pub(super) const NODES: [Default; 6] =
    [(c"null", 1, 3), (c"zero", 1, 5), (c"full", 1, 7), (c"random", 1, 8), (c"urandom", 1, 9), (c"tty", 5, 0)];

/// Name, major and minor number.
type Default = (&'static CStr, u32, u32);

/// runtime-linux.md, "Dev symbolic links", and the multiplexer of the container's own devpts.
const LINKS: [(&CStr, &CStr); 5] = [
    (c"fd", c"/proc/self/fd"),
    (c"stdin", c"/proc/self/fd/0"),
    (c"stdout", c"/proc/self/fd/1"),
    (c"stderr", c"/proc/self/fd/2"),
    (c"ptmx", c"pts/ptmx"),
];

/// A node that the specification asks for.
#[derive(Debug)]
pub(super) struct Node {
    /// Below /dev; of one that lies elsewhere the whole path.
    name: String,
    mode: u32,
    major: u32,
    minor: u32,
    uid: u32,
    gid: u32,
}

impl Node {
    pub fn parse(device: &Device<'_>, index: usize, ids: &Ids<'_>) -> Result<Self> {
        let field = |name: &str| format!("linux.devices[{index}].{name}");
        let path = place(&device.path, &field("path"))?;
        if ["/dev", "/proc", "/sys"].contains(&&*path) || is_within(&path, "/proc") || is_within(&path, "/sys") {
            return Err(Error::spec(field("path"), format!("{path} is no place for a device")));
        }
        let name = path.strip_prefix("/dev/").unwrap_or(&path);
        let kind = match &*device.kind {
            "c" | "u" => libc::S_IFCHR,
            "b" => libc::S_IFBLK,
            "p" => libc::S_IFIFO,
            other => return Err(Error::spec(field("type"), format!("{other:?} is not one of c, b, u, p"))),
        };
        let permissions = device.file_mode.unwrap_or(0o666);
        // Go programs write the type along with the permissions.
        if permissions & !(libc::S_IFMT | 0o7777) != 0 {
            return Err(Error::spec(field("fileMode"), format!("{permissions:o} is no mode")));
        }
        Ok(Self {
            name: name.to_owned(),
            mode: kind | permissions & 0o7777,
            major: number(device.major, MAJORS, &field("major"))?,
            minor: number(device.minor, MINORS, &field("minor"))?,
            uid: ids.host_uid(device.uid.unwrap_or(0), &field("uid"))?,
            gid: ids.host_gid(device.gid.unwrap_or(0), &field("gid"))?,
        })
    }
}

/// Twelve and twenty bits (include/linux/kdev_t.h).
const MAJORS: i64 = 1 << 12;
const MINORS: i64 = 1 << 20;

fn number(value: i64, end: i64, field: &str) -> Result<u32> {
    match u32::try_from(value) {
        Ok(number) if value < end => Ok(number),
        _ => Err(Error::spec(field, format!("{value} is no device number"))),
    }
}

/// Checks `linux.devices`: those below /dev, and those that lie elsewhere.
pub(super) fn nodes(devices: &[Device<'_>], ids: &Ids<'_>) -> Result<(Vec<Node>, Vec<Node>)> {
    let mut nodes: Vec<Node> = Vec::with_capacity(devices.len());
    // With all devices of a host comes its terminal multiplexer; the container's own is a link into its devpts.
    let given = devices.iter().enumerate().filter(|(_, device)| &*device.path != "/dev/ptmx");
    for (index, device) in given {
        let node = Node::parse(device, index, ids)?;
        if nodes.iter().any(|earlier| earlier.name == node.name) {
            let message = format!("{} comes twice", &*device.path);
            return Err(Error::spec(format!("linux.devices[{index}].path"), message));
        }
        nodes.push(node);
    }
    Ok(nodes.into_iter().partition(|node| !node.name.starts_with('/')))
}

/// config-linux.md, "Devices": what lies at a device's place already has to be that device. An empty file is a place that
/// an earlier container's device was mounted on. Where something is mounted, what is below is nobody's business.
pub(super) fn check_places(spec: &Spec<'_>, root: &OwnedFd) -> Result<()> {
    let is_covered =
        |path: &str| spec.mounts.iter().any(|mount| is_within(path, mount.destination.trim_end_matches('/')));
    for (index, device) in spec.linux.devices.iter().enumerate() {
        if is_within(&device.path, "/dev") || is_covered(&device.path) {
            continue;
        }
        let (flags, walk) = (libc::O_PATH | libc::O_NOFOLLOW, resolve::IN_ROOT | resolve::NO_MAGICLINKS);
        let Ok(found) = sys::openat2(root.as_raw_fd(), &device.path.to_c_string(), flags, 0, walk) else { continue };
        let looked = sys::stat_at(found, c"");
        sys::close(found);
        if looked.is_ok_and(|stat| !is_place_of(device, &stat)) {
            let message = format!("something that is no such device is at {} already", &*device.path);
            return Err(Error::spec(format!("linux.devices[{index}].path"), message));
        }
    }
    Ok(())
}

fn is_place_of(device: &Device<'_>, stat: &libc::stat) -> bool {
    let number = (i64::from(libc::major(stat.st_rdev)), i64::from(libc::minor(stat.st_rdev)));
    match (stat.st_mode & libc::S_IFMT, &*device.kind) {
        (libc::S_IFREG, _) => stat.st_size == 0,
        (libc::S_IFCHR, "c" | "u") | (libc::S_IFBLK, "b") => number == (device.major, device.minor),
        (libc::S_IFIFO, "p") => true,
        _ => false,
    }
}

/// What else has to be there, so that nothing is left to make once it is attached.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// Directories directly below /dev that something is mounted on.
    pub directories: Vec<CString>,
    /// Files directly below /dev that something is mounted on.
    pub files: Vec<CString>,
}

/// A detached /dev with nodes that every container has and others.
pub(super) fn write(
    options: &Options,
    (defaults, nodes): (&[Default], &[Node]),
    places: &Places,
    root: (u32, u32),
    writer: &mut Writer,
) -> Slot {
    let dev = writer.slot("/dev");
    // Read-only at last, when it is filled.
    let attributes = options.for_new_mount() & !RDONLY;
    let words = words(options);
    let (uid, gid) = root;
    writer.plan.keeper(Op::BeginMaking { uid, gid });
    writer.plan.keeper(Op::NewMount { fstype: c"tmpfs", options: words.as_texts(), attributes, out: dev });
    for &(name, major, minor) in defaults {
        let mode = libc::S_IFCHR | 0o666;
        if !nodes.iter().any(|node| node.name.as_bytes() == name.to_bytes()) {
            writer.plan.keeper(Op::MakeNode { dir: dev, name, mode, major, minor });
        }
    }
    for (name, target) in LINKS {
        writer.plan.keeper(Op::MakeSymlink { dir: dev, name, target });
    }
    for name in &places.directories {
        writer.plan.keeper(Op::MakeDirectory { dir: dev, name, mode: 0o755 });
    }
    for name in &places.files {
        writer.plan.keeper(Op::MakeFile { dir: dev, name, content: b"", mode: 0o600 });
    }
    let mut made = Vec::new();
    nodes.iter().for_each(|node| write_node(dev, node, root, &mut made, writer));
    writer.plan.keeper(Op::EndMaking {});
    if options.for_new_mount() & RDONLY != 0 {
        let (set, clear, propagation, recursive) = (RDONLY, 0, 0, false);
        writer.plan.keeper(Op::SetMountAttributes { mount: dev, set, clear, propagation, recursive });
    }
    dev
}

fn words(options: &Options) -> TextsBuf {
    let given = options.data.iter().map(|(_, word)| word.as_c_str());
    let mut words: TextsBuf = given.filter(|word| !is_owner(word)).collect();
    if !options.has("mode") {
        words.push(c"mode=755");
    }
    if !options.has("size") {
        words.push(c"size=65536k");
    }
    words
}

fn is_owner(word: &CStr) -> bool {
    word.to_bytes().starts_with(b"uid=") || word.to_bytes().starts_with(b"gid=")
}

/// `made` are the directories that are there already.
fn write_node<'n>(dir: Slot, node: &'n Node, root: (u32, u32), made: &mut Vec<&'n str>, writer: &mut Writer) {
    for (end, _) in node.name.match_indices('/') {
        let folder = &node.name[..end];
        if !made.contains(&folder) {
            writer.plan.keeper(Op::MakeDirectory { dir, name: &c(folder), mode: 0o755 });
            made.push(folder);
        }
    }
    let Node { mode, major, minor, uid, gid, .. } = *node;
    let name = c(&node.name);
    writer.plan.keeper(Op::MakeNode { dir, name: &name, mode, major, minor });
    if (uid, gid) != root {
        writer.plan.keeper(Op::ChangeOwner { dir, name: &name, uid, gid });
    }
}

impl Node {
    /// Makes it in `folder`, whose owner is `root`; a detached mount of it alone, and where that goes.
    pub fn write_elsewhere(
        &self,
        index: usize,
        folder: Slot,
        root: (u32, u32),
        writer: &mut Writer,
    ) -> (Slot, CString) {
        let Self { mode, major, minor, uid, gid, .. } = *self;
        let name = c(&format!("device-{index}"));
        writer.plan.keeper(Op::MakeNode { dir: folder, name: &name, mode, major, minor });
        if (uid, gid) != root {
            writer.plan.keeper(Op::ChangeOwner { dir: folder, name: &name, uid, gid });
        }
        let out = writer.slot(format!("the device {}", self.name));
        writer.plan.keeper(Op::CloneTree { dir: folder, path: &name, recursive: false, out });
        (out, c(&self.name))
    }
}
