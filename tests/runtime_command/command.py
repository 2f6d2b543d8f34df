"""Calling an OCI runtime, and bundles that say what they run."""

from __future__ import annotations

import json
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.leakcheck import Oracle

# One start on a busy machine of two cores takes a fraction of it.
PATIENCE = 30.0
DEVICES = [
    ("/proc", "proc", ["nosuid", "noexec", "nodev"]),
    ("/dev", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
    ("/dev/pts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
    ("/sys", "sysfs", ["nosuid", "noexec", "nodev", "ro"]),
]


class Answer(NamedTuple):
    """What one call has said."""

    code: int
    output: str
    error: str


class Bundle:
    """A folder with a config.json; `config` may be changed until it is written."""

    def __init__(self, path: Path, rootfs: Path) -> None:
        self.path = path
        self.path.mkdir()
        self.config: dict[str, Any] = {
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": 0, "gid": 0},
                "args": ["/bin/true"],
                "env": ["PATH=/bin", "HOME=/root"],
                "cwd": "/",
                "noNewPrivileges": True,
            },
            "root": {"path": str(rootfs), "readonly": True},
            "mounts": [
                {"destination": place, "type": kind, "source": kind, "options": options}
                for place, kind, options in DEVICES
            ],
            "linux": {"namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup")]},
        }
        self.write()

    def write(self) -> None:
        """Writes config.json."""
        (self.path / "config.json").write_text(json.dumps(self.config))

    def read(self) -> None:
        """Reads config.json as somebody else has written it."""
        self.config = json.loads((self.path / "config.json").read_text())

    def runs(self, *words: str) -> None:
        """The command becomes this one, and the file is written."""
        self.config["process"]["args"] = list(words)
        self.write()

    def shell(self, script: str) -> None:
        """The command becomes a shell with this script."""
        self.runs("/bin/sh", "-c", script)

    def set(self, field: str, value: object) -> None:
        """Sets a field by its JSON path ("linux.seccomp"), and writes the file."""
        *parents, last = field.split(".")
        place = self.config
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
        self.write()


class Runtime:
    """One OCI runtime with one state directory."""

    def __init__(self, command: list[str], root: Path, oracle: Oracle) -> None:
        self.command = command
        self.root = root
        self.oracle = oracle

    def call(self, *words: str | Path, text: str | None = None, env: Mapping[str, str] | None = None) -> Answer:
        """Runs a verb to its end."""
        line = [*self.command, "--root", str(self.root), *map(str, words)]
        # A created container holds the ends of pipes for as long as it lives: files have no such end. It may empty its
        # own, so each call has others.
        with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as error:
            done = subprocess.run(
                line, input=text, stdout=output, stderr=error, text=True, check=False, timeout=PATIENCE, env=env
            )
            output.seek(0)
            error.seek(0)
            return Answer(done.returncode, output.read(), error.read())

    def ok(self, *words: str | Path, text: str | None = None) -> str:
        """The same, and it succeeds; returns what it has printed."""
        answer = self.call(*words, text=text)
        assert answer.code == 0, f"{words}: {answer.error}"
        return answer.output

    def fails(self, *words: str | Path) -> str:
        """The same, and it fails as runc does (`exec` has a code of its own), with one line, which is returned."""
        answer = self.call(*words)
        assert answer.code == (255 if words[0] == "exec" else 1), f"{words}: {answer}"
        (line,) = answer.error.splitlines()
        return line.removeprefix("pyrt-runtime: ")

    def create_on_terminal(self, bundle: Bundle, name: str, console: Path) -> int:
        """Creates a container with a terminal; returns the master, which comes over a socket made at `console`."""
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(console))
            listener.listen()
            self.ok("create", "--bundle", bundle.path, "--console-socket", console, name)
            connection, _ = listener.accept()
            with connection:
                _, (master,), _, _ = socket.recv_fds(connection, 4096, 1)
        return master

    def state(self, name: str) -> dict[str, Any]:
        """The document of `state`."""
        document: dict[str, Any] = json.loads(self.ok("state", name))
        return document
