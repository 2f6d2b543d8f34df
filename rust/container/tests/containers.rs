//! Containers from compiled plans, on this machine's kernel. Needs root.

mod fixture;

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use fixture::{put, spec};
use pyrt_container::compile::{Compiled, compile, compile_exec};
use pyrt_container::execute::{self, Running};
use pyrt_container::explain::{self, Failure};
use pyrt_container::host::Host;
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
        for directory in ["base/bin", "base/etc", "base/srv", "base/opt/old", "top/opt", "upper/upper", "upper/work", "data"]
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
                "volatile": true,
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
        put(&mut spec, "linux.cgroupsPath", json!(format!("/pyrt-test/{}", self.id)));
        put(&mut spec, "linux.uidMappings[0].hostID", json!(1_878_982_656));
        put(&mut spec, "linux.gidMappings[0].hostID", json!(1_878_982_656));
        spec
    }

    fn text(&self, document: &Value) -> String {
        document.to_string().replace('@', &self.path.display().to_string())
    }

    fn compile(&self, spec: &Value, start: &Value) -> Compiled {
        compile(self.text(spec).as_bytes(), self.text(start).as_bytes(), &self.host).unwrap()
    }

    fn run(&self, spec: &Value, start: &Value) -> Result<Ended, Failure> {
        launch(&self.compile(spec, start)).map(Launched::finish)
    }

    /// What the script prints, which must end well.
    fn output(&self, spec: &Value, start: &Value) -> String {
        let ended = self.run(spec, start).unwrap_or_else(|failure| panic!("{failure:?}"));
        assert_eq!(ended.code, Some(0), "{}", ended.output);
        ended.output
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
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

fn launch(compiled: &Compiled) -> Result<Launched, Failure> {
    let (read, write) = std::io::pipe().unwrap();
    let null = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    let plan = Plan::parse(&compiled.bytes).unwrap();
    // The executor owns its table, so it gets copies.
    let own = |fd: i32| pyrt_container::sys::dup_above(fd, 3).unwrap();
    let mut descriptors = vec![own(null.as_raw_fd()), own(write.as_raw_fd()), own(write.as_raw_fd())];
    descriptors.extend(compiled.descriptors.iter().map(|fd| own(fd.as_raw_fd())));
    drop(write);
    match execute::start(&plan, &descriptors) {
        Ok(running) => Ok(Launched { running, output: OwnedFd::from(read).into() }),
        Err(failed) => {
            let errno = failed.errno.0;
            descriptors.into_iter().for_each(pyrt_container::sys::close);
            Err(explain::failure(&plan, &compiled.names, failed.part, failed.index, errno, &failed.evidence))
        }
    }
}

#[test]
fn the_usual_container() {
    let image = Image::new();
    let script = "hostname; id -u; pwd; cat /etc/hosts; cat /data/file; echo kept > /srv/new; cat /opt/old/new; \
                  ls /opt/old; cat /proc/self/uid_map; cat /proc/1/cgroup | head -1; \
                  echo x > /dev/null && stat -c %u:%t:%T /dev/null; ls /sys/fs/cgroup | head -1; \
                  cat /proc/sys/net/ipv4/ip_unprivileged_port_start; ls /proc/acpi /sys/firmware; \
                  echo y > /proc/sys/kernel/hostname || echo refused; touch /data/x || echo read-only; ls -l /data/file";
    let output = image.output(&image.spec(script), &image.start());
    println!("{output}");
    for line in ["box", "/srv", "127.0.0.1 localhost", "from the host", "new", "refused", "read-only", "0:1:3"] {
        assert!(output.lines().any(|found| found == line), "{line} is missing in {output}");
    }
    assert!(!output.contains("hidden"), "an opaque directory is not opaque: {output}");
    let kept = image.path.join("upper/upper/srv/new");
    assert_eq!(std::fs::read_to_string(&kept).unwrap(), "kept\n");
    use std::os::unix::fs::MetadataExt;
    assert_eq!(std::fs::metadata(kept).unwrap().uid(), 0, "owners on the disk are unshifted");
}
