"""What callers of runc rely on: flags, help, exit codes, the shape of what is printed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.runtime_command.test_lifecycle import wait_for_death

if TYPE_CHECKING:
    from tests.runtime_command.command import Bundle, Runtime

pytestmark = pytest.mark.root

# As runc 1.4 has them; those of checkpoint and restore have a meaning with criu alone.
FLAGS = {
    "create": "bundle console-socket pidfd-socket pid-file no-pivot no-new-keyring preserve-fds",
    "start": "",
    "run": """bundle console-socket pidfd-socket detach keep pid-file no-subreaper no-pivot no-new-keyring
        preserve-fds""",
    "exec": """console-socket pidfd-socket cwd env tty user additional-gids process detach pid-file process-label
        apparmor no-new-privs cap preserve-fds cgroup ignore-paused""",
    "kill": "all",
    "delete": "force",
    "state": "",
    "list": "format quiet",
    "ps": "format",
    "pause": "",
    "resume": "",
    "update": """resources blkio-weight cpu-period cpu-quota cpu-burst cpu-share cpu-rt-period cpu-rt-runtime
        cpuset-cpus cpuset-mems kernel-memory kernel-memory-tcp memory cpu-idle memory-reservation memory-swap
        pids-limit l3-cache-schema mem-bw-schema""",
    "events": "interval stats",
    "spec": "bundle rootless",
    "features": "",
}
LETTERS = {"bundle": "b", "detach": "d", "env": "e", "tty": "t", "user": "u", "additional-gids": "g", "cap": "c"}
LETTERS |= {"all": "a", "force": "f", "format": "f", "quiet": "q", "resources": "r"}


def begin(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """A container that sleeps."""
    bundle.runs("/bin/sleep", "100")
    runtime.ok("run", "--detach", "--bundle", bundle.path, name)


@pytest.mark.parametrize("verb", FLAGS)
def test_each_verb_shows_the_flags_of_runc(runtime: Runtime, verb: str) -> None:
    shown = runtime.ok(verb, "--help")
    assert runtime.ok(verb, "-h") == runtime.ok("help", verb) == shown
    assert shown.startswith(f"usage: pyrt-runtime {verb} ")
    assert f"\nexample: pyrt-runtime {verb}" in shown
    for flag in FLAGS[verb].split():
        letter = LETTERS.get(flag)
        assert f"  {f'-{letter},' if letter else '   '} --{flag}" in shown, flag


def test_the_help_has_all_verbs(runtime: Runtime) -> None:
    shown = runtime.ok("--help")
    assert runtime.ok() == runtime.ok("help") == shown
    for verb in FLAGS:
        assert f"\n  {verb} " in shown


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["list", "x"], '"x" is one word too many (pyrt-runtime list --help)'),
        (["features", "x"], '"x" is one word too many (pyrt-runtime features --help)'),
        (["state", "x", "y"], '"y" is one word too many (pyrt-runtime state --help)'),
        (["kill"], "the id of a container is missing (pyrt-runtime kill --help)"),
        (["create", "--detach", "x"], "no such flag: --detach (pyrt-runtime create --help)"),
        (["delete", "--force=maybe", "x"], "--force=maybe: true or false (pyrt-runtime delete --help)"),
        (["delete", "--force=F", "x"], "container does not exist: x"),
        (["events", "--interval", "0s", "x"], "--interval 0s: not a time like 5s or 1m30s"),
        (["help", "creat"], "no such verb: creat (pyrt-runtime --help)"),
    ],
)
def test_a_wrong_call_says_how_it_is_done(runtime: Runtime, words: list[str], line: str) -> None:
    assert runtime.fails(*words) == line


def test_a_process_that_can_not_be_made_has_a_code_of_its_own(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """Else it could be that of the command."""
    begin(runtime, bundle, name)
    for words in ([name, "no-such-command"], ["-u", "root", name, "true"], [f"{name}-other", "true"], [name]):
        answer = runtime.call("exec", *words)
        assert (answer.code, len(answer.error.splitlines())) == (255, 1), words
    assert runtime.call("exec", name, "/bin/sh", "-c", "exit 7").code == 7
    assert runtime.call("exec", name, "/bin/sh", "-c", "kill -9 $$").code == 128 + 9


def test_a_switch_can_be_turned_off(runtime: Runtime, bundle: Bundle, name: str) -> None:
    begin(runtime, bundle, name)
    assert runtime.ok("exec", "--no-new-privs=false", name, "/bin/grep", "NoNewPrivs", "/proc/self/status") == (
        "NoNewPrivs:\t0\n"
    )


@pytest.mark.parametrize("verb", ["create", "run", "exec"])
def test_a_pidfd_is_handed_over(runtime: Runtime, bundle: Bundle, name: str, tmp_path: Path, verb: str) -> None:
    """As runc 1.2 hands it: with the way in which the process was made."""
    place = tmp_path / "pidfd"
    file = tmp_path / "pid"
    if verb == "exec":
        begin(runtime, bundle, name)
    bundle.runs("/bin/true")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        listener.listen()
        flags: list[str | Path] = ["--pidfd-socket", place, "--pid-file", file]
        last: list[str | Path] = [name, "/bin/true"] if verb == "exec" else ["--bundle", bundle.path, name]
        runtime.ok(verb, *flags, *last)
        connection, _ = listener.accept()
        with connection:
            word, (pidfd,), _, _ = socket.recv_fds(connection, 4096, 1)
    assert word == (b"setns" if verb == "exec" else b"standard")
    try:
        information = Path(f"/proc/self/fdinfo/{pidfd}").read_text()
        (pid,) = (line.split()[1] for line in information.splitlines() if line.startswith("Pid:"))
        assert pid == (file.read_text() if verb == "create" else "-1")
    finally:
        os.close(pidfd)


def test_a_socket_for_the_pidfd_that_is_none(runtime: Runtime, bundle: Bundle, name: str) -> None:
    line = runtime.fails("create", "--pidfd-socket", "/no/such", "--bundle", bundle.path, name)
    assert line == "--pidfd-socket /no/such: no such file or directory"
    assert not (runtime.root / name).exists()


@pytest.mark.parametrize(
    ("env", "home"), [([], "/home/bob"), (["HOME="], "/home/bob"), (["HOME=/x"], "/x"), (["HOME=/x", "HOME=/y"], "/y")]
)
def test_the_home_is_that_of_the_user(runtime: Runtime, bundle: Bundle, name: str, env: list[str], home: str) -> None:
    (bundle.path / "passwd").write_text("bob:x:77:7::/home/bob:/bin/sh\n")
    etc = {"destination": "/etc", "type": "bind", "source": ".", "options": ["bind", "ro"]}
    bundle.config["mounts"].append(etc)
    bundle.set("process.user.uid", 77)
    bundle.set("process.env", env)
    bundle.runs("/bin/sleep", "100")
    runtime.ok("run", "--detach", "--bundle", bundle.path, name)
    assert runtime.ok("exec", name, "/bin/sh", "-c", "echo $HOME") == f"{home}\n"


def test_the_home_of_a_user_without_one_is_the_root(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """Links of an image lead nowhere else than in it."""
    bundle.set("process.env", [])
    bundle.set("process.user.uid", 7777)
    bundle.shell("echo $HOME; env | grep -c ^HOME=")
    assert runtime.ok("run", "--bundle", bundle.path, name) == "/\n1\n"


def test_of_two_variables_of_a_name_the_last_counts(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """getenv(3) would find the first: what `exec --env` changes would stay as it was."""
    bundle.set("process.env", ["PATH=/bin", "A=1", "B=1"])
    begin(runtime, bundle, name)
    shown = runtime.ok("exec", "--env", "A=2", "--env", "A=3", name, "/bin/env").splitlines()
    assert sorted(line for line in shown if line[0] in "AB") == ["A=3", "B=1"]


def test_a_signal_ends_all_of_a_container_in_the_hosts_pid_namespace(
    runtime: Runtime, bundle: Bundle, name: str
) -> None:
    """In one of its own the kernel does so (pid_namespaces(7))."""
    namespaces = bundle.config["linux"]["namespaces"]
    bundle.config["linux"]["namespaces"] = [kind for kind in namespaces if kind["type"] != "pid"]
    begin(runtime, bundle, name)
    runtime.ok("exec", "--detach", name, "/bin/sleep", "100")
    pids = json.loads(runtime.ok("ps", "--format", "json", name))
    assert len(pids) == 2
    runtime.ok("kill", name, "KILL")
    for pid in pids:
        wait_for_death(pid)
    # And what a first process that has ended has left is reached as well.
    runtime.ok("kill", name, str(int(signal.SIGKILL)))


def test_the_table_has_the_columns_of_runc(runtime: Runtime, bundle: Bundle, name: str) -> None:
    assert runtime.ok("list") == f"{'ID':<12}{'PID':<12}{'STATUS':<12}{'BUNDLE':<12}{'CREATED':<12}OWNER\n"
    runtime.ok("create", "--bundle", bundle.path, name)
    heading, line = runtime.ok("list").splitlines()
    state = runtime.state(name)
    for column in ("id", "pid", "status", "bundle", "created", "owner"):
        at = heading.index(column.upper())
        assert line[at:].split()[0] == str(state[column])


def test_statistics_have_what_runc_counts(runtime: Runtime, bundle: Bundle, name: str) -> None:
    bundle.set("linux.resources", {"cpu": {"cpus": "0"}})
    begin(runtime, bundle, name)
    data = json.loads(runtime.ok("events", "--stats", "--interval", "1m30s", name))["data"]
    assert set(data) == {
        "cpu",
        "cpuset",
        "memory",
        "pids",
        "blkio",
        "hugetlb",
        "intel_rdt",
        "network_interfaces",
    }
    assert data["cpuset"] == {} or data["cpuset"]["cpus"] == [0]


def test_limits_that_nobody_knows_are_worth_a_warning(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """Engines of tomorrow will have more, and runc passes them over."""
    begin(runtime, bundle, name)
    document = {"memory": {"limit": 64 << 20, "tomorrow": 1}, "more": {}}
    (bundle.path / "resources").write_text(json.dumps(document))
    answer = runtime.call("update", "--resources", bundle.path / "resources", name)
    assert answer.code == 0
    for field in ("memory.tomorrow", "more"):
        assert f"warning: linux.resources.{field}: no such field in the specification, ignored" in answer.error
    runtime.ok("update", "--memory", "32.5m", name)
    assert json.loads(runtime.ok("events", "--stats", name))["data"]["memory"]["usage"]["limit"] == 65 << 19


@pytest.mark.parametrize("root", ["/", "/..", "."])
def test_the_root_of_the_file_system_holds_no_containers(runtime: Runtime, root: str) -> None:
    line = [*runtime.command, "--root", root, "list"]
    done = subprocess.run(line, cwd="/", capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 1
    assert done.stderr.endswith(": is the root of the file system\n")


def test_what_is_no_container_is_not_deleted(runtime: Runtime, tmp_path: Path) -> None:
    """A bundle, say, below a --root that is a wrong one."""
    (runtime.root / "bundle" / "rootfs").mkdir(parents=True)
    (runtime.root / "bundle" / "config.json").write_text("{}")
    for words in (["delete"], ["delete", "--force"]):
        assert runtime.fails(*words, "bundle").endswith("rootfs is in it, so this is no container's folder")
    assert (runtime.root / "bundle" / "config.json").read_text() == "{}"
    (runtime.root / "bundle").rename(tmp_path / "elsewhere")
