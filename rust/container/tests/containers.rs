//! Containers from compiled plans, on this machine's kernel. Needs root.

mod fixture;

use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use fixture::{put, spec};
use pyrt_container::compile::{Compiled, compile, compile_exec};
use pyrt_container::execute::{self, Running};
use pyrt_container::explain::{self, Failure};
use pyrt_container::host::{Features, Host, Layout};
use pyrt_container::plan::Plan;
use serde_json::{Value, json};

/// An image of two layers with busybox, an upper directory, something to bind. Removed at the end.
struct Image {
    path: PathBuf,
    id: String,
    host: Host,
}

impl Image {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let id = format!("test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(format!("pyrt-{id}"));
        for directory in
            ["base/bin", "base/etc", "base/srv", "base/opt/old", "top/opt", "upper/upper", "upper/work", "data"]
        {
            std::fs::create_dir_all(path.join(directory)).unwrap();
        }
        for directory in ["proc", "sys", "dev", "etc", "tmp"] {
            std::fs::create_dir_all(path.join("scaffold").join(directory)).unwrap();
        }
        std::fs::copy("/bin/busybox", path.join("base/bin/busybox")).unwrap();
        for name in ["sh", "cat", "id", "ls", "mount", "hostname", "echo", "sleep", "stty", "tty", "touch", "stat"] {
            symlink("busybox", path.join("base/bin").join(name)).unwrap();
        }
        std::fs::write(path.join("base/opt/old/hidden"), "old").unwrap();
        std::fs::create_dir(path.join("top/opt/old")).unwrap();
        rustix::fs::setxattr(path.join("top/opt/old"), "trusted.overlay.opaque", b"y", rustix::fs::XattrFlags::empty())
            .unwrap();
        std::fs::write(path.join("top/opt/old/new"), "new").unwrap();
        std::fs::write(path.join("data/file"), "from the host\n").unwrap();
        Self { path, id, host: Host::probe().unwrap() }
    }

    fn start(&self) -> Value {
        json!({
            "id": self.id,
            "rootfs": {
                "lowers": ["@/top", "@/base", "@/scaffold"],
                "upper": {"directory": "@/upper"},
                "files": [{"path": "/etc/hosts", "content": "127.0.0.1 localhost\n", "mode": 0o644}]
            }
        })
    }

    /// The usual container, whose shell runs `script`.
    fn spec(&self, script: &str) -> Value {
        let mut spec = spec("pyrt");
        put(&mut spec, "process.args", json!(["sh", "-c", script]));
        put(&mut spec, "process.user", json!({"uid": 0, "gid": 0}));
        put(&mut spec, "root.readonly", json!(false));
        put(&mut spec, "linux.cgroupsPath", json!(format!("/pyrt-{}/box", self.id)));
        put(&mut spec, "linux.uidMappings[0].hostID", json!(1_878_982_656));
        put(&mut spec, "linux.gidMappings[0].hostID", json!(1_878_982_656));
        spec
    }

    /// The same, but the upper directory serves once.
    fn start_volatile(&self) -> Value {
        let mut start = self.start();
        put(&mut start, "rootfs.volatile", json!(true));
        start
    }

    fn has_cgroup_v2_alone(&self) -> bool {
        self.host.cgroups.layout() == Layout::V2
    }

    fn text(&self, document: &Value) -> String {
        document.to_string().replace('@', &self.path.display().to_string())
    }

    fn compile(&self, spec: &Value, start: &Value) -> Compiled {
        compile(self.text(spec).as_bytes(), self.text(start).as_bytes(), &self.host).unwrap()
    }

    fn run(&self, spec: &Value, start: &Value) -> Result<Ended, Failure> {
        let compiled = self.compile(spec, start);
        // A keeper makes one container: what it joins and parks stays with it.
        std::thread::scope(|scope| scope.spawn(|| launch(&compiled).map(Launched::finish)).join().unwrap())
    }

    /// What the script prints, which must end well.
    fn output(&self, spec: &Value, start: &Value) -> String {
        let ended = self.run(spec, start).unwrap_or_else(|failure| panic!("{failure:?}"));
        assert_eq!(ended.code, Some(0), "{}", ended.output);
        ended.output
    }
}

/// This kernel can all that older ones can: their plans run on it as well.
fn on_each_kernel(test: impl Fn(&Image) + Sync) {
    for (overlay_by_descriptor, detached_trees) in [(true, true), (true, false), (false, false)] {
        let mut image = Image::new();
        let older = Features { overlay_by_descriptor, detached_trees };
        let Features { overlay_by_descriptor, detached_trees } = image.host.features;
        image.host.features = Features {
            overlay_by_descriptor: overlay_by_descriptor && older.overlay_by_descriptor,
            detached_trees: detached_trees && older.detached_trees,
        };
        std::thread::scope(|scope| scope.spawn(|| test(&image)).join().unwrap());
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let _ = std::fs::remove_dir(hierarchy.path().join(format!("pyrt-{}", self.id)));
        }
    }
}

/// Without a user namespace.
fn as_host_root(mut spec: Value) -> Value {
    let namespaces = ["pid", "network", "ipc", "uts", "mount", "cgroup"].map(|kind| json!({"type": kind}));
    put(&mut spec, "linux.namespaces", json!(namespaces));
    put(&mut spec, "linux.uidMappings", json!([]));
    put(&mut spec, "linux.gidMappings", json!([]));
    spec
}

struct Launched {
    running: Running,
    output: std::fs::File,
}

