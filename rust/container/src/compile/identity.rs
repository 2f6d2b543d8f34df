//! What the container's process is: limits, priorities, ids, rights, and at last the command.
//!
//! The order is that of the security notes: bounding set, groups, gid, uid, working directory, capabilities, seccomp,
//! exec. With no_new_privs the filter goes last, so that it need not allow what comes before it; without it loading
//! one takes a capability that is about to go.

use std::ffi::CString;

use crate::host::Host;
use crate::plan::{Op, STDERR, STDIN, STDOUT, TextsBuf};
use crate::seccomp;
use crate::spec::{IoPriority, Personality, Process, ResourceLimit, Scheduler, Text};

use super::capabilities::Sets;
use super::error::{Error, Result};
use super::ids::Ids;
use super::limits::{MAX_CPUS, parse_list};
use super::opened::Writer;
use super::paths::inside;

/// What docker and podman search when an image says nothing.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// In the order of their numbers (asm-generic/resource.h).
const LIMITS: [&str; 16] = [
    "RLIMIT_CPU",
    "RLIMIT_FSIZE",
    "RLIMIT_DATA",
    "RLIMIT_STACK",
    "RLIMIT_CORE",
    "RLIMIT_RSS",
    "RLIMIT_NPROC",
    "RLIMIT_NOFILE",
    "RLIMIT_MEMLOCK",
    "RLIMIT_AS",
    "RLIMIT_LOCKS",
    "RLIMIT_SIGPENDING",
    "RLIMIT_MSGQUEUE",
    "RLIMIT_NICE",
    "RLIMIT_RTPRIO",
    "RLIMIT_RTTIME",
];
/// Those that could end the making of the container before it is made: the child holds more descriptors than its
/// process will, writes more, and has its own stack.
const LIMITS_SET_LAST: [&str; 5] = ["RLIMIT_FSIZE", "RLIMIT_DATA", "RLIMIT_STACK", "RLIMIT_NOFILE", "RLIMIT_AS"];

/// The name of a limit's number.
pub(crate) fn limit_name(resource: u32) -> &'static str {
    LIMITS.get(resource as usize).copied().unwrap_or("RLIMIT_?")
}

#[derive(Clone, Copy, Debug)]
struct Limit {
    resource: u32,
    soft: u64,
    hard: u64,
    last: bool,
}

/// A checked process.
#[derive(Debug)]
pub(super) struct Identity<'a> {
    process: &'a Process<'a>,
    capabilities: Sets,
    limits: Vec<Limit>,
    /// The process's user and group as the host numbers them.
    host: (u32, u32),
    cwd: CString,
    candidates: TextsBuf,
    scheduler: Option<Vec<u8>>,
    io_priority: Option<u32>,
    personality: Option<u64>,
    seccomp: Option<seccomp::Filter>,
    affinity: [Option<Vec<u8>>; 2],
    init: bool,
}

impl<'a> Identity<'a> {
    /// `path` is where the process stands in its document.
    pub fn of(process: &'a Process<'a>, path: &str, ids: &Ids<'_>, host: &Host) -> Result<Self> {
        let field = |name: &str| format!("{path}.{name}");
        check_command(process, path)?;
        let user = &process.user;
        let host_ids = (ids.host_uid(user.uid, &field("user.uid"))?, ids.host_gid(user.gid, &field("user.gid"))?);
        for (index, &gid) in user.additional_gids.iter().enumerate() {
            ids.host_gid(gid, &field(&format!("user.additionalGids[{index}]")))?;
        }
        if let Some(mask) = user.umask.filter(|mask| mask & !0o777 != 0) {
            return Err(Error::spec(field("user.umask"), format!("{mask:o} is no mask")));
        }
        if let Some(score) = process.oom_score_adj.filter(|score| !(-1000..=1000).contains(score)) {
            return Err(Error::spec(field("oomScoreAdj"), format!("{score} is not within -1000 to 1000")));
        }
        let cwd = inside(&process.cwd, &field("cwd"))?;
        let cwd = if cwd.is_empty() { c"/".to_owned() } else { super::paths::c(&cwd) };
        Ok(Self {
            process,
            capabilities: Sets::of(process.capabilities.as_ref(), ids.mapped, host, &field("capabilities"))?,
            limits: limits(&process.rlimits, &field("rlimits"))?,
            host: host_ids,
            cwd,
            candidates: candidates(process),
            scheduler: process.scheduler.as_ref().map(|given| scheduler(given, &field("scheduler"))).transpose()?,
            io_priority: process
                .io_priority
                .as_ref()
                .map(|given| io_priority(given, &field("ioPriority")))
                .transpose()?,
            personality: None,
            seccomp: None,
            affinity: affinity(process, &field("execCPUAffinity"))?,
            init: false,
        })
    }

