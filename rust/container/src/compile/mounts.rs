//! The mounts of the specification: which side makes each, and in which order they are attached.
//!
//! ```text
//! made by                                  what
//! this process, while compiling            clones of bind sources
//! keeper, with the host's rights           /dev, the folder of cgroup v1, and what shows a namespace that stays
//!                                          the host's, which a new user namespace has no right to mount
//! child, before pivot_root                 proc, sysfs: the kernel wants to see an instance of each in the
//!                                          mount namespace, and the old root has one
//! child, after it                          the rest
//! ```

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use crate::host::Host;
use crate::plan::{Op, Slot, TextsBuf};
use crate::spec::{Mount, NamespaceKind, Spec};
use crate::sys;

use super::cgroups::View;
use super::dev::{self, Node, Places};
use super::error::{Error, Result};
use super::ids::Ids;
use super::namespaces::{Namespaces, Origin, name};
use super::opened::{Opened, Writer, clone_tree, open};
use super::options::{NOEXEC, NOSUID, Options, PRIVATE, RDONLY};
use super::paths::{c, is_prepared, is_within, place};

/// One mount, checked, its source opened.
#[derive(Debug)]
struct Planned {
    destination: String,
    options: Options,
    what: What,
}

#[derive(Debug)]
enum What {
    Dev,
    Bind { tree: Slot, file: bool, idmap: Option<bool> },
    CgroupFolder,
    New { fstype: CString, source: Option<CString>, maker: Maker },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Maker {
    Keeper,
    ChildBeforePivot,
    ChildAfterPivot,
}

/// What mounts are judged by.
#[derive(Clone, Copy)]
pub(super) struct Surroundings<'a> {
    pub host: &'a Host,
    pub namespaces: &'a Namespaces,
    pub ids: &'a Ids<'a>,
    /// Binds are idmapped without being asked, so that owners are the host's.
    pub idmap_binds: bool,
    /// Version 1 hierarchies to show; none on version 2.
    pub views: &'a [View],
    pub cgroup_v2: bool,
}

/// All mounts of a container.
#[derive(Debug)]
pub(super) struct Mounts {
    planned: Vec<Planned>,
    /// MS_ propagation of binds that say nothing of it.
    propagation: u64,
    views: Vec<(String, TextsBuf)>,
    cgroup_maker: Maker,
    nodes: Vec<Node>,
    terminal: bool,
}

/// Slots of what is mounted, in the order of the mounts.
#[derive(Debug, Default)]
pub(super) struct Made {
    slots: Vec<Option<Slot>>,
    views: Vec<Slot>,
    /// The container's /dev, if it is ours.
    pub dev: Option<Slot>,
    /// A procfs that no path leads to yet.
    pub proc: Option<Slot>,
}

impl Mounts {
    /// Checks all and opens what is bound.
    pub fn open(spec: &Spec<'_>, around: Surroundings<'_>, opened: &mut Opened) -> Result<Self> {
        let mut planned: Vec<Planned> = Vec::with_capacity(spec.mounts.len() + 1);
        for (index, mount) in spec.mounts.iter().enumerate() {
            let next = plan_mount(mount, &format!("mounts[{index}]"), around, opened)?;
            if let Some(earlier) = planned.iter().position(|known| known.destination == next.destination) {
                let message = format!("{} is the destination of mounts[{earlier}] already", next.destination);
                return Err(Error::spec(format!("mounts[{index}].destination"), message));
            }
            planned.push(next);
        }
        if !planned.iter().any(|mount| mount.destination == "/dev") {
            planned.insert(0, Planned { destination: "/dev".to_owned(), options: default_dev(), what: What::Dev });
        }
        let mounts = Self {
            planned,
            propagation: propagation_of_binds(spec)?,
            views: around.views.iter().map(view).collect(),
            cgroup_maker: cgroup_maker(around.namespaces),
            nodes: dev::nodes(&spec.linux.devices, around.ids)?,
            terminal: spec.process.as_ref().is_some_and(|process| process.terminal),
        };
        mounts.check()?;
        Ok(mounts)
    }

