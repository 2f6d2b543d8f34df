//! A container on its way: create, start, and what it is doing.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs;
use std::io::Write as _;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use pyrt_container::compile::{self, Compiled};
use pyrt_container::execute::{self, Ahead, Failed, Groups, Meanwhile, Running};
use pyrt_container::explain;
use pyrt_container::host::{Host, Layout};
use pyrt_container::plan::{Part, Plan};
use pyrt_container::protocol::warning;
use pyrt_container::spec::{Linux, Namespace, NamespaceKind, Process, Spec};
use pyrt_container::sys;
use serde_json::json;

use crate::annals::{Annals, Cgroup, Record};
use crate::arguments::Global;
use crate::cgroups;
use crate::clock;
use crate::config::{self, Document};
use crate::console::{self, Terminal};
use crate::cover;
use crate::error::{Error, Result};
use crate::foreground;
use crate::hooks;
use crate::plain;
use crate::process;
use crate::sealed;
use crate::sockets::Sockets;
use crate::systemd::{Manager, Unit};

/// What `create` and `run` are asked for.
#[derive(Debug)]
pub struct Wish<'a> {
    /// The container.
    pub id: &'a str,
    /// Its directory; the working directory if absent.
    pub bundle: Option<&'a str>,
    /// Takes the terminal.
    pub console_socket: Option<&'a str>,
    /// Takes a pidfd of the process.
    pub pidfd_socket: Option<&'a str>,
    /// Takes the process id.
    pub pid_file: Option<PathBuf>,
    /// Change the root by chroot(2).
    pub no_pivot: bool,
    /// Leave the session keyring.
    pub no_new_keyring: bool,
    /// Descriptors from 3 on that are the container's, sockets first.
    pub preserve: u32,
    /// Sockets among them that whoever has started us has opened for the container (sd_listen_fds(3)).
    pub sockets: Sockets,
    /// The command waits for the process.
    pub stays: bool,
}

/// A container that waits for its start, or runs at once.
#[derive(Debug)]
pub struct Created {
    /// Locked.
    pub annals: Annals,
    /// As it is written down.
    pub record: Record,
    /// Of the file that was read.
    pub config: &'static [u8],
    /// Its process.
    pub running: Running,
}

/// The states of the specification, and one of runc's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Not yet whole, or left so.
    Creating,
    /// Waits for its start.
    Created,
    /// Runs.
    Running,
    /// Frozen.
    Paused,
    /// Its process has ended.
    Stopped,
}

impl Status {
    /// As it is printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }

    /// What a container is doing; `folder` is its state directory.
    pub fn of(record: &Record, folder: &Path) -> Self {
        match record {
            Record { pid: 0, .. } => Self::Creating,
            Record { pid, start_time, .. } if !process::is_alive(*pid, *start_time) => Self::Stopped,
            // Also one that waits for its start, which a frozen process would never end.
            _ if cgroups::is_frozen(&record.cgroups) => Self::Paused,
            _ if folder.join(RELEASE).exists() => Self::Created,
            _ => Self::Running,
        }
    }
}

const RELEASE: &str = "release";
const OUTCOME: &str = "outcome";
const PLAN: &str = "plan";
/// As it was when the container was created.
pub const CONFIG: &str = "config.json";

/// What a bundle asks for, as this machine takes it.
#[derive(Debug)]
pub struct Order {
    /// Absolute path.
    pub bundle: PathBuf,
    /// config.json.
    pub document: Document,
    /// Whom systemd makes the groups for.
    pub unit: Option<Unit>,
    /// This machine.
    pub host: Host,
}

