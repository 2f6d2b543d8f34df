//! The keeper's list, with the host's rights. Allocation is allowed here.

use std::ffi::{CStr, CString};

use crate::plan::{CLONE_NEWTIME, Op, Part, Plan, STDERR, STDIN, STDOUT, Slot, Slots as SlotList};
use crate::protocol::{EVIDENCE, MAX_COMMAND, MAX_MESSAGE, warning};
use crate::sys::{self, Errno, Fd, Mapping, Side};

use super::birth::{Ahead, Birth, Newborn};
use super::cgroup::Created;
use super::channel::{ToChild, Word};
use super::exec::{Another, Vectors};
use super::hook::{self, Hook};
use super::{
    EMPTY, Failed, Given, MISPLACED, Meanwhile, Read, Running, Slots, Timings, child, mounts, net_device, set_limit,
    shared_step,
};

struct Child {
    pid: i32,
    pidfd: Fd,
    channel: ToChild,
}

/// One execution, seen from the keeper.
pub(super) struct Keeper<'a> {
    plan: &'a Plan<'a>,
    slots: Slots,
    timings: Timings,
    /// The child's, until it is born.
    vectors: Option<child::Prepared>,
    another: Another,
    hooks: Vec<(usize, Vectors)>,
    /// Cloned, and not yet told what it is to be.
    ahead: Option<Ahead>,
    child: Option<Child>,
    opened: Vec<Slot>,
    cgroups: Vec<Created>,
    terminal: Option<Fd>,
    warnings: u32,
    /// See [`Running`].
    mounts: Option<Fd>,
    /// The child waits for what comes after its call.
    called: bool,
    /// What the child needs until it has executed, and that of the timings.
    memory: Vec<Mapping>,
}

fn failed_at(index: usize, errno: Errno) -> Failed {
    Failed { part: Part::Keeper, index: index as u32, errno, evidence: Vec::new() }
}

impl<'a> Keeper<'a> {
    /// `ahead` is a child that is being cloned with the flags of the plan; else the step itself clones it.
    pub fn new(plan: &'a Plan<'a>, descriptors: &[Fd], ahead: Option<Ahead>) -> Result<Self, Failed> {
        let prepared = Slots::new(descriptors).and_then(|slots| Ok((slots, Timings::new()?)));
        let (slots, (timings, page)) = prepared.map_err(|errno| failed_at(0, errno))?;
        let (child, terminal) = (None, None);
        let (opened, cgroups) = (Vec::new(), Vec::new());
        let another = Another::none();
        let (exec, of_child) = Vectors::of(plan);
        let vectors = Some(child::Prepared { exec, another, hooks: of_child });
        let hooks = Vectors::of_keeper(plan);
        let (warnings, mounts, called) = (0, None, false);
        Ok(Self {
            plan,
            slots,
            timings,
            vectors,
            another,
            hooks,
            ahead,
            child,
            opened,
            cgroups,
            terminal,
            warnings,
            mounts,
            called,
            memory: vec![page],
        })
    }

    /// Walks the list, then waits for the child to call execve(2) or to say why it can't.
    pub fn run(&mut self, read: &mut Read<'_>, meanwhile: &mut Meanwhile<'_>) -> Result<(), Failed> {
        self.walk(read)?;
        if let Some(child) = &self.child {
            meanwhile(child.pid);
        }
        self.called = self.hear_child()?;
        Ok(())
    }

    /// The same of a container that may wait on its way, and whose mounts are held.
    pub fn run_parked(&mut self, read: &mut Read<'_>) -> Result<(), Failed> {
        self.walk(read)?;
        self.hold_mounts();
        self.called = self.hear_child()?;
        Ok(())
    }

    fn walk(&mut self, read: &mut Read<'_>) -> Result<(), Failed> {
        for (index, op) in self.plan.ops(Part::Keeper).enumerate() {
            match op {
                Op::AwaitChild {} => self.await_child(index)?,
                Op::RunHook { .. } => self.run_hook(index, &op)?,
                Op::AwaitStdio { socket } => {
                    self.hold_mounts();
                    self.await_stdio(socket, read).map_err(|errno| self.blame(index, errno))?
                }
                _ => self.step(&op).map_err(|errno| self.blame(index, errno))?,
            }
            self.timings.stamp(index);
        }
        Ok(())
    }

