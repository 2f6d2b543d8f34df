//! What the container's process is: limits, priorities, ids, rights, and at last the command.
//!
//! The order is that of the security notes: bounding set, groups, gid, uid, working directory, capabilities,
//! descriptors, seccomp, exec. With no_new_privs the filter goes last, so that it need not allow what comes before it;
//! without it loading one takes a capability that leaving uid 0 takes away.

use std::collections::HashMap;
use std::ffi::{CStr, CString};

use crate::host::Host;
use crate::plan::{Op, STDERR, STDIN, STDOUT, Slot, TextsBuf};
use crate::seccomp;
use crate::spec::{Linux, Process, Spec, Text};

use super::agent::Agent;
use super::capabilities::Sets;
use super::error::{Error, Result};
use super::ids::Ids;
use super::lifecycle::Lifecycle;
use super::opened::{Opened, Writer};
use super::paths::inside;
use super::rlimits::{Limit, limits};
use super::scheduling::{affinity, io_priority, memory_policy, persona, scheduler};
use super::start::Start;

/// CAP_SYS_ADMIN.
const SYS_ADMIN: u64 = 1 << 21;

/// What docker and podman search when an image says nothing.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A checked process.
#[derive(Debug)]
pub(super) struct Identity<'a> {
    process: &'a Process<'a>,
    capabilities: Sets,
    limits: Vec<Limit>,
    /// The process's user and group as the host numbers them.
    host: (u32, u32),
    /// The groups are those of whoever has called: they can't be left.
    denies_groups: bool,
    cwd: CString,
    candidates: TextsBuf,
    scheduler: Option<Vec<u8>>,
    io_priority: Option<u32>,
    personality: Option<u64>,
    seccomp: Option<seccomp::Filter>,
    affinity: [Option<Vec<u8>>; 2],
    init: bool,
    lifecycle: Lifecycle,
    label: Option<Label>,
    memory_policy: Option<(u32, Vec<u8>)>,
    agent: Option<Agent>,
}

fn own_oom_score() -> Option<i32> {
    crate::host::read_file("/proc/self/oom_score_adj").ok()?.trim().parse().ok()
}

/// What a security module is to confine the process with.
#[derive(Debug)]
struct Label {
    /// The folder in /proc/PID that takes it.
    folder: &'static CStr,
    text: String,
}

