"""Bad input: one line that names the field by its JSON path, exit code 1, and nothing left behind."""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.runtime_command.command import Bundle, Runtime

pytestmark = pytest.mark.root

TMPFS = {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}
OVERLAPPING = [{"containerID": 0, "hostID": 0, "size": 10}, {"containerID": 5, "hostID": 100, "size": 10}]
FIELDS: list[tuple[str, Any, str]] = [
    ("ociVersion", "9.0", "ociVersion: "),
    ("ociVersion", 1, "ociVersion: "),
    ("ociVersion", "1.0", "ociVersion: "),
    ("ociVersion", "1.0.x", "ociVersion: "),
    ("annotations", {"": "x"}, "annotations: a key is empty"),
    ("process.scheduler", {"policy": "SCHED_OTHER", "nice": 20}, "process.scheduler.nice: "),
    ("process.user", None, "process.user: invalid type: null, expected an object"),
    ("process.env", ["A=\ud800"], "process.env[0]: "),
    ("process.consoleSize", {"height": 1 << 16, "width": 1}, "process.consoleSize.height: "),
    ("process.user.additionalGids", [1 << 64], "process.user.additionalGids[0]: "),
    ("process.args", ["a\0b"], "process.args[0]: contains a NUL"),
    ("linux.namespaces", [{"type": 1}], "linux.namespaces[0].type: expected a string"),
    ("linux.seccomp", {"defaultAction": 1}, "linux.seccomp.defaultAction: invalid type: "),
    ("linux.seccomp", {"defaultAction": "SCMP_ACT_ALLOW", "more": 1}, "linux.seccomp.more: no such field"),
    (
        "linux.seccomp",
        {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_LOG", "args": [1]}]},
        "linux.seccomp.syscalls[0].args[0]: invalid type: integer `1`, expected an object",
    ),
    ("linux.devices", [{"path": "/etc", "type": "c", "major": 1, "minor": 3}], "linux.devices[0].path: something that"),
    (
        "linux.devices",
        [{"path": "/bin/busybox", "type": "c", "major": 1, "minor": 3}],
        "linux.devices[0].path: something that",
    ),
    ("linux.sysctl", {"net/../kernel/panic": "1"}, "linux.sysctl."),
    ("mounts", [{**TMPFS, "type": "a\nb"}], "mounts[0].type: a\\nb: "),
    ("hostname", "\x1b[2J" * 4000, "hostname: "),
    ("process.args", [], "process.args: "),
    ("process.args", None, "process.args: "),
    ("process.cwd", "relative", "process.cwd: "),
    ("process.env", ["novalue"], "process.env[0]: "),
    ("process.user.uid", -1, "process.user.uid: "),
    ("process.rlimits", [{"type": "RLIMIT_NO", "soft": 1, "hard": 1}], "process.rlimits[0].type: "),
    ("process.rlimits", [{"type": "RLIMIT_CORE", "soft": 1, "hard": 1}] * 2, "process.rlimits[1].type: "),
    ("process.capabilities", {"bounding": "CAP_KILL"}, "process.capabilities.bounding: "),
    ("process.oomScoreAdj", 2000, "process.oomScoreAdj: "),
    ("process.apparmorProfile", "strict", "process.apparmorProfile: "),
    ("process.selinuxLabel", "label", "process.selinuxLabel: SELinux is not enabled"),
    ("process.terminal", True, "process.terminal: "),
    ("root.path", "", "root.path: "),
    ("root.path", "/no/such/folder", "root.path: "),
    ("root.path", "/etc/passwd", "root.path: "),
    ("hostname", "x" * 65, "hostname: "),
    ("mounts", [{**TMPFS, "destination": "/dev"}, TMPFS, {**TMPFS, "destination": "/dev/"}], "mounts[2].destination: "),
    ("mounts", [{"destination": "", "type": "tmpfs"}], "mounts[0].destination: "),
    ("mounts", [{"destination": "/a/../b", "type": "tmpfs"}], "mounts[0].destination: "),
    ("mounts", [{"destination": "/tmp", "type": "nofs"}], "mounts[0].type: "),
    ("mounts", [{"destination": "/tmp", "type": "bind", "source": "/no/such"}], "mounts[0].source: "),
    ("linux.namespaces", [{"type": "user"}], "linux.namespaces: "),
    ("linux.namespaces", [{"type": "mount"}, {"type": "mount"}], "linux.namespaces[1]: "),
    ("linux.namespaces", [{"type": "mount"}, {"type": "pid", "path": "/etc/passwd"}], "linux.namespaces[1].path: "),
    ("linux.namespaces", [{"type": "mount"}, {"type": "user"}], "linux.uidMappings: "),
    ("linux.namespaces", [{"type": "mount"}, {"type": "none"}], "linux.namespaces[1].type: "),
    ("linux.namespaces", [{"type": "mount"}, {"type": "pid", "path": "/no/such"}], "linux.namespaces[1].path: "),
    ("linux.uidMappings", [{"containerID": 0, "hostID": 0, "size": 1}], "linux.uidMappings: "),
    ("linux.timeOffsets", {"monotonic": {"secs": 1}}, "linux.timeOffsets.monotonic: "),
    ("linux.rootfsPropagation", "sideways", "linux.rootfsPropagation: "),
    ("linux.maskedPaths", ["relative"], "linux.maskedPaths[0]: "),
    ("root", None, "root: missing"),
    ("process.args", "text", "process.args: "),
    ("mounts", [{"type": "tmpfs"}], "mounts[0].destination: missing"),
    ("linux.uidMappings", OVERLAPPING, "linux.uidMappings"),
    ("linux.cgroupsPath", "../up", "linux.cgroupsPath: "),
    ("linux.cgroupsPath", "system.slice:pyrt:x", "linux.cgroupsPath: "),
    ("linux.resources", {"memory": {"limit": -5}}, "linux.resources.memory.limit: "),
    ("linux.sysctl", {"kernel.panic": "1"}, "linux.sysctl.kernel.panic: "),
    ("linux.seccomp", {"defaultAction": "SCMP_ACT_NO"}, "linux.seccomp.defaultAction: "),
    ("hooks", {"prestart": [{"path": "relative"}]}, "hooks.prestart[0].path: "),
    ("hooks", {"poststop": [{"path": "/bin/true", "timeout": 0}]}, "hooks.poststop[0].timeout: "),
    ("linux.mountLabel", "label", "linux.mountLabel: SELinux is not enabled"),
    ("linux.memoryPolicy", {"mode": "MPOL_BIND"}, "linux.memoryPolicy.nodes: missing"),
    ("linux.memoryPolicy", {"mode": "MPOL_LOCAL", "nodes": "0"}, "linux.memoryPolicy.nodes: "),
    ("linux.memoryPolicy", {"mode": "MPOL_NO"}, "linux.memoryPolicy.mode: "),
    ("linux.memoryPolicy", {"mode": "MPOL_BIND", "nodes": "x"}, "linux.memoryPolicy.nodes: "),
    ("linux.memoryPolicy", {"mode": "MPOL_LOCAL", "flags": ["x"]}, "linux.memoryPolicy.flags[0]: "),
    ("linux.intelRdt", {"closID": "x"}, "linux.intelRdt: "),
    ("windows", {"layerFolders": ["x"]}, "windows: "),
]


@pytest.mark.parametrize(("field", "value", "line"), FIELDS, ids=[f"{f}={json.dumps(v)[:40]}" for f, v, _ in FIELDS])
def test_a_field_is_blamed_by_its_path(
    runtime: Runtime, bundle: Bundle, name: str, field: str, value: object, line: str
) -> None:
    if value == OVERLAPPING:
        bundle.config["linux"]["namespaces"].append({"type": "user"})
        bundle.config["linux"]["gidMappings"] = value
    bundle.set(field, value)
    assert runtime.fails("create", "--bundle", bundle.path, name).startswith(line)
    assert not (runtime.root / name).exists()


@pytest.mark.parametrize(
    ("kind", "field", "value", "line"),
    [
        ("uts", "hostname", "box", "hostname: "),
        ("uts", "domainname", "lan", "domainname: "),
        ("network", "linux.sysctl", {"net.ipv4.ip_forward": "1"}, "linux.sysctl.net.ipv4.ip_forward: "),
        ("ipc", "linux.sysctl", {"kernel.shmmax": "1"}, "linux.sysctl.kernel.shmmax: "),
    ],
)
def test_what_is_a_namespaces_needs_that_namespace(
    runtime: Runtime, bundle: Bundle, name: str, kind: str, field: str, value: object, line: str
) -> None:
    """Else it would be changed for the whole machine."""
    namespaces = bundle.config["linux"]["namespaces"]
    bundle.config["linux"]["namespaces"] = [namespace for namespace in namespaces if namespace["type"] != kind]
    bundle.set(field, value)
    assert runtime.fails("create", "--bundle", bundle.path, name).startswith(line)
    assert not (runtime.root / name).exists()


def test_a_root_that_is_a_link(runtime: Runtime, bundle: Bundle, name: str) -> None:
    (bundle.path / "rootfs").symlink_to(bundle.config["root"]["path"])
    bundle.set("root.path", "rootfs")
    assert "root.path: " in runtime.fails("create", "--bundle", bundle.path, name)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        "[" * 10000,
        '{"ociVersion": NaN}',
        "\ufeff{}",
        '{"ociVersion": "1.0.2", "ociVersion": "1.0.2"}',
        "\x00",
    ],
)
def test_a_config_that_is_none(runtime: Runtime, bundle: Bundle, name: str, content: str) -> None:
    (bundle.path / "config.json").write_text(content)
    assert runtime.fails("create", "--bundle", bundle.path, name)
    assert not (runtime.root / name).exists()


