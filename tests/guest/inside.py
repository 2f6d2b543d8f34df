"""Runs in the guest, as root, with Python's own library alone: one function a test, one line a result."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
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
        assert "no such file" in runtime("exec", "--cgroup", "/none", "below", "true", code=255)
        assert "contains .." in runtime("exec", "--cgroup", "../x", "below", "true", code=255)
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
    nodes = [
        {"path": path, "type": "c", "major": 1, "minor": 11, "fileMode": 0o666} for path in ("/dev/log", "/tmp/log")
    ]
    base = {"namespaces": [{"type": kind} for kind in KINDS], "devices": nodes}
    script = "for at in dev tmp; do echo x 2>/dev/null > /$at/log && echo written; done; cat /dev/null && echo null"
    said = run("devices", script, linux=base | {"resources": {"devices": rules}})
    assert said.split() == ["written", "written", "null"], said
    said = run("devices", script, linux=base | {"resources": {"devices": rules[:1]}})
    assert "written" not in said, said
    assert said.endswith("null\n"), said


def test_mounts_are_remounted_and_lie_over_each_other() -> None:
    path = bundle("mounts", "grep -c ' /tmp ' /proc/mounts; touch /tmp/x; echo code $?")
    config = json.loads((path / "config.json").read_text())
    config["mounts"] += [
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"},
        {"destination": "/tmp", "type": "tmpfs", "options": ["remount", "ro"]},
    ]
    (path / "config.json").write_text(json.dumps(config))
    said = runtime("run", "--bundle", path, "mounts").splitlines()
    assert said == ["2", "touch: /tmp/x: Read-only file system", "code 1"], said


def test_want_of_memory_is_an_event() -> None:
    linux = {
        "namespaces": [{"type": kind} for kind in KINDS],
        "resources": {"memory": {"limit": 32 << 20, "swap": 32 << 20}},
    }
    with running("oom", linux=linux):
        line = ["pyrt-runtime", "--root", str(STATE), "events", "oom"]
        with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as events:
            assert events.stdout is not None
            assert json.loads(events.stdout.readline())["type"] == "stats"
            runtime("exec", "oom", "tail", "/dev/zero", code=128 + signal.SIGKILL)
            assert '{"id":"oom","type":"oom"}\n' in iter(events.stdout.readline, "")
            runtime("kill", "oom", "KILL")
            assert events.wait(timeout=60) == 0


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
    # As much as criu needs inside, and Docker's profile has.
    rules = "file, network, unix, signal, ptrace, deny /tmp/secret w,"
    profile.write_text(f"profile pyrt-guest flags=(attach_disconnected,mediate_deleted) {{ {rules} }}\n")
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


# ---- checkpoints ----

IMAGES = Path("/run/images")
COUNT = "n=0; while true; do n=$((n+1)); echo $n > /tmp/count; sleep 0.1; done"
SHAPE = (
    "Uid",
    "Gid",
    "Groups",
    "NoNewPrivs",
    "Seccomp",
    "Umask",
    *(f"Cap{kind}" for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")),
)
"""What a process may do: these lines of its status."""
GUARDED: dict[str, Any] = {
    "process": {
        "args": ["/bin/sh", "-c", COUNT],
        "noNewPrivileges": True,
        "capabilities": {kind: ["CAP_KILL", "CAP_CHOWN"] for kind in ("bounding", "effective", "permitted")},
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 99}],
        "oomScoreAdj": 321,
        "user": {"uid": 0, "gid": 0, "umask": 0o27, "additionalGids": [7]},
    },
    "linux": {
        "namespaces": [{"type": kind} for kind in KINDS],
        "maskedPaths": ["/proc/kcore", "/proc/acpi", "/sys/firmware"],
        "readonlyPaths": ["/proc/sys", "/proc/irq"],
        "sysctl": {"net.ipv4.ip_unprivileged_port_start": "7"},
        "devices": [{"path": "/dev/log", "type": "c", "major": 1, "minor": 11, "fileMode": 0o666}],
        "seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]},
        "resources": {
            "pids": {"limit": 20},
            "memory": {"limit": 64 << 20},
            "devices": [{"allow": False, "access": "rwm"}],
        },
    },
}


def mounted(name: str, **fields: Any) -> Path:
    """A bundle with more mounts: a folder of the host, read-only, and one file of it."""
    path = bundle(name, "true", **fields)
    source = Path("/run/shared")
    source.mkdir(exist_ok=True)
    (source / "file").write_text("shared\n")
    config = json.loads((path / "config.json").read_text())
    config["mounts"] += [
        {"destination": "/tmp/shared", "type": "bind", "source": str(source), "options": ["rbind", "ro", "nosuid"]},
        {"destination": "/tmp/one", "type": "bind", "source": str(source / "file"), "options": ["bind"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"]},
    ]
    (path / "config.json").write_text(json.dumps(config))
    return path


def shape(pid: int) -> dict[str, Any]:
    """All of a process that a restore must not change."""
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    mounts = [line.split() for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
    group = GROUPS / group_of(pid)[1:]
    return {
        "status": {name: status[name] for name in SHAPE},
        # Place, options, propagation; the kind of file system is the field after the dash.
        "mounts": sorted(
            (*fields[4:6], *(tag.split(":")[0] for tag in fields[6 : fields.index("-") + 2])) for fields in mounts
        ),
        "limits": Path(f"/proc/{pid}/limits").read_text(),
        "score": Path(f"/proc/{pid}/oom_score_adj").read_text(),
        "group": str(group),
        "group's limits": [(group / name).read_text() for name in ("pids.max", "memory.max")],
        "profile": Path(f"/proc/{pid}/attr/current").read_text(),
    }


def state_of(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(runtime("state", name))
    return found


def quiet(*words: str | Path) -> None:
    """A verb whose container lives on: it reads nothing, and appends to a file of the host."""
    path = Path("/run/output")
    with path.open("a") as output:
        line = ["pyrt-runtime", "--root", str(STATE), *map(str, words)]
        done = subprocess.run(line, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False, timeout=120)
    assert done.returncode == 0, f"{words}: {path.read_text()[-500:]}"


def start(path: Path, name: str, *flags: str) -> int:
    """Its process."""
    quiet(*flags, "run", "--detach", "--bundle", path, name)
    return int(state_of(name)["pid"])


def count(name: str) -> int:
    """How far it has counted, once that has been written."""
    said = ""

    def is_there() -> bool:
        nonlocal said
        said = runtime("exec", name, "cat", "/tmp/count").strip()
        return said.isdigit()

    eventually(is_there)
    return int(said)


def images(name: str) -> Path:
    return IMAGES / name


def checkpoint(name: str, *flags: str | Path, code: int | None = 0) -> str:
    return runtime("checkpoint", "--image-path", images(name), *flags, name, code=code)


def restore(path: Path, name: str, *flags: str | Path) -> int:
    """Its process."""
    quiet("restore", "--detach", "--bundle", path, "--image-path", images(name), *flags, name)
    return int(state_of(name)["pid"])


def test_a_checkpoint_brings_back_all_that_was() -> None:
    path = mounted("guarded", **GUARDED)
    pid = start(path, "guarded")
    before, counted = shape(pid), count("guarded")
    assert before["status"]["NoNewPrivs"] == "1", before
    checkpoint("guarded")
    assert "does not exist" in runtime("state", "guarded", code=1)
    assert not Path(before["group"]).exists()
    pid = restore(path, "guarded", "--pid-file", "/run/pid")
    assert (state_of("guarded")["status"], str(pid)) == ("running", Path("/run/pid").read_text())
    after = shape(pid)
    assert after == before, [(key, before[key], after[key]) for key in before if before[key] != after[key]]
    so_far = count("guarded")
    assert so_far >= counted
    eventually(lambda: count("guarded") > so_far)
    # Who joins it is where it is.
    script = (
        "cat /tmp/one /proc/sys/net/ipv4/ip_unprivileged_port_start /sys/class/net/lo/flags /proc/self/timens_offsets"
    )
    said = runtime("exec", "guarded", "sh", "-c", script)
    clock = Path(f"/proc/{pid}/timens_offsets").read_text()
    assert said == "shared\n7\n0x9\n" + clock, said
    said = runtime("exec", "guarded", "sh", "-c", "cat /dev/null && ! cat /dev/log; ! mkdir /tmp/x", code=None)
    assert said.count("Operation not permitted") == 2, said
    runtime("kill", "guarded", "KILL")
    eventually(lambda: state_of("guarded")["status"] == "stopped")
    runtime("delete", "guarded")
    assert not Path(before["group"]).exists()


def test_a_container_runs_on_beside_its_checkpoint() -> None:
    path = mounted("beside", process={"args": ["/bin/sh", "-c", COUNT]})
    pid = start(path, "beside")
    counted = count("beside")
    checkpoint("beside", "--leave-running", "--work-path", "/run/work")
    assert (Path("/run/work/dump.log").exists(), (images("beside") / "dump.log").exists()) == (True, False)
    eventually(lambda: count("beside") > counted)
    # A frozen one stays so.
    runtime("pause", "beside")
    checkpoint("beside", "--leave-running")
    assert (state_of("beside")["status"], state_of("beside")["pid"]) == ("paused", pid)
    # A restore of what can't be read leaves nothing behind, and takes nobody's place.
    (images("beside") / "pstree.img").unlink()
    for name, wrong in (("other", "restore: criu: "), ("beside", "already exists")):
        flags = ("--bundle", path, "--image-path", images("beside"), name)
        assert wrong in runtime("restore", "--detach", *flags, code=1)
    assert not (GROUPS / "pyrt/other").exists()
    assert [found["id"] for found in json.loads(runtime("list", "--format", "json"))] == ["beside"]
    assert str(path) not in Path("/proc/self/mountinfo").read_text()
    runtime("resume", "beside")
    counted = count("beside")
    eventually(lambda: count("beside") > counted)
    runtime("delete", "--force", "beside")


def test_a_checkpoint_lies_over_one_before() -> None:
    """Only what has changed since is written down again; an engine names the folder before it is there."""
    path = mounted("again", process={"args": ["/bin/sh", "-c", COUNT]})
    start(path, "again")
    counted = count("again")
    runtime("checkpoint", "--pre-dump", "--image-path", images("before"), "again")
    assert state_of("again")["status"] == "running"
    checkpoint("again", "--parent-path", "../before")
    assert (images("again") / "parent").readlink() == Path("../before")
    restore(path, "again")
    eventually(lambda: count("again") > counted)
    runtime("delete", "--force", "again")


def test_a_checkpoint_that_is_cut_off_is_not_restored() -> None:
    """criu looks for pages behind the end of their file for ever."""
    path = mounted("cut", process={"args": ["/bin/sh", "-c", COUNT]})
    start(path, "cut")
    count("cut")
    checkpoint("cut")
    flags = ("--detach", "--bundle", path, "--image-path", images("cut"), "cut")
    for name, said in (("mm-1.img", "restore: criu: "), ("pages-1.img", "it is cut off")):
        os.truncate(images("cut") / name, (images("cut") / name).stat().st_size // 2)
        assert said in runtime("restore", *flags, code=1)
        assert not (GROUPS / "pyrt/cut").exists()
        assert runtime("list", "--quiet").strip() == ""


def test_a_checkpoint_that_fails_changes_nothing() -> None:
    """Half a connection, whose other half is nobody's that is written down."""
    path = mounted("fails", process={"args": ["/bin/sh", "-c", COUNT]})
    ours, theirs = socket.socketpair()
    with ours, theirs:
        words = ["pyrt-runtime", "--root", str(STATE), "run", "--detach", "--bundle", str(path), "fails"]
        subprocess.run(words, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        counted = count("fails")
        said = checkpoint("fails", code=1)
        assert said.startswith("pyrt-runtime: checkpoint: criu: "), said
        assert said.count("\n") == 1, said
        assert [path.name for path in images("fails").iterdir()] == ["dump.log"]
        assert state_of("fails")["status"] == "running"
        eventually(lambda: count("fails") > counted)
        # An older criu would lose what a process has taken upon itself.
        said = checkpoint("fails", "--lazy-pages", code=1)
        assert "--lazy-pages: not supported" in said, said
        runtime("exec", "--detach", "--no-new-privs", "fails", "sleep", "1000")
        assert "has set no_new_privs" in checkpoint("fails", code=1)
        runtime("delete", "--force", "fails")


def waiting(*words: str | Path) -> subprocess.Popen[bytes]:
    """A verb in the foreground, with pipes."""
    line = ["pyrt-runtime", "--root", str(STATE), *map(str, words)]
    return subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def test_a_restored_container_is_waited_for() -> None:
    path = mounted("waited", process={"args": ["/bin/sh", "-c", "head -n 1; exit 7"]})
    with waiting("run", "--bundle", path, "waited") as first:
        eventually(lambda: "waited" in runtime("list", "--quiet"))
        eventually(lambda: state_of("waited")["status"] == "running")
        checkpoint("waited")
        assert first.wait() == 128 + signal.SIGKILL
    # Both pipes are others now.
    with waiting("restore", "--bundle", path, "--image-path", images("waited"), "waited") as second:
        said, _ = second.communicate(b"read\n", timeout=60)
    assert (said, second.returncode) == (b"read\n", 7)
    assert runtime("list", "--quiet").strip() == ""


def take_terminal(listener: socket.socket) -> int:
    connection, _ = listener.accept()
    with connection:
        _, (master,), _, _ = socket.recv_fds(connection, 100, 1)
    return master


def test_a_terminal_is_handed_out_again() -> None:
    script = "while read -r line; do echo heard $line; done"
    path = mounted("terminal", process={"args": ["/bin/sh", "-c", script], "terminal": True})
    with socket.socket(socket.AF_UNIX) as listener:
        Path("/run/console").unlink(missing_ok=True)
        listener.bind("/run/console")
        listener.listen()
        runtime("run", "--detach", "--console-socket", "/run/console", "--bundle", path, "terminal")
        master = take_terminal(listener)
        checkpoint("terminal", "--shell-job")
        os.close(master)
        pid = restore(path, "terminal", "--shell-job", "--console-socket", "/run/console")
        master = take_terminal(listener)
    with os.fdopen(master, "r+b", buffering=0) as terminal:
        terminal.write(b"word\n")
        said = b""
        while b"heard word" not in said:
            said += terminal.read(100)
        assert "/dev/console" in Path(f"/proc/{pid}/mountinfo").read_text()
    runtime("delete", "--force", "terminal")


@contextlib.contextmanager
def others() -> Iterator[list[dict[str, str]]]:
    """Namespaces that belong to somebody else."""
    call("ip", "netns", "add", "others")
    with subprocess.Popen(["unshare", "--ipc", "--uts", "sleep", "1000"]) as process:
        places = {kind: f"/proc/{process.pid}/ns/{kind}" for kind in ("ipc", "uts")}
        try:
            eventually(
                lambda: all(
                    os.stat(at).st_ino != os.stat(f"/proc/self/ns/{kind}").st_ino for kind, at in places.items()
                )
            )
            yield [{"type": kind, "path": at} for kind, at in {**places, "network": "/run/netns/others"}.items()]
        finally:
            process.kill()
            call("ip", "netns", "delete", "others")


def test_groups_of_systemd_profiles_and_others_namespaces_are_found_again() -> None:
    with others() as joined:
        found_again(joined)
    assert show("pyrt-back.scope", "LoadState") == "not-found"


def found_again(joined: list[dict[str, str]]) -> None:
    kinds = {namespace["type"] for namespace in joined}
    linux = {
        "namespaces": [*({"type": kind} for kind in KINDS if kind not in kinds), *joined],
        "resources": LIMITS,
        "cgroupsPath": "a-b.slice:pyrt:back",
    }
    hook = {"path": "/bin/sh", "args": ["sh", "-c", "cat >> /run/hooks; echo >> /run/hooks"]}
    armor = {"args": ["/bin/sh", "-c", COUNT], "apparmorProfile": "pyrt-guest", "noNewPrivileges": True}
    path = mounted("back", process=armor, linux=linux)
    config = json.loads((path / "config.json").read_text()) | {"hooks": {"createRuntime": [hook], "poststart": [hook]}}
    (path / "config.json").write_text(json.dumps(config))
    try:
        before = shape(start(path, "back", "--systemd-cgroup"))
        runtime("pause", "back")
        checkpoint("back")
        assert show("pyrt-back.scope", "LoadState") == "not-found"
        Path("/run/hooks").unlink()
        quiet("--systemd-cgroup", "restore", "--detach", "--bundle", path, "--image-path", images("back"), "back")
        pid = state_of("back")["pid"]
        after = shape(pid)
        assert after == before, [(key, before[key], after[key]) for key in before if before[key] != after[key]]
        assert (show("pyrt-back.scope", "TasksMax"), show("pyrt-back.scope", "Delegate")) == ("20", "yes")
        for namespace in joined:
            name = namespace["type"].replace("network", "net")
            assert os.stat(f"/proc/{pid}/ns/{name}").st_ino == os.stat(namespace["path"]).st_ino, name
        told = [json.loads(line) for line in Path("/run/hooks").read_text().splitlines() if line]
        assert [(state["status"], state["pid"]) for state in told] == [("creating", pid), ("running", pid)], told
    finally:
        runtime("delete", "--force", "back")


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


# ---- a plain user ----

PLAIN = 1000
HOME = Path("/home/plain")
SOCKETS = Path(f"/run/user/{PLAIN}")
MANAGER = "plain-manager.service"
DELEGATED = """
own=/sys/fs/cgroup$(sed s/0::// /proc/self/cgroup)
mkdir $own/own && echo $$ > $own/own/cgroup.procs
runtime() { pyrt-runtime --root /home/plain/oci "$@"; }
set -e
runtime create --bundle $1 plain
runtime start plain
cat $own/plain/memory.max $own/plain/pids.max $own/plain/cpu.max
test $(runtime state plain | sed -n 's/.*"pid": *\\([0-9]*\\).*/\\1/p') = $(cat $own/plain/cgroup.procs)
runtime exec plain cat /proc/self/cgroup /proc/self/uid_map
runtime update --pids-limit 30 plain
cat $own/plain/pids.max
runtime pause plain; runtime state plain | grep -o paused; runtime resume plain
runtime events --stats plain | grep -o '"limit":30'
runtime exec plain tail /dev/zero || echo code $?
runtime kill plain KILL
runtime delete --force plain
test ! -e $own/plain && runtime list --quiet
"""


def as_plain_user(*words: str | Path, code: int | None = 0) -> str:
    """A command line of a user without rights, who has a systemd."""
    if not HOME.exists():
        call("useradd", "--create-home", "--uid", str(PLAIN), "plain")
        SOCKETS.mkdir(parents=True)
        os.chown(SOCKETS, PLAIN, PLAIN)
        # As user@1000.service, which wants PAM.
        run = ("systemd-run", "--quiet", f"--unit={MANAGER}", f"--uid={PLAIN}", "-p", "Delegate=yes")
        call(*run, f"--setenv=XDG_RUNTIME_DIR={SOCKETS}", "/lib/systemd/systemd", "--user")
        eventually((SOCKETS / "systemd" / "private").exists)
    environment = (f"XDG_RUNTIME_DIR={SOCKETS}", "PATH=/opt/bin:/usr/bin:/bin", f"HOME={HOME}")
    ids = ("--reuid=1000", "--regid=1000", "--clear-groups")
    return call("setpriv", *ids, "env", "-i", "--chdir=/", *environment, *words, code=code)


def rootless(name: str, script: str, resources: dict[str, Any]) -> Path:
    """A bundle of a plain user's."""
    own = [{"containerID": 0, "hostID": PLAIN, "size": 1}]
    namespaces = [{"type": kind} for kind in (*KINDS, "user")]
    return bundle(
        name,
        script,
        linux={"namespaces": namespaces, "uidMappings": own, "gidMappings": own, "resources": resources},
    )


def test_limits_of_a_plain_user_hold_in_a_delegated_group() -> None:
    as_plain_user("true")
    # Above memory.high it takes an emulated machine most of a minute to come to the end.
    path = rootless("plain", "exec sleep 1000", {kind: LIMITS[kind] for kind in ("memory", "cpu", "pids")})
    script = Path("/run/delegated.sh")
    script.write_text(DELEGATED)
    run = ("systemd-run", "--quiet", "--pipe", "--wait", f"--uid={PLAIN}", "-p", "Delegate=yes")
    said = call(*run, "--setenv=PATH=/opt/bin:/usr/bin:/bin", "sh", script, path).split()
    limits = [str(64 << 20), "20", "50000", "100000"]
    assert said == [*limits, "0::/", "0", "1000", "1", "30", "paused", '"limit":30', "code", "137"], said


def test_a_plain_user_without_a_group_is_told() -> None:
    path = rootless("plain", "cat /proc/self/uid_map", LIMITS)
    words = ("pyrt-runtime", "--root", HOME / "oci", "run", "--bundle", path, "plain")
    said = as_plain_user(*words, code=1)
    assert "linux.cgroupsPath: " in said, said
    assert "systemd-run --user --scope" in said, said
    path = rootless("plain", "cat /proc/self/uid_map", {})
    assert as_plain_user(*words).split() == ["0", "1000", "1"]


def test_a_users_own_systemd_makes_the_group() -> None:
    path = rootless("plain", "exec sleep 1000", LIMITS)
    scope = ("systemd-run", "--user", "--quiet", "--scope", "-p", "Delegate=yes")
    runtime = ("pyrt-runtime", "--root", HOME / "oci", "--systemd-cgroup")
    as_plain_user(*scope, *runtime, "run", "--detach", "--bundle", path, "plain")
    try:
        found = json.loads(as_plain_user(*runtime, "state", "plain"))
        assert group_of(found["pid"]) == f"/system.slice/{MANAGER}/user.slice/pyrt-plain.scope"
        group = GROUPS / group_of(found["pid"])[1:]
        assert ((group / "memory.max").read_text().strip(), found["owner"]) == (str(64 << 20), "plain")
        show = ("systemctl", "--user", "show", "--value", "-p", "TasksMax", "pyrt-plain.scope")
        assert as_plain_user(*show).strip() == "20"
        as_plain_user(*runtime, "update", "--pids-limit", "30", "plain")
        assert as_plain_user(*show).strip() == "30"
    finally:
        as_plain_user(*runtime, "delete", "--force", "plain")
    assert not group.exists()


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
