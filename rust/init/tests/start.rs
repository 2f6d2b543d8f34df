//! Containers made from hand-written plans, through a real spawner. Needs root.

use std::ffi::CStr;
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use pyrt_container::plan::{Builder, Op, STDERR, STDIN, STDOUT, Slot, TextsBuf, as_slots, pack_slots};
use pyrt_container::protocol::{MAX_MESSAGE, Report, Start};
use pyrt_container::sys;

const BASE: u32 = 0x7000_0000;

struct Spawner {
    process: Child,
    socket: OwnedFd,
}

fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: the callers pass descriptors that they have just opened.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

impl Spawner {
    fn launch() -> Self {
        let [ours, theirs] = sys::packet_pair().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_pyrt-init"));
        // SAFETY: one system call, no allocation, between fork and exec.
        unsafe {
            command.pre_exec(move || sys::dup_to(theirs, 3).map_err(|errno| std::io::Error::from_raw_os_error(errno.0)))
        };
        let process = command.spawn().unwrap();
        sys::close(theirs);
        Self { process, socket: own(ours) }
    }

    fn start(&self, plan: &[u8], stdio: [RawFd; 3], opened: &[OwnedFd]) -> Control {
        let memfd = memfd(plan);
        let [ours, theirs] = sys::packet_pair().unwrap();
        let mut descriptors = vec![memfd.as_raw_fd(), theirs];
        descriptors.extend(stdio);
        descriptors.extend(opened.iter().map(AsRawFd::as_raw_fd));
        sys::send_packet(self.socket.as_raw_fd(), &Start { limit: 0, detached: None }.encode(), &descriptors).unwrap();
        sys::close(theirs);
        Control(own(ours))
    }
}

impl Drop for Spawner {
    fn drop(&mut self) {
        self.socket = own(sys::openat(libc::AT_FDCWD, c"/dev/null", libc::O_RDONLY, 0).unwrap());
        assert!(self.process.wait().unwrap().success());
    }
}

fn memfd(bytes: &[u8]) -> OwnedFd {
    // SAFETY: a new descriptor.
    let memfd = own(unsafe { libc::memfd_create(c"plan".as_ptr(), libc::MFD_CLOEXEC) });
    sys::write(memfd.as_raw_fd(), bytes).unwrap();
    memfd
}

struct Control(OwnedFd);

impl Control {
    fn report(&self) -> Option<Report> {
        self.report_with_descriptors().map(|(report, _)| report)
    }

    fn report_with_descriptors(&self) -> Option<(Report, Vec<OwnedFd>)> {
        let mut data = vec![0; MAX_MESSAGE];
        let mut descriptors = [-1; 2];
        let (length, passed) = sys::receive_packet(self.0.as_raw_fd(), &mut data, &mut descriptors).unwrap();
        let descriptors = descriptors[..passed].iter().map(|&fd| own(fd)).collect();
        (length > 0).then(|| (Report::decode(&data[..length]).unwrap(), descriptors))
    }
}

fn texts(words: &[&CStr]) -> TextsBuf {
    words.iter().copied().collect()
}

const NAMESPACES: i32 = libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS;

/// A plan for `command` on this machine's own files, in a user namespace of its own, with what it needs opened.
fn host_plan(command: &[&CStr]) -> (Vec<u8>, Vec<OwnedFd>) {
    host_plan_in(NAMESPACES, command)
}