impl<'a> Identity<'a> {
    /// `path` is where the process stands in its document.
    pub fn of(process: &'a Process<'a>, path: &str, ids: &Ids<'_>, start: &Start<'_>, host: &Host) -> Result<Self> {
        let field = |name: &str| format!("{path}.{name}");
        check_command(process, path)?;
        let user = &process.user;
        let host_ids = ids.check_user(user, &field("user"))?;
        if host.denies_groups && !user.additional_gids.is_empty() {
            let message = "in this user namespace nobody may have other groups (setgroups is denied)";
            let hint = "containers are made by root, or where more than one id is mapped (newgidmap)";
            return Err(Error::host(field("user.additionalGids"), message).hint(hint));
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
            capabilities: Sets::of(process.capabilities.as_ref(), ids, start, host, &field("capabilities"))?,
            limits: limits(&process.rlimits, &field("rlimits"))?,
            host: host_ids,
            denies_groups: host.denies_groups,
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
            lifecycle: Lifecycle::default(),
            label: label(process, path, host)?,
            memory_policy: None,
            agent: None,
        })
    }

    /// How the list ends.
    pub fn with_lifecycle(self, lifecycle: Lifecycle) -> Self {
        Self { lifecycle, ..self }
    }

    /// What comes from `linux` rather than from `process`.
    pub fn in_container(mut self, linux: &Linux<'_>, init: bool) -> Result<Self> {
        self.personality = linux.personality.as_ref().map(persona).transpose()?;
        self.memory_policy = linux.memory_policy.as_ref().map(memory_policy).transpose()?;
        self.seccomp = super::filter(linux)?;
        self.init = init;
        Ok(self)
    }

    /// Connects to whoever is to get the filter's notifications, if it makes any.
    pub fn with_agent(mut self, spec: &Spec<'_>, start: &Start<'_>, opened: &mut Opened) -> Result<Self> {
        self.agent = Agent::open(self.seccomp.as_ref(), spec, start, opened)?;
        Ok(self)
    }

    /// While the host's /proc is in sight.
    pub fn write_note(&self, writer: &mut Writer) {
        if self.agent.is_some() {
            writer.plan.child(Op::NotePid {});
        }
    }

    /// The keeper's part: what needs the host's rights. Returns what the child needs of it.
    pub fn write_keeper(&self, writer: &mut Writer) -> Option<Slot> {
        // One that it has from us already need not be written.
        let inherited = self.lifecycle.outlives().then(own_oom_score).flatten();
        if let Some(score) = self.process.oom_score_adj.filter(|&score| Some(score) != inherited) {
            writer.plan.keeper(Op::AdjustOomScore { score });
        }
        self.limits.iter().for_each(|limit| limit.write_early(writer));
        self.label.as_ref().map(|label| {
            let out = writer.slot("the security attributes of the child");
            writer.plan.keeper(Op::OpenAttributes { name: label.folder, out });
            out
        })
    }

    /// The keeper's part, too: the pipes become the container's.
    pub fn write_gifts(&self, writer: &mut Writer) {
        // Whatever the keeper runs as can open its own pipes.
        if !self.process.terminal && self.host != (0, 0) {
            let (uid, gid) = self.host;
            for slot in [STDIN, STDOUT, STDERR] {
                writer.plan.keeper(Op::GiveAway { slot, uid, gid });
            }
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

    /// First of what concerns rights. Only who executes nothing of the host any more may come this far.
    pub fn write_bounding_set(&self, writer: &mut Writer) {
        writer.plan.child(Op::LimitBoundingSet { keep: self.capabilities.bounding });
    }

    /// From here to the end of the child's list.
    pub fn write_last(&self, attributes: Option<Slot>, parked: bool, writer: &mut Writer) {
        if let Some((attributes, label)) = attributes.zip(self.label.as_ref()) {
            writer.plan.child(Op::SetSecurityLabel { attributes, label: label.text.as_bytes() });
        }
        self.write_priorities(writer);
        if !self.process.no_new_privileges && !self.filters_last() {
            self.write_filter(writer);
        }
        self.write_ids(writer);
        self.write_rights(writer);
        if self.agent.is_some() {
            // Agents take one connection after the other: none may stay open until somebody starts the container.
            self.write_last_filter(writer);
        }
        self.lifecycle.write_wait(writer);
        self.lifecycle.write_last(writer);
        // Before the limits: one of them may allow no descriptor that is still needed here.
        writer.plan.child(Op::CleanProcess {});
        if parked {
            self.write_waiting(writer);
        } else {
            self.write_limits(writer);
            if self.agent.is_none() {
                self.write_last_filter(writer);
            }
        }
        self.write_exec(writer);
    }

    /// All that can be done beforehand is done. The usual filter, and another never waits, allows what is left.
    fn write_waiting(&self, writer: &mut Writer) {
        self.write_last_filter(writer);
        writer.plan.child(Op::AwaitKeeper {});
        self.write_stdio(false, writer);
        self.write_limits(writer);
    }

    fn write_limits(&self, writer: &mut Writer) {
        self.limits.iter().for_each(|limit| limit.write_last(writer));
    }

    fn write_last_filter(&self, writer: &mut Writer) {
        if self.process.no_new_privileges {
            self.write_filter(writer);
        } else if self.filters_last() {
            let Sets { effective, permitted, inheritable, .. } = self.capabilities;
            self.write_filter(writer);
            writer.plan.child(Op::SetCapabilities { effective, permitted, inheritable });
        }
    }

    /// A process that waits for its start does more than a filter need allow. Without no_new_privs loading one takes
    /// CAP_SYS_ADMIN, which then goes after it.
    fn filters_last(&self) -> bool {
        self.lifecycle.outlives() && self.seccomp.is_some()
    }

    fn write_priorities(&self, writer: &mut Writer) {
        if let Some(mask) = self.process.user.umask {
            writer.plan.child(Op::SetUmask { mask });
        }
        if let Some(attributes) = &self.scheduler {
            writer.plan.child(Op::SetScheduler { attributes });
        }
        if let Some((mode, nodes)) = &self.memory_policy {
            writer.plan.child(Op::SetMemoryPolicy { mode: *mode, nodes });
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
        writer.plan.child(Op::KeepCapabilities { keep: true });
        if !self.denies_groups {
            writer.plan.child(Op::SetGroups { gids: &gids });
        }
        writer.plan.child(Op::SetGid { gid: user.gid });
        writer.plan.child(Op::SetUid { uid: user.uid });
        writer.plan.child(Op::DieWithKeeper {});
        writer.plan.child(Op::ChangeDirectory { path: &self.cwd, create: false });
        writer.plan.child(Op::KeepCapabilities { keep: false });
        self.lifecycle.write_look(&self.candidates, writer);
    }

    fn write_rights(&self, writer: &mut Writer) {
        let Sets { effective, permitted, inheritable, ambient, .. } = self.capabilities;
        let restricted = self.process.no_new_privileges;
        let late = if self.filters_last() && !restricted { SYS_ADMIN } else { 0 };
        let with_late = Op::SetCapabilities { effective: effective | late, permitted: permitted | late, inheritable };
        writer.plan.child(with_late);
        writer.plan.child(Op::SetAmbient { ambient });
        if restricted {
            writer.plan.child(Op::NoNewPrivileges {});
        }
        // PID 1 then has the rights of the process that it looks after and no more, as one in the image would. It can
        // signal whatever has its user, or all if it has CAP_KILL. The filter is not for it where that can be had.
        if self.init {
            writer.plan.child(Op::BecomeInit {});
        }
    }

    fn write_filter(&self, writer: &mut Writer) {
        match (&self.seccomp, &self.agent) {
            (Some(filter), Some(agent)) => writer.plan.child(agent.op(filter)),
            (Some(filter), None) => {
                writer.plan.child(Op::LoadSeccomp { flags: filter.flags, program: &filter.program });
            }
            (None, _) => {}
        }
    }

    fn write_exec(&self, writer: &mut Writer) {
        let (arguments, environment) = (texts(&self.process.args), environment(self.process));
        writer.plan.child(exec(&self.candidates, &arguments, &environment));
    }
}

fn exec<'a>(candidates: &'a TextsBuf, arguments: &'a TextsBuf, environment: &'a TextsBuf) -> Op<'a> {
    Op::Exec { candidates: candidates.as_texts(), arguments: arguments.as_texts(), environment: environment.as_texts() }
}

