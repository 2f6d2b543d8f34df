//! One line for every operation.

use std::borrow::Cow;
use std::ffi::CStr;

use crate::compile::{capability_names, limit_name};
use crate::plan::{Op, Slot, Slots, Texts};

/// What a slot is called.
fn name(slot: Slot, names: &[String]) -> &str {
    names.get(usize::from(slot.0)).map_or("something unnamed", String::as_str)
}

fn show(text: &CStr) -> Cow<'_, str> {
    text.to_string_lossy()
}

fn show_bytes(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes.trim_ascii_end())
}

/// What `op` does, as the beginning of a sentence.
pub(super) fn of(op: &Op<'_>, names: &[String]) -> String {
    let name = |slot: Slot| name(slot, names);
    match *op {
        Op::CgroupCreate { out, .. } => format!("creating {}", name(out)),
        Op::WriteAt { dir, name: file, data, .. } => {
            format!("setting {} to {} of {}", show(file), show_bytes(data), name(dir))
        }
        Op::OpenAt { dir, name: file, .. } => format!("opening {} of {}", show(file), name(dir)),
        Op::JoinPidNamespace { pidfd } => format!("entering the pid namespace of {}", name(pidfd)),
        Op::Clone { flags, cgroup } => clone(flags, cgroup.map(name)),
        Op::WriteIdMaps { uid_map, gid_map, .. } => ids(uid_map, gid_map),
        Op::CloneFrom { joins, flags, clocks, cgroup } => {
            let mut text = clone(flags, cgroup.map(name));
            for slot in joins.iter() {
                text += &format!(", in {}", name(slot));
            }
            if clocks.is_empty() {
                text
            } else {
                format!("{text} (clocks: {})", show_bytes(clocks).replace('\n', "; "))
            }
        }
        Op::NewIdMap { uid_map, gid_map, out } => format!("{} for {}", ids(uid_map, gid_map), name(out)),
        Op::OpenAttributes { .. } => "opening the security attributes of the child".to_owned(),
        Op::MoveNetDevice { name, inside, .. } => {
            format!("moving the network device {} into the container as {}", show(name), show(inside))
        }
        Op::OpenUserNamespace { .. } => "opening the container's user namespace".to_owned(),
        Op::IdmapMount { mount, recursive, .. } => {
            format!("mapping the owners of {}{}", name(mount), below(recursive))
        }
        Op::SetMountAttributes { mount, set, clear, propagation, recursive } => {
            format!("making {} {}{}", name(mount), attributes(set, clear, propagation), below(recursive))
        }
        Op::NewMount { fstype, options, attributes, out }
        | Op::NewMountAside { fstype, options, attributes, out, .. } => {
            new_mount(fstype, options, attributes, name(out))
        }
        Op::NewOverlay { lowers, upper, changes, volatile, .. }
        | Op::MountOverlay { lowers, upper, changes, volatile, .. } => {
            let upper = upper.map(|tree| match show(changes) {
                changes if changes.is_empty() => name(tree).to_owned(),
                changes => format!("{changes} of {}", name(tree)),
            });
            overlay(lowers, upper.as_deref(), volatile)
        }
        Op::Park { mount } => format!("attaching {} where no path leads", name(mount)),
        Op::CloneTree { dir, path, .. } if path.is_empty() => format!("cloning {}", name(dir)),
        Op::CloneTree { dir, path, .. } => format!("taking {} out of {}", show(path), name(dir)),
        Op::MakeDirectory { dir, name: file, .. } => format!("making the directory {} in {}", show(file), name(dir)),
        Op::MakeNode { dir, name: file, major, minor, .. } => {
            format!("making the node {} ({major}:{minor}) in {}", show(file), name(dir))
        }
        Op::MakeSymlink { dir, name: file, target, .. } => {
            format!("making the link {} to {} in {}", show(file), show(target), name(dir))
        }
        Op::MakeFile { dir, name: file, .. } => format!("writing {} in {}", show(file), name(dir)),
        Op::BeginMaking { uid: 0, gid: 0 } => "making files with the modes they are to have".to_owned(),
        Op::BeginMaking { uid, gid } => format!("making files as user {uid} and group {gid} of the host"),
        Op::EndMaking {} => "no longer making files for the container".to_owned(),
        Op::ChangeOwner { dir, name: file, uid, gid } => {
            format!("giving {} in {} to user {uid} and group {gid} of the host", show(file), name(dir))
        }
        Op::AdjustOomScore { score } => format!("setting oom_score_adj to {score}"),
        Op::Release {} => "handing everything to the child".to_owned(),
        Op::SetLimit { resource, soft, hard } => {
            format!("limiting {} to {} (at most {})", limit_name(resource), limit(soft), limit(hard))
        }
        Op::GiveAway { slot, .. } => format!("giving {} to the container's user", name(slot)),
        Op::DelegateCgroup { cgroup, name: file, .. } if file.is_empty() => {
            format!("giving {} to the container's user", name(cgroup))
        }
        Op::DelegateCgroup { cgroup, name: file, .. } => {
            format!("giving {} of {} to the container's user", file.to_string_lossy(), name(cgroup))
        }
        Op::AttachDeviceProgram { cgroup, program } => {
            format!(
                "letting a program of {} instructions decide about the devices of {}",
                program.len() / 8,
                name(cgroup)
            )
        }
        Op::AwaitStdio { .. } => "waiting until the container is asked for".to_owned(),
        Op::OpenNamespace { path, .. } => format!("opening the namespace {}", show(path)),
        Op::AwaitChild {} => "waiting for the child".to_owned(),
        _ => inside(op, names),
    }
}

