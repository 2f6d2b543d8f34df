"""A machine that lacks something: the command says what. Two engines on one folder lack nothing."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cli.desk import Desk, eventually
from tests.foreign import REPOSITORY
from tests.main_job.sentences import said

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.foreign import Layout

pytestmark = pytest.mark.root


def elsewhere(pyrt: Desk, script: str) -> subprocess.CompletedProcess[bytes]:
    """A shell in a mount namespace of its own, in which `pyrt` is the command; its server ends with it."""
    bin = pyrt.folder / "bin"
    bin.mkdir(exist_ok=True)
    (bin / "pyrt").unlink(missing_ok=True)
    (bin / "pyrt").symlink_to(pyrt.program)
    environment = {**pyrt.environment, "PATH": f"{bin}:{os.environ['PATH']}"}
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script]
    try:
        return subprocess.run(
            command,
            env=environment,
            cwd=pyrt.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
        )
    finally:
        pyrt.close()


RUN = "pyrt run --rm box true"
CGROUPS = "/sys/fs/cgroup"
on_version_1 = pytest.mark.skipif(not Path(CGROUPS, "memory").is_dir(), reason="hierarchies of version 1 are hidden")


@on_version_1
def test_a_cgroup_hierarchy_that_is_missing_or_read_only(box: Desk) -> None:
    """What nobody asked for is done without, what was asked for is named; the usual limit can be renounced."""
    box.close()
    said(elsewhere(box, f"mount -o remount,bind,ro {CGROUPS}/memory; {RUN}"), 125, "read-only file system", "writable")
    said(
        elsewhere(box, f"umount {CGROUPS}/memory; pyrt run --rm -m 64m box true"), 125, "controller memory", "mount it"
    )
    assert elsewhere(box, f"umount {CGROUPS}/memory; {RUN}").returncode == 0
    said(elsewhere(box, f"umount {CGROUPS}/pids; {RUN}"), 125, "controller pids", "--pids-limit -1")
    assert elsewhere(box, f"umount {CGROUPS}/pids; pyrt run --rm --pids-limit -1 box true").returncode == 0
    said(elsewhere(box, f"umount -R {CGROUPS}; {RUN}"), 125, "no cgroup hierarchy")
    said(elsewhere(box, "umount -R /sys; " + RUN), 125, "no cgroup hierarchy")


def test_a_kernel_that_is_too_old(box: Desk) -> None:
    """By the version that it tells, and by a system call that it does not have."""
    box.close()
    (box.folder / "release").write_text("4.19.0-27-amd64\n")
    said(
        elsewhere(box, f"mount --bind release /proc/sys/kernel/osrelease; {RUN}"), 125, "needs Linux", "4.19.0-27-amd64"
    )
    python = shlex.quote(sys.executable)
    for call in ("fsopen", "clone3", "mount_setattr"):
        inject = f"strace --follow-forks -o /dev/null -e trace={call} -e inject={call}:error=ENOSYS"
        done = elsewhere(box, f"exec {inject} {python} -m pyrt run --rm box true")
        said(done, 125, "function not implemented", "lacks a system call")


NOBODY = 65534


@pytest.fixture
def readable() -> Iterator[tuple[Path, dict[str, str]]]:
    """A Python and this library where an ordinary user may read them, and what makes the one find the other."""
    python = Path("/usr/bin/python3")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    told = [str(python), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    if (
        not python.exists()
        or subprocess.run(told, capture_output=True, text=True, check=True).stdout.strip() != version
    ):
        pytest.skip(f"there is no Python {version} that everybody may execute")
    folder = Path("/tmp", f"pyrt-readable-{os.getpid()}")
    packages = Path(sys.prefix, "lib", f"python{version}", "site-packages")
    try:
        shutil.copytree(REPOSITORY / "python/pyrt", folder / "pyrt", ignore=shutil.ignore_patterns("__pycache__"))
        for package in ("trio", "msgspec", "attr", "attrs", "outcome", "sniffio", "sortedcontainers", "idna"):
            if (packages / package).is_dir():
                shutil.copytree(packages / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "home").mkdir(mode=0o700)
        os.chown(folder / "home", NOBODY, NOBODY)
        yield python, {"PYTHONPATH": str(folder), "PATH": os.environ["PATH"], "HOME": str(folder / "home")}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_without_root(readable: tuple[Path, dict[str, str]]) -> None:
    """An ordinary user, with and without user namespaces: what is missing is said before anything is made."""
    python, environment = readable
    home = environment["HOME"]
    as_nobody = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--"]
    no_namespaces = ["unshare", "--user", "--map-root-user", "sh", "-c"]
    no_more = 'echo 0 >/proc/sys/user/max_user_namespaces && exec "$@"'

    def run(*command: str, **places: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*as_nobody, *command], env=environment | places, cwd="/", capture_output=True, timeout=60, check=False
        )

    pyrt = (str(python), "-m", "pyrt", "run", "--rm", "host", "true")
    said(run(*pyrt), 125, "no folder for the server's socket", "XDG_RUNTIME_DIR")
    said(run(*pyrt, XDG_RUNTIME_DIR=home), 125, "/var/lib/pyrt", "PYRT_ROOT")
    own = {"XDG_RUNTIME_DIR": home, "PYRT_ROOT": f"{home}/root", "PYRT_RUN": f"{home}/run"}
    said(run(*pyrt, **own), 125, "by root")
    said(run(*no_namespaces, no_more, "sh", *pyrt, **own), 125, "by root")
    assert os.listdir(f"{home}/root/containers") == []


def test_state_folders_that_can_t_be_used(pyrt: Desk, tmp_path: Path) -> None:
    def ps(**places: str) -> subprocess.CompletedProcess[bytes]:
        return pyrt.run("ps", env=pyrt.environment | places)

    (tmp_path / "file").touch()
    for root in (f"{tmp_path}/file", f"{tmp_path}/file/below", "/proc/nowhere"):
        said(ps(PYRT_ROOT=root), 125, root, "PYRT_ROOT")
    said(ps(PYRT_ROOT="relative"), 125, "no absolute path")
    for database in ("journal.db", "store.db"):
        folder = tmp_path / database
        folder.mkdir(mode=0o700)
        (folder / database).write_bytes(b"not a database " * 1000)
        said(ps(PYRT_ROOT=str(folder)), 125, database)
    (tmp_path / "read-only").mkdir()
    script = "mount -t tmpfs -o ro none ../read-only; PYRT_ROOT=$(realpath ../read-only) pyrt ps"
    said(elsewhere(pyrt, script), 125, "read-only file system", "PYRT_ROOT")


def test_sockets_that_are_taken(pyrt: Desk, tmp_path: Path) -> None:
    pyrt.ok("ps")
    name = next(pyrt.run_folder.glob("*.sock")).name
    said(pyrt.run("serve"), 125, "a server is already there", "PYRT_RUN")

    def ps(run: Path) -> subprocess.CompletedProcess[bytes]:
        return pyrt.run("ps", env=pyrt.environment | {"PYRT_RUN": str(run)})

    taken = tmp_path / "taken"
    (taken / name).mkdir(parents=True)
    taken.chmod(0o700)
    said(ps(taken), 125, f"{taken / name}", "PYRT_RUN")
    open_to_others = tmp_path / "open"
    open_to_others.mkdir()
    open_to_others.chmod(0o755)
    said(ps(open_to_others), 125, "open to others", "chmod 700")
    said(ps(tmp_path / "no/where"), 125, "creating", "PYRT_RUN")
    said(ps(Path("/tmp", "x" * 110)), 125, "too long", "PYRT_RUN")
    # One that nobody listens at any more is simply replaced.
    stale = tmp_path / "stale"
    stale.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as forgotten:
        forgotten.bind(str(stale / name))
    assert ps(stale).returncode == 0
    server = int(next(stale.glob("*.lock")).read_text())
    os.kill(server, signal.SIGTERM)
    eventually(lambda: not (stale / name).exists())


def test_two_engines_on_one_state_folder(box: Desk, busybox: Layout, tmp_path: Path) -> None:
    """Of two servers, and of engines of their own: images, names and containers are the same for all."""
    other = Desk(box.program, box.folder, tmp_path / "run2", box.environment | {"PYRT_RUN": str(tmp_path / "run2")})
    (tmp_path / "run2").mkdir(mode=0o700)
    try:

        def work(number: int) -> str:
            desk = (box, other)[number % 2]
            return desk.ok("run", "--rm", "--name", f"one-{number}", "box", "echo", str(number), timeout=60)

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(work, range(24))) == [f"{number}\n" for number in range(24)]
        command = [sys.executable, "-m", "pyrt", "run", "--name", "kept", "box", "echo", "third"]
        done = subprocess.run(command, env=box.environment, capture_output=True, timeout=60, check=True)
        assert done.stdout == b"third\n"
        for desk in (box, other):
            assert desk.ok("ps", "-a", "--format", "{{.Names}}") == "kept\n"
        said(other.run("run", "--name", "kept", "box", "true"), 125, "kept")
        other.ok("tag", "box", "seen-by-both")
        assert box.ok("run", "--rm", "seen-by-both", "echo", "yes") == "yes\n"
        other.ok("rm", "kept")
        assert box.ok("ps", "-aq") == ""
    finally:
        other.close()
