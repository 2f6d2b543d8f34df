//! The child's list, inside. Nothing here allocates: between clone and exec only system calls.

use std::ffi::CStr;

use crate::plan::{Op, Part, Plan, Slot, Texts};
use crate::sys::{self, Errno, Fd};

use super::agent::Agent;
use super::channel::ToKeeper;
use super::exec::{self, Another, Evidence, Vectors};
use super::hook::{self, Hook};
use super::{MISPLACED, Slots, Timings, mounts, set_limit, shared_step};

/// Exit status of a child that never became the container's process. The keeper has its reason by then.
const NOT_STARTED: i32 = 125;

/// What the child needs and can't make for want of an allocator.
pub(super) struct Prepared {
    /// Of the command.
    pub exec: Vectors,
    /// What takes its place.
    pub another: Another,
    /// Of the hooks, by the index of their operation.
    pub hooks: Vec<(usize, Vectors)>,
}

struct Child<'a> {
    slots: &'a mut Slots,
    keeper: ToKeeper,
    vectors: &'a Prepared,
    evidence: Evidence,
    /// From here on descriptors are not the command's.
    first: Fd,
    agent: Agent,
    /// The empty directory lies over something already.
    hides: bool,
}

/// The number after standard input, output and error.
const FIRST: Fd = 3;

/// Walks the list and ends in execve(2) or in exit.
pub(super) fn run(plan: &Plan<'_>, slots: &mut Slots, timings: &Timings, vectors: &Prepared, keeper: ToKeeper) -> ! {
    let (evidence, agent) = (Evidence::new(), Agent::default());
    let mut child = Child { slots, keeper, vectors, evidence, first: FIRST, agent, hides: false };
    let first = plan.len(Part::Keeper);
    for (index, op) in plan.ops(Part::Child).enumerate() {
        if matches!(op, Op::Exec { .. }) {
            timings.stamp(first + index);
        }
        if let Err(errno) = child.step(index, &op) {
            child.keeper.send_failure(index as u32, errno, child.evidence.as_bytes());
            sys::exit(NOT_STARTED);
        }
        timings.stamp(first + index);
    }
    child.keeper.send_failure(plan.len(Part::Child) as u32, MISPLACED, b"");
    sys::exit(NOT_STARTED)
}

