"""What a death leaves: of the engine, its spawner, a keeper. The containers end, and nothing else does."""

from __future__ import annotations

import errno
import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest
import trio

from pyrt import _native
from pyrt.engine.engine import open_engine
from pyrt.engine.events import ContainerExited, ContainerRemoved
from pyrt.engine.results import Verdict
from pyrt.engine.states import State as Life
from pyrt.errors import ContainerNotFound
from pyrt.runtime.options import make_options
from tests.programs import parent_of, program

if TYPE_CHECKING:
    from pyrt.engine.engine import Engine
    from tests.conftest import OpenEngine
    from tests.leakcheck import State

pytestmark = pytest.mark.root

HOLD = """
import sys, trio, pyrt
from pyrt.runtime.options import make_options

async def main():
    async with pyrt.open_engine(sys.argv[1], run_dir=sys.argv[2]) as engine:
        await engine.start("host", make_options(["sleep", "1000"], name="gone"))
        await engine.start("host", make_options(["sleep", "1000"], name="kept"), keep=True)
        print("ready", flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


async def test_the_next_engine_records_the_end_and_clears_up(opened: OpenEngine, state: State) -> None:
    with program(state, HOLD) as process:
        async with opened() as engine:
            before = {record.name: record for record in engine.containers()}
            assert {record.state for record in before.values()} == {Life.RUNNING}
        process.kill()
    async with opened() as engine:
        kept = engine.inspect("kept")
        assert kept.state is Life.EXITED
        assert kept.status is not None
        assert (kept.status.verdict, kept.owner) == (Verdict.LOST, "")
        ended = [event async for event in engine.events(0, follow=False) if isinstance(event, ContainerExited)]
        assert [(event.verdict, event.cause) for event in ended] == [(Verdict.LOST, "engine died")] * 2
        stream = engine.events(ended[0].seq - 1)
        async for event in stream:
            if isinstance(event, ContainerRemoved):
                break
        with pytest.raises(ContainerNotFound):
            engine.inspect("gone")
        assert engine.journal.leases() == {}
        assert os.listdir(engine.layout.containers) == [kept.id]
        assert not {str(record.pid) for record in before.values()} & set(os.listdir("/proc"))
        await engine.remove("kept")


async def test_what_another_engine_runs_is_not_touched_by_those_that_come_and_go(
    opened: OpenEngine, state: State
) -> None:
    with program(state, HOLD) as process:
        for _ in range(3):
            async with opened() as engine:
                await engine.run("host", ["true"])
                assert {record.state for record in engine.containers() if record.name == "kept"} == {Life.RUNNING}
        assert process.poll() is None
        process.kill()
    async with opened() as engine:
        await engine.remove("kept")
        await until_removed(engine, "gone")


async def test_containers_of_an_engine_that_was_killed_end_by_themselves(opened: OpenEngine, state: State) -> None:
    with program(state, HOLD) as process:
        async with opened() as engine:
            pids = [os.pidfd_open(record.pid) for record in engine.containers()]
        process.kill()
    for pidfd in pids:
        await trio.lowlevel.wait_readable(pidfd)
        os.close(pidfd)
    async with opened() as engine:
        await engine.remove("kept")
        await until_removed(engine, "gone")


async def until_removed(engine: Engine, name: str) -> None:
    async for event in engine.events(0):
        if isinstance(event, ContainerRemoved) and event.name == name:
            return


async def test_a_keeper_that_is_killed_takes_its_container_with_it(engine: Engine) -> None:
    container = await engine.start("host", make_options(["sleep", "1000"]))
    os.kill(parent_of(container.pid), signal.SIGKILL)
    status = await container.wait()
    assert status.verdict is Verdict.LOST
    assert status.exit_code == 255
    await engine.settled()
    assert engine.containers() == []
    container.close_streams()


async def test_a_spawner_that_is_killed_is_replaced(engine: Engine) -> None:
    async with engine.open_container("host", ["cat"]) as container:
        os.kill(engine.spawner.pid, signal.SIGKILL)
        for number in range(5):
            done = await engine.run("host", ["sh", "-c", f"echo {number}"])
            assert done.stdout == b"%d\n" % number
        assert engine.spawner.launches == 2
        await container.stdin.send_all(b"still here")
        assert await container.stdout.receive_some() == b"still here"


async def test_debris_of_nobody_is_removed_when_an_engine_opens(opened: OpenEngine, state: State) -> None:
    async with opened() as engine:
        stray = engine.layout.containers / ("f" * 64)
        _native.make_upper(str(stray))
        os.mkdir(f"{stray}/upper/of-a-container-that-nobody-knows")
    async with opened() as engine:
        with trio.fail_after(10):
            while os.listdir(engine.layout.containers):
                await trio.lowlevel.checkpoint()


BUSY = """
import sys, trio, pyrt

async def work(engine):
    while True:
        done = await engine.run("host", ["sh", "-c", "echo $$ > /file; exit 3"])
        assert done.exit_code == 3
        print("done", flush=True)

async def main():
    async with pyrt.open_engine(sys.argv[1], run_dir=sys.argv[2]) as engine, trio.open_nursery() as nursery:
        print("ready", flush=True)
        for _ in range(4):
            nursery.start_soon(work, engine)

