"""Detached containers as somebody types them, with a server that may be killed between two commands."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.cli.desk import Desk, eventually, is_alive
from tests.programs import parent_of

pytestmark = pytest.mark.root

COUNT = "i=0; while [ $i -lt 500 ]; do echo line $i; i=$((i+1)); done; exit 3"


def kill_server(pyrt: Desk) -> None:
    """With SIGKILL, and sees that it has gone."""
    (lock,) = pyrt.run_folder.glob("*.lock")
    process = int(lock.read_text())
    os.kill(process, signal.SIGKILL)
    eventually(lambda: not is_alive(process))


def detach(pyrt: Desk, script: str, *options: str) -> str:
    return pyrt.ok("run", "-d", *options, "host", "--", "sh", "-c", script).strip()


def test_it_runs_on_its_output_is_kept_and_its_status_is_told(pyrt: Desk) -> None:
    identifier = detach(pyrt, COUNT, "--name", "job")
    assert len(identifier) == 64
    kill_server(pyrt)
    assert pyrt.ok("wait", "job") == "3\n"
    assert pyrt.ok("logs", "job") == "".join(f"line {number}\n" for number in range(500))
    assert "Exited (3)" in pyrt.ok("ps", "-a")


def test_three_killed_servers_make_no_difference_to_what_runs(pyrt: Desk) -> None:
    detach(pyrt, "i=0; while :; do echo $i; i=$((i+1)); sleep 0.01; done", "--name", "web")
    pid = json.loads(pyrt.ok("inspect", "web"))[0]["State"]["Pid"]
    for _ in range(3):
        kill_server(pyrt)
        assert json.loads(pyrt.ok("inspect", "web"))[0]["State"]["Pid"] == pid
        assert pyrt.ok("exec", "web", "echo", "hello") == "hello\n"
    pyrt.ok("stop", "-t", "0", "web")
    numbers = [int(line) for line in pyrt.ok("logs", "web").split()]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) > 10


def test_logs_are_followed_until_the_end(pyrt: Desk) -> None:
    detach(pyrt, "echo one; read line; echo two; echo three >&2", "-i", "--name", "talk")
    with pyrt.popen("logs", "-f", "talk", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == b"one\n"
        client = pyrt.popen("attach", "talk", stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        client.communicate(b"go\n", timeout=20)
        assert client.returncode == 0
        rest = follower.communicate(timeout=20)
    assert rest == (b"two\n", b"three\n")


def test_logs_have_times_and_an_end_and_a_beginning(pyrt: Desk) -> None:
    detach(pyrt, "seq 1000", "--name", "seq")
    pyrt.ok("wait", "seq")
    assert pyrt.ok("logs", "-n", "3", "seq") == "998\n999\n1000\n"
    assert pyrt.ok("logs", "--tail", "0", "seq") == ""
    assert pyrt.ok("logs", "-n", "2000", "seq").count("\n") == 1000
    (line,) = pyrt.ok("logs", "-t", "-n", "1", "seq").splitlines()
    moment, text = line.split()
    assert (len(moment), text) == (30, "1000")
    assert pyrt.ok("logs", "--since", moment, "seq").endswith("1000\n")
    assert pyrt.ok("logs", "--until", "2000-01-01T00:00:00Z", "seq") == ""


def test_logs_have_details_where_they_are_asked_for(pyrt: Desk) -> None:
    asked = ("--log-opt", "labels=app,nothing", "--log-opt", "env=KIND", "-l", "app=web", "-e", "KIND=a b")
    detach(pyrt, "echo one; echo two", *asked, "--name", "web")
    pyrt.ok("wait", "web")
    assert pyrt.ok("logs", "--details", "web") == "KIND=a+b,app=web one\nKIND=a+b,app=web two\n"
    assert pyrt.ok("logs", "--details", "-t", "-n", "1", "web").split()[1:] == ["KIND=a+b,app=web", "two"]
    assert pyrt.ok("logs", "web") == "one\ntwo\n"
    detach(pyrt, "echo one", "--name", "plain")
    pyrt.ok("wait", "plain")
    assert pyrt.ok("logs", "--details", "plain") == " one\n"


def test_create_start_and_restart(pyrt: Desk) -> None:
    identifier = pyrt.ok(
        "create", "--name", "box", "host", "--", "sh", "-c", "echo run >> /runs; cat /runs; exit 5"
    ).strip()
    assert "Created" in pyrt.ok("ps", "-a")
    done = pyrt.run("start", "-a", "box")
    assert (done.returncode, done.stdout) == (5, b"run\n")
    assert pyrt.ok("start", "box") == "box\n"
    assert pyrt.ok("wait", "box") == "5\n"
    pyrt.ok("restart", "box")
    pyrt.ok("wait", identifier[:12])
    assert pyrt.ok("logs", "box").count("run") == 1 + 2 + 3


def test_one_that_was_attached_is_started_again_with_a_log(pyrt: Desk) -> None:
    assert pyrt.ok("run", "--name", "box", "host", "--", "sh", "-c", "echo run >> /runs; cat /runs") == "run\n"
    assert b"has no log" in pyrt.run("logs", "box").stderr
    assert pyrt.ok("start", "-a", "box") == "run\nrun\n"
    assert pyrt.ok("logs", "box") == "run\nrun\n"


def test_input_of_a_created_container_has_an_end(pyrt: Desk) -> None:
    pyrt.ok("create", "-i", "--name", "sorter", "host", "--", "sort")
    assert pyrt.ok("start", "-ai", "sorter", input=b"b\na\n", stdin=None) == "a\nb\n"


def test_a_terminal_is_attached_and_left_with_its_keys(pyrt: Desk) -> None:
    pyrt.ok("run", "-dit", "--name", "shell", "host", "--", "sh")
    with pyrt.terminal("attach", "shell", rows=33, columns=99) as terminal:
        terminal.type("echo $((6*7))\r")
        terminal.expect("42")
        eventually(lambda: pyrt.ok("exec", "shell", "sh", "-c", "stty size </proc/1/fd/0").split() == ["33", "99"])
        terminal.type(b"\x10\x11")
        assert terminal.wait() == 0
    assert "Up" in pyrt.ok("ps")
    with pyrt.terminal("attach", "--detach-keys", "ctrl-x", "shell") as terminal:
        terminal.type("exit 6\r")
        assert terminal.wait() == 6


def test_a_terminal_that_was_not_detached_is_left_with_its_keys(pyrt: Desk) -> None:
    with pyrt.terminal("run", "-it", "--rm", "--name", "shell", "host", "--", "sh", rows=33, columns=99) as terminal:
        terminal.type("echo $((6*7))\r")
        terminal.expect("42")
        terminal.type("stty size\r")
        terminal.expect("33 99")
        terminal.type(b"\x10\x11")
        assert terminal.wait() == 0
        assert terminal.mode() == terminal.usual_mode
    assert "Up" in pyrt.ok("ps")
    with pyrt.terminal("attach", "shell") as terminal:
        terminal.type("exit 6\r")
        assert terminal.wait() == 6
    eventually(lambda: pyrt.ok("ps", "-aq") == "")


def test_a_command_in_a_container_is_left_with_keys_and_runs_on(pyrt: Desk) -> None:
    pyrt.ok("run", "-d", "--name", "box", "host", "--", "sleep", "1000")
    # Left, it writes more than a terminal holds: nobody who has left is waited for.
    script = "stty size; read line; seq 100000; touch /over; sleep 1000"
    words = ("exec", "-it", "--detach-keys", "ctrl-p,ctrl-q", "box", "sh", "-c", script)
    with pyrt.terminal(*words, rows=33, columns=99) as terminal:
        terminal.expect("33 99")
        # The last return is not for it any more.
        terminal.type(b"\r\x10\x11\r")
        assert terminal.wait() == 0
        assert terminal.mode() == terminal.usual_mode
    eventually(lambda: pyrt.run("exec", "box", "test", "-e", "/over").returncode == 0)
    assert script in pyrt.ok("top", "box")
    with pyrt.terminal("exec", "-it", "--detach-keys", "ctrl-x", "box", "sh", "-c", "read a; exit 7") as terminal:
        terminal.type(b"\x10\x11\r")
        assert terminal.wait() == 7
    done = pyrt.run("exec", "--detach-keys", "ctrl", "box", "true")
    assert (done.returncode, b"is no key" in done.stderr) == (125, True)


def test_one_on_a_terminal_ends_as_its_command_does(pyrt: Desk) -> None:
    with pyrt.terminal("run", "-it", "--detach-keys", "ctrl-x", "host", "--", "sh", "-c", "read a; exit 7") as terminal:
        terminal.type(b"\x10\x11\r")
        assert terminal.wait() == 7
    assert "Exited (7)" in pyrt.ok("ps", "-a")
    done = pyrt.run("run", "--detach-keys", "ctrl", "host", "--", "true")
    assert (done.returncode, b"is no key" in done.stderr) == (125, True)


def test_one_whose_terminal_is_gone_ends(pyrt: Desk) -> None:
    with pyrt.terminal("run", "-it", "--rm", "--name", "shell", "host", "--", "sh") as terminal:
        terminal.type("echo $((6*7))\r")
        terminal.expect("42")
        terminal.process.kill()
    eventually(lambda: pyrt.ok("ps", "-aq") == "")


@pytest.mark.parametrize("options", [(), ("-d",)], ids=["attached", "detached"])
def test_a_keeper_that_is_killed_is_named(pyrt: Desk, options: tuple[str, ...]) -> None:
    if options:
        pyrt.ok("run", "-d", "--name", "box", "host", "--", "sleep", "1000")
        client = pyrt.popen("attach", "box", stderr=subprocess.PIPE)
        eventually(lambda: "box" in pyrt.ok("ps"))
    else:
        client = pyrt.popen("run", "--name", "box", "host", "--", "sleep", "1000", stderr=subprocess.PIPE)
        eventually(lambda: "Up" in pyrt.ok("ps"))
    os.kill(parent_of(int(pyrt.ok("inspect", "-f", "{{.State.Pid}}", "box"))), signal.SIGKILL)
    _, error = client.communicate(timeout=20)
    assert client.returncode == 125
    assert error.startswith(b"pyrt: the keeper of this container was killed")


def test_a_paused_one_that_is_attached_ends_with_its_server(pyrt: Desk) -> None:
    """Nothing dies in the freezer of cgroup version 1: its keeper thaws it, although no server is there to say so."""
    client = pyrt.popen("run", "--name", "box", "host", "--", "sleep", "1000", stderr=subprocess.DEVNULL)
    eventually(lambda: "Up" in pyrt.ok("ps"))
    identifier = pyrt.ok("ps", "-q", "--no-trunc").strip()
    pid = int(pyrt.ok("inspect", "-f", "{{.State.Pid}}", "box"))
    pyrt.ok("pause", "box")
    kill_server(pyrt)
    eventually(lambda: not is_alive(pid))
    eventually(lambda: not list(Path("/sys/fs/cgroup").glob(f"*/pyrt/{identifier}")))
    assert client.wait(20) == 125


def test_a_container_that_is_to_go_at_its_end_goes(pyrt: Desk) -> None:
    detach(pyrt, "exit 0", "--rm", "--name", "brief")
    eventually(lambda: pyrt.ok("ps", "-aq") == "")


def test_it_is_restarted_as_its_policy_says(pyrt: Desk) -> None:
    detach(pyrt, "echo x; exit 1", "--restart", "on-failure:2", "--name", "again")
    eventually(lambda: pyrt.ok("logs", "again") == "x\nx\nx\n" and "Exited (1)" in pyrt.ok("ps", "-a"))
    detach(pyrt, "trap 'exit 0' TERM; while :; do sleep 0.01; done", "--restart", "always", "--name", "ever")
    pid = json.loads(pyrt.ok("inspect", "ever"))[0]["State"]["Pid"]
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: json.loads(pyrt.ok("inspect", "ever"))[0]["State"]["Pid"] not in {0, pid})
    pyrt.ok("stop", "ever")
    assert json.loads(pyrt.ok("inspect", "ever"))[0]["State"]["Status"] == "exited"


def test_its_stop_signal_and_time_are_its_own(pyrt: Desk) -> None:
    options = ("--stop-signal", "USR1", "--stop-timeout", "0.2", "--name", "stubborn")
    detach(pyrt, "trap 'echo asked' USR1; echo ready; while :; do sleep 0.01; done", *options)
    eventually(lambda: pyrt.ok("logs", "stubborn"))
    pyrt.ok("stop", "stubborn")
    assert pyrt.ok("logs", "stubborn") == "ready\nasked\n"
    assert "Exited (137" in pyrt.ok("ps", "-a")


def test_without_a_log_there_is_a_sentence(pyrt: Desk) -> None:
    detach(pyrt, "echo unheard", "--log-driver", "none", "--name", "mute")
    done = pyrt.run("logs", "mute")
    assert done.returncode == 125
    assert b"has no log" in done.stderr


def test_a_log_is_bounded_as_it_is_asked_for(pyrt: Desk, tmp_path: Path) -> None:
    detach(pyrt, "seq 20000", "--log-opt", "max-size=10k", "--log-opt", "max-file=2", "--name", "bounded")
    pyrt.ok("wait", "bounded")
    numbers = [int(line) for line in pyrt.ok("logs", "bounded").split()]
    assert numbers == list(range(numbers[0], 20001))
    assert len(numbers) < 1000


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--restart sometimes", b"is no policy"),
        ("--restart always --rm", b"exclude each other"),
        ("--log-driver syslog", b"is not built"),
        ("--log-opt colour=blue", b"is not known"),
    ],
)
def test_what_can_not_be_is_refused(pyrt: Desk, words: str, sentence: bytes) -> None:
    done = pyrt.run("run", "-d", *words.split(), "host", "--", "true")
    assert done.returncode == 125
    assert sentence in done.stderr


def test_its_health_is_shown(pyrt: Desk) -> None:
    options = ("--health-cmd", "test -e /well", "--health-interval", "50ms", "--health-retries", "1", "--name", "web")
    detach(pyrt, "sleep 1000", *options)
    eventually(lambda: "(unhealthy)" in pyrt.ok("ps"))
    pyrt.ok("exec", "web", "touch", "/well")
    eventually(lambda: "(healthy)" in pyrt.ok("ps"))
    assert pyrt.ok("ps", "--format", "{{.Names}}", "-f", "health=healthy") == "web\n"
    told = pyrt.ok("events", "--since", "0", "--until", "0s", "-f", "event=health_status", "--format", "{{.Action}}")
    assert told == "health_status: unhealthy\nhealth_status: healthy\n"
    health = json.loads(pyrt.ok("inspect", "web"))[0]["State"]["Health"]
    assert (health["Status"], health["FailingStreak"], health["Log"][-1]["ExitCode"]) == ("healthy", 0, 0)


def test_inspect_tells_how_it_lasts(pyrt: Desk) -> None:
    detach(pyrt, "sleep 1000", "--restart", "on-failure:4", "--log-opt", "max-size=1m", "--name", "web")
    document = json.loads(pyrt.ok("inspect", "web"))[0]
    assert document["HostConfig"]["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 4}
    assert document["HostConfig"]["LogConfig"] == {"Type": "local", "Config": {"max-size": "1048576", "max-file": "5"}}
    assert document["RestartCount"] == 0
    assert pyrt.ok("update", "--restart", "always", "--pids-limit", "50", "web") == "web\n"
    form = "{{.HostConfig.RestartPolicy.Name}} {{.HostConfig.PidsLimit}}"
    assert pyrt.ok("inspect", "-f", form, "web") == "always 50\n"


def test_a_container_that_is_stuck_holds_nobody_else_up(pyrt: Desk) -> None:
    """One is paused, its keeper is stopped, and who follows its output does not read: docker would hang."""
    stuck = detach(pyrt, "while :; do echo line; done", "--name", "stuck")
    detach(pyrt, "sleep 1000", "--name", "other")
    keeper = parent_of(int(pyrt.ok("inspect", "-f", "{{.State.Pid}}", "stuck")))
    with pyrt.popen("logs", "-f", "stuck", stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == b"line\n"
        os.kill(reader.pid, signal.SIGSTOP)
        pyrt.ok("pause", "stuck")
        os.kill(keeper, signal.SIGSTOP)
        waiting = pyrt.popen("stop", "-t", "0", "stuck", stdout=subprocess.DEVNULL)
        try:
            assert set(pyrt.ok("ps", "-q", "--no-trunc").split()) > {stuck}
            assert pyrt.ok("exec", "other", "echo", "on") == "on\n"
            assert "container started" in pyrt.ok("events", "--since", "0", "--until", "0s", "--json")
            assert len(detach(pyrt, "sleep 1000")) == 64
            assert waiting.poll() is None
        finally:
            os.kill(keeper, signal.SIGCONT)
            os.kill(reader.pid, signal.SIGCONT)
        assert waiting.wait(20) == 0
        reader.kill()
