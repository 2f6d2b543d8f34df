//! A new container: everything it is made of, and the order of its steps.

use std::ffi::CString;

use crate::host::Host;
use crate::plan::{Op, STDIN, Slot, TextsBuf, as_slots, pack_slots};
use crate::spec::{Mount, NamespaceKind, Process, Spec};

use super::cgroups::{Cgroups, Placement};
use super::clocks;
use super::dev;
use super::error::{Error, Result};
use super::hidden::Hidden;
use super::hooks::Hooks;
use super::identity::{Identity, write_become_root};
use super::ids::Ids;
use super::lifecycle::Lifecycle;
use super::mounts::{Made, Mounts, Order, Surroundings, root_propagation};
use super::namespaces::{Namespaces, Origin, flag};
use super::net_devices::NetDevices;
use super::opened::{Opened, Writer};
use super::options::{PRIVATE, RDONLY};
use super::rootfs::Rootfs;
use super::start::Start;
use super::sysctl::Parameters;
use super::{names, write_keyring, write_placement};

/// Everything that a container is made of, checked and opened.
pub(super) struct Parts<'a> {
    spec: &'a Spec<'a>,
    start: &'a Start<'a>,
    namespaces: &'a Namespaces,
    ids: &'a Ids<'a>,
    hooks: Hooks,
    cgroups: Cgroups,
    rootfs: Rootfs<'a>,
    mounts: Mounts,
    hidden: Hidden,
    net_devices: NetDevices,
    parameters: Parameters,
    identity: Identity<'a>,
    propagation: u64,
    clocks: String,
    parked: bool,
    /// The child is cloned meanwhile (`execute`): what can be made without it comes before it.
    prepares_first: bool,
    /// The groups are made while the child makes its mounts.
    joins_late: bool,
}

/// What is made whether or not there is a child.
struct Prepared {
    made: Made,
    files: Vec<(Slot, CString)>,
    empty: Option<Slot>,
}

/// What the keeper hands to the child.
pub(super) struct Handed {
    root: Slot,
    /// Mounts that nothing needs once the root is made.
    unneeded: Vec<Slot>,
    made: Made,
    files: Vec<(Slot, CString)>,
    empty: Option<Slot>,
    attributes: Option<Slot>,
    placement: Placement,
}

/// config-linux.md, "Cgroup ownership": whoever has namespaces of its own for users and for groups, and may write to what
/// it sees of them, may divide its group.
fn cgroup_owner(
    spec: &Spec<'_>,
    process: &Process<'_>,
    start: &Start<'_>,
    namespaces: &Namespaces,
    ids: &Ids<'_>,
) -> Result<Option<u32>> {
    let is_writable = |mount: &Mount<'_>| {
        let is_group = mount.kind.as_deref().is_some_and(|kind| matches!(kind, "cgroup" | "cgroup2"));
        is_group && !mount.options.iter().any(|word| matches!(&**word, "ro" | "rro"))
    };
    let is_delegated = start.lifecycle.is_some()
        && ids.mapped
        && namespaces.is_new(NamespaceKind::Cgroup)
        && spec.mounts.iter().any(is_writable);
    is_delegated.then(|| ids.host_uid(process.user.uid, "process.user.uid")).transpose()
}

