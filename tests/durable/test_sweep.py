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


@pytest.mark.parametrize(("errors", "verbs", "count"), [(("",), 3, 15), (ERRORS, 2, 8)], ids=["killed", "refused"])
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
    # Into files: whoever hangs must not keep a pipe open for which this test would wait.
    output, error = tmp_path / "output", tmp_path / "error"
    with open(output, "wb") as into, open(error, "wb") as aside:
        code = subprocess.run(command, stdout=into, stderr=aside, timeout=240, check=False).returncode
    said = f"PYRT_SEED={seed}: {error.read_text()[-4000:]}"
    assert code == 0, said
    found = json.loads(output.read_text())
    assert found["survived"] == found["points"], said
    assert found["points"] > count // 2, said