    fn check(&self) -> Result<()> {
        if !self.has_own_dev() && !self.nodes.is_empty() {
            return Err(Error::spec("linux.devices", "/dev is a bind mount, in which no nodes are made"));
        }
        let has_terminals = self.planned.iter().any(|mount| mount.destination == "/dev/pts");
        if self.terminal && self.has_own_dev() && !has_terminals {
            return Err(Error::spec("process.terminal", "needs a devpts at /dev/pts"));
        }
        Ok(())
    }

    /// Whether /dev is the tmpfs that the keeper fills.
    pub fn has_own_dev(&self) -> bool {
        self.planned.iter().any(|mount| matches!(mount.what, What::Dev))
    }

    /// Destinations in order.
    pub fn destinations(&self) -> impl Iterator<Item = &str> {
        self.planned.iter().map(|mount| mount.destination.as_str())
    }

    /// The keeper's part.
    pub fn write_keeper(&self, userns: Option<Slot>, root: (u32, u32), writer: &mut Writer) -> Made {
        let mut made = Made { slots: vec![None; self.planned.len()], ..Made::default() };
        for (index, mount) in self.planned.iter().enumerate() {
            made.slots[index] = match &mount.what {
                What::Dev => {
                    made.dev = Some(dev::write(&mount.options, &self.nodes, &self.places(), root, writer));
                    made.dev
                }
                What::Bind { tree, idmap, .. } => {
                    self.write_bind(mount, *tree, idmap.zip(userns), writer);
                    Some(*tree)
                }
                What::CgroupFolder => Some(self.write_cgroup_folder(mount, root, &mut made.views, writer)),
                What::New { maker: Maker::Keeper, .. } => {
                    let slot = new_mount(mount, writer);
                    mount.write_propagation(slot, 0, &mut |writer, op| writer.plan.keeper(op), writer);
                    Some(slot)
                }
                What::New { .. } => None,
            };
        }
        made
    }

    /// The child's part that needs the old root in sight.
    pub fn write_before_pivot(&self, made: &mut Made, writer: &mut Writer) {
        for (index, mount) in self.planned.iter().enumerate() {
            if let What::New { fstype, maker: Maker::ChildBeforePivot, .. } = &mount.what {
                let slot = new_mount(mount, writer);
                made.slots[index] = Some(slot);
                // A part of procfs has no kernel parameters.
                if fstype.as_c_str() == c"proc" && !mount.options.has("subset") {
                    made.proc = Some(slot);
                }
            }
        }
    }

    /// The child's part inside the new root: attach all, in order.
    pub fn write_after_pivot(&self, made: &Made, writer: &mut Writer) {
        for (mount, slot) in self.planned.iter().zip(&made.slots) {
            let slot = slot.unwrap_or_else(|| new_mount(mount, writer));
            let path = c(&mount.destination);
            if mount.options.copy_up {
                writer.plan.child(Op::CopyUp { mount: slot, path: &path });
            }
            if matches!(mount.what, What::New { maker: Maker::ChildBeforePivot | Maker::ChildAfterPivot, .. }) {
                mount.write_propagation(slot, 0, &mut |writer, op| writer.plan.child(op), writer);
            }
            let file = matches!(mount.what, What::Bind { file: true, .. });
            let strict = is_prepared(&mount.destination);
            writer.plan.child(Op::Attach { mount: slot, path: &path, file, strict });
            if matches!(mount.what, What::CgroupFolder) {
                self.attach_views(mount, &made.views, writer);
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
                What::Bind { file: true, .. } => places.files.push(c(name)),
                _ => places.directories.push(c(name)),
            }
        }
        if self.terminal {
            places.files.push(c("console"));
        }
        places
    }

    fn write_bind(&self, mount: &Planned, tree: Slot, idmap: Option<(bool, Slot)>, writer: &mut Writer) {
        if let Some((recursive, userns)) = idmap {
            writer.plan.keeper(Op::IdmapMount { mount: tree, userns, recursive });
        }
        mount.write_attributes(tree, self.propagation, &mut |writer, op| writer.plan.keeper(op), writer);
    }

