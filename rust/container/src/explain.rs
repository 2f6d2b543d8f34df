//! Plans and failures as sentences.
//!
//! [`steps`] is `pyrt explain`: what each operation does. [`failure`] turns the step at which a start failed, and the
//! evidence of a command that could not be executed, into one sentence, a hint, and a kind that decides the exit code.

mod command;
mod text;

pub use command::Kind;

use crate::compile::describe;
use crate::plan::{Op, Part, Plan};
use crate::sys::Errno;

/// One operation, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// In which list.
    pub part: Part,
    /// Index in that list.
    pub index: usize,
    /// The operation's name.
    pub name: &'static str,
    /// What it does: "mounting proc at /proc".
    pub text: String,
}

/// Every operation of a plan, the keeper's first. `names` is what each slot is called.
pub fn steps(plan: &Plan<'_>, names: &[String]) -> Vec<Step> {
    let list = |part: Part| {
        plan.ops(part).enumerate().map(move |(index, op)| Step {
            part,
            index,
            name: op.name(),
            text: text::of(&op, names),
        })
    };
    list(Part::Keeper).chain(list(Part::Child)).collect()
}

/// Why a container did not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// "mounting proc at /proc: operation not permitted (step 17 of 42)".
    pub sentence: String,
    /// The operation's name.
    pub step: &'static str,
    /// Its place in the whole plan, counted from 1.
    pub index: usize,
    /// What it worked on, or "".
    pub path: String,
    /// The kernel's error number; 0 if the plan itself was refused.
    pub errno: i32,
    /// What the exit code depends on.
    pub kind: Kind,
    /// What can be done about it.
    pub hint: Option<String>,
}

/// Explains [`crate::protocol::Report::Failed`].
pub fn failure(plan: &Plan<'_>, names: &[String], part: Part, index: u32, errno: i32, evidence: &[u8]) -> Failure {
    let at = index as usize;
    let Some(op) = plan.ops(part).nth(at) else { return outside_the_plan(errno, evidence) };
    let before = if part == Part::Child { plan.len(Part::Keeper) } else { 0 };
    let number = before + at + 1;
    let total = plan.len(Part::Keeper) + plan.len(Part::Child);
    if let Some(command) = of_command(plan, &op, Errno(errno), evidence) {
        let command::Command { sentence, path, kind, hint } = command;
        return Failure { sentence, step: op.name(), index: number, path, errno, kind, hint };
    }
    let what = text::of(&op, names);
    let why = match op {
        Op::RunHook { timeout, .. } => of_hook(errno, timeout, evidence),
        _ if errno == 0 => String::from_utf8_lossy(evidence).into_owned(),
        _ => describe(Errno(errno)),
    };
    Failure {
        sentence: format!("{what}: {why} (step {number} of {total})"),
        step: op.name(),
        index: number,
        path: text::path_of(&op, names),
        errno,
        kind: Kind::Other,
        hint: hint(&op, errno),
    }
}

/// What is wrong with the command, if that is what `op` looked for or executed.
fn of_command(plan: &Plan<'_>, op: &Op<'_>, errno: Errno, evidence: &[u8]) -> Option<command::Command> {
    // Killed rather than refused: that has no error number.
    if errno.0 == 0 || !matches!(op, Op::Exec { .. } | Op::FindCommand { .. }) {
        return None;
    }
    plan.ops(Part::Child).find_map(|op| match op {
        Op::Exec { candidates, arguments, environment } => {
            Some(command::explain(candidates, arguments, environment, errno, evidence))
        }
        _ => None,
    })
}

/// Why a hook failed; what it printed says more than its exit code.
pub fn of_hook(errno: i32, timeout: u32, printed: &[u8]) -> String {
    let words = String::from_utf8_lossy(printed);
    let words = words.trim();
    let why = match errno {
        libc::ETIMEDOUT => format!("not done after {} s", timeout / 1000),
        libc::EPROTO => "it has failed".to_owned(),
        libc::ENOEXEC => "can't be executed".to_owned(),
        errno => describe(Errno(errno)),
    };
    if words.is_empty() { why } else { format!("{why}: {words}") }
}

/// The keeper ended without having said which step it was, or refused the plan.
fn outside_the_plan(errno: i32, evidence: &[u8]) -> Failure {
    let why = match errno {
        0 => String::from_utf8_lossy(evidence).into_owned(),
        errno => describe(Errno(errno)),
    };
    Failure {
        sentence: format!("making the container: {why}"),
        step: "",
        index: 0,
        path: String::new(),
        errno,
        kind: Kind::Other,
        hint: None,
    }
}

