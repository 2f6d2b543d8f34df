"""`run`: output, exit code and verdict are right, and nothing is left, whatever happens."""

from __future__ import annotations

import os
import select
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import trio

from pyrt.engine.engine import open_engine
from pyrt.engine.events import (
    ContainerCreated,
    ContainerExited,
    ContainerFailed,
    ContainerOutOfMemory,
    ContainerRemoved,
    ContainerStarted,
)
from pyrt.engine.results import Verdict
from pyrt.errors import (
    CommandNotFound,
    EngineError,
    ImageNotFound,
    NameInUse,
    StateError,
    UsageError,
)
from pyrt.runtime.options import Limits

if TYPE_CHECKING:
    from pathlib import Path

    from pyrt.engine.engine import Engine
    from pyrt.engine.events import AnyEvent
    from tests.leakcheck import Oracle, State

pytestmark = pytest.mark.root


async def told(engine: Engine, since: int = 0) -> list[AnyEvent]:
    """All events after ``since``, once the janitor has nothing more to do."""
    await engine.settled()
    return [event async for event in engine.events(since, follow=False)]


def assert_only_spares_are_left(engine: Engine) -> None:
    """Ranges of ids and folders of no container, but of places that are set aside for others."""
    spares = {*engine.journal.parked(engine.owner.id)}
    assert {*engine.journal.leases().values()} == spares
    assert {*os.listdir(engine.layout.containers)} <= spares


async def test_output_input_and_exit_code(engine: Engine) -> None:
    done = await engine.run("host", ["sh", "-c", "cat; echo to stderr >&2; exit 7"], stdin=b"what goes in\n")
    assert (done.stdout, done.stderr) == (b"what goes in\n", b"to stderr\n")
    assert (done.exit_code, done.verdict, done.signal) == (7, Verdict.EXITED, None)
    assert 0 < done.duration < 60
    assert done.lost_output == 0


async def test_its_life_is_told_in_order_and_nothing_is_recorded_afterwards(engine: Engine) -> None:
    done = await engine.run("host", ["true"], name="box")
    events = await told(engine)
    assert [type(event) for event in events] == [
        ContainerCreated,
        ContainerStarted,
        ContainerExited,
        ContainerRemoved,
    ]
    assert {getattr(event, "container", None) for event in events} == {done.id}
    assert [event.seq for event in events] == [1, 2, 3, 4]
    assert events == sorted(events, key=lambda event: event.time)
    assert engine.containers() == []
    assert_only_spares_are_left(engine)


async def test_without_input_it_is_at_the_end_of_its_input(engine: Engine) -> None:
    assert (await engine.run("host", ["cat"])).stdout == b""


async def test_a_reader_that_wants_less_than_it_is_given_is_no_error(engine: Engine) -> None:
    done = await engine.run("host", ["head", "-c", "3"], stdin=b"x" * 1_000_000)
    assert (done.stdout, done.exit_code) == (b"xxx", 0)


async def test_much_output_on_both_streams(engine: Engine) -> None:
    script = "head -c 3000000 /dev/zero & head -c 2000000 /dev/zero >&2; wait"
    done = await engine.run("host", ["sh", "-c", script])
    assert (done.stdout, done.stderr) == (bytes(3_000_000), bytes(2_000_000))


async def test_more_output_than_is_kept_is_counted_and_holds_nobody_up(engine: Engine) -> None:
    done = await engine.run("host", ["head", "-c", "3000000", "/dev/zero"], max_output=1000)
    assert len(done.stdout) == 1000
    assert done.lost_output == 2_999_000
    assert done.exit_code == 0


async def test_a_time_limit_ends_it_and_says_so(engine: Engine) -> None:
    done = await engine.run("host", ["sh", "-c", "echo begun; exec sleep 1000"], limits=Limits(time=0.2))
    assert done.verdict is Verdict.TIMED_OUT
    assert (done.exit_code, done.signal, done.stdout) == (137, signal.SIGKILL, b"begun\n")


async def test_a_time_limit_that_does_not_fire_is_not_told(engine: Engine) -> None:
    done = await engine.run("host", ["true"], limits=Limits(time=60))
    assert done.verdict is Verdict.EXITED


