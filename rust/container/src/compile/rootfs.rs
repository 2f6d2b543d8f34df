//! The root file system: an overlay of layers, or the directory of a bundle.
//!
//! With a user namespace the layers are shown through idmaps, so that what is on the disk belongs to root. A bundle
//! is taken as it is: whoever made it has given its files the owners that the mappings ask for.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::host::{Features, Host};
use crate::plan::{Op, Slot, TextsBuf, as_slots, pack_slots};
use crate::spec::{Spec, Text};
use crate::sys::{self, resolve};

use super::dev::{Node, check_places};
use super::device_rules;
use super::error::{Error, Result};
use super::mounts::root_propagation;
use super::opened::{Again, Failure, Opened, Writer, clone_tree, open, own};
use super::options::{NODEV, NOSUID, PRIVATE, RDONLY};
use super::paths::{c, place};
use super::start::{File, Rootfs as Layers, Start, Upper};

/// Devices come from /dev alone; a node in an image is just a file. Of bundles see [`bundle_attributes`].
const ATTRIBUTES: u64 = NODEV;

/// Opened, not yet mounted.
#[derive(Debug)]
pub(super) struct Rootfs<'a> {
    base: Base,
    readonly: bool,
    files: &'a [File<'a>],
    /// Devices that lie elsewhere than below /dev.
    nodes: Vec<Node>,
    features: Features,
    /// The layers are clones of their own, and not places of the host.
    detached: bool,
}

#[derive(Debug)]
enum Base {
    Overlay {
        lowers: Vec<Layer>,
        upper: Changes,
        volatile: bool,
    },
    /// One layer and nothing over it: overlayfs wants at least two.
    Layer(Slot),
    Bundle {
        tree: Slot,
        /// Where it is on the host.
        path: CString,
        attributes: u64,
        /// Whether it takes part in what the host mounts there.
        propagation: u64,
    },
}

#[derive(Clone, Debug)]
enum Changes {
    None,
    Directory(Layer),
    Memory(Option<u64>),
}

/// A directory of the tree in a slot; "" is its root.
#[derive(Clone, Debug)]
struct Layer {
    tree: Slot,
    name: CString,
}

impl<'a> Rootfs<'a> {
    pub fn open(spec: &Spec<'_>, start: &'a Start<'a>, host: &Host, opened: &mut Opened) -> Result<Self> {
        let readonly = spec.root.as_ref().is_some_and(|root| root.readonly);
        let (features, detached) = (host.features, host.privileged);
        match &start.rootfs {
            Some(layers) => {
                let base = open_layers(layers, host, opened)?;
                check_files(&layers.files)?;
                Ok(Self { base, readonly, files: &layers.files, nodes: Vec::new(), features, detached })
            }
            None => {
                let base = open_bundle(spec, start, host, opened)?;
                Ok(Self { base, readonly, files: &[], nodes: Vec::new(), features, detached })
            }
        }
    }

    /// And devices in it.
    pub fn with_nodes(self, nodes: Vec<Node>) -> Self {
        Self { nodes, ..self }
    }

    /// Whether binds show their owners through the container's idmap: a bundle's maker decides mount by mount.
    pub fn is_layered(&self) -> bool {
        !matches!(self.base, Base::Bundle { .. })
    }

    /// Where a bundle's directory is on the host.
    pub fn path(&self) -> Option<&CStr> {
        match &self.base {
            Base::Bundle { path, .. } => Some(path),
            _ => None,
        }
    }

    /// Whether the mount is made read-only once all is in place. Without an upper it is from the start.
    pub fn becomes_readonly(&self) -> bool {
        let changes = matches!(self.base, Base::Bundle { .. })
            || matches!(self.base, Base::Overlay { upper: Changes::Directory(_) | Changes::Memory(_), .. });
        self.readonly && changes
    }

    /// The keeper's first part, on older kernels: where it can park.
    pub fn write_place(&self, writer: &mut Writer) {
        let has_files = !self.files.is_empty() || !self.nodes.is_empty();
        if !self.features.detached_trees && (matches!(self.base, Base::Overlay { .. }) || has_files) {
            writer.plan.keeper(Op::Unshare { flags: libc::CLONE_NEWNS as u64 });
        }
    }

