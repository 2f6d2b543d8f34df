"""A process with the user's own streams: what ``run`` and ``exec`` have in common once it runs.

What flows does not come through here. The console gets our ends of the pipes, or the terminal's master, and the
native client copies; here is who is told of signals, and how it ends.
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final

import msgspec

from pyrt.engine.pipes import Reader
from pyrt.engine.results import Verdict
from pyrt.errors import EngineError, UsageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pyrt.cli.console import Console
    from pyrt.cli.parser import Parser
    from pyrt.engine.attended import Attended
    from pyrt.engine.pipes import Writer
    from pyrt.engine.results import ExitStatus

STREAMS: Final = ("stdin", "stdout", "stderr")


class Attachment(msgspec.Struct, frozen=True):
    """How a process is tied to the user: which streams, a terminal or pipes, and whether signals are passed on."""

    interactive: bool
    tty: bool
    outputs: frozenset[str] = frozenset(STREAMS[1:])
    forwards_signals: bool = True

    def check(self, console: Console) -> None:
        """Raises UsageError where keys are wanted and there is no terminal to get them from."""
        if self.tty and self.interactive and not console.terminals[0]:
            raise UsageError(
                "-t wants a terminal, and stdin is none", hint="leave -t out to pipe something in: -i alone does that"
            )


def add_terminal_options(parser: Parser) -> None:
    """-i and -t."""
    parser.add_argument("-i", "--interactive", action="store_true", help="pass stdin on")
    parser.add_argument("-t", "--tty", action="store_true", help="give it a terminal; with -i also your keys")


def takes_ends(console: Console, attachment: Attachment) -> Callable[[int, int, int], object]:
    """For who starts a process that nobody can call by a name: its pipes are the console's while it is being started.

    So its output may be seen before it is on record that it runs.
    """

    def take(stdin: int, stdout: int, stderr: int) -> None:
        console.start_soon(_relay, console, attachment, stdin, stdout, stderr)

    return take


async def follow(
    console: Console, process: Attended, attachment: Attachment, send: Callable[[int], Awaitable[None]]
) -> ExitStatus:
    """Ties a running process to the user until it has ended; ``send`` sends it a signal.

    Whatever its pipes hold comes before what is written to the console afterwards.
    """
    # Nothing is waited for but the process: each task that has to be cancelled first delays the answer by two turns.
    with console.signals_to(send) if attachment.forwards_signals else nullcontext():
        if attachment.tty:
            master = os.dup(process.stdout.fileno())
            process.close_streams()
            await console.relay_terminal(master, keys=attachment.interactive)
        elif process.stdout.fileno() >= 0:  # Else the console has had them since before the start.
            stdin, stdout, stderr = _taken(process.stdin), _taken(process.stdout), _taken(process.stderr)
            await _relay(console, attachment, stdin, stdout, stderr)
        status = await process.wait()
    await console.settle()
    return status


async def exit_code_of(console: Console, status: ExitStatus, what: str = "container") -> int:
    """What a command ends with that was tied to a process: as that did, or with a sentence if nobody saw it end."""
    if status.verdict is not Verdict.LOST:
        return status.exit_code
    await console.err(
        f"pyrt: the keeper of this {what} was killed, and the {what} with it: nobody saw how it ended\n"
        "hint: the kernel's log tells whether it was for want of memory\n"
    )
    return EngineError.exit_code


def _taken(end: Reader | Writer) -> int:
    """A copy of an end of a pipe, -1 where there is none; the engine's own is closed: so ends mean what they say."""
    copy = os.dup(end.fileno()) if end.fileno() >= 0 else -1
    end.close()
    return copy


async def _relay(console: Console, attachment: Attachment, stdin: int, stdout: int, stderr: int) -> None:
    """Gives the console the ends of a process's pipes."""
    wanted = {"input": stdin} if stdin >= 0 else {}
    for stream, name, end in (("stdout", "output", stdout), ("stderr", "error", stderr)):
        if stream in attachment.outputs:
            wanted[name] = end
        else:
            console.start_soon(discard, Reader(end))
    await console.relay(**wanted)


async def discard(reader: Reader) -> None:
    """So that a container whose output nobody wants is not held up by a full pipe."""
    try:
        async for _ in reader:
            pass
    finally:
        reader.close()
