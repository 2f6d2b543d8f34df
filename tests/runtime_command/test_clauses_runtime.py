"""runtime.md and features.md, clause by clause, what `test_lifecycle.py` does not show."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.runtime_command.test_lifecycle import hook, wait_for_death

if TYPE_CHECKING:
    from tests.runtime_command.command import Bundle, Runtime

pytestmark = pytest.mark.root


@pytest.mark.parametrize("verb", ["state", "create", "start", "kill", "delete"])
def test_an_operation_wants_to_know_which_container(runtime: Runtime, verb: str) -> None:
    """Operations: an error without an id."""
    assert "id" in runtime.fails(verb)


def test_the_state_is_what_the_specification_lists(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """State."""
    bundle.runs("/bin/sleep", "100")
    runtime.ok("create", "--bundle", bundle.path, name)
    state = runtime.state(name)
    assert {"ociVersion", "id", "status", "pid", "bundle"} <= set(state)
    assert os.path.exists(f"/proc/{state['pid']}")
    assert Path(state["bundle"]).is_absolute()


def test_a_signal_reaches_the_process_by_name_and_by_number(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """Kill: of a container that runs, and of one that is only created."""
    fifo = bundle.path / "fifo"
    os.mkfifo(fifo)
    bundle.config["mounts"].append(
        {"destination": "/tmp", "type": "bind", "source": str(bundle.path), "options": ["rbind"]}
    )
    traps = "trap 'echo one > /tmp/fifo' USR1; trap 'echo two > /tmp/fifo' USR2"
    bundle.shell(f"{traps}; echo up > /tmp/fifo; while :; do sleep 0.01; done")
    runtime.ok("run", "--detach", "--bundle", bundle.path, name)
    assert fifo.read_text() == "up\n"
    for signal, word in (("SIGUSR1", "one"), ("USR2", "two"), ("10", "one")):
        runtime.ok("kill", name, signal)
        assert fifo.read_text() == f"{word}\n"
    runtime.ok("delete", "--force", name)
    runtime.ok("create", "--bundle", bundle.path, name)
    pid = runtime.state(name)["pid"]
    runtime.ok("kill", name, "KILL")
    wait_for_death(pid)
    assert runtime.state(name)["status"] == "stopped"


def test_what_runs_is_asked_for_when_it_is_started(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """config.md, Process: REQUIRED when start is called; runtime.md, Create: what it sets can be ignored before."""
    bundle.set("process", None)
    runtime.ok("create", "--bundle", bundle.path, name)
    assert runtime.state(name)["status"] == "created"
    # Who asks for everything gets it.
    assert runtime.ok("exec", name, "/bin/sh", "-c", "id -u; pwd").split() == ["0", "/"]
    assert runtime.fails("start", name) == "process: missing: there is nothing to start"
    assert runtime.state(name)["status"] == "created"
    runtime.ok("delete", name)
    for flags in ([], ["--detach"]):
        assert runtime.fails("run", *flags, "--bundle", bundle.path, name).startswith("process: missing")
        assert list(runtime.root.iterdir()) == []


def test_an_id_can_be_used_again(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """Delete."""
    for _ in range(2):
        runtime.ok("create", "--bundle", bundle.path, name)
        runtime.ok("delete", "--force", name)


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
def test_after_a_hook_of_create_has_failed_the_lifecycle_ends(
    runtime: Runtime, bundle: Bundle, name: str, kind: str
) -> None:
    """Lifecycle, 3 to 5: the container is gone, and hooks of its end run."""
    log = bundle.path / "log"
    bundle.set("hooks", {kind: [hook(kind, log, status=1)], "poststop": [hook("poststop", log)]})
    assert "running the hook" in runtime.fails("create", "--bundle", bundle.path, name)
    assert [line.split()[0] for line in log.read_text().splitlines()] == [kind, "poststop"]
    state = json.loads(log.read_text().splitlines()[-1].split(maxsplit=2)[2])
    assert (state["id"], state["status"]) == (name, "stopped")
    assert "does not exist" in runtime.fails("state", name)


def test_an_error_of_create_that_is_no_hooks_runs_none(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """Errors: as if it had never been tried."""
    log = bundle.path / "log"
    bundle.config["process"]["cwd"] = "relative"
    bundle.set("hooks", {kind: [hook(kind, log)] for kind in ("createRuntime", "poststop")})
    runtime.fails("create", "--bundle", bundle.path, name)
    assert not log.exists()


@pytest.mark.parametrize("kind", ["startContainer", "poststart"])
def test_after_a_hook_of_start_has_failed_the_container_is_stopped(
    runtime: Runtime, bundle: Bundle, name: str, kind: str
) -> None:
    """Lifecycle, 7 and 9: an error; hooks of the end run when it is deleted."""
    log = bundle.path / "log"
    bundle.config["mounts"].append(
        {"destination": "/tmp", "type": "bind", "source": str(bundle.path), "options": ["rbind"]}
    )
    bundle.shell("echo ran > /tmp/ran; exec sleep 100")
    failing: dict[str, Any] = {"path": "/bin/false"}
    bundle.set("hooks", {kind: [failing], "poststop": [hook("poststop", log)]})
    runtime.ok("create", "--bundle", bundle.path, name)
    pid = runtime.state(name)["pid"]
    assert "/bin/false" in runtime.fails("start", name)
    wait_for_death(pid)
    assert runtime.state(name)["status"] == "stopped"
    if kind == "startContainer":
        assert not (bundle.path / "ran").exists()
    runtime.ok("delete", name)
    assert log.read_text().split()[0] == "poststop"


def test_what_is_deleted_is_what_was_made(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """Delete: namespaces that were joined and sources of mounts stay, groups go."""
    (bundle.path / "kept").mkdir()
    bundle.config["mounts"].append({"destination": "/tmp", "type": "bind", "source": "kept", "options": ["rbind"]})
    bundle.shell("echo word > /tmp/word; exec sleep 100")
    runtime.ok("run", "--detach", "--bundle", bundle.path, name)
    pid = runtime.state(name)["pid"]
    groups = [
        Path("/sys/fs/cgroup") / controllers.removeprefix("name=") / path.lstrip("/")
        for _, controllers, path in (
            line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        )
        if name in path and controllers
    ]
    assert groups
    runtime.ok("delete", "--force", name)
    assert not any(group.exists() for group in groups)
    assert (bundle.path / "kept" / "word").read_text() == "word\n"


def test_features_name_what_is_recognized(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """features.md and features-linux.md: what is listed is accepted in config.json."""
    features = json.loads(runtime.ok("features"))
    linux = features["linux"]
    capabilities = dict.fromkeys(("bounding", "effective", "permitted"), linux["capabilities"])
    bundle.set("process.capabilities", capabilities)
    operators = [
        {
            "names": ["fchmod"],
            "action": "SCMP_ACT_ERRNO",
            "args": [{"index": 1, "value": 0o7777, "valueTwo": 0o7777, "op": operator}],
        }
        for operator in linux["seccomp"]["operators"]
    ]
    actions = [
        {"names": ["getpriority"], "action": action}
        for action in linux["seccomp"]["actions"]
        if action != "SCMP_ACT_NOTIFY"
    ]
    bundle.set("linux.memoryPolicy", {"mode": "MPOL_DEFAULT"})
    for rule in [*operators, *actions]:
        bundle.set("linux.seccomp", {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]})
        runtime.ok("run", "--bundle", bundle.path, name)
    seccomp = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": linux["seccomp"]["archs"]}
    of_listeners = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"
    seccomp["flags"] = [flag for flag in linux["seccomp"]["supportedFlags"] if flag != of_listeners]
    bundle.set("linux.seccomp", seccomp)
    runtime.ok("run", "--bundle", bundle.path, name)
    assert linux["seccomp"]["knownFlags"] == linux["seccomp"]["supportedFlags"] != []
    assert set(linux["namespaces"]) == {"cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"}
    assert linux["intelRdt"] == {"enabled": False}
    assert linux["mountExtensions"]["idmap"]["enabled"] is True


def test_features_have_the_words_that_a_runtime_must_know(runtime: Runtime) -> None:
    """config.md, "Linux mount options": all that it must or should know."""
    must = """async atime bind defaults dev diratime dirsync exec iversion lazytime loud noatime nodev nodiratime noexec
        noiversion nolazytime norelatime nostrictatime nosuid private rbind relatime remount ro rprivate rshared rslave
        runbindable rw shared silent slave strictatime suid sync unbindable"""
    should = """nosymfollow ratime rdev rdiratime rexec rnoatime rnodiratime rnoexec rnorelatime rnostrictatime rnosuid
        rnosymfollow rrelatime rro rrw rstrictatime rsuid rsymfollow symfollow idmap ridmap tmpcopyup mand nomand"""
    missing = {*must.split(), *should.split()} - set(json.loads(runtime.ok("features"))["mountOptions"])
    assert missing == set()
