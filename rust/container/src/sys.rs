//! The kernel, one function a system call, for code that runs between clone and exec.
//!
//! Nothing here allocates, locks or touches `errno`'s owner beyond the call itself, so all of it may be
//! used in a child that was cloned from a running process. Descriptors are plain numbers: their
//! owner is the slot table of [`crate::execute`].

use std::ffi::{CStr, c_char, c_int, c_long, c_uint, c_ulong, c_void};
use std::sync::atomic::{AtomicI32, AtomicU32};

pub use pyrt_syscall::{Errno, Fd, Result};
use pyrt_syscall::{Word, nothing, system_call};

macro_rules! call {
    ($number:ident $(, $argument:expr)* $(,)?) => {{
        // SAFETY: the arguments are numbers, or pointers into memory that the caller borrows for the
        // length of the call, with the lengths that the kernel's documentation of this call asks for.
        unsafe { system_call(libc::$number, [$(Word::word($argument)),*]) }
    }};
}

fn descriptor(result: Result<usize>) -> Result<Fd> {
    result.map(|fd| fd as Fd)
}

// ---- files --------------------------------------------------------------------------------------

/// openat(2), always close-on-exec.
pub fn openat(dir: Fd, path: &CStr, flags: c_int, mode: u32) -> Result<Fd> {
    descriptor(call!(SYS_openat, dir, path.as_ptr(), flags | libc::O_CLOEXEC, mode))
}

/// How [`openat2`] may walk: RESOLVE_ bits of linux/openat2.h.
pub mod resolve {
    /// Stay on the mount that one begins on.
    pub const NO_XDEV: u64 = 0x01;
    /// Refuse magic links such as /proc/self/exe.
    pub const NO_MAGICLINKS: u64 = 0x02;
    /// Refuse every symlink.
    pub const NO_SYMLINKS: u64 = 0x04;
    /// Stay below the directory that one begins at.
    pub const BENEATH: u64 = 0x08;
    /// Take the directory for /, also in absolute symlinks and "..".
    pub const IN_ROOT: u64 = 0x10;
}

#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

/// openat2(2), always close-on-exec. Retries EAGAIN, which a rename elsewhere can cause.
pub fn openat2(dir: Fd, path: &CStr, flags: c_int, mode: u32, resolve: u64) -> Result<Fd> {
    let how = OpenHow { flags: (flags | libc::O_CLOEXEC) as u64, mode: u64::from(mode), resolve };
    loop {
        match call!(SYS_openat2, dir, path.as_ptr(), &raw const how, size_of::<OpenHow>()) {
            Err(Errno(libc::EAGAIN)) => {}
            other => return descriptor(other),
        }
    }
}

/// close(2).
pub fn close(fd: Fd) {
    let _ = call!(SYS_close, fd);
}

/// read(2), restarted when a signal interrupts it.
pub fn read(fd: Fd, buffer: &mut [u8]) -> Result<usize> {
    loop {
        match call!(SYS_read, fd, buffer.as_mut_ptr(), buffer.len()) {
            Err(Errno(libc::EINTR)) => {}
            other => return other,
        }
    }
}

/// One write(2) of all of `data`; fewer bytes written is EIO.
pub fn write(fd: Fd, data: &[u8]) -> Result<()> {
    match call!(SYS_write, fd, data.as_ptr(), data.len()) {
        Ok(count) if count == data.len() => Ok(()),
        Ok(_) => Err(Errno(libc::EIO)),
        Err(errno) => Err(errno),
    }
}

/// One write(2) of as much of `data` as finds room.
pub fn write_some(fd: Fd, data: &[u8]) -> Result<usize> {
    call!(SYS_write, fd, data.as_ptr(), data.len())
}

/// pread(2).
pub fn read_from(fd: Fd, buffer: &mut [u8], offset: u64) -> Result<usize> {
    call!(SYS_pread64, fd, buffer.as_mut_ptr(), buffer.len(), offset)
}

/// ftruncate(2).
pub fn truncate(fd: Fd, length: u64) -> Result<()> {
    nothing(call!(SYS_ftruncate, fd, length))
}

