"""Random verbs, kills and restarts against a small model of what must be true of a few containers.

Hypothesis drives the command as a user would, and prints the shortest way to a failure. PYRT_MODEL_EXAMPLES: how many
ways are gone; `make soak` goes many.
"""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.cli.conftest import client_program, pyrt  # noqa: F401  fixtures, by their names
from tests.cli.desk import Desk, eventually
from tests.cli.test_detached import kill_server
from tests.programs import parent_of

pytestmark = pytest.mark.root

EXAMPLES = int(os.environ.get("PYRT_MODEL_EXAMPLES", "4"))
SCRIPT = "trap 'echo bye; exit 5' TERM; trap 'echo usr' USR1; echo up; while :; do sleep 0.01; done"
NAMES = st.sampled_from(["anna", "bert", "carl"])


class Box:
    """What must be true of a container."""

    def __init__(self, id: str) -> None:
        self.id = id
        self.status = "created"
        self.code = 0
        self.log = ""
        self.pid = 0
        self.memory = 0


class Machine(RuleBasedStateMachine):
    """The verbs; each says what it expects, whether it can be or not."""

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self.desk = desk
        self.boxes: dict[str, Box] = {}

    # ---- making ----

    @rule(name=NAMES)
    def create(self, name: str) -> None:
        self._make(name, "create")

    @rule(name=NAMES)
    def run(self, name: str) -> None:
        if self._make(name, "run", "-d"):
            self._is_up(name)

    @rule(name=NAMES)
    def start(self, name: str) -> None:
        if not self._expect(name in self.boxes, "start", name):
            return
        if self.boxes[name].status in {"created", "exited"}:
            self._is_up(name)

    @rule(before=NAMES, after=NAMES)
    def rename(self, before: str, after: str) -> None:
        possible = before in self.boxes and after not in self.boxes
        if before != after and self._expect(possible, "rename", before, after):
            self.boxes[after] = self.boxes.pop(before)

    # ---- ending ----

    @rule(name=NAMES)
    def stop(self, name: str) -> None:
        if self._status(name) == "paused":
            return
        if self._expect(name in self.boxes, "stop", "-t", "20", name) and self._status(name) == "running":
            self.boxes[name].log += "bye\n"
            self._is_over(name, 5)

    @rule(name=NAMES)
    def kill(self, name: str) -> None:
        if self._status(name) == "paused":
            return
        if self._expect(self._status(name) == "running", "kill", name):
            self.desk.ok("wait", name)
            self._is_over(name, 137)

    @rule(name=NAMES)
    def remove(self, name: str) -> None:
        if self._expect(self._status(name) in {"created", "exited"}, "rm", name):
            del self.boxes[name]

    @rule(name=NAMES)
    def remove_by_force(self, name: str) -> None:
        # One that is not there is no error, as with docker.
        self._expect(True, "rm", "-f", name)
        self.boxes.pop(name, None)

    # ---- what runs ----

    @rule(name=NAMES)
    def send_signal(self, name: str) -> None:
        if self._status(name) == "running":
            self.desk.ok("kill", "-s", "USR1", name)
            self.boxes[name].log += "usr\n"
            self._has_logged(name)

    @rule(name=NAMES)
    def pause(self, name: str) -> None:
        if self._expect(self._status(name) == "running", "pause", name):
            self.boxes[name].status = "paused"

    @rule(name=NAMES)
    def unpause(self, name: str) -> None:
        if self._expect(self._status(name) == "paused", "unpause", name):
            self.boxes[name].status = "running"

    @rule(name=NAMES)
    def execute(self, name: str) -> None:
        done = self.desk.run("exec", name, "sh", "-c", "echo hello; exit 4")
        if self._status(name) == "running":
            assert (done.stdout, done.returncode) == (b"hello\n", 4), done
        else:
            assert (done.stdout, done.returncode != 4) == (b"", True), done
            assert done.stderr.startswith(b"pyrt: "), done

    @rule(name=NAMES, megabytes=st.integers(64, 256))
    def update(self, name: str, megabytes: int) -> None:
        if self._expect(name in self.boxes, "update", "--memory", f"{megabytes}m", "--memory-swap", "-1", name):
            self.boxes[name].memory = megabytes << 20

    # ---- looking ----

    @rule(name=NAMES)
    def logs(self, name: str) -> None:
        done = self.desk.run("logs", name)
        assert (done.returncode == 0) == (name in self.boxes), done
        if name in self.boxes:
            assert done.stdout.decode() == self.boxes[name].log

    @rule(name=NAMES)
    def wait(self, name: str) -> None:
        if self._status(name) == "exited":
            assert self.desk.ok("wait", name) == f"{self.boxes[name].code}\n"

    # ---- killing ----

    @rule()
    def kill_the_server(self) -> None:
        if self.desk.socket_of_any():
            kill_server(self.desk)

    @rule(name=NAMES)
    @precondition(lambda self: any(box.status == "running" for box in self.boxes.values()))
    def kill_a_keeper(self, name: str) -> None:
        if self._status(name) == "running":
            pidfd = os.pidfd_open(self.boxes[name].pid)
            os.kill(parent_of(self.boxes[name].pid), signal.SIGKILL)
            os.close(pidfd)
            eventually(lambda: self._inspect(name)["State"]["Status"] == "exited")
            self._is_over(name, 255)

    # ---- what is always true ----

    @invariant()
    def all_is_as_it_must_be(self) -> None:
        listed = self.desk.ok("ps", "-a", "--no-trunc", "--format", "{{.Names}} {{.ID}} {{.State}}").splitlines()
        assert sorted(listed) == sorted(f"{name} {box.id} {box.status}" for name, box in self.boxes.items())
        inspected = json.loads(self.desk.ok("inspect", *self.boxes)) if self.boxes else []
        for box, found in zip(self.boxes.values(), inspected, strict=True):
            assert (found["State"]["Pid"], found["State"]["ExitCode"]) == (box.pid, box.code), found["State"]
            assert found["HostConfig"]["Memory"] == box.memory

    def teardown(self) -> None:
        for name in self.boxes:
            self.desk.ok("rm", "-f", name)

    # ---- within ----

    def _status(self, name: str) -> str:
        return self.boxes[name].status if name in self.boxes else ""

    def _expect(self, possible: bool, *words: str) -> bool:
        """Types it; it works if it is possible, and else it is refused with a sentence."""
        done = self.desk.run(*words)
        assert (done.returncode == 0) == possible, (words, done)
        assert possible or done.stderr.startswith(b"pyrt: "), done
        return possible

    def _make(self, name: str, *verb: str) -> bool:
        words = (*verb, "--name", name, "host", "--", "sh", "-c", SCRIPT)
        if name in self.boxes:
            return self._expect(False, *words)
        self.boxes[name] = Box(self.desk.ok(*words).strip())
        return True

    def _inspect(self, name: str) -> Any:
        return json.loads(self.desk.ok("inspect", name))[0]

    def _is_up(self, name: str) -> None:
        box = self.boxes[name]
        box.status, box.code, box.log = "running", 0, box.log + "up\n"
        box.pid = self._inspect(name)["State"]["Pid"]
        # Its traps are set when it has said so.
        self._has_logged(name)

    def _is_over(self, name: str, code: int) -> None:
        box = self.boxes[name]
        box.status, box.code, box.pid = "exited", code, 0

    def _has_logged(self, name: str) -> None:
        eventually(lambda: self.desk.ok("logs", name) == self.boxes[name].log)


def test_whatever_is_done(pyrt: Desk) -> None:  # noqa: F811
    run_state_machine_as_test(
        lambda: Machine(pyrt),  # type: ignore[arg-type]
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=20,
            deadline=None,
            database=None,
            print_blob=True,
            phases=[Phase.generate, Phase.shrink] if EXAMPLES > 4 else [Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
