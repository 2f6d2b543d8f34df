"""Any number of processes on one store at once, real ones."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from pyrt.images.store import Store
from tests.images.making import assert_sound, debris

if TYPE_CHECKING:
    from pathlib import Path


def run_at_once(*arguments: list[str]) -> None:
    """Run the worker so many times at once; all must succeed."""
    workers = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "tests.images.race_worker", *each],
            stderr=subprocess.PIPE,
            text=True,
        )
        for each in arguments
    ]
    errors = [worker.communicate(timeout=120)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * len(workers), "\n".join(errors)


def test_all_create_the_store_and_add_the_same_image(tmp_path: Path) -> None:
    root = tmp_path / "state"
    run_at_once(*[["same", str(root)]] * 6)
    with Store.open(root) as store:
        assert len(store.find("same").layers) == 6
        assert_sound(store)
    assert debris(root) == []


def test_adding_removing_and_pruning_at_random(tmp_path: Path) -> None:
    root = tmp_path / "state"
    run_at_once(*[["churn", str(root), str(seed)] for seed in range(5)])
    with Store.open(root) as store:
        assert_sound(store)
        store.prune()
        assert debris(root) == []
        store.prune(all=True)
        assert store.list() == []
        assert store.usage().size == 0
    assert debris(root) == []
