"""`pyrt.run`: the same without Trio."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import pyrt
from pyrt.errors import CommandNotFound, UsageError

if TYPE_CHECKING:
    from tests.leakcheck import Oracle, State

pytestmark = pytest.mark.root


def test_one_call(state: State, leakcheck: Oracle) -> None:
    done = pyrt.run("host", ["sh", "-c", "cat; exit 2"], stdin=b"in", limits=pyrt.Limits(time=60), env={"A": "1"})
    assert (done.stdout, done.exit_code, done.verdict) == (b"in", 2, pyrt.Verdict.EXITED)


def test_errors_come_as_they_are(state: State, leakcheck: Oracle) -> None:
    with pytest.raises(CommandNotFound):
        pyrt.run("host", ["/no/such/command"])


async def test_in_a_trio_program_it_says_what_to_do(state: State) -> None:
    with pytest.raises(UsageError, match="open_engine"):
        pyrt.run("host", ["true"])