fn host_plan_in(namespaces: i32, command: &[&CStr]) -> (Vec<u8>, Vec<OwnedFd>) {
    let mut plan = Builder::default();
    let (lower, bottom) = (plan.slot(), plan.slot());
    let opened = vec![
        own(sys::clone_tree(libc::AT_FDCWD, c"/", false).unwrap()),
        // Another file system: overlay refuses a layer that lies within another.
        own(sys::clone_tree(libc::AT_FDCWD, c"/dev/shm", false).unwrap()),
    ];
    let (userns, root, dev, upper) = (plan.slot(), plan.slot(), plan.slot(), plan.slot());
    plan.keeper(Op::Clone { flags: namespaces as u64, cgroup: None });
    let map = format!("0 {BASE} 65536");
    plan.keeper(Op::WriteIdMaps { uid_map: map.as_bytes(), gid_map: map.as_bytes(), deny_setgroups: false });
    plan.keeper(Op::OpenUserNamespace { out: userns });
    plan.keeper(Op::IdmapMount { mount: lower, userns, recursive: false });
    plan.keeper(Op::IdmapMount { mount: bottom, userns, recursive: false });
    plan.keeper(Op::NewMount {
        fstype: c"tmpfs",
        options: texts(&[c"mode=755"]).as_texts(),
        attributes: 0,
        out: upper,
    });
    plan.keeper(Op::MakeDirectory { dir: upper, name: c"upper", mode: 0o755 });
    plan.keeper(Op::MakeDirectory { dir: upper, name: c"work", mode: 0o755 });
    plan.keeper(Op::IdmapMount { mount: upper, userns, recursive: false });
    let lowers = pack_slots(&[lower, bottom]);
    plan.keeper(Op::BeginMaking { uid: BASE, gid: BASE });
    plan.keeper(Op::NewOverlay {
        lowers: as_slots(&lowers),
        names: texts(&[c"", c""]).as_texts(),
        upper: Some(upper),
        changes: c"",
        volatile: true,
        attributes: sys::MOUNT_ATTR_NODEV,
        out: root,
    });
    plan.keeper(Op::EndMaking {});
    plan.keeper(Op::BeginMaking { uid: BASE, gid: BASE });
    plan.keeper(Op::NewMount { fstype: c"tmpfs", options: texts(&[c"mode=755"]).as_texts(), attributes: 0, out: dev });
    plan.keeper(Op::MakeNode { dir: dev, name: c"null", mode: libc::S_IFCHR | 0o666, major: 1, minor: 3 });
    plan.keeper(Op::MakeDirectory { dir: dev, name: c"pts", mode: 0o755 });
    plan.keeper(Op::EndMaking {});
    plan.keeper(Op::Release {});
    let (proc, pts) = (plan.slot(), plan.slot());
    plan.child(Op::DieWithKeeper {});
    plan.child(Op::AwaitKeeper {});
    plan.child(Op::SetGid { gid: 0 });
    plan.child(Op::SetUid { uid: 0 });
    plan.child(Op::DieWithKeeper {});
    plan.child(Op::NewSession {});
    plan.child(Op::LoopbackUp {});
    plan.child(Op::SetHostname { name: b"box" });
    plan.child(Op::NewMount { fstype: c"proc", options: texts(&[]).as_texts(), attributes: 0, out: proc });
    plan.child(Op::PivotRoot { root, along: as_slots(&[]) });
    plan.child(Op::Attach { mount: proc, within: None, path: c"/proc", file: false, strict: true });
    plan.child(Op::Attach { mount: dev, within: None, path: c"/dev", file: false, strict: true });
    plan.child(Op::NewMount {
        fstype: c"devpts",
        options: texts(&[c"mode=620", c"ptmxmode=666"]).as_texts(),
        attributes: 0,
        out: pts,
    });
    plan.child(Op::Attach { mount: pts, within: None, path: c"/dev/pts", file: false, strict: true });
    plan.child(Op::MakeReadonly { within: None, path: c"/proc/sys" });
    plan.child(Op::SetStdio { input: STDIN, output: STDOUT, error: STDERR, terminal: false });
    plan.child(Op::ChangeDirectory { path: c"/srv/made/here", create: true });
    plan.child(Op::ChangeDirectory { path: c"/srv/made/here", create: false });
    plan.child(Op::NoNewPrivileges {});
    plan.child(Op::CleanProcess {});
    let (words, environment) = (texts(command), texts(&[c"PATH=/usr/bin:/bin"]));
    plan.child(Op::Exec {
        candidates: texts(&command[..1]).as_texts(),
        arguments: words.as_texts(),
        environment: environment.as_texts(),
    });
    let _: Slot = pts;
    (plan.finish(), opened)
}

/// What the container printed, and the reports on it.
fn run(spawner: &Spawner, command: &[&CStr]) -> (String, Vec<Report>) {
    run_plan(spawner, host_plan(command))
}

fn run_plan(spawner: &Spawner, (plan, opened): (Vec<u8>, Vec<OwnedFd>)) -> (String, Vec<Report>) {
    let [read, write] = sys::pipe().unwrap();
    let null = own(sys::openat(libc::AT_FDCWD, c"/dev/null", libc::O_RDWR, 0).unwrap());
    let control = spawner.start(&plan, [null.as_raw_fd(), write, write], &opened);
    sys::close(write);
    let mut output = String::new();
    std::fs::File::from(own(read)).read_to_string(&mut output).unwrap();
    (output, std::iter::from_fn(|| control.report()).collect())
}