impl<'a> Parts<'a> {
    /// Checks and opens everything.
    pub fn open(
        spec: &'a Spec<'a>,
        process: &'a Process<'a>,
        start: &'a Start<'a>,
        namespaces: &'a Namespaces,
        ids: &'a Ids<'a>,
        host: &Host,
        opened: &mut Opened,
    ) -> Result<Self> {
        let linux = &spec.linux;
        if start.parked && process.terminal {
            return Err(Error::spec("start.parked", "a terminal's size is not known beforehand"));
        }
        if start.init && !namespaces.is_new(NamespaceKind::Pid) {
            return Err(Error::spec("start.init", "needs a new pid namespace: only PID 1 reaps what others leave"));
        }
        names::check(spec, namespaces)?;
        let identity = Identity::of(process, "process", ids, start, host)?;
        let identity = identity.in_container(linux, start.init)?.with_agent(spec, start, opened)?;
        let mut hooks = Hooks::of(spec, start)?;
        let lifecycle = Lifecycle::open(start, std::mem::take(&mut hooks.start), opened)?;
        let lifecycle = if spec.process.is_some() { lifecycle } else { lifecycle.without_command() };
        let identity = identity.with_lifecycle(lifecycle);
        let cgroups = Cgroups::open(linux, start, host, opened)?;
        let cgroups = cgroups.given_to(cgroup_owner(spec, process, start, namespaces, ids)?);
        let (nodes, elsewhere) = dev::nodes(&linux.devices, ids)?;
        let rootfs = Rootfs::open(spec, start, host, opened)?.with_nodes(elsewhere);
        if !namespaces.is_own(NamespaceKind::Mount) && rootfs.path().is_none() {
            return Err(Error::spec("linux.namespaces", "layers need a mount namespace that is not the host's"));
        }
        let idmap_binds = rootfs.is_layered();
        let (views, cgroup_v2) = (cgroups.views(), cgroups.is_unified());
        let binds_views = start.lifecycle.is_some() && !namespaces.is_own(NamespaceKind::Cgroup);
        let bundle = start.bundle.as_deref();
        let around = Surroundings {
            host,
            namespaces,
            ids,
            idmap_binds,
            views,
            binds_views,
            binds_nodes: start.is_of_plain_user(host),
            cgroup_v2,
            allows_hidden: start.lifecycle.is_some(),
            bundle,
        };
        let mounts = Mounts::open(spec, nodes, around, Order::of(start, namespaces, rootfs.path()), opened)?;
        let hidden = Hidden::of(linux)?;
        let net_devices = NetDevices::of(linux, namespaces)?;
        let parameters = Parameters::of(linux, namespaces)?;
        let propagation = root_propagation(spec)?;
        let clocks = clocks::offsets(linux, namespaces)?;
        let parked = start.parked;
        // Older kernels want the keeper to be in a mount namespace of its own, which no child is to be born in.
        let can_prepare = !cgroups.is_unified() && host.features.detached_trees;
        // A hook may want to see the process in its groups, and on version 2 it is born there.
        let joins_late = start.lifecycle.is_some() && !cgroups.is_unified() && !hooks.come_before_pivot();
        Ok(Self {
            spec,
            start,
            namespaces,
            ids,
            hooks,
            cgroups,
            rootfs,
            mounts,
            hidden,
            net_devices,
            parameters,
            identity,
            propagation,
            clocks,
            parked,
            prepares_first: can_prepare && !joins_late,
            joins_late,
        })
    }

    /// The keeper's list.
    pub fn write_keeper(&self, writer: &mut Writer) -> Handed {
        let mut placement = if self.joins_late { Placement::default() } else { self.cgroups.write(writer) };
        let mut unneeded = Vec::new();
        let before = self.prepares_first.then(|| self.write_prepared(&mut unneeded, writer));
        let userns = self.write_clone(placement.clone_into, writer);
        let maps = self.mounts.write_maps(writer);
        self.rootfs.write_place(writer);
        let prepared = before.unwrap_or_else(|| self.write_prepared(&mut unneeded, writer));
        let Prepared { mut made, files, empty } = prepared;
        self.mounts.write_keeper(&mut made, userns, &maps, writer);
        if !self.joins_late {
            self.mounts.write_views(&mut made, &placement.directories, writer);
        }
        if !self.mounts.are_in_order() {
            writer.plan.keeper(Op::Release {});
        }
        let root = self.rootfs.write(userns, self.ids.root(), &mut unneeded, writer);
        self.net_devices.write(writer);
        let attributes = self.identity.write_keeper(writer);
        if !self.parked {
            self.identity.write_gifts(writer);
        }
        writer.plan.keeper(Op::Release {});
        if self.joins_late {
            placement = self.cgroups.write(writer);
            self.mounts.write_views(&mut made, &placement.directories, writer);
            writer.plan.keeper(Op::Release {});
        }
        self.hooks.write_keeper(writer);
        if self.parked {
            writer.plan.keeper(Op::AwaitStdio { socket: STDIN });
            self.identity.write_gifts(writer);
            writer.plan.keeper(Op::Release {});
        }
        Handed { root, unneeded, made, files, empty, attributes, placement }
    }

