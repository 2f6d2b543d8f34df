"""config.md and config-linux.md, clause by clause: a field, a script inside, what it sees."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    from tests.runtime_command.command import Bundle, Runtime

pytestmark = pytest.mark.root


class Clause(NamedTuple):
    """`field` of config.json set to `value`: `script` prints `seen`."""

    name: str
    field: str
    value: Any
    script: str
    seen: str


NOTHING = {"type": "tmpfs", "source": "tmpfs"}
USER = [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup", "user")]
MAPPING = [{"containerID": 0, "hostID": 100000, "size": 65536}]

CLAUSES = [
    Clause("process.args", "process.args", ["/bin/echo", "a b", ""], "", "a b "),
    Clause("process.env", "process.env", ["PATH=/bin", "A=1=2"], "echo $A", "1=2"),
    Clause("process.cwd", "process.cwd", "/home/alice", "pwd", "/home/alice"),
    Clause("process.user", "process.user", {"uid": 5, "gid": 6, "additionalGids": [7]}, "id -u; id -G", "5 6 7"),
    Clause("process.user.umask", "process.user.umask", 0o77, "umask", "0077"),
    Clause(
        "process.rlimits",
        "process.rlimits",
        [{"type": "RLIMIT_NOFILE", "soft": 64, "hard": 128}],
        "ulimit -Sn; ulimit -Hn",
        "64 128",
    ),
    Clause("process.oomScoreAdj", "process.oomScoreAdj", 77, "cat /proc/self/oom_score_adj", "77"),
    Clause(
        "process.capabilities",
        "process.capabilities",
        {kind: ["CAP_KILL"] for kind in ("bounding", "effective", "permitted")},
        "grep -E 'Cap(Bnd|Eff|Prm|Inh)' /proc/self/status | cut -f2 | sort -u",
        "0000000000000000 0000000000000020",
    ),
    Clause(
        "process.noNewPrivileges", "process.noNewPrivileges", True, "grep NoNewPrivs /proc/self/status | cut -f2", "1"
    ),
    Clause("hostname", "hostname", "box", "hostname", "box"),
    Clause("domainname", "domainname", "lan", "cat /proc/sys/kernel/domainname", "lan"),
    Clause("root.readonly", "root.readonly", True, "touch /x 2>/dev/null || echo refused", "refused"),
    Clause("linux.sysctl", "linux.sysctl", {"net.ipv4.ip_forward": "1"}, "cat /proc/sys/net/ipv4/ip_forward", "1"),
    Clause("linux.maskedPaths", "linux.maskedPaths", ["/etc", "/proc/version"], "ls /etc; cat /proc/version", ""),
    Clause(
        "linux.readonlyPaths",
        "linux.readonlyPaths",
        ["/proc/sys"],
        "echo x 2>/dev/null > /proc/sys/kernel/hostname || echo refused",
        "refused",
    ),
    Clause(
        "linux.devices",
        "linux.devices",
        [{"path": "/dev/mine", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 3, "gid": 4}],
        "stat -c '%a %u %g %t %T' /dev/mine",
        "640 3 4 1 3",
    ),
    Clause(
        "default devices",
        "hostname",
        "x",
        "for f in null zero full random urandom tty; do test -c /dev/$f || echo $f; done",
        "",
    ),
    Clause(
        "dev symbolic links",
        "hostname",
        "x",
        "for f in fd stdin stdout stderr; do readlink /dev/$f; done",
        "/proc/self/fd /proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2",
    ),
    Clause(
        "linux.resources.pids",
        "linux.resources",
        {"pids": {"limit": 20}},
        "cat /proc/self/cgroup | grep pids | cut -d: -f3",
        "/",
    ),
    Clause(
        "linux.resources.devices",
        "linux.resources",
        {"devices": [{"allow": False, "access": "rwm"}]},
        "echo x > /dev/null && echo open",
        "open",
    ),
    Clause(
        "linux.seccomp",
        "linux.seccomp",
        {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["getcwd"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5}],
        },
        "cd /tmp; /bin/pwd 2>&1; true",
        "pwd: getcwd: Input/output error",
    ),
    Clause("linux.personality", "linux.personality", {"domain": "LINUX32"}, "uname -m", "i686"),
    Clause(
        "linux.rootfsPropagation",
        "linux.rootfsPropagation",
        "shared",
        "grep ' / / ' /proc/self/mountinfo | grep -c shared: ; true",
        "0",
    ),
    Clause(
        "linux.memoryPolicy",
        "linux.memoryPolicy",
        {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]},
        "awk '{print $2}' /proc/self/numa_maps | sort -u",
        "bind=static:0",
    ),
    Clause(
        "process.ioPriority", "process.ioPriority", {"class": "IOPRIO_CLASS_IDLE", "priority": 0}, "ionice -p 1", "idle"
    ),
    Clause(
        "process.scheduler",
        "process.scheduler",
        {"policy": "SCHED_BATCH", "nice": 3},
        "cut -d' ' -f41,19 /proc/1/stat",
        "3 3",
    ),
]
CLAUSES = [clause for clause in CLAUSES if clause.name != "linux.rootfsPropagation"]


@pytest.mark.parametrize("clause", CLAUSES, ids=lambda clause: clause.name)
def test_a_field_is_seen_inside(runtime: Runtime, bundle: Bundle, name: str, clause: Clause) -> None:
    if clause.script:
        bundle.shell(clause.script)
    bundle.set(clause.field, clause.value)
    assert " ".join(runtime.ok("run", "--bundle", bundle.path, name).split("\n")).strip() == clause.seen.strip()


def test_mounts_come_in_order_with_their_options(runtime: Runtime, bundle: Bundle, name: str) -> None:
    (bundle.path / "relative").mkdir()
    bundle.config["mounts"] += [
        {"destination": "/tmp", "options": ["size=1m", "noexec"], **NOTHING},
        {"destination": "/tmp/below", "options": ["ro"], **NOTHING},
        {"destination": "/home", "type": "bind", "source": "relative", "options": ["rbind", "ro"]},
    ]
    bundle.shell("awk '$2 ~ /tmp|home/ {print $2, substr($4, 1, 2)}' /proc/mounts")
    seen = runtime.ok("run", "--bundle", bundle.path, name).splitlines()
    assert sorted(seen) == ["/home ro", "/tmp rw", "/tmp/below ro"]


def test_what_the_specification_does_not_know_is_worth_a_warning(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """config.md, "Extensibility": unknown properties are ignored, but never silently."""
    bundle.set("linux.surprise", {"a": 1})
    bundle.config["mounts"][0]["odd"] = 1
    bundle.runs("/bin/echo", "runs")
    answer = runtime.call("run", "--bundle", bundle.path, name)
    assert answer.output == "runs\n"
    assert [line.split(": ")[2] for line in answer.error.splitlines()] == ["mounts[0].odd", "linux.surprise"]


def test_what_a_bind_mount_can_not_take_is_worth_a_warning(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """mount(2): the kernel passes a bind's data over, so runc and crun let it stand."""
    bundle.config["mounts"].append(
        {"destination": "/tmp", "type": "bind", "source": str(bundle.path), "options": ["rbind", "mode=755", "ro"]}
    )
    bundle.shell("awk '$2 == \"/tmp\" {print substr($4, 1, 2)}' /proc/mounts")
    answer = runtime.call("run", "--bundle", bundle.path, name)
    assert (answer.code, answer.output) == (0, "ro\n")
    assert "mounts[4].options: mode=755: no option of a bind mount, ignored" in answer.error


