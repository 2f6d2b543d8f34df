"""``--change``: a Dockerfile's instructions, applied to a configuration.

CMD ENTRYPOINT ENV EXPOSE LABEL STOPSIGNAL USER VOLUME WORKDIR, in the forms that Docker takes.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from typing import TYPE_CHECKING, Final

import msgspec

from pyrt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pyrt.images.config import ImageConfig

_PORT: Final = re.compile(r"(?P<first>\d{1,5})(?:-(?P<last>\d{1,5}))?(?:/(?P<protocol>tcp|udp|sctp))?")
_SHELL: Final = ("/bin/sh", "-c")


def apply_changes(config: ImageConfig, changes: Iterable[str]) -> ImageConfig:
    """The configuration with these instructions applied, one after the other. ``UsageError`` names a wrong one."""
    for change in changes:
        instruction, _, rest = change.strip().partition(" ")
        apply = _INSTRUCTIONS.get(instruction.upper())
        if apply is None:
            known = ", ".join(_INSTRUCTIONS)
            raise UsageError(
                f"{change[:100]!r} is not a change that can be applied", hint=f"it begins with one of {known}"
            )
        if "\0" in change:
            raise UsageError(f"{change[:100]!r} has a NUL character")
        config = apply(config, rest.strip(), change)
    return config


def _cmd(config: ImageConfig, text: str, _: str) -> ImageConfig:
    return msgspec.structs.replace(config, cmd=_command(text) or None)


def _entrypoint(config: ImageConfig, text: str, _: str) -> ImageConfig:
    return msgspec.structs.replace(config, entrypoint=_command(text) or None)


def _env(config: ImageConfig, text: str, change: str) -> ImageConfig:
    env = dict(line.partition("=")[::2] for line in config.env) | _pairs(text, change)
    return msgspec.structs.replace(config, env=tuple(f"{name}={value}" for name, value in env.items()))


def _label(config: ImageConfig, text: str, change: str) -> ImageConfig:
    return msgspec.structs.replace(config, labels=config.labels | _pairs(text, change))


def _expose(config: ImageConfig, text: str, change: str) -> ImageConfig:
    ports = dict.fromkeys(config.exposed_ports)
    for word in _required(text, change).split():
        match = _PORT.fullmatch(word)
        first, last = (int(match["first"]), int(match["last"] or match["first"])) if match else (0, 0)
        if not match or not 0 < first <= last <= 65535:
            raise UsageError(f"{word!r} in {change!r} is not a port", hint="write it as 80, 53/udp or 8000-8010")
        ports |= dict.fromkeys(f"{port}/{match['protocol'] or 'tcp'}" for port in range(first, last + 1))
    return msgspec.structs.replace(config, exposed_ports=tuple(ports))


def _stop_signal(config: ImageConfig, text: str, change: str) -> ImageConfig:
    if not re.fullmatch(r"[A-Za-z0-9+-]{1,20}", text):
        raise UsageError(f"{change!r} names no signal", hint="write it as STOPSIGNAL SIGTERM or STOPSIGNAL 15")
    return msgspec.structs.replace(config, stop_signal=text)


def _user(config: ImageConfig, text: str, change: str) -> ImageConfig:
    return msgspec.structs.replace(config, user=_required(text, change))


def _volume(config: ImageConfig, text: str, change: str) -> ImageConfig:
    paths = _list(text)
    if paths is None:
        paths = tuple(_required(text, change).split())
    return msgspec.structs.replace(config, volumes=tuple(dict.fromkeys((*config.volumes, *paths))))


def _workdir(config: ImageConfig, text: str, change: str) -> ImageConfig:
    path = posixpath.normpath(posixpath.join("/", config.working_dir, _required(text, change)))
    # POSIX leaves the meaning of two leading slashes open, so normpath keeps them.
    return msgspec.structs.replace(config, working_dir=f"/{path.lstrip('/')}")


_INSTRUCTIONS: Final[dict[str, Callable[[ImageConfig, str, str], ImageConfig]]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "LABEL": _label,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}


def _command(text: str) -> tuple[str, ...]:
    """A JSON list as it is, anything else for the shell."""
    words = _list(text)
    if words is not None:
        return words
    return (*_SHELL, text) if text else ()


def _list(text: str) -> tuple[str, ...] | None:
    try:
        return msgspec.json.decode(text, type=tuple[str, ...])
    except msgspec.DecodeError:
        return None


def _pairs(text: str, change: str) -> dict[str, str]:
    """ "a=1 b='2 3'", or the old form "a the rest"."""
    name, _, rest = _required(text, change).partition(" ")
    if "=" not in name:
        if not rest:
            raise UsageError(f"{change!r} gives no value", hint="write it as NAME=value")
        return {name: rest.strip()}
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"{change!r} is malformed: {error}") from None
    pairs: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not name or not equals:
            raise UsageError(f"{word!r} in {change!r} is not of the form NAME=value")
        pairs[name] = value
    return pairs


def _required(text: str, change: str) -> str:
    if not text:
        raise UsageError(f"{change!r} lacks a value")
    return text
