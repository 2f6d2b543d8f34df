"""Whether a container is well: as it is assessed, and as it is watched."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from pyrt.engine.events import ContainerHealth
from pyrt.engine.health import KEPT, assess
from pyrt.engine.lasting import Health, Lasting
from pyrt.engine.record import HealthState, Probe
from tests.durable.conftest import PATIENCE, remove_all, shell

if TYPE_CHECKING:
    from pyrt.engine.engine import Engine
    from tests.conftest import OpenEngine

HEALTH = Health(test=("CMD", "true"), retries=2, start_period=10)


def probes(*codes: int, age: float = 100.0, before: HealthState | None = None) -> HealthState:
    state = before or HealthState()
    for code in codes:
        state = assess(state, Probe(started=1, finished=2, exit_code=code), HEALTH, age=age)
    return state


def test_one_success_is_enough_and_so_many_failures_in_a_row() -> None:
    assert probes(0).status == "healthy"
    assert probes(0, 1, 0, 1).status == "healthy"
    assert probes(0, 1, 1).status == "unhealthy"
    assert probes(0, 1, 1, 0).status == "healthy"


def test_failures_at_the_start_do_not_count_until_it_was_well() -> None:
    assert (probes(1, 1, 1, age=5).status, probes(1, 1, age=5).failing) == ("starting", 0)
    assert probes(1, 1, age=5, before=probes(0, age=5)).status == "unhealthy"


def test_only_the_latest_looks_are_kept() -> None:
    assert len(probes(*range(20)).probes) == KEPT
    assert probes(*range(20)).probes[-1].exit_code == 19


@pytest.mark.root
async def test_a_container_becomes_ill_and_well_under_two_engines(opened: OpenEngine) -> None:
    test = ("CMD-SHELL", "echo looked; test -e /well")
    lasting = Lasting(health=Health(test=test, interval=0.05, retries=2))
    async with opened() as engine:
        record = await engine.run_detached("host", shell("touch /well; sleep 1000"), lasting)
        await told(engine, "healthy")
    async with opened() as engine:
        execution = await engine.exec(record.id, ["rm", "/well"], wants_stdin=False)
        await engine.complete(execution, b"", 100)
        await told(engine, "unhealthy")
        state = engine.inspect(record.id).health
        assert state is not None
        assert (state.probes[-1].exit_code, state.probes[-1].output) == (1, "looked\n")
        await remove_all(engine)


@pytest.mark.root
async def test_a_look_that_takes_too_long_has_failed(engine: Engine) -> None:
    health = Health(test=("CMD", "sleep", "1000"), interval=0.05, timeout=0.2, retries=1)
    record = await engine.run_detached("host", shell("sleep 1000"), Lasting(health=health))
    await told(engine, "unhealthy")
    state = engine.inspect(record.id).health
    assert state is not None
    assert "exceeded timeout" in state.probes[-1].output


async def told(engine: Engine, status: str) -> None:
    with trio.fail_after(PATIENCE):
        async for event in engine.events(0):
            if isinstance(event, ContainerHealth) and event.status == status:
                return
