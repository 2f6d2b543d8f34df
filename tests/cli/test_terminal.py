"""The command on a real terminal: size, keys, raw mode and its end, stops, interrupts."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from tests.cli.desk import Desk, eventually, is_alive

if TYPE_CHECKING:
    from collections.abc import Sequence

# Without a log there is nothing between the two terminals: the other way is looked at in test_detached.
SHELL: Sequence[str] = ("run", "-it", "--log-driver", "none", "-e", "PS1=prompt>", "host", "sh", "-i")


def test_a_shell_has_a_terminal_of_the_size_of_ours_and_follows_it(desk: Desk) -> None:
    with desk.terminal(*SHELL, rows=33, columns=101) as terminal:
        terminal.expect("prompt>")
        terminal.type("stty size\r")
        terminal.expect("33 101")
        terminal.type("trap 'stty size' WINCH; echo n''ow\r")
        terminal.expect("now")
        terminal.resize(44, 120)
        terminal.type("\r")
        terminal.expect("44 120")
        terminal.type("exit 5\r")
        assert terminal.wait() == 5
        assert terminal.mode() == terminal.usual_mode


def test_keys_go_in_as_they_are_and_interrupt_what_runs_inside(desk: Desk) -> None:
    with desk.terminal(*SHELL) as terminal:
        terminal.expect("prompt>")
        assert terminal.is_raw()
        terminal.type("exec cat\rline\r")
        terminal.expect("line\r\nline\r\n")
        terminal.type("\x03")
        assert terminal.wait() == 128 + signal.SIGINT
        assert terminal.mode() == terminal.usual_mode


def test_the_end_of_input_is_a_key(desk: Desk) -> None:
    with desk.terminal(*SHELL) as terminal:
        terminal.expect("prompt>")
        terminal.type("\x04")
        assert terminal.wait() == 0
        assert terminal.mode() == terminal.usual_mode


def test_without_keys_the_terminal_stays_as_it_is(desk: Desk) -> None:
    with desk.terminal("run", "-t", "host", "tty") as terminal:
        terminal.expect("/dev/pts/")
        assert terminal.wait() == 0
        assert terminal.mode() == terminal.usual_mode


def test_an_interrupt_reaches_a_command_without_a_terminal_once(desk: Desk) -> None:
    script = "trap 'echo interrupted; exit 3' INT; echo ready; while :; do sleep 0.01; done"
    with desk.terminal("run", "-i", "host", "sh", "-c", script) as terminal:
        terminal.expect("ready")
        terminal.type("\x03")
        terminal.expect("interrupted")
        assert terminal.wait() == 3
        assert terminal.shown.count(b"interrupted") == 1


def test_an_interrupt_ends_a_verb_without_a_container(desk: Desk) -> None:
    with desk.terminal("images") as terminal:
        eventually((desk.run_folder / "waits").exists)
        terminal.type("\x03")
        assert terminal.wait() == -signal.SIGINT


def test_a_stop_stops_the_client_and_it_goes_on(desk: Desk) -> None:
    with desk.shell() as shell:
        shell.type("pyrt run -i host sh -c 'echo re''ady; read line; echo got $line'\n")
        shell.expect("ready")
        shell.type("\x1a")
        shell.expect("Stopped")
        shell.type("fg\n")
        shell.expect("pyrt run")
        shell.type("it\n")
        shell.expect("got it")
        shell.expect("bash>")


def test_a_stop_from_outside_gives_the_terminal_back_for_its_time(desk: Desk) -> None:
    with desk.shell() as shell:
        shell.type("pyrt run -it --log-driver none -e 'PS1=prompt>' host sh -i\n")
        shell.expect("prompt>'")
        shell.expect("prompt>")
        assert shell.is_raw()
        client = _child_of(shell.process.pid)
        os.kill(client, signal.SIGTSTP)
        shell.expect("Stopped")
        shell.expect("bash>")
        shell.type("stty -a | grep -o '.icanon'\n")
        shell.expect(" icanon")
        shell.resize(50, 90)
        shell.type("fg\n")
        eventually(shell.is_raw)
        shell.type("stty size\r")
        shell.expect("50 90")
        shell.type("exit\r")
        shell.expect("bash>")
        shell.type("stty -a | grep -o '.icanon'\n")
        shell.expect(" icanon")


def _child_of(process: int) -> int:
    return int(Path(f"/proc/{process}/task/{process}/children").read_text().split()[0])


def test_a_client_that_is_killed_leaves_no_raw_terminal_and_no_command(desk: Desk) -> None:
    with desk.terminal(*SHELL) as terminal:
        terminal.expect("prompt>")
        terminal.type("echo pid=$$.\r")
        terminal.expect("pid=$$")
        terminal.expect("pid=")
        terminal.expect(".")
        process = int(terminal.shown.split(b"pid=")[-1].split(b".")[0])
        terminal.process.kill()
        terminal.process.wait()
        eventually(lambda: terminal.mode() == terminal.usual_mode)
        eventually(lambda: not is_alive(process))


def test_a_server_that_is_killed_leaves_no_raw_terminal(desk: Desk) -> None:
    with desk.terminal(*SHELL) as terminal:
        terminal.expect("prompt>")
        os.kill(desk.server(), signal.SIGKILL)
        assert terminal.wait() == 125
        assert b"the server has ended in the middle" in terminal.shown
        assert terminal.mode() == terminal.usual_mode
    desk.socket.unlink()


def test_a_terminal_that_goes_away_ends_the_client_and_its_command(desk: Desk) -> None:
    with desk.terminal(*SHELL) as terminal:
        terminal.expect("prompt>")
        terminal.type("echo pid=$$.\r")
        terminal.expect("pid=$$")
        terminal.expect("pid=")
        terminal.expect(".")
        process = int(terminal.shown.split(b"pid=")[-1].split(b".")[0])
        os.close(terminal.slave)
        terminal.slave = -1
        os.close(terminal.master)
        assert terminal.process.wait(20) == -signal.SIGHUP
        terminal.master = os.open("/dev/null", os.O_RDWR)
        eventually(lambda: not is_alive(process))


def test_a_megabyte_of_output_comes_whole(desk: Desk) -> None:
    with desk.terminal("run", "-t", "host", "sh", "-c", "seq 1 100000") as terminal:
        terminal.expect("100000")
        assert terminal.wait() == 0
        shown = terminal.shown.replace(b"\r", b"").split()
        assert shown == [str(number).encode() for number in range(1, 100_001)]


def test_keys_are_wanted_where_there_is_no_terminal(desk: Desk) -> None:
    done = desk.run("run", "-it", "host", "sh", input=b"echo\n")
    assert done.returncode == 125
    assert b"stdin is none" in done.stderr
