//! An OCI runtime specification becomes a plan.
//!
//! First everything is read, checked and opened, which may fail and then says which field is to blame. Then the
//! operations are written, which can't fail. All choices (user namespace or not, cgroup version, terminal) are made
//! here, once; the executor knows none of them.
//!
//! ```text
//! keeper  cgroups and limits -> Clone -> id maps -> root, mounts, /dev -> limits of the child -> Release
//! child   cgroups -> namespaces, loopback, names, proc, sysfs   (while the keeper works)
//!         AwaitKeeper -> root of the user namespace -> PivotRoot -> mounts -> hidden paths -> stdio
//!         -> read-only root -> ids -> rights -> Exec
//! ```

mod capabilities;
mod cgroups;
mod dev;
mod device_rules;
mod error;
mod hidden;
mod identity;
mod ids;
mod limits;
mod mounts;
mod names;
mod namespaces;
mod opened;
mod options;
mod paths;
mod rootfs;
mod start;
mod sysctl;

use std::os::fd::OwnedFd;

use crate::host::{Host, OLDEST_KERNEL};
use crate::plan::{MAX_OPS, Op, Part, Plan, Slot, TextsBuf};
use crate::seccomp;
use crate::spec::{Linux, NOT_SUPPORTED, NamespaceKind, Process, Spec};

pub use error::{Blame, Error, Result, describe};
pub use start::{File, Rootfs as Layers, Start, Upper};

pub(crate) use capabilities::names as capability_names;
pub(crate) use identity::limit_name;

use cgroups::{Cgroups, Placement};
use hidden::Hidden;
use identity::{Identity, write_become_root};
use ids::Ids;
use mounts::{Made, Mounts, Surroundings, root_propagation};
use namespaces::{Namespaces, flag};
use opened::{Opened, Writer};
use options::{PRIVATE, RDONLY};
use rootfs::Rootfs;
use sysctl::Parameters;

/// A plan with what it needs opened.
#[derive(Debug)]
pub struct Compiled {
    /// See [`crate::plan`].
    pub bytes: Vec<u8>,
    /// For the slots from [`crate::plan::FIRST_OPENED`] on.
    pub descriptors: Vec<OwnedFd>,
    /// What sentences call each slot; the index is the slot's.
    pub names: Vec<String>,
}

/// Writes the plan of a new container: the bytes of config.json and of the start document.
pub fn compile(spec: &[u8], start: &[u8], host: &Host) -> Result<Compiled> {
    let spec: Spec<'_> = error::parse(spec, "")?;
    let start = Start::parse(start)?;
    check_version(&spec)?;
    host.check_kernel(OLDEST_KERNEL, "a container")?;
    let process = spec.process.as_ref().ok_or_else(|| Error::spec("process", "missing"))?;
    let mut opened = Opened::new();
    let namespaces = Namespaces::open(&spec.linux, &mut opened)?;
    let ids = Ids::of(&spec.linux, &namespaces)?;
    let parts = Parts::open(&spec, process, &start, &namespaces, &ids, host, &mut opened)?;
    let mut writer = opened.into_writer()?;
    let handed = parts.write_keeper(&mut writer);
    parts.write_child(handed, &mut writer);
    finish(writer)
}

/// Writes the plan of one more process in a running container: its own specification, the process, the start
/// document, and a pidfd of its PID 1.
pub fn compile_exec(spec: &[u8], process: &[u8], start: &[u8], pidfd: OwnedFd, host: &Host) -> Result<Compiled> {
    let spec: Spec<'_> = error::parse(spec, "")?;
    let process: Process<'_> = error::parse(process, "process")?;
    let start = Start::parse(start)?;
    // What is joined by path is the container's by now, and reached through its first process.
    let namespaces = Namespaces::open(&spec.linux, &mut Opened::new())?;
    let ids = Ids::of(&spec.linux, &namespaces)?;
    let mut opened = Opened::new();
    let first = opened.add(pidfd, "the container's first process");
    let placement = cgroups::open_existing(&spec.linux, &start.id, host, &mut opened)?;
    let identity = Identity::of(&process, "process", &ids, host)?;
    let identity = identity.in_container(spec.linux.personality.as_ref(), filter(&spec.linux)?, false)?;
    let mut writer = opened.into_writer()?;
    write_exec(&namespaces, first, &placement, &identity, &start, &mut writer);
    finish(writer)
}

