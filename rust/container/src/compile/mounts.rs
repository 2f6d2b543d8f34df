//! The mounts of the specification: which side makes each, and in which order they are attached.
//!
//! ```text
//! made by                                  what
//! this process, while compiling            clones of bind sources
//! keeper, with the host's rights           /dev, the folder of cgroup v1, before there is a child perhaps, and what shows
//!                                          a namespace that stays the host's, which a new user namespace has no
//!                                          right to mount
//! child, before pivot_root                 proc, sysfs: the kernel wants to see an instance of each in the
//!                                          mount namespace, and the old root has one
//! child, as root of its user namespace     the rest
//! ```
//!
//! What goes below /dev, /proc and /sys is attached to those while they are attached nowhere themselves, and so is what
//! hides parts of them: the child has done with it by the time that the keeper has the root file system.
//!
//! /proc/self/mountinfo lists mounts by their age. Where others look whether that is the order of the specification
//! ([`Order`]), the child makes all before pivot_root, one after the other, and what it has not made itself it clones.

mod elsewhere;
mod planned;

use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path};

use crate::host::Host;
use crate::plan::{Op, Slot, Texts, TextsBuf, as_slots, pack_slots};
use crate::spec::{NamespaceKind, Spec};

use super::cgroups::View;
use super::dev::{self, Node, Places};
use super::error::{Error, Result};
use super::namespaces::Namespaces;
use super::opened::{Opened, Writer};
use super::options::{NOEXEC, NOSUID, Options, PRIVATE, RDONLY};
use super::paths::{c, is_prepared, is_within};
use super::start::Start;

pub(super) use planned::Surroundings;
use planned::{Idmap, Maker, Planned, What, cgroup_maker, plan_mount};

/// Places of the old root that nobody needs where the container is made: what was mounted early lies there until that root
/// goes.
#[derive(Debug)]
pub(super) struct Order {
    /// A directory.
    pub directory: CString,
    /// A file.
    pub file: CString,
}

impl Order {
    /// None where nobody looks, and where the old root does not go.
    pub fn of(start: &Start<'_>, namespaces: &Namespaces, root: Option<&CStr>) -> Option<Self> {
        let file = start.lifecycle.as_ref()?.spare.as_ref()?.to_c_string();
        let directory = root.filter(|root| namespaces.is_new(NamespaceKind::Mount) && is_below_root(root))?.to_owned();
        Some(Self { directory, file })
    }
}

/// What lies over / itself would be taken for the old root.
fn is_below_root(path: &CStr) -> bool {
    let mut parts = Path::new(OsStr::from_bytes(path.to_bytes())).components().skip(1).peekable();
    parts.peek().is_some() && parts.all(|part| part != Component::ParentDir)
}

/// All mounts of a container.
#[derive(Debug)]
pub(super) struct Mounts {
    planned: Vec<Planned>,
    /// MS_ propagation of binds that say nothing of it.
    propagation: u64,
    views: Vec<(String, TextsBuf)>,
    cgroup_maker: Maker,
    /// As runc has it: without a cgroup namespace the container sees its own groups and not the host's.
    binds_views: bool,
    order: Option<Order>,
    /// Which of them take what goes below them while they are attached nowhere.
    bases: Vec<usize>,
    nodes: Vec<Node>,
    binds_nodes: bool,
    terminal: bool,
}

/// Slots of what is mounted, in the order of the mounts.
#[derive(Debug, Default)]
pub(super) struct Made {
    slots: Vec<Option<Slot>>,
    views: Vec<Slot>,
    /// Where what was made early goes with the old root.
    directory: Option<Slot>,
    file: Option<Slot>,
    /// A procfs that no path leads to yet.
    pub proc: Option<Slot>,
}

