"""Work in threads, on a machine that has none left."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pyrt.threads import in_thread

# In a program of its own: here a thread may be idle that would do.
REFUSED = """
import threading, trio
from pyrt.errors import HostError
from pyrt.threads import in_thread, wanted

def refuse(*_):
    raise RuntimeError("can't start new thread")  # as CPython says where clone3 gives ENOMEM or EAGAIN

threading._start_new_thread = refuse
try:
    trio.run(in_thread, print, "never")
except HostError as error:
    print(error)

async def in_process():
    with wanted():
        await trio.run_process(["true"])

try:
    trio.run(in_process)
except HostError as error:
    print(error)
"""


def test_a_thread_that_can_not_be_started_is_told_in_a_sentence() -> None:
    done = subprocess.run([sys.executable, "-c", REFUSED], capture_output=True, text=True, check=True)
    assert [line.partition(" (")[0] for line in done.stdout.splitlines()] == ["no thread can be started"] * 2


async def test_what_the_work_raises_is_its_own() -> None:
    def fail() -> None:
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        await in_thread(fail)
    assert await in_thread(str, 7) == "7"
