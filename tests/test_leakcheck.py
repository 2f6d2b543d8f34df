"""The oracle must be able to fail: one deliberate leak of each kind, and the innocent beside it."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import trio

from tests.leakcheck import Leaks, Oracle, State, resident


@pytest.fixture
def oracle(state: State) -> Oracle:
    """Without patience: a leak is there to stay."""
    return Oracle(state, patience=0)


@contextmanager
def blamed(oracle: Oracle, words: str) -> Iterator[None]:
    """The body leaks what `words` name, and cleans up after it was found."""
    yield
    with pytest.raises(Leaks, match=words):
        oracle.check()


def test_nothing_is_no_leak(oracle: Oracle) -> None:
    oracle.check()


def test_a_process(oracle: Oracle) -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        with blamed(oracle, rf"process {child.pid} \(sleep\)"):
            pass
        child.kill()
    oracle.check()


def test_a_zombie(oracle: Oracle) -> None:
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    with blamed(oracle, f"zombie {pid}"):
        pass
    os.waitpid(pid, 0)
    oracle.check()


def test_an_orphan_that_has_left_the_session(oracle: Oracle) -> None:
    """As a keeper whose engine was killed: no parent, no environment, no name of ours."""
    script = "setsid sleep 60 >/dev/null 2>&1 & echo $!"
    pid = int(subprocess.run(["sh", "-c", script], env={}, capture_output=True, text=True, check=True).stdout)
    # Its name is the shell's, setsid's or sleep's, whichever it has come to.
    with blamed(oracle, f"process {pid} "):
        pass
    os.kill(pid, signal.SIGKILL)
    oracle.check(patience=5)


def test_a_process_that_serves_the_whole_run_is_no_leak(oracle: Oracle) -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        resident(child.pid)
        oracle.check()
        child.kill()


@pytest.mark.root
def test_a_mount(oracle: Oracle, tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path], check=True)
    with blamed(oracle, f"at {tmp_path}: .* tmpfs"):
        pass
    subprocess.run(["umount", tmp_path], check=True)
    oracle.check()


@pytest.mark.root
def test_a_mount_that_only_another_namespace_has(oracle: Oracle, state: State) -> None:
    script = f"mount -t tmpfs none {state.root} && echo done && exec sleep 60"
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "done\n"
        with blamed(oracle, f"at {state.root} in namespace"):
            pass
        child.kill()
    oracle.check()


@pytest.mark.root
def test_a_cgroup_of_a_container_that_the_journal_knows(oracle: Oracle, state: State) -> None:
    container = os.urandom(32).hex()
    group = next(path for path in (Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup")) if path.is_dir())
    (group / "pyrt" / container).mkdir(parents=True)
    oracle.check()
    (state.root / "journal.db-wal").write_bytes(b"\0\7" + container.encode() + b"\1")
    with blamed(oracle, f"cgroup {group}/pyrt/{container}"):
        pass
    (group / "pyrt" / container).rmdir()
    oracle.check()


@pytest.mark.root
def test_a_link_and_a_firewall_table(oracle: Oracle) -> None:
    subprocess.run(["ip", "link", "add", "pyrt-leak", "type", "bridge"], check=True)
    subprocess.run(["nft", "add", "table", "inet", "pyrt-leak"], check=True)
    with blamed(oracle, "link pyrt-leak\n.*nft table inet pyrt-leak"):
        pass
    subprocess.run(["nft", "delete", "table", "inet", "pyrt-leak"], check=True)
    subprocess.run(["ip", "link", "delete", "pyrt-leak"], check=True)
    oracle.check()


@pytest.mark.root
def test_a_loop_device(oracle: Oracle, state: State) -> None:
    disk = state.root / "disk"
    disk.write_bytes(bytes(1 << 20))
    attach = ["losetup", "--find", "--show", str(disk)]
    device = subprocess.run(attach, capture_output=True, text=True, check=True).stdout.strip()
    with blamed(oracle, f"loop device {Path(device).name} on {disk}"):
        pass
    subprocess.run(["losetup", "--detach", device], check=True)
    oracle.check(patience=5)


def test_a_descriptor(oracle: Oracle) -> None:
    descriptor = os.open("/dev/null", os.O_RDONLY)
    with blamed(oracle, f"descriptor {descriptor}: /dev/null"):
        pass
    os.close(descriptor)
    oracle.check()


def test_a_thread(oracle: Oracle) -> None:
    over = threading.Event()
    thread = threading.Thread(target=over.wait, name="forgotten")
    thread.start()
    with blamed(oracle, "thread forgotten"):
        pass
    over.set()
    thread.join()
    oracle.check()


def test_an_idle_worker_of_trio_is_no_leak(oracle: Oracle) -> None:
    trio.run(trio.to_thread.run_sync, os.getpid)
    oracle.check()


@pytest.mark.parametrize("folder", ["root/containers/c", "root/ingest/i", "run/pyrt.sock", "tmp/t"])
def test_a_file(oracle: Oracle, state: State, folder: str) -> None:
    path = state.root.parent / folder
    path.parent.mkdir(exist_ok=True)
    path.touch()
    with blamed(oracle, f"file {path}"):
        pass
    path.unlink()
    oracle.check()


def test_a_lease_of_user_ids(oracle: Oracle, state: State) -> None:
    def journal(statement: str) -> None:
        with closing(sqlite3.connect(state.root / "journal.db")) as database, database:
            database.execute(statement)

    journal("CREATE TABLE leases (base INTEGER PRIMARY KEY, container TEXT NOT NULL)")
    oracle.check()
    journal("INSERT INTO leases VALUES (65536, 'c0ffee')")
    with blamed(oracle, "lease of user ids from 65536 for c0ffee"):
        pass


def test_an_end_that_comes_late_is_waited_for(state: State) -> None:
    oracle = Oracle(state)
    pid = os.posix_spawn("/bin/sleep", ["sleep", "0.2"], {})
    waiter = threading.Thread(target=os.waitpid, args=(pid, 0), name="waiter")
    waiter.start()
    assert any("waiter" in text for text in oracle.left())
    oracle.check()


def test_what_a_run_leaves_is_ended_and_fails_it(tmp_path: Path) -> None:
    """The ward's own init: a run whose tests pass and whose process lives on is a failed run."""
    (tmp_path / "test_it.py").write_text(
        "import subprocess\ndef test_it():\n    subprocess.Popen(['sleep', '60'], start_new_session=True)\n"
    )
    (tmp_path / "conftest.py").write_text("from tests.conftest import pytest_configure\n")
    environment = {key: value for key, value in os.environ.items() if key != "PYRT_TEST_INIT"}
    environment["PYTHONPATH"] = str(Path(__file__).parent.parent)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        str(tmp_path),
    ]
    run = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (run.returncode, "1 passed" in run.stdout) == (1, True), run.stdout + run.stderr
    assert "1 processes outlived the tests and were killed: sleep" in run.stderr