impl Mounts {
    /// Checks all and opens what is bound.
    pub fn open(
        spec: &Spec<'_>,
        nodes: Vec<Node>,
        around: Surroundings<'_>,
        order: Option<Order>,
        opened: &mut Opened,
    ) -> Result<Self> {
        let label = mount_label(spec, around.host)?;
        let mut planned: Vec<Planned> = Vec::with_capacity(spec.mounts.len() + 1);
        for (index, mount) in spec.mounts.iter().enumerate() {
            let next = plan_mount(mount, &format!("mounts[{index}]"), around, opened)?;
            if let Some(earlier) = planned.iter().position(|known| known.excludes(&next, around)) {
                let message = format!("{} is the destination of mounts[{earlier}] already", next.destination);
                return Err(Error::spec(format!("mounts[{index}].destination"), message));
            }
            planned.push(next);
        }
        if !planned.iter().any(Planned::is_at_dev) {
            planned.insert(0, Planned { destination: "/dev".to_owned(), options: default_dev(), what: What::Dev });
        }
        if let Some(label) = &label {
            planned.iter_mut().for_each(|mount| mount.take_label(label));
        }
        let mounts = Self {
            propagation: propagation_of_binds(spec)?,
            views: around.views.iter().map(view).collect(),
            cgroup_maker: cgroup_maker(around.namespaces),
            binds_views: around.binds_views,
            bases: if order.is_some() { Vec::new() } else { bases(&planned, around) },
            order,
            // A bind over /dev brings its own; runc makes none there either.
            nodes,
            binds_nodes: around.binds_nodes,
            terminal: spec.process.as_ref().is_some_and(|process| process.terminal),
            planned,
        };
        mounts.check()?;
        Ok(mounts)
    }

    fn check(&self) -> Result<()> {
        let has_terminals = self.planned.iter().any(|mount| mount.destination == "/dev/pts");
        if self.terminal && self.has_own_dev() && !has_terminals {
            return Err(Error::spec("process.terminal", "needs a devpts at /dev/pts"));
        }
        Ok(())
    }

    /// What is mounted at /dev, once `write_after_pivot` has been through.
    pub fn at_dev(&self, made: &Made) -> Slot {
        let index = self.planned.iter().position(Planned::is_at_dev);
        // `open` has put one there if the specification has none.
        index.and_then(|index| made.slots[index]).unwrap_or(crate::plan::FIRST_OPENED)
    }

    /// Whether /dev is the tmpfs that the keeper fills.
    pub fn has_own_dev(&self) -> bool {
        self.planned.iter().any(|mount| matches!(mount.what, What::Dev))
    }

    /// Destinations in order.
    pub fn destinations(&self) -> impl Iterator<Item = &str> {
        self.planned.iter().map(|mount| mount.destination.as_str())
    }

    /// The keeper's first part: user namespaces that hold the maps of single mounts. On older kernels it can make none
    /// once something is parked over its root (fs/namespace.c, current_chrooted).
    pub fn write_maps(&self, writer: &mut Writer) -> Vec<Option<Slot>> {
        let mut write = |mount: &Planned| match &mount.what {
            What::Bind { idmap: Some(Idmap { maps: Some(maps), .. }), .. } => {
                let out = writer.slot(format!("the mappings of {}", mount.destination));
                let (uid_map, gid_map) = (maps.uids.as_bytes(), maps.gids.as_bytes());
                writer.plan.keeper(Op::NewIdMap { uid_map, gid_map, out });
                Some(out)
            }
            _ => None,
        };
        self.planned.iter().map(&mut write).collect()
    }

    /// The keeper's part that needs no child.
    pub fn write_prepared(&self, root: (u32, u32), writer: &mut Writer) -> Made {
        let mut made = Made { slots: vec![None; self.planned.len()], ..Made::default() };
        for (mount, slot) in self.planned.iter().zip(&mut made.slots) {
            *slot = match &mount.what {
                What::Dev => {
                    let defaults = if self.binds_nodes { &[] } else { &dev::NODES[..] };
                    Some(dev::write(&mount.options, (defaults, &self.nodes), &self.places(), root, writer))
                }
                What::CgroupFolder => Some(self.write_cgroup_folder(mount, root, writer)),
                What::Bind { .. } | What::New { .. } | What::Remount => None,
            };
        }
        made
    }

    /// The keeper's other part.
    pub fn write_keeper(&self, made: &mut Made, userns: Option<Slot>, maps: &[Option<Slot>], writer: &mut Writer) {
        for (index, mount) in self.planned.iter().enumerate() {
            match &mount.what {
                What::Bind { tree, idmap, .. } => {
                    let idmap = idmap.as_ref().map(|idmap| idmap.recursive).zip(maps[index].or(userns));
                    self.write_bind(mount, *tree, idmap, writer);
                    made.slots[index] = Some(*tree);
                }
                What::New { maker: Maker::Keeper | Maker::Aside(_), .. } => {
                    made.slots[index] = Some(new_mount(mount, writer));
                }
                What::Dev | What::CgroupFolder | What::New { .. } | What::Remount => {}
            }
            if let (Some(slot), None) = (made.slots[index], &self.order) {
                self.write_propagation(mount, slot, &mut |op| writer.plan.keeper(op));
            }
        }
    }

