"""``pyrt serve``. The process that was started with this verb becomes the server in ``main``; here is what it takes."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from pyrt.cli.parser import Help, Parser
from pyrt.cli.server import USUAL_IDLE
from pyrt.errors import UsageError

if TYPE_CHECKING:
    from pyrt.cli.verbs import Invocation

HELP = Help(
    usage="serve [OPTIONS]",
    about="Serves clients of this user in the foreground. Usually the first command starts a server by itself.",
    examples=(
        ("pyrt serve --idle 0", "until it gets SIGTERM"),
        ("systemd-socket-activate -l /run/pyrt/pyrt.sock pyrt serve", "on a socket that systemd hands over"),
        ("PYRT_RUN=/tmp/run PYRT_ROOT=/tmp/state pyrt serve", "beside the usual one"),
    ),
)


def arguments(parser: Parser) -> None:
    parser.add_argument(
        "--idle",
        type=float,
        default=USUAL_IDLE,
        metavar="SECONDS",
        help="end after so many seconds without clients and containers; 0: never",
    )
    parser.add_argument("--background", action="store_true", help=argparse.SUPPRESS)


async def main(invocation: Invocation) -> int:
    raise UsageError("a server can't become another", hint="run pyrt serve by itself")
