//! Reaching the server, and starting one where none is.
//!
//! Many clients may find no server at once: they queue at a lock file, and whoever gets it first starts
//! one. The new server writes on a pipe until it listens, `ready` as its last line; whatever else it
//! wrote when the pipe ends is why it could not.

use alloc::ffi::CString;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ffi::{CStr, c_char, c_int};
use core::ptr;

use crate::failure::{Failure, shown};
use crate::given::Given;
use crate::place::{Place, join, terminated};
use crate::sys::{self, Errno, Owned};

/// The last line of a server that listens.
const READY: &str = "ready";
/// A server outlives the shell that happened to start it, so it gets of that shell's environment only
/// what makes Python, the network and the folders work; each call brings the caller's own.
const INHERITED: [&[u8]; 11] = [
    b"PATH",
    b"HOME",
    b"USER",
    b"LOGNAME",
    b"LANG",
    b"TZ",
    b"TMPDIR",
    b"LD_LIBRARY_PATH",
    b"DOCKER_CONFIG",
    b"REGISTRY_AUTH_FILE",
    b"SSL_CERT_FILE",
];
/// See [`INHERITED`].
const INHERITED_PREFIXES: [&[u8]; 4] = [b"PYRT_", b"PYTHON", b"XDG_", b"LC_"];

/// A connection to a server that is there or has just been started.
pub fn connect(place: &Place, given: Given<'_>) -> Result<Owned, Failure> {
    let path = place.socket();
    if let Some(socket) = dial(&path)? {
        return Ok(socket);
    }
    place.prepare()?;
    let _turn = lock(&place.start_lock())?;
    if let Some(socket) = dial(&path)? {
        return Ok(socket);
    }
    start(given)?;
    dial(&path)?.ok_or_else(|| Failure::new("the server that was just started is gone again"))
}

/// A connected socket, or nothing if nobody listens there.
fn dial(path: &[u8]) -> Result<Option<Owned>, Failure> {
    let failed = |error: Errno| Failure::of(&format!("connecting to {}", shown(path)), error);
    let socket = first_socket().map_err(failed)?;
    match sys::connect(socket.fd(), path) {
        Ok(()) => Ok(Some(socket)),
        Err(Errno::NOENT | Errno::CONNREFUSED) => Ok(None),
        Err(error @ (Errno::ACCES | Errno::PERM)) => {
            Err(failed(error).hint("the server is another user's; PYRT_RUN names a folder of your own"))
        }
        Err(error @ Errno::NAMETOOLONG) => Err(failed(error).hint("PYRT_RUN names another folder")),
        Err(error) => Err(failed(error)),
    }
}

/// The first descriptor of this process. The kernel gives it the lowest number that is free: if that is a standard
/// stream's, the caller has started us without.
fn first_socket() -> sys::Result<Owned> {
    let socket = sys::socket()?;
    if socket.fd() > 2 {
        return Ok(socket);
    }
    drop(socket);
    sys::open_missing_stdio();
    sys::socket()
}

fn lock(path: &[u8]) -> Result<Owned, Failure> {
    let flags = libc::O_CREAT | libc::O_RDWR | libc::O_NOFOLLOW;
    let file = sys::open(&terminated(path), flags, 0o600);
    file.and_then(|file| sys::lock(file.fd()).map(|()| file))
        .map_err(|error| Failure::of(&format!("locking {}", shown(path)), error))
}

fn start(given: Given<'_>) -> Result<(), Failure> {
    let python = python(given)?;
    let (said, announcement) =
        sys::pipe().map_err(|error| Failure::of("making a pipe for the server's first words", error))?;
    spawn(&python, given, announcement).map_err(|error| {
        Failure::of(&format!("starting {}", shown(&python)), error)
            .hint("set PYRT_PYTHON to the Python in which pyrt is installed")
    })?;
    let text = read_all(&said).map_err(|error| Failure::of("waiting for the server", error))?;
    let text = String::from_utf8_lossy(&text);
    if text.lines().next_back() == Some(READY) {
        return Ok(());
    }
    Err(explain(text.trim_end(), &python))
}

