//! The one executor: walks a plan with raw system calls and knows no policy.
//!
//! ```text
//! keeper                                   child
//!   | its list up to Clone                   .  cloned meanwhile where it can be: see `birth`
//!   | ------------ clone3 -----------------> | its list up to AwaitKeeper
//!   | the rest of its list (maps, mounts)    |
//!   | Release: slots made meanwhile -------> | the rest of its list, to the next AwaitKeeper if there is one
//!   | AwaitStdio, Release: 0 to 2 ---------> | AwaitKeeper: a container that was made beforehand waits here
//!   | <-------- terminal's master, if any -- |
//!   | <------------------- step and errno -- | a step failed; both are done
//!   | <---------------------- end of file -- | execve closed the channel: it runs
//! ```
//!
//! The keeper may allocate; the child never does. Each step's time goes to a page that both share.

mod agent;
mod birth;
mod cgroup;
mod channel;
mod child;
mod exec;
mod home;
mod hook;
mod keeper;
mod mounts;
mod net_device;

use std::ffi::CStr;

use crate::plan::{FIRST_OPENED, MAX_OPS, Op, Part, Plan, SLOTS, Slot, Texts};
use crate::protocol::EVIDENCE;
use crate::sys::{self, Errno, Fd, Mapping};

pub use birth::Ahead;
pub use cgroup::Accounts;
pub use channel::read_outcome;

/// What stands in an empty slot.
const EMPTY: Fd = -1;

/// The step that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// In which list.
    pub part: Part,
    /// Index in that list.
    pub index: u32,
    /// The kernel's error number.
    pub errno: Errno,
    /// See [`crate::protocol::Report::Failed`].
    pub evidence: Vec<u8>,
}

/// A container's process that has called execve(2), and what has to be undone after it.
#[derive(Debug)]
pub struct Running {
    /// The process, as this pid namespace numbers it.
    pub pid: i32,
    /// A pidfd of it.
    pub pidfd: Fd,
    /// The master of its terminal, if it has one.
    pub terminal: Option<Fd>,
    /// Bits of [`crate::protocol::warning`].
    pub warnings: u32,
    /// See [`crate::protocol::Report::Started`].
    pub timings: Vec<u64>,
    cgroups: Vec<cgroup::Created>,
    stdio: Vec<Fd>,
    leftover: Vec<Fd>,
    mounts: Option<Fd>,
    channel: Option<channel::ToChild>,
    memory: Vec<Mapping>,
    unfit: Option<Ahead>,
}

impl Running {
    /// Has these go with what else only the start needed; a child takes a while to end.
    pub fn needs_no_more(&mut self, memory: Mapping, child: Option<Ahead>) {
        self.memory.push(memory);
        self.unfit = child;
    }

    /// Lets a child that waits to be started (`CallKeeper`, the last in its list) live without this process; returns
    /// when it has cut its ties.
    pub fn part(&mut self) -> sys::Result<()> {
        let Some(channel) = self.channel.take() else { return Ok(()) };
        let parted = sys::send_packet(channel.0, &[0], &[]).and_then(|()| match channel.listen()? {
            channel::Word::Closed => Ok(()),
            channel::Word::Failed { errno, .. } => Err(errno),
            _ => Err(Errno(libc::EPROTO)),
        });
        sys::close(channel.0);
        parted
    }

    /// Ends the process and removes what was made for it; the descriptors of the plan stay whose they are.
    pub fn abandon(self) {
        let _ = sys::signal_pidfd(self.pidfd, libc::SIGKILL);
        let _ = self.reap();
        cgroup::remove(&self.cgroups);
    }

    /// Closes the container's stdio, so that its own end of it is the only one.
    pub fn close_stdio(&mut self) {
        self.stdio.drain(..).for_each(sys::close);
    }

    /// Gives back what only the start needed: layers, mounts, memory. Best while the container is busy with itself:
    /// the last close of a detached mount waits for an RCU grace period.
    pub fn let_go(&mut self) {
        std::mem::take(&mut self.leftover).into_iter().for_each(sys::close);
        self.memory = Vec::new();
        self.unfit = None;
    }

    /// Waits until the process has ended and reaps it.
    pub fn reap(&self) -> sys::Result<sys::Ended> {
        sys::wait(self.pid, true)?.ok_or(Errno(libc::ECHILD))
    }

    /// What the container's cgroups have counted.
    pub fn accounts(&self) -> Accounts {
        cgroup::read_accounts(&self.cgroups)
    }

    /// Kills what is left in the container's cgroups, removes those that the plan made, and closes what was needed for it.
    pub fn clean_up(&mut self) {
        cgroup::remove(&self.cgroups);
        self.cgroups.drain(..).for_each(|created| [created.parent, created.directory].into_iter().for_each(sys::close));
        self.mounts.take().into_iter().for_each(sys::close);
        sys::close(std::mem::replace(&mut self.pidfd, EMPTY));
    }
}

