//! The kernel, one function a system call: this program has no C library that would do it.
//!
//! Nothing is retried here but what says so, and nothing is decided.

use alloc::vec::Vec;
use core::ffi::{CStr, c_char, c_int};
use core::time::Duration;

pub use pyrt_syscall::{Errno, Fd, Result};
use pyrt_syscall::{Word, nothing, system_call};

macro_rules! call {
    ($number:ident $(, $argument:expr)* $(,)?) => {{
        // SAFETY: the arguments are numbers, or pointers into memory that the caller borrows for the
        // length of the call, with the lengths that the kernel's documentation of this call asks for.
        unsafe { system_call(libc::$number, [$(Word::word($argument)),*]) }
    }};
}
/// A descriptor of our own, closed when it is dropped.
#[derive(Debug)]
pub struct Owned(Fd);

impl Owned {
    /// Its number, as long as this lives.
    pub fn fd(&self) -> Fd {
        self.0
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        let _ = call!(SYS_close, self.0);
    }
}

#[cfg(test)]
impl From<std::os::fd::OwnedFd> for Owned {
    fn from(descriptor: std::os::fd::OwnedFd) -> Self {
        Self(std::os::fd::IntoRawFd::into_raw_fd(descriptor))
    }
}

fn owned(result: Result<usize>) -> Result<Owned> {
    result.map(|fd| Owned(fd as Fd))
}

// ---- files --------------------------------------------------------------------------------------

/// open(2), always close-on-exec.
pub fn open(path: &CStr, flags: c_int, mode: u32) -> Result<Owned> {
    owned(call!(SYS_open, path.as_ptr(), flags | libc::O_CLOEXEC, mode))
}

/// Opens /dev/null for each of the descriptors 0 to 2 that is missing.
pub fn open_missing_stdio() {
    for number in 0..3 {
        if call!(SYS_fcntl, number, libc::F_GETFD) == Err(Errno(libc::EBADF)) {
            // The lowest number that is free is this one.
            let _ = call!(SYS_open, c"/dev/null".as_ptr(), libc::O_RDWR, 0);
        }
    }
}

/// fcntl(2) F_DUPFD_CLOEXEC.
pub fn duplicate(fd: Fd) -> Result<Owned> {
    owned(call!(SYS_fcntl, fd, libc::F_DUPFD_CLOEXEC, 0))
}

/// dup2(2): the copy stays open in what is executed.
pub fn duplicate_to(from: Fd, to: Fd) -> Result<()> {
    nothing(call!(SYS_dup2, from, to))
}

/// close_range(2) CLOSE_RANGE_CLOEXEC: all from `first` on are closed by what is executed next.
pub fn close_on_exec_from(first: u32) -> Result<()> {
    nothing(call!(SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC))
}

/// pipe2(2), close-on-exec: the end to read from and the one to write to.
pub fn pipe() -> Result<(Owned, Owned)> {
    let mut ends = [0; 2];
    call!(SYS_pipe2, ends.as_mut_ptr(), libc::O_CLOEXEC)?;
    Ok((Owned(ends[0]), Owned(ends[1])))
}

/// read(2).
pub fn read(fd: Fd, buffer: &mut [u8]) -> Result<usize> {
    call!(SYS_read, fd, buffer.as_mut_ptr(), buffer.len())
}

/// read(2) of at most so many bytes, behind what the buffer holds.
pub fn read_behind(fd: Fd, buffer: &mut Vec<u8>, most: usize) -> Result<usize> {
    buffer.reserve(most);
    let count = call!(SYS_read, fd, buffer.spare_capacity_mut().as_mut_ptr(), most)?;
    // SAFETY: the kernel has written so many bytes there, and there was room for them.
    unsafe { buffer.set_len(buffer.len() + count) };
    Ok(count)
}

/// write(2).
pub fn write(fd: Fd, bytes: &[u8]) -> Result<usize> {
    call!(SYS_write, fd, bytes.as_ptr(), bytes.len())
}

