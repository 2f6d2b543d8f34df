//! Processes, and what one is allowed.

use std::ffi::{CStr, c_char, c_int, c_long, c_uint, c_ulong, c_void};
use std::sync::atomic::{AtomicI32, AtomicU32};

use pyrt_syscall::nothing;

use super::sockets::{ioctl, timespec};
use super::{Errno, Fd, Result, descriptor};

/// Which side of a clone this is.
pub enum Side {
    /// The child, on its copy of the memory.
    Child,
    /// The parent.
    Parent {
        /// The child, as this pid namespace numbers it.
        pid: i32,
        /// A pidfd of the child.
        pidfd: Fd,
    },
}

/// clone3(2) as a fork, with namespaces, a pidfd, and on cgroup v2 straight into `cgroup`. With CLONE_PARENT among the
/// `flags` the child is the caller's sibling.
pub fn clone(flags: u64, cgroup: Option<Fd>) -> Result<Side> {
    let mut pidfd: c_int = -1;
    let mut arguments = clone_arguments(flags, cgroup, &mut pidfd);
    match call!(SYS_clone3, &raw mut arguments, size_of::<libc::clone_args>())? {
        0 => Ok(Side::Child),
        pid => Ok(Side::Parent { pid: pid as i32, pidfd }),
    }
}

/// What the kernel says of a child before it runs.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Born {
    /// As the pid namespace of whoever has cloned it numbers it.
    pub pid: AtomicI32,
    /// A pidfd of it.
    pub pidfd: AtomicI32,
}

/// clone3(2) of a child that shares the memory and runs `entry` on a stack of its own, side by side with its parent:
/// no page tables are copied, and no page is copied when it is written to.
///
/// # Safety
/// `stack` must be writable for `size` bytes, its end aligned to 16, and be nobody's until the child has executed or
/// ended; so must be what `argument` points to. `entry` may use nothing that a lock or a thread-local variable guards.
pub unsafe fn clone_beside(
    flags: u64,
    cgroup: Option<Fd>,
    (stack, size): (*mut u8, usize),
    entry: extern "C" fn(*mut c_void) -> !,
    argument: *mut c_void,
    born: &Born,
) -> Result<()> {
    let flags = flags | (libc::CLONE_VM | libc::CLONE_PARENT_SETTID) as u64;
    let mut arguments = clone_arguments(flags, cgroup, born.pidfd.as_ptr());
    arguments.parent_tid = born.pid.as_ptr() as u64;
    arguments.stack = stack as u64;
    arguments.stack_size = size as u64;
    let result: c_long;
    // SAFETY: in the child, which begins on an empty stack, nothing returns: it calls `entry`.
    unsafe {
        core::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r13",
            "call r12",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 => result,
            in("rdi") &raw mut arguments,
            in("rsi") size_of::<libc::clone_args>(),
            in("r12") entry,
            in("r13") argument,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    if result < 0 { Err(Errno(-result as i32)) } else { Ok(()) }
}

fn clone_arguments(flags: u64, cgroup: Option<Fd>, pidfd: *mut c_int) -> libc::clone_args {
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    // SAFETY: `struct clone_args` is plain numbers, for which zeroes mean "not used".
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = flags | libc::CLONE_PIDFD as u64;
    arguments.pidfd = pidfd as u64;
    // A sibling ends with the signal that its new parent was promised by the caller.
    arguments.exit_signal = if flags & libc::CLONE_PARENT as u64 == 0 { libc::SIGCHLD as u64 } else { 0 };
    if let Some(cgroup) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = cgroup as u64;
    }
    arguments
}

/// Memory that goes with this value.
#[derive(Debug)]
pub struct Mapping {
    start: *mut u8,
    length: usize,
}

impl Mapping {
    /// mmap(2) of `length` bytes of the file `fd`, or with `MAP_ANONYMOUS` among the flags of none.
    pub fn new(length: usize, protection: c_int, flags: c_int, fd: Fd) -> Result<Self> {
        // SAFETY: a new mapping disturbs nothing.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, fd, 0) };
        if start == libc::MAP_FAILED { Err(Errno(libc::ENOMEM)) } else { Ok(Self { start: start.cast(), length }) }
    }

    /// Where it begins.
    pub fn start(&self) -> *mut u8 {
        self.start
    }

    /// mprotect(2): its beginning can't be touched any more.
    pub fn guard(&self, length: usize) -> Result<()> {
        nothing(call!(SYS_mprotect, self.start, length.min(self.length), libc::PROT_NONE))
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let _ = call!(SYS_munmap, self.start, self.length);
    }
}