/// Reads the bundle, which becomes the working directory.
pub fn read(global: &Global, wish: &Wish<'_>) -> Result<Order> {
    let (bundle, config) = config::open(wish.bundle)?;
    let mut document = wish.sockets.pass_on(config::known(config, &global.log)?)?;
    let is_plain = plain::is_plain(global.uid);
    if is_plain {
        plain::enter(&document.spec)?;
    }
    let host = Host::probe()?;
    if is_plain {
        let named = document.spec.linux.cgroups_path.as_deref();
        let group = if global.systemd { None } else { plain::own_group(named, wish.id, &host) };
        document = Document::read(config::in_own_namespace(document.bytes, group)?)?;
    }
    if host.nested {
        document = config::with_bound_devices(document)?;
    }
    if !global.systemd {
        return Ok(Order { bundle, document, unit: None, host });
    }
    let (document, unit) = config::in_scope(&document, wish.id, Manager::find(global.uid, &host)?)?;
    Ok(Order { bundle, document, unit: Some(unit), host })
}

/// Whether nobody looks at it before it runs.
fn is_at_once(spec: &Spec<'_>, wish: &Wish<'_>) -> bool {
    wish.stays && spec.hooks.is_none()
}

/// Makes a container up to the point where its process waits.
pub fn create(global: &Global, wish: &Wish<'_>) -> Result<Created> {
    // First the descriptors of the caller go, then ours come.
    close_others(wish.preserve)?;
    sealed::ensure()?;
    let order = read(global, wish)?;
    let ahead = begin_child(&order, wish);
    let Order { bundle, document, unit, host } = order;
    let record = Record { unit, ..begin(global, &document.spec, &bundle, wish, &host)? };
    let annals = Annals::make(&global.root, wish.id)?;
    match make(&annals, record.clone(), &document, ahead, wish, &host) {
        Ok((record, running)) => {
            warn_of_refusals(global, running.warnings);
            Ok(Created { annals, record, config: document.bytes, running })
        }
        Err(error) => {
            // Nothing of it has come to be, so nothing is to be remembered.
            annals.remove()?;
            if error.is_of_hook() {
                // runtime.md, "Lifecycle", 3 to 5: it ends as a container does.
                hooks::run_poststop(&document.spec, &record, &global.log);
            }
            Err(error)
        }
    }
}

/// The process of a container that is made and started in one, whose namespaces take the kernel as long as we need for all
/// that it is to be. Signals are blocked for its sake: what is sent to us as soon as it is seen has to reach it, and not to
/// end it.
fn begin_child(order: &Order, wish: &Wish<'_>) -> Option<Ahead> {
    let Order { document: Document { spec, .. }, host, unit, .. } = order;
    if !is_at_once(spec, wish) {
        return None;
    }
    foreground::block_signals();
    // On version 2 it is born in its group, and so it is in one of systemd's, which is not there yet.
    let is_born_there = host.cgroups.layout() == Layout::V2 || unit.is_some();
    let flags = compile::clone_flags(spec).filter(|_| !is_born_there)?;
    Ahead::begin(flags).ok()?
}

/// Everything that is open and not the container's: a directory of the host would be a way out (CVE-2024-21626).
pub fn close_others(preserve: u32) -> Result<()> {
    let handed = 3..i32::try_from(preserve).map_or(i32::MAX, |count| count.saturating_add(3));
    if let Some(fd) = handed.clone().find(|&fd| sys::stat_at(fd, c"").is_err()) {
        return Err(Error::new(format!("--preserve-fds, LISTEN_FDS: descriptor {fd} is not open")));
    }
    sys::umask(0o022);
    // SAFETY: the default disposition installs no code; ignored, it would keep us from learning how a child has ended.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
    sys::close_range(3 + preserve, u32::MAX).map_err(|errno| Error::call("closing descriptors", errno))
}

