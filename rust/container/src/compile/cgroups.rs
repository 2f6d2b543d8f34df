//! The container's cgroups: made by the keeper, limited, and joined by the child before anything else.
//!
//! On version 1 the child writes "0" to each `tasks` file: a pid written to `cgroup.procs` waits for a grace period
//! of 5 to 11 ms. On version 2 clone3(2) puts it there.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use crate::host::{Hierarchy, Host, Layout};
use crate::plan::{Op, Slot};
use crate::spec::{Linux, Resources, Spec};
use crate::sys::{self, Errno};

use super::device_rules;
use super::error::{Error, Result, describe};
use super::limits::{self, Setting};
use super::opened::{Again, Failure, Opened, Writer, open_at, own};
use super::paths::c;
use super::start::Start;

const DIRECTORY: i32 = libc::O_PATH | libc::O_DIRECTORY;
/// Below it are the groups of containers whose specification names no place.
const HOME: &str = "pyrt";

/// Where the groups lie below the root of each hierarchy.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    parents: Vec<CString>,
    name: CString,
}

impl Place {
    fn of(path: Option<&str>, id: &str) -> Result<Self> {
        let path = match path {
            None | Some("") => format!("/{HOME}/{id}"),
            Some(path) if path.starts_with('/') => path.to_owned(),
            Some(path) => format!("/{HOME}/{path}"),
        };
        let wrong = |message: &str| Err(Error::spec("linux.cgroupsPath", message));
        if path.split(':').count() == 3 {
            return wrong("systemd's slice:prefix:name is not supported");
        }
        if path.split('/').any(|part| part == "..") {
            return wrong("contains ..");
        }
        let parts = path.split('/').filter(|part| !part.is_empty() && *part != ".");
        let mut parents: Vec<CString> = parts.map(|part| CString::new(part).unwrap_or_default()).collect();
        match parents.pop() {
            Some(name) => Ok(Self { parents, name }),
            None => wrong("the root of the hierarchies is no place for a container"),
        }
    }

    fn text(&self) -> String {
        let parts = self.parents.iter().chain([&self.name]);
        parts.map(|part| format!("/{}", part.to_string_lossy())).collect()
    }
}

/// One group, in one hierarchy.
#[derive(Debug)]
struct Group {
    parent: Slot,
    label: String,
    /// File, value, whether a refusal is let pass.
    writes: Vec<(CString, String)>,
}

/// What is mounted at /sys/fs/cgroup for one hierarchy of version 1.
#[derive(Debug)]
pub(super) struct View {
    /// Name of the directory.
    pub name: String,
    /// Mount options: its controllers.
    pub controllers: Vec<String>,
}

/// All groups of a container that is to be made.
#[derive(Debug)]
pub(super) struct Cgroups {
    name: CString,
    groups: Vec<Group>,
    unified: bool,
    views: Vec<View>,
    /// Version 2: decides which devices may be opened and made.
    device_program: Option<Vec<u8>>,
    /// Version 2: who may make groups below it.
    owner: Option<u32>,
}

/// What the keeper has made of them.
#[derive(Debug, Default)]
pub(super) struct Placement {
    /// For clone3(2), on version 2.
    pub clone_into: Option<Slot>,
    /// For the child, on version 1.
    pub tasks: Vec<Slot>,
    /// The groups themselves, in the order of [`Cgroups::views`].
    pub directories: Vec<Slot>,
}

impl Cgroups {
    /// Opens the parents, which are made if need be.
    pub fn open(linux: &Linux<'_>, start: &Start<'_>, host: &Host, opened: &mut Opened) -> Result<Self> {
        let place = Place::of(linux.cgroups_path.as_deref(), &start.id)?;
        let unified = host.cgroups.layout() == Layout::V2;
        let none = Resources::default();
        let resources = linux.resources.as_ref().unwrap_or(&none);
        let mut wanted = settings(resources, host)?;
        let device_program = if unified { device_rules::for_v2(&resources.devices)? } else { None };
        let mut groups = Vec::new();
        let mut views = Vec::new();
        for hierarchy in needed(&wanted, start, host)? {
            let is_mine = |setting: &Setting| unified || hierarchy.controls(&setting.controller);
            let (mine, rest) = wanted.into_iter().partition(is_mine);
            wanted = rest;
            let is_free = start.is_of_plain_user(host) && mine.is_empty();
            match open_group(hierarchy, &place, mine, unified, opened) {
                Ok(group) => groups.push(group),
                // A plain user has none, and nothing is asked of it.
                Err(error) if is_free && error.is_refusal() => continue,
                Err(error) => return Err(error),
            }
            if !unified {
                views.push(View { name: hierarchy.name().to_owned(), controllers: hierarchy.controllers.clone() });
            }
        }
        Ok(Self { name: place.name, groups, unified, views, device_program, owner: None })
    }

