"""Anybody in the chain killed at any call, any call refused: all is as before or as after, and nothing is left."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.durable.tracer import ERRORS

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.root


@pytest.mark.parametrize(
    ("errors", "verbs", "count"), [(("",), 3, 15), (ERRORS, 2, 8)], ids=["killed", "refused by disk, memory, limits"]
)
def test_anywhere(tmp_path: Path, errors: tuple[str, ...], verbs: int, count: int) -> None:
    """A sample; `make soak` takes every point. PYRT_SEED repeats one."""
    seed = os.environ.get("PYRT_SEED") or str(secrets.randbelow(1 << 32))
    print(f"PYRT_SEED={seed}")
    folder = tmp_path / "sweep"
    folder.mkdir()
    command = [sys.executable, "-m", "tests.durable.sweep", str(folder), "--seed", seed]
    command += [
        "--verbs",
        str(verbs),
        "--sample",
        str(count),
        *(word for error in errors for word in ("--error", error)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"PYRT_SEED={seed}: {done.stderr[-4000:]}"
    found = json.loads(done.stdout)
    assert found["survived"] == found["points"], f"PYRT_SEED={seed}: {done.stderr[-4000:]}"
    assert found["points"] > count // 2