/// The record of a container that is going to be.
pub fn begin(global: &Global, spec: &Spec<'_>, bundle: &Path, wish: &Wish<'_>, host: &Host) -> Result<Record> {
    let terminal = spec.process.as_ref().is_some_and(|process| process.terminal);
    Terminal::choose(terminal, wish.console_socket, wish.stays)?;
    if spec.annotations.iter().any(|(key, _)| key.is_empty()) {
        return Err(Error::new("annotations: a key is empty"));
    }
    if let Some(process) = &spec.process {
        warn_of_capabilities(global, process, &spec.linux, host);
    }
    let cgroups = compile::directories(spec, wish.id, host)?;
    let cgroup = |directory: compile::Directory| Cgroup {
        controllers: directory.controllers,
        path: PathBuf::from(directory.path),
    };
    let root = spec.root.as_ref().map(|root| root.path.to_string()).unwrap_or_default();
    Ok(Record {
        oci_version: spec.oci_version.to_string(),
        id: wish.id.to_owned(),
        pid: 0,
        start_time: 0,
        bundle: bundle.to_owned(),
        rootfs: bundle.join(root),
        created: clock::now(),
        uid: global.uid,
        annotations: spec.annotations.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
        cgroups: cgroups.into_iter().map(cgroup).collect(),
        root_mount: None,
        unit: None,
        has_hooks: spec.hooks.is_some(),
        has_process: spec.process.is_some(),
        has_pid_namespace: spec.linux.namespaces.iter().any(is_own_pid_namespace),
        at_once: is_at_once(spec, wish),
    })
}

fn is_own_pid_namespace(namespace: &Namespace<'_>) -> bool {
    namespace.kind == NamespaceKind::Pid && namespace.path.as_deref().is_none_or(str::is_empty)
}

/// config.md, "Linux Process": what no kernel knows and what can't be granted is worth a warning.
pub fn warn_of_capabilities(global: &Global, process: &Process<'_>, linux: &Linux<'_>, host: &Host) {
    let Some(sets) = &process.capabilities else { return };
    let is_new_user = linux.namespaces.iter().any(|namespace| namespace.kind == NamespaceKind::User);
    let all = [&sets.bounding, &sets.effective, &sets.inheritable, &sets.permitted, &sets.ambient];
    let asked: BTreeSet<&str> = all.into_iter().flatten().map(|name| &**name).collect();
    let is_in = |set: u64, name: &str| compile::capability_names(set).any(|known| known == name);
    let (known, unknown): (Vec<&str>, Vec<&str>) = asked.into_iter().partition(|name| is_in(u64::MAX, name));
    let missing = known.into_iter().filter(|name| !is_new_user && !is_in(host.capabilities, name)).collect();
    for (names, why) in [(unknown, "there is no"), (missing, "this process itself has no")] {
        let names: Vec<&str> = names;
        if !names.is_empty() {
            global.log.warn(&Error::new(format!("process.capabilities: {why} {}", names.join(" "))));
        }
    }
}

fn warn_of_refusals(global: &Global, warnings: u32) {
    if warnings & warning::OOM_SCORE != 0 {
        global.log.warn(&Error::new("process.oomScoreAdj: lowering it needs CAP_SYS_RESOURCE, it stays as it was"));
    }
    if warnings & warning::RESOURCE_LIMIT != 0 {
        global
            .log
            .warn(&Error::new("process.rlimits: raising one needs CAP_SYS_RESOURCE, it is as high as the host's"));
    }
}

fn make(
    annals: &Annals,
    record: Record,
    document: &Document,
    ahead: Option<Ahead>,
    wish: &Wish<'_>,
    host: &Host,
) -> Result<(Record, Running)> {
    if record.unit.is_none() {
        return make_in_cgroups(annals, record, document, ahead, wish, host);
    }
    // From here on there may be something to clean up, should we be killed.
    annals.write(CONFIG, document.bytes)?;
    annals.record(&record)?;
    in_scope(record.unit.clone(), wish.id, document.bytes, host, || {
        make_in_cgroups(annals, record, document, ahead, wish, host)
    })
}

/// Does `work` while systemd has made the unit, if there is one, and nobody else is in it; undone if the work fails.
pub fn in_scope<T>(
    unit: Option<Unit>,
    id: &str,
    config: &[u8],
    host: &Host,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let Some(unit) = unit else { return work() };
    let limits = compile::cgroup_limits(&config::resources(config), host)?;
    // Held until the container's process is there.
    let made = unit.make(id, &limits).and_then(|scope| {
        let _visit = scope.visit(host)?;
        work()
    });
    if made.is_err() {
        let _ = unit.stop();
    }
    made
}

