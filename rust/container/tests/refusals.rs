//! What can't be honoured is an error that names its place in the document, never something that is passed over.

mod fixture;

use fixture::{Machine, bundle, layered, put, spec};
use pyrt_container::compile::{Blame, Error};
use serde_json::{Value, json};

fn refusal(machine: &Machine, field: &str, value: &Value) -> Error {
    let (mut spec, mut start) = (spec("pyrt"), layered());
    match field.strip_prefix("start.") {
        Some(rest) => put(&mut start, rest, value.clone()),
        None => put(&mut spec, field, value.clone()),
    }
    match machine.compile(&spec, &start) {
        Err(error) => error,
        Ok(_) => panic!("{field} = {value} was accepted"),
    }
}

/// Each of (field, value, where the error has to point).
fn all_refused(cases: &[(&str, Value, &str)]) {
    let machine = Machine::with_cgroup_v1();
    for (field, value, path) in cases {
        let error = refusal(&machine, field, value);
        assert_eq!(error.path, *path, "{field} = {value}: {error}");
        assert_eq!(error.blame, Blame::Spec, "{error}");
        assert!(!error.message.is_empty() && !error.message.contains("at line"), "{error}");
    }
}

#[test]
fn what_is_not_supported_is_named() {
    let object = || json!({"x": 1});
    let cases = [
        ("hooks.prestart", json!([{"path": "/bin/true"}])),
        ("hooks.createRuntime", json!([{"path": "/bin/true"}])),
        ("hooks.createContainer", json!([{"path": "/bin/true"}])),
        ("hooks.startContainer", json!([{"path": "/bin/true"}])),
        ("hooks.poststart", json!([{"path": "/bin/true"}])),
        ("hooks.poststop", json!([{"path": "/bin/true"}])),
        ("solaris", object()),
        ("windows", object()),
        ("vm", object()),
        ("zos", object()),
        ("freebsd", object()),
        ("process.commandLine", json!("cmd.exe")),
        ("process.user.username", json!("Administrator")),
        ("linux.intelRdt", json!({"closID": "guaranteed"})),
        ("linux.personality", json!({"domain": "LINUX", "flags": ["x"]})),
        ("linux.resources.blockIO", json!({"leafWeight": 10})),
        ("linux.resources.memory", json!({"kernel": 5})),
    ];
    let machine = Machine::with_cgroup_v1();
    for (field, value) in cases {
        let error = refusal(&machine, field, &value);
        assert!(error.path.starts_with(field), "{field}: {error}");
        assert_eq!(error.message, "not supported", "{error}");
    }
}

#[test]
fn what_this_machine_lacks_is_named() {
    let machine = Machine::with_cgroup_v1();
    for field in ["process.selinuxLabel", "linux.mountLabel"] {
        let error = refusal(&machine, field, &json!("system_u:object_r:container_file_t:s0"));
        assert_eq!(error.to_string(), format!("{field}: SELinux is not enabled on this machine"));
    }
}

#[test]
fn what_asks_for_nothing_passes() {
    let machine = Machine::with_cgroup_v1();
    let mut spec = spec("pyrt");
    for (field, value) in [
        ("hooks", json!({"prestart": [], "poststop": null})),
        ("windows", Value::Null),
        ("process.apparmorProfile", json!("")),
        ("process.selinuxLabel", Value::Null),
        ("linux.intelRdt", json!({})),
        ("linux.resources.blockIO", json!({})),
        ("linux.resources.hugepageLimits", json!([])),
        ("linux.devices", Value::Null),
        ("annotations", json!({"run.oci.keep_original_groups": "1"})),
    ] {
        put(&mut spec, field, value);
    }
    machine.compile(&spec, &layered()).unwrap();
}

