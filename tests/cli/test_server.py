"""The server among many clients, some of which mean it no good: each concerns itself alone."""

from __future__ import annotations

import array
import os
import signal
import socket
import struct
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from pyrt.cli import VERSION
from pyrt.cli.protocol import PROTOCOL, Call, Kind, encode_call
from tests.cli.desk import Desk, eventually, is_alive

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def frame(kind: int, payload: bytes = b"", descriptors: int = 0) -> bytes:
    return struct.pack("<IHH", len(payload), kind, descriptors) + payload


def send(connection: socket.socket, data: bytes, descriptors: Sequence[int] = ()) -> None:
    control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    connection.sendmsg([data], control)


def call(desk: Desk, *arguments: str, version: str = VERSION) -> bytes:
    environment = tuple(f"{name}={value}" for name, value in desk.environment.items())
    return encode_call(Call(PROTOCOL, version, str(desk.folder), arguments, environment))


def read_all(connection: socket.socket) -> bytes:
    """To the end; a connection that is reset is at its end too."""
    data = b""
    try:
        while piece := connection.recv(65536):
            data += piece
    except ConnectionResetError:
        pass
    return data


def exit_status(data: bytes) -> int:
    """Of the last frame."""
    assert data[-10:-4] == struct.pack("<IH", 2, Kind.EXIT)
    return data[-2]


@pytest.fixture
def served(desk: Desk) -> Desk:
    """With a server that is there."""
    assert desk.run("version").returncode == 0
    return desk


@pytest.fixture
def descriptors() -> Iterator[list[int]]:
    null = os.open("/dev/null", os.O_RDWR)
    yield [null, null, null]
    os.close(null)


# ---- starting and ending ----


def test_twenty_clients_that_find_no_server_start_one(desk: Desk) -> None:
    with ThreadPoolExecutor(20) as pool:
        done = list(pool.map(lambda _: desk.sh("echo $PPID"), range(20)))
    assert [each.returncode for each in done] == [0] * 20
    assert len({each.stdout for each in done}) == 1


def test_a_server_that_can_not_start_says_why_through_the_client(desk: Desk) -> None:
    desk.environment["PYRT_PYTHON"] = str(desk.folder / "nothing")
    done = desk.run("version")
    assert done.returncode == 125
    assert b"No such file" in done.stderr
    python = desk.folder / "python"
    python.write_text("#!/bin/sh\necho 'pyrt: the state folder is full' >&2\nexit 125\n")
    desk.environment["PYRT_PYTHON"] = str(python)
    assert desk.run("version").stderr == b"pyrt: the state folder is full\n"


def test_a_folder_that_is_open_to_others_is_refused(desk: Desk) -> None:
    desk.run_folder.mkdir(mode=0o755)
    done = desk.run("version")
    assert done.returncode == 125
    assert b"is open to others" in done.stderr


def test_folder_and_socket_are_the_users_alone(served: Desk) -> None:
    assert served.run_folder.stat().st_mode & 0o777 == 0o700
    assert served.socket.stat().st_mode & 0o777 == 0o600


def test_a_state_folder_of_its_own_has_a_server_of_its_own(served: Desk) -> None:
    first = served.server()
    served.environment["PYRT_ROOT"] = str(served.folder / "state")
    assert served.run("version").returncode == 0
    assert len(list(served.run_folder.glob("*.sock"))) == 2
    served.environment["PYRT_ROOT"] = ""
    assert served.server() == first


