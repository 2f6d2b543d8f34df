"""A container in the caller's hands: streams, exec, signals, and its end with the block."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
import trio

from pyrt.engine.events import ContainerExited, ContainerSignaled, ExecExited, ExecStarted
from pyrt.engine.results import Verdict
from pyrt.engine.states import State
from pyrt.errors import CommandNotFound, ContainerNotFound, IllegalTransition, NameInUse, UsageError
from pyrt.runtime.options import make_options

if TYPE_CHECKING:
    from pyrt.engine.engine import Engine
    from tests.conftest import OpenEngine

pytestmark = pytest.mark.root

# Says when its handlers are in place: a signal before that would meet PID 1 without them.
STUBBORN = ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done"]
POLITE = ["sh", "-c", "trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done"]


async def read_all(stream: trio.abc.ReceiveStream) -> bytes:
    return b"".join([piece async for piece in stream])


async def test_a_conversation(engine: Engine) -> None:
    async with engine.open_container("host", ["cat"]) as container:
        for word in (b"one", b"two"):
            await container.stdin.send_all(word)
            assert await container.stdout.receive_some() == word
        await container.stdin.aclose()
        assert await read_all(container.stdout) == b""
        assert await read_all(container.stderr) == b""
        status = await container.wait()
    assert (status.verdict, status.exit_code) == (Verdict.EXITED, 0)


async def test_it_is_there_in_the_block_and_gone_after_it(engine: Engine) -> None:
    async with engine.open_container("host", ["sleep", "1000"], name="box", labels={"a": "b"}) as container:
        record = engine.inspect("box")
        assert (record.state, record.pid, record.labels["a"]) == (State.RUNNING, container.pid, "b")
        assert record.command == ("sleep", "1000")
        assert engine.inspect(container.id[:10]) == record
        assert list(engine.journal.leases().values()) == [container.id]
        assert engine.timing("box") == container.timing
        assert {mark.part for mark in container.timing.marks} == {"engine", "keeper", "child"}
    await engine.settled()
    with pytest.raises(ContainerNotFound):
        engine.inspect("box")


async def test_an_error_in_the_block_ends_it_too(engine: Engine) -> None:
    with pytest.raises(ZeroDivisionError):
        async with engine.open_container("host", ["sleep", "1000"]) as container:
            raise ZeroDivisionError
    assert container.status is not None
    assert container.status.verdict is Verdict.KILLED


async def test_cancelled_in_the_block_it_ends_too(engine: Engine) -> None:
    with trio.CancelScope() as scope:
        async with engine.open_container("host", ["sleep", "1000"]) as container:
            scope.cancel()
            await container.wait()
    assert container.status is not None


async def test_exec_joins_it(engine: Engine) -> None:
    async with engine.open_container("host", ["sleep", "1000"]) as container:
        done = await container.exec(["sh", "-c", "cat; exit 4"], stdin=b"words")
        assert (done.stdout, done.exit_code, done.verdict) == (b"words", 4, Verdict.EXITED)
        slow = await container.exec(["sleep", "1000"], time=0.1)
        assert slow.verdict is Verdict.TIMED_OUT
        with pytest.raises(CommandNotFound):
            await container.exec(["/no/such/command"])
        with trio.move_on_after(0.1):
            await container.exec(["sleep", "1000"])
        with pytest.raises(UsageError):
            await container.exec(["true"], no_such_option=1)
        assert container.status is None
    kinds = [type(event) async for event in engine.events(0, follow=False)]
    assert kinds.count(ExecStarted) == kinds.count(ExecExited) == 3


async def test_an_exec_ends_with_its_container(engine: Engine) -> None:
    async with engine.open_container("host", ["cat"]) as container:
        execution = await engine.exec(container.id, ["sleep", "1000"])
        await container.stdin.aclose()
        status = await execution.wait()
        assert status.signal == signal.SIGKILL
        await execution.destroy()


async def test_nothing_can_join_what_has_ended(engine: Engine) -> None:
    async with engine.open_container("host", ["true"]) as container:
        await container.wait()
        with pytest.raises((IllegalTransition, ContainerNotFound)):
            await container.exec(["true"])


async def test_stop_asks_first(engine: Engine) -> None:
    async with engine.open_container("host", POLITE) as container:
        assert await container.stdout.receive_some() == b"ready\n"
        status = await container.stop()
    assert (status.verdict, status.exit_code) == (Verdict.EXITED, 3)


async def test_stop_kills_in_the_end(engine: Engine) -> None:
    async with engine.open_container("host", STUBBORN) as container:
        assert await container.stdout.receive_some() == b"ready\n"
        status = await container.stop(timeout=0.2)
        assert (status.verdict, status.signal) == (Verdict.KILLED, signal.SIGKILL)


async def test_two_may_stop_it_at_once(engine: Engine) -> None:
    async with engine.open_container("host", STUBBORN) as container:
        assert await container.stdout.receive_some() == b"ready\n"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(container.stop, 0.3)
            nursery.start_soon(container.stop, 0.2)
        assert container.status is not None
        assert container.status.verdict is Verdict.KILLED


async def test_one_that_is_being_stopped_can_still_be_joined(engine: Engine) -> None:
    async with engine.open_container("host", STUBBORN) as container:
        assert await container.stdout.receive_some() == b"ready\n"
        with trio.move_on_after(0.1):
            await container.stop(timeout=60)
        assert engine.inspect(container.id).state is State.STOPPING
        assert (await container.exec(["true"])).exit_code == 0


async def test_a_signal_is_told_with_its_cause(engine: Engine) -> None:
    async with engine.open_container("host", POLITE) as container:
        assert await container.stdout.receive_some() == b"ready\n"
        await container.kill("TERM")
        assert (await container.wait()).exit_code == 3
        with pytest.raises(UsageError):
            await container.kill("NONSENSE")
    signaled = [event async for event in engine.events(0, follow=False) if isinstance(event, ContainerSignaled)]
    assert [(event.signal, event.cause) for event in signaled] == [(signal.SIGTERM, "kill")]


async def test_a_kept_one_stays_until_it_is_removed(engine: Engine) -> None:
    container = await engine.start("host", make_options(["sh", "-c", "exit 5"], name="box"), keep=True)
    container.close_streams()
    await container.wait()
    record = engine.inspect("box")
    assert record.state is State.EXITED
    assert record.status is not None
    assert record.status.code == 5
    assert await engine.wait("box") == record.status
    assert engine.journal.leases() == {}
    assert os.listdir(engine.layout.containers) == [container.id]
    with pytest.raises(IllegalTransition):
        await engine.kill("box")
    await engine.remove("box")
    assert container.id not in os.listdir(engine.layout.containers)
    with pytest.raises(ContainerNotFound):
        engine.inspect("box")


async def test_what_runs_is_removed_by_force_alone(engine: Engine) -> None:
    container = await engine.start("host", make_options(["sleep", "1000"], name="box"), keep=True)
    with pytest.raises(IllegalTransition, match="stop it first"):
        await engine.remove("box")
    assert engine.inspect("box").state is State.RUNNING
    await engine.remove("box", force=True)
    assert engine.containers() == []
    container.close_streams()


async def test_one_that_failed_stays_too_if_it_is_to_be_kept(engine: Engine) -> None:
    with pytest.raises(CommandNotFound):
        await engine.start("host", make_options(["/no/such/command"], name="box"), keep=True)
    record = engine.inspect("box")
    assert record.state is State.FAILED
    assert "/no/such/command" in record.error
    assert [each.id for each in await engine.prune_containers()] == [record.id]
    assert engine.containers() == []


async def test_rename(engine: Engine) -> None:
    async with (
        engine.open_container("host", ["sleep", "1000"], name="box") as container,
        engine.open_container("host", ["sleep", "1000"], name="other"),
    ):
        with pytest.raises(NameInUse):
            await engine.rename("box", "other")
        await engine.rename("box", "crate")
        assert container.name == engine.inspect("crate").name == "crate"
        with pytest.raises(UsageError):
            await engine.rename("crate", "../etc")
        with pytest.raises(UsageError, match="already"):
            await engine.rename("crate", "crate")


async def test_descriptors_of_the_caller_are_used_as_they_are(engine: Engine) -> None:
    reading, writing = os.pipe()
    null = os.open("/dev/null", os.O_RDWR)
    container = await engine.start("host", make_options(["echo", "straight"]), stdio=(null, writing, null))
    os.close(writing)
    os.close(null)
    await container.wait()
    assert os.read(reading, 99) == b"straight\n"
    os.close(reading)


async def test_a_terminal(engine: Engine) -> None:
    async with engine.open_container("host", ["sh", "-c", "stty size; tty; cat"], tty=True, rows=33, columns=99) as box:
        seen = b""
        while seen.count(b"\n") < 2:
            seen += await box.stdout.receive_some()
        assert seen.startswith(b"33 99\r\n/dev/")
        await box.stdin.send_all(b"\x04")
        assert await read_all(box.stdout) == b""
        assert await read_all(box.stderr) == b""
        assert (await box.wait()).exit_code == 0


async def test_a_terminal_is_resized(engine: Engine) -> None:
    script = "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.05; done"
    async with engine.open_container("host", ["sh", "-c", script], tty=True) as container:
        assert await container.stdout.receive_some() == b"ready\r\n"
        container.resize(44, 111)
        assert await read_all(container.stdout) == b"44 111\r\n"


async def test_what_has_no_terminal_can_t_be_resized(engine: Engine) -> None:
    async with engine.open_container("host", ["cat"]) as container:
        with pytest.raises(UsageError):
            container.resize(1, 1)


# ---- two engines on one folder --------------------------------------------------------------------------------------


async def test_two_engines_see_the_same_containers(opened: OpenEngine) -> None:
    async with opened() as one, opened() as two, one.open_container("host", ["sleep", "1000"], name="box") as container:
        assert two.inspect("box") == one.inspect("box")
        done = await two.complete(await two.exec("box", ["echo", "there"]), b"", 99)
        assert done.stdout == b"there\n"
        with pytest.raises(NameInUse):
            await two.run("host", ["true"], name="box")
        await two.kill("box")
        status = await container.wait()
        assert (status.verdict, status.signal) == (Verdict.KILLED, signal.SIGKILL)


async def test_one_engine_stops_what_another_supervises(opened: OpenEngine) -> None:
    async with opened() as one, opened() as two, one.open_container("host", POLITE, name="box") as container:
        assert await container.stdout.receive_some() == b"ready\n"
        status = await two.stop("box")
        assert status.exit_code == 3
        assert (await container.wait()).exit_code == 3


async def test_events_of_another_engine_are_followed(opened: OpenEngine) -> None:
    async with opened() as one, opened() as two:
        stream = two.events()
        await one.run("host", ["true"])
        seen = []
        async for event in stream:
            seen.append(event)
            if isinstance(event, ContainerExited):
                break
        assert [event.seq for event in seen][:3] == [1, 2, 3]
