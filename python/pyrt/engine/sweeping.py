"""What engines that have died left behind is recorded as ended and taken away by those that live.

An engine is dead when its lock can be taken. Its containers were attached to it, so they die with it; their
keepers clean up, and what a killed keeper leaves is found by the container's id.
"""

from __future__ import annotations

import itertools
import logging
import os
import time
from functools import partial
from typing import TYPE_CHECKING

import trio

from pyrt.engine import debris
from pyrt.engine.events import ContainerExited
from pyrt.engine.owner import bury, is_alive
from pyrt.engine.results import ExitStatus, Verdict
from pyrt.engine.states import LIVE, State, Verb
from pyrt.errors import ContainerNotFound, IllegalTransition, PyrtError

if TYPE_CHECKING:
    from pyrt.engine.core import Core
    from pyrt.engine.journal import Transaction
    from pyrt.engine.record import Record


# A sweep of the images looks at all of their files, and needs them for itself.
_IMAGES_EVERY = 20

log = logging.getLogger("pyrt.engine")


async def take_over(core: Core) -> list[Record]:
    """Records the containers of dead engines as ended; returns those of which something may be left."""
    left: list[Record] = []
    for owner in core.journal.owners():
        if owner == core.owner.id or is_alive(core.layout.owners, owner):
            continue
        for container in core.journal.parked(owner):
            if await debris.clear_cgroups(container):
                await core.commit(partial(_dispose, container))
        for record in core.journal.records(owner=owner):
            try:
                left.append(await core.commit(partial(_lose, core, record)))
            except (IllegalTransition, ContainerNotFound):
                continue  # Another engine has taken it over.
        bury(core.layout.owners, owner)
    return left


async def clear(core: Core, left: list[Record]) -> None:
    """Takes away what is left of containers whose engines died: processes, cgroups, folders."""
    for record in left:
        if await debris.clear_cgroups(record.id):
            core.janitor.discard(record)
    await core.janitor.remove_folders(_strays(core))


def _lose(core: Core, record: Record, transaction: Transaction) -> Record:
    if record.state in LIVE:
        status = ExitStatus(verdict=Verdict.LOST, finished=time.time_ns())
        record = transaction.move(record, Verb.LOSE, status=status, owner=core.owner.id)
        transaction.release(record)
        transaction.emit(
            ContainerExited(
                container=record.id,
                name=record.name,
                image=record.image,
                verdict=status.verdict,
                exit_code=status.exit_code,
                cause="engine died",
            )
        )
        if record.auto_remove:
            record = transaction.move(record, Verb.REMOVE)
    return transaction.own(record, core.owner.id if record.state is State.REMOVING else "")


def _dispose(container: str, transaction: Transaction) -> None:
    transaction.dispose(container)


def _strays(core: Core) -> list[str]:
    """Folders without a record. Listed first and looked up then: a record is made before its folder."""
    folders = os.listdir(core.layout.containers)
    known = core.journal.ids() if folders else frozenset()
    return [folder for folder in folders if folder not in known]


async def sweep_for_ever(core: Core, left: list[Record], pause: float) -> None:
    """Clears ``left``, then looks every ``pause`` seconds for what engines that died left, and for what was put off."""
    work = partial(clear, core, left)
    for count in itertools.count(1):
        try:
            await work()
        except (PyrtError, OSError):
            log.exception("what others left can't be cleared up just now")
        await trio.sleep(pause)
        work = partial(_look_again, core, images=count % _IMAGES_EVERY == 1)


async def _look_again(core: Core, *, images: bool) -> None:
    core.janitor.try_again()
    await core.pay()
    await clear(core, await take_over(core))
    if images:
        await core.in_thread(core.store.sweep)
