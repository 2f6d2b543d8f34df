"""Engines on the test's own folders, with `leakcheck` around them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pyrt.engine.engine import Engine
    from tests.conftest import OpenEngine


@pytest.fixture
async def engine(opened: OpenEngine) -> AsyncIterator[Engine]:
    """An open engine, on whose folder nothing is left when it is closed."""
    async with opened() as engine:
        yield engine