struct Ended {
    output: String,
    code: Option<i32>,
}

impl Launched {
    fn finish(mut self) -> Ended {
        self.running.close_stdio();
        let mut output = String::new();
        self.output.read_to_string(&mut output).unwrap();
        let code = self.running.reap().unwrap().code;
        self.running.let_go();
        self.running.clean_up();
        Ended { output, code }
    }
}

fn own(fd: i32) -> OwnedFd {
    // SAFETY: the callers pass what they have just opened.
    unsafe { std::os::fd::FromRawFd::from_raw_fd(fd) }
}

fn pipe() -> (OwnedFd, OwnedFd) {
    let [read, write] = pyrt_container::sys::pipe().unwrap();
    (own(read), own(write))
}

/// In a mount namespace of this thread's own, as a keeper has it: what was opened before is of another one.
fn launch(compiled: &Compiled) -> Result<Launched, Failure> {
    pyrt_container::sys::unshare((libc::CLONE_NEWNS | libc::CLONE_FS) as u64).unwrap();
    pyrt_container::sys::set_propagation(libc::MS_PRIVATE | libc::MS_REC).unwrap();
    let (read, write) = pipe();
    let null = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    let plan = Plan::parse(&compiled.bytes).unwrap();
    // The executor owns its table, so it gets copies.
    let copy = |fd: i32| pyrt_container::sys::dup_above(fd, 3).unwrap();
    let mut descriptors = vec![copy(null.as_raw_fd()), copy(write.as_raw_fd()), copy(write.as_raw_fd())];
    descriptors.extend(compiled.descriptors.iter().map(|fd| copy(fd.as_raw_fd())));
    drop(write);
    match execute::start(&plan, &descriptors, None, &mut |_| ()) {
        Ok(running) => Ok(Launched { running, output: read.into() }),
        Err(failed) => {
            let errno = failed.errno.0;
            descriptors.into_iter().for_each(pyrt_container::sys::close);
            Err(explain::failure(&plan, &compiled.names, failed.part, failed.index, errno, &failed.evidence))
        }
    }
}

#[test]
fn the_usual_container() {
    on_each_kernel(|image| {
        let script = "hostname; id -u; pwd; cat /etc/hosts; cat /data/file; echo kept > /srv/new; cat /opt/old/new; echo; \
                  ls /opt/old; cat /proc/self/uid_map; cat /proc/1/cgroup | head -1; \
                  echo x > /dev/null && stat -c %u:%t:%T /dev/null; ls /sys/fs/cgroup | head -1; \
                  cat /proc/sys/net/ipv4/ip_unprivileged_port_start; ls /proc/acpi /sys/firmware; \
                  echo y > /proc/sys/kernel/hostname || echo refused; touch /data/x || echo read-only; ls -l /data/file";
        let output = image.output(&image.spec(script), &image.start_volatile());
        for line in ["box", "/srv", "127.0.0.1 localhost", "from the host", "new", "refused", "read-only", "0:1:3"] {
            assert!(output.lines().any(|found| found == line), "{line} is missing in {output}");
        }
        assert!(!output.contains("hidden"), "an opaque directory is not opaque: {output}");
        let kept = image.path.join("upper/upper/srv/new");
        assert_eq!(std::fs::read_to_string(&kept).unwrap(), "kept\n");
        use std::os::unix::fs::MetadataExt;
        assert_eq!(std::fs::metadata(kept).unwrap().uid(), 0, "owners on the disk are unshifted");
    });
}

#[test]
fn without_a_user_namespace() {
    on_each_kernel(|image| {
        let script = "hostname; cat /proc/self/uid_map; echo kept > /srv/new; cat /data/file; ls /sys/fs/cgroup/pids /sys/fs/cgroup; \
                  grep Cap /proc/self/status; cat /opt/old/hidden";
        let ended = image.run(&as_host_root(image.spec(script)), &image.start()).unwrap();
        for words in ["box", "4294967295", "from the host", "pids.max", "CapBnd:\t00000000000004fb"] {
            assert!(ended.output.contains(words), "{words} is missing in {}", ended.output);
        }
        assert_eq!(ended.code, Some(1), "the hidden file is not hidden: {}", ended.output);
    });
}

#[test]
fn namespaces_of_the_host_with_and_without_a_user_namespace() {
    on_each_kernel(|image| {
        let script = "ls /proc/$$ > /dev/null; ls -d /sys/class /dev/mqueue /sys/fs/cgroup; readlink /proc/1/exe; cat /sys/kernel/uevent_seqnum";
        for mapped in [true, false] {
            let mut spec = image.spec(script);
            let user = if mapped { json!([{"type": "mount"}, {"type": "user"}]) } else { json!([{"type": "mount"}]) };
            put(&mut spec, "linux.namespaces", user);
            if !mapped {
                put(&mut spec, "linux.uidMappings", json!([]));
                put(&mut spec, "linux.gidMappings", json!([]));
            }
            put(&mut spec, "hostname", json!(""));
            put(&mut spec, "linux.sysctl", json!({}));
            let output =
                image.run(&spec, &image.start()).unwrap_or_else(|failure| panic!("{mapped}: {failure:?}")).output;
            assert!(output.contains("/sys/class") && output.contains("/dev/mqueue"), "{mapped}: {output}");
        }
    });
}

