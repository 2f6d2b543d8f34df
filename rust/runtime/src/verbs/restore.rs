//! `restore`: criu brings a container back, in groups that are made first, with their limits and rules about devices.
//!
//! ```text
//! restore                                criu                                  the container's processes
//!   | groups, limits, rules                .                                        .
//!   | ----------- request: dump's folder ->|                                        .
//!   |                                      | first process, its namespaces -------> |
//!   | <--------------- setup-namespaces -- |                                        .
//!   | hooks, loopback, kernel parameters   |                                        .
//!   |                                      | enters the group, mounts, memory ----> |
//!   | <------------------- post-restore -- |                                        | all waits
//!   | checks the group, writes it all down |                                        .
//!   |                                      | lets them go ------------------------> |
//!   | <------------------------- answer -- |
//! ```

use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use pyrt_container::compile::{self, Compiled};
use pyrt_container::host::{Host, Layout};
use pyrt_container::plan::{Op, Part, Plan};
use pyrt_container::spec::Spec;
use pyrt_container::sys;
use serde_json::{Value, json};

use crate::annals::{Annals, Record};
use crate::arguments::{Arguments, Global, Usage, switch, valued};
use crate::cgroups;
use crate::config::Document;
use crate::console;
use crate::container::{self, CONFIG, Order as Bundle, Wish};
use crate::criu::{Call, Kind, Message, Notice};
use crate::error::{Error, Result};
use crate::external::{self, Handed};
use crate::foreground;
use crate::hooks;
use crate::pages;
use crate::plain;
use crate::process;
use crate::sockets::Sockets;

use super::checkpoint::{
    AUTO_DEDUP, CGROUPS, EMPTY, FILE_LOCKS, IMAGES, KEEPS_NO_NEW_PRIVS, LAZY, Places, SHELL_JOB, SOCKETS, TCP, WORK,
    common_options, refuse_fields, refuse_flags,
};
use super::create::{BUNDLE, CONSOLE, NO_KEYRING, PID_FILE};
use super::{delete, file};

/// How it is called.
pub const USAGE: Usage = Usage {
    flags: &[
        BUNDLE,
        IMAGES,
        WORK,
        CONSOLE,
        PID_FILE,
        switch("detach", "do not wait for the end").or('d'),
        TCP,
        SOCKETS,
        SHELL_JOB,
        FILE_LOCKS,
        AUTO_DEDUP,
        CGROUPS,
        EMPTY,
        switch("no-pivot", "accepted, changes nothing"),
        NO_KEYRING,
        switch("no-subreaper", "accepted, changes nothing"),
        LAZY,
        valued("lsm-profile", "PROFILE", "not supported"),
        valued("lsm-mount-context", "CONTEXT", "not supported"),
    ],
    ..Usage::of(
        "restore",
        "bring a container back, through criu",
        "restore --detach --image-path /images/web --bundle /bundles/web web",
    )
};

/// The verb.
pub fn restore(global: &Global, arguments: &Arguments) -> Result<u8> {
    if plain::is_plain(global.uid) {
        return Err(Error::new("linux.namespaces: what is in a user namespace can't be restored"));
    }
    let stays = !arguments.has("detach");
    let wish = Wish {
        id: arguments.id()?,
        bundle: arguments.value("bundle"),
        console_socket: arguments.value("console-socket"),
        pidfd_socket: None,
        pid_file: file(arguments, "pid-file")?,
        no_pivot: false,
        no_new_keyring: arguments.has("no-new-keyring"),
        preserve: 0,
        sockets: Sockets::default(),
        stays,
    };
    container::close_others(wish.preserve)?;
    let request = Request::read(global, arguments)?;
    let Running { annals, pid, terminal } = make(global, &wish, &request)?;
    // Others may change it while it runs.
    drop(annals);
    if !stays {
        return Ok(0);
    }
    let code = foreground::attend(pid, terminal, foreground::hold_signals()?);
    delete::remove(global, wish.id, true)?;
    code
}

/// What criu is asked for, as far as the command line says it.
struct Request<'a> {
    call: Call<'a>,
    version: u32,
    places: Places,
    /// What the standard descriptors have been called.
    names: Vec<String>,
    options: Message,
}

