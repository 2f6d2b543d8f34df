"""The verbs: a table of what there is, and one module for each.

A module has ``HELP``, ``arguments(parser)`` and ``main(invocation) -> exit status``, and is imported when its verb is
first used. Verbs of two words ("image ls") are one entry here.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import msgspec

from pyrt.cli.parser import Help, Parser, did_you_mean
from pyrt.errors import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from pyrt.cli.console import Console
    from pyrt.engine.engine import Engine


class Invocation(msgspec.Struct, frozen=True):
    """One verb, about to be run. ``engine`` is None for a verb that does without (``Verb.engine``)."""

    console: Console
    engine: Engine
    options: argparse.Namespace


class Module(Protocol):
    """What a verb's module has."""

    HELP: Help

    def arguments(self, parser: Parser) -> None: ...

    async def main(self, invocation: Invocation) -> int: ...


class Verb(msgspec.Struct, frozen=True):
    """``module`` below this package, one line for the overview, and whether it needs an engine."""

    module: str
    summary: str
    engine: bool = True
    hidden: bool = False


CONTAINERS: Final = "Containers"
IMAGES: Final = "Images"
OTHERS: Final = "Others"

SECTIONS: Final[dict[str, dict[str, Verb]]] = {
    CONTAINERS: {
        "run": Verb("run", "run a command in a new container"),
        "create": Verb("create", "make a container, and start it later"),
        "start": Verb("start", "start containers that do not run"),
        "restart": Verb("restart", "stop containers and start them again"),
        "attach": Verb("attach", "tie a detached container to this terminal"),
        "logs": Verb("logs", "what a detached container has written"),
        "wait": Verb("wait", "wait until containers have ended"),
        "exec": Verb("exec", "run another command in a running container"),
        "ps": Verb("ps", "list containers"),
        "inspect": Verb("inspect", "all that is known of a container or an image"),
        "top": Verb("top", "the processes of a container"),
        "stats": Verb("stats", "what containers use of the machine"),
        "port": Verb("port", "the published ports of a container"),
        "kill": Verb("kill", "send a container a signal"),
        "stop": Verb("stop", "ask a container to end, and kill it if it does not"),
        "pause": Verb("pause", "freeze the processes of containers"),
        "unpause": Verb("unpause", "let the processes of containers go on"),
        "rename": Verb("rename", "give a container another name"),
        "update": Verb("update", "change limits and restart policies of containers"),
        "rm": Verb("rm", "remove containers"),
        "diff": Verb("diff", "what a container has changed of its files"),
        "cp": Verb("cp", "copy files out of a container or into it"),
        "export": Verb("export", "write the files of a container as a tar"),
        "commit": Verb("commit", "make an image of a container"),
        "events": Verb("events", "what happened, and what happens"),
        "explain": Verb("explain", "every step that would make a container"),
        "container prune": Verb("prune_containers", "remove containers that do not run"),
    },
    IMAGES: {
        "pull": Verb("pull", "get an image from a registry"),
        "load": Verb("load", "get images from an archive or a folder"),
        "save": Verb("save", "write images to an archive"),
        "import": Verb("import_", "make an image of a root file system"),
        "images": Verb("images", "list images"),
        "tag": Verb("tag", "give an image another name"),
        "rmi": Verb("rmi", "remove images"),
        "image ls": Verb("images", "the same as images", hidden=True),
        "image history": Verb("history", "how an image was made"),
        "image import": Verb("import_", "the same as import", hidden=True),
        "image inspect": Verb("inspect_image", "all that is known of an image"),
        "image prune": Verb("prune_images", "remove images that nothing uses"),
        "image pull": Verb("pull", "the same as pull", hidden=True),
        "image load": Verb("load", "the same as load", hidden=True),
        "image save": Verb("save", "the same as save", hidden=True),
        "image rm": Verb("rmi", "the same as rmi", hidden=True),
        "image tag": Verb("tag", "the same as tag", hidden=True),
        "history": Verb("history", "the same as image history", hidden=True),
    },
    OTHERS: {
        "system df": Verb("df", "what takes how much of the disk"),
        "system prune": Verb("prune", "remove ended containers and unused images"),
        "system install": Verb("install", "make pyrt a service that is there from boot on", engine=False),
        "system uninstall": Verb("uninstall", "take that service away", engine=False),
        "system info": Verb("info", "the same as info", hidden=True),
        "info": Verb("info", "this machine, as pyrt sees it"),
        "bench startup": Verb("bench", "how long starts take on this machine, beside other tools", engine=False),
        "version": Verb("version", "the version", engine=False),
        "serve": Verb("serve", "be the server, in the foreground", engine=False),
        "completion": Verb("completion", "a script that completes what you type in bash, zsh or fish", engine=False),
        "help": Verb("help", "this overview, or the help of a verb", engine=False),
        "__complete": Verb("complete", "what could come next on a command line", hidden=True),
    },
}


def _with_long_names(section: dict[str, Verb]) -> None:
    """Docker's other name of each verb on containers: "container ps"."""
    for name, verb in [*section.items()]:
        if " " not in name and name not in {"events", "explain"}:
            section[f"container {name}"] = msgspec.structs.replace(verb, summary=f"the same as {name}", hidden=True)
    section["container ls"] = Verb("ps", "the same as ps", hidden=True)
    section["container list"] = Verb("ps", "the same as ps", hidden=True)


_with_long_names(SECTIONS[CONTAINERS])

VERBS: Final = {name: verb for section in SECTIONS.values() for name, verb in section.items()}

_GROUPS: Final = frozenset(name.split()[0] for name in VERBS if " " in name)

NOT_BUILT: Final = frozenset("build buildx builder compose login logout network push search volume".split())
"""Verbs that Docker has and pyrt does not have yet."""


def find(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The verb's name and what follows it; raises UsageError with a guess."""
    first, *rest = arguments
    pair = f"{first} {rest[0]}" if rest else first
    if pair in VERBS:
        return pair, rest[1:] if rest else []
    if first in VERBS:
        return first, rest
    if first in _GROUPS:
        return _refuse_in_group(first, rest)
    if first in NOT_BUILT:
        raise UsageError(f"pyrt {first} is not built yet", hint="pyrt help lists what there is")
    raise UsageError(f"pyrt has no verb {first}", hint=did_you_mean(first, VERBS) or "pyrt help lists them")


def _refuse_in_group(group: str, rest: list[str]) -> tuple[str, list[str]]:
    members = sorted(name for name in VERBS if name.startswith(f"{group} "))
    if not rest or rest[0] in {"-h", "--help"}:
        return "help", [group]
    guess = did_you_mean(f"{group} {rest[0]}", members)
    words = ", ".join(name.split()[1] for name in members)
    raise UsageError(f"pyrt {group} has no verb {rest[0]}", hint=guess or f"it has {words}")


@cache
def module_of(name: str) -> Module:
    """The module of a verb, imported."""
    module: Any = import_module(f"{__name__}.{VERBS[name].module}")
    return cast("Module", module)


@cache
def parser_of(name: str) -> Parser:
    """The parser of a verb, built."""
    module = module_of(name)
    parser = Parser(name, module.HELP, short_help=name.split()[-1] not in {"run", "create", "explain"})
    module.arguments(parser)
    return parser