#[test]
fn a_bundle_as_runc_describes_it() {
    on_each_kernel(|image| {
        for directory in ["proc", "sys", "dev"] {
            std::fs::create_dir(image.path.join("base").join(directory)).unwrap();
        }
        let mut spec = spec("runc");
        put(&mut spec, "root.path", json!("base"));
        put(&mut spec, "linux.cgroupsPath", json!(format!("/pyrt-{}/box", image.id)));
        put(&mut spec, "process.terminal", json!(false));
        put(&mut spec, "process.args", json!(["sh", "-c", "hostname; touch /x || echo read-only; ulimit -n; echo $$"]));
        let start = json!({"id": image.id, "rootfs": null, "bundle": "@"});
        let output = image.output(&spec, &start);
        assert!(output.starts_with("runc\n") && output.ends_with("read-only\n1024\n1\n"), "{output}");
    });
}

#[test]
fn read_only_in_three_ways() {
    on_each_kernel(|image| {
        let layers = json!(["@/top", "@/base", "@/scaffold"]);
        let ways = [
            ("an upper that is made read-only", json!({"lowers": layers, "upper": {"directory": "@/upper"}})),
            ("no upper", json!({"lowers": layers})),
            ("memory", json!({"lowers": layers, "upper": {"tmpfs": {"size": 1_048_576}}})),
        ];
        for (way, rootfs) in ways {
            let mut spec = image.spec("touch /srv/x; touch /tmp/y && echo tmp; touch /dev/shm/z && echo shm");
            put(&mut spec, "root.readonly", json!(true));
            let mounts =
                spec["mounts"].as_array().unwrap().iter().filter(|mount| mount["destination"] != "/data").cloned();
            let mounts: Vec<Value> = mounts.collect();
            put(&mut spec, "mounts", json!(mounts));
            let output = image.output(&spec, &json!({"id": image.id, "rootfs": rootfs}));
            assert!(output.ends_with("Read-only file system\ntmp\nshm\n"), "{way}: {output}");
        }
    });
}

#[test]
fn one_layer_alone() {
    on_each_kernel(|image| {
        for directory in ["proc", "sys", "dev", "tmp", "data"] {
            std::fs::create_dir(image.path.join("base").join(directory)).unwrap();
        }
        let start = json!({"id": image.id, "rootfs": {"lowers": ["@/base"]}});
        let output = image.output(&image.spec("stat -c %u /srv; touch /srv/x || echo read-only"), &start);
        assert!(output.starts_with("0\n") && output.ends_with("read-only\n"), "{output}");
    });
}

#[test]
fn changes_in_memory_are_limited() {
    on_each_kernel(|image| {
        let mut start = image.start();
        put(&mut start, "rootfs.upper", json!({"tmpfs": {"size": 65536}}));
        let script = "echo small > /srv/x && cat /srv/x; cat /bin/busybox > /srv/big || echo full; cat /opt/old/new > /opt/old/copy";
        let output = image.run(&image.spec(script), &start).unwrap().output;
        assert!(output.contains("small\n") && output.contains("full\n"), "{output}");
    });
}

