"""Runs in the guest, as root, with Python's own library alone: one function a test, one line a result."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOTFS = Path("/opt/rootfs")
STATE = Path("/run/oci")
GROUPS = Path("/sys/fs/cgroup")
KINDS = ("pid", "network", "ipc", "uts", "mount", "cgroup")
MOUNTS: tuple[tuple[str, str, list[str]], ...] = (
    ("/proc", "proc", []),
    ("/dev", "tmpfs", ["nosuid", "mode=755", "size=65536k"]),
    ("/sys", "sysfs", ["ro"]),
    ("/sys/fs/cgroup", "cgroup", ["ro"]),
    ("/tmp", "tmpfs", []),
)
BOX = ("sh", "cat", "echo", "sleep", "head", "tail", "dd", "true", "id", "grep", "touch", "ls")

SLOW = 3.0
"""Seconds after which a command is named: a time-out that passes unseen costs as much as a slow machine."""


def call(*words: str | Path, code: int | None = 0) -> str:
    """A command to its end: what it has printed; ``code`` None lets any exit code pass."""
    # A created container holds the ends of pipes for as long as it lives: a file has no such end.
    with tempfile.TemporaryFile("w+") as output:
        begun = time.monotonic()
        done = subprocess.run(
            [str(word) for word in words], stdout=output, stderr=subprocess.STDOUT, check=False, timeout=120
        )
        if (took := time.monotonic() - begun) > SLOW:
            print(f"guest: slow    {took:.1f} s: {' '.join(map(str, words))}", flush=True)
        output.seek(0)
        said = output.read()
    assert code is None or done.returncode == code, f"{words}: exit code {done.returncode}: {said}"
    return said


def runtime(*words: str | Path, code: int | None = 0) -> str:
    """A verb of the OCI command."""
    return call("pyrt-runtime", "--root", STATE, *words, code=code)


def bundle(name: str, script: str, **fields: Any) -> Path:
    """A bundle that runs ``script``; ``fields`` are sections of config.json that are merged in."""
    path = Path("/run/bundles") / name
    path.mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = {
        "ociVersion": "1.2.0",
        "process": {"user": {"uid": 0, "gid": 0}, "args": ["/bin/sh", "-c", script], "env": ["PATH=/bin"], "cwd": "/"},
        "root": {"path": str(ROOTFS), "readonly": True},
        "mounts": [{"destination": at, "type": kind, "source": kind, "options": words} for at, kind, words in MOUNTS],
        "linux": {"namespaces": [{"type": kind} for kind in KINDS]},
    }
    for section, values in fields.items():
        config[section] |= values
    (path / "config.json").write_text(json.dumps(config))
    return path


def run(name: str, script: str, code: int | None = 0, **fields: Any) -> str:
    """A container to its end."""
    return runtime("run", "--bundle", bundle(name, script, **fields), name, code=code)


@contextlib.contextmanager
def running(name: str, *flags: str, script: str = "exec sleep 1000", **fields: Any) -> Iterator[int]:
    """A container for the time of the block: its process."""
    call("pyrt-runtime", "--root", STATE, *flags, "create", "--bundle", bundle(name, script, **fields), name)
    try:
        runtime("start", name)
        yield json.loads(runtime("state", name))["pid"]
    finally:
        runtime("delete", "--force", name)


def group_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cgroup").read_text().strip().removeprefix("0::")


def show(unit: str, name: str) -> str:
    return call("systemctl", "show", "--value", "-p", name, unit).strip()


# ---- what is shown ----


def test_version_2_is_all_there_is() -> None:
    kinds = [line.split(" - ")[1].split()[0] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    assert kinds.count("cgroup2") == 1
    assert "cgroup" not in kinds


LIMITS = {
    "memory": {"limit": 64 << 20, "reservation": 32 << 20, "swap": 64 << 20},
    "cpu": {"shares": 512, "quota": 50000, "period": 100000},
    "pids": {"limit": 20},
    "unified": {"memory.high": "60M"},
}


def test_limits_are_written_and_the_process_is_born_in_its_group() -> None:
    with running("limits", linux={"namespaces": [{"type": kind} for kind in KINDS], "resources": LIMITS}) as pid:
        assert group_of(pid) == "/pyrt/limits"
        assert "0::/\n" in runtime("exec", "limits", "cat", "/proc/self/cgroup")
        group = GROUPS / "pyrt" / "limits"
        seen = {
            name: (group / name).read_text().strip() for name in ("memory.max", "memory.low", "pids.max", "cpu.max")
        }
        assert seen == {
            "memory.max": str(64 << 20),
            "memory.low": str(32 << 20),
            "pids.max": "20",
            "cpu.max": "50000 100000",
        }, seen
        assert (group / "memory.high").read_text().strip() == str(60 << 20)
        assert (group / "memory.swap.max").read_text().strip() == "0"
        assert 1 < int((group / "cpu.weight").read_text()) < 100
        runtime("update", "--memory", str(96 << 20), "--memory-swap", str(96 << 20), "limits")
        assert (group / "memory.max").read_text().strip() == str(96 << 20)
        stats = json.loads(runtime("events", "--stats", "limits"))["data"]
        assert stats["memory"]["usage"]["limit"] == 96 << 20
        runtime("pause", "limits")
        assert json.loads(runtime("state", "limits"))["status"] == "paused"
        runtime("resume", "limits")
    assert not group.exists()


def test_exec_goes_into_a_group_below() -> None:
    mounts = [
        {"destination": at, "type": kind, "source": kind, "options": [] if kind == "cgroup" else words}
        for at, kind, words in MOUNTS
    ]
    path = bundle("below", "exec sleep 1000")
    config = json.loads((path / "config.json").read_text()) | {"mounts": mounts}
    (path / "config.json").write_text(json.dumps(config))
    runtime("create", "--bundle", path, "below")
    try:
        runtime("start", "below")
        (GROUPS / "pyrt/below/inner").mkdir()
        assert "0::/inner\n" in runtime("exec", "--cgroup", "/inner", "below", "cat", "/proc/self/cgroup")
        assert "no such file" in runtime("exec", "--cgroup", "/none", "below", "true", code=1)
        assert "contains .." in runtime("exec", "--cgroup", "../x", "below", "true", code=1)
    finally:
        runtime("delete", "--force", "below")


def test_a_memory_limit_holds() -> None:
    said = run(
        "bomb",
        "tail /dev/zero; echo code $?",
        linux={
            "namespaces": [{"type": kind} for kind in KINDS],
            "resources": {"memory": {"limit": 32 << 20, "swap": 32 << 20}},
        },
        code=None,
    )
    assert "code 137" in said, said


def test_device_rules_are_a_program_of_the_group() -> None:
    rules = [{"allow": False, "access": "rwm"}, {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "w"}]
    nodes = [{"path": f"/dev/{name}", "type": "c", "major": 1, "minor": 11, "fileMode": 0o666} for name in ("log",)]
    base = {"namespaces": [{"type": kind} for kind in KINDS], "devices": nodes}
    script = "echo x 2>/dev/null > /dev/log && echo written; cat /dev/null && echo null"
    said = run("devices", script, linux=base | {"resources": {"devices": rules}})
    assert said.split() == ["written", "null"], said
    said = run("devices", script, linux=base | {"resources": {"devices": rules[:1]}})
    assert "written" not in said, said
    assert said.endswith("null\n"), said


def test_systemd_makes_the_group() -> None:
    linux = {"namespaces": [{"type": kind} for kind in KINDS], "resources": LIMITS, "cgroupsPath": "a-b.slice:pyrt:sd"}
    with running("sd", "--systemd-cgroup", linux=linux) as pid:
        unit = "pyrt-sd.scope"
        assert group_of(pid) == "/a.slice/a-b.slice/pyrt-sd.scope"
        assert show(unit, "ControlGroup") == group_of(pid)
        assert (show(unit, "Slice"), show(unit, "Delegate")) == ("a-b.slice", "yes")
        assert (show(unit, "MemoryMax"), show(unit, "TasksMax")) == (str(64 << 20), "20")
        assert show(unit, "CPUQuotaPerSecUSec") == "500ms"
        # Whoever went in ahead is gone.
        processes = (GROUPS / group_of(pid)[1:] / "cgroup.procs").read_text().split()
        assert processes == [str(pid)], processes
        runtime("--systemd-cgroup", "update", "--memory", str(96 << 20), "--memory-swap", str(96 << 20), "sd")
        call("systemctl", "daemon-reload")
        assert (GROUPS / group_of(pid)[1:] / "memory.max").read_text().strip() == str(96 << 20)
        assert "0::/\n" in runtime("--systemd-cgroup", "exec", "sd", "cat", "/proc/self/cgroup")
    assert show("pyrt-sd.scope", "LoadState") == "not-found"


def test_a_start_that_fails_leaves_no_unit() -> None:
    path = bundle(
        "bad",
        "true",
        linux={"namespaces": [{"type": kind} for kind in KINDS], "cgroupsPath": ":pyrt:bad"},
        process={"args": ["/no/such"]},
    )
    assert "no such file" in runtime("--systemd-cgroup", "run", "--bundle", path, "bad", code=1)
    assert show("pyrt-bad.scope", "LoadState") == "not-found"
    path = bundle("bad", "true", linux={"cgroupsPath": "/a/b"})
    assert "linux.cgroupsPath: " in runtime("--systemd-cgroup", "run", "--bundle", path, "bad", code=1)


def test_an_apparmor_profile_is_in_force() -> None:
    profile = Path("/run/profile")
    profile.write_text("profile pyrt-guest flags=(attach_disconnected,mediate_deleted) { file, deny /tmp/secret w, }\n")
    call("apparmor_parser", "--replace", profile)
    script = "cat /proc/self/attr/current; touch /tmp/open && echo open; touch /tmp/secret 2>/dev/null || echo denied"
    said = run(
        "armor",
        script,
        process={"apparmorProfile": "pyrt-guest", "args": ["/bin/sh", "-c", script], "noNewPrivileges": True},
    )
    assert said.split() == ["pyrt-guest", "(enforce)", "open", "denied"], said
    with running("armor") as _:
        said = runtime("exec", "--apparmor", "pyrt-guest", "armor", "cat", "/proc/self/attr/current")
        assert said.startswith("pyrt-guest (enforce)"), said
    said = run("armor", "true", process={"apparmorProfile": "no-such"}, code=1)
    assert "no such profile is loaded" in said, said


def test_the_engine_limits_on_version_2() -> None:
    said = call(
        "python3",
        "-m",
        "pyrt",
        "run",
        "--memory",
        "48m",
        "--pids-limit",
        "33",
        "host",
        "/bin/sh",
        "-c",
        "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max /proc/self/cgroup",
    )
    assert said.split() == [str(48 << 20), "33", "0::/"], said


def eventually(condition: Callable[[], bool]) -> None:
    """Waits until it is true."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it has not come true"
        time.sleep(0.1)