/// fsync(2), of a file or a directory.
pub fn sync(fd: Fd) -> Result<()> {
    nothing(call!(SYS_fsync, fd))
}

/// renameat(2) within one directory.
pub fn rename_at(dir: Fd, from: &CStr, to: &CStr) -> Result<()> {
    nothing(call!(SYS_renameat, dir, from.as_ptr(), dir, to.as_ptr()))
}

/// Opens `name` below `dir`, writes `data` in one go, closes.
pub fn write_at(dir: Fd, name: &CStr, data: &[u8]) -> Result<()> {
    let fd = openat(dir, name, libc::O_WRONLY | libc::O_NOFOLLOW, 0)?;
    let result = write(fd, data);
    close(fd);
    result
}

/// mkdirat(2).
pub fn mkdirat(dir: Fd, name: &CStr, mode: u32) -> Result<()> {
    nothing(call!(SYS_mkdirat, dir, name.as_ptr(), mode))
}

/// mknodat(2).
pub fn mknodat(dir: Fd, name: &CStr, mode: u32, device: u64) -> Result<()> {
    nothing(call!(SYS_mknodat, dir, name.as_ptr(), mode, device))
}

/// symlinkat(2).
pub fn symlinkat(target: &CStr, dir: Fd, name: &CStr) -> Result<()> {
    nothing(call!(SYS_symlinkat, target.as_ptr(), dir, name.as_ptr()))
}

/// unlinkat(2).
pub fn unlinkat(dir: Fd, name: &CStr, flags: c_int) -> Result<()> {
    nothing(call!(SYS_unlinkat, dir, name.as_ptr(), flags))
}

/// readlinkat(2): how many bytes of `buffer` are the target.
pub fn readlinkat(dir: Fd, name: &CStr, buffer: &mut [u8]) -> Result<usize> {
    call!(SYS_readlinkat, dir, name.as_ptr(), buffer.as_mut_ptr(), buffer.len())
}

/// fchownat(2), symlinks not followed; "" is the directory itself.
pub fn chown_at(dir: Fd, name: &CStr, uid: u32, gid: u32) -> Result<()> {
    nothing(call!(SYS_fchownat, dir, name.as_ptr(), uid, gid, libc::AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW))
}

/// fchmodat(2). The kernel's call follows symlinks: only for names that the caller has just made.
pub fn chmod_at(dir: Fd, name: &CStr, mode: u32) -> Result<()> {
    nothing(call!(SYS_fchmodat, dir, name.as_ptr(), mode))
}

/// fchmod(2).
pub fn fchmod(fd: Fd, mode: u32) -> Result<()> {
    nothing(call!(SYS_fchmod, fd, mode))
}

/// fstatat(2), symlinks not followed; "" is the descriptor itself.
pub fn stat_at(dir: Fd, name: &CStr) -> Result<libc::stat> {
    // SAFETY: `struct stat` is plain numbers, for which zeroes are a value.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    let flags = libc::AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW;
    call!(SYS_newfstatat, dir, name.as_ptr(), &raw mut stat, flags)?;
    Ok(stat)
}

/// getdents64(2): how many bytes of `buffer` were filled, 0 at the end.
pub fn getdents(dir: Fd, buffer: &mut [u8]) -> Result<usize> {
    call!(SYS_getdents64, dir, buffer.as_mut_ptr(), buffer.len())
}

/// sendfile(2) of up to `count` bytes from the input's own offset.
pub fn sendfile(output: Fd, input: Fd, count: usize) -> Result<usize> {
    call!(SYS_sendfile, output, input, std::ptr::null_mut::<c_void>(), count)
}

/// dup3(2) without flags: the copy stays open over execve(2).
pub fn dup_to(from: Fd, to: Fd) -> Result<()> {
    // dup3 refuses equal numbers, where only the flag has to go.
    if from == to {
        return nothing(call!(SYS_fcntl, from, libc::F_SETFD, 0));
    }
    nothing(call!(SYS_dup3, from, to, 0))
}