impl Child<'_> {
    fn step(&mut self, index: usize, op: &Op<'_>) -> sys::Result<()> {
        match *op {
            Op::CallKeeper {} => self.keeper.call(),
            Op::OutliveKeeper {} => sys::prctl(libc::PR_SET_PDEATHSIG, 0, 0),
            Op::AwaitStart { release, outcome, first } => self.await_start(release, outcome, first),
            Op::FindCommand { candidates } => exec::find(candidates, &mut self.evidence),
            Op::TakeOwnNull {} => take_own_null(),
            Op::FindHome { uid } => self.vectors.exec.find_home(uid),
            Op::RunHook { .. } => self.run_hook(index, op),
            Op::PassDescriptors { count } => {
                self.first += count as Fd;
                (FIRST..self.first).try_for_each(sys::pass_on)
            }
            Op::AwaitKeeper {} => self.keeper.await_release(self.slots),
            Op::DieWithKeeper {} => self.die_with_keeper(),
            Op::NewSession {} => sys::setsid(),
            Op::JoinCgroup { tasks } => sys::write(self.slots.get(tasks)?, b"0"),
            Op::JoinNamespaces { fd, flags } => sys::setns(self.slots.get(fd)?, flags),
            Op::LoopbackUp {} => sys::loopback_up(),
            Op::SetHostname { name } => sys::sethostname(name),
            Op::SetDomainname { name } => sys::setdomainname(name),
            Op::SetKernelParameter { proc, name, value } => sys::write_at(self.slots.get(proc)?, name, value),
            Op::JoinKeyring { name } => match sys::join_keyring(name) {
                Err(Errno(libc::ENOSYS)) => Ok(()),
                other => other,
            },
            Op::OpenTerminal { rows, columns, console, out } => self.open_terminal(rows, columns, console, out),
            Op::SetStdio { input, output, error, terminal } => self.set_stdio([input, output, error], terminal),
            Op::BecomeInit {} => self.become_init(),
            Op::SetSecurityLabel { attributes, label } => sys::write_at(self.slots.get(attributes)?, c"exec", label),
            Op::NotePid {} => self.agent.note_pid(),
            Op::LoadSeccompFor { flags, program, agent, before, between, after } => {
                self.agent.load(flags, program, self.slots.get(agent)?, [before, between, after])
            }
            Op::CleanProcess {} => {
                sys::reset_signals();
                self.close_descriptors()
            }
            Op::Exec { candidates, .. } => self.execute(candidates),
            // A terminal that this child has opened itself.
            Op::GiveAway { slot, uid, gid } => sys::chown_at(self.slots.get(slot)?, c"", uid, gid),
            _ => self.place(op).or_else(|| identity(op)).unwrap_or_else(|| shared_step(op, self.slots)),
        }
    }

    /// Steps that arrange the file system; `None` if `op` is none.
    fn place(&mut self, op: &Op<'_>) -> Option<sys::Result<()>> {
        Some(match *op {
            Op::SetPropagation { flags, recursive } => {
                sys::set_propagation(if recursive { flags | libc::MS_REC } else { flags })
            }
            Op::EnterRoot { root, path, out } => self
                .slots
                .get(root)
                .and_then(|root| mounts::enter_root(root, path))
                .map(|host| self.slots.set(out, host)),
            Op::TakeRoot { root } => {
                self.slots.get(root).and_then(|root| sys::fchdir(root).and_then(|()| sys::chroot_here()))
            }
            Op::PivotRoot { root, along } => {
                self.slots.get(root).and_then(|root| mounts::pivot_root(root, self.slots, along))
            }
            Op::MoveRoot { root } => self.slots.get(root).and_then(mounts::move_root),
            Op::OpenPlace { path, out } => mounts::open_outside(path).map(|place| self.slots.set(out, place)),
            Op::Renew { mount, place, out } => {
                let both = self.slots.get(mount).and_then(|mount| Ok((mount, self.slots.get(place)?)));
                both.and_then(|(mount, place)| mounts::renew(mount, place)).map(|clone| self.slots.set(out, clone))
            }
            Op::Attach { mount, within, path, file, strict } => {
                self.slots.get(mount).and_then(|mount| mounts::attach(mount, self.root(within)?, path, file, strict))
            }
            Op::Mask { within, path, empty, dev } => self.mask(within, path, empty, dev),
            Op::MakeReadonly { within, path } => self.root(within).and_then(|root| mounts::make_readonly(root, path)),
            Op::Remount { path, set, clear, propagation, recursive } => {
                mounts::remount(path, set, clear, propagation, recursive)
            }
            Op::CopyUp { mount, path } => self.slots.get(mount).and_then(|mount| mounts::copy_up(mount, path)),
            Op::CloneInside { path, recursive, out } => {
                mounts::clone_inside(path, recursive).map(|mount| self.slots.set(out, mount))
            }
            Op::ChangeDirectory { path, create } => change_directory(path, create),
            _ => return None,
        })
    }

    /// What a path begins at: the mount `within`, or the root, which is the working directory until `ChangeDirectory`, that
    /// comes after all mounts. To open / each time would cost two calls of four.
    fn root(&self, within: Option<Slot>) -> sys::Result<Fd> {
        within.map_or(Ok(libc::AT_FDCWD), |slot| self.slots.get(slot))
    }

    fn mask(&mut self, within: Option<Slot>, path: &CStr, empty: Slot, dev: Slot) -> sys::Result<()> {
        let (root, empty, dev) = (self.root(within)?, self.slots.get(empty)?, self.slots.get(dev)?);
        mounts::mask(root, path, (empty, &mut self.hides), dev)
    }

    /// Also looks whether the keeper is there still: a signal for a death that lies behind does not come.
    fn die_with_keeper(&self) -> sys::Result<()> {
        sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as u64, 0)?;
        if sys::hung_up(self.keeper.0) { Err(Errno(libc::EPIPE)) } else { Ok(()) }
    }

    fn open_terminal(&mut self, rows: u32, columns: u32, console: bool, out: Slot) -> sys::Result<()> {
        let multiplexer = mounts::open_inside(libc::AT_FDCWD, c"/dev/pts", true)?;
        let flags = libc::O_RDWR | libc::O_NOCTTY;
        let master = sys::openat(multiplexer, c"ptmx", flags | libc::O_NOFOLLOW, 0)?;
        sys::close(multiplexer);
        let locked: i32 = 0;
        sys::ioctl(master, libc::TIOCSPTLCK, (&raw const locked) as u64)?;
        // The slave by its master, never by the name /dev/pts/N, which can be a fake (CVE-2025-52565).
        let slave = sys::ioctl(master, libc::TIOCGPTPEER, (flags | libc::O_CLOEXEC) as u64)?;
        let size = libc::winsize { ws_row: rows as u16, ws_col: columns as u16, ws_xpixel: 0, ws_ypixel: 0 };
        sys::ioctl(master, libc::TIOCSWINSZ, (&raw const size) as u64)?;
        if console {
            let mount = sys::clone_tree(slave, c"", false)?;
            let attached = mounts::attach(mount, libc::AT_FDCWD, c"/dev/console", true, true);
            sys::close(mount);
            attached?;
        }
        self.keeper.send_terminal(master)?;
        sys::close(master);
        self.slots.set(out, slave);
        Ok(())
    }

    fn set_stdio(&mut self, slots: [Slot; 3], terminal: bool) -> sys::Result<()> {
        // First out of the way: a slot's descriptor may be one of the three numbers.
        let mut copies: [Fd; 3] = [-1; 3];
        for (copy, slot) in copies.iter_mut().zip(slots) {
            *copy = sys::dup_above(self.slots.get(slot)?, 3)?;
        }
        for (number, copy) in copies.into_iter().enumerate() {
            sys::dup_to(copy, number as Fd)?;
            sys::close(copy);
        }
        // Of a container that was made beforehand they are the only ones left.
        for slot in slots {
            self.slots.get(slot).into_iter().filter(|&fd| fd > 2).for_each(sys::close);
        }
        if terminal {
            sys::ioctl(0, libc::TIOCSCTTY, 0)?;
        }
        Ok(())
    }

    /// Closes all but standard input, output, error and the way to the keeper, which execve(2) closes. While it
    /// resolves the command, its interpreter and its loader, nothing may be open that leads to the host:
    /// /proc/self/fd/N/../../bin/sh would be the host's (CVE-2024-21626).
    fn close_descriptors(&mut self) -> sys::Result<()> {
        let keeper = self.first;
        sys::dup_to(self.keeper.0, keeper)?;
        self.keeper = ToKeeper(keeper);
        sys::close_range(keeper as u32 + 1, u32::MAX)?;
        sys::close_on_exec_from(keeper as u32)
    }

    /// The rest of the list goes on in a fork; this process never returns.
    fn become_init(&mut self) -> sys::Result<()> {
        // Blocked before the fork, so that none is lost; `CleanProcess` unblocks them in the fork.
        sys::set_signal_mask(u64::MAX);
        match sys::clone(0, None)? {
            sys::Side::Child => Ok(()),
            sys::Side::Parent { pid, .. } => {
                let _ = sys::close_range(0, u32::MAX);
                init(pid)
            }
        }
    }

    /// From here on the keeper is not needed: it may have gone by the time that somebody starts the container.
    fn await_start(&mut self, release: Slot, outcome: Slot, first: u32) -> sys::Result<()> {
        let (release, outcome) = (self.slots.get(release)?, self.slots.get(outcome)?);
        self.keeper = ToKeeper(outcome);
        // Nobody knows for how long: directories of the host, and what the keeper has locked, are not to stay open here.
        let kept = [release.min(outcome) as u32, release.max(outcome) as u32];
        for (from, to) in [(first, kept[0]), (kept[0] + 1, kept[1]), (kept[1] + 1, u32::MAX)] {
            if from < to {
                sys::close_range(from, to.saturating_sub(1))?;
            }
        }
        match sys::read(release, &mut [0])? {
            0 => Err(Errno(libc::EPIPE)),
            _ => Ok(()),
        }
    }

    fn run_hook(&mut self, index: usize, op: &Op<'_>) -> sys::Result<()> {
        let Op::RunHook { path, before, after, timeout, root, .. } = *op else { return Err(MISPLACED) };
        let vectors = self.vectors.hooks.iter().find(|(at, _)| *at == index).map(|(_, vectors)| vectors);
        let root = root.map(|slot| self.slots.get(slot)).transpose()?;
        let hook = Hook { path, state: [before, after], timeout, root };
        hook::run(&hook, sys::pid(), vectors.ok_or(MISPLACED)?, self.evidence.words()).map_err(|trouble| {
            self.evidence.keep_words(trouble.printed);
            trouble.errno
        })
    }

    fn execute(&mut self, candidates: Texts<'_>) -> sys::Result<()> {
        let failure = self.vectors.another.execute(&mut self.evidence);
        Err(failure.unwrap_or_else(|| self.vectors.exec.execute(candidates, &mut self.evidence)))
    }
}