#[test]
fn a_container_runs_and_its_end_is_reported() {
    let spawner = Spawner::launch();
    let script =
        c"pwd; hostname; id -u; echo $$; echo kept > /srv/file && cat /srv/file; cat /proc/self/uid_map; exit 7";
    let (output, reports) = run(&spawner, &[c"/bin/sh", c"-c", script]);
    let lines: Vec<_> = output.lines().map(str::trim).collect();
    assert_eq!(&lines[..5], ["/srv/made/here", "box", "0", "1", "kept"], "{reports:?}");
    let map: Vec<_> = lines[5].split_whitespace().collect();
    assert_eq!(map, ["0", &BASE.to_string(), "65536"]);
    let [Report::Started { timings, begun, .. }, Report::Exited { code: Some(7), signal: None, .. }] = &reports[..]
    else {
        panic!("{reports:?}")
    };
    assert!(timings.iter().all(|time| time > begun));
    assert!(!std::path::Path::new("/srv/file").exists());
}

#[test]
fn a_missing_command_is_evidence_not_a_crash() {
    let spawner = Spawner::launch();
    let (_, reports) = run(&spawner, &[c"/no/such/command"]);
    let [Report::Failed { errno: libc::ENOENT, evidence, .. }] = &reports[..] else { panic!("{reports:?}") };
    assert_eq!(evidence, b"/no/such/command\0");
}

#[test]
fn a_directory_is_no_command() {
    let spawner = Spawner::launch();
    let (_, reports) = run(&spawner, &[c"/usr"]);
    assert!(matches!(&reports[..], [Report::Failed { errno: libc::EISDIR, .. }]), "{reports:?}");
}

#[test]
fn an_attached_container_dies_with_its_engine() {
    let spawner = Spawner::launch();
    let (plan, opened) = host_plan(&[c"/bin/sleep", c"1000"]);
    let [read, write] = sys::pipe().unwrap();
    let null = own(sys::openat(libc::AT_FDCWD, c"/dev/null", libc::O_RDWR, 0).unwrap());
    let control = spawner.start(&plan, [null.as_raw_fd(), write, write], &opened);
    sys::close(write);
    let Some(Report::Started { pid, .. }) = control.report() else { panic!("not started") };
    drop(control);
    let mut output = String::new();
    std::fs::File::from(own(read)).read_to_string(&mut output).unwrap();
    // The pipe's end of file says that the process is gone; its keeper reaps it at once.
    wait_until_gone(pid);
}

/// The first `Some` of `look`, which is asked again and again.
fn wait_for<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(std::time::Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

fn wait_until_gone(pid: u32) {
    let path = format!("/proc/{pid}");
    wait_for(&format!("process {pid} is there still"), || (!std::path::Path::new(&path).exists()).then_some(()));
}

fn children(pid: u32) -> Vec<u32> {
    let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// The child that the ready keeper has had cloned, in a pid namespace of its own; nothing else runs.
fn foreseen(spawner: &Spawner) -> u32 {
    let is_apart = |pid: &u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line.starts_with("NSpid:") && line.split_whitespace().count() == 3)
    };
    wait_for("no child was cloned beforehand", || {
        children(spawner.process.id()).into_iter().flat_map(children).find(is_apart)
    })
}

fn started(reports: &[Report]) -> u32 {
    let [Report::Started { pid, .. }, Report::Exited { code: Some(0), .. }] = reports else { panic!("{reports:?}") };
    *pid
}

/// A spawner that has started one container, and the child that is there for the next.
fn with_foreseen() -> (Spawner, u32) {
    let spawner = Spawner::launch();
    started(&run(&spawner, &[c"/bin/true"]).1);
    let child = foreseen(&spawner);
    (spawner, child)
}

#[test]
fn the_child_of_the_next_container_is_there_before_it_is_asked_for() {
    let (spawner, child) = with_foreseen();
    assert_eq!(started(&run(&spawner, &[c"/bin/true"]).1), child);
    // Another one is there for the next.
    let child = foreseen(&spawner);
    drop(spawner);
    wait_until_gone(child);
}

#[test]
fn a_child_that_does_not_fit_goes_and_the_container_runs_in_its_own() {
    let (spawner, child) = with_foreseen();
    let other = host_plan_in(NAMESPACES & !libc::CLONE_NEWIPC, &[c"/bin/readlink", c"/proc/self/ns/ipc"]);
    let (output, reports) = run_plan(&spawner, other);
    assert_ne!(started(&reports), child);
    assert_eq!(output.trim(), std::fs::read_link("/proc/self/ns/ipc").unwrap().to_str().unwrap());
    wait_until_gone(child);
}

#[test]
fn a_foreseen_child_that_is_killed_is_not_missed() {
    let (spawner, child) = with_foreseen();
    sys::kill(child as i32, libc::SIGKILL).unwrap();
    let status = format!("/proc/{child}/status");
    wait_for("it does not end", || std::fs::read_to_string(&status).unwrap().contains("\nState:\tZ").then_some(()));
    assert_ne!(started(&run(&spawner, &[c"/bin/true"]).1), child);
    wait_until_gone(child);
}

