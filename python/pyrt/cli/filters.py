"""``--filter NAME=VALUE``: of one name any value has to fit, of several names each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from pyrt.cli.parser import did_you_mean
from pyrt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

T = TypeVar("T")


class Filters(Generic[T]):
    """What a list is narrowed down to."""

    def __init__(self, wanted: dict[str, list[str]], known: Mapping[str, Callable[[T, str], bool]]) -> None:
        self._wanted = wanted
        self._known = known

    @classmethod
    def parse(cls, texts: Iterable[str], known: Mapping[str, Callable[[T, str], bool]]) -> Filters[T]:
        """``known``: what each name means. Raises UsageError."""
        wanted: dict[str, list[str]] = {}
        for text in texts:
            name, equals, value = text.partition("=")
            if not equals:
                raise UsageError(f"the filter {text} has no value", hint="such as status=exited")
            if name not in known:
                hint = did_you_mean(name, known) or f"there are {', '.join(known)}"
                raise UsageError(f"there is no filter {name}", hint=hint)
            wanted.setdefault(name, []).append(value)
        return cls(wanted, known)

    def __contains__(self, name: str) -> bool:
        return name in self._wanted

    def take(self, item: T) -> bool:
        """Whether the item stays."""
        return all(any(self._known[name](item, value) for value in values) for name, values in self._wanted.items())


def has_label(labels: Mapping[str, str], wanted: str) -> bool:
    """Whether there is such a label: NAME, or NAME=VALUE."""
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)