    /// The container's user, as the host numbers it, is handed the group of version 2.
    pub fn given_to(self, owner: Option<u32>) -> Self {
        Self { owner: owner.filter(|_| self.unified), ..self }
    }

    /// Whether this is version 2 alone.
    pub fn is_unified(&self) -> bool {
        self.unified
    }

    /// Version 1 hierarchies in which the container has a group of its own.
    pub fn views(&self) -> &[View] {
        &self.views
    }

    /// The keeper's part: make, limit, open.
    pub fn write(&self, writer: &mut Writer) -> Placement {
        let mut placement = Placement::default();
        for group in &self.groups {
            let out = writer.slot(&*group.label);
            writer.plan.keeper(Op::CgroupCreate { parent: group.parent, name: &self.name, out });
            for (file, value) in &group.writes {
                let data = value.as_bytes();
                writer.plan.keeper(Op::WriteAt { dir: out, name: file, data, optional: false });
            }
            if let Some(program) = &self.device_program {
                writer.plan.keeper(Op::AttachDeviceProgram { cgroup: out, program });
            }
            if let Some(uid) = self.owner {
                for name in delegated() {
                    writer.plan.keeper(Op::DelegateCgroup { cgroup: out, name: &name, uid });
                }
            }
            if self.unified {
                placement.clone_into = Some(out);
            } else {
                let tasks = writer.slot(&*group.label);
                writer.plan.keeper(Op::OpenAt { dir: out, name: c"tasks", flags: libc::O_WRONLY, out: tasks });
                placement.tasks.push(tasks);
                placement.directories.push(out);
            }
        }
        placement
    }
}

/// The group, and the files in it that go with it: this kernel's list, or what all have (cgroups(7), "Cgroup delegation").
fn delegated() -> Vec<CString> {
    let list = std::fs::read_to_string("/sys/kernel/cgroup/delegate");
    let list = list.unwrap_or_else(|_| "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n".to_owned());
    std::iter::once("").chain(list.lines()).map(c).collect()
}

/// Opens the existing groups of a container for one more process.
pub(super) fn open_existing(
    linux: &Linux<'_>,
    start: &Start<'_>,
    host: &Host,
    opened: &mut Opened,
) -> Result<Placement> {
    let place = Place::of(linux.cgroups_path.as_deref(), &start.id)?;
    let none = Resources::default();
    let wanted = settings(linux.resources.as_ref().unwrap_or(&none), host)?;
    let unified = host.cgroups.layout() == Layout::V2;
    let mut placement = Placement::default();
    for hierarchy in needed(&wanted, start, host)? {
        let label = label(&place, hierarchy, unified);
        let missing = |failure: Failure| {
            let error = Error::host("linux.cgroupsPath", format!("{label}: {}", describe(failure.0)));
            error.because(failure.0, format!("{}{}", hierarchy.mount, place.text()))
        };
        let dir = duplicate(hierarchy.root.as_fd()).map_err(missing)?;
        let mut parts = place.parents.iter().chain([&place.name]);
        let mut dir = match parts.try_fold(dir, |dir, part| open_at(dir.as_fd(), part, DIRECTORY)) {
            Ok(group) => group,
            Err(Failure(Errno(libc::ENOENT))) if start.is_of_plain_user(host) => continue,
            Err(failure) => return Err(missing(failure)),
        };
        for part in below(hierarchy, start) {
            dir = open_at(dir.as_fd(), &c(part), DIRECTORY).map_err(|failure| {
                Error::host("start.lifecycle.cgroups", format!("{part} in {label}: {}", describe(failure.0)))
            })?;
        }
        if unified {
            placement.clone_into = Some(opened.add(dir, label));
        } else {
            let tasks = open_at(dir.as_fd(), c"tasks", libc::O_WRONLY).map_err(missing)?;
            placement.tasks.push(opened.add(tasks, label));
        }
    }
    Ok(placement)
}

