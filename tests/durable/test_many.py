"""Many containers, in a row and at once, over a change of engines; and one that is stuck holds nobody up."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
import trio

from pyrt.engine.results import Verdict
from pyrt.engine.states import State as Life
from pyrt.runtime.options import RunOptions
from tests.durable.conftest import PATIENCE, remove_all, shell
from tests.programs import parent_of

if TYPE_CHECKING:
    from pyrt.engine.engine import Engine
    from tests.conftest import OpenEngine

pytestmark = pytest.mark.root

ROW = 500
AT_ONCE = 100
ENGINES = 5


async def test_many_in_a_row_under_one_engine_after_the_other(opened: OpenEngine) -> None:
    for number in range(ENGINES):
        async with opened() as engine:
            for count in range(ROW // ENGINES):
                record = await engine.run_detached("host", shell(f"exit {count % 5}"), keep=False)
                if count + 1 < ROW // ENGINES:
                    assert (await engine.wait(record.id)).code == count % 5, number
        # The last one of each ends with nobody there to see it.
    async with opened() as engine:
        await emptied(engine)


async def test_many_at_once_are_adopted_and_stopped_together(opened: OpenEngine) -> None:
    async with opened() as engine, trio.open_nursery() as nursery:
        for _ in range(AT_ONCE):
            nursery.start_soon(engine.run_detached, "host", RunOptions(command=("sleep", "1000")))
    async with opened() as engine:
        records = engine.containers()
        assert [record.state for record in records] == [Life.RUNNING] * AT_ONCE
        with trio.fail_after(PATIENCE):
            while len(engine.live) < AT_ONCE:
                await trio.lowlevel.checkpoint()
            verdicts = set()

            async def stop(container: str) -> None:
                verdicts.add((await engine.stop(container, 0)).verdict)

            async with trio.open_nursery() as nursery:
                for record in records:
                    nursery.start_soon(stop, record.id)
        assert verdicts == {Verdict.KILLED}
        assert len(await engine.prune_containers()) == AT_ONCE


async def test_a_container_that_is_stuck_holds_nobody_up(opened: OpenEngine) -> None:
    async with opened() as engine:
        stuck = await engine.run_detached("host", RunOptions(command=("sleep", "1000")))
        busy = await engine.run_detached("host", shell("yes"))
        keeper = parent_of(stuck.pid)
        os.kill(keeper, signal.SIGSTOP)
    try:
        with trio.fail_after(PATIENCE):
            async with opened() as engine:
                assert {record.state for record in engine.containers()} == {Life.RUNNING}
                assert (await engine.run("host", ["true"])).exit_code == 0
                assert [event async for event in engine.events(0, follow=False)]
                assert (await engine.stop(busy.id, 0)).verdict is Verdict.KILLED
    finally:
        os.kill(keeper, signal.SIGCONT)
    async with opened() as engine:
        assert (await engine.stop(stuck.id, 0)).verdict is Verdict.KILLED
        await remove_all(engine)


async def emptied(engine: Engine) -> None:
    with trio.fail_after(PATIENCE):
        while engine.containers():
            await trio.lowlevel.checkpoint()
