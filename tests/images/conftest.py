"""A store of its own for every test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pyrt.images.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "state") as store:
        yield store