def units_left() -> list[Path]:
    return [*Path("/etc/systemd/system").rglob("pyrt.s*"), *Path("/run/systemd").rglob("pyrt.s*")]


def test_pyrt_is_a_service_and_its_containers_outlive_it() -> None:
    before = set(Path("/etc/systemd/system").rglob("*"))
    call("python3", "-m", "pyrt", "system", "install")
    assert (show("pyrt.socket", "ActiveState"), show("pyrt.socket", "UnitFileState")) == ("active", "enabled")
    # The client has no server of its own to start: it is the one behind the socket that answers.
    assert call("pyrt", "run", "--rm", "host", "/bin/echo", "hello") == "hello\n"
    server = show("pyrt.service", "MainPID")
    assert "pyrt serve" in Path("/proc", server, "cmdline").read_text().replace("\0", " ")
    call("pyrt", "run", "-d", "--name", "box", "host", "/bin/sleep", "1000")
    process = call("pyrt", "inspect", "--format", "{{.State.Pid}}", "box").strip()
    # Killed, it is started again; stopped, by the next client.
    call("systemctl", "kill", "--kill-who=main", "--signal=KILL", "pyrt.service")
    eventually(lambda: show("pyrt.service", "MainPID") not in {"0", server})
    assert call("pyrt", "exec", "box", "/bin/echo", "on") == "on\n"
    call("systemctl", "stop", "pyrt.service")
    assert show("pyrt.service", "ActiveState") == "inactive"
    assert "box" in call("pyrt", "ps")
    assert show("pyrt.service", "ActiveState") == "active"
    assert call("pyrt", "inspect", "--format", "{{.State.Pid}}", "box").strip() == process
    call("pyrt", "rm", "-f", "box")
    # By the very service that it takes away.
    call("pyrt", "system", "uninstall")
    eventually(lambda: show("pyrt.service", "LoadState") == show("pyrt.socket", "LoadState") == "not-found")
    assert units_left() == []
    assert set(Path("/etc/systemd/system").rglob("*")) == before
    assert list(Path("/run/pyrt").glob("*.sock")) == []
    assert list(Path("/run/pyrt/keepers").iterdir()) == []


