"""``pyrt completion``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyrt.cli.completion import SHELLS
from pyrt.cli.parser import Help, Parser

if TYPE_CHECKING:
    from pyrt.cli.verbs import Invocation

HELP = Help(
    "completion bash|zsh|fish",
    "Prints a script that completes what you type.",
    (
        ("source <(pyrt completion bash)", "in ~/.bashrc"),
        ("source <(pyrt completion zsh)", "in ~/.zshrc, after compinit"),
        ("pyrt completion fish > ~/.config/fish/completions/pyrt.fish", ""),
    ),
)


def arguments(parser: Parser) -> None:
    parser.add_argument("shell", choices=SHELLS, metavar="bash|zsh|fish", help="which shell")


async def main(invocation: Invocation) -> int:
    await invocation.console.out(SHELLS[invocation.options.shell]())
    return 0