impl<'a> Request<'a> {
    fn read(global: &'a Global, arguments: &Arguments) -> Result<Self> {
        refuse_flags(arguments)?;
        let call = Call { verb: "restore", program: &global.criu };
        let version = call.version()?;
        let places = Places::named(arguments, "restore.log")?;
        pages::check(&places.images)?;
        let mut options = common_options(arguments, version)?;
        // Our child and not criu's, so that whoever looks after us learns of its end.
        options.switch(26, true);
        let path = places.images.join(external::DESCRIPTORS);
        let listed =
            fs::read(&path).map_err(|error| Error::file("reading", &path, &error).hint("is it a checkpoint?"))?;
        let names = serde_json::from_slice::<Value>(&listed);
        let names = names.map_err(|error| Error::new(format!("{}: {error}", path.display())))?;
        let names = names.as_array().into_iter().flatten().map(|name| name.as_str().unwrap_or_default().to_owned());
        let names = names.collect();
        Ok(Self { call, version, places, names, options })
    }
}

/// A container that is back.
struct Running {
    annals: Annals,
    pid: i32,
    terminal: Option<RawFd>,
}

fn make(global: &Global, wish: &Wish<'_>, request: &Request<'_>) -> Result<Running> {
    let Bundle { bundle, document, unit, host } = container::read(global, wish)?;
    let Document { bytes: config, spec } = &document;
    refuse_fields(spec)?;
    let record = Record { unit, at_once: true, ..container::begin(global, spec, &bundle, wish, &host)? };
    let annals = Annals::make(&global.root, wish.id)?;
    let restored = || {
        // From here on there may be something to clean up, should we be killed.
        annals.write(CONFIG, config)?;
        annals.record(&record)?;
        container::in_scope(record.unit.clone(), wish.id, config, &host, || {
            let start = json!({ "id": wish.id, "bundle": bundle, "lifecycle": {} }).to_string();
            let compiled = compile::compile_spec(spec, start.as_bytes(), &host)?;
            let groups = container::make_groups(&compiled)?;
            let mut restore = Restore {
                wish,
                spec,
                config,
                annals: &annals,
                plan: &compiled,
                record: record.clone(),
                terminal: None,
                has_terminal: false,
            };
            let restored = restore.run(request, &host);
            if restored.is_err() {
                groups.remove();
            }
            restored.map(|()| (restore.record.pid, restore.terminal))
        })
    };
    match restored() {
        Ok((pid, terminal)) => Ok(Running { annals, pid, terminal }),
        Err(error) => {
            annals.remove()?;
            Err(error)
        }
    }
}

/// A container on its way back.
struct Restore<'a> {
    wish: &'a Wish<'a>,
    spec: &'a Spec<'a>,
    config: &'a [u8],
    annals: &'a Annals,
    /// That of a new container: what of it criu does not bring back is done by it.
    plan: &'a Compiled,
    record: Record,
    terminal: Option<RawFd>,
    has_terminal: bool,
}

