"""The examples do what they say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.leakcheck import State

pytestmark = pytest.mark.root

EXAMPLES = Path(__file__).parents[2] / "examples"


def output_of(example: str, *arguments: str) -> str:
    command = [sys.executable, "-W", "error", str(EXAMPLES / example), *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=60).stdout


def test_run(state: State) -> None:
    answers, complains, endless, hungry = output_of("run.py").splitlines()
    assert "exited" in answers
    assert "you said: hello" in answers
    assert "exit code   3" in complains
    assert "timed out" in endless
    assert "out of memory" in hungry or "timed out" in hungry


def test_conversation(state: State) -> None:
    text = output_of("conversation.py")
    assert "it says b'hello\\n'" in text
    assert "'parrot'" in text
    assert "it ended: ExitStatus(verdict=<Verdict.EXITED" in text


def test_many(state: State) -> None:
    text = output_of("many.py")
    assert "42: found" in text
    assert "all gone" in text


def test_events(state: State) -> None:
    text = output_of("events.py", "0")
    assert "ended: exited, exit code 3" in text
    assert text.splitlines()[-1] == "go on with: python examples/events.py 4"
    assert output_of("events.py", "4").splitlines()[-1] == "go on with: python examples/events.py 8"


def test_blocking(state: State) -> None:
    assert "hello from box - exited" in output_of("blocking.py")
