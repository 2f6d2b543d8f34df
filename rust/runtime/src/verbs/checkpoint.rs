//! `checkpoint`: criu writes a running container down.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use pyrt_container::compile;
use pyrt_container::host::read_file;
use pyrt_container::spec::{Namespace, NamespaceKind, Spec};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::arguments::{Arguments, Flag, Global, Usage, switch, valued};
use crate::cgroups;
use crate::container::{CONFIG, Status};
use crate::criu::{Call, Kind, Message};
use crate::error::{Error, Result};
use crate::external;
use crate::plain;

use super::{Found, delete, file, find};

/// How it is called.
pub const USAGE: Usage = Usage {
    flags: &[
        IMAGES,
        WORK,
        valued("parent-path", "DIR", "of a --pre-dump, seen from the images"),
        switch("leave-running", "the container runs on"),
        switch("pre-dump", "memory alone, and the container runs on"),
        TCP,
        switch("tcp-skip-in-flight", "without connections that are being made"),
        switch("link-remap", "with files that have lost their names"),
        SOCKETS,
        SHELL_JOB,
        FILE_LOCKS,
        AUTO_DEDUP,
        CGROUPS,
        EMPTY,
        LAZY,
        valued("page-server", "ADDRESS", "not supported"),
        valued("status-fd", "N", "not supported"),
    ],
    ..Usage::of("checkpoint", "write a container down, through criu", "checkpoint --image-path /images/web web")
};

/// Where the images are.
pub const IMAGES: Flag = valued("image-path", "DIR", "where the images are; checkpoint if absent");
/// What both verbs know.
pub const WORK: Flag = valued("work-path", "DIR", "where criu writes its log; as the images if absent");
/// The same.
pub const TCP: Flag = switch("tcp-established", "with connections of TCP");
/// The same.
pub const SOCKETS: Flag = switch("ext-unix-sk", "with sockets whose other side is outside");
/// The same.
pub const SHELL_JOB: Flag = switch("shell-job", "of a session that began outside");
/// The same.
pub const FILE_LOCKS: Flag = switch("file-locks", "with locks of files");
/// The same.
pub const AUTO_DEDUP: Flag = switch("auto-dedup", "without pages that are there twice");
/// The same.
pub const CGROUPS: Flag = valued("manage-cgroups-mode", "MODE", "soft (if absent), full or strict");
/// The same.
pub const EMPTY: Flag = valued("empty-ns", "KIND", "network: made, and left empty");
/// The same.
pub const LAZY: Flag = switch("lazy-pages", "not supported");

/// criu has kept no_new_privs since 3.19.
pub const KEEPS_NO_NEW_PRIVS: u32 = 31_900;
/// While it writes down it lets no packet pass; before 3.17 by iptables alone, whose programs a machine may not have.
const LOCKS_BY_NFTABLES: u32 = 31_700;

/// Where criu reads and writes.
pub struct Places {
    /// The images' folder.
    pub images: PathBuf,
    work: Option<PathBuf>,
    /// criu's log.
    pub log: PathBuf,
}

impl Places {
    /// What the flags name; before the bundle becomes the working directory.
    pub fn named(arguments: &Arguments, log: &str) -> Result<Self> {
        // As runc.
        let images = file(arguments, "image-path")?.unwrap_or(std::path::absolute("checkpoint").unwrap_or_default());
        let work = file(arguments, "work-path")?;
        let log = work.as_ref().unwrap_or(&images).join(log);
        Ok(Self { images, work, log })
    }

    /// Opens the folders, which are made if need be, and tells criu of them. It opens them anew, so they have to stay open.
    pub fn open(&self, options: &mut Message) -> Result<Vec<File>> {
        let mut opened = Vec::new();
        for (field, path) in [(1, Some(&self.images)), (17, self.work.as_ref())] {
            let Some(path) = path else { continue };
            let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
            let folder = made.and_then(|()| File::open(path)).map_err(|error| Error::file("opening", path, &error))?;
            options.number(field, folder.as_raw_fd() as u64);
            opened.push(folder);
        }
        let log = self.log.file_name().unwrap_or_default().to_string_lossy();
        // Level 4 is what runc writes: whoever looks into the log wants to know.
        options.number(9, 4).text(10, &log);
        Ok(opened)
    }
}

