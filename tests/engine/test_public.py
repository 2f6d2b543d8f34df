"""`import pyrt` is cheap, and every name in it is there for people and for type checkers alike."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import pyrt


def declared() -> dict[str, str]:
    """What the module declares to type checkers: name and home."""
    tree = ast.parse(Path(pyrt.__file__).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    return {alias.name: node.module or "" for node in imports for alias in node.names if alias.asname == alias.name}


def test_what_is_declared_is_what_is_there() -> None:
    assert declared() == pyrt._HOME_OF


@pytest.mark.parametrize("name", sorted(pyrt._HOME_OF))
def test_every_name_can_be_had(name: str) -> None:
    assert getattr(pyrt, name) is not None
    assert name in dir(pyrt)


def test_what_is_not_there_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        pyrt.nonsense  # type: ignore[attr-defined]  # noqa: B018


def test_the_import_brings_nothing_along() -> None:
    code = "import sys; before = set(sys.modules); import pyrt; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= {"pyrt", "__future__"}


def test_a_start_brings_along_no_more_than_it_needs() -> None:
    code = "import sys, pyrt; pyrt.open_engine; pyrt.run; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"httpx2", "rich", "pyroute2", "asyncio", "argparse", "pydantic", "dataclasses", "http.client"}
    assert not heavy & set(done.stdout.split()) - {"dataclasses"}