fn make_in_cgroups(
    annals: &Annals,
    mut record: Record,
    document: &Document,
    ahead: Option<Ahead>,
    wish: &Wish<'_>,
    host: &Host,
) -> Result<(Record, Running)> {
    annals.write(CONFIG, document.bytes)?;
    let mut lifecycle = json!({
        "preserve": wish.preserve,
        "no_new_keyring": wish.no_new_keyring,
        "no_pivot": wish.no_pivot,
        "spare": annals.path(CONFIG),
    });
    if !record.at_once {
        annals.make_fifo(RELEASE)?;
        annals.make_fifo(OUTCOME)?;
        lifecycle["release"] = json!(annals.path(RELEASE));
        lifecycle["outcome"] = json!(annals.path(OUTCOME));
    }
    let start = json!({ "id": wish.id, "bundle": record.bundle, "lifecycle": lifecycle });
    let compiled = compile::compile_spec(&document.spec, start.to_string().as_bytes(), host)?;
    if !record.at_once {
        annals.write(PLAN, &compiled.bytes)?;
    }
    record.root_mount = cover::of(&document.spec, &compiled);
    // From here on there may be something to clean up, should we be killed.
    annals.record(&record)?;
    let mut noted = Ok(());
    let executed = execute(&compiled, ahead, &mut |pid| noted = note(annals, &mut record, pid));
    let made = executed.and_then(|mut running| match noted.and_then(|()| settle(wish, &mut running)) {
        Ok(()) => Ok(running),
        Err(error) => {
            running.abandon();
            Err(error)
        }
    });
    if made.is_err() {
        cover::remove(&record)?;
    }
    made.map(|running| (record, running))
}

/// Walks a plan with our own standard descriptors; `ahead` and `meanwhile`: see [`execute::start`].
pub fn execute(compiled: &Compiled, ahead: Option<Ahead>, meanwhile: &mut Meanwhile<'_>) -> Result<Running> {
    walk(compiled, |plan, descriptors| execute::start(plan, descriptors, ahead, meanwhile))
}

/// Makes a container's groups alone.
pub fn make_groups(compiled: &Compiled) -> Result<Groups> {
    walk(compiled, execute::make_groups)
}

