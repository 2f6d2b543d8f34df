"""A test run in a ward of its own: an init that adopts every orphan, and a mount namespace.

The suite shares the machine with others who start containers too. Inside the ward, each process that a
test left behind is a descendant of ours and each mount in our namespace is ours, so that `leakcheck`
blames exactly what belongs to the run. Mounts are shared among the run's own namespaces, as systemd has
them: a container's mount that leaks back shows.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from pathlib import Path

CLONE_NEWNS = 0x00020000
MS_REC, MS_PRIVATE, MS_SHARED = 0x4000, 1 << 18, 1 << 20
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36

_libc = ctypes.CDLL(None, use_errno=True)
_INIT = "PYRT_TEST_INIT"


def init() -> int:
    """The process id of the run's own init; without a ward, of this process."""
    return int(os.environ.get(_INIT, os.getpid()))


def enter() -> None:
    """Goes on as a child of a new init, which ends as this child does. Once a run; call it single-threaded."""
    if _INIT in os.environ:
        return
    _call(_libc.prctl, PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if os.geteuid() == 0:
        _own_mounts()
    os.environ[_INIT] = str(os.getpid())
    child = os.fork()
    if child:
        os._exit(_watch(child))
    _call(_libc.prctl, PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    # A shell's background job has both ignored, and all that it starts inherits that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)


def children() -> dict[int, list[int]]:
    """All processes by their parent."""
    by_parent: dict[int, list[int]] = {}
    for process in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = process.read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        parent = int(text.rpartition(")")[2].split()[1])
        by_parent.setdefault(parent, []).append(int(process.parent.name))
    return by_parent


def descendants(root: int) -> set[int]:
    """Every process below `root`, zombies too."""
    by_parent = children()
    found: set[int] = set()
    waiting = [root]
    while waiting:
        below = by_parent.get(waiting.pop(), [])
        found.update(below)
        waiting.extend(below)
    return found


def _own_mounts() -> None:
    _call(_libc.unshare, CLONE_NEWNS)
    _call(_libc.mount, None, b"/", None, MS_REC | MS_PRIVATE, None)
    _call(_libc.mount, None, b"/", None, MS_REC | MS_SHARED, None)


def _watch(child: int) -> int:
    """Reaps what comes, and ends what the run left: its own failure if there was any."""
    # A Ctrl-C reaches the child by itself; these are for whoever knows this process only.
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _: os.kill(child, received))
    while True:
        pid, status = os.wait()
        if pid == child:
            break
    code = os.waitstatus_to_exitcode(status)
    left = _end_all(_stragglers())
    if left:
        os.write(2, f"{len(left)} processes outlived the tests and were killed: {', '.join(left)}\n".encode())
    return (128 - code if code < 0 else code) or (1 if left else 0)


def _stragglers() -> set[int]:
    """What is still there when those that end with the run (Python's resource tracker) have had a second to do so."""
    deadline = time.monotonic() + 1
    while (left := descendants(os.getpid())) and time.monotonic() < deadline:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
        time.sleep(0.01)
    return left


def _end_all(pids: set[int]) -> list[str]:
    names = []
    for pid in pids:
        try:
            names.append(f"{Path(f'/proc/{pid}/comm').read_text().strip()} ({pid})")
            os.kill(pid, signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return names


def _call(function: ctypes._NamedFuncPointer, *arguments: object) -> None:
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{function.__name__}: {os.strerror(number)}")
