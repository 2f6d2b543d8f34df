//! One mount of the specification: checked, its source opened, and who makes it.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use super::elsewhere;
use crate::compile::cgroups::View;
use crate::compile::error::{Error, Result};
use crate::compile::ids::{Ids, Maps, of_mount};
use crate::compile::namespaces::{Namespaces, Origin};
use crate::compile::opened::{Opened, clone_tree, open};
use crate::compile::options::Options;
use crate::compile::paths::{c, is_within, place};
use crate::host::{Host, read_file};
use crate::plan::Slot;
use crate::spec::{Mount, NamespaceKind};
use crate::sys;

/// One mount, checked, its source opened.
#[derive(Debug)]
pub(super) struct Planned {
    pub destination: String,
    pub options: Options,
    pub what: What,
}

#[derive(Debug)]
pub(super) enum What {
    Dev,
    Bind {
        tree: Slot,
        file: bool,
        idmap: Option<Idmap>,
    },
    CgroupFolder,
    /// Bits of what is there by then.
    Remount,
    New {
        fstype: CString,
        source: Option<CString>,
        maker: Maker,
    },
}

/// How a bind shows its owners.
#[derive(Debug)]
pub(super) struct Idmap {
    /// What is mounted below it, too.
    pub recursive: bool,
    /// Its own maps; else those of the container.
    pub maps: Option<Maps>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Maker {
    Keeper,
    /// A helper of the keeper's in this namespace, or in the pid namespace that the keeper's children are in.
    Aside(Option<Slot>),
    ChildBeforePivot,
    ChildAfterPivot,
}

/// What mounts are judged by.
#[derive(Clone, Copy)]
pub(in crate::compile) struct Surroundings<'a> {
    pub host: &'a Host,
    pub namespaces: &'a Namespaces,
    pub ids: &'a Ids<'a>,
    /// Binds are idmapped without being asked, so that owners are the host's.
    pub idmap_binds: bool,
    /// Version 1 hierarchies to show; none on version 2.
    pub views: &'a [View],
    /// They show the container's own group, although its cgroup namespace is the host's.
    pub binds_views: bool,
    /// Device nodes can't be made: the specification binds them.
    pub binds_nodes: bool,
    pub cgroup_v2: bool,
    /// The list may have two mounts of one place, as config.md has it: the later lies over the earlier.
    pub allows_hidden: bool,
    /// What sources are relative to.
    pub bundle: Option<&'a str>,
}

/// Version 1 hierarchies show what the mounter's cgroup namespace sees, and so does version 2.
pub(super) fn cgroup_maker(namespaces: &Namespaces) -> Maker {
    match namespaces.of(NamespaceKind::Cgroup) {
        _ if !namespaces.is_own(NamespaceKind::User) => Maker::ChildAfterPivot,
        Origin::New => Maker::ChildAfterPivot,
        Origin::Joined(slot) => Maker::Aside(Some(slot)),
        Origin::Host => Maker::Keeper,
    }
}

const ONLY_BINDS: &str = "only bind mounts are idmapped";