/// The `Exec` alone, of a process whose arguments and environment are all that counts.
pub(super) fn command(process: &Process<'_>) -> Result<Vec<u8>> {
    check_command(process, "process")?;
    Ok(exec(&candidates(process), &texts(&process.args), &environment(process)).encode())
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

/// Of several entries of a name the last counts, as with runc. getenv(3) would find the first, so the others go.
fn environment(process: &Process<'_>) -> TextsBuf {
    let end = |entry: &Text<'_>| entry.find('=').unwrap_or(entry.len());
    let last: HashMap<&str, usize> =
        process.env.iter().enumerate().map(|(index, entry)| (&entry[..end(entry)], index)).collect();
    let counts = |(index, entry): &(usize, &Text<'_>)| last.get(&entry[..end(entry)]) == Some(index);
    let entries = process.env.iter().enumerate().filter(counts).map(|(_, entry)| entry.to_c_string());
    let entries: Vec<CString> = entries.collect();
    entries.iter().map(CString::as_c_str).collect()
}

/// What is written for a profile or a context; no kernel has both modules on.
fn label(process: &Process<'_>, path: &str, host: &Host) -> Result<Option<Label>> {
    let given = |text: &Option<Text<'_>>| text.as_deref().filter(|text| !text.is_empty()).map(str::to_owned);
    let profile = given(&process.apparmor_profile);
    if profile.is_some() && !host.apparmor {
        let field = format!("{path}.apparmorProfile");
        return Err(Error::host(field, "AppArmor is not enabled on this machine").hint("leave the profile out"));
    }
    let context = given(&process.selinux_label);
    if context.is_some() && !host.selinux {
        let field = format!("{path}.selinuxLabel");
        return Err(Error::host(field, "SELinux is not enabled on this machine").hint("leave the label out"));
    }
    let profile = profile.map(|profile| Label { folder: c"attr/apparmor", text: format!("exec {profile}") });
    Ok(profile.or(context.map(|text| Label { folder: c"attr", text })))
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
    // Of several the last counts.
    let path = process.env.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    for directory in path.split(':') {
        let directory = if directory.is_empty() { "." } else { directory };
        candidates.push(&super::paths::c(&format!("{}/{command}", directory.trim_end_matches('/'))));
    }
    candidates
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(json: &str) -> Process<'_> {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn of_two_variables_of_a_name_the_last_counts() {
        let json = r#"{"user": {"uid": 0, "gid": 0}, "cwd": "/", "env": ["A=1", "B=2", "A=3=4"]}"#;
        let left = environment(&process(json));
        assert_eq!(left.as_texts().iter().collect::<Vec<_>>(), [c"B=2", c"A=3=4"]);
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
}
