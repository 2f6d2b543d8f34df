//! The spawner: small, single-threaded, and therefore cheap and safe to fork, unlike the program that asks for containers.
//!
//! ```text
//! engine            spawner                ready keeper
//!   |                  | ------ fork ---------> |   waits on the engine's socket
//!   | Start ----------------------------------> |   takes the message: it is this container's keeper now
//!   |                  | <------ one byte ----- |
//!   |                  | ------ fork ---------> .   the next one, ready before it is asked for; once the container
//!   |                  |                        |   runs it clones a child of its own (see `foresight`)
//!   | end of file ---> |                            both end
//! ```

use pyrt_container::sys::{self, Errno, Fd};

use crate::foresight::Hints;
use crate::keeper;

/// Where the engine puts its socket.
const ENGINE: Fd = 3;

/// Runs until the engine closes its socket; the exit status is an error number.
pub fn main() -> u8 {
    match prepare().and_then(|()| serve()) {
        Ok(()) => 0,
        Err(Errno(number)) => u8::try_from(number).unwrap_or(125),
    }
}

/// Cuts the ties to the program that we were started from.
fn prepare() -> sys::Result<()> {
    // Started by hand it would fork one keeper after the other, none of which could hear anything.
    if sys::stat_at(ENGINE, c"")?.st_mode & libc::S_IFMT != libc::S_IFSOCK {
        return Err(Errno(libc::ENOTSOCK));
    }
    let null = sys::openat(libc::AT_FDCWD, c"/dev/null", libc::O_RDWR, 0)?;
    for number in 0..3 {
        sys::dup_to(null, number)?;
    }
    sys::close_range(ENGINE as u32 + 1, u32::MAX)?;
    sys::reset_signals();
    // Not the engine's: what is made for a container is to have the modes that are asked for.
    sys::umask(0o022);
    sys::ignore_signal(libc::SIGPIPE);
    // Keepers are reaped by the kernel.
    sys::ignore_signal(libc::SIGCHLD);
    // Not readable, not traceable: neither by what runs in a container nor through /proc (CVE-2016-9962).
    sys::prctl(libc::PR_SET_DUMPABLE, 0, 0)?;
    sys::prctl(libc::PR_SET_NAME, c"pyrt-spawner".as_ptr() as u64, 0)?;
    // Fails if we lead a session already, which is as good.
    let _ = sys::setsid();
    match small_mount_namespace() {
        // Without the right to it each container's own step will say what is missing.
        Err(Errno(libc::EPERM)) => {}
        other => other?,
    }
    // On the way there the host's / was open: no keeper may inherit that (CVE-2024-21626).
    sys::close_range(ENGINE as u32 + 1, u32::MAX)
}

/// A mount namespace of our own with nothing in it but /proc and /sys, so that copying it for a container
/// costs the same however many mounts the host has. Both have to be there, whole: the kernel lets a user
/// namespace mount an instance of its own only where it could see one already (fs/namespace.c, mount_too_revealing).
fn small_mount_namespace() -> sys::Result<()> {
    sys::unshare(libc::CLONE_NEWNS as u64)?;
    sys::set_propagation(libc::MS_PRIVATE | libc::MS_REC)?;
    let root = new_root()?;
    match enter(root) {
        // On an initramfs pivot_root(2) is refused; the copy of all mounts serves as well, only slower.
        Err(Errno(libc::EINVAL)) => sys::chdir(c"/"),
        other => other,
    }
}

fn new_root() -> sys::Result<Fd> {
    let context = sys::fsopen(c"tmpfs")?;
    sys::fsconfig_string(context, c"size", c"64k")?;
    sys::fsconfig_create(context)?;
    let root = sys::fsmount(context, sys::MOUNT_ATTR_NOSUID | sys::MOUNT_ATTR_NODEV | sys::MOUNT_ATTR_NOEXEC)?;
    sys::close(context);
    Ok(root)
}

fn enter(root: Fd) -> sys::Result<()> {
    let host = sys::openat(libc::AT_FDCWD, c"/", libc::O_PATH | libc::O_DIRECTORY, 0)?;
    let kept = [(c"/proc", c"proc"), (c"/sys", c"sys")].map(|(path, name)| {
        let tree = sys::openat(libc::AT_FDCWD, path, libc::O_PATH | libc::O_DIRECTORY, 0)
            .and_then(|place| sys::clone_tree(place, c"", false));
        (tree, name)
    });
    sys::move_mount(root, host)?;
    for (tree, name) in kept {
        sys::mkdirat(root, name, 0o555)?;
        let place = sys::openat(root, name, libc::O_PATH | libc::O_DIRECTORY, 0)?;
        sys::move_mount(tree?, place)?;
        sys::close(place);
    }
    sys::fchdir(root)?;
    sys::pivot_root_here()?;
    sys::detach_here()?;
    sys::chdir(c"/")
}

fn serve() -> sys::Result<()> {
    let hints = Hints::new()?;
    loop {
        let [taken, token] = sys::pipe()?;
        match sys::clone(0, None)? {
            sys::Side::Child => {
                sys::close(taken);
                keeper::main(ENGINE, token, hints)
            }
            sys::Side::Parent { pidfd, .. } => {
                sys::close(pidfd);
                sys::close(token);
                let engine_is_gone = wait_until_taken(taken)?;
                sys::close(taken);
                if engine_is_gone {
                    return Ok(());
                }
            }
        }
    }
}

/// True if the engine has closed its socket; false if the ready keeper has got work, or was killed.
fn wait_until_taken(taken: Fd) -> sys::Result<bool> {
    let mut entries = [
        libc::pollfd { fd: taken, events: libc::POLLIN, revents: 0 },
        libc::pollfd { fd: ENGINE, events: 0, revents: 0 },
    ];
    loop {
        sys::poll(&mut entries, -1)?;
        if entries[1].revents != 0 {
            return Ok(true);
        }
        if entries[0].revents != 0 {
            return Ok(false);
        }
    }
}
