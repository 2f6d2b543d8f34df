"""Restart policies, back-off, and a machine that is started anew."""

from __future__ import annotations

import os
import signal
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

import pytest
import trio

from pyrt.engine import journal
from pyrt.engine.events import ContainerExited, ContainerFailed, ContainerStarted
from pyrt.engine.lasting import Lasting, Restart
from pyrt.engine.results import Verdict
from pyrt.engine.states import State as Life
from pyrt.errors import IllegalTransition
from pyrt.runtime.options import Mount
from tests.durable.conftest import PATIENCE, remove_all, shell
from tests.programs import parent_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from pyrt.engine.engine import Engine
    from tests.conftest import OpenEngine

E = TypeVar("E")

SLEEP = "sleep 1000"


def test_policies_are_those_of_docker() -> None:
    def wants(when: str, code: int, restarts: int = 0, *, stopped: bool = False, most: int = 0) -> bool:
        return Restart(when, most).wants(code, restarts, stopped=stopped)  # type: ignore[arg-type]

    assert not wants("no", 1)
    assert wants("on-failure", 1)
    assert not wants("on-failure", 0)
    assert wants("on-failure", 1, 2, most=3)
    assert not wants("on-failure", 1, 3, most=3)
    assert wants("always", 0)
    assert wants("unless-stopped", 0)
    assert not any(wants(when, 1, stopped=True) for when in ("on-failure", "always", "unless-stopped"))


def test_after_a_boot_a_stopped_one_comes_back_only_if_always() -> None:
    assert Restart("always").wants_after_boot(0, stopped=True)
    assert not Restart("unless-stopped").wants_after_boot(0, stopped=True)
    assert Restart("unless-stopped").wants_after_boot(0, stopped=False)
    assert not Restart("on-failure").wants_after_boot(0, stopped=False)


@pytest.mark.root
async def test_failures_are_retried_so_often_with_growing_pauses(engine: Engine) -> None:
    lasting = Lasting(restart=Restart("on-failure", 3))
    record = await engine.run_detached("host", shell("exit 4"), lasting)
    with trio.fail_after(PATIENCE):
        ends = [event async for event in first(engine, ContainerExited, 4)]
    assert [event.exit_code for event in ends] == [4] * 4
    pauses = [(later.time - sooner.time) / 1e9 for sooner, later in pairwise(ends)]
    assert [pause > least for pause, least in zip(pauses, (0.1, 0.2, 0.4), strict=True)] == [True] * 3
    after = engine.inspect(record.id)
    assert (after.state, after.restarts) == (Life.EXITED, 3)


@pytest.mark.root
async def test_whoever_stops_it_stops_it_for_good(engine: Engine) -> None:
    lasting = Lasting(restart=Restart("always"))
    record = await engine.run_detached("host", shell(SLEEP), lasting)
    os.kill(record.pid, signal.SIGKILL)
    with trio.fail_after(PATIENCE):
        assert len([event async for event in first(engine, ContainerStarted, 2)]) == 2
    await engine.stop(record.id, 0)
    assert engine.inspect(record.id).state is Life.EXITED
    again = await engine.run_detached("host", shell("exit 1"), lasting)
    with trio.fail_after(PATIENCE):
        while engine.inspect(again.id).state is not Life.RESTARTING or engine.inspect(again.id).restarts < 3:
            await trio.lowlevel.checkpoint()
    await engine.stop(again.id, 0)
    assert engine.inspect(again.id).state is Life.EXITED


@pytest.mark.root
async def test_a_policy_is_changed_while_it_runs(engine: Engine) -> None:
    record = await engine.run_detached("host", shell(SLEEP))
    await engine.update(record.id, restart=Restart("on-failure", 2), pids=64)
    after = engine.inspect(record.id)
    assert after.lasting is not None
    assert after.lasting.restart == Restart("on-failure", 2)
    os.kill(record.pid, signal.SIGKILL)
    with trio.fail_after(PATIENCE):
        assert len([event async for event in first(engine, ContainerStarted, 2)]) == 2
    await engine.update(record.id, restart=Restart())
    os.kill(engine.inspect(record.id).pid, signal.SIGKILL)
    await engine.wait(record.id)
    assert engine.inspect(record.id).state is Life.EXITED


@pytest.mark.root
async def test_a_policy_that_is_taken_away_ends_the_waiting(engine: Engine) -> None:
    record = await engine.run_detached("host", shell("exit 1"), Lasting(restart=Restart("always")))
    with trio.fail_after(PATIENCE):
        while engine.inspect(record.id).state is not Life.RESTARTING or engine.inspect(record.id).restarts < 3:
            await trio.lowlevel.checkpoint()
    await engine.update(record.id, restart=Restart())
    assert engine.inspect(record.id).state is Life.EXITED


@pytest.mark.root
async def test_one_that_is_removed_at_its_end_gets_no_policy(engine: Engine) -> None:
    record = await engine.run_detached("host", shell(SLEEP), keep=False)
    with pytest.raises(IllegalTransition, match="removed at its end"):
        await engine.update(record.id, restart=Restart("always"))