    /// The keeper's part that needs the container's groups.
    pub fn write_views(&self, made: &mut Made, groups: &[Slot], writer: &mut Writer) {
        let Some(mount) = self.planned.iter().find(|mount| matches!(mount.what, What::CgroupFolder)) else { return };
        if self.binds_views {
            made.views = clone_views(mount, groups, writer);
        } else if self.cgroup_maker != Maker::ChildAfterPivot {
            made.views = self.new_views(mount, writer);
        }
    }

    /// Whether each is made in its turn: then what the child does before pivot_root waits for the keeper, and the child has
    /// nothing to do while the keeper makes the root file system.
    pub fn are_in_order(&self) -> bool {
        self.order.is_some()
    }

    /// The child's part while it has the ids of whoever made it, which may go where the container's root may not.
    pub fn write_places(&self, made: &mut Made, writer: &mut Writer) {
        let Some(order) = &self.order else { return };
        let early: Vec<&Planned> =
            self.planned.iter().zip(&made.slots).filter(|(_, slot)| slot.is_some()).map(|(mount, _)| mount).collect();
        let mut open = |path: &CStr| {
            let out = writer.slot(path.to_string_lossy());
            writer.plan.child(Op::OpenPlace { path, out });
            out
        };
        made.directory = early.iter().any(|mount| !mount.is_file()).then(|| open(&order.directory));
        made.file = early.iter().any(|mount| mount.is_file()).then(|| open(&order.file));
    }

    /// The child's part that needs the old root in sight.
    pub fn write_before_pivot(&self, made: &mut Made, writer: &mut Writer) {
        for (mount, slot) in self.planned.iter().zip(&mut made.slots) {
            let place = if mount.is_file() { made.file } else { made.directory };
            match (*slot, place) {
                (Some(early), Some(place)) => *slot = Some(renew(early, place, writer)),
                (None, _) if mount.is_new() && self.order.is_some() || mount.is_made_before_pivot() => {
                    *slot = Some(new_mount(mount, writer))
                }
                _ => {}
            }
            if mount.has_parameters() {
                made.proc = *slot;
            }
        }
    }

    /// The child's part that needs no more than what is made so far, and the rights of its user namespace's root.
    pub fn write_in_advance(&self, made: &mut Made, writer: &mut Writer) {
        for (mount, slot) in self.planned.iter().zip(&mut made.slots).filter(|(mount, _)| mount.is_new()) {
            slot.get_or_insert_with(|| new_mount(mount, writer));
        }
        let bases = self.bases(made);
        for (mount, slot) in self.planned.iter().zip(&made.slots) {
            if let Some(((within, path), &slot)) = Base::of(&bases, &c(&mount.destination)).zip(slot.as_ref()) {
                writer.plan.child(Op::Attach {
                    mount: slot,
                    within: Some(within),
                    path: &path,
                    file: false,
                    strict: true,
                });
                if matches!(mount.what, What::CgroupFolder) {
                    self.attach_views(mount, &made.views, &bases, writer);
                }
            }
        }
    }