/// PID 1 of a container started with `--init`: reaps whatever is orphaned, forwards what it is sent, ends as its child.
fn init(child: i32) -> ! {
    loop {
        let Ok(signal) = sys::wait_signal(u64::MAX) else { continue };
        if signal != libc::SIGCHLD {
            let _ = sys::kill(child, signal);
            continue;
        }
        while let Ok(Some(ended)) = sys::wait(-1, false) {
            if ended.pid == child {
                sys::exit(ended.code.unwrap_or_else(|| 128 + ended.signal.unwrap_or(0)));
            }
        }
    }
}

/// Where there is none things stay as they are: a node of that name need not be one.
fn take_own_null() -> sys::Result<()> {
    const OWN: &CStr = c"/dev/null";
    let is_hosts = |fd: &Fd| is_null(*fd, c"");
    if !(0..FIRST).any(|fd| is_hosts(&fd)) || !is_null(libc::AT_FDCWD, OWN) {
        return Ok(());
    }
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_NOFOLLOW;
    let Ok(own) = sys::openat(libc::AT_FDCWD, OWN, flags, 0) else { return Ok(()) };
    let taken = (0..FIRST).filter(is_hosts).try_for_each(|fd| sys::dup_to(own, fd));
    sys::close(own);
    taken
}

fn is_null(dir: Fd, path: &CStr) -> bool {
    let is_it = |stat: libc::stat| stat.st_mode & libc::S_IFMT == libc::S_IFCHR && stat.st_rdev == libc::makedev(1, 3);
    sys::stat_at(dir, path).is_ok_and(is_it)
}

