"""pyrt as systemd starts it: on a socket that was there before, in units that `pyrt system install` writes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pyrt.cli import units
from pyrt.cli.place import Place
from pyrt.cli.units import SERVICE, SOCKET
from pyrt.errors import HostError
from tests.cli.desk import eventually, is_alive

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli.desk import Desk


@pytest.fixture
def listener(desk: Desk) -> Iterator[socket.socket]:
    """What systemd has made before anybody is there to accept."""
    desk.run_folder.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(desk.socket))
        listener.listen()
        yield listener
    desk.socket.unlink(missing_ok=True)


def serve(desk: Desk, listener: socket.socket, **environment: str) -> subprocess.Popen[bytes]:
    """A server that is given the socket as descriptor 3, as sd_listen_fds(3) has it."""
    return desk.popen(
        command=["sh", "-c", 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" serve', str(desk.program)],
        executable="/bin/sh",
        env={**desk.environment, **environment},
        preexec_fn=lambda: os.dup2(listener.fileno(), 3),
        close_fds=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def ended(server: subprocess.Popen[bytes]) -> bytes:
    """Ends it as systemd does; returns what it has said of what went wrong."""
    server.terminate()
    _, said = server.communicate(timeout=20)
    return said


def test_clients_that_came_before_the_server_are_served(desk: Desk, listener: socket.socket) -> None:
    early = desk.popen("version", stdout=subprocess.PIPE)
    eventually(lambda: f"/proc/{early.pid}/fd" and len(os.listdir(f"/proc/{early.pid}/fd")) > 3)
    server = serve(desk, listener)
    said, _ = early.communicate(timeout=20)
    assert early.returncode == 0
    assert said.startswith(b"pyrt ")
    assert desk.server() == server.pid
    # Who joins a container later is not to be told of a socket that is not theirs.
    assert desk.sh("echo $LISTEN_FDS$LISTEN_PID").stdout == b"\n"
    assert ended(server) == b""
    assert desk.socket.exists(), "its name is systemd's"
    assert server.returncode == 0
    again = serve(desk, listener)
    assert desk.run("version").returncode == 0
    ended(again)


def test_it_says_when_it_is_ready(desk: Desk, listener: socket.socket) -> None:
    path = str(desk.folder / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(path)
        told.settimeout(20)
        server = serve(desk, listener, NOTIFY_SOCKET=path)
        assert told.recv(100) == b"READY=1"
        ended(server)


def test_a_socket_that_no_client_looks_for_is_refused(desk: Desk, listener: socket.socket) -> None:
    server = serve(desk, listener, PYRT_ROOT="/somewhere/else")
    _, said = server.communicate(timeout=20)
    assert server.returncode == 125
    assert f"was started with {desk.socket}, where its clients look for" in said.decode()


def test_a_server_of_another_version_gives_the_name_up(desk: Desk, listener: socket.socket) -> None:
    """Systemd would not start another beside it: the new client does."""
    server = serve(desk, listener)
    assert desk.run("version").returncode == 0
    with desk.connect() as connection:
        connection.sendall(bytes([0, 0, 0, 0, 2, 0, 0, 0]))
        assert connection.recv(1) == b""
    eventually(lambda: server.poll() is not None)
    server.communicate()
    assert not desk.socket.exists()
    assert desk.run("version").returncode == 0
    assert desk.server() != server.pid


def test_systemd_s_own_tool_starts_it(desk: Desk) -> None:
    desk.run_folder.mkdir(mode=0o700)
    tool = ["systemd-socket-activate", "-l", str(desk.socket), "-E", "PYRT_RUN", "-E", "PYRT_PYTHON", "-E", "PYRT_ROOT"]
    with desk.popen(
        command=[*tool, str(desk.program), "serve"], executable=tool[0], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as server:
        eventually(desk.socket.exists)
        assert desk.run("version").returncode == 0
        assert desk.server() == server.pid
        server.terminate()
        server.communicate(timeout=20)
    desk.socket.unlink()


def test_a_server_that_somebody_started_keeps_nobody_else_s_socket(desk: Desk) -> None:
    assert desk.run("version").returncode == 0
    server = desk.server()
    desk.socket.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(desk.socket))
        os.kill(server, signal.SIGTERM)
        eventually(lambda: not is_alive(server))
        assert desk.socket.exists()
    desk.socket.unlink()


# ---- the units ----


def test_units_are_written_once_and_taken_away(desk: Desk) -> None:
    root = desk.folder / "image"
    folder = root / "etc/systemd/system"
    said = desk.run("system", "install", "--root", "image").stdout.decode().splitlines()
    links = ["sockets.target.wants/pyrt.socket", "multi-user.target.wants/pyrt.service"]
    assert said == [str(folder / name) for name in (SOCKET, SERVICE, *links)]
    assert os.readlink(folder / links[0]) == "/etc/systemd/system/pyrt.socket"
    assert f"ListenStream={desk.socket}" in (folder / SOCKET).read_text()
    assert desk.run("system", "install", "--root", "image").stdout == b"everything is there already\n"
    assert desk.run("system", "uninstall", "--root", "image").stdout.decode().splitlines() == said
    assert [path for path in root.rglob("*") if not path.is_dir()] == []
    assert desk.run("system", "uninstall", "--root", "image").stdout == b"nothing is installed there\n"


def test_what_is_printed_is_what_is_written(desk: Desk) -> None:
    printed = desk.run("system", "install", "--print").stdout.decode()
    desk.run("system", "install", "--root", str(desk.folder))
    for name in (SOCKET, SERVICE):
        assert (desk.folder / "etc/systemd/system" / name).read_text() in printed


@pytest.mark.parametrize("root", ["", "/srv/a state of 100%"])
def test_systemd_finds_nothing_wrong_with_them(tmp_path: Path, root: str) -> None:
    environment = {"PYRT_ROOT": root, "PYRT_RUN": "/run/pyrt"}
    for name, text in units.units(Place.find(environment), environment).items():
        (tmp_path / name).write_text(text)
    paths = [str(tmp_path / name) for name in (SOCKET, SERVICE)]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *paths], capture_output=True, text=True, check=False
    )
    assert [line for line in done.stderr.splitlines() if "pyrt" in line] == []
    assert done.returncode == 0, done.stderr
    assert f"ExecStart={sys.executable}" in (tmp_path / SERVICE).read_text()


def test_a_machine_without_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "_RUNNING", tmp_path / "nothing")
    with pytest.raises(HostError, match="was not started by systemd") as raised:
        units.require_systemd()
    assert "pyrt serve --idle 0" in str(raised.value.hint)
