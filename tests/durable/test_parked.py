"""A container that was made beforehand and is detached when it is taken: the same as any other from then on."""

from __future__ import annotations

import os
import select
import signal
from typing import TYPE_CHECKING

import pytest
import trio

from pyrt.engine.lasting import Lasting, Log
from pyrt.engine.results import Verdict
from pyrt.engine.states import State as Life
from pyrt.errors import CommandNotFound, NameInUse
from pyrt.runtime.options import Limits, RunOptions, make_options
from tests.durable.conftest import logged, remove_all, shell
from tests.engine.test_pool import parked_keepers, was_parked

if TYPE_CHECKING:
    from pyrt.engine.engine import Engine
    from pyrt.engine.pool import Parked
    from pyrt.engine.recipe import Mould
    from pyrt.engine.record import Record
    from tests.conftest import OpenEngine

pytestmark = pytest.mark.root


def has_waited(engine: Engine, record: Record) -> bool:
    return any(mark.name == "AwaitStdio" for mark in engine.journal.timing(record.id).marks)


async def fill(engine: Engine, options: RunOptions) -> int:
    """Starts the same until it is made beforehand; returns how many wait then."""
    for _ in range(2):
        record = await engine.run_detached("host", options)
        assert not has_waited(engine, record)
        await engine.wait(record.id)
    return await engine.pool.filled()


async def test_it_keeps_output_and_exit_of_whichever_command(engine: Engine) -> None:
    assert await fill(engine, shell("true"))
    record = await engine.run_detached("host", shell("echo $HOSTNAME; echo err >&2; printf tail; exit 3"))
    assert has_waited(engine, record)
    assert record.id not in engine.journal.parked(engine.owner.id)
    status = await engine.wait(record.id)
    assert (status.verdict, status.code) == (Verdict.EXITED, 3)
    assert logged(engine, record.id) == record.id[:12].encode() + b"\ntail"
    assert logged(engine, record.id, "stderr") == b"err\n"
    # It is started again as every other one is.
    assert (await engine.launch(record.id)).state is Life.RUNNING
    assert (await engine.wait(record.id)).code == 3


async def test_what_others_were_parked_for_serves_it_and_the_other_way_round(engine: Engine) -> None:
    for _ in range(2):
        await engine.run("host", ["true"])
    await engine.pool.filled()
    record = await engine.run_detached("host", shell("exec cat"), Lasting(stdin=True), keep=False)
    assert any(mark.name == "AwaitStdio" for mark in engine.live[record.id].timing.marks)
    await engine.stop(record.id, 0)
    await engine.settled()
    await engine.pool.filled()
    assert was_parked(await engine.run("host", ["true"]))


async def test_its_description_holds(engine: Engine) -> None:
    options = make_options(["true"], limits=Limits(time=0.2))
    await fill(engine, options)
    lasting = Lasting(stdin=True, log=Log(size=10_000, files=2))
    record = await engine.run_detached(
        "host", make_options(["sh", "-c", "seq 5000; cat"], limits=options.limits), lasting
    )
    assert has_waited(engine, record)
    status = await engine.wait(record.id)
    assert status.verdict is Verdict.TIMED_OUT
    assert logged(engine, record.id).endswith(b"\n5000\n")
    assert sorted(name for name in os.listdir(engine.layout.folder(record.id)) if "log" in name) == ["log", "log.1"]


async def test_it_outlives_its_engine(opened: OpenEngine) -> None:
    async with opened() as engine:
        await fill(engine, shell("true"))
        record = await engine.run_detached("host", shell("read line; echo got $line"), Lasting(stdin=True))
        assert has_waited(engine, record)
    async with opened() as engine:
        assert engine.inspect(record.id).state is Life.RUNNING
        way_in = await engine.open_input(record.id)
        os.write(way_in.descriptor, b"it\n")
        way_in.close()
        assert (await engine.wait(record.id)).code == 0
        assert logged(engine, record.id) == b"got it\n"
        await remove_all(engine)


async def test_what_can_not_be_started_is_recorded_as_failed_and_leaves_no_door(engine: Engine) -> None:
    await fill(engine, shell("true"))
    with pytest.raises(CommandNotFound, match="no-such-command"):
        await engine.run_detached("host", RunOptions(command=("no-such-command",), name="not-there"))
    record = engine.inspect("not-there")
    assert record.state is Life.FAILED
    assert os.listdir(engine.layout.keepers) == []


async def test_one_whose_keeper_was_killed_is_replaced(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    ready = await fill(engine, shell("true"))
    while len(waiting := parked_keepers(engine)) < ready:  # noqa: ASYNC110 - they are on their way there
        await trio.sleep(0.01)
    take = engine.pool.take

    def take_and_kill(mould: Mould) -> Parked | None:
        parked = take(mould)
        for keeper in waiting:
            pidfd = os.pidfd_open(keeper)
            os.kill(keeper, signal.SIGKILL)
            select.select([pidfd], [], [])
            os.close(pidfd)
        return parked

    monkeypatch.setattr(type(engine.pool), "take", lambda pool, mould: take_and_kill(mould))
    record = await engine.run_detached("host", shell("echo on"))
    assert not has_waited(engine, record)
    assert (await engine.wait(record.id)).code == 0
    assert logged(engine, record.id) == b"on\n"


async def test_a_name_that_is_in_use_costs_nothing_but_the_parked_one(engine: Engine) -> None:
    await fill(engine, RunOptions(command=("true",)))
    record = await engine.run_detached("host", RunOptions(command=("true",), name="taken"))
    await engine.wait(record.id)
    with pytest.raises(NameInUse):
        await engine.run_detached("host", RunOptions(command=("true",), name="taken"))
    assert await engine.pool.filled()
    assert len(os.listdir(engine.layout.keepers)) == 0