    /// What the keeper makes without the child.
    fn write_prepared(&self, unneeded: &mut Vec<Slot>, writer: &mut Writer) -> Prepared {
        let ids = self.ids.root();
        let made = self.mounts.write_prepared(ids, writer);
        let covered: Vec<String> = self.mounts.destinations().map(str::to_owned).collect();
        let files = self.rootfs.write_files(&covered, ids, unneeded, writer);
        Prepared { made, files, empty: self.hidden.write_keeper(writer) }
    }

    /// The child in its namespaces, and the slot of its user namespace. From inside a new or a joined one nobody has the
    /// right to join what is the host's: then the child is born in all that it joins.
    fn write_clone(&self, cgroup: Option<Slot>, writer: &mut Writer) -> Option<Slot> {
        if let Origin::Joined(pidfd) = self.namespaces.of(NamespaceKind::Pid) {
            writer.plan.keeper(Op::JoinPidNamespace { pidfd });
        }
        let flags = self.namespaces.clone_flags();
        let joins: Vec<Slot> = self.namespaces.joined().map(|(_, slot)| slot).collect();
        let joins = if self.ids.mapped { pack_slots(&joins) } else { Vec::new() };
        if !joins.is_empty() || self.namespaces.is_new(NamespaceKind::Time) {
            let (joins, clocks) = (as_slots(&joins), self.clocks.as_bytes());
            writer.plan.keeper(Op::CloneFrom { joins, flags, clocks, cgroup });
        } else {
            writer.plan.keeper(Op::Clone { flags, cgroup });
        }
        match self.namespaces.of(NamespaceKind::User) {
            Origin::Host => None,
            Origin::New => Some(self.write_user_namespace(writer)),
            Origin::Joined(slot) => Some(slot),
        }
    }

    fn write_user_namespace(&self, writer: &mut Writer) -> Slot {
        let (uids, gids) = self.ids.texts();
        let (uid_map, gid_map) = (uids.as_bytes(), gids.as_bytes());
        writer.plan.keeper(Op::WriteIdMaps { uid_map, gid_map, deny_setgroups: false });
        let out = writer.slot("the user namespace");
        writer.plan.keeper(Op::OpenUserNamespace { out });
        out
    }

    /// The child's list.
    pub fn write_child(&self, mut handed: Handed, writer: &mut Writer) {
        self.write_alone(&mut handed, writer);
        writer.plan.child(Op::AwaitKeeper {});
        self.mounts.write_places(&mut handed.made, writer);
        if self.ids.mapped {
            write_become_root(writer);
        }
        if self.mounts.are_in_order() {
            self.write_early_mounts(&mut handed, writer);
        }
        write_keyring(self.start, writer);
        if let Some(proc) = handed.made.proc {
            self.parameters.write(proc, writer);
        }
        if !self.mounts.are_in_order() {
            self.write_in_advance(&mut handed, writer);
            writer.plan.child(Op::AwaitKeeper {});
        }
        self.write_root(&mut handed, writer);
        if self.hooks.come_before_pivot() || self.mounts.are_in_order() {
            self.identity.write_bounding_set(writer);
        }
        self.write_hidden(false, &handed, writer);
        if !self.parked {
            self.identity.write_stdio(self.mounts.has_own_dev(), writer);
        }
        self.write_root_attributes(handed.root, writer);
        self.identity.write_last(handed.attributes, self.parked, writer);
    }

    /// What needs the keeper, but not the root file system that it makes meanwhile.
    fn write_in_advance(&self, handed: &mut Handed, writer: &mut Writer) {
        self.mounts.write_in_advance(&mut handed.made, writer);
        self.write_hidden(true, handed, writer);
        if !self.hooks.come_before_pivot() {
            self.identity.write_bounding_set(writer);
        }
    }

    /// None is hidden in advance if the null device is somebody's.
    fn write_hidden(&self, in_advance: bool, handed: &Handed, writer: &mut Writer) {
        let bases = if self.mounts.has_own_dev() { self.mounts.bases(&handed.made) } else { Vec::new() };
        let covers = (handed.empty, self.mounts.at_dev(&handed.made));
        self.hidden.write_child(&bases, in_advance, covers, writer);
    }