/// Checks one mount and opens what it binds; `path` is its JSON path.
pub(super) fn plan_mount(
    mount: &Mount<'_>,
    path: &str,
    around: Surroundings<'_>,
    opened: &mut Opened,
) -> Result<Planned> {
    let words = format!("{path}.options");
    // config.md, "Mounts": a relative one is relative to /. Nobody means nothing at all.
    let is_relative = !mount.destination.starts_with('/') && !mount.destination.is_empty();
    let destination = if is_relative { format!("/{}", &*mount.destination) } else { mount.destination.to_string() };
    let destination = place(&destination, &format!("{path}.destination"))?;
    let options = Options::parse(&mount.options, &words)?;
    let kind = mount.kind.as_deref().unwrap_or_default();
    if options.remount {
        // What the file system itself understands can't be changed: it may be the host's as well.
        options.refuse_data(&mount.options, &words, "a remount")?;
        return checked(Planned { destination, options, what: What::Remount }, kind, path);
    }
    if options.bind.is_some() || kind == "bind" {
        options.refuse_data(&mount.options, &words, "a bind mount")?;
        let what = plan_bind(mount, &destination, &options, path, around, opened)?;
        return checked(Planned { destination, options, what }, kind, path);
    }
    let maps = [(&mount.uid_mappings, "uidMappings"), (&mount.gid_mappings, "gidMappings")];
    if let Some((_, name)) = maps.iter().find(|(map, _)| !map.is_empty()) {
        return Err(Error::spec(format!("{path}.{name}"), ONLY_BINDS));
    }
    if options.idmap.is_some() {
        return Err(Error::spec(words, ONLY_BINDS));
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
        Origin::New => usual,
        _ if !around.ids.mapped => usual,
        // The keeper has the host's rights, and so has its helper, which goes where the child will be.
        Origin::Host => Maker::Keeper,
        Origin::Joined(_) if kind == NamespaceKind::Pid => Maker::Aside(None),
        Origin::Joined(slot) => Maker::Aside(Some(slot)),
    };
    match kind {
        "proc" => Ok(of_namespace(NamespaceKind::Pid, Maker::ChildBeforePivot)),
        // Its network part shows the mounter's network namespace.
        "sysfs" => Ok(of_namespace(NamespaceKind::Network, Maker::ChildBeforePivot)),
        "mqueue" => Ok(of_namespace(NamespaceKind::Ipc, Maker::ChildAfterPivot)),
        "cgroup2" => Ok(cgroup_maker(around.namespaces)),
        "tmpfs" | "devpts" => Ok(Maker::ChildAfterPivot),
        "" => Err(Error::spec(field(), "missing")),
        kind if is_known_to_the_kernel(kind) => Ok(Maker::Keeper),
        other => Err(Error::spec(field(), format!("{other}: this kernel has no such file system"))
            .hint("/proc/filesystems lists those that it has")),
    }
}

/// proc_filesystems(5).
fn is_known_to_the_kernel(kind: &str) -> bool {
    let list = read_file("/proc/filesystems").unwrap_or_default();
    list.lines().any(|line| line.rsplit('\t').next() == Some(kind))
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
    let genuine = |wanted: &str| kind == wanted || matches!(mount.what, What::Bind { .. } | What::Remount);
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
    let given = mount.source.as_deref().unwrap_or_default();
    let source = match around.bundle {
        Some(bundle) if !given.starts_with('/') && !given.is_empty() => format!("{bundle}/{given}"),
        _ => given.to_owned(),
    };
    let source = source.as_str();
    if !source.starts_with('/') {
        return Err(Error::spec(field, format!("{source:?} is not an absolute path")));
    }
    // The type alone, without an option word, is rbind to runc and bind to crun; the specification's table has rbind.
    let recursive = options.bind.unwrap_or(true);
    let elsewhere = elsewhere::clone_of(source, recursive);
    let is_clone = elsewhere.is_some();
    let place =
        elsewhere.unwrap_or_else(|| open(source, libc::O_PATH)).map_err(|failure| failure.at(&field, source))?;
    let magic = magic(&place);
    for (parent, wanted) in [("/proc", PROC_MAGIC), ("/sys", SYSFS_MAGIC)] {
        if destination == parent && magic != wanted {
            return Err(Error::spec(field, format!("{source} is not what belongs at {parent}")));
        }
    }
    let stat = sys::stat_at(place.as_raw_fd(), c"");
    let file = !stat.is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFDIR);
    let idmap = match of_mount(mount, path)? {
        Some(maps) => Some(Idmap { recursive: options.idmap == Some(true), maps: Some(maps) }),
        None => plan_idmap(options, &place, recursive, magic, &format!("{path}.options"), around)?
            .map(|recursive| Idmap { recursive, maps: None }),
    };
    let tree = if around.host.privileged && !is_clone {
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
        (Some(_), false) => Err(Error::spec(words, "idmap needs a user namespace, whose mappings it takes")),
        (Some(below), true) => Ok(Some(below)),
        // Owners of what can't be idmapped show as nobody.
        (None, true) if around.idmap_binds && around.host.can_idmap(place, magic) => {
            Ok(Some(recursive && around.host.can_idmap_below(place)))
        }
        (None, _) => Ok(None),
    }
}
