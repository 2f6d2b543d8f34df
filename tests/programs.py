"""Programs with an engine of their own, to be killed, and who is whose parent."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.leakcheck import State


@contextmanager
def program(state: State, code: str, *arguments: str, stdin: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A program that has said that it is ready; its first arguments are the state's folders. Killed at the end."""
    command = [sys.executable, "-c", code, str(state.root), str(state.run), *arguments]
    with subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        try:
            yield process
        finally:
            process.kill()


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
