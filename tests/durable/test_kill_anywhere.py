"""SIGKILL at any call of anybody in the chain: a container is as it was or as it is to be, and nothing is left."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.leakcheck import State

pytestmark = pytest.mark.root


@pytest.mark.parametrize(("victim", "count"), [("engine", 36), ("keeper", 12)])
def test_killed_anywhere(state: State, leakcheck: object, victim: str, count: int) -> None:
    """A sample; `make soak` takes every point. PYRT_SEED repeats one."""
    seed = int(os.environ.get("PYRT_SEED", secrets.randbelow(1 << 32)))
    print(f"PYRT_SEED={seed}")
    done = subprocess.run(
        [sys.executable, "-m", "tests.durable.kill_sweep", str(state.root), victim, str(seed), str(count)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"PYRT_SEED={seed}: {done.stderr[-4000:]}"
    found = json.loads(done.stdout)
    assert found["points"] == count
    assert found["killed"] > count // 2
