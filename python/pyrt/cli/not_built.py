"""Options of ``run`` that Docker has and pyrt does not have yet: refused by name, never ignored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pyrt.cli.parser import Parser

NETWORK: Final = "a container has loopback alone, or the host's network: --network host"
_LEAVE_OUT: Final = "leave it out"
_NOT_BUILT_FLAGS: Final = ((("-P", "--publish-all"), "published ports", NETWORK),)
_NOT_BUILT: Final = (
    (["-p", "--publish", "--expose"], "published ports", NETWORK),
    (
        ["--ip", "--ip6", "--link-local-ip", "--mac-address", "--network-alias", "--net-alias", "--link"],
        "networks",
        NETWORK,
    ),
    (["--volumes-from", "--volume-driver"], "volumes", "-v HOST:DIR shares a folder"),
    (["--gpus"], "GPUs", "--device gives a device"),
    (["--isolation", "--runtime"], "another isolation", _LEAVE_OUT),
    (["--storage-opt"], "options of the storage", _LEAVE_OUT),
    (["--kernel-memory"], "this limit", "-m is the limit of memory"),
)


def add_not_built_options(parser: Parser) -> None:
    """Has each of them refused with one sentence and a hint."""
    for names, what, hint in _NOT_BUILT_FLAGS:
        parser.add_not_built(*names, what=what, hint=hint, takes_value=False)
    for each, what, hint in _NOT_BUILT:
        for name in each:
            parser.add_not_built(name, what=what, hint=hint)