/// What happens in the child.
fn inside(op: &Op<'_>, names: &[String]) -> String {
    let name = |slot: Slot| name(slot, names);
    match *op {
        Op::AwaitKeeper {} => "waiting for the keeper".to_owned(),
        Op::CallKeeper {} => "telling the keeper that all is ready".to_owned(),
        Op::OutliveKeeper {} => "cutting its life off from the keeper's".to_owned(),
        Op::AwaitStart { .. } => "waiting to be started".to_owned(),
        Op::RunHook { path, .. } => format!("running the hook {}", show(path)),
        Op::EnterRoot { root, path, .. } => format!("entering {} at {}", name(root), show(path)),
        Op::TakeRoot { root } => format!("making {} the root", name(root)),
        Op::DieWithKeeper {} => "tying its life to the keeper's".to_owned(),
        Op::NewSession {} => "starting a session".to_owned(),
        Op::JoinCgroup { tasks } => format!("joining {}", name(tasks)),
        Op::Unshare { flags } => format!("making a new {}", namespaces(flags)),
        Op::JoinNamespaces { fd, flags } => format!("joining the {} through {}", namespaces(flags), name(fd)),
        Op::LoopbackUp {} => "bringing the loopback interface up".to_owned(),
        Op::SetHostname { name } => format!("setting the host name to {}", show_bytes(name)),
        Op::SetDomainname { name } => format!("setting the domain name to {}", show_bytes(name)),
        Op::SetPropagation { recursive: true, .. } => "cutting its mounts off from the host's".to_owned(),
        Op::SetPropagation { .. } => "keeping what is mounted over / from spreading".to_owned(),
        Op::SetKernelParameter { name, value, .. } => {
            format!("setting the kernel parameter /proc/{} to {}", show(name), show_bytes(value))
        }
        Op::PivotRoot { root, .. } => format!("making {} the root and leaving the old one", name(root)),
        Op::MoveRoot { root } => format!("making {} the root without pivot_root", name(root)),
        Op::OpenPlace { path, .. } => format!("opening {}", show(path)),
        Op::Renew { mount, .. } => format!("taking {} in its turn", name(mount)),
        Op::Attach { mount, within, path, .. } => attach(name(mount), &inside_of(within, path, names)),
        Op::Mask { within, path, .. } => format!("hiding {}", inside_of(within, path, names)),
        Op::Remount { path, .. } => format!("remounting {}", show(path)),
        Op::MakeReadonly { within, path } => format!("making {} read-only", inside_of(within, path, names)),
        Op::SetSecurityLabel { label, .. } => match label.strip_prefix(b"exec ") {
            Some(profile) => format!("choosing the AppArmor profile {}", show_bytes(profile)),
            None => format!("choosing the SELinux label {}", show_bytes(label)),
        },
        Op::JoinKeyring { name } => format!("joining the session keyring {}", show(name)),
        Op::OpenTerminal { rows: 0, .. } => "opening a terminal".to_owned(),
        Op::OpenTerminal { rows, columns, .. } => format!("opening a terminal of {columns}x{rows}"),
        Op::SetStdio { terminal: true, .. } => "making the terminal standard input, output and error".to_owned(),
        Op::SetStdio { .. } => "taking standard input, output and error".to_owned(),
        Op::CopyUp { path, .. } => format!("copying what the image has at {}", show(path)),
        Op::CloneInside { path, .. } => format!("cloning {}", show(path)),
        _ => identity(op),
    }
}