#[test]
fn a_user_without_any_right() {
    let image = Image::new();
    let mut spec =
        image.spec("id; ulimit -n; umask; grep -E 'Cap|NoNew|Seccomp:' /proc/self/status; echo x > /proc/self/fd/1");
    put(&mut spec, "process.user", json!({"uid": 1000, "gid": 1001, "additionalGids": [1001, 20], "umask": 0o27}));
    put(&mut spec, "process.rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 20, "hard": 30}]));
    let output = image.output(&spec, &image.start());
    use std::os::unix::fs::MetadataExt;
    assert_eq!(std::fs::metadata("/dev/null").unwrap().uid(), 0, "the host's own was given away");
    for words in [
        "uid=1000 gid=1001 groups=20,1001",
        "\n20\n",
        "\n0027\n",
        "CapInh:\t0000000000000000",
        "CapPrm:\t0000000000000000",
        "CapAmb:\t0000000000000000",
        "CapBnd:\t00000000000004fb",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
    ] {
        assert!(output.contains(words), "{words:?} is missing in {output}");
    }
}

#[test]
fn a_terminal() {
    on_each_kernel(|image| {
        let mut spec = image.spec("tty; stty size; stat -c %u:%a $(tty); ls /dev/console");
        put(&mut spec, "process.terminal", json!(true));
        put(&mut spec, "process.consoleSize", json!({"height": 24, "width": 80}));
        put(&mut spec, "process.user", json!({"uid": 1000, "gid": 1000}));
        let mut launched = launch(&image.compile(&spec, &image.start())).unwrap();
        let terminal = launched.running.terminal.unwrap();
        let code = launched.running.reap().unwrap().code;
        // A line at a time, perhaps; the end is EIO, as nobody has the other side.
        let (mut written, mut buffer) = (Vec::new(), [0; 4096]);
        while let Ok(length) = pyrt_container::sys::read(terminal, &mut buffer) {
            written.extend_from_slice(&buffer[..length]);
        }
        let output = String::from_utf8_lossy(&written).replace('\r', "");
        pyrt_container::sys::close(terminal);
        launched.running.close_stdio();
        launched.running.let_go();
        launched.running.clean_up();
        assert_eq!((output.as_str(), code), ("/dev/pts/0\n24 80\n1000:620\n/dev/console\n", Some(0)));
    });
}

#[test]
fn an_init_of_ours_reaps_and_passes_the_exit_code_on() {
    let image = Image::new();
    let mut start = image.start();
    put(&mut start, "init", json!(true));
    let ended = image.run(&image.spec("echo $$; (sleep 0 &) ; exit 7"), &start).unwrap();
    assert_ne!(ended.output, "1\n");
    assert_eq!(ended.code, Some(7));
}

#[test]
fn limits_hold() {
    let image = Image::new();
    let (files, quota) = if image.has_cgroup_v2_alone() {
        ("memory.max pids.max cpu.max cpuset.cpus", "50000 100000")
    } else {
        ("memory/memory.limit_in_bytes pids/pids.max cpu/cpu.cfs_quota_us cpuset/cpuset.cpus", "50000")
    };
    let script = "cd /sys/fs/cgroup; cat FILES; cat /proc/self/oom_score_adj; for i in 1 2 3 4 5 6 7 8 9 0; do sleep 5 & done; echo forked".replace("FILES", files);
    let mut spec = image.spec(&script);
    put(&mut spec, "linux.resources.pids.limit", json!(6));
    let ended = image.run(&spec, &image.start()).unwrap();
    assert!(ended.output.starts_with(&format!("67108864\n6\n{quota}\n0\n500\n")), "{}", ended.output);
    assert!(ended.output.contains("can't fork"), "{}", ended.output);
    let hierarchy = if image.has_cgroup_v2_alone() { "" } else { "pids/" };
    let left = format!("/sys/fs/cgroup/{hierarchy}pyrt-{}/box", image.id);
    let left = Path::new(&left);
    assert!(!left.exists(), "the cgroup is left");
}

/// Where BFQ is built in: a rate needs a disk, a share does not.
#[test]
fn shares_of_block_devices_reach_the_kernel() {
    let image = Image::new();
    if !image.host.cgroups.v1.iter().any(|hierarchy| hierarchy.controls("blkio")) {
        return;
    }
    let mut spec =
        image.spec("cat /sys/fs/cgroup/blkio/blkio.bfq.weight /sys/fs/cgroup/blkio/blkio.throttle.read_bps_device");
    let mut limits = json!({"weight": 500});
    let mut expected = "500\n".to_owned();
    let disk = std::fs::read_dir("/sys/block").unwrap().flatten().next();
    if let Some(device) = disk.map(|disk| std::fs::read_to_string(disk.path().join("dev")).unwrap()) {
        let (major, minor) = device.trim().split_once(':').unwrap();
        let number = |text: &str| text.parse::<i64>().unwrap();
        let rate = json!([{"major": number(major), "minor": number(minor), "rate": 1_048_576}]);
        put(&mut limits, "throttleReadBpsDevice", rate);
        expected += &format!("{} 1048576\n", device.trim());
    }
    put(&mut spec, "linux.resources.blockIO", limits);
    assert_eq!(image.output(&spec, &image.start()), expected);
}

#[test]
fn one_more_process_in_all_its_namespaces() {
    on_each_kernel(|image| one_more_process(image, true));
    on_each_kernel(|image| one_more_process(image, false));
}

fn one_more_process(image: &Image, mapped: bool) {
    let spec = image.spec("echo ready; sleep 100");
    let spec = if mapped { spec } else { as_host_root(spec) };
    let mut launched = launch(&image.compile(&spec, &image.start())).unwrap();
    let mut ready = [0; 6];
    launched.output.read_exact(&mut ready).unwrap();
    let mut process = spec["process"].clone();
    let script = "hostname; id -u; cat /proc/1/cmdline | head -c 2; echo; readlink /proc/self/ns/net; cat /proc/self/cgroup; pwd";
    put(&mut process, "args", json!(["sh", "-c", script]));
    let pidfd = own(pyrt_container::sys::dup_above(launched.running.pidfd, 3).unwrap());
    let (spec, start) = (image.text(&spec), image.text(&image.start()));
    let compiled =
        compile_exec(spec.as_bytes(), process.to_string().as_bytes(), start.as_bytes(), pidfd, &image.host).unwrap();
    // Whoever joins a pid namespace has its children there ever after.
    let join = || launch(&compiled).map(Launched::finish);
    let joined = std::thread::scope(|scope| scope.spawn(join).join().unwrap());
    let net = std::fs::read_link(format!("/proc/{}/ns/net", launched.running.pid)).unwrap();
    pyrt_container::sys::kill(launched.running.pid, libc::SIGKILL).unwrap();
    launched.finish();
    let output = joined.unwrap_or_else(|failure| panic!("{mapped}: {failure:?}")).output;
    assert!(output.starts_with("box\n0\nsl\n"), "{mapped}: {output}");
    assert!(output.contains(&*net.to_string_lossy()), "{mapped}: {output}");
    let group = if image.has_cgroup_v2_alone() { "0::/\n" } else { "pids:/\n" };
    assert!(output.contains(group) && output.ends_with("/srv\n"), "{mapped}: {output}");
}

const KINDS: [(&str, &str); 8] = [
    ("pid", "pid"),
    ("network", "net"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("mount", "mnt"),
    ("cgroup", "cgroup"),
    ("user", "user"),
    ("time", "time"),
];

/// A container that sleeps, in eight namespaces of its own; killed at the end.
fn with_sleeper(mapped: bool, test: impl FnOnce(i32)) {
    let image = Image::new();
    let mut spec = image.spec("echo ready; sleep 1000");
    put(&mut spec, "hostname", json!("sleeper"));
    put(&mut spec, "linux.namespaces", json!(KINDS.map(|(kind, _)| json!({"type": kind}))));
    put(&mut spec, "linux.timeOffsets", json!({"boottime": {"secs": 50_000_000}}));
    if !mapped {
        spec = as_host_root(spec);
        spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
    }
    while_it_runs(&image.compile(&spec, &image.start()), test);
}

/// Hands over the process id of a container that has said `ready`; it is killed afterwards.
fn while_it_runs(compiled: &Compiled, test: impl FnOnce(i32)) {
    let (tell, told) = std::sync::mpsc::channel();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        // Not this thread: its mount namespace is that of the keeper which the test makes.
        scope.spawn(move || {
            let mut launched = launch(compiled).unwrap_or_else(|failure| panic!("{failure:?}"));
            launched.output.read_exact(&mut [0; 6]).unwrap();
            tell.send(launched.running.pid).unwrap();
            let _ = ended.recv();
            pyrt_container::sys::kill(launched.running.pid, libc::SIGKILL).unwrap();
            launched.finish();
        });
        test(told.recv().unwrap());
        drop(end);
    });
}

