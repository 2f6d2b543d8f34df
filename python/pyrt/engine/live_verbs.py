"""The engine's verbs on a container that runs: stopping it where it is, its limits, its processes, what it uses."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from pyrt.engine import processes
from pyrt.engine.attaching import Attaching
from pyrt.engine.cgroups import Groups
from pyrt.engine.consumption import Stats, look
from pyrt.engine.detaching import unpaused
from pyrt.engine.events import ContainerPaused, ContainerUpdated
from pyrt.engine.lasting import USUAL
from pyrt.engine.recipe import options_as_json, options_of
from pyrt.engine.states import LIVE, State, Verb, advance
from pyrt.errors import IllegalTransition, UsageError
from pyrt.runtime.options import Limits
from pyrt.runtime.resources import is_unlimited, resources

if TYPE_CHECKING:
    from pyrt.engine.journal import Transaction
    from pyrt.engine.lasting import Lasting, Restart
    from pyrt.engine.record import Record


class LiveVerbs(Attaching):
    """pause, unpause, update, top, stats."""

    async def pause(self, container: str, *, at_rest: bool = False) -> Record:
        """Freezes every process of a container. Raises IllegalTransition if it does not run, or is paused already.

        ``at_rest``: if this engine is killed, the next one lets it go on.
        """
        record = self.journal.get(container)
        advance(record.state, Verb.PAUSE, what=f"container {record.name}")
        groups = groups_of(record)

        def change(transaction: Transaction) -> Record:
            after = transaction.move(record, Verb.PAUSE, at_rest=at_rest)
            transaction.emit(ContainerPaused(container=record.id, name=record.name, image=record.image, cause="pause"))
            return after

        after = record
        with trio.CancelScope(shield=True):
            try:
                await self.in_thread(groups.freeze)
            except OSError:
                raise IllegalTransition(f"container {record.name} has just ended") from None
            try:
                after = await self.commit(change)
            except BaseException:
                # It has ended meanwhile, or that it is paused can't be recorded: then nobody would know.
                await self.in_thread(groups.thaw)
                raise
        return self._hold(after)

    async def unpause(self, container: str) -> Record:
        """Lets the processes of a paused container go on. Raises IllegalTransition if it is not paused."""
        record = self.journal.get(container)
        advance(record.state, Verb.UNPAUSE, what=f"container {record.name}")

        after = record
        with trio.CancelScope(shield=True):
            await self.in_thread(groups_of(record).thaw)
            after = await self.commit(partial(unpaused, record, "unpause"))
        return self._hold(after)

    async def update(self, container: str, *, restart: Restart | None = None, **changes: Any) -> Record:
        """Changes limits and restart policy of a container, at once if it runs, and for its next start.

        ``changes`` are those fields of ``Limits`` that Docker lets one change; what is not named stays. One that waits
        for a restart which the new policy does not want stays as it ended. Raises UsageError, IllegalTransition where
        there can be no restart policy, and HostError where the kernel refuses, as it does for less memory than is used.
        """
        record = self.journal.get(container)
        if not changes and restart is None:
            raise UsageError("there is nothing to change", hint="give at least one limit, or a restart policy")
        options = options_of(record)
        limits = _changed(options.limits, changes)
        # Judged before anything is done.
        wanted = resources(limits, self.recipes.facts)
        if restart:
            _may_restart(record, restart)
        if changes and record.state in LIVE:
            written = _explicit(wanted, limits, changes, swap_limits=self.recipes.facts.swap_limits)
            await self.in_thread(groups_of(record).limit, msgspec.json.encode(written))

        def change(transaction: Transaction) -> Record:
            # Others may have renamed or moved it since we looked.
            current = transaction.current(record.id) or record
            after = transaction.amend(
                current,
                options=options_as_json(msgspec.structs.replace(options_of(current), limits=limits)),
                lasting=_with_policy(current, restart) if restart else current.lasting,
            )
            if restart and not _still_comes_back(after):
                after = transaction.move(after, Verb.GIVE_UP, owner="")
            transaction.emit(ContainerUpdated(container=after.id, name=after.name, image=after.image, cause="update"))
            return after

        return self._hold(await self.commit(change))

    async def top(self, container: str) -> list[processes.ContainerProcess]:
        """The processes of a running container, the oldest first. Raises IllegalTransition if it does not run."""
        record = self._running(container)
        return await self.in_thread(lambda: processes.look_at(groups_of(record).processes(), record.id_base))

    async def stats(self, container: str) -> Stats:
        """What a running container uses just now. Raises IllegalTransition if it does not run."""
        record = self._running(container)
        own_network = options_of(record).network != "host"
        return await self.in_thread(lambda: look(record, groups_of(record), own_network=own_network))

    def _running(self, container: str) -> Record:
        record = self.journal.get(container)
        if record.state not in LIVE or record.state is State.STARTING:
            raise IllegalTransition(f"container {record.name} does not run", hint="pyrt ps -a shows its state")
        return record

    def _hold(self, record: Record) -> Record:
        """Has a container of ours know its new record."""
        if mine := self.live.get(record.id):
            mine.record = record
        return record


def groups_of(record: Record) -> Groups:
    """The cgroups of a container."""
    return Groups(record.id, record.cgroup_parent)


def _may_restart(record: Record, restart: Restart) -> None:
    """Raises IllegalTransition if a container can't have this policy."""
    if record.auto_remove and restart.when != "no":
        raise IllegalTransition(f"container {record.name} is removed at its end: it can't be started again")
    if record.lasting is None and record.state in LIVE:
        raise IllegalTransition(
            f"container {record.name} ends with its client: it can't have a restart policy",
            hint="run it with -d, or give the policy when it has ended",
        )