def test_a_config_that_is_in_another_character_set(runtime: Runtime, bundle: Bundle, name: str) -> None:
    text = json.dumps(bundle.config).replace("HOME=/root", "HOME=\xe4")
    (bundle.path / "config.json").write_text(text, encoding="latin-1")
    assert runtime.fails("create", "--bundle", bundle.path, name).startswith("process.env[1]: ")


def test_the_whole_of_a_config_is_named_by_its_file(runtime: Runtime, bundle: Bundle, name: str) -> None:
    (bundle.path / "config.json").write_text("[]")
    assert runtime.fails("create", "--bundle", bundle.path, name).startswith("config.json: ")


@pytest.mark.parametrize("flag", ["--pid-file", "--pidfd-socket"])
def test_what_can_not_be_written_to_undoes_the_container(
    runtime: Runtime, bundle: Bundle, name: str, flag: str
) -> None:
    assert "/no/such/place" in runtime.fails("create", flag, "/no/such/place", "--bundle", bundle.path, name)
    assert not (runtime.root / name).exists()


def test_a_disk_that_is_full(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """RLIMIT_FSIZE: who writes more is told so, and not ended by SIGXFSZ."""
    words = [*runtime.command, "--root", str(runtime.root), "create", "--bundle", str(bundle.path), name]
    with subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),
    ) as create:
        _, said = create.communicate(timeout=30)
    assert (create.returncode, said.count("\n")) == (1, 1), said
    assert "file too large" in said
    assert not (runtime.root / name).exists()