    /// A read-only folder with a place for each hierarchy in which the container has a group.
    fn write_cgroup_folder(
        &self,
        mount: &Planned,
        root: (u32, u32),
        views: &mut Vec<Slot>,
        writer: &mut Writer,
    ) -> Slot {
        let out = writer.slot("the folder of cgroup hierarchies");
        let attributes = mount.options.for_new_mount() & !RDONLY;
        let options: TextsBuf = [c"mode=755", c"size=64k"].into_iter().collect();
        writer.plan.keeper(Op::NewMount { fstype: c"tmpfs", options: options.as_texts(), attributes, out });
        let (uid, gid) = root;
        for (name, controllers) in &self.views {
            writer.plan.keeper(Op::MakeDirectory { dir: out, name: &c(name), mode: 0o755, uid, gid });
            for link in controllers.as_texts().iter().filter(|link| link.to_bytes() != name.as_bytes()) {
                writer.plan.keeper(Op::MakeSymlink { dir: out, name: link, target: &c(name), uid, gid });
            }
        }
        let (clear, propagation, recursive) = (0, 0, false);
        writer.plan.keeper(Op::SetMountAttributes { mount: out, set: RDONLY, clear, propagation, recursive });
        if self.cgroup_maker == Maker::Keeper {
            *views = self.new_views(mount, &mut |writer, op| writer.plan.keeper(op), writer);
        }
        out
    }

    fn new_views(&self, mount: &Planned, put: Put<'_>, writer: &mut Writer) -> Vec<Slot> {
        let attributes = mount.options.for_new_mount();
        self.views
            .iter()
            .map(|(name, controllers)| {
                let out = writer.slot(format!("the cgroup hierarchy {name}"));
                put(writer, Op::NewMount { fstype: c"cgroup", options: controllers.as_texts(), attributes, out });
                out
            })
            .collect()
    }

    fn attach_views(&self, mount: &Planned, made: &[Slot], writer: &mut Writer) {
        let made = match self.cgroup_maker {
            Maker::Keeper => made.to_vec(),
            _ => self.new_views(mount, &mut |writer, op| writer.plan.child(op), writer),
        };
        for ((name, _), slot) in self.views.iter().zip(made) {
            let path = c(&format!("{}/{name}", mount.destination));
            writer.plan.child(Op::Attach { mount: slot, path: &path, file: false, strict: true });
        }
    }
}

