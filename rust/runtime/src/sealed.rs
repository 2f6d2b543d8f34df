//! What waits in a container for its start, or joins one, is this program: its /proc/PID/exe must be no file of the
//! host (CVE-2019-5736), neither to be written to nor to be executed by a container's `#!/proc/self/exe`.
//!
//! The process takes the file off itself. Its code is mapped anew through a private read-only mount, for the kernel lets go of
//! what is executed only if nothing is mapped from there any more (`replace_mm_exe_file`); its data become memory without a file;
//! then an empty sealed memfd is what it executes (PR_SET_MM_MAP). That costs a fifth of a millisecond. Where the
//! kernel refuses, a sealed copy of the program is executed instead, ten times as dear.

use std::ffi::{CStr, CString, c_char, c_ulong, c_void};
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;

use pyrt_container::host::read_file;
use pyrt_container::sys::{self, Errno};

use crate::error::{Error, Result};

const PROGRAM: &CStr = c"/proc/self/exe";
const SEALS: i32 = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;
const PAGE: usize = 4096;

/// Returns in a process that executes no file of the host, which may be this one or the same program begun anew. Also makes it
/// unreadable for whoever it meets (CVE-2016-9962).
pub fn ensure() -> Result<()> {
    let program = File::open("/proc/self/exe").map_err(|error| failed(&error))?;
    // SAFETY: fcntl(2) with a number.
    let seals = unsafe { libc::fcntl(program.as_raw_fd(), libc::F_GET_SEALS) };
    if (seals < 0 || seals & SEALS != SEALS) && take_off().is_err() {
        return execute_copy(&program);
    }
    sys::prctl(libc::PR_SET_DUMPABLE, 0, 0).map_err(|errno| Error::call("closing the process to others", errno))
}

fn failed(error: &std::io::Error) -> Error {
    Error::new(format!("copying the program into memory: {error}"))
}