impl Restore<'_> {
    fn run(&mut self, request: &Request<'_>, host: &Host) -> Result<()> {
        let Record { bundle, rootfs, .. } = &self.record;
        external::make_places(self.spec, bundle, rootfs)?;
        let mut options = request.options.clone();
        let mut handed = Handed::default();
        options.text(13, &rootfs.to_string_lossy());
        self.supply_groups(host, &mut options);
        external::supply_binds(self.spec, bundle, &mut options);
        external::supply_namespaces(self.spec, &mut handed, &mut options)?;
        handed.give_standard(&request.names, &mut options);
        let home = go_aside(rootfs)?;
        let _opened = request.places.open(&mut options)?;
        let mut criu = request.call.begin(&handed.descriptors, self.inheritance(request.version))?;
        drop(home);
        let restored = criu.call(Kind::Restore, &options, &request.places.log, &mut |notice| self.hear(notice));
        if restored.is_err() && self.record.pid > 0 {
            // Usually criu has done so.
            let _ = sys::kill(self.record.pid, libc::SIGKILL);
        }
        restored?;
        if let Some(path) = &self.wish.pid_file {
            container::write_pid(path, self.record.pid)?;
        }
        container::after_start(&self.record, self.spec)
    }

    /// What the container's processes get by inheriting it from criu.
    fn inheritance(&self, version: u32) -> impl FnMut() -> sys::Result<()> + Send + Sync + use<> {
        let is_wanted = self.spec.process.as_ref().is_some_and(|process| process.no_new_privileges);
        let no_new_privs = is_wanted && version < KEEPS_NO_NEW_PRIVS;
        let keyring = (!self.wish.no_new_keyring).then(|| c_string(format!("_ses.{}", self.wish.id)));
        move || {
            if let Some(name) = &keyring {
                sys::join_keyring(name)?;
            }
            if no_new_privs { sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0) } else { Ok(()) }
        }
    }

    /// The groups that were made take the places of those that were written down.
    fn supply_groups(&self, host: &Host, options: &mut Message) {
        let cgroups = &host.cgroups;
        for hierarchy in cgroups.v1.iter().chain(&cgroups.named).chain(&cgroups.v2) {
            let places = self.record.cgroups.iter().filter_map(|group| group.path.strip_prefix(&hierarchy.mount).ok());
            let is_unified = cgroups.layout() == Layout::V2;
            let subjects: Vec<&str> = hierarchy.subjects().filter(|_| !is_unified).collect();
            for place in places {
                let path = format!("/{}", place.display());
                let mut root = Message::default();
                root.text(2, &path);
                if subjects.is_empty() {
                    options.message(25, &root);
                }
                for subject in &subjects {
                    options.message(25, root.clone().text(1, subject));
                }
            }
        }
    }

    fn hear(&mut self, notice: &Notice<'_>) -> Result<()> {
        match notice.script {
            "orphan-pts-master" => self.take_terminal(notice.terminal),
            "setup-namespaces" => {
                self.record.pid = notice.pid;
                self.run_hooks()?;
                self.furnish_network()
            }
            "post-restore" => {
                self.record.pid = notice.pid;
                self.settle()
            }
            _ => Ok(()),
        }
    }

    fn take_terminal(&mut self, master: Option<RawFd>) -> Result<()> {
        let Some(master) = master else { return Ok(()) };
        self.has_terminal = true;
        if let Some(socket) = self.wish.console_socket {
            console::send(socket, master)?;
            sys::close(master);
        } else {
            self.terminal = Some(master);
        }
        Ok(())
    }

    /// Those of the start that an engine furnishes a net namespace by; what the others did inside is written down.
    fn run_hooks(&self) -> Result<()> {
        let Some(list) = &self.spec.hooks else { return Ok(()) };
        hooks::run(&list.prestart, self.spec, &self.record, "creating")?;
        hooks::run(&list.create_runtime, self.spec, &self.record, "creating")
    }

    /// criu leaves a new net namespace empty.
    fn furnish_network(&self) -> Result<()> {
        let plan = self.parsed_plan()?;
        if !plan.ops(Part::Child).any(|op| matches!(op, Op::LoopbackUp {})) {
            return Ok(());
        }
        self.within("net", || {
            plan.ops(Part::Child).try_for_each(|op| match op {
                Op::LoopbackUp {} => sys::loopback_up(),
                Op::SetKernelParameter { name, value, .. } if name.to_bytes().starts_with(b"sys/net/") => {
                    let path = c_string(format!("/proc/{}", name.to_string_lossy()));
                    sys::write_at(libc::AT_FDCWD, &path, value)
                }
                _ => Ok(()),
            })
        })
    }

    /// For criu the root is what it has been given: what the plan makes of it, read-only and without devices, is made again.
    fn furnish_root(&self) -> Result<()> {
        let plan = self.parsed_plan()?;
        let root = plan.ops(Part::Child).find_map(|op| match op {
            Op::PivotRoot { root, .. } | Op::MoveRoot { root } => Some(root),
            _ => None,
        });
        let of_root = |op: Op<'_>| match op {
            Op::SetMountAttributes { mount, set, .. } if Some(mount) == root => set,
            _ => 0,
        };
        let set = plan.ops(Part::Keeper).chain(plan.ops(Part::Child)).map(of_root).fold(0, |all, set| all | set);
        self.within("mnt", || {
            let place = sys::openat(libc::AT_FDCWD, c"/", libc::O_PATH | libc::O_DIRECTORY, 0)?;
            let done = sys::set_mount_attributes(place, set, 0, 0, false);
            sys::close(place);
            done
        })
    }

    fn parsed_plan(&self) -> Result<Plan<'_>> {
        Plan::parse(&self.plan.bytes).map_err(|malformed| Error::new(malformed.to_string()))
    }

    /// Does `work` in a namespace of the container's.
    fn within(&self, kind: &str, work: impl FnOnce() -> sys::Result<()>) -> Result<()> {
        let path = format!("/proc/{}/ns/{kind}", self.record.pid);
        let theirs = File::open(&path).map_err(|error| Error::file("opening", Path::new(&path), &error))?;
        let _home = Home::remember(kind)?;
        let done = sys::setns(theirs.as_raw_fd(), 0).and_then(|()| work());
        done.map_err(|errno| Error::call(&format!("restore: furnishing {path}"), errno))
    }

    /// All is there and nothing runs yet.
    fn settle(&mut self) -> Result<()> {
        let is_wanted = self.spec.process.as_ref().is_some_and(|process| process.terminal);
        if is_wanted && !self.has_terminal {
            return Err(Error::new("process.terminal: is true, and the checkpoint is that of a container without one"));
        }
        let pid = self.record.pid;
        if !cgroups::hold(&self.record.cgroups, pid) {
            return Err(Error::new("restore: criu has left the container outside of its groups"));
        }
        self.furnish_root()?;
        self.record.start_time = process::look(pid).map_or(0, |seen| seen.start_time);
        self.note_clocks()?;
        self.annals.record(&self.record)
    }

    /// criu gives every container a time namespace, so that its clock goes on where it has stopped: who joins has to join that as
    /// well.
    fn note_clocks(&self) -> Result<()> {
        let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/time")).ok();
        if of("self") == of(&self.record.pid.to_string()) {
            return Ok(());
        }
        let mut config: Value =
            serde_json::from_slice(self.config).map_err(|error| Error::new(format!("config.json: {error}")))?;
        if let Some(namespaces) = config.pointer_mut("/linux/namespaces").and_then(Value::as_array_mut) {
            if !namespaces.iter().any(|namespace| namespace["type"] == "time") {
                namespaces.push(json!({ "type": "time" }));
            }
        }
        self.annals.write(CONFIG, config.to_string().as_bytes())
    }
}