/// What makes the process what it is to be.
fn identity(op: &Op<'_>) -> String {
    match *op {
        Op::SetGroups { gids: [] } => "leaving all supplementary groups".to_owned(),
        Op::SetGroups { gids } => format!("joining the supplementary groups {}", groups(gids)),
        Op::SetGid { gid } => format!("becoming group {gid}"),
        Op::SetUid { uid } => format!("becoming user {uid}"),
        Op::SetUmask { mask } => format!("setting the umask to {mask:03o}"),
        Op::SetNice { nice } => format!("setting niceness {nice}"),
        Op::SetScheduler { .. } => "setting the scheduling policy".to_owned(),
        Op::SetIoPriority { priority } => format!("setting I/O class {} priority {}", priority >> 13, priority & 7),
        Op::SetPersonality { persona } => format!("setting personality {persona:#x}"),
        Op::SetAffinity { .. } => "choosing processors".to_owned(),
        Op::LimitBoundingSet { keep } => match keep & ALL_CAPABILITIES {
            0 => "giving up all capabilities for ever".to_owned(),
            ALL_CAPABILITIES => "giving up no capability".to_owned(),
            keep => format!("giving up for ever all capabilities but {}", capabilities(keep)),
        },
        Op::KeepCapabilities { keep: true } => "keeping capabilities over the change of user".to_owned(),
        Op::KeepCapabilities { keep: false } => "no longer keeping capabilities over a change of user".to_owned(),
        Op::SetCapabilities { permitted: 0, .. } => "keeping no capabilities".to_owned(),
        Op::SetCapabilities { effective, permitted, .. } if effective == permitted => {
            format!("keeping the capabilities {}", capabilities(effective))
        }
        Op::SetCapabilities { effective, permitted, .. } => {
            format!("keeping the capabilities {} of permitted {}", capabilities(effective), capabilities(permitted))
        }
        Op::SetAmbient { ambient: 0 } => "clearing the ambient capabilities".to_owned(),
        Op::SetAmbient { ambient } => format!("setting the ambient capabilities {}", capabilities(ambient)),
        Op::NoNewPrivileges {} => "forbidding new privileges".to_owned(),
        Op::LoadSeccomp { program, .. } => format!("loading a seccomp filter of {} instructions", program.len() / 8),
        Op::NotePid {} => "noting the number that the host has for it".to_owned(),
        Op::LoadSeccompFor { program, .. } => {
            format!("loading a seccomp filter of {} instructions, and handing its listener out", program.len() / 8)
        }
        Op::SetMemoryPolicy { .. } => "setting the memory policy".to_owned(),
        Op::ChangeDirectory { path, create: true } => format!("making the working directory {}", show(path)),
        Op::ChangeDirectory { path, create: false } => format!("changing to the working directory {}", show(path)),
        Op::BecomeInit {} => "staying behind as PID 1".to_owned(),
        Op::CleanProcess {} => "resetting signals and closing descriptors".to_owned(),
        Op::PassDescriptors { count } => format!("handing on the descriptors from 3, {count} in number"),
        Op::FindCommand { .. } => "looking for the command".to_owned(),
        Op::TakeOwnNull {} => "taking the container's own null device".to_owned(),
        Op::FindHome { uid } => format!("looking for the home of user {uid}"),
        Op::Exec { arguments, .. } => format!("executing {}", words(arguments)),
        // An operation that was added without its sentence still has its name.
        ref other => other.name().to_owned(),
    }
}

