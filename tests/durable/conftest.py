"""Containers that outlive their engines, and what a test needs to end them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from pyrt.engine.engine import Engine
from pyrt.runtime.options import RunOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.conftest import OpenEngine

PATIENCE = 20


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