/// fcntl(2) F_DUPFD_CLOEXEC: a copy that is at least `lowest`.
pub fn dup_above(fd: Fd, lowest: Fd) -> Result<Fd> {
    descriptor(call!(SYS_fcntl, fd, libc::F_DUPFD_CLOEXEC, lowest))
}

/// close_range(2) with CLOSE_RANGE_CLOEXEC from `first` to the end.
pub fn close_on_exec_from(first: c_uint) -> Result<()> {
    nothing(call!(SYS_close_range, first, c_uint::MAX, 1 << 2))
}

/// close_range(2) from `first` to `last`.
pub fn close_range(first: c_uint, last: c_uint) -> Result<()> {
    nothing(call!(SYS_close_range, first, last, 0))
}

/// Opens /dev/null as standard input, output or error where that is closed: the next file would become it.
pub fn open_missing_stdio() {
    for number in 0..3 {
        if let Err(Errno(libc::EBADF)) = call!(SYS_fcntl, number, libc::F_GETFD) {
            // The lowest number that is free is this one.
            let _ = call!(SYS_openat, libc::AT_FDCWD, c"/dev/null".as_ptr(), libc::O_RDWR, 0);
        }
    }
}

/// fchdir(2).
pub fn fchdir(fd: Fd) -> Result<()> {
    nothing(call!(SYS_fchdir, fd))
}

/// chdir(2).
pub fn chdir(path: &CStr) -> Result<()> {
    nothing(call!(SYS_chdir, path.as_ptr()))
}

/// chroot(2) of the working directory.
pub fn chroot_here() -> Result<()> {
    nothing(call!(SYS_chroot, c".".as_ptr()))
}

/// faccessat2(2) X_OK with the effective ids.
pub fn may_execute(path: &CStr) -> Result<()> {
    nothing(call!(SYS_faccessat2, libc::AT_FDCWD, path.as_ptr(), libc::X_OK, libc::AT_EACCESS))
}

/// faccessat2(2) W_OK and X_OK of a directory, with the effective ids.
pub fn may_make_in(dir: Fd) -> Result<()> {
    let flags = libc::AT_EACCESS | libc::AT_EMPTY_PATH;
    nothing(call!(SYS_faccessat2, dir, c"".as_ptr(), libc::W_OK | libc::X_OK, flags))
}

/// Takes close-on-exec off a descriptor.
pub fn pass_on(fd: Fd) -> Result<()> {
    nothing(call!(SYS_fcntl, fd, libc::F_SETFD, 0))
}

/// getpid(2).
pub fn pid() -> i32 {
    call!(SYS_getpid).map_or(0, |pid| pid as i32)
}

/// getcwd(2), the kernel's own: "(unreachable)" is visible here and hidden by libc.
pub fn getcwd(buffer: &mut [u8]) -> Result<usize> {
    call!(SYS_getcwd, buffer.as_mut_ptr(), buffer.len())
}

// ---- mounts -------------------------------------------------------------------------------------

/// MOUNT_ATTR_RDONLY of mount_setattr(2).
pub const MOUNT_ATTR_RDONLY: u64 = 0x01;
/// MOUNT_ATTR_NOSUID.
pub const MOUNT_ATTR_NOSUID: u64 = 0x02;
/// MOUNT_ATTR_NODEV.
pub const MOUNT_ATTR_NODEV: u64 = 0x04;
/// MOUNT_ATTR_NOEXEC.
pub const MOUNT_ATTR_NOEXEC: u64 = 0x08;
const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;
const AT_RECURSIVE: c_int = 0x8000;

/// fsopen(2).
pub fn fsopen(fstype: &CStr) -> Result<Fd> {
    descriptor(call!(SYS_fsopen, fstype.as_ptr(), 1))
}

/// fsconfig(2) FSCONFIG_SET_FLAG.
pub fn fsconfig_flag(context: Fd, key: &CStr) -> Result<()> {
    nothing(call!(SYS_fsconfig, context, 0, key.as_ptr(), std::ptr::null::<c_void>(), 0))
}

/// fsconfig(2) FSCONFIG_SET_STRING; the kernel takes at most 255 bytes of value.
pub fn fsconfig_string(context: Fd, key: &CStr, value: &CStr) -> Result<()> {
    nothing(call!(SYS_fsconfig, context, 1, key.as_ptr(), value.as_ptr(), 0))
}