fn last() -> Errno {
    Errno(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
}

// ---- the file is taken off -----------------------------------------------------------------------

fn take_off() -> sys::Result<()> {
    let empty = new_memory()?;
    seal(&empty)?;
    let again = open_again()?;
    segments()?.iter().try_for_each(|segment| segment.leave(&again))?;
    execute_instead(&empty)
}

/// The program's file, by a mount that nobody else has and nobody can make writable: it is closed, and so in no namespace.
fn open_again() -> sys::Result<File> {
    let program = sys::openat(libc::AT_FDCWD, PROGRAM, libc::O_PATH, 0)?;
    let mount = sys::clone_tree(program, c"", false);
    sys::close(program);
    let mount = mount?;
    let opened = sys::set_mount_attributes(mount, sys::MOUNT_ATTR_RDONLY, 0, 0, false).and_then(|()| {
        let path = CString::new(format!("/proc/self/fd/{mount}")).unwrap_or_default();
        sys::openat(libc::AT_FDCWD, &path, libc::O_RDONLY, 0)
    });
    sys::close(mount);
    // SAFETY: the call has just opened it for us.
    opened.map(|fd| unsafe { File::from_raw_fd(fd) })
}

/// What the kernel has mapped of the file (elf(5), PT_LOAD).
struct Segment {
    start: usize,
    /// What lies in the file, to the end of its last page.
    length: usize,
    offset: usize,
    protection: i32,
    /// So much of the beginning was made read-only once it was relocated (PT_GNU_RELRO).
    settled: usize,
}

impl Segment {
    /// Maps it from elsewhere. What can be written to keeps what was written.
    fn leave(&self, file: &File) -> sys::Result<()> {
        let place = self.start as *mut c_void;
        if self.protection & libc::PROT_WRITE == 0 {
            let flags = libc::MAP_PRIVATE | libc::MAP_FIXED;
            // SAFETY: the same bytes come to lie at the same place, also those of the code that is running.
            let map = unsafe {
                libc::mmap(place, self.length, self.protection, flags, file.as_raw_fd(), self.offset as libc::off_t)
            };
            return if map == libc::MAP_FAILED { Err(last()) } else { Ok(()) };
        }
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping gets a copy and takes the place of what it was copied from; there is but one thread, and
        // between the two it writes to its stack alone.
        unsafe {
            let copy = libc::mmap(std::ptr::null_mut(), self.length, self.protection, flags, -1, 0);
            if copy == libc::MAP_FAILED {
                return Err(last());
            }
            std::ptr::copy_nonoverlapping(place.cast::<u8>(), copy.cast::<u8>(), self.length);
            let move_there = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
            if libc::mremap(copy, self.length, self.length, move_there, place) == libc::MAP_FAILED
                || (self.settled > 0 && libc::mprotect(place, self.settled, libc::PROT_READ) != 0)
            {
                return Err(last());
            }
        }
        Ok(())
    }
}

fn segments() -> sys::Result<Vec<Segment>> {
    // SAFETY: the kernel says where this program's headers lie, and how many there are (getauxval(3)).
    let headers = unsafe {
        let (start, count) = (libc::getauxval(libc::AT_PHDR), libc::getauxval(libc::AT_PHNUM));
        if start == 0 {
            return Err(Errno(libc::ENOENT));
        }
        std::slice::from_raw_parts(start as *const libc::Elf64_Phdr, count as usize)
    };
    let of_kind = |kind: u32| headers.iter().filter(move |header| header.p_type == kind);
    // The headers lie in the file's first page (not every linker says where: PT_PHDR).
    let first = of_kind(libc::PT_LOAD).find(|header| header.p_offset == 0).ok_or(Errno(libc::ENOENT))?;
    let base = (headers.as_ptr() as usize & !(PAGE - 1)).wrapping_sub(first.p_vaddr as usize);
    let settled_end = of_kind(libc::PT_GNU_RELRO).map(|header| (header.p_vaddr + header.p_memsz) as usize).next();
    let segment = |header: &libc::Elf64_Phdr| {
        let address = header.p_vaddr as usize;
        let start = address & !(PAGE - 1);
        let length = (address + header.p_filesz as usize).next_multiple_of(PAGE) - start;
        let protection = [(libc::PF_R, libc::PROT_READ), (libc::PF_W, libc::PROT_WRITE), (libc::PF_X, libc::PROT_EXEC)];
        let protection = protection.iter().filter(|(flag, _)| header.p_flags & flag != 0).map(|(_, bit)| bit).sum();
        // Whole pages only, as whoever has made them read-only has done.
        let settled = settled_end.map_or(0, |end| (end & !(PAGE - 1)).saturating_sub(start).min(length));
        let offset = header.p_offset as usize & !(PAGE - 1);
        Segment { start: base.wrapping_add(start), length, offset, protection, settled }
    };
    Ok(of_kind(libc::PT_LOAD).map(segment).collect())
}

/// `struct prctl_mm_map` of linux/prctl.h.
#[repr(C)]
struct Map {
    start_code: u64,
    end_code: u64,
    start_data: u64,
    end_data: u64,
    start_brk: u64,
    brk: u64,
    start_stack: u64,
    arg_start: u64,
    arg_end: u64,
    env_start: u64,
    env_end: u64,
    auxv: u64,
    auxv_size: u32,
    exe_fd: u32,
}

/// prctl(2) PR_SET_MM_MAP: all stays where it is (proc_pid_stat(5) knows), but the file.
fn execute_instead(file: &File) -> sys::Result<()> {
    let stat = read_file("/proc/self/stat").map_err(|_| Errno(libc::ENOENT))?;
    let fields: Vec<u64> = stat
        .rsplit_once(") ")
        .map(|(_, fields)| fields.split_ascii_whitespace().map(|field| field.parse().unwrap_or(0)).collect())
        .unwrap_or_default();
    // The first that stands after the name is number 3.
    let field = |number: usize| fields.get(number - 3).copied().ok_or(Errno(libc::EINVAL));
    let map = Map {
        start_code: field(26)?,
        end_code: field(27)?,
        start_data: field(45)?,
        end_data: field(46)?,
        start_brk: field(47)?,
        // SAFETY: sbrk(3) that asks.
        brk: unsafe { libc::sbrk(0) } as u64,
        start_stack: field(28)?,
        arg_start: field(48)?,
        arg_end: field(49)?,
        env_start: field(50)?,
        env_end: field(51)?,
        auxv: 0,
        auxv_size: 0,
        exe_fd: file.as_raw_fd() as u32,
    };
    const SET_MM: i32 = 35;
    const SET_MM_MAP: c_ulong = 14;
    // SAFETY: the structure is as long as we say.
    match unsafe { libc::prctl(SET_MM, SET_MM_MAP, &raw const map, size_of::<Map>() as c_ulong, 0 as c_ulong) } {
        0 => Ok(()),
        _ => Err(last()),
    }
}

// ---- a copy is executed --------------------------------------------------------------------------

fn new_memory() -> sys::Result<File> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: the name is a C string; the new descriptor is owned by the file.
    unsafe {
        match libc::memfd_create(c"pyrt-runtime".as_ptr(), flags) {
            -1 => Err(last()),
            fd => Ok(File::from_raw_fd(fd)),
        }
    }
}

fn seal(memory: &File) -> sys::Result<()> {
    // SAFETY: fchmod(2) and fcntl(2) with numbers, of our own file.
    let sealed = unsafe {
        libc::fchmod(memory.as_raw_fd(), 0o500) == 0 && libc::fcntl(memory.as_raw_fd(), libc::F_ADD_SEALS, SEALS) == 0
    };
    if sealed { Ok(()) } else { Err(last()) }
}

fn execute_copy(program: &File) -> Result<()> {
    let called = |errno| Error::call("copying the program into memory", errno);
    let memory = new_memory().map_err(called)?;
    let size = program.metadata().map_err(|error| failed(&error))?.len();
    let mut copied = 0;
    while copied < size {
        match sys::sendfile(memory.as_raw_fd(), program.as_raw_fd(), size as usize).map_err(called)? {
            0 => return Err(Error::new("copying the program into memory: it has become shorter")),
            count => copied += count as u64,
        }
    }
    seal(&memory).map_err(called)?;
    // As the kernel has them: Rust's own copy is made by a beginning that this program has not.
    let line = std::fs::read("/proc/self/cmdline").map_err(|error| failed(&error))?;
    let words: Vec<CString> = line
        .split_inclusive(|&byte| byte == 0)
        .filter_map(|word| CString::from_vec_with_nul(word.to_vec()).ok())
        .collect();
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
    Err(called(last()))
}