def test_a_plain_user_with_a_delegated_group_is_told() -> None:
    """Containers are root's: whoever is not is told so in one sentence, and nothing is left in the group."""
    path = bundle("plain", "true")
    state = Path("/run/plain")
    state.mkdir(exist_ok=True)
    os.chown(state, 65534, 65534)
    said = call(
        "systemd-run",
        "--quiet",
        "--pipe",
        "--wait",
        "--uid=65534",
        "-p",
        "Delegate=yes",
        "/opt/bin/pyrt-runtime",
        "--root",
        state,
        "run",
        "--bundle",
        path,
        "plain",
        code=1,
    )
    assert "containers are made by root" in said, said
    assert list(state.iterdir()) == []


def main() -> None:
    for name in BOX:
        (ROOTFS / "bin").mkdir(parents=True, exist_ok=True)
        (ROOTFS / "bin" / name).symlink_to("busybox")
    (ROOTFS / "bin" / "busybox").write_bytes(Path("/bin/busybox").read_bytes())
    (ROOTFS / "bin" / "busybox").chmod(0o755)
    for folder in ("proc", "dev", "sys", "tmp"):
        (ROOTFS / folder).mkdir()
    failed = 0
    for name, test in list(globals().items()):
        if not name.startswith("test_"):
            continue
        try:
            test()
            print(f"guest: ok      {name}", flush=True)
        except Exception as error:
            failed += 1
            place = traceback.extract_tb(error.__traceback__)[-1].lineno
            print(f"guest: FAILED  {name}: line {place}: {str(error).strip()[-600:]!r}", flush=True)
    print(f"guest: done, {failed} failed", flush=True)


main()