/// The path that a failure is about, or "".
pub(super) fn path_of(op: &Op<'_>, names: &[String]) -> String {
    match *op {
        Op::Attach { within, path, .. } | Op::Mask { within, path, .. } | Op::MakeReadonly { within, path } => {
            inside_of(within, path, names).into_owned()
        }
        Op::ChangeDirectory { path, .. }
        | Op::CopyUp { path, .. }
        | Op::CloneInside { path, .. }
        | Op::EnterRoot { path, .. }
        | Op::OpenPlace { path, .. }
        | Op::Remount { path, .. }
        | Op::RunHook { path, .. }
        | Op::OpenNamespace { path, .. } => show(path).into_owned(),
        Op::SetKernelParameter { name, .. } => format!("/proc/{}", show(name)),
        Op::WriteAt { name, .. } | Op::OpenAt { name, .. } => show(name).into_owned(),
        Op::IdmapMount { mount: slot, .. }
        | Op::NewMount { out: slot, .. }
        | Op::NewMountAside { out: slot, .. }
        | Op::CgroupCreate { out: slot, .. } => {
            let name = name(slot, names);
            name.find('/').map_or_else(String::new, |at| name[at..].to_owned())
        }
        _ => String::new(),
    }
}

/// A path in the container, also of what is below a mount that is not attached yet: "sysfs for /sys", "/dev".
fn inside_of<'t>(within: Option<Slot>, path: &'t CStr, names: &[String]) -> Cow<'t, str> {
    let Some(mount) = within.map(|slot| name(slot, names)) else { return show(path) };
    Cow::Owned(format!("{}{}", mount.find('/').map_or("", |at| &mount[at..]), show(path)))
}

fn below(recursive: bool) -> &'static str {
    if recursive { " and all below it" } else { "" }
}

fn limit(number: u64) -> String {
    if number == u64::MAX { "unlimited".to_owned() } else { number.to_string() }
}

/// "proc for /proc" is the name of a mount that belongs to a path.
fn attach(mount: &str, path: &str) -> String {
    match mount.strip_suffix(path).and_then(|start| start.strip_suffix(" for ")) {
        Some(kind) => format!("mounting {kind} at {path}"),
        None if mount == path => format!("mounting {path}"),
        None => format!("mounting {mount} at {path}"),
    }
}

fn new_mount(fstype: &CStr, options: Texts<'_>, bits: u64, out: &str) -> String {
    let fstype = show(fstype);
    let mut words: Vec<String> = options.iter().map(|word| show(word).into_owned()).collect();
    words.extend(attribute_words(bits).map(str::to_owned));
    let words = if words.is_empty() { String::new() } else { format!(" ({})", words.join(",")) };
    if out.starts_with(&*fstype) { format!("making {out}{words}") } else { format!("making {fstype} for {out}{words}") }
}

fn overlay(lowers: Slots<'_>, upper: Option<&str>, volatile: bool) -> String {
    let count = lowers.iter().count();
    let layers = if count == 1 { "1 layer".to_owned() } else { format!("{count} layers") };
    let volatile = if volatile { ", volatile" } else { "" };
    match upper {
        Some(upper) => format!("stacking {layers} under {upper}{volatile}"),
        None => format!("stacking {layers}, read-only"),
    }
}

