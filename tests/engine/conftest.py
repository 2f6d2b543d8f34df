"""Engines on the test's own folders, with `leakcheck` around them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from pyrt.engine.engine import Engine, open_engine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from tests.leakcheck import Oracle, State

    OpenEngine = Callable[[], AbstractAsyncContextManager[Engine]]


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
    """An open engine, on whose folder nothing is left when it is closed."""
    async with opened() as engine:
        yield engine