    /// Keeps the child's mount namespace until [`Running::clean_up`]: else the container's last process takes all mounts
    /// down before its end is told to anybody, an RCU grace period and more. Now, because once it has executed its
    /// command it may end at any moment.
    fn hold_mounts(&mut self) {
        if self.mounts.is_none() {
            self.mounts = self.open_of_child("ns/mnt", libc::O_RDONLY).ok();
        }
    }

    /// Walks what of the list is about groups.
    pub fn make_groups(&mut self) -> Result<(), Failed> {
        let is_of_groups = |op: &Op<'_>| {
            let is_made = matches!(op, Op::CgroupCreate { .. } | Op::OpenAt { .. } | Op::DelegateCgroup { .. });
            is_made || matches!(op, Op::WriteAt { .. } | Op::AttachDeviceProgram { .. })
        };
        let mut ops = self.plan.ops(Part::Keeper).enumerate().filter(|(_, op)| is_of_groups(op));
        ops.try_for_each(|(index, op)| self.step(&op).map_err(|errno| failed_at(index, errno)))
    }

    fn await_child(&mut self, index: usize) -> Result<(), Failed> {
        if self.hear_child()? { Ok(()) } else { Err(failed_at(index, Errno(libc::EPIPE))) }
    }

    fn run_hook(&self, index: usize, op: &Op<'_>) -> Result<(), Failed> {
        let Op::RunHook { path, before, after, timeout, .. } = *op else { return Err(failed_at(index, MISPLACED)) };
        let vectors = self.hooks.iter().find(|(at, _)| *at == index).map(|(_, vectors)| vectors);
        let child = self.child().map_err(|errno| failed_at(index, errno))?;
        let vectors = vectors.ok_or_else(|| failed_at(index, MISPLACED))?;
        let hook = Hook { path, state: [before, after], timeout, root: None };
        let mut printed = vec![0; EVIDENCE];
        hook::run(&hook, child.pid, vectors, &mut printed).map_err(|trouble| {
            printed.truncate(trouble.printed);
            Failed { evidence: printed, ..failed_at(index, trouble.errno) }
        })
    }

    /// A child that died before its release made our step fail: then its reason is the reason.
    fn blame(&self, index: usize, errno: Errno) -> Failed {
        let word = self.child.as_ref().and_then(|child| child.channel.already_said());
        match word {
            Some(Word::Failed { index, errno, evidence }) => Failed { part: Part::Child, index, errno, evidence },
            Some(Word::Closed) => self.confirm_start().err().unwrap_or_else(|| failed_at(index, errno)),
            _ => failed_at(index, errno),
        }
    }

    /// True if the child has called, false if it has closed the channel.
    fn hear_child(&mut self) -> Result<bool, Failed> {
        let after = self.plan.len(Part::Keeper);
        loop {
            let child = self.child.as_ref().ok_or_else(|| failed_at(after, MISPLACED))?;
            match child.channel.listen().map_err(|errno| failed_at(after, errno))? {
                Word::Terminal(master) => self.terminal = Some(master),
                Word::Failed { index, errno, evidence } => {
                    return Err(Failed { part: Part::Child, index, errno, evidence });
                }
                Word::Call => return Ok(true),
                Word::Closed => return self.confirm_start().map(|()| false),
            }
        }
    }

    /// A closed channel is execve(2)'s doing, or death's: a small memory limit can end the child at any step.
    fn confirm_start(&self) -> Result<(), Failed> {
        let child = self.child.as_ref().ok_or_else(|| failed_at(self.plan.len(Part::Keeper), MISPLACED))?;
        if has_executed(child.pid) {
            return Ok(());
        }
        let stuck = self.timings.first_open(self.plan.len(Part::Keeper), self.plan.len(Part::Child));
        // PID 1 of ours never executes anything: its fork does, and its stamp has to do for evidence.
        if stuck.is_none() && self.plan.ops(Part::Child).any(|op| matches!(op, Op::BecomeInit {})) {
            return Ok(());
        }
        let index = stuck.unwrap_or(self.plan.len(Part::Child) - 1) as u32;
        let (errno, evidence) = self.cause_of_death(child.pid);
        Err(Failed { part: Part::Child, index, errno, evidence })
    }

    /// Reaps the child. Want of memory is ENOMEM; a signal has no error number.
    fn cause_of_death(&self, pid: i32) -> (Errno, Vec<u8>) {
        let signal = sys::wait(pid, true).ok().flatten().and_then(|ended| ended.signal);
        match signal {
            Some(libc::SIGKILL) if super::cgroup::read_accounts(&self.cgroups).oom_kills > 0 => {
                (Errno(libc::ENOMEM), Vec::new())
            }
            Some(signal) => (Errno(0), format!("killed by signal {signal}").into_bytes()),
            None => (Errno(0), b"it ended before its time".to_vec()),
        }
    }

    pub fn into_running(self) -> Running {
        let timings = self.timings.collect(self.plan.len(Part::Keeper) + self.plan.len(Part::Child));
        let called = self.called;
        let (pid, pidfd, channel) = self.child.map_or((0, -1, None), |child| {
            if !called {
                sys::close(child.channel.0);
            }
            (child.pid, child.pidfd, called.then_some(child.channel))
        });
        let kept = |fd: Fd| self.cgroups.iter().any(|cgroup| fd == cgroup.parent || fd == cgroup.directory);
        let (stdio, mut leftover) = self.slots.open();
        leftover.retain(|&fd| !kept(fd));
        let (terminal, warnings) = (self.terminal, self.warnings);
        let (cgroups, mounts, memory, unfit) = (self.cgroups, self.mounts, self.memory, None);
        Running { pid, pidfd, terminal, warnings, timings, cgroups, stdio, leftover, mounts, channel, memory, unfit }
    }

    /// Ends the child, if there is one, and removes what was made.
    pub fn abandon(&mut self) {
        self.ahead = None;
        if let Some(child) = self.child.take() {
            let _ = sys::signal_pidfd(child.pidfd, libc::SIGKILL);
            let _ = sys::wait(child.pid, true);
        }
        super::cgroup::remove(&self.cgroups);
    }

    fn open(&mut self, slot: Slot, fd: Fd) {
        self.slots.set(slot, fd);
        if self.child.is_some() {
            self.opened.push(slot);
        }
    }

    fn child(&self) -> sys::Result<&Child> {
        self.child.as_ref().ok_or(MISPLACED)
    }

    /// Opens a file of the child's folder in /proc.
    fn open_of_child(&self, name: &str, flags: i32) -> sys::Result<Fd> {
        open_of(self.child()?.pid, name, flags)
    }

    fn write_of_child(&self, name: &str, data: &[u8]) -> sys::Result<()> {
        write_of(self.child()?.pid, name, data)
    }

    /// Its only process ends when the descriptor is there, which keeps the namespace.
    fn new_id_map(&self, uid_map: &[u8], gid_map: &[u8]) -> sys::Result<Fd> {
        let [read, write] = sys::pipe()?;
        match sys::clone(libc::CLONE_NEWUSER as u64, None)? {
            Side::Child => {
                sys::close(write);
                let _ = sys::read(read, &mut [0]);
                sys::exit(0)
            }
            Side::Parent { pid, pidfd } => {
                let maps = write_of(pid, "uid_map", uid_map).and_then(|()| write_of(pid, "gid_map", gid_map));
                let namespace = maps.and_then(|()| open_of(pid, "ns/user", libc::O_RDONLY));
                [read, write, pidfd].into_iter().for_each(sys::close);
                sys::wait(pid, true)?;
                namespace
            }
        }
    }

    fn step(&mut self, op: &Op<'_>) -> sys::Result<()> {
        match *op {
            Op::CgroupCreate { parent, name, out } => self.create_cgroup(parent, name, out),
            Op::WriteAt { dir, name, data, optional } => match sys::write_at(self.slots.get(dir)?, name, data) {
                Err(Errno(libc::ENOENT | libc::EACCES | libc::EPERM | libc::EINVAL)) if optional => Ok(()),
                other => other,
            },
            Op::OpenAt { dir, name, flags, out } => {
                let fd = sys::openat(self.slots.get(dir)?, name, flags | libc::O_NOFOLLOW, 0)?;
                self.open(out, fd);
                Ok(())
            }
            Op::DelegateCgroup { cgroup, name, uid } => {
                match sys::chown_at(self.slots.get(cgroup)?, name, uid, u32::MAX) {
                    Err(Errno(libc::ENOENT)) if !name.is_empty() => Ok(()),
                    other => other,
                }
            }
            Op::AttachDeviceProgram { cgroup, program } => attach_device_program(self.slots.get(cgroup)?, program),
            Op::OpenNamespace { path, out } => {
                let fd = sys::openat(libc::AT_FDCWD, path, libc::O_RDONLY, 0)?;
                self.open(out, fd);
                Ok(())
            }
            Op::JoinPidNamespace { pidfd } => sys::setns(self.slots.get(pidfd)?, libc::CLONE_NEWPID as u64),
            Op::JoinNamespaces { fd, flags } => sys::setns(self.slots.get(fd)?, flags),
            Op::Clone { flags, cgroup } => self.clone_child(flags, cgroup),
            Op::CloneFrom { joins, flags, clocks, cgroup } => self.clone_from(joins, flags, clocks, cgroup),
            Op::NewMountAside { joins, fstype, options, attributes, out } => {
                let mount = aside(|| {
                    join(&self.slots, joins)?;
                    mounts::new_mount(fstype, options, attributes)
                })?;
                self.open(out, mount);
                Ok(())
            }
            Op::WriteIdMaps { uid_map, gid_map, deny_setgroups } => {
                if deny_setgroups {
                    self.write_of_child("setgroups", b"deny")?;
                }
                self.write_of_child("uid_map", uid_map)?;
                self.write_of_child("gid_map", gid_map)
            }
            Op::NewIdMap { uid_map, gid_map, out } => {
                let fd = self.new_id_map(uid_map, gid_map)?;
                self.slots.set(out, fd);
                Ok(())
            }
            Op::MoveNetDevice { namespace, name, inside } => {
                let namespace = match namespace {
                    Some(slot) => sys::dup_above(self.slots.get(slot)?, 3)?,
                    None => self.open_of_child("ns/net", libc::O_RDONLY)?,
                };
                let moved = net_device::move_into(namespace, name, inside, |work| aside(work));
                sys::close(namespace);
                moved
            }
            Op::OpenAttributes { name, out } => {
                let fd = self.open_of_child(&name.to_string_lossy(), libc::O_PATH | libc::O_DIRECTORY)?;
                self.open(out, fd);
                Ok(())
            }
            Op::OpenUserNamespace { out } => {
                // For idmaps only: the child needs no descriptor of its own namespace.
                let fd = self.open_of_child("ns/user", libc::O_RDONLY)?;
                self.slots.set(out, fd);
                Ok(())
            }
            Op::IdmapMount { mount, userns, recursive } => {
                sys::idmap_mount(self.slots.get(mount)?, self.slots.get(userns)?, recursive)
            }
            Op::NewMount { out, .. } => {
                shared_step(op, &mut self.slots)?;
                self.note(out);
                Ok(())
            }
            Op::NewOverlay { lowers, names, upper, changes, volatile, attributes, out } => {
                let stack = mounts::Stack::of(&self.slots, (lowers, names), (upper, changes), volatile)?;
                let mount = mounts::new_overlay(&stack, attributes)?;
                self.open(out, mount);
                Ok(())
            }
            Op::CloneTree { dir, path, recursive, out } => {
                let mount = sys::clone_tree(self.slots.get(dir)?, path, recursive)?;
                self.open(out, mount);
                Ok(())
            }
            Op::AdjustOomScore { score } => self.adjust_oom_score(score),
            Op::SetLimit { resource, soft, hard } => self.set_limit(resource, soft, hard),
            Op::Release {} => {
                let opened = std::mem::take(&mut self.opened);
                self.child()?.channel.release(&self.slots, &opened)
            }
            Op::MountOverlay { lowers, names, upper, changes, volatile, attributes, at, name } => {
                let stack = mounts::Stack::of(&self.slots, (lowers, names), (upper, changes), volatile)?;
                mounts::mount_overlay(&stack, attributes, (self.slots.get(at)?, name))
            }
            Op::GiveAway { slot, uid, gid } => give_away(self.slots.get(slot)?, uid, gid),
            _ => shared_step(op, &mut self.slots),
        }
    }

    /// Also returns, with an error, when the child has failed at a step meanwhile.
    fn await_stdio(&mut self, socket: Slot, read: &mut Read<'_>) -> sys::Result<()> {
        let (socket, channel) = (self.slots.get(socket)?, self.child()?.channel.0);
        let entry = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let mut entries = [entry(channel), entry(socket)];
        // Made before anybody waits, and kept: a mapping that goes takes its time.
        let message: &'static mut [u8] = Vec::leak(vec![0; MAX_MESSAGE + MAX_COMMAND]);
        sys::poll(&mut entries, -1)?;
        if entries[0].revents != 0 {
            return Err(Errno(libc::ECHILD));
        }
        let mut descriptors = [EMPTY; 4];
        let (length, passed) = sys::receive_packet(socket, message, &mut descriptors)?;
        let Given { stdio, command } = read(&message[..length], &descriptors[..passed])?;
        // First of all: then they are closed with the others, whatever becomes of the command.
        for (slot, fd) in [STDIN, STDOUT, STDERR].into_iter().zip(stdio) {
            if let Ok(former) = self.slots.get(slot) {
                sys::close(former);
            }
            self.open(slot, fd);
        }
        match command {
            [] => Ok(()),
            command if self.plan.takes_command() => self.another.set(command),
            _ => Err(Errno(libc::EPROTO)),
        }
    }

    fn note(&mut self, slot: Slot) {
        if self.child.is_some() {
            self.opened.push(slot);
        }
    }

    fn create_cgroup(&mut self, parent: Slot, name: &CStr, out: Slot) -> sys::Result<()> {
        let parent = self.slots.get(parent)?;
        let made = match sys::mkdirat(parent, name, 0o755) {
            Ok(()) => true,
            Err(Errno(libc::EEXIST)) => false,
            Err(errno) => return Err(errno),
        };
        let directory = sys::openat(parent, name, libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW, 0);
        if made {
            let directory = *directory.as_ref().unwrap_or(&-1);
            self.cgroups.push(Created { parent, name: name.to_owned(), directory });
        }
        self.open(out, directory?);
        Ok(())
    }

    fn clone_child(&mut self, flags: u64, cgroup: Option<Slot>) -> sys::Result<()> {
        let cgroup = cgroup.map(|slot| self.slots.get(slot)).transpose()?;
        let [ours, theirs] = sys::packet_pair()?;
        let mut birth = self.birth([ours, theirs])?;
        let Newborn { pid, pidfd, memory } = match self.ahead.take() {
            // The child takes it along, and both may outlive this call.
            Some(ahead) => ahead.become_child(birth)?,
            None if self.plan.shares_memory() => birth.beside(flags, cgroup)?,
            None => match sys::clone(flags, cgroup)? {
                Side::Child => birth.run(),
                Side::Parent { pid, pidfd } => Newborn { pid, pidfd, memory: Vec::new() },
            },
        };
        sys::close(theirs);
        self.memory.extend(memory);
        self.child = Some(Child { pid, pidfd, channel: ToChild(ours) });
        Ok(())
    }

    fn birth(&mut self, channel: [Fd; 2]) -> sys::Result<Birth<'a>> {
        let vectors = self.vectors.take().ok_or(MISPLACED)?;
        Ok(Birth { plan: self.plan, slots: self.slots, timings: self.timings, vectors, channel })
    }

    /// The helper's end leaves the keeper for a parent.
    fn clone_from(&mut self, joins: SlotList<'_>, flags: u64, clocks: &[u8], cgroup: Option<Slot>) -> sys::Result<()> {
        let cgroup = cgroup.map(|slot| self.slots.get(slot)).transpose()?;
        let [ours, theirs] = sys::packet_pair()?;
        let mut birth = self.birth([ours, theirs])?;
        let pidfd = aside(|| {
            if flags & CLONE_NEWTIME != 0 {
                new_time_namespace(clocks)?;
            }
            join(&self.slots, joins)?;
            match sys::clone(flags & !CLONE_NEWTIME | libc::CLONE_PARENT as u64, cgroup)? {
                Side::Child => birth.run(),
                Side::Parent { pidfd, .. } => Ok(pidfd),
            }
        })?;
        sys::close(theirs);
        let pid = pid_of(pidfd)?;
        self.child = Some(Child { pid, pidfd, channel: ToChild(ours) });
        Ok(())
    }

    fn adjust_oom_score(&mut self, score: i32) -> sys::Result<()> {
        match self.write_of_child("oom_score_adj", score.to_string().as_bytes()) {
            // Lowering it needs CAP_SYS_RESOURCE (proc_pid_oom_score_adj(5)).
            Err(Errno(libc::EACCES | libc::EPERM)) => {
                self.warnings |= warning::OOM_SCORE;
                Ok(())
            }
            other => other,
        }
    }

    fn set_limit(&mut self, resource: u32, soft: u64, hard: u64) -> sys::Result<()> {
        if set_limit(self.child()?.pid, resource, soft, hard)? {
            self.warnings |= warning::RESOURCE_LIMIT;
        }
        Ok(())
    }
}