    /// What comes from `linux` rather than from `process`.
    pub fn in_container(
        mut self,
        personality: Option<&Personality<'_>>,
        filter: Option<seccomp::Filter>,
        init: bool,
    ) -> Result<Self> {
        self.personality = personality.map(persona).transpose()?;
        self.seccomp = filter;
        self.init = init;
        Ok(self)
    }

    /// The keeper's part: what needs the host's rights.
    pub fn write_keeper(&self, writer: &mut Writer) {
        if let Some(score) = self.process.oom_score_adj {
            writer.plan.keeper(Op::AdjustOomScore { score });
        }
        for limit in &self.limits {
            self.write_early_limit(limit, writer);
        }
        // Whatever the keeper runs as can open its own pipes.
        if !self.process.terminal && self.host != (0, 0) {
            let (uid, gid) = self.host;
            for slot in [STDIN, STDOUT, STDERR] {
                writer.plan.keeper(Op::GiveAway { slot, uid, gid });
            }
        }
    }

    /// A ceiling can only be raised by the keeper; what would hurt is lowered by the child, at last.
    fn write_early_limit(&self, limit: &Limit, writer: &mut Writer) {
        const HARMLESS: u64 = 4096;
        let Limit { resource, soft, hard, last } = *limit;
        if !last || (limit_name(resource) == "RLIMIT_NOFILE" && soft >= HARMLESS) {
            writer.plan.keeper(Op::SetLimit { resource, soft, hard });
        } else if hard >= HARMLESS {
            writer.plan.keeper(Op::SetLimit { resource, soft: hard, hard });
        }
    }

    /// The child's standard descriptors; needs the container's /dev/pts if there is a terminal.
    pub fn write_stdio(&self, console: bool, writer: &mut Writer) {
        if !self.process.terminal {
            let (input, output, error) = (STDIN, STDOUT, STDERR);
            writer.plan.child(Op::SetStdio { input, output, error, terminal: false });
            return;
        }
        let size = self.process.console_size.map_or((0, 0), |size| (size.height, size.width));
        let (rows, columns) = (u32::from(size.0), u32::from(size.1));
        let tty = writer.slot("the terminal");
        writer.plan.child(Op::OpenTerminal { rows, columns, console, out: tty });
        if self.process.user.uid != 0 {
            // The group stays what devpts gives it.
            writer.plan.child(Op::GiveAway { slot: tty, uid: self.process.user.uid, gid: u32::MAX });
        }
        writer.plan.child(Op::SetStdio { input: tty, output: tty, error: tty, terminal: true });
    }

    /// Makes the working directory while the root file system can be written and the child is root.
    pub fn write_working_directory(&self, writer: &mut Writer) {
        if self.cwd.as_c_str() != c"/" {
            writer.plan.child(Op::ChangeDirectory { path: &self.cwd, create: true });
        }
    }

    /// Processors before a joining process enters its cgroup.
    pub fn write_first_affinity(&self, writer: &mut Writer) {
        if let Some(mask) = &self.affinity[0] {
            writer.plan.child(Op::SetAffinity { mask });
        }
    }

    /// Processors of a process that has joined.
    pub fn write_last_affinity(&self, writer: &mut Writer) {
        if let Some(mask) = &self.affinity[1] {
            writer.plan.child(Op::SetAffinity { mask });
        }
    }