/// Gives back what calls that have returned by now took of the process's stack.
#[inline(never)]
pub fn shrink_stack() {
    const PAGE: usize = 4096;
    /// What lies below the stack is passed over.
    const REACH: usize = 256 << 10;
    let here: usize;
    // SAFETY: reads a register.
    unsafe { core::arch::asm!("mov {}, rsp", out(reg) here, options(nomem, nostack, preserves_flags)) };
    // One page more stays: the call itself may need some of it.
    let end = (here & !(PAGE - 1)) - PAGE;
    let _ = call!(SYS_madvise, end - REACH, REACH, libc::MADV_DONTNEED);
}

/// unshare(2).
pub fn unshare(flags: u64) -> Result<()> {
    nothing(call!(SYS_unshare, flags as c_ulong))
}

/// ioctl(2) NS_GET_NSTYPE: the CLONE_NEW flag of a namespace's descriptor; ENOTTY if it is none.
pub fn namespace_type(fd: Fd) -> Result<u64> {
    const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
    ioctl(fd, NS_GET_NSTYPE, 0).map(|kind| kind as u64)
}

/// setns(2).
pub fn setns(fd: Fd, flags: u64) -> Result<()> {
    nothing(call!(SYS_setns, fd, flags as c_int))
}

/// prctl(2).
pub fn prctl(option: c_int, a: c_ulong, b: c_ulong) -> Result<()> {
    nothing(call!(SYS_prctl, option, a, b, 0 as c_ulong, 0 as c_ulong))
}

/// setsid(2).
pub fn setsid() -> Result<()> {
    nothing(call!(SYS_setsid))
}

/// setgroups(2) of `count` numbers at `groups`, which need not be aligned for Rust: the kernel copies bytes.
pub fn setgroups(groups: &[u8]) -> Result<()> {
    nothing(call!(SYS_setgroups, groups.len() / size_of::<u32>(), groups.as_ptr()))
}

/// setresgid(2), all three.
pub fn setgid(gid: u32) -> Result<()> {
    nothing(call!(SYS_setresgid, gid, gid, gid))
}

/// setresuid(2), all three, of this thread: there is only one.
pub fn setuid(uid: u32) -> Result<()> {
    nothing(call!(SYS_setresuid, uid, uid, uid))
}

const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// capset(2), version 3.
pub fn set_capabilities(effective: u64, permitted: u64, inheritable: u64) -> Result<()> {
    let header: [u32; 2] = [CAPABILITY_VERSION_3, 0];
    let sets = [effective, permitted, inheritable];
    let mut data = [0u32; 6];
    for (index, set) in sets.into_iter().enumerate() {
        data[index] = set as u32;
        data[index + 3] = (set >> 32) as u32;
    }
    nothing(call!(SYS_capset, header.as_ptr(), data.as_ptr()))
}

/// capget(2), version 3: the permitted set.
pub fn permitted_capabilities() -> Result<u64> {
    let header: [u32; 2] = [CAPABILITY_VERSION_3, 0];
    let mut data = [0u32; 6];
    call!(SYS_capget, header.as_ptr(), data.as_mut_ptr())?;
    Ok(u64::from(data[1]) | u64::from(data[4]) << 32)
}

/// From now on this thread has these file system ids, and all the capabilities that the process may have.
pub fn take_file_ids(uid: u32, gid: u32) -> Result<()> {
    set_file_ids(uid, gid);
    // Leaving uid 0 took the capabilities that concern files out of the effective set (capabilities(7)).
    let permitted = permitted_capabilities()?;
    set_capabilities(permitted, permitted, 0)
}

/// Root's file system ids again.
pub fn leave_file_ids() {
    set_file_ids(0, 0);
}

/// setfsuid(2) and setfsgid(2), which report nothing; a refusal shows in what is done next.
fn set_file_ids(uid: u32, gid: u32) {
    let _ = call!(SYS_setfsgid, gid);
    let _ = call!(SYS_setfsuid, uid);
}

/// seccomp(2) SECCOMP_SET_MODE_FILTER of an array of `struct sock_filter`.
pub fn load_seccomp(flags: u64, program: &[u8]) -> Result<()> {
    nothing(load_filter(flags, program))
}

fn load_filter(flags: u64, program: &[u8]) -> Result<usize> {
    #[repr(C)]
    struct Program {
        length: u16,
        filter: *const u8,
    }
    let program = Program { length: (program.len() / 8) as u16, filter: program.as_ptr() };
    call!(SYS_seccomp, 1, flags as c_uint, &raw const program)
}