/// Whether a process of ours, alive or not yet reaped, has called execve(2): the kernel takes PF_FORKNOEXEC off its flags
/// before it closes what is close-on-exec (begin_new_exec). One that can't be read is not known to have failed.
fn has_executed(pid: i32) -> bool {
    const PF_FORKNOEXEC: u32 = 0x40;
    let mut stat = [0; 512];
    let Ok(fd) = open_of(pid, "stat", libc::O_RDONLY) else { return true };
    let length = sys::read(fd, &mut stat).unwrap_or(0);
    sys::close(fd);
    let text = String::from_utf8_lossy(&stat[..length]);
    // The name may contain anything; after it come state, ppid, pgrp, session, tty, tpgid, flags (proc_pid_stat(5)).
    let flags = text.rsplit_once(") ").and_then(|(_, fields)| fields.split(' ').nth(6)?.parse::<u32>().ok());
    flags.is_none_or(|flags| flags & PF_FORKNOEXEC == 0)
}

/// Opens a file of a process's folder in /proc.
pub(super) fn open_of(pid: i32, name: &str, flags: i32) -> sys::Result<Fd> {
    let path = CString::new(format!("/proc/{pid}/{name}")).map_err(|_| Errno(libc::EINVAL))?;
    sys::openat(libc::AT_FDCWD, &path, flags, 0)
}