fn hint(op: &Op<'_>, errno: i32) -> Option<String> {
    let words = match (op, errno) {
        (Op::Clone { .. }, libc::ENOSPC | libc::EUSERS) => {
            "a limit of /proc/sys/user (max_user_namespaces and its kin) is reached"
        }
        (Op::Clone { .. }, libc::EAGAIN) => "the host's limit of processes is reached",
        (Op::CloneFrom { .. }, libc::ERANGE) => "a clock would be before its zero or too far ahead",
        (Op::CloneFrom { .. } | Op::JoinNamespaces { .. }, libc::EPERM) => {
            "a namespace to be joined belongs to a user namespace in which this process has no rights"
        }
        (Op::Clone { .. } | Op::CloneFrom { .. }, libc::EINVAL) => "this kernel lacks one of the namespaces",
        (Op::Clone { .. }, libc::EPERM) => "containers are made by root",
        (Op::Clone { cgroup: Some(_), .. } | Op::CloneFrom { cgroup: Some(_), .. }, libc::EACCES) => {
            "a plain user has to be in a delegated group as well: systemd-run --user --scope"
        }
        (Op::ChangeDirectory { .. }, libc::ENOTDIR) => "the working directory is a file in this image",
        (Op::ChangeDirectory { .. }, libc::EACCES) => "the container's user may not enter it",
        (Op::ChangeDirectory { .. }, libc::EROFS) => "it is not in the image, and the root file system is read-only",
        (Op::Attach { .. }, libc::EROFS) => {
            "the mount point is not in the image, and the root file system is read-only"
        }
        (Op::Remount { .. }, libc::EINVAL) => "nothing is mounted there so far",
        (Op::Remount { .. }, libc::EPERM) => "what the host has mounted so stays so in a user namespace",
        (Op::Attach { .. }, libc::ELOOP) => "a symbolic link lies where the container's own files go",
        (Op::Attach { .. }, libc::ENOTDIR) => {
            "a file is mounted on a directory, a directory on a file, or below a file"
        }
        (
            Op::NewOverlay { volatile: true, upper: Some(_), .. }
            | Op::MountOverlay { volatile: true, upper: Some(_), .. },
            libc::EINVAL,
        ) => "a volatile upper directory serves once; this one may have been used",
        (Op::NewOverlay { .. } | Op::MountOverlay { .. }, libc::EINVAL) => {
            "this kernel's overlayfs refuses these layers; dmesg says why"
        }
        (Op::NewOverlay { .. } | Op::MountOverlay { .. }, libc::ELOOP) => {
            "a layer, the upper and the work directory must not lie in one another"
        }
        (Op::NewOverlay { .. } | Op::MountOverlay { .. }, libc::ENODEV) => "load the kernel module overlay",
        (Op::NewOverlay { .. } | Op::MountOverlay { .. }, libc::EBUSY) => "another container uses this upper directory",
        (Op::NewMount { .. }, libc::ENODEV) => "this kernel does not have the file system",
        (Op::NewMount { .. }, libc::EINVAL) => "the file system does not know one of the options, or not its value",
        (Op::NewMount { .. }, libc::EPERM) => {
            "to a user namespace the kernel shows /proc with a new pid and /sys with a new network namespace, and only if \
             the host hides no part of them"
        }
        (Op::IdmapMount { .. }, libc::EINVAL) => {
            "this file system can't be shown through an idmap: do without a user namespace (--userns host)"
        }
        (Op::WriteAt { name, .. }, libc::EINVAL | libc::ERANGE) => return Some(hint_of_limit(&name.to_string_lossy())),
        (Op::WriteAt { name, .. }, libc::EBUSY) if name.to_bytes().starts_with(b"memory") => {
            "the limit is smaller than what is in use"
        }
        (Op::WriteAt { name, .. }, libc::ENOENT) if name.to_bytes().windows(5).any(|word| word == b".bfq.") => {
            "load the I/O scheduler BFQ (modprobe bfq), or leave the weight out"
        }
        (Op::WriteAt { name, .. }, libc::EOPNOTSUPP) if name.to_bytes().windows(5).any(|word| word == b".bfq.") => {
            "only where the disk's scheduler is BFQ (/sys/block/NAME/queue/scheduler)"
        }
        (Op::WriteAt { .. }, libc::ENOENT) => "this kernel has no such limit",
        (Op::CgroupCreate { .. }, libc::EROFS) => "remount the cgroup hierarchy writable",
        (Op::JoinCgroup { .. }, libc::ENOSPC) => "the cgroup has no processors or memory nodes",
        (Op::Mask { .. }, libc::ENOENT | libc::ENODEV) => "the container's /dev has no null device",
        (Op::AttachDeviceProgram { .. }, libc::EINVAL | libc::ENOSYS) => {
            "this kernel has no device programs (CONFIG_CGROUP_BPF); leave the device rules out"
        }
        (Op::SetSecurityLabel { .. }, libc::ENOENT) => "no such profile is loaded (aa-status)",
        (Op::SetSecurityLabel { .. }, libc::EINVAL) => "the loaded policy does not know this label",
        (Op::MoveNetDevice { .. }, libc::ENODEV) => "the host has no such network device (ip link)",
        (Op::MoveNetDevice { .. }, libc::EEXIST) => "the container's network namespace has a device of that name",
        (Op::MoveNetDevice { .. }, libc::EINVAL) => "this device is bound to its network namespace",
        (Op::SetMemoryPolicy { .. }, libc::EINVAL) => {
            "not all of these nodes are there, or the mode does not take them"
        }
        (Op::LoadSeccompFor { .. }, libc::EPIPE | libc::ECONNRESET) => "the agent has closed the connection",
        (Op::SetKernelParameter { .. }, libc::ENOENT) => "this kernel has no such parameter in a namespace",
        (Op::LoadSeccomp { .. }, libc::EACCES) => "without no_new_privs the container's root needs CAP_SYS_ADMIN",
        (Op::SetCapabilities { .. }, libc::EPERM) => "more capabilities were asked for than this process has",
        (Op::SetUid { .. } | Op::SetGid { .. } | Op::SetGroups { .. }, libc::EINVAL) => {
            "the id is not mapped into the user namespace"
        }
        (_, libc::ENOSPC) => "a disk, or a limit of inodes, is full",
        (_, libc::ENOMEM) => "the memory limit is too small to make a container in, or the host has none left",
        (_, libc::EMFILE | libc::ENFILE) => "too many descriptors are open",
        (_, libc::EDQUOT) => "a disk quota, or the quota of keys, is used up",
        (_, libc::ENOSYS) => "this kernel, or a filter before it, lacks a system call that containers need",
        (Op::CgroupCreate { .. }, libc::EACCES) | (_, libc::EPERM) => "containers are made by root, as a rule",
        _ => return None,
    };
    Some(words.to_owned())
}