trio.run(main)
"""


async def test_killed_at_work_again_and_again_nothing_is_left(opened: OpenEngine, state: State) -> None:
    for number in range(8):
        with program(state, BUSY) as process:
            assert process.stdout is not None
            for _ in range(number):
                process.stdout.readline()
            process.kill()
        async with opened() as engine:
            with trio.fail_after(20):
                while engine.containers() or os.listdir(engine.layout.containers):
                    await trio.lowlevel.checkpoint()
            assert engine.journal.leases() == {}
            assert (await engine.run("host", ["true"])).exit_code == 0
            events = [event async for event in engine.events(0, follow=False)]
            assert [event.seq for event in events] == list(range(1, len(events) + 1))


async def test_two_programs_at_work_on_one_folder(opened: OpenEngine, state: State) -> None:
    with program(state, BUSY) as one, program(state, BUSY) as two:
        async with opened() as engine:
            for _ in range(10):
                assert (await engine.run("host", ["sh", "-c", "exit 4"])).exit_code == 4
            for process in (one, two):
                assert process.stdout is not None
                for _ in range(10):
                    assert process.stdout.readline() == b"done\n"
            events = [event async for event in engine.events(0, follow=False)]
            assert [event.seq for event in events] == list(range(1, len(events) + 1))
    async with opened() as engine:
        with trio.fail_after(20):
            while engine.containers() or os.listdir(engine.layout.containers):
                await trio.lowlevel.checkpoint()


NARROW = """
import os, resource, sys, trio, pyrt

async def main():
    async with pyrt.open_engine(sys.argv[1], run_dir=sys.argv[2]) as engine:
        used = len(os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + int(sys.argv[3]), used + int(sys.argv[3])))
        started = []
        try:
            while True:
                started.append(await engine.start("host", pyrt.RunOptions(command=("sleep", "1000"))))
        except pyrt.EngineError as error:
            print(error)
        for container in started:
            await container.destroy()
        await engine.settled()
        try:
            print(len(started), (await engine.run("host", ["true"])).exit_code)
        except pyrt.EngineError as error:
            print(len(started), error)

trio.run(main)
"""


@pytest.mark.parametrize("room", [3, 8, 14, 17, 23, 40])
async def test_without_descriptors_it_says_so_and_goes_on(state: State, leakcheck: object, room: int) -> None:
    command = [sys.executable, "-c", NARROW, str(state.root), str(state.run), str(room)]
    done = await trio.run_process(command, capture_stdout=True)
    first, second = done.stdout.decode().splitlines()
    assert "no file descriptor is left" in first
    assert "ulimit -n" in first
    assert second.split(maxsplit=1)[0] == "0" or second.endswith(" 0")


FORK = """
import os, sys, trio, pyrt
from pyrt.runtime.options import make_options

async def main():
    async with pyrt.open_engine(sys.argv[1], run_dir=sys.argv[2]) as engine:
        await engine.start("host", make_options(["sleep", "1000"], name="box"))
        if os.fork() == 0:
            os.closerange(1, 2)
            os.read(0, 1)
            os._exit(0)
        print("ready", flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


async def test_a_forked_child_of_the_program_keeps_no_container_alive(opened: OpenEngine, state: State) -> None:
    reading, writing = os.pipe()
    with program(state, FORK, stdin=reading) as process:
        os.close(reading)
        async with opened() as engine:
            pidfd = os.pidfd_open(engine.inspect("box").pid)
        process.kill()
        # The child lives, and holds what fork gave it.
        with trio.fail_after(10):
            await trio.lowlevel.wait_readable(pidfd)
            async with opened() as engine:
                await until_removed(engine, "box")
        os.close(pidfd)
        os.close(writing)


async def test_an_error_of_ours_ends_the_engine_and_is_told(state: State, leakcheck: object) -> None:
    async def broken() -> None:
        raise RuntimeError("not foreseen")

    async def work() -> None:
        async with open_engine(state.root, run_dir=state.run) as engine:
            await engine.start("host", make_options(["sleep", "1000"]))
            engine.in_background(broken)
            await trio.sleep_forever()

    with (
        trio.fail_after(20),
        pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="not foreseen"), flatten_subgroups=True),
    ):
        await work()
    # Its end was not seen to: that is for the next one.
    async with open_engine(state.root, run_dir=state.run) as engine:
        await engine.settled()


async def test_what_is_to_be_removed_waits_for_a_thread_to_do_it(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The janitor goes on, whatever the machine has left."""

    async def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")  # as CPython says where clone3 gives ENOMEM or EAGAIN

    with monkeypatch.context() as patch:
        patch.setattr(trio.to_thread, "run_sync", refuse)
        assert (await engine.run("host", ["true"])).exit_code == 0
        await engine.settled()
    assert [record.state for record in engine.containers()] == [Life.REMOVING]
    engine.janitor.try_again()
    await engine.settled()
    assert engine.containers() == []


async def test_what_can_go_wrong_in_the_background_is_logged_and_nobody_elses(
    opened: OpenEngine, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken() -> None:
        raise OSError(errno.EMFILE, "no descriptor")

    async with opened() as engine:
        engine.in_background(broken)
        assert (await engine.run("host", ["true"])).exit_code == 0
    assert "no descriptor" in caplog.text
