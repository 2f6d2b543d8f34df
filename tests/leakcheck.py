"""One oracle for "nothing left behind": what is there before a test must be all that is there after it.

It looks at processes, mounts, cgroups, links, firewall tables, loop devices, our own descriptors and
threads, leases of user ids, and the files of the test's own state folder. It blames only what belongs to the test (see
`ward`): the machine is shared. Network namespaces have no list of their own; one that is left is held by
a process, a mount or a descriptor, and shows as that.

Ends are asynchronous (a keeper removes its cgroup after the exit status is known), so the oracle looks
again until nothing is left or its patience is at an end.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from pyrt import _native
from tests import ward

# A key that tells the thing from its successors, and how a person would name it.
Findings = Iterable[tuple[object, str]]
Snapshot = dict[object, str]

# Worker threads of Trio idle for ten seconds before they end; a busy one has its job's name in brackets.
IDLE_WORKER = re.compile(r"Trio thread \d+$")
CONTAINER_ID = re.compile(rb"[0-9a-f]{64}")
# Every network device, table and chain that pyrt makes begins so.
OURS = "pyrt"

_residents: set[int] = set()


def resident(pid: int) -> None:
    """This process serves the whole run (a registry): it is nobody's leak."""
    _residents.add(pid)


class State(NamedTuple):
    """The folders of one test: what PYRT_ROOT, PYRT_RUN and TMPDIR say while it runs."""

    root: Path
    run: Path
    temporary: Path


Kind = Callable[[State], Findings]


class Leaks(AssertionError):
    """Something is left behind; the message lists it."""


class Oracle:
    """Compares the world now with the world when it was made."""

    def __init__(self, state: State, *, patience: float = 10.0, kinds: Sequence[Kind] | None = None) -> None:
        self._state = state
        self._patience = patience
        self._kinds = (*KINDS, self._cgroups) if kinds is None else kinds
        self._ids: set[str] = set()
        # What is looked up once a process stays open for its life: the roots of the cgroup hierarchies.
        _native.host()
        self._before = self._look()

    def owns(self, container: str) -> None:
        """This id was used without a journal: its cgroups are this test's too."""
        self._ids.add(container)

    def check(self, *, patience: float | None = None) -> None:
        """Waits until nothing is left, at most `patience` seconds.

        Raises:
            Leaks: something still is.
        """
        deadline = time.monotonic() + (self._patience if patience is None else patience)
        pause = 0.002
        while left := self.left():
            if time.monotonic() > deadline:
                raise Leaks("left behind:\n" + "\n".join(f"  {text}" for text in left))
            time.sleep(pause)
            pause = min(pause * 2, 0.1)

    def left(self) -> list[str]:
        """What is there now and was not before, one line each."""
        return sorted(text for key, text in self._look().items() if key not in self._before)

    def _look(self) -> Snapshot:
        found: Snapshot = {}
        for kind in self._kinds:
            found.update(((kind.__name__, key), text) for key, text in kind(self._state))
        return found

    def _cgroups(self, state: State) -> Findings:
        return cgroups(state, self._ids)


def processes(_state: State) -> Findings:
    """Everything below the run's init, running, stopped or a zombie; Python's own helpers end with the interpreter."""
    below = {pid for guest in _residents for pid in ward.descendants(guest)} | _residents
    for pid in ward.descendants(ward.init()) - below:
        text = _read(Path(f"/proc/{pid}/stat"))
        if text is None:
            continue
        name, _, rest = text.partition("(")[2].rpartition(")")
        if b"multiprocessing." in _command(pid):
            continue
        fields = rest.split()
        state, started = fields[0], fields[19]
        yield (pid, started), f"{'zombie' if state == 'Z' else 'process'} {pid} ({name}), child of {fields[1]}"


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def mounts(state: State) -> Findings:
    """All of our own namespace; in every other one, what speaks of the test's folders."""
    own = os.stat("/proc/self/ns/mnt").st_ino
    folders = str(state.root.parent)
    for namespace, table in _mount_tables():
        for line in table.splitlines():
            if (namespace == own and ward.init() != os.getpid()) or folders in line:
                number, _, device, root, point, *rest = line.split()
                where = "" if namespace == own else f" in namespace {namespace}"
                yield (namespace, number, device, point), f"mount of {root} at {point}{where}: {' '.join(rest)}"


