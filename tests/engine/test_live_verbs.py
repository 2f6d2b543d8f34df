"""pause, unpause, update, top and stats, seen from both sides of a container."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
import trio

from pyrt.engine.events import ContainerPaused, ContainerUnpaused, ContainerUpdated
from pyrt.engine.live_verbs import groups_of
from pyrt.engine.processes import consumed
from pyrt.engine.recipe import options_of
from pyrt.engine.results import Verdict
from pyrt.engine.states import State
from pyrt.errors import ContainerError, HostError, IllegalTransition, UsageError
from pyrt.runtime.options import Limits, make_options

if TYPE_CHECKING:
    from pyrt.engine.container import Container
    from pyrt.engine.engine import Engine
    from tests.conftest import OpenEngine

pytestmark = pytest.mark.root

# Says a word for each that it hears.
ECHO = ["sh", "-c", "while read word; do echo $word; done"]
# Forks without end, so that somebody is always just being born.
FORKING = ["sh", "-c", "echo up; while :; do (:) & wait; done"]


async def answer(container: Container, word: bytes) -> bytes:
    await container.stdin.send_all(word + b"\n")
    return await container.stdout.receive_some()


async def kinds(engine: Engine) -> list[type]:
    return [type(event) async for event in engine.events(0, follow=False)]


async def test_a_paused_container_says_nothing_until_it_is_unpaused(engine: Engine) -> None:
    async with engine.open_container("host", ECHO, name="box") as container:
        assert await answer(container, b"one") == b"one\n"
        assert (await engine.pause("box")).state is State.PAUSED
        await container.stdin.send_all(b"two\n")
        with trio.move_on_after(0.1) as waiting:
            await container.stdout.receive_some()
        assert waiting.cancelled_caught
        with pytest.raises(IllegalTransition, match="is paused: it can't be made to pause"):
            await engine.pause("box")
        with pytest.raises(IllegalTransition, match="paused"):
            await engine.exec("box", ["true"])
        assert (await engine.unpause("box")).state is State.RUNNING
        assert await container.stdout.receive_some() == b"two\n"
        with pytest.raises(IllegalTransition):
            await engine.unpause("box")
    assert [kind for kind in await kinds(engine) if "aused" in kind.__name__] == [ContainerPaused, ContainerUnpaused]


async def test_whoever_is_born_meanwhile_is_paused_too(engine: Engine) -> None:
    async with engine.open_container("host", FORKING, name="box") as container:
        await container.stdout.receive_some()
        for _ in range(5):
            await engine.pause("box")
            record = engine.inspect("box")
            pids = groups_of(record).processes()
            before = consumed(pids)
            await trio.sleep(0.05)
            assert pids == groups_of(record).processes() != []
            assert consumed(pids) == before
            await engine.unpause("box")


@pytest.mark.parametrize("way", ["kill", "stop", "remove", "block", "time"])
async def test_what_is_paused_can_be_ended(engine: Engine, way: str) -> None:
    limits = Limits(time=2) if way == "time" else Limits()
    script = "trap 'exit 3' TERM; echo up; while :; do sleep 0.02; done"
    options = make_options(["sh", "-c", script], limits, name="box")
    container = await engine.start("host", options, keep=True)
    await container.stdout.receive_some()
    await engine.pause("box")
    with trio.fail_after(8):
        match way:
            case "kill":
                await engine.kill("box")
            case "stop":
                assert (await engine.stop("box")).code == 3
            case "remove":
                await engine.remove("box", force=True)
            case "block":
                await container.destroy("test")
            case "time":
                assert (await container.wait()).verdict is Verdict.TIMED_OUT
        await container.wait()
        await container.left.wait()
    if way != "remove":
        await engine.remove("box")
    container.close_streams()


async def test_a_signal_that_ends_nothing_is_kept_for_later(engine: Engine) -> None:
    script = "trap 'echo hup' HUP; echo up; while :; do sleep 0.02; done"
    async with engine.open_container("host", ["sh", "-c", script], name="box") as container:
        await container.stdout.receive_some()
        await engine.pause("box")
        await engine.kill("box", signal.SIGHUP)
        assert engine.inspect("box").state is State.PAUSED
        await engine.unpause("box")
        assert await container.stdout.receive_some() == b"hup\n"


async def test_another_engine_can_pause_it(engine: Engine, opened: OpenEngine) -> None:
    async with engine.open_container("host", ECHO, name="box") as container, opened() as other:
        await other.pause("box")
        assert engine.inspect("box").state is State.PAUSED
        await other.unpause("box")
        assert await answer(container, b"again") == b"again\n"


async def test_limits_change_while_it_runs(engine: Engine) -> None:
    async with engine.open_container("host", ["sleep", "1000"], name="box", limits=Limits(memory="64m")) as container:
        before = groups_of(container.record)
        assert before.read("memory", "memory.limit_in_bytes") == str(64 << 20)
        await engine.update("box", memory="128m", cpus=0.5, cpu_shares=512, cpuset_cpus="0", pids=40)
        execution = await engine.exec("box", ["sleep", "1000"])
        groups = groups_of(container.record)
        assert groups.read("memory", "memory.limit_in_bytes") == str(128 << 20)
        assert groups.read("memory", "memory.memsw.limit_in_bytes") in {None, str(256 << 20)}
        assert groups.read("cpu", "cpu.cfs_quota_us") == "50000"
        assert groups.read("cpu", "cpu.shares") == "512"
        assert groups.read("cpuset", "cpuset.cpus") == "0"
        assert groups.read("pids", "pids.max") == "40"
        # Also whoever joins afterwards is held by a limit that there was no group for at the start.
        assert len(groups.processes()) == 2
        assert set((groups.read("cpu", "cgroup.procs") or "").split()) == {str(pid) for pid in groups.processes()}
        await engine.update("box", memory=0)
        assert int(groups.read("memory", "memory.limit_in_bytes") or 0) > 1 << 50
        await engine.update("box", memory="64m", pids=-1)
        assert groups.read("memory", "memory.limit_in_bytes") == str(64 << 20)
        assert groups.read("pids", "pids.max") == "max"
        assert groups.read("cpu", "cpu.cfs_quota_us") == "50000"
        limits = options_of(engine.inspect("box")).limits
        assert (limits.memory, limits.cpus, limits.pids) == ("64m", 0.5, -1)
        await execution.destroy()
    assert (await kinds(engine)).count(ContainerUpdated) == 3


async def test_a_limit_that_is_refused_changes_nothing(engine: Engine) -> None:
    async with engine.open_container("host", ["sleep", "1000"], name="box", limits=Limits(memory="64m")) as container:
        for wrong in (
            {},
            {"memory_reservation": "65m"},
            {"memory": "1m"},
            {"time": 5.0},
            {"nonsense": 1},
            {"cpus": 1000},
        ):
            with pytest.raises(UsageError):
                await engine.update("box", **wrong)
        assert groups_of(container.record).read("memory", "memory.limit_in_bytes") == str(64 << 20)


async def test_memory_that_is_in_use_can_not_be_taken(engine: Engine) -> None:
    eater = ["python3", "-c", "data = bytearray(b'x' * (40 << 20)); print('full', flush=True); input()"]
    limits = Limits(memory="128m")
    async with engine.open_container("host", eater, name="box", limits=limits) as container:
        assert await container.stdout.receive_some() == b"full\n"
        with pytest.raises(HostError, match=r"memory\.(memsw\.)?limit_in_bytes"):
            await engine.update("box", memory="16m")
        assert options_of(engine.inspect("box")).limits.memory == "128m"


async def test_limits_of_one_that_has_ended_are_for_its_next_start(engine: Engine) -> None:
    container = await engine.start("host", make_options(["true"], name="box"), keep=True, wants_stdin=False)
    await container.wait()
    await container.left.wait()
    container.close_streams()
    await engine.update("box", memory="96m")
    assert options_of(engine.inspect("box")).limits.memory == "96m"
    await engine.remove("box")


async def test_top_tells_what_ps_would(engine: Engine) -> None:
    script = ["sh", "-c", "sleep 1000 & echo up; wait"]
    async with engine.open_container("host", script, name="box", user="1000:1001") as container:
        await container.stdout.receive_some()
        execution = await engine.exec("box", ["sleep", "77"], user="0")
        first, child, joined = await engine.top("box")
        assert (first.pid, first.inner_pid, first.inner_user, first.group) == (
            container.pid,
            1,
            1000,
            (container.record.id_base or 0) + 1001,
        )
        assert child.parent == first.pid
        assert child.command == ("sleep", "1000")
        assert joined.command == ("sleep", "77")
        assert joined.inner_user == 0
        assert first.memory > 0
        await execution.destroy()
    with pytest.raises(ContainerError):
        await engine.top("box")


async def test_stats_count_time_memory_and_processes(engine: Engine) -> None:
    eater = ["python3", "-c", "data = bytearray(b'x' * (30 << 20)); print('full', flush=True)\nwhile True: pass"]
    limits = Limits(memory="128m", pids=20)
    async with engine.open_container("host", eater, name="box", limits=limits) as container:
        assert await container.stdout.receive_some() == b"full\n"
        before = await engine.stats("box")
        assert before.memory > 30 << 20
        assert before.memory_limit == 128 << 20
        assert (before.pids, before.pids_limit) == (1, 20)
        after = before
        while after.cpu_time - before.cpu_time < 0.05:
            after = await engine.stats("box")
        assert 0 < after.cpu_share(before) < 150
        assert 20 < after.memory_share < 60
        assert (after.network_received, after.network_sent) == (0, 0)