#[test]
fn a_field_that_nobody_knows_is_named() {
    let places = [
        "surprise",
        "process.surprise",
        "process.user.surprise",
        "process.capabilities.surprise",
        "process.rlimits[0].surprise",
        "root.surprise",
        "mounts[3].surprise",
        "linux.surprise",
        "linux.namespaces[2].surprise",
        "linux.uidMappings[0].surprise",
        "linux.resources.surprise",
        "linux.resources.memory.surprise",
        "linux.resources.cpu.surprise",
        "linux.resources.devices[0].surprise",
        "hooks.surprise",
        "start.surprise",
        "start.rootfs.surprise",
        "start.rootfs.files[1].surprise",
    ];
    let machine = Machine::with_cgroup_v1();
    for place in places {
        let error = refusal(&machine, place, &json!(1));
        assert_eq!(error.to_string(), format!("{place}: no such field in the specification"));
    }
}

#[test]
fn a_missing_field_and_a_wrong_type_are_named() {
    let machine = Machine::with_cgroup_v1();
    for (parent, field) in [
        ("process", "user"),
        ("process", "cwd"),
        ("process.user", "gid"),
        ("mounts[1]", "destination"),
        ("linux.namespaces[0]", "type"),
    ] {
        let mut spec = spec("pyrt");
        let path = format!("/{}", parent.replace(['.', '['], "/").replace(']', ""));
        spec.pointer_mut(&path).unwrap().as_object_mut().unwrap().remove(field);
        let error = machine.compile(&spec, &layered()).unwrap_err();
        assert_eq!(error.to_string(), format!("{parent}.{field}: missing"));
    }
    all_refused(&[
        ("process.args", json!("sh"), "process.args"),
        ("process.args[1]", json!(5), "process.args[1]"),
        ("process.user.uid", json!(-1), "process.user.uid"),
        ("process.user.uid", json!(4_294_967_296_i64), "process.user.uid"),
        ("process.env[0]", json!("A=\0"), "process.env[0]"),
        ("linux.namespaces[0].type", json!("pidd"), "linux.namespaces[0].type"),
        ("linux.resources.memory.limit", json!("64m"), "linux.resources.memory.limit"),
        ("linux.resources.pids.limit", json!(1.5), "linux.resources.pids.limit"),
        ("linux.seccomp", json!({"defaultAction": "SCMP_ACT_MAYBE"}), "linux.seccomp.defaultAction"),
    ]);
}

#[test]
fn what_is_no_json_says_so() {
    let machine = Machine::with_cgroup_v1();
    for text in ["", "{", "[]", "null", "{\"ociVersion\": \"1.0.2\"} x", "\u{feff}{}"] {
        let start = machine.text(&layered().to_string());
        let error = pyrt_container::compile::compile(text.as_bytes(), start.as_bytes(), &machine.host).unwrap_err();
        assert_eq!(error.blame, Blame::Spec, "{text}: {error}");
    }
    let error = pyrt_container::compile::compile(b"{} x", b"{}", &machine.host).unwrap_err();
    assert!(error.message.starts_with("not JSON: ") || error.message == "missing", "{error}");
}

#[test]
fn fields_given_twice_are_ambiguous() {
    let machine = Machine::with_cgroup_v1();
    let text = machine.text(&spec("pyrt").to_string()).replacen("\"hostname\":", "\"hostname\":\"a\",\"hostname\":", 1);
    let start = machine.text(&layered().to_string());
    let error = pyrt_container::compile::compile(text.as_bytes(), start.as_bytes(), &machine.host).unwrap_err();
    assert_eq!(error.to_string(), "hostname: given twice");
}

