"""``pyrt exec``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrt.cli.attached import Attachment, add_terminal_options, follow
from pyrt.cli.environment import add_environment_options, environment_of
from pyrt.cli.parser import Help, Parser
from pyrt.errors import UsageError

if TYPE_CHECKING:
    from pyrt.cli.verbs import Invocation

HELP = Help(
    "exec [OPTIONS] CONTAINER COMMAND [ARG ...]",
    "Runs another command in a container that runs, and ends with its exit status.",
    (
        ("pyrt exec -it web bash", "a shell in it"),
        ("pyrt exec -u 0 -w /srv web ls -l", ""),
        ("pyrt exec -i db psql < dump.sql", ""),
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
    parser.add_not_built("-d", "--detach", what="a command in the background", hint="end it with &", takes_value=False)
    parser.add_not_built("--detach-keys", what="leaving a container that runs on", hint="leave the option out")


async def main(invocation: Invocation) -> int:
    options, console, engine = invocation.options, invocation.console, invocation.engine
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        raise UsageError("there is no command to execute", hint=f"usage: pyrt {HELP.usage}")
    attachment = Attachment(interactive=options.interactive, tty=options.tty)
    attachment.check(console)
    execution = await engine.exec(
        options.container,
        command,
        wants_stdin=options.interactive,
        user=options.user,
        workdir=options.workdir,
        env=dict(await environment_of(options, console)),
        privileged=options.privileged,
        tty=options.tty,
        rows=console.rows,
        columns=console.columns,
    )
    try:
        status = await follow(console, execution, attachment, execution.kill)
    except BaseException:
        await execution.destroy("client gone")
        raise
    return status.exit_code