/// splice(2) of at most so many bytes, without waiting.
pub fn splice(from: Fd, to: Fd, most: usize) -> Result<usize> {
    let none = core::ptr::null::<i64>();
    call!(SYS_splice, from, none, to, none, most, libc::SPLICE_F_NONBLOCK | libc::SPLICE_F_MOVE)
}

/// ioctl(2) FIONBIO: from now on nobody waits who uses this open file.
pub fn set_nonblocking(fd: Fd) -> Result<()> {
    let on: c_int = 1;
    nothing(call!(SYS_ioctl, fd, libc::FIONBIO, &raw const on))
}

/// fstat(2).
pub fn stat_of(fd: Fd) -> Result<libc::stat> {
    let mut facts = zeroed();
    call!(SYS_fstat, fd, &raw mut facts)?;
    Ok(facts)
}

/// stat(2).
pub fn stat(path: &CStr) -> Result<libc::stat> {
    let mut facts = zeroed();
    call!(SYS_stat, path.as_ptr(), &raw mut facts)?;
    Ok(facts)
}

fn zeroed() -> libc::stat {
    // SAFETY: numbers without exception, for which zero is a value.
    unsafe { core::mem::zeroed() }
}

/// mkdir(2).
pub fn make_folder(path: &CStr, mode: u32) -> Result<()> {
    nothing(call!(SYS_mkdir, path.as_ptr(), mode))
}

/// chdir(2).
pub fn enter_folder(path: &CStr) -> Result<()> {
    nothing(call!(SYS_chdir, path.as_ptr()))
}

/// flock(2) LOCK_EX: waits for its turn.
pub fn lock(fd: Fd) -> Result<()> {
    nothing(call!(SYS_flock, fd, libc::LOCK_EX))
}

/// getcwd(2); its NUL is not among what it returns.
pub fn working_folder(buffer: &mut [u8]) -> Result<&[u8]> {
    let count = call!(SYS_getcwd, buffer.as_mut_ptr(), buffer.len())?;
    Ok(&buffer[..count - 1])
}

/// readlink(2).
pub fn read_link<'a>(path: &CStr, buffer: &'a mut [u8]) -> Result<&'a [u8]> {
    let count = call!(SYS_readlink, path.as_ptr(), buffer.as_mut_ptr(), buffer.len())?;
    Ok(&buffer[..count])
}

/// poll(2); milliseconds, or -1 for ever.
pub fn poll(descriptors: &mut [libc::pollfd], patience: c_int) -> Result<usize> {
    call!(SYS_poll, descriptors.as_mut_ptr(), descriptors.len(), patience)
}

// ---- sockets ------------------------------------------------------------------------------------

/// A UNIX stream socket.
pub fn socket() -> Result<Owned> {
    owned(call!(SYS_socket, libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0))
}

/// connect(2) to a path, which may have 107 bytes.
pub fn connect(socket: Fd, path: &[u8]) -> Result<()> {
    let mut address = libc::sockaddr_un { sun_family: libc::AF_UNIX as libc::sa_family_t, sun_path: [0; 108] };
    if path.len() >= address.sun_path.len() {
        return Err(Errno::NAMETOOLONG);
    }
    for (place, byte) in address.sun_path.iter_mut().zip(path) {
        *place = *byte as c_char;
    }
    nothing(call!(SYS_connect, socket, &raw const address, size_of::<libc::sockaddr_un>()))
}

/// sendto(2) with flags; a reader that is gone is an error and no signal.
pub fn send(socket: Fd, bytes: &[u8], flags: c_int) -> Result<usize> {
    let none = core::ptr::null::<u8>();
    call!(SYS_sendto, socket, bytes.as_ptr(), bytes.len(), flags | libc::MSG_NOSIGNAL, none, 0)
}

/// Room for the descriptors of one message, as cmsg(3) lays it out: its header, then their numbers.
#[repr(C)]
struct Control {
    header: libc::cmsghdr,
    descriptors: [Fd; 8],
}

impl Control {
    fn of(count: usize) -> Self {
        let header = libc::cmsghdr {
            cmsg_len: size_of::<libc::cmsghdr>() + count * size_of::<Fd>(),
            cmsg_level: libc::SOL_SOCKET,
            cmsg_type: libc::SCM_RIGHTS,
        };
        Self { header, descriptors: [-1; 8] }
    }

