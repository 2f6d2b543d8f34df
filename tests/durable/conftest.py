"""Containers that outlive their engines, and what a test needs to end them."""

from __future__ import annotations

import subprocess
import sys
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from pyrt.engine.engine import Engine, open_engine
from pyrt.runtime.options import RunOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from contextlib import AbstractAsyncContextManager

    from tests.leakcheck import Oracle, State

    OpenEngine = Callable[[], AbstractAsyncContextManager[Engine]]

PATIENCE = 20


@pytest.fixture
def opened(state: State, leakcheck: Oracle) -> OpenEngine:
    """Opens an engine; several may be open at once."""

    @asynccontextmanager
    async def open_one() -> AsyncIterator[Engine]:
        async with open_engine(state.root, run_dir=state.run) as engine:
            yield engine

    return open_one


@pytest.fixture
async def engine(opened: OpenEngine) -> AsyncIterator[Engine]:
    """An open engine; what it has detached is removed when the test is over."""
    async with opened() as engine:
        yield engine
        await remove_all(engine)


async def remove_all(engine: Engine) -> None:
    """Removes every container, whatever it does."""
    with trio.fail_after(PATIENCE):
        for record in engine.containers():
            await engine.remove(record.id, force=True)


def shell(script: str, **options: object) -> RunOptions:
    """The options of a container on this machine's files that runs a script."""
    return RunOptions(command=("sh", "-c", script), **options)  # type: ignore[arg-type]


def logged(engine: Engine, container: str, stream: str = "stdout") -> bytes:
    """What a container has written, put together from the lines of its log files."""
    folder = Path(engine.layout.folder(container))
    text = b""
    for name in sorted((path.name for path in folder.glob("log*")), key=_age, reverse=True):
        for line in (folder / name).read_bytes().splitlines(keepends=True):
            _, source, flag, rest = line.split(b" ", 3)
            if source.decode() == stream:
                text += rest if flag == b"F" else rest[:-1]
    return text


def log_files(engine: Engine, container: str) -> dict[str, int]:
    """The sizes of a container's log files."""
    return {path.name: path.stat().st_size for path in sorted(Path(engine.layout.folder(container)).glob("log*"))}


def _age(name: str) -> int:
    return int(name.partition(".")[2] or 0)


@contextmanager
def program(state: State, code: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program with an engine of its own that has said that it is ready."""
    command = [sys.executable, "-c", code, str(state.root), str(state.run), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        try:
            yield process
        finally:
            process.kill()


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