async def test_want_of_memory_is_told_from_other_ends(engine: Engine) -> None:
    program = "x = bytearray(300_000_000)"
    done = await engine.run("host", ["python3", "-c", program], limits=Limits(memory="64m", time=60))
    assert (done.verdict, done.signal) == (Verdict.OUT_OF_MEMORY, signal.SIGKILL)
    assert done.status.oom_kills == 1
    assert 0 < done.status.memory_peak <= 64 << 20
    told_of = [event for event in await told(engine) if isinstance(event, ContainerOutOfMemory)]
    assert [event.kills for event in told_of] == [1]
    large = await engine.run("host", ["python3", "-c", program], limits=Limits(memory="600m", time=60))
    assert large.verdict is Verdict.EXITED


async def test_a_limit_on_processes_is_counted(engine: Engine) -> None:
    script = "for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done"
    done = await engine.run("host", ["sh", "-c", script], limits=Limits(pids=4, time=60))
    assert done.status.pids_refused > 0
    assert done.verdict is Verdict.EXITED


async def test_on_a_full_disk_it_says_so_and_works_again_when_there_is_room(engine: Engine, state: State) -> None:
    small = state.root / "small"
    small.mkdir()
    await trio.run_process(["mount", "-t", "tmpfs", "-o", "size=1m", "none", small])
    try:
        async with open_engine(small, run_dir=state.run) as other:
            assert (await other.run("host", ["true"])).exit_code == 0
            with pytest.raises(StateError, match="disk is full"):
                await fill(other, small / "ballast")
            (small / "ballast").unlink()
            assert (await other.run("host", ["true"])).exit_code == 0
            async with other.open_container("host", ["cat"], upper="tmpfs") as container:
                fill_up(small / "ballast")
                await container.stdin.aclose()
                assert (await container.wait()).exit_code == 0
            assert other.inspect(container.id).status is None  # There was no room to record the end.
            (small / "ballast").unlink()
            await other.settled()
            assert {*other.journal.leases().values()} == {*other.journal.parked(other.owner.id)}
            assert other.containers() == []
    finally:
        await trio.run_process(["umount", small])


async def test_a_start_mounts_nothing_where_the_host_sees_it(state: State) -> None:
    """Found by the sweep of descriptors: what lies over a clone of a shared mount lies over its original as well."""
    shared = state.root / "shared"
    shared.mkdir()
    await trio.run_process(["mount", "-t", "tmpfs", "none", shared])
    try:
        await trio.run_process(["mount", "--make-shared", shared])
        async with open_engine(shared, run_dir=state.run, warm=0) as engine:
            changes = select.poll()
            table = os.open("/proc/self/mountinfo", os.O_RDONLY)
            changes.register(table, select.POLLPRI)
            assert (await engine.run("host", ["true"])).exit_code == 0
            await engine.settled()
            assert not changes.poll(0)
            await trio.run_process(["mount", "-t", "tmpfs", "none", shared / "ingest"])
            assert changes.poll(0)
            await trio.run_process(["umount", shared / "ingest"])
            os.close(table)
    finally:
        await trio.run_process(["umount", shared])