/// The way from the container's group to the one that a process is to join.
fn below<'s>(hierarchy: &'s Hierarchy, start: &'s Start<'_>) -> impl Iterator<Item = &'s str> {
    let chosen = start.lifecycle.as_ref().and_then(|lifecycle| {
        lifecycle.cgroups.iter().find(|(controller, _)| controller.is_empty() || hierarchy.controls(controller))
    });
    let path = chosen.map_or("", |(_, path)| &**path);
    path.split('/').filter(|part| !part.is_empty() && *part != ".")
}

/// Where a container's group is in one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// What it controls there; on version 2 all that the root has.
    pub controllers: Vec<String>,
    /// Absolute path.
    pub path: String,
}

/// The groups of a container of the OCI runtime command.
pub fn directories(spec: &Spec<'_>, id: &str, host: &Host) -> Result<Vec<Directory>> {
    let place = Place::of(spec.linux.cgroups_path.as_deref(), id)?.text();
    let hierarchies: Vec<&Hierarchy> = match host.cgroups.layout() {
        Layout::V2 => host.cgroups.v2.iter().collect(),
        _ => host.cgroups.v1.iter().collect(),
    };
    let directory = |hierarchy: &Hierarchy| Directory {
        controllers: hierarchy.controllers.clone(),
        path: format!("{}{place}", hierarchy.mount),
    };
    Ok(hierarchies.into_iter().map(directory).collect())
}

/// The files that limits of a running container are written to, without its device rules: controller, file, value.
pub fn limits(resources: &[u8], host: &Host) -> Result<Vec<(String, String, String)>> {
    let resources = super::read_resources(resources)?;
    let unified = host.cgroups.layout() == Layout::V2;
    let settings = if unified { limits::for_v2(&resources) } else { limits::for_v1(&resources) }?;
    Ok(settings.into_iter().map(|setting| (setting.controller, setting.file, setting.value)).collect())
}

fn settings(resources: &Resources<'_>, host: &Host) -> Result<Vec<Setting>> {
    if host.cgroups.layout() == Layout::V2 {
        return limits::for_v2(resources);
    }
    let mut settings = limits::for_v1(resources)?;
    if let Some(swap) = settings.iter().find(|setting| setting.file == "memory.memsw.limit_in_bytes") {
        let is_mounted = host.cgroups.v1.iter().any(|hierarchy| hierarchy.controls("memory"));
        if is_mounted && !host.swap_accounting {
            let message = "this kernel does not count swap (swapaccount=0)";
            return Err(Error::host(&*swap.field, message).hint("leave the limit of swap out"));
        }
    }
    settings.extend(device_rules::for_v1(&resources.devices)?);
    Ok(settings)
}

/// Hierarchies of everything that is limited, and of memory and pids in any case: their counters say how a
/// container ended. Version 2 has but one, which also lets all of a container be killed at once. The OCI runtime
/// command takes all: engines look for their own figures in each.
fn needed<'h>(settings: &[Setting], start: &Start<'_>, host: &'h Host) -> Result<Vec<&'h Hierarchy>> {
    if host.cgroups.layout() == Layout::V2 {
        let hierarchy: Vec<&Hierarchy> = host.cgroups.v2.iter().collect();
        // Of the cgroup.* files there is one in every group.
        check_controllers(settings.iter().filter(|setting| setting.controller != "cgroup"), &hierarchy)?;
        return Ok(hierarchy);
    }
    let hierarchies: Vec<&Hierarchy> = host.cgroups.v1.iter().collect();
    check_controllers(settings.iter(), &hierarchies)?;
    let is_limited = |hierarchy: &Hierarchy| settings.iter().any(|setting| hierarchy.controls(&setting.controller));
    let counts = |hierarchy: &Hierarchy| hierarchy.controls("memory") || hierarchy.controls("pids");
    let all = start.lifecycle.is_some();
    Ok(hierarchies.into_iter().filter(|hierarchy| all || is_limited(hierarchy) || counts(hierarchy)).collect())
}

fn check_controllers<'s>(mut settings: impl Iterator<Item = &'s Setting>, hierarchies: &[&Hierarchy]) -> Result<()> {
    let missing = settings.find(|setting| !hierarchies.iter().any(|known| known.controls(&setting.controller)));
    missing.map_or(Ok(()), |Setting { controller, field, .. }| {
        let message = format!("no cgroup hierarchy with the controller {controller} is mounted");
        Err(Error::host(&**field, message).hint(hint_of_missing(controller)))
    })
}

