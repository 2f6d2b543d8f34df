//! The program runs from a sealed memfd before it makes or joins a container: what waits in a container for its
//! start is this program, and its /proc/PID/exe must be no file of the host (CVE-2019-5736).

use std::ffi::{CString, c_char};
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;

use pyrt_container::sys;

use crate::error::{Error, Result};

const SEALS: i32 = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;

/// Returns in the sealed copy alone. Also makes the process unreadable for whoever it meets (CVE-2016-9962).
pub fn ensure() -> Result<()> {
    let program = File::open("/proc/self/exe").map_err(|error| failed(&error))?;
    // SAFETY: fcntl(2) with a number.
    let seals = unsafe { libc::fcntl(program.as_raw_fd(), libc::F_GET_SEALS) };
    if seals < 0 || seals & SEALS != SEALS {
        return execute_copy(&program);
    }
    sys::prctl(libc::PR_SET_DUMPABLE, 0, 0).map_err(|errno| Error::call("closing the process to others", errno))
}

fn failed(error: &std::io::Error) -> Error {
    Error::new(format!("copying the program into memory: {error}"))
}

fn execute_copy(program: &File) -> Result<()> {
    let last = || failed(&std::io::Error::last_os_error());
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: the name is a C string; the new descriptor is owned by the file.
    let memory = unsafe {
        match libc::memfd_create(c"pyrt-runtime".as_ptr(), flags) {
            -1 => return Err(last()),
            fd => File::from_raw_fd(fd),
        }
    };
    let size = program.metadata().map_err(|error| failed(&error))?.len();
    let mut copied = 0;
    while copied < size {
        match sys::sendfile(memory.as_raw_fd(), program.as_raw_fd(), size as usize) {
            Ok(0) => return Err(Error::new("copying the program into memory: it has become shorter")),
            Ok(count) => copied += count as u64,
            Err(errno) => return Err(Error::call("copying the program into memory", errno)),
        }
    }
    // SAFETY: fchmod(2) and fcntl(2) with numbers, of our own file.
    let sealed = unsafe {
        libc::fchmod(memory.as_raw_fd(), 0o500) == 0 && libc::fcntl(memory.as_raw_fd(), libc::F_ADD_SEALS, SEALS) == 0
    };
    if !sealed {
        return Err(last());
    }
    let words: Vec<CString> = std::env::args_os().filter_map(|word| CString::new(word.as_bytes()).ok()).collect();
    let entry = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok()
    };
    let variables: Vec<CString> = std::env::vars_os().filter_map(entry).collect();
    let pointers = |texts: &[CString]| -> Vec<*const c_char> {
        texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (words, variables) = (pointers(&words), pointers(&variables));
    // SAFETY: both arrays end in null and point to texts that are alive; the call returns only on failure.
    unsafe {
        let (path, flags) = (c"".as_ptr(), libc::AT_EMPTY_PATH);
        libc::syscall(libc::SYS_execveat, memory.as_raw_fd(), path, words.as_ptr(), variables.as_ptr(), flags);
    }
    Err(last())
}