    /// What takes mounts while it is attached nowhere, once it is made.
    pub fn bases(&self, made: &Made) -> Vec<Base<'_>> {
        let base =
            |&index: &usize| made.slots[index].map(|slot| Base { destination: &self.planned[index].destination, slot });
        self.bases.iter().filter_map(base).collect()
    }

    /// The child's part inside the new root: attach all, in order.
    pub fn write_after_pivot(&self, made: &mut Made, writer: &mut Writer) {
        let bases = self.bases(made);
        for (mount, made_slot) in self.planned.iter().zip(&mut made.slots) {
            if Base::of(&bases, &c(&mount.destination)).is_some() {
                continue;
            }
            let path = c(&mount.destination);
            if !mount.is_new() {
                mount.write_remount(&path, writer);
                continue;
            }
            let slot = *made_slot.get_or_insert_with(|| new_mount(mount, writer));
            if mount.options.copy_up {
                writer.plan.child(Op::CopyUp { mount: slot, path: &path });
            }
            // The kernel clones nothing that is unbindable.
            if self.order.is_some() || !mount.is_made_by_keeper() {
                self.write_propagation(mount, slot, &mut |op| writer.plan.child(op));
            }
            let file = matches!(mount.what, What::Bind { file: true, .. });
            let strict = is_prepared(&mount.destination);
            writer.plan.child(Op::Attach { mount: slot, within: None, path: &path, file, strict });
            if matches!(mount.what, What::CgroupFolder) {
                self.attach_views(mount, &made.views, &bases, writer);
            }
        }
    }

    fn places(&self) -> Places {
        let mut places = Places::default();
        for mount in &self.planned {
            let Some(name) = mount.destination.strip_prefix("/dev/").filter(|name| !name.contains('/')) else {
                continue;
            };
            match mount.what {
                What::Remount => {}
                What::Bind { file: true, .. } if places.files.contains(&c(name)) => {}
                What::Bind { file: true, .. } => places.files.push(c(name)),
                _ => places.directories.push(c(name)),
            }
        }
        if self.terminal {
            places.files.push(c("console"));
        }
        places
    }

    /// On the list that `put` appends to.
    fn write_propagation(&self, mount: &Planned, slot: Slot, put: &mut dyn FnMut(Op<'_>)) {
        let mut write = |propagation: u64, recursive: bool| {
            put(Op::SetMountAttributes { mount: slot, set: 0, clear: 0, propagation, recursive });
        };
        if mount.options.propagation.is_empty() && matches!(mount.what, What::Bind { .. }) {
            write(self.propagation, true);
        }
        mount.options.propagation.iter().for_each(|&(kind, recursive)| write(kind, recursive));
    }

    fn write_bind(&self, mount: &Planned, tree: Slot, idmap: Option<(bool, Slot)>, writer: &mut Writer) {
        if let Some((recursive, userns)) = idmap {
            writer.plan.keeper(Op::IdmapMount { mount: tree, userns, recursive });
        }
        mount.write_attributes(tree, writer);
    }

    /// A read-only folder with a place for each hierarchy in which the container has a group.
    fn write_cgroup_folder(&self, mount: &Planned, root: (u32, u32), writer: &mut Writer) -> Slot {
        let out = writer.slot("the folder of cgroup hierarchies");
        let attributes = mount.options.for_new_mount() & !RDONLY;
        let options: TextsBuf = [c"mode=755", c"size=64k"].into_iter().collect();
        let (uid, gid) = root;
        writer.plan.keeper(Op::BeginMaking { uid, gid });
        writer.plan.keeper(Op::NewMount { fstype: c"tmpfs", options: options.as_texts(), attributes, out });
        for (name, controllers) in &self.views {
            writer.plan.keeper(Op::MakeDirectory { dir: out, name: &c(name), mode: 0o755 });
            for link in controllers.as_texts().iter().filter(|link| link.to_bytes() != name.as_bytes()) {
                writer.plan.keeper(Op::MakeSymlink { dir: out, name: link, target: &c(name) });
            }
        }
        writer.plan.keeper(Op::EndMaking {});
        let (clear, propagation, recursive) = (0, 0, false);
        writer.plan.keeper(Op::SetMountAttributes { mount: out, set: RDONLY, clear, propagation, recursive });
        out
    }

    fn new_views(&self, mount: &Planned, writer: &mut Writer) -> Vec<Slot> {
        let attributes = mount.options.for_new_mount();
        self.views
            .iter()
            .map(|(name, controllers)| {
                let out = writer.slot(format!("the cgroup hierarchy {name}"));
                self.cgroup_maker.write(c"cgroup", controllers.as_texts(), attributes, out, writer);
                out
            })
            .collect()
    }

    fn attach_views(&self, mount: &Planned, made: &[Slot], bases: &[Base<'_>], writer: &mut Writer) {
        let made = match self.cgroup_maker {
            _ if !made.is_empty() => made.to_vec(),
            Maker::Keeper | Maker::Aside(_) => Vec::new(),
            _ => self.new_views(mount, writer),
        };
        for ((name, _), slot) in self.views.iter().zip(made) {
            let path = c(&format!("{}/{name}", mount.destination));
            let (within, path) = Base::of(bases, &path).map_or((None, path), |(base, rest)| (Some(base), rest));
            writer.plan.child(Op::Attach { mount: slot, within, path: &path, file: false, strict: true });
        }
    }
}

/// A mount that takes others while it is attached nowhere.
pub(super) struct Base<'a> {
    destination: &'a str,
    slot: Slot,
}

