"""The disk refuses: each call that changes something fails once, by strace; a sentence, and nothing half done."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pyrt.images.store import Store
from tests.images.fault_worker import BASE, NEW, REFUSED, TOP
from tests.images.making import add, assert_sound, debris

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.root


def run_with_fault(
    root: Path, trace: Path, call: str, error: str, number: int
) -> tuple[bool, subprocess.CompletedProcess[str]]:
    """Whether the fault came to pass, and what the worker then did."""
    fault = ["-e", f"trace={call}", "-e", f"inject={call}:error={error}:when={number}"]
    worker = [sys.executable, "-B", "-m", "tests.images.fault_worker", str(root)]
    done = subprocess.run(
        ["strace", "-f", "-qq", "-o", str(trace), *fault, *worker], capture_output=True, text=True, timeout=120
    )
    return "(INJECTED)" in trace.read_text(), done


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("fsync", "EIO"),
        ("fdatasync", "EIO"),
        ("syncfs", "EIO"),
        ("renameat", "ENOSPC"),
        ("mkdirat", "ENOSPC"),
        ("ftruncate", "EIO"),
        ("pwrite64", "ENOSPC"),
    ],
)
def test_refused_once(tmp_path: Path, call: str, error: str) -> None:
    root = tmp_path / "state"
    number = 1
    while True:
        with Store.open(root) as store:
            add(store, BASE, name="kept")
            add(store, TOP, name="old")
        came, done = run_with_fault(root, tmp_path / "trace", call, error, number)
        if not came:
            break
        assert done.returncode in (0, REFUSED), done.stderr
        assert done.returncode == 0 or "can't" in done.stdout
        with Store.open(root) as store:
            assert_sound(store)
            assert store.find("kept")
            add(store, BASE, NEW, name="new")
            assert_sound(store)
            store.remove("new")
            store.prune()
        assert debris(root) == [], (call, number)
        number += 1
    assert done.returncode == 0, done.stderr
    assert number > 1
