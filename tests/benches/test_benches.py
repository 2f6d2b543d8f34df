"""Each bench runs, cleans up, and writes what can be read. No time is judged."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from benches.__main__ import BENCHES

from pyrt.bench import results
from tests.foreign import REPOSITORY

# In a row of these the figures are other than "ready" or "whole".
OTHER_FIGURES = {
    "throughput": {"rate"},
    "events": {"written", "rate"},
    "memory": {"keeper", "engine", "charged", "machine", "in all"},
    "runtime": {"ready", "whole", "create", "start", "delete", "resident", "proportional"},
    "waterfall": {"begun", "done", "took"},
}
PICTURES = {"startup", "throughput", "slopes", "waterfall"}


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.parametrize("bench", BENCHES)
def test_a_bench_writes_valid_results(bench: str, tmp_path: Path) -> None:
    """With three samples of each case; what is not installed is a row with a reason."""
    words = [sys.executable, "-m", "benches", bench, "--quick", "--out", str(tmp_path / "out")]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    found = results.read(tmp_path / "out" / f"{bench}.json")
    assert found.bench == bench
    assert found.machine.kernel == os.uname().release
    assert found.runs
    for run in found.runs:
        check_run(run, OTHER_FIGURES.get(bench, {"ready", "whole", "gone"}))
    if bench in PICTURES:
        assert (tmp_path / "out" / f"{bench}.svg").read_text().startswith("<?xml")
        assert (tmp_path / "out" / f"{bench}.png").read_bytes().startswith(b"\x89PNG")


def check_run(run: results.Run, figures: set[str]) -> None:
    """Every row has samples or a reason; pyrt's own rows have samples."""
    for row in run.rows:
        assert bool(row.samples) != bool(row.failure), row
        assert {*row.samples} <= figures, row
        for name, values in row.samples.items():
            assert len(values) == row.summary[name].count == 3 - row.misses
        if "pyrt" in row.case:
            assert not row.failure, row
