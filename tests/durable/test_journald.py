"""`--log-driver journald`: every line goes to journald as Docker's driver tells it, and nothing depends on journald."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from pyrt.engine import journald
from pyrt.engine.lasting import Lasting, Log
from pyrt.engine.logs import LogOptions
from pyrt.engine.states import State as Life
from pyrt.errors import HostError
from tests.cli.desk import eventually
from tests.durable.conftest import PATIENCE, shell

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyrt.engine.engine import Engine

pytestmark = pytest.mark.root

JOURNALD = Lasting(log=Log(journal=True, tag="{{.Name}}/{{.ID}}"))


@pytest.fixture
def listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """In journald's place."""
    path = tmp_path / "journal"
    monkeypatch.setattr(journald, "SOCKET", str(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        listener.settimeout(PATIENCE)
        yield listener


async def written(engine: Engine, container: str) -> bytes:
    """What `pyrt logs` shows."""
    stream = engine.logs(container, LogOptions())
    try:
        return b"".join([text.data async for text in stream])
    finally:
        stream.close()


def fields(datagram: bytes) -> dict[str, str]:
    return dict(line.partition("=")[::2] for line in datagram.decode().splitlines())


async def test_lines_come_with_docker_s_fields(engine: Engine, listener: socket.socket) -> None:
    options = shell("echo out; sleep 0.2; echo err >&2; sleep 0.2; printf last", name="web")
    record = await engine.run_detached("host", options, JOURNALD)
    await engine.wait(record.id)
    told = [fields(listener.recv(65536)) for _ in range(3)]
    assert [(each["MESSAGE"], each["PRIORITY"]) for each in told] == [("out", "6"), ("err", "3"), ("last", "6")]
    tag = f"web/{record.id[:12]}"
    assert told[0] == {
        "CONTAINER_ID": record.id[:12],
        "CONTAINER_ID_FULL": record.id,
        "CONTAINER_NAME": "web",
        "CONTAINER_TAG": tag,
        "IMAGE_NAME": "host",
        "SYSLOG_IDENTIFIER": tag,
        "PRIORITY": "6",
        "MESSAGE": "out",
    }
    # Logs are read from where they always are.
    assert await written(engine, record.id) == b"out\nerr\nlast"


async def test_a_slow_journald_gets_every_line(engine: Engine, listener: socket.socket) -> None:
    record = await engine.run_detached("host", shell("seq 200000; exec sleep 1000"), JOURNALD)
    numbers: list[int] = []
    while not numbers or numbers[-1] != 200_000:
        numbers.append(int(fields(listener.recv(65536))["MESSAGE"]))
    assert numbers == list(range(1, 200_001))
    assert engine.inspect(record.id).state is Life.RUNNING


async def test_one_that_is_stuck_holds_nobody_up(engine: Engine, listener: socket.socket) -> None:
    """It takes nothing at all: the container runs to its end, its log is whole, and its end is told."""
    record = await engine.run_detached("host", shell("seq 600000"), JOURNALD)
    with trio.fail_after(PATIENCE):
        assert (await engine.wait(record.id)).exit_code == 0
    assert await written(engine, record.id) == b"".join(b"%d\n" % number for number in range(1, 600_001))


async def test_one_that_goes_away_is_missed_by_nobody(engine: Engine, listener: socket.socket) -> None:
    script = "echo one; until [ -e /tmp/go ]; do sleep 0.01; done; echo two"
    record = await engine.run_detached("host", shell(script), JOURNALD)
    assert fields(listener.recv(65536))["MESSAGE"] == "one"
    os.unlink(listener.getsockname())
    listener.close()
    execution = await engine.exec(record.id, ["touch", "/tmp/go"], wants_stdin=False)
    await engine.complete(execution, b"", 0)
    with trio.fail_after(PATIENCE):
        assert (await engine.wait(record.id)).exit_code == 0
    assert await written(engine, record.id) == b"one\ntwo\n"


async def test_without_one_the_start_says_so(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journald, "SOCKET", "/nowhere/socket")
    with pytest.raises(HostError, match="journald is not there"):
        await engine.run_detached("host", shell("true"), JOURNALD)
    (record,) = engine.containers()
    assert record.state is Life.FAILED
    assert os.listdir(engine.layout.keepers) == []


# ---- journald itself ----


@contextmanager
def real_journald(folder: Path) -> Iterator[Path]:
    """systemd's own, in a mount namespace with a /run of its own; yields that /run."""
    program = shutil.which("systemd-journald", path="/usr/lib/systemd:/lib/systemd")
    assert program, "systemd is not installed: make installs it for the tests"
    script = f"mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/journal /run/log/journal && exec {program}"
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    with (folder / "said").open("wb") as said, subprocess.Popen(command, stderr=said) as process:
        try:
            run = Path(f"/proc/{process.pid}/root/run")
            deadline = time.monotonic() + PATIENCE
            while not (run / "systemd/journal/socket").exists():
                assert process.poll() is None, (folder / "said").read_text()
                assert time.monotonic() < deadline
            yield run
        finally:
            process.terminate()


async def test_journalctl_finds_what_a_container_wrote(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with real_journald(tmp_path) as run:
        monkeypatch.setattr(journald, "SOCKET", str(run / "systemd/journal/socket"))
        record = await engine.run_detached("host", shell("seq 300; echo bad >&2", name="web"), JOURNALD)
        await engine.wait(record.id)
        found = await trio.to_thread.run_sync(eventually, lambda: whole if len(whole := entries(run)) == 301 else None)
    assert [each["MESSAGE"] for each in found if each["PRIORITY"] == "6"] == [str(n) for n in range(1, 301)]
    assert [each["MESSAGE"] for each in found if each["PRIORITY"] == "3"] == ["bad"]
    assert {each["CONTAINER_ID_FULL"] for each in found} == {record.id}


def entries(run: Path) -> list[dict[str, str]]:
    command = ["journalctl", "--directory", str(run / "log/journal"), "-o", "json", "CONTAINER_NAME=web"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return [json.loads(line) for line in done.stdout.splitlines()]