/// What a container that waits is given (`AwaitStdio`).
pub struct Given {
    /// Its standard input, output and error.
    pub stdio: [Fd; 3],
    /// The `Exec` to end with instead of the plan's own; empty if that is meant.
    pub command: &'static [u8],
}

/// Makes that of the message and the descriptors that have come for it.
pub type Read<'a> = dyn FnMut(&'static [u8], &[Fd]) -> sys::Result<Given> + 'a;

/// What can be done while the child, whose process id it is given, walks the rest of its list.
pub type Meanwhile<'a> = dyn FnMut(i32) + 'a;

/// Makes the container of `plan`. `descriptors` go into slots 0, 1, 2, and on. On failure nothing is left. `ahead` was
/// begun before there was a plan.
pub fn start(
    plan: &Plan<'_>,
    descriptors: &[Fd],
    ahead: Option<Ahead>,
    meanwhile: &mut Meanwhile<'_>,
) -> Result<Running, Failed> {
    walk(plan, descriptors, ahead, |keeper| keeper.run(&mut |_, _| Err(MISPLACED), meanwhile))
}

/// The groups of a container whose processes somebody else makes.
#[derive(Debug)]
pub struct Groups(Vec<cgroup::Created>);

impl Groups {
    /// Kills what is in those that the plan has made, and removes them.
    pub fn remove(&self) {
        cgroup::remove(&self.0);
    }
}

/// Walks of a container's list what makes its groups, with their limits and rules about devices. On failure nothing is
/// left.
pub fn make_groups(plan: &Plan<'_>, descriptors: &[Fd]) -> Result<Groups, Failed> {
    let mut keeper = keeper::Keeper::new(plan, descriptors, None)?;
    match keeper.make_groups() {
        Ok(()) => Ok(Groups(keeper.into_running().cgroups)),
        Err(failed) => {
            keeper.abandon();
            Err(failed)
        }
    }
}

/// The same with a plan that may wait on its way, for whoever stays until the end: the mount namespace is held until
/// [`Running::clean_up`].
pub fn start_parked(
    plan: &Plan<'_>,
    descriptors: &[Fd],
    ahead: Option<Ahead>,
    read: &mut Read<'_>,
) -> Result<Running, Failed> {
    walk(plan, descriptors, ahead, |keeper| keeper.run_parked(read))
}

fn walk<'p>(
    plan: &'p Plan<'p>,
    descriptors: &[Fd],
    ahead: Option<Ahead>,
    run: impl FnOnce(&mut keeper::Keeper<'p>) -> Result<(), Failed>,
) -> Result<Running, Failed> {
    // Without a helper the step itself clones the child, and says what is missing for it.
    let begin = |flags| ahead.filter(|ahead| ahead.can_be(flags)).or_else(|| Ahead::begin(flags).ok()?);
    let mut keeper = keeper::Keeper::new(plan, descriptors, plan.clones_ahead().and_then(begin))?;
    match run(&mut keeper) {
        Ok(()) => Ok(keeper.into_running()),
        Err(failed) => {
            keeper.abandon();
            Err(failed)
        }
    }
}

/// A hook failed: the error number, and what it has printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookFailed {
    /// EPROTO if it has exited with another code than 0, ETIMEDOUT if it was too slow.
    pub errno: Errno,
    /// At most [`crate::protocol::EVIDENCE`] bytes.
    pub printed: Vec<u8>,
}

/// Runs a hook that stands in no plan: those after the start and after the end. `timeout` is in milliseconds, 0 is none.
pub fn run_hook(
    path: &CStr,
    arguments: Texts<'_>,
    environment: Texts<'_>,
    state: [&[u8]; 2],
    pid: i32,
    timeout: u32,
) -> Result<(), HookFailed> {
    let vectors = exec::Vectors::of_texts(arguments, environment);
    let mut printed = vec![0; EVIDENCE];
    let hook = hook::Hook { path, state, timeout, root: None };
    hook::run(&hook, pid, &vectors, &mut printed).map_err(|trouble| {
        printed.truncate(trouble.printed);
        HookFailed { errno: trouble.errno, printed }
    })
}

/// The descriptor table of one execution.
#[derive(Clone, Copy)]
struct Slots([Fd; SLOTS]);

impl Slots {
    fn new(descriptors: &[Fd]) -> sys::Result<Self> {
        let mut table = [EMPTY; SLOTS];
        table.get_mut(..descriptors.len()).ok_or(Errno(libc::EMFILE))?.copy_from_slice(descriptors);
        Ok(Self(table))
    }

    fn get(&self, slot: Slot) -> sys::Result<Fd> {
        match self.0[usize::from(slot.0)] {
            EMPTY => Err(Errno(libc::EBADF)),
            fd => Ok(fd),
        }
    }

    fn set(&mut self, slot: Slot, fd: Fd) {
        self.0[usize::from(slot.0)] = fd;
    }

    /// What is open, standard input, output and error apart from the rest.
    fn open(&self) -> (Vec<Fd>, Vec<Fd>) {
        let (stdio, others) = self.0.split_at(usize::from(FIRST_OPENED.0));
        let open = |fds: &[Fd]| fds.iter().copied().filter(|&fd| fd != EMPTY).collect();
        (open(stdio), open(others))
    }
}

