"""What a new user would try: a web server, detached, with a restart policy and a health check, and a server that dies.

It listens on loopback of its own network namespace, which its client joins: nothing of the host is used.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import client_program, pyrt  # noqa: F401  fixtures, by their names
from tests.cli.desk import Desk, eventually
from tests.cli.test_detached import kill_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.foreign import Layout

pytestmark = pytest.mark.root

PORT = 8080
SERVE = f"mkdir -p /www; echo well > /www/index.html; exec httpd -f -vv -p 127.0.0.1:{PORT} -h /www"
HEALTH = ("--health-cmd", f"wget -q -O - http://127.0.0.1:{PORT}/", "--health-interval", "100ms")

# Asks until its input is closed; tells how it fared.
ASKS = """
import http.client, sys, threading, time
over = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
asked = failed = 0
while not over.is_set():
    asked += 1
    try:
        connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=20)
        connection.request("GET", f"/?{asked}")
        assert connection.getresponse().read() == b"well\\n"
    except (OSError, AssertionError, http.client.HTTPException):
        failed += 1
    finally:
        connection.close()
    if asked == 1:
        print("asking", flush=True)
    time.sleep(0.01)
print(asked, failed, flush=True)
"""


@pytest.fixture
def web(pyrt: Desk, busybox: Layout) -> Desk:  # noqa: F811
    """A user with the web server's image."""
    pyrt.ok("load", "-i", str(busybox.path), "--name", "web")
    return pyrt


def start(web: Desk) -> None:
    web.ok("run", "-d", "--name", "web", "--restart", "always", *HEALTH, "web", "sh", "-c", SERVE)
    eventually(lambda: health(web) == "healthy")


def state(web: Desk) -> dict[str, object]:
    found = json.loads(web.ok("inspect", "web"))[0]
    return {**found["State"], "RestartCount": found["RestartCount"]}


def health(web: Desk) -> str:
    return str(state(web)["Health"]["Status"])  # type: ignore[index]


def well(web: Desk) -> int:
    """How many looks after its health there were that went well."""
    told = web.ok("events", "--since", "0", "--until", "0s", "-f", "event=exec_die", "--json")
    return sum(json.loads(line)["exit_code"] == 0 for line in told.splitlines())


@contextmanager
def asking(web: Desk) -> Iterator[subprocess.Popen[str]]:
    """Somebody who asks again and again."""
    command = ["nsenter", f"--net=/proc/{state(web)['Pid']}/ns/net", sys.executable, "-c", ASKS, str(PORT)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout
        assert client.stdout.readline() == "asking\n"
        yield client


def test_no_request_is_lost_while_servers_are_killed(web: Desk) -> None:
    start(web)
    before = state(web)
    with asking(web) as client:
        for _ in range(3):
            looks = len(json.loads(web.ok("inspect", "web"))[0]["State"]["Health"]["Log"])
            assert looks
            kill_server(web)
            # The next command starts another server, which takes over and looks after its health.
            last = state(web)["Health"]["Log"][-1]["End"]  # type: ignore[index]
            eventually(lambda last=last: state(web)["Health"]["Log"][-1]["End"] > last)  # type: ignore[misc,index]
        output, _ = client.communicate("", timeout=20)
        asked, failed = map(int, output.split())
    assert failed == 0
    after = state(web)
    assert (after["Pid"], after["StartedAt"], after["RestartCount"]) == (before["Pid"], before["StartedAt"], 0)
    assert health(web) == "healthy"
    web.ok("stop", "-t", "0", "web")
    log = web.ok("logs", "web", stderr=subprocess.STDOUT, capture_output=False, stdout=subprocess.PIPE)
    # A line for each request: those that were asked, those of the looks that are on record, and at most one of a look
    # that was cut off by the end of each server and of the container.
    requests = sum("url:" in line for line in log.splitlines())
    assert asked + well(web) <= requests <= asked + well(web) + 4


@pytest.mark.parametrize("with_server", [True, False], ids=["with a server", "without one"])
def test_a_web_server_that_is_killed_comes_back(web: Desk, with_server: bool) -> None:
    start(web)
    before = state(web)
    if not with_server:
        kill_server(web)
    pidfd = os.pidfd_open(int(str(before["Pid"])))
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)
    eventually(lambda: (now := state(web))["Running"] and now["Pid"] != before["Pid"])
    eventually(lambda: health(web) == "healthy")
    with asking(web) as client:
        asked, failed = map(int, client.communicate("", timeout=20)[0].split())
    assert (asked > 0, failed) == (True, 0)
    assert state(web)["RestartCount"] == 1
    web.ok("rm", "-f", "web")
