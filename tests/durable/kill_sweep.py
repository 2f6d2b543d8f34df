"""Kills one process of the chain at its N-th call into the kernel, and looks what the next engine makes of it.

A program of its own, single-threaded, so that it may fork: each engine is a child's. The engine is killed at a call
into the kernel or into SQLite, counted by the interpreter; keeper, spawner and the container's first process at a
system call, counted by strace. ``sweep`` takes points by a seed; it is run by ``test_kill_anywhere`` and the soak.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import traceback
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from pyrt.engine import debris
from pyrt.engine.engine import Engine, open_engine
from pyrt.engine.results import Verdict
from pyrt.engine.states import LIVE, State
from pyrt.errors import ContainerNotFound, PyrtError
from pyrt.runtime.options import RunOptions
from tests.durable.conftest import logged, remove_all, shell

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

TALK = "echo hello; exit 7"
SLEEP = RunOptions(command=("sleep", "1000"), name="box")
PATIENCE = 30
_TRACED = frozenset({"posix", "fcntl", "pyrt._native", "_socket"})


class Case:
    """A verb: what there is before it, the verb, and what must be true after it was cut off."""

    async def before(self, engine: Engine) -> None:
        """Nothing."""

    async def act(self, engine: Engine) -> None:
        raise NotImplementedError

    async def after(self, engine: Engine) -> None:
        raise NotImplementedError


class Run(Case):
    async def act(self, engine: Engine) -> None:
        assert (await engine.run("host", ["sh", "-c", TALK])).stdout == b"hello\n"

    async def after(self, engine: Engine) -> None:
        await gone(engine)


class Detach(Case):
    async def act(self, engine: Engine) -> None:
        await engine.run_detached("host", shell(TALK, name="box"))

    async def after(self, engine: Engine) -> None:
        for record in engine.containers():
            await ended_well(engine, record.id)


class Launch(Case):
    async def before(self, engine: Engine) -> None:
        await engine.create("host", shell(TALK, name="box"))

    async def act(self, engine: Engine) -> None:
        await engine.launch("box")

    async def after(self, engine: Engine) -> None:
        if engine.inspect("box").state is not State.CREATED:
            await ended_well(engine, "box")


class Running(Case):
    async def before(self, engine: Engine) -> None:
        await engine.run_detached("host", SLEEP)


class Exec(Running):
    async def act(self, engine: Engine) -> None:
        execution = await engine.exec("box", ["echo", "hello"], wants_stdin=False)
        assert (await engine.complete(execution, b"", 100)).stdout == b"hello\n"

    async def after(self, engine: Engine) -> None:
        assert engine.inspect("box").state is State.RUNNING
        await self.act(engine)


class Stop(Running):
    async def act(self, engine: Engine) -> None:
        await engine.stop("box", 0)

    async def after(self, engine: Engine) -> None:
        assert engine.inspect("box").state in {State.RUNNING, State.STOPPING, State.EXITED}
        assert (await engine.stop("box", 0)).verdict in {Verdict.KILLED, Verdict.SIGNALED}


class Remove(Running):
    async def act(self, engine: Engine) -> None:
        await engine.remove("box", force=True)

    async def after(self, engine: Engine) -> None:
        try:
            await self.act(engine)
        except ContainerNotFound:
            pass
        await gone(engine)


CASES: dict[str, Case] = {
    "run": Run(),
    "detach": Detach(),
    "launch": Launch(),
    "exec": Exec(),
    "stop": Stop(),
    "remove": Remove(),
}


async def gone(engine: Engine) -> None:
    with trio.fail_after(PATIENCE):
        while engine.containers():  # noqa: ASYNC110 - another engine's janitor may be the one
            await trio.sleep(0.005)


async def ended_well(engine: Engine, container: str) -> None:
    """Either nothing of it ever ran, or it wrote all and told its own end."""
    with trio.fail_after(PATIENCE):
        status = await engine.wait(container)
    record = engine.inspect(container)
    assert record.state not in LIVE, record
    if status.verdict is Verdict.EXITED:
        assert status.code == 7, status
        assert logged(engine, record.id) == b"hello\n"
    else:
        assert status.verdict in {Verdict.LOST, Verdict.SIGNALED}, status
        assert b"hello\n".startswith(logged(engine, record.id))


# ---- one engine a child ----


def in_child(root: str, work: Callable[[Engine], Awaitable[None]]) -> int:
    """Runs ``work`` with an engine of its own in a child; returns how that ended, as os.waitpid has it."""
    child = os.fork()
    if not child:
        try:
            trio.run(partial(_with_engine, root, work))
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


async def _with_engine(root: str, work: Callable[[Engine], Awaitable[None]]) -> None:
    async with open_engine(root) as engine:
        await work(engine)


def kill_engine_at(number: int, case: Case) -> Callable[[Engine], Awaitable[None]]:
    async def work(engine: Engine) -> None:
        left = number

        def count(_: Any, event: str, function: Any) -> None:
            nonlocal left
            if event == "c_call" and _is_of_the_system(function):
                left -= 1
                if not left:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.setprofile(count)
        try:
            await case.act(engine)
        finally:
            sys.setprofile(None)

    return work


def _is_of_the_system(function: Any) -> bool:
    if getattr(function, "__module__", None) in _TRACED:
        return True
    return type(getattr(function, "__self__", None)).__module__ in {"sqlite3", "socket", "pyrt._native"}


def kill_keeper_at(number: int, case: Case) -> Callable[[Engine], Awaitable[None]]:
    """Every process that the spawner makes from now on, and the spawner, is killed at its N-th system call."""

    async def work(engine: Engine) -> None:
        tracer = subprocess.Popen(  # noqa: ASYNC220 - short
            [
                *("strace", "-f", "-p", str(engine.spawner.pid), "-o", "/dev/null", "-e", "trace=all"),
                *("-e", f"inject=all:signal=SIGKILL:when={number}"),
            ],
            stderr=subprocess.PIPE,
        )
        assert tracer.stderr is not None
        assert b"attached" in tracer.stderr.readline()
        try:
            # The keeper that was ready before is not traced: this one takes it.
            await engine.run("host", ["true"])
            try:
                await case.act(engine)
            except PyrtError:
                pass
            except AssertionError:
                pass  # Its own first process was killed.
        finally:
            tracer.terminate()
            tracer.wait()

    return work


async def check(case: Case, ids: set[str], engine: Engine) -> None:
    await case.after(engine)
    ids |= {record.id for record in engine.containers()}
    await remove_all(engine)
    await engine.settled()
    assert engine.containers() == []
    deadline = trio.current_time() + PATIENCE
    while left := what_is_left(engine, ids):
        assert trio.current_time() < deadline, left
        await trio.sleep(0.01)
    assert engine.journal.leases() == {}
    # And it works when it is repeated.
    await case.before(engine)
    await case.act(engine)
    await remove_all(engine)


def what_is_left(engine: Engine, ids: set[str]) -> list[str]:
    keepers = os.listdir(engine.layout.keepers) if engine.layout.keepers.exists() else []
    return [
        *os.listdir(engine.layout.containers),
        *keepers,
        *(str(path) for id in ids for path in debris.cgroups_of(id)),
    ]


def point(root: str, name: str, victim: str, number: int) -> bool:
    """Whether somebody was killed; raises AssertionError if that made a difference that it must not make."""
    case = CASES[name]
    assert in_child(root, case.before) == 0, "preparing"
    kill = kill_engine_at if victim == "engine" else kill_keeper_at
    status = in_child(root, kill(number, case))
    killed = os.WIFSIGNALED(status) or victim == "keeper"
    assert killed or status == 0, f"{name}: {victim} at {number}: it failed by itself"
    assert in_child(root, partial(check, case, set())) == 0, f"{name}: {victim} killed at call {number}"
    return killed


CALLS: dict[str, dict[str, int]] = {
    "engine": {"run": 95, "detach": 60, "launch": 70, "exec": 70, "stop": 95, "remove": 90},
    "keeper": {"run": 110, "detach": 110, "launch": 110, "exec": 70},
}
"""Calls of the victim's in each verb, a few more than were counted: beyond them nobody is killed any more."""


def every(victim: str) -> list[tuple[str, int]]:
    """All points of one victim."""
    return [(name, number) for name, most in CALLS[victim].items() for number in range(1, most + 1)]


def sample(seed: int, victim: str, count: int) -> list[tuple[str, int]]:
    """Some of them."""
    return random.Random(seed).sample(every(victim), count)


def sweep(root: str, victim: str, points: list[tuple[str, int]]) -> dict[str, int]:
    """Goes through the points; how many there were, and at how many somebody was killed."""
    return {"points": len(points), "killed": sum(point(root, name, victim, number) for name, number in points)}


def main() -> None:
    """ROOT engine|keeper all; or SEED COUNT in the place of all; or VERB NUMBER."""
    root, victim, *rest = sys.argv[1:]
    match rest:
        case ["all"]:
            points = every(victim)
        case [seed, count] if seed.isdecimal():
            points = sample(int(seed), victim, int(count))
        case [name, number]:
            points = [(name, int(number))]
        case _:
            raise SystemExit(main.__doc__)
    print(json.dumps(sweep(root, victim, points)))


if __name__ == "__main__":
    main()