/// The same with SECCOMP_FILTER_FLAG_NEW_LISTENER: a descriptor of what the filter notifies, close-on-exec.
pub fn load_seccomp_with_listener(flags: u64, program: &[u8]) -> Result<Fd> {
    const NEW_LISTENER: u64 = 1 << 3;
    load_filter(flags | NEW_LISTENER, program).map(|fd| fd as Fd)
}

/// bpf(2) BPF_PROG_LOAD of an array of `struct bpf_insn` that decides about devices.
pub fn load_device_program(program: &[u8]) -> Result<Fd> {
    /// The beginning of `union bpf_attr` for this command; the kernel takes the rest for zeroes.
    #[repr(C)]
    struct Attributes {
        kind: u32,
        count: u32,
        program: u64,
        license: u64,
    }
    const PROG_LOAD: c_int = 5;
    const CGROUP_DEVICE: u32 = 15;
    let (program, count) = (program.as_ptr() as u64, (program.len() / 8) as u32);
    let attributes = Attributes { kind: CGROUP_DEVICE, count, program, license: c"Apache-2.0".as_ptr() as u64 };
    descriptor(call!(SYS_bpf, PROG_LOAD, &raw const attributes, size_of::<Attributes>()))
}

/// bpf(2) BPF_PROG_ATTACH to a cgroup, beside what others have attached.
pub fn attach_device_program(cgroup: Fd, program: Fd) -> Result<()> {
    #[repr(C)]
    struct Attributes {
        cgroup: u32,
        program: u32,
        kind: u32,
        flags: u32,
    }
    const PROG_ATTACH: c_int = 8;
    const DEVICE: u32 = 6;
    const ALLOW_MULTI: u32 = 2;
    let attributes = Attributes { cgroup: cgroup as u32, program: program as u32, kind: DEVICE, flags: ALLOW_MULTI };
    nothing(call!(SYS_bpf, PROG_ATTACH, &raw const attributes, size_of::<Attributes>()))
}

/// keyctl(2) KEYCTL_JOIN_SESSION_KEYRING.
pub fn join_keyring(name: &CStr) -> Result<()> {
    nothing(call!(SYS_keyctl, 1, name.as_ptr()))
}

/// sethostname(2).
pub fn sethostname(name: &[u8]) -> Result<()> {
    nothing(call!(SYS_sethostname, name.as_ptr(), name.len()))
}

/// setdomainname(2).
pub fn setdomainname(name: &[u8]) -> Result<()> {
    nothing(call!(SYS_setdomainname, name.as_ptr(), name.len()))
}

/// umask(2).
pub fn umask(mask: u32) {
    let _ = call!(SYS_umask, mask);
}

/// setpriority(2) of this process.
pub fn set_nice(nice: i32) -> Result<()> {
    nothing(call!(SYS_setpriority, libc::PRIO_PROCESS, 0, nice))
}

/// sched_setattr(2) of this thread.
pub fn set_scheduler(attributes: &[u8]) -> Result<()> {
    nothing(call!(SYS_sched_setattr, 0, attributes.as_ptr(), 0))
}

/// ioprio_set(2) of this process.
pub fn set_io_priority(priority: u32) -> Result<()> {
    nothing(call!(SYS_ioprio_set, 1, 0, priority))
}

/// set_mempolicy(2): mode with flags, and a mask whose length is that of whole words.
pub fn set_memory_policy(mode: u32, nodes: &[u8]) -> Result<()> {
    // The kernel reads one bit less than it is told of.
    let bits = if nodes.is_empty() { 0 } else { nodes.len() * 8 + 1 };
    let mask = if nodes.is_empty() { std::ptr::null() } else { nodes.as_ptr() };
    nothing(call!(SYS_set_mempolicy, mode, mask, bits))
}

/// readlinkat(2): how many bytes the target has.
pub fn readlink(path: &CStr, buffer: &mut [u8]) -> Result<usize> {
    call!(SYS_readlinkat, libc::AT_FDCWD, path.as_ptr(), buffer.as_mut_ptr(), buffer.len())
}

/// personality(2).
pub fn set_personality(persona: u64) -> Result<()> {
    nothing(call!(SYS_personality, persona))
}

/// sched_setaffinity(2) of this thread.
pub fn set_affinity(mask: &[u8]) -> Result<()> {
    nothing(call!(SYS_sched_setaffinity, 0, mask.len(), mask.as_ptr()))
}

/// prlimit(2): sets `new` if there is one, returns what was there before.
pub fn prlimit(pid: i32, resource: u32, new: Option<[u64; 2]>) -> Result<[u64; 2]> {
    let mut old = [0u64; 2];
    let new = new.as_ref().map_or(std::ptr::null(), |limit| limit.as_ptr());
    call!(SYS_prlimit64, pid, resource, new, old.as_mut_ptr())?;
    Ok(old)
}