fn finish(writer: Writer) -> Result<Compiled> {
    let Writer { plan, descriptors, names } = writer;
    let bytes = plan.finish();
    // Our own words, read back: a plan that is too long is found here and not by the keeper.
    match Plan::parse(&bytes) {
        Ok(parsed) if parsed.len(Part::Keeper) + parsed.len(Part::Child) <= MAX_OPS => {}
        _ => return Err(Error::spec("", format!("more than {MAX_OPS} steps or a slot too many"))),
    }
    Ok(Compiled { bytes, descriptors, names })
}

fn check_version(spec: &Spec<'_>) -> Result<()> {
    let mut numbers = spec.oci_version.split('.');
    let known = numbers.next() == Some("1") && numbers.next().is_some_and(|minor| minor.parse::<u32>().is_ok());
    if known {
        return Ok(());
    }
    Err(Error::spec("ociVersion", format!("{:?} is no version that pyrt knows", &*spec.oci_version))
        .hint("it knows 1.0 to 1.2"))
}

fn filter(linux: &Linux<'_>) -> Result<Option<seccomp::Filter>> {
    let Some(json) = linux.seccomp else { return Ok(None) };
    seccomp::compile(json.get().as_bytes()).map(Some).map_err(|error| match error {
        seccomp::Error::Refused { field, problem } => Error::spec(field, problem),
        error => Error::spec("linux.seccomp", error.to_string()),
    })
}

/// Everything that a container is made of, checked and opened.
struct Parts<'a> {
    spec: &'a Spec<'a>,
    id: &'a str,
    namespaces: &'a Namespaces,
    ids: &'a Ids<'a>,
    cgroups: Cgroups,
    rootfs: Rootfs<'a>,
    mounts: Mounts,
    hidden: Hidden,
    parameters: Parameters,
    identity: Identity<'a>,
    propagation: u64,
}

/// What the keeper hands to the child.
struct Handed {
    root: Slot,
    made: Made,
    files: Vec<(Slot, std::ffi::CString)>,
    covers: Option<(Slot, Slot)>,
    placement: Placement,
}

impl<'a> Parts<'a> {
    fn open(
        spec: &'a Spec<'a>,
        process: &'a Process<'a>,
        start: &'a Start<'a>,
        namespaces: &'a Namespaces,
        ids: &'a Ids<'a>,
        host: &Host,
        opened: &mut Opened,
    ) -> Result<Self> {
        let linux = &spec.linux;
        if let Some((clock, _)) = linux.time_offsets.first() {
            return Err(Error::spec(format!("linux.timeOffsets.{clock}"), NOT_SUPPORTED));
        }
        if start.init && !namespaces.is_new(NamespaceKind::Pid) {
            return Err(Error::spec("start.init", "needs a new pid namespace: only PID 1 reaps what others leave"));
        }
        names::check(spec, namespaces)?;
        let identity = Identity::of(process, "process", ids, host)?;
        let identity = identity.in_container(linux.personality.as_ref(), filter(linux)?, start.init)?;
        let cgroups = Cgroups::open(linux, &start.id, host, opened)?;
        let rootfs = Rootfs::open(spec, start, ids, host, opened)?;
        let idmap_binds = rootfs.is_layered();
        let (views, cgroup_v2) = (cgroups.views(), cgroups.is_unified());
        let around = Surroundings { host, namespaces, ids, idmap_binds, views, cgroup_v2 };
        let mounts = Mounts::open(spec, around, opened)?;
        let hidden = Hidden::open(linux, mounts.has_own_dev(), host, opened)?;
        let parameters = Parameters::of(linux, namespaces)?;
        let propagation = root_propagation(spec)?;
        let id = &*start.id;
        Ok(Self { spec, id, namespaces, ids, cgroups, rootfs, mounts, hidden, parameters, identity, propagation })
    }

    fn write_keeper(&self, writer: &mut Writer) -> Handed {
        let placement = self.cgroups.write(writer);
        if self.ids.mapped {
            self.write_joins_of_keeper(writer);
        }
        if let namespaces::Origin::Joined(pidfd) = self.namespaces.of(NamespaceKind::Pid) {
            writer.plan.keeper(Op::JoinPidNamespace { pidfd });
        }
        let (flags, cgroup) = (self.namespaces.clone_flags(), placement.clone_into);
        writer.plan.keeper(Op::Clone { flags, cgroup });
        let userns = self.ids.mapped.then(|| self.write_user_namespace(writer));
        let ids = self.ids.root();
        let root = self.rootfs.write(userns, ids, writer);
        let made = self.mounts.write_keeper(userns, ids, writer);
        let covered: Vec<String> = self.mounts.destinations().map(str::to_owned).collect();
        let files = self.rootfs.write_files(&covered, ids, writer);
        let covers = self.hidden.write_keeper(made.dev, writer);
        self.identity.write_keeper(writer);
        writer.plan.keeper(Op::Release {});
        Handed { root, made, files, covers, placement }
    }