/// Appends to the keeper's or to the child's list.
type Put<'f> = &'f mut dyn FnMut(&mut Writer, Op<'_>);

impl Planned {
    /// Bits and propagation of a mount that exists.
    fn write_attributes(&self, mount: Slot, default_propagation: u64, put: Put<'_>, writer: &mut Writer) {
        let own = self.options.own;
        self.write_propagation(mount, default_propagation, put, writer);
        if !own.is_empty() {
            let (set, clear, propagation, recursive) = (own.set, own.clear, 0, false);
            put(writer, Op::SetMountAttributes { mount, set, clear, propagation, recursive });
        }
        let all = self.options.all;
        if !all.is_empty() {
            let (set, clear, propagation, recursive) = (all.set, all.clear, 0, true);
            put(writer, Op::SetMountAttributes { mount, set, clear, propagation, recursive });
        }
    }

    fn write_propagation(&self, mount: Slot, default: u64, put: Put<'_>, writer: &mut Writer) {
        let mut write = |propagation: u64, recursive: bool| {
            put(writer, Op::SetMountAttributes { mount, set: 0, clear: 0, propagation, recursive });
        };
        if self.options.propagation.is_empty() && default != 0 {
            write(default, true);
        }
        self.options.propagation.iter().for_each(|&(kind, recursive)| write(kind, recursive));
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
    let op = Op::NewMount { fstype, options: options.as_texts(), attributes, out };
    if *maker == Maker::Keeper {
        writer.plan.keeper(op)
    } else {
        writer.plan.child(op)
    }
    out
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

fn cgroup_maker(namespaces: &Namespaces) -> Maker {
    if namespaces.is_new_user() && !namespaces.is_new(NamespaceKind::Cgroup) {
        Maker::Keeper
    } else {
        Maker::ChildAfterPivot
    }
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

/// File systems that need no source but the kernel, and are made with the host's rights.
const KERNELS_OWN: [&str; 9] =
    ["ramfs", "hugetlbfs", "bpf", "debugfs", "tracefs", "securityfs", "fusectl", "configfs", "pstore"];

fn plan_mount(mount: &Mount<'_>, path: &str, around: Surroundings<'_>, opened: &mut Opened) -> Result<Planned> {
    let words = format!("{path}.options");
    let destination = place(&mount.destination, &format!("{path}.destination"))?;
    let options = Options::parse(&mount.options, &words)?;
    let kind = mount.kind.as_deref().unwrap_or_default();
    if options.bind.is_some() || kind == "bind" {
        options.refuse_data(&mount.options, &words, "a bind mount")?;
        let what = plan_bind(mount, &destination, &options, path, around, opened)?;
        return checked(Planned { destination, options, what }, kind, path);
    }
    if options.idmap.is_some() {
        return Err(Error::spec(words, "only bind mounts are idmapped"));
    }
    let what = match kind {
        "tmpfs" if destination == "/dev" => What::Dev,
        "cgroup" | "cgroup2" if !around.cgroup_v2 => {
            options.refuse_data(&mount.options, &words, "the folder of cgroup hierarchies")?;
            What::CgroupFolder
        }
        "cgroup" => new("cgroup2", mount, cgroup_maker(around.namespaces)),
        kind => new(kind, mount, maker(kind, path, around)?),
    };
    check_devpts(kind, &options, path, around.ids)?;
    checked(Planned { destination, options, what }, kind, path)
}

fn new(fstype: &str, mount: &Mount<'_>, maker: Maker) -> What {
    let source = mount.source.as_deref().filter(|source| !source.is_empty());
    What::New { fstype: c(fstype), source: source.map(|source| c(&format!("source={source}"))), maker }
}

/// Who has the right to make a file system of this kind.
fn maker(kind: &str, path: &str, around: Surroundings<'_>) -> Result<Maker> {
    let field = || format!("{path}.type");
    let of_namespace = |kind: NamespaceKind, usual: Maker| match around.namespaces.of(kind) {
        Origin::New => Ok(usual),
        _ if !around.ids.mapped => Ok(usual),
        // The keeper stays in the host's pid namespace, and only its children are in a joined one.
        Origin::Joined(_) if kind == NamespaceKind::Pid => {
            let message = format!("a new user namespace can't mount it for a joined {} namespace", name(kind));
            Err(Error::spec(field(), message).hint("leave the new user namespace out"))
        }
        // The keeper is where the child will be, and has the host's rights.
        Origin::Host | Origin::Joined(_) => Ok(Maker::Keeper),
    };
    match kind {
        "proc" => of_namespace(NamespaceKind::Pid, Maker::ChildBeforePivot),
        // Its network part shows the mounter's network namespace.
        "sysfs" => of_namespace(NamespaceKind::Network, Maker::ChildBeforePivot),
        "mqueue" => of_namespace(NamespaceKind::Ipc, Maker::ChildAfterPivot),
        "cgroup2" => Ok(cgroup_maker(around.namespaces)),
        "tmpfs" | "devpts" => Ok(Maker::ChildAfterPivot),
        kind if KERNELS_OWN.contains(&kind) => Ok(Maker::Keeper),
        "" => Err(Error::spec(field(), "missing")),
        other => Err(Error::spec(field(), format!("{other}: not supported"))),
    }
}

fn check_devpts(kind: &str, options: &Options, path: &str, ids: &Ids<'_>) -> Result<()> {
    for (index, word) in options.data.iter().filter(|_| kind == "devpts") {
        let gid = word.to_str().ok().and_then(|word| word.strip_prefix("gid=")).map(str::parse);
        if let Some(gid) = gid {
            let field = format!("{path}.options[{index}]");
            let gid = gid.map_err(|_| Error::spec(&*field, "no group id"))?;
            ids.host_gid(gid, &field)?;
        }
    }
    Ok(())
}

/// Files of procfs that lxcfs and the like replace, as runc allows it.
const REPLACEABLE: [&str; 11] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/net/dev",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/sys/crypto/fips_enabled",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/uptime",
];

/// A false /proc or /sys would be taken at its word by whatever writes there (CVE-2019-16884, CVE-2023-27561).
fn checked(mount: Planned, kind: &str, path: &str) -> Result<Planned> {
    let destination = mount.destination.as_str();
    let field = || format!("{path}.destination");
    let genuine = |wanted: &str| kind == wanted || matches!(mount.what, What::Bind { .. });
    if destination == "/proc" && !genuine("proc") {
        return Err(Error::spec(field(), "/proc takes nothing but proc"));
    }
    if destination == "/sys" && !genuine("sysfs") {
        return Err(Error::spec(field(), "/sys takes nothing but sysfs"));
    }
    if is_within(destination, "/proc") && destination != "/proc" && !REPLACEABLE.contains(&destination) {
        return Err(Error::spec(field(), format!("nothing may be mounted at {destination}")));
    }
    if mount.options.copy_up && !matches!(&mount.what, What::New { fstype, .. } if fstype.as_c_str() == c"tmpfs") {
        return Err(Error::spec(format!("{path}.options"), "tmpcopyup is for tmpfs"));
    }
    Ok(mount)
}

const PROC_MAGIC: i64 = 0x9fa0;
const SYSFS_MAGIC: i64 = 0x6265_6572;

fn plan_bind(
    mount: &Mount<'_>,
    destination: &str,
    options: &Options,
    path: &str,
    around: Surroundings<'_>,
    opened: &mut Opened,
) -> Result<What> {
    let field = format!("{path}.source");
    let source = mount.source.as_deref().unwrap_or_default();
    if !source.starts_with('/') {
        return Err(Error::spec(field, format!("{source:?} is not an absolute path")));
    }
    let place = open(source, libc::O_PATH).map_err(|failure| failure.at(&field, source))?;
    let magic = magic(&place);
    for (parent, wanted) in [("/proc", PROC_MAGIC), ("/sys", SYSFS_MAGIC)] {
        if destination == parent && magic != wanted {
            return Err(Error::spec(field, format!("{source} is not what belongs at {parent}")));
        }
    }
    let stat = sys::stat_at(place.as_raw_fd(), c"");
    let file = !stat.is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFDIR);
    // The type alone, without an option word, is rbind to runc and bind to crun; the specification's table has rbind.
    let recursive = options.bind.unwrap_or(true);
    let idmap = plan_idmap(options, &place, recursive, magic, &format!("{path}.options"), around)?;
    let tree = if around.host.privileged {
        clone_tree(&place, recursive).map_err(|failure| failure.at(&field, source))?
    } else {
        place
    };
    Ok(What::Bind { tree: opened.add(tree, format!("the bind source {source}")), file, idmap })
}

#[allow(clippy::unnecessary_cast, reason = "the field's type differs between machines")]
fn magic(place: &OwnedFd) -> i64 {
    rustix::fs::fstatfs(place.as_fd()).map_or(0, |stat| stat.f_type as i64)
}

/// Whether a bind is idmapped, and with it what is mounted below.
fn plan_idmap(
    options: &Options,
    place: &OwnedFd,
    recursive: bool,
    magic: i64,
    words: &str,
    around: Surroundings<'_>,
) -> Result<Option<bool>> {
    match (options.idmap, around.ids.mapped) {
        (Some(_), false) => Err(Error::spec(words, "idmap needs a new user namespace, whose mappings it takes")),
        (Some(below), true) => Ok(Some(below)),
        // Owners of what can't be idmapped show as nobody.
        (None, true) if around.idmap_binds && around.host.can_idmap(place, magic) => {
            Ok(Some(recursive && around.host.can_idmap_below(place)))
        }
        (None, _) => Ok(None),
    }
}
