"""The Python of the README and the issue of the main job, line by line."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
import trio

import pyrt
from tests.leakcheck import State

if TYPE_CHECKING:
    from tests.foreign import Layout

pytestmark = pytest.mark.root

ADD = "import sys; print(sum(map(int, sys.stdin)))"


async def test_the_block_of_the_issue(state: State, debian: Layout) -> None:
    async with pyrt.open_engine() as engine:
        await engine.load(str(debian.path), name="debian:12")
        limits = pyrt.Limits(memory="256M", pids=64, cpus=1.0, time=30.0)
        done = await engine.run("debian:12", ["python3", "-c", ADD], stdin=b"6\n36\n", limits=limits)
        assert (done.stdout, done.stderr, done.exit_code) == (b"42\n", b"", 0)
        assert done.verdict is pyrt.Verdict.EXITED
        async with engine.open_container("debian:12", ["bash"]) as container:
            await container.stdin.send_all(b"read line; echo got $line\nhello\n")
            assert await anext(aiter(container.stdout)) == b"got hello\n"
            joined = await container.exec(["id", "-u"])
            assert (joined.stdout, joined.exit_code) == (b"0\n", 0)
            await container.stdin.send_all(b"exit 3\n")
            assert (await container.wait()).exit_code == 3
        await engine.settled()
        kinds = []
        async for event in engine.events(since=0, follow=False):
            match event:
                case pyrt.ContainerExited(exit_code=code):
                    kinds.append(f"exited {code}")
                case pyrt.ContainerStarted() | pyrt.ContainerRemoved():
                    kinds.append(type(event).__name__)
        # What is left of a container is removed while the next one starts already.
        assert kinds.count("ContainerRemoved") == 2
        life = [kind for kind in kinds if kind != "ContainerRemoved"]
        assert life == ["ContainerStarted", "exited 0", "ContainerStarted", "exited 3"]


async def test_each_verdict_has_its_evidence(state: State, busybox: Layout) -> None:
    async with pyrt.open_engine() as engine:
        await engine.load(str(busybox.path), name="box")

        async def verdict(script: str, **limits: object) -> tuple[str, int]:
            done = await engine.run("box", ["sh", "-c", script], init=True, limits=pyrt.Limits(**limits))  # type: ignore[arg-type]
            return str(done.verdict), done.exit_code

        eater = "x=a; while :; do x=$x$x; done"
        assert await verdict("exit 7") == ("exited", 7)
        assert (
            await engine.run("box", ["sh", "-c", eater], limits=pyrt.Limits(memory="16M", memory_swap="16M"))
        ).verdict == (pyrt.Verdict.OUT_OF_MEMORY)
        assert await verdict("sleep 1000", time=0.1) == ("timed out", 137)
        async with engine.open_container("box", ["sleep", "1000"]) as container:
            await container.kill()
            assert (await container.wait()).verdict == pyrt.Verdict.KILLED
        async with engine.open_container("box", ["sleep", "1000"]) as container:
            os.kill(container.pid, signal.SIGKILL)
            assert (await container.wait()).verdict == pyrt.Verdict.SIGNALED


def test_blocking_and_short_enough_to_read(state: State) -> None:
    done = pyrt.run("host", ["sh", "-c", "cat; head -c 100000 /dev/zero"], stdin=b"in")
    assert done.stdout == b"in" + bytes(100_000)
    text = repr(done)
    assert len(text) < 500
    for part in ("verdict='exited'", "exit_code=0", "stdout=b'in", "(100002 bytes)", "stderr=b''"):
        assert part in text, text
    assert "timing" not in text


@pytest.mark.parametrize("moment", ["before the record", "recorded", "started", "while it reads", "while it ends"])
async def test_a_run_that_is_cancelled_leaves_nothing(state: State, moment: str) -> None:
    """At moments that events tell; what the machine has left of it is looked for by `leakcheck`."""
    async with pyrt.open_engine() as engine:
        ready = trio.Event()

        async def watch() -> None:
            wanted: dict[str, type[pyrt.Event]] = {
                "recorded": pyrt.ContainerCreated,
                "while it ends": pyrt.ContainerExited,
            }
            async for event in engine.events(since=0):
                if isinstance(event, wanted.get(moment, pyrt.ContainerStarted)):
                    ready.set()
                    return

        async def cancel(scope: trio.CancelScope) -> None:
            if moment != "before the record":
                await ready.wait()
            scope.cancel()

        script = "exit 0" if moment == "while it ends" else "sleep 1000"
        big = b"x" * 10_000_000 if moment == "while it reads" else b""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            with trio.CancelScope() as scope:
                nursery.start_soon(cancel, scope)
                await engine.run("host", ["sh", "-c", script], stdin=big)
            nursery.cancel_scope.cancel()
        await engine.settled()
        assert engine.containers() == []
        assert {*engine.journal.leases().values()} == {*engine.journal.parked(engine.owner.id)}