/// A namespace and a working directory of this process, which it returns to when this is dropped.
struct Home {
    namespace: File,
    folder: File,
}

impl Home {
    fn remember(kind: &str) -> Result<Self> {
        let open = |path: &str| File::open(path).map_err(|error| Error::file("opening", Path::new(path), &error));
        Ok(Self { namespace: open(&format!("/proc/self/ns/{kind}"))?, folder: open(".")? })
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = sys::setns(self.namespace.as_raw_fd(), 0).and_then(|()| sys::fchdir(self.folder.as_raw_fd()));
    }
}

/// Enters a mount namespace for criu, in which the root file system is a mount, as it wants it; nobody else need see that.
fn go_aside(rootfs: &Path) -> Result<Home> {
    let home = Home::remember("mnt")?;
    let entered = sys::unshare(libc::CLONE_NEWNS as u64).and_then(|()| mount_over_itself(rootfs));
    entered.map(|()| home).map_err(|errno| Error::call(&format!("restore: mounting {}", rootfs.display()), errno))
}

fn mount_over_itself(rootfs: &Path) -> sys::Result<()> {
    sys::set_propagation(libc::MS_SLAVE | libc::MS_REC)?;
    let path = CString::new(rootfs.as_os_str().as_bytes()).unwrap_or_default();
    let place = sys::openat(libc::AT_FDCWD, &path, libc::O_PATH | libc::O_DIRECTORY, 0)?;
    let moved = sys::clone_tree(place, c"", true).and_then(|mount| {
        let moved = sys::move_mount(mount, place);
        sys::close(mount);
        moved
    });
    sys::close(place);
    moved
}

fn c_string(text: String) -> CString {
    CString::new(text).unwrap_or_default()
}