    /// From here to the end of the child's list.
    pub fn write_last(&self, writer: &mut Writer) {
        self.write_priorities(writer);
        self.write_ids(writer);
        self.write_rights(writer);
        self.write_exec(writer);
    }

    fn write_priorities(&self, writer: &mut Writer) {
        if let Some(mask) = self.process.user.umask {
            writer.plan.child(Op::SetUmask { mask });
        }
        if let Some(attributes) = &self.scheduler {
            writer.plan.child(Op::SetScheduler { attributes });
        }
        if let Some(priority) = self.io_priority {
            writer.plan.child(Op::SetIoPriority { priority });
        }
        if let Some(persona) = self.personality {
            writer.plan.child(Op::SetPersonality { persona });
        }
    }

    fn write_ids(&self, writer: &mut Writer) {
        let user = &self.process.user;
        let gids: Vec<u8> = user.additional_gids.iter().flat_map(|gid| gid.to_le_bytes()).collect();
        writer.plan.child(Op::LimitBoundingSet { keep: self.capabilities.bounding });
        writer.plan.child(Op::KeepCapabilities { keep: true });
        writer.plan.child(Op::SetGroups { gids: &gids });
        writer.plan.child(Op::SetGid { gid: user.gid });
        writer.plan.child(Op::SetUid { uid: user.uid });
        writer.plan.child(Op::DieWithKeeper {});
        writer.plan.child(Op::ChangeDirectory { path: &self.cwd, create: false });
        writer.plan.child(Op::KeepCapabilities { keep: false });
    }

    fn write_rights(&self, writer: &mut Writer) {
        let Sets { effective, permitted, inheritable, ambient, .. } = self.capabilities;
        let restricted = self.process.no_new_privileges;
        if !restricted {
            self.write_filter(writer);
        }
        writer.plan.child(Op::SetCapabilities { effective, permitted, inheritable });
        writer.plan.child(Op::SetAmbient { ambient });
        if restricted {
            writer.plan.child(Op::NoNewPrivileges {});
        }
        // PID 1 then has the rights of the process that it looks after and no more, as one in the image would. It can
        // signal whatever has its user, or all if it has CAP_KILL. The filter is not for it where that can be had.
        if self.init {
            writer.plan.child(Op::BecomeInit {});
        }
        if restricted {
            self.write_filter(writer);
        }
    }

    fn write_filter(&self, writer: &mut Writer) {
        if let Some(filter) = &self.seccomp {
            writer.plan.child(Op::LoadSeccomp { flags: filter.flags, program: &filter.program });
        }
    }

    fn write_exec(&self, writer: &mut Writer) {
        for limit in self.limits.iter().filter(|limit| limit.last) {
            let Limit { resource, soft, hard, .. } = *limit;
            writer.plan.child(Op::SetLimit { resource, soft, hard });
        }
        writer.plan.child(Op::CleanProcess {});
        let (arguments, environment) = (texts(&self.process.args), texts(&self.process.env));
        writer.plan.child(Op::Exec {
            candidates: self.candidates.as_texts(),
            arguments: arguments.as_texts(),
            environment: environment.as_texts(),
        });
    }
}

/// Joins a user namespace's root, after the maps are written or the namespace is entered.
pub(super) fn write_become_root(writer: &mut Writer) {
    writer.plan.child(Op::SetGid { gid: 0 });
    writer.plan.child(Op::SetUid { uid: 0 });
    writer.plan.child(Op::DieWithKeeper {});
}

