"""``python -m pyrt``: the server, or one verb in this very process with an engine of its own."""

from __future__ import annotations

import os
import resource
import signal
import sys
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Final

import trio

from pyrt.cli import VERSION
from pyrt.cli.activation import inherited_listener, say_ready
from pyrt.cli.dispatch import dispatch, first_of, log, unexpected
from pyrt.cli.local import LocalConsole
from pyrt.cli.log import log_to
from pyrt.cli.parser import HelpWanted
from pyrt.cli.place import Place
from pyrt.cli.verbs import parser_of
from pyrt.errors import PyrtError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager

    from pyrt.cli.server import OpenEngine
    from pyrt.engine.engine import Engine

READY: Final = "ready"
"""The last line of a server that was started by a client (``rust/client/src/launch.rs``)."""


def _usual_engine() -> AbstractAsyncContextManager[Engine]:
    from pyrt.engine.engine import open_engine

    return open_engine()


def main(arguments: Sequence[str], open_engine: OpenEngine = _usual_engine) -> int:
    """Runs one command line; returns its exit status."""
    # Whoever starts the server, containers begin with the umask that they know from Docker.
    os.umask(0o022)
    log_name = "the log"
    try:
        place = Place.find(os.environ)
        place.prepare()
        log_name = str(place.log)
        log_to(place.log)
        if arguments[:1] == ["serve"]:
            return _serve(place, arguments[1:], open_engine)
    except* PyrtError as group:
        error = first_of(group)
    except* Exception as group:
        log.error("the server failed", exc_info=group)
        error = unexpected(group, log_name)
    else:
        return _run(place, arguments, open_engine)
    print(f"pyrt: {error.message}", *([f"hint: {error.hint}"] if error.hint else []), sep="\n", file=sys.stderr)
    return error.exit_code


# ---- one verb ----


def _run(place: Place, arguments: Sequence[str], open_engine: OpenEngine) -> int:
    status, ended_by = trio.run(_verb, place, arguments, open_engine)
    if ended_by:
        _die_of(ended_by)
    return status


async def _verb(place: Place, arguments: Sequence[str], open_engine: OpenEngine) -> tuple[int, int]:
    status = 0
    async with LocalConsole.open() as console:
        # The engine's nursery is opened within the verb's scope, and so has to be closed within it.
        with console.verb:
            async with AsyncExitStack() as stack:

                async def engine() -> Engine:
                    return await stack.enter_async_context(open_engine())

                status = await dispatch(console, arguments, engine, log_name=str(place.log))
    return status, console.ended_by


def _die_of(number: int) -> None:
    """Ends this process by a signal, so that a shell sees what happened; without a core file, as nothing is wrong."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


# ---- the server ----


def _serve(place: Place, arguments: Sequence[str], open_engine: OpenEngine) -> int:
    from pyrt.cli.server import Server

    parser = parser_of("serve")
    try:
        options = parser.parse(arguments)
    except HelpWanted:
        print(parser.text(80))
        return 0
    inherited = inherited_listener(place.socket)
    announce = _say_ready_and_detach if options.background else lambda: _say_ready(place)
    trio.run(lambda: Server(place, VERSION, open_engine, inherited).run(idle=options.idle, announce=announce))
    return 0


def _say_ready(place: Place) -> None:
    print(f"pyrt {VERSION} serves at {place.socket}", flush=True)
    say_ready()


def _say_ready_and_detach() -> None:
    """Tells the client that has started this process, and lets go of the pipe to it."""
    # The client may have been killed meanwhile: others will come.
    with suppress(BrokenPipeError):
        print(READY, flush=True)
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for number in range(3):
        os.dup2(null, number)
    os.close(null)
