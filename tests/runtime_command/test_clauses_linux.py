"""config-linux.md, clause by clause, what `test_config.py` does not show by one field."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.runtime_command.test_clauses_config import map_ids

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.runtime_command.command import Bundle, Runtime

pytestmark = pytest.mark.root

# How /proc/PID/ns calls what config.json calls otherwise.
FILES = {"network": "net", "mount": "mnt"}
KINDS = ["pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time"]
MAPPING = [{"containerID": 0, "hostID": 100000, "size": 65536}]


def run(runtime: Runtime, bundle: Bundle, name: str, script: str) -> list[str]:
    """The lines that a script inside prints."""
    bundle.shell(script)
    return runtime.ok("run", "--bundle", bundle.path, name).splitlines()


def sleep(runtime: Runtime, bundle: Bundle, name: str) -> int:
    """A container that stays; its process."""
    bundle.runs("/bin/sleep", "100")
    runtime.ok("run", "--detach", "--bundle", bundle.path, name)
    pid: int = runtime.state(name)["pid"]
    return pid


def group(pid: int, controller: str) -> Path:
    """The group of version 1 that a process is in."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return Path(f"/sys/fs/cgroup/{controller}{path}")
    pytest.fail(f"this machine has no {controller} on version 1")


def test_every_kind_of_namespace_is_new(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """Namespaces: without a path a new one."""
    bundle.config["linux"] |= {"uidMappings": MAPPING, "gidMappings": MAPPING}
    bundle.config["linux"]["namespaces"] = [{"type": kind} for kind in KINDS]
    pid = sleep(runtime, bundle, name)
    for kind in (FILES.get(kind, kind) for kind in KINDS):
        assert os.readlink(f"/proc/{pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")


def inherit_all(bundle: Bundle) -> list[Path]:
    """The container is given no namespace, and a root file system of its own; returns what is mounted there."""
    rootfs = bundle.path / "rootfs"
    shutil.copytree(bundle.config["root"]["path"], rootfs, symlinks=True)
    bundle.config["root"] = {"path": "rootfs"}
    bundle.config["linux"]["namespaces"] = []
    return [rootfs / mount["destination"].lstrip("/") for mount in bundle.config["mounts"]]


def mounted_at(places: list[Path]) -> list[Path]:
    """Those that are mounted here."""
    mounted = {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    return [place for place in places if str(place) in mounted]


def test_a_namespace_that_is_not_listed_is_inherited(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """Namespaces. What is mounted is seen by all; it goes when the container is deleted."""
    places = inherit_all(bundle)
    (bundle.path / "rootfs" / "mark").write_text("inside\n")
    pid = sleep(runtime, bundle, name)
    for kind in (FILES.get(kind, kind) for kind in KINDS):
        assert os.readlink(f"/proc/{pid}/ns/{kind}") == os.readlink(f"/proc/self/ns/{kind}")
    assert os.readlink(f"/proc/{pid}/root") == str(bundle.path / "rootfs")
    assert mounted_at(places) == places
    assert runtime.ok("exec", name, "/bin/cat", "/mark") == "inside\n"
    runtime.ok("delete", "--force", name)
    assert mounted_at([*places, bundle.path / "rootfs"]) == []
    assert run(runtime, bundle, name, "cat /mark; ls /proc/self/exe") == ["inside", "/proc/self/exe"]


@pytest.mark.parametrize("trouble", ["hook", "command", "crash"])
def test_what_fails_leaves_nothing_mounted_there(runtime: Runtime, bundle: Bundle, name: str, trouble: str) -> None:
    """runtime.md, "Errors": as if it had never been tried."""
    places = inherit_all(bundle)
    bundle.runs("/no/such" if trouble == "command" else "/bin/true")
    script = "exit 1" if trouble == "hook" else "kill -9 $PPID" if trouble == "crash" else "exit 0"
    bundle.set("hooks", {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]})
    assert runtime.call("create", "--bundle", bundle.path, name).code != 0
    runtime.ok("delete", "--force", name)
    assert mounted_at([*places, bundle.path / "rootfs"]) == []


def test_what_was_mounted_there_before_stays(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """runtime.md, "Delete": what the container has not made is not deleted."""
    inherit_all(bundle)
    rootfs = bundle.path / "rootfs"
    subprocess.run(["mount", "--bind", rootfs, rootfs], check=True)
    try:
        sleep(runtime, bundle, name)
        runtime.ok("delete", "--force", name)
        assert mounted_at([rootfs]) == [rootfs]
    finally:
        subprocess.run(["umount", rootfs], check=True)


def test_owners_of_files_are_not_changed_by_a_mapping(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """User namespace mappings."""
    rootfs = Path(bundle.config["root"]["path"])
    before = {path: os.lstat(path).st_uid for path in rootfs.iterdir()}
    bundle.config["linux"]["namespaces"].append({"type": "user"})
    bundle.config["linux"] |= {"uidMappings": MAPPING, "gidMappings": MAPPING}
    assert run(runtime, bundle, name, "id -u") == ["0"]
    assert {path: os.lstat(path).st_uid for path in rootfs.iterdir()} == before


def test_clocks_are_set_off(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """Offset for Time Namespace."""
    bundle.config["linux"]["namespaces"].append({"type": "time"})
    bundle.config["linux"]["timeOffsets"] = {"monotonic": {"secs": 500, "nanosecs": 7}, "boottime": {"secs": 1_000_000}}
    seen = run(runtime, bundle, name, "cat /proc/self/timens_offsets; cut -d. -f1 /proc/uptime")
    assert [line.split() for line in seen[:2]] == [["monotonic", "500", "7"], ["boottime", "1000000", "0"]]
    assert int(seen[2]) >= 1_000_000


def test_devices_of_every_type(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """Devices: `c`, `u`, `b`, and `p`, which needs no numbers; owners are the container's."""
    numbers: list[dict[str, Any]] = [
        {"type": "c", "path": "/dev/one", "major": 1, "minor": 5, "fileMode": 438, "uid": 1, "gid": 2},
        {"type": "u", "path": "/dev/deep/two", "major": 1, "minor": 3},
        {"type": "b", "path": "/dev/three", "major": 7, "minor": 0, "fileMode": 256},
        {"type": "p", "path": "/dev/four"},
    ]
    bundle.set("linux.devices", numbers)
    script = "cd /dev; stat -c '%F %t:%T %a %u:%g' one deep/two three four; readlink ptmx"
    assert run(runtime, bundle, name, script) == [
        "character special file 1:5 666 1:2",
        "character special file 1:3 666 0:0",
        "block special file 7:0 400 0:0",
        "fifo 0:0 666 0:0",
        "pts/ptmx",
    ]


@pytest.mark.parametrize("mapped", [False, True], ids=["host ids", "own ids"])
def test_devices_lie_where_they_are_asked_for(runtime: Runtime, bundle: Bundle, name: str, mapped: bool) -> None:
    """Devices, `path`: the full path inside, also of a root that is read-only."""
    if mapped:
        map_ids(bundle)
    numbers: list[dict[str, Any]] = [
        {"type": "c", "path": "/home/zero", "major": 1, "minor": 5, "fileMode": 0o660, "uid": 0, "gid": 2},
        {"type": "p", "path": "/home/fifo", "fileMode": 0o600},
        {"type": "c", "path": "/tmp/null", "major": 1, "minor": 3},
    ]
    bundle.config["mounts"].append({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": []})
    bundle.set("linux.devices", numbers)
    script = "stat -c '%F %t:%T %a %u:%g' /home/zero /home/fifo; head -c 3 /home/zero | wc -c; echo x > /tmp/null"
    assert run(runtime, bundle, name, script) == [
        "character special file 1:5 660 0:2",
        "fifo 0:0 600 0:0",
        "3",
    ]


@pytest.mark.parametrize("place", ["/proc/device", "/sys/device", "/dev", "/a/../b", "relative"])
def test_devices_have_no_place_among_the_kernels_files(runtime: Runtime, bundle: Bundle, name: str, place: str) -> None:
    bundle.set("linux.devices", [{"type": "c", "path": place, "major": 1, "minor": 5}])
    assert runtime.fails("create", "--bundle", bundle.path, name).startswith("linux.devices[0].path: ")


@pytest.mark.parametrize(("last", "opens"), [(True, True), (False, False)])
def test_rules_about_devices_count_in_their_order(
    runtime: Runtime, bundle: Bundle, name: str, last: bool, opens: bool
) -> None:
    """Allowed Device list: a device that is no default one."""
    bundle.set("linux.devices", [{"type": "c", "path": "/dev/fuse", "major": 10, "minor": 229}])
    one = {"type": "c", "major": 10, "minor": 229, "access": "rw"}
    rules = [{"allow": False, "access": "rwm"}, {**one, "allow": not last}, {**one, "allow": last}]
    bundle.set("linux.resources", {"devices": rules})
    assert run(runtime, bundle, name, "(exec 3< /dev/fuse) 2>/dev/null && echo opens || echo refused") == (
        ["opens"] if opens else ["refused"]
    )


def test_groups_are_where_they_are_asked_for(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """Cgroups Path: absolute below the root of each hierarchy, relative always at the same place, never above."""
    for path, place in ((f"/pyrt/{name}/deep", f"/pyrt/{name}/deep"), (f"{name}-x", f"/pyrt/{name}-x")):
        bundle.set("linux.cgroupsPath", path)
        pid = sleep(runtime, bundle, name)
        assert group(pid, "pids") == Path(f"/sys/fs/cgroup/pids{place}")
        runtime.ok("exec", name, "/bin/true")
        runtime.ok("delete", "--force", name)
        assert not Path(f"/sys/fs/cgroup/pids{place}").exists()
    for hierarchy in Path("/sys/fs/cgroup").iterdir():
        if (hierarchy / "pyrt" / name).is_dir():
            (hierarchy / "pyrt" / name).rmdir()


LIMITS: list[tuple[str, dict[str, Any], dict[str, str]]] = [
    (
        "memory",
        {"memory": {"limit": 64 << 20, "swap": 96 << 20, "reservation": 32 << 20, "swappiness": 30}},
        {
            "memory.limit_in_bytes": str(64 << 20),
            "memory.memsw.limit_in_bytes": str(96 << 20),
            "memory.soft_limit_in_bytes": str(32 << 20),
            "memory.swappiness": "30",
        },
    ),
    ("memory", {"memory": {"limit": -1, "disableOOMKiller": True}}, {"memory.oom_control": "oom_kill_disable 1"}),
    (
        "cpu",
        {"cpu": {"shares": 512, "period": 50000, "quota": 40000, "burst": 10000}},
        {"cpu.shares": "512", "cpu.cfs_period_us": "50000", "cpu.cfs_quota_us": "40000", "cpu.cfs_burst_us": "10000"},
    ),
    ("cpu", {"cpu": {"idle": 1}}, {"cpu.idle": "1"}),
    ("cpuset", {"cpu": {"cpus": "0", "mems": "0"}}, {"cpuset.cpus": "0", "cpuset.mems": "0"}),
    ("pids", {"pids": {"limit": -1}}, {"pids.max": "max"}),
    ("pids", {"pids": {"limit": 77}}, {"pids.max": "77"}),
]


@pytest.mark.parametrize(("controller", "resources", "files"), LIMITS, ids=lambda value: str(value)[:40])
def test_a_limit_is_written_to_its_file(
    runtime: Runtime, bundle: Bundle, name: str, controller: str, resources: dict[str, Any], files: dict[str, str]
) -> None:
    """Control groups, each controller."""
    bundle.set("linux.resources", resources)
    folder = group(sleep(runtime, bundle, name), controller)
    for file, value in files.items():
        assert (folder / file).read_text().splitlines()[0] == value


@pytest.mark.parametrize(
    ("resources", "line"),
    [
        ({"unified": {"memory.high": "1000000"}}, "linux.resources.unified"),
        ({"cpu": {"quota": 10000, "burst": 20000, "period": 100000}}, "setting cpu.cfs_burst_us to 20000"),
        ({"memory": {"swappiness": 101}}, "linux.resources.memory.swappiness"),
        ({"rdma": {"mlx5_1": {}}}, "linux.resources.rdma.mlx5_1"),
        ({"hugepageLimits": [{"pageSize": "3MB", "limit": 0}]}, "linux.resources.hugepageLimits[0]"),
        ({"network": {"priorities": [{"name": "no-such0", "priority": 1}]}}, "linux.resources.network"),
        ({"devices": [{"allow": True, "access": "x"}]}, "linux.resources.devices[0].access"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_limit_that_can_not_be_had_is_refused_by_name(
    runtime: Runtime, bundle: Bundle, name: str, resources: dict[str, Any], line: str
) -> None:
    """Control groups, "Unified"."""
    bundle.set("linux.resources", resources)
    assert runtime.fails("create", "--bundle", bundle.path, name).startswith(line)


SECCOMP_REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}, "linux.seccomp.defaultErrnoRet"),
    (
        {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["chmod"], "action": "SCMP_ACT_KILL", "errnoRet": 1}],
        },
        "linux.seccomp.syscalls[0].errnoRet",
    ),
    (
        {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [], "action": "SCMP_ACT_KILL"}]},
        "linux.seccomp.syscalls[0].names",
    ),
    ({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_NO"]}, "linux.seccomp.flags[0]"),
    ({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_NO"]}, "linux.seccomp.architectures[0]"),
    ({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x"}, "linux.seccomp.listenerMetadata"),
]


@pytest.mark.parametrize(("seccomp", "line"), SECCOMP_REFUSED, ids=lambda value: str(value)[-40:])
def test_a_filter_that_makes_no_sense_is_refused(
    runtime: Runtime, bundle: Bundle, name: str, seccomp: dict[str, Any], line: str
) -> None:
    """Seccomp."""
    bundle.set("linux.seccomp", seccomp)
    assert runtime.fails("create", "--bundle", bundle.path, name).startswith(line)


def test_a_filter_looks_at_arguments_and_kills(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """Seccomp, `args`, `errnoRet` and actions."""
    rules: list[dict[str, Any]] = [
        # chmod to 0700, and any bit of 0007.
        {
            "names": ["chmod", "fchmodat"],
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": 28,
            "args": [{"index": 1, "value": 0o700, "op": "SCMP_CMP_EQ"}],
        },
        {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"},
        {"names": ["sethostname"], "action": "SCMP_ACT_KILL_PROCESS"},
    ]
    bundle.config["process"]["capabilities"] = {
        kind: ["CAP_SYS_ADMIN"] for kind in ("bounding", "effective", "permitted")
    }
    bundle.config["mounts"].append({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"})
    bundle.set(
        "linux.seccomp",
        {
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
            "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"],
            "syscalls": rules,
        },
    )
    script = "cd /tmp; touch f; chmod 700 f 2>&1; chmod 711 f; stat -c %a f; mkdir d 2>&1; hostname x; echo $?"
    assert run(runtime, bundle, name, script) == [
        "chmod: f: No space left on device",
        "711",
        "mkdir: can't create directory 'd': Operation not permitted",
        str(128 + signal.SIGSYS),
    ]


@pytest.fixture
def shared_rootfs(bundle: Bundle) -> Iterator[Path]:
    """A root file system on a mount that others take part in."""
    rootfs = bundle.path / "rootfs"
    rootfs.mkdir()
    subprocess.run(["mount", "--bind", bundle.config["root"]["path"], rootfs], check=True)
    subprocess.run(["mount", "--make-shared", rootfs], check=True)
    bundle.config["root"] = {"path": "rootfs"}
    yield rootfs
    subprocess.run(["umount", "--recursive", rootfs], check=True)


@pytest.mark.parametrize(
    ("propagation", "word", "sees"),
    [
        ("shared", "shared:", False),
        ("slave", "master:", True),
        ("private", "", False),
        ("unbindable", "unbindable", False),
    ],
)
def test_the_root_takes_part_in_mounts_as_it_is_told(
    runtime: Runtime, bundle: Bundle, name: str, shared_rootfs: Path, propagation: str, word: str, sees: bool
) -> None:
    """Rootfs Mount Propagation: a slave sees what the host mounts; nobody sees what a container mounts."""
    bundle.config["linux"]["rootfsPropagation"] = propagation
    sleep(runtime, bundle, name)
    root = runtime.ok("exec", name, "/bin/sh", "-c", "awk '$5 == \"/\"' /proc/self/mountinfo")
    assert " ".join(root.split(" - ")[0].split()[6:]).startswith(word)
    # Else it is there only if another test has had it made.
    (shared_rootfs / "mnt").mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "later", shared_rootfs / "mnt"], check=True)
    assert ("later" in runtime.ok("exec", name, "/bin/cat", "/proc/mounts")) is sees


def test_hidden_places_that_are_not_there_are_passed_over(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """Masked Paths, "Readonly Paths": files and directories, for the root as well."""
    bundle.config["linux"] |= {
        "maskedPaths": ["/no/such", "/proc/version", "/etc"],
        "readonlyPaths": ["/nor/this", "/tmp"],
    }
    bundle.config["mounts"].append({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"})
    script = "cat /proc/version | wc -c; ls /etc | wc -l; touch /tmp/x 2>/dev/null || echo read-only"
    assert run(runtime, bundle, name, script) == ["0", "0", "read-only"]