    /// The keeper's part: the slot of the detached root. `unneeded` takes mounts that nothing needs after this.
    pub fn write(&self, userns: Option<Slot>, root: (u32, u32), unneeded: &mut Vec<Slot>, writer: &mut Writer) -> Slot {
        match &self.base {
            Base::Overlay { lowers, upper, volatile } => {
                let mut trees = Vec::new();
                let changes = match upper {
                    Changes::Directory(layer) => Some(layer),
                    _ => None,
                };
                for layer in lowers.iter().chain(changes) {
                    if !trees.contains(&layer.tree) {
                        idmap(layer.tree, userns, writer);
                        trees.push(layer.tree);
                    }
                }
                let (uid, gid) = root;
                writer.plan.keeper(Op::BeginMaking { uid, gid });
                let upper = write_upper(upper, writer);
                trees.extend(upper.as_ref().map(|layer| layer.tree).filter(|tree| !trees.contains(tree)));
                trees.iter().for_each(|&tree| self.park(tree, writer));
                if self.detached {
                    self.leave(&trees, unneeded);
                }
                let mount = self.write_overlay(&Stack { lowers, upper, volatile: *volatile }, writer);
                writer.plan.keeper(Op::EndMaking {});
                mount
            }
            Base::Layer(layer) => {
                idmap(*layer, userns, writer);
                set(*layer, ATTRIBUTES | RDONLY, PRIVATE, writer);
                *layer
            }
            Base::Bundle { tree, attributes, propagation, .. } => {
                set(*tree, *attributes, *propagation, writer);
                *tree
            }
        }
    }

    /// The container's own files, and devices elsewhere than in /dev, in a small tmpfs; the keeper's part. Returns slot and
    /// path of each.
    pub fn write_files(
        &self,
        covered: &[String],
        root: (u32, u32),
        unneeded: &mut Vec<Slot>,
        writer: &mut Writer,
    ) -> Vec<(Slot, CString)> {
        let files: Vec<&File<'_>> =
            self.files.iter().filter(|file| !covered.iter().any(|path| **path == *file.path)).collect();
        if files.is_empty() && self.nodes.is_empty() {
            return Vec::new();
        }
        let folder = writer.slot("the container's own files");
        let options = [c("mode=755"), c(&format!("size={}", room_for(&files)))];
        let options: TextsBuf = options.iter().map(CString::as_c_str).collect();
        let attributes = if self.nodes.is_empty() { NODEV | NOSUID } else { NOSUID };
        let (uid, gid) = root;
        writer.plan.keeper(Op::BeginMaking { uid, gid });
        writer.plan.keeper(Op::NewMount { fstype: c"tmpfs", options: options.as_texts(), attributes, out: folder });
        self.park(folder, writer);
        self.leave(&[folder], unneeded);
        let mut made: Vec<(Slot, CString)> =
            files.iter().enumerate().map(|(index, file)| write_file(index, file, folder, writer)).collect();
        for (index, node) in self.nodes.iter().enumerate() {
            made.push(node.write_elsewhere(index, folder, root, writer));
        }
        writer.plan.keeper(Op::EndMaking {});
        made
    }

    /// Attaches what is to be stacked or cloned, where the kernel wants that, in the keeper's own mount namespace: it ends
    /// with the keeper.
    fn park(&self, mount: Slot, writer: &mut Writer) {
        if !self.features.detached_trees {
            writer.plan.keeper(Op::Park { mount });
        }
    }

    /// What is attached already ends with the keeper's mount namespace.
    fn leave(&self, mounts: &[Slot], unneeded: &mut Vec<Slot>) {
        if self.features.detached_trees {
            unneeded.extend(mounts);
        }
    }

