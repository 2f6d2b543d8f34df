//! An OCI runtime specification becomes a plan.
//!
//! First everything is read, checked and opened, which may fail and then says which field is to blame. Then the
//! operations are written, which can't fail. All choices (user namespace or not, cgroup version, terminal) are made
//! here, once; the executor knows none of them.
//!
//! ```text
//! keeper  cgroups and limits -> /dev, files -> Clone -> id maps, binds -> Release
//!         -> root -> limits of the child -> Release
//! child   cgroups -> namespaces, loopback, names, proc, sysfs   (while the keeper works)
//!         AwaitKeeper -> root of the user namespace -> /dev, /proc, /sys with all below, hidden paths   (the same)
//!         AwaitKeeper -> PivotRoot -> mounts -> stdio -> read-only root -> ids -> rights -> Exec
//! ```

mod agent;
mod capabilities;
mod cgroups;
mod clocks;
mod container;
mod dev;
mod device_rules;
mod error;
mod hidden;
mod hooks;
mod identity;
mod ids;
mod join;
mod lifecycle;
mod limits;
mod mounts;
mod names;
mod namespaces;
mod net_devices;
mod opened;
mod options;
mod paths;
mod rlimits;
mod rootfs;
mod scheduling;
mod start;
mod sysctl;
mod template;

use std::os::fd::OwnedFd;

use crate::host::{Host, OLDEST_KERNEL};
use crate::plan::{MAX_OPS, Op};
use crate::seccomp;
use crate::spec::{Linux, Process, Resources, Spec};

pub use crate::json::UNKNOWN_FIELD;
pub use capabilities::names as capability_names;
pub use cgroups::{Directory, directories, limits as cgroup_limits};
pub use error::{Blame, Cause, Error, Result, describe};
pub use ids::{UserNamespace, user_namespace};
pub use start::{File, Lifecycle as CreatedFirst, Rootfs as Layers, Start, Upper};
pub use template::{Sample, Template};

pub(crate) use rlimits::limit_name;

use cgroups::Placement;
use container::Parts;
use identity::Identity;
use ids::Ids;
use lifecycle::Lifecycle;
use namespaces::Namespaces;
use opened::{Opened, Writer};

/// A plan with what it needs opened.
#[derive(Debug)]
pub struct Compiled {
    /// See [`crate::plan`].
    pub bytes: Vec<u8>,
    /// For the slots from [`crate::plan::FIRST_OPENED`] on.
    pub descriptors: Vec<OwnedFd>,
    /// What sentences call each slot; the index is the slot's.
    pub names: Vec<String>,
    /// How the descriptors are opened for another container of the same specification, if all can be.
    again: Option<Vec<opened::Again>>,
}

/// Writes the command of an OCI process object for a container that waits and may be given another: see
/// [`crate::protocol::stdio`].
pub fn compile_command(process: &[u8]) -> Result<Vec<u8>> {
    identity::command(&error::parse(process, "process")?)
}

/// Of a container that is created without a process. It waits, and can't be started.
const NOTHING: &[u8] = br#"{ "user": { "uid": 0, "gid": 0 }, "cwd": "/", "args": ["/"] }"#;

/// Reads the bytes of config.json.
pub fn read(spec: &[u8]) -> Result<Spec<'_>> {
    error::parse(spec, "")
}

/// Reads the bytes of a document like config.json's `process`.
pub fn read_process(process: &[u8]) -> Result<Process<'_>> {
    error::parse(process, "process")
}

/// Reads the bytes of a document like config.json's `linux.resources`.
pub fn read_resources(resources: &[u8]) -> Result<Resources<'_>> {
    error::parse(resources, "linux.resources")
}

/// The flags that a container's process is cloned with, for whoever has that begun while the plan is compiled
/// ([`crate::execute::Ahead`]); `None` if it joins a namespace.
pub fn clone_flags(spec: &Spec<'_>) -> Option<u64> {
    Namespaces::all_new(&spec.linux).map(|namespaces| namespaces.clone_flags())
}

/// Writes the plan of a new container: the bytes of config.json and of the start document.
pub fn compile(spec: &[u8], start: &[u8], host: &Host) -> Result<Compiled> {
    compile_spec(&read(spec)?, start, host)
}

