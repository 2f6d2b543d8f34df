"""Containers that mean harm, or that the kernel does not let die: the host, the server and all others stay usable.

Stops are held to their time-out and one second more, by the times that the keeper and the journal tell. The old
complaint about docker, that one container which hangs has everything else hang, is what each of them is asked about.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.conftest import client_program, pyrt  # noqa: F401  fixtures, by their names
from tests.cli.desk import Desk, eventually
from tests.durable.test_failing_disk import small_disk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.foreign import Layout
    from tests.leakcheck import State

pytestmark = pytest.mark.root

# Every one of them forks for ever, whatever it is told.
FORK_BOMB = """
import os
print("boom", flush=True)
while True:
    try:
        os.fork()
    except OSError:
        pass
"""
# CLONE_VFORK, without CLONE_VM: the parent waits in the kernel for a child that does not execute anything.
VFORK = """
import ctypes, os, signal, time
numbers = {"x86_64": 56, "aarch64": 220}
print("waits", flush=True)
ctypes.CDLL(None).syscall(numbers[os.uname().machine], 0x4000 | signal.SIGCHLD, 0, 0, 0, 0)
time.sleep(1000)
"""
DEAF = "trap '' HUP INT QUIT USR1 USR2 TERM; echo ready; while :; do sleep 0.05; done"


@pytest.fixture
def user(pyrt: Desk, busybox: Layout) -> Desk:  # noqa: F811
    """Somebody with an image and a container that is to notice nothing."""
    pyrt.ok("load", "-i", str(busybox.path), "--name", "box")
    pyrt.ok("run", "-d", "--name", "other", "box", "sleep", "1000")
    return pyrt


def state_of(user: Desk, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(user.ok("inspect", name))[0]["State"]
    return found


def nobody_else_notices(user: Desk) -> None:
    """Lists, events, a container that runs and one that is started answer."""
    assert "other" in user.ok("ps")
    assert "container started" in user.ok("events", "--since", "0", "--until", "0s", "--json")
    assert user.ok("exec", "other", "echo", "on") == "on\n"
    assert user.ok("run", "--rm", "box", "echo", "new") == "new\n"


def stopped_in_time(user: Desk, name: str, timeout: int) -> dict[str, Any]:
    """Stops a container, and returns its state; the time is that from the first signal to its last breath."""
    before = time.time_ns()
    assert user.ok("stop", "-t", str(timeout), name) == f"{name}\n"
    told = user.ok("events", "--since", "0", "--until", "0s", "-f", f"container={name}", "-f", "event=kill", "--json")
    asked = min(at for line in told.splitlines() if (at := json.loads(line)["time"]) >= before)
    state = state_of(user, name)
    # Nanoseconds are more than Python knows of.
    finished = datetime.fromisoformat(state["FinishedAt"][:26] + "Z").timestamp()
    assert finished - asked / 1e9 < timeout + 1
    return state


def process_state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


# ---- bombs ----


def test_a_fork_bomb_is_held_by_its_limit(user: Desk) -> None:
    user.ok("run", "-d", "--name", "bomb", "--pids-limit", "64", "host", "python3", "-c", FORK_BOMB)
    # Not by `top`: who reads the command line of a process that forks waits for its memory map, 64 times over.
    eventually(lambda: user.ok("stats", "--no-stream", "--format", "{{.PIDs}}", "bomb") == "64\n")
    nobody_else_notices(user)
    assert stopped_in_time(user, "bomb", 1)["ExitCode"] == 137
    nobody_else_notices(user)


def test_what_the_limit_on_processes_refused_is_said(user: Desk) -> None:
    done = user.run("run", "--rm", "--pids-limit", "16", "box", "sh", "-c", "bomb() { bomb | bomb & bomb; }; bomb")
    assert done.returncode not in {0, 125}
    assert b"pyrt: the container's limit on processes refused " in done.stderr
    assert b"hint: --pids-limit raises it of 16\n" in done.stderr


def test_a_memory_bomb_ends_alone(user: Desk) -> None:
    bomb = ("box", "sh", "-c", "a=xxxxxxxx; while :; do a=$a$a; done")
    done = user.run("run", "--rm", "-m", "32m", *bomb)
    assert done.returncode == 137
    assert b"pyrt: the container ran out of memory\n" in done.stderr
    user.ok("run", "-d", "--name", "bomb", "-m", "32m", *bomb)
    assert user.ok("wait", "bomb") == "137\n"
    state = state_of(user, "bomb")
    assert (state["OOMKilled"], state["ExitCode"]) == (True, 137)
    nobody_else_notices(user)


def test_a_disk_that_a_container_fills_is_made_good_by_its_removal(pyrt: Desk, busybox: Layout, state: State) -> None:  # noqa: F811
    with small_disk(state.root), closing(pyrt):
        pyrt.ok("load", "-i", str(busybox.path), "--name", "box")
        fill = "cat /dev/zero > /full; trap 'exit 3' USR1; while :; do sleep 0.05; done"
        pyrt.ok("run", "-d", "--name", "filler", "box", "sh", "-c", fill)
        eventually(lambda: _free(state.root) == 0)
        assert "filler" in pyrt.ok("ps")
        # Nothing can be recorded, and that is what is said.
        done = pyrt.run("run", "--rm", "box", "echo", "hello")
        if done.returncode:
            assert (done.returncode, done.stderr[:6]) == (125, b"pyrt: ")
            assert b"disk is full" in done.stderr or b"No space left" in done.stderr
            assert b"Traceback" not in done.stderr
        pyrt.ok("kill", "-s", "USR1", "filler")
        assert pyrt.ok("wait", "filler") == "3\n"
        pyrt.ok("rm", "filler")
        assert pyrt.ok("run", "--rm", "box", "echo", "hello") == "hello\n"
        assert pyrt.ok("ps", "-aq") == ""
    (log,) = state.run.glob("*.log")
    assert "the end of container filler can't be recorded just now" in log.read_text()
    log.unlink()


def _free(folder: Path) -> int:
    return os.statvfs(folder).f_bavail


# ---- what does not want to end, or can not ----


def test_one_that_is_deaf_to_signals_is_stopped(user: Desk) -> None:
    user.ok("run", "-d", "--name", "deaf", "box", "sh", "-c", DEAF)
    eventually(lambda: user.ok("logs", "deaf"))
    assert stopped_in_time(user, "deaf", 1)["ExitCode"] == 137


@pytest.mark.parametrize("init", [(), ("--init",)], ids=["none", "init"])
def test_the_dead_and_orphaned_are_buried(user: Desk, init: tuple[str, ...]) -> None:
    script = "i=0; while [ $i -lt 300 ]; do (true &); i=$((i+1)); done; echo done; exec sleep 1000"
    user.ok("run", "-d", *init, "--name", "grave", "box", "sh", "-c", script)
    eventually(lambda: user.ok("logs", "grave"))
    if init:
        eventually(lambda: len(user.ok("top", "grave").splitlines()) == 1 + 2)
    nobody_else_notices(user)
    # pyrt's first process passes the stop signal on; a sleep that is the first one does not hear it.
    assert stopped_in_time(user, "grave", 1)["ExitCode"] == (143 if init else 137)


def test_one_that_waits_for_its_child_in_the_kernel_is_paused_and_stopped(user: Desk) -> None:
    user.ok("run", "-d", "--name", "vfork", "host", "python3", "-c", VFORK)
    eventually(lambda: user.ok("logs", "vfork"))
    eventually(lambda: process_state(state_of(user, "vfork")["Pid"]) == "D")
    user.ok("pause", "vfork")
    nobody_else_notices(user)
    user.ok("unpause", "vfork")
    assert stopped_in_time(user, "vfork", 1)["ExitCode"] == 137


@contextmanager
def disk_that_hangs(folder: Path) -> Iterator[Path]:
    """A file system of its own, to be frozen: whoever writes to it waits in the kernel, and hears no signal."""
    image, place = folder / "disk", folder / "mounted"
    with image.open("wb") as file:
        file.truncate(16 << 20)
    place.mkdir()
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, place], check=True)
    place.chmod(0o777)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


@contextmanager
def frozen(place: Path) -> Iterator[None]:
    subprocess.run(["fsfreeze", "-f", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["fsfreeze", "-u", place], check=True)


def test_one_that_hangs_in_the_kernel_holds_nobody_up_and_is_named(
    pyrt: Desk,  # noqa: F811
    busybox: Layout,
    tmp_path: Path,
) -> None:
    with disk_that_hangs(tmp_path) as place, closing(pyrt):
        pyrt.ok("load", "-i", str(busybox.path), "--name", "box")
        pyrt.ok("run", "-d", "--name", "other", "box", "sleep", "1000")
        write = "while :; do echo x > /data/file; done"
        pyrt.ok("run", "-d", "--name", "stuck", "-v", f"{place}:/data", "box", "sh", "-c", write)
        pid = state_of(pyrt, "stuck")["Pid"]
        with frozen(place):
            eventually(lambda: process_state(pid) == "D")
            nobody_else_notices(pyrt)
            before = time.monotonic()
            done = pyrt.run("stop", "-t", "1", "stuck")
            assert time.monotonic() - before < 1 + 1 + 1, "it waits for what does not end"
            assert done.returncode == 125
            assert f"does not end: process {pid} (sh) hangs in the kernel".encode() in done.stderr
            done = pyrt.run("rm", "-f", "stuck")
            assert done.returncode == 125
            assert f"process {pid} (sh) hangs in the kernel".encode() in done.stderr
            nobody_else_notices(pyrt)
            # The next server finds it as it is.
            pyrt.close()
            assert "stuck" in pyrt.ok("ps")
            nobody_else_notices(pyrt)
        assert pyrt.ok("wait", "stuck") == "137\n"
        pyrt.ok("rm", "stuck")
        pyrt.ok("rm", "-f", "other")