def _mount_tables() -> Iterator[tuple[int, str]]:
    seen = set()
    for process in [Path("/proc/self"), *Path("/proc").glob("[0-9]*")]:
        try:
            namespace = (process / "ns/mnt").stat().st_ino
        except OSError:
            continue
        if namespace in seen:
            continue
        table = _read(process / "mountinfo")
        if table:
            seen.add(namespace)
            yield namespace, table


def cgroups(state: State, ids: set[str]) -> Findings:
    """Groups of this test's containers in every hierarchy: the journal knows all ids that it ever gave."""
    known = ids | _journaled(state)
    for hierarchy in [Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir()]:
        group = hierarchy / "pyrt"
        if not group.is_dir():
            continue
        for directory in group.iterdir():
            if directory.name in known:
                yield str(directory), f"cgroup {directory}"


def _journaled(state: State) -> set[str]:
    found: set[str] = set()
    for file in state.root.glob("journal.db*"):
        try:
            found.update(match.decode() for match in CONTAINER_ID.findall(file.read_bytes()))
        except FileNotFoundError:
            continue
    return found


def links(_state: State) -> Findings:
    """Network devices with our names, in this namespace."""
    for index, name in socket.if_nameindex():
        if name.startswith(OURS):
            yield (index, name), f"link {name}"


def firewall(_state: State) -> Findings:
    """Tables with our names."""
    if os.geteuid() != 0 or shutil.which("nft") is None:
        return
    listing = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=False).stdout
    for line in listing.splitlines():
        if line.split()[-1].startswith(OURS):
            yield line, f"nft {line}"


def loop_devices(state: State) -> Findings:
    """Those that are backed by a file of the test's."""
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        file = _read(backing)
        if file and file.startswith(str(state.root.parent)):
            yield (str(backing), file), f"loop device {backing.parts[3]} on {file.strip()}"


def descriptors(_state: State) -> Findings:
    """Our own open files, by number and by what they are."""
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:
            continue  # the one that listed the folder
        if target == f"/proc/{os.getpid()}/mountinfo":
            continue  # the native core's: it is told of each change of the mounts, and looks again
        yield (number, target), f"descriptor {number}: {target}"


def threads(_state: State) -> Findings:
    """Ours, but for Trio's idle workers."""
    for thread in threading.enumerate():
        if not IDLE_WORKER.match(thread.name):
            yield thread.ident, f"thread {thread.name}"


def state_files(state: State) -> Findings:
    """What a container or an ingestion needs while it lasts, sockets of servers, temporary files."""
    keepers = state.run / "keepers"
    for folder in (state.root / "containers", state.root / "ingest", state.run, keepers, state.temporary):
        if folder.is_dir():
            for path in folder.iterdir():
                if path != keepers:
                    yield str(path), f"file {path}"


def leases(state: State) -> Findings:
    """Ranges of user ids that the journal holds for a container."""
    journal = state.root / "journal.db"
    if not journal.exists():
        return
    with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as database:
        try:
            rows = database.execute("SELECT base, container FROM leases").fetchall()
        except sqlite3.DatabaseError:
            return  # Not made yet, or damaged on purpose by the test.
    for base, container in rows:
        yield (base, container), f"lease of user ids from {base} for {container}"


def _read(path: Path) -> str | None:
    try:
        return path.read_text(errors="surrogateescape")
    except OSError:
        return None


KINDS: Sequence[Kind] = (
    processes,
    mounts,
    links,
    firewall,
    loop_devices,
    descriptors,
    threads,
    state_files,
    leases,
)