/// execve(2): returns only what went wrong.
///
/// # Safety
/// `arguments` and `environment` must end in a null pointer, and each pointer before it must be a C string.
pub unsafe fn execve(path: &CStr, arguments: *const *const c_char, environment: *const *const c_char) -> Errno {
    match call!(SYS_execve, path.as_ptr(), arguments, environment) {
        Err(errno) => errno,
        Ok(_) => Errno(libc::EINVAL),
    }
}

/// futex(2) FUTEX_WAIT: returns when the word is not `value`, or was woken, or after so many milliseconds (for ever if
/// negative), or for no reason.
pub fn futex_wait(word: &AtomicU32, value: u32, timeout: i32) {
    const WAIT: c_int = 0;
    let limit = timespec(timeout);
    let limit = if timeout < 0 { std::ptr::null() } else { &raw const limit };
    let _ = call!(SYS_futex, word.as_ptr(), WAIT, value, limit);
}

/// futex(2) FUTEX_WAKE of whoever waits. Another process may, so the word is not private.
pub fn futex_wake(word: &AtomicU32) {
    const WAKE: c_int = 1;
    let _ = call!(SYS_futex, word.as_ptr(), WAKE, 1);
}

/// pidfd_open(2).
pub fn open_pidfd(pid: i32) -> Result<Fd> {
    descriptor(call!(SYS_pidfd_open, pid, 0))
}

/// exit_group(2).
pub fn exit(status: i32) -> ! {
    loop {
        let _ = call!(SYS_exit_group, status);
    }
}

/// kill(2).
pub fn kill(pid: i32, signal: i32) -> Result<()> {
    nothing(call!(SYS_kill, pid, signal))
}

/// pidfd_send_signal(2).
pub fn signal_pidfd(pidfd: Fd, signal: i32) -> Result<()> {
    nothing(call!(SYS_pidfd_send_signal, pidfd, signal, std::ptr::null::<c_void>(), 0))
}

/// How a child ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// Its process id.
    pub pid: i32,
    /// The exit code, if it exited by itself.
    pub code: Option<i32>,
    /// The signal that ended it otherwise.
    pub signal: Option<i32>,
    /// User and system time of it and the children that it waited for, microseconds.
    pub cpu_usec: u64,
}

/// wait4(2) for `pid` (-1: any child). `None` if `block` is false and nobody has ended.
pub fn wait(pid: i32, block: bool) -> Result<Option<Ended>> {
    let mut status: c_int = 0;
    // SAFETY: `struct rusage` is plain numbers, for which zeroes are a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    let options = if block { 0 } else { libc::WNOHANG };
    let pid = loop {
        match call!(SYS_wait4, pid, &raw mut status, options, &raw mut usage) {
            Err(Errno(libc::EINTR)) => {}
            other => break other? as i32,
        }
    };
    let micros = |time: libc::timeval| time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64;
    Ok((pid != 0).then(|| Ended {
        pid,
        code: libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)),
        signal: libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status)),
        cpu_usec: micros(usage.ru_utime) + micros(usage.ru_stime),
    }))
}

/// Default dispositions for all signals and an empty mask: what a fresh program expects.
pub fn reset_signals() {
    #[repr(C)]
    struct Action {
        handler: usize,
        flags: c_ulong,
        restorer: usize,
        mask: u64,
    }
    let default = Action { handler: libc::SIG_DFL, flags: 0, restorer: 0, mask: 0 };
    for signal in 1..=64 {
        // SIGKILL and SIGSTOP are refused, which is what they are.
        let _ = call!(SYS_rt_sigaction, signal, &raw const default, std::ptr::null::<c_void>(), size_of::<u64>());
    }
    set_signal_mask(0);
}

/// Ignores a signal in this process.
pub fn ignore_signal(signal: i32) {
    // SAFETY: SIG_IGN installs no code.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// rt_sigprocmask(2) SIG_SETMASK; bit n-1 stands for signal n.
pub fn set_signal_mask(mask: u64) {
    let none = std::ptr::null::<c_void>();
    let _ = call!(SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const mask, none, size_of::<u64>());
}

/// rt_sigtimedwait(2) without a time-out: the next of the signals in `mask`, which must be blocked.
pub fn wait_signal(mask: u64) -> Result<i32> {
    let none = std::ptr::null::<c_void>();
    call!(SYS_rt_sigtimedwait, &raw const mask, none, none, size_of::<u64>()).map(|signal| signal as i32)
}