    fn write_overlay(&self, stack: &Stack<'_>, writer: &mut Writer) -> Slot {
        let volatile = stack.volatile;
        let packed = pack_slots(&stack.lowers.iter().map(|layer| layer.tree).collect::<Vec<_>>());
        let names: TextsBuf = stack.lowers.iter().map(|layer| layer.name.as_c_str()).collect();
        let (lowers, names) = (as_slots(&packed), names.as_texts());
        let upper = stack.upper.as_ref().map(|layer| layer.tree);
        let changes = stack.upper.as_ref().map_or(c"", |layer| layer.name.as_c_str());
        let attributes = if upper.is_none() { ATTRIBUTES | RDONLY } else { ATTRIBUTES };
        if self.features.overlay_by_descriptor {
            let out = writer.slot(ROOT);
            writer.plan.keeper(Op::NewOverlay { lowers, names, upper, changes, volatile, attributes, out });
            return out;
        }
        let (at, name) = (write_scaffold(writer), c"root");
        self.park(at, writer);
        writer.plan.keeper(Op::MakeDirectory { dir: at, name, mode: 0o755 });
        writer.plan.keeper(Op::MountOverlay { lowers, names, upper, changes, volatile, attributes, at, name });
        let out = writer.slot(ROOT);
        writer.plan.keeper(Op::CloneTree { dir: at, path: name, recursive: false, out });
        out
    }
}

/// What sentences call the root file system.
const ROOT: &str = "the root file system";

/// What an overlay is made of.
struct Stack<'s> {
    lowers: &'s [Layer],
    upper: Option<Layer>,
    volatile: bool,
}

/// A place for mount(2), which takes no descriptors.
fn write_scaffold(writer: &mut Writer) -> Slot {
    let out = writer.slot("the scaffold");
    let options: TextsBuf = [c"size=4k", c"mode=700"].into_iter().collect();
    let attributes = NODEV | NOSUID;
    writer.plan.keeper(Op::NewMount { fstype: c"tmpfs", options: options.as_texts(), attributes, out });
    out
}

fn write_file(index: usize, file: &File<'_>, folder: Slot, writer: &mut Writer) -> (Slot, CString) {
    let base = file.path.rsplit('/').next().unwrap_or_default();
    let name = c(&format!("{index}-{base}"));
    let (content, mode) = (file.content.as_bytes(), file.mode);
    writer.plan.keeper(Op::MakeFile { dir: folder, name: &name, content, mode });
    let out = writer.slot(format!("the file {}", file.path));
    writer.plan.keeper(Op::CloneTree { dir: folder, path: &name, recursive: false, out });
    (out, file.path.to_c_string())
}