/// fsconfig(2) FSCONFIG_CMD_CREATE.
pub fn fsconfig_create(context: Fd) -> Result<()> {
    nothing(call!(SYS_fsconfig, context, 6, std::ptr::null::<c_void>(), std::ptr::null::<c_void>(), 0))
}

/// fsmount(2), close-on-exec.
pub fn fsmount(context: Fd, attributes: u64) -> Result<Fd> {
    descriptor(call!(SYS_fsmount, context, 1, attributes as c_uint))
}

/// open_tree(2) with OPEN_TREE_CLONE of `path` below `dir`; "" is `dir` itself; no symlink followed.
pub fn clone_tree(dir: Fd, path: &CStr, recursive: bool) -> Result<Fd> {
    let recursive = if recursive { AT_RECURSIVE } else { 0 };
    let flags = 1 | libc::O_CLOEXEC | libc::AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW | recursive;
    descriptor(call!(SYS_open_tree, dir, path.as_ptr(), flags))
}

/// move_mount(2) of the mount `mount` over the place `target`, both by descriptor alone.
pub fn move_mount(mount: Fd, target: Fd) -> Result<()> {
    let empty: c_uint = 0x04 | 0x40;
    nothing(call!(SYS_move_mount, mount, c"".as_ptr(), target, c"".as_ptr(), empty))
}

#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

fn mount_setattr(mount: Fd, recursive: bool, attributes: &MountAttributes) -> Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { AT_RECURSIVE } else { 0 };
    let size = size_of::<MountAttributes>();
    nothing(call!(SYS_mount_setattr, mount, c"".as_ptr(), flags, std::ptr::from_ref(attributes), size))
}

/// mount_setattr(2) of MOUNT_ATTR_ bits and MS_ propagation.
pub fn set_mount_attributes(mount: Fd, set: u64, clear: u64, propagation: u64, recursive: bool) -> Result<()> {
    mount_setattr(mount, recursive, &MountAttributes { set, clear, propagation, userns: 0 })
}

/// mount_setattr(2) with MOUNT_ATTR_IDMAP: the mount shows owners as `userns` maps them.
pub fn idmap_mount(mount: Fd, userns: Fd, recursive: bool) -> Result<()> {
    let attributes = MountAttributes { set: MOUNT_ATTR_IDMAP, clear: 0, propagation: 0, userns: userns as u64 };
    mount_setattr(mount, recursive, &attributes)
}

/// mount(2) that only changes the propagation of /, with MS_REC of all below it as well.
pub fn set_propagation(flags: u64) -> Result<()> {
    let none = std::ptr::null::<c_void>();
    nothing(call!(SYS_mount, none, c"/".as_ptr(), none, flags, none))
}

/// mount(2) of a new file system with the options `data`, at most a page of them.
pub fn mount(fstype: &CStr, target: &CStr, flags: u64, data: &CStr) -> Result<()> {
    nothing(call!(SYS_mount, fstype.as_ptr(), target.as_ptr(), fstype.as_ptr(), flags, data.as_ptr()))
}

/// pivot_root(2) of "." onto itself: the old root ends up stacked over the new one.
pub fn pivot_root_here() -> Result<()> {
    nothing(call!(SYS_pivot_root, c".".as_ptr(), c".".as_ptr()))
}

/// umount2(2) with MNT_DETACH of what is stacked at ".".
pub fn detach_here() -> Result<()> {
    nothing(call!(SYS_umount2, c".".as_ptr(), libc::MNT_DETACH))
}

/// umount2(2) with MNT_DETACH of what is mounted at `path`.
pub fn detach(path: &CStr) -> Result<()> {
    nothing(call!(SYS_umount2, path.as_ptr(), libc::MNT_DETACH))
}

