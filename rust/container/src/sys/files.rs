//! Files and directories.

use std::ffi::{CStr, c_int, c_uint, c_void};

use pyrt_syscall::nothing;

use super::{Errno, Fd, Result, descriptor};

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