/// Enough for the files and some growth; the container's root may write to them.
fn room_for(files: &[&File<'_>]) -> usize {
    const PAGE: usize = 4096;
    let used: usize = files.iter().map(|file| file.content.len().div_ceil(PAGE) * PAGE).sum();
    2 * used + 256 * PAGE
}

fn check_files(files: &[File<'_>]) -> Result<()> {
    for (index, file) in files.iter().enumerate() {
        let field = format!("start.rootfs.files[{index}]");
        if place(&file.path, &format!("{field}.path"))? != *file.path {
            return Err(Error::spec(format!("{field}.path"), format!("{} is not plain", file.path)));
        }
        if file.mode & !0o7777 != 0 {
            return Err(Error::spec(format!("{field}.mode"), format!("{:o} is no mode", file.mode)));
        }
    }
    Ok(())
}

/// A directory as a layer: a detached clone, because overlayfs takes no mounts of another mount namespace than that
/// of whoever mounts it, and the keeper has its own.
fn open_layer(path: &str, field: &str, detached: bool) -> Result<OwnedFd> {
    Ok(open_both(path, field, detached)?.0)
}

/// The same, and the place itself.
fn open_both(path: &str, field: &str, detached: bool) -> Result<(OwnedFd, OwnedFd)> {
    let both = || {
        let place = open(path, libc::O_PATH | libc::O_DIRECTORY)?;
        let layer = if detached { clone_tree(&place, false) } else { copy(&place) };
        Ok((layer?, place))
    };
    both().map_err(|failure: Failure| failure.at(field, path))
}

/// A directory on the mount of a trunk, with no link on the way.
fn open_below(trunk: &OwnedFd, name: &CStr) -> std::result::Result<OwnedFd, Failure> {
    let (flags, links) = (libc::O_PATH | libc::O_DIRECTORY, resolve::NO_SYMLINKS | resolve::NO_XDEV);
    let name = if name.is_empty() { c"." } else { name };
    sys::openat2(trunk.as_raw_fd(), name, flags, 0, links | resolve::BENEATH).map(own).map_err(Failure)
}

/// A trunk for another container; `None` if it does not hold these any more.
pub(super) fn open_trunk_again(path: &str, below: &[CString], host: &Host) -> Option<OwnedFd> {
    let (tree, trunk) = open_both(path, "", host.privileged).ok()?;
    below.iter().all(|name| open_below(&trunk, name).is_ok()).then_some(tree)
}

fn copy(place: &OwnedFd) -> std::result::Result<OwnedFd, Failure> {
    sys::dup_above(place.as_raw_fd(), 3).map(own).map_err(Failure)
}

/// The directory that all layers lie below: cloned once it serves for all, as long as they are on its mount.
struct Trunk<'o> {
    path: PathBuf,
    tree: Option<(Slot, OwnedFd)>,
    detached: bool,
    opened: &'o mut Opened,
}

impl<'o> Trunk<'o> {
    fn of(layers: &Layers<'_>, detached: bool, opened: &'o mut Opened) -> Self {
        let upper = match &layers.upper {
            Some(Upper::Directory(path)) => Some(path),
            _ => None,
        };
        let mut paths = layers.lowers.iter().chain(upper).map(|path| Path::new(&**path));
        let first = paths.next().unwrap_or(Path::new("/")).to_owned();
        let path = paths.fold(first, |trunk, path| {
            let shared = trunk.components().zip(path.components()).take_while(|(one, other)| one == other);
            shared.map(|(one, _)| one).collect()
        });
        Self { path, tree: None, detached, opened }
    }

    /// The layer at `path`, which `field` names and sentences call `title`, and the directory itself.
    fn layer(&mut self, path: &str, field: &str, title: &str) -> Result<(Layer, OwnedFd)> {
        if let Some(found) = self.below(path, field)? {
            return Ok(found);
        }
        let (layer, place) = open_both(path, field, self.detached)?;
        Ok((Layer { tree: self.opened.add(layer, format!("{title} {path}")), name: c("") }, place))
    }

    /// `None` where a link or another mount lies between, which is not in the clone.
    fn below(&mut self, path: &str, field: &str) -> Result<Option<(Layer, OwnedFd)>> {
        let Ok(name) = Path::new(path).strip_prefix(&self.path) else { return Ok(None) };
        let name = c(&name.to_string_lossy());
        let (tree, trunk) = match &mut self.tree {
            Some(tree) => tree,
            none => {
                let path = self.path.to_string_lossy();
                let (layer, place) = open_both(&path, field, self.detached)?;
                let again = Again::Tree { path: path.to_string(), below: Vec::new() };
                none.insert((self.opened.add_again(layer, format!("the layers in {path}"), again), place))
            }
        };
        match open_below(trunk, &name) {
            Ok(place) => {
                if let Some(Again::Tree { below, .. }) = self.opened.again_of(*tree) {
                    below.push(name.clone());
                }
                Ok(Some((Layer { tree: *tree, name }, place)))
            }
            Err(Failure(sys::Errno(libc::EXDEV | libc::ELOOP))) => Ok(None),
            Err(failure) => Err(failure.at(field, path)),
        }
    }
}

fn open_layers(layers: &Layers<'_>, host: &Host, opened: &mut Opened) -> Result<Base> {
    let detached = host.privileged;
    if let ([path], None) = (layers.lowers.as_slice(), &layers.upper) {
        let layer = open_layer(path, "start.rootfs.lowers[0]", detached)?;
        return Ok(Base::Layer(opened.add(layer, format!("the layer {path}"))));
    }
    let mut trunk = Trunk::of(layers, detached, opened);
    let mut lowers = Vec::with_capacity(layers.lowers.len());
    for (index, path) in layers.lowers.iter().enumerate() {
        lowers.push(trunk.layer(path, &format!("start.rootfs.lowers[{index}]"), "the layer")?.0);
    }
    let upper = match &layers.upper {
        None => Changes::None,
        Some(Upper::Tmpfs { size }) => Changes::Memory(*size),
        Some(Upper::Directory(path)) => Changes::Directory(open_upper(path, &mut trunk)?),
    };
    Ok(Base::Overlay { lowers, upper, volatile: layers.volatile })
}

fn open_upper(path: &Text<'_>, trunk: &mut Trunk<'_>) -> Result<Layer> {
    const FIELD: &str = "start.rootfs.upper.directory";
    let (layer, place) = trunk.layer(path, FIELD, "the upper directory")?;
    for name in [c"upper", c"work"] {
        let found = sys::stat_at(place.as_raw_fd(), name);
        if !found.is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFDIR) {
            return Err(Error::spec(FIELD, format!("{path} has no directory {}", name.to_string_lossy())));
        }
    }
    Ok(layer)
}

