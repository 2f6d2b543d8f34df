"""Containers that are made beforehand: taken where they fit, never seen, and never in the way."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
import trio

from pyrt.engine.debris import cgroups_of
from pyrt.engine.engine import open_engine
from pyrt.engine.events import ContainerCreated, ContainerStarted
from pyrt.engine.results import Verdict
from pyrt.errors import CommandNotFound, NameInUse
from pyrt.runtime.options import Limits
from tests.programs import program

if TYPE_CHECKING:
    from pyrt.engine.engine import Engine
    from pyrt.engine.results import Completed
    from tests.conftest import OpenEngine
    from tests.leakcheck import State

pytestmark = pytest.mark.root

SHOW = ("sh", "-c", "cat; hostname; cat /proc/self/cgroup; echo to stderr >&2; exit 3")


def was_parked(done: Completed) -> bool:
    return any(mark.name == "AwaitStdio" for mark in done.timing.marks)


async def fill(engine: Engine, *command: str, **options: Any) -> int:
    """Starts the same thing until it is made beforehand; returns how many wait then."""
    for _ in range(2):
        assert not was_parked(await engine.run("host", command, **options))
    return await engine.pool.filled()


async def test_what_is_started_again_is_ready_and_behaves_alike(engine: Engine) -> None:
    plain = await engine.run("host", SHOW, stdin=b"in\n")
    await engine.run("host", SHOW)
    assert await engine.pool.filled() > 0
    done = await engine.run("host", SHOW, stdin=b"in\n")
    assert was_parked(done)
    assert not was_parked(plain)
    assert done.stdout.splitlines() == [b"in", done.id[:12].encode(), *plain.stdout.splitlines()[2:]]
    assert (done.stderr, done.exit_code, done.verdict) == (plain.stderr, 3, Verdict.EXITED)


async def test_its_life_begins_when_it_is_asked_for(engine: Engine) -> None:
    await fill(engine, "true")
    await engine.settled()
    assert engine.containers() == []
    cursor = engine.journal.span()[1]
    done = await engine.run("host", ["true"], name="box")
    created, started = [event async for event in engine.events(cursor, follow=False)][:2]
    assert isinstance(created, ContainerCreated)
    assert isinstance(started, ContainerStarted)
    assert (created.name, created.container, started.container) == ("box", done.id, done.id)
    assert created.time <= started.time
    assert done.duration < 60


async def test_limits_hold_and_verdicts_are_right(engine: Engine) -> None:
    limits = Limits(memory="32M", pids=16)
    eat = ("sh", "-c", "x=x; while :; do x=$x$x; done")
    for _ in range(2):
        await engine.run("host", eat, limits=limits)
    await engine.pool.filled()
    done = await engine.run("host", eat, limits=limits)
    assert was_parked(done)
    assert done.verdict is Verdict.OUT_OF_MEMORY


@pytest.mark.parametrize(
    "change", [{"user": "1000"}, {"limits": Limits(pids=7)}, {"hostname": "x"}, {"workdir": "/tmp"}, {"init": True}]
)
async def test_other_options_are_made_anew(engine: Engine, change: dict[str, Any]) -> None:
    assert await fill(engine, "sh", "-c", "id -u; cat /etc/hostname")
    done = await engine.run("host", ["sh", "-c", "id -u; cat /etc/hostname"], **change)
    assert not was_parked(done)
    assert done.exit_code == 0


async def test_another_command_fits_and_its_environment_with_it(engine: Engine) -> None:
    await fill(engine, "true")
    show = ("sh", "-c", 'echo "$A $PATH $HOSTNAME"; printf "%s|" "$0" "$@"', "name", "", "last word")
    env = {"A": "1", "PATH": "/nowhere:/bin:/usr/bin"}
    done = await engine.run("host", show, env=env, labels={"of": "this"}, name="other")
    assert was_parked(done)
    told, arguments = done.stdout.decode().splitlines()
    assert told == f"1 /nowhere:/bin:/usr/bin {done.id[:12]}"
    assert arguments == "name||last word|"
    async with engine.open_container("host", ["cat"], entrypoint=[], labels={"of": "this"}, name="box") as box:
        assert any(mark.name == "AwaitStdio" for mark in box.timing.marks)
        assert engine.inspect("box").labels["of"] == "this"
        assert engine.inspect("box").command == ("cat",)


async def test_another_command_that_is_not_there_is_told_by_its_name(engine: Engine) -> None:
    await fill(engine, "true")
    with pytest.raises(CommandNotFound, match="/no/such/thing"):
        await engine.run("host", ["/no/such/thing"])
    with pytest.raises(CommandNotFound, match="nothing-of-that-name"):
        await engine.run("host", ["nothing-of-that-name"], env={"PATH": "/bin"})


async def test_a_command_that_is_too_long_to_be_handed_over_is_started_in_the_plain_way(engine: Engine) -> None:
    await fill(engine, "echo")
    words = ["echo", *["x" * 100_000] * 2]
    done = await engine.run("host", words)
    assert (was_parked(done), len(done.stdout)) == (False, 200_002)
    done = await engine.run("host", words[:-1])
    assert (was_parked(done), len(done.stdout)) == (True, 100_001)


async def test_what_has_an_init_waits_for_its_own_command_only(engine: Engine) -> None:
    """Its PID 1 is there already, in a memory of its own."""
    assert await fill(engine, "true", init=True)
    assert not was_parked(await engine.run("host", ["echo"], init=True))
    assert was_parked(await engine.run("host", ["true"], init=True))


async def test_one_whose_keeper_was_killed_is_replaced(engine: Engine) -> None:
    ready = await fill(engine, "true")
    for keeper in await keepers_of(engine, ready):
        pidfd = os.pidfd_open(keeper)
        os.kill(keeper, signal.SIGKILL)
        await trio.lowlevel.wait_readable(pidfd)
        os.close(pidfd)
    done = await engine.run("host", ["true"])
    assert (was_parked(done), done.exit_code) == (False, 0)
    assert await engine.pool.filled() >= ready
    assert was_parked(await engine.run("host", ["true"]))


def parked_keepers(engine: Engine) -> set[int]:
    """Process ids of the keepers: the parents of what waits in the parked containers' cgroups."""
    found = set()
    for container in engine.journal.parked(engine.owner.id):
        for group in cgroups_of(container):
            for pid in (group / "cgroup.procs").read_text().split():
                with open(f"/proc/{pid}/status") as status:
                    found |= {int(line.split()[1]) for line in status if line.startswith("PPid:")}
    return found