/// Some are limited without being asked for.
fn hint_of_missing(controller: &str) -> &'static str {
    match controller {
        "pids" => "mount it, or do without a limit on processes (--pids-limit -1)",
        "devices" => "mount it: it keeps containers away from this machine's devices",
        _ => "mount it, or leave the limit out",
    }
}

fn label(place: &Place, hierarchy: &Hierarchy, unified: bool) -> String {
    if unified {
        return format!("the cgroup {}", place.text());
    }
    format!("the cgroup {} in {}", place.text(), hierarchy.name())
}

fn open_group(
    hierarchy: &Hierarchy,
    place: &Place,
    settings: Vec<Setting>,
    unified: bool,
    opened: &mut Opened,
) -> Result<Group> {
    let mut writes: Vec<(CString, String)> = Vec::with_capacity(settings.len());
    let mut walk = Walk::begin(hierarchy, &settings, unified)?;
    let dir = open_parents(hierarchy, &place.parents, &mut walk)?;
    let again = walk.again(&place.parents);
    for (file, value) in walk.inherited() {
        if !settings.iter().any(|setting| setting.file == file) {
            writes.push((c(file), value));
        }
    }
    writes.extend(settings.into_iter().map(|setting| {
        let (file, value) = setting.choose(|file| sys::stat_at(dir.as_raw_fd(), &c(file)).is_ok());
        (c(&file), value)
    }));
    sys::may_make_in(dir.as_raw_fd()).map_err(|errno| cannot(hierarchy, Failure(errno)))?;
    let parent = opened.add(dir, format!("the parents of {}", label(place, hierarchy, unified)));
    *opened.again_of(parent) = again;
    Ok(Group { parent, label: label(place, hierarchy, unified), writes })
}

/// The folder in which groups are made; it is made if need be.
fn open_parents(hierarchy: &Hierarchy, parents: &[CString], walk: &mut Walk<'_>) -> Result<OwnedFd> {
    let mut dir = duplicate(hierarchy.root.as_fd()).map_err(|failure| cannot(hierarchy, failure))?;
    for part in parents {
        walk.enable(dir.as_fd())?;
        dir = make_and_open(dir.as_fd(), part).map_err(|failure| cannot(hierarchy, failure))?;
        walk.arrive(dir.as_fd())?;
    }
    walk.enable(dir.as_fd())?;
    Ok(dir)
}

/// The same for another container; `None` if the hierarchy is not known any more.
pub(super) fn open_parents_again(
    mount: &str,
    parents: &[CString],
    controllers: &[String],
    host: &Host,
) -> Option<OwnedFd> {
    let hierarchy = host.cgroups.v1.iter().chain(&host.cgroups.v2).find(|known| known.mount == mount)?;
    let controllers = controllers.iter().map(String::as_str).collect();
    open_parents(hierarchy, parents, &mut Walk { hierarchy, controllers, cpuset: None }).ok()
}

fn cannot(hierarchy: &Hierarchy, failure: Failure) -> Error {
    let error = Error::host("linux.cgroupsPath", format!("{}: {}", hierarchy.mount, describe(failure.0)));
    let error = error.because(failure.0, &*hierarchy.mount);
    match failure.0.0 {
        libc::EROFS => error.hint("remount the hierarchy writable"),
        libc::EACCES | libc::EPERM => {
            let scope = "systemd-run --user --scope -p Delegate=yes";
            error.hint(format!("containers are made by root, those of pyrt-runtime also in a delegated group: {scope}"))
        }
        libc::EBUSY => {
            error.hint("a group with processes in it passes no controllers on: be in one below or beside it")
        }
        _ => error,
    }
}

fn duplicate(fd: BorrowedFd<'_>) -> std::result::Result<OwnedFd, Failure> {
    sys::dup_above(fd.as_raw_fd(), 3).map(own).map_err(Failure)
}

fn make_and_open(dir: BorrowedFd<'_>, name: &CStr) -> std::result::Result<OwnedFd, Failure> {
    match open_at(dir, name, DIRECTORY) {
        Err(Failure(Errno(libc::ENOENT))) => {}
        other => return other,
    }
    match sys::mkdirat(dir.as_raw_fd(), name, 0o755) {
        // Somebody else was quicker.
        Ok(()) | Err(Errno(libc::EEXIST)) => open_at(dir, name, DIRECTORY),
        Err(errno) => Err(Failure(errno)),
    }
}