fn hint_of_limit(file: &str) -> String {
    match file {
        "cpuset.cpus" => "not all of these processors are there, or the parent cgroup has not got them".to_owned(),
        "cpuset.mems" => "not all of these memory nodes are there".to_owned(),
        "cpu.cfs_quota_us" | "cpu.cfs_period_us" | "cpu.max" => {
            "a period is 1000 to 1000000 microseconds, a quota at least 1000".to_owned()
        }
        "cpu.rt_runtime_us" => {
            "the cgroup above has not so much real time to give: see its cpu.rt_runtime_us".to_owned()
        }
        file => format!("{file} does not take this value"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Builder, TextsBuf};

    fn plan() -> (Vec<u8>, Vec<String>) {
        let mut plan = Builder::default();
        let proc = plan.slot();
        plan.keeper(Op::Clone { flags: libc::CLONE_NEWNS as u64, cgroup: None });
        plan.child(Op::NewMount { fstype: c"proc", options: TextsBuf::default().as_texts(), attributes: 0, out: proc });
        plan.child(Op::Attach { mount: proc, within: None, path: c"/proc", file: false, strict: true });
        let names = ["in", "out", "err", "proc for /proc"].map(str::to_owned).to_vec();
        (plan.finish(), names)
    }

    #[test]
    fn a_failure_is_one_sentence() {
        let (bytes, names) = plan();
        let plan = Plan::parse(&bytes).unwrap();
        let failure = failure(&plan, &names, Part::Child, 1, libc::EPERM, b"");
        assert_eq!(failure.sentence, "mounting proc at /proc: operation not permitted (step 3 of 3)");
        assert_eq!((failure.step, failure.index, failure.path.as_str()), ("Attach", 3, "/proc"));
        assert_eq!((failure.kind, failure.errno), (Kind::Other, libc::EPERM));
        assert!(failure.hint.is_some());
    }

    #[test]
    fn a_plan_that_was_refused_has_no_step() {
        let (bytes, names) = plan();
        let plan = Plan::parse(&bytes).unwrap();
        let failure = failure(&plan, &names, Part::Keeper, 99, 0, b"plan of version 7");
        assert_eq!((failure.sentence.as_str(), failure.index), ("making the container: plan of version 7", 0));
    }

    #[test]
    fn steps_are_counted_in_their_lists() {
        let (bytes, names) = plan();
        let steps = steps(&Plan::parse(&bytes).unwrap(), &names);
        let lines: Vec<_> = steps.iter().map(|step| (step.part, step.index, step.text.as_str())).collect();
        assert_eq!(
            lines,
            [
                (Part::Keeper, 0, "forking with new mount namespace"),
                (Part::Child, 0, "making proc for /proc"),
                (Part::Child, 1, "mounting proc at /proc"),
            ]
        );
    }
}