/// When each step was done, on memory that keeper and child share.
///
/// A time namespace moves CLOCK_MONOTONIC, so the other clock is read, and set off by what lay between the two.
#[derive(Clone, Copy)]
struct Timings {
    page: *mut u64,
    offset: u64,
}

impl Timings {
    const BYTES: usize = MAX_OPS * size_of::<u64>();

    /// They can be used for as long as there is the mapping.
    fn new() -> sys::Result<(Self, Mapping)> {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        let offset = sys::monotonic().wrapping_sub(sys::realtime());
        let mapping = Mapping::new(Self::BYTES, protection, flags, -1)?;
        Ok((Self { page: mapping.start().cast(), offset }, mapping))
    }

    fn stamp(&self, index: usize) {
        if index < MAX_OPS {
            // SAFETY: in bounds of the mapping, which the keeper has until the child has executed; two sides never share an index.
            unsafe { self.page.add(index).write_volatile(sys::realtime().wrapping_add(self.offset)) };
        }
    }

    /// The first of `count` steps from `first` on that was not done; the last is stamped when it is begun.
    fn first_open(&self, first: usize, count: usize) -> Option<usize> {
        // SAFETY: as in `collect`.
        (0..count).find(|index| first + index < MAX_OPS && unsafe { self.page.add(first + index).read_volatile() } == 0)
    }

    fn collect(&self, count: usize) -> Vec<u64> {
        // SAFETY: in bounds, and the child has written its last stamp before the end of file that we have seen.
        (0..count.min(MAX_OPS)).map(|index| unsafe { self.page.add(index).read_volatile() }).collect()
    }
}

/// That of whoever makes containers; a specification that names none leaves it to the container's process.
const UMASK: u32 = 0o022;

/// An operation in the wrong list: the plan was not written by our compiler.
const MISPLACED: Errno = Errno(libc::ENOSYS);

/// Limits the process `pid`, 0 for this one. True if the host allows less, which then is what it gets: raising a hard
/// limit needs CAP_SYS_RESOURCE.
fn set_limit(pid: i32, resource: u32, soft: u64, hard: u64) -> sys::Result<bool> {
    match sys::prlimit(pid, resource, Some([soft, hard])) {
        Err(Errno(libc::EPERM)) => {
            let [_, ceiling] = sys::prlimit(pid, resource, None)?;
            sys::prlimit(pid, resource, Some([soft.min(ceiling), hard.min(ceiling)]))?;
            Ok(true)
        }
        other => other.map(|_| false),
    }
}

/// Steps that both sides can do.
fn shared_step(op: &Op<'_>, slots: &mut Slots) -> sys::Result<()> {
    match *op {
        Op::NewMount { fstype, options, attributes, out } => {
            let mount = mounts::new_mount(fstype, options, attributes)?;
            slots.set(out, mount);
        }
        Op::SetMountAttributes { mount, set, clear, propagation, recursive } => {
            sys::set_mount_attributes(slots.get(mount)?, set, clear, propagation, recursive)?;
        }
        Op::Park { mount } => mounts::park(slots.get(mount)?)?,
        Op::Unshare { flags } => {
            sys::unshare(flags)?;
            // systemd makes / shared: what is parked here would lie over the host's root as well.
            if flags & libc::CLONE_NEWNS as u64 != 0 {
                sys::set_propagation(libc::MS_SLAVE | libc::MS_REC)?;
            }
        }
        _ => return make(op, slots),
    }
    Ok(())
}

/// Files of a directory that only we have ever seen: a detached tmpfs or a fresh upper folder.
fn make(op: &Op<'_>, slots: &Slots) -> sys::Result<()> {
    match *op {
        Op::BeginMaking { uid, gid } => {
            sys::umask(0);
            if (uid, gid) == (0, 0) { Ok(()) } else { sys::take_file_ids(uid, gid) }
        }
        Op::EndMaking {} => {
            sys::umask(UMASK);
            sys::leave_file_ids();
            Ok(())
        }
        Op::MakeDirectory { dir, name, mode } => match sys::mkdirat(slots.get(dir)?, name, mode) {
            Err(Errno(libc::EEXIST)) => Ok(()),
            other => other,
        },
        Op::MakeNode { dir, name, mode, major, minor } => {
            sys::mknodat(slots.get(dir)?, name, mode, libc::makedev(major, minor))
        }
        Op::MakeSymlink { dir, name, target } => sys::symlinkat(target, slots.get(dir)?, name),
        Op::MakeFile { dir, name, content, mode } => {
            let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
            let fd = sys::openat(slots.get(dir)?, name, flags, mode)?;
            let result = if content.is_empty() { Ok(()) } else { sys::write(fd, content) };
            sys::close(fd);
            result
        }
        Op::ChangeOwner { dir, name, uid, gid } => sys::chown_at(slots.get(dir)?, name, uid, gid),
        _ => Err(MISPLACED),
    }
}