/// What both verbs tell criu.
pub fn common_options(arguments: &Arguments, version: u32) -> Result<Message> {
    let mut options = Message::default();
    for (flag, field) in
        [("ext-unix-sk", 4), ("tcp-established", 5), ("shell-job", 7), ("file-locks", 8), ("auto-dedup", 16)]
    {
        options.switch(field, arguments.has(flag));
    }
    options.switch(12, true).switch(24, true).number(34, cgroup_mode(arguments)?);
    // The net namespace is the engine's to furnish; the terminal's master is handed on.
    options.number(38, libc::CLONE_NEWNET as u64).switch(50, true);
    if version >= LOCKS_BY_NFTABLES {
        options.number(64, 2);
    }
    Ok(options)
}

/// How groups are written down and brought back (`criu_cg_mode`).
fn cgroup_mode(arguments: &Arguments) -> Result<u64> {
    match arguments.value("manage-cgroups-mode") {
        None | Some("soft") => Ok(3),
        Some("full") => Ok(4),
        Some("strict") => Ok(5),
        Some("ignore") => Err(Error::new("--manage-cgroups-mode ignore: not supported")
            .hint("the container would come back outside of its groups")),
        Some(other) => Err(Error::new(format!("--manage-cgroups-mode {other}: soft, full or strict"))),
    }
}

/// Flags of runc that there is nothing for.
pub fn refuse_flags(arguments: &Arguments) -> Result<()> {
    for flag in ["lazy-pages", "page-server", "status-fd", "lsm-profile", "lsm-mount-context"] {
        if arguments.value(flag).is_some_and(|value| value != "false") {
            return Err(Error::new(format!("--{flag}: not supported")));
        }
    }
    match arguments.values("empty-ns").find(|kind| *kind != "network") {
        Some(kind) => Err(Error::new(format!("--empty-ns {kind}: only network can be left empty"))),
        None => Ok(()),
    }
}

/// What criu does not bring back as it was, by the name of its field.
pub fn refuse_fields(spec: &Spec<'_>) -> Result<()> {
    let wrong = |path: String| Err(Error::new(format!("{path}: a container that has it can't be checkpointed")));
    let is_lost = |namespace: &Namespace<'_>| match namespace.kind {
        NamespaceKind::User => true,
        NamespaceKind::Network | NamespaceKind::Ipc | NamespaceKind::Uts => false,
        _ => namespace.path.as_deref().is_some_and(|path| !path.is_empty()),
    };
    if let Some(index) = spec.linux.namespaces.iter().position(is_lost) {
        return wrong(format!("linux.namespaces[{index}]"));
    }
    if !spec.linux.namespaces.iter().any(|namespace| namespace.kind == NamespaceKind::Mount) {
        return wrong("linux.namespaces".to_owned());
    }
    if let Some(index) = spec.mounts.iter().position(|mount| !mount.uid_mappings.is_empty()) {
        return wrong(format!("mounts[{index}].uidMappings"));
    }
    let process = spec.process.as_ref();
    let has_agent = |seccomp: &RawValue| {
        serde_json::from_str::<Value>(seccomp.get()).is_ok_and(|seccomp| seccomp["listenerPath"].is_string())
    };
    let lost = [
        (spec.linux.seccomp.is_some_and(has_agent), "linux.seccomp.listenerPath"),
        (spec.linux.net_devices.iter().next().is_some(), "linux.netDevices"),
        (spec.linux.memory_policy.is_some(), "linux.memoryPolicy"),
        (process.is_some_and(|process| process.io_priority.is_some()), "process.ioPriority"),
    ];
    lost.iter().find(|(is_there, _)| *is_there).map_or(Ok(()), |(_, path)| wrong((*path).to_owned()))
}