    /// The descriptors of a message that has come with so many bytes of this.
    fn arrived(&self, length: usize) -> &[Fd] {
        if length < size_of::<libc::cmsghdr>() || self.header.cmsg_type != libc::SCM_RIGHTS {
            return &[];
        }
        let count = (self.header.cmsg_len.min(length) - size_of::<libc::cmsghdr>()) / size_of::<Fd>();
        &self.descriptors[..count]
    }
}

fn message(bytes: &mut libc::iovec, control: &mut Control, length: usize) -> libc::msghdr {
    // SAFETY: numbers and pointers, for which zero is a value.
    let mut message: libc::msghdr = unsafe { core::mem::zeroed() };
    message.msg_iov = bytes;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut *control).cast();
    message.msg_controllen = length;
    message
}

/// sendmsg(2): the first bytes, and three descriptors with them.
pub fn send_with(socket: Fd, bytes: &[u8], descriptors: [Fd; 3]) -> Result<usize> {
    let mut control = Control::of(descriptors.len());
    control.descriptors[..descriptors.len()].copy_from_slice(&descriptors);
    let mut bytes = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // Aligned as the next header would have to be: CMSG_SPACE of cmsg(3).
    let length = control.header.cmsg_len.next_multiple_of(size_of::<usize>());
    let message = message(&mut bytes, &mut control, length);
    call!(SYS_sendmsg, socket, &raw const message, libc::MSG_NOSIGNAL)
}

/// recvmsg(2) of at most so many bytes, without waiting, behind what the buffers hold.
pub fn receive(socket: Fd, buffer: &mut Vec<u8>, most: usize, descriptors: &mut Vec<Owned>) -> Result<usize> {
    buffer.reserve(most);
    let mut control = Control::of(0);
    let mut bytes = libc::iovec { iov_base: buffer.spare_capacity_mut().as_mut_ptr().cast(), iov_len: most };
    let mut message = message(&mut bytes, &mut control, size_of::<Control>());
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    let count = call!(SYS_recvmsg, socket, &raw mut message, flags)?;
    let length = message.msg_controllen;
    // SAFETY: the kernel has written so many bytes there, and there was room for them.
    unsafe { buffer.set_len(buffer.len() + count) };
    descriptors.extend(control.arrived(length).iter().map(|fd| Owned(*fd)));
    Ok(count)
}

/// Bytes that have been sent and that the other side has not read: unix(7), SIOCOUTQ.
pub fn unread(socket: Fd) -> c_int {
    let mut count: c_int = 0;
    if call!(SYS_ioctl, socket, libc::TIOCOUTQ, &raw mut count).is_ok() { count } else { 0 }
}

// ---- terminals ----------------------------------------------------------------------------------

/// What a terminal makes of keys and bytes.
pub fn terminal_mode(fd: Fd) -> Result<libc::termios2> {
    // SAFETY: numbers without exception, for which zero is a value.
    let mut mode: libc::termios2 = unsafe { core::mem::zeroed() };
    call!(SYS_ioctl, fd, libc::TCGETS2, &raw mut mode)?;
    Ok(mode)
}

/// Changes that at once.
pub fn set_terminal_mode(fd: Fd, mode: &libc::termios2) -> Result<()> {
    nothing(call!(SYS_ioctl, fd, libc::TCSETS2, &raw const *mode))
}

/// Rows and columns of a terminal.
pub fn window(fd: Fd) -> Result<libc::winsize> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    call!(SYS_ioctl, fd, libc::TIOCGWINSZ, &raw mut size)?;
    Ok(size)
}

/// Changes these.
pub fn set_window(fd: Fd, size: &libc::winsize) -> Result<()> {
    nothing(call!(SYS_ioctl, fd, libc::TIOCSWINSZ, &raw const *size))
}

/// The process group in the foreground of a terminal.
pub fn foreground(fd: Fd) -> Result<c_int> {
    let mut group: c_int = 0;
    call!(SYS_ioctl, fd, libc::TIOCGPGRP, &raw mut group)?;
    Ok(group)
}

