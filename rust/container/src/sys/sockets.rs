//! Sockets, waiting, and clocks.

use std::ffi::{c_int, c_void};

use pyrt_syscall::nothing;

use super::{Errno, Fd, Result, close, descriptor};

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

pub(super) fn timespec(milliseconds: i32) -> libc::timespec {
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