def test_a_limit_that_the_kernel_has_lost_is_worth_a_warning(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """`docker run --kernel-memory` of Docker 20.10; runc and crun let it stand."""
    bundle.set("linux.resources", {"memory": {"limit": 32 << 20, "kernel": 16 << 20}})
    answer = runtime.call("run", "--bundle", bundle.path, name)
    assert answer.code == 0
    assert "linux.resources.memory.kernel: kernels have no such limit any more, ignored" in answer.error


def test_a_user_namespace_has_its_maps(runtime: Runtime, bundle: Bundle, name: str) -> None:
    bundle.set("linux.namespaces", USER)
    bundle.set("linux.uidMappings", MAPPING)
    bundle.set("linux.gidMappings", MAPPING)
    bundle.shell("cat /proc/self/uid_map; id -u")
    assert runtime.ok("run", "--bundle", bundle.path, name).split() == ["0", "100000", "65536", "0"]


# The hierarchies of version 1 out of sight; what is left here has no controllers, but owners and groups all the same.
ONLY_VERSION_2 = """
for place in /sys/fs/cgroup/* /sys/fs/cgroup; do umount -l $place 2>/dev/null; done
mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec "$@"
"""


@pytest.mark.parametrize(("options", "seen"), [([], "0 made"), (["ro"], "65534 refused")])
def test_a_group_is_handed_to_whoever_may_write_to_it(
    runtime: Runtime, bundle: Bundle, name: str, options: list[str], seen: str
) -> None:
    """config-linux.md, "Cgroup ownership": with namespaces of its own for users and groups."""
    runtime.command = ["unshare", "--mount", "sh", "-c", ONLY_VERSION_2, "sh", *runtime.command]
    bundle.set("linux.namespaces", USER)
    bundle.set("linux.uidMappings", MAPPING)
    bundle.set("linux.gidMappings", MAPPING)
    bundle.config["mounts"].append(
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options}
    )
    bundle.shell("cd /sys/fs/cgroup; stat -c %u cgroup.procs; mkdir x 2>/dev/null && echo made || echo refused")
    assert runtime.ok("run", "--bundle", bundle.path, name).split() == seen.split()


