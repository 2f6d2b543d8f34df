"""The native client and the server, seen by somebody with pipes: what goes in comes in, what comes out is whole."""

from __future__ import annotations

import hashlib
import os
import select
import signal
import subprocess
from typing import IO

import pytest

from tests.cli.desk import Desk, eventually, interrupt, is_alive


def test_output_and_exit_status_are_those_of_the_command(desk: Desk) -> None:
    done = desk.sh("echo out; echo err >&2; exit 7")
    assert (done.stdout, done.stderr, done.returncode) == (b"out\n", b"err\n", 7)


def test_a_command_that_a_signal_ended_gives_128_and_its_number(desk: Desk) -> None:
    assert desk.sh("kill -TERM $$").returncode == 128 + signal.SIGTERM


def test_input_goes_in_and_comes_out_unchanged(desk: Desk) -> None:
    data = os.urandom(8 << 20)
    done = desk.run("run", "-i", "host", "cat", input=data)
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(data).digest()


def test_input_from_a_file_and_output_to_a_file(desk: Desk) -> None:
    source, target = desk.folder / "in", desk.folder / "out"
    source.write_bytes(os.urandom(3 << 20))
    with source.open("rb") as stdin, target.open("wb") as stdout:
        done = desk.run("run", "-i", "host", "cat", stdin=stdin, stdout=stdout, stderr=None, capture_output=False)
    assert done.returncode == 0
    assert target.read_bytes() == source.read_bytes()


def test_a_file_that_is_appended_to_keeps_what_it_had(desk: Desk) -> None:
    target = desk.folder / "log"
    target.write_text("before\n")
    with target.open("ab") as stdout:
        desk.run("run", "host", "echo", "after", stdout=stdout, stderr=None, capture_output=False)
    assert target.read_text() == "before\nafter\n"


def test_without_i_the_command_reads_the_end_of_its_input_at_once(desk: Desk) -> None:
    done = desk.run("run", "host", "cat", input=b"not passed on")
    assert (done.stdout, done.returncode) == (b"", 0)


def test_arguments_and_environment_of_any_bytes(desk: Desk) -> None:
    odd = b"a b\n\xff\xc3\xa9'\""
    environment = {**{os.fsencode(k): os.fsencode(v) for k, v in desk.environment.items()}, b"ODD": odd}
    done = desk.run("run", "-e", "ODD", "host", "sh", "-c", 'printf %s "$ODD|$1"', "sh", odd, env=environment)
    assert done.stdout == odd + b"|" + odd


def test_a_million_bytes_of_arguments(desk: Desk) -> None:
    words = ["x" * 100_000] * 10
    done = desk.run("run", "host", "sh", "-c", "echo $#", "sh", *words)
    assert done.stdout == b"10\n"


def test_relative_paths_are_those_of_the_caller(desk: Desk) -> None:
    (desk.folder / "vars").write_text("# a comment\nA=1\n\nB=two words\n")
    done = desk.sh('echo "$A|$B"', "--env-file", "vars")
    assert done.stdout == b"1|two words\n"


def test_a_descriptor_of_the_caller_can_be_named(desk: Desk) -> None:
    done = desk.run("run", "--env-file", "/dev/stdin", "host", "sh", "-c", "echo $A", input=b"A=piped\n")
    assert done.stdout == b"piped\n"