fn write_of(pid: i32, name: &str, data: &[u8]) -> sys::Result<()> {
    let fd = open_of(pid, name, libc::O_WRONLY)?;
    let result = sys::write(fd, data);
    sys::close(fd);
    result
}

fn join(slots: &Slots, joins: SlotList<'_>) -> sys::Result<()> {
    joins.iter().try_for_each(|slot| sys::setns(slots.get(slot)?, 0))
}

/// Lets a short-lived fork do `work`, which may leave where we are. It shares our descriptors: what it opens is ours.
fn aside(work: impl FnOnce() -> sys::Result<Fd>) -> sys::Result<Fd> {
    let [read, write] = sys::pipe()?;
    let done = match sys::clone(libc::CLONE_FILES as u64, None) {
        Ok(Side::Child) => {
            let word = work().unwrap_or_else(|Errno(number)| -number);
            let _ = sys::write(write, &word.to_le_bytes());
            sys::exit(0)
        }
        Ok(Side::Parent { pid, pidfd }) => {
            sys::close(pidfd);
            sys::wait(pid, true).map(|_| ())
        }
        Err(errno) => Err(errno),
    };
    sys::close(write);
    let mut word = [0; 4];
    let length = done.and_then(|()| sys::read(read, &mut word));
    sys::close(read);
    match (length?, i32::from_le_bytes(word)) {
        (4, fd @ 0..) => Ok(fd),
        (4, errno) => Err(Errno(-errno)),
        // It was killed.
        _ => Err(Errno(libc::ESRCH)),
    }
}

