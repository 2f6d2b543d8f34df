"""argparse, bent to what a verb needs: errors that are raised, help for the width at hand, guesses at what was meant.

A parser is built when its verb is first used and kept: building that of `run` costs more than starting a container.
"""

from __future__ import annotations

import argparse
import difflib
import re
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar, cast

import msgspec

from pyrt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

_Made = TypeVar("_Made")

_HELP_COLUMN: Final = 28
_WIDEST: Final = 110
# argparse takes 100 us for a line of `run`, and programs tend to ask for the same again.
_MOST_REMEMBERED: Final = 64
_LONGEST_REMEMBERED: Final = 4096
_REST_OF_CLUSTER: Final = re.compile(r"ignored explicit argument '(.)")
"""What argparse says of the z in -itz."""
_NO_NUMBER: Final = re.compile(r"invalid (?:int|float) value: ('.*')", re.DOTALL)


class Help(msgspec.Struct, frozen=True):
    """What ``--help`` says of a verb besides its options. ``examples`` are pairs of a command and a remark."""

    usage: str
    about: str
    examples: tuple[tuple[str, str], ...] = ()


class Parsed(argparse.Namespace):
    """The options of one command line, which are nobody's to change: who says the same again gets the same object."""

    __slots__ = ("_made",)

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[Callable[[Parsed], Any], Any] = {}

    def once(self, make: Callable[[Parsed], _Made]) -> _Made:
        """What ``make`` makes of these options and of nothing else, made when it is first asked for."""
        if make not in self._made:
            self._made[make] = make(self)
        return cast("_Made", self._made[make])


class HelpWanted(Exception):
    """--help was given."""


class _AskForHelp(argparse.Action):
    def __call__(self, *_: Any) -> NoReturn:
        raise HelpWanted


class _NotBuilt(argparse.Action):
    """An option that Docker has and pyrt does not have yet: refused by name, never ignored."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: str | None = None) -> NoReturn:
        raise UsageError(f"{option} is not built yet: {self.metavar}", hint=str(self.const))


class Parser(argparse.ArgumentParser):
    """The options of one verb."""

    def __init__(self, verb: str, help: Help, *, short_help: bool = True) -> None:
        super().__init__(prog=f"pyrt {verb}", usage=argparse.SUPPRESS, add_help=False, allow_abbrev=False)
        self.verb = verb
        self._given: Sequence[str] = ()
        self._parsed: dict[tuple[str, ...], Parsed] = {}
        self.help = help
        names = ("-h", "--help") if short_help else ("--help",)
        self.add_argument(*names, action=_AskForHelp, nargs=0, help="show this and end")

    def add_not_built(self, *names: str, what: str, hint: str, takes_value: bool = True) -> None:
        """Has an option refused with "NAME is not built yet: WHAT" and a hint."""
        nargs = None if takes_value else 0
        self.add_argument(*names, action=_NotBuilt, nargs=nargs, metavar=what, const=hint, help=argparse.SUPPRESS)

    def add_command(self, help: str) -> None:
        """COMMAND and what follows it, whatever that looks like."""
        action = self.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND", help=help)
        # argparse takes it for required, and would name it besides what is.
        action.required = False

    def parse(self, arguments: Sequence[str]) -> Parsed:
        """The options; raises UsageError or HelpWanted."""
        line = tuple(arguments)
        known = self._parsed.get(line)
        if known is not None:
            return known
        namespace = self._parse(line)
        if sum(map(len, line)) <= _LONGEST_REMEMBERED:
            if len(self._parsed) >= _MOST_REMEMBERED:
                self._parsed.clear()
            self._parsed[line] = namespace
        return namespace

    def _parse(self, arguments: Sequence[str]) -> Parsed:
        self._given = arguments
        namespace = Parsed()
        _, rest = self.parse_known_args(list(arguments), namespace)
        if rest:
            self._refuse_unknown(arguments)
            raise UsageError(f"pyrt {self.verb} takes no argument {rest[0]}", hint=self._see_help())
        return namespace

    def error(self, message: str) -> NoReturn:
        if message.startswith("the following arguments are required"):
            _, _, missing = message.partition(": ")
            self._refuse_unknown(self._given)
            raise UsageError(f"pyrt {self.verb} needs {missing}", hint=self._see_help())
        if match := _REST_OF_CLUSTER.search(message):
            raise UsageError(f"pyrt {self.verb} has no option -{match[1]}", hint=self._see_help())
        message = _NO_NUMBER.sub(r"\1 is no number", message)
        raise UsageError(message.removeprefix("argument "), hint=self._see_help())

    def _see_help(self) -> str:
        return f"usage: pyrt {self.help.usage}; see pyrt {self.verb} --help"

    def _refuse_unknown(self, arguments: Sequence[str]) -> None:
        """Names the first word that looks like an option and is none."""
        known = self._option_string_actions
        for word in arguments:
            name = word.partition("=")[0]
            if word == "--":
                return
            if not word.startswith("-") or word == "-" or name in known:
                continue
            if not name.startswith("--") and name[:2] in known:
                continue
            raise UsageError(
                f"pyrt {self.verb} has no option {name}", hint=did_you_mean(name, known) or self._see_help()
            )

    def options(self) -> list[tuple[list[str], str, bool]]:
        """Names, text and whether a value follows, of every option that is shown: for completion."""
        return [
            (list(action.option_strings), action.help or "", action.nargs != 0)
            for action in self._actions
            if action.option_strings and action.help is not argparse.SUPPRESS
        ]

    def text(self, columns: int) -> str:
        """What --help prints."""
        width = min(columns, _WIDEST)
        formatter = argparse.HelpFormatter(self.prog, max_help_position=_HELP_COLUMN, width=width)
        for group in self._action_groups:
            formatter.start_section(group.title)
            formatter.add_arguments(group._group_actions)
            formatter.end_section()
        parts = [f"Usage: pyrt {self.help.usage}", self.help.about, formatter.format_help().strip(), self._examples()]
        return "\n\n".join(part for part in parts if part) + "\n"

    def _examples(self) -> str:
        if not self.help.examples:
            return ""
        longest = max(len(command) for command, _ in self.help.examples)
        lines = [f"  {command:<{longest}}  {remark}".rstrip() for command, remark in self.help.examples]
        return "examples:\n" + "\n".join(lines)


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """A hint, if ``word`` is close to something known."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else None


def boolean(text: str) -> bool:
    """What an option takes that may be given with a value or without one."""
    if text.lower() not in {"true", "false", "1", "0"}:
        raise argparse.ArgumentTypeError(f"{text} is neither true nor false")
    return text.lower() in {"true", "1"}


def takes(parser: Parser, name: str) -> bool:
    """Whether an option is there: neither unknown nor refused by name."""
    action = parser._option_string_actions.get(name)
    return action is not None and not isinstance(action, _NotBuilt)


def refusal(parser: Parser, name: str) -> str:
    """Why an option is refused by name; "" for one that is there, or unknown."""
    action = parser._option_string_actions.get(name)
    return f"{action.metavar}: {action.const}" if isinstance(action, _NotBuilt) else ""