#[test]
fn versions_and_processes() {
    all_refused(&[
        ("ociVersion", json!("2.0.0"), "ociVersion"),
        ("ociVersion", json!(""), "ociVersion"),
        ("ociVersion", json!("1"), "ociVersion"),
        ("process", Value::Null, "process"),
        ("process.args", json!([]), "process.args"),
        ("process.args", Value::Null, "process.args"),
        ("process.args", json!([""]), "process.args[0]"),
        ("process.env", json!(["A=1", "B"]), "process.env[1]"),
        ("process.env", json!(["=1"]), "process.env[0]"),
        ("process.cwd", json!("srv"), "process.cwd"),
        ("process.cwd", json!(""), "process.cwd"),
        ("process.cwd", json!("/srv/../.."), "process.cwd"),
        ("process.user.uid", json!(65536), "process.user.uid"),
        ("process.user.uid", json!(4_294_967_295_u32), "process.user.uid"),
        ("process.user.gid", json!(70000), "process.user.gid"),
        ("process.user.additionalGids", json!([0, 99999]), "process.user.additionalGids[1]"),
        ("process.user.umask", json!(512), "process.user.umask"),
        ("process.oomScoreAdj", json!(1001), "process.oomScoreAdj"),
        ("process.capabilities.bounding[0]", json!("CHOWN"), "process.capabilities.bounding[0]"),
        ("process.capabilities.ambient", json!(["CAP_EVERYTHING"]), "process.capabilities.ambient[0]"),
        ("process.capabilities.effective", json!(["CAP_CHOWN"]), "process.capabilities.effective"),
        ("process.rlimits[0].type", json!("RLIMIT_FISH"), "process.rlimits[0].type"),
        ("process.rlimits[1].type", json!("RLIMIT_NOFILE"), "process.rlimits[1].type"),
        ("process.rlimits[1].soft", json!(1), "process.rlimits[1].soft"),
        ("process.scheduler", json!({"policy": "SCHED_ISO"}), "process.scheduler.policy"),
        ("process.scheduler", json!({"policy": "SCHED_RR", "priority": -1}), "process.scheduler.priority"),
        ("process.scheduler", json!({"policy": "SCHED_RR", "flags": ["X"]}), "process.scheduler.flags[0]"),
        ("process.ioPriority", json!({"class": "IOPRIO_CLASS_X"}), "process.ioPriority.class"),
        ("process.ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 8}), "process.ioPriority.priority"),
        ("process.execCPUAffinity", json!({"initial": "1-"}), "process.execCPUAffinity.initial"),
        ("linux.personality", json!({"domain": "BSD"}), "linux.personality.domain"),
    ]);
}

#[test]
fn namespaces_and_ids() {
    let map = |lines: &[(u32, u32, u32)]| {
        let line =
            |(container, host, size): &(u32, u32, u32)| json!({"containerID": container, "hostID": host, "size": size});
        Value::Array(lines.iter().map(line).collect())
    };
    all_refused(&[
        ("linux.namespaces", json!([{"type": "pid"}, {"type": "user"}]), "linux.namespaces"),
        ("linux.namespaces[1]", json!({"type": "pid"}), "linux.namespaces[1]"),
        ("linux.namespaces[1].path", json!("proc/1/ns/net"), "linux.namespaces[1].path"),
        ("linux.namespaces[1].path", json!("/no/such/namespace"), "linux.namespaces[1].path"),
        ("linux.namespaces[1].path", json!("/proc/self/ns/pid"), "linux.namespaces[1].path"),
        ("linux.namespaces[1].path", json!("/proc/self/status"), "linux.namespaces[1].path"),
        // The host's own.
        ("linux.namespaces[4].path", json!("/proc/self/ns/mnt"), "linux.namespaces"),
        ("linux.namespaces[6].path", json!("/proc/self/ns/user"), "linux.uidMappings"),
        ("linux.timeOffsets", json!({"monotonic": {"secs": 1}}), "linux.timeOffsets.monotonic"),
        ("linux.timeOffsets", json!({"realtime": {"secs": 1}}), "linux.timeOffsets.realtime"),
        ("linux.namespaces", json!([{"type": "mount"}]), "linux.uidMappings"),
        ("linux.uidMappings", json!([]), "linux.uidMappings"),
        ("linux.gidMappings", Value::Null, "linux.gidMappings"),
        ("linux.uidMappings", map(&[(1, 1000, 10)]), "linux.uidMappings"),
        ("linux.uidMappings", map(&[(0, 1000, 0)]), "linux.uidMappings[0]"),
        ("linux.uidMappings", map(&[(0, 1000, 10), (5, 5000, 10)]), "linux.uidMappings[1]"),
        ("linux.uidMappings", map(&[(0, 1000, 10), (50, 1009, 10)]), "linux.uidMappings[1]"),
        ("linux.uidMappings", map(&[(0, 4_294_967_290, 10)]), "linux.uidMappings[0]"),
        ("linux.uidMappings", map(&[(0, 1, u32::MAX)]), "linux.uidMappings[0]"),
        ("linux.gidMappings", map(&(0..341).map(|id| (id, id, 1)).collect::<Vec<_>>()), "linux.gidMappings"),
        ("hostname", json!("x".repeat(65)), "hostname"),
        ("domainname", json!("x".repeat(65)), "domainname"),
        ("linux.sysctl", json!({"kernel.core_pattern": "x"}), "linux.sysctl.kernel.core_pattern"),
        ("linux.sysctl", json!({"net/../kernel/core_pattern": "x"}), "linux.sysctl.net/../kernel/core_pattern"),
        ("linux.cgroupsPath", json!("/../x"), "linux.cgroupsPath"),
        ("linux.cgroupsPath", json!("/"), "linux.cgroupsPath"),
        ("linux.cgroupsPath", json!("system.slice:docker:x"), "linux.cgroupsPath"),
    ]);
}

#[test]
fn parameters_and_names_need_their_namespace() {
    let machine = Machine::with_cgroup_v1();
    let kinds = ["pid", "mount", "cgroup", "user"].map(|kind| json!({"type": kind}));
    for (field, value, path) in [
        ("hostname", json!("box"), "hostname"),
        ("domainname", json!("box"), "domainname"),
        ("linux.sysctl", json!({"net.ipv4.ip_forward": "1"}), "linux.sysctl.net.ipv4.ip_forward"),
        ("linux.sysctl", json!({"kernel.shmmax": "1"}), "linux.sysctl.kernel.shmmax"),
        ("linux.sysctl", json!({"fs.mqueue.msg_max": "1"}), "linux.sysctl.fs.mqueue.msg_max"),
    ] {
        let mut spec = spec("pyrt");
        put(&mut spec, "linux.namespaces", json!(kinds));
        put(&mut spec, "hostname", json!(""));
        put(&mut spec, "linux.sysctl", json!({}));
        put(&mut spec, field, value);
        assert_eq!(machine.compile(&spec, &layered()).unwrap_err().path, path);
    }
}

#[test]
fn mounts_and_paths() {
    let bind = |destination: &str| json!({"destination": destination, "type": "bind", "source": "@/data", "options": ["bind"]});
    all_refused(&[
        ("mounts[8].destination", json!(""), "mounts[8].destination"),
        ("mounts[8].destination", json!("/data/../../x"), "mounts[8].destination"),
        ("mounts[8].destination", json!("/"), "mounts[8].destination"),
        ("mounts[8].destination", json!("//tmp/."), "mounts[8].destination"),
        ("mounts[8].source", json!("/no/such/thing"), "mounts[8].source"),
        ("mounts[8].source", json!("data"), "mounts[8].source"),
        ("mounts[8].source", Value::Null, "mounts[8].source"),
        ("mounts[8].options", json!(["bind", "size=5"]), "mounts[8].options[1]"),
        ("mounts[8].options", json!(["size=5", "remount"]), "mounts[8].options[0]"),
        ("mounts[8].options", json!(["bind", "tmpcopyup"]), "mounts[8].options"),
        ("mounts[7].options", json!(["idmap"]), "mounts[7].options"),
        ("mounts[7].gidMappings", json!([{"containerID": 0, "hostID": 1, "size": 1}]), "mounts[7].gidMappings"),
        ("mounts[8].uidMappings", json!([{"containerID": 0, "hostID": 1, "size": 1}]), "mounts[8].gidMappings"),
        ("mounts[8].gidMappings", json!([{"containerID": 0, "hostID": 1, "size": 0}]), "mounts[8].uidMappings"),
        ("mounts[7].type", json!("nofs"), "mounts[7].type"),
        ("mounts[7].type", Value::Null, "mounts[7].type"),
        ("mounts[2].options[5]", json!("gid=70000"), "mounts[2].options[5]"),
        ("mounts[2].options[5]", json!("gid=tty"), "mounts[2].options[5]"),
        ("mounts[0]", bind("/proc"), "mounts[0].source"),
        ("mounts[5]", bind("/sys"), "mounts[5].source"),
        ("mounts[8]", bind("/proc/sys"), "mounts[8].destination"),
        ("mounts[8]", bind("/proc/self/attr"), "mounts[8].destination"),
        ("mounts[0].type", json!("tmpfs"), "mounts[0].destination"),
        ("mounts[5].type", json!("tmpfs"), "mounts[5].destination"),
        ("linux.maskedPaths[1]", json!("proc/kcore"), "linux.maskedPaths[1]"),
        ("linux.readonlyPaths[0]", json!("/"), "linux.readonlyPaths[0]"),
        ("linux.rootfsPropagation", json!("sometimes"), "linux.rootfsPropagation"),
        ("linux.devices", json!([{"path": "/proc/x", "type": "c", "major": 1, "minor": 3}]), "linux.devices[0].path"),
        ("linux.devices", json!([{"path": "/dev/x", "type": "d"}]), "linux.devices[0].type"),
        ("linux.devices", json!([{"path": "/dev/x", "type": "c", "major": 4096}]), "linux.devices[0].major"),
        ("linux.devices", json!([{"path": "/dev/x", "type": "c", "uid": 70000}]), "linux.devices[0].uid"),
        (
            "linux.devices",
            json!([{"path": "/dev/x", "type": "p"}, {"path": "/dev//x", "type": "p"}]),
            "linux.devices[1].path",
        ),
    ]);
    let machine = Machine::with_cgroup_v1();
    let mut spec = spec("pyrt");
    put(&mut spec, "process.terminal", json!(true));
    spec["mounts"].as_array_mut().unwrap().remove(2);
    assert_eq!(machine.compile(&spec, &layered()).unwrap_err().path, "process.terminal");
}

#[test]
fn the_start_document() {
    let lowers: Vec<String> = (0..201).map(|_| "@/top".to_owned()).collect();
    all_refused(&[
        ("start.id", json!(""), "start.id"),
        ("start.id", json!("a/b"), "start.id"),
        ("start.id", json!("x".repeat(256)), "start.id"),
        ("start.bundle", json!("relative"), "start.bundle"),
        ("start.rootfs.lowers", json!([]), "start.rootfs.lowers"),
        ("start.rootfs.lowers", json!(["@/top", "middle"]), "start.rootfs.lowers[1]"),
        ("start.rootfs.lowers", json!(["@/top", "@/no-such-layer"]), "start.rootfs.lowers[1]"),
        ("start.rootfs.lowers", json!(lowers), "start.rootfs.lowers"),
        ("start.rootfs.upper", json!({"directory": "container"}), "start.rootfs.upper.directory"),
        ("start.rootfs.upper", json!({"directory": "@/data"}), "start.rootfs.upper.directory"),
        ("start.rootfs.upper", json!({"disk": 5}), "start.rootfs.upper"),
        ("start.rootfs.files[0].path", json!("etc/hosts"), "start.rootfs.files[0].path"),
        ("start.rootfs.files[0].path", json!("/etc//hosts"), "start.rootfs.files[0].path"),
        ("start.rootfs.files[0].mode", json!(0o100_644), "start.rootfs.files[0].mode"),
    ]);
}

#[test]
fn bundles() {
    let machine = Machine::with_cgroup_v1();
    std::os::unix::fs::symlink("rootfs", machine.path.join("bundle/link")).unwrap();
    std::fs::write(machine.path.join("bundle/file"), "").unwrap();
    for (root, words) in [
        (json!({"path": "link"}), "is a symbolic link"),
        (json!({"path": "file"}), "is not a directory"),
        (json!({"path": "nothing"}), "no such file or directory"),
        (json!({"path": ""}), "empty"),
    ] {
        let mut spec = spec("runc");
        put(&mut spec, "root", root);
        let error = machine.compile(&spec, &bundle()).unwrap_err();
        assert!(error.path == "root.path" && error.message.ends_with(words), "{error}");
    }
    let mut spec = spec("runc");
    assert_eq!(machine.compile(&spec, &json!({"id": "x"})).unwrap_err().path, "root.path");
    put(&mut spec, "root", Value::Null);
    assert_eq!(machine.compile(&spec, &bundle()).unwrap_err().path, "root");
}

#[test]
fn what_the_machine_lacks_is_the_machines_fault() {
    let mut machine = Machine::with_cgroup_v1();
    machine.host.swap_accounting = false;
    let error = machine.compile(&spec("pyrt"), &layered()).unwrap_err();
    assert_eq!((error.blame, error.path.as_str()), (Blame::Host, "linux.resources.memory.swap"));

    let mut machine = Machine::with_cgroup_v1();
    machine.host.cgroups.v1.retain(|hierarchy| !hierarchy.controls("pids"));
    let error = machine.compile(&spec("pyrt"), &layered()).unwrap_err();
    assert_eq!((error.blame, error.path.as_str()), (Blame::Host, "linux.resources.pids.limit"));
    assert!(error.message.contains("controller pids"), "{error}");

    let machine = Machine::with_cgroup_v1();
    for (field, value, path, controller) in [
        ("blockIO", json!({"weight": 10}), "blockIO.weight", "blkio"),
        ("hugepageLimits", json!([{"pageSize": "2MB", "limit": 1}]), "hugepageLimits[0]", "hugetlb"),
        ("network", json!({"classID": 1}), "network.classID", "net_cls"),
        ("rdma", json!({"mlx5_1": {"hcaHandles": 3}}), "rdma.mlx5_1", "rdma"),
    ] {
        let error = refusal(&machine, &format!("linux.resources.{field}"), &value);
        assert_eq!((error.blame, error.path), (Blame::Host, format!("linux.resources.{path}")));
        assert!(error.message.contains(&format!("controller {controller} ")), "{}", error.message);
    }

    let error = refusal(&Machine::with_cgroup_v1(), "process.apparmorProfile", &json!("docker-default"));
    assert_eq!((error.blame, error.path.as_str()), (Blame::Host, "process.apparmorProfile"));

    for kernel in [(5, 10), (5, 18)] {
        let mut machine = Machine::with_cgroup_v1();
        machine.host.kernel = kernel;
        let error = machine.compile(&spec("pyrt"), &layered()).unwrap_err();
        assert_eq!(error.blame, Blame::Host);
        assert!(error.message.contains("needs Linux") && error.hint.is_some(), "{error}");
    }
}

#[test]
fn capabilities_that_this_process_lacks_can_be_had_only_inside() {
    let mut machine = Machine::with_cgroup_v1();
    machine.host.privileged = true;
    machine.host.capabilities &= !(1 << 24);
    let mut spec = spec("runc");
    put(&mut spec, "process.capabilities.permitted", json!(["CAP_KILL", "CAP_SYS_RESOURCE"]));
    put(&mut spec, "process.capabilities.effective", json!(["CAP_KILL"]));
    let error = machine.compile(&spec, &bundle()).unwrap_err();
    assert_eq!((error.blame, error.path.as_str()), (Blame::Host, "process.capabilities.permitted"));
    assert!(error.message.contains("CAP_SYS_RESOURCE"), "{error}");
}

#[test]
fn no_change_of_one_byte_does_more_than_fail() {
    let machine = Machine::with_cgroup_v1();
    let (spec, start) = (machine.text(&spec("pyrt").to_string()), machine.text(&layered().to_string()));
    for position in (0..spec.len()).step_by(3) {
        for byte in *b"0}\"" {
            let mut broken = spec.clone().into_bytes();
            broken[position] = byte;
            if let Err(error) = pyrt_container::compile::compile(&broken, start.as_bytes(), &machine.host) {
                assert!(!error.message.is_empty());
            }
        }
    }
}