def test_a_server_of_another_version_makes_room_and_does_what_it_has_to_do(served: Desk) -> None:
    old = served.server()
    client = served.popen(
        "run", "-i", "host", "cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert client.stdin
    assert client.stdout
    client.stdin.write(b"before\n")
    client.stdin.flush()
    assert client.stdout.readline() == b"before\n"
    with served.connect() as newer, open("/dev/null") as null:
        send(newer, frame(Kind.CALL, call(served, "version", version="9.9"), 3), [null.fileno()] * 3)
        kind, _ = newer.recv(8 + len(VERSION))[4:6], None
        assert kind == struct.pack("<H", Kind.OTHER)
        send(newer, frame(Kind.DRAIN))
        assert read_all(newer) == b""
    assert not served.socket.exists()
    assert served.run("version").returncode == 0
    assert served.server() != old
    assert client.communicate(b"after\n", timeout=20)[0] == b"after\n"
    assert client.returncode == 0
    eventually(lambda: not is_alive(old))


def test_a_client_of_an_unknown_protocol_is_told_the_version(served: Desk, descriptors: list[int]) -> None:
    with served.connect() as connection:
        send(
            connection, frame(Kind.CALL, struct.pack("<HI", 77, 0) + b"3.0\0what follows is anybody's", 3), descriptors
        )
        assert connection.recv(100) == frame(Kind.OTHER, VERSION.encode())


def test_an_idle_server_ends_itself_and_the_next_client_starts_another(desk: Desk) -> None:
    python = desk.environment["PYRT_PYTHON"]
    server = subprocess.Popen(
        [python, "-m", "pyrt", "serve", "--idle", "0.2"], env=desk.environment, stdout=subprocess.PIPE
    )
    assert server.stdout
    assert b"serves at" in server.stdout.readline()
    assert desk.sh("sleep 0.4").returncode == 0
    assert server.wait(20) == 0
    server.stdout.close()
    assert not desk.socket.exists()
    assert desk.run("version").returncode == 0


def test_two_servers_in_one_folder_are_one_too_many(served: Desk) -> None:
    done = subprocess.run(
        [served.environment["PYRT_PYTHON"], "-m", "pyrt", "serve"],
        env=served.environment,
        capture_output=True,
        timeout=20,
    )
    assert done.returncode == 125
    assert b"a server is already there" in done.stderr


def test_a_socket_that_a_killed_server_left_is_no_obstacle(served: Desk) -> None:
    os.kill(served.server(), signal.SIGKILL)
    assert served.run("version").returncode == 0


def test_the_client_becomes_the_server_when_it_is_asked_to_serve(desk: Desk) -> None:
    server = desk.popen("serve", stdout=subprocess.PIPE)
    assert server.stdout
    assert b"serves at" in server.stdout.readline()
    assert desk.server() == server.pid
    server.terminate()
    assert server.wait(20) == 0
    server.stdout.close()


# ---- those who mean no good ----


GARBAGE = {
    "text": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "zeros": bytes(64),
    "kind of the server": frame(Kind.EXIT, b"\0\0"),
    "unknown kind": frame(999),
    "too long a call": struct.pack("<IHH", 5 << 20, Kind.CALL, 3),
    "too long a signal": struct.pack("<IHH", 1 << 16, Kind.SIGNAL, 0),
    "a signal first": frame(Kind.SIGNAL, b"\x0f"),
    "descriptors that are not there": frame(Kind.CALL, b"", 3),
    "no head": frame(Kind.CALL, b"\1"),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_closes_its_own_connection_and_no_other(served: Desk, name: str) -> None:
    with served.connect() as connection:
        connection.sendall(GARBAGE[name])
        assert read_all(connection) == b""
    assert served.run("version").returncode == 0


def test_calls_that_are_cut_off_or_lie_are_closed(served: Desk, descriptors: list[int]) -> None:
    whole = call(served, "version")
    lies = [whole[:-1], whole[:6], struct.pack("<HI", PROTOCOL, 2**32 - 1) + whole[6:], b"\1\0"]
    for payload in lies:
        with served.connect() as connection:
            send(connection, frame(Kind.CALL, payload, 3), descriptors)
            assert read_all(connection) == b"", payload
    assert served.run("version").returncode == 0


def test_descriptors_are_not_hoarded_by_those_who_send_too_many(served: Desk, descriptors: list[int]) -> None:
    before = _open_descriptors(served.server())
    for _ in range(50):
        with served.connect() as connection:
            send(connection, frame(Kind.CALL, call(served, "version"), 3), descriptors * 3)
            read_all(connection)
        with served.connect() as connection:
            send(connection, b"\0", descriptors)
    eventually(lambda: _open_descriptors(served.server()) <= before)


def _open_descriptors(process: int) -> int:
    return len(os.listdir(f"/proc/{process}/fd"))


def test_garbage_after_a_call_ends_what_was_called(served: Desk, descriptors: list[int]) -> None:
    with served.connect() as connection:
        send(connection, frame(Kind.CALL, call(served, "run", "host", "sleep", "1000"), 3), descriptors)
        assert connection.recv(8)[4:6] == struct.pack("<H", Kind.RELAY)
        connection.sendall(b"garbage, garbage")
        read_all(connection)


def test_a_call_in_single_bytes_is_a_call(served: Desk, descriptors: list[int]) -> None:
    data = frame(Kind.CALL, call(served, "version"), 3)
    with served.connect() as connection:
        send(connection, data[:1], descriptors)
        for place in range(1, len(data)):
            connection.sendall(data[place : place + 1])
        assert exit_status(read_all(connection)) == 0


def test_a_thousand_connections_that_say_nothing_keep_nobody_waiting(served: Desk) -> None:
    before = _open_descriptors(served.server())
    idle = [served.connect() for _ in range(1000)]
    try:
        begun = time.monotonic()
        assert served.sh("echo quick").stdout == b"quick\n"
        assert time.monotonic() - begun < 5
    finally:
        for connection in idle:
            connection.close()
    eventually(lambda: _open_descriptors(served.server()) <= before)


def test_two_hundred_commands_at_once(served: Desk) -> None:
    before = _open_descriptors(served.server())
    clients = [served.popen("run", "host", "echo", str(number), stdout=subprocess.PIPE) for number in range(200)]
    for number, client in enumerate(clients):
        assert client.communicate(timeout=60)[0] == f"{number}\n".encode()
        assert client.returncode == 0
    eventually(lambda: _open_descriptors(served.server()) <= before)


def test_a_stopped_client_with_much_to_be_told_holds_nobody_up(served: Desk) -> None:
    stopped = served.popen("run", "host", "yes", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert stopped.stdout
    stopped.stdout.read(2)
    stopped.send_signal(signal.SIGSTOP)
    with served.connect() as deaf, open("/dev/null") as null:
        # One that is never read: help is longer than nothing, and many of it are longer than a socket holds.
        for _ in range(20):
            assert served.sh("echo on").stdout == b"on\n"
        send(deaf, frame(Kind.CALL, call(served, "completion", "bash"), 3), [null.fileno()] * 3)
        assert served.run("help").returncode == 0
    stopped.kill()
    stopped.wait()
    stopped.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_server_can_be_left_with_one_signal(served: Desk, number: int) -> None:
    server = served.server()
    os.kill(server, signal.SIGSTOP)
    try:
        client = served.popen("version")
        eventually(lambda: _catches_signals(client.pid))
        client.send_signal(number)
        assert client.wait(20) == -number
    finally:
        os.kill(server, signal.SIGCONT)


def test_who_runs_a_command_can_leave_a_stopped_server_as_well(served: Desk) -> None:
    server = served.server()
    script = "trap 'echo hears' TERM; echo ready; while :; do sleep 0.01; done"
    client = served.script(script)
    assert client.stdout
    client.send_signal(signal.SIGTERM)
    # A server that listens has the command decide, and nobody is impatient.
    assert client.stdout.readline() == b"hears\n"
    os.kill(server, signal.SIGSTOP)
    try:
        client.send_signal(signal.SIGTERM)
        assert client.wait(20) == -signal.SIGTERM
    finally:
        os.kill(server, signal.SIGCONT)
    client.stdout.close()


def test_a_server_that_never_answers_is_left_with_one_signal(desk: Desk) -> None:
    """It reads all it is told, and that is all."""
    desk.run_folder.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(desk.socket))
        listener.listen()
        client = desk.popen("version")
        connection, _ = listener.accept()
        with connection:
            assert connection.recv(1 << 20)
            eventually(lambda: _catches_signals(client.pid))
            client.send_signal(signal.SIGTERM)
            assert connection.recv(1 << 20)
            assert client.wait(20) == -signal.SIGTERM
    desk.socket.unlink()


def _catches_signals(process: int) -> bool:
    with open(f"/proc/{process}/status") as file:
        blocked = next(line for line in file if line.startswith("SigBlk"))
    return bool(int(blocked.split()[1], 16) >> (signal.SIGINT - 1) & 1)


def test_secrets_of_the_first_caller_are_not_kept_by_the_server(desk: Desk) -> None:
    desk.environment["AWS_SECRET_ACCESS_KEY"] = "hunter2"
    assert desk.run("version").returncode == 0
    with open(f"/proc/{desk.server()}/environ", "rb") as file:
        assert b"hunter2" not in file.read()


def test_the_server_holds_nothing_of_its_first_caller_open(desk: Desk) -> None:
    reader, writer = os.pipe()
    client = desk.popen("version", stdout=subprocess.DEVNULL, pass_fds=[writer])
    assert client.wait(20) == 0
    os.close(writer)
    assert os.read(reader, 1) == b""
    os.close(reader)


@pytest.mark.root
def test_a_client_that_sees_other_files_is_told_so(desk: Desk) -> None:
    assert desk.run("version").returncode == 0
    unshare = ["unshare", "--mount", "--propagation", "unchanged", str(desk.program), "version"]
    done = subprocess.run(unshare, env=desk.environment, capture_output=True, timeout=20)
    assert done.returncode == 125
    assert b"different mount namespaces" in done.stderr


def test_the_reader_of_a_clients_output_does_not_wait_for_the_server(served: Desk) -> None:
    client = served.popen("images", stdout=subprocess.PIPE)
    eventually((served.run_folder / "waits").exists)
    os.kill(served.server(), signal.SIGSTOP)
    try:
        client.kill()
        assert client.communicate(timeout=20)[0] == b""
    finally:
        os.kill(served.server(), signal.SIGCONT)