fn spec_in_namespaces(image: &Image, script: &str, pid: i32, joined: &[&str], new: &[&str]) -> Value {
    let file = |kind: &str| KINDS.iter().find(|(name, _)| *name == kind).unwrap().1;
    let mut spec = image.spec(script);
    let by_path = joined.iter().map(|kind| json!({"type": kind, "path": format!("/proc/{pid}/ns/{}", file(kind))}));
    let namespaces: Vec<Value> = by_path.chain(new.iter().map(|kind| json!({"type": kind}))).collect();
    put(&mut spec, "linux.namespaces", json!(namespaces));
    if !new.contains(&"user") {
        put(&mut spec, "linux.uidMappings", json!([]));
        put(&mut spec, "linux.gidMappings", json!([]));
    }
    put(&mut spec, "linux.sysctl", json!({}));
    if !new.contains(&"uts") {
        put(&mut spec, "hostname", json!(""));
    }
    spec
}

/// `joined` by path from the sleeper, `new` ones of its own. What the shell says of each.
fn in_namespaces(image: &Image, pid: i32, joined: &[&str], new: &[&str]) -> Result<Ended, Failure> {
    let script = "for kind in pid net ipc uts mnt cgroup user time; do readlink /proc/self/ns/$kind; done; \
                  cat /etc/hosts; ls -d /sys/class; cat /proc/self/uid_map; cut -d' ' -f1 /proc/uptime; hostname; ls /proc/1 > /dev/null";
    let spec = spec_in_namespaces(image, script, pid, joined, new);
    image.run(&spec, &image.start())
}

fn check_namespaces(mapped: bool, joined: &[&str], new: &[&str]) {
    with_sleeper(mapped, |pid| {
        let image = Image::new();
        let ended = in_namespaces(&image, pid, joined, new).unwrap_or_else(|failure| panic!("{joined:?}: {failure:?}"));
        let found: Vec<&str> = ended.output.lines().collect();
        for (position, (kind, file)) in KINDS.iter().enumerate() {
            let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/{file}")).unwrap();
            let (theirs, ours) = (namespace(&pid.to_string()), namespace("self"));
            let is = found[position];
            let is_right = match (joined.contains(kind), new.contains(kind)) {
                (true, _) => is == theirs.to_string_lossy(),
                (false, true) => is != theirs.to_string_lossy() && is != ours.to_string_lossy(),
                (false, false) => is == ours.to_string_lossy(),
            };
            assert!(is_right, "{kind} of {joined:?}: {}", ended.output);
        }
        assert!(ended.output.contains("localhost\n/sys/class\n"), "{joined:?}: {}", ended.output);
        let uptime: f64 = found[11].parse().unwrap();
        assert_eq!(uptime > 50_000_000.0, joined.contains(&"time"), "{}", ended.output);
        assert_eq!(found[12] == "sleeper", joined.contains(&"uts"), "{}", ended.output);
        assert_eq!(ended.code, Some(0), "{}", ended.output);
    });
}

#[test]
fn one_more_process_where_everything_was_joined() {
    with_sleeper(true, |pid| {
        let image = Image::new();
        let spec = spec_in_namespaces(&image, "echo ready; sleep 1000", pid, &KINDS.map(|(kind, _)| kind), &[]);
        while_it_runs(&image.compile(&spec, &image.start()), |first| {
            let mut process = spec["process"].clone();
            put(
                &mut process,
                "args",
                json!(["sh", "-c", "hostname; id -u; cat /opt/old/new; cut -d. -f1 /proc/uptime"]),
            );
            // SAFETY: pidfd_open(2) of a process that lives until `first` is let go.
            let pidfd = own(unsafe { libc::syscall(libc::SYS_pidfd_open, first, 0) } as i32);
            // Whose namespaces they once were does not matter any more.
            let (spec, start) = (image.text(&spec).replace("/ns/", "/gone/"), image.text(&image.start()));
            let process = process.to_string();
            let compiled = compile_exec(spec.as_bytes(), process.as_bytes(), start.as_bytes(), pidfd, &image.host);
            let ended =
                launch(&compiled.unwrap()).map(Launched::finish).unwrap_or_else(|failure| panic!("{failure:?}"));
            assert!(ended.output.starts_with("sleeper\n0\nnew5"), "{}", ended.output);
        });
    });
}

