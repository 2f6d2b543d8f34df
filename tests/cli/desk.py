"""What a person has in front of them: a command, a terminal, and a server somewhere behind."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import socket as socket_module
import struct
import subprocess
import termios
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PATIENCE = 20.0
"""Seconds until a test gives something up: long, for machines under load; nothing waits so long that goes right."""


def eventually(condition: Callable[[], Any]) -> Any:
    """Waits until ``condition`` is true; returns what it returned."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, "it has not come true"
        time.sleep(0.005)
    return found


class Desk:
    """One user. ``run`` is what they type."""

    def __init__(self, program: Path, folder: Path, run_folder: Path, environment: dict[str, str]) -> None:
        self.program = program
        self.folder = folder
        self.run_folder = run_folder
        self.environment = {**os.environ, "PYRT_RUN": str(run_folder), **environment}

    @property
    def socket(self) -> Path:
        return self.run_folder / "pyrt.sock"

    def command(self, *arguments: str | bytes) -> list[str | bytes]:
        return ["pyrt", *arguments]

    def popen(self, *arguments: str | bytes, **options: Any) -> subprocess.Popen[bytes]:
        """The client, running."""
        options = {"env": self.environment, "cwd": self.folder, "executable": self.program, **options}
        return subprocess.Popen(options.pop("command", None) or self.command(*arguments), **options)

    def script(self, script: str, **options: Any) -> subprocess.Popen[bytes]:
        """The client of a container whose shell runs a script, which has begun by saying ``ready``."""
        client = self.popen("run", "host", "sh", "-c", script, stdout=subprocess.PIPE, **options)
        assert client.stdout
        assert client.stdout.readline() == b"ready\n"
        return client

    def run(self, *arguments: str | bytes, **options: Any) -> subprocess.CompletedProcess[bytes]:
        """The client, to its end, with its output."""
        options.setdefault("stdin", subprocess.DEVNULL)
        options = {"capture_output": True, "timeout": PATIENCE, "env": self.environment, "cwd": self.folder, **options}
        if "input" in options:
            del options["stdin"]
        return subprocess.run(self.command(*arguments), executable=self.program, **options)

    def sh(self, script: str, *options: str, **more: Any) -> subprocess.CompletedProcess[bytes]:
        """A shell script in a container."""
        return self.run("run", *options, "host", "--", "sh", "-c", script, **more)

    def terminal(self, *arguments: str, rows: int = 24, columns: int = 80) -> Terminal:
        """The client on a terminal of its own."""
        return Terminal(self, arguments, rows, columns)

    def shell(self) -> Terminal:
        """An interactive bash, whose jobs can be stopped, with the client as `pyrt` on its path."""
        bin = self.folder / "bin"
        bin.mkdir()
        (bin / "pyrt").symlink_to(self.program)
        environment = {**self.environment, "PATH": f"{bin}:{os.environ['PATH']}", "PS1": "bash>", "TERM": "dumb"}
        shell = Terminal(self, (), 24, 80, executable="/bin/bash", command=["bash", "--norc", "-i"], env=environment)
        shell.expect("bash>")
        return shell

    def connect(self) -> socket_module.socket:
        """A connection to the server, without the client's manners."""
        connection = socket_module.socket(socket_module.AF_UNIX)
        connection.settimeout(PATIENCE)
        connection.connect(str(self.socket))
        return connection

    def server(self) -> int:
        """The server's process."""
        return int((self.run_folder / "pyrt.lock").read_text())

    def socket_of_any(self) -> bool:
        """Whether a server listens, whatever its state folder."""
        return any(self.run_folder.glob("*.sock"))

    def ok(self, *arguments: str | bytes, **options: Any) -> str:
        """What the client prints, if nothing goes wrong."""
        done = self.run(*arguments, **options)
        assert done.returncode == 0, done
        return str(done.stdout.decode())

    def close(self) -> None:
        """Ends the server, and sees that it has gone and left nothing."""
        for lock in self.run_folder.glob("*.lock") if self.run_folder.exists() else ():
            process = int(lock.read_text() or 0)
            if process and _is_locked(lock):
                os.kill(process, signal.SIGCONT)
                os.kill(process, signal.SIGTERM)
                eventually(partial(_has_ended, process, lock))
        if self.run_folder.exists():
            assert not list(self.run_folder.glob("*.sock"))
            # Files to lock are kept: to remove one is to have somebody lock what nobody else will find.
            for lasting in [*self.run_folder.glob("*.lock"), *self.run_folder.glob("*.start")]:
                lasting.unlink()


def interrupt(process: subprocess.Popen[bytes]) -> None:
    """Sends SIGINT and waits until it is taken: two that wait at once are one."""
    process.send_signal(signal.SIGINT)
    eventually(lambda: process.poll() is not None or not _pending(process.pid))


def _pending(process: int) -> bool:
    with open(f"/proc/{process}/status") as file:
        lines = dict(line.rstrip().partition(":\t")[::2] for line in file)
    return bool(int(lines["SigPnd"], 16) | int(lines["ShdPnd"], 16))


def is_alive(process: int) -> bool:
    """Whether it runs; one that nobody has reaped yet does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False  # Gone before, or while it was read.


def _has_ended(process: int, lock: Path) -> bool:
    return not _is_locked(lock) and not is_alive(process)


def _is_locked(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


class Terminal:
    """A pseudo terminal with the client as its foreground job; what we hold is the person's side."""

    def __init__(self, desk: Desk, arguments: Sequence[str], rows: int, columns: int, **options: Any) -> None:
        self.master, slave = pty.openpty()
        self.resize(rows, columns)
        self.usual_mode = termios.tcgetattr(slave)
        self.slave = slave

        def own_terminal() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = desk.popen(
            *arguments,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=own_terminal,
            **options,
        )
        self.shown = b""
        self._seen = 0

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)
        if self.slave >= 0:
            os.close(self.slave)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: str | bytes) -> None:
        os.write(self.master, keys.encode() if isinstance(keys, str) else keys)

    def expect(self, text: str) -> None:
        """Reads until ``text`` is shown, after what was expected before."""
        wanted = text.encode()
        deadline = time.monotonic() + PATIENCE
        while (place := self.shown.find(wanted, self._seen)) < 0:
            assert time.monotonic() < deadline, f"{text!r} is not shown, but {self.shown[self._seen :]!r}"
            self._read(0.05)
        self._seen = place + len(wanted)

    def wait(self) -> int:
        """The client's exit status, read to the end of what it shows."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"it does not end; it shows {self.shown!r}"
            self._read(0.02)
        while self._read(0.0):
            pass
        return self.process.returncode

    def mode(self) -> list[Any]:
        return termios.tcgetattr(self.slave)

    def is_raw(self) -> bool:
        return not self.mode()[3] & termios.ICANON

    def _read(self, patience: float) -> bool:
        ready, _, _ = select.select([self.master], [], [], patience)
        if ready:
            self.shown += os.read(self.master, 65536)
        return bool(ready)