impl Base<'_> {
    /// What a path of the container lies below, and the rest of the path from there.
    pub fn of(bases: &[Self], path: &CStr) -> Option<(Slot, CString)> {
        let path = path.to_str().ok()?;
        bases.iter().find_map(|base| {
            let rest = path.strip_prefix(base.destination).filter(|rest| rest.starts_with('/'))?;
            Some((base.slot, c(rest)))
        })
    }
}

/// Those of /dev, /proc and /sys that are mounted anew, with nothing below them that is anybody's: then whatever is
/// below comes after them. None in a mount namespace that others see.
fn bases(planned: &[Planned], around: Surroundings<'_>) -> Vec<usize> {
    if !around.namespaces.is_new(NamespaceKind::Mount) || !around.host.features.detached_trees {
        return Vec::new();
    }
    let is_base = |&index: &usize| {
        let base = &planned[index];
        let is_plain = |mount: &Planned| {
            let is_new = matches!(mount.what, What::New { .. } | What::CgroupFolder);
            is_new && !mount.options.copy_up && mount.options.propagation.is_empty()
        };
        let below =
            |mount: &Planned| is_within(&mount.destination, &base.destination) && mount.destination != base.destination;
        ["/dev", "/proc", "/sys"].contains(&base.destination.as_str())
            && !matches!(base.what, What::Bind { .. } | What::Remount)
            && planned.iter().filter(|mount| mount.destination == base.destination).count() == 1
            && base.options.propagation.is_empty()
            && planned[..index].iter().all(|mount| !below(mount))
            && planned.iter().filter(|mount| below(mount)).all(is_plain)
    };
    (0..planned.len()).filter(is_base).collect()
}

/// SELinux's option word for all that is mounted anew.
fn mount_label(spec: &Spec<'_>, host: &Host) -> Result<Option<CString>> {
    let Some(label) = spec.linux.mount_label.as_deref().filter(|label| !label.is_empty()) else { return Ok(None) };
    if !host.selinux {
        let error = Error::host("linux.mountLabel", "SELinux is not enabled on this machine");
        return Err(error.hint("leave the label out"));
    }
    Ok(Some(c(&format!("context={label}"))))
}

/// Detached clones of the container's groups.
fn clone_views(mount: &Planned, groups: &[Slot], writer: &mut Writer) -> Vec<Slot> {
    let clone = |&dir: &Slot| {
        let out = writer.slot("a cgroup of the container");
        writer.plan.keeper(Op::CloneTree { dir, path: c"", recursive: false, out });
        let (set, clear, propagation, recursive) = (mount.options.for_new_mount(), 0, PRIVATE, false);
        writer.plan.keeper(Op::SetMountAttributes { mount: out, set, clear, propagation, recursive });
        out
    };
    groups.iter().map(clone).collect()
}

impl Planned {
    /// As runc: what the kernel itself fills (proc, sysfs, cgroup) has labels of the policy, and binds have those of their files.
    fn take_label(&mut self, label: &CString) {
        let takes = match &self.what {
            What::Dev => true,
            What::New { fstype, .. } => [c"tmpfs", c"devpts", c"ramfs"].contains(&fstype.as_c_str()),
            _ => false,
        };
        if takes {
            self.options.data.push((usize::MAX, label.clone()));
        }
    }

    /// Whether it excludes another. Two of one place lie over each other in the order of the list, but of the two of an engine's
    /// request one is a mistake; and of what is made at /dev there is one.
    fn excludes(&self, next: &Self, around: Surroundings<'_>) -> bool {
        let are_new = self.is_new() && next.is_new();
        are_new && self.destination == next.destination && (!around.allows_hidden || self.is_at_dev())
    }

    /// Whether it is a mount, and not bits of one that is there.
    fn is_new(&self) -> bool {
        !matches!(self.what, What::Remount)
    }

    fn is_at_dev(&self) -> bool {
        self.is_new() && self.destination == "/dev"
    }

    /// Bits that are not named stay as they are; with mount(2) they would go.
    fn write_remount(&self, path: &CStr, writer: &mut Writer) {
        let mut write = |set: u64, clear: u64, propagation: u64, recursive: bool| {
            writer.plan.child(Op::Remount { path, set, clear, propagation, recursive });
        };
        write(self.options.own.set, self.options.own.clear, 0, false);
        if !self.options.all.is_empty() {
            write(self.options.all.set, self.options.all.clear, 0, true);
        }
        self.options.propagation.iter().for_each(|&(kind, recursive)| write(0, 0, kind, recursive));
    }