#[test]
fn one_namespace_by_path_beside_new_ones() {
    const ALL: [&str; 6] = ["pid", "network", "ipc", "uts", "cgroup", "time"];
    for kind in ALL {
        let mut others: Vec<&str> = ALL.into_iter().filter(|other| *other != kind).chain(["mount"]).collect();
        check_namespaces(false, &[kind], &others);
        // With a user namespace that has no rights in what is joined.
        others.push("user");
        check_namespaces(false, &[kind], &others);
    }
}

#[test]
fn a_user_namespace_by_path() {
    check_namespaces(true, &["user"], &["pid", "network", "ipc", "uts", "mount", "cgroup", "time"]);
    check_namespaces(true, &["user"], &["mount"]);
    check_namespaces(true, &["user", "pid", "network"], &["ipc", "uts", "mount", "cgroup"]);
}

#[test]
fn a_mount_namespace_by_path() {
    check_namespaces(false, &["mount"], &["pid", "network", "ipc", "uts", "cgroup"]);
    check_namespaces(true, &["user", "mount"], &["pid", "network", "ipc", "uts", "cgroup"]);
}

#[test]
fn all_eight_namespaces_by_path() {
    for mapped in [true, false] {
        let kinds: Vec<&str> = KINDS.iter().map(|(kind, _)| *kind).filter(|kind| mapped || *kind != "user").collect();
        check_namespaces(mapped, &kinds, &[]);
    }
}

