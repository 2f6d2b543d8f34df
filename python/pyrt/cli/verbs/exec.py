"""``pyrt exec``."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pyrt.cli.attached import Attachment, add_terminal_options, exit_code_of, follow, takes_ends
from pyrt.cli.environment import add_environment_options, environment_of
from pyrt.cli.parser import Help, Parser
from pyrt.cli.tied import parse_keys, tie_execution
from pyrt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyrt.cli.verbs import Invocation
    from pyrt.engine.container import Execution

HELP = Help(
    "exec [OPTIONS] CONTAINER COMMAND [ARG ...]",
    "Runs another command in a container that runs, and ends with its exit status.",
    (
        ("pyrt exec -it web bash", "a shell in it"),
        ("pyrt exec -u 0 -w /srv web ls -l", ""),
        ("pyrt exec -i db psql < dump.sql", ""),
        ("pyrt exec -d web /usr/sbin/logrotate", "without waiting for it"),
    ),
)


def arguments(parser: Parser) -> None:
    parser.add_argument("container", metavar="CONTAINER", help="a name or an id")
    parser.add_command("what to run")
    add_terminal_options(parser)
    add_environment_options(parser)
    parser.add_argument("-u", "--user", default="", metavar="USER[:GROUP]", help="as whom: names or numbers")
    parser.add_argument("-w", "--workdir", default="", metavar="DIR", help="where in the container")
    parser.add_argument("--privileged", action="store_true", help="with all capabilities")
    parser.add_argument("-d", "--detach", action="store_true", help="in the background, without its output")
    parser.add_argument(
        "--detach-keys", default="", metavar="KEYS", help="with -it, leave it running by these keys (none)"
    )


async def main(invocation: Invocation) -> int:
    options, console = invocation.options, invocation.console
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        raise UsageError("there is no command to execute", hint=f"usage: pyrt {HELP.usage}")
    attachment = Attachment(interactive=options.interactive, tty=options.tty)
    if options.detach_keys:
        parse_keys(options.detach_keys)
    if not options.detach:
        attachment.check(console)
    with background(wanted=options.detach) as stdio:
        execution = await _start(invocation, command, attachment, stdio)
    if options.detach:
        return 0
    try:
        if options.detach_keys and options.tty and options.interactive:
            status = await tie_execution(console, invocation.engine, execution, options.detach_keys)
            if status is None:
                return 0
        else:
            status = await follow(console, execution, attachment, execution.kill)
    except BaseException:
        await execution.destroy("client gone")
        raise
    return await exit_code_of(console, status, "process")


async def _start(
    invocation: Invocation, command: list[str], attachment: Attachment, stdio: tuple[int, int, int] | None
) -> Execution:
    options, console = invocation.options, invocation.console
    return await invocation.engine.exec(
        options.container,
        command,
        stdio=stdio,
        wants_stdin=options.interactive,
        take_ends=takes_ends(console, attachment),
        user=options.user,
        workdir=options.workdir,
        env=dict(await environment_of(options, console)),
        privileged=options.privileged,
        tty=options.tty and not options.detach,
        rows=console.rows,
        columns=console.columns,
    )


@contextmanager
def background(*, wanted: bool) -> Iterator[tuple[int, int, int] | None]:
    """Standard streams for what runs in the background: nothing comes, and what goes is lost."""
    if not wanted:
        yield None
        return
    nothing = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    try:
        yield nothing, nothing, nothing
    finally:
        os.close(nothing)