/// As our own /proc numbers it.
fn pid_of(pidfd: Fd) -> sys::Result<i32> {
    let path = CString::new(format!("/proc/self/fdinfo/{pidfd}")).map_err(|_| Errno(libc::EINVAL))?;
    let fd = sys::openat(libc::AT_FDCWD, &path, libc::O_RDONLY, 0)?;
    let mut text = [0; 512];
    let length = sys::read(fd, &mut text);
    sys::close(fd);
    let text = String::from_utf8_lossy(&text[..length?]).into_owned();
    let pid = text.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok());
    pid.filter(|&pid| pid > 0).ok_or(Errno(libc::ESRCH))
}

/// For the next child: clone3(2) would put it there before the clocks are set (time_namespaces(7)).
fn new_time_namespace(offsets: &[u8]) -> sys::Result<()> {
    sys::unshare(CLONE_NEWTIME)?;
    if offsets.is_empty() {
        return Ok(());
    }
    let fd = sys::openat(libc::AT_FDCWD, c"/proc/self/timens_offsets", libc::O_WRONLY, 0)?;
    let result = sys::write(fd, offsets);
    sys::close(fd);
    result
}

/// The cgroup keeps the program; bpf(2) does not take the O_PATH descriptor that we have of it.
fn attach_device_program(cgroup: Fd, program: &[u8]) -> sys::Result<()> {
    let cgroup = sys::openat(cgroup, c".", libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
    let attached = sys::load_device_program(program).and_then(|program| {
        let attached = sys::attach_device_program(cgroup, program);
        sys::close(program);
        attached
    });
    sys::close(cgroup);
    attached
}

/// Pipes only: they are the engine's. What else can be standard input or output (a terminal, a file, /dev/null) is
/// somebody's on the host, and stays theirs.
fn give_away(fd: Fd, uid: u32, gid: u32) -> sys::Result<()> {
    if sys::stat_at(fd, c"")?.st_mode & libc::S_IFMT == libc::S_IFIFO {
        sys::chown_at(fd, c"", uid, gid)
    } else {
        Ok(())
    }
}