#[test]
fn a_foreseen_child_dies_with_its_keeper_and_another_comes() {
    let (spawner, child) = with_foreseen();
    let keepers = children(spawner.process.id());
    let keeper = keepers.into_iter().find(|&keeper| children(keeper).contains(&child)).unwrap();
    sys::kill(keeper as i32, libc::SIGKILL).unwrap();
    wait_until_gone(child);
    started(&run(&spawner, &[c"/bin/true"]).1);
    foreseen(&spawner);
}

/// A plan that joins the container of a pidfd, which goes into the first slot.
fn exec_plan(command: &[&CStr]) -> Vec<u8> {
    let mut plan = Builder::default();
    let pidfd = plan.slot();
    plan.keeper(Op::JoinPidNamespace { pidfd });
    plan.keeper(Op::Clone { flags: 0, cgroup: None });
    plan.keeper(Op::Release {});
    plan.child(Op::DieWithKeeper {});
    plan.child(Op::AwaitKeeper {});
    plan.child(Op::JoinNamespaces { fd: pidfd, flags: NAMESPACES as u64 });
    plan.child(Op::SetGid { gid: 0 });
    plan.child(Op::SetUid { uid: 0 });
    plan.child(Op::DieWithKeeper {});
    plan.child(Op::SetStdio { input: STDIN, output: STDOUT, error: STDERR, terminal: false });
    plan.child(Op::ChangeDirectory { path: c"/", create: false });
    plan.child(Op::CleanProcess {});
    let (words, environment) = (texts(command), texts(&[]));
    plan.child(Op::Exec {
        candidates: texts(&command[..1]).as_texts(),
        arguments: words.as_texts(),
        environment: environment.as_texts(),
    });
    plan.finish()
}

#[test]
fn a_process_joins_a_running_container() {
    let spawner = Spawner::launch();
    let (plan, opened) = host_plan(&[c"/bin/sleep", c"1000"]);
    let null = own(sys::openat(libc::AT_FDCWD, c"/dev/null", libc::O_RDWR, 0).unwrap());
    let container = spawner.start(&plan, [null.as_raw_fd(); 3], &opened);
    let Some((Report::Started { .. }, pidfd)) = container.report_with_descriptors() else { panic!("not started") };
    let [read, write] = sys::pipe().unwrap();
    let script = c"hostname; cat /proc/1/comm; id -u; exit 3";
    let control = spawner.start(&exec_plan(&[c"/bin/sh", c"-c", script]), [null.as_raw_fd(), write, write], &pidfd);
    sys::close(write);
    let mut output = String::new();
    std::fs::File::from(own(read)).read_to_string(&mut output).unwrap();
    let reports: Vec<_> = std::iter::from_fn(|| control.report()).collect();
    assert_eq!(output, "box\nsleep\n0\n", "{reports:?}");
    assert!(matches!(&reports[..], [Report::Started { .. }, Report::Exited { code: Some(3), .. }]), "{reports:?}");
}

#[test]
fn the_spawner_holds_nothing_but_the_engine_s_socket() {
    let spawner = Spawner::launch();
    // A container has run: the spawner is through with its preparations.
    run(&spawner, &[c"/bin/true"]);
    let folder = format!("/proc/{}/fd", spawner.process.id());
    let mut held: Vec<(String, String)> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            let target = std::fs::read_link(&path).unwrap();
            (path.file_name().unwrap().to_str().unwrap().to_owned(), target.to_str().unwrap().to_owned())
        })
        .collect();
    held.sort();
    let kinds: Vec<_> = held.iter().map(|(_, target)| target.split(':').next().unwrap()).collect();
    let (standard, others) = kinds.split_at(3);
    assert_eq!(standard, ["/dev/null"; 3], "{held:?}");
    // The last is the pipe on which it hears that its ready keeper has got work; before that is the one of its keepers.
    assert!(others == ["socket", "pipe", "pipe", "pipe"] || others == ["socket", "pipe", "pipe"], "{held:?}");
}

#[test]
fn bytes_that_are_no_plan_are_refused() {
    let spawner = Spawner::launch();
    let null = own(sys::openat(libc::AT_FDCWD, c"/dev/null", libc::O_RDWR, 0).unwrap());
    let control = spawner.start(b"no plan at all, by no means", [null.as_raw_fd(); 3], &[]);
    let Some(Report::Failed { errno: 0, evidence, .. }) = control.report() else { panic!("not refused") };
    assert_eq!(evidence, b"not a plan");
    assert_eq!(control.report(), None);
}
