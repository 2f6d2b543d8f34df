"""From a command line to an exit status: finds the verb, runs it, and says its errors, once and here."""

from __future__ import annotations

import logging
import os
import traceback
from typing import TYPE_CHECKING, Final

from pyrt.cli.console import STDERR
from pyrt.cli.parser import HelpWanted
from pyrt.cli.styles import paint, visible
from pyrt.cli.verbs import VERBS, Invocation, find, module_of, parser_of
from pyrt.errors import SCARCE, HostError, PyrtError, UsageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from pyrt.cli.console import Console
    from pyrt.engine.engine import Engine

OWN_ERROR: Final = 125

log: Final = logging.getLogger("pyrt")


async def dispatch(
    console: Console, arguments: Sequence[str], open_engine: Callable[[], Awaitable[Engine]], *, log_name: str
) -> int:
    """Runs one command for ``console``. ``log_name`` is where the log is kept, for the user."""
    try:
        return await _run(console, arguments, open_engine)
    except* PyrtError as group:
        error = first_of(group)
        if isinstance(error, UsageError) and not error.hint and arguments:
            error.hint = f"see pyrt {arguments[0]} --help"
    except* Exception as group:
        log.error("a command failed", extra={"arguments": list(arguments)}, exc_info=group)
        error = unexpected(group, log_name)
    await report(console, error)
    return error.exit_code


async def _run(console: Console, arguments: Sequence[str], open_engine: Callable[[], Awaitable[Engine]]) -> int:
    name, rest = find(_translated(arguments))
    parser = parser_of(name)
    try:
        options = parser.parse(rest)
    except HelpWanted:
        await console.out(parser.text(console.columns))
        return 0
    engine = await open_engine() if VERBS[name].engine else None
    return await module_of(name).main(Invocation(console, engine, options))  # type: ignore[arg-type]


def _translated(arguments: Sequence[str]) -> Sequence[str]:
    """What people type instead of a verb."""
    if not arguments or arguments[0] in {"-h", "--help"}:
        return ["help", *arguments[1:]]
    return ["version"] if arguments[0] in {"-v", "--version"} else arguments


def first_of(group: BaseExceptionGroup[PyrtError]) -> PyrtError:
    """The error to tell the user: of several that come at once the first is the cause."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, PyrtError)
    return error


def unexpected(group: BaseExceptionGroup[Exception], log_name: str) -> PyrtError:
    """What to say of an error that is a mistake in pyrt; ``log_name`` has been told the rest."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, OSError) and (hint := SCARCE.get(error.errno or 0)):
        where = f": {error.filename}" if error.filename else ""
        return HostError(f"{os.strerror(error.errno or 0).lower()}{where}", hint=hint)
    what = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
    return PyrtError(f"something went wrong that should not have: {what}", hint=f"{log_name} has the details")


async def report(console: Console, error: PyrtError) -> None:
    """One sentence, and what to do about it."""
    colour = console.has_colour(STDERR)
    lines = [f"{paint('pyrt:', 'red', colour=colour)} {visible(error.message)}"]
    if error.hint:
        lines += [f"{paint('hint:', 'cyan', colour=colour)} {visible(line)}" for line in error.hint.splitlines()]
    await console.err("\n".join(lines) + "\n")
