"""Whether containers that run are well: a command in each, again and again, as it was asked for or as its image says.

::

    starting --- success ---> healthy <--- success ---+
       |                         |                    |
       +------ so many failures in a row ------> unhealthy

What was found is in the container's record, so that the engine that takes it over goes on from there.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from pyrt.engine.events import ContainerHealth
from pyrt.engine.record import HealthState, Probe
from pyrt.engine.results import Verdict
from pyrt.errors import ContainerNotFound, IllegalTransition, PyrtError

if TYPE_CHECKING:
    from pyrt.engine.container import Container
    from pyrt.engine.joining import Joining
    from pyrt.engine.journal import Transaction
    from pyrt.engine.lasting import Health
    from pyrt.engine.record import Record

KEPT: Final = 5
"""Probes that are kept, and bytes of what each wrote; as Docker has it."""
LONGEST_OUTPUT: Final = 4096


async def watch_health(engine: Joining, container: Container, health: Health) -> None:
    """Looks after one container until it ends, or until this engine lets go of it."""
    while True:
        state = container.record.health or HealthState()
        early = state.status == "starting" and _age(container.record) < health.start_period
        with trio.move_on_after(health.start_interval if early else health.interval):
            await container.over()
            return
        probe = await _look(engine, container, health)
        if probe is None:
            continue
        if engine.closing or container.status is not None:
            return
        try:
            container.record = await engine.commit(partial(_note, container.record, probe, health))
        except (ContainerNotFound, IllegalTransition):
            return


async def _look(engine: Joining, container: Container, health: Health) -> Probe | None:
    """One run of the command; None if it can't be run just now: the container is paused, or ends."""
    began = time.time_ns()
    command = ("/bin/sh", "-c", *health.test[1:]) if health.test[0] == "CMD-SHELL" else health.test[1:]
    try:
        execution = await engine.exec(container.id, command, wants_stdin=False, time=health.timeout)
        done = await engine.complete(execution, b"", LONGEST_OUTPUT)
    except IllegalTransition:
        return None
    except PyrtError as error:
        return Probe(started=began, finished=time.time_ns(), exit_code=-1, output=str(error))
    output = (done.stdout + done.stderr)[:LONGEST_OUTPUT].decode(errors="replace")
    if done.verdict is Verdict.TIMED_OUT:
        return Probe(
            started=began,
            finished=time.time_ns(),
            exit_code=-1,
            output=f"Health check exceeded timeout ({health.timeout:g}s): {output}",
        )
    return Probe(started=began, finished=time.time_ns(), exit_code=done.exit_code, output=output)


def _note(record: Record, probe: Probe, health: Health, transaction: Transaction) -> Record:
    record = transaction.current(record.id) or record
    before = record.health or HealthState()
    after = assess(before, probe, health, age=_age(record))
    if after.status != before.status:
        transaction.emit(
            ContainerHealth(container=record.id, name=record.name, image=record.image, status=after.status)
        )
    return transaction.amend(record, health=after)


def assess(before: HealthState, probe: Probe, health: Health, *, age: float) -> HealthState:
    """What one more probe makes of a container's health; ``age`` is how many seconds it has run."""
    status, failing = before.status, 0
    if probe.exit_code == 0:
        status = "healthy"
    elif before.status != "starting" or age >= health.start_period:
        failing = before.failing + 1
        status = "unhealthy" if failing >= health.retries else status
    return HealthState(status=status, failing=failing, probes=(*before.probes, probe)[-KEPT:])


def _age(record: Record) -> float:
    return (time.time_ns() - record.started) / 1e9