const ATTRIBUTES: [(u64, &str); 7] = [
    (0x01, "ro"),
    (0x02, "nosuid"),
    (0x04, "nodev"),
    (0x08, "noexec"),
    (0x10, "noatime"),
    (0x20, "strictatime"),
    (0x20_0000, "nosymfollow"),
];

fn attribute_words(bits: u64) -> impl Iterator<Item = &'static str> {
    ATTRIBUTES.into_iter().filter(move |(bit, _)| bits & bit != 0).map(|(_, word)| word)
}

fn attributes(set: u64, clear: u64, propagation: u64) -> String {
    let mut words: Vec<String> = attribute_words(set).map(str::to_owned).collect();
    // The access time bits are cleared whenever one of them is set.
    let cleared = if clear & 0x70 == 0x70 { clear & !0x70 } else { clear };
    words.extend(attribute_words(cleared & !set).map(|word| format!("not {word}")));
    let kinds = [
        (libc::MS_PRIVATE, "private"),
        (libc::MS_SLAVE, "a slave"),
        (libc::MS_SHARED, "shared"),
        (libc::MS_UNBINDABLE, "unbindable"),
    ];
    words.extend(kinds.iter().filter(|(bit, _)| propagation & bit != 0).map(|(_, word)| (*word).to_owned()));
    if words.is_empty() { "as it is".to_owned() } else { words.join(", ") }
}

const NAMESPACES: [(u64, &str); 8] = [
    (libc::CLONE_NEWUSER as u64, "user"),
    (libc::CLONE_NEWPID as u64, "pid"),
    (libc::CLONE_NEWNS as u64, "mount"),
    (libc::CLONE_NEWNET as u64, "network"),
    (libc::CLONE_NEWIPC as u64, "ipc"),
    (libc::CLONE_NEWUTS as u64, "uts"),
    (libc::CLONE_NEWCGROUP as u64, "cgroup"),
    (0x80, "time"),
];

fn namespaces(flags: u64) -> String {
    let kinds: Vec<&str> = NAMESPACES.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, kind)| *kind).collect();
    let word = if kinds.len() == 1 { "namespace" } else { "namespaces" };
    format!("{} {word}", kinds.join(", "))
}

fn clone(flags: u64, cgroup: Option<&str>) -> String {
    let place = cgroup.map_or_else(String::new, |cgroup| format!(" in {cgroup}"));
    if flags == 0 { format!("forking{place}") } else { format!("forking{place} with new {}", namespaces(flags)) }
}

fn ids(uid_map: &[u8], gid_map: &[u8]) -> String {
    let show = |map: &[u8]| show_bytes(map).replace('\n', "; ");
    if uid_map == gid_map {
        return format!("mapping users and groups ({})", show(uid_map));
    }
    format!("mapping users ({}) and groups ({})", show(uid_map), show(gid_map))
}

fn groups(gids: &[u8]) -> String {
    let numbers = gids.chunks_exact(4).map(|gid| u32::from_le_bytes([gid[0], gid[1], gid[2], gid[3]]).to_string());
    numbers.collect::<Vec<_>>().join(" ")
}

const ALL_CAPABILITIES: u64 = (1 << 41) - 1;

fn capabilities(set: u64) -> String {
    match set & ALL_CAPABILITIES {
        0 => "none".to_owned(),
        ALL_CAPABILITIES => "all".to_owned(),
        set => capability_names(set).map(|name| name.trim_start_matches("CAP_")).collect::<Vec<_>>().join(" "),
    }
}

fn words(arguments: Texts<'_>) -> String {
    const LONGEST: usize = 120;
    let words: Vec<_> = arguments.iter().map(|word| show(word).into_owned()).collect();
    let line = words.join(" ");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}
