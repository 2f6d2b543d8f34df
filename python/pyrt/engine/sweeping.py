"""What engines that have died left behind is recorded as ended and taken away by those that live.

An engine is dead when its lock can be taken. Containers that were attached to it die with it; their keepers clean
up, and what a killed keeper leaves is found by the container's id. Those that last are adopted.
"""

from __future__ import annotations

import itertools
import logging
import os
import time
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from pyrt.engine import debris
from pyrt.engine.detaching import unpaused
from pyrt.engine.owner import bury, is_alive
from pyrt.engine.results import ExitStatus, Verdict
from pyrt.engine.starting import end
from pyrt.engine.states import LIVE, State
from pyrt.errors import ContainerNotFound, IllegalTransition, PyrtError

if TYPE_CHECKING:
    from pyrt.engine.detaching import Detaching
    from pyrt.engine.journal import Transaction
    from pyrt.engine.record import Record


LOOK_EVERY: Final = 1.0
"""Seconds between two looks whether an engine has died: its containers have nobody to restart them meanwhile. A look
is one query."""
# A sweep of the images looks at all of their files, and needs them for itself.
_IMAGES_EVERY = 20

log = logging.getLogger("pyrt.engine")


async def take_over(engine: Detaching) -> list[Record]:
    """Takes care of the containers of dead engines: those that last are adopted, the others recorded as ended.

    Returns those of which something may be left.
    """
    left: list[Record] = []
    orphans: list[Record] = []
    for owner in engine.journal.owners():
        if owner == engine.owner.id or is_alive(engine.layout.owners, owner):
            continue
        await _clear_parked(engine, owner)
        for record in engine.journal.records(owner=owner):
            try:
                if record.lasting and record.state in LIVE | {State.RESTARTING}:
                    orphans.append(await engine.commit(partial(_own, engine, record)))
                else:
                    left.append(await engine.commit(partial(_lose, engine, record)))
            except (IllegalTransition, ContainerNotFound):
                continue  # Another engine has taken it over.
        bury(engine.layout.owners, owner)
    for record in orphans:
        if record.state is State.RESTARTING:
            await engine.ended(record)
    live = [record for record in orphans if record.state in LIVE]
    # A number of a process and a socket of before the machine was started anew mean nothing any more.
    await engine.bury([r for r in live if r.boot != engine.journal.boot or not engine.adopt(r)])
    return left


def _own(engine: Detaching, record: Record, transaction: Transaction) -> Record:
    after = transaction.own(record, engine.owner.id)
    if after.state is State.PAUSED and after.at_rest:
        # Nobody works on its files any more.
        return unpaused(after, "engine died", transaction)
    return after


async def clear(engine: Detaching, left: list[Record]) -> None:
    """Takes away what is left of containers whose engines died: processes, cgroups, folders."""
    for record in left:
        if await debris.clear_cgroups(record.id, record.cgroup_parent):
            engine.janitor.discard(record)
    await engine.janitor.remove_folders(_strays(engine))


def _lose(engine: Detaching, record: Record, transaction: Transaction) -> Record:
    if record.state in LIVE:
        status = ExitStatus(verdict=Verdict.LOST, finished=time.time_ns())
        return end(transaction, record, status, "engine died", engine.owner.id)
    return transaction.own(record, engine.owner.id if record.state is State.REMOVING else "")


async def _clear_parked(engine: Detaching, owner: str) -> None:
    """Of most there is nothing but a folder, which is a stray one then."""
    parked = engine.journal.parked(owner)
    mounts = debris.cgroup_mounts() if parked else []
    cleared = [container for container in parked if await debris.clear_cgroups(container, mounts=mounts)]
    if cleared:
        await engine.commit(lambda transaction: transaction.dispose(*cleared))


def _strays(engine: Detaching) -> list[str]:
    """Folders without a record. Listed first and looked up then: a record is made before its folder."""
    folders = os.listdir(engine.layout.containers)
    known = engine.journal.ids() if folders else frozenset()
    return [folder for folder in folders if folder not in known]


async def sweep_for_ever(engine: Detaching, left: list[Record], pause: float) -> None:
    """Clears ``left``, then looks for engines that died every LOOK_EVERY, and every ``pause`` seconds for all that
    they left and for what was put off."""
    work = partial(clear, engine, left)
    looks = max(1, round(pause / LOOK_EVERY))
    for count in itertools.count(1):
        try:
            await work()
        except (PyrtError, OSError):
            log.exception("what others left can't be cleared up just now")
        await trio.sleep(LOOK_EVERY)
        images = count % (looks * _IMAGES_EVERY) == looks
        work = partial(_look_again, engine, images=images) if count % looks == 0 else partial(_look, engine)


async def _look(engine: Detaching) -> None:
    if left := await take_over(engine):
        await clear(engine, left)


async def _look_again(engine: Detaching, *, images: bool) -> None:
    engine.janitor.try_again()
    await engine.pay()
    await clear(engine, await take_over(engine))
    if images:
        await engine.in_thread(engine.store.sweep)