@pytest.mark.root
async def test_a_restart_that_fails_is_tried_again(engine: Engine, tmp_path: Path) -> None:
    """What it needs is away for a while: a folder of the host."""
    shared = tmp_path / "shared"
    shared.mkdir()
    options = shell(SLEEP, mounts=(Mount(kind="bind", source=str(shared), target="/mnt"),))
    record = await engine.run_detached("host", options, Lasting(restart=Restart("always")))
    shared.rename(tmp_path / "away")
    os.kill(record.pid, signal.SIGKILL)
    with trio.fail_after(PATIENCE):
        assert len([event async for event in first(engine, ContainerFailed, 2)]) == 2
        (tmp_path / "away").rename(shared)
        while engine.inspect(record.id).state is not Life.RUNNING:
            await trio.lowlevel.checkpoint()
    assert engine.inspect(record.id).restarts >= 3


@pytest.mark.root
async def test_failed_restarts_are_counted_and_end(engine: Engine, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    options = shell(SLEEP, mounts=(Mount(kind="bind", source=str(shared), target="/mnt"),))
    record = await engine.run_detached("host", options, Lasting(restart=Restart("on-failure", 2)))
    shared.rmdir()
    os.kill(record.pid, signal.SIGKILL)
    with trio.fail_after(PATIENCE):
        assert len([event async for event in first(engine, ContainerFailed, 2)]) == 2
        while engine.inspect(record.id).state is not Life.EXITED:
            await trio.lowlevel.checkpoint()
    after = engine.inspect(record.id)
    assert (after.restarts, "to mount at /mnt" in after.error) == (2, True)


@pytest.mark.root
async def test_the_next_engine_restarts_what_ended_without_one(opened: OpenEngine) -> None:
    async with opened() as engine:
        record = await engine.run_detached("host", shell(SLEEP), Lasting(restart=Restart("always")))
        pidfd = os.pidfd_open(record.pid)
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    await trio.lowlevel.wait_readable(pidfd)
    os.close(pidfd)
    async with opened() as engine:
        with trio.fail_after(PATIENCE):
            assert len([event async for event in first(engine, ContainerStarted, 2)]) == 2
        assert engine.inspect(record.id).pid != record.pid
        await remove_all(engine)


@pytest.mark.root
async def test_a_machine_that_is_started_anew(opened: OpenEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened() as engine:
        plain = await engine.run_detached("host", shell(SLEEP))
        comes_back = await engine.run_detached("host", shell(SLEEP), Lasting(restart=Restart("unless-stopped")))
        stopped = await engine.run_detached("host", shell(SLEEP), Lasting(restart=Restart("unless-stopped")))
        always = await engine.run_detached("host", shell(SLEEP), Lasting(restart=Restart("always")))
        await engine.stop(stopped.id, 0)
        await engine.stop(always.id, 0)
        pids = [record.pid for record in (plain, comes_back)]
    for pid in pids:
        await killed_by_the_machine(pid)
    monkeypatch.setattr(journal, "_boot", lambda: "another boot")
    async with opened() as engine:
        with trio.fail_after(PATIENCE):
            while {engine.inspect(record.id).state for record in (comes_back, always)} != {Life.RUNNING}:
                await trio.lowlevel.checkpoint()
        lost = engine.inspect(plain.id)
        assert lost.status is not None
        assert (lost.state, lost.status.verdict) == (Life.EXITED, Verdict.LOST)
        causes = [
            event.cause
            async for event in engine.events(0, follow=False)
            if isinstance(event, ContainerExited) and event.verdict is Verdict.LOST
        ]
        assert causes == ["machine restarted"] * 2
        assert engine.inspect(stopped.id).state is Life.EXITED
        assert sorted(os.listdir(engine.layout.keepers)) == sorted([comes_back.id, always.id])
        assert len(engine.journal.leases()) == 2
        await remove_all(engine)


@pytest.mark.root
async def test_what_can_not_be_started_at_boot_is_tried_again(
    opened: OpenEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A disk that is mounted late, for one."""
    shared = tmp_path / "shared"
    shared.mkdir()
    options = shell(SLEEP, mounts=(Mount(kind="bind", source=str(shared), target="/mnt"),))
    async with opened() as engine:
        record = await engine.run_detached("host", options, Lasting(restart=Restart("always")))
        await engine.stop(record.id, 0)
    shared.rename(tmp_path / "away")
    monkeypatch.setattr(journal, "_boot", lambda: "another boot")
    async with opened() as engine:
        with trio.fail_after(PATIENCE):
            assert len([event async for event in first(engine, ContainerFailed, 2)]) == 2
            (tmp_path / "away").rename(shared)
            while engine.inspect(record.id).state is not Life.RUNNING:
                await trio.lowlevel.checkpoint()
        await remove_all(engine)


async def killed_by_the_machine(pid: int) -> None:
    """As a power loss does it: container and keeper, with no word to anybody."""
    pidfd = os.pidfd_open(pid)
    os.kill(parent_of(pid), signal.SIGKILL)
    with trio.fail_after(PATIENCE):
        await trio.lowlevel.wait_readable(pidfd)
    os.close(pidfd)


async def first(engine: Engine, kind: type[E], count: int) -> AsyncIterator[E]:
    """The first so many events of a kind."""
    async for event in engine.events(0):
        if isinstance(event, kind):
            yield event
            count -= 1
            if not count:
                return