def test_a_bundle_without_config(runtime: Runtime, bundle: Bundle, name: str) -> None:
    (bundle.path / "config.json").unlink()
    assert "config.json: no such file" in runtime.fails("create", "--bundle", bundle.path, name)
    assert "no such file" in runtime.fails("create", "--bundle", bundle.path / "nowhere", name)


@pytest.mark.parametrize("bad", ["", ".", "..", "a/b", "../a", "a b", "x" * 5000, "\u00e4"])
def test_an_id_that_is_none(runtime: Runtime, bundle: Bundle, bad: str) -> None:
    for verb in ("create", "state", "delete", "kill"):
        assert "id" in runtime.fails(verb, bad)
    assert not runtime.root.exists() or list(runtime.root.iterdir()) == []


def test_two_containers_of_a_name(runtime: Runtime, bundle: Bundle, name: str) -> None:
    runtime.ok("create", "--bundle", bundle.path, name)
    assert name in runtime.fails("create", "--bundle", bundle.path, name)
    assert runtime.state(name)["status"] == "created"


def test_a_console_socket_that_is_none(runtime: Runtime, bundle: Bundle, name: str, tmp_path: Path) -> None:
    bundle.set("process.terminal", True)
    line = runtime.fails("create", "--bundle", bundle.path, "--console-socket", bundle.path / "config.json", name)
    assert "is no socket" in line
    assert "--console-socket" in runtime.fails("create", "--bundle", bundle.path, "--console-socket", "/no/such", name)
    bundle.set("process.terminal", False)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "console"))
        line = runtime.fails("create", "--bundle", bundle.path, "--console-socket", tmp_path / "console", name)
    assert line.startswith("process.terminal: ")


def test_flags_and_verbs_that_are_none(runtime: Runtime, name: str) -> None:
    assert runtime.fails("creat", name).startswith("no such verb: creat")
    assert runtime.fails("create", "--bundel", "x", name).startswith("no such flag: --bundel")
    assert "descriptor 3 is not open" in runtime.fails("create", "--preserve-fds", "1", name)
    assert "no such signal" in runtime.fails("kill", name, "SIGNO")


def test_an_error_is_one_line_of_json_in_the_log(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """As runc's: the engine reads the last line and shows `msg`."""
    log = bundle.path / "log"
    bundle.set("process.cwd", "relative")
    runtime.command += ["--log", str(log), "--log-format", "json"]
    shown = runtime.fails("create", "--bundle", bundle.path, name)
    (line,) = log.read_text().splitlines()
    entry = json.loads(line)
    assert (entry["level"], entry["msg"]) == ("error", shown)
    assert entry["time"].endswith("Z")


def test_systemd_is_refused_where_there_is_none(runtime: Runtime, bundle: Bundle, name: str) -> None:
    runtime.command.append("--systemd-cgroup")
    assert "systemd" in runtime.fails("create", "--bundle", bundle.path, name)


def test_the_state_directory_is_closed_to_others(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """CVE-2021-41103."""
    before = os.umask(0)
    try:
        runtime.ok("create", "--bundle", bundle.path, name)
    finally:
        os.umask(before)
    for folder in (runtime.root, runtime.root / name):
        assert folder.stat().st_mode & 0o777 == 0o700
