"""A detached container lives as long as its keeper, whoever else dies; its output and its end are kept."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest
import trio

from pyrt.engine.engine import open_engine
from pyrt.engine.events import ContainerExited, ContainerStarted
from pyrt.engine.lasting import Lasting, Log
from pyrt.engine.logs import LogOptions
from pyrt.engine.results import Verdict
from pyrt.engine.states import State as Life
from pyrt.errors import CommandNotFound, ContainerNotFound
from pyrt.runtime.options import Limits, RunOptions
from tests.durable.conftest import PATIENCE, log_files, logged, remove_all, shell
from tests.programs import parent_of, program

if TYPE_CHECKING:
    from pyrt.engine.engine import Engine
    from tests.conftest import OpenEngine
    from tests.leakcheck import State

pytestmark = pytest.mark.root


async def test_output_and_exit_are_kept(engine: Engine) -> None:
    record = await engine.run_detached("host", shell("echo out; echo err >&2; printf tail; exit 3"))
    status = await engine.wait(record.id)
    assert (status.verdict, status.code) == (Verdict.EXITED, 3)
    assert logged(engine, record.id) == b"out\ntail"
    assert logged(engine, record.id, "stderr") == b"err\n"
    assert engine.inspect(record.id).state is Life.EXITED


async def test_it_is_removed_at_its_end_if_it_is_not_to_be_kept(engine: Engine) -> None:
    record = await engine.run_detached("host", RunOptions(command=("true",)), keep=False)
    assert (await engine.wait(record.id)).code == 0
    await engine.settled()
    with pytest.raises(ContainerNotFound):
        engine.inspect(record.id)


async def test_an_engine_that_is_closed_right_then_leaves_nothing_of_it(opened: OpenEngine) -> None:
    async with opened() as engine:
        record = await engine.run_detached("host", RunOptions(command=("true",)), keep=False)
        await engine.wait(record.id)
        folder = engine.layout.containers
    assert os.listdir(folder) == []


async def test_what_can_not_be_started_is_recorded_as_failed(engine: Engine) -> None:
    with pytest.raises(CommandNotFound):
        await engine.run_detached("host", RunOptions(command=("no-such-command",)))
    (record,) = engine.containers()
    assert record.state is Life.FAILED
    assert os.listdir(engine.layout.keepers) == []


async def test_its_input_is_at_its_end_unless_it_is_kept(engine: Engine) -> None:
    record = await engine.run_detached("host", RunOptions(command=("cat",)))
    assert (await engine.wait(record.id)).code == 0


async def test_its_keeper_keeps_the_time(opened: OpenEngine) -> None:
    async with opened() as engine:
        options = RunOptions(command=("sleep", "1000"), limits=Limits(time=0.5))
        record = await engine.run_detached("host", options)
        pidfd = os.pidfd_open(record.pid)
    # No engine is there when the time is up.
    with trio.fail_after(PATIENCE):
        await trio.lowlevel.wait_readable(pidfd)
    os.close(pidfd)
    async with opened() as engine:
        assert (await engine.wait(record.id)).verdict is Verdict.TIMED_OUT
        await remove_all(engine)


async def test_it_runs_on_when_its_engine_is_closed_and_the_next_one_adopts_it(opened: OpenEngine) -> None:
    async with opened() as engine:
        script = "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.01; done"
        record = await engine.run_detached("host", shell(script))
        await anything_of(engine, record.id)
        os.kill(engine.spawner.pid, signal.SIGKILL)
    async with opened() as engine:
        adopted = engine.inspect(record.id)
        assert (adopted.state, adopted.pid, adopted.owner) == (Life.RUNNING, record.pid, engine.owner.id)
        assert await executed(engine, record.id, "echo", "hello") == b"hello\n"
        status = await engine.stop(record.id)
        assert (status.verdict, status.code) == (Verdict.EXITED, 5)
        assert logged(engine, record.id) == b"ready\nbye\n"
        await remove_all(engine)


ENDS_WHEN_TOLD = "trap 'exit {}' USR1; echo ready; while :; do sleep 0.01; done"


async def test_ends_that_nobody_saw_are_recorded_in_their_order_with_their_times(opened: OpenEngine) -> None:
    async with opened() as engine:
        second = await engine.run_detached("host", shell(ENDS_WHEN_TOLD.format(7)))
        first = await engine.run_detached("host", shell(ENDS_WHEN_TOLD.format(6)))
        for record in (first, second):
            await anything_of(engine, record.id)
        keepers = [os.pidfd_open(parent_of(record.pid)) for record in (first, second)]
    times = []
    for record, keeper in zip((first, second), keepers, strict=True):
        times.append(time.time_ns())
        os.kill(record.pid, signal.SIGUSR1)
        await trio.lowlevel.wait_readable(keeper)
        os.close(keeper)
    times.append(time.time_ns())
    async with opened() as engine:
        statuses = [await engine.wait(record.id) for record in (first, second)]
        assert [(status.verdict, status.code) for status in statuses] == [(Verdict.EXITED, 6), (Verdict.EXITED, 7)]
        ended = [event async for event in engine.events(0, follow=False) if isinstance(event, ContainerExited)]
        assert [event.container for event in ended] == [first.id, second.id]
        assert [event.time for event in ended] == [status.finished for status in statuses]
        assert times[0] < ended[0].time < times[1] < ended[1].time < times[2]
        await remove_all(engine)


async def anything_of(engine: Engine, container: str) -> None:
    """Waits until it has written something."""
    stream = engine.logs(container, LogOptions(follow=True))
    with trio.fail_after(PATIENCE):
        await anext(stream)
    stream.close()


async def executed(engine: Engine, container: str, *command: str) -> bytes:
    execution = await engine.exec(container, command, wants_stdin=False)
    return (await engine.complete(execution, b"", 1000)).stdout


START = """
import sys, trio, pyrt
from pyrt.runtime.options import RunOptions