async def keepers_of(engine: Engine, parked: int) -> set[int]:
    """The same of so many: what is parked may be on its way into its cgroups."""
    while len(keepers := parked_keepers(engine)) < parked:  # noqa: ASYNC110 - nobody tells
        await trio.sleep(0.01)
    return keepers


async def test_a_command_that_is_not_there_is_told_as_ever(engine: Engine) -> None:
    for _ in range(2):
        with pytest.raises(CommandNotFound):
            await engine.run("host", ["/no/such/command"])
    assert await engine.pool.filled()
    with pytest.raises(CommandNotFound, match="/no/such/command"):
        await engine.run("host", ["/no/such/command"])


async def test_a_name_that_is_in_use_costs_nothing_but_the_parked_one(engine: Engine) -> None:
    async with engine.open_container("host", ["sleep", "1000"], name="taken", hostname="other"):
        await fill(engine, "true")
        with pytest.raises(NameInUse):
            await engine.run("host", ["true"], name="taken")
        assert (await engine.run("host", ["true"])).exit_code == 0
        await engine.pool.filled()


async def test_no_more_wait_than_were_allowed(state: State) -> None:
    async with open_engine(state.root, run_dir=state.run, warm=2) as engine:
        for number in "12":
            await fill(engine, "true", hostname=f"h{number}")
        assert len(await keepers_of(engine, 2)) == 2
    async with open_engine(state.root, run_dir=state.run, warm=0) as engine:
        for _ in range(3):
            assert not was_parked(await engine.run("host", ["true"]))
        assert parked_keepers(engine) == set()


async def test_what_is_wanted_now_takes_the_place_of_what_was(state: State) -> None:
    async with open_engine(state.root, run_dir=state.run, warm=2) as engine:
        for number in "1234":
            await fill(engine, "true", hostname=f"h{number}")
        for number in "34":
            assert was_parked(await engine.run("host", ["true"], hostname=f"h{number}"))
        assert not was_parked(await engine.run("host", ["true"], hostname="h1"))


async def test_many_at_once_take_what_is_there_and_make_the_rest(engine: Engine) -> None:
    await fill(engine, "echo", "hi")
    done: list[Completed] = []

    async def run() -> None:
        done.append(await engine.run("host", ["echo", "hi"]))

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(run)
    assert [each.stdout for each in done] == [b"hi\n"] * 20
    assert len({each.id for each in done}) == 20
    assert 0 < sum(map(was_parked, done)) < 20


PARK = """
import sys, trio, pyrt

async def main():
    async with pyrt.open_engine(sys.argv[1], run_dir=sys.argv[2]) as engine:
        for _ in range(2):
            await engine.run("host", ["true"])
        await engine.settled()
        assert await engine.pool.filled()
        print("ready", flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


async def test_what_a_killed_engine_had_parked_is_cleared_by_the_next(opened: OpenEngine, state: State) -> None:
    with program(state, PARK) as process:
        async with opened() as other:
            [owner] = [each for each in other.journal.owners() if each != other.owner.id]
            parked = other.journal.parked(owner)
        process.kill()
    assert parked
    async with opened() as engine:
        assert engine.journal.parked(owner) == []
        assert engine.journal.leases() == {}
        assert [group for each in parked for group in cgroups_of(each)] == []
        await engine.run("host", ["true"])
        await engine.settled()
