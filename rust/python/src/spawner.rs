//! Launches the spawner: the static program that the extension carries, from a sealed memfd.
//!
//! Never by fork: the caller's memory is not copied, whatever its size and its threads. glibc's
//! posix_spawn(3) is clone(CLONE_VM | CLONE_VFORK) with every signal blocked.

use std::ffi::{CStr, CString, c_int};
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::ptr;

use pyo3::prelude::*;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::errors::host_error;

static PROGRAM: &[u8] = include_bytes!(env!("PYRT_INIT"));

/// The role that the program takes from its name.
const NAME: &CStr = c"pyrt-spawner";
/// Where the spawner finds its end of the socket.
const SOCKET: RawFd = 3;

/// Starts a spawner; see the stub.
#[pyfunction]
pub fn launch_spawner(py: Python<'_>) -> PyResult<(c_int, RawFd)> {
    let (pid, socket) = py.detach(launch).map_err(|error| host_error("starting the spawner", &error))?;
    Ok((pid, socket.into_raw_fd()))
}

fn launch() -> io::Result<(libc::pid_t, OwnedFd)> {
    let program = sealed_program()?;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    // Moved out of the way, lest it be closed or inherited as one of 0 to 3 while those are put in place.
    let theirs = rustix::io::fcntl_dupfd_cloexec(&theirs, SOCKET + 1)?;
    let program = rustix::io::fcntl_dupfd_cloexec(&program, SOCKET + 1)?;
    let mut actions = FileActions::new()?;
    for (standard, flags) in [(0, libc::O_RDONLY), (1, libc::O_WRONLY), (2, libc::O_WRONLY)] {
        actions.open(standard, c"/dev/null", flags)?;
    }
    actions.duplicate(&theirs, SOCKET)?;
    let pid = spawn(&program, &actions, &Attributes::new()?)?;
    Ok((pid, ours))
}

/// A memfd that nobody can write any more, not even through `/proc/<pid>/exe` (CVE-2019-5736).
fn sealed_program() -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // MFD_EXEC says that this one is to be executed (vm.memfd_noexec); kernels before 6.3 don't know the flag.
    let memfd = memfd_create(NAME, flags | MemfdFlags::EXEC).or_else(|_| memfd_create(NAME, flags))?;
    let mut file = std::fs::File::from(memfd);
    file.write_all(PROGRAM)?;
    fcntl_add_seals(&file, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    Ok(file.into())
}

fn spawn(program: &OwnedFd, actions: &FileActions, attributes: &Attributes) -> io::Result<libc::pid_t> {
    let path = CString::new(format!("/proc/self/fd/{}", program.as_raw_fd()))?;
    let arguments = [NAME.as_ptr().cast_mut(), ptr::null_mut()];
    let environment = [ptr::null_mut()];
    let mut pid = 0;
    // SAFETY: every pointer is to a live, NUL-terminated value that outlives the call; the lists end in null.
    let error = unsafe {
        libc::posix_spawn(
            &mut pid,
            path.as_ptr(),
            actions.0.as_ptr(),
            attributes.0.as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
        )
    };
    checked(error).map(|()| pid)
}

/// posix_spawn's functions return the error number instead of setting it.
fn checked(error: c_int) -> io::Result<()> {
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}

/// What becomes of descriptors between the clone and the exec.
struct FileActions(Box<MaybeUninit<libc::posix_spawn_file_actions_t>>);

impl FileActions {
    fn new() -> io::Result<Self> {
        let mut actions = Box::new_uninit();
        // SAFETY: initialises what it is given.
        checked(unsafe { libc::posix_spawn_file_actions_init(actions.as_mut_ptr()) })?;
        Ok(Self(actions))
    }

    fn open(&mut self, fd: RawFd, path: &CStr, flags: c_int) -> io::Result<()> {
        // SAFETY: initialised in `new`; glibc copies the path.
        checked(unsafe { libc::posix_spawn_file_actions_addopen(self.0.as_mut_ptr(), fd, path.as_ptr(), flags, 0) })
    }

    fn duplicate(&mut self, from: &OwnedFd, to: RawFd) -> io::Result<()> {
        // SAFETY: initialised in `new`.
        checked(unsafe { libc::posix_spawn_file_actions_adddup2(self.0.as_mut_ptr(), from.as_raw_fd(), to) })
    }
}

impl Drop for FileActions {
    fn drop(&mut self) {
        // SAFETY: initialised in `new`, not used again.
        unsafe { libc::posix_spawn_file_actions_destroy(self.0.as_mut_ptr()) };
    }
}

/// A session of its own, so that a Ctrl-C for the caller ends no container, and signals as a fresh process has them.
struct Attributes(Box<MaybeUninit<libc::posix_spawnattr_t>>);

impl Attributes {
    fn new() -> io::Result<Self> {
        let mut attributes = Box::new_uninit();
        // SAFETY: initialises what it is given.
        checked(unsafe { libc::posix_spawnattr_init(attributes.as_mut_ptr()) })?;
        let mut attributes = Self(attributes);
        let flags = libc::POSIX_SPAWN_SETSIGMASK as c_int
            | libc::POSIX_SPAWN_SETSIGDEF as c_int
            | libc::POSIX_SPAWN_SETSID as c_int;
        let (none, all) = (signals(libc::sigemptyset), signals(libc::sigfillset));
        let pointer = attributes.0.as_mut_ptr();
        // SAFETY: initialised above; the sets live until the calls return.
        unsafe {
            checked(libc::posix_spawnattr_setflags(pointer, flags as libc::c_short))?;
            checked(libc::posix_spawnattr_setsigmask(pointer, &none))?;
            checked(libc::posix_spawnattr_setsigdefault(pointer, &all))?;
        }
        Ok(attributes)
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: initialised in `new`, not used again.
        unsafe { libc::posix_spawnattr_destroy(self.0.as_mut_ptr()) };
    }
}

fn signals(fill: unsafe extern "C" fn(*mut libc::sigset_t) -> c_int) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset(3) and sigfillset(3) initialise the whole set.
    unsafe {
        fill(set.as_mut_ptr());
        set.assume_init()
    }
}