async def main():
    async with pyrt.open_engine(sys.argv[1], run_dir=sys.argv[2]) as engine:
        await engine.run_detached("host", RunOptions(command=("sh", "-c", sys.argv[3]), name="box"))
        print("ready", flush=True)
        await trio.sleep_forever()

trio.run(main)
"""

COUNT = "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; exit 9"


async def test_a_killed_engine_loses_no_output_and_no_exit(opened: OpenEngine, state: State) -> None:
    with program(state, START, COUNT) as process:
        process.kill()
        process.wait()
        async with opened() as engine:
            assert (await engine.wait("box")).code == 9
            expected = "".join(f"line {number}\n" for number in range(2000)).encode()
            assert logged(engine, engine.inspect("box").id) == expected
            await remove_all(engine)


async def test_an_engine_that_lives_takes_over_from_one_that_is_killed(opened: OpenEngine, state: State) -> None:
    async with opened() as engine:
        with program(state, START, "sleep 1000") as process:
            before = engine.inspect("box")
            assert before.owner != engine.owner.id
            process.kill()
            with trio.fail_after(PATIENCE):
                while before.id not in engine.live:
                    await trio.lowlevel.checkpoint()
        assert engine.inspect("box").owner == engine.owner.id
        assert (await engine.stop("box", 0)).verdict is Verdict.KILLED
        await remove_all(engine)


async def test_two_engines_see_the_same_containers(opened: OpenEngine) -> None:
    async with opened() as one, opened() as two:
        record = await one.run_detached("host", shell("trap 'exit 4' TERM; echo ready; while :; do sleep 0.01; done"))
        await anything_of(one, record.id)
        assert two.inspect(record.id).pid == record.pid
        assert await executed(two, record.id, "echo", "hello") == b"hello\n"
        status = await two.stop(record.id)
        assert (status.verdict, status.code) == (Verdict.EXITED, 4)
        await two.remove(record.id)
        assert one.containers() == []


async def test_a_keeper_that_is_killed_takes_its_container_with_it(engine: Engine) -> None:
    record = await engine.run_detached("host", RunOptions(command=("sleep", "1000")))
    os.kill(parent_of(record.pid), signal.SIGKILL)
    status = await engine.wait(record.id)
    assert (status.verdict, status.exit_code) == (Verdict.LOST, 255)


async def test_the_log_is_bounded(engine: Engine) -> None:
    lasting = Lasting(log=Log(size=10_000, files=3))
    record = await engine.run_detached("host", shell("seq 10000"), lasting)
    await engine.wait(record.id)
    sizes = log_files(engine, record.id)
    assert list(sizes) == ["log", "log.1", "log.2"]
    assert max(sizes.values()) <= 10_000
    numbers = [int(line) for line in logged(engine, record.id).splitlines()]
    assert numbers == list(range(numbers[0], 10_001))


async def test_without_a_log_nothing_is_kept(engine: Engine) -> None:
    record = await engine.run_detached("host", shell("seq 10000"), Lasting(log=Log(files=0)))
    await engine.wait(record.id)
    assert log_files(engine, record.id) == {}


async def test_a_terminal_is_logged_too(engine: Engine) -> None:
    record = await engine.run_detached("host", shell("tty; echo done", tty=True))
    assert (await engine.wait(record.id)).code == 0
    assert logged(engine, record.id) == b"/dev/pts/0\r\ndone\r\n"


async def test_all_that_is_written_to_a_terminal_is_logged(engine: Engine) -> None:
    """Also what is on its way to the reader when the last process ends."""
    for _ in range(5):
        record = await engine.run_detached("host", shell("head -c 10000 /dev/zero | tr '\\0' x", tty=True))
        await engine.wait(record.id)
        assert logged(engine, record.id) == b"x" * 10_000


async def test_it_is_started_again_with_what_it_wrote(engine: Engine) -> None:
    record = await engine.create("host", shell("cat /file; echo $$-again >> /file; exit 6", name="box"))
    assert record.state is Life.CREATED
    for number in range(3):
        before = engine.inspect("box")
        after = await engine.launch("box")
        assert after.pid != before.pid
        assert (await engine.wait("box")).code == 6
        assert len(logged(engine, record.id).splitlines()) == sum(range(number + 1))
    started = [event async for event in engine.events(0, follow=False) if isinstance(event, ContainerStarted)]
    assert len(started) == 3


async def test_one_that_runs_is_left_as_it_is_by_a_start(engine: Engine) -> None:
    record = await engine.run_detached("host", RunOptions(command=("sleep", "1000")))
    assert (await engine.launch(record.id)).pid == record.pid


async def test_a_restart_is_another_run_of_the_same_container(engine: Engine) -> None:
    record = await engine.run_detached("host", RunOptions(command=("sleep", "1000")))
    again = await engine.restart(record.id, 0)
    assert (again.id, again.state) == (record.id, Life.RUNNING)
    assert again.pid != record.pid


async def test_a_container_that_writes_a_gibibyte_costs_its_keeper_no_memory(engine: Engine) -> None:
    # Most of it in one line: what has no end in sight must not be waited for.
    script = f"yes | head -c {4 << 20}; head -c {1 << 30} /dev/zero; echo; echo done; sleep 1000"
    record = await engine.run_detached("host", shell(script), Lasting(log=Log(size=1_000_000, files=2)))
    keeper = parent_of(record.pid)
    before = largest_memory(keeper)
    with trio.fail_after(PATIENCE):
        stream = engine.logs(record.id, LogOptions(follow=True))
        async for text in stream:
            if text.data.endswith(b"done\n"):
                break
        stream.close()
    assert largest_memory(keeper) - before < 2048


def largest_memory(process: int) -> int:
    """The most that it ever had in memory, KiB."""
    with open(f"/proc/{process}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM:"))


async def test_an_engine_with_another_folder_for_sockets_finds_the_keeper(state: State, opened: OpenEngine) -> None:
    async with opened() as engine:
        record = await engine.run_detached("host", RunOptions(command=("cat",)), Lasting(stdin=True))
    other = state.temporary / "run"
    async with open_engine(state.root, run_dir=other) as engine:
        with trio.fail_after(PATIENCE):
            way_in = await engine.open_input(record.id)
            os.write(way_in.descriptor, b"hello\n")
            way_in.close_for_others()
            way_in.close()
            assert (await engine.wait(record.id)).code == 0
        assert logged(engine, record.id) == b"hello\n"
        await remove_all(engine)


async def test_logs_are_followed_over_rotations(engine: Engine) -> None:
    lasting = Lasting(log=Log(size=20_000, files=100))
    record = await engine.create("host", shell("seq 30000"), lasting)
    stream = engine.logs(record.id, LogOptions(follow=True))
    await engine.launch(record.id)
    text = b"".join([piece.data async for piece in stream])
    stream.close()
    assert [int(line) for line in text.splitlines()] == list(range(1, 30_001))
    assert len(log_files(engine, record.id)) > 50