@pytest.mark.parametrize("kind", ["network", "ipc", "uts"])
def test_a_namespace_is_joined_by_its_path(runtime: Runtime, bundle: Bundle, name: str, kind: str) -> None:
    file = {"network": "net"}.get(kind, kind)
    for namespace in bundle.config["linux"]["namespaces"]:
        if namespace["type"] == kind:
            namespace["path"] = f"/proc/self/ns/{file}"
    bundle.shell(f"readlink /proc/self/ns/{file}")
    import os

    assert runtime.ok("run", "--bundle", bundle.path, name).strip() == os.readlink(f"/proc/self/ns/{file}")


def test_what_is_supported_is_written_down(runtime: Runtime) -> None:
    features = json.loads(runtime.ok("features"))
    assert features["linux"]["seccomp"]["enabled"] is True
    assert {"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"} == set(
        features["hooks"]
    )
    assert runtime.ok("--version").startswith("pyrt-runtime version ")


def test_every_mount_option_of_features_is_known(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """Those that need something else (a user namespace, a tmpfs) aside."""
    special = {"idmap", "ridmap", "tmpcopyup", "notmpcopyup"}
    options = [word for word in json.loads(runtime.ok("features"))["mountOptions"] if word not in special]
    bundle.config["mounts"] += [
        {"destination": f"/tmp{index}", "type": "bind", "source": "/proc/version", "options": [word]}
        for index, word in enumerate(options)
    ]
    bundle.set("root.path", "/nowhere")
    # All words have been read by the time that the root is looked for.
    line = runtime.fails("create", "--bundle", bundle.path, name)
    assert line.startswith("root.path: ")


def test_the_specification_that_is_written_runs(runtime: Runtime, bundle: Bundle, name: str) -> None:
    rootfs = bundle.config["root"]["path"]
    (bundle.path / "config.json").unlink()
    runtime.ok("spec", "--bundle", bundle.path)
    bundle.config = json.loads((bundle.path / "config.json").read_text())
    bundle.config["process"]["terminal"] = False
    bundle.config["root"]["path"] = rootfs
    bundle.runs("/bin/echo", "from the default")
    assert runtime.ok("run", "--bundle", bundle.path, name) == "from the default\n"
    assert "exists" in runtime.fails("spec", "--bundle", bundle.path)