/// The number of the mount that an open file lies on, attached or not (statx(2), STATX_MNT_ID).
pub fn mount_id(fd: Fd) -> Result<u64> {
    // SAFETY: `struct statx` is plain numbers, for which zeroes are a value.
    let mut stat: libc::statx = unsafe { std::mem::zeroed() };
    call!(SYS_statx, fd, c"".as_ptr(), libc::AT_EMPTY_PATH, libc::STATX_MNT_ID, &raw mut stat)?;
    Ok(stat.stx_mnt_id)
}

// ---- processes ----------------------------------------------------------------------------------

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

// ---- sockets and the rest -----------------------------------------------------------------------

/// shutdown(2) SHUT_WR: the other side reads the end of file, whoever else has the socket.
pub fn end_of_file(socket: Fd) -> Result<()> {
    nothing(call!(SYS_shutdown, socket, libc::SHUT_WR))
}

/// A socket of NETLINK_ROUTE in this network namespace.
pub fn route_socket() -> Result<Fd> {
    descriptor(call!(SYS_socket, libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE))
}

/// socketpair(2) AF_UNIX SOCK_SEQPACKET, close-on-exec.
pub fn packet_pair() -> Result<[Fd; 2]> {
    let mut pair = [-1; 2];
    call!(SYS_socketpair, libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0, pair.as_mut_ptr())?;
    Ok(pair)
}

/// pipe2(2), close-on-exec: read end, write end.
pub fn pipe() -> Result<[Fd; 2]> {
    let mut pair = [-1; 2];
    call!(SYS_pipe2, pair.as_mut_ptr(), libc::O_CLOEXEC)?;
    Ok(pair)
}

/// accept4(2), close-on-exec, non-blocking.
pub fn accept(listener: Fd) -> Result<Fd> {
    let none = std::ptr::null_mut::<c_void>();
    descriptor(call!(SYS_accept4, listener, none, none, libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK))
}

/// fcntl(2) F_SETFL O_NONBLOCK: of the open file description, so for everybody who holds it.
pub fn set_nonblocking(fd: Fd) -> Result<()> {
    nothing(call!(SYS_fcntl, fd, libc::F_SETFL, libc::O_NONBLOCK))
}

/// fcntl(2) F_SETPIPE_SZ.
pub fn grow_pipe(fd: Fd, bytes: usize) -> Result<()> {
    nothing(call!(SYS_fcntl, fd, libc::F_SETPIPE_SZ, bytes))
}

/// Most descriptors in one message: SCM_MAX_FD of include/net/scm.h.
pub const MAX_PASSED: usize = 253;
const CONTROL_WORDS: usize = 2 + MAX_PASSED.div_ceil(2);

fn header(io: &mut libc::iovec, control: *mut u64, length: usize) -> libc::msghdr {
    // SAFETY: `struct msghdr` is numbers and pointers, for which zeroes mean "not used".
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = io;
    header.msg_iovlen = 1;
    header.msg_control = control.cast();
    header.msg_controllen = length as _;
    header
}

/// sendmsg(2) of one packet with descriptors, which stay open here. Never raises SIGPIPE.
pub fn send_packet(socket: Fd, data: &[u8], descriptors: &[Fd]) -> Result<()> {
    if descriptors.len() > MAX_PASSED {
        return Err(Errno(libc::EINVAL));
    }
    // A control message: length, then level and type in one word, then the numbers (cmsg(3)).
    let mut control = [0u64; CONTROL_WORDS];
    let length = 16 + size_of_val(descriptors);
    control[0] = length as u64;
    control[1] = (libc::SOL_SOCKET as u64) | (libc::SCM_RIGHTS as u64) << 32;
    for (index, &fd) in descriptors.iter().enumerate() {
        control[2 + index / 2] |= u64::from(fd as u32) << (32 * (index % 2));
    }
    let used = if descriptors.is_empty() { 0 } else { length.next_multiple_of(8) };
    let mut io = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
    let message = header(&mut io, control.as_mut_ptr(), used);
    nothing(call!(SYS_sendmsg, socket, &raw const message, libc::MSG_NOSIGNAL))
}

