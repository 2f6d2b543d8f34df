//! Plans of representative containers, step by step, against files that people read in review.
//!
//! `PYRT_BLESS=1 cargo test -p pyrt-container --test plans` writes the files anew.

mod fixture;

use fixture::{Machine, bundle, layered, put, spec};
use pyrt_container::host::Features;
use serde_json::{Value, json};

fn check(name: &str, listing: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.txt"));
    if std::env::var_os("PYRT_BLESS").is_some() {
        std::fs::write(&path, listing).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    for (number, (line, wanted)) in listing.lines().zip(expected.lines()).enumerate() {
        assert_eq!(line, wanted, "{name}, line {}", number + 1);
    }
    assert_eq!(listing.lines().count(), expected.lines().count(), "{name}: number of steps");
}

fn compiled(machine: &Machine, name: &str, spec: &Value, start: &Value) {
    check(name, &machine.listing(&machine.compile(spec, start).unwrap()));
}

#[test]
fn a_container_with_everything() {
    compiled(&Machine::with_cgroup_v1(), "everything", &spec("pyrt"), &layered());
}

#[test]
fn on_cgroup_v2() {
    compiled(&Machine::with_cgroup_v2(), "cgroup-v2", &spec("pyrt"), &layered());
}

#[test]
fn on_an_older_kernel() {
    let mut machine = Machine::with_cgroup_v1();
    machine.host.features = Features { overlay_by_descriptor: false, detached_trees: false };
    let mut spec = spec("pyrt");
    put(&mut spec, "linux.resources", json!({}));
    compiled(&machine, "older-kernel", &spec, &layered());
}

#[test]
fn the_default_specification_of_runc() {
    compiled(&Machine::with_cgroup_v1(), "runc", &spec("runc"), &bundle());
}

#[test]
fn a_terminal_and_an_init_of_ours() {
    let (mut spec, mut start) = (spec("pyrt"), layered());
    put(&mut spec, "process.terminal", json!(true));
    put(&mut spec, "process.consoleSize", json!({"height": 24, "width": 80}));
    put(&mut start, "init", json!(true));
    put(&mut start, "rootfs.upper", json!({"tmpfs": {"size": 1048576}}));
    compiled(&Machine::with_cgroup_v1(), "terminal", &spec, &start);
}

#[test]
fn namespaces_of_the_host_and_a_user_namespace() {
    let (mut spec, mut start) = (spec("pyrt"), layered());
    put(&mut spec, "linux.namespaces", json!([{"type": "mount"}, {"type": "user"}]));
    put(&mut spec, "linux.sysctl", json!({}));
    put(&mut spec, "hostname", json!(""));
    put(&mut start, "rootfs.upper", Value::Null);
    compiled(&Machine::with_cgroup_v1(), "host-namespaces", &spec, &start);
}

#[test]
fn one_layer_without_changes_needs_no_overlay() {
    let (mut spec, mut start) = (spec("pyrt"), layered());
    put(&mut spec, "linux.namespaces", json!([{"type": "mount"}, {"type": "pid"}]));
    for field in ["linux.uidMappings", "linux.gidMappings", "linux.maskedPaths", "linux.readonlyPaths", "mounts"] {
        put(&mut spec, field, json!([]));
    }
    put(&mut spec, "hostname", json!(""));
    put(&mut spec, "linux.sysctl", json!({}));
    put(&mut start, "rootfs", json!({"lowers": ["@/top"]}));
    compiled(&Machine::with_cgroup_v1(), "one-layer", &spec, &start);
}

#[test]
fn one_more_process() {
    let machine = Machine::with_cgroup_v1();
    for controllers in ["cpu,cpuacct", "cpuset", "memory", "devices", "pids"] {
        let group = machine.path.join(controllers).join("pyrt").join(fixture::ID);
        std::fs::create_dir_all(&group).unwrap();
        std::fs::write(group.join("tasks"), "").unwrap();
    }
    let mut process = spec("pyrt")["process"].clone();
    put(&mut process, "args", json!(["id"]));
    put(&mut process, "execCPUAffinity", json!({"initial": "0", "final": "0-1"}));
    let pidfd = std::fs::File::open("/dev/null").unwrap().into();
    let (spec, start) = (machine.text(&spec("pyrt").to_string()), machine.text(&layered().to_string()));
    let process = process.to_string();
    let compiled = pyrt_container::compile::compile_exec(
        spec.as_bytes(),
        process.as_bytes(),
        start.as_bytes(),
        pidfd,
        &machine.host,
    );
    check("exec", &machine.listing(&compiled.unwrap()));
}

#[test]
fn a_group_is_handed_to_whoever_may_write_to_what_it_sees_of_it() {
    let machine = Machine::with_cgroup_v2();
    let (mut spec, mut start) = (spec("pyrt"), bundle());
    put(&mut start, "lifecycle", json!({}));
    for (options, handed) in [(json!([]), true), (json!(["ro"]), false)] {
        let mount = json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "options": options});
        put(&mut spec, "mounts", json!([mount]));
        let listing = machine.listing(&machine.compile(&spec, &start).unwrap());
        assert_eq!(
            listing.contains("DelegateCgroup") || listing.contains("giving cgroup.procs of"),
            handed,
            "{listing}"
        );
    }
}

#[test]
fn where_others_look_mounts_are_made_in_order() {
    let (mut spec, mut start) = (spec("pyrt"), bundle());
    put(&mut start, "lifecycle", json!({"spare": "/spare"}));
    let mount = json!({"destination": "/file", "type": "bind", "source": "/etc/passwd", "options": ["rbind", "ro"]});
    put(&mut spec, "mounts[7]", mount);
    compiled(&Machine::with_cgroup_v1(), "mounts-in-order", &spec, &start);
}