// ---- signals ------------------------------------------------------------------------------------

/// struct kernel_sigaction; that of the C library is another.
#[repr(C)]
struct Action {
    handler: usize,
    flags: u64,
    restorer: usize,
    mask: u64,
}

/// Bytes of the kernel's set of signals, in which bit n-1 stands for signal n.
const SET: usize = size_of::<u64>();

/// rt_sigprocmask(2): SIG_BLOCK, SIG_UNBLOCK or SIG_SETMASK.
pub fn mask(how: c_int, set: u64) {
    let _ = call!(SYS_rt_sigprocmask, how, &raw const set, core::ptr::null::<u64>(), SET);
}

/// Whether somebody has this signal ignored.
pub fn is_ignored(signal: c_int) -> bool {
    let mut action = Action { handler: 0, flags: 0, restorer: 0, mask: 0 };
    let asked = call!(SYS_rt_sigaction, signal, core::ptr::null::<Action>(), &raw mut action, SET);
    asked.is_ok() && action.handler == libc::SIG_IGN
}

/// Gives a signal its usual effect.
pub fn reset(signal: c_int) {
    let action = Action { handler: libc::SIG_DFL, flags: 0, restorer: 0, mask: 0 };
    let _ = call!(SYS_rt_sigaction, signal, &raw const action, core::ptr::null::<Action>(), SET);
}

/// signalfd4(2): a descriptor from which these can be read, while they are blocked; it does not wait.
pub fn signal_descriptor(set: u64) -> Result<Owned> {
    owned(call!(SYS_signalfd4, -1, &raw const set, SET, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))
}

/// Sends a signal to this process.
pub fn raise(signal: c_int) {
    if let Ok(own) = call!(SYS_getpid) {
        let _ = call!(SYS_kill, own, signal);
    }
}

// ---- processes ----------------------------------------------------------------------------------

/// geteuid(2).
pub fn user() -> u32 {
    call!(SYS_geteuid).map_or(u32::MAX, |user| user as u32)
}

/// getpgid(2) of this process.
pub fn group() -> c_int {
    call!(SYS_getpgid, 0).map_or(0, |group| group as c_int)
}

/// prctl(2) PR_SET_DUMPABLE: no core file of this process.
pub fn leave_no_core() {
    let _ = call!(SYS_prctl, libc::PR_SET_DUMPABLE, 0);
}

/// setsid(2).
pub fn new_session() -> Result<()> {
    nothing(call!(SYS_setsid))
}

/// fork(2): zero in the child.
pub fn fork() -> Result<c_int> {
    call!(SYS_fork).map(|process| process as c_int)
}

/// Waits for the end of a child.
pub fn wait(process: c_int) -> Result<()> {
    let none = core::ptr::null::<c_int>();
    loop {
        match call!(SYS_wait4, process, none, 0, none) {
            Err(Errno::INTR) => {}
            other => return nothing(other),
        }
    }
}

/// execve(2); returns only if that fails. Both arrays end in a null.
pub fn execute(path: &CStr, arguments: &[*const c_char], environment: &[*const c_char]) -> Errno {
    match call!(SYS_execve, path.as_ptr(), arguments.as_ptr(), environment.as_ptr()) {
        Err(errno) => errno,
        Ok(_) => Errno(0),
    }
}

/// exit_group(2).
pub fn exit(status: u8) -> ! {
    loop {
        let _ = call!(SYS_exit_group, u32::from(status));
    }
}

/// Since the machine was started.
pub fn clock() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let _ = call!(SYS_clock_gettime, libc::CLOCK_MONOTONIC, &raw mut time);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// mmap(2): fresh memory of our own.
pub fn map(bytes: usize) -> Result<*mut u8> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let none = core::ptr::null::<u8>();
    call!(SYS_mmap, none, bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0).map(|address| address as *mut u8)
}

/// munmap(2).
///
/// # Safety
/// Nothing of it is used any more, and [`map`] has given just that.
pub unsafe fn unmap(address: *mut u8, bytes: usize) {
    let _ = call!(SYS_munmap, address, bytes);
}
