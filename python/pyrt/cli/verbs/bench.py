"""``pyrt bench startup``: measures in a process of its own, which has state folders of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pyrt.cli.measuring import run_bench
from pyrt.cli.parser import Help, Parser

if TYPE_CHECKING:
    from pyrt.cli.verbs import Invocation

HELP = Help(
    "bench startup [OPTIONS]",
    "Measures how long a start takes on this machine: the least that is possible, pyrt, whatever else is installed\n"
    "(bubblewrap, crun, runc, lxc, systemd-nspawn, containerd, Podman, Docker), and a virtual machine. Takes some\n"
    "minutes; leaves samples as JSON and a picture.",
    (
        ("pyrt bench startup", ""),
        ("pyrt bench startup --samples 20 --gap-samples 10 --guest-samples 0", "quick, without a virtual machine"),
    ),
)
_NUMBERS: Final = {
    "samples": "of each case, back to back (200)",
    "gap-samples": "of each case, with 100 ms of quiet before (50)",
    "guest-samples": "of the virtual machine; 0: none (10)",
}


def arguments(parser: Parser) -> None:
    for name, text in _NUMBERS.items():
        parser.add_argument(f"--{name}", type=int, metavar="N", help=text)
    parser.add_argument("--out", default="pyrt-bench", metavar="FOLDER", help="for samples and picture (pyrt-bench)")


async def main(invocation: Invocation) -> int:
    options, console = invocation.options, invocation.console
    return await run_bench(console, ["startup", "--out", str(console.path(options.out)), *_given(options)])


def _given(options: Any) -> list[str]:
    given = {name: getattr(options, name.replace("-", "_")) for name in _NUMBERS}
    return [word for name, number in given.items() if number is not None for word in (f"--{name}", str(number))]