    fn is_made_by_keeper(&self) -> bool {
        !matches!(self.what, What::New { maker: Maker::ChildBeforePivot | Maker::ChildAfterPivot, .. })
    }

    fn is_made_before_pivot(&self) -> bool {
        matches!(self.what, What::New { maker: Maker::ChildBeforePivot, .. })
    }

    /// Whether it is a procfs of the container's; a part of one has no kernel parameters.
    fn has_parameters(&self) -> bool {
        let is_proc = matches!(&self.what, What::New { fstype, .. } if fstype.as_c_str() == c"proc");
        is_proc && self.is_made_before_pivot() && !self.options.has("subset")
    }

    fn is_file(&self) -> bool {
        matches!(self.what, What::Bind { file: true, .. })
    }

    /// Bits of a mount that exists.
    fn write_attributes(&self, mount: Slot, writer: &mut Writer) {
        for (change, recursive) in [(self.options.own, false), (self.options.all, true)] {
            let (set, clear, propagation) = (change.set, change.clear, 0);
            if !change.is_empty() {
                writer.plan.keeper(Op::SetMountAttributes { mount, set, clear, propagation, recursive });
            }
        }
    }
}

/// A new file system, made by whoever `mount` says.
fn new_mount(mount: &Planned, writer: &mut Writer) -> Slot {
    let What::New { fstype, source, maker } = &mount.what else {
        // Everything else has got its slot from the keeper.
        return crate::plan::FIRST_OPENED;
    };
    let out = writer.slot(format!("{} for {}", fstype.to_string_lossy(), mount.destination));
    let mut options = TextsBuf::default();
    mount.options.data.iter().for_each(|(_, word)| options.push(word));
    if let Some(source) = source {
        options.push(source);
    }
    let attributes = mount.options.for_new_mount();
    maker.write(fstype, options.as_texts(), attributes, out, writer);
    out
}

/// The slot of a clone that is made in its turn.
fn renew(mount: Slot, place: Slot, writer: &mut Writer) -> Slot {
    let out = writer.slot(writer.names[usize::from(mount.0)].clone());
    writer.plan.child(Op::Renew { mount, place, out });
    out
}

impl Maker {
    /// The step in the list of whoever makes it.
    fn write(self, fstype: &CStr, options: Texts<'_>, attributes: u64, out: Slot, writer: &mut Writer) {
        match self {
            Self::Keeper => writer.plan.keeper(Op::NewMount { fstype, options, attributes, out }),
            Self::Aside(namespace) => {
                let joins = pack_slots(namespace.as_slice());
                writer.plan.keeper(Op::NewMountAside { joins: as_slots(&joins), fstype, options, attributes, out });
            }
            _ => writer.plan.child(Op::NewMount { fstype, options, attributes, out }),
        }
    }
}

fn default_dev() -> Options {
    let mut options = Options::default();
    options.own.set = NOSUID | NOEXEC;
    options
}

fn view(view: &View) -> (String, TextsBuf) {
    let controllers: Vec<CString> = view.controllers.iter().map(|name| c(name)).collect();
    (view.name.clone(), controllers.iter().map(CString::as_c_str).collect())
}

/// `linux.rootfsPropagation` as an MS_ flag.
pub(super) fn root_propagation(spec: &Spec<'_>) -> Result<u64> {
    match spec.linux.rootfs_propagation.as_deref() {
        None | Some("" | "private" | "rprivate") => Ok(PRIVATE),
        Some("slave" | "rslave") => Ok(libc::MS_SLAVE),
        Some("shared" | "rshared") => Ok(libc::MS_SHARED),
        Some("unbindable" | "runbindable") => Ok(libc::MS_UNBINDABLE),
        Some(other) => Err(Error::spec("linux.rootfsPropagation", format!("{other:?} is no kind of propagation"))),
    }
}

/// Mounts that the host makes below a source reach the container only if the specification wants that.
fn propagation_of_binds(spec: &Spec<'_>) -> Result<u64> {
    let wanted = root_propagation(spec)?;
    Ok(if wanted == libc::MS_SLAVE || wanted == libc::MS_SHARED { libc::MS_SLAVE } else { PRIVATE })
}
