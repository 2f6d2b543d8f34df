"""linux.seccomp with a listener: an agent of the host answers system calls of the container."""

from __future__ import annotations

import fcntl
import json
import os
import select
import socket
import struct
import threading
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.runtime_command.command import Bundle, Runtime

pytestmark = pytest.mark.root

# linux/seccomp.h: _IOWR('!', 0, struct seccomp_notif) and _IOWR('!', 1, struct seccomp_notif_resp).
RECEIVE, SEND = 0xC0502100, 0xC0182101
NOTIFICATION, ANSWER = 80, 24
EXISTS = 17


class Agent:
    """Takes one connection, then answers every notification with EEXIST until the filter has nobody left."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state: dict[str, Any] = {}
        self.descriptors = 0
        self.asked = 0
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self) -> None:
        connection, _ = self.listener.accept()
        with connection:
            text, descriptors, _, _ = socket.recv_fds(connection, 65536, 4)
            while piece := connection.recv(65536):
                text += piece
        self.state, self.descriptors = json.loads(text), len(descriptors)
        (notify,) = descriptors
        poll = select.poll()
        poll.register(notify, select.POLLIN)
        while poll.poll()[0][1] & select.POLLIN:
            notification = bytearray(NOTIFICATION)
            fcntl.ioctl(notify, RECEIVE, notification)
            (number,) = struct.unpack_from("Q", notification)
            fcntl.ioctl(notify, SEND, struct.pack("QqiI", number, 0, -EXISTS, 0))
            self.asked += 1
        os.close(notify)

    def close(self) -> None:
        """Waits until nobody is left who could ask."""
        if not self.state:
            # Nobody came: the one that waits is let go.
            socket.socket(socket.AF_UNIX).connect_ex(str(self.path))
        self.listener.close()
        self.thread.join(10)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    """One that waits at a socket."""
    agent = Agent(tmp_path / "agent")
    yield agent
    agent.close()


def notifying(path: Path | None, *names: str) -> dict[str, Any]:
    """A profile that asks about these calls."""
    profile: dict[str, Any] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": list(names), "action": "SCMP_ACT_NOTIFY"}],
    }
    return profile | ({"listenerPath": str(path), "listenerMetadata": "for=you"} if path else {})


@pytest.mark.parametrize("restricted", [True, False])
def test_an_agent_answers(runtime: Runtime, bundle: Bundle, name: str, agent: Agent, restricted: bool) -> None:
    bundle.config["annotations"] = {"a": "b" * 5000}
    bundle.set("process.noNewPrivileges", restricted)
    bundle.shell("mkdir /tmp/x 2>&1; grep Seccomp: /proc/self/status; grep CapEff /proc/self/status")
    bundle.set("linux.seccomp", notifying(agent.path, "mkdir", "mkdirat"))
    runtime.ok("create", "--bundle", bundle.path, "--pid-file", bundle.path / "pid", name)
    pid = int((bundle.path / "pid").read_text())
    done = os.pidfd_open(pid)
    runtime.ok("start", name)
    select.select([done], [], [], 10)
    os.close(done)
    runtime.ok("delete", "--force", name)
    agent.thread.join(10)
    assert agent.asked == 1
    assert agent.descriptors == 1
    assert agent.state["fds"] == ["seccompFd"]
    assert agent.state["metadata"] == "for=you"
    assert agent.state["ociVersion"] == "1.0.2"
    # As the host numbers it, although the container has a pid namespace of its own.
    assert (agent.state["pid"], agent.state["state"]["pid"]) == (pid, pid)
    assert (agent.state["state"]["id"], agent.state["state"]["status"]) == (name, "creating")
    assert agent.state["state"]["annotations"] == {"a": "b" * 5000}


def test_run_sees_the_answer(runtime: Runtime, bundle: Bundle, name: str, agent: Agent) -> None:
    bundle.shell("mkdir /tmp/x 2>&1; grep -E 'Seccomp:|CapEff' /proc/self/status | cut -f2")
    bundle.set("process.noNewPrivileges", False)
    bundle.set("linux.seccomp", notifying(agent.path, "mkdir", "mkdirat"))
    seen = runtime.ok("run", "--bundle", bundle.path, name).splitlines()
    # The capability that loading takes is gone.
    assert seen == ["mkdir: can't create directory '/tmp/x': File exists", "0000000000000000", "2"]


def test_one_more_process_has_an_agent_of_its_own(runtime: Runtime, bundle: Bundle, name: str, tmp_path: Path) -> None:
    first, second = Agent(tmp_path / "agent"), None
    try:
        bundle.runs("/bin/sleep", "100")
        bundle.set("linux.seccomp", notifying(first.path, "mkdir", "mkdirat"))
        runtime.ok("run", "--detach", "--bundle", bundle.path, name)
        # The path is looked up anew: now somebody else sits there.
        first.path.unlink()
        second = Agent(tmp_path / "agent")
        answer = runtime.call("exec", name, "/bin/mkdir", "/tmp/x")
        assert (answer.code, "File exists" in answer.error) == (1, True)
        second.thread.join(10)
        assert second.state["pid"] != first.state["pid"]
        assert second.asked == 1
    finally:
        runtime.ok("delete", "--force", name)
        first.close()
        if second is not None:
            second.close()


@pytest.mark.parametrize(
    ("profile", "line"),
    [
        (notifying(None, "mkdir"), "linux.seccomp.listenerPath: missing"),
        ({"defaultAction": "SCMP_ACT_NOTIFY"}, "linux.seccomp.defaultAction: "),
        ({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x"}, "linux.seccomp.listenerMetadata: needs"),
    ],
)
def test_what_nobody_could_answer_is_refused(
    runtime: Runtime, bundle: Bundle, name: str, profile: dict[str, Any], line: str
) -> None:
    bundle.set("linux.seccomp", profile)
    assert runtime.fails("create", "--bundle", bundle.path, name).startswith(line)


def test_an_agent_that_is_not_there(runtime: Runtime, bundle: Bundle, name: str, tmp_path: Path) -> None:
    bundle.set("linux.seccomp", notifying(tmp_path / "nobody", "mkdir"))
    assert runtime.fails("create", "--bundle", bundle.path, name).startswith("linux.seccomp.listenerPath: ")
    bundle.set("linux.seccomp", notifying(tmp_path / "nobody", "sendmsg"))
    assert "sendmsg can't be notified" in runtime.fails("create", "--bundle", bundle.path, name)
    # Where nothing is notified the path means nothing.
    bundle.set("linux.seccomp", {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": str(tmp_path / "nobody")})
    runtime.ok("run", "--bundle", bundle.path, name)
