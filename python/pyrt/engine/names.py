"""Names for containers that were given none: easy to say, easy to tell apart."""

from __future__ import annotations

import random
import re
from typing import Final

from pyrt.errors import UsageError

_HOW: Final = (
    "amber brisk calm clear coral crisp deft early eager fair fleet fresh gentle glad golden green happy hazel keen "
    "kind light lively lucky mellow merry mild misty neat noble pale plain proud quick quiet rapid ready round sharp "
    "shy silver sleek small smooth solid spry steady still sunny swift tidy vivid warm wise witty young"
).split()
_WHO: Final = (
    "auk badger bat bear beaver bee bison carp cod crane crow deer dove duck eel egret elk falcon finch fox frog gecko "
    "goat goose grouse gull hare hawk heron ibis jay kite lark lemur lion loon lynx magpie marten mink mole moose moth "
    "mouse newt otter owl panda perch pike plover puffin quail raven robin rook seal shrew snipe stoat stork swan tern "
    "thrush tit toad trout vole wasp weasel whale wolf wren yak"
).split()

# Docker's grammar, so that names can be carried over.
_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}")


def generate(container: str) -> str:
    """A name like ``quiet-otter-5f2c``; the last four digits are from the container's id."""
    return f"{random.choice(_HOW)}-{random.choice(_WHO)}-{container[:4]}"


def check(name: str) -> str:
    """The name, if it is one; raises UsageError."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name[:80]!r} can't be the name of a container",
            hint="letters, digits, '_', '.' and '-', the first a letter or digit",
        )
    if len(name) == 64 and not name.strip("0123456789abcdef"):
        raise UsageError("a name can't look like the id of a container")
    return name