def fill_up(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


async def fill(engine: Engine, ballast: Path) -> None:
    """Runs containers on a disk that is full."""
    fill_up(ballast)
    for _ in range(100):
        await engine.run("host", ["true"])


async def test_a_signal_that_nobody_sent_from_outside_is_told_as_such(engine: Engine) -> None:
    # Not as PID 1 itself, which has no default action: the shell's child, and the shell says how that ended.
    done = await engine.run("host", ["sh", "-c", "sh -c 'kill -SEGV $$'; exit $?"])
    assert done.exit_code == 128 + signal.SIGSEGV


async def test_an_engine_within_what_is_cancelled_closes_as_ever(state: State, leakcheck: Oracle) -> None:
    with trio.move_on_after(0.3) as scope:
        async with open_engine(state.root, run_dir=state.run) as engine:
            for _ in range(2):
                await engine.run("host", ["true"])
            await engine.run("host", ["sleep", "1000"])
    assert scope.cancelled_caught
    async with open_engine(state.root, run_dir=state.run) as engine:
        assert engine.containers() == []
        assert engine.journal.leases() == {}


@pytest.mark.parametrize("delay", [0, 0.001, 0.003, 0.01, 0.1])
async def test_cancelled_at_any_moment_it_leaves_nothing(engine: Engine, delay: float) -> None:
    with trio.move_on_after(delay) as scope:
        await engine.run("host", ["sleep", "1000"])
    assert scope.cancelled_caught
    assert not engine.live
    events = await told(engine)
    assert engine.containers() == []
    if any(isinstance(event, ContainerStarted) for event in events):
        ended = next(event for event in events if isinstance(event, ContainerExited))
        assert (ended.verdict, ended.cause) == (Verdict.KILLED, "cancelled")


async def test_what_ignores_signals_is_killed_too(engine: Engine) -> None:
    with trio.move_on_after(0.2):
        await engine.run("host", ["sh", "-c", "trap '' TERM INT HUP; while :; do sleep 1000; done"])
    await told(engine)
    assert engine.containers() == []


async def test_what_is_not_there_is_named(engine: Engine) -> None:
    with pytest.raises(CommandNotFound):
        await engine.run("host", ["/no/such/command"])
    events = await told(engine)
    assert [type(event) for event in events] == [ContainerCreated, ContainerFailed, ContainerRemoved]
    assert engine.containers() == []
    assert_only_spares_are_left(engine)


@pytest.mark.parametrize(
    ("image", "command", "options", "error"),
    [
        ("no/such/image", ["true"], {}, ImageNotFound),
        ("host", "true", {}, UsageError),
        ("host", ["true"], {"no_such_option": 1}, UsageError),
        ("host", ["true"], {"name": "not a name"}, UsageError),
        ("host", ["true"], {"user": "nobody-has-this-name"}, UsageError),
    ],
)
async def test_bad_input_leaves_no_trace(
    engine: Engine, image: str, command: list[str], options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        await engine.run(image, command, **options)
    await engine.settled()
    assert engine.containers() == []
    assert engine.journal.leases() == {}


async def test_a_name_is_used_once_at_a_time(engine: Engine) -> None:
    async with engine.open_container("host", ["cat"], name="box"):
        with pytest.raises(NameInUse):
            await engine.run("host", ["true"], name="box")
    await engine.settled()
    await engine.run("host", ["true"], name="box")


async def test_many_at_once(engine: Engine) -> None:
    seen: dict[int, bytes] = {}

    async def one(number: int) -> None:
        done = await engine.run("host", ["sh", "-c", f"echo {number}"])
        seen[number] = done.stdout

    async with trio.open_nursery() as nursery:
        for number in range(60):
            nursery.start_soon(one, number)
    assert seen == {number: b"%d\n" % number for number in range(60)}
    events = await told(engine)
    assert len(events) == 4 * 60
    assert [event.seq for event in events] == list(range(1, 241))


async def test_an_error_of_the_caller_s_is_not_wrapped(opened: object, engine: Engine) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with opened():  # type: ignore[operator]
            raise KeyError("mine")


async def test_what_keeps_an_engine_from_opening_is_not_wrapped_either(opened: object, state: State) -> None:
    (state.root / "journal.db").write_bytes(b"no database" * 999)
    with pytest.raises(StateError, match="damaged"):
        async with opened():  # type: ignore[operator]
            pass


async def test_an_engine_that_is_closed_says_so(opened: object) -> None:
    async with opened() as engine:  # type: ignore[operator]
        pass
    with pytest.raises(EngineError, match="closed"):
        await engine.run("host", ["true"])


async def test_closing_kills_what_runs(opened: object) -> None:
    async with opened() as engine:  # type: ignore[operator]
        container = await engine.start("host", engine_options(["sleep", "1000"]), cause="test")
        pid = container.pid
    assert container.status is not None
    assert container.status.verdict is Verdict.KILLED
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    container.close_streams()


def engine_options(command: list[str]) -> object:
    from pyrt.runtime.options import make_options

    return make_options(command)
