"""A command, a user, a directory or a limit that can't be: a sentence, a hint, Docker's exit status, nothing left."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cli.desk import Desk
from tests.main_job.sentences import said

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

pytestmark = pytest.mark.root

AARCH64 = 183


def _fill(tree: Path) -> None:
    """Everything in /bin that can't be executed."""
    program = (tree / "bin/busybox").read_bytes()
    files = {
        "foreign": program[:18] + AARCH64.to_bytes(2, "little") + program[20:4096],
        "script": b"#!/bin/bash\necho\n",
        "windows-lines": b"#!/bin/sh\r\necho\r\n",
        "text": b"echo hello\n",
        "empty": b"",
        "garbage": b"\0\1\2\3",
        "windows": b"MZ\x90\0",
        "dynamic": _dynamic_program(),
        "plain": b"#!/bin/sh\n",
    }
    for name, content in files.items():
        (tree / "bin" / name).write_bytes(content)
        (tree / "bin" / name).chmod(0o644 if name == "plain" else 0o755)
    (tree / "bin/folder").mkdir()
    (tree / "bin/circle").symlink_to("circle")


def _dynamic_program() -> bytes:
    """The first page of one that asks for a loader, which no image of ours has."""
    with open("/bin/ls", "rb") as file:
        return file.read(4096)


CASES: dict[str, tuple[int, Sequence[str]]] = {
    "nothing-like-it": (127, ("no such command: nothing-like-it", "PATH")),
    "/bin/nowhere": (127, ("no such file: /bin/nowhere",)),
    "/etc": (126, ("exec /etc: it is a directory",)),
    "plain": (126, ("exec /bin/plain: permission denied",)),
    "folder/x": (127, ("no such file: folder/x",)),
    "foreign": (126, ("exec /bin/foreign: a program for aarch64 (arm64)", "--platform")),
    "script": (127, ("the interpreter /bin/bash of this script is not in the image",)),
    "windows-lines": (127, ("the interpreter /bin/sh of this script", "carriage return")),
    "dynamic": (127, ("the loader /lib", "of this program is not in the image")),
    "text": (126, ("text without a #! line", "sh /bin/text")),
    "empty": (126, ("the file is empty",)),
    "garbage": (126, ("not a program that this kernel knows",)),
    "windows": (126, ("a Windows program",)),
    "circle": (126, ("symbolic links go in a circle",)),
    "ls -l": (127, ("no such command: ls -l", "words of their own")),
    "-it": (127, ("no such command: -it", "before the image's name")),
    "": (125, ("the command is empty",)),
}


def test_what_can_t_be_executed(pyrt: Desk, tree: Path) -> None:
    _fill(tree)
    pyrt.ok("import", str(tree), "odd")
    for command, (code, words) in CASES.items():
        said(pyrt.run("run", "--rm", "odd", "--", command), code, *words)
    said(pyrt.run("run", "--rm", "odd"), 125, "no command to run", "after the image's name")
    pyrt.ok("run", "--rm", "odd", "true")
    assert pyrt.ok("ps", "-aq") == ""


def test_users_and_directories_that_are_not_there(box: Desk) -> None:
    run = ("run", "--rm")
    said(box.run(*run, "-u", "nobody-here", "box", "true"), 125, "no user 'nobody-here' in the image", "a number")
    said(box.run(*run, "-u", "1:nothing", "box", "true"), 125, "no group 'nothing' in the image")
    said(box.run(*run, "-u", "99999999999", "box", "true"), 125, "is no user id")
    said(box.run(*run, "-w", "/etc/passwd", "box", "true"), 125, "not a directory", "is a file in this image")
    said(box.run(*run, "-w", "/etc/passwd/x", "box", "true"), 125, "not a directory")
    said(box.run(*run, "-w", "../up", "box", "true"), 125, "working directory")
    assert box.ok("ps", "-aq") == ""


LIMITS = {
    "-m": ("12x", "-2", "", "1.5.2m", "99999999999g", "nan"),
    "--memory-swap": ("x", "-2"),
    "--pids-limit": ("many", "-2", "1.5", "99999999999"),
    "--cpus": ("fast", "0", "-1", "nan", "inf", "1000", "0.0001"),
    "--cpuset-cpus": ("x", "3-1", "9999"),
    "--cpu-shares": ("x", "-1"),
    "--ulimit": ("nofile", "nothing=1", "nofile=9:1"),
    "--timeout": ("soon", "-1s"),
    "--shm-size": ("x",),
    "--oom-score-adj": ("5000",),
}


def test_limits_that_are_malformed_or_out_of_reach(box: Desk) -> None:
    for option, values in LIMITS.items():
        for value in values:
            said(box.run("run", "--rm", f"{option}={value}", "box", "true"), 125)
    for size in ("1", "1k", "512k"):
        said(box.run("run", "--rm", "-m", size, "box", "true"), 125, "too small to start", "the least is")
    # The least that is allowed is enough to start in.
    least = box.run("run", "--rm", "-m", "1", "box", "true").stderr.decode().split()[-1]
    box.ok("run", "--rm", "-m", least, "box", "true")
    assert box.ok("ps", "-aq") == ""