/// The verb.
pub fn checkpoint(global: &Global, arguments: &Arguments) -> Result<u8> {
    if plain::is_plain(global.uid) {
        return Err(Error::new("linux.namespaces: what is in a user namespace can't be checkpointed"));
    }
    let id = arguments.id()?;
    refuse_flags(arguments)?;
    let call = Call { verb: "checkpoint", program: &global.criu };
    let version = call.version()?;
    let found = find(global, id)?;
    if !matches!(found.status, Status::Running | Status::Paused) {
        return Err(Error::new(format!("cannot checkpoint a container that is {}", found.status.name())));
    }
    let config = found.annals.read(CONFIG)?;
    let spec = compile::read(&config)?;
    refuse_fields(&spec)?;
    if version < KEEPS_NO_NEW_PRIVS {
        check_no_new_privs(&spec, &found)?;
    }
    let places = Places::named(arguments, "dump.log")?;
    let options = common_options(arguments, version)?;
    let before = files(&places.images);
    dump(arguments, &call, options, (&found, &spec), &places).inspect_err(|_| {
        // Half a checkpoint is none, and it has the container's memory in it.
        for name in files(&places.images).iter().filter(|name| *name != "dump.log" && !before.contains(name)) {
            let _ = fs::remove_file(places.images.join(name));
        }
    })?;
    drop(found);
    if !arguments.has("leave-running") && !arguments.has("pre-dump") {
        // As runc: what was written down is gone here.
        delete::remove(global, id, true)?;
    }
    Ok(0)
}

fn files(folder: &Path) -> Vec<OsString> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name()).collect()
}

/// An older criu brings no process back with no_new_privs; `restore` gives it to all if config.json does. So where one process
/// differs from that, it would get less or more than it has.
fn check_no_new_privs(spec: &Spec<'_>, found: &Found) -> Result<()> {
    let wanted = spec.process.as_ref().is_some_and(|process| process.no_new_privileges);
    // Each thread has its own.
    let differs = |pid: &i32| {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let statuses = threads.filter_map(|thread| read_file(&thread.path().join("status").to_string_lossy()).ok());
        let is_other = |line: &str| line.strip_prefix("NoNewPrivs:").is_some_and(|bit| (bit.trim() == "1") != wanted);
        statuses.into_iter().any(|status| status.lines().any(is_other))
    };
    match cgroups::processes(&found.record.cgroups).into_iter().find(differs) {
        None => Ok(()),
        Some(pid) => {
            let has = if wanted { "has no" } else { "has set" };
            Err(Error::new(format!("checkpoint: process {pid} {has} no_new_privs, other than config.json"))
                .hint("criu before 3.19 would not bring that back"))
        }
    }
}

fn dump(
    arguments: &Arguments,
    call: &Call<'_>,
    mut options: Message,
    (found, spec): (&Found, &Spec<'_>),
    places: &Places,
) -> Result<()> {
    let record = &found.record;
    options.number(2, record.pid as u64);
    for (flag, field) in [("leave-running", 3), ("link-remap", 18), ("tcp-skip-in-flight", 46)] {
        options.switch(field, arguments.has(flag));
    }
    if let Some(parent) = arguments.value("parent-path") {
        check_parent(&places.images, parent)?;
        options.text(14, parent).switch(15, true);
    }
    if let Some(group) = cgroups::of(&record.cgroups, "freezer") {
        options.text(44, &group.to_string_lossy());
    }
    external::name_namespaces(spec, record.pid, &mut options);
    external::name_binds(spec, record.pid, &mut options)?;
    let names = external::name_descriptors(record.pid, &mut options);
    let kind = if arguments.has("pre-dump") { Kind::PreDump } else { Kind::Dump };
    let _opened = places.open(&mut options)?;
    let mut criu = call.begin(&[], || Ok(()))?;
    criu.call(kind, &options, &places.log, &mut |_| Ok(()))?;
    if kind == Kind::PreDump {
        return Ok(());
    }
    let path = places.images.join(external::DESCRIPTORS);
    fs::write(&path, serde_json::json!(names).to_string()).map_err(|error| Error::file("writing", &path, &error))
}

/// criu looks for it from the images on.
fn check_parent(images: &Path, parent: &str) -> Result<()> {
    if !Path::new(parent).is_relative() || !images.join(parent).is_dir() {
        return Err(Error::new(format!("--parent-path {parent}: no folder, seen from {}", images.display())));
    }
    Ok(())
}