fn texts(list: &[Text<'_>]) -> TextsBuf {
    let texts: Vec<CString> = list.iter().map(Text::to_c_string).collect();
    texts.iter().map(CString::as_c_str).collect()
}

fn check_command(process: &Process<'_>, path: &str) -> Result<()> {
    match process.args.first() {
        None => return Err(Error::spec(format!("{path}.args"), "missing: there is nothing to run")),
        Some(command) if command.is_empty() => {
            return Err(Error::spec(format!("{path}.args[0]"), "empty: there is nothing to run"));
        }
        Some(_) => {}
    }
    if let Some(index) = process.env.iter().position(|entry| entry.find('=').is_none_or(|at| at == 0)) {
        return Err(Error::spec(format!("{path}.env[{index}]"), "is not NAME=value"));
    }
    Ok(())
}

/// The files that the command can be: itself if it has a slash, else one in each directory of PATH (execvp(3)).
fn candidates(process: &Process<'_>) -> TextsBuf {
    let Some(command) = process.args.first() else { return TextsBuf::default() };
    let mut candidates = TextsBuf::default();
    if command.contains('/') {
        candidates.push(&command.to_c_string());
        return candidates;
    }
    // The last of several is the one that programs see.
    let path = process.env.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    for directory in path.split(':') {
        let directory = if directory.is_empty() { "." } else { directory };
        candidates.push(&super::paths::c(&format!("{}/{command}", directory.trim_end_matches('/'))));
    }
    candidates
}

fn limits(rlimits: &[ResourceLimit<'_>], path: &str) -> Result<Vec<Limit>> {
    let mut limits: Vec<Limit> = Vec::with_capacity(rlimits.len());
    for (index, given) in rlimits.iter().enumerate() {
        let field = |name: &str| format!("{path}[{index}]{name}");
        let Some(number) = LIMITS.iter().position(|name| *name == &*given.kind) else {
            return Err(Error::spec(field(".type"), format!("{:?} is no limit", &*given.kind)));
        };
        if given.soft > given.hard {
            let message = format!("{} is more than the hard limit, {}", given.soft, given.hard);
            return Err(Error::spec(field(".soft"), message));
        }
        let resource = number as u32;
        if limits.iter().any(|earlier| earlier.resource == resource) {
            return Err(Error::spec(field(".type"), format!("{} comes twice", given.kind)));
        }
        let last = LIMITS_SET_LAST.contains(&&*given.kind);
        limits.push(Limit { resource, soft: given.soft, hard: given.hard, last });
    }
    Ok(limits)
}

/// `struct sched_attr` (sched_setattr(2)).
fn scheduler(given: &Scheduler<'_>, path: &str) -> Result<Vec<u8>> {
    let policy: u32 = match &*given.policy {
        "SCHED_OTHER" => 0,
        "SCHED_FIFO" => 1,
        "SCHED_RR" => 2,
        "SCHED_BATCH" => 3,
        "SCHED_IDLE" => 5,
        "SCHED_DEADLINE" => 6,
        other => return Err(Error::spec(format!("{path}.policy"), format!("{other:?} is no policy of this kernel"))),
    };
    let mut flags = 0u64;
    for (index, flag) in given.flags.iter().enumerate() {
        flags |= match &**flag {
            "SCHED_FLAG_RESET_ON_FORK" => 0x01,
            "SCHED_FLAG_RECLAIM" => 0x02,
            "SCHED_FLAG_DL_OVERRUN" => 0x04,
            "SCHED_FLAG_KEEP_POLICY" => 0x08,
            "SCHED_FLAG_KEEP_PARAMS" => 0x10,
            other => return Err(Error::spec(format!("{path}.flags[{index}]"), format!("{other:?}: not supported"))),
        };
    }
    let Ok(priority) = u32::try_from(given.priority) else {
        return Err(Error::spec(format!("{path}.priority"), format!("{} is below 0", given.priority)));
    };
    const SIZE: u32 = 48;
    let mut attributes = Vec::with_capacity(SIZE as usize);
    attributes.extend_from_slice(&SIZE.to_ne_bytes());
    attributes.extend_from_slice(&policy.to_ne_bytes());
    attributes.extend_from_slice(&flags.to_ne_bytes());
    attributes.extend_from_slice(&given.nice.to_ne_bytes());
    attributes.extend_from_slice(&priority.to_ne_bytes());
    for time in [given.runtime, given.deadline, given.period] {
        attributes.extend_from_slice(&time.to_ne_bytes());
    }
    Ok(attributes)
}

fn io_priority(given: &IoPriority<'_>, path: &str) -> Result<u32> {
    let class = match &*given.class {
        "IOPRIO_CLASS_RT" => 1,
        "IOPRIO_CLASS_BE" => 2,
        "IOPRIO_CLASS_IDLE" => 3,
        other => return Err(Error::spec(format!("{path}.class"), format!("{other:?} is no class"))),
    };
    if given.priority > 7 {
        return Err(Error::spec(format!("{path}.priority"), format!("{} is not within 0 to 7", given.priority)));
    }
    // IOPRIO_PRIO_VALUE (linux/ioprio.h).
    Ok(class << 13 | given.priority)
}

fn persona(given: &Personality<'_>) -> Result<u64> {
    match &*given.domain {
        "LINUX" => Ok(0),
        "LINUX32" => Ok(8),
        other => Err(Error::spec("linux.personality.domain", format!("{other:?} is neither LINUX nor LINUX32"))),
    }
}

fn affinity(process: &Process<'_>, path: &str) -> Result<[Option<Vec<u8>>; 2]> {
    let Some(given) = &process.exec_cpu_affinity else { return Ok([None, None]) };
    let mask = |list: &Option<Text<'_>>, name: &str| match list.as_deref().filter(|list| !list.is_empty()) {
        None => Ok(None),
        Some(list) => {
            let numbers = parse_list(list).map_err(|message| Error::spec(format!("{path}.{name}"), message))?;
            Ok(Some(cpu_mask(&numbers)))
        }
    };
    Ok([mask(&given.initial, "initial")?, mask(&given.last, "final")?])
}

/// Bits in longs, as sched_setaffinity(2) takes them.
fn cpu_mask(numbers: &[usize]) -> Vec<u8> {
    let mut mask = vec![0; MAX_CPUS / 8];
    numbers.iter().for_each(|number| mask[number / 8] |= 1 << (number % 8));
    let used = mask.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    mask.truncate(used.next_multiple_of(size_of::<u64>()));
    mask
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(json: &str) -> Process<'_> {
        serde_json::from_str(json).unwrap()
    }

    fn found(env: &str, command: &str) -> Vec<String> {
        let json = format!(r#"{{"user": {{"uid": 0, "gid": 0}}, "cwd": "/", "args": [{command:?}], "env": {env}}}"#);
        candidates(&process(&json)).as_texts().iter().map(|text| text.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_command_is_looked_for_as_execvp_does() {
        assert_eq!(found("[]", "/bin/sh"), ["/bin/sh"]);
        assert_eq!(found("[]", "./app"), ["./app"]);
        assert_eq!(found(r#"["PATH=/a:/b/"]"#, "x"), ["/a/x", "/b/x"]);
        assert_eq!(found(r#"["PATH=/a", "PATH=/b"]"#, "x"), ["/b/x"]);
        assert_eq!(found(r#"["PATH=:/a"]"#, "x"), ["./x", "/a/x"]);
        assert_eq!(found(r#"["PATH=/"]"#, "x"), ["/x"]);
        assert_eq!(found("[]", "x").len(), 6);
    }

    #[test]
    fn masks_are_whole_words() {
        assert_eq!(cpu_mask(&[0, 9]), [1, 2, 0, 0, 0, 0, 0, 0]);
        assert_eq!(cpu_mask(&[64]).len(), 16);
    }

    #[test]
    fn priorities_are_the_kernels_numbers() {
        let json = r#"{"class": "IOPRIO_CLASS_BE", "priority": 4}"#;
        assert_eq!(io_priority(&serde_json::from_str(json).unwrap(), "p").unwrap(), 0x4004);
        let json = r#"{"policy": "SCHED_BATCH", "nice": -5}"#;
        let attributes = scheduler(&serde_json::from_str(json).unwrap(), "p").unwrap();
        assert_eq!((attributes.len(), attributes[4], attributes[16]), (48, 3, 0xfb));
    }
}
