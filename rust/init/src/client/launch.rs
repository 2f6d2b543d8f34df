//! Reaching the server, and starting one where none is.
//!
//! Many clients may find no server at once: they queue at a lock file, and whoever gets it first starts
//! one. The new server writes on a pipe until it listens, `ready` as its last line; whatever else it
//! wrote when the pipe ends is why it could not.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use pyrt_container::sys;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::pipe::PipeFlags;

use super::Failure;
use super::place::Place;

/// The last line of a server that listens.
const READY: &str = "ready";
/// A server outlives the shell that happened to start it, so it gets of that shell's environment only
/// what makes Python, the network and the folders work; each call brings the caller's own.
const INHERITED: [&str; 11] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "DOCKER_CONFIG",
    "REGISTRY_AUTH_FILE",
    "SSL_CERT_FILE",
];
/// See [`INHERITED`].
const INHERITED_PREFIXES: [&str; 4] = ["PYRT_", "PYTHON", "XDG_", "LC_"];

/// A connection to a server that is there or has just been started.
pub fn connect(place: &Place) -> Result<OwnedFd, Failure> {
    if let Some(socket) = dial(&place.socket())? {
        return Ok(socket);
    }
    place.prepare()?;
    let _turn = lock(&place.start_lock())?;
    if let Some(socket) = dial(&place.socket())? {
        return Ok(socket);
    }
    start()?;
    dial(&place.socket())?.ok_or_else(|| Failure::new("the server that was just started is gone again"))
}

/// A connected socket, or nothing if nobody listens there.
fn dial(path: &Path) -> Result<Option<OwnedFd>, Failure> {
    let failed = |error: Errno| Failure::new(format!("connecting to {}: {error}", path.display()));
    let address = SocketAddrUnix::new(path).map_err(|error| failed(error).hint("PYRT_RUN names another folder"))?;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(failed)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) => Ok(Some(socket)),
        Err(Errno::NOENT | Errno::CONNREFUSED) => Ok(None),
        Err(error @ (Errno::ACCESS | Errno::PERM)) => {
            Err(failed(error).hint("the server is another user's; PYRT_RUN names a folder of your own"))
        }
        Err(error) => Err(failed(error)),
    }
}

fn lock(path: &Path) -> Result<OwnedFd, Failure> {
    let failed = |error: Errno| Failure::new(format!("locking {}: {error}", path.display()));
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR).map_err(failed)?;
    rustix::fs::flock(&file, FlockOperation::LockExclusive).map_err(failed)?;
    Ok(file)
}

fn start() -> Result<(), Failure> {
    let python = python()?;
    let (said, announcement) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)
        .map_err(|error| Failure::new(format!("making a pipe for the server's first words: {error}")))?;
    spawn(&python, announcement)?;
    let mut text = String::new();
    File::from(said)
        .read_to_string(&mut text)
        .map_err(|error| Failure::new(format!("waiting for the server: {error}")))?;
    if text.lines().next_back() == Some(READY) {
        return Ok(());
    }
    Err(explain(text.trim_end(), &python))
}

/// The server's own sentence if it got as far as one, else all that it said.
fn explain(said: &str, python: &Path) -> Failure {
    if said.contains("No module named pyrt") {
        return Failure::new(format!("{} has no pyrt", python.display()))
            .hint("set PYRT_PYTHON to the Python in which pyrt is installed");
    }
    match said.strip_prefix("pyrt: ") {
        Some(sentence) => Failure::new(sentence),
        None if said.is_empty() => Failure::new(format!("{} ended without a word", python.display())),
        None => Failure::new(format!("the server did not start; it said:\n{said}")),
    }
}

/// Runs the server as nobody's child, in a session of its own, with no descriptor of ours but the pipe.
fn spawn(python: &Path, announcement: OwnedFd) -> Result<(), Failure> {
    let mut command = server_command(python, &[OsStr::new("serve"), OsStr::new("--background")]);
    let pipe = announcement.as_raw_fd();
    command.env_clear().envs(std::env::vars_os().filter(|(name, _)| is_inherited(name))).current_dir("/");
    // SAFETY: the closure makes plain system calls only, as a child between fork and exec has to.
    unsafe {
        command.pre_exec(move || {
            detach(pipe);
            Ok(())
        });
    }
    let mut child = command.spawn().map_err(|error| {
        Failure::new(format!("starting {}: {error}", python.display()))
            .hint("set PYRT_PYTHON to the Python in which pyrt is installed")
    })?;
    drop(announcement);
    // This one ends at once; the server is its child and init's heir.
    child.wait().map_err(|error| Failure::new(format!("starting the server: {error}")))?;
    Ok(())
}

/// In the child: leaves session, parent and descriptors behind.
fn detach(pipe: i32) {
    // SAFETY: none of these calls touches memory of ours; `pipe` is open, and the descriptors that are
    // overwritten or closed belong to a process that is about to execute another program.
    unsafe {
        libc::setsid();
        match libc::fork() {
            0 => {}
            -1 => libc::_exit(1),
            _ => libc::_exit(0),
        }
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
        libc::dup2(null, 0);
        libc::dup2(pipe, 1);
        libc::dup2(pipe, 2);
        // Closed by exec, not here: a failed exec is reported through one of them.
        let _ = sys::close_on_exec_from(3);
    }
}

fn is_inherited(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    INHERITED.contains(&name)
        || INHERITED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || name.to_ascii_lowercase().ends_with("_proxy")
}

fn server_command(python: &Path, arguments: &[impl AsRef<OsStr>]) -> Command {
    let mut command = Command::new(python);
    command.args(["-m", "pyrt"]).args(arguments);
    command
}

/// `pyrt serve`: this process becomes the server, in the foreground. Returns only if it can't.
pub fn become_server(arguments: &[OsString]) -> Failure {
    match python() {
        Ok(python) => {
            let error = server_command(&python, arguments).exec();
            Failure::new(format!("executing {}: {error}", python.display()))
        }
        Err(failure) => failure,
    }
}

/// $PYRT_PYTHON, else the one in whose `bin` this program was installed, else the first on $PATH.
fn python() -> Result<PathBuf, Failure> {
    if let Some(python) = std::env::var_os("PYRT_PYTHON").filter(|value| !value.is_empty()) {
        return Ok(python.into());
    }
    let own = std::env::current_exe().ok().and_then(|program| program.parent().map(Path::to_owned));
    let path = std::env::var_os("PATH").unwrap_or_default();
    own.into_iter()
        .chain(std::env::split_paths(&path))
        .map(|folder| folder.join("python3"))
        .find(|python| is_executable(python))
        .ok_or_else(|| {
            Failure::new("there is no python3").hint("set PYRT_PYTHON to the Python in which pyrt is installed")
        })
}

fn is_executable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|facts| facts.is_file() && facts.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn secrets_of_the_first_caller_do_not_reach_the_server() {
        assert!(is_inherited(OsStr::new("PYRT_ROOT")));
        assert!(is_inherited(OsStr::new("https_proxy")));
        assert!(!is_inherited(OsStr::new("AWS_SECRET_ACCESS_KEY")));
        assert!(!is_inherited(OsStr::from_bytes(b"PYRT_\xff")));
    }

    #[test]
    fn a_server_that_dies_is_quoted() {
        let python = Path::new("/opt/python3");
        assert_eq!(explain("pyrt: the state folder is full", python).sentence, "the state folder is full");
        assert!(explain("/opt/python3: No module named pyrt", python).hint.is_some());
        assert!(explain("Traceback ...", python).sentence.ends_with("Traceback ..."));
    }
}