def test_a_reader_that_leaves_ends_what_writes_for_ever(desk: Desk) -> None:
    client = desk.popen("run", "host", "yes", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert client.stdout
    assert client.stderr
    assert client.stdout.read(4) == b"y\ny\n"
    client.stdout.close()
    assert client.wait(20) != 0
    client.stderr.close()


def test_output_that_can_not_be_written_is_said_and_no_success(desk: Desk) -> None:
    with open("/dev/full", "wb") as full:
        done = desk.run("run", "host", "echo", "lost", stdout=full, stderr=subprocess.PIPE, capture_output=False)
    assert done.returncode == 125
    assert b"No space left on device" in done.stderr


def test_a_signal_reaches_the_command(desk: Desk) -> None:
    script = "trap 'echo caught; exit 9' TERM; echo ready; while :; do sleep 0.01; done"
    client = desk.script(script)
    assert client.stdout
    client.send_signal(signal.SIGTERM)
    assert client.stdout.read() == b"caught\n"
    assert client.wait(20) == 9
    client.stdout.close()


def test_a_signal_gets_through_while_nobody_reads_the_output(desk: Desk) -> None:
    caught = desk.folder / "caught"
    script = f"trap 'touch {caught}; exit 9' TERM; echo ready; while :; do echo xxxxxxxxxxxxxxxx; done & wait"
    client = desk.script(script, stderr=subprocess.DEVNULL)
    assert client.stdout
    eventually(lambda: _is_full(client.stdout))
    client.send_signal(signal.SIGTERM)
    eventually(caught.exists)
    client.kill()
    client.wait(20)
    client.stdout.close()


def _is_full(pipe: IO[bytes] | None) -> bool:
    """Whether nothing more goes in: asked at a writing end of our own."""
    assert pipe
    writer = os.open(f"/proc/self/fd/{pipe.fileno()}", os.O_WRONLY | os.O_NONBLOCK)
    try:
        return not select.select([], [writer], [], 0)[1]
    finally:
        os.close(writer)


def test_the_third_request_to_end_ends_the_client_and_what_runs(desk: Desk) -> None:
    script = "trap '' INT; echo $$; while :; do sleep 0.01; done"
    client = desk.popen("run", "host", "sh", "-c", script, stdout=subprocess.PIPE)
    assert client.stdout
    process = int(client.stdout.readline())
    for _ in range(3):
        interrupt(client)
    assert client.wait(20) == -signal.SIGINT
    client.stdout.close()
    eventually(lambda: not is_alive(process))


def test_a_client_that_is_killed_takes_its_command_with_it(desk: Desk) -> None:
    client = desk.popen("run", "host", "sh", "-c", "echo $$; exec sleep 1000", stdout=subprocess.PIPE)
    assert client.stdout
    process = int(client.stdout.readline())
    client.kill()
    client.wait(20)
    client.stdout.close()
    eventually(lambda: not is_alive(process))


def test_an_ignored_signal_stays_ignored(desk: Desk) -> None:
    """nohup, and shells for what runs in the background."""
    client = desk.popen(
        "run",
        "host",
        "sh",
        "-c",
        "echo ready; cat >/dev/null; echo done",
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    client.send_signal(signal.SIGHUP)
    assert client.communicate(timeout=20)[0] == b"ready\ndone\n"
    assert client.returncode == 0


def test_errors_are_a_sentence_and_a_hint_and_never_a_traceback(desk: Desk) -> None:
    done = desk.run("run", "host", "no-such-command")
    assert done.returncode == 127
    assert done.stderr == b"pyrt: no-such-command is not there\nhint: look for it\n"
    assert desk.run("rnu").stderr == b"pyrt: pyrt has no verb rnu\nhint: did you mean run?\n"
    assert desk.run("rnu").returncode == 125


def test_an_unexpected_error_is_a_sentence_too_and_its_details_are_in_the_log(desk: Desk) -> None:
    done = desk.run("system", "df")  # Of which the stand-in knows nothing.
    assert done.returncode == 125
    assert done.stderr.startswith(b"pyrt: something went wrong that should not have: AttributeError")
    assert b"Traceback" not in done.stderr
    assert b"Traceback" in (desk.run_folder / "pyrt.log").read_bytes()


@pytest.mark.parametrize(
    ("option", "words"),
    [("-P", b"-P is not built yet"), ("-p80:80", b"-p is not built yet"), ("--gpus=all", b"--gpus is not built yet")],
)
def test_what_is_not_built_is_refused_by_name(desk: Desk, option: str, words: bytes) -> None:
    done = desk.run("run", option, "host", "true")
    assert done.returncode == 125
    assert words in done.stderr
    assert b"hint: " in done.stderr