fn walk<T>(compiled: &Compiled, how: impl FnOnce(&Plan<'_>, &[i32]) -> std::result::Result<T, Failed>) -> Result<T> {
    let plan = Plan::parse(&compiled.bytes).map_err(|malformed| Error::new(malformed.to_string()))?;
    let opened = compiled.descriptors.iter().map(AsRawFd::as_raw_fd);
    let descriptors: Vec<i32> = [0, 1, 2].into_iter().chain(opened).collect();
    how(&plan, &descriptors).map_err(|Failed { part, index, errno, evidence }| {
        let failure = explain::failure(&plan, &compiled.names, part, index, errno.0, &evidence);
        Error::start(failure, &command_of(&plan))
    })
}

fn command_of(plan: &Plan<'_>) -> String {
    use pyrt_container::plan::Op;
    let command = plan.ops(Part::Child).find_map(|op| match op {
        Op::Exec { arguments, .. } => arguments.iter().next(),
        _ => None,
    });
    command.map(|command| command.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Writes down whose process it is, which has yet to become it.
fn note(annals: &Annals, record: &mut Record, pid: i32) -> Result<()> {
    record.pid = pid;
    record.start_time = process::look(pid).map_or(0, |seen| seen.start_time);
    // A plain user may have none.
    record.cgroups.retain(|cgroup| cgroup.path.is_dir());
    annals.record(record)
}

/// The process waits, or runs: hands its terminal out and says which it is, then lets it live without us.
fn settle(wish: &Wish<'_>, running: &mut Running) -> Result<()> {
    if let (Some(socket), Some(master)) = (wish.console_socket, running.terminal) {
        console::send(socket, master)?;
        sys::close(master);
        running.terminal = None;
    }
    if let Some(path) = &wish.pid_file {
        write_pid(path, running.pid)?;
    }
    if let Some(socket) = wish.pidfd_socket {
        console::send_pidfd(socket, "standard", running.pidfd)?;
    }
    running.part().map_err(|errno| Error::call("letting the container's process go", errno))
}

/// A whole number or no file: engines look while we write.
pub fn write_pid(path: &Path, pid: i32) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let fresh = path.with_file_name(format!(".{name}.new"));
    let written = fs::write(&fresh, pid.to_string()).and_then(|()| fs::rename(&fresh, path));
    written.map_err(|error| Error::file("writing", path, &error))
}

/// Starts the process that waits, and runs the hooks that come after it.
pub fn start(annals: &Annals, record: &Record, config: &[u8]) -> Result<()> {
    if record.at_once {
        return Ok(());
    }
    if !record.has_process {
        return Err(Error::new("process: missing: there is nothing to start"));
    }
    let outcome = open(&annals.path(OUTCOME), libc::O_RDONLY | libc::O_NONBLOCK)?;
    let pidfd = process::open(record.pid).map_err(|errno| Error::call("starting the container's process", errno))?;
    release(annals)?;
    let readable = |fd: &OwnedFd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let mut entries = [readable(&outcome), readable(&pidfd)];
    // Until execve(2) closes the fifo's other end, the process has said what is wrong, or was killed.
    while entries.iter().all(|entry| entry.revents == 0) {
        sys::poll(&mut entries, -1).map_err(|errno| Error::call("waiting for the start", errno))?;
    }
    let mut word = vec![0; 16 * 1024];
    let length = sys::read(outcome.as_raw_fd(), &mut word).unwrap_or(0);
    if let Some((index, errno, evidence)) = execute::read_outcome(&word[..length]) {
        let bytes = annals.read(PLAN)?;
        let plan = Plan::parse(&bytes).map_err(|malformed| Error::new(malformed.to_string()))?;
        let failure = explain::failure(&plan, &[], Part::Child, index, errno.0, evidence);
        return Err(Error::start(failure, &command_of(&plan)));
    }
    if record.has_hooks { after_start(record, &compile::read(config)?) } else { Ok(()) }
}

/// Runs the hooks that come once the process runs.
pub fn after_start(record: &Record, spec: &Spec<'_>) -> Result<()> {
    let poststart = spec.hooks.as_ref().map(|hooks| hooks.poststart.as_slice()).unwrap_or_default();
    if let Err(error) = hooks::run(poststart, spec, record, "running") {
        // runtime.md, "Lifecycle", 9: the container is stopped, and the failure is an error.
        cgroups::signal(&record.cgroups, libc::SIGKILL)?;
        return Err(error);
    }
    Ok(())
}

fn release(annals: &Annals) -> Result<()> {
    let path = annals.path(RELEASE);
    let fifo = open(&path, libc::O_WRONLY | libc::O_NONBLOCK)?;
    // First the mark of a container that waits, so that none is started twice.
    fs::remove_file(&path).map_err(|error| Error::file("removing", &path, &error))?;
    sys::write(fifo.as_raw_fd(), b"!").map_err(|errno| Error::call("starting the container's process", errno))
}

/// open(2).
pub fn open(path: &Path, flags: i32) -> Result<OwnedFd> {
    let text = CString::new(path.as_os_str().as_bytes()).unwrap_or_default();
    let fd = sys::openat(libc::AT_FDCWD, &text, flags, 0)
        .map_err(|errno| Error::call(&format!("opening {}", path.display()), errno))?;
    // SAFETY: the call has just opened it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Prints a document and a line feed; a closed standard output is an error like any other.
pub fn print(document: &str) -> Result<()> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{document}").map_err(|error| Error::new(format!("writing to standard output: {error}")))
}