/// recvmsg(2) of one packet: its length, and how many descriptors were put into `descriptors`.
/// End of file is length 0. A packet or a descriptor too many is EMSGSIZE.
pub fn receive_packet(socket: Fd, data: &mut [u8], descriptors: &mut [Fd]) -> Result<(usize, usize)> {
    let mut control = [0u64; CONTROL_WORDS];
    let mut io = libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: data.len() };
    let mut message = header(&mut io, control.as_mut_ptr(), size_of_val(&control));
    let length = loop {
        match call!(SYS_recvmsg, socket, &raw mut message, libc::MSG_CMSG_CLOEXEC) {
            Err(Errno(libc::EINTR)) => {}
            other => break other?,
        }
    };
    let rights = (libc::SOL_SOCKET as u64) | (libc::SCM_RIGHTS as u64) << 32;
    let passed = if message.msg_controllen >= 16 && control[1] == rights { (control[0] as usize - 16) / 4 } else { 0 };
    for index in 0..passed {
        let fd = (control[2 + index / 2] >> (32 * (index % 2))) as u32 as Fd;
        match descriptors.get_mut(index) {
            Some(place) => *place = fd,
            None => close(fd),
        }
    }
    let truncated = message.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 || passed > descriptors.len();
    if truncated { Err(Errno(libc::EMSGSIZE)) } else { Ok((length, passed)) }
}

fn timespec(milliseconds: i32) -> libc::timespec {
    let (seconds, rest) = (milliseconds / 1000, milliseconds % 1000);
    libc::timespec { tv_sec: i64::from(seconds), tv_nsec: i64::from(rest) * 1_000_000 }
}

/// ppoll(2), `timeout` in milliseconds, for ever if negative; EINTR counts as nothing ready.
pub fn poll(descriptors: &mut [libc::pollfd], timeout: i32) -> Result<usize> {
    let limit = timespec(timeout);
    let limit = if timeout < 0 { std::ptr::null() } else { &raw const limit };
    match call!(SYS_ppoll, descriptors.as_mut_ptr(), descriptors.len(), limit, std::ptr::null::<c_void>(), 0) {
        Err(Errno(libc::EINTR)) => Ok(0),
        other => other,
    }
}

/// Whether there is something to read, or a pidfd's process has ended.
pub fn is_readable(fd: Fd) -> bool {
    let mut entry = [libc::pollfd { fd, events: libc::POLLIN, revents: 0 }];
    poll(&mut entry, 0).is_ok() && entry[0].revents != 0
}

/// Whether the other side of a socket is gone.
pub fn hung_up(socket: Fd) -> bool {
    let mut entry = [libc::pollfd { fd: socket, events: 0, revents: 0 }];
    poll(&mut entry, 0).is_ok() && entry[0].revents & (libc::POLLHUP | libc::POLLERR) != 0
}

/// ioctl(2) with a number for argument.
pub fn ioctl(fd: Fd, request: libc::Ioctl, argument: u64) -> Result<i32> {
    call!(SYS_ioctl, fd, request, argument).map(|result| result as i32)
}

/// Brings the interface `lo` of this net namespace up (netdevice(7), SIOCSIFFLAGS).
pub fn loopback_up() -> Result<()> {
    #[repr(C)]
    struct Request {
        name: [u8; 16],
        flags: i16,
        rest: [u8; 22],
    }
    let mut name = [0; 16];
    name[..2].copy_from_slice(b"lo");
    let request = Request { name, flags: libc::IFF_UP as i16, rest: [0; 22] };
    let socket = descriptor(call!(SYS_socket, libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0))?;
    // The C libraries differ about its type.
    const SIOCSIFFLAGS: libc::Ioctl = 0x8914;
    let result = ioctl(socket, SIOCSIFFLAGS, (&raw const request) as u64);
    close(socket);
    result.map(|_| ())
}

/// CLOCK_MONOTONIC, nanoseconds.
pub fn monotonic() -> u64 {
    clock(libc::CLOCK_MONOTONIC)
}

/// CLOCK_REALTIME, nanoseconds since 1970.
pub fn realtime() -> u64 {
    clock(libc::CLOCK_REALTIME)
}

fn clock(id: c_int) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is ours; through the vDSO this costs no system call.
    unsafe { libc::clock_gettime(id, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