fn read_all(pipe: &Owned) -> sys::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        match sys::read_behind(pipe.fd(), &mut bytes, 4096) {
            Ok(0) => return Ok(bytes),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// The server's own sentence if it got as far as one, else all that it said.
fn explain(said: &str, python: &[u8]) -> Failure {
    if said.contains("No module named pyrt") {
        return Failure::new(format!("{} has no pyrt", shown(python)))
            .hint("set PYRT_PYTHON to the Python in which pyrt is installed");
    }
    match said.strip_prefix("pyrt: ") {
        Some(sentence) => Failure::new(sentence),
        None if said.is_empty() => Failure::new(format!("{} ended without a word", shown(python))),
        None => Failure::new(format!("the server did not start; it said:\n{said}")),
    }
}

/// Runs the server as nobody's child, in a session of its own, with no descriptor of ours but the pipe.
///
/// ```text
/// client                    child                  the server to be
///    | ------- fork ---------> | ------ fork --------> |
///    | <----- exit status ---- .                       |  execve closes `failed`; if there is none it says why
///    | <---------------------------- failed: errno --- |
/// ```
fn spawn(python: &[u8], given: Given<'_>, announcement: Owned) -> sys::Result<()> {
    let (failed, failure) = sys::pipe()?;
    let child = sys::fork()?;
    if child == 0 {
        let Errno(number) = become_nobodys(&announcement).err().unwrap_or_else(|| {
            let inherited: Vec<&CStr> =
                given.variables().filter(|(name, _)| is_inherited(name)).map(|(_, entry)| entry).collect();
            let background = Given { arguments: &[c"serve", c"--background"], environment: &inherited };
            execute(python, background)
        });
        let _ = sys::write(failure.fd(), &number.to_ne_bytes());
        sys::exit(1);
    }
    drop((failure, announcement));
    let number = read_all(&failed)?;
    sys::wait(child)?;
    number.first_chunk().map_or(Ok(()), |number| Err(Errno(c_int::from_ne_bytes(*number))))
}

/// In the child: leaves session, parent, folder and descriptors behind.
fn become_nobodys(announcement: &Owned) -> sys::Result<()> {
    sys::new_session()?;
    if sys::fork()? != 0 {
        sys::exit(0);
    }
    let null = sys::open(c"/dev/null", libc::O_RDWR, 0)?;
    sys::duplicate_to(null.fd(), 0)?;
    sys::duplicate_to(announcement.fd(), 1)?;
    sys::duplicate_to(announcement.fd(), 2)?;
    sys::enter_folder(c"/")?;
    // Closed by exec, not here: a failed exec is reported through one of them.
    sys::close_on_exec_from(3)
}

fn is_inherited(name: &[u8]) -> bool {
    const PROXY: &[u8] = b"_proxy";
    let is_proxy = name.len() >= PROXY.len() && name[name.len() - PROXY.len()..].eq_ignore_ascii_case(PROXY);
    let is_known = INHERITED.contains(&name) || INHERITED_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    // What Python could not read as text it does not need.
    (is_known || is_proxy) && core::str::from_utf8(name).is_ok()
}

/// `pyrt serve`: this process becomes the server, in the foreground. Returns only if it can't.
pub fn become_server(given: Given<'_>) -> Failure {
    match python(given) {
        Ok(python) => {
            let error = execute(&python, Given { arguments: given.words(), ..given });
            Failure::of(&format!("executing {}", shown(&python)), error)
        }
        Err(failure) => failure,
    }
}

/// Becomes `python -m pyrt` with these arguments; returns why it could not.
fn execute(python: &[u8], given: Given<'_>) -> Errno {
    // Whoever started us may have had a reason to block signals; the server has none.
    sys::mask(libc::SIG_SETMASK, 0);
    let program = terminated(python);
    let words = [program.as_c_str(), c"-m", c"pyrt"];
    let arguments = pointers(words.iter().chain(given.arguments));
    let environment = pointers(given.environment.iter());
    let mut why = Errno::NOENT;
    for path in candidates(python, given) {
        match sys::execute(&path, &arguments, &environment) {
            // One that may not be executed is more worth telling of than one that is not there.
            Errno::NOENT | Errno::NOTDIR if why == Errno::ACCES => {}
            error @ (Errno::ACCES | Errno::NOENT | Errno::NOTDIR) => why = error,
            error => return error,
        }
    }
    why
}

/// Where a program is looked for, as execvp(3) has it: a name without a folder, along $PATH.
fn candidates(program: &[u8], given: Given<'_>) -> Vec<CString> {
    if program.contains(&b'/') {
        return [terminated(program)].into();
    }
    folders_of_path(given).map(|folder| terminated(&join(folder, program))).collect()
}

fn folders_of_path<'a>(given: Given<'a>) -> impl Iterator<Item = &'a [u8]> {
    given.variable("PATH").into_iter().flat_map(|path| path.split(|byte| *byte == b':'))
}