fn change_directory(path: &CStr, create: bool) -> sys::Result<()> {
    match sys::chdir(path) {
        Err(Errno(libc::ENOENT)) if create => {
            mounts::make_directory(path)?;
            sys::chdir(path)?;
        }
        other => other?,
    }
    // A directory outside the root shows as "(unreachable)/..." here (CVE-2024-21626).
    let mut buffer = [0; libc::PATH_MAX as usize];
    sys::getcwd(&mut buffer)?;
    if buffer[0] != b'/' {
        return Err(Errno(libc::EPERM));
    }
    // More mounts may follow, whose places are looked for from here.
    if create { sys::chdir(c"/") } else { Ok(()) }
}

/// Steps that make the process what it is to be; `None` if `op` is none.
fn identity(op: &Op<'_>) -> Option<sys::Result<()>> {
    Some(match *op {
        Op::SetGroups { gids } => sys::setgroups(gids),
        Op::SetGid { gid } => sys::setgid(gid),
        Op::SetUid { uid } => sys::setuid(uid),
        // The keeper has said already what the host refuses.
        Op::SetLimit { resource, soft, hard } => set_limit(0, resource, soft, hard).map(|_| ()),
        Op::SetUmask { mask } => {
            sys::umask(mask);
            Ok(())
        }
        Op::SetNice { nice } => sys::set_nice(nice),
        Op::SetScheduler { attributes } => sys::set_scheduler(attributes),
        Op::SetMemoryPolicy { mode, nodes } => sys::set_memory_policy(mode, nodes),
        Op::SetIoPriority { priority } => sys::set_io_priority(priority),
        Op::SetPersonality { persona } => sys::set_personality(persona),
        Op::SetAffinity { mask } => sys::set_affinity(mask),
        Op::LimitBoundingSet { keep } => limit_bounding_set(keep),
        Op::KeepCapabilities { keep } => sys::prctl(libc::PR_SET_KEEPCAPS, u64::from(keep), 0),
        Op::SetCapabilities { effective, permitted, inheritable } => {
            sys::set_capabilities(effective, permitted, inheritable)
        }
        Op::SetAmbient { ambient } => set_ambient(ambient),
        Op::NoNewPrivileges {} => sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0),
        Op::LoadSeccomp { flags, program } => sys::load_seccomp(flags, program),
        _ => return None,
    })
}

fn limit_bounding_set(keep: u64) -> sys::Result<()> {
    for capability in (0..u64::BITS).filter(|capability| keep & 1 << capability == 0) {
        match sys::prctl(libc::PR_CAPBSET_DROP, u64::from(capability), 0) {
            // The first number that this kernel does not know ends the list.
            Err(Errno(libc::EINVAL)) => break,
            other => other?,
        }
    }
    Ok(())
}

fn set_ambient(ambient: u64) -> sys::Result<()> {
    sys::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64, 0)?;
    for capability in (0..u64::BITS).filter(|capability| ambient & 1 << capability != 0) {
        sys::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as u64, u64::from(capability))?;
    }
    Ok(())
}