#[test]
fn what_fails_says_where_and_why() {
    let image = Image::new();
    let fails = |field: &str, value: Value| {
        let mut spec = image.spec("true");
        put(&mut spec, field, value);
        match image.run(&spec, &image.start()) {
            Err(failure) => failure,
            Ok(ended) => panic!("{field}: it ran: {}", ended.output),
        }
    };
    let failure = fails("process.args", json!(["no-such-thing"]));
    assert!(
        failure.sentence.starts_with("no such command: no-such-thing; looked in PATH /usr/local/bin"),
        "{failure:?}"
    );
    assert_eq!(failure.kind, explain::Kind::NotFound);

    std::fs::write(image.path.join("top/script"), "#!/bin/bash\n").unwrap();
    std::fs::set_permissions(image.path.join("top/script"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    let failure = fails("process.args", json!(["/script"]));
    assert_eq!(failure.sentence, "exec /script: the interpreter /bin/bash of this script is not in the image");

    let failure = fails("process.args", json!(["/opt"]));
    assert_eq!(
        (failure.sentence.as_str(), failure.kind),
        ("exec /opt: it is a directory", explain::Kind::NotExecutable)
    );

    let failure = fails("process.args", json!(["/opt/old/new"]));
    assert_eq!((failure.sentence.as_str(), failure.errno), ("exec /opt/old/new: permission denied", libc::EACCES));

    let failure = fails("process.cwd", json!("/opt/old/new"));
    let start = "making the working directory /opt/old/new: not a directory (step ";
    assert!(failure.sentence.starts_with(start), "{failure:?}");
    assert_eq!((failure.path.as_str(), failure.step), ("/opt/old/new", "ChangeDirectory"));

    image.output(&image.spec("true"), &image.start_volatile());
    let again = image.run(&image.spec("true"), &image.start_volatile()).map(|ended| ended.output).unwrap_err();
    assert!(again.hint.as_ref().is_some_and(|hint| hint.contains("serves once")), "{again:?}");
}

#[test]
fn a_memory_limit_that_is_too_small_is_no_start() {
    let image = Image::new();
    let mut spec = image.spec("echo ready; sleep 100");
    // Four pages: the child is killed on its way, in execve(2) at the latest.
    put(&mut spec, "linux.resources.memory", json!({"limit": 16384}));
    for init in [false, true] {
        let mut start = image.start();
        put(&mut start, "init", json!(init));
        let failure = image.run(&spec, &start).map(|ended| ended.output).unwrap_err();
        assert_eq!((failure.errno, failure.kind), (libc::ENOMEM, explain::Kind::Other), "{failure:?}");
        assert!(failure.hint.as_ref().is_some_and(|hint| hint.contains("too small")), "{failure:?}");
    }
}

#[test]
fn a_child_that_is_killed_before_its_command_has_not_started() {
    let image = Image::new();
    let mut spec = image.spec("true");
    let rules = json!([{"names": ["execve"], "action": "SCMP_ACT_KILL_PROCESS"}]);
    put(&mut spec, "linux.seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}));
    let failure = image.run(&spec, &image.start()).map(|ended| ended.output).unwrap_err();
    assert!(failure.sentence.starts_with("executing sh -c true: killed by signal 31 (step "), "{failure:?}");
    assert_eq!((failure.step, failure.kind), ("Exec", explain::Kind::Other));
}

#[test]
fn links_where_the_containers_own_things_go_are_refused_or_stay_inside() {
    for target in ["/canary", "../../../canary", "/no/where", "sys"] {
        let image = Image::new();
        symlink(target, image.path.join("top/sys")).unwrap();
        let failure = image.run(&image.spec("true"), &image.start()).map(|ended| ended.output).unwrap_err();
        assert!(failure.sentence.contains("at /sys: too many levels of symbolic links"), "{target}: {failure:?}");
    }
    let image = Image::new();
    symlink("/canary", image.path.join("top/etc")).unwrap();
    std::fs::create_dir(image.path.join("top/canary")).unwrap();
    assert!(image.output(&image.spec("cat /canary/hosts"), &image.start()).contains("localhost"));
    assert!(!Path::new("/canary").exists());
}

#[test]
fn a_file_covers_a_link_that_leads_nowhere() {
    for target in ["../run/systemd/resolve/stub-resolv.conf", "/canary/hosts", "hosts"] {
        let image = Image::new();
        for directory in ["etc", "data", "tmp"] {
            std::fs::create_dir_all(image.path.join("top").join(directory)).unwrap();
        }
        symlink(target, image.path.join("top/etc/hosts")).unwrap();
        for upper in [json!({"directory": "@/upper"}), Value::Null] {
            let mut start = image.start();
            put(&mut start, "rootfs.upper", upper);
            let output = image.output(&image.spec("cat /etc/hosts; [ -L /etc/hosts ] || echo covered"), &start);
            assert_eq!(output, "127.0.0.1 localhost\ncovered\n", "{target}");
        }
        assert!(!Path::new("/canary").exists());
    }
}

/// This machine's controllers may be on version 1; what is left of version 2 shows that a container is born in its group.
#[test]
fn on_cgroup_v2() {
    let mut image = Image::new();
    image.host.cgroups.v1.clear();
    let Some(unified) = &image.host.cgroups.v2 else { return };
    let group = format!("{}/pyrt-{}/box", unified.mount, image.id);
    let mut spec = image.spec("cat /proc/self/cgroup; ls /sys/fs/cgroup");
    put(&mut spec, "linux.resources", json!({}));
    let output = image.output(&spec, &image.start());
    // The root of a hierarchy has no such file; the root of a cgroup namespace has.
    assert!(output.contains("0::/\n") && output.contains("cgroup.events"), "{output}");
    assert!(!Path::new(&group).exists(), "the cgroup is left");

    let rules = json!([
        {"allow": false},
        {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"},
        {"allow": false, "type": "c", "major": 10, "minor": 229, "access": "w"}
    ]);
    put(&mut spec, "linux.resources", json!({"devices": rules}));
    let node = |path: &str, major: u32, minor: u32| json!({"path": path, "type": "c", "major": major, "minor": minor});
    put(&mut spec, "linux.devices", json!([node("/dev/port", 1, 4), node("/dev/fuse", 10, 229)]));
    // Its driver need not be there: what matters is who refuses.
    let script = "echo x > /dev/null && echo null; for file in port fuse; do (: < /dev/$file) 2>&1 | cat; done; echo; \
                  (: > /dev/fuse) 2>&1 | cat";
    put(&mut spec, "process.args", json!(["/bin/sh", "-c", script]));
    let ended = image.run(&as_host_root(spec.clone()), &image.start());
    let output = ended.unwrap_or_else(|failure| panic!("{failure:?}")).output;
    let (reading, writing) = output.split_once("\n\n").unwrap();
    let refused = |device: &str| format!("can't open /dev/{device}: Operation not permitted");
    assert!(reading.starts_with("null\n") && reading.contains(&refused("port")), "{output}");
    assert!(!reading.contains(&refused("fuse")), "{output}");
    assert!(writing.contains("can't create /dev/fuse: Operation not permitted"), "{output}");

    put(&mut spec, "linux.devices", json!([]));
    put(&mut spec, "linux.resources", json!({"unified": {"cgroup.max.descendants": "3"}}));
    put(&mut spec, "process.args", json!(["cat", "/sys/fs/cgroup/cgroup.max.descendants"]));
    assert_eq!(image.output(&spec, &image.start()), "3\n");
}

#[test]
fn devices_of_the_specification() {
    let image = Image::new();
    let mut spec = image
        .spec("stat -c '%n %F %a %u:%g %t:%T' /dev/net/tun /dev/fuse /dev/pipe; echo x > /dev/zero2; cat /dev/kmsg");
    let devices = json!([
        {"path": "/dev/net/tun", "type": "c", "major": 10, "minor": 200, "fileMode": 0o660, "uid": 0, "gid": 5},
        {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229},
        {"path": "/dev/pipe", "type": "p", "fileMode": 0o600},
        {"path": "/dev/zero2", "type": "c", "major": 1, "minor": 5},
        {"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11}
    ]);
    put(&mut spec, "linux.devices", devices);
    let output = image.run(&spec, &image.start()).unwrap().output;
    let expected = "/dev/net/tun character special file 660 0:5 a:c8\n/dev/fuse character special file 666 0:0 a:e5\n\
                    /dev/pipe fifo 600 0:0 0:0\ncat: can't open '/dev/kmsg': Operation not permitted\n";
    assert_eq!(output, expected);
}

#[test]
fn a_bind_shows_what_is_mounted_below_it() {
    let image = Image::new();
    std::fs::create_dir(image.path.join("data/sub")).unwrap();
    let sub = image.path.join("data/sub");
    rustix::mount::mount("tmpfs", &sub, "tmpfs", rustix::mount::MountFlags::empty(), c"mode=755").unwrap();
    std::fs::write(sub.join("deep"), "deep\n").unwrap();
    let script = "cat /data/sub/deep; stat -c %u /data/sub/deep; touch /data/x; touch /data/sub/x && echo written";
    let mut spec = image.spec(script);
    let mut outputs = Vec::new();
    for options in [json!(["rbind", "ro"]), json!(["rbind", "rro"]), json!(["bind"])] {
        put(&mut spec, "mounts[8].options", options);
        outputs.push(image.run(&spec, &image.start()).map(|ended| ended.output));
    }
    rustix::mount::unmount(&sub, rustix::mount::UnmountFlags::DETACH).unwrap();
    let outputs: Vec<String> = outputs.into_iter().map(Result::unwrap).collect();
    // Before Linux 6.3 a tmpfs can't be shown through an idmap: its owners show as nobody.
    let idmapped = image.host.kernel >= (6, 3);
    let (owner, end) = if idmapped { (0, "written") } else { (65534, "touch: /data/sub/x: Permission denied") };
    assert_eq!(outputs[0], format!("deep\n{owner}\ntouch: /data/x: Read-only file system\n{end}\n"));
    assert!(outputs[1].ends_with("touch: /data/sub/x: Read-only file system\n"), "{}", outputs[1]);
    assert!(outputs[2].starts_with("cat: can't open '/data/sub/deep'"), "{}", outputs[2]);
    assert!(image.path.join("data/x").exists());
}

#[test]
fn a_bind_with_mappings_of_its_own() {
    on_each_kernel(|image| {
        let mut spec = image.spec("stat -c %u:%g /data/file; stat -c %u:%g /srv");
        put(&mut spec, "mounts[8].options", json!(["rbind", "idmap"]));
        // The host's root is shown as what the container calls 5 and 7.
        let map = |inside: u32| json!([{"containerID": 0, "hostID": 1_878_982_656 + inside, "size": 1}]);
        put(&mut spec, "mounts[8].uidMappings", map(5));
        put(&mut spec, "mounts[8].gidMappings", map(7));
        assert_eq!(image.output(&spec, &image.start()), "5:7\n0:0\n");
    });
}

/// Where the kernel has AppArmor: one profile is always there.
#[test]
fn a_profile_of_apparmor() {
    let image = Image::new();
    if !image.host.apparmor {
        return;
    }
    let mut spec = image.spec("cat /proc/self/attr/current");
    put(&mut spec, "process.apparmorProfile", json!("unconfined"));
    assert_eq!(image.output(&spec, &image.start()).trim_end_matches('\0').trim(), "unconfined");
    put(&mut spec, "process.apparmorProfile", json!("no-such-profile"));
    let failure = image.run(&spec, &image.start()).map(|ended| ended.output).unwrap_err();
    assert_eq!((failure.step, failure.errno), ("SetSecurityLabel", libc::ENOENT), "{failure:?}");
}

#[test]
fn many_layers() {
    on_each_kernel(|image| {
        let mut lowers = Vec::new();
        for number in 0..125 {
            let layer = image.path.join(format!("layer-{number}"));
            std::fs::create_dir(&layer).unwrap();
            std::fs::write(layer.join(format!("file-{number}")), number.to_string()).unwrap();
            lowers.push(json!(format!("@/layer-{number}")));
        }
        lowers.extend(["@/top", "@/base", "@/scaffold"].map(|layer| json!(layer)));
        let mut start = image.start();
        put(&mut start, "rootfs.lowers", json!(lowers));
        let output = image.output(&image.spec("cat /file-0 /file-77 /file-124"), &start);
        assert_eq!(output, "077124");
    });
}

/// `cargo test --release -p pyrt-container --test containers -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn how_long_it_takes() {
    const ROUNDS: usize = 300;
    let image = Image::new();
    let mut spec = image.spec("true");
    put(&mut spec, "process.args", json!(["/bin/busybox", "true"]));
    put(&mut spec, "linux.cgroupsPath", Value::Null);
    let mut start = image.start();
    put(&mut start, "rootfs.upper", json!({"tmpfs": {}}));
    let (spec, start) = (image.text(&spec), image.text(&start));
    let compiling = |name: &str, spec: &str, start: &str| {
        let once = || {
            let begun = std::time::Instant::now();
            let compiled = compile(spec.as_bytes(), start.as_bytes(), &image.host).unwrap();
            let time = begun.elapsed().as_nanos() as u64;
            drop(compiled);
            time
        };
        let mut times: Vec<u64> = (0..ROUNDS).map(|_| once()).collect();
        times.sort_unstable();
        println!("compile {name}, us: p50 {} p99 {}", times[ROUNDS / 2] / 1000, times[ROUNDS * 99 / 100] / 1000);
    };
    compiling("all of it", &spec, &start);
    let mut less: Value = serde_json::from_str(&spec).unwrap();
    put(&mut less, "mounts[8].options", json!(["bind", "ro"]));
    compiling("without rbind", &less.to_string(), &start);
    put(&mut less, "linux.resources.cpu", json!({}));
    compiling("and without cpu", &less.to_string(), &start);
    less["mounts"].as_array_mut().unwrap().pop();
    compiling("and without a bind", &less.to_string(), &start);
    let rootless = as_host_root(less);
    compiling("and without a user namespace", &rootless.to_string(), &start);
    let mut steps: Vec<Vec<u64>> = Vec::new();
    let mut names = Vec::new();
    for _ in 0..ROUNDS {
        let compiled = compile(spec.as_bytes(), start.as_bytes(), &image.host).unwrap();
        let begun = pyrt_container::sys::monotonic();
        let launched = launch(&compiled).unwrap_or_else(|failure| panic!("{failure:?}"));
        steps.push(launched.running.timings.iter().map(|time| time.saturating_sub(begun)).collect());
        names = explain::steps(&Plan::parse(&compiled.bytes).unwrap(), &compiled.names);
        launched.finish();
    }
    for (index, step) in names.iter().enumerate() {
        let mut times: Vec<u64> = steps.iter().map(|times| times[index]).collect();
        times.sort_unstable();
        println!("{:8.1} {:?} {:18} {}", times[ROUNDS / 2] as f64 / 1000.0, step.part, step.name, step.text);
    }
}