    /// From inside a new user namespace nobody has the right to join the host's: the child is born there.
    fn write_joins_of_keeper(&self, writer: &mut Writer) {
        for (kind, fd) in self.namespaces.joined().filter(|&(kind, _)| kind != NamespaceKind::Pid) {
            writer.plan.keeper(Op::JoinNamespaces { fd, flags: flag(kind) });
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

    fn write_child(&self, mut handed: Handed, writer: &mut Writer) {
        self.write_alone(&mut handed, writer);
        writer.plan.child(Op::AwaitKeeper {});
        if self.ids.mapped {
            write_become_root(writer);
        }
        write_keyring(self.id, writer);
        if let Some(proc) = handed.made.proc {
            self.parameters.write(proc, writer);
        }
        writer.plan.child(Op::PivotRoot { root: handed.root });
        self.write_files(&handed, writer);
        self.hidden.write_child(handed.covers, writer);
        self.identity.write_stdio(handed.made.dev.is_some(), writer);
        self.write_root_attributes(handed.root, writer);
        self.identity.write_last(writer);
    }

    /// What needs nothing from the keeper, and goes on while it works.
    fn write_alone(&self, handed: &mut Handed, writer: &mut Writer) {
        write_placement(&handed.placement, writer);
        if self.namespaces.is_new(NamespaceKind::Cgroup) {
            writer.plan.child(Op::Unshare { flags: flag(NamespaceKind::Cgroup) });
        }
        if !self.ids.mapped {
            for (kind, fd) in self.namespaces.joined().filter(|&(kind, _)| kind != NamespaceKind::Pid) {
                writer.plan.child(Op::JoinNamespaces { fd, flags: flag(kind) });
            }
        }
        writer.plan.child(Op::NewSession {});
        if self.namespaces.is_new(NamespaceKind::Network) {
            writer.plan.child(Op::LoopbackUp {});
        }
        names::write(self.spec, writer);
        // Of the copy of the keeper's mounts, which ends with pivot_root.
        writer.plan.child(Op::SetPropagation { flags: PRIVATE });
        self.mounts.write_before_pivot(&mut handed.made, writer);
        if !self.parameters.is_empty() && handed.made.proc.is_none() {
            let out = writer.slot("a private proc");
            let options = TextsBuf::default();
            writer.plan.child(Op::NewMount { fstype: c"proc", options: options.as_texts(), attributes: 0, out });
            handed.made.proc = Some(out);
        }
    }

    fn write_files(&self, handed: &Handed, writer: &mut Writer) {
        self.mounts.write_after_pivot(&handed.made, writer);
        for (mount, path) in &handed.files {
            // Images have links at /etc/resolv.conf; they are followed within the root.
            writer.plan.child(Op::Attach { mount: *mount, path, file: true, strict: false });
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

fn write_placement(placement: &Placement, writer: &mut Writer) {
    writer.plan.child(Op::DieWithKeeper {});
    placement.tasks.iter().for_each(|&tasks| writer.plan.child(Op::JoinCgroup { tasks }));
}

fn write_keyring(id: &str, writer: &mut Writer) {
    writer.plan.child(Op::JoinKeyring { name: &paths::c(&format!("_ses.{id}")) });
}

fn write_exec(
    namespaces: &Namespaces,
    first: Slot,
    placement: &Placement,
    identity: &Identity<'_>,
    start: &Start<'_>,
    writer: &mut Writer,
) {
    if namespaces.is_own(NamespaceKind::Pid) {
        writer.plan.keeper(Op::JoinPidNamespace { pidfd: first });
    }
    writer.plan.keeper(Op::Clone { flags: 0, cgroup: placement.clone_into });
    identity.write_keeper(writer);
    writer.plan.keeper(Op::Release {});
    identity.write_first_affinity(writer);
    write_placement(placement, writer);
    writer.plan.child(Op::JoinNamespaces { fd: first, flags: namespaces.join_flags() });
    writer.plan.child(Op::AwaitKeeper {});
    if namespaces.is_new_user() {
        write_become_root(writer);
    }
    writer.plan.child(Op::NewSession {});
    write_keyring(&start.id, writer);
    identity.write_stdio(false, writer);
    identity.write_last_affinity(writer);
    identity.write_last(writer);
}

/// For [`crate::host`], which opens the hierarchies' roots.
pub(crate) fn open_path(path: &str) -> std::result::Result<OwnedFd, crate::sys::Errno> {
    opened::open(path, libc::O_PATH | libc::O_DIRECTORY).map_err(|failure| failure.0)
}