/// As execve(2) wants them.
fn pointers<'a>(texts: impl Iterator<Item = &'a &'a CStr>) -> Vec<*const c_char> {
    texts.map(|text| text.as_ptr()).chain([ptr::null()]).collect()
}

/// $PYRT_PYTHON, else the one in whose `bin` this program was installed, else the first on $PATH.
fn python(given: Given<'_>) -> Result<Vec<u8>, Failure> {
    if let Some(python) = given.variable("PYRT_PYTHON") {
        return Ok(python.to_vec());
    }
    let mut place = [0; libc::PATH_MAX as usize];
    let own = sys::read_link(c"/proc/self/exe", &mut place).ok().and_then(folder_of);
    own.into_iter()
        .chain(folders_of_path(given))
        .map(|folder| join(folder, b"python3"))
        .find(|python| is_executable(python))
        .ok_or_else(|| {
            Failure::new("there is no python3").hint("set PYRT_PYTHON to the Python in which pyrt is installed")
        })
}

/// The one that a file is in.
fn folder_of(path: &[u8]) -> Option<&[u8]> {
    let slash = path.iter().rposition(|byte| *byte == b'/')?;
    Some(&path[..slash.max(1)])
}

fn is_executable(path: &[u8]) -> bool {
    let is_file = |mode: u32| mode & libc::S_IFMT == libc::S_IFREG && mode & 0o111 != 0;
    sys::stat(&terminated(path)).is_ok_and(|facts| is_file(facts.st_mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_the_first_caller_do_not_reach_the_server() {
        assert!(is_inherited(b"PYRT_ROOT"));
        assert!(is_inherited(b"https_proxy") && is_inherited(b"NO_PROXY"));
        assert!(!is_inherited(b"AWS_SECRET_ACCESS_KEY"));
        assert!(!is_inherited(b"PYRT_\xff"));
    }

    #[test]
    fn a_server_that_dies_is_quoted() {
        let python = b"/opt/python3";
        assert_eq!(explain("pyrt: the state folder is full", python).sentence, "the state folder is full");
        assert!(explain("/opt/python3: No module named pyrt", python).hint.is_some());
        assert!(explain("Traceback ...", python).sentence.ends_with("Traceback ..."));
    }

    #[test]
    fn a_python_that_is_a_mere_name_is_looked_for_along_the_path() {
        let given = Given { arguments: &[], environment: &[c"PATH=/usr/bin:/bin/:"] };
        let found = |program: &[u8]| candidates(program, given);
        assert_eq!(found(b"python3"), [c"/usr/bin/python3", c"/bin/python3", c"python3"].map(CString::from));
        assert_eq!(found(b"./python3"), [CString::from(c"./python3")]);
    }

    #[test]
    fn a_program_at_the_root_is_in_a_folder_too() {
        assert_eq!(folder_of(b"/opt/bin/pyrt"), Some(b"/opt/bin".as_slice()));
        assert_eq!(folder_of(b"/pyrt"), Some(b"/".as_slice()));
    }
}