/// The same of a config.json that has been read.
pub fn compile_spec(spec: &Spec<'_>, start: &[u8], host: &Host) -> Result<Compiled> {
    let start = Start::parse(start)?;
    check_version(spec)?;
    host.check_kernel(OLDEST_KERNEL, "a container")?;
    let nothing;
    let process = match &spec.process {
        Some(process) => process,
        // config.md, "Process": required when the container is started.
        None if start.waits() => {
            nothing = read_process(NOTHING)?;
            &nothing
        }
        None => return Err(Error::spec("process", "missing")),
    };
    let mut opened = Opened::new();
    let namespaces = Namespaces::open(&spec.linux, &mut opened)?;
    let ids = Ids::of(&spec.linux, &namespaces, &opened)?;
    let parts = Parts::open(spec, process, &start, &namespaces, &ids, host, &mut opened)?;
    let mut writer = opened.into_writer()?;
    let handed = parts.write_keeper(&mut writer);
    parts.write_child(handed, &mut writer);
    finish(writer)
}

/// Writes the plan of one more process in a running container: its own specification, the process, the start
/// document, and a pidfd of its PID 1.
pub fn compile_exec(spec: &[u8], process: &[u8], start: &[u8], pidfd: OwnedFd, host: &Host) -> Result<Compiled> {
    let spec: Spec<'_> = error::parse(spec, "")?;
    let process = read_process(process)?;
    let start = Start::parse(start)?;
    let mut opened = Opened::new();
    let first = opened.add(pidfd, "the container's first process");
    let root = start.open_root(&mut opened)?;
    let namespaces = Namespaces::of_container(&spec.linux, first)?;
    let ids = Ids::of(&spec.linux, &namespaces, &opened)?;
    let placement = cgroups::open_existing(&spec.linux, &start, host, &mut opened)?;
    let identity = Identity::of(&process, "process", &ids, &start, host)?;
    let identity = identity.in_container(&spec.linux, false)?.with_agent(&spec, &start, &mut opened)?;
    let identity = identity.with_lifecycle(Lifecycle::open(&start, Vec::new(), &mut opened)?);
    let mut writer = opened.into_writer()?;
    join::write((&namespaces, &ids), (first, root), &placement, &identity, &start, &mut writer);
    finish(writer)
}

fn finish(writer: Writer) -> Result<Compiled> {
    let Writer { plan, descriptors, names, again } = writer;
    // A plan that is too long is found here and not by the keeper.
    if !plan.fits() {
        return Err(Error::spec("", format!("more than {MAX_OPS} steps or a slot too many")));
    }
    Ok(Compiled { bytes: plan.finish(), descriptors, names, again })
}

fn check_version(spec: &Spec<'_>) -> Result<()> {
    // SemVer 2.0.0: three numbers, then perhaps a pre-release and a build.
    let version = spec.oci_version.split(['-', '+']).next().unwrap_or_default();
    let numbers: Option<Vec<u32>> = version.split('.').map(|number| number.parse().ok()).collect();
    if matches!(numbers.as_deref(), Some([1, _, _])) {
        return Ok(());
    }
    Err(Error::spec("ociVersion", format!("{:?} is no version that pyrt knows", &*spec.oci_version))
        .hint("it knows 1.0 to 1.3"))
}

fn filter(linux: &Linux<'_>) -> Result<Option<seccomp::Filter>> {
    let Some(json) = linux.seccomp else { return Ok(None) };
    seccomp::compile(json.get()).map(Some).map_err(|error| match error {
        seccomp::Error::Refused { field, problem } => Error::spec(field, problem),
        error => Error::spec("linux.seccomp", error.to_string()),
    })
}

fn write_placement(placement: &Placement, writer: &mut Writer) {
    placement.tasks.iter().for_each(|&tasks| writer.plan.child(Op::JoinCgroup { tasks }));
}

fn write_keyring(start: &Start<'_>, writer: &mut Writer) {
    if start.lifecycle.as_ref().is_some_and(|lifecycle| lifecycle.no_new_keyring) {
        return;
    }
    let id = &*start.id;
    writer.plan.child(Op::JoinKeyring { name: &paths::c(&format!("_ses.{id}")) });
}

/// For [`crate::host`], which opens the hierarchies' roots.
pub(crate) fn open_path(path: &str) -> std::result::Result<OwnedFd, crate::sys::Errno> {
    opened::open(path, libc::O_PATH | libc::O_DIRECTORY).map_err(|failure| failure.0)
}