def _with_policy(record: Record, restart: Restart) -> Lasting:
    """Judged once more: it may have been started meanwhile, attached to somebody."""
    _may_restart(record, restart)
    return msgspec.structs.replace(record.lasting or USUAL, restart=restart)


def _still_comes_back(record: Record) -> bool:
    """Whether its policy wants the restart that it waits for, if it waits for one."""
    if record.state is not State.RESTARTING or record.lasting is None or record.status is None:
        return True
    return record.lasting.restart.wants(record.status.exit_code, record.restarts - 1, stopped=record.stopped)


_CHANGEABLE = frozenset(
    "memory memory_swap memory_reservation pids blkio_weight cpus cpu_period cpu_quota cpu_shares cpuset_cpus "
    "cpuset_mems cpu_rt_period cpu_rt_runtime".split()
)

# Two ways to say the same: the later one counts.
_RIVALS = {"cpus": ("cpu_period", "cpu_quota"), "cpu_period": ("cpus",), "cpu_quota": ("cpus",)}


def _changed(limits: Limits, changes: dict[str, Any]) -> Limits:
    if unknown := set(changes) - _CHANGEABLE:
        raise UsageError(f"{min(unknown)} can't be changed of a container that is there")
    rivals = {rival for name in changes for rival in _RIVALS.get(name, ()) if rival not in changes}
    return msgspec.structs.replace(limits, **{**dict.fromkeys(rivals), **changes})


# Documentation/block/bfq-iosched.rst
_USUAL_WEIGHT = 100


def _explicit(wanted: dict[str, Any], limits: Limits, changes: dict[str, Any], *, swap_limits: bool) -> dict[str, Any]:
    """Of ``linux.resources`` what is changed; where a limit is taken away that has to be written as well."""
    kept: dict[str, Any] = {}
    if "pids" in changes:
        kept["pids"] = wanted.get("pids", {"limit": -1})
    if any(name.startswith("memory") for name in changes):
        kept["memory"] = wanted.get("memory", {})
        if "memory" in changes and is_unlimited(limits.memory):
            kept["memory"] = {**kept["memory"], "limit": -1, **({"swap": -1} if swap_limits else {})}
    if any(name.startswith("cpu") for name in changes):
        kept["cpu"] = wanted.get("cpu", {})
    if "blkio_weight" in changes:
        kept["blockIO"] = {"weight": wanted.get("blockIO", {}).get("weight", _USUAL_WEIGHT)}
    with suppress(KeyError):
        if limits.cpu_quota == -1:
            kept["cpu"]["quota"] = -1
    return kept