    /// The root and all that is mounted in it; hooks come between the two.
    fn write_root(&self, handed: &mut Handed, writer: &mut Writer) {
        let root = handed.root;
        let along = pack_slots(&handed.unneeded);
        let no_pivot = self.start.lifecycle.as_ref().is_some_and(|lifecycle| lifecycle.no_pivot);
        let changes_root = match self.namespaces.of(NamespaceKind::Mount) {
            // The container's files are at their place for everybody.
            Origin::Host => None,
            // Others may have their root in it.
            Origin::Joined(_) => Some(Op::MoveRoot { root }),
            Origin::New if no_pivot => Some(Op::MoveRoot { root }),
            Origin::New => Some(Op::PivotRoot { root, along: as_slots(&along) }),
        };
        match (self.rootfs.path(), changes_root) {
            (Some(path), changes_root) if changes_root.is_none() || self.hooks.come_before_pivot() => {
                let host = writer.slot("the host's root");
                writer.plan.child(Op::EnterRoot { root, path, out: host });
                self.write_files(handed, writer);
                self.hooks.write_child(host, writer);
                if let Some(changes_root) = changes_root {
                    writer.plan.child(Op::TakeRoot { root: host });
                    writer.plan.child(changes_root);
                }
            }
            (_, changes_root) => {
                changes_root.into_iter().for_each(|op| writer.plan.child(op));
                self.write_files(handed, writer);
            }
        }
    }

    /// What needs nothing from the keeper, and goes on while it works.
    fn write_alone(&self, handed: &mut Handed, writer: &mut Writer) {
        self.identity.write_note(writer);
        writer.plan.child(Op::DieWithKeeper {});
        if !self.joins_late {
            self.write_joins(handed, writer);
        }
        if !self.ids.mapped {
            for (kind, fd) in self.namespaces.joined() {
                writer.plan.child(Op::JoinNamespaces { fd, flags: flag(kind) });
            }
        }
        writer.plan.child(Op::NewSession {});
        if self.namespaces.is_new(NamespaceKind::Network) {
            writer.plan.child(Op::LoopbackUp {});
        }
        names::write(self.spec, writer);
        match self.namespaces.of(NamespaceKind::Mount) {
            // Of the copy of the keeper's mounts, which ends with pivot_root.
            Origin::New => writer.plan.child(Op::SetPropagation { flags: PRIVATE, recursive: true }),
            // What is going to lie over / must not spread to others.
            Origin::Joined(_) => writer.plan.child(Op::SetPropagation { flags: libc::MS_SLAVE, recursive: false }),
            Origin::Host => {}
        }
        if !self.mounts.are_in_order() {
            self.write_early_mounts(handed, writer);
        }
    }

    /// The child in its groups, and in a view of them that begins there.
    fn write_joins(&self, handed: &Handed, writer: &mut Writer) {
        write_placement(&handed.placement, writer);
        if self.namespaces.is_new(NamespaceKind::Cgroup) {
            writer.plan.child(Op::Unshare { flags: flag(NamespaceKind::Cgroup) });
        }
    }

    fn write_early_mounts(&self, handed: &mut Handed, writer: &mut Writer) {
        self.mounts.write_before_pivot(&mut handed.made, writer);
        if !self.parameters.is_empty() && handed.made.proc.is_none() {
            let out = writer.slot("a private proc");
            let options = TextsBuf::default();
            writer.plan.child(Op::NewMount { fstype: c"proc", options: options.as_texts(), attributes: 0, out });
            handed.made.proc = Some(out);
        }
    }

    /// What is mounted in the root, where groups are seen.
    fn write_files(&self, handed: &mut Handed, writer: &mut Writer) {
        if self.joins_late {
            writer.plan.child(Op::AwaitKeeper {});
            self.write_joins(handed, writer);
        }
        self.mounts.write_after_pivot(&mut handed.made, writer);
        for (mount, path) in &handed.files {
            // Images have links at /etc/resolv.conf; they are followed within the root.
            writer.plan.child(Op::Attach { mount: *mount, within: None, path, file: true, strict: false });
        }
        self.identity.write_working_directory(writer);
    }

    fn write_root_attributes(&self, mount: Slot, writer: &mut Writer) {
        let mut write = |set: u64, propagation: u64| {
            writer.plan.child(Op::SetMountAttributes { mount, set, clear: 0, propagation, recursive: false });
        };
        // Private and slave it is already: nothing shares with a mount that was made here.
        if matches!(self.propagation, libc::MS_SHARED | libc::MS_UNBINDABLE) {
            write(0, self.propagation);
        }
        if self.rootfs.becomes_readonly() {
            write(RDONLY, 0);
        }
    }
}