/// What has to be set on the way down from a hierarchy's root, so that the group below works.
struct Walk<'h> {
    hierarchy: &'h Hierarchy,
    /// Version 2: controllers that have to be passed on.
    controllers: Vec<&'h str>,
    /// Version 1's cpuset: a new group has no processors and no memory until it is given some.
    cpuset: Option<[String; 2]>,
}

const CPUSET: [&CStr; 2] = [c"cpuset.cpus", c"cpuset.mems"];

impl<'h> Walk<'h> {
    fn begin(hierarchy: &'h Hierarchy, settings: &[Setting], unified: bool) -> Result<Self> {
        let root = hierarchy.root.as_fd();
        let is_used =
            |name: &str| matches!(name, "memory" | "pids") || settings.iter().any(|setting| setting.controller == name);
        let mut walk = Self { hierarchy, controllers: Vec::new(), cpuset: None };
        if unified {
            walk.controllers = hierarchy.controllers.iter().map(String::as_str).filter(|name| is_used(name)).collect();
        } else if hierarchy.controls("cpuset") {
            walk.cpuset = Some([walk.read(root, CPUSET[0])?, walk.read(root, CPUSET[1])?]);
        }
        Ok(walk)
    }

    fn read(&self, dir: BorrowedFd<'_>, name: &CStr) -> Result<String> {
        let mut buffer = [0; 4096];
        let file = open_at(dir, name, libc::O_RDONLY).map_err(|failure| cannot(self.hierarchy, failure))?;
        let length =
            sys::read(file.as_raw_fd(), &mut buffer).map_err(|errno| cannot(self.hierarchy, Failure(errno)))?;
        Ok(String::from_utf8_lossy(&buffer[..length]).trim().to_owned())
    }

    fn write(&self, dir: BorrowedFd<'_>, name: &CStr, text: &str) -> Result<()> {
        sys::write_at(dir.as_raw_fd(), name, text.as_bytes()).map_err(|errno| cannot(self.hierarchy, Failure(errno)))
    }

    /// Version 2: lets the groups below `dir` have the controllers.
    fn enable(&self, dir: BorrowedFd<'_>) -> Result<()> {
        if self.controllers.is_empty() {
            return Ok(());
        }
        let enabled = self.read(dir, c"cgroup.subtree_control")?;
        let is_missing = |name: &&&str| !enabled.split_whitespace().any(|known| known == **name);
        let missing: Vec<String> = self.controllers.iter().filter(is_missing).map(|name| format!("+{name}")).collect();
        if missing.is_empty() { Ok(()) } else { self.write(dir, c"cgroup.subtree_control", &missing.join(" ")) }
    }

    /// Version 1's cpuset: passes the parent's processors and memory on to a group that has none.
    fn arrive(&mut self, dir: BorrowedFd<'_>) -> Result<()> {
        let Some(mut values) = self.cpuset.take() else { return Ok(()) };
        for (name, value) in CPUSET.into_iter().zip(&mut values) {
            let own = self.read(dir, name)?;
            if own.is_empty() {
                self.write(dir, name, value)?;
            } else {
                *value = own;
            }
        }
        self.cpuset = Some(values);
        Ok(())
    }

    /// What has been inherited is part of the plan: another one may inherit something else.
    fn again(&self, parents: &[CString]) -> Option<Again> {
        self.cpuset.is_none().then(|| Again::Groups {
            mount: self.hierarchy.mount.clone(),
            parents: parents.to_vec(),
            controllers: self.controllers.iter().map(|name| (*name).to_owned()).collect(),
        })
    }

    fn inherited(self) -> impl Iterator<Item = (&'static str, String)> {
        ["cpuset.cpus", "cpuset.mems"].into_iter().zip(self.cpuset.into_iter().flatten())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_below_the_root_and_never_beside_it() {
        let text = |path: Option<&str>| Place::of(path, "abc").map(|place| place.text());
        assert_eq!(text(None).unwrap(), "/pyrt/abc");
        assert_eq!(text(Some("/pyrt/abc")).unwrap(), "/pyrt/abc");
        assert_eq!(text(Some("//a/./b//c/")).unwrap(), "/a/b/c");
        assert_eq!(text(Some("sub/x")).unwrap(), "/pyrt/sub/x");
        for path in ["/", "/a/../../b", "..", "system.slice:pyrt:abc"] {
            assert_eq!(text(Some(path)).unwrap_err().path, "linux.cgroupsPath", "{path}");
        }
    }
}