fn open_bundle(spec: &Spec<'_>, start: &Start<'_>, host: &Host, opened: &mut Opened) -> Result<Base> {
    const FIELD: &str = "root.path";
    let Some(root) = &spec.root else { return Err(Error::spec("root", "missing")) };
    let path = match (root.path.starts_with('/'), &start.bundle) {
        _ if root.path.is_empty() => return Err(Error::spec(FIELD, "empty")),
        (true, _) => root.path.to_string(),
        (false, Some(bundle)) => format!("{bundle}/{}", root.path),
        (false, None) => return Err(Error::spec(FIELD, "relative, and there is no bundle that it is relative to")),
    };
    // A link could be turned while the container is made.
    let place = open(&path, libc::O_PATH | libc::O_NOFOLLOW).map_err(|failure| failure.at(FIELD, &path))?;
    match sys::stat_at(place.as_raw_fd(), c"").map(|stat| stat.st_mode & libc::S_IFMT) {
        Ok(libc::S_IFDIR) => {}
        Ok(libc::S_IFLNK) => return Err(Error::spec(FIELD, format!("{path} is a symbolic link"))),
        _ => return Err(Error::spec(FIELD, format!("{path} is not a directory"))),
    }
    check_places(spec, &place)?;
    let tree =
        if host.privileged { clone_tree(&place, true).map_err(|failure| failure.at(FIELD, &path))? } else { place };
    // config-linux.md, "Rootfs Mount Propagation": a slave sees what the host mounts.
    let propagation = if root_propagation(spec)? == libc::MS_SLAVE { libc::MS_SLAVE } else { PRIVATE };
    let tree = opened.add(tree, format!("the root file system {path}"));
    Ok(Base::Bundle { tree, path: c(&path), attributes: bundle_attributes(spec, start, host), propagation })
}

/// Whoever may make a node in a bundle's root file system may open it, as with runc, if rules hold that say which: installers
/// of systems do so. Where there are none a node is just a file.
fn bundle_attributes(spec: &Spec<'_>, start: &Start<'_>, host: &Host) -> u64 {
    let ruled = spec.linux.resources.as_ref().is_some_and(|resources| device_rules::are_about_all(&resources.devices));
    if ruled && !start.is_of_plain_user(host) { 0 } else { ATTRIBUTES }
}

fn idmap(mount: Slot, userns: Option<Slot>, writer: &mut Writer) {
    if let Some(userns) = userns {
        writer.plan.keeper(Op::IdmapMount { mount, userns, recursive: false });
    }
}

fn set(mount: Slot, set: u64, propagation: u64, writer: &mut Writer) {
    // A clone is a peer of what it was cloned from: without this, mounts would spread to the host.
    writer.plan.keeper(Op::SetMountAttributes { mount, set, clear: 0, propagation, recursive: true });
}

fn write_upper(changes: &Changes, writer: &mut Writer) -> Option<Layer> {
    match changes {
        Changes::None => None,
        Changes::Directory(layer) => Some(layer.clone()),
        Changes::Memory(size) => {
            let out = writer.slot("the upper directory in memory");
            let mut options: TextsBuf = [c"mode=700"].into_iter().collect();
            if let Some(size) = size {
                options.push(&c(&format!("size={size}")));
            }
            writer.plan.keeper(Op::NewMount {
                fstype: c"tmpfs",
                options: options.as_texts(),
                attributes: NODEV | NOSUID,
                out,
            });
            for name in [c"upper", c"work"] {
                writer.plan.keeper(Op::MakeDirectory { dir: out, name, mode: 0o755 });
            }
            Some(Layer { tree: out, name: c("") })
        }
    }
}
